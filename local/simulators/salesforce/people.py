"""What others do in the org: sellers, administrators, flows. Same rules as the API, but no API call and no permissions.

Tests call the methods; other processes send `POST /_people/<method>` with the arguments as JSON.
`user` is a user's full name or id; `values` is what the REST API would take.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from local.simulators.salesforce.errors import refuse
from local.simulators.salesforce.fields import CONVERTED_STATUS
from local.simulators.salesforce.ids import id18
from local.simulators.salesforce.organization import Organization, Row, Saving
from local.simulators.salesforce.payload import read_values
from local.simulators.salesforce.rules import DuplicateRule, ValidationRule
from local.simulators.salesforce.schema import PICKLISTS, Field, Kind, SObject

if TYPE_CHECKING:
    from collections.abc import Iterator
    from threading import RLock

    from local.simulators.salesforce.oauth import OAuth

SELLER = "Sally Seller"
ACTIONS = (
    "create", "edit", "delete", "undelete", "convert_lead", "merge",
    "begin_transaction", "commit",
    "automation_touches", "automation_touches_next_write", "lock_row",
    "add_contact_role", "remove_contact_role", "add_team_member", "add_user", "add_queue", "deactivate_user",
    "hide_field", "show_field", "make_read_only", "revoke_object", "require_field", "remove_picklist_value",
    "add_validation_rule", "clear_validation_rules", "add_duplicate_rule", "clear_duplicate_rules",
    "assign_leads_to", "set_api_usage", "expire_sessions", "empty_recycle_bin", "switch",
)  # fmt: skip
SWITCHES = ("multi_currency", "state_country_picklists", "opportunity_teams", "page_size", "duplicate_key_misspelled",
            "crlf_in_text_areas")  # fmt: skip


class People:
    """Third parties in one org."""

    def __init__(self, org: Organization, oauth: OAuth, lock: RLock) -> None:
        self._org = org
        self._oauth = oauth
        self._lock = lock

    # Records

    def create(
        self,
        object: str,  # noqa: A002 - the word of the platform
        values: dict[str, Any],
        user: str = SELLER,
        transaction: str | None = None,
        allow_duplicates: bool = False,
    ) -> str:
        """A user makes a row. Returns its id."""
        with self._acting(), self._org.writing_into(transaction):
            sobject = self._object(object)
            typed = read_values(self._org, sobject, values, None, creating=True)
            return self._org.create(sobject, typed, replace(self._as(user), allow_duplicates=allow_duplicates)).id

    def edit(
        self,
        object: str,  # noqa: A002
        id: str,  # noqa: A002
        values: dict[str, Any],
        user: str = SELLER,
        transaction: str | None = None,
    ) -> None:
        """A user changes a row."""
        with self._acting(), self._org.writing_into(transaction):
            sobject = self._object(object)
            typed = read_values(self._org, sobject, values, None, creating=False)
            self._org.update(self._row(object, id), typed, self._as(user))

    def delete(self, object: str, id: str, user: str = SELLER) -> None:  # noqa: A002
        """A user deletes a row, with what cascades from it."""
        with self._acting():
            self._org.delete(self._row(object, id), self._as(user))

    def undelete(self, object: str, id: str, user: str = SELLER) -> None:  # noqa: A002
        """A user brings a row back from the Recycle Bin, with what went with it."""
        with self._acting():
            row = self._row(object, id, deleted=True)
            if not row.deleted:
                raise refuse("FieldIntegrity", [], message=f"{id} is not in the Recycle Bin")
            self._org.undelete(row, self._as(user))

    def convert_lead(
        self, lead: str, user: str = SELLER, opportunity: bool = True, opportunity_name: str | None = None
    ) -> dict[str, str | None]:
        """A user converts a lead into account, contact and, when wanted, opportunity. Returns their ids."""
        with self._acting():
            org, row, saving = self._org, self._row("Lead", lead), self._as(user)
            if row.values["IsConverted"]:
                raise refuse("ConvertedLead", [])
            made = _Conversion(org, saving, row.values).run(opportunity, opportunity_name)
            now = org.now()
            org.touch(
                row, IsConverted=True, Status=CONVERTED_STATUS, ConvertedDate=now.date(),
                ConvertedAccountId=made["account"], ConvertedContactId=made["contact"],
                ConvertedOpportunityId=made["opportunity"], IsUnreadByOwner=False,
                LastModifiedDate=now, SystemModstamp=now, LastModifiedById=saving.user,
            )  # fmt: skip
            return made

    def merge(self, object: str, master: str, loser: str, user: str = SELLER) -> None:  # noqa: A002
        """A user merges two accounts, contacts or leads: what pointed to the loser points to the master."""
        with self._acting():
            org, sobject = self._org, self._object(object)
            if "MasterRecordId" not in sobject.fields:
                raise refuse("NotSupportedHere", label=sobject.label, operation="merge")
            kept, lost, now, saving = self._row(object, master), self._row(object, loser), org.now(), self._as(user)
            for other in org.objects.values():
                for known in other.fields.values():
                    if known.kind is Kind.REFERENCE and sobject.name in known.targets:
                        for row in org.where(other.name, **{known.name: lost.id}):
                            org.touch(row, **{known.name: kept.id}, SystemModstamp=now)
            stamps = {"LastModifiedDate": now, "SystemModstamp": now, "LastModifiedById": saving.user}
            org.touch(kept, **stamps)
            org.touch(lost, IsDeleted=True, MasterRecordId=kept.id, **stamps)
            org.log_deletion(lost)

    def add_contact_role(
        self, opportunity: str, contact: str, primary: bool = False, role: str | None = None, user: str = SELLER
    ) -> str:
        values = {"OpportunityId": opportunity, "ContactId": contact, "IsPrimary": primary, "Role": role}
        return self.create("OpportunityContactRole", values, user)

    def remove_contact_role(self, id: str, user: str = SELLER) -> None:  # noqa: A002
        self.delete("OpportunityContactRole", id, user)

    def add_team_member(self, opportunity: str, user: str, role: str = "Sales Rep") -> str:
        """`user` joins the team of an opportunity."""
        with self._acting():
            values = {"OpportunityId": opportunity, "UserId": self._org.user(user).id, "TeamMemberRole": role}
            return self.create("OpportunityTeamMember", values)

    # Late commits

    def begin_transaction(self) -> str:
        """Something long begins. Returns what create and edit take as `transaction`."""
        with self._acting():
            return self._org.begin()

    def commit(self, transaction: str) -> None:
        """What the transaction wrote appears, with the time stamps of when it was written."""
        with self._acting():
            self._org.commit(transaction)

    # Flows and locks

    def automation_touches(self, object: str, id: str) -> None:  # noqa: A002
        """An automated process touches a row: SystemModstamp moves, nothing else does."""
        with self._acting():
            row = self._row(object, id)
            at = max(self._org.now(), row.values["SystemModstamp"] + timedelta(seconds=1))
            self._org.touch(row, SystemModstamp=at)

    def automation_touches_next_write(self, object: str, times: int = 1) -> None:  # noqa: A002
        """A flow will save each of the next rows of this object that someone writes through the API, a second later."""
        with self._acting():
            self._org.automation[self._object(object).name] = times

    def lock_row(self, id: str, times: int = 1) -> None:  # noqa: A002
        """The next API writes that touch this row find it locked."""
        with self._acting():
            self._org.locks[_full(id)] = times

    # Administrators

    def add_user(self, first: str, last: str, email: str, phone: str | None = None) -> str:
        with self._acting():
            return self._org.add_user(first, last, email, Phone=phone)

    def add_queue(self, name: str) -> str:
        """A queue that can own leads. Returns its id."""
        with self._acting():
            developer_name = name.replace(" ", "_")
            return self._org.add("Group", Name=name, DeveloperName=developer_name, Type="Queue").id

    def deactivate_user(self, name: str) -> None:
        with self._acting():
            self._org.touch(self._org.user(name), IsActive=False)

    def hide_field(self, object: str, field: str) -> None:  # noqa: A002
        """The integration user does not see the field any more."""
        with self._acting():
            self._org.access.hidden.add(self._permission(object, field))

    def show_field(self, object: str, field: str) -> None:  # noqa: A002
        """Undo hide_field and make_read_only."""
        with self._acting():
            permission = self._permission(object, field)
            self._org.access.hidden.discard(permission)
            self._org.access.read_only.discard(permission)

    def make_read_only(self, object: str, field: str) -> None:  # noqa: A002
        """The integration user sees the field but may not change it."""
        with self._acting():
            self._org.access.read_only.add(self._permission(object, field))

    def revoke_object(self, object: str) -> None:  # noqa: A002
        """The integration user loses the object: to it, it is not there."""
        with self._acting():
            self._org.access.revoked.add((self._org.integration_user, self._object(object).name))

    def require_field(self, object: str, field: str) -> None:  # noqa: A002
        """The field must not be empty any more."""
        with self._acting():
            self._change(object, field, required=True)

    def remove_picklist_value(self, object: str, field: str, value: str) -> None:  # noqa: A002
        """The value is deactivated; rows that have it keep it."""
        with self._acting():
            known = self._field(object, field)
            if known.kind not in PICKLISTS or value not in known.values:
                raise refuse("FieldIntegrity", [field], message=f"{field} has no value {value}")
            self._change(object, field, values=tuple(each for each in known.values if each != value))
            for stage in self._org.where("OpportunityStage", ApiName=value) if known.name == "StageName" else []:
                self._org.touch(stage, IsActive=False)

    def add_validation_rule(
        self,
        object: str,  # noqa: A002
        name: str,
        message: str,
        field: str | None = None,
        when: dict[str, Any] | None = None,
    ) -> None:
        """A save is refused with `message` when all fields in `when` have these values; without `when`, always."""
        with self._acting():
            wanted = {self._field(object, each).name: value for each, value in (when or {}).items()}
            rule = ValidationRule(name, self._object(object).name, message, field, wanted)
            self._org.validation_rules.append(rule)

    def clear_validation_rules(self) -> None:
        with self._acting():
            self._org.validation_rules.clear()

    def add_duplicate_rule(
        self,
        object: str,  # noqa: A002
        match_on: list[str],
        allow_save: bool,
        name: str | None = None,
    ) -> None:
        """Rows that agree in all these fields are duplicates; `allow_save` says whether they may be saved anyway."""
        with self._acting():
            sobject = self._object(object)
            fields = tuple(self._field(object, each).name for each in match_on)
            rule = DuplicateRule(name or f"Standard_{sobject.name}_Duplicate_Rule", sobject.name, fields, allow_save)
            self._org.duplicate_rules.append(rule)

    def clear_duplicate_rules(self) -> None:
        with self._acting():
            self._org.duplicate_rules.clear()

    def assign_leads_to(self, owner: str | None) -> None:
        """The active assignment rule gives leads written through the API to this user or queue; None ends it."""
        with self._acting():
            queues = self._org.where("Group", Name=owner) if owner else []
            found = queues[0].id if queues else self._org.user(owner).id if owner else None
            self._org.lead_assignment_owner = found

    def set_api_usage(self, used: int, max: int | None = None) -> None:  # noqa: A002
        """What the org has used of its calls in the last 24 hours, and may use."""
        with self._acting():
            self._org.api_used = used
            self._org.api_max = self._org.api_max if max is None else max

    def expire_sessions(self) -> None:
        """Every token given out so far is worthless."""
        with self._acting():
            self._oauth.sessions.clear()

    def empty_recycle_bin(self) -> None:
        """Deleted rows and the log of their deletion are gone for good."""
        with self._acting():
            for name, rows in self._org.rows.items():
                self._org.rows[name] = {row_id: row for row_id, row in rows.items() if not row.deleted}
            self._org.written += 1
            self._org.deletions.clear()
            self._org.deletions_known_since = self._org.now()

    def switch(self, name: str, to: Any) -> None:
        """Turn one of the org's switches, such as multi_currency or opportunity_teams."""
        with self._acting():
            if name not in SWITCHES:
                raise refuse("FieldIntegrity", [], message=f"switches are {', '.join(SWITCHES)}; not {name}")
            setattr(self._org, name, to)
            self._org.definitions_changed()

    # Finding

    @contextmanager
    def _acting(self) -> Iterator[None]:
        with self._lock, self._org.undoing():
            yield

    def _as(self, user: str) -> Saving:
        return Saving(self._org.user(user).id)

    def _object(self, name: str) -> SObject:
        found = self._org.object_named(name)
        if found is None:
            raise LookupError(f"there is no object {name!r}")
        return found

    def _field(self, object_name: str, name: str) -> Field:
        found = self._object(object_name).find(name)
        if found is None:
            raise LookupError(f"{object_name} has no field {name!r}")
        return found

    def _permission(self, object_name: str, name: str) -> tuple[str, str, str]:
        sobject = self._object(object_name)
        self._org.definition_changed(sobject.name)
        return self._org.integration_user, sobject.name, self._field(object_name, name).name

    def _change(self, object_name: str, name: str, **changes: Any) -> None:
        sobject = self._object(object_name)
        sobject.adopt(replace(self._field(object_name, name), **changes))
        self._org.definition_changed(sobject.name)

    def _row(self, object_name: str, row_id: str, *, deleted: bool = False) -> Row:
        row = self._org.find(self._object(object_name).name, _full(row_id))
        if row is None:
            raise refuse("UnknownRow", [])
        if row.deleted and not deleted:
            raise refuse("Deleted", [])
        return row


class _Conversion:
    """A lead's turn into account, contact and opportunity; no custom field is mapped."""

    def __init__(self, org: Organization, saving: Saving, lead: Any) -> None:
        self.org, self.saving, self.lead = org, replace(saving, allow_duplicates=True), lead

    def run(self, opportunity: bool, name: str | None) -> dict[str, str | None]:
        account, contact = self._account(), ""
        contact = self._contact(account)
        made = self._opportunity(account, contact, name) if opportunity else None
        return {"account": account, "contact": contact, "opportunity": made}

    def _account(self) -> str:
        found = self.org.where("Account", Name=self.lead["Company"])
        if found:
            return found[0].id
        values = self._copied({"Phone": "Phone", "Website": "Website", "Industry": "Industry",
                               "AnnualRevenue": "AnnualRevenue", "NumberOfEmployees": "NumberOfEmployees"})  # fmt: skip
        values |= self._address("Billing")
        return self._create("Account", Name=self.lead["Company"], **values)

    def _contact(self, account: str) -> str:
        same = ("FirstName", "LastName", "Salutation", "Email", "Phone", "MobilePhone", "Title", "LeadSource")
        values = self._copied({name: name for name in same}) | self._address("Mailing")
        return self._create("Contact", AccountId=account, **values)

    def _opportunity(self, account: str, contact: str, name: str | None) -> str:
        stage = min(self.org.where("OpportunityStage", IsActive=True), key=lambda row: row.values["SortOrder"])
        values = {"Name": name or f"{self.lead['Company']}-", "AccountId": account, "ContactId": contact}
        closes = _end_of_quarter(self.org.now().date())
        source = self.lead["LeadSource"]
        return self._create(
            "Opportunity", **values, StageName=stage.values["ApiName"], CloseDate=closes, LeadSource=source
        )

    def _address(self, prefix: str) -> dict[str, Any]:
        parts = ("Street", "City", "State", "PostalCode", "Country", "StateCode", "CountryCode")
        return {f"{prefix}{part}": self.lead[part] for part in parts if self.lead.get(part)}

    def _copied(self, names: dict[str, str]) -> dict[str, Any]:
        return {target: self.lead[source] for target, source in names.items() if self.lead.get(source) is not None}

    def _create(self, object_name: str, **values: Any) -> str:
        given = {**values, "OwnerId": self.lead["OwnerId"], "CurrencyIsoCode": self.lead["CurrencyIsoCode"]}
        if not given["OwnerId"].startswith("005"):
            given["OwnerId"] = self.saving.user
        return self.org.create(self.org.objects[object_name], given, self.saving).id


def _end_of_quarter(day: date) -> date:
    following = (day.month - 1) // 3 * 3 + 4
    return date(day.year + following // 13, (following - 1) % 12 + 1, 1) - timedelta(days=1)


def _full(row_id: str) -> str:
    full = id18(row_id)
    if full is None:
        raise LookupError(f"{row_id!r} is no id")
    return full

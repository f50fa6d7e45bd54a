"""What a save or a deletion sets off by itself: stages, names, primary contacts, state codes, cascades.

The tables at the end say what happens to which object. Reference: StageName drives Probability, ForecastCategoryName,
IsClosed and IsWon unless the same request sets them,
https://resources.docs.salesforce.com/258/latest/en-us/sfdc/pdf/object_reference.pdf (Opportunity)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any

from local.simulators.salesforce.errors import refuse
from local.simulators.salesforce.fields import FORECAST_CATEGORIES
from local.simulators.salesforce.geography import COUNTRIES, STATES, code_of

if TYPE_CHECKING:
    from local.simulators.salesforce.organization import Organization, Row, Saving, Values
    from local.simulators.salesforce.schema import SObject

Before = Callable[["Organization", "Row | None", "Values", set[str]], None]


def before_save(org: Organization, sobject: SObject, old: Row | None, new: Values, given: set[str]) -> None:
    """Complete the values of a row about to be saved. `given` are the fields the request sets."""
    if act := BEFORE.get(sobject.name):
        act(org, old, new, given)
    if org.state_country_picklists:
        for prefix in ADDRESSES.get(sobject.name, ()):
            _state_and_country(sobject, prefix, new, given)


def after_save(org: Organization, old: Row | None, row: Row, given: set[str], saving: Saving) -> None:
    if row.object == "Opportunity" and old is None and "ContactId" in given and row.values["ContactId"]:
        primary = {"OpportunityId": row.id, "ContactId": row.values["ContactId"], "IsPrimary": True}
        org.create(org.objects["OpportunityContactRole"], primary, type(saving)(saving.user))
    if row.object == "OpportunityContactRole" and row.values["IsPrimary"]:
        for other in org.where("OpportunityContactRole", OpportunityId=row.values["OpportunityId"], IsPrimary=True):
            if other.id != row.id:
                now = org.now()
                stamps = {"LastModifiedDate": now, "SystemModstamp": now, "LastModifiedById": saving.user}
                org.touch(other, IsPrimary=False, **stamps)


def before_delete(org: Organization, row: Row) -> None:
    if row.object == "Account" and org.where("Opportunity", AccountId=row.id, IsWon=True):
        raise refuse("DeleteFailed", [], name=row.values["Name"])
    if row.object == "FieldPermissions":
        org.definition_changed(row.values["SobjectType"])
    if row.object == "PermissionSetAssignment":
        org.definitions_changed()


def cascade(org: Organization, row: Row) -> Iterator[Row]:
    """The rows that go when this one goes."""
    for child, field in CASCADES.get(row.object, ()):
        if org.object_named(child):
            yield from org.where(child, **{field: row.id})


def _opportunity(org: Organization, old: Row | None, new: Values, given: set[str]) -> None:
    stages = org.where("OpportunityStage", ApiName=new["StageName"])
    if old is None or old.values["StageName"] != new["StageName"]:
        if stages:
            stage = stages[0].values
            new["IsClosed"], new["IsWon"] = stage["IsClosed"], stage["IsWon"]
            follows = {
                "Probability": stage["DefaultProbability"],
                "ForecastCategoryName": stage["ForecastCategoryName"],
            }
        else:  # unrestricted: any text is a stage, an open one
            new["IsClosed"] = new["IsWon"] = False
            follows = {"Probability": Decimal(0), "ForecastCategoryName": "Pipeline"}
        new |= {name: value for name, value in follows.items() if name not in given}
        if old is not None:
            new["LastStageChangeDate"] = org.now()
    new["ForecastCategory"] = FORECAST_CATEGORIES.get(new["ForecastCategoryName"] or "Pipeline")
    amount, probability = new["Amount"], new["Probability"]
    new["ExpectedRevenue"] = None
    if amount is not None and probability is not None:
        new["ExpectedRevenue"] = (amount * probability / 100).quantize(Decimal("0.01"), ROUND_HALF_UP)
    closes = new["CloseDate"]
    quarter = (closes.month + 2) // 3
    new |= {"FiscalYear": closes.year, "FiscalQuarter": quarter, "Fiscal": f"{closes.year} {quarter}"}


def _lead(org: Organization, old: Row | None, new: Values, given: set[str]) -> None:
    _person(org, old, new, given)
    if old is not None and old.values["IsConverted"]:
        raise refuse("ConvertedLead", [])
    converted = {row.values["ApiName"] for row in org.where("LeadStatus", IsConverted=True)}
    if "Status" in given and new["Status"] in converted:
        raise refuse("ConvertedStatus", ["Status"], status=new["Status"])
    if old is None and new["IsConverted"]:
        raise refuse("NotSimulated", what="a lead that is created as converted")


def _person(_: Organization, _old: Row | None, new: Values, _given: set[str]) -> None:
    new["Name"] = " ".join(part for part in (new.get("FirstName"), new["LastName"]) if part)


def _team_member(org: Organization, _old: Row | None, new: Values, _given: set[str]) -> None:
    user = org.rows["User"][new["UserId"]].values
    new["Name"], new["Title"] = user["Name"], user["Title"]


def _contact_role(org: Organization, old: Row | None, new: Values, given: set[str]) -> None:
    if old is None and "CurrencyIsoCode" not in given:
        opportunity = org.find("Opportunity", new["OpportunityId"])
        new["CurrencyIsoCode"] = opportunity.values["CurrencyIsoCode"] if opportunity else "USD"


def _field_permission(org: Organization, _old: Row | None, new: Values, _given: set[str]) -> None:
    """Only for a field that exists and is not always visible anyway."""
    object_name, _, field_name = new["Field"].partition(".")
    sobject = org.object_named(object_name)
    known = sobject.find(field_name) if sobject else None
    if sobject is None or known is None or not known.permissionable or new["SobjectType"] != sobject.name:
        raise refuse("RequiredFieldPermission", ["Field"], name=new["Field"])
    # An address is granted as a whole. https://salesforce.stackexchange.com/questions/97912
    if any(known.name in each.parts.values() for each in sobject.fields.values()):
        raise refuse("RequiredFieldPermission", ["Field"], name=new["Field"])
    if new["PermissionsEdit"] and not new["PermissionsRead"]:
        raise refuse("FieldIntegrity", [], message="Edit permission on a field needs read permission")
    others = org.where("FieldPermissions", ParentId=new["ParentId"], Field=new["Field"])
    _only_one(new, others)
    org.definition_changed(sobject.name)


def _object_permission(org: Organization, _old: Row | None, new: Values, _given: set[str]) -> None:
    if org.object_named(new["SobjectType"]) is None:
        raise refuse("FieldIntegrity", ["SobjectType"], message=f"{new['SobjectType']} is no object")
    _only_one(new, org.where("ObjectPermissions", ParentId=new["ParentId"], SobjectType=new["SobjectType"]))


def _assignment(org: Organization, _old: Row | None, new: Values, _given: set[str]) -> None:
    key = {name: new[name] for name in ("AssigneeId", "PermissionSetId")}
    _only_one(new, org.where("PermissionSetAssignment", **key))
    org.definitions_changed()


def _permission_set(org: Organization, _old: Row | None, new: Values, _given: set[str]) -> None:
    _only_one(new, org.where("PermissionSet", Name=new["Name"]))


def _only_one(new: Values, others: list[Row]) -> None:
    taken = [other.id for other in others if other.id != new["Id"]]
    if taken:
        raise refuse("DuplicateValue", [], name="<unknown>", id=taken[0][:15])


def _state_and_country(sobject: SObject, prefix: str, new: Values, given: set[str]) -> None:
    """With state and country picklists text and code go together, and only known ones are accepted."""
    country_name, country_code = f"{prefix}Country", f"{prefix}CountryCode"
    state_name, state_code = f"{prefix}State", f"{prefix}StateCode"
    _pair(new, given, country_name, country_code, COUNTRIES, "country/territory")
    states = STATES.get(str(new[country_code]), {})
    if given & {state_name, state_code} and (new[state_name] or new[state_code]) and not new[country_code]:
        raise refuse("StateWithoutCountry", [state_name], label=sobject.fields[state_name].label)
    _pair(new, given, state_name, state_code, states, "state/province")


def _pair(new: Values, given: set[str], text: str, code: str, known: dict[str, str], what: str) -> None:
    source = code if code in given else text if text in given else None
    if source is None:
        return
    value: Any = new[source]
    found = code_of(known, value) if value else None
    if value and found is None:
        raise refuse("BadState", [source], what=what)
    new[code], new[text] = found, known[found] if found else None


BEFORE: dict[str, Before] = {
    "Opportunity": _opportunity,
    "Lead": _lead,
    "Contact": _person,
    "User": _person,
    "OpportunityTeamMember": _team_member,
    "OpportunityContactRole": _contact_role,
    "FieldPermissions": _field_permission,
    "ObjectPermissions": _object_permission,
    "PermissionSet": _permission_set,
    "PermissionSetAssignment": _assignment,
}
ADDRESSES = {"Account": ("Billing", "Shipping"), "Contact": ("Mailing",), "Lead": ("",)}
# parent -> (child, its field)
CASCADES: dict[str, tuple[tuple[str, str], ...]] = {
    "Account": (("Contact", "AccountId"), ("Opportunity", "AccountId")),
    "Opportunity": (("OpportunityContactRole", "OpportunityId"), ("OpportunityTeamMember", "OpportunityId")),
    "Contact": (("OpportunityContactRole", "ContactId"),),
    "PermissionSet": (
        ("FieldPermissions", "ParentId"),
        ("ObjectPermissions", "ParentId"),
        ("PermissionSetAssignment", "PermissionSetId"),
    ),
}

"""A kit per CRM for the contract suite: the client in front of its simulator, column names, and a seller at work.

A new CRM is another `Kit`. Everything else about it stands in a test module of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol, Self
from uuid import uuid4

import requests

from local.simulators.base import Clock, Faults, Simulator
from local.simulators.systems import REAL_URLS, Simulators
from shared.model import Record, RecordChange, RecordRef
from shared.remote.auth import ENTRA, ClientCredentials, EntraTokens
from shared.remote.crm import Crm, RelatedRow, TableShape
from shared.remote.dataverse import API_PATH, Dataverse
from shared.remote.dataverse_errors import DIALECT
from shared.remote.http import Remote
from shared.remote.salesforce import API_PATH as SALESFORCE_PATH
from shared.remote.salesforce import Salesforce
from shared.remote.salesforce_errors import DIALECT as SALESFORCE_DIALECT
from shared.remote.salesforce_limits import DailyBudget
from shared.remote.salesforce_sign_in import OAUTH, SalesforceSignIn, client_credentials

START = datetime(2026, 5, 1, 8, tzinfo=UTC)
PAGE_SIZE = 5


class Kit(Protocol):
    """One CRM to test. Columns by what they are: `title`, `amount`, `currency`, `account`, `email`, `flag`."""

    crm: Crm
    clock: Clock
    faults: Faults
    opportunity: str
    lead: str
    columns: Mapping[str, str]
    complete: Mapping[str, Any]
    """What a seller has to fill in of an opportunity, whatever else."""
    new_lead: Mapping[str, Any]
    won: Mapping[str, Any]
    old_version: str
    """A version that a record no longer has."""
    create_call: Mapping[str, str]
    """What a fault has to match to meet the call that creates a record."""
    create_calls: int
    """How many calls, at least, creating a record with an account and a contact takes."""
    page_size: int

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def asked(self) -> list[str]:
        """Methods and paths since the last look, signing in left out."""

    def new_record_id(self) -> str:
        """Well-formed, and nobody's."""

    def seller_creates(self, table: str, **values: Any) -> RecordRef: ...

    def seller_edits(self, ref: RecordRef, **values: Any) -> None: ...

    def seller_deletes(self, ref: RecordRef) -> None: ...

    def seller_qualifies(self, lead: RecordRef) -> RecordRef: ...

    def rows(self, table: str) -> list[Mapping[str, Any]]:
        """What the CRM holds, whatever the client thinks."""

    def account(self, name: str, **values: Any) -> RelatedRow: ...

    def contact(self, email: str) -> RelatedRow: ...

    def email_of(self, record: Record) -> str | None:
        """The e-mail address of the record's (primary) contact."""

    def refuse_contacts(self) -> str:
        """From now on the CRM refuses new contacts for their last name; returns `table.column`."""


def new_id() -> str:
    return str(uuid4())


def feed(kit: Kit, cursor: str | None, table: str | None = None) -> tuple[list[RecordChange], str]:
    """Everything one poll yields, and where the next one starts."""
    pages = list(kit.crm.changes(table or kit.opportunity, cursor))
    assert [page.cursor for page in pages[:-1]] == [None] * (len(pages) - 1)
    last = pages[-1].cursor
    assert last is not None
    return [change for page in pages for change in page.changes], last


class _Simulated:
    """What the kits share: all systems in this process, and a clock that only moves when told."""

    page_size = PAGE_SIZE

    def __init__(self, name: str) -> None:
        self.clock = Clock(frozen_at=START)
        self.systems = Simulators(self.clock)
        self.session = requests.Session()
        self.systems.mount(self.session)
        self.simulator: Simulator = self.systems.systems[name]
        self.faults = self.simulator.faults

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.systems.stop()

    def remote(self, name: str, url: str, source: Any, dialect: Any, **options: Any) -> Remote:
        return Remote(
            name,
            url,
            source,
            dialect=dialect,
            session=self.session,
            clock=self.clock.now,
            sleep=self.clock.advance,
            **options,
        )

    def calls(self, base: str) -> list[str]:
        entries = [entry for entry in self.simulator.log.entries if entry.path.startswith(base)]
        self.simulator.log.clear()
        return [f"{entry.method} {entry.path.removeprefix(base)}" for entry in entries]


class Dynamics365(_Simulated):
    """Dynamics 365 as the product's application user and as a seller."""

    opportunity, lead = "opportunity", "lead"
    complete: Mapping[str, Any] = {}
    new_lead: Mapping[str, Any] = {"subject": "Inquiry", "lastname": "Byrne"}
    won: Mapping[str, Any] = {"statecode": 1, "statuscode": 3}
    old_version = 'W/"1"'
    create_call: Mapping[str, str] = {"method": "PATCH", "path": "referralid"}
    create_calls = 6
    columns: Mapping[str, str] = {
        "title": "name",
        "amount": "estimatedvalue",
        "currency": "transactioncurrencyid.isocurrencycode",
        "account": "parentaccountid.name",
        "email": "parentcontactid.emailaddress1",
        "flag": "cosell_syncwithpartnercenter",
        "referral_id": "cosell_referralid",
    }
    shapes: Mapping[str, TableShape] = {
        "opportunity": TableShape(
            "opportunity",
            (
                "opportunityid",
                "name",
                "estimatedvalue",
                "estimatedclosedate",
                "cosell_howcanmicrosofthelp",
                "cosell_referralvisibility",
                "cosell_audit",
                "transactioncurrencyid.isocurrencycode",
                "parentaccountid.name",
                "parentaccountid.address1_city",
                "parentcontactid.emailaddress1",
                "owninguser.internalemailaddress",
            ),
            "cosell_referralid",
            "cosell_syncwithpartnercenter",
        ),
        "lead": TableShape(
            "lead",
            ("subject", "companyname", "lastname", "estimatedamount"),
            "cosell_referralid",
            "cosell_syncwithpartnercenter",
        ),
    }

    def __init__(self) -> None:
        super().__init__("dataverse")
        self.org = self.systems.dataverse
        self.people = self.org.people
        app = self.systems.entra.app("dynamics365")
        entra = self.remote("Microsoft Entra ID", REAL_URLS["entra"], None, ENTRA)
        tokens = EntraTokens(entra, app.tenant_id, app.client_id, app.client_secret, clock=self.clock.now)
        source = ClientCredentials(tokens, f"{self.org.origin}/.default")
        self.dataverse = self.remote("Dynamics 365", f"{self.org.origin}/{API_PATH}", source, DIALECT)
        self.crm = Dataverse(self.dataverse, self.shapes)

    def asked(self) -> list[str]:
        return self.calls(f"/{API_PATH}")

    def new_record_id(self) -> str:
        return new_id()

    def seller_creates(self, table: str, **values: Any) -> RecordRef:
        return RecordRef(table, self.people.create(table, values))

    def seller_edits(self, ref: RecordRef, **values: Any) -> None:
        self.people.edit(ref.table, ref.id, values)

    def seller_deletes(self, ref: RecordRef) -> None:
        self.people.delete(ref.table, ref.id)

    def seller_qualifies(self, lead: RecordRef) -> RecordRef:
        return RecordRef("opportunity", self.people.qualify_lead(lead.id)["opportunity"])

    def rows(self, table: str) -> list[Mapping[str, Any]]:
        return [row.values for row in self.org.organization.rows[table].values()]

    def account(self, name: str, **values: Any) -> RelatedRow:
        return RelatedRow("account", "parentaccountid", {"name": name}, values)

    def contact(self, email: str) -> RelatedRow:
        return RelatedRow(
            "contact",
            "parentcontactid",
            {"emailaddress1": email},
            {"lastname": "Smith"},
            parent="parentaccountid",
            parent_link="parentcustomerid_account",
        )

    def email_of(self, record: Record) -> str | None:
        email: str | None = record.values[self.columns["email"]]
        return email

    def refuse_contacts(self) -> str:
        message = "The length of the 'lastname' attribute of the 'contact' entity exceeded the maximum allowed length"
        body = {"error": {"code": "0x80044331", "message": message}}
        self.faults.add("status", method="PATCH", path="contacts", status=400, body=body, times=99)
        return "contact.lastname"


class SalesforceOrg(_Simulated):
    """Salesforce as the integration user and as a seller."""

    opportunity, lead = "Opportunity", "Lead"
    complete: Mapping[str, Any] = {"Name": "Deal", "StageName": "Qualification", "CloseDate": "2026-12-31"}
    new_lead: Mapping[str, Any] = {"Company": "Litware", "LastName": "Byrne"}
    won: Mapping[str, Any] = {"StageName": "Closed Won"}
    old_version = "2026-04-30T08:00:00Z 0"
    create_call: Mapping[str, str] = {"method": "POST", "path": "/composite$"}
    create_calls = 3
    columns: Mapping[str, str] = {
        "title": "Name",
        "amount": "Amount",
        "currency": "CurrencyIsoCode",
        "account": "Account.Name",
        "email": "OpportunityContactRoles.Contact.Email",
        "flag": "Sync_with_Partner_Center__c",
        "referral_id": "Referral_Identifier__c",
    }
    shapes: Mapping[str, TableShape] = {
        "Opportunity": TableShape(
            "Opportunity",
            (
                "Id",
                "Name",
                "Amount",
                "CurrencyIsoCode",
                "CloseDate",
                "StageName",
                "IsWon",
                "Description",
                "How_can_Microsoft_help__c",
                "Audit__c",
                "Account.Name",
                "Account.BillingCity",
                "Owner.Email",
                "OpportunityContactRoles.Contact.Email",
            ),
            "Referral_Identifier__c",
            "Sync_with_Partner_Center__c",
            display=("Audit__c",),
        ),
        "Lead": TableShape(
            "Lead",
            ("Company", "LastName", "Status", "IsConverted"),
            "Referral_Identifier__c",
            "Sync_with_Partner_Center__c",
        ),
    }

    def __init__(self) -> None:
        super().__init__("salesforce")
        self.org = self.systems.salesforce
        self.org.organization.page_size = PAGE_SIZE
        self.people = self.org.people
        self.oauth = self.remote("Salesforce sign-in", self.org.origin, None, OAUTH)
        self.crm = self.client()
        self.crm.find_by_referral("Opportunity", new_id())  # signs in, so that a fault meets what a test is about
        self.asked()

    def client(self, shapes: Mapping[str, TableShape] | None = None, reserve: int = 0) -> Salesforce:
        """A process of its own."""
        grant = client_credentials(self.org.client_id, self.org.client_secret)
        user = SalesforceSignIn(self.oauth, grant, "v67.0", clock=self.clock.now)
        url = f"{self.org.origin}/{SALESFORCE_PATH}/v67.0"
        remote = self.remote("Salesforce", url, user, SALESFORCE_DIALECT, pause_after=DailyBudget(reserve))
        return Salesforce(remote, shapes or self.shapes, user_id=lambda: user.user_id, clock=self.clock.now)

    def asked(self) -> list[str]:
        return self.calls(f"/{SALESFORCE_PATH}/v67.0")

    def new_record_id(self) -> str:
        return "006000000000ZZZAAA"

    def seller_creates(self, table: str, **values: Any) -> RecordRef:
        complete = self.complete if table == self.opportunity else self.new_lead
        return RecordRef(table, self.people.create(table, {**complete, **values}))

    def seller_edits(self, ref: RecordRef, **values: Any) -> None:
        self.people.edit(ref.table, ref.id, values)

    def seller_deletes(self, ref: RecordRef) -> None:
        self.people.delete(ref.table, ref.id)

    def seller_qualifies(self, lead: RecordRef) -> RecordRef:
        return RecordRef("Opportunity", str(self.people.convert_lead(lead.id)["opportunity"]))

    def rows(self, table: str) -> list[Mapping[str, Any]]:
        name = {"account": "Account", "contact": "Contact"}.get(table, table)
        return list(self.org.state()[name])

    def account(self, name: str, **values: Any) -> RelatedRow:
        return RelatedRow("Account", "AccountId", {"Name": name}, values)

    def contact(self, email: str) -> RelatedRow:
        return RelatedRow(
            "Contact",
            "ContactId",
            {"Email": email},
            {"LastName": "Smith"},
            parent="AccountId",
            parent_link="AccountId",
            role="OpportunityContactRole",
        )

    def email_of(self, record: Record) -> str | None:
        emails: list[str] = record.values[self.columns["email"]]
        return emails[0] if emails else None

    def refuse_contacts(self) -> str:
        self.people.add_validation_rule("Contact", "Names", "Such names are not allowed.", "LastName")
        return "Contact.LastName"


KITS: Mapping[str, type[Dynamics365] | type[SalesforceOrg]] = {"dynamics365": Dynamics365, "salesforce": SalesforceOrg}

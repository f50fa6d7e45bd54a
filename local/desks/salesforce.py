"""A seller's desk in Salesforce: its names for objects and fields, and how its deals are won and lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from local.desks.desk import Desk, Row

SELLER = "Sally Seller"
OBJECTS = {"account": "Account", "contact": "Contact", "opportunity": "Opportunity", "lead": "Lead"}
SYSTEM = {
    "sync_flag": "Sync_with_Partner_Center__c",
    "referral_id": "Referral_Identifier__c",
    "referral_link": "Referral_Link__c",
    "audit": "Audit__c",
    "sync_status": "Sync_Status__c",
}
FIELDS: Mapping[str, Mapping[str, str]] = {
    "account": {
        "name": "Name",
        "street": "BillingStreet",
        "city": "BillingCity",
        "state": "BillingState",
        "postal_code": "BillingPostalCode",
        "country": "BillingCountry",
    },
    "contact": {
        "first_name": "FirstName",
        "last_name": "LastName",
        "phone": "Phone",
        "email": "Email",
        "account": "AccountId",
    },
    "opportunity": {
        **SYSTEM,
        "name": "Name",
        "deal_value": "Amount",
        "currency": "CurrencyIsoCode",
        "close_date": "CloseDate",
        "notes": "Description",
        "solutions": "Products__c",
        "help": "How_can_Microsoft_help__c",
        "visibility": "Referral_Visibility__c",
        "microsoft_crm_id": "Microsoft_CRM_Identifier__c",
        "microsoft_status": "Microsoft_Status__c",
        "microsoft_sellers": "Microsoft_Sellers__c",
        "account": "AccountId",
        "owner": "OwnerId",
    },
    "lead": {
        **SYSTEM,
        "customer_name": "Company",
        "contact_first_name": "FirstName",
        "contact_last_name": "LastName",
        "contact_email": "Email",
        "contact_phone": "Phone",
        "street": "Street",
        "city": "City",
        "postal_code": "PostalCode",
        "country": "Country",
        "notes": "Description",
    },
}
HELP: Mapping[str, Any] = {
    "WorkloadSpecificValueProposition": "Workload Specific Value Proposition",
    "CustomerTechnicalArchitecture": "Customer Technical Architecture",
    "ProofOfConceptOrDemo": "Proof Of Concept or Demo",
    "QuotesOrLicensing": "Quotes or Licensing",
    "PostSalesCustomerSuccess": "Post Sales Customer Success",
    "GeneralOrOther": "General or Other",
}
STAGES = {"on_hold": "Prospecting", "open": "Qualification", "won": "Closed Won", "lost": "Closed Lost"}


class SalesforceDesk(Desk):
    crm, label = "salesforce", "Salesforce"
    opportunity, lead = "Opportunity", "Lead"
    address_in, opportunities_in = "SALESFORCE_URL", OBJECTS["opportunity"]
    fields, help_choices = FIELDS, HELP

    def win(self, record_id: str) -> None:
        self._move(record_id, "won")

    def lose(self, record_id: str) -> None:
        self._move(record_id, "lost")

    def qualify(self, lead_id: str) -> str:
        return str(self.act("convert_lead", lead=lead_id)["opportunity"])

    def disqualify(self, lead_id: str) -> None:
        self.act("edit", object="Lead", id=lead_id, values={"Status": "Closed - Not Converted"})

    def save_again(self, record_id: str) -> None:
        self.act("edit", object="Opportunity", id=record_id, values={"NextStep": "saved again"})

    def delete(self, record_id: str) -> None:
        self.act("delete", object="Opportunity", id=record_id)

    def delete_lead(self, lead_id: str) -> None:
        self.act("delete", object="Lead", id=lead_id)

    def add_seller(self, first_name: str, last_name: str, email: str, phone: str) -> str:
        return str(self.act("add_user", first=first_name, last=last_name, email=email, phone=phone))

    def seller(self) -> str:
        return next(str(row["Id"]) for row in self.show()["User"] if row["Name"] == SELLER)

    def _create(self, kind: str, values: Mapping[str, Any]) -> str:
        fields = self._fields(kind, values)
        if kind == "opportunity":
            # ContactId can only be given now; it becomes the primary contact role.
            fields = {"StageName": STAGES["open"], "ContactId": values.get("contact"), **fields}
        return str(self.act("create", object=OBJECTS[kind], values=fields))

    def _edit(self, kind: str, row_id: str, values: Mapping[str, Any]) -> None:
        if fields := self._fields(kind, values):
            self.act("edit", object=OBJECTS[kind], id=row_id, values=fields)
        if kind == "opportunity" and "contact" in values:
            self._set_primary_contact(row_id, values["contact"])

    def _move(self, record_id: str, state: str) -> None:
        self.act("edit", object="Opportunity", id=record_id, values={"StageName": STAGES[state]})

    def _set_primary_contact(self, record_id: str, contact: str | None) -> None:
        if contact:
            self.act("add_contact_role", opportunity=record_id, contact=contact, primary=True)
            return
        for role in self._roles(record_id):
            self.act("remove_contact_role", id=role["Id"])

    def _roles(self, record_id: str) -> list[Row]:
        return [role for role in self.show()["OpportunityContactRole"] if role["OpportunityId"] == record_id]

    def _rows(self, kind: str) -> list[Row]:
        return [self._shown(kind, row) for row in self.show()[OBJECTS[kind]]]

    def _fields(self, kind: str, values: Mapping[str, Any]) -> Row:
        named = dict(values)
        if kind == "opportunity":
            named.pop("contact", None)  # a role, no field
        if named.get("currency", "") is None:
            del named["currency"]  # an org with one currency has no such field
        fields = {FIELDS[kind][name]: value for name, value in named.items()}
        if named.get("help"):
            fields[FIELDS[kind]["help"]] = HELP[named["help"]]
        return fields

    def _shown(self, kind: str, row: Mapping[str, Any]) -> Row:
        shown: Row = {"id": row["Id"], **{name: row.get(field) for name, field in FIELDS[kind].items()}}
        if kind == "opportunity":
            shown["help"] = next((code for code, label in HELP.items() if label == shown["help"]), None)
            shown["contact"] = next((r["ContactId"] for r in self._roles(row["Id"]) if r["IsPrimary"]), None)
            converted = {lead["ConvertedOpportunityId"]: lead["Id"] for lead in self.show()["Lead"]}
            shown["lead"] = converted.get(row["Id"])
            shown["state"] = _state_of_opportunity(row)
        if kind == "lead":
            shown["state"] = _state_of_lead(row)
        return shown


def _state_of_opportunity(row: Mapping[str, Any]) -> str:
    if row["IsClosed"]:
        return "won" if row["IsWon"] else "lost"
    return "on_hold" if row["StageName"] == STAGES["on_hold"] else "open"


def _state_of_lead(row: Mapping[str, Any]) -> str:
    if row["IsConverted"] or row["Referral_Accepted__c"]:
        return "open"
    return "lost" if row["Status"] == "Closed - Not Converted" else "on_hold"

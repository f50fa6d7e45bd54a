"""A seller's desk in Dynamics 365: its names for tables and columns, and how its deals are won and lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from local.desks.desk import Desk, Row

SELLER = "Sally Seller"
SETS = {"account": "accounts", "contact": "contacts", "opportunity": "opportunities", "lead": "leads"}
SYSTEM = {
    "sync_flag": "cosell_syncwithpartnercenter",
    "referral_id": "cosell_referralid",
    "referral_link": "cosell_referrallink",
    "audit": "cosell_audit",
    "sync_status": "cosell_syncstatus",
}
COLUMNS: Mapping[str, Mapping[str, str]] = {
    "account": {
        "name": "name",
        "street": "address1_line1",
        "city": "address1_city",
        "state": "address1_stateorprovince",
        "postal_code": "address1_postalcode",
        "country": "address1_country",
    },
    "contact": {
        "first_name": "firstname",
        "last_name": "lastname",
        "phone": "telephone1",
        "email": "emailaddress1",
    },
    "opportunity": {
        **SYSTEM,
        "name": "name",
        "deal_value": "estimatedvalue",
        "close_date": "estimatedclosedate",
        "notes": "description",
        "solutions": "cosell_products",
        "help": "cosell_howcanmicrosofthelp",
        "visibility": "cosell_referralvisibility",
        "microsoft_crm_id": "cosell_microsoftcrmid",
        "microsoft_status": "cosell_microsoftstatus",
        "microsoft_sellers": "cosell_microsoftsellers",
    },
    "lead": {
        **SYSTEM,
        "name": "subject",
        "customer_name": "companyname",
        "contact_first_name": "firstname",
        "contact_last_name": "lastname",
        "contact_email": "emailaddress1",
        "contact_phone": "telephone1",
        "street": "address1_line1",
        "city": "address1_city",
        "postal_code": "address1_postalcode",
        "country": "address1_country",
        "deal_value": "estimatedamount",
        "close_date": "estimatedclosedate",
        "notes": "description",
    },
}
LOOKUPS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "contact": {"account": ("parentcustomerid_account", "accounts")},
    "opportunity": {
        "account": ("parentaccountid", "accounts"),
        "contact": ("parentcontactid", "contacts"),
        "owner": ("ownerid", "systemusers"),
        "currency": ("transactioncurrencyid", "transactioncurrencies"),
        "lead": ("originatingleadid", "leads"),
    },
}
"""By our name: the navigation property and the entity set it refers to."""
SHOWN_AS = {"parentcustomerid_account": "_parentcustomerid_value"}

HELP: Mapping[str, Any] = {
    "WorkloadSpecificValueProposition": 727000001,
    "CustomerTechnicalArchitecture": 727000002,
    "ProofOfConceptOrDemo": 727000003,
    "QuotesOrLicensing": 727000004,
    "PostSalesCustomerSuccess": 727000005,
    "GeneralOrOther": 727000006,
}
STATES = {"on_hold": (0, 2), "open": (0, 1)}
STATE_NAMES: Mapping[str, Mapping[Any, str]] = {
    "opportunity": {(0, 2): "on_hold", 0: "open", 1: "won", 2: "lost"},
    "lead": {0: "on_hold", 1: "open", 2: "lost"},
}


class Dynamics365Desk(Desk):
    crm, label = "dynamics365", "Dynamics 365"
    opportunity, lead = "opportunity", "lead"
    address_in, opportunities_in = "DYNAMICS365_URL", SETS["opportunity"]
    fields, help_choices = COLUMNS, HELP

    def win(self, record_id: str) -> None:
        self.act("win", opportunity=record_id)

    def lose(self, record_id: str) -> None:
        self.act("lose", opportunity=record_id)

    def qualify(self, lead_id: str) -> str:
        return str(self.act("qualify_lead", lead=lead_id)["opportunity"])

    def disqualify(self, lead_id: str) -> None:
        self.act("edit", table="lead", id=lead_id, values={"statecode": 2, "statuscode": 7})

    def save_again(self, record_id: str) -> None:
        self.act("edit", table="opportunity", id=record_id, values={"customerneed": "saved again"})

    def delete(self, record_id: str) -> None:
        self.act("delete", table="opportunity", id=record_id)

    def delete_lead(self, lead_id: str) -> None:
        self.act("delete", table="lead", id=lead_id)

    def add_seller(self, first_name: str, last_name: str, email: str, phone: str) -> str:
        return str(self.act("add_seller", first_name=first_name, last_name=last_name, email=email, phone=phone))

    def seller(self) -> str:
        return next(str(row["systemuserid"]) for row in self.show()["systemusers"] if row["fullname"] == SELLER)

    def _create(self, kind: str, values: Mapping[str, Any]) -> str:
        return str(self.act("create", table=kind, values=self._columns(kind, values)))

    def _edit(self, kind: str, row_id: str, values: Mapping[str, Any]) -> None:
        self.act("edit", table=kind, id=row_id, values=self._columns(kind, values))

    def _move(self, record_id: str, state: str) -> None:
        statecode, statuscode = STATES[state]
        self.act("edit", table="opportunity", id=record_id, values={"statecode": statecode, "statuscode": statuscode})

    def _rows(self, kind: str) -> list[Row]:
        return [self._shown(kind, row) for row in self.show()[SETS[kind]]]

    def _columns(self, kind: str, values: Mapping[str, Any]) -> Row:
        columns: Row = {}
        for name, value in values.items():
            if name in LOOKUPS.get(kind, {}):
                navigation, target = LOOKUPS[kind][name]
                row_id = self._currency(value) if name == "currency" and value else value
                columns[f"{navigation}@odata.bind"] = f"/{target}({row_id})" if row_id else None
            else:
                columns[COLUMNS[kind][name]] = HELP[value] if name == "help" and value else value
        return columns

    def _shown(self, kind: str, row: Mapping[str, Any]) -> Row:
        shown: Row = {"id": row[f"{kind}id"]}
        shown |= {name: row[column] for name, column in COLUMNS[kind].items()}
        for name, (navigation, _) in LOOKUPS.get(kind, {}).items():
            shown[name] = row[SHOWN_AS.get(navigation, f"_{navigation}_value")]
        if kind == "opportunity":
            shown["help"] = next((code for code, option in HELP.items() if option == shown["help"]), None)
            shown["currency"] = self._iso_code(shown["currency"])
        if kind in STATE_NAMES:
            states = STATE_NAMES[kind]
            both = (row["statecode"], row["statuscode"])
            shown["state"] = states.get(both) or states[row["statecode"]]
        return shown

    def _currency(self, iso_code: str) -> str:
        rows = self.show()["transactioncurrencies"]
        return next(str(row["transactioncurrencyid"]) for row in rows if row["isocurrencycode"] == iso_code)

    def _iso_code(self, currency_id: str | None) -> str | None:
        rows = self.show()["transactioncurrencies"]
        return next((row["isocurrencycode"] for row in rows if row["transactioncurrencyid"] == currency_id), None)

"""The objects of the org and their fields, as tables: lengths, flags and picklists of real describe answers.

Taken from the recorded describes of SFDO-Tooling/CumulusCI (cumulusci/tests/shared_cassettes) and from
https://resources.docs.salesforce.com/258/latest/en-us/sfdc/pdf/object_reference.pdf
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from local.simulators.salesforce.schema import Field, Kind, SObject, label_of

LEAD_SOURCES = ("Web", "Phone Inquiry", "Partner Referral", "Purchased List", "Other")
OPPORTUNITY_TYPES = (
    "Existing Customer - Upgrade", "Existing Customer - Replacement", "Existing Customer - Downgrade", "New Customer",
)  # fmt: skip
# name, probability, closed, won, forecast category
STAGES = (
    ("Prospecting", 10, False, False, "Pipeline"),
    ("Qualification", 10, False, False, "Pipeline"),
    ("Needs Analysis", 20, False, False, "Pipeline"),
    ("Value Proposition", 50, False, False, "Pipeline"),
    ("Id. Decision Makers", 60, False, False, "Pipeline"),
    ("Perception Analysis", 70, False, False, "Pipeline"),
    ("Proposal/Price Quote", 75, False, False, "Pipeline"),
    ("Negotiation/Review", 90, False, False, "Pipeline"),
    ("Closed Won", 100, True, True, "Closed"),
    ("Closed Lost", 0, True, False, "Omitted"),
)
FORECAST_CATEGORIES = {
    "Omitted": "Omitted", "Pipeline": "Pipeline", "Best Case": "BestCase", "Most Likely": "MostLikely",
    "Commit": "Forecast", "Closed": "Closed",
}  # fmt: skip
# name, converted, default
LEAD_STATUSES = (
    ("Open - Not Contacted", False, True),
    ("Working - Contacted", False, False),
    ("Closed - Converted", True, False),
    ("Closed - Not Converted", False, False),
)
CONVERTED_STATUS = "Closed - Converted"
CURRENCIES = (("USD", 2, "1"), ("EUR", 2, "0.9"), ("GBP", 2, "0.8"), ("JPY", 0, "150"))
INDUSTRIES = (
    "Agriculture", "Banking", "Consulting", "Education", "Energy", "Engineering", "Finance", "Government",
    "Healthcare", "Insurance", "Manufacturing", "Media", "Retail", "Technology", "Telecommunications", "Other",
)  # fmt: skip
SALUTATIONS = ("Mr.", "Ms.", "Mrs.", "Dr.", "Prof.", "Mx.")
CONTACT_ROLES = (
    "Business User", "Decision Maker", "Economic Buyer", "Economic Decision Maker", "Evaluator", "Executive Sponsor",
    "Influencer", "Technical Buyer", "Other",
)  # fmt: skip
TEAM_ROLES = (
    "Account Manager", "Channel Manager", "Executive Sponsor", "Lead Qualifier", "Pre-Sales Consultant",
    "Sales Manager", "Sales Rep",
)  # fmt: skip
HELP = (
    "Workload Specific Value Proposition", "Customer Technical Architecture", "Proof Of Concept or Demo",
    "Quotes or Licensing", "Post Sales Customer Success", "General or Other",
)  # fmt: skip


def f(name: str, kind: Kind, flags: str = "CU", length: int = 0, **more: Any) -> Field:
    """A field. Flags: R required, C set at create, U set at update, D defaulted; `-` read-only."""
    more.setdefault("label", label_of(name))
    if kind in (Kind.ID, Kind.REFERENCE):
        length = 18
    if kind is Kind.BOOLEAN:
        more.setdefault("default", False)
        flags += "D"
    if kind is Kind.REFERENCE:
        more.setdefault("relation", name.removesuffix("Id"))
    return Field(
        name,
        kind,
        length=length,
        required="R" in flags,
        create="C" in flags,
        update="U" in flags,
        defaulted="D" in flags,
        permissionable=more.pop("permissionable", "R" not in flags and "-" not in flags),
        **more,
    )


def ref(name: str, *targets: str, flags: str = "CU", **more: Any) -> Field:
    return f(name, Kind.REFERENCE, flags, targets=targets, **more)


def pick(name: str, values: Iterable[str], flags: str = "CU", length: int = 255, **more: Any) -> Field:
    return f(name, Kind.PICKLIST, flags, length, values=tuple(values), **more)


def number(name: str, kind: Kind, precision: int, scale: int = 0, flags: str = "CU", **more: Any) -> Field:
    return f(name, kind, flags, precision=precision, scale=scale, **more)


def audit(deletes: bool = True) -> list[Field]:
    """The fields every row is stamped with."""
    stamps = [
        f("CreatedDate", Kind.DATETIME, "-D"),
        ref("CreatedById", "User", flags="-D", label="Created By ID", relation="CreatedBy"),
        f("LastModifiedDate", Kind.DATETIME, "-D"),
        ref("LastModifiedById", "User", flags="-D", label="Last Modified By ID", relation="LastModifiedBy"),
        f("SystemModstamp", Kind.DATETIME, "-D"),
    ]
    return [f("IsDeleted", Kind.BOOLEAN, "-", label="Deleted"), *stamps] if deletes else stamps


def currency_code(label: str) -> Field:
    iso = [name for name, _, _ in CURRENCIES]
    return pick(
        "CurrencyIsoCode", iso, "CUD", 3, restricted=True, label=label, needs="multi_currency", permissionable=False
    )


def address(prefix: str, **more: Any) -> list[Field]:
    """Street, city, ... under one prefix, the codes that exist with state and country picklists, and the compound."""
    parts = {part[0].lower() + part[1:]: prefix + part for part in ("Street", "City", "State", "PostalCode", "Country")}
    coded = {"stateCode": f"{prefix}StateCode", "countryCode": f"{prefix}CountryCode"}
    return [
        f(f"{prefix}Street", Kind.TEXTAREA, "CU", 255),
        f(f"{prefix}City", Kind.STRING, "CU", 40),
        f(f"{prefix}State", Kind.STRING, "CU", 80, label=f"{prefix} State/Province".strip()),
        f(f"{prefix}PostalCode", Kind.STRING, "CU", 20, label=f"{prefix} Zip/Postal Code".strip()),
        f(f"{prefix}Country", Kind.STRING, "CU", 80),
        f(f"{prefix}StateCode", Kind.PICKLIST, "CU", 10, needs="state_country_picklists", restricted=True),
        f(f"{prefix}CountryCode", Kind.PICKLIST, "CU", 10, needs="state_country_picklists", restricted=True),
        f(
            f"{prefix}Address" if prefix else "Address",
            Kind.ADDRESS,
            "-",
            permissionable=True,
            parts={**parts, **coded},
            **more,
        ),
    ]


def owner(*targets: str) -> Field:
    return ref("OwnerId", *targets, flags="CUD", permissionable=False)


def opportunity() -> SObject:
    fields = [
        f("Id", Kind.ID, "-D", label="Opportunity ID"),
        f("Name", Kind.STRING, "RCU", 120, label="Opportunity Name", id_lookup=True),
        pick("StageName", [name for name, *_ in STAGES], "RCU", label="Stage"),
        f("CloseDate", Kind.DATE, "RCU"),
        number("Amount", Kind.CURRENCY, 18, 2),
        number("Probability", Kind.PERCENT, 3, 0, "CUD", label="Probability (%)"),
        ref("AccountId", "Account"),
        f("Description", Kind.TEXTAREA, "CU", 32000),
        f("NextStep", Kind.STRING, "CU", 255),
        pick("LeadSource", LEAD_SOURCES),
        pick("Type", OPPORTUNITY_TYPES, label="Opportunity Type"),
        pick("ForecastCategoryName", FORECAST_CATEGORIES, "CUD", restricted=True, permissionable=False),
        pick("ForecastCategory", FORECAST_CATEGORIES.values(), "-D", 40, restricted=True),
        f("IsClosed", Kind.BOOLEAN, "-", label="Closed"),
        f("IsWon", Kind.BOOLEAN, "-", label="Won"),
        number("ExpectedRevenue", Kind.CURRENCY, 18, 2, "-", label="Expected Amount"),
        number("TotalOpportunityQuantity", Kind.DOUBLE, 18, 2, label="Quantity"),
        ref("CampaignId", "Campaign"),
        ref("Pricebook2Id", "Pricebook2", label="Price Book ID", permissionable=False),
        ref("ContactId", "Contact", flags="C", permissionable=False),
        owner("User"),
        f("IsPrivate", Kind.BOOLEAN, "CU", label="Private"),
        currency_code("Opportunity Currency"),
        f("Fiscal", Kind.STRING, "-", 6, label="Fiscal Period"),
        number("FiscalQuarter", Kind.INT, 8, flags="-"),
        number("FiscalYear", Kind.INT, 8, flags="-"),
        f("HasOpportunityLineItem", Kind.BOOLEAN, "-", label="Has Line Item"),
        f("HasOpenActivity", Kind.BOOLEAN, "-"),
        f("HasOverdueTask", Kind.BOOLEAN, "-"),
        f("LastActivityDate", Kind.DATE, "-", label="Last Activity"),
        f("LastStageChangeDate", Kind.DATETIME, "-"),
        f("LastViewedDate", Kind.DATETIME, "-"),
        f("LastReferencedDate", Kind.DATETIME, "-"),
        *audit(),
    ]
    children = {
        "OpportunityContactRoles": ("OpportunityContactRole", "OpportunityId"),
        "OpportunityTeamMembers": ("OpportunityTeamMember", "OpportunityId"),
    }
    return SObject("Opportunity", "006", by_name(fields), plural="Opportunities", replicates=True, children=children)


def lead() -> SObject:
    converted = [
        ref(f"Converted{target}Id", target, flags="-", relation=f"Converted{target}")
        for target in ("Account", "Contact", "Opportunity")
    ]
    fields = [
        f("Id", Kind.ID, "-D", label="Lead ID"),
        f("LastName", Kind.STRING, "RCU", 80),
        f("FirstName", Kind.STRING, "CU", 40, permissionable=False),
        pick("Salutation", SALUTATIONS, length=40, permissionable=False),
        f("Name", Kind.STRING, "-", 121, label="Full Name"),
        f("Title", Kind.STRING, "CU", 128),
        f("Company", Kind.STRING, "RCU", 255),
        pick("Status", [name for name, *_ in LEAD_STATUSES], "RCUD", default=LEAD_STATUSES[0][0]),
        f("Email", Kind.EMAIL, "CU", 80, id_lookup=True),
        f("Phone", Kind.PHONE, "CU", 40),
        f("MobilePhone", Kind.PHONE, "CU", 40),
        f("Fax", Kind.PHONE, "CU", 40),
        f("Website", Kind.URL, "CU", 255),
        *address(""),
        f("Description", Kind.TEXTAREA, "CU", 32000),
        pick("LeadSource", LEAD_SOURCES),
        pick("Industry", INDUSTRIES),
        pick("Rating", ("Hot", "Warm", "Cold")),
        number("AnnualRevenue", Kind.CURRENCY, 18, 0),
        number("NumberOfEmployees", Kind.INT, 8, label="Employees"),
        f("CompanyDunsNumber", Kind.STRING, "CU", 9, label="Company D-U-N-S Number"),
        owner("User", "Group"),
        f("IsConverted", Kind.BOOLEAN, "C", label="Converted", permissionable=False),
        f("ConvertedDate", Kind.DATE, "-"),
        *converted,
        ref("MasterRecordId", "Lead", flags="-"),
        f("IsUnreadByOwner", Kind.BOOLEAN, "CU", label="Unread By Owner", default=True, permissionable=False),
        currency_code("Lead Currency"),
        *audit(),
    ]
    return SObject("Lead", "00Q", by_name(fields), replicates=True)


def account() -> SObject:
    fields = [
        f("Id", Kind.ID, "-D", label="Account ID"),
        f("Name", Kind.STRING, "RCU", 255, label="Account Name"),
        pick("Type", ("Prospect", "Customer - Direct", "Customer - Channel", "Other"), length=40, label="Account Type"),
        pick("Industry", INDUSTRIES, length=40),
        ref("ParentId", "Account", label="Parent Account ID"),
        f("Website", Kind.URL, "CU", 255),
        f("Phone", Kind.PHONE, "CU", 40, label="Account Phone"),
        f("Fax", Kind.PHONE, "CU", 40, label="Account Fax"),
        f("AccountNumber", Kind.STRING, "CU", 40),
        *address("Billing"),
        *address("Shipping"),
        number("AnnualRevenue", Kind.CURRENCY, 18, 0),
        number("NumberOfEmployees", Kind.INT, 8, label="Employees"),
        f("Description", Kind.TEXTAREA, "CU", 32000, label="Account Description"),
        f("Site", Kind.STRING, "CU", 80, label="Account Site"),
        f("TickerSymbol", Kind.STRING, "CU", 20),
        pick("AccountSource", LEAD_SOURCES, length=40),
        owner("User"),
        ref("MasterRecordId", "Account", flags="-"),
        currency_code("Account Currency"),
        *audit(),
    ]
    children = {"Contacts": ("Contact", "AccountId"), "Opportunities": ("Opportunity", "AccountId")}
    return SObject("Account", "001", by_name(fields), replicates=True, children=children)


def contact() -> SObject:
    fields = [
        f("Id", Kind.ID, "-D", label="Contact ID"),
        f("LastName", Kind.STRING, "RCU", 80),
        f("FirstName", Kind.STRING, "CU", 40, permissionable=False),
        pick("Salutation", SALUTATIONS, length=40, permissionable=False),
        f("Name", Kind.STRING, "-", 121, label="Full Name"),
        ref("AccountId", "Account"),
        f("Email", Kind.EMAIL, "CU", 80, id_lookup=True),
        f("Phone", Kind.PHONE, "CU", 40, label="Business Phone"),
        f("MobilePhone", Kind.PHONE, "CU", 40),
        f("Title", Kind.STRING, "CU", 128),
        f("Department", Kind.STRING, "CU", 80),
        *address("Mailing"),
        pick("LeadSource", LEAD_SOURCES),
        f("Description", Kind.TEXTAREA, "CU", 32000, label="Contact Description"),
        owner("User"),
        ref("ReportsToId", "Contact"),
        ref("MasterRecordId", "Contact", flags="-"),
        currency_code("Contact Currency"),
        *audit(),
    ]
    children = {"OpportunityContactRoles": ("OpportunityContactRole", "ContactId")}
    return SObject("Contact", "003", by_name(fields), replicates=True, children=children)


def contact_role() -> SObject:
    fields = [
        f("Id", Kind.ID, "-D", label="Contact Role ID"),
        ref("OpportunityId", "Opportunity", flags="RC"),
        ref("ContactId", "Contact", flags="RCU"),
        pick("Role", CONTACT_ROLES, length=40, permissionable=False),
        f("IsPrimary", Kind.BOOLEAN, "CU", label="Primary", permissionable=False),
        currency_code("Currency ISO Code"),
        *audit(),
    ]
    label = "Opportunity Contact Role"
    return SObject("OpportunityContactRole", "00K", by_name(fields), label=label, replicates=True, recycled=False)


def team_member() -> SObject:
    fields = [
        f("Id", Kind.ID, "-D", label="Team Member ID"),
        ref("OpportunityId", "Opportunity", flags="RC"),
        ref("UserId", "User", flags="RC"),
        f("Name", Kind.STRING, "-", 361),
        f("Title", Kind.STRING, "-", 80),
        pick("TeamMemberRole", TEAM_ROLES, length=40, permissionable=False),
        pick("OpportunityAccessLevel", ("Read", "Edit", "All"), "CUD", 40, default="Read", permissionable=False),
        currency_code("Currency ISO Code"),
        *audit(),
    ]
    return SObject(
        "OpportunityTeamMember", "00q", by_name(fields), label="Opportunity Team Member", replicates=True,
        needs="opportunity_teams", recycled=False,
    )  # fmt: skip


def cosell_fields() -> dict[str, list[Field]]:
    """The product's fields by object, as its package makes them."""
    custom: dict[str, Any] = {"custom": True}
    tick = f("Sync_with_Partner_Center__c", Kind.BOOLEAN, **custom)
    key = f("Referral_Identifier__c", Kind.STRING, "CU", 100, external_id=True, unique=True, id_lookup=True, **custom)
    link = f("Referral_Link__c", Kind.URL, "CU", 255, **custom)
    status = f("Sync_Status__c", Kind.STRING, "CU", 255, **custom)
    history = f("Audit__c", Kind.TEXTAREA, "CU", 100_000, **custom)
    return {
        "Opportunity": [
            tick,
            key,
            link,
            pick("How_can_Microsoft_help__c", HELP, restricted=True, **custom),
            f("Referral_Visibility__c", Kind.BOOLEAN, **custom),
            f("Microsoft_CRM_Identifier__c", Kind.STRING, "CU", 100, **custom),
            f("Microsoft_Status__c", Kind.STRING, "CU", 100, **custom),
            f("Microsoft_Sellers__c", Kind.TEXTAREA, "CU", 2000, **custom),
            f("Referral_Program__c", Kind.STRING, "CU", 255, **custom),
            f("Products__c", Kind.STRING, "CU", 255, **custom),
            status,
            history,
        ],
        "Lead": [tick, key, link, f("Referral_Accepted__c", Kind.BOOLEAN, **custom), status, history],
    }


def by_name(fields: Iterable[Field]) -> dict[str, Field]:
    return {each.name: each for each in fields}

"""The tables and columns of a Dynamics 365 Sales organization, as far as co-selling touches them. Holds no rows.

A column is a row of a table below; its lengths, options and targets are those of the table references
https://learn.microsoft.com/dynamics365/sales/developer/entities/opportunity and its neighbours.
"""

from __future__ import annotations

import pickle
import uuid
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any, NamedTuple

BASE_LANGUAGE = 1033
METADATA_IDS = uuid.UUID("6f1c3a52-55f0-4c4b-9a63-2c7f9f8c6a01")


class Kind(StrEnum):
    """What a column holds; the value is its AttributeType in the metadata, except DateOnly (a DateTime there)."""

    STRING = "String"
    MEMO = "Memo"
    BOOLEAN = "Boolean"
    INTEGER = "Integer"
    BIGINT = "BigInt"
    DECIMAL = "Decimal"
    DOUBLE = "Double"
    MONEY = "Money"
    PICKLIST = "Picklist"
    STATE = "State"
    STATUS = "Status"
    DATETIME = "DateTime"
    DATE_ONLY = "DateOnly"
    GUID = "Uniqueidentifier"
    LOOKUP = "Lookup"
    CUSTOMER = "Customer"
    OWNER = "Owner"


REFERENCES = frozenset({Kind.LOOKUP, Kind.CUSTOMER, Kind.OWNER})
TEXTS = frozenset({Kind.STRING, Kind.MEMO})
CHOICES = frozenset({Kind.PICKLIST, Kind.STATE, Kind.STATUS})
NUMBERS = frozenset({Kind.DECIMAL, Kind.DOUBLE, Kind.MONEY})


class Reference(NamedTuple):
    """The value of a lookup."""

    table: str
    id: str


@dataclass
class Column:
    name: str
    kind: Kind
    label: str = ""
    max_length: int | None = None
    low: float | None = None
    high: float | None = None
    precision: int = 2
    options: dict[int, str] = field(default_factory=dict)
    states: dict[int, int] = field(default_factory=dict)  # of a status column: option -> state
    targets: tuple[str, ...] = ()
    default: Any = None
    format: str = ""
    create: bool = True  # accepted when a row is created
    update: bool = True  # accepted when a row is changed
    required: str = "None"
    cascades_delete: bool = False  # the row goes when the row it points to goes; otherwise the link is cleared
    schema_name: str = ""
    labels: dict[int, str] = field(default_factory=dict)
    descriptions: dict[int, str] = field(default_factory=dict)
    custom: bool = False
    metadata_id: str = ""

    def __post_init__(self) -> None:
        self.schema_name = self.schema_name or self.name
        self.labels = self.labels or {BASE_LANGUAGE: self.label or self.schema_name}
        self.label = self.labels.get(BASE_LANGUAGE, self.schema_name)

    @property
    def property_name(self) -> str:
        """The name under which the Web API reads it."""
        return f"_{self.name}_value" if self.kind in REFERENCES else self.name

    @property
    def navigation(self) -> dict[str, str]:
        """Navigation property -> target table. Case-sensitive: of a custom lookup it is the schema name."""
        if self.kind is Kind.CUSTOMER:
            return {f"{self.name}_{target}": target for target in self.targets}
        return {self.schema_name if self.custom else self.name: target for target in self.targets}


@dataclass
class AlternateKey:
    schema_name: str
    columns: tuple[str, ...]
    active_at: datetime  # when the index will have been built
    failed: bool = False
    labels: dict[int, str] = field(default_factory=dict)
    metadata_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def name(self) -> str:
        return self.schema_name.lower()


@dataclass
class Table:
    name: str
    set_name: str
    label: str
    columns: dict[str, Column]
    primary_id: str = ""
    primary_name: str = "name"
    user_owned: bool = True
    change_tracking: bool = False
    optimistic_concurrency: bool = True
    keys: dict[str, AlternateKey] = field(default_factory=dict)
    labels: dict[int, str] = field(default_factory=dict)
    metadata_id: str = ""
    delta_tokens_from: int = 0  # older delta tokens have expired

    def __post_init__(self) -> None:
        self.primary_id = self.primary_id or f"{self.name}id"
        self.labels = self.labels or {BASE_LANGUAGE: self.label}
        self.metadata_id = str(uuid.uuid5(METADATA_IDS, self.name))
        for column in self.columns.values():
            self.adopt(column)

    def adopt(self, column: Column) -> None:
        column.metadata_id = column.metadata_id or str(uuid.uuid5(METADATA_IDS, f"{self.name}.{column.name}"))
        self.columns[column.name] = column

    def by_property(self, name: str) -> Column | None:
        """The column the Web API reads under this name; None when there is none."""
        column = self.columns.get(name.removeprefix("_").removesuffix("_value") if name.startswith("_") else name)
        return column if column and column.property_name == name else None

    def by_navigation(self, name: str) -> tuple[Column, str] | None:
        """The lookup column and target table behind a navigation property."""
        for column in self.columns.values():
            if column.targets and name in column.navigation:
                return column, column.navigation[name]
        return None

    @property
    def has_currency(self) -> bool:
        """Whether its rows hold money in a currency of their own."""
        column = self.columns.get("transactioncurrencyid")
        return column is not None and column.kind is Kind.LOOKUP


# How the tables below are written.

BILLION = 1_000_000_000
TRILLION = 1_000 * BILLION
READ_ONLY: dict[str, Any] = {"create": False, "update": False}
CREATE_ONLY: dict[str, Any] = {"update": False}
REQUIRED: dict[str, Any] = {"required": "ApplicationRequired"}


def text(name: str, max_length: int, **more: Any) -> Column:
    return Column(name, Kind.STRING, max_length=max_length, **{"format": "Text", **more})


def memo(name: str, max_length: int = 2000, **more: Any) -> Column:
    return Column(name, Kind.MEMO, max_length=max_length, **{"format": "TextArea", **more})


def flag(name: str, *, default: bool | None = False, yes: str = "Yes", no: str = "No", **more: Any) -> Column:
    return Column(name, Kind.BOOLEAN, default=default, options={1: yes, 0: no}, **more)


def whole(name: str, low: int = -(2**31), high: int = 2**31 - 1, **more: Any) -> Column:
    return Column(name, Kind.INTEGER, low=low, high=high, **more)


def money(name: str, low: float = -TRILLION, high: float = TRILLION, **more: Any) -> Column:
    return Column(name, Kind.MONEY, low=low, high=high, **more)


def choice(name: str, *labels: str, first: int = 1, **more: Any) -> Column:
    return Column(name, Kind.PICKLIST, options=dict(enumerate(labels, first)), **more)


def lookup(name: str, *targets: str, **more: Any) -> Column:
    return Column(name, Kind.LOOKUP, targets=targets, **more)


def customer(name: str, **more: Any) -> Column:
    return Column(name, Kind.CUSTOMER, targets=("account", "contact"), **more)


def date(name: str, **more: Any) -> Column:
    return Column(name, Kind.DATE_ONLY, format="DateOnly", **more)


def moment(name: str, **more: Any) -> Column:
    return Column(name, Kind.DATETIME, format="DateAndTime", **more)


def guid(name: str, **more: Any) -> Column:
    return Column(name, Kind.GUID, **more)


def states(state_labels: dict[int, str], statuses: dict[int, tuple[str, int]]) -> list[Column]:
    """statecode and statuscode. `statuses`: option -> (label, state); the first option of a state is its default."""
    return [
        Column("statecode", Kind.STATE, options=state_labels, default=0, create=False),
        Column(
            "statuscode",
            Kind.STATUS,
            options={option: label for option, (label, _) in statuses.items()},
            states={option: state for option, (_, state) in statuses.items()},
        ),
    ]


ACTIVE_OR_NOT = states({0: "Active", 1: "Inactive"}, {1: ("Active", 0), 2: ("Inactive", 1)})


def numbered(pattern: str, count: int, max_length: int, **more: Any) -> list[Column]:
    return [text(pattern.format(n), max_length, **more) for n in range(1, count + 1)]


def address() -> list[Column]:
    lengths = {"city": 80, "stateorprovince": 50, "postalcode": 20, "country": 80, "county": 50, "name": 100}
    lines = [text(f"address1_line{n}", 250) for n in (1, 2, 3)]
    return lines + [text(f"address1_{part}", length) for part, length in lengths.items()]


INDUSTRIES = (
    "Accounting", "Agriculture and Non-petrol Natural Resource Extraction", "Broadcasting Printing and Publishing",
    "Brokers", "Building Supply Retail", "Business Services", "Consulting", "Consumer Services",
    "Design, Direction and Creative Management", "Distributors, Dispatchers and Processors",
    "Doctor's Offices and Clinics", "Durable Manufacturing", "Eating and Drinking Places", "Entertainment Retail",
    "Equipment Rental and Leasing", "Financial", "Food and Tobacco Processing", "Inbound Capital Intensive Processing",
    "Inbound Repair and Services", "Insurance", "Legal Services", "Non-Durable Merchandise Retail",
    "Outbound Consumer Service", "Petrochemical Extraction and Distribution", "Service Retail", "SIG Affiliations",
    "Social Services", "Special Outbound Trade Contractors", "Specialty Realty", "Transportation",
    "Utility Creation and Distribution", "Vehicle Retail", "Wholesale",
)  # fmt: skip

SYSTEM_COLUMNS = [
    moment("createdon", **READ_ONLY),
    lookup("createdby", "systemuser", **READ_ONLY),
    lookup("createdonbehalfby", "systemuser", **READ_ONLY),
    moment("modifiedon", **READ_ONLY),
    lookup("modifiedby", "systemuser", **READ_ONLY),
    lookup("modifiedonbehalfby", "systemuser", **READ_ONLY),
    Column("versionnumber", Kind.BIGINT, **READ_ONLY),
    moment("overriddencreatedon", **CREATE_ONLY),
    whole("importsequencenumber", **CREATE_ONLY),
]
OWNER_COLUMNS = [
    Column("ownerid", Kind.OWNER, targets=("systemuser", "team"), required="SystemRequired"),
    lookup("owninguser", "systemuser", **READ_ONLY),
    lookup("owningteam", "team", **READ_ONLY),
    lookup("owningbusinessunit", "businessunit", **READ_ONLY),
]
CURRENCY_COLUMNS = [
    lookup("transactioncurrencyid", "transactioncurrency"),
    Column("exchangerate", Kind.DECIMAL, precision=12, **READ_ONLY),
]

# https://learn.microsoft.com/dynamics365/sales/developer/entities/opportunity
OPPORTUNITY = [
    text("name", 300, label="Topic", **REQUIRED),
    *(
        memo(name)
        for name in (
            "description", "customerneed", "currentsituation", "customerpainpoints", "proposedsolution",
            "qualificationcomments", "quotecomments",
        )
    ),
    money("estimatedvalue", label="Est. Revenue"),
    date("estimatedclosedate", label="Est. Close Date"),
    money("actualvalue", label="Actual Revenue"),
    date("actualclosedate", label="Actual Close Date"),
    date("finaldecisiondate"),
    money("budgetamount", 0, label="Budget Amount"),
    money("totalamount", **READ_ONLY),
    whole("closeprobability", 0, 100, label="Probability"),
    *states(
        {0: "Open", 1: "Won", 2: "Lost"},
        {1: ("In Progress", 0), 2: ("On Hold", 0), 3: ("Won", 1), 4: ("Canceled", 2), 5: ("Out-Sold", 2)},
    ),
    choice("salesstage", "Qualify", "Develop", "Propose", "Close", first=0),
    choice("salesstagecode", "Default Value", default=1),
    text("stepname", 200),
    guid("stageid"),
    guid("processid"),
    text("traversedpath", 1250),
    choice(
        "msdyn_forecastcategory",
        "Pipeline", "Best case", "Committed", "Omitted", "Won", "Lost",
        first=100000001, default=100000001,
    ),
    choice("opportunityratingcode", "Hot", "Warm", "Cold", default=2),
    choice("prioritycode", "Default Value", default=1),
    choice("purchasetimeframe", "Immediate", "This Quarter", "Next Quarter", "This Year", "Unknown", first=0),
    choice("timeline", "Immediate", "This Quarter", "Next Quarter", "This Year", "Not known", first=0),
    choice("purchaseprocess", "Individual", "Committee", "Unknown", first=0),
    choice("budgetstatus", "No Committed Budget", "May Buy", "Can Buy", "Will Buy", first=0),
    choice("need", "Must have", "Should have", "Good to have", "No need", first=0),
    choice("initialcommunication", "Contacted", "Not Contacted", first=0),
    flag("isrevenuesystemcalculated", yes="System Calculated", no="User Provided"),
    flag("decisionmaker"),
    flag("confirminterest", yes="No", no="Yes"),  # the labels really are that way round
    flag("evaluatefit", yes="No", no="Yes"),
    text("emailaddress", 100, format="Email"),
    # Deleting the customer deletes its opportunities: the default of opportunity_customer_accounts,
    # https://learn.microsoft.com/dynamics365/customerengagement/on-premises/developer/entity-relationship-behavior
    customer("customerid", label="Potential Customer", cascades_delete=True, **REQUIRED),
    lookup("parentaccountid", "account", label="Account"),
    lookup("parentcontactid", "contact", label="Contact"),
    lookup("originatingleadid", "lead"),
    *CURRENCY_COLUMNS,
]  # fmt: skip

# https://learn.microsoft.com/dynamics365/sales/developer/entities/lead
LEAD = [
    text("subject", 300, label="Topic", **REQUIRED),
    text("fullname", 160, **READ_ONLY),
    text("firstname", 50),
    text("middlename", 50),
    text("lastname", 50, **REQUIRED),
    text("companyname", 100),
    text("jobtitle", 100),
    *numbered("emailaddress{}", 3, 100, format="Email"),
    *numbered("telephone{}", 3, 50, format="Phone"),
    text("mobilephone", 50),
    text("fax", 50),
    text("websiteurl", 200, format="Url"),
    memo("description"),
    memo("qualificationcomments"),
    money("estimatedamount", 0),
    Column("estimatedvalue", Kind.DOUBLE, low=0, high=BILLION),  # deprecated in favour of estimatedamount
    date("estimatedclosedate"),
    money("budgetamount", 0),
    money("revenue", 0),
    whole("numberofemployees", 0, BILLION),
    choice("industrycode", *INDUSTRIES),
    choice(
        "leadsourcecode",
        "Advertisement", "Employee Referral", "External Referral", "Partner", "Public Relations", "Seminar",
        "Trade Show", "Web", "Word of Mouth", "Other",
    ),
    choice("leadqualitycode", "Hot", "Warm", "Cold", default=2),
    *states(
        {0: "Open", 1: "Qualified", 2: "Disqualified"},
        {
            1: ("New", 0), 2: ("Contacted", 0), 3: ("Qualified", 1),
            4: ("Lost", 2), 5: ("Cannot Contact", 2), 6: ("No Longer Interested", 2), 7: ("Canceled", 2),
        },
    ),
    *address(),
    lookup("parentaccountid", "account"),
    lookup("parentcontactid", "contact"),
    customer("customerid"),
    lookup("qualifyingopportunityid", "opportunity"),
    *CURRENCY_COLUMNS,
]  # fmt: skip

ACCOUNT = [
    text("name", 160, label="Account Name", **REQUIRED),
    text("accountnumber", 20),
    *numbered("telephone{}", 3, 50, format="Phone"),
    text("fax", 50),
    *numbered("emailaddress{}", 3, 100, format="Email"),
    text("websiteurl", 200, format="Url"),
    text("tickersymbol", 10),
    memo("description"),
    choice("industrycode", *INDUSTRIES),
    whole("numberofemployees", 0, BILLION),
    money("revenue", 0),
    *ACTIVE_OR_NOT,
    *address(),
    lookup("primarycontactid", "contact"),
    lookup("parentaccountid", "account"),
    lookup("masterid", "account", **READ_ONLY),
    flag("merged", **READ_ONLY),
    *CURRENCY_COLUMNS,
]

CONTACT = [
    text("fullname", 160, **READ_ONLY),
    text("firstname", 50),
    text("middlename", 50),
    text("lastname", 50, **REQUIRED),
    text("jobtitle", 100),
    *numbered("emailaddress{}", 3, 100, format="Email"),
    *numbered("telephone{}", 3, 50, format="Phone"),
    text("mobilephone", 50),
    memo("description"),
    *ACTIVE_OR_NOT,
    *address(),
    customer("parentcustomerid", cascades_delete=True),
    *CURRENCY_COLUMNS,
]

OPPORTUNITY_CLOSE = [
    text("subject", 200, **REQUIRED),
    memo("description"),
    text("category", 250),
    money("actualrevenue", 0),
    moment("actualstart"),
    moment("actualend"),
    lookup("opportunityid", "opportunity", cascades_delete=True, **REQUIRED),
    choice("opportunitystatecode", "Open", "Won", "Lost", first=0),
    choice("opportunitystatuscode", "In Progress", "On Hold", "Won", "Canceled", "Out-Sold"),
    *states(
        {0: "Open", 1: "Completed", 2: "Canceled"}, {1: ("Open", 0), 2: ("Completed", 1), 3: ("Canceled", 2)}
    ),
    *CURRENCY_COLUMNS,
]  # fmt: skip

# https://learn.microsoft.com/power-apps/developer/data-platform/reference/entities/systemuser and its neighbours
SYSTEM_USER = [
    text("fullname", 200, **READ_ONLY),
    text("firstname", 256),
    text("lastname", 256),
    text("domainname", 1024),
    text("internalemailaddress", 100, format="Email"),
    text("address1_telephone1", 64, label="Main Phone", format="Phone"),
    text("mobilephone", 64, format="Phone"),
    guid("applicationid"),
    guid("azureactivedirectoryobjectid"),
    lookup("businessunitid", "businessunit"),
    flag("isdisabled", yes="Disabled", no="Enabled"),
]
CURRENCY = [
    text("currencyname", 100),
    text("isocurrencycode", 5),
    text("currencysymbol", 13),
    whole("currencyprecision", 0, 4),
    Column("exchangerate", Kind.DECIMAL, precision=12, low=0, high=BILLION),
    *ACTIVE_OR_NOT,
]
BUSINESS_UNIT = [text("name", 160), lookup("parentbusinessunitid", "businessunit")]
ROLE = [text("name", 100), lookup("businessunitid", "businessunit")]
TEAM = [text("name", 160), lookup("businessunitid", "businessunit")]
ORGANIZATION = [
    text("name", 160),
    whole("languagecode"),
    whole("expirechangetrackingindays", 0, 365),
    lookup("basecurrencyid", "transactioncurrency"),
]
PUBLISHER = [
    text("uniquename", 256),
    text("friendlyname", 256),
    text("customizationprefix", 8),
    whole("customizationoptionvalueprefix", 10_000, 99_999),
    memo("description"),
]
SOLUTION = [
    text("uniquename", 65),
    text("friendlyname", 256),
    text("version", 256),
    lookup("publisherid", "publisher"),
    flag("ismanaged", **READ_ONLY),
    flag("isvisible", default=True),
    memo("description"),
]


def standard_tables() -> dict[str, Table]:
    """Fresh tables of an organization that nobody has customized, which may be customized alone."""
    tables: dict[str, Table] = pickle.loads(_standard_tables())  # noqa: S301 - pickled below
    return tables


@cache
def _standard_tables() -> bytes:
    """Pickled: that is how some hundred columns are copied fastest, and making them takes far longer."""

    def table(name: str, set_name: str, label: str, columns: list[Column], **more: Any) -> Table:
        primary_id = more.get("primary_id", f"{name}id")
        own = [guid(primary_id, **CREATE_ONLY), *columns, *SYSTEM_COLUMNS]
        own += OWNER_COLUMNS if more.get("user_owned", True) else []
        own += [
            Column(f"{column.name}_base", Kind.MONEY, precision=4, **READ_ONLY)
            for column in columns
            if column.kind is Kind.MONEY
        ]
        return Table(name, set_name, label, {column.name: copy_of(column) for column in own}, **more)

    tables = [
        table("opportunity", "opportunities", "Opportunity", OPPORTUNITY),
        table("lead", "leads", "Lead", LEAD, primary_name="fullname"),
        table("account", "accounts", "Account", ACCOUNT),
        table("contact", "contacts", "Contact", CONTACT, primary_name="fullname"),
        table(
            "opportunityclose", "opportunitycloses", "Opportunity Close", OPPORTUNITY_CLOSE,
            primary_id="activityid", primary_name="subject",
        ),
        table(
            "transactioncurrency", "transactioncurrencies", "Currency", CURRENCY,
            primary_name="currencyname", user_owned=False,
        ),
        table("systemuser", "systemusers", "User", SYSTEM_USER, primary_name="fullname", user_owned=False),
        table("team", "teams", "Team", TEAM, user_owned=False),
        table("businessunit", "businessunits", "Business Unit", BUSINESS_UNIT, user_owned=False),
        table("role", "roles", "Security Role", ROLE, user_owned=False),
        table("organization", "organizations", "Organization", ORGANIZATION, user_owned=False),
        table(
            "publisher", "publishers", "Publisher", PUBLISHER, primary_name="friendlyname", user_owned=False
        ),
        table("solution", "solutions", "Solution", SOLUTION, primary_name="friendlyname", user_owned=False),
    ]  # fmt: skip
    return pickle.dumps({table.name: table for table in tables})


def copy_of(column: Column) -> Column:
    """A column of its own for each table: customizing one leaves the others alone."""
    return replace(column, options=dict(column.options), labels=dict(column.labels), descriptions={})


HELP_OPTIONS = (
    "Workload Specific Value Proposition",
    "Customer Technical Architecture",
    "Proof Of Concept or Demo",
    "Quotes or Licensing",
    "Post Sales Customer Success",
    "General Or Other",
)


def cosell_columns() -> list[Column]:
    """The columns that the product's provisioning adds to opportunity and lead."""
    columns = [
        flag("cosell_syncwithpartnercenter", label="Sync with Partner Center"),
        text("cosell_referralid", 100, label="Referral Identifier"),
        text("cosell_referrallink", 500, label="Referral Link", format="Url"),
        choice("cosell_howcanmicrosofthelp", *HELP_OPTIONS, first=727000001, label="How can Microsoft help?"),
        text("cosell_products", 2000, label="Products"),
        memo("cosell_audit", 100_000, label="Audit"),
        flag(
            "cosell_referralvisibility",
            label="Referral Visibility",
            yes="Visible to Microsoft sellers",
            no="Not visible to Microsoft sellers",
        ),
        text("cosell_microsoftcrmid", 100, label="Microsoft CRM Identifier"),
        text("cosell_microsoftstatus", 100, label="Microsoft Status"),
        memo("cosell_microsoftsellers", 2000, label="Microsoft Sellers"),
        text("cosell_syncstatus", 200, label="Sync Status"),
    ]
    for column in columns:
        column.custom = True
    return columns

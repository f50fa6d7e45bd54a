"""The field map: the shipped one is whole, and a wrong one is refused with every mistake, line by line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shared.errors import SettingsError
from shared.lenses import Text
from shared.mapping import ASSISTANCE, CHECK_MARK, CONSENT, FieldMap, load_field_map
from shared.referral_paths import closest_path
from shared.settings import ROOT

SHIPPED = ROOT / "mappings" / "dynamics365.toml"
SALESFORCE = ROOT / "mappings" / "salesforce.toml"


def problems_of(tmp_path: Path, text: str) -> list[str]:
    """Return what is said of a map with this text, without the file's name."""
    path = tmp_path / "map.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as refused:
        load_field_map(path)
    assert all(problem.startswith(str(path)) for problem in refused.value.problems)
    return [problem.removeprefix(str(path)) for problem in refused.value.problems]


def changed(*edits: tuple[str, str]) -> str:
    """The shipped map with the first occurrence of each text replaced."""
    text = SHIPPED.read_text(encoding="utf-8")
    for old, new in edits:
        assert old in text
        text = text.replace(old, new, 1)
    return text


# ---------------------------------------------------------------- the shipped maps


@pytest.fixture(scope="module")
def shipped() -> FieldMap:
    return load_field_map(SHIPPED)


@pytest.mark.parametrize("path", sorted((ROOT / "mappings").glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_map_loads_and_takes_opportunities_and_leads(path: Path) -> None:
    field_map = load_field_map(path)

    opportunity, lead = field_map.table_for(is_lead=False), field_map.table_for(is_lead=True)
    assert opportunity is not None
    assert lead is not None
    assert lead.converts_to == opportunity.table


@pytest.mark.parametrize(
    ("pointer", "column", "into_crm", "to_partner_center"),
    [
        ("/name", "name", {"create", "update"}, {"create"}),
        ("/details/dealValue", "estimatedvalue", {"create", "update"}, {"create", "update"}),
        ("/details/currency", "transactioncurrencyid.isocurrencycode", {"create", "update"}, {"create", "update"}),
        ("/details/closingDateTime", "estimatedclosedate", {"create", "update"}, {"create", "update"}),
        ("/details/notes", "description", {"create", "update"}, {"create", "update"}),
        ("/status", "statecode", {"create", "update"}, {"create", "update"}),
        ("/substatus", "statuscode", {"create", "update"}, {"create", "update"}),
        (CONSENT, "cosell_referralvisibility", {"create", "update"}, {"create", "update"}),
        (ASSISTANCE, "cosell_howcanmicrosofthelp", {"create"}, {"create"}),
        ("/customerProfile/team", "parentcontactid.emailaddress1", set(), {"create", "update"}),
        ("/team", "owninguser.internalemailaddress", set(), {"create", "update"}),
        ("/customerProfile/name", "parentaccountid.name", set(), {"create"}),
        ("/customerProfile/address/country", "parentaccountid.address1_country", set(), {"create"}),
        ("/details/requirements/solutions", "cosell_products", {"create", "update"}, {"create", "update"}),
        ("/externalReferenceId", "opportunityid", set(), {"create", "update"}),
        ("/trackingInfo", "cosell_microsoftcrmid", {"create", "update"}, set()),
    ],
)
def test_the_documented_fields_go_where_the_connector_took_them(
    shipped: FieldMap, pointer: str, column: str, into_crm: set[str], to_partner_center: set[str]
) -> None:
    rows = [
        row
        for row in shipped.tables["opportunity"].fields
        if pointer in row.lens.pointers and column in row.lens.columns
    ]

    assert [(row.to_crm, row.to_partner_center) for row in rows] == [(into_crm, to_partner_center)]


@pytest.mark.parametrize(
    ("table", "pointer", "column", "into_crm", "to_partner_center"),
    [
        ("Opportunity", "/name", "Name", {"create", "update"}, {"create"}),
        ("Opportunity", "/details/dealValue", "Amount", {"create", "update"}, {"create", "update"}),
        ("Opportunity", "/details/currency", "CurrencyIsoCode", {"create", "update"}, {"create", "update"}),
        ("Opportunity", "/details/closingDateTime", "CloseDate", {"create", "update"}, {"create", "update"}),
        ("Opportunity", "/details/notes", "Description", {"create", "update"}, {"create", "update"}),
        ("Opportunity", "/status", "StageName", {"create", "update"}, {"create", "update"}),
        ("Opportunity", CONSENT, "Referral_Visibility__c", {"create", "update"}, {"create", "update"}),
        ("Opportunity", ASSISTANCE, "How_can_Microsoft_help__c", {"create"}, {"create"}),
        (
            "Opportunity",
            "/customerProfile/team",
            "OpportunityContactRoles.Contact.Email",
            set(),
            {"create", "update"},
        ),
        ("Opportunity", "/team", "Owner.Email", set(), {"create", "update"}),
        ("Opportunity", "/customerProfile/name", "Account.Name", set(), {"create"}),
        ("Opportunity", "/customerProfile/address/country", "Account.BillingCountry", set(), {"create"}),
        ("Opportunity", "/details/requirements/solutions", "Products__c", {"create", "update"}, {"create", "update"}),
        ("Opportunity", "/externalReferenceId", "Id", set(), {"create", "update"}),
        ("Opportunity", "/trackingInfo", "Microsoft_CRM_Identifier__c", {"create", "update"}, set()),
        ("Opportunity", "/referralProgram", "Referral_Program__c", {"create", "update"}, set()),
        ("Lead", "/customerProfile/name", "Company", {"create", "update"}, set()),
        ("Lead", "/customerProfile/team/0/lastName", "LastName", {"create", "update"}, set()),
        ("Lead", "/customerProfile/team/0/firstName", "FirstName", {"create", "update"}, set()),
        ("Lead", "/customerProfile/team/0/email", "Email", {"create", "update"}, set()),
        ("Lead", "/customerProfile/team/0/phoneNumber", "Phone", {"create", "update"}, set()),
        ("Lead", "/status", "Status", {"create", "update"}, {"create", "update"}),
    ],
)
def test_the_documented_fields_of_salesforce_go_where_the_connector_took_them(
    table: str, pointer: str, column: str, into_crm: set[str], to_partner_center: set[str]
) -> None:
    fields = load_field_map(SALESFORCE).tables[table].fields

    rows = [row for row in fields if pointer in row.lens.pointers and column in row.lens.columns]

    assert [(row.to_crm, row.to_partner_center) for row in rows] == [(into_crm, to_partner_center)]


def test_the_fields_of_microsofts_package_keep_their_names() -> None:
    """https://learn.microsoft.com/partner-center/referrals/connector-salesforce"""
    names = {
        "Sync_with_Partner_Center__c",
        "Referral_Identifier__c",
        "Referral_Link__c",
        "How_can_Microsoft_help__c",
        "Products__c",
        "Audit__c",
    }

    table = load_field_map(SALESFORCE).tables["Opportunity"]

    assert names <= {*table.shape.columns, table.columns.referral_link}


def test_a_crm_with_one_currency_needs_no_column_for_it() -> None:
    table = load_field_map(SALESFORCE, only_currency="USD").tables["Opportunity"]

    assert "CurrencyIsoCode" not in table.shape.columns
    assert "Amount" in table.shape.columns


def test_rows_below_a_deal_get_defaults_lines_and_roles() -> None:
    document = {
        "customerProfile": {
            "name": "Contoso",
            "address": {"addressLine1": "1 Example Way", "addressLine2": "Suite 5"},
            "team": [{"firstName": "Sue", "email": "sue@contoso.example"}, {"email": "bo@contoso.example"}],
        }
    }

    related = load_field_map(SALESFORCE).tables["Opportunity"].related
    account, *contacts = [row for each in related for row in each.rows(document)]

    assert account.values["BillingStreet"] == "1 Example Way\nSuite 5"
    assert [(row.values["LastName"], row.link, row.role) for row in contacts] == [
        ("(unknown)", "ContactId", "OpportunityContactRole"),
        ("(unknown)", "", "OpportunityContactRole"),
    ]


def test_one_line_of_a_text_cannot_go_into_the_crm(tmp_path: Path) -> None:
    path = tmp_path / "map.toml"
    text = SALESFORCE.read_text(encoding="utf-8").replace("line = 1\n", 'line = 1\nto_crm = ["create"]\n')
    path.write_text(text, encoding="utf-8")

    with pytest.raises(SettingsError, match="one line of a text cannot go into the CRM"):
        load_field_map(path)


def test_every_help_option_has_its_code(shipped: FieldMap) -> None:
    assistance = shipped.tables["opportunity"].assistance
    assert assistance is not None

    # https://learn.microsoft.com/connectors/partnercenterref/
    codes = (
        "WorkloadSpecificValueProposition",
        "CustomerTechnicalArchitecture",
        "ProofOfConceptOrDemo",
        "QuotesOrLicensing",
        "PostSalesCustomerSuccess",
        "GeneralOrOther",
    )
    assert [assistance.lens.to_crm(code, None) for code in codes] == [727000001 + n for n in range(6)]


def test_the_shape_of_a_table_names_each_column_once(shipped: FieldMap) -> None:
    shape = shipped.tables["opportunity"].shape

    assert len(set(shape.columns)) == len(shape.columns)
    assert {"cosell_referralid", "cosell_syncwithpartnercenter", "parentaccountid.name", "statecode"} <= {
        *shape.columns
    }
    assert (shape.referral_id, shape.sync_flag) == ("cosell_referralid", "cosell_syncwithpartnercenter")


def test_leads_can_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "map.toml"
    path.write_text(changed(("leads = true", "leads = false")), encoding="utf-8")

    without = load_field_map(path)

    assert without.table_for(is_lead=True) is None
    assert [table.table for table in without.watched] == ["opportunity"]
    assert without.tables["lead"].converts_to == "opportunity"


@pytest.mark.parametrize(("switch", "mark"), [("false", ""), ("true", CHECK_MARK)])
def test_the_check_mark_in_the_name_is_a_switch(tmp_path: Path, switch: str, mark: str) -> None:
    path = tmp_path / "map.toml"
    path.write_text(changed(("check_mark_in_name = false", f"check_mark_in_name = {switch}")), encoding="utf-8")

    lens = next(row.lens for row in load_field_map(path).tables["opportunity"].fields if row.name == "name")

    assert isinstance(lens, Text)
    assert lens.mark == mark


def test_related_rows_are_made_from_the_referral(shipped: FieldMap) -> None:
    document = {
        "customerProfile": {
            "name": "Contoso" + "x" * 200,
            "address": {"postalCode": "98052", "city": "Redmond", "state": None},
            "team": [
                {"firstName": "Sue", "email": "sue@contoso.example"},
                {"firstName": "Nobody", "email": None},
                {"firstName": "Ann", "email": "ann@contoso.example"},
            ],
        }
    }

    account, *contacts = [row for related in shipped.tables["opportunity"].related for row in related.rows(document)]

    name = "Contoso" + "x" * 152 + "…"
    assert account.match == {"name": name, "address1_postalcode": "98052"}
    assert account.values == {"name": name, "address1_city": "Redmond", "address1_postalcode": "98052"}
    assert [(row.match["emailaddress1"], row.link) for row in contacts] == [
        ("sue@contoso.example", "parentcontactid"),
        ("ann@contoso.example", ""),
    ]
    assert {(row.parent, row.parent_link) for row in contacts} == {("parentaccountid", "parentcustomerid_account")}


@pytest.mark.parametrize("document", [{}, {"customerProfile": None}, {"customerProfile": {"name": "", "team": None}}])
def test_what_nothing_identifies_is_no_related_row(shipped: FieldMap, document: dict[str, object]) -> None:
    assert [row for related in shipped.tables["opportunity"].related for row in related.rows(document)] == []


# ---------------------------------------------------------------- mistakes

FULL_OF_MISTAKES = """\
colour = "blue"                         # 1

[scope]
leads = "perhaps"

[switches]
check_mark_in_nam = true                # 7

[referral]
attributes = [{ type = 3 }]             # 10

[tables.opportunity]
origin = 5

[tables.opportunity.columns]            # 15
sync_flag = "cosell_sync"

[[tables.opportunity.fields]]           # 18
name = "Notes!"
type = "txt"
partner_center = "/detials/notes"
max_length = -1
conflict = "newest"
to_crm = ["create", "updat"]            # 24
labl = "Description"

[[tables.opportunity.fields]]           # 27
name = "deal_value"
type = "money"
partner_center = "/details/dealValue"
crm = "estimatedvalue"

[[tables.opportunity.fields]]           # 33
name = "help"
type = "choice"
partner_center = "/inviteContext/assistanceRequestCode"
crm = "help"
places = 7

[tables.opportunity.fields.values]
GeneralOrOther = 7.5                    # 41

[[tables.opportunity.fields]]           # 43
name = "owner"
type = "person"
partner_center = "/team"

[tables.opportunity.fields.parts]
mail = "owninguser.email"               # 49

[[tables.opportunity.fields]]           # 51
type = "text"

[[tables.opportunity.fields]]
name = "deal_value"                     # 55
type = "flag"
partner_center = "/favorite"
crm = "favorite"

[[tables.opportunity.states]]           # 60
state = "halfway"
read = { statecode = [0] }
write = { statecode = 0 }

[[tables.opportunity.related]]          # 65
table = "account"
link = "parentaccountid"
values = { name = "/customerProfile/name" }

[tables.opportunity.related.match]      # 70

[tables.lead]
converts_to = "oportunity"
"""

EXPECTED = [
    (1, "colour: is not known here. Accepted: referral, scope, switches, tables"),
    (4, 'scope leads: "perhaps" is wrong. '),
    (7, "switches check_mark_in_nam: is not known here; did you mean check_mark_in_name?"),
    (10, "referral attributes 1 type: 3 is wrong. Input should be a valid string"),
    (13, "tables opportunity origin: 5 is wrong. Input should be a valid string"),
    (15, "tables opportunity columns referral_id: is missing"),
    (18, "tables opportunity fields: exactly one field must have type lifecycle"),
    (19, 'tables opportunity fields Notes! name: "Notes!" is wrong. String should match pattern'),
    (20, "tables opportunity fields Notes! type: \"txt\" is wrong. Input should be 'text', 'country', 'money', "),
    (21, 'fields Notes! partner_center: "/detials/notes" is wrong. this is no path of a referral; '),
    (22, "tables opportunity fields Notes! max_length: -1 is wrong. Input should be greater than or equal to 0"),
    (23, "fields Notes! conflict: \"newest\" is wrong. Input should be 'partner_center', 'crm', 'latest' or 'hold'"),
    (24, "fields Notes! to_crm 2: \"updat\" is wrong. Input should be 'create' or 'update'"),
    (25, "tables opportunity fields Notes! labl: is not known here; did you mean label? Accepted: conflict, "),
    (27, "tables opportunity fields deal_value: a field of type money needs partner_center_currency, crm_currency"),
    (38, "tables opportunity fields help places: 7 is wrong. Input should be less than or equal to 4"),
    (41, "tables opportunity fields help values GeneralOrOther: 7.5 is wrong. accepted are a whole number, "),
    (49, "tables opportunity fields owner parts mail: is not known here. Input should be 'firstName', "),
    (51, "tables opportunity fields 5 name: is missing"),
    (55, "tables opportunity fields deal_value name: another field of this table has this name"),
    (60, "tables opportunity states: no row for on_hold, open, won, lost"),
    (61, "tables opportunity states halfway state: \"halfway\" is wrong. Input should be 'on_hold', 'open', "),
    (62, "tables opportunity states halfway read statecode: [0] is wrong. accepted are a whole number, "),
    (63, "tables opportunity states halfway write statecode: what is written would not be read as this state"),
    (70, "tables opportunity related 1 match: Dictionary should have at least 1 item"),
    (72, "tables lead columns: is missing"),
    (72, "tables lead fields: exactly one field must have type lifecycle"),
    (72, "tables lead fields: is missing"),
    (72, "tables lead states: is missing"),
    (72, "tables lead states: no row for on_hold, open"),
    (73, "tables lead converts_to: oportunity is no table of this file. Accepted: lead, opportunity"),
]


def test_every_mistake_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    problems = problems_of(tmp_path, FULL_OF_MISTAKES)

    lines = [int(re.findall(r"^, line (\d+): ", problem)[0]) for problem in problems]
    assert lines == sorted(lines)
    unexpected = [
        problem
        for line, problem in zip(lines, problems, strict=True)
        if not any(line == number and text in problem for number, text in EXPECTED)
    ]
    missing = [
        (number, text)
        for number, text in EXPECTED
        if not any(line == number and text in problem for line, problem in zip(lines, problems, strict=True))
    ]
    assert (unexpected, missing) == ([], [])
    assert len(problems) == len(EXPECTED)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('conflict = "latest"', 'conflict = "last"', 'fields notes conflict: "last" is wrong'),
        ('name = "close_date"', 'name = "deal_value"', "another field of this table has this name"),
        ('converts_to = "opportunity"', 'converts_to = "deal"', "deal is no table of this file. Accepted: "),
        ('state = "won"', 'state = "lost"', "no row for won"),
        ('type = "lifecycle"', 'type = "flag"', "a field of type flag needs partner_center, crm"),
        (
            "write = { statecode = 0, statuscode = 2 }",
            "write = { statecode = 0, statuscode = 1 }",
            "write statuscode: what is written would not be read as this state: read has 2",
        ),
        ('partner_center = "/details/notes"', 'partner_center = "/notes"', "the closest known is "),
    ],
)
def test_one_slip_in_the_shipped_map_is_told_with_its_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = changed((old, new))

    problem = next(problem for problem in problems_of(tmp_path, text) if said in problem)

    line = int(re.findall(r"line (\d+)", problem)[0])
    around = text.splitlines()[line - 1 : line + 4]
    assert any(
        new in near or near.startswith(("[[tables.opportunity.fields", "[[tables.opportunity.states"))
        for near in around
    )


def test_a_slip_in_a_tables_header_is_told_too(tmp_path: Path) -> None:
    text = changed(("[[tables.opportunity.fields]]", "[[tables.opportunity.feilds]]"))

    assert problems_of(tmp_path, text)


def test_lines_are_right_with_windows_line_ends_and_comments(tmp_path: Path) -> None:
    text = changed(('conflict = "latest"', 'conflict = "last"  # the newest'))
    wanted = text.splitlines().index('conflict = "last"  # the newest') + 1
    path = tmp_path / "map.toml"
    path.write_bytes(text.replace("\n", "\r\n").encode())

    with pytest.raises(SettingsError, match=f"line {wanted}: ") as refused:
        load_field_map(path)

    assert len(refused.value.problems) == 1


def test_without_a_table_for_opportunities_nothing_can_be_synchronized(tmp_path: Path) -> None:
    text = changed(
        ("[tables.opportunity.columns]", '[tables.opportunity]\nconverts_to = "lead"\n\n[tables.opportunity.columns]')
    )

    problems = problems_of(tmp_path, text)

    assert len(problems) == 1
    assert problems[0].endswith("tables: no table takes opportunities: one must be without converts_to")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ", line 1: tables: is missing"),
        ("tables = 3", ", line 1: tables: 3 is wrong. Input should be a valid dictionary"),
        ("[tables]", ", line 1: tables: Dictionary should have at least 1 item"),
        ("\n[tables]\nopportunity = 3", ", line 3: tables opportunity: 3 is wrong. "),
        ("[tables.opportunity]\nfields = 3\nstates = [4]", ", line 3: tables opportunity states 1: 4 is wrong. "),
    ],
)
def test_a_file_of_the_wrong_shape_is_refused_in_words(tmp_path: Path, text: str, said: str) -> None:
    assert any(problem.startswith(said) for problem in problems_of(tmp_path, text))


def test_a_missing_file_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"none\.toml: No such file or directory. MAPPING_FILE must name a field map"
    ):
        load_field_map(tmp_path / "none.toml")


def test_a_folder_is_no_map(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"Is a directory\. MAPPING_FILE must name a field map"):
        load_field_map(tmp_path)


@pytest.mark.parametrize("content", [b"a = = 3", b'name = "x"\nname = "y"', b"\xff\xfe\x00", b"[[tables]]\n[tables"])
def test_what_is_no_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "map.toml"
    path.write_bytes(content)

    with pytest.raises(SettingsError, match="this is no TOML: "):
        load_field_map(path)


# ---------------------------------------------------------------- paths


@pytest.mark.parametrize(
    ("pointer", "closest"),
    [
        ("/name", ""),
        ("/", ""),
        ("/team", ""),
        ("/customerProfile/team/0/firstName", ""),
        ("/customerProfile/team/17/firstName", ""),
        ("/nam", "/name"),
        ("/details/dealvalue", "/details/dealValue"),
        ("/detials/notes", "/details/notes"),
        ("/invitationContext/assistanceRequestCode", "/inviteContext/assistanceRequestCode"),
        ("/customerProfile/team/3/fristName", "/customerProfile/team/0/firstName"),
    ],
)
def test_a_slip_of_the_pen_is_answered_with_the_closest_path(pointer: str, closest: str) -> None:
    assert closest_path(pointer) == closest

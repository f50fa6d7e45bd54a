"""The Salesforce simulator's SOQL, its pages, and /updated and /deleted."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import requests

from tests.contract.test_sim_salesforce import NOW, STAMP, World, refusal


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def deals() -> World:
    """Opportunities A to D in two accounts, B and C with contacts."""
    world = World()
    fabrikam = world.create("Account", Name="Fabrikam", Industry="Technology")
    one = world.create("Contact", LastName="One", Email="one@fabrikam.example", AccountId=fabrikam)
    two = world.create("Contact", LastName="Two", Email="two@fabrikam.example")
    a = {"Name": "A", "Amount": 10, "NextStep": "50% off_", "CloseDate": "2026-12-01"}
    b = {"Name": "B", "Amount": 20, "StageName": "Closed Won", "AccountId": fabrikam, "ContactId": one}
    c = {"Name": "C", "NextStep": 'it\'s "here"\\n', "AccountId": fabrikam, "Sync_with_Partner_Center__c": True}
    d = {"Name": "D", "Amount": 20, "CloseDate": "2027-01-31", "Referral_Identifier__c": "Ab-1"}
    for values in (a, b, c, d):
        row_id = world.create(**values)
        world.clock.advance(60)
        if values["Name"] == "C":
            world.people.add_contact_role(row_id, two, role="Evaluator")
    return world


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("Name = 'a'", "A"),
        ("Name != 'A'", "BCD"),
        ("Name <> 'A'", "BCD"),
        ("Name IN ('a', 'D', 'x')", "AD"),
        ("Name NOT IN ('A', 'D')", "BC"),
        ("Name LIKE '%'", "ABCD"),
        ("NextStep LIKE '50\\% o%'", "A"),
        ("NextStep LIKE '%off\\_'", "A"),
        ("NextStep LIKE '%off__'", ""),
        ("NextStep LIKE '__% o%'", "A"),
        ("NextStep = 'it\\'s \\\"here\\\"\\\\n'", "C"),
        ("NextStep = null", "BD"),
        ("NextStep != null", "AC"),
        ("NextStep != '50% OFF_'", "BCD"),
        ("NextStep = ''", "BD"),
        ("Amount = 20", "BD"),
        ("Amount > 10", "BD"),
        ("Amount >= 10.0", "ABD"),
        ("Amount < 11", "A"),
        ("Amount <= -1", ""),
        ("Amount = null", "C"),
        ("Amount IN (10, null)", "AC"),
        ("IsClosed = true", "B"),
        ("IsClosed = FALSE AND Amount = 20", "D"),
        ("Sync_with_Partner_Center__c != false", "C"),
        ("CloseDate = 2026-12-01", "A"),
        ("CloseDate > 2026-12-31", "D"),
        ("CreatedDate >= 2026-11-27T12:01:30Z", "BCD"),
        ("CreatedDate < 2026-11-27T12:01:30Z", "A"),
        ("CreatedDate = 2026-11-27T13:01:30+01:00", "B"),
        ("SystemModstamp > 2026-11-27T12:01:30.000Z", "CD"),
        ("Referral_Identifier__c = 'AB-1'", "D"),
        ("Account.Name = 'fabrikam'", "BC"),
        ("Account.Name = null", "AD"),
        ("Account.Industry IN ('Technology')", "BC"),
        ("Owner.Email = 'cosell.sync@fabrikam.example'", "ABCD"),
        ("Account.Owner.Name LIKE 'Co%'", "BC"),
        ("Opportunity.Name = 'A'", "A"),
        ("NOT Name = 'A'", "BCD"),
        ("NOT (Name = 'A' OR Name = 'B')", "CD"),
        ("(Name = 'A' OR Name = 'B') AND Amount = 20", "B"),
        ("Name = 'A' OR Name = 'B' OR Name = 'D'", "ABD"),
        ("Name = 'A' OR (Amount = 20 AND NOT (IsClosed = true))", "AD"),
        ("Id IN (SELECT OpportunityId FROM OpportunityContactRole)", "BC"),
        ("Id IN (SELECT OpportunityId FROM OpportunityContactRole WHERE Contact.Email = 'two@fabrikam.example')", "C"),
        ("Id NOT IN (SELECT OpportunityId FROM OpportunityContactRole WHERE IsPrimary = true)", "ACD"),
        ("AccountId IN (SELECT Id FROM Account WHERE Name = 'Fabrikam') AND IsClosed = false", "C"),
    ],
)
def test_where_finds_what_matches(deals: World, where: str, expected: str) -> None:
    assert "".join(deals.found(f"SELECT Name FROM Opportunity WHERE {where} ORDER BY Name")) == expected


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ("ORDER BY Amount, Name DESC", "CADB"),
        ("ORDER BY Amount DESC NULLS LAST, Name", "BDAC"),
        ("ORDER BY Amount ASC NULLS LAST, Name", "ABDC"),
        ("ORDER BY Account.Name NULLS LAST, Name DESC", "CBDA"),
        ("order by CreatedDate desc limit 2", "DC"),
        ("ORDER BY Name LIMIT 2 OFFSET 1", "BC"),
        ("ORDER BY Name OFFSET 3", "D"),
        ("ORDER BY Name LIMIT 0", ""),
    ],
)
def test_rows_are_ordered_and_cut(deals: World, rest: str, expected: str) -> None:
    assert "".join(deals.found(f"SELECT Name FROM Opportunity {rest}")) == expected


def test_ids_are_compared_in_both_lengths(deals: World) -> None:
    row_id = deals.query("SELECT Id FROM Opportunity WHERE Name = 'A'").json()["records"][0]["Id"]

    assert deals.found(f"SELECT Name FROM Opportunity WHERE Id = '{row_id[:15]}'") == ["A"]
    assert deals.found(f"SELECT Name FROM Opportunity WHERE Id IN ('{row_id}')") == ["A"]


def test_only_what_is_selected_comes_back(deals: World) -> None:
    [record] = deals.query("select NAME, accountid from opportunity where name = 'A'").json()["records"]

    assert record.keys() == {"attributes", "Name", "AccountId"}
    assert record["AccountId"] is None


def test_parents_are_nested_or_null(deals: World) -> None:
    columns = "Name, Account.Name, Account.Owner.Name, Account.Id"
    soql = f"SELECT {columns} FROM Opportunity WHERE Name IN ('A', 'B') ORDER BY Name"

    without, with_account = deals.query(soql).json()["records"]

    assert without["Account"] is None
    assert with_account["Account"]["attributes"]["type"] == "Account"
    assert with_account["Account"]["Owner"]["Name"] == "Co-sell Sync"
    assert with_account["Account"]["Id"].startswith("001")


def test_the_owner_of_a_lead_may_be_a_queue(world: World) -> None:
    queue = world.people.add_queue("Partner leads")
    world.create("Lead", LastName="Doe", Company="x", OwnerId=queue)
    world.create("Lead", LastName="Roe", Company="x")

    records = world.query("SELECT Owner.Name, Owner.Type, Owner.Email FROM Lead ORDER BY LastName").json()["records"]

    assert [(each["Owner"]["Name"], each["Owner"]["Type"]) for each in records] == [
        ("Partner leads", "Queue"),
        ("Co-sell Sync", "User"),
    ]
    assert records[0]["Owner"]["attributes"]["type"] == "Name"
    assert records[0]["Owner"]["Email"] is None
    assert refusal(world.query("SELECT Owner.MobilePhone FROM Lead")) == (400, "INVALID_FIELD")


def test_children_come_as_results_of_their_own(deals: World) -> None:
    soql = (
        "SELECT Name, (SELECT Contact.Name, Role FROM OpportunityContactRoles WHERE Role != null "
        "ORDER BY Contact.Name LIMIT 5) FROM Opportunity WHERE Name IN ('B', 'C') ORDER BY Name"
    )

    first, second = deals.query(soql).json()["records"]

    assert first["OpportunityContactRoles"] is None
    roles = second["OpportunityContactRoles"]
    assert (roles["totalSize"], roles["done"]) == (1, True)
    assert (roles["records"][0]["Contact"]["Name"], roles["records"][0]["Role"]) == ("Two", "Evaluator")


def test_an_account_has_contacts_and_opportunities(deals: World) -> None:
    soql = "SELECT (SELECT LastName FROM Contacts), (SELECT Name FROM Opportunities ORDER BY Name) FROM Account"

    [record] = deals.query(soql).json()["records"]

    assert [each["LastName"] for each in record["Contacts"]["records"]] == ["One"]
    assert [each["Name"] for each in record["Opportunities"]["records"]] == ["B", "C"]


def test_opportunity_teams_exist_only_when_they_are_enabled(world: World) -> None:
    deal = world.create()
    soql = "SELECT (SELECT User.Name FROM OpportunityTeamMembers) FROM Opportunity"

    before = world.query(soql)
    world.people.switch("opportunity_teams", True)
    world.people.add_team_member(deal, "Sally Seller")

    assert refusal(before) == (400, "INVALID_TYPE")
    [record] = world.query(soql).json()["records"]
    assert record["OpportunityTeamMembers"]["records"][0]["User"]["Name"] == "Sally Seller"


def test_count_answers_the_number_alone(deals: World) -> None:
    answer = deals.query("SELECT COUNT() FROM Opportunity WHERE Amount = 20").json()

    assert answer == {"totalSize": 2, "done": True, "records": []}


def test_stages_statuses_and_currencies_can_be_read(world: World) -> None:
    columns = "ApiName, IsClosed, IsWon, DefaultProbability"
    stages = f"SELECT {columns} FROM OpportunityStage WHERE IsActive = true ORDER BY SortOrder"
    records = world.query(stages).json()["records"]

    assert len(records) == 10
    assert (records[8]["ApiName"], records[8]["IsWon"], records[8]["DefaultProbability"]) == ("Closed Won", True, 100)
    assert (
        world.query("SELECT ApiName FROM LeadStatus WHERE IsDefault = true").json()["records"][0]["ApiName"]
        == "Open - Not Contacted"
    )
    corporate = world.query("SELECT IsoCode FROM CurrencyType WHERE IsCorporate = true").json()["records"]
    assert [each["IsoCode"] for each in corporate] == ["USD"]
    assert world.query("SELECT Id, IsSandbox FROM Organization").json()["records"][0]["Id"] == world.org.id


def test_sellers_are_found_by_their_address(world: World) -> None:
    [seller] = world.query("SELECT Name, Phone FROM User WHERE Email = 'Sally.Seller@fabrikam.example'").json()[
        "records"
    ]

    assert (seller["Name"], seller["Phone"]) == ("Sally Seller", "2065550101")


@pytest.mark.parametrize(
    ("soql", "code", "words"),
    [
        (
            "SELECT Id, Foo FROM Opportunity",
            "INVALID_FIELD",
            "ERROR at Row:1:Column:12\nNo such column 'Foo' on entity 'Opportunity'. If you are attempting to use a "
            "custom field, be sure to append the '__c' after the custom field name. Please reference your WSDL or the "
            "describe call for the appropriate names.",
        ),
        ("SELECT Id FROM Opportunity WHERE Foo = 1", "INVALID_FIELD", "No such column 'Foo'"),
        ("SELECT Id FROM Opportunity ORDER BY Foo", "INVALID_FIELD", "No such column 'Foo'"),
        ("SELECT Foo.Name FROM Opportunity", "INVALID_FIELD", "Didn't understand relationship 'Foo' in field path"),
        ("SELECT Account.Foo FROM Opportunity", "INVALID_FIELD", "No such column 'Foo' on entity 'Account'"),
        ("SELECT Id, id FROM Opportunity", "INVALID_FIELD", "duplicate field selected: id"),
        ("SELECT Id FROM Xyzzy", "INVALID_TYPE", "sObject type 'Xyzzy' is not supported."),
        (
            "SELECT (SELECT Id FROM Foos) FROM Opportunity",
            "INVALID_TYPE",
            "Didn't understand relationship 'Foos' in FROM part",
        ),
        (
            "SELECT Id FROM Opportunity WHERE Description = 'x'",
            "INVALID_FIELD",
            "field 'Description' can not be filtered in a query call",
        ),
        (
            "SELECT Id FROM Opportunity WHERE Audit__c LIKE 'x%'",
            "INVALID_FIELD",
            "field 'Audit__c' can not be filtered in a query call",
        ),
        (
            "SELECT Id FROM Opportunity ORDER BY Description",
            "INVALID_FIELD",
            "field 'Description' can not be sorted in a query call",
        ),
        (
            "SELECT Id FROM Opportunity WHERE Name = 5",
            "INVALID_FIELD",
            "field 'Name' must be of type string and should be enclosed in quotes",
        ),
        (
            "SELECT Id FROM Opportunity WHERE Amount = '5'",
            "INVALID_FIELD",
            "field 'Amount' must be of type double and should not be enclosed in quotes",
        ),
        (
            "SELECT Id FROM Opportunity WHERE CreatedDate > '2026-01-01T00:00:00Z'",
            "INVALID_FIELD",
            "must be of type dateTime and should not be",
        ),
        ("SELECT Id FROM Opportunity WHERE CreatedDate > 2026-01-01", "INVALID_FIELD", "must be of type dateTime"),
        ("SELECT Id FROM Opportunity WHERE IsClosed = 'true'", "INVALID_FIELD", "must be of type boolean"),
        ("SELECT Id FROM Opportunity WHERE Id = 'x'", "INVALID_QUERY_FILTER_OPERATOR", "invalid ID field: x"),
        ("SELECT Id FROM Opportunity WHERE Name INCLUDES ('x')", "INVALID_QUERY_FILTER_OPERATOR", "invalid operator"),
        ("SELECT Id FROM Opportunity WHERE Amount LIKE '1%'", "INVALID_QUERY_FILTER_OPERATOR", "invalid operator"),
        (
            "SELECT Id FROM Opportunity WHERE Name = 'A' AND Amount = 1 OR Amount = 2",
            "MALFORMED_QUERY",
            "unexpected token: 'OR'",
        ),
        ("SELECT Id FORM Opportunity", "MALFORMED_QUERY", "unexpected token: 'FORM'"),
        ("SELECT Id FROM Opportunity WHERE", "MALFORMED_QUERY", "unexpected token: '<EOF>'"),
        ("SELECT Id FROM Opportunity WHERE Name = A", "MALFORMED_QUERY", "unexpected token: 'A'"),
        ("SELECT Id FROM Opportunity WHERE Name = 'it's'", "MALFORMED_QUERY", "unexpected token"),
        ("SELECT Id FROM Opportunity WHERE Name = 'a\\x'", "MALFORMED_QUERY", "Illegal character sequence '\\x'"),
        ("SELECT Id FROM Opportunity WHERE Name IN ()", "MALFORMED_QUERY", "unexpected token: ')'"),
        ("SELECT Id FROM Opportunity WHERE CloseDate = 2026-13-01", "MALFORMED_QUERY", "invalid date"),
        (
            "SELECT Id FROM Opportunity WHERE CreatedDate > 2026-01-01T00:00:00.000+0000",
            "MALFORMED_QUERY",
            "unexpected token",
        ),
        ("SELECT Id FROM Opportunity LIMIT x", "MALFORMED_QUERY", "unexpected token: 'x'"),
        ("SELECT Id FROM Opportunity LIMIT 1 WHERE Name = 'x'", "MALFORMED_QUERY", "unexpected token: 'WHERE'"),
        ("SELECT Id, FROM Opportunity", "MALFORMED_QUERY", "unexpected token: 'FROM'"),
        ("", "MALFORMED_QUERY", "has to be specified"),
        (
            "SELECT Id FROM Opportunity WHERE Name = 'A' OR Id IN (SELECT OpportunityId FROM OpportunityContactRole)",
            "MALFORMED_QUERY",
            "'OR' operator",
        ),
        (
            "SELECT Id FROM Opportunity WHERE Name IN (SELECT Id FROM Account)",
            "INVALID_FIELD",
            "should be an id field, cannot use: 'Name'",
        ),
        (
            "SELECT Id FROM Opportunity WHERE Id IN (SELECT Role FROM OpportunityContactRole)",
            "INVALID_FIELD",
            "should point to the same object type",
        ),
        ("SELECT Id FROM Opportunity WHERE Id IN (SELECT Id FROM Opportunity)", "MALFORMED_QUERY", "same object type"),
        ("SELECT Id FROM Opportunity OFFSET 2001", "NUMBER_OUTSIDE_VALID_RANGE", "2000"),
    ],
)
def test_a_wrong_query_is_refused(world: World, soql: str, code: str, words: str) -> None:
    answer = world.query(soql)

    assert refusal(answer) == (400, code)
    assert words in answer.json()[0]["message"]


@pytest.mark.parametrize(
    "soql",
    [
        "SELECT FIELDS(ALL) FROM Opportunity LIMIT 200",
        "SELECT MAX(Amount) FROM Opportunity",
        "SELECT COUNT(Id) FROM Opportunity",
        "SELECT StageName FROM Opportunity GROUP BY StageName",
        "SELECT Id FROM Opportunity FOR UPDATE",
        "SELECT o.Id FROM Opportunity o",
        "SELECT Id FROM Opportunity WHERE CreatedDate = TODAY",
        "SELECT Id FROM Opportunity WHERE CreatedDate = LAST_N_DAYS:3",
        "SELECT convertCurrency(Amount) FROM Opportunity",
    ],
)
def test_what_the_subset_has_not_is_not_simulated(world: World, soql: str) -> None:
    assert refusal(world.query(soql)) == (501, "NOT_SIMULATED")


def test_a_caret_points_at_the_mistake(world: World) -> None:
    message = world.query("SELECT Id,\n Foo FROM Opportunity").json()[0]["message"]

    assert message.startswith("\n Foo FROM Opportunity\n ^\nERROR at Row:2:Column:2\n")


# Pages


def test_a_result_comes_in_pages_of_the_org_s_size(world: World) -> None:
    world.org.page_size = 5
    for number in range(12):
        world.create(Name=f"{number:02}")

    first = world.query("SELECT Name FROM Opportunity ORDER BY Name").json()
    second = world.call("GET", first["nextRecordsUrl"]).json()
    third = world.call("GET", second["nextRecordsUrl"]).json()

    assert [(len(page["records"]), page["done"], page["totalSize"]) for page in (first, second, third)] == [
        (5, False, 12),
        (5, False, 12),
        (2, True, 12),
    ]
    assert first["nextRecordsUrl"].startswith(f"{world.root}/query/01g")
    assert first["nextRecordsUrl"].endswith("-5")
    assert "nextRecordsUrl" not in third
    assert third["records"][-1]["Name"] == "11"


def test_a_cursor_is_a_snapshot_of_ids(world: World) -> None:
    world.org.page_size = 2
    ids = [world.create(Name=name) for name in "ABCD"]
    first = world.query("SELECT Name FROM Opportunity WHERE Name < 'X' ORDER BY Name").json()
    world.create(Name="AA")
    world.change(ids[2], Name="Y")
    world.people.delete("Opportunity", ids[3])

    second = world.call("GET", first["nextRecordsUrl"]).json()

    assert [record["Name"] for record in second["records"]] == ["Y"]


def test_a_cursor_is_its_user_s_and_lives_two_days(world: World) -> None:
    world.org.page_size = 1
    for _ in range(2):
        world.create()
    url = world.query("SELECT Id FROM Opportunity").json()["nextRecordsUrl"]

    foreign = world.call("GET", url, headers={"Authorization": f"Bearer {world.sim.token_for('Ada Admin')}"})
    own = world.call("GET", url)
    world.clock.advance(2 * 24 * 3600)
    world.token = world.sim.token_for("Co-sell Sync")

    assert refusal(foreign) == (400, "INVALID_QUERY_LOCATOR")
    assert own.status_code == 200
    assert refusal(world.call("GET", url)) == (400, "INVALID_QUERY_LOCATOR")
    assert refusal(world.call("GET", "query/nonsense-1")) == (400, "INVALID_QUERY_LOCATOR")


def test_a_batch_size_makes_pages_smaller_within_its_bounds(world: World) -> None:
    records = [{"attributes": {"type": "Account"}, "Name": str(n)} for n in range(200)]
    for _ in range(2):
        world.call("POST", "composite/sobjects", json={"records": records})

    def page(size: int) -> requests.Response:
        return world.query("SELECT Id FROM Account", headers={"Sforce-Query-Options": f"batchSize={size}"})

    assert len(page(250).json()["records"]) == 250
    assert refusal(page(100)) == (400, "INVALID_BATCH_SIZE")


def test_query_all_shows_the_recycle_bin(world: World) -> None:
    for name in "AB":
        world.create(Name=name)
    world.people.delete("Opportunity", world.query("SELECT Id FROM Opportunity").json()["records"][0]["Id"])
    soql = "SELECT Name FROM Opportunity WHERE IsDeleted = true"

    every = world.call("GET", "queryAll", params={"q": soql}).json()["records"]

    assert [record["Name"] for record in every] == ["A"]
    assert world.found(soql) == []


def test_a_directly_deleted_contact_role_is_gone_for_good(world: World) -> None:
    deal, contact = world.create(), world.create("Contact", LastName="Doe")
    kept, removed = (world.people.add_contact_role(deal, contact) for _ in range(2))
    world.people.remove_contact_role(removed)
    world.people.delete("Opportunity", deal)

    rows = world.call("GET", "queryAll", params={"q": "SELECT Id, IsDeleted FROM OpportunityContactRole"}).json()

    assert [(row["Id"], row["IsDeleted"]) for row in rows["records"]] == [(kept, True)]


def test_a_row_cannot_be_queried_with_a_hidden_field(world: World) -> None:
    world.people.hide_field("Opportunity", "Amount")

    assert refusal(world.query("SELECT Amount FROM Opportunity")) == (400, "INVALID_FIELD")
    assert refusal(world.query("SELECT Id FROM Opportunity WHERE Amount = 1")) == (400, "INVALID_FIELD")


def test_multi_select_values_are_sets() -> None:
    world = World(provisioned=False)
    values = [{"valueName": name, "label": name, "default": False} for name in ("AAA", "BBB", "CCC")]
    metadata = {
        "label": "Tags",
        "type": "MultiselectPicklist",
        "visibleLines": 4,
        "valueSet": {"restricted": True, "valueSetDefinition": {"sorted": False, "value": values}},
    }
    world.call("POST", "tooling/sobjects/CustomField", json={"FullName": "Opportunity.Tags__c", "Metadata": metadata})
    parent = world.create("PermissionSet", Name="Tags", Label="Tags")
    permission = {
        "SobjectType": "Opportunity",
        "Field": "Opportunity.Tags__c",
        "PermissionsRead": True,
        "PermissionsEdit": True,
    }
    world.create("FieldPermissions", ParentId=parent, **permission)
    world.create("PermissionSetAssignment", AssigneeId=world.org.integration_user, PermissionSetId=parent)
    for name, tags in (("1", "CCC;AAA"), ("2", "BBB"), ("3", "AAA; BBB;AAA"), ("4", None)):
        world.create(Name=name, Tags__c=tags)

    def found(where: str) -> str:
        return "".join(world.found(f"SELECT Name FROM Opportunity WHERE Tags__c {where} ORDER BY Name"))

    assert world.query("SELECT Tags__c FROM Opportunity WHERE Name = '1'").json()["records"][0]["Tags__c"] == "AAA;CCC"
    assert found("INCLUDES ('AAA;BBB', 'CCC')") == "13"
    assert found("EXCLUDES ('AAA')") == "24"
    assert found("= 'BBB;AAA'") == "3"
    assert refusal(
        world.call(
            "POST",
            "sobjects/Opportunity",
            json={"Name": "x", "StageName": "x", "CloseDate": "2026-12-31", "Tags__c": "AAA;DDD"},
        )
    ) == (400, "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST")


# /updated and /deleted


def window(world: World, kind: str, start: str, end: str, name: str = "Opportunity") -> requests.Response:
    params = {"start": start, "end": end}
    return world.call("GET", f"sobjects/{name}/{kind}", params={key: value for key, value in params.items() if value})


def test_updated_lists_ids_of_the_window_and_what_it_covers(world: World) -> None:
    row_id = world.create()
    world.clock.advance(90)
    world.create()

    answer = window(world, "updated", "2026-11-27T12:00:59+00:00", "2026-11-27T12:01:59+00:00")

    assert answer.json() == {"ids": [row_id], "latestDateCovered": "2026-11-27T12:01:00.000+0000"}
    assert window(world, "updated/", "2026-11-27T11:00:00Z", "2026-11-27T12:02:00Z").status_code == 200


def test_updated_goes_by_system_modstamp_and_leaves_out_the_deleted(world: World) -> None:
    touched, deleted = world.create(), world.create()
    world.clock.advance(3600)
    world.people.automation_touches("Opportunity", touched)
    world.people.delete("Opportunity", deleted)
    world.clock.advance(60)

    answer = window(world, "updated", "2026-11-27T13:00:00+00:00", "2026-11-27T13:01:30+00:00").json()

    assert answer["ids"] == [touched]


def test_a_window_is_covered_no_further_than_now(world: World) -> None:
    answer = window(world, "updated", "2026-11-27T11:00:00+00:00", "2026-11-27T18:00:00+00:00").json()

    assert answer["latestDateCovered"] == "2026-11-27T12:00:00.000+0000"


def test_deleted_lists_deletions_with_their_times(world: World) -> None:
    row_id = world.create()
    world.people.delete("Opportunity", row_id)

    answer = window(world, "deleted", "2026-11-27T11:00:00+00:00", "2026-11-27T12:01:00+00:00").json()

    assert answer == {
        "deletedRecords": [{"id": row_id, "deletedDate": STAMP}],
        "earliestDateAvailable": "2026-11-12T12:00:00.000+0000",
        "latestDateCovered": "2026-11-27T12:00:00.000+0000",
    }


def test_deleted_shows_contact_roles_and_forgets_what_came_back(world: World) -> None:
    deal, contact = world.create(), world.create("Contact", LastName="Doe")
    role = world.people.add_contact_role(deal, contact)
    world.people.remove_contact_role(role)
    world.people.delete("Opportunity", deal)
    world.people.undelete("Opportunity", deal)

    def deleted(name: str) -> list[str]:
        answer = window(world, "deleted", "2026-11-27T11:00:00Z", "2026-11-27T12:01:00Z", name).json()
        return [each["id"] for each in answer["deletedRecords"]]

    assert (deleted("OpportunityContactRole"), deleted("Opportunity")) == ([role], [])
    assert world.read(deal)["IsDeleted"] is False


def test_an_emptied_recycle_bin_leaves_a_gap_that_is_told(world: World) -> None:
    world.people.delete("Opportunity", world.create())
    world.clock.advance(120)
    world.people.empty_recycle_bin()

    answer = window(world, "deleted", "2026-11-27T11:00:00Z", "2026-11-27T12:01:00Z").json()

    assert answer["deletedRecords"] == []
    assert answer["earliestDateAvailable"] == "2026-11-27T12:02:00.000+0000"


def days_ago(days: float) -> str:
    return (NOW - timedelta(days=days)).isoformat(timespec="seconds")


@pytest.mark.parametrize(
    ("kind", "start", "end", "code"),
    [
        ("updated", days_ago(0), days_ago(1), "INVALID_REPLICATION_DATE"),
        ("updated", "2026-11-27T12:00:10Z", "2026-11-27T12:00:50Z", "INVALID_REPLICATION_DATE"),
        ("updated", days_ago(31), days_ago(0), "INVALID_REPLICATION_DATE"),
        ("deleted", days_ago(16), days_ago(0), "INVALID_REPLICATION_DATE"),
        ("updated", "", days_ago(0), "MISSING_ARGUMENT"),
        ("updated", "2026-11-26T12:00:10", days_ago(0), "INVALID_DATE_FORMAT"),
        ("updated", "yesterday", days_ago(0), "INVALID_DATE_FORMAT"),
    ],
)
def test_a_wrong_window_is_refused(world: World, kind: str, start: str, end: str, code: str) -> None:
    assert refusal(window(world, kind, start, end)) == (400, code)


def test_an_unencoded_plus_is_a_space_and_no_date(world: World) -> None:
    answer = world.call("GET", "sobjects/Lead/updated?start=2026-11-26T12:00:00+00:00&end=2026-11-27T12:00:00Z")

    assert refusal(answer) == (400, "INVALID_DATE_FORMAT")


@pytest.mark.parametrize(("days", "kind"), [(29.9, "updated"), (14.9, "deleted")])
def test_windows_reach_back_so_far(world: World, days: float, kind: str) -> None:
    assert window(world, kind, days_ago(days), days_ago(0)).status_code == 200


def test_stages_are_not_replicated(world: World) -> None:
    answer: Any = window(world, "updated", days_ago(1), days_ago(0), "OpportunityStage")

    assert refusal(answer) == (400, "INVALID_TYPE_FOR_OPERATION")


# Late commits


def test_an_open_transaction_is_unseen_and_holds_back_what_is_covered(world: World) -> None:
    old = world.create(Name="Old")
    world.clock.advance(60)
    transaction = world.people.begin_transaction()
    world.clock.advance(30)
    new = world.people.create(
        "Opportunity", {"Name": "New", "StageName": "x", "CloseDate": "2026-12-31"}, transaction=transaction
    )
    world.people.edit("Opportunity", old, {"NextStep": "late"}, transaction=transaction)
    world.clock.advance(300)
    span = ("2026-11-27T12:00:00Z", "2026-11-27T12:07:00Z")

    before, names_before = window(world, "updated", *span).json(), world.found("SELECT Name FROM Opportunity")
    seen_before = world.read(old)["NextStep"]
    world.people.commit(transaction)
    after = window(world, "updated", *span).json()

    assert (before["ids"], names_before, seen_before) == ([old], ["Old"], None)
    assert before["latestDateCovered"] == "2026-11-27T12:01:30.000+0000"
    assert sorted(after["ids"]) == sorted([old, new])
    assert after["latestDateCovered"] == "2026-11-27T12:07:00.000+0000"
    assert world.read(new)["SystemModstamp"] == world.read(old)["SystemModstamp"] == "2026-11-27T12:02:00.000+0000"
    assert world.read(old)["NextStep"] == "late"


def test_a_row_in_an_open_transaction_is_locked_for_others(world: World) -> None:
    row_id = world.create()
    transaction = world.people.begin_transaction()
    world.people.edit("Opportunity", row_id, {"NextStep": "1"}, transaction=transaction)

    locked = world.change(row_id, NextStep="2")
    world.people.commit(transaction)

    assert refusal(locked) == (400, "UNABLE_TO_LOCK_ROW")
    assert world.change(row_id, NextStep="2").status_code == 204

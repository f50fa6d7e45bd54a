"""What others do in the simulated Salesforce org: sellers, administrators, flows, an installer."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from local.simulators.base import Refused
from tests.contract.test_sim_salesforce import DEAL, NOW, STAMP, World, http_date, refusal


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def bare() -> World:
    return World(provisioned=False)


# Sellers


def test_people_leave_their_own_marks(world: World) -> None:
    row_id = world.create()
    world.clock.advance(2)

    world.people.edit("Opportunity", row_id, {"NextStep": "call"})

    row = world.read(row_id)
    assert row["LastModifiedById"] == world.org.user("Sally Seller").id
    assert row["LastModifiedDate"] == "2026-11-27T12:00:32.000+0000"


def test_another_user_can_be_named_by_name_or_id(world: World) -> None:
    added = world.people.add_user("Bob", "Builder", "bob@fabrikam.example", "2065550102")
    ids = [world.people.create("Opportunity", DEAL, user=user) for user in ("Bob Builder", added, "Ada Admin")]

    creators = [world.read(each)["CreatedById"] for each in ids]

    assert creators == [added, added, world.org.user("Ada Admin").id]
    with pytest.raises(LookupError):
        world.people.create("Opportunity", DEAL, user="Nobody")


@pytest.mark.parametrize("opportunity", [True, False])
def test_a_lead_is_converted(world: World, opportunity: bool) -> None:
    values = {
        "LastName": "Doe",
        "FirstName": "Jo",
        "Company": "Fabrikam",
        "Email": "jo@fabrikam.example",
        "City": "Oslo",
    }
    lead = world.create("Lead", **values)
    world.clock.advance(1)

    made = world.people.convert_lead(lead, opportunity=opportunity)

    row = world.read(lead, "Lead")
    assert (row["IsConverted"], row["Status"]) == (True, "Closed - Converted")
    assert row["ConvertedDate"] == "2026-11-27"
    assert [row[f"Converted{each}Id"] for each in ("Account", "Contact", "Opportunity")] == list(made.values())
    assert row["SystemModstamp"] == "2026-11-27T12:00:31.000+0000"
    contact = world.read(str(made["contact"]), "Contact")
    assert (contact["Email"], contact["AccountId"], contact["MailingCity"]) == (
        "jo@fabrikam.example",
        made["account"],
        "Oslo",
    )
    assert (made["opportunity"] is not None) == opportunity
    if opportunity:
        deal = world.read(str(made["opportunity"]))
        assert (deal["Name"], deal["StageName"], deal["CloseDate"]) == ("Fabrikam-", "Prospecting", "2026-12-31")
        assert deal["ContactId"] == made["contact"]


def test_a_conversion_takes_the_account_of_that_name(world: World) -> None:
    account = world.create("Account", Name="Fabrikam")

    made = world.people.convert_lead(
        world.create("Lead", LastName="Doe", Company="FABRIKAM"), opportunity_name="Big one"
    )

    assert made["account"] == account
    assert world.read(str(made["opportunity"]))["Name"] == "Big one"


def test_a_converted_lead_is_not_written_any_more(world: World) -> None:
    lead = world.create("Lead", LastName="Doe", Company="Fabrikam")
    world.people.convert_lead(lead)

    assert refusal(world.change(lead, "Lead", Title="x")) == (400, "CANNOT_UPDATE_CONVERTED_LEAD")
    with pytest.raises(Refused):
        world.people.convert_lead(lead)


def test_a_merge_moves_children_and_leaves_the_loser_in_the_bin(world: World) -> None:
    master, loser = world.create("Account", Name="A"), world.create("Account", Name="B")
    deal = world.create(AccountId=loser)

    world.people.merge("Account", master, loser)

    soql = "SELECT Id, MasterRecordId FROM Account WHERE IsDeleted = true"
    [gone] = world.call("GET", "queryAll", params={"q": soql}).json()["records"]
    assert (gone["Id"], gone["MasterRecordId"]) == (loser, master)
    assert world.read(deal)["AccountId"] == master
    assert [each["id"] for each in world.sim.state()["deleted"]] == [loser]


def test_contact_roles_come_and_go(world: World) -> None:
    deal, contact = world.create(), world.create("Contact", LastName="Doe")

    role = world.people.add_contact_role(deal, contact, primary=True, role="Decision Maker")
    primary = world.read(deal)["ContactId"]
    world.people.remove_contact_role(role)

    assert (primary, world.read(deal)["ContactId"]) == (contact, None)


# Flows


def test_automation_moves_system_modstamp_alone(world: World) -> None:
    row_id = world.create()

    world.people.automation_touches("Opportunity", row_id)

    row = world.read(row_id)
    assert (row["LastModifiedDate"], row["SystemModstamp"]) == (STAMP, "2026-11-27T12:00:31.000+0000")
    assert row["LastModifiedById"] == world.org.integration_user


def test_automation_follows_the_next_writes(world: World) -> None:
    world.people.automation_touches_next_write("Opportunity", times=2)
    row_id = world.create()

    world.change(row_id, NextStep="x")
    second = world.read(row_id)
    world.clock.advance(60)
    world.change(row_id, NextStep="y")
    third = world.read(row_id)

    assert second["LastModifiedDate"] == second["SystemModstamp"] == "2026-11-27T12:00:32.000+0000"
    assert second["LastModifiedById"] == world.org.system_user
    assert third["LastModifiedById"] == world.org.integration_user


def test_automation_defeats_a_condition_taken_from_the_write_s_second(world: World) -> None:
    world.people.automation_touches_next_write("Opportunity")
    row_id = world.create()

    answer = world.change(row_id, headers={"If-Unmodified-Since": http_date(NOW)}, NextStep="x")

    assert answer.status_code == 412


def test_time_stamps_of_a_row_never_go_back(world: World) -> None:
    row_id = world.create()
    world.people.automation_touches("Opportunity", row_id)

    world.change(row_id, NextStep="x")

    row = world.read(row_id)
    assert row["SystemModstamp"] == row["LastModifiedDate"] == "2026-11-27T12:00:31.000+0000"


def test_automation_does_not_follow_people(world: World) -> None:
    world.people.automation_touches_next_write("Opportunity")

    row_id = world.people.create("Opportunity", DEAL)

    assert world.read(row_id)["SystemModstamp"] == STAMP


# Administrators


def test_a_hidden_field_is_as_if_it_did_not_exist(world: World) -> None:
    row_id = world.create()
    world.people.hide_field("Opportunity", "sync_with_partner_center__c")

    assert "Sync_with_Partner_Center__c" not in world.read(row_id)
    assert refusal(world.change(row_id, Sync_with_Partner_Center__c=True)) == (400, "INVALID_FIELD")
    world.people.edit("Opportunity", row_id, {"Sync_with_Partner_Center__c": True})
    world.people.show_field("Opportunity", "Sync_with_Partner_Center__c")
    assert world.read(row_id)["Sync_with_Partner_Center__c"] is True


def test_a_read_only_field_is_seen_and_not_written(world: World) -> None:
    world.people.make_read_only("Opportunity", "NextStep")

    answer = world.call("POST", "sobjects/Opportunity", json={**DEAL, "NextStep": "x"})

    assert refusal(answer) == (400, "INVALID_FIELD_FOR_INSERT_UPDATE")
    assert answer.json()[0]["fields"] == ["NextStep"]
    assert world.query("SELECT NextStep FROM Opportunity").status_code == 200


def test_permissions_of_the_integration_user_are_its_own(world: World) -> None:
    world.people.hide_field("Opportunity", "NextStep")
    ada = {"Authorization": f"Bearer {world.sim.token_for('Ada Admin')}"}

    assert world.query("SELECT NextStep FROM Opportunity", headers=ada).status_code == 200


def test_a_revoked_object_is_gone(world: World) -> None:
    world.people.revoke_object("Lead")

    assert refusal(world.query("SELECT Id FROM Lead")) == (400, "INVALID_TYPE")
    assert refusal(world.call("POST", "sobjects/Lead", json={})) == (404, "NOT_FOUND")
    assert refusal(world.call("GET", "sobjects/Lead/describe")) == (404, "NOT_FOUND")


def test_a_field_can_become_required(world: World) -> None:
    row_id = world.create()
    world.people.require_field("Opportunity", "NextStep")

    answers = [world.call("POST", "sobjects/Opportunity", json=DEAL), world.change(row_id, Amount=1)]

    assert [refusal(answer) for answer in answers] == [(400, "REQUIRED_FIELD_MISSING")] * 2
    assert world.change(row_id, NextStep="x").status_code == 204


def test_a_removed_value_is_refused_where_values_are_restricted(world: World) -> None:
    value = "Quotes or Licensing"
    world.people.remove_picklist_value("Opportunity", "How_can_Microsoft_help__c", value)
    world.people.remove_picklist_value("Opportunity", "StageName", "Qualification")

    answer = world.call("POST", "sobjects/Opportunity", json={**DEAL, "How_can_Microsoft_help__c": value})

    assert refusal(answer) == (400, "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST")
    active = world.query("SELECT ApiName FROM OpportunityStage WHERE IsActive = true").json()["records"]
    assert len(active) == 9


def test_a_team_member_is_added_once_teams_are_on(world: World) -> None:
    deal = world.create()
    with pytest.raises(LookupError):
        world.people.add_team_member(deal, "Sally Seller")

    world.people.switch("opportunity_teams", True)
    member = world.people.add_team_member(deal, "Sally Seller")

    row = world.read(member, "OpportunityTeamMember")
    assert (row["UserId"], row["Name"]) == (world.org.user("Sally Seller").id, "Sally Seller")


# What the org says about itself


def describe(world: World, name: str = "Opportunity", **headers: str) -> requests.Response:
    return world.call("GET", f"sobjects/{name}/describe", headers=headers)


def field(world: World, name: str, of: str = "Opportunity") -> dict[str, Any]:
    return {each["name"]: each for each in describe(world, of).json()["fields"]}[name]


def test_a_describe_tells_types_lengths_and_flags(world: World) -> None:
    assert (
        field(world, "Name").items()
        >= {
            "type": "string",
            "length": 120,
            "byteLength": 360,
            "nillable": False,
            "createable": True,
            "updateable": True,
            "permissionable": False,
            "nameField": True,
        }.items()
    )
    assert field(world, "Amount").items() >= {"type": "currency", "precision": 18, "scale": 2, "nillable": True}.items()
    assert field(world, "IsWon").items() >= {"type": "boolean", "createable": False, "updateable": False}.items()
    assert (
        field(world, "ContactId").items()
        >= {"createable": True, "updateable": False, "referenceTo": ["Contact"]}.items()
    )
    assert field(world, "Description").items() >= {"type": "textarea", "filterable": False, "sortable": False}.items()
    assert field(world, "StageName")["restrictedPicklist"] is False
    assert field(world, "How_can_Microsoft_help__c")["restrictedPicklist"] is True
    assert field(world, "Status", "Lead").items() >= {"nillable": False, "defaultedOnCreate": True}.items()
    key = {"externalId": True, "unique": True, "caseSensitive": False, "idLookup": True, "length": 100, "custom": True}
    assert field(world, "Referral_Identifier__c").items() >= key.items()


def test_a_describe_lists_picklists_children_and_record_types(world: World) -> None:
    body = describe(world).json()

    stages = [value["value"] for value in field(world, "StageName")["picklistValues"]]
    assert (len(stages), stages[0]) == (10, "Prospecting")
    assert [child["relationshipName"] for child in body["childRelationships"]] == ["OpportunityContactRoles"]
    assert body["recordTypeInfos"][0]["recordTypeId"] == "012000000000000AAA"
    assert (body["keyPrefix"], body["labelPlural"], body["replicateable"]) == ("006", "Opportunities", True)


def test_a_describe_honours_field_permissions(world: World) -> None:
    world.people.hide_field("Opportunity", "Amount")
    world.people.make_read_only("Opportunity", "NextStep")

    fields = {each["name"]: each for each in describe(world).json()["fields"]}

    assert "Amount" not in fields
    assert (fields["NextStep"]["createable"], fields["NextStep"]["updateable"]) == (False, False)


def test_an_unchanged_describe_answers_304(world: World) -> None:
    known = describe(world).headers["Last-Modified"]
    unchanged = describe(world, **{"If-Modified-Since": known})
    world.clock.advance(1)
    world.people.hide_field("Opportunity", "Amount")

    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert describe(world, **{"If-Modified-Since": known}).status_code == 200


def test_objects_are_listed_and_summed_up(world: World) -> None:
    every = world.call("GET", "sobjects").json()
    one = world.call("GET", "sobjects/Lead").json()

    names = {each["name"] for each in every["sobjects"]}
    assert {"Opportunity", "Lead", "Account", "Contact", "OpportunityContactRole", "User"} <= names
    assert not names & {"OpportunityTeamMember", "CustomField", "Name"}
    assert one["objectDescribe"]["name"] == "Lead"


def test_labels_say_what_people_read(world: World) -> None:
    assert field(world, "AccountId")["label"] == "Account ID"
    assert field(world, "Referral_Identifier__c")["label"] == "Referral Identifier"


# An installer

TEXT = {"label": "Referral Id", "type": "Text", "length": 50, "externalId": True, "unique": True}


def make(world: World, name: str = "Opportunity.Referral_Id__c", **metadata: Any) -> requests.Response:
    body = {"FullName": name, "Metadata": metadata or TEXT}
    return world.call("POST", "tooling/sobjects/CustomField", json=body)


def grant(world: World, name: str = "Opportunity.Referral_Id__c", edit: bool = True) -> str:
    parent = world.create("PermissionSet", Name="Cosell", Label="Co-sell")
    permission = {"SobjectType": name.split(".")[0], "Field": name, "PermissionsRead": True, "PermissionsEdit": edit}
    world.create("FieldPermissions", ParentId=parent, **permission)
    return parent


def test_a_bare_org_has_no_field_of_ours(bare: World) -> None:
    fields = [each["name"] for each in describe(bare).json()["fields"]]

    assert not [name for name in fields if name.endswith("__c")]
    assert refusal(bare.query("SELECT Referral_Identifier__c FROM Lead")) == (400, "INVALID_FIELD")


def test_a_made_field_is_nobody_s_until_a_permission_set_is_assigned(bare: World) -> None:
    made = make(bare)
    soql = "SELECT Referral_Id__c FROM Opportunity"

    statuses = [bare.query(soql).status_code]
    parent = grant(bare)
    statuses.append(bare.query(soql).status_code)
    bare.create("PermissionSetAssignment", AssigneeId=bare.org.integration_user, PermissionSetId=parent)
    statuses.append(bare.query(soql).status_code)

    assert made.status_code == 201
    assert made.json() == {"id": made.json()["id"], "success": True, "errors": [], "warnings": [], "infos": []}
    assert statuses == [400, 400, 200]
    assert field(bare, "Referral_Id__c").items() >= {"length": 50, "externalId": True, "unique": True}.items()
    assert bare.call("PATCH", "sobjects/Opportunity/Referral_Id__c/x", json=DEAL).status_code == 201


def test_read_permission_alone_does_not_write(bare: World) -> None:
    make(bare)
    parent = grant(bare, edit=False)
    bare.create("PermissionSetAssignment", AssigneeId=bare.org.integration_user, PermissionSetId=parent)

    answer = bare.call("POST", "sobjects/Opportunity", json={**DEAL, "Referral_Id__c": "x"})

    assert refusal(answer) == (400, "INVALID_FIELD_FOR_INSERT_UPDATE")


def test_fields_are_found_by_a_tooling_query_whoever_sees_them(bare: World) -> None:
    made = make(bare).json()["id"]
    columns = "Id, DeveloperName, TableEnumOrId, Metadata"
    soql = f"SELECT {columns} FROM CustomField WHERE TableEnumOrId = 'Opportunity' AND DeveloperName = 'Referral_Id'"

    [found] = bare.call("GET", "tooling/query", params={"q": soql}).json()["records"]
    missing = bare.call("GET", "tooling/query", params={"q": soql.replace("Referral_Id", "Other")}).json()

    assert (found["Id"], found["DeveloperName"]) == (made, "Referral_Id")
    assert found["Metadata"].items() >= TEXT.items()
    assert missing["totalSize"] == 0


def test_metadata_is_read_one_field_at_a_time(world: World) -> None:
    answer = world.call("GET", "tooling/query", params={"q": "SELECT Metadata FROM CustomField"})

    assert refusal(answer) == (400, "MALFORMED_QUERY")


def test_a_field_is_read_and_changed_by_its_id(bare: World) -> None:
    made = make(bare).json()["id"]
    path = f"tooling/sobjects/CustomField/{made}"

    changed = bare.call("PATCH", path, json={"Metadata": {**TEXT, "length": 100}})

    body = bare.call("GET", path).json()
    assert changed.status_code == 204
    assert (body["FullName"], body["Metadata"]["length"]) == ("Opportunity.Referral_Id__c", 100)


def test_a_picklist_takes_its_values(bare: World) -> None:
    values = [{"valueName": name, "label": name, "default": False} for name in ("A", "B")]
    value_set = {"restricted": True, "valueSetDefinition": {"sorted": False, "value": values}}

    made = make(bare, "Lead.Kind__c", label="Kind", type="Picklist", valueSet=value_set)
    parent = grant(bare, "Lead.Kind__c")
    bare.create("PermissionSetAssignment", AssigneeId=bare.org.integration_user, PermissionSetId=parent)

    assert made.status_code == 201
    assert [value["value"] for value in field(bare, "Kind__c", "Lead")["picklistValues"]] == ["A", "B"]


@pytest.mark.parametrize(
    ("name", "metadata", "code"),
    [
        ("Opportunity.Nope", TEXT, "FIELD_INTEGRITY_EXCEPTION"),
        ("Opportunity.A__B__c", TEXT, "FIELD_INTEGRITY_EXCEPTION"),
        ("Opportunity.1a__c", TEXT, "FIELD_INTEGRITY_EXCEPTION"),
        ("Nope.A__c", TEXT, "FIELD_INTEGRITY_EXCEPTION"),
        ("Opportunity.A__c", {"label": "A", "type": "Text"}, "FIELD_INTEGRITY_EXCEPTION"),
        ("Opportunity.A__c", {"label": "A", "type": "Text", "length": 256}, "FIELD_INTEGRITY_EXCEPTION"),
        (
            "Opportunity.A__c",
            {"label": "A" * 41, "type": "Checkbox", "defaultValue": False},
            "FIELD_INTEGRITY_EXCEPTION",
        ),
        ("Opportunity.A__c", {"label": "A", "type": "Checkbox"}, "FIELD_INTEGRITY_EXCEPTION"),
        ("Opportunity.A__c", {"label": "A", "type": "Url", "externalId": True}, "FIELD_INTEGRITY_EXCEPTION"),
        (
            "Opportunity.A__c",
            {
                "label": "A",
                "type": "Picklist",
                "valueSet": {"valueSetDefinition": {"value": [{"fullName": "x", "label": "x"}]}},
            },
            "FIELD_INTEGRITY_EXCEPTION",
        ),
        ("Opportunity.A__c", {"label": "A", "type": "Lookup"}, "NOT_SIMULATED"),
        ("Opportunity.A__c", {"label": "A", "type": "Url", "formula": "x"}, "NOT_SIMULATED"),
    ],
)
def test_a_wrong_field_is_refused(bare: World, name: str, metadata: dict[str, Any], code: str) -> None:
    assert make(bare, name, **metadata).json()[0]["errorCode"] == code


def test_a_field_is_made_once(bare: World) -> None:
    make(bare)

    assert refusal(make(bare)) == (400, "DUPLICATE_DEVELOPER_NAME")


def test_required_fields_take_no_permission(bare: World) -> None:
    parent = bare.create("PermissionSet", Name="Cosell", Label="Co-sell")
    permission = {"ParentId": parent, "SobjectType": "Opportunity", "PermissionsRead": True, "PermissionsEdit": True}

    for name in ("Opportunity.Name", "Opportunity.Nope__c"):
        answer = bare.call("POST", "sobjects/FieldPermissions", json={**permission, "Field": name})
        assert answer.status_code == 400


def test_permission_sets_and_their_rows_are_unique(bare: World) -> None:
    make(bare)
    parent = grant(bare)
    body = {"ParentId": parent, "SobjectType": "Opportunity", "PermissionsRead": True}

    again = [
        bare.call("POST", "sobjects/PermissionSet", json={"Name": "cosell", "Label": "x"}),
        bare.call("POST", "sobjects/FieldPermissions", json={**body, "Field": "Opportunity.Referral_Id__c"}),
    ]
    first, second = (bare.call("POST", "sobjects/ObjectPermissions", json=body) for _ in range(2))

    assert [refusal(answer) for answer in again] == [(400, "DUPLICATE_VALUE")] * 2
    assert (first.status_code, refusal(second)) == (201, (400, "DUPLICATE_VALUE"))


def test_only_who_may_customize_reaches_the_tooling_api(bare: World) -> None:
    bare.org.access.may_customize.discard(bare.org.integration_user)

    assert refusal(make(bare)) == (403, "INSUFFICIENT_ACCESS")


def test_what_the_tooling_api_has_besides_is_not_simulated(bare: World) -> None:
    answers = [
        bare.call("GET", "tooling/query", params={"q": "SELECT Id FROM User"}),
        bare.call("GET", "tooling/sobjects/ApexClass/x"),
        bare.call("POST", "metadata/deployRequest", json={}),
    ]

    assert [answer.status_code for answer in answers] == [501] * 3


# The org and the product's settings


def test_all_systems_together_know_the_org() -> None:
    from local.simulators.systems import Simulators

    simulators = Simulators()
    settings = simulators.settings("salesforce")

    assert settings["CRM"] == "salesforce"
    assert settings["SALESFORCE_URL"] == simulators.urls["salesforce"] == simulators.salesforce.origin
    assert settings["SALESFORCE_CLIENT_ID"] == simulators.salesforce.client_id
    assert settings["SALESFORCE_CLIENT_SECRET"] == simulators.salesforce.client_secret
    assert simulators.settings()["CRM"] == "dynamics365"
    simulators.directory.cleanup()

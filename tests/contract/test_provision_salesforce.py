"""Provisioning a Salesforce org: from bare to what the product's own client needs, and never past it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from infra.crm.salesforce.__main__ import main
from infra.crm.salesforce.fields import load_wanted
from infra.crm.salesforce.permissions import OBJECTS, field_grants
from local.simulators.base import Clock, InProcessAdapter
from local.simulators.salesforce import SalesforceSimulator
from local.simulators.salesforce.schema import Field, Kind
from local.simulators.salesforce.simulator import TOKEN_PATH
from shared.mapping import load_field_map
from shared.services import Services
from shared.settings import ROOT

START = datetime(2026, 5, 1, 8, tzinfo=UTC)
MAP = ROOT / "mappings" / "salesforce.toml"
TABLES = ("Opportunity", "Lead")
KINDS = {
    "Checkbox": Kind.BOOLEAN,
    "Text": Kind.STRING,
    "Url": Kind.URL,
    "Picklist": Kind.PICKLIST,
    "LongTextArea": Kind.TEXTAREA,
}
LENGTHS = {"Url": 255, "Picklist": 255}


class Bench:
    """A bare org, the command, and what it said."""

    def __init__(self, tmp_path: Path) -> None:
        self.clock = Clock(frozen_at=START)
        self.org = SalesforceSimulator(self.clock, provisioned=False)
        self.session = requests.Session()
        self.session.mount(self.org.origin, InProcessAdapter(self.org))
        self.settings = {
            "CRM": "salesforce",
            "SALESFORCE_URL": self.org.origin,
            "SALESFORCE_CLIENT_ID": self.org.client_id,
            "SALESFORCE_CLIENT_SECRET": self.org.client_secret,
        }
        self.directory = tmp_path

    def services(self, **settings: str) -> Services:
        return Services(
            {**self.settings, **settings}, clock=self.clock.now, sleep=self.clock.advance, session=self.session
        )

    def run(self, *arguments: str, **settings: str) -> tuple[int, str]:
        said: list[str] = []
        code = main(arguments, self.services(**settings), say=said.append, sleep=self.clock.advance)
        return code, "\n".join(said)

    def run_as_admin(self, *arguments: str, **settings: str) -> tuple[int, str]:
        """With an administrator's token, as one who has not set the app's sign-in up yet."""
        token = self.org.token_for("Ada Admin")
        without = {"SALESFORCE_CLIENT_ID": "", "SALESFORCE_CLIENT_SECRET": ""}
        return self.run(*arguments, **{"SALESFORCE_ACCESS_TOKEN": token, **without, **settings})

    def writes(self) -> list[str]:
        entries = [entry for entry in self.org.log.entries if entry.method != "GET" and entry.path != TOKEN_PATH]
        return [f"{entry.method} {entry.path}" for entry in entries]

    def fields(self, table: str) -> dict[str, Field]:
        return self.org.organization.objects[table].fields

    def add(self, table: str, field: Field) -> None:
        self.org.organization.add_field(self.org.organization.objects[table], replace(field, custom=True))

    def change(self, table: str, field: str, **changes: Any) -> None:
        self.org.organization.objects[table].adopt(replace(self.fields(table)[field], **changes))

    def rows(self, name: str, **values: Any) -> list[Mapping[str, Any]]:
        return [row.values for row in self.org.organization.where(name, **values)]

    def set_id(self, name: str) -> str:
        (row,) = self.rows("PermissionSet", Name=name)
        return str(row["Id"])

    def may(self, user: str, table: str, field: str) -> tuple[bool, bool]:
        """Whether the user may read, and edit."""
        org = self.org.organization
        sobject, user_id = org.objects[table], org.user(user).id
        known = sobject.fields[field]
        return org.access.may_read(sobject, known, user_id), org.access.may_write(sobject, known, user_id)

    def own_map(self, *replacements: tuple[str, str]) -> str:
        text = MAP.read_text(encoding="utf-8")
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        (self.directory / "ours.toml").write_text(text, encoding="utf-8")
        return str(self.directory / "ours.toml")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


# ---------------------------------------------------------------- a bare org


def test_a_bare_org_gets_everything_and_says_so(bench: Bench) -> None:
    code, said = bench.run()

    assert code == 0, said
    for table in TABLES:
        wanted, found = load_wanted().fields_of(table), bench.fields(table)
        assert {f.name: (KINDS[f.type], f.length or LENGTHS.get(f.type, 0), f.label) for f in wanted} == {
            f.name: (found[f.name].kind, found[f.name].length, found[f.name].label) for f in wanted
        }
        assert f"add to {table}: Referral_Identifier__c (Text, 100 characters, External ID, unique)" in said
        key = found["Referral_Identifier__c"]
        assert (key.external_id, key.unique) == (True, True)
    assert "Note:" not in said
    assert said.endswith("Done: every field that the field map names can be read by the app.")


def test_the_picklist_has_the_values_of_the_file_in_their_order_and_takes_no_others(bench: Bench) -> None:
    bench.run()

    (wanted,) = (field for field in load_wanted().fields if field.values)
    found = bench.fields("Opportunity")[wanted.name]
    assert (found.values, found.restricted) == (wanted.values, True)


def test_a_plan_is_told_and_nothing_is_written(bench: Bench) -> None:
    code, said = bench.run("--plan")

    assert code == 0
    assert said.startswith("Org Contoso. To do:")
    assert "add to Lead: Referral_Accepted__c (Checkbox)" in said
    assert "add permission set Cosell_Sync (Co-sell Sync)" in said
    assert "assign Cosell_Sync to cosell.sync@fabrikam.example" in said
    assert bench.writes() == []


def test_a_second_run_writes_nothing(bench: Bench) -> None:
    bench.run()
    bench.org.log.clear()

    code, said = bench.run()

    assert code == 0
    assert "nothing: everything is there" in said
    assert bench.writes() == []


def test_the_apps_own_client_creates_finds_and_reads_a_record_afterwards(bench: Bench) -> None:
    bench.run()
    crm = bench.services().crm
    referral_id = "3f2c1f6e-0000-4000-8000-000000000001"
    values = {
        "Name": "Deal",
        "StageName": "Prospecting",
        "CloseDate": "2026-08-01",
        "Sync_with_Partner_Center__c": True,
        "Referral_Identifier__c": referral_id,
        "Referral_Link__c": "https://partner.microsoft.com/referrals/v2/inbox?id=" + referral_id,
        "How_can_Microsoft_help__c": "General or Other",
        "Products__c": "x" * 255,
        "Audit__c": "y" * 8000,
    }

    created, is_new = crm.create("Opportunity", referral_id, values)
    found = crm.find_by_referral("Opportunity", referral_id)

    assert is_new
    assert found == created
    assert not created.unreadable
    shown = {name: value for name, value in values.items() if name != "Referral_Link__c"}
    assert {name: created.values[name] for name in shown} == shown


# ---------------------------------------------------------------- what is there already


def test_a_field_of_another_type_is_refused_before_anything_is_written(bench: Bench) -> None:
    bench.add("Opportunity", Field("Products__c", Kind.TEXTAREA, "Products", length=2000))
    bench.add("Lead", Field("Sync_with_Partner_Center__c", Kind.STRING, "Sync", length=3))

    code, said = bench.run()

    assert code == 1
    assert "Opportunity.Products__c exists with type LongTextArea, needed is Text" in said
    assert "Lead.Sync_with_Partner_Center__c exists with type Text, needed is Checkbox" in said
    assert "Next step: correct this in Setup, Object Manager, then run again" in said
    assert bench.writes() == []


def test_fields_of_microsofts_package_stay_as_they_are_and_the_missing_uniqueness_is_pointed_out(bench: Bench) -> None:
    helps = next(field.values for field in load_wanted().fields if field.values)
    theirs = {
        "Referral_Identifier__c": Field(
            "Referral_Identifier__c", Kind.STRING, "Theirs", length=255, external_id=True, id_lookup=True
        ),
        "How_can_Microsoft_help__c": Field("How_can_Microsoft_help__c", Kind.PICKLIST, "Help", values=(*helps, "More")),
        "Microsoft_Sellers__c": Field("Microsoft_Sellers__c", Kind.TEXTAREA, "Sellers", length=32_768),
    }
    for field in theirs.values():
        bench.add("Opportunity", field)
    before = {name: bench.fields("Opportunity")[name] for name in theirs}

    code, said = bench.run()

    assert code == 0, said
    assert {name: bench.fields("Opportunity")[name] for name in theirs} == before
    (note,) = (line for line in said.splitlines() if line.startswith("Note:"))
    assert note.startswith("Note: Opportunity.Referral_Identifier__c is not Unique: two records can then carry one")


def test_a_field_that_is_too_short_is_lengthened_and_keeps_its_label(bench: Bench) -> None:
    bench.add("Opportunity", Field("Products__c", Kind.STRING, "Our products", length=50))

    code, said = bench.run()

    assert code == 0, said
    assert "change Opportunity.Products__c: lengthen it from 50 to 255 characters" in said
    found = bench.fields("Opportunity")["Products__c"]
    assert (found.length, found.label) == (255, "Our products")


def test_an_identifier_that_is_no_external_id_becomes_one(bench: Bench) -> None:
    bench.add("Lead", Field("Referral_Identifier__c", Kind.STRING, "Referral", length=36))

    code, said = bench.run()

    assert code == 0, said
    assert "change Lead.Referral_Identifier__c: lengthen it from 36 to 100 characters, make it an External ID\n" in said
    found = bench.fields("Lead")["Referral_Identifier__c"]
    assert (found.external_id, found.unique, found.length) == (True, False, 100)


def test_a_missing_value_of_the_picklist_is_added_behind_the_others(bench: Bench) -> None:
    bench.run()
    bench.org.people.remove_picklist_value("Opportunity", "How_can_Microsoft_help__c", "Quotes or Licensing")

    code, said = bench.run()

    assert code == 0, said
    assert "change Opportunity.How_can_Microsoft_help__c: add Quotes or Licensing" in said
    assert bench.fields("Opportunity")["How_can_Microsoft_help__c"].values[-1] == "Quotes or Licensing"


def test_a_value_that_differs_by_case_is_not_doubled_but_pointed_out(bench: Bench) -> None:
    bench.run()
    field = bench.fields("Opportunity")["How_can_Microsoft_help__c"]
    bench.change("Opportunity", field.name, values=tuple(v.replace(" or ", " Or ") for v in field.values))
    bench.org.log.clear()

    code, said = bench.run()

    assert code == 0
    assert bench.writes() == []
    assert "How_can_Microsoft_help__c has the value General Or Other, not General or Other" in said


# ---------------------------------------------------------------- permissions


def test_a_field_made_by_hand_that_nobody_may_see_becomes_visible_to_the_app(bench: Bench) -> None:
    bench.add("Opportunity", Field("Products__c", Kind.STRING, "Products", length=255))
    assert bench.may("Co-sell Sync", "Opportunity", "Products__c") == (False, False)

    code, said = bench.run()

    assert code == 0, said
    assert "add to Opportunity: Products__c" not in said
    assert bench.may("Co-sell Sync", "Opportunity", "Products__c") == (True, True)


def test_the_app_gets_its_objects_without_deletion_and_every_field_it_uses(bench: Bench) -> None:
    bench.run()

    parent, wanted = bench.set_id("Cosell_Sync"), load_wanted()
    objects = {row["SobjectType"]: row for row in bench.rows("ObjectPermissions", ParentId=parent)}
    assert objects.keys() == set(OBJECTS)
    for row in objects.values():
        assert [row[f"Permissions{what}"] for what in ("Read", "Create", "Edit", "ViewAllRecords")] == [True] * 4
        assert not row["PermissionsDelete"]
        assert not row["PermissionsModifyAllRecords"]
    fields = {row["Field"] for row in bench.rows("FieldPermissions", ParentId=parent, PermissionsEdit=True)}
    assert fields == {grant.full_name for grant in field_grants(wanted.of_the_app, wanted, load_field_map(MAP))}
    assert [row["AssigneeId"] for row in bench.rows("PermissionSetAssignment", PermissionSetId=parent)] == [
        bench.org.organization.integration_user
    ]


def test_a_seller_who_gets_the_sellers_permission_set_fills_in_what_is_theirs(bench: Bench) -> None:
    bench.run()
    seller = bench.org.organization.user("Sally Seller").id
    assert bench.rows("PermissionSetAssignment", PermissionSetId=bench.set_id("Cosell_Seller")) == []

    bench.org.organization.add(
        "PermissionSetAssignment", AssigneeId=seller, PermissionSetId=bench.set_id("Cosell_Seller")
    )

    assert bench.may("Sally Seller", "Opportunity", "Sync_with_Partner_Center__c") == (True, True)
    assert bench.may("Sally Seller", "Opportunity", "Sync_Status__c") == (True, False)
    assert bench.rows("ObjectPermissions", ParentId=bench.set_id("Cosell_Seller")) == []


def test_a_permission_that_somebody_took_away_comes_back_and_one_that_was_added_stays(bench: Bench) -> None:
    bench.run()
    organization, parent = bench.org.organization, bench.set_id("Cosell_Sync")
    (audit,) = organization.where("FieldPermissions", ParentId=parent, Field="Lead.Audit__c")
    organization.touch(audit, PermissionsEdit=False)
    (lead,) = organization.where("ObjectPermissions", ParentId=parent, SobjectType="Lead")
    organization.touch(lead, PermissionsViewAllRecords=False, PermissionsDelete=True)

    code, said = bench.run()

    assert code == 0, said
    assert "let Cosell_Sync see and edit in Lead: Audit__c\n" in said
    assert bench.may("Co-sell Sync", "Lead", "Audit__c") == (True, True)
    (row,) = bench.rows("ObjectPermissions", ParentId=parent, SobjectType="Lead")
    assert (row["PermissionsViewAllRecords"], row["PermissionsDelete"]) == (True, True)


def test_a_custom_field_of_the_admins_own_map_is_opened_too_but_not_one_that_everybody_sees(bench: Bench) -> None:
    bench.add("Account", Field("Our_City__c", Kind.STRING, "City", length=40))
    bench.add("Account", Field("Our_Street__c", Kind.STRING, "Street", length=40, required=True, permissionable=False))
    ours = bench.own_map(
        ('crm = "Account.BillingCity"', 'crm = "Account.Our_City__c"'),
        ('crm = "Account.BillingStreet"', 'crm = "Account.Our_Street__c"'),
    )

    code, said = bench.run(MAPPING_FILE=ours)

    assert code == 0, said
    assert "let Cosell_Sync see and edit in Account: BillingAddress, Our_City__c\n" in said


# ---------------------------------------------------------------- who signs in, who gets the permission set


def test_an_administrators_token_provisions_for_the_user_that_is_named(bench: Bench) -> None:
    code, said = bench.run_as_admin("--assign", "cosell.sync@fabrikam.example")

    assert code == 0, said
    assert {entry.caller for entry in bench.org.log.entries} == {"salesforce as Ada Admin"}
    assert bench.may("Co-sell Sync", "Lead", "Audit__c") == (True, True)
    assert bench.may("Ada Admin", "Lead", "Audit__c") == (False, False)
    assert said.endswith("set SALESFORCE_CLIENT_ID and _CLIENT_SECRET, and run again.")


def test_with_the_apps_sign_in_beside_the_token_its_user_is_found_and_it_reads_itself(bench: Bench) -> None:
    code, said = bench.run(SALESFORCE_ACCESS_TOKEN=bench.org.token_for("Ada Admin"))

    assert code == 0, said
    assert {entry.caller for entry in bench.org.log.entries if entry.path.endswith("/CustomField")} == {
        "salesforce as Ada Admin"
    }
    assert "assign Cosell_Sync to cosell.sync@fabrikam.example" in said
    assert said.endswith("can be read by the app.")


def test_a_signed_assertion_is_a_way_in_as_well(bench: Bench) -> None:
    code, said = bench.run(
        SALESFORCE_CLIENT_SECRET="",
        SALESFORCE_PRIVATE_KEY=bench.org.private_key_pem.replace("\n", "\\n"),
        SALESFORCE_USERNAME=bench.org.username,
    )

    assert code == 0, said
    assert said.endswith("can be read by the app.")


def test_without_a_user_the_permission_set_is_assigned_to_nobody_and_the_note_says_how(bench: Bench) -> None:
    code, said = bench.run_as_admin()

    assert code == 0
    assert bench.rows("PermissionSetAssignment") == []
    assert "Note: Cosell_Sync is assigned to nobody: add --assign <username>" in said


def test_a_user_who_does_not_exist_is_refused_before_anything_is_written(bench: Bench) -> None:
    code, said = bench.run_as_admin("--assign", "nobody@fabrikam.example")

    assert code == 1
    assert "this org has no active user nobody@fabrikam.example" in said
    assert "Next step: --assign takes the Username" in said
    assert bench.writes() == []


def test_a_token_that_has_ended_is_named(bench: Bench) -> None:
    code, said = bench.run_as_admin(SALESFORCE_ACCESS_TOKEN="00D!old")

    assert code == 1
    assert "the org refused the token in SALESFORCE_ACCESS_TOKEN: it has ended" in said
    assert "sf org auth show-access-token" in said


def test_a_caller_who_may_not_customize_is_told_to_sign_in_as_an_administrator(bench: Bench) -> None:
    bench.org.organization.access.may_customize.clear()

    code, said = bench.run()

    assert code == 1
    assert "answered 403" in said
    assert "Next step: sign in as a System Administrator: set SALESFORCE_ACCESS_TOKEN" in said


def test_a_user_without_the_license_is_told_which_one(bench: Bench) -> None:
    # https://lietzau-consulting.de/2023/04/setup-salesforce-integration-user-license/
    error = {"message": "The user license doesn't allow the permission", "errorCode": "FIELD_INTEGRITY_EXCEPTION"}
    bench.org.faults.add("status", method="POST", path="PermissionSetAssignment", status=400, body=json.dumps([error]))

    code, said = bench.run()

    assert code == 1
    assert "permission set Cosell_Sync cannot be assigned to cosell.sync@fabrikam.example" in said
    assert "Next step: give the user the permission set license Salesforce API Integration" in said


def test_missing_settings_are_named_with_the_administrators_way_in(bench: Bench) -> None:
    code, said = bench.run(SALESFORCE_CLIENT_ID="", SALESFORCE_CLIENT_SECRET="")

    assert code == 1
    assert "SALESFORCE_CLIENT_ID is missing" in said
    assert "Or sign in as a System Administrator: set SALESFORCE_ACCESS_TOKEN" in said


def test_the_setting_crm_must_say_salesforce(bench: Bench) -> None:
    code, said = bench.run(CRM="dynamics365")

    assert code == 1
    assert "set CRM=salesforce" in said


# ---------------------------------------------------------------- advice


def notes(said: str) -> list[str]:
    return [line.removeprefix("Note: ") for line in said.splitlines() if line.startswith("Note: ")]


def test_stages_and_statuses_that_the_org_does_not_have_are_named_once(bench: Bench) -> None:
    bench.org.people.remove_picklist_value("Opportunity", "StageName", "Qualification")
    ours = bench.own_map(('Status = "Open - Not Contacted"', 'Status = "Fresh"'))

    code, said = bench.run("--plan", MAPPING_FILE=ours)

    assert code == 0
    assert [note.split(":")[0] for note in notes(said)] == [
        "state open of Opportunity names StageName Qualification, which is not an active stage of this org",
        "state on_hold of Lead names Status Fresh, which is not a lead status of this org",
    ]


def test_an_org_with_one_currency_needs_to_be_told_which(bench: Bench) -> None:
    bench.org.people.switch("multi_currency", False)

    code, said = bench.run()
    told, quiet = bench.run(CRM_CURRENCY="USD")

    assert code == 1
    assert notes(said) == [
        "this org has one currency, and so no CurrencyIsoCode: set CRM_CURRENCY to its ISO code, then run again"
    ]
    assert "CurrencyIsoCode" in said.partition("Stopped:")[2]
    assert (told, notes(quiet)) == (0, [])


def test_one_currency_for_an_org_that_has_several_is_pointed_out(bench: Bench) -> None:
    _, said = bench.run("--plan", CRM_CURRENCY="USD")

    assert notes(said) == ["this org has several currencies: unset CRM_CURRENCY, or all amounts count as USD"]


def test_state_and_country_picklists_call_for_their_codes(bench: Bench) -> None:
    bench.org.people.switch("state_country_picklists", True)

    _, said = bench.run("--plan")

    assert [note.partition("let the field map use ")[2].partition(" in place")[0] for note in notes(said)] == [
        "BillingCountryCode, BillingStateCode",
        "CountryCode, StateCode",
    ]


def test_an_own_field_for_the_referrals_id_must_be_unique_and_an_external_id(bench: Bench) -> None:
    bench.add("Opportunity", Field("Our_Referral__c", Kind.STRING, "Referral", length=100))
    ours = bench.own_map(('referral_id = "Referral_Identifier__c"', 'referral_id = "Our_Referral__c"'))

    _, said = bench.run("--plan", MAPPING_FILE=ours)

    assert [note for note in notes(said) if note.startswith("Opportunity.Our_Referral__c")] == [
        "Opportunity.Our_Referral__c is not Unique: two records can then carry one referral. Tick it in Setup, Object "
        "Manager, as soon as no two records share a value",
        "Opportunity.Our_Referral__c is no External ID, by which the app makes records: tick it as well",
    ]


def test_a_field_that_only_the_admins_map_names_is_pointed_out_and_what_the_map_leaves_out_is_not_made(
    bench: Bench,
) -> None:
    ours = bench.own_map(('crm = "Products__c"', 'crm = "ns__Products__c"'))

    planned, plan = bench.run("--plan", MAPPING_FILE=ours)
    code, said = bench.run(MAPPING_FILE=ours)

    assert (planned, code) == (0, 1)
    assert notes(plan) == notes(said)
    assert notes(said)[0].startswith("the field map names Opportunity.ns__Products__c, which does not exist")
    assert notes(said)[1] == "not added to Opportunity, because the field map does not use them: Products__c"
    assert "Products__c" not in bench.fields("Opportunity")
    assert "ns__Products__c" in said.partition("Stopped:")[2]


def test_a_field_that_the_app_cannot_read_in_the_end_is_an_error_that_names_it(bench: Bench) -> None:
    bench.run()
    bench.org.people.hide_field("Opportunity", "Description")

    code, said = bench.run()

    assert code == 1
    assert "No such column 'Description'" in said
    assert "create the field, or let the integration user see and edit it" in said


# ---------------------------------------------------------------- bad days


@pytest.mark.parametrize("kind", ["drop_before", "drop_after"])
@pytest.mark.parametrize("served_before", range(0, 60, 7))
def test_a_lost_answer_anywhere_makes_nothing_twice(bench: Bench, kind: str, served_before: int) -> None:
    if served_before:
        bench.org.faults.add("delay", seconds=0, times=served_before, method="POST", path="sobjects")
    bench.org.faults.add(kind, method="POST", path="sobjects")

    code, said = bench.run()

    assert code == 0, said
    assert "waits, then looks again" in said
    assert len(bench.rows("PermissionSet")) == 2
    for name in ("Cosell_Sync", "Cosell_Seller"):
        fields = [row["Field"] for row in bench.rows("FieldPermissions", ParentId=bench.set_id(name))]
        assert len(fields) == len(set(fields))
    assert len(bench.rows("PermissionSetAssignment")) == 1


def test_what_somebody_else_makes_in_the_same_moment_is_taken_as_there(bench: Bench) -> None:
    said: list[str] = []

    def say(words: str) -> None:
        # The second time a step is said, it is about to be done.
        if "add to Lead: Audit__c" in words and words in said:
            bench.add("Lead", Field("Audit__c", Kind.TEXTAREA, "Theirs", length=100_000))
        said.append(words)

    code = main([], bench.services(), say=say, sleep=bench.clock.advance)

    assert code == 0
    assert bench.fields("Lead")["Audit__c"].label == "Theirs"


@pytest.mark.parametrize("path", ["CustomField", "FieldPermissions"])
def test_a_throttled_run_waits_and_goes_on(bench: Bench, path: str) -> None:
    bench.org.faults.add("throttle", method="POST", path=path, retry_after_s=30)

    code, said = bench.run()

    assert code == 0, said
    assert "waits, then looks again" in said

"""What only Salesforce does to a deal: its permissions, rules, picklists, locks, limits, currencies, roles and leads.

Whatever goes wrong is named where a person looks, is tried again only when that can help, and stops no other deal.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from shared.messages import SyncRequest
from shared.store.failures import Failure
from tests.flows.crms import only
from tests.flows.world import World

pytestmark = only("salesforce", why="Dynamics 365 has its own module of failures")

INTENT = {
    "/details/requirements/additionalRequirements": {
        "attributes": [{"type": "CustomerMarketplaceIntent", "id": "HaveNotDecided"}]
    }
}
"""Part of the form of every deal, without which it cannot be changed."""


def shared(world: World, **values: Any) -> str:
    """A deal in agreement since a minute."""
    record_id = world.opportunity(**values)
    world.settle()
    world.advance(60)
    world.forget_calls()
    return record_id


def shown_failure(world: World, record_id: str, name: str) -> Failure:
    """What the seller sees of it in the CRM, and the operator in the list of failures."""
    label, record = world.label(name), world.record(record_id)
    assert record["sync_status"].startswith(f"✗ {label}")
    assert label in record["audit"].splitlines()[0]
    failure = next(each for each in world.services.failures.list() if each.field == label)
    assert failure.next_step
    return failure


def replayed(world: World, record_id: str) -> None:
    """An operator has the deal looked at again."""
    request = SyncRequest(cause="operator", record_table="Opportunity", record_id=record_id)
    world.services.queue.send(request)
    world.settle()


# ---------------------------------------------------------------- fields


def test_a_field_the_integration_user_may_not_see_is_named_and_the_others_go_on(world: World) -> None:
    record_id = shared(world)
    world.crm.people.hide_field("Opportunity", "Description")
    world.desk.edit(record_id, deal_value=61000, notes="Unseen.")

    world.settle()

    assert world.referral_of(record_id)["details"]["dealValue"] == 61000
    assert world.referral_of(record_id)["details"]["notes"] == "Migration assessment done."
    failure = shown_failure(world, record_id, "notes")
    assert "Description may not be read" in failure.reason
    assert "Cosell_Sync" in failure.next_step


def test_a_field_that_was_hidden_is_brought_into_agreement_once_it_is_seen_again(world: World) -> None:
    record_id = shared(world)
    world.crm.people.hide_field("Opportunity", "Description")
    world.people.partner_edits(world.referral_of(record_id)["id"], {"/details/notes": "From the portal."})
    world.settle()
    shown_failure(world, record_id, "notes")

    world.crm.people.show_field("Opportunity", "Description")
    world.advance(16 * 60)
    replayed(world, record_id)

    assert world.record(record_id)["notes"] == "From the portal."
    assert world.services.failures.list() == ()
    assert world.is_at_rest()


def test_a_field_that_may_not_be_edited_keeps_nothing_else_from_being_written(world: World) -> None:
    record_id = shared(world)
    world.crm.people.make_read_only("Opportunity", "Description")
    changes = {"/details/notes": "From the portal.", "/details/dealValue": 70000}
    world.people.partner_edits(world.referral_of(record_id)["id"], changes)

    world.settle()

    record = world.record(record_id)
    assert (record["deal_value"], record["notes"]) == (70000, "Migration assessment done.")
    assert "edit the field" in shown_failure(world, record_id, "notes").next_step


@pytest.mark.parametrize("column", ["Audit__c", "Sync_Status__c", "Referral_Link__c"])
def test_a_hidden_column_of_our_own_stops_no_deal_and_is_named(world: World, column: str) -> None:
    record_id = shared(world)
    world.crm.people.hide_field("Opportunity", column)
    world.people.partner_edits(world.referral_of(record_id)["id"], {"/details/notes": "From the portal."})
    new = world.people.microsoft_creates_deal(INTENT)
    ours = world.opportunity()

    world.settle()

    assert world.record(record_id)["notes"] == "From the portal."
    assert world.record_of(new["id"])["deal_value"] == 50000
    assert world.record(ours)["referral_id"] == world.referral_of(ours)["id"]
    failures = world.services.failures.list()
    assert {failure.field for failure in failures} == {column}
    assert all("Cosell_Sync" in failure.next_step for failure in failures)
    assert world.failed_invocations == 0


def test_a_mandatory_field_that_a_rule_refuses_is_reported_in_the_words_of_the_rule(world: World) -> None:
    words = "Close date must lie in this fiscal year."
    world.crm.people.add_validation_rule("Opportunity", "Year", words, "CloseDate")
    world.people.microsoft_creates_deal(INTENT)

    world.settle()

    (failure,) = world.services.failures.list()
    assert failure.field == world.label("close_date")
    assert words in failure.reason


def test_a_contact_the_org_refuses_does_not_keep_the_deal_out_and_is_noted(world: World) -> None:
    team = [
        {"firstName": "Sue", "lastName": "Smith", "phoneNumber": "123", "email": "sue at contoso"},
        {"firstName": "Tom", "lastName": "Smith", "phoneNumber": "123", "email": "tom@contoso.example"},
    ]
    deal = world.people.microsoft_creates_deal(INTENT | {"/customerProfile/team": team})

    world.settle()

    record = world.record_of(deal["id"])
    assert [contact["first_name"] for contact in world.desk.contacts()] == ["Tom"]
    assert record["sync_status"].startswith("✓")
    assert "Contact.Email was left out" in world.notes(record["id"])


def test_an_account_is_made_without_the_column_that_the_org_refuses(world: World) -> None:
    world.crm.organization.state_country_picklists = True
    deal = world.people.microsoft_creates_deal(INTENT | {"/customerProfile/address/state": "Nowhere"})

    world.settle()

    record = world.record_of(deal["id"])
    assert [account["name"] for account in world.desk.accounts()] == [deal["customerProfile"]["name"]]
    assert "was left out" in world.notes(record["id"])


def test_a_hidden_field_that_says_where_a_lead_stands_leaves_the_lead_alone_and_is_named(world: World) -> None:
    referral = world.people.creates_lead(INTENT)
    world.settle()
    world.advance(60)
    world.crm.people.hide_field("Lead", "Referral_Accepted__c")
    world.desk.edit_lead(world.lead_of(referral["id"])["id"], notes="Call on Monday.")
    world.forget_calls()

    world.settle()

    assert [write for write in world.writes() if write.startswith("partner_center")] == []
    (failure,) = world.services.failures.list()
    assert failure.reason.count("may not be read") == 1
    assert "counterpart" not in failure.reason


def test_what_people_entered_is_not_in_the_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    lead = INTENT | {
        "/customerProfile/team": [{"firstName": "Jane", "lastName": "Doe", "email": "jane.doe at contoso"}]
    }
    world.people.creates_lead(lead)

    world.settle()

    logged = " ".join(str(record.__dict__) for record in caplog.records if record.name.startswith(("shared", "cosell")))
    assert "sync." in logged
    assert "jane.doe" not in logged


# ---------------------------------------------------------------- records that are not there


def test_a_record_that_is_no_longer_shared_with_us_is_a_failure_and_not_a_deletion(world: World) -> None:
    record_id = shared(world)
    world.desk.edit(record_id, notes="Ours.")
    world.fire("crm_poller")
    nothing = {"totalSize": 0, "done": True, "records": []}
    unknown = [{"errorCode": "INVALID_CROSS_REFERENCE_KEY", "message": "invalid cross reference id", "fields": []}]
    answer = {"httpStatusCode": 404, "httpHeaders": {}, "referenceId": "write", "body": unknown}
    world.crm.faults.add("status", path="/query", status=200, body=nothing, times=9)
    world.crm.faults.add("status", path="/composite$", status=200, body={"compositeResponse": [answer]}, times=9)

    world.work()

    assert world.link_of(record_id).state == "failed"
    (failure,) = world.services.failures.list()
    assert "View All" in failure.next_step

    world.crm.faults.clear()
    replayed(world, record_id)

    assert world.referral_of(record_id)["details"]["notes"] == "Ours."
    assert world.services.failures.list() == ()


def test_a_restored_record_goes_on(world: World) -> None:
    record_id = shared(world)
    world.desk.delete(record_id)
    world.advance(60)
    world.settle()
    assert world.link_of(record_id).state == "tombstone"

    world.crm.people.undelete("Opportunity", record_id)
    world.desk.edit(record_id, notes="Back again.")
    world.advance(60)
    world.settle()

    assert world.link_of(record_id).state == "active"
    assert world.referral_of(record_id)["details"]["notes"] == "Back again."


def test_a_picklist_value_the_org_lacks_does_not_keep_a_deal_of_microsofts_out(world: World) -> None:
    world.crm.people.remove_picklist_value("Opportunity", "How_can_Microsoft_help__c", "General or Other")
    deal = world.people.microsoft_creates_deal(INTENT | {"/inviteContext/assistanceRequestCode": "GeneralOrOther"})
    other = world.people.microsoft_creates_deal(INTENT)

    world.settle()

    record = world.record_of(deal["id"])
    assert (record["deal_value"], record["help"]) == (50000, None)
    assert world.record_of(other["id"])["sync_status"].startswith("✓")


def test_a_custom_field_the_org_made_mandatory_is_named(world: World) -> None:
    world.crm.people.require_field("Opportunity", "NextStep")
    world.people.microsoft_creates_deal(INTENT)

    world.settle()

    assert world.desk.opportunities() == []
    (failure,) = world.services.failures.list()
    assert "NextStep" in f"{failure.field} {failure.reason}"
    assert world.failed_invocations == 0


def test_a_custom_field_the_org_made_mandatory_can_be_filled_by_the_map(
    make_world: Callable[..., World], edited_map: Callable[..., str]
) -> None:
    commented = r"# (\[tables.Opportunity.new\])\n"
    world = make_world(MAPPING_FILE=edited_map((commented, r'\1\nNextStep = "Call the customer"\n')))
    world.crm.people.require_field("Opportunity", "NextStep")
    deal = world.people.microsoft_creates_deal(INTENT)

    world.settle()

    assert world.record_of(deal["id"])["sync_status"].startswith("✓")
    assert [row["NextStep"] for row in world.crm.state()["Opportunity"]] == ["Call the customer"]
    assert world.is_at_rest()


# ---------------------------------------------------------------- rules, locks, sessions, limits


def test_a_validation_rule_is_quoted_and_other_deals_go_on(world: World) -> None:
    refused, other = shared(world), shared(world)
    words = "Only finance may change large deals."
    world.crm.people.add_validation_rule("Opportunity", "Large", words, when={"Amount": 90000})
    for record_id in (refused, other):
        amount = 90000 if record_id == refused else 70000
        world.people.partner_edits(world.referral_of(record_id)["id"], {"/details/dealValue": amount})

    world.settle()

    assert world.record(other)["deal_value"] == 70000
    assert world.record(refused)["deal_value"] == 50000
    (failure,) = world.services.failures.list()
    assert words in failure.reason
    assert words in world.record(refused)["audit"].splitlines()[0]

    world.crm.people.clear_validation_rules()
    replayed(world, refused)

    assert world.record(refused)["deal_value"] == 90000
    assert world.services.failures.list() == ()


def test_a_row_that_somebody_holds_locked_is_written_a_little_later(world: World) -> None:
    locked, other = shared(world), shared(world)
    world.crm.people.lock_row(locked, times=5)
    for record_id in (locked, other):
        world.people.partner_edits(world.referral_of(record_id)["id"], {"/details/notes": "From the portal."})
    world.settle()
    assert world.record(other)["notes"] == "From the portal."
    assert world.record(locked)["notes"] != "From the portal."

    for _ in range(3):
        world.advance(60)
        world.settle()

    assert world.record(locked)["notes"] == "From the portal."
    assert world.services.failures.list() == ()
    assert world.failed_invocations == 0


def test_a_session_that_expires_goes_unnoticed(world: World) -> None:
    record_id = shared(world)
    world.crm.people.expire_sessions()
    world.people.partner_edits(world.referral_of(record_id)["id"], {"/details/notes": "From the portal."})

    world.settle()

    assert world.record(record_id)["notes"] == "From the portal."
    assert world.services.failures.list() == ()


def test_an_exhausted_daily_limit_makes_the_work_wait_and_loses_nothing(world: World) -> None:
    record_id = shared(world)
    world.crm.people.set_api_usage(100, max=100)
    world.people.partner_edits(world.referral_of(record_id)["id"], {"/details/notes": "From the portal."})
    world.settle(poll=False)
    waiting = world.calls().get("crm write", 0)
    for _ in range(10):
        world.advance(60)
        world.settle(poll=False)

    assert waiting == world.calls().get("crm write", 0) <= 1
    assert "used up" in " ".join(entry.message for entry in world.story(record_id))

    world.crm.people.set_api_usage(0, max=100)
    world.advance(1000)
    world.settle()

    assert world.record(record_id)["notes"] == "From the portal."
    assert world.services.failures.list() == ()
    assert world.failed_invocations == 0


def test_the_reserve_for_people_is_kept(make_world: Callable[..., World]) -> None:
    world = make_world(SALESFORCE_API_RESERVE="50")
    record_id = shared(world)
    world.crm.people.set_api_usage(60, max=100)
    referral = world.referral_of(record_id)
    world.people.partner_edits(referral["id"], {"/details/notes": "One."})
    world.settle(poll=False)  # this call tells how things stand
    world.people.partner_edits(referral["id"], {"/details/notes": "Two."})
    used = world.crm.organization.api_used
    world.settle(poll=False)

    assert world.crm.organization.api_used == used
    assert world.record(record_id)["notes"] == "One."


# ---------------------------------------------------------------- currencies


@pytest.fixture
def with_one_currency(make_world: Callable[..., World]) -> World:
    world = make_world(CRM_CURRENCY="USD")
    world.crm.organization.multi_currency = False
    return world


def test_an_org_with_one_currency_shares_its_amounts_in_it(with_one_currency: World) -> None:
    world = with_one_currency

    record_id = world.opportunity(currency=None)
    world.settle()

    details = world.referral_of(record_id)["details"]
    assert (details["dealValue"], details["currency"]) == (50000, "USD")
    assert world.is_at_rest()


def test_a_deal_in_another_currency_arrives_in_an_org_with_one_without_its_amount(with_one_currency: World) -> None:
    world = with_one_currency
    deal = world.people.microsoft_creates_deal(INTENT | {"/details/currency": "EUR"})

    world.settle()

    record = world.record_of(deal["id"])
    assert record["deal_value"] is None
    failure = shown_failure(world, record["id"], "deal_value")
    assert "50000 EUR" in failure.reason
    assert "amounts in USD" in failure.accepted


def test_a_sellers_amount_replaces_one_in_a_currency_that_the_org_does_not_have(with_one_currency: World) -> None:
    world = with_one_currency
    deal = world.people.microsoft_creates_deal(INTENT | {"/details/currency": "EUR"})
    world.people.partner_accepts(deal["id"])
    world.settle()
    world.advance(60)

    world.desk.edit(world.record_of(deal["id"])["id"], deal_value=60000)
    world.settle()

    assert (deal["details"]["dealValue"], deal["details"]["currency"]) == (60000, "USD")
    assert world.services.failures.list() == ()


def test_an_org_with_one_currency_is_told_what_to_set(make_world: Callable[..., World]) -> None:
    world = make_world()
    world.crm.organization.multi_currency = False
    record_id = world.opportunity(currency=None)

    world.settle()

    assert "CRM_CURRENCY" in shown_failure(world, record_id, "deal_value").next_step


# ---------------------------------------------------------------- contacts, owners and teams


def test_everybody_with_a_contact_role_is_in_partner_center_the_primary_contact_first(world: World) -> None:
    account = world.desk.create_account()
    record_id = world.opportunity(account=account, contact=world.desk.create_contact(account, first_name="Pia"))
    world.crm.people.add_contact_role(record_id, world.desk.create_contact(account, first_name="Ole"))

    world.settle()

    people = world.referral_of(record_id)["customerProfile"]["team"]
    assert [person["firstName"] for person in people] == ["Pia", "Ole"]
    assert world.is_at_rest()


def test_a_contact_who_gets_a_role_later_joins_though_the_opportunity_was_not_saved(world: World) -> None:
    record_id = shared(world)
    contact = world.desk.create_contact(world.desk.create_account(), first_name="Ole")
    world.crm.people.add_contact_role(record_id, contact)

    world.settle()

    people = world.referral_of(record_id)["customerProfile"]["team"]
    assert [person["firstName"] for person in people] == ["Sue", "Ole"]


def test_all_people_of_a_customer_get_a_contact_role_the_first_as_primary(world: World) -> None:
    team = [
        {"firstName": name, "lastName": "Smith", "phoneNumber": "123", "email": f"{name.lower()}@contoso.example"}
        for name in ("Sue", "Tom", "Uma")
    ]
    deal = world.people.microsoft_creates_deal(INTENT | {"/customerProfile/team": team})

    world.settle()

    record = world.record_of(deal["id"])
    state = world.crm.state()
    first_names = {contact["Id"]: contact["FirstName"] for contact in state["Contact"]}
    roles = [(first_names[role["ContactId"]], role["IsPrimary"]) for role in state["OpportunityContactRole"]]
    assert roles == [("Sue", True), ("Tom", False), ("Uma", False)]
    assert {contact["account"] for contact in world.desk.contacts()} == {record["account"]}
    assert world.is_at_rest()


def test_the_integration_user_is_nobody_to_tell_microsoft_of(world: World) -> None:
    deal = world.people.microsoft_creates_deal(INTENT)
    world.settle()
    world.advance(60)

    world.desk.take_on(world.record_of(deal["id"])["id"])
    world.settle()

    assert world.pc.referrals[deal["id"]]["status"] == "Active"
    assert world.pc.referrals[deal["id"]]["team"] == []
    assert world.services.failures.list() == ()


def test_with_opportunity_teams_mapped_the_team_is_in_partner_center(
    make_world: Callable[..., World], edited_map: Callable[..., str]
) -> None:
    team = r"# (\[\[tables.Opportunity.fields.people\]\])\n# (.*)\n# (.*)\n# (.*)\n# (.*)\n"
    world = make_world(MAPPING_FILE=edited_map((team, r"\1\n\2\n\3\n\4\n\5\n")))
    world.crm.organization.opportunity_teams = True
    record_id = world.opportunity()
    otto = world.desk.add_seller("Otto", "Other", "otto@fabrikam.example", "2065550102")
    world.crm.people.add_team_member(record_id, otto)

    world.settle()

    assert [person["firstName"] for person in world.referral_of(record_id)["team"]] == ["Sally", "Otto"]
    assert world.is_at_rest()


def test_a_two_line_address_keeps_its_lines(world: World) -> None:
    account = world.desk.create_account(street="1 Example Way\nSuite 5")
    record_id = world.opportunity(account=account)

    world.settle()

    address = world.referral_of(record_id)["customerProfile"]["address"]
    assert (address["addressLine1"], address["addressLine2"]) == ("1 Example Way", "Suite 5")


# ---------------------------------------------------------------- leads and what was there before


def test_a_lead_with_neither_name_nor_company_gets_what_salesforce_wants(world: World) -> None:
    changes = {"/customerProfile/team": [], "/customerProfile/name": ""}
    referral = world.people.creates_lead(INTENT | changes)

    world.settle()

    lead = world.lead_of(referral["id"])
    assert (lead["contact_last_name"], lead["customer_name"]) == ("(unknown)", "(unknown)")
    assert world.services.failures.list() == ()


def test_ticking_referral_accepted_accepts_it_and_makes_the_opportunity(world: World) -> None:
    referral = world.people.creates_lead(INTENT)
    world.settle()
    world.advance(60)
    lead = world.lead_of(referral["id"])

    world.crm.people.edit("Lead", lead["id"], {"Referral_Accepted__c": True})
    world.settle()

    assert world.pc.referrals[referral["id"]]["status"] == "Active"
    (opportunity,) = world.desk.opportunities()
    assert opportunity["referral_id"] == referral["id"]
    assert [row["Status"] for row in world.crm.state()["Lead"]] == ["Closed - Not Converted"]
    assert world.is_at_rest()


def test_a_lead_accepted_elsewhere_is_closed_so_that_nobody_converts_it_again(world: World) -> None:
    referral = world.people.creates_lead(INTENT)
    world.settle()
    world.advance(60)

    world.people.partner_accepts(referral["id"])
    world.settle()

    assert [row["Status"] for row in world.crm.state()["Lead"]] == ["Closed - Not Converted"]
    assert len(world.desk.opportunities()) == 1
    assert world.pc.referrals[referral["id"]]["status"] == "Active"
    assert world.is_at_rest()


def test_a_deal_without_a_close_date_gets_one_that_follows_from_its_creation(world: World) -> None:
    deal = world.people.microsoft_creates_deal(INTENT | {"/details/closingDateTime": None})

    world.settle()

    assert world.record_of(deal["id"])["close_date"] == "2027-01-31"  # 90 days after 2 November
    assert world.is_at_rest()


def test_a_deal_that_microsofts_connector_had_linked_goes_on_without_a_new_one(world: World) -> None:
    deal = world.people.microsoft_creates_deal(INTENT)
    audit = "2020-04-17 09:05 - Partner Center Referral to CRM sync success."
    record_id = world.opportunity(referral_id=deal["id"].upper(), audit=audit)

    world.settle()

    assert [row["id"] for row in world.desk.opportunities()] == [record_id]
    record = world.record(record_id)
    assert record["audit"].endswith(audit)
    assert len(world.referrals()) == 1


def test_a_record_named_by_its_short_id_in_the_portal_is_found(world: World) -> None:
    record_id = world.opportunity(sync_flag=False)
    deal = world.people.microsoft_creates_deal(INTENT | {"/externalReferenceId": record_id[:15]})

    world.settle()

    assert world.link_of(record_id).referral_id == deal["id"]
    assert len(world.desk.opportunities()) == 1

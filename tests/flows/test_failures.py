"""What goes wrong is kept for a person in words, stops no other deal, loses nothing, and is over once it is mended."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

import pytest

from shared.messages import SyncRequest
from shared.store.failures import Failure
from tests.flows.backstage import Mishap
from tests.flows.crms import only, shipped_map
from tests.flows.world import World

HELP = {"help": "CustomerTechnicalArchitecture"}
INTENT = {
    "/details/requirements/additionalRequirements": {
        "attributes": [{"type": "CustomerMarketplaceIntent", "id": "HaveNotDecided"}]
    }
}
"""Part of the form of every deal, without which it cannot be changed."""

MAY_BE_EMPTY = only("dynamics365", why="elsewhere a record without it cannot be made")
FORGET_LATE_CREATES_S = 125
"""Longer than an interrupted create is waited for."""


def shared(world: World, **values: Any) -> str:
    record_id = world.opportunity(**values)
    world.settle()
    world.advance(60)
    world.forget_calls()
    return record_id


def edit(world: World, record_id: str, **values: Any) -> None:
    world.desk.edit(record_id, **values)
    world.settle()
    world.advance(60)


def replay(world: World, failure: Failure, referral_id: str) -> None:
    """An operator has the deal looked at again."""
    world.services.queue.send(SyncRequest(cause="operator", referral_id=referral_id))
    world.settle()
    assert failure not in world.services.failures.list()


def assert_well(world: World, record_id: str) -> None:
    """Both sides are there, and nothing is left that speaks of a failure."""
    record = world.record(record_id)
    assert record["referral_id"] == world.referral_of(record_id)["id"]
    assert record["sync_status"].startswith("✓")
    assert world.services.failures.list() == ()
    assert world.failed_invocations == 0
    assert world.is_at_rest()


def save_again(world: World, record_id: str) -> None:
    world.desk.save_again(record_id)
    world.settle()
    world.advance(60)


def assert_shown(world: World, record_id: str, field: str) -> Failure:
    """The seller sees it in the CRM, the operator in the list of failures. `field` is the name of its row."""
    label, record = world.label(field), world.record(record_id)
    assert record["sync_status"].startswith(f"✗ {label}")
    assert label in record["audit"].splitlines()[0]
    (failure,) = world.services.failures.list()
    assert failure.field == label
    assert failure.next_step
    return failure


# ---------------------------------------------------------------- what Partner Center needs is missing


@pytest.mark.parametrize(
    ("field", "filled"),
    [
        pytest.param("name", "Contoso", marks=MAY_BE_EMPTY),
        ("deal_value", 50000),
        pytest.param("close_date", "2027-03-31", marks=MAY_BE_EMPTY),
        ("solutions", "SOL-1"),
    ],
)
def test_an_opportunity_that_lacks_a_field_is_not_sent_until_it_is_filled_in(
    world: World, field: str, filled: object
) -> None:
    record_id = world.opportunity(**{field: None})

    world.settle()

    assert world.pc.log.entries == []
    failure = assert_shown(world, record_id, field)
    assert failure.next_step == f"Fill in {world.label(field)} and save the opportunity"
    world.advance(60)

    edit(world, record_id, **{field: filled})

    assert_well(world, record_id)


def test_of_several_fields_the_status_names_each_and_the_audit_tells_all(world: World) -> None:
    record_id = world.opportunity(deal_value=None, solutions=None)

    world.settle()

    record = world.record(record_id)
    labels = [world.label("deal_value"), world.label("solutions")]
    assert record["sync_status"].startswith("✗ ")
    assert all(label in record["sync_status"] and f"Fill in {label}" in record["audit"] for label in labels)


@pytest.mark.parametrize(
    ("of_account", "field", "filled"),
    [
        pytest.param("name", "customer_name", "Contoso", marks=MAY_BE_EMPTY),
        ("street", "customer_street", "1 Example Way"),
        ("city", "customer_city", "Redmond"),
        ("country", "customer_country", "US"),
    ],
)
def test_an_account_that_lacks_a_field_keeps_the_deal_back_until_it_is_filled_in(
    world: World, of_account: str, field: str, filled: str
) -> None:
    account = world.desk.create_account(**{of_account: None})
    record_id = world.opportunity(account=account)

    world.settle()

    assert world.pc.log.entries == []
    assert_shown(world, record_id, field)
    world.advance(60)

    world.desk.edit_account(account, **{of_account: filled})
    save_again(world, record_id)

    assert_well(world, record_id)


def test_a_country_that_is_no_code_is_named_with_what_is_accepted(world: World) -> None:
    account = world.desk.create_account(country="Germany")
    record_id = world.opportunity(account=account)

    world.settle()

    assert world.pc.log.entries == []
    failure = assert_shown(world, record_id, "customer_country")
    assert "GERMANY" in failure.reason
    assert "two-letter country codes" in failure.accepted


@pytest.mark.parametrize(
    ("of_contact", "said"),
    [
        ("first_name", "first name"),
        pytest.param("last_name", "last name", marks=MAY_BE_EMPTY),
        ("phone", "phone"),
        ("email", "e-mail"),
    ],
)
def test_help_from_microsoft_needs_a_contact_it_can_reach(world: World, of_contact: str, said: str) -> None:
    contact = world.desk.create_contact(world.desk.create_account(), **{of_contact: None})
    record_id = world.opportunity(contact=contact, **HELP)

    world.settle()

    assert world.pc.log.entries == []
    failure = assert_shown(world, record_id, "customer_contact")
    assert f"lacks {said}, and" in failure.reason
    world.advance(60)

    world.desk.edit_contact(contact, **{of_contact: f"new-{uuid4().hex[:8]}@contoso.example"})
    save_again(world, record_id)

    assert_well(world, record_id)


def test_help_asked_for_later_needs_a_contact_too(world: World) -> None:
    record_id = shared(world, contact=None)

    edit(world, record_id, **HELP)

    assert len(world.pc.referrals) == 1
    assert_shown(world, record_id, "customer_contact")

    contact = world.desk.create_contact(world.desk.create_account())
    edit(world, record_id, contact=contact)

    assert len(world.pc.referrals) == 2
    assert_well(world, record_id)


def test_a_deal_without_help_needs_no_contact(world: World) -> None:
    record_id = world.opportunity(contact=None)

    world.settle()

    assert_well(world, record_id)


def test_everything_that_is_missing_is_named_at_once(world: World) -> None:
    contact = world.desk.create_contact(world.desk.create_account())
    record_id = world.opportunity(deal_value=None, solutions=None, account=None, contact=contact)

    world.settle()

    audit = world.record(record_id)["audit"]
    for field in ("deal_value", "solutions", "customer_name", "customer_city", "customer_country"):
        assert world.label(field) in audit
    assert len(world.services.failures.list()) == 1


def test_a_failure_that_stays_the_same_is_written_to_the_crm_once(world: World) -> None:
    record_id = world.opportunity(solutions=None)
    world.settle()
    world.advance(60)
    world.forget_calls()

    edit(world, record_id, notes="Still without products.")

    assert world.writes() == []
    assert_shown(world, record_id, "solutions")


@pytest.mark.real_storage
def test_a_mandatory_field_cannot_be_emptied_later(world: World) -> None:
    record_id = shared(world)

    edit(world, record_id, solutions=None, notes="New.")

    own = world.referral_of(record_id)
    assert [tag["id"] for tag in own["details"]["requirements"]["solutions"]] == ["SOL-15974-MQF"]
    assert own["details"]["notes"] == "New."
    assert_shown(world, record_id, "solutions")

    edit(world, record_id, solutions="SOL-2")

    assert [tag["id"] for tag in own["details"]["requirements"]["solutions"]] == ["SOL-2"]
    assert_well(world, record_id)


def test_unflagging_a_record_that_failed_ends_the_failure(world: World) -> None:
    record_id = world.opportunity(solutions=None)
    world.settle()
    world.advance(60)

    edit(world, record_id, sync_flag=False)

    assert world.services.failures.list() == ()
    assert world.pc.log.entries == []


# ---------------------------------------------------------------- values without a counterpart


@pytest.fixture
def without_general_help(make_world: Callable[..., World], edited_map: Callable[..., str]) -> World:
    """The admin's map knows one kind of help less."""
    return make_world(MAPPING_FILE=edited_map(("GeneralOrOther = .*\n", "")))


def test_a_choice_the_map_does_not_know_keeps_the_deal_in_the_crm(without_general_help: World) -> None:
    world = without_general_help
    record_id = world.opportunity(help="GeneralOrOther")

    world.settle()

    assert world.pc.log.entries == []
    failure = assert_shown(world, record_id, "help")
    assert str(world.desk.help_choices["GeneralOrOther"]) in failure.reason
    assert str(world.desk.help_choices["PostSalesCustomerSuccess"]) in failure.accepted
    world.advance(60)

    edit(world, record_id, help="PostSalesCustomerSuccess")

    assert len(world.pc.referrals) == 2
    assert_well(world, record_id)


def test_a_choice_of_partner_centers_the_map_does_not_know_leaves_the_rest_of_the_deal_alone(
    without_general_help: World,
) -> None:
    world = without_general_help
    deal = world.people.microsoft_creates_deal(INTENT | {"/inviteContext/assistanceRequestCode": "GeneralOrOther"})

    world.settle()

    record = world.record_of(deal["id"])
    assert record["deal_value"] == 50000
    assert record["help"] is None
    failure = assert_shown(world, record["id"], "help")
    assert "GeneralOrOther" in failure.reason
    assert world.is_at_rest()


# ---------------------------------------------------------------- Partner Center refuses


REFUSAL = {"error": {"code": "invalidRequest", "message": "The value is not allowed.", "target": "details/notes"}}


def test_an_edit_partner_center_refuses_is_shown_and_other_deals_go_on(world: World) -> None:
    refused_id, other_id = shared(world), shared(world)
    refused = world.referral_of(refused_id)
    world.pc.faults.add("status", method="PATCH", path=refused["id"], times=99, status=400, body=REFUSAL)

    world.desk.edit(refused_id, notes="Refused.")
    world.desk.edit(other_id, notes="Taken.")
    world.settle()
    world.advance(60)

    assert world.referral_of(other_id)["details"]["notes"] == "Taken."
    failure = assert_shown(world, refused_id, "notes")
    assert "The value is not allowed." in failure.reason
    assert world.failed_invocations == 0
    assert len(world.pc.log.matching("PATCH", refused["id"])) == 1

    world.pc.faults.clear()
    save_again(world, refused_id)

    assert refused["details"]["notes"] == "Refused."
    assert_well(world, refused_id)


def test_what_microsoft_changed_arrives_though_our_own_edit_is_refused(world: World) -> None:
    record_id = shared(world)
    own = world.referral_of(record_id)
    world.pc.faults.add("status", method="PATCH", times=99, status=400, body=REFUSAL)
    world.people.partner_edits(own["id"], {"/details/dealValue": 70000})

    edit(world, record_id, notes="Refused.")

    assert world.record(record_id)["deal_value"] == 70000
    assert_shown(world, record_id, "notes")


def test_a_create_partner_center_refuses_is_tried_again_when_the_record_is_saved(world: World) -> None:
    world.pc.faults.add("status", method="POST", status=400, body=REFUSAL)
    record_id = shared(world)
    assert world.pc.referrals == {}
    assert_shown(world, record_id, "notes")

    edit(world, record_id, notes="Better.")

    assert len(world.pc.referrals) == 1
    assert_well(world, record_id)


def test_an_invitation_partner_center_refuses_leaves_our_own_deal_and_is_tried_again(world: World) -> None:
    record_id = shared(world)
    world.pc.faults.add("status", method="POST", status=400, body=REFUSAL)

    edit(world, record_id, **HELP)
    own = world.referral_of(record_id)
    assert world.pc.of_engagement(own["engagementId"]) == [own]
    assert len(world.services.failures.list()) == 1

    save_again(world, record_id)

    assert world.microsofts(own["engagementId"])["status"] == "New"
    assert_well(world, record_id)


def test_a_missing_role_names_the_role_and_a_replay_brings_the_deal(world: World) -> None:
    account = world.pc.accounts.pop("sync@fabrikam.example")
    record_id = shared(world)
    (failure,) = world.services.failures.list()
    assert "Referrals admin" in failure.next_step
    assert "Referrals admin" in world.record(record_id)["audit"]

    world.pc.accounts["sync@fabrikam.example"] = account
    world.services.queue.send(SyncRequest(cause="operator", record_table=world.desk.opportunity, record_id=record_id))
    world.settle()

    assert_well(world, record_id)


@pytest.mark.parametrize("status", [403, 404])
def test_a_referral_that_cannot_be_read_is_recorded_and_arrives_with_a_replay(world: World, status: int) -> None:
    body = {"error": {"code": "accessDenied" if status == 403 else "itemNotFound", "message": "No."}}
    world.pc.faults.add("status", method="GET", path="/referrals/", times=99, status=status, body=body)
    deal = world.people.microsoft_creates_deal(INTENT)
    world.simulators.webhooks.dispatcher.waiting[:] = world.simulators.webhooks.dispatcher.waiting[:1]
    world.settle()
    assert world.desk.opportunities() == []
    (failure,) = world.services.failures.list()
    assert failure.deal == f"pc_{deal['id']}"
    assert failure.next_step
    assert world.failed_invocations == 0

    world.pc.faults.clear()
    replay(world, failure, deal["id"])

    assert_well_inbound(world, deal)


def assert_well_inbound(world: World, deal: Mapping[str, Any]) -> None:
    assert world.record_of(deal["id"])["sync_status"].startswith("✓")
    assert len(world.desk.opportunities()) == len(world.desk.accounts()) == len(world.desk.contacts()) == 1
    assert world.services.failures.list() == ()
    assert world.is_at_rest()


# ---------------------------------------------------------------- the CRM refuses


def test_a_value_the_crm_refuses_is_named_and_arrives_when_the_deal_changes_again(world: World) -> None:
    record_id = shared(world)
    own = world.referral_of(record_id)
    refusal = world.backstage.refuse_notes("Theirs.")

    world.people.partner_edits(own["id"], {"/details/notes": "Theirs."})
    world.settle()
    world.advance(60)

    failure = assert_shown(world, record_id, "notes")
    assert refusal in failure.reason
    assert own["details"]["notes"] == "Theirs."

    world.people.partner_edits(own["id"], {"/details/notes": "Short."})
    world.settle()

    assert world.record(record_id)["notes"] == "Short."
    assert_well(world, record_id)


def test_a_rule_of_the_crms_that_forbids_closing_is_shown_and_the_deal_comes_to_rest(world: World) -> None:
    record_id = shared(world)
    world.backstage.forbid_closing("Fill in the win reason first.")

    world.people.partner_closes(world.referral_of(record_id)["id"], "Won")
    world.settle()
    world.advance(60)

    assert world.record(record_id)["state"] == "open"
    assert world.record(record_id)["sync_status"].startswith("✗")
    (failure,) = world.services.failures.list()
    assert "Fill in the win reason first." in failure.reason
    assert len([write for write in world.backstage.record_writes() if "state" in write.values]) == 1

    world.backstage.allow_closing()
    replay(world, failure, world.referral_of(record_id)["id"])

    assert world.record(record_id)["state"] == "won"
    assert_well(world, record_id)


def test_missing_rights_in_the_crm_are_named_and_a_replay_brings_the_deal(world: World) -> None:
    world.backstage.take_away_rights()
    deal = world.people.microsoft_creates_deal(INTENT)
    world.settle()
    assert world.desk.opportunities() == []
    (failure,) = world.services.failures.list()
    assert world.backstage.rights in failure.next_step

    world.backstage.give_back_rights()
    replay(world, failure, deal["id"])

    assert_well_inbound(world, deal)


# ---------------------------------------------------------------- later


def test_a_throttled_partner_center_defers_the_deal_for_as_long_as_it_asked(world: World) -> None:
    record_id = shared(world)
    world.pc.faults.add("throttle", times=99, retry_after_s=240)
    world.desk.edit(record_id, notes="Later.")
    world.settle()
    assert len(world.pc.log.entries) == 1
    world.pc.faults.clear()

    world.advance(230)
    world.settle()
    assert len(world.pc.log.entries) == 1

    world.advance(15)
    world.settle()

    assert world.referral_of(record_id)["details"]["notes"] == "Later."
    assert world.failed_invocations == 0
    assert_well(world, record_id)


def test_waiting_never_uses_up_attempts(world: World) -> None:
    record_id = shared(world)
    world.pc.faults.add("throttle", times=9999, retry_after_s=60)
    world.desk.edit(record_id, notes="Much later.")

    for _ in range(20):
        world.settle()
        world.advance(61)

    assert world.failed_invocations == 0
    assert world.services.failures.list() == ()
    world.pc.faults.clear()
    world.settle()
    assert_well(world, record_id)


def test_a_throttled_partner_center_does_not_stop_what_is_for_the_crm(world: World) -> None:
    deal = world.people.microsoft_creates_deal(INTENT)
    world.settle()
    world.advance(60)
    world.pc.faults.add("throttle", method="PATCH", times=99, retry_after_s=240)
    incomplete_id = world.opportunity(solutions=None)

    world.settle()

    assert_shown(world, incomplete_id, "solutions")
    assert world.record_of(deal["id"])["sync_status"].startswith("✓")


def test_a_throttled_crm_defers_what_is_for_it(world: World) -> None:
    record_id = shared(world)
    world.people.partner_edits(world.referral_of(record_id)["id"], {"/details/notes": "Theirs."})
    world.backstage.throttle_writes(retry_after_s=120)
    world.settle(poll=False)
    world.crm.faults.clear()
    assert world.record(record_id)["notes"] == "Migration assessment done."

    world.advance(125)
    world.settle()

    assert world.record(record_id)["notes"] == "Theirs."
    assert_well(world, record_id)


def test_a_throttled_poll_waits_and_misses_nothing(world: World, caplog: pytest.LogCaptureFixture) -> None:
    record_id = shared(world)
    world.crm.faults.add("throttle", times=99, retry_after_s=120)
    world.desk.edit(record_id, notes="Ours.")

    with caplog.at_level(logging.WARNING):
        world.fire("crm_poller")
    world.crm.faults.clear()

    assert {entry.getMessage().split()[0] for entry in caplog.records} == {"poll.waits"}
    world.advance(125)
    world.settle()
    assert world.referral_of(record_id)["details"]["notes"] == "Ours."


def test_a_sign_in_that_was_revoked_keeps_the_work_until_somebody_consents_again(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    record_id = shared(world)
    world.entra.revoke("partner_center")
    world.restart()
    world.desk.edit(record_id, notes="Kept.")
    with caplog.at_level(logging.WARNING):
        world.settle()
    assert "AADSTS50173" in deferrals(caplog)
    assert world.failed_invocations == 0
    assert world.services.failures.list() == ()

    world.settings["PARTNER_CENTER_REFRESH_TOKEN"] = world.entra.consent("partner_center")
    world.restart()
    world.advance(600)
    world.settle()

    assert world.referral_of(record_id)["details"]["notes"] == "Kept."
    assert_well(world, record_id)


def test_a_missing_setting_keeps_the_work_and_is_named(world: World, caplog: pytest.LogCaptureFixture) -> None:
    secret = world.settings.pop("PARTNER_CENTER_CLIENT_SECRET")
    world.restart()
    deal = world.people.microsoft_creates_deal(INTENT)
    with caplog.at_level(logging.WARNING):
        world.settle(poll=False)
    assert "PARTNER_CENTER_CLIENT_SECRET" in deferrals(caplog)
    assert world.failed_invocations == 0

    world.settings["PARTNER_CENTER_CLIENT_SECRET"] = secret
    world.restart()
    world.advance(600)
    world.settle()

    assert_well_inbound(world, deal)


def test_a_broken_field_map_keeps_the_work_and_every_problem_is_named(
    crm: str, make_world: Callable[..., World], edited_map: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    broken = edited_map(('conflict = "latest"', 'conflict = "newest"'), ("latch = true", "latch = 3"))
    world = make_world(MAPPING_FILE=broken)
    deal = world.people.microsoft_creates_deal(INTENT)
    with caplog.at_level(logging.WARNING):
        world.settle(poll=False)
    why = deferrals(caplog)
    assert "notes" in why
    assert "newest" in why
    assert "latch" in why
    assert world.failed_invocations == 0

    world.settings["MAPPING_FILE"] = str(shipped_map(crm))
    world.restart()
    world.advance(600)
    world.settle()

    assert_well_inbound(world, deal)


def deferrals(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(str(record.__dict__.get("why")) for record in caplog.records if record.msg == "sync.deferred")


# ---------------------------------------------------------------- an answer that never came


@pytest.mark.parametrize("create", ["our referral", "Microsoft's copy"])
def test_a_create_in_partner_center_whose_answer_is_lost_is_not_repeated(world: World, create: str) -> None:
    if create == "our referral":
        world.pc.faults.add("drop_after", method="POST")
        record_id = world.opportunity(**HELP)
    else:
        record_id = shared(world)
        world.pc.faults.add("drop_after", method="POST")
        world.desk.edit(record_id, **HELP)

    world.settle()
    world.advance(FORGET_LATE_CREATES_S)
    world.settle()

    assert len(world.referrals()) == 1
    assert len(world.pc.referrals) == 2
    assert len(world.desk.opportunities()) == 1
    assert_well(world, record_id)


@pytest.mark.parametrize("create", ["our referral", "Microsoft's copy"])
def test_a_create_that_never_reached_partner_center_is_sent_again(world: World, create: str) -> None:
    if create == "our referral":
        world.pc.faults.add("drop_before", method="POST")
        record_id = world.opportunity(**HELP)
    else:
        record_id = shared(world)
        world.pc.faults.add("drop_before", method="POST")
        world.desk.edit(record_id, **HELP)

    world.settle()
    world.advance(FORGET_LATE_CREATES_S)
    world.settle()

    assert len(world.pc.referrals) == 2
    assert_well(world, record_id)


@pytest.mark.parametrize("kind", ["account", "contact", "opportunity"])
@pytest.mark.parametrize("mishap", ["drop_after", "drop_before"])
def test_a_create_in_the_crm_whose_answer_is_lost_makes_one_row(world: World, kind: str, mishap: Mishap) -> None:
    world.backstage.interrupt_create(kind, mishap)
    deal = world.people.microsoft_creates_deal(INTENT)

    world.settle()
    world.advance(120)
    world.settle()

    assert_well_inbound(world, deal)


def test_an_update_whose_answer_is_lost_is_not_taken_for_somebody_elses(world: World) -> None:
    record_id = shared(world)
    world.pc.faults.add("drop_after", method="PATCH")

    edit(world, record_id, notes="Ours.")

    assert world.referral_of(record_id)["details"]["notes"] == "Ours."
    assert "wins" not in world.notes(record_id)
    assert_well(world, record_id)


# ---------------------------------------------------------------- messages nobody can work off


def test_a_message_that_is_no_sync_request_ends_as_a_failure(world: World) -> None:
    world.run_worker(b"hello")
    assert world.failed_invocations == 1

    world.poison(b"hello")

    (failure,) = world.services.failures.list()
    assert "no sync request" in failure.reason
    assert "hello" in failure.reason
    assert failure.next_step


def test_a_deal_that_was_given_up_is_listed_and_well_again_after_the_next_change(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_id = shared(world)
    own = world.referral_of(record_id)

    def defect(_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as broken:
        broken.setattr("shared.sync.decide", defect)
        world.desk.edit(record_id, notes="Ours.")
        world.settle()
    assert world.failed_invocations == 1
    request = SyncRequest(cause="poll", record_table=world.desk.opportunity, record_id=record_id)
    world.poison(request.encode().encode())
    (failure,) = world.services.failures.list()
    assert failure.deal == world.link_of(record_id).deal
    assert request.correlation_id in failure.next_step

    world.people.partner_edits(own["id"], {"/details/dealValue": 70000})
    world.settle()

    assert own["details"]["notes"] == "Ours."
    assert world.record(record_id)["deal_value"] == 70000
    assert world.services.failures.list() == ()


# ---------------------------------------------------------------- the check mark in the name


@pytest.fixture
def marking(make_world: Callable[..., World], edited_map: Callable[..., str]) -> World:
    return make_world(MAPPING_FILE=edited_map(("check_mark_in_name = false", "check_mark_in_name = true")))


def test_an_inbound_deals_name_gets_a_check_mark_that_stays_in_the_crm(marking: World) -> None:
    world = marking
    deal = world.people.microsoft_creates_deal(INTENT)
    world.settle()
    world.advance(60)
    assert world.record_of(deal["id"])["name"] == "✓ Contoso - data platform modernization"

    world.people.partner_edits(deal["id"], {"/name": "Another name"})
    world.settle()

    assert world.record_of(deal["id"])["name"] == "✓ Another name"
    assert deal["name"] == "Another name"
    assert world.is_at_rest()


def test_a_sellers_deal_gets_its_check_mark_once_it_is_in_partner_center(marking: World) -> None:
    world = marking
    record_id = world.opportunity()

    world.settle()

    assert world.record(record_id)["name"] == "✓ Contoso - data platform"
    assert world.referral_of(record_id)["name"] == "Contoso - data platform"
    assert world.is_at_rest()


def test_a_mark_of_the_earlier_connector_never_reaches_partner_center(world: World) -> None:
    record_id = world.opportunity(name="✗ Contoso - data platform")

    world.settle()

    assert world.referral_of(record_id)["name"] == "Contoso - data platform"

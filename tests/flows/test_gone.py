"""One side of a deal is not there any more: it is looked for twice, nothing is made anew, and it may come back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from shared.messages import SyncRequest
from tests.flows.world import World

NOTES = "/details/notes"
HELP = {"help": "CustomerTechnicalArchitecture"}
SIGNED_IN = "sync@fabrikam.example"
GONE = "✗ Not in Partner Center any more"


@pytest.fixture
def world(make_memory_world: Callable[..., World]) -> World:
    return make_memory_world()


def shared(world: World, **values: Any) -> str:
    """A deal in agreement, and another one beside it."""
    record_id = world.opportunity(**values)
    world.people.microsoft_creates_deal()
    world.settle()
    world.advance(60)
    world.settle()
    world.forget_calls()
    return record_id


def vanish(world: World, record_id: str) -> dict[str, Any]:
    """Partner Center has the referral no more. Returns it as it was."""
    return world.people.referral_disappears(world.referral_of(record_id)["id"])


def tell(world: World, referral_id: str, event: str = "referral-updated") -> None:
    """An event about a referral, late or not."""
    version = "2026-11-02T09:30:00Z"
    world.services.queue.send(SyncRequest(cause="webhook", referral_id=referral_id, version=version, event=event))
    world.settle(poll=False)


def edit(world: World, record_id: str, **values: Any) -> None:
    world.desk.edit(record_id, **values)
    world.settle()


def gone(world: World, **values: Any) -> tuple[str, dict[str, Any]]:
    """A deal whose referral is known to be gone: its record and what the referral was."""
    record_id = shared(world, **values)
    own = vanish(world, record_id)
    tell(world, own["id"])
    world.advance(301)
    world.settle()
    assert world.link_of(record_id).gone == "partner_center"
    world.forget_calls()
    return record_id, own


def assert_nothing_is_new(world: World) -> None:
    assert len(world.desk.opportunities()) == 2
    assert len(world.referrals()) == 1
    assert world.writes() == []


# ---------------------------------------------------------------- the referral


def test_a_referral_that_is_not_shown_once_is_looked_for_again_before_anything_is_said(world: World) -> None:
    record_id = shared(world)
    own = vanish(world, record_id)

    tell(world, own["id"])
    world.advance(200)
    edit(world, record_id, notes="Ours.")
    assert world.writes() == []
    assert world.services.failures.list() == ()
    assert world.link_of(record_id).gone is None

    world.people.referral_reappears(own)
    world.advance(200)
    world.settle()

    assert own["details"]["notes"] == "Ours."
    assert world.link_of(record_id).absent is None
    assert world.failed_invocations == 0
    assert world.is_at_rest()


@pytest.mark.parametrize("heard_of", ["by an event", "when it is written"])
def test_a_referral_that_is_gone_for_good_is_said_in_the_record_once_and_is_no_failure(
    world: World, heard_of: str
) -> None:
    record_id = shared(world)
    own = vanish(world, record_id)
    if heard_of == "by an event":
        tell(world, own["id"])
    else:
        edit(world, record_id, notes="Ours.")
    assert world.writes() == []

    world.advance(301)
    world.settle()

    record = world.record(record_id)
    assert world.writes() == ["crm write"]
    assert record["sync_status"] == GONE
    assert f"referral {own['id']} is not in Partner Center any more" in record["audit"].splitlines()[0]
    assert (record["name"], record["state"]) == ("Contoso - data platform", "open")
    assert (record["sync_flag"], record["referral_id"]) == (True, own["id"])
    assert world.services.failures.list() == ()
    assert world.failed_invocations == 0


def test_a_run_that_dies_before_the_record_says_so_is_made_up_for(make_memory_world: Callable[..., World]) -> None:
    def play(die_at: int) -> tuple[World, str, list[str]]:
        world = make_memory_world()
        record_id = shared(world)
        vanish(world, record_id)
        edit(world, record_id, notes="Ours.")
        world.advance(301)
        world.fuse.set(die_at)
        world.settle()
        moments = list(world.fuse.moments)
        world.advance(301)
        world.settle()
        return world, record_id, moments

    writes = [at for at, moment in enumerate(play(0)[2], 1) if moment.startswith(("PATCH", "POST"))]
    world, record_id, _ = play(writes[-1])

    assert world.record(record_id)["sync_status"] == GONE
    assert len(world.referrals()) == 1


def test_nothing_is_made_anew_of_what_is_heard_after_that(world: World) -> None:
    record_id, own = gone(world, **HELP)
    edit(world, record_id, notes="Ours.", deal_value=90000)
    edit(world, record_id, sync_flag=False)
    edit(world, record_id, sync_flag=True)
    assert world.calls().keys() <= {"crm read"}  # the polls

    for event in ("referral-updated", "referral-created", "referral-updated"):
        tell(world, own["id"], event)
    tell(world, world.microsofts(own["engagementId"])["id"], "related-referral-updated")
    world.advance(3600)
    world.settle()

    assert_nothing_is_new(world)
    assert world.services.failures.list() == ()
    assert world.is_at_rest()


@pytest.mark.parametrize("heard_of", ["by an event", "by a replay"])
def test_a_referral_that_is_shown_again_goes_on_from_what_both_sides_agreed(world: World, heard_of: str) -> None:
    record_id, own = gone(world)
    edit(world, record_id, deal_value=90000)
    own["details"]["notes"] = "Theirs."
    world.people.referral_reappears(own)

    if heard_of == "by an event":
        tell(world, own["id"])
    else:
        world.services.queue.send(
            SyncRequest(cause="operator", record_table=world.desk.opportunity, record_id=record_id)
        )
        world.settle()

    record = world.record(record_id)
    assert (own["details"]["dealValue"], record["notes"]) == (90000, "Theirs.")
    assert record["sync_status"].startswith("✓")
    assert world.link_of(record_id).state == "active"
    assert world.is_at_rest()


def test_who_sees_no_referral_at_all_lacks_a_right_and_the_deal_goes_on_when_it_is_back(world: World) -> None:
    record_id = shared(world)
    own = world.referral_of(record_id)
    account = world.pc.accounts[SIGNED_IN]
    world.pc.accounts[SIGNED_IN] = replace(account, role="Referrals user")
    edit(world, record_id, notes="Ours.")
    assert world.services.failures.list() == ()

    world.advance(301)
    world.settle()

    (failure,) = world.services.failures.list()
    assert "Referrals admin" in failure.next_step
    assert world.link_of(record_id).gone is None
    assert world.record(record_id)["sync_status"].startswith("✗ Partner Center")

    world.pc.accounts[SIGNED_IN] = account
    world.services.queue.send(SyncRequest(cause="operator", referral_id=own["id"]))
    world.settle()

    assert own["details"]["notes"] == "Ours."
    assert world.services.failures.list() == ()
    assert world.is_at_rest()


def test_where_it_was_the_only_referral_a_person_decides(world: World) -> None:
    record_id = world.opportunity()
    world.settle()
    world.advance(60)
    world.settle()
    own = vanish(world, record_id)
    tell(world, own["id"])
    world.advance(301)
    world.settle()

    (failure,) = world.services.failures.list()
    assert "nor any other" in failure.reason
    assert "only referral" in failure.next_step
    assert "dismiss" in failure.next_step
    assert world.referrals() == []


def test_of_an_unflagged_record_nothing_is_said_and_flagging_it_again_makes_nothing(world: World) -> None:
    record_id = shared(world)
    edit(world, record_id, sync_flag=False)
    world.advance(60)
    world.forget_calls()
    own = vanish(world, record_id)
    tell(world, own["id"])
    world.advance(301)
    world.settle()
    assert world.link_of(record_id).gone == "partner_center"

    edit(world, record_id, sync_flag=True)

    assert_nothing_is_new(world)


def test_microsofts_copy_may_go_and_the_deal_goes_on_without_it(world: World) -> None:
    record_id = shared(world, **HELP)
    own = world.referral_of(record_id)
    theirs = world.microsofts(own["engagementId"])
    world.people.referral_disappears(theirs["id"])

    tell(world, theirs["id"], "related-referral-updated")
    edit(world, record_id, notes="Ours.")
    world.people.partner_edits(own["id"], {"/details/dealValue": 70000})
    world.settle()

    assert own["details"]["notes"] == "Ours."
    assert world.record(record_id)["deal_value"] == 70000
    assert world.record(record_id)["sync_status"].startswith("✓")
    assert "Microsoft's copy" not in world.notes(record_id)
    world.advance(301)
    world.settle()
    assert "Microsoft's copy is not in Partner Center any more" in world.notes(record_id)
    assert len(world.pc.of_engagement(own["engagementId"])) == 1
    assert world.is_at_rest()


def test_microsofts_copy_that_is_not_shown_for_a_moment_is_looked_for_again(world: World) -> None:
    record_id = shared(world, **HELP)
    theirs = world.microsofts(world.referral_of(record_id)["engagementId"])
    world.people.microsoft_accepts(world.referral_of(record_id)["engagementId"])
    world.simulators.webhooks.dispatcher.waiting.clear()
    world.pc.faults.add("status", method="GET", path=theirs["id"], status=404)
    tell(world, theirs["id"], "related-referral-updated")
    assert world.record(record_id)["microsoft_status"] != "Active / Accepted"

    world.advance(301)
    world.settle()

    assert world.record(record_id)["microsoft_status"] == "Active / Accepted"


# ---------------------------------------------------------------- the record


def test_a_deleted_record_that_is_restored_goes_on_with_what_both_sides_did_meanwhile(world: World) -> None:
    record_id = shared(world)
    own = world.referral_of(record_id)
    world.desk.delete(record_id)
    world.advance(60)
    world.settle()
    assert world.link_of(record_id).gone == "crm"
    world.people.partner_edits(own["id"], {NOTES: "Theirs."})
    world.settle()
    assert len(world.desk.opportunities()) == 1

    world.backstage.restore(record_id)
    world.desk.edit(record_id, deal_value=90000)
    world.advance(60)
    world.settle()

    assert (own["details"]["dealValue"], world.record(record_id)["notes"]) == (90000, "Theirs.")
    assert world.link_of(record_id).state == "active"
    assert world.is_at_rest()


def test_a_restored_record_whose_referral_went_meanwhile_makes_no_new_one(world: World) -> None:
    record_id = shared(world)
    world.desk.delete(record_id)
    world.advance(60)
    world.settle()
    vanish(world, record_id)

    world.backstage.restore(record_id)
    world.desk.edit(record_id, notes="Back again.")
    world.advance(60)
    world.settle()
    world.advance(301)
    world.settle()

    assert world.link_of(record_id).gone == "partner_center"
    assert world.record(record_id)["sync_status"] == GONE
    assert len(world.referrals()) == 1

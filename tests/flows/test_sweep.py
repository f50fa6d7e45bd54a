"""What the webhook missed is found by the sweep, and what the poll's cursor lost by starting over."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.flows.crms import only
from tests.flows.fuse import ProcessDied
from tests.flows.world import World


def lose_events(world: World) -> None:
    """Partner Center tried ten times while nobody answered, and forgot."""
    world.simulators.webhooks.dispatcher.waiting.clear()


def sweep(world: World) -> None:
    world.fire("reconciler")
    world.work()


@pytest.fixture
def shared(make_memory_world: Callable[..., World]) -> tuple[World, str, str]:
    """A co-sell deal in agreement that the sweep has seen: the world, the record's id, the referral's id."""
    world = make_memory_world()
    record_id = world.opportunity(help="CustomerTechnicalArchitecture")
    world.settle()
    sweep(world)
    world.advance(3600)
    world.forget_calls()
    return world, record_id, world.referral_of(record_id)["id"]


@pytest.mark.parametrize("compares_times", [True, False], ids=["ge is supported", "ge is refused"])
def test_a_change_whose_event_was_lost_arrives_with_the_next_sweep(
    shared: tuple[World, str, str], compares_times: bool
) -> None:
    world, record_id, referral_id = shared
    world.pc.rules.supports_ge = compares_times
    world.people.partner_edits(referral_id, {"/details/notes": "Nobody heard of this."})
    lose_events(world)

    sweep(world)

    assert world.record(record_id)["notes"] == "Nobody heard of this."


def test_a_deal_whose_events_were_lost_is_created_by_the_sweep(shared: tuple[World, str, str]) -> None:
    world, _, _ = shared
    deal = world.people.microsoft_creates_deal()
    lose_events(world)

    sweep(world)

    assert world.record_of(deal["id"])["state"] == "on_hold"


def test_a_second_sweep_sends_nothing(shared: tuple[World, str, str]) -> None:
    world, _, referral_id = shared
    world.people.partner_edits(referral_id, {"/details/notes": "Nobody heard of this."})
    lose_events(world)
    sweep(world)

    world.fire("reconciler")

    assert world.queue.length() == 0


def test_an_update_that_becomes_visible_late_is_found_within_the_overlap(shared: tuple[World, str, str]) -> None:
    world, record_id, referral_id = shared
    other = world.people.creates_lead()
    world.people.partner_edits(referral_id, {"/details/notes": "Committed late."})
    hidden = world.pc.referrals.pop(referral_id)
    sweep(world)
    world.pc.referrals[referral_id] = hidden
    lose_events(world)
    assert world.lead_of(other["id"])

    sweep(world)

    assert world.record(record_id)["notes"] == "Committed late."


def test_the_first_sweep_brings_in_open_deals_and_looks_at_no_closed_one(
    make_memory_world: Callable[..., World],
) -> None:
    world = make_memory_world()
    for _ in range(3):
        world.people.partner_declines(world.people.microsoft_creates_deal()["id"])
    open_deal = world.people.microsoft_creates_deal()
    lose_events(world)

    world.fire("reconciler")
    assert world.queue.length() == 1
    world.work()

    assert [row["referral_id"] for row in world.desk.opportunities()] == [open_deal["id"]]


def test_a_sweep_that_dies_between_messages_is_repeated_and_loses_none(
    make_memory_world: Callable[..., World],
) -> None:
    world = make_memory_world()
    deals = [world.people.microsoft_creates_deal() for _ in range(5)]
    lose_events(world)
    world.fuse.set(7)

    with pytest.raises(ProcessDied):
        world.fire("reconciler")
    world.restart()
    sweep(world)

    assert {row["referral_id"] for row in world.desk.opportunities()} == {deal["id"] for deal in deals}


def test_a_poll_that_dies_between_messages_is_repeated_and_loses_none(
    make_memory_world: Callable[..., World],
) -> None:
    world = make_memory_world()
    records = {world.opportunity() for _ in range(5)}
    world.fuse.set(6)

    with pytest.raises(ProcessDied):
        world.fire("crm_poller")
    world.restart()
    world.settle()

    assert {row["externalReferenceId"] for row in world.referrals()} == records


@only("dynamics365", why="its cursors are tokens that expire")
def test_an_expired_cursor_starts_over_without_a_storm_of_writes(shared: tuple[World, str, str]) -> None:
    world, record_id, referral_id = shared
    world.act_in_crm("expire_delta_tokens", table="opportunity")
    world.desk.edit(record_id, notes="Edited while the cursor expired.")

    world.settle()

    assert world.pc.referrals[referral_id]["details"]["notes"] == "Edited while the cursor expired."
    assert world.writes() == ["partner_center PATCH"]


@only("dynamics365", why="elsewhere there is no change tracking to be off")
def test_without_change_tracking_the_poll_goes_by_modifiedon(make_memory_world: Callable[..., World]) -> None:
    world = make_memory_world()
    for table in ("opportunity", "lead"):
        world.crm.organization.tables[table].change_tracking = False
    record_id = world.opportunity()
    world.settle()

    world.advance(60)
    world.desk.edit(record_id, notes="Found by its time.")
    world.settle()

    assert world.referral_of(record_id)["details"]["notes"] == "Found by its time."

"""Something puts a value back each time we write it: we stop, say so once, and leave everything else going.

What people do is done to and fro on one side, and never stops anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shared.breaker import MOST_WRITES, SAME_VALUE
from shared.messages import SyncRequest
from tests.flows.world import World

NOTES = "/details/notes"
LONG = 40
"""Rounds of an automation, by far more than it may take until we stop."""

Automation = Callable[[], None]


@pytest.fixture
def world(make_memory_world: Callable[..., World]) -> World:
    return make_memory_world()


def shared(world: World) -> str:
    record_id = world.opportunity(help="CustomerTechnicalArchitecture")
    world.settle()
    world.advance(900)
    world.settle()
    world.forget_calls()
    return record_id


def in_the_crm(world: World, record_id: str, field: str, value: Any) -> Automation:
    """A workflow in the CRM that soon after each save sets a field to the same value, or to what `value` makes."""

    def run() -> None:
        wanted = value() if callable(value) else value
        if world.record(record_id)[field] != wanted:
            world.desk.edit(record_id, **{field: wanted})

    return run


def in_partner_center(world: World, record_id: str, value: str) -> Automation:
    """Another tool at Partner Center that does the same to the notes."""
    own = world.referral_of(record_id)

    def run() -> None:
        if own["details"]["notes"] != value:
            world.people.partner_edits(own["id"], {NOTES: value})

    return run


def let_run(world: World, *automations: Automation, rounds: int = LONG, every_s: float = 5) -> None:
    for _ in range(rounds):
        for automation in automations:
            automation()
        world.advance(every_s)
        world.settle()


def let_undo_each_other(world: World, record_id: str) -> None:
    here = in_the_crm(world, record_id, "notes", "The CRM's.")
    let_run(world, here, in_partner_center(world, record_id, "The portal's."), rounds=12)


def replay(world: World, record_id: str) -> None:
    world.services.queue.send(SyncRequest(cause="operator", record_table=world.desk.opportunity, record_id=record_id))
    world.settle()


def test_a_workflow_in_the_crm_that_undoes_our_writes_is_left_alone_soon(world: World) -> None:
    record_id = shared(world)
    world.people.microsoft_accepts(world.referral_of(record_id)["engagementId"])
    world.settle()
    world.forget_calls()

    let_run(world, in_the_crm(world, record_id, "microsoft_crm_id", "MINE"))

    # It was written once before the workflow began, and the last write shows what is wrong.
    assert world.writes() == ["crm write"] * (SAME_VALUE - 1 + 1)
    (failure,) = world.services.failures.list()
    assert failure.field == world.label("microsoft_crm_id")
    assert "“7-1ABCDEFGH”" in failure.reason
    assert "“MINE”" in failure.reason
    assert "workflow" in failure.next_step
    assert "replay" in failure.next_step
    record = world.record(record_id)
    assert record["sync_status"].startswith(f"✗ {world.label('microsoft_crm_id')}")
    assert world.label("microsoft_crm_id") in record["audit"].splitlines()[0]


def test_two_automations_that_undo_each_other_through_us_are_left_alone_soon(world: World) -> None:
    record_id = shared(world)

    let_undo_each_other(world, record_id)

    assert len([patch for patch in world.patches() if NOTES in patch]) <= SAME_VALUE
    assert len(world.writes()) <= 2 * SAME_VALUE + 1
    (failure,) = world.services.failures.list()
    assert failure.field == world.label("notes")
    assert "Partner Center" in failure.reason


def stopped_notes(world: World) -> str:
    record_id = shared(world)
    let_undo_each_other(world, record_id)
    assert world.services.failures.list()
    world.advance(3600)
    world.settle()
    world.forget_calls()
    return record_id


def test_the_other_fields_of_the_deal_go_on_and_the_stopped_one_does_not(world: World) -> None:
    record_id = stopped_notes(world)
    own = world.referral_of(record_id)

    world.desk.edit(record_id, deal_value=81000, notes="By hand.")
    world.settle()
    world.people.partner_edits(own["id"], {"/name": "Another name"})
    world.settle()

    assert own["details"]["dealValue"] == 81000
    assert world.record(record_id)["name"] == "Another name"
    assert own["details"]["notes"] == "The portal's."
    assert world.record(record_id)["notes"] == "By hand."
    assert len(world.services.failures.list()) == 1


def test_an_operators_replay_lets_the_field_go_on_and_nothing_else_does(world: World) -> None:
    record_id = stopped_notes(world)
    world.desk.edit(record_id, notes="Mended.")
    world.advance(3600)
    world.settle()
    assert world.referral_of(record_id)["details"]["notes"] != "Mended."

    replay(world, record_id)

    assert world.referral_of(record_id)["details"]["notes"] == "Mended."
    assert world.record(record_id)["sync_status"].startswith("✓")
    assert world.services.failures.list() == ()
    assert world.is_at_rest()


def test_a_replay_that_finds_the_deal_at_work_comes_back_and_releases_it_then(world: World) -> None:
    record_id = stopped_notes(world)
    world.desk.edit(record_id, notes="Mended.")
    assert world.services.deals.claim(world.link_of(record_id), sides=frozenset())

    replay(world, record_id)
    assert world.link_of(record_id).stopped
    world.advance(120)
    world.settle()

    assert world.referral_of(record_id)["details"]["notes"] == "Mended."
    assert world.services.failures.list() == ()


def test_a_replay_while_nothing_is_mended_costs_a_few_writes_and_stops_again(world: World) -> None:
    record_id = stopped_notes(world)

    replay(world, record_id)
    let_undo_each_other(world, record_id)

    assert len(world.writes()) <= 2 * SAME_VALUE + 2
    assert len(world.services.failures.list()) == 1


def test_people_who_change_their_mind_many_times_stop_nothing(world: World) -> None:
    record_id = shared(world)
    own = world.referral_of(record_id)

    for _ in range(5):
        for amount in (60000, 70000):
            world.desk.edit(record_id, deal_value=amount)
            world.advance(10)
            world.settle()
    for _ in range(5):
        for notes in ("Yes.", "No."):
            world.people.partner_edits(own["id"], {NOTES: notes})
            world.advance(10)
            world.settle()

    assert (own["details"]["dealValue"], world.record(record_id)["notes"]) == (70000, "No.")
    assert world.services.failures.list() == ()
    assert world.is_at_rest()


def assert_stopped_as_a_whole(world: World) -> None:
    assert SAME_VALUE < len(world.writes()) <= MOST_WRITES + 2
    (failure,) = world.services.failures.list()
    assert f"more than {MOST_WRITES} times" in failure.reason
    assert "replay" in failure.next_step


def test_values_that_are_new_each_time_stop_the_whole_deal_in_the_end(world: World) -> None:
    record_id = shared(world)
    numbers = iter(range(1_000_000))

    let_run(
        world,
        in_the_crm(world, record_id, "notes", lambda: f"note {next(numbers)}"),
        in_partner_center(world, record_id, "The portal's."),
    )

    assert_stopped_as_a_whole(world)


def test_a_workflow_that_clears_our_own_status_is_left_alone_in_the_end(world: World) -> None:
    record_id = shared(world)

    let_run(world, in_the_crm(world, record_id, "sync_status", None))

    assert_stopped_as_a_whole(world)

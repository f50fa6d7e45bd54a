"""What a system that wants to be left alone told one process, all others keep to: two Services, one Storage.

Work that a pause keeps from being done comes back when the pause is over, and no attempt of its is used up.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from health.report import report
from shared.errors import Unavailable
from shared.services import Services
from shared.store.pauses import Pauses
from tests.flows.crms import only
from tests.flows.world import World

NOTES = "/details/notes"


@pytest.fixture
def world(make_memory_world: Callable[..., World]) -> World:
    return make_memory_world()


@pytest.fixture
def deals(world: World) -> list[str]:
    """Two deals in agreement, by their records' ids."""
    records = [world.opportunity(name="One"), world.opportunity(name="Two")]
    world.settle()
    world.advance(60)
    world.settle()
    world.forget_calls()
    return records


def another_process(world: World) -> Services:
    world.services = world.new_services()
    return world.services


def throttled_in_partner_center(world: World, record_id: str, retry_after_s: int = 240) -> None:
    """A worker writes a deal and is told to pause; after that Partner Center would take everything."""
    world.pc.faults.add("throttle", times=99, retry_after_s=retry_after_s)
    world.desk.edit(record_id, notes="Ours.")
    world.settle()
    world.pc.faults.clear()
    world.forget_calls()


def test_a_second_process_does_not_call_a_paused_partner_center(world: World, deals: list[str]) -> None:
    throttled_in_partner_center(world, deals[0])
    another_process(world)

    world.desk.edit(deals[1], notes="Ours too.")
    world.people.partner_edits(world.referral_of(deals[1])["id"], {"/details/dealValue": 71000})
    world.settle()
    assert world.pc.log.entries == []

    world.advance(241)
    world.settle()

    assert [world.referral_of(deal)["details"]["notes"] for deal in deals] == ["Ours.", "Ours too."]
    assert world.record(deals[1])["deal_value"] == 71000
    assert world.failed_invocations == 0
    assert world.services.failures.list() == ()


def test_a_second_process_does_not_call_a_paused_crm(world: World, deals: list[str]) -> None:
    world.backstage.throttle_writes(retry_after_s=240)
    for process in range(2):
        world.people.partner_edits(world.referral_of(deals[process])["id"], {NOTES: "Theirs."})
        world.settle(poll=False)
        world.crm.faults.clear()
        assert len(world.crm.log.entries) == 1
        another_process(world)

    world.fire("crm_poller")
    assert len(world.crm.log.entries) == 1

    world.advance(241)
    world.settle()

    assert [world.record(deal)["notes"] for deal in deals] == ["Theirs.", "Theirs."]
    assert world.failed_invocations == 0


def test_a_process_in_the_middle_of_its_work_hears_of_the_pause_in_ten_seconds(world: World, deals: list[str]) -> None:
    first, second = world.services, another_process(world)
    second.partner_center.get(world.referral_of(deals[1])["id"])
    world.services = first
    throttled_in_partner_center(world, deals[0])
    world.services = second
    world.advance(11)

    world.people.partner_edits(world.referral_of(deals[1])["id"], {NOTES: "Theirs."})
    world.settle(poll=False)

    assert world.pc.log.entries == []


@only("salesforce", why="elsewhere there is no daily limit")
def test_a_second_process_keeps_to_the_daily_limit_too(world: World, deals: list[str]) -> None:
    world.crm.people.set_api_usage(95_000, 100_000)
    world.fire("crm_poller")
    world.forget_calls()
    another_process(world)

    world.people.partner_edits(world.referral_of(deals[0])["id"], {NOTES: "Theirs."})
    world.settle()
    assert world.crm.log.entries == []

    world.crm.people.set_api_usage(10, 100_000)
    world.advance(901)
    world.settle()

    assert world.record(deals[0])["notes"] == "Theirs."


def test_the_work_of_a_pause_does_not_come_back_all_at_once(world: World, deals: list[str]) -> None:
    world.luck = 1.0
    throttled_in_partner_center(world, deals[0])

    world.advance(255)
    world.settle()
    assert world.pc.log.entries == []

    world.advance(10)
    world.settle()
    assert world.referral_of(deals[0])["details"]["notes"] == "Ours."


def test_health_tells_of_a_pause_in_words(world: World, deals: list[str]) -> None:
    assert report(world.services)["pauses"]["says"] == "none"
    throttled_in_partner_center(world, deals[0])

    said = report(another_process(world))["pauses"]["says"]
    assert said.startswith("Partner Center is not called until 2026-11-02 09:05 UTC: it asked for a pause")

    world.advance(241)
    assert report(world.services)["pauses"]["says"] == "none"


class Broken:
    """A table of a Storage that does not answer."""

    def get(self, *_: str) -> None:
        raise Unavailable("Table Storage gave no answer")


def test_pauses_that_cannot_be_asked_for_stop_no_call(
    world: World, deals: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    services: Any = another_process(world)
    services.pauses = Pauses(Broken(), world.clock.now)  # type: ignore[arg-type]
    world.desk.edit(deals[1], notes="Ours too.")
    with caplog.at_level(logging.WARNING):
        throttled_in_partner_center(world, deals[0])
    world.advance(241)
    world.settle()

    assert [world.referral_of(deal)["details"]["notes"] for deal in deals] == ["Ours.", "Ours too."]
    assert {"pauses.not_read", "pauses.not_stored"} <= {record.msg for record in caplog.records}


def costs_of_looking(world: World) -> Mapping[str, int]:
    return {name: world.looks.moments.count(name) for name in set(world.looks.moments)}


def test_looking_for_pauses_costs_one_read_per_system_and_ten_seconds_and_nothing_without_work(
    world: World, deals: list[str]
) -> None:
    world.advance(60)
    world.looks.set(0)

    for number in range(4):
        world.people.partner_edits(world.referral_of(deals[0])["id"], {NOTES: f"edit {number}"})
        world.settle(poll=False)
        world.advance(2)
    assert costs_of_looking(world) == {"pauses.get": 2}

    world.advance(3600)
    assert world.work() == 0
    assert costs_of_looking(world) == {"pauses.get": 2}

"""What can go wrong between Partner Center's sender and the two sides: everything arrives once, and nothing is undone.

What one call alone can be like is in test_webhook_receiver.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import requests
from requests.adapters import BaseAdapter

from local.simulators.partner_center.dispatcher import Delivery
from tests.flows.world import HOST, World

READ_REFERRAL = "partner_center GET"
SOMEBODY_ELSES = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"


class Down(BaseAdapter):
    """The receiver's address while nobody answers there."""

    def send(self, request: requests.PreparedRequest, **_: Any) -> requests.Response:  # type: ignore[override]
        raise requests.ConnectionError("connection refused")

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def shared(make_memory_world: Callable[..., World]) -> tuple[World, str, str]:
    """A co-sell deal in agreement that the sweep has seen: the world, the record's id, the referral's id."""
    world = make_memory_world()
    record_id = world.opportunity(help="CustomerTechnicalArchitecture")
    world.settle()
    world.fire("reconciler")
    world.work()
    world.advance(3600)
    world.forget_calls()
    return world, record_id, world.referral_of(record_id)["id"]


def waiting(world: World) -> list[Delivery]:
    return world.simulators.webhooks.dispatcher.waiting


def deliver(world: World) -> list[int | None]:
    return [attempt.status for attempt in world.simulators.webhooks.deliver_pending()]


def deliver_to_the_end(world: World, *, down_for: int) -> list[int | None]:
    """Make all attempts for the one event under way; nobody answers the first ones."""
    sender = world.simulators.webhooks.dispatcher.session
    receiver = sender.get_adapter(HOST)
    (delivery,) = waiting(world)
    while delivery.state == "waiting":
        sender.mount(HOST, Down() if len(delivery.attempts) < down_for else receiver)
        deliver(world)
        world.advance(max(0.0, (delivery.due_at - world.clock.now()).total_seconds()))
    sender.mount(HOST, receiver)
    return [attempt.status for attempt in delivery.attempts]


def test_a_receiver_that_is_down_for_nine_attempts_gets_the_change_at_the_tenth(
    shared: tuple[World, str, str],
) -> None:
    world, record_id, referral_id = shared
    world.people.partner_edits(referral_id, {"/details/notes": "Said ten times."})

    assert deliver_to_the_end(world, down_for=9) == [None] * 9 + [200]
    world.work()

    assert world.record(record_id)["notes"] == "Said ten times."


def test_after_ten_attempts_the_change_arrives_with_the_sweep_and_not_before(shared: tuple[World, str, str]) -> None:
    world, record_id, referral_id = shared
    before = world.record(record_id)["notes"]
    world.people.partner_edits(referral_id, {"/details/notes": "Nobody listened."})

    assert deliver_to_the_end(world, down_for=10) == [None] * 10
    world.settle()
    assert world.queue.length() == 0
    assert world.record(record_id)["notes"] == before

    world.fire("reconciler")
    world.work()
    assert world.record(record_id)["notes"] == "Nobody listened."


def test_a_pair_out_of_order_leaves_the_newer_value_and_costs_one_read(shared: tuple[World, str, str]) -> None:
    world, record_id, referral_id = shared
    world.people.partner_edits(referral_id, {"/details/notes": "first"})
    world.advance(1)
    world.people.partner_edits(referral_id, {"/details/notes": "second"})
    waiting(world).reverse()

    assert deliver(world) == [200, 200]
    assert world.queue.length() == 2
    world.work()

    assert world.record(record_id)["notes"] == "second"
    assert world.calls()[READ_REFERRAL] == 1


def test_an_event_that_is_two_days_late_undoes_nothing(shared: tuple[World, str, str]) -> None:
    world, record_id, referral_id = shared
    world.people.partner_edits(referral_id, {"/details/notes": "two days ago"})
    (late,) = waiting(world)
    waiting(world).remove(late)
    world.advance(48 * 3600)
    world.desk.edit(record_id, notes="today")
    world.settle()
    world.forget_calls()

    waiting(world).append(late)
    assert deliver(world) == [200]
    assert world.queue.length() == 1
    world.work()

    assert world.record(record_id)["notes"] == world.pc.referrals[referral_id]["details"]["notes"] == "today"
    assert world.writes() == []
    assert world.is_at_rest()


def test_a_replay_after_three_days_is_answered_and_costs_no_call(shared: tuple[World, str, str]) -> None:
    world, record_id, referral_id = shared
    world.people.partner_edits(referral_id, {"/details/notes": "three days ago"})
    dispatcher = world.simulators.webhooks.dispatcher
    (delivery,) = waiting(world)
    world.settle()
    world.advance(3 * 24 * 3600)
    world.restart()
    world.people.partner_edits(referral_id, {"/details/notes": "since then"})
    world.settle()
    world.forget_calls()

    assert dispatcher.send(delivery.payload, None).status == 200
    assert world.queue.length() == 1
    world.work()

    assert world.record(record_id)["notes"] == "since then"
    assert world.calls() == {}


def test_the_echo_of_our_patch_within_two_seconds_is_answered_and_costs_no_call(
    shared: tuple[World, str, str],
) -> None:
    world, record_id, _ = shared
    world.desk.edit(record_id, deal_value=80000)
    world.fire("crm_poller")
    world.work()
    assert "partner_center PATCH" in world.writes()
    world.forget_calls()
    world.advance(2)

    assert deliver(world) == [200]
    assert world.queue.length() == 1
    world.work()

    assert world.calls() == {}


def test_an_echo_while_our_patch_is_not_saved_yet_writes_nothing(shared: tuple[World, str, str]) -> None:
    """The event overtakes us: the message is worked off while the run that wrote the referral still holds the deal."""
    world, record_id, _ = shared
    world.desk.edit(record_id, deal_value=80000)
    world.fire("crm_poller")
    ((body, _, receipt),) = world.queue.receive(visibility_s=60)
    patch = world.services.partner_center.patch

    heard: list[int | None] = []

    def patch_and_hear_of_it(*arguments: Any, **named: Any) -> Any:
        answer = patch(*arguments, **named)
        heard.extend(deliver(world))
        world.work()
        return answer

    world.services.partner_center.patch = patch_and_hear_of_it  # type: ignore[method-assign]
    world.run_worker(body)
    world.queue.delete(receipt)
    world.settle()

    assert heard == [200]
    assert world.writes().count("partner_center PATCH") == 1
    assert world.failed_invocations == 0
    assert world.is_at_rest()


@pytest.mark.parametrize("event", ["related-referral-created", "related-referral-updated"])
@pytest.mark.parametrize("status", [403, 404])
def test_a_related_event_about_what_is_not_ours_to_read_is_answered_and_costs_one_read(
    shared: tuple[World, str, str], event: str, status: int
) -> None:
    world, _, _ = shared
    refusal = {"error": {"code": "accessDenied", "message": "No.", "target": "referral"}}
    world.pc.faults.add("status", path=SOMEBODY_ELSES, status=status, body=refusal)
    world.simulators.webhooks.publish(event, SOMEBODY_ELSES, "2026-11-02T09:30:00Z")

    assert deliver(world) == [200]
    assert world.queue.length() == 1
    world.work()

    assert world.calls() == {READ_REFERRAL: 1}
    assert world.services.failures.list() == ()
    assert world.failed_invocations == 0
    assert world.queue.length() == 0


def test_fifty_events_about_one_deal_in_any_order_leave_the_last_value(shared: tuple[World, str, str]) -> None:
    world, record_id, referral_id = shared
    for number in range(50):
        world.people.partner_edits(referral_id, {"/details/notes": f"edit {number}"})
        world.advance(0.1)
    events = waiting(world)
    events[:] = events[::2] + events[1::2][::-1]

    assert deliver(world) == [200] * 50
    assert world.queue.length() == 50
    world.work()

    assert world.record(record_id)["notes"] == "edit 49"
    assert world.calls()[READ_REFERRAL] <= 3
    assert world.is_at_rest()

"""A thousand events within minutes: every call is answered, and a deal is looked at a few times, not a hundred."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.flows.crms import only
from tests.flows.world import World
from tests.memory_storage import Received

pytestmark = only("dynamics365", why="receiver and queue know no CRM")

DEALS = 10
EVENTS = 1_000
MOST_RECONCILIATIONS = 20
READ_REFERRAL = "partner_center GET"


@pytest.fixture
def shared(make_memory_world: Callable[..., World]) -> tuple[World, list[str], list[str]]:
    """Ten deals in agreement: the world, and the ids of the records and of their referrals."""
    return ten_deals(make_memory_world())


def ten_deals(world: World) -> tuple[World, list[str], list[str]]:
    record_ids = [world.opportunity(name=f"Deal {number}") for number in range(DEALS)]
    world.settle()
    world.advance(600)
    world.settle()
    world.forget_calls()
    return world, record_ids, [str(world.referral_of(record_id)["id"]) for record_id in record_ids]


def edit(world: World, referral_ids: list[str], event: int) -> None:
    """Somebody changes one of the deals in the portal."""
    value = {"/details/notes": f"edit {event}", "/details/dealValue": 10_000 + event}
    world.people.partner_edits(referral_ids[event % DEALS], value)
    world.advance(0.05)


def answers(world: World) -> Counter[int | None]:
    return Counter(attempt.status for attempt in world.simulators.webhooks.deliver_pending())


def assert_agree(world: World, record_ids: list[str], events: int = EVENTS) -> None:
    for number, record_id in enumerate(record_ids):
        last = events - DEALS + number
        referral = world.referral_of(record_id)["details"]
        assert (referral["notes"], referral["dealValue"]) == (f"edit {last}", 10_000 + last)
        record = world.record(record_id)
        assert (record["notes"], record["deal_value"]) == (f"edit {last}", 10_000 + last)
    assert world.failed_invocations == 0
    assert world.services.failures.list() == ()
    assert world.is_at_rest()


@pytest.mark.parametrize("order", ["as sent", "shuffled"])
def test_a_burst_of_1000_events_about_10_deals_is_at_most_20_reconciliations(
    shared: tuple[World, list[str], list[str]], order: str
) -> None:
    world, record_ids, referral_ids = shared
    for event in range(EVENTS):
        edit(world, referral_ids, event)
    if order == "shuffled":
        random.Random(7).shuffle(world.simulators.webhooks.dispatcher.waiting)

    assert answers(world) == {200: EVENTS}
    assert world.queue.length() == EVENTS
    assert world.work() == EVENTS

    assert world.calls()[READ_REFERRAL] <= MOST_RECONCILIATIONS
    assert_agree(world, record_ids)


def test_while_deals_still_change_the_worker_looks_once_more_and_no_oftener(
    shared: tuple[World, list[str], list[str]],
) -> None:
    """The worker starts in the middle of the burst: what it has read then is not the last word."""
    world, record_ids, referral_ids = shared
    for event in range(EVENTS):
        edit(world, referral_ids, event)
        if event + 1 == EVENTS // 2:
            assert answers(world) == {200: EVENTS // 2}
            world.work()

    assert answers(world) == {200: EVENTS - EVENTS // 2}
    world.work()

    assert world.calls()[READ_REFERRAL] <= MOST_RECONCILIATIONS
    assert_agree(world, record_ids)


def test_eight_workers_at_once_are_at_most_20_reconciliations(shared: tuple[World, list[str], list[str]]) -> None:
    eight_workers(*shared)


@pytest.mark.real_storage
def test_eight_workers_in_front_of_real_storage_are_at_most_20_reconciliations(
    make_world: Callable[..., World],
) -> None:
    """Of a fifth of the events, which is more than the workers take at once: it is about claims, not about numbers."""
    eight_workers(*ten_deals(make_world()), events=EVENTS // 5)


def eight_workers(world: World, record_ids: list[str], referral_ids: list[str], events: int = EVENTS) -> None:
    for event in range(events):
        edit(world, referral_ids, event)
    assert answers(world) == {200: events}

    work_off_in_threads(world, 8)

    assert world.calls()[READ_REFERRAL] <= MOST_RECONCILIATIONS
    assert_agree(world, record_ids, events)


def test_eight_workers_at_once_miss_nothing_that_changes_meanwhile(
    shared: tuple[World, list[str], list[str]],
) -> None:
    """Deals are edited while the workers work. Each look is then older than some event: how many there are depends on
    how often the worker comes by, and nothing may be missed."""
    world, record_ids, referral_ids = shared
    with ThreadPoolExecutor(1) as workers:
        runs = []
        for tenth in range(10):
            for event in range(tenth * EVENTS // 10, (tenth + 1) * EVENTS // 10):
                edit(world, referral_ids, event)
            assert answers(world) == {200: EVENTS // 10}
            runs.append(workers.submit(work_off_in_threads, world, 8))
        for run in runs:
            run.result()

    assert world.calls()[READ_REFERRAL] <= 10 * MOST_RECONCILIATIONS
    assert_agree(world, record_ids)


def work_off_in_threads(world: World, threads: int) -> None:
    """As the host does: each worker takes a batch, and a message goes once its run is over."""

    def run(received: Received) -> None:
        world.run_worker(received.body, received.dequeue_count)
        world.queue.delete(received.receipt)

    with ThreadPoolExecutor(threads) as pool:
        while page := world.queue.receive(visibility_s=600):
            list(pool.map(run, page))

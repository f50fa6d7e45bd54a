"""What Failures promises: one row per deal that waits for a person, however often it failed."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from shared.store.failures import Failure, Failures
from tests.contract.stores import Store, VirtualClock


@pytest.fixture
def failures(store: Store, clock: VirtualClock) -> Failures:
    return Failures(store.table("Index"), clock)


def test_a_failure_says_why_and_what_to_do(failures: Failures, clock: VirtualClock) -> None:
    failures.put("pc_1", "no right ✓", next_step="Ask", field="details.dealValue", correlation_id="c")

    assert failures.list() == (
        Failure("pc_1", "no right ✓", "Ask", "details.dealValue", "c", since_utc=clock(), last_utc=clock(), times=1),
    )


def test_a_deal_that_fails_again_keeps_since_when_and_counts(failures: Failures, clock: VirtualClock) -> None:
    first = failures.put("pc_1", "first", next_step="Ask", field="name", correlation_id="c1")
    clock.advance(60)

    failures.put("pc_1", "second", correlation_id="c2")

    (failure,) = failures.list()
    assert (failure.reason, failure.next_step, failure.field, failure.correlation_id) == ("second", "", "", "c2")
    assert (failure.since_utc, failure.last_utc - first.since_utc) == (first.since_utc, timedelta(seconds=60))
    assert failure.times == 2


def test_failures_recorded_at_once_are_all_counted(failures: Failures) -> None:
    threads = [threading.Thread(target=failures.put, args=("pc_1", "no right")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert [failure.times for failure in failures.list()] == [4]


def test_a_cleared_failure_is_gone_and_the_others_stay(failures: Failures) -> None:
    failures.put("pc_1", "a")
    failures.put("pc_2", "b")

    failures.clear("pc_1")
    failures.clear("pc_unknown")

    assert [failure.deal for failure in failures.list()] == ["pc_2"]
    assert failures.put("pc_1", "a").times == 1


def test_the_list_can_be_cut_short(failures: Failures) -> None:
    for number in range(4):
        failures.put(f"pc_{number}", "a")

    assert [failure.deal for failure in failures.list(limit=2)] == ["pc_0", "pc_1"]

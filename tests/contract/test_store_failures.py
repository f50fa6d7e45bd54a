"""What Failures promises: one row per deal that waits for a person, however often it failed."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta

import pytest

from shared.problems import Problem
from shared.store.failures import Failure, Failures
from shared.store.tables import Row, columns
from tests.contract.stores import Store, VirtualClock

NO_RIGHT = Problem("Salesforce", "no right", "Ask", "permission")


@pytest.fixture
def failures(store: Store, clock: VirtualClock) -> Failures:
    return Failures(store.table("Index"), clock)


def test_a_failure_says_why_and_what_to_do(failures: Failures, clock: VirtualClock) -> None:
    problems = (
        Problem("Deal value", "is ✓", "Ask", "no-counterpart", accepted="1, 2"),
        Problem("Salesforce", "no right", "Grant it", "permission"),
    )

    failures.put("pc_1", *problems, correlation_id="c")

    assert failures.list() == (Failure("pc_1", problems, "c", since_utc=clock(), last_utc=clock(), times=1),)


def test_a_row_of_an_earlier_release_is_read_and_replaced_by_what_fails_now(store: Store, clock: VirtualClock) -> None:
    """That release kept words only: `reason`, `field` and `next_step`."""
    table = store.table("Index")
    failures = Failures(table, clock)
    earlier = {"deal": "pc_1", "reason": "City: is empty", "next_step": "Fill it in", "field": "City"}
    when = {"since_utc": clock().isoformat(), "last_utc": clock().isoformat(), "times": 2, "correlation_id": "c"}
    table.insert(Row("failures", "pc_1", columns({**earlier, **when})))

    (failure,) = failures.list()

    assert (failure.reason, failure.next_step, failure.reasons) == ("City: is empty", "Fill it in", ("earlier",))
    assert failures.put("pc_1", NO_RIGHT).times == 3
    assert failures.list()[0].reasons == ("permission",)


def test_a_reason_of_a_later_release_does_not_hide_the_list(store: Store, clock: VirtualClock) -> None:
    table = store.table("Index")
    failures = Failures(table, clock)
    failures.put("pc_1", NO_RIGHT)
    row = table.query("failures")[0]
    table.replace(
        replace(
            row, columns={**row.columns, "problems0": str(row.columns["problems0"]).replace("permission", "moonshine")}
        )
    )

    assert [failure.reasons for failure in failures.list()] == [("earlier",)]


def test_a_deal_that_fails_again_keeps_since_when_and_counts(failures: Failures, clock: VirtualClock) -> None:
    first = failures.put("pc_1", NO_RIGHT, correlation_id="c1")
    clock.advance(60)

    failures.put("pc_1", Problem("", "second", "", "refused"), correlation_id="c2")

    (failure,) = failures.list()
    assert (failure.reason, failure.next_step, failure.field, failure.correlation_id) == ("second", "", "", "c2")
    assert (failure.since_utc, failure.last_utc - first.since_utc) == (first.since_utc, timedelta(seconds=60))
    assert failure.times == 2


def test_failures_recorded_at_once_are_all_counted(failures: Failures) -> None:
    threads = [threading.Thread(target=failures.put, args=("pc_1", NO_RIGHT)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert [failure.times for failure in failures.list()] == [4]


def test_a_cleared_failure_is_gone_and_the_others_stay(failures: Failures) -> None:
    failures.put("pc_1", NO_RIGHT)
    failures.put("pc_2", NO_RIGHT)

    failures.clear("pc_1")
    failures.clear("pc_unknown")

    assert [failure.deal for failure in failures.list()] == ["pc_2"]
    assert failures.put("pc_1", NO_RIGHT).times == 1


def test_the_list_can_be_cut_short(failures: Failures) -> None:
    for number in range(4):
        failures.put(f"pc_{number}", NO_RIGHT)

    assert [failure.deal for failure in failures.list(limit=2)] == ["pc_0", "pc_1"]

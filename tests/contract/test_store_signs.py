"""What Signs promises: the last success and the last failure of each part, at little cost, and never in the way."""

from __future__ import annotations

from datetime import timedelta

import pytest

from shared.errors import Unavailable
from shared.store.signs import FAILURES_A_MINUTE, Outcome, Sign, Signs
from shared.store.tables import Table
from tests.contract.stores import Store, VirtualClock
from tests.memory_storage import MemoryTables


@pytest.fixture
def table(store: Store) -> Table:
    return store.table("Index")


@pytest.fixture
def signs(table: Table, clock: VirtualClock) -> Signs:
    return Signs(table, clock)


def test_the_last_success_and_the_last_failure_are_both_known(signs: Signs, clock: VirtualClock) -> None:
    signs.well("poll", "all tables")
    began = clock()
    clock.advance(10)
    signs.failed("poll", "no right ✓")

    sign = signs.of("poll")

    assert sign == Sign(Outcome(began, "all tables"), Outcome(clock(), "no right ✓"))
    assert sign.fails


def test_a_success_after_a_failure_ends_it(signs: Signs, clock: VirtualClock) -> None:
    signs.failed("poll", "no right")
    clock.advance(1)
    signs.well("poll")

    assert not signs.of("poll").fails


def test_parts_are_apart_also_where_one_name_begins_with_another(signs: Signs) -> None:
    signs.well("relay_a", "one")
    signs.failed("relay_a_b", "two")
    signs.well("relay", "three")

    assert {name: (sign.well is not None, sign.failed is not None) for name, sign in signs.all().items()} == {
        "relay": (True, False),
        "relay_a": (True, False),
        "relay_a_b": (False, True),
    }
    assert signs.of("relay").failed is None
    assert signs.of("nobody") == Sign()


def test_the_same_outcome_is_stored_once_a_minute(store: Store, signs: Signs, clock: VirtualClock) -> None:
    for _ in range(10):
        signs.well("poll")
        clock.advance(5)
    asked = len(store.requests)
    clock.advance(11)
    signs.well("poll")

    assert signs.of("poll").well == Outcome(clock())
    assert len(store.requests) - asked == 2  # the one stored now, and the look at it
    assert asked <= 2 + 2  # Azurite's table had to be made


def test_made_up_reasons_cost_a_bounded_number_of_writes(store: Store, signs: Signs) -> None:
    signs.failed("webhook", "the first makes the table")
    before = len(store.requests)

    for number in range(100):
        signs.failed("webhook", f"host-{number}.example")

    assert len(store.requests) - before == FAILURES_A_MINUTE - 1


def test_made_up_reasons_do_not_hide_a_success(signs: Signs, clock: VirtualClock) -> None:
    for number in range(100):
        signs.failed("webhook", f"host-{number}.example")
    clock.advance(1)
    signs.well("webhook")

    assert signs.of("webhook").well == Outcome(clock())


def test_a_success_at_an_earlier_moment_is_noted_as_such(signs: Signs, clock: VirtualClock) -> None:
    signs.well("webhook", at_utc=clock() - timedelta(minutes=3))

    assert signs.of("webhook").well == Outcome(clock() - timedelta(minutes=3))


def test_facts_are_remembered_each_time(signs: Signs, table: Table, clock: VirtualClock) -> None:
    signs.remember("registered", "here", digest="a", events=["x"])
    signs.remember("registered", "here", digest="b", events=["x", "y"])

    assert Signs(table, clock).of("registered").well == Outcome(clock(), "here", {"digest": "b", "events": ["x", "y"]})


def test_a_sign_that_cannot_be_stored_stops_nobody(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    table = MemoryTables().table("Index")

    def gone(*_: object) -> None:
        raise Unavailable("Table Storage gave no usable answer")

    monkeypatch.setattr(table, "upsert", gone)
    signs = Signs(table, clock)

    signs.well("poll")

    assert [record.msg for record in caplog.records] == ["signs.not_stored"]
    with pytest.raises(Unavailable):
        signs.remember("registered", "here")

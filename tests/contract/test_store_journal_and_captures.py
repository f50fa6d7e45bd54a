"""What Journal and Captures promise: newest first, whole, and gone when their time is over."""

from __future__ import annotations

from datetime import timedelta

import pytest

from shared.store.captures import PARTITION, Captures
from shared.store.journal import Entry, Journal
from shared.store.tables import Table
from tests.contract.stores import Store, VirtualClock


@pytest.fixture
def table(store: Store) -> Table:
    return store.table("Index")


def test_the_journal_tells_the_newest_first(table: Table, clock: VirtualClock) -> None:
    journal = Journal(table, clock)
    for number in range(12):
        journal.add("registration.updated", f"the {number}. time", now="https://a.example/✓")
        clock.advance(1)

    assert [entry.says for entry in journal.latest(2)] == ["the 11. time", "the 10. time"]
    assert len(journal.latest()) == 10
    assert journal.latest(1) == (
        Entry(clock() - timedelta(seconds=1), "registration.updated", "the 11. time", {"now": "https://a.example/✓"}),
    )


def test_entries_of_one_moment_are_all_there(table: Table, clock: VirtualClock) -> None:
    journal = Journal(table, clock)
    for number in range(3):
        journal.add("relay.given_up", str(number))

    assert {entry.says for entry in journal.latest()} == {"0", "1", "2"}


def test_a_captured_call_is_kept_as_it_came(table: Table, clock: VirtualClock) -> None:
    captures = Captures(table, clock)
    body = ('{"EventName":"test-created","Note":"é✓' + "x" * 40_000 + '"}').encode()
    captures.put("test-created", {"x-ms-signature": "Signature abc"}, body, digest="d" * 64)

    (kept,) = captures.list()

    assert (kept.event, kept.headers, kept.body.encode()) == ("test-created", {"x-ms-signature": "Signature abc"}, body)


def test_no_key_is_kept(table: Table, clock: VirtualClock) -> None:
    headers = {
        "Authorization": "Bearer of-a-gateway",
        "X-Functions-Key": "k1",
        "Cookie": "k2",
        "x-original-url": "/api/webhook_receiver?code=k3&x=1",
        "x-ms-signature": "Signature abc",
    }
    captures = Captures(table, clock)
    captures.put("test-created", headers, b"{}", digest="d" * 64)

    (kept,) = captures.list()

    assert kept.headers == {
        "Authorization": "***",
        "X-Functions-Key": "***",
        "Cookie": "***",
        "x-original-url": "***",
        "x-ms-signature": "Signature abc",
    }


def test_a_signature_in_authorization_is_kept(table: Table, clock: VirtualClock) -> None:
    captures = Captures(table, clock)
    captures.put("test-created", {"authorization": "Signature abc="}, b"{}", digest="d" * 64)

    assert [kept.headers for kept in captures.list()] == [{"authorization": "Signature abc="}]


def test_bytes_that_are_no_text_can_be_read_too(table: Table, clock: VirtualClock) -> None:
    captures = Captures(table, clock)
    captures.put("", {}, b'{"a":"\xff"}', digest="d" * 64)

    assert [kept.body for kept in captures.list()] == ['{"a":"\\xff"}']


def test_a_captured_call_is_kept_for_a_day_and_then_deleted(table: Table, clock: VirtualClock) -> None:
    captures = Captures(table, clock)
    captures.put("old", {}, b"1", digest="1" * 64)
    captures.put("kept for longer", {}, b"2", digest="2" * 64, keep=timedelta(days=30))
    clock.advance(24 * 3600)
    assert [kept.event for kept in captures.list()] == ["kept for longer"]

    captures.put("new", {}, b"3", digest="3" * 64)
    captures.purge()

    assert [kept.event for kept in captures.list()] == ["new", "kept for longer"]
    assert len(table.query(PARTITION)) == 2


def test_calls_of_one_moment_are_all_kept_newest_first(table: Table, clock: VirtualClock) -> None:
    captures = Captures(table, clock)
    captures.put("first", {}, b"1", digest="1" * 64)
    clock.advance(1)
    captures.put("second", {}, b"2", digest="2" * 64)
    captures.put("second", {}, b"3", digest="3" * 64)

    assert [kept.event for kept in captures.list()] == ["second", "second", "first"]

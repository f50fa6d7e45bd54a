"""What Audit promises: every entry is found by its time, none is ever changed, and only old ones are taken away."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from shared.errors import Unavailable
from shared.model import Link, Side
from shared.store.audit import DAYS, Audit, AuditEntry
from shared.store.deals import Deals
from tests.contract.stores import AzuriteStore, Store, VirtualClock

NONE: frozenset[Side] = frozenset()
A_DAY_S = 86_400.0


@pytest.fixture
def deals(store: Store, clock: VirtualClock) -> Deals:
    return Deals(store.table("Deals"), store.table("Index"), clock)


@pytest.fixture
def audit(store: Store) -> Audit:
    return Audit(store.table("Deals"), store.table("Index"))


def entry(clock: VirtualClock, operation: str = "") -> AuditEntry:
    return AuditEntry(at_utc=clock(), phase="done", cause="poll", correlation_id="c", operation=operation)


def save(deals: Deals, deal: str, *entries: AuditEntry) -> None:
    link = deals.claim(deal, sides=NONE)
    assert link
    deals.save(link, entries)
    deals.release(link)


def told(audit: Audit, since: datetime, until: datetime) -> list[tuple[str, str]]:
    return [(deal, each.operation) for deal, each in audit.between(since, until)]


def test_a_period_is_told_in_the_order_of_time_over_all_deals(deals: Deals, audit: Audit, clock: VirtualClock) -> None:
    start = clock()
    save(deals, "pc_1", entry(clock, "a"), entry(clock, "b"))
    clock.advance(0.000001)
    save(deals, "crm_opportunity_2", entry(clock, "c"))
    clock.advance(A_DAY_S)
    save(deals, "pc_1", entry(clock, "d"))
    clock.advance(1)
    end = clock()
    save(deals, "pc_1", entry(clock, "too late"))

    assert told(audit, start, end) == [("pc_1", "a"), ("pc_1", "b"), ("crm_opportunity_2", "c"), ("pc_1", "d")]
    assert told(audit, start + timedelta(microseconds=1), start + timedelta(hours=1)) == [("crm_opportunity_2", "c")]
    assert told(audit, start, start) == []


def test_entries_on_either_side_of_midnight_that_are_saved_together_are_both_found(
    deals: Deals, audit: Audit, clock: VirtualClock
) -> None:
    clock.now = datetime(2026, 11, 20, 23, 59, 59, 999_999, tzinfo=UTC)
    before = entry(clock, "before")
    clock.advance(0.000001)

    save(deals, "pc_1", before, entry(clock, "after"))

    midnight = datetime(2026, 11, 21, tzinfo=UTC)
    assert told(audit, midnight - timedelta(days=1), midnight) == [("pc_1", "before")]
    assert told(audit, midnight, midnight + timedelta(days=1)) == [("pc_1", "after")]


def test_a_period_is_read_without_looking_at_deals_that_were_at_rest(
    store: Store, deals: Deals, audit: Audit, clock: VirtualClock
) -> None:
    for number in range(20):
        save(deals, f"pc_{number}", entry(clock))
    clock.advance(A_DAY_S)
    save(deals, "pc_7", entry(clock, "today"))
    before = len(store.requests)

    assert told(audit, datetime(2026, 11, 21, tzinfo=UTC), datetime(2026, 11, 22, tzinfo=UTC)) == [("pc_7", "today")]

    assert len(store.requests) - before == 2  # the day's deals, and the one there is


def test_finding_a_day_costs_one_write_for_the_first_entry_of_a_deal(
    store: Store, deals: Deals, clock: VirtualClock
) -> None:
    save(deals, "pc_other", entry(clock))
    link = deals.claim("pc_1", sides=NONE)
    assert link
    costs = []
    for wait_s in (0.0, 1.0, A_DAY_S):
        clock.advance(wait_s)
        before = len(store.requests)
        deals.save(link, [entry(clock)])
        costs.append(len(store.requests) - before)

    assert costs == [2, 1, 2]


def test_no_entry_is_there_before_what_leads_to_it(storage_connection: str, clock: VirtualClock) -> None:
    store = AzuriteStore(storage_connection)
    deals = Deals(store.table("Deals"), store.table("Index"), clock)
    save(deals, "pc_other", entry(clock))
    clock.advance(A_DAY_S)
    link = deals.claim("pc_1", sides=NONE)
    assert link
    before = len(store.requests)
    store.lose_answers(100)

    with pytest.raises(Unavailable):
        deals.save(link, [entry(clock)])

    store.lose_answers(0)
    assert not [request for request in store.requests[before:] if "$batch" in request]
    assert [row.key for row in store.table("Index").query(DAYS)] == ["20261120_pc_other", "20261121_pc_1"]
    deals.save(link, [entry(clock, "again")])
    assert told(Audit(store.table("Deals"), store.table("Index")), clock(), clock() + timedelta(seconds=1)) == [
        ("pc_1", "again")
    ]


def test_an_entry_is_never_changed_whatever_saves_are_repeated(storage_connection: str, clock: VirtualClock) -> None:
    store = AzuriteStore(storage_connection)
    deals, table = Deals(store.table("Deals"), store.table("Index"), clock), store.table("Deals")
    link = deals.claim("pc_1", sides=NONE)
    assert link
    deals.save(link, [entry(clock, "first")])
    seen: dict[str, Any] = {}

    def look() -> None:
        rows = {row.key: row.columns for row in table.query("pc_1", "audit_", "audit`")}
        assert rows == {**rows, **seen}, "an entry was changed or is gone"
        seen.update(rows)

    look()
    for number in range(3):
        stale: Link = replace(link)
        store.lose_answers(3)  # longer than one save is patient, so that the run thinks nothing was saved
        with pytest.raises(Unavailable):
            deals.save(link, [entry(clock, f"{number}")])
        look()
        deals.save(stale, [entry(clock, f"{number}"), entry(clock, f"{number} and more")])
        link = stale
        look()
        clock.advance(1)

    assert [each.operation for each in reversed(deals.story("pc_1").entries)] == [
        "first",
        *("0", "0 and more", "1", "1 and more", "2", "2 and more"),
    ]


def test_pruning_takes_away_what_is_older_and_nothing_else(
    store: Store, deals: Deals, audit: Audit, clock: VirtualClock
) -> None:
    for _ in range(3):
        for deal in ("pc_1", "pc_2"):
            link = deals.claim(deal, sides=NONE)
            assert link
            for _ in range(3):
                deals.save(link, [entry(clock) for _ in range(40)])
            deals.release(link)
        clock.advance(A_DAY_S)

    assert audit.prune(date(2026, 11, 22)) == (480, True)

    assert {each.at_utc.date() for _, each in audit.between(datetime(2026, 1, 1, tzinfo=UTC), clock())} == {
        date(2026, 11, 22)
    }
    assert len(deals.story("pc_1", limit=500).entries) == 120
    assert deals.load("pc_1") is not None
    assert [row.key for row in store.table("Index").query(DAYS)] == ["20261122_pc_1", "20261122_pc_2"]
    assert audit.prune(date(2026, 11, 22)) == (0, True)


def test_pruning_that_is_interrupted_goes_on_where_it_stopped(deals: Deals, audit: Audit, clock: VirtualClock) -> None:
    for deal in ("pc_1", "pc_2", "pc_3"):
        save(deals, deal, entry(clock))
    left = iter([True, True, False])

    assert audit.prune(date(2026, 12, 1), go_on=lambda: next(left)) == (2, False)
    assert audit.prune(date(2026, 12, 1)) == (1, True)

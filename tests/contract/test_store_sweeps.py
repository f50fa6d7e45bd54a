"""What Sweeps promises: the newest reports first, a bounded number of them, and the deals that differed."""

from __future__ import annotations

from datetime import timedelta

import pytest

from shared.drift import Difference
from shared.model import RecordRef
from shared.store.sweeps import DETAILS, KEPT, Listing, Report, Sweeps
from shared.store.tables import Table
from tests.contract.stores import Store, VirtualClock

ONE = Difference("referral newer", "pc_r1", 'W/"1"', referral_id="r1")
OTHER = Difference("unlinked record", "crm_opportunity_o1", record=RecordRef("opportunity", "o1"))


@pytest.fixture
def table(store: Store) -> Table:
    return store.table("Index")


@pytest.fixture
def sweeps(table: Table) -> Sweeps:
    return Sweeps(table)


def test_reports_come_back_newest_first(sweeps: Sweeps, clock: VirtualClock) -> None:
    old = Report(clock(), lists={"Partner Center": Listing(known=2, listed=1)}, differed={"not listed": 1}, looks=1)
    new = Report(clock() + timedelta(days=1), clock() + timedelta(days=2), worked_s=1.5)

    sweeps.put(old)
    sweeps.put(new)

    assert sweeps.latest(2) == (new, old)
    assert sweeps.latest() == (new,)


def test_the_deals_that_differed_come_back_and_a_repeated_batch_counts_once(
    sweeps: Sweeps, clock: VirtualClock
) -> None:
    report, other = Report(clock()), Report(clock() + timedelta(seconds=1))
    sweeps.detail(report, 1, [ONE])
    sweeps.detail(report, 1, [ONE])
    sweeps.detail(report, 2, [OTHER])

    assert sweeps.details(report) == (ONE, OTHER)
    assert sweeps.details(other) == ()


def test_the_oldest_are_forgotten_with_their_deals(table: Table, sweeps: Sweeps, clock: VirtualClock) -> None:
    reports = [Report(clock() + timedelta(days=day)) for day in range(KEPT + 2)]
    for report in reports:
        sweeps.detail(report, 1, [ONE])
        sweeps.put(report)

    assert sweeps.latest(100) == tuple(reversed(reports[2:]))
    assert len(table.query(DETAILS)) == KEPT

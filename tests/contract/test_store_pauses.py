"""What Pauses promises: a pause is everybody's until it is over, and of two the longer one counts."""

from __future__ import annotations

from datetime import timedelta

import pytest

from shared.model import Paused
from shared.store.pauses import Pauses
from tests.contract.stores import Store, VirtualClock

REMOTE = "Partner Center"


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def pauses(store: Store, clock: VirtualClock) -> Pauses:
    return Pauses(store.table("Index"), clock)


def paused(clock: VirtualClock, seconds: float, why: str = "it asked for a pause") -> Paused:
    return Paused(clock() + timedelta(seconds=seconds), why)


def test_a_pause_is_known_until_it_is_over_and_of_its_remote_only(pauses: Pauses, clock: VirtualClock) -> None:
    assert pauses.of(REMOTE) is None
    pauses.begin(REMOTE, told := paused(clock, 240))

    assert pauses.of(REMOTE) == told
    assert pauses.of("Salesforce") is None
    assert pauses.all() == {REMOTE: told}

    clock.advance(240)
    assert pauses.of(REMOTE) is None
    assert pauses.all() == {}


def test_of_two_pauses_the_longer_one_counts(pauses: Pauses, clock: VirtualClock) -> None:
    pauses.begin(REMOTE, paused(clock, 60))
    pauses.begin(REMOTE, longer := paused(clock, 240, "the daily limit"))
    pauses.begin(REMOTE, paused(clock, 120))

    assert pauses.of(REMOTE) == longer


def test_looking_is_one_request(store: Store, pauses: Pauses, clock: VirtualClock) -> None:
    pauses.begin(REMOTE, paused(clock, 60))
    before = len(store.requests)

    pauses.of(REMOTE)

    assert len(store.requests) == before + 1

"""Whether a listener may be called now: who fails rests, who hangs holds few threads, who is well never waits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from local.simulators.base import Clock
from tests.flows.world import START
from webhook_relay import gate
from webhook_relay.gate import BUSY_REST_S, CALLS_AT_ONCE, FIRST_REST_S, LONGEST_REST_S, Gate


@pytest.fixture
def clock() -> Clock:
    return Clock(frozen_at=START)


@pytest.fixture(autouse=True)
def without_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "PATIENCE_S", 0)


def fail(listener: Gate) -> None:
    assert listener.enter() == 0
    listener.leave("it answered 500")


def test_one_that_is_well_is_called_again_and_again(clock: Clock) -> None:
    listener = Gate(clock.now)

    for _ in range(100):
        assert listener.enter() == 0
        listener.leave("")


def test_after_a_failure_it_rests_and_each_rest_is_longer_up_to_a_limit(clock: Clock) -> None:
    listener = Gate(clock.now)
    rests = []

    for _ in range(8):
        fail(listener)
        rests.append(listener.enter())
        clock.advance(rests[-1])

    assert rests == [FIRST_REST_S, 20, 40, 80, 160, LONGEST_REST_S, LONGEST_REST_S, LONGEST_REST_S]


def test_whoever_asks_during_a_rest_hears_how_long_it_lasts(clock: Clock) -> None:
    listener = Gate(clock.now)
    fail(listener)

    clock.advance(4)

    assert listener.enter() == FIRST_REST_S - 4


def test_one_that_failed_is_tried_with_one_call_at_a_time(clock: Clock) -> None:
    listener = Gate(clock.now)
    fail(listener)
    clock.advance(FIRST_REST_S)

    assert [listener.enter() for _ in range(3)] == [0, BUSY_REST_S, BUSY_REST_S]


def test_those_who_ask_while_it_is_tried_do_not_keep_its_rests_from_growing(clock: Clock) -> None:
    listener = Gate(clock.now)
    fail(listener)
    clock.advance(FIRST_REST_S)

    assert listener.enter() == 0
    assert listener.enter() == BUSY_REST_S
    listener.leave("it did not answer")

    assert listener.enter() == 2 * FIRST_REST_S


def test_a_success_ends_it(clock: Clock) -> None:
    listener = Gate(clock.now)
    fail(listener)
    assert (listener.problem, listener.failing_since) == ("it answered 500", START)
    clock.advance(FIRST_REST_S)

    assert listener.enter() == 0
    listener.leave("")

    assert (listener.problem, listener.failing_since) == ("", None)
    assert [listener.enter() for _ in range(CALLS_AT_ONCE)] == [0] * CALLS_AT_ONCE
    fail_again = Gate(clock.now)
    fail(fail_again)
    assert fail_again.enter() == FIRST_REST_S


def test_one_that_hangs_holds_a_few_threads_and_the_others_are_sent_away(clock: Clock) -> None:
    listener = Gate(clock.now)

    assert [listener.enter() for _ in range(CALLS_AT_ONCE)] == [0] * CALLS_AT_ONCE
    assert listener.enter() == BUSY_REST_S
    clock.advance(3)
    assert listener.enter() == BUSY_REST_S - 3


def test_calls_that_hang_together_are_one_failure(clock: Clock) -> None:
    listener = Gate(clock.now)
    for _ in range(CALLS_AT_ONCE):
        listener.enter()

    for _ in range(CALLS_AT_ONCE):
        listener.leave("it did not answer")

    assert listener.enter() == FIRST_REST_S


def test_in_a_burst_a_quick_one_is_waited_for(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "PATIENCE_S", 30)
    listener, threads = Gate(clock.now), 12
    together = Barrier(threads, timeout=30)

    def deliver(number: int) -> float:
        if number < threads:
            together.wait()
        waited = listener.enter()
        listener.leave("")
        return waited

    with ThreadPoolExecutor(threads) as pool:
        assert set(pool.map(deliver, range(500))) == {0}


def test_who_waits_is_sent_away_as_soon_as_it_fails(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "PATIENCE_S", 30)
    listener = Gate(clock.now)
    for _ in range(CALLS_AT_ONCE):
        listener.enter()

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(listener.enter)
        listener.leave("it did not answer")

        assert waiting.result(timeout=10) == FIRST_REST_S

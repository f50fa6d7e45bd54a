"""When timers of the local host fire, with a clock that stands still unless it is moved."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import azure.functions as func
import pytest

from local.host.configuration import ConfigurationError
from local.host.functions import index
from local.host.timers import Schedule, Timer, TimerState

if TYPE_CHECKING:
    from pathlib import Path

NOON = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)  # a Friday


class Ticking:
    """A timer function that records its runs, and the clock it lives by."""

    def __init__(self, state: TimerState, schedule: str = "0 0 * * * *", **trigger: Any) -> None:
        self.now = NOON
        self.runs: list[func.TimerRequest] = []
        self.fails = False
        app = func.FunctionApp()

        @app.timer_trigger(arg_name="timer", schedule=schedule, **trigger)
        def ticks(timer: func.TimerRequest) -> None:
            self.runs.append(timer)
            if self.fails:
                raise RuntimeError("failed run")

        (function,) = index(app.get_functions(), {}, ".", lambda *_: None)
        self.timer = Timer(function, state, now=lambda: self.now)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("*/10 * * * * *", datetime(2026, 11, 20, 12, 0, 10, tzinfo=UTC)),
        ("0 */5 * * * *", datetime(2026, 11, 20, 12, 5, tzinfo=UTC)),
        ("*/5 * * * *", datetime(2026, 11, 20, 12, 5, tzinfo=UTC)),
        ("30 15 2 * * *", datetime(2026, 11, 21, 2, 15, 30, tzinfo=UTC)),
        ("0 0 8 * * Mon-Fri", datetime(2026, 11, 23, 8, tzinfo=UTC)),
        ("0 0 0 * Jan 0", datetime(2027, 1, 3, tzinfo=UTC)),
        ("0 0 0 13 * Fri", datetime(2027, 8, 13, tzinfo=UTC)),
    ],
)
def test_the_next_occurrence_follows_ncrontab(expression: str, expected: datetime) -> None:
    assert Schedule(expression, "f").after(NOON) == expected


@pytest.mark.parametrize("expression", ["", "* * * *", "60 * * * * *", "0 0 0 * * Someday", "00:30:00"])
def test_a_schedule_that_is_not_ncrontab_is_refused_by_name(expression: str) -> None:
    with pytest.raises(ConfigurationError, match=f"ticks: schedule '{expression}'".replace("*", r"\*")):
        Schedule(expression, "ticks")


def test_the_first_start_ever_only_remembers_the_next_occurrence() -> None:
    state = TimerState(None)
    ticking = Ticking(state)

    ticking.timer.start_up()

    assert ticking.runs == []
    status = state.get("ticks")
    assert status is not None
    assert (status.last, status.next) == (None, NOON + timedelta(hours=1))


def test_many_missed_occurrences_are_one_past_due_run(tmp_path: Path) -> None:
    Ticking(TimerState(tmp_path / "timers.json")).timer.start_up()
    later = Ticking(TimerState(tmp_path / "timers.json"))
    later.now = NOON + timedelta(hours=5, minutes=30)

    later.timer.start_up()

    assert [run.past_due for run in later.runs] == [True]
    assert later.runs[0].schedule_status["Next"] == "2026-11-20T13:00:00+00:00"
    remembered = json.loads((tmp_path / "timers.json").read_text())["ticks"]
    assert remembered["next"] == "2026-11-20T18:00:00+00:00"


def test_nothing_is_past_due_before_the_remembered_occurrence(tmp_path: Path) -> None:
    Ticking(TimerState(tmp_path / "timers.json")).timer.start_up()
    later = Ticking(TimerState(tmp_path / "timers.json"))
    later.now = NOON + timedelta(minutes=59)

    later.timer.start_up()

    assert later.runs == []


def test_a_changed_schedule_is_not_caught_up(tmp_path: Path) -> None:
    Ticking(TimerState(tmp_path / "timers.json")).timer.start_up()
    later = Ticking(TimerState(tmp_path / "timers.json"), "0 30 * * * *")
    later.now = NOON + timedelta(hours=5)

    later.timer.start_up()

    assert later.runs == []


@pytest.mark.parametrize(
    ("schedule", "trigger"),
    [("*/30 * * * * *", {}), ("0 0 * * * *", {"use_monitor": False})],
    ids=["often", "told not"],
)
def test_a_timer_without_monitor_keeps_no_state(schedule: str, trigger: dict[str, Any]) -> None:
    state = TimerState(None)

    Ticking(state, schedule, **trigger).timer.start_up()

    assert state.get("ticks") is None


def test_a_timer_that_asks_for_it_runs_on_startup() -> None:
    ticking = Ticking(TimerState(None), run_on_startup=True)

    ticking.timer.start_up()

    assert [run.past_due for run in ticking.runs] == [False]


def test_a_failed_run_counts_as_run() -> None:
    state = TimerState(None)
    ticking = Ticking(state, run_on_startup=True)
    ticking.fails = True

    ticking.timer.start_up()

    status = state.get("ticks")
    assert status is not None
    assert status.last == NOON


def test_a_state_that_cannot_be_written_does_not_stop_the_timer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    ticking = Ticking(TimerState(tmp_path / "file" / "timers.json"), run_on_startup=True)

    ticking.timer.start_up()

    assert len(ticking.runs) == 1
    assert "timer.state_not_written" in [record.msg for record in caplog.records]

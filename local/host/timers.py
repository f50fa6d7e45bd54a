"""Fires timer functions by their NCRONTAB schedule, one run at a time. Never catches up more than one missed run.

https://learn.microsoft.com/azure/azure-functions/functions-bindings-timer
"""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from azure.functions.meta import Datum
from croniter import CroniterError, croniter  # type: ignore[import-untyped]

from local.host.configuration import ConfigurationError
from local.host.functions import Function, InvocationFailed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

log = logging.getLogger("local.host")

# The real host keeps no state of timers that fire more often.
MONITORED_FROM = timedelta(minutes=1)
# A wait this long at most, so that a machine that slept meanwhile notices soon that a run is due.
LONGEST_WAIT_S = 60.0


def utc_now() -> datetime:
    return datetime.now(UTC)


class Schedule:
    """An NCRONTAB expression: six fields from seconds to day of week, or five without the seconds; in UTC."""

    def __init__(self, expression: str, where: str) -> None:
        self.expression = expression
        fault = "" if len(expression.split()) in (5, 6) else "it does not have five or six fields"
        if not fault:
            try:
                self.after(utc_now())
            except CroniterError as exc:
                fault = str(exc)
        if fault:
            raise ConfigurationError(
                f"{where}: schedule {expression!r} is not accepted: {fault}. Accepted is NCRONTAB, "
                f"{{second}} {{minute}} {{hour}} {{day}} {{month}} {{day-of-week}}, for example 0 */5 * * * *."
            )

    def after(self, moment: datetime) -> datetime:
        # Unlike in cron, a day of month and a day of week must both match.
        occurrence: datetime = croniter(self.expression, moment, second_at_beginning=True, day_or=False).get_next(
            datetime
        )
        return occurrence

    def fires_at_most_once_a_minute(self) -> bool:
        first = self.after(utc_now())
        second = self.after(first)
        return second - first >= MONITORED_FROM and self.after(second) - second >= MONITORED_FROM


@dataclass(frozen=True)
class Status:
    """What is remembered of a timer over restarts."""

    schedule: str
    last: datetime | None
    next: datetime
    last_updated: datetime


class TimerState:
    """The statuses of all timers in one JSON file; without a file they last as long as the process."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._statuses: dict[str, Status] = {}
        if file and file.exists():
            self._statuses = {name: _status(values) for name, values in json.loads(file.read_text("utf-8")).items()}

    def get(self, name: str) -> Status | None:
        return self._statuses.get(name)

    def put(self, name: str, status: Status) -> None:
        with self._lock:
            self._statuses[name] = status
            if self._file:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                written = self._file.with_suffix(".new")
                statuses = {name: asdict(status) for name, status in self._statuses.items()}
                written.write_text(json.dumps(statuses, default=datetime.isoformat, indent=2), "utf-8")
                written.replace(self._file)


def _status(values: dict[str, str | None]) -> Status:
    moments = {key: text and datetime.fromisoformat(text) for key, text in values.items() if key != "schedule"}
    return Status(schedule=str(values["schedule"]), **moments)  # type: ignore[arg-type]


class Timer:
    """One timer function, its schedule and the thread that waits for it."""

    def __init__(self, function: Function, state: TimerState, now: Callable[[], datetime] = utc_now) -> None:
        self.function = function
        self.schedule = Schedule(str(function.trigger["schedule"]), function.name)
        self._run_on_startup = bool(function.trigger.get("runOnStartup"))
        self._monitored = (
            function.trigger.get("useMonitor") is not False and self.schedule.fires_at_most_once_a_minute()
        )
        self._state = state
        self._now = now
        self._one_at_a_time = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=f"timer-{function.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Fire no more; a run that is under way ends first."""
        self._stopped.set()
        self._thread.join()

    def fire(self, *, past_due: bool = False) -> None:
        """Run the function now, after a run that is under way."""
        with self._one_at_a_time:
            try:
                self.function.invoke(Datum(json.dumps(self._payload(past_due)), "json"))
            except InvocationFailed:
                # The real host does not repeat a failed timer run either; the log has the reason.
                log.info("timer.waits_for_next_occurrence", extra={"function": self.function.name})

    def run_now(self, _run_input: bytes) -> None:
        """Run the function outside its schedule; a timer has no use for an input."""
        self.fire()

    def start_up(self) -> None:
        """Fire at once if an occurrence was missed while no host ran, or if the function asks to run on startup."""
        now = self._now()
        status = self._state.get(self.function.name) if self._monitored else None
        if status and status.schedule == self.schedule.expression and status.next < now:
            self._fire_and_remember(past_due=True)
        elif self._run_on_startup:
            self._fire_and_remember(past_due=False)
        elif not status or status.schedule != self.schedule.expression:
            self._remember(status.last if status else None)

    def _loop(self) -> None:
        self.start_up()
        # The next occurrence is looked up when a run has ended: those missed meanwhile collapse.
        while self._wait_until(self.schedule.after(self._now())):
            self._fire_and_remember(past_due=False)

    def _wait_until(self, due: datetime) -> bool:
        """Return True when it is time, False when the host stops."""
        while (remaining_s := (due - self._now()).total_seconds()) > 0:
            if self._stopped.wait(min(remaining_s, LONGEST_WAIT_S)):
                return False
        return not self._stopped.is_set()

    def _fire_and_remember(self, *, past_due: bool) -> None:
        fired_at = self._now()
        self.fire(past_due=past_due)
        self._remember(fired_at)

    def _remember(self, last: datetime | None) -> None:
        if not self._monitored:
            return
        now = self._now()
        try:
            self._state.put(self.function.name, Status(self.schedule.expression, last, self.schedule.after(now), now))
        except OSError:
            # As in the real host: the schedule goes on, only a missed run may go unnoticed after a restart.
            log.exception("timer.state_not_written", extra={"function": self.function.name})

    def _payload(self, past_due: bool) -> dict[str, object]:
        status = self._state.get(self.function.name) if self._monitored else None
        return {
            "Schedule": {"AdjustForDST": True},
            "ScheduleStatus": status
            and {
                "Last": status.last and status.last.isoformat(),
                "Next": status.next.isoformat(),
                "LastUpdated": status.last_updated.isoformat(),
            },
            "IsPastDue": past_due,
        }

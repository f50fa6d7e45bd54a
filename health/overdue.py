"""Tells by its schedule whether a timer should have run by now."""

from __future__ import annotations

from datetime import datetime, timedelta

from croniter import CroniterError, croniter  # type: ignore[import-untyped]

GRACE = timedelta(minutes=5)


def is_overdue(expression: str, last: datetime, now: datetime) -> bool:
    """Whether two runs are missing since `last`. One may be: a run takes its time, and a deployment stops timers.

    `expression` is NCRONTAB: https://learn.microsoft.com/azure/azure-functions/functions-bindings-timer
    """
    try:
        # Unlike in cron, a day of month and a day of week must both match.
        runs = croniter(expression, last, second_at_beginning=True, day_or=False)
        runs.get_next(datetime)
        second: datetime = runs.get_next(datetime)
    except CroniterError:
        return False  # the host takes other forms too, and refuses what it cannot read
    return now > second + GRACE

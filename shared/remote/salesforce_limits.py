"""Keeps part of the org's daily API requests for people: it looks at each answer and asks for a pause in time.

https://developer.salesforce.com/docs/atlas.en-us.200.0.api_rest.meta/api_rest/headers_api_usage.htm
"""

from __future__ import annotations

import logging
import re

import requests

from shared.remote.http import Pause

log = logging.getLogger(__name__)

LOW_AT_PERCENT = 80
LOOK_AGAIN_S = 900.0
"""The limit counts the last 24 hours: while it is used up, one call every quarter of an hour tells how it stands."""

_USAGE = re.compile(r"api-usage=(\d+)/(\d+)")
"""Finds the org's usage, and that of the app where an admin gave it a quota of its own."""


class DailyBudget:
    """`reserve_percent` of the requests are left to people. One per process; every answer says how things stand."""

    def __init__(self, reserve_percent: int) -> None:
        self._reserve_percent = reserve_percent
        self._is_low = False

    def __call__(self, response: requests.Response) -> Pause | None:
        used, allowed = max(
            (
                (int(used), int(allowed))
                for used, allowed in _USAGE.findall(response.headers.get("Sforce-Limit-Info", ""))
            ),
            key=lambda usage: usage[0] / max(usage[1], 1),
            default=(0, 0),
        )
        if not allowed:
            return None
        self._tell(used, allowed)
        if used * 100 < allowed * (100 - self._reserve_percent):
            return None
        why = f"{used} of {allowed} API requests of the last 24 hours are used, the rest is kept for people"
        return Pause(LOOK_AGAIN_S, f"{why} (SALESFORCE_API_RESERVE is {self._reserve_percent} percent)")

    def _tell(self, used: int, allowed: int) -> None:
        """Log once each time the usage gets high."""
        was_low, self._is_low = self._is_low, used * 100 >= allowed * LOW_AT_PERCENT
        if self._is_low and not was_low:
            log.warning("crm.api_requests_run_low", extra={"used": used, "allowed": allowed})

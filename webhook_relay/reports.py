"""Tells people how a listener is doing, no more often than they need to hear it. Nothing depends on it: what cannot be
stored is logged.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from shared.errors import CosellError
from shared.logs import log
from shared.problems import Problem
from shared.services import Services

ONCE_PER = timedelta(hours=1)
"""How often one process says the same of a listener. Signs, which are cheap, have a rhythm of their own."""

NEXT_STEP = (
    "Mend the listener, or take its address out of WEBHOOK_RELAY_URLS. Each event is kept for it for 24 hours; "
    "nothing else waits for it"
)

NEXT_STEP_REFUSED = "Ask whoever runs the listener what it could not take; then: python -m admin dismiss"


class Reports:
    """About one listener, by one process. `key` names it in signs and failures, `shown` is its address without keys."""

    def __init__(self, services: Services, key: str, shown: str) -> None:
        self._services = services
        self._key = key
        self._shown = shown
        self._told: dict[str, datetime] = {}

    def well(self) -> None:
        """It took a call."""
        self._services.signs.well(self._key, f"{self._shown} took a call")
        self._told.pop("fails", None)
        # Another process may have reported the failure, so this one cannot know whether there is one to clear.
        self._now_and_then("is well", lambda: self._services.failures.clear(self._key))

    def failed(self, why: str) -> None:
        """A call to it went wrong; it will be made again."""
        self._services.signs.failed(self._key, f"{self._shown}: {why}")

    def fails(self, why: str, correlation_id: str) -> None:
        """Calls to it have gone wrong for a while."""
        self._now_and_then("fails", lambda: self._for_a_person(f"{self._shown} takes no calls: {why}", correlation_id))

    def refused(self, why: str, correlation_id: str) -> None:
        """It will never take one event, though it takes others."""
        says = f"{self._shown} refused an event, so that it is lost to it: {why}"
        # By a name of its own: it is not mended when the listener takes the next call.
        key = f"{self._key}_refused"

        def report() -> None:
            self._services.journal.add("relay.refused", says)
            problem = Problem("", says, f"{NEXT_STEP_REFUSED} {key}", "relay")
            self._services.failures.put(key, problem, correlation_id=correlation_id)

        self._now_and_then("refused", report)

    def given_up(self, why: str, correlation_id: str) -> None:
        """An event is lost to it."""
        says = f"{self._shown} did not take an event for 24 hours, so that it is lost to it: {why}"

        def report() -> None:
            self._services.journal.add("relay.given_up", says)
            self._for_a_person(says, correlation_id)
            self._told["fails"] = self._services.clock()  # it says less, and would replace this

        self._now_and_then("given up", report)

    def _for_a_person(self, reason: str, correlation_id: str) -> None:
        log.error("relay.listener_fails", extra={"listener": self._key, "why": reason})
        self._services.failures.put(self._key, Problem("", reason, NEXT_STEP, "relay"), correlation_id=correlation_id)
        self._told.pop("is well", None)

    def _now_and_then(self, what: str, report: Callable[[], object]) -> None:
        """Report unless this process just did. Two threads at once may both report, which does no harm."""
        now, last = self._services.clock(), self._told.get(what)
        if last and now - last < ONCE_PER:
            return
        try:
            report()
        except CosellError as error:
            log.warning("relay.not_reported", extra={"listener": self._key, "what": what, "why": str(error)})
        else:
            self._told[what] = now

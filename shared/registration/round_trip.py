"""Has Partner Center send a test event, follows it, and says in plain words whether it reached us and, if not, why."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Protocol

from shared.errors import CosellError, NotFound, Throttled
from shared.events import TEST_EVENT
from shared.registration.record import Record
from shared.remote.partner_center_webhooks import Attempt, Registration, ValidationEvent

POLL_EVERY_S = 1
FOLLOW_FOR = timedelta(seconds=60)
ENOUGH_FAILURES = 3
"""A cold start may cost the first attempt; after three that failed the rest will."""


@dataclass(frozen=True)
class TestResult:
    """What became of the test event, in words. `passed` is None when it cannot be told."""

    __test__ = False  # not a test, whatever pytest thinks of the name

    passed: bool | None
    explanation: str


class Webhooks(Protocol):
    """shared.remote.partner_center_webhooks has the real one."""

    def send_test_event(self) -> str: ...
    def test_event(self, correlation_id: str) -> ValidationEvent: ...


class RoundTrip:
    """`probe` calls an address and says what is wrong with it, "" when our receiver answers."""

    def __init__(
        self,
        webhooks: Webhooks,
        record: Record,
        probe: Callable[[str], str],
        *,
        clock: Callable[[], datetime],
        sleep: Callable[[float], None],
    ) -> None:
        self._webhooks = webhooks
        self._record = record
        self._probe = probe
        self._clock = clock
        self._sleep = sleep

    def make(self, registration: Registration | None) -> TestResult:
        """Make one. Takes up to a minute, and one of the two test events a minute that Partner Center allows."""
        if registration is None or TEST_EVENT not in {event.lower() for event in registration.events}:
            return TestResult(None, f"No test event was sent: the registration does not include {TEST_EVENT}.")
        began = self._clock()
        try:
            event = self._followed(self._webhooks.send_test_event())
            self._record.tested(event)
        except Throttled as throttled:
            wait = f" in {throttled.retry_after_s:.0f} s" if throttled.retry_after_s else " in a minute"
            return TestResult(
                None, f"Partner Center sends at most two test events a minute. Ask for a test again{wait}."
            )
        except CosellError as failure:
            return TestResult(None, f"The test event could not be followed: {failure}")
        return self._explained(event, registration, began)

    def _followed(self, correlation_id: str) -> ValidationEvent:
        until = self._clock() + FOLLOW_FOR
        event = ValidationEvent("submitted", ())
        while self._clock() < until:
            with suppress(NotFound):  # accepted a moment ago and not yet to be seen
                event = self._webhooks.test_event(correlation_id)
            if event.status in ("completed", "failed") or len(event.attempts) >= ENOUGH_FAILURES:
                break
            self._sleep(POLL_EVERY_S)
        return event

    def _explained(self, event: ValidationEvent, registration: Registration, began: datetime) -> TestResult:
        """What became of it, by its last attempt, by what our receiver noted, and by a call of our own."""
        tried = f"after {len(event.attempts)} attempt{'s' * (len(event.attempts) != 1)}"
        last = event.attempts[-1] if event.attempts else None
        code = http_status(last.response_code) if last else None
        if event.status == "completed" and (last is None or code is None or code < HTTPStatus.MULTIPLE_CHOICES):
            return TestResult(True, f"Partner Center called this app and was answered ({tried}).")
        if last is None:
            return TestResult(None, f"Partner Center has not called within {FOLLOW_FOR.seconds} s. Try again later.")
        what = _no_answer(last) if last.system_error else f"was answered {last.response_code or 'nothing'}"
        return TestResult(False, f"Partner Center {what} ({tried}). {self._why(code, registration, began)}")

    def _why(self, code: int | None, registration: Registration, began: datetime) -> str:
        if refusal := self._record.refusal_since(began):
            return f"The call came through and this app refused it: {refusal}."
        if seen := self._probe(registration.webhook_url):
            return f"Called from here: {seen}."
        return OF_OURS.get(code or 0, "Called from here, the address is fine: look at the app's log at this time.")


OF_OURS = {
    400: "Address and key are right: something between Partner Center and this app changes the body of requests.",
    401: "Address and key are right, and no refusal was noted: look for webhook.refused in the app's log.",
    413: "Address and key are right: something between Partner Center and this app adds to the body of requests.",
    503: "Address and key are right: the message could not be stored; look for webhook.not_stored in the app's log.",
}

# What the sender's platform says when it gets no answer; its wording is not documented.
NO_ANSWER = {
    r"name or service|no such host|name resolution|getaddrinfo|dns": "could not find the address (DNS)",
    r"ssl|tls|certificate": "did not accept the address's certificate (TLS)",
    r"tim(?:ed? ?)?out|cancell?ed": "got no answer in time (timeout)",
    r"refused|unreachable|reset|failed to respond": "could not connect",
}


QUERY = re.compile(r"\?[^\s'\")]+")  # it may quote the address, and with it the key
LONGEST_MESSAGE = 200


def _no_answer(attempt: Attempt) -> str:
    known = (words for pattern, words in NO_ANSWER.items() if re.search(pattern, attempt.message, re.IGNORECASE))
    said = QUERY.sub("?***", attempt.message) or "no reason"
    return f"{next(known, 'could not reach the address')}, it says: {said[:LONGEST_MESSAGE]}"


STATUS_NAMES = {status.phrase.replace(" ", "").lower(): status.value for status in HTTPStatus}


def http_status(code: str) -> int | None:
    """Documented as the status's name, seen as its number."""
    return int(code) if code.isdecimal() else STATUS_NAMES.get(code.replace(" ", "").lower())

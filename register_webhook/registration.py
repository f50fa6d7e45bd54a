"""Keeps Partner Center's one webhook registration the way this app needs it. Never takes it from another receiver
unasked, and never shows a key.

Partner Center sends the events of an account to the address registered last, and to no other:
https://learn.microsoft.com/partner-center/developer/partner-center-webhooks
"""

from __future__ import annotations

import difflib
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from shared.errors import NotFound, RemoteError, SettingsError, Throttled
from shared.remote.partner_center_webhooks import Registration, ValidationEvent
from shared.settings import RegistrationSettings

log = logging.getLogger(__name__)

TEST_EVENT = "test-created"
REFERRAL_EVENTS = ("referral-created", "referral-updated", "related-referral-created", "related-referral-updated")
DEFAULT_EVENTS = (TEST_EVENT, *REFERRAL_EVENTS)

POLL_EVERY_S = 1
FOLLOW_FOR = timedelta(seconds=60)
LOOPBACK = ("localhost", "127.0.0.1", "::1")

Result = Literal["created", "unchanged", "updated", "refused"]
Standing = Literal["none", "ours", "foreign"]


class BadInput(ValueError):
    """What the admin asked for is wrong. `field` names the member of the request."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


class Webhooks(Protocol):
    """shared.remote.partner_center_webhooks has the real one."""

    def offered_events(self) -> tuple[str, ...]: ...
    def registration(self) -> Registration | None: ...
    def create(self, registration: Registration) -> bool: ...
    def replace(self, registration: Registration) -> None: ...
    def send_test_event(self) -> str: ...
    def test_event(self, correlation_id: str) -> ValidationEvent: ...


@dataclass(frozen=True)
class TestResult:
    """What became of the test event, in words."""

    __test__ = False  # not a test, whatever pytest thinks of the name

    passed: bool
    explanation: str


@dataclass(frozen=True)
class Outcome:
    """What was done, in words. `before` is what was registered until now, `actual` what is registered now."""

    result: Result
    explanation: str
    desired: Registration
    before: Registration | None
    actual: Registration | None
    test: TestResult | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "result": self.result,
            "explanation": self.explanation,
            "desired": shown(self.desired),
            "before": shown(self.before),
            "actual": shown(self.actual),
            "test": asdict(self.test) if self.test else None,
        }


class Registrar:
    """Compares what is registered with what should be, and changes it when that is asked for and safe."""

    def __init__(
        self,
        webhooks: Webhooks,
        settings: RegistrationSettings,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._webhooks = webhooks
        self._settings = settings
        self._clock = clock
        self._sleep = sleep

    def show(self) -> dict[str, Any]:
        """Return desired and actual registration, keys masked. Changes nothing."""
        desired = Registration(self._own_url(), self._offered(None))
        actual = self._webhooks.registration()
        return {
            "explanation": _difference(desired, actual) or "Partner Center sends its events here.",
            "desired": shown(desired),
            "actual": shown(actual),
        }

    def register(
        self,
        webhook_url: str | None = None,
        events: Sequence[str] | None = None,
        *,
        overwrite: bool = False,
        test: bool | None = None,
    ) -> Outcome:
        """Make the registration right. `overwrite`: also when it is another receiver's, and drop surplus events.

        `test`: have a test event sent and follow it; None means after a change. Raises BadInput, SettingsError and the
        errors of shared.errors.
        """
        desired = Registration(self._checked_url(webhook_url), self._offered(events))
        outcome = self._settle(desired, overwrite=overwrite)
        changed = outcome.result in ("created", "updated")
        if outcome.result != "refused" and (changed if test is None else test):
            return replace(outcome, test=self._test(outcome.actual))
        return outcome

    def check(self) -> Outcome | None:
        """Compare, log what is wrong, and mend it if WEBHOOK_TAKE_BACK says so. Return what was changed.

        Raises SettingsError and the errors of shared.errors.
        """
        if not self._settings.webhook_url:
            log.warning("registration.not_configured", extra={"setting": "WEBHOOK_URL"})
            return None
        desired = Registration(self._own_url(), self._offered(None))
        actual = self._webhooks.registration()
        difference = _difference(desired, actual)
        if not difference:
            log.info("registration.unchanged")
            return None
        fields = {
            "explanation": difference,
            "desired": masked(desired.webhook_url),
            "actual": masked(actual.webhook_url) if actual else None,
        }
        log.error(WRONG[standing(desired, actual)], extra=fields)
        if not self._settings.take_back:
            return None
        outcome = self.register(overwrite=standing(desired, actual) == "foreign", test=False)
        log.warning("registration.taken_back", extra={"explanation": outcome.explanation})
        return outcome

    def _settle(self, desired: Registration, *, overwrite: bool) -> Outcome:
        before = self._webhooks.registration()
        if before is None and self._webhooks.create(desired):
            return self._changed("created", f"Partner Center now sends {_list(desired.events)} here.", desired, None)
        # Someone may have registered since we looked; the one rule about foreign addresses holds for them too.
        before = before or self._webhooks.registration()
        if before and standing(desired, before) == "foreign" and not overwrite:
            return Outcome("refused", _foreign(before), desired, before, before)
        wanted = desired if overwrite else _with_events_of(desired, before)
        if before and _same(wanted, before):
            return Outcome("unchanged", "This was registered already; nothing was changed.", wanted, before, before)
        self._webhooks.replace(wanted)
        return self._changed("updated", _replaced(wanted, before), wanted, before)

    def _changed(self, result: Result, words: str, desired: Registration, before: Registration | None) -> Outcome:
        return Outcome(result, words, desired, before, self._webhooks.registration())

    def _own_url(self) -> str:
        if not self._settings.webhook_url:
            raise SettingsError(
                [f"WEBHOOK_URL is missing. Accepted: {RegistrationSettings.model_fields['webhook_url'].description}"]
            )
        if problem := _url_problem(self._settings.webhook_url):
            raise SettingsError([f"WEBHOOK_URL {problem}"])
        return self._settings.webhook_url

    def _checked_url(self, given: str | None) -> str:
        if given is None:
            return self._own_url()
        if problem := _url_problem(given):
            raise BadInput("webhook_url", problem)
        return given

    def _offered(self, wanted: Sequence[str] | None) -> tuple[str, ...]:
        """The wanted events in Partner Center's spelling. An account may lack some of the usual ones, which is told by
        comparing desired and actual; an event that was asked for by name and does not exist is refused."""
        offered = {event.lower(): event for event in self._webhooks.offered_events()}
        if wanted is None:
            return tuple(offered[event] for event in DEFAULT_EVENTS if event in offered) or DEFAULT_EVENTS
        if not wanted:
            raise BadInput("events", "at least one event is needed; leave the field out for the usual ones")
        for event in wanted:
            if event.lower() not in offered:
                close = difflib.get_close_matches(event.lower(), offered, n=1)
                hint = f"did you mean {offered[close[0]]}?" if close else f"it offers {_list(sorted(offered.values()))}"
                raise BadInput("events", f"Partner Center does not offer {event!r}; {hint}")
        return tuple(dict.fromkeys(offered[event.lower()] for event in wanted))

    def _test(self, actual: Registration | None) -> TestResult:
        if actual is None or TEST_EVENT not in _lower(actual.events):
            return TestResult(False, f"No test event was sent: the registration does not include {TEST_EVENT}.")
        try:
            return _explained(self._followed(self._webhooks.send_test_event()))
        except Throttled as throttled:
            wait = f" in {throttled.retry_after_s:.0f} s" if throttled.retry_after_s else " in a minute"
            return TestResult(
                False, f'Partner Center sends at most two test events a minute. Repeat with "test": true{wait}.'
            )
        except RemoteError as failure:
            return TestResult(False, f"The test event could not be followed: {failure}")

    def _followed(self, correlation_id: str) -> ValidationEvent:
        until = self._clock() + FOLLOW_FOR
        event = ValidationEvent("submitted", ())
        while self._clock() < until:
            with suppress(NotFound):  # accepted a moment ago and not yet to be seen
                event = self._webhooks.test_event(correlation_id)
            if event.status in ("completed", "failed"):
                break
            self._sleep(POLL_EVERY_S)
        return event


WRONG: dict[Standing, str] = {
    "none": "registration.missing",
    "ours": "registration.differs",
    "foreign": "registration.taken_over",
}


def standing(desired: Registration, actual: Registration | None) -> Standing:
    """Whose the registration is. Another key on our own address is still ours: keys get renewed."""
    if actual is None:
        return "none"
    return "ours" if _place(desired.webhook_url) == _place(actual.webhook_url) else "foreign"


def masked(url: str) -> str:
    """Return the address without its secrets: the values of the query, where keys and signatures are, and any user."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "(not an address)"
    names = [part.partition("=")[0] for part in parts.query.split("&") if "=" in part]
    query = "&".join(f"{name}=***" for name in names) or ("***" if parts.query else "")
    return f"{parts.scheme}://{host}{parts.path}" + (f"?{query}" if query else "")


def shown(registration: Registration | None) -> dict[str, Any] | None:
    if registration is None:
        return None
    return {"webhook_url": masked(registration.webhook_url), "events": list(registration.events)}


def _place(url: str) -> tuple[str, str, str]:
    """Scheme, host and path, which Azure compares without case; not the query, which holds the key."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "", url, ""
    default_port = ":443" if parts.scheme == "https" else ":80"
    return parts.scheme, parts.netloc.lower().removesuffix(default_port), parts.path.rstrip("/").lower()


def _same(wanted: Registration, actual: Registration) -> bool:
    return (
        wanted.webhook_url == actual.webhook_url
        and _lower(wanted.events) == _lower(actual.events)
        and actual.signature_in_own_header is not False
    )


def _with_events_of(desired: Registration, before: Registration | None) -> Registration:
    """`desired`, and the events our own address receives already: someone wanted them."""
    if before is None:
        return desired
    more = tuple(event for event in before.events if event.lower() not in _lower(desired.events))
    return replace(desired, events=desired.events + more)


def _difference(desired: Registration, actual: Registration | None) -> str:
    """Return in words what is wrong with `actual`; empty when nothing is. Surplus events do no harm."""
    if actual is None:
        return "Nothing is registered: Partner Center sends no events. POST to register_webhook."
    if standing(desired, actual) == "foreign":
        return _foreign(actual)
    if desired.webhook_url != actual.webhook_url:
        return "The address is ours, but with another function key. POST to register_webhook to renew it."
    if missing := [event for event in desired.events if event not in _lower(actual.events)]:
        return f"The address is ours, but {_list(missing)} are not sent. POST to register_webhook to add them."
    return ""


def _foreign(actual: Registration) -> str:
    return (
        f"Partner Center sends its events to {masked(actual.webhook_url)}, which is not this app. An account has one "
        'registration only: POST to register_webhook with "overwrite": true to take it over; the other receiver then '
        "gets nothing any more."
    )


def _replaced(wanted: Registration, before: Registration | None) -> str:
    now = f"Partner Center now sends {_list(wanted.events)} here."
    if before is None or standing(wanted, before) == "ours":
        return now
    dropped = [event for event in before.events if event.lower() not in _lower(wanted.events)]
    lost = f" Nobody receives {_list(dropped)} any more." if dropped else ""
    return f"{now} Until now its events went to {masked(before.webhook_url)}.{lost}"


def _url_problem(url: str) -> str:
    """Return what is wrong with a webhook address, or nothing."""
    accepted = "accepted: https://<app>.azurewebsites.net/api/webhook_receiver?code=<key>"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # the port is read for its ValueError
    except ValueError as exc:
        return f"is not an address ({exc}); {accepted}"
    if any(character.isspace() for character in url) or not host or parts.username or parts.fragment:
        return f"is not a plain address; {accepted}"
    # Simulators run on this machine, where no certificate is needed to keep a key from being read on the way.
    if parts.scheme != "https" and not (parts.scheme == "http" and host in LOOPBACK):
        return f"must begin with https://; {accepted}"
    return ""


def _explained(event: ValidationEvent) -> TestResult:
    """What became of a test event, by its last attempt."""
    tried = f"after {len(event.attempts)} attempt{'s' * (len(event.attempts) != 1)}"
    last = event.attempts[-1] if event.attempts else None
    code = _http_status(last.response_code) if last else None
    if event.status == "completed" and (last is None or code is None or code < 300):
        return TestResult(True, f"Partner Center called this app and was answered ({tried}).")
    if last is None:
        return TestResult(False, f"Partner Center has not called within {FOLLOW_FOR.seconds} s. Try again later.")
    if last.system_error:
        return TestResult(False, f"Partner Center could not reach the address ({tried}): {last.message or 'no reason'}")
    advice = ADVICE.get(code or 0, "Look at the app's log at this time.")
    return TestResult(False, f"Partner Center was answered {last.response_code or 'nothing'} ({tried}). {advice}")


ADVICE = {
    400: "Something between Partner Center and this app changes the body of requests.",
    401: "Either the function key in WEBHOOK_URL is wrong, or the signature was refused: then the log has "
    "webhook.refused with the reason.",
    403: "Access restrictions or a firewall in front of the app keep Partner Center out.",
    404: "No function answers at this address: it should end in /api/webhook_receiver.",
    500: "The app failed to start or to handle the call: look for errors in its log.",
    503: "The app could not fetch the signing certificate or store the message: the log has webhook.refused or "
    "webhook.not_stored with the reason.",
}
STATUS_NAMES = {status.phrase.replace(" ", "").lower(): status.value for status in HTTPStatus}


def _http_status(code: str) -> int | None:
    """Documented as the status's name, seen as its number."""
    return int(code) if code.isdecimal() else STATUS_NAMES.get(code.replace(" ", "").lower())


def _lower(events: Sequence[str]) -> set[str]:
    return {event.lower() for event in events}


def _list(events: Sequence[str]) -> str:
    return ", ".join(events)

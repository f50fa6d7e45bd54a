"""Compares what is registered with what should be, and changes it when that is asked for and safe. Never takes the
registration from another receiver unasked, and never shows a key.

Partner Center sends the events of an account to the address registered last, and to no other:
https://learn.microsoft.com/partner-center/developer/partner-center-webhooks
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol

from shared.addresses import masked, place, problem
from shared.errors import CosellError, SettingsError
from shared.events import DEFAULT_EVENTS, REFERRAL_EVENTS
from shared.registration.record import Record
from shared.registration.round_trip import RoundTrip, TestResult
from shared.remote.partner_center_webhooks import Registration
from shared.settings import RegistrationSettings

log = logging.getLogger(__name__)

QUIET = timedelta(hours=20)
"""Without a genuine call for so long, the daily check has a test event sent: a quiet account and a broken way in look
alike from here."""

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
    """`relayed_to` are the addresses that get our calls passed on, None if they cannot be told; nothing registered for
    their sake is dropped. `probe` calls an address and says what is wrong with it, "" when our receiver answers."""

    def __init__(
        self,
        webhooks: Webhooks,
        settings: RegistrationSettings,
        record: Record,
        round_trip: RoundTrip,
        probe: Callable[[str], str],
        *,
        relayed_to: Sequence[str] | None = (),
        clock: Callable[[], datetime],
    ) -> None:
        self._webhooks = webhooks
        self._settings = settings
        self._record = record
        self._round_trip = round_trip
        self._probe = probe
        self._may_relay = relayed_to is None or bool(relayed_to)
        self._relayed_to = relayed_to or ()
        self._clock = clock

    def show(self) -> dict[str, Any]:
        """Return desired and actual registration, keys masked, and what happened lately. Changes nothing."""
        actual = self._webhooks.registration()
        desired = self._desired(actual)
        return {
            "explanation": self._difference(desired, actual) or self._all_is_well(desired),
            "desired": shown(desired),
            "actual": shown(actual),
            "history": [
                {"at": f"{entry.at_utc:%Y-%m-%d %H:%M}", "event": entry.event, "says": entry.says, **entry.facts}
                for entry in self._record.history()
            ],
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

        `webhook_url` None: what was registered last, if it is still there and WEBHOOK_URL has not changed since, else
        WEBHOOK_URL. `test`: have a test event sent and follow it; None means after a change, or when something was
        wrong. Raises BadInput, SettingsError and the errors of shared.errors.
        """
        given = self._checked_url(webhook_url)
        before = self._webhooks.registration()
        desired = Registration(given or self._desired_url(before), self._offered(events))
        keep_events = not overwrite or (self._may_relay and events is None)
        was_wrong = self._record.is_wrong()
        outcome = self._settle(desired, before, overwrite=overwrite, keep_events=keep_events)
        changed = outcome.result in ("created", "updated")
        if outcome.result == "refused" or not (changed or was_wrong if test is None else test):
            return outcome
        return self._tested(outcome)

    def check(self) -> Outcome | None:
        """Compare, report what is wrong, and mend it if WEBHOOK_TAKE_BACK says so. Return what was changed.

        When nothing has come for long, have a test event sent. Raises SettingsError and the errors of shared.errors.
        """
        if not self._settings.webhook_url:
            log.warning("registration.not_configured", extra={"setting": "WEBHOOK_URL"})
            self._record.unknown("WEBHOOK_URL is not set: nobody knows what should be registered")
            return None
        try:
            actual = self._webhooks.registration()
            desired = self._desired(actual)
        except CosellError as failure:
            self._record.unknown(str(failure))
            raise
        if difference := self._difference(desired, actual):
            return self._report(difference, desired, actual)
        last = self._record.last_event_utc()
        if last is None or self._clock() - last > QUIET:
            test = self._round_trip.make(actual)
            if test.passed is False:
                self._unreachable(test.explanation, desired)
                return None
            if test.passed is None and self._record.is_wrong():
                log.warning("registration.not_tested", extra={"explanation": test.explanation})
                return None  # what was wrong yesterday is not right because it could not be tried today
        log.info("registration.unchanged")
        self._record.right(self._all_is_well(desired))
        return None

    def _report(self, difference: str, desired: Registration, actual: Registration | None) -> Outcome | None:
        event = WRONG[self._standing(desired, actual)]
        addresses = {"desired": masked(desired.webhook_url), "actual": masked(actual.webhook_url) if actual else ""}
        log.error(event, extra={"explanation": difference, **addresses})
        self._record.wrong(event, difference, NEXT_STEP, **addresses)
        own_url = self._own_url()
        is_ours = event == "registration.differs"
        if not self._settings.take_back or (is_ours and actual and actual.webhook_url != own_url):
            return None  # of two keys or addresses of our own, a person knows which is the right one
        # The setting may be older than what was registered last. Taking the slot for an address that does not answer
        # would silence both receivers.
        if unfit := self._probe(own_url):
            log.error("registration.not_taken_back", extra={"explanation": unfit})
            self._record.wrong(event, f"{difference} It was not taken back, since {unfit}", NEXT_STEP, **addresses)
            return None
        wanted = replace(desired, webhook_url=own_url)
        outcome = self._settle(wanted, actual, overwrite=True, keep_events=self._may_relay)
        log.warning("registration.taken_back", extra={"explanation": outcome.explanation})
        return self._tested(outcome)

    def _tested(self, outcome: Outcome) -> Outcome:
        test = self._round_trip.make(outcome.actual)
        if test.passed:
            self._record.right(outcome.explanation)
        elif test.passed is False:
            self._unreachable(test.explanation, outcome.desired)
        return replace(outcome, test=test)

    def _unreachable(self, explanation: str, desired: Registration) -> None:
        log.error("registration.unreachable", extra={"explanation": explanation})
        self._record.wrong("registration.unreachable", explanation, NEXT_STEP, desired=masked(desired.webhook_url))

    def _settle(
        self, desired: Registration, before: Registration | None, *, overwrite: bool, keep_events: bool
    ) -> Outcome:
        if before is None:
            self._record.registering(desired)
            if self._webhooks.create(desired):
                return self._changed("created", self._now_sends(desired), desired, None)
            # Someone has registered since we looked; the one rule about foreign addresses holds for them too.
            before = self._webhooks.registration()
        if not overwrite and (before is None or self._standing(desired, before) == "foreign"):
            return Outcome("refused", self._foreign(before) if before else UNREADABLE, desired, before, before)
        wanted = _with_events_of(desired, before) if keep_events else desired
        if before and _same(wanted, before):
            return Outcome("unchanged", "This was registered already; nothing was changed.", wanted, before, before)
        self._record.registering(wanted)
        self._webhooks.replace(wanted)
        return self._changed("updated", self._replaced(wanted, before), wanted, before)

    def _changed(self, result: Result, words: str, desired: Registration, before: Registration | None) -> Outcome:
        if self._settings.webhook_url and desired.webhook_url != self._settings.webhook_url:
            words += (
                " The setting WEBHOOK_URL names another address or key: once this one works, set it to this one, so "
                "that the registration can be taken back should it get lost."
            )
        try:
            self._record.registered(f"registration.{result}", words, desired, before, self._settings.webhook_url)
        except CosellError as failure:
            log.warning("registration.not_recorded", extra={"why": str(failure)})
            words += f" This could not be recorded: {failure}"
        return Outcome(result, words, desired, before, self._webhooks.registration())

    def _desired(self, actual: Registration | None) -> Registration:
        """What should be registered: what we registered last, if that is still there, else what the settings say."""
        events = self._offered(self._record.events() or None, strict=False)
        return Registration(self._desired_url(actual), events)

    def _desired_url(self, actual: Registration | None) -> str:
        """An admin may have registered a new address or key by name, and not yet changed WEBHOOK_URL."""
        if actual and self._record.is_newer_than(self._settings.webhook_url, actual.webhook_url):
            return actual.webhook_url
        return self._own_url()

    def _own_url(self) -> str:
        if not self._settings.webhook_url:
            raise SettingsError(
                [f"WEBHOOK_URL is missing. Accepted: {RegistrationSettings.model_fields['webhook_url'].description}"]
            )
        if wrong := problem(self._settings.webhook_url):
            raise SettingsError([f"WEBHOOK_URL {wrong}"])
        return self._settings.webhook_url

    def _checked_url(self, given: str | None) -> str:
        if given is None:
            return ""
        if wrong := problem(given):
            raise BadInput("webhook_url", wrong)
        return given

    def _offered(self, wanted: Sequence[str] | None, *, strict: bool = True) -> tuple[str, ...]:
        """The wanted events in Partner Center's spelling; None: the usual ones, of which an account may lack some. An
        event that was asked for by name and does not exist is refused if `strict`, else left out."""
        offered = {event.lower(): event for event in self._webhooks.offered_events()}
        if wanted and not offered:
            return tuple(wanted)  # nothing can be said of them
        if wanted is None:
            return tuple(offered[event] for event in DEFAULT_EVENTS if event in offered) or DEFAULT_EVENTS
        if not wanted:
            raise BadInput("events", "at least one event is needed; leave the field out for the usual ones")
        unknown = [event for event in wanted if event.lower() not in offered]
        if unknown and strict:
            raise BadInput("events", _not_offered(unknown[0], offered))
        return tuple(dict.fromkeys(offered[event.lower()] for event in wanted if event not in unknown))

    def _standing(self, desired: Registration, actual: Registration | None) -> Standing:
        """Whose the registration is. Another key on our address is still ours, and so is an address we had before."""
        if actual is None:
            return "none"
        is_here = place(desired.webhook_url) == place(actual.webhook_url)
        return "ours" if is_here or self._record.was_ours(actual.webhook_url) else "foreign"

    def _difference(self, desired: Registration, actual: Registration | None) -> str:
        """Return in words what is wrong with `actual`; empty when nothing is. Surplus events do no harm."""
        if actual is None:
            return "Nothing is registered: Partner Center sends no events. Register the webhook."
        if self._standing(desired, actual) == "foreign":
            return self._foreign(actual)
        if place(desired.webhook_url) != place(actual.webhook_url):
            return f"Partner Center sends its events to {masked(actual.webhook_url)}, a former address of this app."
        if desired.webhook_url != actual.webhook_url:
            return "The address is ours, but with another function key. Register it again to renew the key."
        if missing := [event for event in desired.events if event.lower() not in _lower(actual.events)]:
            return f"The address is ours, but {_list(missing)} are not sent. Register it again to add them."
        if not _lower(actual.events) & set(REFERRAL_EVENTS):
            return f"The address is ours, but none of {_list(REFERRAL_EVENTS)} is sent. {NOT_OFFERED}"
        return ""

    def _all_is_well(self, desired: Registration) -> str:
        if self._settings.webhook_url in (None, desired.webhook_url):
            return "Partner Center sends its events here."
        return (
            f"Partner Center sends its events to {masked(desired.webhook_url)}, as was registered last; the setting "
            "WEBHOOK_URL names another address or key: set it to this one."
        )

    def _foreign(self, actual: Registration) -> str:
        keep = "" if self._is_relayed_to(actual) else f" {KEEP_IT}"
        return (
            f"Partner Center sends its events to {masked(actual.webhook_url)}, which is not this app. An account has "
            'one registration only: register with "overwrite" to take it over; the other receiver then gets nothing '
            f"any more, unless WEBHOOK_RELAY_URLS names it.{keep}"
        )

    def _is_relayed_to(self, registration: Registration) -> bool:
        return registration.webhook_url in self._relayed_to

    def _now_sends(self, registration: Registration) -> str:
        now = f"Partner Center now sends {_list(registration.events)} to {masked(registration.webhook_url)}."
        return now if _lower(registration.events) & set(REFERRAL_EVENTS) else f"{now} {NOT_OFFERED}"

    def _replaced(self, wanted: Registration, before: Registration | None) -> str:
        now = self._now_sends(wanted)
        if before is None or wanted.webhook_url == before.webhook_url:
            return now
        if place(wanted.webhook_url) == place(before.webhook_url):
            return f"{now} The address is the same, its key is another."
        moved = f"{now} Until now its events went to {masked(before.webhook_url)}"
        if self._is_relayed_to(before):
            return f"{moved}, which goes on getting them: WEBHOOK_RELAY_URLS names it."
        dropped = [event for event in before.events if event.lower() not in _lower(wanted.events)]
        return f"{moved}." + (f" Nobody receives {_list(dropped)} any more." if dropped else "")


WRONG: dict[Standing, str] = {
    "none": "registration.missing",
    "ours": "registration.differs",
    "foreign": "registration.taken_over",
}
NEXT_STEP = "python -m admin register, or POST to register_webhook: it takes nothing over unless told to"
UNREADABLE = (
    "Partner Center says that something is registered, but does not show it. Try again in a minute, or register with "
    '"overwrite" to replace it, whatever it is.'
)
NOT_OFFERED = (
    "Without these events nothing is known before the sweep looks. If Partner Center does not offer them to this "
    "account, ask Microsoft's support to enable referral webhooks (accounts with several tenants need that)."
)
KEEP_IT = "To keep it informed, put its whole address there first: python -m admin registration --keys shows it."


def shown(registration: Registration | None) -> dict[str, Any] | None:
    if registration is None:
        return None
    return {"webhook_url": masked(registration.webhook_url), "events": list(registration.events)}


def _same(wanted: Registration, actual: Registration) -> bool:
    return (
        wanted.webhook_url == actual.webhook_url
        and _lower(wanted.events) == _lower(actual.events)
        and actual.signature_in_own_header is not False
    )


def _with_events_of(desired: Registration, before: Registration | None) -> Registration:
    """`desired`, and the events that are received already: someone wanted them."""
    if before is None:
        return desired
    more = tuple(event for event in before.events if event.lower() not in _lower(desired.events))
    return replace(desired, events=desired.events + more)


def _not_offered(event: str, offered: dict[str, str]) -> str:
    close = difflib.get_close_matches(event.lower(), offered, n=1)
    hint = f"did you mean {offered[close[0]]}?" if close else f"it offers {_list(sorted(offered.values()))}"
    return f"Partner Center does not offer {event!r}; {hint}"


def _lower(events: Sequence[str]) -> set[str]:
    return {event.lower() for event in events}


def _list(events: Sequence[str]) -> str:
    return ", ".join(events)

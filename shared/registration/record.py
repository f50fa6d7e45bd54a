"""What the app remembers of the registration: what it registered, what it found, what came of it. Judges nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any

from shared.addresses import masked, place
from shared.problems import Problem
from shared.remote.partner_center_webhooks import Registration, ValidationEvent
from shared.store.failures import Failures
from shared.store.journal import Entry, Journal
from shared.store.signs import BUSY, Signs

FAILURE = "registration"
REMEMBERED_PLACES = 8


class Record:
    """All methods raise the errors of shared.errors. No key is kept: of an address only its place, and a digest."""

    def __init__(self, signs: Signs, journal: Journal, failures: Failures) -> None:
        self._signs = signs
        self._journal = journal
        self._failures = failures

    def registering(self, registration: Registration) -> None:
        """We are about to register this: should we die before `registered`, it is known as ours all the same."""
        digest = _digest(registration.webhook_url)
        facts = {**self._last(), "places": self._places_with(registration), "pending": digest}
        self._signs.remember("registered", "under way", **facts)

    def registered(
        self, event: str, says: str, registration: Registration, before: Registration | None, setting: str | None
    ) -> None:
        """We registered this, in place of `before`, while WEBHOOK_URL was `setting`."""
        self._signs.remember(
            "registered",
            says,
            places=self._places_with(registration),
            digest=_digest(registration.webhook_url),
            events=list(registration.events),
            setting=_digest(setting or ""),
        )
        addresses = {"before": masked(before.webhook_url)} if before else {}
        self._journal.add(event, says, now=masked(registration.webhook_url), **addresses)
        self.right(says)

    def right(self, says: str) -> None:
        """The registration was looked at, and is as it should be."""
        self._failures.clear(FAILURE)
        self._signs.well("registration", says)

    def wrong(self, event: str, says: str, next_step: str, **addresses: str) -> None:
        """The registration was looked at, and a person has to act. The journal says it once, not every day."""
        known = self._signs.of("registration")
        if not (known.fails and known.failed and known.failed.says == says):
            self._journal.add(event, says, **addresses)
        self._failures.put(FAILURE, Problem("", says, next_step, "registration"))
        self._signs.failed("registration", says)

    def unknown(self, why: str) -> None:
        """The registration could not be looked at."""
        self._signs.failed("registration", why)

    def was_ours(self, url: str) -> bool:
        """Whether we once registered this address ourselves, with whatever key."""
        return _place(url) in self._places()

    def is_wrong(self) -> bool:
        """Whether a person was told that the registration is wrong, and it was not right since."""
        return self._signs.of("registration").fails

    def is_newer_than(self, setting: str | None, url: str) -> bool:
        """Whether `url`, key included, is what we registered last, and WEBHOOK_URL is still what it was then."""
        last = self._last()
        is_last = _digest(url) in (last.get("digest"), last.get("pending"))
        return is_last and last.get("setting", _digest(setting or "")) == _digest(setting or "")

    def events(self) -> Sequence[str]:
        """Return the events that we registered for last, none if we never did."""
        events: list[str] = self._last().get("events", [])
        return events

    def last_event_utc(self) -> datetime | None:
        """Return when the last genuine call came, give or take a minute."""
        last = self._signs.of("webhook").well
        return last.at_utc if last else None

    def refusal_since(self, moment: datetime) -> str:
        """Return why the receiver refused a call since then, "" if it refused none.

        The same reason is noted once a minute, and the receiver's clock is not ours.
        """
        last = self._signs.of("webhook").failed
        return last.says if last and last.at_utc >= moment - BUSY else ""

    def tested(self, event: ValidationEvent) -> None:
        """A test event was followed as far as this. For whoever wants to know how the live service behaves."""
        attempts = [{"code": attempt.response_code, "at": attempt.at} for attempt in event.attempts]
        self._signs.remember("test_event", event.status, attempts=attempts)

    def history(self) -> tuple[Entry, ...]:
        return self._journal.latest()

    def _places_with(self, registration: Registration) -> list[str]:
        here = _place(registration.webhook_url)
        return [here, *(each for each in self._places() if each != here)][:REMEMBERED_PLACES]

    def _places(self) -> list[str]:
        return list(self._last().get("places", []))

    def _last(self) -> Mapping[str, Any]:
        """What we registered last, nothing if we never did."""
        last = self._signs.of("registered").well
        return last.facts if last else {}


def _place(url: str) -> str:
    return "{}://{}{}".format(*place(url))


def _digest(url: str) -> str:
    return sha256(url.encode()).hexdigest()

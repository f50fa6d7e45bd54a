"""What a person has to mend, and the few reasons there are for it. Performs no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from shared.errors import Duplicate, Forbidden, GivenUp, NotFound, Overdue, Permanent, Refused

Reason = Literal[
    "missing",
    "no-counterpart",
    "conflict",
    "put-back",
    "refused",
    "permission",
    "duplicate",
    "not-found",
    "waiting",
    "unexpected",
    "brake",
    "registration",
    "relay",
    "event",
    "queue",
    "earlier",
]


@dataclass(frozen=True)
class Kind:
    """What people call a reason, and what to do about it in general."""

    title: str
    advice: str


REASONS: Mapping[Reason, Kind] = {
    "missing": Kind(
        "Partner Center needs something that the CRM has not filled",
        "Fill it in and save the opportunity. Filled in on an account or a contact: replay",
    ),
    "no-counterpart": Kind(
        "The other side knows no such value",
        "Choose a value that is accepted, or add this one to the field map and replay",
    ),
    "conflict": Kind(
        "Both sides were changed, and neither may win",
        "Make both sides say the same; either change has the deal looked at again",
    ),
    "put-back": Kind(
        "Something else puts another value in the place of what is written",
        "Find the workflow, rule or other tool that sets it, let it accept the other side's value, then replay",
    ),
    "refused": Kind(
        "The other side refused it",
        "Correct it on either side: any change to the deal tries again, and so does a replay",
    ),
    "permission": Kind("A right is missing", "Give the signed-in identity the right, then replay"),
    "duplicate": Kind(
        "Two referrals name one record",
        "Close the one too many in Partner Center, or correct the CRM ID in it; then replay",
    ),
    "not-found": Kind(
        "It is not there, or may not be seen",
        "Let the signed-in identity see it, or restore it, then replay. If it was deleted on purpose, python -m admin "
        "dismiss takes it off the list",
    ),
    "waiting": Kind(
        "It waits for another system", "Mend what is named; it is tried again by itself, at once with a replay"
    ),
    "unexpected": Kind(
        "Something unexpected went wrong", "Search the log for the correlation id, report it, and replay"
    ),
    "brake": Kind(
        "A side suddenly lists much less than before",
        "Check that the app still sees them: the user's role in Partner Center, the app's rights in the CRM. If they "
        "are really gone: python -m admin sweep --accept-missing",
    ),
    "registration": Kind(
        "The webhook is not registered as it should be",
        "python -m admin registration shows what is registered, python -m admin register mends it",
    ),
    "relay": Kind("A listener does not take what is passed on to it", "Mend the listener, or no longer name it"),
    "event": Kind("A genuine event could not be understood", "Report it, then dismiss it; the sweep finds the deal"),
    "queue": Kind("Something else writes to our queues", "Find out what it is, then dismiss it; no deal is affected"),
    "earlier": Kind("Recorded by an earlier release", "Replay it: it goes, or is listed under its reason"),
}
"""In the order of the list."""

OF_ERRORS: Mapping[type[Permanent], Reason] = {
    Refused: "refused",
    Duplicate: "duplicate",
    Forbidden: "permission",
    NotFound: "not-found",
    Overdue: "waiting",
    GivenUp: "unexpected",
    Permanent: "refused",
}


def reason_of(refusal: Permanent) -> Reason:
    return next(OF_ERRORS[kind] for kind in type(refusal).__mro__ if kind in OF_ERRORS)


def is_reason(slug: str) -> bool:
    return slug in get_args(Reason)


@dataclass(frozen=True)
class Problem:
    """Something a person has to mend. `label` names the field, or else the system; "": the message says it all.

    `accepted` is what would be right instead, "" where that cannot be listed.
    """

    label: str
    message: str
    next_step: str
    reason: Reason
    accepted: str = ""

    @property
    def said(self) -> str:
        """What is wrong, without what to do about it."""
        named = self.message.startswith(self.label)
        return self.message if named else f"{self.label}: {self.message}"

    def __str__(self) -> str:
        accepted = f"Accepted: {self.accepted}" if self.accepted else ""
        return ". ".join(part.rstrip(".") for part in (self.said, accepted, self.next_step) if part)

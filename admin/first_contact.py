"""What can only be learned from the live Partner Center: for each open point what was seen, and what to do about it.

With CAPTURE_EVENTS=true the receiver keeps genuine calls for a day. This reads them, and what the app noted; it calls
Partner Center and the certificate's host only to look.
"""

from __future__ import annotations

import json
import re
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from shared.errors import CosellError, NotFound, SettingsError
from shared.events import DEFAULT_EVENTS, REFERRAL_EVENTS
from shared.model import ticks
from shared.services import Services
from shared.store.captures import Capture
from shared.store.signs import Outcome, Sign

ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
SHOWN_CHARACTERS = 60
NOTHING = "nothing yet"
EDIT_A_DEAL = "edit a referral in Partner Center, and one in the CRM, then ask again"


@dataclass(frozen=True)
class Finding:
    """`seen`: a line each; `advice`: what to do, "" when there is nothing to do."""

    seen: Sequence[str]
    advice: str = ""


@dataclass
class Evidence:
    """What there is to look at; each is read once, when a point needs it."""

    services: Services
    captures: Sequence[Capture] = field(default_factory=tuple)

    @cached_property
    def signs(self) -> dict[str, Sign]:
        return self.services.signs.all()

    @cached_property
    def registration(self) -> Any:
        """As Partner Center writes it; the error when it could not be had."""
        try:
            return self.services.webhooks.registration_as_sent()
        except CosellError as failed:
            return failed

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """The bodies of the captured calls that are JSON objects, keys in lower case."""
        found = []
        for capture in self.captures:
            with suppress(ValueError):
                body = json.loads(capture.body)
                if isinstance(body, dict):
                    found.append({key.lower(): value for key, value in body.items()})
        return found

    def outcome(self, part: str) -> Outcome | None:
        return self.signs.get(part, Sign()).well


def print_report(_: Namespace, services: Services) -> int:
    """`python -m admin first-contact`. Returns the exit code."""
    evidence = Evidence(services, services.captures.list())
    hint = "" if evidence.captures else " Is CAPTURE_EVENTS=true set in the app?"
    print(f"{len(evidence.captures)} calls are kept.{hint}")
    for number, (title, look) in enumerate(POINTS.items(), 1):
        finding = look(evidence)
        print(f"\n{number}. {title}", *(f"   {line}" for line in finding.seen), sep="\n")
        print(f"   -> {finding.advice or 'nothing to change'}")
    return 0


# ------------------------------------------------------------ the points


def _certificate(evidence: Evidence) -> Finding:
    from webhook_receiver.inspection import inspect

    addresses = {_header(capture, "x-ms-certificate-url") for capture in evidence.captures} - {""}
    refused = evidence.signs.get("webhook", Sign()).failed
    if not addresses:
        why = [f"the last refusal: {refused.says}"] if refused else []
        return Finding(
            [NOTHING, *why],
            "set CAPTURE_EVENTS=true and have a test event sent (python -m admin register --test). Refused? Its reason "
            "names the setting: WEBHOOK_CERTIFICATE_HOSTS, WEBHOOK_CERTIFICATE_NAMES or WEBHOOK_TRUSTED_ROOTS_FILE",
        )
    seen: list[str] = []
    problems: list[str] = []
    for url in sorted(addresses):
        found = inspect(url, evidence.services)
        seen += [url, *(f"  {fact}" for fact in found.facts)]
        problems += [found.problem] if found.problem else []
    return Finding(seen, "; ".join(problems))


def _unreadable(evidence: Evidence) -> Finding:
    from webhook_receiver.callback import read

    seen = [
        f"{capture.at_utc:%Y-%m-%d %H:%M} UTC, {problem}: {_shortened(capture.body, 400)}"
        for capture in evidence.captures
        if (problem := read(capture.body.encode()).problem)
    ]
    return Finding(seen or ["none"], "report them; each is kept for 30 days" if seen else "")


def _resource_uris(evidence: Evidence) -> Finding:
    seen, missing = [], []
    for name in REFERRAL_EVENTS:
        forms = {ID.sub("<id>", str(event.get("resourceuri"))) for event in evidence.events if _is(event, name)}
        seen += [f"{name}: {form}" for form in sorted(forms)]
        missing += [] if forms else [name]
    unread = [form for form in seen if not re.search(r"/referrals/<id>/?$", form, re.IGNORECASE)]
    if unread:
        return Finding(seen, f"report these forms, which the app does not read: {', '.join(unread)}")
    return Finding(seen or [NOTHING], f"not seen: {', '.join(missing)}; {EDIT_A_DEAL}" if missing else "")


def _whose_id(evidence: Evidence) -> Finding:
    seen = []
    for event in evidence.events:
        found = ID.search(str(event.get("resourceuri")))
        if found and str(event.get("eventname")).lower().startswith("related-"):
            seen.append(f"{event['eventname']} {found[0]}: {_owner(found[0].lower(), evidence.services)}")
    return Finding(
        seen or [NOTHING], "" if seen else "have Microsoft's side of a deal change (accept one), then ask again"
    )


def _owner(referral_id: str, services: Services) -> str:
    deal = services.deals.find(referral_id=referral_id)
    link = services.deals.load(deal) if deal else None
    if link is None:
        return "a referral the app has no deal for"
    return "Microsoft's copy" if referral_id == link.microsoft_referral_id.lower() else "our own referral"


def _requests(evidence: Evidence) -> Finding:
    seen = []
    for capture in evidence.captures[:1]:
        seen = [f"{name}: {_shortened(value)}" for name, value in sorted(capture.headers.items())]
        seen.append(f"body: {_shortened(capture.body, 400)}")
    test = evidence.outcome("test_event")
    for attempt in test.facts.get("attempts", []) if test else []:
        seen.append(f"test event, attempt at {attempt['at'] or '?'}: {attempt['code'] or 'no answer'}")
    several = test is not None and len(test.facts.get("attempts", [])) > 1
    return Finding(
        seen or [NOTHING],
        "" if several else "back-off and timeout show only when a test event needs more than one attempt",
    )


def _echo(evidence: Evidence) -> Finding:
    reported = set()
    for event in evidence.events:
        found = ID.search(str(event.get("resourceuri")))
        if found and _is(event, *REFERRAL_EVENTS):
            reported.add((found[0].lower(), str(event.get("resourcechangeutcdate"))))
    for referral_id, changed in sorted(reported):
        if _wrote(referral_id, changed, evidence.services):
            return Finding([f"yes: the event of {changed} about {referral_id} reports a write of ours"])
    return Finding([f"none of {len(reported)} referral events reports a write of ours"], f"to be sure, {EDIT_A_DEAL}")


def _wrote(referral_id: str, changed: str, services: Services) -> bool:
    """Whether the referral stands as a write of ours left it, and `changed` is the time it has since then."""
    deal = services.deals.find(referral_id=referral_id)
    story = services.deals.story(deal) if deal else None
    if story is None or story.link is None:
        return False
    done = [entry for entry in story.entries if entry.side == "partner_center" and entry.phase == "done"]
    as_we_left_it = story.link.referral_etag in {entry.version_after for entry in done}
    return as_we_left_it and _same_time(story.link.referral_updated, changed)


def _same_time(one: str, other: str) -> bool:
    try:
        return ticks(one) == ticks(other)
    except ValueError:
        return False


def _answers(evidence: Evidence) -> Finding:
    registration = evidence.registration
    test = evidence.outcome("test_event")
    codes = sorted({attempt["code"] for attempt in test.facts.get("attempts", [])}) if test else []
    seen = [f"responseCode of test events: {', '.join(codes)}"] if codes else []
    if isinstance(registration, dict):
        seen.insert(0, f"the registration's members: {', '.join(registration)}")
    elif isinstance(registration, NotFound):
        seen.insert(0, "no registration is said with 404")
    elif not isinstance(registration, CosellError):
        seen.insert(0, f"no registration is said with {registration!r}")
    return Finding(seen or [NOTHING], "" if seen else "settings of Partner Center are needed here, to ask it")


def _who_registers(evidence: Evidence) -> Finding:
    if isinstance(evidence.registration, SettingsError):
        return Finding([f"not asked: {evidence.registration.problems[0]}"], "run it with the PARTNER_CENTER_ settings")
    if isinstance(evidence.registration, CosellError) and not isinstance(evidence.registration, NotFound):
        step = getattr(evidence.registration, "next_step", "")
        return Finding([f"refused: {evidence.registration}"], step or "look at the sign-in of the consenting user")
    return Finding(["the consenting user's sign-in (App+User) may read the registration; app-only is not used"])


def _scope(evidence: Evidence) -> Finding:
    sweep = evidence.signs.get("sweep", Sign())
    if sweep.well:
        return Finding([f"the Referrals API took our token at {sweep.well.at_utc:%Y-%m-%d %H:%M} UTC"])
    seen = [f"failed: {sweep.failed.says}"] if sweep.failed else [NOTHING]
    return Finding(seen, "if the token is refused for its audience, set PARTNER_CENTER_SCOPE")


def _shared_slot(evidence: Evidence) -> Finding:
    registered = evidence.registration if isinstance(evidence.registration, dict) else {}
    wanted = next((value for name, value in registered.items() if name.lower() == "webhookevents"), None) or []
    others = {str(name) for name in wanted} | {str(event.get("eventname")) for event in evidence.events}
    others = {name for name in others if name.lower() not in DEFAULT_EVENTS}
    if others:
        return Finding(
            [f"events of other tools come here too: {', '.join(sorted(others))}"],
            "name the tools that want them in WEBHOOK_RELAY_URLS",
        )
    if isinstance(evidence.registration, CosellError):
        return Finding(["no event of another tool; what is registered was not seen"])
    return Finding(["only the events of this app"])


POINTS: dict[str, Callable[[Evidence], Finding]] = {
    "The signing certificate": _certificate,
    "Genuine calls that nobody can read": _unreadable,
    "Where events say that the referral is": _resource_uris,
    "Whose referral a related-... event names": _whose_id,
    "What a call looks like, and when it is repeated": _requests,
    "Whether our own write comes back as an event": _echo,
    "How the registration API answers": _answers,
    "Who may register": _who_registers,
    "Whether the token's scope is right for the Referrals API": _scope,
    "Whether the one slot carries the events of other tools": _shared_slot,
}


def _is(event: dict[str, Any], *names: str) -> bool:
    return str(event.get("eventname")).lower() in names


def _header(capture: Capture, name: str) -> str:
    return next((value for key, value in capture.headers.items() if key.lower() == name), "")


def _shortened(text: str, characters: int = SHOWN_CHARACTERS) -> str:
    return text if len(text) <= characters else text[: characters - 1] + "…"

"""Gathers what an operator asks first, each with a verdict: ok, attention (a person should look) or down (nothing
works until somebody does)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from health.overdue import is_overdue
from shared.addresses import masked
from shared.errors import CosellError, SettingsError
from shared.relay import listener_id, sign_of
from shared.services import Services
from shared.settings import RelaySettings, schedule
from shared.start_up import problems
from shared.store.signs import BUSY, Sign

MANY = 1_000
"""Messages in the queue from which on the worker seems not to keep up."""

# https://learn.microsoft.com/entra/identity-platform/refresh-tokens#token-lifetime
REFRESH_TOKEN_LASTS = timedelta(days=90)
REFRESH_TOKEN_WARNING = timedelta(days=30)
SILENCE = timedelta(days=2)
"""The daily check has a test event sent when none came by itself, so a longer silence means that none gets through."""


class Check(NamedTuple):
    """`last_utc`: when the part last did its work, where that can be told."""

    verdict: str
    says: Any
    last_utc: datetime | None = None

    def as_json(self) -> dict[str, Any]:
        last = {"last_utc": f"{self.last_utc:%Y-%m-%dT%H:%M:%SZ}"} if self.last_utc else {}
        return {"verdict": self.verdict, "says": self.says, **last}


def report(services: Services) -> dict[str, Any]:
    """Return the checks by name and the worst of their verdicts."""
    checks = {
        "settings": _settings(services),
        **_signs(services),
        **_relay_queue(services),
        "pauses": _asked(lambda: _pauses(services)),
        "queue": _asked(lambda: _queue(services.queue.length())),
        "poison": _asked(lambda: _poison(services.queue.poison_length())),
        "failures": _asked(lambda: _failures(services)),
    }
    verdicts = [check.verdict for check in checks.values()]
    worst = next((verdict for verdict in ("down", "attention") if verdict in verdicts), "ok")
    return {"verdict": worst, **{name: check.as_json() for name, check in checks.items()}}


def _asked(ask: Callable[[], Check]) -> Check:
    try:
        return ask()
    except CosellError as failed:
        return Check("down", str(failed))


def _settings(services: Services) -> Check:
    found = problems(services.environ)
    # Without its listeners the app does all its own work.
    only_relays = all(problem.startswith("WEBHOOK_RELAY_URLS") for problem in found)
    return Check("attention" if only_relays else "down", found) if found else Check("ok", "complete")


def _pauses(services: Services) -> Check:
    """A pause is nobody's to end: the work waits for it, and a poll or sweep that fails for it says so itself."""
    pauses = services.pauses.all().items()
    words = "; ".join(f"{remote} is not called until {_time(each.until_utc)}: {each.why}" for remote, each in pauses)
    return Check("ok", words or "none")


def _queue(length: int) -> Check:
    return Check("attention" if length > MANY else "ok", f"{length} messages wait")


def _poison(length: int) -> Check:
    return Check("attention" if length else "ok", f"{length} messages were given up and not recorded")


def _failures(services: Services) -> Check:
    rows = services.failures.list(limit=100)
    words = "; ".join(f"{row.deal}: {row.reason} ({row.next_step})" for row in rows)
    return Check("attention" if rows else "ok", words or "none")


# ------------------------------------------------------------ what the parts note themselves


def _signs(services: Services) -> Mapping[str, Check]:
    try:
        signs = services.signs.all()
    except CosellError as failed:
        return {"signs": Check("down", str(failed))}
    now = services.clock()

    def of(part: str) -> Sign:
        return signs.get(part, Sign())

    def timer(part: str, setting: str) -> Check:
        return _timer(of(part), schedule(setting, services.environ), now)

    return {
        "partner_center_sign_in": _sign_in(of("partner_center_sign_in")),
        "refresh_token": _refresh_token(of("refresh_token"), now),
        "crm_sign_in": _sign_in(of("crm_sign_in")),
        "webhook": _webhook(of("webhook"), now),
        "registration": timer("registration", "REGISTRATION_CHECK_SCHEDULE"),
        "poll": timer("poll", "CRM_POLL_SCHEDULE"),
        "sweep": timer("sweep", "SWEEP_SCHEDULE"),
        "full_sweep": timer("full_sweep", "FULL_SWEEP_SCHEDULE"),
        **{f"relay to {masked(url)}": _relay(of(sign_of(listener_id(url)))) for url in _listeners(services)},
    }


def _last(sign: Sign) -> datetime | None:
    return sign.well.at_utc if sign.well else None


def _failing(sign: Sign, verdict: str = "attention") -> Check | None:
    """None when the part did its work since it last failed."""
    if sign.failed and sign.fails:
        return Check(verdict, f"failed at {_time(sign.failed.at_utc)}: {sign.failed.says}", _last(sign))
    return None


def _timer(sign: Sign, expression: str, now: datetime) -> Check:
    if failing := _failing(sign):
        return failing
    if not sign.well:
        return Check("attention", "has not run yet")
    last = sign.well.at_utc
    if is_overdue(expression, last, now):
        return Check("attention", f"has not run in time; its schedule is {expression}", last)
    return Check("ok", sign.well.says or "runs", last)


def _sign_in(sign: Sign) -> Check:
    if failing := _failing(sign, "down"):
        return failing
    last = _last(sign)
    return Check("ok", "works", last) if last else Check("attention", "has not been tried yet")


def _refresh_token(sign: Sign, now: datetime) -> Check:
    last = _last(sign)
    expires = last + REFRESH_TOKEN_LASTS if last else None
    until = f"; the stored one ends on {expires:%Y-%m-%d}" if expires else ""
    if sign.failed and sign.fails:
        return Check("attention", f"the newest could not be stored: {sign.failed.says}{until}", last)
    if not expires:
        return Check("attention", "none has been stored yet")
    if expires - now < REFRESH_TOKEN_WARNING:
        return Check("attention", f"was not renewed for long{until}", last)
    return Check("ok", f"renewed with every sign-in{until}", last)


def _webhook(sign: Sign, now: datetime) -> Check:
    if not sign.well:
        never = "no genuine call has come yet: register the webhook, or have a test event sent"
        return Check("attention", f"{never}. Refused: {sign.failed.says}" if sign.failed else never)
    last = sign.well.at_utc
    # Receiver and worker are two processes: a success within a minute of the one before may not have been stored.
    if sign.failed and sign.failed.at_utc - last > BUSY:
        return Check(
            "attention",
            f"a call was refused at {_time(sign.failed.at_utc)}: {sign.failed.says}. Somebody forges calls, or a new "
            "certificate is not trusted: have a test event sent",
            last,
        )
    if now - last > SILENCE:
        return Check("attention", "no genuine call for long: have a test event sent", last)
    return Check("ok", f"the last genuine call said {sign.well.says}", last)


def _relay(sign: Sign) -> Check:
    last = _last(sign)
    return _failing(sign) or Check("ok", "works" if last else "nothing was passed on yet", last)


def _relay_queue(services: Services) -> dict[str, Check]:
    """Only where calls are passed on."""
    if not _listeners(services):
        return {}
    return {
        "relay_queue": _asked(lambda: _queue(services.relays.length())),
        "relay_poison": _asked(lambda: _poison(services.relays.poison_length())),
    }


def _listeners(services: Services) -> list[str]:
    try:
        return services.settings(RelaySettings).urls
    except SettingsError:
        return []  # said under `settings`


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"

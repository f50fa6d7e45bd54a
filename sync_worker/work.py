"""What happens to one message: worked off, put back for later, which counts as no failure, or given up and recorded."""

from __future__ import annotations

from datetime import datetime

from pydantic import ValidationError

from shared.errors import GivenUp, Overdue, Retryable, SettingsError, Throttled
from shared.logs import log
from shared.messages import SyncRequest
from shared.problems import REASONS, Problem
from shared.services import Services
from shared.sync import fail_deal, sync_one
from shared.work import nothing_waits

FIRST_DELAY_S = 30
LONGEST_DELAY_S = 3_600
SETTINGS_DELAY_S = 300
JITTER, LONGEST_JITTER_S = 0.1, 60.0
"""The part of a pause by which its work may come back later, so that not all of it comes back at once."""
SHOWN_AFTER_DEFERRALS = 8
"""After so many, and again after as many more, a person is told that a deal waits: with delays that nobody named,
that is an hour or more."""


def work_off(body: bytes, services: Services, *, redelivered: bool, sent_utc: datetime | None = None) -> None:
    """Bring the deal into agreement. Raises only what is unexpected: the host then redelivers, and counts."""
    request = SyncRequest.model_validate_json(body)
    if request.cause == "webhook" and not request.deferrals and not redelivered:
        services.signs.well("webhook", request.event or "", at_utc=sent_utc)
    fields = {"correlation_id": request.correlation_id, "cause": request.cause}
    try:
        outcome = sync_one(request, services, redelivered=redelivered)
    except Retryable as later:
        delay_s = later.retry_after_s if later.retry_after_s is not None else _backoff_s(request.deferrals)
        if (request.deferrals + 1) % SHOWN_AFTER_DEFERRALS == 0 and not isinstance(later, Throttled):
            fail_deal(request, services, Overdue(str(later), remote=later.remote, request_id=later.request_id))
        if isinstance(later, Throttled):
            delay_s += services.random() * min(delay_s * JITTER, LONGEST_JITTER_S)
        _put_back(request, services, delay_s, str(later), fields)
    except SettingsError as wrong:
        _put_back(request, services, SETTINGS_DELAY_S, str(wrong), fields)
    else:
        if outcome.result == "ignored" and request.cause == "operator":
            nothing_waits(request, services)
        log.info("sync." + outcome.result, extra={**fields, "deal": outcome.deal, "why": outcome.why})


def give_up(body: bytes, services: Services) -> None:
    """Record a message that failed too often as a failure that a person can see and replay."""
    try:
        request = SyncRequest.model_validate_json(body)
    except ValidationError:
        log.exception("sync.unreadable_message")
        says = f"a message on queue sync-requests is no sync request: {body[:200]!r}"
        services.failures.put("unreadable", Problem("", says, REASONS["queue"].advice, "queue"))
        return
    unexpected = GivenUp(
        "something unexpected went wrong each time this deal was looked at",
        next_step=f"Search the log for {request.correlation_id} and report it; a replay, or any change, tries again",
    )
    outcome = fail_deal(request, services, unexpected)
    log.error("sync.given_up", extra={"deal": outcome.deal, "correlation_id": request.correlation_id})


def _put_back(request: SyncRequest, services: Services, delay_s: float, why: str, fields: dict[str, str]) -> None:
    services.queue.send(request.deferred(), delay_s=delay_s)
    log.warning("sync.deferred", extra={**fields, "delay_s": round(delay_s), "why": why})


def _backoff_s(deferrals: int) -> float:
    return float(min(FIRST_DELAY_S * 2 ** min(deferrals, 10), LONGEST_DELAY_S))

"""Receives what Partner Center sends: verifies it, puts it on the queue, answers. Never looks at the deal itself.

2xx means that the message is stored; 4xx that sending it again cannot help; 503 that it can.
"""

from __future__ import annotations

import hashlib
import logging
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING
from uuid import uuid4

import azure.functions as func

from shared import services
from shared.errors import CosellError
from shared.events import CORRELATION_HEADER
from shared.settings import WebhookSettings
from webhook_receiver.callback import RejectedCallback

if TYPE_CHECKING:
    from webhook_receiver.reception import Reception

log = logging.getLogger(__name__)
bp = func.Blueprint()  # type: ignore[no-untyped-call]

RETRY_AFTER_S = 30
NOTED = (401, 503)  # what may mean that genuine calls are turned away
_first_call = Lock()  # a burst at the start shares one reception, and with it one download


@bp.route(route="webhook_receiver", methods=["POST"], auth_level=func.AuthLevel.FUNCTION)
def webhook_receiver(req: func.HttpRequest) -> func.HttpResponse:
    correlation_id = str(uuid4())
    parts = services.process_services()
    try:
        reception(parts).receive(req.headers, req.get_body(), correlation_id)
    except RejectedCallback as refusal:
        _log_refusal(refusal, req.get_body(), correlation_id)
        if refusal.status in NOTED:
            parts.note("webhook", refusal.reason)
        return _answer(refusal.status, correlation_id, refusal.retry_after_s)
    except CosellError as failure:  # storage does not answer, or a setting is wrong: the event must come again
        _log_failure(failure, correlation_id)
        return _answer(503, correlation_id, RETRY_AFTER_S)
    return _answer(200, correlation_id)


def reception(parts: services.Services) -> Reception:
    """Return the one reception of these services, which keeps the certificates. Raises SettingsError."""
    with _first_call:
        return _built(parts)


@lru_cache(maxsize=1)
def _built(parts: services.Services) -> Reception:
    from webhook_receiver.certificates import webhook_verifier
    from webhook_receiver.reception import Reception

    verify = webhook_verifier(parts.settings(WebhookSettings), session=parts.session, now=parts.clock)
    return Reception(parts, verify)


def _log_refusal(refusal: RejectedCallback, body: bytes, correlation_id: str) -> None:
    fields = {
        "status": refusal.status,
        "reason": refusal.reason,
        "body_sha256": hashlib.sha256(body).hexdigest(),
        "correlation_id": correlation_id,
    }
    log.warning("webhook.refused", extra=fields)


def _log_failure(failure: CosellError, correlation_id: str) -> None:
    log.error("webhook.not_stored", extra={"reason": str(failure), "correlation_id": correlation_id})


def _answer(status: int, correlation_id: str, retry_after_s: int | None = None) -> func.HttpResponse:
    """The body is empty whatever the reason: a caller who forges learns nothing from it."""
    headers = {CORRELATION_HEADER: correlation_id}
    if retry_after_s is not None:
        headers["Retry-After"] = str(retry_after_s)
    return func.HttpResponse(status_code=status, headers=headers)

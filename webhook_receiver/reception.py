"""What becomes of one genuine call: stored wherever it is wanted, and only then over.

A call is worth one unit of work however often it comes: what this process has stored once, it does not store again.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping
from datetime import timedelta
from hashlib import sha256
from threading import Lock

from shared.errors import CosellError, SettingsError
from shared.messages import SyncRequest
from shared.problems import Problem
from shared.relay import MARK, RelayRequest
from shared.services import Services
from shared.settings import RelaySettings, WebhookSettings
from webhook_receiver.callback import Notification, Verifier

log = logging.getLogger(__name__)

REMEMBERED = 4_096
KEEP_UNREADABLE = timedelta(days=30)

RELAY_LIMIT_BYTES = 32 * 1024
"""What fits into a message, twice in Base64. A real event has 200 to 400 bytes.

https://learn.microsoft.com/azure/storage/queues/scalability-targets
"""


class Reception:
    """The receiving side of one process. Safe to share between threads."""

    def __init__(self, services: Services, verify: Verifier) -> None:
        self._services = services
        self._verify = verify
        self._settings = services.settings(WebhookSettings)
        self._has_listeners = _has_listeners(services)
        self._stored = Recent(REMEMBERED)

    def receive(self, headers: Mapping[str, str], body: bytes, correlation_id: str) -> None:
        """Verify a call and store what it asks for. Raises RejectedCallback, or CosellError if it cannot be stored."""
        notification = self._verify(headers, body)
        digest = sha256(body).hexdigest()
        was_relayed = MARK in {name.lower() for name in headers}
        call = f"{digest} {was_relayed}"  # a copy that was passed on to us does not stand for the call itself
        if call in self._stored:
            # It was stored after the change that it reports, so whoever worked it off has seen that change.
            log.info("webhook.repeated", extra={"event": notification.event, "correlation_id": correlation_id})
            return
        self._act_on(notification, headers, body, digest, correlation_id)
        if self._has_listeners and not was_relayed:
            self._pass_on(body, headers, correlation_id)
        if self._settings.capture_events:
            self._capture(notification, headers, body, digest)
        if notification.version or not notification.concerns_a_referral:
            self._stored.add(call)  # without the time of its change, the next one may have the same bytes

    def _pass_on(self, body: bytes, headers: Mapping[str, str], correlation_id: str) -> None:
        if len(body) > RELAY_LIMIT_BYTES:
            log.error("relay.too_large", extra={"bytes": len(body), "correlation_id": correlation_id})
            return
        self._services.relays.send(RelayRequest.of(body, headers, self._services.clock(), correlation_id))

    def _capture(self, notification: Notification, headers: Mapping[str, str], body: bytes, digest: str) -> None:
        try:
            self._services.captures.put(notification.event, headers, body, digest=digest)
        except CosellError as error:  # kept for the curious only: no reason to have the event sent again
            log.warning("webhook.not_captured", extra={"why": str(error)})

    def _act_on(
        self, notification: Notification, headers: Mapping[str, str], body: bytes, digest: str, correlation_id: str
    ) -> None:
        fields = {
            "event": notification.event,
            "referral": notification.referral_id,
            "version": notification.version,
            "correlation_id": correlation_id,
        }
        if notification.problem:
            self._keep_for_a_person(notification, headers, body, digest, correlation_id)
            log.error("webhook.not_understood", extra={**fields, "problem": notification.problem})
        elif notification.referral_id and notification.concerns_a_referral:
            self._services.queue.send(_request(notification, correlation_id))
            log.info("webhook.accepted", extra=fields)
        else:
            # What is queued, the worker notes: a cold start has no time to load the table client.
            self._services.signs.well("webhook", notification.event)
            log.info("webhook.ignored", extra=fields)

    def _keep_for_a_person(
        self, notification: Notification, headers: Mapping[str, str], body: bytes, digest: str, correlation_id: str
    ) -> None:
        self._services.captures.put(notification.event, headers, body, digest=digest, keep=KEEP_UNREADABLE)
        self._services.failures.put(
            f"event_{digest[:16]}",
            Problem(
                "",
                f"a genuine event could not be understood: {notification.problem}",
                "report what python -m admin first-contact shows, then dismiss it; the sweep finds the deal",
                "event",
            ),
            correlation_id=correlation_id,
        )


def _request(notification: Notification, correlation_id: str) -> SyncRequest:
    return SyncRequest(
        cause="webhook",
        referral_id=notification.referral_id,
        version=notification.version,
        event=notification.event,
        correlation_id=correlation_id,
    )


def _has_listeners(services: Services) -> bool:
    """Whether calls are to be passed on. A mistake in naming the listeners keeps no event from us, and none from them:
    what is put on their queue waits for the mistake to be mended."""
    try:
        return bool(services.settings(RelaySettings).urls)
    except SettingsError as wrong:
        log.warning("relay.misconfigured", extra={"problem": str(wrong)})
        return services.is_set("WEBHOOK_RELAY_URLS")


class Recent:
    """The last `size` keys that were added."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._keys: OrderedDict[str, None] = OrderedDict()
        self._lock = Lock()

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def add(self, key: str) -> None:
        with self._lock:
            self._keys[key] = None
            if len(self._keys) > self._size:
                self._keys.popitem(last=False)

"""What becomes of a call that is to be passed on: taken by the listener, put back for later, or given up and reported.

A listener gets every call at least once, in no particular order, for as long as it is configured and answers within a
day. One message is for one listener, so that a repeat for one never repeats the others.
"""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache
from threading import Lock

from shared.addresses import masked
from shared.errors import SettingsError
from shared.logs import log
from shared.problems import REASONS, Problem
from shared.relay import RelayRequest, listener_id, sign_of
from shared.remote.direct import direct_session
from shared.services import Services
from shared.settings import RelaySettings
from webhook_relay.call import Trouble, call
from webhook_relay.gate import Gate
from webhook_relay.reports import Reports

KEPT = timedelta(hours=24)
"""Whoever did not listen for so long has to read what it missed from Partner Center anyway."""

FIRST_DELAY_S = 30
LONGEST_DELAY_S = 3_600
SETTINGS_DELAY_S = 300
A_WHILE = timedelta(minutes=1)
SHOWN_AFTER_ATTEMPTS = 3
"""From then on, or after `A_WHILE`, a person is told that a listener fails. A process may not live that long."""

_first_message = Lock()  # the messages of a batch share one gate per listener


class Listener:
    """One of WEBHOOK_RELAY_URLS, as this process knows it."""

    def __init__(self, url: str, services: Services) -> None:
        self.url = url
        self.id = listener_id(url)
        self.gate = Gate(services.clock)
        self.reports = Reports(services, sign_of(self.id), masked(url))


class Relay:
    """The passing on of one process. Safe to share between threads. Raises SettingsError when it is made."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._session = services.session or direct_session()
        self._listeners = {listener_id(url): Listener(url, services) for url in services.settings(RelaySettings).urls}

    def handle(self, request: RelayRequest) -> None:
        """Pass one call on, or see to it that it will be."""
        if request.listener is None:
            self._hand_out(request)
        elif listener := self._listeners.get(request.listener):
            self._deliver(request, listener)
        else:
            self._drop(request, request.listener)

    def _hand_out(self, request: RelayRequest) -> None:
        """A call that is for all listeners becomes one message for each; one needs no message in between."""
        for_each = [request.model_copy(update={"listener": id_}) for id_ in self._listeners]
        match for_each:
            case []:
                log.warning(
                    "relay.dropped", extra={**_fields(request), "why": "WEBHOOK_RELAY_URLS names nobody any more"}
                )
            case [only]:
                self.handle(only)
            case _:
                for each in for_each:
                    self._services.relays.send(each)

    def _deliver(self, request: RelayRequest, listener: Listener) -> None:
        gate = listener.gate
        if rest_s := gate.enter():
            # The longer it has waited, the less often it asks: a listener may be dead for a day.
            waited_s = (self._services.clock() - request.received_utc).total_seconds()
            delay_s = max(rest_s, min(waited_s / 4, LONGEST_DELAY_S))
            self._put_back(request, listener, delay_s, gate.problem or "it is busy")
            return
        trouble: Trouble | None = Trouble("something unexpected went wrong here")
        try:
            trouble = call(self._session, listener.url, request)
        finally:
            # A listener that refuses one call is well, and takes the next.
            gate.leave(trouble.why if trouble and not trouble.is_final else "")
        if trouble and trouble.is_final:
            listener.reports.refused(trouble.why, request.correlation_id)
            log.warning("relay.refused", extra={**_fields(request), "why": trouble.why})
        elif trouble:
            self._note_failure(request, listener, trouble.why)
            later = request.model_copy(update={"attempts": request.attempts + 1})
            self._put_back(later, listener, _delay_s(request.attempts), trouble.why)
        else:
            listener.reports.well()
            log.info("relay.delivered", extra=_fields(request))

    def _note_failure(self, request: RelayRequest, listener: Listener, problem: str) -> None:
        listener.reports.failed(problem)
        since = listener.gate.failing_since
        has_lasted = since is not None and self._services.clock() - since >= A_WHILE
        if has_lasted or request.attempts + 1 >= SHOWN_AFTER_ATTEMPTS:
            listener.reports.fails(problem, request.correlation_id)

    def _put_back(self, request: RelayRequest, listener: Listener, delay_s: float, why: str) -> None:
        """Come back to it after `delay_s`, at the latest when its day is over; after that, give it up."""
        left_s = (request.received_utc + KEPT - self._services.clock()).total_seconds()
        if left_s <= 0:
            listener.reports.given_up(why, request.correlation_id)
            log.warning("relay.given_up", extra={**_fields(request), "why": why})
            return
        self._services.relays.send(request, delay_s=min(delay_s, left_s))
        log.info("relay.put_back", extra={**_fields(request), "delay_s": round(delay_s), "why": why})

    def _drop(self, request: RelayRequest, listener: str) -> None:
        self._services.failures.clear(sign_of(listener))  # nobody waits for it any more
        log.warning("relay.dropped", extra={**_fields(request), "why": "WEBHOOK_RELAY_URLS does not name it any more"})


def pass_on(body: bytes, services: Services) -> None:
    """Pass the call in a message on. Raises only what is unexpected: the host then redelivers, and counts."""
    request = _readable(body)
    if request is None:
        _record_unreadable(body, services)
        return
    try:
        relay = relay_of(services)
    except SettingsError as wrong:
        # The health page names what is wrong. Until it is mended, events wait as for a listener that does not answer.
        if services.clock() - request.received_utc < KEPT:
            services.relays.send(request, delay_s=SETTINGS_DELAY_S)
        log.warning("relay.misconfigured", extra={**_fields(request), "problem": str(wrong)})
        return
    relay.handle(request)


def record_poison(body: bytes, services: Services) -> None:
    """Record a message that failed too often for a reason nobody thought of."""
    request = _readable(body)
    if request is None:
        _record_unreadable(body, services)
        return
    services.failures.put(
        sign_of(request.listener or "all"),
        Problem(
            "",
            "something unexpected went wrong each time an event was passed on",
            f"Search the log for {request.correlation_id}, then dismiss it; the event itself is lost to that listener",
            "relay",
        ),
        correlation_id=request.correlation_id,
    )
    log.error("relay.poisoned", extra=_fields(request))


def relay_of(services: Services) -> Relay:
    """Return the one relay of these services, which knows how its listeners are doing. Raises SettingsError."""
    with _first_message:
        return _built(services)


@lru_cache(maxsize=1)
def _built(services: Services) -> Relay:
    return Relay(services)


def _readable(body: bytes) -> RelayRequest | None:
    try:
        request = RelayRequest.model_validate_json(body)
        _ = request.raw_body  # it may be no Base64
    except ValueError:
        return None
    return request


def _record_unreadable(body: bytes, services: Services) -> None:
    log.error("relay.unreadable_message", extra={"bytes": len(body)})
    says = f"a message of {len(body)} bytes on queue webhook-relays is no call to pass on"
    services.failures.put(sign_of("unreadable"), Problem("", says, REASONS["queue"].advice, "queue"))


def _delay_s(attempts: int) -> float:
    return float(min(FIRST_DELAY_S * 2 ** min(attempts, 10), LONGEST_DELAY_S))


def _fields(request: RelayRequest) -> dict[str, object]:
    return {
        "listener": request.listener or "all",
        "attempts": request.attempts,
        "correlation_id": request.correlation_id,
    }

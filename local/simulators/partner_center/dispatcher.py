"""The sending side of the simulated webhooks: a queue of events, ten attempts each, then the offline list.

Knows when to send and what came back; how a call is signed is in signing.py.
https://learn.microsoft.com/partner-center/developer/partner-center-webhooks
"""

from __future__ import annotations

import threading
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import requests

from local.simulators.base import Clock
from local.simulators.partner_center.signing import RECIPES, Payload

ATTEMPTS = 10
SENDERS = 8
LONGEST_WAIT_S = 0.25  # how late the sender thread may notice that somebody moved the clock


@dataclass(frozen=True)
class Attempt:
    """One call. `status` is None when no answer came; `deviation` names the recipe when it was not the usual one."""

    at: datetime
    url: str
    status: int | None
    error: str | None
    deviation: str | None
    body: bytes
    answer: bytes
    answer_headers: dict[str, str] = field(default_factory=dict)  # by lower-case name

    @property
    def succeeded(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


@dataclass
class Delivery:
    """One event on its way. state: waiting, sending, delivered, offline (given up for good)."""

    payload: Payload
    queued_at: datetime
    due_at: datetime
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    state: str = "waiting"
    attempts: list[Attempt] = field(default_factory=list)
    signed: tuple[bytes, dict[str, str]] | None = None


Compose = Callable[[Payload, str | None], tuple[bytes, dict[str, str]]]
"""compose(payload, deviation) -> body and headers"""


class Dispatcher:
    """Delivers to the URL that is registered at the time of each attempt.

    In process, call `deliver_pending`; when served, `start` a thread. Back-off counts on the simulator's clock.
    """

    def __init__(self, clock: Clock, url: Callable[[], str | None], compose: Compose) -> None:
        self.clock, self._url, self._compose = clock, url, compose
        self.time_factor = 1.0  # back-off is 1, 2, 4 ... seconds times this
        self.timeout_s = 30.0
        self.sign_once = False  # sign at the first attempt only, so that a rotation meets old signatures
        self.deviations: deque[str] = deque()  # recipes for the next attempts, one each
        self.session = requests.Session()
        self.session.trust_env = False  # no proxy on the way to a receiver on this machine
        self.waiting: list[Delivery] = []
        self.finished: deque[Delivery] = deque(maxlen=10_000)  # delivered or offline
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def offline(self) -> list[Delivery]:
        return [delivery for delivery in self.finished if delivery.state == "offline"]

    def queue(self, payload: Payload, delay_s: float = 0) -> Delivery:
        now = self.clock.now()
        delivery = Delivery(payload, queued_at=now, due_at=now + timedelta(seconds=delay_s))
        with self._lock:
            self.waiting.append(delivery)
        self._wake.set()
        return delivery

    def deviate(self, recipe: str, times: int = 1) -> None:
        """The next attempts are made by this recipe of signing.RECIPES."""
        if recipe not in RECIPES:
            raise ValueError(f"recipe {recipe!r} is unknown; accepted: {', '.join(RECIPES)}")
        self.deviations.extend([recipe] * times)

    def deliver_pending(self) -> list[Attempt]:
        """Make one attempt for each delivery that is due now."""
        return [self._attempt(delivery) for delivery in self._take_due()]

    def send(self, payload: Payload, deviation: str | None) -> Attempt:
        """One call at once, outside the queue and never repeated."""
        return self._post(self._compose(payload, deviation), deviation)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="webhook-dispatcher", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._wake.set()
        if self._thread:
            self._thread.join(timeout=10)

    def _run(self) -> None:
        with ThreadPoolExecutor(SENDERS, thread_name_prefix="webhook-sender") as pool:
            while not self._stopped.is_set():
                self._wake.clear()
                for delivery in self._take_due():
                    # result() in the callback makes an unexpected error loud
                    pool.submit(self._attempt, delivery).add_done_callback(lambda done: done.result())
                self._wake.wait(LONGEST_WAIT_S)

    def _take_due(self) -> list[Delivery]:
        now = self.clock.now()
        with self._lock:
            due = [delivery for delivery in self.waiting if delivery.state == "waiting" and delivery.due_at <= now]
            for delivery in due:
                delivery.state = "sending"
        return due

    def _attempt(self, delivery: Delivery) -> Attempt:
        deviation = self.deviations.popleft() if self.deviations else None
        call = delivery.signed or self._compose(delivery.payload, deviation)
        if self.sign_once:
            delivery.signed = call
        attempt = self._post(call, deviation)
        with self._lock:
            delivery.attempts.append(attempt)
            back_off_s = 2 ** (len(delivery.attempts) - 1) * self.time_factor
            delivery.due_at = self.clock.now() + timedelta(seconds=back_off_s)
            if attempt.succeeded:
                delivery.state = "delivered"
            else:
                delivery.state = "offline" if len(delivery.attempts) >= ATTEMPTS else "waiting"
            if delivery.state != "waiting":
                self.waiting.remove(delivery)
                self.finished.append(delivery)
        return attempt

    def _post(self, call: tuple[bytes, dict[str, str]], deviation: str | None) -> Attempt:
        body, headers = call
        at, url = self.clock.now(), self._url()
        if url is None:
            return Attempt(at, "", None, "nothing is registered", deviation, body, b"")
        try:
            answer = self.session.post(url, body, headers=headers, timeout=self.timeout_s, allow_redirects=False)
        except requests.RequestException as exc:
            return Attempt(at, url, None, str(exc), deviation, body, b"")
        answer_headers = {name.lower(): value for name, value in answer.headers.items()}
        return Attempt(at, url, answer.status_code, None, deviation, body, answer.content, answer_headers)

    def state(self) -> Any:
        with self._lock:
            return {"waiting": list(self.waiting), "finished": list(self.finished)}

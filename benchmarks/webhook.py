"""How much a webhook call does besides the one durable write: verified, genuine calls through the real trigger."""

from __future__ import annotations

import os
from collections.abc import Iterator
from statistics import median, quantiles
from time import perf_counter
from typing import Any
from uuid import UUID

import requests
from azure.functions.meta import Datum

from local.azurite import Azurite
from local.host.functions import index
from local.simulators.systems import Simulators
from shared import services
from shared.messages import SyncRequest
from shared.services import Services
from shared.store.queue import Queue

CALLS = 500
WARM_UP = 20
PROMISED_MS = 5.0
RECEIVER = "https://receiver.example/api/webhook_receiver"


class _Timed:
    """The real queue, timed."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self.took_s: list[float] = []

    def send(self, request: SyncRequest, delay_s: float = 0) -> None:
        began = perf_counter()
        self._queue.send(request, delay_s)
        self.took_s.append(perf_counter() - began)


def measure() -> Iterator[str]:
    from function_app import app

    functions = {function.name: function for function in index(app.get_functions(), os.environ, ".", _no_output)}
    simulators = Simulators()
    session = requests.Session()
    simulators.mount(session)
    with Azurite() as azurite:
        settings = {**simulators.settings(), "AzureWebJobsStorage": azurite.connection_string}
        parts = Services(settings, session=session)
        parts.queue = queue = _Timed(parts.queue)  # type: ignore[assignment]
        services.process_services = lambda: parts  # type: ignore[assignment]
        total_s = []
        for call in _genuine_calls(simulators):
            began = perf_counter()
            answer = functions["webhook_receiver"].invoke(call)
            total_s.append(perf_counter() - began)
            assert answer is not None
            assert answer.value["status_code"].value == "200"
    own_ms = [1000 * (total - sent) for total, sent in zip(total_s, queue.took_s, strict=True)][WARM_UP:]
    sent_ms = [1000 * sent for sent in queue.took_s][WARM_UP:]
    p99 = quantiles(own_ms, n=100)[98]
    own, sent = median(own_ms), median(sent_ms)
    yield f"own work per call: median {own:.2f} ms, p99 {p99:.2f} ms (promised: under {PROMISED_MS:.0f} ms)"
    yield f"durable write:     median {sent:.2f} ms; own work is {own / sent:.0%} of it"


class _Wire(requests.adapters.BaseAdapter):
    """Where the simulated sender delivers to: keeps the calls as the host would hand them to the function."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Datum] = []

    def send(self, request: requests.PreparedRequest, **_: Any) -> requests.Response:  # type: ignore[override]
        call = {
            "method": Datum(request.method, "string"),
            "url": Datum(request.url, "string"),
            "headers": {name.lower(): Datum(value, "string") for name, value in request.headers.items()},
            "query": {},
            "params": {},
            "body": Datum(request.body, "bytes"),
        }
        self.calls.append(Datum(call, "http"))
        answer = requests.Response()
        answer.status_code, answer.request, answer.url = 200, request, str(request.url)
        return answer

    def close(self) -> None:
        """Nothing is open."""


def _genuine_calls(simulators: Simulators) -> list[Datum]:
    wire = _Wire()
    webhooks = simulators.webhooks
    webhooks.dispatcher.session.mount(RECEIVER, wire)
    webhooks.another_tool_registers(RECEIVER, ["referral-updated"])
    for number in range(CALLS + WARM_UP):
        webhooks.publish("referral-updated", str(UUID(int=number)), "2026-02-17T00:05:39.5485487Z")
    webhooks.dispatcher.deliver_pending()
    return wire.calls


def _no_output(*_: object) -> None:
    raise AssertionError("this app has no output bindings")

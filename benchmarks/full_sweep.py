"""A full sweep of deals with nothing to do: its memory at two sizes, and how much it asks of each side.

The first pass counts the calls and takes the time; the second one, which gets the same answers from a recording,
measures the memory of the sweep and its clients alone: what stands in for the cloud needs more the more it holds, and
is left out. What is promised is a ratio, which holds on any machine.
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import wraps
from io import BytesIO
from typing import Any
from unittest.mock import patch

import requests

from crm_poller.poll import poll
from local.simulators.base import InProcessAdapter
from reconciler import full_sweep
from shared.messages import SyncRequest
from shared.sync import sync_one
from tests.flows.many import multiply
from tests.flows.world import World
from tests.memory_storage import MemoryQueue, MemoryTable, MemoryTables

CRMS = ("dynamics365", "salesforce")
FEW, MANY = 2_000, 20_000
PROMISED = 1.3
SMALLEST_PAGE = 100  # Partner Center's
ASKS = ("get", "query", "across", "insert", "replace", "upsert", "delete")


@dataclass(frozen=True)
class _Swept:
    peak_mib: float
    seconds: float
    calls: dict[str, int]
    looks: int

    def __str__(self) -> str:
        calls = ", ".join(f"{number} {what}" for what, number in sorted(self.calls.items()))
        return f"peak {self.peak_mib:.1f} MiB, {calls}, {self.looks} messages, {self.seconds:.0f} s with the simulators"


def measure() -> Iterator[str]:
    for crm in CRMS:
        few, many = _sweep(crm, FEW), _sweep(crm, MANY)
        yield f"{crm}, {FEW:>6,} idle pairs: {few}"
        yield f"{crm}, {MANY:>6,} idle pairs: {many}"
        ratio = many.peak_mib / few.peak_mib
        in_pages = sum(many.calls.values()) < 2 * MANY / SMALLEST_PAGE
        kept = ratio <= PROMISED and in_pages and not few.looks and not many.looks
        verdict = "holds" if kept else "DOES NOT HOLD"
        yield f"{crm}: {ratio:.2f} times the memory for {MANY // FEW} times the deals (promised: {PROMISED}): {verdict}"


def _sweep(crm: str, pairs: int) -> _Swept:
    world = _world(crm, pairs)
    recorder, meter = _Recorder(), _Meter(world)
    with patch.object(InProcessAdapter, "send", recorder.send):
        began = time.perf_counter()
        sweep = full_sweep.begin(world.services, budget_s=None)
        seconds, calls = time.perf_counter() - began, world.calls()
    with ExitStack() as around:
        around.enter_context(patch.object(InProcessAdapter, "send", meter.elsewhere(recorder.send)))
        for name in ASKS:
            around.enter_context(patch.object(MemoryTable, name, meter.elsewhere(getattr(MemoryTable, name))))
        gc.collect()
        tracemalloc.start()
        try:
            full_sweep.begin(world.services, budget_s=None)
            meter.note()
        finally:
            tracemalloc.stop()
    assert sweep
    assert sweep.report.lists[full_sweep.PARTNER_CENTER].pairs == pairs
    world.simulators.directory.cleanup()
    return _Swept(meter.peak / 2**20, seconds, calls, sweep.report.looks)


def _world(crm: str, pairs: int) -> World:
    """Everything in memory, with as many deals in agreement."""
    world = World(None, [], crm)
    record_id = world.opportunity()
    poll(world.services)
    assert isinstance(world.queue, MemoryQueue)
    for message in world.queue.receive(visibility_s=60):
        sync_one(SyncRequest.model_validate_json(message.body), world.services)
        world.queue.delete(message.receipt)
    multiply(world, record_id, pairs - 1)
    world.forget_calls()
    return world


class _Recorder:
    """Answers what was asked before as it was answered then."""

    def __init__(self) -> None:
        ask, self._answers = InProcessAdapter.send, dict[str, tuple[int, dict[str, str], bytes]]()

        def send(adapter: InProcessAdapter, request: requests.PreparedRequest, **options: Any) -> requests.Response:
            if request.method != "GET":
                return ask(adapter, request, **options)
            url = str(request.url)
            if url not in self._answers:
                first = ask(adapter, request, **options)
                self._answers[url] = (first.status_code, dict(first.headers), first.content)
            answer = requests.Response()
            answer.status_code, headers, content = self._answers[url]
            answer.headers.update(headers)
            answer.request, answer.url, answer.raw = request, url, BytesIO(content)
            return answer

        self.send = send


class _Meter:
    """The most memory that was in use outside of what stands in for the cloud."""

    def __init__(self, world: World) -> None:
        self.peak = 0
        self._world = world

    def note(self) -> None:
        self.peak = max(self.peak, tracemalloc.get_traced_memory()[1])

    def elsewhere(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def passed_on(*arguments: Any, **options: Any) -> Any:
            self.note()
            answer = call(*arguments, **options)
            self._forget()
            tracemalloc.reset_peak()
            return answer

        return passed_on

    def _forget(self) -> None:
        """What is only written down here, and grows with every call, is nobody's memory."""
        self._world.fuse.moments.clear()
        assert isinstance(self._world.tables, MemoryTables)
        self._world.tables.requests.clear()

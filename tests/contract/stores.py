"""The stores that the store contract is held against: the real clients in front of Azurite, and their twins in memory.

`Store` is an account of its own for one test, with what only a host or a test does to it.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Protocol
from uuid import uuid4

import requests
from azure.core.exceptions import HttpResponseError
from azure.storage.queue import QueueClient, QueueMessage, TextBase64DecodePolicy
from requests.adapters import HTTPAdapter
from urllib3.exceptions import ProtocolError

from shared import settings
from shared.settings import StorageSettings
from shared.store.account import Patience
from shared.store.queue import Queue, WorkQueue
from shared.store.tables import Table, TableStorage
from tests.memory_storage import MemoryQueue, MemoryTables, Received

BRISK = Patience(attempts=3, total_s=8, connect_timeout_s=5, read_timeout_s=10, sleep=lambda _: None)


class Store(Protocol):
    """`requests` has a line for each request that reached, or would have reached, the service."""

    @property
    def requests(self) -> list[str]: ...

    def table(self, name: str) -> Table: ...

    def queue(self) -> Queue: ...

    def receive(self, visibility_s: int) -> list[Received]:
        """Take messages off the queue as the host does, 32 at most; they come back unless deleted in time."""
        ...

    def delete(self, receipt: str) -> None:
        """Raises LookupError for a receipt that is not the message's newest."""
        ...

    def let_pass(self, seconds: float) -> None: ...


class AzuriteStore:
    """Its answers can get lost, and it can be looked at as the host does, with the public client."""

    def __init__(self, connection: str) -> None:
        self.settings = settings.load(StorageSettings, {"AzureWebJobsStorage": connection})
        self.name = f"t{uuid4().hex[:12]}"
        self._wire = _Wire()
        self.session = requests.Session()
        self.session.mount("http://", self._wire)
        self._tables = TableStorage(self.settings, session=self.session, patience=BRISK)
        self._received: dict[str, QueueMessage] = {}

    @property
    def requests(self) -> list[str]:
        return self._wire.requests

    def table(self, name: str) -> Table:
        return self._tables.table(f"{name}{self.name}")

    def queue(self) -> WorkQueue:
        return WorkQueue(self.settings, name=self.name, session=self.session, patience=BRISK)

    def receive(self, visibility_s: int) -> list[Received]:
        found = list(self._host.receive_messages(max_messages=32, visibility_timeout=visibility_s))
        self._received |= {message.pop_receipt: message for message in found}
        return [Received(each.content.encode(), each.dequeue_count or 0, each.pop_receipt) for each in found]

    def delete(self, receipt: str) -> None:
        try:
            self._host.delete_message(self._received[receipt])
        except HttpResponseError as error:
            raise LookupError(receipt) from error

    def let_pass(self, seconds: float) -> None:
        time.sleep(seconds)

    @cached_property
    def _host(self) -> QueueClient:
        connection = self.settings.connection
        assert connection
        return QueueClient.from_connection_string(
            connection.get_secret_value(), self.name, message_decode_policy=TextBase64DecodePolicy(), retry_total=0
        )

    def lose_answers(self, count: int) -> None:
        """Execute the next `count` requests, but let their answers never arrive."""
        self._wire.to_lose = count

    def name_error_codes_in_bodies_only(self) -> None:
        self._wire.only_bodies_name_codes = True


class _Wire(HTTPAdapter):
    def __init__(self) -> None:
        super().__init__(pool_maxsize=32)
        self.requests: list[str] = []
        self.to_lose = 0
        self.only_bodies_name_codes = False

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        self.requests.append(f"{request.method} {request.path_url}")
        response = super().send(request, *args, **kwargs)
        if self.only_bodies_name_codes:
            response.headers.pop("x-ms-error-code", None)
        if self.to_lose:
            self.to_lose -= 1
            raise requests.ConnectionError(ProtocolError("the answer got lost"), request=request)
        return response


class VirtualClock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 20, 12, 0, 0, 123456, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class MemoryStore:
    def __init__(self, _connection: str = "") -> None:
        self._clock = VirtualClock()
        self._tables = MemoryTables()
        self._queue = MemoryQueue(self._clock)

    @property
    def requests(self) -> list[str]:
        return self._tables.requests

    def table(self, name: str) -> Table:
        return self._tables.table(name)

    def queue(self) -> Queue:
        return self._queue

    def receive(self, visibility_s: int) -> list[Received]:
        return self._queue.receive(visibility_s)

    def delete(self, receipt: str) -> None:
        self._queue.delete(receipt)

    def let_pass(self, seconds: float) -> None:
        self._clock.advance(seconds)


IMPLEMENTATIONS = [AzuriteStore, MemoryStore]

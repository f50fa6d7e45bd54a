"""The stores that the store contract is held against: Azurite now, a twin in memory would join the list."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from uuid import uuid4

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import ProtocolError

from shared import settings
from shared.settings import StorageSettings
from shared.store.account import Patience
from shared.store.queue import Queue, WorkQueue
from shared.store.tables import Table, TableStorage

BRISK = Patience(attempts=3, total_s=8, connect_timeout_s=5, read_timeout_s=10, sleep=lambda _: None)


class Store(Protocol):
    """An account of its own for one test: what it is asked is counted, and answers can get lost."""

    requests: list[str]

    def table(self, name: str) -> Table: ...

    def queue(self) -> Queue: ...

    def lose_answers(self, count: int) -> None:
        """Execute the next `count` requests, but let their answers never arrive."""


class AzuriteStore:
    def __init__(self, connection: str) -> None:
        self.settings = settings.load(StorageSettings, {"AzureWebJobsStorage": connection})
        self.name = f"t{uuid4().hex[:12]}"
        self._wire = _Wire()
        self.session = requests.Session()
        self.session.mount("http://", self._wire)
        self._tables = TableStorage(self.settings, session=self.session, patience=BRISK)

    @property
    def requests(self) -> list[str]:
        return self._wire.requests

    def table(self, name: str) -> Table:
        return self._tables.table(f"{name}{self.name}")

    def queue(self) -> WorkQueue:
        return WorkQueue(self.settings, name=self.name, session=self.session, patience=BRISK)

    def lose_answers(self, count: int) -> None:
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


IMPLEMENTATIONS = [AzuriteStore]


class VirtualClock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 20, 12, 0, 0, 123456, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

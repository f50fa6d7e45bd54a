"""Table and Queue Storage in memory, for flows that are played by the hundred. Never waits: the clock is passed in.

Each keeps the contract that tests/contract holds the real clients in front of Azurite to, refusals included.
https://learn.microsoft.com/rest/api/storageservices/understanding-the-table-service-data-model
"""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import count, islice
from math import ceil
from threading import Lock
from typing import NamedTuple

from shared.errors import Refused
from shared.messages import SyncRequest
from shared.store import queue as queue_storage
from shared.store import tables as table_storage

# What is refused before anything is sent is part of what a Table promises, and told in the same words.
from shared.store.tables import ROW_BYTES, AlreadyThere, Operation, Row, Stale, _check, _check_key

TEXT_BYTES = 64 << 10
MESSAGE_BYTES = 64 << 10
MESSAGES_AT_ONCE = 32


class MemoryTables:
    """The tables of one account. `requests` is what they were asked and would have sent to the service."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self._lock = Lock()
        self._tables: dict[str, MemoryTable] = {}

    def table(self, name: str) -> MemoryTable:
        with self._lock:
            return self._tables.setdefault(name, MemoryTable(name, self.requests))


class MemoryTable:
    def __init__(self, name: str, requests: list[str]) -> None:
        self.name = name
        self._requests = requests
        self._lock = Lock()
        self._partitions: dict[str, dict[str, Row]] = {}
        self._versions = count(1)

    def get(self, partition: str, key: str) -> Row | None:
        _check_key(partition)
        _check_key(key)
        self._requests.append(f"get {self.name}")
        with self._lock:
            row = self._stored(partition, key)
        return _copy(row) if row else None

    def query(self, partition: str, key_from: str = "", key_to: str = "", limit: int | None = None) -> list[Row]:
        _check_key(partition)
        self._requests.append(f"query {self.name}")
        first, end = _ordinal(key_from), _ordinal(key_to)
        with self._lock:
            found = [(_ordinal(key), row) for key, row in self._partitions.get(partition, {}).items()]
        wanted = sorted((place, row) for place, row in found if first <= place and (not end or place < end))
        return [_copy(row) for _, row in islice(wanted, limit)]

    def across(self, key: str, after: str, before: str, limit: int) -> list[Row]:
        for given in (key, after, before):
            _check_key(given)
        self._requests.append(f"across {self.name}")
        first, end = _ordinal(after), _ordinal(before)
        with self._lock:
            found = [(_ordinal(name), rows[key]) for name, rows in self._partitions.items() if key in rows]
        wanted = sorted((place, row) for place, row in found if first < place < end)
        return [_copy(row) for _, row in islice(wanted, limit)]

    def insert(self, row: Row) -> Row:
        return self._write("insert", [("insert", row)])[0]

    def replace(self, row: Row) -> Row:
        return self._write("replace", [("replace", row)])[0]

    def upsert(self, row: Row) -> Row:
        return self._write("upsert", [("upsert", row)])[0]

    def delete(self, partition: str, key: str) -> None:
        _check_key(partition)
        _check_key(key)
        self._requests.append(f"delete {self.name}")
        with self._lock:
            self._partitions.get(partition, {}).pop(key, None)

    def transact(self, operations: Sequence[Operation]) -> list[Row]:
        return self._write("transact", operations)

    def _write(self, request: str, operations: Sequence[Operation]) -> list[Row]:
        _check(operations)
        for kind, row in operations:
            if kind == "replace" and not row.etag:
                raise ValueError(f"a replace of row {row.partition} {row.key} needs the etag it was read at")
        self._requests.append(f"{request} {self.name}")
        for _, row in operations:
            _check_values(row)
        with self._lock:
            for kind, row in operations:
                self._check_version(kind, row)
            return [self._done(kind, row) for kind, row in operations]

    def _done(self, kind: str, row: Row) -> Row:
        if kind == "delete":
            del self._partitions[row.partition][row.key]
            return replace(_copy(row), etag="")
        stored = replace(_copy(row), etag=f'W/"{next(self._versions)}"')
        self._partitions.setdefault(row.partition, {})[row.key] = stored
        return _copy(stored)

    def _check_version(self, kind: str, row: Row) -> None:
        stored = self._stored(row.partition, row.key)
        name = f"{self.name} row {row.partition} {row.key}"
        if kind == "insert" and stored:
            raise AlreadyThere(f"{name} exists already", remote=table_storage.REMOTE, status=409)
        is_gone = stored is None and kind in ("replace", "delete")
        if is_gone or (kind == "replace" and stored and stored.etag != row.etag):
            status = 412 if stored else 404
            raise Stale(f"{name} has changed since it was read", remote=table_storage.REMOTE, status=status)

    def _stored(self, partition: str, key: str) -> Row | None:
        return self._partitions.get(partition, {}).get(key)


def _copy(row: Row) -> Row:
    return Row(row.partition, row.key, dict(row.columns), row.etag)


def _ordinal(key: str) -> bytes:
    """Return what the service orders keys by: their UTF-16 units, so capitals first and no language's rules."""
    return key.encode("utf-16-be", "surrogatepass")


def _check_values(row: Row) -> None:
    """Refuse what the client leaves to the service to refuse."""
    row_bytes = 4 + _utf16_bytes(row.partition + row.key)
    for name, value in row.columns.items():
        if type(value) not in (str, int, bool):
            raise TypeError(f"{name} of row {row.partition} {row.key} is {value!r}: a column holds str, int or bool")
        text_bytes = _utf16_bytes(value) if isinstance(value, str) else 0
        if text_bytes > TEXT_BYTES:
            raise _refused_row(f"{name} of row {row.partition} {row.key} has over 64 KiB", "PropertyValueTooLarge")
        row_bytes += 8 + _utf16_bytes(name) + 4 + text_bytes
    if row_bytes > ROW_BYTES:
        raise _refused_row(f"row {row.partition} {row.key} is larger than 1 MiB", "EntityTooLarge")


def _utf16_bytes(text: str) -> int:
    if text.isascii():
        return 2 * len(text)
    return len(text.encode("utf-16-le"))  # half a surrogate pair is an error here: it cannot be sent either


def _refused_row(what: str, code: str) -> Refused:
    return Refused(
        f"{table_storage.REMOTE} refused what was asked: {what}", remote=table_storage.REMOTE, status=400, code=code
    )


class Received(NamedTuple):
    """One message as the host gets it. `dequeue_count` includes this time, and `receipt` is good for this time only."""

    body: bytes
    dequeue_count: int
    receipt: str


@dataclass
class _Message:
    body: bytes
    visible_at: datetime
    number: int
    dequeue_count: int = 0
    receipt: str = ""


class MemoryQueue:
    """The queue and its poison queue. A message that is not deleted in time comes back: at least once, not once."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._lock = Lock()
        self._messages: list[_Message] = []
        self._given_up: list[bytes] = []
        self._numbers = count(1)
        self.sent = 0
        """How many messages were ever stored."""

    def send(self, request: SyncRequest, delay_s: float = 0) -> None:
        body, delay_s = request.encode().encode(), min(ceil(delay_s), queue_storage.LONGEST_DELAY_S)
        if delay_s < 0:
            raise _refused_message(f"a delay of {delay_s} s", "OutOfRangeQueryParameterValue")
        if len(base64.b64encode(body)) > MESSAGE_BYTES:
            raise _refused_message(f"a message of {len(body):,} bytes", "RequestBodyTooLarge")
        with self._lock:
            self.sent += 1
            self._messages.append(_Message(body, self._later(delay_s), next(self._numbers)))

    def receive(self, visibility_s: float, at_most: int = MESSAGES_AT_ONCE) -> list[Received]:
        """Return what can be seen, first seen first, 32 at most, and hide it for `visibility_s`."""
        now = self._clock()
        with self._lock:
            seen = sorted((each.visible_at, each.number, each) for each in self._messages if each.visible_at <= now)
            page = [each for _, _, each in seen[:at_most]]
            for message in page:
                message.dequeue_count += 1
                message.receipt = f"receipt {next(self._numbers)}"
                message.visible_at = self._later(visibility_s)
            return [Received(each.body, each.dequeue_count, each.receipt) for each in page]

    def delete(self, receipt: str) -> None:
        """Remove the message. Raises LookupError when it is gone, or was received again since."""
        with self._lock:
            self._take(receipt)

    def give_up(self, receipt: str) -> None:
        """Move the message to the poison queue, as the host does after its last attempt. Raises LookupError."""
        with self._lock:
            self._given_up.append(self._take(receipt).body)

    def shuffle(self, order: random.Random) -> None:
        """Let what can be seen be handed out in another order: a queue promises none."""
        with self._lock:
            numbers = [message.number for message in self._messages]
            order.shuffle(numbers)
            for message, number in zip(self._messages, numbers, strict=True):
                message.number = number

    def next_visible(self) -> datetime | None:
        """Return when the next message can be seen; None when there is none."""
        return min((message.visible_at for message in self._messages), default=None)

    def given_up(self) -> list[bytes]:
        """Return what lies in the poison queue, oldest first."""
        with self._lock:
            return list(self._given_up)

    def length(self) -> int:
        return len(self._messages)

    def poison_length(self) -> int:
        return len(self._given_up)

    def _later(self, seconds: float) -> datetime:
        return self._clock() + timedelta(seconds=seconds)

    def _take(self, receipt: str) -> _Message:
        for place, message in enumerate(self._messages):
            if message.receipt == receipt:
                return self._messages.pop(place)
        raise LookupError(f"no message was received last as {receipt}: it is deleted, or another receiver has it")


def _refused_message(what: str, code: str) -> Refused:
    return Refused(f"{queue_storage.REMOTE} refused what was asked: {what}", remote=queue_storage.REMOTE, code=code)

"""Rows in Table Storage: what a row may hold, how long values are split, and the conditional writes all state rests on.

Knows nothing of deals. `Table` is what the other modules use; `TableStorage` makes the real ones.
https://learn.microsoft.com/rest/api/storageservices/understanding-the-table-service-data-model
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from shared.errors import Refused, VersionConflict
from shared.settings import StorageSettings
from shared.store.account import Patience, client_options, credential, error_code, meaning

if TYPE_CHECKING:
    import requests
    from azure.core.exceptions import HttpResponseError
    from azure.data.tables import TableClient, TableEntity, TableServiceClient

DEALS, INDEX, CURSORS = "CosellDeals", "CosellIndex", "CosellCursors"

PATIENCE = Patience(attempts=3, total_s=8, connect_timeout_s=5, read_timeout_s=10)
REMOTE = "Table Storage"

PART_CHARACTERS = 30_000  # the service takes 32,768 UTF-16 units per value
ROW_BYTES = 1 << 20
ROW_COLUMNS = 252
TRANSACTION_ROWS = 100
TRANSACTION_BYTES = 4 << 20
KEY_CHARACTERS = 512
_ILLEGAL_IN_KEYS = re.compile(r"[/\\#?\x00-\x1f\x7f-\x9f]")
_COLUMN = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}$")
_PART = re.compile(r"(.*?)([0-9]+)$")
_HALF_A_PAIR = re.compile("[\ud800-\udfff]")

T = TypeVar("T")
Value = str | int | bool


class AlreadyThere(VersionConflict):
    """An insert found the row present. Nothing was written."""


class Stale(VersionConflict):
    """A replace found the row changed or gone. Nothing was written."""


@dataclass(frozen=True)
class Row:
    """One row. `etag` is the version it was read at; empty for a row that was made here."""

    partition: str
    key: str
    columns: Mapping[str, Value]
    etag: str = ""


Operation = tuple[Literal["insert", "replace", "upsert", "delete"], Row]


class Table(Protocol):
    """One table. Every method is one request, and is safe to call from several threads."""

    def get(self, partition: str, key: str) -> Row | None: ...

    def query(self, partition: str, key_from: str = "", key_to: str = "", limit: int | None = None) -> list[Row]:
        """Return rows in key order from `key_from` (included) to `key_to` (excluded); "" is no bound.

        The service answers at most 1,000 rows to a request: a longer result takes more of them.
        """
        ...

    def across(self, key: str, after: str, before: str, limit: int) -> list[Row]:
        """Return the rows `key` of the partitions between `after` and `before` (both excluded), in their order.

        One request for each 1,000 rows; to go on, `after` is the partition of the last row.
        """
        ...

    def insert(self, row: Row) -> Row:
        """Return the row with its etag. Raises AlreadyThere."""
        ...

    def replace(self, row: Row) -> Row:
        """Write the row if it is still at `row.etag`; return it with its new etag. Raises Stale."""
        ...

    def upsert(self, row: Row) -> Row: ...

    def delete(self, partition: str, key: str) -> None:
        """Remove the row, whatever its version. A missing row is no error."""
        ...

    def transact(self, operations: Sequence[Operation]) -> list[Row]:
        """Write or delete rows of one partition, all or none; return them with their etags, deleted ones without.

        A row is deleted whatever its version, but must be there. Raises AlreadyThere and Stale.
        """
        ...


def columns(document: Mapping[str, Any]) -> dict[str, Value]:
    """Return a JSON document as columns.

    Short texts, numbers and flags stay as they are, for whoever reads the table. Anything else becomes JSON in as many
    numbered columns as its length asks for: `base0`, `base1` and so on. None is left out.
    """
    found: dict[str, Value] = {}
    for name, value in document.items():
        if _PART.match(name):
            raise ValueError(f"{name} ends in a digit, as the parts of a long value do: name it otherwise")
        if isinstance(value, bool | int) or (isinstance(value, str) and _fits(value)):
            found[name] = value
        elif value is not None:
            # ASCII only: one character is one UTF-16 unit, and half a surrogate pair survives the journey.
            text = json.dumps(value, separators=(",", ":"))
            for number, start in enumerate(range(0, len(text), PART_CHARACTERS)):
                found[f"{name}{number}"] = text[start : start + PART_CHARACTERS]
    return found


def document(columns: Mapping[str, Value]) -> dict[str, Any]:
    """Return the JSON document that `columns` were made of."""
    found: dict[str, Any] = {}
    parts: dict[str, dict[int, str]] = {}
    for name, value in columns.items():
        if part := _PART.match(name):
            parts.setdefault(part[1], {})[int(part[2])] = str(value)
        else:
            found[name] = value
    for name, texts in parts.items():
        found[name] = json.loads("".join(text for _, text in sorted(texts.items())))
    return found


def _fits(text: str) -> bool:
    # A character outside the basic plane takes two UTF-16 units; half a surrogate pair cannot be sent at all.
    return len(text) <= PART_CHARACTERS // 2 and not _HALF_A_PAIR.search(text)


class TableStorage:
    """The table service of the account: one set of connections for all tables, opened on first use."""

    def __init__(
        self, settings: StorageSettings, *, session: requests.Session | None = None, patience: Patience = PATIENCE
    ) -> None:
        self._settings = settings
        self._session = session
        self._patience = patience
        self._lock = Lock()
        self._service: TableServiceClient | None = None

    def table(self, name: str) -> Table:
        return _StorageTable(self, name, self._patience)

    def client(self, name: str) -> TableClient:
        with self._lock:
            if self._service is None:
                self._service = self._connect()
        return self._service.get_table_client(name)

    def _connect(self) -> TableServiceClient:
        from azure.data.tables import TableServiceClient

        options = client_options(self._session, self._patience)
        if self._settings.connection:
            return TableServiceClient.from_connection_string(self._settings.connection.get_secret_value(), **options)
        return TableServiceClient(self._settings.service_uri("table"), credential=credential(self._settings), **options)


class _StorageTable:
    """One table of the account. Created by the first write that misses it."""

    def __init__(self, storage: TableStorage, name: str, patience: Patience) -> None:
        self.name = name
        self._storage = storage
        self._patience = patience
        self._opened: TableClient | None = None

    @property
    def _client(self) -> TableClient:
        if self._opened is None:
            self._opened = self._storage.client(self.name)
        return self._opened

    def get(self, partition: str, key: str) -> Row | None:
        _check_key(partition)
        _check_key(key)
        return self._ask(lambda: _row(self._client.get_entity(partition, key)), missing=None)

    def query(self, partition: str, key_from: str = "", key_to: str = "", limit: int | None = None) -> list[Row]:
        _check_key(partition)  # without one the service would read the whole table
        tests = [("PartitionKey eq @partition", partition), ("RowKey ge @from", key_from), ("RowKey lt @to", key_to)]
        wanted = " and ".join(test for test, value in tests if value)
        return self._found(wanted, {test.rpartition("@")[2]: value for test, value in tests if value}, limit)

    def across(self, key: str, after: str, before: str, limit: int) -> list[Row]:
        for given in (key, after, before):
            _check_key(given)
        wanted = "PartitionKey gt @after and PartitionKey lt @before and RowKey eq @key"
        return self._found(wanted, {"after": after, "before": before, "key": key}, limit)

    def _found(self, wanted: str, values: Mapping[str, str], limit: int | None) -> list[Row]:
        def ask() -> list[Row]:
            page = min(limit or 1_000, 1_000)
            found = self._client.query_entities(wanted, parameters=dict(values), results_per_page=page)
            return [_row(entity) for entity in islice(found, limit)]

        return self._ask(ask, missing=[])

    def delete(self, partition: str, key: str) -> None:
        _check_key(partition)
        _check_key(key)
        self._ask(lambda: self._client.delete_entity(partition, key), missing=None)

    def insert(self, row: Row) -> Row:
        return self._write([("insert", row)])[0]

    def replace(self, row: Row) -> Row:
        return self._write([("replace", row)])[0]

    def upsert(self, row: Row) -> Row:
        return self._write([("upsert", row)])[0]

    def transact(self, operations: Sequence[Operation]) -> list[Row]:
        return self._write(operations)

    def _ask(self, request: Callable[[], T], missing: T) -> T:
        """Send a request that may be repeated freely; a missing row or table is an answer too."""
        from azure.core.exceptions import AzureError, ResourceNotFoundError

        def attempt(_repeated: bool) -> T:
            try:
                return request()
            except ResourceNotFoundError:
                return missing
            except AzureError as error:
                raise meaning(error, REMOTE) from error

        return self._patience.repeat(attempt)

    def _write(self, operations: Sequence[Operation]) -> list[Row]:
        """Write all or none. An attempt without an answer is repeated; if it turns out to be done, that is success."""
        from azure.core.exceptions import AzureError, HttpResponseError

        _check(operations)

        def attempt(repeated: bool) -> list[Row]:
            try:
                return self._send_creating(operations)
            except HttpResponseError as error:
                conflict = self._conflict(error, operations)
                if conflict is None:
                    raise meaning(error, REMOTE) from error
                if repeated and (done := self._as_stored(operations)):
                    return done
                raise conflict from error
            except AzureError as error:
                raise meaning(error, REMOTE) from error

        return self._patience.repeat(attempt)

    def _send_creating(self, operations: Sequence[Operation]) -> list[Row]:
        from azure.core.exceptions import HttpResponseError

        try:
            return self._send(operations)
        except HttpResponseError as error:
            if error_code(error) != "TableNotFound":
                raise
        self._create()
        return self._send(operations)

    def _send(self, operations: Sequence[Operation]) -> list[Row]:
        asked = [
            (_VERBS[kind], {"PartitionKey": row.partition, "RowKey": row.key, **row.columns}, _options(kind, row))
            for kind, row in operations
        ]
        # Alone, deleting what is not there passes for success.
        if len(asked) == 1 and asked[0][0] != "delete":
            verb, entity, options = asked[0]
            answers = [getattr(self._client, f"{verb}_entity")(entity, **options)]
        else:
            answers = list(self._client.submit_transaction(asked))
        return [replace(row, etag=answer.get("etag", "")) for (_, row), answer in zip(operations, answers, strict=True)]

    def _create(self) -> None:
        from azure.core.exceptions import AzureError, ResourceExistsError

        try:
            self._client.create_table()
        except ResourceExistsError as error:
            # Another worker was quicker - or the table is being deleted, and only waiting helps.
            if error_code(error) != "TableAlreadyExists":
                raise meaning(error, REMOTE) from error
        except AzureError as error:
            raise meaning(error, REMOTE) from error

    def _conflict(self, error: HttpResponseError, operations: Sequence[Operation]) -> VersionConflict | None:
        code = error_code(error)
        _, row = operations[getattr(error, "index", 0)]
        name = f"{self.name} row {row.partition} {row.key}"
        # https://learn.microsoft.com/rest/api/storageservices/table-service-error-codes
        if error.status_code == 409 and code == "EntityAlreadyExists":
            return AlreadyThere(f"{name} exists already", remote=REMOTE, status=409, code=code)
        if error.status_code in (404, 412) and code != "TableNotFound":
            return Stale(f"{name} has changed since it was read", remote=REMOTE, status=error.status_code, code=code)
        return None

    def _as_stored(self, operations: Sequence[Operation]) -> list[Row] | None:
        """Return the rows with their etags if Storage holds every one of them as we wanted it."""
        found = []
        for kind, row in operations:
            stored = self.get(row.partition, row.key)
            if kind == "delete" and stored is None:
                found.append(replace(row, etag=""))
            elif kind != "delete" and stored is not None and stored.columns == row.columns:
                found.append(stored)
            else:
                return None
        return found


_VERBS = {"insert": "create", "replace": "update", "upsert": "upsert", "delete": "delete"}


def _options(kind: str, row: Row) -> dict[str, Any]:
    from azure.core import MatchConditions
    from azure.data.tables import UpdateMode

    if kind in ("insert", "delete"):
        return {}
    if kind == "upsert":
        return {"mode": UpdateMode.REPLACE}
    return {"mode": UpdateMode.REPLACE, "etag": row.etag, "match_condition": MatchConditions.IfNotModified}


def _row(entity: TableEntity) -> Row:
    columns = {name: value for name, value in entity.items() if name not in ("PartitionKey", "RowKey")}
    return Row(entity["PartitionKey"], entity["RowKey"], columns, entity.metadata["etag"] or "")


def _check(operations: Sequence[Operation]) -> None:
    """Refuse what the service would refuse, before it is sent: Azurite takes some of it, or answers with a 500."""
    if not 1 <= len(operations) <= TRANSACTION_ROWS:
        raise ValueError(f"a transaction takes 1 to {TRANSACTION_ROWS} rows, not {len(operations)}")
    rows = [row for _, row in operations]
    if len({row.partition for row in rows}) > 1 or len({row.key for row in rows}) < len(rows):
        raise ValueError(
            f"a transaction takes rows of one partition, each once: {[(r.partition, r.key) for r in rows]}"
        )
    for row in rows:
        _check_row(row)
    if (size := sum(map(_size_bytes, rows))) > TRANSACTION_BYTES:
        raise _too_large(f"a transaction on {rows[0].partition}", size, TRANSACTION_BYTES)


def _check_row(row: Row) -> None:
    _check_key(row.partition)
    _check_key(row.key)
    if len(row.columns) > ROW_COLUMNS:
        raise ValueError(f"row {row.partition} {row.key} has {len(row.columns)} columns, at most {ROW_COLUMNS} fit")
    for name, value in row.columns.items():
        if not _COLUMN.match(name):
            raise ValueError(f"{name!r} is no column name: letters, digits and _ only, not beginning with a digit")
        if isinstance(value, int) and not -(2**31) <= value < 2**31:
            raise ValueError(f"{name} of row {row.partition} {row.key} is {value}, which 32 bits do not hold")
    if (size := _size_bytes(row)) > ROW_BYTES:
        raise _too_large(f"row {row.partition} {row.key}", size, ROW_BYTES)


def _check_key(key: str) -> None:
    if not key or len(key) > KEY_CHARACTERS or _ILLEGAL_IN_KEYS.search(key):
        raise ValueError(
            f"{key!r} cannot be a table key: 1 to {KEY_CHARACTERS} characters, none of them / \\ # ? or a control one"
        )


def _size_bytes(row: Row) -> int:
    """Return about what the service counts: text in UTF-16, and a little for each column."""
    columns = sum(
        8 + 2 * len(name) + (4 + len(value.encode("utf-16-le")) if isinstance(value, str) else 4)
        for name, value in row.columns.items()
    )
    return 4 + 2 * (len(row.partition) + len(row.key)) + columns


def _too_large(what: str, size: int, limit: int) -> Refused:
    return Refused(
        f"{what} would take {size:,} bytes; {REMOTE} takes {limit:,}",
        next_step="Shorten the longest mapped fields of this deal, or take them out of the field map; then replay.",
        remote=REMOTE,
    )

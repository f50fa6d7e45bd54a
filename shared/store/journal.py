"""What happened to the app itself, in table CosellIndex, newest first: registrations, takeovers, lost listeners.

What happened to a deal is in the deal's own partition (shared.store.audit).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from secrets import token_hex

from pydantic import TypeAdapter

from shared.store.audit import newest_first
from shared.store.tables import Row, Table, columns, document

PARTITION = "journal"


@dataclass(frozen=True)
class Entry:
    """`event` as in the log, such as `registration.taken_over`; `says` in words; no key or token in either."""

    at_utc: datetime
    event: str
    says: str
    facts: dict[str, str] = field(default_factory=dict)


_ENTRY = TypeAdapter(Entry)


class Journal:
    def __init__(self, index_table: Table, clock: Callable[[], datetime]) -> None:
        self._table = index_table
        self._clock = clock
        self._numbers = count(1)  # order what one process notes in one moment

    def add(self, event: str, says: str, **facts: str) -> None:
        entry = Entry(self._clock(), event, says, facts)
        key = f"{newest_first(entry.at_utc, next(self._numbers))}_{token_hex(4)}"
        self._table.upsert(Row(PARTITION, key, columns(_ENTRY.dump_python(entry, mode="json"))))

    def latest(self, limit: int = 10) -> tuple[Entry, ...]:
        return tuple(_ENTRY.validate_python(document(row.columns)) for row in self._table.query(PARTITION, limit=limit))

"""What happened to a deal, entry by entry, and the form an entry has as a row. Stores nothing itself.

Entries lie in the deal's own partition, so that the transaction that changes the deal also says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pydantic import TypeAdapter

from shared.messages import Cause
from shared.model import Side
from shared.store.tables import Row, columns, document

KEY_FROM, KEY_TO = "audit_", "audit`"  # "`" follows "_": every key that begins with audit_

# Keys ascend, and the newest entry shall come first: count down from the last tick of the year 9999.
# https://learn.microsoft.com/azure/storage/tables/table-storage-design-patterns#log-tail-pattern
_LAST_TICK = 3_155_378_975_999_999_999
_LAST_NUMBER = 999_999_999


@dataclass(frozen=True)
class AuditEntry:
    """One step of one run.

    `side` is the side written, None when nothing was. `fields` maps a field's name to [before, after]; `notes` says in
    words what was decided and which value lost. `message` is a remote's own words, `request_id` what its support asks
    for. The versions are those of the side written.
    """

    at_utc: datetime
    phase: Literal["started", "done", "failed", "looked"]
    cause: Cause
    correlation_id: str
    event: str = ""
    side: Side | None = None
    operation: str = ""
    fields: dict[str, list[Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    message: str = ""
    request_id: str = ""
    version_before: str = ""
    version_after: str = ""


_ENTRY = TypeAdapter(AuditEntry)


def audit_rows(deal: str, entries: Sequence[AuditEntry], first_number: int) -> list[Row]:
    """Return the entries as rows. `first_number` counts the deal's entries: it orders what the clock cannot."""
    return [
        Row(deal, KEY_FROM + newest_first(entry.at_utc, number), columns(_ENTRY.dump_python(entry, mode="json")))
        for number, entry in enumerate(entries, first_number)
    ]


def audit_entry(row: Row) -> AuditEntry:
    return _ENTRY.validate_python(document(row.columns))


def newest_first(at_utc: datetime, number: int) -> str:
    """Return a row key before those of earlier times; `number` orders what happened at the same time."""
    ticks = (at_utc - datetime(1, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 10
    return f"{_LAST_TICK - ticks:019d}_{_LAST_NUMBER - number:09d}"

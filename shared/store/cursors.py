"""How far each feed has been read, in table CosellCursors. Never looks into a value: only the feed's reader can."""

from __future__ import annotations

from dataclasses import dataclass

from shared.store.tables import AlreadyThere, Row, Stale, Table, columns, document

PARTITION = "cursor"


@dataclass(frozen=True)
class Cursor:
    """`value` is None, and `etag` empty, until the first save."""

    value: str | None = None
    etag: str = ""


class Cursors:
    def __init__(self, table: Table) -> None:
        self._table = table

    def load(self, name: str) -> Cursor:
        row = self._table.get(PARTITION, name)
        return Cursor(document(row.columns)["value"], row.etag) if row else Cursor()

    def save(self, name: str, value: str, etag: str) -> Cursor:
        """Store where the next run starts, and return it. Raises Stale when another run moved the cursor meanwhile."""
        row = Row(PARTITION, name, columns({"value": value}), etag)
        try:
            saved = self._table.replace(row) if etag else self._table.insert(row)
        except AlreadyThere as error:
            raise Stale(f"cursor {name} was saved by another run meanwhile", remote=error.remote) from error
        return Cursor(value, saved.etag)

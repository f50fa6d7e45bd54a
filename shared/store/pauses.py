"""Which outside systems are left alone, and until when, in table CosellIndex: what one process was told, all keep to.

A pause that cannot be read or stored is only logged: then each process has to be told by the system itself.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from pydantic import TypeAdapter

from shared.errors import CosellError
from shared.logs import log
from shared.model import Paused
from shared.store.tables import Row, Table, columns, document

PARTITION = "pauses"

_PAUSED = TypeAdapter(Paused)


class Pauses:
    """The `Pauses` of shared.remote.http. A remote has one row, which stays when its pause is over."""

    def __init__(self, index_table: Table, clock: Callable[[], datetime]) -> None:
        self._table = index_table
        self._clock = clock

    def of(self, remote: str) -> Paused | None:
        """Return the pause that this remote is in, None if it may be called. One request."""
        try:
            return self._standing(self._table.get(PARTITION, remote))
        except CosellError as error:
            log.warning("pauses.not_read", extra={"remote": remote, "why": str(error)})
            return None

    def begin(self, remote: str, paused: Paused) -> None:
        """Store a pause, unless a longer one is there. Two at once may leave the shorter: the remote asks again."""
        try:
            known = self._standing(self._table.get(PARTITION, remote))
            if known is None or known.until_utc < paused.until_utc:
                self._table.upsert(Row(PARTITION, remote, columns(_PAUSED.dump_python(paused, mode="json"))))
        except CosellError as error:
            log.warning("pauses.not_stored", extra={"remote": remote, "why": str(error)})

    def all(self) -> dict[str, Paused]:
        """Return the pauses that last, by the remote's name. Raises the errors of shared.errors."""
        found = {row.key: self._standing(row) for row in self._table.query(PARTITION)}
        return {remote: paused for remote, paused in found.items() if paused}

    def _standing(self, row: Row | None) -> Paused | None:
        paused = _PAUSED.validate_python(document(row.columns)) if row else None
        return paused if paused and paused.until_utc > self._clock() else None

"""Deals that wait for a person, in table CosellIndex: why, and what to do. Never repairs one.

A deal has one row, which goes once the deal is well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from pydantic import TypeAdapter

from shared.errors import Unavailable
from shared.store.tables import AlreadyThere, Row, Stale, Table, columns, document

PARTITION = "failures"
ATTEMPTS = 10


@dataclass(frozen=True)
class Failure:
    """`reason` and `next_step` in words; `field` is the column or JSON path complained about, if one was.

    `since_utc` is the first of `times` failures in a row, `last_utc` the latest.
    """

    deal: str
    reason: str
    next_step: str
    field: str
    correlation_id: str
    since_utc: datetime
    last_utc: datetime
    times: int


_FAILURE = TypeAdapter(Failure)


class Failures:
    def __init__(self, index_table: Table, clock: Callable[[], datetime]) -> None:
        self._table = index_table
        self._clock = clock

    def put(self, deal: str, reason: str, *, next_step: str = "", field: str = "", correlation_id: str = "") -> Failure:
        """Record that the deal failed, once more if it had before."""
        now = self._clock()
        latest = Failure(deal, reason, next_step, field, correlation_id, since_utc=now, last_utc=now, times=1)
        for _ in range(ATTEMPTS):
            row = self._table.get(PARTITION, deal)
            try:
                if row is None:
                    self._table.insert(_row(latest))
                    return latest
                earlier = _failure(row)
                again = replace(latest, since_utc=earlier.since_utc, times=earlier.times + 1)
                self._table.replace(_row(again, row.etag))
            except (AlreadyThere, Stale):
                continue
            return again
        raise Unavailable(f"the failure of deal {deal} could not be recorded: {ATTEMPTS} times another run was quicker")

    def clear(self, deal: str) -> None:
        """Forget the failure, if there is one."""
        self._table.delete(PARTITION, deal)

    def list(self, limit: int | None = None) -> tuple[Failure, ...]:
        """Return the deals that wait for a person, by deal key."""
        return tuple(map(_failure, self._table.query(PARTITION, limit=limit)))


def _row(failure: Failure, etag: str = "") -> Row:
    return Row(PARTITION, failure.deal, columns(_FAILURE.dump_python(failure, mode="json")), etag)


def _failure(row: Row) -> Failure:
    return _FAILURE.validate_python(document(row.columns))

"""What waits for a person, in table CosellIndex: why, and what to do. Never repairs anything.

A deal has one row, which goes once the deal is well. What is no deal - the registration, a listener, an event - has one
under a name of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter

from shared.errors import Unavailable
from shared.problems import Problem, Reason, is_reason
from shared.store.tables import AlreadyThere, Row, Stale, Table, columns, document

PARTITION = "failures"
ATTEMPTS = 10


@dataclass(frozen=True)
class Failure:
    """`deal` is its key, or the name of what else fails; `problems` is never empty.

    `since_utc` is the first of `times` failures in a row, `last_utc` the latest, `correlation_id` that of the latest.
    """

    deal: str
    problems: tuple[Problem, ...]
    correlation_id: str
    since_utc: datetime
    last_utc: datetime
    times: int

    @property
    def reasons(self) -> tuple[Reason, ...]:
        return tuple(dict.fromkeys(problem.reason for problem in self.problems))

    @property
    def reason(self) -> str:
        """All that is wrong, in words."""
        return " / ".join(problem.said for problem in self.problems)

    @property
    def next_step(self) -> str:
        return self.problems[0].next_step

    @property
    def field(self) -> str:
        return self.problems[0].label

    @property
    def accepted(self) -> str:
        return self.problems[0].accepted


_FAILURE = TypeAdapter(Failure)


class Failures:
    def __init__(self, index_table: Table, clock: Callable[[], datetime]) -> None:
        self._table = index_table
        self._clock = clock

    def put(self, deal: str, *problems: Problem, correlation_id: str = "") -> Failure:
        """Record that the deal failed, once more if it had before."""
        now = self._clock()
        latest = Failure(deal, problems, correlation_id, since_utc=now, last_utc=now, times=1)
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

    def get(self, deal: str) -> Failure | None:
        row = self._table.get(PARTITION, deal)
        return _failure(row) if row else None

    def list(self, limit: int | None = None) -> tuple[Failure, ...]:
        """Return what waits for a person, by deal key."""
        return tuple(map(_failure, self._table.query(PARTITION, limit=limit)))


def _row(failure: Failure, etag: str = "") -> Row:
    return Row(PARTITION, failure.deal, columns(_FAILURE.dump_python(failure, mode="json")), etag)


def _failure(row: Row) -> Failure:
    stored = document(row.columns)
    stored["problems"] = [_known(problem) for problem in stored.get("problems") or [_of_earlier_release(stored)]]
    return _FAILURE.validate_python(stored)


def _of_earlier_release(stored: dict[str, Any]) -> dict[str, Any]:
    """A row that says in words what is wrong, all in one, and has the next step of the first problem."""
    return {"label": "", "message": stored["reason"], "next_step": stored["next_step"], "reason": "earlier"}


def _known(problem: dict[str, Any]) -> dict[str, Any]:
    """A later release may have known more reasons; its rows have to be readable after going back."""
    return problem if is_reason(problem["reason"]) else {**problem, "reason": "earlier"}

"""The reports of the full sweeps, in table CosellIndex, newest first, and which deals differed. Decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import TypeAdapter

from shared.drift import Difference, Reason
from shared.store.audit import newest_first
from shared.store.tables import Row, Table, columns, document

REPORTS, DETAILS = "sweeps", "drift"
KEPT = 30
DETAILED = 1_000
"""Deals that a report tells of one by one."""


@dataclass
class Listing:
    """How one list was compared: Partner Center's referrals, or the records of one CRM table.

    `known`: what the index knew of when the sweep began; `listed`: rows in `requests` pages; `pairs` of them belong to
    a link, `candidates` to none though they should; `failed`: pairs that waited for a person already; `missing`: links
    whose referral or record was not listed; `braked`: so many that nothing was done about it.
    """

    known: int = 0
    listed: int = 0
    requests: int = 0
    pairs: int = 0
    candidates: int = 0
    failed: int = 0
    missing: int = 0
    braked: bool = False


@dataclass
class Report:
    """One full sweep. `differed`: how many for each reason; `looks`: messages sent; `worked_s`: without its breaks."""

    started_utc: datetime
    finished_utc: datetime | None = None
    worked_s: float = 0
    lists: dict[str, Listing] = field(default_factory=dict)
    differed: dict[Reason, int] = field(default_factory=dict)
    looks: int = 0
    detailed: int = 0

    @property
    def key(self) -> str:
        return newest_first(self.started_utc, 0)


_REPORT = TypeAdapter(Report)
_DIFFERENCES = TypeAdapter(tuple[Difference, ...])


class Sweeps:
    def __init__(self, index_table: Table) -> None:
        self._table = index_table

    def put(self, report: Report) -> None:
        """Store the report, over an earlier one of the same sweep, and forget the oldest beyond those kept."""
        self._table.upsert(Row(REPORTS, report.key, columns(_REPORT.dump_python(report, mode="json"))))
        for old in self._table.query(REPORTS)[KEPT:]:
            for row in self._table.query(DETAILS, *_details_of(old.key)):
                self._table.delete(DETAILS, row.key)
            self._table.delete(REPORTS, old.key)

    def latest(self, limit: int = 1) -> tuple[Report, ...]:
        """Return the newest reports, newest first."""
        return tuple(_REPORT.validate_python(document(row.columns)) for row in self._table.query(REPORTS, limit=limit))

    def detail(self, report: Report, batch: int, differences: Sequence[Difference]) -> None:
        """Keep which deals differed; a batch that is repeated after a crash takes the place of the first."""
        found = columns({"differences": _DIFFERENCES.dump_python(tuple(differences), mode="json")})
        self._table.upsert(Row(DETAILS, f"{report.key}_{batch:06}", found))

    def details(self, report: Report) -> tuple[Difference, ...]:
        rows = self._table.query(DETAILS, *_details_of(report.key))
        return tuple(
            each for row in rows for each in _DIFFERENCES.validate_python(document(row.columns)["differences"])
        )


def _details_of(report_key: str) -> tuple[str, str]:
    return f"{report_key}_", f"{report_key}`"

"""What happened, entry by entry: the form an entry has as a row, and reading and pruning the entries by time.

Entries lie in the deal's own partition, so that the transaction that changes the deal also says why. Table CosellIndex
has a row per deal and day with entries, which is there before they are: it leads from a time to its deals. Nothing
changes an entry, and only `prune` takes one away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any, Literal

from pydantic import TypeAdapter

from shared.messages import Cause
from shared.model import Call, Side
from shared.store.tables import TRANSACTION_ROWS, Row, Stale, Table, columns, document

KEY_FROM, KEY_TO = "audit_", "audit`"  # "`" follows "_": every key that begins with audit_

DAYS = "audit"
"""Partition of CosellIndex: `<yyyymmdd>_<deal>`. One partition, so that what is older than a day is a range of keys;
a deal adds a row a day, far below the 2,000 a second that a partition takes.
https://learn.microsoft.com/azure/storage/tables/scalability-targets
"""

PAGE = 1_000

# Keys ascend, and the newest entry shall come first: count down from the last tick of the year 9999.
# https://learn.microsoft.com/azure/storage/tables/table-storage-design-patterns#log-tail-pattern
_LAST_TICK = 3_155_378_975_999_999_999
_LAST_NUMBER = 999_999_999

Phase = Literal["started", "done", "failed", "unknown", "looked"]


@dataclass(frozen=True)
class AuditEntry:
    """One step of one run.

    `side` is the side written, None when nothing was: of a write there is "started" and then one of "done", "failed"
    (it did not happen, or not all of it) and "unknown". `recovered`: the run that wrote did not learn of the outcome, a
    later one found it. `fields` maps a field's name to [before, after]. `decisions` has, for each field that moved
    on both sides, its `rule`, the `winner` ("" for nobody) and both values in full; `notes` the same in words.
    `message` is a remote's own words, `request_id` what its support asks for when it refused, `calls` all that the
    write took. The versions are those of the side written.
    """

    at_utc: datetime
    phase: Phase
    cause: Cause
    correlation_id: str
    event: str = ""
    side: Side | None = None
    operation: str = ""
    fields: dict[str, list[Any]] = field(default_factory=dict)
    decisions: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    message: str = ""
    request_id: str = ""
    calls: tuple[Call, ...] = ()
    recovered: bool = False
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


def day_rows(deal: str, entries: Iterable[AuditEntry]) -> dict[str, Row]:
    """Return the rows of CosellIndex that lead to these entries, by day in order."""
    days = sorted({_day(entry.at_utc) for entry in entries})
    return {day: Row(DAYS, f"{day}_{deal}", {}) for day in days}


def newest_first(at_utc: datetime, number: int) -> str:
    """Return a row key before those of earlier times; `number` orders what happened at the same time."""
    return f"{_countdown(at_utc):019d}_{_LAST_NUMBER - number:09d}"


class Audit:
    """The entries of all deals, by time."""

    def __init__(self, deals_table: Table, index_table: Table) -> None:
        self._deals = deals_table
        self._index = index_table

    def between(self, since: datetime, until: datetime) -> Iterator[tuple[str, AuditEntry]]:
        """Yield deal and entry from `since` (included) to `until` (excluded), oldest first.

        Holds one day in memory. Costs a request for each deal and day with entries, and one per 1,000 of them.
        """
        newer, older = _key_before(until), _key_before(since)
        for day, deals in groupby(
            self._deal_days(_day(since), _day(until - timedelta(microseconds=1))), key=itemgetter(0)
        ):
            midnight = datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC)
            end, start = _key_before(midnight + timedelta(days=1)), _key_before(midnight)
            found = [
                (deal, audit_entry(row))
                for _, deal in deals
                for row in reversed(self._deals.query(deal, max(newer, end), min(older, start)))
            ]
            yield from sorted(found, key=lambda each: each[1].at_utc)

    def prune(self, before: date, *, go_on: Callable[[], bool] = lambda: True) -> tuple[int, bool]:
        """Delete the entries of the days before `before`. Returns how many, and whether none is left.

        Asks `go_on` before each deal. What is interrupted goes on with the next call: a row that leads to entries is
        deleted after them.
        """
        deleted = 0
        horizon = _key_before(datetime(before.year, before.month, before.day, tzinfo=UTC))
        while days := self._index.query(DAYS, "", f"{before:%Y%m%d}", PAGE):
            for day in days:
                if not go_on():
                    return deleted, False
                deleted += self._prune_deal(_deal_day(day)[1], horizon)
                self._index.delete(DAYS, day.key)
        return deleted, True

    def _prune_deal(self, deal: str, horizon: str) -> int:
        deleted = 0
        while rows := self._deals.query(deal, horizon, KEY_TO, TRANSACTION_ROWS):
            try:
                self._deals.transact([("delete", Row(deal, row.key, {})) for row in rows])
            except Stale:
                continue  # another run was quicker: see what is left
            deleted += len(rows)
        return deleted

    def _deal_days(self, first: str, last: str) -> Iterator[tuple[str, str]]:
        """Yield each day with entries from the first to the last, and each of its deals."""
        key_from = first
        while True:
            rows = self._index.query(DAYS, key_from, f"{last}`", PAGE)  # "`" follows "_"
            yield from map(_deal_day, rows)
            if len(rows) < PAGE:
                return
            key_from = rows[-1].key + " "  # before every key that begins with it


def as_json(deal: str, entry: AuditEntry) -> Mapping[str, Any]:
    """Return the entry with its deal, without what is empty, as JSON has it."""
    filled = {name: value for name, value in _ENTRY.dump_python(entry, mode="json").items() if value or value == 0}
    return {"at_utc": filled.pop("at_utc"), "deal": deal, **filled}


def _countdown(at_utc: datetime) -> int:
    return _LAST_TICK - (at_utc - datetime(1, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 10


def _key_before(at_utc: datetime) -> str:
    """Return the key from which on entries are older than `at_utc`."""
    return f"{KEY_FROM}{_countdown(at_utc) + 1:019d}"


def _day(at_utc: datetime) -> str:
    return f"{at_utc.astimezone(UTC):%Y%m%d}"


def _deal_day(row: Row) -> tuple[str, str]:
    day, _, deal = row.key.partition("_")
    return day, deal

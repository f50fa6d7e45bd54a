"""Reads what changed in a Salesforce object since a cursor, and what was deleted, with one request a poll.

Times are given when a row is written, but a transaction shows its rows when it ends: a row can turn up behind newer
ones. /updated tells up to when nothing can turn up any more; the cursor never moves past that, and each poll looks
back by an overlap besides. What was reported in it is remembered by version, so that nothing is reported twice.

Never keeps state of its own: where the next poll starts is all in the cursor, which is opaque to everyone else.

https://developer.salesforce.com/docs/platform/api-rest/guide/resources-getupdated.md
https://developer.salesforce.com/docs/platform/api-rest/guide/resources-getdeleted.md
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode, urlsplit

from shared.errors import Permanent
from shared.model import ChangePage, Record, RecordChange, RecordPage, RecordRef
from shared.remote.crm import TableShape
from shared.remote.http import Remote
from shared.remote.salesforce_composite import Part, query, send
from shared.remote.salesforce_rows import (
    CHILD_OBJECTS,
    columns_of,
    literal,
    moment,
    select,
    utc_text,
    value_at,
)

log = logging.getLogger(__name__)

OVERLAP = timedelta(minutes=10)
LATE = timedelta(minutes=5)
"""How late a row is thought to turn up where the org does not tell."""
UPDATED_REACHES_BACK = timedelta(days=29)
DELETED_REACHES_BACK = timedelta(days=14)
"""The windows end at 30 and at 15 days; a day is left for what the clocks differ."""

PAGE_SIZE = 1000
"""Of a list of all records. A page of rows that have children may be shorter than asked for."""
REMEMBERED = 5_000
"""A row in Table Storage ends at 1 MiB; what is not remembered is only looked at once more."""
STAMP = "SystemModstamp"
ROWS = "rows"
FIRST_ROWS = f"{ROWS}0"


@dataclass(frozen=True)
class Cursor:
    """`since`: up to when everything was reported, "" before the first poll; `seen`: the versions reported since then
    and within the overlap before, which the next poll sees again. `whole`: report every record there is; `columns`:
    what the versions were made of.
    """

    columns: str
    since: str = ""
    whole: bool = True
    seen: Mapping[str, str] = field(default_factory=dict)

    def text(self) -> str:
        return json.dumps(asdict(self))


class ChangeFeed:
    """The changes of one object. `columns` are those that can be read, `record` makes a record of a row."""

    def __init__(
        self,
        remote: Remote,
        shape: TableShape,
        columns: Sequence[str],
        record: Callable[[Mapping[str, Any]], Record],
        clock: Callable[[], datetime],
    ) -> None:
        self._remote = remote
        self._shape = shape
        self._columns = [column for column in columns if column not in shape.display]
        self._record = record
        self._clock = clock

    def since(self, text: str | None) -> Iterator[ChangePage]:
        """Ask now, and return pages of changes to be taken one by one; the last one carries the next cursor."""
        cursor = self._cursor(text)
        return self._changes(cursor, self._ask(cursor))

    def shared(self, after: str | None) -> RecordPage:
        """Return a page of all shared records in the order of their ids. `after` is the last id of the page before.

        So it never expires, as the org's own cursors do after two days.
        """
        beyond = f"Id > {literal(after)} AND " if after else ""
        chosen = select(self._shape.table, self._columns)
        soql = f"{chosen} WHERE {beyond}{self._shared()} ORDER BY Id ASC LIMIT {PAGE_SIZE}"
        answer = self._remote.json("GET", "query", params={"q": soql})
        rows = answer["records"]
        is_last = answer["done"] and len(rows) < PAGE_SIZE
        return RecordPage(tuple(map(self._listed, rows)), None if is_last or not rows else rows[-1]["Id"])

    def _listed(self, row: Mapping[str, Any]) -> RecordChange:
        """Unlike in the feed, a record of which only our own mark is left asks for nothing."""
        asks = any(value_at(row, column) for column in (self._shape.referral_id, self._shape.sync_flag) if column)
        return RecordChange(self._ref(row["Id"]), self._record(row).version, shared=asks)

    def _changes(self, cursor: Cursor, answers: Mapping[str, Any]) -> Iterator[ChangePage]:
        until = max(cursor.since, utc_text(moment(answers["updated"]["latestDateCovered"])))
        seen_again = utc_text(moment(until) - OVERLAP)
        seen: dict[str, str] = {}
        for name, rows in self._pages(answers):
            versions = {row["Id"]: self._record(row).version for row in rows}
            yield ChangePage(
                tuple(
                    RecordChange(self._ref(record_id), version)
                    for record_id, version in versions.items()
                    if version not in (cursor.seen.get(record_id), seen.get(record_id))
                )
            )
            # A record that a row below it brought up is seen again whenever it was saved itself.
            late = {row["Id"] for row in rows if name != FIRST_ROWS or utc_text(moment(row[STAMP])) >= seen_again}
            seen |= {record_id: version for record_id, version in versions.items() if record_id in late}
        gone = {row["id"]: f"deleted {row['deletedDate']}" for row in answers["deleted"]["deletedRecords"]}
        news = [record_id for record_id, when in gone.items() if cursor.seen.get(record_id) != when]
        kept = dict(list((seen | gone).items())[-REMEMBERED:])
        following = replace(cursor, since=until, whole=False, seen=kept)
        yield ChangePage(tuple(RecordChange(self._ref(each), deleted=True) for each in news), following.text())

    def _cursor(self, text: str | None) -> Cursor:
        fresh = Cursor(",".join(columns_of(self._shape)))
        if text is None:
            return fresh
        try:
            cursor = Cursor(**json.loads(text))
            if cursor.since:
                moment(cursor.since)
        except (TypeError, ValueError):
            log.warning("crm.change_cursor_unreadable", extra={"table": self._shape.table})
            return fresh
        # What was deleted meanwhile is not to be missed when everything is reported anew.
        return cursor if cursor.columns == fresh.columns else replace(fresh, since=cursor.since)

    # ------------------------------------------------------------ asking

    def _ask(self, cursor: Cursor) -> dict[str, Any]:
        """Return the answers by name. /updated is asked first: what it covers, the query after it sees."""
        now = self._clock()
        start = moment(cursor.since) - OVERLAP if cursor.since else now - OVERLAP
        # Seconds are cut off, and a window must span a minute.
        until = now.replace(second=0, microsecond=0)
        updated = self._window("updated", max(start, until - UPDATED_REACHES_BACK), until)
        deleted = self._window("deleted", max(start, until - DELETED_REACHES_BACK), until)
        rows = [query(f"{ROWS}{number}", soql) for number, soql in enumerate(self._queries(cursor, start))]
        try:
            answers = send(self._remote, [updated, *rows, deleted])
        except Permanent as refused:
            if refused.part != "updated":
                raise
            log.warning("crm.updated_refused", extra={"table": self._shape.table, "reason": str(refused)})
            answers = {"updated": {"latestDateCovered": utc_text(now - LATE)}, **send(self._remote, [*rows, deleted])}
        self._tell_gap(cursor, answers["deleted"])
        return answers

    def _window(self, name: str, start: datetime, until: datetime) -> Part:
        ends = {"start": min(start, until - timedelta(minutes=1)), "end": until}
        window = urlencode({name: f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}+00:00" for name, at in ends.items()})
        return Part(name, "GET", f"sobjects/{self._shape.table}/{name}/?{window}")

    def _queries(self, cursor: Cursor, start: datetime) -> Iterator[str]:
        """Yield the query for the records themselves, and one for each kind of row below them that is mapped.

        A row below a record that changes, say the contact's role, does not touch the record.
        """
        chosen, order = select(self._shape.table, [*self._columns, STAMP]), f"ORDER BY {STAMP} ASC, Id ASC"
        if cursor.whole:
            yield f"{chosen} WHERE {self._shared()} {order}"
            return
        since = literal(start)
        yield f"{chosen} WHERE {STAMP} >= {since} AND {self._shared()} {order}"
        for child in dict.fromkeys(c.split(".")[0] for c in self._columns if c.split(".")[0] in CHILD_OBJECTS):
            parents = f"{select(CHILD_OBJECTS[child], [f'{self._shape.table}Id'])} WHERE {STAMP} >= {since}"
            yield f"{chosen} WHERE Id IN ({parents}) AND {self._shared()} {order}"

    def _shared(self) -> str:
        """The condition that holds for every record that concerns us, be it that it was switched off."""
        shape = self._shape
        flag = [f"{shape.sync_flag} = true"] if shape.sync_flag else []
        filled = [f"{column} != null" for column in (shape.referral_id, shape.sync_status) if column in self._columns]
        return f"({' OR '.join([*flag, *filled])})"

    def _pages(self, answers: Mapping[str, Any]) -> Iterator[tuple[str, Sequence[Mapping[str, Any]]]]:
        """Yield the rows of each query, page by page, with the query's name."""
        host = urlsplit(self._remote.base_url)
        for name in (name for name in answers if name.startswith(ROWS)):
            answer = answers[name]
            yield name, answer["records"]
            while not answer["done"]:
                answer = self._remote.json("GET", f"{host.scheme}://{host.netloc}{answer['nextRecordsUrl']}")
                yield name, answer["records"]

    def _tell_gap(self, cursor: Cursor, deleted: Mapping[str, Any]) -> None:
        """The org forgets what was deleted after two weeks, or when the bin was emptied."""
        earliest = deleted.get("earliestDateAvailable")
        if cursor.since and earliest and moment(earliest) > moment(cursor.since):
            log.warning("crm.deletions_unknown", extra={"table": self._shape.table, "until": earliest})

    def _ref(self, record_id: str) -> RecordRef:
        return RecordRef(self._shape.table, record_id)

"""Reads what changed in a Dataverse table since a cursor: by change tracking, or where that is off by modifiedon.

Never keeps state of its own: where the next poll starts is all in the cursor, which is opaque to everyone else.

https://learn.microsoft.com/power-apps/developer/data-platform/use-change-tracking-synchronize-data-external-systems
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from shared.errors import Forbidden, Refused
from shared.model import ChangePage, RecordChange, RecordPage, RecordRef
from shared.remote.crm import TableShape
from shared.remote.dataverse_errors import EXPIRED_VERSION_STAMP
from shared.remote.dataverse_rows import primary_id, set_name
from shared.remote.http import Remote

log = logging.getLogger(__name__)

PAGE_SIZE = 1000
OVERLAP = timedelta(minutes=10)
"""modifiedon is the time of a transaction, not of its commit: a row may turn up behind the newest one seen."""
ASK_FOR_TRACKING_AGAIN = timedelta(days=1)


@dataclass(frozen=True)
class Cursor:
    """Where the next poll starts: `delta` with change tracking, else `since` and the rows `seen` within the overlap.

    `columns`: what was selected, because a delta link keeps the selection it was made with. `refused_at`: the value of
    `since` when change tracking was last refused.
    """

    columns: str
    delta: str = ""
    since: str = ""
    refused_at: str = ""
    seen: Mapping[str, str] = field(default_factory=dict)

    def text(self) -> str:
        return json.dumps(asdict(self))


class ChangeFeed:
    """The changes of one table."""

    def __init__(self, remote: Remote, shape: TableShape) -> None:
        self._remote = remote
        self._shape = shape
        self._id = primary_id(shape.table)
        # Whether a change outside $select brings the row is not documented, so every mapped column is selected; the
        # worker reads the deal anew all the same. What only we write, and write at length, is left out.
        columns = [c for c in shape.columns if "." not in c and c not in shape.display]
        wanted = [self._id, *self._marks(), *columns, "modifiedon"]
        self._columns = ",".join(dict.fromkeys(filter(None, wanted)))

    def since(self, text: str | None) -> Iterator[ChangePage]:
        """Yield pages of changes; the last one carries the next cursor."""
        cursor = self._cursor(text)
        if cursor.delta:
            try:
                yield from self._tracked(cursor)
            except (Refused, Forbidden) as refused:
                self._warn("crm.change_feed_starts_over", refused, expired=refused.code == EXPIRED_VERSION_STAMP)
                cursor = Cursor(self._columns)
            else:
                return
        if not _may_ask_for_tracking(cursor):
            yield from self._polled(cursor)
            return
        try:
            yield from self._tracked(Cursor(self._columns))
        except (Refused, Forbidden) as refused:
            # Change tracking is off for the table, or the role lacks organization-level Read.
            self._warn("crm.change_tracking_refused", refused)
            yield from self._polled(replace(cursor, refused_at=cursor.since))

    def shared(self, after: str | None) -> RecordPage:
        """Return a page of all shared rows. `after` is a nextLink: where to go on is all in it, and it does not expire.

        In the order of createdon, which no edit changes.
        https://learn.microsoft.com/power-apps/developer/data-platform/webapi/query/page-results
        """
        headers = {"Prefer": f"odata.maxpagesize={PAGE_SIZE}"}
        if after:
            answer = self._remote.json("GET", after, headers=headers)
        else:
            options = {
                "$select": ",".join(dict.fromkeys([self._id, *self._marks()])),
                "$filter": self._filter(""),
                "$orderby": f"createdon asc,{self._id} asc",
            }
            answer = self._remote.json("GET", set_name(self._shape.table), params=options, headers=headers)
        return RecordPage(tuple(map(self._listed, answer["value"])), answer.get("@odata.nextLink"))

    def _listed(self, row: Mapping[str, Any]) -> RecordChange:
        """Unlike in the feed, a record of which only our own mark is left asks for nothing."""
        asks = any(row.get(column) for column in (self._shape.referral_id, self._shape.sync_flag) if column)
        return replace(self._change(row), shared=asks)

    def _cursor(self, text: str | None) -> Cursor:
        if text is None:
            return Cursor(self._columns)
        try:
            cursor = Cursor(**json.loads(text))
        except (TypeError, ValueError):
            log.warning("crm.change_cursor_unreadable", extra={"table": self._shape.table})
            return Cursor(self._columns)
        return cursor if cursor.columns == self._columns else Cursor(self._columns)

    def _tracked(self, cursor: Cursor) -> Iterator[ChangePage]:
        """Yield the changes behind the delta link; without one every row there is, and a first delta link."""
        preferences = [f"odata.maxpagesize={PAGE_SIZE}", *([] if cursor.delta else ["odata.track-changes"])]
        headers = {"Prefer": ",".join(preferences)}
        if cursor.delta:
            answer = self._remote.json("GET", cursor.delta, headers=headers)
        else:
            options = {"$select": self._columns}
            answer = self._remote.json("GET", set_name(self._shape.table), params=options, headers=headers)
        while next_link := answer.get("@odata.nextLink"):
            yield ChangePage(self._changes(answer))
            answer = self._remote.json("GET", next_link, headers=headers)
        delta = answer.get("@odata.deltaLink") or cursor.delta
        if not delta:
            raise Refused(f"{self._remote.name} answered {self._shape.table} without a delta link")
        yield ChangePage(self._changes(answer), Cursor(self._columns, delta=delta).text())

    def _polled(self, cursor: Cursor) -> Iterator[ChangePage]:
        """Yield shared rows modified since the cursor less the overlap, without those reported before."""
        options = {
            "$select": self._columns,
            "$filter": self._filter(cursor.since),
            "$orderby": f"modifiedon asc,{self._id} asc",
        }
        headers = {"Prefer": f"odata.maxpagesize={PAGE_SIZE}"}
        answer = self._remote.json("GET", set_name(self._shape.table), params=options, headers=headers)
        rows: list[tuple[str, RecordChange]] = []
        while True:
            page = [(row["modifiedon"], self._change(row)) for row in answer["value"]]
            rows += page
            news = tuple(change for _, change in page if cursor.seen.get(change.ref.id) != change.version)
            next_link = answer.get("@odata.nextLink")
            if not next_link:
                break
            yield ChangePage(news)
            answer = self._remote.json("GET", next_link, headers=headers)
        since = max([cursor.since, *(modified for modified, _ in rows)])
        seen = {change.ref.id: change.version or "" for modified, change in rows if modified >= _earlier(since)}
        refused_at = cursor.refused_at or since
        yield ChangePage(news, replace(cursor, since=since, seen=seen, refused_at=refused_at).text())

    def _filter(self, since: str) -> str:
        flag = self._shape.sync_flag
        marks = [f"{column} eq true" if column == flag else f"{column} ne null" for column in self._marks()]
        shared = f"({' or '.join(marks)})"
        return f"modifiedon ge {_earlier(since)} and {shared}" if since else shared

    def _changes(self, answer: Mapping[str, Any]) -> tuple[RecordChange, ...]:
        return tuple(map(self._change, answer["value"]))

    def _change(self, row: Mapping[str, Any]) -> RecordChange:
        table = self._shape.table
        if row.get("reason") == "deleted":
            return RecordChange(RecordRef(table, row["id"]), deleted=True)
        shared = any(row.get(column) for column in self._marks())
        return RecordChange(RecordRef(table, row[self._id]), version=row["@odata.etag"], shared=shared)

    def _marks(self) -> list[str]:
        """The columns one of which is filled on every record that concerns us, be it that it was switched off."""
        shape = self._shape
        return [column for column in (shape.referral_id, shape.sync_flag, shape.sync_status) if column]

    def _warn(self, event: str, refused: Refused | Forbidden, **fields: Any) -> None:
        details = {"table": self._shape.table, "code": refused.code, "reason": str(refused)}
        log.warning(event, extra={**details, **fields})


def _may_ask_for_tracking(cursor: Cursor) -> bool:
    """Whether to try change tracking: until a shared row is there, and a day (of the CRM's clock) after a refusal."""
    if not cursor.since or not cursor.refused_at:
        return True
    return _moment(cursor.since) - _moment(cursor.refused_at) > ASK_FOR_TRACKING_AGAIN


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _earlier(since: str) -> str:
    return f"{_moment(since) - OVERLAP:%Y-%m-%dT%H:%M:%SZ}" if since else ""

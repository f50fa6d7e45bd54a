"""Pages of a query, and change tracking: delta tokens, deletions, expiry. Changes nothing.

https://learn.microsoft.com/power-apps/developer/data-platform/use-change-tracking-synchronize-data-external-systems
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from local.simulators.dataverse.errors import refuse
from local.simulators.dataverse.organization import Row, Tombstone

if TYPE_CHECKING:
    from local.simulators.dataverse.organization import Organization
    from local.simulators.dataverse.query import Query
    from local.simulators.dataverse.schema import Table

MAX_PAGE = 5000
REFUSED_WITH_TRACKING = ("filter", "orderby", "expand", "top")
COOKIE = re.compile(r'<cookie pagenumber="(\d+)" pagingcookie="([^"]*)" istracking="(True|False)" />')
TOKEN_TIME = "%m/%d/%Y %H:%M:%S"


@dataclass(frozen=True)
class Page:
    """One answer: rows (and, in a delta, deletions), and how to go on."""

    items: list[Row | Tombstone]
    cookie: str | None = None  # of the next page
    token: str | None = None  # delta token, on the last page of a tracked read
    total: int = 0


@dataclass(frozen=True)
class Cookie:
    """Where a paged read stands. Opaque to the client."""

    number: int
    tracking: bool
    after: Any  # sort keys of the last row of a query; id of the last row of a baseline; number of items of a delta
    since: int | None = None  # a delta shows versions after this one
    until: int = 0  # version when a tracked read began: later writes belong to the next delta

    def encode(self) -> str:
        state = quote(json.dumps([self.after, self.since, self.until], default=str), safe="")
        return f'<cookie pagenumber="{self.number}" pagingcookie="{state}" istracking="{self.tracking}" />'

    @classmethod
    def decode(cls, text: str) -> Cookie:
        match = COOKIE.fullmatch(text)
        try:
            after, since, until = json.loads(unquote(match[2] if match else ""))
        except ValueError as exc:
            raise refuse("InvalidArgument", message="Malformed XML in the Paging Cookie") from exc
        return cls(int(match[1]) if match else 0, bool(match and match[3] == "True"), after, since, until)


def query_page(rows: list[Row], query: Query, size: int | None, cookie: Cookie | None) -> Page:
    """A page of an ordinary query. `size` None: the client set no page size, so $top counts."""
    found = query.sort([row for row in rows if query.matches is None or query.matches(row)])
    total = len(found)
    if cookie:  # it names the last row shown, so that rows that come or go in between shift nothing
        last = query.sort_keys_from_text(cookie.after)
        found = [row for row in found if query.compare(query.sort_keys(row), last) > 0]
    if size is None and query.top is not None:
        return Page([*found[: query.top]], total=total)
    limit = min(size or MAX_PAGE, MAX_PAGE)
    if len(found) <= limit:
        return Page([*found], total=total)
    following = Cookie(cookie.number + 1 if cookie else 2, False, query.sort_keys(found[limit - 1]))
    return Page([*found[:limit]], following.encode(), total=total)


def baseline_page(org: Organization, rows: list[Row], size: int | None, cookie: Cookie | None) -> Page:
    """A page of the first tracked read: every row. Its token is of the moment the read began."""
    cookie = cookie or Cookie(1, True, "", None, org.version)
    rest = sorted((row for row in rows if row.id > cookie.after), key=lambda row: row.id)
    limit = min(size or MAX_PAGE, MAX_PAGE)
    if len(rest) <= limit:
        return Page([*rest], token=new_token(org, cookie.until), total=len(rows))
    following = Cookie(cookie.number + 1, True, rest[limit - 1].id, None, cookie.until)
    return Page([*rest[:limit]], following.encode(), total=len(rows))


def delta_page(org: Organization, table: Table, rows: list[Row], size: int | None, cookie: Cookie) -> Page:
    """A page of changes after `cookie.since`: rows in their latest state, oldest change first, then deletions.

    A row that changes while the pages are read moves past `until`: it may be missing here, and is in the next delta.
    """
    since = cookie.since or 0
    changed: list[Row | Tombstone] = [*sorted((r for r in rows if since < r.version), key=lambda row: row.version)]
    living = org.rows[table.name]
    changed += [stone for stone in org.tombstones[table.name] if since < stone.version and stone.id not in living]
    shown_upto, deletions_begun = cookie.after
    rest = [
        item
        for item in changed
        if item.version <= cookie.until
        and (isinstance(item, Tombstone), item.version) > (bool(deletions_begun), shown_upto)
    ]
    limit = min(size or MAX_PAGE, MAX_PAGE)
    if len(rest) <= limit:
        return Page(rest, token=new_token(org, cookie.until), total=len(changed))
    last = rest[limit - 1]
    after = [last.version, isinstance(last, Tombstone)]
    return Page(rest[:limit], Cookie(cookie.number + 1, True, after, since, cookie.until).encode(), total=len(changed))


def begin_delta(org: Organization, table: Table, token: str) -> Cookie:
    """A delta read from this token on. Raises ExpiredVersionStamp."""
    version, _, text = token.partition("!")
    try:
        issued = datetime.strptime(text, TOKEN_TIME).replace(tzinfo=UTC)
        since = int(version)
    except ValueError as exc:
        raise refuse("BadQuery", message=f"Invalid delta token '{token}'.") from exc
    lifetime = timedelta(days=org.settings.values["expirechangetrackingindays"])
    if since < table.delta_tokens_from or org.clock.now() - issued > lifetime:
        raise refuse("ExpiredVersionStamp")
    return Cookie(1, True, [0, False], since, org.version)


def new_token(org: Organization, version: int) -> str:
    return f"{version}!{org.clock.now().strftime(TOKEN_TIME)}"


def require_tracking(table: Table, options: dict[str, str]) -> None:
    for option in REFUSED_WITH_TRACKING:
        if f"${option}" in options:
            raise refuse("NotWithChangeTracking", option=option)
    if not table.change_tracking:
        raise refuse("ChangeTrackingOff", table=table.name)

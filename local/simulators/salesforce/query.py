"""/query, /queryAll and their pages. A cursor is a snapshot of ids; the values are those of when a page is read.

https://developer.salesforce.com/docs/platform/api-rest/guide/resources-query.md
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from local.simulators.base import Response
from local.simulators.salesforce.errors import NO_RELATIONSHIP, NOT_SUPPORTED, refuse
from local.simulators.salesforce.filters import Column, Scope
from local.simulators.salesforce.organization import Organization, Row
from local.simulators.salesforce.payload import render
from local.simulators.salesforce.protocol import Call, answer, wrong_method
from local.simulators.salesforce.soql import Path, Select, caret, parse

MOST_OFFSET = 2000
CURSOR_LIVES = timedelta(days=2)


@dataclass(frozen=True)
class Subquery:
    relationship: str
    scope: Scope
    foreign_key: str
    select: Select
    items: tuple[Column, ...]


@dataclass(frozen=True)
class Cursor:
    user: str
    opened_at: datetime
    scope: Scope
    items: tuple[Column | Subquery, ...]
    ids: tuple[str, ...]
    page_size: int


@dataclass
class Cursors:
    """The open cursors of an org by locator."""

    org: Organization
    open: dict[str, Cursor] = field(default_factory=dict)

    def query(self, call: Call, *, include_deleted: bool) -> Response:
        """GET /query?q=..., /queryAll?q=..."""
        if call.method != "GET":
            raise wrong_method(call, "GET", "HEAD")
        call.check_query("q")
        text = call.request.query.get("q", "")
        if not text.strip():
            raise refuse("Malformed", message="A query string has to be specified")
        tree = parse(text)
        sobject = call.org.access.object_named(tree.source, call.user)
        if sobject is None:
            raise caret("QueryType", text, tree.source_at, NOT_SUPPORTED.format(name=tree.source))
        scope = Scope(call.org, call.user, text, sobject, include_deleted)
        return self.run(call, scope, tree)

    def run(self, call: Call, scope: Scope, tree: Select) -> Response:
        items = select_items(scope, tree)
        page_size = min(call.batch_size, call.org.page_size)
        rows = matching(scope, tree)
        if tree.counts:
            return answer(200, {"totalSize": len(rows), "done": True, "records": []})
        ids = tuple(row.id for row in rows)
        cursor = Cursor(call.user, call.org.clock.now(), scope, items, ids, page_size)
        locator = call.org.ids.next("01g") if len(ids) > page_size else ""
        if locator:
            self.open[locator] = cursor
        return _page(call, locator, cursor, 0)

    def page(self, call: Call, text: str) -> Response:
        """GET /query/{locator}-{offset}"""
        if call.method != "GET":
            raise wrong_method(call, "GET", "HEAD")
        call.check_query()
        locator, _, offset = text.partition("-")
        cursor = self.open.get(locator)
        known = cursor and cursor.user == call.user and call.org.clock.now() - cursor.opened_at < CURSOR_LIVES
        if cursor is None or not known or not offset.isdigit() or int(offset) > len(cursor.ids):
            raise refuse("NoLocator")
        return _page(call, locator, cursor, int(offset))


def select_items(scope: Scope, tree: Select) -> tuple[Column | Subquery, ...]:
    """What is selected. Raises when something of it does not exist."""
    items: list[Column | Subquery] = []
    seen: set[tuple[str, ...]] = set()
    for item in tree.items:
        if isinstance(item, Path):
            key = tuple(part.lower() for part in item.parts)
            if key in seen:
                raise refuse("QueryField", message=f"duplicate field selected: {item.text}")
            seen.add(key)
            items.append(scope.column(item))
        else:
            items.append(_subquery(scope, item))
    return tuple(items)


def _subquery(scope: Scope, tree: Select) -> Subquery:
    relations = {name.lower(): (name, *target) for name, target in scope.sobject.children.items()}
    name, child, foreign_key = relations.get(tree.source.lower(), ("", "", ""))
    sobject = scope.org.access.object_named(child, scope.user) if child else None
    if sobject is None:
        words = NO_RELATIONSHIP.format(name=tree.source, place="FROM part of query call")
        raise scope.refusal("QueryType", tree.source_at, words)
    if tree.counts:
        raise refuse("NotSimulated", what="count() in a subquery")
    inner = Scope(scope.org, scope.user, scope.text, sobject, scope.include_deleted)
    inner.test(tree.where)
    inner.sorted([], tree.order)
    columns = tuple(item for item in select_items(inner, tree) if isinstance(item, Column))
    return Subquery(name, inner, foreign_key, tree, columns)


def matching(scope: Scope, tree: Select) -> list[Row]:
    if tree.offset > MOST_OFFSET:
        raise refuse("NumberRange", message="Maximum SOQL offset allowed is 2000")
    test = scope.test(tree.where)
    rows = scope.sorted([row for row in scope.rows() if test(row)], tree.order)
    end = None if tree.limit is None else tree.offset + tree.limit
    return rows[tree.offset : end]


def _page(call: Call, locator: str, cursor: Cursor, offset: int) -> Response:
    end = offset + cursor.page_size
    records = []
    for row_id in cursor.ids[offset:end]:
        row = call.org.rows[cursor.scope.sobject.name].get(row_id)
        if row and (cursor.scope.include_deleted or not row.deleted):
            records.append(record(call, row, cursor.items))
    body: dict[str, Any] = {"totalSize": len(cursor.ids), "done": end >= len(cursor.ids)}
    if not body["done"]:
        body["nextRecordsUrl"] = f"{call.base}/query/{locator}-{end}"
    return answer(200, {**body, "records": records})


def record(call: Call, row: Row, items: tuple[Column | Subquery, ...]) -> dict[str, Any]:
    """A row as selected: own fields, parents nested by relationship, children as results of their own."""
    shown: dict[str, Any] = {"attributes": call.attributes(row)}
    for item in items:
        if isinstance(item, Subquery):
            shown[item.relationship] = _children(call, row, item)
            continue
        into: dict[str, Any] | None = shown
        for depth, lookup in enumerate(item.lookups, 1):
            parent = Column(item.lookups[:depth], item.field).row(call.org, row)
            name = lookup.relation or lookup.name
            if parent is None:
                if into is not None:
                    into[name] = None
                into = None
                break
            if into is not None:
                kind = "Name" if len(lookup.targets) > 1 else ""
                into = into.setdefault(name, {"attributes": call.attributes(parent, kind)})
        if into is not None:
            into[item.field.name] = render(item.value(call.org, row))
    return shown


def _children(call: Call, row: Row, item: Subquery) -> dict[str, Any] | None:
    test = item.scope.test(item.select.where)
    own = [child for child in item.scope.rows() if child.values[item.foreign_key] == row.id and test(child)]
    end = None if item.select.limit is None else item.select.offset + item.select.limit
    children = item.scope.sorted(own, item.select.order)[item.select.offset : end]
    if not children:
        return None
    records = [record(call, child, item.items) for child in children]
    return {"totalSize": len(records), "done": True, "records": records}

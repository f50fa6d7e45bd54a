"""Finds the accounts and contacts that a new record refers to, and makes those that are missing, together with it.

Everything is made in one transaction with the record, whose external id says whether it happened: a run that dies
leaves all of it or nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from threading import Lock
from typing import Any

from shared.errors import Permanent
from shared.remote.crm import RelatedRow
from shared.remote.http import Remote
from shared.remote.salesforce_composite import MOST_QUERIES, Part, query, send, unreferring
from shared.remote.salesforce_errors import DUPLICATES_DETECTED
from shared.remote.salesforce_rows import select, where

log = logging.getLogger(__name__)

RELATED = "related"
MOST_ROWS = 12
"""A request has 25 calls: an account and eleven contacts, ten of whom get a role, the record, and its reading."""

ASSIGNED_BY_RULES = frozenset({"Account", "Lead"})


def write_headers(table: str) -> dict[str, str]:
    """Return the headers that keep the org's rules from doing what nobody asked for.

    Without the first, assignment rules hand a lead to somebody else at each write. The second saves what a duplicate
    rule only warns of; what it blocks stays blocked.
    https://developer.salesforce.com/docs/platform/api-rest/guide/headers-autoassign.md
    https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/headers_duplicaterules.htm
    """
    headers = {"Sforce-Auto-Assign": "FALSE"} if table in ASSIGNED_BY_RULES else {}
    return headers | {"Sforce-Duplicate-Rule-Header": "allowSave=true"}


class RelatedRows:
    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        # Two deals of one new customer, on two threads, are to get one account.
        self._one_at_a_time = Lock()

    def make_with(
        self,
        table: str,
        related: Sequence[RelatedRow],
        record: Callable[[Mapping[str, str]], list[Part]],
        read: Part,
    ) -> dict[str, Any]:
        """Make the record, given the columns that link it, and all that it refers to; return the answers by part.

        A row that a duplicate rule blocks is replaced by the one it found. Another refusal of a row has its number in
        `related` as `part`, and its object before the field.
        """
        wanted = _without_repetition(related)
        if len(wanted) > MOST_ROWS:
            log.warning("crm.people_left_out", extra={"table": table, "count": len(wanted) - MOST_ROWS})
            wanted = dict(list(wanted.items())[:MOST_ROWS])
        with self._one_at_a_time if wanted else nullcontext():
            known = self._find(wanted)
            while True:
                ids = {name: known.get(name) or f"@{{{name}.id}}" for name in wanted}
                parts = [*_missing(wanted, known, ids), *record(_links(wanted, ids)), *_roles(table, wanted, ids), read]
                try:
                    return send(self._remote, parts, create=True)
                except Permanent as refused:
                    if refused.part not in wanted:
                        raise
                    if refused.code != DUPLICATES_DETECTED or not refused.existing:
                        refused.field = f"{wanted[refused.part].table}.{refused.field}"
                        refused.part = refused.part.removeprefix(RELATED)
                        raise
                    known[refused.part] = refused.existing

    def _find(self, wanted: Mapping[str, RelatedRow]) -> dict[str, str]:
        """Return the ids of rows that are there, by part."""
        queries = [
            query(name, f"{select(row.table, ['Id'])} WHERE {where(row.match)} ORDER BY CreatedDate ASC LIMIT 1")
            for name, row in wanted.items()
        ]
        found: dict[str, str] = {}
        for start in range(0, len(queries), MOST_QUERIES):
            answers = send(self._remote, queries[start : start + MOST_QUERIES])
            found |= {name: answer["records"][0]["Id"] for name, answer in answers.items() if answer["records"]}
        return found


def _without_repetition(related: Sequence[RelatedRow]) -> dict[str, RelatedRow]:
    """Return the rows by part. The same person twice in a list of people is one contact."""
    rows: dict[tuple[Any, ...], tuple[str, RelatedRow]] = {}
    for number, row in enumerate(related):
        key = (row.table, *sorted((name, str(value).casefold()) for name, value in row.match.items()))
        rows.setdefault(key, (f"{RELATED}{number}", row))
    return dict(rows.values())


def _missing(wanted: Mapping[str, RelatedRow], known: Mapping[str, str], ids: Mapping[str, str]) -> list[Part]:
    links = _links(wanted, ids)
    return [
        Part(name, "POST", f"sobjects/{row.table}", _body(row, links), write_headers(row.table))
        for name, row in wanted.items()
        if name not in known
    ]


def _body(row: RelatedRow, links: Mapping[str, str]) -> dict[str, Any]:
    parent = {row.parent_link: links[row.parent]} if row.parent_link and row.parent in links else {}
    return {**unreferring({**row.match, **row.values}), **parent}


def _links(wanted: Mapping[str, RelatedRow], ids: Mapping[str, str]) -> dict[str, str]:
    """The columns of the record that refer to a row."""
    return {row.link: ids[name] for name, row in wanted.items() if row.link}


def _roles(table: str, wanted: Mapping[str, RelatedRow], ids: Mapping[str, str]) -> list[Part]:
    """The rows that join further contacts to the record; the first one's the org makes itself, out of ContactId."""
    return [
        Part(
            f"role_{name}",
            "POST",
            f"sobjects/{row.role}",
            {f"{table}Id": "@{write.id}", f"{row.table}Id": ids[name]},
        )
        for name, row in wanted.items()
        if row.role and not row.link
    ]

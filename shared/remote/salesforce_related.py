"""Finds the accounts and contacts that a new record refers to, and makes those that are missing, together with it.

Everything is made in one transaction with the record, whose external id says whether it happened: a run that dies
leaves all of it or nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from shared.errors import Refused
from shared.remote.crm import RelatedRow
from shared.remote.http import Remote
from shared.remote.salesforce_composite import MOST_QUERIES, Part, query, send
from shared.remote.salesforce_errors import DUPLICATES_DETECTED
from shared.remote.salesforce_rows import select, where

MOST_ROWS = 10
"""A request has 25 calls, and each contact may take two; more people than these are left in Partner Center."""

ASSIGNED_BY_RULES = frozenset({"Account", "Lead"})


def write_headers(table: str, *, creating: bool = False) -> dict[str, str]:
    """Return the headers that keep the org's rules from doing what nobody asked for.

    Without the first, assignment rules hand a lead to somebody else at each write. The second saves what a duplicate
    rule only warns of; what it blocks stays blocked.
    https://developer.salesforce.com/docs/platform/api-rest/guide/headers-autoassign.md
    https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api/headers_duplicaterules.htm
    """
    headers = {"Sforce-Auto-Assign": "FALSE"} if table in ASSIGNED_BY_RULES else {}
    return headers | ({"Sforce-Duplicate-Rule-Header": "allowSave=true"} if creating else {})


class RelatedRows:
    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    def make_with(
        self,
        table: str,
        related: Sequence[RelatedRow],
        record: Callable[[Mapping[str, str]], list[Part]],
        read: Part,
    ) -> dict[str, Any]:
        """Make the record, given the columns that link it, and all that it refers to; return the answers by part.

        A row that a duplicate rule blocks is replaced by the one it found.
        """
        wanted = _without_repetition(related)[:MOST_ROWS]
        known = self._find(wanted)
        while True:
            ids = {name: known.get(name) or f"@{{{name}.id}}" for name in wanted_names(wanted)}
            parts = [*_missing(wanted, known, ids), *record(_links(wanted, ids)), *_roles(table, wanted, ids), read]
            try:
                return send(self._remote, parts, create=True)
            except Refused as refused:
                if refused.code != DUPLICATES_DETECTED or refused.part not in ids or not refused.existing:
                    raise
                known[refused.part] = refused.existing

    def _find(self, wanted: Sequence[RelatedRow]) -> dict[str, str]:
        """Return the ids of rows that are there, by part."""
        queries = [
            query(name, f"{select(row.table, ['Id'])} WHERE {where(row.match)} ORDER BY CreatedDate ASC LIMIT 1")
            for name, row in zip(wanted_names(wanted), wanted, strict=True)
        ]
        found: dict[str, str] = {}
        for start in range(0, len(queries), MOST_QUERIES):
            answers = send(self._remote, queries[start : start + MOST_QUERIES])
            found |= {name: answer["records"][0]["Id"] for name, answer in answers.items() if answer["records"]}
        return found


def wanted_names(wanted: Sequence[RelatedRow]) -> list[str]:
    return [f"related{number}" for number in range(len(wanted))]


def _without_repetition(related: Sequence[RelatedRow]) -> list[RelatedRow]:
    """The same person twice in a list of people is one contact."""
    seen: dict[tuple[Any, ...], RelatedRow] = {}
    for row in related:
        key = (row.table, *sorted((name, str(value).casefold()) for name, value in row.match.items()))
        seen.setdefault(key, row)
    return list(seen.values())


def _missing(wanted: Sequence[RelatedRow], known: Mapping[str, str], ids: Mapping[str, str]) -> list[Part]:
    links = _links(wanted, ids)
    return [
        Part(name, "POST", f"sobjects/{row.table}", _body(row, links), write_headers(row.table, creating=True))
        for name, row in zip(ids, wanted, strict=True)
        if name not in known
    ]


def _body(row: RelatedRow, links: Mapping[str, str]) -> dict[str, Any]:
    parent = {row.parent_link: links[row.parent]} if row.parent_link and row.parent in links else {}
    return {**row.match, **row.values, **parent}


def _links(wanted: Sequence[RelatedRow], ids: Mapping[str, str]) -> dict[str, str]:
    """The columns of the record that refer to a row."""
    return {row.link: id_ for id_, row in zip(ids.values(), wanted, strict=True) if row.link}


def _roles(table: str, wanted: Sequence[RelatedRow], ids: Mapping[str, str]) -> list[Part]:
    """The rows that join further contacts to the record; the first one's the org makes itself, out of ContactId."""
    return [
        Part(
            f"role{number}",
            "POST",
            f"sobjects/{row.role}",
            {f"{table}Id": "@{write.id}", f"{row.table}Id": id_},
        )
        for number, (id_, row) in enumerate(zip(ids.values(), wanted, strict=True))
        if row.role and not row.link
    ]

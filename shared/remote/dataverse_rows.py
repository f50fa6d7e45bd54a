"""Owns how Dataverse names tables, rows and lookups, and finds or makes the rows that a record refers to.

Never writes the record itself.

https://learn.microsoft.com/power-apps/developer/data-platform/webapi/query/filter-rows
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid5

from shared.errors import Permanent, Refused, VersionConflict
from shared.remote.crm import RelatedRow
from shared.remote.dataverse_errors import DUPLICATES
from shared.remote.http import Remote

SET_NAMES: Mapping[str, str] = {
    "account": "accounts",
    "contact": "contacts",
    "lead": "leads",
    "opportunity": "opportunities",
    "systemuser": "systemusers",
    "transactioncurrency": "transactioncurrencies",
}

LOOKUPS: Mapping[str, str] = {
    "ownerid": "systemuser",
    "owninguser": "systemuser",
    "originatingleadid": "lead",
    "parentaccountid": "account",
    "parentcontactid": "contact",
    "primarycontactid": "contact",
    "qualifyingopportunityid": "opportunity",
    "transactioncurrencyid": "transactioncurrency",
}
"""The table behind a lookup's navigation property. Of others, `x_account` refers to accounts and `xid` to table x."""

BIND_AS: Mapping[str, str] = {"owninguser": "ownerid"}
"""Read-only shadows, and what is written instead."""
CUSTOMER_LOOKUPS = frozenset({"customerid", "parentcustomerid"})
"""These refer to an account or a contact, each through a navigation property of its own."""
NEVER_DELETED = frozenset({"systemuser", "transactioncurrency"})
"""Rows that keep their id for as long as a process lives, so that they are looked up once."""

NAMESPACE = UUID("8f0b3f7e-5d1c-4c55-9a36-6d3b0f5f7c12")
"""Of the ids we choose for accounts and contacts. Changing it would duplicate rows whose creation was interrupted."""


def set_name(table: str) -> str:
    """Return the table's entity set: the name in addresses."""
    if table in SET_NAMES:
        return SET_NAMES[table]
    if table.endswith("y"):
        return f"{table[:-1]}ies"
    return f"{table}es" if table.endswith(("s", "x", "ch", "sh")) else f"{table}s"


def primary_id(table: str) -> str:
    return f"{table}id"


def address(table: str, row_id: str) -> str:
    return f"{set_name(table)}({row_id})"


def key_address(table: str, column: str, value: str) -> str:
    """Return the address by alternate key; quotes are doubled, then all is percent-encoded."""
    return f"{set_name(table)}({column}='{quote(value.replace(chr(39), 2 * chr(39)), safe='')}')"


def literal(value: Any) -> str:
    """Return `value` as it is written in $filter."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | Decimal():
            return format(value, "f") if isinstance(value, Decimal) else str(value)
        case _:
            text = str(value).replace("'", "''")
            return f"'{text}'"


def table_behind(link: str) -> str:
    """Return the table that a lookup's navigation property refers to."""
    if link in LOOKUPS:
        return LOOKUPS[link]
    for table in ("account", "contact"):
        if link.endswith(f"_{table}"):
            return table
    return link.removesuffix("id")


def navigation(link: str, table: str) -> str:
    """Return the navigation property through which `link` is bound to a row of `table`."""
    return f"{link}_{table}" if link in CUSTOMER_LOOKUPS else BIND_AS.get(link, link)


def by_link(names: Iterable[str]) -> dict[str, list[str]]:
    """Group dotted names: {"parentaccountid": ["name", "address1_city"]}. Plain columns are left out."""
    groups: dict[str, list[str]] = {}
    for name in names:
        link, dot, column = name.partition(".")
        if dot:
            groups.setdefault(link, []).append(column)
    return groups


@dataclass
class Bound:
    """Part of a write: `body` binds lookups; `values` is what is then known of the rows bound, by dotted name."""

    body: dict[str, str | None] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    def add(self, link: str, table: str, row_id: str | None, values: Mapping[str, Any]) -> None:
        self.body[f"{navigation(link, table)}@odata.bind"] = f"/{address(table, row_id)}" if row_id else None
        self.values |= {f"{link}.{column}": value for column, value in values.items()}


class Rows:
    """Finds the rows that lookups are bound to, and makes missing accounts and contacts."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._known: dict[tuple[str, str], Mapping[str, Any]] = {}

    def bind(self, values: Mapping[str, Any]) -> Bound:
        """Bind each lookup among `values`: plain ones to the row with that id, dotted ones to the row with such values.

        None empties the lookup. Raises Refused when there is no such row.
        """
        bound = Bound()
        for link in LOOKUPS.keys() & values.keys():
            bound.add(link, LOOKUPS[link], values[link], {})
        for link, columns in by_link(values).items():
            wanted = {column: values[f"{link}.{column}"] for column in columns}
            table = table_behind(link)
            if all(value is None for value in wanted.values()):
                bound.add(link, table, None, wanted)
                continue
            row = self._existing(link, table, wanted)
            bound.add(link, table, row[primary_id(table)], {column: row[column] for column in columns})
        return bound

    def relate(self, related: Sequence[RelatedRow]) -> dict[str, str | None]:
        """Find each row, or make it, and return what binds the record to those that have a link."""
        bound = Bound()
        ids: dict[str, tuple[str, str]] = {}
        for number, wanted in enumerate(related):
            row = self._find(wanted.table, wanted.match, only_active=True)
            try:
                row_id = str(row[primary_id(wanted.table)]) if row else self._make(wanted, ids.get(wanted.parent))
            except Permanent as refused:
                refused.part, refused.field = str(number), f"{wanted.table}.{refused.field}"
                raise
            if wanted.link:
                ids[wanted.link] = (wanted.table, row_id)
                bound.add(wanted.link, wanted.table, row_id, {})
        return bound.body

    def _existing(self, link: str, table: str, wanted: Mapping[str, Any]) -> Mapping[str, Any]:
        key = (table, json.dumps(wanted, sort_keys=True, default=str))
        row = self._known.get(key) or self._find(table, wanted)
        if row is None:
            named = ", ".join(f"{link}.{column} = {value!r}" for column, value in wanted.items())
            raise Refused(
                f"{self._remote.name}: there is no {table} for {named}",
                next_step=f"add such a {table} to the CRM or change the value, then replay",
                remote=self._remote.name,
                field=f"{link}.{next(iter(wanted))}",
            )
        if table in NEVER_DELETED:
            self._known[key] = row
        return row

    def _find(self, table: str, match: Mapping[str, Any], *, only_active: bool = False) -> Mapping[str, Any] | None:
        conditions = [f"{column} eq {literal(value)}" for column, value in match.items()]
        # An inactive account or contact cannot be referred to.
        conditions += ["statecode eq 0"] if only_active else []
        options = {
            "$select": ",".join([primary_id(table), *match]),
            "$filter": " and ".join(conditions),
            "$orderby": "createdon asc",
            "$top": "1",
        }
        rows = self._remote.json("GET", set_name(table), params=options)["value"]
        return rows[0] if rows else None

    def _make(self, wanted: RelatedRow, parent: tuple[str, str] | None) -> str:
        """Create the row under an id that follows from what identifies it: a crash or a race makes one row, not two."""
        row_id = _chosen_id(wanted)
        body = {**wanted.match, **wanted.values}
        if parent and wanted.parent_link:
            table, parent_id = parent
            body[f"{navigation(wanted.parent_link, table)}@odata.bind"] = f"/{address(table, parent_id)}"
        try:
            self._remote.request("PATCH", address(wanted.table, row_id), json=body, headers={"If-None-Match": "*"})
        except (VersionConflict, Refused) as there:
            if not isinstance(there, VersionConflict) and there.code not in DUPLICATES:
                raise
        return row_id


def _chosen_id(wanted: RelatedRow) -> str:
    same = {column: v.strip().casefold() if isinstance(v, str) else v for column, v in wanted.match.items()}
    return str(uuid5(NAMESPACE, json.dumps([wanted.table, same], sort_keys=True, default=str)))

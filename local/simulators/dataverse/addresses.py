"""Reads the addresses of the Web API: path segments, and the keys in their parentheses. Builds no URL."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from local.simulators.dataverse.errors import refuse
from local.simulators.dataverse.schema import REFERENCES, TEXTS, Column, Reference, Table

if TYPE_CHECKING:
    from local.simulators.dataverse.organization import Organization, Row, Values

SEGMENT = re.compile(r"(?P<name>[^/('\"]+)(?:\((?P<key>(?:'(?:[^']|'')*'|[^'()])*)\))?(?:/|$)")
PAIR = re.compile(r"\s*(?P<name>\w+)\s*=\s*(?P<value>'(?:[^']|'')*'|[^',]+)\s*(?:,|$)")
# https://learn.microsoft.com/power-apps/developer/data-platform/define-alternate-keys-entity
FORBIDDEN_IN_KEY = re.compile(r"[/<>*%&:\\?+]")


@dataclass(frozen=True)
class Segment:
    name: str
    key: str | None


def split_path(path: str) -> list[Segment]:
    """The segments of a decoded path; slashes inside quotes do not split. Raises NoSuchSegment when it is not one."""
    segments, at = [], 0
    while at < len(path):
        match = SEGMENT.match(path, at)
        if match is None:
            raise refuse("NoSuchSegment", segment=path[at:])
        segments.append(Segment(match["name"], match["key"]))
        at = match.end()
    return segments


def split_pairs(key: str) -> dict[str, str]:
    """`a='x''y',b=2` as names and raw values (quotes kept)."""
    pairs, at = {}, 0
    while at < len(key):
        match = PAIR.match(key, at)
        if match is None:
            raise refuse("BadQuery", message=f"Bad request: the key '({key})' could not be parsed.")
        pairs[match["name"]] = match["value"].strip()
        at = match.end()
    return pairs


def unquote_literal(literal: str) -> str | None:
    """The text between single quotes, doubled ones undone; None when it is not quoted."""
    quoted = len(literal) >= 2 and literal[0] == literal[-1] == "'"
    return literal[1:-1].replace("''", "'") if quoted else None


def parse_key(table: Table, key: str) -> str | Values:
    """A primary key as its id, an alternate key as typed values. Raises when the table has no such key."""
    plain = _guid(key)
    if plain:
        return plain
    pairs = split_pairs(key) if "=" in key else {}
    if set(pairs) == {table.primary_id} and (named := _guid(pairs[table.primary_id])):
        return named
    columns = {name: table.by_property(name) for name in pairs}
    if not pairs or None in columns.values():
        raise refuse("EntityKeyNotDefined", table=table.name)
    return {column.name: _key_value(table, column, pairs[name]) for name, column in columns.items() if column}


def _key_value(table: Table, column: Column, literal: str) -> Any:
    text = unquote_literal(literal)
    if column.kind in TEXTS:
        if text is None:
            raise refuse("EntityKeyNotDefined", table=table.name)
        if bad := FORBIDDEN_IN_KEY.search(text):
            raise refuse("DangerousPath", character=bad[0])
        return text
    if column.kind in REFERENCES:
        return Reference(column.targets[0], _guid(literal) or "")
    return int(literal) if re.fullmatch(r"-?\d+", literal) else literal


def row_at(org: Organization, table: Table, key: str | Values) -> Row:
    """The row with this key. Raises the 404 of its kind of key."""
    row = find_row(org, table, key)
    if row is None and isinstance(key, str):
        raise refuse("ObjectDoesNotExist", table=table.name, id=key)
    if row is None:
        raise refuse("RecordNotFoundByEntityKey", table=table.name)
    return row


def find_row(org: Organization, table: Table, key: str | Values) -> Row | None:
    return org.find(table.name, key) if isinstance(key, str) else org.find_by_key(table, key)


def _guid(text: str) -> str | None:
    try:
        return str(uuid.UUID(text)) if len(text) == 36 else None
    except ValueError:
        return None

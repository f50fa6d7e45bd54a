"""Owns how Salesforce writes things: ids, SOQL, and what of a row becomes a Record. Calls nothing.

https://developer.salesforce.com/docs/platform/api-rest/guide/resources-query.md
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import format_datetime
from typing import Any

from shared.model import Record, RecordRef
from shared.remote.crm import TableShape

PREFIXES: Mapping[str, str] = {"Opportunity": "006", "Lead": "00Q"}
"""What the ids of an object begin with."""

CHILDREN: Mapping[str, str] = {
    "OpportunityContactRoles": "IsPrimary DESC, CreatedDate ASC, Id ASC",
    "OpportunityTeamMembers": "CreatedDate ASC, Id ASC",
}
"""Relationships that lead to many rows, and the order they are read in. Columns through them hold a list."""

CHILD_OBJECTS: Mapping[str, str] = {
    "OpportunityContactRoles": "OpportunityContactRole",
    "OpportunityTeamMembers": "OpportunityTeamMember",
}
ALWAYS = ("Id", "LastModifiedDate")
OWNER = "Owner."

_CHECKSUM = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
_ESCAPES = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f", '"': '\\"'}


def long_id(text: str) -> str:
    """Return the 18-character form of an id, "" for what is none. The last three say which letters are capitals.

    https://help.salesforce.com/s/articleView?id=000385203&language=en_US&type=1
    """
    if not re.fullmatch("[0-9A-Za-z]{15}([0-9A-Za-z]{3})?", text):
        return ""
    groups = (text[start : start + 5] for start in (0, 5, 10))
    suffix = "".join(_CHECKSUM[sum(1 << bit for bit, char in enumerate(g) if "A" <= char <= "Z")] for g in groups)
    return text[:15] + suffix if text[15:].upper() in ("", suffix) else ""


def literal(value: Any) -> str:
    """Return `value` as it is written in SOQL."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | Decimal():
            return format(value, "f") if isinstance(value, Decimal) else str(value)
        case datetime():
            return utc_text(value)
        case _:
            return "'" + "".join(_ESCAPES.get(char, char) for char in str(value)) + "'"


def where(match: Mapping[str, Any]) -> str:
    """Return the condition that all of these hold; text compares without case."""
    return " AND ".join(f"{name} = {literal(value)}" for name, value in match.items())


def utc_text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


# ---------------------------------------------------------------- what is read


def columns_of(shape: TableShape) -> tuple[str, ...]:
    """Return every column to select. `Account.Name` is a field of the parent, the first part may name many rows."""
    owner = ("OwnerId",) if any(column.startswith(OWNER) for column in shape.columns) else ()
    wanted = (*ALWAYS, *shape.columns, shape.referral_id, shape.sync_flag, *owner)
    return tuple(dict.fromkeys(filter(None, wanted)))


def select(table: str, columns: Sequence[str]) -> str:
    """Return `SELECT ... FROM table`; the names come from the field map, values only ever go through `literal`."""
    plain = [column for column in columns if column.split(".")[0] not in CHILDREN]
    inner = []
    for child, order in CHILDREN.items():
        if named := [column.partition(".")[2] for column in columns if column.startswith(f"{child}.")]:
            inner.append(f"({select(child, named)} ORDER BY {order})")
    return f"SELECT {', '.join([*plain, *inner])} FROM {table}"  # noqa: S608


def value_at(row: Any, path: str) -> Any:
    """Return what a column holds; names compare without case, as Salesforce does. An empty relation is None."""
    name, _, rest = path.partition(".")
    row = row or {}
    found = row[name] if name in row else next((v for key, v in row.items() if key.lower() == name.lower()), None)
    if name in CHILDREN:
        return [value_at(child, rest) for child in (found or {}).get("records", ())]
    return value_at(found, rest) if rest and found else found


def to_record(
    shape: TableShape, columns: Sequence[str], row: Mapping[str, Any], unreadable: Mapping[str, str], user_id: str
) -> Record:
    """Return the record, given the columns that were selected and those that could not be.

    What `user_id` owns, the user we act as, is nobody's yet: an integration user is no colleague to tell Microsoft of.
    """
    values = {column: value_at(row, column) for column in columns if column != "LastModifiedDate"}
    if user_id and values.get("OwnerId") == user_id:
        values |= {column: None for column in columns if column.startswith(OWNER)}
    modified = str(row["LastModifiedDate"])
    return Record(
        RecordRef(shape.table, row["Id"]),
        version=version_of(modified, {name: value for name, value in values.items() if name not in shape.display}),
        values=values,
        modified=moment(modified),
        unreadable=unreadable,
    )


# ---------------------------------------------------------------- versions


def version_of(modified: str, values: Mapping[str, Any]) -> str:
    """Return a version: when the record was last modified, and a digest of what we use of it.

    Salesforce's times have whole seconds: of two saves within one only the digest tells. What automation touches
    without changing anything of ours (SystemModstamp moves) keeps its version.
    """
    content = json.dumps(values, sort_keys=True, default=str)
    return f"{utc_text(moment(modified))} {hashlib.sha256(content.encode()).hexdigest()[:16]}"


def unmodified_since(version: str) -> dict[str, str]:
    """Return the header that lets a write happen only if nobody saved the record after that second; none without one.

    https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/intro_rest_conditional_requests.htm
    """
    if not version:
        return {}
    return {"If-Unmodified-Since": format_datetime(moment(version.partition(" ")[0]), usegmt=True)}

"""Tells which of the columns that were asked for an answer says are not there, for this user. Calls nothing.

Salesforce does not tell a field that does not exist from one that the user may not see.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from shared.errors import Refused
from shared.remote.salesforce_rows import CHILD_OBJECTS

OBJECTS: Mapping[str, str] = {"Owner": "User"}
"""Behind a relation that is not called like its object."""

_COLUMN = re.compile(r"No such column '(\w+)' on entity '(\w+)'")
_RELATION = re.compile(r"Didn't understand relationship '(\w+)'")
_OBJECT = re.compile(r"sObject type '(\w+)' is not supported")


def columns_without(table: str, columns: Sequence[str], refused: Refused) -> list[str]:
    """Return the columns that the answer to a query complains about."""
    words = str(refused)
    if found := _COLUMN.search(words):
        field, entity = found[1].lower(), found[2]
        return [c for c in columns if c.lower().rpartition(".")[2] == field and _object(table, c) == entity]
    if found := _RELATION.search(words):
        return [column for column in columns if found[1] in column.split(".")[:-1]]
    if found := _OBJECT.search(words):
        return [column for column in columns if CHILD_OBJECTS.get(column.split(".")[0]) == found[1]]
    return []


def _object(table: str, column: str) -> str:
    """Return the object that a column is a field of: OpportunityContactRoles.Contact.Email is one of Contact."""
    relations = column.split(".")[:-1]
    if not relations:
        return table
    last = relations[-1]
    return CHILD_OBJECTS.get(last) or OBJECTS.get(last, last)

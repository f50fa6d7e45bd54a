"""WHERE and ORDER BY over the rows: which fields and literals go together, and what matches. Builds no answers."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import cmp_to_key
from typing import Any

from local.simulators.salesforce.errors import NO_COLUMN, NO_RELATIONSHIP, NOT_SUPPORTED, WRONG_LITERAL, Refusal, refuse
from local.simulators.salesforce.ids import id18
from local.simulators.salesforce.organization import Organization, Row
from local.simulators.salesforce.schema import IDS, NUMBERS, TEXTS, Field, Kind, SObject
from local.simulators.salesforce.soql import (
    Comparison,
    Condition,
    Junction,
    Literal,
    Membership,
    Not,
    Order,
    Path,
    Select,
    SemiJoin,
    caret,
)

Test = Callable[[Row], bool]
MOST_SEMI_JOINS = 2


@dataclass(frozen=True)
class Column:
    """A field as a query reaches it: over these lookups, from the row of the query."""

    lookups: tuple[Field, ...]
    field: Field

    def value(self, org: Organization, row: Row) -> Any:
        found = self.row(org, row)
        if found is None:
            return None
        if self.polymorphic and self.field.name == "Type":
            return "Queue" if found.object == "Group" else "User"
        return org.value(found, self.field)

    @property
    def polymorphic(self) -> bool:
        return bool(self.lookups) and len(self.lookups[-1].targets) > 1

    def row(self, org: Organization, row: Row) -> Row | None:
        current: Row | None = row
        for lookup in self.lookups:
            target_id = org.value(current, lookup) if current else None
            target = org.object_of(target_id) if target_id else None
            current = org.find(target.name, str(target_id)) if target else None
        return current


@dataclass(frozen=True)
class Scope:
    """One query over one object, by one user."""

    org: Organization
    user: str | None
    text: str
    sobject: SObject
    include_deleted: bool = False

    def refusal(self, name: str, at: int, message: str) -> Refusal:
        return caret(name, self.text, at, message)

    def column(self, path: Path) -> Column:
        """The column behind a path. Raises when a field or relationship of it is unknown or hidden."""
        sobject, lookups, parts = self.sobject, [], list(path.parts)
        if len(parts) > 1 and parts[0].lower() == sobject.name.lower():
            parts = parts[1:]
        for name in parts[:-1]:
            lookup = sobject.lookup(name)
            visible = lookup and self.org.access.may_read(sobject, lookup, self.user)
            target = self._target(lookup) if lookup and visible else None
            if lookup is None or target is None:
                words = NO_RELATIONSHIP.format(name=name, place="field path")
                raise self.refusal("QueryField", path.at, words)
            lookups.append(lookup)
            sobject = target
        known = self.org.access.field_named(sobject, parts[-1], self.user)
        if known is None:
            words = NO_COLUMN.format(name=parts[-1], object=sobject.name)
            raise self.refusal("QueryField", path.at, words)
        return Column(tuple(lookups), known)

    def _target(self, lookup: Field) -> SObject | None:
        if len(lookup.targets) > 1:
            return self.org.objects["Name"]
        return self.org.access.object_named(lookup.targets[0], self.user)

    # Conditions

    def test(self, condition: Condition | None) -> Test:
        """The condition as a function over rows, checked as a whole before any row is looked at."""
        if condition is None:
            return lambda _: True
        self._check_semi_joins(condition)
        return self._test(condition)

    def _test(self, condition: Condition) -> Test:
        match condition:
            case Not(inner):
                negated = self._test(inner)
                return lambda row: not negated(row)
            case Junction(operator, conditions):
                tests = [self._test(each) for each in conditions]
                decide = all if operator == "AND" else any
                return lambda row: decide(test(row) for test in tests)
            case Comparison():
                return self._comparison(condition)
            case Membership():
                return self._membership(condition)
            case SemiJoin():
                return self._semi_join(condition)

    def _filterable(self, path: Path) -> Column:
        column = self.column(path)
        if not column.field.filterable:
            words = f"field '{column.field.name}' can not be filtered in a query call"
            raise self.refusal("QueryField", path.at, words)
        return column

    def _comparison(self, condition: Comparison) -> Test:
        column, literal = self._filterable(condition.path), condition.literal
        operator = condition.operator
        if operator == "LIKE":
            return self._like(column, condition)
        if column.field.kind is Kind.MULTIPICKLIST and operator in ("=", "!="):
            wanted_set = _as_set(literal.value)
            return lambda row: (_as_set(column.value(self.org, row)) == wanted_set) == (operator == "=")
        wanted = self._literal(column.field, literal, condition.path)
        if operator in ("=", "!="):
            return lambda row: _equal(column, self.org, row, wanted) == (operator == "=")
        if column.field.kind in (Kind.BOOLEAN, Kind.MULTIPICKLIST) or wanted is None:
            raise self.refusal("QueryFilter", condition.path.at, f"invalid operator {operator}")
        return lambda row: _ordered(_comparable(column.value(self.org, row)), operator, _comparable(wanted))

    def _like(self, column: Column, condition: Comparison) -> Test:
        literal = condition.literal
        if column.field.kind not in TEXTS or column.field.kind is Kind.MULTIPICKLIST:
            raise self.refusal("QueryFilter", condition.path.at, "invalid operator LIKE")
        if literal.kind != "string":
            raise self._wrong_literal(column.field, condition.path)
        pattern = re.compile(_like_pattern(literal.value), re.IGNORECASE | re.DOTALL)
        return lambda row: (
            bool(pattern.fullmatch(column.value(self.org, row) or "")) and (column.value(self.org, row) is not None)
        )

    def _membership(self, condition: Membership) -> Test:
        column, operator = self._filterable(condition.path), condition.operator
        if operator in ("INCLUDES", "EXCLUDES"):
            if column.field.kind is not Kind.MULTIPICKLIST:
                raise self.refusal("QueryFilter", condition.path.at, f"invalid operator {operator}")
            sets = [_as_set(literal.value) for literal in condition.literals]
            return lambda row: (
                any(wanted <= _as_set(column.value(self.org, row)) for wanted in sets) == (operator == "INCLUDES")
            )
        wanted = [self._literal(column.field, literal, condition.path) for literal in condition.literals]
        return lambda row: any(_equal(column, self.org, row, each) for each in wanted) == (operator == "IN")

    def _semi_join(self, condition: SemiJoin) -> Test:
        query, column = condition.query, self.column(condition.path)
        if column.field.kind not in IDS:
            raise refuse("SemiJoinLeft", name=column.field.name)
        inner = Scope(self.org, self.user, self.text, self.source(query), self.include_deleted)
        if inner.sobject.name == self.sobject.name and column.field.kind is Kind.ID:
            raise refuse("Malformed", message="The inner and outer selects should not be on the same object type")
        if len(query.items) != 1 or not isinstance(query.items[0], Path):
            raise refuse("Malformed", message="Semi join sub-selects select exactly one field")
        if query.order or query.limit is not None or query.offset:
            raise refuse("NotSimulated", what="ORDER BY, LIMIT or OFFSET in a semi-join")
        selected = inner.column(query.items[0])
        if selected.field.kind not in IDS:
            raise refuse("SemiJoinField", selected=selected.field.name, name=column.field.name)
        test = inner.test(query.where)
        found = {selected.value(self.org, row) for row in inner.rows() if test(row)} - {None}
        return lambda row: (column.value(self.org, row) in found) != condition.negated

    def _check_semi_joins(self, condition: Condition, *, below_or: bool = False, nested: bool = False) -> int:
        """How many semi-joins there are. Raises when one is where Salesforce allows none."""
        match condition:
            case SemiJoin(_, _, query):
                if below_or:
                    raise refuse("Malformed", message="Semi join sub-selects are not allowed with the 'OR' operator")
                if nested or (query.where and _has_semi_join(query.where)):
                    raise refuse("Malformed", message="Nesting of semi join sub-selects is not supported")
                return 1
            case Not(inner):
                return self._check_semi_joins(inner, below_or=below_or, nested=nested)
            case Junction(operator, conditions):
                below = below_or or operator == "OR"
                count = sum(self._check_semi_joins(each, below_or=below, nested=nested) for each in conditions)
                if count > MOST_SEMI_JOINS:
                    raise refuse("Malformed", message="Maximum 2 semi join sub-selects are allowed")
                return count
        return 0

    def source(self, query: Select) -> SObject:
        """The object a query is from. Raises QueryType."""
        found = self.org.access.object_named(query.source, self.user)
        if found is None:
            raise self.refusal("QueryType", query.source_at, NOT_SUPPORTED.format(name=query.source))
        return found

    def rows(self) -> list[Row]:
        if self.include_deleted:
            return list(self.org.rows[self.sobject.name].values())
        return self.org.live(self.sobject.name)

    def _literal(self, known: Field, literal: Literal, path: Path) -> Any:
        """The literal as a value of that field. Raises when the field takes another kind of literal."""
        if literal.kind == "null":
            return None
        expected = _literal_kind(known)
        if literal.kind != expected:
            raise self._wrong_literal(known, path)
        if known.kind in IDS and literal.value != "":
            full = id18(literal.value)
            if full is None:
                raise self.refusal("QueryFilter", path.at, f"invalid ID field: {literal.value}")
            return full
        return literal.value if literal.value != "" else None

    def _wrong_literal(self, known: Field, path: Path) -> Refusal:
        expected = _literal_kind(known)
        shown = {"number": "double", "datetime": "dateTime"}.get(expected, expected)
        words = WRONG_LITERAL.format(name=known.name, type=shown, be="be" if expected == "string" else "not be")
        return self.refusal("QueryField", path.at, words)

    # Order

    def sorted(self, rows: list[Row], orders: tuple[Order, ...]) -> list[Row]:
        """Without an order by id, which Salesforce does not promise."""
        columns = []
        for order in orders:
            column = self.column(order.path)
            if not column.field.sortable:
                words = f"field '{column.field.name}' can not be sorted in a query call"
                raise self.refusal("QueryField", order.path.at, words)
            columns.append((order, column))

        def compare(left: Row, right: Row) -> int:
            for order, column in columns:
                a, b = (_comparable(column.value(self.org, row)) for row in (left, right))
                if a == b:
                    continue
                if a is None or b is None:
                    return -1 if (a is None) == order.nulls_first else 1
                return (-1 if a < b else 1) * (-1 if order.descending else 1)
            return -1 if left.id < right.id else 1

        return sorted(rows, key=cmp_to_key(compare))


def _has_semi_join(condition: Condition) -> bool:
    match condition:
        case SemiJoin():
            return True
        case Not(inner):
            return _has_semi_join(inner)
        case Junction(_, conditions):
            return any(_has_semi_join(each) for each in conditions)
    return False


def _literal_kind(known: Field) -> str:
    if known.kind in NUMBERS:
        return "number"
    named = {Kind.BOOLEAN: "boolean", Kind.DATE: "date", Kind.DATETIME: "datetime"}
    return named.get(known.kind, "string")


def _equal(column: Column, org: Organization, row: Row, wanted: Any) -> bool:
    value = column.value(org, row)
    if column.field.kind is Kind.BOOLEAN and value is None:
        value = False
    return bool(_comparable(value) == _comparable(wanted))


def _ordered(value: Any, operator: str, wanted: Any) -> bool:
    if value is None:
        return False
    match operator:
        case "<":
            return bool(value < wanted)
        case "<=":
            return bool(value <= wanted)
        case ">":
            return bool(value > wanted)
    return bool(value >= wanted)


def _comparable(value: Any) -> Any:
    if isinstance(value, str):
        return value.lower() if id18(value) != value else value
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | float):
        return Decimal(str(value))
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    return value


def _as_set(value: str | None) -> set[str]:
    return {part.strip().lower() for part in (value or "").split(";") if part.strip()}


def _like_pattern(text: str) -> str:
    pattern, at = "", 0
    while at < len(text):
        char = text[at]
        if char == "\\" and at + 1 < len(text):
            at += 1
            pattern += re.escape(text[at])
        else:
            pattern += {"%": ".*", "_": "."}.get(char, re.escape(char))
        at += 1
    return pattern

"""The query options of the simulated Partner Center list: $filter, $orderby, $select, and times to 100 nanoseconds.

Answers questions about documents; never changes one. A query the service does not document is an error, not a guess.
https://learn.microsoft.com/partner-center/developer/get-a-list-of-referrals
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Any
from uuid import UUID

from odata_query import ast
from odata_query.exceptions import ODataException
from odata_query.grammar import ODataLexer, ODataParser
from odata_query.visitor import NodeVisitor

Document = dict[str, Any]

# Listed as filterable in the documentation, with an example each.
FILTERABLE = frozenset(
    {
        "engagementId",
        "status",
        "substatus",
        "qualification",
        "type",
        "direction",
        "createdDateTime",
        "updatedDateTime",
        "customerProfile/address/country",
        "team",
        "team/email",
    }
)
ORDERABLE = ("createdDateTime", "updatedDateTime")

_COMPARE: dict[type, Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d)?)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)?", re.IGNORECASE)
_TICKS_PER_S = 10_000_000


class BadQuery(Exception):
    """The query cannot be answered; the message says why."""


@lru_cache(maxsize=1 << 15)
def ticks(text: str) -> int:
    """A timestamp as 100 ns since year 1, exact to seven digits, as .NET counts. Raises ValueError."""
    match = _TIME.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is no timestamp")
    whole, fraction, zone = match.groups()
    seconds = datetime.fromisoformat(whole + (zone or "Z").upper().replace("Z", "+00:00"))
    since_year_1 = seconds - datetime(1, 1, 1, tzinfo=timezone.utc)  # noqa: UP017 - reads as the zone of a literal
    return (since_year_1 // timedelta(seconds=1)) * _TICKS_PER_S + int((fraction or "0").ljust(7, "0")[:7])


def from_ticks(count: int) -> str:
    """The service's own form: 2022-02-24T21:04:06.0372014Z."""
    seconds, fraction = divmod(count, _TICKS_PER_S)
    return f"{datetime(1, 1, 1) + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}.{fraction:07d}Z"  # noqa: DTZ001 - UTC


def predicate(
    text: str, *, also_filterable: frozenset[str] = frozenset(), supports_ge: bool = True
) -> Callable[[Document], bool]:
    """The $filter as a function. Raises BadQuery for what is not documented as filterable."""
    try:
        tree = ODataParser().parse(ODataLexer().tokenize(text))
    except ODataException as exc:
        raise BadQuery(f"Syntax error in $filter '{text}': {exc}") from exc
    if not isinstance(tree, ast.Compare | ast.BoolOp | ast.UnaryOp | ast.CollectionLambda):
        raise BadQuery(f"$filter '{text}' is not a condition.")
    _Checker(FILTERABLE | also_filterable, supports_ge).visit(tree)
    return lambda document: bool(_Evaluator(document).visit(tree))


def order(text: str) -> list[tuple[str, bool]]:
    """The $orderby as (property, descending). Raises BadQuery for any property but the two documented ones."""
    keys = []
    for part in text.split(","):
        words = part.split()
        if not 1 <= len(words) <= 2 or words[0] not in ORDERABLE or words[1:] not in ([], ["asc"], ["desc"]):
            raise BadQuery(f"$orderby '{text}' is not supported; use {' or '.join(ORDERABLE)} with asc or desc.")
        keys.append((words[0], words[1:] == ["desc"]))
    return keys


def select(text: str, document: Document) -> Document:
    """The document with only these top-level properties. Raises BadQuery for one that does not exist."""
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in document]:
        raise BadQuery(f"Could not find a property named '{unknown[0]}' on type 'Referral'.")
    return {name: document[name] for name in names}


def _path(node: ast._Node) -> list[str]:
    if isinstance(node, ast.Attribute):
        return [*_path(node.owner), node.attr]
    if isinstance(node, ast.Identifier):
        return [node.name]
    raise BadQuery(f"{type(node).__name__} is not supported in a property path.")


class _Checker(NodeVisitor):
    """Refuses properties, operators and functions that the service does not document."""

    def __init__(self, filterable: frozenset[str], supports_ge: bool) -> None:
        self.filterable, self.supports_ge = filterable, supports_ge
        self.ranges: dict[str, str] = {}  # lambda variable -> collection

    def visit_Compare(self, node: ast.Compare) -> None:  # noqa: N802
        sides = (node.left, node.right)
        names = [self._check(side) for side in sides if isinstance(side, ast.Identifier | ast.Attribute)]
        literals = [side for side in sides if isinstance(side, ast._Literal)]
        if len(names) != 1 or len(literals) != 1 or type(node.comparator) not in _COMPARE:
            raise BadQuery("A comparison in $filter takes one property and one literal, with eq, ne, gt, ge, lt or le.")
        is_time = names[0].endswith("DateTime")
        if is_time and not isinstance(literals[0], ast.DateTime | ast.Null):
            raise BadQuery(f"{names[0]} is compared with a literal like 2024-05-01T00:00:00Z, without quotes.")
        if is_time and not self.supports_ge and not isinstance(node.comparator, ast.Eq | ast.NotEq):
            raise BadQuery(f"The operator is not supported on {names[0]}.")

    def visit_CollectionLambda(self, node: ast.CollectionLambda) -> None:  # noqa: N802
        collection = self._check(node.owner)
        if node.lambda_ is not None:
            variable = node.lambda_.identifier.name
            self.ranges[variable] = collection
            self.visit(node.lambda_.expression)
            del self.ranges[variable]

    def visit_Call(self, node: ast.Call) -> None:  # noqa: N802
        raise BadQuery(f"The function {node.func.name} is not supported in $filter.")

    def _check(self, node: ast._Node) -> str:
        first, *rest = _path(node)
        name = "/".join([self.ranges.get(first, first), *rest])
        if name not in self.filterable:
            raise BadQuery(f"The property '{name}' cannot be used in $filter.")
        return name


class _Evaluator(NodeVisitor):
    def __init__(self, document: Mapping[str, Any]) -> None:
        self.names: dict[str, Any] = dict(document)

    def visit_Identifier(self, node: ast.Identifier) -> Any:  # noqa: N802
        return self.names.get(node.name)

    def visit_Attribute(self, node: ast.Attribute) -> Any:  # noqa: N802
        owner = self.visit(node.owner)
        return owner.get(node.attr) if owner is not None else None

    def visit_Compare(self, node: ast.Compare) -> bool:  # noqa: N802
        left, right = _comparable(self.visit(node.left)), _comparable(self.visit(node.right))
        if None in (left, right) and not isinstance(node.comparator, ast.Eq | ast.NotEq):
            return False  # OData: null is neither greater nor less
        if type(left) is not type(right):
            return isinstance(node.comparator, ast.NotEq)
        return _COMPARE[type(node.comparator)](left, right)

    def visit_BoolOp(self, node: ast.BoolOp) -> bool:  # noqa: N802
        left = bool(self.visit(node.left))
        if isinstance(node.op, ast.And):
            return left and bool(self.visit(node.right))
        return left or bool(self.visit(node.right))

    def visit_UnaryOp(self, node: ast.UnaryOp) -> bool:  # noqa: N802
        return not self.visit(node.operand)

    def visit_CollectionLambda(self, node: ast.CollectionLambda) -> bool:  # noqa: N802
        items = self.visit(node.owner) or []
        if node.lambda_ is None:
            return bool(items)
        variable, expression = node.lambda_.identifier.name, node.lambda_.expression
        answers = [bool(_Evaluator(self.names | {variable: item}).visit(expression)) for item in items]
        return any(answers) if isinstance(node.operator, ast.Any) else all(answers)

    def generic_visit(self, node: ast._Node) -> Any:
        if isinstance(node, ast.DateTime):
            return node.val  # as written: py_val knows microseconds only
        return node.py_val if isinstance(node, ast._Literal) else super().generic_visit(node)


def _comparable(value: Any) -> Any:
    """GUIDs compare whether quoted or not, times by their value."""
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, str):
        if _TIME.fullmatch(value):
            return ticks(value)
        return value.lower() if re.fullmatch(r"[\da-fA-F]{8}(-[\da-fA-F]{4}){3}-[\da-fA-F]{12}", value) else value
    return value

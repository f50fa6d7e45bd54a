"""The query options of the Web API: which rows, in which order, which columns of them. Changes nothing.

https://learn.microsoft.com/power-apps/developer/data-platform/webapi/query/overview
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import cmp_to_key, lru_cache
from typing import TYPE_CHECKING, Any

from odata_query import ast
from odata_query.exceptions import ODataException
from odata_query.grammar import ODataLexer, ODataParser

from local.simulators.dataverse.errors import refuse
from local.simulators.dataverse.organization import label_of
from local.simulators.dataverse.payload import EDM
from local.simulators.dataverse.schema import REFERENCES, Column, Kind, Reference, Table

if TYPE_CHECKING:
    from local.simulators.dataverse.organization import Organization, Row

Get = Callable[[Any], Any]


@dataclass(frozen=True)
class Operand:
    """The left side of a comparison: what it holds, and how to read it from an item."""

    edm: str
    get: Get


# $filter

COMPARE: dict[type[ast._Comparator], tuple[str, Callable[[Any, Any], bool]]] = {
    ast.Eq: ("Equal", lambda a, b: a == b),
    ast.NotEq: ("NotEqual", lambda a, b: a != b),
    ast.Lt: ("LessThan", lambda a, b: a < b),
    ast.LtE: ("LessThanOrEqual", lambda a, b: a <= b),
    ast.Gt: ("GreaterThan", lambda a, b: a > b),
    ast.GtE: ("GreaterThanOrEqual", lambda a, b: a >= b),
}
TEXT_FUNCTIONS: dict[str, Callable[[str, str], bool]] = {
    "contains": lambda held, part: part in held,
    "startswith": lambda held, part: held.startswith(part),
    "endswith": lambda held, part: held.endswith(part),
}
SETS = {"Microsoft.Dynamics.CRM.In": True, "Microsoft.Dynamics.CRM.NotIn": False}
# Which literals a property may be compared with; the service refuses any other pair.
LITERALS: dict[str, tuple[type[ast._Literal], ...]] = {
    "Edm.String": (ast.String,),
    "Edm.Guid": (ast.GUID,),
    "Edm.Int32": (ast.Integer,),
    "Edm.Int64": (ast.Integer,),
    "Edm.Decimal": (ast.Integer, ast.Float),
    "Edm.Double": (ast.Integer, ast.Float),
    "Edm.Boolean": (ast.Boolean,),
    "Edm.DateTimeOffset": (ast.DateTime,),
    "Edm.Date": (ast.Date,),
}
LITERAL_EDM = {
    ast.String: "Edm.String", ast.GUID: "Edm.Guid", ast.Integer: "Edm.Int32", ast.Float: "Edm.Double",
    ast.Boolean: "Edm.Boolean", ast.DateTime: "Edm.DateTimeOffset", ast.Date: "Edm.Date",
}  # fmt: skip


def compile_filter(text: str, operand: Callable[[Sequence[str]], Operand]) -> Callable[[Any], bool]:
    """A predicate for the filter expression; `operand` resolves a property path, or refuses it."""
    try:
        tree = ODataParser().parse(ODataLexer().tokenize(_lists_in_parentheses(text.strip())))
    except (ODataException, AttributeError, TypeError, ValueError) as exc:
        raise refuse("BadQuery", message=f"Syntax error in '$filter={text}': {exc}") from exc
    return _predicate(tree, operand)


def _lists_in_parentheses(text: str) -> str:
    """PropertyValues=['a','b'] as the parser knows it; brackets inside quotes stay."""

    def rewritten(match: re.Match[str]) -> str:
        if match[0].startswith("'"):
            return match[0]
        items = re.findall(r"'(?:[^']|'')*'", match[0])
        return f"({','.join(items)}{',' if len(items) == 1 else ''})"

    return re.sub(r"'(?:[^']|'')*'|\[(?:[^'\]]|'(?:[^']|'')*')*\]", rewritten, text)


def _predicate(node: ast._Node, operand: Callable[[Sequence[str]], Operand]) -> Callable[[Any], bool]:
    match node:
        case ast.BoolOp(op=ast.And()):
            left, right = _predicate(node.left, operand), _predicate(node.right, operand)
            return lambda item: left(item) and right(item)
        case ast.BoolOp():
            left, right = _predicate(node.left, operand), _predicate(node.right, operand)
            return lambda item: left(item) or right(item)
        case ast.UnaryOp(op=ast.Not()):
            inner = _predicate(node.operand, operand)
            return lambda item: not inner(item)
        case ast.Compare():
            return _comparison(node, operand)
        case ast.Call():
            return _call(node, operand)
    raise refuse("NotSimulated", what=f"{type(node).__name__} in $filter")


def _comparison(node: ast.Compare, operand: Callable[[Sequence[str]], Operand]) -> Callable[[Any], bool]:
    if type(node.comparator) not in COMPARE:
        raise refuse("BadQuery", message="The operator 'in' is not supported; use Microsoft.Dynamics.CRM.In.")
    name, holds = COMPARE[type(node.comparator)]
    left = operand(_path(node.left))
    if not isinstance(node.right, ast._Literal):
        raise refuse("NotSimulated", what="a comparison with anything but a literal on its right side")
    if isinstance(node.right, ast.Null):
        wanted_null = name == "Equal"
        return lambda item: (left.get(item) is None) == wanted_null
    if not isinstance(node.right, LITERALS[left.edm]):
        words = (
            f"A binary operator with incompatible types was detected. Found operand types '{left.edm}' and "
            f"'{LITERAL_EDM.get(type(node.right), 'unknown')}' for operator kind '{name}'."
        )
        raise refuse("BadQuery", message=words)
    wanted = sortable(left.edm, node.right.py_val)

    def compare(item: Any) -> bool:
        held = left.get(item)
        # An empty value is unequal to everything, and neither greater nor less.
        return name == "NotEqual" if held is None else holds(sortable(left.edm, held), wanted)

    return compare


def _call(node: ast.Call, operand: Callable[[Sequence[str]], Operand]) -> Callable[[Any], bool]:
    name = str(node.func.full_name())  # type: ignore[no-untyped-call]
    if name in TEXT_FUNCTIONS and isinstance(node.args[1], ast.String):
        left, part = operand(_path(node.args[0])), node.args[1].val.casefold()
        if left.edm != "Edm.String":
            raise refuse("BadQuery", message=f"No function signature for '{name}' matches '{left.edm}'.")
        return lambda item: TEXT_FUNCTIONS[name]((left.get(item) or "").casefold(), part)
    if name in SETS:
        given = {param.name.name: param.param for param in node.args if isinstance(param, ast.NamedParam)}
        values = given.get("PropertyValues")
        named = given.get("PropertyName")
        if not isinstance(named, ast.String) or not isinstance(values, ast.List):
            raise refuse("BadQuery", message=f"{name} needs PropertyName='...' and PropertyValues=['...'].")
        left = operand(named.val.split("/"))
        wanted = {str(value.py_val).casefold() for value in values.val}
        return lambda item: (str(left.get(item)).casefold() in wanted) == SETS[name]
    raise refuse("NotSimulated", what=f"the function {name} in $filter")


def _path(node: ast._Node) -> list[str]:
    if isinstance(node, ast.Identifier):
        return [node.full_name()]  # type: ignore[no-untyped-call]
    if isinstance(node, ast.Attribute):
        return [*_path(node.owner), node.attr]
    raise refuse("NotSimulated", what="a filter whose left side is not a property")


def sortable(edm: str, value: Any) -> Any:
    """A value in a form that compares as the database compares it."""
    match edm:
        case "Edm.String" | "Edm.Guid":
            return str(value.id if isinstance(value, Reference) else value).casefold()
        case "Edm.DateTimeOffset":
            return value if isinstance(value, datetime) else datetime.fromisoformat(value)
        case "Edm.Date":
            return str(value)
        case "Edm.Decimal" | "Edm.Double":
            return Decimal(str(value))
    return value


# Queries over a table


@dataclass(frozen=True)
class Expansion:
    navigation: str
    column: Column
    table: Table
    select: tuple[str, ...] | None


@dataclass
class Query:
    """The options of one request against a table, checked. `text` keeps what follow-up links must repeat."""

    table: Table
    select: tuple[str, ...] | None = None
    expand: tuple[Expansion, ...] = ()
    matches: Callable[[Row], bool] | None = None
    order: tuple[tuple[Operand, bool], ...] = ()  # what to sort by, and whether downwards
    top: int | None = None
    count: bool = False
    link_options: list[tuple[str, str]] = field(default_factory=list)

    def sort_keys(self, row: Row) -> list[Any]:
        """What orders this row. Ends in its id: paging needs an order that never depends on chance."""
        held = [(by.edm, by.get(row)) for by, _ in self.order]
        return [None if value is None else sortable(edm, value) for edm, value in held] + [row.id]

    def sort_keys_from_text(self, texts: list[Any]) -> list[Any]:
        """Sort keys that travelled through a paging cookie."""
        sent = zip([by.edm for by, _ in self.order], texts[:-1], strict=True)
        return [None if value is None else sortable(edm, value) for edm, value in sent] + [texts[-1]]

    def compare(self, left: list[Any], right: list[Any]) -> int:
        """Below zero when the row with the left sort keys comes first; empty values come before others."""
        downwards = [down for _, down in self.order] + [False]
        for a, b, down in zip(left, right, downwards, strict=True):
            if a != b:
                first = a is None or (b is not None and a < b)
                return 1 if first == down else -1
        return 0

    def sort(self, rows: list[Row]) -> list[Row]:
        ordered = cmp_to_key(self.compare)
        return sorted(rows, key=lambda row: ordered(self.sort_keys(row)))


OPTIONS = {"$select", "$filter", "$orderby", "$expand", "$top", "$count", "$skiptoken", "$deltatoken"}


def read_query(org: Organization, table: Table, options: Mapping[str, str]) -> Query:
    """The query these options ask for. Raises for what the service refuses and for what is not simulated."""
    if "$skip" in options:
        raise refuse("BadQuery", message="Skip Clause is not supported in CRM")
    if not_simulated := {"$apply", "$search", "fetchXml", "savedQuery", "userQuery", "sql"} & set(options):
        raise refuse("NotSimulated", what=f"the query option {min(not_simulated)}")
    if unknown := [name for name in options if name.startswith("$") and name not in OPTIONS]:
        raise refuse("BadQuery", message=f"The query parameter {unknown[0]} is not supported.")
    query = Query(table)
    if "$select" in options:
        query.select = read_select(table, options["$select"])
    if "$expand" in options:
        query.expand = read_expand(org, table, options["$expand"])
    if "$filter" in options:
        query.matches = compile_filter(options["$filter"], lambda path: row_operand(org, table, path))
    if "$orderby" in options:
        query.order = tuple(_order(org, table, part) for part in options["$orderby"].split(","))
    if "$top" in options:
        if not options["$top"].isdigit() or int(options["$top"]) == 0:
            raise refuse("BadQuery", message=f"Invalid value '{options['$top']}' for $top query option found.")
        query.top = int(options["$top"])
    query.count = options.get("$count") == "true"
    repeated = ("$select", "$expand", "$filter", "$orderby", "$count")
    query.link_options = [(name, options[name]) for name in repeated if name in options]
    return query


def read_select(table: Table, text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if table.by_property(name) is None:
            raise refuse("NoSuchProperty", name=name, table=table.name)
    return names


def read_expand(org: Organization, table: Table, text: str) -> tuple[Expansion, ...]:
    expansions = []
    for part in re.findall(r"[^,()]+(?:\([^()]*\))?", text):
        name, _, nested = part.strip().partition("(")
        found = table.by_navigation(name)
        if found is None:
            raise refuse("NoSuchProperty", name=name, table=table.name)
        target = org.tables[found[1]]
        option, _, value = nested.rstrip(")").partition("=")
        if nested and option != "$select":
            raise refuse("NotSimulated", what=f"{option} inside $expand")
        expansions.append(Expansion(name, found[0], target, read_select(target, value) if nested else None))
    return tuple(expansions)


def row_operand(org: Organization, table: Table, path: Sequence[str]) -> Operand:
    """A column, or a column of the row behind a single-valued navigation property."""
    column = table.by_property(path[-1]) if len(path) == 1 else None
    if column:
        return Operand(EDM[column.kind], lambda row: row.values.get(column.name))
    found = table.by_navigation(path[0]) if len(path) == 2 else None
    if found is None:
        raise refuse("NoSuchProperty", name="/".join(path), table=table.name)
    link, target = found
    inner = row_operand(org, org.tables[target], path[1:])

    def get(row: Row) -> Any:
        reference = row.values.get(link.name)
        related = org.find(*reference) if reference and reference.table == target else None
        return inner.get(related) if related else None

    return Operand(inner.edm, get)


def _order(org: Organization, table: Table, part: str) -> tuple[Operand, bool]:
    name, _, direction = part.strip().partition(" ")
    if direction.strip() not in ("", "asc", "desc"):
        raise refuse("BadQuery", message=f"Syntax error in '$orderby': {part}")
    return row_operand(org, table, name.split("/")), direction.strip() == "desc"


# Rows as JSON

FORMATTED = "OData.Community.Display.V1.FormattedValue"
NAVIGATION = "Microsoft.Dynamics.CRM.associatednavigationproperty"
LOGICAL_NAME = "Microsoft.Dynamics.CRM.lookuplogicalname"


@lru_cache(maxsize=256)
def wants(annotations: str, name: str) -> bool:
    """Whether odata.include-annotations asks for this annotation."""
    return any(fnmatch.fnmatchcase(name, pattern.strip()) for pattern in annotations.split(","))


def as_json(
    org: Organization,
    row: Row,
    select: tuple[str, ...] | None = None,
    expand: tuple[Expansion, ...] = (),
    annotations: str = "",
) -> dict[str, Any]:
    """A row as the Web API shows it; etag and primary key come along whatever was selected."""
    table = org.tables[row.table]
    chosen = [table.by_property(name) for name in select] if select else list(table.columns.values())
    columns = {column.name: column for column in chosen if column} | {table.primary_id: table.columns[table.primary_id]}
    shown: dict[str, Any] = {"@odata.etag": row.etag}
    for column in columns.values():
        value = row.values.get(column.name)
        property_name = column.property_name
        if annotations:
            for name, annotation in _annotations(org, row, column, value).items():
                if wants(annotations, name):
                    shown[f"{property_name}@{name}"] = annotation
        shown[property_name] = value.id if isinstance(value, Reference) else value
    for expansion in expand:
        reference = row.values.get(expansion.column.name)
        related = org.find(*reference) if reference and reference.table == expansion.table.name else None
        shown[expansion.navigation] = (
            as_json(org, related, expansion.select, annotations=annotations) if related else None
        )
    return shown


def _annotations(org: Organization, row: Row, column: Column, value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if column.kind in REFERENCES:
        related = org.find(*value)
        name = str(related.values.get(org.tables[value.table].primary_name) or "") if related else ""
        navigation = next((nav for nav, target in column.navigation.items() if target == value.table), "")
        return {FORMATTED: name, NAVIGATION: navigation, LOGICAL_NAME: value.table}
    return {FORMATTED: text} if (text := _formatted(org, row, column, value)) is not None else {}


def _formatted(org: Organization, row: Row, column: Column, value: Any) -> str | None:
    match column.kind:
        case Kind.MONEY:
            currency = row.values.get("transactioncurrencyid")
            symbol = org.get(currency).values["currencysymbol"] if currency else ""
            return f"{symbol}{value:,.2f}"
        case Kind.INTEGER | Kind.DECIMAL | Kind.DOUBLE | Kind.BIGINT:
            return f"{value:,}"
        case Kind.DATE_ONLY:
            moment = datetime.fromisoformat(value)
            return f"{moment.month}/{moment.day}/{moment.year}"
        case Kind.DATETIME:
            moment = datetime.fromisoformat(value)
            return f"{moment.month}/{moment.day}/{moment.year} {moment:%I:%M %p}"
    return label_of(column, value)

"""Turns the JSON of a write into typed values of a table's columns, or refuses it. Changes nothing.

https://learn.microsoft.com/power-apps/developer/data-platform/webapi/create-entity-web-api
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NoReturn

from local.simulators.dataverse.addresses import parse_key, row_at, split_path
from local.simulators.dataverse.errors import refuse
from local.simulators.dataverse.organization import json_time
from local.simulators.dataverse.schema import CHOICES, NUMBERS, REFERENCES, TEXTS, Column, Kind, Reference, Table

if TYPE_CHECKING:
    from local.simulators.dataverse.organization import Organization, Values

EDM = {
    Kind.STRING: "Edm.String",
    Kind.MEMO: "Edm.String",
    Kind.BOOLEAN: "Edm.Boolean",
    Kind.INTEGER: "Edm.Int32",
    Kind.BIGINT: "Edm.Int64",
    Kind.DECIMAL: "Edm.Decimal",
    Kind.DOUBLE: "Edm.Double",
    Kind.MONEY: "Edm.Decimal",
    Kind.PICKLIST: "Edm.Int32",
    Kind.STATE: "Edm.Int32",
    Kind.STATUS: "Edm.Int32",
    Kind.DATETIME: "Edm.DateTimeOffset",
    Kind.DATE_ONLY: "Edm.Date",
    Kind.GUID: "Edm.Guid",
    Kind.LOOKUP: "Edm.Guid",
    Kind.CUSTOMER: "Edm.Guid",
    Kind.OWNER: "Edm.Guid",
}
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)")
EARLIEST = datetime(1753, 1, 1, tzinfo=UTC)  # the database's own limit
API_ROOT = re.compile(r"^(https?://[^/]+)?/?(api/data/v9\.\d/)?/?")


def read_json(body: bytes, set_name: str) -> dict[str, Any]:
    """The body as an object, numbers exact. Raises BadPayload."""
    try:
        parsed = json.loads(body, parse_float=Decimal)
    except ValueError as exc:
        raise refuse("BadPayload", set=set_name, message=f"Microsoft.OData.ODataException: {exc}") from exc
    if not isinstance(parsed, dict):
        raise refuse("BadPayload", set=set_name, message="Microsoft.OData.ODataException: an object was expected.")
    return parsed


def read_values(org: Organization, table: Table, body: dict[str, Any], *, creating: bool) -> Values:
    """Typed values by column name. Columns that this operation may not set are left out, as the service does."""
    values: Values = {}
    for name, sent in body.items():
        if name.endswith("@odata.bind"):
            column, value = _bound(org, table, name.removesuffix("@odata.bind"), sent)
        elif "@" in name:
            continue  # other annotations carry no data
        else:
            column = _plain(table, name, sent)
            value = typed(table, column, sent)
        kept = column.kind in (Kind.STATE, Kind.STATUS) and value is None  # a state cannot be emptied
        if (column.create if creating else column.update) and not kept:
            values[column.name] = value
    return values


def _plain(table: Table, name: str, sent: Any) -> Column:
    if table.by_navigation(name) and isinstance(sent, dict | list):
        raise refuse("NotSimulated", what=f"creating related rows in one request ({name})")
    column = table.by_property(name)
    if column is None:
        raise refuse("InvalidProperty", name=name, table=table.name)
    if column.kind in REFERENCES:
        words = "CRM do not support direct update of Entity Reference properties, Use Navigation properties instead."
        raise refuse("BadPayload", set=table.set_name, message=words)
    return column


def _bound(org: Organization, table: Table, navigation: str, sent: Any) -> tuple[Column, Reference | None]:
    found = table.by_navigation(navigation)
    if found is None:
        raise refuse("UndeclaredProperty", set=table.set_name, name=navigation)
    column, target = found
    if sent is None:
        return column, None
    if not isinstance(sent, str):
        raise refuse("BadPayload", set=table.set_name, message=f"The value of '{navigation}' must be a URI string.")
    return column, bind_target(org, table, column, target, sent)


def bind_target(org: Organization, table: Table, column: Column, target: str, uri: str) -> Reference:
    """The row that an @odata.bind or @odata.id names; it must exist and be of a table the lookup accepts."""
    segments = split_path(API_ROOT.sub("", uri))
    related = org.set_named(segments[0].name) if len(segments) == 1 else None
    if related is None or segments[0].key is None:
        raise refuse("NoSuchSegment", segment=segments[0].name if segments else uri)
    accepted = column.targets if column.kind is Kind.OWNER else (target,)
    if related.name not in accepted:
        words = (
            f"An entity of type '{related.name}' can't be bound to '{column.name}'; it accepts {', '.join(accepted)}."
        )
        raise refuse("BadPayload", set=table.set_name, message=words)
    return row_at(org, related, parse_key(related, segments[0].key)).reference


def typed(table: Table, column: Column, sent: Any) -> Any:
    """The value as the column holds it. Raises with the documented code when it does not fit."""
    if sent is None:
        return None
    kind = column.kind
    if kind in TEXTS:
        return _text(table, column, sent)
    if kind is Kind.BOOLEAN:
        return sent if isinstance(sent, bool) else _wrong_type(table, column, sent)
    if kind in CHOICES or kind in (Kind.INTEGER, Kind.BIGINT):
        number = sent if isinstance(sent, int) and not isinstance(sent, bool) else _wrong_type(table, column, sent)
        return _option(column, number) if kind in CHOICES else _in_range(table, column, number)
    if kind in NUMBERS:
        numeric = isinstance(sent, int | Decimal) and not isinstance(sent, bool)
        return _in_range(table, column, Decimal(sent) if numeric else _wrong_type(table, column, sent))
    return _parsed(table, column, sent, PARSERS[kind])


def _text(table: Table, column: Column, sent: Any) -> str:
    if not isinstance(sent, str):
        _wrong_type(table, column, sent)
    # .NET counts UTF-16 code units, so a character outside the basic plane counts twice.
    if column.max_length is not None and len(sent.encode("utf-16-le")) // 2 > column.max_length:
        raise refuse("StringTooLong", name=column.name, table=table.name, limit=column.max_length)
    return str(sent)


def _option(column: Column, number: int) -> int:
    if number not in column.options:
        raise refuse("PicklistValueOutOfRange")
    return number


def _in_range(table: Table, column: Column, number: Any) -> Any:
    low, high = column.low, column.high
    if (low is not None and number < low) or (high is not None and number > high):
        raise refuse("ValueOutOfRange", name=column.name, table=table.name)
    return number


def _parsed(table: Table, column: Column, sent: Any, parse: Callable[[str], str]) -> str:
    try:
        return parse(sent) if isinstance(sent, str) else _wrong_type(table, column, sent)
    except ValueError:
        _wrong_type(table, column, sent)


def _moment(sent: str) -> str:
    if not MOMENT.fullmatch(sent):
        raise ValueError(sent)
    moment = datetime.fromisoformat(sent)
    if moment < EARLIEST:
        raise refuse("InvalidDateTime")
    return json_time(moment)


def _date(sent: str) -> str:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", sent):
        raise ValueError(sent)
    if date.fromisoformat(sent) < EARLIEST.date():
        raise refuse("InvalidDateTime")
    return sent


PARSERS: dict[Kind, Callable[[str], str]] = {
    Kind.DATETIME: _moment,
    Kind.DATE_ONLY: _date,
    Kind.GUID: lambda sent: str(uuid.UUID(sent)),
}


def _wrong_type(table: Table, column: Column, sent: Any) -> NoReturn:
    words = f"Cannot convert the literal '{sent}' to the expected type '{EDM[column.kind]}'."
    raise refuse("BadPayload", set=table.set_name, message=f"Microsoft.OData.ODataException: {words}")

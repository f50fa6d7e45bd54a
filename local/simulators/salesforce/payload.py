"""JSON of a write to the values a row holds, or a refusal; and back. Checks what a field takes, not what rows allow.

The order of the checks: the field is there and visible, it may be written, type and format, length, picklist.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any

from local.simulators.salesforce.errors import refuse
from local.simulators.salesforce.ids import id18
from local.simulators.salesforce.schema import DECIMALS, Field, Kind, SObject

if TYPE_CHECKING:
    from local.simulators.salesforce.organization import Organization, Values

DATETIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,3})?(Z|[+-]\d\d:\d\d)")
EMAIL = re.compile(r"[^@\s,;<>()]+@[^@\s,;<>()]+\.[A-Za-z]{2,}")
SINGLE_LINE = frozenset({Kind.STRING, Kind.EMAIL, Kind.PHONE, Kind.URL, Kind.PICKLIST})


def render(value: Any) -> Any:
    """A value as the API shows it."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000+0000")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    return value


def read_values(
    org: Organization,
    sobject: SObject,
    body: dict[str, Any],
    user: str | None,
    *,
    creating: bool,
    source: str = "",
) -> Values:
    """The values of a write by canonical field name. User None means people, who have no field permissions."""
    values: Values = {}
    writes: list[tuple[Field, Any]] = []
    for name, given in body.items():
        if name.lower() == "attributes":
            continue
        known = org.access.field_named(sobject, name, user)
        if known is None and isinstance(given, dict):
            known, given = _parent_by_key(org, sobject, name, given, user)
        if known is None:
            raise refuse("NoSuchField", name=name, object=sobject.name)
        if known.kind is Kind.ID:
            raise refuse("FieldInBody", name="Id")
        writes.append((known, given))
    forbidden = [
        known.name
        for known, _ in writes
        if not (known.create if creating else known.update) or not org.access.may_write(sobject, known, user)
    ]
    if forbidden:
        raise refuse("ReadOnly", forbidden, names=", ".join(forbidden))
    for known, given in writes:
        values[known.name] = _typed(known, given, source)
    for name, value in values.items():
        _check_length(sobject.fields[name], value)
    for name, value in values.items():
        values[name] = _check_picklist(org, sobject.fields[name], value)
    if org.crlf_in_text_areas:
        for name, value in values.items():
            if sobject.fields[name].kind is Kind.TEXTAREA and value:
                values[name] = re.sub(r"\r?\n", "\r\n", value)
    return values


def _parent_by_key(
    org: Organization, sobject: SObject, relation: str, given: dict[str, Any], user: str | None
) -> tuple[Field | None, Any]:
    """The lookup field and the id behind `"Account": {"Key__c": "value"}`."""
    lookups = [
        known for known in org.access.fields(sobject, user) if (known.relation or "").lower() == relation.lower()
    ]
    keys = {name: value for name, value in given.items() if name != "attributes"}
    if not lookups or len(keys) != 1:
        return None, None
    [(name, value)] = keys.items()
    for target in lookups[0].targets:
        parent = org.object_named(target)
        key = org.access.field_named(parent, name, user) if parent else None
        if parent is None or key is None or not (key.external_id or key.id_lookup or key.kind is Kind.ID):
            continue
        found = org.where(parent.name, **{key.name: value})
        if len(found) > 1:
            raise refuse("AmbiguousKey", [], name=key.name, ids=", ".join(row.id for row in found))
        if not found:
            raise refuse("ForeignKey", [], value=value, name=key.name, object=parent.name)
        return lookups[0], found[0].id
    raise refuse("NoSuchField", name=name, object=lookups[0].targets[0])


def _typed(known: Field, given: Any, source: str) -> Any:
    """The value in the type the field holds; an empty text is None. Raises WrongType and its neighbours."""
    if given is None or given == "":
        if known.kind is Kind.BOOLEAN:
            raise refuse("BadType", [known.name], label=known.label, value="" if given is None else given)
        if given == "" and known.kind in DECIMALS | {Kind.INT, Kind.DATE, Kind.DATETIME}:
            raise _wrong_type(known, given, source)
        return None
    if known.kind is Kind.BOOLEAN:
        return _expect(known, given, bool, source)
    if known.kind in DECIMALS:
        return _decimal(known, given, source)
    if known.kind is Kind.INT:
        return _int(known, given, source)
    if known.kind is Kind.COMPLEX:
        return _expect(known, given, dict, source)
    text: str = _expect(known, given, str, source)
    if known.kind is Kind.DATE:
        return _date(known, text, source)
    if known.kind is Kind.DATETIME:
        return _datetime(known, text, source)
    if known.kind is Kind.REFERENCE:
        return _reference(known, text)
    text = text.strip() if known.kind in SINGLE_LINE else text.rstrip()
    if known.kind is Kind.EMAIL and text and not EMAIL.fullmatch(text):
        raise refuse("BadEmail", [known.name], label=known.label, value=text)
    return text or None


def _expect(known: Field, given: Any, wanted: type, source: str) -> Any:
    if not isinstance(given, wanted):
        raise _wrong_type(known, given, source)
    return given


def _decimal(known: Field, given: Any, source: str) -> Decimal:
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise _wrong_type(known, given, source)
    value = Decimal(str(given)).quantize(Decimal(1).scaleb(-known.scale), ROUND_HALF_UP) if abs(given) < 1e20 else None
    if value is None or abs(value) >= Decimal(10) ** (known.precision - known.scale):
        raise refuse("OutOfRange", [known.name], label=known.label, value=given)
    return value


def _int(known: Field, given: Any, source: str) -> int:
    if isinstance(given, bool) or not isinstance(given, int | float) or given != int(given):
        raise _wrong_type(known, given, source)
    if abs(given) >= 10**known.precision:
        raise refuse("OutOfRange", [known.name], label=known.label, value=given)
    return int(given)


def _date(known: Field, text: str, source: str) -> date:
    try:
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            raise _wrong_type(known, text, source)
        return date.fromisoformat(text)
    except ValueError as exc:
        raise _wrong_type(known, text, source) from exc


def _datetime(known: Field, text: str, source: str) -> datetime:
    try:
        if not DATETIME.fullmatch(text):
            raise _wrong_type(known, text, source)
        return datetime.fromisoformat(text).astimezone(UTC).replace(microsecond=0)
    except ValueError as exc:
        raise _wrong_type(known, text, source) from exc


def _reference(known: Field, text: str) -> str:
    prefixes = {"Account": "001", "Contact": "003", "User": "005", "Opportunity": "006", "Group": "00G", "Lead": "00Q",
                "PermissionSet": "0PS"}  # fmt: skip
    full = id18(text)
    expected = {prefixes[target] for target in known.targets if target in prefixes}
    if full is None or (expected and full[:3] not in expected):
        raise refuse("WrongId", [known.name], label=known.label, value=text)
    return full


def _check_length(known: Field, value: Any) -> None:
    if known.length and isinstance(value, str) and len(value) > known.length:
        raise refuse("TooLong", [known.name], label=known.label, value=value, length=known.length)


def _check_picklist(org: Organization, known: Field, value: Any) -> Any:
    if not isinstance(value, str):
        if known.name == "CurrencyIsoCode":
            raise refuse("BadPicklist", [known.name], label=known.label, value="")
        return value
    if known.kind is Kind.MULTIPICKLIST:
        chosen = list(dict.fromkeys(part.strip() for part in value.split(";") if part.strip()))
        if known.restricted and (unknown := [part for part in chosen if part not in known.values]):
            raise refuse("BadPicklist", [known.name], label=known.label, value=unknown[0])
        order = {name: index for index, name in enumerate(known.values)}
        return ";".join(sorted(chosen, key=lambda part: order.get(part, len(order)))) or None
    if known.kind is Kind.PICKLIST and known.restricted and known.values and value not in known.values:
        raise refuse("BadPicklist", [known.name], label=known.label, value=value)
    if known.name == "CurrencyIsoCode" and not org.where("CurrencyType", IsoCode=value, IsActive=True):
        raise refuse("BadPicklist", [known.name], label=known.label, value=value)
    return value


def _wrong_type(known: Field, given: Any, source: str) -> Exception:
    tokens = {str: "VALUE_STRING", int: "VALUE_NUMBER_INT", float: "VALUE_NUMBER_FLOAT", dict: "START_OBJECT",
              list: "START_ARRAY"}  # fmt: skip
    token = f"VALUE_{str(given).upper()}" if isinstance(given, bool) else tokens.get(type(given), "VALUE")
    shown = given if isinstance(given, str) else json.dumps(given)
    column = source.find(json.dumps(given)) + 1
    return refuse("WrongType", type=known.kind, token=token, value=shown, column=max(column, 1))

"""How the fields of a write are shown: before and after, by the labels of the field map where it is at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shared.decide import EMPTY, shown
from shared.lenses import Unmapped, Value
from shared.lifecycle import Lifecycle
from shared.mapping import Field, TableMap
from shared.model import Side

SIDES: Mapping[Side, str] = {"partner_center": "Partner Center", "microsoft": "Partner Center", "crm": "CRM"}


def updated(fields: Mapping[str, Sequence[Value]], table: TableMap | None) -> list[str]:
    """Return a line for each field, given [before, after] by its name."""
    labels = {field.name: field.label for field in table.fields} if table else {}
    return [f"{labels.get(name, name)}: {shown(before)} → {shown(after)}" for name, (before, after) in fields.items()]


def created(values: Mapping[str, Value], table: TableMap | None) -> list[str]:
    """Return a line for each field of something new, given its canonical value by its name."""
    labels = {field.name: field.label for field in table.fields} if table else {}
    return [f"{labels.get(name, name)}: {shown(value)}" for name, value in values.items()]


def canonical(raw: Mapping[str, Any], side: Side, table: TableMap | None) -> Mapping[str, Value]:
    """Return what was sent to create something, by field name; as it was sent where the field map says nothing of it.

    `raw` is by column, or by member of the referral, whose members that no field maps are the same for every deal.
    """
    if table is None:
        return raw
    read = {field.name: _read(field, raw, side) for field in table.fields}
    mapped = {place for field in table.fields for place in field.lens.columns}
    unmapped = {place: value for place, value in raw.items() if side == "crm" and place not in mapped}
    return {name: value for name, value in (read | unmapped).items() if value not in EMPTY}


def _read(field: Field, raw: Mapping[str, Any], side: Side) -> Value:
    try:
        if side != "crm":
            is_sent = "create" in field.to_partner_center and not isinstance(field.lens, Lifecycle)
            return field.lens.read_partner_center(raw) if is_sent else None
        if isinstance(field.lens, Lifecycle):  # of a state, more is read than is written
            return next(({"state": row.state} for row in field.lens.states if row.write.items() <= raw.items()), None)
        columns = field.lens.columns
        return field.lens.read_crm({**dict.fromkeys(columns), **raw}) if raw.keys() & set(columns) else None
    except Unmapped as unmapped:  # the map has changed since
        return unmapped.value

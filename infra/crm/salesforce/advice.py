"""Says what a person should know about an org although it stops nothing here. Reads, never changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from infra.crm.salesforce.fields import Wanted
from infra.crm.salesforce.org import Found, Org
from infra.crm.salesforce.permissions import custom_name, used_fields
from infra.crm.salesforce.provision import Fields
from shared.lenses import Money
from shared.lifecycle import Lifecycle
from shared.mapping import FieldMap

# https://resources.docs.salesforce.com/258/latest/en-us/sfdc/pdf/object_reference.pdf
STATES: Mapping[str, tuple[str, str, str]] = {
    "StageName": ("OpportunityStage", "IsActive = true", "an active stage"),
    "Status": ("LeadStatus", "", "a lead status"),
}
"""By field: the object that holds its values, which of them count, and what they are called."""

CURRENCY = "CurrencyIsoCode"
"""Only an org with several currencies has this field."""


class Advice:
    """`found`: the custom fields of the map that exist. `only_currency`: the setting CRM_CURRENCY."""

    def __init__(self, org: Org, wanted: Wanted, field_map: FieldMap, found: Fields, only_currency: str) -> None:
        self._org = org
        self._wanted = wanted
        self._field_map = field_map
        self._found = found
        self._only_currency = only_currency
        self._used = used_fields(field_map)

    def lines(self) -> Iterator[str]:
        yield from self._missing_fields()
        yield from self._unused_fields()
        yield from self._keys()
        yield from self._picklists()
        yield from self._states()
        yield from self._currency()
        yield from self._codes()

    def _missing_fields(self) -> Iterator[str]:
        for object_name, names in self._used.items():
            ours = {field.name.lower() for field in self._wanted.fields_of(object_name)}
            for name in names:
                if custom_name(name) and name.lower() not in ours and (object_name, name.lower()) not in self._found:
                    yield (
                        f"the field map names {object_name}.{name}, which does not exist: add it in Setup, Object "
                        "Manager, or correct the map"
                    )

    def _unused_fields(self) -> Iterator[str]:
        for object_name, names in self._used.items():
            used = {name.lower() for name in names}
            unused = [f.name for f in self._wanted.fields_of(object_name) if f.name.lower() not in used]
            if unused:
                yield f"not added to {object_name}, because the field map does not use them: {', '.join(unused)}"

    def _keys(self) -> Iterator[str]:
        """Microsoft's package makes the referral's id an External ID only."""
        for table in self._field_map.tables.values():
            found = self._found.get((table.table, table.columns.referral_id.lower()))
            if found and not found.metadata.get("unique"):
                yield (
                    f"{table.table}.{found.name} is not Unique: two records can then carry one referral. Tick it in "
                    "Setup, Object Manager, as soon as no two records share a value"
                )
            ours = {field.name for field in self._wanted.fields_of(table.table)}
            if found and found.name not in ours and not found.metadata.get("externalId"):
                yield f"{table.table}.{found.name} is no External ID, by which the app makes records: tick it as well"

    def _picklists(self) -> Iterator[str]:
        for object_name in self._used:
            for field in self._wanted.fields_of(object_name):
                found = self._found.get((object_name, field.name.lower()))
                if found and field.values:
                    yield from _values(object_name, field.values, found)

    def _states(self) -> Iterator[str]:
        named = list(dict.fromkeys(self._state_values()))
        for column, (object_name, condition, words) in STATES.items():
            rows = [each for each in named if each[0] == column]
            there = self._org.values_in_use(object_name, condition) if rows else frozenset()
            for _, table, state, value in rows:
                if value not in there:
                    yield (
                        f"state {state} of {table} names {column} {value}, which is not {words} of this org: correct "
                        "it in the field map, or add it in Setup"
                    )

    def _state_values(self) -> Iterator[tuple[str, str, str, str]]:
        for table in self._field_map.tables.values():
            lens = table.lifecycle.lens
            for row in lens.states if isinstance(lens, Lifecycle) else ():
                for column, value in (*row.read.items(), *row.write.items()):
                    yield column, table.table, row.state, str(value)

    def _currency(self) -> Iterator[str]:
        tables = [t.table for t in self._field_map.tables.values() if any(isinstance(f.lens, Money) for f in t.fields)]
        has_several = any(CURRENCY in self._org.visible_fields(table) for table in tables)
        if tables and not has_several and not self._only_currency:
            yield f"this org has one currency, and so no {CURRENCY}: set CRM_CURRENCY to its ISO code, then run again"
        if has_several and self._only_currency:
            yield f"this org has several currencies: unset CRM_CURRENCY, or all amounts count as {self._only_currency}"

    def _codes(self) -> Iterator[str]:
        """With State and Country/Territory picklists on, texts that are in no list are refused."""
        for object_name, names in self._used.items():
            texts = [name for name in names if name.endswith(("State", "Country"))]
            coded = {f"{name}Code" for name in texts} & self._org.visible_fields(object_name) if texts else set()
            if coded:
                yield (
                    f"State and Country/Territory picklists are on for {object_name}: let the field map use "
                    f"{', '.join(sorted(coded))} in place of the fields without Code"
                )


def _values(object_name: str, wanted: tuple[str, ...], found: Found) -> Iterator[str]:
    if found.values is None:
        name = found.metadata["valueSet"].get("valueSetName")
        yield f"{object_name}.{found.name} shares global value set {name}: it must have {', '.join(wanted)}"
        return
    there = {str(value["valueName"]).lower(): str(value["valueName"]) for value in found.values}
    for value in wanted:
        if there.get(value.lower(), value) != value:
            yield (
                f"{object_name}.{found.name} has the value {there[value.lower()]}, not {value}: write it so in the "
                "field map"
            )

"""The field map: reads an admin's TOML file into tables of fields, or refuses it whole with every error at once.

Says which field goes where; shared.lenses says how. Performs no I/O but reading the file.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, model_validator
from pydantic import Field as Key

from shared.errors import SettingsError
from shared.lenses import (
    PERSON_KEYS,
    Choice,
    Country,
    Date,
    Flag,
    Lens,
    Money,
    People,
    Person,
    Solutions,
    Summary,
    Text,
    at,
    shortened,
    text_of,
)
from shared.lifecycle import CRM_STATES, CrmState, Lifecycle
from shared.model import Link
from shared.referral_paths import closest_path
from shared.remote.crm import RelatedRow, TableShape

ASSISTANCE = "/inviteContext/assistanceRequestCode"
CONSENT = "/consent/consentToShareReferralWithMicrosoftSellers"
CHECK_MARK = "✓ "

Occasion = Literal["create", "update"]
Copy = Literal["own", "microsoft", "any"]
Conflict = Literal["partner_center", "crm", "latest", "hold"]
Required = Literal["", "always", "co-sell"]


# ---------------------------------------------------------------- what the code loops over


@dataclass(frozen=True)
class Field:
    """One row of the map. `copy`: whose referral holds it: our own, Microsoft's, or any (Microsoft's first)."""

    name: str
    label: str
    lens: Lens
    to_crm: frozenset[Occasion]
    to_partner_center: frozenset[Occasion]
    copy: Copy = "own"
    conflict: Conflict = "crm"
    required: Required = ""

    @cached_property
    def place(self) -> str:
        """Tells where its values stand from elsewhere: what stood in one place says nothing of another."""
        return _digest(type(self.lens).__name__, *self.lens.pointers, *self.lens.columns, self.copy)


def _digest(*said: str) -> str:
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Columns:
    """The columns this product adds to a table. All but `referral_id` may be "" (not there)."""

    referral_id: str
    sync_flag: str = ""
    referral_link: str = ""
    audit: str = ""
    sync_status: str = ""

    @property
    def optional(self) -> frozenset[str]:
        """Those that only show something."""
        return frozenset({self.referral_link, self.audit, self.sync_status} - {""})


@dataclass(frozen=True)
class Related:
    """Rows that a deal born in Partner Center needs in the CRM. `each`: one per entry of that list.

    `values` fills a column from a pointer, or from several, a line each; `defaults` what would stay empty.
    """

    table: str
    link: str
    match: Mapping[str, str]
    values: Mapping[str, str | tuple[str, ...]]
    max_length: Mapping[str, int]
    defaults: Mapping[str, str] = dataclass_field(default_factory=dict)
    each: str = ""
    parent: str = ""
    parent_link: str = ""
    role: str = ""

    def rows(self, document: Mapping[str, Any]) -> Iterator[RelatedRow]:
        """Yield the rows for one referral; a row that nothing identifies is left out. Only the first is linked."""
        entries = at(document, self.each) or [] if self.each else [document]
        link = self.link
        for entry in entries:
            match = self._filled(self.match, entry)
            if next(iter(self.match)) in match:
                values = {**self.defaults, **self._filled(self.values, entry)}
                yield RelatedRow(self.table, link, match, values, self.parent, self.parent_link, self.role)
                link = ""

    def _filled(self, pointers: Mapping[str, str | tuple[str, ...]], entry: Mapping[str, Any]) -> dict[str, str]:
        texts = {column: _lines_at(entry, named) for column, named in pointers.items()}
        return {column: shortened(text, self.max_length.get(column, 0)) for column, text in texts.items() if text}


def _lines_at(entry: Mapping[str, Any], pointers: str | tuple[str, ...]) -> str:
    named = (pointers,) if isinstance(pointers, str) else pointers
    return "\n".join(filter(None, (text_of(at(entry, pointer)) for pointer in named)))


@dataclass(frozen=True)
class TableMap:
    """The map of one CRM table.

    `new`: what a new record gets besides its fields, by column.
    `converts_to`: the table where the deal goes on once accepted; `origin`: the lookup there that names this record.
    """

    table: str
    fields: tuple[Field, ...]
    columns: Columns
    new: Mapping[str, Any] = dataclass_field(default_factory=dict)
    related: tuple[Related, ...] = ()
    converts_to: str = ""
    origin: str = ""

    @cached_property
    def fingerprint(self) -> str:
        """Another one when a field comes, goes, or stands in another place."""
        return _digest(*sorted(f"{field.name} {field.place}" for field in self.fields))

    @cached_property
    def lifecycle(self) -> Field:
        return next(field for field in self.fields if isinstance(field.lens, Lifecycle))

    @cached_property
    def assistance(self) -> Field | None:
        return next((field for field in self.fields if ASSISTANCE in field.lens.pointers), None)

    @cached_property
    def marked_name(self) -> Text | None:
        """The name, if it shows a check mark or a cross."""
        return next((f.lens for f in self.fields if isinstance(f.lens, Text) and f.lens.mark), None)

    @cached_property
    def consent(self) -> Field | None:
        """The field that says whether Microsoft's sellers may see the deal."""
        return next((field for field in self.fields if CONSENT in field.lens.pointers), None)

    @cached_property
    def shape(self) -> TableShape:
        names = (column for field in self.fields for column in field.lens.columns)
        system = (self.columns.referral_id, self.columns.sync_flag, self.columns.audit, self.columns.sync_status)
        return TableShape(
            sync_status=self.columns.sync_status,
            display=(self.columns.audit,),
            table=self.table,
            columns=tuple(dict.fromkeys(filter(None, (*system, *names)))),
            referral_id=self.columns.referral_id,
            sync_flag=self.columns.sync_flag,
        )


@dataclass(frozen=True)
class NewReferral:
    """What every new referral gets besides the mapped fields."""

    qualification: str
    attributes: tuple[Mapping[str, str], ...]


@dataclass(frozen=True)
class FieldMap:
    """The whole map: tables by the CRM's name for them, and the switches."""

    tables: Mapping[str, TableMap]
    leads: bool
    new_referral: NewReferral

    def table_for(self, *, is_lead: bool) -> TableMap | None:
        """Return where an inbound deal goes: leads into a table that converts, None when leads are out of scope."""
        lead = next((table for table in self.tables.values() if table.converts_to), None)
        if is_lead:
            return lead if self.leads else None
        return next(table for table in self.tables.values() if not table.converts_to)

    def has_changed_for(self, link: Link) -> bool:
        """Whether both sides of a deal were last read for other fields, or other places, than its table has now."""
        table = self.tables.get(link.record.table) if link.record else None
        return table is not None and link.mapped not in ("", table.fingerprint)

    @property
    def watched(self) -> tuple[TableMap, ...]:
        """The tables whose changes are polled."""
        return tuple(table for table in self.tables.values() if self.leads or not table.converts_to)


# ---------------------------------------------------------------- what the file may say


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _known_path(pointer: str) -> str:
    closest = closest_path(pointer) if pointer else ""
    if closest:
        raise ValueError(f"this is no path of a referral; the closest known is {closest}")
    return pointer


def _scalar(value: Any) -> Any:
    if not isinstance(value, (int, str)):
        raise ValueError("accepted are a whole number, a text, true and false")  # noqa: TRY004 (what pydantic collects)
    return value


Pointer = Annotated[str, AfterValidator(_known_path)]
Scalar = Annotated[Any, AfterValidator(_scalar)]


Parts = dict[Literal["firstName", "lastName", "phoneNumber", "email"], str]


class _FieldRow(_Row):
    name: str = Key(pattern=r"^[a-z][a-z0-9_]*$")
    type: Literal[
        "text", "country", "money", "date", "choice", "flag", "person", "people", "solutions", "summary", "lifecycle"
    ]
    label: str = ""
    partner_center: Pointer = ""
    partner_center_currency: Pointer = ""
    crm: str = ""
    crm_currency: str = ""
    to_crm: frozenset[Occasion] = frozenset()
    to_partner_center: frozenset[Occasion] = frozenset()
    copy_: Copy = Key("own", alias="copy")
    conflict: Conflict = "crm"
    required: Required = ""
    max_length: int = Key(0, ge=0)
    marked: bool = False
    default: str = ""
    line: int = Key(0, ge=0)
    default_days: int = Key(0, ge=0)
    places: int = Key(2, ge=0, le=4)
    values: dict[str, Scalar] = Key(default_factory=dict)
    empty: tuple[str, ...] = ()
    latch: bool = False
    parts: Parts = Key(default_factory=dict)
    people: tuple[Parts, ...] = ()
    template: str = ""

    @model_validator(mode="after")
    def _has_what_its_type_needs(self) -> _FieldRow:
        missing = [key for key in _NEEDS[self.type] if not getattr(self, key)]
        if missing:
            raise ValueError(f"a field of type {self.type} needs {', '.join(missing)}")
        if self.line and self.to_crm:
            raise ValueError("a field that is one line of a text cannot go into the CRM: leave out to_crm")
        return self


_NEEDS: dict[str, tuple[str, ...]] = {
    "text": ("partner_center", "crm"),
    "country": ("partner_center", "crm"),
    "money": ("partner_center", "partner_center_currency", "crm", "crm_currency"),
    "date": ("partner_center", "crm"),
    "choice": ("partner_center", "crm", "values"),
    "flag": ("partner_center", "crm"),
    "person": ("partner_center", "parts"),
    "people": ("partner_center", "people"),
    "solutions": ("partner_center", "crm"),
    "summary": ("partner_center", "crm", "template"),
    "lifecycle": (),
}


class _StateRow(_Row):
    state: Literal["on_hold", "open", "won", "lost"]
    read: dict[str, Scalar]
    write: dict[str, Scalar]
    reason: str = ""


class _ColumnsRow(_Row):
    referral_id: str
    sync_flag: str = ""
    referral_link: str = ""
    audit: str = ""
    sync_status: str = ""


class _RelatedRow(_Row):
    table: str
    link: str
    match: dict[str, str] = Key(min_length=1)
    values: dict[str, str | tuple[str, ...]]
    max_length: dict[str, int] = Key(default_factory=dict)
    defaults: dict[str, str] = Key(default_factory=dict)
    each: str = ""
    parent: str = ""
    parent_link: str = ""
    role: str = ""


class _TableRow(_Row):
    columns: _ColumnsRow
    fields_: tuple[_FieldRow, ...] = Key(alias="fields")
    states: tuple[_StateRow, ...]
    new: dict[str, Scalar] = Key(default_factory=dict)
    related: tuple[_RelatedRow, ...] = ()
    converts_to: str = ""
    origin: str = ""


class _ScopeRow(_Row):
    leads: bool = True


class _SwitchesRow(_Row):
    check_mark_in_name: bool = False


class _ReferralRow(_Row):
    qualification: str = "SalesQualified"
    lost_reason: str = "Others"
    attributes: tuple[dict[str, str], ...] = ()


class _File(_Row):
    scope: _ScopeRow = _ScopeRow()
    switches: _SwitchesRow = _SwitchesRow()
    referral: _ReferralRow = _ReferralRow()
    tables: dict[str, _TableRow] = Key(min_length=1)


# ---------------------------------------------------------------- from the file to the map


def load_field_map(path: Path, only_currency: str = "") -> FieldMap:
    """Read the map. Raises SettingsError, one line per problem: file, line, row, what is wrong, what is accepted.

    `only_currency`: the ISO code of the one currency of a CRM that keeps amounts without one.
    """
    try:
        text = path.read_text(encoding="utf-8")
        raw = tomllib.loads(text)
    except OSError as unread:
        raise SettingsError([f"{path}: {unread.strerror}. MAPPING_FILE must name a field map"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as broken:
        raise SettingsError([f"{path}: this is no TOML: {broken}"]) from None
    errors = list(_contradictions(raw))
    try:
        file = _File.model_validate(raw)
    except ValidationError as refused:
        errors += [(_place(error), _in_words(error)) for error in refused.errors(include_url=False)]
    if errors:
        lines = _lines_of(text)
        errors.sort(key=lambda error: _line(lines, error[0]))
        raise SettingsError(
            [f"{path}, line {_line(lines, place)}: {_row(raw, place)}: {what}" for place, what in errors]
        )
    return _built(file, only_currency)


@dataclass(frozen=True)
class _Whole:
    """What a row depends on besides itself."""

    mark: str
    lost_reason: str
    only_currency: str


def _built(file: _File, only_currency: str) -> FieldMap:
    mark = CHECK_MARK if file.switches.check_mark_in_name else ""
    whole = _Whole(mark, file.referral.lost_reason, only_currency)
    return FieldMap(
        tables={name: _table(name, row, whole) for name, row in file.tables.items()},
        leads=file.scope.leads,
        new_referral=NewReferral(file.referral.qualification, file.referral.attributes),
    )


def _table(name: str, row: _TableRow, whole: _Whole) -> TableMap:
    states = tuple(CrmState(state.state, state.read, state.write, state.reason) for state in row.states)
    return TableMap(
        table=name,
        fields=tuple(
            Field(
                name=field.name,
                label=field.label or field.crm or field.name,
                lens=Lifecycle(states, whole.lost_reason)
                if field.type == "lifecycle"
                else _LENSES[field.type](field, whole),
                to_crm=field.to_crm,
                to_partner_center=field.to_partner_center,
                copy=field.copy_,
                conflict=field.conflict,
                required=field.required,
            )
            for field in row.fields_
        ),
        columns=Columns(**row.columns.model_dump()),
        new=row.new,
        related=tuple(Related(**related.model_dump()) for related in row.related),
        converts_to=row.converts_to,
        origin=row.origin,
    )


_LENSES: dict[str, Callable[[_FieldRow, _Whole], Lens]] = {
    "text": lambda row, whole: Text(
        row.partner_center,
        row.crm,
        row.max_length,
        row.marked,
        whole.mark if row.marked else "",
        row.default,
        row.line,
    ),
    "country": lambda row, _: Country(row.partner_center, row.crm),
    "money": lambda row, whole: Money(
        row.partner_center, row.partner_center_currency, row.crm, row.crm_currency, row.places, whole.only_currency
    ),
    "date": lambda row, _: Date(row.partner_center, row.crm, row.default_days),
    "choice": lambda row, _: Choice(row.partner_center, row.crm, tuple(row.values.items()), row.empty),
    "flag": lambda row, _: Flag(row.partner_center, row.crm, row.latch),
    "person": lambda row, _: Person(row.partner_center, _in_order(row.parts)),
    "people": lambda row, _: People(row.partner_center, tuple(map(_in_order, row.people))),
    "solutions": lambda row, _: Solutions(row.partner_center, row.crm, row.max_length),
    "summary": lambda row, _: Summary(row.partner_center, row.crm, row.template, row.max_length),
}


def _in_order(parts: Parts) -> tuple[tuple[str, str], ...]:
    return tuple((key, column) for key in PERSON_KEYS for name, column in parts.items() if name == key)


# ---------------------------------------------------------------- what is wrong, and where

Place = tuple[str | int, ...]
"""Where in the file: ("tables", "lead", "fields", 2, "conflict")."""


def _contradictions(raw: Mapping[str, Any]) -> Iterator[tuple[Place, str]]:
    """Yield what no single row can know. Looks at the file as it is, which may be wrong in other ways too."""
    tables = _tables(raw.get("tables"))
    for name, table in tables.items():
        fields, converts_to = _tables(table.get("fields")), table.get("converts_to")
        seen: list[Any] = []
        for index, field in fields.items():
            if field.get("name") in seen:
                yield ("tables", name, "fields", index, "name"), "another field of this table has this name"
            seen.append(field.get("name"))
        if sum(field.get("type") == "lifecycle" for field in fields.values()) != 1:
            yield ("tables", name, "fields"), "exactly one field must have type lifecycle; it carries the status"
        if converts_to and converts_to not in tables:
            yield (
                ("tables", name, "converts_to"),
                f"{converts_to} is no table of this file. Accepted: {', '.join(sorted(tables))}",
            )
        rows = _tables(table.get("states"))
        for index, row in rows.items():
            read, write = (part if isinstance(part, dict) else {} for part in (row.get("read"), row.get("write")))
            for column in read.keys() & write.keys():
                if read[column] != write[column]:
                    # An inbound deal, say, would be taken for accepted as soon as it is written.
                    words = f"what is written would not be read as this state: read has {_toml(read[column])}"
                    yield ("tables", name, "states", index, "write", column), words
        states = {row.get("state") for row in rows.values()}
        missing = [state for state in CRM_STATES[: 2 if converts_to else None] if state not in states]
        if missing:
            yield ("tables", name, "states"), f"no row for {', '.join(missing)}"
    if tables and all(table.get("converts_to") for table in tables.values()):
        yield ("tables",), "no table takes opportunities: one must be without converts_to"


def _tables(raw: Any) -> dict[Any, dict[str, Any]]:
    """Return the TOML tables among the entries of a table or a list, by key or index."""
    entries = raw.items() if isinstance(raw, dict) else enumerate(raw) if isinstance(raw, list) else ()
    return {key: entry for key, entry in entries if isinstance(entry, dict)}


def _place(error: Any) -> Place:
    return tuple(part for part in error["loc"] if part != "[key]")


def _in_words(error: Any) -> str:
    what = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        known = sorted(_known_keys(error["loc"]))
        closest = get_close_matches(str(error["loc"][-1]), known, n=1)
        guess = f"; did you mean {closest[0]}?" if closest else "."
        return f"is not known here{guess} Accepted: {', '.join(known)}"
    if error["type"] == "missing":
        return "is missing"
    if error["type"] in ("frozen_set_type", "tuple_type"):
        return f'{_toml(error["input"])} is wrong. Accepted is a list, such as ["create"]'
    if error["loc"][-1] == "[key]":
        return f"is not known here. {what}"
    if isinstance(error["input"], dict):
        return what
    return f"{_toml(error['input'])} is wrong. {what}"


def _row(raw: Mapping[str, Any], place: Place) -> str:
    """Return the place in words: rows of lists by their name, their state, or their number."""
    words: list[str] = []
    found: Any = raw
    for part in place:
        found = at(found, f"/{part}")
        name = found.get("name") or found.get("state") if isinstance(found, dict) else None
        words.append(str(name or part + 1) if isinstance(part, int) else part)
    return " ".join(words)


def _line(lines: Mapping[Place, int], place: Place) -> int:
    """Return the line of the nearest thing around `place` that has one: a list in one line, a row that lacks a key."""
    return next((lines[place[:end]] for end in range(len(place), 0, -1) if place[:end] in lines), 1)


def _lines_of(text: str) -> dict[Place, int]:
    """Return the line of every table and key, which tomllib does not tell."""
    lines: dict[Place, int] = {}
    rows: dict[Place, int] = {}
    table: Place = ()
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*(\[\[?)\s*([^\]]+?)\s*\]", line)
        key = re.match(r"""\s*(["']?)([\w-]+)\1\s*=""", line)
        if header:
            *parents, last = (part.strip(" \"'") for part in header[2].split("."))
            table = ()
            for part in parents:
                table += (part,)
                lines.setdefault(table, number)
                table += (rows[table],) if table in rows else ()
            table += (last,)
            if header[1] == "[[":
                lines.setdefault(table, number)
                rows[table] = rows.get(table, -1) + 1
                table += (rows[table],)
            lines[table] = number
        elif key:
            lines.setdefault((*table, key[2]), number)
    return lines


def _toml(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)


def _known_keys(loc: tuple[Any, ...]) -> list[str]:
    models: dict[str, type[BaseModel]] = {
        "fields": _FieldRow,
        "states": _StateRow,
        "columns": _ColumnsRow,
        "related": _RelatedRow,
        "scope": _ScopeRow,
        "switches": _SwitchesRow,
        "referral": _ReferralRow,
        "tables": _TableRow,
    }
    owner = next((models[part] for part in reversed(loc[:-1]) if part in models), _File)
    return [info.alias or name for name, info in owner.model_fields.items()]

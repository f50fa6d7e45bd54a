"""One lens per kind of field: how each side's raw JSON is read into a canonical value, written back, and carried over.

A canonical value is plain JSON, compared by equality, and belongs to one side: Partner Center's instant and the CRM's
date are different values of one field. `to_crm` and `to_partner_center` project one side's value onto the other, given
what the other holds now, so that a lossy projection (a truncated text, a date without a time) never writes back.
Laws, held by property tests: reading what was written gives it back; projecting twice changes nothing.
Performs no I/O.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any, Literal, Protocol

Value = Any
"""A canonical value: what JSON can hold, so that the base survives being stored."""

Winner = Literal["partner_center", "crm"]

ELLIPSIS = "…"


class Unmapped(ValueError):
    """A value one side sent has no counterpart on the other. `accepted` says what has."""

    def __init__(self, value: object, accepted: str) -> None:
        super().__init__(f"{value!r} has no counterpart; known are {accepted}")
        self.value = value
        self.accepted = accepted


class Lens(Protocol):
    """How one field is read, written and carried over. `pointers` and `columns` are the raw places it owns."""

    @property
    def pointers(self) -> tuple[str, ...]: ...
    @property
    def columns(self) -> tuple[str, ...]: ...

    def read_partner_center(self, document: Mapping[str, Any]) -> Value: ...
    def write_partner_center(self, value: Value) -> dict[str, Any]: ...
    def read_crm(self, values: Mapping[str, Any]) -> Value: ...
    def write_crm(self, value: Value) -> dict[str, Any]: ...
    def to_crm(self, partner_center: Value, crm: Value) -> Value: ...
    def to_partner_center(self, crm: Value, partner_center: Value) -> Value: ...
    def agree(self, partner_center: Value, crm: Value) -> bool: ...
    def leads(self, partner_center: Value, crm: Value) -> Winner | None:
        """Say which side wins by the nature of the field; None leaves it to the field map's conflict rule."""
        ...


class _Projected:
    """Base of the lenses whose two sides agree when Partner Center's value, carried over, is what the CRM holds."""

    def agree(self: Lens, partner_center: Value, crm: Value) -> bool:
        return bool(self.to_crm(partner_center, crm) == crm)

    def leads(self, partner_center: Value, crm: Value) -> Winner | None:  # noqa: ARG002
        return None


def at(document: Any, pointer: str) -> Any:
    """Return what a JSON pointer (RFC 6901) names, None where the path ends early."""
    for part in pointer.strip("/").split("/"):
        if isinstance(document, Mapping):
            document = document.get(part)
        elif isinstance(document, list) and part.isdigit():
            document = document[int(part)] if int(part) < len(document) else None
        else:
            return None
    return document


def put(document: dict[str, Any], pointer: str, value: Any) -> None:
    """Set what a JSON pointer names, making the objects on the way."""
    *parents, last = pointer.strip("/").split("/")
    for part in parents:
        document = document.setdefault(part, {})
    document[last] = value


def text_of(raw: Any) -> str:
    """Return text in one normal form: NFC, line feeds, no trailing blanks; nothing is the empty string.

    Half a surrogate pair, which JSON can carry and UTF-8 cannot, becomes U+FFFD.
    """
    if raw is None:
        return ""
    text = str(raw).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    lines = unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join(line.rstrip() for line in lines).rstrip("\n")


def shortened(text: str, limit: int) -> str:
    """Cut to `limit` UTF-16 units (how .NET and Java count), never through a character, marking the cut."""
    if not limit or len(text.encode("utf-16-le")) // 2 <= limit:
        return text
    room = (limit - 1) * 2
    return text.encode("utf-16-le")[:room].decode("utf-16-le", "ignore").rstrip() + ELLIPSIS


@dataclass(frozen=True)
class _OnePlace(_Projected):
    """Base of the lenses that own one JSON path and one column."""

    pointer: str
    column: str

    @property
    def pointers(self) -> tuple[str, ...]:
        return (self.pointer,) if self.pointer else ()

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,) if self.column else ()


@dataclass(frozen=True)
class Text(_OnePlace):
    """Text. `max_length`: what the CRM's column holds; longer text is shortened there and kept whole here.

    `marked`: the CRM's text may begin with a check mark or a cross, as the Power Automate connector wrote them; it is
    never sent to Partner Center. `mark` is what we write there. `default` stands in for a text Partner Center lacks.
    `line`: the one line of the CRM's text that counts, from 1 on; 0: the whole text.
    """

    max_length: int = 0
    marked: bool = False
    mark: str = ""
    default: str = ""
    line: int = 0

    def read_partner_center(self, document: Mapping[str, Any]) -> Value:
        return self._unmarked(text_of(at(document, self.pointer)))

    def write_partner_center(self, value: Value) -> dict[str, Any]:
        return {self.pointer: value}

    def read_crm(self, values: Mapping[str, Any]) -> Value:
        text = text_of(values.get(self.column))
        if self.line:
            text = "".join(text.split("\n")[self.line - 1 : self.line])
        return self._unmarked(text)

    def write_crm(self, value: Value) -> dict[str, Any]:
        return {self.column: shortened(self.mark + value, self.max_length) or None}

    def to_crm(self, partner_center: Value, crm: Value) -> Value:  # noqa: ARG002
        return shortened(partner_center or self.default, self.max_length and self.max_length - len(self.mark))

    def to_partner_center(self, crm: Value, partner_center: Value) -> Value:
        return partner_center if crm == self.to_crm(partner_center, crm) else crm

    def _unmarked(self, text: str) -> str:
        return re.sub(r"^[✓✗\s]+", "", text) if self.marked else text


def _code(raw: Any) -> str:
    return text_of(text_of(raw).upper())


@dataclass(frozen=True)
class Country(Text):
    """ISO 3166-1 alpha-2. https://learn.microsoft.com/partner-center/referrals/connector-dynamics"""

    def read_crm(self, values: Mapping[str, Any]) -> Value:
        return _code(values.get(self.column))

    def read_partner_center(self, document: Mapping[str, Any]) -> Value:
        return _code(at(document, self.pointer))

    def to_partner_center(self, crm: Value, partner_center: Value) -> Value:
        if crm and not re.fullmatch("[A-Z]{2}", crm):
            raise Unmapped(crm, "two-letter country codes (ISO 3166-1), such as US or DE")
        return super().to_partner_center(crm, partner_center)


@dataclass(frozen=True)
class Money(_Projected):
    """An amount with its currency: one field, because either alone means nothing. `places`: decimals the CRM keeps.

    `only_currency`: the one that a CRM knows which keeps no currencies; then there is no `currency_column`.
    """

    pointer: str
    currency_pointer: str
    column: str
    currency_column: str
    places: int = 2
    only_currency: str = ""

    @property
    def pointers(self) -> tuple[str, ...]:
        return (self.pointer, self.currency_pointer)

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,) if self.only_currency else (self.column, self.currency_column)

    def read_partner_center(self, document: Mapping[str, Any]) -> Value:
        return self._value(at(document, self.pointer), at(document, self.currency_pointer))

    def write_partner_center(self, value: Value) -> dict[str, Any]:
        return {self.pointer: _number(value["amount"]), self.currency_pointer: value["currency"] or None}

    def read_crm(self, values: Mapping[str, Any]) -> Value:
        return self._value(values.get(self.column), self.only_currency or values.get(self.currency_column))

    def write_crm(self, value: Value) -> dict[str, Any]:
        written = {self.column: _number(value["amount"])}
        has_own = value["currency"] and not self.only_currency
        return written | ({self.currency_column: value["currency"]} if has_own else {})

    def to_crm(self, partner_center: Value, crm: Value) -> Value:  # noqa: ARG002
        if partner_center["amount"] is None:
            return partner_center
        if self.only_currency and partner_center["currency"] not in ("", self.only_currency):
            raise Unmapped(
                f"{partner_center['amount']} {partner_center['currency']}", f"amounts in {self.only_currency}"
            )
        step = Decimal(1).scaleb(-self.places)
        rounded = Decimal(partner_center["amount"]).quantize(step, ROUND_HALF_UP, _EXACT)
        return {"amount": _digits(rounded), "currency": partner_center["currency"] or self.only_currency}

    def to_partner_center(self, crm: Value, partner_center: Value) -> Value:
        return partner_center if self.agree(partner_center, crm) else crm

    def agree(self, partner_center: Value, crm: Value) -> bool:
        try:
            return bool(self.to_crm(partner_center, crm) == crm)
        except Unmapped:  # a currency that the CRM cannot hold
            return False

    @staticmethod
    def _value(amount: Any, currency: Any) -> Value:
        if amount is None or amount == "":
            return {"amount": None, "currency": ""}  # no amount is nothing, whatever currency a new one would have
        return {"amount": _digits(Decimal(str(amount))), "currency": _code(currency)}


_EXACT = Context(prec=1000)
"""Python's default of 28 digits would round, or refuse, what JSON numbers can hold."""


def _digits(amount: Decimal) -> str:
    """One spelling per amount: 50000.0000, 5E+4 and 50000 are the same money, and so are 0 and -0."""
    return format(amount.normalize(_EXACT) or Decimal(0), "f")


def _number(amount: str | None) -> Decimal | None:
    return None if amount is None else Decimal(amount)


@dataclass(frozen=True)
class Date(_OnePlace):
    """A day in the CRM, an instant in Partner Center. The UTC day counts, in both directions.

    `default_days`: for a CRM that insists on a day, when a referral without one is due, counted from its creation.
    https://learn.microsoft.com/power-apps/developer/data-platform/behavior-format-date-time-attribute
    """

    default_days: int = 0

    def read_partner_center(self, document: Mapping[str, Any]) -> Value:
        raw, created = at(document, self.pointer), document.get("createdDateTime")
        if raw or not (self.default_days and created):
            return _instant(_utc(raw)) if raw else None
        due = _utc(created) + timedelta(days=self.default_days)
        return _instant(due.replace(hour=0, minute=0, second=0))

    def write_partner_center(self, value: Value) -> dict[str, Any]:
        return {self.pointer: value}

    def read_crm(self, values: Mapping[str, Any]) -> Value:
        raw = values.get(self.column)
        return date.fromisoformat(str(raw)[:10]).isoformat() if raw else None

    def write_crm(self, value: Value) -> dict[str, Any]:
        return {self.column: value}

    def to_crm(self, partner_center: Value, crm: Value) -> Value:  # noqa: ARG002
        return partner_center[:10] if partner_center else None

    def to_partner_center(self, crm: Value, partner_center: Value) -> Value:
        if crm == self.to_crm(partner_center, crm):
            return partner_center
        return f"{crm}T00:00:00Z" if crm else None


def _utc(raw: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(re.sub(r"\.\d+", "", str(raw)).replace("Z", "+00:00"))
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Unmapped(raw, "dates such as 2026-11-14T00:00:00Z") from None


def _instant(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class Choice(_OnePlace):
    """One of a list. `options` pairs Partner Center's code with the CRM's value; `empty`: codes for nothing chosen.

    Texts compare without case: the connector's two packages spelled their labels differently.
    """

    options: tuple[tuple[str, Any], ...] = ()
    empty: tuple[str, ...] = ()

    def read_partner_center(self, document: Mapping[str, Any]) -> Value:
        raw = text_of(at(document, self.pointer))
        if not raw or raw.casefold() in {code.casefold() for code in self.empty}:
            return None
        return next((code for code, _ in self.options if code.casefold() == raw.casefold()), raw)

    def write_partner_center(self, value: Value) -> dict[str, Any]:
        return {self.pointer: value if value is not None else next(iter(self.empty), None)}

    def read_crm(self, values: Mapping[str, Any]) -> Value:
        raw = values.get(self.column)
        if raw is None or raw == "":
            return None
        return next((value for _, value in self.options if _same(value, raw)), raw)

    def write_crm(self, value: Value) -> dict[str, Any]:
        return {self.column: value}

    def to_crm(self, partner_center: Value, crm: Value) -> Value:  # noqa: ARG002
        if partner_center is None:
            return None
        for code, value in self.options:
            if code == partner_center:
                return value
        raise Unmapped(partner_center, ", ".join(code for code, _ in self.options))

    def to_partner_center(self, crm: Value, partner_center: Value) -> Value:
        if crm is None:
            return None
        codes = [code for code, value in self.options if _same(value, crm)]
        if not codes:
            raise Unmapped(crm, ", ".join(str(value) for _, value in self.options))
        # Several codes may share one CRM value; the one in place stays while it fits.
        return partner_center if partner_center in codes else codes[0]


def _same(one: Any, other: Any) -> bool:
    return str(one).casefold() == str(other).casefold()


@dataclass(frozen=True)
class Flag(_OnePlace):
    """Yes or no. `latch`: once Yes on either side, Yes for good (a deal shown to Microsoft cannot be hidden again)."""

    latch: bool = False

    def read_partner_center(self, document: Mapping[str, Any]) -> Value:
        return bool(at(document, self.pointer))

    def write_partner_center(self, value: Value) -> dict[str, Any]:
        return {self.pointer: value}

    def read_crm(self, values: Mapping[str, Any]) -> Value:
        return bool(values.get(self.column))

    def write_crm(self, value: Value) -> dict[str, Any]:
        return {self.column: value}

    def to_crm(self, partner_center: Value, crm: Value) -> Value:  # noqa: ARG002
        return partner_center

    def to_partner_center(self, crm: Value, partner_center: Value) -> Value:
        return bool(crm or (self.latch and partner_center))

    def leads(self, partner_center: Value, crm: Value) -> Winner | None:  # noqa: ARG002
        if not self.latch:
            return None
        return "partner_center" if partner_center else "crm"


PERSON_KEYS = ("firstName", "lastName", "phoneNumber", "email")
"""A member of `team` or `customerProfile.team`. https://learn.microsoft.com/partner-center/developer/referral-resources"""


@dataclass(frozen=True)
class Person(_Projected):
    """One person of the CRM (the owner, the main contact) within Partner Center's list of people, found by e-mail.

    `parts` names the CRM column of each key of PERSON_KEYS. People the CRM does not know stay in the list.
    """

    pointer: str
    parts: tuple[tuple[str, str], ...]

    @property
    def pointers(self) -> tuple[str, ...]:
        return (self.pointer,)

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(column for _, column in self.parts)

    def read_partner_center(self, document: Mapping[str, Any]) -> Value:
        people = at(document, self.pointer) or []
        known = [person for person in people if isinstance(person, Mapping)]
        return [{key: part for key, part in person.items() if part is not None} for person in known]

    def write_partner_center(self, value: Value) -> dict[str, Any]:
        return {self.pointer: value}

    def read_crm(self, values: Mapping[str, Any]) -> Value:
        person = {key: text_of(values.get(column)) for key, column in self.parts}
        return person if any(person.values()) else None

    def write_crm(self, value: Value) -> dict[str, Any]:  # noqa: ARG002
        return {}  # people of the CRM are created as related rows, never overwritten

    def to_crm(self, partner_center: Value, crm: Value) -> Value:  # noqa: ARG002
        return crm

    def to_partner_center(self, crm: Value, partner_center: Value) -> Value:
        return _joined(partner_center, crm)

    def agree(self, partner_center: Value, crm: Value) -> bool:
        return bool(self.to_partner_center(crm, partner_center) == partner_center)


def _joined(people: Value, joins: Value) -> Value:
    """Return Partner Center's list with somebody of the CRM in it, who is found by e-mail."""
    if not joins or not joins.get("email"):
        return people
    people = [dict(person) for person in people or []]
    for person in people:
        if str(person.get("email", "")).casefold() == joins["email"].casefold():
            # The CRM's blanks do not erase what Partner Center knows of the same person.
            changed = {key: part for key, part in joins.items() if part and key != "email"}
            if any(text_of(person.get(key)) != part for key, part in changed.items()):
                person.update(changed)
            return people
    return [*people, joins]


@dataclass(frozen=True)
class People(_Projected):
    """Several people of the CRM within Partner Center's list of people: the primary one first, then the others.

    `sources` names, for each place the CRM keeps such people in, the column of each key of PERSON_KEYS. A column that
    leads through many rows (contact roles, team members) holds a list. People the CRM does not know stay in the list.
    """

    pointer: str
    sources: tuple[tuple[tuple[str, str], ...], ...]

    @property
    def parts(self) -> tuple[tuple[str, str], ...]:
        """Where the primary one comes from."""
        return self.sources[0]

    @property
    def pointers(self) -> tuple[str, ...]:
        return (self.pointer,)

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(column for source in self.sources for _, column in source)

    def read_partner_center(self, document: Mapping[str, Any]) -> Value:
        return Person(self.pointer, self.parts).read_partner_center(document)

    def write_partner_center(self, value: Value) -> dict[str, Any]:
        return {self.pointer: value}

    def read_crm(self, values: Mapping[str, Any]) -> Value:
        people: list[Value] = []
        for source in self.sources:
            held = {key: values.get(column) for key, column in source}
            rows = max((len(part) for part in held.values() if isinstance(part, list)), default=1)
            for row in range(rows):
                person = {key: text_of(part[row] if isinstance(part, list) else part) for key, part in held.items()}
                if any(person.values()) and person not in people:
                    people.append(person)
        return people

    def write_crm(self, value: Value) -> dict[str, Any]:  # noqa: ARG002
        return {}

    def to_crm(self, partner_center: Value, crm: Value) -> Value:  # noqa: ARG002
        return crm

    def to_partner_center(self, crm: Value, partner_center: Value) -> Value:
        for person in crm:
            partner_center = _joined(partner_center, person)
        return partner_center

    def agree(self, partner_center: Value, crm: Value) -> bool:
        return bool(self.to_partner_center(crm, partner_center) == partner_center)


@dataclass(frozen=True)
class Solutions(_OnePlace):
    """Solution tags in Partner Center; in the CRM their ids in one text column, with commas, semicolons or blanks."""

    max_length: int = 0

    def read_partner_center(self, document: Mapping[str, Any]) -> Value:
        # Prices are read as Decimal, which JSON does not know; as float they are written back as they were.
        tags = [
            {key: float(part) if isinstance(part, Decimal) else part for key, part in tag.items() if part is not None}
            for tag in at(document, self.pointer) or []
        ]
        return sorted(tags, key=lambda tag: str(tag.get("id", "")))

    def write_partner_center(self, value: Value) -> dict[str, Any]:
        return {self.pointer: value}

    def read_crm(self, values: Mapping[str, Any]) -> Value:
        ids = re.split(r"[,;\s]+", text_of(values.get(self.column)))
        return sorted({part for part in ids if part})

    def write_crm(self, value: Value) -> dict[str, Any]:
        text = ", ".join(value)
        if self.max_length and len(text) > self.max_length:
            raise Unmapped(text, f"at most {self.max_length} characters of solution ids")
        written = {self.column: text or None}
        if self.read_crm(written) != value:
            raise Unmapped(text, "solution ids without commas, semicolons and blanks")
        return written

    def to_crm(self, partner_center: Value, crm: Value) -> Value:  # noqa: ARG002
        return sorted({str(tag["id"]) for tag in partner_center if tag.get("id")})

    def to_partner_center(self, crm: Value, partner_center: Value) -> Value:
        if crm == self.to_crm(partner_center, crm):
            return partner_center
        known = {str(tag.get("id")): tag for tag in partner_center}
        return [known.get(solution, {"id": solution, "type": "Name"}) for solution in crm]


@dataclass(frozen=True)
class Summary(_OnePlace):
    """Text made of what Partner Center holds, shown in the CRM and never sent back. `template` names the parts.

    A list at the pointer becomes one line per entry.
    """

    template: str = ""
    max_length: int = 0

    def read_partner_center(self, document: Mapping[str, Any]) -> Value:
        found = at(document, self.pointer) if self.pointer.strip("/") else document
        entries: Sequence[Any] = found if isinstance(found, list) else [found]
        lines = (self._line(entry) for entry in entries if isinstance(entry, Mapping))
        return "\n".join(filter(None, lines))

    def _line(self, entry: Mapping[str, Any]) -> str:
        line = re.sub(r"\{(\w+)\}", lambda part: text_of(entry.get(part.group(1))), self.template)
        return text_of(re.sub(r"\s+", " ", line.replace("<>", "")).strip(" ,/"))

    def write_partner_center(self, value: Value) -> dict[str, Any]:  # noqa: ARG002
        return {}

    def read_crm(self, values: Mapping[str, Any]) -> Value:
        return text_of(values.get(self.column))

    def write_crm(self, value: Value) -> dict[str, Any]:
        return {self.column: value or None}

    def to_crm(self, partner_center: Value, crm: Value) -> Value:  # noqa: ARG002
        return shortened(partner_center, self.max_length)

    def to_partner_center(self, crm: Value, partner_center: Value) -> Value:  # noqa: ARG002
        return partner_center

"""The laws every lens keeps, for every row of every shipped map, and what each kind of lens does with odd values."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

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
    Unmapped,
    at,
    put,
    shortened,
    text_of,
)
from shared.lifecycle import PARTNER_CENTER_STATES, Lifecycle
from shared.mapping import CHECK_MARK, Field, load_field_map
from shared.settings import ROOT

Raw = SearchStrategy[dict[str, Any]]


def utf16_units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


# ---------------------------------------------------------------- every row of the shipped maps


def shipped_rows() -> list[Any]:
    """Every field of every table of every shipped map; those that can carry a check mark a second time, with it."""
    rows = []
    for path in sorted((ROOT / "mappings").glob("*.toml")):
        for table in load_field_map(path).tables.values():
            for field in table.fields:
                rows.append(pytest.param(field, id=f"{path.stem}-{table.table}-{field.name}"))
                if isinstance(field.lens, Text) and field.lens.marked:
                    checked = dataclasses.replace(field, lens=dataclasses.replace(field.lens, mark=CHECK_MARK))
                    rows.append(pytest.param(checked, id=f"{path.stem}-{table.table}-{field.name}-checked"))
    return rows


ROWS = shipped_rows()
INTO_CRM = [row for row in ROWS if row.values[0].to_crm]
OUT_OF_CRM = [row for row in ROWS if row.values[0].to_partner_center]
BOTH_WAYS = [row for row in INTO_CRM if row in OUT_OF_CRM]


# ---------------------------------------------------------------- raw JSON as the two systems send it

ODD_CHARACTERS = "aß Ω\t\r\n\u0301\u00e9e✓✗😀\ud83d\ude00\u200f\u05d0ﬁ\u2028<>,/"
ODD_TEXT = st.one_of(
    st.none(),
    st.text(max_size=20),
    st.text(alphabet=ODD_CHARACTERS, max_size=30),
    st.sampled_from(["✓ Deal", "✓ ✗ Deal", "✓  Deal", "  Deal", "Deal\r\n\r\n", "Cafe\u0301", "Café", "✓", "\u0301x"]),
)


def text_up_to(units: int) -> SearchStrategy[Any]:
    """Text that fills a column to the last UTF-16 unit, among others."""
    full = st.builds(
        lambda unit, short: (unit * units)[: max(units // utf16_units(unit) - short, 0)],
        st.sampled_from(["x", "é", "😀", "a\n"]),
        st.integers(0, 3),
    )
    return st.one_of(ODD_TEXT, full).filter(lambda text: utf16_units(text_of(text)) <= units)


def long_text(limit: int) -> SearchStrategy[Any]:
    return st.builds(
        lambda unit, extra: unit * (limit + extra),
        st.sampled_from(["x", "é", "e\u0301", "😀", "ab\r\n"]),
        st.integers(-2, 3),
    )


AMOUNTS = st.one_of(
    st.none(),
    st.integers(-(10**15), 10**15),
    st.decimals(min_value=-(10**6), max_value=10**6, places=6),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(
        [
            *("10000", "62500.5", "1e5", "", 0, -0.0, 0.1, 1.005),
            *(
                Decimal(text)
                for text in ("922337203685477.5807", "0.005", "0.004999999", "50000.0000", "5E+4", "1E+30")
            ),
        ]
    ),
)
CURRENCIES = st.sampled_from(["USD", "usd", " EUR ", "JPY", "KWD", "", None])
INSTANTS = st.one_of(
    st.none(),
    st.just(""),
    st.builds(
        lambda moment, digits, zone: moment.isoformat(timespec="seconds") + digits + zone,
        st.datetimes(),
        st.sampled_from(["", ".0", ".1743218", ".9999999"]),
        st.sampled_from(["", "Z", "+00:00"]),
    ),
    st.sampled_from(
        [
            *("2026-11-14T23:30:00-05:00", "2026-11-14T00:00:00.0000000+14:00", "2026-11-14", "0001-01-01T00:00:00Z"),
            *("9999-12-31T23:59:59.9999999Z", "2024-02-29T00:00:00Z", "2026-03-29T01:30:00Z"),
        ]
    ),
)
DAYS = st.one_of(
    st.none(),
    st.dates().map(lambda day: day.isoformat()),
    st.sampled_from(["", "2026-11-14T00:00:00Z", "2026-11-14T23:59:59.9999999Z"]),
)
EMAILS = st.sampled_from(["ann@contoso.example", "ANN@contoso.example", "bo@contoso.example", "", None])
PART = st.sampled_from(["Ann", "Bo ", "Cafe\u0301", "😀", "", None])
CONTACTS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("firstName", "lastName", "phoneNumber", "title"), PART),
        "email": EMAILS,
        "contactPreference": st.just({"locale": None, "disableNotifications": True}),
    },
)
TAGS = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(["SOL-1", "SOL-2", "4024fcfe-6ecd-ea11-a812-000d3a3b189e", "two words", "", None]),
        "name": st.sampled_from(["Fabrikam Data Hub", None]),
        "type": st.just("Name"),
        "price": st.sampled_from([None, 12, Decimal("12.5"), Decimal("0.1")]),
    },
)


def document_of(pointers: Mapping[str, SearchStrategy[Any]]) -> Raw:
    """A referral that holds something, or lacks the property, at each pointer."""

    def build(values: Mapping[str, Any]) -> dict[str, Any]:
        document: dict[str, Any] = {}
        for pointer, value in values.items():
            put(document, pointer, value)
        return document

    return st.fixed_dictionaries({}, optional=dict(pointers)).map(build)


def record_of(columns: Mapping[str, SearchStrategy[Any]]) -> Raw:
    return st.fixed_dictionaries({}, optional=dict(columns))


def text_sides(lens: Any) -> tuple[Raw, Raw]:
    room = lens.max_length - len(lens.mark) if lens.max_length else 4000
    there = st.one_of(ODD_TEXT, long_text(lens.max_length or 10))
    return document_of({lens.pointer: there}), record_of({lens.column: text_up_to(room)})


def country_sides(lens: Any) -> tuple[Raw, Raw]:
    codes = st.one_of(st.sampled_from(["US", "de", " IE", "Germany", "ß", "ΐ", "", None]), ODD_TEXT)
    return document_of({lens.pointer: codes}), record_of({lens.column: codes})


def money_sides(lens: Any) -> tuple[Raw, Raw]:
    kept = st.decimals(min_value=-(10**12), max_value=10**12, places=lens.places)
    return (
        document_of({lens.pointer: AMOUNTS, lens.currency_pointer: CURRENCIES}),
        record_of({lens.column: st.one_of(st.none(), kept), lens.currency_column: CURRENCIES}),
    )


def choice_sides(lens: Any) -> tuple[Raw, Raw]:
    codes = [code for code, _ in lens.options]
    there = st.sampled_from([*codes, *(code.upper() for code in codes), *lens.empty, "NotOfThisList", "", None])
    chosen = [value for _, value in lens.options]
    here = st.sampled_from([*chosen, *(str(value).upper() for value in chosen), 4711, "not of this list", "", None])
    return document_of({lens.pointer: there}), record_of({lens.column: here})


def person_sides(lens: Any) -> tuple[Raw, Raw]:
    columns = {column: EMAILS if key == "email" else PART for key, column in lens.parts}
    return document_of({lens.pointer: st.one_of(st.none(), st.lists(CONTACTS, max_size=3))}), record_of(columns)


def people_sides(lens: Any) -> tuple[Raw, Raw]:
    """Of each source the columns are of one row, or lists of as many rows."""
    sources = []
    for source in lens.sources:
        row = st.fixed_dictionaries({column: EMAILS if key == "email" else PART for key, column in source})
        rows = st.lists(row, max_size=3).map(partial(in_columns, [column for _, column in source]))
        sources.append(st.one_of(row, rows, st.just({})))
    there = document_of({lens.pointer: st.one_of(st.none(), st.lists(CONTACTS, max_size=3))})
    return there, st.tuples(*sources).map(lambda parts: {key: value for part in parts for key, value in part.items()})


def in_columns(columns: list[str], rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {column: [row[column] for row in rows] for column in columns}


def solutions_sides(lens: Any) -> tuple[Raw, Raw]:
    ids = st.lists(st.sampled_from(["SOL-1", "SOL-2", "SOL-15974-MQF"]), max_size=4)
    here = st.builds(lambda ids, by: by.join(ids), ids, st.sampled_from([", ", ";", " ", "\r\n", ",,"]))
    many = st.integers(190, 300).map(lambda n: [{"id": f"SOL-{i:05}"} for i in range(n)])
    there = st.one_of(st.none(), st.lists(TAGS, max_size=4), many)
    return document_of({lens.pointer: there}), record_of({lens.column: st.one_of(st.none(), here)})


def summary_sides(lens: Any) -> tuple[Raw, Raw]:
    entry = st.dictionaries(st.sampled_from(re.findall(r"\{(\w+)\}", lens.template)), ODD_TEXT)
    there = st.one_of(entry, st.lists(entry, max_size=4), st.none())
    at_top = entry if not lens.pointer.strip("/") else document_of({lens.pointer: there})
    return at_top, record_of({lens.column: text_up_to(lens.max_length)})


def lifecycle_sides(lens: Any) -> tuple[Raw, Raw]:
    pairs = st.sampled_from([*PARTNER_CENTER_STATES, ("Engaged", "Error"), ("None", "None")])
    there = pairs.map(lambda pair: {"status": pair[0], "substatus": pair[1]})
    here = st.sampled_from([{**row.read, **row.write} for row in lens.states] + [{}])
    return there, here.map(dict)


SIDES: Mapping[type[Any], Callable[[Any], tuple[Raw, Raw]]] = {
    Text: text_sides,
    Country: country_sides,
    Money: money_sides,
    Date: lambda lens: (document_of({lens.pointer: INSTANTS}), record_of({lens.column: DAYS})),
    Choice: choice_sides,
    Flag: lambda lens: (
        document_of({lens.pointer: st.sampled_from([True, False, None])}),
        record_of({lens.column: st.sampled_from([True, False, None])}),
    ),
    Person: person_sides,
    People: people_sides,
    Solutions: solutions_sides,
    Summary: summary_sides,
    Lifecycle: lifecycle_sides,
}


SIDES_OF = {id(lens): SIDES[type(lens)](lens) for lens in (row.values[0].lens for row in ROWS)}
"""Made once: a strategy that is new with each example is examined anew, which takes longer than drawing from it."""


def both_sides(data: st.DataObject, lens: Lens) -> tuple[Any, Any]:
    """Draw raw JSON of both sides and return what the lens reads."""
    documents, records = SIDES_OF[id(lens)]
    return lens.read_partner_center(data.draw(documents)), lens.read_crm(data.draw(records))


def carried(project: Callable[[Any, Any], Any], value: Any, other: Any) -> Any:
    """Return the projection; a value without counterpart ends the example, and is counted."""
    try:
        return project(value, other)
    except Unmapped:
        event("no counterpart")
        assume(False)


def written_to_partner_center(lens: Lens, value: Any) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for pointer, raw in lens.write_partner_center(value).items():
        put(document, pointer, raw)
    return document


def kept_by_the_crm(lens: Any, written: dict[str, Any]) -> dict[str, Any]:
    """What a record holds after a write: a CRM may derive more from a state than what was written."""
    rows = [row for row in lens.states if row.write == written] if isinstance(lens, Lifecycle) else []
    return {**rows[0].read, **written} if rows else written


def without_reason(value: Any) -> Any:
    """Partner Center is told why a deal was lost and is not asked about it."""
    return {"state": value["state"]} if isinstance(value, dict) and "state" in value else value


def is_written_whole(lens: Any) -> bool:
    """Whether what is read could be written: not people of the CRM, nor one line of a text."""
    return not isinstance(lens, (Lifecycle, Person, People)) and not getattr(lens, "line", 0)


# ---------------------------------------------------------------- laws

few_examples = settings(max_examples=40)
"""Per row: each kind of lens has many rows."""


@pytest.mark.parametrize("field", ROWS)
@few_examples
@given(data=st.data())
def test_a_value_survives_being_stored_as_json(field: Field, data: st.DataObject) -> None:
    partner_center, crm = both_sides(data, field.lens)

    stored = json.loads(json.dumps([partner_center, crm], ensure_ascii=False).encode())

    assert stored == [partner_center, crm]


@pytest.mark.parametrize("field", OUT_OF_CRM)
@few_examples
@given(data=st.data())
def test_partner_center_gives_back_what_was_written(field: Field, data: st.DataObject) -> None:
    lens = field.lens
    partner_center, crm = both_sides(data, lens)
    after = carried(lens.to_partner_center, crm, partner_center)
    assume(after != partner_center)

    read = lens.read_partner_center(written_to_partner_center(lens, after))

    assert read == without_reason(after)


@pytest.mark.parametrize("field", [row for row in ROWS if not isinstance(row.values[0].lens, (Lifecycle, Summary))])
@few_examples
@given(data=st.data())
def test_partner_center_gives_back_what_it_held(field: Field, data: st.DataObject) -> None:
    partner_center, _ = both_sides(data, field.lens)

    read = field.lens.read_partner_center(written_to_partner_center(field.lens, partner_center))

    assert read == partner_center


@pytest.mark.parametrize("field", INTO_CRM)
@few_examples
@given(data=st.data())
def test_the_crm_gives_back_what_was_written(field: Field, data: st.DataObject) -> None:
    lens = field.lens
    partner_center, crm = both_sides(data, lens)
    after = carried(lens.to_crm, partner_center, crm)
    assume(after != crm)

    written = carried(lambda value, _: lens.write_crm(value), after, None)

    assert lens.read_crm(kept_by_the_crm(lens, written)) == after


@pytest.mark.parametrize("field", [row for row in ROWS if is_written_whole(row.values[0].lens)])
@few_examples
@given(data=st.data())
def test_the_crm_gives_back_what_it_held(field: Field, data: st.DataObject) -> None:
    _, crm = both_sides(data, field.lens)

    assert field.lens.read_crm(field.lens.write_crm(crm)) == crm


@pytest.mark.parametrize("field", INTO_CRM)
@few_examples
@given(data=st.data())
def test_what_is_written_to_the_crm_fits_its_columns(field: Field, data: st.DataObject) -> None:
    limit = getattr(field.lens, "max_length", 0) or 10**6
    partner_center, crm = both_sides(data, field.lens)
    after = carried(field.lens.to_crm, partner_center, crm)
    assume(after != crm)

    written = carried(lambda value, _: field.lens.write_crm(value), after, None)

    assert set(written) <= set(field.lens.columns)
    assert all(utf16_units(raw) <= limit for raw in written.values() if isinstance(raw, str))


@pytest.mark.parametrize("field", INTO_CRM)
@few_examples
@given(data=st.data())
def test_carrying_to_the_crm_twice_changes_nothing_and_both_agree(field: Field, data: st.DataObject) -> None:
    partner_center, crm = both_sides(data, field.lens)

    once = carried(field.lens.to_crm, partner_center, crm)

    assert field.lens.to_crm(partner_center, once) == once
    assert field.lens.agree(partner_center, once)


@pytest.mark.parametrize("field", INTO_CRM)
@few_examples
@given(data=st.data())
def test_what_came_from_partner_center_never_changes_it(field: Field, data: st.DataObject) -> None:
    partner_center, crm = both_sides(data, field.lens)

    once = carried(field.lens.to_crm, partner_center, crm)

    assert carried(field.lens.to_partner_center, once, partner_center) == partner_center


@pytest.mark.parametrize("field", OUT_OF_CRM)
@few_examples
@given(data=st.data())
def test_carrying_to_partner_center_twice_changes_nothing(field: Field, data: st.DataObject) -> None:
    partner_center, crm = both_sides(data, field.lens)

    once = carried(field.lens.to_partner_center, crm, partner_center)
    if isinstance(field.lens, Lifecycle):  # accepting may come before closing
        once = field.lens.to_partner_center(crm, once)

    assert field.lens.to_partner_center(crm, once) == once


@pytest.mark.parametrize("field", OUT_OF_CRM)
@few_examples
@given(data=st.data())
def test_after_carrying_to_partner_center_both_agree(field: Field, data: st.DataObject) -> None:
    lens = field.lens
    partner_center, crm = both_sides(data, lens)
    assume(crm or not getattr(lens, "default", ""))  # nothing is never sent where the CRM shows a default
    assume(not isinstance(lens, Lifecycle) or partner_center["state"] in ("pending", "active"))  # the rest is closed
    assume(not getattr(lens, "latch", False) or crm or not partner_center)  # a latch does not open again

    after = carried(lens.to_partner_center, crm, partner_center)
    if isinstance(lens, Lifecycle):
        after = lens.to_partner_center(crm, after)

    assert lens.agree(after, crm)


def test_every_kind_of_lens_of_the_shipped_maps_has_laws_to_keep() -> None:
    kinds = {type(row.values[0].lens) for row in ROWS}

    assert kinds <= set(SIDES)


# ---------------------------------------------------------------- text


@pytest.mark.parametrize(
    ("raw", "canonical"),
    [
        (None, ""),
        ("", ""),
        ("   \r\n ", ""),
        ("a \r\nb\t\rc\n\n", "a\nb\nc"),
        ("Cafe\u0301", "Café"),
        ("Café", "Café"),
        ("  indented", "  indented"),
        (10000, "10000"),
        ("\ud83d\ude00", "😀"),
        ("half \ud83d of it", "half \ufffd of it"),
    ],
)
def test_text_has_one_normal_form(raw: Any, canonical: str) -> None:
    assert text_of(raw) == canonical


@pytest.mark.parametrize(
    ("text", "limit", "cut"),
    [
        ("abcdef", 0, "abcdef"),
        ("abcdef", 6, "abcdef"),
        ("abcdef", 5, "abcd…"),
        ("abc def", 5, "abc…"),
        ("ab😀", 4, "ab😀"),
        ("abc😀", 4, "abc…"),
        ("ab😀d", 4, "ab…"),
        ("a😀😀", 4, "a😀…"),
        ("😀😀", 3, "😀…"),
    ],
)
def test_text_is_cut_by_utf_16_units_never_through_a_character(text: str, limit: int, cut: str) -> None:
    assert shortened(text, limit) == cut
    assert not limit or utf16_units(shortened(text, limit)) <= limit


def test_a_text_cut_for_the_crm_does_not_shorten_partner_center() -> None:
    lens = Text("/details/notes", "description", max_length=10)

    in_crm = lens.to_crm("a long story of a deal", "")

    assert in_crm == "a long st…"
    assert lens.to_partner_center(in_crm, "a long story of a deal") == "a long story of a deal"
    assert lens.to_partner_center("rewritten", "a long story of a deal") == "rewritten"


@pytest.mark.parametrize(
    "raw", ["Casino Royale", "✓ Casino Royale", "✗ Casino Royale", "✓✗  Casino Royale", " Casino Royale"]
)
def test_check_marks_of_the_crm_never_reach_partner_center(raw: str) -> None:
    lens = Text("/name", "name", marked=True)

    assert lens.to_partner_center(lens.read_crm({"name": raw}), "") == "Casino Royale"


def test_a_check_mark_in_a_text_that_is_not_marked_is_text() -> None:
    lens = Text("/details/notes", "description")

    assert lens.read_crm({"description": "✓ agreed"}) == "✓ agreed"


def test_the_check_mark_has_its_place_within_the_column() -> None:
    lens = Text("/name", "name", max_length=10, marked=True, mark=CHECK_MARK)

    after = lens.to_crm("Casino Royale", "")

    assert lens.write_crm(after) == {"name": "✓ Casino…"}
    assert lens.read_crm(lens.write_crm(after)) == after


def test_a_default_stands_in_for_a_missing_name_and_is_not_sent_back() -> None:
    lens = Text("/name", "name", default="Partner Center deal")

    in_crm = lens.to_crm(lens.read_partner_center({"name": None}), "")

    assert in_crm == "Partner Center deal"
    assert lens.to_partner_center(in_crm, "") == ""


@pytest.mark.parametrize(
    ("line", "raw", "text"),
    [
        (1, "1 Example Way\r\nSuite 5", "1 Example Way"),
        (2, "1 Example Way\r\nSuite 5", "Suite 5"),
        (2, "1 Example Way", ""),
        (1, None, ""),
        (0, "1 Example Way\nSuite 5", "1 Example Way\nSuite 5"),
    ],
)
def test_one_line_of_a_text_can_be_a_field_of_its_own(line: int, raw: str | None, text: str) -> None:
    assert Text("/address", "street", line=line).read_crm({"street": raw}) == text


@pytest.mark.parametrize("name", ["Germany", "DEU", "D", "D1", "ÄÖ"])
def test_a_country_without_a_two_letter_code_is_not_sent(name: str) -> None:
    lens = Country("/customerProfile/address/country", "address1_country")

    with pytest.raises(Unmapped, match="two-letter country codes"):
        lens.to_partner_center(lens.read_crm({"address1_country": name}), "")


def test_a_country_is_compared_in_capitals() -> None:
    lens = Country("/customerProfile/address/country", "address1_country")

    here = lens.read_crm({"address1_country": "de "})

    assert here == "DE"
    assert lens.agree(lens.read_partner_center({"customerProfile": {"address": {"country": "De"}}}), here)


# ---------------------------------------------------------------- money

MONEY = Money("/details/dealValue", "/details/currency", "estimatedvalue", "currency", places=2)


def deal_worth(amount: Any, currency: Any = "USD") -> dict[str, Any]:
    return {"details": {"dealValue": amount, "currency": currency}}


@pytest.mark.parametrize(
    ("raw", "amount"),
    [
        (None, None),
        ("", None),
        (0, "0"),
        (-0.0, "0"),
        (Decimal("-0.00"), "0"),
        (50000, "50000"),
        ("50000.00", "50000"),
        (Decimal("5E+4"), "50000"),
        (Decimal("50000.0000"), "50000"),
        (0.1, "0.1"),
        (1e16, "10000000000000000"),
        (Decimal("922337203685477.5807"), "922337203685477.5807"),
        (Decimal("12345678901234567890123456789012345.67"), "12345678901234567890123456789012345.67"),
    ],
)
def test_an_amount_has_one_spelling(raw: Any, amount: str | None) -> None:
    assert MONEY.read_partner_center(deal_worth(raw)) == {"amount": amount, "currency": "USD" if amount else ""}


@pytest.mark.parametrize(
    ("amount", "in_crm"),
    [
        ("0.005", "0.01"),
        ("0.00499999999999999999999999999999", "0"),
        ("-0.005", "-0.01"),
        ("1.005", "1.01"),
        ("99999.995", "100000"),
        ("1E+30", "1" + 30 * "0"),
        ("12345678901234567890123456789012345.675", "12345678901234567890123456789012345.68"),
    ],
)
def test_an_amount_is_rounded_half_up_to_what_the_crm_keeps(amount: str, in_crm: str) -> None:
    there = MONEY.read_partner_center(deal_worth(Decimal(amount)))

    here = MONEY.to_crm(there, {"amount": None, "currency": ""})

    assert here == {"amount": in_crm, "currency": "USD"}
    assert MONEY.to_partner_center(here, there) == there


def test_an_amount_is_written_as_an_exact_number() -> None:
    written = MONEY.write_crm({"amount": "1234567890123456.78", "currency": "EUR"})

    assert written == {"estimatedvalue": Decimal("1234567890123456.78"), "currency": "EUR"}


def test_the_same_amount_in_another_currency_is_another_value() -> None:
    there = MONEY.read_partner_center(deal_worth(100, "USD"))
    here = MONEY.read_crm({"estimatedvalue": Decimal("100.00"), "currency": "EUR"})

    assert not MONEY.agree(there, here)
    assert MONEY.to_partner_center(here, there) == {"amount": "100", "currency": "EUR"}


@pytest.mark.parametrize(("places", "in_crm"), [(0, "1"), (2, "1.5"), (3, "1.5"), (4, "1.4996")])
def test_a_currency_without_cents_is_rounded_to_the_places_of_the_map(places: int, in_crm: str) -> None:
    lens = dataclasses.replace(MONEY, places=places)

    assert lens.to_crm({"amount": "1.4996", "currency": "JPY"}, None)["amount"] == in_crm


def test_a_crm_with_one_currency_holds_amounts_in_it_and_no_currency() -> None:
    lens = dataclasses.replace(MONEY, only_currency="USD")

    here = lens.read_crm({"estimatedvalue": Decimal("100.00")})

    assert lens.columns == ("estimatedvalue",)
    assert here == {"amount": "100", "currency": "USD"}
    assert lens.write_crm(here) == {"estimatedvalue": Decimal(100)}
    assert lens.agree(lens.read_partner_center(deal_worth(100)), here)
    with pytest.raises(Unmapped, match=r"100 EUR.*amounts in USD"):
        lens.to_crm(lens.read_partner_center(deal_worth(100, "EUR")), here)


# ---------------------------------------------------------------- dates

CLOSE_DATE = Date("/details/closingDateTime", "estimatedclosedate")


@pytest.mark.parametrize(
    ("raw", "instant", "day"),
    [
        (None, None, None),
        ("", None, None),
        ("2026-11-14T00:00:00Z", "2026-11-14T00:00:00Z", "2026-11-14"),
        ("2026-11-14T23:59:59.9999999Z", "2026-11-14T23:59:59Z", "2026-11-14"),
        ("2026-11-14T00:00:00", "2026-11-14T00:00:00Z", "2026-11-14"),
        ("2026-11-14", "2026-11-14T00:00:00Z", "2026-11-14"),
        ("2026-11-14T23:30:00-05:00", "2026-11-15T04:30:00Z", "2026-11-15"),
        ("2026-11-14T00:30:00.1234567+14:00", "2026-11-13T10:30:00Z", "2026-11-13"),
        ("2024-02-29T12:00:00Z", "2024-02-29T12:00:00Z", "2024-02-29"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "0001-01-01"),
        ("9999-12-31T23:59:59.9999999Z", "9999-12-31T23:59:59Z", "9999-12-31"),
    ],
)
def test_the_utc_day_of_an_instant_counts(raw: str | None, instant: str | None, day: str | None) -> None:
    there = CLOSE_DATE.read_partner_center({"details": {"closingDateTime": raw}})

    assert there == instant
    assert CLOSE_DATE.to_crm(there, None) == day
    assert CLOSE_DATE.to_partner_center(day, there) == instant


def test_a_new_day_begins_at_midnight_utc() -> None:
    assert CLOSE_DATE.to_partner_center("2026-12-01", "2026-11-14T17:00:00Z") == "2026-12-01T00:00:00Z"


@pytest.mark.parametrize(
    ("document", "day"),
    [
        ({"createdDateTime": "2026-11-02T17:05:00.1234567Z"}, "2027-01-31"),
        ({"createdDateTime": "2026-11-02T17:05:00Z", "details": {"closingDateTime": None}}, "2027-01-31"),
        ({"createdDateTime": "2026-11-02T17:05:00Z", "details": {"closingDateTime": "2026-12-24"}}, "2026-12-24"),
        ({}, None),
    ],
)
def test_a_crm_that_insists_on_a_day_gets_one_that_follows_from_the_referral(document: Any, day: str | None) -> None:
    lens = dataclasses.replace(CLOSE_DATE, default_days=90)
    there = lens.read_partner_center(document)

    assert lens.to_crm(there, None) == day
    assert lens.to_partner_center(day, there) == there


@pytest.mark.parametrize("raw", ["2026-11-14", "2026-11-14T00:00:00Z", "2026-11-14T00:00:00.0000000+00:00"])
def test_a_day_of_the_crm_is_read_with_or_without_a_time(raw: str) -> None:
    assert CLOSE_DATE.read_crm({"estimatedclosedate": raw}) == "2026-11-14"


# ---------------------------------------------------------------- choices and flags

HELP = Choice(
    "/inviteContext/assistanceRequestCode",
    "help",
    options=(("ProofOfConceptOrDemo", "Proof Of Concept or Demo"), ("Demo", "Proof Of Concept or Demo"), ("Other", 6)),
    empty=("Unknown", "None"),
)


@pytest.mark.parametrize("raw", [None, "", "Unknown", "unknown", "NONE"])
def test_a_code_for_nothing_chosen_is_nothing(raw: str | None) -> None:
    assert HELP.read_partner_center({"inviteContext": {"assistanceRequestCode": raw}}) is None


@pytest.mark.parametrize("raw", ["Proof Of Concept or Demo", "Proof of concept or demo", "PROOF OF CONCEPT OR DEMO"])
def test_labels_are_compared_without_case(raw: str) -> None:
    assert HELP.to_partner_center(HELP.read_crm({"help": raw}), None) == "ProofOfConceptOrDemo"


@pytest.mark.parametrize("raw", [6, "6"])
def test_option_values_may_come_as_numbers_or_text(raw: Any) -> None:
    assert HELP.read_crm({"help": raw}) == 6


def test_of_several_codes_with_one_label_the_one_in_place_stays() -> None:
    assert HELP.to_partner_center("Proof Of Concept or Demo", "Demo") == "Demo"
    assert HELP.to_partner_center("Proof Of Concept or Demo", "Other") == "ProofOfConceptOrDemo"


def test_an_unknown_code_is_kept_and_named_never_guessed() -> None:
    there = HELP.read_partner_center({"inviteContext": {"assistanceRequestCode": "BrandNew"}})

    with pytest.raises(Unmapped, match=r"'BrandNew'.*ProofOfConceptOrDemo, Demo, Other") as raised:
        HELP.to_crm(there, None)

    assert raised.value.value == "BrandNew"


def test_an_unknown_option_of_the_crm_is_kept_and_named_never_guessed() -> None:
    with pytest.raises(Unmapped, match="4711"):
        HELP.to_partner_center(HELP.read_crm({"help": 4711}), "Other")


@pytest.mark.parametrize(
    ("latch", "crm", "partner_center", "after"),
    [
        (False, True, False, True),
        (False, False, True, False),
        (True, True, False, True),
        (True, False, True, True),
        (True, False, False, False),
    ],
)
def test_a_latch_lets_nobody_hide_a_deal_again(latch: bool, crm: bool, partner_center: bool, after: bool) -> None:
    assert Flag("/visible", "visible", latch=latch).to_partner_center(crm, partner_center) is after


# ---------------------------------------------------------------- people

CONTACT = Person("/customerProfile/team", tuple((key, f"contact.{key}") for key in PERSON_KEYS))
SUE = {"firstName": "Sue", "lastName": "Smith", "phoneNumber": "123", "email": "sue@contoso.example", "title": "CTO"}
ANN = {"firstName": "Ann", "lastName": "Byrne", "phoneNumber": "", "email": "ann@contoso.example"}


def contact(**parts: str) -> Any:
    return CONTACT.read_crm({f"contact.{key}": part for key, part in parts.items()})


@pytest.mark.parametrize(
    ("crm", "partner_center", "after"),
    [
        pytest.param({}, [SUE], [SUE], id="no contact leaves the list alone"),
        pytest.param({"firstName": "Sue"}, [], [], id="without an e-mail nobody can be told apart"),
        pytest.param(ANN, [], [ANN], id="the first one"),
        pytest.param(ANN, [SUE], [SUE, ANN], id="another one is added"),
        pytest.param({"email": "SUE@Contoso.example"}, [SUE], [SUE], id="blanks erase nothing, case does not matter"),
        pytest.param(
            {"email": "sue@contoso.example", "phoneNumber": "456"},
            [ANN, SUE],
            [ANN, SUE | {"phoneNumber": "456"}],
            id="what changed is updated in place",
        ),
    ],
)
def test_the_crms_person_is_found_by_e_mail_among_partner_centers(crm: Any, partner_center: Any, after: Any) -> None:
    before = json.dumps(partner_center)

    assert CONTACT.to_partner_center(contact(**crm), partner_center) == after
    assert json.dumps(partner_center) == before
    assert CONTACT.agree(after, contact(**crm))


def test_people_of_the_crm_are_never_overwritten() -> None:
    assert CONTACT.to_crm([SUE], contact(**ANN)) == contact(**ANN)
    assert CONTACT.write_crm(contact(**ANN)) == {}


ROLES = People(
    "/customerProfile/team",
    (
        tuple((key, f"roles.{key}") for key in PERSON_KEYS),
        tuple((key, f"owner.{key}") for key in PERSON_KEYS),
    ),
)


def test_people_of_several_places_join_partner_centers_the_primary_one_first() -> None:
    rows = {f"roles.{key}": [ANN.get(key), SUE.get(key)] for key in PERSON_KEYS}
    owner = {"owner.firstName": "Bo", "owner.email": "bo@contoso.example"}

    here = ROLES.read_crm(rows | owner)

    assert [person["firstName"] for person in here] == ["Ann", "Sue", "Bo"]
    assert ROLES.to_partner_center(here, [SUE]) == [SUE, ANN, here[2]]
    assert ROLES.agree([SUE, ANN, here[2]], here)


@pytest.mark.parametrize("rows", [{}, {f"roles.{key}": [] for key in PERSON_KEYS}])
def test_no_people_of_the_crm_leave_the_list_alone(rows: dict[str, Any]) -> None:
    here = ROLES.read_crm(rows)

    assert here == []
    assert ROLES.to_partner_center(here, [SUE]) == [SUE]


def test_the_same_person_in_two_places_is_one() -> None:
    ann = {key: ANN.get(key, "") for key in PERSON_KEYS}

    here = ROLES.read_crm({f"{place}.{key}": part for place in ("roles", "owner") for key, part in ann.items()})

    assert here == [ann]


# ---------------------------------------------------------------- solutions

SOLUTIONS = Solutions("/details/requirements/solutions", "products", max_length=30)
HUB = {"id": "SOL-15974-MQF", "name": "Fabrikam Data Hub", "type": "Name", "publisherName": "Fabrikam"}


@pytest.mark.parametrize("raw", ["SOL-2, SOL-1", "SOL-1;SOL-2", " SOL-2\r\nSOL-1 ", "SOL-1,,SOL-2,SOL-1"])
def test_solution_ids_are_a_set_however_they_are_separated(raw: str) -> None:
    assert SOLUTIONS.read_crm({"products": raw}) == ["SOL-1", "SOL-2"]


def test_a_known_solution_keeps_what_partner_center_knows_of_it() -> None:
    after = SOLUTIONS.to_partner_center(["SOL-15974-MQF", "SOL-2"], [HUB])

    assert after == [HUB, {"id": "SOL-2", "type": "Name"}]


def test_the_order_of_solutions_means_nothing() -> None:
    one = SOLUTIONS.read_partner_center({"details": {"requirements": {"solutions": [{"id": "b"}, {"id": "a"}]}}})
    other = SOLUTIONS.read_partner_center({"details": {"requirements": {"solutions": [{"id": "a"}, {"id": "b"}]}}})

    assert one == other


def test_a_solution_without_an_id_does_not_make_the_sides_differ() -> None:
    assert SOLUTIONS.to_partner_center([], [{"name": "nameless"}]) == [{"name": "nameless"}]


def test_an_exact_price_can_be_stored_and_is_sent_as_it_came() -> None:
    raw = {"details": {"requirements": {"solutions": [{"id": "SOL-1", "price": Decimal("12.5"), "quantity": 3}]}}}

    value = SOLUTIONS.read_partner_center(raw)

    assert json.dumps(SOLUTIONS.write_partner_center(value)["/details/requirements/solutions"]) == (
        '[{"id": "SOL-1", "price": 12.5, "quantity": 3}]'
    )


@pytest.mark.parametrize(
    ("ids", "accepted"),
    [(["SOL-15974-MQF", "SOL-26000-ABC", "SOL-3"], "at most 30 characters"), (["two words"], "without commas")],
)
def test_solutions_that_the_column_cannot_hold_are_refused(ids: list[str], accepted: str) -> None:
    with pytest.raises(Unmapped, match=accepted):
        SOLUTIONS.write_crm(ids)


# ---------------------------------------------------------------- summaries


@pytest.mark.parametrize(
    ("pointer", "template", "document", "text"),
    [
        ("/", "{status} / {substatus}", {"status": "Active", "substatus": "Accepted"}, "Active / Accepted"),
        ("/", "{status} / {substatus}", {"status": "Active", "substatus": None}, "Active"),
        ("/", "{status} / {substatus}", {}, ""),
        ("/trackingInfo", "{microsoftMsxId}", {"trackingInfo": {"microsoftMsxId": None}}, ""),
        ("/trackingInfo", "{microsoftMsxId}", {"trackingInfo": None}, ""),
        ("/trackingInfo", "{microsoftMsxId}", {"trackingInfo": {"microsoftMsxId": "7-ABC"}}, "7-ABC"),
        ("/team", "{firstName} {lastName} <{email}>", {"team": []}, ""),
        (
            "/team",
            "{firstName} {lastName} <{email}>",
            {"team": [SUE, {"firstName": "Bo", "lastName": None, "email": None}, {}]},
            "Sue Smith <sue@contoso.example>\nBo",
        ),
    ],
)
def test_a_summary_shows_what_is_there(pointer: str, template: str, document: Any, text: str) -> None:
    assert Summary(pointer, "column", template, 100).read_partner_center(document) == text


def test_a_summary_is_never_sent() -> None:
    lens = Summary("/team", "column", "{email}", 100)

    assert lens.to_partner_center("edited in the CRM", "sue@contoso.example") == "sue@contoso.example"
    assert lens.write_partner_center("anything") == {}


# ---------------------------------------------------------------- pointers


@pytest.mark.parametrize(
    ("pointer", "found"),
    [
        ("/a/b", 1),
        ("/list/1/b", 2),
        ("/list/7/b", None),
        ("/list/x", None),
        ("/a/b/c", None),
        ("/absent/b", None),
        ("/null/b", None),
    ],
)
def test_a_pointer_that_leads_nowhere_finds_nothing(pointer: str, found: Any) -> None:
    assert at({"a": {"b": 1}, "list": [{}, {"b": 2}], "null": None}, pointer) == found


def test_putting_makes_the_objects_on_the_way() -> None:
    document: dict[str, Any] = {"details": {"notes": "kept"}}

    put(document, "/details/requirements/solutions", [])

    assert document == {"details": {"notes": "kept", "requirements": {"solutions": []}}}

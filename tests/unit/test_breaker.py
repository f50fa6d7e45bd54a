"""When a field, or a whole deal, is written no more."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from shared.breaker import MOST_WRITES, WINDOW, lately, put_back, runs_away, written
from shared.decide import Change, Plan
from shared.model import Side, Stopped, Written

NOW = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)
DEAL: Any = SimpleNamespace(partner_center={"notes": "theirs", "amount": "1"}, crm={"notes": "ours", "amount": "2"})


def writes(*values: Any, side: Side = "crm", every_s: float = 60, field: str = "notes") -> list[Written]:
    """Writes of one field, the last one just now."""
    moments = [NOW - timedelta(seconds=every_s * left) for left in reversed(range(len(values)))]
    return [written(side, {field: value}, at) for value, at in zip(values, moments, strict=True)]


@pytest.mark.parametrize(
    ("before", "stops"),
    [
        (writes("A", "A", "A"), True),
        (writes("B", "A", "A", "A"), True),
        (writes("A", "A"), False),
        (writes("A", "A", "A", "B"), False),
        (writes(*"ABABABABABA"), False),
        (writes("A", "A", "A", side="partner_center"), False),
        (writes("A", "A", "A", field="amount"), False),
        (writes("A", "A", "A", every_s=300), False),
        ([*writes("A", "A", "A"), *writes("1", field="amount"), *writes(None, field="")], True),
        ([], False),
    ],
)
def test_the_same_value_for_the_fourth_time_in_a_row_is_not_written(before: Sequence[Written], stops: bool) -> None:
    plan = Plan(to_crm={"notes": Change("ours", "A")})

    assert put_back(DEAL, plan, before, NOW) == ({"notes": Stopped("crm", "theirs", "ours")} if stops else {})


def test_values_count_by_what_they_hold_on_either_side() -> None:
    amounts = [{"amount": "1", "currency": "USD"}, {"currency": "USD", "amount": "1"}] * 2
    before = writes(*amounts[:3], side="partner_center", field="amount")
    plan = Plan(to_partner_center={"amount": Change(None, amounts[3])})

    assert list(put_back(DEAL, plan, before, NOW)) == ["amount"]


def test_a_deal_runs_away_when_it_was_written_too_often_within_the_window() -> None:
    each = [written("crm", {}, NOW - timedelta(seconds=5 * number)) for number in reversed(range(MOST_WRITES + 50))]

    assert not runs_away(each[-MOST_WRITES:], NOW)
    assert runs_away(each, NOW)
    assert not runs_away(each, NOW + WINDOW)
    assert len(lately(each, NOW)) == MOST_WRITES + 1


def test_no_value_is_remembered_itself() -> None:
    assert "secret" not in str(written("crm", {"notes": "secret"}, NOW))

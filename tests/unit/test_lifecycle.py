"""The states of a deal on both sides: reading, writing, the way from one to the next."""

from __future__ import annotations

from typing import Any

import pytest

from shared.lenses import Unmapped
from shared.lifecycle import CRM_STATES, NEXT, PARTNER_CENTER_STATES, STATUS_OF, Lifecycle, is_closed, is_writable
from shared.mapping import load_field_map
from shared.settings import ROOT

TABLES = load_field_map(ROOT / "mappings" / "dynamics365.toml").tables
OPPORTUNITY, LEAD = TABLES["opportunity"].lifecycle.lens, TABLES["lead"].lifecycle.lens
assert isinstance(OPPORTUNITY, Lifecycle)

# Which pair may follow which: https://learn.microsoft.com/partner-center/developer/update-a-referral
MAY_FOLLOW = {
    "pending": {"active", "declined"},
    "active": {"won", "lost"},
}


def state(name: str, reason: str = "") -> dict[str, str]:
    return {"state": name} | ({"reason": reason} if reason else {})


@pytest.mark.parametrize(
    ("status", "substatus", "name", "writable", "closed"),
    [
        ("New", "Pending", "pending", False, False),
        ("New", "Received", "pending", False, False),
        ("Active", "Accepted", "active", True, False),
        ("Closed", "Won", "won", False, True),
        ("Closed", "Lost", "lost", False, True),
        ("Closed", "Declined", "declined", False, True),
        ("Closed", "Expired", "expired", False, True),
        ("Engaged", "Error", "Engaged/Error", False, False),
        (None, None, "/", False, False),
    ],
)
def test_status_and_substatus_are_one_state(
    status: str | None, substatus: str | None, name: str, writable: bool, closed: bool
) -> None:
    value = OPPORTUNITY.read_partner_center({"status": status, "substatus": substatus})

    assert value == state(name)
    assert (is_writable(value), is_closed(value)) == (writable, closed)


@pytest.mark.parametrize(
    ("columns", "value"),
    [
        ({"statecode": 0, "statuscode": 2}, state("on_hold")),
        ({"statecode": 0, "statuscode": 1}, state("open")),
        ({"statecode": 0, "statuscode": 100000001}, state("open")),
        ({"statecode": 1, "statuscode": 3}, state("won")),
        ({"statecode": 2, "statuscode": 5}, state("lost", "Customer chose another vendor")),
        ({"statecode": 2, "statuscode": 4}, state("lost")),
        ({"statecode": 2, "statuscode": 100000002}, state("lost")),
        ({"statecode": 9}, state("statecode=9 statuscode=None")),
    ],
)
def test_the_first_row_that_matches_says_the_state_of_an_opportunity(columns: dict[str, Any], value: Any) -> None:
    assert OPPORTUNITY.read_crm(columns) == value


@pytest.mark.parametrize("lens", [OPPORTUNITY, LEAD], ids=["opportunity", "lead"])
def test_every_state_of_the_map_reads_as_it_was_written(lens: Lifecycle) -> None:
    for row in lens.states:
        value = lens.read_crm(row.write)

        assert lens.read_crm(lens.write_crm(value)) == value
        assert value["state"] == row.state


@pytest.mark.parametrize("value", sorted(STATUS_OF))
def test_what_can_be_sent_is_a_pair_that_partner_center_knows(value: str) -> None:
    written = OPPORTUNITY.write_partner_center(state(value, "Others"))

    assert PARTNER_CENTER_STATES[(written["/status"], written["/substatus"])] == value
    assert written["/statusReason"] == "Others"


def test_every_step_can_be_sent() -> None:
    steps = {step for steps in NEXT.values() for step in steps.values()}

    assert steps <= set(STATUS_OF)


@pytest.mark.parametrize("there", sorted(set(PARTNER_CENTER_STATES.values())))
@pytest.mark.parametrize("here", CRM_STATES)
def test_every_step_is_one_that_partner_center_allows(there: str, here: str) -> None:
    after = OPPORTUNITY.to_partner_center(state(here), state(there))

    assert after["state"] == there or after["state"] in MAY_FOLLOW[there]


@pytest.mark.parametrize("there", ["pending", "active"])
@pytest.mark.parametrize(
    ("here", "ends"),
    [("on_hold", {"pending", "active"}), ("open", {"active"}), ("won", {"won"}), ("lost", {"declined", "lost"})],
)
def test_the_way_ends_where_the_crm_is_after_two_steps_at_most(there: str, here: str, ends: set[str]) -> None:
    value = state(there)

    for _ in range(2):
        value = OPPORTUNITY.to_partner_center(state(here), value)

    assert value["state"] in ends
    assert OPPORTUNITY.agree(value, state(here))


@pytest.mark.parametrize(
    ("there", "here", "after"),
    [
        ("pending", "open", "on_hold"),
        ("pending", "on_hold", "on_hold"),
        ("active", "on_hold", "open"),
        ("active", "won", "open"),
        ("won", "open", "won"),
        ("lost", "open", "lost"),
        ("declined", "on_hold", "lost"),
        ("expired", "on_hold", "lost"),
    ],
)
def test_a_state_of_partner_center_has_its_place_in_the_crm(there: str, here: str, after: str) -> None:
    assert OPPORTUNITY.to_crm(state(there), state(here))["state"] == after


@pytest.mark.parametrize("reason", ["", "Customer chose another vendor"])
@pytest.mark.parametrize("there", ["lost", "declined", "expired"])
def test_a_lost_record_keeps_its_own_reason(there: str, reason: str) -> None:
    assert OPPORTUNITY.to_crm(state(there), state("lost", reason)) == state("lost", reason)


@pytest.mark.parametrize("here", ["on_hold", "open"])
def test_a_lead_cannot_be_won_but_is_accepted(here: str) -> None:
    assert LEAD.to_crm(state("won"), state(here)) == state("open")


def test_an_unknown_state_of_partner_center_agrees_with_nothing() -> None:
    with pytest.raises(Unmapped, match="'Engaged/Error' has no counterpart; known are New/Pending, "):
        OPPORTUNITY.agree(state("Engaged/Error"), state("open"))


def test_an_unknown_state_of_the_crm_is_not_taken_for_another() -> None:
    with pytest.raises(Unmapped, match="known are on_hold, open, won, lost"):
        OPPORTUNITY.to_partner_center(state("statecode=9"), state("active"))


def test_after_the_referral_is_closed_the_crm_may_go_where_it_likes() -> None:
    assert OPPORTUNITY.to_partner_center(state("statecode=9"), state("won")) == state("won")


@pytest.mark.parametrize(
    ("there", "here", "winner"),
    [
        ("pending", "on_hold", "partner_center"),
        ("pending", "open", "crm"),
        ("pending", "won", "crm"),
        ("active", "open", "partner_center"),
        ("active", "lost", "crm"),
        ("won", "lost", "partner_center"),
        ("expired", "won", "partner_center"),
    ],
)
def test_the_side_further_along_wins_and_a_closed_referral_always(there: str, here: str, winner: str) -> None:
    assert OPPORTUNITY.leads(state(there), state(here)) == winner

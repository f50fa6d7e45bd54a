"""What counts as a difference, and what has become of one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.drift import Difference, Reason, brakes, fate, is_gone, listed_record, listed_referral, why_it_differs
from shared.mapping import Columns, FieldMap, NewReferral, TableMap
from shared.model import ALL_SIDES, Intent, Link, RecordChange, RecordRef, Referral

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
EARLIER, KNOWN, LATER = (f"2026-11-20T0{hour}:00:00.1234567Z" for hour in (7, 8, 9))
REF = RecordRef("opportunity", "o1")
LINK = Link(
    "d",
    state="active",
    record=REF,
    referral_id="r1",
    microsoft_referral_id="m1",
    engagement_id="e1",
    referral_updated=KNOWN,
    microsoft_updated=KNOWN,
    record_version="5",
    etag="1",
)
MAP = FieldMap({"opportunity": TableMap("opportunity", (), Columns(""))}, leads=False, new_referral=NewReferral("", ()))
HELD = NOW + timedelta(seconds=30)


def ours(updated: str = KNOWN, **values: Any) -> Any:
    return listed_referral(Referral({"id": "R1", "status": "Active", "updatedDateTime": updated, **values}))


def theirs(updated: str = KNOWN) -> Any:
    return ours(updated, id="m1", engagementId="e1", organizationId="msft")


def record(version: str = "5", **values: Any) -> Any:
    return listed_record(RecordChange(REF, version, **values))


@pytest.mark.parametrize(
    ("listed", "link", "why"),
    [
        (ours(), LINK, None),
        (ours(EARLIER), LINK, None),
        (ours(LATER), LINK, "referral newer"),
        (ours(LATER), replace(LINK, state="failed"), "referral newer"),
        (ours(LATER), replace(LINK, state="tombstone"), None),
        (ours(LATER), replace(LINK, referral_id="r2"), None),
        (ours(), None, "unlinked referral"),
        (ours(status="Closed"), None, None),
        (ours(), replace(LINK, referral_id="", state="new"), "unlinked referral"),
        (ours(), replace(LINK, referral_id="", state="failed"), None),
        (theirs(), LINK, None),
        (theirs(LATER), LINK, "referral newer"),
        (theirs(), replace(LINK, microsoft_updated=""), "referral newer"),
        (theirs(), replace(LINK, microsoft_referral_id=""), "unlinked referral"),
        (theirs(), None, None),
        (record(), LINK, None),
        (record("4"), LINK, "record newer"),
        (record("6"), replace(LINK, state="tombstone"), "record newer"),
        (record("6"), replace(LINK, record=RecordRef("opportunity", "o2")), None),
        (record(), None, "unlinked record"),
        (record(shared=False), None, None),
        (record(), replace(LINK, record=None), "unlinked record"),
        (ours(), replace(LINK, mapped=""), None),
        (ours(), replace(LINK, mapped="by another"), "field map changed"),
        (ours(), replace(LINK, mapped="by another", state="failed"), "field map changed"),
        (ours(), replace(LINK, mapped="by another", state="tombstone"), None),
        (record(), replace(LINK, mapped="by another"), None),
        (ours(), replace(LINK, intent=Intent("invite_microsoft", NOW)), "unfinished"),
        (ours(), replace(LINK, look_again=frozenset({"crm"})), "unfinished"),
        (ours(), replace(LINK, claim="dead"), "unfinished"),
        (ours(), replace(LINK, claim="alive", claim_until_utc=HELD), None),
        (ours(), replace(LINK, unsettled=ALL_SIDES), None),
        (record(), replace(LINK, claim="dead"), None),
        (record(), replace(LINK, claim="dead", referral_id=""), "unfinished"),
    ],
)
def test_a_side_differs(listed: Any, link: Link | None, why: Reason | None) -> None:
    assert why_it_differs(listed, link, MAP, NOW) == why


def test_a_referral_without_a_time_is_no_difference_but_an_error() -> None:
    with pytest.raises(ValueError, match="not an ISO"):
        why_it_differs(ours("yesterday"), LINK, MAP, NOW)


@pytest.mark.parametrize(
    ("place", "link", "gone"),
    [
        ("referral-r1", LINK, True),
        ("record-opportunity-o1", LINK, True),
        ("referral-m1", LINK, False),
        ("referral-r0", LINK, False),
        ("referral-r1", replace(LINK, state="tombstone"), False),
        ("referral-r1", replace(LINK, state="failed"), False),
        ("referral-r1", replace(LINK, claim="alive", claim_until_utc=HELD), False),
        ("referral-r1", replace(LINK, unlisted=True), True),
        ("record-opportunity-o1", replace(LINK, unlisted=True), False),
        ("referral-r1", None, False),
    ],
)
def test_what_is_listed_no_more_is_gone_if_the_link_still_names_it(place: str, link: Link | None, gone: bool) -> None:
    assert is_gone(place, link, NOW) == gone


@pytest.mark.parametrize(
    ("listed", "linked", "missing", "holds_back"),
    [
        (3, 8, 5, False),
        (3, 9, 6, True),
        (950, 1000, 50, False),
        (949, 1000, 51, True),
        (0, 1, 1, True),
        (0, 0, 0, False),
    ],
)
def test_the_brake(listed: int, linked: int, missing: int, holds_back: bool) -> None:
    assert brakes(listed=listed, linked=linked, missing=missing) == holds_back


@pytest.mark.parametrize(
    ("link", "became"),
    [
        (None, "still to come"),
        (LINK, "still to come"),
        (replace(LINK, etag="2"), "healed"),
        (replace(LINK, etag="2", state="tombstone"), "healed"),
        (replace(LINK, etag="2", state="failed"), "waits for a person"),
        (replace(LINK, etag="2", claim="alive", claim_until_utc=HELD), "still to come"),
        (replace(LINK, etag="2", claim="dead"), "still to come"),
    ],
)
def test_what_has_become_of_it(link: Link | None, became: str) -> None:
    assert fate(Difference("referral newer", "d", etag="1", referral_id="r1"), link, NOW) == became

"""Times to the last digit, and what a referral says of itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.model import RecordRef, Referral, ticks


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0001-01-01T00:00:00Z", 0),
        ("0001-01-01T00:00:00.0000001Z", 1),
        ("0001-01-01T00:00:00.1Z", 1_000_000),
        ("0001-01-01T00:00:00.000000199Z", 1),
        ("0001-01-02T00:00:00", 864_000_000_000),
        ("0001-01-01T05:00:00+05:00", 0),
        ("0001-01-01T00:00:00-00:30", 18_000_000_000),
        ("9999-12-31T23:59:59.9999999Z", 3_155_378_975_999_999_999),
        ("  2024-02-29T00:00:00Z ", 638_447_616_000_000_000),
    ],
)
def test_a_time_counts_in_steps_of_100_ns(text: str, count: int) -> None:
    assert ticks(text) == count


@pytest.mark.parametrize(
    "text",
    ["", "soon", "2026-11-20", "2026-13-01T00:00:00Z", "2026-02-29T00:00:00Z", "2026-11-20T25:00:00Z", "1763600000"],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        ticks(text)


@given(
    st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29), timezones=st.just(UTC)),  # noqa: DTZ001
    st.integers(0, 9),
    st.integers(-14 * 60, 14 * 60),
)
def test_the_same_moment_counts_the_same_in_every_zone(moment: datetime, seventh_digit: int, offset_min: int) -> None:
    elsewhere = moment.astimezone(timezone(timedelta(minutes=offset_min)))

    count = ticks(f"{moment.replace(tzinfo=None).isoformat(timespec='microseconds')}{seventh_digit}Z")
    text = elsewhere.isoformat(timespec="microseconds")

    assert ticks(f"{text[:26]}{seventh_digit}{text[26:]}") == count
    assert count == (moment - datetime(1, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 10 + seventh_digit


def test_later_is_more_even_by_the_seventh_digit() -> None:
    assert ticks("2026-02-24T21:12:46.1743219Z") > ticks("2026-02-24T21:12:46.1743218Z")


# Which referral is what: https://learn.microsoft.com/partner-center/developer/referrals-api-introduction
@pytest.mark.parametrize(
    ("kind", "qualification", "invited_by", "is_lead"),
    [
        ("Independent", "Direct", "msft", True),
        ("Independent", "Direct", None, True),
        ("Independent", "SalesQualified", "msft", True),
        ("Independent", "MarketingQualified", "MSFT", True),
        ("Independent", "SalesQualified", "7d23e5ca-19dc-4eaa-aac8-5e6b559f0d1d", False),
        ("Independent", "None", "7d23e5ca-19dc-4eaa-aac8-5e6b559f0d1d", False),
        ("Shared", "SalesQualified", "7d23e5ca-19dc-4eaa-aac8-5e6b559f0d1d", False),
        ("Shared", "SalesQualified", "msft", False),
        ("Shared", "None", None, False),
    ],
)
def test_a_lead_is_told_from_an_opportunity(
    kind: str, qualification: str, invited_by: str | None, is_lead: bool
) -> None:
    document = {
        "type": kind,
        "qualification": qualification,
        "inviteContext": {"invitedBy": {"organizationId": invited_by}},
    }

    assert Referral(document).is_lead is is_lead


@pytest.mark.parametrize("context", [{}, {"inviteContext": None}, {"inviteContext": {"invitedBy": None}}])
def test_an_independent_referral_that_nobody_invited_is_a_lead(context: dict[str, Any]) -> None:
    assert Referral({"type": "Independent", **context}).is_lead


@pytest.mark.parametrize(
    ("organization", "theirs"), [("msft", True), ("MSFT", True), ("7d23e5ca", False), (None, False)]
)
def test_microsofts_copy_is_told_by_its_organization(organization: str | None, theirs: bool) -> None:
    assert Referral({"organizationId": organization}).is_microsofts is theirs


def test_what_partner_center_leaves_out_reads_as_nothing() -> None:
    bare = Referral({"id": "4111fffc", "engagementId": None, "externalReferenceId": None})

    assert bare.id == "4111fffc"
    assert (bare.engagement_id, bare.etag, bare.updated, bare.status, bare.substatus) == ("", "", "", "", "")
    assert bare.external_reference_id == ""


def test_a_record_is_named_in_words() -> None:
    assert str(RecordRef("opportunity", "7c1d7d0e")) == "opportunity 7c1d7d0e"

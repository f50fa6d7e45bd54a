"""What is seen is never forgotten; what was not is rarely taken for seen, and not twice the same."""

from __future__ import annotations

from shared.seen import Seen


def test_what_was_seen_is_known_also_after_a_journey_through_storage() -> None:
    seen = Seen("monday")
    for number in range(5_000):
        seen.add(f"referral-{number}")

    again = Seen("monday", seen.text())

    assert all(f"referral-{number}" in again for number in range(5_000))


def test_what_one_salt_errs_about_another_does_not() -> None:
    mistaken = []
    for salt in ("monday", "tuesday"):
        seen = Seen(salt)
        for number in range(60_000):
            seen.add(f"referral-{number}")
        mistaken.append({number for number in range(60_000, 70_000) if f"referral-{number}" in seen})
        assert len(seen.text()) < 90_000

    assert all(0 < len(each) < 300 for each in mistaken)
    assert len(mistaken[0] & mistaken[1]) < 20

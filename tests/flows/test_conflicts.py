"""Both sides change before either has heard of the other: who wins, and that the loser's value is never lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shared.model import Record, RecordRef
from tests.flows.world import World


@pytest.fixture
def ruled(make_world: Callable[..., World], edited_map: Callable[..., str]) -> Callable[[str], World]:
    """A world whose field map settles conflicts over the notes by this rule."""

    def make(rule: str) -> World:
        return make_world(MAPPING_FILE=edited_map(('conflict = "latest"', f'conflict = "{rule}"')))

    return make


def shared(world: World, **values: Any) -> str:
    record_id = world.opportunity(**values)
    world.settle()
    world.advance(600)
    world.forget_calls()
    return record_id


def both_edit(
    world: World, record_id: str, *, here: dict[str, Any], there: dict[str, Any], crm_later_by_s: float = 0
) -> None:
    """The portal changes the referral, a seller the record; then everybody hears of it."""
    own = world.referral_of(record_id)
    if crm_later_by_s < 0:
        world.desk.edit(record_id, **here)
        world.advance(-crm_later_by_s)
        world.people.partner_edits(own["id"], there)
    else:
        world.people.partner_edits(own["id"], there)
        world.advance(crm_later_by_s)
        world.desk.edit(record_id, **here)
    world.settle()


@pytest.mark.real_storage
def test_different_fields_changed_at_once_both_survive(world: World) -> None:
    record_id = shared(world)

    both_edit(world, record_id, here={"close_date": "2027-08-31"}, there={"/details/notes": "Theirs."})

    own, record = world.referral_of(record_id), world.record(record_id)
    assert own["details"]["closingDateTime"].startswith("2027-08-31")
    assert own["details"]["notes"] == record["notes"] == "Theirs."
    assert record["close_date"] == "2027-08-31"
    assert "wins" not in world.notes(record_id)
    assert world.is_at_rest()


@pytest.mark.parametrize("poll_first", [True, False])
def test_it_does_not_matter_which_side_is_heard_of_first(world: World, poll_first: bool) -> None:
    record_id = shared(world)
    world.people.partner_edits(world.referral_of(record_id)["id"], {"/details/notes": "Theirs."})
    world.desk.edit(record_id, deal_value=66000)

    if poll_first:
        world.fire("crm_poller")
        world.work()
    world.settle()

    own, record = world.referral_of(record_id), world.record(record_id)
    assert (own["details"]["dealValue"], own["details"]["notes"]) == (66000, "Theirs.")
    assert (record["deal_value"], record["notes"]) == (66000, "Theirs.")
    assert world.is_at_rest()


@pytest.mark.parametrize(
    ("rule", "winner", "loser"),
    [("crm", "Ours.", "Partner Center had “Theirs.”"), ("partner_center", "Theirs.", "the CRM had “Ours.”")],
)
def test_a_fixed_winner_takes_the_field_and_the_audit_keeps_the_losers_value(
    ruled: Callable[[str], World], rule: str, winner: str, loser: str
) -> None:
    world = ruled(rule)
    record_id = shared(world)

    both_edit(world, record_id, here={"notes": "Ours."}, there={"/details/notes": "Theirs."})

    assert world.referral_of(record_id)["details"]["notes"] == winner
    assert world.record(record_id)["notes"] == winner
    assert f"{world.label('notes')} changed on both sides" in world.notes(record_id)
    assert loser in world.notes(record_id)
    assert world.services.failures.list() == ()
    assert world.is_at_rest()


@pytest.mark.parametrize(
    ("crm_later_by_s", "winner"),
    [(600, "Ours."), (-600, "Theirs."), (30, "Ours."), (-30, "Ours.")],
    ids=["CRM clearly later", "Partner Center clearly later", "CRM a little later", "too close to say"],
)
def test_the_latest_edit_wins_where_the_clocks_differ_clearly(world: World, crm_later_by_s: float, winner: str) -> None:
    record_id = shared(world)

    both_edit(
        world,
        record_id,
        here={"notes": "Ours."},
        there={"/details/notes": "Theirs."},
        crm_later_by_s=crm_later_by_s,
    )

    assert world.referral_of(record_id)["details"]["notes"] == winner
    assert world.record(record_id)["notes"] == winner
    assert world.is_at_rest()


def test_the_losers_value_is_in_the_crms_audit_when_partner_center_wins(ruled: Callable[[str], World]) -> None:
    world = ruled("partner_center")
    record_id = shared(world)

    both_edit(world, record_id, here={"notes": "Ours."}, there={"/details/notes": "Theirs."})

    assert "the CRM had “Ours.”" in world.record(record_id)["audit"]


def test_hold_writes_neither_side_and_waits_for_a_person(ruled: Callable[[str], World]) -> None:
    world = ruled("hold")
    record_id = shared(world)

    both_edit(
        world,
        record_id,
        here={"notes": "Ours.", "deal_value": 66000},
        there={"/details/notes": "Theirs."},
    )

    own, record = world.referral_of(record_id), world.record(record_id)
    assert (own["details"]["notes"], record["notes"]) == ("Theirs.", "Ours.")
    assert own["details"]["dealValue"] == 66000  # other fields go on
    assert record["sync_status"].startswith(f"✗ {world.label('notes')}: changed on both sides")
    assert "“Theirs.”" in record["audit"]
    (failure,) = world.services.failures.list()
    assert failure.field == world.label("notes")
    assert failure.next_step.startswith("Set both sides to the same value")
    assert world.is_at_rest()


def test_setting_both_sides_to_the_same_value_ends_a_held_conflict(ruled: Callable[[str], World]) -> None:
    world = ruled("hold")
    record_id = shared(world)
    both_edit(world, record_id, here={"notes": "Ours."}, there={"/details/notes": "Theirs."})
    world.advance(60)

    world.desk.edit(record_id, notes="Theirs.")
    world.settle()

    assert world.record(record_id)["sync_status"].startswith("✓")
    assert world.services.failures.list() == ()
    assert world.referral_of(record_id)["details"]["notes"] == "Theirs."
    assert world.is_at_rest()


def test_both_sides_setting_the_same_value_is_no_conflict(world: World) -> None:
    record_id = shared(world)

    both_edit(world, record_id, here={"notes": "Same."}, there={"/details/notes": "Same."})

    assert world.writes() == []
    assert "wins" not in world.notes(record_id)
    assert world.is_at_rest()


def test_amount_and_currency_are_one_field(world: World) -> None:
    """Partner Center's currency with the CRM's amount would be money that nobody ever entered."""
    record_id = shared(world)

    both_edit(
        world, record_id, here={"deal_value": 66000}, there={"/details/currency": "EUR", "/details/dealValue": 1000}
    )

    own, record = world.referral_of(record_id), world.record(record_id)
    assert (own["details"]["dealValue"], own["details"]["currency"]) == (66000, "USD")
    assert (record["deal_value"], record["currency"]) == (66000, "USD")
    assert "Partner Center had 1000 EUR" in world.notes(record_id)
    assert world.is_at_rest()


def test_visibility_wins_wherever_it_was_granted(world: World) -> None:
    record_id = shared(world)
    consent = "consentToShareReferralWithMicrosoftSellers"

    both_edit(
        world,
        record_id,
        here={"visibility": False, "notes": "x"},
        there={f"/consent/{consent}": True},
    )

    assert world.record(record_id)["visibility"] is True
    assert world.referral_of(record_id)["consent"][consent] is True
    assert world.is_at_rest()


def test_a_deal_lost_there_and_won_here_at_the_same_time_waits_for_a_person(world: World) -> None:
    """Neither system lets a closed deal be closed differently."""
    record_id = shared(world)
    world.people.partner_closes(world.referral_of(record_id)["id"], "Lost", "Customer did not respond")
    world.desk.win(record_id)

    world.settle()

    assert world.referral_of(record_id)["substatus"] == "Lost"
    assert world.record(record_id)["state"] == "won"
    assert world.pc.log.count("PATCH") == 0
    assert world.record(record_id)["sync_status"].startswith("✗")
    (failure,) = world.services.failures.list()
    assert "reopen the record" in failure.next_step
    assert len(world.writes()) <= 4  # the event and the poll: each may try once, and say that it failed


def test_closing_there_and_an_edit_here_closes_the_record_and_notes_the_edit(world: World) -> None:
    record_id = shared(world)
    world.people.partner_closes(world.referral_of(record_id)["id"], "Won")
    world.desk.edit(record_id, notes="Too late.")

    world.settle()

    record = world.record(record_id)
    assert (record["state"], record["notes"]) == ("won", "Too late.")
    assert world.pc.log.count("PATCH") == 0
    assert "the referral is closed for good, “Too late.” stays in the CRM" in world.notes(record_id)
    assert world.is_at_rest()


# ---------------------------------------------------------------- somebody writes between our read and our write


def test_a_referral_that_moves_between_read_and_write_is_read_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_id = shared(world)
    own, patch = world.referral_of(record_id), world.services.partner_center.patch

    def patch_too_late(*arguments: Any) -> Any:
        monkeypatch.setattr(world.services.partner_center, "patch", patch)
        world.people.partner_edits(own["id"], {"/details/dealValue": 77000})
        return patch(*arguments)

    monkeypatch.setattr(world.services.partner_center, "patch", patch_too_late)
    world.desk.edit(record_id, notes="Ours.")

    world.settle()

    assert [entry.status for entry in world.pc.log.matching("PATCH")] == [412, 200]
    assert own["details"]["notes"] == "Ours."
    assert own["details"]["dealValue"] == world.record(record_id)["deal_value"] == 77000
    assert any("changed meanwhile, read again" in entry.message for entry in world.story(record_id))
    assert world.services.failures.list() == ()
    assert world.is_at_rest()


def test_a_record_that_moves_between_read_and_write_is_read_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_id = shared(world)
    own, update = world.referral_of(record_id), world.services.crm.update

    def update_too_late(*arguments: Any) -> Any:
        monkeypatch.setattr(world.services.crm, "update", update)
        world.desk.edit(record_id, deal_value=77000)
        return update(*arguments)

    monkeypatch.setattr(world.services.crm, "update", update_too_late)
    world.people.partner_edits(own["id"], {"/details/notes": "Theirs."})

    world.settle()

    assert [write.overtaken for write in world.backstage.record_writes()] == [True, False]
    assert world.record(record_id)["notes"] == "Theirs."
    assert own["details"]["dealValue"] == world.record(record_id)["deal_value"] == 77000
    assert world.services.failures.list() == ()
    assert world.is_at_rest()


def test_automation_that_touches_the_record_after_our_write_causes_no_further_write(world: World) -> None:
    record_id = shared(world)
    world.backstage.touch_after_next_write()

    world.people.partner_edits(world.referral_of(record_id)["id"], {"/details/notes": "Theirs."})
    world.settle()

    assert world.writes() == ["crm write"]
    assert world.is_at_rest()


def test_a_record_that_never_stands_still_is_put_back_and_not_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_id = shared(world)
    update = world.services.crm.update

    def always_too_late(*arguments: Any) -> Any:
        world.advance(1)
        world.backstage.touch(record_id)
        return update(*arguments)

    monkeypatch.setattr(world.services.crm, "update", always_too_late)
    world.people.partner_edits(world.referral_of(record_id)["id"], {"/details/notes": "Theirs."})
    world.settle(poll=False)
    assert world.failed_invocations == 0
    assert world.record(record_id)["notes"] != "Theirs."

    monkeypatch.setattr(world.services.crm, "update", update)
    world.advance(120)
    world.settle()

    assert world.record(record_id)["notes"] == "Theirs."
    assert world.services.failures.list() == ()


def test_a_seller_who_saves_between_a_refusal_and_the_next_write_is_not_overwritten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_id = world.opportunity()
    world.settle()
    world.advance(60)
    world.backstage.refuse_notes("Refused.")
    changes = {"/details/notes": "Refused.", "/details/dealValue": 70000}
    world.people.partner_edits(world.referral_of(record_id)["id"], changes)
    crm, sellers_edit = world.services.crm, [99999]
    read = crm.read

    def read_after_the_seller(ref: RecordRef) -> Record:
        if sellers_edit:
            world.desk.edit(record_id, deal_value=sellers_edit.pop())
        return read(ref)

    monkeypatch.setattr(crm, "read", read_after_the_seller)
    world.settle()

    assert sellers_edit == []
    assert world.record(record_id)["deal_value"] == 99999
    assert world.referral_of(record_id)["details"]["dealValue"] == 99999

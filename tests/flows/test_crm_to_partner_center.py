"""A seller's opportunity becomes a referral and stays in agreement with it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.flows.crms import only
from tests.flows.world import World

HELP = {"help": "CustomerTechnicalArchitecture"}
VISIBLE = "consentToShareReferralWithMicrosoftSellers"


def shared(world: World, **values: Any) -> str:
    """An opportunity that is in Partner Center already, a minute ago."""
    record_id = world.opportunity(**values)
    world.settle()
    world.advance(60)
    world.forget_calls()
    return record_id


def edit(world: World, record_id: str, **values: Any) -> None:
    world.desk.edit(record_id, **values)
    world.settle()
    world.advance(60)


def reopen(world: World, record_id: str) -> None:
    world.desk.take_on(record_id)
    world.settle()
    world.advance(60)


# ---------------------------------------------------------------- creating


@pytest.mark.real_storage
def test_a_flagged_opportunity_becomes_a_co_sell_deal_with_microsoft_invited(world: World) -> None:
    record_id = world.opportunity(help="CustomerTechnicalArchitecture")

    world.settle()

    own = world.referral_of(record_id)
    assert own["type"] == "Shared"
    assert own["name"] == "Contoso - data platform"
    assert own["details"]["dealValue"] == 50000
    assert own["target"] == [{"type": "SolutionProfile", "id": "SOL-15974-MQF"}]
    theirs = world.microsofts(own["engagementId"])
    assert theirs["inviteContext"]["assistanceRequestCode"] == "CustomerTechnicalArchitecture"
    assert (theirs["status"], theirs["substatus"]) == ("New", "Pending")
    record = world.record(record_id)
    assert record["referral_id"] == own["id"]
    assert record["referral_link"].endswith(own["id"])
    assert record["sync_status"].startswith("✓")
    assert own["id"] in record["audit"]
    assert record["visibility"] is True
    assert world.is_at_rest()


def test_a_private_deal_carries_everything_the_seller_filled_in(world: World) -> None:
    record_id = world.opportunity()

    world.settle()

    own = world.referral_of(record_id)
    assert (own["type"], own["status"], own["substatus"]) == ("Independent", "Active", "Accepted")
    assert own["target"] == []
    assert own["consent"][VISIBLE] is False
    assert own["consent"]["consentToToShareInfoWithOthers"] is True
    assert own["details"]["currency"] == "USD"
    assert own["details"]["closingDateTime"].startswith("2027-03-31")
    assert own["details"]["notes"] == "Migration assessment done."
    assert [tag["id"] for tag in own["details"]["requirements"]["solutions"]] == ["SOL-15974-MQF"]
    assert own["customerProfile"]["address"]["country"] == "US"
    assert own["customerProfile"]["address"]["postalCode"] == "98052"
    assert [person["firstName"] for person in own["customerProfile"]["team"]] == ["Sue"]
    assert [person["firstName"] for person in own["team"]] == ["Sally"]
    assert world.pc.of_engagement(own["engagementId"]) == [own]
    assert world.is_at_rest()


def test_a_deal_made_visible_without_asking_for_help_is_partner_led(world: World) -> None:
    record_id = world.opportunity(visibility=True)

    world.settle()

    own = world.referral_of(record_id)
    assert own["type"] == "Independent"
    assert own["consent"][VISIBLE] is True
    assert world.pc.of_engagement(own["engagementId"]) == [own]
    assert world.record(record_id)["sync_status"].startswith("✓")


def test_a_deal_on_hold_is_shared_and_stays_on_hold(world: World) -> None:
    record_id = world.opportunity()
    world.desk.hold(record_id)

    world.settle()

    assert world.referral_of(record_id)["status"] == "Active"
    assert world.record(record_id)["state"] == "on_hold"
    assert world.is_at_rest()


def test_an_opportunity_that_is_not_flagged_stays_in_the_crm(world: World) -> None:
    record_id = world.opportunity(sync_flag=False)

    world.settle()

    assert world.referrals() == []
    assert world.writes() == []
    assert world.record(record_id)["audit"] is None


def test_an_opportunity_flagged_later_is_shared_then(world: World) -> None:
    record_id = world.opportunity(sync_flag=False)
    world.settle()
    world.advance(60)

    edit(world, record_id, sync_flag=True)

    assert world.referral_of(record_id)["id"] == world.record(record_id)["referral_id"]


def test_a_closed_opportunity_is_not_shared(world: World) -> None:
    record_id = world.opportunity()
    world.desk.win(record_id)

    world.settle()

    assert world.referrals() == []
    assert world.writes() == []
    assert "closed" in world.notes(record_id)


def test_a_lead_made_in_the_crm_is_not_sent(world: World) -> None:
    lead_id = world.desk.create_lead(sync_flag=True)

    world.settle()

    assert world.referrals() == []
    assert world.writes() == []
    assert "not sent to Partner Center" in world.notes(lead_id, world.desk.lead)


# ---------------------------------------------------------------- updating


@pytest.mark.parametrize(
    ("edited", "sent"),
    [
        ({"deal_value": 60000}, {"/details/dealValue": 60000}),
        ({"close_date": "2027-05-31"}, {"/details/closingDateTime": "2027-05-31T00:00:00Z"}),
        ({"notes": "Review is due."}, {"/details/notes": "Review is due."}),
        ({"visibility": True}, {f"/consent/{VISIBLE}": True}),
        (
            {"solutions": "SOL-2"},
            {"/details/requirements/solutions": [{"id": "SOL-2", "type": "Name"}]},
        ),
    ],
    ids=lambda value: next(iter(value)),
)
def test_an_update_sends_only_what_changed(world: World, edited: dict[str, Any], sent: dict[str, Any]) -> None:
    record_id = shared(world)

    edit(world, record_id, **edited)

    assert world.patches() == [sent]
    assert world.writes() == ["partner_center PATCH"]
    assert world.is_at_rest()


def test_several_saves_before_the_next_poll_become_one_patch(world: World) -> None:
    record_id = shared(world)
    world.desk.edit(record_id, notes="First.")
    world.desk.edit(record_id, notes="Second.")
    world.desk.edit(record_id, deal_value=61000)

    world.settle()

    assert world.patches() == [{"/details/dealValue": 61000, "/details/notes": "Second."}]


def test_a_cleared_description_is_cleared_in_partner_center(world: World) -> None:
    record_id = shared(world)

    edit(world, record_id, notes=None)

    assert not world.referral_of(record_id)["details"]["notes"]
    assert world.is_at_rest()


def test_another_contact_joins_the_customers_people(world: World) -> None:
    record_id = shared(world)
    contact = world.desk.create_contact(world.desk.create_account(), first_name="Tom", email="tom@contoso.example")

    edit(world, record_id, contact=contact)

    people = world.referral_of(record_id)["customerProfile"]["team"]
    assert [person["firstName"] for person in people] == ["Sue", "Tom"]
    assert [set(patch) for patch in world.patches()] == [{"/customerProfile/team"}]


def test_a_deal_handed_to_another_seller_gains_a_member_of_the_team(world: World) -> None:
    record_id = shared(world)
    otto = world.desk.add_seller("Otto", "Other", "otto@fabrikam.example", "2065550102")

    edit(world, record_id, owner=otto)

    assert [person["firstName"] for person in world.referral_of(record_id)["team"]] == ["Sally", "Otto"]
    assert [set(patch) for patch in world.patches()] == [{"/team"}]
    assert world.is_at_rest()


def test_a_new_name_stays_in_the_crm_and_is_noted(world: World) -> None:
    record_id = shared(world)

    edit(world, record_id, name="Contoso - something else")

    assert world.writes() == []
    assert world.record(record_id)["name"] == "Contoso - something else"
    assert f"{world.label('name')}: sent only when the referral is created" in world.notes(record_id)


def test_a_field_that_is_not_mapped_costs_no_write(world: World) -> None:
    record_id = shared(world)

    world.desk.save_again(record_id)
    world.settle()

    assert world.writes() == []


def test_the_audit_tells_each_field_before_and_after(world: World) -> None:
    record_id = shared(world)

    edit(world, record_id, notes="Review is due.")

    done = [entry for entry in world.story(record_id) if entry.phase == "done"][-1]
    assert (done.side, done.operation, done.cause) == ("partner_center", "update referral", "poll")
    assert done.fields == {"notes": ["Migration assessment done.", "Review is due."]}
    assert done.version_before != done.version_after == world.referral_of(record_id)["eTag"]


# ---------------------------------------------------------------- help and visibility


@pytest.mark.parametrize("visible", [False, True])
def test_help_chosen_later_invites_microsoft_and_makes_the_deal_visible(world: World, visible: bool) -> None:
    record_id = shared(world, visibility=visible)

    edit(world, record_id, **HELP)

    own = world.referral_of(record_id)
    assert own["consent"][VISIBLE] is True
    theirs = world.microsofts(own["engagementId"])
    assert theirs["inviteContext"]["assistanceRequestCode"] == "CustomerTechnicalArchitecture"
    record = world.record(record_id)
    assert record["visibility"] is True
    assert record["microsoft_status"] == "New / Pending"
    assert "Invited Microsoft" in record["audit"]
    assert world.pc.log.count("POST") == 1
    assert world.is_at_rest()


def test_microsoft_is_invited_once_whatever_help_is_chosen_afterwards(world: World) -> None:
    record_id = shared(world, **HELP)

    edit(world, record_id, help="ProofOfConceptOrDemo")
    edit(world, record_id, help=None)

    assert world.writes() == []
    assert len(world.pc.referrals) == 2
    assert f"{world.label('help')}: sent only when the referral is created" in world.notes(record_id)


def test_visibility_cannot_be_turned_off_again(world: World) -> None:
    record_id = shared(world, visibility=True)

    edit(world, record_id, visibility=False)

    assert world.record(record_id)["visibility"] is True
    assert world.referral_of(record_id)["consent"][VISIBLE] is True
    assert world.writes() == ["crm write"]
    assert (
        f"{world.label('visibility')}: cannot be changed to No in Partner Center, so it was put back"
        in (world.record(record_id)["audit"])
    )
    assert world.is_at_rest()


def test_what_partner_center_owns_is_put_back(world: World) -> None:
    record_id = shared(world, **HELP)

    edit(world, record_id, microsoft_status="Mine")

    assert world.record(record_id)["microsoft_status"] == "New / Pending"
    assert world.pc.log.count("PATCH") == 0
    assert "Partner Center owns it" in world.record(record_id)["audit"]
    assert world.is_at_rest()


# ---------------------------------------------------------------- closing


def test_a_won_opportunity_closes_the_referral_as_won(world: World) -> None:
    record_id = shared(world)

    world.desk.win(record_id)
    world.settle()

    own = world.referral_of(record_id)
    assert (own["status"], own["substatus"]) == ("Closed", "Won")
    assert world.patches() == [{"/status": "Closed", "/substatus": "Won"}]
    assert world.is_at_rest()


def test_a_lost_opportunity_closes_the_referral_as_lost(world: World) -> None:
    record_id = shared(world)

    world.desk.lose(record_id)
    world.settle()

    own = world.referral_of(record_id)
    assert (own["status"], own["substatus"], own["statusReason"]) == ("Closed", "Lost", "Others")
    assert world.is_at_rest()


@only("dynamics365", why="its states of a lost opportunity are reasons")
@pytest.mark.parametrize(("status", "reason"), [(5, "Customer chose another vendor"), (4, "Others")])
def test_a_lost_opportunity_closes_the_referral_with_the_reason(world: World, status: int, reason: str) -> None:
    record_id = shared(world)

    world.act_in_crm("lose", opportunity=record_id, status=status)
    world.settle()

    own = world.referral_of(record_id)
    assert (own["status"], own["substatus"], own["statusReason"]) == ("Closed", "Lost", reason)
    assert world.is_at_rest()


def test_the_last_edit_before_winning_goes_out_with_it(world: World) -> None:
    record_id = shared(world)

    world.desk.edit(record_id, deal_value=75000)
    world.desk.win(record_id)
    world.settle()

    own = world.referral_of(record_id)
    assert own["details"]["dealValue"] == 75000
    assert own["substatus"] == "Won"
    assert world.is_at_rest()


@pytest.mark.parametrize(
    "edited",
    [
        {"notes": "Late remark."},
        {"deal_value": 1},
        {"help": "CustomerTechnicalArchitecture"},
        {"visibility": True},
        {"solutions": "SOL-2"},
        {"solutions": None},
        {"name": "Another name"},
    ],
    ids=lambda value: f"{next(iter(value))}",
)
def test_a_closed_referral_is_never_written_again(world: World, edited: dict[str, Any]) -> None:
    record_id = shared(world)
    world.desk.win(record_id)
    world.settle()
    world.advance(60)
    world.forget_calls()

    edit(world, record_id, **edited)

    assert world.pc.log.matching("PATCH") == world.pc.log.matching("POST") == []
    record = world.record(record_id)
    assert {name: record[name] for name in edited} == edited
    assert record["sync_status"].startswith("✓")
    assert world.services.failures.list() == ()
    assert world.is_at_rest()


def test_an_edit_of_a_closed_deal_is_noted(world: World) -> None:
    record_id = shared(world)
    world.desk.win(record_id)
    world.settle()

    edit(world, record_id, notes="Late remark.")

    assert f"{world.label('notes')}: the referral is closed for good, “Late remark.” stays in the CRM" in world.notes(
        record_id
    )


def test_a_reopened_record_is_noted_and_left_alone(world: World) -> None:
    record_id = shared(world)
    world.desk.win(record_id)
    world.settle()
    world.advance(60)
    world.forget_calls()

    reopen(world, record_id)

    assert world.referral_of(record_id)["substatus"] == "Won"
    assert world.record(record_id)["state"] == "open"
    assert world.pc.log.count("PATCH") == 0
    assert "the referral is closed as won for good, the CRM stays open" in world.notes(record_id)
    assert world.is_at_rest()


def test_a_deal_lost_after_it_was_won_and_reopened_stays_won_in_partner_center(world: World) -> None:
    record_id = shared(world)
    world.desk.win(record_id)
    world.settle()
    reopen(world, record_id)

    world.desk.lose(record_id)
    world.settle()

    assert world.referral_of(record_id)["substatus"] == "Won"
    assert world.record(record_id)["state"] == "lost"
    assert world.services.failures.list() == ()


# ---------------------------------------------------------------- the switch, and deleting


def test_a_deal_that_is_unflagged_is_paused_both_ways(world: World) -> None:
    record_id = shared(world)
    own = world.referral_of(record_id)
    edit(world, record_id, sync_flag=False)
    world.forget_calls()

    edit(world, record_id, notes="Only here.")
    world.people.partner_edits(own["id"], {"/details/dealValue": 70000})
    world.settle()

    assert world.writes() == []
    assert world.record(record_id)["deal_value"] == 50000
    assert own["details"]["notes"] == "Migration assessment done."
    assert "Sync with Partner Center is No" in world.notes(record_id)


@pytest.mark.real_storage
def test_what_happened_while_paused_is_merged_when_the_deal_is_flagged_again(world: World) -> None:
    record_id = shared(world)
    own = world.referral_of(record_id)
    edit(world, record_id, sync_flag=False)
    edit(world, record_id, notes="Only here.")
    world.people.partner_edits(own["id"], {"/details/dealValue": 70000})
    world.settle()
    world.advance(60)

    edit(world, record_id, sync_flag=True)

    assert world.record(record_id)["deal_value"] == 70000
    assert own["details"]["notes"] == "Only here."
    assert world.record(record_id)["notes"] == "Only here."
    assert len(world.referrals()) == 1
    assert world.is_at_rest()


@pytest.mark.real_storage
def test_a_deleted_record_is_not_recreated_and_its_referral_stays(world: World) -> None:
    record_id = shared(world)
    own = world.referral_of(record_id)

    world.desk.delete(record_id)
    world.settle()
    world.people.partner_edits(own["id"], {"/details/notes": "Still talking."})
    world.settle()

    assert world.desk.opportunities() == []
    assert own["status"] == "Active"
    assert world.writes() == []
    assert "does not exist any more; the referral stays as it is" in world.notes(record_id)


# ---------------------------------------------------------------- what Microsoft does with the invitation


def test_microsofts_answer_reaches_the_seller(world: World) -> None:
    record_id = shared(world, **HELP)
    engagement = world.referral_of(record_id)["engagementId"]

    world.people.microsoft_accepts(engagement)
    world.settle()

    record = world.record(record_id)
    assert record["microsoft_status"] == "Active / Accepted"
    assert record["microsoft_crm_id"] == "7-1ABCDEFGH"
    assert record["microsoft_sellers"] == "Mia Seller <msseller@microsoft.example>"
    assert world.writes() == ["crm write"]
    assert world.is_at_rest()


def test_microsoft_declining_leaves_our_own_deal_going(world: World) -> None:
    record_id = shared(world, **HELP)
    own = world.referral_of(record_id)

    world.people.microsoft_declines(own["engagementId"])
    world.settle()
    edit(world, record_id, notes="We go on alone.")

    record = world.record(record_id)
    assert record["microsoft_status"] == "Closed / Declined"
    assert (record["state"], own["status"]) == ("open", "Active")
    assert own["details"]["notes"] == "We go on alone."
    assert world.is_at_rest()


def test_microsofts_crm_id_is_found_on_either_copy(world: World) -> None:
    world.pc.rules.msx_id_on = frozenset({"own"})
    record_id = shared(world, **HELP)

    world.people.microsoft_accepts(world.referral_of(record_id)["engagementId"])
    world.settle()

    assert world.record(record_id)["microsoft_crm_id"] == "7-1ABCDEFGH"
    assert world.is_at_rest()

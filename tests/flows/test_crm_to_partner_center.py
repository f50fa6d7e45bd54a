"""A seller's opportunity becomes a referral and stays in agreement with it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.flows.world import World

HELP = {"cosell_howcanmicrosofthelp": 727000002}
VISIBLE = "consentToShareReferralWithMicrosoftSellers"


def shared(world: World, **values: Any) -> str:
    """An opportunity that is in Partner Center already, a minute ago."""
    record_id = world.opportunity(**values)
    world.settle()
    world.advance(60)
    world.forget_calls()
    return record_id


def edit(world: World, record_id: str, **values: Any) -> None:
    world.sellers.edit("opportunity", record_id, values)
    world.settle()
    world.advance(60)


# ---------------------------------------------------------------- creating


def test_a_flagged_opportunity_becomes_a_co_sell_deal_with_microsoft_invited(world: World) -> None:
    record_id = world.opportunity(cosell_howcanmicrosofthelp=727000002)

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
    assert record["cosell_referralid"] == own["id"]
    assert record["cosell_referrallink"].endswith(own["id"])
    assert record["cosell_syncstatus"].startswith("✓")
    assert own["id"] in record["cosell_audit"]
    assert record["cosell_referralvisibility"] is True
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
    record_id = world.opportunity(cosell_referralvisibility=True)

    world.settle()

    own = world.referral_of(record_id)
    assert own["type"] == "Independent"
    assert own["consent"][VISIBLE] is True
    assert world.pc.of_engagement(own["engagementId"]) == [own]
    assert world.record(record_id)["cosell_syncstatus"].startswith("✓")


def test_a_deal_on_hold_is_shared_and_stays_on_hold(world: World) -> None:
    record_id = world.opportunity(statuscode=2)

    world.settle()

    assert world.referral_of(record_id)["status"] == "Active"
    assert world.record(record_id)["statuscode"] == 2
    assert world.is_at_rest()


def test_an_opportunity_that_is_not_flagged_stays_in_the_crm(world: World) -> None:
    record_id = world.opportunity(cosell_syncwithpartnercenter=False)

    world.settle()

    assert world.referrals() == []
    assert world.writes() == []
    assert world.record(record_id)["cosell_audit"] is None


def test_an_opportunity_flagged_later_is_shared_then(world: World) -> None:
    record_id = world.opportunity(cosell_syncwithpartnercenter=False)
    world.settle()
    world.advance(60)

    edit(world, record_id, cosell_syncwithpartnercenter=True)

    assert world.referral_of(record_id)["id"] == world.record(record_id)["cosell_referralid"]


def test_a_closed_opportunity_is_not_shared(world: World) -> None:
    record_id = world.opportunity()
    world.sellers.win(record_id)

    world.settle()

    assert world.referrals() == []
    assert world.writes() == []
    assert "closed" in world.notes(record_id)


def test_a_lead_made_in_the_crm_is_not_sent(world: World) -> None:
    lead_id = world.sellers.create(
        "lead", {"subject": "A lead", "lastname": "Smith", "cosell_syncwithpartnercenter": True}
    )

    world.settle()

    assert world.referrals() == []
    assert world.writes() == []
    assert "not sent to Partner Center" in world.notes(lead_id, "lead")


# ---------------------------------------------------------------- updating


@pytest.mark.parametrize(
    ("edited", "sent"),
    [
        ({"estimatedvalue": 60000}, {"/details/dealValue": 60000}),
        ({"estimatedclosedate": "2027-05-31"}, {"/details/closingDateTime": "2027-05-31T00:00:00Z"}),
        ({"description": "Review is due."}, {"/details/notes": "Review is due."}),
        ({"cosell_referralvisibility": True}, {f"/consent/{VISIBLE}": True}),
        (
            {"cosell_products": "SOL-2"},
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
    world.sellers.edit("opportunity", record_id, {"description": "First."})
    world.sellers.edit("opportunity", record_id, {"description": "Second."})
    world.sellers.edit("opportunity", record_id, {"estimatedvalue": 61000})

    world.settle()

    assert world.patches() == [{"/details/dealValue": 61000, "/details/notes": "Second."}]


def test_a_cleared_description_is_cleared_in_partner_center(world: World) -> None:
    record_id = shared(world)

    edit(world, record_id, description=None)

    assert not world.referral_of(record_id)["details"]["notes"]
    assert world.is_at_rest()


def test_another_contact_joins_the_customers_people(world: World) -> None:
    record_id = shared(world)
    contact = world.contact(world.account(), firstname="Tom", emailaddress1="tom@contoso.example")

    edit(world, record_id, **{"parentcontactid@odata.bind": f"/contacts({contact})"})

    people = world.referral_of(record_id)["customerProfile"]["team"]
    assert [person["firstName"] for person in people] == ["Sue", "Tom"]
    assert [set(patch) for patch in world.patches()] == [{"/customerProfile/team"}]


def test_a_deal_handed_to_another_seller_gains_a_member_of_the_team(world: World) -> None:
    record_id = shared(world)
    otto = world.dataverse.organization.add_user(
        "Otto Other", "Salesperson", internalemailaddress="otto@fabrikam.example", address1_telephone1="2065550102"
    )

    edit(world, record_id, **{"ownerid@odata.bind": f"/systemusers({otto.id})"})

    assert [person["firstName"] for person in world.referral_of(record_id)["team"]] == ["Sally", "Otto"]
    assert [set(patch) for patch in world.patches()] == [{"/team"}]
    assert world.is_at_rest()


def test_a_new_topic_stays_in_the_crm_and_is_noted(world: World) -> None:
    record_id = shared(world)

    edit(world, record_id, name="Contoso - something else")

    assert world.writes() == []
    assert world.record(record_id)["name"] == "Contoso - something else"
    assert "Topic: sent only when the referral is created" in world.notes(record_id)


def test_a_column_that_is_not_mapped_costs_no_write(world: World) -> None:
    record_id = shared(world)

    edit(world, record_id, customerneed="Something")

    assert world.writes() == []


def test_the_audit_tells_each_field_before_and_after(world: World) -> None:
    record_id = shared(world)

    edit(world, record_id, description="Review is due.")

    done = [entry for entry in world.story(record_id) if entry.phase == "done"][-1]
    assert (done.side, done.operation, done.cause) == ("partner_center", "update referral", "poll")
    assert done.fields == {"notes": ["Migration assessment done.", "Review is due."]}
    assert done.version_before != done.version_after == world.referral_of(record_id)["eTag"]


# ---------------------------------------------------------------- help and visibility


@pytest.mark.parametrize("visible", [False, True])
def test_help_chosen_later_invites_microsoft_and_makes_the_deal_visible(world: World, visible: bool) -> None:
    record_id = shared(world, cosell_referralvisibility=visible)

    edit(world, record_id, **HELP)

    own = world.referral_of(record_id)
    assert own["consent"][VISIBLE] is True
    theirs = world.microsofts(own["engagementId"])
    assert theirs["inviteContext"]["assistanceRequestCode"] == "CustomerTechnicalArchitecture"
    record = world.record(record_id)
    assert record["cosell_referralvisibility"] is True
    assert record["cosell_microsoftstatus"] == "New / Pending"
    assert "Invited Microsoft" in record["cosell_audit"]
    assert world.pc.log.count("POST") == 1
    assert world.is_at_rest()


def test_microsoft_is_invited_once_whatever_help_is_chosen_afterwards(world: World) -> None:
    record_id = shared(world, **HELP)

    edit(world, record_id, cosell_howcanmicrosofthelp=727000003)
    edit(world, record_id, cosell_howcanmicrosofthelp=None)

    assert world.writes() == []
    assert len(world.pc.referrals) == 2
    assert "How can Microsoft help?: sent only when the referral is created" in world.notes(record_id)


def test_visibility_cannot_be_turned_off_again(world: World) -> None:
    record_id = shared(world, cosell_referralvisibility=True)

    edit(world, record_id, cosell_referralvisibility=False)

    assert world.record(record_id)["cosell_referralvisibility"] is True
    assert world.referral_of(record_id)["consent"][VISIBLE] is True
    assert world.writes() == ["dataverse PATCH"]
    assert (
        "Referral Visibility: cannot be changed to No in Partner Center, so it was put back"
        in (world.record(record_id)["cosell_audit"])
    )
    assert world.is_at_rest()


def test_what_partner_center_owns_is_put_back(world: World) -> None:
    record_id = shared(world, **HELP)

    edit(world, record_id, cosell_microsoftstatus="Mine")

    assert world.record(record_id)["cosell_microsoftstatus"] == "New / Pending"
    assert world.pc.log.count("PATCH") == 0
    assert "Partner Center owns it" in world.record(record_id)["cosell_audit"]
    assert world.is_at_rest()


# ---------------------------------------------------------------- closing


def test_a_won_opportunity_closes_the_referral_as_won(world: World) -> None:
    record_id = shared(world)

    world.sellers.win(record_id)
    world.settle()

    own = world.referral_of(record_id)
    assert (own["status"], own["substatus"]) == ("Closed", "Won")
    assert world.patches() == [{"/status": "Closed", "/substatus": "Won"}]
    assert world.is_at_rest()


@pytest.mark.parametrize(("status", "reason"), [(5, "Customer chose another vendor"), (4, "Others")])
def test_a_lost_opportunity_closes_the_referral_with_the_reason(world: World, status: int, reason: str) -> None:
    record_id = shared(world)

    world.sellers.lose(record_id, status=status)
    world.settle()

    own = world.referral_of(record_id)
    assert (own["status"], own["substatus"], own["statusReason"]) == ("Closed", "Lost", reason)
    assert world.is_at_rest()


def test_the_last_edit_before_winning_goes_out_with_it(world: World) -> None:
    record_id = shared(world)

    world.sellers.edit("opportunity", record_id, {"estimatedvalue": 75000})
    world.sellers.win(record_id)
    world.settle()

    own = world.referral_of(record_id)
    assert own["details"]["dealValue"] == 75000
    assert own["substatus"] == "Won"
    assert world.is_at_rest()


@pytest.mark.parametrize(
    "edited",
    [
        {"description": "Late remark."},
        {"estimatedvalue": 1},
        {"cosell_howcanmicrosofthelp": 727000002},
        {"cosell_referralvisibility": True},
        {"cosell_products": "SOL-2"},
        {"cosell_products": None},
        {"name": "Another name"},
    ],
    ids=lambda value: f"{next(iter(value))}",
)
def test_a_closed_referral_is_never_written_again(world: World, edited: dict[str, Any]) -> None:
    record_id = shared(world)
    world.sellers.win(record_id)
    world.settle()
    world.advance(60)
    world.forget_calls()

    edit(world, record_id, **edited)

    assert world.pc.log.matching("PATCH") == world.pc.log.matching("POST") == []
    record = world.record(record_id)
    assert {name: record[name] for name in edited} == edited
    assert record["cosell_syncstatus"].startswith("✓")
    assert world.services.failures.list() == ()
    assert world.is_at_rest()


def test_an_edit_of_a_closed_deal_is_noted(world: World) -> None:
    record_id = shared(world)
    world.sellers.win(record_id)
    world.settle()

    edit(world, record_id, description="Late remark.")

    assert "Description: the referral is closed for good, “Late remark.” stays in the CRM" in world.notes(record_id)


def test_a_reopened_record_is_noted_and_left_alone(world: World) -> None:
    record_id = shared(world)
    world.sellers.win(record_id)
    world.settle()
    world.advance(60)
    world.forget_calls()

    edit(world, record_id, statecode=0, statuscode=1)

    assert world.referral_of(record_id)["substatus"] == "Won"
    assert world.record(record_id)["statecode"] == 0
    assert world.pc.log.count("PATCH") == 0
    assert "the referral is closed as won for good, the CRM stays open" in world.notes(record_id)
    assert world.is_at_rest()


def test_a_deal_lost_after_it_was_won_and_reopened_stays_won_in_partner_center(world: World) -> None:
    record_id = shared(world)
    world.sellers.win(record_id)
    world.settle()
    edit(world, record_id, statecode=0, statuscode=1)

    world.sellers.lose(record_id)
    world.settle()

    assert world.referral_of(record_id)["substatus"] == "Won"
    assert world.record(record_id)["statecode"] == 2
    assert world.services.failures.list() == ()


# ---------------------------------------------------------------- the switch, and deleting


def test_a_deal_that_is_unflagged_is_paused_both_ways(world: World) -> None:
    record_id = shared(world)
    own = world.referral_of(record_id)
    edit(world, record_id, cosell_syncwithpartnercenter=False)
    world.forget_calls()

    edit(world, record_id, description="Only here.")
    world.people.partner_edits(own["id"], {"/details/dealValue": 70000})
    world.settle()

    assert world.writes() == []
    assert world.record(record_id)["estimatedvalue"] == 50000
    assert own["details"]["notes"] == "Migration assessment done."
    assert "Sync with Partner Center is No" in world.notes(record_id)


def test_what_happened_while_paused_is_merged_when_the_deal_is_flagged_again(world: World) -> None:
    record_id = shared(world)
    own = world.referral_of(record_id)
    edit(world, record_id, cosell_syncwithpartnercenter=False)
    edit(world, record_id, description="Only here.")
    world.people.partner_edits(own["id"], {"/details/dealValue": 70000})
    world.settle()
    world.advance(60)

    edit(world, record_id, cosell_syncwithpartnercenter=True)

    assert world.record(record_id)["estimatedvalue"] == 70000
    assert own["details"]["notes"] == "Only here."
    assert world.record(record_id)["description"] == "Only here."
    assert len(world.referrals()) == 1
    assert world.is_at_rest()


def test_a_deleted_record_is_not_recreated_and_its_referral_stays(world: World) -> None:
    record_id = shared(world)
    own = world.referral_of(record_id)

    world.sellers.delete("opportunity", record_id)
    world.settle()
    world.people.partner_edits(own["id"], {"/details/notes": "Still talking."})
    world.settle()

    assert world.rows("opportunities") == []
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
    assert record["cosell_microsoftstatus"] == "Active / Accepted"
    assert record["cosell_microsoftcrmid"] == "7-1ABCDEFGH"
    assert record["cosell_microsoftsellers"] == "Mia Seller <msseller@microsoft.example>"
    assert world.writes() == ["dataverse PATCH"]
    assert world.is_at_rest()


def test_microsoft_declining_leaves_our_own_deal_going(world: World) -> None:
    record_id = shared(world, **HELP)
    own = world.referral_of(record_id)

    world.people.microsoft_declines(own["engagementId"])
    world.settle()
    edit(world, record_id, description="We go on alone.")

    record = world.record(record_id)
    assert record["cosell_microsoftstatus"] == "Closed / Declined"
    assert (record["statecode"], own["status"]) == (0, "Active")
    assert own["details"]["notes"] == "We go on alone."
    assert world.is_at_rest()


def test_microsofts_crm_id_is_found_on_either_copy(world: World) -> None:
    world.pc.rules.msx_id_on = frozenset({"own"})
    record_id = shared(world, **HELP)

    world.people.microsoft_accepts(world.referral_of(record_id)["engagementId"])
    world.settle()

    assert world.record(record_id)["cosell_microsoftcrmid"] == "7-1ABCDEFGH"
    assert world.is_at_rest()

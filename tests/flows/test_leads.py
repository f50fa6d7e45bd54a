"""A lead from Microsoft's site becomes a lead in the CRM and, once somebody takes it on, an opportunity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from local.desks import DESKS
from tests.flows.crms import only
from tests.flows.world import World

INTENT = {
    "/details/requirements/additionalRequirements": {
        "attributes": [{"type": "CustomerMarketplaceIntent", "id": "HaveNotDecided"}]
    }
}
"""Part of the form of every deal, without which it cannot be changed."""


def lead_in(world: World, **changes: Any) -> dict[str, Any]:
    """A lead that nobody has answered, already in the CRM since a minute."""
    referral = world.people.creates_lead(INTENT | changes)
    world.settle()
    world.advance(60)
    world.forget_calls()
    return referral


def lead_of(world: World, referral: dict[str, Any]) -> dict[str, Any]:
    return world.lead_of(referral["id"])


def assert_shows(world: World, lead: dict[str, Any], expected: dict[str, Any]) -> None:
    """A lead has fewer fields in one CRM than in another; those it has are as expected."""
    assert expected.keys() <= {name for desk in DESKS.values() for name in desk.fields["lead"]}
    expected = {name: value for name, value in expected.items() if name in world.desk.fields["lead"]}
    assert {name: lead[name] for name in expected} == expected


def qualify(world: World, referral: dict[str, Any]) -> str:
    """A seller qualifies the lead; returns the opportunity the CRM makes of it."""
    made = world.desk.qualify(lead_of(world, referral)["id"])
    world.settle()
    world.advance(60)
    return made


def test_a_lead_from_microsofts_site_becomes_a_lead(world: World) -> None:
    referral = world.people.creates_lead(INTENT)

    world.settle()

    (lead,) = world.desk.leads()
    assert lead["referral_id"] == referral["id"]
    assert lead["sync_flag"] is True
    expected = {
        "name": "Partner Center lead",
        "customer_name": "Contoso Customer Inc",
        "contact_first_name": "Sue",
        "contact_last_name": "Smith",
        "contact_email": "sue.smith@contoso.example",
        "contact_phone": "1234567890",
        "city": "Redmond",
        "country": "US",
        "deal_value": 10000,
    }
    assert_shows(world, lead, expected)
    assert lead["state"] == "on_hold"
    assert lead["sync_status"].startswith("✓")
    assert referral["id"] in lead["audit"]
    assert world.desk.opportunities() == world.desk.accounts() == world.desk.contacts() == []
    assert world.pc.log.count("PATCH") == 0
    assert world.is_at_rest()


def test_a_lead_without_a_contact_arrives_all_the_same(world: World) -> None:
    referral = lead_in(world, **{"/customerProfile/team": []})

    assert lead_of(world, referral)["contact_last_name"] == "(unknown)"
    assert world.services.failures.list() == ()
    assert world.is_at_rest()


def test_a_change_in_partner_center_reaches_the_lead(world: World) -> None:
    referral = lead_in(world)

    world.people.partner_edits(referral["id"], {"/details/notes": "Urgent.", "/details/dealValue": 12000})
    world.settle()

    lead = lead_of(world, referral)
    assert_shows(world, lead, {"notes": "Urgent.", "deal_value": 12000})
    assert world.writes() == ["crm write"]
    assert world.is_at_rest()


def test_an_edit_of_the_lead_is_put_back_and_kept_in_the_audit(world: World) -> None:
    """Until somebody takes the lead on, it is Partner Center's, which takes no edits."""
    referral = lead_in(world)

    world.desk.edit_lead(lead_of(world, referral)["id"], notes="Call on Monday.")
    world.settle()

    lead = lead_of(world, referral)
    assert lead["notes"] == "We look for help to deploy Microsoft 365 and to train staff."
    assert "Partner Center owns it, the CRM's “Call on Monday.” was put back" in lead["audit"]
    assert world.pc.log.count("PATCH") == 0
    assert world.is_at_rest()


@pytest.mark.real_storage
def test_accepting_in_the_portal_makes_an_opportunity_of_the_lead(world: World) -> None:
    referral = lead_in(world)
    lead_id = lead_of(world, referral)["id"]

    world.people.partner_accepts(referral["id"])
    world.settle()

    (opportunity,) = world.desk.opportunities()
    assert opportunity["referral_id"] == referral["id"]
    assert opportunity["lead"] == (lead_id if world.backstage.names_origin else None)
    assert opportunity["state"] == "open"
    assert opportunity["deal_value"] == 10000
    assert world.lead(lead_id)["state"] == "open"
    assert referral["externalReferenceId"] == opportunity["id"]
    assert len(world.desk.accounts()) == len(world.desk.contacts()) == 1
    assert f"goes on as {world.desk.opportunity}" in world.notes(opportunity["id"])
    assert world.is_at_rest()


def test_a_lead_that_was_accepted_before_we_heard_of_it_is_an_opportunity_at_once(world: World) -> None:
    referral = world.people.creates_lead(INTENT)
    world.people.partner_accepts(referral["id"])

    world.settle()

    assert world.desk.leads() == []
    assert world.record_of(referral["id"])["state"] == "open"
    assert world.is_at_rest()


def test_qualifying_the_lead_accepts_the_referral_and_adopts_the_opportunity_made_of_it(world: World) -> None:
    referral = lead_in(world)

    made = qualify(world, referral)

    assert (referral["status"], referral["substatus"]) == ("Active", "Accepted")
    (opportunity,) = world.desk.opportunities()
    assert opportunity["id"] == made
    assert opportunity["referral_id"] == referral["id"]
    assert opportunity["sync_flag"] is True
    assert opportunity["sync_status"].startswith("✓")
    assert referral["externalReferenceId"] == made
    assert world.services.failures.list() == ()
    assert world.is_at_rest()


def test_an_answer_lost_while_a_lead_is_qualified_takes_nothing_from_the_referral(world: World) -> None:
    """The opportunity that the CRM makes of a lead may be emptier than the lead was: nobody emptied it."""
    referral = lead_in(world, **{"/details/notes": "Call before noon."})
    world.backstage.interrupt_create("opportunity", "drop_after")

    made = qualify(world, referral)
    world.settle()

    assert referral["details"]["notes"] == "Call before noon."
    assert world.record(made)["notes"] == "Call before noon."
    assert world.services.failures.list() == ()
    assert world.is_at_rest()


def test_the_opportunity_of_a_qualified_lead_goes_on_both_ways(world: World) -> None:
    referral = lead_in(world)
    made = qualify(world, referral)

    world.desk.edit(made, notes="Ours.")
    world.settle()
    assert referral["details"]["notes"] == "Ours."

    world.people.partner_edits(referral["id"], {"/details/notes": "Theirs."})
    world.settle()
    assert world.record(made)["notes"] == "Theirs."

    world.desk.win(made)
    world.settle()
    assert referral["substatus"] == "Won"
    assert len(world.desk.opportunities()) == 1
    assert world.is_at_rest()


@only("dynamics365", why="elsewhere nobody can edit it any more")
def test_an_edit_of_the_qualified_lead_is_nobodys_business(world: World) -> None:
    referral = lead_in(world)
    lead_id = lead_of(world, referral)["id"]
    qualify(world, referral)
    world.forget_calls()

    world.desk.edit_lead(lead_id, notes="A remark on the old lead.")
    world.settle()

    assert world.writes() == []


def test_disqualifying_the_lead_declines_the_referral(world: World) -> None:
    referral = lead_in(world)

    world.desk.disqualify(lead_of(world, referral)["id"])
    world.settle()

    assert (referral["status"], referral["substatus"], referral["statusReason"]) == ("Closed", "Declined", "Others")
    assert world.desk.opportunities() == []
    assert world.is_at_rest()


@pytest.mark.parametrize("how", ["declined", "expired"])
def test_a_lead_that_is_declined_or_expires_is_disqualified(world: World, how: str) -> None:
    referral = lead_in(world)

    if how == "declined":
        world.people.partner_declines(referral["id"])
    else:
        world.people.expire_pending(at_once=True)
    world.settle()

    assert lead_of(world, referral)["state"] == "lost"
    assert world.desk.opportunities() == []
    assert world.is_at_rest()


def test_a_lead_that_is_won_in_the_portal_before_we_heard_of_its_acceptance_keeps_the_win(world: World) -> None:
    referral = lead_in(world)

    world.people.partner_accepts(referral["id"])
    world.people.partner_closes(referral["id"], "Won")
    world.settle()

    assert referral["substatus"] == "Won"
    assert world.record_of(referral["id"])["state"] == "won"
    assert world.services.failures.list() == ()
    assert world.is_at_rest()


def test_a_deleted_lead_is_not_made_again(world: World) -> None:
    referral = lead_in(world)
    world.desk.delete_lead(lead_of(world, referral)["id"])
    world.settle()

    world.people.partner_edits(referral["id"], {"/details/notes": "Urgent."})
    world.settle()

    assert world.desk.leads() == world.desk.opportunities() == []
    assert referral["status"] == "New"


def test_a_lead_that_is_unflagged_is_left_alone(world: World) -> None:
    referral = lead_in(world)
    lead_id = lead_of(world, referral)["id"]
    world.desk.edit_lead(lead_id, sync_flag=False)
    world.settle()
    world.forget_calls()

    world.people.partner_edits(referral["id"], {"/details/notes": "Urgent."})
    world.desk.qualify(lead_id)
    world.settle()

    assert world.writes() == []
    assert referral["status"] == "New"


# ---------------------------------------------------------------- scope


@pytest.fixture
def without_leads(make_world: Callable[..., World], edited_map: Callable[..., str]) -> World:
    return make_world(MAPPING_FILE=edited_map(("leads = true", "leads = false")))


def test_leads_out_of_scope_stay_in_partner_center(without_leads: World) -> None:
    world = without_leads
    referral = world.people.creates_lead(INTENT)

    world.settle()
    world.people.partner_edits(referral["id"], {"/details/notes": "Urgent."})
    world.settle()

    assert world.desk.leads() == world.desk.opportunities() == []
    assert world.writes() == []
    assert world.services.failures.list() == ()


def test_deals_come_in_though_leads_are_out_of_scope(without_leads: World) -> None:
    world = without_leads
    deal = world.people.microsoft_creates_deal(INTENT)

    world.settle()

    assert world.record_of(deal["id"])["state"] == "on_hold"


def test_an_accepted_lead_is_a_deal_and_comes_in_though_leads_are_out_of_scope(without_leads: World) -> None:
    world = without_leads
    referral = world.people.creates_lead(INTENT)
    world.settle()
    world.advance(60)

    world.people.partner_accepts(referral["id"])
    world.settle()

    assert world.record_of(referral["id"])["state"] == "open"
    assert world.desk.leads() == []


def test_a_lead_that_was_qualified_while_partner_center_closed_it_waits_for_nobody(world: World) -> None:
    referral = lead_in(world)
    world.desk.qualify(lead_of(world, referral)["id"])
    world.people.partner_edits(referral["id"], {"/details/notes": "They have chosen somebody else."})
    world.people.partner_declines(referral["id"])

    world.settle()

    assert world.services.failures.list() == ()
    assert len(world.desk.opportunities()) == 1  # the seller's own from now on
    assert "the CRM had open" in world.notes(lead_of(world, referral)["id"], world.desk.lead)
    world.crm.log.clear()
    assert world.is_at_rest()
    assert "crm write" not in world.calls()

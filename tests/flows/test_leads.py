"""A lead from Microsoft's site becomes a lead in the CRM and, once somebody takes it on, an opportunity."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
    return world.record_of(referral["id"], "leads")


def qualify(world: World, referral: dict[str, Any]) -> str:
    """A seller qualifies the lead; returns the opportunity Dynamics makes of it."""
    made = world.sellers.qualify_lead(lead_of(world, referral)["leadid"])
    world.settle()
    world.advance(60)
    return made["opportunity"]


def test_a_lead_from_microsofts_site_becomes_a_lead(world: World) -> None:
    referral = world.people.creates_lead(INTENT)

    world.settle()

    (lead,) = world.rows("leads")
    assert lead["cosell_referralid"] == referral["id"]
    assert lead["cosell_syncwithpartnercenter"] is True
    assert lead["subject"] == "Partner Center lead"
    assert lead["companyname"] == "Contoso Customer Inc"
    assert (lead["firstname"], lead["lastname"]) == ("Sue", "Smith")
    assert (lead["emailaddress1"], lead["telephone1"]) == ("sue.smith@contoso.example", "1234567890")
    assert (lead["address1_city"], lead["address1_country"]) == ("Redmond", "US")
    assert lead["estimatedamount"] == 10000
    assert lead["statecode"] == 0
    assert lead["cosell_syncstatus"].startswith("✓")
    assert referral["id"] in lead["cosell_audit"]
    assert world.rows("opportunities") == world.rows("accounts") == world.rows("contacts") == []
    assert world.pc.log.count("PATCH") == 0
    assert world.is_at_rest()


def test_a_lead_without_a_contact_arrives_all_the_same(world: World) -> None:
    referral = lead_in(world, **{"/customerProfile/team": []})

    assert lead_of(world, referral)["lastname"] == "(unknown)"
    assert world.services.failures.list() == ()
    assert world.is_at_rest()


def test_a_change_in_partner_center_reaches_the_lead(world: World) -> None:
    referral = lead_in(world)

    world.people.partner_edits(referral["id"], {"/details/notes": "Urgent.", "/details/dealValue": 12000})
    world.settle()

    lead = lead_of(world, referral)
    assert (lead["description"], lead["estimatedamount"]) == ("Urgent.", 12000)
    assert world.writes() == ["dataverse PATCH"]
    assert world.is_at_rest()


def test_an_edit_of_the_lead_is_put_back_and_kept_in_the_audit(world: World) -> None:
    """Until somebody takes the lead on, it is Partner Center's, which takes no edits."""
    referral = lead_in(world)

    world.sellers.edit("lead", lead_of(world, referral)["leadid"], {"description": "Call on Monday."})
    world.settle()

    lead = lead_of(world, referral)
    assert lead["description"] == "We look for help to deploy Microsoft 365 and to train staff."
    assert "Partner Center owns it, the CRM's “Call on Monday.” was put back" in lead["cosell_audit"]
    assert world.pc.log.count("PATCH") == 0
    assert world.is_at_rest()


def test_accepting_in_the_portal_makes_an_opportunity_of_the_lead(world: World) -> None:
    referral = lead_in(world)
    lead_id = lead_of(world, referral)["leadid"]

    world.people.partner_accepts(referral["id"])
    world.settle()

    (opportunity,) = world.rows("opportunities")
    assert opportunity["cosell_referralid"] == referral["id"]
    assert opportunity["_originatingleadid_value"] == lead_id
    assert (opportunity["statecode"], opportunity["statuscode"]) == (0, 1)
    assert opportunity["estimatedvalue"] == 10000
    assert world.record(lead_id, "leads")["statecode"] == 1
    assert referral["externalReferenceId"] == opportunity["opportunityid"]
    assert len(world.rows("accounts")) == len(world.rows("contacts")) == 1
    assert "goes on as opportunity" in world.notes(opportunity["opportunityid"])
    assert world.is_at_rest()


def test_a_lead_that_was_accepted_before_we_heard_of_it_is_an_opportunity_at_once(world: World) -> None:
    referral = world.people.creates_lead(INTENT)
    world.people.partner_accepts(referral["id"])

    world.settle()

    assert world.rows("leads") == []
    assert world.record_of(referral["id"])["statuscode"] == 1
    assert world.is_at_rest()


def test_qualifying_the_lead_accepts_the_referral_and_adopts_the_opportunity_made_of_it(world: World) -> None:
    referral = lead_in(world)

    made = qualify(world, referral)

    assert (referral["status"], referral["substatus"]) == ("Active", "Accepted")
    (opportunity,) = world.rows("opportunities")
    assert opportunity["opportunityid"] == made
    assert opportunity["cosell_referralid"] == referral["id"]
    assert opportunity["cosell_syncwithpartnercenter"] is True
    assert opportunity["cosell_syncstatus"].startswith("✓")
    assert referral["externalReferenceId"] == made
    assert world.services.failures.list() == ()
    assert world.is_at_rest()


def test_the_opportunity_of_a_qualified_lead_goes_on_both_ways(world: World) -> None:
    referral = lead_in(world)
    made = qualify(world, referral)

    world.sellers.edit("opportunity", made, {"description": "Ours."})
    world.settle()
    assert referral["details"]["notes"] == "Ours."

    world.people.partner_edits(referral["id"], {"/details/notes": "Theirs."})
    world.settle()
    assert world.record(made)["description"] == "Theirs."

    world.sellers.win(made)
    world.settle()
    assert referral["substatus"] == "Won"
    assert len(world.rows("opportunities")) == 1
    assert world.is_at_rest()


def test_an_edit_of_the_qualified_lead_is_nobodys_business(world: World) -> None:
    referral = lead_in(world)
    lead_id = lead_of(world, referral)["leadid"]
    qualify(world, referral)
    world.forget_calls()

    world.sellers.edit("lead", lead_id, {"description": "A remark on the old lead."})
    world.settle()

    assert world.writes() == []


def test_disqualifying_the_lead_declines_the_referral(world: World) -> None:
    referral = lead_in(world)

    world.sellers.edit("lead", lead_of(world, referral)["leadid"], {"statecode": 2, "statuscode": 5})
    world.settle()

    assert (referral["status"], referral["substatus"], referral["statusReason"]) == ("Closed", "Declined", "Others")
    assert world.rows("opportunities") == []
    assert world.is_at_rest()


@pytest.mark.parametrize("how", ["declined", "expired"])
def test_a_lead_that_is_declined_or_expires_is_disqualified(world: World, how: str) -> None:
    referral = lead_in(world)

    if how == "declined":
        world.people.partner_declines(referral["id"])
    else:
        world.people.expire_pending(at_once=True)
    world.settle()

    assert lead_of(world, referral)["statecode"] == 2
    assert world.rows("opportunities") == []
    assert world.is_at_rest()


def test_a_lead_that_is_won_in_the_portal_before_we_heard_of_its_acceptance_keeps_the_win(world: World) -> None:
    referral = lead_in(world)

    world.people.partner_accepts(referral["id"])
    world.people.partner_closes(referral["id"], "Won")
    world.settle()

    assert referral["substatus"] == "Won"
    assert world.record_of(referral["id"])["statecode"] == 1
    assert world.services.failures.list() == ()
    assert world.is_at_rest()


def test_a_deleted_lead_is_not_made_again(world: World) -> None:
    referral = lead_in(world)
    world.sellers.delete("lead", lead_of(world, referral)["leadid"])
    world.settle()

    world.people.partner_edits(referral["id"], {"/details/notes": "Urgent."})
    world.settle()

    assert world.rows("leads") == world.rows("opportunities") == []
    assert referral["status"] == "New"


def test_a_lead_that_is_unflagged_is_left_alone(world: World) -> None:
    referral = lead_in(world)
    lead_id = lead_of(world, referral)["leadid"]
    world.sellers.edit("lead", lead_id, {"cosell_syncwithpartnercenter": False})
    world.settle()
    world.forget_calls()

    world.people.partner_edits(referral["id"], {"/details/notes": "Urgent."})
    world.sellers.qualify_lead(lead_id)
    world.settle()

    assert world.writes() == []
    assert referral["status"] == "New"


# ---------------------------------------------------------------- scope


@pytest.fixture
def without_leads(make_world: Callable[..., World], tmp_path: Path) -> World:
    return make_world(MAPPING_FILE=World.edited_map(tmp_path, ("leads = true", "leads = false")))


def test_leads_out_of_scope_stay_in_partner_center(without_leads: World) -> None:
    world = without_leads
    referral = world.people.creates_lead(INTENT)

    world.settle()
    world.people.partner_edits(referral["id"], {"/details/notes": "Urgent."})
    world.settle()

    assert world.rows("leads") == world.rows("opportunities") == []
    assert world.writes() == []
    assert world.services.failures.list() == ()


def test_deals_come_in_though_leads_are_out_of_scope(without_leads: World) -> None:
    world = without_leads
    deal = world.people.microsoft_creates_deal(INTENT)

    world.settle()

    assert world.record_of(deal["id"])["statuscode"] == 2


def test_an_accepted_lead_is_a_deal_and_comes_in_though_leads_are_out_of_scope(without_leads: World) -> None:
    world = without_leads
    referral = world.people.creates_lead(INTENT)
    world.settle()
    world.advance(60)

    world.people.partner_accepts(referral["id"])
    world.settle()

    assert world.record_of(referral["id"])["statuscode"] == 1
    assert world.rows("leads") == []

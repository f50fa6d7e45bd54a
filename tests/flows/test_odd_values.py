"""Values that go there and back, and values that nobody expects: each field goes its own way, and nothing stops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shared.messages import SyncRequest
from tests.flows.crms import only
from tests.flows.world import World


@pytest.fixture
def world(make_memory_world: Callable[..., World]) -> World:
    return make_memory_world()


@pytest.fixture
def record_id(world: World) -> str:
    made = world.opportunity()
    world.settle()
    world.advance(60)
    return made


def portal(world: World, record_id: str, changes: dict[str, Any]) -> None:
    world.people.partner_edits(world.referral_of(record_id)["id"], changes)
    world.settle()
    world.advance(60)


def test_an_amount_changed_and_changed_back_arrives_both_times(world: World, record_id: str) -> None:
    portal(world, record_id, {"/details/dealValue": 60000})
    assert world.record(record_id)["deal_value"] == 60000

    portal(world, record_id, {"/details/dealValue": 50000})

    assert world.record(record_id)["deal_value"] == 50000


def test_an_amount_that_the_seller_sets_back_goes_back(world: World, record_id: str) -> None:
    portal(world, record_id, {"/details/dealValue": 60000})

    world.desk.edit(record_id, deal_value=50000)
    world.settle()

    assert world.referral_of(record_id)["details"]["dealValue"] == 50000


def test_an_amount_from_the_portal_survives_an_unrelated_edit_of_the_seller(world: World, record_id: str) -> None:
    portal(world, record_id, {"/details/dealValue": 60000, "/details/currency": "EUR"})

    world.desk.edit(record_id, notes="The seller's words.")
    portal(world, record_id, {"/details/dealValue": 70000})

    assert world.referral_of(record_id)["details"]["dealValue"] == 70000
    assert world.record(record_id)["deal_value"] == 70000
    assert "changed on both sides" not in world.notes(record_id)


@pytest.mark.parametrize("value", ["next spring", "0001-01-01T00:00:00+05:00"])
def test_a_date_that_is_none_is_named_and_the_other_fields_go_on(world: World, record_id: str, value: str) -> None:
    own = world.referral_of(record_id)["id"]
    world.people.partner_edits(own, {"/details/notes": "there"})
    world.pc.referrals[own]["details"]["closingDateTime"] = value

    world.settle(poll=False)

    assert world.record(record_id)["notes"] == "there"
    assert world.record(record_id)["sync_status"].startswith(f"✗ {world.label('close_date')}: Partner Center holds")
    assert world.failed_invocations == 0


def test_an_empty_place_in_a_list_of_people_does_no_harm(world: World, record_id: str) -> None:
    own = world.referral_of(record_id)["id"]
    world.people.partner_edits(own, {"/details/notes": "there"})
    world.pc.referrals[own]["team"] = [None]

    world.settle(poll=False)

    assert world.record(record_id)["notes"] == "there"


def test_a_long_failure_with_an_emoji_keeps_no_data_back(world: World, record_id: str) -> None:
    many = [{"type": "Name", "id": f"SOL🚀{number:05d}"} for number in range(300)]

    portal(world, record_id, {"/details/requirements/solutions": many, "/details/dealValue": 61000})

    assert world.record(record_id)["deal_value"] == 61000
    assert world.record(record_id)["sync_status"].startswith(f"✗ {world.label('solutions')}")


def test_a_second_referral_with_the_same_crm_id_is_a_deal_of_its_own(world: World, record_id: str) -> None:
    first = world.referral_of(record_id)["id"]

    second = world.people.microsoft_creates_deal({"/externalReferenceId": record_id, "/name": "Another deal"})
    world.settle()

    assert world.link_of(record_id).referral_id == first
    assert world.record(record_id)["referral_id"] == first
    assert world.record_of(second["id"])["name"] == "Another deal"


def test_a_referral_that_names_a_free_record_is_linked_to_it(world: World) -> None:
    record_id = world.opportunity(sync_flag=False)
    world.settle()

    world.people.microsoft_creates_deal({"/externalReferenceId": record_id})
    world.settle()

    assert [row["id"] for row in world.desk.opportunities()] == [record_id]


def test_a_text_that_is_no_referral_id_is_refused_by_name(world: World) -> None:
    world.opportunity(referral_id="CRM/4711")

    world.settle()

    (failure,) = world.services.failures.list()
    assert "is no referral id" in failure.reason
    assert world.failed_invocations == 0


@only("dynamics365", why="ids are case sensitive elsewhere")
def test_an_id_in_capitals_is_the_same_id(world: World, record_id: str) -> None:
    world.people.partner_edits(world.referral_of(record_id)["id"], {"/details/notes": "there"})
    world.simulators.webhooks.dispatcher.waiting.clear()

    world.services.queue.send(
        SyncRequest(cause="operator", record_table=world.desk.opportunity, record_id=record_id.upper())
    )
    world.settle(poll=False)

    assert world.record(record_id)["notes"] == "there"

"""What must not get lost when a run dies, is overtaken, or meets people who edit at the same moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import MethodType
from typing import Any

import pytest
import requests

from shared.messages import SyncRequest
from shared.sync import sync_one
from tests.flows.fuse import Fuse, ProcessDied
from tests.flows.world import World


@pytest.fixture
def world(make_memory_world: Callable[..., World]) -> World:
    return make_memory_world()


def shared(world: World, **values: Any) -> str:
    record_id = world.opportunity(**values)
    world.settle()
    world.advance(60)
    return record_id


def at_moments(world: World, happen: Callable[[str], None]) -> None:
    """Let something happen just before the product touches the outside."""

    def moment(fuse: Fuse, name: str) -> None:
        Fuse.moment(fuse, name)
        happen(name)

    world.fuse.moment = MethodType(moment, world.fuse)  # type: ignore[method-assign]


def later(world: World, times: int = 4) -> None:
    for _ in range(times):
        world.advance(400)
        world.settle()


@pytest.mark.parametrize("end", ["throttled", "unexpected", "dies"])
def test_what_a_run_was_asked_to_look_at_is_not_lost_when_its_second_look_fails(world: World, end: str) -> None:
    record_id = shared(world)
    told = failures = 0
    most_failures = 6 if end == "throttled" else 1

    def happen(name: str) -> None:
        nonlocal told, failures
        if not told and name == "deals.transact" and world.record(record_id)["notes"] == "there":
            told = 1
            world.advance(1)
            world.desk.edit(record_id, deal_value=77000)
            world.fire("crm_poller")
            world.work()  # finds the deal claimed and leaves a mark
            told = 2
        elif told == 2 and failures < most_failures and world.backstage.address in name:
            failures += 1
            raise {
                "throttled": requests.ConnectionError("gone"),
                "unexpected": ValueError("a bug"),
                "dies": ProcessDied(name),
            }[end]

    world.people.partner_edits(world.referral_of(record_id)["id"], {"/details/notes": "there"})
    at_moments(world, happen)
    world.simulators.webhooks.dispatcher.deliver_pending()
    (message,) = world.queue.receive(60)
    while not world.survives(lambda: world.run_worker(message.body, 2)) or world.failed_invocations:
        world.failed_invocations = 0
    world.advance(400)
    world.settle(poll=False)  # a poll would meet what is left of the failures
    later(world)

    assert told
    assert failures == most_failures
    assert world.referral_of(record_id)["details"]["dealValue"] == 77000
    assert world.record(record_id)["deal_value"] == 77000


def test_what_a_dead_run_was_asked_to_look_at_is_looked_at_when_its_message_comes_back(world: World) -> None:
    record_id = shared(world)
    referral = world.referral_of(record_id)
    deals, deal = world.services.deals, world.link_of(record_id).deal
    message = SyncRequest(cause="webhook", referral_id=referral["id"], version=referral["updatedDateTime"])
    holder = deals.claim(deal, sides=frozenset({"partner_center"}), message=message.correlation_id)
    world.desk.edit(record_id, notes="Edited while the deal was claimed.")
    world.settle()
    assert holder
    assert deals.release(holder) == {"crm"}

    world.restart()
    outcome = sync_one(message, world.services, redelivered=True)
    world.settle()

    assert outcome.result == "written"
    assert world.referral_of(record_id)["details"]["notes"] == "Edited while the deal was claimed."


def test_the_marks_of_a_run_that_died_after_it_had_saved_are_worked_off(world: World) -> None:
    record_id = shared(world)
    referral = world.referral_of(record_id)
    deals, deal = world.services.deals, world.link_of(record_id).deal
    message = SyncRequest(cause="webhook", referral_id=referral["id"], version=referral["updatedDateTime"])
    holder = deals.claim(deal, sides=frozenset({"partner_center"}), message=message.correlation_id)
    assert holder
    assert deals.claim(deal, sides=frozenset({"crm"})) is None
    assert deals.release(holder) == {"crm"}  # it is to look again, and dies

    outcome = sync_one(message, world.services, redelivered=True)

    assert outcome.result == "agreed"
    assert not world.link_of(record_id).look_again
    assert not world.link_of(record_id).claim


def test_a_run_that_died_with_nothing_left_to_do_does_not_keep_the_deal_claimed(world: World) -> None:
    record_id = shared(world)
    referral = world.referral_of(record_id)
    message = SyncRequest(cause="webhook", referral_id=referral["id"], version=referral["updatedDateTime"])
    deal = world.link_of(record_id).deal
    assert world.services.deals.claim(deal, sides=frozenset({"partner_center"}), message=message.correlation_id)

    outcome = sync_one(message, world.services, redelivered=True)
    world.desk.edit(record_id, notes="Edited before the claim would have expired.")
    world.settle()

    assert outcome.result == "coalesced"
    assert world.referral_of(record_id)["details"]["notes"] == "Edited before the claim would have expired."


def die_when(world: World, reached: Callable[[], bool]) -> None:
    """Let the process die once, before it saves what it has just done."""
    died = False

    def happen(name: str) -> None:
        nonlocal died
        if not died and name == "deals.transact" and reached():
            died = True
            raise ProcessDied(name)

    at_moments(world, happen)


def test_microsofts_copy_made_by_a_run_that_died_is_found_though_the_deal_was_closed_meanwhile(world: World) -> None:
    record_id = world.opportunity(help="CustomerTechnicalArchitecture")
    die_when(world, lambda: len(world.pc.referrals) == 2)
    world.fire("crm_poller")
    (message,) = world.queue.receive(60)
    assert not world.survives(lambda: world.run_worker(message.body))
    world.people.partner_closes(world.referrals()[0]["id"], "Lost", "Too expensive")
    world.simulators.webhooks.dispatcher.waiting.clear()

    world.run_worker(message.body, 2)
    world.settle(poll=False)

    assert world.link_of(record_id).microsoft_referral_id
    assert world.link_of(record_id).intent is None
    assert world.record(record_id)["microsoft_status"]


def test_a_referral_made_by_a_run_that_died_is_known_though_the_record_was_deleted_meanwhile(world: World) -> None:
    record_id = world.opportunity()
    die_when(world, lambda: len(world.pc.referrals) == 1)
    world.fire("crm_poller")
    (message,) = world.queue.receive(60)
    assert not world.survives(lambda: world.run_worker(message.body))
    world.desk.delete(record_id)

    world.run_worker(message.body, 2)
    later(world)

    (own,) = world.referrals()
    link = world.link_of(record_id)
    assert (link.state, link.referral_id, link.intent) == ("tombstone", own["id"], None)


def test_two_copies_of_a_deferred_message_create_one_referral(world: World) -> None:
    record_id = world.opportunity()
    message = SyncRequest(cause="poll", record_table=world.desk.opportunity, record_id=record_id, deferrals=1)
    overtaken = False

    def happen(name: str) -> None:
        nonlocal overtaken
        if name.startswith("POST") and "referrals" in name and not overtaken:
            overtaken = True
            world.clock.advance(31)  # Partner Center is slow
            world.run_worker(message.encode().encode())

    at_moments(world, happen)
    world.run_worker(message.encode().encode())
    later(world)

    assert overtaken
    assert len(world.referrals()) == 1


def at_each_death(play: Callable[[int], World]) -> Iterator[tuple[str, World]]:
    """Play with the process dying at each moment there is; yield its name, and the world some time after it."""
    fuse = play(0).fuse
    moments, deaths = fuse.moments, fuse.deaths()
    assert len(deaths) > 5
    for die_at in deaths:
        world = play(die_at)
        world.fuse.set(0)
        later(world)
        yield moments[die_at - 1], world


def test_a_lead_accepted_while_the_host_is_dead_goes_on_as_one_opportunity(
    make_memory_world: Callable[..., World],
) -> None:
    def play(die_at: int) -> World:
        world = make_memory_world()
        own = world.people.creates_lead()

        def accept_and_restart() -> None:
            world.people.partner_accepts(own["id"], {"/name": "Adatum rollout"})
            World.restart(world)

        world.restart = accept_and_restart  # type: ignore[method-assign]
        world.fuse.set(die_at)
        world.settle()
        return world

    for moment, world in at_each_death(play):
        if world.referrals()[0]["status"] == "New":
            continue  # it was the receiver that died
        (opportunity,) = world.desk.opportunities()
        leads = world.desk.leads()
        assert [lead["state"] for lead in leads] in ([], ["open"]), f"died before {moment!r}"
        names_lead = leads and world.backstage.names_origin
        assert opportunity["lead"] == (leads[0]["id"] if names_lead else None)


def test_an_edit_after_a_write_that_a_dead_run_did_not_save_is_kept(make_memory_world: Callable[..., World]) -> None:
    def play(die_at: int) -> World:
        world = make_memory_world()
        own = world.referral_of(shared(world))["id"]

        def edit_and_restart() -> None:
            world.people.partner_edits(own, {"/details/notes": "second"})
            World.restart(world)

        world.people.partner_edits(own, {"/details/notes": "first"})
        world.restart = edit_and_restart  # type: ignore[method-assign]
        world.fuse.set(die_at)
        world.settle()
        return world

    for moment, world in at_each_death(play):
        (record,), (referral,) = world.desk.opportunities(), world.referrals()
        if referral["details"]["notes"] == "first" and moment == "queue.send":
            continue  # it was the receiver that died: nobody edited
        assert record["notes"] == "second", f"died before {moment!r}"
        assert referral["details"]["notes"] == "second"
        assert "changed on both sides" not in world.notes(record["id"])

"""The nightly comparison of everything: what it finds, what it costs, and when it holds back."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import MethodType

import pytest

from admin.__main__ import main
from local.host.functions import InvocationFailed
from reconciler import full_sweep
from reconciler.outcome import outcome
from shared.drift import FEW
from shared.store.sweeps import Report
from tests.flows.crms import only
from tests.flows.fuse import Fuse, ProcessDied
from tests.flows.many import multiply
from tests.flows.world import World

LATER_S = 2 * full_sweep.LEASE_S


@pytest.fixture
def world(make_memory_world: Callable[..., World]) -> World:
    return make_memory_world()


def sweep(world: World) -> Report:
    """Sweep, and return the report."""
    world.fire("nightly_sweep")
    return world.services.sweeps.latest()[0]


def fates(world: World, report: Report) -> dict[str, dict[str, int]]:
    return {reason: dict(found) for reason, found in outcome(world.services, report).by_reason().items()}


def lose_messages(world: World) -> None:
    """What the webhook and the poll had to tell is gone, on its way or in the queue."""
    world.simulators.webhooks.dispatcher.waiting.clear()
    world.fire("crm_poller")
    for message in world.queue.receive(60):
        world.queue.delete(message.receipt)


def at_rest(world: World) -> None:
    world.settle()
    world.advance(3600)
    world.forget_calls()


@pytest.fixture
def deals(world: World) -> list[str]:
    """Deals of each kind in agreement: co-sell, private, won, Microsoft's own, one of them declined, and a lead."""
    shared = [world.opportunity(help="CustomerTechnicalArchitecture"), world.opportunity(), world.opportunity()]
    theirs = [world.people.microsoft_creates_deal()["id"] for _ in range(2)]
    world.people.creates_lead()
    world.settle()
    world.people.partner_declines(theirs[1])
    world.people.microsoft_accepts(world.referral_of(shared[0])["engagementId"])
    world.settle()
    world.desk.win(shared[2])
    at_rest(world)
    return shared


def test_hundreds_of_deals_with_nothing_to_do_are_read_in_pages(world: World, deals: list[str]) -> None:
    multiply(world, deals[1], 250)
    world.forget_calls()
    world.services.readers = 4

    report = sweep(world)

    listed = len(world.pc.referrals)
    assert report.lists["Partner Center"].listed == listed > 250
    assert world.calls() == {"partner_center GET": -(-listed // 100), "crm read": 2}
    assert (report.differed, world.queue.length(), world.writes()) == ({}, 0, [])
    assert report.lists["Partner Center"].pairs == sum(report.lists[t].pairs for t in report.lists) / 2


def test_what_every_event_missed_is_found_and_healed(world: World, deals: list[str]) -> None:
    world.people.partner_edits(world.referral_of(deals[0])["id"], {"/details/notes": "Nobody heard of this."})
    world.desk.edit(deals[1], notes="Nor of this.")
    theirs = world.people.microsoft_creates_deal()
    ours = world.opportunity()
    lose_messages(world)

    report = sweep(world)
    assert report.differed == dict.fromkeys(
        ("referral newer", "record newer", "unlinked referral", "unlinked record"), 1
    )
    assert fates(world, report) == {reason: {"still to come": 1} for reason in report.differed}
    at_rest(world)

    assert world.record(deals[0])["notes"] == "Nobody heard of this."
    assert world.referral_of(deals[1])["details"]["notes"] == "Nor of this."
    assert world.record_of(theirs["id"])
    assert world.referral_of(ours)
    assert fates(world, report) == {reason: {"healed": 1} for reason in report.differed}
    assert sweep(world).differed == {}


def test_a_difference_that_needs_a_person_says_so_and_is_not_looked_at_every_night(
    world: World, deals: list[str]
) -> None:
    world.opportunity(account=world.desk.create_account(city=None))
    lose_messages(world)

    first = sweep(world)
    at_rest(world)
    second = sweep(world)

    assert fates(world, first) == {"unlinked record": {"waits for a person": 1}}
    assert (second.differed, sum(each.failed for each in second.lists.values())) == ({}, 1)


@pytest.mark.parametrize("moment", range(3, 18, 3))
def test_what_a_run_left_undone_when_its_message_was_lost_too_is_finished(world: World, moment: int) -> None:
    world.fire("crm_poller")
    record_id = world.opportunity(help="CustomerTechnicalArchitecture")
    world.fire("crm_poller")
    (message,) = world.queue.receive(60)
    world.fuse.set(moment)
    assert not world.survives(lambda: world.run_worker(message.body))
    world.queue.delete(message.receipt)
    lose_messages(world)
    world.advance(3600)

    sweep(world)
    at_rest(world)

    engagement = world.pc.of_engagement(world.referral_of(record_id)["engagementId"])
    assert (len(world.pc.referrals), len(engagement)) == (2, 2)
    assert world.record(record_id)["sync_status"].startswith("✓")
    assert sweep(world).differed == {}


def test_what_is_linked_and_listed_no_more_is_looked_at_once(world: World, deals: list[str]) -> None:
    hidden = world.referral_of(deals[0])
    world.desk.delete(deals[1])
    lose_messages(world)
    world.pc.referrals.pop(hidden["id"])

    report = sweep(world)
    at_rest(world)

    assert report.differed == {"not listed": 2}
    assert fates(world, report) == {"not listed": {"healed": 2}}
    assert world.link_of(deals[1]).state == "tombstone"
    assert not world.writes()
    world.advance(400)  # a referral that is not shown is looked for again before it counts as gone
    world.settle()
    assert world.link_of(deals[0]).state == "tombstone"
    assert sweep(world).differed == {}


def test_what_its_seller_held_back_before_it_carried_its_referrals_id_is_not_missing(
    world: World, deals: list[str]
) -> None:
    record_id = world.opportunity()

    def seller_says_no(_: Fuse, name: str) -> None:
        if name.startswith("POST") and "referrals" in name:
            world.advance(2)
            world.desk.edit(record_id, sync_flag=False)

    world.fuse.moment = MethodType(seller_says_no, world.fuse)  # type: ignore[method-assign]
    at_rest(world)
    assert world.link_of(record_id).referral_id
    assert not world.record(record_id)["referral_id"]

    assert sweep(world).differed == {}


def test_when_a_side_lists_very_little_nothing_is_done_about_it_until_a_person_agrees(
    world: World, deals: list[str]
) -> None:
    multiply(world, deals[1], FEW + 1)
    hidden = {name: row for name, row in world.pc.referrals.items() if name.startswith("00000000")}
    for name in hidden:
        world.pc.referrals.pop(name)
    world.desk.edit(deals[0], notes="The other side goes on.")
    lose_messages(world)

    braked = sweep(world)

    (failure,) = world.services.failures.list()
    assert failure.deal == "full_sweep"
    assert f"{len(hidden)} of " in failure.reason
    assert "python -m admin sweep --accept-missing" in failure.next_step
    assert braked.differed == {"record newer": 1}

    full_sweep.begin(world.services, accept_missing=True)
    assert world.services.sweeps.latest()[0].differed == {"record newer": 1, "not listed": len(hidden)}
    world.pc.referrals.update(hidden)
    at_rest(world)

    assert sweep(world).differed == {}
    assert world.services.failures.list() == ()


def test_a_new_deal_that_comes_while_it_runs_is_not_missing(world: World, deals: list[str]) -> None:
    unfinished = full_sweep.begin(world.services, budget_s=0)
    assert unfinished
    while unfinished.phase < 6:  # everything was listed
        unfinished = full_sweep.go_on(world.services, budget_s=0)
        assert unfinished
    multiply(world, deals[1], 10)

    world.fire("reconciler")

    report = world.services.sweeps.latest()[0]
    assert (report.differed, [each.missing for each in report.lists.values()]) == ({}, [0, 0, 0])


def test_it_stops_in_time_and_the_next_tick_goes_on(world: World, deals: list[str]) -> None:
    multiply(world, deals[1], 150)
    world.desk.edit(deals[0], notes="Found on the way.")
    lose_messages(world)
    world.forget_calls()

    first = full_sweep.begin(world.services, budget_s=0)
    assert first
    assert not first.done
    for _ in range(3):
        full_sweep.go_on(world.services, budget_s=0)
    assert world.services.sweeps.latest() == ()
    world.fire("reconciler")

    report = world.services.sweeps.latest()[0]
    assert report.differed == {"record newer": 1}
    assert report.lists["Partner Center"].listed == len(world.pc.referrals)
    # No page was read twice: the tick's own first sweep reads as many.
    assert world.calls()["partner_center GET"] == 2 * report.lists["Partner Center"].requests == 4
    assert full_sweep.go_on(world.services) is None


def test_two_runs_do_not_sweep_at_once(world: World, deals: list[str]) -> None:
    world.fuse.set(8)
    with pytest.raises(ProcessDied):
        world.fire("nightly_sweep")

    assert full_sweep.begin(world.services) is None
    world.advance(LATER_S)
    ended = full_sweep.begin(world.services)

    assert ended
    assert ended.done


def test_wherever_it_dies_it_loses_nothing(world: World, deals: list[str]) -> None:
    moment = 0
    while True:
        moment += 3
        world.people.partner_edits(world.referral_of(deals[0])["id"], {"/details/notes": f"partner {moment}"})
        world.desk.edit(deals[1], notes=f"seller {moment}")
        lose_messages(world)
        world.fuse.set(moment)
        survived = world.survives(lambda: world.fire("nightly_sweep"))
        world.fuse.set(0)
        world.advance(LATER_S)
        full_sweep.go_on(world.services)
        world.work()

        assert world.record(deals[0])["notes"] == f"partner {moment}"
        assert world.referral_of(deals[1])["details"]["notes"] == f"seller {moment}"
        if survived:
            break
    assert moment > 30
    assert world.is_at_rest()


def test_a_list_that_cannot_be_continued_starts_over(world: World, deals: list[str]) -> None:
    multiply(world, deals[1], 150)
    unfinished = full_sweep.begin(world.services, budget_s=0)
    while unfinished and unfinished.after is None:
        unfinished = full_sweep.go_on(world.services, budget_s=0)
    world.pc.faults.add("status", status=400, body={"error": {"code": "BadRequest", "message": "Unknown $skiptoken."}})

    full_sweep.go_on(world.services)

    report = world.services.sweeps.latest()[0]
    assert report.lists["Partner Center"].listed == len(world.pc.referrals)
    assert report.differed == {}


def test_a_side_that_refuses_is_told_in_health_and_tried_again(world: World, deals: list[str]) -> None:
    world.pc.faults.add("status", status=403, path="/referrals", times=1)

    with pytest.raises(InvocationFailed):
        world.fire("nightly_sweep")
    assert world.services.signs.of("full_sweep").fails
    world.advance(60)
    world.fire("reconciler")

    assert not world.services.signs.of("full_sweep").fails
    assert world.services.sweeps.latest()[0].differed == {}


def test_an_operator_sweeps_now_and_prints_what_was_found(
    world: World, deals: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    world.desk.edit(deals[1], notes="Nobody heard of this.")
    lose_messages(world)

    assert main(["sweep"], world.services) == 0
    printed = capsys.readouterr().out
    at_rest(world)
    assert main(["sweep", "--report", "--json"], world.services) == 0
    document = json.loads(capsys.readouterr().out)

    assert "1 record newer: 1 still to come" in printed
    assert f"{world.link_of(deals[1]).deal}: record newer, still to come" in printed
    assert [deal["fate"] for deal in document["deals"]] == ["healed"]


@only("dynamics365", why="the CRM is not asked")
def test_without_a_report_the_operator_is_told_how_to_get_one(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "--report"], world.services) == 1

    assert "python -m admin sweep" in capsys.readouterr().err

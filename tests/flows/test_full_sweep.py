"""The nightly comparison of everything: what it finds, what it costs, and when it holds back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from reconciler import full_sweep
from shared.store.sweeps import Report
from tests.flows.fuse import ProcessDied
from tests.flows.world import World


@pytest.fixture
def world(make_memory_world: Callable[..., World]) -> World:
    return make_memory_world()


def sweep(world: World) -> Report:
    """Sweep, and return the report."""
    world.fire("nightly_sweep")
    return world.services.sweeps.latest()[0]


def lose_events(world: World) -> None:
    world.simulators.webhooks.dispatcher.waiting.clear()


@pytest.fixture
def deals(world: World) -> list[str]:
    """Deals of each kind in agreement: co-sell and private ones, Microsoft's own, a lead, one won and one declined."""
    shared = [world.opportunity(help="CustomerTechnicalArchitecture"), world.opportunity(), world.opportunity()]
    theirs = [world.people.microsoft_creates_deal()["id"] for _ in range(2)]
    world.people.creates_lead()
    world.settle()
    world.people.partner_declines(theirs[1])
    world.people.microsoft_accepts(world.referral_of(shared[0])["engagementId"])
    world.settle()
    world.desk.win(shared[2])
    world.settle()
    world.fire("reconciler")
    world.work()
    world.advance(3600)
    world.forget_calls()
    return shared


def test_with_nothing_to_do_it_sends_nothing_and_reads_pages(world: World, deals: list[str]) -> None:
    report = sweep(world)

    assert report.differed == {}
    assert (world.queue.length(), world.writes()) == (0, [])
    assert world.calls() == {"partner_center GET": 1, "crm read": 2}

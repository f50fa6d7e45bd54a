"""The process may die at any moment: before or after any call to Storage, the queue, Partner Center or the CRM.

Each flow is played once to count its moments, then once per moment that differs from the next with the process dying
there. Whatever happens, in the end there is one record per referral and one referral per record, both sides agree, the
audit has every write with its outcome, and another run writes nothing. tests/simulation/test_crash_points.py does the
same for the rarer flows, in a cloud where more goes on at once.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable

import pytest

from shared.decide import decide
from shared.view import View
from tests.flows.accounts import assert_audit_accounts_for_every_write
from tests.flows.crms import only
from tests.flows.world import World

Flow = Callable[[World], None]
GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def seller_shares_a_co_sell_deal(world: World) -> None:
    world.opportunity(help="CustomerTechnicalArchitecture")


def seller_edits(world: World) -> None:
    record_id = world.desk.opportunities()[0]["id"]
    world.desk.edit(record_id, deal_value=61000, notes="changed here")


def partner_center_edits(world: World) -> None:
    world.people.partner_edits(world.referrals()[0]["id"], {"/details/notes": "changed there"})


def both_edit(world: World) -> None:
    seller_edits(world)
    partner_center_edits(world)


def microsoft_accepts(world: World) -> None:
    world.people.microsoft_accepts(world.referrals()[0]["engagementId"])


def seller_wins(world: World) -> None:
    world.desk.win(world.desk.opportunities()[0]["id"])


def microsoft_brings_a_deal(world: World) -> None:
    world.people.microsoft_creates_deal()


def a_customer_asks(world: World) -> None:
    world.people.creates_lead()


def partner_accepts_the_lead(world: World) -> None:
    world.people.partner_accepts(world.referrals()[0]["id"], {"/name": "Adatum rollout"})


FLOWS: dict[str, tuple[tuple[Flow, ...], Flow]] = {
    "seller shares a co-sell deal": ((), seller_shares_a_co_sell_deal),
    "seller edits": ((seller_shares_a_co_sell_deal,), seller_edits),
    "Partner Center edits": ((seller_shares_a_co_sell_deal,), partner_center_edits),
    "both edit": ((seller_shares_a_co_sell_deal,), both_edit),
    "Microsoft accepts": ((seller_shares_a_co_sell_deal,), microsoft_accepts),
    "seller wins": ((seller_shares_a_co_sell_deal,), seller_wins),
    "Microsoft brings a deal": ((), microsoft_brings_a_deal),
    "a customer asks": ((), a_customer_asks),
    "the lead is accepted": ((a_customer_asks,), partner_accepts_the_lead),
}


def play(world: World, flow: str, die_at: int) -> tuple[list[str], list[int]]:
    """Play the flow; return the moments it had, and at which of them to die."""
    before, last = FLOWS[flow]
    for each in before:
        each(world)
        world.settle()
        world.advance(60)
    last(world)
    world.fuse.set(die_at)
    world.settle()
    moments, deaths = world.fuse.moments, world.fuse.deaths()
    world.fuse.set(0)
    for _ in range(4):  # what was put back for later comes due
        world.advance(60)
        world.settle()
    return moments, deaths


def assert_in_agreement(world: World) -> None:
    shared = [row for row in world.desk.opportunities() if row["referral_id"]]
    by_referral = Counter(row["referral_id"] for row in shared)
    by_record = Counter(row["externalReferenceId"] for row in world.referrals() if row["externalReferenceId"])
    assert set(by_referral.values()) <= {1}
    assert set(by_record.values()) <= {1}
    assert len(world.desk.accounts()) <= 1
    assert len(world.desk.contacts()) <= 1
    for engagement in {row["engagementId"] for row in world.referrals()}:
        assert len([row for row in world.pc.of_engagement(engagement) if row["organizationId"] == "msft"]) <= 1
    for referral in world.referrals():
        assert_deal_agrees(world, referral["id"])
    assert len(world.referrals()) == 1
    assert world.failed_invocations == 0
    assert world.services.failures.list() == ()


def assert_deal_agrees(world: World, referral_id: str) -> None:
    """Reading both sides afresh, there is nothing left to write, and every field agrees as far as the map goes."""
    deal = world.services.deals.find(referral_id=referral_id)
    assert deal, "no link knows this referral"
    link = world.services.deals.load(deal)
    assert link
    view = View(world.services, link)
    view.read(frozenset({"partner_center", "microsoft", "crm"}))
    assert not decide(view.deal()).writes, json.dumps(decide(view.deal()).__dict__, default=str)[:2000]


@pytest.mark.real_storage
@only("dynamics365", why="it compares Storage with its twin, and neither knows the CRM")
@pytest.mark.parametrize("flow", FLOWS)
def test_with_storage_in_memory_a_flow_has_the_same_moments_as_with_real_storage(
    make_world: Callable[..., World], make_memory_world: Callable[..., World], flow: str
) -> None:
    real, _ = play(make_world(), flow, die_at=0)
    in_memory, _ = play(make_memory_world(), flow, die_at=0)

    assert [GUID.sub("id", moment) for moment in in_memory] == [GUID.sub("id", moment) for moment in real]


@pytest.mark.parametrize("flow", FLOWS)
def test_dying_at_any_moment_ends_in_agreement(make_memory_world: Callable[..., World], flow: str) -> None:
    moments, deaths = play(make_memory_world(), flow, die_at=0)
    assert len(deaths) > 5

    for die_at in deaths:
        world = make_memory_world()
        play(world, flow, die_at)
        try:
            assert_in_agreement(world)
            assert_audit_accounts_for_every_write(world)
            world.forget_calls()
            world.settle()
            assert not any(write in call for call in world.calls() for write in ("POST", "PATCH", "write"))
        except AssertionError as wrong:
            raise AssertionError(f"after dying before {moments[die_at - 1]!r} (moment {die_at})") from wrong

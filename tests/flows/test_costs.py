"""What each kind of change costs, counted in the logs of the simulated systems and at Storage."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.flows.world import World

READ_REFERRAL = "partner_center GET"
WRITE_REFERRAL = "partner_center PATCH"
READ_RECORD = "crm read"
WRITE_RECORD = "crm write"


@pytest.fixture
def deal(world: World) -> tuple[World, str, str]:
    """A co-sell deal in agreement: the world, the record's id, the referral's id."""
    record_id = world.opportunity(help="CustomerTechnicalArchitecture")
    world.settle()
    world.advance(600)
    world.settle()
    world.forget_calls()
    world.fuse.set(0)
    return world, record_id, world.referral_of(record_id)["id"]


def deliver_and_work(world: World) -> None:
    world.simulators.webhooks.dispatcher.deliver_pending()
    world.work()


def poll_and_work(world: World) -> None:
    world.fire("crm_poller")
    assert world.backstage.calls() == [READ_RECORD] * len(world.services.field_map.watched)
    world.crm.log.clear()  # the poll itself is counted in its own test
    world.work()


def test_a_partner_center_change_costs_one_referral_read_and_one_crm_write(deal: tuple[World, str, str]) -> None:
    world, record_id, referral_id = deal
    world.people.partner_edits(referral_id, {"/details/notes": "from the portal", "/details/dealValue": 70000})

    deliver_and_work(world)

    assert world.record(record_id)["notes"] == "from the portal"
    assert world.calls() == {READ_REFERRAL: 1, WRITE_RECORD: 1}


def test_a_stale_record_version_costs_one_crm_read_more(deal: tuple[World, str, str]) -> None:
    world, record_id, referral_id = deal
    world.backstage.touch(record_id)
    world.people.partner_edits(referral_id, {"/details/notes": "from the portal"})

    deliver_and_work(world)

    assert world.record(record_id)["notes"] == "from the portal"
    # One of the two writes was refused for the version and wrote nothing.
    assert world.calls() == {READ_REFERRAL: 1, READ_RECORD: 1, WRITE_RECORD: 2}


def test_a_crm_change_costs_one_referral_write_and_one_crm_read(deal: tuple[World, str, str]) -> None:
    world, record_id, referral_id = deal
    world.desk.edit(record_id, deal_value=80000, notes="from the seller")

    poll_and_work(world)

    assert world.pc.referrals[referral_id]["details"]["dealValue"] == 80000
    assert world.calls() == {READ_RECORD: 1, WRITE_REFERRAL: 1}


def test_microsofts_change_costs_one_referral_read_and_one_crm_write(deal: tuple[World, str, str]) -> None:
    world, record_id, referral_id = deal
    world.people.microsoft_accepts(world.pc.referrals[referral_id]["engagementId"])

    deliver_and_work(world)

    assert world.record(record_id)["microsoft_crm_id"]
    assert world.calls() == {READ_REFERRAL: 1, WRITE_RECORD: 1}


def test_the_echo_of_our_own_referral_write_costs_no_call(deal: tuple[World, str, str]) -> None:
    world, record_id, _ = deal
    world.desk.edit(record_id, deal_value=80000)
    poll_and_work(world)
    world.forget_calls()

    assert world.simulators.webhooks.dispatcher.deliver_pending()
    assert world.work() == 1

    assert world.calls() == {}


def test_the_echo_of_our_own_crm_write_costs_no_call(deal: tuple[World, str, str]) -> None:
    world, _, referral_id = deal
    world.people.partner_edits(referral_id, {"/details/notes": "from the portal"})
    deliver_and_work(world)
    world.forget_calls()

    poll_and_work(world)

    assert world.calls() == {}


def test_creating_a_co_sell_deal_costs_two_posts_one_crm_read_and_one_crm_write(world: World) -> None:
    world.settle()
    world.opportunity(help="CustomerTechnicalArchitecture")
    world.forget_calls()

    poll_and_work(world)

    assert world.calls() == {"partner_center POST": 2, READ_RECORD: 1, WRITE_RECORD: 1}


def test_an_idle_poll_is_one_request_per_table_whatever_the_number_of_deals(world: World) -> None:
    for _ in range(5):
        world.opportunity()
    world.settle()
    world.forget_calls()

    world.fire("crm_poller")

    assert world.calls() == {READ_RECORD: len(world.services.field_map.watched)}
    assert world.work() == 0


def test_an_idle_sweep_is_one_request_whatever_the_number_of_deals(world: World) -> None:
    for _ in range(5):
        world.people.microsoft_creates_deal()
    world.settle()
    world.fire("reconciler")
    world.work()
    world.forget_calls()

    world.fire("reconciler")

    assert world.calls() == {READ_REFERRAL: 1}
    assert world.work() == 0


@pytest.mark.real_storage
def test_a_webhook_call_is_one_storage_write(deal: tuple[World, str, str]) -> None:
    world, _, referral_id = deal
    world.people.partner_edits(referral_id, {"/details/notes": "from the portal"})

    world.simulators.webhooks.dispatcher.deliver_pending()

    assert [name for name in world.fuse.moments if not name.startswith("GET")] == ["queue.send"]


@pytest.mark.real_storage
@pytest.mark.parametrize(
    ("kind", "transactions"),
    [
        ("echo", ["index.get", "deals.get"]),
        ("change", ["index.get", "deals.get", "deals.replace", *["deals.transact"] * 2]),
        ("first of the day", ["index.get", "deals.get", "deals.replace", "index.upsert", *["deals.transact"] * 2]),
    ],
)
def test_storage_transactions_per_message(deal: tuple[World, str, str], kind: str, transactions: list[str]) -> None:
    world, _, referral_id = deal
    world.people.partner_edits(referral_id, {"/details/notes": "from the portal"})
    world.simulators.webhooks.dispatcher.deliver_pending()
    message = next(iter(world.messages.peek_messages())).content.encode()
    if kind == "echo":
        world.work()

    if kind == "first of the day":
        world.advance(86_400)
    world.fuse.set(0)
    world.run_worker(message)

    assert [name for name in world.fuse.moments if name.split(".")[0] in ("index", "deals")] == transactions


@pytest.mark.parametrize("threads", [1, 8])
def test_a_burst_of_50_events_on_one_deal_is_at_most_three_reconciliations(
    make_world: Callable[..., World], threads: int
) -> None:
    world = make_world()
    record_id = world.opportunity()
    world.settle()
    referral_id = world.referral_of(record_id)["id"]
    for number in range(50):
        world.people.partner_edits(referral_id, {"/details/notes": f"edit {number}"})
    world.simulators.webhooks.dispatcher.deliver_pending()
    bodies: list[bytes] = []
    while page := world.queue.receive(visibility_s=600):
        bodies += [received.body for received in page]
    assert len(bodies) == 50
    world.forget_calls()

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(world.run_worker, bodies))
    world.work()

    assert world.record(record_id)["notes"] == "edit 49"
    assert world.calls()[READ_REFERRAL] <= 3
    assert world.failed_invocations == 0

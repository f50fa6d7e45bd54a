"""The operator's command line: what waits for a person, and bringing it back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from admin.__main__ import main
from tests.flows.crms import only
from tests.flows.world import World

WHATEVER_THE_CRM = "the CRM is not asked"


@pytest.fixture
def world(make_memory_world: Callable[..., World]) -> World:
    return make_memory_world()


def test_a_failed_deal_is_listed_with_its_next_step_and_brought_back(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    account = world.desk.create_account(city=None)
    record_id = world.opportunity(account=account)
    world.settle()
    assert main(["failures"], world.services) == 0
    listed = capsys.readouterr().out
    world.desk.edit_account(account, city="Redmond")

    assert main(["replay", "--all"], world.services) == 0
    world.settle()

    assert f"{world.label('customer_city')}: is empty" in listed
    assert f"Fill in {world.label('customer_city')}" in listed
    assert world.record(record_id)["sync_status"].startswith("✓")
    main(["failures"], world.services)
    assert "Nothing waits" in capsys.readouterr().out


def test_a_deal_by_its_key_is_looked_at_again(world: World) -> None:
    record_id = world.opportunity()
    world.settle()
    world.people.partner_edits(world.referral_of(record_id)["id"], {"/details/notes": "Nobody heard."})
    world.simulators.webhooks.dispatcher.waiting.clear()

    assert main(["replay", world.link_of(record_id).deal], world.services) == 0
    world.settle(poll=False)

    assert world.record(record_id)["notes"] == "Nobody heard."


@only("dynamics365", why=WHATEVER_THE_CRM)
def test_a_key_that_is_none_is_refused_and_nothing_is_sent(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    known = world.opportunity()
    world.settle()

    assert main(["replay", world.link_of(known).deal, "pc_1", "4711", "no/deal"], world.services) == 1

    assert "No deal is known as 'pc_1', '4711', 'no/deal'. A deal is named by its key" in capsys.readouterr().err
    assert world.queue.length() == 0


@only("dynamics365", why=WHATEVER_THE_CRM)
def test_replay_wants_deals_or_all(world: World) -> None:
    with pytest.raises(SystemExit):
        main(["replay"], world.services)

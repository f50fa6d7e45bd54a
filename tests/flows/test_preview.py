"""`--dry-run` prints what a run would write, and nothing anywhere is touched; a run then writes just that."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from admin.__main__ import main
from tests.flows.test_dead_runs import die_when
from tests.flows.test_failures import HELP, INTENT
from tests.flows.world import World
from tests.memory_storage import MemoryTables

Make = Callable[..., World]

PLANNED = re.compile(r"  (CRM|Partner Center): would (.+)")
WRITTEN = re.compile(r"  (CRM|Partner Center): (.+?), done.*")


@dataclass(frozen=True)
class Case:
    """`happens` returns how an operator names the deal; `expects`: words of the plan."""

    happens: Callable[[World], str]
    expects: tuple[str, ...]
    rule: str = "latest"


def seller_shares(world: World) -> str:
    return f"opportunity:{world.opportunity(**HELP)}"


def microsoft_offers(world: World) -> str:
    return str(world.people.microsoft_creates_deal(INTENT)["id"])


def microsoft_offers_what_was_accepted(world: World) -> str:
    referral_id = microsoft_offers(world)
    world.people.partner_accepts(referral_id)
    return referral_id


def linked(world: World) -> tuple[str, str]:
    """An opportunity and its referral, in agreement for a while."""
    record_id = world.opportunity()
    world.settle()
    world.advance(600)
    return record_id, str(world.referral_of(record_id)["id"])


def portal_edits(world: World) -> str:
    _, referral_id = linked(world)
    world.people.partner_edits(referral_id, {"/details/notes": "Theirs.", "/details/dealValue": 777})
    return referral_id


def seller_edits(world: World) -> str:
    record_id, _ = linked(world)
    world.desk.edit(record_id, close_date="2027-08-01", notes="Ours.")
    return record_id


def seller_asks_for_help(world: World) -> str:
    record_id, _ = linked(world)
    world.desk.edit(record_id, **HELP)
    return record_id


def both_edit(world: World) -> str:
    record_id, referral_id = linked(world)
    world.people.partner_edits(referral_id, {"/details/notes": "Theirs.", "/details/dealValue": 777})
    world.desk.edit(record_id, notes="Ours.", close_date="2027-08-01")
    return world.link_of(record_id).deal


def seller_holds(world: World) -> str:
    record_id, referral_id = linked(world)
    world.people.partner_edits(referral_id, {"/details/notes": "Theirs."})
    world.desk.edit(record_id, sync_flag=False)
    return record_id


def seller_wins_what_nobody_accepted(world: World) -> str:
    referral_id = str(world.people.microsoft_creates_deal(INTENT)["id"])
    world.settle()
    world.advance(600)
    record_id = str(world.record_of(referral_id)["id"])
    world.desk.win(record_id)
    return record_id


def a_lead_is_accepted(world: World) -> str:
    referral_id = str(world.people.creates_lead()["id"])
    world.settle()
    world.advance(600)
    world.people.partner_accepts(referral_id, {"/name": "Adatum rollout"})
    return referral_id


def seller_lacks_something(world: World) -> str:
    return f"opportunity:{world.opportunity(solutions=None)}"


CASES = {
    "a referral to create, and Microsoft to invite": Case(
        seller_shares, ("would create referral", "would invite Microsoft", "“CustomerTechnicalArchitecture”")
    ),
    "a record to create": Case(microsoft_offers, ("would create ",)),
    "Partner Center changed": Case(portal_edits, ("“Migration assessment done.” → “Theirs.”", "50000 USD → 777 USD")),
    "the CRM changed": Case(seller_edits, ("“Migration assessment done.” → “Ours.”",)),
    "help asked for later": Case(seller_asks_for_help, ("would invite Microsoft",)),
    "both changed, the CRM wins": Case(both_edit, ("“Theirs.” → “Ours.”", "decided: ", "the CRM wins")),
    "both changed, nobody wins": Case(both_edit, ("the CRM “Ours.”", "next: Set both sides to the same"), "hold"),
    "held by its seller": Case(seller_holds, ("nothing would be written: Sync with Partner Center is No",)),
    "two steps": Case(seller_wins_what_nobody_accepted, ("pending → active", "active → won")),
    "a lead goes on as an opportunity": Case(a_lead_is_accepted, ("goes on as a new ", "“Adatum rollout”")),
    "a deal that was accepted already": Case(microsoft_offers_what_was_accepted, ("CRM ID: nothing → “(new)”",)),
    "something is missing": Case(seller_lacks_something, ("is empty, and Partner Center needs it",)),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_plan_is_what_a_run_writes_and_making_it_writes_nothing(
    make_memory_world: Make, edited_map: Callable[..., str], capsys: pytest.CaptureFixture[str], case: Case
) -> None:
    world = make_memory_world(MAPPING_FILE=edited_map(('conflict = "latest"', f'conflict = "{case.rule}"')))
    name = case.happens(world)

    onlooker = Onlooker(world)
    assert main(["sync", name, "--dry-run"], onlooker.services) == 0
    plan = capsys.readouterr().out
    onlooker.assert_wrote_nothing()
    assert [words for words in case.expects if words not in plan] == []
    main(["sync", name], world.services)

    done = capsys.readouterr().out
    foretold = plan.replace("“(new)”", f"“{newest(world)}”")  # only the CRM knows the id that a new record gets
    assert writes(foretold, PLANNED) == writes(done, WRITTEN)
    assert ("next: " in plan) == ("next: " in done)
    main(["sync", name, "--dry-run"], world.services)
    assert "would" not in capsys.readouterr().out.replace("nothing would be", "")


def test_a_replay_that_is_only_to_be_seen_touches_nothing_either(
    make_memory_world: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    world = make_memory_world()
    record_id = world.opportunity(solutions=None)
    world.settle()
    world.desk.edit(record_id, solutions="SOL-1")

    onlooker = Onlooker(world)

    assert main(["replay", "--reason", "missing", "--dry-run"], onlooker.services) == 0

    plan = capsys.readouterr().out
    assert "would create referral" in plan
    assert f"{world.label('solutions')}: SOL-1" in plan
    assert "1 deal would be looked at again; nothing was written." in plan
    onlooker.assert_wrote_nothing()
    assert [failure.reasons for failure in world.services.failures.list()] == [("missing",)]


def test_a_referral_that_may_not_be_read_is_said_and_not_recorded(
    make_memory_world: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    world = make_memory_world()
    referral_id = microsoft_offers(world)
    no = {"error": {"code": "accessDenied", "message": "No."}}
    world.pc.faults.add("status", method="GET", times=99, status=403, body=no)

    onlooker = Onlooker(world)

    assert main(["sync", referral_id, "--dry-run"], onlooker.services) == 0

    assert "Partner Center answered 403" in capsys.readouterr().out
    onlooker.assert_wrote_nothing()
    assert world.services.failures.list() == ()


def newest(world: World) -> str:
    """The id of the youngest opportunity."""
    return str(world.desk.opportunities()[-1]["id"])


class Onlooker:
    """A process of its own, which has to sign in as an operator's does, and whose every request counts."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.services = world.services = world.new_services()
        self.queued = world.queue.length()
        world.forget_calls()
        self.storage.clear()

    @property
    def storage(self) -> list[str]:
        assert isinstance(self.world.tables, MemoryTables)
        return self.world.tables.requests

    def assert_wrote_nothing(self) -> None:
        assert self.world.calls()
        assert self.world.writes() == []
        assert {request.split()[0] for request in self.storage} <= {"get", "query"}
        assert self.world.queue.length() == self.queued


def writes(told: str, heading: re.Pattern[str]) -> list[tuple[str, ...]]:
    """The writes that were printed: each its heading, and a line for each field."""
    found: list[list[str]] = []
    for line in told.splitlines():
        if head := heading.fullmatch(line):
            found.append([f"{head[1]}: {head[2]}"])
        elif line.startswith("    ") and found and not line.strip().startswith(("next:", "accepted:")):
            found[-1].append(line.strip())
    return [(write[0], *sorted(write[1:])) for write in found if not write[-1].startswith("shows how things are")]


def test_a_record_that_a_dead_run_has_made_is_taken_though_its_referral_was_closed(
    make_memory_world: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    world = make_memory_world()
    die_when(world, lambda: bool(world.desk.opportunities()))
    referral_id = str(world.people.microsoft_creates_deal(INTENT)["id"])
    world.simulators.webhooks.dispatcher.deliver_pending()
    message, *_ = world.queue.receive(60)
    assert not world.survives(lambda: world.run_worker(message.body))
    world.people.partner_declines(referral_id)
    (record,) = world.desk.opportunities()

    assert main(["sync", referral_id, "--dry-run"], world.services) == 0
    plan = capsys.readouterr().out
    assert main(["sync", referral_id], world.services) == 0

    assert f"{record['id']} names this referral already" in plan
    assert world.record(record["id"])["state"] == "lost"

"""The audit tells everything that was written, with its outcome, by deal and by time; it ends some day, and it holds no
secret."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs

import pytest

from admin.__main__ import main
from local.host.functions import InvocationFailed
from shared.errors import CosellError
from tests.flows.accounts import assert_audit_accounts_for_every_write, entries
from tests.flows.backstage import FaultOfWrite, Mishap
from tests.flows.crms import only
from tests.flows.test_crashes import (
    assert_deal_agrees,
    microsoft_accepts,
    microsoft_brings_a_deal,
    partner_center_edits,
    seller_edits,
    seller_shares_a_co_sell_deal,
    seller_wins,
)
from tests.flows.world import HOST, World
from tests.memory_storage import MemoryQueue, MemoryTables

NO_MATTER = "Storage and the command line know no CRM"
STORY = (
    seller_shares_a_co_sell_deal,
    seller_edits,
    partner_center_edits,
    microsoft_accepts,
    seller_wins,
    microsoft_brings_a_deal,
)


@pytest.fixture
def world(make_memory_world: Callable[..., World]) -> World:
    return make_memory_world()


def come_to_rest(world: World) -> None:
    for _ in range(4):  # what was put back for later comes due
        world.settle(poll=False)
        world.advance(400)
    world.settle()


def break_writes(world: World, kind: str, times: int, **options: Any) -> None:
    """Let the next writes to either side go wrong, `times` of each kind."""
    for method in ("POST", "PATCH"):
        world.pc.faults.add(kind, method=method, path="/referrals", times=times, **options)
    for place in ("/opportunities", "/sobjects/Opportunity"):
        world.crm.faults.waiting.append(FaultOfWrite(kind, times=times, options=options, url=place))


def mend(world: World) -> None:
    for system in world.simulators.systems.values():
        system.faults.clear()


# ---------------------------------------------------------------- every write, with its outcome


@pytest.mark.parametrize("times", [1, 4], ids=["once", "until the call gives up"])
@pytest.mark.parametrize("mishap", ["drop_before", "drop_after"])
def test_every_write_has_its_outcome_whichever_answers_get_lost(world: World, mishap: Mishap, times: int) -> None:
    for step in STORY:
        break_writes(world, mishap, times)
        step(world)
        world.settle()
        mend(world)
        come_to_rest(world)

    for referral in world.referrals():
        assert_deal_agrees(world, referral["id"])
    assert_audit_accounts_for_every_write(world)


def test_what_came_of_a_write_that_somebody_overwrote_since_is_told_as_far_as_it_can_be(world: World) -> None:
    record_id = world.opportunity()
    world.settle()
    world.advance(60)
    world.pc.faults.add("drop_after", method="PATCH", times=3)
    world.desk.edit(record_id, notes="from the seller")
    world.fire("crm_poller")
    world.work()
    world.people.partner_edits(world.referral_of(record_id)["id"], {"/details/notes": "edited since"})
    come_to_rest(world)
    break_writes(world, "drop_after", 3)
    world.people.partner_edits(world.referral_of(record_id)["id"], {"/details/notes": "from the portal"})
    world.settle(poll=False)
    world.desk.edit(record_id, notes="edited since, here")
    mend(world)
    come_to_rest(world)

    found_later = [(entry.side, entry.phase) for entry in world.story(record_id) if entry.recovered]
    # The CRM still shows the line that came with the write; Partner Center shows only another version.
    assert found_later == [("partner_center", "unknown"), ("crm", "done")]
    assert world.referral_of(record_id)["details"]["notes"] == world.record(record_id)["notes"] == "edited since, here"


@pytest.mark.parametrize(("mishap", "phase"), [("drop_before", "failed"), ("drop_after", "done")])
def test_a_create_that_broke_off_has_its_outcome_although_the_seller_wants_none_any_more(
    world: World, mishap: Mishap, phase: str
) -> None:
    record_id = world.opportunity()
    world.pc.faults.add(mishap, method="POST")
    world.fire("crm_poller")
    world.work()
    world.desk.edit(record_id, sync_flag=False)
    world.simulators.webhooks.dispatcher.waiting.clear()  # nor does an event tell
    come_to_rest(world)

    began, ended = [entry for entry in world.story(record_id) if entry.side]
    assert (began.phase, ended.phase, ended.recovered) == ("started", phase, True)
    assert_audit_accounts_for_every_write(world)
    world.advance(3600)
    world.forget_calls()
    world.desk.save_again(record_id)
    world.settle()
    assert world.writes() == []


def test_a_refused_write_is_told_with_what_it_was_to_write(world: World) -> None:
    record_id = world.opportunity()
    world.settle()
    refusal = {"error": {"code": "400", "message": "The deal value is too high."}}
    world.pc.faults.add("status", method="PATCH", status=400, body=refusal)

    world.desk.edit(record_id, deal_value=71000)
    world.settle()

    failed = next(entry for entry in world.story(record_id) if entry.phase == "failed")
    assert (failed.side, failed.operation) == ("partner_center", "update referral")
    assert failed.fields["deal_value"][1]["amount"] == "71000"
    assert "The deal value is too high." in failed.message
    assert [call.status for call in failed.calls] == [400]


def test_an_entry_names_the_calls_as_both_sides_do(world: World) -> None:
    record_id = world.opportunity(help="CustomerTechnicalArchitecture")
    world.settle()
    world.desk.edit(record_id, notes="changed here")
    world.settle()

    calls = [call for _, entry in entries(world) if entry.phase == "done" for call in entry.calls]
    sent = [entry for entry in world.pc.log.entries if entry.method != "GET" and entry.caller]
    ours = {entry.request_headers["client-request-id"]: entry.response_headers["Request-ID"] for entry in sent}
    assert len(sent) == 3
    named = {call.request_id: call.remote_request_id for call in calls if call.request_id in ours}
    assert named == ours
    crms = [call for call in calls if call.request_id not in ours]
    logged = {entry.response_headers.get("x-ms-service-request-id", "") for entry in world.crm.log.entries}
    assert crms
    assert {call.remote_request_id for call in crms} <= logged


def test_of_a_conflict_the_audit_has_both_values_in_full(world: World) -> None:
    record_id = world.opportunity()
    world.settle()
    world.advance(600)
    here, there = "The seller's view. " * 40, "The portal's view. " * 40
    world.people.partner_edits(world.referral_of(record_id)["id"], {"/details/notes": there})
    world.desk.edit(record_id, notes=here)

    world.settle()

    decided = [entry.decisions["notes"] for entry in world.story(record_id) if "notes" in entry.decisions]
    assert len(decided) == 1
    rule, values = decided[0]["rule"], {decided[0]["partner_center"].strip(), decided[0]["crm"].strip()}
    assert rule == f"conflict = {world.row('notes')['conflict']}"
    assert decided[0]["winner"] in ("partner_center", "crm")
    assert values == {here.strip(), there.strip()}


# ---------------------------------------------------------------- by time


@only("dynamics365", why=NO_MATTER)
def test_an_operator_reads_what_happened_on_a_day(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    record_id = world.opportunity()
    world.settle()
    world.advance(86_400)
    world.people.partner_edits(world.referral_of(record_id)["id"], {"/details/notes": "the next day"})
    world.settle()
    deal = world.link_of(record_id).deal

    assert main(["audit", "--since", "2026-11-02", "--until", "2026-11-02"], world.services) == 0
    first = capsys.readouterr().out.splitlines()
    assert main(["audit", "--since", "2026-11-03"], world.services) == 0
    second = capsys.readouterr().out.splitlines()
    assert main(["audit", "--since", "2026-11-02", "--json"], world.services) == 0
    everything = [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    assert any("create referral: done" in line for line in first)
    assert [line.split("  ", 1)[1] for line in second] == [
        f"{deal}  webhook  crm  update opportunity: started  [notes]",
        f"{deal}  webhook  crm  update opportunity: done  [notes]",
    ]
    assert len(everything) == len(first) + len(second)
    assert everything[-1]["fields"]["notes"][1] == "the next day"
    assert everything[-1]["calls"][0]["status"] == 200
    assert [each["at_utc"] for each in everything] == sorted(each["at_utc"] for each in everything)


@only("dynamics365", why=NO_MATTER)
def test_a_period_that_is_none_is_refused_with_what_is_accepted(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["audit", "--since", "yesterday"], world.services)
    assert "'yesterday' is no time: YYYY-MM-DD" in capsys.readouterr().err

    assert main(["audit", "--since", "2027-01-01", "--until", "2026-01-01T10:00+02:00"], world.services) == 1
    assert "--since 2027-01-01 00:00 UTC is not before the end that --until names" in capsys.readouterr().err


# ---------------------------------------------------------------- retention


@only("dynamics365", why=NO_MATTER)
@pytest.mark.parametrize(("days", "kept"), [("2", 1), ("0", 2), ("", 2)])
def test_what_is_too_old_is_taken_away_at_night(make_memory_world: Callable[..., World], days: str, kept: int) -> None:
    world = make_memory_world(AUDIT_RETENTION_DAYS=days)
    record_id = world.opportunity()
    world.settle()
    world.advance(3 * 86_400)
    world.desk.edit(record_id, notes="days later")
    world.settle()
    before = entries(world)

    world.fire("audit_retention")

    after = entries(world)
    assert after == [each for each in before if each[1].at_utc.day in ({5} if kept == 1 else {2, 5})]
    assert len({entry.at_utc.date() for _, entry in after}) == kept
    world.desk.edit(record_id, notes="and the deal goes on")
    world.settle()
    assert world.referral_of(record_id)["details"]["notes"] == "and the deal goes on"


@only("dynamics365", why=NO_MATTER)
def test_a_night_is_not_longer_than_its_budget_and_the_next_goes_on(
    make_memory_world: Callable[..., World], caplog: pytest.LogCaptureFixture
) -> None:
    world = make_memory_world(AUDIT_RETENTION_DAYS="1")
    for _ in range(3):
        world.opportunity()
    world.settle()
    world.advance(3 * 86_400)
    count, index = len(entries(world)), world.tables.table(f"{world.name}Index")
    now, world.services.clock = world.clock.now, lambda: (world.advance(100), world.clock.now())[1]

    with caplog.at_level(logging.INFO):
        world.fire("audit_retention")
    left = len(entries(world))
    world.services.clock = now
    world.fire("audit_retention")

    assert 0 < left < count
    assert any(getattr(record, "complete", None) is False for record in caplog.records)
    assert entries(world) == []
    assert index.query("audit") == []


# ---------------------------------------------------------------- no secret


def test_no_secret_gets_anywhere_whatever_is_refused_or_times_out(
    make_memory_world: Callable[..., World], caplog: pytest.LogCaptureFixture
) -> None:
    world = make_memory_world(
        WEBHOOK_URL=f"{HOST}/api/webhook_receiver?code=canary-function-key",
        WEBHOOK_RELAY_URLS="https://other-tool.example/hook?code=canary-listener-key",
    )
    if world.desk.crm == "salesforce":
        sign_in_with_certificate(world)
    caplog.set_level(logging.DEBUG)
    found: list[str] = []
    for kind, options in MISHAPS:
        for step in (seller_shares_a_co_sell_deal, partner_center_edits):
            for system in world.simulators.systems.values():
                system.faults.add(kind, times=6, **options)
            step(world)
            with suppress(InvocationFailed):  # the poll tells its trouble to the host
                world.settle()
            found += written_down(world)
            mend(world)
            come_to_rest(world)
        expire_sign_ins(world)
        found += raised(world, kind, options)
    for timer in ("check_registration", "reconciler", "audit_retention"):
        world.fire(timer)
    world.poison(b'{"cause": "poll"}')
    found += [*written_down(world), *(str(vars(record)) for record in caplog.records), caplog.text]

    private_key = world.settings.get("SALESFORCE_PRIVATE_KEY", "").split("\n")[1:-2]
    secrets = {"canary-function-key", "canary-listener-key", *private_key, *tokens(world)}
    assert len(secrets) > 8
    everything = "\n".join(found)
    assert "sync.deferred" in everything
    assert [secret for secret in secrets if secret in everything] == []


MISHAPS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("drop_after", {}),
    ("throttle", {"retry_after_s": 30}),
    ("status", {"status": 401, "body": {"error": "invalid_client", "error_description": "AADSTS7000215: no"}}),
    ("status", {"status": 400, "body": {"error": {"code": "400", "message": "no"}}}),
    ("status", {"status": 500, "body": {}}),
    ("garbage", {"body": "<html>"}),
)


def sign_in_with_certificate(world: World) -> None:
    key = {"SALESFORCE_PRIVATE_KEY": world.crm.private_key_pem, "SALESFORCE_USERNAME": world.crm.username}
    world.settings |= {"SALESFORCE_CLIENT_SECRET": "", **key}
    world.services = world.new_services()


def expire_sign_ins(world: World) -> None:
    """A new process has to sign in anew."""
    world.services = world.new_services()


def raised(world: World, kind: str, options: dict[str, Any]) -> Iterator[str]:
    """What each remote raises while nothing works, as a person may print it."""
    asks: tuple[Callable[[], Any], ...] = (
        lambda: world.services.partner_center.get(world.referrals()[0]["id"]),
        lambda: world.services.partner_center.create({"name": "any"}),
        lambda: world.services.crm.find_by_referral(world.desk.opportunity, "none"),
        lambda: world.services.webhooks.registration(),
    )
    for ask in asks:
        for system in world.simulators.systems.values():
            system.faults.add(kind, times=3, **options)
        try:
            ask()
        except (CosellError, ValueError) as error:
            yield "".join(traceback.format_exception(error)) + str(vars(error))
        mend(world)
        world.advance(60)


def written_down(world: World) -> list[str]:
    """All rows of all tables, and all that waits in the queues."""
    assert isinstance(world.tables, MemoryTables)
    rows = [
        repr(row)
        for table in world.tables._tables.values()
        for partition in table._partitions.values()
        for row in partition.values()
    ]
    queues = [queue for queue in (world.queue, world.relays) if isinstance(queue, MemoryQueue)]
    waiting = [message.body.decode() for queue in queues for message in queue._messages]
    return [*rows, *waiting, *(body.decode() for queue in queues for body in queue.given_up())]


def tokens(world: World) -> set[str]:
    """Every secret the systems were shown or gave away: client secrets, refresh tokens, access tokens.

    The signature of an event is none: it is good for that event alone, and goes on to other listeners with it.
    """
    shown = set()
    for system in world.simulators.systems.values():
        for entry in system.log.entries:
            scheme, _, token = entry.request_headers.get("Authorization", "").partition(" ")
            shown |= {token} if scheme == "Bearer" else set()
            if b"grant_type" in entry.request_body:
                form = parse_qs(entry.request_body.decode())
                shown |= {
                    value for name in ("client_secret", "refresh_token", "assertion") for value in form.get(name, ())
                }
                answer = json.loads(entry.response_body) if entry.status == 200 and entry.fault != "garbage" else {}
                shown |= {answer[name] for name in ("access_token", "refresh_token") if name in answer}
    return shown - {""}

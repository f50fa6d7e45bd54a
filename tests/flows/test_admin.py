"""The operator's command line: what waits for a person, and bringing it back."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable

import pytest

from admin import explain
from admin.__main__ import main
from shared.messages import LOOKS_PER_S
from shared.model import ALL_SIDES
from shared.problems import Problem
from tests.flows.crms import only
from tests.flows.fuse import ProcessDied
from tests.flows.test_failures import HELP, INTENT, REFUSAL
from tests.flows.world import World

WHATEVER_THE_CRM = "it is the same whichever CRM it is"


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
def test_replay_wants_deals_or_a_reason_or_all(world: World) -> None:
    for wrong in (["replay"], ["replay", "pc_1", "--all"], ["replay", "--reason", "mood"]):
        with pytest.raises(SystemExit):
            main(wrong, world.services)


# ---------------------------------------------------------------- the list


def test_a_deal_with_several_problems_shows_each_under_its_reason(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    record_id = world.opportunity(solutions=None, account=world.desk.create_account(country="Germany"))
    world.settle()

    main(["failures"], world.services)

    missing, unknown = capsys.readouterr().out.split("The other side knows no such value [no-counterpart]: 1\n")
    assert f"{world.label('solutions')}: is empty" in missing
    assert f"record: {world.desk.opportunity} {record_id}" in missing
    assert "Germany" not in missing
    assert f"{world.label('customer_country')}: the CRM holds “GERMANY”, which has no counterpart" in unknown
    assert "accepted: two-letter country codes" in unknown


@only("dynamics365", why=WHATEVER_THE_CRM)
def test_the_list_for_machines_has_a_document_a_line(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    named = world.opportunity()
    world.settle()
    world.advance(60)
    world.desk.edit(named, solutions=None)
    world.opportunity(account=world.desk.create_account(country="Germany"))
    world.settle()

    main(["failures", "--json", "--reason", "missing"], world.services)

    (line,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (line["deal"], line["name"]) == (world.link_of(named).deal, "Contoso - data platform")
    assert line["record"] == {"table": world.desk.opportunity, "id": named}
    assert line["referral_id"] == world.referral_of(named)["id"]
    assert [(each["reason"], each["label"]) for each in line["problems"]] == [("missing", world.label("solutions"))]


@only("dynamics365", why=WHATEVER_THE_CRM)
def test_only_deals_of_a_reason_are_replayed(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.opportunity(solutions=None)
    other = world.opportunity(account=world.desk.create_account(country="Germany"))
    world.settle()

    assert main(["replay", "--reason", "no-counterpart"], world.services) == 0

    assert capsys.readouterr().out == f"1 deal will be looked at again.\n  {world.link_of(other).deal}\n"
    assert world.queue.length() == 1


@only("dynamics365", why=WHATEVER_THE_CRM)
def test_many_are_replayed_one_after_the_other(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    many = 3 * LOOKS_PER_S
    for number in range(many):
        world.opportunity(name=f"Deal {number}", solutions=None)
    world.settle()

    assert main(["replay", "--all"], world.services) == 0

    assert capsys.readouterr().out.startswith(f"{many} deals will be looked at again within 3 s.")
    at_once = world.queue.receive(60)
    assert len(at_once) == LOOKS_PER_S
    world.advance(3)
    assert len(world.queue.receive(60)) == many - len(at_once)


@only("dynamics365", why=WHATEVER_THE_CRM)
def test_who_stops_reading_along_gets_no_traceback(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(sys, "stdout", os.fdopen(writer, "w"))

    assert main(["failures"], world.services) == 1


@only("dynamics365", why=WHATEVER_THE_CRM)
def test_a_row_that_a_dead_run_left_behind_goes_with_a_replay(world: World) -> None:
    """It died after the row was stored and before the link said so; the deal was mended before the next run."""
    record_id = world.opportunity()
    world.settle()
    world.services.failures.put(world.link_of(record_id).deal, Problem("", "was wrong", "Mend it", "refused"))

    main(["replay", "--all"], world.services)
    world.settle()

    assert world.services.failures.list() == ()


# ---------------------------------------------------------------- which deal


def test_a_deal_is_named_by_its_key_its_referrals_or_its_record(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    record_id = world.opportunity(**HELP)
    world.settle()
    link = world.link_of(record_id)
    names = [
        link.deal,
        f"pc_{link.referral_id}",
        link.referral_id.upper(),
        link.microsoft_referral_id,
        link.engagement_id,
        f"opportunity:{record_id}",
        record_id,
    ]

    assert main(["replay", *names], world.services) == 0

    assert capsys.readouterr().out == f"1 deal will be looked at again.\n  {link.deal}\n"


# ---------------------------------------------------------------- what happened


def test_the_story_of_a_deal_is_told_from_the_beginning(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explain, "PAGE", 2)
    record_id = world.opportunity()
    world.settle()
    world.advance(600)
    own = world.referral_of(record_id)
    world.people.partner_edits(own["id"], {"/details/notes": "Theirs."})
    world.settle()
    world.advance(600)
    world.pc.faults.add("status", method="PATCH", times=99, status=400, body=REFUSAL)
    world.desk.edit(record_id, notes="Refused.")
    world.settle()

    assert main(["explain", record_id], world.services) == 0

    head, created, theirs, refused = capsys.readouterr().out.split("\n\n")
    notes, answer = world.label("notes"), next(entry for entry in world.story(record_id) if entry.phase == "failed")
    assert answer.request_id
    assert f"referral: {own['id']}, engagement {own['engagementId']}" in head
    assert "waits for a person since 2026-11-02 09:20 UTC:" in head
    assert created.startswith("2026-11-02 09:00:00 UTC  the CRM said that it changed, correlation id ")
    assert f"Partner Center: create referral, done, version {world.story(record_id)[1].version_after}" in created
    assert f"    {notes}: “Migration assessment done.”" in created
    assert theirs.startswith("2026-11-02 09:10:00 UTC  Partner Center said that it changed (referral-updated), ")
    assert f"    {notes}: “Migration assessment done.” → “Theirs.”" in theirs
    assert f"Partner Center: update referral, failed\n    {notes}: “Theirs.” → “Refused.”" in refused
    assert f"answered (request id {answer.request_id}): Partner Center answered 400" in refused

    main(["explain", record_id, "--json"], world.services)
    deal, *entries = map(json.loads, capsys.readouterr().out.splitlines())
    assert (deal["state"], deal["problems"][0]["reason"]) == ("failed", "refused")
    assert [entry["phase"] for entry in entries] == [entry.phase for entry in world.story(record_id)]


@only("dynamics365", why=WHATEVER_THE_CRM)
def test_without_the_settings_of_the_crm_the_story_has_names_for_labels(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    record_id = world.opportunity()
    world.settle()
    world.advance(60)
    world.desk.edit(record_id, notes="Ours.")
    world.settle()
    del world.settings["CRM"]
    world.restart()

    assert main(["explain", record_id], world.services) == 0

    assert "    notes: “Migration assessment done.” → “Ours.”" in capsys.readouterr().out


@only("dynamics365", why=WHATEVER_THE_CRM)
def test_what_a_dead_run_began_is_told_as_unfinished(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    record_id = world.opportunity()
    world.settle()
    world.advance(60)
    world.desk.edit(record_id, notes="Ours.")

    def die_in_patch(moment: str) -> None:
        if moment.startswith("PATCH"):
            raise ProcessDied(moment)

    with monkeypatch.context() as deadly:
        deadly.setattr(world.fuse, "moment", die_in_patch)
        with pytest.raises(ProcessDied):
            main(["sync", record_id], world.services)

    main(["explain", record_id], world.services)

    assert "Partner Center: update referral, no outcome was recorded" in capsys.readouterr().out


# ---------------------------------------------------------------- here and now


@only("dynamics365", why=WHATEVER_THE_CRM)
def test_a_deal_that_another_run_holds_is_left_to_it(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    record_id = world.opportunity()
    world.settle()
    world.services.deals.claim(world.link_of(record_id).deal, sides=ALL_SIDES)

    assert main(["sync", record_id], world.services) == 0

    assert "Another run works on the deal just now" in capsys.readouterr().out
    assert world.link_of(record_id).look_again == ALL_SIDES


@only("dynamics365", why=WHATEVER_THE_CRM)
def test_a_deal_that_cannot_be_looked_at_now_is_left_to_the_workers(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    record_id = world.opportunity()
    world.settle()
    world.advance(60)
    world.desk.edit(record_id, notes="Later.")
    world.pc.faults.add("throttle", times=99, retry_after_s=240)

    assert main(["sync", record_id], world.services) == 1

    assert "The workers try again in 240 s." in capsys.readouterr().out
    world.pc.faults.clear()
    world.advance(245)
    world.settle(poll=False)
    assert world.referral_of(record_id)["details"]["notes"] == "Later."


def test_what_there_is_not_is_no_deal_and_becomes_no_failure(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    unshared = world.opportunity(sync_flag=False)
    nowhere = "00000000-0000-0000-0000-000000000001"

    assert main(["sync", nowhere], world.services) == 1
    assert main(["sync", f"opportunity:{unshared}"], world.services) == 1

    said = capsys.readouterr().err
    assert f"No deal is known as '{nowhere}'" in said
    assert f"{unshared} is not to be synchronized" in said
    assert world.services.failures.list() == ()


def test_microsofts_deal_is_brought_in_before_anybody_heard_of_it(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    deal = world.people.microsoft_creates_deal(INTENT)

    assert main(["sync", deal["id"]], world.services) == 0

    assert "Written; both sides agree now." in capsys.readouterr().out
    assert world.record_of(deal["id"])["sync_status"].startswith("✓")

"""What Deals promises: one holder at a time, no mark lost, link and story changed together, and what that costs."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from shared.errors import ClaimLost, Refused
from shared.model import Absence, Intent, Link, RecordRef, Side, Stopped, Written
from shared.store.audit import AuditEntry
from shared.store.deals import CLAIM_S, Deals, deal_of_record, deal_of_referral
from tests.contract.stores import AzuriteStore, Store, VirtualClock

PARTNER_CENTER: frozenset[Side] = frozenset({"partner_center"})
MICROSOFT: frozenset[Side] = frozenset({"microsoft"})
CRM: frozenset[Side] = frozenset({"crm"})
NONE: frozenset[Side] = frozenset()


@pytest.fixture
def deals(store: Store, clock: VirtualClock) -> Deals:
    return Deals(store.table("Deals"), store.table("Index"), clock)


@pytest.fixture
def deal() -> str:
    return deal_of_referral(str(uuid4()))


def entry(clock: VirtualClock, **values: Any) -> AuditEntry:
    return AuditEntry(at_utc=clock(), phase="done", cause="poll", correlation_id="c", **values)


def claimed(deals: Deals, deal: str | Link, sides: frozenset[Side] = NONE) -> Link:
    link = deals.claim(deal, sides=sides)
    assert link is not None
    return link


def settled(deals: Deals, deal: str) -> Link:
    """Return the link of a deal that exists and that nobody holds."""
    assert deals.release(claimed(deals, deal)) == NONE
    link = deals.load(deal)
    assert link is not None
    return link


# What is stored


def test_a_deal_nobody_claimed_has_no_link(deals: Deals, deal: str) -> None:
    assert deals.load(deal) is None
    assert deals.story(deal).entries == ()


def test_everything_in_a_link_comes_back(deals: Deals, deal: str, clock: VirtualClock) -> None:
    link = claimed(deals, deal)
    link.state = "failed"
    link.record = RecordRef("opportunity", "006ABC000000001AAA")
    link.referral_id, link.microsoft_referral_id, link.engagement_id = "r1", "r2", "e1"
    link.referral_etag, link.referral_updated = 'W/"1"', "2026-11-20T10:00:00.1234567Z"
    link.microsoft_updated, link.record_version = "2026-11-20T10:00:00.7654321Z", 'W/"4711"'
    link.base = {"name": ["Zoë & 微软 😀", "Zoë"], "amount": ["12.50", None], "solutions": [[{"id": 1}], ["a", "b"]]}
    link.failure, link.audit_text = "no right\nask", "2026-11-20 ✓ " + "long " * 9_000
    link.intent = Intent("invite_microsoft", datetime(2026, 11, 20, 9, tzinfo=UTC))
    link.absent = Absence("partner_center", datetime(2026, 11, 20, 9, tzinfo=UTC))
    link.written = [Written("crm", datetime(2026, 11, 20, 9, tzinfo=UTC), {"name": "0a1b"})]
    link.stopped = {"name": Stopped("crm", "there", None), "": Stopped("partner_center")}
    deals.save(link)

    loaded = deals.load(deal)

    assert loaded is not None
    assert replace(loaded, held=True) == link  # a loaded link is nobody's to save
    assert loaded.claim_until_utc is not None
    assert (loaded.claim_until_utc - clock()).total_seconds() == CLAIM_S


def test_a_link_is_read_that_was_stored_before_these_columns_existed(store: Store, deals: Deals, deal: str) -> None:
    link = claimed(deals, deal)
    link.state = "tombstone"
    deals.release(link)
    table = store.table("Deals")
    row = table.get(deal, "link")
    assert row
    new = ("absent", "written", "stopped")
    table.replace(replace(row, columns={n: v for n, v in row.columns.items() if not n.startswith(new)}))

    loaded = deals.load(deal)

    assert loaded
    assert loaded.gone == "crm"
    assert (loaded.absent, loaded.written, loaded.stopped) == (None, [], {})


def test_a_base_far_longer_than_one_value_may_be_comes_back(deals: Deals, deal: str) -> None:
    link = claimed(deals, deal)
    link.base = {"notes": ['😀 äöü \\ " \n' * 2_000, "x" * 90_000]}

    deals.save(link)

    assert deals.load(deal).base == link.base


def test_a_link_too_large_for_one_row_is_refused_and_nothing_is_stored(deals: Deals, deal: str, clock: Any) -> None:
    link = claimed(deals, deal)
    link.base = {"notes": ["x" * 300_000, "y" * 300_000]}

    with pytest.raises(Refused, match=deal):
        deals.save(link, [entry(clock)])

    assert deals.load(deal).base == {}
    assert deals.story(deal).entries == ()


# What it costs


def test_each_step_on_a_known_deal_is_one_request(store: Store, deals: Deals, deal: str, clock: VirtualClock) -> None:
    deals.release(claimed(deals, deal), [entry(clock)])  # the first of its day costs one more
    cost: dict[str, int] = {}

    def counted(step: str, result: Any) -> Any:
        cost[step] = len(store.requests) - sum(cost.values()) - before
        return result

    before = len(store.requests)
    loaded = counted("load", deals.load(deal))
    link = counted("claim", deals.claim(loaded, sides=CRM))
    counted("save", deals.save(link, [entry(clock), entry(clock)]))
    counted("release", deals.release(link, [entry(clock)]))
    counted("claim again", deals.claim(link, sides=CRM))
    counted("find", deals.find(referral_id="unknown"))

    assert cost == {"load": 1, "claim": 1, "save": 1, "release": 1, "claim again": 1, "find": 1}


def test_a_new_deal_is_claimed_by_one_read_and_one_insert(store: Store, deals: Deals, deal: str) -> None:
    settled(deals, "pc_other")
    before = len(store.requests)

    link = claimed(deals, deal)

    assert len(store.requests) == before + 2
    assert (link.deal, link.state) == (deal, "new")


def test_a_mark_that_is_there_already_costs_nothing_more(store: Store, deals: Deals, deal: str) -> None:
    claimed(deals, deal)
    assert deals.claim(deal, sides=CRM) is None
    loaded = deals.load(deal)
    before = len(store.requests)

    assert deals.claim(loaded, sides=CRM) is None

    assert len(store.requests) == before


# Who holds it


def test_of_many_claimers_one_wins_and_every_others_side_is_marked(deals: Deals, deal: str) -> None:
    sides = [PARTNER_CENTER, MICROSOFT, CRM, PARTNER_CENTER, MICROSOFT, CRM]
    won: list[tuple[int, Link]] = []
    together = threading.Barrier(len(sides))

    def work(number: int) -> None:
        together.wait(10)
        if link := deals.claim(deal, sides=sides[number]):
            won.append((number, link))

    in_threads(work, len(sides))

    ((winner, link),) = won
    marked = frozenset().union(*(side for number, side in enumerate(sides) if number != winner))
    assert deals.release(link) == marked
    assert deals.release(link) == NONE


def test_a_loaded_link_that_is_free_again_is_claimed_although_it_shows_a_holder(deals: Deals, deal: str) -> None:
    holder = claimed(deals, deal)
    loaded = deals.load(deal)
    holder.failure = "newer"
    deals.release(holder)

    link = deals.claim(loaded, sides=CRM)

    assert link is not None
    assert link.failure == "newer"


def test_a_loaded_link_that_has_changed_since_is_read_anew(deals: Deals, deal: str) -> None:
    loaded = settled(deals, deal)
    other = claimed(deals, deal)
    other.base = {"name": ["new", "new"]}
    deals.release(other)

    link = claimed(deals, loaded)

    assert link.base == {"name": ["new", "new"]}


def test_a_loaded_link_that_another_took_meanwhile_is_marked(deals: Deals, deal: str) -> None:
    loaded = settled(deals, deal)
    other = claimed(deals, deal)

    assert deals.claim(loaded, sides=CRM) is None

    assert deals.release(other) == CRM


def test_a_claim_expires_unless_it_is_renewed_by_a_save(deals: Deals, deal: str, clock: VirtualClock) -> None:
    link = claimed(deals, deal)
    clock.advance(CLAIM_S - 1)
    deals.save(link)
    clock.advance(CLAIM_S - 1)
    assert deals.claim(deal, sides=NONE) is None

    clock.advance(1)

    assert deals.claim(deal, sides=NONE) is not None


def test_a_holder_that_wakes_up_late_can_save_nothing(deals: Deals, deal: str, clock: VirtualClock) -> None:
    late = claimed(deals, deal)
    clock.advance(CLAIM_S)
    holder = claimed(deals, deal)
    late.failure = "from the past"

    for ending in (deals.save, deals.release):
        with pytest.raises(ClaimLost, match=deal):
            ending(late, [entry(clock, operation="late")])
    deals.save(holder, [entry(clock, operation="holder")])

    story = deals.story(deal)
    assert story.link.failure == ""
    assert [each.operation for each in story.entries] == ["holder"]


def test_a_holder_whose_claim_expired_may_go_on_while_nobody_else_came(
    deals: Deals, deal: str, clock: VirtualClock
) -> None:
    link = claimed(deals, deal)
    clock.advance(CLAIM_S * 2)

    deals.save(link)

    assert deals.claim(deal, sides=NONE) is None
    assert deals.release(link) == NONE


def test_a_link_that_was_only_loaded_or_made_by_hand_cannot_be_saved(deals: Deals, deal: str) -> None:
    holder = claimed(deals, deal)

    for link in (deals.load(deal), Link(deal)):
        with pytest.raises(ClaimLost, match="claim it"):
            deals.save(link)

    deals.save(holder)


def test_after_letting_go_nothing_more_can_be_saved(deals: Deals, deal: str) -> None:
    link = claimed(deals, deal)
    deals.release(link)

    with pytest.raises(ClaimLost):
        deals.save(link)


# Marks


def test_marks_survive_the_holders_saves_and_keep_it_from_letting_go(
    deals: Deals, deal: str, clock: VirtualClock
) -> None:
    link = claimed(deals, deal)
    assert deals.claim(deal, sides=CRM) is None
    deals.save(link, [entry(clock, operation="first")])
    assert deals.claim(deal, sides=MICROSOFT) is None
    deals.save(link, [entry(clock, operation="second")])

    assert deals.release(link, [entry(clock, operation="third")]) == CRM | MICROSOFT
    assert deals.claim(deal, sides=NONE) is None
    assert link.look_again == CRM | MICROSOFT
    assert deals.release(link) == NONE

    assert [each.operation for each in deals.story(deal).entries] == ["third", "second", "first"]
    assert deals.load(deal).look_again == NONE


def test_a_side_that_is_being_looked_at_again_is_marked_again(deals: Deals, deal: str) -> None:
    link = claimed(deals, deal)
    deals.claim(deal, sides=CRM)
    assert deals.release(link) == CRM

    assert deals.claim(deal, sides=CRM) is None

    assert deals.release(link) == CRM
    assert deals.release(link) == NONE


def test_the_marks_of_a_holder_that_crashed_are_handed_on(deals: Deals, deal: str, clock: VirtualClock) -> None:
    crashing = claimed(deals, deal)
    deals.claim(deal, sides=CRM)
    assert deals.release(crashing) == CRM
    deals.claim(deal, sides=MICROSOFT)
    clock.advance(CLAIM_S)

    second = claimed(deals, deal)
    clock.advance(CLAIM_S)
    third = claimed(deals, deals.load(deal))

    assert second.look_again == CRM | MICROSOFT
    assert third.look_again == CRM | MICROSOFT
    assert deals.release(third) == NONE
    assert claimed(deals, deal).look_again == NONE


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("claim"), st.integers(0, 2), st.sampled_from([PARTNER_CENTER, MICROSOFT, CRM])),
        st.tuples(st.just("claim loaded"), st.integers(0, 2), st.sampled_from([PARTNER_CENTER, MICROSOFT, CRM])),
        st.tuples(st.sampled_from(["load", "save", "release", "crash"]), st.integers(0, 2), st.just(NONE)),
        st.tuples(st.just("wait"), st.just(0), st.just(NONE)),
    ),
    max_size=30,
)


@hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(actions=ACTIONS)
def test_whatever_three_runs_do_no_mark_is_lost_and_no_two_hold_the_deal(
    store: Store, actions: list[tuple[str, int, frozenset[Side]]]
) -> None:
    clock, deal = VirtualClock(), f"pc_{uuid4()}"
    deals = Deals(store.table("Deals"), store.table("Index"), clock)
    loaded: dict[int, Link | None] = {}
    holding: dict[int, Link] = {}
    arrived: frozenset[Side] = NONE  # marks that no holder knows of yet
    taken: frozenset[Side] = NONE  # marks that a holder knows of and has not worked off

    for action, run, sides in actions:
        if action == "wait":
            clock.advance(CLAIM_S)
        elif action == "load":
            loaded[run] = deals.load(deal)
        elif action == "crash":
            holding.pop(run, None)
        elif action.startswith("claim") and run not in holding:
            link = deals.claim((loaded.get(run) if action == "claim loaded" else None) or deal, sides=sides)
            if link is None:
                arrived |= sides
            else:
                taken, arrived = taken | arrived, NONE
                assert link.look_again == taken
                holding[run] = link
        elif action in ("save", "release") and run in holding:
            try:
                if action == "save":
                    deals.save(holding[run])
                    continue
                again = deals.release(holding[run])
            except ClaimLost:
                del holding[run]
                continue
            assert again == arrived
            taken, arrived = arrived, NONE
            if not again:
                del holding[run]

    saved = 0
    for link in holding.values():
        try:
            deals.save(link)
            saved += 1
        except ClaimLost:
            continue
    clock.advance(CLAIM_S)
    assert saved <= 1
    assert claimed(deals, deal).look_again == taken | arrived


def test_runs_racing_in_threads_leave_the_last_change_in_the_link(store: Store) -> None:
    deal = f"pc_{uuid4()}"
    remote, inside, worked = {"value": 0}, threading.Semaphore(1), Counter[str]()

    def work(number: int) -> None:
        deals = Deals(store.table("Deals"), store.table("Index"), lambda: datetime.now(UTC))
        for _ in range(10):
            with changing:
                remote["value"] += 1
            link = deals.claim(deal, sides=CRM)
            while link:
                assert inside.acquire(blocking=False), "two runs hold the deal at once"
                seen = remote["value"]
                link.base = {"value": [seen, seen]}
                deals.save(link, [])
                worked["rounds"] += 1
                inside.release()
                if not deals.release(link):
                    break

    changing = threading.Lock()
    in_threads(work, 5)

    link = Deals(store.table("Deals"), store.table("Index"), lambda: datetime.now(UTC)).load(deal)
    assert link.base == {"value": [50, 50]}
    assert (link.claim, link.look_again) == ("", NONE)
    assert worked["rounds"] <= 51


# Lost answers


def test_a_lost_answer_repeats_nothing(storage_connection: str, deal: str, clock: VirtualClock) -> None:
    store = AzuriteStore(storage_connection)
    deals = Deals(store.table("Deals"), store.table("Index"), clock)
    settled(deals, "pc_other")
    store.lose_answers(2)  # of the read and of the insert
    link = claimed(deals, deal)
    store.lose_answers(1)
    deals.save(link, [entry(clock, operation="first"), entry(clock, operation="second")])
    store.lose_answers(1)
    assert deals.release(link, [entry(clock, operation="third")]) == NONE
    store.lose_answers(1)
    again = claimed(deals, link)
    deals.save(again, [entry(clock, operation="fourth")])

    operations = [each.operation for each in deals.story(deal).entries]

    assert operations == ["fourth", "third", "second", "first"]


def test_a_mark_that_comes_right_after_a_save_without_an_answer_is_kept(
    store: Store, deals: Deals, deal: str, clock: VirtualClock
) -> None:
    link = claimed(deals, deal)
    deals.save(link)
    before = replace(link)
    deals.save(link, [entry(clock, operation="once")])
    assert deals.claim(deal, sides=CRM) is None

    deals.save(before, [entry(clock, operation="once")])  # as the run does that never learned of its success

    assert [each.operation for each in deals.story(deal).entries] == ["once"]
    assert deals.release(before) == CRM


# The index


def test_a_deal_is_found_by_each_of_its_ids(deals: Deals, deal: str) -> None:
    link = claimed(deals, deal)
    link.referral_id, link.microsoft_referral_id, link.engagement_id = "r1", "r2", "e1"
    link.record = RecordRef("opportunity", "o1")

    deals.point(link)

    assert deals.find(referral_id="r1") == deal
    assert deals.find(referral_id="r2") == deal
    assert deals.find(engagement_id="e1") == deal
    assert deals.find(record=RecordRef("opportunity", "o1")) == deal
    assert deals.find(record=RecordRef("lead", "o1")) is None
    assert deals.find(referral_id="e1") is None


def test_pointing_costs_a_write_per_new_id_and_nothing_for_known_ones(store: Store, deals: Deals, deal: str) -> None:
    link = claimed(deals, deal)
    link.referral_id, link.engagement_id, link.record = "r1", "e1", RecordRef("opportunity", "o1")
    deals.point(link)
    deals.release(link)
    link = claimed(deals, deal)
    before = len(store.requests)

    deals.point(link)
    known = len(store.requests) - before
    link.microsoft_referral_id = "r2"
    deals.point(link)

    assert known == 0
    assert len(store.requests) - before == 1


def test_pointing_that_was_not_saved_is_done_again(deals: Deals, store: Store, deal: str, clock: VirtualClock) -> None:
    crashing = claimed(deals, deal)
    crashing.referral_id = "r1"
    deals.save(crashing)
    deals.point(crashing)
    clock.advance(CLAIM_S)
    link = claimed(deals, deal)
    before = len(store.requests)

    deals.point(link)

    assert len(store.requests) == before + 1


def test_a_guid_is_the_same_in_either_case_and_a_salesforce_id_is_not(deals: Deals) -> None:
    guid = "0A1B2C3D-0000-4000-8000-00000000ABCD"
    assert deal_of_referral(guid) == deal_of_referral(guid.lower())
    assert deal_of_record(RecordRef("Opportunity", "006Aa")) != deal_of_record(RecordRef("Opportunity", "006AA"))

    link = claimed(deals, deal_of_referral(guid))
    link.referral_id = guid
    deals.point(link)

    assert deals.find(referral_id=guid.lower()) == link.deal


def test_finding_needs_exactly_one_id(deals: Deals) -> None:
    for ids in ({}, {"referral_id": "r", "engagement_id": "e"}, {"referral_id": ""}):
        with pytest.raises(ValueError, match="one referral_id, one record or one engagement_id"):
            deals.find(**ids)


# The story


def test_a_story_is_told_newest_first_page_by_page(deals: Deals, deal: str, clock: VirtualClock) -> None:
    link = claimed(deals, deal)
    for number in range(60):
        deals.save(link, [entry(clock, operation=f"{number} a"), entry(clock, operation=f"{number} b")])
        if number % 2:
            clock.advance(0.000001)
    told: list[str] = []
    after: str | None = None
    pages = 0

    while pages == 0 or after:
        story = deals.story(deal, limit=50, after=after)
        told += [each.operation for each in story.entries]
        after, pages = story.more, pages + 1

    assert told == [f"{number} {half}" for number in reversed(range(60)) for half in "ba"]
    assert pages == 3


def test_an_audit_entry_comes_back_as_it_was_written(deals: Deals, deal: str, clock: VirtualClock) -> None:
    link = claimed(deals, deal)
    full = AuditEntry(
        at_utc=clock(),
        phase="failed",
        cause="webhook",
        correlation_id=str(uuid4()),
        event="referral-updated",
        side="crm",
        operation="update",
        fields={"name": ["Zoë 😀", None], "notes": ["x" * 70_000, [{"a": 1}]]},
        notes=("amount: both moved; Partner Center wins over 12.50",),
        message="half a pair \ud83d and \x00 control",
        request_id="r",
        version_before='W/"1"',
        version_after='W/"2"',
    )

    deals.save(link, [full])

    assert deals.story(deal).entries == (full,)


def in_threads(work: Any, count: int) -> None:
    failed: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert failed == []

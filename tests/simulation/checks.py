"""What must hold while a story is told, and what when everything is healed and the product had its time.

The oracle is the people's ledger and what both systems hold, not the product's own idea of agreement.
Names as in the literature: safety is checked at every step, convergence at rest (https://jepsen.io/consistency).
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from shared.decide import FIRST_CONTACT, decide
from shared.messages import SyncRequest
from shared.model import ALL_SIDES, Link, RecordRef
from shared.view import View
from tests.simulation.books import audit_tells_of_every_write
from tests.simulation.broken import Broken
from tests.simulation.people import FIELDS, Deal, Row, details_of, token

if TYPE_CHECKING:
    from tests.simulation.story import Story

IDLE_CYCLES = 1
THOROUGH_CYCLES = 20


# ---------------------------------------------------------------- at every step


def at_every_step(story: Story) -> None:
    if story.cloud.broken:
        raise story.cloud.broken[0]
    one_referral_per_record(story)


def one_referral_per_record(story: Story) -> None:
    """A record has one referral, and an engagement one copy of Microsoft's."""
    of_people = {deal.referral_id for deal in story.people.deals}
    if _has_zombies(story):
        return  # see at rest
    # One that was created and hidden before anybody looked is created anew; when it is shown again, see at rest.
    of_hidden = {deal.record_id for deal in story.people.deals if deal.was_hidden}
    ours = Counter(row["externalReferenceId"] for row in story.cloud.referrals() if row["id"] not in of_people)
    for record in of_hidden:
        del ours[record]
    if several := [record for record, times in ours.items() if times > 1]:
        raise Broken("I3", f"record {several[0]} has {ours[several[0]]} referrals")
    microsofts = Counter(r["engagementId"] for r in story.cloud.pc.referrals.values() if r["organizationId"] == "msft")
    if several := [engagement for engagement, times in microsofts.items() if times > 1]:
        raise Broken("I3", f"engagement {several[0]} has {microsofts[several[0]]} copies of Microsoft's")


# ---------------------------------------------------------------- at rest


def at_rest(story: Story, *, thorough: bool) -> None:
    at_every_step(story)
    _drained(story)
    failures_say_what_to_do(story)
    one_record_per_referral(story)
    _a_referral_too_many_is_shown(story)
    for deal in story.people.deals:
        deal_agrees(story, deal, one_at_a_time=True, looked_at_again=True)
    if not _has_zombies(story):
        audit_tells_of_every_write(story.cloud, _vanished(story))
    _writes_are_bounded(story)
    _nothing_more_to_write(story, THOROUGH_CYCLES if thorough else IDLE_CYCLES)


def before_the_full_sweep(story: Story) -> None:
    """Events, polls and sweeps bring all deals into agreement: the full sweep proves it, and must not be needed for it.

    But for a referral that was not there for a while: that it is there again, no other feed tells.
    """
    for deal in story.people.deals:
        if not deal.was_hidden:
            deal_agrees(story, deal, one_at_a_time=True)


def _drained(story: Story) -> None:
    if waiting := story.cloud.storage.length():
        raise Broken("L2", f"{waiting} messages are left in the queue")


def one_record_per_referral(story: Story) -> None:
    cloud, people = story.cloud, story.people
    made_by_people = {deal.record_id for deal in people.deals}
    for kind, rows in (("opportunity", cloud.desk.opportunities()), ("lead", cloud.desk.leads())):
        carried = Counter(row["referral_id"] for row in rows if row["referral_id"])
        if several := [referral for referral, times in carried.items() if times > 1]:
            raise Broken("I3", f"referral {several[0]} has {carried[several[0]]} records of kind {kind}")
        born_there = {deal.referral_id for deal in people.deals if deal.born != "crm"}
        for row in rows:
            if row["id"] not in made_by_people and row["referral_id"] not in born_there:
                raise Broken(
                    "I3", f"nobody made {kind} {row['id']}, which carries {row['referral_id'] or 'no referral'}"
                )
    customers = Counter(row["name"] for row in cloud.desk.accounts())
    if several := [name for name, times in customers.items() if times > 1]:
        raise Broken("I3", f"customer {several[0]} has {customers[several[0]]} accounts")


def _a_referral_too_many_is_shown(story: Story) -> None:
    """What was made twice, by a run that woke up too late or because the first was hidden, is among the failures, and
    nothing is made of it."""
    if not (_has_zombies(story) or any(deal.was_hidden for deal in story.people.deals)):
        return
    waiting = {failure.deal for failure in story.cloud.services.failures.list()}
    of_people = {deal.referral_id for deal in story.people.deals}
    deleted = {deal.record_id for deal in story.people.deals if deal.deleted}
    for row in story.cloud.referrals():
        if row["externalReferenceId"] in deleted:
            continue  # the referral of a deleted record stays as it is
        deal = story.cloud.services.deals.find(referral_id=row["id"])
        link = story.cloud.services.deals.load(deal) if deal else None
        linked = link and link.referral_id == row["id"]
        if row["id"] not in of_people and row["status"] != "Closed" and not linked and f"pc_{row['id']}" not in waiting:
            raise Broken("I3", f"referral {row['id']} is one too many, and nobody is told")


def _link(story: Story, deal: Deal) -> Link | None:
    deals = story.cloud.services.deals
    if deal.referral_id:
        key = deals.find(referral_id=deal.referral_id)
    else:
        key = deals.find(record=RecordRef(story.cloud.desk.opportunity, deal.record_id))
    return deals.load(key) if key else None


def deal_agrees(story: Story, deal: Deal, *, one_at_a_time: bool = False, looked_at_again: bool = False) -> None:
    """`one_at_a_time`: nothing happened while somebody entered a value, so it is known what they entered it over.

    `looked_at_again`: the product is made to look at the deal after this, which shows whether it would write.
    """
    people = story.people
    if deal.hidden:
        return  # one side is gone
    own, record, lead, link = people.referral(deal), people.opportunity(deal), people.lead(deal), _link(story, deal)
    # A run that froze longer than its message waits may leave a claim that no message comes back for. It expires.
    claimed = link and link.claim and not story.cloud.injected["a run wakes up after its message came back"]
    # A run that died before it had done anything leaves one on a deal that is none.
    is_none = link and link.state == "new" and not (link.referral_id or link.intent)
    if link and not is_none and (link.intent or claimed or link.look_again):
        raise Broken("L2", f"{deal} is unfinished: intent {link.intent}, claim {link.claim!r}, marks {link.look_again}")
    if own and record:
        _nothing_is_invented(deal, own, record)
    if link and link.failure:
        _shows_its_failure(story, deal, link)
        return
    if deal.deleted:
        if record and not deal.deleted_unknown and not _has_zombies(story):
            raise Broken("I9", f"{deal} was deleted, and is there again")
        return
    if record is None:
        _has_no_record(deal, own, lead)
        return
    if (
        deal.born == "lead"
        and own
        and own["status"] == "Closed"
        and (link is None or link.record != _ref(story, record))
    ):
        return  # somebody made an opportunity of a lead whose referral was closed: a deal of its own
    if own is None:
        if record["sync_flag"] and record["state"] in ("open", "on_hold"):
            raise Broken("L1", f"{deal} is shared by its seller and has no referral")
        return
    if not record["sync_flag"]:
        if one_at_a_time:
            _nothing_is_carried_over(deal, own, record)
        return
    _fields_agree(story, deal, own, record, link, one_at_a_time=one_at_a_time)
    _states_agree(story, deal, own, record, link)
    if link is None:
        raise Broken("L1", f"nothing knows {deal}")
    if not looked_at_again:
        _product_agrees(story, deal, link)


def _vanished(story: Story) -> Counter[str]:
    """What may have been created, and was gone before anybody looked: it counts as not created."""
    hidden = sum(deal.was_hidden for deal in story.people.deals)
    deleted = sum(deal.deleted_unknown for deal in story.people.deals)
    return Counter({"create referral": hidden, "invite Microsoft": hidden, "crm": 2 * deleted})


def _has_zombies(story: Story) -> bool:
    """A run that stood still in the middle of a create until another one took its deal over does it all the same when
    it wakes up: nothing on the other side can tell it from one that is quick. docs/architecture.md names this gap."""
    return bool(story.cloud.injected["a run writes after its message came back"])


def _ref(story: Story, record: Row) -> RecordRef:
    return RecordRef(story.cloud.desk.opportunity, record["id"])


def _has_no_record(deal: Deal, own: dict[str, Any] | None, lead: Row | None) -> None:
    if own is None or deal.born == "crm":
        return
    if deal.born == "lead" and own["status"] == "New" and lead is None:
        raise Broken("L1", f"{deal} waits for an answer and is no lead in the CRM")
    if own["status"] == "Active" or (deal.born == "deal" and own["status"] == "New"):
        raise Broken("L1", f"{deal} is open in Partner Center and not in the CRM")


def _shows_its_failure(story: Story, deal: Deal, link: Link) -> None:
    if link.deal not in {failure.deal for failure in story.cloud.services.failures.list()}:
        raise Broken("I7", f"{deal} failed and is not among the failures: {link.failure}")


def failures_say_what_to_do(story: Story) -> None:
    for failure in story.cloud.services.failures.list():
        if not all(problem.next_step for problem in failure.problems):
            raise Broken("I7", f"{failure.deal} failed without a next step: {failure.reason}")


def _nothing_is_invented(deal: Deal, own: dict[str, Any], record: Row) -> None:
    there = details_of(own)
    for name in FIELDS:
        entered = {edit.value for edit in deal.edits if edit.field == name}
        for where, values in (("the CRM", record), ("Partner Center", there)):
            if (value := token(name, values[name])) not in entered:
                raise Broken("I5", f"{name} of {deal} is {value!r} in {where}, which nobody entered")


def _fields_agree(
    story: Story, deal: Deal, own: dict[str, Any], record: Row, link: Link | None, *, one_at_a_time: bool
) -> None:
    there, told = details_of(own), _told(story, link)
    for name in FIELDS:
        here_now, there_now = token(name, record[name]), token(name, there[name])
        edits = [edit for edit in deal.edits if edit.field == name]
        if here_now != there_now and own["status"] != "Closed" and own["status"] != "New":
            raise Broken("L1", f"{name} of {deal} is {here_now!r} in the CRM and {there_now!r} in Partner Center")
        standing = deal.standing(name) if one_at_a_time else edits[-1:]
        for edit in standing:
            if edit.value not in (here_now, there_now, "") and not edit.taken_back and edit.value not in told:
                raise Broken("I4", f"{name} of {deal} was set to {edit.value!r} ({edit.side}), and is {here_now!r}")
        # Without a base, or when a run died in a write and somebody has changed the value since, nobody can tell which
        # of the two values is newer: then it is a conflict.
        is_first = deal.born != "crm" and FIRST_CONTACT in told
        is_known = not is_first and UNKNOWN not in told
        if one_at_a_time and here_now == there_now and is_known and here_now not in {edit.value for edit in standing}:
            raise Broken("I4", f"{name} of {deal} is {here_now!r} again, though others were entered over it")


def _nothing_is_carried_over(deal: Deal, own: dict[str, Any], record: Row) -> None:
    """The seller wants nothing written: what was entered since then stays where it was entered."""
    other = {"crm": details_of(own), "partner_center": record}
    for edit in deal.edits:
        since = deal.off_since and edit.at > deal.off_since
        if (
            since
            and edit.value
            and not edit.taken_back
            and token(edit.field, other[edit.side][edit.field]) == edit.value
        ):
            raise Broken(
                "I13", f"{edit.field} of {deal}, {edit.value!r} ({edit.side}), was carried over in spite of a No"
            )


def _told(story: Story, link: Link | None) -> str:
    """What the audit of a deal says of decisions: in words, and which value won over which."""
    if link is None:
        return ""
    entries = story.cloud.services.deals.story(link.deal, limit=500).entries
    return "\n".join(json.dumps([entry.phase, entry.notes, entry.decisions], default=str) for entry in entries)


UNKNOWN = json.dumps("unknown")


STATES = {
    ("New", "Pending"): {"on_hold", "open"},
    ("New", "Received"): {"on_hold", "open"},
    ("Active", "Accepted"): {"open", "on_hold"},
    ("Closed", "Won"): {"won"},
    ("Closed", "Lost"): {"lost"},
    ("Closed", "Declined"): {"lost"},
    ("Closed", "Expired"): {"lost"},
}


def _states_agree(story: Story, deal: Deal, own: dict[str, Any], record: Row, link: Link | None) -> None:
    accepted = STATES[own["status"], own["substatus"]]
    # What is closed in Partner Center is closed for good: a seller may go on all the same, and the audit says so.
    went_on = own["status"] == "Closed" and "for good" in _told(story, link)
    if record["state"] not in accepted and not went_on:
        there = f"{own['status']}/{own['substatus']}"
        raise Broken("L1", f"{deal} is {there} in Partner Center, {record['state']} in the CRM")


def _product_agrees(story: Story, deal: Deal, link: Link) -> None:
    view = View(story.cloud.services, link)
    view.read(ALL_SIDES)
    plan = decide(view.deal())
    if plan.writes:
        raise Broken("L1", f"{deal} is not in agreement: {plan.to_crm} {plan.to_partner_center}")


def _writes_are_bounded(story: Story) -> None:
    """One for what somebody did, and four for a deal's beginning: both referrals, and what the record then shows."""
    writes, acts, deals = story.cloud.writes(), story.acts, len(story.people.deals)
    if len(writes) > acts + 4 * deals:
        raise Broken("I6", f"{len(writes)} writes for {acts} acts of people and {deals} deals")


def _nothing_more_to_write(story: Story, cycles: int) -> None:
    cloud = story.cloud
    cloud.forget_calls()
    for deal in story.people.deals:
        link = _link(story, deal)
        if link and (link.referral_id or link.record) and not deal.hidden:
            record = link.record
            cloud.services.queue.send(
                SyncRequest(
                    cause="operator",
                    referral_id=link.referral_id or None,
                    record_table=record.table if record and not link.referral_id else None,
                    record_id=record.id if record and not link.referral_id else None,
                )
            )
    first = cloud.instances[0]
    for _ in range(cycles):
        cloud.advance(60)
        cloud.run_timer(first, "crm_poller")
        cloud.run_timer(first, "reconciler")
        cloud.deliver(first)
        while cloud.run_worker_on(first):
            pass
        if writes := cloud.writes():
            raise Broken("I6", f"all was in agreement, and another look wrote {writes}")

"""Brings one deal into agreement: find it, claim it, then read, decide and act until nothing is left to write.

Every source of change only says "look at this deal". Running twice writes nothing the second time; a crash at any point
leaves a state from which the next run converges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from shared.act import carry_out
from shared.breaker import WHOLE_DEAL, put_back, runs_away
from shared.decide import Plan, decide
from shared.errors import Forbidden, NotFound, NotVisible, Permanent, Retryable, Unavailable, VersionConflict
from shared.find import Nothing, find_deal
from shared.lifecycle import was_accepted
from shared.logs import log
from shared.messages import SyncRequest
from shared.model import ALL_SIDES, Absence, Link, Side, Stopped, ticks
from shared.recover import recover
from shared.store.deals import deal_of_record, deal_of_referral
from shared.view import View
from shared.work import Work
from shared.write_record import convert, create_record, report
from shared.write_referral import create_referral, settle_creates

if TYPE_CHECKING:
    from shared.services import Services

ROUNDS = 5
"""Times a deal is read and decided anew because somebody changed it meanwhile, before its message is put back."""

BUSY_S = 30

GONE = {
    "partner_center": "the referral is not in Partner Center any more",
    "crm": "the record was deleted in the CRM",
}


@dataclass(frozen=True)
class Outcome:
    """How a message ended. `deal` is "" when it is about none of ours; `why` in words."""

    result: Literal["coalesced", "busy", "ignored", "agreed", "written", "failed"]
    deal: str = ""
    why: str = ""


def sync_one(request: SyncRequest, services: Services, *, redelivered: bool = False) -> Outcome:
    """Look at the deal a message is about. Raises Retryable when the message has to come back later.

    `redelivered`: the message was handed out before and not finished, so a claim found on the deal may be a dead run's.
    """
    try:
        found = find_deal(request, services)
    except Permanent as refusal:
        return _unreadable(request, services, refusal)
    if isinstance(found, Nothing):
        if found.settled:
            services.failures.clear(found.settled)
        return Outcome("ignored", why=found.why)
    # Whoever holds the deal may be the dead run whose message this is: its claim and its marks would be nobody's.
    held = not redelivered and _is_held(found.link, services)
    known = found.link and not found.microsoft and _is_known(found.link, request, services, held=held)
    if found.link and known and not services.deals.is_claimed_for(found.link, request.correlation_id):
        return Outcome("coalesced", found.deal)
    if found.link and found.link.record and found.link.record.table not in services.field_map.tables:
        return Outcome("ignored", found.deal, f"the field map has no table {found.link.record.table} any more")
    unfinished = redelivered or request.deferrals > 0  # an earlier run of it may have left the record without a word
    if found.link and found.link.gone and not (unfinished or _may_be_back(found.link, request)):
        return Outcome("ignored", found.deal, GONE[found.link.gone])
    if found.link and found.link.record and request.record and request.record != found.link.record:
        return Outcome("ignored", found.deal, f"{request.record} was converted to {found.link.record}")
    sides: frozenset[Side] = _sides(found.link or Link(found.deal), request)
    if found.microsoft:
        sides |= {"microsoft"}
    link = services.deals.claim(
        found.link or found.deal, sides=sides, message=request.correlation_id, redelivered=redelivered
    )
    if link and not found.microsoft and _is_known(link, request, services):
        # Its holder finished between our read and our claim.
        marks = services.deals.release(link)
        if not marks:
            return Outcome("coalesced", link.deal)
        sides = marks
    if link is None:
        releases = request.cause == "operator" and bool(found.link and found.link.stopped)
        if redelivered or request.deferrals or releases:
            raise Retryable(f"deal {found.deal} is claimed, perhaps by a run that died", retry_after_s=BUSY_S)
        return Outcome("busy", found.deal, "its holder will look again")
    if request.cause == "operator":
        link.written, link.stopped = [], {}  # a person has looked at what put our values back
    return _finish(Work(services, request, View.of(services, link, found)), sides | link.look_again)


def _may_be_back(link: Link, request: SyncRequest) -> bool:
    """Whether a message is a reason to look if the side that was gone is there again."""
    if request.cause == "operator":
        return True
    if link.gone == "crm":
        return bool(request.record) and not request.deleted
    return not request.record and _side_of(link, request) == "partner_center"


def _is_held(link: Link | None, services: Services) -> bool:
    """Whether somebody works on the deal, who will also look at what others have marked."""
    return link is not None and link.claim_until_utc is not None and link.claim_until_utc > services.clock()


def _is_known(link: Link, request: SyncRequest, services: Services, *, held: bool = False) -> bool:
    """Whether the link already holds what the message reports. Only versions of the same system are compared.

    `held`: another run has the deal, and the marks on it are that one's to work off.
    """
    about: Side = "crm" if request.record else _side_of(link, request)
    unfinished = (
        link.intent
        or (link.look_again and not held)
        or link.unsettled == ALL_SIDES
        or services.field_map.has_changed_for(link)
        or (link.absent and request.deferrals > 0)
    )
    if request.version is None or request.cause == "operator" or unfinished:
        return False
    if request.record:
        return request.record == link.record and request.version == link.record_version
    updated = link.referral_updated if about == "partner_center" else link.microsoft_updated
    try:
        return bool(updated) and ticks(request.version) <= ticks(updated)
    except ValueError:
        return False


def _sides(link: Link, request: SyncRequest) -> frozenset[Side]:
    if request.cause == "operator":
        return ALL_SIDES
    sides: set[Side] = {"crm"} if request.record else {_side_of(link, request)}
    if link.absent and request.deferrals:
        sides.add(link.absent.side)  # what it came back for
    return frozenset(sides)


def _side_of(link: Link, request: SyncRequest) -> Side:
    """Whose referral an event is about. A related-... event is about Microsoft's, whichever of the two it names.

    https://learn.microsoft.com/partner-center/developer/partner-center-webhook-events
    """
    related = (request.event or "").startswith("related-")
    return "microsoft" if related or request.referral_id == link.microsoft_referral_id else "partner_center"


def _unreadable(request: SyncRequest, services: Services, refusal: Permanent) -> Outcome:
    """A referral or record that was never seen and may not be read: recorded, so that a person can find out why."""
    if (request.event or "").startswith("related-"):
        # Somebody else's copy in the engagement, which need not be ours to read.
        log.warning("sync.related_unreadable", extra={"referral": request.referral_id, "why": str(refusal)})
        return Outcome("ignored", why=str(refusal))
    return fail_deal(request, services, refusal)


def fail_deal(request: SyncRequest, services: Services, refusal: Permanent) -> Outcome:
    """Record on the deal a message names that it failed, without looking at either side."""
    deal = services.deals.find(referral_id=request.referral_id, record=request.record) or (
        deal_of_record(request.record) if request.record else deal_of_referral(request.referral_id or "")
    )
    link = services.deals.claim(deal, sides=ALL_SIDES)
    if link is None:
        return Outcome("busy", deal)
    work = Work(services, request, View(services, link))
    work.fail(refusal)
    return _finish(work, work.release())


def _finish(work: Work, sides: frozenset[Side]) -> Outcome:
    """Work on a claimed deal until nobody asks to look again."""
    try:
        while sides:
            _agree(work, sides)
            sides = work.release()
    except Exception as unfinished:
        # Whatever it is, the deal must not stay claimed: the message comes back before the claim would expire.
        work.abandon(unfinished)
        raise
    _look_for_microsofts_copy_again(work)
    return _outcome(work)


def _outcome(work: Work) -> Outcome:
    if work.problems:
        # The words can quote what people entered: they stand in the audit, not in the log.
        return Outcome("failed", work.link.deal, ", ".join(problem.label for problem in work.problems))
    return Outcome("written" if work.wrote else "agreed", work.link.deal)


def _agree(work: Work, sides: frozenset[Side]) -> None:
    """Read, decide, act; again from a fresh read when a conditional write met a newer version."""
    for _ in range(ROUNDS):
        try:
            _round(work, sides)
        except VersionConflict as conflict:
            work.conflicted(conflict)
            sides = frozenset({"crm"} if conflict.remote == work.services.crm.name else {"partner_center"})
        else:
            return
    raise Unavailable(f"deal {work.link.deal} kept changing while it was written", retry_after_s=BUSY_S)


def _round(work: Work, sides: frozenset[Side]) -> None:
    work.begin_round()
    if runs_away(work.link.written, work.services.clock()):
        work.link.stopped[WHOLE_DEAL] = Stopped(work.link.written[-1].side)
    try:
        _bring_into_agreement(work, sides)
    except Permanent as refusal:
        work.fail(refusal)
    report(work)


def _bring_into_agreement(work: Work, sides: frozenset[Side]) -> None:
    try:
        if _read(work, sides) and _both_exist(work):
            _come_to_rest(work)
            _follow_conversion(work)
    except NotFound as missing:
        if missing.remote == work.services.crm.name:
            raise
        _without_referral(work, missing)


def _read(work: Work, sides: frozenset[Side]) -> bool:
    """Read the sides; returns whether the record is still there."""
    link = work.link
    if link.gone:
        sides = ALL_SIDES  # what was gone may be back: then each side is compared with its base
    try:
        work.view.read(sides)
        recover(work)
    except NotFound as gone:
        if link.record is None or gone.remote != work.services.crm.name:
            raise
        if isinstance(gone, NotVisible) and not (work.request.deleted or link.gone == "crm"):
            raise
        settle_creates(work)
        work.view.refresh()
        recover(work)  # of a write to Partner Center, whose side was read
        work.record_is_gone()
        return False
    if link.gone:
        work.note("what was gone is there again: both sides are compared with what they agreed on last")
        link.state, link.absent = "active", None
    _note_who_is_absent(work)
    return True


def _note_who_is_absent(work: Work) -> None:
    """Both sides were found. Microsoft's copy may be gone: the deal goes on without it."""
    view, link, now = work.view, work.link, work.services.clock()
    if not view.without_microsoft:
        found = {"partner_center": view.own, "microsoft": view.microsoft, "crm": view.record}
        link.absent = None if link.absent and found[link.absent.side] else link.absent
        return
    if link.absent is None or link.absent.side != "microsoft":
        link.absent = Absence("microsoft", now)
    if link.absent.left_s(now) <= 0:
        work.note("Microsoft's copy is not in Partner Center any more; the deal goes on without it")


def _look_for_microsofts_copy_again(work: Work) -> None:
    """Have the message come back for it. What it said last is known, but not what it says now."""
    absent = work.link.absent
    if work.view.without_microsoft and absent and (left_s := absent.left_s(work.services.clock())) > 0:
        copy = f"referral {work.link.microsoft_referral_id}, Microsoft's copy,"
        raise Unavailable(f"Partner Center does not show {copy} now. It is looked for again", retry_after_s=left_s)


def _without_referral(work: Work, missing: NotFound) -> None:
    """Partner Center does not show the deal's referral. Raises Unavailable and Permanent as long as that may pass."""
    link = work.link
    if not link.referral_updated:
        _read_record(work)
        raise missing  # it never was there: somebody entered a wrong id
    if link.gone != "partner_center":
        _make_sure(work, missing)
        work.referral_is_gone()
    _read_record(work)


def _read_record(work: Work) -> None:
    """To show there that the referral is missing, over what stands there now."""
    if work.link.record:
        try:
            work.view.record = work.services.crm.read(work.link.record)
        except NotVisible:
            return
        except NotFound:
            work.record_is_gone()
        else:
            work.view.refresh()
            recover(work)


def _make_sure(work: Work, missing: NotFound) -> None:
    """Look twice, and whether other referrals are shown: a right that was taken away looks the same."""
    link, services = work.link, work.services
    now = services.clock()
    if link.absent is None or link.absent.side != "partner_center":
        link.state = "active" if link.gone else link.state
        link.absent = Absence("partner_center", now)
    left_s = link.absent.left_s(now)
    if left_s > 0:
        words = f"{str(missing).rstrip('.')}. It is looked for again before it counts as gone"
        raise Unavailable(words, retry_after_s=left_s, remote=missing.remote)
    if not services.partner_center.shows_others(link.referral_id):
        raise Forbidden(
            f"Partner Center shows neither referral {link.referral_id} nor any other",
            next_step="Give the signed-in user the Partner Center role Referrals admin for the entire company, then "
            "replay. If it was the only referral and somebody removed it, there is nothing to do but to dismiss this",
            remote=missing.remote,
            request_id=missing.request_id,
        )


def _both_exist(work: Work) -> bool:
    """Make the side that is missing, if it should be there. Returns whether both are."""
    if work.link.record is None:
        return create_record(work)
    return bool(work.link.referral_id) or create_referral(work)


def _come_to_rest(work: Work) -> None:
    """Act until deciding again finds nothing to write: what a write brought back may itself be a change."""
    for _ in range(ROUNDS):
        if not carry_out(work, _plan(work)):
            return
    raise Unavailable(f"deal {work.link.deal} does not come to rest", retry_after_s=BUSY_S)


def _plan(work: Work) -> Plan:
    """What there is to write, but for what would only be put back again."""
    link, deal = work.link, work.view.deal()
    plan = decide(deal)
    stopped = put_back(deal, plan, link.written, work.services.clock())
    if not stopped:
        return plan
    link.stopped |= stopped
    return decide(work.view.deal())


def _follow_conversion(work: Work) -> None:
    """An accepted lead goes on as an opportunity."""
    view = work.view
    accepted = was_accepted(view.partner_center[view.table.lifecycle.name])
    may_write = view.is_shared and work.link.state != "tombstone" and WHOLE_DEAL not in work.link.stopped
    if view.table.converts_to and accepted and may_write:
        convert(work)
        _come_to_rest(work)

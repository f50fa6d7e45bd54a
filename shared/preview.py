"""What a run would do with one deal now. Reads both sides and decides as a run does, and writes nothing anywhere.

Several rounds are played, as a run decides anew after each: a deal that is won before it was accepted takes two steps.
What the other side makes of a write - refuses it, changes it - cannot be known before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from shared.create import content, invitation, new_record, new_referral, table_of_record, why_unsent
from shared.decide import Change, Deal, Plan, decide
from shared.errors import NotFound, NotVisible, Permanent
from shared.find import Nothing, find_deal
from shared.lenses import Value
from shared.lifecycle import was_accepted
from shared.mapping import TableMap
from shared.messages import SyncRequest
from shared.model import MICROSOFT, Link, Record, RecordRef, Referral, Side
from shared.problems import Problem
from shared.sync import ROUNDS
from shared.view import View
from shared.work import deal_meant, problem_of

if TYPE_CHECKING:
    from shared.services import Services

CRM_ID = "/externalReferenceId"
"""Where a referral names its record."""

TO_BE_MADE = "(new)"
"""Stands for the id of what is not there yet."""

MICROSOFTS_COPY = {"organizationId": MICROSOFT, "team": []}
"""Its sellers are named once it is accepted."""

MADE = {"id": TO_BE_MADE, "engagementId": TO_BE_MADE}

OWN_DEAL = {"status": "Active", "substatus": "Accepted"}
"""What a deal that a partner creates for itself is at once, whatever status it was sent with.

https://learn.microsoft.com/partner-center/developer/create-a-referral
"""


@dataclass(frozen=True)
class Write:
    """One write, in the words of the audit: `fields` maps the name of a field of `table` to [before, after]."""

    side: Side
    operation: str
    table: TableMap
    fields: Mapping[str, list[Value]]


@dataclass
class Preview:
    """`deal` is "" when the message is about none of ours.

    `notes` says in words what was decided, `held` why nothing may be written at all.
    """

    deal: str
    writes: list[Write] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    held: str = ""

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def preview(request: SyncRequest, services: Services) -> Preview:
    """Return what a run would do for this message. Raises Retryable when a side cannot be read now."""
    with services.unnoted():
        return _preview(request, services)


def _preview(request: SyncRequest, services: Services) -> Preview:
    try:
        found = find_deal(request, services)
    except Permanent as refusal:
        deal = deal_meant(request, services)
        return Preview(deal, problems=[problem_of(refusal, View(services, Link(deal)).table)])
    if isinstance(found, Nothing):
        return Preview("", notes=[found.why])
    seen, link = Preview(found.deal), found.link or Link(found.deal)
    if link.record and link.record.table not in services.field_map.tables:
        seen.note(f"the field map has no table {link.record.table} any more")
        return seen
    if request.cause == "operator":
        link.written, link.stopped = [], {}  # as a run does for an operator, who has looked at what put values back
    if link.claim_until_utc and link.claim_until_utc > services.clock():
        seen.note("another run works on this deal just now, and may do some of it")
    view = View.of(services, link, found)
    try:
        _look(view, seen)
    except Permanent as refusal:
        seen.problems.append(problem_of(refusal, view.table))
    return seen


def _look(view: View, seen: Preview) -> None:
    if not _read(view, seen):
        return
    if view.link.record is None:
        exists = _make_record(view, seen)
    else:
        exists = bool(view.link.referral_id) or _make_referral(view, seen)
    if exists:
        _follow_conversion(view, _play(view.deal(), view, seen), seen)


def _read(view: View, seen: Preview) -> bool:
    """Read all sides; returns whether the record is still there."""
    try:
        view.read(frozenset({"partner_center", "microsoft", "crm"}))
    except NotFound as gone:
        if view.link.record is None or gone.remote != view.services.crm.name or isinstance(gone, NotVisible):
            raise
        seen.note(f"{view.link.record} does not exist any more; the referral stays as it is")
        return False
    return True


# ------------------------------------------------------------ a side that is missing


def _make_record(view: View, seen: Preview) -> bool:
    services, own = view.services, view.own
    assert own is not None
    state = view.partner_center[view.table.lifecycle.name]
    begun = view.link.write.table if view.link.write else ""  # by a run that died: see shared.recover
    existing = services.crm.find_by_referral(begun, own.id) if begun else None
    if not existing:
        table = table_of_record(services.field_map, own, state)
        if isinstance(table, str):
            seen.note(table)
            return False
        existing = services.crm.find_by_referral(table.table, own.id)
        if not existing:
            _create(view, table, seen)
            return True
    seen.note(f"{existing.ref} names this referral already, so that it is taken and none is created")
    view.link.record, view.record = existing.ref, existing
    view.refresh()
    view.agree_on_base()
    return True


def _create(view: View, table: TableMap, seen: Preview) -> None:
    new = new_record(table, view.partner_center_of(table))
    _add(seen, "crm", f"create {table.table}", table, new.fields)
    link = view.link
    link.record, link.base = RecordRef(table.table, TO_BE_MADE), {}
    view.record = Record(link.record, "", {table.columns.sync_flag: True})
    view.refresh()
    ids = {field.name: TO_BE_MADE for field in table.fields if CRM_ID in field.lens.pointers}
    view.crm = {**view.crm, **new.fields, **ids}
    view.agree_on_base()


def _make_referral(view: View, seen: Preview) -> bool:
    if why := why_unsent(view.table, view.crm, shared=view.is_shared):
        seen.note(why)
        return False
    new = new_referral(view.services.field_map, view.table, view.crm)
    seen.problems = new.lacking(view.unreadable.values())
    if new.problems:
        return False
    if view.link.intent:
        seen.note("an earlier run did not finish: if it created the referral, that one is taken and none is created")
    _add(seen, "partner_center", "create referral", view.table, content(view.table, new.document))
    view.own = Referral(new.document | MADE | OWN_DEAL)
    if new.help:
        _invite(view, new.help, seen)
    view.refresh()
    view.agree_on_base()
    return True


def _invite(view: View, code: str, seen: Preview) -> None:
    assert view.own is not None
    _add(seen, "microsoft", "invite Microsoft", view.table, {"help": code})
    view.microsoft = Referral(invitation(view.own.document, code) | MADE | MICROSOFTS_COPY)
    view.link.microsoft_referral_id = TO_BE_MADE


def _add(seen: Preview, side: Side, operation: str, table: TableMap, created: Mapping[str, Value]) -> None:
    seen.writes.append(Write(side, operation, table, {name: [None, value] for name, value in created.items()}))


# ------------------------------------------------------------ both are there


def _play(deal: Deal, view: View, seen: Preview) -> Deal:
    """Decide until nothing is left to write, taking for granted that each write succeeds. Returns the deal then."""
    for _ in range(ROUNDS):
        plan = decide(deal)
        seen.problems, seen.held = [*view.unreadable.values(), *plan.problems], plan.held
        for note in plan.notes:
            seen.note(note)
        if plan.held or not plan.writes:
            break
        deal = _written(plan, deal, view, seen)
    return deal


def _written(plan: Plan, deal: Deal, view: View, seen: Preview) -> Deal:
    """Return the deal as it stands once the plan is carried out, in the order in which that is done."""
    sent = _add_changes("partner_center", "referral", deal, plan.to_partner_center, seen)
    deal = replace(deal, base=plan.base, partner_center={**deal.partner_center, **sent})
    if plan.invite:
        deal = _invited(deal, view, seen)
    return replace(deal, crm={**deal.crm, **_add_changes("crm", deal.table.table, deal, plan.to_crm, seen)})


def _add_changes(side: Side, what: str, deal: Deal, changes: Mapping[str, Change], seen: Preview) -> dict[str, Value]:
    """Returns the values that are there afterwards."""
    if changes:
        pairs = {name: [change.before, change.after] for name, change in changes.items()}
        seen.writes.append(Write(side, f"update {what}", deal.table, pairs))
    return {name: change.after for name, change in changes.items()}


def _invited(deal: Deal, view: View, seen: Preview) -> Deal:
    """Microsoft's copy is there and says what it holds."""
    assistance = deal.table.assistance
    assert assistance is not None
    here = deal.crm[assistance.name]
    code = assistance.lens.to_partner_center(here, assistance.lens.read_partner_center({}))
    _invite(view, code, seen)
    theirs = view.partner_center_of(deal.table)
    shown = {each.name: theirs[each.name] for each in deal.table.fields if each.copy != "own"}
    base = {**deal.base, assistance.name: [code, here]}
    return replace(deal, base=base, partner_center={**deal.partner_center, **shown}, invited=True)


def _follow_conversion(view: View, deal: Deal, seen: Preview) -> None:
    """An accepted lead goes on as an opportunity."""
    state, lead = deal.partner_center[deal.table.lifecycle.name], view.link.record
    if not (deal.table.converts_to and was_accepted(state) and deal.shared and lead):
        return
    made = None if lead.id == TO_BE_MADE else view.services.crm.converted_to(lead)
    if made:
        seen.note(f"{lead} was accepted and goes on as {made}")
        return
    table = view.services.field_map.tables[deal.table.converts_to]
    seen.note(f"{lead} was accepted and goes on as a new {table.table}")
    _create(view, table, seen)
    _play(view.deal(), view, seen)

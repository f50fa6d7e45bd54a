"""Decides what brings one deal into agreement: three-way merge, field by field. Performs no I/O.

Each side is compared with its own base, the value it held at the last agreement:
nothing moved: nothing to do; one side moved: carry it over, if the map lets it; both moved to the same: agree;
both moved apart: the field's conflict rule, and the loser's value goes into the notes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from dataclasses import field as member
from datetime import datetime, timedelta
from typing import Any

from shared.breaker import MOST_WRITES, SAME_VALUE, WHOLE_DEAL, WINDOW
from shared.lenses import PERSON_KEYS, Lens, People, Person, Unmapped, Value, Winner
from shared.lifecycle import Lifecycle, is_closed, is_writable
from shared.mapping import Field, TableMap
from shared.model import Stopped
from shared.problems import Problem

SKEW = timedelta(minutes=2)
"""Two servers' clocks are only compared when they differ by more than this."""

EMPTY: tuple[Value, ...] = (None, "", [], {"amount": None, "currency": ""})
"""The canonical values that mean nothing is there."""

PERSON_WORDS: Mapping[str, str] = {
    "firstName": "first name",
    "lastName": "last name",
    "phoneNumber": "phone",
    "email": "e-mail",
}

WORDS: Mapping[Winner, str] = {"partner_center": "Partner Center", "crm": "the CRM"}

FIRST_CONTACT = "differed when they were linked"


@dataclass(frozen=True)
class Deal:
    """All that deciding needs to know. Values are canonical, by field name; a side not read stands at its base.

    `shared`: the seller's switch; `closed`: fields that the CRM does not let us read; `invited`: Microsoft is in the
    engagement already; the times are each server's own. `stopped`: fields that are not to be written any more.
    """

    table: TableMap
    base: Mapping[str, Sequence[Value]]
    partner_center: Mapping[str, Value]
    crm: Mapping[str, Value]
    shared: bool = True
    closed: frozenset[str] = frozenset()
    invited: bool = False
    partner_center_updated: datetime | None = None
    crm_modified: datetime | None = None
    stopped: Mapping[str, Stopped] = member(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """A value to write, and the one it replaces."""

    before: Value
    after: Value

    def differing(self, lens: Lens, write: Callable[[Value], dict[str, Any]]) -> dict[str, Any]:
        """What has to be sent: of an amount with its currency only what moved; a status is sent as a pair."""
        after = write(self.after)
        if isinstance(lens, Lifecycle):
            return after
        try:
            before = write(self.before)
        except Unmapped:  # what stands there is not what we would write
            before = {}
        return {place: raw for place, raw in after.items() if place not in before or before[place] != raw}


@dataclass
class Plan:
    """What to write where, and the base to save once it is written. `held`: why nothing may be written at all;
    `stopped`: nothing is, until an operator replays the deal.

    `decisions` has, for each field that moved on both sides: the `rule`, the `winner` ("": nobody), both values.
    """

    to_crm: dict[str, Change] = member(default_factory=dict)
    to_partner_center: dict[str, Change] = member(default_factory=dict)
    invite: bool = False
    base: dict[str, list[Value]] = member(default_factory=dict)
    notes: list[str] = member(default_factory=list)
    problems: list[Problem] = member(default_factory=list)
    decisions: dict[str, dict[str, Any]] = member(default_factory=dict)
    held: str = ""
    stopped: bool = False

    @property
    def writes(self) -> bool:
        return bool(self.to_crm or self.to_partner_center or self.invite)


def decide(deal: Deal) -> Plan:
    """Return the plan for a deal that has both a referral and a record."""
    plan = Plan(base={name: list(pair) for name, pair in deal.base.items()})
    if not deal.shared:
        plan.held = "Sync with Partner Center is No"
        return plan
    if WHOLE_DEAL in deal.stopped:
        plan.stopped = True
        plan.problems.append(_run_away())
        return plan
    lifecycle = deal.table.lifecycle
    if lifecycle.name in deal.closed:
        return plan  # without it nothing can be said about the rest
    plan.problems += [
        _put_back(field, deal.stopped[field.name]) for field in deal.table.fields if field.name in deal.stopped
    ]
    left_alone = {*deal.closed, *deal.stopped}
    if lifecycle.name not in left_alone:
        _decide_field(deal, lifecycle, plan, sendable=True)
    sendable = _is_sendable(deal, plan)
    invitation = sendable and _wants_microsoft(deal) and not _closes(deal, plan)
    for field in deal.table.fields:
        decided = field is lifecycle or field.name in left_alone or (invitation and field is deal.table.assistance)
        if not decided:
            _decide_field(deal, field, plan, sendable=sendable)
    if invitation:
        _invite(deal, plan)
    return plan


def _is_sendable(deal: Deal, plan: Plan) -> bool:
    """Whether Partner Center takes edits: the referral is accepted, or this very plan accepts it."""
    name = deal.table.lifecycle.name
    change = plan.to_partner_center.get(name)
    return is_writable(deal.partner_center[name]) or bool(change and is_writable(change.after))


def _closes(deal: Deal, plan: Plan) -> bool:
    """Whether this very plan closes the referral: nobody is invited to a deal that is over."""
    change = plan.to_partner_center.get(deal.table.lifecycle.name)
    return bool(change and is_closed(change.after))


def _wants_microsoft(deal: Deal) -> bool:
    """Help chosen for a deal that Microsoft does not have yet turns it into a co-sell deal."""
    assistance = deal.table.assistance
    wanted = assistance and not deal.invited and deal.crm[assistance.name] is not None
    return bool(wanted and assistance and assistance.name not in deal.stopped)


def _invite(deal: Deal, plan: Plan) -> None:
    assistance = deal.table.assistance
    assert assistance is not None
    unready = incomplete(deal.table, deal.crm, {"co-sell"})
    try:
        assistance.lens.to_partner_center(deal.crm[assistance.name], deal.partner_center[assistance.name])
    except Unmapped as unmapped:
        unready.append(without_counterpart(assistance, WORDS["crm"], unmapped))
    plan.problems += unready
    plan.invite = not unready
    if plan.invite:
        _show_to_microsoft(deal, plan)


def _show_to_microsoft(deal: Deal, plan: Plan) -> None:
    """Asking for help makes the deal visible to Microsoft's sellers, whatever was chosen before."""
    consent = deal.table.consent
    if consent is None or consent.name in deal.stopped:
        return
    for side, held, moves in (
        (deal.partner_center, plan.to_partner_center, consent.to_partner_center),
        (deal.crm, plan.to_crm, consent.to_crm),
    ):
        if not side[consent.name] and "update" in moves:
            held[consent.name] = Change(side[consent.name], after=True)
    plan.base[consent.name] = [True, True]


def _decide_field(deal: Deal, field: Field, plan: Plan, *, sendable: bool) -> None:
    partner_center, crm = deal.partner_center[field.name], deal.crm[field.name]
    base = deal.base.get(field.name)
    moved_there = base is None or base[0] != partner_center
    moved_here = base is None or base[1] != crm
    if not moved_there and not moved_here:
        return
    winner: Winner | None = None
    try:
        if moved_there and moved_here:
            if field.lens.agree(partner_center, crm):
                plan.base[field.name] = [partner_center, crm]
                return
            winner, rule = _winner(deal, field)
            rule = rule if base else f"{FIRST_CONTACT}, {rule}"
            values = {"partner_center": partner_center, "crm": crm}
            plan.decisions[field.name] = {"rule": rule, "winner": winner or "", **values}
            if winner is None:
                plan.problems.append(_held(field, partner_center, crm))
                return
            _note_loser(field, plan, winner, partner_center, crm, first=base is None)
        else:
            winner = "partner_center" if moved_there else "crm"
        if winner == "partner_center":
            _carry_to_crm(field, plan, partner_center, crm)
        else:
            _carry_to_partner_center(deal, field, plan, partner_center, crm, sendable=sendable)
    except Unmapped as unmapped:
        # Before there is a winner it was tried whether the CRM's value is Partner Center's.
        sender = WORDS[winner or "partner_center"]
        plan.problems.append(without_counterpart(field, sender, unmapped))


def _winner(deal: Deal, field: Field) -> tuple[Winner | None, str]:
    """Return who wins, None for nobody, and by which rule."""
    leader = field.lens.leads(deal.partner_center[field.name], deal.crm[field.name])
    if leader:
        return leader, "nature of the field"
    absent_there, absent_here = deal.partner_center[field.name] in EMPTY, deal.crm[field.name] in EMPTY
    is_first = field.name not in deal.base
    if is_first and absent_there and not absent_here and field.to_partner_center:
        return "crm", "a side that never held anything empties nothing"
    if "update" not in field.to_partner_center:
        return "partner_center", "direction"
    if "update" not in field.to_crm:
        return "crm", "direction"
    if is_first and absent_here and not absent_there:
        return "partner_center", "a side that never held anything empties nothing"
    rule = f"conflict = {field.conflict}"
    if field.conflict == "hold":
        return None, rule
    if field.conflict == "latest":
        return _latest(deal), rule
    return field.conflict, rule


def _latest(deal: Deal) -> Winner:
    there, here = deal.partner_center_updated, deal.crm_modified
    return "partner_center" if there and here and there - here > SKEW else "crm"


def _note_loser(field: Field, plan: Plan, winner: Winner, partner_center: Value, crm: Value, *, first: bool) -> None:
    loser: Winner = "crm" if winner == "partner_center" else "partner_center"
    value = crm if loser == "crm" else partner_center
    how = FIRST_CONTACT if first else "changed on both sides"
    if value not in EMPTY and value is not False:
        plan.notes.append(f"{field.label} {how}: {WORDS[winner]} wins, {WORDS[loser]} had {shown(value)}")


def _held(field: Field, partner_center: Value, crm: Value) -> Problem:
    return Problem(
        field.label,
        f"changed on both sides: Partner Center has {shown(partner_center)}, the CRM {shown(crm)}",
        "Set both sides to the same value; the field map says that neither may win",
        "conflict",
    )


def _put_back(field: Field, stopped: Stopped) -> Problem:
    where = "the CRM" if stopped.side == "crm" else "Partner Center"
    return Problem(
        field.label,
        f"is not written any more: {where} got the same value {SAME_VALUE} times within {_minutes(WINDOW)} minutes, "
        "and each time something there put another one in its place. Partner Center had "
        f"{shown(stopped.partner_center)}, the CRM {shown(stopped.crm)}",
        f"Find the workflow, rule or other tool that sets {field.label} in {where}, and let it accept the value of the "
        "other side, or set both sides to the value that it sets; then replay the deal",
        "put-back",
    )


def _run_away() -> Problem:
    return Problem(
        "All fields",
        f"are not written any more: the deal was written more than {MOST_WRITES} times within {_minutes(WINDOW)} "
        "minutes, because something sets values anew after each write",
        "See in the Audit field, and in the deal's audit, which values change to and fro; find the workflow, rule or "
        "other tool that sets them, and let it accept the value of the other side; then replay the deal",
        "put-back",
    )


def _minutes(duration: timedelta) -> int:
    return round(duration.total_seconds() / 60)


def _closed_otherwise(field: Field, partner_center: Value, crm: Value) -> Problem:
    """Neither system lets a closed deal be closed differently."""
    return Problem(
        field.label,
        f"the referral was closed as {partner_center['state']}, the record as {crm['state']}",
        "A referral stays closed; if it is right, reopen the record, and it will be closed like the referral",
        "conflict",
    )


def _carry_to_crm(field: Field, plan: Plan, partner_center: Value, crm: Value) -> None:
    after = field.lens.to_crm(partner_center, crm) if "update" in field.to_crm else crm
    if isinstance(field.lens, Lifecycle) and {after["state"], crm["state"]} == {"won", "lost"}:
        plan.problems.append(_closed_otherwise(field, partner_center, crm))
        return
    if after != crm:
        field.lens.write_crm(after)  # raises Unmapped here, before anything is written
        plan.to_crm[field.name] = Change(crm, after)
    plan.base[field.name] = [partner_center, after]


def _carry_to_partner_center(
    deal: Deal, field: Field, plan: Plan, partner_center: Value, crm: Value, *, sendable: bool
) -> None:
    if not field.to_partner_center and "update" in field.to_crm:
        plan.notes.append(f"{field.label}: Partner Center owns it, the CRM's {shown(crm)} was put back")
        _carry_to_crm(field, plan, partner_center, crm)
        return
    if "update" not in field.to_partner_center:
        if field.to_partner_center and field.name in deal.base:
            plan.notes.append(f"{field.label}: sent only when the referral is created, {shown(crm)} stays in the CRM")
        plan.base[field.name] = [partner_center, crm]
        return
    after = field.lens.to_partner_center(crm, partner_center)
    if after == partner_center:
        _settle(deal, field, plan, partner_center, crm)
    elif is_closed(deal.partner_center[deal.table.lifecycle.name]):
        plan.notes.append(f"{field.label}: the referral is closed for good, {shown(crm)} stays in the CRM")
        plan.base[field.name] = [partner_center, crm]
    elif not sendable:
        # Not accepted yet: what the CRM holds stays a change of the CRM, so that accepting sends it.
        unsent = deal.base[field.name][1] if field.name in deal.base else field.lens.read_crm({})
        plan.base[field.name] = [partner_center, unsent]
    elif field.required == "always" and lacks(after):
        plan.problems.append(missing(field))
    else:
        plan.to_partner_center[field.name] = Change(partner_center, after)
        # A step on the way (accept, then close) leaves the rest of the way to be seen as a change of the CRM.
        plan.base[field.name] = [after, crm if field.lens.agree(after, crm) else field.lens.to_crm(after, crm)]


def _settle(deal: Deal, field: Field, plan: Plan, partner_center: Value, crm: Value) -> None:
    """The CRM moved to where Partner Center cannot follow: it goes back, or, for a closed deal, is left and noted."""
    if field.lens.agree(partner_center, crm):
        plan.base[field.name] = [partner_center, crm]
    elif isinstance(field.lens, Lifecycle):
        if is_closed(partner_center) and field.name in deal.base:
            plan.notes.append(
                f"{field.label}: the referral is closed as {partner_center['state']} for good, the CRM stays "
                f"{crm['state'].replace('_', ' ')}"
            )
        plan.base[field.name] = [partner_center, crm]
    else:
        plan.notes.append(f"{field.label}: cannot be changed to {shown(crm)} in Partner Center, so it was put back")
        _carry_to_crm(field, plan, partner_center, crm)


def incomplete(table: TableMap, crm: Mapping[str, Value], required: Set[str]) -> list[Problem]:
    """Return what the CRM has not filled of the fields that Partner Center needs: `always`, or for `co-sell`."""
    problems = []
    for field in table.fields:
        if field.required in required:
            if isinstance(field.lens, Person | People):
                lacking = _lacking_parts(field, field.lens, crm[field.name])
                problems += [_lacking(field, lacking)] if lacking else []
            elif lacks(crm[field.name]):
                problems.append(missing(field))
    return problems


def _lacking_parts(field: Field, lens: Person | People, people: Value) -> list[str]:
    person = next(iter(people), None) if isinstance(people, list) else people
    # Microsoft's sellers call the customer's contact, so a co-sell deal needs all of it.
    keys = PERSON_KEYS if field.required == "co-sell" else ("firstName", "lastName", "email")
    return [PERSON_WORDS[key] for key, _ in lens.parts if key in keys and not (person or {}).get(key)]


def _lacking(field: Field, parts: list[str]) -> Problem:
    return Problem(
        field.label,
        f"lacks {', '.join(parts)}, and Partner Center needs it",
        "Fill it in, or choose somebody who has it, and save the opportunity",
        "missing",
    )


def lacks(value: Value) -> bool:
    """Whether a value that Partner Center needs is not there, or only in part: an amount without its currency."""
    return value in EMPTY or (isinstance(value, Mapping) and "amount" in value and not all(value.values()))


def missing(field: Field) -> Problem:
    """The problem of a field that Partner Center needs and the CRM has not filled."""
    return Problem(
        field.label,
        "is empty, and Partner Center needs it",
        f"Fill in {field.label} and save the opportunity",
        "missing",
    )


def without_counterpart(field: Field, sender: str, unmapped: Unmapped) -> Problem:
    """The problem of a value that the field map does not know."""
    return Problem(
        field.label,
        f"{sender} holds {shown(unmapped.value)}, which has no counterpart",
        "Choose a value that is accepted, or add this one to the field map and replay",
        "no-counterpart",
        unmapped.accepted,
    )


def shown(value: Value) -> str:
    """Return a value as a person would write it, cut to one line."""
    if isinstance(value, Mapping) and "amount" in value:
        text = f"{value['amount'] or 'no amount'} {value['currency']}".strip()
    elif isinstance(value, Mapping) and "state" in value:
        text = str(value["state"]).replace("_", " ")
    elif isinstance(value, bool):
        text = "Yes" if value else "No"
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        text = ", ".join(str(entry.get("email") or entry.get("id") or "?") for entry in value)
    elif isinstance(value, str):
        text = f"“{value}”" if value else "nothing"
    else:
        text = "nothing" if value in (None, [], {}) else json.dumps(value, ensure_ascii=False)
    line = " ".join(text.split())
    return line if len(line) <= 120 else line[:119] + "…"

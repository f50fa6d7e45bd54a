"""Writes to the CRM: creates the record of a referral, updates it, closes it, and shows there how things are.

Every write carries the line for the Audit field and the status with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from shared.breaker import WHOLE_DEAL
from shared.create import new_record, table_of_record
from shared.decide import Change, Plan
from shared.errors import Converted, Forbidden, NotFound, NotVisible, Permanent, Refused
from shared.lenses import shortened
from shared.mapping import TableMap
from shared.model import Record, Referral
from shared.recover import digest, recover
from shared.remote import calls
from shared.remote.crm import RelatedRow
from shared.work import Work

if TYPE_CHECKING:
    pass

AUDIT_TEXT_LENGTH = 8_000
STATUS_LENGTH = 200
SYNCHRONIZED = "✓ Synchronized"
REFERRAL_GONE = "✗ Not in Partner Center any more"


def create_record(work: Work) -> bool:
    """Create the record of a referral. Returns whether there is one now."""
    view = work.view
    own = view.own
    assert own is not None
    state = view.partner_center[view.table.lifecycle.name]
    table = table_of_record(work.services.field_map, own, state)
    if isinstance(table, str):
        work.note(table)
        return False
    _create_in(work, table, own)
    return True


def convert(work: Work) -> None:
    """Let an accepted lead go on as an opportunity: the one a person made of it, or a new one."""
    view, link, crm = work.view, work.link, work.services.crm
    lead, lead_table = link.record, view.table
    assert lead is not None
    table = work.services.field_map.tables[lead_table.converts_to]
    view.own = own = view.own or work.services.partner_center.get(link.referral_id)
    opportunity = crm.converted_to(lead)
    if opportunity:
        view.record = crm.read(opportunity)
        link.record = opportunity
        view.refresh()
        # Before the write, whose answer may be lost: what the lead held is not what this record held.
        view.agree_on_base()
        # A person made it, so nobody has said yet that it is shared.
        write_record(work, _identity(work, table, own), {}, f"Goes on from {lead} with referral {own.id}")
    else:
        _close_lead(work, lead_table)
        _create_in(work, table, own, {lead_table.origin: lead.id} if lead_table.origin else {})
    work.note(f"{lead} was accepted and goes on as {link.record}")


def _close_lead(work: Work, lead_table: TableMap) -> None:
    """A lead that a seller accepted may still be open for others to work on."""
    record = work.view.record
    columns = lead_table.lifecycle.lens.write_crm({"state": "open"})
    left = {column: value for column, value in columns.items() if record and record.values.get(column) != value}
    if left:
        write_record(work, left, {}, "Accepted: it goes on as an opportunity")


def update_record(work: Work, plan: Plan) -> None:
    """Write what the plan says, and which referral it is where the record does not say so yet."""
    view, link = work.view, work.link
    fields = {field.name: field for field in view.table.fields}
    columns: dict[str, Any] = {}
    for name, change in plan.to_crm.items():
        columns |= change.differing(fields[name].lens, fields[name].lens.write_crm)
    identity = _missing_identity(work)
    if not columns and not identity:
        return
    doing = "Updated from Partner Center: " + ", ".join(fields[name].label for name in plan.to_crm) if columns else ""
    writing = {name: plan.base[name] for name in plan.to_crm}
    try:
        write_record(work, {**columns, **identity}, plan.to_crm, doing, writing)
    except Converted as refusal:
        # Nobody can mend that, and trying again is of no use: from here on it counts as written.
        work.failed(refusal)
        work.note(f"{link.record} was converted, so it stays as it is; the referral is not that of its opportunity")
    except Permanent as refusal:
        refused = next((name for name in plan.to_crm if refusal.field in fields[name].lens.columns), "")
        if not refused:
            raise
        work.refuse(refused, refusal)
        return
    if link.state != "tombstone":
        for name in plan.to_crm:
            link.base[name] = [plan.base[name][0], view.crm[name]]


def report(work: Work) -> None:
    """Show in the CRM how things are, unless it shows that already."""
    link = work.link
    concerned = bool(link.record) and link.gone != "crm" and bool(link.referral_id or work.problems)
    if link.gone:
        concerned = concerned and work.view.record is not None and work.view.is_shared
    if not concerned or work.held or not _status_changes(work):
        return
    try:
        write_record(work, {}, {})
    except Permanent as refusal:
        work.failed(refusal)
        work.note(f"the CRM's {work.view.table.columns.audit} could not be written: {refusal}")


def write_record(
    work: Work,
    columns: Mapping[str, Any],
    changes: Mapping[str, Change],
    doing: str = "",
    writing: Mapping[str, list[Any]] | None = None,
) -> None:
    """Write columns if the record still has the version we know; `doing` says what for in the Audit field."""
    view, link = work.view, work.link
    assert link.record is not None
    before = view.record.version if view.record else link.record_version
    audited = {name: [change.before, change.after] for name, change in changes.items()}
    sent = _allowed(work, {**_shown(work, view.table, doing), **columns})
    if not sent:
        return
    shown = digest(str(sent[view.table.columns.audit])) if view.table.columns.audit in sent else ""
    work.started("crm", f"update {link.record.table}", audited, writing, version=before, shown=shown)
    try:
        written = work.services.crm.update(link.record, sent, before)
    except NotVisible:
        raise
    except NotFound:
        work.record_is_gone()
        return
    except Permanent as refusal:
        if refusal.field in view.table.columns.optional and refusal.field in sent:
            work.refuse(refusal.field, refusal)
            write_record(work, columns, changes, doing, writing)
            return
        # Part of it may be written: a closing is two calls. What the record holds now has to be read.
        view.record = work.services.crm.read(link.record)
        view.refresh()
        if calls.are_unclear():
            recover(work)
        raise
    view.wrote_record(written)
    _remember_shown(work, sent)
    work.done(f"update {link.record.table}", audited, before, written.version)


def _create_in(work: Work, table: TableMap, own: Referral, more: Mapping[str, Any] | None = None) -> None:
    view, link = work.view, work.link
    there = view.partner_center_of(table)
    new = new_record(table, there)
    work.problems = new.problems
    created = {column: [None, value] for column, value in new.values.items()}
    writing = {name: [there[name], value] for name, value in new.fields.items()}
    work.started("crm", f"create {table.table}", created, writing, table=table.table)
    draft = Draft(table, {**new.values, **(more or {}), **_identity(work, table, own)}, own)
    record, is_new = _created(work, draft)
    created = {column: pair for column, pair in created.items() if column in draft.columns}
    link.record = record.ref
    if is_new:
        _remember_shown(work, draft.columns)
    else:
        link.audit_text = str(record.values.get(table.columns.audit) or "")  # what is written there goes on
    view.record = None
    view.wrote_record(record)
    view.agree_on_base()
    operation = f"create {table.table}" if is_new else f"adopt {table.table}"
    work.done(operation, created if is_new else {}, after=record.version)


@dataclass
class Draft:
    """A record to create, and the rows that it refers to; what the CRM refuses of it is left out."""

    table: TableMap
    columns: dict[str, Any]
    own: Referral
    related: list[RelatedRow] = field(default_factory=list)
    refused: dict[str, Permanent] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.related = [row for rows in self.table.related for row in rows.rows(self.own.document)]

    def do_without(self, refusal: Permanent) -> bool:
        """Leave out what a refusal is about, so that the deal arrives. Returns whether it can be done without."""
        if refusal.part.isdecimal():
            return self._do_without_related(int(refusal.part), refusal)
        fields = (each.lens.columns for each in self.table.fields if refusal.field in each.lens.columns)
        # All of a field: an amount without its currency would be another amount.
        left_out = {column for of_field in fields for column in of_field}
        left_out |= {refusal.field} & self.table.columns.optional
        left_out &= self.columns.keys()
        for column in left_out:
            del self.columns[column]
            self.refused[column] = refusal
        return bool(left_out)

    def _do_without_related(self, number: int, refusal: Permanent) -> bool:
        row, column = self.related[number], refusal.field.rpartition(".")[2]
        if column in row.values and column not in row.match:
            values = {name: value for name, value in row.values.items() if name != column}
            self.related[number] = replace(row, values=values)
        else:
            del self.related[number]
        return True


def _created(work: Work, draft: Draft) -> tuple[Record, bool]:
    """Create the record. What the CRM refuses of it, deciding finds to differ, and writing it tells what is wrong.

    Of a refused row that it refers to only this note tells.
    """
    while True:
        shown = _shown(work, draft.table, f"Created from Partner Center referral {draft.own.id}")
        draft.columns |= {column: text for column, text in shown.items() if column not in draft.refused}
        try:
            record, is_new = work.services.crm.create(draft.table.table, draft.own.id, draft.columns, draft.related)
        except (Refused, Forbidden) as refusal:
            if not draft.do_without(refusal):
                # A mandatory field that was refused before is missing now: the first refusal tells why.
                raise draft.refused.get(refusal.field, refusal) from None
            work.note(f"{refusal.field or draft.table.table} was left out: {refusal}")
        else:
            # An attempt without an answer may have made it: then it shows our very line.
            audit = draft.table.columns.audit
            is_ours = bool(audit) and record.values.get(audit) == draft.columns.get(audit)
            return record, is_new or (is_ours and calls.are_unclear())


# ---------------------------------------------------------------- what the CRM shows


def _identity(work: Work, table: TableMap, own: Referral) -> dict[str, Any]:
    columns = table.columns
    return _filled(
        {
            columns.referral_id: own.id.lower(),
            columns.referral_link: work.services.referral_link(own),
            columns.sync_flag: True,
        }
    )


def _missing_identity(work: Work) -> dict[str, Any]:
    """The record of a referral that was just created, or adopted, does not say so yet."""
    view = work.view
    shown = str(view.system_value(view.table.columns.referral_id) or "").lower()
    if view.record is None or view.own is None or shown == work.link.referral_id:
        return {}
    return _identity(work, view.table, view.own)


def _shown(work: Work, table: TableMap, doing: str) -> dict[str, Any]:
    """The line for the Audit field, newest first in the connector's format, and the status with its check mark."""
    failure = [f"Not synchronized: {work.failure}"] if work.problems else []
    said = "; ".join(filter(None, [*failure, *work.said, doing, *work.notes])) or _status(work)[2:]  # less its mark
    line = f"{work.services.clock():%Y-%m-%d %H:%M} - {said}"
    text = shortened(f"{line}\n{work.link.audit_text}".rstrip(), AUDIT_TEXT_LENGTH)
    return _filled({table.columns.audit: text, table.columns.sync_status: _status(work)}) | _marked_name(work)


def _marked_name(work: Work) -> dict[str, Any]:
    """The name with its check mark or cross, where the field map wants one and the record shows another."""
    name, record = work.view.table.marked_name, work.view.record
    if name is None or record is None or name.column not in record.values:
        return {}
    marked = f"{'✗ ' if work.problems else name.mark}{name.read_crm(record.values)}"
    return {} if record.values[name.column] == marked else {name.column: marked}


def _allowed(work: Work, columns: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out those of our own columns that the CRM hides or has refused: no reason to write nothing."""
    hidden = work.view.record.unreadable.keys() if work.view.record else set()
    spared = work.view.table.columns.optional & {*hidden, *work.refused}
    return {column: value for column, value in columns.items() if column not in spared}


def _remember_shown(work: Work, columns: Mapping[str, Any]) -> None:
    work.link.audit_text = columns.get(work.view.table.columns.audit, work.link.audit_text)
    work.said = []


def _status(work: Work) -> str:
    """What fits into a short column: one problem in full, of several the fields; the Audit field has all the words."""
    if work.link.gone:
        return REFERRAL_GONE
    if not work.problems:
        return SYNCHRONIZED
    labels = ", ".join(dict.fromkeys(problem.label for problem in work.problems))
    words = work.failure if len(work.problems) == 1 else f"{labels}: see the Audit field"
    return shortened(f"✗ {words}", STATUS_LENGTH)


def _status_changes(work: Work) -> bool:
    column, record = work.view.table.columns.sync_status, work.view.record
    if column and record and column in record.values and WHOLE_DEAL not in work.link.stopped:
        return bool(record.values[column] != _status(work))
    return work.link.failure != work.failure or bool(work.link.gone and work.notes)


def _filled(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the columns the field map does not have."""
    return {column: value for column, value in columns.items() if column}

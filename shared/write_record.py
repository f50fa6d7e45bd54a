"""Writes to the CRM: creates the record of a referral, updates it, closes it, and shows there how things are.

Every write carries the line for the Audit field and the status with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shared.create import new_record
from shared.decide import Change, Plan
from shared.errors import Forbidden, NotFound, Permanent, Refused
from shared.lenses import Value, shortened
from shared.lifecycle import is_closed, is_writable
from shared.mapping import TableMap
from shared.model import Record, Referral
from shared.remote.crm import RelatedRow
from shared.work import Work

AUDIT_TEXT_LENGTH = 8_000
STATUS_LENGTH = 200
SYNCHRONIZED = "✓ Synchronized"


def create_record(work: Work) -> bool:
    """Create the record of a referral. Returns whether there is one now."""
    view = work.view
    own = view.own
    assert own is not None
    state = view.partner_center[view.table.lifecycle.name]
    lead = _lead_of_unfinished_run(work, own, state)
    if lead:
        _create_in(work, lead, own)
        # As it was when the lead was made, so that what happened to the referral since is seen as a change.
        view.link.base[lead.lifecycle.name] = [{"state": "pending"}, view.crm[lead.lifecycle.name]]
        return True
    if is_closed(state):
        work.note(f"the referral was closed as {state['state']} before it reached the CRM; nothing is created")
        return False
    table = work.services.field_map.table_for(is_lead=own.is_lead and not is_writable(state))
    if table is None:
        work.note("leads are out of scope (scope.leads in the field map); nothing is created")
        return False
    _create_in(work, table, own)
    return True


def _lead_of_unfinished_run(work: Work, own: Referral, state: Value) -> TableMap | None:
    """The table of leads, if a run that did not finish made a lead of this referral before somebody answered it."""
    leads = work.services.field_map.table_for(is_lead=True)
    if leads is None or not own.is_lead or not (is_closed(state) or is_writable(state)):
        return None
    return leads if work.services.crm.find_by_referral(leads.table, own.id) else None


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
        # A person made it, so nobody has said yet that it is shared.
        write_record(work, _identity(work, table, own), {}, f"Goes on from {lead} with referral {own.id}")
        view.agree_on_base()
    else:
        _create_in(work, table, own, {lead_table.origin: lead.id} if lead_table.origin else {})
    work.note(f"{lead} was accepted and goes on as {link.record}")


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
    except Permanent as refusal:
        refused = next((name for name in plan.to_crm if refusal.field in fields[name].lens.columns), "")
        if not refused:
            raise
        # What the CRM takes of the rest is written all the same.
        work.fail(refusal)
        del plan.to_crm[refused]
        update_record(work, plan)
        return
    if link.state != "tombstone":
        for name in plan.to_crm:
            link.base[name] = [plan.base[name][0], view.crm[name]]


def report(work: Work) -> None:
    """Show in the CRM how things are, unless it shows that already."""
    link = work.link
    concerned = bool(link.record) and link.state != "tombstone" and bool(link.referral_id or work.problems)
    if not concerned or work.held or not _status_changes(work):
        return
    try:
        write_record(work, {}, {})
    except Permanent as refusal:
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
    columns = {**_shown(work, view.table, doing), **columns}
    audited = {name: [change.before, change.after] for name, change in changes.items()}
    work.started("crm", f"update {link.record.table}", audited, writing)
    try:
        written = work.services.crm.update(link.record, columns, before)
    except NotFound:
        work.record_is_gone()
        return
    except Permanent:
        # Part of it may be written: a closing is two calls. What the record holds now has to be read.
        view.record = work.services.crm.read(link.record)
        view.refresh()
        raise
    view.wrote_record(written)
    _remember_shown(work, columns)
    work.done("crm", f"update {link.record.table}", audited, before, written.version)


def _create_in(work: Work, table: TableMap, own: Referral, more: Mapping[str, Any] | None = None) -> None:
    view, link = work.view, work.link
    new = new_record(table, view.partner_center_of(table))
    work.problems = new.problems
    shown = _shown(work, table, f"Created from Partner Center referral {own.id}")
    columns = {**new.values, **(more or {}), **_identity(work, table, own), **shown}
    related = [row for rows in table.related for row in rows.rows(own.document)]
    created = {column: [None, value] for column, value in new.values.items()}
    work.started("crm", f"create {table.table}", created)
    record, is_new = _created(work, table, own, columns, related, created)
    link.record = record.ref
    if is_new:
        _remember_shown(work, columns)
    else:
        link.audit_text = str(record.values.get(table.columns.audit) or "")  # what is written there goes on
    view.record = None
    view.wrote_record(record)
    view.agree_on_base()
    operation = f"create {table.table}" if is_new else f"adopt {table.table}"
    work.done("crm", operation, created if is_new else {}, after=record.version)


def _created(
    work: Work,
    table: TableMap,
    own: Referral,
    columns: dict[str, Any],
    related: Sequence[RelatedRow],
    mapped: dict[str, list[Any]],
) -> tuple[Record, bool]:
    """Create the record; a field that the CRM refuses is left out, so that the deal arrives.

    Deciding then finds that field to differ, and writing it tells what is wrong with it.
    """
    while True:
        try:
            return work.services.crm.create(table.table, own.id, columns, related)
        except (Refused, Forbidden) as refusal:
            fields = (field.lens.columns for field in table.fields if refusal.field in field.lens.columns)
            # All of it: an amount without its currency would be another amount.
            left_out = [column for of_field in fields for column in of_field if column in mapped]
            if not left_out:
                raise
            for column in left_out:
                del columns[column], mapped[column]


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
    said = "; ".join(filter(None, [*failure, *work.said, doing, *work.notes])) or "Synchronized"
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


def _remember_shown(work: Work, columns: Mapping[str, Any]) -> None:
    work.link.audit_text = columns.get(work.view.table.columns.audit, work.link.audit_text)
    work.said = []


def _status(work: Work) -> str:
    return shortened(f"✗ {work.failure}", STATUS_LENGTH) if work.problems else SYNCHRONIZED


def _status_changes(work: Work) -> bool:
    column, record = work.view.table.columns.sync_status, work.view.record
    if column and record and column in record.values:
        return bool(record.values[column] != _status(work))
    return work.link.failure != work.failure


def _filled(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the columns the field map does not have."""
    return {column: value for column, value in columns.items() if column}

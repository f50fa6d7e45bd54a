"""Carries out what was decided on one claimed deal: audits, writes, saves. Makes no decision about values.

Before each write its audit entry "started" is stored; creates that the other side cannot deduplicate also leave an
intent, so that a run that finds one looks whether it happened before creating again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from shared.create import invitation, new_record, new_referral
from shared.decide import Change, Plan, Problem
from shared.errors import CosellError, NotFound, OutcomeUnknown, Permanent, Retryable, VersionConflict
from shared.lenses import Lens, Value
from shared.lifecycle import Lifecycle, is_closed, is_writable
from shared.logs import log
from shared.mapping import TableMap
from shared.messages import SyncRequest
from shared.model import ALL_SIDES, Intent, Referral, Side
from shared.store.audit import AuditEntry
from shared.view import View

if TYPE_CHECKING:
    from shared.services import Services
    from shared.sync import Outcome

SETTLE = timedelta(seconds=30)
"""How long after an interrupted create its result may still come to light; only then is it created again."""

AUDIT_TEXT_LENGTH = 8_000
STATUS_LENGTH = 200
SYNCHRONIZED = "✓ Synchronized"


class Actor:
    """Writes to both sides of one deal.

    `problems` is what a person has to mend, empty when all is well; `said` what was done and `notes` what was decided,
    in the words that the CRM's Audit field shows.
    """

    def __init__(self, services: Services, request: SyncRequest, view: View) -> None:
        self.services = services
        self.request = request
        self.view = view
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self.said: list[str] = []
        self.wrote = False
        self._entries: list[AuditEntry] = []
        self._held = False
        # An intent found here was left by a run that did not finish; one set later is our own.
        self._interrupted = view.link.intent

    # ------------------------------------------------------------ what was decided

    def carry_out(self, plan: Plan) -> bool:
        """Write what the plan says and move the base, field by field, as it gets true.

        What one side refuses does not keep the other from being written. Returns whether deciding again makes sense.
        """
        link = self.view.link
        self.problems = list(plan.problems)
        self._held = bool(plan.held)
        for note in (*plan.notes, *([f"nothing is written: {plan.held}"] if plan.held else [])):
            self.note(note)
        waiting = {*plan.to_partner_center, *plan.to_crm}
        link.base = {name: pair for name, pair in plan.base.items() if name not in waiting} | {
            name: link.base[name] for name in waiting if name in link.base
        }
        refused = False
        for due, write in (
            (bool(plan.to_partner_center), self._patch),
            (plan.invite, self._invite_for_help),
            (not plan.held, self._update_record),
        ):
            try:
                if due:
                    write(plan)
            except Permanent as refusal:
                refused = True
                self.fail(refusal)
        return plan.writes and not refused and link.state != "tombstone"

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def fail(self, refusal: Permanent) -> None:
        """Keep what a remote refused for a person to mend."""
        labels = {
            place: field.label
            for field in self.view.table.fields
            for place in (*field.lens.columns, *field.lens.pointers)
        }
        # Partner Center names fields without the leading slash.
        where = labels.get(refusal.field) or labels.get(f"/{refusal.field}") or refusal.field or refusal.remote
        next_step = refusal.next_step or "Correct it on either side: any change to the deal tries again"
        self.problems.append(Problem(where, str(refusal), next_step))
        self._add("failed", message=str(refusal), request_id=refusal.request_id)

    def conflicted(self, conflict: VersionConflict) -> None:
        """A conditional write met a newer version: nothing was written, and everything is decided anew."""
        self._add("failed", message=f"changed meanwhile, read again: {conflict}", request_id=conflict.request_id)

    def record_is_gone(self) -> None:
        """Somebody deleted the record. It is not made anew, and the referral stays as it is."""
        self.view.link.state = "tombstone"
        self.note(f"{self.view.link.record} does not exist any more; the referral stays as it is")

    def begin(self) -> None:
        """Forget what an earlier round found wrong: it is looked at anew."""
        self.problems = []

    def report(self) -> None:
        """Show in the CRM how things are, unless it shows that already."""
        link = self.view.link
        concerned = bool(link.record) and link.state != "tombstone" and bool(link.referral_id or self.problems)
        if not concerned or self._held or not self._status_changes():
            return
        try:
            self._write_record({}, {})
        except VersionConflict:
            raise
        except Permanent as refusal:
            self.note(f"the CRM's {self.view.table.columns.audit} could not be written: {refusal}")

    # ------------------------------------------------------------ creating

    def create_record(self) -> bool:
        """Create the CRM record of a referral. Returns whether there is one now."""
        view = self.view
        own = view.own
        assert own is not None
        values = view.partner_center_values or {}
        state = values[view.table.lifecycle.name]
        if is_closed(state):
            self.note(f"the referral was closed as {state['state']} before it reached the CRM; nothing is created")
            return False
        table = self.services.field_map.table_for(is_lead=own.is_lead and not is_writable(state))
        if table is None:
            self.note("leads are out of scope (scope.leads in the field map); nothing is created")
            return False
        self._create_record_in(table, own)
        return True

    def convert(self) -> None:
        """Let an accepted lead go on as an opportunity: the one a person made of it, or a new one."""
        view, link = self.view, self.view.link
        lead, lead_table = link.record, view.table
        assert lead is not None
        table = self.services.field_map.tables[lead_table.converts_to]
        own = view.own or self.services.partner_center.get(link.referral_id)
        view.own = own
        opportunity = self.services.crm.converted_to(lead)
        if opportunity:
            view.record = self.services.crm.read(opportunity)
            link.record = opportunity
            view.refresh()
            # A person made it, so nobody has said yet that it is shared.
            self._write_record(self._identity(table, own), {}, f"Goes on from {lead} with referral {own.id}")
            self._agree_on_base()
        else:
            origin = {lead_table.origin: lead.id} if lead_table.origin else {}
            self._create_record_in(table, own, origin)
        self.note(f"{lead} was accepted and goes on as {link.record}")

    def create_referral(self) -> bool:
        """Create the referral of a record, and invite Microsoft if help was chosen. Returns whether there is one."""
        view, link = self.view, self.view.link
        table, crm = view.table, view.crm_values or {}
        if not view.is_shared:
            self.note("Sync with Partner Center is No")
        elif table.converts_to:
            self.note(f"a {table.table} that was born in the CRM is not sent to Partner Center")
        elif crm[table.lifecycle.name]["state"] not in ("on_hold", "open"):
            self.note("the record is closed; no referral is created")
        else:
            new = new_referral(self.services.field_map, table, crm)
            self.problems = new.problems
            if not new.problems:
                self._take_referral(self._found_after_crash() or self._post_referral(new.document))
                link.intent = Intent("invite_microsoft", self.services.clock()) if new.help else None
                self._save()
                if new.help:
                    self._invite(new.help)
                self._agree_on_base()
                return True
        return False

    def _create_record_in(self, table: TableMap, own: Referral, more: Mapping[str, Any] | None = None) -> None:
        view, link = self.view, self.view.link
        new = new_record(table, view.partner_center_of(table))
        self.problems = new.problems
        doing = f"Created from Partner Center referral {own.id}"
        columns = {**new.values, **(more or {}), **self._identity(table, own), **self._shown(table, doing)}
        related = [row for rows in table.related for row in rows.rows(own.document)]
        created = {column: [None, value] for column, value in new.values.items()}
        self._start("crm", f"create {table.table}", created)
        record, is_new = self.services.crm.create(table.table, own.id, columns, related)
        link.record = record.ref
        if is_new:
            self._remember_shown(columns)
        view.record = None
        view.wrote_record(record)
        self._agree_on_base()
        operation = f"create {table.table}" if is_new else f"adopt {table.table}"
        self._done("crm", operation, created if is_new else {}, after=record.version)

    def _post_referral(self, document: Mapping[str, Any]) -> Referral:
        # The event about the new referral may be quicker than we are: it must find this deal by the record.
        self.services.deals.point(self.view.link)
        self.view.link.intent = Intent("create_referral", self.services.clock())
        self._start("partner_center", "create referral", {key: [None, value] for key, value in document.items()})
        return self._create(document)

    def _create(self, document: Mapping[str, Any]) -> Referral:
        try:
            return self.services.partner_center.create(document)
        except OutcomeUnknown:
            raise  # the intent stays: the next run looks first
        except (Permanent, Retryable):
            self.view.link.intent = None  # it certainly did not happen
            raise

    def _found_after_crash(self) -> Referral | None:
        """Return the referral that an interrupted run created, if any. Raises Retryable while one may still show."""
        intent, record = self._interrupted, self.view.link.record
        if intent is None or intent.operation != "create_referral" or record is None:
            return None
        found = self.services.partner_center.find_created(record.id, intent.sent_utc)
        if found is None:
            self._wait_for(intent)
        else:
            self.note(f"referral {found.id} was created by a run that did not finish")
        return found

    def _take_referral(self, own: Referral) -> None:
        view, link = self.view, self.view.link
        view.own = own
        link.referral_id, link.engagement_id = own.id.lower(), own.engagement_id.lower()
        view.refresh()
        self.services.deals.point(link)
        self.said.append(f"Created Partner Center referral {own.id}")
        self._done("partner_center", "create referral", {}, after=own.etag)

    # ------------------------------------------------------------ Microsoft's copy

    def _invite_for_help(self, plan: Plan) -> None:  # noqa: ARG002
        table, values = self.view.table, self.view.crm_values or {}
        assert table.assistance is not None
        field = table.assistance
        code = field.lens.to_partner_center(values[field.name], field.lens.read_partner_center({}))
        if self._interrupted is None:
            self.view.link.intent = Intent("invite_microsoft", self.services.clock())
        self._invite(code)
        self.view.link.base[field.name] = [code, values[field.name]]

    def _invite(self, assistance_code: str) -> None:
        """Create Microsoft's copy in our engagement, or find the one an interrupted run created."""
        view, link, partner_center = self.view, self.view.link, self.services.partner_center
        view.own = view.own or partner_center.get(link.referral_id)
        theirs = None
        if self._interrupted and self._interrupted.operation == "invite_microsoft":
            engagement = partner_center.engagement(link.engagement_id)
            theirs = next((row for row in engagement if row.is_microsofts), None)
            if theirs is None:
                self._wait_for(self._interrupted)
        if theirs is None:
            self._start("microsoft", "invite Microsoft", {"help": [None, assistance_code]})
            theirs = self._create(invitation(view.own.document, assistance_code))
        view.microsoft = theirs
        link.microsoft_referral_id = theirs.id.lower()
        link.intent = self._interrupted = None
        view.refresh()
        self.services.deals.point(link)
        self.said.append("Invited Microsoft")
        self._done("microsoft", "invite Microsoft", {"help": [None, assistance_code]}, after=theirs.etag)

    def _wait_for(self, intent: Intent) -> None:
        left = (intent.sent_utc + SETTLE - self.services.clock()).total_seconds()
        if left > 0:
            raise OutcomeUnknown("an interrupted create may still come to light", retry_after_s=left + 1)

    # ------------------------------------------------------------ writing

    def _patch(self, plan: Plan) -> None:
        view, link = self.view, self.view.link
        # Partner Center closes for good, so the status goes last.
        changes = dict(sorted(plan.to_partner_center.items(), key=lambda item: item[0] == view.table.lifecycle.name))
        lenses = {field.name: field.lens for field in view.table.fields}
        operations = [
            {"op": "replace", "path": pointer, "value": value}
            for name, change in changes.items()
            for pointer, value in _differing(lenses[name], lenses[name].write_partner_center, change).items()
        ]
        before = view.own.etag if view.own else link.referral_etag
        self._start("partner_center", "update referral", _audited(changes))
        view.own = self.services.partner_center.patch(link.referral_id, operations, before)
        view.refresh()
        for name in changes:
            link.base[name] = [(view.partner_center_values or {})[name], plan.base[name][1]]
        self._done("partner_center", "update referral", _audited(changes), before, view.own.etag)

    def _update_record(self, plan: Plan) -> None:
        view, link = self.view, self.view.link
        lenses = {field.name: field.lens for field in view.table.fields}
        columns: dict[str, Any] = {}
        for name, change in plan.to_crm.items():
            columns |= _differing(lenses[name], lenses[name].write_crm, change)
        identity = self._missing_identity()
        if not columns and not identity:
            return
        labels = {field.name: field.label for field in view.table.fields}
        doing = "Updated from Partner Center: " + ", ".join(labels[name] for name in plan.to_crm) if columns else ""
        self._write_record({**columns, **identity}, plan.to_crm, doing)
        if link.state == "tombstone":
            return
        for name in plan.to_crm:
            link.base[name] = [plan.base[name][0], (view.crm_values or {})[name]]

    def _write_record(self, columns: Mapping[str, Any], changes: Mapping[str, Change], doing: str = "") -> None:
        view, link = self.view, self.view.link
        assert link.record is not None
        before = view.record.version if view.record else link.record_version
        columns = {**self._shown(view.table, doing), **columns}
        self._start("crm", f"update {link.record.table}", _audited(changes))
        try:
            written = self.services.crm.update(link.record, columns, before)
        except NotFound:
            self.record_is_gone()
            return
        except Permanent:
            # Part of it may be written: a closing is two calls. What the record holds now has to be read.
            view.record = self.services.crm.read(link.record)
            view.refresh()
            raise
        view.wrote_record(written)
        self._remember_shown(columns)
        assert view.record is not None
        self._done("crm", f"update {link.record.table}", _audited(changes), before, view.record.version)

    # ------------------------------------------------------------ what the CRM shows

    def _identity(self, table: TableMap, own: Referral) -> dict[str, Any]:
        link = self.services.referral_link(own)
        return _filled(
            {
                table.columns.referral_id: own.id.lower(),
                table.columns.referral_link: link,
                table.columns.sync_flag: True,
            }
        )

    def _missing_identity(self) -> dict[str, Any]:
        """The record of a referral that was just created, or adopted, does not say so yet."""
        view, columns = self.view, self.view.table.columns
        shown = str(view.system_value(columns.referral_id) or "").lower()
        if view.record is None or view.own is None or shown == view.link.referral_id:
            return {}
        return self._identity(view.table, view.own)

    def _shown(self, table: TableMap, doing: str) -> dict[str, Any]:
        """The line for the Audit field, newest first in the connector's format, and the status with its check mark."""
        failure = [f"Not synchronized: {self._failure()}"] if self.problems else []
        said = "; ".join(filter(None, [*failure, *self.said, doing, *self.notes])) or "Synchronized"
        line = f"{self.services.clock():%Y-%m-%d %H:%M} - {said}"
        text = f"{line}\n{self.view.link.audit_text}".rstrip()[:AUDIT_TEXT_LENGTH]
        shown = {table.columns.audit: text, table.columns.sync_status: self._status()}
        return _filled(shown) | self._marked_name()

    def _marked_name(self) -> dict[str, Any]:
        """The name with its check mark or cross, where the field map wants one and the record shows another."""
        name, record = self.view.table.marked_name, self.view.record
        if name is None or record is None or name.column not in record.values:
            return {}
        marked = f"{'✗ ' if self.problems else name.mark}{name.read_crm(record.values)}"
        return {} if record.values[name.column] == marked else {name.column: marked}

    def _remember_shown(self, columns: Mapping[str, Any]) -> None:
        link = self.view.link
        link.audit_text = columns.get(self.view.table.columns.audit, link.audit_text)
        self.said = []

    def _status(self) -> str:
        return f"✗ {self._failure()}"[:STATUS_LENGTH] if self.problems else SYNCHRONIZED

    def _failure(self) -> str:
        return " / ".join(map(str, self.problems))

    def _status_changes(self) -> bool:
        column = self.view.table.columns.sync_status
        if column and self.view.record and column in self.view.record.values:
            return bool(self.view.record.values[column] != self._status())
        return self.view.link.failure != self._failure()

    # ------------------------------------------------------------ audit and saving

    def release(self) -> frozenset[Side]:
        """Save what is known now and let go. Returns the sides to look at again, if somebody asked meanwhile."""
        view, link = self.view, self.view.link
        known = view.partner_center_values is not None
        link.unsettled = ALL_SIDES - view.settled() if known and not self._held else ALL_SIDES
        view.remember_versions()
        self.services.deals.point(link)
        self._keep_failure()
        if link.state != "tombstone":
            link.state = "failed" if self.problems else "active"
        if not self._entries or self.notes:
            self._add("looked", notes=(*self.notes, *map(str, self.problems)))
        marks = self.services.deals.release(link, self._entries)
        self._entries, self.notes, self.said = [], [], []
        return marks

    def abandon(self, error: Exception) -> None:
        """Let go without having finished: versions stay as they were, so that the message is not taken for known."""
        self.view.link.unsettled = ALL_SIDES
        self._add("failed", message=f"{type(error).__name__}: {error}")
        try:
            while self.services.deals.release(self.view.link, self._entries):
                self._entries = []
        except CosellError as unsaved:
            # Nothing is lost: the claim expires and the message comes back.
            log.warning("sync.not_released", extra={"deal": self.view.link.deal, "reason": str(unsaved)})

    def outcome(self) -> Outcome:
        from shared.sync import Outcome

        deal = self.view.link.deal
        if self.problems:
            return Outcome("failed", deal, self._failure())
        return Outcome("written" if self.wrote else "agreed", deal)

    def _keep_failure(self) -> None:
        link, failure = self.view.link, self._failure()
        if failure and failure != link.failure:
            first = self.problems[0]
            self.services.failures.put(
                link.deal,
                failure,
                next_step=first.next_step,
                field=first.label,
                correlation_id=self.request.correlation_id,
            )
        elif link.failure and not failure:
            self.services.failures.clear(link.deal)
        link.failure = failure

    def _agree_on_base(self) -> None:
        """After a create: fields on which both sides agree are the base; the rest is decided like a first contact."""
        view = self.view
        there, here = view.partner_center_values or {}, view.crm_values or {}
        view.link.base = {
            field.name: [there[field.name], here[field.name]]
            for field in view.table.fields
            if _agrees(field.lens, there[field.name], here[field.name])
        }

    def _start(self, side: Side, operation: str, fields: dict[str, list[Any]]) -> None:
        self._add("started", side=side, operation=operation, fields=fields)
        self._save()

    def _done(
        self, side: Side, operation: str, fields: dict[str, list[Any]], before: str = "", after: str = ""
    ) -> None:
        self.wrote = True
        self._add("done", side=side, operation=operation, fields=fields, version_before=before, version_after=after)

    def _add(self, phase: Literal["started", "done", "failed", "looked"], **details: Any) -> None:
        self._entries.append(
            AuditEntry(
                at_utc=self.services.clock(),
                phase=phase,
                cause=self.request.cause,
                correlation_id=self.request.correlation_id,
                event=self.request.event or "",
                **details,
            )
        )

    def _save(self) -> None:
        self.services.deals.save(self.view.link, self._entries)
        self._entries = []


def _agrees(lens: Lens, there: Value, here: Value) -> bool:
    try:
        return lens.agree(there, here)
    except ValueError:  # a value without counterpart agrees with nothing
        return False


def _differing(lens: Lens, write: Callable[[Value], dict[str, Any]], change: Change) -> dict[str, Any]:
    """What has to be sent for a change: of an amount with its currency only what moved; a status is sent as a pair."""
    after = write(change.after)
    if isinstance(lens, Lifecycle):
        return after
    before = write(change.before)
    return {place: raw for place, raw in after.items() if place not in before or before[place] != raw}


def _audited(changes: Mapping[str, Change]) -> dict[str, list[Any]]:
    return {name: [change.before, change.after] for name, change in changes.items()}


def _filled(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the columns the field map does not have."""
    return {column: value for column, value in columns.items() if column}

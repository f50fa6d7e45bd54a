"""What is known of one deal while it is worked on: the link, what was read of each side, and the canonical values.

A side that nobody reported changed is not read but stands at its base.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from dataclasses import field as member
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from shared.decide import EMPTY, Deal, without_counterpart
from shared.errors import NotFound
from shared.find import Found
from shared.lenses import Unmapped, Value
from shared.mapping import Field, TableMap
from shared.model import ALL_SIDES, Link, Record, Referral, Side, ticks
from shared.problems import Problem

if TYPE_CHECKING:
    from shared.services import Services


@dataclass
class View:
    """`own` and `microsoft` are the two referrals of the engagement, `record` the CRM's; None: not read in this run.

    `partner_center` and `crm` are the canonical values by field name, empty until the first read. `fresh`: sides that
    finding the deal read already, which need no second read; `overdue`: those that an earlier run left unsettled.
    `without_microsoft`: Microsoft's copy was looked for and is not there any more.
    """

    services: Services
    link: Link
    own: Referral | None = None
    microsoft: Referral | None = None
    record: Record | None = None
    partner_center: Mapping[str, Value] = member(default_factory=dict)
    crm: Mapping[str, Value] = member(default_factory=dict)
    fresh: frozenset[Side] = frozenset()
    overdue: frozenset[Side] = frozenset()
    unreadable: dict[str, Problem] = member(default_factory=dict)
    closed: frozenset[str] = frozenset()
    without_microsoft: bool = False

    def __post_init__(self) -> None:
        self.overdue = self.link.unsettled
        for field in self.table.fields:
            if self.link.places.get(field.name, field.place) != field.place:
                self.link.base.pop(field.name, None)  # the map has moved it: a first contact, not a change

    @classmethod
    def of(cls, services: Services, link: Link, found: Found) -> View:
        view = cls(services, link, found.own, found.microsoft, found.record)
        view._adopt_ids()
        if link.base or link.referral_updated or link.record_version:
            # Read before the claim: another run may have seen something newer since.
            view.own = view.microsoft = view.record = None
        read: dict[Side, object] = {"partner_center": view.own, "microsoft": view.microsoft, "crm": view.record}
        view.fresh = frozenset(side for side, what in read.items() if what)
        return view

    @property
    def table(self) -> TableMap:
        """The map of the record's table; before there is a record, of the table that takes opportunities."""
        tables = self.services.field_map
        if self.link.record:
            return tables.tables[self.link.record.table]
        chosen = tables.table_for(is_lead=False)
        assert chosen is not None
        return chosen

    def read(self, sides: frozenset[Side]) -> None:
        """Read the sides named, and those whose base does not say what they hold. Raises NotFound and the rest."""
        wanted = sides | self._unknown()
        sides = wanted - self.fresh
        self.fresh = self.overdue = frozenset()
        link, services = self.link, self.services
        if "partner_center" in sides and link.referral_id:
            self.own = services.partner_center.get(link.referral_id)
            self._adopt_ids()
        if "microsoft" in sides:
            self._read_microsoft()
        if "crm" in sides and link.record:
            self.record = services.crm.read(link.record)
        self._adopt_ids()
        if "partner_center" in sides and link.referral_id and self.own is None:
            self.own = services.partner_center.get(link.referral_id)  # which only the record has told
            self._adopt_ids()
        self.refresh()
        if wanted == ALL_SIDES:
            link.mapped = self.table.fingerprint

    def finish_writing(self, *, whole: bool = False) -> None:
        """A run died in a write: what stands there as it wanted is its own work, not somebody's change. `whole`: all of
        it was written, so what differs by now, somebody has changed since."""
        for name in self.link.writing if whole else self.stands_as_written():
            self.link.base[name] = self.link.writing[name][1:]
        self.link.writing = {}

    def stands_as_written(self) -> list[str]:
        """Return the fields of the write under way that hold what it was to write."""
        standing = []
        for name, (side, there, here) in self.link.writing.items():
            written, found = (there, self.partner_center) if side == "partner_center" else (here, self.crm)
            if name in found and found[name] == written:
                standing.append(name)
        return standing

    def refresh(self) -> None:
        """Take the canonical values anew from what was read."""
        self.unreadable = self._closed()
        self.closed = frozenset(self.unreadable)
        self.partner_center = self.partner_center_of(self.table)
        self.crm = {field.name: self._crm(field) for field in self.table.fields}

    def partner_center_of(self, table: TableMap) -> dict[str, Value]:
        """Return Partner Center's values as this table's fields see them."""
        return {field.name: self._partner_center(field) for field in table.fields}

    def wrote_record(self, record: Record) -> None:
        """Take over what a write brought back; it may lack columns of related rows, which a write does not change."""
        known = self.record.values if self.record else {}
        self.record = replace(record, values={**known, **record.values})
        self.refresh()

    def deal(self) -> Deal:
        """Return what deciding needs."""
        return Deal(
            table=self.table,
            base=self.link.base,
            partner_center=self.partner_center,
            crm=self.crm,
            shared=self.is_shared,
            closed=self.closed,
            invited=bool(self.link.microsoft_referral_id) or bool(self.own and self._invited_by_microsoft(self.own)),
            partner_center_updated=_moment(self.own.updated) if self.own else None,
            crm_modified=self.record.modified if self.record else None,
            stopped=self.link.stopped,
        )

    @property
    def is_shared(self) -> bool:
        """The seller's switch; a record that was not read counts as shared, because held deals are always read."""
        flag = self.table.columns.sync_flag
        return not flag or self.record is None or bool(self.record.values.get(flag))

    def system_value(self, column: str) -> Any:
        return self.record.values.get(column) if self.record and column else None

    def settled(self) -> frozenset[Side]:
        """Return the sides whose values are all in the base; none as long as nothing was read."""
        if not self.partner_center:
            return frozenset()
        base = self.link.base
        open_there = any(name not in base or base[name][0] != value for name, value in self.partner_center.items())
        open_here = any(name not in base or base[name][1] != value for name, value in self.crm.items())
        unsettled: set[Side] = {"crm"} if open_here else set()
        if open_there:
            unsettled |= {"partner_center", "microsoft"} if self.link.microsoft_referral_id else {"partner_center"}
        return ALL_SIDES - unsettled

    def agree_on_base(self, known: Mapping[str, list[Any]] | None = None) -> None:
        """After a create: fields on which both sides agree are the base; the rest is decided like a first contact, but
        for those whose base is `known`."""
        self.link.base = {**(known or {}), **self.agreed(self.partner_center)}

    def agreed(self, partner_center: Mapping[str, Value]) -> dict[str, list[Any]]:
        """Return the base of those fields on which these values of Partner Center agree with what the CRM holds."""
        return {
            field.name: [partner_center[field.name], self.crm[field.name]]
            for field in self.table.fields
            if field.name in partner_center and _agree(field, partner_center[field.name], self.crm[field.name])
        }

    def remember_versions(self) -> None:
        """Put the versions of what was read into the link, so that reports about it need no second look."""
        if self.own:
            self.link.referral_etag, self.link.referral_updated = self.own.etag, self.own.updated
        if self.microsoft:
            self.link.microsoft_updated = self.microsoft.updated
        if self.record:
            self.link.record_version = self.record.version
            self.link.unlisted = not (self.is_shared or self.system_value(self.table.columns.referral_id))

    def remember_places(self) -> None:
        """Put into the link where the values of its base stood."""
        self.link.places |= {field.name: field.place for field in self.table.fields if field.name in self.link.base}

    def _unknown(self) -> frozenset[Side]:
        is_mapped = self.link.mapped in ("", self.table.fingerprint)
        if is_mapped and all(field.name in self.link.base for field in self.table.fields):
            return self.overdue
        return ALL_SIDES

    def _read_microsoft(self) -> None:
        link, partner_center = self.link, self.services.partner_center
        if link.microsoft_referral_id:
            try:
                self.microsoft = partner_center.get(link.microsoft_referral_id)
            except NotFound:
                # What it held stands at the base. Its id stays: Microsoft is not invited a second time.
                self.microsoft, self.without_microsoft = None, True
        elif link.engagement_id and not link.intent and (link.base or self._is_co_sell):
            engagement = partner_center.engagement(link.engagement_id)
            self.microsoft = next((row for row in engagement if row.is_microsofts), None)

    @property
    def _is_co_sell(self) -> bool:
        """A deal not seen before: of a private one Microsoft has no copy, so looking for it is spared."""
        return bool(self.own and self.own.document.get("type") == "Shared")

    def _adopt_ids(self) -> None:
        link = self.link
        if self.own:
            link.referral_id, link.engagement_id = self.own.id.lower(), self.own.engagement_id.lower()
            if link.intent and link.intent.operation == "create_referral":
                link.intent = None  # here it is: the event was quicker than the run that created it
        if self.microsoft:
            link.microsoft_referral_id = self.microsoft.id.lower()
        if self.record and link.record is None:
            link.record = self.record.ref
        if self.record and not link.referral_id:
            link.referral_id = str(self.system_value(self.table.columns.referral_id) or "").strip().lower()
        if self.record and not link.audit_text:
            link.audit_text = str(self.system_value(self.table.columns.audit) or "")

    def _closed(self) -> dict[str, Problem]:
        """The fields, and the columns of our own, that the CRM does not let us read: named, and left alone."""
        why = self.record.unreadable if self.record else {}
        places = {field.name: (field.label, field.lens.columns) for field in self.table.fields}
        places |= {column: (column, (column,)) for column in self.table.columns.optional}
        return {
            name: Problem(label, f"{column} may not be read", why[column], "permission")
            for name, (label, columns) in places.items()
            for column in columns
            if column in why
        }

    def _base(self, field: Field) -> Sequence[Value]:
        return self.link.base.get(field.name) or (field.lens.read_partner_center({}), field.lens.read_crm({}))

    def _partner_center(self, field: Field) -> Value:
        """A field's value by whose copy holds it; what was not read stands at its base."""
        before = self._base(field)[0]
        own = self._read_of(self.own, field, before)
        theirs = self._read_of(self.microsoft, field, before)
        if field.copy == "own":
            return own
        if field.copy == "microsoft":
            return theirs
        # Either may hold it: what was read counts before what is remembered, Microsoft's before ours.
        candidates = (*((theirs,) if self.microsoft else ()), *((own,) if self.own else ()), before)
        return next((value for value in candidates if value not in EMPTY), before)

    def _read_of(self, referral: Referral | None, field: Field, before: Value) -> Value:
        if referral is None:
            return before
        document = referral.document
        return self._readable(field, "Partner Center", before, lambda: field.lens.read_partner_center(document))

    def _readable(self, field: Field, sender: str, before: Value, read: Callable[[], Value]) -> Value:
        """A value that makes no sense is named and left alone: its field stands at its base, the others go on."""
        try:
            return read()
        except Unmapped as unreadable:
            self.unreadable[field.name] = without_counterpart(field, sender, unreadable)
            return before

    def _crm(self, field: Field) -> Value:
        """A field's value. What came back with a write may lack columns of related rows: those stand at the base."""
        base, before = self.link.base.get(field.name), self._base(field)[1]
        columns = field.lens.columns
        values = self.record.values if self.record else {}
        read = {column: values[column] for column in columns if column in values}
        if read and base and len(read) < len(columns):
            read = {**field.lens.write_crm(before), **read}
        if len(read) < len(columns):
            return before
        return self._readable(field, "the CRM", before, lambda: field.lens.read_crm(read))

    @staticmethod
    def _invited_by_microsoft(own: Referral) -> bool:
        inviter = ((own.document.get("inviteContext") or {}).get("invitedBy") or {}).get("organizationId")
        return own.document.get("direction") == "Incoming" and str(inviter or "").lower() == "msft"


def _agree(field: Field, partner_center: Value, crm: Value) -> bool:
    try:
        return field.lens.agree(partner_center, crm)
    except Unmapped:  # a value without counterpart agrees with nothing
        return False


def _moment(text: str) -> datetime | None:
    try:
        return datetime(1, 1, 1, tzinfo=UTC) + timedelta(microseconds=ticks(text) // 10)
    except ValueError:
        return None

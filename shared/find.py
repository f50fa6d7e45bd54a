"""Finds the deal that a message is about: by our own referral, by Microsoft's copy, or by a CRM record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.errors import Duplicate, NotFound, Refused
from shared.messages import SyncRequest
from shared.model import GUID, Link, Record, RecordRef, Referral
from shared.store.deals import deal_of_record, deal_of_referral

if TYPE_CHECKING:
    from shared.services import Services


@dataclass
class Found:
    """A deal, its link if it has one, and what had to be read on the way (so that nothing is read twice)."""

    deal: str
    link: Link | None = None
    own: Referral | None = None
    microsoft: Referral | None = None
    record: Record | None = None


@dataclass(frozen=True)
class Nothing:
    """The message is about no deal of ours; `why` in words. `settled`: the key under which it had failed before."""

    why: str
    settled: str = ""


def find_deal(request: SyncRequest, services: Services) -> Found | Nothing:
    """Return the deal of a message. Calls an outside system only for a referral or record not seen before."""
    known = services.deals.find(referral_id=request.referral_id, record=request.record)
    if known:
        link = services.deals.load(known)
        # A run that died before it saved left a link that does not name its record yet.
        if not request.record or (link and link.record):
            return Found(known, link)
    if request.record:
        return _by_record(request, request.record, services)
    return _by_referral(request.referral_id or "", services)


def _by_referral(referral_id: str, services: Services) -> Found | Nothing:
    read = services.partner_center.get(referral_id)
    if not read.is_microsofts:
        return _of_own_referral(read, None, services)
    # The event named Microsoft's copy: our own referral is the other one of the engagement.
    known = services.deals.find(engagement_id=read.engagement_id)
    if known:
        return Found(known, services.deals.load(known), microsoft=read)
    own = next((row for row in services.partner_center.engagement(read.engagement_id) if not row.is_microsofts), None)
    if own is None:
        return Nothing(f"engagement {read.engagement_id} has no referral of ours")
    return _of_own_referral(own, read, services)


def _of_own_referral(own: Referral, microsoft: Referral | None, services: Services) -> Found | Nothing:
    """A referral that names a record of ours belongs to that record's deal. If that deal has another, it is a deal of
    its own when it came from outside. Raises Duplicate when it is of our own making: a person copied one, or a create
    took effect so late that it had been repeated. Making another record of it would only carry the mistake over.
    """
    deal = deal_of_referral(own.id)
    for table in services.field_map.tables:
        named = services.crm.record_named(table, own.external_reference_id)
        known = services.deals.find(record=named) if named else None
        link = services.deals.load(known) if known else None
        if known and (link is None or link.referral_id in ("", own.id.lower())):
            return Found(known, link, own=own, microsoft=microsoft)
        if link and own.is_incoming:
            return Found(deal, services.deals.load(deal), own=own, microsoft=microsoft)
        if link and own.status == "Closed":
            why = (
                f"{own.id} names {named}, whose referral is {link.referral_id}; it is closed, so nothing is to be done"
            )
            return Nothing(why, settled=deal)
        if link:
            raise Duplicate(
                f"referral {own.id} names {named}, which belongs to referral {link.referral_id} already",
                next_step="Close the one too many in Partner Center, or correct the CRM ID in it; then replay",
                remote="Partner Center",
                field="externalReferenceId",
            )
    return Found(deal, services.deals.load(deal), own, microsoft, _named_record(own, services))


def _named_record(own: Referral, services: Services) -> Record | None:
    """The opportunity whose id somebody entered as the referral's CRM ID in Partner Center, if it is free."""
    table = services.field_map.table_for(is_lead=False)
    named = services.crm.record_named(table.table, own.external_reference_id) if table else None
    if table is None or named is None:
        return None
    try:
        record = services.crm.read(named)
    except NotFound:
        return None
    return None if record.values.get(table.columns.referral_id) else record


def _by_record(request: SyncRequest, ref: RecordRef, services: Services) -> Found | Nothing:
    if request.deleted:
        return Nothing(f"{ref} was deleted and was never linked")
    table = services.field_map.tables.get(ref.table)
    if table is None:
        return Nothing(f"the field map has no table {ref.table}")
    try:
        record = services.crm.read(ref)
    except NotFound:
        return Nothing(f"{ref} does not exist")
    referral_id = str(record.values.get(table.columns.referral_id) or "").strip().lower()
    if referral_id and not GUID.fullmatch(referral_id):
        raise Refused(
            f"{ref} holds {referral_id!r}, which is no referral id",
            next_step="Clear the field, or enter the id of the referral in Partner Center, and save the record",
            remote=services.crm.name,
            field=table.columns.referral_id,
        )
    if referral_id:
        # Linked before we came (by the Power Automate connector), or by us just before a crash.
        deal = services.deals.find(referral_id=referral_id) or deal_of_referral(referral_id)
        return Found(deal, services.deals.load(deal), record=record)
    if table.columns.sync_flag and not record.values.get(table.columns.sync_flag):
        return Nothing(f"{ref} is not to be synchronized")
    deal = deal_of_record(ref)
    return Found(deal, services.deals.load(deal), record=record)

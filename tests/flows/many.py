"""Makes many deals out of one that is in agreement: rows put in place, not played, so that thousands take seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any
from uuid import UUID

from shared.model import Link, RecordRef
from shared.store.deals import deal_of_record
from tests.flows.world import World

Clone = Callable[[Any, str, str], str]
"""Given the CRM's organization, a record's id and the referral id of its clone; returns the clone's id."""


def multiply(world: World, record_id: str, times: int) -> None:
    """There are as many more deals like this one, linked and in agreement. Opportunities born in the CRM, private."""
    table = world.desk.opportunity
    model, referral = world.link_of(record_id), world.referral_of(record_id)
    clone = CLONES[world.desk.crm]
    referral_of: dict[str, str] = {}
    for number in range(times):
        referral_id, engagement_id = (str(UUID(int=(kind << 64) + number)) for kind in (1, 2))
        new_id = clone(world.crm.organization, record_id, referral_id)
        own = {"id": referral_id, "engagementId": engagement_id, "externalReferenceId": new_id}
        world.pc.referrals[referral_id] = copy = {**deepcopy(referral), **own}
        world.pc._engagements[engagement_id] = [copy]
        referral_of[new_id] = referral_id
    for ref, version in _versions(world, table).items():
        if ref.id in referral_of:
            _link(world, model, ref, version, referral_of[ref.id])


def _link(world: World, model: Link, ref: RecordRef, version: str, referral_id: str) -> None:
    deals = world.services.deals
    link = deals.claim(deal_of_record(ref), sides=frozenset())
    assert link
    for name in ("state", "referral_etag", "referral_updated", "unsettled", "base", "audit_text", "mapped", "places"):
        setattr(link, name, getattr(model, name))
    link.record, link.record_version, link.referral_id = ref, version, referral_id
    link.engagement_id = world.pc.referrals[referral_id]["engagementId"]
    deals.point(link)
    deals.release(link)


def _versions(world: World, table: str) -> Mapping[RecordRef, str]:
    found: dict[RecordRef, str] = {}
    page = world.services.crm.shared_records(table, None)
    while True:
        found |= {each.ref: each.version or "" for each in page.records}
        if page.after is None:
            return found
        page = world.services.crm.shared_records(table, page.after)


def _in_dynamics365(organization: Any, record_id: str, referral_id: str) -> str:
    rows = organization.rows["opportunity"]
    new_id, version = str(UUID(int=(3 << 64) + len(rows))), organization.next_version()
    own = {"opportunityid": new_id, "cosell_referralid": referral_id, "versionnumber": version}
    rows[new_id] = replace(rows[record_id], id=new_id, version=version, values={**rows[record_id].values, **own})
    return new_id


def _in_salesforce(organization: Any, record_id: str, referral_id: str) -> str:
    rows = organization.rows["Opportunity"]
    new_id = organization.ids.next("006")
    own = {"Id": new_id, "Referral_Identifier__c": referral_id}
    rows[new_id] = replace(rows[record_id], id=new_id, values={**rows[record_id].values, **own})
    return new_id


CLONES: Mapping[str, Clone] = {"dynamics365": _in_dynamics365, "salesforce": _in_salesforce}

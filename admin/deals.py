"""Which deal an operator means, and how deals are shown. Asks Storage only, so that no other setting is needed."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

from shared.errors import SettingsError
from shared.mapping import TableMap
from shared.messages import SyncRequest
from shared.model import GUID, Link, RecordRef
from shared.services import Services
from shared.store.deals import deal_of_record, deal_of_referral

TABLES = ("opportunity", "lead", "Opportunity", "Lead")
"""What the CRMs call the tables that hold deals."""

BEGINNINGS = ("pc_", "crm_")
"""How the keys of deals begin. What else fails - a listener, an event nobody can read - cannot be looked at again."""

_NAME = re.compile(r"[\w:-]+")

HOW_NAMED = (
    "A deal is named by its key (pc_<referral id>, crm_<table>_<record id>, as python -m admin failures shows it), by "
    "the id of its referral, or by its record: opportunity:<record id>; for a record that is linked the id will do"
)


class UnknownDeal(ValueError):
    def __init__(self, names: list[str]) -> None:
        super().__init__(f"No deal is known as {', '.join(map(repr, names))}. {HOW_NAMED}")


def known(services: Services, names: list[str]) -> list[str]:
    """Return the keys of the deals. Raises UnknownDeal for all that are none."""
    keys = {name: find(services, name) for name in names}
    if unknown := [name for name, key in keys.items() if key is None]:
        raise UnknownDeal(unknown)
    return list(dict.fromkeys(key for key in keys.values() if key))


def find(services: Services, name: str) -> str | None:
    """Return the key of the deal that somebody names so, None when Storage knows none."""
    if not _NAME.fullmatch(name):
        return None
    if name.startswith(BEGINNINGS) and services.deals.load(name):
        return name
    referral_id, records = meant(name)
    for record in records:
        if deal := services.deals.find(record=record):
            return deal
        if services.deals.load(deal := deal_of_record(record)):  # one that could never be read is in no index
            return deal
    if not referral_id:
        return None
    deal = services.deals.find(referral_id=referral_id) or services.deals.find(engagement_id=referral_id)
    if deal is None and services.deals.load(deal_of_referral(referral_id)):
        return deal_of_referral(referral_id)
    return deal


def meant(name: str) -> tuple[str, list[RecordRef]]:
    """Return the referral id ("" if it can be none) and the records that a name may stand for."""
    kind, _, rest = name.partition("_")
    if kind == "pc":
        return (rest if GUID.fullmatch(rest) else ""), []
    if kind == "crm":
        table, _, id_ = rest.partition("_")
    else:
        table, _, id_ = name.rpartition(":")
    tables = [each for each in TABLES if table.lower() in ("", each.lower())]
    return (name if GUID.fullmatch(name) else ""), [RecordRef(each, id_) for each in tables if id_]


def request(services: Services, deal: str) -> SyncRequest:
    """Return the message that has a known deal looked at, both sides, whatever is known of them."""
    link = services.deals.load(deal)
    if link and link.record:
        return SyncRequest(cause="operator", record_table=link.record.table, record_id=link.record.id)
    kind, _, rest = deal.partition("_")
    if kind == "pc":
        return SyncRequest(cause="operator", referral_id=rest)
    table, _, record_id = rest.partition("_")
    return SyncRequest(cause="operator", record_table=table, record_id=record_id)


def name_of(link: Link | None) -> str:
    """Return what people call the deal, "" when that is not known yet: before both sides have agreed once."""
    there, here = (link.base.get("name") if link else None) or ("", "")
    return str(there or here or "")


def title(deal: str, link: Link | None) -> str:
    name = name_of(link)
    return f"{deal}  “{name}”" if name else deal


def ids(deal: str, link: Link | None) -> list[str]:
    """Return a line for the record and one for the referral, so that a person can open them; none for what has none."""
    if link is None:
        return []
    record, referral_id = _sides(deal, link)
    engagement = f", engagement {link.engagement_id}" if link.engagement_id else ""
    return [f"record: {record or 'none'}", f"referral: {referral_id or 'none'}{engagement}"]


def facts(deal: str, link: Link | None) -> dict[str, Any]:
    """Return the same, and the name, for machines."""
    if link is None:
        return {}
    record, referral_id = _sides(deal, link)
    return {
        "name": name_of(link),
        "record": {"table": record.table, "id": record.id} if record else None,
        "referral_id": referral_id,
        "engagement_id": link.engagement_id,
        "microsoft_referral_id": link.microsoft_referral_id,
    }


def _sides(deal: str, link: Link) -> tuple[RecordRef | None, str]:
    """Of a deal that could never be read, its key tells more than its link."""
    referral_id, records = meant(deal)
    return link.record or next(iter(records), None), link.referral_id or referral_id


def tables(services: Services) -> dict[str, TableMap]:
    """Return the field map's tables, none when the settings do not say which map: names then have to do for labels."""
    with suppress(SettingsError):
        return dict(services.field_map.tables)
    return {}

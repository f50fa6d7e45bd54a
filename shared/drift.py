"""What a full sweep compares, what it calls a difference, and what has become of one since. Performs no I/O.

A link remembers the version of each side at which both agreed. A side that shows another one has moved, whatever
became of the event that should have told.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from shared.mapping import FieldMap
from shared.model import Link, RecordChange, RecordRef, Referral, ticks
from shared.store.deals import deal_of_record, deal_of_referral, place_of_record, place_of_referral

Reason = Literal[
    "referral newer",
    "record newer",
    "listed again",
    "unlinked referral",
    "unlinked record",
    "field map changed",
    "unfinished",
    "not listed",
]
Fate = Literal["healed", "waits for a person", "still to come"]

FEW, SHARE = 5, 0.05
"""More links than this, and than this share of all, are not gone: something keeps us from seeing them."""


@dataclass(frozen=True)
class Listed:
    """A referral or record as its side lists it.

    `place`: where the index names its deal. `wanted`: without a link, it should have one. `engagement_id`: set on
    Microsoft's copy, which belongs to our own referral's deal.
    """

    place: str
    deal: str
    version: str
    wanted: bool
    referral_id: str | None = None
    record: RecordRef | None = None
    engagement_id: str = ""


@dataclass(frozen=True)
class Difference:
    """Why a deal needs a fresh look. `deal` is where it is found, unless the index knows better.

    `etag`: of the link when it was seen to differ, "" when there was none.
    """

    reason: Reason
    deal: str
    etag: str = ""
    referral_id: str | None = None
    record: RecordRef | None = None


def listed_referral(referral: Referral) -> Listed:
    """Of what was closed nothing is made, and our own referral brings Microsoft's with it."""
    return Listed(
        place_of_referral(referral.id),
        deal_of_referral(referral.id),
        referral.updated,
        wanted=referral.status != "Closed" and not referral.is_microsofts,
        referral_id=referral.id.lower(),
        engagement_id=referral.engagement_id if referral.is_microsofts else "",
    )


def listed_record(record: RecordChange) -> Listed:
    return Listed(
        place_of_record(record.ref),
        deal_of_record(record.ref),
        record.version or "",
        wanted=record.shared,
        record=record.ref,
    )


def is_pair(listed: Listed, link: Link) -> bool:
    """Whether the link pairs just this referral or record; not one that it left behind, nor Microsoft's copy."""
    return link.record == listed.record if listed.record else link.referral_id == listed.referral_id


def why_it_differs(listed: Listed, link: Link | None, field_map: FieldMap, now: datetime) -> Reason | None:
    """Return why a side has something the link does not know; None when all is known. Raises ValueError: no time."""
    if link is None:
        return _unlinked(listed) if listed.wanted else None
    if _lacks(link, listed):
        # Microsoft's copy is wanted once there is a link of its engagement.
        wanted = (listed.wanted or listed.engagement_id) and link.state not in ("failed", "tombstone")
        return _unlinked(listed) if wanted else None
    if field_map.has_changed_for(link) and link.state != "tombstone":
        # First of all, for Salesforce's versions depend on which columns are read.
        return "field map changed" if is_counted(listed, link) else None
    if newer := _newer(listed, link):
        return newer
    return "unfinished" if is_counted(listed, link) and link.state != "failed" and is_unfinished(link, now) else None


def is_counted(listed: Listed, link: Link) -> bool:
    """Whether this is where the pair counts: it is seen on both sides, and its state is that of both."""
    return is_pair(listed, link) and (bool(listed.referral_id) or not link.referral_id)


def is_gone(place: str, link: Link | None, now: datetime) -> bool:
    """Whether the link, which names what no side lists any more, has to be looked at for it."""
    if link is None or link.state in ("tombstone", "failed") or is_held(link, now):
        return False
    if link.record and place == place_of_record(link.record):
        return not link.unlisted
    return place == place_of_referral(link.referral_id)


def is_held(link: Link, now: datetime) -> bool:
    return link.claim_until_utc is not None and link.claim_until_utc > now


def is_unfinished(link: Link, now: datetime) -> bool:
    """Whether a run died, or left something to do, and nobody is at it.

    `unsettled` says less: a deal that is switched off rests that way. What a run that gave up did not settle shows by
    its version, which it leaves as it was.
    """
    left = link.state == "new" or link.claim or link.intent or link.look_again or link.writing
    return bool(left) and not is_held(link, now)


def brakes(*, listed: int, linked: int, missing: int) -> bool:
    """Whether so much is missing on a side that its list is not to be believed."""
    return bool(missing) and (not listed or missing > max(FEW, SHARE * linked))


def fate(difference: Difference, link: Link | None, now: datetime) -> Fate:
    """Return what has become of a difference, given the deal's link as it is now."""
    if link is None or link.etag == difference.etag or is_held(link, now):
        return "still to come"
    if link.state == "failed" or link.failure:
        return "waits for a person"
    return "still to come" if link.state != "tombstone" and is_unfinished(link, now) else "healed"


def _unlinked(listed: Listed) -> Reason:
    return "unlinked record" if listed.record else "unlinked referral"


def _lacks(link: Link, listed: Listed) -> bool:
    """Whether the link names nothing of this kind yet."""
    if listed.record:
        return link.record is None
    return not (link.microsoft_referral_id if listed.engagement_id else link.referral_id)


def _newer(listed: Listed, link: Link) -> Reason | None:
    """Versions are only ever compared with the same system's. What the link names no more is not compared at all."""
    if listed.record:
        moved = listed.record == link.record and listed.version != link.record_version
        return "record newer" if moved and link.gone != "partner_center" else None
    if link.gone == "partner_center" and listed.referral_id == link.referral_id:
        return "listed again"
    known = {link.referral_id: link.referral_updated, link.microsoft_referral_id: link.microsoft_updated}
    before = known.get(listed.referral_id or "")
    if before is None or link.state == "tombstone":
        return None
    return "referral newer" if ticks(listed.version) > (ticks(before) if before else 0) else None

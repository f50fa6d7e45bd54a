"""Finds what the webhook missed: referrals updated since the watermark become messages. The watermark moves last."""

from __future__ import annotations

import json

from shared.errors import CosellError
from shared.logs import log
from shared.messages import SyncRequest
from shared.model import TICKS_PER_S, Referral, ticks
from shared.services import Services

CURSOR = "sweep"
SIGN = "sweep"
OVERLAP_S = 600
"""How far each sweep looks back behind the newest referral it knows: an update may become visible late."""

REMEMBERED = 5_000


def sweep(services: Services) -> int:
    """Sweep once; return how many messages were sent. An idle sweep is one request.

    The first sweep takes every open referral there is, so that an installation begins with the whole picture.
    """
    try:
        sent = _sweep(services)
    except CosellError as error:
        services.signs.failed(SIGN, str(error))
        raise
    services.signs.well(SIGN)
    return sent


def _sweep(services: Services) -> int:
    cursor = services.cursors.load(CURSOR)
    state = json.loads(cursor.value) if cursor.value else {"watermark": None, "seen": {}}
    seen: dict[str, str] = dict(state["seen"])
    watermark: str | None = state["watermark"]
    sent = 0
    for page in services.partner_center.updated_since(watermark, overlap_s=OVERLAP_S):
        for referral in page:
            if not _has_time(referral):
                log.error("sweep.referral_without_time", extra={"referral": referral.id, "updated": referral.updated})
                continue
            if seen.get(referral.id) != referral.updated:
                seen[referral.id] = referral.updated
                # What we know already may have changed as long as there was no watermark.
                if watermark or _is_worth_a_look(referral) or services.deals.find(referral_id=referral.id):
                    services.queue.send(_request(referral))
                    sent += 1
    if seen != state["seen"]:
        services.cursors.save(CURSOR, _state(seen), cursor.etag)
    if sent:
        log.info("sweep.found", extra={"messages": sent})
    return sent


def _is_worth_a_look(referral: Referral) -> bool:
    """Whether the first sweep takes it: of what was closed nothing is made, and ours brings Microsoft's with it."""
    return referral.status != "Closed" and not referral.is_microsofts


def _has_time(referral: Referral) -> bool:
    try:
        return ticks(referral.updated) > 0
    except ValueError:
        return False


def _request(referral: Referral) -> SyncRequest:
    return SyncRequest(cause="sweep", referral_id=referral.id.lower(), version=referral.updated)


def _state(seen: dict[str, str]) -> str:
    """The newest update is the watermark; of what was seen only the overlap has to be remembered."""
    newest = max(seen.values(), key=ticks)
    horizon = ticks(newest) - OVERLAP_S * TICKS_PER_S
    recent = sorted((item for item in seen.items() if ticks(item[1]) >= horizon), key=lambda item: ticks(item[1]))
    kept = dict(recent[-REMEMBERED:])  # a row in Table Storage ends at 1 MiB; the rest is only looked at once more
    return json.dumps({"watermark": newest, "seen": kept})

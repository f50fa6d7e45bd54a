"""/updated and /deleted: the ids of rows changed or deleted in a window, and up to when that is certain.

Seconds of both ends are truncated; `latestDateCovered` is pulled back to the start of the oldest open transaction.
https://developer.salesforce.com/docs/platform/api-rest/guide/resources-getupdated.md
https://developer.salesforce.com/docs/platform/api-rest/guide/resources-getdeleted.md
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from local.simulators.base import Response
from local.simulators.salesforce.errors import refuse
from local.simulators.salesforce.organization import Organization
from local.simulators.salesforce.payload import render
from local.simulators.salesforce.protocol import Call, answer, wrong_method
from local.simulators.salesforce.schema import SObject

UPDATED_DAYS = 30
DELETED_DAYS = 15


def updated(call: Call, sobject: SObject) -> Response:
    start, end = _window(call, sobject, UPDATED_DAYS)
    ids = [row.id for row in call.org.live(sobject.name) if start <= row.values["SystemModstamp"] < end]
    return answer(200, {"ids": ids, "latestDateCovered": render(_covered(call.org, end))})


def deleted(call: Call, sobject: SObject) -> Response:
    start, end = _window(call, sobject, DELETED_DAYS)
    org = call.org
    records = [
        {"id": entry.id, "deletedDate": render(entry.at)}
        for entry in org.deletions
        if entry.object == sobject.name and start <= entry.at < end and _still_known(org, entry.at)
    ]
    earliest = org.deletions_known_since or org.now() - timedelta(days=DELETED_DAYS)
    body = {
        "deletedRecords": records,
        "earliestDateAvailable": render(earliest.replace(second=0)),
        "latestDateCovered": render(_covered(org, end)),
    }
    return answer(200, body)


def _window(call: Call, sobject: SObject, days: int) -> tuple[datetime, datetime]:
    if call.method != "GET":
        raise wrong_method(call, "GET")
    if not sobject.replicates:
        raise refuse("NotReplicated", name=sobject.name)
    call.check_query("start", "end")
    start, end = _moment(call, "start"), _moment(call, "end")
    if start >= end:
        raise refuse("ReplicationDate", message="startDate must be before endDate, by at least one minute")
    if start < call.org.now().replace(second=0) - timedelta(days=days):
        raise refuse("ReplicationDate", message=f"startDate cannot be more than {days} days ago")
    return start, end


def _moment(call: Call, name: str) -> datetime:
    text = call.request.query.get(name)
    if not text:
        raise refuse("MissingParameter", name=name)
    try:
        at = datetime.fromisoformat(text)
    except ValueError as exc:
        raise refuse("BadDate", name=name, value=text) from exc
    if at.tzinfo is None:
        raise refuse("BadDate", name=name, value=text)
    return at.astimezone(UTC).replace(second=0, microsecond=0)


def _covered(org: Organization, end: datetime) -> datetime:
    """Never later than now: the simulator vouches for nothing that has yet to happen."""
    moments = [end, org.now().replace(second=0), org.oldest_transaction()]
    return min(moment for moment in moments if moment is not None)


def _still_known(org: Organization, at: datetime) -> bool:
    return org.deletions_known_since is None or at >= org.deletions_known_since

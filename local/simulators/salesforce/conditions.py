"""Conditional requests: If-Modified-Since and If-Unmodified-Since, and for accounts ETags.

Weak on purpose: they compare whole seconds of LastModifiedDate, which an automated change need not move.
https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/intro_rest_conditional_requests.htm
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import TYPE_CHECKING

from local.simulators.base import Response
from local.simulators.salesforce.errors import refuse

if TYPE_CHECKING:
    from local.simulators.salesforce.organization import Row
    from local.simulators.salesforce.protocol import Call

CONDITIONS = ("If-Modified-Since", "If-Unmodified-Since", "If-Match", "If-None-Match", "If-Range")


def refuse_conditions(call: Call, where: str) -> None:
    """For resources that are not known to support conditions."""
    for name in CONDITIONS:
        if name in call.request.headers:
            raise refuse("NotSimulated", what=f"the header {name} on {where}")


def last_modified(row: Row) -> dict[str, str]:
    """The headers a record is answered with."""
    headers = {"Last-Modified": http_date(row.values["LastModifiedDate"])} if "LastModifiedDate" in row.values else {}
    return headers | ({"ETag": etag(row)} if row.object == "Account" else {})


def http_date(at: datetime) -> str:
    return format_datetime(at.astimezone(UTC), usegmt=True)


def etag(row: Row) -> str:
    digest = hashlib.sha256(f"{row.id} {row.values['SystemModstamp']}".encode()).hexdigest()[:27]
    return f'"{digest}=-gzip"'


def unchanged(call: Call, row: Row) -> Response | None:
    """The 304 or 412 a read is answered with instead of the row, None when the row is to be sent."""
    _check_tags(call, row)
    since = date_of_condition(call, "If-Modified-Since")
    if since and _modified(row) <= since:
        return Response(304)
    if "If-None-Match" in call.request.headers and _tag_matches(call, "If-None-Match", row):
        return Response(304)
    check_unmodified(call, row)
    return None


def check_unmodified(call: Call, row: Row) -> None:
    """Raise Precondition when a write says that it knows an older state of the row."""
    _check_tags(call, row)
    since = date_of_condition(call, "If-Unmodified-Since")
    if since and _modified(row) > since:
        raise refuse("Precondition")
    if "If-Match" in call.request.headers and not _tag_matches(call, "If-Match", row):
        raise refuse("Precondition")


def check_write(call: Call, row: Row) -> None:
    """The conditions of a PATCH: those of check_unmodified, and the inverse ones that answer 412."""
    check_unmodified(call, row)
    since = date_of_condition(call, "If-Modified-Since")
    if since and _modified(row) <= since:
        raise refuse("Precondition")
    if "If-None-Match" in call.request.headers and _tag_matches(call, "If-None-Match", row):
        raise refuse("Precondition")


def _modified(row: Row) -> datetime:
    at: datetime = row.values.get("LastModifiedDate", row.values["SystemModstamp"])
    return at


def _check_tags(call: Call, row: Row) -> None:
    if "If-Range" in call.request.headers:
        raise refuse("NotSimulated", what="the header If-Range")
    if row.object != "Account":
        for name in ("If-Match", "If-None-Match"):
            if name in call.request.headers:
                raise refuse("NotSimulated", what=f"the header {name} on anything but an account")


def _tag_matches(call: Call, header: str, row: Row) -> bool:
    tags = [tag.strip() for tag in call.request.headers[header].split(",")]
    return "*" in tags or etag(row) in tags


def date_of_condition(call: Call, header: str) -> datetime | None:
    """The date of the header; a read ignores one it does not understand, a write refuses it."""
    text = call.request.headers.get(header)
    if text is None:
        return None
    try:
        found = parsedate_to_datetime(text)
    except ValueError:
        found = None
    if found is None or not text.endswith("GMT"):
        if call.method == "GET":
            return None
        raise refuse("BadConditionHeader", name=header, value=text)
    return found.astimezone(UTC)

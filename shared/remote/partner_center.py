"""Speaks the Referrals API of Partner Center: one method per need, as few requests as that need allows.

Never interprets a referral beyond its id, times and version; never follows an address out of an answer as it stands.

https://learn.microsoft.com/partner-center/developer/referrals-api-introduction
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import requests

from shared.errors import Forbidden, NotFound, OutcomeUnknown, Refused, Retryable, Unavailable
from shared.model import TICKS_PER_S, Referral, ticks
from shared.remote.dialect import Dialect, Meaning
from shared.remote.http import Remote, json_of

DIALECT = Dialect(
    # Errors: https://learn.microsoft.com/partner-center/developer/referrals-api-response-codes
    statuses={
        403: Meaning(
            Forbidden,
            "give the signed-in user the Partner Center role Referrals admin for the entire company, then replay",
        ),
    },
    request_id_header="client-request-id",
    answer_id_header="Request-ID",
    # Names this product to Microsoft's support. https://learn.microsoft.com/partner-center/developer/headers
    headers={"X-Caller-Id": "5d0e6c1c-52c4-4f6e-9a43-0c8f6d2b7a11"},
)

OLDEST_FIRST = {"$orderby": "createdDateTime asc"}
CREATED_BEFORE_SENT = timedelta(hours=1)
"""How far Partner Center's clock may be behind the one that noted when a create was sent."""


class PartnerCenter:
    """The referrals of the signed-in user's organization, and Microsoft's copies in the same engagements."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._compares_times = True

    def get(self, referral_id: str) -> Referral:
        """Raises NotFound, also when the user may not see it."""
        return _referral(self._remote.request("GET", f"referrals/{referral_id}"))

    def patch(self, referral_id: str, operations: list[dict[str, Any]], etag: str) -> Referral:
        """Apply JSON Patch `replace` and `add` operations if the referral still has `etag`; return it as it is now.

        Raises VersionConflict, Refused (a closed referral accepts nothing), Forbidden, NotFound.
        """
        response = self._remote.request(
            "PATCH",
            f"referrals/{referral_id}",
            json=operations,
            headers={"If-Match": etag, "Prefer": "return=representation"},
        )
        return _referral(response) if response.content else self.get(referral_id)

    def create(self, document: Mapping[str, Any]) -> Referral:
        """Create a referral. After OutcomeUnknown, look with `find_created` or `engagement` before creating again."""
        try:
            response = self._remote.request("POST", "referrals", json=document, create=True)
        except NotFound as unknown:
            # Not the referral, for there is none yet, but something that it names.
            raise Refused(str(unknown), remote=unknown.remote, status=404, request_id=unknown.request_id) from None
        return _referral(response, otherwise=OutcomeUnknown)

    def engagement(self, engagement_id: str) -> list[Referral]:
        """Return every referral of the engagement: the partner's own and, once invited, Microsoft's."""
        pages = self._pages({"$filter": f"engagementId eq '{engagement_id}'"})
        return [referral for page in pages for referral in page]

    def shows_others(self, referral_id: str) -> bool:
        """Whether the signed-in user sees any other referral than this one. Raises Forbidden."""
        answer = self._remote.json("GET", "referrals", params={"$top": 2})
        return any(Referral(document).id.lower() != referral_id for document in _rows(answer))

    def updated_since(self, watermark: str | None, *, overlap_s: float) -> Iterator[list[Referral]]:
        """Yield pages of what was updated after `watermark` less the overlap; None: everything there is.

        The order is oldest first where the service can compare times, else newest first: a watermark may only be moved
        when the last page was taken. `watermark` is an `updatedDateTime` as Partner Center sent it.
        """
        if watermark is None:
            yield from self._pages({"$orderby": "updatedDateTime asc"})
            return
        since = ticks(watermark) - round(overlap_s * TICKS_PER_S)
        # Filtering on updatedDateTime is documented, comparing by `ge` is not.
        # https://learn.microsoft.com/partner-center/developer/get-a-list-of-referrals
        if self._compares_times:
            newer = {"$filter": f"updatedDateTime ge {_time(since)}", "$orderby": "updatedDateTime asc"}
            try:
                yield from self._pages(newer)
            except Refused as refused:
                if refused.status != 400:
                    raise
                self._compares_times = False
            else:
                return
        for page in self._pages({"$orderby": "updatedDateTime desc"}):
            fresh = [referral for referral in page if ticks(referral.updated) >= since]
            yield fresh
            if len(fresh) < len(page):
                return

    def listed(self, after: str | None) -> tuple[list[Referral], str | None]:
        """Return a page of all referrals and where the next one starts, None after the last: one request.

        In the order of creation, so that what changes meanwhile stays on its page. `after` is the page before's, which
        another process may have read. Raises Refused when Partner Center does not know it any more: start over.
        """
        asked = self._remote.json("GET", after) if after else self._remote.json("GET", "referrals", params=OLDEST_FIRST)
        following = asked.get("@odata.nextLink")
        return [Referral(document) for document in _rows(asked)], self._own_address(following) if following else None

    def find_created(self, external_reference_id: str, not_before: datetime) -> Referral | None:
        """Return our own referral that carries this CRM id and was created after `not_before`; of several the oldest.

        Reads newest first, because filtering on externalReferenceId is not documented.
        """
        oldest = not_before - CREATED_BEFORE_SENT
        found: Referral | None = None
        for page in self._pages({"$orderby": "createdDateTime desc"}):
            for referral in page:
                if _created(referral) < oldest:
                    return found
                same = referral.external_reference_id.lower() == external_reference_id.lower()
                if same and not referral.is_microsofts:
                    found = referral
        return found

    def _pages(self, options: Mapping[str, str]) -> Iterator[list[Referral]]:
        answer = self._remote.json("GET", "referrals", params=options)
        while True:
            yield [Referral(document) for document in _rows(answer)]
            if not answer.get("@odata.nextLink"):
                return
            answer = self._remote.json("GET", self._own_address(answer["@odata.nextLink"]))

    def _own_address(self, next_link: str) -> str:
        """Return the next page's address under our own base: documented links say http and leave out a path segment."""
        link, base = urlsplit(next_link), urlsplit(self._remote.base_url)
        if link.hostname != base.hostname:
            raise Refused(
                f"{self._remote.name} continues its list at {link.hostname}, which is not {base.hostname}",
                next_step="check PARTNER_CENTER_URL in the settings",
                remote=self._remote.name,
            )
        return f"referrals?{link.query}"


def _referral(response: requests.Response, otherwise: type[Retryable] = Unavailable) -> Referral:
    document = json_of(response) if response.content else None
    if not isinstance(document, dict):
        raise otherwise(f"Partner Center answered {response.request.method} without a referral")
    document.setdefault("eTag", response.headers.get("ETag", ""))
    return Referral(document)


def _rows(answer: Any) -> Sequence[Mapping[str, Any]]:
    rows = answer.get("value") if isinstance(answer, dict) else None
    if not isinstance(rows, list):
        raise Unavailable("Partner Center answered a list call without a list")
    return rows


def _time(steps: int) -> str:
    """Return 100 ns steps since 0001-01-01 as Partner Center writes times."""
    seconds, rest = divmod(steps, TICKS_PER_S)
    return f"{datetime(1, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}.{rest:07d}Z"


def _created(referral: Referral) -> datetime:
    return datetime(1, 1, 1, tzinfo=UTC) + timedelta(
        microseconds=ticks(str(referral.document["createdDateTime"])) // 10
    )

"""The values the core talks about: referrals, CRM records, and the links between them. Performs no I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

Side = Literal["partner_center", "microsoft", "crm"]

GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
TICKS_PER_S = 10_000_000
"""Partner Center's clock counts in steps of 100 ns."""

ALL_SIDES: frozenset[Side] = frozenset({"partner_center", "microsoft", "crm"})

MICROSOFT = "msft"
"""Microsoft's organizationId. https://learn.microsoft.com/partner-center/developer/referral-resources"""


@dataclass(frozen=True)
class RecordRef:
    """Names one CRM record: `table` is `opportunity` or `lead` in the CRM's own spelling, `id` its primary key."""

    table: str
    id: str

    def __str__(self) -> str:
        return f"{self.table} {self.id}"


@dataclass(frozen=True)
class Record:
    """A CRM record as read.

    `values` holds the mapped columns by the names the field map uses; `parentaccountid.name` is column `name` of the
    related row, and a list where there are many. `version` is opaque, compared for equality only. `modified` is the
    CRM's clock. `unreadable`: mapped columns that the CRM does not show us, and what a person does about each.
    """

    ref: RecordRef
    version: str
    values: Mapping[str, Any]
    modified: datetime | None = None
    unreadable: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RecordChange:
    """One row of the CRM's change feed. `shared`: it asks to be synchronized or already carries a referral id."""

    ref: RecordRef
    version: str | None = None
    shared: bool = True
    deleted: bool = False


@dataclass(frozen=True)
class ChangePage:
    """A page of the change feed. `cursor` is set on the last page only: where the next poll starts."""

    changes: tuple[RecordChange, ...]
    cursor: str | None = None


@dataclass(frozen=True)
class RecordPage:
    """A page of the records that concern us. `after`: where the next page starts, None on the last one."""

    records: tuple[RecordChange, ...]
    after: str | None = None


@dataclass(frozen=True)
class Referral:
    """A Partner Center referral as read: the JSON `document` and the few facts the core needs by name."""

    document: Mapping[str, Any]

    @property
    def id(self) -> str:
        return str(self.document["id"])

    @property
    def engagement_id(self) -> str:
        return str(self.document.get("engagementId") or "")

    @property
    def etag(self) -> str:
        return str(self.document.get("eTag") or "")

    @property
    def updated(self) -> str:
        """`updatedDateTime` as sent: Partner Center's clock, up to seven fractional digits."""
        return str(self.document.get("updatedDateTime") or "")

    @property
    def status(self) -> str:
        return str(self.document.get("status") or "")

    @property
    def substatus(self) -> str:
        return str(self.document.get("substatus") or "")

    @property
    def external_reference_id(self) -> str:
        return str(self.document.get("externalReferenceId") or "")

    @property
    def is_microsofts(self) -> bool:
        """Whether this is Microsoft's copy of the engagement rather than the partner's own referral."""
        return str(self.document.get("organizationId") or "").lower() == MICROSOFT

    @property
    def is_incoming(self) -> bool:
        """Whether somebody else brought it: Microsoft, or a customer. Its direction alone is not to be relied on: a
        partner's own have been seen to say Incoming.

        https://learn.microsoft.com/partner-center/developer/referral-resources
        """
        if self._invited_by and self.document.get("organizationId"):
            return self._invited_by != str(self.document["organizationId"]).lower()
        return self.document.get("direction") == "Incoming"

    @property
    def is_lead(self) -> bool:
        """Shared: an opportunity. Independent from Microsoft (or from nobody): a lead. Otherwise a deal of our own.

        https://learn.microsoft.com/partner-center/developer/referrals-api-introduction
        """
        return self.document.get("type") == "Independent" and (self._invited_by or MICROSOFT) == MICROSOFT

    @property
    def _invited_by(self) -> str:
        inviter = (self.document.get("inviteContext") or {}).get("invitedBy") or {}
        return str(inviter.get("organizationId") or "").lower()


@dataclass(frozen=True)
class Paused:
    """A remote that is left alone until `until_utc`; `why` in words."""

    until_utc: datetime
    why: str


LinkState = Literal["new", "active", "failed", "tombstone"]


@dataclass(frozen=True)
class Intent:
    """A create under way: `operation` was (or is about to be) sent at `sent_utc` and its outcome is not yet saved."""

    operation: Literal["create_referral", "invite_microsoft"]
    sent_utc: datetime


@dataclass(frozen=True)
class Call:
    """One call that wrote to an outside system, or tried to.

    `status` is None when no answer came; `request_id` is ours, `remote_request_id` the remote's own, "" without one.
    """

    method: str
    path: str
    status: int | None
    request_id: str
    remote_request_id: str = ""


@dataclass(frozen=True)
class Write:
    """A write to one side whose outcome is not in the audit yet.

    `fields` maps a field's name to [before, after]. `version` is the one that was to be replaced, `table` the CRM's;
    `shown` tells the text apart that comes into the CRM's Audit field with it.
    """

    side: Side
    operation: str
    fields: dict[str, list[Any]] = field(default_factory=dict)
    version: str = ""
    table: str = ""
    shown: str = ""


MISSING_FOR = timedelta(minutes=5)


@dataclass(frozen=True)
class Absence:
    """A side on which the deal is not to be found, and since when."""

    side: Side
    since_utc: datetime

    def left_s(self, now: datetime) -> float:
        """How long it has to be looked for before it counts as gone: Partner Center answers 404 for moments, too."""
        return (self.since_utc + MISSING_FOR - now).total_seconds()


@dataclass(frozen=True)
class Written:
    """A write of ours to `side`: digests of the values, by field."""

    side: Side
    at_utc: datetime
    values: dict[str, str]


@dataclass(frozen=True)
class Stopped:
    """Why a field is not written any more: `side` put back what we wrote; the values that both sides held then."""

    side: Side
    partner_center: Any = None
    crm: Any = None


@dataclass
class Link:
    """What we know of one deal: which referral and record belong together, and what both sides held when they agreed.

    A tombstone says that one side is gone for good, `absent` which and since when; in any other state, that Partner
    Center did not show the referral, or Microsoft's copy of it, when it was looked for last.

    `base` maps a field's name to [Partner Center's value, the CRM's value] at the last agreement. The versions are what
    each system gave us with the values we last read or wrote; `unsettled` names sides whose values then were not all in
    the base, so that they are read again next time; `write` is the one under way, and `writing` has, for each of its
    fields, the side and the base that it makes true. `written` are our latest writes, and `stopped` the fields that are
    not written any more because of them, until an operator replays the deal (shared.breaker). `mapped` is the
    fingerprint of the field map for which both sides were last read, `places` where the values of the base stood, by
    field (shared.mapping). `unlisted`: the record is neither shared nor carries the referral id, so that no list shows
    it. `claim` and `claim_until_utc` say who works on it now, `look_again` which sides were reported changed meanwhile.
    `audit_text` is what the CRM's Audit field shows.
    """

    deal: str
    state: LinkState = "new"
    record: RecordRef | None = None
    referral_id: str = ""
    engagement_id: str = ""
    microsoft_referral_id: str = ""
    referral_etag: str = ""
    referral_updated: str = ""
    microsoft_updated: str = ""
    record_version: str = ""
    base: dict[str, list[Any]] = field(default_factory=dict)
    unsettled: frozenset[Side] = frozenset()
    write: Write | None = None
    writing: dict[str, list[Any]] = field(default_factory=dict)
    written: list[Written] = field(default_factory=list)
    stopped: dict[str, Stopped] = field(default_factory=dict)
    failure: str = ""
    audit_text: str = ""
    mapped: str = ""
    places: dict[str, str] = field(default_factory=dict)
    unlisted: bool = False
    absent: Absence | None = None
    intent: Intent | None = None
    claim: str = ""
    claim_until_utc: datetime | None = None
    look_again: frozenset[Side] = frozenset()
    etag: str = ""

    @property
    def gone(self) -> Literal["partner_center", "crm"] | None:
        """The side that is gone for good."""
        if self.state != "tombstone":
            return None
        # Without it: stored by a release that knew of records only.
        return "partner_center" if self.absent and self.absent.side == "partner_center" else "crm"


_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,7})\d*)?(Z|[+-]\d\d:\d\d)?$")


def ticks(text: str) -> int:
    """Return an ISO 8601 time as 100 ns steps since 0001-01-01 UTC, keeping the seventh digit that datetime drops.

    Raises ValueError for anything else. A missing zone means UTC, as Partner Center's own pages have it.
    """
    found = _TIME.match(text.strip())
    if not found:
        raise ValueError(f"not an ISO 8601 time: {text!r}")
    whole, fraction, zone = found.groups()
    moment = datetime.fromisoformat(whole + (zone or "+00:00").replace("Z", "+00:00"))
    since = moment - datetime(1, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * TICKS_PER_S + int((fraction or "0").ljust(7, "0"))

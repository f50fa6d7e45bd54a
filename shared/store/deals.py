"""The state of each deal in table CosellDeals: its link, who works on it, and its story. Never decides what to sync.

A deal is a partition: row `link`, and one row per audit entry. Table CosellIndex finds the deal of a referral, an
engagement or a CRM record, and the deals of a day; its rows follow from the deals and can be made anew.

Only the holder of the claim writes the link, with one exception: whoever finds the deal claimed leaves a mark saying
which side to look at again. A holder takes marks over when it claims or lets go, and they stay in the row until it has
let go: if it crashes, the next one finds them.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta

from pydantic import TypeAdapter

from shared.errors import ClaimLost, Unavailable
from shared.model import GUID, Link, RecordRef, Side
from shared.store.audit import KEY_FROM, KEY_TO, AuditEntry, audit_entry, audit_rows, day_rows
from shared.store.tables import AlreadyThere, Operation, Row, Stale, Table, columns, document

CLAIM_S = 90
"""How long a claim lasts without a save: longer than the slowest run of calls to the remotes between two saves."""

ATTEMPTS = 20
"""Times a write is tried anew because the row had changed. A deal has three marks to set: reaching this is a fault."""

LINK_KEY = "link"
INDEX_KEY = "deal"
PLACES_OF_REFERRALS = "referral-"


@dataclass
class _StoredLink(Link):
    """A link with what only the store needs to know.

    `arrived` are the marks that came since the claim, `pointed` the index rows known to name this deal, `entries` how
    many audit entries there are, `audited` the last day (yyyymmdd) known to lead to them. `claimed_for`: the message
    its holder works off. `held`: this run holds the claim.
    """

    arrived: frozenset[Side] = frozenset()
    pointed: frozenset[str] = frozenset()
    entries: int = 0
    audited: str = ""
    claimed_for: str = ""
    held: bool = False


_LINK = TypeAdapter(_StoredLink)
_NOT_STORED = {"deal", "etag", "held"}


@dataclass(frozen=True)
class Story:
    """A deal as it is, and a page of what happened to it, newest first. `more` continues after it; None at the end."""

    link: Link | None
    entries: tuple[AuditEntry, ...]
    more: str | None


def deal_of_referral(referral_id: str) -> str:
    """Return the key of a deal born in Partner Center."""
    return f"pc_{_spelled(referral_id)}"


def deal_of_record(record: RecordRef) -> str:
    """Return the key of a deal born in the CRM."""
    return f"crm_{record.table}_{_spelled(record.id)}"


def place_of_referral(referral_id: str) -> str:
    """Return where the index names the deal of this referral."""
    return f"{PLACES_OF_REFERRALS}{_spelled(referral_id)}"


def place_of_record(record: RecordRef) -> str:
    """Return where the index names the deal of this record."""
    return f"{places_of_table(record.table)}{_spelled(record.id)}"


def places_of_table(table: str) -> str:
    """Return what the places of all records of a CRM table begin with."""
    return f"record-{table}-"


class Deals:
    def __init__(
        self,
        deals_table: Table,
        index_table: Table,
        clock: Callable[[], datetime],
        new_token: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        self._deals = deals_table
        self._index = index_table
        self._clock = clock
        self._new_token = new_token

    def find(
        self, *, referral_id: str | None = None, record: RecordRef | None = None, engagement_id: str | None = None
    ) -> str | None:
        """Return the key of the deal that has this referral (ours or Microsoft's), record or engagement: name one."""
        keys = _index_keys(referral_id, record, engagement_id)
        if len(keys) != 1:
            raise ValueError("a deal is found by one referral_id, one record or one engagement_id")
        row = self._index.get(keys[0], INDEX_KEY)
        return str(row.columns["deal"]) if row else None

    def known(self, places: str, after: str, limit: int) -> list[tuple[str, str]]:
        """Return a page of what the index knows: places that begin so, and the deal that each names.

        `after` is the last place of the page before, "" for the first page. An id that left a link keeps its place.
        """
        end = f"{places[:-1]}{chr(ord(places[-1]) + 1)}"
        rows = self._index.across(INDEX_KEY, after or places, end, limit)
        return [(row.partition, str(row.columns["deal"])) for row in rows]

    def point(self, link: Link) -> None:
        """Let the index name this deal for every id in the link. Costs a write per id that is new to it, else nothing.

        An id that left the link keeps its row: late events about it still belong to this deal.
        """
        wanted = {
            *_index_keys(link.referral_id, link.record, link.engagement_id),
            *_index_keys(link.microsoft_referral_id, None, None),
        }
        known = link.pointed if isinstance(link, _StoredLink) else frozenset()
        for key in sorted(wanted - known):
            self._index.upsert(Row(key, INDEX_KEY, {"deal": link.deal}))
        if isinstance(link, _StoredLink):
            link.pointed = frozenset(wanted)  # stored by the next save; lost in a crash, the rows are written again

    def load(self, deal: str) -> Link | None:
        """Return the link as stored, whoever works on it. `look_again` has every mark that is not worked off yet."""
        link = self._read(deal)
        return replace(link, look_again=link.look_again | link.arrived) if link else None

    def claim(
        self, deal: str | Link, *, sides: frozenset[Side], message: str = "", redelivered: bool = False
    ) -> Link | None:
        """Take the deal, new or not, and return its link; None if another run has it, which then looks at `sides` too.

        The queue hands a message out again only when its run has ended, so a claim made for a `redelivered` message is
        a dead run's and does not have to expire.

        The link's `look_again` tells what an earlier holder was asked to look at and may not have seen. A link loaded
        before saves a read, and if the deal has changed since, the newer one is returned.
        """
        key = deal if isinstance(deal, str) else deal.deal
        link = deal if isinstance(deal, _StoredLink) else self._read(key)
        for _ in range(ATTEMPTS):
            wanted = self._claimed_or_marked(link or _StoredLink(key), sides, message, redelivered)
            if wanted is None:
                return None
            try:
                stored = self._deals.replace(_row(wanted)) if link else self._deals.insert(_row(wanted))
            except (AlreadyThere, Stale):
                link = self._read(key)
                continue
            return replace(wanted, etag=stored.etag) if wanted.held else None
        raise Unavailable(f"deal {key} could not be claimed: it changed {ATTEMPTS} times meanwhile")

    @staticmethod
    def is_claimed_for(link: Link, message: str) -> bool:
        """Whether a run of this message has the deal, or died or lost Storage before it let go."""
        return isinstance(link, _StoredLink) and bool(link.claim) and link.claimed_for == message

    def save(self, link: Link, audits: Sequence[AuditEntry] = ()) -> None:
        """Store the link and what happened, all or none, and renew the claim. Raises ClaimLost."""
        self._write(link, audits, letting_go=False)

    def release(self, link: Link, audits: Sequence[AuditEntry] = ()) -> frozenset[Side]:
        """Like save, then let go, unless there are marks: return them, keep the claim and look again. Empty: let go.

        Raises ClaimLost.
        """
        return self._write(link, audits, letting_go=True)

    def story(self, deal: str, *, limit: int = 50, after: str | None = None) -> Story:
        """Return the link and a page of audit entries, newest first. `after`: the `more` of the page before."""
        rows = self._deals.query(deal, after or KEY_FROM, KEY_TO, limit + 1)
        more = rows[limit].key if len(rows) > limit else None
        return Story(self.load(deal), tuple(map(audit_entry, rows[:limit])), more)

    def _claimed_or_marked(
        self, link: _StoredLink, sides: frozenset[Side], message: str, redelivered: bool
    ) -> _StoredLink | None:
        now = self._clock()
        orphaned = redelivered and bool(message) and link.claimed_for == message
        if link.claim_until_utc is None or link.claim_until_utc <= now or orphaned:
            return replace(
                link,
                claim=self._new_token(),
                claim_until_utc=now + timedelta(seconds=CLAIM_S),
                claimed_for=message,
                look_again=link.look_again | link.arrived,
                arrived=frozenset(),
                held=True,
            )
        # A mark that is there already will be honoured after this moment: nothing to add.
        return None if sides <= link.arrived else replace(link, arrived=link.arrived | sides, held=False)

    def _write(self, link: Link, audits: Sequence[AuditEntry], *, letting_go: bool) -> frozenset[Side]:
        if not (isinstance(link, _StoredLink) and link.held):
            raise ClaimLost(f"deal {link.deal} is not claimed by this run: claim it, then save what claim returned")
        audited = self._point_days(link, audits)
        # Their keys are used once in the deal's life, so repeating an upsert after a lost answer changes nothing.
        entries: list[Operation] = [("upsert", row) for row in audit_rows(link.deal, audits, link.entries)]
        for _ in range(ATTEMPTS):
            again = link.arrived if letting_go else frozenset()
            kept = not letting_go or bool(again)
            wanted = replace(
                link,
                entries=link.entries + len(entries),
                audited=audited,
                look_again=again if letting_go else link.look_again,
                arrived=frozenset() if letting_go else link.arrived,
                claim=link.claim if kept else "",
                claim_until_utc=self._clock() + timedelta(seconds=CLAIM_S) if kept else None,
                held=kept,
            )
            try:
                stored = self._deals.transact([("replace", _row(wanted)), *entries])[0]
            except Stale as error:
                self._catch_up(link, error)
                continue
            wanted.etag = stored.etag
            for each in fields(wanted):
                setattr(link, each.name, getattr(wanted, each.name))
            return again
        raise Unavailable(f"deal {link.deal} could not be saved: it changed {ATTEMPTS} times meanwhile")

    def _point_days(self, link: _StoredLink, audits: Sequence[AuditEntry]) -> str:
        """Let the index lead to the entries before they are there: a row that leads to none does no harm. Returns the
        last day known to lead here. Costs a write for the first entry of a day."""
        audited = link.audited
        for day, row in day_rows(link.deal, audits).items():
            if day != audited:
                self._index.upsert(row)
                audited = day
        return audited

    def _catch_up(self, link: _StoredLink, error: Stale) -> None:
        """Take over the marks that made our version stale, if nothing else did."""
        current = self._read(link.deal)
        if current is None or current.claim != link.claim:
            link.held = False
            raise ClaimLost(
                f"deal {link.deal} was taken over: this run's claim had expired. Nothing was saved; look at it again"
            ) from error
        link.etag, link.arrived = current.etag, current.arrived

    def _read(self, deal: str) -> _StoredLink | None:
        row = self._deals.get(deal, LINK_KEY)
        if row is None:
            return None
        return _LINK.validate_python({**document(row.columns), "deal": deal, "etag": row.etag})


def _row(link: _StoredLink) -> Row:
    return Row(link.deal, LINK_KEY, columns(_LINK.dump_python(link, mode="json", exclude=_NOT_STORED)), link.etag)


def _index_keys(referral_id: str | None, record: RecordRef | None, engagement_id: str | None) -> list[str]:
    return [
        *([place_of_referral(referral_id)] if referral_id else []),
        *([place_of_record(record)] if record else []),
        *([f"engagement-{_spelled(engagement_id)}"] if engagement_id else []),
    ]


def _spelled(id_: str) -> str:
    """Return GUIDs in lower case, as systems differ in how they write the same one; other ids as they are."""
    return id_.lower() if GUID.fullmatch(id_) else id_

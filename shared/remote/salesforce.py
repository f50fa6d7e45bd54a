"""Speaks the REST API of Salesforce: the Crm of shared.remote.crm.

Never decides what to write. How things are written is in salesforce_rows.py, several calls in one request in
salesforce_composite.py, accounts and contacts in salesforce_related.py, the change feed in salesforce_changes.py, what
errors mean in salesforce_errors.py, signing in and limits in modules of their own.

https://developer.salesforce.com/docs/platform/api-rest/guide/intro_rest.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import quote

from shared.errors import NotFound, NotVisible, OutcomeUnknown, Permanent, Refused
from shared.model import ChangePage, Record, RecordPage, RecordRef
from shared.remote.crm import RelatedRow, TableShape
from shared.remote.http import Remote, utc_now
from shared.remote.salesforce_changes import ChangeFeed
from shared.remote.salesforce_composite import Part, query, refers, send, unreferring
from shared.remote.salesforce_hidden import columns_without
from shared.remote.salesforce_related import RelatedRows, write_headers
from shared.remote.salesforce_rows import (
    PREFIXES,
    columns_of,
    long_id,
    select,
    to_record,
    unmodified_since,
    where,
)

API_PATH = "services/data"
"""With the version to be appended to the org's address."""

TIMEOUT_S = (5.0, 60.0)
"""A write may set the org's own flows going; a claim on a deal lasts longer than this."""
READ, WRITE = "read", "write"
FORGET_UNREADABLE = timedelta(minutes=2)
"""How long a field that the org says is not there is left out of what is read: then an admin may have mended it."""

T = TypeVar("T")


class Salesforce:
    """The opportunities and leads of one org. Safe to share between threads."""

    name = "Salesforce"

    def __init__(
        self,
        remote: Remote,
        shapes: Mapping[str, TableShape],
        *,
        user_id: Callable[[], str] = lambda: "",
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """`user_id` returns the id of the user we act as, "" where it is not known."""
        self._remote = remote
        self._shapes = shapes
        self._user_id = user_id
        self._clock = clock
        self._related = RelatedRows(remote)
        self._unreadable: dict[tuple[str, str], tuple[datetime, str]] = {}

    def record_named(self, table: str, text: str) -> RecordRef | None:
        record_id = long_id(text.strip())
        return RecordRef(table, record_id) if record_id.startswith(PREFIXES.get(table, "")) and record_id else None

    def read(self, ref: RecordRef) -> Record:
        record = self._first(ref.table, where({"Id": ref.id}))
        if record is None:
            raise self._not_visible(ref)
        return record

    def _not_visible(self, ref: RecordRef) -> NotFound:
        """What is not shared with the user is left out of every answer, as if it were not there.

        Of a deleted record the bin tells for two weeks.
        """
        soql = f"{select(ref.table, ['IsDeleted'])} WHERE {where({'Id': ref.id})}"
        if self._remote.json("GET", "queryAll", params={"q": soql})["records"]:
            return NotFound(f"{self.name}: {ref} was deleted", remote=self.name)
        return NotVisible(
            f"{self.name}: {ref} does not exist, or the integration user may not see it",
            next_step="give the integration user View All on the object (permission set Cosell_Sync), then replay",
            remote=self.name,
        )

    def find_by_referral(self, table: str, referral_id: str) -> Record | None:
        return self._first(table, where({self._shapes[table].referral_id: referral_id}))

    def create(
        self, table: str, referral_id: str, values: Mapping[str, Any], related: Sequence[RelatedRow] = ()
    ) -> tuple[Record, bool]:
        """Upsert by the external id on the referral id, with what the record refers to, all in one transaction.

        Salesforce knows no upsert that only creates: one that somebody makes between our look and the write gets
        `values`, unless it has a contact, whom only a create may name.
        https://developer.salesforce.com/docs/platform/api-rest/guide/dome-upsert.html
        """
        existing = self.find_by_referral(table, referral_id)
        if existing:
            return existing, False
        try:
            return self._create(table, referral_id, values, related)
        except (OutcomeUnknown, Permanent) as failed:
            # It may be there all the same: made by this very call, or by a run that was quicker.
            if isinstance(failed, Permanent) and failed.part:
                raise
            existing = self.find_by_referral(table, referral_id)
            if existing is None:
                raise
            return existing, False

    def update(self, ref: RecordRef, values: Mapping[str, Any], version: str) -> Record:
        address, headers = f"sobjects/{ref.table}/{ref.id}", {**unmodified_since(version), **write_headers(ref.table)}
        if any(map(refers, values.values())):
            self._remote.request("PATCH", address, json=values, headers=headers)
            return self.read(ref)
        write = Part(WRITE, "PATCH", address, values, headers)

        def ask(columns: Sequence[str]) -> Record | None:
            soql = f"{select(ref.table, columns)} WHERE {where({'Id': ref.id})}"
            return self._record_of(ref.table, columns, send(self._remote, [write, query(READ, soql)])[READ])

        written = self._seeing(ref.table, ask)
        if written is None:
            raise self._not_visible(ref)
        return written

    def converted_to(self, lead: RecordRef) -> RecordRef | None:
        soql = f"{select(lead.table, ['ConvertedOpportunityId'])} WHERE {where({'Id': lead.id})}"
        rows = self._query(soql)["records"]
        opportunity = rows[0]["ConvertedOpportunityId"] if rows else None
        return RecordRef("Opportunity", opportunity) if opportunity else None

    def changes(self, table: str, cursor: str | None) -> Iterator[ChangePage]:
        return self._seeing(table, lambda columns: self._feed(table, columns).since(cursor))

    def shared_records(self, table: str, after: str | None) -> RecordPage:
        return self._seeing(table, lambda columns: self._feed(table, columns).shared(after))

    def _feed(self, table: str, columns: Sequence[str]) -> ChangeFeed:
        shape = self._shapes[table]

        def record(row: Mapping[str, Any]) -> Record:
            return to_record(shape, columns, row, {}, self._user_id())

        return ChangeFeed(self._remote, shape, columns, record, self._clock)

    # ------------------------------------------------------------ creating

    def _create(
        self, table: str, referral_id: str, values: Mapping[str, Any], related: Sequence[RelatedRow]
    ) -> tuple[Record, bool]:
        column = self._shapes[table].referral_id
        body = {name: value for name, value in values.items() if name != column}
        address = f"sobjects/{table}/{column}/{quote(referral_id, safe='')}"
        headers = write_headers(table)

        def ask(columns: Sequence[str]) -> tuple[Record, bool]:
            def parts(links: Mapping[str, str]) -> list[Part]:
                return [Part(WRITE, "PATCH", address, {**unreferring(body), **links}, headers)]

            soql = f"{select(table, columns)} WHERE {where({column: referral_id})}"
            answers = self._related.make_with(table, related, parts, query(READ, soql))
            record = self._record_of(table, columns, answers[READ])
            if record is None:
                raise self._not_visible(RecordRef(table, answers[WRITE]["id"]))
            return record, bool(answers[WRITE].get("created", True))

        record, is_new = self._seeing(table, ask)
        exact = {name: value for name, value in body.items() if refers(value)}
        return (self.update(record.ref, exact, record.version) if is_new and exact else record), is_new

    # ------------------------------------------------------------ reading

    def _first(self, table: str, condition: str) -> Record | None:
        def ask(columns: Sequence[str]) -> Record | None:
            soql = f"{select(table, columns)} WHERE {condition} ORDER BY CreatedDate ASC LIMIT 1"
            return self._record_of(table, columns, self._query(soql))

        return self._seeing(table, ask)

    def _query(self, soql: str) -> Any:
        return self._remote.json("GET", "query", params={"q": soql})

    def _record_of(self, table: str, columns: Sequence[str], answer: Any) -> Record | None:
        rows = answer["records"]
        if not rows:
            return None
        return to_record(self._shapes[table], columns, rows[0], self._left_out(table), self._user_id())

    def _seeing(self, table: str, ask: Callable[[Sequence[str]], T]) -> T:
        """Ask for every mapped column; those that the org says are not there, for this user, are left out.

        One field that somebody hid or deleted is no reason to stop all deals.
        """
        while True:
            left_out = self._left_out(table)
            columns = [column for column in columns_of(self._shapes[table]) if column not in left_out]
            try:
                return ask(columns)
            except Refused as refused:
                if refused.part == WRITE or not self._leave_out(table, columns, refused):
                    raise

    def _left_out(self, table: str) -> dict[str, str]:
        """Return the columns that cannot be read now, and what a person can do about each."""
        now = self._clock()
        known = list(self._unreadable.items())  # other threads add to it
        return {column: why for (of, column), (until, why) in known if of == table and until > now}

    def _leave_out(self, table: str, columns: Sequence[str], refused: Refused) -> bool:
        """Remember the columns that an answer complained about. Returns whether there are any that can be spared."""
        shape = self._shapes[table]
        needed = {shape.referral_id, shape.sync_flag, "Id", "LastModifiedDate"}
        hidden = [column for column in columns_without(table, columns, refused) if column not in needed]
        until = self._clock() + FORGET_UNREADABLE
        for column in hidden:
            self._unreadable[table, column] = (until, refused.next_step)
        return bool(hidden)

"""Speaks the Dataverse Web API of Dynamics 365 Sales: the Crm of shared.remote.crm.

Never decides what to write; how rows are named and found is in dataverse_rows.py, the change feed in
dataverse_changes.py, what errors mean in dataverse_errors.py.

https://learn.microsoft.com/power-apps/developer/data-platform/webapi/overview
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import requests

from shared.errors import NotFound, OutcomeUnknown, Permanent, Refused, VersionConflict
from shared.model import GUID, ChangePage, Record, RecordPage, RecordRef
from shared.remote.crm import RelatedRow, TableShape
from shared.remote.dataverse_changes import ChangeFeed
from shared.remote.dataverse_errors import DUPLICATES, OPPORTUNITY_ALREADY_CLOSED, STATE_IN_PLACE
from shared.remote.dataverse_rows import (
    LOOKUPS,
    Bound,
    Rows,
    address,
    by_link,
    key_address,
    literal,
    primary_id,
    set_name,
)
from shared.remote.http import Remote, json_of

API_PATH = "api/data/v9.2"
"""To be appended to the environment's address."""

STATE = ("statecode", "statuscode")
ALWAYS = (*STATE, "modifiedon")
UNCACHED = {"If-None-Match": "null"}
"""Keeps a read with $expand from being answered out of a cache, as the vendor's header table asks."""


@dataclass(frozen=True)
class Close:
    """How an opportunity reaches a closing state: an action of its own, never a plain write of statecode.

    https://learn.microsoft.com/power-apps/developer/data-platform/webapi/use-web-api-actions
    """

    action: str
    default_status: int


CLOSES: Mapping[int, Close] = {1: Close("WinOpportunity", 3), 2: Close("LoseOpportunity", 4)}
CLOSE_COLUMNS = ("actualvalue", "actualclosedate")
"""What the action itself sets on the opportunity."""


class Dataverse:
    """The opportunities and leads of one environment. Safe to share between threads."""

    name = "Dynamics 365"

    def __init__(self, remote: Remote, shapes: Mapping[str, TableShape]) -> None:
        self._remote = remote
        self._shapes = shapes
        self._rows = Rows(remote)

    def record_named(self, table: str, text: str) -> RecordRef | None:
        record_id = text.strip().lower()
        return RecordRef(table, record_id) if GUID.fullmatch(record_id) else None

    def read(self, ref: RecordRef) -> Record:
        return self._record(ref.table, self._get(address(ref.table, ref.id), ref.table))

    def find_by_referral(self, table: str, referral_id: str) -> Record | None:
        carries_it = f"{self._shapes[table].referral_id} eq {literal(referral_id)}"
        row = self._first(table, {**self._columns(table), "$filter": carries_it})
        return self._record(table, row) if row else None

    def create(
        self, table: str, referral_id: str, values: Mapping[str, Any], related: Sequence[RelatedRow] = ()
    ) -> tuple[Record, bool]:
        """Create by the alternate key on the referral id. Raises Refused when that key is missing or not yet active.

        https://learn.microsoft.com/power-apps/developer/data-platform/use-upsert-insert-update-record
        """
        # Accounts and contacts are not made for a record that is there already.
        existing = self.find_by_referral(table, referral_id) if related else None
        if existing:
            return existing, False
        column = self._shapes[table].referral_id
        row = key_address(table, column, referral_id)
        columns, state = _without_state({name: value for name, value in values.items() if name != column})
        body = {**self._body(columns, self._rows.bind(columns)), **self._rows.relate(related)}
        try:
            self._patch_row(row, body, {"If-None-Match": "*"})
        except (VersionConflict, Refused) as there:
            if not isinstance(there, VersionConflict) and there.code not in DUPLICATES:
                raise
            existing = self.find_by_referral(table, referral_id)
            if existing is None:
                raise
            return existing, False
        # Only a read brings the columns of related rows.
        try:
            record = self._record(table, self._get(row, table))
        except Permanent as unread:
            words = f"{table} was created for referral {referral_id}, and could not be read: {unread}"
            raise OutcomeUnknown(
                words, remote=self.name, status=unread.status, request_id=unread.request_id
            ) from unread
        return (self.update(record.ref, state, record.version) if state else record), True

    def update(self, ref: RecordRef, values: Mapping[str, Any], version: str) -> Record:
        columns, closing = _without_close(ref.table, values)
        record = self._patch(ref, columns, version) if columns else self._read_version(ref, version)
        return self._close(record, closing) if closing else record

    def converted_to(self, lead: RecordRef) -> RecordRef | None:
        made_of_it = {"$filter": f"_originatingleadid_value eq {lead.id}", "$select": "opportunityid"}
        row = self._first("opportunity", made_of_it)
        return RecordRef("opportunity", row["opportunityid"]) if row else None

    def changes(self, table: str, cursor: str | None) -> Iterator[ChangePage]:
        return ChangeFeed(self._remote, self._shapes[table]).since(cursor)

    def shared_records(self, table: str, after: str | None) -> RecordPage:
        return ChangeFeed(self._remote, self._shapes[table]).shared(after)

    def _first(self, table: str, options: Mapping[str, str]) -> Mapping[str, Any] | None:
        options = {**options, "$orderby": "createdon asc", "$top": "1"}
        rows = self._remote.json("GET", set_name(table), params=options, headers=UNCACHED)["value"]
        return rows[0] if rows else None

    def _read_version(self, ref: RecordRef, version: str) -> Record:
        record = self.read(ref)
        if version and record.version != version:
            raise VersionConflict(f"{self.name}: {ref} has changed since it was read", remote=self.name)
        return record

    def _get(self, row: str, table: str) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = self._remote.json("GET", row, params=self._columns(table), headers=UNCACHED)
        return answer

    def _patch(self, ref: RecordRef, values: Mapping[str, Any], version: str) -> Record:
        bound = self._rows.bind(values)
        select = {"$select": self._columns(ref.table)["$select"]}
        # Without If-Match a missing row would be created.
        headers = {"If-Match": version or "*", "Prefer": "return=representation"}
        try:
            response = self._patch_row(address(ref.table, ref.id), self._body(values, bound), headers, select)
        except Refused as refused:
            if refused.code not in STATE_IN_PLACE or "statecode" not in values:
                raise
            others = {name: value for name, value in values.items() if name not in STATE}
            return self._patch(ref, others, version) if others else self.read(ref)
        if not response.content:
            return self.read(ref)
        # $expand is ignored by PATCH: of related rows only those just bound are known.
        return self._record(ref.table, json_of(response), bound.values)

    def _patch_row(
        self,
        row: str,
        body: Mapping[str, Any],
        headers: Mapping[str, str],
        params: Mapping[str, str] | None = None,
    ) -> requests.Response:
        try:
            return self._remote.request("PATCH", row, params=params, json=body, headers=headers)
        except NotFound as missing:
            if not missing.field or row.startswith(f"{set_name(missing.field)}("):
                raise
            raise Refused(
                f"{self.name}: a {missing.field} that {row} should refer to is gone: {missing}",
                next_step="replay: another one is looked for",
                remote=self.name,
                code=missing.code,
                request_id=missing.request_id,
            ) from missing

    def _body(self, values: Mapping[str, Any], bound: Bound) -> dict[str, Any]:
        plain = {name: value for name, value in values.items() if "." not in name and name not in LOOKUPS}
        return {**plain, **bound.body}

    def _close(self, record: Record, values: Mapping[str, Any]) -> Record:
        """Win or lose the opportunity, unless it is in that state already, and read it back."""
        state = values["statecode"]
        if record.values["statecode"] == state:
            return record
        close = CLOSES[state]
        body = {
            "Status": values.get("statuscode") or close.default_status,
            "OpportunityClose": _activity(record, values),
        }
        try:
            self._remote.request("POST", close.action, json=body)
        except Refused as refused:
            if refused.code != OPPORTUNITY_ALREADY_CLOSED:
                raise
            closed = self.read(record.ref)
            if closed.values["statecode"] != state:
                raise
            return closed
        return self.read(record.ref)

    def _columns(self, table: str) -> dict[str, str]:
        """Return $select and $expand for everything the field map uses."""
        shape = self._shapes[table]
        plain = [column for column in shape.columns if "." not in column]
        select = dict.fromkeys(filter(None, [*plain, shape.referral_id, shape.sync_flag, *ALWAYS]))
        expand = [f"{link}($select={','.join(columns)})" for link, columns in by_link(shape.columns).items()]
        return {"$select": ",".join(select), **({"$expand": ",".join(expand)} if expand else {})}

    def _record(self, table: str, row: Mapping[str, Any], known: Mapping[str, Any] | None = None) -> Record:
        shape = self._shapes[table]
        values = {name: row[name] for name in self._columns(table)["$select"].split(",") if name in row}
        for link, columns in by_link(shape.columns).items():
            if link in row:
                values |= {f"{link}.{column}": (row[link] or {}).get(column) for column in columns}
        values |= {name: value for name, value in (known or {}).items() if name in shape.columns}
        return Record(
            RecordRef(table, row[primary_id(table)]),
            version=row["@odata.etag"],
            values=values,
            modified=datetime.fromisoformat(row["modifiedon"]),
        )


def _activity(record: Record, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the opportunityclose row: who closes what, and the actual value and date if those are known."""
    revenue, closed_on = values.get("actualvalue"), values.get("actualclosedate")
    return {
        "subject": "Closed in Partner Center",
        "opportunityid@odata.bind": f"/{address(record.ref.table, record.ref.id)}",
        **({"actualrevenue": revenue} if revenue is not None else {}),
        # A date on the opportunity, a moment here.
        **({"actualend": f"{closed_on}T00:00:00Z"} if closed_on else {}),
    }


def _without_close(table: str, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split off what closes an opportunity: it goes through an action, after the other columns."""
    if table != "opportunity" or values.get("statecode") not in CLOSES:
        return dict(values), {}
    return _split(values, (*STATE, *CLOSE_COLUMNS))


def _without_state(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split off a state that a new row cannot have: rows are born open, and statecode is not valid for create."""
    if values.get("statecode"):
        return _split(values, (*STATE, *CLOSE_COLUMNS))
    return _split(values, ("statecode",))[0], {}


def _split(values: Mapping[str, Any], names: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    rest = {name: value for name, value in values.items() if name not in names}
    return rest, {name: value for name, value in values.items() if name in names}

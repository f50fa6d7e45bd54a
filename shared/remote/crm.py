"""What the core asks of a CRM, whichever it is. A new CRM is one class with these methods and one field map."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from shared.model import ChangePage, Record, RecordPage, RecordRef


@dataclass(frozen=True)
class TableShape:
    """What the field map uses of one CRM table.

    `columns`: every mapped column; a dotted name (`parentaccountid.name`) is a column of the related row.
    `referral_id`: the unique column that carries the referral's id. `sync_flag`: the seller's switch, "" where there is
    none. `sync_status`: where we show how a record that we know is; `display`: other
    columns that only we write.
    """

    table: str
    columns: tuple[str, ...]
    referral_id: str
    sync_flag: str
    sync_status: str = ""
    display: tuple[str, ...] = ()


@dataclass(frozen=True)
class RelatedRow:
    """A row to find, or to create when there is none, and to link to the record.

    `link`: the record's lookup column. `match`: columns and values that identify it (text compares without case);
    `values`: what a new row gets. `parent`: the link of another related row that a new row belongs to through its own
    lookup `parent_link` (a contact's account). `role`: the table whose rows join further ones to the record, where the
    CRM has one; the first is joined by `link`.
    """

    table: str
    link: str
    match: Mapping[str, Any]
    values: Mapping[str, Any]
    parent: str = ""
    parent_link: str = ""
    role: str = ""


class Crm(Protocol):
    """All methods raise the errors of shared.errors; ids and versions are opaque strings."""

    name: str

    def record_named(self, table: str, text: str) -> RecordRef | None:
        """Return the record that a text names which somebody entered in Partner Center, None when it can be no id.

        Asks nobody, so there need not be such a record.
        """

    def read(self, ref: RecordRef) -> Record:
        """Return the record with every column of its shape, or why one may not be read. Raises NotFound."""

    def find_by_referral(self, table: str, referral_id: str) -> Record | None:
        """Return the record that carries this referral id, or None."""

    def create(
        self, table: str, referral_id: str, values: Mapping[str, Any], related: Sequence[RelatedRow] = ()
    ) -> tuple[Record, bool]:
        """Create the record that carries `referral_id` and return it as read back, and True.

        If there is one already (a run that crashed, a race, an earlier connector) nothing of it is written: it is
        returned as it is, and False. Running twice makes one record. Raises Refused, Forbidden: with the column, and
        for a related row with its number in `related` as `part` and its table before the column.
        """

    def update(self, ref: RecordRef, values: Mapping[str, Any], version: str) -> Record:
        """Write `values` if the record still has `version` ("" writes in any case); return it as read back.

        The returned values may lack columns of related rows. A closing state among `values` closes the record the way
        the CRM wants it. Raises VersionConflict, NotFound, Refused (with the column), Forbidden.
        """

    def converted_to(self, lead: RecordRef) -> RecordRef | None:
        """Return the opportunity a person made of this lead, or None."""

    def changes(self, table: str, cursor: str | None) -> Iterator[ChangePage]:
        """Yield what changed in the table since `cursor` (None: everything that is shared, at least), page by page.

        Only the last page carries the next cursor. An expired cursor starts over by itself.
        """

    def shared_records(self, table: str, after: str | None) -> RecordPage:
        """Return a page of the records that are shared or that we know, with their versions: one request.

        `after` is the page before's, which another process may have read; None: the first page. A record that is there
        the whole time is on exactly one page. Has nothing to do with the cursors of `changes`.
        """

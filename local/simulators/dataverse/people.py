"""What others do in the organization: users, plug-ins, administrators. Same rules as the Web API, but no API call.

Tests call the methods; other processes send `POST /_people/<method>` with the arguments as JSON.
`user` is a system user's full name or id; `values` is what the Web API would take (`...@odata.bind` included).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from local.simulators.dataverse.actions import close_opportunity, qualify
from local.simulators.dataverse.errors import refuse
from local.simulators.dataverse.organization import LOST, WON, Organization, Principal, Row, Values
from local.simulators.dataverse.payload import read_json, read_values
from local.simulators.dataverse.protocol import encode
from local.simulators.dataverse.schema import Reference

if TYPE_CHECKING:
    from threading import RLock

SELLER = "Sally Seller"
ACTIONS = (
    "create", "edit", "delete", "restore", "win", "lose", "qualify_lead", "plugin_bumps", "plugin_bumps_next_write",
    "change_metadata", "expire_delta_tokens", "merge_accounts", "set_roles", "disable_user",
    "add_seller",
)  # fmt: skip


class People:
    """Third parties in one organization."""

    def __init__(self, org: Organization, lock: RLock) -> None:
        self._org = org
        self._lock = lock
        self.bumps_waiting: dict[str, int] = {}  # table -> how many more API writes a plug-in will follow up
        self.deleted: dict[str, Row] = {}  # by id, as they were

    def create(self, table: str, values: dict[str, Any], user: str = SELLER) -> str:
        """A user makes a row. Returns its id."""
        with self._lock:
            typed = self._typed(table, values, creating=True)
            self._org.require_write(self._as(user), self._org.tables[table], "Create")
            return self._org.create(self._org.tables[table], typed, self._as(user)).id

    def edit(self, table: str, id: str, values: dict[str, Any], user: str = SELLER) -> None:  # noqa: A002
        """A user changes a row."""
        with self._lock:
            self._org.require_write(self._as(user), self._org.tables[table], "Write")
            self._org.update(self._row(table, id), self._typed(table, values, creating=False), self._as(user))

    def delete(self, table: str, id: str, user: str = SELLER) -> None:  # noqa: A002
        """A user deletes a row, with what cascades from it."""
        with self._lock:
            self._org.require_write(self._as(user), self._org.tables[table], "Delete")
            self.deleted[id] = self._row(table, id)
            self._org.delete(self.deleted[id])

    def restore(self, id: str) -> None:  # noqa: A002
        """An administrator brings back under its old id a row that a user deleted here, without what went with it.

        https://learn.microsoft.com/power-platform/admin/restore-deleted-table-records
        """
        with self._lock:
            self._org.touch(self.deleted.pop(id))

    def win(self, opportunity: str, user: str = SELLER, status: int = 3, **close: Any) -> None:
        """A user closes an opportunity as won; `close` are columns of opportunityclose, such as actualrevenue."""
        self._close(WON, opportunity, user, status, close)

    def lose(self, opportunity: str, user: str = SELLER, status: int = 4, **close: Any) -> None:
        self._close(LOST, opportunity, user, status, close)

    def qualify_lead(self, lead: str, user: str = SELLER) -> dict[str, str]:
        """A user qualifies a lead. Returns the ids of account, contact and opportunity made of it, by table."""
        with self._lock, self._org.transaction():
            wanted = {"Account": True, "Contact": True, "Opportunity": True}
            rows = qualify(self._org, self._as(user), self._row("lead", lead), wanted, 3)
            return {row.table: row.id for row in rows}

    def plugin_bumps(self, table: str, id: str) -> None:  # noqa: A002
        """A plug-in touches a row: its version moves, none of its columns does."""
        with self._lock:
            self._org.touch(self._row(table, id))

    def plugin_bumps_next_write(self, table: str, times: int = 1) -> None:
        """A plug-in will touch each of the next rows of this table that someone writes through the API."""
        self.bumps_waiting[table] = times

    def change_metadata(self, table: str) -> None:
        """An administrator changes the table's definition: its delta tokens expire."""
        with self._lock:
            self._org.metadata_changed(self._org.tables[table])

    def expire_delta_tokens(self, table: str) -> None:
        with self._lock:
            self._org.expire_delta_tokens(self._org.tables[table])

    def merge_accounts(self, master: str, subordinate: str) -> None:
        """An administrator merges a duplicate: rows that pointed to it point to the master, it is left inactive."""
        with self._lock:
            kept, duplicate = self._row("account", master), self._row("account", subordinate)
            for row, column in list(self._org.pointing_at(duplicate.reference)):
                self._org.touch(self._org.get(row.reference), **{column.name: kept.reference})
            self._org.touch(
                self._org.get(duplicate.reference), merged=True, masterid=kept.reference, statecode=1, statuscode=2
            )

    def set_roles(self, user: str, roles: list[str]) -> None:
        with self._lock:
            self._org.user_roles[self._org.user(user).id] = set(roles)

    def add_seller(self, first_name: str, last_name: str, email: str, phone: str) -> str:
        """A salesperson joins. Returns the user's id."""
        columns = {"internalemailaddress": email, "address1_telephone1": phone}
        with self._lock:
            return self._org.add_user(f"{first_name} {last_name}", "Salesperson", **columns).id

    def disable_user(self, user: str) -> None:
        with self._lock:
            self._org.touch(self._org.user(user), isdisabled=True)

    def after_api_write(self, row: Row) -> None:
        """The plug-ins' turn, called for each row written through the API."""
        if self.bumps_waiting.get(row.table, 0) > 0 and row.id in self._org.rows[row.table]:
            self.bumps_waiting[row.table] -= 1
            self._org.touch(self._org.rows[row.table][row.id])

    def _close(self, state: int, opportunity: str, user: str, status: int, close: dict[str, Any]) -> None:
        with self._lock, self._org.transaction():
            row = self._row("opportunity", opportunity)
            values = {"subject": "Closed by a user", **close, "opportunityid@odata.bind": f"/opportunities({row.id})"}
            typed = self._typed("opportunityclose", values, creating=True)
            close_opportunity(self._org, self._as(user), state, status, typed, row)

    def _as(self, user: str) -> Principal:
        return Principal(self._org.user(user).id)

    def _row(self, table: str, row_id: str) -> Row:
        return self._org.get(Reference(table, row_id))

    def _typed(self, table: str, values: dict[str, Any], *, creating: bool) -> Values:
        """The values as they would arrive in a request."""
        if table not in self._org.tables:
            raise refuse("NoSuchSegment", segment=table)
        known = self._org.tables[table]
        return read_values(self._org, known, read_json(encode(values), known.set_name), creating=creating)

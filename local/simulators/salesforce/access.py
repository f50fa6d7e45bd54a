"""Who may see and change what: field permissions of permission sets, and what an administrator takes away.

Only the API asks here; people act without field permissions. Standard fields are open to everybody. A custom field
is nobody's until a permission set assigned to the user grants it, as with fields made through the API.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from local.simulators.salesforce.schema import Field, SObject

if TYPE_CHECKING:
    from local.simulators.salesforce.organization import Organization


class Access:
    """The permissions of an organization's users."""

    def __init__(self, org: Organization) -> None:
        self._org = org
        self.hidden: set[tuple[str, str, str]] = set()  # user, object, field
        self.read_only: set[tuple[str, str, str]] = set()
        self.revoked: set[tuple[str, str]] = set()  # user, object
        self.may_customize: set[str] = set()
        self._granted_at: dict[tuple[str, str], tuple[int, frozenset[str]]] = {}

    def object_named(self, name: str, user: str | None, *, tooling: bool = False) -> SObject | None:
        """The object of that name in any case, when this user may know of it. User None sees all."""
        found = self._org.object_named(name)
        if found is None or found.virtual or found.tooling != tooling or (user, found.name) in self.revoked:
            return None
        return found

    def field_named(self, sobject: SObject, name: str, user: str | None) -> Field | None:
        found = sobject.find(name)
        return found if found and self.may_read(sobject, found, user) else None

    def fields(self, sobject: SObject, user: str | None) -> list[Field]:
        return [field for field in sobject.fields.values() if self.may_read(sobject, field, user)]

    def may_read(self, sobject: SObject, field: Field, user: str | None) -> bool:
        if not self._org.has(field.needs):
            return False
        if user is None or sobject.virtual:
            return True
        if (user, sobject.name, field.name) in self.hidden:
            return False
        return (
            not field.custom
            or not field.permissionable
            or (f"{sobject.name}.{field.name}" in self._granted(user, "PermissionsRead"))
        )

    def may_write(self, sobject: SObject, field: Field, user: str | None) -> bool:
        """Whether the user's permissions allow a change; what the platform itself forbids is not asked here."""
        if user is None:
            return True
        if (user, sobject.name, field.name) in self.read_only:
            return False
        return (
            not field.custom
            or not field.permissionable
            or (f"{sobject.name}.{field.name}" in self._granted(user, "PermissionsEdit"))
        )

    def _granted(self, user: str, permission: str) -> frozenset[str]:
        """The fields, as Object.Field, that the user's permission sets grant: gathered again when a row was written."""
        written, granted = self._granted_at.get((user, permission), (-1, frozenset[str]()))
        if written != self._org.written:
            granted = self._gathered(user, permission)
            self._granted_at[user, permission] = self._org.written, granted
        return granted

    def _gathered(self, user: str, permission: str) -> frozenset[str]:
        rows = self._org.rows
        assigned = {
            row.values["PermissionSetId"]
            for row in rows["PermissionSetAssignment"].values()
            if row.values["AssigneeId"] == user
        }
        return frozenset(
            row.values["Field"]
            for row in rows["FieldPermissions"].values()
            if row.values["ParentId"] in assigned and row.values[permission]
        )

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
        return not field.custom or not field.permissionable or self._granted(sobject, field, user, "PermissionsRead")

    def may_write(self, sobject: SObject, field: Field, user: str | None) -> bool:
        """Whether the user's permissions allow a change; what the platform itself forbids is not asked here."""
        if user is None:
            return True
        if (user, sobject.name, field.name) in self.read_only:
            return False
        return not field.custom or not field.permissionable or self._granted(sobject, field, user, "PermissionsEdit")

    def _granted(self, sobject: SObject, field: Field, user: str, permission: str) -> bool:
        rows = self._org.rows
        assigned = {
            row.values["PermissionSetId"]
            for row in rows["PermissionSetAssignment"].values()
            if row.values["AssigneeId"] == user
        }
        return any(
            row.values["ParentId"] in assigned
            and row.values["Field"] == f"{sobject.name}.{field.name}"
            and row.values[permission]
            for row in rows["FieldPermissions"].values()
        )

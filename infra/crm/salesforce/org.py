"""Reads and changes the definitions and permissions of a Salesforce org. Decides nothing.

https://developer.salesforce.com/docs/atlas.en-us.api_tooling.meta/api_tooling/tooling_api_objects_customfield.htm
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from infra.crm.salesforce.fields import Field, PermissionSet
from infra.crm.salesforce.permissions import OBJECT_PERMISSIONS, FieldGrant, custom_name
from shared.errors import Refused
from shared.remote.http import Remote
from shared.remote.salesforce_rows import literal, select, where

ALREADY_THERE = frozenset({"DUPLICATE_DEVELOPER_NAME", "DUPLICATE_VALUE"})
"""What an earlier attempt made, or somebody else at the same time."""


@dataclass(frozen=True)
class Found:
    """A custom field that exists, under its name as the org writes it; `metadata` without what is empty."""

    id: str
    name: str
    metadata: Mapping[str, Any]

    @property
    def type(self) -> str:
        return str(self.metadata["type"])

    @property
    def length(self) -> int:
        return int(self.metadata.get("length", 0))

    @property
    def values(self) -> list[Mapping[str, Any]] | None:
        """The values of a picklist; None when it shares those of a global value set."""
        definition = self.metadata.get("valueSet", {}).get("valueSetDefinition")
        return None if definition is None else definition["value"]

    @property
    def is_permissionable(self) -> bool:
        """Whether permissions know the field: one that must be filled in is everybody's."""
        return not self.metadata.get("required")

    @property
    def is_calculated(self) -> bool:
        return "formula" in self.metadata or self.type in ("AutoNumber", "Summary")


@dataclass(frozen=True)
class FoundSet:
    """A permission set that exists: the permissions that are on, by object and by field (`Object.Field`), and who has
    the set.
    """

    objects: Mapping[str, frozenset[str]]
    fields: Mapping[str, bool]
    assigned: frozenset[str]


@dataclass(frozen=True)
class User:
    id: str
    name: str


class Org:
    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    # ------------------------------------------------------------ reading

    def name(self) -> str:
        (row,) = self._rows(select("Organization", ["Name"]))
        return str(row["Name"])

    def custom_fields(self, names: Mapping[str, Iterable[str]]) -> dict[tuple[str, str], Found]:
        """Return those of these custom fields that exist, whoever may see them, by object and name in lower case."""
        named = {(of, name.lower()): custom_name(name) for of, fields in names.items() for name in fields}
        asked = {key: custom for key, custom in named.items() if custom}
        columns = ["Id", "DeveloperName", "NamespacePrefix", "TableEnumOrId"]
        objects = _among("TableEnumOrId", {of for of, _ in asked})
        developer_names = _among("DeveloperName", {developer_name for _, developer_name in asked.values()})
        soql = f"{select('CustomField', columns)} WHERE {objects} AND {developer_names}"
        rows = {(row["TableEnumOrId"], _name(row).lower()): row for row in self._rows(soql, "tooling/query")}
        return {key: self._field(row) for key, row in rows.items() if key in asked}

    def _field(self, row: Mapping[str, Any]) -> Found:
        # One at a time: a query may ask for the metadata of no more than one field.
        metadata = self._remote.json("GET", f"tooling/sobjects/CustomField/{row['Id']}")["Metadata"]
        return Found(row["Id"], _name(row), _without_nulls(metadata))

    def permission_set(self, name: str) -> FoundSet | None:
        rows = self._rows(f"{select('PermissionSet', ['Id'])} WHERE {where({'Name': name})}")
        if not rows:
            return None
        of_it, in_it = where({"ParentId": rows[0]["Id"]}), where({"PermissionSetId": rows[0]["Id"]})
        objects = self._rows(f"{select('ObjectPermissions', ['SobjectType', *OBJECT_PERMISSIONS])} WHERE {of_it}")
        fields = self._rows(f"{select('FieldPermissions', ['Field', 'PermissionsEdit'])} WHERE {of_it}")
        assigned = self._rows(f"{select('PermissionSetAssignment', ['AssigneeId'])} WHERE {in_it}")
        return FoundSet(
            {row["SobjectType"]: frozenset(name for name in OBJECT_PERMISSIONS if row[name]) for row in objects},
            {row["Field"].lower(): row["PermissionsEdit"] for row in fields},
            frozenset(row["AssigneeId"] for row in assigned),
        )

    def user(self, **key: str) -> User | None:
        """Return the active user of that Id or Username."""
        rows = self._rows(f"{select('User', ['Id', 'Username'])} WHERE {where({**key, 'IsActive': True})}")
        return User(rows[0]["Id"], rows[0]["Username"]) if rows else None

    def visible_fields(self, object_name: str) -> frozenset[str]:
        """Return the fields that the installer sees."""
        fields = self._remote.json("GET", f"sobjects/{object_name}/describe")["fields"]
        return frozenset(field["name"] for field in fields)

    def values_in_use(self, object_name: str, condition: str = "") -> frozenset[str]:
        """Return the API names of the stages of opportunities, or of the statuses of leads."""
        soql = select(object_name, ["ApiName"]) + (f" WHERE {condition}" if condition else "")
        return frozenset(row["ApiName"] for row in self._rows(soql))

    def _rows(self, soql: str, path: str = "query") -> list[Mapping[str, Any]]:
        # What is asked for here fits one page of 2000 rows.
        rows: list[Mapping[str, Any]] = self._remote.json("GET", path, params={"q": soql})["records"]
        return rows

    # ------------------------------------------------------------ changing

    def add_field(self, object_name: str, field: Field) -> None:
        body = {"FullName": f"{object_name}.{field.name}", "Metadata": field.metadata()}
        self._add("tooling/sobjects/CustomField", body)

    def change_field(self, found: Found, changes: Mapping[str, Any]) -> None:
        """A definition is replaced as a whole."""
        body = {"Metadata": {**found.metadata, **changes}}
        self._remote.request("PATCH", f"tooling/sobjects/CustomField/{found.id}", json=body)

    def add_permission_set(self, permission_set: PermissionSet) -> None:
        # Without a licence: one that names it could not be given to the user of an integration.
        names = {"Name": permission_set.name, "Label": permission_set.label}
        self._add("sobjects/PermissionSet", {**names, "Description": permission_set.description})

    def open_object(self, permission_set: str, object_name: str) -> None:
        key = {"ParentId": self._set_id(permission_set), "SobjectType": object_name}
        self._allow("ObjectPermissions", key, dict.fromkeys(OBJECT_PERMISSIONS, True))

    def open_fields(self, permission_set: str, grants: Iterable[FieldGrant]) -> None:
        parent = self._set_id(permission_set)
        for grant in grants:
            key = {"ParentId": parent, "SobjectType": grant.object, "Field": grant.full_name}
            self._allow("FieldPermissions", key, {"PermissionsRead": True, "PermissionsEdit": grant.edit})

    def assign(self, permission_set: str, user: User) -> None:
        body = {"AssigneeId": user.id, "PermissionSetId": self._set_id(permission_set)}
        try:
            self._add("sobjects/PermissionSetAssignment", body)
        except Refused as refused:
            # https://lietzau-consulting.de/2023/04/setup-salesforce-integration-user-license/
            raise Refused(
                f"permission set {permission_set} cannot be assigned to {user.name}: {refused}",
                next_step="give the user the permission set license Salesforce API Integration (Setup, Users, "
                "Permission Set License Assignments), then run again",
                remote=refused.remote,
                code=refused.code,
            ) from refused

    def _set_id(self, name: str) -> str:
        (row,) = self._rows(f"{select('PermissionSet', ['Id'])} WHERE {where({'Name': name})}")
        return str(row["Id"])

    def _allow(self, object_name: str, key: Mapping[str, str], permissions: Mapping[str, bool]) -> None:
        rows = self._rows(f"{select(object_name, ['Id'])} WHERE {where(key)}")
        if rows:
            self._remote.request("PATCH", f"sobjects/{object_name}/{rows[0]['Id']}", json=permissions)
        else:
            self._add(f"sobjects/{object_name}", {**key, **permissions})

    def _add(self, address: str, body: Mapping[str, Any]) -> None:
        try:
            self._remote.request("POST", address, json=body, create=True)
        except Refused as refused:
            if refused.code not in ALREADY_THERE:
                raise


def _name(row: Mapping[str, Any]) -> str:
    namespace = f"{row['NamespacePrefix']}__" if row["NamespacePrefix"] else ""
    return f"{namespace}{row['DeveloperName']}__c"


def _among(column: str, values: Iterable[str]) -> str:
    return f"{column} IN ({', '.join(literal(value) for value in sorted(values))})"


def _without_nulls(value: Any) -> Any:
    """Metadata is answered with every member there could be; sent back, an empty one is not always accepted."""
    match value:
        case dict():
            return {name: _without_nulls(item) for name, item in value.items() if item is not None}
        case list():
            return [_without_nulls(item) for item in value]
        case _:
            return value

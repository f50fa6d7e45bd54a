"""Compares what must exist with what does, and creates what is missing. Never deletes, narrows or renames anything.

A field that is already there, say of Microsoft's package, stays as it is, also when it is longer or not restricted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import groupby
from typing import Any

from infra.crm.salesforce.fields import Field, PermissionSet, Wanted, picklist_value
from infra.crm.salesforce.org import Found, FoundSet, Org, User
from infra.crm.salesforce.permissions import (
    OBJECT_PERMISSIONS,
    OBJECTS,
    FieldGrant,
    custom_name,
    field_grants,
    used_fields,
)
from infra.crm.steps import Step
from shared.errors import Refused
from shared.mapping import FieldMap

Fields = Mapping[tuple[str, str], Found]
"""Custom fields that exist, by object and name in lower case."""


class Provisioning:
    """Brings one org to what is wanted, as far as the field map uses it. `user` gets the app's permission set."""

    def __init__(self, org: Org, wanted: Wanted, field_map: FieldMap, user: User | None) -> None:
        self._org = org
        self._wanted = wanted
        self._field_map = field_map
        self._user = user
        self._used = used_fields(field_map)

    def found(self) -> Fields:
        """Return the custom fields that the map names and the org has."""
        return self._org.custom_fields(self._used)

    def steps(self) -> list[Step]:
        """Return what is still to be done. Raises Refused, with all problems, when something is in the way."""
        found = self.found()
        problems = list(self._problems(found))
        if problems:
            next_step = "correct this in Setup, Object Manager, then run again"
            raise Refused("\n".join(problems), next_step=next_step, remote="Salesforce")
        steps = [step for object_name, field in self.fields() for step in self._field_steps(object_name, field, found)]
        for permission_set in self._wanted.permission_sets:
            steps += self._permission_steps(permission_set, found)
        return steps

    def fields(self) -> Iterator[tuple[str, Field]]:
        """Yield the fields of fields.json that the map uses, with their object."""
        for object_name, names in self._used.items():
            used = {name.lower() for name in names}
            yield from ((object_name, f) for f in self._wanted.fields_of(object_name) if f.name.lower() in used)

    # ------------------------------------------------------------ fields

    def _problems(self, found: Fields) -> Iterator[str]:
        for object_name, field in self.fields():
            there = found.get((object_name, field.name.lower()))
            if there and there.type != field.type:
                yield (
                    f"{object_name}.{field.name} exists with type {there.type}, needed is {field.type}: "
                    "delete that field if nobody uses it, or let the field map use another one"
                )

    def _field_steps(self, object_name: str, field: Field, found: Fields) -> Iterator[Step]:
        there = found.get((object_name, field.name.lower()))
        if there is None:
            yield Step(f"add to {object_name}: {field.words}", partial(self._org.add_field, object_name, field))
        elif changes := dict(_changes(field, there)):
            words = f"change {object_name}.{there.name}: {', '.join(changes)}"
            merged = {name: value for change in changes.values() for name, value in change.items()}
            yield Step(words, partial(self._org.change_field, there, merged))

    # ------------------------------------------------------------ permissions

    def _permission_steps(self, wanted: PermissionSet, found: Fields) -> Iterator[Step]:
        org, name = self._org, wanted.name
        there = org.permission_set(name)
        if there is None:
            yield Step(f"add permission set {name} ({wanted.label})", partial(org.add_permission_set, wanted))
            there = FoundSet({}, {}, frozenset())
        for object_name in OBJECTS if wanted.for_the_app else ():
            if not frozenset(OBJECT_PERMISSIONS) <= there.objects.get(object_name, frozenset()):
                words = f"let {name} read, create and edit {object_name}, and view all"
                yield Step(words, partial(org.open_object, name, object_name))
        missing = [grant for grant in self._grants(wanted, found) if not _is_given(grant, there)]
        for (object_name, edit), group in groupby(missing, key=lambda grant: (grant.object, grant.edit)):
            grants = list(group)
            what, names = "see and edit" if edit else "see", ", ".join(grant.field for grant in grants)
            yield Step(f"let {name} {what} in {object_name}: {names}", partial(org.open_fields, name, grants))
        if wanted.for_the_app and self._user and self._user.id not in there.assigned:
            yield Step(f"assign {name} to {self._user.name}", partial(org.assign, name, self._user))

    def _grants(self, permission_set: PermissionSet, found: Fields) -> list[FieldGrant]:
        """Return what can be granted: not fields that are not there, nor those that everybody sees."""
        coming = {(object_name, field.name.lower()) for object_name, field in self.fields()}
        grants = []
        for grant in field_grants(permission_set, self._wanted, self._field_map):
            key = (grant.object, grant.field.lower())
            there = found.get(key)
            if there is None and (key in coming or custom_name(grant.field) is None):
                grants.append(grant)
            elif there and there.is_permissionable:
                grants.append(FieldGrant(grant.object, there.name, grant.edit and not there.is_calculated))
        return sorted(grants, key=lambda grant: (OBJECTS.index(grant.object), not grant.edit, grant.field))


def _changes(field: Field, found: Found) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what has to change about a field that exists: in words, and in its metadata."""
    if found.length < field.length:
        yield f"lengthen it from {found.length} to {field.length} characters", {"length": field.length}
    if field.external_id and not found.metadata.get("externalId"):
        yield "make it an External ID", {"externalId": True}
    if missing := _missing_values(field, found):
        # A value that was switched off is replaced by itself, switched on.
        kept = [value for value in found.values or () if value["valueName"] not in missing]
        value_set = found.metadata["valueSet"]
        values = {**value_set["valueSetDefinition"], "value": [*kept, *map(picklist_value, missing)]}
        yield f"add {', '.join(missing)}", {"valueSet": {**value_set, "valueSetDefinition": values}}


def _missing_values(field: Field, found: Found) -> list[str]:
    """Return the values to be added. Case does not make a difference; a global value set is not ours to change."""
    if found.values is None:
        return []
    there = {str(value["valueName"]).lower() for value in found.values if value.get("isActive", True)}
    return [value for value in field.values if value.lower() not in there]


def _is_given(grant: FieldGrant, there: FoundSet) -> bool:
    edit = there.fields.get(grant.full_name.lower())
    return edit is not None and (edit or not grant.edit)

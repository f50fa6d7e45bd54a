"""What a save must not break: required fields, lookups, unique fields, administrators' rules, locks. Changes no row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from local.simulators.salesforce.errors import duplicates_detected, refuse
from local.simulators.salesforce.ids import id18
from local.simulators.salesforce.payload import render
from local.simulators.salesforce.schema import Kind, SObject

if TYPE_CHECKING:
    from local.simulators.salesforce.organization import Organization, Row, Saving, Values


@dataclass(frozen=True)
class ValidationRule:
    name: str
    object: str
    message: str
    field: str | None
    when: Mapping[str, Any]


@dataclass(frozen=True)
class DuplicateRule:
    name: str
    object: str
    match_on: tuple[str, ...]
    allow_save: bool


def check_required(org: Organization, sobject: SObject, new: Values, *, creating: bool) -> None:
    missing = [
        known.name
        for known in sobject.fields.values()
        if known.required and new.get(known.name) is None and org.has(known.needs)
    ]
    if missing:
        raise refuse("Missing", missing, names=", ".join(missing))
    if not creating and "OwnerId" in sobject.fields and new.get("OwnerId") is None:
        raise refuse("NoOwner", ["OwnerId"])


def check_lookups(org: Organization, sobject: SObject, new: Values, given: set[str]) -> None:
    for name in given:
        known = sobject.fields[name]
        target_id = new.get(name)
        if known.kind is not Kind.REFERENCE or target_id is None:
            continue
        target = org.object_of(target_id)
        if target is None or not any(each in org.objects for each in known.targets):
            raise refuse("NotSimulated", what=f"the target of {sobject.name}.{name}")
        row = org.find(target.name, target_id)
        if row is None:
            raise refuse("BadReference", [])
        if row.deleted:
            raise refuse("DeletedReference", [])
        if name == "OwnerId" and target.name == "User" and not row.values["IsActive"]:
            raise refuse("InactiveOwner", ["OwnerId"], user=target_id[:15], object=sobject.name.lower())


def check_unique(org: Organization, sobject: SObject, row: Row, given: set[str]) -> None:
    for name in given:
        known, value = sobject.fields[name], row.values.get(name)
        if known.unique and value is not None:
            others = [other for other in org.where(sobject.name, **{name: value}) if other.id != row.id]
            if others:
                raise refuse("DuplicateValue", [], name=name, id=others[0].id[:15])


def check_rules(org: Organization, sobject: SObject, old: Row | None, row: Row, saving: Saving) -> None:
    for rule in org.validation_rules:
        if rule.object == sobject.name and all(
            same(render(row.values.get(name)), wanted) for name, wanted in rule.when.items()
        ):
            raise refuse("ValidationRule", [rule.field] if rule.field else [], message=rule.message)
    for duplicates in org.duplicate_rules:
        if duplicates.object == sobject.name:
            _check_duplicates(org, duplicates, old, row, saving)


def _check_duplicates(org: Organization, rule: DuplicateRule, old: Row | None, row: Row, saving: Saving) -> None:
    """Only for a new row, or one whose matched fields changed, and only when all of them are filled."""
    wanted = {name: row.values.get(name) for name in rule.match_on}
    unchanged = old is not None and all(same(old.values.get(name), value) for name, value in wanted.items())
    if unchanged or any(value is None for value in wanted.values()):
        return
    matches = [other.id for other in org.where(rule.object, **wanted) if other.id != row.id]
    if matches and not (rule.allow_save and saving.allow_duplicates):
        key = "duplicateResut" if org.duplicate_key_misspelled else "duplicateResult"
        base = f"/services/data/v{saving.version}/sobjects/{rule.object}"
        urls = {match: f"{base}/{match}" for match in matches}
        raise duplicates_detected(rule.name, rule.object, rule.allow_save, urls, key)


def check_locks(org: Organization, row: Row, saving: Saving) -> None:
    """Raise LockedRow when the row, or the opportunity it hangs on, is held by somebody."""
    touched = [(row.object, row.id)]
    if parent := row.values.get("OpportunityId"):
        touched.append(("Opportunity", parent))
    for key in touched:
        row_id = key[1]
        held = org.held_by_transaction(key)
        if saving.api and org.locks.get(row_id, 0) > 0:
            org.locks[row_id] -= 1
            held = True
        if held:
            raise refuse("LockedRow", [], id=row_id)


def same(left: Any, right: Any) -> bool:
    """Equal as Salesforce compares: texts without regard to case."""
    return matcher(right)(left)


def matcher(wanted: Any) -> Callable[[Any], bool]:
    """Whether a stored value is the same as `wanted`; stored ids have 18 characters, a wanted one may have 15."""
    if not isinstance(wanted, str):
        return lambda value: bool(value == wanted)
    texts = {wanted.lower()} | ({str(id18(wanted)).lower()} if len(wanted) == 15 else set())
    return lambda value: isinstance(value, str) and value.lower() in texts

"""Single rows over HTTP: create, read, update, delete, by id or by external id.

https://developer.salesforce.com/docs/platform/api-rest/guide/dome-upsert.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from local.simulators.base import Response
from local.simulators.salesforce import conditions
from local.simulators.salesforce.errors import refuse
from local.simulators.salesforce.ids import id18
from local.simulators.salesforce.organization import Organization, Row
from local.simulators.salesforce.payload import read_values
from local.simulators.salesforce.protocol import Call, answer, names, wrong_method
from local.simulators.salesforce.schema import Field, Kind, SObject

UPSERT_ANSWERS_SINCE = 46.0


def create_call(call: Call, sobject: SObject) -> Response:
    """POST /sobjects/{object}"""
    call.check_query()
    conditions.refuse_conditions(call, "a create")
    row = create(call, sobject, call.json_body(), source=call.request.body.decode("utf-8", "replace"))
    return answer(201, {"id": row.id, "success": True, "errors": []}, {"Location": call.url(sobject.name, row.id)})


def row_call(call: Call, sobject: SObject, id_text: str) -> Response:
    """/sobjects/{object}/{id}"""
    match call.method:
        case "GET":
            call.check_query("fields")
            row = row_to_read(call, sobject, id_text)
            return conditions.unchanged(call, row) or _read(call, sobject, row)
        case "PATCH":
            call.check_query()
            row = row_to_write(call.org, sobject, id_text)
            conditions.check_write(call, row)
            update(call, row, call.json_body(), source=call.request.body.decode("utf-8", "replace"))
            return Response(204)
        case "DELETE":
            call.check_query()
            conditions.refuse_conditions(call, "a delete")
            delete(call, row_to_write(call.org, sobject, id_text))
            return Response(204)
    raise wrong_method(call, "GET", "PATCH", "DELETE", "HEAD")


def key_call(call: Call, sobject: SObject, field_name: str, value: str) -> Response:
    """/sobjects/{object}/{external id field}/{value}"""
    call.check_query(*{"GET": ["fields"], "PATCH": ["updateOnly"]}.get(call.method, []))
    conditions.refuse_conditions(call, "a row by external id")
    key = key_field(call, sobject, field_name)
    found = find_by_key(call.org, sobject, key, value)
    if len(found) > 1:
        return answer(300, [call.url(sobject.name, row.id) for row in found])
    match call.method:
        case "GET":
            if not found:
                raise refuse("NotFound")
            return _read(call, sobject, found[0])
        case "DELETE":
            if not found:
                raise refuse("NotFound")
            delete(call, found[0])
            return Response(204)
        case "PATCH":
            body, source = call.json_body(), call.request.body.decode("utf-8", "replace")
            only_update = call.request.query.get("updateOnly", "false").lower() == "true"
            done = upsert(call, sobject, key, value, body, only_update=only_update, source=source)
            result = {"id": done.row.id, "success": True, "errors": [], "created": done.created}
            if done.created:
                return answer(201, result, {"Location": call.url(sobject.name, done.row.id)})
            return answer(200, result) if float(call.version) >= UPSERT_ANSWERS_SINCE else Response(204)
    raise wrong_method(call, "GET", "PATCH", "DELETE", "HEAD")


@dataclass(frozen=True)
class Upserted:
    row: Row
    created: bool


def create(call: Call, sobject: SObject, body: dict[str, Any], *, source: str = "") -> Row:
    if not sobject.create:
        raise refuse("NotSupportedHere", label=sobject.label, operation="create")
    values = read_values(call.org, sobject, body, call.user, creating=True, source=source)
    return call.org.create(sobject, values, call.saving)


def update(call: Call, row: Row, body: dict[str, Any], *, source: str = "") -> Row:
    sobject = call.org.objects[row.object]
    if not sobject.update:
        raise refuse("NotSupportedHere", label=sobject.label, operation="update")
    values = read_values(call.org, sobject, body, call.user, creating=False, source=source)
    return call.org.update(row, values, call.saving)


def delete(call: Call, row: Row) -> None:
    sobject = call.org.objects[row.object]
    if not sobject.delete:
        raise refuse("NotSupportedHere", label=sobject.label, operation="delete")
    call.org.delete(row, call.saving)


def upsert(
    call: Call,
    sobject: SObject,
    key: Field,
    value: str,
    body: dict[str, Any],
    *,
    only_update: bool = False,
    source: str = "",
) -> Upserted:
    """Create or update the row of that key. Raises AmbiguousKey when several rows have it."""
    for name in body:
        if name.lower() in ("id", key.name.lower()):
            raise refuse("FieldInBody", name=key.name if name.lower() != "id" else "Id")
    found = find_by_key(call.org, sobject, key, value)
    if len(found) > 1:
        raise refuse("AmbiguousKey", [], name=key.name, ids=", ".join(row.id for row in found))
    if found:
        return Upserted(update(call, found[0], body, source=source), created=False)
    if only_update or key.kind is Kind.ID:
        raise refuse("NotFound")
    return Upserted(create(call, sobject, {**body, key.name: value}, source=source), created=True)


def key_field(call: Call, sobject: SObject, name: str) -> Field:
    """The field as a key. Raises NoExternalId when it is none, or the caller may not see it."""
    key = call.org.access.field_named(sobject, name, call.user)
    if key is None or not (key.external_id or key.id_lookup or key.kind is Kind.ID):
        raise refuse("NoExternalId", name=name)
    return key


def find_by_key(org: Organization, sobject: SObject, key: Field, value: str) -> list[Row]:
    if key.kind is Kind.ID:
        full = id18(value)
        row = org.find(sobject.name, full) if full else None
        return [row] if row and not row.deleted else []
    return org.where(sobject.name, **{key.name: value})


def row_to_read(call: Call, sobject: SObject, id_text: str) -> Row:
    full = id18(id_text)
    if full is None:
        raise refuse("NoExternalId", name=id_text)
    row = call.org.find(sobject.name, full)
    if row is None:
        raise refuse("NotFound")
    if row.deleted:
        raise refuse("Deleted")
    return row


def row_to_write(org: Organization, sobject: SObject, id_text: Any) -> Row:
    """The row a write addresses. Raises WrongId, UnknownRow or Deleted."""
    full = id18(id_text) if isinstance(id_text, str) else None
    if full is None or full[:3] != sobject.prefix:
        raise refuse("WrongId", ["Id"], label=sobject.fields["Id"].label, value=id_text)
    row = org.find(sobject.name, full)
    if row is None:
        raise refuse("UnknownRow", [])
    if row.deleted:
        raise refuse("Deleted", [])
    return row


def _read(call: Call, sobject: SObject, row: Row) -> Response:
    if "fields" in call.request.query:
        wanted = []
        for name in names(call.request.query["fields"]):
            known = call.org.access.field_named(sobject, name, call.user)
            if known is None:
                raise refuse("NoSuchField", name=name, object=sobject.name)
            wanted.append(known)
    else:
        wanted = call.org.access.fields(sobject, call.user)
    return answer(200, call.row_json(row, wanted), conditions.last_modified(row))

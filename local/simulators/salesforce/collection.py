"""/composite/sobjects: up to 200 rows in one call, each with its own result.

https://developer.salesforce.com/docs/platform/api-rest/guide/resources-composite-sobjects-collections-create.html
https://developer.salesforce.com/docs/platform/api-rest/guide/resources-composite-sobjects-collections-retrieve-post.html
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import groupby
from typing import Any

from local.simulators.base import Response
from local.simulators.salesforce.conditions import refuse_conditions
from local.simulators.salesforce.errors import Refusal, refuse
from local.simulators.salesforce.ids import id18
from local.simulators.salesforce.protocol import Call, answer, names, wrong_method
from local.simulators.salesforce.records import create, delete, key_field, row_to_write, update, upsert
from local.simulators.salesforce.schema import SObject

MOST_ROWS = 200
MOST_ROWS_READ = 2000
MOST_CHUNKS = 10

Step = Callable[[], dict[str, Any]]
"""Writes one row and returns its result. Raises Refusal."""


def collection_call(call: Call, rest: tuple[str, ...]) -> Response:
    """/composite/sobjects and what is below it."""
    refuse_conditions(call, "a collection")
    match call.method, rest:
        case "POST", ():
            return _create(call)
        case "PATCH", ():
            return _update(call)
        case "DELETE", ():
            return _delete(call)
        case "PATCH", (name, key):
            return _upsert(call, _sobject(call, name), key)
        case "GET" | "POST", (name,):
            return _retrieve(call, _sobject(call, name))
        case _, () | (_,) | (_, _):
            raise wrong_method(call, "GET", "POST", "PATCH", "DELETE")
    raise refuse("NotFound")


def _create(call: Call) -> Response:
    all_or_none, records = _records(call)

    def step(record: dict[str, Any]) -> Step:
        def act() -> dict[str, Any]:
            if any(name.lower() == "id" for name in record):
                raise refuse("FieldInBody", [], name="Id")
            return {"id": create(call, _typed_object(call, record), record).id, "success": True, "errors": []}

        return act

    return _run(call, [step(record) for record in records], all_or_none)


def _update(call: Call) -> Response:
    all_or_none, records = _records(call)

    def step(record: dict[str, Any]) -> Step:
        def act() -> dict[str, Any]:
            ids = [value for name, value in record.items() if name.lower() == "id"]
            if not ids:
                raise refuse("MissingParameter", [], name="Id")
            values = {name: value for name, value in record.items() if name.lower() != "id"}
            row = update(call, row_to_write(call.org, _typed_object(call, record), ids[0]), values)
            return {"id": row.id, "success": True, "errors": []}

        return act

    return _run(call, [step(record) for record in records], all_or_none)


def _upsert(call: Call, sobject: SObject, key_name: str) -> Response:
    key = key_field(call, sobject, key_name)
    all_or_none, records = _records(call)
    keys = [next((value for name, value in each.items() if name.lower() == key.name.lower()), None) for each in records]
    repeated = {key for key, times in Counter(str(value).lower() for value in keys if value).items() if times > 1}

    def step(record: dict[str, Any], value: Any) -> Step:
        def act() -> dict[str, Any]:
            if _typed_object(call, record) is not sobject:
                raise refuse("InvalidInput", [], message=f"The records of this call are of type {sobject.name}")
            if not value:
                raise refuse("MissingParameter", [], name=key.name)
            if str(value).lower() in repeated:
                raise refuse("DuplicateKey", [], value=value)
            values = {name: given for name, given in record.items() if name.lower() != key.name.lower()}
            done = upsert(call, sobject, key, str(value), values)
            return {"id": done.row.id, "success": True, "errors": [], "created": done.created}

        return act

    return _run(call, [step(*pair) for pair in zip(records, keys, strict=True)], all_or_none)


def _delete(call: Call) -> Response:
    call.check_query("ids", "allOrNone")
    ids = names(call.request.query.get("ids", ""))
    if not ids:
        raise refuse("MissingParameter", name="ids")
    _check_amount(ids, MOST_ROWS)

    def step(id_text: str) -> Step:
        def act() -> dict[str, Any]:
            full = id18(id_text)
            sobject = call.org.object_of(full) if full else None
            if sobject is None:
                raise refuse("WrongId", ["Id"], label="Record ID", value=id_text)
            row = row_to_write(call.org, sobject, id_text)
            delete(call, row)
            return {"id": row.id, "success": True, "errors": []}

        return act

    all_or_none = call.request.query.get("allOrNone", "false").lower() == "true"
    return _run(call, [step(id_text) for id_text in ids], all_or_none)


def _retrieve(call: Call, sobject: SObject) -> Response:
    if call.method == "GET":
        call.check_query("ids", "fields")
        ids, wanted = (names(call.request.query.get(name, "")) for name in ("ids", "fields"))
    else:
        body = call.json_body()
        if unknown := body.keys() - {"ids", "fields"}:
            raise refuse("InvalidInput", message=f"Unrecognized field: {sorted(unknown)[0]}")
        ids, wanted = body.get("ids", []), body.get("fields", [])
    if not ids or not wanted:
        raise refuse("MissingParameter", name="fields" if ids else "ids")
    _check_amount(ids, MOST_ROWS_READ)
    fields = []
    for name in wanted:
        known = call.org.access.field_named(sobject, name, call.user)
        if known is None:
            raise refuse("NoSuchField", name=name, object=sobject.name)
        fields.append(known)
    found = []
    for id_text in ids:
        full = id18(id_text)
        row = call.org.find(sobject.name, full) if full else None
        found.append(call.row_json(row, fields) if row and not row.deleted else None)
    return answer(200, found)


def _run(call: Call, steps: list[Step], all_or_none: bool) -> Response:
    mark, results, failed = call.org.mark(), [], False
    for step in steps:
        try:
            with call.org.undoing():
                results.append(step())
        except Refusal as refusal:
            if refusal.status == 501:
                raise
            failed = True
            results.append({"success": False, "errors": refusal.as_row_errors})
    if all_or_none and failed:
        call.org.undo_to(mark)
        rolled_back = refuse("RolledBack", []).as_row_errors
        results = [
            {**result, "success": False, "errors": rolled_back} if result["success"] else result for result in results
        ]
    return answer(200, results)


def _records(call: Call) -> tuple[bool, list[dict[str, Any]]]:
    """allOrNone and the records of the body. Raises when the call as a whole is malformed."""
    call.check_query()
    body = call.json_body()
    if unknown := body.keys() - {"allOrNone", "records"}:
        raise refuse("InvalidInput", message=f"Unrecognized field: {sorted(unknown)[0]}")
    records, all_or_none = body.get("records"), body.get("allOrNone", False)
    if not isinstance(records, list) or not records or not all(isinstance(record, dict) for record in records):
        raise refuse("InvalidInput", message="records is a list of at least one record")
    if not isinstance(all_or_none, bool):
        raise refuse("InvalidInput", message="allOrNone is true or false")
    _check_amount(records, MOST_ROWS)
    types = [_type_name(record) for record in records]
    if len(list(groupby(types))) > MOST_CHUNKS:
        raise refuse("TooManyChunks")
    return all_or_none, records


def _type_name(record: dict[str, Any]) -> str:
    attributes = record.get("attributes")
    name = attributes.get("type") if isinstance(attributes, dict) else None
    if not isinstance(name, str):
        raise refuse("InvalidInput", message="Include an attributes.type in each record")
    return name


def _typed_object(call: Call, record: dict[str, Any]) -> SObject:
    name = _type_name(record)
    sobject = call.org.access.object_named(name, call.user)
    if sobject is None:
        raise refuse("QueryType", [], message=f"sObject type '{name}' is not supported.")
    return sobject


def _sobject(call: Call, name: str) -> SObject:
    sobject = call.org.access.object_named(name, call.user)
    if sobject is None:
        raise refuse("NotFound")
    return sobject


def _check_amount(given: list[Any], most: int) -> None:
    if len(given) > most:
        raise refuse("TooManyRecords", limit=most)

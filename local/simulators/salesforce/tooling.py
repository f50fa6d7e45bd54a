"""The part of the Tooling API an installer needs: custom fields, made, changed and found. Nobody sees a new one yet.

https://developer.salesforce.com/docs/atlas.en-us.202.0.api_tooling.meta/api_tooling/tooling_api_objects_customfield.htm
`warnings` and `infos` in the answer and DUPLICATE_DEVELOPER_NAME are known from public clients only.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from local.simulators.base import Response
from local.simulators.salesforce.errors import NOT_SUPPORTED, refuse
from local.simulators.salesforce.filters import Scope
from local.simulators.salesforce.ids import id18
from local.simulators.salesforce.organization import Organization, Row
from local.simulators.salesforce.protocol import Call, answer, wrong_method
from local.simulators.salesforce.query import Cursors
from local.simulators.salesforce.schema import Field, Kind, SObject
from local.simulators.salesforce.soql import Path, caret, parse

TYPES = {
    "Text": Kind.STRING, "TextArea": Kind.TEXTAREA, "LongTextArea": Kind.TEXTAREA, "Checkbox": Kind.BOOLEAN,
    "Picklist": Kind.PICKLIST, "MultiselectPicklist": Kind.MULTIPICKLIST, "Url": Kind.URL, "Email": Kind.EMAIL,
    "Phone": Kind.PHONE, "Number": Kind.DOUBLE, "Currency": Kind.CURRENCY, "Percent": Kind.PERCENT,
    "Date": Kind.DATE, "DateTime": Kind.DATETIME,
}  # fmt: skip
NEEDS = {
    "Text": ("length",), "LongTextArea": ("length", "visibleLines"), "Checkbox": ("defaultValue",),
    "Picklist": ("valueSet",), "MultiselectPicklist": ("valueSet", "visibleLines"),
    "Number": ("precision", "scale"), "Currency": ("precision", "scale"), "Percent": ("precision", "scale"),
}  # fmt: skip
KNOWN_METADATA = {
    "label", "type", "length", "externalId", "unique", "caseSensitive", "required", "trackTrending", "visibleLines",
    "defaultValue", "precision", "scale", "valueSet", "description", "inlineHelpText", "trackHistory",
    "trackFeedHistory",
}  # fmt: skip
LONGEST = {"Text": 255, "LongTextArea": 131_072}
EXTERNAL_ID_TYPES = ("Text", "Number", "Email")
LENGTHS = {"TextArea": 255, "Url": 255, "Email": 80, "Phone": 40, "Picklist": 255, "MultiselectPicklist": 4099}
CUSTOMIZABLE = ("Opportunity", "Lead", "Account", "Contact")


def tooling_call(call: Call, cursors: Cursors, rest: tuple[str, ...]) -> Response:
    if call.user not in call.org.access.may_customize:
        raise refuse("NoCustomizing")
    match call.method, rest:
        case "GET", ("query",):
            return _query(call, cursors)
        case "POST", ("sobjects", "CustomField"):
            return _create(call)
        case "GET" | "PATCH" | "DELETE", ("sobjects", "CustomField", id_text):
            return _one(call, id_text)
        case _, ("sobjects", "CustomField", *_) | ("query",):
            raise wrong_method(call, "GET", "POST", "PATCH", "DELETE")
    raise refuse("NotSimulated", what="/tooling/" + "/".join(rest))


def _query(call: Call, cursors: Cursors) -> Response:
    call.check_query("q")
    text = call.request.query.get("q", "")
    tree = parse(text)
    if tree.source.lower() != "customfield":
        if call.org.object_named(tree.source):
            raise refuse("NotSimulated", what=f"a tooling query on {tree.source}")
        raise caret("QueryType", text, tree.source_at, NOT_SUPPORTED.format(name=tree.source))
    _mirror(call.org)
    scope = Scope(call.org, call.user, text, call.org.objects["CustomField"])
    selected = {item.text.lower() for item in tree.items if isinstance(item, Path)}
    response = cursors.run(call, scope, tree)
    test = scope.test(tree.where)
    size = len([row for row in scope.rows() if test(row)])
    if selected & {"metadata", "fullname"} and size > 1 and tree.limit != 1:
        raise refuse("MetadataOfMany", size=size)
    return response


def _create(call: Call) -> Response:
    call.check_query()
    body = call.json_body()
    if unknown := body.keys() - {"FullName", "Metadata"}:
        raise refuse("NoSuchField", name=sorted(unknown)[0], object="CustomField")
    full_name, metadata = body.get("FullName"), body.get("Metadata")
    if not isinstance(full_name, str) or not isinstance(metadata, dict):
        raise refuse("Missing", ["FullName", "Metadata"], names="FullName, Metadata")
    object_name, _, name = full_name.partition(".")
    sobject = call.org.object_named(object_name)
    if sobject is None or sobject.name not in CUSTOMIZABLE:
        raise refuse(
            "FieldIntegrity",
            ["FullName"],
            message=f"Entity Enumeration Or ID: bad value for restricted picklist field: {object_name}",
        )
    if not re.fullmatch(r"[A-Za-z](?:_?[A-Za-z0-9])*__c", name) or len(name) > 43:
        raise refuse(
            "FieldIntegrity",
            ["FullName"],
            message=f"{name}: a letter first, then letters, digits and single underscores, at most 40, then __c",
        )
    if sobject.find(name):
        raise refuse("DuplicateFieldName", ["DeveloperName"], name=name.removesuffix("__c"), object=sobject.name)
    made = call.org.add_field(sobject, read_metadata(name, metadata))
    return answer(201, {"id": made.metadata_id, "success": True, "errors": [], "warnings": [], "infos": []})


def _one(call: Call, id_text: str) -> Response:
    call.check_query()
    full = id18(id_text)
    found = next(
        ((o, f) for o in call.org.objects.values() for f in o.fields.values() if full and f.metadata_id == full), None
    )
    if found is None:
        raise refuse("NotFound")
    sobject, known = found
    if call.method == "GET":
        _mirror(call.org)
        row = call.org.rows["CustomField"][known.metadata_id]
        body = call.row_json(row, call.org.objects["CustomField"].fields.values())
        url = f"{call.base}/tooling/sobjects/CustomField/{row.id}"
        return answer(200, {**body, "attributes": {"type": "CustomField", "url": url}})
    if call.method == "DELETE":
        raise refuse("NotSimulated", what="deleting a custom field")
    body = call.json_body()
    if body.get("FullName", f"{sobject.name}.{known.name}") != f"{sobject.name}.{known.name}":
        raise refuse("NotSimulated", what="renaming a custom field")
    metadata = body.get("Metadata")
    if not isinstance(metadata, dict):
        raise refuse("Missing", ["Metadata"], names="Metadata")
    changed = read_metadata(known.name, metadata)
    if changed.kind is not known.kind:
        raise refuse("NotSimulated", what=f"changing the type of {known.name}")
    call.org.add_field(sobject, replace(changed, metadata_id=known.metadata_id))
    return Response(204)


def read_metadata(name: str, metadata: dict[str, Any]) -> Field:
    """A field by its Metadata. Raises FieldIntegrity when something is missing or does not go together."""

    def wrong(message: str) -> Exception:
        return refuse("FieldIntegrity", [], message=message)

    kind = metadata.get("type")
    if kind not in TYPES:
        raise refuse("NotSimulated", what=f"a custom field of type {kind}")
    if unknown := metadata.keys() - KNOWN_METADATA:
        raise refuse("NotSimulated", what=f"{sorted(unknown)[0]} of a custom field")
    label = metadata.get("label")
    if not isinstance(label, str) or not 1 <= len(label) <= 40:
        raise wrong("label: between 1 and 40 characters are required")
    for needed in NEEDS.get(str(kind), ()):
        if metadata.get(needed) is None:
            raise wrong(f"Required field is missing: {needed}")
    if kind in LONGEST and not 1 <= metadata["length"] <= LONGEST[kind]:
        raise wrong(f"length: must be between 1 and {LONGEST[kind]}")
    external, unique = bool(metadata.get("externalId")), bool(metadata.get("unique"))
    if (external or unique) and kind not in EXTERNAL_ID_TYPES:
        raise wrong(f"a {kind} field cannot be an external ID or unique")
    values, restricted = _values(metadata["valueSet"], wrong) if "valueSet" in metadata else ((), False)
    default = metadata.get("defaultValue")
    if kind == "Checkbox":
        default = default in (True, "true")
    return Field(
        name, TYPES[kind], label, length=metadata.get("length", LENGTHS.get(kind, 0)),
        precision=metadata.get("precision", 0), scale=metadata.get("scale", 0),
        required=bool(metadata.get("required")), permissionable=not metadata.get("required"), custom=True,
        external_id=external, unique=unique, id_lookup=external, values=values, restricted=restricted, default=default,
        defaulted=kind == "Checkbox",
    )  # fmt: skip


def _values(value_set: Any, wrong: Any) -> tuple[tuple[str, ...], bool]:
    definition = value_set.get("valueSetDefinition") if isinstance(value_set, dict) else None
    if not isinstance(definition, dict) or not isinstance(definition.get("value"), list):
        raise wrong("valueSet needs a valueSetDefinition with its values")
    names = []
    for value in definition["value"]:
        if "valueName" not in value or "label" not in value:
            raise wrong("a value of a picklist needs valueName and label")
        names.append(value["valueName"])
    if len({name.lower() for name in names}) < len(names):
        raise wrong("Duplicate values in the picklist")
    return tuple(names), bool(value_set.get("restricted"))


def _mirror(org: Organization) -> None:
    """Rows of CustomField for the fields there are."""
    org.rows["CustomField"] = {
        known.metadata_id: _row(org, sobject, known)
        for sobject in org.objects.values()
        for known in sobject.fields.values()
        if known.custom
    }


def _row(org: Organization, sobject: SObject, known: Field) -> Row:
    changed = org.definitions_changed_at[sobject.name]
    values = {
        "Id": known.metadata_id,
        "DeveloperName": known.name.removesuffix("__c"),
        "TableEnumOrId": sobject.name,
        "NamespacePrefix": None,
        "ManageableState": "unmanaged",
        "FullName": f"{sobject.name}.{known.name}",
        "Metadata": metadata_of(known),
        "CreatedDate": changed,
        "LastModifiedDate": changed,
        "SystemModstamp": changed,
        "CreatedById": org.system_user,
        "LastModifiedById": org.system_user,
    }
    return Row("CustomField", known.metadata_id, values)


def metadata_of(known: Field) -> dict[str, Any]:
    kinds = {kind: name for name, kind in reversed(TYPES.items())}
    kind = kinds[known.kind]
    if known.kind is Kind.TEXTAREA and known.length > LENGTHS["TextArea"]:
        kind = "LongTextArea"
    value_set = None
    if known.values:
        values = [{"valueName": value, "label": value, "default": False} for value in known.values]
        value_set = {"restricted": known.restricted, "valueSetDefinition": {"sorted": False, "value": values}}
    return {
        "label": known.label,
        "type": kind,
        "length": known.length if kind in LONGEST else None,
        "precision": known.precision or None,
        "scale": known.scale if known.precision else None,
        "externalId": known.external_id,
        "unique": known.unique if kind in EXTERNAL_ID_TYPES else None,
        "caseSensitive": False if known.unique else None,
        "required": known.required,
        "visibleLines": 3 if kind in ("LongTextArea", "MultiselectPicklist") else None,
        "defaultValue": str(known.default).lower() if kind == "Checkbox" else None,
        "valueSet": value_set,
    }

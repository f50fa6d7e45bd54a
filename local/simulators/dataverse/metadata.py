"""Definitions of tables, columns and alternate keys: read them, add and change custom ones.

https://learn.microsoft.com/power-apps/developer/data-platform/webapi/create-update-column-definitions-using-web-api
https://learn.microsoft.com/power-apps/developer/data-platform/define-alternate-keys-entity
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from local.simulators.base import Response
from local.simulators.dataverse.addresses import Segment, split_pairs, unquote_literal
from local.simulators.dataverse.errors import refuse
from local.simulators.dataverse.payload import read_json
from local.simulators.dataverse.protocol import Call, answer
from local.simulators.dataverse.query import Operand, compile_filter
from local.simulators.dataverse.schema import (
    BASE_LANGUAGE,
    CHOICES,
    NUMBERS,
    REFERENCES,
    TEXTS,
    AlternateKey,
    Column,
    Kind,
    Table,
)

if TYPE_CHECKING:
    from local.simulators.dataverse.organization import Organization

PREFIX = "Microsoft.Dynamics.CRM."
MAX_LENGTHS = {Kind.STRING: 4000, Kind.MEMO: 1_048_576}
KEY_KINDS = {Kind.STRING, Kind.INTEGER, Kind.DECIMAL, Kind.DATETIME, Kind.DATE_ONLY, Kind.LOOKUP, Kind.PICKLIST}
CREATABLE = {
    f"{kind}AttributeMetadata": kind
    for kind in (
        Kind.STRING, Kind.MEMO, Kind.BOOLEAN, Kind.INTEGER, Kind.BIGINT, Kind.DECIMAL, Kind.DOUBLE, Kind.MONEY,
        Kind.PICKLIST, Kind.DATETIME,
    )
}  # fmt: skip
FULL_DEFINITION = {"LogicalName", "SchemaName", "EntitySetName", "ChangeTrackingEnabled"}

Json = dict[str, Any]
T = TypeVar("T")


def metadata_call(org: Organization, call: Call, segments: list[Segment]) -> Response:
    """Everything below `EntityDefinitions`."""
    if call.method != "GET" and not org.may_customize(call.principal.user_id):
        raise refuse("PrivilegeDenied", user=call.principal.user_id, action="Customize", table="Entity")
    head, *below = segments
    if head.key is None:
        if call.method != "GET" or below:
            raise refuse("NotSimulated", what=f"{call.method} of {'/'.join(s.name for s in segments)}")
        return _many(call, "EntityDefinitions", "EntityMetadata", [entity_json(org, t) for t in org.tables.values()])
    table = _named(head.key, list(org.tables.values()), lambda t: (t.name, t.metadata_id), "Entity")
    if not below:
        return _entity_call(org, call, table)
    parts: dict[str, Callable[[Organization, Call, Table, list[Segment]], Response]] = {
        "Attributes": _attributes_call,
        "Keys": _keys_call,
    }
    if below[0].name not in parts:
        raise refuse("NoSuchSegment", segment=below[0].name)
    return parts[below[0].name](org, call, table, below)


# Tables


def _entity_call(org: Organization, call: Call, table: Table) -> Response:
    if call.method == "GET":
        shown = entity_json(org, table)
        expand = call.options.get("$expand", "")
        if "Attributes" in expand:
            shown["Attributes"] = [attribute_json(table, column) for column in table.columns.values()]
        if "Keys" in expand:
            shown["Keys"] = [key_json(org, table, key) for key in table.keys.values()]
        keep = {"Attributes", "Keys"} & shown.keys()
        return _one(call, f"EntityDefinitions({table.metadata_id})", "EntityMetadata", shown, keep)
    if call.method == "PATCH":
        raise refuse("MetadataPatch", type="EntityMetadata")
    if call.method != "PUT":
        raise refuse("NotSimulated", what=f"{call.method} of a table definition")
    body = read_json(call.request.body, "EntityDefinitions")
    # PUT replaces the definition, so all of it has to be there.
    if missing := FULL_DEFINITION - body.keys():
        raise refuse("InvalidArgument", message=f"The full definition is required; missing: {sorted(missing)}")
    if (body["LogicalName"], body["EntitySetName"]) != (table.name, table.set_name):
        raise refuse("InvalidArgument", message="LogicalName and EntitySetName cannot be changed.")
    if table.change_tracking and not body["ChangeTrackingEnabled"]:
        raise refuse("InvalidArgument", message="Change tracking cannot be disabled once it is enabled.")
    table.change_tracking = bool(body["ChangeTrackingEnabled"])
    table.labels = _labels(call, body.get("DisplayName"), table.labels)
    org.metadata_changed(table)
    _record(org, call, table.name)
    return answer(call, 204, OData_EntityId=f"{call.api}/EntityDefinitions({table.metadata_id})")


def entity_json(org: Organization, table: Table) -> Json:
    tracking_possible = table.user_owned
    return {
        "@odata.type": f"#{PREFIX}EntityMetadata",
        "MetadataId": table.metadata_id,
        "LogicalName": table.name,
        "SchemaName": table.label.replace(" ", ""),
        "EntitySetName": table.set_name,
        "LogicalCollectionName": table.set_name,
        "PrimaryIdAttribute": table.primary_id,
        "PrimaryNameAttribute": table.primary_name,
        "ObjectTypeCode": 1 + list(org.tables).index(table.name),
        "OwnershipType": "UserOwned" if table.user_owned else "OrganizationOwned",
        "IsPrivate": False,
        "IsCustomEntity": False,
        "IsOptimisticConcurrencyEnabled": table.optimistic_concurrency,
        "ChangeTrackingEnabled": table.change_tracking,
        "CanChangeTrackingBeEnabled": _managed(tracking_possible, "canchangetrackingbeenabled"),
        "DisplayName": _label_json(table.labels),
        "DisplayCollectionName": _label_json({BASE_LANGUAGE: table.set_name.title()}),
        "Description": _label_json({}),
    }


# Columns


def _attributes_call(org: Organization, call: Call, table: Table, segments: list[Segment]) -> Response:
    head, *cast = segments
    address = f"EntityDefinitions({table.metadata_id})/Attributes"
    if head.key is None:
        if call.method == "POST":
            return _create_attribute(org, call, table)
        if call.method != "GET":
            raise refuse("WrongMethod", method=call.method)
        kind = cast[0].name if cast else None
        columns = [column for column in table.columns.values() if kind in (None, _type_name(column))]
        return _many(call, address, "AttributeMetadata", [_shown(call, table, c, bool(cast)) for c in columns], kind)
    column = _named(head.key, list(table.columns.values()), lambda c: (c.name, c.metadata_id), "Attribute")
    if cast and cast[0].name != _type_name(column):
        raise refuse("ObjectDoesNotExist", table="Attribute", id=head.key)
    match call.method:
        case "GET":
            type_name = cast[0].name if cast else "AttributeMetadata"
            return _one(call, f"{address}({column.metadata_id})", type_name, _shown(call, table, column, bool(cast)))
        case "PUT":
            return _change_attribute(org, call, table, column)
        case "DELETE":
            return _delete_attribute(org, call, table, column)
    raise refuse("MetadataPatch", type="AttributeMetadata")


def _shown(call: Call, table: Table, column: Column, cast: bool) -> Json:
    """A definition; options only where $expand asks for them, derived properties only selectable under a cast."""
    shown = attribute_json(table, column)
    if "OptionSet" not in call.options.get("$expand", ""):
        shown.pop("OptionSet", None)
    selected = call.options.get("$select", "")
    for name in [part.strip() for part in selected.split(",") if part]:
        if name in _derived_json(column) and not cast:
            raise refuse("NoSuchProperty", name=name, table="AttributeMetadata")
    return shown


def _create_attribute(org: Organization, call: Call, table: Table) -> Response:
    column = column_from(org, call, read_json(call.request.body, "Attributes"))
    if column.name in table.columns:
        raise refuse("DuplicateAttributeSchemaName", name=column.schema_name, table=table.name)
    table.adopt(column)
    if column.kind is Kind.MONEY:
        table.adopt(Column(f"{column.name}_base", Kind.MONEY, precision=4, create=False, update=False, custom=True))
    for row in list(org.rows[table.name].values()):
        org.rows[table.name][row.id] = type(row)(row.table, row.id, row.version, {**row.values, column.name: None})
    org.metadata_changed(table)
    _record(org, call, f"{table.name}.{column.name}")
    return answer(call, 204, OData_EntityId=f"{call.address}({column.metadata_id})")


def column_from(org: Organization, call: Call, body: Json) -> Column:
    """The column that a definition describes. Raises for what the service would not create."""
    type_name = str(body.get("@odata.type", "")).lstrip("#").removeprefix(PREFIX)
    kind = CREATABLE.get(type_name)
    if kind is None:
        raise refuse("NotSimulated", what=f"columns of type {type_name or '(no @odata.type)'}")
    schema_name = str(body.get("SchemaName", ""))
    prefixes = [row.values["customizationprefix"] for row in org.rows["publisher"].values()]
    if not re.fullmatch(r"[A-Za-z]\w*", schema_name) or schema_name.lower().partition("_")[0] not in prefixes:
        words = f"SchemaName '{schema_name}' must begin with the prefix of a publisher: {', '.join(sorted(prefixes))}."
        raise refuse("InvalidArgument", message=words)
    column = Column(schema_name.lower(), kind, schema_name=schema_name, custom=True)
    column.labels = _labels(call, body.get("DisplayName"), {}) or {BASE_LANGUAGE: schema_name}
    column.metadata_id = str(uuid.uuid4())
    _apply(call, column, body)
    _choose_options(column, body.get("OptionSet"))
    column.default = body.get("DefaultValue", False) if kind is Kind.BOOLEAN else None
    return column


def _apply(call: Call, column: Column, body: Json) -> None:
    """Take over the limits and texts of a definition. Options of an existing column have messages of their own."""
    column.label = column.labels.get(BASE_LANGUAGE, column.schema_name)
    column.descriptions = _labels(call, body.get("Description"), column.descriptions)
    column.required = (body.get("RequiredLevel") or {}).get("Value", column.required)
    if column.kind in TEXTS:
        length = body.get("MaxLength", column.max_length or 100)
        if not isinstance(length, int) or not 1 <= length <= MAX_LENGTHS[column.kind]:
            words = f"MaxLength of {column.schema_name} must be between 1 and {MAX_LENGTHS[column.kind]}."
            raise refuse("InvalidArgument", message=words)
        column.max_length = length
        column.format = (body.get("FormatName") or {}).get("Value") or body.get("Format") or column.format or "Text"
    if column.kind in (*NUMBERS, Kind.INTEGER):
        column.low, column.high = body.get("MinValue", column.low), body.get("MaxValue", column.high)
        column.precision = body.get("Precision", column.precision)
    if column.kind in (Kind.DATETIME, Kind.DATE_ONLY):
        column.format = body.get("Format", column.format or "DateAndTime")
        column.kind = Kind.DATE_ONLY if column.format == "DateOnly" else Kind.DATETIME


def _choose_options(column: Column, options: Json | None) -> None:
    if column.kind is Kind.PICKLIST:
        column.options = {option["Value"]: _text(option) for option in _required(column, options, "Options")}
    if column.kind is Kind.BOOLEAN:
        choices = [_required(column, options, name) for name in ("TrueOption", "FalseOption")]
        column.options = {option["Value"]: _text(option) for option in choices}


def insert_option(org: Organization, call: Call, body: Json) -> Response:
    """https://learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/insertoptionvalue"""
    table = org.tables.get(str(body.get("EntityLogicalName")))
    column = table.columns.get(str(body.get("AttributeLogicalName"))) if table else None
    value, taken = body.get("Value"), column.options if column else {}
    if table is None or column is None or column.kind is not Kind.PICKLIST or not isinstance(value, int):
        words = "EntityLogicalName, AttributeLogicalName (of a choice column) and Value (Int32) are required."
        raise refuse("InvalidArgument", message=words)
    if value in taken:
        raise refuse("InvalidArgument", message=f"{column.schema_name} already has an option with the value {value}.")
    column.options = {**taken, value: _text(body)}
    org.metadata_changed(table)
    _record(org, call, f"{table.name}.{column.name}")
    context = f"{call.api}/$metadata#Microsoft.Dynamics.CRM.InsertOptionValueResponse"
    return answer(call, 200, {"@odata.context": context, "NewOptionValue": value})


def _required(column: Column, options: Json | None, name: str) -> Any:
    if not options or not options.get(name):
        raise refuse("InvalidArgument", message=f"OptionSet.{name} is required for {column.schema_name}.")
    return options[name]


def _text(option: Json) -> str:
    labels = (option.get("Label") or {}).get("LocalizedLabels") or []
    return str(labels[0]["Label"]) if labels else str(option["Value"])


def _change_attribute(org: Organization, call: Call, table: Table, column: Column) -> Response:
    body = read_json(call.request.body, "Attributes")
    type_name = str(body.get("@odata.type", "")).lstrip("#")
    if type_name != _type_name(column) or str(body.get("SchemaName", column.schema_name)) != column.schema_name:
        words = f"The type and SchemaName of {column.schema_name} ({_type_name(column)}) cannot be changed."
        raise refuse("InvalidArgument", message=words)
    column.labels = _labels(call, body.get("DisplayName"), column.labels)
    _apply(call, column, body)
    org.metadata_changed(table)
    _record(org, call, f"{table.name}.{column.name}")
    return answer(call, 204, OData_EntityId=call.address)


def _delete_attribute(org: Organization, call: Call, table: Table, column: Column) -> Response:
    if not column.custom or any(column.name in key.columns for key in table.keys.values()):
        words = f"The column {column.name} of {table.name} cannot be deleted: it is standard or part of a key."
        raise refuse("InvalidArgument", message=words)
    del table.columns[column.name]
    org.metadata_changed(table)
    return answer(call, 204)


def attribute_json(table: Table, column: Column) -> Json:
    """A column's definition with everything its type has."""
    kind = Kind.DATETIME if column.kind is Kind.DATE_ONLY else column.kind
    return {
        "@odata.type": f"#{_type_name(column)}",
        "MetadataId": column.metadata_id,
        "LogicalName": column.name,
        "SchemaName": column.schema_name,
        "EntityLogicalName": table.name,
        "AttributeType": kind.value,
        "AttributeTypeName": {"Value": f"{kind.value}Type"},
        "DisplayName": _label_json(column.labels),
        "Description": _label_json(column.descriptions),
        "RequiredLevel": _managed(column.required, "canmodifyrequirementlevelsettings"),
        "IsCustomAttribute": column.custom,
        "IsPrimaryId": column.name == table.primary_id,
        "IsPrimaryName": column.name == table.primary_name,
        "IsValidForCreate": column.create,
        "IsValidForRead": True,
        "IsValidForUpdate": column.update,
        "AttributeOf": None,
        **_derived_json(column),
    }


def _derived_json(column: Column) -> Json:
    """What a definition has beyond the properties all columns share."""
    if column.kind in TEXTS:
        return {"MaxLength": column.max_length, "Format": column.format, "FormatName": {"Value": column.format}}
    if column.kind in NUMBERS or column.kind in (Kind.INTEGER, Kind.BIGINT):
        precision = {} if column.kind not in NUMBERS else {"Precision": column.precision}
        source = {"PrecisionSource": 2} if column.kind is Kind.MONEY else {}
        return {"MinValue": column.low, "MaxValue": column.high, **precision, **source}
    if column.kind in (Kind.DATETIME, Kind.DATE_ONLY):
        behavior = "DateOnly" if column.kind is Kind.DATE_ONLY else "UserLocal"
        return {"Format": column.format, "DateTimeBehavior": {"Value": behavior}}
    if column.kind in REFERENCES:
        return {"Targets": list(column.targets)}
    if column.kind is Kind.BOOLEAN:
        options = {f"{name}Option": _option_json(column, value) for name, value in (("True", 1), ("False", 0))}
        return {"DefaultValue": column.default, "OptionSet": {"OptionSetType": "Boolean", **options}}
    if column.kind in CHOICES:
        options_json = [_option_json(column, value) for value in column.options]
        return {
            "DefaultFormValue": -1 if column.default is None else column.default,
            "OptionSet": {"IsGlobal": False, "OptionSetType": column.kind.value, "Options": options_json},
        }
    return {}


def _option_json(column: Column, value: int) -> Json:
    state = {"State": column.states[value]} if column.states else {}
    return {"Value": value, "Label": _label_json({BASE_LANGUAGE: column.options[value]}), **state}


def _type_name(column: Column) -> str:
    special = {Kind.GUID: "AttributeMetadata", Kind.DATE_ONLY: "DateTimeAttributeMetadata"}
    special |= {Kind.CUSTOMER: "LookupAttributeMetadata", Kind.OWNER: "LookupAttributeMetadata"}
    return PREFIX + special.get(column.kind, f"{column.kind.value}AttributeMetadata")


# Alternate keys


def _keys_call(org: Organization, call: Call, table: Table, segments: list[Segment]) -> Response:
    head = segments[0]
    address = f"EntityDefinitions({table.metadata_id})/Keys"
    if head.key is None:
        if call.method == "POST":
            return _create_key(org, call, table)
        if call.method != "GET":
            raise refuse("WrongMethod", method=call.method)
        return _many(call, address, "EntityKeyMetadata", [key_json(org, table, key) for key in table.keys.values()])
    key = _named(head.key, list(table.keys.values()), lambda k: (k.name, k.metadata_id), "EntityKey")
    if call.method == "GET":
        return _one(call, f"{address}({key.metadata_id})", "EntityKeyMetadata", key_json(org, table, key))
    if call.method != "DELETE":
        raise refuse("MetadataPatch", type="EntityKeyMetadata")
    org.drop_key(table, key)
    return answer(call, 204)


def _create_key(org: Organization, call: Call, table: Table) -> Response:
    body = read_json(call.request.body, "Keys")
    schema_name, names = str(body.get("SchemaName", "")), tuple(body.get("KeyAttributes") or ())
    columns = [table.columns.get(str(name)) for name in names]
    if not schema_name or not columns or any(column is None for column in columns):
        words = f"SchemaName and KeyAttributes (existing columns of {table.name}) are required; got {list(names)}."
        raise refuse("InvalidArgument", message=words)
    for column in columns:
        if column and (column.kind not in KEY_KINDS or not (column.create and column.update)):
            raise refuse("InvalidArgument", message=f"The column {column.name} cannot be part of an entity key.")
    if schema_name.lower() in table.keys:
        raise refuse("DuplicateKeyName", name=schema_name, table=table.name)
    if any(set(key.columns) == set(names) for key in table.keys.values()):
        raise refuse("DuplicateKeyColumns", table=table.name)
    # 900 bytes of index at 2 bytes a character, and 10 keys a table.
    if sum(column.max_length or 0 for column in columns if column) > 450 or len(table.keys) >= 10:
        raise refuse("InvalidArgument", message="The key is longer than 900 bytes, or the table has 10 keys already.")
    active_at = org.clock.now() + timedelta(seconds=org.key_index_delay_s)
    key = AlternateKey(schema_name, names, active_at, labels=_labels(call, body.get("DisplayName"), {}))
    table.keys[key.name] = key
    _record(org, call, f"{table.name}.{key.name}")
    return answer(call, 204, OData_EntityId=f"{call.address}({key.metadata_id})")


def key_json(org: Organization, table: Table, key: AlternateKey) -> Json:
    return {
        "MetadataId": key.metadata_id,
        "SchemaName": key.schema_name,
        "LogicalName": key.name,
        "EntityLogicalName": table.name,
        "KeyAttributes": list(key.columns),
        "EntityKeyIndexStatus": org.key_status(table, key),
        "DisplayName": _label_json(key.labels),
        "IsManaged": False,
    }


# What all definitions share


def _named(key: str, items: list[T], names: Callable[[T], tuple[str, str]], what: str) -> T:
    """The item whose logical name or metadata id the key gives."""
    pairs = split_pairs(key) if "=" in key else {"MetadataId": key}
    raw = pairs.get("LogicalName") or pairs.get("MetadataId") or ""
    wanted = unquote_literal(raw) if "LogicalName" in pairs else raw.lower()
    for item in items:
        if wanted in names(item):
            return item
    raise refuse("ObjectDoesNotExist", table=what, id=key)


def _one(call: Call, address: str, type_name: str, shown: Json, keep: set[str] | None = None) -> Response:
    context = {"@odata.context": f"{call.api}/$metadata#{address}/{type_name}/$entity"}
    return answer(call, 200, context | _selected(call, shown, type_name, keep or set()))


def _many(call: Call, address: str, type_name: str, shown: list[Json], cast: str | None = None) -> Response:
    if "$filter" in call.options:
        matches = compile_filter(call.options["$filter"], lambda path: _definition_operand(shown, path, type_name))
        shown = [item for item in shown if matches(item)]
    value = [_selected(call, item, type_name, set()) for item in shown]
    if cast:
        value = [{name: held for name, held in item.items() if name != "@odata.type"} for item in value]
    return answer(call, 200, {"@odata.context": f"{call.api}/$metadata#{address}", "value": value})


def _selected(call: Call, shown: Json, type_name: str, keep: set[str]) -> Json:
    if "$select" not in call.options:
        return shown
    names = [name.strip() for name in call.options["$select"].split(",")]
    if unknown := [name for name in names if name not in shown]:
        raise refuse("NoSuchProperty", name=unknown[0], table=type_name)
    always = {"@odata.type", "MetadataId", "OptionSet"} | keep
    return {name: held for name, held in shown.items() if name in names or name in always}


def _definition_operand(shown: list[Json], path: Sequence[str], type_name: str) -> Operand:
    name = path[0]
    sample = next((item[name] for item in shown if item.get(name) is not None), None)
    if len(path) != 1 or not shown or name not in shown[0] or isinstance(sample, dict | list):
        raise refuse("NoSuchProperty", name="/".join(path), table=type_name)
    edm = {bool: "Edm.Boolean", int: "Edm.Int32"}.get(type(sample), "Edm.String")
    return Operand("Edm.Guid" if name == "MetadataId" else edm, lambda item: item.get(name))


def _labels(call: Call, label: Json | None, before: dict[int, str]) -> dict[int, str]:
    """The texts by language. Languages left out are dropped unless MSCRM.MergeLabels is true."""
    if not label:
        return before
    sent = {text["LanguageCode"]: text["Label"] for text in label.get("LocalizedLabels") or []}
    merge = (call.header("MSCRM.MergeLabels") or "").lower() == "true"
    return {**before, **sent} if merge else sent


def _label_json(labels: dict[int, str]) -> Json:
    texts = [{"Label": text, "LanguageCode": code, "IsManaged": False} for code, text in labels.items()]
    return {"LocalizedLabels": texts, "UserLocalizedLabel": texts[0] if texts else None}


def _managed(value: Any, name: str) -> Json:
    return {"Value": value, "CanBeChanged": True, "ManagedPropertyLogicalName": name}


def _record(org: Organization, call: Call, component: str) -> None:
    """Keep which solution the change went into (MSCRM.SolutionUniqueName)."""
    name = call.header("MSCRM.SolutionUniqueName") or call.options.get("SolutionUniqueName") or "Default"
    if not org.where("solution", uniquename=name):
        raise refuse("InvalidArgument", message=f"There is no solution with the unique name '{name}'.")
    org.components.setdefault(name, []).append(component)

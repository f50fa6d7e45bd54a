"""What the org says about its objects: describe, object info, the list of objects. Honours field permissions.

https://developer.salesforce.com/docs/atlas.en-us.api.meta/api/sforce_api_calls_describesobjects_describesobjectresult.htm
"""

from __future__ import annotations

from typing import Any

from local.simulators.base import Response
from local.simulators.salesforce.conditions import date_of_condition, http_date
from local.simulators.salesforce.geography import COUNTRIES
from local.simulators.salesforce.payload import render
from local.simulators.salesforce.protocol import Call, answer
from local.simulators.salesforce.schema import IDS, PICKLISTS, Field, Kind, SObject

SOAP_TYPES = {
    Kind.BOOLEAN: "xsd:boolean", Kind.INT: "xsd:int", Kind.CURRENCY: "xsd:double", Kind.PERCENT: "xsd:double",
    Kind.DOUBLE: "xsd:double", Kind.DATE: "xsd:date", Kind.DATETIME: "xsd:dateTime", Kind.ID: "tns:ID",
    Kind.REFERENCE: "tns:ID", Kind.ADDRESS: "urn:address",
}  # fmt: skip
MASTER_RECORD_TYPE = "012000000000000AAA"


def describe(call: Call, sobject: SObject) -> Response:
    """GET /sobjects/{object}/describe, 304 when nothing changed since If-Modified-Since."""
    call.check_query()
    changed = call.org.definitions_changed_at[sobject.name]
    since = date_of_condition(call, "If-Modified-Since")
    if since and changed <= since:
        return Response(304)
    body = {
        **_summary(call, sobject),
        "fields": [field_json(call, sobject, known) for known in call.org.access.fields(sobject, call.user)],
        "childRelationships": [
            {"childSObject": child, "field": foreign_key, "relationshipName": name}
            for name, (child, foreign_key) in sobject.children.items()
            if call.org.access.object_named(child, call.user)
        ],
        "recordTypeInfos": [
            {"active": True, "available": True, "defaultRecordTypeMapping": True, "developerName": "Master",
             "master": True, "name": "Master", "recordTypeId": MASTER_RECORD_TYPE}
        ],
    }  # fmt: skip
    return answer(200, body, {"Last-Modified": http_date(changed)})


def object_info(call: Call, sobject: SObject) -> Response:
    """GET /sobjects/{object}"""
    call.check_query()
    return answer(200, {"objectDescribe": _summary(call, sobject), "recentItems": []})


def list_objects(call: Call) -> Response:
    """GET /sobjects"""
    call.check_query()
    objects = [
        _summary(call, sobject)
        for sobject in call.org.objects.values()
        if call.org.access.object_named(sobject.name, call.user)
    ]
    return answer(200, {"encoding": "UTF-8", "maxBatchSize": 200, "sobjects": objects})


def _summary(call: Call, sobject: SObject) -> dict[str, Any]:
    base = f"{call.base}/sobjects/{sobject.name}"
    return {
        "name": sobject.name,
        "label": sobject.label,
        "labelPlural": sobject.plural,
        "keyPrefix": sobject.prefix,
        "createable": sobject.create,
        "updateable": sobject.update,
        "deletable": sobject.delete,
        "queryable": True,
        "retrieveable": True,
        "replicateable": sobject.replicates,
        "undeletable": sobject.recycled and sobject.delete,
        "custom": False,
        "urls": {"sobject": base, "describe": f"{base}/describe", "rowTemplate": f"{base}/{{ID}}"},
    }


def field_json(call: Call, sobject: SObject, known: Field) -> dict[str, Any]:
    may_write = call.org.access.may_write(sobject, known, call.user)
    text = known.kind not in (
        Kind.BOOLEAN,
        Kind.INT,
        Kind.CURRENCY,
        Kind.PERCENT,
        Kind.DOUBLE,
        Kind.DATE,
        Kind.DATETIME,
    )
    return {
        "name": known.name,
        "label": known.label,
        "type": known.kind,
        "length": known.length,
        "byteLength": known.length * 3 if known.kind not in IDS else 18,
        "precision": 0 if known.kind is Kind.INT else known.precision,
        "scale": known.scale,
        "digits": known.precision if known.kind is Kind.INT else 0,
        "nillable": known.nillable,
        "createable": sobject.create and known.create and may_write,
        "updateable": sobject.update and known.update and may_write,
        "defaultedOnCreate": known.defaulted,
        "defaultValue": render(known.default),
        "calculated": False,
        "calculatedFormula": None,
        "externalId": known.external_id,
        "unique": known.unique,
        "caseSensitive": False,
        "idLookup": known.id_lookup or known.kind is Kind.ID,
        "permissionable": known.permissionable,
        "custom": known.custom,
        "filterable": known.filterable,
        "sortable": known.sortable,
        "groupable": known.filterable and text,
        "restrictedPicklist": known.restricted,
        "picklistValues": _picklist(call, known),
        "referenceTo": list(known.targets),
        "relationshipName": known.relation,
        "soapType": SOAP_TYPES.get(known.kind, "xsd:string"),
        "htmlFormatted": False,
        "nameField": known.name == "Name",
        "deprecatedAndHidden": False,
    }


def _picklist(call: Call, known: Field) -> list[dict[str, Any]]:
    if known.kind not in PICKLISTS:
        return []
    values = dict.fromkeys(known.values)
    labels = {value: value for value in values}
    if known.name.endswith("CountryCode"):
        labels = COUNTRIES
    if known.name == "CurrencyIsoCode":
        labels = {row.values["IsoCode"]: row.values["IsoCode"] for row in call.org.where("CurrencyType", IsActive=True)}
    return [
        {"active": True, "defaultValue": value == known.default, "label": label, "validFor": None, "value": value}
        for value, label in labels.items()
    ]

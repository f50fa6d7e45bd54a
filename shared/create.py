"""Decides what a new record and a new referral contain. Performs no I/O.

The deal type follows from two fields of the seller: no help and not visible: private; visible: partner-led; help:
co-sell, with an invitation to Microsoft as a second referral in the same engagement.
https://learn.microsoft.com/partner-center/developer/create-a-referral
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from dataclasses import field as member
from typing import Any

from shared.decide import EMPTY, incomplete, without_counterpart
from shared.lenses import Unmapped, Value, at, put
from shared.lifecycle import Lifecycle, is_closed, is_writable
from shared.mapping import ASSISTANCE, CONSENT, Field, FieldMap, TableMap
from shared.model import MICROSOFT, Referral
from shared.problems import Problem


@dataclass
class NewReferral:
    """The document to post, `help` (an assistance code, "" for none), and what keeps it from being posted."""

    document: dict[str, Any] = member(default_factory=dict)
    help: str = ""
    problems: list[Problem] = member(default_factory=list)

    def lacking(self, unreadable: Iterable[Problem]) -> list[Problem]:
        """Everything that is wrong. Of a field that cannot be read it is no news that it is empty."""
        closed = {problem.label: problem for problem in unreadable}
        return [*closed.values(), *(each for each in self.problems if each.label not in closed)]


@dataclass
class NewRecord:
    """The mapped columns of a record to create, the canonical `fields` in them, and what could not be carried over."""

    values: dict[str, Any] = member(default_factory=dict)
    fields: dict[str, Value] = member(default_factory=dict)
    problems: list[Problem] = member(default_factory=list)


def table_of_record(field_map: FieldMap, own: Referral, state: Value) -> TableMap | str:
    """Return the table that the record of a referral in this state belongs into, or in words why it gets none."""
    if is_closed(state):
        return f"the referral was closed as {state['state']} before it reached the CRM; nothing is created"
    table = field_map.table_for(is_lead=own.is_lead and not is_writable(state))
    return table or "leads are out of scope (scope.leads in the field map); nothing is created"


def why_unsent(table: TableMap, crm: Mapping[str, Value], *, shared: bool) -> str:
    """Return in words why a record gets no referral, "" if it gets one. `shared`: the seller's switch."""
    if not shared:
        return "Sync with Partner Center is No"
    if table.converts_to:
        return f"a {table.table} that was born in the CRM is not sent to Partner Center"
    if crm[table.lifecycle.name]["state"] not in ("on_hold", "open"):
        return "the record is closed; no referral is created"
    return ""


def new_record(table: TableMap, partner_center: Mapping[str, Value]) -> NewRecord:
    """Return the columns of a record for a referral, given the referral's canonical values by field name."""
    new = NewRecord(dict(table.new))
    for field in table.fields:
        if "create" in field.to_crm:
            empty = field.lens.read_crm({})
            try:
                value = field.lens.to_crm(partner_center[field.name], None if _is_lifecycle(field) else empty)
                if value is not None and value not in EMPTY:
                    new.values |= field.lens.write_crm(value)
                    new.fields[field.name] = value
            except Unmapped as unmapped:
                new.problems.append(without_counterpart(field, "Partner Center", unmapped))
    return new


def new_referral(field_map: FieldMap, table: TableMap, crm: Mapping[str, Value]) -> NewReferral:
    """Return the referral for a record, given the record's canonical values by field name."""
    new = NewReferral()
    for field in table.fields:
        if "create" in field.to_partner_center and not _is_lifecycle(field):
            try:
                value = field.lens.to_partner_center(crm[field.name], field.lens.read_partner_center({}))
            except Unmapped as unmapped:
                new.problems.append(without_counterpart(field, "the CRM", unmapped))
                continue
            if value not in EMPTY:
                for pointer, raw in field.lens.write_partner_center(value).items():
                    put(new.document, pointer, raw)
    new.help = new.document.pop("inviteContext", {}).get("assistanceRequestCode") or ""
    new.problems += incomplete(table, crm, {"always", "co-sell"} if new.help else {"always"})
    _complete(field_map, new)
    return new


def content(table: TableMap, document: Mapping[str, Any]) -> dict[str, Value]:
    """Return the canonical values, by field name, in a referral to create."""
    sent = (each for each in table.fields if "create" in each.to_partner_center and not _is_lifecycle(each))
    read = {field.name: field.lens.read_partner_center(document) for field in sent}
    return {name: value for name, value in read.items() if value not in EMPTY}


def invitation(own: Mapping[str, Any], assistance_code: str) -> dict[str, Any]:
    """Return the second referral of a co-sell deal, which asks Microsoft for help: our own content and engagement."""
    shared_content = (
        "name",
        "externalReferenceId",
        "qualification",
        "campaignId",
        "customerProfile",
        "details",
        "team",
    )
    document = {key: copy.deepcopy(own[key]) for key in shared_content if own.get(key) is not None}
    consent = {**(own.get("consent") or {}), CONSENT.rsplit("/", 1)[1]: True}
    return document | {
        "engagementId": own["engagementId"],
        "type": "Shared",
        "status": "New",
        "substatus": "Pending",
        "consent": consent,
        "target": [{"type": "BusinessProfileLocation", "id": MICROSOFT}],
        ASSISTANCE.split("/")[1]: {"assistanceRequestCode": assistance_code},
    }


def _complete(field_map: FieldMap, new: NewReferral) -> None:
    document, co_sell = new.document, bool(new.help)
    visible = co_sell or bool(at(document, CONSENT))
    solutions = at(document, "/details/requirements/solutions") or []
    document |= {
        "type": "Shared" if co_sell else "Independent",
        "qualification": field_map.new_referral.qualification,
        "status": "New",
        "substatus": "Pending",
        # Without the first two Partner Center creates no deal. The doubled "To" is its own spelling.
        "consent": {
            "consentToToShareInfoWithOthers": True,
            "consentToContact": True,
            CONSENT.rsplit("/", 1)[1]: visible,
        },
        "target": [{"type": "SolutionProfile", "id": tag["id"]} for tag in solutions] if co_sell else [],
    }
    put(
        document,
        "/details/requirements/additionalRequirements",
        {"attributes": [dict(attribute) for attribute in field_map.new_referral.attributes]},
    )


def _is_lifecycle(field: Field) -> bool:
    return isinstance(field.lens, Lifecycle)

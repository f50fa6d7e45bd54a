"""The messages beyond plain rows: win, lose, qualify, the bulk actions, publish. Each is all or nothing.

https://learn.microsoft.com/power-apps/developer/data-platform/webapi/use-web-api-actions
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from local.simulators.base import Response
from local.simulators.dataverse.addresses import find_row, parse_key, split_path
from local.simulators.dataverse.errors import refuse
from local.simulators.dataverse.metadata import insert_option
from local.simulators.dataverse.organization import LOST, OPEN, WON, Organization, Principal, Row, Values
from local.simulators.dataverse.payload import API_ROOT, read_json, read_values
from local.simulators.dataverse.protocol import Call, answer
from local.simulators.dataverse.records import insert, upsert
from local.simulators.dataverse.schema import Reference, Table

UNBOUND: dict[str, Callable[[Organization, Call, dict[str, Any]], Response]] = {}  # filled below
BOUND_TO_SET: dict[str, Callable[[Organization, Call, Table, dict[str, Any]], Response]] = {}


def unbound(org: Organization, call: Call, name: str) -> Response:
    if call.method != "POST":
        raise refuse("NoSuchResource", uri=f"{call.api}/{name}")
    with org.transaction():
        return UNBOUND[name](org, call, read_json(call.request.body or b"{}", name))


def bound_to_set(org: Organization, call: Call, table: Table, name: str) -> Response:
    if call.method != "POST":
        raise refuse("NoSuchResource", uri=f"{call.api}/{table.set_name}/{name}")
    with org.transaction():
        return BOUND_TO_SET[name](org, call, table, read_json(call.request.body, table.set_name))


def who_am_i(org: Organization, call: Call) -> Response:
    if call.method != "GET":
        raise refuse("NoSuchResource", uri=f"{call.api}/WhoAmI")
    user = org.rows["systemuser"][call.principal.user_id]
    body = {
        "@odata.context": f"{call.api}/$metadata#Microsoft.Dynamics.CRM.WhoAmIResponse",
        "BusinessUnitId": user.values["businessunitid"].id,
        "UserId": user.id,
        "OrganizationId": org.id,
    }
    return answer(call, 200, body, x_ms_dop_hint="4")


# Closing an opportunity


def close_opportunity(
    org: Organization, principal: Principal, state: int, status: int, close: Values, opportunity: Row
) -> Row:
    """Move an open opportunity to Won or Lost and keep the opportunityclose activity that says so."""
    table = org.tables["opportunity"]
    if opportunity.values["statecode"] != OPEN:
        raise refuse("OpportunityAlreadyClosed")
    if status == -1:
        status = next(option for option, of in table.columns["statuscode"].states.items() if of == state)
    org.require_status_of(table, status, state)
    revenue, end = close.get("actualrevenue"), close.get("actualend")
    if revenue is None and state == WON:
        revenue = opportunity.values["estimatedvalue"]
    facts = {"opportunitystatecode": state, "opportunitystatuscode": status, "actualrevenue": revenue}
    activity = org.create(org.tables["opportunityclose"], {**close, **facts}, principal)
    org.touch(activity, statecode=1, statuscode=2)
    changes = {
        "statecode": state,
        "statuscode": status,
        "actualvalue": revenue,
        "actualclosedate": (end or activity.values["createdon"])[:10],
    }
    return org.update(opportunity, changes, principal, closing=True)


def _closing(state: int) -> Callable[[Organization, Call, dict[str, Any]], Response]:
    def act(org: Organization, call: Call, body: dict[str, Any]) -> Response:
        close, status = body.get("OpportunityClose"), body.get("Status")
        if not isinstance(close, dict) or not isinstance(status, int):
            raise refuse("InvalidArgument", message="The parameters OpportunityClose and Status (Int32) are required.")
        org.require_write(call.principal, org.tables["opportunity"], "Write")
        values = read_values(org, org.tables["opportunityclose"], close, creating=True)
        reference = values.get("opportunityid")
        if reference is None:
            raise refuse("InvalidArgument", message="opportunityid is missing on OpportunityClose.")
        close_opportunity(org, call.principal, state, status, values, org.get(reference))
        return answer(call, 204)

    return act


# Qualifying a lead


def qualify_lead(org: Organization, call: Call, lead: Row) -> Response:
    """https://learn.microsoft.com/dynamics365/customer-engagement/web-api/qualifylead"""
    if call.method != "POST":
        raise refuse("NoSuchResource", uri=f"{call.api}/leads/Microsoft.Dynamics.CRM.QualifyLead")
    body = read_json(call.request.body, "leads")
    wanted = {name: body.get(f"Create{name}") for name in ("Account", "Contact", "Opportunity")}
    status = body.get("Status")
    if not all(isinstance(flag, bool) for flag in wanted.values()) or not isinstance(status, int):
        words = "CreateAccount, CreateContact, CreateOpportunity (Boolean) and Status (Int32) are required."
        raise refuse("InvalidArgument", message=words)
    org.require_write(call.principal, org.tables["lead"], "Write")
    currency = _given(org, body, "OpportunityCurrencyId", "transactioncurrency")
    customer = _given(org, body, "OpportunityCustomerId", "account")
    with org.transaction():
        created = qualify(org, call.principal, lead, wanted, status, currency, customer)
    value = [
        {"@odata.type": f"#Microsoft.Dynamics.CRM.{row.table}", org.tables[row.table].primary_id: row.id}
        for row in created
    ]
    return answer(
        call, 200, {"@odata.context": f"{call.api}/$metadata#Collection(mscrm.crmbaseentity)", "value": value}
    )


def _given(org: Organization, body: dict[str, Any], name: str, table: str) -> Reference | None:
    given = body.get(name)
    if given is None:
        return None
    kind = str(given.get("@odata.type", f"Microsoft.Dynamics.CRM.{table}")).rpartition(".")[2]
    if kind not in org.tables:
        raise refuse("InvalidArgument", message=f"{name} is of the unknown type {kind}.")
    return org.get(Reference(kind, str(given.get(org.tables[kind].primary_id)))).reference


def qualify(
    org: Organization,
    principal: Principal,
    lead: Row,
    wanted: dict[str, Any],
    status: int,
    currency: Reference | None = None,
    customer: Reference | None = None,
) -> list[Row]:
    """Make what is wanted of a lead and close it as qualified."""
    table, held = org.tables["lead"], lead.values
    if held["statecode"] != OPEN:
        raise refuse("LeadAlreadyClosed")
    org.require_status_of(table, status, 1)
    created: list[Row] = []
    account, contact = held["parentaccountid"], held["parentcontactid"]
    shared = {name: held[name] for name in table.columns if name.startswith("address1_")}
    if wanted["Account"]:
        values = {"name": held["companyname"], "telephone1": held["telephone1"], **shared}
        created.append(org.create(org.tables["account"], values, principal))
        account = created[-1].reference
    if wanted["Contact"]:
        person = {name: held[name] for name in ("firstname", "lastname", "jobtitle", "emailaddress1", "telephone1")}
        created.append(org.create(org.tables["contact"], {**person, "parentcustomerid": account, **shared}, principal))
        contact = created[-1].reference
    changes: Values = {"statecode": 1, "statuscode": status}
    if wanted["Opportunity"]:
        values = {
            "name": held["subject"],
            "description": held["description"],
            "estimatedvalue": held["estimatedamount"],
            "estimatedclosedate": held["estimatedclosedate"],
            "customerid": customer or account or contact,
            "parentaccountid": account,
            "parentcontactid": contact,
            "originatingleadid": lead.reference,
            "transactioncurrencyid": currency or held["transactioncurrencyid"],
        }
        created.append(org.create(org.tables["opportunity"], values, principal))
        changes["qualifyingopportunityid"] = created[-1].reference
    changes |= {"parentaccountid": account, "parentcontactid": contact}
    org.update(lead, changes, principal)
    return created


# Bulk, https://learn.microsoft.com/power-apps/developer/data-platform/bulk-operations


def _targets(table: Table, body: dict[str, Any]) -> list[dict[str, Any]]:
    targets = body.get("Targets")
    if not isinstance(targets, list) or not targets:
        raise refuse("InvalidArgument", message="The parameter Targets is required and must not be empty.")
    for target in targets:
        if str(target.get("@odata.type", "")).lstrip("#") != f"Microsoft.Dynamics.CRM.{table.name}":
            words = f"Each target needs '@odata.type': 'Microsoft.Dynamics.CRM.{table.name}'."
            raise refuse("BadPayload", set=table.set_name, message=words)
    return targets


def _create_multiple(org: Organization, call: Call, table: Table, body: dict[str, Any]) -> Response:
    ids = [insert(org, call, table, target).id for target in _targets(table, body)]
    context = f"{call.api}/$metadata#Microsoft.Dynamics.CRM.CreateMultipleResponse"
    return answer(call, 200, {"@odata.context": context, "Ids": ids})


def _update_multiple(org: Organization, call: Call, table: Table, body: dict[str, Any]) -> Response:
    org.require_write(call.principal, table, "Write")
    for target in _targets(table, body):
        row = org.get(Reference(table.name, str(target.get(table.primary_id))))
        org.update(row, read_values(org, table, target, creating=False), call.principal)
    return answer(call, 204)


def _upsert_multiple(org: Organization, call: Call, table: Table, body: dict[str, Any]) -> Response:
    for target in _targets(table, body):
        address = target.pop("@odata.id", None)
        segment = split_path(API_ROOT.sub("", str(address)))[0] if address else None
        text = segment.key if segment else target.get(table.primary_id)
        if text is None:
            raise refuse("InvalidArgument", message=f"A target needs {table.primary_id} or '@odata.id'.")
        key = parse_key(table, text)
        if not isinstance(key, str) and (repeated := key.keys() & target.keys()):
            words = f"The key column {min(repeated)} must not be repeated in the target."
            raise refuse("InvalidArgument", message=words)
        upsert(org, call, table, key, find_row(org, table, key), target)
    return answer(call, 204)


# Customizing


def _publish(org: Organization, call: Call, body: dict[str, Any]) -> Response:
    _require_customizer(org, call)
    if not isinstance(body.get("ParameterXml"), str):
        raise refuse("InvalidArgument", message="The parameter ParameterXml is required.")
    org.published.append(body["ParameterXml"])
    return answer(call, 204)


def _publish_all(org: Organization, call: Call, _: dict[str, Any]) -> Response:
    _require_customizer(org, call)
    org.published.append("*")
    return answer(call, 204)


def _reactivate(org: Organization, call: Call, body: dict[str, Any]) -> Response:
    _require_customizer(org, call)
    table = org.tables.get(str(body.get("EntityLogicalName")))
    key = table.keys.get(str(body.get("EntityKeyLogicalName"))) if table else None
    if table is None or key is None:
        raise refuse("InvalidArgument", message="EntityLogicalName and EntityKeyLogicalName must name a key.")
    org.reactivate(table, key)
    return answer(call, 204)


def _insert_option(org: Organization, call: Call, body: dict[str, Any]) -> Response:
    _require_customizer(org, call)
    return insert_option(org, call, body)


def _require_customizer(org: Organization, call: Call) -> None:
    if not org.may_customize(call.principal.user_id):
        raise refuse("PrivilegeDenied", user=call.principal.user_id, action="PublishCustomization", table="")


UNBOUND |= {
    "WinOpportunity": _closing(WON),
    "LoseOpportunity": _closing(LOST),
    "PublishXml": _publish,
    "PublishAllXml": _publish_all,
    "ReactivateEntityKey": _reactivate,
    "InsertOptionValue": _insert_option,
}
BOUND_TO_SET |= {
    "Microsoft.Dynamics.CRM.CreateMultiple": _create_multiple,
    "Microsoft.Dynamics.CRM.UpdateMultiple": _update_multiple,
    "Microsoft.Dynamics.CRM.UpsertMultiple": _upsert_multiple,
}

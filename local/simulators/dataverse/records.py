"""The addresses of rows: sets, rows, single columns, links. Reads the call, asks the organization, writes the answer.

https://learn.microsoft.com/power-apps/developer/data-platform/webapi/perform-operations-web-api
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from local.simulators.base import Response
from local.simulators.dataverse.addresses import Segment, find_row, parse_key, row_at, split_path
from local.simulators.dataverse.errors import refuse
from local.simulators.dataverse.organization import ROLES, Organization, Row, Tombstone, Values
from local.simulators.dataverse.payload import API_ROOT, read_json, read_values, typed
from local.simulators.dataverse.protocol import Call, answer
from local.simulators.dataverse.query import as_json, compile_filter, read_query, read_select, row_operand
from local.simulators.dataverse.schema import REFERENCES, Table
from local.simulators.dataverse.tracking import (
    Cookie,
    Page,
    baseline_page,
    begin_delta,
    delta_page,
    query_page,
    require_tracking,
)

if TYPE_CHECKING:
    from local.simulators.dataverse.protocol import Call

Handler = Callable[[Organization, Call, Table], Response]


def set_call(org: Organization, call: Call, table: Table) -> Response:
    """GET or POST of an entity set."""
    handlers: dict[str, Handler] = {"GET": read_set, "POST": create}
    if call.method not in handlers:
        raise refuse("WrongMethod", method=call.method)
    return handlers[call.method](org, call, table)


def row_call(org: Organization, call: Call, table: Table, key: str | Values, address: str) -> Response:
    """GET, PATCH or DELETE of a row."""
    if call.method == "GET":
        return read_row(org, call, table, key)
    if call.method == "PATCH":
        return patch(org, call, table, key, address)
    if call.method == "DELETE":
        return delete(org, call, table, key)
    raise refuse("WrongMethod", method=call.method)


# Reading


def read_set(org: Organization, call: Call, table: Table) -> Response:
    rows = org.visible(call.principal.user_id, table)
    options = call.options
    cookie = Cookie.decode(options["$skiptoken"]) if "$skiptoken" in options else None
    tracking = cookie.tracking if cookie else "odata.track-changes" in call.prefer or "$deltatoken" in options
    if tracking:
        require_tracking(table, options)
        if not org.may(call.principal.user_id, "read", table.name):
            raise refuse("PrivilegeDenied", user=call.principal.user_id, action="Read", table=table.name)
    query = read_query(org, table, options)
    if "$deltatoken" in options:
        cookie = begin_delta(org, table, options["$deltatoken"])
    delta = cookie is not None and cookie.since is not None
    if cookie and delta:
        page = delta_page(org, table, rows, call.page_size, cookie)
    elif tracking:
        page = baseline_page(org, rows, call.page_size, cookie)
    else:
        page = query_page(rows, query, call.page_size, cookie)
    context = f"{call.api}/$metadata#{table.set_name}"
    columns = f"({','.join(query.select)})" if query.select else ""
    body: dict[str, Any] = {"@odata.context": f"{context}{columns}{'/$delta' if delta else ''}"}
    if query.count:
        body["@odata.count"] = min(page.total, 5000)
        if "*" in call.annotations:
            body["@Microsoft.Dynamics.CRM.totalrecordcount"] = min(page.total, 5000)
            body["@Microsoft.Dynamics.CRM.totalrecordcountlimitexceeded"] = page.total > 5000
    body["value"] = [
        {"@odata.context": f"{context}/$deletedEntity", "id": item.id, "reason": "deleted"}
        if isinstance(item, Tombstone)
        else as_json(org, item, query.select, query.expand, call.annotations)
        for item in page.items
    ]
    return answer(call, 200, body | _links(call, table, query.link_options, page))


def _links(call: Call, table: Table, repeated: list[tuple[str, str]], page: Page) -> dict[str, str]:
    def link(option: str, value: str) -> str:
        options = urlencode([*repeated, (option, value)], safe="$,", quote_via=quote)
        return f"{call.api}/{table.set_name}?{options}"

    if page.cookie:
        return {"@odata.nextLink": link("$skiptoken", page.cookie)}
    return {"@odata.deltaLink": link("$deltatoken", page.token)} if page.token else {}


def count(org: Organization, call: Call, table: Table) -> Response:
    """`/$count`: how many rows, or with a delta token how many changes."""
    rows = org.visible(call.principal.user_id, table)
    if "$deltatoken" in call.options:
        require_tracking(table, call.options)
        number = delta_page(org, table, rows, None, begin_delta(org, table, call.options["$deltatoken"])).total
    else:
        text = call.options.get("$filter")
        matches = compile_filter(text, lambda path: row_operand(org, table, path)) if text else bool
        number = min(len([row for row in rows if matches(row)]), 5000)
    response = answer(call, 200)
    response.headers["Content-Type"] = "text/plain"
    response.body = str(number).encode()
    return response


def read_row(org: Organization, call: Call, table: Table, key: str | Values) -> Response:
    row = row_at(org, table, key)
    org.require_read(call.principal.user_id, row)
    if call.header("If-None-Match") == row.etag and "$expand" not in call.options and not call.annotations:
        return answer(call, 304, ETag=row.etag)
    query = read_query(org, table, call.options)
    return answer(call, 200, entity(org, call, row, query.select, query.expand), ETag=row.etag)


def entity(org: Organization, call: Call, row: Row, select: Any = None, expand: Any = ()) -> dict[str, Any]:
    columns = f"({','.join(select)})" if select else ""
    context = f"{call.api}/$metadata#{org.tables[row.table].set_name}{columns}/$entity"
    return {"@odata.context": context, **as_json(org, row, select, expand, call.annotations)}


# Writing


def create(org: Organization, call: Call, table: Table) -> Response:
    row = insert(org, call, table, read_json(call.request.body, table.set_name))
    return written(org, call, row, created=True, address=f"{table.set_name}({row.id})")


def insert(org: Organization, call: Call, table: Table, body: dict[str, Any], row_id: str | None = None) -> Row:
    org.require_write(call.principal, table, "Create")
    return org.create(table, read_values(org, table, body, creating=True), call.principal, row_id)


def patch(org: Organization, call: Call, table: Table, key: str | Values, address: str) -> Response:
    """Update, or without If-Match also create (upsert)."""
    row, body = find_row(org, table, key), read_json(call.request.body, table.set_name)
    return written(org, call, *upsert(org, call, table, key, row, body), address=address)


def upsert(
    org: Organization, call: Call, table: Table, key: str | Values, row: Row | None, body: dict[str, Any]
) -> tuple[Row, bool]:
    """The row as written, and whether it is new."""
    if row is None:
        if call.header("If-Match"):
            row_at(org, table, key)
        if isinstance(key, str):
            return insert(org, call, table, {n: v for n, v in body.items() if n != table.primary_id}, key), True
        # Key columns in the body win over those of the address.
        org.require_write(call.principal, table, "Create")
        values = {**key, **read_values(org, table, body, creating=True)}
        return org.create(table, values, call.principal), True
    if call.header("If-None-Match") == "*":
        raise refuse("RecordExists")
    require_version(call, table, row)
    org.require_write(call.principal, table, "Write")
    org.require_read(call.principal.user_id, row)
    changes = read_values(org, table, body, creating=False)
    if not isinstance(key, str):  # a key cannot be changed through itself
        changes = {name: value for name, value in changes.items() if name not in key}
    return org.update(row, changes, call.principal), False


def require_version(call: Call, table: Table, row: Row) -> None:
    wanted = call.header("If-Match")
    if wanted in (None, "*"):
        return
    if not table.optimistic_concurrency:
        raise refuse("OptimisticConcurrencyNotEnabled", table=table.name)
    if wanted != row.etag:
        raise refuse("ConcurrencyVersionMismatch")


def written(org: Organization, call: Call, row: Row, created: bool, *, address: str) -> Response:
    uri = f"{call.api}/{address}"
    if not call.wants_representation:
        return answer(call, 204, OData_EntityId=uri, Location=uri if call.method == "POST" else None)
    table = org.tables[row.table]
    select = read_select(table, call.options["$select"]) if "$select" in call.options else None
    return answer(call, 201 if created else 200, entity(org, call, row, select), ETag=row.etag)


def delete(org: Organization, call: Call, table: Table, key: str | Values) -> Response:
    row = row_at(org, table, key)
    require_version(call, table, row)
    org.require_write(call.principal, table, "Delete")
    org.delete(row)
    return answer(call, 204)


# Single columns and links


def property_call(org: Organization, call: Call, row: Row, name: str) -> Response:
    """`/opportunities(id)/name`: read, set or clear one column."""
    table = org.tables[row.table]
    column = table.by_property(name)
    if column is None or column.kind in REFERENCES:
        raise refuse("NoSuchSegment", segment=name)
    if call.method == "GET":
        org.require_read(call.principal.user_id, row)
        value = row.values.get(name)
        context = f"{call.api}/$metadata#{table.set_name}({row.id})/{name}"
        return answer(call, 204) if value is None else answer(call, 200, {"@odata.context": context, "value": value})
    if call.method not in ("PUT", "DELETE"):
        raise refuse("WrongMethod", method=call.method)
    require_version(call, table, row)
    org.require_write(call.principal, table, "Write")
    sent = None
    if call.method == "PUT":
        body = read_json(call.request.body, table.set_name)
        if "value" not in body:
            raise refuse("BadPayload", set=table.set_name, message="The property 'value' is missing.")
        sent = typed(table, column, body["value"])
    org.update(row, {name: sent} if column.update else {}, call.principal)
    return answer(call, 204)


def link_call(org: Organization, call: Call, row: Row, navigation: str) -> Response:
    """`/opportunities(id)/parentaccountid/$ref`: set or clear a lookup."""
    table = org.tables[row.table]
    if table.by_navigation(navigation) is None:
        raise refuse("NoSuchSegment", segment=navigation)
    if call.method not in ("PUT", "DELETE"):
        raise refuse("WrongMethod", method=call.method)
    require_version(call, table, row)
    org.require_write(call.principal, table, "Write")
    uri = read_json(call.request.body, table.set_name).get("@odata.id") if call.method == "PUT" else None
    org.update(row, read_values(org, table, {f"{navigation}@odata.bind": uri}, creating=False), call.principal)
    return answer(call, 204)


def roles_call(org: Organization, call: Call, user: Row, link: bool) -> Response:
    """The security roles of a user: read them, or grant one."""
    if call.method == "GET" and not link:
        held = org.user_roles.get(user.id, set())
        roles = [row for row in org.visible(call.principal.user_id, org.tables["role"]) if row.values["name"] in held]
        select = read_select(org.tables["role"], call.options["$select"]) if "$select" in call.options else None
        context = f"{call.api}/$metadata#roles"
        return answer(call, 200, {"@odata.context": context, "value": [as_json(org, role, select) for role in roles]})
    if call.method != "POST" or not link:
        raise refuse("WrongMethod", method=call.method)
    org.require_write(call.principal, org.tables["systemuser"], "AssignRole")
    uri = str(read_json(call.request.body, "roles").get("@odata.id"))
    segment: Segment = split_path(API_ROOT.sub("", uri))[0]
    if segment.name != "roles" or segment.key is None:
        raise refuse("NoSuchSegment", segment=uri)
    role = row_at(org, org.tables["role"], parse_key(org.tables["role"], segment.key))
    assert role.values["name"] in ROLES
    org.user_roles.setdefault(user.id, set()).add(role.values["name"])
    return answer(call, 204)

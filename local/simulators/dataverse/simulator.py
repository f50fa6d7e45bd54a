"""The Dataverse simulator as a web application: who calls, and which part of the Web API answers."""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any

from local.simulators.base import (
    Caller,
    Clock,
    LazyState,
    Refused,
    Request,
    Response,
    Simulator,
    json_response,
    text_response,
)
from local.simulators.dataverse.actions import (
    BOUND_TO_SET,
    UNBOUND,
    bound_to_set,
    qualify_lead,
    unbound,
    who_am_i,
)
from local.simulators.dataverse.addresses import parse_key, row_at, split_path
from local.simulators.dataverse.batch import run_batch
from local.simulators.dataverse.errors import refuse
from local.simulators.dataverse.metadata import metadata_call
from local.simulators.dataverse.organization import Organization, Principal
from local.simulators.dataverse.people import ACTIONS, SELLER, People
from local.simulators.dataverse.protocol import Call
from local.simulators.dataverse.query import as_json
from local.simulators.dataverse.records import count, link_call, property_call, roles_call, row_call, set_call
from local.simulators.dataverse.schema import Table
from local.simulators.entra import BadToken, EntraSimulator

if TYPE_CHECKING:
    from local.simulators.dataverse.addresses import Segment

DEFAULT_ORIGIN = "https://contoso.crm.dynamics.com"
NOT_SIMULATED = {
    "$metadata", "BulkDelete", "CreateEntities", "DeleteOptionValue", "GlobalOptionSetDefinitions", "ImportSolution",
    "Merge", "RelationshipDefinitions", "RetrieveMetadataChanges", "UpdateOptionValue",
    "sdkmessagefilters", "serviceendpoints",
}  # fmt: skip
LIMITS = ("RequestLimit", "ExecutionTimeLimit", "ConcurrencyLimit")


class DataverseSimulator(Simulator):
    """One organization behind its Web API.

    `organization` holds the rows and the switches, `people` acts for everyone who is not the product.
    A `throttle` fault speaks of the limit named in `limit`: RequestLimit, ExecutionTimeLimit or ConcurrencyLimit.
    """

    name = "dataverse"

    def __init__(
        self,
        entra: EntraSimulator,
        *,
        origin: str = DEFAULT_ORIGIN,
        clock: Clock | None = None,
        provisioned: bool = True,
        key_index_delay_s: float = 2.0,
    ) -> None:
        super().__init__(clock)
        self.entra = entra
        self.origin = origin
        self.limit = LIMITS[0]
        self.organization = Organization(self.clock, provisioned, key_index_delay_s)
        self.people = People(self.organization, self.lock)
        app, seller = entra.app("dynamics365"), entra.app("seller")
        # The product's application user may customize as well, so that the same app can provision.
        self.organization.add_user(
            "# Co-sell Sync", "Co-sell Sync", "System Customizer", application_id=app.client_id, object_id=app.oid
        )
        self.organization.add_user(
            SELLER,
            "Salesperson",
            application_id=seller.client_id,
            object_id=seller.oid,
            internalemailaddress="sally.seller@fabrikam.example",
            address1_telephone1="2065550101",
        )
        self.organization.add_user("Ada Admin", "System Administrator")
        self.route("/api/data/<version>/", GET=self._api, POST=self._api)
        methods = dict.fromkeys(("GET", "POST", "PATCH", "PUT", "DELETE"), self._api)
        self.route("/api/data/<version>/<path:rest>", **methods)
        self.route("/_people/<action>", POST=self._act)

    @property
    def origin(self) -> str:
        """scheme://host[:port] of the environment, which is also the audience of its tokens."""
        return self._origin

    @origin.setter
    def origin(self, origin: str) -> None:
        self._origin = origin.rstrip("/")
        self.entra.resources.add(self._origin)

    # Hooks

    def identify(self, request: Request) -> Caller:
        try:
            return self.entra.verify(request, self._origin)
        except BadToken as exc:
            # The gateway answers before Dataverse does: an empty body.
            words = f'Bearer error="invalid_token", error_description="{exc.problem}"'
            response = Response(401)
            response.headers["WWW-Authenticate"] = words
            raise Refused(response) from exc

    def not_found(self, request: Request) -> Response:
        return refuse("NoSuchResource", uri=request.base_url + request.path).response

    def method_not_allowed(self, request: Request) -> Response:
        return refuse("WrongMethod", method=request.method).response

    def throttled(self, request: Request) -> Response:  # noqa: ARG002
        return refuse(self.limit).response

    def state(self) -> Any:
        org = self.organization

        def rows(table: str) -> list[Any]:
            return [as_json(org, row) for row in org.rows[table].values()]

        tables = {table.set_name: partial(rows, table.name) for table in org.tables.values()}
        return LazyState(
            {
                "version": lambda: org.version,
                "components": lambda: org.components,
                "published": lambda: org.published,
                **tables,
            }
        )

    # The Web API

    def _api(self, request: Request, version: str, rest: str = "") -> Response:
        if version not in ("v9.0", "v9.1", "v9.2"):
            return self.not_found(request)
        call = Call(request, self._principal(request), f"{request.base_url}/api/data/{version}")
        segments = split_path(rest)
        if not segments:
            raise refuse("NotSimulated", what="the service document")
        before = self.organization.version
        response = self._route(call, segments, rest)
        if request.method != "GET" and segments[0].name != "$batch":
            self._let_plugins_follow(before)
        return response

    def _route(self, call: Call, segments: list[Segment], rest: str) -> Response:
        org, head = self.organization, segments[0]
        if head.name == "$batch" and call.method == "POST":
            return run_batch(org, call, self.dispatch)
        if head.name == "WhoAmI" and len(segments) == 1:
            return who_am_i(org, call)
        if head.name in UNBOUND and len(segments) == 1:
            return unbound(org, call, head.name)
        if head.name == "EntityDefinitions":
            return metadata_call(org, call, segments)
        if head.name in NOT_SIMULATED:
            raise refuse("NotSimulated", what=head.name)
        table = org.set_named(head.name)
        if table is None:
            raise refuse("NoSuchSegment", segment=head.name)
        return self._table_call(call, table, segments, rest)

    def _table_call(self, call: Call, table: Table, segments: list[Segment], rest: str) -> Response:
        org, names = self.organization, [segment.name for segment in segments[1:]]
        key_text = segments[0].key
        if key_text is None:
            match names:
                case []:
                    return set_call(org, call, table)
                case ["$count"] if call.method == "GET":
                    return count(org, call, table)
                case [name] if name in BOUND_TO_SET:
                    return bound_to_set(org, call, table, name)
            raise refuse("NoSuchSegment", segment=names[0])
        key = parse_key(table, key_text)
        match names:
            case []:
                return row_call(org, call, table, key, rest if not isinstance(key, str) else f"{table.set_name}({key})")
            case ["Microsoft.Dynamics.CRM.QualifyLead"] if table.name == "lead":
                return qualify_lead(org, call, row_at(org, table, key))
            case ["systemuserroles_association", *link] if table.name == "systemuser" and link in ([], ["$ref"]):
                return roles_call(org, call, row_at(org, table, key), bool(link))
            case [navigation, "$ref"]:
                return link_call(org, call, row_at(org, table, key), navigation)
            case [name]:
                return property_call(org, call, row_at(org, table, key), name)
        raise refuse("NoSuchSegment", segment=names[0])

    def _principal(self, request: Request) -> Principal:
        """The system user behind the token, or the one it acts for. Raises NotMember."""
        claims = request.caller.claims if request.caller else {}
        org = self.organization
        column, value = (
            ("azureactivedirectoryobjectid", claims["oid"]) if "upn" in claims else ("applicationid", claims["appid"])
        )
        users = [user for user in org.where("systemuser", **{column: value}) if not user.values["isdisabled"]]
        if not users:
            raise refuse("NotMember")
        caller = users[0].id
        named = request.headers.get("CallerObjectId"), request.headers.get("MSCRMCallerID")
        if not any(named):
            return Principal(caller)
        if not org.may_act_on_behalf(caller):
            raise refuse("CannotActOnBehalfOf", user=caller)
        object_id, user_id = named
        found = (
            org.where("systemuser", azureactivedirectoryobjectid=object_id) if object_id else [org.user(str(user_id))]
        )
        if not found:
            raise refuse("NotMember")
        return Principal(found[0].id, on_behalf_by=caller)

    def _let_plugins_follow(self, version: int) -> None:
        org = self.organization
        if any(self.people.bumps_waiting.values()):
            written = [row for rows in org.rows.values() for row in rows.values() if row.version > version]
            for row in written:
                self.people.after_api_write(row)

    # Control

    def _act(self, request: Request, action: str) -> Response:
        if action not in ACTIONS:
            return text_response(404, f"people can: {', '.join(ACTIONS)}; not {action}")
        act, arguments = getattr(self.people, action), request.json()
        try:
            inspect.signature(act).bind(**arguments)
        except TypeError as exc:
            return text_response(400, f"{action}: {exc}")
        result = act(**arguments)
        return json_response(200, {"result": result}) if result else Response(204)

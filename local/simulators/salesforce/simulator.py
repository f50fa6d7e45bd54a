"""The Salesforce simulator as a web application: who calls, in which version, against which limit."""

from __future__ import annotations

import inspect
import re
from functools import partial
from typing import Any

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
from local.simulators.salesforce.errors import JSON, refuse
from local.simulators.salesforce.oauth import ExternalClientApp, OAuth
from local.simulators.salesforce.organization import Organization
from local.simulators.salesforce.payload import render
from local.simulators.salesforce.people import ACTIONS, People
from local.simulators.salesforce.protocol import Call, answer, check_headers, split
from local.simulators.salesforce.query import Cursors
from local.simulators.salesforce.resources import Resources
from local.simulators.salesforce.schema import SObject

DEFAULT_ORIGIN = "https://contoso.my.salesforce.com"
TOKEN_PATH = "/services/oauth2/token"
VERSIONS_PATH = "/services/data"
OLDEST_VERSION, NEWEST_VERSION = 31, 67
LONGEST_URI = 16_384
SEASONS = {0: "Spring", 1: "Summer", 2: "Winter"}


class SalesforceSimulator(Simulator):
    """One org behind its My Domain: token endpoint and REST API.

    `organization` holds the rows and the switches, `people` acts for everyone who is not the product.
    A `throttle` fault is Salesforce's refusal of too many long calls at once: 403, and no Retry-After by itself.
    """

    name = "salesforce"

    def __init__(self, clock: Clock | None = None, *, origin: str = DEFAULT_ORIGIN, provisioned: bool = True) -> None:
        super().__init__(clock)
        self.organization = Organization(self.clock, provisioned)
        org = self.organization
        self.app = ExternalClientApp(run_as=org.integration_user)
        self.app.approved = {row.values["Username"] for row in org.rows["User"].values() if row.values["IsActive"]}
        self.oauth = OAuth(org, self.app)
        self.origin = origin
        self.people = People(org, self.oauth, self.lock)
        self.resources = Resources(Cursors(org))
        self.offered_versions = [f"{number}.0" for number in range(OLDEST_VERSION, NEWEST_VERSION + 1)]
        self.route(TOKEN_PATH, POST=self.oauth.token)
        for path in (VERSIONS_PATH, VERSIONS_PATH + "/"):
            self.route(path, GET=self._versions)
        methods = dict.fromkeys(("GET", "POST", "PATCH", "PUT", "DELETE"), self._api)
        self.route(VERSIONS_PATH + "/<version>", **methods)
        self.route(VERSIONS_PATH + "/<version>/<path:rest>", **methods)
        self.route(VERSIONS_PATH + "/<version>/", **methods)
        self.route("/_people/<action>", POST=self._act)

    @property
    def origin(self) -> str:
        """scheme://host[:port] of the org, which a token's answer tells as instance_url."""
        return self.oauth.origin

    @origin.setter
    def origin(self, origin: str) -> None:
        self.oauth.origin = origin.rstrip("/")

    @property
    def client_id(self) -> str:
        return self.app.client_id

    @property
    def client_secret(self) -> str:
        return self.app.client_secret

    @property
    def username(self) -> str:
        """The user name of the integration user."""
        return str(self.organization.user(self.organization.integration_user).values["Username"])

    @property
    def private_key_pem(self) -> str:
        return self.app.private_key_pem

    def token_for(self, user: str) -> str:
        """A session of that user, given by full name, user name or id."""
        with self.lock:
            return self.oauth.open_session(self.organization.user(user).id)

    # Hooks

    def identify(self, request: Request) -> Caller | None:
        if request.path == TOKEN_PATH or request.path.rstrip("/") == VERSIONS_PATH:
            return None
        with self.lock:
            return self.oauth.identify(request)

    def not_found(self, request: Request) -> Response:  # noqa: ARG002
        return refuse("NotFound").response

    def method_not_allowed(self, request: Request) -> Response:
        return refuse("WrongMethod", method=request.method, allowed="GET,POST,PATCH,DELETE").response

    def throttled(self, request: Request) -> Response:  # noqa: ARG002
        return refuse("ConcurrentLimit").response

    def state(self) -> Any:
        org = self.organization
        shown = [each for each in org.objects.values() if org.has(each.needs) and not each.virtual and not each.tooling]
        return LazyState(
            {
                **{sobject.name: partial(self._rows, sobject) for sobject in shown},
                "deleted": lambda: [
                    {"object": each.object, "id": each.id, "deletedDate": render(each.at)} for each in org.deletions
                ],
                "open_transactions": lambda: list(org.transactions),
                "api_usage": lambda: f"{org.api_used}/{org.api_max}",
            }
        )

    def _rows(self, sobject: SObject) -> list[Any]:
        with self.lock:
            org = self.organization
            call = Call(org, Request("GET", "/"), org.system_user, f"{NEWEST_VERSION}.0", ())
            fields = org.access.fields(sobject, None)
            rows = [call.row_json(row, fields) for row in org.live(sobject.name)]
        for row in rows:
            del row["attributes"]
        return rows

    # The REST API

    def _versions(self, _: Request) -> Response:
        return answer(200, [_version_json(version) for version in self.offered_versions])

    def _api(self, request: Request, version: str, rest: str = "") -> Response:  # noqa: ARG002
        org = self.organization
        org.forget_undo()
        try:
            self._check_size(request)
            number = self._check_version(version)
            if org.api_used >= org.api_max:
                raise refuse("DailyLimit")
            org.api_used += 1
            check_headers(request)
            user = request.caller.user if request.caller and request.caller.user else ""
            segments = split(request.raw_path or request.path)[3:]
            response = self.resources.route(Call(org, request, user, number, segments))
        except Refused as refused:
            response = refused.response
        response.headers["Sforce-Limit-Info"] = f"api-usage={org.api_used}/{org.api_max}"
        return response

    def _check_version(self, version: str) -> str:
        found = re.fullmatch(r"v(\d+)\.0", version)
        if found is None:
            raise refuse("NotFound")
        number = f"{found.group(1)}.0"
        if float(number) < OLDEST_VERSION:
            raise refuse("Retired", version=number)
        if number not in self.offered_versions:
            raise refuse("NotFound")
        return number

    def _check_size(self, request: Request) -> None:
        uri = len(request.raw_path) + len(request.query_string) + bool(request.query_string)
        if uri > LONGEST_URI:
            raise refuse("UriTooLong")
        if uri + sum(len(name) + len(value) + 4 for name, value in request.headers) > LONGEST_URI:
            raise refuse("HeadersTooLong")

    # Control

    def _act(self, request: Request, action: str) -> Response:
        if action not in ACTIONS:
            return text_response(404, f"people can: {', '.join(ACTIONS)}; not {action}")
        act, arguments = getattr(self.people, action), request.json()
        try:
            inspect.signature(act).bind(**arguments)
        except TypeError as exc:
            return text_response(400, f"{action}: {exc}")
        try:
            result = act(**arguments)
        except LookupError as exc:
            return text_response(400, f"{action}: {exc}")
        return json_response(200, {"result": result}, JSON) if result else Response(204)


def _version_json(version: str) -> dict[str, str]:
    """Summer '26 is 67.0, and there are three a year."""
    ahead = int(float(version)) - 66  # 66.0 is Spring '26
    season, year = SEASONS[ahead % 3], 26 + ahead // 3 + (ahead % 3 == 2)
    return {"label": f"{season} '{year:02}", "url": f"{VERSIONS_PATH}/v{version}", "version": version}

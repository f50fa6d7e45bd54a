"""The HTTP side of the host: routes, keys, the admin call that runs a function now. Never runs a handler by other ways.

https://learn.microsoft.com/azure/azure-functions/functions-bindings-http-webhook-trigger
"""

from __future__ import annotations

import hmac
import http
import json
import logging
import re
import threading
import urllib.parse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from azure.functions.meta import Datum
from cheroot.server import Gateway, HeaderReader, HTTPConnection, HTTPRequest, HTTPServer

from local.host.configuration import ConfigurationError
from local.host.functions import Function, InvocationFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

log = logging.getLogger("local.host")

RESERVED_ROUTES = ("admin", "runtime")
MAX_HEADER_BYTES = 65_536
# https://learn.microsoft.com/azure/azure-functions/functions-app-settings#functions_request_body_size_limit
MAX_BODY_BYTES = 104_857_600
# https://learn.microsoft.com/aspnet/core/fundamentals/routing#route-constraints
ROUTE_CONSTRAINTS = {
    None: r"[^/]+",
    "int": r"-?\d+",
    "long": r"-?\d+",
    "alpha": r"[A-Za-z]+",
    "bool": r"(?i:true|false)",
    "guid": r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}",
}
PARAMETER = re.compile(r"\{(?P<rest>\*{1,2})?(?P<name>\w+)(?::(?P<constraint>\w+))?(?P<optional>\?)?\}")
# The framework answers with the length and the connection handling of what it sends itself.
HOP_HEADERS = ("content-length", "transfer-encoding", "connection")


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    url: str


@dataclass(frozen=True)
class Response:
    status: int
    body: bytes = b""
    headers: Sequence[tuple[str, str]] = (("content-type", "text/plain; charset=utf-8"),)

    @classmethod
    def text(cls, status: int, text: str) -> Response:
        return cls(status, text.encode())


@dataclass(frozen=True)
class Route:
    function: Function
    path: str
    pattern: re.Pattern[str]
    methods: frozenset[str]
    needs_key: bool
    specificity: tuple[int, ...] = field(default=())

    @classmethod
    def of(cls, function: Function, prefix: str) -> Route:
        template = str(function.trigger.get("route") or function.name).strip("/")
        if template.lower().startswith(RESERVED_ROUTES):
            raise ConfigurationError(
                f"{function.name}: the route {template!r} conflicts with one or more built in routes. "
                f"A route must not start with {' or '.join(RESERVED_ROUTES)}; choose another one."
            )
        segments = [segment for segment in f"{prefix}/{template}".split("/") if segment]
        return cls(
            function,
            "/" + "/".join(segments),
            # Routes ignore case.
            re.compile("".join(_segment_pattern(segment, function.name) for segment in segments) + "/?", re.IGNORECASE),
            frozenset(method.upper() for method in function.trigger.get("methods") or ()),
            str(function.trigger.get("authLevel", "function")).lower() != "anonymous",
            # A literal segment wins over a parameter, a parameter over a catch-all.
            tuple(2 if "{*" in segment else 1 if "{" in segment else 0 for segment in segments),
        )


def _segment_pattern(segment: str, function_name: str) -> str:
    if (match := PARAMETER.fullmatch(segment)) is None:
        if "{" in segment:
            raise ConfigurationError(
                f"{function_name}: route segment {segment!r}; accepted: text, {{name}}, {{*rest}}."
            )
        return "/" + re.escape(segment)
    if match["rest"]:
        return f"(?:/(?P<{match['name']}>.*))?"
    if match["constraint"] not in ROUTE_CONSTRAINTS:
        raise ConfigurationError(
            f"{function_name}: route constraint {match['constraint']!r} in {segment!r} is not known to this host; "
            f"accepted: {', '.join(filter(None, ROUTE_CONSTRAINTS))}."
        )
    parameter = f"/(?P<{match['name']}>{ROUTE_CONSTRAINTS[match['constraint']]})"
    return f"(?:{parameter})?" if match["optional"] else parameter


class Site:
    """Answers requests: finds the function, checks the key, runs it."""

    def __init__(
        self,
        functions: Sequence[Function],
        *,
        route_prefix: str,
        function_key: str,
        run_now: Mapping[str, Callable[[bytes], None]],
    ) -> None:
        """run_now starts a timer or queue function by its name, without waiting for it."""
        http_functions = [function for function in functions if function.trigger["type"] == "httpTrigger"]
        self.routes = sorted((Route.of(f, route_prefix) for f in http_functions), key=lambda route: route.specificity)
        self._http_names = {function.name.lower() for function in http_functions}
        self._run_now = {name.lower(): run for name, run in run_now.items()}
        self._function_key = function_key.encode()

    def answer(self, request: Request) -> Response:
        if request.path.lower().startswith("/admin/"):
            return self._administer(request)
        for route in self.routes:
            match = route.pattern.fullmatch(request.path)
            if match and (not route.methods or request.method in route.methods):
                if route.needs_key and not self._key_is_right(request):
                    return Response(401)
                return self._invoke(route.function, request, match.groupdict())
        return Response(404)

    def _key_is_right(self, request: Request) -> bool:
        given = request.headers.get("x-functions-key") or request.query.get("code", "")
        return hmac.compare_digest(given.encode(), self._function_key)

    def _invoke(self, function: Function, request: Request, route_values: Mapping[str, str | None]) -> Response:
        call = {
            "method": Datum(request.method, "string"),
            "url": Datum(request.url, "string"),
            "headers": {name: Datum(value, "string") for name, value in request.headers.items()},
            # The host leaves out what is empty.
            "query": {name: Datum(value, "string") for name, value in request.query.items() if value},
            "params": {name: Datum(value, "string") for name, value in route_values.items() if value},
            "body": Datum(request.body, "bytes"),
        }
        try:
            result = function.invoke(Datum(call, "http"), trace_parent=request.headers.get("traceparent"))
        except InvocationFailed as exc:
            return Response.text(
                500, f"The function failed. Look for invocation {exc.invocation_id} in the host's log."
            )
        if result is None:
            return Response(204, headers=())
        if result.type == "string":
            return Response.text(200, result.value)
        headers = [(name, value.value) for name, value in result.value["headers"].items()]
        for cookie in result.value["cookies"] or ():
            headers += [("set-cookie", morsel.OutputString()) for morsel in cookie.values()]
        return Response(int(result.value["status_code"].value), result.value["body"].value, headers)

    def _administer(self, request: Request) -> Response:
        """POST /admin/functions/{name} with {"input": "..."} runs a function that is not called by HTTP.

        https://learn.microsoft.com/azure/azure-functions/functions-manually-run-non-http
        """
        if not self._key_is_right(request):
            return Response(401)
        match = re.fullmatch(r"/admin/functions/([^/]+)/?", request.path, re.IGNORECASE)
        if not match or request.method != "POST":
            return Response(404)
        name = match[1].lower()
        if name in self._http_names:
            return Response.text(400, f"{name} is an HTTP function; call its route instead.")
        if name not in self._run_now:
            return Response.text(404, f"No function {name}; there are: {', '.join(sorted(self._run_now))}.")
        try:
            run_input = json.loads(request.body).get("input", "")
        except (ValueError, AttributeError):
            return Response.text(400, 'Send a JSON object, for example {"input": ""}.')
        self._run_now[name](str(run_input).encode())
        return Response(202)


class _JoinRepeatedHeaders(HeaderReader):
    """Joins repeated headers by a comma, whatever their name, as the real host does; refuses folded lines."""

    def __call__(self, rfile: Any, hdict: dict[bytes, bytes] | None = None) -> dict[bytes, bytes]:
        headers: dict[bytes, bytes] = {} if hdict is None else hdict
        while (line := rfile.readline()) != b"\r\n":
            name, colon, value = line.partition(b":")
            if not colon or not line.endswith(b"\r\n") or name != name.strip():
                raise ValueError("Illegal header line.")
            name, value = name.title(), value.strip()
            headers[name] = headers[name] + b"," + value if name in headers else value
        return headers


class _Request(HTTPRequest):
    header_reader = _JoinRepeatedHeaders()


class _Connection(HTTPConnection):
    RequestHandlerClass = _Request


class _Gateway(Gateway):
    """Translates between the HTTP server and the site."""

    req: Any

    def respond(self) -> None:
        req = self.req
        body: bytes = req.rfile.read()
        if getattr(req.rfile, "remaining", 0):
            # The caller went away in the middle of the body: there is nobody to answer and nothing whole to run.
            req.close_connection = True
            self._send(Response.text(400, "The body is shorter than Content-Length says."))
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in req.inheaders.items()}
        query: dict[str, str] = {}
        for name, value in urllib.parse.parse_qsl(req.qs.decode("latin-1"), keep_blank_values=True):
            query[name] = f"{query[name]},{value}" if name in query else value
        self._send(
            req.server.site.answer(
                Request(
                    method=req.method.decode("latin-1"),
                    path=req.path.decode("utf-8", "replace"),
                    query=query,
                    headers=headers,
                    body=body,
                    url=f"{req.scheme.decode()}://{headers.get('host', 'localhost')}{req.uri.decode('latin-1')}",
                )
            )
        )

    def _send(self, response: Response) -> None:
        req = self.req
        req.status = f"{response.status} {_reason(response.status)}".encode("latin-1")
        req.outheaders = [
            (name.encode("latin-1"), value.encode("latin-1"))
            for name, value in response.headers
            if name.lower() not in HOP_HEADERS
        ]
        has_body = response.status >= 200 and response.status not in (204, 304)
        if has_body:
            req.outheaders.append((b"Content-Length", str(len(response.body)).encode()))
        req.ensure_headers_sent()
        if has_body and req.method != b"HEAD":
            req.write(response.body)


def _reason(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Status"


class _Server(HTTPServer):
    site: Site
    ConnectionClass = _Connection
    nodelay = True
    max_request_header_size = MAX_HEADER_BYTES
    request_queue_size = 1024
    keep_alive_conn_limit = 1000
    timeout = 60
    # Host.stop bounds the time for all parts together.
    shutdown_timeout = 3600

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        log.log(level, msg, exc_info=traceback)


class HttpEndpoint:
    """The listening server and its threads."""

    def __init__(
        self, site: Site, address: str, port: int, *, threads: int, max_body_bytes: int = MAX_BODY_BYTES
    ) -> None:
        self._server = _Server(
            (address, port), _Gateway, minthreads=threads, maxthreads=threads, server_name="local.host"
        )
        self._server.site = site
        self._server.max_request_body_size = max_body_bytes
        self._thread = threading.Thread(target=self._server.serve, name="http", daemon=True)

    def start(self) -> None:
        try:
            self._server.prepare()
        except OSError as exc:
            raise ConfigurationError(
                f"The host cannot listen: {exc}. Choose another --port, or end what uses it."
            ) from exc
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.bind_addr[1])

    def stop(self) -> None:
        """Take no new connection, answer the requests that are being handled."""
        self._server.stop()
        self._thread.join()

"""What every simulated system is made of: a clock, a request log, faults to inject, and the two ways to reach it.

Never knows a particular system, and never imports the product: a simulator shares no code with the client it answers.

A system subclasses `Simulator`, registers its rules in `__init__` and overrides the hooks it needs:

    class Weather(Simulator):
        name = "weather"

        def __init__(self) -> None:
            super().__init__()
            self.route("/v1/cities/<city>", GET=self.city)

        def city(self, request: Request, city: str) -> Response:
            return json_response(200, {"city": city})

People and other processes reach it over HTTPS (`HttpsServer`), tests through a `requests` session (`InProcessAdapter`).
Paths that begin with `/_` are control, for a person or a test: they need no token, are not logged and meet no faults.

    GET /_state                 everything the system holds        GET, DELETE /_log      the request log
    GET, POST /_clock           {"advance": seconds} or {"set": iso time}
    GET, POST, DELETE /_faults  {"kind": "throttle", "path": "...", "times": 2, ...}
"""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self
from urllib.parse import unquote, urlsplit

import requests
import trustme
from cheroot import wsgi
from cheroot.errors import FatalSSLAlert
from cheroot.ssl.builtin import BuiltinSSLAdapter
from requests.adapters import HTTPAdapter
from requests.utils import get_encoding_from_headers
from werkzeug.datastructures import EnvironHeaders, Headers, MultiDict
from werkzeug.exceptions import NotFound
from werkzeug.routing import Map, Rule
from werkzeug.urls import iri_to_uri

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


REASONS: Mapping[int, str] = {status.value: status.phrase for status in HTTPStatus}


class Clock:
    """The time of one system, aware UTC: real time plus an offset, or standing still when made with `frozen_at`."""

    def __init__(self, frozen_at: datetime | None = None) -> None:
        self._lock = threading.Lock()
        self._frozen_at = frozen_at
        self._offset = timedelta()

    def now(self) -> datetime:
        with self._lock:
            return self._frozen_at or datetime.now(UTC) + self._offset

    def advance(self, seconds: float) -> None:
        with self._lock:
            self._offset += timedelta(seconds=seconds)
            if self._frozen_at:
                self._frozen_at += timedelta(seconds=seconds)

    def set(self, to: datetime) -> None:
        """Jump to `to` (aware); a running clock goes on running from there."""
        with self._lock:
            self._offset = to - datetime.now(UTC)
            if self._frozen_at:
                self._frozen_at = to.astimezone(UTC)


@dataclass(frozen=True)
class Caller:
    """Who a token stands for: the app registration by its name, and the user when the app acts for one."""

    app: str
    user: str | None = None
    claims: Mapping[str, Any] = field(default_factory=dict, hash=False, repr=False)

    def __str__(self) -> str:
        return self.app


@dataclass(frozen=True)
class Request:
    """One HTTP request as a system sees it. `path` is decoded and has no query; `raw_path` is as sent."""

    method: str
    path: str
    headers: Headers = field(default_factory=Headers)
    body: bytes = b""
    raw_path: str = ""
    query_string: str = ""
    base_url: str = "https://localhost"  # scheme://host[:port], as the client addressed it
    caller: Caller | None = None  # filled in by Simulator.identify

    @cached_property
    def query(self) -> MultiDict[str, str]:
        """The decoded query options. Splits on `&` only and keeps a literal `+` out: `+` means space, as in forms."""
        pairs = [part.partition("=")[::2] for part in self.query_string.split("&") if part]
        return MultiDict((unquote(name.replace("+", " ")), unquote(value.replace("+", " "))) for name, value in pairs)

    def json(self) -> Any:
        """The body as JSON. Raises Refused(400) when it is not."""
        try:
            return json.loads(self.body)
        except ValueError as exc:
            raise Refused(text_response(400, f"The request body is not JSON: {exc}")) from exc

    @classmethod
    def from_environ(cls, environ: WSGIEnvironment) -> Self:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        # A chunked body has no length; cheroot's reader ends where the body ends.
        chunked = environ.get("HTTP_TRANSFER_ENCODING", "").lower() == "chunked"
        body = environ["wsgi.input"].read() if chunked else environ["wsgi.input"].read(length) if length else b""
        path = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace")  # PEP 3333
        return cls(
            method=environ["REQUEST_METHOD"],
            path=path,
            headers=Headers(list(EnvironHeaders(environ).items())),
            body=body,
            raw_path=environ.get("REQUEST_URI", path).partition("?")[0],
            query_string=environ.get("QUERY_STRING", ""),
            base_url=f"{environ['wsgi.url_scheme']}://{environ['HTTP_HOST']}",
        )


@dataclass
class Response:
    status: int
    headers: Headers = field(default_factory=Headers)
    body: bytes = b""


def json_response(status: int, obj: Any, headers: Mapping[str, str] | None = None) -> Response:
    """A compact JSON answer; `headers` override the content type."""
    all_headers = Headers({"Content-Type": "application/json; charset=utf-8"})
    all_headers.update(headers or {})
    return Response(status, all_headers, json.dumps(obj, default=to_json, separators=(",", ":")).encode())


def text_response(status: int, text: str) -> Response:
    return Response(status, Headers({"Content-Type": "text/plain; charset=utf-8"}), text.encode())


def to_json(value: Any) -> Any:
    """What json.dumps cannot write by itself: values a simulator may hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Headers):
        return dict(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, set | frozenset | deque):
        return list(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Decimal):
        return float(value)
    return str(value)


class Refused(Exception):
    """Raise anywhere in a handler to answer with this response."""

    def __init__(self, response: Response) -> None:
        super().__init__(f"{response.status} {response.body[:200]!r}")
        self.response = response


class ConnectionDropped(Exception):
    """The faults `drop_before` and `drop_after`: whoever serves the application closes the connection, no answer."""


class AnswerTooLate(Exception):
    """In process only: the answer would come after the caller's read timeout, so the adapter need not wait for real."""


@dataclass(frozen=True)
class LogEntry:
    """One API call. `status` is what the system answered, None when a dropped connection kept it from executing."""

    at: datetime
    system: str
    method: str
    path: str
    query: str
    status: int | None
    caller: str | None
    fault: str | None
    request_headers: Headers
    request_body: bytes
    response_headers: Headers
    response_body: bytes


class RequestLog:
    """The API calls a system received, oldest first; control calls (`/_...`) are not among them."""

    def __init__(self, entries: Iterable[LogEntry] = ()) -> None:
        self.entries: list[LogEntry] = list(entries)

    def add(self, entry: LogEntry) -> None:
        self.entries.append(entry)

    def matching(
        self, method: str | None = None, path_regex: str | None = None, caller: str | None = None
    ) -> list[LogEntry]:
        """Entries with this method, a path in which the regex is found, and this caller; None means any."""
        return [
            entry
            for entry in list(self.entries)
            if (method is None or entry.method == method)
            and (path_regex is None or re.search(path_regex, entry.path))
            and (caller is None or entry.caller == caller)
        ]

    def count(self, method: str | None = None, path_regex: str | None = None, caller: str | None = None) -> int:
        return len(self.matching(method, path_regex, caller))

    def mark(self) -> int:
        """A place in the log, for `since`."""
        return len(self.entries)

    def since(self, mark: int) -> RequestLog:
        return RequestLog(self.entries[mark:])

    def clear(self) -> None:
        self.entries.clear()


@dataclass
class Fault:
    """A fault waiting for the next request it matches. None matches anything; `path` and `caller` are regexes."""

    kind: str
    method: str | None = None
    path: str | None = None
    caller: str | None = None
    times: int = 1
    options: dict[str, Any] = field(default_factory=dict)

    def matches(self, request: Request) -> bool:
        return (
            self.times > 0
            and (self.method is None or self.method == request.method)
            and (self.path is None or re.search(self.path, request.path) is not None)
            and (self.caller is None or re.search(self.caller, str(request.caller)) is not None)
        )


class Faults:
    """Faults to come, used up in the order they were added. The table says which options a kind takes."""

    KINDS: ClassVar[dict[str, set[str]]] = {
        # answer this; with executed=True only after doing the work, as a gateway does that lost patience
        "status": {"status", "body", "headers", "executed"},
        "garbage": {"body", "executed"},  # 200 with something that is not JSON
        "throttle": {"retry_after_s"},  # 429 in the system's own words; without retry_after_s no Retry-After
        "delay": {"seconds"},  # the answer takes real seconds (see AnswerTooLate for the in-process case)
        "drop_before": set(),  # connection dropped, nothing executed
        "drop_after": set(),  # executed, then the connection is dropped
    }

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.waiting: list[Fault] = []

    def add(
        self,
        kind: str,
        *,
        method: str | None = None,
        path: str | None = None,
        caller: str | None = None,
        times: int = 1,
        **options: Any,
    ) -> None:
        if kind not in self.KINDS:
            raise ValueError(f"fault kind {kind!r} is unknown; accepted: {', '.join(self.KINDS)}")
        if unknown := options.keys() - self.KINDS[kind]:
            raise ValueError(f"fault {kind} takes {sorted(self.KINDS[kind])}, not {sorted(unknown)}")
        with self._lock:
            self.waiting.append(Fault(kind, method, path, caller, times, options))

    def take(self, request: Request) -> Fault | None:
        """The first fault that matches, used up by one."""
        with self._lock:
            for fault in self.waiting:
                if fault.matches(request):
                    fault.times -= 1
                    self.waiting = [f for f in self.waiting if f.times > 0]
                    return fault
        return None

    def clear(self) -> None:
        with self._lock:
            self.waiting.clear()


class LazyState(Mapping[str, Any]):
    """What a system holds, by part, each part made when somebody looks at it."""

    def __init__(self, parts: Mapping[str, Callable[[], Any]]) -> None:
        self._parts = parts

    def __getitem__(self, name: str) -> Any:
        return self._parts[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


Handler = Callable[..., Response]
"""Called as handler(request, **parts of the path)."""


class Rules:
    """Which addresses a kind of system has. Compiling them takes longer than anything else about a new simulator."""

    def __init__(self) -> None:
        # Vendors' keys may hold two slashes in a row, and none of them redirects an API call.
        self.map = Map(merge_slashes=False)
        self._known: set[str] = set()

    def add(self, rule: str) -> None:
        if rule not in self._known:
            self._known.add(rule)
            self.map.add(Rule(rule, endpoint=rule))


_RULES: dict[type, Rules] = {}


class Simulator:
    """One simulated system: a WSGI application whose requests run one at a time over state in memory."""

    name = "simulator"

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.log = RequestLog()
        self.faults = Faults()
        self.lock = threading.RLock()  # held while a request executes; hold it to change state from outside
        self._rules = _RULES.setdefault(type(self), Rules())
        self._handlers: dict[str, dict[str, Handler]] = {}
        self._router = self._rules.map.bind("simulator")
        self.route("/_state", GET=lambda _: _for_a_browser(self.state()))
        self.route("/_log", GET=lambda _: _for_a_browser(self.log.entries), DELETE=self._clear_log)
        self.route("/_clock", GET=self._show_clock, POST=self._set_clock)
        self.route("/_faults", GET=self._show_faults, POST=self._add_fault, DELETE=self._clear_faults)

    def route(self, rule: str, **methods: Handler) -> None:
        """Register a rule with a handler per method (https://werkzeug.palletsprojects.com/en/stable/routing/)."""
        self._handlers[rule] = methods
        self._rules.add(rule)

    # Hooks: what a system says in its own words.

    def state(self) -> Any:
        """Everything the system holds, for a person with a browser."""
        return {}

    def identify(self, request: Request) -> Caller | None:  # noqa: ARG002
        """Who is calling, by the request's token. Raise Refused when the system would not let them in."""
        return None

    def not_found(self, request: Request) -> Response:
        return text_response(404, f"{self.name}: there is nothing at {request.path}")

    def method_not_allowed(self, request: Request) -> Response:
        return text_response(405, f"{self.name}: {request.method} is not supported at {request.path}")

    def throttled(self, request: Request) -> Response:  # noqa: ARG002
        """The body of a 429; Retry-After is added by the fault."""
        return text_response(429, "Too many requests")

    # The life of a request.

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        """Answer as a WSGI application."""
        response = self.respond(Request.from_environ(environ))
        reason = REASONS.get(response.status, "Unknown")
        start_response(f"{response.status} {reason}", response.headers.to_wsgi_list())
        return [response.body]

    wsgi = __call__

    def respond(self, request: Request, read_timeout_s: float | None = None) -> Response:
        """Answer a request. `read_timeout_s`: how long an in-process caller is willing to wait, see AnswerTooLate.

        Raises ConnectionDropped and AnswerTooLate; any other exception is a mistake in the simulator, no answer.
        """
        is_control = request.path.startswith("/_")
        response = self.dispatch(request) if is_control else self._answer(request, read_timeout_s)
        response.headers.setdefault("Content-Length", str(len(response.body)))
        return response

    def dispatch(self, request: Request) -> Response:
        """Route and execute one request, without log and faults; the parts of a batch come this way too."""
        try:
            rule, parts = self._router.match(request.path, method="GET")
            if rule not in self._handlers:
                return self.not_found(request)
            handler = self._handlers[rule].get(request.method)
            if handler is None:
                return self.method_not_allowed(request)
            with self.lock:
                return handler(request, **parts)
        except NotFound:
            return self.not_found(request)
        except Refused as refused:
            return refused.response

    def _answer(self, request: Request, read_timeout_s: float | None) -> Response:
        refused: Refused | None = None
        try:
            request = dataclasses.replace(request, caller=self.identify(request))
        except Refused as exc:
            refused = exc
        fault = self.faults.take(request)
        kind, options = (fault.kind, fault.options) if fault else (None, {})

        def execute() -> Response:
            return refused.response if refused else self.dispatch(request)

        response: Response | None
        if kind in ("status", "garbage"):
            if options.get("executed"):
                execute()
            response = _prepared_answer(options)
        elif kind == "throttle":
            response = self.throttled(request)
            if "retry_after_s" in options:
                response.headers["Retry-After"] = str(options["retry_after_s"])
        elif kind == "drop_before":
            response = None
        else:
            response = execute()

        too_late = kind == "delay" and read_timeout_s is not None and options["seconds"] >= read_timeout_s
        self._log(request, response, kind)
        if kind in ("drop_before", "drop_after") or response is None:
            raise ConnectionDropped
        if too_late:
            raise AnswerTooLate
        if kind == "delay":
            time.sleep(options["seconds"])
        return response

    def _log(self, request: Request, response: Response | None, fault: str | None) -> None:
        answer = response or Response(0)
        self.log.add(
            LogEntry(
                at=self.clock.now(),
                system=self.name,
                method=request.method,
                path=request.path,
                query=request.query_string,
                status=response.status if response else None,
                caller=str(request.caller) if request.caller else None,
                fault=fault,
                request_headers=request.headers,
                request_body=request.body,
                response_headers=answer.headers,
                response_body=answer.body,
            )
        )

    # Control.

    def _clear_log(self, _: Request) -> Response:
        self.log.clear()
        return Response(204)

    def _show_clock(self, _: Request) -> Response:
        return json_response(200, {"now": self.clock.now()})

    def _set_clock(self, request: Request) -> Response:
        command = request.json()
        if "set" in command:
            self.clock.set(datetime.fromisoformat(command["set"]))
        self.clock.advance(float(command.get("advance", 0)))
        return self._show_clock(request)

    def _show_faults(self, _: Request) -> Response:
        return json_response(200, self.faults.waiting)

    def _add_fault(self, request: Request) -> Response:
        try:
            self.faults.add(**request.json())
        except (TypeError, ValueError) as exc:
            return text_response(400, str(exc))
        return self._show_faults(request)

    def _clear_faults(self, _: Request) -> Response:
        self.faults.clear()
        return Response(204)


def _for_a_browser(obj: Any) -> Response:
    body = json.dumps(obj, default=to_json, indent=2, ensure_ascii=False).encode()
    return Response(200, Headers({"Content-Type": "application/json; charset=utf-8"}), body)


def _prepared_answer(options: Mapping[str, Any]) -> Response:
    """The answer of a `status` or `garbage` fault; a body that is not text is sent as JSON."""
    body = options.get("body", "<html><body>The service is unavailable.</body></html>")
    status, headers = options.get("status", 200), options.get("headers", {})
    if isinstance(body, str | bytes):
        content = body.encode() if isinstance(body, str) else body
        return Response(status, Headers({"Content-Type": "text/html", **headers}), content)
    return json_response(status, body, headers)


class InProcessAdapter(HTTPAdapter):
    """Carries a `requests` session's calls straight to a system: session.mount("https://host", adapter).

    What reaches the system, and what comes back, is what would over HTTPS; only that nothing is made into bytes and
    taken apart again on the way.
    """

    def __init__(self, system: Simulator) -> None:
        super().__init__()
        self.system = system

    def send(  # type: ignore[override]
        self, request: requests.PreparedRequest, *, timeout: Any = None, **_unused: Any
    ) -> requests.Response:
        read_timeout_s = timeout[1] if isinstance(timeout, tuple) else timeout
        try:
            answer = self.system.respond(_received(request), read_timeout_s)
        except ConnectionDropped as exc:
            reset = ConnectionResetError(104, "Connection reset by peer")
            raise requests.ConnectionError(f"Connection aborted: {reset}", request=request) from exc
        except AnswerTooLate as exc:
            message = f"Read timed out. (read timeout={read_timeout_s})"
            raise requests.ReadTimeout(message, request=request) from exc
        return self._answered(request, answer)

    def _answered(self, request: requests.PreparedRequest, answer: Response) -> requests.Response:
        response = requests.Response()
        response.status_code, response.reason = answer.status, REASONS.get(answer.status, "Unknown")
        for name in answer.headers.keys():  # noqa: SIM118 - of Headers, this is not the same
            response.headers[name] = ", ".join(answer.headers.getlist(name))
        response.encoding = get_encoding_from_headers(response.headers)
        # https://www.rfc-editor.org/rfc/rfc9112#section-6.3: whatever a simulator says, these have no body.
        has_none = request.method == "HEAD" or answer.status in (204, 304)
        response._content = b"" if has_none else answer.body
        response.raw = BytesIO(response._content)
        response.url, response.request = str(request.url), request
        response.connection = self
        return response


def _received(request: requests.PreparedRequest) -> Request:
    """A prepared request as it reaches a system."""
    url = urlsplit(iri_to_uri(str(request.url)))
    sent: Any = request.body or b""
    body: bytes = sent.encode() if isinstance(sent, str) else sent if isinstance(sent, bytes) else b"".join(sent)
    headers = [
        (name, value.decode("latin-1") if isinstance(value, bytes) else value)
        for name, value in request.headers.items()
        if name.lower() not in ("content-length", "transfer-encoding", "host")
    ]
    return Request(
        method=str(request.method),
        path=unquote(url.path),
        headers=Headers([*headers, ("Content-Length", str(len(body))), ("Host", url.netloc)]),
        body=body,
        raw_path=url.path,
        query_string=url.query,
        base_url=f"{url.scheme}://{url.netloc}",
    )


class CertificateAuthority:
    """A throw-away root for the HTTPS of one run; `file` is the PEM that clients must trust."""

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory or Path(tempfile.mkdtemp(prefix="cosell-simulators-"))
        self._ca = trustme.CA(organization_name="Throw-away simulator CA")
        self.file = self._directory / "ca.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def issue(self, *names: str) -> Path:
        """A file with private key and certificate chain for these host names."""
        path = self._directory / f"{names[0]}.pem"
        self._ca.issue_cert(*names).private_key_and_cert_chain_pem.write_to_path(path)
        return path


class _QuietServer(wsgi.Server):
    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        """Clients that hang up are everyday life; an exception in a simulator is not."""
        logging.getLogger(__name__).log(level if level >= logging.ERROR else logging.DEBUG, msg, exc_info=traceback)


class HttpsServer:
    """Serves one WSGI application on the loopback interface over HTTPS until stopped; port 0 takes any free one."""

    def __init__(
        self, app: Callable[..., Iterable[bytes]], port: int = 0, ca: CertificateAuthority | None = None
    ) -> None:
        self.ca = ca or CertificateAuthority()
        self.ca_file = self.ca.file
        pem = str(self.ca.issue("localhost", "127.0.0.1"))
        # Idle connections stay open, as with the real systems: the product keeps them in pools.
        self._server = _QuietServer(("127.0.0.1", port), _closing_dropped(app), numthreads=20, timeout=60)
        self._server.request_queue_size = 128
        self._server.keep_alive_conn_limit = 200
        self._server.nodelay = True  # without TCP_NODELAY each answer takes 40 ms
        self._server.ssl_adapter = BuiltinSSLAdapter(pem, pem)
        self._server.prepare()
        self.port: int = self._server.bind_addr[1]
        self.url = f"https://localhost:{self.port}"
        self._thread = threading.Thread(target=self._server.serve, name=f"https-{self.port}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.stop()
        self._thread.join(timeout=10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _closing_dropped(app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """`app`, with dropped connections in words cheroot knows: on FatalSSLAlert it closes without an answer."""

    def served(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            return app(environ, start_response)
        except ConnectionDropped as exc:
            raise FatalSSLAlert("dropped on request") from exc

    return served


def serve(app: Callable[..., Iterable[bytes]], port: int = 0, ca: CertificateAuthority | None = None) -> HttpsServer:
    return HttpsServer(app, port, ca)

"""Owns how one outside system is called: token, short retries, pauses, errors. Never knows what is said or why.

Waits of seconds happen here; anything longer is an error that carries `retry_after_s`, and the caller puts its work
back. A create is sent once, because only the caller can look whether it happened.
"""

from __future__ import annotations

import json
import logging
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote, urlencode, urlsplit
from uuid import uuid4

import requests
from requests.adapters import HTTPAdapter
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_before_delay,
    wait_exponential_jitter,
)
from urllib3.exceptions import NewConnectionError

from shared.errors import OutcomeUnknown, Refused, RemoteError, Retryable, SignInFailed, Throttled, Unavailable
from shared.model import Call, Paused
from shared.remote import calls
from shared.remote.dialect import Dialect, error_of, may_have_executed

if TYPE_CHECKING:
    from shared.remote.auth import TokenSource

log = logging.getLogger(__name__)

ATTEMPTS = 3
TOTAL_S = 10.0
SHORT_PAUSE_S = 3.0
"""A Retry-After up to this is waited for within the call."""
UNNAMED_PAUSE_S = 10.0
"""How long a remote is left alone that throttles without saying for how long."""
LOOK_EVERY = timedelta(seconds=10)
"""How long a process may call a remote without asking what the others have learned of its pauses."""
CONNECTIONS = 32
"""At least the number of worker threads, or threads would open a new connection per call."""

READS = frozenset({"GET", "HEAD"})
PASSING_STATUSES = frozenset({None, 408, 502, 503, 504})
_backoff = wait_exponential_jitter(multiplier=0.25, max=2.0, jitter=0.25)


def utc_now() -> datetime:
    return datetime.now(UTC)


def json_text(value: Any) -> str:
    """Return `value` as JSON with each Decimal as an exact number, which the standard encoder cannot write."""
    match value:
        case Decimal():
            if not value.is_finite():
                raise ValueError(f"{value} has no form in JSON")
            return format(value, "f")
        case Mapping():
            return "{" + ",".join(f"{json.dumps(str(key))}:{json_text(item)}" for key, item in value.items()) + "}"
        case list() | tuple():
            return "[" + ",".join(map(json_text, value)) + "]"
        case _:
            return json.dumps(value, allow_nan=False)


def json_of(response: requests.Response) -> Any:
    """Return the body's JSON with exact numbers. Raises ValueError when it is none."""
    return json.loads(response.content, parse_float=Decimal, parse_constant=_no_number)


def _no_number(name: str) -> Any:
    """JSON has no NaN and no Infinity (RFC 8259); Python's reader would take them, and NaN differs from itself."""
    raise ValueError(f"{name} is not JSON")


def pooled_session() -> requests.Session:
    """Return a session for many threads that never retries by itself: `Remote` is the one layer that does."""
    session = requests.Session()
    session.mount("https://", HTTPAdapter(pool_connections=4, pool_maxsize=CONNECTIONS, max_retries=0))
    return session


@dataclass(frozen=True)
class Pause:
    """How long a remote is left alone, and why in words."""

    seconds: float
    why: str


class Pauses(Protocol):
    """Where processes tell each other of pauses. Raises nothing: a pause that cannot be shared stops no call."""

    def of(self, remote: str) -> Paused | None:
        """Return the pause that this remote is in, None if it may be called."""
        ...

    def begin(self, remote: str, paused: Paused) -> None:
        """Share a pause. Of two the longer one counts."""
        ...


# Without a repr: query and body hold personal data.
@dataclass(frozen=True, repr=False)
class _Call:
    method: str
    url: str
    path: str
    headers: Mapping[str, str]
    body: bytes | None
    create: bool
    id: str

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class Remote:
    """One outside system, safe to share between threads.

    `name` is how errors and logs call it. Without a `token_source` calls go out unsigned. `pause_after` looks at each
    answer and may ask that the remote be left alone. `pauses` None: other processes are told of no pause.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        token_source: TokenSource | None,
        *,
        dialect: Dialect | None = None,
        session: requests.Session | None = None,
        clock: Callable[[], datetime] = utc_now,
        sleep: Callable[[float], None] = time.sleep,
        timeout_s: tuple[float, float] = (5, 30),
        pause_after: Callable[[requests.Response], Pause | None] = lambda _: None,
        pauses: Pauses | None = None,
    ) -> None:
        self.name = name
        self.base_url = base_url.rstrip("/")
        self._token_source = token_source
        self._dialect = dialect or Dialect()
        self._session = session or pooled_session()
        self._clock = clock
        self._sleep = sleep
        self._timeout_s = timeout_s
        self._pause_after = pause_after
        self._pauses = pauses
        self._paused: Paused | None = None
        self._looking = Lock()
        self._look_again = datetime.min.replace(tzinfo=UTC)

    def request(
        self,
        method: str,
        path_or_url: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        data: Mapping[str, str] | bytes | None = None,
        headers: Mapping[str, str] | None = None,
        create: bool = False,
    ) -> requests.Response:
        """Return the answer if it is a 2xx; a body in it is JSON. Raises the errors of shared.errors otherwise.

        `path_or_url`: relative to the base address, or an absolute address on the same host, sent as it is.
        `data`: a form, or bytes with their own Content-Type. `create`: repeating would make a second one.
        """
        url = self._address(path_or_url, params)
        self._respect_pause()
        body, content_type = _body(json, data)
        request_id = str(uuid4())
        sent = {"Accept": "application/json", self._dialect.request_id_header: request_id, **self._dialect.headers}
        call = _Call(
            method,
            url,
            urlsplit(url).path,
            {**sent, **content_type, **(headers or {})},
            body,
            create,
            request_id,
        )
        retrying = Retrying(
            stop=stop_after_attempt(1 if create else ATTEMPTS) | stop_before_delay(TOTAL_S),
            wait=_wait_s,
            retry=retry_if_exception(lambda error: _passes_soon(error, method, self._dialect.passing)),
            sleep=self._sleep,
            reraise=True,
        )
        try:
            return retrying(self._noted, call)
        except Throttled as throttled:
            seconds = UNNAMED_PAUSE_S if throttled.retry_after_s is None else throttled.retry_after_s
            self._pause(Pause(seconds, f"it asked for a pause ({throttled})"))
            raise

    def json(self, method: str, path_or_url: str, *, create: bool = False, **options: Any) -> Any:
        """Like `request`, for calls whose answer must have a body: return its JSON, numbers exact."""
        response = self.request(method, path_or_url, create=create, **options)
        if not response.content:
            error = OutcomeUnknown if create else Unavailable
            call = f"{method} {urlsplit(str(response.url)).path}"
            raise error(f"{self.name} answered {call} without a body", remote=self.name, status=response.status_code)
        return json_of(response)

    def _address(self, path_or_url: str, params: Mapping[str, Any] | None) -> str:
        absolute = path_or_url.startswith(("https://", "http://"))
        url = path_or_url if absolute else f"{self.base_url}/{path_or_url.lstrip('/')}"
        ours, asked = urlsplit(self.base_url), urlsplit(url)
        if (asked.scheme, asked.netloc) != (ours.scheme, ours.netloc):
            raise Refused(
                f"{self.name}: no call goes to {asked.scheme}://{asked.netloc}, the token is for {ours.netloc} only",
                next_step=f"check the address of {self.name} in the settings",
                remote=self.name,
            )
        return url + ("&" if asked.query else "?") + urlencode(params, quote_via=quote) if params else url

    def _respect_pause(self) -> None:
        paused = self._standing_pause() or self._pause_of_others()
        if paused:
            left_s = (paused.until_utc - self._clock()).total_seconds()
            message = f"{self.name} is not called for another {left_s:.0f} s: {paused.why}"
            raise Throttled(message, retry_after_s=left_s, remote=self.name)

    def _standing_pause(self) -> Paused | None:
        return self._paused if self._paused and self._paused.until_utc > self._clock() else None

    def _pause_of_others(self) -> Paused | None:
        """Ask whether another process was told to pause. Of many threads one asks, and the others wait for it."""
        if self._pauses is None:
            return None
        with self._looking:
            if self._clock() >= self._look_again:
                self._look_again = self._clock() + LOOK_EVERY
                self._paused = self._pauses.of(self.name) or self._paused
        return self._standing_pause()

    def _pause(self, pause: Pause) -> None:
        paused = Paused(self._clock() + timedelta(seconds=pause.seconds), pause.why)
        if self._paused and paused.until_utc <= self._paused.until_utc:
            return
        self._paused = paused
        if self._pauses and pause.seconds > SHORT_PAUSE_S:
            self._pauses.begin(self.name, paused)

    def _noted(self, call: _Call) -> requests.Response:
        """Make an attempt, and note it if it writes something of the remote's."""
        try:
            response = self._attempt(call)
        except RemoteError as error:
            if error.remote == self.name:  # and not the sign-in's
                self._note(call, error.status, error.remote_request_id)
            raise
        self._note(call, response.status_code, response.headers.get(self._dialect.answer_id_header, ""))
        return response

    def _note(self, call: _Call, status: int | None, remote_request_id: str) -> None:
        if call.method not in READS and self._token_source:
            calls.note(Call(call.method, call.path, status, call.id, remote_request_id))

    def _attempt(self, call: _Call) -> requests.Response:
        response = self._send(call)
        if response.status_code == 401 and self._token_source:
            response = self._send(call, refused=_token_of(response))
        if pause := self._pause_after(response):
            self._pause(pause)
        if not 200 <= response.status_code < 300:
            raise self._failure(call, response)
        if response.content:
            self._insist_on_json(call, response)
        failed = self._dialect.failure_within(response)
        if failed is not None:
            raise self._failure(call, failed)
        return response

    def _send(self, call: _Call, *, refused: str = "") -> requests.Response:
        token = self._token_source.token(refused=refused) if self._token_source else None
        started = time.perf_counter()
        status: int | None = None
        try:
            response = self._session.request(
                call.method,
                call.url,
                data=call.body,
                headers=dict(call.headers),
                auth=_Bearer(token),
                timeout=self._timeout_s,
                allow_redirects=False,
            )
            status = response.status_code
        except (
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
            requests.exceptions.ContentDecodingError,
        ) as failed:
            # Without the chain: its messages quote the query, and a query can hold names of people.
            raise self._silence(call, failed) from None
        finally:
            ms = round((time.perf_counter() - started) * 1000)
            fields = {"remote": self.name, "method": call.method, "path": call.path, "status": status, "ms": ms}
            log.debug("remote.called", extra={**fields, "request_id": call.id})
        return response

    def _silence(self, call: _Call, failed: requests.RequestException) -> Retryable:
        """No answer came. A create may have happened, unless it never left this machine."""
        error = OutcomeUnknown if call.create and not _never_sent(failed) else Unavailable
        return error(f"{self.name} gave no answer to {call}: {_cause(failed)}", remote=self.name, request_id=call.id)

    def _failure(self, call: _Call, response: requests.Response) -> RemoteError:
        error = error_of(self.name, str(call), response, self._dialect, call.id, self._clock())
        if isinstance(error, SignInFailed) and error.retry_after_s is None:
            error.retry_after_s = 300.0
        if call.create and isinstance(error, Unavailable) and may_have_executed(response.status_code):
            return self._unknown(call, response, str(error))
        return error

    def _insist_on_json(self, call: _Call, response: requests.Response) -> None:
        try:
            json_of(response)
        except ValueError:
            words = f"{self.name} answered {call} with something that is not JSON"
            if call.create:
                raise self._unknown(call, response, words) from None
            raise Unavailable(words, remote=self.name, status=response.status_code, request_id=call.id) from None

    def _unknown(self, call: _Call, response: requests.Response, words: str) -> OutcomeUnknown:
        return OutcomeUnknown(words, remote=self.name, status=response.status_code, request_id=call.id)


class _Bearer(requests.auth.AuthBase):
    """Signs a request. Being there even without a token, it keeps requests from adding credentials out of a .netrc."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _token_of(response: requests.Response) -> str:
    """Return the token that a call was signed with."""
    return str(response.request.headers.get("Authorization", "")).removeprefix("Bearer ")


def _body(json: Any, data: Mapping[str, str] | bytes | None) -> tuple[bytes | None, dict[str, str]]:
    if json is not None:
        return json_text(json).encode(), {"Content-Type": "application/json"}
    if isinstance(data, Mapping):
        return urlencode(data).encode(), {"Content-Type": "application/x-www-form-urlencoded"}
    return data, {}


def _passes_soon(error: BaseException, method: str, passing: frozenset[str]) -> bool:
    if isinstance(error, Throttled):
        return error.retry_after_s is not None and error.retry_after_s <= SHORT_PAUSE_S
    if isinstance(error, Unavailable):
        passes = error.status in PASSING_STATUSES or error.code.lower() in passing
        return passes or (error.status == 500 and method in READS)
    return False


def _wait_s(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return error.retry_after_s or 0.0 if isinstance(error, Throttled) else _backoff(state)


def _never_sent(failed: requests.RequestException) -> bool:
    """Whether the request cannot have reached the remote: no address, no connection, or no trust in its certificate."""
    reason = _reason(failed)
    distrusted = any(isinstance(part, ssl.SSLCertVerificationError) for part in (reason, *reason.args))
    return isinstance(failed, requests.ConnectTimeout) or isinstance(reason, NewConnectionError) or distrusted


def _reason(failed: requests.RequestException) -> BaseException:
    wrapped = failed.args[0] if failed.args else failed
    reason = getattr(wrapped, "reason", wrapped)
    return reason if isinstance(reason, BaseException) else failed


def _cause(failed: requests.RequestException) -> str:
    return f"{type(failed).__name__}: {_reason(failed)}"

"""Owns what an HTTP answer means: status, error body and Retry-After become one error of shared.errors. Never sends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import requests

from shared.errors import (
    Forbidden,
    NotFound,
    Permanent,
    Refused,
    RemoteError,
    Retryable,
    SignInFailed,
    Throttled,
    Unavailable,
    VersionConflict,
)

LONGEST_PAUSE_S = 3600.0
"""A remote that asks for more than an hour is asked again after one."""


@dataclass(frozen=True)
class Complaint:
    """What a remote's error body says. What it does not say is ""; shared.errors.RemoteError tells what each means."""

    code: str = ""
    message: str = ""
    field: str = ""
    existing: str = ""
    part: str = ""


@dataclass(frozen=True)
class Meaning:
    """The error to raise and, where a person must act, what to do. `pause_s`: to wait, if the answer does not say."""

    error: type[RemoteError]
    next_step: str = ""
    pause_s: float | None = None


def _text(body: Mapping[str, Any], *names: str) -> str:
    """Return the first of these members that holds a scalar; systems differ even in the case of names."""
    by_name = {name.lower(): value for name, value in body.items()}
    return next((str(by_name[n]) for n in names if isinstance(by_name.get(n), str | int) and by_name[n] != ""), "")


def any_error(body: Any) -> Complaint:
    """Read the shapes most APIs share: the members, or one object `error` around them; the innermost error wins."""
    if not isinstance(body, Mapping):
        return Complaint()
    inner = next((v for k, v in body.items() if k.lower() in ("error", "innererror") and isinstance(v, Mapping)), None)
    deeper = any_error(inner) if inner is not None else Complaint()
    return Complaint(
        code=deeper.code or _text(body, "code", "errorcode", "error", "statuscode"),
        message=deeper.message or _text(body, "message", "description", "error_description"),
        field=deeper.field or _text(body, "target"),
    )


@dataclass(frozen=True)
class Dialect:
    """How one system words things. `codes` (lower case) goes before `statuses`, and both before the common table.

    A code that means different things by HTTP status has a row for that status too: `code:404`.

    `passing`: codes after which the same call, sent again in a moment, may succeed; nothing was executed.
    `answer_id_header`: the header of an answer that has the remote's own id of the call.
    `failure_within` finds the failure that a 2xx answer carries, where a system sends several calls in one.
    """

    read_error: Callable[[Any], Complaint] = any_error
    codes: Mapping[str, Meaning] = field(default_factory=dict)
    statuses: Mapping[int, Meaning] = field(default_factory=dict)
    passing: frozenset[str] = frozenset()
    failure_within: Callable[[requests.Response], requests.Response | None] = lambda _: None
    request_id_header: str = "x-ms-client-request-id"
    answer_id_header: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


STATUSES: Mapping[int, Meaning] = {
    401: Meaning(SignInFailed, "check the app registration and its credentials in the settings"),
    403: Meaning(Forbidden, "give the signed-in identity the right, then replay"),
    404: Meaning(NotFound),
    408: Meaning(Unavailable),
    410: Meaning(NotFound),
    412: Meaning(VersionConflict),
    423: Meaning(Unavailable),
    429: Meaning(Throttled),
}


def _common_meaning(response: requests.Response) -> Meaning:
    status = response.status_code
    if status == 503 and "Retry-After" in response.headers:
        return Meaning(Throttled)
    if status in STATUSES:
        return STATUSES[status]
    if 400 <= status < 500:
        return Meaning(Refused, "correct what is named, then replay")
    # A redirect would carry the token elsewhere; it means that the address in the settings is not the API's.
    return Meaning(Unavailable)


def may_have_executed(status: int) -> bool:
    """Whether an error status leaves open what happened."""
    return status == 408 or status >= 500


def retry_after_s(response: requests.Response, now: datetime) -> float | None:
    """Return the pause asked for, in seconds: a number or an HTTP date, at most an hour; None when there is none.

    https://www.rfc-editor.org/rfc/rfc9110#field.retry-after
    """
    asked = response.headers.get("Retry-After", "").strip()
    if asked.isdecimal():
        return min(float(asked), LONGEST_PAUSE_S)
    try:
        until = parsedate_to_datetime(asked)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return min(max((until - now).total_seconds(), 0.0), LONGEST_PAUSE_S)


def _complaint(response: requests.Response, dialect: Dialect) -> Complaint:
    try:
        return dialect.read_error(response.json())
    except requests.JSONDecodeError:
        # Gateways in front of the API answer with HTML or nothing.
        return Complaint()


def error_of(
    remote: str, call: str, response: requests.Response, dialect: Dialect, id_: str, now: datetime
) -> RemoteError:
    """Return the error that this answer to `call` (method and path) stands for."""
    status = response.status_code
    said = _complaint(response, dialect)
    code = said.code.lower()
    by_code = dialect.codes.get(f"{code}:{status}") or dialect.codes.get(code)
    meaning = by_code or dialect.statuses.get(status) or _common_meaning(response)
    words = said.message or (
        "it redirects: check the address in the settings" if 300 < status < 400 else response.reason
    )
    message = f"{remote} answered {status} to {call}: {words}"
    details: dict[str, Any] = {
        "remote": remote,
        "status": status,
        "code": said.code,
        "request_id": id_,
        "remote_request_id": response.headers.get(dialect.answer_id_header, ""),
        "field": said.field,
        "existing": said.existing,
        "part": said.part,
    }
    if issubclass(meaning.error, Permanent):
        return meaning.error(message, next_step=meaning.next_step, **details)
    if issubclass(meaning.error, Retryable):
        message = f"{message}. Next step: {meaning.next_step}" if meaning.next_step else message
        asked_s = retry_after_s(response, now)
        return meaning.error(message, retry_after_s=meaning.pause_s if asked_s is None else asked_s, **details)
    return meaning.error(message, **details)

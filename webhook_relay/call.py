"""Makes one call to a listener: the body byte for byte, the headers as in the message. Says in words how it went.

Bounded in time, follows no redirect, reads nothing of the answer but its status. Every call has a connection of its
own, so that none fails because a listener had closed an idle one.
"""

from __future__ import annotations

from http import HTTPStatus

import requests

from shared.relay import RelayRequest

CONNECT_S = 2
READ_S = 8
OURS = {"accept-encoding": "identity", "connection": "close", "user-agent": "cosell-relay"}
"""What `requests` would otherwise make up; the sender's own count more."""

# The texts of these errors have the address in them, and with it the listener's key.
WHY: tuple[tuple[type[Exception], str], ...] = (
    (requests.exceptions.SSLError, "its certificate is not trusted, or it does not speak TLS"),
    (requests.exceptions.ConnectTimeout, f"it cannot be reached within {CONNECT_S} s"),
    (requests.exceptions.ReadTimeout, f"it did not answer within {READ_S} s"),
    (requests.exceptions.ConnectionError, "it cannot be reached"),
    (requests.exceptions.RequestException, "it cannot be called"),
)


def call(session: requests.Session, url: str, request: RelayRequest) -> str:
    """Return why the listener did not take it, in words without the address, or "" if it did."""
    # As bytes: a header may have other letters than those `requests` can encode by itself.
    headers = {name: value.encode() for name, value in (OURS | request.headers).items()}
    try:
        with session.post(
            url, request.raw_body, headers=headers, timeout=(CONNECT_S, READ_S), allow_redirects=False, stream=True
        ) as answer:
            return _problem(answer.status_code)
    except requests.RequestException as exc:
        words = next(words for kind, words in WHY if isinstance(exc, kind))
        return f"{words}{_cause(exc)}"


def _problem(status: int) -> str:
    if HTTPStatus(200) <= status < HTTPStatus(300):
        return ""
    if HTTPStatus(300) <= status < HTTPStatus(400):
        return f"it redirects ({status}), which is not followed"
    return f"it answered {status}"


def _cause(exc: BaseException) -> str:
    """What the operating system said, such as "Connection refused": the innermost error, if it is one of those."""
    innermost = exc
    while inner := innermost.__cause__ or innermost.__context__:
        innermost = inner
    said = innermost.strerror if isinstance(innermost, OSError) else None
    return f" ({said})" if said else ""

"""Makes one call to a listener: the body byte for byte, the headers as in the message. Says in words how it went.

Gives up when nothing comes for a while, follows no redirect, reads nothing of the answer but its status. Every call has
a connection of its own, so that none fails because a listener had closed an idle one.
"""

from __future__ import annotations

from dataclasses import dataclass

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


ABOUT_THE_CALL = (400, 413, 422, 431)
"""The listener is well, but will never take this call."""


@dataclass(frozen=True)
class Trouble:
    """Why a listener did not take a call, in words without the address. `is_final`: it will never take this one."""

    why: str
    is_final: bool = False


def call(session: requests.Session, url: str, request: RelayRequest) -> Trouble | None:
    """Return why the listener did not take it, None if it did."""
    # As bytes: a header may have other letters than those `requests` can encode by itself.
    headers = {name: value.encode() for name, value in (OURS | request.headers).items()}
    try:
        with session.post(
            url, request.raw_body, headers=headers, timeout=(CONNECT_S, READ_S), allow_redirects=False, stream=True
        ) as answer:
            return _problem(answer.status_code)
    except requests.RequestException as exc:
        words = next(words for kind, words in WHY if isinstance(exc, kind))
        return Trouble(f"{words}{_cause(exc)}")


def _problem(status: int) -> Trouble | None:
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        return Trouble(f"it redirects ({status}), which is not followed")
    return Trouble(f"it answered {status}", is_final=status in ABOUT_THE_CALL)


def _cause(exc: BaseException) -> str:
    """What the operating system said, such as "Connection refused": the innermost error, if it is one of those."""
    innermost = exc
    while inner := innermost.__cause__ or innermost.__context__:
        innermost = inner
    said = innermost.strerror if isinstance(innermost, OSError) else None
    return f" ({said})" if said else ""

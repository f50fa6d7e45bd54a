"""Fetches one small file from an address that the caller has checked. Bounded in time and size, follows no redirect."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from http import HTTPStatus

import requests
import urllib3

from shared.remote.direct import direct_session
from webhook_receiver.callback import RejectedCallback

TIMEOUT_S = (2, 3)
DOWNLOAD_S = timedelta(seconds=5)
DOWNLOAD_LIMIT_BYTES = 64 * 1024
RETRY_AFTER_S = 60


class NotThere(RejectedCallback):
    """The host answered, and has no such file."""


class Downloads:
    """Safe to share between threads."""

    def __init__(self, session: requests.Session | None, now: Callable[[], datetime]) -> None:
        self._session = session or direct_session()
        self._now = now

    def fetch(self, url: str) -> bytes:
        """Return what is at `url`. Raises RejectedCallback: 503 when it may be there later, else 401."""
        deadline = self._now() + DOWNLOAD_S
        body = b""
        try:
            with self._session.get(
                url, stream=True, allow_redirects=False, timeout=TIMEOUT_S, headers={"Accept-Encoding": "identity"}
            ) as answer:
                if answer.is_redirect:
                    raise RejectedCallback(401, f"{url} redirects, which a certificate's address never does")
                if answer.status_code in (HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
                    raise NotThere(503, f"{url} answered {answer.status_code}", retry_after_s=RETRY_AFTER_S)
                if answer.status_code != HTTPStatus.OK:
                    raise try_later(f"{url} answered {answer.status_code}")
                while chunk := answer.raw.read1(DOWNLOAD_LIMIT_BYTES):
                    body += chunk
                    if len(body) > DOWNLOAD_LIMIT_BYTES:
                        raise RejectedCallback(401, f"{url} has more than {DOWNLOAD_LIMIT_BYTES} bytes")
                    if self._now() > deadline:
                        raise try_later(f"{url} took longer than {DOWNLOAD_S.seconds} s")
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as exc:
            raise try_later(f"{url} could not be fetched: {exc}") from exc
        return body


def try_later(reason: str) -> RejectedCallback:
    return RejectedCallback(503, reason, retry_after_s=RETRY_AFTER_S)

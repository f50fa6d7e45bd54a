"""Calls a webhook address from here, without a signature, to find out what keeps Partner Center out."""

from __future__ import annotations

import requests
import urllib3

from shared.addresses import masked
from shared.events import CORRELATION_HEADER

TIMEOUT_S = (5, 10)

IN_FRONT = {
    401: "the function key in the address is wrong: take it from the app's webhook_receiver function, then register "
    "the address again",
    403: "access restrictions or a firewall in front of the app keep callers out",
    404: "no function answers at this address: it must end in /api/webhook_receiver",
    500: "the app did not start: look for errors in its log",
    502: "the app does not answer what is in front of it",
    503: "the app is stopped, or does not start: look for errors in its log",
}


def probe(url: str, session: requests.Session | None = None) -> str:
    """Return in words what is wrong with the address, as seen from here; "" when our receiver answers there."""
    where = masked(url)
    try:
        with (session or requests).post(url, data=b"", timeout=TIMEOUT_S, allow_redirects=False, stream=True) as answer:
            return _answered(answer, where)
    except requests.exceptions.SSLError as failed:
        return f"TLS: the certificate of {where} is not accepted ({_reason(failed)})"
    except requests.Timeout:
        return f"timeout: {where} did not answer within {TIMEOUT_S[1]} s"
    except requests.RequestException as failed:
        reason = _reason(failed)
        if isinstance(reason, urllib3.exceptions.NameResolutionError):
            return f"DNS: the name in {where} is not known"
        return f"no connection to {where}: {type(reason).__name__}"


def _answered(answer: requests.Response, where: str) -> str:
    if CORRELATION_HEADER in answer.headers:
        return ""
    why = IN_FRONT.get(answer.status_code, "something else than this app answers there")
    return f"{where} answers {answer.status_code}: {why}"


def _reason(failed: requests.RequestException) -> object:
    """What is behind it, without the address and the key in it that requests would quote."""
    wrapped = failed.args[0] if failed.args else failed
    reason = getattr(wrapped, "reason", wrapped)
    return reason.args[0] if isinstance(reason, urllib3.exceptions.SSLError) and reason.args else reason

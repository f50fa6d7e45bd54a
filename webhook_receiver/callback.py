"""Decides whether a call to the webhook is genuine, and what it says. Performs no I/O; believes nothing before the
signature over the raw bytes holds, and from then on only the event's name and the referral's id.

The protocol: https://learn.microsoft.com/partner-center/developer/partner-center-webhooks
The events: https://learn.microsoft.com/partner-center/developer/partner-center-webhook-events
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn, Protocol
from urllib.parse import urlsplit

from shared.events import REFERRAL_EVENTS
from shared.settings import WebhookSettings

BODY_LIMIT_BYTES = 64 * 1024  # a real event has 200 to 400 bytes
ALGORITHM = "rsa-sha256"  # the sender's header never chooses the hash: SHA-1 and MD5 would come in that way
RSA_SIGNATURE_BYTES = (256, 384, 512)

# One pattern over the whole address, so that no second parser can read it in another way: no user, query, fragment,
# escape or other path can be written in it, and nothing longer than a host's name is allowed to be.
CERTIFICATE_URL = re.compile(
    r"https://([A-Za-z0-9.-]{1,254})(?::([0-9]{1,5}))?(/cert/[A-Za-z0-9._-]{1,254}\.cer)", re.ASCII
)
REFERRAL_PATH = re.compile(r"/referrals/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/?\Z", re.ASCII | re.IGNORECASE)
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT[0-9:.]{5,20}(Z|[+-]\d\d:\d\d)?", re.ASCII)


class RejectedCallback(Exception):
    """The call is refused with `status`. `reason` is for the log, never for the caller.

    401: not genuine, or not provably so. 400: there is nothing to verify. 413: too large. 503: cannot be told now, the
    sender shall come again after `retry_after_s`.
    """

    def __init__(self, status: int, reason: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(f"{status}: {reason}")
        self.status = status
        self.reason = reason
        self.retry_after_s = retry_after_s


class Certificates(Protocol):
    """Where the signing certificates come from; webhook_receiver.certificates has the real one."""

    def signed(self, url: str, signatures: Sequence[bytes], body: bytes) -> bool:
        """Whether the certificate at `url` made one of `signatures` over `body`.

        Raises RejectedCallback when that certificate is not to be trusted (401) or cannot be had now (503).
        """


@dataclass(frozen=True)
class Notification:
    """What a genuine call says. `version` is the time of the change as sent, all seven fractional digits kept.

    `problem` says in words why nobody can act on it; empty when somebody can, or nobody has to.
    """

    event: str = ""
    referral_id: str | None = None
    version: str | None = None
    problem: str = ""

    @property
    def concerns_a_referral(self) -> bool:
        return self.event.lower() in REFERRAL_EVENTS


Verifier = Callable[[Mapping[str, str], bytes], Notification]
"""`verify`, with certificates and settings filled in."""


def verify(
    headers: Mapping[str, str], body: bytes, certificates: Certificates, settings: WebhookSettings
) -> Notification:
    """Return what a genuine call says. Raises RejectedCallback. Cheap checks come first, network and RSA last."""
    if len(body) > BODY_LIMIT_BYTES:
        raise RejectedCallback(413, f"the body has {len(body)} bytes, at most {BODY_LIMIT_BYTES} are read")
    if not body:
        raise RejectedCallback(400, "the body is empty")
    sent = _sent(headers)
    _check_algorithm(sent)
    signatures = _signatures(sent)
    url = certificate_url(_required(sent, "x-ms-certificate-url"), settings.certificate_hosts)
    if not certificates.signed(url, signatures, body):
        raise RejectedCallback(401, "the signature does not fit the body")
    return read(body)


def certificate_url(value: str, allowed_hosts: Sequence[str]) -> str:
    """Return the address to fetch, in one spelling. Raises RejectedCallback unless it is on an allowed host exactly.

    Anyone can own an account under blob.core.windows.net, so a part of a host's name proves nothing.
    """
    match = CERTIFICATE_URL.fullmatch(value)
    if match is None:
        _refuse("x-ms-certificate-url is not https://<allowed host>/cert/<name>.cer")
    host, port, path = match.groups()
    origin = _origin(host, port or "443")
    if origin not in {_origin(*_split(allowed)) for allowed in allowed_hosts}:
        _refuse(f"x-ms-certificate-url is on {origin}, which WEBHOOK_CERTIFICATE_HOSTS does not name")
    return f"https://{origin.removesuffix(':443')}{path}"


def _split(allowed: str) -> tuple[str, str]:
    host, _, port = allowed.partition(":")
    return host, port or "443"


def _origin(host: str, port: str) -> str:
    return f"{host.lower().removesuffix('.')}:{port}"


def _refuse(reason: str) -> NoReturn:
    raise RejectedCallback(401, reason)


def _sent(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that matter, by lower-case name. Two values for one of them are refused: which one would count?

    The Functions host joins repeated headers with a comma; no genuine value has one.
    """
    sent: dict[str, str] = {}
    for name, value in headers.items():
        key = name.lower()
        if key not in ("authorization", "x-ms-signature", "x-ms-certificate-url", "x-ms-signature-algorithm"):
            continue
        if key in sent or "," in value:
            _refuse(f"header {key} was sent more than once")
        sent[key] = value
    return sent


def _required(sent: Mapping[str, str], name: str) -> str:
    return sent.get(name) or _refuse(f"header {name} is missing")


def _check_algorithm(sent: Mapping[str, str]) -> None:
    if _required(sent, "x-ms-signature-algorithm").lower() != ALGORITHM:
        _refuse(f"x-ms-signature-algorithm is not {ALGORITHM}")


def _signatures(sent: Mapping[str, str]) -> list[bytes]:
    """Well-formed signatures, of either header: which one carries it depends on the registration.

    A gateway in front may put its own `Authorization: Bearer` there; that one is passed over.
    """
    values = [sent[name] for name in ("x-ms-signature", "authorization") if name in sent]
    signatures = [signature for value in values if (signature := _signature(value))]
    return signatures or _refuse("neither x-ms-signature nor Authorization carries a signature in base64")


def _signature(value: str) -> bytes | None:
    scheme, _, rest = value.partition(" ")
    encoded = rest if scheme.lower() == "signature" else value
    try:
        decoded = base64.b64decode(encoded, validate=True)
    except ValueError:
        return None
    strict = base64.b64encode(decoded).decode() == encoded and len(decoded) in RSA_SIGNATURE_BYTES
    return decoded if strict else None


def read(body: bytes) -> Notification:
    """What the signed bytes say. Keys compare without case, unknown ones are ignored, only EventName is required."""
    try:
        fields = json.loads(body.decode("utf-8"), object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as exc:
        return Notification(problem=f"it is not readable as JSON: {exc}")
    event = fields.get("eventname") if isinstance(fields, dict) else None
    if not isinstance(event, str) or not event:
        return Notification(problem="there is no EventName")
    changed = fields.get("resourcechangeutcdate")
    notification = Notification(
        event=event,
        referral_id=_referral_id(fields.get("resourceuri")),
        version=changed if isinstance(changed, str) and TIMESTAMP.fullmatch(changed) else None,
    )
    if notification.concerns_a_referral and not notification.referral_id:
        return replace(notification, problem="its ResourceUri does not end in /referrals/<id>")
    return notification


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = {key.lower(): value for key, value in pairs}
    if len(fields) != len(pairs):
        raise ValueError("a key appears twice")
    return fields


def _referral_id(resource_uri: object) -> str | None:
    """The id at the end of the path, whatever host and layout; nothing else of the address is ever used."""
    if not isinstance(resource_uri, str):
        return None
    try:
        parts = urlsplit(resource_uri)
    except ValueError:
        return None
    match = REFERRAL_PATH.search(parts.path) if parts.scheme in ("http", "https") else None
    return match.group(1).lower() if match else None

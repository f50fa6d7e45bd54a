"""What is passed on of a genuine webhook call to the other listeners: the body as it came, and the sender's headers.

Partner Center knows one address per account. Whoever listened there before us goes on getting what Partner Center
signed, and can verify it as we do. Sends nothing itself: webhook_relay does.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

MARK = "x-cosell-relayed"
"""Says that a call was passed on: two installations that name each other would pass it on for ever."""

# Of the sender's headers only those that mean something to a listener. Anything else a caller made up, or a front end
# added on the way: https://learn.microsoft.com/partner-center/developer/partner-center-webhooks
PASSED_ON = ("content-type", "user-agent")
PREFIXES = ("x-ms-", "ms-")
OF_THE_FRONT_END = ("x-ms-client-principal",)  # App Service authentication


class RelayRequest(BaseModel):
    """Asks to pass a call on. `listener` names one of WEBHOOK_RELAY_URLS by `listener_id`; None: all of them.

    `body` is Base64. `attempts` counts the calls that went wrong.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: Literal[1] = 1
    body: str
    headers: dict[str, str]
    received_utc: datetime
    correlation_id: str
    listener: str | None = None
    attempts: int = 0

    @classmethod
    def of(cls, body: bytes, headers: Mapping[str, str], received_utc: datetime, correlation_id: str) -> RelayRequest:
        return cls(
            body=base64.b64encode(body).decode(),
            headers=passed_on(headers),
            received_utc=received_utc,
            correlation_id=correlation_id,
        )

    @property
    def raw_body(self) -> bytes:
        return base64.b64decode(self.body)

    def encode(self) -> str:
        return self.model_dump_json(exclude_none=True)


def passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the sender's headers that a listener gets, by lower-case name, and our mark."""
    found = {name.lower(): value for name, value in headers.items()}
    kept = {
        name: value
        for name, value in found.items()
        if (name in PASSED_ON or name.startswith(PREFIXES)) and not name.startswith(OF_THE_FRONT_END)
    }
    authorization = found.get("authorization", "")
    # A gateway in front of us may put its own token there, which is nobody else's business.
    if authorization.lower().startswith("signature "):
        kept["authorization"] = authorization
    return kept | {MARK: "1"}


def listener_id(url: str) -> str:
    """Return a name for a listener that tells no secret and can be a table key."""
    return f"{urlsplit(url).hostname or 'unknown'}-{sha256(url.encode()).hexdigest()[:8]}"

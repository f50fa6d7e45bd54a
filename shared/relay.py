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

from pydantic import BaseModel, ConfigDict

from shared.addresses import place
from shared.events import is_senders

MARK = "x-cosell-relayed"
"""Says that a call was passed on: two installations that name each other would pass it on for ever."""


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
    """Return the headers that a listener gets, by lower-case name: the sender's own, and our mark."""
    return {name.lower(): value for name, value in headers.items() if is_senders(name, value)} | {MARK: "1"}


def listener_id(url: str) -> str:
    """Return a name for a listener that tells no secret and can be a table key. It stays when its key is renewed."""
    _, host, _ = there = place(url)
    return f"{host.partition(':')[0]}-{sha256('|'.join(there).encode()).hexdigest()[:8]}"


def sign_of(listener: str) -> str:
    """Return the name of a listener, by its id, in signs and failures."""
    return f"relay_{listener}"

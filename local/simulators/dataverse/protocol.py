"""One call of the Web API: its headers and options read, its answers written. Decides nothing about rows.

https://learn.microsoft.com/power-apps/developer/data-platform/webapi/compose-http-requests-handle-errors
"""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

from werkzeug.datastructures import Headers

from local.simulators.base import Request, Response

if TYPE_CHECKING:
    from local.simulators.dataverse.organization import Principal

PREFERENCE = re.compile(r'\s*([\w.\-]+)(?:\s*=\s*("[^"]*"|[^,]*))?\s*(?:,|$)')
EXACT_NUMBER = re.compile(r'"\\u0001(-?[\d.]+)\\u0001"')


@dataclass(frozen=True)
class Call:
    """A request together with who sent it."""

    request: Request
    principal: Principal
    api: str  # scheme://host/api/data/v9.2

    @property
    def method(self) -> str:
        return self.request.method

    @property
    def address(self) -> str:
        """The URL called, without its options."""
        return self.request.base_url + self.request.path

    @cached_property
    def options(self) -> dict[str, str]:
        return dict(self.request.query.items())

    @cached_property
    def prefer(self) -> dict[str, str]:
        pairs = PREFERENCE.findall(self.request.headers.get("Prefer", ""))
        return {name.lower(): value.strip('" ') for name, value in pairs}

    @property
    def wants_representation(self) -> bool:
        return self.prefer.get("return") == "representation"

    @property
    def annotations(self) -> str:
        return self.prefer.get("odata.include-annotations", "")

    @property
    def page_size(self) -> int | None:
        size = self.prefer.get("odata.maxpagesize", "")
        return int(size) if size.isdigit() and int(size) > 0 else None

    def header(self, name: str) -> str | None:
        """A request header; the literal `null`, which clients send to defeat caches, counts as absent."""
        value = self.request.headers.get(name)
        return None if value in (None, "", "null") else value


def answer(call: Call, status: int, body: Any = None, **headers: str | None) -> Response:
    """An OData answer; `headers` are written with underscores, None leaves one out."""
    all_headers = Headers({"OData-Version": "4.0", "x-ms-service-request-id": str(uuid.uuid4())})
    all_headers["REQ_ID"] = str(uuid.uuid4())
    applied = [
        name + (f'="{value}"' if name == "odata.include-annotations" else f"={value}" if value else "")
        for name, value in call.prefer.items()
        if name in ("return", "odata.include-annotations", "odata.maxpagesize", "odata.track-changes")
    ]
    if applied and status in (200, 201):
        all_headers["Preference-Applied"] = ",".join(applied)
    for name, value in headers.items():
        if value is not None:
            all_headers[name.replace("_", "-")] = value
    if body is None:
        return Response(status, all_headers)
    all_headers["Content-Type"] = "application/json; odata.metadata=minimal"
    return Response(status, all_headers, encode(body))


def encode(body: Any) -> bytes:
    """JSON with exact numbers: money is shown with four decimals, as the service shows it."""
    text = json.dumps(body, default=_marked, separators=(",", ":"))
    return EXACT_NUMBER.sub(r"\1", text).encode()


def _marked(value: Any) -> str:
    if isinstance(value, Decimal):
        return f"\x01{value:.4f}\x01" if value == round(value, 4) else f"\x01{value:f}\x01"
    raise TypeError(f"{type(value).__name__} has no place in an answer")

"""One call of the REST API: who makes it, in which version, with which headers; and rows as JSON. Decides nothing.

https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/headers.htm
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from local.simulators.base import Request, Response, json_response
from local.simulators.salesforce.errors import JSON, refuse
from local.simulators.salesforce.organization import Organization, Row, Saving
from local.simulators.salesforce.payload import render

if TYPE_CHECKING:
    from local.simulators.salesforce.schema import Field

KNOWN_HEADERS = frozenset(
    {"sforce-auto-assign", "sforce-duplicate-rule-header", "sforce-query-options", "sforce-call-options"}
)


@dataclass(frozen=True)
class Call:
    """A request behind `/services/data/vXX.X/`, or a subrequest of a composite."""

    org: Organization
    request: Request
    user: str
    version: str
    segments: tuple[str, ...]  # of the path behind the version, decoded

    @property
    def method(self) -> str:
        return self.request.method

    @property
    def base(self) -> str:
        return f"/services/data/v{self.version}"

    @property
    def saving(self) -> Saving:
        """Who writes here and how. Raises on a header value Salesforce does not know."""
        options = _options(
            self.request.headers.get("Sforce-Duplicate-Rule-Header", ""),
            {"allowsave", "includerecorddetails", "runascurrentuser"},
            "Sforce-Duplicate-Rule-Header",
        )
        assign = self.request.headers.get("Sforce-Auto-Assign", "TRUE")
        if assign.upper() not in ("TRUE", "FALSE"):
            raise refuse("NotSimulated", what=f"Sforce-Auto-Assign: {assign}")
        return Saving(
            self.user,
            api=True,
            allow_duplicates=options.get("allowsave", "false").lower() == "true",
            auto_assign=assign.upper() == "TRUE",
            version=self.version,
        )

    @property
    def batch_size(self) -> int:
        options = _options(self.request.headers.get("Sforce-Query-Options", ""), {"batchsize"}, "Sforce-Query-Options")
        text = options.get("batchsize", "2000")
        if not text.isdigit() or not 200 <= int(text) <= 2000:
            raise refuse("BadBatchSize", value=text)
        return int(text)

    def json_body(self) -> dict[str, Any]:
        """The body as a JSON object. Raises WrongMediaType, NoBody or Unreadable."""
        content_type = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if self.request.body and content_type != "application/json":
            raise refuse("WrongMediaType", type=content_type or "none")
        if not self.request.body:
            raise refuse("NoBody")
        try:
            body = json.loads(self.request.body)
        except ValueError as exc:
            raise refuse("Unreadable", message=f"Unexpected character: {exc}") from exc
        if not isinstance(body, dict):
            raise refuse("Unreadable", message="An object is expected at [line:1, column:2]")
        return body

    def check_query(self, *known: str) -> None:
        """Refuse a query parameter the simulator would otherwise ignore."""
        for name in self.request.query:
            if name not in known:
                raise refuse("NotSimulated", what=f"the parameter {name} of {self.request.path}")

    def url(self, name: str, row_id: str) -> str:
        return f"{self.base}/sobjects/{name}/{row_id}"

    def attributes(self, row: Row, as_type: str = "") -> dict[str, str]:
        return {"type": as_type or row.object, "url": self.url(row.object, row.id)}

    def row_json(self, row: Row, fields: Iterable[Field]) -> dict[str, Any]:
        return {
            "attributes": self.attributes(row),
            **{known.name: render(self.org.value(row, known)) for known in fields},
        }


def wrong_method(call: Call, *allowed: str) -> Exception:
    return refuse("WrongMethod", method=call.method, allowed=",".join(allowed))


def answer(status: int, body: Any, headers: Mapping[str, str] | None = None) -> Response:
    return json_response(status, body, {**JSON, **(headers or {})})


def check_headers(request: Request) -> None:
    """Refuse what the simulator would otherwise ignore."""
    for name, _ in request.headers:
        if name.lower().startswith("sforce-") and name.lower() not in KNOWN_HEADERS:
            raise refuse("NotSimulated", what=f"the header {name}")


def split(raw_path: str) -> tuple[str, ...]:
    """The decoded segments of a path as sent; a slash inside a value was sent as %2F."""
    return tuple(unquote(part) for part in raw_path.strip("/").split("/") if part)


def names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _options(text: str, known: set[str], header: str) -> dict[str, str]:
    options = {}
    for part in re.split(r"[;,]", text):
        if part.strip():
            name, _, value = part.partition("=")
            if name.strip().lower() not in known:
                raise refuse("BadHeader", name=header, value=part.strip())
            options[name.strip().lower()] = value.strip()
    return options

"""Sends several calls in one request, which Salesforce counts as one. All of them are done, or none.

Never knows what the calls are about. Several records are read by queries sent this way rather than by sObject
Collections, which know ids only and no fields of parents.

https://developer.salesforce.com/docs/platform/api-rest/guide/resources-composite-composite-post.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from shared.remote.http import Remote

MOST_QUERIES = 5
"""Of at most 25 calls in one request at most five may be queries."""


@dataclass(frozen=True)
class Part:
    """One call. `path` is below the API's base; later parts refer to its answer as @{name.member}."""

    name: str
    method: str
    path: str
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def query(name: str, soql: str) -> Part:
    return Part(name, "GET", f"query?q={quote(soql, safe='')}")


def refers(value: Any) -> bool:
    """Whether a text would be taken for a reference to another call's answer; there is no way to write it otherwise."""
    return isinstance(value, str) and "@{" in value


def unreferring(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body with a blank where a text would be taken for a reference."""
    return {name: value.replace("@{", "@ {") if refers(value) else value for name, value in body.items()}


def send(remote: Remote, parts: Sequence[Part], *, create: bool = False) -> dict[str, Any]:
    """Return the body of each answer by its part's name. Raises what the first failing part means; nothing was done.

    `create`: repeating the request would make a second record of something.
    """
    base = urlsplit(remote.base_url).path
    asked = [
        {
            "referenceId": part.name,
            "method": part.method,
            "url": f"{base}/{part.path}",
            **({"httpHeaders": dict(part.headers)} if part.headers else {}),
            **({"body": dict(part.body)} if part.body is not None else {}),
        }
        for part in parts
    ]
    # Without collation the calls are made in this order, also those that do not refer to each other.
    request = {"allOrNone": True, "collateSubrequests": False, "compositeRequest": asked}
    answer = remote.json("POST", "composite", json=request, create=create)
    return {each["referenceId"]: each["body"] for each in answer["compositeResponse"]}

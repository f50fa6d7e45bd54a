"""Tells what a request in a simulated system's log was for, so that what a change takes can be counted.

The product looks around all the time, whether anything has changed or not: that is not what a change takes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Literal
from urllib.parse import unquote_plus

Entry = Mapping[str, Any]
Purpose = Literal["reads", "writes", "looks around", "looks further", "prepares"]
"""`looks around` is the first request of a poll or sweep, `looks further` asks for more pages; to prepare is free."""

WATCHED_TABLES = 2  # opportunities and leads: a poll looks around once in each


def _by_method(entry: Entry) -> Purpose:
    return "reads" if entry["method"] == "GET" else "writes"


def _in_partner_center(entry: Entry) -> Purpose:
    return "looks around" if "$orderby=updatedDateTime" in unquote_plus(entry["query"]) else _by_method(entry)


def _in_dynamics365(entry: Entry) -> Purpose:
    headers = {name.lower(): value for name, value in entry["request_headers"].items()}
    tracks = "deltatoken" in unquote_plus(entry["query"]) or "track-changes" in headers.get("prefer", "")
    return "looks around" if tracks else _by_method(entry)


def _in_salesforce(entry: Entry) -> Purpose:
    path = entry["path"].rstrip("/")
    if path in ("/services/oauth2/token", "/services/data"):  # sign-in, and which versions there are
        return "prepares"
    if path.endswith("/composite"):
        return _of_composite(json.loads(entry["request_body"])["compositeRequest"])
    return "looks further" if "/query/" in path else _by_method(entry)


def _of_composite(parts: list[Entry]) -> Purpose:
    """Several requests to Salesforce in one, which is one API call."""
    if any(part["method"] != "GET" for part in parts):
        return "writes"
    return "looks around" if any("/updated" in part["url"] for part in parts) else "reads"


PURPOSE_IN: Mapping[str, Callable[[Entry], Purpose]] = {
    "partner_center": _in_partner_center,
    "dynamics365": _in_dynamics365,
    "salesforce": _in_salesforce,
}

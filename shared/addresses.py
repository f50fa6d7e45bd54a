"""Webhook addresses: whose one is, what is wrong with one, and how it is shown. Calls none of them."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_NAMED = re.compile(r"([A-Za-z_.-]{1,20})=(?!=*$)")
LOOPBACK = ("localhost", "127.0.0.1", "::1")
ACCEPTED = "accepted: https://<app>.azurewebsites.net/api/webhook_receiver?code=<key>"


def place(url: str) -> tuple[str, str, str]:
    """Return scheme, host and path, which Azure compares without case; not the query, which holds the key."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "", url, ""
    default_port = ":443" if parts.scheme == "https" else ":80"
    return parts.scheme, parts.netloc.lower().removesuffix(default_port), parts.path.rstrip("/").lower()


def masked(url: str) -> str:
    """Return the address without its secrets: the values of the query, where keys and signatures are, and any user."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "(not an address)"
    query = "&".join(f"{name[1]}=***" if (name := _NAMED.match(part)) else "***" for part in parts.query.split("&"))
    query = query if parts.query else ""
    return f"{parts.scheme}://{host}{parts.path}" + (f"?{query}" if query else "")


def problem(url: str) -> str:
    """Return what is wrong with a webhook address, or nothing."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # the port is read for its ValueError
    except ValueError as exc:
        return f"is not an address ({exc}); {ACCEPTED}"
    if any(character.isspace() for character in url) or not host or parts.username or parts.fragment:
        return f"is not a plain address; {ACCEPTED}"
    # Simulators run on this machine, where no certificate is needed to keep a key from being read on the way.
    if parts.scheme != "https" and not (parts.scheme == "http" and host in LOOPBACK):
        return f"must begin with https://; {ACCEPTED}"
    return ""

"""Genuine webhook calls kept as they came, in table CosellIndex: for the first contact with the live service, and those
nobody could read. Never says what one means.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from shared.store.audit import newest_first
from shared.store.tables import Row, Table, columns, document

PARTITION = "captured"
A_DAY = timedelta(days=1)
PURGE_EVERY = timedelta(hours=1)
HEADERS_CHARACTERS = 16_384
KEYS = ("x-functions-key", "cookie")
_KEY_IN_ADDRESS = re.compile(r"(\bcode=)[^&\s]+", re.IGNORECASE)


@dataclass(frozen=True)
class Capture:
    """One genuine call: its headers as received but for keys, its body as text (a genuine one is UTF-8)."""

    at_utc: datetime
    event: str
    headers: dict[str, str]
    body: str


class Captures:
    def __init__(self, index_table: Table, clock: Callable[[], datetime]) -> None:
        self._table = index_table
        self._clock = clock
        self._purged: datetime | None = None

    def put(self, event: str, headers: Mapping[str, str], body: bytes, *, digest: str, keep: timedelta = A_DAY) -> None:
        """Keep a call for as long as said. `digest` tells two calls of one moment apart."""
        now = self._clock()
        kept = {
            "at": now.isoformat(),
            "until": (now + keep).isoformat(),
            "event": event,
            "headers": _kept(headers),
            "body": body.decode("utf-8", "backslashreplace"),
        }
        self._table.upsert(Row(PARTITION, f"{newest_first(now, 0)}_{digest[:16]}", columns(kept)))
        self._purge(now)

    def list(self) -> tuple[Capture, ...]:
        """Return the calls that are to be kept, newest first."""
        now = self._clock()
        found = (document(row.columns) for row in self._table.query(PARTITION))
        return tuple(
            Capture(datetime.fromisoformat(each["at"]), each.get("event", ""), each["headers"], each["body"])
            for each in found
            if datetime.fromisoformat(each["until"]) > now
        )

    def _purge(self, now: datetime) -> None:
        if self._purged and now - self._purged < PURGE_EVERY:
            return
        self._purged = now
        for row in self._table.query(PARTITION):
            if datetime.fromisoformat(str(document(row.columns)["until"])) <= now:
                self._table.delete(PARTITION, row.key)


def _kept(headers: Mapping[str, str]) -> dict[str, str]:
    """What is kept of the headers. They are not signed: whoever replays a call may add as many as they like."""
    kept: dict[str, str] = {}
    left = HEADERS_CHARACTERS
    for name, value in headers.items():
        size = len(name) + len(value)
        if size <= left:
            left -= size
            kept[name] = _without_keys(name.lower(), value)
    return kept


def _without_keys(name: str, value: str) -> str:
    """The front end repeats the address, and with it our function key, in headers of its own; a gateway may sign in."""
    is_signature = value.lower().startswith("signature ")
    if name in KEYS or value.lower().startswith("bearer ") or (name == "authorization" and not is_signature):
        return "***"
    return _KEY_IN_ADDRESS.sub(r"\1***", value)

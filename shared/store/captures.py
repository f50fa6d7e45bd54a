"""Genuine webhook calls kept as they came, in table CosellIndex: for the first contact with the live service, and those
nobody could read. Never says what one means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from shared.events import is_senders
from shared.store.audit import newest_first
from shared.store.tables import Row, Table, columns, document

PARTITION = "captured"
A_DAY = timedelta(days=1)
HEADERS_CHARACTERS = 16_384


@dataclass(frozen=True)
class Capture:
    """One genuine call: its headers, those that are not the sender's without their value, and its body as text."""

    at_utc: datetime
    event: str
    headers: dict[str, str]
    body: str


class Captures:
    def __init__(self, index_table: Table, clock: Callable[[], datetime]) -> None:
        self._table = index_table
        self._clock = clock

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

    def list(self) -> tuple[Capture, ...]:
        """Return the calls that are to be kept, newest first."""
        now = self._clock()
        found = (document(row.columns) for row in self._table.query(PARTITION))
        return tuple(
            Capture(datetime.fromisoformat(each["at"]), each.get("event", ""), each["headers"], each["body"])
            for each in found
            if datetime.fromisoformat(each["until"]) > now
        )

    def purge(self) -> None:
        """Delete what is not to be kept any more. A request for each, so not while somebody waits for an answer."""
        now = self._clock()
        for row in self._table.query(PARTITION):
            if datetime.fromisoformat(str(document(row.columns)["until"])) <= now:
                self._table.delete(PARTITION, row.key)


def _kept(headers: Mapping[str, str]) -> dict[str, str]:
    """The names of the headers, but the values of the sender's own only, and not more than a row holds: they are not
    signed, and whoever replays a call may add as many as they like."""
    kept: dict[str, str] = {}
    left = HEADERS_CHARACTERS
    for name, value in headers.items():
        shown = value if is_senders(name, value) else "***"
        left -= len(name) + len(shown)
        if left >= 0:
            kept[name] = shown
    return kept

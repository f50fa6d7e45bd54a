"""Signs of life, in table CosellIndex: when each part of the app last did its work, and when and why it last could not.

For whoever asks how the app is doing, so one that cannot be stored is only logged. The exception are facts that the
registration goes by (`remember`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Lock
from typing import Any, Literal

from shared.errors import CosellError
from shared.logs import log
from shared.store.tables import Row, Table, columns, document

PARTITION = "signs"
BUSY = timedelta(minutes=1)
"""How often one process stores the same outcome of a part at most: signs shall not cost more than the work itself."""

FAILURES_A_MINUTE = 8
"""How many different failures of a part one process stores a minute: who forges calls can make reasons up."""

Kind = Literal["well", "failed"]


@dataclass(frozen=True)
class Outcome:
    """`says`: what was done, or why it failed, in words. `facts`: what else the reader of this sign needs."""

    at_utc: datetime
    says: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sign:
    """What is known of one part: its last success and its last failure, None if there never was one."""

    well: Outcome | None = None
    failed: Outcome | None = None

    @property
    def fails(self) -> bool:
        """Whether the failure is the newer of the two."""
        return self.failed is not None and (self.well is None or self.failed.at_utc > self.well.at_utc)


class Signs:
    """Safe to share between threads. Parts are named by one word: poll, sweep, webhook."""

    def __init__(self, index_table: Table, clock: Callable[[], datetime]) -> None:
        self._table = index_table
        self._clock = clock
        self._lock = Lock()
        self._stored: dict[str, list[tuple[datetime, Kind, str]]] = {}
        self._newest: dict[tuple[str, Kind], datetime] = {}

    def well(self, part: str, says: str = "", *, at_utc: datetime | None = None) -> None:
        """Note that the part did its work, at `at_utc` or now."""
        self._note(part, "well", Outcome(at_utc or self._clock(), says))

    def failed(self, part: str, why: str) -> None:
        """Note that the part could not do its work now."""
        self._note(part, "failed", Outcome(self._clock(), why))

    def remember(self, part: str, says: str, **facts: Any) -> None:
        """Note a success whose facts are needed later: stored in any case. Raises the errors of shared.errors."""
        self._store(part, "well", Outcome(self._clock(), says, facts))

    def of(self, part: str) -> Sign:
        """Return what is known of a part. Raises the errors of shared.errors."""
        return self._read(part).get(part, Sign())

    def all(self) -> dict[str, Sign]:
        """Return what is known of every part that ever noted anything. Raises the errors of shared.errors."""
        return self._read("")

    def _note(self, part: str, kind: Kind, outcome: Outcome) -> None:
        if not self._is_news(part, kind, outcome):
            return
        try:
            self._store(part, kind, outcome)
        except CosellError as error:
            log.warning("signs.not_stored", extra={"part": part, "why": str(error)})

    def _store(self, part: str, kind: Kind, outcome: Outcome) -> None:
        stored = columns({"says": outcome.says, "facts": outcome.facts, "at": outcome.at_utc.isoformat()})
        self._table.upsert(Row(PARTITION, f"{part}_{kind}", stored))

    def _is_news(self, part: str, kind: Kind, outcome: Outcome) -> bool:
        """Whether it differs from what was stored last, is no older, and not too many failures were stored lately."""
        now, says = self._clock(), outcome.says
        with self._lock:
            if outcome.at_utc < self._newest.get((part, kind), outcome.at_utc):
                return False  # a message that comes back says when it was sent first
            self._newest[part, kind] = outcome.at_utc
            recent = [each for each in self._stored.get(part, []) if now - each[0] < BUSY]
            is_news = not (recent and recent[-1][1:] == (kind, says))
            if kind == "failed" and sum(each[1] == "failed" for each in recent) >= FAILURES_A_MINUTE:
                is_news = False
            self._stored[part] = [*recent, (now, kind, says)] if is_news else recent
            return is_news

    def _read(self, part: str) -> dict[str, Sign]:
        rows = self._table.query(PARTITION, *((f"{part}_", f"{part}`") if part else ()))
        outcomes: dict[str, dict[str, Outcome]] = {}
        for row in rows:
            name, _, kind = row.key.rpartition("_")
            found = document(row.columns)
            outcomes.setdefault(name, {})[kind] = Outcome(
                datetime.fromisoformat(found["at"]), found.get("says", ""), found.get("facts", {})
            )
        return {name: Sign(**kinds) for name, kinds in outcomes.items()}

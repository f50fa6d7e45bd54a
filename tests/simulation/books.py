"""Holds the audit of a story against what the systems really took: every write, with a beginning and an outcome."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from tests.flows.accounts import OUTCOMES, entries, taken
from tests.simulation.broken import Broken

if TYPE_CHECKING:
    from shared.store.audit import AuditEntry
    from tests.simulation.cloud import Cloud

SPOILT = (
    "a page instead of an answer",
    "an answer cut off",
    "an answer with NaN",
    "an answer in another charset",
    "an answer of 10 MB",
)
"""Of such a write the request log has 200, whether it was taken or not."""


def audit_tells_of_every_write(cloud: Cloud, vanished: Counter[str]) -> None:
    """`vanished`: what nobody can know of, by kind."""
    about_writes = [(deal, entry) for deal, entry in entries(cloud) if entry.side]
    _every_write_has_an_end(cloud, about_writes)
    told = Counter(
        "crm" if entry.side == "crm" else entry.operation
        for _, entry in about_writes
        if entry.phase in ("done", "unknown")
    )
    # Closing a record is two calls, and one write.
    closings = sum(write.values.keys() == {"state"} and write.status < 300 for write in cloud.backstage.record_writes())
    # A system may have carried out more than it answered, so only what it answered is looked for.
    untold = taken(cloud) - told - Counter(crm=closings) - vanished
    if untold.total() > sum(cloud.injected[kind] for kind in SPOILT):
        raise Broken("I7", f"the systems took writes that the audit does not tell of: {dict(untold)}")


def _every_write_has_an_end(cloud: Cloud, about_writes: list[tuple[str, AuditEntry]]) -> None:
    """But for one that the link still knows to be open. Processes' clocks differ: entries are counted, not paired."""
    began = Counter((deal, entry.side) for deal, entry in about_writes if entry.phase == "started")
    ended = Counter((deal, entry.side) for deal, entry in about_writes if entry.phase in OUTCOMES)
    for deal, side in sorted(began | ended):
        link = cloud.services.deals.load(deal)
        is_open = link is not None and link.write is not None and link.write.side == side
        if began[deal, side] - ended[deal, side] != is_open:
            words = f"{began[deal, side]} writes to {side} began and {ended[deal, side]} ended"
            raise Broken("I7", f"{deal}: by the audit {words}")

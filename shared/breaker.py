"""Notices that we write for ever, because something else puts back what we write. Performs no I/O.

A field is stopped when one side would get the same value once more after SAME_VALUE times in a row: had nobody moved it
away in between, there would be nothing to write. Whoever changes a value to and fro on the other side never causes
that, since then our own writes move it. A deal is stopped, as a last resort, when it was written more than MOST_WRITES
times. Both only count what happened within WINDOW, and both last until an operator replays the deal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from shared.model import Side, Stopped, Written

if TYPE_CHECKING:
    from shared.decide import Change, Deal, Plan

WINDOW = timedelta(minutes=10)
SAME_VALUE = 3
MOST_WRITES = 30

WHOLE_DEAL = ""
"""Among what is stopped, by field: everything."""


def written(side: Side, values: Mapping[str, Any], at_utc: datetime) -> Written:
    """Return what is remembered of a write: of the values, by field, only whether two are the same."""
    return Written(side, at_utc, {name: _digest(value) for name, value in values.items()})


def lately(writes: Sequence[Written], now: datetime) -> list[Written]:
    """Return the writes that count, at most as many as it takes to stop the deal."""
    return [each for each in writes if now - each.at_utc < WINDOW][-(MOST_WRITES + 1) :]


def runs_away(writes: Sequence[Written], now: datetime) -> bool:
    """Whether the deal was written too often, whatever was written."""
    return len(lately(writes, now)) > MOST_WRITES


def put_back(deal: Deal, plan: Plan, writes: Sequence[Written], now: datetime) -> dict[str, Stopped]:
    """Return the fields of the plan that would only be put back again, with what both sides hold."""
    recent = lately(writes, now)
    sides: tuple[tuple[Side, Mapping[str, Change]], ...] = (
        ("crm", plan.to_crm),
        ("partner_center", plan.to_partner_center),
    )
    return {
        name: Stopped(side, deal.partner_center[name], deal.crm[name])
        for side, changes in sides
        for name, change in changes.items()
        if _latest(recent, side, name) == [_digest(change.after)] * SAME_VALUE
    }


def _latest(recent: Sequence[Written], side: Side, name: str) -> list[str]:
    return [each.values[name] for each in recent if each.side == side and name in each.values][-SAME_VALUE:]


def _digest(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]

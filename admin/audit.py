"""Prints what happened in a period, over all deals: one line per audit entry, oldest first. Writes nothing."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

from shared.lenses import shortened
from shared.services import Services
from shared.store.audit import AuditEntry, as_json

MESSAGE_LENGTH = 120


def add_to(subparsers: Any) -> None:
    audit = subparsers.add_parser("audit", help="print what happened in a period, one line per step")
    form = "YYYY-MM-DD or YYYY-MM-DDTHH:MM, UTC unless it has an offset"
    audit.add_argument("--since", required=True, type=_since, metavar="TIME", help=form)
    audit.add_argument("--until", type=_until, metavar="TIME", help=f"{form}; a day is included; default: now")
    audit.add_argument("--json", action="store_true", help="everything the audit has, one JSON object per line")
    audit.set_defaults(run=print_audit)


def print_audit(given: argparse.Namespace, services: Services) -> int:
    until = given.until or services.clock() + timedelta(seconds=1)
    if given.since >= until:
        end = "the end that --until names" if given.until else "now"
        raise ValueError(f"--since {given.since:%Y-%m-%d %H:%M} UTC is not before {end}, {until:%Y-%m-%d %H:%M} UTC")
    for deal, entry in services.audit.between(given.since, until):
        print(json.dumps(as_json(deal, entry), ensure_ascii=False) if given.json else line(deal, entry))
    return 0


def line(deal: str, entry: AuditEntry) -> str:
    """Return time, deal, cause, side, what was done or decided, and the fields it was about."""
    phase = f"{entry.phase}, found later" if entry.recovered else entry.phase
    fields = ", ".join(entry.fields or entry.decisions)
    words = shortened(" ".join(entry.message.split()), MESSAGE_LENGTH)
    said = [
        f"{entry.at_utc:%Y-%m-%d %H:%M:%S}",
        deal,
        entry.cause,
        entry.side or "-",
        f"{entry.operation}: {phase}" if entry.operation else phase,
        *([f"[{fields}]"] if fields else []),
        *([words] if words else []),
    ]
    return "  ".join(said)


def _since(text: str) -> datetime:
    return _moment(text, timedelta())


def _until(text: str) -> datetime:
    return _moment(text, timedelta(days=1))


def _moment(text: str, for_a_day: timedelta) -> datetime:
    """Return the time; `for_a_day` is added to a date without one."""
    try:
        if len(text) == len("YYYY-MM-DD"):
            day = date.fromisoformat(text)
            return datetime(day.year, day.month, day.day, tzinfo=UTC) + for_a_day
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time: YYYY-MM-DD or YYYY-MM-DDTHH:MM, for example 2026-11-27"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

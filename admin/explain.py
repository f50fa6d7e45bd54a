"""One deal's whole story, from its audit: how it is now, and what happened to it, oldest first."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from pydantic import TypeAdapter

from admin import changes, deals
from admin.failures import problem_lines
from shared.mapping import TableMap
from shared.model import Link
from shared.services import Services
from shared.store.audit import AuditEntry
from shared.store.failures import Failure

PAGE = 200

STATES = {
    "new": "new: nothing is settled yet",
    "active": "active: kept in agreement",
    "failed": "failed: not all of it is in agreement",
}
GONE = {
    "crm": "over: the record was deleted, and the referral stays as it is",
    "partner_center": "over: the referral is not in Partner Center any more, and the record stays as it is",
}
CAUSES = {
    "webhook": "Partner Center said that it changed",
    "poll": "the CRM said that it changed",
    "sweep": "the sweep found it",
    "operator": "an operator asked",
}

OUTCOMES = {"failed": "failed", "unknown": "nobody can tell whether it was done"}
UNFINISHED = "no outcome was recorded: the run died in it, or is still at it"

_ENTRY = TypeAdapter(AuditEntry)


def show(given: Namespace, services: Services) -> int:
    """`python -m admin explain`. Returns the exit code."""
    (deal,) = deals.known(services, [given.deal])
    link, entries = story(services, deal)
    failure = services.failures.get(deal)
    if given.json:
        print(json.dumps(_document(deal, link, failure), ensure_ascii=False))
        for entry in entries:
            print(json.dumps(_ENTRY.dump_python(entry, mode="json"), ensure_ascii=False))
        return 0
    print("\n".join(_head(deal, link, failure)))
    for paragraph in runs(entries, link, deals.tables(services)):
        print(f"\n{paragraph}")
    return 0


def story(services: Services, deal: str) -> tuple[Link | None, list[AuditEntry]]:
    """Return the deal as it is, and everything that happened to it, oldest first."""
    page = services.deals.story(deal, limit=PAGE)
    link, entries = page.link, [*page.entries]
    while page.more:
        page = services.deals.story(deal, limit=PAGE, after=page.more)
        entries += page.entries
    return link, entries[::-1]


def runs(entries: Iterable[AuditEntry], link: Link | None, tables: Mapping[str, TableMap]) -> Iterator[str]:
    """Yield a paragraph for each run; entries of one run follow each other, and share its correlation id."""
    for _, run in groupby(entries, key=lambda entry: entry.correlation_id):
        yield "\n  ".join(_run(list(run), link, tables))


def _head(deal: str, link: Link | None, failure: Failure | None) -> list[str]:
    lines = [deals.title(deal, link)]
    if link:
        microsofts = link.microsoft_referral_id or "none"
        lines += [f"  {line}" for line in (*deals.ids(deal, link), f"Microsoft's copy: {microsofts}")]
        lines.append(f"  state: {GONE[link.gone] if link.gone else STATES[link.state]}")
        if link.intent:
            lines.append(f"  unfinished: {link.intent.operation} of {link.intent.sent_utc:%Y-%m-%d %H:%M} UTC")
        if link.claim_until_utc:
            lines.append(f"  a run has it until {link.claim_until_utc:%Y-%m-%d %H:%M:%S} UTC at the latest")
    if failure is None:
        return [*lines, "  Nothing waits for a person."]
    waits = [line for problem in failure.problems for line in problem_lines(problem)]
    return [*lines, f"  waits for a person since {failure.since_utc:%Y-%m-%d %H:%M} UTC:", *(f"    {x}" for x in waits)]


def _document(deal: str, link: Link | None, failure: Failure | None) -> dict[str, Any]:
    problems = [vars(problem) for problem in failure.problems] if failure else []
    return {"deal": deal, **deals.facts(deal, link), "state": link.state if link else "", "problems": problems}


def _run(run: Sequence[AuditEntry], link: Link | None, tables: Mapping[str, TableMap]) -> Iterator[str]:
    first = run[0]
    event = f" ({first.event})" if first.event else ""
    yield f"{_second(first)} UTC  {CAUSES[first.cause]}{event}, correlation id {first.correlation_id}"
    notes = dict.fromkeys(note for entry in run for note in entry.notes)
    yield from (f"decided: {note}" for note in notes)
    begun: AuditEntry | None = None
    steps = [entry for entry in run if entry.phase != "looked"]
    for entry in steps:
        # A message that was put back goes on under the same correlation id, later.
        at = f" at {_second(entry)}" if _second(entry) != _second(first) else ""
        if entry.phase == "started":
            if begun:
                yield from _write(begun, UNFINISHED, link, tables)
            begun = entry
            continue
        if entry.phase == "done":
            version = f", version {entry.version_after}" if entry.version_after else ""
            yield from _write(begun or entry, f"done{at}{version}", link, tables)
        else:
            if begun:
                yield from _write(begun, OUTCOMES[entry.phase], link, tables)
            answered = f"answered (request id {entry.request_id})" if entry.request_id else "went wrong"
            yield f"{answered}{at}: {entry.message}"
        begun = None
    if begun:
        yield from _write(begun, UNFINISHED, link, tables)
    if not notes and not steps:
        yield "decided: both sides agree, nothing to write"


def _write(begun: AuditEntry, outcome: str, link: Link | None, tables: Mapping[str, TableMap]) -> Iterator[str]:
    side = begun.side or "crm"
    yield f"{changes.SIDES[side]}: {begun.operation}, {outcome}"
    kind, _, what = begun.operation.partition(" ")
    table = tables.get(what) or (tables.get(link.record.table) if link and link.record else None)
    if kind == "create":
        raw = {place: pair[1] for place, pair in begun.fields.items()}
        lines = changes.created(changes.canonical(raw, side, table), table)
    else:
        lines = changes.updated(begun.fields, table) or ["shows how things are, and which referral it is"]
    yield from (f"  {line}" for line in lines)


def _second(entry: AuditEntry) -> str:
    return f"{entry.at_utc:%Y-%m-%d %H:%M:%S}"

"""Compares everything now, with a progress bar, and prints what the last full sweep found and what became of it."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydantic import TypeAdapter

from reconciler import full_sweep
from reconciler.outcome import Outcome, outcome
from shared.services import Services
from shared.store.sweeps import DETAILED, Report

SHOWN = 20
"""Deals that are not healed, one by one."""
DOING = {"know": "reading the index", "list": "comparing", "check": "looking for what is missing", "look": "reporting"}
HEADINGS = ("listed", "pages", "pairs", "unlinked", "failed", "missing")

_OUTCOME = TypeAdapter(Outcome)


def add_to(subparsers: Any) -> None:
    sweep = subparsers.add_parser("sweep", help="compare every deal on both sides now, and print what differed")
    sweep.add_argument("--report", action="store_true", help="only print what the last full sweep found")
    sweep.add_argument("--json", action="store_true", help="print it as JSON")
    sweep.add_argument(
        "--accept-missing",
        action="store_true",
        help="also look at what is linked and not listed any more when it is much; it is not deleted anywhere",
    )
    sweep.set_defaults(run=run)


def run(given: argparse.Namespace, services: Services) -> int:
    if not given.report and not _sweep(given, services):
        return 1
    latest = services.sweeps.latest()
    if not latest:
        raise ValueError("No full sweep has ended yet. Run one: python -m admin sweep")
    found = outcome(services, latest[0])
    print(json.dumps(as_json(found), indent=2) if given.json else "\n".join(lines(found)))
    return 1 if any(each.braked for each in latest[0].lists.values()) and not given.report else 0


def _sweep(given: argparse.Namespace, services: Services) -> bool:
    """Sweep to the end; returns whether it got there."""
    with _progress() as tell:
        sweep = full_sweep.begin(services, accept_missing=given.accept_missing, budget_s=None, tell=tell)
    if sweep is None:
        print("A full sweep is under way elsewhere. When it has ended: python -m admin sweep --report")
    elif not sweep.done:
        print("A remote asked for a pause. The app goes on with the sweep by itself, or run this again.")
    return sweep is not None and sweep.done


@contextmanager
def _progress() -> Iterator[Callable[[str, Report], None]]:
    from tqdm import tqdm  # type: ignore[import-untyped]  # only people need it

    with tqdm(unit=" rows", disable=None) as bar:

        def tell(what: str, report: Report) -> None:
            step, _, name = what.partition(" ")
            bar.total = max(sum(each.known for each in report.lists.values()), bar.n)
            bar.set_description(f"{DOING[step]}: {name}", refresh=False)
            bar.update(sum(each.listed for each in report.lists.values()) - bar.n)

        yield tell


def as_json(found: Outcome) -> Mapping[str, Any]:
    document: dict[str, Any] = _OUTCOME.dump_python(found, mode="json")
    fates = [{**difference, "fate": became} for difference, became in document["fates"]]
    return {**document["report"], "deals": fates}


def lines(found: Outcome) -> Iterator[str]:
    """Yield the report for people."""
    report = found.report
    yield f"Full sweep of {report.started_utc:%Y-%m-%d %H:%M} UTC, done in {report.worked_s:,.0f} s of work"
    yield f"{'':<16}" + "".join(f"{heading:>10}" for heading in HEADINGS)
    for name, each in report.lists.items():
        numbers = (each.listed, each.requests, each.pairs, each.candidates, each.failed, each.missing)
        yield f"{name:<16}" + "".join(f"{number:>10,}" for number in numbers)
    yield from (f"! {full_sweep.brake_words(name, each)}" for name, each in report.lists.items() if each.braked)
    yield f"{sum(report.differed.values()):,} differed; {report.looks:,} looks were asked for"
    fates = found.by_reason()
    for reason, number in report.differed.items():
        became = ", ".join(f"{count:,} {fate}" for fate, count in fates.get(reason, Counter()).items())
        yield f"  {number:>6,} {reason}: {became}"
    if report.detailed == DETAILED:
        yield f"  What became of them is told of the first {DETAILED:,}."
    open_ones = [(difference, became) for difference, became in found.fates if became != "healed"]
    for difference, became in open_ones[:SHOWN]:
        yield f"  {difference.deal}: {difference.reason}, {became}"
    if len(open_ones) > SHOWN:
        yield f"  and {len(open_ones) - SHOWN:,} more: --json has them all"
    failed = any(each.failed for each in report.lists.values())
    if failed or any(became == "waits for a person" for _, became in open_ones):
        yield "The reasons and the next steps: python -m admin failures"

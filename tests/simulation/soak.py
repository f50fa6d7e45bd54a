"""Tells as many stories as fit into a time, one process per core, and reports what happened in them.

    python -m tests.simulation.soak --seconds 1200                  both CRMs, half the time each
    python -m tests.simulation.soak --crm salesforce --seed 3161    one story, printed; --shorten leaves out what does
                                                                    not matter

A finding is a seed: the same seed tells the same story.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import count

from tests.app import functions
from tests.flows.crms import CRMS
from tests.simulation.story import SKEWS, Told, shortened, steps_of, tell

LENGTH = 50
LOT = 20
"""Stories that a process tells at a time."""
THOROUGH_EVERY = 25
"""Each n-th story is followed by many idle cycles, which must write nothing."""


@dataclass
class Report:
    stories: int = 0
    steps: int = 0
    injected: Counter[str] = field(default_factory=Counter)
    findings: list[tuple[str, int, str]] = field(default_factory=list)
    """The CRM, the seed, and what was broken."""

    def add(self, other: Report) -> None:
        self.stories += other.stories
        self.steps += other.steps
        self.injected += other.injected
        self.findings += other.findings

    def lines(self) -> Iterator[str]:
        yield f"{self.stories:,} stories, {self.steps:,} steps, {self.injected.total():,} faults"
        yield from (f"{times:9,}  {kind}" for kind, times in sorted(self.injected.items(), key=lambda item: -item[1]))
        yield f"{len(self.findings)} findings"
        yield from (f"  {crm} seed {seed}: {words}" for crm, seed, words in self.findings)


def story(crm: str, seed: int, length: int = LENGTH) -> Told:
    """Tell the story of a seed."""
    return tell(
        functions(), crm, steps_of(seed, length), skews=SKEWS[seed % len(SKEWS)], thorough=seed % THOROUGH_EVERY == 0
    )


def lot(crm: str, first: int, stories: int = LOT) -> Report:
    """Tell the stories of seeds that follow each other."""
    report = Report()
    for seed in range(first, first + stories):
        told = story(crm, seed)
        report.stories += 1
        report.steps += len(told.steps)
        report.injected += told.injected
        if told.broken:
            report.findings.append((crm, seed, str(told.broken)))
    gc.collect()
    return report


def soak(crm: str, seconds: float, first: int = 0, *, stop_at_finding: bool = False) -> Report:
    """Tell stories for so long, from seed `first` on."""
    report, ends, seeds = Report(), time.monotonic() + seconds, count(first, LOT)
    cores = os.cpu_count() or 1
    with ProcessPoolExecutor(cores) as pool:
        running: set[Future[Report]] = {pool.submit(lot, crm, next(seeds)) for _ in range(cores)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for each in done:
                report.add(each.result())
            enough = time.monotonic() > ends or (stop_at_finding and report.findings)
            if not enough:
                running |= {pool.submit(lot, crm, next(seeds)) for _ in done}
    return report


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--crm", choices=CRMS, help="default: each for its share of the time")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--stop", action="store_true", help="stop at the first finding")
    parser.add_argument("--seed", type=int, help="tell this story alone, and print it")
    parser.add_argument("--shorten", action="store_true", help="and leave out the steps that do not matter")
    given = parser.parse_args()
    crms = (given.crm,) if given.crm else CRMS
    if given.seed is not None:
        told = [story(crm, given.seed) for crm in crms]
        if given.shorten:
            skews = SKEWS[given.seed % len(SKEWS)]
            told = [
                shortened(functions(), crm, each, skews) for crm, each in zip(crms, told, strict=True) if each.broken
            ]
        print(*told, sep="\n\n")
        return int(any(each.broken for each in told))
    found = False
    for crm in crms:
        report = soak(crm, given.seconds / len(crms), given.first, stop_at_finding=given.stop)
        print(f"{crm}, seeds from {given.first}:", *report.lines(), sep="\n", flush=True)
        found |= bool(report.findings)
    return int(found)


if __name__ == "__main__":
    sys.exit(main())

"""The process dies at every moment of every flow there is, and a second time while the first death is being mended.

    python -m tests.simulation.crash_points --crm dynamics365 --pairs

Single deaths of the flows that tests/flows/test_crashes.py does not play are part of the tests; pairs take minutes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

from tests.app import functions
from tests.flows.crms import CRMS
from tests.flows.fuse import deaths
from tests.simulation import checks
from tests.simulation.broken import Broken
from tests.simulation.chance import drawn_from
from tests.simulation.cloud import running
from tests.simulation.faults import Fault
from tests.simulation.story import Step, Story

DIES = "the process dies before"
RECOVERY = 25
"""Moments after the last of a flow at which the second death may come: by then the first is mended."""

CO_SELL, PARTNER_LED = Step("seller creates", 0), Step("seller creates", 1)
QUIET = Step("a quiet minute", 0)
DEAL, LEAD = Step("Microsoft brings a deal", 0), Step("customer asks", 0)
"""Number 0 makes the first choice of each step, so that all of it is about the only deal."""


@dataclass(frozen=True)
class Flow:
    """What was before, in peace, and what happens then."""

    before: Sequence[Step]
    then: Sequence[Step]


FLOWS: Mapping[str, Flow] = {
    "a seller shares a co-sell deal": Flow([], [CO_SELL]),
    "a seller shares a partner-led deal": Flow([], [PARTNER_LED]),
    "a seller edits": Flow([CO_SELL, QUIET], [Step("seller edits", 0)]),
    "the partner edits": Flow([CO_SELL, QUIET], [Step("partner edits", 0)]),
    "both edit one field": Flow([CO_SELL, QUIET], [Step("both edit", 0)]),
    "both edit different fields": Flow([CO_SELL, QUIET], [Step("both edit", 3)]),
    "a seller asks for help": Flow([PARTNER_LED, QUIET], [Step("seller asks for help", 0)]),
    "Microsoft accepts": Flow([CO_SELL, QUIET], [Step("Microsoft acts", 0)]),
    "a seller wins": Flow([CO_SELL, QUIET], [Step("seller moves", 2)]),
    "a seller deletes": Flow([CO_SELL, QUIET], [Step("seller deletes", 0)]),
    "a seller takes the flag away": Flow(
        [CO_SELL, QUIET], [Step("seller flips the flag", 0), Step("partner edits", 0)]
    ),
    "Microsoft brings a deal": Flow([], [DEAL]),
    "the partner declines a deal": Flow([DEAL, QUIET], [Step("partner acts", 4)]),
    "a customer asks": Flow([], [LEAD]),
    "the partner accepts a lead": Flow([LEAD, QUIET], [Step("partner acts", 0)]),
    "a seller qualifies a lead": Flow([LEAD, QUIET], [Step("seller answers a lead", 0)]),
    "a seller disqualifies a lead": Flow([LEAD, QUIET], [Step("seller answers a lead", 1)]),
}


@dataclass
class Played:
    """`touched`: as in the cloud, during the flow; `broken`: what was found wrong, with the story."""

    touched: Sequence[tuple[str, int]]
    broken: str = ""


def play(crm: str, name: str, deaths: Sequence[int]) -> Played:
    """Play a flow in which the process dies before the moments with these numbers."""
    flow = FLOWS[name]
    with drawn_from(0):
        story = Story(functions(), crm)
        with running(story.cloud):
            try:
                story.begin()
                for step in flow.before:
                    story.take(step)
                begins = story.cloud.moments
                story.cloud.faults = [Fault(DIES, after) for after in deaths]
                for step in (*flow.then, QUIET):
                    story.take(step)
                touched = story.cloud.touched[begins:]
                for _ in range(3):
                    story.take(QUIET)
                story.rest()
                checks.at_rest(story, thorough=False)
            except Broken as broken:
                return Played((), "\n".join([*story.lines, str(broken)]))
    return Played(touched)


def plans(crm: str, name: str, *, pairs: bool) -> Iterator[tuple[int, ...]]:
    """Yield when the process dies: once, in every way there is; `pairs`: and again, at each moment after it."""
    touched = play(crm, name, ()).touched
    for first in deaths(touched):
        yield (first,)
        if pairs:
            yield from ((first, second) for second in range(first + 1, len(touched) + RECOVERY))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.crash_points", description=__doc__)
    parser.add_argument("--crm", choices=CRMS, action="append")
    parser.add_argument("--pairs", action="store_true", help="also two deaths")
    given = parser.parse_args()
    found = 0
    with ProcessPoolExecutor() as pool:
        for crm in given.crm or CRMS:
            for name in FLOWS:
                wanted = list(plans(crm, name, pairs=given.pairs))
                played = list(pool.map(partial(play, crm, name), wanted, chunksize=10))
                broken = [(plan, each.broken) for plan, each in zip(wanted, played, strict=True) if each.broken]
                found += len(broken)
                print(f"{crm:12} {name:36} {len(wanted):6,} plays, {len(broken)} findings", flush=True)
                for plan, words in broken[:1]:
                    print(f"died before moments {plan}:", words, sep="\n")
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())

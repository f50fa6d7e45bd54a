"""`python -m local.demo`: plays the story between real processes, with each CRM in turn, and tells how it went.

Exit code 0: all was as expected.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from local.azurite import AzuriteError
from local.demo.play import STEP_WITHIN_S, Played, Speed, cost_table, play, story_table
from local.demo.story import STORY, Step
from local.desks import DESKS
from local.stage import Stage, StageError, interrupt_on_sigterm

# In Azure the messages of a host that died come back after ten minutes.
QUEUE_LEASE_S = 3
WIDTH_WITHOUT_TERMINAL = 150
INTERRUPTED = 130


def main(arguments: list[str] | None = None, steps: Sequence[Step] = STORY) -> int:
    options = _parser().parse_args(arguments)
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH_WITHOUT_TERMINAL)
    interrupt_on_sigterm()
    directory = Path(tempfile.mkdtemp(prefix="cosell-demo-"))
    try:
        performances = [
            _perform(crm, steps, directory, console, options.deadline) for crm in dict.fromkeys(options.crm or DESKS)
        ]
    except KeyboardInterrupt:
        console.print("Interrupted; everything was stopped.")
        shutil.rmtree(directory)
        return INTERRUPTED
    except (AzuriteError, StageError) as exc:
        console.print(str(exc), style="red", markup=False)
        return 1
    console.print(*map(str, performances), sep="\n")
    if others := [each.label for each in performances if not each.as_expected]:
        console.print(f"Not as expected with {' and '.join(others)}.", style="red")
        return 1
    console.print("All as expected.", style="green")
    shutil.rmtree(directory)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m local.demo", description=__doc__)
    parser.add_argument(
        "--crm", action="append", choices=DESKS, help="play only with this one; may be repeated; default: with each"
    )
    parser.add_argument(
        "--deadline",
        type=float,
        default=STEP_WITHIN_S,
        metavar="SECONDS",
        help=f"how long to wait for what a step expects; default {STEP_WITHIN_S:g}",
    )
    return parser


@dataclass(frozen=True)
class Performance:
    """How the story went with one CRM."""

    label: str
    played: int
    steps: int
    took_s: float
    as_expected: bool

    def __str__(self) -> str:
        return f"{self.label}: {self.played} of {self.steps} steps in {self.took_s:.0f} s."


def _perform(crm: str, steps: Sequence[Step], directory: Path, console: Console, deadline_s: float) -> Performance:
    """Play the story with one CRM, and tell."""
    began = time.monotonic()
    label = DESKS[crm].label
    console.print(f"Starting Azurite, Partner Center, {label} and the host. The story takes about half a minute.")
    with Stage(directory / crm, crm=crm, queue_lease_s=QUEUE_LEASE_S) as stage:
        with console.status("") as status:
            played = play(steps, stage, status.update, deadline_s)
        log_files = stage.log_files
    console.print(story_table(label, played))
    if any(each.step.change for each in played):
        console.print(cost_table(played))
        console.print(str(Speed.of(played)))
    differences = _differences(steps, played)
    if differences:
        console.print("Not as expected:", *differences, style="red", markup=False, sep="\n  ")
        console.print("The logs:", *map(str, log_files), markup=False, sep="\n  ", soft_wrap=True)
    return Performance(label, len(played), len(steps), time.monotonic() - began, as_expected=not differences)


def _differences(steps: Sequence[Step], played: Sequence[Played]) -> list[str]:
    found = [f"{each.step.name}: {difference}" for each in played for difference in each.differences]
    if not found and any(step.change for step in steps):
        speed = Speed.of(played)
        found += [] if speed.is_as_expected else [str(speed)]
    return found


if __name__ == "__main__":
    sys.exit(main())

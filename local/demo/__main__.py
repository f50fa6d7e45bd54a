"""`python -m local.demo`: plays the story between real processes and tells how it went. Exit code 0: as expected."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from local.azurite import AzuriteError
from local.demo.play import STEP_WITHIN_S, Played, Speed, cost_table, play, story_table
from local.demo.story import STORY, Step
from local.stage import Stage, StageError, interrupt_on_sigterm

# In Azure the messages of a host that died come back after ten minutes.
QUEUE_LEASE_S = 3
WIDTH_WITHOUT_TERMINAL = 150
INTERRUPTED = 130


def main(arguments: list[str] | None = None, steps: Sequence[Step] = STORY) -> int:
    parser = argparse.ArgumentParser(prog="python -m local.demo", description=__doc__)
    parser.add_argument(
        "--deadline",
        type=float,
        default=STEP_WITHIN_S,
        metavar="SECONDS",
        help=f"how long to wait for what a step expects; default {STEP_WITHIN_S:g}",
    )
    options = parser.parse_args(arguments)
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH_WITHOUT_TERMINAL)
    interrupt_on_sigterm()
    directory = Path(tempfile.mkdtemp(prefix="cosell-demo-"))
    try:
        as_expected = _run(steps, directory, console, options.deadline)
    except KeyboardInterrupt:
        console.print("Interrupted; everything was stopped.")
        shutil.rmtree(directory)
        return INTERRUPTED
    except (AzuriteError, StageError) as exc:
        console.print(str(exc), style="red", markup=False)
        return 1
    if not as_expected:
        return 1
    shutil.rmtree(directory)
    return 0


def _run(steps: Sequence[Step], directory: Path, console: Console, deadline_s: float) -> bool:
    """Play and tell. Returns whether all was as expected."""
    began = time.monotonic()
    console.print("Starting Azurite, the simulated systems and the host. The story takes about a minute.")
    with Stage(directory, queue_lease_s=QUEUE_LEASE_S) as stage:
        with console.status("") as status:
            played = play(steps, stage, status.update, deadline_s)
        log_files = stage.log_files
    console.print(story_table(played))
    differences = _differences(steps, played)
    if any(each.step.change for each in played):
        console.print(cost_table(played))
        console.print(str(Speed.of(played)))
    console.print(f"{len(played)} of {len(steps)} steps in {time.monotonic() - began:.0f} s.")
    if differences:
        console.print("Not as expected:", *differences, style="red", markup=False, sep="\n  ")
        console.print("The logs:", *map(str, log_files), markup=False, sep="\n  ", soft_wrap=True)
    else:
        console.print("All as expected.", style="green")
    return not differences


def _differences(steps: Sequence[Step], played: Sequence[Played]) -> list[str]:
    found = [f"{each.step.name}: {difference}" for each in played for difference in each.differences]
    if not found and any(step.change for step in steps):
        speed = Speed.of(played)
        found += [] if speed.is_as_expected else [str(speed)]
    return found


if __name__ == "__main__":
    sys.exit(main())

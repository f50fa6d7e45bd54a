"""Plays the story step by step, compares what is seen with what is expected, and shows both in a table."""

from __future__ import annotations

import re
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import requests
from azure.core.exceptions import AzureError
from rich.table import Table

from local.azurite import AzuriteError
from local.demo.story import Expected, Step, Story
from local.demo.world import LOOK_EVERY_S, DemoError, World
from local.stage import Stage, StageError

STEP_WITHIN_S = 15.0
VISIBLE_WITHIN_S = 2.0
LONGEST_VALUE = 48
COUNTED = ("Partner Center reads", "Partner Center writes", "CRM reads", "CRM writes")


@dataclass
class Played:
    """What became of a step. `differences` is empty when all was as expected."""

    step: Step
    seen: str
    took_s: float
    differences: list[str]
    requests: Counter[str] = field(default_factory=Counter)


def play(steps: Sequence[Step], stage: Stage, announce: Callable[[str], None], within_s: float) -> list[Played]:
    """Play until a step is not as expected, since the rest builds on it. `announce` is told what comes next."""
    world = World(stage)
    story = Story(world, stage)
    played: list[Played] = []
    for number, step in enumerate(steps, 1):
        announce(f"{number} of {len(steps)}: {step.name}")
        try:
            played.append(_play_step(step, story, world, within_s))
        except (DemoError, StageError, AzuriteError, AzureError, requests.RequestException) as exc:
            took_s = time.monotonic() - world.acted_at
            played.append(Played(step, "", took_s, [f"{type(exc).__name__}: {exc}"]))
        if played[-1].differences:
            break
    return played


def _play_step(step: Step, story: Story, world: World, within_s: float) -> Played:
    world.forget_requests()
    world.acted_at = time.monotonic()
    expected = step.play(story)
    deadline = time.monotonic() + (0 if expected.at_once else within_s)
    while differences := _differences(expected, seen := expected.see()):
        world.stage.check()
        if time.monotonic() > deadline:
            break
        time.sleep(LOOK_EVERY_S)
    played = Played(step, _shown(seen), time.monotonic() - world.acted_at, differences)
    if not differences and not expected.at_once:
        world.rest()
        played.requests = world.requests()
    return played


def _differences(expected: Expected, seen: Mapping[str, Any]) -> list[str]:
    return [
        f"{name}: expected {_words(wanted)}, seen {seen.get(name)!r}"
        for name, wanted in expected.values.items()
        if not _is_as(wanted, seen.get(name))
    ]


def _is_as(wanted: Any, seen: Any) -> bool:
    if isinstance(wanted, re.Pattern):
        return isinstance(seen, str) and wanted.search(seen) is not None
    return bool(wanted == seen)


def _words(wanted: Any) -> str:
    return f"something with /{wanted.pattern}/" if isinstance(wanted, re.Pattern) else repr(wanted)


def _shown(seen: Mapping[str, Any]) -> str:
    return "\n".join(f"{name}: {_shortened(value)}" for name, value in seen.items())


def _shortened(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"


# ------------------------------------------------------------ what is shown


def story_table(crm: str, played: Sequence[Played]) -> Table:
    """`crm` as people call it."""
    table = Table(title=f"Partner Center and {crm}", show_lines=True, expand=True)
    table.add_column("", width=1)
    for name, share in {"Step": 4, "Expected": 4, "Seen": 6}.items():
        table.add_column(name, ratio=share)
    table.add_column("After", justify="right", no_wrap=True)
    for each in played:
        mark = "[red]✗[/]" if each.differences else "[green]✓[/]"
        table.add_row(mark, each.step.name, each.step.expected, each.seen, f"{each.took_s:.2f} s")
    return table


def cost_table(played: Sequence[Played]) -> Table:
    """The requests that each kind of change took, echoes included; idle polls and sweeps are not among them."""
    table = Table("Change", "Visible after", *COUNTED, title="What a change takes")
    for each in played:
        if each.step.change:
            counts = [str(each.requests[name]) for name in COUNTED]
            table.add_row(each.step.change, f"{each.took_s:.2f} s", *counts)
    return table


@dataclass(frozen=True)
class Speed:
    """How long changes took to be visible on the other side."""

    median_s: float
    worst_s: float

    @classmethod
    def of(cls, played: Sequence[Played]) -> Speed:
        times = [each.took_s for each in played if each.step.change]
        return cls(statistics.median(times), max(times))

    @property
    def is_as_expected(self) -> bool:
        return self.worst_s < VISIBLE_WITHIN_S

    def __str__(self) -> str:
        return (
            f"Visible on the other side after {self.median_s:.2f} s (median), {self.worst_s:.2f} s (worst); "
            f"expected: under {VISIBLE_WITHIN_S:g} s."
        )

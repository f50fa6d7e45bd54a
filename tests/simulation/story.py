"""One story: people act, the product works, things go wrong, step by step; then everything is healed and must agree.

A story is its steps: each has a name and a number that makes its choices. Whoever tells it - a generator, Hypothesis, a
regression test - only gives the steps, so that every story can be told again.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from admin import deals
from local.host.functions import Function
from tests.simulation import checks
from tests.simulation.broken import Broken
from tests.simulation.chance import Pick, drawn_from
from tests.simulation.cloud import Cloud, Instance, running
from tests.simulation.people import Deal, People
from tests.simulation.steps import STEPS

SWEEP_EVERY_S = 300
PAUSE_S = 3_700
"""Longer than any remote is left alone."""
PATIENCE = timedelta(hours=12)
"""What is healed must be in agreement after this (virtual) time."""


class Step(NamedTuple):
    name: str
    number: int


class Story:
    def __init__(self, functions: list[Function], crm: str, skews: Mapping[str, float] | None = None) -> None:
        self.lines: list[str] = []
        self.cloud = Cloud(functions, crm, self.tell, dict(skews or {}))
        self.people = People(self.cloud)
        self.crm = crm
        self.acts = 0
        """How often people did something."""

    def tell(self, line: str) -> None:
        self.lines.append(f"{self.cloud.clock.now():%d %H:%M:%S}  {line}" if hasattr(self, "cloud") else line)

    # ------------------------------------------------------------ steps

    def begin(self) -> None:
        """The app is installed: each feed is read once."""
        self.cloud.run_timer(self.cloud.instances[0], "reconciler")
        self.cloud.run_timer(self.cloud.instances[0], "crm_poller")

    def take(self, step: Step) -> None:
        kind = STEPS[step.name]
        if kind.acts:
            # Salesforce compares times of whole seconds: what people do in the second of our own write, nobody can see.
            self.cloud.advance(1)
        what = kind.do(self, Pick(step.number))
        if what:
            self.tell(what)
            self.acts += kind.acts
        checks.at_every_step(self)

    def deal(self, pick: Pick) -> Deal | None:
        return pick.of(self.people.deals) if self.people.deals else None

    def instance(self, pick: Pick) -> Instance:
        return pick.of(self.cloud.instances)

    # ------------------------------------------------------------ the end

    def rest(self) -> None:
        """Everything is healed, and the product has time."""
        self.tell("everything is healed")
        cloud = self.cloud
        cloud.faults.clear()
        cloud.outage, cloud.no_rights = False, ""
        self.people.long_edits_end()
        cloud.finish_all()
        first = cloud.instances[0]
        ends = cloud.clock.now() + PATIENCE
        self._work_all(first)
        if any("throttled" in kind for kind in cloud.injected):
            cloud.advance(PAUSE_S)  # whoever asked for a pause is called again
            self._work_all(first)
        self._wait_until(ends, first)
        cloud.advance(SWEEP_EVERY_S)
        # What the sweeps write from here on, the poll of another look sees: checks.at_rest.
        cloud.run_timer(first, "crm_poller")
        cloud.run_timer(first, "reconciler")
        self._work_all(first, poll=False)
        self._wait_until(ends, first)
        self._replay(first)
        self._wait_until(ends, first)
        checks.before_the_full_sweep(self)
        cloud.run_timer(first, "nightly_sweep")
        self._work_all(first, poll=False)
        self._wait_until(ends, first)

    def _replay(self, instance: Instance) -> None:
        """An operator has mended what there was to mend, and lets all failures be looked at again."""
        checks.failures_say_what_to_do(self)
        services = self.cloud.services
        for failure in services.failures.list():
            if failure.deal.startswith(deals.BEGINNINGS):
                services.queue.send(deals.request(services, failure.deal))
        self._work_all(instance)

    def _wait_until(self, ends: datetime, instance: Instance) -> None:
        """Let time pass for what was put back for later."""
        while (due := self._next_due()) and due <= ends:
            self.cloud.advance(max(1.0, (due - self.cloud.clock.now()).total_seconds()))
            self._work_all(instance, poll=False)

    def _next_due(self) -> datetime | None:
        waiting = [delivery.due_at for delivery in self.cloud.simulators.webhooks.dispatcher.waiting]
        message = self.cloud.storage.next_visible()
        return min([*waiting, *([message] if message else [])], default=None)

    def _work_all(self, instance: Instance, *, poll: bool = True) -> None:
        """Deliver, poll and work until nothing can be done now. A poll is for what was written since the last one."""
        cloud, polled = self.cloud, -1
        for _ in range(60):
            cloud.deliver(instance)
            if poll and cloud.acted != polled:
                polled = cloud.acted
                cloud.run_timer(instance, "crm_poller")
            worked = 0
            while cloud.run_worker_on(instance):
                worked += 1
                if worked > 500:
                    raise Broken("L3", "the queue is never empty")
            if not worked:
                return
        raise Broken("L3", "there is always more to do")


SKEWS: Sequence[Mapping[str, float]] = (
    {},
    {"partner_center": 600, "dataverse": -600, "salesforce": -600},
    {"partner_center": -600, "dataverse": 300, "salesforce": 300},
)
BEGINNINGS = ("seller creates", "seller creates", "Microsoft brings a deal", "customer asks")
BIGGEST = 10**9


@dataclass
class Told:
    """A story that was told: what happened, in lines, and what was found wrong, if anything was."""

    steps: Sequence[Step]
    lines: list[str]
    injected: Counter[str]
    broken: Broken | None = None

    def __str__(self) -> str:
        return "\n".join(
            [*self.lines, "", str(self.broken or "all is well"), "", "steps = ["]
            + [f"    Step({step.name!r}, {step.number})," for step in self.steps]
            + ["]"]
        )


def tell(
    functions: list[Function],
    crm: str,
    steps: Iterable[Step],
    *,
    skews: Mapping[str, float] | None = None,
    thorough: bool = False,
) -> Told:
    """Tell a story to its end. Finds what is broken; lets nothing else pass."""
    taken: list[Step] = []
    with drawn_from(0):
        story = Story(functions, crm, skews)
        told = Told(taken, story.lines, story.cloud.injected)
        with running(story.cloud):
            try:
                story.begin()
                for step in steps:
                    taken.append(step)
                    story.take(step)
                story.rest()
                checks.at_rest(story, thorough=thorough)
            except Broken as broken:
                told.broken = broken
    return told


def steps_of(seed: int, length: int) -> list[Step]:
    """The steps that follow from a seed."""
    draw = random.Random(seed)
    names, weights = list(STEPS), [kind.weight for kind in STEPS.values()]
    beginning = [draw.choice(BEGINNINGS), *draw.choice(([], ["a quiet minute"]))]
    rest = draw.choices(names, weights, k=length - len(beginning))
    return [Step(name, draw.randrange(BIGGEST)) for name in (*beginning, *rest)]


def shortened(functions: list[Function], crm: str, told: Told, skews: Mapping[str, float] | None = None) -> Told:
    """Leave out steps as long as the same invariant breaks: what remains is what matters."""
    assert told.broken
    steps, size = list(told.steps), max(1, len(told.steps) // 2)
    while size:
        start = 0
        while start < len(steps):
            fewer = steps[:start] + steps[start + size :]
            again = tell(functions, crm, fewer, skews=skews)
            if again.broken and again.broken.invariant == told.broken.invariant:
                steps, told = list(again.steps), again
            else:
                start += size
        size //= 2
    return told

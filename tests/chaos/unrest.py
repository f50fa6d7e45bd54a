"""The unrest: people act at random on both sides, and the host is killed and started again, as long as is asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from threading import Event

from local.demo.world import SIDES
from local.stage import Stage
from tests.chaos.scene import Scene
from tests.simulation.people import FIELDS, Deal, People

MOST_DEALS = 40
BETWEEN_ACTS_S = (0.1, 0.8)
BETWEEN_DEATHS_S = (1.0, 5.0)
"""From the moment the host listens, so that it has begun to work each time."""
ANSWERS_AFTER_S = 0.3
"""About what the real systems take; their work is done at once, so that death often comes between effect and answer."""
MANY = 10**9

OnADeal = Callable[[People, Deal, Random], str]

BRINGS: Mapping[str, tuple[int, Callable[[People, Random], str]]] = {
    "a seller shares": (6, lambda people, draw: people.seller_creates(help_wanted=draw.random() < 0.5, shared=True)),
    "a seller keeps one": (1, lambda people, _: people.seller_creates(help_wanted=False, shared=False)),
    "Microsoft invites": (4, lambda people, _: people.microsoft_brings_a_deal()),
    "a customer asks": (3, lambda people, _: people.customer_asks()),
}
"""How often, beside the others, and what brings a deal."""

ACTS: Mapping[str, tuple[int, OnADeal]] = {
    "seller edits": (14, lambda people, deal, draw: people.seller_edits(deal, draw.choice(list(FIELDS)))),
    "partner edits": (14, lambda people, deal, draw: people.partner_edits(deal, draw.choice(list(FIELDS)))),
    "seller moves": (
        6,
        lambda people, deal, draw: people.seller_moves(deal, draw.choice(("open", "open", "on_hold", "won", "lost"))),
    ),
    "partner acts": (
        6,
        lambda people, deal, draw: people.partner_acts(
            deal, draw.choice(("accepts", "accepts", "views", "wins", "loses", "declines"))
        ),
    ),
    "Microsoft acts": (
        5,
        lambda people, deal, draw: people.microsoft_acts(deal, draw.choice(("accepts", "edits", "declines"))),
    ),
    "seller answers a lead": (
        5,
        lambda people, deal, draw: people.seller_answers_the_lead(deal, qualify=draw.random() < 0.7),
    ),
    "seller asks for help": (2, lambda people, deal, _: people.seller_asks_for_help(deal)),
    "seller flips the flag": (2, lambda people, deal, _: people.seller_flips_the_flag(deal)),
    "seller deletes": (1, lambda people, deal, _: people.seller_deletes(deal)),
}
BRINGS_A_DEAL = 0.25
"""How likely an act is to be one of these, as long as there are not too many."""


@dataclass
class Unrest:
    """`lines` tell what people did and when the host died."""

    stage: Stage
    scene: Scene
    seed: int
    acts: int = 0
    kills: int = 0
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.people = People(self.scene)  # all that people ask of their cloud
        self.draw = Random(self.seed)

    @property
    def cloud(self) -> Scene:
        """As tests/simulation/checks.py calls it."""
        return self.scene

    def last(self, seconds: float) -> None:
        """Returns when the time is over and the host runs. Raises StageError when it does not start any more."""
        over = Event()
        for system in SIDES:
            self.scene.world.slow_down(system, None, ANSWERS_AFTER_S, MANY)
        with ThreadPoolExecutor(1, thread_name_prefix="killer") as pool:
            killer = pool.submit(self._kill_again_and_again, over)
            try:
                ends = time.monotonic() + seconds
                while time.monotonic() < ends and not killer.done():
                    self._somebody_acts()
                    time.sleep(self.draw.uniform(*BETWEEN_ACTS_S))
            finally:
                over.set()
            killer.result()
        for system in SIDES:
            self.scene.world.speed_up(system)

    def write_down(self, file: Path) -> None:
        file.write_text("\n".join(self.lines) + "\n", encoding="utf-8")

    def told_of(self, deal: Deal) -> list[str]:
        """What people did with a deal."""
        return [line for line in self.lines if f"{deal} " in f"{line} "]

    def _somebody_acts(self) -> None:
        self.scene.look_again()
        if what := self._act():
            self.acts += 1
            self._tell(what)

    def _act(self) -> str:
        people, draw = self.people, self.draw
        if not people.deals or (len(people.deals) < MOST_DEALS and draw.random() < BRINGS_A_DEAL):
            weights, brings = zip(*BRINGS.values(), strict=True)
            return str(draw.choices(brings, weights)[0](people, draw))
        weights, acts = zip(*ACTS.values(), strict=True)
        return str(draw.choices(acts, weights)[0](people, draw.choice(people.deals), draw))

    def _kill_again_and_again(self, over: Event) -> None:
        draw = Random(self.seed)
        while not over.wait(draw.uniform(*BETWEEN_DEATHS_S)):
            self.stage.kill_host()
            self.kills += 1
            self._tell("the host is killed")
            self.stage.start_host()

    def _tell(self, line: str) -> None:
        self.lines.append(f"{datetime.now(UTC):%H:%M:%S.%f}"[:-3] + f"  {line}")

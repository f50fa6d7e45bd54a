"""The same steps as a Hypothesis state machine, which looks for short stories and shortens what it finds."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from tests.app import functions
from tests.flows.crms import CRMS
from tests.simulation import checks
from tests.simulation.broken import Broken
from tests.simulation.chance import drawn_from
from tests.simulation.cloud import running
from tests.simulation.steps import STEPS
from tests.simulation.story import Step, Story

EXAMPLES = 100
"""For each CRM."""


class Stories(RuleBasedStateMachine):
    """One rule for each step, added below."""

    crm: str

    def __init__(self) -> None:
        super().__init__()
        self.around = ExitStack()
        self.around.enter_context(drawn_from(0))
        self.story = Story(functions(), self.crm)
        self.around.enter_context(running(self.story.cloud))
        self.story.begin()
        self.is_broken = False

    def take(self, name: str, number: int) -> None:
        try:
            self.story.take(Step(name, number))
        except Broken:
            self.is_broken = True
            raise

    def teardown(self) -> None:
        with self.around:
            if not self.is_broken:
                self.story.rest()
                checks.at_rest(self.story, thorough=False)


def _rule(name: str) -> object:
    def step(self: Stories, number: int) -> None:
        self.take(name, number)

    return rule(number=st.integers(0, 10_000))(step)


for _name in STEPS:
    setattr(Stories, _name.replace(" ", "_"), _rule(_name))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("crm", CRMS)
def test_no_story_breaks_anything(crm: str) -> None:
    machine = type(f"StoriesIn_{crm}", (Stories,), {"crm": crm})

    run_state_machine_as_test(
        machine,
        settings=settings(
            derandomize=True,
            max_examples=EXAMPLES,
            stateful_step_count=40,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )

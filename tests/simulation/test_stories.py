"""Stories drawn from seeds, in the number that a change has to pass; `make soak` tells as many as one has time for."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.flows.crms import CRMS
from tests.simulation.soak import lot, story

STORIES = 2_000
LOTS = 16

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("crm", CRMS)
@pytest.mark.parametrize("number", range(LOTS))
def test_whatever_happens_nothing_is_lost_nothing_doubled_and_nothing_goes_round(crm: str, number: int) -> None:
    stories = STORIES // LOTS // len(CRMS)

    report = lot(crm, number * stories, stories)

    assert report.stories == stories
    assert not report.findings, "\n".join(report.lines())


@pytest.mark.parametrize("crm", CRMS)
def test_a_seed_tells_the_same_story_in_every_process(crm: str) -> None:
    here = str(story(crm, 7))
    command = [sys.executable, "-m", "tests.simulation.soak", "--crm", crm, "--seed", "7"]

    there = subprocess.run(
        command, env={**os.environ, "PYTHONHASHSEED": "4711"}, capture_output=True, text=True, check=False
    )

    assert there.stdout.strip() == here.strip()
    assert len(here.splitlines()) > 100

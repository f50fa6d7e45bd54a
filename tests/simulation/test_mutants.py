"""The known bugs of the negative control can still be put in; `make mutants` tells whether they are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulation.mutate import MUTANTS, ROOT, Mutant, apply

FILES = sorted(MUTANTS.glob("*.patch"))


def test_there_are_bugs_enough_to_believe_the_stories() -> None:
    assert len(FILES) >= 18


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_known_bug_can_still_be_put_in(file: Path) -> None:
    mutant = Mutant.of(file)

    apply(mutant, ROOT, "--check")

    assert mutant.bug.endswith(".")

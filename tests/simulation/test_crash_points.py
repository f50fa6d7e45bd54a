"""The process dies at each moment of the flows that tests/flows/test_crashes.py does not play."""

from __future__ import annotations

import pytest

from tests.flows.crms import CRMS
from tests.simulation.crash_points import FLOWS, plans, play

PLAYED_ELSEWHERE = {
    "a seller shares a co-sell deal",
    "a seller edits",
    "the partner edits",
    "both edit different fields",
    "Microsoft accepts",
    "a seller wins",
    "Microsoft brings a deal",
    "a customer asks",
    "the partner accepts a lead",
}


@pytest.mark.parametrize("crm", CRMS)
@pytest.mark.parametrize("name", [name for name in FLOWS if name not in PLAYED_ELSEWHERE])
def test_dying_at_any_moment_breaks_nothing(crm: str, name: str) -> None:
    wanted = list(plans(crm, name, pairs=False))
    assert len(wanted) > 5

    for plan in wanted:
        assert not (broken := play(crm, name, plan).broken), f"died before moment {plan}:\n{broken}"

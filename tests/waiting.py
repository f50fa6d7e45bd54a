"""What tests wait for, with a deadline and never for a fixed time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

DEADLINE_S = 30
BETWEEN_LOOKS_S = 0.02


def eventually(condition: Callable[[], T], what: str, within_s: float = DEADLINE_S) -> T:
    """Return the first true result of `condition`; an AssertionError names `what` did not happen in time."""
    deadline = time.monotonic() + within_s
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        time.sleep(BETWEEN_LOOKS_S)
    return result

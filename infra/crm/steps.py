"""What the provisioning of every CRM shares: steps, how they are done until none is left, and how a command ends.

Each look reads the CRM anew, so that a pass that was interrupted, or whose answer was lost, is simply followed by
another one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from shared.errors import CosellError, OutcomeUnknown, Permanent, Throttled, Unavailable
from shared.remote.http import utc_now

PAUSE_S = 15.0
"""Between looks at what the servers still work on, or while another change is being published."""
PATIENCE = timedelta(minutes=15)


@dataclass(frozen=True)
class Step:
    words: str
    do: Callable[[], None]


class Work:
    """Does steps and says each once. `remote` is how errors call the CRM."""

    def __init__(
        self,
        remote: str,
        say: Callable[[str], None],
        *,
        clock: Callable[[], datetime] = utc_now,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._remote = remote
        self._say = say
        self._clock = clock
        self._sleep = sleep
        self._until = clock() + PATIENCE
        self._told: set[str] = set()

    def until_none_is_left(self, look: Callable[[], list[Step]]) -> bool:
        """Return whether there was anything to do. Raises what a step raises, or Unavailable when it takes too long."""
        before: list[str] = []
        while steps := look():
            words = [step.words for step in steps]
            if words == before:
                self._wait(words[0])
            before = words
            self._do(steps)
        return bool(before)

    def until_done(self, step: Step) -> None:
        while not self._do([step]):
            self._wait(step.words)

    def _do(self, steps: Sequence[Step]) -> bool:
        """Return whether all was done; what was not is found again by the next look."""
        try:
            for step in steps:
                if step.words not in self._told:
                    self._say(step.words)
                self._told.add(step.words)
                step.do()
        except (Throttled, Unavailable, OutcomeUnknown) as later:
            self._say(f"waits, then looks again: {later}")
            self._sleep(later.retry_after_s or PAUSE_S)
            return False
        return True

    def _wait(self, what: str) -> None:
        if self._clock() >= self._until:
            raise Unavailable(
                f"not finished after {PATIENCE}: {what}. What was done stays; run again later", remote=self._remote
            )
        self._sleep(PAUSE_S)


def plan_in_words(where: str, steps: Sequence[Step]) -> list[str]:
    """Return the plan as a person reads it."""
    todo = [f"  - {step.words}" for step in steps] or ["  nothing: everything is there"]
    return [f"{where}. To do:", *todo]


def exit_code(provision: Callable[[], None], say: Callable[[str], None]) -> int:
    """Return 0 when all is there (or planned), 1 when something stands in the way, which is said."""
    try:
        provision()
    except CosellError as problem:
        say(f"Stopped: {problem}")
        if isinstance(problem, Permanent) and problem.next_step:
            say(f"Next step: {problem.next_step}")
        return 1
    return 0

"""Decides whether a listener may be called now, so that one that hangs or fails never holds up the worker.

Known to one process only: every process learns by itself, with a few calls. Performs no I/O.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from threading import Condition

CALLS_AT_ONCE = 4
"""How many of the process's threads one listener may hold. The settings allow 16, for HTTP and both queues."""

PATIENCE_S = 2.0
"""How long a thread waits for another one's call to end. Quick listeners need it in a burst."""

BUSY_REST_S = 10.0
"""How long a listener is left alone whose calls did not end in that time: about as long as a call may take."""

FIRST_REST_S = 10.0
LONGEST_REST_S = 300.0


class Gate:
    """Before one listener. Safe to share between threads.

    A listener that is well takes `CALLS_AT_ONCE` calls. After one that failed it rests, and then is tried with one
    call at a time; each time that fails, it rests twice as long. `problem`: why the last call failed, in words.
    """

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._change = Condition()
        self._under_way = 0
        self._rests_until: datetime | None = None
        self._failed_rests = 0
        self.problem = ""
        self.failing_since: datetime | None = None

    def enter(self) -> float:
        """Return 0 if a call may begin, which ends with `leave`; otherwise the seconds after which to ask again."""
        with self._change:
            self._change.wait_for(self._knows, timeout=PATIENCE_S)
            if rest_s := self._rest_s():
                return rest_s
            if not self._has_room():
                if not self._failed_rests:  # else one call is trying it, and what comes of that decides
                    self._rest(BUSY_REST_S)
                return BUSY_REST_S
            self._under_way += 1
            return 0.0

    def leave(self, problem: str) -> None:
        """The call has ended; `problem` says in words why the listener did not take it, "" if it did."""
        with self._change:
            self._under_way -= 1
            if problem:
                self._note_failure(problem)
            else:
                self._failed_rests, self._rests_until = 0, None
                self.problem, self.failing_since = "", None
            self._change.notify_all()

    def _note_failure(self, problem: str) -> None:
        self.problem, self.failing_since = problem, self.failing_since or self._clock()
        # Calls that began together fail together: they are one failure.
        if not (self._failed_rests and self._rest_s()):
            self._rest(min(FIRST_REST_S * 2 ** min(self._failed_rests, 10), LONGEST_REST_S))
            self._failed_rests += 1

    def _knows(self) -> bool:
        """Whether there is an answer without waiting."""
        return bool(self._has_room() or self._failed_rests or self._rest_s())

    def _has_room(self) -> bool:
        return self._under_way < (1 if self._failed_rests else CALLS_AT_ONCE)

    def _rest(self, seconds: float) -> None:
        self._rests_until = self._clock() + timedelta(seconds=seconds)

    def _rest_s(self) -> float:
        return max((self._rests_until - self._clock()).total_seconds(), 0.0) if self._rests_until else 0.0

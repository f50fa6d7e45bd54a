"""A fuse that blows at the n-th moment the product touches the outside: it stands for a process that dies there.

A moment is just before a call to Storage, the queue or an outside system: dying after a call is, to everyone else, the
same as dying before the next one. And as a call that only reads leaves everything as it was, dying before it is the
same as dying before the next one of the same run.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import requests

from tests.flows.in_process import InProcessSession

ONLY_READS = re.compile(r"GET |(deals|index|cursors)\.(get|query|across)$")


def deaths(moments: Sequence[tuple[str, object]]) -> list[int]:
    """Of moments, each with the run it belongs to, return the numbers of those at which a process has to die to have
    died in every way."""
    return [
        number
        for number, ((name, run), (_, next_run)) in enumerate(pairwise([*moments, ("the end", None)]))
        if run != next_run or not ONLY_READS.match(name)
    ]


class ProcessDied(BaseException):
    """Not an Exception: nothing in the product may catch it, as nothing runs any more when a process is killed."""


class Fuse:
    """Counts moments; blows at `blow_at` (counted from 1) once, and never again until it is set anew."""

    def __init__(self) -> None:
        self.set(0)
        self._run = 0

    def set(self, blow_at: int) -> None:
        self.moments: list[str] = []
        self._run_of: list[int] = []
        self.blow_at = blow_at

    def another_run(self) -> None:
        """What follows is another invocation: one that ended is not repeated, whatever becomes of this."""
        self._run += 1

    def deaths(self) -> list[int]:
        """The numbers of the moments, counted from 1, at which a process has to die to have died in every way."""
        return [number + 1 for number in deaths(list(zip(self.moments, self._run_of, strict=True)))]

    def moment(self, name: str) -> None:
        self.moments.append(name)
        self._run_of.append(self._run)
        if len(self.moments) == self.blow_at:
            self.blow_at = 0
            raise ProcessDied(name)


class Fused:
    """Passes every method call on, with the fuse in the line."""

    def __init__(self, target: Any, name: str, fuse: Fuse) -> None:
        self._target, self._name, self._fuse = target, name, fuse

    def __getattr__(self, attribute: str) -> Any:
        found = getattr(self._target, attribute)
        if not callable(found):
            return found

        def call(*args: Any, **options: Any) -> Any:
            self._fuse.moment(f"{self._name}.{attribute}")
            return found(*args, **options)

        return call


class FusedSession(InProcessSession):
    """The way to the outside systems, with the fuse in the line."""

    def __init__(self, fuse: Fuse) -> None:
        super().__init__()
        self._fuse = fuse

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        self._fuse.moment(f"{request.method} {str(request.url).split('?')[0]}")
        return super().send(request, **options)

"""Notes the calls by which a thread writes to the outside systems, for whoever has to account for them.

A write can take several calls, and each several attempts; none of the clients has to hand them on.
"""

from __future__ import annotations

from contextvars import ContextVar

from shared.model import Call

_noted: ContextVar[list[Call] | None] = ContextVar("noted_calls", default=None)


def begin() -> None:
    """From now on this thread's calls are noted."""
    _noted.set([])


def note(call: Call) -> None:
    noted = _noted.get()
    if noted is not None:
        noted.append(call)


def are_unclear() -> bool:
    """Whether one of the calls noted may have been carried out without our knowing."""
    return any(call.status is None or call.status == 408 or call.status >= 500 for call in _noted.get() or ())


def end() -> tuple[Call, ...]:
    """Return the calls since `begin`, and note no more."""
    noted = tuple(_noted.get() or ())
    _noted.set(None)
    return noted

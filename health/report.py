"""Gathers what an operator asks first, each with a verdict: ok, attention (a person should look) or down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shared.errors import CosellError
from shared.services import Services
from shared.start_up import problems

BUSY = 1_000
"""Messages in the queue from which on the worker seems not to keep up."""


def report(services: Services) -> dict[str, Any]:
    """Return the checks by name and the worst of their verdicts."""
    checks = {
        "settings": _settings(services),
        "queue": _asked(
            lambda: services.queue.length(), lambda n: ("attention" if n > BUSY else "ok", f"{n} messages wait")
        ),
        "poison": _asked(
            lambda: services.queue.poison_length(),
            lambda n: ("attention" if n else "ok", f"{n} messages were given up and not recorded"),
        ),
        "failures": _asked(
            lambda: services.failures.list(limit=100),
            lambda rows: (
                "attention" if rows else "ok",
                "; ".join(f"{row.deal}: {row.reason} ({row.next_step})" for row in rows) or "none",
            ),
        ),
    }
    verdicts = [check["verdict"] for check in checks.values()]
    return {"verdict": next((v for v in ("down", "attention") if v in verdicts), "ok"), **checks}


def _settings(services: Services) -> dict[str, Any]:
    found = problems(services.environ)
    return {"verdict": "down" if found else "ok", "says": found or "complete"}


def _asked(ask: Callable[[], Any], judge: Callable[[Any], tuple[str, str]]) -> dict[str, Any]:
    try:
        verdict, says = judge(ask())
    except CosellError as failed:
        return {"verdict": "down", "says": str(failed)}
    return {"verdict": verdict, "says": says}

"""What waits for a person, by reason; taking it off the list."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator
from datetime import datetime

from admin import deals
from shared.model import Link
from shared.problems import REASONS, Problem, Reason
from shared.services import Services
from shared.store.failures import Failure


def show(given: Namespace, services: Services) -> int:
    """`python -m admin failures`. Returns the exit code."""
    failures = of_reason(services, given.reason)
    links = {each.deal: _link(services, each) for each in failures}
    if given.json:
        for each in failures:
            print(json.dumps(_document(each, links[each.deal]), ensure_ascii=False))
    elif failures:
        print("\n\n".join(_by_reason(failures, links, given.reason)))
    else:
        print("Nothing waits for a person" + (f" for the reason {given.reason}." if given.reason else "."))
    return 0


def dismiss(given: Namespace, services: Services) -> int:
    """`python -m admin dismiss`. Returns the exit code."""
    known = {failure.deal for failure in services.failures.list()}
    if unknown := [key for key in given.keys if key not in known]:
        raise ValueError(f"{', '.join(unknown)} is not among the failures; python -m admin failures lists them")
    for key in given.keys:
        services.failures.clear(key)
    print(f"{len(given.keys)} taken off the list.")
    return 0


def of_reason(services: Services, reason: Reason | None) -> list[Failure]:
    """Return what waits for a person for this reason, None: for any."""
    return [failure for failure in services.failures.list() if reason is None or reason in failure.reasons]


def problem_lines(problem: Problem) -> list[str]:
    """Return what is wrong, and under it what is accepted and what to do."""
    accepted = [f"  accepted: {problem.accepted}"] if problem.accepted else []
    return [problem.said, *accepted, f"  next: {problem.next_step or REASONS[problem.reason].advice}"]


def _link(services: Services, failure: Failure) -> Link | None:
    return services.deals.load(failure.deal) if failure.deal.startswith(deals.BEGINNINGS) else None


def _by_reason(failures: list[Failure], links: dict[str, Link | None], only: Reason | None) -> Iterator[str]:
    """Yield a heading for each reason, and a paragraph for each that waits for it."""
    for reason, kind in REASONS.items():
        concerned = [failure for failure in failures if reason in failure.reasons]
        if concerned and only in (None, reason):
            yield f"{kind.title} [{reason}]: {len(concerned)}\n  {kind.advice}."
            yield from (_paragraph(failure, reason, links[failure.deal]) for failure in concerned)


def _paragraph(failure: Failure, reason: Reason, link: Link | None) -> str:
    problems = [problem for problem in failure.problems if problem.reason == reason]
    lines = [
        *deals.ids(failure.deal, link),
        *(line for problem in problems for line in problem_lines(problem)),
        f"since {_when(failure.since_utc)}, last {_when(failure.last_utc)}, times {failure.times}, "
        f"correlation id {failure.correlation_id or 'none'}",
    ]
    return "\n".join([f"  {deals.title(failure.deal, link)}", *(f"    {line}" for line in lines)])


def _document(failure: Failure, link: Link | None) -> dict[str, object]:
    return {
        "deal": failure.deal,
        **deals.facts(failure.deal, link),
        "problems": [vars(problem) for problem in failure.problems],
        "since_utc": failure.since_utc.isoformat(),
        "last_utc": failure.last_utc.isoformat(),
        "times": failure.times,
        "correlation_id": failure.correlation_id,
    }


def _when(at_utc: datetime) -> str:
    return f"{at_utc:%Y-%m-%d %H:%M} UTC"

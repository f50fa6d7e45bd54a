"""What must hold when the host was left alone for a while.

Both sides agree, nothing is there twice, nothing is left undone or untold.
"""

from __future__ import annotations

import io
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from admin.__main__ import main as admin
from admin.deals import find
from shared.store.audit import AuditEntry
from tests.chaos.unrest import Unrest
from tests.simulation import checks
from tests.simulation.people import Deal
from tests.simulation.story import Broken

REST_WITHIN_S = 600
"""A claim of a dead run lasts 90 s, a create that broke off is looked for for two minutes, and Partner Center's own
attempts to deliver an event are up to minutes apart by then."""

DEFECTS = {"unexpected", "queue", "event"}
"""Reasons for which nothing that people do may be the cause."""


@dataclass(frozen=True)
class Finding:
    """`story` is what `python -m admin explain` tells of the deal; "" when it is about none."""

    words: str
    story: str = ""

    def __str__(self) -> str:
        return f"{self.words}\n{self.story}".rstrip()


def come_to_rest(unrest: Unrest) -> None:
    """Wait until nothing waits and nothing moves. Raises DemoError after a deadline."""
    unrest.scene.world.rest_after_sweep(REST_WITHIN_S)
    unrest.scene.look_again()


def findings(unrest: Unrest) -> Iterator[Finding]:
    """Yield everything that is wrong. Sweeps and replays at last, which must not write."""
    for look in (_nothing_twice, _deals_agree, _audit_is_complete, _nothing_given_up, _sweep_finds_nothing):
        yield from look(unrest)
    yield from _replay_writes_nothing(unrest)


def cut_off(unrest: Unrest) -> int:
    """How many writes were under way when the host died, so that a later run had to find out what came of them."""
    return sum(entry.recovered for entries in audits(unrest).values() for entry in entries)


def audits(unrest: Unrest) -> dict[str, list[AuditEntry]]:
    """All that the audit tells, by deal, oldest first."""
    now = datetime.now(UTC)
    by_deal = defaultdict[str, list[AuditEntry]](list)
    for deal, entry in unrest.scene.services.audit.between(now - timedelta(days=1), now + timedelta(minutes=1)):
        by_deal[deal].append(entry)
    return by_deal


# ---------------------------------------------------------------- both sides


def _nothing_twice(unrest: Unrest) -> Iterator[Finding]:
    for check in (checks.one_referral_per_record, checks.one_record_per_referral):
        for finding in _broken(lambda check=check: check(unrest)):  # type: ignore[misc]
            yield Finding(finding.words, _explained_by_words(unrest, finding.words))
    contacts = Counter((row["account"], row["email"]) for row in unrest.scene.desk.contacts())
    for (account, email), times in contacts.items():
        if times > 1:
            yield Finding(f"account {account} has {times} contacts with the address {email}")


def _deals_agree(unrest: Unrest) -> Iterator[Finding]:
    for deal in unrest.people.deals:
        for finding in _broken(lambda deal=deal: checks.deal_agrees(unrest, deal)):  # type: ignore[misc]
            did = "\n".join(["people:", *(f"  {line}" for line in unrest.told_of(deal))])
            yield Finding(finding.words, f"{did}\n{_explained(unrest, deal)}")


def _broken(check: Callable[[], None]) -> Iterator[Finding]:
    try:
        check()
    except Broken as broken:
        yield Finding(str(broken))


def _explained_by_words(unrest: Unrest, words: str) -> str:
    """The story of the first deal that the words name by one of its ids, "" if none does."""
    named = next((word for word in words.split() if find(unrest.scene.services, word)), "")
    return _ask(unrest, "explain", named) if named else ""


def _explained(unrest: Unrest, deal: Deal) -> str:
    own = unrest.people.referral(deal)
    return _ask(unrest, "explain", deal.record_id or (own["id"] if own else deal.referral_id))


# ---------------------------------------------------------------- what the product tells


def _audit_is_complete(unrest: Unrest) -> Iterator[Finding]:
    """Each write that was started has an outcome before the next one starts."""
    for deal, entries in audits(unrest).items():
        phases = [*(entry.phase for entry in entries if entry.side), "started"]
        if any(pair == ("started", "started") for pair in pairwise(phases)):
            yield Finding(f"a write of deal {deal} has no outcome in the audit", _ask(unrest, "explain", deal))


def _nothing_given_up(unrest: Unrest) -> Iterator[Finding]:
    for queue in (unrest.scene.services.queue, unrest.scene.services.relays):
        if given_up := queue.poison_length():
            yield Finding(f"{given_up} messages are in a poison queue")
    for failure in unrest.scene.services.failures.list():
        if not all(problem.next_step for problem in failure.problems):
            yield Finding(f"{failure.deal} failed without a next step: {failure.reason}")
        if DEFECTS & set(failure.reasons):
            yield Finding(f"{failure.deal} failed: {failure.reason}", _ask(unrest, "explain", failure.deal))


# ---------------------------------------------------------------- an operator makes sure


def _sweep_finds_nothing(unrest: Unrest) -> Iterator[Finding]:
    """What waits for a person may differ, of course."""
    report = json.loads(_ask(unrest, "sweep", "--json"))
    for each in report["deals"]:
        if each["fate"] != "waits for a person":
            yield Finding(f"the full sweep found {each}", _ask(unrest, "explain", each["deal"]))
    if sum(report["differed"].values()) > len(report["deals"]):
        yield Finding(f"the full sweep found more than it tells of: {report['differed']}")


def _replay_writes_nothing(unrest: Unrest) -> Iterator[Finding]:
    world = unrest.scene.world
    come_to_rest(unrest)
    world.forget_requests()
    before = audits(unrest)
    _ask(unrest, "replay", *sorted(before))
    come_to_rest(unrest)
    written = {name: number for name, number in world.requests().items() if name.endswith("writes")}
    if not written:
        return
    yield Finding(f"all was in agreement, and a replay wrote: {written}")
    for deal, entries in audits(unrest).items():
        if any(entry.side for entry in entries[len(before[deal]) :]):
            yield Finding(f"a replay of deal {deal} wrote", _ask(unrest, "explain", deal))


def _ask(unrest: Unrest, *arguments: str) -> str:
    """What `python -m admin` prints."""
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        admin(arguments, unrest.scene.services)
    return printed.getvalue()

"""Holds the audit against what the simulated systems were really asked: every write, once, with an outcome."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from datetime import timedelta

from shared.store.audit import AuditEntry
from tests.flows.world import START, World

OUTCOMES = {"done", "failed", "unknown"}


def entries(world: World) -> list[tuple[str, AuditEntry]]:
    """All there are: each deal with an entry, oldest first."""
    return list(world.services.audit.between(START - timedelta(days=1), world.clock.now() + timedelta(seconds=1)))


def assert_audit_accounts_for_every_write(world: World) -> None:
    by_deal = defaultdict[str, list[AuditEntry]](list)
    for deal, entry in entries(world):
        if entry.side:
            by_deal[deal].append(entry)
    for deal, about_writes in by_deal.items():
        pairs = zip(about_writes[::2], [*about_writes[1::2], None], strict=False)
        for began, ended in pairs:
            assert began.phase == "started", f"{deal}: {began} without a beginning"
            assert ended is not None, f"{deal}: {began.operation} has no outcome"
            assert ended.phase in OUTCOMES, f"{deal}: {began.operation} has no outcome before {ended}"
            assert ended.side == began.side
    assert claimed(world) == happened(world)


def claimed(world: World) -> Counter[str]:
    """The writes that the audit says were done. To adopt a record that is there already writes nothing."""
    done = [entry for _, entry in entries(world) if entry.phase == "done" and entry.side]
    assert all(entry.phase != "unknown" for _, entry in entries(world))
    kinds = Counter(
        "crm" if entry.side == "crm" else entry.operation for entry in done if entry.operation[:5] != "adopt"
    )
    return Counter(dict(kinds))


def happened(world: World) -> Counter[str]:
    """The writes of referrals, opportunities and leads that the systems took from the product."""
    taken = [entry for entry in world.pc.log.entries if entry.caller and (entry.status or 400) < 300]
    kinds = Counter[str]()
    for entry in taken:
        if entry.method == "POST":
            is_microsofts = json.loads(entry.response_body)["organizationId"] == "msft"
            kinds["invite Microsoft" if is_microsofts else "create referral"] += 1
        elif entry.method == "PATCH":
            kinds["update referral"] += 1
    crm = sum(write.status < 300 for write in world.backstage.record_writes())
    return kinds + Counter({"crm": crm})

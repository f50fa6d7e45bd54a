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
    told, happened = claimed(world), taken(world)
    assert told == happened, f"the audit says {told}, the systems {happened}"


def claimed(world: World) -> Counter[str]:
    """The writes that the audit says were done. To adopt a record that is there already writes nothing."""
    done = [entry for _, entry in entries(world) if entry.phase == "done" and entry.side]
    unknown = [entry for _, entry in entries(world) if entry.phase == "unknown"]
    assert not unknown, unknown
    kinds = Counter(
        "crm" if entry.side == "crm" else entry.operation for entry in done if entry.operation[:5] != "adopt"
    )
    return Counter(dict(kinds))


def taken(world: World) -> Counter[str]:
    """The writes of referrals, opportunities and leads that the systems took from the product."""
    kinds = Counter[str]()
    for entry in world.pc.log.entries:
        if not entry.caller or (entry.status or 400) >= 300:
            continue
        if entry.method == "POST":
            is_microsofts = "engagementId" in json.loads(entry.request_body)  # it joins that of our own
            kinds["invite Microsoft" if is_microsofts else "create referral"] += 1
        elif entry.method == "PATCH":
            kinds["update referral"] += 1
    # A call that is repeated for want of an answer may be carried out each time, where times count in seconds: with the
    # same line in the Audit field it is the same write.
    crm = {json.dumps(write.values) for write in world.backstage.record_writes() if 200 <= write.status < 300}
    return kinds + Counter({"crm": len(crm)})

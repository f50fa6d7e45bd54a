"""What an operator can ask for: what waits for a person, and to look at a deal again. Writes to neither side itself."""

from __future__ import annotations

from argparse import Namespace

from shared.messages import SyncRequest
from shared.services import Services

DEALS = ("pc_", "crm_")
"""How the keys of deals begin. What else fails - a listener, an event nobody can read - cannot be looked at again."""


def print_failures(_: Namespace, services: Services) -> int:
    print(*(failures(services) or ["Nothing waits for a person."]), sep="\n\n")
    return 0


def print_replay(given: Namespace, services: Services) -> int:
    sent = replay(services, given.deals, every=given.all)
    print(f"{len(sent)} deals will be looked at again.", *sent, sep="\n  ")
    return 0


def print_dismissal(given: Namespace, services: Services) -> int:
    known = {failure.deal for failure in services.failures.list()}
    if unknown := [key for key in given.keys if key not in known]:
        raise ValueError(f"{', '.join(unknown)} is not among the failures; python -m admin failures lists them")
    for key in given.keys:
        services.failures.clear(key)
    print(f"{len(given.keys)} taken off the list.")
    return 0


def failures(services: Services) -> list[str]:
    """Return a paragraph for each deal that waits for a person."""
    return [
        f"{failure.deal}\n  {failure.reason}\n  next: {failure.next_step or 'change the deal on either side'}\n"
        f"  since {failure.since_utc:%Y-%m-%d %H:%M}, {failure.times} times, correlation id {failure.correlation_id}"
        for failure in services.failures.list()
    ]


def replay(services: Services, deals: list[str], *, every: bool = False) -> list[str]:
    """Have deals looked at again, both sides, whatever is known of them; `every`: all that failed. Returns their keys.

    Raises ValueError, before anything is sent, for a key that is none.
    """
    wanted = (
        [failure.deal for failure in services.failures.list() if failure.deal.startswith(DEALS)] if every else deals
    )
    requests = [_request(services, deal) for deal in wanted]
    for request in requests:
        services.queue.send(request)
    return wanted


def _request(services: Services, deal: str) -> SyncRequest:
    link = services.deals.load(deal)
    if link and link.record:
        return SyncRequest(cause="operator", record_table=link.record.table, record_id=link.record.id)
    kind, _, rest = deal.partition("_")
    if kind == "pc" and rest:
        return SyncRequest(cause="operator", referral_id=rest)
    table, _, record_id = rest.partition("_")
    if kind == "crm" and record_id:
        return SyncRequest(cause="operator", record_table=table, record_id=record_id)
    raise ValueError(f"{deal!r} is no deal. A deal is named pc_<referral id> or crm_<table>_<record id>")

"""Having deals looked at again: by the workers (replay), here and now (sync), or only to see what would be done."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence

from admin import changes, deals, explain
from admin.failures import of_reason, problem_lines
from shared.errors import NotFound, Permanent, Retryable
from shared.find import Nothing, find_deal
from shared.messages import LOOKS_PER_S, SyncRequest
from shared.preview import Preview, preview
from shared.problems import Problem
from shared.services import Services
from shared.sync import sync_one
from shared.work import nothing_waits

LATER_S = 30

WORDS = {
    "agreed": "Both sides agree; nothing had to be written.",
    "written": "Written; both sides agree now.",
    "busy": "Another run works on the deal just now, and looks again before it lets go.",
    "ignored": "Nothing to do",
    "failed": "Something waits for a person:",
}


def replay(given: Namespace, services: Services) -> int:
    """`python -m admin replay`. Returns the exit code."""
    wanted = _wanted(given, services)
    requests = [deals.request(services, deal) for deal in wanted]
    if given.dry_run:
        for request in requests:
            print("\n".join(_plan(preview(request, services))), end="\n\n")
        print(f"{_deals(requests)} would be looked at again; nothing was written.")
        return 0
    if not wanted:
        print("No deal waits" + (f" for the reason {given.reason}." if given.reason else "."))
        return 0
    for number, request in enumerate(requests):
        services.queue.send(request, delay_s=number // LOOKS_PER_S)
    spread = f" within {len(wanted) // LOOKS_PER_S:,} s" if len(wanted) > LOOKS_PER_S else ""
    print(f"{_deals(wanted)} will be looked at again{spread}.", *wanted, sep="\n  ")
    return 0


def sync(given: Namespace, services: Services) -> int:
    """`python -m admin sync`. Returns the exit code: 1 when something waits, for a person or for another system."""
    request = _request(services, given.deal)
    if given.dry_run:
        print("\n".join([*_plan(preview(request, services)), "Nothing was written."]))
        return 0
    try:
        outcome = sync_one(request, services)
    except Retryable as later:
        delay_s = LATER_S if later.retry_after_s is None else later.retry_after_s
        services.queue.send(request.deferred(), delay_s=delay_s)
        print(f"Not now: {later}\nThe workers try again in {delay_s:.0f} s.")
        return 1
    if outcome.result == "ignored":
        nothing_waits(request, services)
    print(f"{WORDS[outcome.result]}{f': {outcome.why}' if outcome.result == 'ignored' else ''}")
    failure = services.failures.get(outcome.deal) if outcome.result == "failed" else None
    print(*_indented(failure.problems if failure else ()), sep="\n", end="\n" * bool(failure))
    link, entries = explain.story(services, outcome.deal) if outcome.deal else (None, [])
    just_now = [entry for entry in entries if entry.correlation_id == request.correlation_id]
    for paragraph in explain.runs(just_now, link, deals.tables(services)):
        print(f"\n{paragraph}")
    return 1 if outcome.result == "failed" else 0


def _deals(several: Sequence[object]) -> str:
    return f"{len(several):,} deal{'s' * (len(several) != 1)}"


def _wanted(given: Namespace, services: Services) -> list[str]:
    """Return the keys of the deals to replay. Raises UnknownDeal before anything is sent."""
    if given.deals:
        return deals.known(services, given.deals)
    failed = [failure.deal for failure in of_reason(services, given.reason)]
    return [deal for deal in failed if deal.startswith(deals.BEGINNINGS)]


def _request(services: Services, name: str) -> SyncRequest:
    """Return the message for a deal, also for one that is not linked yet. Raises UnknownDeal."""
    deal = deals.find(services, name)
    if deal:
        return deals.request(services, deal)
    referral_id, records = deals.meant(name)
    names_a_table = ":" in name or name.startswith("crm_")
    wanted = [each for each in records if names_a_table and each.table in services.field_map.tables]
    found_records = filter(None, (services.crm.record_named(each.table, each.id) for each in wanted))
    requests = [
        *([SyncRequest(cause="operator", referral_id=referral_id)] if referral_id else []),
        *(SyncRequest(cause="operator", record_table=each.table, record_id=each.id) for each in found_records),
    ]
    why = ""
    for request in requests:
        try:
            with services.unnoted():
                found = find_deal(request, services)
        except NotFound:
            continue
        except Permanent:
            return request  # the run says what is wrong, and records it
        if not isinstance(found, Nothing):
            return request
        why = f"{found.why}. "
    raise ValueError(f"{why}{deals.UnknownDeal([name])}")


def _plan(seen: Preview) -> list[str]:
    lines = [seen.deal or "no deal of ours"]
    for write in seen.writes:
        is_new = write.operation.startswith("create")
        values = {name: pair[1] for name, pair in write.fields.items()}
        told = changes.created(values, write.table) if is_new else changes.updated(write.fields, write.table)
        lines += [f"  {changes.SIDES[write.side]}: would {write.operation}", *(f"    {line}" for line in told)]
    lines += [f"  decided: {note}" for note in seen.notes]
    lines += [f"  nothing would be written: {seen.held}"] * bool(seen.held)
    lines += _indented(seen.problems)
    return lines if len(lines) > 1 else [*lines, "  both sides agree, nothing to write"]


def _indented(problems: tuple[Problem, ...] | list[Problem]) -> list[str]:
    return [f"  {line}" for problem in problems for line in problem_lines(problem)]

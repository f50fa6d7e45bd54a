"""Compares everything with everything, nightly: every referral and every shared record with what its link remembers.

Writes to neither side: what differs becomes a message, a fresh look at that deal. Goes through the lists page by page
and keeps in one row how far it got, so that it takes the same memory for any number of deals, stops before the host
would stop it, and goes on where it was; messages go first and the row last, so that a crash repeats and loses nothing.

What is linked and listed no more has to be looked at too, but absence is not deletion: what is known (`know`) is noted
before it is listed (`list`); what is known and was not listed is counted (`check`), and only if that is little looked
at (`look`). Otherwise a right or a filter is to blame, and a person is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import product
from typing import TypeVar

from pydantic import TypeAdapter

from shared.drift import (
    Difference,
    Listed,
    Reason,
    brakes,
    is_counted,
    is_gone,
    is_pair,
    listed_record,
    listed_referral,
    why_it_differs,
)
from shared.errors import CosellError, Refused, SettingsError, Throttled
from shared.logs import log
from shared.messages import LOOKS_PER_S, SyncRequest
from shared.model import Link, RecordRef
from shared.problems import REASONS, Problem
from shared.seen import Seen
from shared.services import Services
from shared.store.cursors import Cursor
from shared.store.deals import PLACES_OF_REFERRALS, places_of_table
from shared.store.sweeps import DETAILED, Listing, Report
from shared.store.tables import Stale

CURSOR = SIGN = FAILURE = "full_sweep"
PARTNER_CENTER = "Partner Center"

BUDGET_S = 240.0
"""A run stops itself after this time, before host.json's functionTimeout does."""
TOO_OLD = timedelta(hours=20)
"""A sweep that could not end for so long is begun anew: what it knows of the first pages is yesterday's."""
LEASE_S = 300
"""How long a run that saves nothing is believed to be at work; then it has died, and another one goes on."""
PAGES_A_SAVE = 5
KNOWN_A_PAGE = 1_000

T = TypeVar("T")
R = TypeVar("R")
Tell = Callable[[str, Report], None]
"""Told after each page: what is being done, and the report so far."""


@dataclass
class Sweep:
    """How far a sweep is, as it is stored. `phase` counts through the phases, `after` is where its next page starts.

    `known` and `listed` are what was seen (shared.seen), by place in the index; `batch` counts the saves.
    `started_over`: the lists whose next page was refused once.
    """

    report: Report
    accept_missing: bool = False
    phase: int = 0
    after: str | None = None
    batch: int = 0
    known: str = ""
    listed: str = ""
    working_until_utc: datetime | None = None
    done: bool = False
    started_over: list[str] = field(default_factory=list)


_SWEEP = TypeAdapter(Sweep)


def begin(
    services: Services, *, accept_missing: bool = False, budget_s: float | None = BUDGET_S, tell: Tell | None = None
) -> Sweep | None:
    """Begin a sweep, or go on with the one under way; see `go_on`.

    `budget_s` None: to the end. `accept_missing`: begin in any case, and look at what is missing however much it is.
    """
    sweep, cursor = _load(services)
    now = services.clock()
    if sweep and not sweep.done and _is_at_work(sweep, now):
        return None
    if sweep is None or sweep.done or accept_missing or now - sweep.report.started_utc > TOO_OLD:
        sweep = Sweep(Report(now), accept_missing=accept_missing)
    return _run(services, sweep, cursor, tell, budget_s)


def go_on(services: Services, *, budget_s: float | None = BUDGET_S, tell: Tell | None = None) -> Sweep | None:
    """Go on with the sweep under way for about `budget_s` seconds; return how far it is then.

    None: none is under way, or another run is at it. Raises the errors of shared.errors; what was done until then is
    kept, and the next run goes on there.
    """
    sweep, cursor = _load(services)
    if sweep is None or sweep.done or _is_at_work(sweep, services.clock()):
        return None
    return _run(services, sweep, cursor, tell, budget_s)


def _run(services: Services, sweep: Sweep, cursor: Cursor, tell: Tell | None, budget_s: float | None) -> Sweep | None:
    try:
        return _Run(services, sweep, cursor, tell).work(budget_s)
    except Stale:
        log.info("full_sweep.taken_over")
        return None
    except SettingsError:
        raise  # of whoever started it: a person's command line says nothing about the app
    except CosellError as error:
        services.signs.failed(SIGN, str(error))
        raise


def _load(services: Services) -> tuple[Sweep | None, Cursor]:
    cursor = services.cursors.load(CURSOR)
    return (_SWEEP.validate_json(cursor.value) if cursor.value else None), cursor


def _is_at_work(sweep: Sweep, now: datetime) -> bool:
    return sweep.working_until_utc is not None and sweep.working_until_utc > now


class _Run:
    """One run of a sweep, from where the last one stopped."""

    def __init__(self, services: Services, sweep: Sweep, cursor: Cursor, tell: Tell | None) -> None:
        self._services = services
        self._tell = tell or (lambda _what, _report: None)
        self._cursor = cursor
        self._lists = _lists(services)
        if sweep.report.lists.keys() != self._lists.keys():
            # It is new, or other tables are watched since it began.
            sweep.report.lists = {name: Listing() for name in self._lists}
            sweep.phase, sweep.after = 0, None
        self._sweep = sweep
        self._report = sweep.report
        salt = sweep.report.key
        self._known, self._listed = Seen(salt, sweep.known), Seen(salt, sweep.listed)
        self._differences: list[Difference] = []
        self._counted_until = services.clock()
        steps = {"know": self._know, "list": self._list, "check": self._check, "look": self._look}
        self._phases = list(product(steps.items(), self._lists))

    def work(self, budget_s: float | None) -> Sweep | None:
        until = None if budget_s is None else self._services.clock() + timedelta(seconds=budget_s)
        self._save()  # before anything is done, so that no other run does it too
        try:
            self._go_through(until)
        except Stale:
            raise
        except CosellError as error:
            self._interrupt()
            if not isinstance(error, Throttled):
                raise
            log.warning("full_sweep.waits", extra={"why": str(error)})
        return self._sweep

    def _go_through(self, until: datetime | None) -> None:
        sweep, pages = self._sweep, 0
        while sweep.phase < len(self._phases):
            (step, do), name = self._phases[sweep.phase]
            before, differences = deepcopy(self._report), len(self._differences)
            try:
                sweep.after = do(name, sweep.after)
            except CosellError:
                # The page is done anew, and shall be counted once.
                self._report = sweep.report = before
                del self._differences[differences:]
                raise
            sweep.phase += sweep.after is None
            pages += 1
            self._tell(f"{step} {name}", self._report)
            if until and self._services.clock() >= until:
                self._save(working=False)
                return
            if pages % PAGES_A_SAVE == 0:
                self._save()
        self._finish()

    # ------------------------------------------------------------ the phases: each does a page, None after the last

    def _know(self, name: str, after: str | None) -> str | None:
        places = [place for place, _ in self._page_of_index(name, after)]
        for place in places:
            self._known.add(place)
        self._report.lists[name].known += len(places)
        return _last(places)

    def _list(self, name: str, after: str | None) -> str | None:
        listing = self._report.lists[name]
        try:
            page, following = self._lists[name].page(after)
        except Refused as refused:
            if after is None or name in self._sweep.started_over:
                raise
            self._sweep.started_over.append(name)
            log.warning("full_sweep.list_starts_over", extra={"list": name, "why": str(refused)})
            self._report.lists[name] = listing = Listing(known=listing.known)
            page, following = self._lists[name].page(None)
        listing.requests += 1
        listing.listed += len(page)
        for listed, link in zip(page, self._each(self._link_of, page), strict=True):
            self._listed.add(listed.place)
            self._compare(listing, listed, link)
        return following

    def _check(self, name: str, after: str | None) -> str | None:
        listing = self._report.lists[name]
        gone, following = self._gone(name, after)
        listing.missing += len(gone)
        if following is None and not self._sweep.accept_missing:
            linked = listing.pairs + listing.missing
            listing.braked = brakes(listed=listing.listed, linked=linked, missing=listing.missing)
        return following

    def _look(self, name: str, after: str | None) -> str | None:
        listing = self._report.lists[name]
        if not listing.missing or listing.braked:
            return None
        gone, following = self._gone(name, after)
        for link in gone:
            by_referral = name == PARTNER_CENTER
            self._look_at(
                "not listed", link.deal, link, *((link.referral_id, None) if by_referral else (None, link.record))
            )
        return following

    # ------------------------------------------------------------ comparing

    def _compare(self, listing: Listing, listed: Listed, link: Link | None) -> None:
        try:
            why = why_it_differs(listed, link, self._services.field_map, self._services.clock())
        except ValueError:
            log.error(
                "full_sweep.referral_without_time", extra={"referral": listed.referral_id, "updated": listed.version}
            )
            return
        if link and is_pair(listed, link):
            listing.pairs += 1
            listing.failed += link.state == "failed" and is_counted(listed, link)
        if why in ("unlinked referral", "unlinked record"):
            listing.candidates += 1
        if why:
            self._look_at(why, link.deal if link else listed.deal, link, listed.referral_id, listed.record)

    def _look_at(
        self, why: Reason, deal: str, link: Link | None, referral_id: str | None, record: RecordRef | None
    ) -> None:
        """Have the worker look at a deal, whatever it knows of it, and note why. A new map concerns all: no hurry."""
        before = self._report.differed.get(why, 0)
        self._services.queue.send(
            SyncRequest(
                cause="sweep",
                referral_id=referral_id,
                record_table=record.table if record else None,
                record_id=record.id if record else None,
            ),
            delay_s=before // LOOKS_PER_S if why == "field map changed" else 0,
        )
        report = self._report
        report.looks += 1
        report.differed[why] = before + 1
        if report.detailed < DETAILED:
            report.detailed += 1
            self._differences.append(Difference(why, deal, link.etag if link else "", referral_id, record))

    def _link_of(self, listed: Listed) -> Link | None:
        deals = self._services.deals
        deal = deals.find(referral_id=listed.referral_id, record=listed.record)
        if deal is None and listed.engagement_id:
            deal = deals.find(engagement_id=listed.engagement_id)
            return deals.load(deal) if deal else None
        return deals.load(deal or listed.deal)

    def _gone(self, name: str, after: str | None) -> tuple[list[Link], str | None]:
        """Return those of a page of the index that were known when the sweep began, and listed no more."""
        page = self._page_of_index(name, after)
        suspects = [(place, deal) for place, deal in page if place in self._known and place not in self._listed]
        links = self._each(self._services.deals.load, [deal for _, deal in suspects])
        now = self._services.clock()
        gone = [link for (place, _), link in zip(suspects, links, strict=True) if link and is_gone(place, link, now)]
        return gone, _last([place for place, _ in page])

    def _page_of_index(self, name: str, after: str | None) -> list[tuple[str, str]]:
        return self._services.deals.known(self._lists[name].places, after or "", KNOWN_A_PAGE)

    def _each(self, read: Callable[[T], R], keys: Iterable[T]) -> list[R]:
        if self._services.readers < 2:
            return list(map(read, keys))
        with ThreadPoolExecutor(self._services.readers) as readers:
            return list(readers.map(read, keys))

    # ------------------------------------------------------------ saving

    def _save(self, *, working: bool = True, done: bool = False) -> None:
        """Store how far it is: last, when the messages of all pages before are in the queue."""
        sweep, now = self._sweep, self._services.clock()
        if self._differences:
            self._services.sweeps.detail(self._report, sweep.batch, self._differences)
            self._differences = []
        sweep.batch += 1
        self._report.worked_s += (now - self._counted_until).total_seconds()
        self._counted_until = now
        sweep.known, sweep.listed = ("", "") if done else (self._known.text(), self._listed.text())
        sweep.done = done
        sweep.working_until_utc = now + timedelta(seconds=LEASE_S) if working else None
        self._cursor = self._services.cursors.save(CURSOR, _SWEEP.dump_json(sweep).decode(), self._cursor.etag)

    def _interrupt(self) -> None:
        """Keep what was done until something came in the way; the next run tries it again."""
        try:
            self._save(working=False)
        except CosellError as unsaved:
            # Nothing is lost: the pages since the last save are done anew, once this run is thought dead.
            log.warning("full_sweep.not_saved", extra={"why": str(unsaved)})

    def _finish(self) -> None:
        report, services = self._report, self._services
        report.finished_utc = services.clock()
        report.worked_s += (report.finished_utc - self._counted_until).total_seconds()
        self._counted_until = report.finished_utc
        services.sweeps.put(report)
        braked = [brake_words(name, each) for name, each in report.lists.items() if each.braked]
        if braked:
            services.failures.put(FAILURE, Problem("", "; ".join(braked), REASONS["brake"].advice, "brake"))
        else:
            services.failures.clear(FAILURE)
        self._save(working=False, done=True)
        says = summary(report)
        services.signs.well(SIGN, says)
        log.info("full_sweep.done", extra={"says": says, "looks": report.looks})


def brake_words(name: str, listing: Listing) -> str:
    return (
        f"{listing.missing} of {listing.pairs + listing.missing} linked deals are missing from {name}, "
        f"which lists {listing.listed}; nothing was done about them"
    )


def summary(report: Report) -> str:
    """Return the report in one line."""
    lists = ", ".join(f"{each.pairs:,} pairs in {name}" for name, each in report.lists.items())
    differed = ", ".join(f"{number:,} {why}" for why, number in report.differed.items()) or "none differed"
    return f"compared {lists}: {differed}"


# ------------------------------------------------------------ the lists


@dataclass(frozen=True)
class _List:
    """What one side lists. `places` is what the index's places of its rows begin with; `page` returns the page after
    a place, and where the next one starts."""

    places: str
    page: Callable[[str | None], tuple[list[Listed], str | None]]


def _lists(services: Services) -> Mapping[str, _List]:
    def referrals(after: str | None) -> tuple[list[Listed], str | None]:
        page, following = services.partner_center.listed(after)
        return list(map(listed_referral, page)), following

    def records(table: str) -> Callable[[str | None], tuple[list[Listed], str | None]]:
        def page_of(after: str | None) -> tuple[list[Listed], str | None]:
            page = services.crm.shared_records(table, after)
            return list(map(listed_record, page.records)), page.after

        return page_of

    tables = [table.table for table in services.field_map.watched]
    return {
        PARTNER_CENTER: _List(PLACES_OF_REFERRALS, referrals),
        **{table: _List(places_of_table(table), records(table)) for table in tables},
    }


def _last(places: list[str]) -> str | None:
    return places[-1] if len(places) == KNOWN_A_PAGE else None

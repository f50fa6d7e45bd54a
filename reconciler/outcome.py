"""What has become of the deals that a full sweep found different. Asks Storage only."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from shared.drift import Difference, Fate, Reason, fate
from shared.services import Services
from shared.store.sweeps import Report


@dataclass(frozen=True)
class Outcome:
    """A report with the fates of the deals it tells of one by one, as they are now."""

    report: Report
    fates: tuple[tuple[Difference, Fate], ...]

    def by_reason(self) -> dict[Reason, Counter[Fate]]:
        found: dict[Reason, Counter[Fate]] = {}
        for difference, became in self.fates:
            found.setdefault(difference.reason, Counter())[became] += 1
        return found


def outcome(services: Services, report: Report) -> Outcome:
    return Outcome(report, tuple(_fate(services, each) for each in services.sweeps.details(report)))


def _fate(services: Services, difference: Difference) -> tuple[Difference, Fate]:
    """A referral that had no link may since belong to the deal of a record, so the index is asked first."""
    deals = services.deals
    deal = deals.find(referral_id=difference.referral_id, record=difference.record) or difference.deal
    return difference, fate(difference, deals.load(deal), services.clock())

"""One claimed deal while it is worked on: what is known of it, what was done, and what a person has to mend.

Keeps the audit and saves the link; writes to neither side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from shared import breaker
from shared.decide import Problem
from shared.errors import CosellError, Permanent, VersionConflict
from shared.logs import log
from shared.messages import SyncRequest
from shared.model import ALL_SIDES, Absence, Intent, Link, Side
from shared.store.audit import AuditEntry
from shared.view import View

if TYPE_CHECKING:
    from shared.services import Services


@dataclass
class Work:
    """`problems` is empty when all is well. `said` is what was done, `notes` what was decided: the words that the CRM's
    Audit field shows. `held`: the seller wants nothing written. `interrupted`: the intent of a run that did not finish.
    `refused`: what the CRM did not take in this round, by field (or column of our own): it is not tried again.
    """

    services: Services
    request: SyncRequest
    view: View
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    wrote: bool = False
    held: bool = False
    refused: dict[str, Problem] = field(default_factory=dict)
    interrupted: Intent | None = None
    _entries: list[AuditEntry] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.interrupted = self.view.link.intent

    @property
    def link(self) -> Link:
        return self.view.link

    @property
    def failure(self) -> str:
        return " / ".join(map(str, self.problems))

    # ------------------------------------------------------------ what went otherwise

    def begin_round(self) -> None:
        """Forget what an earlier round found wrong: it is looked at anew."""
        self.problems, self.refused = [], {}

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def fail(self, refusal: Permanent) -> None:
        """Keep what a remote refused for a person to mend."""
        self.problems.append(self._problem(refusal))
        self._add("failed", message=str(refusal), request_id=refusal.request_id)

    def refuse(self, name: str, refusal: Permanent) -> None:
        """Go on without a field, or a column of our own, that the CRM does not take."""
        self.fail(refusal)
        self.refused[name] = self.problems[-1]

    def _problem(self, refusal: Permanent) -> Problem:
        """The refusal under the name that the field has in the CRM."""
        # Of two fields with one place (our team, and Microsoft's that is only shown) the one that is sent counts.
        fields = sorted(self.view.table.fields, key=lambda field: bool(field.to_partner_center))
        labels = {place: field.label for field in fields for place in (*field.lens.columns, *field.lens.pointers)}
        # Partner Center names fields without the leading slash.
        named = labels.get(refusal.field) or labels.get(f"/{refusal.field}") if refusal.field else ""
        where = named or refusal.field or refusal.remote
        next_step = refusal.next_step or "Correct it on either side: any change to the deal tries again"
        return Problem(where, str(refusal), next_step)

    def conflicted(self, conflict: VersionConflict) -> None:
        """A conditional write met a newer version: nothing was written, and everything is decided anew."""
        self._add("failed", message=f"changed meanwhile, read again: {conflict}", request_id=conflict.request_id)

    def record_is_gone(self) -> None:
        """Somebody deleted the record. It is not made anew, and the referral stays as it is."""
        if self.link.gone != "crm":
            self.link.state, self.link.absent = "tombstone", Absence("crm", self.services.clock())
        self.note(f"{self.link.record} does not exist any more; the referral stays as it is")

    def referral_is_gone(self) -> None:
        """Partner Center has the referral no more. It is not made anew, and the record stays as it is."""
        self.link.state = "tombstone"
        self.note(f"referral {self.link.referral_id} is not in Partner Center any more; the record stays as it is")

    # ------------------------------------------------------------ audit

    def started(
        self,
        side: Side,
        operation: str,
        fields: dict[str, list[Any]],
        writing: Mapping[str, list[Any]] | None = None,
    ) -> None:
        """Store that a write is about to happen. A run that dies in it leaves a link of which nothing is settled.

        `writing`: the base once it is written, so that the next run knows our own value from somebody's change.
        """
        self._add("started", side=side, operation=operation, fields=fields)
        self.link.unsettled = ALL_SIDES
        self.link.writing = {name: [side, *pair] for name, pair in (writing or {}).items()}
        self.save()

    def done(self, side: Side, operation: str, fields: dict[str, list[Any]], before: str = "", after: str = "") -> None:
        self.wrote = True
        self.link.writing = {}
        now = self.services.clock()
        write = breaker.written(side, {name: after for name, (_, after) in fields.items()}, now)
        self.link.written = breaker.lately([*self.link.written, write], now)
        self._add("done", side=side, operation=operation, fields=fields, version_before=before, version_after=after)

    def _add(self, phase: Literal["started", "done", "failed", "looked"], **details: Any) -> None:
        self._entries.append(
            AuditEntry(
                at_utc=self.services.clock(),
                phase=phase,
                cause=self.request.cause,
                correlation_id=self.request.correlation_id,
                event=self.request.event or "",
                **details,
            )
        )

    # ------------------------------------------------------------ saving

    def save(self) -> None:
        self.services.deals.save(self.link, self._entries)
        self._entries = []

    def release(self) -> frozenset[Side]:
        """Save what is known now and let go. Returns the sides to look at again, if somebody asked meanwhile."""
        view, link = self.view, self.link
        link.unsettled = ALL_SIDES if self.held or link.gone else ALL_SIDES - view.settled()
        view.remember_versions()
        self.services.deals.point(link)
        self._keep_failure()
        if link.state != "tombstone":
            link.state = "failed" if self.problems else "active"
        if not self._entries or self.notes:
            self._add("looked", notes=(*self.notes, *map(str, self.problems)))
        marks = self.services.deals.release(link, self._entries)
        self._entries, self.notes, self.said = [], [], []
        return marks

    def abandon(self, error: Exception) -> None:
        """Let go without having finished: versions stay as they were, so that the message is not taken for known."""
        self.link.unsettled = ALL_SIDES
        self._add("failed", message=f"{type(error).__name__}: {error}")
        try:
            while self.services.deals.release(self.link, self._entries):
                self._entries = []
        except CosellError as unsaved:
            # Nothing is lost: the claim expires and the message comes back.
            log.warning("sync.not_released", extra={"deal": self.link.deal, "reason": str(unsaved)})

    def _keep_failure(self) -> None:
        link, failure = self.link, self.failure
        if failure and failure != link.failure:
            first = self.problems[0]
            self.services.failures.put(
                link.deal,
                failure,
                next_step=first.next_step,
                field=first.label,
                correlation_id=self.request.correlation_id,
            )
        elif link.failure and not failure:
            self.services.failures.clear(link.deal)
        link.failure = failure

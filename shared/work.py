"""One claimed deal while it is worked on: what is known of it, what was done, and what a person has to mend.

Keeps the audit and saves the link; writes to neither side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from shared import breaker
from shared.errors import CosellError, Permanent, RemoteError, VersionConflict
from shared.logs import log
from shared.messages import SyncRequest
from shared.model import ALL_SIDES, Absence, Intent, Link, Side, Write
from shared.problems import REASONS, Problem, reason_of
from shared.remote import calls
from shared.store.audit import AuditEntry, Phase
from shared.store.deals import deal_of_record, deal_of_referral
from shared.view import View

if TYPE_CHECKING:
    from shared.mapping import TableMap
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
    _is_writing: bool = False
    _decisions: dict[str, dict[str, Any]] = field(default_factory=dict)
    _told: dict[str, dict[str, Any]] = field(default_factory=dict)

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
        self.problems.append(problem_of(refusal, self.view.table))
        self.failed(refusal)

    def refuse(self, name: str, refusal: Permanent) -> None:
        """Go on without a field, or a column of our own, that the CRM does not take."""
        self.fail(refusal)
        self.refused[name] = self.problems[-1]

    def conflicted(self, conflict: VersionConflict) -> None:
        """A conditional write met a newer version: nothing was written, and everything is decided anew."""
        self.failed(conflict, f"changed meanwhile, read again: {conflict}")

    def record_is_gone(self) -> None:
        """Somebody deleted the record. It is not made anew, and the referral stays as it is."""
        self.lost_sight("crm", f"{self.link.record} does not exist any more")
        if self.link.gone != "crm":
            self.link.state, self.link.absent = "tombstone", Absence("crm", self.services.clock())
        self.note(f"{self.link.record} does not exist any more; the referral stays as it is")

    def referral_is_gone(self) -> None:
        """Partner Center has the referral no more. It is not made anew, and the record stays as it is."""
        self.lost_sight("partner_center", f"referral {self.link.referral_id} is not in Partner Center any more")
        self.link.state = "tombstone"
        self.note(f"referral {self.link.referral_id} is not in Partner Center any more; the record stays as it is")

    # ------------------------------------------------------------ audit

    def started(
        self,
        side: Side,
        operation: str,
        fields: dict[str, list[Any]],
        writing: Mapping[str, list[Any]] | None = None,
        **details: str,
    ) -> None:
        """Store that a write is about to happen. A run that dies in it leaves a link of which nothing is settled.

        `writing`: the base once it is written, so that the next run knows our own value from somebody's change;
        `details`: what else of shared.model.Write helps the next run to find out what came of it.
        """
        if self.link.write:
            self.end_write("unknown", message="the next write began before anybody had learned what came of this one")
        self._add("started", side=side, operation=operation, fields=fields)
        self.link.unsettled = ALL_SIDES
        self.link.write = Write(side, operation, fields, **details)
        self.link.writing = {name: [side, *pair] for name, pair in (writing or {}).items()}
        self.save()
        self._is_writing = True
        calls.begin()

    def done(
        self, operation: str, fields: dict[str, list[Any]] | None = None, before: str = "", after: str = ""
    ) -> None:
        """`fields` None: all that were to be written."""
        self.wrote = True
        written = {} if fields is None else {"fields": fields}
        self.end_write("done", operation=operation, version_before=before, version_after=after, **written)

    def failed(self, error: RemoteError, words: str = "") -> None:
        """Put a failure into the audit: that of the write under way, unless it may have been carried out. Then the next
        reading tells.
        """
        words, id_ = words or str(error), error.request_id
        if self._is_writing and not calls.are_unclear():
            self.end_write("failed", message=words, request_id=id_)
        else:
            self._add("failed", message=words, request_id=id_)

    def lost_sight(self, side: Side, words: str) -> None:
        """What was written to is gone: nobody will find out any more what came of a write to it."""
        if self.link.write and self.link.write.side == side:
            is_known = self._is_writing and not calls.are_unclear()
            self.end_write("failed" if is_known else "unknown", message=words)

    def did_not_happen(self) -> None:
        """A create that an earlier run began was looked for and is not there."""
        if self.link.write:
            self.end_write("failed", message="found not done: nobody had learned of it")

    def end_write(self, phase: Phase, **details: Any) -> None:
        """Put the outcome of the write under way into the audit. One that an earlier run began is a recovered one."""
        write, is_ours = self.link.write, self._is_writing
        self.link.write, self.link.writing, self._is_writing = None, {}, False
        if write:
            if phase == "done":
                self._remember(write.side, details.get("fields", write.fields))
            known = {"side": write.side, "operation": write.operation, "fields": write.fields}
            details = {**known, "calls": calls.end() if is_ours else (), "recovered": not is_ours, **details}
        self._add(phase, **details)

    def _remember(self, side: Side, fields: Mapping[str, list[Any]]) -> None:
        """Count the write, so that it is noticed when something else always puts it back."""
        now = self.services.clock()
        write = breaker.written(side, {name: after for name, (_, after) in fields.items()}, now)
        self.link.written = breaker.lately([*self.link.written, write], now)

    def decided(self, decisions: Mapping[str, dict[str, Any]]) -> None:
        """Keep for the next entry which side won where both had moved, unless the audit has it from this run."""
        self._decisions |= {name: made for name, made in decisions.items() if self._told.get(name) != made}

    def _add(self, phase: Phase, **details: Any) -> None:
        if self._decisions and phase in ("started", "looked"):
            details["decisions"] = self._decisions
            self._told, self._decisions = {**self._told, **self._decisions}, {}
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
        self.view.remember_places()
        self.services.deals.save(self.link, self._entries)
        self._entries = []

    def release(self) -> frozenset[Side]:
        """Save what is known now and let go. Returns the sides to look at again, if somebody asked meanwhile."""
        view, link = self.view, self.link
        link.unsettled = ALL_SIDES if self.held or link.write or link.gone else ALL_SIDES - view.settled()
        view.remember_versions()
        view.remember_places()
        link.mapped = view.table.fingerprint
        self.services.deals.point(link)
        self._keep_failure()
        if link.state != "tombstone":
            link.state = "failed" if self.problems else "active"
        if not self._entries or self.notes or self._decisions or self.problems:
            self._add("looked", notes=(*self.notes, *map(str, self.problems)))
        marks = self.services.deals.release(link, self._entries)
        self._entries, self.notes, self.said = [], [], []
        return marks

    def abandon(self, error: Exception) -> None:
        """Let go without having finished: versions stay as they were, so that the message is not taken for known."""
        self.link.unsettled = ALL_SIDES
        request_id = error.request_id if isinstance(error, RemoteError) else ""
        self._add("failed", message=f"{type(error).__name__}: {error}", request_id=request_id)
        try:
            while self.services.deals.release(self.link, self._entries):
                self._entries = []
        except CosellError as unsaved:
            # Nothing is lost: the claim expires and the message comes back.
            log.warning("sync.not_released", extra={"deal": self.link.deal, "reason": str(unsaved)})

    def _keep_failure(self) -> None:
        link, failure = self.link, self.failure
        # Whoever asks for a deal sees how it is, even if a run died between the list and the link.
        asked = self.request.cause == "operator"
        if failure and (asked or failure != link.failure):
            self.services.failures.put(link.deal, *self.problems, correlation_id=self.request.correlation_id)
        elif not failure and (asked or link.failure):
            self.services.failures.clear(link.deal)
        link.failure = failure


def nothing_waits(request: SyncRequest, services: Services) -> None:
    """An operator asked for a deal that is none, or none any more: what was recorded of it is over."""
    services.failures.clear(deal_meant(request, services))


def deal_meant(request: SyncRequest, services: Services) -> str:
    """Return the key of the deal that a message names, known or not, without asking either side."""
    return services.deals.find(referral_id=request.referral_id, record=request.record) or (
        deal_of_record(request.record) if request.record else deal_of_referral(request.referral_id or "")
    )


def problem_of(refusal: Permanent, table: TableMap) -> Problem:
    """Return what a person has to mend, under the name that the field has in the CRM."""
    # Of two fields with one place (our team, and Microsoft's that is only shown) the one that is sent counts.
    fields = sorted(table.fields, key=lambda field: bool(field.to_partner_center))
    labels = {place: field.label for field in fields for place in (*field.lens.columns, *field.lens.pointers)}
    # Partner Center names fields without the leading slash.
    named = labels.get(refusal.field) or labels.get(f"/{refusal.field}") if refusal.field else ""
    reason = reason_of(refusal)
    next_step = refusal.next_step or REASONS[reason].advice
    return Problem(named or refusal.field or refusal.remote, str(refusal), next_step, reason)

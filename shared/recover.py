"""Finds out what came of a write whose answer nobody got: the run died in it, or the call timed out.

Looks at what was read of the side since, and asks the CRM for a record it may have created. Decides nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Literal

from shared.model import Side, Write
from shared.work import Work

Verdict = Literal["done", "failed", "unknown"]

WORDS: Mapping[Verdict, str] = {
    "done": "found done: nobody had learned of it",
    "failed": "found not done: nobody had learned of it",
    "unknown": "somebody changed it since, so nobody can tell whether it was done",
}


def recover(work: Work) -> None:
    """Put the outcome of an unfinished write into the audit, once it can be told. To be called after reading.

    Raises what asking the CRM raises.
    """
    write = work.link.write
    if write is None:
        work.view.finish_writing()  # of a link that the release before this one left in the middle of a write
        return
    verb = write.operation.partition(" ")[0]
    if verdict := _FINDERS[write.side, verb](work, write):
        # Partner Center takes a write as a whole, so one value that stands tells of all.
        work.view.finish_writing(whole=write.side == "partner_center" and verdict == "done")
        work.end_write(verdict, message=WORDS[verdict])


def digest(audit_text: str) -> str:
    """Return what tells one text of the CRM's Audit field from another, however the CRM ends its lines."""
    return hashlib.sha256(" ".join(audit_text.split()).encode()).hexdigest()[:16]


def _referral_created(work: Work, write: Write) -> Verdict | None:  # noqa: ARG001
    # Whether there is none is for the run to find out that would create one: it has to wait for late ones.
    return "done" if work.link.referral_id else None


def _microsoft_invited(work: Work, write: Write) -> Verdict | None:  # noqa: ARG001
    if work.link.microsoft_referral_id:
        return "done"
    # As long as there is an intent it is for the run that invites. Without one the engagement was just looked at.
    return None if work.link.intent else "failed"


def _referral_updated(work: Work, write: Write) -> Verdict | None:
    view = work.view
    if view.own is None:
        return None
    if view.own.etag == write.version:
        return "failed"
    return "done" if view.stands_as_written() else "unknown"


def _record_created(work: Work, write: Write) -> Verdict:
    link, view = work.link, work.view
    if link.record and link.record.table == write.table:
        return "done"
    found = work.services.crm.find_by_referral(write.table, link.referral_id)
    if found and link.record is None:
        # Whatever became of the referral meanwhile, this is its record.
        view.record, link.record = found, found.ref
        view.refresh()
    return "done" if found else "failed"


def _record_updated(work: Work, write: Write) -> Verdict | None:
    """Each write puts a line of its own into the Audit field, where the field map has one and we may read it."""
    view = work.view
    if view.record is None:
        return None
    shown = view.system_value(view.table.columns.audit)
    if write.shown and shown is not None:
        if digest(str(shown)) != write.shown:
            return "failed"
        work.link.audit_text = str(shown)
        return "done"
    if view.record.version == write.version:
        return "failed"
    return "done" if view.stands_as_written() else "unknown"


_FINDERS: Mapping[tuple[Side, str], Callable[[Work, Write], Verdict | None]] = {
    ("partner_center", "create"): _referral_created,
    ("partner_center", "update"): _referral_updated,
    ("microsoft", "invite"): _microsoft_invited,
    ("crm", "create"): _record_created,
    ("crm", "update"): _record_updated,
}

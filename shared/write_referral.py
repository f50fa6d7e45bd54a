"""Writes to Partner Center: creates the referral of a record, invites Microsoft, updates and closes.

Partner Center knows no idempotency key. Before each create the link gets an intent; a run that finds one looks whether
the create happened before it creates again.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from shared.create import NewReferral, content, invitation, new_referral, why_unsent
from shared.decide import Plan
from shared.errors import OutcomeUnknown, Permanent, Retryable
from shared.lifecycle import is_closed
from shared.model import Intent, Referral
from shared.recover import recover
from shared.remote import calls
from shared.work import Work

SETTLE = timedelta(seconds=120)
"""How long after an interrupted create its result may still come to light; only then is it created again. Longer than
any call lasts, so that a run which still waits for its answer is not taken for a dead one.
"""


def create_referral(work: Work) -> bool:
    """Create the referral of a record, and invite Microsoft if help was chosen. Returns whether there is one."""
    view, link = work.view, work.link
    own, new = _found_after_crash(work), _new_referral(work)
    if own is None:
        link.intent = None
        if new is None:
            return False
        own = _post(work, new.document)
    else:
        view.finish_writing(whole=True)
    _take(work, own)
    view.agree_on_base(link.base)  # before Microsoft is invited: what people change while that goes wrong is a change
    is_over = is_closed(view.partner_center[view.table.lifecycle.name])  # one made by a dead run may be closed by now
    help_wanted = new.help if new and not is_over else None
    link.intent = Intent("invite_microsoft", work.services.clock()) if help_wanted else None
    work.save()
    # Only now, for a run that was overtaken has to leave no trace: what it made is one too many.
    work.services.deals.point(link)
    if help_wanted:
        _invite(work, help_wanted)
    view.agree_on_base(link.base)
    return True


def settle_creates(work: Work) -> None:
    """The record is gone: what an interrupted run has created for it stays, and is known. Raises Retryable while that
    may still come to light."""
    if found := _found_after_crash(work):
        _take(work, found)
    drop_invitation(work)


def _new_referral(work: Work) -> NewReferral | None:
    """Return the referral to create, None where there is to be none: then the notes or problems say why."""
    view = work.view
    if why := why_unsent(view.table, view.crm, shared=view.is_shared):
        work.note(why)
        return None
    new = new_referral(work.services.field_map, view.table, view.crm)
    work.problems = new.lacking(view.unreadable.values())
    return None if new.problems else new


def invite_for_help(work: Work, plan: Plan) -> None:  # noqa: ARG001
    """Help was chosen for a deal that Microsoft does not have yet: invite Microsoft now."""
    field, crm = work.view.table.assistance, work.view.crm
    assert field is not None
    code = field.lens.to_partner_center(crm[field.name], field.lens.read_partner_center({}))
    _invite(work, code)
    work.link.base[field.name] = [code, crm[field.name]]


def drop_invitation(work: Work) -> bool:
    """Microsoft is not to be invited any more. Returns whether an interrupted run did it already: then it stays."""
    theirs = _invited_before_crash(work)
    work.link.intent = work.interrupted = None
    if theirs:
        _take_microsofts(work, theirs)
        work.done("invite Microsoft", after=theirs.etag)
        work.note("Microsoft was invited by a run that did not finish")
    return theirs is not None


def patch_referral(work: Work, plan: Plan) -> None:
    """Write what the plan says, if the referral still has the version we know."""
    view, link = work.view, work.link
    # Partner Center closes for good, so the status goes last.
    changes = dict(sorted(plan.to_partner_center.items(), key=lambda item: item[0] == view.table.lifecycle.name))
    lenses = {field.name: field.lens for field in view.table.fields}
    operations = [
        {"op": "replace", "path": pointer, "value": value}
        for name, change in changes.items()
        for pointer, value in change.differing(lenses[name], lenses[name].write_partner_center).items()
    ]
    audited = {name: [change.before, change.after] for name, change in changes.items()}
    before = view.own.etag if view.own else link.referral_etag
    writing = {name: plan.base[name] for name in changes}
    work.started("partner_center", "update referral", audited, writing, version=before)
    try:
        view.own = work.services.partner_center.patch(link.referral_id, operations, before)
    except Permanent:
        if calls.are_unclear():  # an attempt before the refused one may have been carried out
            view.own = work.services.partner_center.get(link.referral_id)
            view.refresh()
            recover(work)
        raise
    view.refresh()
    for name in changes:
        # As sent, not as read back: what differs came from somebody else meanwhile, or is Partner Center's spelling.
        link.base[name] = plan.base[name]
    work.done("update referral", audited, before, view.own.etag)


def _post(work: Work, document: Mapping[str, Any]) -> Referral:
    work.link.intent = Intent("create_referral", work.services.clock())
    audited = {key: [None, value] for key, value in document.items()}
    work.started("partner_center", "create referral", audited, work.view.agreed(content(work.view.table, document)))
    # The event about the new referral may be quicker than we are: it must find this deal by the record.
    work.services.deals.point(work.link)
    return _create(work, document)


def _take(work: Work, own: Referral) -> None:
    view, link = work.view, work.link
    view.own = own
    link.referral_id, link.engagement_id = own.id.lower(), own.engagement_id.lower()
    view.refresh()
    work.said.append(f"Created Partner Center referral {own.id}")
    work.done("create referral", after=own.etag)


def _invite(work: Work, assistance_code: str) -> None:
    """Create Microsoft's copy in our engagement, or find the one an interrupted run created."""
    view, link, partner_center = work.view, work.link, work.services.partner_center
    view.own = view.own or partner_center.get(link.referral_id)
    theirs = _invited_before_crash(work)
    if theirs is None:
        link.intent = Intent("invite_microsoft", work.services.clock())  # from now on, for how long it may stay unseen
        work.started("microsoft", "invite Microsoft", {"help": [None, assistance_code]})
        theirs = _create(work, invitation(view.own.document, assistance_code))
    _take_microsofts(work, theirs)
    work.said.append("Invited Microsoft")
    work.done("invite Microsoft", after=theirs.etag)


def _take_microsofts(work: Work, theirs: Referral) -> None:
    work.view.microsoft = theirs
    work.link.microsoft_referral_id = theirs.id.lower()
    work.link.intent = work.interrupted = None
    work.view.refresh()
    work.services.deals.point(work.link)


def _invited_before_crash(work: Work) -> Referral | None:
    """Return Microsoft's copy if an interrupted run created it. Raises Retryable while it may still show."""
    if work.interrupted is None or work.interrupted.operation != "invite_microsoft":
        return None
    engagement = work.services.partner_center.engagement(work.link.engagement_id)
    theirs = next((row for row in engagement if row.is_microsofts), None)
    if theirs is None:
        _wait_for(work.interrupted, work)
        work.did_not_happen()
    return theirs


def _create(work: Work, document: Mapping[str, Any]) -> Referral:
    try:
        return work.services.partner_center.create(document)
    except OutcomeUnknown:
        raise  # the intent stays: the next run looks first
    except (Permanent, Retryable) as failed:
        work.link.intent = None  # it certainly did not happen
        if isinstance(failed, Retryable):
            work.failed(failed)
        raise


def _found_after_crash(work: Work) -> Referral | None:
    """Return the referral that an interrupted run created, if any. Raises Retryable while one may still show."""
    intent, record = work.interrupted, work.link.record
    if intent is None or intent.operation != "create_referral" or record is None:
        return None
    found = work.services.partner_center.find_created(record.id, intent.sent_utc)
    if found is None:
        _wait_for(intent, work)
        work.did_not_happen()
    else:
        work.note(f"referral {found.id} was created by a run that did not finish")
    return found


def _wait_for(intent: Intent, work: Work) -> None:
    left = (intent.sent_utc + SETTLE - work.services.clock()).total_seconds()
    if left > 0:
        raise OutcomeUnknown("an interrupted create may still come to light", retry_after_s=left + 1)

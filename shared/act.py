"""Carries out a plan on one claimed deal and moves the base, field by field, as it gets true. Decides nothing.

What one side refuses does not keep the other from being written.
"""

from __future__ import annotations

from shared.decide import Plan
from shared.errors import NotFound, Permanent
from shared.work import Work
from shared.write_record import update_record
from shared.write_referral import drop_invitation, invite_for_help, patch_referral


def carry_out(work: Work, plan: Plan) -> bool:
    """Write what the plan says. Returns whether deciding again makes sense: a write may bring back a change."""
    link = work.link
    if plan.invite and work.view.own is None:
        # Whether it was Microsoft who brought the deal stands in the referral.
        work.view.own = work.services.partner_center.get(link.referral_id)
        work.view.refresh()
        return True
    work.problems = [*work.view.unreadable.values(), *plan.problems, *work.refused.values()]
    work.held = bool(plan.held)
    for note in plan.notes:
        work.note(note)
    work.decided(plan.decisions)
    given_up = not plan.invite and link.intent is not None and link.intent.operation == "invite_microsoft"
    was_invited = given_up and drop_invitation(work)
    if plan.held:
        work.note(f"nothing is written: {plan.held}")
        return False
    if plan.stopped:
        work.problems = plan.problems  # and nothing whose words could change: it is shown once
        return False
    if was_invited:
        return True  # what Microsoft's copy says has to be decided as well
    waiting = {*plan.to_partner_center, *plan.to_crm}
    settled = {name: pair for name, pair in plan.base.items() if name not in waiting}
    link.base = settled | {name: link.base[name] for name in waiting if name in link.base}
    for name in work.refused:
        plan.to_crm.pop(name, None)
    planned, refused_before = len(work.problems), len(work.refused)
    writes = ((plan.to_partner_center, patch_referral), (plan.invite, invite_for_help), (True, update_record))
    for due, write in writes:
        try:
            if due:
                write(work, plan)
        except NotFound as gone:
            if gone.remote != work.services.crm.name:
                raise  # whether the referral is gone for good is found out by looking again
            work.fail(gone)
        except Permanent as refusal:
            work.fail(refusal)
    if len(work.refused) > refused_before:
        return True  # the rest is decided anew, from what the record holds now
    failed = len(work.problems) > planned
    return plan.writes and not failed and link.state != "tombstone"

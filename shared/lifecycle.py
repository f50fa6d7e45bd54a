"""The states of a deal on both sides, and which move follows which. Performs no I/O.

Partner Center: pending (New) -> active (Active/Accepted) -> won, lost, declined or expired (Closed, for good).
CRM:            on_hold       -> open                     -> won or lost (and, unlike there, back to open).
https://learn.microsoft.com/partner-center/developer/referral-resources
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared.lenses import Unmapped, Value, Winner, text_of

PARTNER_CENTER_STATES = {
    ("New", "Pending"): "pending",
    ("New", "Received"): "pending",
    ("Active", "Accepted"): "active",
    ("Closed", "Won"): "won",
    ("Closed", "Lost"): "lost",
    ("Closed", "Declined"): "declined",
    ("Closed", "Expired"): "expired",
}
STATUS_OF = {
    "pending": ("New", "Pending"),
    "active": ("Active", "Accepted"),
    "won": ("Closed", "Won"),
    "lost": ("Closed", "Lost"),
    "declined": ("Closed", "Declined"),
}
CRM_STATES = ("on_hold", "open", "won", "lost")

TO_CRM = {
    "pending": "on_hold",
    "active": "open",
    "won": "won",
    "lost": "lost",
    "declined": "lost",
    "expired": "lost",
}
# From the referral's state, by the CRM's: the next step towards it. A won deal that was never accepted is accepted
# first, because Partner Center takes one step at a time. An accepted deal that a seller puts on hold stays accepted.
NEXT = {
    "pending": {"on_hold": "pending", "open": "active", "won": "active", "lost": "declined"},
    "active": {"on_hold": "active", "open": "active", "won": "won", "lost": "lost"},
}
CLOSED = frozenset({"won", "lost", "declined", "expired"})
_RANK = {"pending": 0, "on_hold": 0, "active": 1, "open": 1}


def is_closed(partner_center: Value) -> bool:
    """Whether a referral in this state accepts no write any more."""
    return bool(partner_center) and partner_center["state"] in CLOSED


def was_accepted(partner_center: Value) -> bool:
    """Whether somebody accepted the referral, be it that it is won by now."""
    return bool(partner_center) and partner_center["state"] in ("active", "won")


def is_writable(partner_center: Value) -> bool:
    """Whether edits make sense: accepted and not closed. Before acceptance a referral is only accepted or declined."""
    return bool(partner_center) and partner_center["state"] == "active"


@dataclass(frozen=True)
class CrmState:
    """One row of the field map's states: a record whose columns match `read` is in `state`; `write` puts it there.

    `reason`: what Partner Center is told when a deal is lost this way (its `statusReason`).
    """

    state: str
    read: Mapping[str, Any]
    write: Mapping[str, Any]
    reason: str = ""


@dataclass(frozen=True)
class Lifecycle:
    """The lens of status and substatus: one field, because only legal pairs may be sent.

    `lost_reason`: what Partner Center is told where a lost state names no reason of its own.

    Canonical values are {"state": ...}, with "reason" where a lost deal has one.
    """

    states: tuple[CrmState, ...]
    lost_reason: str = ""

    @property
    def pointers(self) -> tuple[str, ...]:
        return ("/status", "/substatus", "/statusReason")

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for row in self.states for name in (*row.read, *row.write)))

    def read_partner_center(self, document: Mapping[str, Any]) -> Value:
        status, substatus = text_of(document.get("status")), text_of(document.get("substatus"))
        # Unknown pairs are kept as they are: they agree with nothing and are shown, never guessed.
        return {"state": PARTNER_CENTER_STATES.get((status, substatus), f"{status}/{substatus}")}

    def write_partner_center(self, value: Value) -> dict[str, Any]:
        status, substatus = STATUS_OF[value["state"]]
        reason = {"/statusReason": value["reason"]} if value.get("reason") else {}
        return reason | {"/status": status, "/substatus": substatus}

    def read_crm(self, values: Mapping[str, Any]) -> Value:
        for row in self.states:
            if all(values.get(column) == wanted for column, wanted in row.read.items()):
                return _canonical(row)
        return {"state": " ".join(f"{column}={values.get(column)}" for column in self.columns)}

    def write_crm(self, value: Value) -> dict[str, Any]:
        rows = [row for row in self.states if row.state == value["state"]]
        return dict(next((row for row in rows if _canonical(row) == value), rows[0]).write)

    def to_crm(self, partner_center: Value, crm: Value) -> Value:
        state = TO_CRM.get(partner_center["state"])
        if state is None:
            raise Unmapped(partner_center["state"], ", ".join("/".join(pair) for pair in PARTNER_CENTER_STATES))
        rows = {row.state: row for row in reversed(self.states)}  # the first row of a state counts
        # A lead cannot be won: it is accepted, and the opportunity it becomes is won.
        row = rows.get(state) or (rows.get("open") if state == "won" else None)
        return crm if row is None or (crm and crm["state"] == row.state) else _canonical(row)

    def to_partner_center(self, crm: Value, partner_center: Value) -> Value:
        steps = NEXT.get(partner_center["state"], {})
        if steps and crm["state"] not in steps:
            raise Unmapped(crm["state"], ", ".join(dict.fromkeys(row.state for row in self.states)))
        state = steps.get(crm["state"])
        if state is None or state == partner_center["state"]:
            return partner_center
        reason = (crm.get("reason") or self.lost_reason) if state in ("lost", "declined") else ""
        return {"state": state} | ({"reason": reason} if reason else {})

    def agree(self, partner_center: Value, crm: Value) -> bool:
        stays = NEXT.get(partner_center["state"], {}).get(crm["state"]) == partner_center["state"]
        return stays or bool(self.to_crm(partner_center, crm) == crm)

    def leads(self, partner_center: Value, crm: Value) -> Winner | None:
        """Say which side is further along, for when both moved apart. A closed referral wins: it cannot move."""
        if is_closed(partner_center):
            return "partner_center"
        return "crm" if _RANK.get(crm["state"], 2) > _RANK.get(partner_center["state"], 2) else "partner_center"


def _canonical(row: CrmState) -> Value:
    return {"state": row.state} | ({"reason": row.reason} if row.reason else {})

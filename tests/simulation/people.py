"""The people on both sides, and a ledger of what each of them entered: what must not get lost, and nothing else.

A value can be recognised wherever it turns up: every edit enters another one, unless somebody takes an edit back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from local.simulators.base import Refused
from shared.model import RecordRef

if TYPE_CHECKING:
    from tests.simulation.cloud import Cloud

Side = Literal["crm", "partner_center"]
Row = Mapping[str, Any]

MOST_DEALS = 3
CRM_NOTES_LENGTH = 2_000
HELP = "CustomerTechnicalArchitecture"
ODD_TEXTS = (
    "",
    " Grüße aus Köln 👋🏽",
    "\r\nsecond line\r\n",
    " שלום",
    " " + "long " * 500,
    " <b>&amp;</b>",
    " \u200btrailing   ",
)


@dataclass(frozen=True)
class Edit:
    at: datetime
    side: Side
    field: str
    value: str
    """As `token` recognises it."""
    before: str = ""
    """What stood there, on the same side, and so was known to whoever entered another value over it."""
    taken_back: bool = False


@dataclass
class Deal:
    """`born` says where; the ids are those that people know it by. `table`: opportunity or lead."""

    number: int
    born: Literal["crm", "deal", "lead"]
    record_id: str = ""
    referral_id: str = ""
    edits: list[Edit] = field(default_factory=list)
    deleted: bool = False
    deleted_unknown: bool = False
    """Its record was deleted before the product had learned which one it had made: nothing tells it from one that was
    never made."""
    hidden: dict[str, Any] | None = None
    """Its referral, while Partner Center does not show it."""
    was_hidden: bool = False
    off_since: datetime | None = None
    """Since when its seller wants nothing written, None as long as it is shared."""

    def __str__(self) -> str:
        return f"D{self.number}"

    def standing(self, name: str) -> list[Edit]:
        """The edits of a field that nobody has knowingly entered another value over. Several were made at once."""
        edits = [edit for edit in self.edits if edit.field == name]
        return [
            edit
            for number, edit in enumerate(edits, 1)
            if not any(later.before == edit.value for later in edits[number:])
        ]


def token(name: str, value: Any) -> str:
    """What makes a value recognisable on either side, whatever the way there does to its form."""
    if value in (None, ""):
        return ""
    match name:
        case "deal_value":
            return f"{Decimal(str(value)).normalize():f}"
        case "close_date":
            return str(value)[:10]
        case _:
            return str(value).split()[0]


FIELDS: Mapping[str, tuple[str, Callable[[int], Any]]] = {
    "notes": ("/details/notes", lambda number: f"n{number}{ODD_TEXTS[number % len(ODD_TEXTS)]}"),
    "deal_value": ("/details/dealValue", lambda number: 40_000 + number + (0.25 if number % 3 == 0 else 0)),
    "close_date": ("/details/closingDateTime", lambda number: str(date(2027, 1, 1) + timedelta(days=number))),
}
"""Of the fields that go both ways: where Partner Center has them, and the value of the n-th edit."""


def details_of(own: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a referral that people enter, by field."""
    details = own["details"]
    return {"notes": details["notes"], "deal_value": details["dealValue"], "close_date": details["closingDateTime"]}


class People:
    def __init__(self, cloud: Cloud) -> None:
        self.cloud, self.desk, self.portal = cloud, cloud.desk, cloud.people
        self.deals: list[Deal] = []
        self.edits = 0
        self.transactions: dict[str, tuple[Deal, dict[str, Any]]] = {}
        """Edits that nobody can see yet."""
        self._account = ""
        self._contact = ""

    # ------------------------------------------------------------ looking

    def referral(self, deal: Deal) -> dict[str, Any] | None:
        """The partner's own referral of a deal."""
        if deal.referral_id:
            return self.cloud.pc.referrals.get(deal.referral_id)
        found = [row for row in self.cloud.referrals() if row["externalReferenceId"] == deal.record_id]
        if len(found) > 1:  # one too many: the one that the record names counts
            row = self.opportunity(deal)
            found = [each for each in found if row and each["id"] == row["referral_id"]] or found
        return found[0] if found else None

    def opportunity(self, deal: Deal) -> Row | None:
        return self._row(deal, "opportunity")

    def lead(self, deal: Deal) -> Row | None:
        return self._row(deal, "lead")

    def _row(self, deal: Deal, kind: str) -> Row | None:
        rows = self.desk.opportunities() if kind == "opportunity" else self.desk.leads()
        if deal.record_id:
            return next((row for row in rows if row["id"] == deal.record_id), None)
        return next((row for row in rows if row["referral_id"] == deal.referral_id), None)

    # ------------------------------------------------------------ sellers

    def seller_creates(self, *, help_wanted: bool, shared: bool) -> str:
        if not self._account:
            self._account = self.desk.create_account()
            self._contact = self.desk.create_contact(self._account)
        values: dict[str, Any] = {"sync_flag": shared, "account": self._account, "contact": self._contact}
        if help_wanted:
            values["help"] = HELP
        deal = self._new("crm")
        deal.off_since = None if shared else self.cloud.clock.now()
        entered = {name: self._value_for_the_crm(name) for name in FIELDS}
        deal.record_id = self.desk.create_opportunity(name=f"{deal}", **values, **entered)
        self._enter(deal, "crm", entered)
        return f"a seller creates {deal}" + (" with help" if help_wanted else "") + ("" if shared else ", not shared")

    def seller_edits(self, deal: Deal, name: str, *, take_back: bool = False) -> str:
        row = self.opportunity(deal)
        if row is None:
            return ""
        value = self._earlier(deal, "crm", name) if take_back else self._value_for_the_crm(name)
        if value is None:
            return ""
        if not self._allowed(lambda: self.desk.edit(row["id"], **{name: value})):
            return ""
        self._enter(deal, "crm", {name: value}, row, taken_back=take_back)
        return f"a seller sets {name} of {deal} to {value!r:.40}"

    def seller_edits_at_length(self, deal: Deal) -> str:
        """Something long begins that ends with an edit: the row shows late, with the time at which it was written.

        Salesforce only; in Dataverse change tracking goes by the order of commits.
        """
        row = self.opportunity(deal)
        if row is None or self.desk.crm != "salesforce" or self.transactions:
            return ""
        value = self._value_for_the_crm("notes")
        transaction = self.cloud.crm.people.begin_transaction()
        fields = {self.desk.fields["opportunity"]["notes"]: value}
        edit = self.cloud.crm.people.edit
        if not self._allowed(lambda: edit("Opportunity", row["id"], fields, transaction=transaction)):
            self.cloud.crm.people.commit(transaction)
            return ""
        self.transactions[transaction] = (deal, {"notes": value})
        return f"a seller sets notes of {deal} to {value!r:.40} in something long"

    def long_edits_end(self) -> str:
        """What was done at length is there now."""
        ended = list(self.transactions.items())
        self.transactions.clear()
        for transaction, (deal, values) in ended:
            before = self.opportunity(deal)
            self.cloud.crm.people.commit(transaction)
            self._enter(deal, "crm", values, before)
        return f"something long ends: {', '.join(str(deal) for _, (deal, _) in ended)}" if ended else ""

    def seller_moves(self, deal: Deal, state: str) -> str:
        row = self.opportunity(deal)
        if row is None or row["state"] == state:
            return ""
        move = {"won": self.desk.win, "lost": self.desk.lose, "open": self.desk.take_on, "on_hold": self.desk.hold}
        if not self._allowed(lambda: move[state](row["id"])):
            return ""
        return f"a seller moves {deal} to {state}"

    def seller_flips_the_flag(self, deal: Deal) -> str:
        row = self.opportunity(deal)
        if row is None or not self._allowed(lambda: self.desk.edit(row["id"], sync_flag=not row["sync_flag"])):
            return ""
        deal.off_since = self.cloud.clock.now() if row["sync_flag"] else None
        return f"a seller sets Sync of {deal} to {'No' if row['sync_flag'] else 'Yes'}"

    def seller_asks_for_help(self, deal: Deal) -> str:
        row = self.opportunity(deal)
        if row is None or row["help"] or not self._allowed(lambda: self.desk.edit(row["id"], help=HELP)):
            return ""
        return f"a seller asks Microsoft for help with {deal}"

    def seller_deletes(self, deal: Deal) -> str:
        row = self.opportunity(deal)
        if row is None or not self._allowed(lambda: self.desk.delete(row["id"])):
            return ""
        deal.deleted = True
        if deal.born != "crm" and not self._is_linked(RecordRef(self.desk.opportunity, row["id"])):
            deal.deleted_unknown = True
        return f"a seller deletes {deal}"

    def _is_linked(self, record: RecordRef) -> bool:
        deals = self.cloud.services.deals
        deal = deals.find(record=record)
        link = deals.load(deal) if deal else None
        return link is not None and link.record == record

    def seller_answers_the_lead(self, deal: Deal, *, qualify: bool) -> str:
        lead = self.lead(deal)
        if lead is None or lead["state"] != "on_hold":
            return ""
        act = self._qualify if qualify else self._disqualify
        if not self._allowed(lambda: act(deal, lead["id"])):
            return ""
        return f"a seller {'qualifies' if qualify else 'disqualifies'} the lead of {deal}"

    def _qualify(self, deal: Deal, lead_id: str) -> None:
        """The CRM's own button makes an opportunity, and fills in what an opportunity must have."""
        deal.record_id = self.desk.qualify(lead_id)
        made = self.opportunity(deal)
        assert made
        self._enter(deal, "crm", {name: made[name] for name in FIELDS})

    def _disqualify(self, deal: Deal, lead_id: str) -> None:
        self.desk.disqualify(lead_id)

    def automation_touches(self, deal: Deal) -> str:
        row = self.opportunity(deal)
        if row is None or not self._allowed(lambda: self.cloud.backstage.touch(row["id"])):
            return ""
        return f"automation touches {deal}"

    # ------------------------------------------------------------ the portal

    def partner_edits(self, deal: Deal, name: str, *, take_back: bool = False) -> str:
        own = self.referral(deal)
        if own is None:
            return ""
        value = self._earlier(deal, "partner_center", name) if take_back else self._value(name)
        if value is None:
            return ""
        sent = f"{value}T00:00:00Z" if name == "close_date" else value
        before = details_of(own)
        if not self._allowed(lambda: self.portal.partner_edits(own["id"], {FIELDS[name][0]: sent})):
            return ""
        self._enter(deal, "partner_center", {name: value}, before, taken_back=take_back)
        return f"the partner sets {name} of {deal} to {value!r:.40} in Partner Center"

    def partner_acts(self, deal: Deal, act: str) -> str:
        own = self.referral(deal)
        if own is None:
            return ""
        acts: Mapping[str, Callable[[], Any]] = {
            "views": lambda: self.portal.partner_views(own["id"]),
            "accepts": lambda: self.portal.partner_accepts(own["id"], {"/name": own["name"] or f"{deal}"}),
            "declines": lambda: self.portal.partner_declines(own["id"]),
            "wins": lambda: self.portal.partner_closes(own["id"], "Won"),
            "loses": lambda: self.portal.partner_closes(own["id"], "Lost", "Customer chose another vendor"),
        }
        if not self._allowed(acts[act]):
            return ""
        return f"the partner {act} {deal} in Partner Center"

    def microsoft_acts(self, deal: Deal, act: str) -> str:
        own = self.referral(deal)
        if own is None:
            return ""
        engagement = own["engagementId"]
        acts: Mapping[str, Callable[[], Any]] = {
            "accepts": lambda: self.portal.microsoft_accepts(engagement),
            "declines": lambda: self.portal.microsoft_declines(engagement),
            "edits": lambda: self.portal.microsoft_edits(engagement, {"/details/notes": f"m{self._next()}"}),
        }
        return f"Microsoft {act} {deal}" if self._allowed(acts[act]) else ""

    def microsoft_brings_a_deal(self) -> str:
        deal = self._new("deal")
        own = self.portal.microsoft_creates_deal({"/name": f"{deal}", "/customerProfile/name": f"Customer of {deal}"})
        deal.referral_id = own["id"]
        self._enter_what_came_with(deal, own)
        return f"Microsoft brings {deal}"

    def customer_asks(self) -> str:
        deal = self._new("lead")
        own = self.portal.creates_lead({"/customerProfile/name": f"Customer of {deal}"})
        deal.referral_id = own["id"]
        self._enter_what_came_with(deal, own)
        return f"a customer asks: lead {deal}"

    def referral_is_hidden_or_shown(self, deal: Deal) -> str:
        """Partner Center loses sight of a referral, or shows it again; no event tells of either."""
        if deal.hidden:
            self.portal.referral_reappears(deal.hidden)
            deal.hidden = None
            return f"the referral of {deal} is there again"
        own = self.referral(deal)
        if own is None:
            return ""
        deal.hidden, deal.was_hidden = self.portal.referral_disappears(own["id"]), True
        return f"the referral of {deal} is not there any more"

    def time_to_answer_runs_out(self) -> str:
        return f"{len(self.portal.expire_pending(at_once=True))} unanswered referrals expire"

    # ------------------------------------------------------------ how

    def _new(self, born: Literal["crm", "deal", "lead"]) -> Deal:
        deal = Deal(len(self.deals) + 1, born)
        self.deals.append(deal)
        return deal

    def _next(self) -> int:
        self.edits += 1
        return self.edits

    def _value(self, name: str) -> Any:
        return FIELDS[name][1](self._next())

    def _value_for_the_crm(self, name: str) -> Any:
        """The CRM's form takes no more than its column."""
        value = self._value(name)
        return value[:CRM_NOTES_LENGTH] if isinstance(value, str) else value

    def _earlier(self, deal: Deal, side: Side, name: str) -> Any:
        """The value before the last edit of this field on this side; None when there was none."""
        before = [edit for edit in deal.edits if edit.field == name and edit.side == side][-2:-1]
        if not before or not before[0].value:
            return None
        value = before[0].value
        return float(value) if name == "deal_value" else value

    def _enter(
        self,
        deal: Deal,
        side: Side,
        values: Mapping[str, Any],
        before: Row | None = None,
        *,
        taken_back: bool = False,
    ) -> None:
        """`before`: the side's values that were there; None: there was nothing."""
        now, known = self.cloud.clock.now(), before or {}
        deal.edits += [
            Edit(now, side, name, token(name, value), token(name, known.get(name)), taken_back)
            for name, value in values.items()
        ]

    def _enter_what_came_with(self, deal: Deal, own: Mapping[str, Any]) -> None:
        self._enter(deal, "partner_center", details_of(own))

    @staticmethod
    def _allowed(act: Callable[[], Any]) -> bool:
        """Do it; the systems have rules for people as well."""
        try:
            act()
        except (ValueError, Refused):
            return False
        return True

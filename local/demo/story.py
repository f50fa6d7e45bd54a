"""The story of the demo, step by step: what people do, and what must be seen on the other side because of it.

A step acts and returns what is expected; how long that may take is not its business. Nothing here touches the deals
but the portal, the CRM and the product; only the last steps also cut the power and let the product forget what it read.
The CRM is in the words of local/desks, so the story is the same whichever it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from local.demo.world import REST_WITHIN_S, Document, Sight, World

if TYPE_CHECKING:
    from local.stage import Stage

HELP = "CustomerTechnicalArchitecture"
SLOW_ANSWER_S = 5

SYNCHRONIZED = re.compile("^✓")


@dataclass(frozen=True)
class Expected:
    """`see` returns what there is now, by what it is called; a pattern in `values` need only be found in it."""

    values: Mapping[str, Any]
    see: Callable[[], Mapping[str, Any]]
    at_once: bool = False  # it is so already or never


class Story:
    """The people's notes: which deal is which."""

    def __init__(self, world: World, stage: Stage) -> None:
        self.world, self.stage = world, stage
        self.opportunity = ""  # the seller's co-sell deal
        self.invitation: Document = {}  # Microsoft's deal, as it was sent
        self.lead: Document = {}

    # ------------------------------------------------------------ the webhook

    def register_first(self) -> Expected:
        answer = self.world.registers(test=False)
        ours = self._masked(self.stage.webhook_url)
        return _answered(answer, {"status": 200, "result": "created", "registered": ours})

    def register_again(self) -> Expected:
        answer = self.world.registers(test=False)
        return _answered(answer, {"status": 200, "result": "unchanged"})

    def register_over_foreign(self) -> Expected:
        self._other_tool_registers()
        answer = self.world.registers(test=False)
        return _answered(answer, {"status": 409, "result": "refused", "registered": self._theirs()})

    def register_with_overwrite(self) -> Expected:
        answer = self.world.registers(overwrite=True, test=False)
        ours = self._masked(self.stage.webhook_url)
        return _answered(answer, {"status": 200, "result": "updated", "before": self._theirs(), "registered": ours})

    def test_event(self) -> Expected:
        taken = len(self.world.other_tool_took())
        answer = self.world.registers(test=True)
        expected = {"test passed": True, "the other tool got it, signature intact": 1}
        return Expected(
            expected,
            lambda: {
                "test passed": _at(answer, "test", "passed"),
                "the other tool got it, signature intact": len(self.world.other_tool_took()) - taken,
            },
        )

    def taken_over(self) -> Expected:
        self._other_tool_registers()
        self.world.runs("check_registration")

        def see() -> Mapping[str, Any]:
            registration = self.world.health()["registration"]
            return {"verdict": registration["verdict"], "says": registration["says"]}

        return Expected({"verdict": "attention", "says": re.compile(re.escape(self._theirs()))}, see)

    def taken_back(self) -> Expected:
        answer = self.world.registers(overwrite=True, test=False)
        events = [entry["event"] for entry in self.world.registration()["history"]]
        seen = {
            "result": answer["result"],
            "verdict": self.world.health()["registration"]["verdict"],
            "history, newest first": events[:2],
        }
        history = ["registration.updated", "registration.taken_over"]
        expected = {"result": "updated", "verdict": "ok", "history, newest first": history}
        return Expected(expected, lambda: seen, at_once=True)

    def _other_tool_registers(self) -> None:
        url = self.stage.settings["WEBHOOK_RELAY_URLS"]
        self.world.partner_center("another_tool_registers", url=url, events=["test-created", "subscription-updated"])

    def _theirs(self) -> str:
        return self._masked(self.stage.settings["WEBHOOK_RELAY_URLS"])

    # ------------------------------------------------------------ a deal of the seller's

    def seller_shares(self) -> Expected:
        self.opportunity = self._new_opportunity("Contoso - data platform", 50000)

        def see() -> Mapping[str, Any]:
            sight = self.world.look()
            own, record = sight.referral_of(self.opportunity), sight.opportunity(id=self.opportunity)
            theirs = sight.microsofts_copy(own)
            return {
                "referral": own.get("type"),
                "value": _at(own, "details", "dealValue"),
                "Microsoft is asked for": _at(theirs, "inviteContext", "assistanceRequestCode"),
                "identifier is the referral's": bool(own) and record["referral_id"] == own["id"],
                "link": record["referral_link"],
                "check mark": record["sync_status"],
                "audit": record["audit"],
            }

        return Expected(
            {
                "referral": "Shared",
                "value": 50000,
                "Microsoft is asked for": HELP,
                "identifier is the referral's": True,
                "link": re.compile("^https://partner.microsoft.com/"),
                "check mark": SYNCHRONIZED,
                "audit": re.compile("Created Partner Center referral"),
            },
            see,
        )

    def seller_updates(self) -> Expected:
        changes = {"deal_value": 75000, "close_date": "2027-05-31", "notes": "Budget approved."}
        self.world.seller.edit(self.opportunity, **changes)
        expected = {"value": 75000, "closes": re.compile("^2027-05-31"), "notes": "Budget approved."}
        return Expected(expected, lambda: _details(self.world.look().referral_of(self.opportunity)))

    def microsoft_accepts(self) -> Expected:
        own = self.world.look().referral_of(self.opportunity)
        self.world.partner_center("microsoft_accepts", engagement_id=own["engagementId"], msx_id="7-1DEMO0001")

        def see() -> Mapping[str, Any]:
            record = self.world.look().opportunity(id=self.opportunity)
            return {
                "status": record["microsoft_status"],
                "sellers": record["microsoft_sellers"],
                "CRM id": record["microsoft_crm_id"],
            }

        sellers = re.compile("Mia Seller")
        return Expected({"status": "Active / Accepted", "sellers": sellers, "CRM id": "7-1DEMO0001"}, see)

    # ------------------------------------------------------------ a deal of Microsoft's

    def microsoft_invites(self) -> Expected:
        self.invitation = self.world.partner_center(
            "microsoft_creates_deal", changes={"/name": "Adatum - move to the cloud", "/customerProfile/name": "Adatum"}
        )

        def see() -> Mapping[str, Any]:
            sight = self.world.look()
            record = self._invited_record(sight)
            return {
                "opportunity": record.get("name"),
                "state": record.get("state"),
                "account": sight.account(record.get("account")).get("name"),
                "contact": sight.contact(record.get("contact")).get("email"),
            }

        return Expected(
            {
                "opportunity": "Adatum - move to the cloud",
                "state": "on_hold",
                "account": "Adatum",
                "contact": "sue.smith@contoso.example",
            },
            see,
        )

    def seller_takes_it_on(self) -> Expected:
        record = self._invited_record(self.world.look())
        self.world.seller.take_on(record["id"])
        return Expected({"referral": "Active / Accepted"}, lambda: {"referral": self._status_of(self.invitation["id"])})

    def deal_changes_in_partner_center(self) -> Expected:
        changes = {
            "/details/dealValue": 64000,
            "/details/closingDateTime": "2027-08-31T00:00:00Z",
            "/details/notes": "The customer wants to start in August.",
        }
        self.world.partner_center("partner_edits", referral_id=self.invitation["id"], changes=changes)

        def see() -> Mapping[str, Any]:
            return _columns(self._invited_record(self.world.look()))

        return Expected({"value": 64000, "closes": "2027-08-31", "notes": changes["/details/notes"]}, see)

    # ------------------------------------------------------------ a lead

    def customer_asks(self) -> Expected:
        self.lead = self.world.partner_center("creates_lead", changes={"/customerProfile/name": "Litware"})

        def see() -> Mapping[str, Any]:
            lead = self.world.look().lead(referral_id=self.lead["id"])
            names = {"company": "customer_name", "contact": "contact_last_name", "state": "state"}
            return {name: lead.get(column) for name, column in names.items()}

        return Expected({"company": "Litware", "contact": "Smith", "state": "on_hold"}, see)

    # ------------------------------------------------------------ when it gets difficult

    def both_sides_change(self) -> Expected:
        own = self.world.look().referral_of(self.opportunity)
        self.world.seller.edit(self.opportunity, deal_value=81000)
        changes = {"/details/notes": "Microsoft's architect joins on Monday."}
        self.world.partner_center("partner_edits", referral_id=own["id"], changes=changes)
        return self._on_both_sides({"value": 81000, "notes": changes["/details/notes"]})

    def seller_wins(self) -> Expected:
        self.world.seller.win(self.opportunity)
        own = self.world.look().referral_of(self.opportunity)
        return Expected({"referral": "Closed / Won"}, lambda: {"referral": self._status_of(own["id"])})

    def somebody_forges(self) -> Expected:
        self.world.rest_after_sweep()
        before = self.world.messages()
        own = self.world.look().referral_of(self.opportunity)
        answers = [self.world.calls_webhook(recipe, referral_id=own["id"])["status"] for recipe in self.FORGERIES]
        self.world.rest()
        queued = self.world.messages() - before
        return Expected(
            {"answers": [401] * len(self.FORGERIES), "queued": 0},
            lambda: {"answers": answers, "queued": queued},
            at_once=True,
        )

    FORGERIES: ClassVar = ("body-changed", "other-key", "no-signature", "certificate-url-other-host")

    def host_dies(self) -> Expected:
        self.opportunity = self._new_opportunity("Fabrikam - analytics", 30000)
        self.world.until("the deal is shared", self._is_shared, within_s=REST_WITHIN_S)
        self.world.rest()
        own = self.world.look().referral_of(self.opportunity)

        self.world.slow_down("partner_center", "PATCH", SLOW_ANSWER_S)
        self.world.seller.edit(self.opportunity, deal_value=33000)
        self.world.until("the product writes to Partner Center", self._write_is_under_way, within_s=REST_WITHIN_S)
        self.stage.kill_host()
        changes = {"/details/notes": "Written while the app was down."}
        self.world.partner_center("partner_edits", referral_id=own["id"], changes=changes)
        self.stage.start_host()
        return self._on_both_sides({"value": 33000, "notes": changes["/details/notes"]})

    def everything_again(self) -> Expected:
        events = [each["payload"] for each in self.world.events() if each["payload"]["ResourceName"] == "referral"]
        self.world.forget_requests()
        messages = self.world.messages()
        answers = [self._send_again(event) for event in events]
        forgotten = self.world.forget_what_was_read()
        self.world.until(
            "poll and sweep have begun anew", lambda: self.world.cursors() >= forgotten, within_s=REST_WITHIN_S
        )
        self.world.rest()

        asked, queued = self.world.requests(), self.world.messages() - messages
        seen = {
            "events accepted": sum(answer == 200 for answer in answers),
            "messages for each event and more": queued > len(events) > 0,
            "feeds read anew": len(forgotten),
            "Partner Center writes": asked["Partner Center writes"],
            "CRM writes": asked["CRM writes"],
        }
        expected = {
            "events accepted": len(events),
            "messages for each event and more": True,
            "feeds read anew": 3,  # opportunities, leads, referrals
            "Partner Center writes": 0,
            "CRM writes": 0,
        }
        return Expected(expected, lambda: seen, at_once=True)

    def one_each(self) -> Expected:
        sight = self.world.look()
        records = [*sight.crm.opportunities(), *sight.crm.leads()]
        shared = [record for record in records if record["sync_flag"]]
        own = sight.own_referrals()
        per_referral = {sum(record["referral_id"] == referral["id"] for record in records) for referral in own}
        per_record = {sum(_belongs(referral, record) for referral in own) for record in shared}
        seen = {
            "referrals": len(own),
            "shared records": len(shared),
            "records per referral": sorted(per_referral),
            "referrals per shared record": sorted(per_record),
        }
        expected = {
            "referrals": 4,
            "shared records": 4,
            "records per referral": [1],
            "referrals per shared record": [1],
        }
        return Expected(expected, lambda: seen, at_once=True)

    # ------------------------------------------------------------ their hands and eyes

    def _new_opportunity(self, name: str, value: int) -> str:
        """A seller shares a deal with a new customer, and asks Microsoft for help."""
        account = self.world.seller.create_account(name=name.partition(" - ")[0])
        return self.world.seller.create_opportunity(
            name=name, notes="The assessment is done.", deal_value=value, help=HELP, account=account
        )

    def _invited_record(self, sight: Sight) -> Document:
        return sight.opportunity(referral_id=self.invitation["id"])

    def _is_shared(self) -> bool:
        record = self.world.look().opportunity(id=self.opportunity)
        return bool(SYNCHRONIZED.search(record["sync_status"] or ""))

    def _status_of(self, referral_id: str) -> str:
        referral = self.world.look().referral(referral_id)
        return f"{referral['status']} / {referral['substatus']}"

    def _write_is_under_way(self) -> bool:
        return any(entry["fault"] == "delay" for entry in self.world.log("partner_center"))

    def _on_both_sides(self, values: Mapping[str, Any]) -> Expected:
        """Value and notes of the seller's deal, in Partner Center and in the CRM."""

        def see() -> Mapping[str, Any]:
            sight = self.world.look()
            there = _details(sight.referral_of(self.opportunity))
            here = _columns(sight.opportunity(id=self.opportunity))
            return {f"{name} there": there[name] for name in values} | {f"{name} here": here[name] for name in values}

        return Expected({f"{name} {side}": values[name] for name in values for side in ("there", "here")}, see)

    def _send_again(self, event: Document) -> int:
        referral_id = event["ResourceUri"].rpartition("/")[2]
        answer = self.world.calls_webhook("in-ms-signature", event_name=event["EventName"], referral_id=referral_id)
        status: int = answer["status"]
        return status

    @staticmethod
    def _masked(url: str) -> str:
        return re.sub("code=.*", "code=***", url)


@dataclass(frozen=True)
class Step:
    """`expected` in words; `change` names the kind of change whose requests are counted, and whose time counts."""

    name: str
    expected: str
    play: Callable[[Story], Expected]
    change: str = ""


STORY = (
    Step("The admin registers the webhook", "created", Story.register_first),
    Step("... and again", "nothing changed", Story.register_again),
    Step("Another tool has registered: the admin tries", "refused, the other shown", Story.register_over_foreign),
    Step("... and insists", "the registration is ours again", Story.register_with_overwrite),
    Step(
        "A test event makes the round trip",
        "Partner Center called, was answered; the other tool gets it too",
        Story.test_event,
    ),
    Step("The other tool takes the registration", "noticed by the daily check, reported", Story.taken_over),
    Step("... and the admin takes it back", "ours again, and both in the history", Story.taken_back),
    Step(
        "A seller shares an opportunity, asks Microsoft for help",
        "referral and Microsoft's copy; identifier, link, check mark, audit in the CRM",
        Story.seller_shares,
        "shared by a seller",
    ),
    Step("The seller changes it", "the referral follows", Story.seller_updates, "changed in the CRM"),
    Step(
        "Microsoft accepts",
        "status, sellers and Microsoft's CRM id in the CRM",
        Story.microsoft_accepts,
        "accepted by Microsoft",
    ),
    Step(
        "Microsoft brings a deal",
        "opportunity on hold, account and contact in the CRM",
        Story.microsoft_invites,
        "brought by Microsoft",
    ),
    Step("The seller takes it off hold", "accepted in Partner Center", Story.seller_takes_it_on, "accepted in the CRM"),
    Step(
        "The deal changes in Partner Center",
        "the opportunity follows",
        Story.deal_changes_in_partner_center,
        "changed in Partner Center",
    ),
    Step("A customer asks for a partner", "a lead in the CRM", Story.customer_asks, "lead"),
    Step(
        "Both sides change different fields at once",
        "both survive, on both sides",
        Story.both_sides_change,
        "changed on both sides",
    ),
    Step("The seller wins the first deal", "the referral closes as won", Story.seller_wins, "won in the CRM"),
    Step("Somebody forges calls", "401 each, nothing queued", Story.somebody_forges),
    Step("The host is killed while it writes, and started again", "both sides still agree", Story.host_dies),
    Step("Everything once more: all events, poll and sweep anew", "no write on either side", Story.everything_again),
    Step("Counting", "one record per referral, one referral per shared record", Story.one_each),
)


def _answered(answer: Document, values: Mapping[str, Any]) -> Expected:
    """What register_webhook answered, the registrations by their address."""
    addresses = {"registered": _at(answer, "actual", "webhook_url"), "before": _at(answer, "before", "webhook_url")}
    seen = {**answer, **addresses, "test passed": _at(answer, "test", "passed")}
    return Expected(values, lambda: {name: seen.get(name) for name in values}, at_once=True)


def _details(referral: Document) -> Document:
    return {
        "value": _at(referral, "details", "dealValue"),
        "closes": _at(referral, "details", "closingDateTime"),
        "notes": _at(referral, "details", "notes"),
    }


def _columns(opportunity: Document) -> Document:
    names = {"value": "deal_value", "closes": "close_date", "notes": "notes"}
    return {name: opportunity.get(column) for name, column in names.items()}


def _belongs(referral: Document, record: Document) -> bool:
    return bool(referral["id"] == record["referral_id"] or referral["externalReferenceId"] == record["id"])


def _at(document: Document, *path: str) -> Any:
    value: Any = document
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value

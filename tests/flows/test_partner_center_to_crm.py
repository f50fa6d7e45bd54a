"""A deal made in Partner Center, by Microsoft or a colleague, becomes an opportunity and stays in agreement with it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from shared.messages import SyncRequest
from shared.model import Referral
from tests.flows.world import World

EARLIER_CONNECTORS_LINE = "2026-01-17 09:05 - Partner Center Referral to CRM sync success."


INTENT = {
    "/details/requirements/additionalRequirements": {
        "attributes": [{"type": "CustomerMarketplaceIntent", "id": "HaveNotDecided"}]
    }
}
"""Part of the form of every deal, without which it cannot be changed."""


def inbound(world: World, **changes: Any) -> dict[str, Any]:
    """Microsoft's deal, waiting for an answer, and already an opportunity since a minute."""
    deal = world.people.microsoft_creates_deal(INTENT | changes)
    world.settle()
    world.advance(60)
    world.forget_calls()
    return deal


def accepted(world: World) -> dict[str, Any]:
    deal = inbound(world)
    world.people.partner_accepts(deal["id"])
    world.settle()
    world.advance(60)
    world.forget_calls()
    return deal


def accept_in_the_crm(world: World, deal: dict[str, Any]) -> None:
    """A seller takes the opportunity over and off hold."""
    take_over(world, deal)
    world.desk.take_on(record_id_of(world, deal))
    world.settle()
    world.advance(60)


def take_over(world: World, deal: dict[str, Any]) -> None:
    world.desk.edit(record_id_of(world, deal), owner=world.desk.seller())


def record_id_of(world: World, deal: dict[str, Any]) -> str:
    return str(world.record_of(deal["id"])["id"])


def edit(world: World, deal: dict[str, Any], **values: Any) -> None:
    world.desk.edit(record_id_of(world, deal), **values)
    world.settle()
    world.advance(60)


def tell(world: World, referral_id: str, event: str, version: str = "2026-11-02T09:30:00Z") -> None:
    """Partner Center sends an event, whatever happened there."""
    world.simulators.webhooks.publish(event, referral_id, version)
    world.settle()


# ---------------------------------------------------------------- creating


@pytest.mark.real_storage
def test_an_inbound_deal_becomes_an_opportunity_on_hold(world: World) -> None:
    deal = world.people.microsoft_creates_deal(INTENT)

    world.settle()

    record = world.record_of(deal["id"])
    assert record["state"] == "on_hold"
    assert record["name"] == "Contoso - data platform modernization"
    assert record["deal_value"] == 50000
    assert record["close_date"] == "2027-06-30"
    assert record["notes"] == "Migration assessment done; needs architecture review."
    assert record["solutions"] == "SOL-15974-MQF"
    assert record["sync_flag"] is True
    assert record["visibility"] is True
    assert record["referral_link"].endswith(deal["id"])
    assert record["sync_status"].startswith("✓")
    assert f"Created from Partner Center referral {deal['id']}" in record["audit"]
    assert len(world.desk.opportunities()) == 1
    assert world.pc.log.count("PATCH") == world.pc.log.count("POST") == 0
    assert world.is_at_rest()


def test_microsofts_seller_and_crm_id_are_shown_from_the_start(world: World) -> None:
    deal = world.people.microsoft_creates_deal(msx_id="7-2INBOUND")

    world.settle()

    record = world.record_of(deal["id"])
    assert record["microsoft_status"] == "Active / Accepted"
    assert record["microsoft_crm_id"] == "7-2INBOUND"
    assert record["microsoft_sellers"] == "Mia Seller <msseller@microsoft.example>"


def test_the_customer_becomes_an_account_with_all_its_contacts(world: World) -> None:
    people = [
        {"firstName": "Sue", "lastName": "Smith", "phoneNumber": "1", "email": "sue@contoso.example"},
        {"firstName": "Tom", "lastName": "Thorn", "phoneNumber": "2", "email": "tom@contoso.example"},
    ]
    deal = world.people.microsoft_creates_deal({"/customerProfile/team": people})

    world.settle()

    (account,) = world.desk.accounts()
    assert account["name"] == "Contoso Customer Inc"
    assert account["postal_code"] == "98052"
    assert account["country"] == "US"
    contacts = {row["email"]: row for row in world.desk.contacts()}
    assert set(contacts) == {"sue@contoso.example", "tom@contoso.example"}
    assert {row["account"] for row in contacts.values()} == {account["id"]}
    record = world.record_of(deal["id"])
    assert record["account"] == account["id"]
    assert record["contact"] == contacts["sue@contoso.example"]["id"]


def test_an_existing_customer_is_found_whatever_the_case(world: World) -> None:
    account = world.desk.create_account(name="CONTOSO customer inc")
    contact = world.desk.create_contact(account, email="Sue.Smith@Contoso.example")

    deal = inbound(world)

    assert len(world.desk.accounts()) == len(world.desk.contacts()) == 1
    record = world.record_of(deal["id"])
    assert record["account"] == account
    assert record["contact"] == contact


def test_the_same_name_at_another_postal_code_is_another_account(world: World) -> None:
    elsewhere = world.desk.create_account(name="Contoso Customer Inc", postal_code="10115")

    deal = inbound(world)

    assert len(world.desk.accounts()) == 2
    assert world.record_of(deal["id"])["account"] != elsewhere


def test_two_deals_of_one_customer_share_account_and_contact(world: World) -> None:
    inbound(world)
    inbound(world)

    assert len(world.desk.opportunities()) == 2
    assert len(world.desk.accounts()) == len(world.desk.contacts()) == 1


def test_a_deal_without_name_contact_and_value_arrives_all_the_same(world: World) -> None:
    deal = inbound(
        world,
        **{"/name": None, "/customerProfile/team": [], "/details/dealValue": None, "/details/closingDateTime": None},
    )

    record = world.record_of(deal["id"])
    assert record["name"] == "Partner Center deal"
    assert record["contact"] is None
    assert record["deal_value"] is None
    assert world.is_at_rest()


def test_a_deal_that_is_closed_already_is_not_created(world: World) -> None:
    deal = world.people.microsoft_creates_deal(INTENT)
    world.people.partner_declines(deal["id"])

    world.settle()

    assert world.desk.opportunities() == []
    assert world.writes() == []
    story = world.story_of(f"pc_{deal['id']}")
    assert "closed as declined before it reached the CRM" in str(story.entries)


def test_a_deal_that_a_colleague_makes_in_the_portal_is_open_at_once(world: World) -> None:
    deal = world.people.microsoft_creates_deal(INTENT)
    world.people.partner_accepts(deal["id"])

    world.settle()

    record = world.record_of(deal["id"])
    assert record["state"] == "open"
    assert deal["externalReferenceId"] == record["id"]
    assert world.is_at_rest()


# ---------------------------------------------------------------- waiting for an answer


def test_edits_in_the_crm_wait_while_the_deal_is_unanswered(world: World) -> None:
    deal = inbound(world)

    edit(world, deal, notes="Ours.", deal_value=55000)

    assert world.writes() == []
    assert deal["status"] == "New"
    assert deal["details"]["dealValue"] == 50000
    assert world.record_of(deal["id"])["notes"] == "Ours."
    assert world.is_at_rest()


def test_taking_the_opportunity_off_hold_accepts_the_deal_and_sends_what_waited(world: World) -> None:
    deal = inbound(world)
    edit(world, deal, notes="Ours.")
    world.forget_calls()

    accept_in_the_crm(world, deal)

    assert (deal["status"], deal["substatus"]) == ("Active", "Accepted")
    assert [person["firstName"] for person in deal["team"]] == ["Sally"]
    assert deal["details"]["notes"] == "Ours."
    assert deal["externalReferenceId"] == record_id_of(world, deal)
    assert len(world.patches()) == 1
    assert world.is_at_rest()


def test_a_deal_somebody_has_looked_at_still_waits(world: World) -> None:
    deal = inbound(world)

    world.people.partner_views(deal["id"])
    world.settle()

    assert world.writes() == []
    assert world.record_of(deal["id"])["state"] == "on_hold"
    assert world.is_at_rest()


def test_accepting_in_the_portal_takes_the_opportunity_off_hold(world: World) -> None:
    deal = inbound(world)

    world.people.partner_accepts(deal["id"])
    world.settle()

    record = world.record_of(deal["id"])
    assert record["state"] == "open"
    assert deal["externalReferenceId"] == record["id"]
    assert world.is_at_rest()


def test_edits_that_waited_go_out_when_the_portal_accepts(world: World) -> None:
    deal = inbound(world)
    edit(world, deal, notes="Ours.")

    world.people.partner_accepts(deal["id"])
    world.settle()

    assert deal["details"]["notes"] == "Ours."
    assert world.record_of(deal["id"])["notes"] == "Ours."
    assert world.is_at_rest()


def test_declining_in_the_portal_closes_the_opportunity_as_lost(world: World) -> None:
    deal = inbound(world)

    world.people.partner_declines(deal["id"])
    world.settle()

    assert world.record_of(deal["id"])["state"] == "lost"
    assert world.is_at_rest()


def test_an_expired_deal_closes_the_opportunity_as_lost(world: World) -> None:
    deal = inbound(world)
    world.advance(15 * 24 * 3600)

    world.people.expire_pending()
    world.settle()

    assert deal["substatus"] == "Expired"
    assert world.record_of(deal["id"])["state"] == "lost"
    assert world.is_at_rest()


def test_losing_an_unanswered_opportunity_declines_the_deal(world: World) -> None:
    deal = inbound(world)

    world.desk.lose(record_id_of(world, deal))
    world.settle()

    assert (deal["status"], deal["substatus"], deal["statusReason"]) == ("Closed", "Declined", "Others")
    assert world.is_at_rest()


def test_winning_an_unanswered_opportunity_accepts_the_deal_first(world: World) -> None:
    deal = inbound(world)

    take_over(world, deal)
    world.desk.win(record_id_of(world, deal))
    world.settle()

    assert [(patch["/status"], patch["/substatus"]) for patch in world.patches()] == [
        ("Active", "Accepted"),
        ("Closed", "Won"),
    ]
    assert world.record_of(deal["id"])["state"] == "won"
    assert world.is_at_rest()


# ---------------------------------------------------------------- updating


@pytest.mark.parametrize(
    ("changes", "field", "shown"),
    [
        ({"/name": "New name"}, "name", "New name"),
        ({"/details/notes": "Theirs."}, "notes", "Theirs."),
        ({"/details/notes": None}, "notes", None),
        ({"/details/dealValue": 81000.5}, "deal_value", 81000.5),
        ({"/details/closingDateTime": "2027-09-30T00:00:00Z"}, "close_date", "2027-09-30"),
        (
            {"/details/requirements/solutions": [{"type": "Name", "id": "SOL-2"}, {"type": "Name", "id": "SOL-1"}]},
            "solutions",
            "SOL-1, SOL-2",
        ),
    ],
    ids=lambda value: str(next(iter(value))) if isinstance(value, dict) else "",
)
def test_a_change_in_the_portal_reaches_the_opportunity(
    world: World, changes: dict[str, Any], field: str, shown: object
) -> None:
    deal = accepted(world)

    world.people.partner_edits(deal["id"], changes)
    world.settle()

    record = world.record_of(deal["id"])
    assert record[field] == shown
    assert world.writes() == ["crm write"]
    (write,) = world.backstage.record_writes()
    assert set(write.values) == {field, "audit", "sync_status"}
    assert record["audit"].splitlines()[0].startswith("2026-11-02 09:02 - Updated from Partner Center: ")
    assert world.is_at_rest()


def test_another_currency_is_set_with_the_amount(world: World) -> None:
    deal = accepted(world)

    world.people.partner_edits(deal["id"], {"/details/dealValue": 900, "/details/currency": "EUR"})
    world.settle()

    record = world.record_of(deal["id"])
    assert record["deal_value"] == 900
    assert record["currency"] == "EUR"
    assert world.is_at_rest()


def test_a_deal_value_that_is_cleared_in_the_portal_is_cleared_in_the_crm(world: World) -> None:
    deal = accepted(world)

    world.people.partner_edits(deal["id"], {"/details/dealValue": None})
    world.settle()

    assert world.record_of(deal["id"])["deal_value"] is None
    assert world.is_at_rest()


def test_long_notes_are_shortened_in_the_crm_and_never_written_back(world: World) -> None:
    deal = accepted(world)
    longest = world.row("notes")["max_length"]
    notes = "word " * (longest // 4) + "end"

    world.people.partner_edits(deal["id"], {"/details/notes": notes})
    world.settle()
    world.advance(60)
    edit(world, deal, deal_value=51000)

    shown = world.record_of(deal["id"])["notes"]
    assert len(shown) <= longest
    assert shown.endswith("…")
    assert deal["details"]["notes"] == notes
    assert world.patches() == [{"/details/dealValue": 51000}]
    assert world.is_at_rest()


def test_a_currency_the_crm_lacks_is_a_failure_that_names_it(world: World) -> None:
    deal = accepted(world)

    world.people.partner_edits(deal["id"], {"/details/dealValue": 1, "/details/currency": "CHF"})
    world.settle()

    record = world.record_of(deal["id"])
    assert record["deal_value"] == 50000
    assert record["sync_status"].startswith("✗")
    assert "CHF" in record["audit"]
    (failure,) = world.services.failures.list()
    assert failure.field == world.label("deal_value")
    assert "CHF" in failure.reason
    assert "currency" in failure.next_step


def test_a_deal_in_a_currency_the_crm_lacks_arrives_without_its_value_until_it_is_changed(world: World) -> None:
    deal = inbound(world, **{"/details/currency": "CHF"})
    assert world.record_of(deal["id"])["deal_value"] is None
    assert world.record_of(deal["id"])["sync_status"].startswith(f"✗ {world.label('deal_value')}")
    (failure,) = world.services.failures.list()
    assert "CHF" in failure.reason

    world.people.partner_edits(deal["id"], {"/details/currency": "EUR"})
    world.settle()

    record = world.record_of(deal["id"])
    assert (record["deal_value"], record["currency"]) == (50000, "EUR")
    assert record["sync_status"].startswith("✓")
    assert world.services.failures.list() == ()
    assert world.is_at_rest()


@pytest.mark.parametrize(("substatus", "state"), [("Won", "won"), ("Lost", "lost")])
def test_closing_in_the_portal_closes_the_opportunity(world: World, substatus: str, state: str) -> None:
    deal = accepted(world)

    world.people.partner_closes(deal["id"], substatus)
    world.settle()

    assert world.record_of(deal["id"])["state"] == state
    assert world.pc.log.count("PATCH") == 0
    assert world.is_at_rest()


def test_a_change_and_closing_between_two_looks_both_arrive(world: World) -> None:
    deal = accepted(world)

    world.people.partner_edits(deal["id"], {"/details/dealValue": 81000})
    world.people.partner_closes(deal["id"], "Won")
    world.settle()

    record = world.record_of(deal["id"])
    assert (record["deal_value"], record["state"]) == (81000, "won")
    assert world.is_at_rest()


def test_microsoft_changing_its_team_shows_in_the_crm(world: World) -> None:
    deal = accepted(world)
    team = [{"firstName": "Max", "lastName": "Muster", "email": "max@microsoft.example", "phoneNumber": "1"}]

    world.people.microsoft_edits(deal["engagementId"], {"/team": team})
    world.settle()

    assert world.record_of(deal["id"])["microsoft_sellers"] == "Max Muster <max@microsoft.example>"
    assert world.is_at_rest()


def test_an_event_that_is_delivered_twice_is_worked_off_once(world: World) -> None:
    deal = accepted(world)
    world.people.partner_edits(deal["id"], {"/details/notes": "Theirs."})
    world.settle()
    world.forget_calls()

    tell(world, deal["id"], "referral-updated", deal["updatedDateTime"])

    assert world.calls().get("partner_center GET", 0) == 0
    assert world.writes() == []


# ---------------------------------------------------------------- who was first, and who else


@pytest.mark.parametrize("names", ["related", "own"])
def test_microsofts_answer_arrives_whichever_referral_the_event_names(world: World, names: str) -> None:
    world.pc.rules.related_events_name = names
    record_id = world.opportunity(help="CustomerTechnicalArchitecture")
    world.settle()
    world.advance(60)

    world.people.microsoft_accepts(world.referral_of(record_id)["engagementId"])
    world.settle()

    assert world.record(record_id)["microsoft_status"] == "Active / Accepted"


@pytest.mark.parametrize("names", ["related", "own"])
def test_microsofts_answer_arrives_though_our_referral_changed_after_it(world: World, names: str) -> None:
    world.pc.rules.related_events_name = names
    record_id = world.opportunity(help="CustomerTechnicalArchitecture")
    world.settle()
    world.advance(60)
    world.people.microsoft_accepts(world.referral_of(record_id)["engagementId"])
    world.advance(1)
    world.desk.edit(record_id, notes="Ours.")
    world.fire("crm_poller")
    world.work()

    world.settle()

    assert world.record(record_id)["microsoft_status"] == "Active / Accepted"


@pytest.mark.parametrize("names", ["related", "own"])
def test_microsofts_copy_that_appears_later_is_taken_up(world: World, names: str) -> None:
    """The partner's own deal is shared in the portal; the event names Microsoft's copy, or our own referral."""
    world.pc.rules.related_events_name = names
    record_id = world.opportunity(visibility=True)
    world.settle()
    world.advance(60)
    own = world.referral_of(record_id)
    world.forget_calls()

    theirs = {name: value for name, value in copy.deepcopy(own).items() if name != "id"}
    world.pc.insert(
        {**theirs, "status": "Active", "substatus": "Accepted"},
        organization_id="msft",
        invited_by=world.pc.organization_id,
        direction="Incoming",
    )
    world.settle()

    assert world.record(record_id)["microsoft_status"] == "Active / Accepted"
    assert world.is_at_rest()


def test_a_record_of_the_earlier_connector_is_adopted_without_a_write_of_equal_values(world: World) -> None:
    deal = world.people.microsoft_creates_deal(INTENT)
    world.people.partner_accepts(deal["id"])
    world.simulators.webhooks.dispatcher.waiting.clear()
    record_id = world.opportunity(
        name=deal["name"],
        notes=deal["details"]["notes"],
        close_date="2027-06-30",
        referral_id=deal["id"].upper(),
        visibility=True,
        audit=EARLIER_CONNECTORS_LINE,
    )

    world.settle()

    assert len(world.desk.opportunities()) == 1
    record = world.record(record_id)
    assert record["audit"].endswith(EARLIER_CONNECTORS_LINE)
    assert deal["externalReferenceId"] == record_id
    assert world.pc.log.count("POST") == 0
    written = {name for write in world.backstage.record_writes() for name in write.values}
    assert not written & {"name", "notes", "deal_value", "close_date", "solutions"}


def test_an_adopted_record_shows_what_microsoft_said_before(world: World) -> None:
    deal = world.people.microsoft_creates_deal(INTENT)
    world.simulators.webhooks.dispatcher.waiting.clear()
    record_id = world.opportunity(referral_id=deal["id"])
    world.desk.hold(record_id)

    world.settle()

    assert world.record(record_id)["microsoft_status"] == "Active / Accepted"
    assert world.is_at_rest()


def test_an_event_about_a_deal_of_the_earlier_connector_finds_its_record_and_goes_on_with_its_audit(
    world: World,
) -> None:
    deal = world.people.microsoft_creates_deal(INTENT)
    record_id = world.opportunity(referral_id=deal["id"], audit=EARLIER_CONNECTORS_LINE)
    world.desk.hold(record_id)

    world.settle(poll=False)

    assert [row["id"] for row in world.desk.opportunities()] == [record_id]
    assert world.record(record_id)["audit"].endswith(f"\n{EARLIER_CONNECTORS_LINE}")
    assert len(world.desk.accounts()) == 1
    assert world.link_of(record_id).referral_id == deal["id"]


def test_an_event_about_our_own_create_that_comes_before_it_is_saved_makes_no_second_record(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = world.services.partner_center.create

    def create_and_hear_of_it(document: Any) -> Referral:
        created: Referral = create(document)
        event = "related-referral-created" if created.is_microsofts else "referral-created"
        heard = SyncRequest(cause="webhook", referral_id=created.id, version=created.updated, event=event)
        world.run_worker(heard.encode().encode())
        return created

    monkeypatch.setattr(world.services.partner_center, "create", create_and_hear_of_it)
    record_id = world.opportunity(help="CustomerTechnicalArchitecture")

    world.settle()

    assert [row["id"] for row in world.desk.opportunities()] == [record_id]
    assert len(world.referrals()) == 1
    assert len(world.pc.referrals) == 2
    assert world.record(record_id)["referral_id"] == world.referrals()[0]["id"]
    assert world.failed_invocations == 0
    assert world.is_at_rest()


@pytest.mark.parametrize("event", ["related-referral-created", "related-referral-updated"])
def test_a_related_event_about_an_engagement_of_others_is_ignored(world: World, event: str) -> None:
    tell(world, "3f2504e0-4f89-41d3-9a0c-0305e82c3301", event)

    assert world.writes() == []
    assert world.desk.opportunities() == []
    assert world.services.failures.list() == ()
    assert world.failed_invocations == 0


def test_a_related_event_that_comes_first_brings_in_our_own_deal(world: World) -> None:
    deal = world.people.microsoft_creates_deal(INTENT)
    theirs = world.microsofts(deal["engagementId"])
    world.simulators.webhooks.dispatcher.waiting.clear()

    tell(world, theirs["id"], "related-referral-created", theirs["updatedDateTime"])

    assert world.record_of(deal["id"])["microsoft_status"] == "Active / Accepted"
    assert len(world.desk.opportunities()) == 1


def test_an_event_for_a_deleted_record_is_no_failure(world: World) -> None:
    """The event is quicker than the poll that would tell of the deletion."""
    deal = accepted(world)
    record_id = record_id_of(world, deal)
    world.desk.delete(record_id)

    world.people.partner_edits(deal["id"], {"/details/notes": "Theirs."})
    world.settle(poll=False)

    assert world.desk.opportunities() == []
    assert world.services.failures.list() == ()
    assert f"{world.desk.opportunity} {record_id} does not exist any more" in world.notes(record_id)


def test_later_events_for_a_deleted_record_cost_nothing(world: World) -> None:
    deal = accepted(world)
    world.desk.delete(record_id_of(world, deal))
    world.advance(60)
    world.settle()
    world.forget_calls()

    world.people.partner_edits(deal["id"], {"/details/notes": "Theirs."})
    world.people.microsoft_edits(deal["engagementId"], {"/details/notes": "Microsoft's."})
    world.settle(poll=False)

    assert world.desk.opportunities() == []
    assert world.calls() == {}
    assert deal["status"] == "Active"


@pytest.mark.real_storage
def test_what_the_webhook_missed_the_sweep_finds(world: World) -> None:
    deal = accepted(world)
    world.people.partner_edits(deal["id"], {"/details/notes": "Theirs."})
    world.simulators.webhooks.dispatcher.waiting.clear()

    world.fire("reconciler")
    world.settle()

    assert world.record_of(deal["id"])["notes"] == "Theirs."


@pytest.mark.real_storage
def test_an_operators_replay_reads_both_sides_even_if_nothing_is_new(world: World) -> None:
    deal = accepted(world)

    world.services.queue.send(SyncRequest(cause="operator", referral_id=deal["id"]))
    world.work()

    assert world.calls() == {"partner_center GET": 2, "crm read": 1}

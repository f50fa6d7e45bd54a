"""What the core relies on in a CRM client, whichever CRM it speaks to; then what is particular to each.

A new CRM is a `Kit`: its client in front of its simulator, its column names, and a seller who works in it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Protocol
from uuid import uuid4

import pytest
import requests

from local.simulators.base import Clock, Faults
from local.simulators.systems import REAL_URLS, Simulators
from shared import errors
from shared.model import RecordChange, RecordRef
from shared.remote import dataverse_changes
from shared.remote.auth import ENTRA, ClientCredentials, EntraTokens
from shared.remote.crm import Crm, RelatedRow, TableShape
from shared.remote.dataverse import API_PATH, Dataverse
from shared.remote.dataverse_errors import DIALECT
from shared.remote.dataverse_rows import key_address, literal, set_name
from shared.remote.http import Remote

START = datetime(2026, 5, 1, 8, tzinfo=UTC)


class Kit(Protocol):
    """One CRM to test. Columns by what they are: `title`, `amount`, `currency`, `account`, `email`, `flag`."""

    crm: Crm
    clock: Clock
    faults: Faults
    opportunity: str
    lead: str
    columns: Mapping[str, str]
    won: Mapping[str, Any]
    page_size: int

    def asked(self) -> list[str]:
        """Methods and paths since the last look."""

    def seller_creates(self, table: str, **values: Any) -> RecordRef: ...

    def seller_edits(self, ref: RecordRef, **values: Any) -> None: ...

    def seller_deletes(self, ref: RecordRef) -> None: ...

    def seller_qualifies(self, lead: RecordRef) -> RecordRef: ...

    def rows(self, table: str) -> list[Mapping[str, Any]]:
        """What the CRM holds, whatever the client thinks."""

    def account(self, name: str, **values: Any) -> RelatedRow: ...

    def contact(self, email: str) -> RelatedRow: ...

    def expire_cursors(self, table: str) -> None: ...


class Dynamics365:
    """Dynamics 365 as the product's application user and as a seller."""

    opportunity, lead = "opportunity", "lead"
    won: Mapping[str, Any] = {"statecode": 1, "statuscode": 3}
    page_size = 5
    columns: Mapping[str, str] = {
        "title": "name",
        "amount": "estimatedvalue",
        "currency": "transactioncurrencyid.isocurrencycode",
        "account": "parentaccountid.name",
        "email": "parentcontactid.emailaddress1",
        "flag": "cosell_syncwithpartnercenter",
        "referral_id": "cosell_referralid",
        "lead_title": "subject",
    }
    shapes: Mapping[str, TableShape] = {
        "opportunity": TableShape(
            "opportunity",
            (
                "opportunityid",
                "name",
                "estimatedvalue",
                "estimatedclosedate",
                "cosell_howcanmicrosofthelp",
                "cosell_referralvisibility",
                "cosell_audit",
                "transactioncurrencyid.isocurrencycode",
                "parentaccountid.name",
                "parentaccountid.address1_city",
                "parentcontactid.emailaddress1",
                "owninguser.internalemailaddress",
            ),
            "cosell_referralid",
            "cosell_syncwithpartnercenter",
        ),
        "lead": TableShape(
            "lead",
            ("subject", "companyname", "lastname", "estimatedamount"),
            "cosell_referralid",
            "cosell_syncwithpartnercenter",
        ),
    }

    def __init__(self) -> None:
        self.clock = Clock(frozen_at=START)
        self.systems = Simulators(self.clock)
        self.session = requests.Session()
        self.systems.mount(self.session)
        self.org = self.systems.dataverse
        self.people = self.org.people
        self.faults = self.org.faults
        app = self.systems.entra.app("dynamics365")
        entra = self.remote("Microsoft Entra ID", REAL_URLS["entra"], None, ENTRA)
        tokens = EntraTokens(entra, app.tenant_id, app.client_id, app.client_secret, clock=self.clock.now)
        source = ClientCredentials(tokens, f"{self.org.origin}/.default")
        self.dataverse = self.remote("Dynamics 365", f"{self.org.origin}/{API_PATH}", source, DIALECT)
        self.crm = Dataverse(self.dataverse, self.shapes)

    def remote(self, name: str, url: str, source: Any, dialect: Any) -> Remote:
        return Remote(
            name, url, source, dialect=dialect, session=self.session, clock=self.clock.now, sleep=self.clock.advance
        )

    def asked(self) -> list[str]:
        seen = [f"{entry.method} {entry.path.removeprefix(f'/{API_PATH}')}" for entry in self.org.log.entries]
        self.org.log.clear()
        return seen

    def seller_creates(self, table: str, **values: Any) -> RecordRef:
        return RecordRef(table, self.people.create(table, values))

    def seller_edits(self, ref: RecordRef, **values: Any) -> None:
        self.people.edit(ref.table, ref.id, values)

    def seller_deletes(self, ref: RecordRef) -> None:
        self.people.delete(ref.table, ref.id)

    def seller_qualifies(self, lead: RecordRef) -> RecordRef:
        return RecordRef("opportunity", self.people.qualify_lead(lead.id)["opportunity"])

    def rows(self, table: str) -> list[Mapping[str, Any]]:
        return [row.values for row in self.org.organization.rows[table].values()]

    def account(self, name: str, **values: Any) -> RelatedRow:
        return RelatedRow("account", "parentaccountid", {"name": name}, values)

    def contact(self, email: str) -> RelatedRow:
        return RelatedRow(
            "contact",
            "parentcontactid",
            {"emailaddress1": email},
            {"lastname": "Smith"},
            parent="parentaccountid",
            parent_link="parentcustomerid_account",
        )

    def expire_cursors(self, table: str) -> None:
        self.people.expire_delta_tokens(table)


KITS = [pytest.param(Dynamics365, id="dynamics365")]


@pytest.fixture(params=KITS)
def kit(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kit]:
    yield from _made(request.param, monkeypatch)


@pytest.fixture
def dynamics(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dynamics365]:
    yield from _made(Dynamics365, monkeypatch)


def _made(make: type[Dynamics365], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(dataverse_changes, "PAGE_SIZE", make.page_size)
    kit = make()
    with kit.systems:
        yield kit


def new_id() -> str:
    return str(uuid4())


def feed(kit: Kit, cursor: str | None, table: str | None = None) -> tuple[list[RecordChange], str]:
    """Everything one poll yields, and where the next one starts."""
    pages = list(kit.crm.changes(table or kit.opportunity, cursor))
    assert [page.cursor for page in pages[:-1]] == [None] * (len(pages) - 1)
    last = pages[-1].cursor
    assert last is not None
    return [change for page in pages for change in page.changes], last


# ---------------------------------------------------------------- reading


def test_a_record_is_read_with_one_request_and_has_every_mapped_column(kit: Kit) -> None:
    c = kit.columns
    created, _ = kit.crm.create(
        kit.opportunity, new_id(), {c["title"]: "Deal", c["currency"]: "EUR"}, [kit.account("Contoso")]
    )
    kit.asked()

    record = kit.crm.read(created.ref)

    assert record.ref == created.ref
    assert (record.values[c["title"]], record.values[c["account"]]) == ("Deal", "Contoso")
    assert (record.values[c["currency"]], record.values[c["email"]]) == ("EUR", None)
    assert set(kit.columns.values()) - {c["lead_title"]} <= set(record.values)
    assert record.version
    assert record.modified is not None
    assert len(kit.asked()) == 1


def test_a_record_that_does_not_exist_is_not_found(kit: Kit) -> None:
    with pytest.raises(errors.NotFound):
        kit.crm.read(RecordRef(kit.opportunity, new_id()))


def test_a_record_is_found_by_its_referral_with_one_request(kit: Kit) -> None:
    referral_id = new_id()
    created, _ = kit.crm.create(kit.opportunity, referral_id, {kit.columns["title"]: "Deal"})
    kit.asked()

    found = kit.crm.find_by_referral(kit.opportunity, referral_id)
    missing = kit.crm.find_by_referral(kit.opportunity, new_id())

    assert found is not None
    assert (found.ref, missing) == (created.ref, None)
    assert len(kit.asked()) == 2


# ---------------------------------------------------------------- creating


def test_a_created_record_is_returned_as_a_read_would_return_it(kit: Kit) -> None:
    c, referral_id = kit.columns, new_id()
    values = {c["title"]: "O'Brien & Söhne ✓", c["amount"]: Decimal("12345678901.25"), c["flag"]: True}
    related = [kit.account("Contoso"), kit.contact("sue@contoso.example")]

    created, is_new = kit.crm.create(kit.opportunity, referral_id, values, related)

    assert is_new
    assert created == kit.crm.read(created.ref)
    assert {name: created.values[name] for name in values} == values
    assert created.values[c["referral_id"]] == referral_id
    assert (created.values[c["account"]], created.values[c["email"]]) == ("Contoso", "sue@contoso.example")


@pytest.mark.parametrize("with_account", [False, True])
def test_a_second_create_adopts_what_is_there_and_writes_nothing(kit: Kit, with_account: bool) -> None:
    referral_id, title = new_id(), kit.columns["title"]
    first, _ = kit.crm.create(kit.opportunity, referral_id, {title: "first"})
    related = [kit.account("Contoso")] if with_account else []

    second, is_new = kit.crm.create(kit.opportunity, referral_id, {title: "second"}, related)

    assert not is_new
    assert second == first == kit.crm.read(first.ref)
    assert len(kit.rows(kit.opportunity)) == 1
    assert kit.rows("account") == []


def test_a_create_whose_answer_was_lost_makes_one_record(kit: Kit) -> None:
    kit.faults.add("drop_after", method="PATCH", path="referralid")
    referral_id = new_id()

    created, _ = kit.crm.create(kit.opportunity, referral_id, {kit.columns["title"]: "Deal"})

    assert created.values[kit.columns["title"]] == "Deal"
    assert len(kit.rows(kit.opportunity)) == 1


@pytest.mark.parametrize("kind", ["drop_before", "drop_after"])
@pytest.mark.parametrize("interrupted_after", range(6))
def test_a_create_interrupted_anywhere_makes_one_of_each_when_run_again(
    kit: Kit, kind: str, interrupted_after: int
) -> None:
    referral_id, values = new_id(), {kit.columns["title"]: "Deal"}
    related = [kit.account("Contoso"), kit.contact("sue@contoso.example")]
    kit.faults.add("delay", seconds=0, times=interrupted_after) if interrupted_after else None
    kit.faults.add(kind, times=99)

    with pytest.raises(errors.Unavailable):
        kit.crm.create(kit.opportunity, referral_id, values, related)
    kit.faults.clear()
    record, _ = kit.crm.create(kit.opportunity, referral_id, values, related)

    assert record.values[kit.columns["account"]] == "Contoso"
    assert record.values[kit.columns["email"]] == "sue@contoso.example"
    assert [len(kit.rows(table)) for table in (kit.opportunity, "account", "contact")] == [1, 1, 1]


def test_related_rows_are_found_without_regard_to_case_and_shared(kit: Kit) -> None:
    one, _ = kit.crm.create(kit.opportunity, new_id(), {}, [kit.account("O'Brien & Co"), kit.contact("A@b.example")])
    two, _ = kit.crm.create(kit.opportunity, new_id(), {}, [kit.account("o'brien & CO"), kit.contact("a@B.example")])

    account = kit.columns["account"]
    assert one.values[account] == two.values[account] == "O'Brien & Co"
    assert [len(kit.rows(table)) for table in (kit.opportunity, "account", "contact")] == [2, 1, 1]


def test_an_amount_keeps_its_currency_and_every_digit(kit: Kit) -> None:
    c = kit.columns
    amount = Decimal("999999999999.99")

    created, _ = kit.crm.create(kit.opportunity, new_id(), {c["amount"]: amount, c["currency"]: "EUR"})

    assert (created.values[c["amount"]], created.values[c["currency"]]) == (amount, "EUR")
    assert isinstance(created.values[c["amount"]], Decimal)


# ---------------------------------------------------------------- updating


def test_an_update_is_one_conditional_request_that_returns_the_new_version(kit: Kit) -> None:
    title, amount = kit.columns["title"], kit.columns["amount"]
    created, _ = kit.crm.create(kit.opportunity, new_id(), {title: "before"})
    kit.asked()

    updated = kit.crm.update(created.ref, {title: "after", amount: Decimal("10.50")}, created.version)

    assert len(kit.asked()) == 1
    read = kit.crm.read(created.ref)
    assert updated.version == read.version != created.version
    assert (read.values[title], read.values[amount]) == ("after", Decimal("10.50"))
    assert updated.values.items() <= read.values.items()


def test_an_update_of_an_outdated_record_is_a_version_conflict(kit: Kit) -> None:
    title = kit.columns["title"]
    created, _ = kit.crm.create(kit.opportunity, new_id(), {title: "before"})
    kit.seller_edits(created.ref, **{title: "the seller's"})

    with pytest.raises(errors.VersionConflict):
        kit.crm.update(created.ref, {title: "ours"}, created.version)

    assert kit.crm.read(created.ref).values[title] == "the seller's"


def test_an_update_without_a_version_writes_in_any_case(kit: Kit) -> None:
    title = kit.columns["title"]
    created, _ = kit.crm.create(kit.opportunity, new_id(), {title: "before"})
    kit.seller_edits(created.ref, **{title: "the seller's"})

    assert kit.crm.update(created.ref, {title: "ours"}, "").values[title] == "ours"


@pytest.mark.parametrize("version", ["", 'W/"1"'])
def test_an_update_of_a_deleted_record_is_not_found_and_creates_nothing(kit: Kit, version: str) -> None:
    with pytest.raises(errors.NotFound):
        kit.crm.update(RecordRef(kit.opportunity, new_id()), {kit.columns["title"]: "x"}, version)

    assert kit.rows(kit.opportunity) == []


def test_an_update_whose_answer_was_lost_shows_as_a_version_conflict(kit: Kit) -> None:
    title = kit.columns["title"]
    created, _ = kit.crm.create(kit.opportunity, new_id(), {title: "before"})
    kit.faults.add("drop_after", method="PATCH")

    with pytest.raises(errors.VersionConflict):
        kit.crm.update(created.ref, {title: "ours"}, created.version)

    assert kit.crm.read(created.ref).values[title] == "ours"


def test_a_text_that_is_too_long_is_refused_with_its_column(kit: Kit) -> None:
    title = kit.columns["title"]
    created, _ = kit.crm.create(kit.opportunity, new_id(), {title: "before"})

    with pytest.raises(errors.Refused) as raised:
        kit.crm.update(created.ref, {title: "x" * 5000}, created.version)

    assert raised.value.field == title
    assert raised.value.next_step


def test_a_currency_the_crm_does_not_have_is_refused_with_column_value_and_next_step(kit: Kit) -> None:
    currency = kit.columns["currency"]
    created, _ = kit.crm.create(kit.opportunity, new_id(), {})

    with pytest.raises(errors.Refused, match="XTS") as raised:
        kit.crm.update(created.ref, {currency: "XTS"}, created.version)

    assert raised.value.field == currency
    assert "add such a" in raised.value.next_step


def test_a_written_related_value_comes_back_with_the_write(kit: Kit) -> None:
    currency = kit.columns["currency"]
    created, _ = kit.crm.create(kit.opportunity, new_id(), {currency: "USD"})

    updated = kit.crm.update(created.ref, {currency: "EUR"}, created.version)

    assert updated.values[currency] == "EUR" == kit.crm.read(created.ref).values[currency]


def test_a_deal_is_won_after_its_other_columns_are_written(kit: Kit) -> None:
    title = kit.columns["title"]
    created, _ = kit.crm.create(kit.opportunity, new_id(), {title: "before"})

    won = kit.crm.update(created.ref, {title: "last words", **kit.won}, created.version)

    assert won == kit.crm.read(created.ref)
    assert won.values.items() >= {title: "last words", **kit.won}.items()


def test_winning_again_changes_nothing(kit: Kit) -> None:
    created, _ = kit.crm.create(kit.opportunity, new_id(), {})
    won = kit.crm.update(created.ref, kit.won, created.version)

    again = kit.crm.update(created.ref, kit.won, won.version)

    assert again == won


def test_winning_an_outdated_record_is_a_version_conflict(kit: Kit) -> None:
    created, _ = kit.crm.create(kit.opportunity, new_id(), {})
    kit.seller_edits(created.ref, **{kit.columns["title"]: "the seller's"})

    with pytest.raises(errors.VersionConflict):
        kit.crm.update(created.ref, kit.won, created.version)

    assert not kit.crm.read(created.ref).values.items() >= kit.won.items()


# ---------------------------------------------------------------- leads


def test_a_lead_is_created_and_leads_to_the_opportunity_a_person_makes_of_it(kit: Kit) -> None:
    lead, is_new = kit.crm.create(kit.lead, new_id(), {kit.columns["lead_title"]: "Inquiry", "lastname": "Byrne"})

    before = kit.crm.converted_to(lead.ref)
    opportunity = kit.seller_qualifies(lead.ref)
    kit.asked()

    assert is_new
    assert before is None
    assert kit.crm.converted_to(lead.ref) == opportunity
    assert len(kit.asked()) == 1


# ---------------------------------------------------------------- changes


def test_the_first_poll_sees_everything_and_an_idle_one_nothing_with_one_request(kit: Kit) -> None:
    flag = kit.columns["flag"]
    shared = kit.seller_creates(kit.opportunity, **{kit.columns["title"]: "a", flag: True})
    private = kit.seller_creates(kit.opportunity, **{kit.columns["title"]: "b", flag: False})

    first, cursor = feed(kit, None)
    kit.asked()
    second, cursor = feed(kit, cursor)
    third, _ = feed(kit, cursor)

    assert {change.ref: change.shared for change in first} == {shared: True, private: False}
    assert second == third == []
    assert len(kit.asked()) == 2


def test_an_edit_is_reported_once_with_the_version_a_read_gives(kit: Kit) -> None:
    ref = kit.seller_creates(kit.opportunity, **{kit.columns["flag"]: True})
    _, cursor = feed(kit, None)
    kit.clock.advance(60)
    kit.seller_edits(ref, **{kit.columns["title"]: "one"})
    kit.seller_edits(ref, **{kit.columns["title"]: "two"})

    changes, cursor = feed(kit, cursor)
    nothing, _ = feed(kit, cursor)

    assert changes == [RecordChange(ref, kit.crm.read(ref).version, shared=True)]
    assert nothing == []


def test_our_own_write_is_reported_with_the_version_the_write_returned(kit: Kit) -> None:
    created, _ = kit.crm.create(kit.opportunity, new_id(), {kit.columns["title"]: "before"})
    _, cursor = feed(kit, None)
    updated = kit.crm.update(created.ref, {kit.columns["title"]: "after"}, created.version)

    changes, _ = feed(kit, cursor)

    assert [change.version for change in changes] == [updated.version]


def test_a_record_with_a_referral_is_shared_even_when_the_seller_switched_the_flag_off(kit: Kit) -> None:
    created, _ = kit.crm.create(kit.opportunity, new_id(), {kit.columns["flag"]: True})
    _, cursor = feed(kit, None)
    kit.seller_edits(created.ref, **{kit.columns["flag"]: False})

    changes, _ = feed(kit, cursor)

    assert [change.shared for change in changes] == [True]


def test_a_deleted_record_is_reported(kit: Kit) -> None:
    ref = kit.seller_creates(kit.opportunity, **{kit.columns["flag"]: True})
    _, cursor = feed(kit, None)
    kit.seller_deletes(ref)

    changes, _ = feed(kit, cursor)

    assert changes == [RecordChange(ref, deleted=True)]


def test_changes_come_page_by_page_and_only_the_last_page_has_a_cursor(kit: Kit) -> None:
    refs = {kit.seller_creates(kit.opportunity, **{kit.columns["flag"]: True}) for _ in range(2 * kit.page_size + 1)}

    baseline, cursor = feed(kit, None)
    for ref in refs:
        kit.seller_edits(ref, **{kit.columns["title"]: "new"})
    delta, _ = feed(kit, cursor)

    assert [change.ref for change in baseline if change.ref in refs] != []
    assert {change.ref for change in baseline} == {change.ref for change in delta} == refs
    assert len(baseline) == len(delta) == len(refs)


def test_a_change_between_two_pages_is_not_lost(kit: Kit) -> None:
    refs = [kit.seller_creates(kit.opportunity, **{kit.columns["flag"]: True}) for _ in range(kit.page_size + 2)]
    pages = kit.crm.changes(kit.opportunity, None)
    seen = {change.ref: change.version for change in next(pages).changes}

    kit.seller_edits(refs[0], **{kit.columns["title"]: "edited between pages"})
    rest = list(pages)
    seen |= {change.ref: change.version for page in rest for change in page.changes}
    late, _ = feed(kit, rest[-1].cursor)
    seen |= {change.ref: change.version for change in late}

    assert seen == {ref: kit.crm.read(ref).version for ref in refs}


def test_an_expired_cursor_starts_over(kit: Kit, caplog: pytest.LogCaptureFixture) -> None:
    ref = kit.seller_creates(kit.opportunity, **{kit.columns["flag"]: True})
    _, cursor = feed(kit, None)
    kit.expire_cursors(kit.opportunity)

    changes, cursor = feed(kit, cursor)
    nothing, _ = feed(kit, cursor)

    assert [change.ref for change in changes] == [ref]
    assert nothing == []
    assert "crm.change_feed_starts_over" in [record.msg for record in caplog.records]


@pytest.mark.parametrize("cursor", ["", "{", "[]", '{"unknown": 1}'])
def test_a_cursor_that_cannot_be_read_starts_over(kit: Kit, cursor: str) -> None:
    ref = kit.seller_creates(kit.opportunity, **{kit.columns["flag"]: True})

    changes, _ = feed(kit, cursor)

    assert [change.ref for change in changes] == [ref]


def test_the_feed_of_leads_is_apart_from_that_of_opportunities(kit: Kit) -> None:
    kit.seller_creates(kit.opportunity, **{kit.columns["flag"]: True})
    lead, _ = kit.crm.create(kit.lead, new_id(), {kit.columns["lead_title"]: "Inquiry", "lastname": "Byrne"})

    changes, _ = feed(kit, None, kit.lead)

    assert [change.ref for change in changes] == [lead.ref]


# ---------------------------------------------------------------- when the CRM is unwell


def test_a_throttled_crm_says_when_to_come_back_and_is_left_alone(kit: Kit) -> None:
    ref = kit.seller_creates(kit.opportunity)
    kit.faults.add("throttle", retry_after_s=45)

    with pytest.raises(errors.Throttled) as raised:
        kit.crm.read(ref)
    with pytest.raises(errors.Throttled):
        kit.crm.read(ref)

    assert raised.value.retry_after_s == 45
    assert len(kit.asked()) == 1


@pytest.mark.parametrize("fault", [{"kind": "drop_after"}, {"kind": "status", "status": 503}, {"kind": "drop_before"}])
def test_a_passing_failure_goes_unnoticed(kit: Kit, fault: dict[str, Any]) -> None:
    ref = kit.seller_creates(kit.opportunity, **{kit.columns["title"]: "Deal"})
    kit.faults.add(**fault)

    assert kit.crm.read(ref).values[kit.columns["title"]] == "Deal"


@pytest.mark.parametrize(
    "fault", [{"kind": "garbage"}, {"kind": "status", "status": 404, "body": "<html>no route</html>"}]
)
def test_a_gateway_in_the_way_is_unavailable_and_never_a_missing_record(kit: Kit, fault: dict[str, Any]) -> None:
    ref = kit.seller_creates(kit.opportunity)
    kit.faults.add(**fault)

    with pytest.raises(errors.Unavailable):
        kit.crm.read(ref)


# ---------------------------------------------------------------- Dynamics 365: what it costs and how it is asked


def test_dynamics_creates_with_the_look_ups_one_write_and_one_read(dynamics: Dynamics365) -> None:
    values = {"name": "Deal", "transactioncurrencyid.isocurrencycode": "EUR"}
    dynamics.crm.create("opportunity", new_id(), values, [dynamics.account("Contoso")])
    dynamics.asked()
    referral_id = new_id()

    dynamics.crm.create("opportunity", referral_id, values, [dynamics.account("Contoso")])

    by_key = f"/opportunities(cosell_referralid='{referral_id}')"
    assert dynamics.asked() == ["GET /opportunities", "GET /accounts", f"PATCH {by_key}", f"GET {by_key}"]


def test_dynamics_makes_a_row_for_every_contact_and_links_the_first(dynamics: Dynamics365) -> None:
    second = RelatedRow("contact", "", {"emailaddress1": "bo@contoso.example"}, {"lastname": "Bo"}, "parentaccountid",
                        "parentcustomerid_account")  # fmt: skip

    created, _ = dynamics.crm.create(
        "opportunity", new_id(), {}, [dynamics.account("Contoso"), dynamics.contact("sue@contoso.example"), second]
    )

    account = created.values["parentaccountid.name"]
    contacts = dynamics.rows("contact")
    assert account == "Contoso"
    assert created.values["parentcontactid.emailaddress1"] == "sue@contoso.example"
    assert {row["emailaddress1"] for row in contacts} == {"sue@contoso.example", "bo@contoso.example"}
    assert {row["parentcustomerid"].id for row in contacts} == {str(dynamics.rows("account")[0]["accountid"])}


def test_dynamics_does_not_relate_to_an_inactive_account(dynamics: Dynamics365) -> None:
    inactive = dynamics.people.create("account", {"name": "Contoso"})
    dynamics.people.edit("account", inactive, {"statecode": 1, "statuscode": 2})

    created, _ = dynamics.crm.create("opportunity", new_id(), {}, [dynamics.account("Contoso")])

    assert created.values["parentaccountid.name"] == "Contoso"
    assert len(dynamics.rows("account")) == 2


def test_dynamics_binds_a_plain_lookup_by_id(dynamics: Dynamics365) -> None:
    lead = dynamics.seller_creates("lead", subject="Inquiry", lastname="Byrne")

    created, _ = dynamics.crm.create("opportunity", new_id(), {"originatingleadid": lead.id})

    assert dynamics.crm.converted_to(lead) == created.ref


def test_dynamics_empties_a_lookup(dynamics: Dynamics365) -> None:
    created, _ = dynamics.crm.create("opportunity", new_id(), {}, [dynamics.account("Contoso")])

    updated = dynamics.crm.update(created.ref, {"parentaccountid.name": None}, created.version)

    assert updated.values["parentaccountid.name"] is None
    assert dynamics.crm.read(created.ref).values["parentaccountid.name"] is None


def test_dynamics_is_created_open_whatever_state_comes_with_the_values(dynamics: Dynamics365) -> None:
    on_hold, _ = dynamics.crm.create("opportunity", new_id(), {"statecode": 0, "statuscode": 2})
    won, _ = dynamics.crm.create("opportunity", new_id(), {"name": "w", **dynamics.won})

    assert (on_hold.values["statecode"], on_hold.values["statuscode"]) == (0, 2)
    assert (won.values["name"], won.values["statecode"], won.values["statuscode"]) == ("w", 1, 3)


def test_dynamics_closes_with_the_columns_first_then_the_action_then_a_read(dynamics: Dynamics365) -> None:
    created, _ = dynamics.crm.create("opportunity", new_id(), {"estimatedvalue": Decimal(7)})
    dynamics.asked()
    values = {
        "name": "x",
        "statecode": 2,
        "statuscode": 5,
        "actualvalue": Decimal("5.10"),
        "actualclosedate": "2026-04-30",
    }

    lost = dynamics.crm.update(created.ref, values, created.version)

    row = f"/opportunities({created.ref.id})"
    assert dynamics.asked() == [f"PATCH {row}", "POST /LoseOpportunity", f"GET {row}"]
    assert (lost.values["statecode"], lost.values["statuscode"]) == (2, 5)
    assert [close["actualrevenue"] for close in dynamics.rows("opportunityclose")] == [Decimal("5.10")]


def test_dynamics_does_not_send_a_state_already_in_place(dynamics: Dynamics365) -> None:
    created, _ = dynamics.crm.create("opportunity", new_id(), {})
    won = dynamics.crm.update(created.ref, dynamics.won, created.version)
    dynamics.asked()

    dynamics.crm.update(created.ref, {"name": "x", **dynamics.won}, won.version)

    assert dynamics.asked() == [f"PATCH /opportunities({created.ref.id})"]


def test_dynamics_closed_by_a_seller_a_moment_earlier_is_closed(dynamics: Dynamics365) -> None:
    created, _ = dynamics.crm.create("opportunity", new_id(), {})
    dynamics.faults.add("drop_after", path="WinOpportunity")

    won = dynamics.crm.update(created.ref, dynamics.won, created.version)

    assert won.values["statecode"] == 1
    assert len(dynamics.rows("opportunityclose")) == 1


def test_dynamics_lost_by_a_seller_is_not_won(dynamics: Dynamics365) -> None:
    created, _ = dynamics.crm.create("opportunity", new_id(), {})
    dynamics.people.lose(created.ref.id)

    with pytest.raises(errors.Refused, match="already closed") as raised:
        dynamics.crm.update(created.ref, dynamics.won, "")

    assert "reopen" in raised.value.next_step
    assert dynamics.crm.read(created.ref).values["statecode"] == 2


def test_dynamics_reopens_with_an_ordinary_write(dynamics: Dynamics365) -> None:
    created, _ = dynamics.crm.create("opportunity", new_id(), {})
    won = dynamics.crm.update(created.ref, dynamics.won, created.version)
    dynamics.asked()

    reopened = dynamics.crm.update(created.ref, {"statecode": 0, "statuscode": 1}, won.version)

    assert (reopened.values["statecode"], reopened.values["statuscode"]) == (0, 1)
    assert dynamics.asked() == [f"PATCH /opportunities({created.ref.id})"]


@pytest.mark.parametrize("code", ["0x8004051a", "0x80040518", "0x80040519"])
def test_dynamics_that_calls_a_state_already_in_place_gets_the_other_columns(dynamics: Dynamics365, code: str) -> None:
    created, _ = dynamics.crm.create("opportunity", new_id(), {})
    dynamics.faults.add("status", status=400, body={"error": {"code": code, "message": "already"}}, method="PATCH")

    updated = dynamics.crm.update(created.ref, {"name": "x", "statecode": 0, "statuscode": 1}, created.version)

    assert updated.values["name"] == "x"


def test_dynamics_disqualifies_a_lead_with_an_ordinary_write(dynamics: Dynamics365) -> None:
    lead, _ = dynamics.crm.create("lead", new_id(), {"subject": "Inquiry", "lastname": "Byrne"})

    updated = dynamics.crm.update(lead.ref, {"statecode": 2, "statuscode": 7}, lead.version)

    assert (updated.values["statecode"], updated.values["statuscode"]) == (2, 7)


def test_dynamics_looks_a_currency_up_once(dynamics: Dynamics365) -> None:
    created, _ = dynamics.crm.create("opportunity", new_id(), {})
    dynamics.asked()

    once = dynamics.crm.update(created.ref, {"transactioncurrencyid.isocurrencycode": "EUR"}, "")
    dynamics.crm.update(created.ref, {"transactioncurrencyid.isocurrencycode": "USD"}, once.version)
    dynamics.crm.update(created.ref, {"transactioncurrencyid.isocurrencycode": "EUR"}, "")

    assert dynamics.asked().count("GET /transactioncurrencies") == 2


def test_dynamics_sends_what_the_vendor_asks_for_with_every_call(dynamics: Dynamics365) -> None:
    created, _ = dynamics.crm.create("opportunity", new_id(), {})
    dynamics.org.log.clear()

    dynamics.crm.read(created.ref)
    dynamics.crm.update(created.ref, {"name": "x"}, created.version)

    read, write = [entry.request_headers for entry in dynamics.org.log.entries]
    assert (read["OData-Version"], read["OData-MaxVersion"], read["If-None-Match"]) == ("4.0", "4.0", "null")
    assert (write["If-Match"], write["Prefer"]) == (created.version, "return=representation")
    assert read["x-ms-client-request-id"] != write["x-ms-client-request-id"]


# ---------------------------------------------------------------- Dynamics 365: refusals


def test_dynamics_without_the_alternate_key_says_how_to_get_it(dynamics: Dynamics365) -> None:
    dynamics.org.organization.tables["opportunity"].keys.clear()

    with pytest.raises(errors.Permanent) as raised:
        dynamics.crm.create("opportunity", new_id(), {"name": "Deal"})

    assert "alternate key" in raised.value.next_step
    assert "Active" in raised.value.next_step
    assert dynamics.rows("opportunity") == []


def test_dynamics_column_that_does_not_exist_is_named(dynamics: Dynamics365) -> None:
    shape = TableShape("opportunity", ("name", "cosell_nothere"), "cosell_referralid", "cosell_syncwithpartnercenter")
    crm = Dataverse(dynamics.dataverse, {"opportunity": shape})
    ref = dynamics.seller_creates("opportunity")

    with pytest.raises(errors.Refused) as raised:
        crm.read(ref)

    assert raised.value.field == "cosell_nothere"
    assert "provision" in raised.value.next_step


def test_dynamics_application_user_that_is_missing_is_to_be_created(dynamics: Dynamics365) -> None:
    dynamics.people.disable_user("# Co-sell Sync")

    with pytest.raises(errors.Forbidden) as raised:
        dynamics.crm.read(RecordRef("opportunity", new_id()))

    assert "application user" in raised.value.next_step


def test_dynamics_role_that_lacks_a_right_is_to_be_extended(dynamics: Dynamics365) -> None:
    created, _ = dynamics.crm.create("opportunity", new_id(), {})
    dynamics.people.set_roles("# Co-sell Sync", ["Delegate"])

    with pytest.raises(errors.Forbidden) as raised:
        dynamics.crm.update(created.ref, {"name": "x"}, created.version)

    assert "security role" in raised.value.next_step


def test_dynamics_referral_id_of_another_record_is_refused(dynamics: Dynamics365) -> None:
    taken, _ = dynamics.crm.create("opportunity", new_id(), {})
    other, _ = dynamics.crm.create("opportunity", new_id(), {})

    with pytest.raises(errors.Refused) as raised:
        dynamics.crm.update(other.ref, {"cosell_referralid": taken.values["cosell_referralid"]}, other.version)

    assert "another record already carries" in raised.value.next_step


def test_dynamics_account_that_is_gone_is_not_mistaken_for_the_record(dynamics: Dynamics365) -> None:
    created, _ = dynamics.crm.create("opportunity", new_id(), {})
    gone = {"error": {"code": "0x80040217", "message": f"account With Id = {new_id()} Does Not Exist"}}
    dynamics.faults.add("status", status=404, body=gone, method="PATCH")

    with pytest.raises(errors.Refused, match="should refer to is gone"):
        dynamics.crm.update(created.ref, {"name": "x"}, created.version)


CODES = [
    (400, "0x8004431a", errors.Refused, "add the option"),
    (400, "0x80040265", errors.Refused, "plug-in"),
    (400, "0x80048CFB", errors.Refused, "currency"),
    (403, "0x8004f507", errors.Forbidden, "secured column"),
    (412, "", errors.VersionConflict, ""),
    (412, "0x80040333", errors.Refused, "duplicate detection"),
    (400, "0x80044151", errors.Unavailable, ""),
    (400, "0x80048d04", errors.Throttled, ""),
    (429, "0x80072326", errors.Throttled, ""),
    (400, "0x12345678", errors.Refused, "correct"),
]


@pytest.mark.parametrize(("status", "code", "error", "next_step"), CODES)
def test_dynamics_codes_mean_what_the_vendor_says(
    dynamics: Dynamics365, status: int, code: str, error: type[errors.RemoteError], next_step: str
) -> None:
    body = {"error": {"code": code, "message": "words", "@Microsoft.PowerApps.CDS.HelpLink": "x"}}
    dynamics.faults.add("status", status=status, body=body, times=9)

    with pytest.raises(errors.RemoteError) as raised:
        dynamics.crm.update(RecordRef("opportunity", new_id()), {"name": "x"}, "")

    assert type(raised.value) is error
    assert raised.value.code == code.lower()
    assert next_step in getattr(raised.value, "next_step", "")


# ---------------------------------------------------------------- Dynamics 365: polling where tracking is not to be had


@pytest.fixture
def untracked(dynamics: Dynamics365) -> Dynamics365:
    dynamics.org.organization.tables["opportunity"].change_tracking = False
    return dynamics


def test_dynamics_without_change_tracking_is_polled_and_idle_polls_report_nothing_twice(
    untracked: Dynamics365, caplog: pytest.LogCaptureFixture
) -> None:
    shared = untracked.seller_creates("opportunity", cosell_syncwithpartnercenter=True)
    untracked.seller_creates("opportunity", cosell_syncwithpartnercenter=False)

    first, cursor = feed(untracked, None)
    untracked.asked()
    second, cursor = feed(untracked, cursor)
    third, cursor = feed(untracked, cursor)

    assert [change.ref for change in first] == [shared]
    assert second == third == []
    assert untracked.asked() == ["GET /opportunities"] * 2
    assert [record.msg for record in caplog.records] == ["crm.change_tracking_refused"]


def test_dynamics_polls_see_each_edit_once_even_within_one_second(untracked: Dynamics365) -> None:
    ref = untracked.seller_creates("opportunity", cosell_syncwithpartnercenter=True)
    _, cursor = feed(untracked, None)
    untracked.seller_edits(ref, name="same second")

    changes, cursor = feed(untracked, cursor)
    nothing, _ = feed(untracked, cursor)

    assert [change.version for change in changes] == [untracked.crm.read(ref).version]
    assert nothing == []


def test_dynamics_polls_find_a_row_that_was_committed_late(untracked: Dynamics365) -> None:
    late = untracked.seller_creates("opportunity", cosell_syncwithpartnercenter=False)
    untracked.clock.advance(300)
    untracked.seller_creates("opportunity", cosell_syncwithpartnercenter=True)
    _, cursor = feed(untracked, None)
    # A transaction that began five minutes ago and ends now carries the time of its beginning.
    untracked.clock.advance(-300)
    untracked.seller_edits(late, cosell_syncwithpartnercenter=True)
    untracked.clock.advance(300)

    changes, _ = feed(untracked, cursor)

    assert [change.ref for change in changes] == [late]


def test_dynamics_polls_read_every_page(untracked: Dynamics365) -> None:
    refs = {untracked.seller_creates("opportunity", cosell_syncwithpartnercenter=True) for _ in range(11)}

    first, cursor = feed(untracked, None)
    second, _ = feed(untracked, cursor)

    assert {change.ref for change in first} == refs
    assert (len(first), second) == (11, [])


def test_dynamics_polls_forget_what_the_overlap_no_longer_covers(untracked: Dynamics365) -> None:
    untracked.seller_creates("opportunity", cosell_syncwithpartnercenter=True)
    _, cursor = feed(untracked, None)
    untracked.clock.advance(3600)
    latest = untracked.seller_creates("opportunity", cosell_syncwithpartnercenter=True)

    _, cursor = feed(untracked, cursor)

    assert list(json.loads(cursor)["seen"]) == [latest.id]


def test_dynamics_asks_for_change_tracking_again_after_a_day(untracked: Dynamics365) -> None:
    ref = untracked.seller_creates("opportunity", cosell_syncwithpartnercenter=True)
    _, cursor = feed(untracked, None)
    untracked.org.organization.tables["opportunity"].change_tracking = True
    _, same_day = feed(untracked, cursor)
    untracked.clock.advance(25 * 3600)
    untracked.seller_edits(ref, name="a day later")
    _, next_day = feed(untracked, same_day)

    _, tracked = feed(untracked, next_day)

    assert json.loads(same_day)["delta"] == json.loads(next_day)["delta"] == ""
    assert "$deltatoken" in json.loads(tracked)["delta"]


def test_dynamics_role_that_sees_only_its_own_rows_is_polled(dynamics: Dynamics365) -> None:
    created, _ = dynamics.crm.create("opportunity", new_id(), {})
    dynamics.people.set_roles("# Co-sell Sync", ["Own Records Only"])

    changes, _ = feed(dynamics, None)

    assert [change.ref for change in changes] == [created.ref]


def test_dynamics_role_that_sees_nothing_is_an_error_not_silence(dynamics: Dynamics365) -> None:
    dynamics.people.set_roles("# Co-sell Sync", ["Delegate"])

    with pytest.raises(errors.Forbidden):
        feed(dynamics, None)


def test_dynamics_metadata_change_expires_the_cursor_and_the_feed_starts_over(dynamics: Dynamics365) -> None:
    ref = dynamics.seller_creates("opportunity", cosell_syncwithpartnercenter=True)
    _, cursor = feed(dynamics, None)
    dynamics.people.change_metadata("opportunity")

    changes, _ = feed(dynamics, cursor)

    assert [change.ref for change in changes] == [ref]


@pytest.mark.parametrize(
    ("more", "display", "starts_over"),
    [(("stepname",), (), True), (("stepname",), ("stepname",), False), ((), (), False)],
    ids=["another mapped column", "another column that only we write", "the same columns"],
)
def test_dynamics_feed_starts_over_when_the_columns_it_looks_at_change(
    dynamics: Dynamics365, more: tuple[str, ...], display: tuple[str, ...], starts_over: bool
) -> None:
    ref = dynamics.seller_creates("opportunity", cosell_syncwithpartnercenter=True)
    _, cursor = feed(dynamics, None)
    shape = dynamics.shapes["opportunity"]
    changed = replace(shape, columns=(*shape.columns, *more), display=(*shape.display, *display))
    crm = Dataverse(dynamics.dataverse, {"opportunity": changed})

    changes = [change for page in crm.changes("opportunity", cursor) for change in page.changes]

    assert [change.ref for change in changes] == ([ref] if starts_over else [])


def test_dynamics_delta_link_is_followed_as_it_stands(dynamics: Dynamics365) -> None:
    dynamics.seller_creates("opportunity", cosell_syncwithpartnercenter=True)
    _, cursor = feed(dynamics, None)
    dynamics.org.log.clear()

    feed(dynamics, cursor)

    link = json.loads(cursor)["delta"]
    assert dynamics.org.log.entries[0].query == link.partition("?")[2]


def test_dynamics_empty_delta_answer_without_a_link_keeps_the_old_one(dynamics: Dynamics365) -> None:
    _, cursor = feed(dynamics, None)
    dynamics.faults.add("status", status=200, body={"value": []})

    changes, after = feed(dynamics, cursor)

    assert (changes, after) == ([], cursor)


def test_dynamics_plugin_that_follows_our_write_shows_as_a_new_version(dynamics: Dynamics365) -> None:
    created, _ = dynamics.crm.create("opportunity", new_id(), {})
    _, cursor = feed(dynamics, None)
    dynamics.people.plugin_bumps_next_write("opportunity")
    updated = dynamics.crm.update(created.ref, {"name": "x"}, created.version)

    changes, _ = feed(dynamics, cursor)

    assert [change.version for change in changes] == [dynamics.crm.read(created.ref).version] != [updated.version]


# ---------------------------------------------------------------- Dynamics 365: names and literals


@pytest.mark.parametrize(
    ("table", "name"),
    [
        ("opportunity", "opportunities"),
        ("account", "accounts"),
        ("transactioncurrency", "transactioncurrencies"),
        ("cosell_address", "cosell_addresses"),
        ("cosell_box", "cosell_boxes"),
        ("cosell_batch", "cosell_batches"),
        ("cosell_policy", "cosell_policies"),
        ("cosell_team", "cosell_teams"),
    ],
)
def test_dynamics_tables_are_addressed_by_their_set_names(table: str, name: str) -> None:
    assert set_name(table) == name


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("O'Brien", "'O''Brien'"),
        (None, "null"),
        (True, "true"),
        (False, "false"),
        (7, "7"),
        (Decimal("1E+3"), "1000"),
    ],
)
def test_dynamics_literals_are_escaped(value: Any, text: str) -> None:
    assert literal(value) == text


def test_dynamics_key_values_are_escaped_and_percent_encoded() -> None:
    assert key_address("opportunity", "key", "a'b/c") == "opportunities(key='a%27%27b%2Fc')"


def test_dynamics_logs_no_names(dynamics: Dynamics365, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    dynamics.crm.create("opportunity", new_id(), {"name": "Zebra"}, [dynamics.account("Zebra")])

    logged = " ".join(str(record.__dict__) for record in caplog.records if record.name.startswith("shared"))
    assert "remote.called" in logged
    assert "Zebra" not in logged

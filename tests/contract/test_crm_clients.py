"""What the core relies on in a CRM client, whichever CRM it speaks to. What is particular to each has its own module.

A new CRM is a `Kit` in crm_kits.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from shared import errors
from shared.model import RecordChange, RecordRef
from shared.remote import dataverse_changes, salesforce_changes
from tests.contract.crm_kits import KITS, PAGE_SIZE, Kit, feed, new_id


@pytest.fixture(params=KITS)
def kit(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kit]:
    monkeypatch.setattr(dataverse_changes, "PAGE_SIZE", PAGE_SIZE)
    monkeypatch.setattr(salesforce_changes, "PAGE_SIZE", PAGE_SIZE)
    with KITS[request.param]() as made:
        yield made


def deal(kit: Kit, **values: Any) -> dict[str, Any]:
    """A new opportunity's values, with what the CRM insists on; `values` by what columns are."""
    return {**kit.complete, **{kit.columns[name]: value for name, value in values.items()}}


# ---------------------------------------------------------------- reading


def test_a_record_is_read_with_one_request_and_has_every_mapped_column(kit: Kit) -> None:
    c = kit.columns
    created, _ = kit.crm.create(
        kit.opportunity, new_id(), deal(kit, title="Deal", currency="EUR"), [kit.account("Contoso")]
    )
    kit.asked()

    record = kit.crm.read(created.ref)

    assert record.ref == created.ref
    assert (record.values[c["title"]], record.values[c["account"]]) == ("Deal", "Contoso")
    assert (record.values[c["currency"]], kit.email_of(record)) == ("EUR", None)
    assert set(kit.columns.values()) <= set(record.values)
    assert record.version
    assert record.modified is not None
    assert len(kit.asked()) == 1


def test_a_record_that_does_not_exist_is_not_found(kit: Kit) -> None:
    with pytest.raises(errors.NotFound):
        kit.crm.read(RecordRef(kit.opportunity, kit.new_record_id()))


def test_a_record_is_found_by_its_referral_with_one_request(kit: Kit) -> None:
    referral_id = new_id()
    created, _ = kit.crm.create(kit.opportunity, referral_id, deal(kit, title="Deal"))
    kit.asked()

    found = kit.crm.find_by_referral(kit.opportunity, referral_id)
    missing = kit.crm.find_by_referral(kit.opportunity, new_id())

    assert found is not None
    assert (found.ref, missing) == (created.ref, None)
    assert len(kit.asked()) == 2


# ---------------------------------------------------------------- creating


def test_a_created_record_is_returned_as_a_read_would_return_it(kit: Kit) -> None:
    c, referral_id = kit.columns, new_id()
    values = deal(kit, title="O'Brien & Söhne ✓", amount=Decimal("12345678901.25"), flag=True)
    related = [kit.account("Contoso"), kit.contact("sue@contoso.example")]

    created, is_new = kit.crm.create(kit.opportunity, referral_id, values, related)

    assert is_new
    assert created == kit.crm.read(created.ref)
    assert {name: created.values[name] for name in values} == values
    assert created.values[c["referral_id"]] == referral_id
    assert (created.values[c["account"]], kit.email_of(created)) == ("Contoso", "sue@contoso.example")


@pytest.mark.parametrize("with_account", [False, True])
def test_a_second_create_adopts_what_is_there_and_writes_nothing(kit: Kit, with_account: bool) -> None:
    referral_id = new_id()
    first, _ = kit.crm.create(kit.opportunity, referral_id, deal(kit, title="first"))
    related = [kit.account("Contoso")] if with_account else []

    second, is_new = kit.crm.create(kit.opportunity, referral_id, deal(kit, title="second"), related)

    assert not is_new
    assert second == first == kit.crm.read(first.ref)
    assert len(kit.rows(kit.opportunity)) == 1
    assert kit.rows("account") == []


def test_a_create_whose_answer_was_lost_makes_one_record(kit: Kit) -> None:
    kit.faults.add("drop_after", **kit.create_call)
    referral_id = new_id()

    created, _ = kit.crm.create(kit.opportunity, referral_id, deal(kit, title="Deal"))

    assert created.values[kit.columns["title"]] == "Deal"
    assert len(kit.rows(kit.opportunity)) == 1


@pytest.mark.parametrize("kind", ["drop_before", "drop_after"])
@pytest.mark.parametrize("interrupted_after", range(6))
def test_a_create_interrupted_anywhere_makes_one_of_each_when_run_again(
    kit: Kit, kind: str, interrupted_after: int
) -> None:
    referral_id, values = new_id(), deal(kit, title="Deal")
    related = [kit.account("Contoso"), kit.contact("sue@contoso.example")]
    if interrupted_after >= kit.create_calls:
        return  # this CRM is done by then
    kit.faults.add("delay", seconds=0, times=interrupted_after) if interrupted_after else None
    kit.faults.add(kind, times=99)

    with pytest.raises(errors.Unavailable):
        kit.crm.create(kit.opportunity, referral_id, values, related)
    kit.faults.clear()
    record, _ = kit.crm.create(kit.opportunity, referral_id, values, related)

    assert record.values[kit.columns["account"]] == "Contoso"
    assert kit.email_of(record) == "sue@contoso.example"
    assert [len(kit.rows(table)) for table in (kit.opportunity, "account", "contact")] == [1, 1, 1]


def test_a_related_row_that_is_refused_is_named_by_its_number_and_column(kit: Kit) -> None:
    column = kit.refuse_contacts()

    with pytest.raises(errors.Permanent) as raised:
        kit.crm.create(
            kit.opportunity, new_id(), deal(kit), [kit.account("Contoso"), kit.contact("sue@contoso.example")]
        )

    assert (raised.value.part, raised.value.field) == ("1", column)
    assert kit.rows(kit.opportunity) == []


def test_related_rows_are_found_without_regard_to_case_and_shared(kit: Kit) -> None:
    one, _ = kit.crm.create(
        kit.opportunity, new_id(), deal(kit), [kit.account("O'Brien & Co"), kit.contact("A@b.example")]
    )
    two, _ = kit.crm.create(
        kit.opportunity, new_id(), deal(kit), [kit.account("o'brien & CO"), kit.contact("a@B.example")]
    )

    account = kit.columns["account"]
    assert one.values[account] == two.values[account] == "O'Brien & Co"
    assert [len(kit.rows(table)) for table in (kit.opportunity, "account", "contact")] == [2, 1, 1]


def test_an_amount_keeps_its_currency_and_every_digit(kit: Kit) -> None:
    c = kit.columns
    amount = Decimal("999999999999.99")

    created, _ = kit.crm.create(kit.opportunity, new_id(), deal(kit, amount=amount, currency="EUR"))

    assert (created.values[c["amount"]], created.values[c["currency"]]) == (amount, "EUR")
    assert isinstance(created.values[c["amount"]], Decimal)


# ---------------------------------------------------------------- updating


def test_an_update_is_one_conditional_request_that_returns_the_new_version(kit: Kit) -> None:
    title, amount = kit.columns["title"], kit.columns["amount"]
    created, _ = kit.crm.create(kit.opportunity, new_id(), deal(kit, title="before"))
    kit.asked()

    updated = kit.crm.update(created.ref, {title: "after", amount: Decimal("10.50")}, created.version)

    assert len(kit.asked()) == 1
    read = kit.crm.read(created.ref)
    assert updated.version == read.version != created.version
    assert (read.values[title], read.values[amount]) == ("after", Decimal("10.50"))
    assert updated.values.items() <= read.values.items()


def test_an_update_of_an_outdated_record_is_a_version_conflict(kit: Kit) -> None:
    title = kit.columns["title"]
    created, _ = kit.crm.create(kit.opportunity, new_id(), deal(kit, title="before"))
    kit.clock.advance(60)
    kit.seller_edits(created.ref, **{title: "the seller's"})

    with pytest.raises(errors.VersionConflict):
        kit.crm.update(created.ref, {title: "ours"}, created.version)

    assert kit.crm.read(created.ref).values[title] == "the seller's"


def test_an_update_without_a_version_writes_in_any_case(kit: Kit) -> None:
    title = kit.columns["title"]
    created, _ = kit.crm.create(kit.opportunity, new_id(), deal(kit, title="before"))
    kit.clock.advance(60)
    kit.seller_edits(created.ref, **{title: "the seller's"})

    assert kit.crm.update(created.ref, {title: "ours"}, "").values[title] == "ours"


@pytest.mark.parametrize("old", [False, True])
def test_an_update_of_a_record_that_is_not_there_is_not_found_and_creates_nothing(kit: Kit, old: bool) -> None:
    ref = RecordRef(kit.opportunity, kit.new_record_id())

    with pytest.raises(errors.NotFound):
        kit.crm.update(ref, {kit.columns["title"]: "x"}, kit.old_version if old else "")

    assert kit.rows(kit.opportunity) == []


def test_an_update_whose_answer_was_lost_shows_as_a_version_conflict(kit: Kit) -> None:
    title = kit.columns["title"]
    created, _ = kit.crm.create(kit.opportunity, new_id(), deal(kit, title="before"))
    kit.clock.advance(60)
    kit.faults.add("drop_after", method=kit.create_call["method"])

    with pytest.raises(errors.VersionConflict):
        kit.crm.update(created.ref, {title: "ours"}, created.version)

    assert kit.crm.read(created.ref).values[title] == "ours"


def test_a_text_that_is_too_long_is_refused_with_its_column(kit: Kit) -> None:
    title = kit.columns["title"]
    created, _ = kit.crm.create(kit.opportunity, new_id(), deal(kit, title="before"))

    with pytest.raises(errors.Refused) as raised:
        kit.crm.update(created.ref, {title: "x" * 5000}, created.version)

    assert raised.value.field == title
    assert raised.value.next_step


def test_a_currency_the_crm_does_not_have_is_refused_with_column_value_and_next_step(kit: Kit) -> None:
    currency = kit.columns["currency"]
    created, _ = kit.crm.create(kit.opportunity, new_id(), deal(kit))

    with pytest.raises(errors.Refused, match="XTS") as raised:
        kit.crm.update(created.ref, {currency: "XTS"}, created.version)

    assert raised.value.field == currency
    assert "add such a" in raised.value.next_step
    assert "currency" in raised.value.next_step


def test_a_written_related_value_comes_back_with_the_write(kit: Kit) -> None:
    currency = kit.columns["currency"]
    created, _ = kit.crm.create(kit.opportunity, new_id(), deal(kit, currency="USD"))

    updated = kit.crm.update(created.ref, {currency: "EUR"}, created.version)

    assert updated.values[currency] == "EUR" == kit.crm.read(created.ref).values[currency]


def test_a_deal_is_won_after_its_other_columns_are_written(kit: Kit) -> None:
    title = kit.columns["title"]
    created, _ = kit.crm.create(kit.opportunity, new_id(), deal(kit, title="before"))

    won = kit.crm.update(created.ref, {title: "last words", **kit.won}, created.version)

    assert won == kit.crm.read(created.ref)
    assert won.values.items() >= {title: "last words", **kit.won}.items()


def test_winning_again_changes_nothing(kit: Kit) -> None:
    created, _ = kit.crm.create(kit.opportunity, new_id(), deal(kit))
    won = kit.crm.update(created.ref, kit.won, created.version)

    again = kit.crm.update(created.ref, kit.won, won.version)

    assert again == won


def test_winning_an_outdated_record_is_a_version_conflict(kit: Kit) -> None:
    created, _ = kit.crm.create(kit.opportunity, new_id(), deal(kit))
    kit.clock.advance(60)
    kit.seller_edits(created.ref, **{kit.columns["title"]: "the seller's"})

    with pytest.raises(errors.VersionConflict):
        kit.crm.update(created.ref, kit.won, created.version)

    assert not kit.crm.read(created.ref).values.items() >= kit.won.items()


# ---------------------------------------------------------------- leads


def test_a_lead_is_created_and_leads_to_the_opportunity_a_person_makes_of_it(kit: Kit) -> None:
    lead, is_new = kit.crm.create(kit.lead, new_id(), kit.new_lead)

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

    assert [change.ref for change in first if change.shared] == [shared]
    assert {change.ref for change in first} <= {shared, private}
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
    created, _ = kit.crm.create(kit.opportunity, new_id(), deal(kit, title="before"))
    _, cursor = feed(kit, None)
    kit.clock.advance(60)
    updated = kit.crm.update(created.ref, {kit.columns["title"]: "after"}, created.version)

    changes, _ = feed(kit, cursor)

    assert [change.version for change in changes] == [updated.version]


def test_a_record_with_a_referral_is_shared_even_when_the_seller_switched_the_flag_off(kit: Kit) -> None:
    created, _ = kit.crm.create(kit.opportunity, new_id(), deal(kit, flag=True))
    _, cursor = feed(kit, None)
    kit.clock.advance(60)
    kit.seller_edits(created.ref, **{kit.columns["flag"]: False})

    changes, _ = feed(kit, cursor)

    assert [change.shared for change in changes] == [True]


def test_a_deleted_record_is_reported(kit: Kit) -> None:
    ref = kit.seller_creates(kit.opportunity, **{kit.columns["flag"]: True})
    _, cursor = feed(kit, None)
    kit.clock.advance(60)
    kit.seller_deletes(ref)
    kit.clock.advance(60)

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


@pytest.mark.parametrize("cursor", ["", "{", "[]", '{"unknown": 1}'])
def test_a_cursor_that_cannot_be_read_starts_over(kit: Kit, cursor: str) -> None:
    ref = kit.seller_creates(kit.opportunity, **{kit.columns["flag"]: True})

    changes, _ = feed(kit, cursor)

    assert [change.ref for change in changes] == [ref]


def test_the_feed_of_leads_is_apart_from_that_of_opportunities(kit: Kit) -> None:
    kit.seller_creates(kit.opportunity, **{kit.columns["flag"]: True})
    lead, _ = kit.crm.create(kit.lead, new_id(), kit.new_lead)

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


def test_the_records_that_concern_us_are_listed_in_pages_that_another_process_can_continue(kit: Kit) -> None:
    flag = kit.columns["flag"]
    shared = [kit.seller_creates(kit.opportunity, **deal(kit, flag=True)) for _ in range(2 * kit.page_size)]
    switched_off, _ = kit.crm.create(kit.opportunity, new_id(), deal(kit))
    kit.seller_creates(kit.opportunity, **deal(kit, flag=False))
    kit.seller_creates(kit.lead, **{**kit.new_lead, flag: True})
    kit.asked()

    first = kit.crm.shared_records(kit.opportunity, None)
    kit.seller_edits(shared[0], **{kit.columns["title"]: "edited between pages"})
    page, listed = first, list(first.records)
    while page.after:
        page = kit.crm.shared_records(kit.opportunity, page.after)
        listed += page.records

    assert len(kit.asked()) == 3
    assert len(listed) == len({each.ref for each in listed}) == len(shared) + 1
    assert {each.ref for each in listed} == {*shared, switched_off.ref}
    assert all(each.shared for each in listed)
    edited_after_it_was_listed = {shared[0]} & {each.ref for each in first.records}
    for each in listed:
        is_current = kit.crm.read(each.ref).version == each.version
        assert is_current == (each.ref not in edited_after_it_was_listed)


def test_a_list_of_records_leaves_the_change_feed_where_it_is(kit: Kit) -> None:
    _, cursor = feed(kit, None)
    ref = kit.seller_creates(kit.opportunity, **deal(kit, flag=True))

    assert [each.ref for each in kit.crm.shared_records(kit.opportunity, None).records] == [ref]

    assert [each.ref for each in feed(kit, cursor)[0]] == [ref]

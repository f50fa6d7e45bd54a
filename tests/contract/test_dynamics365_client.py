"""What is particular to the client of Dynamics 365: what it costs, how it asks, what refusals mean, how it polls."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from shared import errors
from shared.model import RecordRef
from shared.remote import dataverse_changes
from shared.remote.crm import RelatedRow, TableShape
from shared.remote.dataverse import Dataverse
from shared.remote.dataverse_rows import key_address, literal, set_name
from tests.contract.crm_kits import PAGE_SIZE, Dynamics365, feed, new_id


@pytest.fixture
def dynamics(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dynamics365]:
    monkeypatch.setattr(dataverse_changes, "PAGE_SIZE", PAGE_SIZE)
    with Dynamics365() as kit:
        yield kit


# ---------------------------------------------------------------- what it costs and how it is asked


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


# ---------------------------------------------------------------- refusals


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


# ---------------------------------------------------------------- polling where tracking is not to be had


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


def test_dynamics_expired_cursor_starts_over(dynamics: Dynamics365, caplog: pytest.LogCaptureFixture) -> None:
    ref = dynamics.seller_creates("opportunity", cosell_syncwithpartnercenter=True)
    _, cursor = feed(dynamics, None)
    dynamics.people.expire_delta_tokens("opportunity")

    changes, cursor = feed(dynamics, cursor)
    nothing, _ = feed(dynamics, cursor)

    assert [change.ref for change in changes] == [ref]
    assert nothing == []
    assert "crm.change_feed_starts_over" in [record.msg for record in caplog.records]


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


# ---------------------------------------------------------------- names and literals


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

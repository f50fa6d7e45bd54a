"""What is particular to the client of Salesforce: what it costs, how it asks, what refusals mean, how it polls."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from shared import errors
from shared.errors import SettingsError
from shared.model import RecordChange, RecordRef
from shared.remote import salesforce_changes
from shared.remote.crm import RelatedRow
from shared.remote.salesforce_rows import literal, long_id, where
from shared.remote.salesforce_sign_in import SalesforceSignIn, client_credentials, jwt_bearer
from tests.contract.crm_kits import SalesforceOrg, feed, new_id


@pytest.fixture
def salesforce() -> Iterator[SalesforceOrg]:
    with SalesforceOrg() as kit:
        yield kit


def shared_deal(kit: SalesforceOrg, **values: Any) -> RecordRef:
    return kit.seller_creates("Opportunity", **{"Sync_with_Partner_Center__c": True, **values})


def sent(kit: SalesforceOrg) -> list[dict[str, Any]]:
    """The calls inside the composite requests since the last look."""
    bodies = [json.loads(entry.request_body) for entry in kit.org.log.matching("POST", "composite$")]
    return [part for body in bodies for part in body["compositeRequest"]]


def soql(kit: SalesforceOrg) -> list[str]:
    return [unquote(part["url"].partition("?q=")[2]) for part in sent(kit) if "/query?" in part["url"]]


# ---------------------------------------------------------------- what it costs and how it is asked


def test_salesforce_updates_and_reads_back_with_one_request(salesforce: SalesforceOrg) -> None:
    created, _ = salesforce.crm.create("Opportunity", new_id(), salesforce.complete)
    salesforce.asked()

    updated = salesforce.crm.update(created.ref, {"Amount": 7}, created.version)

    (write, read) = sent(salesforce)
    assert salesforce.asked() == ["POST /composite"]
    assert (write["method"], write["body"]) == ("PATCH", {"Amount": 7})
    assert write["httpHeaders"]["If-Unmodified-Since"] == "Fri, 01 May 2026 08:00:00 GMT"
    assert read["method"] == "GET"
    assert updated.values["Amount"] == 7


def test_salesforce_creates_with_one_look_up_request_and_one_that_makes_everything(salesforce: SalesforceOrg) -> None:
    related = [salesforce.account("Contoso"), salesforce.contact("sue@contoso.example")]

    created, is_new = salesforce.crm.create("Opportunity", new_id(), salesforce.complete, related)

    assert is_new
    assert salesforce.asked() == ["GET /query", "POST /composite", "POST /composite"]
    assert created.values["Account.Name"] == "Contoso"


def test_salesforce_finds_all_that_a_new_record_refers_to_in_one_request(salesforce: SalesforceOrg) -> None:
    related = [salesforce.account("Contoso"), salesforce.contact("sue@contoso.example")]
    salesforce.crm.create("Opportunity", new_id(), salesforce.complete, related)
    salesforce.asked()

    salesforce.crm.create("Opportunity", new_id(), salesforce.complete, related)

    assert salesforce.asked() == ["GET /query", "POST /composite", "POST /composite"]
    assert [len(salesforce.rows(name)) for name in ("Opportunity", "account", "contact")] == [2, 1, 1]


def test_salesforce_makes_the_first_contact_primary_and_gives_the_others_a_role(salesforce: SalesforceOrg) -> None:
    second = replace(salesforce.contact("bo@contoso.example"), link="")
    again = replace(salesforce.contact("SUE@contoso.example"), link="")
    related = [salesforce.account("Contoso"), salesforce.contact("sue@contoso.example"), second, again]

    created, _ = salesforce.crm.create("Opportunity", new_id(), salesforce.complete, related)

    column = "OpportunityContactRoles.Contact.Email"
    assert created.values[column] == ["sue@contoso.example", "bo@contoso.example"]
    assert [role["IsPrimary"] for role in salesforce.rows("OpportunityContactRole")] == [True, False]
    account = salesforce.rows("account")[0]["Id"]
    assert {contact["AccountId"] for contact in salesforce.rows("contact")} == {account}


def test_salesforce_makes_nothing_when_one_of_the_rows_is_refused(salesforce: SalesforceOrg) -> None:
    salesforce.people.add_validation_rule("Contact", "PhoneNeeded", "A contact needs a phone.")
    related = [salesforce.account("Contoso"), salesforce.contact("sue@contoso.example")]

    with pytest.raises(errors.Refused, match="A contact needs a phone") as raised:
        salesforce.crm.create("Opportunity", new_id(), salesforce.complete, related)

    assert (raised.value.code, raised.value.part) == ("FIELD_CUSTOM_VALIDATION_EXCEPTION", "1")
    assert [salesforce.rows(name) for name in ("Opportunity", "account", "contact")] == [[], [], []]


def test_salesforce_two_deals_of_one_new_customer_at_once_get_one_account(salesforce: SalesforceOrg) -> None:
    def create(_: int) -> None:
        salesforce.crm.create("Opportunity", new_id(), salesforce.complete, [salesforce.account("Contoso")])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(create, range(4)))

    assert [len(salesforce.rows(name)) for name in ("Opportunity", "account")] == [4, 1]


def test_salesforce_create_that_was_executed_but_not_answered_is_looked_for_and_not_repeated(
    salesforce: SalesforceOrg,
) -> None:
    salesforce.faults.add("drop_after", path="/composite$", times=1)
    referral_id = new_id()

    created, is_new = salesforce.crm.create("Opportunity", referral_id, salesforce.complete)

    assert not is_new  # nobody can tell whether it was this call's
    assert created.values["Referral_Identifier__c"] == referral_id
    assert salesforce.asked().count("POST /composite") == 1


def test_salesforce_create_that_was_perhaps_executed_is_put_back(salesforce: SalesforceOrg) -> None:
    salesforce.faults.add("drop_before", path="/composite$")

    with pytest.raises(errors.OutcomeUnknown):
        salesforce.crm.create("Opportunity", new_id(), salesforce.complete)

    assert salesforce.asked().count("POST /composite") == 1


def test_salesforce_leads_and_accounts_are_written_without_assignment_rules(salesforce: SalesforceOrg) -> None:
    salesforce.people.assign_leads_to("Ada Admin")
    lead, _ = salesforce.crm.create("Lead", new_id(), salesforce.new_lead)
    owner = salesforce.rows("Lead")[0]["OwnerId"]
    salesforce.crm.update(lead.ref, {"Company": "Litware Ltd"}, lead.version)

    headers = [part.get("httpHeaders", {}) for part in sent(salesforce) if part["method"] == "PATCH"]

    assert [each["Sforce-Auto-Assign"] for each in headers] == ["FALSE", "FALSE"]
    assert salesforce.rows("Lead")[0]["OwnerId"] == owner


def test_salesforce_record_that_the_integration_user_owns_is_nobodys_yet(salesforce: SalesforceOrg) -> None:
    ours, _ = salesforce.crm.create(
        "Opportunity", new_id(), {**salesforce.complete, "Sync_with_Partner_Center__c": True}
    )
    sellers = shared_deal(salesforce)

    assert ours.values["Owner.Email"] is None
    assert salesforce.crm.read(sellers).values["Owner.Email"] == "sally.seller@fabrikam.example"
    assert [change.version for change in feed(salesforce, None)[0] if change.ref == ours.ref] == [ours.version]


def test_salesforce_says_who_is_calling(salesforce: SalesforceOrg) -> None:
    salesforce.crm.find_by_referral("Opportunity", new_id())

    assert salesforce.org.log.entries[-1].request_headers["Sforce-Call-Options"] == "client=cosell-sync"


def test_salesforce_lead_that_was_converted_without_an_opportunity_leads_nowhere(salesforce: SalesforceOrg) -> None:
    lead, _ = salesforce.crm.create("Lead", new_id(), salesforce.new_lead)
    salesforce.people.convert_lead(lead.ref.id, opportunity=False)

    assert salesforce.crm.converted_to(lead.ref) is None


# ---------------------------------------------------------------- signing in


def test_salesforce_session_that_expired_is_renewed_once_and_the_call_repeated(salesforce: SalesforceOrg) -> None:
    ref = shared_deal(salesforce)
    salesforce.people.expire_sessions()

    assert salesforce.crm.read(ref).ref == ref

    assert [entry.status for entry in salesforce.org.log.matching("GET", "query")] == [401, 200]


def test_salesforce_session_that_expires_between_pages_loses_no_change(salesforce: SalesforceOrg) -> None:
    refs = {shared_deal(salesforce) for _ in range(2 * salesforce.page_size)}
    pages = salesforce.crm.changes("Opportunity", None)
    seen = {change.ref for change in next(pages).changes}

    salesforce.people.expire_sessions()
    seen |= {change.ref for page in pages for change in page.changes}

    assert seen == refs


def test_salesforce_session_refused_for_good_is_a_sign_in_to_mend_and_no_loop(salesforce: SalesforceOrg) -> None:
    refusal = [{"errorCode": "INVALID_SESSION_ID", "message": "This session is not valid for use with the REST API"}]
    salesforce.faults.add("status", path="/query", status=401, body=refusal, times=9)

    with pytest.raises(errors.SignInFailed) as raised:
        salesforce.crm.find_by_referral("Opportunity", new_id())

    assert raised.value.retry_after_s == 300
    assert "policies" in str(raised.value)
    assert salesforce.asked() == ["GET /query", "GET /query"]


def sign_in(kit: SalesforceOrg, **options: Any) -> SalesforceSignIn:
    grant = options.pop("grant", None) or client_credentials(kit.org.client_id, kit.org.client_secret)
    return SalesforceSignIn(kit.oauth, grant, options.pop("version", "v67.0"), clock=kit.clock.now)


def test_salesforce_signs_in_with_a_signed_assertion(salesforce: SalesforceOrg) -> None:
    org = salesforce.org
    audience = "https://login.salesforce.com"

    grant = jwt_bearer(org.client_id, org.username, org.private_key_pem, audience, salesforce.clock.now)

    assert sign_in(salesforce, grant=grant).token()


@pytest.mark.parametrize(
    ("secret", "words"),
    [("wrong", "SALESFORCE_CLIENT_SECRET"), ("", "SALESFORCE_CLIENT_SECRET")],
)
def test_salesforce_secret_that_is_wrong_is_named(salesforce: SalesforceOrg, secret: str, words: str) -> None:
    with pytest.raises(errors.SignInFailed, match=words):
        sign_in(salesforce, grant=client_credentials(salesforce.org.client_id, secret)).token()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("no client credentials user enabled", "Run As"),
        ("request not supported on this domain", "My Domain"),
        ("user hasn't approved this consumer", "pre-authorize"),
        ("client identifier invalid", "SALESFORCE_CLIENT_ID"),
        ("audience is invalid", "SALESFORCE_AUDIENCE"),
        ("invalid assertion", "SALESFORCE_PRIVATE_KEY"),
        ("something new", "check SALESFORCE_URL"),
    ],
)
def test_salesforce_sign_in_that_is_refused_says_what_to_do(salesforce: SalesforceOrg, answer: str, words: str) -> None:
    body = {"error": "invalid_grant", "error_description": answer}
    salesforce.faults.add("status", path="oauth2/token", status=400, body=body)

    with pytest.raises(errors.SignInFailed, match=words) as raised:
        sign_in(salesforce).token()

    assert answer in str(raised.value)


def test_salesforce_private_key_that_is_none_is_named(salesforce: SalesforceOrg) -> None:
    grant = jwt_bearer("id", "user", "no key", "https://login.salesforce.com", salesforce.clock.now)

    with pytest.raises(SettingsError, match=r"SALESFORCE_PRIVATE_KEY is wrong.*BEGIN PRIVATE KEY"):
        sign_in(salesforce, grant=grant).token()


def test_salesforce_version_the_org_does_not_offer_is_named_with_those_it_does(salesforce: SalesforceOrg) -> None:
    with pytest.raises(SettingsError, match=r"SALESFORCE_API_VERSION is v99\.0\. Accepted: .* v31\.0 to v67\.0"):
        sign_in(salesforce, version="v99.0").token()


def test_salesforce_instance_elsewhere_gets_no_token(
    salesforce: SalesforceOrg, caplog: pytest.LogCaptureFixture
) -> None:
    body = {"access_token": "t", "instance_url": "https://elsewhere.example"}
    salesforce.faults.add("status", path="oauth2/token", status=200, body=body, times=9)
    asked: list[str] = []
    salesforce.session.hooks["response"].append(lambda answer, **_: asked.append(urlsplit(answer.url).netloc))

    with pytest.raises(errors.SignInFailed):
        salesforce.client().find_by_referral("Opportunity", new_id())

    assert "auth.instance_differs" in [record.msg for record in caplog.records]
    assert set(asked) == {"contoso.my.salesforce.com"}


# ---------------------------------------------------------------- limits


def test_salesforce_keeps_a_reserve_of_the_daily_requests_for_people(
    salesforce: SalesforceOrg, caplog: pytest.LogCaptureFixture
) -> None:
    client = salesforce.client(reserve=10)
    ref = shared_deal(salesforce)
    salesforce.people.set_api_usage(89, 100)
    salesforce.asked()

    client.read(ref)
    with pytest.raises(errors.Throttled, match=r"90 of 100 API requests.*SALESFORCE_API_RESERVE") as raised:
        client.read(ref)

    assert raised.value.retry_after_s == 900
    assert len(salesforce.asked()) == 1
    assert [record.msg for record in caplog.records].count("crm.api_requests_run_low") == 1


def test_salesforce_goes_on_when_the_day_has_passed(salesforce: SalesforceOrg) -> None:
    client = salesforce.client(reserve=10)
    ref = shared_deal(salesforce)
    salesforce.people.set_api_usage(95, 100)
    client.read(ref)
    salesforce.people.set_api_usage(20, 100)

    salesforce.clock.advance(901)

    assert client.read(ref).ref == ref
    assert client.read(ref).ref == ref


def test_salesforce_with_its_daily_limit_used_up_is_left_alone_for_a_quarter_of_an_hour(
    salesforce: SalesforceOrg,
) -> None:
    ref = shared_deal(salesforce)
    salesforce.people.set_api_usage(100, 100)

    with pytest.raises(errors.Throttled, match="used up") as raised:
        salesforce.crm.read(ref)
    with pytest.raises(errors.Throttled):
        salesforce.crm.read(ref)

    assert raised.value.retry_after_s == 900
    assert len(salesforce.asked()) == 1


def test_salesforce_with_too_many_long_calls_is_left_alone_for_seconds(salesforce: SalesforceOrg) -> None:
    ref = shared_deal(salesforce)
    salesforce.faults.add("throttle")

    with pytest.raises(errors.Throttled) as raised:
        salesforce.crm.read(ref)

    assert raised.value.retry_after_s == 30


# ---------------------------------------------------------------- refusals


def test_salesforce_locked_row_is_tried_again_within_the_call(salesforce: SalesforceOrg) -> None:
    created, _ = salesforce.crm.create("Opportunity", new_id(), salesforce.complete)
    salesforce.people.lock_row(created.ref.id, times=2)

    assert salesforce.crm.update(created.ref, {"Amount": 7}, created.version).values["Amount"] == 7


def test_salesforce_row_that_stays_locked_is_unavailable(salesforce: SalesforceOrg) -> None:
    created, _ = salesforce.crm.create("Opportunity", new_id(), salesforce.complete)
    salesforce.people.lock_row(created.ref.id, times=99)

    with pytest.raises(errors.Unavailable, match="exclusive access"):
        salesforce.crm.update(created.ref, {"Amount": 7}, created.version)


def test_salesforce_field_the_user_may_not_see_is_left_out_and_named(salesforce: SalesforceOrg) -> None:
    ref = shared_deal(salesforce, Description="seen")
    salesforce.people.hide_field("Opportunity", "Description")

    record = salesforce.crm.read(ref)
    salesforce.asked()
    salesforce.crm.read(ref)

    assert "Description" not in record.values
    assert record.values["Name"] == "Deal"
    assert list(record.unreadable) == ["Description"]
    assert "Cosell_Sync" in record.unreadable["Description"]
    assert len(salesforce.asked()) == 1  # it is remembered


@pytest.mark.parametrize(
    ("entity", "field", "column"),
    [
        ("Account", "BillingCity", "Account.BillingCity"),
        ("Contact", "Email", "OpportunityContactRoles.Contact.Email"),
        ("User", "Email", "Owner.Email"),
        ("Opportunity", "Description", "Description"),
    ],
)
def test_salesforce_only_the_column_that_may_not_be_seen_is_left_out(
    salesforce: SalesforceOrg, entity: str, field: str, column: str
) -> None:
    ref = shared_deal(salesforce)
    salesforce.people.hide_field(entity, field)

    assert list(salesforce.crm.read(ref).unreadable) == [column]


def test_salesforce_that_has_no_opportunity_teams_is_asked_without_them(salesforce: SalesforceOrg) -> None:
    shape = salesforce.shapes["Opportunity"]
    column = "OpportunityTeamMembers.User.Email"
    crm = salesforce.client({"Opportunity": replace(shape, columns=(*shape.columns, column))})
    ref = shared_deal(salesforce)
    cursor = [page.cursor for page in crm.changes("Opportunity", None)][-1]

    changes = list(crm.changes("Opportunity", cursor))

    assert [page.changes for page in changes[:-1] if page.changes] == []
    assert list(crm.read(ref).unreadable) == [column]


def test_salesforce_field_that_became_visible_is_read_again_after_a_while(salesforce: SalesforceOrg) -> None:
    ref = shared_deal(salesforce, Description="seen")
    salesforce.people.hide_field("Opportunity", "Description")
    salesforce.crm.read(ref)
    salesforce.people.show_field("Opportunity", "Description")

    salesforce.clock.advance(16 * 60)

    record = salesforce.crm.read(ref)
    assert (record.values["Description"], record.unreadable) == ("seen", {})


def test_salesforce_hidden_field_stops_neither_writing_nor_polling(salesforce: SalesforceOrg) -> None:
    ref = shared_deal(salesforce)
    salesforce.people.hide_field("Opportunity", "Description")

    changes, _ = feed(salesforce, None)
    updated = salesforce.client().update(ref, {"Amount": 7}, "")

    assert [change.ref for change in changes] == [ref]
    assert (updated.values["Amount"], list(updated.unreadable)) == (7, ["Description"])


def test_salesforce_without_the_referral_id_field_says_how_to_get_it(salesforce: SalesforceOrg) -> None:
    salesforce.people.hide_field("Opportunity", "Referral_Identifier__c")

    with pytest.raises(errors.Refused) as raised:
        salesforce.crm.find_by_referral("Opportunity", new_id())

    assert raised.value.field == "Referral_Identifier__c"
    assert "create the field" in raised.value.next_step


def test_salesforce_field_that_may_not_be_edited_is_named(salesforce: SalesforceOrg) -> None:
    created, _ = salesforce.crm.create("Opportunity", new_id(), salesforce.complete)
    salesforce.people.make_read_only("Opportunity", "Description")

    with pytest.raises(errors.Forbidden) as raised:
        salesforce.crm.update(created.ref, {"Description": "x"}, created.version)

    assert raised.value.field == "Description"
    assert "edit the field" in raised.value.next_step


def test_salesforce_object_the_user_may_not_see_is_an_error_not_silence(salesforce: SalesforceOrg) -> None:
    salesforce.people.revoke_object("Opportunity")

    with pytest.raises(errors.RemoteError, match="permission set"):
        feed(salesforce, None)


def test_salesforce_picklist_value_the_org_lacks_is_named(salesforce: SalesforceOrg) -> None:
    created, _ = salesforce.crm.create("Opportunity", new_id(), salesforce.complete)

    with pytest.raises(errors.Refused, match="restricted picklist") as raised:
        salesforce.crm.update(created.ref, {"How_can_Microsoft_help__c": "Anything"}, created.version)

    assert raised.value.field == "How_can_Microsoft_help__c"
    assert "add such a value" in raised.value.next_step


def test_salesforce_validation_rule_speaks_for_itself(salesforce: SalesforceOrg) -> None:
    created, _ = salesforce.crm.create("Opportunity", new_id(), salesforce.complete)
    salesforce.people.add_validation_rule("Opportunity", "Rule", "Amounts are set by finance.", "Amount")

    with pytest.raises(errors.Refused, match=r"Amounts are set by finance\.") as raised:
        salesforce.crm.update(created.ref, {"Amount": 7}, created.version)

    assert raised.value.field == "Amount"


def test_salesforce_org_with_one_currency_says_what_to_set(salesforce: SalesforceOrg) -> None:
    salesforce.org.organization.multi_currency = False

    record = salesforce.crm.read(shared_deal(salesforce))

    assert "CRM_CURRENCY" in record.unreadable["CurrencyIsoCode"]


def test_salesforce_referral_id_of_another_record_is_refused(salesforce: SalesforceOrg) -> None:
    taken, _ = salesforce.crm.create("Opportunity", new_id(), salesforce.complete)
    other, _ = salesforce.crm.create("Opportunity", new_id(), salesforce.complete)

    values = {"Referral_Identifier__c": taken.values["Referral_Identifier__c"]}
    with pytest.raises(errors.Refused) as raised:
        salesforce.crm.update(other.ref, values, other.version)

    assert long_id(raised.value.existing) == taken.ref.id
    assert "another record already carries" in raised.value.next_step


def test_salesforce_record_that_is_not_shared_any_more_is_not_taken_for_a_deleted_one(
    salesforce: SalesforceOrg,
) -> None:
    ref = RecordRef("Opportunity", salesforce.new_record_id())

    with pytest.raises(errors.NotVisible) as raised:
        salesforce.crm.read(ref)
    with pytest.raises(errors.NotVisible):
        salesforce.crm.update(ref, {"Amount": 7}, "")

    assert "View All" in raised.value.next_step


def test_salesforce_deleted_record_is_not_found(salesforce: SalesforceOrg) -> None:
    created, _ = salesforce.crm.create("Opportunity", new_id(), salesforce.complete)
    salesforce.seller_deletes(created.ref)

    for call in (
        lambda: salesforce.crm.update(created.ref, {"Amount": 7}, ""),
        lambda: salesforce.crm.read(created.ref),
    ):
        with pytest.raises(errors.NotFound) as raised:
            call()
        assert type(raised.value) is errors.NotFound


def test_salesforce_converted_lead_takes_no_write(salesforce: SalesforceOrg) -> None:
    lead, _ = salesforce.crm.create("Lead", new_id(), salesforce.new_lead)
    salesforce.seller_qualifies(lead.ref)

    with pytest.raises(errors.Refused) as raised:
        salesforce.crm.update(lead.ref, {"Company": "x"}, "")

    assert "converted" in raised.value.next_step


CODES = [
    (404, "INVALID_CROSS_REFERENCE_KEY", errors.NotVisible, "View All"),
    (400, "INVALID_CROSS_REFERENCE_KEY", errors.Refused, "does not exist"),
    (404, "ENTITY_IS_DELETED", errors.NotFound, ""),
    (400, "ENTITY_IS_DELETED", errors.Refused, "was deleted"),
    (404, "NOT_FOUND", errors.Unavailable, ""),
    (410, "GONE", errors.Unavailable, ""),
    (420, "", errors.Unavailable, ""),
    (400, "QUERY_TIMEOUT", errors.Unavailable, ""),
    (500, "UNABLE_TO_LOCK_ROW", errors.Unavailable, ""),
    (503, "SERVER_UNAVAILABLE", errors.Unavailable, ""),
    (400, "REQUIRED_FIELD_MISSING", errors.Refused, "fill it in"),
    (400, "STRING_TOO_LONG", errors.Refused, "max_length"),
    (400, "FIELD_INTEGRITY_EXCEPTION", errors.Refused, "State and Country"),
    (400, "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", errors.Refused, "the rule"),
    (403, "INSUFFICIENT_ACCESS_OR_READONLY", errors.Forbidden, "permission set"),
    (403, "API_DISABLED_FOR_ORG", errors.Forbidden, "API Enabled"),
    (412, "", errors.VersionConflict, ""),
    (400, "SOMETHING_NEW", errors.Refused, "correct what is named"),
]


@pytest.mark.parametrize(("status", "code", "error", "next_step"), CODES)
def test_salesforce_codes_mean_what_the_vendor_says(
    salesforce: SalesforceOrg, status: int, code: str, error: type[errors.RemoteError], next_step: str
) -> None:
    body = [{"errorCode": code, "message": "words", "fields": ["Name"]}] if code else "<html>no route</html>"
    salesforce.faults.add("status", path="/query", status=status, body=body, times=9)

    with pytest.raises(errors.RemoteError) as raised:
        salesforce.crm.find_by_referral("Opportunity", new_id())

    assert type(raised.value) is error
    assert next_step in getattr(raised.value, "next_step", "")


# ---------------------------------------------------------------- duplicate rules


def test_salesforce_saves_what_a_duplicate_rule_only_warns_of(salesforce: SalesforceOrg) -> None:
    salesforce.people.create("Contact", {"LastName": "Smith"})
    salesforce.people.add_duplicate_rule("Contact", ["LastName"], allow_save=True)

    created, _ = salesforce.crm.create(
        "Opportunity", new_id(), salesforce.complete, [salesforce.contact("sue@contoso.example")]
    )

    assert salesforce.email_of(created) == "sue@contoso.example"
    assert len(salesforce.rows("contact")) == 2


@pytest.mark.parametrize("misspelled", [True, False])
def test_salesforce_takes_the_contact_that_a_duplicate_rule_insists_on(
    salesforce: SalesforceOrg, misspelled: bool
) -> None:
    salesforce.org.organization.duplicate_key_misspelled = misspelled
    there = salesforce.people.create("Contact", {"LastName": "Smith", "Email": "other@contoso.example"})
    salesforce.people.add_duplicate_rule("Contact", ["LastName"], allow_save=False)
    related = [salesforce.account("Contoso"), salesforce.contact("sue@contoso.example")]

    created, is_new = salesforce.crm.create("Opportunity", new_id(), salesforce.complete, related)

    assert is_new
    assert [role["ContactId"] for role in salesforce.rows("OpportunityContactRole")] == [there]
    assert salesforce.email_of(created) == "other@contoso.example"
    assert [len(salesforce.rows(name)) for name in ("account", "contact")] == [1, 1]


def test_salesforce_lead_that_a_duplicate_rule_blocks_is_refused_with_its_reason(salesforce: SalesforceOrg) -> None:
    salesforce.people.create("Lead", {"LastName": "Byrne", "Company": "Other"})
    salesforce.people.add_duplicate_rule("Lead", ["LastName"], allow_save=False)

    with pytest.raises(errors.Refused) as raised:
        salesforce.crm.create("Lead", new_id(), salesforce.new_lead)

    assert raised.value.code == "DUPLICATES_DETECTED"
    assert "duplicate rule" in raised.value.next_step


# ---------------------------------------------------------------- polling


def test_salesforce_poll_asks_updated_first_then_the_rows_then_what_was_deleted(salesforce: SalesforceOrg) -> None:
    _, cursor = feed(salesforce, None)
    salesforce.org.log.clear()

    feed(salesforce, cursor)

    paths = [part["url"].partition("?")[0].rpartition("v67.0/")[2] for part in sent(salesforce)]
    assert paths == ["sobjects/Opportunity/updated/", "query", "query", "sobjects/Opportunity/deleted/"]
    assert all("Audit__c" not in each for each in soql(salesforce))
    assert salesforce.asked() == ["POST /composite"]


def test_salesforce_cursor_does_not_grow_with_the_number_of_deals(salesforce: SalesforceOrg) -> None:
    for _ in range(3 * salesforce.page_size):
        shared_deal(salesforce)
    salesforce.clock.advance(3600)
    recent = shared_deal(salesforce)

    _, cursor = feed(salesforce, None)
    nothing, _ = feed(salesforce, cursor)

    assert list(json.loads(cursor)["seen"]) == [recent.id]
    assert nothing == []


def test_salesforce_cursor_stays_within_a_row_of_storage_after_a_bulk_edit(
    salesforce: SalesforceOrg, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(salesforce_changes, "REMEMBERED", 3)
    for _ in range(7):
        shared_deal(salesforce)

    _, cursor = feed(salesforce, None)

    assert len(json.loads(cursor)["seen"]) == 3


def test_salesforce_two_edits_within_one_second_are_both_reported(salesforce: SalesforceOrg) -> None:
    ref = shared_deal(salesforce)
    salesforce.seller_edits(ref, Amount=1)
    first, cursor = feed(salesforce, None)
    salesforce.seller_edits(ref, Amount=2)

    second, _ = feed(salesforce, cursor)

    assert first[0].version != second[0].version
    assert second == [RecordChange(ref, salesforce.crm.read(ref).version)]


def test_salesforce_touch_by_automation_that_changes_nothing_is_not_reported(salesforce: SalesforceOrg) -> None:
    ref = shared_deal(salesforce)
    _, cursor = feed(salesforce, None)
    salesforce.clock.advance(60)
    salesforce.people.automation_touches("Opportunity", ref.id)

    changes, _ = feed(salesforce, cursor)

    assert changes == []


def test_salesforce_flow_that_follows_our_write_shows_as_a_new_version(salesforce: SalesforceOrg) -> None:
    created, _ = salesforce.crm.create("Opportunity", new_id(), salesforce.complete)
    _, cursor = feed(salesforce, None)
    salesforce.clock.advance(60)
    salesforce.people.automation_touches_next_write("Opportunity")
    updated = salesforce.crm.update(created.ref, {"Amount": 7}, created.version)
    salesforce.clock.advance(60)

    changes, _ = feed(salesforce, cursor)

    assert [change.version for change in changes] == [salesforce.crm.read(created.ref).version]
    assert updated.values["Amount"] == 7


@pytest.mark.parametrize("minutes", [1, 9, 45])
def test_salesforce_rows_of_a_long_transaction_are_reported_once_it_ends(
    salesforce: SalesforceOrg, minutes: int
) -> None:
    late = salesforce.seller_creates("Opportunity")
    transaction = salesforce.people.begin_transaction()
    salesforce.people.edit("Opportunity", late.id, {"Sync_with_Partner_Center__c": True}, transaction=transaction)
    cursor = None
    for _ in range(minutes):
        salesforce.clock.advance(60)
        shared_deal(salesforce)
        changes, cursor = feed(salesforce, cursor)
        assert late not in [change.ref for change in changes]

    salesforce.people.commit(transaction)
    changes, cursor = feed(salesforce, cursor)
    nothing, _ = feed(salesforce, cursor)

    assert [change.ref for change in changes] == [late]
    assert nothing == []


def test_salesforce_change_of_a_contact_role_is_a_change_of_the_deal(salesforce: SalesforceOrg) -> None:
    ref = shared_deal(salesforce)
    contact = salesforce.people.create("Contact", {"LastName": "Smith", "Email": "sue@contoso.example"})
    _, cursor = feed(salesforce, None)
    salesforce.clock.advance(3600)
    _, cursor = feed(salesforce, cursor)
    salesforce.people.add_contact_role(ref.id, contact, primary=True)

    changes, cursor = feed(salesforce, cursor)
    nothing, _ = feed(salesforce, cursor)

    assert changes == [RecordChange(ref, salesforce.crm.read(ref).version)]
    assert nothing == []


def test_salesforce_poll_after_weeks_of_silence_reports_everything_since_and_says_what_it_cannot_know(
    salesforce: SalesforceOrg, caplog: pytest.LogCaptureFixture
) -> None:
    _, cursor = feed(salesforce, None)
    ref = shared_deal(salesforce)
    salesforce.clock.advance(timedelta(days=45).total_seconds())
    salesforce.people.empty_recycle_bin()

    changes, _ = feed(salesforce, cursor)

    assert [change.ref for change in changes] == [ref]
    assert "crm.deletions_unknown" in [record.msg for record in caplog.records]


def test_salesforce_that_does_not_answer_updated_is_polled_with_a_margin(
    salesforce: SalesforceOrg, caplog: pytest.LogCaptureFixture
) -> None:
    ref = shared_deal(salesforce)
    refused = {"httpStatusCode": 400, "httpHeaders": {}, "referenceId": "updated",
               "body": [{"errorCode": "EXCEEDED_ID_LIMIT", "message": "too many"}]}  # fmt: skip
    salesforce.faults.add("status", path="/composite$", status=200, body={"compositeResponse": [refused]})

    changes, cursor = feed(salesforce, None)

    assert [change.ref for change in changes] == [ref]
    assert json.loads(cursor)["since"] == "2026-05-01T07:55:00Z"
    assert "crm.updated_refused" in [record.msg for record in caplog.records]


def test_salesforce_feed_starts_over_when_the_fields_it_looks_at_change_and_misses_no_deletion(
    salesforce: SalesforceOrg,
) -> None:
    kept, gone = shared_deal(salesforce), shared_deal(salesforce)
    _, cursor = feed(salesforce, None)
    salesforce.clock.advance(60)
    salesforce.seller_deletes(gone)
    salesforce.clock.advance(60)
    shape = salesforce.shapes["Opportunity"]
    crm = salesforce.client({"Opportunity": replace(shape, columns=(*shape.columns, "NextStep"))})

    changes = [change for page in crm.changes("Opportunity", cursor) for change in page.changes]

    assert [(change.ref, change.deleted) for change in changes] == [(kept, False), (gone, True)]


def test_salesforce_restored_record_is_reported_again(salesforce: SalesforceOrg) -> None:
    ref = shared_deal(salesforce)
    _, cursor = feed(salesforce, None)
    salesforce.clock.advance(60)
    salesforce.seller_deletes(ref)
    salesforce.clock.advance(60)
    _, cursor = feed(salesforce, cursor)
    salesforce.people.undelete("Opportunity", ref.id)

    changes, _ = feed(salesforce, cursor)

    assert [(change.ref, change.deleted) for change in changes] == [(ref, False)]


# ---------------------------------------------------------------- ids and SOQL


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("0067e00000K8i71AAB", "0067e00000K8i71AAB"),
        ("0067e00000K8i71", "0067e00000K8i71AAB"),
        ("0037e00001WZ30qAAD", "0037e00001WZ30qAAD"),
        ("001D000000IRFmaIAH", "001D000000IRFmaIAH"),
        ("0067e00000K8i71aab", "0067e00000K8i71AAB"),
        ("0067e00000K8i71AAA", ""),
        ("0067e00000K8i7", ""),
        ("8f0b3f7e-5d1c-4c55-9a36-6d3b0f5f7c12", ""),
        ("", ""),
    ],
)
def test_salesforce_ids_have_18_characters(text: str, full: str) -> None:
    assert long_id(text) == full


@pytest.mark.parametrize(
    ("table", "text", "id_"),
    [
        ("Opportunity", " 0067e00000K8i71 ", "0067e00000K8i71AAB"),
        ("Lead", "0067e00000K8i71AAB", None),
        ("Opportunity", "001D000000IRFmaIAH", None),
        ("Opportunity", "Deal 4711", None),
        ("Opportunity", "", None),
    ],
)
def test_salesforce_text_names_a_record_if_it_is_an_id_of_that_object(
    salesforce: SalesforceOrg, table: str, text: str, id_: str | None
) -> None:
    assert salesforce.crm.record_named(table, text) == (RecordRef(table, id_) if id_ else None)


@pytest.mark.parametrize(
    "name", ["O'Brien & Söhne", "back\\slash", "two\nlines", 'say "hi"', "50 % _off_", "' OR Name != '"]
)
def test_salesforce_finds_an_account_by_whatever_name_it_has(salesforce: SalesforceOrg, name: str) -> None:
    salesforce.people.create("Account", {"Name": name})
    row = RelatedRow("Account", "AccountId", {"Name": name}, {})

    salesforce.crm.create("Opportunity", new_id(), salesforce.complete, [row])

    assert len(salesforce.rows("account")) == 1


def test_salesforce_literals_are_escaped() -> None:
    assert [literal(value) for value in (None, True, 7, "a'b\\c")] == ["null", "true", "7", "'a\\'b\\\\c'"]
    assert where({"Name": "x", "City": None}) == "Name = 'x' AND City = null"


@pytest.mark.parametrize("name", ["Contoso @{write.id}", "@{home}", "@{", "@@{related0.id}"])
def test_salesforce_text_that_looks_like_a_reference_arrives_as_it_is(salesforce: SalesforceOrg, name: str) -> None:
    values = {**salesforce.complete, "Name": name, "Description": name}

    created, is_new = salesforce.crm.create("Opportunity", new_id(), values, [salesforce.account("Contoso")])
    updated = salesforce.crm.update(created.ref, {"NextStep": name, "Name": f"{name}!"}, created.version)

    assert is_new
    assert (created.values["Name"], created.values["Description"]) == (name, name)
    assert updated.values["Name"] == f"{name}!"


def test_salesforce_query_that_is_refused_is_not_quoted_with_the_names_in_it(salesforce: SalesforceOrg) -> None:
    row = RelatedRow("Contact", "ContactId", {"Email": "jane@contoso.example", "Nowhere__c": "x"}, {})

    with pytest.raises(errors.Refused, match="Nowhere__c") as raised:
        salesforce.crm.create("Opportunity", new_id(), salesforce.complete, [row])

    assert "jane" not in str(raised.value)


def test_salesforce_logs_no_names(salesforce: SalesforceOrg, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    salesforce.crm.create(
        "Opportunity", new_id(), {**salesforce.complete, "Name": "Zebra"}, [salesforce.account("Zebra")]
    )

    logged = " ".join(str(record.__dict__) for record in caplog.records if record.name.startswith("shared"))
    assert "remote.called" in logged
    assert "Zebra" not in logged

"""The Partner Center client against the simulated Referrals API: what it asks, how often, and what it makes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import requests

from local.simulators.base import Clock
from local.simulators.partner_center.referrals import BASE_PATH, PAGE_SIZE
from local.simulators.systems import REAL_URLS, Simulators
from shared import errors
from shared.model import Referral
from shared.remote.auth import ENTRA, EntraTokens, RefreshToken
from shared.remote.http import Remote
from shared.remote.partner_center import DIALECT, PartnerCenter
from shared.remote.token_store import FileTokenStore

START = datetime(2026, 5, 1, tzinfo=UTC)
URL = REAL_URLS["partner_center"] + BASE_PATH
RECORD_ID = "7c1d7d0e-6f0e-4f0a-9a55-0d6d3c1b1a10"


class Bench:
    """The client, signed in as the sync user, in front of the simulated Partner Center."""

    def __init__(self, tmp_path: Any) -> None:
        self.clock = Clock(frozen_at=START)
        self.systems = Simulators(self.clock)
        self.session = requests.Session()
        self.systems.mount(self.session)
        self.api = self.systems.partner_center
        self.people = self.systems.people
        app = self.systems.entra.app("partner_center")
        entra = self.remote("Microsoft Entra ID", REAL_URLS["entra"], None, ENTRA)
        tokens = EntraTokens(entra, app.tenant_id, app.client_id, app.client_secret, clock=self.clock.now)
        scope = "https://api.partner.microsoft.com/.default"
        consented = self.systems.entra.consent(app.name)
        self.sign_in = RefreshToken(tokens, scope, FileTokenStore(tmp_path / "token"), consented)
        self.client = PartnerCenter(self.remote("Partner Center", URL, self.sign_in, DIALECT))

    def remote(self, name: str, url: str, source: Any, dialect: Any) -> Remote:
        return Remote(
            name, url, source, dialect=dialect, session=self.session, clock=self.clock.now, sleep=self.clock.advance
        )

    def asked(self) -> list[str]:
        """Methods and paths since the last look."""
        seen = [f"{entry.method} {entry.path.removeprefix(BASE_PATH)}" for entry in self.api.log.entries]
        self.api.log.clear()
        return seen

    def deals(self, count: int, every_s: float = 60) -> list[Referral]:
        """Referrals of Microsoft's, one a minute, oldest first."""
        made = []
        for _ in range(count):
            self.clock.advance(every_s)
            made.append(Referral(dict(self.people.creates_lead())))
        self.api.log.clear()
        return made


@pytest.fixture
def bench(tmp_path: Any) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    with bench.systems:
        yield bench


def deal(**changes: Any) -> dict[str, Any]:
    return {
        "name": "Contoso - data platform",
        "externalReferenceId": RECORD_ID,
        "type": "Shared",
        "qualification": "SalesQualified",
        "target": [{"type": "SolutionProfile", "id": "SOL-15974-MQF"}],
        "customerProfile": {
            "name": "Contoso",
            "address": {"addressLine1": "1 Way", "city": "Redmond", "country": "US"},
            "team": [
                {"firstName": "Sue", "lastName": "Smith", "phoneNumber": "123", "email": "sue@contoso.example"},
            ],
        },
        "consent": {
            "consentToToShareInfoWithOthers": True,
            "consentToContact": True,
            "consentToShareReferralWithMicrosoftSellers": True,
        },
        "details": {
            "notes": "n",
            "dealValue": Decimal("50000.10"),
            "currency": "USD",
            "closingDateTime": "2026-11-14T00:00:00Z",
            "requirements": {"solutions": [{"type": "Name", "id": "SOL-15974-MQF"}]},
        },
        "team": [{"firstName": "J", "lastName": "D", "phoneNumber": "1", "email": "j@fabrikam.example"}],
        **changes,
    }


def ids(pages: Iterator[list[Referral]]) -> list[str]:
    return [referral.id for page in pages for referral in page]


def test_a_referral_is_read_with_one_request(bench: Bench) -> None:
    lead = bench.deals(1)[0]

    referral = bench.client.get(lead.id)

    assert (referral.id, referral.etag, referral.updated) == (lead.id, lead.etag, lead.updated)
    assert referral.is_lead
    assert bench.asked() == [f"GET /referrals/{lead.id}"]


def test_the_version_comes_from_the_header_when_the_document_lacks_it(bench: Bench) -> None:
    bench.api.faults.add("status", status=200, body={"id": "1"}, headers={"ETag": '"v7"'})

    assert bench.client.get("1").etag == '"v7"'


def test_calls_carry_a_request_id_and_our_own_caller_id(bench: Bench) -> None:
    lead = bench.deals(1)[0]

    bench.client.get(lead.id)

    sent = bench.api.log.entries[0].request_headers
    assert len(sent["client-request-id"]) == 36
    assert sent["X-Caller-Id"] != "60858c1b-2062-40ad-b42c-996b6b5b047d"  # the Power Automate connector's


def test_a_deal_is_created_and_money_keeps_its_cents(bench: Bench) -> None:
    created = bench.client.create(deal())

    assert (created.status, created.substatus) == ("Active", "Accepted")
    assert created.external_reference_id == RECORD_ID
    assert b'"dealValue":50000.10' in bench.api.log.entries[0].request_body
    assert created.document["details"]["dealValue"] == Decimal("50000.1")
    assert bench.asked() == ["POST /referrals"]


def test_microsofts_copy_joins_the_engagement(bench: Bench) -> None:
    own = bench.client.create(deal())
    invitation = {
        "target": [{"type": "BusinessProfileLocation", "id": "msft"}],
        "inviteContext": {"assistanceRequestCode": "ProofOfConceptOrDemo", "notes": "please"},
    }
    theirs = bench.client.create(deal(engagementId=own.engagement_id, **invitation))
    bench.asked()

    engagement = bench.client.engagement(own.engagement_id)

    assert {referral.id for referral in engagement} == {own.id, theirs.id}
    assert [referral.id for referral in engagement if referral.is_microsofts] == [theirs.id]
    assert bench.asked() == ["GET /referrals"]


def test_a_patch_is_one_conditional_request_that_returns_the_new_referral(bench: Bench) -> None:
    own = bench.client.create(deal())
    bench.asked()

    changed = bench.client.patch(
        own.id, [{"op": "replace", "path": "/details/dealValue", "value": Decimal("62500.05")}], own.etag
    )

    sent = bench.api.log.entries[0]
    assert changed.document["details"]["dealValue"] == Decimal("62500.05")
    assert changed.etag != own.etag
    assert sent.request_headers["If-Match"] == own.etag
    assert json.loads(sent.request_body, parse_float=Decimal)[0]["value"] == Decimal("62500.05")
    assert bench.asked() == [f"PATCH /referrals/{own.id}"]


def test_a_patch_answered_without_a_body_is_followed_by_a_read(bench: Bench) -> None:
    own = bench.client.create(deal())
    bench.asked()
    bench.api.faults.add("status", status=204, body="", executed=True, method="PATCH")

    changed = bench.client.patch(own.id, [{"op": "replace", "path": "/details/notes", "value": "new"}], own.etag)

    assert changed.document["details"]["notes"] == "new"
    assert bench.asked() == [f"PATCH /referrals/{own.id}", f"GET /referrals/{own.id}"]


def test_a_patch_of_an_outdated_referral_is_a_version_conflict(bench: Bench) -> None:
    own = bench.client.create(deal())
    bench.people.partner_edits(own.id, {"/details/notes": "typed in the portal"})

    with pytest.raises(errors.VersionConflict):
        bench.client.patch(own.id, [{"op": "replace", "path": "/details/notes", "value": "ours"}], own.etag)

    assert bench.api.referrals[own.id]["details"]["notes"] == "typed in the portal"


def test_a_patch_whose_answer_was_lost_shows_as_a_version_conflict(bench: Bench) -> None:
    own = bench.client.create(deal())
    bench.api.faults.add("drop_after", method="PATCH")

    with pytest.raises(errors.VersionConflict):
        bench.client.patch(own.id, [{"op": "replace", "path": "/details/notes", "value": "ours"}], own.etag)

    assert bench.api.referrals[own.id]["details"]["notes"] == "ours"


@pytest.mark.parametrize("closed_refusal", [400, 409])
def test_a_closed_referral_refuses_for_good(bench: Bench, closed_refusal: int) -> None:
    bench.api.rules.closed_refusal = closed_refusal
    own = bench.client.create(deal())
    bench.people.partner_closes(own.id)
    latest = bench.client.get(own.id)

    with pytest.raises(errors.Refused) as raised:
        bench.client.patch(own.id, [{"op": "replace", "path": "/details/notes", "value": "late"}], latest.etag)

    assert raised.value.status == closed_refusal
    assert raised.value.next_step


def test_the_innermost_error_is_the_one_told(bench: Bench) -> None:
    inner = {"code": "deepest", "message": "dealValue must not be negative"}
    body = {
        "error": {"code": "invalidRequest", "message": "Bad", "target": "details", "innererror": {"innerError": inner}}
    }
    bench.api.faults.add("status", status=422, body=body)

    with pytest.raises(errors.Refused, match="dealValue must not be negative") as raised:
        bench.client.create(deal())

    assert (raised.value.code, raised.value.field) == ("deepest", "details")


def test_a_referral_nobody_knows_is_not_found(bench: Bench) -> None:
    with pytest.raises(errors.NotFound):
        bench.client.get("00000000-0000-4000-8000-000000000000")


def test_whether_other_referrals_are_shown_is_one_request(bench: Bench) -> None:
    (only,) = bench.deals(1)
    assert not bench.client.shows_others(only.id)
    bench.deals(5)
    bench.asked()

    assert bench.client.shows_others(only.id)
    assert bench.asked() == ["GET /referrals"]


def test_a_create_that_names_something_unknown_is_refused_and_no_referral_is_missing(bench: Bench) -> None:
    bench.api.faults.add("status", status=404, body={"error": {"code": "notFound", "message": "no such location"}})

    with pytest.raises(errors.Refused, match="no such location"):
        bench.client.create(deal())


def test_a_user_without_the_role_is_told_which_one_to_get(bench: Bench) -> None:
    bench.api.faults.add("status", status=403, body={"error": {"code": "accessDenied", "message": "no"}})

    with pytest.raises(errors.Forbidden) as raised:
        bench.client.get("1")

    assert "Referrals admin" in raised.value.next_step


def test_an_expired_token_is_replaced_without_notice(bench: Bench) -> None:
    lead = bench.deals(1)[0]
    bench.client.get(lead.id)
    bench.asked()
    bench.api.faults.add("status", status=401, body="")

    assert bench.client.get(lead.id).id == lead.id

    assert bench.asked() == [f"GET /referrals/{lead.id}"] * 2
    assert bench.systems.entra.log.count("POST") == 2


def test_throttling_is_passed_on_with_its_pause(bench: Bench) -> None:
    bench.api.faults.add("throttle", retry_after_s=57)

    with pytest.raises(errors.Throttled) as raised:
        bench.client.get("1")

    assert raised.value.retry_after_s == 57


@pytest.mark.parametrize("fault", [{"kind": "drop_after"}, {"kind": "status", "status": 504, "executed": True}])
def test_a_create_whose_answer_was_lost_can_be_found(bench: Bench, fault: dict[str, Any]) -> None:
    bench.api.faults.add(**fault, method="POST")
    sent = bench.clock.now()

    with pytest.raises(errors.OutcomeUnknown):
        bench.client.create(deal())
    bench.asked()
    found = bench.client.find_created(RECORD_ID.upper(), sent)

    assert found is not None
    assert [found.id] == list(bench.api.referrals)
    assert bench.asked() == ["GET /referrals"]


def test_a_create_that_never_arrived_is_not_found(bench: Bench) -> None:
    bench.deals(3)
    bench.api.faults.add("drop_before", method="POST")

    with pytest.raises(errors.OutcomeUnknown):
        bench.client.create(deal())

    assert bench.client.find_created(RECORD_ID, bench.clock.now()) is None


def test_looking_for_a_create_stops_an_hour_before_it_was_sent(bench: Bench) -> None:
    earlier = bench.client.create(deal())
    bench.clock.advance(3 * 3600)
    bench.deals(PAGE_SIZE + 20)
    sent = bench.clock.now()

    found = bench.client.find_created(RECORD_ID, sent)

    assert found is None
    assert earlier.id in bench.api.referrals
    assert bench.asked() == ["GET /referrals"]


def test_of_two_creates_the_older_is_found_and_never_microsofts_copy(bench: Bench) -> None:
    sent = bench.clock.now()
    first = bench.client.create(deal())
    bench.clock.advance(5)
    bench.client.create(deal())
    copy = {"engagementId": first.engagement_id, "target": [{"type": "BusinessProfileLocation", "id": "msft"}]}
    bench.client.create(deal(**copy))

    found = bench.client.find_created(RECORD_ID, sent)

    assert found is not None
    assert found.id == first.id


def test_a_first_sweep_sees_everything_page_by_page(bench: Bench) -> None:
    made = bench.deals(2 * PAGE_SIZE + 5, every_s=1)

    pages = list(bench.client.updated_since(None, overlap_s=600))

    assert [len(page) for page in pages] == [PAGE_SIZE, PAGE_SIZE, 5]
    assert [referral.id for page in pages for referral in page] == [referral.id for referral in made]
    assert bench.asked() == ["GET /referrals"] * 3


def test_everything_is_listed_in_pages_that_an_edit_does_not_move_and_another_process_can_continue(
    bench: Bench,
) -> None:
    made = bench.deals(2 * PAGE_SIZE + 5, every_s=1)

    page, after = bench.client.listed(None)
    listed = list(page)
    bench.client.patch(made[0].id, [{"op": "replace", "path": "/details/notes", "value": "new"}], made[0].etag)
    while after:
        page, after = bench.client.listed(after)
        listed += page

    assert [referral.id for referral in listed] == [referral.id for referral in made]
    assert [call for call in bench.asked() if call.startswith("GET")] == ["GET /referrals"] * 3


def test_an_idle_sweep_is_one_request(bench: Bench) -> None:
    made = bench.deals(PAGE_SIZE + 5)

    seen = ids(bench.client.updated_since(made[-1].updated, overlap_s=0))

    assert seen == [made[-1].id]
    assert bench.asked() == ["GET /referrals"]


def test_a_sweep_sees_what_changed_and_what_the_overlap_covers_oldest_first(bench: Bench) -> None:
    made = bench.deals(10)
    watermark = made[-1].updated
    bench.clock.advance(60)
    bench.people.partner_views(made[0].id)

    seen = ids(bench.client.updated_since(watermark, overlap_s=119))

    assert seen == [made[8].id, made[9].id, made[0].id]


def test_a_watermark_is_exact_to_its_seventh_digit(bench: Bench) -> None:
    first, second = Referral(dict(bench.people.creates_lead())), Referral(dict(bench.people.creates_lead()))

    seen = ids(bench.client.updated_since(second.updated, overlap_s=0))

    assert first.updated[:-2] == second.updated[:-2]
    assert seen == [second.id]


def test_a_service_that_cannot_compare_times_is_read_newest_first_until_older(bench: Bench) -> None:
    bench.api.rules.supports_ge = False
    made = bench.deals(PAGE_SIZE + 20)
    watermark = made[-3].updated

    first = ids(bench.client.updated_since(watermark, overlap_s=0))
    first_asked = bench.asked()
    second = ids(bench.client.updated_since(watermark, overlap_s=60))
    second_asked = bench.asked()

    assert first == [made[-1].id, made[-2].id, made[-3].id]
    assert second == [*first, made[-4].id]
    assert first_asked == ["GET /referrals"] * 2
    assert second_asked == ["GET /referrals"]


def test_a_throttled_sweep_is_no_reason_to_think_that_times_cannot_be_compared(bench: Bench) -> None:
    made = bench.deals(2)
    bench.api.faults.add("throttle", retry_after_s=60)

    with pytest.raises(errors.Throttled):
        ids(bench.client.updated_since(made[0].updated, overlap_s=0))
    bench.clock.advance(61)
    bench.asked()
    seen = ids(bench.client.updated_since(made[1].updated, overlap_s=0))

    assert seen == [made[1].id]
    assert "filter" in bench.api.log.entries[0].query


@pytest.mark.parametrize(
    "next_link",
    [
        "http://api.partner.microsoft.com/v1.0/referrals?$skiptoken=a%2Fb%3D",
        "https://api.partner.microsoft.com/v1.0/engagements/referrals?$skiptoken=a%2Fb%3D",
    ],
)
def test_the_next_page_is_asked_for_at_our_own_base_with_the_token_untouched(bench: Bench, next_link: str) -> None:
    bench.api.faults.add("status", status=200, body={"value": [], "@odata.nextLink": next_link})
    bench.api.faults.add("status", status=200, body={"value": []})

    bench.client.engagement("e")

    second = bench.api.log.entries[1]
    assert (second.path, second.query) == (f"{BASE_PATH}/referrals", "$skiptoken=a%2Fb%3D")


def test_a_next_page_elsewhere_is_refused(bench: Bench) -> None:
    elsewhere = "https://evil.example/v1.0/engagements/referrals?$skiptoken=x"
    bench.api.faults.add("status", status=200, body={"value": [], "@odata.nextLink": elsewhere})

    with pytest.raises(errors.Refused, match=r"evil\.example"):
        bench.client.engagement("e")

    assert bench.api.log.count() == 1


@pytest.mark.parametrize("body", [[], {}, {"value": None}, "text"])
def test_a_list_that_is_none_is_unavailable(bench: Bench, body: Any) -> None:
    bench.api.faults.add("status", status=200, body=json.dumps(body))

    with pytest.raises(errors.Unavailable, match="without a list"):
        bench.client.engagement("e")


@pytest.mark.parametrize("body", ["[]", "null", '"text"'])
def test_a_referral_that_is_none_is_unavailable(bench: Bench, body: str) -> None:
    bench.api.faults.add("status", status=200, body=body)

    with pytest.raises(errors.Unavailable, match="without a referral"):
        bench.client.get("1")


@pytest.mark.parametrize("body", ["", "[]", '"text"'])
def test_a_create_answered_without_a_referral_is_an_unknown_outcome(bench: Bench, body: str) -> None:
    bench.api.faults.add("status", status=201, body=body, executed=True)

    with pytest.raises(errors.OutcomeUnknown, match="without a referral"):
        bench.client.create(deal())


def test_looking_back_allows_for_a_clock_that_lags_an_hour(bench: Bench) -> None:
    created = bench.client.create(deal())

    found = bench.client.find_created(RECORD_ID, bench.clock.now() + timedelta(minutes=59))

    assert found is not None
    assert found.id == created.id

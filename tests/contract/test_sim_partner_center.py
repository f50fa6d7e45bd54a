"""The Partner Center simulator: what the referrals API accepts and refuses, and how events reach a receiver."""

from __future__ import annotations

import base64
import copy
import itertools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from local.simulators.base import Clock, InProcessAdapter, Request, Response, Simulator
from local.simulators.entra import PARTNER_CENTER_REFERRALS, PARTNER_CENTER_WEBHOOKS, PARTNER_TENANT_ID
from local.simulators.partner_center import RECIPES, Account
from local.simulators.partner_center.people import CUSTOMER, PARTNER_SELLER, SOLUTION
from local.simulators.pki import LEAF_NAME, SigningPki
from local.simulators.systems import Simulators
from tests.waiting import eventually

REFERRALS = "https://api.partner.microsoft.com/v1.0/engagements/referrals"
REGISTRATION = "https://api.partnercenter.microsoft.com/webhooks/v1/registration"
RECEIVER = "https://receiver.example/api/webhook_receiver?code=k"
EVENTS = [
    "test-created",
    "referral-created",
    "referral-updated",
    "related-referral-created",
    "related-referral-updated",
]
MSFT_TARGET = [{"type": "BusinessProfileLocation", "id": "msft"}]
START = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def systems() -> Iterator[Simulators]:
    simulators = Simulators(Clock(frozen_at=START))
    yield simulators
    simulators.stop()


class Token(requests.auth.AuthBase):
    """A token of an app, fresh for each request, so that a test may move the clock."""

    def __init__(self, systems: Simulators, app: str, audience: str, mfa: bool | None = None) -> None:
        self.issue = lambda: systems.entra.access_token(app, audience, mfa=mfa)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self.issue()}"
        return request


class Client:
    """The plainest possible client: requests with a token of one of the apps."""

    def __init__(
        self, systems: Simulators, app: str = "partner_center", audience: str = PARTNER_CENTER_REFERRALS
    ) -> None:
        self.session = requests.Session()
        systems.mount(self.session)
        self.session.auth = Token(systems, app, audience)

    def create(self, **changes: Any) -> dict[str, Any]:
        answer = self.session.post(REFERRALS, json=deal(**changes))
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def invite_microsoft(self, own: dict[str, Any], **changes: Any) -> dict[str, Any]:
        invite = {"assistanceRequestCode": "ProofOfConceptOrDemo", "notes": "Please help"}
        return self.create(engagementId=own["engagementId"], target=MSFT_TARGET, inviteContext=invite, **changes)

    def get(self, referral_id: str) -> dict[str, Any]:
        answer = self.session.get(f"{REFERRALS}/{referral_id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def patch(self, referral_id: str, changes: dict[str, Any], **headers: str) -> requests.Response:
        operations = [{"op": "replace", "path": path, "value": value} for path, value in changes.items()]
        return self.session.patch(f"{REFERRALS}/{referral_id}", json=operations, headers=headers)

    def list(self, **options: Any) -> requests.Response:
        return self.session.get(REFERRALS, params={f"${name}": value for name, value in options.items()})


@pytest.fixture
def client(systems: Simulators) -> Client:
    return Client(systems)


def deal(**changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": "Contoso - data platform",
        "externalReferenceId": "7c1d7d0e-6f0e-4f0a-9a55-0d6d3c1b1a10",
        "type": "Shared",
        "qualification": "SalesQualified",
        "status": "New",
        "substatus": "Pending",
        "target": [{"type": "SolutionProfile", "id": SOLUTION["id"]}],
        "customerProfile": CUSTOMER,
        "consent": {
            "consentToToShareInfoWithOthers": True,
            "consentToContact": True,
            "consentToShareReferralWithMicrosoftSellers": True,
        },
        "details": {
            "dealValue": 50000,
            "currency": "USD",
            "closingDateTime": "2026-11-14T00:00:00Z",
            "requirements": {"solutions": [SOLUTION]},
        },
        "team": [PARTNER_SELLER],
    }
    return copy.deepcopy(document) | changes


def error_of(answer: requests.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


class TestReading:
    def test_a_created_referral_reads_back_with_the_servers_own_properties(self, client: Client) -> None:
        created = client.create()

        referral = client.get(created["id"])

        assert (referral["status"], referral["substatus"]) == ("Active", "Accepted")
        assert referral["organizationId"] == PARTNER_TENANT_ID
        assert referral["acceptedDateTime"] == referral["createdDateTime"] == "2026-05-01T12:00:00.0000000Z"
        assert referral["inviteContext"]["assistanceRequestCode"] == "Unknown"
        assert referral["inviteContext"]["invitedBy"]["organizationId"] == PARTNER_TENANT_ID
        assert (referral["quality"], referral["registrationStatus"], referral["tags"]) == ("Unknown", "None", [])
        assert referral["closedDateTime"] is None
        assert referral["details"]["requirements"]["offers"] == []
        assert "engagments" in referral["@odata.context"]
        assert referral["links"]["relatedReferrals"]["uri"].endswith(
            f"?$filter=engagementId eq {referral['engagementId']}"
        )

    def test_the_etag_ends_in_the_second_of_the_write(self, client: Client) -> None:
        etag = client.create()["eTag"]

        match = re.fullmatch(r'"[0-9a-f]{8}-0000-0800-0000-([0-9a-f]{8})0000"', etag)
        assert match
        assert int(match[1], 16) == int(START.timestamp())

    def test_an_unknown_referral_is_not_found(self, client: Client) -> None:
        answer = client.session.get(f"{REFERRALS}/00000000-0000-0000-0000-000000000000")

        assert error_of(answer) == (404, "itemNotFound")
        assert "Request-ID" in answer.headers

    def test_there_is_no_delete(self, client: Client) -> None:
        answer = client.session.delete(f"{REFERRALS}/{client.create()['id']}")

        assert answer.status_code == 405

    @pytest.mark.parametrize("quote", ["'", ""], ids=["quoted", "unquoted"])
    def test_an_engagement_lists_our_row_and_microsofts_copy(self, client: Client, quote: str) -> None:
        own = client.create()
        theirs = client.invite_microsoft(own)
        client.create()

        answer = client.list(filter=f"engagementId eq {quote}{own['engagementId']}{quote}").json()

        assert {row["id"] for row in answer["value"]} == {own["id"], theirs["id"]}
        assert answer["@odata.count"] == 2
        assert client.get(theirs["id"])["organizationId"] == "msft"

    def test_the_list_filters_by_the_documented_examples(self, systems: Simulators, client: Client) -> None:
        own = client.create()
        lead = systems.people.creates_lead()
        inbound = systems.people.microsoft_creates_deal()

        def ids(text: str) -> set[str]:
            rows = client.list(filter=f"({text}) and createdDateTime ge 2026-01-01T00:00:00Z").json()["value"]
            return {row["id"] for row in rows if row["organizationId"] == PARTNER_TENANT_ID}

        assert ids("status eq 'New' and qualification eq 'SalesQualified'") == {inbound["id"]}
        assert ids("customerProfile/address/country eq 'US' and direction eq 'Incoming'") == {lead["id"], inbound["id"]}
        assert ids("type eq 'Shared' and direction eq 'Incoming'") == {inbound["id"]}
        assert ids("direction eq 'Incoming' and substatus eq 'Pending'") == {lead["id"], inbound["id"]}
        assert ids("status eq 'Active' and team/any(t:t/email eq 'pat@fabrikam.example')") == {own["id"]}
        assert ids("not (type eq 'Shared')") == {lead["id"]}

    def test_time_filters_are_exact_to_100_nanoseconds(self, client: Client) -> None:
        first, second, third = (client.create() for _ in range(3))

        rows = client.list(filter=f"updatedDateTime gt {first['updatedDateTime']}").json()["value"]

        assert {row["id"] for row in rows} == {second["id"], third["id"]}

    def test_a_service_without_ge_refuses_it_with_400(self, systems: Simulators, client: Client) -> None:
        systems.partner_center.rules.supports_ge = False

        answer = client.list(filter="updatedDateTime ge 2026-01-01T00:00:00Z")

        assert error_of(answer) == (400, "invalidRequest")
        assert client.list(filter="status eq 'New'").status_code == 200

    @pytest.mark.parametrize(
        "options",
        [
            {"filter": "externalReferenceId eq 'x'"},
            {"filter": "name eq 'x'"},
            {"filter": "contains(status,'New')"},
            {"filter": "status eq"},
            {"filter": "status"},
            {"filter": "updatedDateTime ge '2026-01-01T00:00:00Z'"},
            {"filter": "status eq substatus"},
            {"orderby": "name"},
            {"orderby": "updatedDateTime downwards"},
            {"top": "many"},
            {"select": "id,colour"},
            {"search": "x"},
        ],
        ids=str,
    )
    def test_an_undocumented_query_is_refused(self, client: Client, options: dict[str, str]) -> None:
        client.create()

        assert error_of(client.list(**options)) == (400, "invalidRequest")

    def test_a_list_can_be_ordered_cut_and_narrowed(self, client: Client) -> None:
        ids = [client.create()["id"] for _ in range(4)]
        client.patch(ids[0], {"/details/notes": "newest"})

        rows = client.list(orderby="updatedDateTime desc", skip=1, top=2, select="id,status").json()["value"]

        assert rows == [{"id": ids[3], "status": "Active"}, {"id": ids[2], "status": "Active"}]

    def test_pages_of_100_are_joined_by_a_sloppy_next_link(self, client: Client) -> None:
        ids = [client.create()["id"] for _ in range(205)]

        page, links, seen = client.list(orderby="updatedDateTime desc").json(), [], []
        while True:
            seen += [row["id"] for row in page["value"]]
            if "@odata.nextLink" not in page:
                break
            links.append(page["@odata.nextLink"])
            page = client.list(skiptoken=parse_qs(urlsplit(links[-1]).query)["$skiptoken"][0]).json()

        assert seen == ids[::-1]
        assert [urlsplit(link)[:3] for link in links] == [("http", "api.partner.microsoft.com", "/v1.0/referrals")] * 2

    def test_a_row_that_moves_between_two_pages_does_not_hide_others(self, client: Client) -> None:
        ids = [client.create()["id"] for _ in range(150)]
        first = client.list(orderby="updatedDateTime asc").json()
        client.patch(ids[99], {"/details/notes": "moved to the end"})

        token = parse_qs(urlsplit(first["@odata.nextLink"]).query)["$skiptoken"][0]
        second = client.list(skiptoken=token).json()

        assert [row["id"] for row in second["value"]] == [*ids[100:], ids[99]]


class TestAccess:
    def test_a_call_without_a_token_is_refused(self, client: Client) -> None:
        client.session.auth = None

        assert error_of(client.list()) == (401, "unAuthorized")

    def test_a_token_for_the_other_partner_center_host_is_refused(self, systems: Simulators) -> None:
        assert error_of(Client(systems, audience=PARTNER_CENTER_WEBHOOKS).list()) == (401, "unAuthorized")

    def test_app_only_access_is_refused(self, systems: Simulators) -> None:
        assert error_of(Client(systems, app="seller").list()) == (403, "accessDenied")

    def test_a_sign_in_without_mfa_is_refused(self, systems: Simulators, client: Client) -> None:
        client.session.auth = Token(systems, "partner_center", PARTNER_CENTER_REFERRALS, mfa=False)

        answer = client.list()

        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'

    def test_a_user_without_a_role_is_refused(self, systems: Simulators, client: Client) -> None:
        del systems.partner_center.accounts["sync@fabrikam.example"]

        assert error_of(client.list()) == (403, "accessDenied")

    def test_a_referrals_user_sees_only_the_deals_of_their_teams(self, systems: Simulators, client: Client) -> None:
        mine = client.create(team=[PARTNER_SELLER])
        other = client.create(team=[PARTNER_SELLER | {"email": "someone@fabrikam.example"}])
        systems.partner_center.accounts["pat@fabrikam.example"] = Account(PARTNER_TENANT_ID, "Referrals user")
        pat = Client(systems, app="partner_user")

        assert [row["id"] for row in pat.list().json()["value"]] == [mine["id"]]
        assert pat.session.get(f"{REFERRALS}/{other['id']}").status_code == 404

    def test_microsofts_copy_can_be_read_but_not_written_by_the_partner(self, client: Client) -> None:
        theirs = client.invite_microsoft(client.create())

        assert client.get(theirs["id"])["status"] == "New"
        assert error_of(client.patch(theirs["id"], {"/details/notes": "x"})) == (403, "accessDenied")

    def test_microsofts_seller_accepts_through_the_same_api(self, systems: Simulators, client: Client) -> None:
        theirs = client.invite_microsoft(client.create())
        seller = Client(systems, app="microsoft_seller")

        answer = seller.patch(theirs["id"], {"/status": "Active", "/substatus": "Accepted"})

        assert answer.status_code == 204
        assert client.get(theirs["id"])["substatus"] == "Accepted"


class TestCreating:
    @pytest.mark.parametrize("name", ["type", "customerProfile", "consent", "details"])
    def test_required_properties_are_required(self, client: Client, name: str) -> None:
        answer = client.session.post(REFERRALS, json=deal(**{name: None}))

        assert error_of(answer) == (400, "invalidRequest")
        assert answer.json()["error"]["target"] == name

    @pytest.mark.parametrize(
        ("changes", "target"),
        [
            ({"type": "Joint"}, "type"),
            ({"qualification": "Hot"}, "qualification"),
            ({"customerProfile": CUSTOMER | {"address": {"country": "USA"}}}, "customerProfile/address/country"),
            ({"customerProfile": CUSTOMER | {"team": {}}}, "/customerProfile/team"),
            ({"details": {"currency": "Dollar"}}, "details/currency"),
            ({"details": {"dealValue": "much"}}, "/details/dealValue"),
            ({"details": {"closingDateTime": "next week"}}, "/details/closingDateTime"),
            ({"details": {"requirements": {"solutions": [{"name": "no id"}]}}}, "details/requirements/solutions"),
            ({"inviteContext": {"assistanceRequestCode": "Everything"}}, "inviteContext/assistanceRequestCode"),
            ({"engagementId": "00000000-0000-0000-0000-000000000000"}, "engagementId"),
            ({"name": 7}, "/name"),
        ],
        ids=str,
    )
    def test_a_wrong_value_is_refused_where_it_is(self, client: Client, changes: dict[str, Any], target: str) -> None:
        answer = client.session.post(REFERRALS, json=deal(**changes))

        assert error_of(answer) == (400, "invalidRequest")
        assert answer.json()["error"]["target"] == target

    @pytest.mark.parametrize(
        ("options", "status"),
        [
            ({"data": "{"}, 400),
            ({"data": "[]"}, 400),
            ({"data": "{}", "headers": {"Content-Type": "text/plain"}}, 415),
        ],
        ids=str,
    )
    def test_a_body_that_is_no_json_object_is_refused(
        self, client: Client, options: dict[str, Any], status: int
    ) -> None:
        answer = client.session.post(REFERRALS, **({"headers": {"Content-Type": "application/json"}} | options))

        assert answer.status_code == status

    def test_names_bind_in_any_case_and_unknown_ones_are_ignored(self, client: Client) -> None:
        body = {name[0].upper() + name[1:]: value for name, value in deal(colour="red").items()}
        body["Consent"] = {"ConsentToToShareInfoWithOthers": True}

        answer = client.session.post(REFERRALS, json=body).json()

        assert answer["consent"]["consentToToShareInfoWithOthers"] is True
        assert answer["name"] == "Contoso - data platform"
        assert "colour" not in answer

    def test_times_come_back_in_utc(self, client: Client) -> None:
        details = deal()["details"] | {"closingDateTime": "2026-11-14T01:00:00+02:00"}

        assert client.create(details=details)["details"]["closingDateTime"] == "2026-11-13T23:00:00Z"

    def test_microsofts_copy_waits_14_days_for_an_answer(self, client: Client) -> None:
        own = client.create()

        theirs = client.invite_microsoft(own)

        assert theirs["engagementId"] == own["engagementId"]
        assert theirs["id"] != own["id"]
        assert (theirs["status"], theirs["substatus"], theirs["team"]) == ("New", "Pending", [])
        assert theirs["expirationDateTime"] == "2026-05-15T00:00:00Z"
        assert theirs["inviteContext"]["invitedBy"]["organizationId"] == PARTNER_TENANT_ID
        assert client.get(own["id"])["substatus"] == "Accepted"

    @pytest.mark.parametrize(
        ("changes", "target"),
        [
            ({"engagementId": None}, "engagementId"),
            ({"consent": {"consentToToShareInfoWithOthers": True}}, "consent"),
            ({"customerProfile": CUSTOMER | {"team": []}}, "customerProfile"),
            ({"customerProfile": CUSTOMER | {"team": [{"firstName": "Sue"}]}}, "customerProfile"),
        ],
        ids=["no engagement", "no consent", "no contact", "half a contact"],
    )
    def test_an_incomplete_invitation_is_refused(self, client: Client, changes: dict[str, Any], target: str) -> None:
        own = client.create()

        answer = client.session.post(
            REFERRALS, json=deal(**({"engagementId": own["engagementId"], "target": MSFT_TARGET} | changes))
        )

        assert error_of(answer) == (400, "invalidRequest")
        assert answer.json()["error"]["target"] == target

    @pytest.mark.parametrize(
        "changes",
        [
            {"name": None},
            {"team": []},
            {"customerProfile": CUSTOMER | {"name": None}},
            {"consent": {"consentToContact": True}},
            {"details": deal()["details"] | {"requirements": {"solutions": []}}},
            {"details": deal()["details"] | {"dealValue": None}},
            {},  # no marketplace intent
        ],
        ids=str,
    )
    def test_the_rules_of_the_portals_form_can_be_switched_on(
        self, systems: Simulators, client: Client, changes: dict[str, Any]
    ) -> None:
        assert client.session.post(REFERRALS, json=deal(**changes)).status_code == 200
        systems.partner_center.rules.form_rules = True

        assert error_of(client.session.post(REFERRALS, json=deal(**changes))) == (400, "invalidRequest")

    def test_a_complete_form_passes_the_form_rules(self, systems: Simulators, client: Client) -> None:
        systems.partner_center.rules.form_rules = True
        details = deal()["details"]
        details["requirements"]["additionalRequirements"] = {
            "attributes": [{"type": "CustomerMarketplaceIntent", "id": "HaveNotDecided"}]
        }

        own = client.create(details=details)

        assert error_of(client.patch(own["id"], {"/status": "Closed", "/substatus": "Lost"})) == (400, "invalidRequest")
        lost = {"/status": "Closed", "/substatus": "Lost", "/statusReason": "Others"}
        assert client.patch(own["id"], lost).status_code == 204


class TestPatching:
    @pytest.mark.parametrize(
        ("path", "value", "read"),
        [
            ("/details/dealValue", "62500", 62500),
            ("/details/dealValue", 62500.5, 62500.5),
            ("/details/notes", "new", "new"),
            ("/details/currency", "EUR", "EUR"),
            ("/details/closingDateTime", "2026-12-01T00:00:00Z", "2026-12-01T00:00:00Z"),
            ("/externalReferenceId", "crm-1", "crm-1"),
            ("/campaignId", "FY27", "FY27"),
            ("/salesStage", "40", "40"),
            ("/referralProgram", "P", "P"),
        ],
    )
    def test_a_documented_path_is_replaced(self, client: Client, path: str, value: Any, read: Any) -> None:
        own = client.create()

        answer = client.patch(own["id"], {path: value})

        assert (answer.status_code, answer.content) == (204, b"")
        node: Any = client.get(own["id"])
        for part in path.split("/")[1:]:
            node = node[part]
        assert node == read

    def test_team_and_solutions_grow_by_add_and_shrink_by_replace(self, client: Client) -> None:
        own = client.create()
        jane = {"firstName": "Jane", "lastName": "Doe", "email": "jane@fabrikam.example", "phoneNumber": "1"}
        operations = [
            {"op": "add", "path": "/team/-", "value": jane},
            {"op": "replace", "path": "/details/requirements/solutions", "value": []},
            {"op": "add", "path": "/details/requirements/solutions/-", "value": {"id": "SOL-1-AAA"}},
        ]

        answer = client.session.patch(
            f"{REFERRALS}/{own['id']}", json=operations, headers={"Prefer": "return=representation"}
        )

        assert answer.status_code == 200
        assert answer.headers["Preference-Applied"] == "return=representation"
        assert [member["firstName"] for member in answer.json()["team"]] == ["Pat", "Jane"]
        assert [solution["id"] for solution in answer.json()["details"]["requirements"]["solutions"]] == ["SOL-1-AAA"]
        assert answer.json()["eTag"] == answer.headers["ETag"] != own["eTag"]

    @pytest.mark.parametrize(
        "body",
        [
            {"op": "replace", "path": "/details/notes", "value": "x"},
            [{"op": "remove", "path": "/details/notes"}],
            [{"op": "test", "path": "/details/notes", "value": "x"}],
            [{"op": "replace", "path": "/details/notes"}],
            [{"op": "replace", "path": "/name", "value": "x"}],
            [{"op": "replace", "path": "/inviteContext/notes", "value": "x"}],
            [{"op": "replace", "path": "/engagementId", "value": "x"}],
            [{"op": "replace", "path": "details/notes", "value": "x"}],
            [{"op": "replace", "path": "/team/-", "value": {}}],
            [{"op": "replace", "path": "/team", "value": "me"}],
            [{"op": "replace", "path": "/details/dealValue", "value": "much"}],
            [{"op": "replace", "path": "/substatus", "value": "Won"}],
            [{"op": "replace", "path": "/status", "value": "Open"}],
            ["replace"],
        ],
        ids=str,
    )
    def test_a_wrong_patch_is_refused_and_changes_nothing(self, client: Client, body: Any) -> None:
        own = client.create()

        answer = client.session.patch(f"{REFERRALS}/{own['id']}", json=body)

        assert error_of(answer) == (400, "invalidRequest")
        assert client.get(own["id"])["eTag"] == own["eTag"]

    def test_the_media_type_of_json_patch_is_refused(self, client: Client) -> None:
        own = client.create()

        answer = client.patch(own["id"], {"/details/notes": "x"}, **{"Content-Type": "application/json-patch+json"})

        assert answer.status_code == 415

    def test_loose_paths_let_the_name_through_but_not_what_is_settled(
        self, systems: Simulators, client: Client
    ) -> None:
        own = client.create()
        systems.partner_center.rules.strict_paths = False

        assert client.patch(own["id"], {"/name": "Better name"}).status_code == 204
        assert client.patch(own["id"], {"/engagementId": "x"}).status_code == 400
        assert client.patch(own["id"], {"/colour": "red"}).status_code == 400
        assert client.get(own["id"])["name"] == "Better name"

    def test_if_match_is_enforced_when_sent(self, client: Client) -> None:
        own = client.create()
        client.patch(own["id"], {"/details/notes": "first"})

        answer = client.patch(own["id"], {"/details/notes": "second"}, **{"If-Match": own["eTag"]})

        assert error_of(answer) == (412, "preconditionFailed")
        assert answer.json()["error"]["innerError"]["code"] == "resourceModified"
        assert client.patch(own["id"], {"/details/notes": "last wins"}).status_code == 204

    def test_a_write_that_changes_nothing_still_makes_a_new_version(self, client: Client) -> None:
        own = client.create()

        client.patch(own["id"], {"/details/notes": own["details"]["notes"]})

        again = client.get(own["id"])
        assert again["eTag"] != own["eTag"]
        assert again["updatedDateTime"] > own["updatedDateTime"]

    def test_no_two_writes_share_a_time_even_when_the_clock_stands_still(self, client: Client) -> None:
        own = client.create()

        times = [own["updatedDateTime"]]
        for number in range(20):
            client.patch(own["id"], {"/details/notes": str(number)})
            times.append(client.get(own["id"])["updatedDateTime"])

        assert all(earlier < later for earlier, later in itertools.pairwise(times))
        assert times[1] == "2026-05-01T12:00:00.0000001Z"

    @pytest.mark.parametrize("substatus", ["Won", "Lost"])
    def test_a_closed_referral_can_never_be_written_again(self, client: Client, substatus: str) -> None:
        own = client.create()
        final = {"/details/dealValue": 1, "/status": "Closed", "/substatus": substatus}
        assert client.patch(own["id"], final).status_code == 204
        closed = client.get(own["id"])

        assert (closed["substatus"], closed["details"]["dealValue"]) == (substatus, 1)
        assert closed["closedDateTime"] is not None
        for change in ({"/details/notes": "x"}, {"/status": "Active", "/substatus": "Accepted"}, final):
            assert error_of(client.patch(own["id"], change)) == (400, "invalidRequest")
        assert client.get(own["id"])["eTag"] == closed["eTag"]

    def test_the_status_of_that_refusal_can_be_chosen(self, systems: Simulators, client: Client) -> None:
        systems.partner_center.rules.closed_refusal = 409
        own = client.create()
        client.patch(own["id"], {"/status": "Closed", "/substatus": "Won"})

        assert client.patch(own["id"], {"/details/notes": "x"}).status_code == 409

    def test_a_won_referral_still_takes_a_deal_registration(self, client: Client) -> None:
        own = client.create()
        client.patch(own["id"], {"/status": "Closed", "/substatus": "Won"})
        registration = {"type": "AzureIPCoSell", "contract": {"currency": "USD", "value": "5", "term": "Perpetual"}}

        answer = client.session.patch(
            f"{REFERRALS}/{own['id']}", json=[{"op": "add", "path": "/registrations/-", "value": registration}]
        )

        assert answer.status_code == 204
        assert client.get(own["id"])["registrationStatus"] == "ReviewPending"
        assert client.get(own["id"])["registrations"][0]["contract"]["value"] == 5

    @pytest.mark.parametrize(
        ("status", "substatus", "accepted"),
        [
            ("Active", "Accepted", True),
            ("Closed", "Declined", True),
            ("New", "Received", True),
            ("Closed", "Won", False),
            ("Closed", "Expired", False),
            ("Active", "Won", False),
        ],
    )
    def test_a_pending_referral_goes_only_where_the_lifecycle_leads(
        self, systems: Simulators, client: Client, status: str, substatus: str, accepted: bool
    ) -> None:
        inbound = systems.people.microsoft_creates_deal()

        answer = client.patch(inbound["id"], {"/status": status, "/substatus": substatus})

        assert answer.status_code == (204 if accepted else 400)

    def test_transitions_can_be_loosened_to_legal_pairs(self, systems: Simulators, client: Client) -> None:
        inbound = systems.people.microsoft_creates_deal()
        systems.partner_center.rules.strict_transitions = False

        assert client.patch(inbound["id"], {"/status": "Active", "/substatus": "Won"}).status_code == 400
        assert client.patch(inbound["id"], {"/status": "Closed", "/substatus": "Won"}).status_code == 204

    def test_accepting_ends_the_waiting_time(self, systems: Simulators, client: Client) -> None:
        inbound = systems.people.microsoft_creates_deal()

        client.patch(inbound["id"], {"/status": "Active", "/substatus": "Accepted"})

        accepted = client.get(inbound["id"])
        assert accepted["expirationDateTime"] is None
        assert accepted["acceptedDateTime"] == accepted["updatedDateTime"]

    def test_consent_is_given_but_never_taken_back(self, client: Client) -> None:
        own = client.create(type="Independent", consent={"consentToToShareInfoWithOthers": True})
        path = "/consent/consentToShareReferralWithMicrosoftSellers"

        assert client.patch(own["id"], {path: True}).status_code == 204
        assert client.patch(own["id"], {path: False}).status_code == 400

    def test_put_replaces_the_whole_but_only_from_a_fresh_copy(self, client: Client) -> None:
        own = client.create()
        body = {name: value for name, value in own.items() if name != "links"} | {"name": "Renamed"}
        url, fresh = f"{REFERRALS}/{own['id']}", {"If-Match": own["eTag"]}

        assert client.session.put(url, json=body).status_code == 400
        assert client.session.put(url, json=own, headers=fresh).status_code == 400
        assert client.session.put(url, json=body, headers={"If-Match": '"old"'}).status_code == 412
        assert client.session.put(url, json=body, headers=fresh).status_code == 200

        replaced = client.get(own["id"])
        assert replaced["name"] == "Renamed"
        assert replaced["customerProfile"] == own["customerProfile"]
        assert replaced["inviteContext"] == own["inviteContext"]

    def test_throttling_speaks_the_gateways_words(self, systems: Simulators, client: Client) -> None:
        systems.partner_center.faults.add("throttle", retry_after_s=57)

        answer = client.list()

        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "57")
        assert answer.json()["statusCode"] == 429


class TestPeople:
    def test_microsoft_accepting_shows_its_sellers_and_crm_id_on_its_copy(
        self, systems: Simulators, client: Client
    ) -> None:
        own = client.create()
        theirs = client.invite_microsoft(own)

        systems.people.microsoft_accepts(own["engagementId"], msx_id="7-X")

        accepted = client.get(theirs["id"])
        assert (accepted["status"], accepted["substatus"]) == ("Active", "Accepted")
        assert accepted["team"][0]["email"] == "msseller@microsoft.example"
        assert accepted["trackingInfo"]["microsoftMsxId"] == "7-X"
        assert client.get(own["id"])["eTag"] == own["eTag"]

    def test_microsofts_crm_id_can_be_made_to_show_on_our_row_instead(
        self, systems: Simulators, client: Client
    ) -> None:
        systems.partner_center.rules.msx_id_on = frozenset({"own"})
        own = client.create()
        theirs = client.invite_microsoft(own)

        systems.people.microsoft_accepts(own["engagementId"], msx_id="7-X")

        assert client.get(own["id"])["trackingInfo"]["microsoftMsxId"] == "7-X"
        assert client.get(theirs["id"])["trackingInfo"]["microsoftMsxId"] is None

    def test_microsoft_declines(self, systems: Simulators, client: Client) -> None:
        own = client.create()
        theirs = client.invite_microsoft(own)

        systems.people.microsoft_declines(own["engagementId"], "Not a customer")

        declined = client.get(theirs["id"])
        assert (declined["substatus"], declined["statusReason"]) == ("Declined", "Not a customer")

    def test_an_invitation_nobody_answers_expires_after_14_days(self, systems: Simulators, client: Client) -> None:
        theirs = client.invite_microsoft(client.create())

        systems.clock.advance(timedelta(days=13).total_seconds())
        assert systems.people.expire_pending() == []
        systems.clock.advance(timedelta(days=1).total_seconds())
        systems.people.expire_pending()

        assert client.get(theirs["id"])["substatus"] == "Expired"

    def test_a_referral_that_disappears_takes_the_right_to_see_its_engagement_with_it(
        self, systems: Simulators, client: Client
    ) -> None:
        own = client.create()
        theirs = client.invite_microsoft(own)

        gone = systems.people.referral_disappears(own["id"])

        assert client.session.get(f"{REFERRALS}/{own['id']}").status_code == 404
        assert client.list().json()["value"] == []
        systems.people.referral_reappears(gone)
        assert {row["id"] for row in client.list().json()["value"]} == {own["id"], theirs["id"]}

    def test_an_inbound_deal_is_ours_to_answer_and_microsofts_already(
        self, systems: Simulators, client: Client
    ) -> None:
        own = systems.people.microsoft_creates_deal({"/name": "From Redmond"}, notes="Interested?")

        rows = client.list(filter=f"engagementId eq '{own['engagementId']}'").json()["value"]

        by_organization = {row["organizationId"]: row for row in rows}
        ours, theirs = by_organization[PARTNER_TENANT_ID], by_organization["msft"]
        assert (ours["type"], ours["status"], ours["name"]) == ("Shared", "New", "From Redmond")
        assert ours["inviteContext"]["invitedBy"]["organizationId"] == "msft"
        assert ours["inviteContext"]["notes"] == "Interested?"
        assert theirs["substatus"] == "Accepted"
        assert theirs["trackingInfo"]["microsoftMsxId"] is not None

    def test_a_lead_is_independent_and_invited_by_microsoft(self, systems: Simulators, client: Client) -> None:
        lead = client.get(systems.people.creates_lead()["id"])

        assert (lead["type"], lead["qualification"], lead["status"]) == ("Independent", "MarketingQualified", "New")
        assert lead["inviteContext"]["invitedBy"]["organizationId"] == "msft"
        assert lead["target"][0]["type"] == "BusinessProfileLocation"

    def test_the_portal_edits_more_than_the_api(self, systems: Simulators, client: Client) -> None:
        own = client.create()

        systems.people.partner_edits(own["id"], {"/name": "Renamed", "/customerProfile/address/city": "Bellevue"})

        edited = client.get(own["id"])
        assert edited["name"] == "Renamed"
        assert edited["customerProfile"]["address"]["city"] == "Bellevue"

    def test_partners_staff_view_accept_and_close(self, systems: Simulators, client: Client) -> None:
        inbound = systems.people.microsoft_creates_deal()["id"]

        systems.people.partner_views(inbound)
        assert client.get(inbound)["substatus"] == "Received"
        systems.people.partner_accepts(inbound)
        assert client.get(inbound)["substatus"] == "Accepted"
        systems.people.partner_closes(inbound, "Lost", "Others")
        assert client.get(inbound)["substatus"] == "Lost"
        with pytest.raises(ValueError, match="closed referral"):
            systems.people.partner_edits(inbound, {"/name": "too late"})

    def test_partners_staff_decline(self, systems: Simulators, client: Client) -> None:
        lead = systems.people.creates_lead()["id"]

        systems.people.partner_declines(lead, "Not a customer")

        assert client.get(lead)["statusReason"] == "Not a customer"

    def test_people_act_by_http_for_other_processes(self, systems: Simulators, client: Client) -> None:
        people = "https://api.partner.microsoft.com/_people"

        created = client.session.post(f"{people}/microsoft_creates_deal", json={"notes": "Hi"})

        assert client.get(created.json()["id"])["inviteContext"]["notes"] == "Hi"
        accepted = client.session.post(f"{people}/partner_accepts", json={"referral_id": created.json()["id"]})
        assert accepted.json()["substatus"] == "Accepted"
        assert client.session.post(f"{people}/fly_away").status_code == 404
        assert client.session.post(f"{people}/partner_accepts", json={"referral_id": "x"}).status_code == 400
        assert client.session.post(f"{people}/partner_accepts", json={"colour": "red"}).status_code == 400

    def test_the_state_shows_each_engagement(self, client: Client) -> None:
        own = client.create()

        state = client.session.get("https://api.partner.microsoft.com/_state").json()

        assert [row["id"] for row in state["engagements"][own["engagementId"]]] == [own["id"]]


class Receiver(Simulator):
    """Where webhooks go: keeps what it got and answers the next status from `statuses`, then 200."""

    name = "receiver"

    def __init__(self) -> None:
        super().__init__()
        self.statuses: list[int] = []
        self.judge: Callable[[Request], bool] | None = None
        self.route("/api/webhook_receiver", POST=self._receive)

    def _receive(self, request: Request) -> Response:
        if self.judge:
            return Response(200 if self.judge(request) else 401)
        return Response(self.statuses.pop(0) if self.statuses else 200)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(entry.request_body) for entry in self.log.entries]


@pytest.fixture
def receiver(systems: Simulators) -> Receiver:
    receiver = Receiver()
    systems.webhooks.dispatcher.session.mount("https://receiver.example", InProcessAdapter(receiver))
    return receiver


@pytest.fixture
def admin(systems: Simulators) -> requests.Session:
    return Client(systems, audience=PARTNER_CENTER_WEBHOOKS).session


def register(admin: requests.Session, url: str = RECEIVER, **more: Any) -> requests.Response:
    return admin.post(REGISTRATION, json={"WebhookUrl": url, "WebhookEvents": EVENTS, **more})


class TestRegistration:
    def test_post_creates_get_shows_put_changes(self, admin: requests.Session) -> None:
        assert admin.get(REGISTRATION).status_code == 404
        assert admin.put(REGISTRATION, json={"webhookUrl": RECEIVER, "webhookEvents": EVENTS}).status_code == 404

        created = register(admin, SignatureTokenToMsSignatureHeader=True)
        again = register(admin)
        changed = admin.put(REGISTRATION, json={"webhookUrl": RECEIVER, "WEBHOOKEVENTS": ["referral-updated"]})

        assert (created.status_code, again.status_code, changed.status_code) == (200, 409, 200)
        assert created.json()["signatureTokenToMsSignatureHeader"] is True
        shown = admin.get(REGISTRATION).json()
        assert shown["webhookUrl"] == RECEIVER
        assert shown["webhookEvents"] == ["referral-updated"]
        assert shown["signatureTokenToMsSignatureHeader"] is False
        assert shown["subscriberId"] == created.json()["subscriberId"]
        assert shown["lastModifiedTimestamp"] == "2026-05-01T12:00:00.0000000Z"

    @pytest.mark.parametrize("method", ["DELETE", "PATCH"])
    def test_a_registration_is_neither_deleted_nor_patched(self, admin: requests.Session, method: str) -> None:
        assert admin.request(method, REGISTRATION).status_code == 405

    @pytest.mark.parametrize(
        "body",
        [
            {"webhookUrl": "http://receiver.example/x", "webhookEvents": EVENTS},
            {"webhookUrl": "ftp://localhost/x", "webhookEvents": EVENTS},
            {"webhookUrl": "https://", "webhookEvents": EVENTS},
            {"webhookEvents": EVENTS},
            {"webhookUrl": RECEIVER},
            {"webhookUrl": RECEIVER, "webhookEvents": []},
            {"webhookUrl": RECEIVER, "webhookEvents": ["referral-deleted"]},
            [],
        ],
        ids=str,
    )
    def test_a_wrong_registration_is_refused(self, admin: requests.Session, body: Any) -> None:
        answer = admin.post(REGISTRATION, json=body)

        assert answer.status_code == 400
        assert answer.json().keys() == {"code", "description", "data", "source"}
        assert admin.get(REGISTRATION).status_code == 404

    def test_a_registration_that_is_no_json_is_refused(self, admin: requests.Session) -> None:
        answer = admin.post(REGISTRATION, data="{")

        assert (answer.status_code, answer.json()["code"]) == (400, "2000")

    @pytest.mark.parametrize("url", ["http://localhost:7071/x", "http://127.0.0.1:7071/x", "http://[::1]:7071/x"])
    def test_plain_http_is_fine_on_this_machine(self, admin: requests.Session, url: str) -> None:
        assert register(admin, url).status_code == 200

    def test_the_event_names_can_be_listed(self, admin: requests.Session) -> None:
        assert set(EVENTS) < set(admin.get(f"{REGISTRATION}/events").json())

    def test_request_and_correlation_ids_are_made_fresh(self, admin: requests.Session) -> None:
        sent = {"MS-RequestId": "r", "MS-CorrelationId": "c"}

        answer = admin.get(f"{REGISTRATION}/events", headers=sent)

        assert {answer.headers[name] for name in sent}.isdisjoint(sent.values())

    def test_app_only_access_is_enough_unless_switched_off(self, systems: Simulators) -> None:
        admin = Client(systems, app="dynamics365", audience=PARTNER_CENTER_WEBHOOKS).session

        assert admin.get(f"{REGISTRATION}/events").status_code == 200
        systems.webhooks.app_only_allowed = False
        assert admin.get(f"{REGISTRATION}/events").status_code == 403

    @pytest.mark.parametrize(
        ("app", "audience", "mfa", "status", "code"),
        [
            ("partner_center", PARTNER_CENTER_REFERRALS, True, 401, "900420"),
            ("partner_center", PARTNER_CENTER_WEBHOOKS, False, 401, "900421"),
            ("microsoft_seller", PARTNER_CENTER_WEBHOOKS, True, 403, "900150"),
        ],
        ids=["wrong audience", "no MFA", "another tenant"],
    )
    def test_a_wrong_token_is_refused_in_the_services_words(
        self, systems: Simulators, admin: requests.Session, app: str, audience: str, mfa: bool, status: int, code: str
    ) -> None:
        admin.auth = Token(systems, app, audience, mfa)

        answer = admin.get(REGISTRATION)

        assert (answer.status_code, answer.json()["code"]) == (status, code)

    def test_no_token_is_refused(self, admin: requests.Session) -> None:
        admin.auth = None

        assert (admin.get(REGISTRATION).status_code, admin.get(REGISTRATION).json()["code"]) == (401, "800001")


class TestTestEvents:
    def test_a_test_event_makes_the_round_trip(
        self, systems: Simulators, admin: requests.Session, receiver: Receiver
    ) -> None:
        register(admin)

        asked = admin.post(f"{REGISTRATION}/validationEvents")
        status = f"{REGISTRATION}/validationEvents/{asked.json()['correlationId']}"
        before = admin.get(status).json()
        systems.webhooks.deliver_pending()
        after = admin.get(status).json()

        assert asked.headers["MS-CorrelationId"] == asked.json()["correlationId"]
        assert (before["status"], before["results"]) == ("Submitted", [])
        assert (after["status"], after["callbackUrl"]) == ("completed", RECEIVER)
        assert after["results"] == [
            {
                "responseCode": "OK",
                "responseMessage": "",
                "systemError": False,
                "dateTimeUtc": "2026-05-01T12:00:00.0000000",
            }
        ]
        (event,) = receiver.events
        assert (event["EventName"], event["ResourceName"]) == ("test-created", "test")
        assert event["ResourceUri"].startswith("http://api.partnercenter.microsoft.com/webhooks/v1/")

    def test_it_fails_after_ten_attempts(
        self, systems: Simulators, admin: requests.Session, receiver: Receiver
    ) -> None:
        register(admin)
        receiver.statuses = [500] * 10
        asked = admin.post(f"{REGISTRATION}/validationEvents").json()["correlationId"]

        for _ in range(12):
            systems.webhooks.deliver_pending()
            systems.clock.advance(1024)

        result = admin.get(f"{REGISTRATION}/validationEvents/{asked}").json()
        assert result["status"] == "failed"
        assert [attempt["responseCode"] for attempt in result["results"]] == ["InternalServerError"] * 10

    def test_test_created_must_be_registered_first(self, admin: requests.Session) -> None:
        admin.post(REGISTRATION, json={"webhookUrl": RECEIVER, "webhookEvents": ["referral-updated"]})

        assert admin.post(f"{REGISTRATION}/validationEvents").status_code == 400

    def test_two_a_minute_are_allowed(self, systems: Simulators, admin: requests.Session) -> None:
        register(admin)
        answers = [admin.post(f"{REGISTRATION}/validationEvents") for _ in range(3)]

        assert [answer.status_code for answer in answers] == [200, 200, 429]
        systems.clock.advance(int(answers[2].headers["Retry-After"]))
        assert admin.post(f"{REGISTRATION}/validationEvents").status_code == 200

    def test_the_result_is_purged_after_seven_days(self, systems: Simulators, admin: requests.Session) -> None:
        register(admin)
        asked = admin.post(f"{REGISTRATION}/validationEvents").json()["correlationId"]

        systems.clock.advance(timedelta(days=7).total_seconds())

        assert admin.get(f"{REGISTRATION}/validationEvents/{asked}").status_code == 404


class TestEvents:
    def test_each_change_is_told_by_its_name_place_and_time(
        self, systems: Simulators, admin: requests.Session, client: Client, receiver: Receiver
    ) -> None:
        register(admin)
        own = client.create()
        theirs = client.invite_microsoft(own)
        client.patch(own["id"], {"/details/notes": "x"})
        systems.people.microsoft_accepts(own["engagementId"])

        systems.webhooks.deliver_pending()

        assert [(event["EventName"], event["ResourceUri"].rpartition("/")[2]) for event in receiver.events] == [
            ("referral-created", own["id"]),
            ("related-referral-created", theirs["id"]),
            ("referral-updated", own["id"]),
            ("related-referral-updated", theirs["id"]),
        ]
        last = receiver.events[-1]
        assert last["ResourceUri"] == f"https://api.partnercenter.microsoft.com/engagements/v1/referrals/{theirs['id']}"
        assert last["ResourceChangeUtcDate"] == client.get(theirs["id"])["updatedDateTime"].replace("Z", "+00:00")

    def test_the_body_is_compact_with_keys_in_the_documented_order(
        self, systems: Simulators, admin: requests.Session, client: Client, receiver: Receiver
    ) -> None:
        register(admin)
        own = client.create()

        systems.webhooks.deliver_pending()

        assert receiver.log.entries[0].request_body.decode() == (
            '{"EventName":"referral-created","ResourceUri":'
            f'"https://api.partnercenter.microsoft.com/engagements/v1/referrals/{own["id"]}",'
            '"ResourceName":"referral","AuditUri":null,"ResourceChangeUtcDate":"2026-05-01T12:00:00.0000000+00:00"}'
        )

    def test_the_resource_can_be_named_at_the_api_host_and_related_events_can_name_our_row(
        self, systems: Simulators, admin: requests.Session, client: Client, receiver: Receiver
    ) -> None:
        register(admin)
        systems.webhooks.resource_uri_form = "api"
        systems.partner_center.rules.related_events_name = "own"
        own = client.create()
        client.invite_microsoft(own)

        systems.webhooks.deliver_pending()

        assert receiver.events[1]["EventName"] == "related-referral-created"
        assert receiver.events[1]["ResourceUri"] == f"{REFERRALS}/{own['id']}"

    def test_echoes_of_an_app_can_be_silenced_while_people_are_still_heard(
        self, systems: Simulators, admin: requests.Session, client: Client, receiver: Receiver
    ) -> None:
        register(admin)
        systems.partner_center.rules.silent_apps = frozenset({"partner_center"})
        own = client.create()
        client.patch(own["id"], {"/details/notes": "mine"})
        systems.people.partner_edits(own["id"], {"/details/notes": "theirs"})

        systems.webhooks.deliver_pending()

        assert [event["EventName"] for event in receiver.events] == ["referral-updated"]

    def test_only_registered_events_go_out(
        self, systems: Simulators, admin: requests.Session, client: Client, receiver: Receiver
    ) -> None:
        client.create()
        admin.post(REGISTRATION, json={"webhookUrl": RECEIVER, "webhookEvents": ["referral-updated"]})
        own = client.create()
        client.patch(own["id"], {"/details/notes": "x"})

        systems.webhooks.deliver_pending()

        assert [event["EventName"] for event in receiver.events] == ["referral-updated"]
        assert len(systems.webhooks.unheard) == 2

    def test_any_2xx_ends_the_attempts(
        self, systems: Simulators, admin: requests.Session, client: Client, receiver: Receiver
    ) -> None:
        register(admin)
        receiver.statuses = [202]
        client.create()

        systems.webhooks.deliver_pending()
        systems.clock.advance(3600)

        assert systems.webhooks.deliver_pending() == []

    @pytest.mark.parametrize("failure", [500, 401, 302, "dropped"])
    def test_a_failed_attempt_is_repeated_after_a_growing_time(
        self, systems: Simulators, admin: requests.Session, client: Client, receiver: Receiver, failure: int | str
    ) -> None:
        register(admin)
        if failure == "dropped":
            receiver.faults.add("drop_before", times=3)
        else:
            receiver.statuses = [int(failure)] * 3
        client.create()

        waited_s, attempts = [0], []
        while len(attempts) < 4:
            attempts += (made := systems.webhooks.deliver_pending())
            if made:
                waited_s.append(0)
            systems.clock.advance(1)
            waited_s[-1] += 1

        assert waited_s[1:4] == [1, 2, 4]
        assert [attempt.succeeded for attempt in attempts] == [False, False, False, True]

    def test_after_ten_attempts_an_event_goes_offline_for_good(
        self, systems: Simulators, admin: requests.Session, client: Client, receiver: Receiver
    ) -> None:
        register(admin)
        receiver.statuses = [503] * 50
        client.create()

        for _ in range(20):
            systems.webhooks.deliver_pending()
            systems.clock.advance(1024)

        assert receiver.log.count() == 10
        assert [len(delivery.attempts) for delivery in systems.webhooks.dispatcher.offline] == [10]

    def test_the_last_registration_gets_even_what_was_queued_before(
        self, systems: Simulators, admin: requests.Session, client: Client, receiver: Receiver
    ) -> None:
        register(admin, "https://first.example/x")
        client.create()
        systems.people.another_tool_registers(RECEIVER, EVENTS)

        systems.webhooks.deliver_pending()

        assert len(receiver.events) == 1
        assert admin.get(REGISTRATION).json()["webhookUrl"] == RECEIVER


def careful_receiver(systems: Simulators) -> Callable[[Request], bool]:
    """A receiver that does all that the documentation says, and nothing the product shares: a second opinion."""
    session = requests.Session()
    systems.mount(session)
    root, intermediate = x509.load_pem_x509_certificates(systems.trusted_roots_file.read_bytes())

    def leaf_at(url: str) -> x509.Certificate:
        if not re.fullmatch(r"https://3psostorageacct\.blob\.core\.windows\.net/cert/[A-Za-z0-9._-]+\.cer", url):
            raise ValueError(url)
        answer = session.get(url, allow_redirects=False, timeout=2)
        if answer.status_code != 200 or len(answer.content) > 64 * 1024:
            raise ValueError(answer.status_code)
        content = answer.content
        is_pem = content.startswith(b"-----")
        leaf = x509.load_pem_x509_certificate(content) if is_pem else x509.load_der_x509_certificate(content)
        policy = PolicyBuilder().store(Store([root])).time(systems.clock.now().replace(tzinfo=None))
        policy.build_server_verifier(x509.DNSName(LEAF_NAME)).verify(leaf, [intermediate])
        for name in (leaf.issuer, leaf.subject):
            if [o.value for o in name.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)] != ["Microsoft Corporation"]:
                raise ValueError(name)
        return leaf

    def accepts(request: Request) -> bool:
        try:
            if request.headers["x-ms-signature-algorithm"].lower() != "rsa-sha256":
                return False
            scheme, _, value = request.headers.get("Authorization", "").partition(" ")
            if "x-ms-signature" in request.headers:
                value = request.headers["x-ms-signature"].removeprefix("Signature ")
            elif scheme.lower() != "signature":
                return False
            key = leaf_at(request.headers["x-ms-certificate-url"]).public_key()
            assert isinstance(key, rsa.RSAPublicKey)
            key.verify(base64.b64decode(value, validate=True), request.body, padding.PKCS1v15(), SHA256())
        except (KeyError, ValueError, VerificationError, InvalidSignature, requests.RequestException):
            return False
        return True

    return accepts


class TestSigning:
    @pytest.mark.parametrize("in_ms_signature", [False, True])
    @pytest.mark.parametrize("encoding", ["pem", "der"])
    def test_a_usual_call_satisfies_a_careful_receiver(
        self,
        systems: Simulators,
        admin: requests.Session,
        client: Client,
        receiver: Receiver,
        in_ms_signature: bool,
        encoding: str,
    ) -> None:
        register(admin, SignatureTokenToMsSignatureHeader=in_ms_signature)
        systems.certificates.encoding = encoding
        receiver.judge = careful_receiver(systems)
        client.create()

        (attempt,) = systems.webhooks.deliver_pending()

        headers = receiver.log.entries[0].request_headers
        assert attempt.status == 200
        assert ("x-ms-signature" in headers, "Authorization" in headers) == (in_ms_signature, not in_ms_signature)
        assert headers["x-ms-certificate-url"] == (
            "https://3psostorageacct.blob.core.windows.net/cert/pcnotifications-dispatch.microsoft.com.cer"
        )

    @pytest.mark.parametrize("name", RECIPES)
    def test_a_careful_receiver_lets_in_what_is_genuine_and_nothing_else(
        self, systems: Simulators, admin: requests.Session, receiver: Receiver, name: str
    ) -> None:
        register(admin)
        receiver.judge = careful_receiver(systems)

        attempt = systems.webhooks.forge(name)

        assert attempt.status in (200, 401)
        if RECIPES[name].acceptable is not None:
            assert attempt.succeeded == RECIPES[name].acceptable

    def test_every_look_alike_certificate_differs_from_the_genuine_one(self, systems: Simulators) -> None:
        genuine = systems.pki.leaf.certificate.fingerprint(SHA256())

        for name in SigningPki.LOOK_ALIKES:
            assert systems.pki.signer(name).certificate.fingerprint(SHA256()) != genuine

    def test_a_deviation_can_be_ordered_for_the_next_attempt_only(
        self, systems: Simulators, admin: requests.Session, client: Client, receiver: Receiver
    ) -> None:
        register(admin)
        receiver.judge = careful_receiver(systems)
        systems.webhooks.dispatcher.deviate("body-changed")
        client.create()

        (first,) = systems.webhooks.deliver_pending()
        systems.clock.advance(1)
        (second,) = systems.webhooks.deliver_pending()

        assert (first.deviation, first.status) == ("body-changed", 401)
        assert (second.deviation, second.status) == (None, 200)

    def test_a_signature_from_before_a_rotation_does_not_fit_the_new_certificate(
        self, systems: Simulators, admin: requests.Session, client: Client, receiver: Receiver
    ) -> None:
        register(admin)
        systems.webhooks.dispatcher.sign_once = True
        receiver.statuses = [500]
        client.create()
        systems.webhooks.deliver_pending()

        systems.pki.rotate()
        receiver.judge = careful_receiver(systems)
        systems.clock.advance(1)
        (second,) = systems.webhooks.deliver_pending()

        assert second.status == 401

    def test_another_process_orders_a_forged_call_by_http(
        self, systems: Simulators, admin: requests.Session, receiver: Receiver
    ) -> None:
        register(admin)
        receiver.judge = careful_receiver(systems)
        forge = "https://api.partnercenter.microsoft.com/_forge"

        forged = admin.post(forge, json={"recipe": "other-key"}).json()
        genuine = admin.post(forge, json={"recipe": "certificate-in-der"}).json()

        assert (forged["status"], forged["acceptable"]) == (401, False)
        assert (genuine["status"], genuine["acceptable"]) == (200, True)
        assert admin.post(forge, json={"recipe": "magic"}).status_code == 400


class TestServed:
    def test_a_client_with_the_settings_does_it_all_over_https(self, receiver: Receiver) -> None:
        with Simulators().serve() as systems, requests.Session() as session:
            settings = systems.settings()
            session.trust_env, session.verify = False, settings["REQUESTS_CA_BUNDLE"]
            systems.webhooks.dispatcher.session.mount("https://receiver.example", InProcessAdapter(receiver))
            token_url = f"{settings['ENTRA_AUTHORITY']}/{settings['PARTNER_CENTER_TENANT_ID']}/oauth2/v2.0/token"
            headers = {}
            for audience in (PARTNER_CENTER_REFERRALS, PARTNER_CENTER_WEBHOOKS):
                form = {
                    "grant_type": "refresh_token",
                    "client_id": settings["PARTNER_CENTER_CLIENT_ID"],
                    "client_secret": settings["PARTNER_CENTER_CLIENT_SECRET"],
                    "refresh_token": settings["PARTNER_CENTER_REFRESH_TOKEN"],
                    "scope": f"{audience}/.default",
                }
                token = session.post(token_url, data=form).json()["access_token"]
                headers[audience] = {"Authorization": f"Bearer {token}"}

            registered = session.post(
                f"{settings['PARTNER_CENTER_WEBHOOKS_URL']}/registration",
                json={"webhookUrl": RECEIVER, "webhookEvents": EVENTS},
                headers=headers[PARTNER_CENTER_WEBHOOKS],
            )
            created = session.post(
                f"{settings['PARTNER_CENTER_URL']}/referrals", json=deal(), headers=headers[PARTNER_CENTER_REFERRALS]
            )

            assert (registered.status_code, created.status_code) == (200, 200)
            assert eventually(lambda: receiver.log.count() == 1, "the event is delivered")
            certificate_url = receiver.log.entries[0].request_headers["x-ms-certificate-url"]
            assert urlsplit(certificate_url).netloc == settings["WEBHOOK_CERTIFICATE_HOSTS"]
            certificate = x509.load_pem_x509_certificate(session.get(certificate_url).content)
            root, intermediate = x509.load_pem_x509_certificates(
                Path(settings["WEBHOOK_TRUSTED_ROOTS_FILE"]).read_bytes()
            )
            verifier = PolicyBuilder().store(Store([root])).build_server_verifier(x509.DNSName(LEAF_NAME))
            assert verifier.verify(certificate, [intermediate])

    def test_the_sender_repeats_by_itself_when_served(self, receiver: Receiver) -> None:
        with Simulators().serve() as systems:
            systems.webhooks.dispatcher.session.mount("https://receiver.example", InProcessAdapter(receiver))
            systems.webhooks.dispatcher.time_factor = 0.01
            receiver.statuses = [500, 500]
            systems.people.another_tool_registers(RECEIVER, EVENTS)

            systems.people.microsoft_creates_deal()

            assert eventually(lambda: [e.status for e in receiver.log.entries].count(200) == 2, "both are accepted")
            assert receiver.log.count() == 4

    def test_the_command_prints_the_settings_and_stops_when_told(self, tmp_path: Path) -> None:
        settings_file = tmp_path / "settings.env"
        command = [sys.executable, "-m", "local.simulators", "--settings-file", str(settings_file)]
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout
            try:
                printed = list(itertools.takewhile(lambda line: line != "ready", map(str.rstrip, process.stdout)))
                settings = dict(line.split("=", 1) for line in printed if not line.startswith("#"))

                assert settings_file.read_text().splitlines() == [line for line in printed if line[0] != "#"]
                state = requests.get(f"{settings['ENTRA_AUTHORITY']}/_state", verify=settings["REQUESTS_CA_BUNDLE"])
                assert state.status_code == 200
            finally:
                process.send_signal(signal.SIGTERM)

            assert process.wait(timeout=20) == 0
            assert not Path(settings["REQUESTS_CA_BUNDLE"]).exists()

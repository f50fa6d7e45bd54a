"""The Salesforce simulator against plain requests: who calls, single rows, and every refusal of a write."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import jwt
import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import rsa

from local.simulators.base import Clock, InProcessAdapter, Refused, serve
from local.simulators.salesforce import SalesforceSimulator

NOW = datetime(2026, 11, 27, 12, 0, 30, 400_000, tzinfo=UTC)
STAMP = "2026-11-27T12:00:30.000+0000"
NOBODY = "006000000000001AAA"
KEY = "Referral_Identifier__c"
DEAL = {"Name": "Deal", "StageName": "Prospecting", "CloseDate": "2026-12-31"}
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"


@dataclass
class World:
    """One org, and a session that speaks for the integration user."""

    provisioned: bool = True
    clock: Clock = field(default_factory=lambda: Clock(frozen_at=NOW))
    version: str = "67.0"

    def __post_init__(self) -> None:
        self.sim = SalesforceSimulator(self.clock, provisioned=self.provisioned)
        self.org, self.people = self.sim.organization, self.sim.people
        self.root = f"/services/data/v{self.version}"
        self.http = requests.Session()
        self.http.mount("https://", InProcessAdapter(self.sim))
        self.token = self.sim.token_for("Co-sell Sync")

    def call(
        self, method: str, path: str, *, headers: dict[str, Any] | None = None, **options: Any
    ) -> requests.Response:
        path = path if path.startswith("/services/") else f"{self.root}/{path}"
        sent = {"Authorization": f"Bearer {self.token}", **(headers or {})}
        return self.http.request(method, self.sim.origin + path, headers=sent, timeout=5, **options)

    def create(self, name: str = "Opportunity", **values: Any) -> str:
        given = {**DEAL, **values} if name == "Opportunity" else values
        answer = self.call("POST", f"sobjects/{name}", json=given)
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    def read(self, row_id: str, name: str = "Opportunity") -> dict[str, Any]:
        answer = self.call("GET", f"sobjects/{name}/{row_id}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def change(
        self, row_id: str, name: str = "Opportunity", headers: dict[str, str] | None = None, **values: Any
    ) -> requests.Response:
        return self.call("PATCH", f"sobjects/{name}/{row_id}", json=values, headers=headers)

    def query(self, soql: str, **options: Any) -> requests.Response:
        return self.call("GET", "query", params={"q": soql}, **options)

    def found(self, soql: str) -> list[str]:
        """The names of the rows a query finds."""
        answer = self.query(soql)
        assert answer.status_code == 200, answer.text
        return [record["Name"] for record in answer.json()["records"]]

    def upsert(self, key: str, **values: Any) -> requests.Response:
        return self.call("PATCH", f"sobjects/Opportunity/{KEY}/{quote(key, safe='')}", json=values)

    def token_call(self, form: dict[str, Any], host: str = "", **options: Any) -> requests.Response:
        return self.http.post(f"{host or self.sim.origin}/services/oauth2/token", data=form, timeout=5, **options)

    def assertion(self, key: Any = None, *, algorithm: str = "RS256", **claims: Any) -> str:
        expires = int(self.clock.now().timestamp()) + 180
        usual = {
            "iss": self.sim.client_id,
            "sub": self.sim.username,
            "aud": "https://login.salesforce.com",
            "exp": expires,
        }
        sent = {name: value for name, value in {**usual, **claims}.items() if value is not None}
        return jwt.encode(sent, key or self.sim.private_key_pem, algorithm=algorithm)


@pytest.fixture
def world() -> World:
    return World()


def refusal(answer: requests.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()[0]["errorCode"]


# The token endpoint


def credentials(world: World) -> dict[str, str]:
    return {
        "grant_type": "client_credentials",
        "client_id": world.sim.client_id,
        "client_secret": world.sim.client_secret,
    }


def test_client_credentials_in_the_body_give_a_token_of_the_run_as_user(world: World) -> None:
    answer = world.token_call(credentials(world)).json()

    assert answer["instance_url"] == world.sim.origin
    assert answer["issued_at"] == str(int(NOW.timestamp() * 1000))
    assert answer["id"].split("/")[-2:] == [world.org.id, world.org.integration_user]
    assert (answer["token_type"], answer["scope"]) == ("Bearer", "api")
    assert "refresh_token" not in answer
    assert "expires_in" not in answer
    assert world.call("GET", "limits", headers={"Authorization": f"Bearer {answer['access_token']}"}).status_code == 200


def test_client_credentials_may_come_as_basic_authorization(world: World) -> None:
    basic = base64.b64encode(f"{world.sim.client_id}:{world.sim.client_secret}".encode()).decode()

    answer = world.token_call({"grant_type": "client_credentials"}, headers={"Authorization": f"Basic {basic}"})

    assert answer.status_code == 200


def test_a_jwt_signed_with_the_registered_key_gives_a_token_of_its_subject(world: World) -> None:
    form = {"grant_type": JWT_BEARER, "assertion": world.assertion(sub="ada.admin@fabrikam.example")}

    answer = world.token_call(form, host="https://login.salesforce.com")

    assert answer.status_code == 200
    assert answer.json()["id"].endswith(world.org.user("Ada Admin").id)


def test_prn_wins_over_sub(world: World) -> None:
    assertion = world.assertion(sub="nobody@fabrikam.example", prn=world.sim.username)

    answer = world.token_call({"grant_type": JWT_BEARER, "assertion": assertion})

    assert answer.json()["id"].endswith(world.org.integration_user)


@pytest.mark.parametrize(
    ("change", "error", "description"),
    [
        ({"client_secret": "wrong"}, "invalid_client", "invalid client credentials"),
        ({"client_id": "wrong"}, "invalid_client_id", "client identifier invalid"),
        ({"grant_type": "password"}, "unsupported_grant_type", "grant type not supported"),
        ({"grant_type": ""}, "unsupported_grant_type", "grant type not supported"),
    ],
)
def test_wrong_credentials_are_denied(world: World, change: dict[str, str], error: str, description: str) -> None:
    answer = world.token_call({**credentials(world), **change})

    assert answer.status_code == 400
    assert answer.json() == {"error": error, "error_description": description}


def test_client_credentials_are_not_supported_on_the_login_host(world: World) -> None:
    answer = world.token_call(credentials(world), host="https://login.salesforce.com")

    assert answer.json() == {"error": "invalid_grant", "error_description": "request not supported on this domain"}


@pytest.mark.parametrize("spoil", ["none", "inactive"])
def test_client_credentials_need_an_active_run_as_user(world: World, spoil: str) -> None:
    if spoil == "none":
        world.sim.app.run_as = None
    else:
        world.people.deactivate_user("Co-sell Sync")

    answer = world.token_call(credentials(world))

    assert answer.json()["error_description"] == "no client credentials user enabled"


@pytest.mark.parametrize(
    ("claims", "error", "description"),
    [
        ({"aud": "https://contoso.my.salesforce.com"}, "invalid_grant", "audience is invalid"),
        ({"exp": int(NOW.timestamp()) - 1}, "invalid_grant", "expired access/refresh token"),
        ({"exp": None}, "invalid_grant", "invalid assertion"),
        ({"iss": "wrong"}, "invalid_client_id", "client identifier invalid"),
        ({"sub": "nobody@fabrikam.example"}, "invalid_grant", "user hasn't approved this consumer"),
    ],
)
def test_a_jwt_with_wrong_claims_is_denied(world: World, claims: dict[str, Any], error: str, description: str) -> None:
    answer = world.token_call({"grant_type": JWT_BEARER, "assertion": world.assertion(**claims)})

    assert answer.status_code == 400
    assert answer.json() == {"error": error, "error_description": description}


def test_a_jwt_for_a_user_who_is_not_approved_is_denied(world: World) -> None:
    world.sim.app.approved.clear()

    answer = world.token_call({"grant_type": JWT_BEARER, "assertion": world.assertion()})

    assert answer.json()["error_description"] == "user is not admin approved to access this app"


def test_a_jwt_signed_with_another_key_or_algorithm_is_denied(world: World) -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    forged = world.assertion(other)
    symmetric = world.assertion("a secret of more than thirty-two bytes", algorithm="HS256")

    answers = [world.token_call({"grant_type": JWT_BEARER, "assertion": each}) for each in (forged, symmetric, "x")]

    assert [answer.json()["error_description"] for answer in answers] == ["invalid assertion"] * 3


# Sessions, versions, limits


@pytest.mark.parametrize("header", [None, "Bearer nonsense", "Bearer "])
def test_a_call_without_a_valid_session_is_unauthorized(world: World, header: str | None) -> None:
    answer = world.call("GET", "limits", headers={"Authorization": header})

    assert answer.status_code == 401
    assert answer.json() == [{"message": "Session expired or invalid", "errorCode": "INVALID_SESSION_ID"}]


def test_a_session_ends_two_hours_after_its_last_call(world: World) -> None:
    statuses = []
    for seconds in (7000, 7000, 7201):
        world.clock.advance(seconds)
        statuses.append(world.call("GET", "limits").status_code)

    assert statuses == [200, 200, 401]


def test_several_sessions_live_at_a_time_until_all_are_expired(world: World) -> None:
    first, second = (world.token_call(credentials(world)).json()["access_token"] for _ in range(2))

    def statuses() -> list[int]:
        tokens = [{"Authorization": f"Bearer {token}"} for token in (first, second)]
        return [world.call("GET", "limits", headers=each).status_code for each in tokens]

    before = statuses()
    world.people.expire_sessions()

    assert (before, statuses()) == ([200, 200], [401, 401])


def test_a_deactivated_user_s_session_is_invalid(world: World) -> None:
    world.people.deactivate_user("Co-sell Sync")

    assert refusal(world.call("GET", "limits")) == (401, "INVALID_SESSION_ID")


def test_the_versions_are_listed_for_everybody(world: World) -> None:
    versions = world.call("GET", "/services/data", headers={"Authorization": None}).json()

    assert versions[0]["version"] == "31.0"
    assert versions[-1] == {"label": "Summer '26", "url": "/services/data/v67.0", "version": "67.0"}
    assert world.org.api_used == 0


@pytest.mark.parametrize(
    ("version", "expected"),
    [("v31.0", 200), ("v67.0", 200), ("v68.0", 404), ("v30.0", 410), ("67.0", 404), ("vX", 404)],
)
def test_only_offered_versions_answer(world: World, version: str, expected: int) -> None:
    assert world.call("GET", f"/services/data/{version}/limits").status_code == expected


def test_the_offered_versions_can_be_changed(world: World) -> None:
    world.sim.offered_versions = ["60.0"]

    assert refusal(world.call("GET", "limits")) == (404, "NOT_FOUND")
    assert world.call("GET", "/services/data/v60.0/limits").status_code == 200


def test_a_version_lists_its_resources(world: World) -> None:
    assert world.call("GET", world.root).json()["query"] == "/services/data/v67.0/query"
    assert world.call("GET", world.root + "/").status_code == 200


def test_every_data_answer_tells_the_usage(world: World) -> None:
    world.people.set_api_usage(18, 5000)

    answers = [world.call("GET", "limits"), world.call("GET", "sobjects/Opportunity/" + NOBODY)]

    assert [answer.headers["Sforce-Limit-Info"] for answer in answers] == ["api-usage=19/5000", "api-usage=20/5000"]
    assert answers[0].json() == {"DailyApiRequests": {"Max": 5000, "Remaining": 4981}}


def test_the_daily_limit_refuses_every_call(world: World) -> None:
    world.people.set_api_usage(5000, 5000)

    answer = world.call("GET", "limits")

    assert refusal(answer) == (403, "REQUEST_LIMIT_EXCEEDED")
    assert answer.json()[0]["message"] == "TotalRequests Limit exceeded."


def test_throttling_speaks_of_concurrent_calls(world: World) -> None:
    world.sim.faults.add("throttle")

    answer = world.call("GET", "limits")

    assert refusal(answer) == (403, "REQUEST_LIMIT_EXCEEDED")
    assert answer.json()[0]["message"].startswith("ConcurrentPerOrgLongTxn")
    assert "Retry-After" not in answer.headers


def test_a_fault_can_aim_at_composite_calls(world: World) -> None:
    world.sim.faults.add("status", path="/composite$", status=503)

    collections = world.call("GET", f"composite/sobjects/Opportunity?ids={NOBODY}&fields=Id")
    composite = world.call("POST", "composite", json={})

    assert (collections.status_code, composite.status_code) == (200, 503)


def test_the_log_knows_the_product_and_others(world: World) -> None:
    world.call("GET", "limits")
    world.call("GET", "limits", headers={"Authorization": f"Bearer {world.sim.token_for('Ada Admin')}"})

    assert [entry.caller for entry in world.sim.log.entries] == ["salesforce", "salesforce as Ada Admin"]


# Addresses and protocol


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "nonsense", (404, "NOT_FOUND")),
        ("GET", "sobjects/Nonsense", (404, "NOT_FOUND")),
        ("GET", f"sobjects/Opportunity/{NOBODY}", (404, "NOT_FOUND")),
        ("GET", "sobjects/Opportunity/nonsense", (404, "NOT_FOUND")),
        ("PATCH", f"sobjects/Opportunity/{NOBODY}", (404, "INVALID_CROSS_REFERENCE_KEY")),
        ("DELETE", f"sobjects/Opportunity/{NOBODY}", (404, "INVALID_CROSS_REFERENCE_KEY")),
        ("PATCH", "sobjects/Opportunity/001000000000001AAA", (400, "MALFORMED_ID")),
        ("DELETE", "sobjects/Opportunity", (405, "METHOD_NOT_ALLOWED")),
        ("POST", "query", (405, "METHOD_NOT_ALLOWED")),
        ("GET", "composite", (405, "METHOD_NOT_ALLOWED")),
        ("GET", "search", (501, "NOT_SIMULATED")),
        ("POST", "composite/batch", (501, "NOT_SIMULATED")),
        ("GET", "sobjects/Opportunity/listviews", (501, "NOT_SIMULATED")),
        ("GET", f"sobjects/Opportunity/{NOBODY}/Account", (501, "NOT_SIMULATED")),
        ("GET", "limits?x=1", (200, "")),
        ("GET", f"sobjects/Opportunity/{NOBODY}?x=1", (501, "NOT_SIMULATED")),
    ],
)
def test_addresses_are_refused(world: World, method: str, path: str, expected: tuple[int, str]) -> None:
    answer = world.call(method, path, json={"Name": "x"} if method in ("PATCH", "POST") else None)

    assert answer.status_code == expected[0]
    assert not expected[1] or answer.json()[0]["errorCode"] == expected[1]


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (b"{", "application/json", (400, "JSON_PARSER_ERROR")),
        (b"[]", "application/json", (400, "JSON_PARSER_ERROR")),
        (b"", "application/json", (400, "JSON_PARSER_ERROR")),
        (b"{}", "application/x-www-form-urlencoded", (415, "UNSUPPORTED_MEDIA_TYPE")),
    ],
)
def test_bodies_that_are_no_json_object_are_refused(
    world: World, body: bytes, content_type: str, expected: tuple[int, str]
) -> None:
    answer = world.call("POST", "sobjects/Opportunity", data=body, headers={"Content-Type": content_type})

    assert refusal(answer) == expected


def test_long_addresses_and_headers_are_refused(world: World) -> None:
    assert world.call("GET", "query?q=" + "x" * 16_400).status_code == 414
    assert world.call("GET", "limits", headers={"X-Long": "x" * 16_400}).status_code == 431


def test_unknown_sforce_headers_are_refused(world: World) -> None:
    answer = world.call("GET", "limits", headers={"Sforce-Nonsense": "1"})

    assert refusal(answer) == (501, "NOT_SIMULATED")


def test_names_are_accepted_in_any_case_and_answered_in_theirs(world: World) -> None:
    answer = world.call("POST", "sobjects/opportunity", json={"NAME": "x", "stagename": "Y", "closedate": "2026-12-31"})

    row = world.call("GET", f"sobjects/OPPORTUNITY/{answer.json()['id']}?fields=name,STAGENAME").json()

    assert row.keys() == {"attributes", "Name", "StageName"}


# Create, read, update, delete


def test_a_created_row_has_an_id_of_its_object_and_an_address(world: World) -> None:
    answer = world.call("POST", "sobjects/Opportunity", json=DEAL)

    body = answer.json()
    assert body == {"id": body["id"], "success": True, "errors": []}
    assert (body["id"][:3], len(body["id"])) == ("006", 18)
    assert answer.headers["Location"] == f"{world.root}/sobjects/Opportunity/{body['id']}"


def test_a_row_is_read_with_all_fields_and_stamps(world: World) -> None:
    row_id = world.create(Amount=90.5)

    row = world.read(row_id)

    assert row["attributes"] == {"type": "Opportunity", "url": f"{world.root}/sobjects/Opportunity/{row_id}"}
    assert (row["Amount"], row["Description"], row["CloseDate"]) == (90.5, None, "2026-12-31")
    assert row["CreatedDate"] == row["LastModifiedDate"] == row["SystemModstamp"] == STAMP
    assert row["CreatedById"] == row["LastModifiedById"] == row["OwnerId"] == world.org.integration_user
    assert row["Sync_with_Partner_Center__c"] is False


def test_ids_of_15_characters_are_accepted_and_18_answered(world: World) -> None:
    account = world.create("Account", Name="Fabrikam")

    row_id = world.create(AccountId=account[:15])

    assert world.read(row_id[:15])["AccountId"] == account


def test_an_update_answers_nothing_and_moves_the_stamps(world: World) -> None:
    row_id = world.create(NextStep="call")
    world.clock.advance(5)

    answer = world.change(row_id, NextStep=None, Amount=1)

    row = world.read(row_id)
    assert (answer.status_code, answer.content) == (204, b"")
    assert (row["NextStep"], row["Amount"]) == (None, 1)
    assert row["CreatedDate"] == STAMP
    assert row["LastModifiedDate"] == row["SystemModstamp"] == "2026-11-27T12:00:35.000+0000"


def test_an_empty_text_is_stored_as_null_and_spaces_are_trimmed(world: World) -> None:
    row = world.read(world.create(NextStep="", Name="  Deal "))

    assert (row["NextStep"], row["Name"]) == (None, "Deal")


def test_a_deleted_row_is_gone_but_known(world: World) -> None:
    row_id = world.create()

    answer = world.call("DELETE", f"sobjects/Opportunity/{row_id}")

    assert answer.status_code == 204
    for method in ("GET", "PATCH", "DELETE"):
        again = world.call(method, f"sobjects/Opportunity/{row_id}", json={} if method == "PATCH" else None)
        assert refusal(again) == (404, "ENTITY_IS_DELETED")


@pytest.mark.parametrize(
    ("values", "code", "message", "fields"),
    [
        ({"foo": 1}, "INVALID_FIELD", "No such column 'foo' on sobject of type Opportunity", None),
        ({"Id": NOBODY}, "INVALID_FIELD", "The Id field should not be specified", None),
        (
            {"IsClosed": True, "ExpectedRevenue": 1},
            "INVALID_FIELD_FOR_INSERT_UPDATE",
            "Unable to create/update fields: IsClosed, ExpectedRevenue. Please check",
            ["IsClosed", "ExpectedRevenue"],
        ),
        (
            {"CloseDate": "2017-05-30X"},
            "JSON_PARSER_ERROR",
            "Cannot deserialize instance of date from VALUE_STRING value 2017-05-30X or request",
            None,
        ),
        ({"CloseDate": "2026-01-31T10:00:00Z"}, "JSON_PARSER_ERROR", "instance of date", None),
        ({"CloseDate": "2026-02-30"}, "JSON_PARSER_ERROR", "instance of date", None),
        (
            {"Amount": "5"},
            "JSON_PARSER_ERROR",
            "Cannot deserialize instance of currency from VALUE_STRING value 5",
            None,
        ),
        ({"Name": 5}, "JSON_PARSER_ERROR", "instance of string from VALUE_NUMBER_INT value 5", None),
        ({"IsPrivate": "true"}, "JSON_PARSER_ERROR", "instance of boolean", None),
        ({"IsPrivate": None}, "INVALID_TYPE_ON_FIELD_IN_RECORD", "Private: value not of required type", ["IsPrivate"]),
        ({"Amount": 1e17}, "NUMBER_OUTSIDE_VALID_RANGE", "Amount: value outside of valid range", ["Amount"]),
        (
            {"Name": "n" * 121},
            "STRING_TOO_LONG",
            f"Opportunity Name: data value too large: {'n' * 121} (max length=120)",
            ["Name"],
        ),
        (
            {"ForecastCategoryName": "Nope"},
            "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
            "bad value for restricted picklist field: Nope",
            ["ForecastCategoryName"],
        ),
        (
            {"How_can_Microsoft_help__c": "x"},
            "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
            "How can Microsoft help: bad value",
            ["How_can_Microsoft_help__c"],
        ),
        (
            {"CurrencyIsoCode": "CHF"},
            "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
            "Opportunity Currency: bad value",
            ["CurrencyIsoCode"],
        ),
        (
            {"Name": None, "CloseDate": None},
            "REQUIRED_FIELD_MISSING",
            "Required fields are missing: [Name, CloseDate]",
            ["Name", "CloseDate"],
        ),
        ({"AccountId": "x"}, "MALFORMED_ID", "Account ID: id value of incorrect type: x", ["AccountId"]),
        ({"AccountId": NOBODY}, "MALFORMED_ID", "Account ID: id value of incorrect type", ["AccountId"]),
        ({"AccountId": "001000000000001AAA"}, "INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id", []),
        ({"Account": {"Name": "x"}}, "INVALID_FIELD", "No such column 'Name' on sobject of type Account", None),
    ],
)
def test_a_value_a_field_does_not_take_is_refused(
    world: World, values: dict[str, Any], code: str, message: str, fields: list[str] | None
) -> None:
    answer = world.call("POST", "sobjects/Opportunity", json={**DEAL, **values})

    assert refusal(answer) == (400, code)
    [error] = answer.json()
    assert message in error["message"]
    assert error.get("fields") == fields
    assert world.query("SELECT Id FROM Opportunity").json()["totalSize"] == 0


def test_an_email_address_must_be_one(world: World) -> None:
    answer = world.call("POST", "sobjects/Contact", json={"LastName": "Doe", "Email": "x"})

    assert refusal(answer) == (400, "INVALID_EMAIL_ADDRESS")
    assert answer.json()[0]["message"] == "Email: invalid email address: x"


def test_unrestricted_picklists_take_any_text(world: World) -> None:
    row = world.read(world.create(StageName="In Progress", LeadSource="Microsoft"))

    assert (row["StageName"], row["LeadSource"], row["IsClosed"]) == ("In Progress", "Microsoft", False)


def test_a_required_field_cannot_be_cleared(world: World) -> None:
    assert refusal(world.change(world.create(), Name="")) == (400, "REQUIRED_FIELD_MISSING")


def test_contact_is_given_at_creation_only_and_becomes_the_primary_role(world: World) -> None:
    contact = world.create("Contact", LastName="Doe")

    row_id = world.create(ContactId=contact)
    later = world.change(row_id, ContactId=contact)

    assert world.read(row_id)["ContactId"] == contact
    [role] = world.sim.state()["OpportunityContactRole"]
    assert (role["OpportunityId"], role["ContactId"], role["IsPrimary"]) == (row_id, contact, True)
    assert refusal(later) == (400, "INVALID_FIELD_FOR_INSERT_UPDATE")


def test_the_owner_must_be_an_active_user(world: World) -> None:
    seller = world.org.user("Sally Seller").id
    row_id = world.create(OwnerId=seller)
    world.people.deactivate_user("Sally Seller")

    assert refusal(world.change(row_id, OwnerId=seller)) == (400, "INACTIVE_OWNER_OR_USER")
    assert refusal(world.change(row_id, OwnerId=None)) == (400, "INVALID_CROSS_REFERENCE_KEY")


def test_a_deleted_parent_cannot_be_referred_to(world: World) -> None:
    account = world.create("Account", Name="Fabrikam")
    world.people.delete("Account", account)

    answer = world.call("POST", "sobjects/Opportunity", json={**DEAL, "AccountId": account})

    assert refusal(answer) == (400, "ENTITY_IS_DELETED")


@pytest.mark.parametrize("name", ["User", "OpportunityStage", "LeadStatus", "CurrencyType", "Organization"])
def test_setup_objects_are_not_written(world: World, name: str) -> None:
    answer = world.call("POST", f"sobjects/{name}", json={})

    assert refusal(answer) == (400, "INVALID_TYPE_FOR_OPERATION")


# What a save sets off


@pytest.mark.parametrize(
    ("stage", "closed", "won", "probability", "forecast_name", "forecast"),
    [
        ("Qualification", False, False, 10, "Pipeline", "Pipeline"),
        ("Closed Won", True, True, 100, "Closed", "Closed"),
        ("Closed Lost", True, False, 0, "Omitted", "Omitted"),
    ],
)
def test_the_stage_drives_what_depends_on_it(
    world: World, stage: str, closed: bool, won: bool, probability: int, forecast_name: str, forecast: str
) -> None:
    row_id = world.create(Amount=50)

    world.change(row_id, StageName=stage)

    row = world.read(row_id)
    assert (row["IsClosed"], row["IsWon"], row["Probability"]) == (closed, won, probability)
    assert (row["ForecastCategoryName"], row["ForecastCategory"]) == (forecast_name, forecast)
    assert row["ExpectedRevenue"] == 50 * probability / 100


def test_an_explicit_probability_overrides_the_stage(world: World) -> None:
    row = world.read(world.create(Probability=33, ForecastCategoryName="Commit"))

    assert (row["Probability"], row["ForecastCategoryName"], row["ForecastCategory"]) == (33, "Commit", "Forecast")


def test_a_closed_deal_is_reopened_by_its_stage(world: World) -> None:
    row_id = world.create(StageName="Closed Won")

    world.change(row_id, StageName="Prospecting")

    assert world.read(row_id)["IsClosed"] is False


def test_a_lead_has_the_default_status_and_a_full_name(world: World) -> None:
    row = world.read(world.create("Lead", LastName="Doe", FirstName="Jo", Company="Fabrikam"), "Lead")

    assert (row["Status"], row["Name"], row["IsConverted"]) == ("Open - Not Contacted", "Jo Doe", False)


def test_a_lead_is_not_converted_by_its_status(world: World) -> None:
    lead = world.create("Lead", LastName="Doe", Company="Fabrikam")

    assert refusal(world.change(lead, "Lead", Status="Closed - Converted")) == (400, "INVALID_STATUS")
    assert world.change(lead, "Lead", Status="Closed - Not Converted").status_code == 204


@pytest.mark.parametrize(
    ("headers", "owner"),
    [
        ({}, "Ada Admin"),
        ({"Sforce-Auto-Assign": "TRUE"}, "Ada Admin"),
        ({"Sforce-Auto-Assign": "FALSE"}, "Co-sell Sync"),
    ],
)
def test_an_assignment_rule_takes_leads_unless_the_header_says_no(
    world: World, headers: dict[str, str], owner: str
) -> None:
    world.people.assign_leads_to("Ada Admin")

    answer = world.call("POST", "sobjects/Lead", json={"LastName": "Doe", "Company": "Fabrikam"}, headers=headers)

    assert world.read(answer.json()["id"], "Lead")["OwnerId"] == world.org.user(owner).id


def test_a_new_primary_contact_replaces_the_old_one(world: World) -> None:
    deal, (first, second) = world.create(), [world.create("Contact", LastName=name) for name in ("A", "B")]
    for contact in (first, second):
        world.create("OpportunityContactRole", OpportunityId=deal, ContactId=contact, IsPrimary=True)

    primary = {role["ContactId"]: role["IsPrimary"] for role in world.sim.state()["OpportunityContactRole"]}

    assert primary == {first: False, second: True}


def test_the_opportunity_of_a_contact_role_is_not_changed(world: World) -> None:
    role = world.people.add_contact_role(world.create(), world.create("Contact", LastName="A"))

    answer = world.change(role, "OpportunityContactRole", OpportunityId=world.create())

    assert refusal(answer) == (400, "INVALID_FIELD_FOR_INSERT_UPDATE")


def test_an_account_takes_its_contacts_and_opportunities_along(world: World) -> None:
    account = world.create("Account", Name="Fabrikam")
    deal, contact = world.create(AccountId=account), world.create("Contact", LastName="Doe", AccountId=account)

    world.call("DELETE", f"sobjects/Account/{account}")

    assert {row["id"] for row in world.sim.state()["deleted"]} == {account, deal, contact}


def test_an_account_with_won_opportunities_stays(world: World) -> None:
    account = world.create("Account", Name="Fabrikam")
    world.create(AccountId=account, StageName="Closed Won")

    assert refusal(world.call("DELETE", f"sobjects/Account/{account}")) == (400, "DELETE_FAILED")


def test_with_state_and_country_picklists_only_known_ones_are_taken(world: World) -> None:
    world.people.switch("state_country_picklists", True)

    def create(**values: str) -> requests.Response:
        return world.call("POST", "sobjects/Account", json={"Name": "x", **values})

    good = create(BillingCountry="united states", BillingStateCode="WA").json()["id"]

    row = world.read(good, "Account")
    assert (row["BillingCountry"], row["BillingCountryCode"]) == ("United States", "US")
    assert (row["BillingState"], row["BillingAddress"]["stateCode"]) == ("Washington", "WA")
    for bad in ({"BillingCountry": "Atlantis"}, {"BillingState": "WA"}, {"BillingCountry": "US", "BillingState": "X"}):
        assert refusal(create(**bad)) == (400, "FIELD_INTEGRITY_EXCEPTION")


def test_without_state_and_country_picklists_there_are_no_codes(world: World) -> None:
    answer = world.call("POST", "sobjects/Account", json={"Name": "x", "BillingCountryCode": "US"})

    assert refusal(answer) == (400, "INVALID_FIELD")


def test_without_multiple_currencies_there_is_no_currency(world: World) -> None:
    world.people.switch("multi_currency", False)

    assert refusal(world.call("POST", "sobjects/Opportunity", json={**DEAL, "CurrencyIsoCode": "USD"})) == (
        400,
        "INVALID_FIELD",
    )
    assert refusal(world.query("SELECT CurrencyIsoCode FROM Opportunity")) == (400, "INVALID_FIELD")
    assert refusal(world.query("SELECT IsoCode FROM CurrencyType")) == (400, "INVALID_TYPE")


def test_a_currency_cannot_be_cleared(world: World) -> None:
    answer = world.change(world.create(CurrencyIsoCode="EUR"), CurrencyIsoCode=None)

    assert refusal(answer) == (400, "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST")


def test_text_areas_can_come_back_with_carriage_returns(world: World) -> None:
    world.people.switch("crlf_in_text_areas", True)

    assert world.read(world.create(Description="a\nb\r\nc"))["Description"] == "a\r\nb\r\nc"


# Keys


def test_an_upsert_creates_and_then_updates(world: World) -> None:
    first, second = world.upsert("it's/a key", **DEAL), world.upsert("IT'S/A KEY", Name="Changed")

    row_id = first.json()["id"]
    assert (first.status_code, first.json()) == (201, {"id": row_id, "success": True, "errors": [], "created": True})
    assert (second.status_code, second.json()) == (200, {"id": row_id, "success": True, "errors": [], "created": False})
    assert (world.read(row_id)[KEY], world.read(row_id)["Name"]) == ("it's/a key", "Changed")


def test_an_old_version_answers_an_update_by_key_with_nothing() -> None:
    world = World(version="45.0")
    world.upsert("a", **DEAL)

    answer = world.upsert("a", Name="Changed")

    assert (answer.status_code, answer.content) == (204, b"")


def test_an_upsert_can_be_forbidden_to_create(world: World) -> None:
    answer = world.call("PATCH", f"sobjects/Opportunity/{KEY}/a?updateOnly=true", json=DEAL)

    assert refusal(answer) == (404, "NOT_FOUND")


@pytest.mark.parametrize("name", [KEY, KEY.lower(), "Id"])
def test_an_upsert_s_body_has_neither_key_nor_id(world: World, name: str) -> None:
    answer = world.upsert("a", **DEAL, **{name: "a"})

    assert refusal(answer) == (400, "INVALID_FIELD")
    assert answer.json()[0]["message"].endswith("field should not be specified in the sobject data.")


def test_a_row_is_read_and_deleted_by_its_key(world: World) -> None:
    row_id = world.upsert("a", **DEAL).json()["id"]
    path = f"sobjects/Opportunity/{KEY}/a"

    read = world.call("GET", path, params={"fields": "Id"})
    deleted = world.call("DELETE", path)

    assert read.json()["Id"] == row_id
    assert deleted.status_code == 204
    assert refusal(world.call("GET", path)) == (404, "NOT_FOUND")


@pytest.mark.parametrize("name", ["Nope__c", "NextStep"])
def test_a_field_that_is_no_key_is_refused(world: World, name: str) -> None:
    answer = world.call("GET", f"sobjects/Opportunity/{name}/a")

    assert answer.status_code == 404
    assert answer.json()[0]["message"] == f"Provided external ID field does not exist or is not accessible: {name}"


def test_a_key_several_rows_have_is_answered_with_their_addresses(world: World) -> None:
    ids = [world.create("Contact", LastName="Doe", Email="doe@fabrikam.example") for _ in range(2)]

    for method in ("GET", "PATCH"):
        answer = world.call(
            method, "sobjects/Contact/Email/doe@fabrikam.example", json={"Title": "x"} if method == "PATCH" else None
        )
        assert answer.status_code == 300
        assert answer.json() == [f"{world.root}/sobjects/Contact/{each}" for each in ids]
    assert [row["Title"] for row in world.sim.state()["Contact"]] == [None, None]


def test_a_unique_value_is_taken_once_in_any_case(world: World) -> None:
    first = world.create(**{KEY: "abc"})

    answer = world.call("POST", "sobjects/Opportunity", json={**DEAL, KEY: "ABC"})

    assert refusal(answer) == (400, "DUPLICATE_VALUE")
    message = f"duplicate value found: {KEY} duplicates value on record with id: {first[:15]}"
    assert answer.json()[0]["message"] == message


def test_a_parent_is_found_by_its_key(world: World) -> None:
    deal = world.create(**{KEY: "abc"})
    contact = world.create("Contact", LastName="Doe")

    def role(key: str) -> requests.Response:
        body = {"Opportunity": {KEY: key}, "ContactId": contact}
        return world.call("POST", "sobjects/OpportunityContactRole", json=body)

    made, refused = role("abc"), role("nope")

    assert world.read(made.json()["id"], "OpportunityContactRole")["OpportunityId"] == deal
    assert (
        refused.json()[0]["message"] == f"Foreign key external ID: nope not found for field {KEY} in entity Opportunity"
    )


def test_insert_by_the_id_path_creates(world: World) -> None:
    assert world.call("POST", "sobjects/Opportunity/Id", json=DEAL).status_code == 201


# Conditions


def http_date(at: datetime) -> str:
    return at.strftime("%a, %d %b %Y %H:%M:%S GMT")


def test_if_unmodified_since_compares_whole_seconds_of_last_modified_date(world: World) -> None:
    row_id = world.create()
    known = {"If-Unmodified-Since": http_date(NOW)}

    same_second = world.change(row_id, headers=known, NextStep="1")
    world.clock.advance(1)
    world.people.edit("Opportunity", row_id, {"NextStep": "2"})
    later = world.change(row_id, headers=known, NextStep="3")

    assert (same_second.status_code, later.status_code) == (204, 412)
    assert later.json()[0]["errorCode"] == "PRECONDITION_FAILED"
    assert world.read(row_id)["NextStep"] == "2"


def test_if_unmodified_since_does_not_see_automation(world: World) -> None:
    row_id = world.create()
    world.people.automation_touches("Opportunity", row_id)

    assert world.change(row_id, headers={"If-Unmodified-Since": http_date(NOW)}, NextStep="x").status_code == 204


def test_if_modified_since_answers_304_for_an_unchanged_row(world: World) -> None:
    row_id = world.create()
    path = f"sobjects/Opportunity/{row_id}"

    same = world.call("GET", path, headers={"If-Modified-Since": http_date(NOW)})
    older = world.call("GET", path, headers={"If-Modified-Since": http_date(NOW - timedelta(seconds=1))})

    assert (same.status_code, same.content, older.status_code) == (304, b"", 200)
    assert older.headers["Last-Modified"] == http_date(NOW)


def test_only_accounts_have_etags(world: World) -> None:
    account, deal = world.create("Account", Name="x"), world.create()
    etag = world.call("GET", f"sobjects/Account/{account}").headers["ETag"]

    unchanged = world.call("GET", f"sobjects/Account/{account}", headers={"If-None-Match": etag})
    good = world.change(account, "Account", headers={"If-Match": etag}, Site="1")
    world.clock.advance(1)
    world.change(account, "Account", Site="2")
    stale = world.change(account, "Account", headers={"If-Match": etag}, Site="3")

    assert (unchanged.status_code, good.status_code, stale.status_code) == (304, 204, 412)
    assert refusal(world.change(deal, headers={"If-Match": etag}, NextStep="x")) == (501, "NOT_SIMULATED")


def test_a_condition_that_is_no_date_is_refused_on_a_write(world: World) -> None:
    answer = world.change(world.create(), headers={"If-Unmodified-Since": "yesterday"}, NextStep="x")

    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("method", "path"), [("DELETE", "sobjects/Opportunity/{id}"), ("PATCH", f"sobjects/Opportunity/{KEY}/x")]
)
def test_conditions_are_refused_where_they_are_not_known_to_work(world: World, method: str, path: str) -> None:
    path = path.replace("{id}", world.create())

    answer = world.call(method, path, json={}, headers={"If-Unmodified-Since": http_date(NOW)})

    assert refusal(answer) == (501, "NOT_SIMULATED")


# Administrators' rules


def test_a_validation_rule_refuses_with_its_own_words(world: World) -> None:
    rule = {"object": "Opportunity", "name": "No_Loss", "message": "Say why", "field": "NextStep"}
    world.people.add_validation_rule(**rule, when={"StageName": "Closed Lost"})
    row_id = world.create()

    answer = world.change(row_id, StageName="Closed Lost")

    assert refusal(answer) == (400, "FIELD_CUSTOM_VALIDATION_EXCEPTION")
    assert (answer.json()[0]["message"], answer.json()[0]["fields"]) == ("Say why", ["NextStep"])
    world.people.clear_validation_rules()
    assert world.change(row_id, StageName="Closed Lost").status_code == 204


@pytest.mark.parametrize("misspelled", [True, False])
def test_a_duplicate_rule_tells_whom_it_found(world: World, misspelled: bool) -> None:
    world.people.switch("duplicate_key_misspelled", misspelled)
    first = world.create("Contact", LastName="Doe", Email="doe@fabrikam.example")
    world.people.add_duplicate_rule("Contact", ["Email"], allow_save=False)

    answer = world.call("POST", "sobjects/Contact", json={"LastName": "Do", "Email": "DOE@fabrikam.example"})

    assert refusal(answer) == (400, "DUPLICATES_DETECTED")
    result = answer.json()[0]["duplicateResut" if misspelled else "duplicateResult"]
    assert result["allowSave"] is False
    assert result["matchResults"][0]["matchRecords"][0]["record"]["Id"] == first


@pytest.mark.parametrize(("allow_save", "expected"), [(True, 201), (False, 400)])
def test_a_duplicate_may_be_saved_by_the_header_when_the_rule_allows(
    world: World, allow_save: bool, expected: int
) -> None:
    world.create("Account", Name="Fabrikam")
    world.people.add_duplicate_rule("Account", ["Name"], allow_save=allow_save)
    headers = {"Sforce-Duplicate-Rule-Header": "allowSave=true; runAsCurrentUser=true"}

    refused = world.call("POST", "sobjects/Account", json={"Name": "Fabrikam"})
    insisted = world.call("POST", "sobjects/Account", json={"Name": "Fabrikam"}, headers=headers)

    assert (refused.status_code, insisted.status_code) == (400, expected)


def test_a_duplicate_rule_looks_at_changes_of_its_fields_only(world: World) -> None:
    twins = [world.create("Account", Name="Fabrikam") for _ in range(2)]
    world.people.add_duplicate_rule("Account", ["Name"], allow_save=True)

    assert world.change(twins[0], "Account", Site="x").status_code == 204


def test_a_locked_row_is_refused_as_often_as_told(world: World) -> None:
    row_id = world.create()
    world.people.lock_row(row_id, times=2)

    answers = [world.change(row_id, NextStep="x") for _ in range(3)]

    assert [answer.status_code for answer in answers] == [400, 400, 204]
    assert refusal(answers[0]) == (400, "UNABLE_TO_LOCK_ROW")
    assert row_id in answers[0].json()[0]["message"]


def test_a_contact_role_needs_the_lock_of_its_opportunity(world: World) -> None:
    deal, contact = world.create(), world.create("Contact", LastName="Doe")
    world.people.lock_row(deal)

    body = {"OpportunityId": deal, "ContactId": contact}
    answer = world.call("POST", "sobjects/OpportunityContactRole", json=body)

    assert refusal(answer) == (400, "UNABLE_TO_LOCK_ROW")


# Control


def test_people_act_over_http_too(world: World) -> None:
    act = f"{world.sim.origin}/_people"

    made = world.http.post(f"{act}/create", json={"object": "Opportunity", "values": DEAL}, timeout=5)
    unknown = world.http.post(f"{act}/vanish", json={}, timeout=5)
    wrong = world.http.post(f"{act}/create", json={"nope": 1}, timeout=5)
    invalid = world.http.post(f"{act}/create", json={"object": "Opportunity", "values": {}}, timeout=5)

    row = world.read(made.json()["result"])
    assert row["CreatedById"] == world.org.user("Sally Seller").id
    assert (unknown.status_code, wrong.status_code) == (404, 400)
    assert refusal(invalid) == (400, "REQUIRED_FIELD_MISSING")


def test_people_obey_the_same_rules(world: World) -> None:
    with pytest.raises(Refused):
        world.people.create("Opportunity", {**DEAL, "Name": "n" * 121})
    with pytest.raises(Refused):
        world.people.edit("Opportunity", world.create(), {"How_can_Microsoft_help__c": "x"})


def test_the_state_shows_every_row_without_attributes(world: World) -> None:
    row_id = world.create()

    state = json.loads(world.http.get(f"{world.sim.origin}/_state", timeout=5).text)

    row = world.read(row_id)
    del row["attributes"]
    assert state["Opportunity"] == [row]
    assert {"Lead", "User", "OpportunityStage", "deleted"} <= state.keys()


def test_the_same_over_real_https(world: World) -> None:
    with serve(world.sim) as server:
        world.sim.origin = server.url
        options: dict[str, Any] = {"verify": str(server.ca_file), "timeout": 5}
        token = requests.post(f"{server.url}/services/oauth2/token", data=credentials(world), **options).json()

        url = f"{token['instance_url']}/services/data/v67.0/sobjects/Opportunity/{KEY}/a%2Fb"
        headers = {"Authorization": f"Bearer {token['access_token']}"}
        answer = requests.patch(url, json=DEAL, headers=headers, **options)

    assert token["instance_url"] == server.url
    assert answer.status_code == 201
    assert world.sim.state()["Opportunity"][0][KEY] == "a/b"

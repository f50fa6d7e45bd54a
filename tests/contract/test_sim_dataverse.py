"""The Dataverse simulator against plain requests: what it does, and everything it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from local.simulators.base import Clock, InProcessAdapter, serve
from local.simulators.dataverse import DataverseSimulator
from local.simulators.entra import EntraSimulator

NOW = datetime(2026, 3, 1, 12, 0, 0, 400_000, tzinfo=UTC)
NOBODY = "99999999-9999-4999-8999-999999999999"
TRACK = {"Prefer": "odata.track-changes"}
FORMATTED = "OData.Community.Display.V1.FormattedValue"


@dataclass
class World:
    """One organization, and a session that speaks for the product's application user."""

    provisioned: bool = True
    clock: Clock = field(default_factory=lambda: Clock(frozen_at=NOW))

    def __post_init__(self) -> None:
        self.entra = EntraSimulator(clock=self.clock)
        self.sim = DataverseSimulator(self.entra, clock=self.clock, provisioned=self.provisioned)
        self.org, self.people = self.sim.organization, self.sim.people
        self.api = f"{self.sim.origin}/api/data/v9.2"
        self.http = self.session("dynamics365")

    def session(self, app: str) -> requests.Session:
        session = requests.Session()
        session.mount(self.sim.origin, InProcessAdapter(self.sim))
        session.headers.update(
            {
                "Authorization": f"Bearer {self.entra.access_token(app, self.sim.origin)}",
                "Accept": "application/json",
                "OData-Version": "4.0",
                "If-None-Match": "null",
            }
        )
        return session

    def call(self, method: str, path: str, *, app: str | None = None, **options: Any) -> requests.Response:
        url = path if path.startswith("https:") else f"{self.api}/{path}"
        return (self.session(app) if app else self.http).request(method, url, timeout=5, **options)

    def create(self, set_name: str, **values: Any) -> str:
        answer = self.call("POST", set_name, json=values)
        assert answer.status_code == 204, answer.text
        return answer.headers["OData-EntityId"].rpartition("(")[2].rstrip(")")

    def read(self, set_name: str, row_id: str, select: str = "") -> dict[str, Any]:
        answer = self.call("GET", f"{set_name}({row_id})", params={"$select": select} if select else {})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def etag(self, set_name: str, row_id: str) -> str:
        return self.read(set_name, row_id)["@odata.etag"]

    def delta_link(self, path: str = "opportunities?$select=name") -> str:
        return self.call("GET", path, headers=TRACK).json()["@odata.deltaLink"]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def bare() -> World:
    return World(provisioned=False)


def refusal(answer: requests.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


# Who calls


@pytest.mark.parametrize("token", [None, "no token at all"])
def test_a_call_without_a_valid_token_is_unauthorized(world: World, token: str | None) -> None:
    headers = {"Authorization": f"Bearer {token}" if token else None}

    answer = world.call("GET", "WhoAmI", headers=headers)

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert answer.content == b""


def test_a_token_for_another_audience_is_unauthorized(world: World) -> None:
    token = world.entra.access_token("dynamics365", "https://api.partner.microsoft.com")

    answer = world.call("GET", "WhoAmI", headers={"Authorization": f"Bearer {token}"})

    assert answer.status_code == 401


def test_an_expired_token_is_unauthorized(world: World) -> None:
    world.clock.advance(3601)

    answer = world.call("GET", "WhoAmI")

    assert answer.status_code == 401


def test_the_token_endpoint_gives_tokens_for_the_environment(world: World) -> None:
    app = world.entra.app("dynamics365")
    session = requests.Session()
    session.mount("https://login", InProcessAdapter(world.entra))
    form = {
        "grant_type": "client_credentials",
        "client_id": app.client_id,
        "client_secret": app.client_secret,
        "scope": f"{world.sim.origin}/.default",
    }

    token = session.post(f"https://login/{app.tenant_id}/oauth2/v2.0/token", data=form, timeout=5).json()
    answer = world.call("GET", "WhoAmI", headers={"Authorization": f"Bearer {token['access_token']}"})

    assert answer.status_code == 200
    assert answer.json()["UserId"] == world.org.where("systemuser", applicationid=app.client_id)[0].id


def test_an_app_without_an_application_user_is_not_a_member(world: World) -> None:
    answer = world.call("GET", "WhoAmI", app="microsoft_seller")

    assert refusal(answer) == (403, "0x80072560")


def test_a_disabled_application_user_is_not_a_member(world: World) -> None:
    world.people.disable_user("# Co-sell Sync")

    answer = world.call("GET", "WhoAmI")

    assert refusal(answer) == (403, "0x80072560")


def test_a_user_without_roles_may_neither_read_nor_write(world: World) -> None:
    world.people.set_roles("# Co-sell Sync", [])

    read = world.call("GET", "opportunities")
    write = world.call("POST", "opportunities", json={"name": "Deal"})

    assert refusal(read) == refusal(write) == (403, "0x80040220")
    assert world.org.rows["opportunity"] == {}


def test_a_user_limited_to_their_own_records_sees_no_others_and_may_not_track_changes(world: World) -> None:
    theirs = world.people.create("opportunity", {"name": "Theirs"}, user="Ada Admin")
    world.people.set_roles("# Co-sell Sync", ["Own Records Only"])
    mine = world.create("opportunities", name="Mine")

    listed = world.call("GET", "opportunities").json()["value"]
    other = world.call("GET", f"opportunities({theirs})")
    tracked = world.call("GET", "opportunities?$select=name", headers=TRACK)

    assert [row["opportunityid"] for row in listed] == [mine]
    assert refusal(other) == (403, "0x80048306")
    assert refusal(tracked) == (403, "0x80040220")


def test_acting_for_another_user_needs_the_right_and_shows_both(world: World) -> None:
    seller = world.entra.app("seller").oid
    refused = world.call("POST", "opportunities", json={"name": "Deal"}, headers={"CallerObjectId": seller})
    world.people.set_roles("# Co-sell Sync", ["Co-sell Sync", "Delegate"])

    world.call("POST", "opportunities", json={"name": "Deal"}, headers={"CallerObjectId": seller})
    row = world.call("GET", "opportunities").json()["value"][0]

    assert refusal(refused) == (403, "0x80040220")
    assert row["_modifiedby_value"] == world.org.user("Sally Seller").id
    assert row["_modifiedonbehalfby_value"] == world.org.user("# Co-sell Sync").id


# Rows


def test_a_created_row_answers_204_with_its_address_and_has_the_system_columns(world: World) -> None:
    answer = world.call("POST", "opportunities", json={"name": "Deal", "estimatedvalue": 90, "statecode": 1})
    row = world.call("GET", answer.headers["OData-EntityId"]).json()

    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["Location"] == answer.headers["OData-EntityId"]
    assert answer.headers["OData-EntityId"].startswith(f"{world.api}/opportunities(")
    me = world.org.user("# Co-sell Sync").id
    assert row["createdon"] == row["modifiedon"] == "2026-03-01T12:00:00Z"
    assert (row["_createdby_value"], row["_modifiedby_value"], row["_ownerid_value"]) == (me, me, me)
    assert (row["statecode"], row["statuscode"]) == (0, 1)
    assert row["_transactioncurrencyid_value"] == world.org.currency("USD").id
    assert (row["estimatedvalue"], row["estimatedvalue_base"], row["exchangerate"]) == (90.0, 90.0, 1.0)
    assert row["cosell_syncwithpartnercenter"] is False
    assert row["@odata.etag"] == f'W/"{row["versionnumber"]}"'


def test_money_is_shown_with_four_decimals_and_kept_in_the_row_s_currency(world: World) -> None:
    euro, yen = world.org.currency("EUR").id, world.org.currency("JPY").id
    bind = "transactioncurrencyid@odata.bind"

    in_euro = world.create("opportunities", estimatedvalue=900.005, **{bind: f"/transactioncurrencies({euro})"})
    in_yen = world.create("opportunities", estimatedvalue=1500.4, **{bind: f"/transactioncurrencies({yen})"})
    text = world.call("GET", f"opportunities({in_euro})?$select=estimatedvalue,estimatedvalue_base").text

    assert '"estimatedvalue":900.0000,' in text
    assert '"estimatedvalue_base":1000.0000' in text
    assert world.read("opportunities", in_yen)["estimatedvalue"] == 1500


def test_exchange_rates_keep_all_their_decimals(world: World) -> None:
    world.people.set_roles("# Co-sell Sync", ["System Administrator"])
    rate = {"isocurrencycode": "CHF", "currencyprecision": 2, "exchangerate": 0.876543219}
    franc = world.create("transactioncurrencies", **rate)

    answer = world.call("GET", f"transactioncurrencies({franc})?$select=exchangerate")

    assert '"exchangerate":0.876543219,' in answer.text


def test_a_representation_is_returned_when_preferred(world: World) -> None:
    prefer = {"Prefer": "return=representation"}

    created = world.call("POST", "opportunities?$select=name", json={"name": "Deal"}, headers=prefer)
    row = created.json()
    changed = world.call(
        "PATCH", f"opportunities({row['opportunityid']})?$select=name", json={"name": "New"}, headers=prefer
    )

    assert created.status_code == 201
    assert "OData-EntityId" not in created.headers
    assert created.headers["Preference-Applied"] == "return=representation"
    assert set(row) == {"@odata.context", "@odata.etag", "name", "opportunityid"}
    assert created.headers["ETag"] == row["@odata.etag"]
    assert (changed.status_code, changed.json()["name"]) == (200, "New")
    assert changed.headers["ETag"] != created.headers["ETag"]


def test_answers_carry_the_protocol_headers(world: World) -> None:
    answer = world.call("GET", "opportunities")

    assert answer.headers["OData-Version"] == "4.0"
    assert answer.headers["Content-Type"] == "application/json; odata.metadata=minimal"
    assert answer.headers["x-ms-service-request-id"]


def test_every_write_moves_the_version_even_when_nothing_changes(world: World) -> None:
    row_id = world.create("opportunities", name="Deal")
    before = world.read("opportunities", row_id)
    world.clock.advance(60)

    answer = world.call("PATCH", f"opportunities({row_id})", json={"name": "Deal"}, headers={"If-Match": "*"})
    after = world.read("opportunities", row_id)

    assert answer.status_code == 204
    assert answer.headers["OData-EntityId"] == f"{world.api}/opportunities({row_id})"
    assert after["versionnumber"] > before["versionnumber"]
    assert after["modifiedon"] == "2026-03-01T12:01:00Z"


def test_versions_are_counted_over_the_whole_organization(world: World) -> None:
    account = world.create("accounts", name="Contoso")
    contact = world.create("contacts", lastname="Doe")

    first, second = world.read("accounts", account), world.read("contacts", contact)

    assert second["versionnumber"] == first["versionnumber"] + 1


def test_patch_without_if_match_creates_the_missing_row(world: World) -> None:
    answer = world.call("PATCH", f"opportunities({NOBODY})", json={"name": "Deal"})

    assert answer.status_code == 204
    assert world.read("opportunities", NOBODY)["name"] == "Deal"


def test_lookups_are_bound_read_cleared_and_annotated(world: World) -> None:
    account = world.create("accounts", name="Contoso")
    row_id = world.create("opportunities", **{"customerid_account@odata.bind": f"accounts({account})"})
    world.call(
        "PATCH", f"opportunities({row_id})", json={"parentaccountid@odata.bind": f"{world.api}/accounts({account})"}
    )

    row = world.call("GET", f"opportunities({row_id})", headers={"Prefer": 'odata.include-annotations="*"'}).json()
    world.call("DELETE", f"opportunities({row_id})/parentaccountid/$ref")
    world.call("PATCH", f"opportunities({row_id})", json={"customerid_account@odata.bind": None})
    cleared = world.read("opportunities", row_id)

    assert row["_customerid_value"] == row["_parentaccountid_value"] == account
    assert row[f"_customerid_value@{FORMATTED}"] == "Contoso"
    assert row["_customerid_value@Microsoft.Dynamics.CRM.lookuplogicalname"] == "account"
    assert row["_customerid_value@Microsoft.Dynamics.CRM.associatednavigationproperty"] == "customerid_account"
    assert row[f"statuscode@{FORMATTED}"] == "In Progress"
    assert cleared["_customerid_value"] is cleared["_parentaccountid_value"] is None


def test_a_single_column_can_be_read_set_and_cleared(world: World) -> None:
    row_id = world.create("opportunities", name="Deal", description="Old")

    put = world.call("PUT", f"opportunities({row_id})/name", json={"value": "New"})
    read = world.call("GET", f"opportunities({row_id})/name")
    deleted = world.call("DELETE", f"opportunities({row_id})/description")

    assert (put.status_code, read.json()["value"], deleted.status_code) == (204, "New", 204)
    assert world.read("opportunities", row_id)["description"] is None


def test_read_only_columns_are_ignored(world: World) -> None:
    row_id = world.create("opportunities", name="Deal", versionnumber=1, createdon="2001-01-01T00:00:00Z")

    row = world.read("opportunities", row_id)

    assert row["versionnumber"] > 1
    assert row["createdon"] == "2026-03-01T12:00:00Z"


def test_deleting_a_customer_deletes_its_opportunities_and_other_links_are_cleared(world: World) -> None:
    customer, parent = world.create("accounts", name="Customer"), world.create("accounts", name="Parent")
    row_id = world.create(
        "opportunities",
        **{
            "customerid_account@odata.bind": f"/accounts({customer})",
            "parentaccountid@odata.bind": f"/accounts({parent})",
        },
    )
    etag = world.etag("opportunities", row_id)

    world.call("DELETE", f"accounts({parent})")
    cleared = world.read("opportunities", row_id)
    world.call("DELETE", f"accounts({customer})")

    assert cleared["_parentaccountid_value"] is None
    assert cleared["@odata.etag"] != etag
    assert world.call("GET", f"opportunities({row_id})").status_code == 404


def test_estimated_revenue_is_overwritten_while_the_system_calculates_it(world: World) -> None:
    row_id = world.create("opportunities", estimatedvalue=10, isrevenuesystemcalculated=True)

    assert world.read("opportunities", row_id)["estimatedvalue"] == 0


# Queries


@pytest.fixture
def three_deals(world: World) -> World:
    account = world.create("accounts", name="O'Brien")
    for name, value, close in (("Alpha", 10.5, "2026-05-01"), ("beta", 20, "2026-06-01"), ("Gamma", None, None)):
        world.create(
            "opportunities", name=name, estimatedvalue=value, estimatedclosedate=close,
            cosell_syncwithpartnercenter=name == "beta",
            **{"customerid_account@odata.bind": f"/accounts({account})" if name == "Alpha" else None},
        )  # fmt: skip
        world.clock.advance(60)
    return world


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("statecode eq 0", ["Alpha", "beta", "Gamma"]),
        ("name eq 'alpha'", ["Alpha"]),
        ("name ne 'alpha'", ["beta", "Gamma"]),
        ("estimatedvalue gt 10.5", ["beta"]),
        ("estimatedvalue le 20", ["Alpha", "beta"]),
        ("estimatedvalue ne 20", ["Alpha", "Gamma"]),
        ("estimatedvalue eq null", ["Gamma"]),
        ("estimatedclosedate ge 2026-05-02", ["beta"]),
        ("modifiedon ge 2026-03-01T12:01:00Z", ["beta", "Gamma"]),
        ("cosell_syncwithpartnercenter eq true", ["beta"]),
        ("contains(name,'a') and (startswith(name,'A') or endswith(name,'mma'))", ["Alpha", "Gamma"]),
        ("not contains(name,'et')", ["Alpha", "Gamma"]),
        ("customerid_account/name eq 'O''Brien'", ["Alpha"]),
        ("_customerid_value ne null", ["Alpha"]),
        ("Microsoft.Dynamics.CRM.In(PropertyName='name',PropertyValues=['alpha','Gamma'])", ["Alpha", "Gamma"]),
        ("Microsoft.Dynamics.CRM.In(PropertyName='name',PropertyValues=['beta'])", ["beta"]),
        ("Microsoft.Dynamics.CRM.NotIn(PropertyName='name',PropertyValues=['beta'])", ["Alpha", "Gamma"]),
    ],
)
def test_a_filter_finds_the_rows_it_describes(three_deals: World, expression: str, names: list[str]) -> None:
    answer = three_deals.call("GET", "opportunities", params={"$filter": expression, "$orderby": "createdon"})

    assert [row["name"] for row in answer.json()["value"]] == names


def test_a_lookup_is_filtered_by_a_bare_guid(three_deals: World) -> None:
    account = three_deals.org.where("account")[0].id

    answer = three_deals.call("GET", "opportunities", params={"$filter": f"_customerid_value eq {account}"})

    assert [row["name"] for row in answer.json()["value"]] == ["Alpha"]


@pytest.mark.parametrize(
    ("order", "names"),
    [
        ("name desc", ["Gamma", "beta", "Alpha"]),
        ("estimatedvalue", ["Gamma", "Alpha", "beta"]),
        ("estimatedvalue desc,name", ["beta", "Alpha", "Gamma"]),
        ("statecode asc,modifiedon desc", ["Gamma", "beta", "Alpha"]),
    ],
)
def test_rows_come_in_the_order_asked_for(three_deals: World, order: str, names: list[str]) -> None:
    whole = three_deals.call("GET", "opportunities", params={"$orderby": order}).json()["value"]
    top = three_deals.call("GET", "opportunities", params={"$orderby": order, "$top": "2"}).json()["value"]

    assert [row["name"] for row in whole] == names
    assert [row["name"] for row in top] == names[:2]


@pytest.mark.parametrize("order", [None, "estimatedvalue desc", "modifiedon", "name"])
def test_pages_follow_each_other_without_gap_or_repeat(three_deals: World, order: str | None) -> None:
    options = {"$select": "name", "$orderby": order} if order else {"$select": "name"}
    prefer = {"Prefer": "odata.maxpagesize=1"}
    whole = three_deals.call("GET", "opportunities", params=options).json()["value"]

    answer = three_deals.call("GET", "opportunities", params=options, headers=prefer)
    paged = answer.json()["value"]
    while link := answer.json().get("@odata.nextLink"):
        answer = three_deals.call("GET", link, headers=prefer)
        paged += answer.json()["value"]

    assert paged == whole
    assert len(paged) == 3


def test_a_next_link_carries_an_untracked_cookie_and_survives_deletions(three_deals: World) -> None:
    prefer, options = {"Prefer": "odata.maxpagesize=2"}, {"$select": "name", "$orderby": "name"}
    page = three_deals.call("GET", "opportunities", params=options, headers=prefer).json()
    three_deals.people.delete("opportunity", page["value"][1]["opportunityid"])

    rest = three_deals.call("GET", page["@odata.nextLink"], headers=prefer).json()

    assert "istracking%3D%22False%22" in page["@odata.nextLink"]
    assert [row["name"] for row in rest["value"]] == ["Gamma"]
    assert "@odata.nextLink" not in rest


def test_a_page_size_makes_top_ineffective(three_deals: World) -> None:
    answer = three_deals.call("GET", "opportunities?$top=1", headers={"Prefer": "odata.maxpagesize=2"})

    assert len(answer.json()["value"]) == 2


def test_related_rows_are_expanded_and_counted(three_deals: World) -> None:
    options = {
        "$select": "name", "$orderby": "name", "$count": "true",
        "$expand": "customerid_account($select=name),transactioncurrencyid($select=isocurrencycode)",
    }  # fmt: skip

    body = three_deals.call("GET", "opportunities", params=options).json()

    alpha, beta, _ = body["value"]
    assert body["@odata.count"] == 3
    assert alpha["customerid_account"]["name"] == "O'Brien"
    assert alpha["transactioncurrencyid"]["isocurrencycode"] == "USD"
    assert beta["customerid_account"] is None


def test_count_is_plain_text(three_deals: World) -> None:
    answer = three_deals.call("GET", "opportunities/$count", params={"$filter": "estimatedvalue ne null"})

    assert (answer.text, answer.headers["Content-Type"]) == ("2", "text/plain")


def test_encoded_option_names_and_plus_for_blank_are_understood(three_deals: World) -> None:
    answer = three_deals.call("GET", "opportunities?%24filter=name+eq+'beta'&%24select=name")

    assert [row["name"] for row in answer.json()["value"]] == ["beta"]


# Refusals


@dataclass(frozen=True)
class Case:
    method: str
    path: str
    status: int
    code: str
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    words: str = ""


REFUSALS = {
    # addresses
    "an unknown set": Case("GET", "Opportunities", 404, "0x8006088a", words="segment 'Opportunities'"),
    "an unknown set of a row": Case("PATCH", f"deals({NOBODY})", 404, "0x8006088a", {}),
    "a missing row": Case("GET", f"opportunities({NOBODY})", 404, "0x80040217", words="Does Not Exist"),
    "deleting a missing row": Case("DELETE", f"opportunities({NOBODY})", 404, "0x80040217"),
    "patching a collection": Case("PATCH", "opportunities", 405, "0x8006088a", {}),
    "deleting a collection": Case("DELETE", "opportunities", 405, "0x8006088a"),
    "an undefined key": Case("GET", "opportunities(name='Deal')", 400, "0x80060890", words="number of key properties"),
    "an unknown column as key": Case("GET", "opportunities(nothing='x')", 400, "0x80060890"),
    "a key with a slash": Case("GET", "opportunities(cosell_referralid='a%2Fb')", 400, "0x80060888", words="dangerous"),
    "a key with an ampersand": Case("GET", "opportunities(cosell_referralid='a%26b')", 400, "0x80060888"),
    "a missing key value": Case(
        "GET", "opportunities(cosell_referralid='x')", 404, "0x80060891", words="specified key values"
    ),
    "a verb on a function": Case("POST", "WhoAmI", 404, "", {}, words="No HTTP resource"),
    "a verb on an action": Case("GET", "WinOpportunity", 404, ""),
    # query options
    "$skip": Case("GET", "opportunities?$skip=1", 400, "0x80060888", words="Skip Clause"),
    "an unknown option": Case("GET", "opportunities?$foo=1", 400, "0x80060888"),
    "an unknown column": Case("GET", "opportunities?$select=nope", 400, "0x80060888", words="property named 'nope'"),
    "the plain name of a lookup": Case("GET", "opportunities?$select=customerid", 400, "0x80060888"),
    "the name column of a lookup": Case("GET", "opportunities?$select=customeridname", 400, "0x80060888"),
    "a column in capitals": Case("GET", "opportunities?$select=Name", 400, "0x80060888"),
    "an unknown column of a row": Case("GET", "systemusers?$select=x", 400, "0x80060888"),
    "an unknown expansion": Case("GET", "opportunities?$expand=customer", 400, "0x80060888"),
    "an unknown filter column": Case("GET", "opportunities?$filter=nope eq 1", 400, "0x80060888"),
    "a filter with a syntax error": Case("GET", "opportunities?$filter=name eq", 400, "0x80060888"),
    "a quoted time": Case("GET", "opportunities?$filter=modifiedon ge '2026-01-01'", 400, "0x80060888"),
    "a quoted guid": Case("GET", f"opportunities?$filter=_ownerid_value eq '{NOBODY}'", 400, "0x80060888"),
    "text for a number": Case("GET", "opportunities?$filter=estimatedvalue gt '5'", 400, "0x80060888"),
    "the in operator": Case("GET", "opportunities?$filter=name in ('a','b')", 400, "0x80060888"),
    "an unknown order": Case("GET", "opportunities?$orderby=nope", 400, "0x80060888"),
    "a bad top": Case("GET", "opportunities?$top=-1", 400, "0x80060888"),
    "a broken cookie": Case("GET", "opportunities?$skiptoken=x", 400, "0x80040203"),
    "a cookie with a broken state": Case(
        "GET", 'opportunities?$skiptoken=<cookie pagenumber="2" pagingcookie="" istracking="True" />', 400, "0x80040203"
    ),
    "an action that is not simulated": Case("POST", "BulkDelete", 501, "0x80060888", {}),
    "what is not simulated": Case("GET", "opportunities?$apply=aggregate(x)", 501, "0x80060888"),
    # change tracking
    **{
        f"${name} with change tracking": Case(
            "GET", f"opportunities?${name}={value}", 400, "0x80060888", headers=TRACK,
            words=f'The "${name}" query parameter isn\'t supported when Change Tracking is enabled.',
        )
        for name, value in {"filter": "statecode eq 0", "orderby": "name", "expand": "ownerid", "top": "1"}.items()
    },
    "tracking a table without it": Case("GET", "accounts?$select=name", 400, "0x80060888", headers=TRACK),
    "a broken delta token": Case("GET", "opportunities?$deltatoken=x", 400, "0x80060888"),
    # payloads
    "an unknown property": Case("POST", "opportunities", 400, "0x0", {"Name": "x"}, words="Invalid property 'Name'"),
    "a plain lookup": Case("POST", "opportunities", 400, "0x0", {"customerid": NOBODY}),
    "a lookup's read name": Case("POST", "opportunities", 400, "0x80048d19", {"_customerid_value": NOBODY}),
    "an unknown binding": Case(
        "POST", "opportunities", 400, "0x80048d19", {"customerid@odata.bind": f"/accounts({NOBODY})"},
        words="An undeclared property 'customerid'",
    ),
    "a binding to a missing row": Case(
        "POST", "opportunities", 404, "0x80040217", {"parentaccountid@odata.bind": f"/accounts({NOBODY})"}
    ),
    "a binding to another table": Case(
        "POST", "opportunities", 400, "0x80048d19", {"parentaccountid@odata.bind": f"/contacts({NOBODY})"}
    ),
    "a binding to an unknown set": Case(
        "POST", "opportunities", 404, "0x8006088a", {"parentaccountid@odata.bind": f"/account({NOBODY})"}
    ),
    "a text that is too long": Case(
        "POST", "opportunities", 400, "0x80044331", {"name": "x" * 301},
        words="length of the 'name' attribute of the 'opportunity' entity exceeded the maximum allowed length of '300'",
    ),
    "a number as text": Case("POST", "opportunities", 400, "0x80048d19", {"name": 5}),
    "text as a number": Case("POST", "opportunities", 400, "0x80048d19", {"estimatedvalue": "5"}),
    "text as a flag": Case("POST", "opportunities", 400, "0x80048d19", {"cosell_syncwithpartnercenter": "true"}),
    "a label as an option": Case("POST", "opportunities", 400, "0x80048d19", {"salesstage": "Develop"}),
    "an unknown option value": Case("POST", "opportunities", 400, "0x8004431a", {"salesstage": 9}, words="picklist"),
    "a sum out of range": Case("POST", "opportunities", 400, "0x80044330", {"estimatedvalue": 1e13}),
    "a probability over 100": Case("POST", "opportunities", 400, "0x80044330", {"closeprobability": 101}),
    "a date with a time": Case(
        "POST", "opportunities", 400, "0x80048d19", {"estimatedclosedate": "2026-02-28T00:00:00Z"}
    ),
    "a time without a zone": Case("POST", "opportunitycloses", 400, "0x80048d19", {"actualend": "2026-02-28T10:00:00"}),
    "a time with offset and Z": Case(
        "POST", "opportunitycloses", 400, "0x80048d19", {"actualend": "2026-02-28T10:00:00+01:00Z"}
    ),
    "a date before 1753": Case("POST", "opportunities", 400, "0x80040239", {"estimatedclosedate": "1700-01-01"}),
    "an empty owner": Case("POST", "opportunities", 400, "0x80040203", {"ownerid@odata.bind": None}),
    "a status of another state": Case("POST", "opportunities", 400, "0x80048408", {"statuscode": 3}),
    # definitions
    "patching a definition": Case("PATCH", "EntityDefinitions(LogicalName='lead')", 405, "0x80060888", {}),
    "a missing column": Case(
        "GET", "EntityDefinitions(LogicalName='lead')/Attributes(LogicalName='x')", 404, "0x80040217"
    ),
    "a missing table": Case("GET", "EntityDefinitions(LogicalName='x')", 404, "0x80040217"),
    "an unknown property of a definition": Case("GET", "EntityDefinitions?$select=x", 400, "0x80060888"),
    "a derived property without a cast": Case(
        "GET", "EntityDefinitions(LogicalName='lead')/Attributes?$select=MaxLength", 400, "0x80060888"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS.values(), ids=REFUSALS.keys())
def test_what_the_service_refuses_is_refused_and_changes_nothing(world: World, case: Case) -> None:
    before = world.org.version

    answer = world.call(case.method, case.path, json=case.body, headers=case.headers)

    assert refusal(answer) == (case.status, case.code), answer.text
    assert case.words in answer.json()["error"]["message"]
    assert world.org.version == before


def test_a_body_that_is_not_json_is_refused(world: World) -> None:
    answer = world.call("POST", "opportunities", data=b"{name", headers={"Content-Type": "application/json"})

    assert refusal(answer) == (400, "0x80048d19")


def test_an_inactive_customer_is_refused(world: World) -> None:
    account = world.create("accounts", name="Gone")
    world.call("PATCH", f"accounts({account})", json={"statecode": 1})

    answer = world.call("POST", "opportunities", json={"customerid_account@odata.bind": f"/accounts({account})"})

    assert refusal(answer) == (400, "0x80040517")


def test_a_currency_cannot_be_cleared_while_there_is_money(world: World) -> None:
    row_id = world.create("opportunities", estimatedvalue=5)

    answer = world.call("PATCH", f"opportunities({row_id})", json={"transactioncurrencyid@odata.bind": None})

    assert refusal(answer) == (400, "0x80048cfb")


# Concurrency


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_a_write_with_the_current_etag_succeeds_and_with_an_old_one_fails(world: World, method: str) -> None:
    row_id = world.create("opportunities", name="Deal")
    old = world.etag("opportunities", row_id)
    world.people.edit("opportunity", row_id, {"name": "Changed"})
    new = world.etag("opportunities", row_id)

    refused = world.call(method, f"opportunities({row_id})", json={"name": "Late"}, headers={"If-Match": old})
    name = world.read("opportunities", row_id)["name"]
    accepted = world.call(method, f"opportunities({row_id})", json={"name": "In time"}, headers={"If-Match": new})

    assert refusal(refused) == (412, "0x80060882")
    assert name == "Changed"
    assert accepted.status_code == 204


@pytest.mark.parametrize("match", ["*", 'W/"1"'])
def test_a_conditional_update_of_a_missing_row_does_not_create_it(world: World, match: str) -> None:
    answer = world.call("PATCH", f"opportunities({NOBODY})", json={"name": "x"}, headers={"If-Match": match})

    assert refusal(answer) == (404, "0x80040217")
    assert world.org.rows["opportunity"] == {}


def test_create_only_refuses_an_existing_row(world: World) -> None:
    row_id = world.create("opportunities", name="Deal")

    answer = world.call("PATCH", f"opportunities({row_id})", json={"name": "x"}, headers={"If-None-Match": "*"})

    assert refusal(answer) == (412, "0x80040237")
    assert answer.json()["error"]["message"] == "A record with matching key values already exists."


def test_an_unchanged_row_answers_304_to_a_conditional_read(world: World) -> None:
    row_id = world.create("opportunities", name="Deal")
    etag = world.etag("opportunities", row_id)

    unchanged = world.call("GET", f"opportunities({row_id})", headers={"If-None-Match": etag})
    world.people.plugin_bumps("opportunity", row_id)
    changed = world.call("GET", f"opportunities({row_id})", headers={"If-None-Match": etag})

    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert changed.status_code == 200


def test_a_table_without_optimistic_concurrency_refuses_etags(world: World) -> None:
    row_id = world.create("opportunities", name="Deal")
    world.org.tables["opportunity"].optimistic_concurrency = False

    answer = world.call("PATCH", f"opportunities({row_id})", json={}, headers={"If-Match": 'W/"1"'})

    assert refusal(answer) == (400, "0x8006088d")


# Alternate keys


def test_upsert_by_key_creates_once_and_then_updates(world: World) -> None:
    prefer = {"Prefer": "return=representation"}
    path = "opportunities(cosell_referralid='3f2c')"

    created = world.call("PATCH", path, json={"name": "Deal"}, headers=prefer)
    updated = world.call("PATCH", path, json={"name": "New", "cosell_referralid": "other"}, headers=prefer)
    plain = world.call("PATCH", path, json={"name": "Newer"})

    assert (created.status_code, created.json()["cosell_referralid"]) == (201, "3f2c")
    assert (updated.status_code, updated.json()["cosell_referralid"]) == (200, "3f2c")
    assert updated.json()["opportunityid"] == created.json()["opportunityid"]
    assert plain.status_code == 204
    assert plain.headers["OData-EntityId"] == f"{world.api}/{path}"


def test_a_new_row_takes_key_values_of_the_body_before_those_of_the_address(world: World) -> None:
    world.call("PATCH", "opportunities(cosell_referralid='one')", json={"cosell_referralid": "two"})

    assert world.call("GET", "opportunities(cosell_referralid='one')").status_code == 404
    assert world.call("GET", "opportunities(cosell_referralid='two')").status_code == 200


def test_update_only_by_key_does_not_create(world: World) -> None:
    answer = world.call("PATCH", "opportunities(cosell_referralid='x')", json={"name": "x"}, headers={"If-Match": "*"})

    assert refusal(answer) == (404, "0x80060891")


@pytest.mark.parametrize("by", ["post", "patch"])
def test_a_second_row_with_the_same_key_is_refused(world: World, by: str) -> None:
    world.create("opportunities", cosell_referralid="Same")
    other = world.create("opportunities", name="Other")

    if by == "post":
        answer = world.call("POST", "opportunities", json={"cosell_referralid": "same"})
    else:
        answer = world.call("PATCH", f"opportunities({other})", json={"cosell_referralid": "same"})

    assert refusal(answer) == (412, "0x80060892")
    assert len(world.org.rows["opportunity"]) == 2


def test_a_primary_key_can_be_given_once(world: World) -> None:
    world.create("opportunities", opportunityid=NOBODY, name="Deal")

    answer = world.call("POST", "opportunities", json={"opportunityid": NOBODY})

    assert refusal(answer) == (412, "0x80040237")


def test_a_key_value_is_free_again_after_the_row_is_deleted_changed_or_undone(world: World) -> None:
    first = world.create("opportunities", cosell_referralid="one")
    second = world.create("opportunities", cosell_referralid="two")
    doomed = [{**OPPORTUNITY_TYPE, "cosell_referralid": "three"}, {**OPPORTUNITY_TYPE, "nope": 1}]

    world.call("DELETE", f"opportunities({first})")
    world.call("PATCH", f"opportunities({second})", json={"cosell_referralid": "moved"})
    world.call("POST", f"{BULK}CreateMultiple", json={"Targets": doomed})
    answers = [world.call("POST", "opportunities", json={"cosell_referralid": key}) for key in ("one", "two", "three")]
    taken = world.call("POST", "opportunities", json={"cosell_referralid": "moved"})

    assert [answer.status_code for answer in answers] == [204, 204, 204]
    assert refusal(taken) == (412, "0x80060892")


def test_emptying_a_state_changes_nothing(world: World) -> None:
    row_id = world.create("opportunities", name="Deal")

    answer = world.call("PATCH", f"opportunities({row_id})", json={"statecode": None, "statuscode": None})

    assert answer.status_code == 204
    assert world.read("opportunities", row_id)["statuscode"] == 1


def test_rows_without_a_key_value_are_not_compared(world: World) -> None:
    world.create("opportunities", name="One")
    world.create("opportunities", name="Two")

    assert len(world.org.rows["opportunity"]) == 2


def test_a_row_can_be_bound_by_its_key_and_quotes_are_doubled(world: World) -> None:
    world.create("opportunities", cosell_referralid="it's")

    found = world.call("GET", "opportunities(cosell_referralid='it''s')?$select=name")
    close = {"opportunityid@odata.bind": "/opportunities(cosell_referralid='it''s')", "subject": "x"}
    won = world.call("POST", "WinOpportunity", json={"Status": 3, "OpportunityClose": close})

    assert (found.status_code, won.status_code) == (200, 204)


# Change tracking


def test_the_baseline_shows_every_row_and_the_delta_what_changed_since(world: World) -> None:
    first, second = world.create("opportunities", name="First"), world.create("opportunities", name="Second")
    baseline = world.call("GET", "opportunities?$select=name", headers=TRACK)
    world.people.edit("opportunity", first, {"description": "outside the select"})
    third = world.create("opportunities", name="Third")
    world.people.edit("opportunity", first, {"name": "First, again"})
    world.people.delete("opportunity", second)

    delta = world.call("GET", baseline.json()["@odata.deltaLink"]).json()
    empty = world.call("GET", delta["@odata.deltaLink"]).json()

    assert {row["opportunityid"] for row in baseline.json()["value"]} == {first, second}
    assert baseline.headers["Preference-Applied"] == "odata.track-changes"
    assert delta["@odata.context"] == f"{world.api}/$metadata#opportunities(name)/$delta"
    assert [row.get("opportunityid") for row in delta["value"]] == [third, first, None]
    assert delta["value"][1]["name"] == "First, again"
    assert delta["value"][2] == {
        "@odata.context": f"{world.api}/$metadata#opportunities/$deletedEntity", "id": second, "reason": "deleted",
    }  # fmt: skip
    assert empty["value"] == []
    assert empty["@odata.deltaLink"]


def test_the_delta_token_is_a_version_and_a_time(world: World) -> None:
    link = world.delta_link()

    assert link.endswith(f"&$deltatoken={world.org.version}%2103%2F01%2F2026%2012%3A00%3A00")


def test_a_row_created_and_deleted_in_between_shows_as_a_deletion(world: World) -> None:
    link = world.delta_link()
    row_id = world.create("opportunities", name="Brief")
    world.people.delete("opportunity", row_id)

    changes = world.call("GET", link).json()["value"]

    assert [(row["id"], row["reason"]) for row in changes] == [(row_id, "deleted")]


def test_a_restored_row_has_its_old_id_and_shows_as_a_change(world: World) -> None:
    row_id = world.create("opportunities", name="Back")
    link = world.delta_link()
    world.people.delete("opportunity", row_id)

    world.people.restore(row_id)

    (change,) = world.call("GET", link).json()["value"]
    assert (change["opportunityid"], change["name"]) == (row_id, "Back")


def test_pages_of_a_baseline_carry_the_link_only_at_the_end_and_lose_no_write_in_between(world: World) -> None:
    ids = sorted(world.create("opportunities", name=f"Deal {n}") for n in range(5))
    prefer = {"Prefer": "odata.track-changes,odata.maxpagesize=2"}

    page = world.call("GET", "opportunities?$select=name", headers=prefer).json()
    seen = [row["opportunityid"] for row in page["value"]]
    world.people.edit("opportunity", ids[0], {"name": "Changed while paging"})
    while link := page.get("@odata.nextLink"):
        assert "@odata.deltaLink" not in page
        assert "istracking%3D%22True%22" in link
        page = world.call("GET", link, headers=prefer).json()
        seen += [row["opportunityid"] for row in page["value"]]
    delta = world.call("GET", page["@odata.deltaLink"]).json()

    assert seen == ids
    assert [row["name"] for row in delta["value"]] == ["Changed while paging"]


def test_a_write_between_the_pages_of_a_delta_shows_in_the_next_delta(world: World) -> None:
    link = world.delta_link()
    ids = [world.create("opportunities", name=f"Deal {n}") for n in range(3)]
    world.people.delete("opportunity", ids[1])
    prefer = {"Prefer": "odata.maxpagesize=1"}

    page = world.call("GET", link, headers=prefer).json()
    seen = page["value"]
    world.people.edit("opportunity", ids[2], {"name": "Moved on"})
    while following := page.get("@odata.nextLink"):
        page = world.call("GET", following, headers=prefer).json()
        seen += page["value"]
    later = world.call("GET", page["@odata.deltaLink"]).json()["value"]

    assert [row.get("opportunityid") or row["id"] for row in seen] == [ids[0], ids[1]]
    assert [row["name"] for row in later] == ["Moved on"]


def test_changes_can_be_counted(world: World) -> None:
    link = world.delta_link()
    row_id = world.create("opportunities", name="One")
    world.create("opportunities", name="Two")
    world.people.delete("opportunity", row_id)

    answer = world.call("GET", link.replace("opportunities?", "opportunities/$count?"))

    assert answer.text == "2"


def expire_by_time(world: World) -> None:
    world.clock.advance(timedelta(days=7, seconds=1).total_seconds())
    world.http = world.session("dynamics365")


@pytest.mark.parametrize(
    "expire",
    [
        expire_by_time,
        lambda world: world.people.expire_delta_tokens("opportunity"),
        lambda world: world.people.change_metadata("opportunity"),
    ],
    ids=["by age", "at once", "by a changed definition"],
)
def test_an_expired_delta_token_demands_a_full_sync(world: World, expire: Callable[[World], None]) -> None:
    link = world.delta_link()
    expire(world)

    expired = world.call("GET", link)
    fresh = world.call("GET", world.delta_link())

    assert refusal(expired) == (400, "0x80044352")
    assert fresh.status_code == 200


def test_the_days_of_expiry_can_be_read(world: World) -> None:
    answer = world.call("GET", "organizations?$select=name,languagecode,expirechangetrackingindays")

    assert answer.json()["value"][0]["expirechangetrackingindays"] == 7


# States


def closing(world: World, action: str, row_id: str, status: int, **close: Any) -> requests.Response:
    activity = {"subject": "Closed", "opportunityid@odata.bind": f"/opportunities({row_id})", **close}
    return world.call("POST", action, json={"Status": status, "OpportunityClose": activity})


@pytest.mark.parametrize(
    ("action", "status", "close", "expected"),
    [
        ("WinOpportunity", 3, {"actualrevenue": 125000.0, "actualend": "2026-02-28T00:00:00Z"},
            {"statecode": 1, "statuscode": 3, "actualvalue": 125000, "actualclosedate": "2026-02-28"}),
        ("WinOpportunity", -1, {},
            {"statecode": 1, "statuscode": 3, "actualvalue": 90, "actualclosedate": "2026-03-01"}),
        ("LoseOpportunity", 5, {}, {"statecode": 2, "statuscode": 5, "actualclosedate": "2026-03-01"}),
        ("LoseOpportunity", 4, {}, {"statecode": 2, "statuscode": 4}),
    ],
)  # fmt: skip
def test_closing_sets_the_state_and_keeps_the_closing_activity(
    world: World, action: str, status: int, close: dict[str, Any], expected: dict[str, Any]
) -> None:
    row_id = world.create("opportunities", name="Deal", estimatedvalue=90)

    answer = closing(world, action, row_id, status, **close)
    row = world.read("opportunities", row_id)
    activities = world.call("GET", f"opportunitycloses?$filter=_opportunityid_value eq {row_id}").json()["value"]

    assert answer.status_code == 204
    assert {name: row[name] for name in expected} == expected
    assert [(activity["subject"], activity["statecode"]) for activity in activities] == [("Closed", 1)]
    assert activities[0]["opportunitystatuscode"] == row["statuscode"]


def test_a_closed_opportunity_cannot_be_closed_again_and_leaves_no_activity(world: World) -> None:
    row_id = world.create("opportunities", name="Deal")
    closing(world, "WinOpportunity", row_id, 3)

    again = closing(world, "LoseOpportunity", row_id, 4)

    assert refusal(again) == (400, "0x80040515")
    assert len(world.org.rows["opportunityclose"]) == 1


@pytest.mark.parametrize(("action", "status"), [("WinOpportunity", 4), ("LoseOpportunity", 3), ("WinOpportunity", 99)])
def test_closing_with_a_status_of_another_state_is_refused(world: World, action: str, status: int) -> None:
    row_id = world.create("opportunities", name="Deal")

    answer = closing(world, action, row_id, status)

    assert refusal(answer) == (400, "0x80048408")
    assert world.org.rows["opportunityclose"] == {}


@pytest.mark.parametrize("body", [{}, {"Status": 3}, {"Status": 3, "OpportunityClose": {"subject": "x"}}])
def test_closing_without_its_parameters_is_refused(world: World, body: dict[str, Any]) -> None:
    answer = world.call("POST", "WinOpportunity", json=body)

    assert refusal(answer) == (400, "0x80040203")


@pytest.mark.parametrize(("state", "message"), [(1, "WinOpportunity"), (2, "LoseOpportunity")])
def test_a_plain_update_cannot_close_an_opportunity(world: World, state: int, message: str) -> None:
    row_id = world.create("opportunities", name="Deal")

    answer = world.call("PATCH", f"opportunities({row_id})", json={"statecode": state})

    assert refusal(answer) == (400, "0x80100005")
    assert message in answer.json()["error"]["message"]


def test_a_plain_update_moves_the_status_within_its_state_and_reopens(world: World) -> None:
    row_id = world.create("opportunities", name="Deal")
    on_hold = world.call("PATCH", f"opportunities({row_id})", json={"statuscode": 2})
    wrong = world.call("PATCH", f"opportunities({row_id})", json={"statuscode": 4})
    closing(world, "LoseOpportunity", row_id, 4)

    out_sold = world.call("PATCH", f"opportunities({row_id})", json={"statuscode": 5, "description": "edited closed"})
    reopened = world.call("PATCH", f"opportunities({row_id})", json={"statecode": 0, "statuscode": 1})

    assert (on_hold.status_code, out_sold.status_code, reopened.status_code) == (204, 204, 204)
    assert refusal(wrong) == (400, "0x80048408")
    row = world.read("opportunities", row_id)
    assert (row["statecode"], row["statuscode"], row["description"]) == (0, 1, "edited closed")


def test_a_plugin_may_forbid_edits_of_closed_opportunities(world: World) -> None:
    row_id = world.create("opportunities", name="Deal")
    closing(world, "WinOpportunity", row_id, 3)
    world.org.reject_closed_edits = True

    edit = world.call("PATCH", f"opportunities({row_id})", json={"description": "x"})
    reopen = world.call("PATCH", f"opportunities({row_id})", json={"statecode": 0})

    assert refusal(edit) == (400, "0x80040265")
    assert reopen.status_code == 204


LEAD_QUALIFIED = {"CreateAccount": True, "CreateContact": True, "CreateOpportunity": True, "Status": 3}


def test_qualifying_a_lead_makes_account_contact_and_opportunity(world: World) -> None:
    lead = world.create(
        "leads", subject="Migration", firstname="Ann", lastname="Doe", companyname="Contoso", estimatedamount=50,
        address1_country="DE",
    )  # fmt: skip

    answer = world.call("POST", f"leads({lead})/Microsoft.Dynamics.CRM.QualifyLead", json=LEAD_QUALIFIED)
    made = {row["@odata.type"].rpartition(".")[2]: row for row in answer.json()["value"]}
    opportunity = world.read("opportunities", made["opportunity"]["opportunityid"])
    qualified = world.read("leads", lead)

    assert answer.status_code == 200
    assert opportunity["name"] == "Migration"
    assert opportunity["estimatedvalue"] == 50
    assert opportunity["_originatingleadid_value"] == lead
    assert opportunity["_customerid_value"] == made["account"]["accountid"]
    assert world.read("accounts", made["account"]["accountid"])["address1_country"] == "DE"
    assert world.read("contacts", made["contact"]["contactid"])["fullname"] == "Ann Doe"
    assert (qualified["statecode"], qualified["statuscode"]) == (1, 3)
    assert qualified["_qualifyingopportunityid_value"] == opportunity["opportunityid"]


@pytest.mark.parametrize(
    ("body", "code"),
    [({**LEAD_QUALIFIED, "Status": 1}, "0x80048408"), ({"Status": 3}, "0x80040203")],
)
def test_a_wrong_qualification_is_refused_and_makes_nothing(world: World, body: dict[str, Any], code: str) -> None:
    lead = world.create("leads", lastname="Doe")

    answer = world.call("POST", f"leads({lead})/Microsoft.Dynamics.CRM.QualifyLead", json=body)

    assert refusal(answer) == (400, code)
    assert world.org.rows["account"] == world.org.rows["opportunity"] == {}


def test_a_closed_lead_changes_state_only_by_way_of_open(world: World) -> None:
    lead = world.create("leads", lastname="Doe")
    disqualified = world.call("PATCH", f"leads({lead})", json={"statecode": 2, "statuscode": 5})

    across = world.call("PATCH", f"leads({lead})", json={"statecode": 1, "statuscode": 3})
    qualify = world.call("POST", f"leads({lead})/Microsoft.Dynamics.CRM.QualifyLead", json=LEAD_QUALIFIED)
    reopened = world.call("PATCH", f"leads({lead})", json={"statecode": 0, "statuscode": 1})

    assert (disqualified.status_code, reopened.status_code) == (204, 204)
    assert refusal(across) == refusal(qualify) == (400, "0x80040519")


# Limits and faults


@pytest.mark.parametrize(
    ("limit", "code"),
    [("RequestLimit", "0x80072322"), ("ExecutionTimeLimit", "0x80072321"), ("ConcurrencyLimit", "0x80072326")],
)
def test_throttling_says_which_limit_and_when_to_come_back(world: World, limit: str, code: str) -> None:
    world.sim.limit = limit
    world.sim.faults.add("throttle", retry_after_s=17)

    throttled, after = world.call("GET", "opportunities"), world.call("GET", "opportunities")

    assert refusal(throttled) == (429, code)
    assert throttled.headers["Retry-After"] == "17"
    assert after.status_code == 200


@pytest.mark.parametrize(("kind", "rows"), [("drop_before", 0), ("drop_after", 1)])
def test_a_dropped_connection_has_committed_or_not(world: World, kind: str, rows: int) -> None:
    world.sim.faults.add(kind, method="POST")

    with pytest.raises(requests.ConnectionError):
        world.call("POST", "opportunities", json={"name": "Deal"})

    assert len(world.org.rows["opportunity"]) == rows


# Batches


def batch(world: World, *parts: str, prefer: str = "", boundary: str = "batch_1") -> requests.Response:
    body = "".join(f"--{boundary}\r\n{part}\r\n" for part in parts) + f"--{boundary}--\r\n"
    headers = {"Content-Type": f'multipart/mixed; boundary="{boundary}"', "Prefer": prefer}
    return world.call("POST", "$batch", data=body.encode(), headers=headers)


def part(method: str, path: str, body: Any = None, content_id: int | None = None) -> str:
    lines = ["Content-Type: application/http", "Content-Transfer-Encoding: binary"]
    lines += [f"Content-ID: {content_id}"] if content_id else []
    lines += ["", f"{method} {path} HTTP/1.1"]
    lines += ["Content-Type: application/json; type=entry"] if body is not None else []
    return "\r\n".join([*lines, "", json.dumps(body) if body is not None else ""])


def change_set(*parts: str) -> str:
    inner = "".join(f"--changeset_1\r\n{p}\r\n" for p in parts)
    return f'Content-Type: multipart/mixed; boundary="changeset_1"\r\n\r\n{inner}--changeset_1--\r\n'


def statuses(answer: requests.Response) -> list[int]:
    return [int(line.split()[1]) for line in answer.text.splitlines() if line.startswith("HTTP/1.1 ")]


def test_a_batch_answers_each_part_in_order(world: World) -> None:
    answer = batch(
        world,
        part("POST", "/api/data/v9.2/accounts", {"name": "One"}),
        part("GET", f"{world.api}/accounts?$select=name&$filter=name eq 'One'"),
        part("PATCH", "opportunities(cosell_referralid='r1')", {"name": "Deal"}),
    )

    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("multipart/mixed; boundary=batchresponse_")
    assert statuses(answer) == [204, 200, 204]
    assert '"name":"One"' in answer.text


@pytest.mark.parametrize(
    ("prefer", "status", "inner", "accounts"),
    [("", 404, [204, 404], 1), ("odata.continue-on-error", 200, [204, 404, 204], 2)],
)
def test_a_failing_part_stops_the_batch_unless_told_to_go_on(
    world: World, prefer: str, status: int, inner: list[int], accounts: int
) -> None:
    answer = batch(
        world,
        part("POST", "/api/data/v9.2/accounts", {"name": "One"}),
        part("DELETE", f"/api/data/v9.2/accounts({NOBODY})"),
        part("POST", "/api/data/v9.2/accounts", {"name": "Two"}),
        prefer=prefer,
    )

    assert answer.status_code == status
    assert statuses(answer) == inner
    assert len(world.org.rows["account"]) == accounts


def test_a_change_set_is_all_or_nothing(world: World) -> None:
    good = part("POST", "/api/data/v9.2/accounts", {"name": "One"}, 1)
    bad = part("POST", "/api/data/v9.2/accounts", {"nope": 1}, 2)

    failed = batch(world, change_set(good, bad))
    left = dict(world.org.rows["account"])
    done = batch(world, change_set(good, part("PATCH", "$1", {"name": "Two"}, 2)))

    assert (failed.status_code, statuses(failed), left) == (400, [400], {})
    assert (done.status_code, statuses(done)) == (200, [204, 204])
    assert [row.values["name"] for row in world.org.rows["account"].values()] == ["Two"]


def test_a_later_part_refers_to_an_earlier_one_by_its_content_id(world: World) -> None:
    deal = {"name": "Deal", "customerid_account@odata.bind": "$1"}

    answer = batch(
        world,
        change_set(
            part("POST", "/api/data/v9.2/accounts", {"name": "One"}, 1),
            part("POST", "/api/data/v9.2/opportunities", deal, 2),
        ),
    )

    assert statuses(answer) == [204, 204]
    assert world.org.where("opportunity")[0].values["customerid"].table == "account"


@pytest.mark.parametrize(
    ("inner", "code"),
    [
        (change_set(part("GET", "/api/data/v9.2/accounts", None, 1)), "0x80040203"),
        (change_set(part("POST", "/api/data/v9.2/accounts", {"name": "x"})), "0x80040203"),
        (part("PATCH", "$7", {"name": "x"}), "0x80040203"),
        (part("POST", "/api/data/v9.2/$batch", {}), "0x80040203"),
        (part("GET", "/api/data/v9.2/accounts").replace("\r\n", "\n"), "0x80048d19"),
        ("Content-Type: application/http\r\n\r\nGET /api/data/v9.2/accounts HTTP/1.1", "0x80048d19"),
    ],
    ids=["GET in a change set", "no Content-ID", "unknown reference", "nested", "bare line feeds", "no blank lines"],
)
def test_a_malformed_batch_is_refused_whole(world: World, inner: str, code: str) -> None:
    answer = batch(world, inner)

    assert refusal(answer) == (400, code)
    assert world.org.rows["account"] == {}


def test_a_batch_that_does_not_end_in_a_line_end_is_refused(world: World) -> None:
    body = f"--b\r\n{part('GET', '/api/data/v9.2/accounts')}\r\n--b--"

    answer = world.call("POST", "$batch", data=body, headers={"Content-Type": "multipart/mixed; boundary=b"})

    assert refusal(answer) == (400, "0x80048d19")


def test_a_batch_holds_at_most_a_thousand_operations(world: World) -> None:
    answer = batch(world, *[part("GET", "/api/data/v9.2/accounts")] * 1001)

    assert refusal(answer) == (400, "0x80040203")


OPPORTUNITY_TYPE = {"@odata.type": "Microsoft.Dynamics.CRM.opportunity"}
BULK = "opportunities/Microsoft.Dynamics.CRM."


def test_bulk_actions_create_update_and_upsert(world: World) -> None:
    created = world.call("POST", f"{BULK}CreateMultiple", json={"Targets": [{**OPPORTUNITY_TYPE, "name": "One"}] * 2})
    first, second = created.json()["Ids"]

    updated = world.call(
        "POST", f"{BULK}UpdateMultiple", json={"Targets": [{**OPPORTUNITY_TYPE, "opportunityid": first, "name": "New"}]}
    )
    targets = [
        {**OPPORTUNITY_TYPE, "@odata.id": "opportunities(cosell_referralid='r')", "name": "Keyed"},
        {**OPPORTUNITY_TYPE, "opportunityid": second, "name": "Second"},
    ]
    upserted = world.call("POST", f"{BULK}UpsertMultiple", json={"Targets": targets})

    assert (created.status_code, updated.status_code, upserted.status_code) == (200, 204, 204)
    names = sorted(row.values["name"] for row in world.org.rows["opportunity"].values())
    assert names == ["Keyed", "New", "Second"]


@pytest.mark.parametrize(
    ("action", "targets", "expected"),
    [
        ("CreateMultiple", [{"name": "x"}], (400, "0x80048d19")),
        ("CreateMultiple", [], (400, "0x80040203")),
        ("CreateMultiple", [{**OPPORTUNITY_TYPE, "name": "x"}, {**OPPORTUNITY_TYPE, "nope": 1}], (400, "0x0")),
        ("UpdateMultiple", [{**OPPORTUNITY_TYPE, "opportunityid": NOBODY}], (404, "0x80040217")),
        ("UpsertMultiple", [{**OPPORTUNITY_TYPE, "name": "x"}], (400, "0x80040203")),
        ("UpsertMultiple", [{**OPPORTUNITY_TYPE, "@odata.id": "opportunities(cosell_referralid='r')",
            "cosell_referralid": "r"}], (400, "0x80040203")),
    ],
)  # fmt: skip
def test_a_bad_bulk_target_undoes_the_whole_action(
    world: World, action: str, targets: list[dict[str, Any]], expected: tuple[int, str]
) -> None:
    answer = world.call("POST", f"{BULK}{action}", json={"Targets": targets})

    assert refusal(answer) == expected
    assert world.org.rows["opportunity"] == {}


# Definitions

STRING = {
    "@odata.type": "Microsoft.Dynamics.CRM.StringAttributeMetadata",
    "SchemaName": "new_ReferralId",
    "DisplayName": {"LocalizedLabels": [{"Label": "Referral", "LanguageCode": 1033}]},
    "RequiredLevel": {"Value": "None"},
    "MaxLength": 100,
    "FormatName": {"Value": "Text"},
}
OPPORTUNITY = "EntityDefinitions(LogicalName='opportunity')"
COLUMN = f"{OPPORTUNITY}/Attributes(LogicalName='new_referralid')"


def label(text: str, language: int = 1033) -> dict[str, Any]:
    return {"LocalizedLabels": [{"Label": text, "LanguageCode": language}]}


def attribute(kind: str, name: str, **more: Any) -> dict[str, Any]:
    return {"@odata.type": f"Microsoft.Dynamics.CRM.{kind}AttributeMetadata", "SchemaName": name, **more}


def test_a_bare_organization_has_none_of_the_product_s_columns(bare: World) -> None:
    column = bare.call("GET", f"{OPPORTUNITY}/Attributes(LogicalName='cosell_referralid')")
    write = bare.call("POST", "opportunities", json={"cosell_referralid": "x"})
    table = bare.call("GET", f"{OPPORTUNITY}?$select=ChangeTrackingEnabled,IsOptimisticConcurrencyEnabled").json()

    assert refusal(column) == (404, "0x80040217")
    assert refusal(write) == (400, "0x0")
    assert (table["ChangeTrackingEnabled"], table["IsOptimisticConcurrencyEnabled"]) == (False, True)


@pytest.mark.parametrize("table", ["opportunity", "lead"])
def test_a_provisioned_organization_has_the_columns_the_key_and_change_tracking(world: World, table: str) -> None:
    path = f"EntityDefinitions(LogicalName='{table}')"

    definition = world.call("GET", path).json()
    key = world.call("GET", f"{path}/Keys(LogicalName='cosell_referralkey')").json()
    help_path = f"{path}/Attributes(LogicalName='cosell_howcanmicrosofthelp')"
    cast = f"{help_path}/Microsoft.Dynamics.CRM.PicklistAttributeMetadata?$select=LogicalName&$expand=OptionSet"
    options = world.call("GET", cast).json()["OptionSet"]["Options"]

    assert definition["ChangeTrackingEnabled"] is True
    assert (key["EntityKeyIndexStatus"], key["KeyAttributes"]) == ("Active", ["cosell_referralid"])
    assert [option["Value"] for option in options] == list(range(727000001, 727000007))
    assert options[0]["Label"]["UserLocalizedLabel"]["Label"] == "Workload Specific Value Proposition"


def test_a_column_is_created_used_widened_and_deleted(bare: World) -> None:
    world = bare
    created = world.call("POST", f"{OPPORTUNITY}/Attributes", json=STRING)
    row_id = world.create("opportunities", new_referralid="x" * 100)
    too_long = world.call("PATCH", f"opportunities({row_id})", json={"new_referralid": "x" * 101})

    full = world.call("GET", f"{COLUMN}/Microsoft.Dynamics.CRM.StringAttributeMetadata").json()
    put = world.call("PUT", COLUMN, json={**full, "@odata.type": STRING["@odata.type"], "MaxLength": 200})
    longer = world.call("PATCH", f"opportunities({row_id})", json={"new_referralid": "x" * 101})
    deleted = world.call("DELETE", COLUMN)

    assert (created.status_code, put.status_code, longer.status_code, deleted.status_code) == (204, 204, 204, 204)
    assert f"/Attributes({full['MetadataId']})" in created.headers["OData-EntityId"]
    assert refusal(too_long) == (400, "0x80044331")
    assert "new_referralid" not in world.read("opportunities", row_id)


@pytest.mark.parametrize(
    ("body", "good", "bad"),
    [
        (attribute("Memo", "new_Notes", MaxLength=5), "12345", "123456"),
        (attribute("Boolean", "new_Flag", DefaultValue=True, OptionSet={
            "TrueOption": {"Value": 1, "Label": label("On")}, "FalseOption": {"Value": 0, "Label": label("Off")}}),
            False, 0),
        (attribute("Picklist", "new_Choice", OptionSet={"Options": [{"Value": 727000000, "Label": label("A")}]}),
            727000000, 1),
        (attribute("DateTime", "new_When", Format="DateAndTime"), "2026-01-01T00:00:00Z", "2026-01-01"),
        (attribute("DateTime", "new_Day", Format="DateOnly"), "2026-01-01", "2026-01-01T00:00:00Z"),
        (attribute("Integer", "new_Count", MinValue=0, MaxValue=5), 5, 6),
        (attribute("Decimal", "new_Share", MinValue=0, MaxValue=1, Precision=2), 0.5, 2),
        (attribute("Money", "new_Value", PrecisionSource=2), 5, "5"),
    ],
    ids=lambda value: value["SchemaName"] if isinstance(value, dict) else "",
)  # fmt: skip
def test_each_type_of_column_can_be_added(bare: World, body: dict[str, Any], good: Any, bad: Any) -> None:
    name = body["SchemaName"].lower()

    created = bare.call("POST", f"{OPPORTUNITY}/Attributes", json=body)
    row_id = bare.create("opportunities", **{name: good})
    refused = bare.call("POST", "opportunities", json={name: bad})

    assert created.status_code == 204
    assert bare.read("opportunities", row_id)[name] == good
    assert refused.status_code == 400


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (attribute("String", "cosell_ReferralId"), 400, "0x80047013"),
        (attribute("String", "unknown_Name"), 400, "0x80040203"),
        (attribute("String", "new_Long", MaxLength=4001), 400, "0x80040203"),
        (attribute("Picklist", "new_Choice"), 400, "0x80040203"),
        (attribute("Boolean", "new_Flag"), 400, "0x80040203"),
        (attribute("File", "new_File"), 501, "0x80060888"),
    ],
)
def test_a_wrong_column_definition_is_refused(world: World, body: dict[str, Any], status: int, code: str) -> None:
    answer = world.call("POST", f"{OPPORTUNITY}/Attributes", json=body)

    assert refusal(answer) == (status, code)


def test_a_change_of_the_definition_needs_a_customizer(world: World) -> None:
    answer = world.call("POST", f"{OPPORTUNITY}/Attributes", json=STRING, app="seller")

    assert refusal(answer) == (403, "0x80040220")


@pytest.mark.parametrize(("merge", "languages"), [("true", {1031, 1033}), (None, {1031})])
def test_labels_of_other_languages_survive_only_when_merged(
    bare: World, merge: str | None, languages: set[int]
) -> None:
    bare.call("POST", f"{OPPORTUNITY}/Attributes", json=STRING)
    changed = {**STRING, "DisplayName": label("Verweis", 1031)}

    bare.call("PUT", COLUMN, json=changed, headers={"MSCRM.MergeLabels": merge} if merge else {})
    labels = bare.call("GET", COLUMN).json()["DisplayName"]["LocalizedLabels"]

    assert {text["LanguageCode"] for text in labels} == languages


def test_options_of_an_existing_choice_are_added_by_their_own_message_and_not_by_the_definition(world: World) -> None:
    path = f"{OPPORTUNITY}/Attributes(LogicalName='cosell_howcanmicrosofthelp')"
    new = {"Value": 727000007, "Label": label("More")}
    option = {"EntityLogicalName": "opportunity", "AttributeLogicalName": "cosell_howcanmicrosofthelp", **new}
    definition = attribute("Picklist", "cosell_howcanmicrosofthelp", OptionSet={"Options": [new]})
    deal = {"cosell_howcanmicrosofthelp": 727000007}

    put = world.call("PUT", path, json=definition)
    before = world.call("POST", "opportunities", json=deal)
    inserted = world.call("POST", "InsertOptionValue", json=option)
    after = world.call("POST", "opportunities", json=deal)
    again = world.call("POST", "InsertOptionValue", json=option)

    assert put.status_code == 204
    assert refusal(before) == (400, "0x8004431a")
    assert inserted.json()["NewOptionValue"] == 727000007
    assert after.status_code == 204
    assert refusal(again) == (400, "0x80040203")


def test_a_type_of_column_cannot_be_changed(world: World) -> None:
    body = attribute("Memo", "cosell_referralid", MaxLength=100)

    answer = world.call("PUT", f"{OPPORTUNITY}/Attributes(LogicalName='cosell_referralid')", json=body)

    assert refusal(answer) == (400, "0x80040203")


def test_a_standard_column_or_one_of_a_key_cannot_be_deleted(world: World) -> None:
    standard = world.call("DELETE", f"{OPPORTUNITY}/Attributes(LogicalName='name')")
    in_key = world.call("DELETE", f"{OPPORTUNITY}/Attributes(LogicalName='cosell_referralid')")

    assert refusal(standard) == refusal(in_key) == (400, "0x80040203")


def test_a_key_works_only_when_its_index_is_active(bare: World) -> None:
    bare.call("POST", f"{OPPORTUNITY}/Attributes", json=STRING)
    body = {"SchemaName": "new_ReferralKey", "DisplayName": label("Referral"), "KeyAttributes": ["new_referralid"]}
    path = f"{OPPORTUNITY}/Keys(LogicalName='new_referralkey')"

    created = bare.call("POST", f"{OPPORTUNITY}/Keys", json=body)
    pending = bare.call("GET", path).json()["EntityKeyIndexStatus"]
    early = bare.call("PATCH", "opportunities(new_referralid='r')", json={"name": "x"})
    bare.clock.advance(3)
    active = bare.call("GET", path).json()["EntityKeyIndexStatus"]
    upsert = bare.call("PATCH", "opportunities(new_referralid='r')", json={"name": "x"})

    assert (created.status_code, pending, active) == (204, "Pending", "Active")
    assert refusal(early) == (400, "0x80060890")
    assert upsert.status_code == 204


def test_a_key_over_duplicate_rows_fails_until_they_are_gone_and_it_is_reactivated(bare: World) -> None:
    bare.call("POST", f"{OPPORTUNITY}/Attributes", json=STRING)
    bare.create("opportunities", new_referralid="same")
    double = bare.create("opportunities", new_referralid="same")
    path = f"{OPPORTUNITY}/Keys(LogicalName='new_referralkey')"
    again = {"EntityLogicalName": "opportunity", "EntityKeyLogicalName": "new_referralkey"}
    bare.call(
        "POST", f"{OPPORTUNITY}/Keys", json={"SchemaName": "new_ReferralKey", "KeyAttributes": ["new_referralid"]}
    )
    bare.clock.advance(3)
    failed = bare.call("GET", path).json()["EntityKeyIndexStatus"]

    bare.people.delete("opportunity", double)
    reactivated = bare.call("POST", "ReactivateEntityKey", json=again)
    bare.clock.advance(3)
    active = bare.call("GET", path).json()["EntityKeyIndexStatus"]
    needless = bare.call("POST", "ReactivateEntityKey", json=again)

    assert (failed, reactivated.status_code, active) == ("Failed", 204, "Active")
    assert refusal(needless) == (400, "0x80060897")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"SchemaName": "cosell_ReferralKey", "KeyAttributes": ["cosell_microsoftcrmid"]}, "0x80060893"),
        ({"SchemaName": "cosell_Other", "KeyAttributes": ["cosell_referralid"]}, "0x80060894"),
        ({"SchemaName": "cosell_Other", "KeyAttributes": ["nope"]}, "0x80040203"),
        ({"SchemaName": "cosell_Other", "KeyAttributes": []}, "0x80040203"),
        ({"SchemaName": "cosell_Other", "KeyAttributes": ["cosell_audit"]}, "0x80040203"),
        ({"SchemaName": "cosell_Other", "KeyAttributes": ["cosell_referrallink"]}, "0x80040203"),
    ],
)
def test_a_wrong_key_definition_is_refused(world: World, body: dict[str, Any], code: str) -> None:
    answer = world.call("POST", f"{OPPORTUNITY}/Keys", json=body)

    assert refusal(answer) == (400, code)


def test_change_tracking_is_switched_on_by_the_full_definition_and_never_off(bare: World) -> None:
    full = bare.call("GET", OPPORTUNITY).json()

    partial = bare.call("PUT", OPPORTUNITY, json={"ChangeTrackingEnabled": True})
    before = bare.call("GET", "opportunities?$select=name", headers=TRACK)
    enabled = bare.call("PUT", OPPORTUNITY, json={**full, "ChangeTrackingEnabled": True})
    after = bare.call("GET", "opportunities?$select=name", headers=TRACK)
    disabled = bare.call("PUT", OPPORTUNITY, json=full)

    assert full["CanChangeTrackingBeEnabled"]["Value"] is True
    assert refusal(partial) == refusal(disabled) == (400, "0x80040203")
    assert before.status_code == 400
    assert (enabled.status_code, after.status_code) == (204, 200)


def test_publisher_and_solution_are_rows_and_changes_go_into_the_solution_named(bare: World) -> None:
    prefix = {"uniquename": "acme", "customizationprefix": "acme", "customizationoptionvalueprefix": 72700}
    publisher = bare.create("publishers", friendlyname="Acme", **prefix)
    bind = {"publisherid@odata.bind": f"/publishers({publisher})"}
    bare.create("solutions", uniquename="AcmeCosell", friendlyname="Acme", version="1.0.0.0", **bind)
    body, path = attribute("String", "acme_Name"), f"{OPPORTUNITY}/Attributes"

    named = bare.call("POST", path, json=body, headers={"MSCRM.SolutionUniqueName": "AcmeCosell"})
    unknown = bare.call(
        "POST", path, json=attribute("String", "acme_Two"), headers={"MSCRM.SolutionUniqueName": "Nope"}
    )
    published = bare.call("POST", "PublishXml", json={"ParameterXml": "<importexportxml/>"})
    found = bare.call("GET", "publishers?$select=customizationprefix&$filter=uniquename eq 'acme'").json()["value"]

    assert (named.status_code, published.status_code) == (204, 204)
    assert bare.org.components == {"AcmeCosell": ["opportunity.acme_name"]}
    assert refusal(unknown) == (400, "0x80040203")
    assert bare.org.published == ["<importexportxml/>"]
    assert found[0]["customizationprefix"] == "acme"


def test_an_administrator_makes_an_application_user_and_grants_a_role(world: World) -> None:
    world.people.set_roles("# Co-sell Sync", ["System Administrator"])
    app = world.entra.app("partner_center")
    role = world.call("GET", "roles?$filter=name eq 'Co-sell Sync'").json()["value"][0]["roleid"]

    user = world.create("systemusers", applicationid=app.client_id)
    granted = world.call(
        "POST",
        f"systemusers({user})/systemuserroles_association/$ref",
        json={"@odata.id": f"{world.api}/roles({role})"},
    )
    held = world.call("GET", f"systemusers({user})/systemuserroles_association?$select=name").json()["value"]

    assert granted.status_code == 204
    assert [row["name"] for row in held] == ["Co-sell Sync"]


# Other people


def test_a_user_works_under_the_same_rules_and_their_name_is_kept(world: World) -> None:
    row_id = world.people.create("opportunity", {"name": "Deal", "estimatedvalue": 12.5})
    world.people.edit("opportunity", row_id, {"description": "by hand"}, user="Ada Admin")

    row = world.read("opportunities", row_id)

    assert row["_createdby_value"] == world.org.user("Sally Seller").id
    assert row["_modifiedby_value"] == world.org.user("Ada Admin").id
    assert world.sim.log.count(path_regex="opportunities", method="POST") == 0


def test_a_plugin_follows_the_next_api_write(world: World) -> None:
    row_id = world.create("opportunities", name="Deal")
    world.people.plugin_bumps_next_write("opportunity")
    prefer = {"Prefer": "return=representation"}

    written = world.call("PATCH", f"opportunities({row_id})", json={"name": "New"}, headers=prefer)
    bumped = world.etag("opportunities", row_id)
    again = world.call("PATCH", f"opportunities({row_id})", json={"name": "Newer"}, headers=prefer)

    assert bumped != written.headers["ETag"]
    assert world.etag("opportunities", row_id) == again.headers["ETag"]


def test_merging_accounts_moves_what_points_to_the_duplicate(world: World) -> None:
    master, duplicate = world.create("accounts", name="Contoso"), world.create("accounts", name="Contoso Ltd")
    row_id = world.create("opportunities", **{"customerid_account@odata.bind": f"/accounts({duplicate})"})

    world.people.merge_accounts(master, duplicate)

    assert world.read("opportunities", row_id)["_customerid_value"] == master
    merged = world.read("accounts", duplicate)
    assert (merged["statecode"], merged["merged"], merged["_masterid_value"]) == (1, True, master)


def control(world: World, action: str, **arguments: Any) -> requests.Response:
    return world.http.post(f"{world.sim.origin}/_people/{action}", json=arguments, timeout=5)


def test_people_can_be_told_by_another_process_what_to_do(world: World) -> None:
    made = control(world, "create", table="opportunity", values={"name": "Deal"})
    row_id = made.json()["result"]

    won = control(world, "win", opportunity=row_id, actualrevenue=5)
    refused = control(world, "edit", table="opportunity", id=row_id, values={"nope": 1})
    unknown = control(world, "dance")
    wrong = control(world, "edit", table="opportunity")

    assert won.status_code == 204
    assert world.org.find("opportunity", row_id).values["statecode"] == 1
    assert refusal(refused) == (400, "0x0")
    assert (unknown.status_code, wrong.status_code) == (404, 400)


def test_the_state_can_be_read_in_a_browser(world: World) -> None:
    world.create("accounts", name="Contoso")

    state = requests.Session()
    state.mount(world.sim.origin, InProcessAdapter(world.sim))
    body = state.get(f"{world.sim.origin}/_state", timeout=5).json()

    assert [row["name"] for row in body["accounts"]] == ["Contoso"]


@pytest.fixture
def served() -> Iterator[tuple[World, str, str]]:
    world = World()
    with serve(world.sim) as server:
        world.sim.origin = server.url
        yield world, server.url, str(server.ca_file)


def test_it_is_served_over_https_under_its_own_origin(served: tuple[World, str, str]) -> None:
    world, url, ca_file = served
    token = world.entra.access_token("dynamics365", url)
    headers = {"Authorization": f"Bearer {token}"}

    answer = requests.post(
        f"{url}/api/data/v9.2/accounts", json={"name": "Contoso"}, headers=headers, verify=ca_file, timeout=5
    )

    assert answer.status_code == 204
    assert answer.headers["OData-EntityId"].startswith(f"{url}/api/data/v9.2/accounts(")

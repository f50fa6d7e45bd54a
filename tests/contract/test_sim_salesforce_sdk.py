"""simple-salesforce, an independent client, against the Salesforce simulator: it shares no mistake with our client."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import requests
from simple_salesforce import Salesforce, format_external_id, format_soql
from simple_salesforce.exceptions import (
    SalesforceAuthenticationFailed,
    SalesforceExpiredSession,
    SalesforceMalformedRequest,
    SalesforceMoreThanOneRecord,
    SalesforceRefusedRequest,
    SalesforceResourceNotFound,
)

from local.simulators.base import InProcessAdapter, serve
from local.simulators.salesforce import DEFAULT_ORIGIN, SalesforceSimulator

KEY = "Referral_Identifier__c"


@pytest.fixture(scope="module")
def sim() -> Iterator[SalesforceSimulator]:
    simulator = SalesforceSimulator()
    with serve(simulator) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("REQUESTS_CA_BUNDLE", str(server.ca_file))
        simulator.origin = server.url
        yield simulator


def session(sim: SalesforceSimulator) -> requests.Session:
    """The SDK signs in at fixed hosts; only those are reached in process."""
    made = requests.Session()
    for host in (DEFAULT_ORIGIN, "https://login.salesforce.com"):
        made.mount(host, InProcessAdapter(sim))
    return made


@pytest.fixture
def client(sim: SalesforceSimulator) -> Salesforce:
    return Salesforce(
        consumer_key=sim.client_id,
        consumer_secret=sim.client_secret,
        domain="contoso.my",
        session=session(sim),
        version="67.0",
    )


def deal(**values: Any) -> dict[str, Any]:
    return {"Name": f"Deal {uuid4()}", "StageName": "Prospecting", "CloseDate": "2026-12-31", **values}


def test_client_credentials_lead_to_the_instance(client: Salesforce, sim: SalesforceSimulator) -> None:
    assert f"https://{client.sf_instance}" == sim.origin
    assert client.limits()["DailyApiRequests"]["Max"] == 100_000


def test_a_jwt_leads_to_the_instance(sim: SalesforceSimulator) -> None:
    client = Salesforce(
        username=sim.username, consumer_key=sim.client_id, privatekey=sim.private_key_pem, session=session(sim)
    )

    assert client.query("SELECT count() FROM Opportunity")["done"]


def test_a_session_id_is_enough(sim: SalesforceSimulator) -> None:
    instance = sim.origin.removeprefix("https://")
    client = Salesforce(instance=instance, session_id=sim.token_for("Ada Admin"))

    created = client.Account.create({"Name": "Fabrikam"})

    assert client.Account.get(created["id"])["CreatedById"] == sim.organization.user("Ada Admin").id


def test_wrong_credentials_are_reported(sim: SalesforceSimulator) -> None:
    with pytest.raises(SalesforceAuthenticationFailed, match="invalid client credentials"):
        Salesforce(consumer_key=sim.client_id, consumer_secret="x", domain="contoso.my", session=session(sim))


def test_a_record_is_created_read_changed_and_deleted(client: Salesforce) -> None:
    made = client.Opportunity.create(deal(Amount=90.5))
    row_id = made["id"]
    created = client.Opportunity.get(row_id)

    changed_status = client.Opportunity.update(row_id, {"Amount": 100})
    changed = client.Opportunity.get(row_id)
    deleted_status = client.Opportunity.delete(row_id)

    assert made["success"]
    assert (created["Amount"], changed["Amount"]) == (90.5, 100)
    assert (changed_status, deleted_status) == (204, 204)
    with pytest.raises(SalesforceResourceNotFound, match="entity is deleted"):
        client.Opportunity.get(row_id)


def test_upserts_create_update_and_are_found_by_their_key(client: Salesforce) -> None:
    key = f"it's/{uuid4()}"

    path = format_external_id(KEY, key)
    statuses = [client.Opportunity.upsert(path, deal(NextStep=step)) for step in ("first", "second")]

    assert statuses == [201, 200]
    assert client.Opportunity.get_by_custom_id(KEY, key)["NextStep"] == "second"


def test_all_pages_of_a_query_are_read(client: Salesforce, sim: SalesforceSimulator) -> None:
    company = f"Company {uuid4()}"
    ids = [client.Account.create({"Name": company, "Site": str(n)})["id"] for n in range(5)]
    sim.organization.page_size = 2

    soql = format_soql("SELECT Id FROM Account WHERE Name = {} ORDER BY Site", company)
    result = client.query_all(soql)
    iterated = [record["Id"] for record in client.query_all_iter(soql)]
    first = client.query(soql)
    second = client.query_more(first["nextRecordsUrl"], identifier_is_url=True)
    sim.organization.page_size = 2000

    assert (result["totalSize"], result["done"]) == (5, True)
    assert [record["Id"] for record in result["records"]] == iterated == ids
    assert (len(second["records"]), second["done"]) == (2, False)


def test_quoting_survives_both_sides(client: Salesforce) -> None:
    name = f'it\'s "quoted" \\ back\nslash 100% {uuid4()}'
    row_id = client.Opportunity.create(deal(Name=name, Description=name))["id"]

    found = client.query(format_soql("SELECT Id FROM Opportunity WHERE Name = {}", name))
    like = client.query(format_soql("SELECT Id FROM Opportunity WHERE Name LIKE '{:like}%'", name[:20]))

    assert [record["Id"] for record in found["records"]] == [row_id]
    assert row_id in [record["Id"] for record in like["records"]]


def test_queries_of_deleted_rows(client: Salesforce) -> None:
    row_id = client.Opportunity.create(deal())["id"]
    client.Opportunity.delete(row_id)

    soql = format_soql("SELECT Id, IsDeleted FROM Opportunity WHERE Id = {}", row_id)

    assert client.query(soql)["totalSize"] == 0
    assert client.query_all(soql, include_deleted=True)["records"][0]["IsDeleted"]


def test_changes_and_deletions_are_listed(client: Salesforce, sim: SalesforceSimulator) -> None:
    kept, gone = (client.Contact.create({"LastName": "Doe"})["id"] for _ in range(2))
    client.Contact.delete(gone)
    sim.clock.advance(120)
    end = datetime.now(UTC) + timedelta(seconds=120)

    updated = client.Contact.updated(end - timedelta(hours=1), end)
    deleted = client.Contact.deleted(end - timedelta(hours=1), end)

    assert kept in updated["ids"]
    assert gone not in updated["ids"]
    assert gone in [record["id"] for record in deleted["deletedRecords"]]
    assert updated["latestDateCovered"].endswith("+0000")


def test_a_composite_goes_through(client: Salesforce) -> None:
    base = "/services/data/v67.0/sobjects"
    parts = [
        {"method": "POST", "url": f"{base}/Account", "referenceId": "account", "body": {"Name": "Composite"}},
        {
            "method": "POST",
            "url": f"{base}/Opportunity",
            "referenceId": "deal",
            "body": deal(AccountId="@{account.id}"),
        },
    ]

    answer = client.restful("composite", method="POST", json={"allOrNone": True, "compositeRequest": parts})

    assert [part["httpStatusCode"] for part in answer["compositeResponse"]] == [201, 201]
    row = client.Opportunity.get(answer["compositeResponse"][1]["body"]["id"])
    assert row["AccountId"] == answer["compositeResponse"][0]["body"]["id"]


def test_descriptions_are_read(client: Salesforce) -> None:
    described = client.Lead.describe()
    names = [sobject["name"] for sobject in client.describe()["sobjects"]]

    assert "Referral_Accepted__c" in [field["name"] for field in described["fields"]]
    assert "Opportunity" in names
    assert client.Lead.metadata()["objectDescribe"]["keyPrefix"] == "00Q"


def test_fields_are_made_through_the_tooling_api(client: Salesforce) -> None:
    metadata = {"label": "From the SDK", "type": "Checkbox", "defaultValue": False}
    body = {"FullName": "Lead.From_the_SDK__c", "Metadata": metadata}

    made = client.toolingexecute("sobjects/CustomField", method="POST", json=body)
    soql = "SELECT+Id+FROM+CustomField+WHERE+DeveloperName='From_the_SDK'"
    found = client.toolingexecute(f"query/?q={soql}")

    assert found["records"][0]["Id"] == made["id"]


def test_refusals_reach_the_caller_by_class_with_their_content(client: Salesforce, sim: SalesforceSimulator) -> None:
    with pytest.raises(SalesforceMalformedRequest) as malformed:
        client.Opportunity.create({"Nope": 1})
    with pytest.raises(SalesforceMalformedRequest):
        client.query("SELECT Nope FROM Opportunity")
    with pytest.raises(SalesforceResourceNotFound):
        client.Opportunity.get("006000000000001AAA")
    sim.people.set_api_usage(100, 100)
    with pytest.raises(SalesforceRefusedRequest) as refused:
        client.Opportunity.create(deal())
    sim.people.set_api_usage(0, 100_000)

    assert malformed.value.content[0]["errorCode"] == "INVALID_FIELD"
    assert refused.value.content[0]["errorCode"] == "REQUEST_LIMIT_EXCEEDED"


def test_an_ambiguous_key_is_reported(client: Salesforce) -> None:
    address = f"{uuid4().hex}@fabrikam.example"
    for _ in range(2):
        client.Contact.create({"LastName": "Doe", "Email": address})

    with pytest.raises(SalesforceMoreThanOneRecord) as several:
        client.Contact.get_by_custom_id("Email", address)

    assert len(several.value.content) == 2


def test_an_expired_session_is_reported_and_a_known_one_renewed(client: Salesforce, sim: SalesforceSimulator) -> None:
    fixed = Salesforce(instance=client.sf_instance, session_id=sim.token_for("Co-sell Sync"))
    sim.people.expire_sessions()

    with pytest.raises(SalesforceExpiredSession, match="INVALID_SESSION_ID"):
        fixed.query("SELECT Id FROM User")
    assert client.query("SELECT count() FROM User")["totalSize"] > 3

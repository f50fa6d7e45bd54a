"""Microsoft's own Python SDK against the Dataverse simulator: it shares no mistake with our client."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from uuid import uuid4

import pytest
from azure.core.credentials import AccessToken
from PowerPlatform.Dataverse.client import DataverseClient
from PowerPlatform.Dataverse.core.errors import HttpError, MetadataError
from PowerPlatform.Dataverse.models.upsert import UpsertItem

from local.simulators.base import serve
from local.simulators.dataverse import DataverseSimulator
from local.simulators.entra import EntraSimulator


class Credential:
    """Signs in at the Entra simulator as the product's app."""

    def __init__(self, entra: EntraSimulator) -> None:
        self.entra = entra
        self.scopes: set[str] = set()

    def get_token(self, *scopes: str, **_: object) -> AccessToken:
        self.scopes.update(scopes)
        token = self.entra.access_token("dynamics365", scopes[0].removesuffix("/.default"))
        return AccessToken(token, expires_on=2**31)


@pytest.fixture(scope="module")
def sim() -> Iterator[DataverseSimulator]:
    simulator = DataverseSimulator(EntraSimulator(), key_index_delay_s=0)
    with serve(simulator) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("REQUESTS_CA_BUNDLE", str(server.ca_file))
        simulator.origin = server.url
        yield simulator


@pytest.fixture
def client(sim: DataverseSimulator) -> Iterator[DataverseClient]:
    with DataverseClient(sim.origin, Credential(sim.entra)) as connected:
        yield connected


def name() -> str:
    return f"Deal {uuid4()}"


def test_the_token_is_asked_for_the_origin(sim: DataverseSimulator) -> None:
    credential = Credential(sim.entra)

    with DataverseClient(sim.origin, credential) as client:
        client.tables.get("opportunity")

    assert credential.scopes == {f"{sim.origin}/.default"}


def test_a_table_is_resolved_by_its_schema_name(client: DataverseClient) -> None:
    info = client.tables.get("opportunity")

    assert (info["entity_set_name"], info["table_logical_name"]) == ("opportunities", "opportunity")


def test_an_unknown_table_is_reported(client: DataverseClient) -> None:
    with pytest.raises(MetadataError, match="Unable to resolve entity set"):
        client.records.create("opportunitie", {"name": "x"})


def test_tables_are_listed(client: DataverseClient) -> None:
    listed = client.tables.list(filter="LogicalName eq 'lead'", select=["LogicalName", "EntitySetName"])

    assert [table["EntitySetName"] for table in listed] == ["leads"]


def test_a_record_is_created_read_changed_and_deleted(client: DataverseClient) -> None:
    topic = name()
    row_id = client.records.create("opportunity", {"Name": topic, "estimatedvalue": 90.5})
    created = client.records.retrieve("opportunity", row_id, select=["name", "estimatedvalue"])

    client.records.update("opportunity", row_id, {"estimatedvalue": 100})
    changed = client.records.retrieve("opportunity", row_id)
    client.records.delete("opportunity", row_id)

    assert (created["name"], created["estimatedvalue"]) == (topic, 90.5)
    assert changed["estimatedvalue"] == 100
    assert created.etag
    assert created.etag != changed.etag
    assert client.records.retrieve("opportunity", row_id) is None


def test_labels_of_options_are_found_in_the_metadata(client: DataverseClient) -> None:
    row_id = client.records.create("opportunity", {"name": name(), "cosell_howcanmicrosofthelp": "Quotes or Licensing"})

    row = client.records.retrieve("opportunity", row_id, include_annotations="*")

    assert row["cosell_howcanmicrosofthelp"] == 727000004
    formatted = row["cosell_howcanmicrosofthelp@OData.Community.Display.V1.FormattedValue"]
    assert formatted == "Quotes or Licensing"


def test_records_are_listed_in_pages(client: DataverseClient) -> None:
    company = name()
    ids = client.records.create("account", [{"name": company, "accountnumber": str(n)} for n in range(5)])

    pages = list(
        client.records.list_pages(
            "account", filter=f"name eq '{company}'", select=["accountnumber"], orderby=["accountnumber"], page_size=2
        )
    )

    assert [len(page) for page in pages] == [2, 2, 1]
    assert [record["accountid"] for page in pages for record in page] == ids


def test_the_query_builder_s_filters_and_expansions_are_understood(client: DataverseClient) -> None:
    company, topic = name(), name()
    account = client.records.create("account", {"name": company})
    row_id = client.records.create(
        "opportunity", {"name": topic, "customerid_account@odata.bind": f"/accounts({account})"}
    )

    rows = client.records.list(
        "opportunity", filter=f"contains(name,'{topic[5:]}') and statecode eq 0", expand=["customerid_account"]
    )

    assert [row["opportunityid"] for row in rows] == [row_id]
    assert rows[0]["customerid_account"]["name"] == company


def test_upserts_by_alternate_key_create_and_update(client: DataverseClient, sim: DataverseSimulator) -> None:
    first, second = f"it's {uuid4()}", str(uuid4())

    def item(key: str, topic: str) -> UpsertItem:
        return UpsertItem(alternate_key={"cosell_referralid": key}, record={"name": topic})

    client.records.upsert("opportunity", [item(first, "New")])
    client.records.upsert("opportunity", [item(first, "Changed"), item(second, "Second")])

    rows = [sim.organization.where("opportunity", cosell_referralid=key) for key in (first, second)]
    assert [[row.values["name"] for row in found] for found in rows] == [["Changed"], ["Second"]]


def test_many_records_are_changed_at_once(client: DataverseClient) -> None:
    ids = client.records.create("account", [{"name": "One"}, {"name": "Two"}])

    client.records.update("account", ids, {"description": "both"})

    assert [client.records.retrieve("account", row_id)["description"] for row_id in ids] == ["both", "both"]


def test_a_refusal_reaches_the_caller_with_code_and_request_id(client: DataverseClient) -> None:
    with pytest.raises(HttpError, match="Invalid property 'nope'") as unknown:
        client.records.create("opportunity", {"nope": 1})
    with pytest.raises(HttpError, match="Does Not Exist") as missing:
        client.records.update("opportunity", str(uuid4()), {"name": "x"})

    assert (unknown.value.status_code, unknown.value.details["service_error_code"]) == (400, "0x0")
    assert (missing.value.status_code, missing.value.details["service_error_code"]) == (404, "0x80040217")


def test_throttling_is_reported_as_transient(client: DataverseClient, sim: DataverseSimulator) -> None:
    client.tables.get("opportunity")
    sim.faults.add("throttle", retry_after_s=30)

    with pytest.raises(HttpError) as throttled:
        client.tables.get("opportunity")

    assert throttled.value.is_transient
    assert throttled.value.details["retry_after"] == 30
    assert throttled.value.details["service_error_code"] == "0x80072322"


class Stage(IntEnum):
    Early = 727000000
    Late = 727000001


def test_columns_are_added_used_changed_and_removed(client: DataverseClient) -> None:
    columns = {
        "new_Text": "string", "new_Number": "int", "new_Share": "decimal", "new_When": "datetime",
        "new_Flag": "bool", "new_Notes": "memo", "new_Stage": Stage,
    }  # fmt: skip
    added = client.tables.add_columns("lead", columns)
    lead = {
        "new_text": "x",
        "new_number": 1,
        "new_share": 0.5,
        "new_flag": True,
        "new_stage": "late",
        "lastname": "Doe",
    }

    row = client.records.retrieve("lead", client.records.create("lead", lead))
    client.tables.update_column("lead", "new_Text", {"max_length": 300})
    texts = client.tables.list_columns("lead", filter="LogicalName eq 'new_text'")
    client.tables.remove_columns("lead", list(columns))

    assert added == list(columns)
    assert (row["new_text"], row["new_number"], row["new_share"], row["new_flag"]) == ("x", 1, 0.5, True)
    assert row["new_stage"] == Stage.Late
    assert texts[0]["MaxLength"] == 300
    assert client.tables.get_column("lead", "new_Text") is None


def test_an_alternate_key_is_created_listed_and_deleted(client: DataverseClient) -> None:
    created = client.tables.create_alternate_key("account", "new_NumberKey", ["accountnumber"])
    keys = client.tables.get_alternate_keys("account")

    client.tables.delete_alternate_key("account", created.metadata_id)

    assert [(key.schema_name, key.key_attributes, key.status) for key in keys] == [
        ("new_NumberKey", ["accountnumber"], "Active")
    ]
    assert client.tables.get_alternate_keys("account") == []


def test_a_batch_runs_its_operations_in_order(client: DataverseClient) -> None:
    company = name()
    batch = client.batch.new()
    batch.records.create("account", {"name": company})
    batch.records.list("account", filter=f"name eq '{company}'", select=["name"])
    batch.records.upsert("opportunity", [UpsertItem({"cosell_referralid": str(uuid4())}, {"name": "Batched"})])
    batch.records.delete("account", str(uuid4()))

    result = batch.execute(continue_on_error=True)

    assert [response.status_code for response in result.responses] == [204, 200, 204, 404]
    assert result.responses[1].data["value"][0]["name"] == company
    assert result.failed[0].error_code == "0x80040217"


def test_a_change_set_is_committed_or_undone_as_a_whole(client: DataverseClient, sim: DataverseSimulator) -> None:
    company, doomed = name(), name()
    good, bad = client.batch.new(), client.batch.new()
    with good.changeset() as changes:
        account = changes.records.create("account", {"name": company})
        changes.records.create("opportunity", {"name": company, "customerid_account@odata.bind": account})
        changes.records.update("account", account, {"description": "in the same change set"})
    with bad.changeset() as changes:
        changes.records.create("account", {"name": doomed})
        changes.records.create("account", {"nope": 1})

    committed, undone = good.execute(), bad.execute()

    assert [response.status_code for response in committed.responses] == [204, 204, 204]
    account_row = sim.organization.where("account", name=company)[0]
    assert account_row.values["description"] == "in the same change set"
    assert sim.organization.where("opportunity", customerid=account_row.reference)
    assert undone.has_errors
    assert sim.organization.where("account", name=doomed) == []

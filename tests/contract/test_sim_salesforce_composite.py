"""The Salesforce simulator's collections, composites and graphs."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from tests.contract.test_sim_salesforce import DEAL, KEY, NOBODY, NOW, World, http_date, refusal


@pytest.fixture
def world() -> World:
    return World()


def typed(name: str = "Opportunity", **values: Any) -> dict[str, Any]:
    given = {**DEAL, **values} if name == "Opportunity" else values
    return {"attributes": {"type": name}, **given}


def collection(world: World, method: str, records: list[dict[str, Any]], path: str = "", **body: Any) -> Any:
    return world.call(method, f"composite/sobjects{path}", json={"records": records, **body})


# Collections


def test_rows_of_a_collection_succeed_and_fail_by_themselves(world: World) -> None:
    bad = {"attributes": {"type": "Opportunity"}, "Name": "x", "StageName": "y"}

    answer = collection(world, "POST", [typed(), bad, typed("Account", Name="Fabrikam")], allOrNone=False)

    first, second, third = answer.json()
    assert answer.status_code == 200
    assert first == {"id": first["id"], "success": True, "errors": []}
    message = "Required fields are missing: [CloseDate]"
    error = {"statusCode": "REQUIRED_FIELD_MISSING", "message": message, "fields": ["CloseDate"]}
    assert second == {"success": False, "errors": [error]}
    assert third["id"].startswith("001")


def test_all_or_none_rolls_every_row_back(world: World) -> None:
    answer = collection(world, "POST", [typed(), typed(Name="n" * 121)], allOrNone=True)

    first, second = answer.json()
    assert (first["success"], first["errors"][0]["statusCode"]) == (False, "ALL_OR_NONE_OPERATION_ROLLED_BACK")
    assert second["errors"][0]["statusCode"] == "STRING_TOO_LONG"
    assert world.sim.state()["Opportunity"] == []


def test_a_collection_updates_rows_by_id(world: World) -> None:
    ids = [world.create(), world.create()]
    records = [{"attributes": {"type": "Opportunity"}, "id": each, "NextStep": "x"} for each in (*ids, NOBODY)]

    answer = collection(world, "PATCH", records).json()

    assert [row["success"] for row in answer] == [True, True, False]
    assert answer[2]["errors"][0]["statusCode"] == "INVALID_CROSS_REFERENCE_KEY"
    assert [world.read(each)["NextStep"] for each in ids] == ["x", "x"]


def test_a_collection_upserts_by_key_and_refuses_a_key_given_twice(world: World) -> None:
    world.upsert("a", **DEAL)
    records = [typed(**{KEY: key}) for key in ("A", "b", "c", "C")]

    answer = collection(world, "PATCH", records, f"/Opportunity/{KEY}").json()

    assert [(row["success"], row.get("created")) for row in answer] == [
        (True, False),
        (True, True),
        (False, None),
        (False, None),
    ]
    assert answer[2]["errors"][0]["statusCode"] == "DUPLICATE_EXTERNAL_ID"


def test_a_rolled_back_upsert_still_says_created(world: World) -> None:
    records = [typed(**{KEY: "a"}), typed(Name=None, **{KEY: "b"})]

    first, _ = collection(world, "PATCH", records, f"/Opportunity/{KEY}", allOrNone=True).json()

    assert (first["success"], first["created"]) == (False, True)
    assert world.sim.state()["Opportunity"] == []


def test_a_collection_deletes(world: World) -> None:
    row_id = world.create()

    answer = world.call("DELETE", f"composite/sobjects?ids={row_id},{NOBODY}&allOrNone=false").json()

    assert [row["success"] for row in answer] == [True, False]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_collection_is_read_in_order_with_gaps(world: World, method: str) -> None:
    ids = [world.create(Name="A"), NOBODY, "nonsense", world.create(Name="B")]
    path = "composite/sobjects/Opportunity"

    if method == "GET":
        answer = world.call("GET", f"{path}?ids={','.join(ids)}&fields=Name,Amount")
    else:
        answer = world.call("POST", path, json={"ids": ids, "fields": ["Name", "Amount"]})

    assert [row and row["Name"] for row in answer.json()] == ["A", None, None, "B"]


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("POST", "", {"records": [typed()] * 201}, (400, "EXCEEDED_ID_LIMIT")),
        ("POST", "", {"records": [typed(), typed("Account", Name="x")] * 6}, (400, "LIMIT_EXCEEDED")),
        ("POST", "", {"records": [{"Name": "x"}]}, (400, "INVALID_INPUT")),
        ("POST", "", {"records": []}, (400, "INVALID_INPUT")),
        ("POST", "", {"records": [typed()], "allOrNone": "x"}, (400, "INVALID_INPUT")),
        ("POST", "", {"records": [typed()], "nope": 1}, (400, "INVALID_INPUT")),
        ("PATCH", "/Opportunity/Nope__c", {"records": [typed()]}, (404, "NOT_FOUND")),
        ("PATCH", "/Nope/Id", {"records": [typed()]}, (404, "NOT_FOUND")),
        ("POST", "/Opportunity", {"ids": [NOBODY] * 2001, "fields": ["Id"]}, (400, "EXCEEDED_ID_LIMIT")),
        ("POST", "/Opportunity", {"ids": [NOBODY], "fields": ["Nope"]}, (400, "INVALID_FIELD")),
        ("POST", "/Opportunity", {"ids": [NOBODY]}, (400, "MISSING_ARGUMENT")),
        ("DELETE", "", None, (400, "MISSING_ARGUMENT")),
        ("PUT", "", {}, (405, "METHOD_NOT_ALLOWED")),
    ],
)
def test_a_malformed_collection_is_refused_as_a_whole(
    world: World, method: str, path: str, body: Any, expected: tuple[int, str]
) -> None:
    assert refusal(world.call(method, f"composite/sobjects{path}", json=body)) == expected


def test_a_row_of_a_collection_has_no_id_at_creation_and_a_known_type(world: World) -> None:
    with_id, unknown = collection(world, "POST", [typed(Id=NOBODY), typed("Nope")]).json()

    assert (with_id["errors"][0]["statusCode"], unknown["errors"][0]["statusCode"]) == ("INVALID_FIELD", "INVALID_TYPE")


# Composites


def part(method: str, path: str, ref: str, body: Any = None, **headers: str) -> dict[str, Any]:
    made: dict[str, Any] = {"method": method, "url": f"/services/data/v67.0/{path}", "referenceId": ref}
    if body is not None:
        made["body"] = body
    if headers:
        made["httpHeaders"] = {name.replace("_", "-"): value for name, value in headers.items()}
    return made


def composite(world: World, *parts: dict[str, Any], **options: Any) -> requests.Response:
    return world.call("POST", "composite", json={"compositeRequest": list(parts), **options})


def parts_of(answer: requests.Response) -> list[tuple[int, Any]]:
    assert answer.status_code == 200, answer.text
    return [(each["httpStatusCode"], each["body"]) for each in answer.json()["compositeResponse"]]


def test_later_subrequests_use_what_earlier_ones_answered(world: World) -> None:
    answer = composite(
        world,
        part("POST", "sobjects/Account", "account", {"Name": "Fabrikam"}),
        part("POST", "sobjects/Contact", "contact", {"LastName": "Doe", "AccountId": "@{account.id}"}),
        part("PATCH", f"sobjects/Opportunity/{KEY}/abc", "deal", {**DEAL, "AccountId": "@{account.id}"}),
        part(
            "POST",
            "sobjects/OpportunityContactRole",
            "role",
            {"OpportunityId": "@{deal.id}", "ContactId": "@{contact.id}"},
        ),
        part("GET", "query?q=SELECT+Id,+Account.Name+FROM+Opportunity+WHERE+Id='@{deal.id}'", "found"),
        part("GET", "sobjects/Opportunity/@{found.records[0].Id}?fields=Name", "row"),
        part(
            "PATCH",
            "sobjects/Opportunity/@{deal.id}",
            "step",
            {"NextStep": "ask @{row.Name} of @{found.records[0].Account.Name}"},
        ),
        allOrNone=True,
    )

    statuses = [status for status, _ in parts_of(answer)]
    entries = answer.json()["compositeResponse"]
    assert statuses == [201, 201, 201, 201, 200, 200, 204]
    assert [entry["referenceId"] for entry in entries][:2] == ["account", "contact"]
    assert entries[0]["httpHeaders"]["Location"].startswith("/services/data/v67.0/sobjects/Account/001")
    assert entries[-1]["body"] is None
    assert world.sim.state()["Opportunity"][0]["NextStep"] == "ask Deal of Fabrikam"


def test_a_composite_is_one_call(world: World) -> None:
    answer = composite(world, *[part("POST", "sobjects/Account", f"a{n}", {"Name": "x"}) for n in range(25)])

    assert answer.headers["Sforce-Limit-Info"] == "api-usage=1/100000"
    assert len(world.sim.log.entries) == 1
    assert len(world.sim.state()["Account"]) == 25


def test_without_all_or_none_failures_stay_alone(world: World) -> None:
    answer = composite(
        world,
        part("POST", "sobjects/Account", "bad", {"Nope": 1}),
        part("POST", "sobjects/Account", "good", {"Name": "x"}),
        part("GET", "sobjects/Account/@{bad.id}", "dependent"),
    )

    bad, good, dependent = parts_of(answer)
    assert (bad[0], good[0], dependent[0]) == (400, 201, 400)
    message = "Invalid reference specified. No value for id found in bad"
    assert dependent[1] == [{"message": message, "errorCode": "PROCESSING_HALTED"}]


def test_all_or_none_undoes_all_and_shows_the_cause_once(world: World) -> None:
    kept = world.create(NextStep="before")

    answer = composite(
        world,
        part("PATCH", f"sobjects/Opportunity/{kept}", "first", {"NextStep": "after"}),
        part("POST", "sobjects/Account", "second", {"Name": "x"}),
        part("POST", "sobjects/Contact", "third", {"FirstName": "x"}),
        part("DELETE", f"sobjects/Opportunity/{kept}", "fourth"),
        allOrNone=True,
    )

    halted = "The transaction was rolled back since another operation in the same transaction failed."
    bodies = parts_of(answer)
    assert [status for status, _ in bodies] == [400] * 4
    assert [body[0]["errorCode"] for _, body in bodies] == [
        "PROCESSING_HALTED",
        "PROCESSING_HALTED",
        "REQUIRED_FIELD_MISSING",
        "PROCESSING_HALTED",
    ]
    assert bodies[0][1][0]["message"] == halted
    assert (world.read(kept)["NextStep"], world.sim.state()["Account"], world.sim.state()["deleted"]) == (
        "before",
        [],
        [],
    )


def test_a_condition_of_a_subrequest_undoes_the_composite(world: World) -> None:
    deal = world.create()
    since = http_date(NOW)
    world.clock.advance(1)
    world.people.edit("Opportunity", deal, {"NextStep": "human"})

    answer = composite(
        world,
        part("POST", "sobjects/Account", "account", {"Name": "x"}),
        part("PATCH", f"sobjects/Opportunity/{deal}", "deal", {"NextStep": "ours"}, If_Unmodified_Since=since),
        allOrNone=True,
    )

    (_, halted), (status, error) = parts_of(answer)
    assert (halted[0]["errorCode"], status, error[0]["errorCode"]) == ("PROCESSING_HALTED", 412, "PRECONDITION_FAILED")
    assert (world.read(deal)["NextStep"], world.sim.state()["Account"]) == ("human", [])


def test_headers_of_a_subrequest_count(world: World) -> None:
    world.create("Account", Name="Fabrikam")
    world.people.add_duplicate_rule("Account", ["Name"], allow_save=True)
    insist = {"Sforce_Duplicate_Rule_Header": "allowSave=true"}

    refused, saved = parts_of(
        composite(
            world,
            part("POST", "sobjects/Account", "one", {"Name": "Fabrikam"}),
            part("POST", "sobjects/Account", "two", {"Name": "Fabrikam"}, **insist),
        )
    )

    assert (refused[0], refused[1][0]["errorCode"], saved[0]) == (400, "DUPLICATES_DETECTED", 201)


def test_an_ambiguous_key_is_a_failure_of_the_composite(world: World) -> None:
    for _ in range(2):
        world.create("Contact", LastName="Doe", Email="doe@fabrikam.example")

    first, second = parts_of(
        composite(
            world,
            part("POST", "sobjects/Account", "account", {"Name": "x"}),
            part("PATCH", "sobjects/Contact/Email/doe@fabrikam.example", "contact", {"LastName": "x"}),
            allOrNone=True,
        )
    )

    assert (first[0], second[0], len(second[1])) == (400, 300, 2)
    assert world.sim.state()["Account"] == []


def test_a_composite_reads_updates_and_deletions_of_several_objects(world: World) -> None:
    world.create()
    world.clock.advance(120)
    span = "start=2026-11-27T12%3A00%3A00%2B00%3A00&end=2026-11-27T12%3A02%3A00%2B00%3A00"

    updated, deleted, found = parts_of(
        composite(
            world,
            part("GET", f"sobjects/Opportunity/updated?{span}", "updated"),
            part("GET", f"sobjects/Lead/deleted/?{span}", "deleted"),
            part("GET", "queryAll?q=SELECT%20Id%20FROM%20Lead", "all"),
        )
    )

    assert len(updated[1]["ids"]) == 1
    assert (deleted[1]["deletedRecords"], found[1]["totalSize"]) == ([], 0)


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [part("POST", "sobjects/Account", f"a{n}", {"Name": "x"}) for n in range(26)],
        [part("GET", "query?q=SELECT+Id+FROM+Lead", f"q{n}") for n in range(6)],
        [part("GET", "limits", "a")],
        [part("POST", "composite", "a", {})],
        [part("GET", "sobjects/Account", "a-b")],
        [part("GET", "sobjects/Account", "a"), part("GET", "sobjects/Account", "a")],
        [part("HEAD", "sobjects/Account", "a")],
        [part("GET", "query?q=SELECT Id FROM Lead", "a")],
        [part("GET", "sobjects/Account", "a", Accept="application/json")],
        [part("GET", "sobjects/Account", "a", Authorization="Bearer x")],
        [part("POST", "sobjects/Account", "a", {"Name": "x"}, content_type="application/json")],
        [{**part("GET", "sobjects/Account", "a"), "url": "/services/data/v66.0/sobjects/Account"}],
        [
            {
                **part("GET", "sobjects/Account", "a"),
                "url": "https://contoso.my.salesforce.com/services/data/v67.0/limits",
            }
        ],
        [{**part("GET", "sobjects/Account", "a"), "richInput": {}}],
    ],
)
def test_a_malformed_composite_is_refused_as_a_whole(world: World, parts: list[dict[str, Any]]) -> None:
    answer = (
        composite(world, part("POST", "sobjects/Account", "first", {"Name": "x"}), *parts)
        if parts
        else composite(world)
    )

    assert answer.status_code == 400
    assert world.sim.state()["Account"] == []


@pytest.mark.parametrize("option", [{"allOrNone": "true"}, {"collateSubrequests": 1}, {"nope": True}])
def test_a_composite_s_options_are_known_booleans(world: World, option: dict[str, Any]) -> None:
    answer = composite(world, part("POST", "sobjects/Account", "a", {"Name": "x"}), **option)

    assert answer.status_code == 400


@pytest.mark.parametrize("text", ["@{nope.id}", "@{account.nope}", "@{account.Id}", "@{later.id}", "@{account.errors}"])
def test_a_reference_without_a_value_halts_its_subrequest(world: World, text: str) -> None:
    _, (status, body), _ = parts_of(
        composite(
            world,
            part("POST", "sobjects/Account", "account", {"Name": "x"}),
            part("POST", "sobjects/Contact", "contact", {"LastName": "Doe", "AccountId": text}),
            part("POST", "sobjects/Account", "later", {"Name": "x"}),
        )
    )

    assert (status, body[0]["errorCode"]) == (400, "PROCESSING_HALTED")
    assert body[0]["message"].startswith("Invalid reference specified. No value for")


def test_automation_follows_each_write_of_a_composite(world: World) -> None:
    world.people.automation_touches_next_write("Opportunity", times=1)

    composite(world, part("POST", "sobjects/Opportunity", "a", DEAL), part("POST", "sobjects/Opportunity", "b", DEAL))

    first, second = world.sim.state()["Opportunity"]
    assert first["SystemModstamp"] == "2026-11-27T12:00:31.000+0000"
    assert first["LastModifiedById"] == world.org.system_user
    assert second["SystemModstamp"] == second["CreatedDate"]


# Graphs


def graph(world: World, **graphs: list[dict[str, Any]]) -> requests.Response:
    made = [{"graphId": name, "compositeRequest": nodes} for name, nodes in graphs.items()]
    return world.call("POST", "composite/graph", json={"graphs": made})


def test_each_graph_is_all_or_nothing(world: World) -> None:
    good = [
        part("POST", "sobjects/Account", "account", {"Name": "Good"}),
        part("POST", "sobjects/Opportunity", "deal", {**DEAL, "AccountId": "@{account.id}"}),
    ]
    bad = [part("POST", "sobjects/Account", "account", {"Name": "Bad"}), part("POST", "sobjects/Contact", "c", {})]

    first, second = graph(world, g1=good, g2=bad).json()["graphs"]

    assert (first["graphId"], first["isSuccessful"], second["isSuccessful"]) == ("g1", True, False)
    assert second["graphResponse"]["compositeResponse"][0]["body"][0]["errorCode"] == "PROCESSING_HALTED"
    assert [row["Name"] for row in world.sim.state()["Account"]] == ["Good"]


@pytest.mark.parametrize(
    "graphs",
    [
        {},
        {f"g{n}": [part("POST", "sobjects/Account", "a", {"Name": "x"})] for n in range(76)},
        {"g": [part("POST", "sobjects/Account", f"a{n}", {"Name": "x"}) for n in range(501)]},
        {"g": [part("GET", "query?q=SELECT+Id+FROM+Lead", "a")]},
        {"g": [part("GET", "sobjects/Lead/describe", "a")]},
        {
            "g": [
                part("POST", "sobjects/Contact", f"c{n}", {"LastName": "x", "Title": f"@{{c{n - 1}.id}}"})
                for n in range(1, 17)
            ]
        },
    ],
)
def test_a_graph_beyond_the_limits_is_refused(world: World, graphs: dict[str, list[dict[str, Any]]]) -> None:
    assert graph(world, **graphs).status_code == 400


def test_after_fourteen_failures_the_rest_is_not_tried(world: World) -> None:
    bad = [part("POST", "sobjects/Account", "a", {})]
    good = [part("POST", "sobjects/Account", "a", {"Name": "x"})]

    results = graph(world, **{f"g{n}": bad for n in range(14)}, last=good).json()["graphs"]

    assert not results[-1]["isSuccessful"]
    assert results[-1]["graphResponse"]["compositeResponse"][0]["body"][0]["errorCode"] == "PROCESSING_HALTED"
    assert world.sim.state()["Account"] == []

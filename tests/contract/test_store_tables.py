"""What every Table promises."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from azure.identity import DefaultAzureCredential
from hypothesis import given
from hypothesis import strategies as st

from shared import settings
from shared.errors import Forbidden, Refused, Unavailable
from shared.settings import StorageSettings
from shared.store.tables import AlreadyThere, Row, Stale, Table, TableStorage, columns, document
from tests.contract.stores import BRISK, AzuriteStore, Store


@pytest.fixture
def table(store: Store) -> Table:
    return store.table("Rows")


@pytest.fixture
def azurite_store(storage_connection: str) -> AzuriteStore:
    return AzuriteStore(storage_connection)


@pytest.fixture
def azurite_table(azurite_store: AzuriteStore) -> Table:
    return azurite_store.table("Rows")


def test_a_row_comes_back_as_it_was_written(table: Table) -> None:
    written = table.insert(Row("p", "r", {"text": "Zoë 微软 😀 \r\n '\"", "number": -7, "flag": True, "empty": ""}))

    assert table.get("p", "r") == written
    assert written.etag


def test_reading_what_is_not_there_finds_nothing_and_creates_nothing(store: Store, table: Table) -> None:
    assert table.get("p", "r") is None
    assert table.query("p") == []
    table.delete("p", "r")

    assert len(store.requests) == 3


@pytest.mark.parametrize("first", ["insert", "upsert", "transact"])
def test_the_first_write_creates_the_table(azurite_store: AzuriteStore, azurite_table: Table, first: str) -> None:
    store, table = azurite_store, azurite_table
    row = Row("p", "r", {"a": 1})
    write: Any = {"insert": table.insert, "upsert": table.upsert, "transact": lambda r: table.transact([("insert", r)])}

    write[first](row)
    costs = len(store.requests)
    table.insert(Row("p", "r2", {}))

    assert costs == 3  # refused, created, repeated
    assert len(store.requests) == 4
    assert table.get("p", "r").columns == {"a": 1}


def test_tables_created_by_many_at_once_take_every_row(store: Store) -> None:
    table = store.table("Crowd")
    together = threading.Barrier(6)

    def write(number: int) -> None:
        together.wait(10)
        table.insert(Row("p", str(number), {}))

    _in_threads(write, 6)

    assert [row.key for row in table.query("p")] == [str(number) for number in range(6)]


def test_an_insert_of_a_present_row_is_refused_and_changes_nothing(table: Table) -> None:
    table.insert(Row("p", "r", {"a": 1}))

    with pytest.raises(AlreadyThere, match="p r exists already"):
        table.insert(Row("p", "r", {"a": 2}))

    assert table.get("p", "r").columns == {"a": 1}


def test_a_replace_drops_the_columns_it_does_not_name(table: Table) -> None:
    written = table.insert(Row("p", "r", {"a": 1, "b": 2}))

    replaced = table.replace(Row("p", "r", {"b": 3}, written.etag))

    assert table.get("p", "r") == replaced
    assert replaced.columns == {"b": 3}
    assert replaced.etag != written.etag


def test_a_replace_of_a_changed_row_is_stale(table: Table) -> None:
    old = table.insert(Row("p", "r", {"a": 1}))
    table.upsert(Row("p", "r", {"a": 2}))

    with pytest.raises(Stale, match="p r has changed"):
        table.replace(Row("p", "r", {"a": 3}, old.etag))

    assert table.get("p", "r").columns == {"a": 2}


def test_a_replace_of_a_vanished_row_is_stale(table: Table) -> None:
    old = table.insert(Row("p", "r", {"a": 1}))
    table.delete("p", "r")

    with pytest.raises(Stale):
        table.replace(old)

    assert table.get("p", "r") is None


def test_a_replace_without_the_etag_of_what_was_read_is_not_sent(store: Store, table: Table) -> None:
    written = table.insert(Row("p", "r", {"a": 1}))
    before = len(store.requests)

    with pytest.raises(ValueError, match="etag"):
        table.replace(Row("p", "r", {"a": 2}))
    with pytest.raises(ValueError, match="etag"):
        table.transact([("upsert", Row("p", "s", {})), ("replace", Row("p", "r", {"a": 2}))])

    assert len(store.requests) == before
    assert table.query("p") == [written]


def test_a_row_that_was_deleted_and_inserted_again_is_another_version(table: Table) -> None:
    old = table.insert(Row("p", "r", {"a": 1}))
    table.delete("p", "r")
    new = table.insert(Row("p", "r", {"a": 1}))

    with pytest.raises(Stale):
        table.replace(old)

    assert table.get("p", "r") == new
    assert new.etag != old.etag


def test_what_is_done_to_a_row_after_writing_or_reading_it_stays_with_the_caller(table: Table) -> None:
    given: dict[str, Any] = {"a": 1}
    table.insert(Row("p", "r", given))
    given["a"] = 2
    (read,) = table.query("p")
    for found in (read, table.get("p", "r")):
        found.columns["a"] = 3

    assert table.get("p", "r").columns == {"a": 1}


def test_of_many_that_replace_the_same_version_at_once_one_wins(table: Table) -> None:
    old = table.insert(Row("p", "r", {"winner": -1}))
    together = threading.Barrier(6)
    won: list[int] = []

    def write(number: int) -> None:
        together.wait(10)
        try:
            table.transact([("replace", Row("p", "r", {"winner": number}, old.etag)), ("upsert", Row("p", "s", {}))])
        except Stale:
            return
        won.append(number)

    _in_threads(write, 6)

    (winner,) = won
    assert table.get("p", "r").columns == {"winner": winner}


def test_keys_are_told_apart_by_case_and_any_legal_character_may_be_in_them(table: Table) -> None:
    keys = ["R", "r", "o'k %20+&", "é", "😀", "x" * 512]
    for key in keys:
        table.insert(Row("it's", key, {"key": key}))

    assert [table.get("it's", key).columns["key"] for key in keys] == keys


def test_keys_are_ordered_by_their_characters_codes(table: Table) -> None:
    for key in ["b", "B", "_", "é", "10", "9", "-", "`", "a"]:
        table.insert(Row("p", key, {}))

    assert [row.key for row in table.query("p")] == ["-", "10", "9", "B", "_", "`", "a", "b", "é"]
    assert [row.key for row in table.query("p", "9", "a")] == ["9", "B", "_", "`"]


def test_a_query_with_limit_zero_finds_nothing(table: Table) -> None:
    table.insert(Row("p", "r", {}))

    assert table.query("p", limit=0) == []


def test_a_query_returns_a_range_of_one_partition_in_key_order(store: Store, table: Table) -> None:
    for partition, key in [("p", "c"), ("p", "a"), ("q", "b"), ("p", "d"), ("p", "b")]:
        table.insert(Row(partition, key, {}))
    before = len(store.requests)

    assert [row.key for row in table.query("p")] == ["a", "b", "c", "d"]
    assert [row.key for row in table.query("p", "b", "d")] == ["b", "c"]
    assert [row.key for row in table.query("p", key_from="b", limit=2)] == ["b", "c"]
    assert table.query("p", limit=1)[0] == table.get("p", "a")
    assert len(store.requests) == before + 5


def test_a_query_follows_the_pages_of_the_service(store: Store, table: Table) -> None:
    for hundred in range(11):
        table.transact([("insert", Row("p", f"{hundred:02}-{number:02}", {})) for number in range(100)])

    assert len(table.query("p")) == 1_100
    assert len(table.query("p", limit=1_050)) == 1_050


def test_one_row_of_each_partition_in_a_range_comes_page_by_page(store: Store, table: Table) -> None:
    for partition in ["p-", "p-b", "p-B", "p-10", "p-a", "p.", "q-a"]:
        table.insert(Row(partition, "deal", {}))
        table.insert(Row(partition, "other", {}))
    before = len(store.requests)

    first = table.across("deal", "p-", "p.", 3)
    rest = table.across("deal", first[-1].partition, "p.", 3)

    assert [(row.partition, row.key) for row in first] == [("p-10", "deal"), ("p-B", "deal"), ("p-a", "deal")]
    assert [row.partition for row in rest] == ["p-b"]
    assert len(store.requests) == before + 2
    assert store.table("Missing").across("deal", "p-", "p.", 3) == []


def test_a_transaction_writes_all_its_rows_in_one_request(store: Store, table: Table) -> None:
    old = table.insert(Row("p", "old", {"a": 1}))
    before = len(store.requests)

    written = table.transact(
        [
            ("replace", Row("p", "old", {"a": 2}, old.etag)),
            ("insert", Row("p", "new", {"b": 1})),
            ("upsert", Row("p", "any", {"c": 1})),
        ]
    )

    assert len(store.requests) == before + 1
    assert sorted(written, key=lambda row: row.key) == table.query("p")


@pytest.mark.parametrize(
    ("last", "error"),
    [
        (("insert", Row("p", "there", {"a": 9})), AlreadyThere),
        (("replace", Row("p", "there", {"a": 9}, "W/\"datetime'2020-01-01T00%3A00%3A00.0000000Z'\"")), Stale),
        (("replace", Row("p", "gone", {"a": 9}, "W/\"datetime'2020-01-01T00%3A00%3A00.0000000Z'\"")), Stale),
    ],
)
def test_a_transaction_that_fails_leaves_nothing_behind(table: Table, last: Any, error: type[Exception]) -> None:
    there = table.insert(Row("p", "there", {"a": 1}))

    with pytest.raises(error, match=f"p {last[1].key} "):
        table.transact([("insert", Row("p", "new", {})), ("upsert", Row("p", "any", {})), last])

    assert table.query("p") == [there]


@pytest.mark.parametrize("count", [1, 100])
def test_rows_are_deleted_together_whatever_their_version(store: Store, table: Table, count: int) -> None:
    rows = [Row("p", f"{number:03d}", {"a": "x" * 15_000}) for number in range(count)]
    for row in rows:
        table.upsert(row)
    kept = table.upsert(Row("p", "kept", {}))
    before = len(store.requests)

    table.transact([("delete", Row("p", row.key, {})) for row in rows])

    assert len(store.requests) == before + 1
    assert table.query("p") == [kept]


@pytest.mark.parametrize("others", [[], [("upsert", Row("p", "new", {}))], [("delete", Row("p", "there", {}))]])
def test_of_rows_deleted_together_each_must_be_there(table: Table, others: Any) -> None:
    there = table.insert(Row("p", "there", {}))

    with pytest.raises(Stale, match="p gone has changed"):
        table.transact([*others, ("delete", Row("p", "gone", {}))])

    assert table.query("p") == [there]


def test_a_write_whose_answer_got_lost_is_found_done(azurite_store: AzuriteStore, azurite_table: Table) -> None:
    store, table = azurite_store, azurite_table
    table.insert(Row("p", "first", {}))
    store.lose_answers(1)
    inserted = table.insert(Row("p", "r", {"a": 1}))
    store.lose_answers(1)
    replaced = table.replace(Row("p", "r", {"a": 2}, inserted.etag))
    store.lose_answers(1)
    both = table.transact([("replace", Row("p", "r", {"a": 3}, replaced.etag)), ("insert", Row("p", "s", {"b": 1}))])
    store.lose_answers(1)
    table.transact([("delete", Row("p", "first", {}))])

    assert both == table.query("p")


def test_a_lost_answer_does_not_hide_that_the_row_is_another_ones(
    azurite_store: AzuriteStore, azurite_table: Table
) -> None:
    store, table = azurite_store, azurite_table
    old = table.insert(Row("p", "r", {"owner": "them"}))
    newer = table.replace(old)
    store.lose_answers(1)

    with pytest.raises(AlreadyThere):
        table.insert(Row("p", "r", {"owner": "us"}))
    store.lose_answers(1)
    with pytest.raises(Stale):
        table.replace(Row("p", "r", {"owner": "us"}, old.etag))

    assert table.get("p", "r") == newer


def test_a_store_that_never_answers_is_given_up_as_unavailable(
    azurite_store: AzuriteStore, azurite_table: Table
) -> None:
    store, table = azurite_store, azurite_table
    table.insert(Row("p", "r", {}))
    before = len(store.requests)
    store.lose_answers(100)

    with pytest.raises(Unavailable, match="Table Storage"):
        table.get("p", "r")

    assert len(store.requests) == before + 3


@pytest.mark.parametrize("key", ["", "a/b", "a\\b", "a#b", "a?b", "a\tb", "a\x7fb", "x" * 513])
def test_an_illegal_key_is_refused_before_anything_is_sent(store: Store, table: Table, key: str) -> None:
    for ask in (
        lambda: table.insert(Row("p", key, {})),
        lambda: table.insert(Row(key, "r", {})),
        lambda: table.get("p", key),
        lambda: table.delete(key, "r"),
    ):
        with pytest.raises(ValueError, match="cannot be a table key"):
            ask()

    assert store.requests == []


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "1 to 100 rows"),
        ([Row("p", str(number), {}) for number in range(101)], "1 to 100 rows"),
        ([Row("p", "r", {}), Row("q", "r", {})], "one partition"),
        ([Row("p", "r", {}), Row("p", "r", {})], "each once"),
        ([Row("p", "r", {"a-b": 1})], "no column name"),
        ([Row("p", "r", {"a": 2**31})], "32 bits"),
        ([Row("p", "r", {f"c{number}": 1 for number in range(253)})], "at most 252"),
    ],
)
def test_a_transaction_the_service_would_refuse_is_not_sent(
    store: Store, table: Table, rows: list[Row], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        table.transact([("insert", row) for row in rows])

    assert store.requests == []


@pytest.mark.parametrize("text", ["x" * 32_768, "😀" * 16_384])
def test_a_text_of_64_kib_is_taken_and_one_character_more_is_refused(table: Table, text: str) -> None:
    table.insert(Row("p", "r", {"a": text}))

    with pytest.raises(Refused, match="Table Storage refused") as refused:
        table.transact([("upsert", Row("p", "other", {})), ("upsert", Row("p", "r", {"a": text + "x"}))])

    assert refused.value.code == "PropertyValueTooLarge"
    assert [row.columns for row in table.query("p")] == [{"a": text}]


def test_a_row_too_large_only_in_the_services_own_units_is_not_sent(store: Store, table: Table) -> None:
    columns = {f"part_{letter}": "😀" * 15_000 for letter in "abcdefghijklmnopqrst"}

    with pytest.raises(Refused, match="bytes"):
        table.insert(Row("p", "r", columns))  # Azurite would take it

    assert store.requests == []


def test_a_row_too_large_for_the_service_is_refused_with_its_name_and_what_to_do(table: Table) -> None:
    with pytest.raises(Refused, match=r"row p r would take [\d,]+ bytes; Table Storage takes 1,048,576") as refused:
        table.insert(Row("p", "r", columns({"base": "x" * 600_000})))

    assert "Shorten" in refused.value.next_step


def test_the_largest_row_that_is_let_through_is_taken_by_the_store(table: Table) -> None:
    row = Row("p", "r", columns({"base": "x" * 520_000}))

    table.insert(row)

    assert table.get("p", "r").columns == row.columns


def test_a_refused_key_of_the_account_is_forbidden_and_says_which_roles_are_needed(azurite_store: AzuriteStore) -> None:
    secret = azurite_store.settings.connection.get_secret_value().replace("AccountKey=E", "AccountKey=F")
    wrong = settings.load(StorageSettings, {"AzureWebJobsStorage": secret})

    with pytest.raises(Forbidden, match="403") as forbidden:
        TableStorage(wrong, patience=BRISK).table("Rows").get("p", "r")

    assert "Storage Table Data Contributor" in forbidden.value.next_step


def test_errors_are_understood_by_their_body_alone(azurite_store: AzuriteStore, azurite_table: Table) -> None:
    table = azurite_table
    azurite_store.name_error_codes_in_bodies_only()

    old = table.insert(Row("p", "r", {"a": 1}))
    newer = table.replace(Row("p", "r", {"a": 2}, old.etag))

    with pytest.raises(AlreadyThere):
        table.insert(Row("p", "r", {}))
    with pytest.raises(Stale):
        table.replace(old)
    assert table.get("p", "s") is None
    assert table.get("p", "r") == newer


def test_a_storage_that_nobody_serves_is_unavailable() -> None:
    nobody = settings.load(
        StorageSettings,
        {"AzureWebJobsStorage": "AccountName=a;AccountKey=YQ==;TableEndpoint=http://127.0.0.1:9/a"},
    )

    with pytest.raises(
        Unavailable, match=r"Table Storage gave no usable answer: .*refused.*AzureWebJobsStorage"
    ) as told:
        TableStorage(nobody, patience=BRISK).table("Rows").insert(Row("p", "r", {}))

    assert "/Rows" not in str(told.value)


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({"AzureWebJobsStorage__accountName": "deals"}, "https://deals.table.core.windows.net"),
        (
            {
                "AzureWebJobsStorage__tableServiceUri": "https://deals.table.core.chinacloudapi.cn",
                "AzureWebJobsStorage__queueServiceUri": "https://deals.queue.core.chinacloudapi.cn",
                "AzureWebJobsStorage__clientId": "00000000-0000-4000-8000-000000000001",
            },
            "https://deals.table.core.chinacloudapi.cn",
        ),
    ],
)
def test_without_a_connection_string_the_identity_signs_in_at_the_accounts_address(
    environ: dict[str, str], url: str
) -> None:
    client = TableStorage(settings.load(StorageSettings, environ)).client("Rows")

    assert client.url == url
    assert isinstance(client.credential, DefaultAzureCredential)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.text(st.characters(categories=["Cs", "Ll", "So"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


LONG = st.builds(str.__mul__, st.text(min_size=1, max_size=3), st.integers(1, 40_000))


@given(st.dictionaries(st.from_regex(r"[a-z]([a-z_]{0,8}[a-z])?", fullmatch=True), JSON | LONG))
def test_a_document_comes_back_from_its_columns(found: dict[str, Any]) -> None:
    found = {name: value for name, value in found.items() if not isinstance(value, int) or abs(value) < 2**31}

    made = columns(found)

    # JSON itself joins two halves of a surrogate pair that stood side by side.
    assert document(made) == json.loads(json.dumps({name: value for name, value in found.items() if value is not None}))
    assert all(len(value.encode("utf-16-le")) <= 65_536 for value in made.values() if isinstance(value, str))


def test_a_long_value_is_split_over_columns_in_reading_order() -> None:
    made = columns({"base": {"note": "x" * 330_000}})

    assert list(made) == [f"base{number}" for number in range(12)]
    assert document(dict(sorted(made.items()))) == {"base": {"note": "x" * 330_000}}


def test_a_name_that_would_be_taken_for_a_part_is_refused() -> None:
    with pytest.raises(ValueError, match="address1"):
        columns({"address1": "Here"})


def _in_threads(work: Any, count: int) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()

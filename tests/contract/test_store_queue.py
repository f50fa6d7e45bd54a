"""What every Queue promises, and what the Functions host has to find in Storage."""

from __future__ import annotations

import base64
import subprocess
import sys
import time

import pytest
from azure.storage.queue import QueueClient

from shared import settings
from shared.errors import Forbidden, Unavailable
from shared.messages import SyncRequest
from shared.settings import StorageSettings
from shared.store.queue import PATIENCE, Queue, WorkQueue
from tests.contract.stores import IMPLEMENTATIONS, AzuriteStore, Store

REQUEST = SyncRequest(
    cause="webhook", referral_id="r1", version="2026-11-20T10:00:00.1234567Z", event="referral-updated"
)


@pytest.fixture(params=IMPLEMENTATIONS)
def store(request: pytest.FixtureRequest, storage_connection: str) -> Store:
    return request.param(storage_connection)


@pytest.fixture
def queue(store: Store) -> Queue:
    return store.queue()


@pytest.fixture
def azurite_store(storage_connection: str) -> AzuriteStore:
    return AzuriteStore(storage_connection)


def as_the_host_sees(store: AzuriteStore, name: str = "") -> QueueClient:
    connection = store.settings.connection.get_secret_value()
    return QueueClient.from_connection_string(connection, name or store.name, retry_total=0)


def test_a_queue_that_does_not_exist_yet_is_empty(queue: Queue) -> None:
    assert (queue.length(), queue.poison_length()) == (0, 0)


def test_the_first_message_creates_the_queue_and_each_further_one_is_one_request(store: Store, queue: Queue) -> None:
    queue.send(REQUEST)
    first = len(store.requests)
    queue.send(REQUEST)

    assert first == 3  # refused, created, repeated
    assert len(store.requests) == 4
    assert queue.length() == 2


def test_a_missing_queue_is_understood_by_the_body_alone(azurite_store: AzuriteStore) -> None:
    azurite_store.name_error_codes_in_bodies_only()
    queue = azurite_store.queue()

    queue.send(REQUEST)

    assert queue.length() == 1


def test_the_host_finds_the_message_in_base64_and_it_never_expires(azurite_store: AzuriteStore) -> None:
    azurite_store.queue().send(REQUEST)

    (message,) = as_the_host_sees(azurite_store).receive_messages()

    assert SyncRequest.model_validate_json(base64.b64decode(message.content)) == REQUEST
    assert message.expires_on.year == 9999


def test_a_delayed_message_waits_unseen_but_is_counted(azurite_store: AzuriteStore) -> None:
    queue = azurite_store.queue()
    queue.send(REQUEST, delay_s=2.2)
    host = as_the_host_sees(azurite_store)
    began = time.monotonic()

    assert list(host.receive_messages()) == []
    assert queue.length() == 1
    while not (found := list(host.receive_messages())):
        assert time.monotonic() < began + 15, "the message never became visible"
        time.sleep(0.1)

    assert found[0].inserted_on < found[0].next_visible_on
    assert time.monotonic() - began > 1.5


def test_a_delay_longer_than_the_service_takes_is_cut_to_its_longest(azurite_store: AzuriteStore) -> None:
    queue = azurite_store.queue()

    queue.send(REQUEST, delay_s=30 * 24 * 3600)

    assert queue.length() == 1


def test_given_up_messages_are_counted_where_the_host_puts_them(azurite_store: AzuriteStore) -> None:
    queue = azurite_store.queue()
    poison = as_the_host_sees(azurite_store, f"{azurite_store.name}-poison")
    poison.create_queue()
    poison.send_message("x")

    assert (queue.length(), queue.poison_length()) == (0, 1)


def test_a_lost_answer_leaves_the_message_in_the_queue(store: Store, queue: Queue) -> None:
    queue.send(REQUEST)
    store.lose_answers(1)

    queue.send(REQUEST)

    assert queue.length() in (2, 3)  # twice is no harm: a message only says "look"


def test_a_queue_that_never_answers_is_given_up_as_unavailable(store: Store, queue: Queue) -> None:
    queue.send(REQUEST)
    before = len(store.requests)
    store.lose_answers(100)

    with pytest.raises(Unavailable, match="Queue Storage"):
        queue.send(REQUEST)

    assert len(store.requests) == before + 3


def test_a_queue_that_nobody_serves_is_unavailable_before_a_webhook_sender_gives_up() -> None:
    connection = "AccountName=a;AccountKey=YQ==;QueueEndpoint=http://127.0.0.1:9/a"
    queue = WorkQueue(settings.load(StorageSettings, {"AzureWebJobsStorage": connection}))
    began = time.monotonic()

    with pytest.raises(Unavailable, match="Queue Storage gave no usable answer"):
        queue.send(REQUEST)

    assert time.monotonic() - began < 5
    assert PATIENCE.attempts == 2


def test_a_refused_key_of_the_account_is_forbidden(azurite_store: AzuriteStore) -> None:
    secret = azurite_store.settings.connection.get_secret_value().replace("AccountKey=E", "AccountKey=F")
    wrong = WorkQueue(settings.load(StorageSettings, {"AzureWebJobsStorage": secret}))

    with pytest.raises(Forbidden, match="403"):
        wrong.send(REQUEST)


def test_the_store_loads_no_azure_package_before_it_is_used() -> None:
    program = (
        "import sys, shared.store.queue, shared.store.deals, shared.store.cursors, shared.store.failures;"
        "print([name for name in sys.modules if name.startswith(('azure.', 'requests'))])"
    )

    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)

    assert loaded.stdout.strip() == "[]"

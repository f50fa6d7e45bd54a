"""What every Queue promises, and what the Functions host has to find in Storage."""

from __future__ import annotations

import base64
import subprocess
import sys
import threading
import time

import pytest
from azure.storage.queue import QueueClient

from shared import settings
from shared.errors import Forbidden, Refused, Unavailable
from shared.messages import SyncRequest
from shared.settings import StorageSettings
from shared.store.queue import PATIENCE, Queue, WorkQueue
from tests.contract.stores import AzuriteStore, Store, VirtualClock
from tests.memory_storage import MemoryQueue, Received

REQUEST = SyncRequest(
    cause="webhook", referral_id="r1", version="2026-11-20T10:00:00.1234567Z", event="referral-updated"
)


@pytest.fixture
def queue(store: Store) -> Queue:
    return store.queue()


@pytest.fixture
def azurite_store(storage_connection: str) -> AzuriteStore:
    return AzuriteStore(storage_connection)


def as_the_host_sees(store: AzuriteStore, name: str = "") -> QueueClient:
    connection = store.settings.connection.get_secret_value()
    return QueueClient.from_connection_string(connection, name or store.name, retry_total=0)


def once_seen(store: Store, visibility_s: int) -> tuple[Received, float]:
    """Return the one message that can be seen, once it can, and about how long that took in the store's own time."""
    waited_s = 0.0
    while not (found := store.receive(visibility_s)):
        assert waited_s < 15, "the message never became visible"
        store.let_pass(0.1)
        waited_s += 0.1
    (message,) = found
    return message, waited_s


def test_a_queue_that_does_not_exist_yet_is_empty(queue: Queue) -> None:
    assert (queue.length(), queue.poison_length()) == (0, 0)


def test_the_first_message_creates_the_queue_and_each_further_one_is_one_request(azurite_store: AzuriteStore) -> None:
    store, queue = azurite_store, azurite_store.queue()

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


def test_the_host_is_handed_what_was_sent(store: Store, queue: Queue) -> None:
    queue.send(REQUEST)

    ((body, dequeue_count, _receipt),) = store.receive(visibility_s=60)

    assert SyncRequest.model_validate_json(body) == REQUEST
    assert dequeue_count == 1


def test_a_delayed_message_waits_unseen_but_is_counted(store: Store, queue: Queue) -> None:
    queue.send(REQUEST, delay_s=2.2)

    assert store.receive(visibility_s=60) == []
    assert queue.length() == 1
    found, waited_s = once_seen(store, visibility_s=60)
    assert found.dequeue_count == 1
    assert waited_s > 1.5


def test_a_received_message_is_unseen_and_comes_back_unless_it_is_deleted(store: Store, queue: Queue) -> None:
    queue.send(REQUEST)
    ((body, _, first_receipt),) = store.receive(visibility_s=1)

    assert store.receive(visibility_s=60) == []
    assert queue.length() == 1
    again, _ = once_seen(store, visibility_s=60)
    assert (again.body, again.dequeue_count) == (body, 2)
    with pytest.raises(LookupError):
        store.delete(first_receipt)
    assert queue.length() == 1
    store.delete(again.receipt)
    assert queue.length() == 0


def test_a_receipt_is_good_until_another_receives_the_message(store: Store, queue: Queue) -> None:
    queue.send(REQUEST)
    ((_, _, receipt),) = store.receive(visibility_s=1)
    store.let_pass(1.2)

    store.delete(receipt)

    assert store.receive(visibility_s=60) == []
    with pytest.raises(LookupError):
        store.delete(receipt)


def test_messages_are_handed_out_oldest_first_and_32_at_once(store: Store, queue: Queue) -> None:
    for number in range(35):
        queue.send(REQUEST.model_copy(update={"referral_id": f"r{number}"}))

    pages = [store.receive(visibility_s=60), store.receive(visibility_s=60)]

    ids = [SyncRequest.model_validate_json(each.body).referral_id for page in pages for each in page]
    assert [len(page) for page in pages] == [32, 3]
    assert ids == [f"r{number}" for number in range(35)]


def test_a_message_larger_than_the_service_takes_is_refused(queue: Queue) -> None:
    with pytest.raises(Refused, match="Queue Storage") as refused:
        queue.send(REQUEST.model_copy(update={"referral_id": "r" * 50_000}))

    assert refused.value.code == "RequestBodyTooLarge"
    assert queue.length() == 0


def test_a_negative_delay_is_refused(queue: Queue) -> None:
    with pytest.raises(Refused, match="Queue Storage") as refused:
        queue.send(REQUEST, delay_s=-5)

    assert refused.value.code == "OutOfRangeQueryParameterValue"


def test_a_delay_longer_than_the_service_takes_is_cut_to_its_longest(queue: Queue) -> None:
    queue.send(REQUEST, delay_s=30 * 24 * 3600)

    assert queue.length() == 1


def test_given_up_messages_are_counted_where_the_host_puts_them(azurite_store: AzuriteStore) -> None:
    queue = azurite_store.queue()
    poison = as_the_host_sees(azurite_store, f"{azurite_store.name}-poison")
    poison.create_queue()
    poison.send_message("x")

    assert (queue.length(), queue.poison_length()) == (0, 1)


def test_in_memory_a_message_given_up_lies_in_the_poison_queue() -> None:
    queue = MemoryQueue(VirtualClock())
    queue.send(REQUEST)
    ((body, _, receipt),) = queue.receive(visibility_s=60)

    queue.give_up(receipt)

    assert (queue.length(), queue.poison_length()) == (0, 1)
    assert queue.given_up() == [body]
    with pytest.raises(LookupError):
        queue.give_up(receipt)


def test_many_receivers_at_once_never_hold_the_same_message(store: Store, queue: Queue) -> None:
    for number in range(40):
        queue.send(REQUEST.model_copy(update={"referral_id": f"r{number}"}))
    received: list[Received] = []

    def work() -> None:
        while page := store.receive(visibility_s=60):
            for message in page:
                store.delete(message.receipt)
            received.extend(page)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()

    assert len({message.body for message in received}) == len(received) == 40
    assert queue.length() == 0


def test_a_lost_answer_leaves_the_message_in_the_queue(azurite_store: AzuriteStore) -> None:
    store, queue = azurite_store, azurite_store.queue()
    queue.send(REQUEST)
    store.lose_answers(1)

    queue.send(REQUEST)

    assert queue.length() in (2, 3)  # twice is no harm: a message only says "look"


def test_a_queue_that_never_answers_is_given_up_as_unavailable(azurite_store: AzuriteStore) -> None:
    store, queue = azurite_store, azurite_store.queue()
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

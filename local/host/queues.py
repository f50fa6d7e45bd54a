"""Feeds queue messages to queue functions and settles them: deleted, tried again later, or poison. Also writes outputs.

The rules are those of the Storage extension: https://learn.microsoft.com/azure/azure-functions/functions-bindings-storage-queue-trigger
A message is leased while its function runs; when the process dies, the lease ends and the message comes back.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from azure.core.exceptions import AzureError, ResourceExistsError, ResourceNotFoundError
from azure.functions.meta import Datum
from azure.storage.queue import LinearRetry, QueueClient, QueueServiceClient

from local.host.configuration import QueueOptions, storage_connection_string
from local.host.functions import Binding, Function, InvocationFailed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from azure.storage.queue import QueueMessage

log = logging.getLogger("local.host")

POISON_SUFFIX = "-poison"
LONGEST_QUEUE_NAME = 63
SHORTEST_POLLING_INTERVAL_S = 0.1


class Queues:
    """The queues that bindings name, one storage client per connection setting."""

    def __init__(self, environment: Mapping[str, str], message_encoding: str) -> None:
        self._environment = environment
        self._base64 = message_encoding == "base64"
        self._services: dict[str, QueueServiceClient] = {}

    def client(self, binding: Binding, suffix: str = "") -> QueueClient:
        setting = str(binding.get("connection") or "AzureWebJobsStorage")
        if setting not in self._services:
            where = f"queue binding {binding['name']}"
            self._services[setting] = QueueServiceClient.from_connection_string(
                storage_connection_string(setting, self._environment, where),
                # The default waits 15 s before its first retry. The texts are encoded and decoded here, not in the
                # client, because one bad message must not spoil the batch it came with.
                retry_policy=LinearRetry(backoff=1, retry_total=2, random_jitter_range=0),
            )
        return self._services[setting].get_queue_client(str(binding["queueName"]) + suffix)

    def write(self, binding: Binding, messages: list[bytes]) -> None:
        """Write what a handler set on an output binding. Raises AzureError."""
        queue = self.client(binding)
        for body in messages:
            send(queue, base64.b64encode(body).decode() if self._base64 else body.decode())

    def decode(self, text: str) -> bytes:
        """Raises ValueError for a text that is not in the configured encoding."""
        return base64.b64decode(text, validate=True) if self._base64 else text.encode()


def send(queue: QueueClient, text: str) -> None:
    try:
        queue.send_message(text)
    except ResourceNotFoundError:
        _create(queue)
        queue.send_message(text)


def _create(queue: QueueClient) -> None:
    try:
        queue.create_queue()
    except ResourceExistsError:
        # Another host was faster.
        return


class Lease:
    """The right to one message. Each renewal changes the receipt, so renewing and settling take turns."""

    def __init__(self, queue: QueueClient, message: QueueMessage, lease_s: int) -> None:
        self.message = message
        self._queue = queue
        self._lease_s = lease_s
        self._receipt = str(message.pop_receipt)
        self._lock = threading.Lock()
        self._renew_at = time.monotonic() + lease_s / 2
        self._settled = False

    def renew_if_half_elapsed(self) -> None:
        with self._lock:
            if not self._settled and time.monotonic() >= self._renew_at:
                self._renew_at = time.monotonic() + self._lease_s / 2
                self._set_visibility(self._lease_s)

    def delete(self) -> None:
        with self._lock:
            self._settled = True
            self._queue.delete_message(self.message.id, pop_receipt=self._receipt)

    def release(self, visible_after_s: int) -> None:
        with self._lock:
            self._settled = True
            self._set_visibility(visible_after_s)

    def abandon(self) -> None:
        """Let the message come back when the lease ends."""
        with self._lock:
            self._settled = True

    def _set_visibility(self, visible_after_s: int) -> None:
        updated = self._queue.update_message(
            self.message.id,
            pop_receipt=self._receipt,
            content=self.message.content,
            visibility_timeout=visible_after_s,
        )
        self._receipt = str(updated.pop_receipt)


class QueueListener:
    """Polls the queue of one function and runs the function for each message."""

    def __init__(self, function: Function, queues: Queues, options: QueueOptions, lease_s: int) -> None:
        self.function = function
        self.queue_name = str(function.trigger["queueName"])
        self._queues = queues
        self._options = options
        self._lease_s = lease_s
        self._queue = queues.client(function.trigger)
        has_poison_queue = (
            not self.queue_name.endswith(POISON_SUFFIX) and len(self.queue_name + POISON_SUFFIX) <= LONGEST_QUEUE_NAME
        )
        self._poison_queue = queues.client(function.trigger, POISON_SUFFIX) if has_poison_queue else None
        self._leases: dict[str, Lease] = {}
        self._room = threading.Condition()
        self._stopped = threading.Event()
        self._drained = threading.Event()
        most_at_once = options.batch_size + options.new_batch_threshold
        self._workers = ThreadPoolExecutor(most_at_once, thread_name_prefix=f"queue-{self.queue_name}")
        self._threads = [
            threading.Thread(target=loop, name=f"{loop.__name__}-{self.queue_name}", daemon=True)
            for loop in (self._poll, self._renew)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Take no more messages; those being handled are settled, their leases renewed until then."""
        self._stopped.set()
        with self._room:
            self._room.notify()
        polling, renewing = self._threads
        polling.join()
        self._workers.shutdown(wait=True)
        self._drained.set()
        renewing.join()

    def run_now(self, body: bytes) -> None:
        """Run the function for a message that never was in the queue."""
        try:
            self.function.invoke(Datum(body, "bytes"), {"DequeueCount": Datum("1", "json")})
        except InvocationFailed:
            log.info("queue.no_retry_of_a_manual_run", extra={"function": self.function.name})

    def _poll(self) -> None:
        longest_s = self._options.max_polling_interval.total_seconds()
        misses = 0
        while not self._stopped.is_set():
            self._wait_for_room()
            try:
                found = self._receive()
            except ResourceNotFoundError:
                found = self._create_queue()
            except AzureError:
                log.exception("queue.poll_failed", extra={"queue": self.queue_name})
                found = 0
            misses = 0 if found else misses + 1
            growth = random.uniform(0.8, 1.2) * 2 ** min(misses - 1, 20) if misses else 0  # noqa: S311
            self._stopped.wait(min(SHORTEST_POLLING_INTERVAL_S * (1 + growth), longest_s))

    def _wait_for_room(self) -> None:
        with self._room:
            self._room.wait_for(
                lambda: self._stopped.is_set() or len(self._leases) <= self._options.new_batch_threshold
            )

    def _receive(self) -> int:
        """Start a worker for each message of one batch; returns how many there were."""
        if self._stopped.is_set():
            return 0
        # by_page(), because plain iteration would ask again until the queue is empty.
        pages = self._queue.receive_messages(
            messages_per_page=self._options.batch_size, visibility_timeout=self._lease_s
        ).by_page()
        batch = [Lease(self._queue, message, self._lease_s) for message in next(pages, ())]
        with self._room:
            self._leases |= {lease.message.id: lease for lease in batch}
        for lease in batch:
            self._workers.submit(self._handle, lease)
        return len(batch)

    def _create_queue(self) -> int:
        try:
            _create(self._queue)
        except AzureError:
            log.exception("queue.create_failed", extra={"queue": self.queue_name})
        return 0

    def _renew(self) -> None:
        while not self._drained.wait(self._lease_s / 8):
            for lease in list(self._leases.values()):
                try:
                    lease.renew_if_half_elapsed()
                except AzureError:
                    log.exception("queue.lease_not_renewed", extra=self._names(lease))

    def _handle(self, lease: Lease) -> None:
        try:
            self._run_and_settle(lease)
        except Exception:
            # What was not settled comes back when its lease ends.
            log.exception("queue.message_not_settled", extra=self._names(lease))
        finally:
            with self._room:
                del self._leases[lease.message.id]
                self._room.notify()

    def _run_and_settle(self, lease: Lease) -> None:
        message = lease.message
        attempts = message.dequeue_count or 1
        try:
            body = self._queues.decode(str(message.content))
        except (ValueError, binascii.Error):
            log.error("queue.message_not_decodable", extra=self._names(lease))  # noqa: TRY400 - the text may be private
            self._give_up(lease)
            return
        if attempts > self._options.max_dequeue_count and self._poison_queue:
            # Its earlier attempts ended with the process, not with an answer.
            self._give_up(lease)
            return
        try:
            self.function.invoke(Datum(body, "bytes"), _metadata(message))
        except InvocationFailed:
            if attempts >= self._options.max_dequeue_count or not self._poison_queue:
                self._give_up(lease)
            else:
                lease.release(int(self._options.visibility_timeout.total_seconds()))
        else:
            lease.delete()

    def _give_up(self, lease: Lease) -> None:
        """Move the message to the poison queue; a queue without one keeps it until its lease ends."""
        if self._poison_queue is None:
            lease.abandon()
            return
        send(self._poison_queue, str(lease.message.content))
        lease.delete()
        log.warning("queue.message_is_poison", extra=self._names(lease))

    def _names(self, lease: Lease) -> dict[str, object]:
        message = lease.message
        return {"queue": self.queue_name, "message_id": message.id, "attempt": message.dequeue_count}


def _metadata(message: QueueMessage) -> dict[str, Datum]:
    return {
        "Id": Datum(message.id, "string"),
        "PopReceipt": Datum(message.pop_receipt, "string"),
        "DequeueCount": Datum(json.dumps(message.dequeue_count), "json"),
        "InsertionTime": _moment(message.inserted_on),
        "ExpirationTime": _moment(message.expires_on),
        "NextVisibleTime": _moment(message.next_visible_on),
    }


def _moment(moment: datetime | None) -> Datum:
    return Datum(json.dumps(moment and moment.isoformat()), "json")

"""Queues: puts messages on one and says how many wait. Never takes one off: the host does."""

from __future__ import annotations

from math import ceil
from threading import Lock
from typing import TYPE_CHECKING, Protocol

from shared.errors import Unavailable
from shared.settings import StorageSettings
from shared.store.account import Patience, client_options, credential, error_code, meaning

if TYPE_CHECKING:
    import requests
    from azure.storage.queue import QueueClient, QueueServiceClient

SYNC_REQUESTS = "sync-requests"
RELAY_REQUESTS = "webhook-relays"

# A webhook waits for the answer, so give up sooner than its sender does.
PATIENCE = Patience(attempts=2, total_s=4, connect_timeout_s=2, read_timeout_s=3)
REMOTE = "Queue Storage"
NEVER_EXPIRES = -1
LONGEST_DELAY_S = 7 * 24 * 3600


class Message(Protocol):
    """SyncRequest or RelayRequest."""

    def encode(self) -> str: ...


class Queue(Protocol):
    """What the triggers and the worker need of a queue. Safe to call from several threads."""

    def send(self, request: Message, delay_s: float = 0) -> None:
        """Return once the message is stored. `delay_s`: how long it stays unseen. Raises Unavailable."""
        ...

    def length(self) -> int:
        """Return about how many messages wait, those being worked on included."""
        ...

    def poison_length(self) -> int:
        """Return about how many messages were given up."""
        ...


class WorkQueue:
    """A queue in the storage account. Connects on first use; created by the first message that misses it."""

    def __init__(
        self,
        settings: StorageSettings,
        *,
        name: str = SYNC_REQUESTS,
        session: requests.Session | None = None,
        patience: Patience = PATIENCE,
    ) -> None:
        self._settings = settings
        self._name = name
        # The host's own name for where it puts messages that keep failing.
        # https://learn.microsoft.com/azure/azure-functions/functions-bindings-storage-queue-trigger#poison-messages
        self._poison_name = f"{name}-poison"
        self._session = session
        self._patience = patience
        self._lock = Lock()
        self._service: QueueServiceClient | None = None
        self._clients: dict[str, QueueClient] = {}

    def send(self, request: Message, delay_s: float = 0) -> None:
        from azure.core.exceptions import AzureError, ResourceExistsError

        def attempt(_repeated: bool) -> None:
            client = self._client(self._name)
            try:
                client.send_message(
                    request.encode(),
                    visibility_timeout=min(ceil(delay_s), LONGEST_DELAY_S),
                    time_to_live=NEVER_EXPIRES,
                )
            except AzureError as error:
                if error_code(error) != "QueueNotFound":
                    raise meaning(error, REMOTE) from error
            else:
                return
            try:
                client.create_queue()
            except ResourceExistsError:
                pass  # another worker was quicker
            except AzureError as error:
                raise meaning(error, REMOTE) from error
            raise Unavailable(f"{REMOTE}: {self._name} was created just now", remote=REMOTE)

        self._patience.repeat(attempt)

    def length(self) -> int:
        return self._length(self._name)

    def poison_length(self) -> int:
        return self._length(self._poison_name)

    def _length(self, name: str) -> int:
        from azure.core.exceptions import AzureError

        def attempt(_repeated: bool) -> int:
            try:
                return self._client(name).get_queue_properties().approximate_message_count or 0
            except AzureError as error:
                if error_code(error) == "QueueNotFound":
                    return 0
                raise meaning(error, REMOTE) from error

        return self._patience.repeat(attempt)

    def _client(self, name: str) -> QueueClient:
        from azure.storage.queue import TextBase64EncodePolicy

        with self._lock:
            if self._service is None:
                self._service = self._connect()
            if name not in self._clients:
                # The host expects Base64 unless host.json says otherwise; this package would send plain text.
                # https://learn.microsoft.com/azure/azure-functions/functions-bindings-storage-queue#host-json
                self._clients[name] = self._service.get_queue_client(
                    name, message_encode_policy=TextBase64EncodePolicy()
                )
            return self._clients[name]

    def _connect(self) -> QueueServiceClient:
        from azure.storage.queue import QueueServiceClient

        options = client_options(self._session, self._patience)
        if self._settings.connection:
            return QueueServiceClient.from_connection_string(self._settings.connection.get_secret_value(), **options)
        return QueueServiceClient(self._settings.service_uri("queue"), credential=credential(self._settings), **options)

"""From Partner Center's call over HTTP, through the real trigger, to the message in the queue on real Storage."""

from __future__ import annotations

import http.client
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import azure.functions as func
import pytest
import requests
from azure.storage.queue import QueueClient, TextBase64DecodePolicy

from local.host import Host, HostOptions
from local.simulators.base import Clock, InProcessAdapter, serve
from local.simulators.entra import EntraSimulator
from local.simulators.partner_center import RECIPES, CertificateHost, WebhooksSimulator
from local.simulators.pki import SigningPki
from shared.services import Services
from shared.settings import StorageSettings, WebhookSettings, load
from shared.store.queue import WorkQueue
from webhook_receiver import blueprint, bp
from webhook_receiver.certificates import webhook_verifier

real_verifier = blueprint.verifier

KEY = "the-function-key"
REFERRAL_ID = "c5fbb3b6-be74-4795-9fb5-4324c73fed37"
CHANGED = "2026-02-17T00:05:39.5485487Z"
REFERRAL_EVENTS = ["referral-created", "referral-updated", "related-referral-created", "related-referral-updated"]


class CountingSession(requests.Session):
    """Counts what the receiver asks of Storage before it answers."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def request(self, method: str | bytes, *args: Any, **options: Any) -> requests.Response:  # type: ignore[override]
        self.calls.append(str(method))
        return super().request(method, *args, **options)


class World:
    """The receiver behind a real HTTP server, the simulated sender, and the queue as the worker would find it."""

    def __init__(self, url: str, storage_connection: str, folder: Path) -> None:
        self.pki = SigningPki()
        self.clock = Clock()
        self.certificate_host = CertificateHost(self.pki)
        self.partner_center = WebhooksSimulator(EntraSimulator(), self.pki, clock=self.clock)
        self.url = f"{url}/api/webhook_receiver?code={KEY}"
        self.partner_center.another_tool_registers(self.url, ["test-created", *REFERRAL_EVENTS])
        trusted = folder / "trusted.pem"
        trusted.write_bytes(self.pki.trusted_pem)
        session = requests.Session()
        session.mount("https://", InProcessAdapter(self.certificate_host))
        self.verifier = webhook_verifier(
            load(WebhookSettings, {"WEBHOOK_TRUSTED_ROOTS_FILE": str(trusted)}), session=session, now=self.clock.now
        )
        name = f"test-{uuid4()}"
        self.storage = CountingSession()
        self.queue = WorkQueue(
            load(StorageSettings, {"AzureWebJobsStorage": storage_connection}), name=name, session=self.storage
        )
        self.messages = QueueClient.from_connection_string(
            storage_connection, name, message_decode_policy=TextBase64DecodePolicy()
        )
        self.messages.create_queue()

    def publish(self, event: str = "referral-updated", referral_id: str = REFERRAL_ID) -> None:
        self.partner_center.publish(event, referral_id, CHANGED)

    def deliver(self) -> list[int | None]:
        return [attempt.status for attempt in self.partner_center.deliver_pending()]

    def queued(self) -> list[dict[str, Any]]:
        """Take everything off the queue."""
        taken: list[dict[str, Any]] = []
        while batch := list(self.messages.receive_messages(max_messages=32)):
            for message in batch:
                taken.append(json.loads(message.content))
                self.messages.delete_message(message)
        return taken


@pytest.fixture(scope="module")
def host_url() -> Iterator[str]:
    app = func.FunctionApp()
    app.register_functions(bp)
    with Host(app, HostOptions(), {"LOCAL_FUNCTION_KEY": KEY}) as host:
        yield host.url


@pytest.fixture
def world(host_url: str, storage_connection: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World(host_url, storage_connection, tmp_path)
    monkeypatch.setattr(blueprint.services, "process_services", lambda: world)
    monkeypatch.setattr(blueprint, "verifier", lambda _: world.verifier)
    yield world
    world.messages.delete_queue()


@pytest.mark.parametrize("event", REFERRAL_EVENTS)
def test_an_event_becomes_one_message(world: World, event: str) -> None:
    world.publish(event)

    assert world.deliver() == [200]

    (message,) = world.queued()
    assert message.pop("correlation_id")
    assert message == {
        "schema_version": 1,
        "cause": "webhook",
        "referral_id": REFERRAL_ID,
        "version": "2026-02-17T00:05:39.5485487+00:00",
        "deleted": False,
        "event": event,
        "deferrals": 0,
    }


def test_an_answer_costs_one_storage_write(world: World) -> None:
    world.publish()
    world.publish()

    assert world.deliver() == [200, 200]

    assert world.storage.calls == ["POST", "POST"]
    assert world.certificate_host.log.count() == 1


def test_the_answer_names_the_call_as_the_message_does(world: World) -> None:
    body, headers = world.partner_center._compose(
        {"EventName": "referral-updated", "ResourceUri": f"https://a.example/referrals/{REFERRAL_ID}"}, None
    )

    answer = requests.post(world.url, body, headers=headers, timeout=10)

    assert (answer.status_code, answer.content) == (200, b"")
    assert [message["correlation_id"] for message in world.queued()] == [answer.headers["x-correlation-id"]]


# What a genuine call leads to, when it is not simply one message.
NOT_QUEUED = {"unknown-event", "resource-uri-null", "resource-uri-absent", "resource-uri-without-guid"}


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_forgery_is_refused_and_every_genuine_call_is_taken(world: World, recipe: str) -> None:
    attempt = world.partner_center.forge(recipe, referral_id=REFERRAL_ID)

    queued = [message["referral_id"] for message in world.queued()]
    if RECIPES[recipe].acceptable or (RECIPES[recipe].acceptable is None and attempt.status == 200):
        assert attempt.status == 200
        assert queued == ([] if recipe in NOT_QUEUED else [REFERRAL_ID])
    else:
        assert attempt.status == (503 if recipe in ("certificate-missing", "certificate-slow") else 401)
        assert queued == []
    assert attempt.answer == b""


def test_a_forgery_reaches_no_other_host_and_no_storage(world: World) -> None:
    for recipe in ("certificate-url-http", "certificate-url-other-host", "certificate-url-user-info", "sha1"):
        assert world.partner_center.forge(recipe).status == 401

    assert world.certificate_host.log.count() == 0
    assert world.storage.calls == []


def test_a_flood_of_forgeries_costs_one_download_and_no_storage(world: World) -> None:
    with ThreadPoolExecutor(8) as senders:
        attempts = list(senders.map(lambda _: world.partner_center.forge("body-changed"), range(100)))

    assert {attempt.status for attempt in attempts} == {401}
    assert world.certificate_host.log.count() == 1
    assert world.storage.calls == []


def test_a_burst_is_taken_whole(world: World) -> None:
    ids = [str(uuid4()) for _ in range(50)]

    with ThreadPoolExecutor(16) as senders:
        attempts = list(senders.map(lambda id_: world.partner_center.forge("extra-keys", referral_id=id_), ids))

    assert {attempt.status for attempt in attempts} == {200}
    assert sorted(message["referral_id"] for message in world.queued()) == sorted(ids)
    assert world.certificate_host.log.count() == 1


def test_a_test_event_is_answered_and_not_queued(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "webhook_receiver")
    world.partner_center.dispatcher.queue({"EventName": "test-created", "ResourceName": "test"})

    assert world.deliver() == [200]

    assert world.queued() == []
    assert logged(caplog) == [("INFO", "webhook.ignored")]


def test_a_referral_event_without_an_id_is_an_error_in_the_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    assert world.partner_center.forge("resource-uri-without-guid").status == 200

    assert ("ERROR", "webhook.names_no_referral") in logged(caplog)


def test_the_log_of_a_refusal_has_the_reason_and_neither_body_nor_key(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "webhook_receiver")

    world.partner_center.forge("body-changed", referral_id=REFERRAL_ID)

    (refusal,) = [record for record in caplog.records if record.msg == "webhook.refused"]
    assert vars(refusal)["reason"] == "the signature does not fit the body"
    assert len(vars(refusal)["body_sha256"]) == 64
    said = " ".join(str(vars(record)) for record in caplog.records if record.name.startswith("webhook_receiver"))
    assert KEY not in said
    assert REFERRAL_ID not in said


def test_without_the_function_key_nothing_is_looked_at(world: World) -> None:
    world.partner_center.another_tool_registers(world.url.replace(KEY, "guessed"), REFERRAL_EVENTS)
    world.publish()

    assert world.deliver() == [401]

    assert world.certificate_host.log.count() == 0


def test_a_header_sent_twice_is_refused(world: World) -> None:
    body, headers = world.partner_center._compose({"EventName": "test-created"}, None)
    address = urlsplit(world.url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=10)

    connection.putrequest("POST", f"{address.path}?{address.query}")
    for name, value in (*headers.items(), ("x-ms-signature", headers["Authorization"].split()[1])):
        connection.putheader(name, value)
        if name == "x-ms-signature":
            connection.putheader(name, value)
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)

    assert connection.getresponse().status == 401


@pytest.mark.parametrize(("size", "status"), [(0, 400), (64 * 1024 + 1, 413)])
def test_a_body_of_no_possible_size_is_refused(world: World, size: int, status: int) -> None:
    answer = requests.post(world.url, b" " * size, timeout=10)

    assert answer.status_code == status


def test_while_storage_fails_the_sender_is_asked_to_come_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    working = world.queue
    nowhere = "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=Yg==;QueueEndpoint=http://127.0.0.1:1/a;"
    world.queue = WorkQueue(load(StorageSettings, {"AzureWebJobsStorage": nowhere}))
    world.publish()

    assert world.deliver() == [503]
    assert ("ERROR", "webhook.not_stored") in logged(caplog)

    world.queue = working
    world.clock.advance(60)
    assert world.deliver() == [200]
    assert len(world.queued()) == 1


def test_while_the_certificate_cannot_be_fetched_the_sender_is_asked_to_come_again(world: World) -> None:
    world.certificate_host.faults.add("drop_before")
    body, headers = world.partner_center._compose({"EventName": "test-created"}, None)

    answer = requests.post(world.url, body, headers=headers, timeout=10)

    assert (answer.status_code, answer.headers["Retry-After"], answer.content) == (503, "60", b"")
    world.clock.advance(61)
    assert requests.post(world.url, body, headers=headers, timeout=10).status_code == 200


def test_with_wrong_settings_the_sender_is_asked_to_come_again(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    parts = Services({"WEBHOOK_TRUSTED_ROOTS_FILE": "/no/such/file"})
    monkeypatch.setattr(blueprint.services, "process_services", lambda: parts)
    monkeypatch.setattr(blueprint, "verifier", real_verifier)
    world.publish()

    assert world.deliver() == [503]

    (record,) = [record for record in caplog.records if record.msg == "webhook.not_stored"]
    assert vars(record)["reason"] == "WEBHOOK_TRUSTED_ROOTS_FILE: there is no file /no/such/file"


def test_events_signed_before_and_after_a_rotation_both_arrive(world: World) -> None:
    world.partner_center.dispatcher.sign_once = True
    world.publish()
    assert world.deliver() == [200]
    late_body, late_headers = world.partner_center._compose(
        {"EventName": "referral-updated", "ResourceUri": f"https://a.example/referrals/{REFERRAL_ID}"}, None
    )
    world.clock.advance(120)
    world.pki.rotate()

    world.publish()
    assert world.deliver() == [200]
    assert requests.post(world.url, late_body, headers=late_headers, timeout=10).status_code == 200

    assert len(world.queued()) == 3


def test_a_receiver_that_was_down_gets_the_event_at_the_tenth_attempt(world: World) -> None:
    world.publish()
    world.certificate_host.faults.add("drop_before", times=9)
    statuses = []

    for _ in range(10):
        statuses += world.deliver()
        world.clock.advance(3600)

    assert statuses == [503] * 9 + [200]
    assert len(world.queued()) == 1


@pytest.mark.parametrize(("file", "status"), [("pcnotifications-dispatch.microsoft.com", 200), ("huge", 401)])
def test_the_certificate_is_fetched_over_https_by_settings_alone(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: str, status: int
) -> None:
    with serve(world.certificate_host) as server:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(server.ca_file))
        environ = {
            "WEBHOOK_CERTIFICATE_HOSTS": f"localhost:{server.port}",
            "WEBHOOK_TRUSTED_ROOTS_FILE": str(tmp_path / "trusted.pem"),
        }
        world.verifier = real_verifier(Services(environ))
        body, headers = world.partner_center._compose({"EventName": "test-created"}, None)
        headers["x-ms-certificate-url"] = f"{server.url}/cert/{file}.cer"

        answer = requests.post(world.url, body, headers=headers, timeout=10)

    assert answer.status_code == status
    assert world.certificate_host.log.count("GET", f"{file}.cer$") == 1


def test_a_burst_at_the_start_builds_one_verifier_from_the_settings() -> None:
    parts = Services({})

    with ThreadPoolExecutor(8) as callers:
        built = list(callers.map(lambda _: real_verifier(parts), range(8)))

    assert len({id(verifier) for verifier in built}) == 1


def test_nothing_heavy_is_loaded_before_the_first_call() -> None:
    code = (
        "import sys, webhook_receiver, register_webhook; "
        "print([m for m in ('cryptography', 'azure.storage.queue', 'azure.identity', 'requests') if m in sys.modules])"
    )

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert loaded.stdout.strip() == "[]"


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.msg) for record in caplog.records if record.name.startswith("webhook_")]

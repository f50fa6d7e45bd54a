"""From Partner Center's call over HTTP, through the real trigger, to what is then in real Storage.

Every case says both: what the caller got, and what was stored.
"""

from __future__ import annotations

import base64
import http.client
import json
import logging
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import azure.functions as func
import pytest
import requests
from azure.storage.queue import QueueClient, TextBase64DecodePolicy
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local.host import Host, HostOptions
from local.simulators.base import Clock, InProcessAdapter, serve
from local.simulators.entra import EntraSimulator
from local.simulators.partner_center import RECIPES, CertificateHost, WebhooksSimulator
from local.simulators.partner_center.dispatcher import Attempt
from local.simulators.pki import SigningPki
from shared.services import Services
from shared.settings import StorageSettings, WebhookSettings, load
from shared.store.account import Patience
from shared.store.captures import Captures
from shared.store.failures import Failures
from shared.store.queue import WorkQueue
from shared.store.signs import Signs
from shared.store.tables import Row, TableStorage
from webhook_receiver import blueprint, bp
from webhook_receiver.certificates import webhook_verifier
from webhook_receiver.reception import Reception

real_reception = blueprint.reception

KEY = "the-function-key"
REFERRAL_ID = "c5fbb3b6-be74-4795-9fb5-4324c73fed37"
CHANGED = "2026-02-17T00:05:39.5485487Z"
REFERRAL_EVENTS = ["referral-created", "referral-updated", "related-referral-created", "related-referral-updated"]
CERTIFICATES = "https://3psostorageacct.blob.core.windows.net"
ANSWER_HEADERS = {"x-cosell-correlation-id", "content-type", "content-length", "date", "server"}
NOWHERE = (
    "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=Yg==;"
    "QueueEndpoint=http://127.0.0.1:1/a;TableEndpoint=http://127.0.0.1:1/a;"
)
IMPATIENT = Patience(attempts=1, total_s=1, connect_timeout_s=1, read_timeout_s=1)
NEXT_STEP = "report what python -m admin first-contact shows, then dismiss it; the sweep finds the deal"


@dataclass(frozen=True)
class Stored:
    """What a call left behind. `queued` has referral ids, `kept` the bodies kept for a person, and of the failures
    `problems` the reasons; `well` and `failed` are the signs of the webhook."""

    queued: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    well: str | None = None
    failed: str | None = None


NOTHING = Stored()


class NoOtherHost(requests.adapters.BaseAdapter):
    """Where no request of the receiver may go."""

    def send(self, request: requests.PreparedRequest, **_: Any) -> requests.Response:  # type: ignore[override]
        raise AssertionError(f"the receiver called {request.url}")

    def close(self) -> None:
        """Nothing is open."""


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

    def __init__(self, url: str, storage_connection: str, folder: Path, **more_settings: str) -> None:
        self.pki = SigningPki()
        self.clock = Clock()
        self.certificate_host = CertificateHost(self.pki)
        self.partner_center = WebhooksSimulator(EntraSimulator(), self.pki, clock=self.clock)
        self.url = f"{url}/api/webhook_receiver?code={KEY}"
        self.partner_center.another_tool_registers(self.url, ["test-created", *REFERRAL_EVENTS])
        trusted = folder / "trusted.pem"
        trusted.write_bytes(self.pki.trusted_pem)
        session = requests.Session()
        session.mount("https://", NoOtherHost())
        session.mount("http://", NoOtherHost())
        session.mount(f"{CERTIFICATES}/", InProcessAdapter(self.certificate_host))
        name = f"test-{uuid4()}"
        environ = {
            "AzureWebJobsStorage": storage_connection,
            "WEBHOOK_TRUSTED_ROOTS_FILE": str(trusted),
            **more_settings,
        }
        self.storage = CountingSession()
        self.services = Services(environ, clock=self.clock.now, session=session)
        self.services.queue = WorkQueue(  # type: ignore[misc]
            load(StorageSettings, environ), name=name, session=self.storage
        )
        tables = TableStorage(load(StorageSettings, environ), session=self.storage)
        index = tables.table(f"Test{uuid4().hex}")
        index.upsert(Row("set-up", "row", {}))  # so that the table is there
        self.services.signs = Signs(index, self.clock.now)  # type: ignore[misc]
        self.services.failures = Failures(index, self.clock.now)  # type: ignore[misc]
        self.services.captures = Captures(index, self.clock.now)  # type: ignore[misc]
        self.reception = self.new_reception()
        self.messages = QueueClient.from_connection_string(
            storage_connection, name, message_decode_policy=TextBase64DecodePolicy()
        )
        self.messages.create_queue()
        self.storage.calls.clear()

    def restart(self) -> None:
        """Another process: it has seen no certificate and no call."""
        self.reception = self.new_reception()

    def new_reception(self) -> Reception:
        verify = webhook_verifier(
            self.services.settings(WebhookSettings), session=self.services.session, now=self.clock.now
        )
        return Reception(self.services, verify)

    def publish(
        self, event: str = "referral-updated", referral_id: str = REFERRAL_ID, changed_at: str = CHANGED
    ) -> None:
        self.partner_center.publish(event, referral_id, changed_at)

    def deliver(self) -> list[int | None]:
        """Make the attempts that are due, and say what was answered; no answer may say more than its status does."""
        return [self.answered(attempt) for attempt in self.partner_center.deliver_pending()]

    def forge(self, recipe: str, referral_id: str = REFERRAL_ID) -> int | None:
        return self.answered(self.partner_center.forge(recipe, referral_id=referral_id))

    def answered(self, attempt: Attempt) -> int | None:
        if attempt.status is not None:
            assert attempt.answer == b""
            assert set(attempt.answer_headers) == ANSWER_HEADERS | ({"retry-after"} if attempt.status == 503 else set())
        return attempt.status

    def call(self) -> tuple[bytes, dict[str, str]]:
        """A genuine call as it would be sent, for those who change it on the way or send it themselves."""
        payload = {
            "EventName": "referral-updated",
            "ResourceUri": f"https://a.example/referrals/{REFERRAL_ID}",
            "ResourceChangeUtcDate": CHANGED,
        }
        return self.partner_center._compose(payload, None)

    def post(self, body: bytes, headers: Mapping[str, str]) -> requests.Response:
        return requests.post(self.url, body, headers=headers, timeout=10)

    def stored(self) -> Stored:
        """What there is in Storage; what was queued is taken off."""
        failures = self.services.failures.list()
        assert all(failure.deal.startswith("event_") and failure.next_step == NEXT_STEP for failure in failures)
        sign = self.services.signs.of("webhook")
        return Stored(
            queued=tuple(message["referral_id"] for message in self.queued()),
            kept=tuple(capture.body for capture in self.services.captures.list()),
            problems=tuple(failure.reason for failure in failures),
            well=sign.well and sign.well.says,
            failed=sign.failed and sign.failed.says,
        )

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
def make(
    host_url: str, storage_connection: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., World]]:
    worlds: list[World] = []

    def make(**more_settings: str) -> World:
        world = World(host_url, storage_connection, tmp_path, **more_settings)
        worlds.append(world)
        monkeypatch.setattr(blueprint.services, "process_services", lambda: world.services)
        monkeypatch.setattr(blueprint, "reception", lambda _: world.reception)
        return world

    yield make
    for world in worlds:
        world.messages.delete_queue()


@pytest.fixture
def world(make: Callable[..., World]) -> World:
    return make()


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
    world.publish("related-referral-updated")

    assert world.deliver() == [200, 200]

    assert world.storage.calls == ["POST", "POST"]
    assert world.certificate_host.log.count() == 1


def test_the_answer_names_the_call_as_the_message_does(world: World) -> None:
    body, headers = world.partner_center._compose(
        {"EventName": "referral-updated", "ResourceUri": f"https://a.example/referrals/{REFERRAL_ID}"}, None
    )

    answer = requests.post(world.url, body, headers=headers, timeout=10)

    assert (answer.status_code, answer.content) == (200, b"")
    assert [message["correlation_id"] for message in world.queued()] == [answer.headers["x-cosell-correlation-id"]]


# Everything that can be wrong or unusual with one call, in the order of RECIPES.

QUEUED = Stored(queued=(REFERRAL_ID,))
NO_ID = "a genuine event could not be understood: its ResourceUri does not end in /referrals/<id>"
IGNORED = {"unknown-event": "referral-teleported"}
NOT_UNDERSTOOD = {"resource-uri-null", "resource-uri-absent", "resource-uri-without-guid"}
REFUSED = {
    "body-changed": "the signature does not fit the body",
    "body-reindented": "the signature does not fit the body",
    "other-key": "the signature does not fit the body",
    "pss-padding": "the signature does not fit the body",
    "sha1": "x-ms-signature-algorithm is not rsa-sha256",
    "sha384": "x-ms-signature-algorithm is not rsa-sha256",
    "sha512": "x-ms-signature-algorithm is not rsa-sha256",
    "algorithm-mismatch": "x-ms-signature-algorithm is not rsa-sha256",
    "algorithm-unknown": "x-ms-signature-algorithm is not rsa-sha256",
    "certificate-expired": "does not chain to a trusted root",
    "certificate-not-yet-valid": "does not chain to a trusted root",
    "certificate-wrong-name": "the certificate carries notifications.example.com",
    "certificate-wrong-organization": "the certificate's subject is not Microsoft Corporation",
    "certificate-wrong-issuer": "the certificate's issuer is not Microsoft Corporation",
    "certificate-issuer-name-trick": "the certificate's issuer is not Microsoft Corporation",
    "certificate-self-signed": "is unknown and not published where we may fetch it",
    "certificate-unknown-root": "is unknown and not published where we may fetch it",
    "certificate-url-http": "is not https://<allowed host>/cert/<name>.cer",
    "certificate-url-other-host": "is on evil.example:443",
    "certificate-url-look-alike-host": "is on 3psostorageacct.blob.core.windows.net.evil.example:443",
    "certificate-url-user-info": "is not https://<allowed host>/cert/<name>.cer",
    "certificate-url-query": "is not https://<allowed host>/cert/<name>.cer",
    "certificate-url-other-path": "is not https://<allowed host>/cert/<name>.cer",
    "certificate-redirected": "redirects",
    "certificate-missing": "answered 404",
    "certificate-huge": "has more than 65536 bytes",
    "certificate-garbage": "is not a certificate in PEM or DER",
    "certificate-slow": "could not be fetched",
    "no-signature": "neither x-ms-signature nor Authorization carries a signature",
    "no-certificate-url": "header x-ms-certificate-url is missing",
    "no-algorithm": "header x-ms-signature-algorithm is missing",
    "bearer-only": "neither x-ms-signature nor Authorization carries a signature",
    "garbage-signature": "neither x-ms-signature nor Authorization carries a signature",
    "both-signatures-forged": "the signature does not fit the body",
}
COME_AGAIN = {"certificate-slow"}
NEEDS_NO_DOWNLOAD = {name for name in REFUSED if name.startswith(("sha", "algorithm", "certificate-url", "no-"))} | {
    "bearer-only",
    "garbage-signature",
}


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name in REFUSED])
def test_a_call_that_is_not_genuine_is_refused_and_leaves_a_sign_only(world: World, recipe: str) -> None:
    assert not RECIPES[recipe].acceptable

    assert world.forge(recipe) == (503 if recipe in COME_AGAIN else 401)

    stored = world.stored()
    assert REFUSED[recipe] in str(stored.failed)
    assert stored == Stored(failed=stored.failed)
    assert world.certificate_host.log.count() == (0 if recipe in NEEDS_NO_DOWNLOAD else 1)


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name not in REFUSED])
def test_a_genuine_call_is_taken_however_it_is_made(world: World, recipe: str) -> None:
    assert RECIPES[recipe].acceptable in (True, None)

    assert world.forge(recipe) == 200

    stored = world.stored()
    if recipe in IGNORED:
        assert stored == Stored(well=IGNORED[recipe])
    elif recipe in NOT_UNDERSTOOD:
        (body,) = stored.kept
        assert json.loads(body)["EventName"] == "referral-updated"
        assert stored == Stored(kept=(body,), problems=(NO_ID,))
    else:
        assert stored == QUEUED


@pytest.mark.parametrize(
    "name", ["Authorization", "x-ms-signature", "x-ms-certificate-url", "x-ms-signature-algorithm"]
)
@pytest.mark.parametrize("again", ["the same", "another"])
def test_a_header_sent_twice_is_refused(world: World, name: str, again: str) -> None:
    body, headers = world.call()
    headers["x-ms-signature"] = headers["Authorization"]

    answer = send_raw(world.url, body, [*headers.items(), (name, headers[name] if again == "the same" else "x")])

    assert answer == (401, b"")
    assert world.stored() == Stored(failed=f"header {name.lower()} was sent more than once")
    assert world.certificate_host.log.count() == 0


def send_raw(url: str, body: bytes, headers: list[tuple[str, str]]) -> tuple[int, bytes]:
    """Send headers as they are, repeated ones too."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=10)
    connection.putrequest("POST", f"{address.path}?{address.query}")
    for name, value in headers:
        connection.putheader(name, value)
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    with connection.getresponse() as answer:
        answered = answer.status, answer.read()
    connection.close()
    return answered


@pytest.mark.parametrize(("size", "status"), [(0, 400), (64 * 1024 + 1, 413)])
def test_a_body_of_no_possible_size_is_refused(world: World, size: int, status: int) -> None:
    _, headers = world.call()

    answer = world.post(b" " * size, headers)

    assert (answer.status_code, answer.content) == (status, b"")
    assert {name.lower() for name in answer.headers} - {"connection"} == ANSWER_HEADERS  # the server hangs up on a 413
    assert world.stored() == NOTHING


def test_all_refusals_read_the_same(world: World) -> None:
    said = set()
    for recipe in REFUSED.keys() - COME_AGAIN:
        world.restart()  # so that no earlier forgery is in the way
        refusal = world.partner_center.forge(recipe)
        said.add((refusal.status, refusal.answer, tuple(refusal.answer_headers), refusal.answer_headers["server"]))

    assert said == {(401, b"", tuple(refusal.answer_headers), "local.host")}


def test_a_flood_of_forgeries_costs_one_download_a_minute_and_one_storage_write(world: World) -> None:
    for _ in range(2):
        with ThreadPoolExecutor(8) as senders:
            statuses = list(senders.map(lambda _: world.forge("body-changed"), range(100)))
        assert set(statuses) == {401}
        world.clock.advance(61)

    assert world.certificate_host.log.count() == 2
    assert world.storage.calls == ["PUT", "PUT"]
    assert world.stored() == Stored(failed="the signature does not fit the body")


def test_a_flood_of_invented_hosts_costs_no_download_and_eight_storage_writes_a_minute(world: World) -> None:
    body, headers = world.call()

    def from_invented_host(number: int) -> int:
        url = f"https://h{number}.evil.example/cert/a.cer"
        return world.post(body, {**headers, "x-ms-certificate-url": url}).status_code

    for minute in range(2):
        with ThreadPoolExecutor(8) as senders:
            statuses = list(senders.map(from_invented_host, range(minute * 100, minute * 100 + 100)))
        assert set(statuses) == {401}
        assert len(world.storage.calls) == 8 * (minute + 1)
        world.clock.advance(61)

    assert world.certificate_host.log.count() == 0
    assert world.post(body, headers).status_code == 200


def test_a_flood_of_invented_paths_costs_eight_downloads_a_minute_and_turns_nobody_away(world: World) -> None:
    body, headers = world.call()
    assert world.post(body, headers).status_code == 200

    def from_invented_path(number: int) -> int:
        url = f"{CERTIFICATES}/cert/missing{number}.cer"
        return world.post(body, {**headers, "x-ms-certificate-url": url}).status_code

    world.certificate_host.faults.add("status", path="/missing", times=1000, status=404)
    with ThreadPoolExecutor(8) as senders:
        statuses = list(senders.map(from_invented_path, range(100)))

    assert set(statuses) == {401, 503}, "those that are not even looked for might be genuine"
    assert world.certificate_host.log.count("GET", "/missing") <= 8
    world.publish()
    assert world.deliver() == [200]


def test_a_flood_of_invented_paths_does_not_keep_a_new_process_from_the_genuine_certificate(world: World) -> None:
    body, headers = world.call()
    world.certificate_host.faults.add("status", path="/missing", times=1000, status=404)
    for number in range(100):
        url = f"{CERTIFICATES}/cert/missing{number}.cer"
        assert world.post(body, {**headers, "x-ms-certificate-url": url}).status_code == (401 if number < 8 else 503)

    assert world.post(body, headers).status_code == 200

    assert world.certificate_host.log.count("GET", "/missing") == 8
    assert world.stored().queued == (REFERRAL_ID,)


# How often and when a call comes.


def test_a_burst_is_taken_whole(world: World) -> None:
    ids = [str(uuid4()) for _ in range(50)]

    with ThreadPoolExecutor(16) as senders:
        statuses = list(senders.map(lambda id_: world.forge("extra-keys", id_), ids))

    assert set(statuses) == {200}
    assert sorted(world.stored().queued) == sorted(ids)
    assert world.certificate_host.log.count() == 1


def test_an_event_that_is_delivered_twice_is_stored_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "webhook_receiver")
    body, headers = world.call()

    answers = [world.post(body, headers) for _ in range(2)]

    assert [(answer.status_code, answer.content) for answer in answers] == [(200, b"")] * 2
    assert world.stored() == QUEUED
    assert logged(caplog) == [("INFO", "webhook.accepted"), ("INFO", "webhook.repeated")]


def test_an_event_without_the_time_of_its_change_is_stored_each_time(world: World) -> None:
    payload = {"EventName": "referral-updated", "ResourceUri": f"https://a.example/referrals/{REFERRAL_ID}"}
    body, headers = world.partner_center._compose(payload, None)

    assert [world.post(body, headers).status_code for _ in range(2)] == [200, 200]

    assert world.stored().queued == (REFERRAL_ID, REFERRAL_ID), "the second may report another change"


def test_an_event_signed_anew_is_still_the_same_event(world: World) -> None:
    body, headers = world.call()
    world.partner_center.registration.in_ms_signature = True
    again, other_headers = world.call()
    assert (body, set(headers)) != (again, set(other_headers))

    assert [world.post(*call).status_code for call in ((body, headers), (again, other_headers))] == [200, 200]

    assert world.stored() == QUEUED


def test_what_could_not_be_stored_is_not_taken_for_stored(world: World) -> None:
    working = world.services.queue
    world.services.queue = WorkQueue(load(StorageSettings, {"AzureWebJobsStorage": NOWHERE}))
    world.partner_center.dispatcher.sign_once = True
    world.publish()
    assert world.deliver() == [503]
    world.services.queue = working
    world.clock.advance(60)

    assert world.deliver() == [200]

    assert world.stored() == QUEUED


@pytest.mark.parametrize("restarted", [False, True])
def test_a_replay_after_three_days_is_taken(world: World, restarted: bool) -> None:
    """The signature holds for ever. A process that has not seen the call queues it, and the worker finds it known."""
    body, headers = world.call()
    assert world.post(body, headers).status_code == 200
    assert world.stored() == QUEUED
    world.clock.advance(3 * 24 * 3600)
    if restarted:
        world.restart()

    assert world.post(body, headers).status_code == 200

    assert world.stored() == (QUEUED if restarted else NOTHING)


def test_a_replay_after_the_certificate_is_gone_for_long_is_refused(world: World) -> None:
    body, headers = world.call()
    assert world.post(body, headers).status_code == 200
    world.clock.advance(3600)
    world.pki.rotate()
    world.publish()
    assert world.deliver() == [200]
    world.clock.advance(8 * 24 * 3600)
    world.stored()

    assert world.post(body, headers).status_code == 401

    assert world.stored() == Stored(failed="the signature does not fit the body")


def test_an_event_that_comes_48_hours_late_is_taken(world: World) -> None:
    world.publish()
    world.partner_center.dispatcher.waiting[0].due_at += timedelta(hours=48)
    assert world.deliver() == []
    world.clock.advance(48 * 3600)

    assert world.deliver() == [200]

    assert world.stored() == QUEUED


def test_a_pair_out_of_order_is_taken_as_it_comes(world: World) -> None:
    world.publish(changed_at="2026-02-17T00:05:40.0000000Z")
    world.publish(changed_at="2026-02-17T00:05:39.0000000Z")

    assert world.deliver() == [200, 200]

    versions = [message["version"] for message in world.queued()]
    assert versions == ["2026-02-17T00:05:40.0000000+00:00", "2026-02-17T00:05:39.0000000+00:00"]


def test_a_test_event_is_answered_and_noted_and_not_queued(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "webhook_receiver")
    world.partner_center.dispatcher.queue({"EventName": "test-created", "ResourceName": "test"})

    assert world.deliver() == [200]

    assert world.stored() == Stored(well="test-created")
    assert logged(caplog) == [("INFO", "webhook.ignored")]


# What is genuine and cannot be understood is kept for a person.


def test_an_event_that_nobody_understands_is_an_error_in_the_log_and_kept_with_its_headers(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    assert world.forge("resource-uri-without-guid") == 200

    assert ("ERROR", "webhook.not_understood") in logged(caplog)
    (capture,) = world.services.captures.list()
    assert capture.event == "referral-updated"
    assert capture.headers["x-ms-signature-algorithm"] == "rsa-sha256"
    (failure,) = world.services.failures.list()
    assert failure.times == 1
    assert failure.correlation_id


@pytest.mark.parametrize(
    "body",
    [b"not JSON", b"[]", b'{"EventName":"\xff"}', b'{"EventName":7}', b"\x00" * 60_000, b"\xff" * 64 * 1024],
    ids=["no JSON", "a list", "no UTF-8", "a number", "zeros", "the largest"],
)
def test_a_genuine_body_that_cannot_be_read_is_answered_and_kept(world: World, body: bytes) -> None:
    headers = signed(world, body)

    answers = [world.post(body, headers) for _ in range(2)]

    assert [(answer.status_code, answer.content) for answer in answers] == [(200, b"")] * 2
    stored = world.stored()
    assert stored == Stored(kept=(body.decode("utf-8", "backslashreplace"),), problems=stored.problems)
    (problem,) = stored.problems
    assert problem.startswith("a genuine event could not be understood: ")


def test_what_cannot_be_understood_is_kept_for_a_month(world: World) -> None:
    assert world.forge("resource-uri-null") == 200

    world.clock.advance(29 * 24 * 3600)
    assert len(world.stored().kept) == 1
    world.clock.advance(2 * 24 * 3600)
    assert len(world.stored().kept) == 0


def test_while_it_cannot_be_kept_the_sender_is_asked_to_come_again(world: World) -> None:
    working = world.services.captures
    nowhere = TableStorage(load(StorageSettings, {"AzureWebJobsStorage": NOWHERE}), patience=IMPATIENT)
    world.services.captures = Captures(nowhere.table("Test"), world.clock.now)  # type: ignore[misc]
    body = b"not JSON"
    headers = signed(world, body)
    assert world.post(body, headers).status_code == 503

    world.services.captures = working  # type: ignore[misc]

    assert world.post(body, headers).status_code == 200
    assert world.stored().kept == ("not JSON",)


@pytest.mark.parametrize("event", ["\ud800", "x" * 60_000, "null\x00and\x1b[2J"])
def test_an_event_of_any_name_is_answered_and_noted(world: World, event: str) -> None:
    body = json.dumps({"EventName": event}).encode()

    assert world.post(body, signed(world, body)).status_code == 200

    stored = world.stored()
    assert stored == Stored(well=stored.well)
    assert stored.well is not None


def signed(world: World, body: bytes) -> dict[str, str]:
    """Headers that make any bytes a genuine call."""
    _, headers = world.call()
    signature = world.pki.leaf.key.sign(body, PKCS1v15(), SHA256())
    return headers | {"Authorization": f"Signature {base64.b64encode(signature).decode()}"}


def test_a_genuine_call_is_kept_for_a_day_where_the_setting_says_so(
    make: Callable[..., World],
) -> None:
    world = make(CAPTURE_EVENTS="true")
    body, headers = world.call()

    assert world.post(body, headers).status_code == 200

    assert world.stored() == Stored(queued=(REFERRAL_ID,), kept=(body.decode(),))
    world.clock.advance(25 * 3600)
    assert world.stored() == NOTHING


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

    (attempt,) = world.partner_center.deliver_pending()

    assert (attempt.status, attempt.answer) == (401, b"")
    assert world.certificate_host.log.count() == 0
    assert world.stored() == NOTHING


def test_while_storage_fails_the_sender_is_asked_to_come_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    working = world.services.queue
    world.services.queue = WorkQueue(load(StorageSettings, {"AzureWebJobsStorage": NOWHERE}))
    world.publish()

    assert world.deliver() == [503]
    assert ("ERROR", "webhook.not_stored") in logged(caplog)

    world.services.queue = working
    world.clock.advance(60)
    assert world.deliver() == [200]
    assert world.stored() == QUEUED


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
    monkeypatch.setattr(blueprint, "reception", real_reception)
    world.publish()

    assert world.deliver() == [503]

    (record,) = [record for record in caplog.records if record.msg == "webhook.not_stored"]
    assert vars(record)["reason"] == "WEBHOOK_TRUSTED_ROOTS_FILE: there is no file /no/such/file"


# The certificate is rotated.


def test_events_signed_before_and_after_a_rotation_both_arrive(world: World) -> None:
    world.publish(changed_at="2026-02-17T00:05:39.0000001Z")
    assert world.deliver() == [200]
    late_body, late_headers = world.call()
    world.clock.advance(120)
    world.pki.rotate()

    world.publish(changed_at="2026-02-17T00:05:39.0000002Z")
    assert world.deliver() == [200]
    assert world.post(late_body, late_headers).status_code == 200

    assert world.stored() == Stored(queued=(REFERRAL_ID,) * 3)


@pytest.mark.parametrize("sign_once", [True, False])
def test_a_rotation_between_two_attempts_loses_nothing(world: World, sign_once: bool) -> None:
    working = world.services.queue
    world.services.queue = WorkQueue(load(StorageSettings, {"AzureWebJobsStorage": NOWHERE}))
    world.partner_center.dispatcher.sign_once = sign_once
    world.publish()
    assert world.deliver() == [503]
    world.services.queue = working
    world.clock.advance(120)

    world.pki.rotate()

    assert world.deliver() == [200]
    assert world.stored() == QUEUED


def test_a_rotation_right_after_a_download_is_bridged_by_the_ten_attempts(world: World) -> None:
    world.publish(changed_at="2026-02-17T00:05:39.0000001Z")
    assert world.deliver() == [200]
    world.pki.rotate()
    world.publish(changed_at="2026-02-17T00:05:39.0000002Z")
    (delivery,) = world.partner_center.dispatcher.waiting

    while delivery.state == "waiting":
        world.deliver()
        world.clock.advance(max(0.0, (delivery.due_at - world.clock.now()).total_seconds()))

    statuses = [attempt.status for attempt in delivery.attempts]
    assert statuses == [*[401] * (len(statuses) - 1), 200]
    assert len(statuses) < 10
    assert world.stored().queued == (REFERRAL_ID,) * 2


def test_an_old_signature_that_meets_a_process_without_the_old_certificate_is_refused(world: World) -> None:
    """Nobody can tell it from a forgery: what is at the certificate's address never fits it again. The sweep finds
    the deal."""
    body, headers = world.call()
    world.pki.rotate()

    assert world.post(body, headers).status_code == 401

    assert world.stored() == Stored(failed="the signature does not fit the body")


# The receiver is down.


def test_a_receiver_that_was_down_for_nine_attempts_gets_the_event_at_the_tenth(world: World) -> None:
    assert attempts(world, fail=9) == [None] * 9 + [200]

    assert world.stored() == QUEUED


def test_a_receiver_that_was_down_for_ten_attempts_never_gets_the_event(world: World) -> None:
    assert attempts(world, fail=10) == [None] * 10

    assert world.stored() == NOTHING
    assert len(world.partner_center.dispatcher.offline) == 1


def attempts(world: World, fail: int) -> list[int | None]:
    """All attempts for one event to a receiver that nobody answers for at the first `fail` of them."""
    world.publish()
    statuses: list[int | None] = []
    world.partner_center.registration.url = "http://127.0.0.1:1/"
    for _ in range(11):
        if len(statuses) == fail:
            world.partner_center.registration.url = world.url
        statuses += world.deliver()
        world.clock.advance(3600)
    return statuses


def test_nine_attempts_without_a_certificate_and_the_tenth_with(world: World) -> None:
    world.publish()
    world.certificate_host.faults.add("drop_before", times=9)
    statuses = []

    for _ in range(10):
        statuses += world.deliver()
        world.clock.advance(3600)

    assert statuses == [503] * 9 + [200]
    assert world.stored().queued == (REFERRAL_ID,)


# Whatever comes over the wire.


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(
        st.tuples(
            st.sampled_from([b"Authorization", b"x-ms-signature", b"X-MS-Certificate-Url", b"x-other"])
            | st.binary(max_size=20),
            st.binary(max_size=200) | st.sampled_from([b"a" * 40_000, b"\xff" * 9_000, b"rsa-sha256"]),
        ),
        max_size=6,
    ),
    body=st.binary(max_size=300),
    genuine=st.booleans(),
)
def test_no_bytes_in_the_headers_lead_to_a_failure(
    world: World, lines: list[tuple[bytes, bytes]], body: bytes, genuine: bool
) -> None:
    """Header lines go out as they are, but for line ends. What the server itself refuses is a 4xx too."""
    headers = signed(world, body) if genuine else {}
    sent = [(name.encode(), value.encode()) for name, value in headers.items()]
    sent += [(without_line_ends(name), without_line_ends(value)) for name, value in lines]
    address = urlsplit(world.url)
    head = b"".join(b"%s: %s\r\n" % line for line in sent)
    request = b"POST %s?%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%sContent-Length: %d\r\n\r\n%s" % (
        address.path.encode(),
        address.query.encode(),
        head,
        len(body),
        body,
    )

    with socket.create_connection((str(address.hostname), address.port), timeout=10) as connection:
        connection.sendall(request)
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))

    status = int(answer.split()[1])
    assert status in (200, 400, 401, 413, 503)
    assert (status == 200) <= genuine


def without_line_ends(text: bytes) -> bytes:
    return text.replace(b"\r", b"").replace(b"\n", b"")


# How it is put together.


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
        world.reception = real_reception(Services({**world.services.environ, **environ}))
        body, headers = world.partner_center._compose({"EventName": "test-created"}, None)
        headers["x-ms-certificate-url"] = f"{server.url}/cert/{file}.cer"

        answer = requests.post(world.url, body, headers=headers, timeout=10)

    assert answer.status_code == status
    assert world.certificate_host.log.count("GET", f"{file}.cer$") == 1


def test_a_burst_at_the_start_builds_one_verifier_from_the_settings() -> None:
    parts = Services({})

    with ThreadPoolExecutor(8) as callers:
        built = list(callers.map(lambda _: real_reception(parts), range(8)))

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

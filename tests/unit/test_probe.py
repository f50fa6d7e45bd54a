"""What keeps a caller out of a webhook address, told apart by a call of our own against real servers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import requests

from local.simulators.base import serve
from local.simulators.partner_center import CertificateHost
from local.simulators.pki import SigningPki
from shared.registration import probe as module
from shared.registration.probe import probe


class Answering(BaseHTTPRequestHandler):
    status = 401
    name = "x-other"

    def do_POST(self) -> None:
        self.send_response(self.status)
        self.send_header(self.name, "1")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "function key"),
        (403, "firewall"),
        (404, "/api/webhook_receiver"),
        (503, "stopped"),
        (418, "something else"),
    ],
)
def test_what_answers_in_front_of_the_app_is_told_by_its_status(
    server: HTTPServer, monkeypatch: pytest.MonkeyPatch, status: int, words: str
) -> None:
    monkeypatch.setattr(Answering, "status", status)

    found = probe(f"http://127.0.0.1:{server.server_port}/api/webhook_receiver?code=secret")

    assert f"answers {status}" in found
    assert words in found
    assert "secret" not in found


def test_our_own_receiver_is_known_by_its_header(server: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Answering, "status", 400)
    monkeypatch.setattr(Answering, "name", "x-cosell-correlation-id")

    assert probe(f"http://127.0.0.1:{server.server_port}/api/webhook_receiver?code=secret") == ""


def test_a_name_that_is_not_known_is_dns() -> None:
    found = probe("https://no-such-host.invalid/api/webhook_receiver?code=secret")

    assert found.startswith("DNS: the name in https://no-such-host.invalid/api/webhook_receiver?code=*** is not known")


def test_a_certificate_that_is_not_trusted_is_tls() -> None:
    with serve(CertificateHost(SigningPki())) as server:
        found = probe(f"{server.url}/api/webhook_receiver?code=secret")

    assert found.startswith("TLS: the certificate of https://localhost:")
    assert "certificate verify failed" in found
    assert "secret" not in found


def test_nobody_there_is_no_connection() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        found = probe(f"http://127.0.0.1:{taken.getsockname()[1]}/api/webhook_receiver?code=secret")

    assert found.startswith("no connection to http://127.0.0.1:")
    assert "secret" not in found


def test_silence_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", (1, 0.2))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = probe(f"http://127.0.0.1:{silent.getsockname()[1]}/api/webhook_receiver?code=secret")

    assert found.startswith("timeout: ")


def test_any_other_mishap_is_told_without_the_key() -> None:
    class Broken(requests.Session):
        def post(self, url: str, *_: object, **__: object) -> requests.Response:  # type: ignore[override]
            raise requests.exceptions.ChunkedEncodingError(f"broken at {url}")

    assert "secret" not in probe("https://app.example.com/api/webhook_receiver?code=secret", Broken())

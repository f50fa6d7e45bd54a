"""The webhook next to a bare function that only writes the same message, each in a host of its own over real HTTP.

Genuine calls, bare ones and forged ones take turns in short rounds, so that whatever else this machine does meets all
three alike. What is promised is a ratio, which holds on any machine; the milliseconds are this one's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

from local.azurite import Azurite
from local.simulators.base import serve
from local.simulators.partner_center import CertificateHost
from local.simulators.partner_center.signing import CERTIFICATE_PATH, compose
from local.simulators.pki import SigningPki

PROMISED = 1.3
CONNECTIONS = (1, 8, 32)
ROUNDS = 10
CALLS = 150  # in one round of one side
WARM_UP = 40
CHANGED = "2026-02-17T00:05:39.5485487+00:00"
SIDES = ("genuine", "bare", "forged")
EXPECTED = {"genuine": "200", "bare": "200", "forged": "401"}
ROOT = Path(__file__).resolve().parent.parent

Call = tuple[str, dict[str, str]]


def measure() -> Iterator[str]:
    yield f"{os.cpu_count()} cores for both hosts, Storage and the callers; {ROUNDS * CALLS} calls per line"
    with ExitStack() as running:
        sides = running.enter_context(_sides())
        callers = running.enter_context(_callers())
        for _ in range(2):
            for side in sides.values():
                side.call(callers, connections=8, times=WARM_UP)
        for connections in CONNECTIONS:
            yield from _compare(sides, callers, connections)


def _compare(sides: Mapping[str, _Side], callers: _Callers, connections: int) -> Iterator[str]:
    for side in sides.values():
        side.forget()
    for number in range(ROUNDS):
        for name in SIDES if number % 2 else reversed(SIDES):
            sides[name].call(callers, connections, CALLS)
    for name in SIDES:
        yield f"{connections:>2} connections, {name:<7}: {sides[name]}"
    ratio = sides["genuine"].median_ms / sides["bare"].median_ms
    verdict = "holds" if ratio <= PROMISED else "DOES NOT HOLD"
    yield f"{connections:>2} connections, genuine to bare: {ratio:.2f} (promised: at most {PROMISED}; {verdict})"
    share = sides["forged"].median_ms / sides["genuine"].median_ms
    verdict = "holds" if share < 1 else "DOES NOT HOLD"
    yield f"{connections:>2} connections, forged to genuine: {share:.2f} (promised: less than 1; {verdict})"


@dataclass
class _Side:
    """One kind of call: where it goes, the calls still to be made, and how long the answers took so far."""

    name: str
    url: str
    calls: Iterator[Call]
    took_s: float = 0.0
    answers_ms: list[float] = field(default_factory=list)

    def call(self, callers: _Callers, connections: int, times: int) -> None:
        calls = [next(self.calls) for _ in range(times)]
        result = callers.run({"url": self.url, "connections": connections, "calls": calls})
        assert result["statuses"] == {EXPECTED[self.name]: times}, f"{self.name}: {result['statuses']}"
        self.took_s += result["took_s"]
        self.answers_ms += [1000 * seconds for seconds in result["answers_s"]]

    def forget(self) -> None:
        self.took_s, self.answers_ms = 0.0, []

    @property
    def median_ms(self) -> float:
        return median(self.answers_ms)

    def __str__(self) -> str:
        p99 = quantiles(self.answers_ms, n=100)[98]
        rate = len(self.answers_ms) / self.took_s
        return f"{rate:>5.0f} calls/s, p50 {self.median_ms:>6.2f} ms, p99 {p99:>6.2f} ms"


@contextmanager
def _sides() -> Iterator[dict[str, _Side]]:
    pki = SigningPki()
    with Azurite() as azurite, serve(CertificateHost(pki)) as certificates, TemporaryDirectory() as directory:
        trusted = Path(directory) / "trusted-roots.pem"
        trusted.write_bytes(pki.trusted_pem)
        settings = {
            "AzureWebJobsStorage": azurite.connection_string,
            "WEBHOOK_TRUSTED_ROOTS_FILE": str(trusted),
            "WEBHOOK_CERTIFICATE_HOSTS": certificates.url.removeprefix("https://"),
            "REQUESTS_CA_BUNDLE": str(certificates.ca_file),
            # Nothing but the webhook runs: no timer, and nobody who takes messages off the queue.
            **{f"AzureWebJobs_{name}_Disabled": "true" for name in _other_functions()},
        }
        with _host("function_app", settings) as receiver, _host("benchmarks.bare", settings) as bare:
            # Every call is another one: what is repeated is not stored again.
            needed = WARM_UP * 2 + len(CONNECTIONS) * ROUNDS * CALLS
            signed = [_signed(number, pki, certificates.url) for number in range(needed)]
            forged = [(body.replace("referral-updated", "referral-created"), headers) for body, headers in signed]
            yield {
                "genuine": _Side("genuine", receiver, iter(signed)),
                "bare": _Side("bare", bare, iter(signed)),
                "forged": _Side("forged", receiver, iter(forged)),
            }


def _signed(number: int, pki: SigningPki, certificate_base_url: str) -> Call:
    payload = {
        "EventName": "referral-updated",
        "ResourceUri": f"https://api.partnercenter.microsoft.com/engagements/v1/referrals/{UUID(int=number)}",
        "ResourceName": "referral",
        "AuditUri": None,
        "ResourceChangeUtcDate": CHANGED,
    }
    body, headers = compose(payload, pki, certificate_base_url)
    assert headers["x-ms-certificate-url"].endswith(CERTIFICATE_PATH)
    return body.decode(), headers


def _other_functions() -> list[str]:
    """Asked of another process: the app says in its log what is not set here."""
    code = "from function_app import app; print(*(each.get_function_name() for each in app.get_functions()))"
    asked = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    return [name for name in asked.stdout.split() if name != "webhook_receiver"]


@contextmanager
def _host(module: str, settings: Mapping[str, str]) -> Iterator[str]:
    """A host that runs this app; gives the address of its one function."""
    command = [sys.executable, "-m", "local.child", "local.host", "--port", "0", "--root", str(ROOT), "--app", module]
    environ = {**os.environ, **settings, "LOCAL_FUNCTION_KEY": "key"}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    try:
        printed = list(iter(process.stdout.readline, "ready\n"))
        (url,) = [line.split()[-1] for line in printed if "POST" in line.split()]
        yield f"{url}?code=key"
    finally:
        process.stdin.close()
        process.wait()


class _Callers:
    """benchmarks.callers, at the other end of a pipe."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, job: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        result: dict[str, Any] = json.loads(self._process.stdout.readline())
        return result


@contextmanager
def _callers() -> Iterator[_Callers]:
    command = [sys.executable, "-m", "benchmarks.callers"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        yield _Callers(process)
        process.stdin.close()

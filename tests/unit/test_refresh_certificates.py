"""What `python -m webhook_receiver.refresh` takes, what it refuses, and that a refusal leaves the file as it was."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest
import requests
from cryptography import x509

from tests.signing import (
    CertificateHost,
    Issued,
    Served,
    TestClock,
    authority,
    issue,
    leaf,
    name,
    root,
    rsa_key,
)
from webhook_receiver.refresh import ADDRESSES, FILE, main, pem_text
from webhook_receiver.trust import ISSUER_URL

CROSS_SIGNED_URL = "https://www.microsoft.com/pkiops/certs/Test%20Root%20G2%20-%20xsign.crt"
BELOW_URL = "https://www.microsoft.com/pkiops/certs/Test%20G2%20CA%2002.crt"
AUTHORITY_URL = "https://www.microsoft.com/pkiops/certs/Test%20TLS%20Issuing%20CA%2001.crt"


@cache
def cross_signed() -> Issued:
    return issue(name("Test Root G2"), root(), ca=True, purposes=None, days=(-10, 1000))


@cache
def below() -> Issued:
    return issue(name("Test G2 CA 02"), cross_signed(), ca=True, path_length=0, purposes=None, days=(-10, 800))


@cache
def fake_root() -> Issued:
    """The bundled root's name, but not its key."""
    return issue(root().certificate.subject, ca=True, key=rsa_key("not the root's"), purposes=None)


class Command:
    """The command over a folder of the test's own and a host that serves what the test says: PEM and DER."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "intermediates.pem"
        self.clock = TestClock()
        self.host = CertificateHost(
            {
                CROSS_SIGNED_URL: Served(cross_signed().der),
                BELOW_URL: Served(below().der),
                AUTHORITY_URL: Served(authority().pem),
            }
        )

    def run(self) -> int:
        return main(
            [],
            file=self.file,
            roots=[root().certificate],
            addresses=[CROSS_SIGNED_URL, BELOW_URL, AUTHORITY_URL],
            session=self.host.session(),
            now=self.clock,
        )

    def bundled(self) -> list[x509.Certificate]:
        return x509.load_pem_x509_certificates(self.file.read_bytes())


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return Command(tmp_path)


def test_what_is_published_is_written_with_its_origin(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run() == 0

    assert command.bundled() == [cross_signed().certificate, below().certificate, authority().certificate]
    assert command.host.asked == [CROSS_SIGNED_URL, BELOW_URL, AUTHORITY_URL]
    assert f"# {BELOW_URL}\n-----BEGIN" in command.file.read_text()
    assert capsys.readouterr().out.splitlines() == [
        "new      Test Root G2, until 2029-08-16",
        "new      Test G2 CA 02, until 2029-01-28",
        "new      Test TLS Issuing CA 01, until 2029-05-08",
    ]
    assert [each.name for each in command.file.parent.iterdir()] == ["intermediates.pem"]


def test_a_second_run_keeps_the_file_as_it_is(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    command.run()
    first = command.file.read_bytes()
    capsys.readouterr()

    assert command.run() == 0

    assert command.file.read_bytes() == first
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["kept"] * 3


def test_a_renewed_certificate_takes_the_place_of_the_old_one(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    command.run()
    capsys.readouterr()
    renewed = issue(authority().certificate.subject, root(), ca=True, purposes=None, days=(-1, 1200))
    command.host.served[AUTHORITY_URL] = Served(renewed.der)

    assert command.run() == 0

    assert command.bundled()[-1] == renewed.certificate
    assert set(capsys.readouterr().out.splitlines()) >= {
        "new      Test TLS Issuing CA 01, until 2030-03-04",
        "gone     Test TLS Issuing CA 01, until 2029-05-08",
    }


def test_what_expires_within_ninety_days_is_said(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    command.clock.advance(days=711)
    command.run()

    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("expiring")] == [
        "expiring Test G2 CA 02, until 2029-01-28"
    ]


def code_signer() -> Issued:
    return issue(name("Test TLS Issuing CA 01"), root(), ca=False, san=None, purposes=None)


REFUSED = {
    "gone": (Served(b"not found", 404), "answered 404"),
    "unreachable": (Served(failure=requests.ConnectionError("no route")), "gave no complete answer (ConnectionError)"),
    "moved": (Served(status=301, headers={"Location": "https://elsewhere.example.com"}), "redirects"),
    "endless": (Served(b"x" * 70_000), "more than 65536 bytes"),
    "a page": (Served(b"<html>Moved</html>"), "is not a certificate in PEM or DER"),
    "cut short": (Served(authority().der[:-9]), "is not a certificate in PEM or DER"),
    "from another root": (
        Served(issue(authority().certificate.subject, fake_root(), ca=True, purposes=None).der),
        "is not issued by a bundled root",
    ),
    "signed by itself": (
        Served(issue(name("Test Root G3"), ca=True, purposes=None).der),
        "is not issued by a bundled root",
    ),
    "expired": (
        Served(issue(name("Test TLS Issuing CA 01"), root(), ca=True, purposes=None, days=(-90, -1)).der),
        "is valid from 2026-08-22 until 2026-11-19 only",
    ),
    "a leaf": (Served(leaf().der), "is not an authority's certificate"),
    "no authority": (Served(code_signer().der), "is not an authority's certificate"),
}


@pytest.mark.parametrize("how", REFUSED)
def test_one_bad_address_changes_nothing(command: Command, capsys: pytest.CaptureFixture[str], how: str) -> None:
    command.run()
    before = command.file.read_bytes()
    capsys.readouterr()
    command.host.served[AUTHORITY_URL], reason = REFUSED[how]

    status = command.run()

    said = capsys.readouterr()
    assert status == 1
    assert command.file.read_bytes() == before
    assert said.out == ""
    assert said.err.startswith("Nothing was changed:\n- " + AUTHORITY_URL)
    assert reason in said.err
    assert "ADDRESSES in refresh.py" in said.err


def test_every_problem_is_named_at_once(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    command.host.served[CROSS_SIGNED_URL] = Served(b"", 404)

    assert command.run() == 1

    problems = [line for line in capsys.readouterr().err.splitlines() if line.startswith("- ")]
    assert [CROSS_SIGNED_URL in problems[0], BELOW_URL in problems[1], len(problems)] == [True, True, 2]
    assert not command.file.exists()


# What is bundled now


@pytest.mark.parametrize("address", ADDRESSES)
def test_the_receiver_itself_would_fetch_an_issuer_from_there(address: str) -> None:
    assert ISSUER_URL.fullmatch(address)


def test_the_bundled_file_is_what_the_command_writes() -> None:
    certificates = x509.load_pem_x509_certificates(FILE.read_bytes())

    assert FILE.read_text() == pem_text(certificates, ADDRESSES)


def test_each_bundled_certificate_lies_at_the_address_of_its_name() -> None:
    certificates = x509.load_pem_x509_certificates(FILE.read_bytes())

    for certificate, address in zip(certificates, ADDRESSES, strict=True):
        called = unquote(address.rpartition("/")[2]).removesuffix(".crt").removesuffix(" - xsign")
        assert certificate.subject.rfc4514_string() == f"CN={called},O=Microsoft Corporation,C=US"

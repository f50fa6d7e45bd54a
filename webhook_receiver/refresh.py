"""Renews roots/intermediates.pem from where Microsoft publishes it: `python -m webhook_receiver.refresh`.

For maintainers; the app never imports it. No address is believed: what it serves must chain to a bundled root. Either
every listed certificate is there and fit, or the file stays as it was.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import requests
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from webhook_receiver.callback import RejectedCallback
from webhook_receiver.download import Downloads
from webhook_receiver.trust import ROOTS, Unreadable, is_root, trusted_certificates

FILE = ROOTS / "intermediates.pem"
EXPIRES_SOON = timedelta(days=90)

# The authorities that issue RSA certificates for Microsoft's own services, an issuer above what it issued:
# https://learn.microsoft.com/azure/security/fundamentals/azure-certificate-authority-details
# Those named "- xsign" are signed by DigiCert, without it by Microsoft; only what has not expired is listed.
ADDRESSES = (
    "https://www.microsoft.com/pkiops/certs/Microsoft%20TLS%20RSA%20Root%20G2%20-%20xsign.crt",
    "https://www.microsoft.com/pkiops/certs/Microsoft%20TLS%20G2%20RSA%20CA%20OCSP%2002.crt",
    "https://www.microsoft.com/pkiops/certs/Microsoft%20TLS%20G2%20RSA%20CA%20OCSP%2004.crt",
    "https://www.microsoft.com/pkiops/certs/Microsoft%20TLS%20G2%20RSA%20CA%20OCSP%2006.crt",
    "https://www.microsoft.com/pkiops/certs/Microsoft%20TLS%20G2%20RSA%20CA%20OCSP%2008.crt",
    "https://www.microsoft.com/pkiops/certs/Microsoft%20TLS%20G2%20RSA%20CA%20OCSP%2010.crt",
    "https://www.microsoft.com/pkiops/certs/Microsoft%20TLS%20G2%20RSA%20CA%20OCSP%2012.crt",
    "https://www.microsoft.com/pkiops/certs/Microsoft%20TLS%20G2%20RSA%20CA%20OCSP%2014.crt",
    "https://www.microsoft.com/pkiops/certs/Microsoft%20TLS%20G2%20RSA%20CA%20OCSP%2016.crt",
    "https://www.microsoft.com/pkiops/certs/Microsoft%20Azure%20RSA%20TLS%20Issuing%20CA%2003.crt",
    "https://www.microsoft.com/pkiops/certs/Microsoft%20Azure%20RSA%20TLS%20Issuing%20CA%2004.crt",
    "https://www.microsoft.com/pkiops/certs/Microsoft%20Azure%20RSA%20TLS%20Issuing%20CA%2007.crt",
    "https://www.microsoft.com/pkiops/certs/Microsoft%20Azure%20RSA%20TLS%20Issuing%20CA%2008.crt",
)

HEADING = (
    "# Authorities between Microsoft's certificates and the roots. Written by `python -m webhook_receiver.refresh`.\n"
)


class CannotRefresh(Exception):
    """Nothing was changed. `problems` has one sentence for each address that failed."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def refresh(
    file: Path,
    roots: Sequence[x509.Certificate],
    addresses: Sequence[str],
    fetch: Callable[[str], bytes],
    now: datetime,
) -> list[str]:
    """Write what is published at `addresses` into `file` and return the report. Raises CannotRefresh."""
    before = x509.load_pem_x509_certificates(file.read_bytes()) if file.exists() else []
    after = published(addresses, roots, fetch, now)
    # The app reads *.pem, so a file half written must not be named like that.
    complete = file.with_suffix(".new")
    complete.write_text(pem_text(after, addresses), encoding="utf-8")
    complete.replace(file)
    return report(before, after, roots, now)


def published(
    addresses: Sequence[str], roots: Sequence[x509.Certificate], fetch: Callable[[str], bytes], now: datetime
) -> list[x509.Certificate]:
    """The certificates at `addresses`, in their order. Raises CannotRefresh if one cannot be had or is not fit."""
    certificates: list[x509.Certificate] = []
    problems: list[str] = []
    for address in addresses:
        try:
            certificate = _read(fetch(address))
            reason = unfit(certificate, [*roots, *certificates], now)
        except RejectedCallback as refusal:
            problems.append(_in_words(address, refusal))
        except Unreadable as exc:
            problems.append(f"{address} is not a certificate in PEM or DER: {exc}")
        else:
            if reason:
                problems.append(f"{address} {reason}")
            else:
                certificates.append(certificate)
    if problems:
        raise CannotRefresh(problems)
    return certificates


def unfit(certificate: x509.Certificate, issuers: Iterable[x509.Certificate], now: datetime) -> str:
    """Why `certificate` must not be bundled, or "". `issuers`: the roots and what was found fit before."""
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        return f"is valid from {certificate.not_valid_before_utc:%Y-%m-%d} {_until(certificate)} only"
    if not _may_issue(certificate):
        return "is not an authority's certificate"
    if not _is_issued_by_one(certificate, issuers):
        return f"is not issued by a bundled root or an address above it, but by {certificate.issuer.rfc4514_string()}"
    return ""


def pem_text(certificates: Sequence[x509.Certificate], addresses: Sequence[str]) -> str:
    """The file: each certificate with its subject, validity, fingerprint and address."""
    return HEADING + "".join(
        f"\n# {certificate.subject.rfc4514_string()}\n"
        f"# from {certificate.not_valid_before_utc:%Y-%m-%d} {_until(certificate)}\n"
        f"# SHA-256 {certificate.fingerprint(SHA256()).hex()}\n"
        f"# {address}\n"
        f"{certificate.public_bytes(Encoding.PEM).decode()}"
        for certificate, address in zip(certificates, addresses, strict=True)
    )


def report(
    before: Sequence[x509.Certificate],
    after: Sequence[x509.Certificate],
    roots: Sequence[x509.Certificate],
    now: datetime,
) -> list[str]:
    """One line for each certificate, and once more for each that expires soon, roots included."""
    groups = {
        "new": [certificate for certificate in after if certificate not in before],
        "gone": [certificate for certificate in before if certificate not in after],
        "kept": [certificate for certificate in after if certificate in before],
        "expiring": [each for each in (*roots, *after) if each.not_valid_after_utc < now + EXPIRES_SOON],
    }
    return [
        f"{group:<9}{_common_name(certificate)}, {_until(certificate)}"
        for group, certificates in groups.items()
        for certificate in certificates
    ]


def _in_words(address: str, refusal: RejectedCallback) -> str:
    """What went wrong with a download, for a person: without the internals of the library that noticed it."""
    if refusal.__cause__:
        return f"{address} gave no complete answer ({type(refusal.__cause__).__name__})"
    return refusal.reason


def _read(data: bytes) -> x509.Certificate:
    if b"-----BEGIN CERTIFICATE-----" in data:
        return x509.load_pem_x509_certificate(data)
    return x509.load_der_x509_certificate(data)


def _may_issue(certificate: x509.Certificate) -> bool:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return constraints.ca and usage.key_cert_sign


def _is_issued_by_one(certificate: x509.Certificate, issuers: Iterable[x509.Certificate]) -> bool:
    for issuer in issuers:
        with suppress(InvalidSignature, TypeError, *Unreadable):
            certificate.verify_directly_issued_by(issuer)
            return True
    return False


def _common_name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else certificate.subject.rfc4514_string()


def _until(certificate: x509.Certificate) -> str:
    return f"until {certificate.not_valid_after_utc:%Y-%m-%d}"


def main(
    arguments: Sequence[str] | None = None,
    *,
    file: Path = FILE,
    roots: Sequence[x509.Certificate] | None = None,
    addresses: Sequence[str] = ADDRESSES,
    session: requests.Session | None = None,
    now: Callable[[], datetime] | None = None,
) -> int:
    """The command. Returns its exit status: 1 when nothing was changed because of a problem."""
    argparse.ArgumentParser(prog="python -m webhook_receiver.refresh", description=__doc__).parse_args(arguments)
    now = now or (lambda: datetime.now(UTC))
    roots = roots or [certificate for certificate in trusted_certificates(None) if is_root(certificate)]
    try:
        lines = refresh(file, roots, addresses, Downloads(session, now).fetch, now())
    except CannotRefresh as refused:
        problems = "".join(f"- {problem}\n" for problem in refused.problems)
        sys.stderr.write(f"Nothing was changed:\n{problems}")
        sys.stderr.write("Try again later. If Microsoft has moved or retired one, correct ADDRESSES in refresh.py.\n")
        return 1
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())

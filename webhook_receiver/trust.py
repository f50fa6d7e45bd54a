"""Decides which certificate may sign for Partner Center. Fetches nothing but an issuer that a certificate lacks.

A certificate counts when it chains to a pinned root, is issued by and for Microsoft Corporation, carries one of
WEBHOOK_CERTIFICATE_NAMES and has an RSA key of 2048 bits or more. Revocation is not checked: the file comes fresh from
Microsoft's own host at least once a day.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID, ObjectIdentifier
from cryptography.x509.verification import Criticality, ExtensionPolicy, Policy, PolicyBuilder, Store, VerificationError

from shared.errors import SettingsError
from shared.settings import WebhookSettings
from webhook_receiver.callback import RejectedCallback

ROOTS = Path(__file__).parent / "roots"
ORGANIZATION = "Microsoft Corporation"
LEAST_RSA_BITS = 2048
MAX_CHAIN = 3  # certificates between the leaf and the root

# Certificates name their issuer's address themselves. These are the ones Azure's authorities publish at:
# https://learn.microsoft.com/azure/security/fundamentals/azure-certificate-authority-details
ISSUER_URL = re.compile(
    r"https?://(?:www|caissuers)\.microsoft\.com/pkiops/certs/(?:[A-Za-z0-9._-]|%20)+"
    r"|http://cacerts\.digicert\.com/[A-Za-z0-9._-]+",
    re.ASCII,
)
KEEP_ISSUER = timedelta(hours=24)
MAX_ISSUERS = 8
TLS_PURPOSES = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)

# Everything `cryptography` raises for a certificate it can read only in part.
Unreadable = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


@dataclass(frozen=True)
class Signer:
    """A key that was found trustworthy, and until when."""

    key: RSAPublicKey
    valid_until: datetime

    def made(self, signature: bytes, body: bytes) -> bool:
        try:
            self.key.verify(signature, body, PKCS1v15(), SHA256())
        except InvalidSignature:
            return False
        return True


class Trust:
    """The configured roots and names. `fetch` gets a missing issuer's certificate."""

    def __init__(self, settings: WebhookSettings, fetch: Callable[[str], bytes], now: Callable[[], datetime]) -> None:
        self._names = {name.lower() for name in settings.certificate_names}
        trusted = trusted_certificates(settings.trusted_roots_file)
        self._roots = [certificate for certificate in trusted if is_root(certificate)]
        self._intermediates = [certificate for certificate in trusted if not is_root(certificate)]
        if not self._roots:
            raise SettingsError(
                [f"WEBHOOK_TRUSTED_ROOTS_FILE: {settings.trusted_roots_file} has no self-signed root certificate"]
            )
        self._fetch = fetch
        self._now = now
        self._lock = threading.Lock()
        self._issuers: dict[str, tuple[x509.Certificate, datetime]] = {}

    def signer(self, file: bytes, url: str) -> Signer:
        """Return the signer of a certificate file; `url` is where it came from. Raises RejectedCallback.

        The file is PEM or DER; what a PEM file holds after the first certificate may serve as intermediates.
        """
        leaf, *bundle = parse_certificates(file, url)
        try:
            key = self._checked_key(leaf)
            chain = self._chain(leaf, self._with_issuers(leaf, [*bundle, *self._intermediates]))
        except Unreadable as exc:
            raise RejectedCallback(401, f"the certificate at {url} is malformed: {exc}") from exc
        return Signer(key, min(certificate.not_valid_after_utc for certificate in chain))

    def _checked_key(self, leaf: x509.Certificate) -> RSAPublicKey:
        """The leaf's key, if the certificate is Microsoft's and names Partner Center."""
        for whose, name in (("subject", leaf.subject), ("issuer", leaf.issuer)):
            # Whole attributes are compared: a CN may well contain the text "O=Microsoft Corporation".
            if [part.value for part in name.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)] != [ORGANIZATION]:
                raise RejectedCallback(401, f"the certificate's {whose} is not {ORGANIZATION}: {name.rfc4514_string()}")
        if not self._names & (names := names_of(leaf)):
            found = ", ".join(sorted(names)) or "no name"
            raise RejectedCallback(
                401, f"the certificate carries {found}; WEBHOOK_CERTIFICATE_NAMES: {', '.join(sorted(self._names))}"
            )
        key = leaf.public_key()
        if not isinstance(key, RSAPublicKey) or key.key_size < LEAST_RSA_BITS:
            raise RejectedCallback(401, f"the certificate's key is not RSA of {LEAST_RSA_BITS} bits or more")
        return key

    def _chain(self, leaf: x509.Certificate, intermediates: list[x509.Certificate]) -> list[x509.Certificate]:
        """The path from the leaf to one of the roots. https://cryptography.io/en/latest/x509/verification/"""
        verifier = (
            PolicyBuilder()
            .store(Store(self._roots))
            .time(self._now())
            .max_chain_depth(MAX_CHAIN)
            .extension_policies(ca_policy=_ca_policy(), ee_policy=_leaf_policy())
            .build_client_verifier()
        )
        try:
            return verifier.verify(leaf, intermediates).chain
        except VerificationError as exc:
            raise RejectedCallback(401, f"the certificate does not chain to a trusted root: {exc}") from exc

    def _with_issuers(self, leaf: x509.Certificate, known: list[x509.Certificate]) -> list[x509.Certificate]:
        """`known`, completed by what lies between the leaf and a root. A fetched one still has to prove itself."""
        child = leaf
        for _ in range(MAX_CHAIN):
            if any(_issued(root, child) for root in self._roots):
                break
            issuer = next((certificate for certificate in known if _issued(certificate, child)), None)
            if issuer is None:
                issuer = self._issuer(child)
                known.append(issuer)
            child = issuer
        return known

    def _issuer(self, child: x509.Certificate) -> x509.Certificate:
        url = next((url for url in _issuer_urls(child) if ISSUER_URL.fullmatch(url)), None)
        if url is None:
            raise RejectedCallback(
                401,
                f"the issuer {child.issuer.rfc4514_string()} is unknown and not published where we may fetch it; "
                "put its certificate, with the roots, into the file WEBHOOK_TRUSTED_ROOTS_FILE names",
            )
        with self._lock:
            kept = self._issuers.get(url)
        if kept and self._now() < kept[1] and _issued(kept[0], child):
            return kept[0]
        issuer = parse_certificates(self._fetch(url), url)[0]
        with self._lock:
            if len(self._issuers) >= MAX_ISSUERS:
                self._issuers.clear()
            self._issuers[url] = issuer, self._now() + KEEP_ISSUER
        return issuer


def trusted_certificates(file: Path | None) -> list[x509.Certificate]:
    certificates: list[x509.Certificate] = []
    for path in [file] if file else sorted(ROOTS.glob("*.pem")):
        try:
            certificates += x509.load_pem_x509_certificates(path.read_bytes())
        except (ValueError, OSError) as exc:
            raise SettingsError(
                [f"WEBHOOK_TRUSTED_ROOTS_FILE: {path} is not a readable PEM file of certificates: {exc}"]
            ) from exc
    return certificates


def is_root(certificate: x509.Certificate) -> bool:
    return certificate.issuer == certificate.subject


def parse_certificates(data: bytes, url: str) -> list[x509.Certificate]:
    try:
        if b"-----BEGIN CERTIFICATE-----" in data:
            return x509.load_pem_x509_certificates(data)
        return [x509.load_der_x509_certificate(data)]
    except Unreadable as exc:
        raise RejectedCallback(401, f"{url} is not a certificate in PEM or DER: {exc}") from exc


def names_of(leaf: x509.Certificate) -> set[str]:
    names = {str(part.value).lower() for part in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)}
    try:
        alternatives = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return names
    return names | {name.lower() for name in alternatives.get_values_for_type(x509.DNSName)}


def _issued(issuer: x509.Certificate, child: x509.Certificate) -> bool:
    try:
        child.verify_directly_issued_by(issuer)
    except (InvalidSignature, TypeError, *Unreadable):
        return False
    return True


def _issuer_urls(child: x509.Certificate) -> list[str]:
    try:
        access = child.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    except x509.ExtensionNotFound:
        return []
    return [
        place.access_location.value
        for place in access
        if place.access_method == AuthorityInformationAccessOID.CA_ISSUERS
        and isinstance(place.access_location, x509.UniformResourceIdentifier)
    ]


def _ca_policy() -> ExtensionPolicy:
    """What browsers demand of authorities, but fit for serverAuth or clientAuth: new ones no longer have both."""
    return ExtensionPolicy.webpki_defaults_ca().may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _is_for_tls)


def _leaf_policy() -> ExtensionPolicy:
    """The live certificate's extensions are not documented, so none is demanded; what is there must not contradict."""
    return (
        ExtensionPolicy.permit_all()
        .may_be_present(x509.BasicConstraints, Criticality.AGNOSTIC, _is_no_authority)
        .may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _is_for_tls)
        .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _may_sign)
    )


def _is_no_authority(_: Policy, __: x509.Certificate, constraints: x509.BasicConstraints | None) -> None:
    if constraints and constraints.ca:
        raise ValueError("an authority's certificate signs certificates, not events")


def _is_for_tls(_: Policy, __: x509.Certificate, usage: x509.ExtendedKeyUsage | None) -> None:
    purposes: set[ObjectIdentifier] = set(usage or ())
    if usage is not None and purposes.isdisjoint(TLS_PURPOSES):
        raise ValueError("the extended key usage is neither serverAuth nor clientAuth")


def _may_sign(_: Policy, __: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage and not usage.digital_signature:
        raise ValueError("the key usage is not digitalSignature")

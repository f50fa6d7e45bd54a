"""A signing PKI for the webhook tests, in which every part can be made wrong, and a certificate host without sockets.

Shares nothing with the simulator's PKI: the receiver must satisfy two independent makers of certificates.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from io import BytesIO
from typing import Any

import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID, ObjectIdentifier
from requests.adapters import BaseAdapter
from urllib3 import HTTPResponse

HOST = "3psostorageacct.blob.core.windows.net"
NAME = "pcnotifications-dispatch.microsoft.com"
CERTIFICATE_URL = f"https://{HOST}/cert/{NAME}.cer"
MICROSOFT = "Microsoft Corporation"
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)

BODY = (
    b'{"EventName":"referral-updated","ResourceUri":"https://api.partnercenter.microsoft.com/engagements/v1/referrals/'
    b'c5fbb3b6-be74-4795-9fb5-4324c73fed37","ResourceName":"referral","AuditUri":null,'
    b'"ResourceChangeUtcDate":"2026-02-17T00:05:39.5485487+00:00"}'
)


@cache
def rsa_key(name: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    """The key of this name, made once: making one takes longer than most tests."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@dataclass(frozen=True)
class Issued:
    certificate: x509.Certificate
    key: Any

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def sign(self, body: bytes, algorithm: Any = None, pad: Any = None) -> bytes:
        return self.key.sign(body, pad or padding.PKCS1v15(), algorithm or hashes.SHA256())


def name(common_name: str, organization: str | None = MICROSOFT) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.COUNTRY_NAME, "US")]
    if organization is not None:
        parts.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def issue(
    subject: x509.Name,
    issuer: Issued | None = None,
    *,
    key: Any = None,
    ca: bool | None = False,
    path_length: int | None = None,
    san: Sequence[str] | None = (NAME,),
    purposes: Sequence[ObjectIdentifier] | None = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
    digital_signature: bool | None = True,
    days: tuple[int, int] = (-1, 89),
    issuer_url: str | None = None,
    unknown_critical: bool = False,
) -> Issued:
    """A certificate; None leaves an extension out, `issuer` None makes it self-signed."""
    key = key or rsa_key(subject.rfc4514_string())
    signing_key = issuer.key if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + timedelta(days=days[0]))
        .not_valid_after(NOW + timedelta(days=days[1]))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()), False)
    )
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), True)
    if digital_signature is not None:
        builder = builder.add_extension(_key_usage(digital_signature, bool(ca)), True)
    if san is not None and not ca:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(each) for each in san]), False)
    if purposes is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), False)
    if issuer_url:
        where = x509.AccessDescription(
            AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier(issuer_url)
        )
        builder = builder.add_extension(x509.AuthorityInformationAccess([where]), False)
    if unknown_critical:
        builder = builder.add_extension(x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4.5"), b"\x05\x00"), True)
    return Issued(builder.sign(signing_key, hashes.SHA256()), key)


def _key_usage(digital_signature: bool, cert_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=cert_sign,
        crl_sign=cert_sign,
        key_encipherment=not cert_sign,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


ROOT_NAME = name("Test Global Root", "Test Root Authority")
AUTHORITY_NAME = name("Test TLS Issuing CA 01")


@cache
def root() -> Issued:
    return issue(ROOT_NAME, ca=True, purposes=None, days=(-10, 3650))


@cache
def authority() -> Issued:
    return issue(AUTHORITY_NAME, root(), ca=True, path_length=0, purposes=None, days=(-10, 900))


@cache
def genuine() -> Issued:
    return leaf()


def leaf(**different: Any) -> Issued:
    """The genuine signing certificate, but for what is `different`."""
    subject = different.pop("subject", name(NAME))
    return issue(subject, different.pop("issuer", authority()), **different)


def headers(signature: bytes | str, **different: str | None) -> dict[str, str]:
    """The headers Partner Center sends; in `different`, `_` stands for `-`, and None leaves a header out."""
    encoded = signature if isinstance(signature, str) else base64.b64encode(signature).decode()
    sent: dict[str, str | None] = {
        "content-type": "application/json",
        "authorization": f"Signature {encoded}",
        "x-ms-certificate-url": CERTIFICATE_URL,
        "x-ms-signature-algorithm": "rsa-sha256",
        **{key.replace("_", "-"): value for key, value in different.items()},
    }
    return {key: value for key, value in sent.items() if value is not None}


class TestClock:
    """Time that moves only when told to."""

    __test__ = False

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)


@dataclass
class Served:
    """What the certificate host answers at one address."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    failure: Exception | None = None
    before: Callable[[], object] = lambda: None


class CertificateHost(BaseAdapter):
    """Answers every address from `served` and keeps the list of what was asked for."""

    def __init__(self, served: dict[str, Served] | None = None) -> None:
        super().__init__()
        self.served = served if served is not None else {CERTIFICATE_URL: Served(genuine().pem)}
        self.asked: list[str] = []
        self.timeouts: list[Any] = []

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:  # type: ignore[override]
        url = str(request.url)
        self.asked.append(url)
        self.timeouts.append(options.get("timeout"))
        served = self.served.get(url, Served(b"not found", 404))
        served.before()
        if served.failure:
            raise served.failure
        answer = requests.Response()
        answer.status_code = served.status
        answer.headers.update(served.headers)
        answer.url = url
        answer.request = request
        answer.raw = HTTPResponse(BytesIO(served.body), status=served.status, preload_content=False)
        return answer

    def close(self) -> None:
        pass

    def session(self) -> requests.Session:
        session = requests.Session()
        session.trust_env = False
        session.mount("https://", self)
        session.mount("http://", self)
        return session

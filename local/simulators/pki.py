"""A throw-away signing PKI like the one behind Partner Center's webhooks, and certificates that only look like it.

Root (not Microsoft's) -> intermediate `O=Microsoft Corporation` -> leaf `CN=pcnotifications-dispatch.microsoft.com`.
Makes certificates and keys; serves and signs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from typing import Any, ClassVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LEAF_NAME = "pcnotifications-dispatch.microsoft.com"
MICROSOFT = "Microsoft Corporation"
AUTHORITY = ("Sim TLS Issuing CA 01", MICROSOFT)


@dataclass(frozen=True)
class Signer:
    """A certificate and the key that signs in its name."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)


class SigningPki:
    """The genuine chain, made at once, and look-alikes of its leaf (`LOOK_ALIKES`), made when asked for."""

    # What differs from the genuine leaf. authority: common name and organization of the CA that issued it.
    LOOK_ALIKES: ClassVar[dict[str, dict[str, Any]]] = {
        "expired": {"days": (-90, -1)},
        "not-yet-valid": {"days": (30, 120)},
        "wrong-name": {"name": "notifications.example.com"},
        "wrong-organization": {"organization": "Contoso Ltd"},
        "wrong-issuer": {"authority": ("Contoso Issuing CA", "Contoso Ltd")},
        "issuer-name-trick": {"authority": ("Contoso CA, O=Microsoft Corporation", "Contoso Ltd")},
        "self-signed": {"root": "none"},
        "unknown-root": {"root": "another"},
    }

    def __init__(self, now: datetime | None = None) -> None:
        """`now` is the day the certificates are dated from."""
        self.now = now or datetime.now(UTC)
        self._issued = 0
        self.root = self._root()
        self.intermediate = self._intermediate(*AUTHORITY, self.root)
        self.leaf = self._leaf()
        self._look_alikes: dict[str, Signer] = {}

    @property
    def trusted_pem(self) -> bytes:
        """Root and intermediate: the leaf is downloaded alone, as from the real host."""
        return self.root.pem + self.intermediate.pem

    def rotate(self) -> None:
        """A new leaf under the same names; what the old key signed no longer fits the certificate that is served."""
        self.leaf = self._leaf()

    def signer(self, name: str) -> Signer:
        """`leaf` or one of LOOK_ALIKES."""
        if name == "leaf":
            return self.leaf
        if name not in self._look_alikes:
            self._look_alikes[name] = self._leaf(**self.LOOK_ALIKES[name])
        return self._look_alikes[name]

    def _root(self) -> Signer:
        return self._issue(_name("Sim Global Root", "Sim Root Authority"), None, path_length=None)

    def _intermediate(self, common_name: str, organization: str, root: Signer) -> Signer:
        return self._issue(_name(common_name, organization), root, path_length=0)

    def _leaf(
        self,
        *,
        name: str = LEAF_NAME,
        organization: str = MICROSOFT,
        authority: tuple[str, str] = AUTHORITY,
        root: str = "trusted",
        days: tuple[int, int] = (-1, 89),
    ) -> Signer:
        issuer: Signer | None = self.intermediate
        if root == "none":
            issuer = None
        elif root == "another":
            issuer = self._intermediate(*authority, self._root())
        elif authority != AUTHORITY:
            issuer = self._intermediate(*authority, self.root)
        return self._issue(_name(name, organization, ST="WA", L="Redmond"), issuer, days=days, dns_name=name)

    def _issue(
        self,
        subject: x509.Name,
        issuer: Signer | None,
        *,
        days: tuple[int, int] = (-1, 365),
        dns_name: str | None = None,
        path_length: int | None = None,
    ) -> Signer:
        """A certificate signed by `issuer`, or by its own key; with a `dns_name` for a host, else for an authority."""
        key = _key(self._issued)
        self._issued += 1
        valid = (self.now + timedelta(days=days[0]), self.now + timedelta(days=days[1]))
        return _issued(subject, issuer, x509.random_serial_number(), key, valid, dns_name, path_length)


@cache
def _key(number: int) -> rsa.RSAPrivateKey:  # noqa: ARG001
    """Return the key of the certificate with this number: no two in a PKI share one, but every PKI here has the same.

    Making keys takes nearly all the time of making a PKI, and nobody trusts two of these at once.
    """
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@lru_cache(maxsize=64)
def _issued(
    subject: x509.Name,
    issuer: Signer | None,
    serial_number: int,
    key: rsa.RSAPrivateKey,
    valid: tuple[datetime, datetime],
    dns_name: str | None,
    path_length: int | None,
) -> Signer:
    """Sign a certificate. Who draws serial numbers from a seed gets the same ones again, and they are signed once."""
    issuer_key = issuer.key if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(serial_number)
        .not_valid_before(valid[0])
        .not_valid_after(valid[1])
        .add_extension(x509.BasicConstraints(ca=dns_name is None, path_length=path_length), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .add_extension(_key_usage(authority=dns_name is None), critical=True)
    )
    if dns_name:
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False).add_extension(
            x509.SubjectAlternativeName([x509.DNSName(dns_name)]), critical=False
        )
    return Signer(builder.sign(issuer_key, SHA256()), key)


def _name(common_name: str, organization: str, **more: str) -> x509.Name:
    oids = {"ST": NameOID.STATE_OR_PROVINCE_NAME, "L": NameOID.LOCALITY_NAME}
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
            *(x509.NameAttribute(oids[key], value) for key, value in more.items()),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_encipherment=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )

"""Looks at a signing certificate as a person would: what it says, and whether it is trusted. Decides nothing."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID

from shared.services import Services
from shared.settings import WebhookSettings
from webhook_receiver.callback import RejectedCallback, certificate_url
from webhook_receiver.download import Downloads
from webhook_receiver.trust import Trust, Unreadable, names_of, parse_certificates

USAGES = {ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth", ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth"}


@dataclass(frozen=True)
class Inspection:
    """`facts`: a line each; `problem`: why the app refuses the certificate, "" when it trusts it."""

    facts: tuple[str, ...]
    problem: str


def inspect(url: str, services: Services) -> Inspection:
    """Fetch the certificate from `url`, if WEBHOOK_CERTIFICATE_HOSTS allows that, and look at it."""
    settings = services.settings(WebhookSettings)
    downloads = Downloads(services.session, services.clock)
    try:
        address = certificate_url(url, settings.certificate_hosts)
        file = downloads.fetch(address)
        leaf, *more = parse_certificates(file, address)
    except RejectedCallback as refusal:
        return Inspection((), refusal.reason)
    try:
        facts = _facts(leaf, len(more), is_pem=b"-----BEGIN" in file)
    except Unreadable as exc:
        return Inspection((), f"the certificate at {address} is malformed: {exc}")
    try:
        Trust(settings, downloads.fetch, services.clock).signer(file, address)
    except RejectedCallback as refusal:
        return Inspection(facts, refusal.reason)
    return Inspection(facts, "")


def _facts(leaf: x509.Certificate, more: int, *, is_pem: bool) -> tuple[str, ...]:
    key = leaf.public_key()
    return (
        f"{'PEM' if is_pem else 'DER'}, {f'with {more} more certificates' if more else 'the certificate alone'}",
        f"subject {leaf.subject.rfc4514_string()}",
        f"issuer {leaf.issuer.rfc4514_string()}",
        f"names {', '.join(sorted(names_of(leaf))) or 'none'}",
        f"extended key usage {_usage(leaf)}",
        f"key {f'RSA {key.key_size}' if isinstance(key, RSAPublicKey) else type(key).__name__}",
        f"valid from {leaf.not_valid_before_utc:%Y-%m-%d} to {leaf.not_valid_after_utc:%Y-%m-%d}",
    )


def _usage(leaf: x509.Certificate) -> str:
    try:
        usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return "none"
    return ", ".join(USAGES.get(each, each.dotted_string) for each in usage)

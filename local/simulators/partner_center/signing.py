"""How the simulated Partner Center signs a webhook call, and every way to do it wrong or unusually.

`compose` turns a payload into body and headers; RECIPES names the deviations. Sends nothing.
https://learn.microsoft.com/partner-center/developer/partner-center-webhooks
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from local.simulators.pki import LEAF_NAME, SigningPki

Payload = dict[str, Any]
Headers = dict[str, str]

CERTIFICATE_PATH = f"/cert/{LEAF_NAME}.cer"
SIGNATURE_HEADERS = ("Authorization", "x-ms-signature")

_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha1": hashes.SHA1(),  # noqa: S303 - a receiver must refuse it
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}


@dataclass(frozen=True)
class Recipe:
    """How a call is made. The defaults make the call as documented."""

    # Must a receiver that reads the documentation with care let it in? None: it is the receiver's choice.
    acceptable: bool | None = False
    payload: Callable[[Payload], Payload] = lambda payload: payload
    key: str = "leaf"  # whose key signs, and ...
    certificate: str = CERTIFICATE_PATH  # ... the path of the certificate that is named
    hash: str = "sha256"
    pss: bool = False
    algorithm: str = "rsa-sha256"
    after_signing: Callable[[bytes], bytes] = lambda body: body
    certificate_url: Callable[[str], str] = lambda url: url
    headers: Callable[[Headers], Headers] = lambda headers: headers


def compose(
    payload: Payload,
    pki: SigningPki,
    certificate_base_url: str,
    *,
    recipe: Recipe | None = None,
    in_ms_signature: bool = False,
    bare_ms_signature: bool = False,
) -> tuple[bytes, Headers]:
    """Body and headers of a call. The signature goes into Authorization or, if registered so, x-ms-signature."""
    recipe = recipe or Recipe()
    body = json.dumps(recipe.payload(dict(payload)), separators=(",", ":"), ensure_ascii=False).encode()
    algorithm = _HASHES[recipe.hash]
    scheme = padding.PSS(padding.MGF1(algorithm), padding.PSS.MAX_LENGTH) if recipe.pss else padding.PKCS1v15()
    signature = base64.b64encode(pki.signer(recipe.key).key.sign(body, scheme, algorithm)).decode()
    place = SIGNATURE_HEADERS[in_ms_signature]
    value = signature if in_ms_signature and bare_ms_signature else f"Signature {signature}"
    headers = {
        "Content-Type": "application/json",
        place: value,
        "x-ms-certificate-url": recipe.certificate_url(certificate_base_url + recipe.certificate),
        "x-ms-signature-algorithm": recipe.algorithm,
    }
    return recipe.after_signing(body), recipe.headers(headers)


# Deviations in the headers.


def _without(*names: str) -> Callable[[Headers], Headers]:
    return lambda headers: {name: value for name, value in headers.items() if name not in names}


def _signature(headers: Headers) -> str:
    return next(headers[name] for name in SIGNATURE_HEADERS if name in headers)


def _signed_in(**places: str) -> Callable[[Headers], Headers]:
    """The signature moved to these headers; `{0}` stands for `Signature <base64>`, `{1}` for the base64 alone."""

    def change(headers: Headers) -> Headers:
        signature = _signature(headers)
        filled = {name.replace("_", "-"): text.format(signature, signature.split()[1]) for name, text in places.items()}
        return _without(*SIGNATURE_HEADERS)(headers) | filled

    return change


FORGED = base64.b64encode(bytes(256)).decode()  # well-formed, and made by no key


# Deviations in the certificate's address.


def _at(pattern: str) -> Callable[[str], str]:
    """The certificate URL rewritten; `{host}` and `{path}` are those of the genuine one."""
    return lambda url: pattern.format(host=urlsplit(url).netloc, path=urlsplit(url).path)


# Deviations in the payload.


def _with(**changes: Any) -> Callable[[Payload], Payload]:
    return lambda payload: payload | changes


def _resource_at(pattern: str) -> Callable[[Payload], Payload]:
    return lambda payload: payload | {"ResourceUri": pattern.format(id=str(payload["ResourceUri"]).rpartition("/")[2])}


def _older(days: int) -> Callable[[Payload], Payload]:
    def change(payload: Payload) -> Payload:
        at = datetime.fromisoformat(payload["ResourceChangeUtcDate"]) - timedelta(days=days)
        return payload | {"ResourceChangeUtcDate": at.isoformat()}

    return change


def _camel(payload: Payload) -> Payload:
    return {name[0].lower() + name[1:]: value for name, value in payload.items()}


_LOOK_ALIKES = {
    f"certificate-{name}": Recipe(key=name, certificate=f"/cert/{name}.cer") for name in SigningPki.LOOK_ALIKES
}
RECIPES: dict[str, Recipe] = {
    # The body or its signature.
    "body-changed": Recipe(after_signing=lambda body: body.replace(b"referral", b"Referral", 1)),
    "body-reindented": Recipe(after_signing=lambda body: json.dumps(json.loads(body), indent=2).encode()),
    "other-key": Recipe(key="expired"),
    "pss-padding": Recipe(pss=True),
    "sha1": Recipe(hash="sha1", algorithm="rsa-sha1"),
    "sha384": Recipe(hash="sha384", algorithm="rsa-sha384", acceptable=None),
    "sha512": Recipe(hash="sha512", algorithm="rsa-sha512", acceptable=None),
    "algorithm-mismatch": Recipe(algorithm="rsa-sha512"),
    "algorithm-unknown": Recipe(algorithm="none"),
    "algorithm-upper-case": Recipe(algorithm="RSA-SHA256", acceptable=True),
    # The certificate.
    **_LOOK_ALIKES,
    "certificate-in-der": Recipe(certificate="/cert/der.cer", acceptable=True),
    # Its address.
    "certificate-url-http": Recipe(certificate_url=_at("http://{host}{path}")),
    "certificate-url-other-host": Recipe(certificate_url=_at("https://evil.example{path}")),
    "certificate-url-look-alike-host": Recipe(certificate_url=_at("https://{host}.evil.example{path}")),
    "certificate-url-user-info": Recipe(certificate_url=_at("https://{host}@evil.example{path}")),
    "certificate-url-query": Recipe(certificate_url=_at("https://{host}{path}?x=1")),
    "certificate-url-other-path": Recipe(certificate=f"/other/{LEAF_NAME}.cer"),
    "certificate-redirected": Recipe(certificate="/cert/redirect.cer"),
    "certificate-missing": Recipe(certificate="/cert/missing.cer"),
    "certificate-huge": Recipe(certificate="/cert/huge.cer"),
    "certificate-garbage": Recipe(certificate="/cert/garbage.cer"),
    "certificate-slow": Recipe(certificate="/cert/slow.cer"),
    # The headers.
    "no-signature": Recipe(headers=_without(*SIGNATURE_HEADERS)),
    "no-certificate-url": Recipe(headers=_without("x-ms-certificate-url")),
    "no-algorithm": Recipe(headers=_without("x-ms-signature-algorithm")),
    "bearer-only": Recipe(headers=_signed_in(Authorization="Bearer {1}")),
    "garbage-signature": Recipe(headers=_signed_in(Authorization="Signature not-base64!")),
    "scheme-lower-case": Recipe(headers=_signed_in(Authorization="signature {1}"), acceptable=True),
    "scheme-upper-case": Recipe(headers=_signed_in(Authorization="SIGNATURE {1}"), acceptable=True),
    "in-ms-signature": Recipe(headers=_signed_in(x_ms_signature="{0}"), acceptable=True),
    "in-ms-signature-bare": Recipe(headers=_signed_in(x_ms_signature="{1}"), acceptable=True),
    "bearer-and-ms-signature": Recipe(
        headers=_signed_in(Authorization="Bearer abc", x_ms_signature="{0}"), acceptable=True
    ),
    "wrong-authorization-right-ms-signature": Recipe(
        headers=_signed_in(Authorization="Signature AAAA", x_ms_signature="{0}"), acceptable=None
    ),
    "right-authorization-wrong-ms-signature": Recipe(
        headers=_signed_in(Authorization="{0}", x_ms_signature="Signature AAAA"), acceptable=None
    ),
    "forged-authorization-right-ms-signature": Recipe(
        headers=_signed_in(Authorization=f"Signature {FORGED}", x_ms_signature="{0}"), acceptable=None
    ),
    "right-authorization-forged-ms-signature": Recipe(
        headers=_signed_in(Authorization="{0}", x_ms_signature=f"Signature {FORGED}"), acceptable=None
    ),
    "both-signatures-forged": Recipe(
        headers=_signed_in(Authorization=f"Signature {FORGED}", x_ms_signature=f"Signature {FORGED}")
    ),
    # The payload: genuine calls that a receiver must not fall over.
    "camel-case": Recipe(payload=_camel, acceptable=True),
    "extra-keys": Recipe(payload=_with(PartnerId="00234d9d-8c2d-4ff5-8c18-39f8afc6f7f3"), acceptable=True),
    "unknown-event": Recipe(payload=_with(EventName="referral-teleported"), acceptable=True),
    "resource-uri-null": Recipe(payload=_with(ResourceUri=None), acceptable=True),
    "resource-uri-absent": Recipe(
        payload=lambda payload: {name: value for name, value in payload.items() if name != "ResourceUri"},
        acceptable=True,
    ),
    "resource-uri-on-api-host": Recipe(
        payload=_resource_at("https://api.partner.microsoft.com/v1.0/engagements/referrals/{id}"), acceptable=True
    ),
    "resource-uri-on-foreign-host": Recipe(
        payload=_resource_at("https://evil.example/v1.0/engagements/referrals/{id}"), acceptable=True
    ),
    "resource-uri-in-plain-http": Recipe(
        payload=_resource_at("http://api.partner.microsoft.com/v1.0/engagements/referrals/{id}"), acceptable=True
    ),
    "resource-uri-with-slash": Recipe(
        payload=_resource_at("https://api.partnercenter.microsoft.com/engagements/v1/referrals/{id}/"), acceptable=True
    ),
    "resource-uri-path-in-capitals": Recipe(
        payload=_resource_at("https://API.partnercenter.microsoft.com/Engagements/V1/Referrals/{id}"), acceptable=True
    ),
    "resource-uri-without-guid": Recipe(
        payload=_resource_at("https://api.partnercenter.microsoft.com/engagements/v1/referrals/"), acceptable=True
    ),
    "three-days-old": Recipe(payload=_older(3), acceptable=True),
}

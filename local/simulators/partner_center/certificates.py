"""Simulated host of the webhook signing certificate: the leaf alone, its look-alikes, and downloads that go wrong.

https://learn.microsoft.com/partner-center/developer/partner-center-webhooks
"""

from __future__ import annotations

import sys
from typing import Any

from werkzeug.datastructures import Headers

from local.simulators.base import Clock, Request, Response, Simulator, text_response
from local.simulators.partner_center.signing import CERTIFICATE_PATH
from local.simulators.pki import SigningPki

HUGE_BYTES = 5 * 1024 * 1024


class CertificateHost(Simulator):
    name = "certificates"

    def __init__(self, pki: SigningPki, *, slow_s: float = 30.0, clock: Clock | None = None) -> None:
        """`slow_s`: real seconds until slow.cer answers."""
        super().__init__(clock)
        self.pki = pki
        self.encoding = "pem"  # or "der": what the genuine address serves
        self.faults.add("delay", path="/slow.cer$", times=sys.maxsize, seconds=slow_s)
        self.route("/cert/<name>.cer", GET=self._certificate)
        self.route("/other/<name>.cer", GET=self._certificate)

    def state(self) -> Any:
        return {"served": CERTIFICATE_PATH, "encoding": self.encoding, "leaf": self.pki.leaf.pem}

    def _certificate(self, _: Request, name: str) -> Response:
        if name == "redirect":
            return Response(302, Headers({"Location": CERTIFICATE_PATH}))
        if name == "huge":
            return _file(self.pki.leaf.pem + b"\n" * HUGE_BYTES)
        if name == "garbage":
            return _file(b"-----BEGIN CERTIFICATE-----\nthis is none\n-----END CERTIFICATE-----\n")
        if name in SigningPki.LOOK_ALIKES:
            return _file(self.pki.signer(name).pem)
        if name == "missing":
            return text_response(404, "<?xml version='1.0'?><Error><Code>BlobNotFound</Code></Error>")
        return _file(self.pki.leaf.der if "der" in (name, self.encoding) else self.pki.leaf.pem)


def _file(content: bytes) -> Response:
    return Response(200, Headers({"Content-Type": "application/octet-stream"}), content)

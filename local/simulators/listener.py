"""Another tool that Partner Center called before us, and that trusts nobody else: it verifies what it gets by itself.

Shares no code with the product: only `cryptography`, and the certificate it was given.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from local.simulators.base import Clock, Request, Response, Simulator, text_response

PATH = "/api/hook"
KEY = "canary-key"


class Listener(Simulator):
    """Answers at PATH with KEY in the query. `taken` is what it found genuine, in the order in which it came."""

    name = "other_tool"

    def __init__(self, certificate: x509.Certificate, clock: Clock | None = None) -> None:
        super().__init__(clock)
        self.certificate = certificate
        self.taken: list[Request] = []
        self.route(PATH, POST=self._take)

    def state(self) -> Any:
        return {"taken": [json.loads(body) for body in self.bodies]}

    @property
    def bodies(self) -> list[bytes]:
        return [request.body for request in self.taken]

    def _take(self, request: Request) -> Response:
        if request.query.get("code") != KEY:
            return text_response(401, "the key is missing")
        if refusal := self._refusal(request):
            return text_response(401, refusal)
        self.taken.append(request)
        return Response(202)

    def _refusal(self, request: Request) -> str:
        """Why the call is not genuine."""
        headers = request.headers
        if headers.get("Content-Type") != "application/json":
            return "the content type is another"
        if headers.get("X-Ms-Signature-Algorithm", "").lower() != "rsa-sha256":
            return "the algorithm is another"
        if not headers.get("X-Ms-Certificate-Url", "").endswith(".cer"):
            return "the certificate is not named"
        scheme, _, signature = (headers.get("Authorization") or headers.get("X-Ms-Signature") or "").partition(" ")
        if scheme != "Signature":
            return "there is no signature"
        key = self.certificate.public_key()
        assert isinstance(key, rsa.RSAPublicKey)
        try:
            key.verify(base64.b64decode(signature, validate=True), request.body, padding.PKCS1v15(), SHA256())
        except (InvalidSignature, ValueError):
            return "the signature does not fit the body"
        return ""

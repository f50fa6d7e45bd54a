"""POST /services/oauth2/token: client credentials and JWT bearer, and the sessions they open.

https://help.salesforce.com/apex/HTViewHelpDoc?id=xcloud.remoteaccess_oauth_client_credentials_flow.htm
https://help.salesforce.com/apex/HTViewHelpDoc?id=xcloud.remoteaccess_oauth_jwt_flow.htm
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from urllib.parse import parse_qsl, urlsplit

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.types import Options

from local.simulators.base import Caller, Refused, Request, Response, json_response
from local.simulators.salesforce.errors import JSON, refuse
from local.simulators.salesforce.organization import Organization

LOGIN_HOSTS = ("login.salesforce.com", "test.salesforce.com")
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
MOST_SECONDS_OF_AN_ASSERTION = 300
ONLY_THE_SIGNATURE: Options = {
    "verify_aud": False, "verify_exp": False, "verify_iat": False, "verify_nbf": False, "verify_sub": False,
}  # fmt: skip


@dataclass
class Session:
    user: str
    used_at: datetime


@dataclass
class ExternalClientApp:
    """The registration of the product in the org, as its administrator set it up."""

    client_id: str = field(default_factory=lambda: "3MVG9" + secrets.token_urlsafe(60))
    client_secret: str = field(default_factory=lambda: secrets.token_hex(32).upper())
    run_as: str | None = None  # the integration user of the client credentials flow
    approved: set[str] = field(default_factory=set)  # user names the app may speak for with a JWT
    scope: str = "api"

    @cached_property
    def _key(self) -> rsa.RSAPrivateKey:  # slow to make, and most never ask for it
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)

    @property
    def private_key_pem(self) -> str:
        """The key whose certificate the administrator uploaded."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()

    @property
    def public_key(self) -> rsa.RSAPublicKey:
        return self._key.public_key()


class OAuth:
    """The token endpoint and the sessions of one org. A session ends after two hours without a call."""

    def __init__(self, org: Organization, app: ExternalClientApp) -> None:
        self._org = org
        self.app = app
        self.origin = ""
        self.session_timeout_s = 7200.0
        self.sessions: dict[str, Session] = {}
        self.audiences = {f"https://{host}" for host in LOGIN_HOSTS}

    # Sessions

    def open_session(self, user: str) -> str:
        token = f"{self._org.id[:15]}!AQ{secrets.token_urlsafe(70)}"
        self.sessions[token] = Session(user, self._org.clock.now())
        return token

    def identify(self, request: Request) -> Caller:
        """Who calls, by the session in the request. Raises InvalidSession."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme and scheme.lower() not in ("bearer", "oauth"):
            raise refuse("InvalidAuthHeader")
        session, now = self.sessions.get(token.strip()), self._org.clock.now()
        if session is None or now - session.used_at > timedelta(seconds=self.session_timeout_s):
            raise refuse("InvalidSession")
        if not self._org.user(session.user).values["IsActive"]:
            raise refuse("InvalidSession")
        session.used_at = now
        name = self._org.user(session.user).values["Name"]
        app = "salesforce" if session.user == self.app.run_as else f"salesforce as {name}"
        return Caller(app=app, user=session.user)

    # The token endpoint

    def token(self, request: Request) -> Response:
        content_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if content_type != "application/x-www-form-urlencoded":
            raise _denied("invalid_request", "unsupported content type")
        form = dict(parse_qsl(request.body.decode(), keep_blank_values=True))
        match form.get("grant_type"):
            case "client_credentials":
                return self._grant(self._by_client_credentials(request, form))
            case grant if grant == JWT_BEARER:
                return self._grant(self._by_assertion(form.get("assertion", "")))
        raise _denied("unsupported_grant_type", "grant type not supported")

    def _by_client_credentials(self, request: Request, form: dict[str, str]) -> str:
        if urlsplit(request.base_url).hostname in LOGIN_HOSTS:
            raise _denied("invalid_grant", "request not supported on this domain")
        client_id, secret = _basic(request) or (form.get("client_id", ""), form.get("client_secret", ""))
        if client_id != self.app.client_id:
            raise _denied("invalid_client_id", "client identifier invalid")
        if not hmac.compare_digest(secret.encode(), self.app.client_secret.encode()):
            raise _denied("invalid_client", "invalid client credentials")
        if self.app.run_as is None or not self._org.user(self.app.run_as).values["IsActive"]:
            raise _denied("invalid_grant", "no client credentials user enabled")
        return self.app.run_as

    def _by_assertion(self, assertion: str) -> str:
        try:
            if jwt.get_unverified_header(assertion).get("alg") != "RS256":
                raise _denied("invalid_grant", "invalid assertion")
            unverified = jwt.decode(assertion, options={"verify_signature": False})
            if unverified.get("iss") != self.app.client_id:
                raise _denied("invalid_client_id", "client identifier invalid")
            claims = jwt.decode(assertion, self.app.public_key, algorithms=["RS256"], options=ONLY_THE_SIGNATURE)
        except jwt.InvalidTokenError as exc:
            raise _denied("invalid_grant", "invalid assertion") from exc
        if claims.get("aud") not in self.audiences:
            raise _denied("invalid_grant", "audience is invalid")
        expires, now = str(claims.get("exp")), self._org.clock.now().timestamp()
        if not expires.isdigit():  # public clients send a number or its digits
            raise _denied("invalid_grant", "invalid assertion")
        if not now < int(expires) <= now + MOST_SECONDS_OF_AN_ASSERTION:
            raise _denied("invalid_grant", "expired access/refresh token")
        username = claims.get("prn", claims.get("sub", ""))
        users = [row for row in self._org.where("User", Username=username) if row.values["IsActive"]]
        if not users:
            raise _denied("invalid_grant", "user hasn't approved this consumer")
        if username not in self.app.approved:
            raise _denied("invalid_grant", "user is not admin approved to access this app")
        return users[0].id

    def _grant(self, user: str) -> Response:
        issued_at = str(int(self._org.clock.now().timestamp() * 1000))
        identity = f"https://login.salesforce.com/id/{self._org.id}/{user}"
        signed = hmac.new(self.app.client_secret.encode(), f"{identity}{issued_at}".encode(), hashlib.sha256).digest()
        body = {
            "access_token": self.open_session(user),
            "signature": base64.b64encode(signed).decode(),
            "scope": self.app.scope,
            "instance_url": self.origin,
            "id": identity,
            "token_type": "Bearer",
            "issued_at": issued_at,
            "api_instance_url": "https://api.salesforce.com",
        }
        return json_response(200, body, {**JSON, "Cache-Control": "no-cache, no-store", "Pragma": "no-cache"})


def _basic(request: Request) -> tuple[str, str] | None:
    scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as exc:
        raise _denied("invalid_client", "invalid client credentials") from exc
    return name, secret


def _denied(error: str, description: str) -> Refused:
    return Refused(json_response(400, {"error": error, "error_description": description}, JSON))

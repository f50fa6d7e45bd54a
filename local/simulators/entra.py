"""Simulated Entra ID: token endpoints v1 and v2, sign-in by redirect, and the check of tokens for the other systems.

Knows app registrations and their users; never knows what a token may do, that is each resource's own business.
Access tokens live an hour and die with the run; refresh tokens live 90 days and outlive it, as the real ones do.

https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow
https://learn.microsoft.com/entra/identity-platform/refresh-tokens
https://learn.microsoft.com/entra/identity-platform/reference-error-codes
"""

from __future__ import annotations

import base64
import hashlib
import html
import secrets
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NoReturn
from urllib.parse import parse_qsl, urlencode, urlsplit

import jwt
from werkzeug.datastructures import Headers

from local.simulators.base import Caller, Clock, Refused, Request, Response, Simulator, json_response, text_response

PARTNER_CENTER_REFERRALS = "https://api.partner.microsoft.com"
PARTNER_CENTER_WEBHOOKS = "https://api.partnercenter.microsoft.com"

PARTNER_TENANT_ID = "7d23e5ca-19dc-4eaa-aac8-5e6b559f0d1d"
MICROSOFT_TENANT_ID = "72f988bf-0000-4000-8000-2d7cd011db47"

ACCESS_TOKEN_LIFETIME_S = 3600
REFRESH_TOKEN_LIFETIME = timedelta(days=90)
CODE_LIFETIME = timedelta(minutes=10)
_REFRESH_TOKEN_KEY = "the same for every run, so that a stored refresh token survives a restart of the simulators"


@dataclass(frozen=True)
class User:
    upn: str
    name: str
    oid: str
    mfa: bool = True  # signs in with a second factor: the access token's amr says so


@dataclass(frozen=True)
class App:
    """An app registration. With a user it holds that user's consent; without one it only ever acts as itself."""

    name: str
    client_id: str
    client_secret: str
    tenant_id: str = PARTNER_TENANT_ID
    oid: str = ""  # of its service principal
    user: User | None = None
    secret_expires_at: datetime | None = None


APPS = (
    App(
        name="partner_center",
        client_id="c1d0a5e2-0001-4000-8000-000000000001",
        client_secret="simulated-partner-center-secret",
        oid="0b1ec700-0001-4000-8000-000000000001",
        user=User("sync@fabrikam.example", "Co-sell Sync", "0b1ec700-0101-4000-8000-000000000001"),
    ),
    App(
        name="dynamics365",
        client_id="c1d0a5e2-0002-4000-8000-000000000002",
        client_secret="simulated-dynamics365-secret",
        oid="0b1ec700-0002-4000-8000-000000000002",
    ),
    # The rest act as people, so that a test or the demo can do a person's part through the real APIs.
    App(
        name="seller",
        client_id="c1d0a5e2-0003-4000-8000-000000000003",
        client_secret="simulated-seller-secret",
        oid="0b1ec700-0003-4000-8000-000000000003",
    ),
    App(
        name="partner_user",
        client_id="c1d0a5e2-0004-4000-8000-000000000004",
        client_secret="simulated-partner-user-secret",
        oid="0b1ec700-0004-4000-8000-000000000004",
        user=User("pat@fabrikam.example", "Pat Partner", "0b1ec700-0104-4000-8000-000000000004"),
    ),
    App(
        name="microsoft_seller",
        client_id="c1d0a5e2-0005-4000-8000-000000000005",
        client_secret="simulated-microsoft-seller-secret",
        tenant_id=MICROSOFT_TENANT_ID,
        oid="0b1ec700-0005-4000-8000-000000000005",
        user=User("msseller@microsoft.example", "Mia Seller", "0b1ec700-0105-4000-8000-000000000005"),
    ),
)

AADSTS: dict[int, tuple[int, str, str]] = {
    # code: (HTTP status, OAuth error, message)
    50076: (400, "interaction_required",
        "Due to a configuration change made by your administrator, or because you moved to a new location, you "
        "must use multi-factor authentication to access '{resource}'."),
    50079: (400, "interaction_required",
        "The user is required to use multi-factor authentication."),
    50173: (400, "invalid_grant",
        "The provided grant has expired due to it being revoked, a fresh auth token is needed. The user might "
        "have changed or reset their password."),
    54005: (400, "invalid_grant",
        "OAuth2 Authorization code was already redeemed, please retry with a new valid code."),
    65001: (400, "invalid_grant",
        "The user or administrator has not consented to use the application with ID '{client_id}'. Send an "
        "interactive authorization request for this user and resource."),
    70000: (400, "invalid_grant",
        "The provided value for the input parameter '{parameter}' is not valid."),
    70003: (400, "unsupported_grant_type",
        "The app requested an unsupported grant type '{grant_type}'."),
    70008: (400, "invalid_grant",
        "The provided authorization code is expired."),
    70011: (400, "invalid_scope",
        "The provided value for the input parameter 'scope' is not valid. The scope {scope} is not valid."),
    90002: (400, "invalid_request",
        "Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID."),
    500011: (400, "invalid_resource",
        "The resource principal named {resource} was not found in the tenant."),
    500112: (400, "invalid_client",
        "The reply address '{redirect_uri}' does not match the reply address provided when requesting the "
        "authorization code."),
    501481: (400, "invalid_grant",
        "The Code_Verifier does not match the code_challenge supplied in the authorization request."),
    700016: (400, "unauthorized_client",
        "Application with identifier '{client_id}' was not found in the directory '{tenant}'."),
    700082: (400, "invalid_grant",
        "The refresh token has expired due to inactivity. The token was issued on {issued} and was inactive for "
        "90.00:00:00."),
    900144: (400, "invalid_request",
        "The request body must contain the following parameter: '{parameter}'."),
    1002012: (400, "invalid_scope",
        "The provided value for scope {scope} is not valid. Client credential flows must have a scope value with "
        "/.default suffixed to the resource identifier (application ID URI)."),
    7000215: (401, "invalid_client",
        "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, "
        "not the client secret ID, for a secret added to app '{client_id}'."),
    7000218: (401, "invalid_client",
        "The request body must contain the following parameter: 'client_assertion' or 'client_secret'."),
    7000222: (401, "invalid_client",
        "The provided client secret keys for app '{client_id}' are expired."),
}  # fmt: skip


class BadToken(Exception):
    """A bearer token that a resource must refuse. `problem` is missing, malformed, expired or audience."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"bearer token: {problem}")
        self.problem = problem


@dataclass
class _Code:
    app: App
    redirect_uri: str
    challenge: str | None
    expires_at: datetime
    redeemed: bool = False


class EntraSimulator(Simulator):
    name = "entra"

    def __init__(
        self,
        *,
        apps: Iterable[App] = APPS,
        resources: Iterable[str] = (PARTNER_CENTER_REFERRALS, PARTNER_CENTER_WEBHOOKS),
        clock: Clock | None = None,
    ) -> None:
        """`resources` are the audiences tokens can be had for; add an org's origin with `resources.add`."""
        super().__init__(clock)
        self.apps = {app.client_id: app for app in apps}
        self.resources = set(resources)
        self.revoked_at: dict[str, datetime] = {}  # client id -> refresh tokens issued before are revoked
        self._key = secrets.token_bytes(32)
        # A token holds the same claims at every call; whether it is still good is another question.
        self._claims_in = lru_cache(maxsize=256)(self._decoded)
        self._codes: dict[str, _Code] = {}
        self.route("/<tenant>/oauth2/token", POST=self._token_v1)
        self.route("/<tenant>/oauth2/v2.0/token", POST=self._token_v2)
        self.route("/<tenant>/oauth2/authorize", GET=self._authorize)
        self.route("/<tenant>/oauth2/v2.0/authorize", GET=self._authorize)
        self.route("/<tenant>/v2.0/.well-known/openid-configuration", GET=self._configuration)
        self.route("/_aadsts", POST=self._fail_by_request)

    # For the other simulators, tests and people.

    def app(self, name: str) -> App:
        return next(app for app in self.apps.values() if app.name == name)

    def verify(self, request: Request, audience: str) -> Caller:
        """Whose bearer token this request carries. Raises BadToken when it is not one for `audience`."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise BadToken("missing")
        try:
            claims = self._claims_in(token)
        except jwt.PyJWTError as exc:
            raise BadToken("malformed") from exc
        if claims["exp"] <= self.clock.now().timestamp():
            raise BadToken("expired")
        if claims["aud"] != audience:
            raise BadToken("audience")
        return Caller(self.apps[claims["appid"]].name, claims.get("upn"), claims)

    def _decoded(self, token: str) -> Mapping[str, Any]:
        """The claims in a token that this simulator signed. Raises jwt.PyJWTError."""
        claims: dict[str, Any] = jwt.decode(
            token, self._key, algorithms=["HS256"], options={"verify_exp": False, "verify_aud": False,
                                                              "verify_nbf": False, "verify_iat": False}
        )  # fmt: skip
        return claims

    def access_token(self, app_name: str, resource: str, *, mfa: bool | None = None) -> str:
        """A token as this app would get it: for its user when it has one, else for itself."""
        app = self.app(app_name)
        return self._access_token(app, resource, user=app.user, mfa=mfa)

    def consent(self, app_name: str) -> str:
        """The refresh token that the app's user hands over by signing in and consenting."""
        return self._refresh_token(self.app(app_name))

    def revoke(self, app_name: str) -> None:
        """An admin revokes the app's sign-ins: refresh tokens issued up to now stop working (AADSTS50173)."""
        self.revoked_at[self.app(app_name).client_id] = self.clock.now()

    def fail_next(self, aadsts: int, times: int = 1) -> None:
        """The next token requests are refused with this AADSTS code."""
        status, body = self._error_body(aadsts, {})
        self.faults.add("status", path="/token$", times=times, status=status, body=body)

    def state(self) -> Any:
        return {"apps": list(self.apps.values()), "resources": self.resources, "revoked_at": self.revoked_at}

    # The token endpoints.

    def _token_v1(self, request: Request, tenant: str) -> Response:
        form = _form(request)
        resource = form.get("resource") or self._refuse(900144, parameter="resource")
        answer = self._grant(form, tenant, resource)
        now = int(self.clock.now().timestamp())
        # v1 returns numbers as strings.
        return json_response(
            200,
            {
                "token_type": "Bearer",
                **({"scope": "user_impersonation"} if "refresh_token" in answer else {}),
                "expires_in": str(ACCESS_TOKEN_LIFETIME_S - 1),
                "ext_expires_in": str(ACCESS_TOKEN_LIFETIME_S - 1),
                "expires_on": str(now + ACCESS_TOKEN_LIFETIME_S),
                "not_before": str(now),
                "resource": resource,
                **answer,
            },
            {"Cache-Control": "no-store, no-cache"},
        )

    def _token_v2(self, request: Request, tenant: str) -> Response:
        form = _form(request)
        scope = form.get("scope") or self._refuse(900144, parameter="scope")
        # These say what else to return; what remains names the resource.
        named = [part for part in scope.split() if part not in ("openid", "profile", "email", "offline_access")]
        if len(named) != 1 or not named[0].endswith("/.default"):
            app_only = form.get("grant_type") == "client_credentials"
            self._refuse(1002012 if app_only else 70011, scope=scope)
        answer = self._grant(form, tenant, named[0].removesuffix("/.default"))
        return json_response(
            200,
            {
                "token_type": "Bearer",
                **({"scope": named[0]} if "refresh_token" in answer else {}),
                "expires_in": ACCESS_TOKEN_LIFETIME_S - 1,
                "ext_expires_in": ACCESS_TOKEN_LIFETIME_S - 1,
                **answer,
            },
            {"Cache-Control": "no-store, no-cache"},
        )

    def _grant(self, form: Mapping[str, str], tenant: str, resource: str) -> dict[str, str]:
        """The tokens that this form is worth."""
        grants: dict[str, Callable[[App, Mapping[str, str]], User | None]] = {
            "client_credentials": lambda _app, _form: None,
            "refresh_token": self._redeem_refresh_token,
            "authorization_code": self._redeem_code,
        }
        grant_type = form.get("grant_type") or self._refuse(900144, parameter="grant_type")
        if grant_type not in grants:
            self._refuse(70003, grant_type=grant_type)
        app = self._authenticate(form, tenant)
        user = grants[grant_type](app, form)
        if resource not in self.resources:
            self._refuse(500011, resource=resource)
        answer = {"access_token": self._access_token(app, resource, user=user)}
        if user:  # a new refresh token at each use; the old one stays valid until its own end
            answer["refresh_token"] = self._refresh_token(app)
        return answer

    def _authenticate(self, form: Mapping[str, str], tenant: str) -> App:
        if tenant not in {"common", "organizations", *(app.tenant_id for app in self.apps.values())}:
            self._refuse(90002, tenant=tenant)
        client_id = form.get("client_id") or self._refuse(900144, parameter="client_id")
        app = self.apps.get(client_id)
        if app is None or tenant not in ("common", "organizations", app.tenant_id):
            self._refuse(700016, client_id=client_id, tenant=tenant)
        if "client_secret" not in form:
            self._refuse(7000218)
        if not secrets.compare_digest(form["client_secret"].encode(), app.client_secret.encode()):
            self._refuse(7000215, client_id=client_id)
        if app.secret_expires_at and app.secret_expires_at <= self.clock.now():
            self._refuse(7000222, client_id=client_id)
        return app

    def _redeem_refresh_token(self, app: App, form: Mapping[str, str]) -> User | None:
        token = form.get("refresh_token") or self._refuse(900144, parameter="refresh_token")
        try:
            claims = jwt.decode(token, _REFRESH_TOKEN_KEY, algorithms=["HS256"], options={"verify_iat": False})
        except jwt.PyJWTError:
            claims = {}
        if claims.get("client_id") != app.client_id:
            self._refuse(70000, parameter="refresh_token")
        issued_at = datetime.fromtimestamp(claims["issued_at"], UTC)
        if issued_at <= self.revoked_at.get(app.client_id, datetime.min.replace(tzinfo=UTC)):
            self._refuse(50173)
        if issued_at + REFRESH_TOKEN_LIFETIME <= self.clock.now():
            self._refuse(700082, issued=issued_at.isoformat())
        return app.user

    def _redeem_code(self, app: App, form: Mapping[str, str]) -> User | None:
        code = self._codes.get(form.get("code", ""))
        if code is None or code.app != app:
            self._refuse(70000, parameter="code")
        if code.redeemed:
            self._refuse(54005)
        if code.expires_at <= self.clock.now():
            self._refuse(70008)
        if form.get("redirect_uri") != code.redirect_uri:
            self._refuse(500112, redirect_uri=form.get("redirect_uri"))
        if code.challenge and code.challenge != _s256(form.get("code_verifier", "")):
            self._refuse(501481)
        code.redeemed = True
        return app.user

    # Sign-in: nobody types a password here, the app's user consents at once.

    def _authorize(self, request: Request, tenant: str) -> Response:
        query = request.query
        app = self.apps.get(query.get("client_id", ""))
        if app is None or tenant not in ("common", "organizations", app.tenant_id):
            self._refuse(700016, client_id=query.get("client_id"), tenant=tenant)
        redirect_uri = query.get("redirect_uri", "")
        if urlsplit(redirect_uri).hostname not in ("localhost", "127.0.0.1"):
            self._refuse(500112, redirect_uri=redirect_uri)
        if app.user is None:
            self._refuse(65001, client_id=app.client_id)
        code = secrets.token_urlsafe(48)
        expires_at = self.clock.now() + CODE_LIFETIME
        self._codes[code] = _Code(app, redirect_uri, query.get("code_challenge"), expires_at)
        answer = {"code": code, **({"state": query["state"]} if "state" in query else {})}
        if query.get("response_mode") == "form_post":
            fields = "".join(f'<input type="hidden" name="{k}" value="{html.escape(v)}">' for k, v in answer.items())
            page = f'<form method="post" action="{html.escape(redirect_uri)}">{fields}<button>Continue</button></form>'
            return Response(200, Headers({"Content-Type": "text/html; charset=utf-8"}), page.encode())
        return Response(302, Headers({"Location": f"{redirect_uri}?{urlencode(answer)}"}))

    def _configuration(self, request: Request, tenant: str) -> Response:
        endpoint = f"{request.base_url}/{tenant}/oauth2/v2.0"
        return json_response(
            200,
            {
                "issuer": f"{request.base_url}/{tenant}/v2.0",
                "authorization_endpoint": f"{endpoint}/authorize",
                "token_endpoint": f"{endpoint}/token",
                "response_types_supported": ["code"],
                "token_endpoint_auth_methods_supported": ["client_secret_post"],
            },
        )

    # Tokens.

    def _access_token(self, app: App, resource: str, *, user: User | None, mfa: bool | None = None) -> str:
        now = int(self.clock.now().timestamp())
        claims: dict[str, Any] = {
            "aud": resource,
            "iss": f"https://sts.windows.net/{app.tenant_id}/",
            "iat": now,
            "nbf": now,
            "exp": now + ACCESS_TOKEN_LIFETIME_S,
            "appid": app.client_id,
            "oid": user.oid if user else app.oid,
            "tid": app.tenant_id,
            "ver": "1.0",
        }
        if user:
            second_factor = ["mfa"] if (user.mfa if mfa is None else mfa) else []
            claims |= {"upn": user.upn, "name": user.name, "scp": "user_impersonation", "amr": ["pwd", *second_factor]}
        return jwt.encode(claims, self._key, algorithm="HS256")

    def _refresh_token(self, app: App) -> str:
        claims = {
            "client_id": app.client_id,
            "issued_at": self.clock.now().timestamp(),
            "jti": uuid.uuid4().hex,
        }
        return jwt.encode(claims, _REFRESH_TOKEN_KEY, algorithm="HS256")

    # Refusals.

    def _refuse(self, aadsts: int, **facts: Any) -> NoReturn:
        status, body = self._error_body(aadsts, facts)
        raise Refused(json_response(status, body))

    def _error_body(self, aadsts: int, facts: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        status, error, message = AADSTS[aadsts]
        trace_id, correlation_id = str(uuid.uuid4()), str(uuid.uuid4())
        timestamp = self.clock.now().strftime("%Y-%m-%d %H:%M:%SZ")
        text = message.format_map(_Facts(facts))
        return status, {
            "error": error,
            "error_description": f"AADSTS{aadsts}: {text} Trace ID: {trace_id} Correlation ID: {correlation_id} "
            f"Timestamp: {timestamp}",
            "error_codes": [aadsts],
            "timestamp": timestamp,
            "trace_id": trace_id,
            "correlation_id": correlation_id,
            "error_uri": f"https://login.microsoftonline.com/error?code={aadsts}",
        }

    def _fail_by_request(self, request: Request) -> Response:
        command = request.json()
        if command.get("code") not in AADSTS:
            return text_response(400, f"code {command.get('code')!r} is unknown; accepted: {sorted(AADSTS)}")
        self.fail_next(command["code"], command.get("times", 1))
        return Response(204)

    def throttled(self, request: Request) -> Response:  # noqa: ARG002
        return json_response(
            429, {"error": "temporarily_unavailable", "error_description": "AADSTS90055: Too many requests."}
        )


class _Facts(dict[str, Any]):
    """What a message mentions and nobody said stays visible as its name."""

    def __missing__(self, key: str) -> str:
        return key


def _form(request: Request) -> dict[str, str]:
    return dict(parse_qsl(request.body.decode(), keep_blank_values=True))


def _s256(verifier: str) -> str:
    """https://www.rfc-editor.org/rfc/rfc7636#section-4.2"""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()

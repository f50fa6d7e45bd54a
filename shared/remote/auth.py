"""Owns access tokens: gets them, keeps them until shortly before they expire, says in words why there is none.

Never knows what a token is used for. Three ways in, one per class at the end of this module.
"""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

from shared.errors import CosellError, SignInFailed, Unavailable
from shared.remote.dialect import Complaint, Dialect, Meaning
from shared.remote.http import Remote, utc_now
from shared.remote.token_store import TokenStore

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

log = logging.getLogger(__name__)

EARLY = timedelta(minutes=5)
ASK_AGAIN_S = 300.0
"""An admin has to act first: until then one try every five minutes is enough."""


class TokenSource(Protocol):
    """Gives access tokens for one audience; safe to share between threads."""

    def token(self, *, refused: str = "") -> str:
        """Return a token that is still good for minutes, and not the one that was `refused`. Raises SignInFailed."""


Tell = Callable[[str], None]
"""Is told why something failed; "" when it worked."""


def _nobody(_why: str) -> None:
    """Nobody is told."""


class CachedToken(ABC):
    """Keeps one token. Of many threads that need a new one, one fetches and the others wait for it."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._lock = Lock()
        self._token = ""
        self._renew_at = datetime.min.replace(tzinfo=UTC)
        self.tell: Tell = _nobody
        """Told of every try to get a token."""

    def token(self, *, refused: str = "") -> str:
        with self._lock:
            # Of many calls that one expired session refuses, only the first finds it still in place.
            if self._token == refused or self._clock() >= self._renew_at:
                try:
                    self._token, expires = self._fetch()
                except CosellError as failed:
                    self.tell(str(failed))
                    raise
                self._renew_at = expires - EARLY
                self.tell("")
            return self._token

    @abstractmethod
    def _fetch(self) -> tuple[str, datetime]:
        """Return a new token and when it expires."""


# https://learn.microsoft.com/entra/identity-platform/reference-error-codes
WHAT_TO_DO: Mapping[str, str] = {
    "700082": "the refresh token lay unused for 90 days: the Referrals admin must consent again, then set the new one",
    "50173": "the refresh token was revoked: the Referrals admin must consent again, then set the new one",
    "50076": "multifactor authentication is required: the Referrals admin must consent again, signing in with MFA",
    "50079": "multifactor authentication must be set up: the Referrals admin must enrol, then consent again",
    "65001": "consent is missing: grant admin consent for the API permissions of the app registration",
    "7000215": "the client secret is wrong: set the secret's value, not its id",
    "7000222": "the client secret has expired: create a new one in the app registration and set it",
    "500011": "the resource is unknown in this tenant: check the scope or environment address, and the tenant id",
    "700016": "the application is unknown in this tenant: check the client id and the tenant id",
    "90002": "the tenant does not exist: check the tenant id and ENTRA_AUTHORITY",
}
IN_GENERAL = "check tenant id, client id, client secret and refresh token in the settings"


def _read_entra_error(body: Any) -> Complaint:
    """Read https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow#error-response"""
    if not isinstance(body, Mapping):
        return Complaint()
    # Only the first line: the rest are trace ids and the time.
    description = str(body.get("error_description") or "").partition("\r\n")[0].partition("\n")[0]
    found = re.search(r"AADSTS(\d+)", description)
    code = found[1] if found else next(iter(map(str, body.get("error_codes") or [])), "")
    return Complaint(code=code, message=description or str(body.get("error") or ""), field=str(body.get("error") or ""))


ENTRA = Dialect(
    read_error=_read_entra_error,
    codes={code: Meaning(SignInFailed, words) for code, words in WHAT_TO_DO.items()},
    statuses={status: Meaning(SignInFailed, IN_GENERAL) for status in (400, 401, 403, 404)},
    request_id_header="client-request-id",
)


@dataclass(frozen=True, repr=False)
class Grant:
    """What the token endpoint gave."""

    access_token: str
    expires: datetime
    refresh_token: str


class EntraTokens:
    """The token endpoint of one app registration in one tenant. Asking twice is harmless, so calls are repeated."""

    def __init__(
        self,
        entra: Remote,
        tenant_id: str,
        client_id: str,
        client_secret: str,
        *,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.clock = clock
        self._entra = entra
        self._path = f"{tenant_id}/oauth2/v2.0/token"
        self._client = {"client_id": client_id, "client_secret": client_secret}

    def grant(self, grant_type: str, scope: str, **parameters: str) -> Grant:
        """Return a new access token. Raises SignInFailed, Unavailable, Throttled."""
        asked = self.clock()
        form = {"grant_type": grant_type, "scope": scope, **self._client, **parameters}
        answer = self._entra.json("POST", self._path, data=form)
        try:
            lifetime = timedelta(seconds=int(answer["expires_in"]))
            return Grant(answer["access_token"], asked + lifetime, answer.get("refresh_token") or "")
        except (KeyError, TypeError, ValueError):
            raise Unavailable(f"{self._entra.name} answered without access_token and expires_in") from None


class ClientCredentials(CachedToken):
    """Signs in as the application itself.

    https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow
    """

    def __init__(self, tokens: EntraTokens, scope: str) -> None:
        super().__init__(tokens.clock)
        self._tokens = tokens
        self._scope = scope

    def _fetch(self) -> tuple[str, datetime]:
        granted = self._tokens.grant("client_credentials", self._scope)
        return granted.access_token, granted.expires


class RefreshToken(CachedToken):
    """Signs in as a user who consented once. Sources for several audiences share one stored refresh token.

    Each use returns a newer refresh token, good for another 90 days; the one before stays valid, so a race between
    two sources or two processes does no harm. https://learn.microsoft.com/entra/identity-platform/refresh-tokens
    """

    def __init__(
        self,
        tokens: EntraTokens,
        scope: str,
        store: TokenStore,
        configured: str | None = None,
        tell_stored: Tell = _nobody,
    ) -> None:
        """`tell_stored` is told whether the newest refresh token could be stored."""
        super().__init__(tokens.clock)
        self._tokens = tokens
        self._scope = scope
        self._store = store
        self._configured = configured
        self._tell_stored = tell_stored

    def _fetch(self) -> tuple[str, datetime]:
        stored = self._store.load()
        first = stored or self._configured
        if not first:
            raise SignInFailed(
                "no refresh token: set PARTNER_CENTER_REFRESH_TOKEN to that of the consenting Referrals admin",
                retry_after_s=ASK_AGAIN_S,
            )
        try:
            return self._redeem(first)
        except SignInFailed as refused:
            # An admin who sets a new token wants it used although an old one is stored.
            if refused.field != "invalid_grant" or not stored or self._configured in (None, stored):
                raise
            log.warning("auth.stored_refresh_token_refused", extra={"aadsts": refused.code})
            return self._redeem(str(self._configured))

    def _redeem(self, refresh_token: str) -> tuple[str, datetime]:
        granted = self._tokens.grant("refresh_token", self._scope, refresh_token=refresh_token)
        try:
            self._store.save(granted.refresh_token or refresh_token)
        except Unavailable as failed:
            # The token in use stays valid for weeks: work goes on, and the log says what to mend.
            log.exception("auth.refresh_token_not_stored")
            self._tell_stored(str(failed))
        else:
            self._tell_stored("")
        return granted.access_token, granted.expires


class ManagedIdentity(CachedToken):
    """Signs in as the Azure resource the app runs on; `client_id` names a user-assigned identity.

    https://learn.microsoft.com/azure/app-service/overview-managed-identity
    """

    def __init__(
        self,
        scope: str,
        client_id: str | None = None,
        *,
        credential: TokenCredential | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        super().__init__(clock)
        self._scope = scope
        self._client_id = client_id
        self._credential = credential

    def _fetch(self) -> tuple[str, datetime]:
        # The Azure SDK takes most of a second to import: only when it is needed.
        from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError
        from azure.identity import CredentialUnavailableError, ManagedIdentityCredential

        if self._credential is None:
            self._credential = ManagedIdentityCredential(client_id=self._client_id)
        try:
            given = self._credential.get_token(self._scope)
        except (CredentialUnavailableError, ClientAuthenticationError, ServiceRequestError) as failed:
            which = f"user-assigned {self._client_id}" if self._client_id else "system-assigned"
            raise SignInFailed(
                f"the managed identity ({which}) got no token for {self._scope}: assign the identity to the app, "
                f"or set a client secret. It said: {failed.message}",
                retry_after_s=ASK_AGAIN_S,
            ) from failed
        return given.token, datetime.fromtimestamp(given.expires_on, UTC)

"""Signs in to a Salesforce org as an app, by client credentials or by a signed assertion, and says why it cannot.

Never knows what a token is used for. It also makes sure that the org offers the API version that we speak.

https://help.salesforce.com/apex/HTViewHelpDoc?id=xcloud.remoteaccess_oauth_client_credentials_flow.htm
https://help.salesforce.com/apex/HTViewHelpDoc?id=xcloud.remoteaccess_oauth_jwt_flow.htm
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from shared.errors import SettingsError, SignInFailed, Unavailable
from shared.remote.auth import CachedToken
from shared.remote.dialect import Complaint, Dialect, Meaning
from shared.remote.http import Remote, utc_now

log = logging.getLogger(__name__)

LIFETIME = timedelta(hours=2)
"""No answer tells how long a token lasts: as long as the org's session timeout, which each call renews. A token that
has ended earlier is replaced when a call is refused for it."""
ASSERTION_LIFETIME = timedelta(minutes=3)

Grant = Callable[[], Mapping[str, str]]
"""Returns the form that asks for a token."""

WHAT_TO_DO: Mapping[str, str] = {
    "no client credentials user enabled": "choose a Run As user with API access in the app's client credentials policy",
    "request not supported on this domain": "SALESFORCE_URL must be the org's My Domain, not login or test",
    "user hasn't approved this consumer": "pre-authorize the app for the user (policy Admin approved, permission set)",
    "user is not admin approved to access this app": "assign the app to the user's permission set or profile",
    "invalid client credentials": "correct SALESFORCE_CLIENT_SECRET: the app's Consumer Secret",
    "client identifier invalid": "correct SALESFORCE_CLIENT_ID: the app's Consumer Key (a new app takes ten minutes)",
    "audience is invalid": "set SALESFORCE_AUDIENCE to https://login.salesforce.com, or https://test.salesforce.com",
    "invalid assertion": "SALESFORCE_PRIVATE_KEY must belong to the certificate uploaded to the app",
}
IN_GENERAL = "check SALESFORCE_URL, SALESFORCE_CLIENT_ID and SALESFORCE_CLIENT_SECRET (or _PRIVATE_KEY and _USERNAME)"


def _read_error(body: Any) -> Complaint:
    if not isinstance(body, Mapping):
        return Complaint()
    error, words = str(body.get("error") or ""), str(body.get("error_description") or "")
    return Complaint(code=words if words in WHAT_TO_DO else error, message=words or error)


OAUTH = Dialect(
    read_error=_read_error,
    codes={words: Meaning(SignInFailed, step) for words, step in WHAT_TO_DO.items()},
    statuses={status: Meaning(SignInFailed, IN_GENERAL) for status in (400, 401, 403, 404)},
    request_id_header="X-Request-Id",
)


def client_credentials(client_id: str, client_secret: str) -> Grant:
    """Sign in as the Run As user of the app."""
    return lambda: {"grant_type": "client_credentials", "client_id": client_id, "client_secret": client_secret}


def jwt_bearer(client_id: str, username: str, private_key: str, audience: str, clock: Callable[[], datetime]) -> Grant:
    """Sign in as `username`, by an assertion signed with the PEM key whose certificate the app has."""

    def form() -> dict[str, str]:
        import jwt

        claims = {"iss": client_id, "sub": username, "aud": audience, "exp": clock() + ASSERTION_LIFETIME}
        try:
            assertion = jwt.encode(claims, private_key, algorithm="RS256")
        except (ValueError, TypeError, jwt.InvalidKeyError) as unusable:
            accepted = "a private RSA key in PEM form, which begins with -----BEGIN PRIVATE KEY-----"
            raise SettingsError([f"SALESFORCE_PRIVATE_KEY is wrong: {unusable}. Accepted: {accepted}"]) from None
        return {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion}

    return form


class SalesforceSignIn(CachedToken):
    """`org` is the org's address without a path, unsigned; `version` such as v67.0."""

    def __init__(self, org: Remote, grant: Grant, version: str, *, clock: Callable[[], datetime] = utc_now) -> None:
        super().__init__(clock)
        self._org = org
        self._grant = grant
        self._version = version
        self._offers_version = False
        self.user_id = ""
        """Of the user that the token acts for, known once there is one."""

    def _fetch(self) -> tuple[str, datetime]:
        asked = self._clock()
        answer = self._org.json("POST", "services/oauth2/token", data=self._grant())
        if not isinstance(answer, Mapping) or not answer.get("access_token"):
            raise Unavailable(f"{self._org.name} answered without an access_token", remote=self._org.name)
        self._compare(str(answer.get("instance_url") or self._org.base_url))
        if not self._offers_version:
            self._check_version()
        # https://login.salesforce.com/id/<org>/<user>
        # https://help.salesforce.com/s/articleView?id=xcloud.remoteaccess_using_openid.htm
        self.user_id = str(answer.get("id") or "").rpartition("/")[2]
        return str(answer["access_token"]), asked + LIFETIME

    def _compare(self, instance_url: str) -> None:
        """Calls, and the token with them, go to the address in the settings, wherever the answer points to."""
        if urlsplit(instance_url).netloc != urlsplit(self._org.base_url).netloc:
            log.warning("auth.instance_differs", extra={"instance": instance_url, "setting": self._org.base_url})

    def _check_version(self) -> None:
        """https://developer.salesforce.com/docs/platform/connect-rest-api/guide/intro_api_eol"""
        versions = [f"v{row['version']}" for row in self._org.json("GET", "services/data")]
        if self._version not in versions:
            offered = f"{versions[0]} to {versions[-1]}" if versions else "none"
            raise SettingsError(
                [f"SALESFORCE_API_VERSION is {self._version}. Accepted: what the org offers, {offered}"]
            )
        self._offers_version = True

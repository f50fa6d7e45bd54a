"""Signs in to an org: as the installer, with an administrator's access token or as the app; and as the app itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

from pydantic import Field, SecretStr, model_validator

from shared.errors import Forbidden, Refused, SettingsError, SignInFailed
from shared.remote.auth import TokenSource
from shared.remote.dialect import Dialect, Meaning
from shared.remote.http import Remote
from shared.remote.salesforce import API_PATH
from shared.remote.salesforce_errors import CODES, DIALECT
from shared.services import Services
from shared.settings import SalesforceSettings

DEFINITIONS_TIMEOUT_S = (5.0, 120.0)
"""Adding a field takes the servers some seconds."""

# https://developer.salesforce.com/docs/platform/salesforce-cli-reference/guide/cli_reference_org_auth_show-access-token.html
_TOKEN = "SALESFORCE_ACCESS_TOKEN, from `sf org auth show-access-token --target-org <org>`"  # noqa: S105 (its name)
_AS_ADMIN = f"sign in as a System Administrator: set {_TOKEN}; then run again"
_AS_IT_SAYS = "do what the message says, then run again"

INSTALLER: Dialect = replace(
    DIALECT,
    codes={
        **CODES,
        "insufficient_access": Meaning(Forbidden, _AS_ADMIN),
        "insufficient_access_or_readonly": Meaning(Forbidden, _AS_ADMIN),
        "insufficient_access_on_cross_reference_entity": Meaning(Forbidden, _AS_ADMIN),
        # What a user may not set up is not there for that user.
        "invalid_type": Meaning(Refused, _AS_ADMIN),
        "field_integrity_exception": Meaning(Refused, _AS_IT_SAYS),
        "duplicate_value": Meaning(Refused, _AS_IT_SAYS),
        "invalid_or_null_for_restricted_picklist": Meaning(
            Refused, "permissions do not know this field: correct its name in the field map, then run again"
        ),
    },
)
"""What errors mean to somebody who sets an org up."""


class InstallerSettings(SalesforceSettings):
    """The org, and an administrator's session in it; without one the app's own settings count."""

    client_id: str = Field("", alias="SALESFORCE_CLIENT_ID", description="the Consumer Key of the External Client App")
    access_token: SecretStr | None = Field(
        None, alias="SALESFORCE_ACCESS_TOKEN", description="an access token of a System Administrator"
    )

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        return self

    @property
    def has_the_app(self) -> bool:
        return bool(self.client_id and (self.client_secret or (self.private_key and self.username)))


class GivenToken:
    """A token that somebody else got and that cannot be renewed here."""

    def __init__(self, token: str) -> None:
        self._token = token

    def token(self, *, refused: str = "") -> str:
        if refused:
            why = "it has ended, or is for another org than SALESFORCE_URL"
            raise SignInFailed(f"the org refused the token in SALESFORCE_ACCESS_TOKEN: {why}. Set {_TOKEN}")
        return self._token


@dataclass(frozen=True)
class App:
    """The org as the app sees it, and the id of the user it signs in as, "" when the answer does not tell."""

    remote: Remote
    user_id: str


class SignIn:
    def __init__(self, services: Services, sleep: Callable[[float], None]) -> None:
        self._services = services
        self._sleep = sleep
        self._settings = services.settings(InstallerSettings)

    def installer(self) -> Remote:
        """Return the org as the installer. Raises SettingsError when there is no way in."""
        settings = self._settings
        if settings.access_token:
            return self._org(GivenToken(settings.access_token.get_secret_value()), INSTALLER)
        try:
            return self._org(self._services.salesforce_sign_in(), INSTALLER)
        except SettingsError as missing:
            raise SettingsError([*missing.problems, f"Or {_AS_ADMIN}"]) from None

    def app(self) -> App | None:
        """Return the org as the app, None when its sign-in is not set. Raises SignInFailed."""
        if not self._settings.has_the_app:
            return None
        user = self._services.salesforce_sign_in()
        user.token()
        return App(self._org(user, DIALECT), user.user_id)

    def _org(self, user: TokenSource, dialect: Dialect) -> Remote:
        return Remote(
            "Salesforce",
            f"{self._settings.url}/{API_PATH}/{self._settings.api_version}",
            user,
            dialect=dialect,
            session=self._services.session,
            clock=self._services.clock,
            sleep=self._sleep,
            timeout_s=DEFINITIONS_TIMEOUT_S,
        )

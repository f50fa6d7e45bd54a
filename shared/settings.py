"""Every app setting: name, type, default, what is accepted, where to get it. Bad ones are refused together.

Settings come in groups, so that the webhook can go on accepting events while, say, the CRM's secret is being mended.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, model_validator

from shared import addresses
from shared.errors import SettingsError

ROOT = Path(__file__).resolve().parent.parent


def _https(value: str) -> str:
    if not value.startswith("https://"):
        raise ValueError("must begin with https://")
    return value.rstrip("/")


def _my_domain(value: str) -> str:
    value = _https(value)
    if value.endswith((".lightning.force.com", "//login.salesforce.com", "//test.salesforce.com")):
        raise ValueError("must be the My Domain address (Setup, My Domain), which ends in .my.salesforce.com")
    return value


def _list(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _lines(value: str) -> str:
    """Portals and templates keep a value in one line."""
    return value.replace("\\n", "\n")


def _known_crm(value: str) -> str:
    if value not in CRM_SETTINGS:
        raise ValueError(f"{value} is none of those this version speaks to")
    return value


def _azurite(value: str) -> str:
    """Expand the shorthand that Core Tools know and the storage packages do not all know."""
    return AZURITE if value.strip().rstrip(";").casefold() == "usedevelopmentstorage=true" else value


# Azurite's public account: https://learn.microsoft.com/azure/storage/common/storage-use-azurite
AZURITE = (
    "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50u"
    "SRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;QueueEndpoint=http://127.0.0.1:10001/devstoreaccount1;"
    "TableEndpoint=http://127.0.0.1:10002/devstoreaccount1;"
)
Https = Annotated[str, BeforeValidator(_https)]
CommaList = Annotated[list[str], BeforeValidator(_list)]


class Group(BaseModel):
    """Base of the groups. A field's alias is the setting's name; its description says what is accepted."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=False)


class StorageSettings(Group):
    """Where state, audit and the queue live."""

    connection: Annotated[SecretStr, BeforeValidator(_azurite)] | None = Field(
        None,
        alias="AzureWebJobsStorage",
        description="a storage connection string; set AzureWebJobsStorage__accountName instead to use managed identity",
    )
    account_name: str | None = Field(
        None, alias="AzureWebJobsStorage__accountName", description="the storage account's name (managed identity)"
    )
    queue_uri: Https | None = Field(
        None, alias="AzureWebJobsStorage__queueServiceUri", description="https address of the queue service"
    )
    table_uri: Https | None = Field(
        None, alias="AzureWebJobsStorage__tableServiceUri", description="https address of the table service"
    )
    client_id: str | None = Field(
        None, alias="AzureWebJobsStorage__clientId", description="client id of a user-assigned identity"
    )

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        if not (self.connection or self.account_name or (self.queue_uri and self.table_uri)):
            raise ValueError(
                "AzureWebJobsStorage is missing: set a storage connection string (Azure portal, storage account, "
                "Access keys), or AzureWebJobsStorage__accountName to use the managed identity"
            )
        return self

    def service_uri(self, service: Literal["queue", "table"]) -> str:
        """Return the https address of a storage service, for managed identity."""
        given = self.queue_uri if service == "queue" else self.table_uri
        return given or f"https://{self.account_name}.{service}.core.windows.net"


class WebhookSettings(Group):
    """What a genuine Partner Center call must look like."""

    certificate_hosts: CommaList = Field(
        # The host in Microsoft's samples: https://learn.microsoft.com/partner-center/developer/partner-center-webhooks
        ["3psostorageacct.blob.core.windows.net"],
        alias="WEBHOOK_CERTIFICATE_HOSTS",
        description="exact hosts (host or host:port), comma separated, that a signing certificate may come from",
    )
    trusted_roots_file: Path | None = Field(
        None,
        alias="WEBHOOK_TRUSTED_ROOTS_FILE",
        description="a PEM file of root (and intermediate) certificates; unset: the bundled public ones",
    )
    certificate_names: CommaList = Field(
        ["pcnotifications-dispatch.microsoft.com", "pcnotifications.microsoft.com"],
        alias="WEBHOOK_CERTIFICATE_NAMES",
        description="names, comma separated, one of which the signing certificate must carry",
    )

    capture_events: bool = Field(
        False,
        alias="CAPTURE_EVENTS",
        description="true: headers and body of genuine calls are kept for a day, for python -m admin first-contact",
    )

    @model_validator(mode="after")
    def _roots_exist(self) -> Self:
        if self.trusted_roots_file and not self.trusted_roots_file.is_file():
            raise ValueError(f"WEBHOOK_TRUSTED_ROOTS_FILE: there is no file {self.trusted_roots_file}")
        return self


class RegistrationSettings(Group):
    """What the webhook registration should be."""

    webhook_url: str | None = Field(
        None,
        alias="WEBHOOK_URL",
        description="the public address of webhook_receiver with its function key: "
        "https://<app>.azurewebsites.net/api/webhook_receiver?code=<key>",
    )
    take_back: bool = Field(
        False,
        alias="WEBHOOK_TAKE_BACK",
        description="true: the daily check takes the registration back when another address replaced ours",
    )


class RelaySettings(Group):
    """Who else gets Partner Center's calls. Apart from the webhook's own: a mistake here stops nothing else."""

    urls: CommaList = Field(
        [],
        alias="WEBHOOK_RELAY_URLS",
        description="https addresses, comma separated (a comma in one is %2C), that every genuine call is passed on to",
    )
    webhook_url: str | None = Field(None, alias="WEBHOOK_URL", description="see above")

    @model_validator(mode="after")
    def _are_others(self) -> Self:
        places = [addresses.place(url) for url in self.urls]
        wrong = []
        for url, place in zip(self.urls, places, strict=True):
            if problem := addresses.problem(url):
                wrong.append(f"{addresses.masked(url)} {problem.partition(';')[0]}")
            elif places.count(place) > 1:
                wrong.append(f"{addresses.masked(url)} is named twice")
            elif self.webhook_url and place == addresses.place(self.webhook_url):
                wrong.append("it names WEBHOOK_URL: calls passed on to ourselves would never end")
        if wrong:
            raise ValueError(f"WEBHOOK_RELAY_URLS: {'; '.join(wrong)}")
        return self


class AuditSettings(Group):
    """How long it is kept what happened."""

    retention_days: int = Field(
        400,
        alias="AUDIT_RETENTION_DAYS",
        ge=0,
        le=36_500,
        description="days that the audit is kept, 0 to 36500; 0: for ever",
    )


class PartnerCenterSettings(Group):
    """Partner Center: addresses, and the sign-in of a user with the Referrals admin role (App+User)."""

    authority: Https = Field(
        "https://login.microsoftonline.com",
        alias="ENTRA_AUTHORITY",
        description="address of Microsoft Entra ID in your cloud",
    )
    url: Https = Field(
        "https://api.partner.microsoft.com/v1.0/engagements",
        alias="PARTNER_CENTER_URL",
        description="base address of the Referrals API",
    )
    webhooks_url: Https = Field(
        "https://api.partnercenter.microsoft.com/webhooks/v1",
        alias="PARTNER_CENTER_WEBHOOKS_URL",
        description="base address of the webhook registration API",
    )
    scope: str = Field(
        "https://api.partner.microsoft.com/.default",
        alias="PARTNER_CENTER_SCOPE",
        description="token scope of the Referrals API",
    )
    webhooks_scope: str = Field(
        "https://api.partnercenter.microsoft.com/.default",
        alias="PARTNER_CENTER_WEBHOOKS_SCOPE",
        description="token scope of the webhook registration API",
    )
    tenant_id: str = Field(
        ..., alias="PARTNER_CENTER_TENANT_ID", description="the Entra tenant id of the Partner Center account"
    )
    client_id: str = Field(
        ..., alias="PARTNER_CENTER_CLIENT_ID", description="the application (client) id of the app registration"
    )
    client_secret: SecretStr = Field(
        ..., alias="PARTNER_CENTER_CLIENT_SECRET", description="a client secret of that app registration"
    )
    refresh_token: SecretStr | None = Field(
        None,
        alias="PARTNER_CENTER_REFRESH_TOKEN",
        description="the refresh token of the consenting Referrals admin; read until a newer one has been stored",
    )
    token_vault_url: Https | None = Field(
        None,
        alias="PARTNER_CENTER_TOKEN_VAULT_URL",
        description="https address of the Key Vault that keeps the newest refresh token",
    )
    token_file: Path = Field(
        ROOT / ".local" / "partner-center-refresh-token",
        alias="PARTNER_CENTER_TOKEN_FILE",
        description="without a Key Vault: the file (mode 0600) that keeps the newest refresh token",
    )
    referral_link: str = Field(
        # No deep link is documented; this is the address the Power Automate connector wrote.
        # https://learn.microsoft.com/partner-center/referrals/connector-dynamics
        "https://partner.microsoft.com/referrals/v2/inbox?id={referral_id}",
        alias="PARTNER_CENTER_REFERRAL_LINK",
        description="template of the Referral Link; {referral_id} and {engagement_id} are filled in",
    )


class Dynamics365Settings(Group):
    """Dynamics 365: the environment, and an application user in it."""

    authority: Https = Field("https://login.microsoftonline.com", alias="ENTRA_AUTHORITY", description="see above")
    url: Https = Field(
        ..., alias="DYNAMICS365_URL", description="the environment's address, https://<org>.crm.dynamics.com"
    )
    tenant_id: str | None = Field(None, alias="DYNAMICS365_TENANT_ID", description="the environment's Entra tenant id")
    client_id: str | None = Field(
        None,
        alias="DYNAMICS365_CLIENT_ID",
        description="the application id behind the application user (or of a user-assigned managed identity)",
    )
    client_secret: SecretStr | None = Field(
        None, alias="DYNAMICS365_CLIENT_SECRET", description="its secret; unset: the managed identity signs in"
    )

    @model_validator(mode="after")
    def _secret_needs_its_app(self) -> Self:
        if self.client_secret and not (self.tenant_id and self.client_id):
            raise ValueError(
                "DYNAMICS365_TENANT_ID and DYNAMICS365_CLIENT_ID are needed with DYNAMICS365_CLIENT_SECRET: "
                "Azure portal, App registrations, Overview"
            )
        return self


class SalesforceSettings(Group):
    """Salesforce: the org, and an app that signs in to it as an integration user."""

    url: Annotated[str, BeforeValidator(_my_domain)] = Field(
        ..., alias="SALESFORCE_URL", description="the org's My Domain address, https://<domain>.my.salesforce.com"
    )
    client_id: str = Field(..., alias="SALESFORCE_CLIENT_ID", description="the Consumer Key of the External Client App")
    client_secret: SecretStr | None = Field(
        None,
        alias="SALESFORCE_CLIENT_SECRET",
        description="its Consumer Secret (client credentials flow); set it, or private key and username",
    )
    private_key: Annotated[SecretStr, BeforeValidator(_lines)] | None = Field(
        None,
        alias="SALESFORCE_PRIVATE_KEY",
        description="the PEM private key of the certificate uploaded to the app (JWT bearer flow); \\n for line ends",
    )
    username: str | None = Field(
        None, alias="SALESFORCE_USERNAME", description="with the private key: the integration user's username"
    )
    audience: Https | None = Field(
        None,
        alias="SALESFORCE_AUDIENCE",
        description="with the private key: the login host; unset: https://test.salesforce.com for a sandbox address, "
        "else https://login.salesforce.com",
    )
    api_version: str = Field(
        "v67.0", alias="SALESFORCE_API_VERSION", pattern=r"^v\d+\.0$", description="an API version the org offers"
    )
    api_reserve: int = Field(
        10,
        alias="SALESFORCE_API_RESERVE",
        ge=0,
        le=90,
        description="percent of the org's daily API requests that are left to people and other apps, 0 to 90",
    )

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        if not (self.client_secret or (self.private_key and self.username)):
            raise ValueError(
                "SALESFORCE_CLIENT_SECRET is missing: set the app's Consumer Secret (External Client App, Settings, "
                "OAuth Settings), or SALESFORCE_PRIVATE_KEY and SALESFORCE_USERNAME"
            )
        return self

    @property
    def login_host(self) -> str:
        """The audience of a signed assertion."""
        is_for_tests = ".sandbox.my." in self.url or ".scratch.my." in self.url
        return self.audience or f"https://{'test' if is_for_tests else 'login'}.salesforce.com"


CRM_SETTINGS: Mapping[str, type[Group]] = {"dynamics365": Dynamics365Settings, "salesforce": SalesforceSettings}
"""What the setting CRM may be, and the settings that each needs."""


class CrmChoice(Group):
    """Which CRM, and how it maps."""

    crm: Annotated[str, BeforeValidator(_known_crm)] = Field(
        ..., alias="CRM", description=" or ".join(sorted(CRM_SETTINGS))
    )
    only_currency: str = Field(
        "",
        alias="CRM_CURRENCY",
        pattern="^[A-Z]{3}$",
        description="if the CRM keeps no currency with an amount (a Salesforce org with one currency): its ISO code",
    )
    mapping_file: Path | None = Field(
        None, alias="MAPPING_FILE", description="path of the field map; unset: the shipped mappings/<CRM>.toml"
    )

    @property
    def field_map(self) -> Path:
        # A relative path counts from the app's root, wherever the worker was started.
        return ROOT / (self.mapping_file or Path("mappings") / f"{self.crm}.toml")


G = TypeVar("G", bound=Group)


def load(group: type[G], environ: Mapping[str, str] | None = None) -> G:
    """Return the group's settings from the environment. Raises SettingsError with one line per problem."""
    environ = os.environ if environ is None else environ
    names = {field.alias for field in group.model_fields.values()}
    # An empty setting is an unset one: templates and portals leave empty strings behind.
    given = {name: value for name, value in environ.items() if name in names and value.strip()}
    unresolved = [name for name, value in given.items() if value.startswith("@Microsoft.KeyVault(")]
    if unresolved:
        raise SettingsError(
            [
                f"{name} is an unresolved Key Vault reference: the app's identity needs the role Key Vault Secrets "
                "User, and the secret must exist"
                for name in sorted(unresolved)
            ]
        )
    try:
        return group.model_validate(given)
    except ValidationError as refused:
        raise SettingsError([_problem(group, error) for error in refused.errors(include_url=False)]) from None


def _problem(group: type[Group], error: Any) -> str:
    if not error["loc"]:
        return str(error["msg"]).removeprefix("Value error, ")
    name = str(error["loc"][0])
    accepted = next((f.description for f in group.model_fields.values() if f.alias == name), "")
    if error["type"] == "missing":
        return f"{name} is missing. Accepted: {accepted}"
    return f"{name} is wrong: {str(error['msg']).removeprefix('Value error, ')}. Accepted: {accepted}"


def all_problems(environ: Mapping[str, str] | None = None) -> list[str]:
    """Return every problem of every group, for the start-up check and the health page."""
    groups: list[type[Group]] = [
        StorageSettings,
        WebhookSettings,
        RegistrationSettings,
        RelaySettings,
        AuditSettings,
        PartnerCenterSettings,
        CrmChoice,
    ]
    chosen = CRM_SETTINGS.get((os.environ if environ is None else environ).get("CRM", ""))
    groups += [chosen] if chosen else []
    problems: list[str] = []
    for group in groups:
        try:
            load(group, environ)
        except SettingsError as error:
            problems += error.problems
    return problems


# When the timers run: NCRONTAB, six fields from seconds on, in UTC.
# https://learn.microsoft.com/azure/azure-functions/functions-bindings-timer#ncrontab-expressions
SCHEDULES: Mapping[str, str] = {
    "CRM_POLL_SCHEDULE": "0 * * * * *",
    "SWEEP_SCHEDULE": "30 */5 * * * *",
    "FULL_SWEEP_SCHEDULE": "0 47 1 * * *",
    "REGISTRATION_CHECK_SCHEDULE": "0 17 5 * * *",
    "AUDIT_RETENTION_SCHEDULE": "0 41 3 * * *",
}


def schedule(name: str, environ: Mapping[str, str] | None = None) -> str:
    """Return the NCRONTAB expression of a timer. Read at indexing, so that an unset setting has its default."""
    return (os.environ if environ is None else environ).get(name) or SCHEDULES[name]

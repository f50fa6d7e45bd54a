"""App settings: defaults, and an error for each missing or wrong one that names it and never tells a secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from local.desks import DESKS
from local.simulators.systems import CRMS
from shared.errors import SettingsError
from shared.services import Services
from shared.settings import (
    CRM_SETTINGS,
    ROOT,
    CrmChoice,
    Dynamics365Settings,
    Group,
    PartnerCenterSettings,
    RegistrationSettings,
    SalesforceSettings,
    StorageSettings,
    WebhookSettings,
    all_problems,
    load,
    schedule,
)

STORAGE = {"AzureWebJobsStorage": "UseDevelopmentStorage=true"}
PARTNER_CENTER = {
    "PARTNER_CENTER_TENANT_ID": "7d23e5ca",
    "PARTNER_CENTER_CLIENT_ID": "4111fffc",
    "PARTNER_CENTER_CLIENT_SECRET": "canary-partner-center",
}
DYNAMICS365 = {
    "DYNAMICS365_URL": "https://fabrikam.crm.dynamics.com/",
    "DYNAMICS365_TENANT_ID": "7d23e5ca",
    "DYNAMICS365_CLIENT_ID": "37ef26aa",
    "DYNAMICS365_CLIENT_SECRET": "canary-dynamics",
}
WHOLE = {**STORAGE, **PARTNER_CENTER, **DYNAMICS365, "CRM": "dynamics365"}


def problems(group: type[Group], environ: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        load(group, environ)
    return list(refused.value.problems)


# ---------------------------------------------------------------- what is missing or wrong


@pytest.mark.parametrize(
    ("group", "environ", "names"),
    [
        (StorageSettings, {}, ["AzureWebJobsStorage is missing: set a storage connection string"]),
        (StorageSettings, {"AzureWebJobsStorage__queueServiceUri": "https://q"}, ["AzureWebJobsStorage is missing"]),
        (
            PartnerCenterSettings,
            {},
            [
                "PARTNER_CENTER_TENANT_ID is missing. Accepted: the Entra tenant id",
                "PARTNER_CENTER_CLIENT_ID is missing. Accepted: the application (client) id",
                "PARTNER_CENTER_CLIENT_SECRET is missing. Accepted: a client secret",
            ],
        ),
        (
            PartnerCenterSettings,
            {**PARTNER_CENTER, "PARTNER_CENTER_URL": "http://api.example.com", "ENTRA_AUTHORITY": "login"},
            [
                "ENTRA_AUTHORITY is wrong: must begin with https://",
                "PARTNER_CENTER_URL is wrong: must begin with https://",
            ],
        ),
        (CrmChoice, {}, ["CRM is missing. Accepted: dynamics365 or salesforce"]),
        (
            CrmChoice,
            {"CRM": "siebel"},
            ["CRM is wrong: siebel is none of those this version speaks to. Accepted: dynamics365 or salesforce"],
        ),
        (Dynamics365Settings, {}, ["DYNAMICS365_URL is missing. Accepted: the environment's address"]),
        (Dynamics365Settings, {"DYNAMICS365_URL": "fabrikam"}, ["DYNAMICS365_URL is wrong: must begin"]),
        (
            Dynamics365Settings,
            {"DYNAMICS365_URL": "https://fabrikam.crm.dynamics.com", "DYNAMICS365_CLIENT_SECRET": "canary"},
            ["DYNAMICS365_TENANT_ID and DYNAMICS365_CLIENT_ID are needed with DYNAMICS365_CLIENT_SECRET"],
        ),
        (
            WebhookSettings,
            {"WEBHOOK_TRUSTED_ROOTS_FILE": "/none.pem"},
            ["WEBHOOK_TRUSTED_ROOTS_FILE: there is no file /none.pem"],
        ),
        (RegistrationSettings, {"WEBHOOK_TAKE_BACK": "perhaps"}, ["WEBHOOK_TAKE_BACK is wrong: "]),
    ],
)
def test_every_missing_or_wrong_setting_is_named(group: type[Group], environ: dict[str, str], names: list[str]) -> None:
    found = problems(group, environ)

    assert len(found) == len(names)
    for problem, name in zip(found, names, strict=True):
        assert problem.startswith(name)


@pytest.mark.parametrize("setting", sorted(PARTNER_CENTER))
@pytest.mark.parametrize("nothing", ["", "   ", "\n"])
def test_an_empty_setting_is_an_unset_one(setting: str, nothing: str) -> None:
    assert problems(PartnerCenterSettings, {**PARTNER_CENTER, setting: nothing})[0].startswith(f"{setting} is missing")


def test_an_empty_optional_setting_keeps_its_default() -> None:
    settings = load(
        PartnerCenterSettings, {**PARTNER_CENTER, "PARTNER_CENTER_URL": "", "PARTNER_CENTER_TOKEN_FILE": " "}
    )

    assert settings.url == "https://api.partner.microsoft.com/v1.0/engagements"
    assert settings.token_file == ROOT / ".local" / "partner-center-refresh-token"


def test_unresolved_key_vault_references_are_named_together() -> None:
    reference = "@Microsoft.KeyVault(SecretUri=https://canary.vault.azure.net/secrets/x)"
    environ = {**PARTNER_CENTER, "PARTNER_CENTER_CLIENT_SECRET": reference, "PARTNER_CENTER_REFRESH_TOKEN": reference}

    found = problems(PartnerCenterSettings, environ)

    assert [problem.split(" is an unresolved Key Vault reference: ")[0] for problem in found] == [
        "PARTNER_CENTER_CLIENT_SECRET",
        "PARTNER_CENTER_REFRESH_TOKEN",
    ]
    assert all("Key Vault Secrets User" in problem for problem in found)
    assert not any("canary" in problem for problem in found)


def test_a_reference_in_another_groups_setting_does_not_matter() -> None:
    reference = {"DYNAMICS365_CLIENT_SECRET": "@Microsoft.KeyVault(SecretUri=https://x)"}

    assert load(PartnerCenterSettings, {**PARTNER_CENTER, **reference}).tenant_id == "7d23e5ca"


# ---------------------------------------------------------------- secrets


def test_no_message_tells_a_secret() -> None:
    wrong = {
        **WHOLE,
        "AzureWebJobsStorage": "AccountKey=canary-storage",
        "PARTNER_CENTER_REFRESH_TOKEN": "canary-refresh",
        "PARTNER_CENTER_URL": "http://wrong",
        "DYNAMICS365_URL": "wrong",
        "DYNAMICS365_TENANT_ID": "",
        "WEBHOOK_TAKE_BACK": "perhaps",
    }

    found = all_problems(wrong)

    assert len(found) == 3
    assert "canary" not in "\n".join(found)


def test_settings_do_not_show_their_secrets() -> None:
    storage = load(StorageSettings, {"AzureWebJobsStorage": "AccountKey=canary-storage"})
    partner_center = load(PartnerCenterSettings, {**PARTNER_CENTER, "PARTNER_CENTER_REFRESH_TOKEN": "canary-refresh"})
    dynamics = load(Dynamics365Settings, DYNAMICS365)

    assert "canary" not in f"{storage!r} {partner_center!r} {dynamics!r} {storage} {partner_center} {dynamics}"
    assert partner_center.client_secret.get_secret_value() == "canary-partner-center"


# ---------------------------------------------------------------- what is accepted


def test_a_whole_set_of_settings_has_no_problems() -> None:
    assert all_problems(WHOLE) == []


def test_all_groups_are_checked_together() -> None:
    found = all_problems({"CRM": "dynamics365"})

    assert [problem.split(" is missing")[0] for problem in found] == [
        "AzureWebJobsStorage",
        "PARTNER_CENTER_TENANT_ID",
        "PARTNER_CENTER_CLIENT_ID",
        "PARTNER_CENTER_CLIENT_SECRET",
        "DYNAMICS365_URL",
    ]


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRM", "salesforce")
    monkeypatch.delenv("MAPPING_FILE", raising=False)

    assert load(CrmChoice).field_map == ROOT / "mappings" / "salesforce.toml"


def test_an_own_map_takes_the_place_of_the_shipped_one() -> None:
    choice = load(CrmChoice, {"CRM": "dynamics365", "MAPPING_FILE": "/home/site/our.toml"})

    assert choice.field_map == Path("/home/site/our.toml")


SALESFORCE = {
    "SALESFORCE_URL": "https://fabrikam.my.salesforce.com",
    "SALESFORCE_CLIENT_ID": "3MVG9",
    "SALESFORCE_CLIENT_SECRET": "canary-salesforce",
}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"SALESFORCE_URL": ""}, "SALESFORCE_URL is missing. Accepted: the org's My Domain address"),
        ({"SALESFORCE_URL": "https://fabrikam.lightning.force.com"}, "SALESFORCE_URL is wrong: must be the My Domain"),
        ({"SALESFORCE_CLIENT_ID": ""}, "SALESFORCE_CLIENT_ID is missing. Accepted: the Consumer Key"),
        ({"SALESFORCE_CLIENT_SECRET": ""}, "SALESFORCE_CLIENT_SECRET is missing: set the app's Consumer Secret"),
        (
            {"SALESFORCE_CLIENT_SECRET": "", "SALESFORCE_PRIVATE_KEY": "key"},
            "SALESFORCE_CLIENT_SECRET is missing: set the app's Consumer Secret",
        ),
        ({"SALESFORCE_API_VERSION": "67"}, "SALESFORCE_API_VERSION is wrong: String should match pattern"),
        ({"SALESFORCE_API_RESERVE": "100"}, "SALESFORCE_API_RESERVE is wrong: Input should be less than or equal to"),
    ],
)
def test_salesforce_settings_that_are_missing_or_wrong_are_named(changes: dict[str, str], problem: str) -> None:
    (found,) = problems(SalesforceSettings, SALESFORCE | changes)

    assert found.startswith(problem)


def test_a_private_key_may_stand_in_one_line() -> None:
    keys = {"SALESFORCE_PRIVATE_KEY": "-----BEGIN\\nkey", "SALESFORCE_USERNAME": "sync@fabrikam.example"}

    settings = load(SalesforceSettings, SALESFORCE | {"SALESFORCE_CLIENT_SECRET": ""} | keys)

    assert settings.private_key is not None
    assert settings.private_key.get_secret_value() == "-----BEGIN\nkey"


@pytest.mark.parametrize(
    ("changes", "host"),
    [
        ({}, "https://login.salesforce.com"),
        ({"SALESFORCE_URL": "https://fabrikam--uat.sandbox.my.salesforce.com"}, "https://test.salesforce.com"),
        ({"SALESFORCE_AUDIENCE": "https://fabrikam.my.site.com/"}, "https://fabrikam.my.site.com"),
    ],
)
def test_the_login_host_follows_from_the_address(changes: dict[str, str], host: str) -> None:
    assert load(SalesforceSettings, SALESFORCE | changes).login_host == host


@pytest.mark.parametrize(
    ("crm", "settings"), [("dynamics365", DYNAMICS365), ("salesforce", SALESFORCE)], ids=["dynamics365", "salesforce"]
)
def test_every_crm_that_may_be_chosen_can_be_spoken_to(crm: str, settings: dict[str, str]) -> None:
    services = Services({**settings, "CRM": crm})

    assert services.crm.name
    assert crm in CRM_SETTINGS


def test_no_crm_may_be_chosen_that_nothing_is_simulated_or_mapped_for() -> None:
    maps = {path.stem for path in (ROOT / "mappings").glob("*.toml")}

    assert set(CRM_SETTINGS) == set(CRMS) == set(DESKS) == maps


def test_the_settings_of_the_chosen_crm_are_checked() -> None:
    assert all_problems({**STORAGE, **PARTNER_CENTER, **SALESFORCE, "CRM": "salesforce"}) == []
    (missing,) = all_problems({**STORAGE, **PARTNER_CENTER, **SALESFORCE, "CRM": "dynamics365"})
    assert missing.startswith("DYNAMICS365_URL is missing")


def test_the_only_currency_of_a_crm_is_an_iso_code() -> None:
    assert load(CrmChoice, {"CRM": "salesforce", "CRM_CURRENCY": "USD"}).only_currency == "USD"
    assert problems(CrmChoice, {"CRM": "salesforce", "CRM_CURRENCY": "dollars"})[0].startswith("CRM_CURRENCY is wrong")


def test_addresses_lose_their_last_slash() -> None:
    assert load(Dynamics365Settings, DYNAMICS365).url == "https://fabrikam.crm.dynamics.com"


def test_lists_are_separated_by_commas() -> None:
    settings = load(WebhookSettings, {"WEBHOOK_CERTIFICATE_HOSTS": " one.example.com, two.example.com:8443 ,"})

    assert settings.certificate_hosts == ["one.example.com", "two.example.com:8443"]


@pytest.mark.parametrize(
    ("environ", "queue", "table"),
    [
        (
            {"AzureWebJobsStorage__accountName": "cosell"},
            "https://cosell.queue.core.windows.net",
            "https://cosell.table.core.windows.net",
        ),
        (
            {
                "AzureWebJobsStorage__queueServiceUri": "https://q.example.com/",
                "AzureWebJobsStorage__tableServiceUri": "https://t.example.com",
            },
            "https://q.example.com",
            "https://t.example.com",
        ),
    ],
)
def test_managed_identity_needs_an_account_or_its_addresses(environ: dict[str, str], queue: str, table: str) -> None:
    settings = load(StorageSettings, environ)

    assert (settings.service_uri("queue"), settings.service_uri("table")) == (queue, table)


@pytest.mark.parametrize("given", ["", None])
def test_a_schedule_that_is_not_set_has_its_default(monkeypatch: pytest.MonkeyPatch, given: str | None) -> None:
    monkeypatch.delenv("CRM_POLL_SCHEDULE", raising=False)
    if given is not None:
        monkeypatch.setenv("CRM_POLL_SCHEDULE", given)

    assert schedule("CRM_POLL_SCHEDULE") == "0 * * * * *"


def test_a_schedule_that_is_set_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRM_POLL_SCHEDULE", "*/10 * * * * *")

    assert schedule("CRM_POLL_SCHEDULE") == "*/10 * * * * *"

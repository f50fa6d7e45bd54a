"""The templates against the code: settings, names, rights, and the columns the field map needs.

The templates are parsed, not compiled: types and API versions are checked by `bicep build`, which needs a binary.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pathspec
import pytest
from pycep import BicepParser
from pydantic import SecretStr

from infra.crm.dynamics365.columns import Column, load_wanted
from shared import settings
from shared.lenses import Choice, Flag
from shared.mapping import FieldMap, load_field_map
from shared.remote.http import CONNECTIONS
from shared.remote.token_store import SECRET_NAME
from shared.store.tables import CURSORS, DEALS, INDEX
from shared.write_record import AUDIT_TEXT_LENGTH, STATUS_LENGTH

ROOT = settings.ROOT
TEMPLATES = sorted((ROOT / "infra").glob("*.bicep"))
# https://learn.microsoft.com/azure/azure-functions/functions-app-settings
PLATFORM = {
    "AzureWebJobsStorage__credential",
    "AZURE_CLIENT_ID",
    "APPLICATIONINSIGHTS_CONNECTION_STRING",
    "APPLICATIONINSIGHTS_AUTHENTICATION_STRING",
    "PYTHON_THREADPOOL_THREAD_COUNT",
}
# https://learn.microsoft.com/azure/role-based-access-control/built-in-roles
ROLES = {
    "storageBlobDataOwner": "b7e6dc6d-f1e8-4753-8033-0f276bb0955b",
    "storageQueueDataContributor": "974c5e8b-45b9-4653-ba55-5f855dd0fb88",
    "storageTableDataContributor": "0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3",
    "keyVaultSecretsOfficer": "b86a8fe4-44ce-4948-aee5-eccb2c155cd7",
    "monitoringMetricsPublisher": "3913510d-42f4-4e42-8a64-420c390055eb",
}
KEY_VAULT = re.compile(r"\$\{secretReference\}([\w-]+)\)")


@cache
def template(name: str) -> Mapping[str, Any]:
    parsed: Mapping[str, Any] = BicepParser().parse(text=(ROOT / "infra" / name).read_text(encoding="utf-8"))
    return parsed


def resources(name: str, type_: str) -> list[Mapping[str, Any]]:
    found = template(name).get("resources", {}).values()
    return [r["config"].get("config", r["config"]) for r in found if r["type"] == type_ and not r["existing"]]


def members(value: Any) -> Iterator[tuple[str, Any]]:
    """Every member of every object inside an expression."""
    for name, held in value.items() if isinstance(value, dict) else []:
        yield name, held
        yield from members(held)
    for item in value if isinstance(value, list) else []:
        yield from members(item)


def app_settings() -> dict[str, Any]:
    variables = {**template("main.bicep")["variables"], **template("functions.bicep")["variables"]}
    written = {name: variable["value"] for name, variable in variables.items() if name.endswith("Settings")}
    # What begins with a capital is a setting; the rest is how the parser words an expression.
    return {name: value for name, value in members(written) if name[0].isupper()}


def groups() -> list[type[settings.Group]]:
    return settings.Group.__subclasses__()


def fields() -> dict[str, Any]:
    return {str(field.alias): field for group in groups() for field in group.model_fields.values()}


def schedules() -> set[str]:
    sources = [path.read_text(encoding="utf-8") for path in ROOT.glob("*/*.py") if path.parent.name != "tests"]
    return {name for source in sources for name in re.findall(r'schedule\("(\w+)"', source)}


def parameters_file() -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads((ROOT / "infra" / "main.parameters.json").read_text(encoding="utf-8"))
    return {name: entry["value"] for name, entry in found["parameters"].items()}


# ---------------------------------------------------------------- app settings


def test_every_setting_of_the_template_is_read_by_the_code_or_the_platform() -> None:
    assert app_settings().keys() <= {*fields(), *schedules(), *PLATFORM}


def test_every_setting_without_a_default_is_set_by_the_template() -> None:
    mandatory = {name for name, field in fields().items() if field.is_required()}

    assert mandatory <= app_settings().keys()


def test_every_schedule_is_a_setting_of_the_template() -> None:
    assert schedules() <= app_settings().keys()


@pytest.mark.parametrize("own_app", [False, True], ids=["managed identity", "own app registration"])
def test_the_settings_of_the_template_are_complete_and_accepted(own_app: bool) -> None:
    given = {name: f"https://{name.lower()}.example" for name in app_settings()}
    given |= {"CRM": "dynamics365", "MAPPING_FILE": "", "WEBHOOK_TAKE_BACK": "False"}
    if not own_app:
        del given["DYNAMICS365_CLIENT_SECRET"], given["DYNAMICS365_TENANT_ID"]

    assert settings.all_problems(given) == []


def test_every_secret_is_a_reference_to_a_secret_the_template_can_write() -> None:
    secret = {name for name, field in fields().items() if SecretStr in getattr(field.annotation, "__args__", ())}
    secret |= {name for name, field in fields().items() if field.annotation is SecretStr} | {"WEBHOOK_URL"}

    referred = {name: KEY_VAULT.findall(str(app_settings()[name])) for name in secret & app_settings().keys()}

    vault = resources("keyvault.bicep", "Microsoft.KeyVault/vaults/secrets")
    assert all(referred.values()), referred
    assert {name for names in referred.values() for name in names} == {entry["name"] for entry in vault}


def test_the_first_refresh_token_is_not_the_secret_that_the_app_overwrites() -> None:
    assert SECRET_NAME not in KEY_VAULT.findall(str(app_settings()["PARTNER_CENTER_REFRESH_TOKEN"]))


def test_there_are_threads_for_all_that_runs_at_once_and_connections_for_all_threads() -> None:
    queues = json.loads((ROOT / "host.json").read_text())["extensions"]["queues"]
    threads = template("functions.bicep")["variables"]["requestsPerInstance"]["value"]

    assert queues["batchSize"] + queues["newBatchThreshold"] <= threads <= CONNECTIONS
    assert "requestsPerInstance" in str(app_settings()["PYTHON_THREADPOOL_THREAD_COUNT"])
    assert dict(members(site()))["perInstanceConcurrency"] == "requestsPerInstance"


# ---------------------------------------------------------------- parameters and modules


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_a_module_gets_every_parameter_it_needs_and_none_it_does_not_know(path: Path) -> None:
    for module in template(path.name).get("modules", {}).values():
        given = set(module["config"].get("config", module["config"])["params"])
        known = template(module["detail"]["path"])["parameters"]

        assert given <= known.keys()
        assert {name for name, parameter in known.items() if parameter["default"] is None} <= given


def test_every_output_that_is_referred_to_exists() -> None:
    modules = template("main.bicep")["modules"]
    source = (ROOT / "infra" / "main.bicep").read_text(encoding="utf-8")

    for module, output in re.findall(r"(\w+)\.outputs\.(\w+)", source):
        assert output in template(modules[module]["detail"]["path"])["outputs"]


def test_every_parameter_is_explained_and_those_without_a_default_come_from_the_environment() -> None:
    parameters = template("main.bicep")["parameters"]
    explained = {name for name, p in parameters.items() if any(d["type"] == "description" for d in p["decorators"])}

    assert explained == parameters.keys()
    assert parameters_file().keys() == parameters.keys()


def test_parameters_that_are_secret_are_marked_so() -> None:
    for name in ("main.bicep", "keyvault.bicep"):
        for parameter, definition in template(name)["parameters"].items():
            secret = bool(re.search(r"Secret$|RefreshToken|webhookUrl", parameter))
            assert any(d["type"] == "secure" for d in definition["decorators"]) == secret, parameter


def test_defaults_in_the_parameters_file_are_those_of_the_template() -> None:
    parameters = template("main.bicep")["parameters"]

    for name, value in parameters_file().items():
        default = re.fullmatch(r"\$\{\w+=(.*)\}", str(value))
        if default:
            expected = parameters[name]["default"]
            assert default[1] == (str(expected).lower() if isinstance(expected, bool) else str(expected)), name


def test_the_deployment_guide_names_every_value_an_admin_can_set() -> None:
    guide = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")

    for value in parameters_file().values():
        for name in re.findall(r"\$\{(\w+)", str(value)):
            if not name.startswith("AZURE_"):
                assert f"`{name}`" in guide


# ---------------------------------------------------------------- rights and doors


def test_roles_have_their_documented_ids_and_each_is_given() -> None:
    variables = template("roles.bicep")["variables"]

    assert {name: variables[name]["value"] for name in ROLES} == ROLES
    assert set(variables["appStorageRoles"]["value"]) == {name for name in ROLES if name.startswith("storage")}
    given = str(resources("roles.bicep", "Microsoft.Authorization/roleAssignments"))
    assert "keyVaultSecretsOfficer" in given
    assert "monitoringMetricsPublisher" in given


def test_storage_has_no_keys_no_public_blobs_and_no_old_tls() -> None:
    (account,) = resources("storage.bicep", "Microsoft.Storage/storageAccounts")
    containers = resources("storage.bicep", "Microsoft.Storage/storageAccounts/blobServices/containers")

    assert (
        account["properties"]
        | {
            "allowSharedKeyAccess": False,
            "allowBlobPublicAccess": False,
            "minimumTlsVersion": "TLS1_2",
            "supportsHttpsTrafficOnly": True,
        }
        == account["properties"]
    )
    assert {container["properties"]["publicAccess"] for container in containers} == {"None"}


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_template_handles_an_account_key(path: Path) -> None:
    assert not re.search(r"listkeys|accountkey|connectionstring'|sharedaccess", path.read_text().lower())


def site() -> Mapping[str, Any]:
    (found,) = resources("functions.bicep", "Microsoft.Web/sites")
    return found


def test_the_site_speaks_https_only_and_has_no_passwords() -> None:
    properties = site()["properties"]

    assert properties["httpsOnly"] is True
    assert (properties["siteConfig"]["minTlsVersion"], properties["siteConfig"]["ftpsState"]) == ("1.2", "Disabled")
    (policy,) = resources("functions.bicep", "Microsoft.Web/sites/basicPublishingCredentialsPolicies")
    assert policy["properties"]["allow"] is False


def test_the_vault_is_guarded_by_roles_and_telemetry_by_sign_in() -> None:
    (vault,) = resources("keyvault.bicep", "Microsoft.KeyVault/vaults")
    (component,) = resources("monitoring.bicep", "Microsoft.Insights/components")

    assert vault["properties"]["enableRbacAuthorization"] is True
    assert component["properties"]["DisableLocalAuth"] is True


# ---------------------------------------------------------------- names the code relies on


def test_azd_deploys_to_the_site_that_carries_the_tag_of_its_service() -> None:
    services = re.findall(r"^  (\w+):$", (ROOT / "azure.yaml").read_text(), re.MULTILINE)

    assert services == [dict(members(site()["tags"]))["'azd-service-name'"]]


def test_queues_and_tables_have_the_names_of_the_code() -> None:
    loops = {name: r["config"]["loop_type"]["detail"]["array_name"] for name, r in
             template("storage.bicep")["resources"].items() if "loop_type" in r["config"]}  # fmt: skip
    triggers = re.findall(r'queue_name="([\w-]+)"', (ROOT / "sync_worker" / "__init__.py").read_text())

    assert set(loops["queues"]) == set(triggers)
    assert set(loops["tables"]) == {DEALS, INDEX, CURSORS}


def test_alerts_ask_for_events_that_the_code_logs() -> None:
    code = "".join(path.read_text() for folder in ("shared", "sync_worker") for path in (ROOT / folder).rglob("*.py"))

    asked = re.findall(r'startswith "sync\.(\w+)"', (ROOT / "infra" / "alerts.bicep").read_text())

    assert {"failed", "given_up"} <= set(asked)
    for event in asked:
        assert f'"sync.{event}"' in code or f'Outcome("{event}"' in code


def test_the_app_runs_on_a_python_that_its_packages_are_pinned_for() -> None:
    runtime = site()["properties"]["functionAppConfig"]["runtime"]

    assert runtime == {"name": "python", "version": "3.12"}
    assert 'requires-python = ">=3.11,<3.14"' in (ROOT / "pyproject.toml").read_text()


# ---------------------------------------------------------------- the package


def shipped() -> list[str]:
    ignore = pathspec.GitIgnoreSpec.from_lines((ROOT / ".funcignore").read_text().splitlines())
    outside = {".git", ".venv", "node_modules"}
    files = [
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("*")
        if path.is_file() and not outside & set(path.relative_to(ROOT).parts)
    ]
    return [file for file in files if not ignore.match_file(file)]


def test_what_the_app_imports_and_reads_is_shipped_and_what_it_does_not_is_left_out() -> None:
    files = shipped()

    needed = {"host.json", "function_app.py", "requirements.txt", "constraints.txt", "mappings/dynamics365.toml"}
    assert needed <= set(files)
    assert any(file.startswith("webhook_receiver/roots/") and file.endswith(".pem") for file in files)
    assert not [file for file in files if re.match(r"(tests|local|infra|docs|benchmarks|\.\w+)/|local\.settings", file)]
    ours = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    for file in files:
        if file.endswith(".py") and not file.startswith("admin/"):
            tree = ast.walk(ast.parse((ROOT / file).read_text()))
            names = [node.module or "" for node in tree if isinstance(node, ast.ImportFrom)]
            imported = {name.partition(".")[0] for name in names} & ours
            assert all(any(re.match(rf"{name}(/|\.py)", kept) for kept in files) for name in imported), file


# ---------------------------------------------------------------- columns of the CRM

FIELD_MAP = ROOT / "mappings" / "dynamics365.toml"


@pytest.fixture(scope="module")
def field_map() -> FieldMap:
    return load_field_map(FIELD_MAP)


def columns(table: str) -> dict[str, Column]:
    return {column.name: column for column in load_wanted().columns_of(table)}


def test_every_column_of_ours_in_the_field_map_is_provisioned(field_map: FieldMap) -> None:
    for name, table in field_map.tables.items():
        used = {*table.shape.columns, table.columns.referral_link}
        assert {column for column in used if column.startswith("cosell_")} == columns(name).keys()


def test_a_provisioned_column_is_of_the_type_its_row_needs_and_long_enough(field_map: FieldMap) -> None:
    for name, table in field_map.tables.items():
        for field in table.fields:
            for column in (columns(name)[c] for c in field.lens.columns if c.startswith("cosell_")):
                match field.lens:
                    case Choice():
                        assert column.type == "choice"
                        assert {option.value for option in column.options} == {value for _, value in field.lens.options}
                    case Flag():
                        assert column.type == "flag"
                    case other:
                        assert column.type in ("text", "memo")
                        assert column.max_length >= other.max_length > 0  # type: ignore[attr-defined]


def test_the_columns_of_the_synchronization_itself_have_room_for_what_it_writes(field_map: FieldMap) -> None:
    for name, table in field_map.tables.items():
        named, there = table.columns, columns(name)
        link = settings.PartnerCenterSettings.model_fields["referral_link"].default

        assert there[named.sync_flag].type == "flag"
        assert there[named.referral_id].max_length >= 36
        assert there[named.referral_link].max_length >= len(link) + 36
        assert there[named.audit].max_length >= AUDIT_TEXT_LENGTH
        assert there[named.sync_status].max_length >= STATUS_LENGTH


def test_a_key_finds_a_record_by_its_referral_in_every_table(field_map: FieldMap) -> None:
    for name, table in field_map.tables.items():
        keys = load_wanted().keys_of(name)
        assert (table.columns.referral_id,) in {key.columns for key in keys}
        # https://learn.microsoft.com/power-apps/developer/data-platform/define-alternate-keys-entity
        assert all(sum(columns(name)[c].max_length for c in key.columns) * 2 <= 900 for key in keys)


def test_names_and_option_values_follow_the_publisher() -> None:
    wanted = load_wanted()
    prefix, first = wanted.publisher.customizationprefix, wanted.publisher.customizationoptionvalueprefix * 10_000

    assert all(part.schema_name.startswith(f"{prefix}_") for part in (*wanted.columns, *wanted.keys))
    values = [option.value for column in wanted.columns if column.type == "choice" for option in column.options]
    assert all(first <= value < first + 10_000 for value in values)

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
from xml.etree import ElementTree

import pathspec
import pytest
from pycep import BicepParser
from pydantic import SecretStr

from infra.crm.dynamics365.columns import Column, load_wanted
from infra.crm.salesforce import fields as fields_of_salesforce
from infra.crm.salesforce import source
from infra.crm.salesforce.permissions import custom_name, field_grants, opened_through, used_fields
from shared import settings
from shared.lenses import Choice, Flag
from shared.lifecycle import Lifecycle
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


def ways_to_sign_in() -> list[tuple[str, dict[str, Any]]]:
    """Each CRM with the settings of each way to sign in to it: the branches of its variable."""
    variables = template("main.bicep")["variables"]
    operands = {
        crm: variables[name]["value"]["operator"]["operands"]
        for crm, name in variables["settingsByCrm"]["value"].items()
    }
    return [(crm, branches[way]) for crm, branches in operands.items() for way in ("true_value", "false_value")]


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


def test_every_crm_that_the_code_speaks_to_can_be_chosen() -> None:
    (allowed,) = (
        d["argument"] for d in template("main.bicep")["parameters"]["crm"]["decorators"] if d["type"] == "allowed"
    )

    assert set(allowed) == {crm for crm, _ in ways_to_sign_in()} == settings.CRM_SETTINGS.keys()


@pytest.mark.parametrize(
    ("crm", "chosen"),
    ways_to_sign_in(),
    ids=["managed identity", "own app registration", "client secret", "certificate"],
)
def test_the_settings_of_the_template_are_complete_and_accepted(crm: str, chosen: Mapping[str, Any]) -> None:
    of_crms = {name for _, branch in ways_to_sign_in() for name in branch}
    given = {name: f"https://{name.lower()}.example" for name in app_settings().keys() - of_crms | chosen.keys()}
    given |= {
        "CRM": crm,
        "MAPPING_FILE": "",
        "CRM_CURRENCY": "",
        "WEBHOOK_TAKE_BACK": "False",
        "CAPTURE_EVENTS": "False",
        "AUDIT_RETENTION_DAYS": "400",
    }

    assert settings.all_problems(given) == []


@pytest.mark.parametrize(("crm", "chosen"), ways_to_sign_in())
def test_only_the_settings_of_the_chosen_crm_are_set(crm: str, chosen: Mapping[str, Any]) -> None:
    assert chosen.keys() <= {field.alias for field in settings.CRM_SETTINGS[crm].model_fields.values()}


def test_every_secret_is_a_reference_to_a_secret_the_template_can_write() -> None:
    secret = {name for name, field in fields().items() if SecretStr.__name__ in str(field.annotation)}
    secret |= {"WEBHOOK_URL", "WEBHOOK_RELAY_URLS"}  # addresses with keys in them

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
            secret = bool(re.search(r"Secret$|RefreshToken|PrivateKey|webhookUrl|webhookRelayUrls", parameter))
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


@pytest.mark.parametrize("group", groups(), ids=lambda group: group.__name__)
def test_the_configuration_page_says_of_every_setting_what_the_code_says(group: type[settings.Group]) -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")

    for field in group.model_fields.values():
        if field.description != "see above":
            assert f"| `{field.alias}` | {default_in_words(field)} | {field.description} |" in page


def default_in_words(field: Any) -> str:
    if field.is_required():
        return "**required**"
    match field.default:
        case None | "" | []:
            return "unset"
        case list() as names:
            return f"`{','.join(names)}`"
        case Path() as path:
            return f"`{path.relative_to(ROOT)}`"
        case value:
            return f"`{value}`"


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
    code = "".join((ROOT / folder / "__init__.py").read_text() for folder in ("sync_worker", "webhook_relay"))
    triggers = re.findall(r'queue_name="([\w-]+)"', code)

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

    needed = {"host.json", "function_app.py", "requirements.txt", "constraints.txt"}
    assert needed | {f"mappings/{crm}.toml" for crm in settings.CRM_SETTINGS} <= set(files)
    assert any(file.startswith("webhook_receiver/roots/") and file.endswith(".pem") for file in files)
    assert not [file for file in files if re.match(r"(tests|local|infra|docs|benchmarks|\.\w+)/|local\.settings", file)]
    ours = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    for file in files:
        if file.endswith(".py") and not file.startswith("admin/"):
            tree = ast.walk(ast.parse((ROOT / file).read_text()))
            names = [node.module or "" for node in tree if isinstance(node, ast.ImportFrom)]
            imported = {name.partition(".")[0] for name in names} & ours
            assert all(any(re.match(rf"{name}(/|\.py)", kept) for kept in files) for name in imported), file


# ---------------------------------------------------------------- columns of Dynamics 365


@pytest.fixture(scope="module")
def field_map() -> FieldMap:
    return load_field_map(ROOT / "mappings" / "dynamics365.toml")


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


# ---------------------------------------------------------------- fields of Salesforce

CUSTOM = re.compile(r"\w+__c")


@pytest.fixture(scope="module")
def salesforce_map() -> FieldMap:
    return load_field_map(ROOT / "mappings" / "salesforce.toml")


def salesforce_fields(object_name: str) -> dict[str, fields_of_salesforce.Field]:
    return {field.name: field for field in fields_of_salesforce.load_wanted().fields_of(object_name)}


def test_every_custom_field_of_the_map_is_provisioned_and_no_other(salesforce_map: FieldMap) -> None:
    used = used_fields(salesforce_map)

    for name in salesforce_map.tables:
        assert {field for field in used[name] if CUSTOM.fullmatch(field)} == salesforce_fields(name).keys()


def test_a_provisioned_field_is_of_the_type_its_row_needs_and_long_enough(salesforce_map: FieldMap) -> None:
    for name, table in salesforce_map.tables.items():
        for row in table.fields:
            for field in (salesforce_fields(name)[c] for c in row.lens.columns if CUSTOM.fullmatch(c)):
                match row.lens:
                    case Choice():
                        assert field.type == "Picklist"
                        assert field.values == tuple(value for _, value in row.lens.options)
                    case Flag() | Lifecycle():
                        assert field.type == "Checkbox"
                    case other:
                        assert field.type in ("Text", "LongTextArea")
                        assert field.length >= other.max_length > 0  # type: ignore[attr-defined]


def test_the_fields_of_the_synchronization_itself_have_room_for_what_it_writes(salesforce_map: FieldMap) -> None:
    for name, table in salesforce_map.tables.items():
        named, there = table.columns, salesforce_fields(name)

        assert there[named.sync_flag].type == "Checkbox"
        assert there[named.referral_id].external_id
        assert there[named.referral_id].length >= 36
        assert there[named.referral_link].type == "Url"
        assert there[named.audit].length >= AUDIT_TEXT_LENGTH
        assert there[named.sync_status].length >= STATUS_LENGTH


def test_names_and_labels_are_as_long_as_salesforce_allows() -> None:
    wanted = fields_of_salesforce.load_wanted()

    # https://help.salesforce.com/s/articleView?id=platform.fields_about_field_labels.htm
    assert all(len(part.label) <= 40 and len(part.name.removesuffix("__c")) <= 40 for part in wanted.fields)
    # https://developer.salesforce.com/docs/atlas.en-us.230.0.object_reference.meta/object_reference/sforce_api_objects_permissionset.htm
    assert all(len(part.label) <= 80 and len(part.description) <= 255 for part in wanted.permission_sets)


def test_sellers_may_fill_in_what_is_theirs_and_only_read_what_the_synchronization_writes(
    salesforce_map: FieldMap,
) -> None:
    wanted = fields_of_salesforce.load_wanted()
    (sellers,) = (each for each in wanted.permission_sets if not each.for_the_app)
    grants = {grant.full_name: grant.edit for grant in field_grants(sellers, wanted, salesforce_map)}

    assert grants.keys() == {f"{of}.{field.name}" for field in wanted.fields for of in field.objects}
    for name, table in salesforce_map.tables.items():
        columns = table.columns
        assert grants[f"{name}.{columns.sync_flag}"]
        for written in (columns.referral_id, columns.referral_link, columns.audit, columns.sync_status):
            assert not grants[f"{name}.{written}"]


@pytest.mark.parametrize(
    ("field", "opened"),
    [
        ("BillingStreet", "BillingAddress"),
        ("BillingCountryCode", "BillingAddress"),
        ("PostalCode", "Address"),
        ("stagename", ""),
        ("Amount", "Amount"),
        ("Our_City__c", "Our_City__c"),
    ],
)
def test_a_field_is_opened_by_itself_with_its_address_or_not_at_all(field: str, opened: str) -> None:
    assert opened_through(field) == opened


@pytest.mark.parametrize(
    ("field", "named"),
    [
        ("Sync_with_Partner_Center__c", ("", "Sync_with_Partner_Center")),
        ("msft__Products__c", ("msft", "Products")),
        ("Amount", None),
    ],
)
def test_a_custom_field_is_known_by_its_ending_and_may_have_a_namespace(
    field: str, named: tuple[str, str] | None
) -> None:
    assert custom_name(field) == named


def test_the_permission_set_opens_addresses_as_a_whole_and_leaves_out_what_everybody_sees(
    salesforce_map: FieldMap,
) -> None:
    wanted = fields_of_salesforce.load_wanted()
    grants = {grant.full_name for grant in field_grants(wanted.of_the_app, wanted, salesforce_map)}

    assert {name for name in grants if not CUSTOM.search(name)} == {
        "Account.BillingAddress",
        *("Contact.AccountId", "Contact.Email", "Contact.Phone"),
        *("Lead.Address", "Lead.Description", "Lead.Email", "Lead.Phone"),
        *("Opportunity.AccountId", "Opportunity.Amount", "Opportunity.Description"),
    }


def test_the_source_for_the_salesforce_cli_is_what_fields_json_says() -> None:
    assert source.written_files() == source.shipped_files(), "run python -m infra.crm.salesforce.source"


def test_writing_the_source_anew_removes_what_is_not_wanted_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "FOLDER", tmp_path)
    stale = tmp_path / "force-app/main/default/objects/Lead/fields/Old__c.field-meta.xml"
    stale.parent.mkdir(parents=True)
    stale.touch()

    source.main()

    assert source.written_files() == source.shipped_files()


def test_the_source_is_well_formed_and_every_field_is_in_the_manifest() -> None:
    names = [name for name in source.written_files() if name.endswith(".xml")]
    space = {"m": source.NAMESPACE}
    roots = {name: ElementTree.parse(source.FOLDER / name).getroot() for name in names}
    manifest = roots.pop("manifest/package.xml")
    members = {each.text for each in manifest.iterfind("m:types/m:members", space)}

    assert len(members) == len(roots)
    assert manifest.findtext("m:version", namespaces=space) == source.API_VERSION
    # A permission set that names a licence cannot be given to the user of an integration.
    assert not [name for name, root in roots.items() if root.find("m:license", space) is not None]

"""Writes fields.json as source for the Salesforce CLI: `python -m infra.crm.salesforce.source`.

The permission sets are for the shipped field map. What is written is committed: admins can deploy it without Python.
https://developer.salesforce.com/docs/atlas.en-us.sfdx_dev.meta/sfdx_dev/sfdx_dev_source_file_format.htm
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from infra.crm.salesforce.fields import PermissionSet, Wanted, load_wanted
from infra.crm.salesforce.permissions import OBJECTS, field_grants
from shared.mapping import FieldMap, load_field_map
from shared.settings import ROOT, SalesforceSettings

FOLDER = Path(__file__).parent
PACKAGE = "force-app"
NAMESPACE = "http://soap.sforce.com/2006/04/metadata"
API_VERSION = str(SalesforceSettings.model_fields["api_version"].default).removeprefix("v")

OBJECT_PERMISSIONS: Mapping[str, bool] = {
    "allowCreate": True,
    "allowDelete": False,
    "allowEdit": True,
    "allowRead": True,
    "modifyAllRecords": False,
    "viewAllFields": False,
    "viewAllRecords": True,
}


def files(wanted: Wanted, field_map: FieldMap) -> dict[str, str]:
    """Return the text of every file by its path below this folder."""
    return dict([_project(), _manifest(wanted), *_fields(wanted), *_permission_sets(wanted, field_map)])


def shipped_files() -> dict[str, str]:
    return files(load_wanted(), load_field_map(ROOT / "mappings" / "salesforce.toml"))


def written_files() -> dict[str, str]:
    """Return what is there now."""
    paths = [FOLDER / "sfdx-project.json", *sorted(FOLDER.rglob("*.xml"))]
    return {path.relative_to(FOLDER).as_posix(): path.read_text(encoding="utf-8") for path in paths if path.exists()}


def main() -> int:
    wanted, there = shipped_files(), written_files()
    for name in there.keys() - wanted.keys():
        (FOLDER / name).unlink()
    for name, text in wanted.items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


# ---------------------------------------------------------------- the files


def _project() -> tuple[str, str]:
    project = {
        "packageDirectories": [{"path": PACKAGE, "default": True}],
        "namespace": "",
        "sourceApiVersion": API_VERSION,
    }
    return "sfdx-project.json", json.dumps(project, indent=2) + "\n"


def _manifest(wanted: Wanted) -> tuple[str, str]:
    members = {
        "CustomField": sorted(f"{of}.{field.name}" for field in wanted.fields for of in field.objects),
        "PermissionSet": sorted(each.name for each in wanted.permission_sets),
    }
    types = [{"members": names, "name": kind} for kind, names in members.items()]
    return "manifest/package.xml", _xml("Package", {"types": types, "version": API_VERSION})


def _fields(wanted: Wanted) -> Iterator[tuple[str, str]]:
    for field in wanted.fields:
        definition = {"fullName": field.name, **dict(sorted(field.metadata().items()))}
        for object_name in field.objects:
            path = f"{PACKAGE}/main/default/objects/{object_name}/fields/{field.name}.field-meta.xml"
            yield path, _xml("CustomField", definition)


def _permission_sets(wanted: Wanted, field_map: FieldMap) -> Iterator[tuple[str, str]]:
    for each in wanted.permission_sets:
        path = f"{PACKAGE}/main/default/permissionsets/{each.name}.permissionset-meta.xml"
        yield path, _xml("PermissionSet", _permissions(each, wanted, field_map))


def _permissions(permission_set: PermissionSet, wanted: Wanted, field_map: FieldMap) -> dict[str, Any]:
    objects = sorted(OBJECTS) if permission_set.for_the_app else []
    return {
        "description": permission_set.description,
        "fieldPermissions": [
            {"editable": grant.edit, "field": grant.full_name, "readable": True}
            for grant in field_grants(permission_set, wanted, field_map)
        ],
        "hasActivationRequired": False,
        "label": permission_set.label,
        "objectPermissions": [dict(sorted({**OBJECT_PERMISSIONS, "object": name}.items())) for name in objects],
    }


# ---------------------------------------------------------------- XML

_NAMES = {"valueName": "fullName"}
"""What the Tooling API calls otherwise than metadata files."""


def _xml(root: str, content: Mapping[str, Any]) -> str:
    element = ElementTree.Element(root, xmlns=NAMESPACE)
    _fill(element, content)
    ElementTree.indent(element, "    ")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(element, encoding="unicode")}\n'


def _fill(parent: ElementTree.Element, content: Mapping[str, Any]) -> None:
    """Add a child per member, several for a list."""
    for name, value in content.items():
        for item in value if isinstance(value, list) else [value]:
            child = ElementTree.SubElement(parent, _NAMES.get(name, name))
            if isinstance(item, Mapping):
                _fill(child, item)
            else:
                child.text = str(item).lower() if isinstance(item, bool) else str(item)


if __name__ == "__main__":
    sys.exit(main())

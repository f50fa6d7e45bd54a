"""Owns what fields.json may say, and how Salesforce's metadata words it. Calls nothing.

https://developer.salesforce.com/docs/atlas.en-us.api_meta.meta/api_meta/customfield.htm
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

FILE = Path(__file__).with_name("fields.json")

Object = Literal["Opportunity", "Lead"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Field(_Part):
    """One field of one or more objects. `external_id`: also unique, without regard to case. `for_sellers`: they fill
    it in; the other fields they only read.
    """

    name: str
    objects: tuple[Object, ...]
    type: Literal["Checkbox", "Text", "Url", "Picklist", "LongTextArea"]
    label: str
    description: str
    length: int = 0
    visible_lines: int = 0
    external_id: bool = False
    values: tuple[str, ...] = ()
    for_sellers: bool = False

    @property
    def words(self) -> str:
        details = [f"{self.length} characters"] if self.length else []
        details += ["External ID, unique"] if self.external_id else []
        return f"{self.name} ({', '.join([self.type, *details])})"

    def metadata(self) -> dict[str, Any]:
        """Return what creates the field through the Tooling API."""
        texts = {"label": self.label, "description": self.description, "inlineHelpText": self.description}
        return {"type": self.type, **texts, **self._of_its_type()}

    def _of_its_type(self) -> dict[str, Any]:
        match self.type:
            case "Checkbox":
                return {"defaultValue": "false"}
            case "Text" if self.external_id:
                return {"length": self.length, "externalId": True, "unique": True, "caseSensitive": False}
            case "Text":
                return {"length": self.length}
            case "Url":
                return {}
            case "Picklist":
                definition = {"sorted": False, "value": [picklist_value(value) for value in self.values]}
                return {"valueSet": {"restricted": True, "valueSetDefinition": definition}}
            case "LongTextArea":
                return {"length": self.length, "visibleLines": self.visible_lines}


class PermissionSet(_Part):
    """`for_the_app`: with the objects and standard fields that the field map uses, and every field to be edited."""

    name: str
    label: str
    description: str
    for_the_app: bool = False


class Wanted(_Part):
    """Everything that must exist."""

    fields: tuple[Field, ...]
    permission_sets: tuple[PermissionSet, ...]

    def fields_of(self, object_name: str) -> list[Field]:
        return [field for field in self.fields if object_name in field.objects]

    @property
    def of_the_app(self) -> PermissionSet:
        return next(each for each in self.permission_sets if each.for_the_app)


def load_wanted(file: Path = FILE) -> Wanted:
    return Wanted.model_validate_json(file.read_text(encoding="utf-8"))


def picklist_value(value: str) -> Mapping[str, Any]:
    # The Tooling API says valueName where metadata files say fullName.
    return {"valueName": value, "default": False, "label": value}

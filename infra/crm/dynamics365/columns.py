"""Owns what columns.json may say, and how Dataverse's metadata words it. Calls nothing.

https://learn.microsoft.com/power-apps/developer/data-platform/webapi/create-update-column-definitions-using-web-api
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

FILE = Path(__file__).with_name("columns.json")
NAMESPACE = "Microsoft.Dynamics.CRM"

ATTRIBUTE_TYPES = {"text": "String", "memo": "Memo", "flag": "Boolean", "choice": "Picklist"}
"""Our word for a type, and Dataverse's."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Option(_Part):
    value: int
    label: str


class Column(_Part):
    """One column of one or more tables. A flag's options are 1 and 0."""

    schema_name: str
    tables: tuple[str, ...]
    type: Literal["text", "memo", "flag", "choice"]
    label: str
    description: str
    max_length: int = 0
    format: Literal["Text", "Url"] = "Text"
    options: tuple[Option, ...] = ()

    @property
    def name(self) -> str:
        return self.schema_name.lower()

    @property
    def attribute_type(self) -> str:
        return ATTRIBUTE_TYPES[self.type]

    @property
    def words(self) -> str:
        length = f", {self.max_length} characters" if self.max_length else ""
        return f"{self.name} ({self.type}{length})"

    def definition(self, language: int) -> dict[str, Any]:
        """Return what creates the column; labels are in `language`, the environment's base language."""
        return {
            "@odata.type": f"{NAMESPACE}.{self.attribute_type}AttributeMetadata",
            "SchemaName": self.schema_name,
            "DisplayName": label(self.label, language),
            "Description": label(self.description, language),
            "RequiredLevel": {"Value": "None"},
            **self._of_its_type(language),
        }

    def _of_its_type(self, language: int) -> dict[str, Any]:
        options = {o.value: {"Value": o.value, "Label": label(o.label, language)} for o in self.options}
        match self.type:
            case "text":
                return {"MaxLength": self.max_length, "FormatName": {"Value": self.format}}
            case "memo":
                return {"MaxLength": self.max_length, "Format": "TextArea", "ImeMode": "Disabled"}
            case "flag":
                choices = {"OptionSetType": "Boolean", "TrueOption": options[1], "FalseOption": options[0]}
                return {"DefaultValue": False, "OptionSet": choices}
            case "choice":
                return {
                    "OptionSet": {
                        "@odata.type": f"{NAMESPACE}.OptionSetMetadata",
                        "IsGlobal": False,
                        "OptionSetType": "Picklist",
                        "Options": list(options.values()),
                    }
                }


class AlternateKey(_Part):
    schema_name: str
    tables: tuple[str, ...]
    label: str
    columns: tuple[str, ...]

    def definition(self, language: int) -> dict[str, Any]:
        display_name = label(self.label, language)
        return {"SchemaName": self.schema_name, "DisplayName": display_name, "KeyAttributes": list(self.columns)}


class Publisher(_Part):
    uniquename: str
    friendlyname: str
    customizationprefix: str
    customizationoptionvalueprefix: int


class Solution(_Part):
    uniquename: str
    friendlyname: str
    version: str


class Wanted(_Part):
    """Everything that must exist."""

    publisher: Publisher
    solution: Solution
    columns: tuple[Column, ...]
    keys: tuple[AlternateKey, ...]

    @property
    def tables(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(table for column in self.columns for table in column.tables))

    def columns_of(self, table: str) -> list[Column]:
        return [column for column in self.columns if table in column.tables]

    def keys_of(self, table: str) -> list[AlternateKey]:
        return [key for key in self.keys if table in key.tables]


def load_wanted(file: Path = FILE) -> Wanted:
    return Wanted.model_validate_json(file.read_text(encoding="utf-8"))


def label(text: str, language: int) -> dict[str, Any]:
    localized = {"@odata.type": f"{NAMESPACE}.LocalizedLabel", "Label": text, "LanguageCode": language}
    return {"@odata.type": f"{NAMESPACE}.Label", "LocalizedLabels": [localized]}

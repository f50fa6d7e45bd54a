"""Reads and changes the definitions of a Dataverse environment. Decides nothing.

https://learn.microsoft.com/power-apps/developer/data-platform/webapi/create-update-entity-definitions-using-web-api
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from infra.crm.dynamics365.columns import NAMESPACE, AlternateKey, Column, Option, Publisher, Solution, label
from shared.errors import NotFound, Refused
from shared.remote.dataverse_rows import literal
from shared.remote.http import Remote

STRONG = {"Consistency": "Strong"}
"""Definitions are cached by the servers; this reads what was written a moment ago."""
ALREADY_THERE = frozenset({"0x80047013", "0x80060893", "0x80060894"})
"""A column, or a key by its name or its columns, that an earlier attempt created."""


@dataclass(frozen=True)
class Environment:
    name: str
    language: int
    caller: str


@dataclass(frozen=True)
class Found:
    """A column that exists. `options` of a choice only."""

    attribute_type: str
    max_length: int = 0
    options: frozenset[int] = frozenset()


@dataclass(frozen=True)
class FoundKey:
    name: str
    columns: frozenset[str]
    status: str


@dataclass(frozen=True)
class FoundTable:
    columns: Mapping[str, Found]
    keys: tuple[FoundKey, ...]
    tracked: bool
    trackable: bool


class Metadata:
    """One environment's definitions. `solution`: the unique name of the solution that changes are recorded in."""

    def __init__(self, remote: Remote, solution: str) -> None:
        self._remote = remote
        self._write = {"MSCRM.SolutionUniqueName": solution}

    # ------------------------------------------------------------ reading

    def environment(self) -> Environment:
        caller = self._remote.json("GET", "WhoAmI")["UserId"]
        row = self._remote.json("GET", "organizations", params={"$select": "name,languagecode"})["value"][0]
        return Environment(row["name"], row["languagecode"], caller)

    def row(self, entity_set: str, unique_name: str, columns: Iterable[str]) -> Mapping[str, Any] | None:
        """Return a publisher or solution."""
        options = {"$select": ",".join(columns), "$filter": f"uniquename eq {literal(unique_name)}"}
        rows = self._remote.json("GET", entity_set, params=options)["value"]
        return rows[0] if rows else None

    def table(self, table: str) -> FoundTable:
        try:
            flags = self._get(_entity(table), select="ChangeTrackingEnabled,CanChangeTrackingBeEnabled")
        except NotFound as missing:
            raise Refused(
                f"this environment has no table {table}",
                next_step="install Dynamics 365 Sales in it, or correct DYNAMICS365_URL",
                remote=self._remote.name,
            ) from missing
        keys = self._get(f"{_entity(table)}/Keys", select="LogicalName,KeyAttributes,EntityKeyIndexStatus")["value"]
        return FoundTable(
            columns=self._columns(table),
            keys=tuple(
                FoundKey(k["LogicalName"], frozenset(k["KeyAttributes"]), k["EntityKeyIndexStatus"]) for k in keys
            ),
            tracked=flags["ChangeTrackingEnabled"],
            trackable=flags["CanChangeTrackingBeEnabled"]["Value"],
        )

    def _columns(self, table: str) -> dict[str, Found]:
        all_columns = self._get(_attributes(table), select="LogicalName,AttributeType")["value"]
        lengths = {
            row["LogicalName"]: row["MaxLength"]
            for kind in ("String", "Memo")
            for row in self._get(_attributes(table, kind), select="LogicalName,MaxLength")["value"]
        }
        choices = self._get(_attributes(table, "Picklist"), select="LogicalName", expand="OptionSet($select=Options)")
        options = {
            row["LogicalName"]: frozenset(option["Value"] for option in row["OptionSet"]["Options"])
            for row in choices["value"]
            if row.get("OptionSet")  # a choice that shares a global option set has none of its own
        }
        return {
            row["LogicalName"]: Found(
                row["AttributeType"], lengths.get(row["LogicalName"], 0), options.get(row["LogicalName"], frozenset())
            )
            for row in all_columns
        }

    def _get(self, path: str, *, select: str = "", expand: str = "") -> Any:
        options = {name: text for name, text in (("$select", select), ("$expand", expand)) if text}
        return self._remote.json("GET", path, params=options, headers=STRONG)

    # ------------------------------------------------------------ changing

    def add_publisher(self, publisher: Publisher) -> None:
        self._remote.request("POST", "publishers", json=publisher.model_dump(), create=True)

    def add_solution(self, solution: Solution, publisher: str) -> None:
        owner = self.row("publishers", publisher, ["publisherid"]) or {}
        body = {**solution.model_dump(), "publisherid@odata.bind": f"/publishers({owner['publisherid']})"}
        self._remote.request("POST", "solutions", json=body, create=True)

    def add_column(self, table: str, column: Column, language: int) -> None:
        self._add(_attributes(table), column.definition(language))

    def add_key(self, table: str, key: AlternateKey, language: int) -> None:
        self._add(f"{_entity(table)}/Keys", key.definition(language))

    def widen(self, table: str, column: Column) -> None:
        """Lengthen a text column: a definition is replaced as a whole."""
        address = f"{_attributes(table)}(LogicalName='{column.name}')"
        kind = f"{NAMESPACE}.{column.attribute_type}AttributeMetadata"
        definition = {
            name: value for name, value in self._get(f"{address}/{kind}").items() if not name.startswith("@odata.")
        }
        self._replace(address, {**definition, "@odata.type": kind, "MaxLength": column.max_length})

    def add_option(self, table: str, column: Column, option: Option, language: int) -> None:
        body = {
            "EntityLogicalName": table,
            "AttributeLogicalName": column.name,
            "Value": option.value,
            "Label": label(option.label, language),
            "SolutionUniqueName": self._write["MSCRM.SolutionUniqueName"],
        }
        self._remote.request("POST", "InsertOptionValue", json=body, create=True)

    def rebuild_key(self, table: str, key: FoundKey) -> None:
        body = {"EntityLogicalName": table, "EntityKeyLogicalName": key.name}
        self._remote.request("POST", "ReactivateEntityKey", json=body)

    def track_changes(self, table: str) -> None:
        definition = {name: value for name, value in self._get(_entity(table)).items() if name != "@odata.context"}
        self._replace(_entity(table), {**definition, "ChangeTrackingEnabled": True})

    def publish(self, tables: Iterable[str]) -> None:
        entities = "".join(f"<entity>{escape(table)}</entity>" for table in tables)
        body = {"ParameterXml": f"<importexportxml><entities>{entities}</entities></importexportxml>"}
        self._remote.request("POST", "PublishXml", json=body)

    def _add(self, address: str, definition: Mapping[str, Any]) -> None:
        try:
            self._remote.request("POST", address, json=definition, headers=self._write, create=True)
        except Refused as refused:
            if refused.code not in ALREADY_THERE:
                raise

    def _replace(self, address: str, definition: Mapping[str, Any]) -> None:
        # Without merging, texts in other languages would be lost.
        headers = {**self._write, "MSCRM.MergeLabels": "true"}
        self._remote.request("PUT", address, json=definition, headers=headers)


def _entity(table: str) -> str:
    return f"EntityDefinitions(LogicalName='{table}')"


def _attributes(table: str, kind: str = "") -> str:
    return f"{_entity(table)}/Attributes" + (f"/{NAMESPACE}.{kind}AttributeMetadata" if kind else "")

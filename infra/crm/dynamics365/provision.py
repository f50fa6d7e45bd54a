"""Compares what must exist with what does, and creates what is missing. Never deletes, narrows or renames anything."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial

from infra.crm.dynamics365.columns import AlternateKey, Column, Wanted
from infra.crm.dynamics365.metadata import Found, FoundKey, FoundTable, Metadata
from infra.crm.steps import Step, Work
from shared.errors import Refused
from shared.mapping import FieldMap
from shared.remote.http import utc_now


class Provisioning:
    """Brings one environment to what is wanted. `track_changes`: switch change tracking on, which is for good."""

    def __init__(
        self,
        metadata: Metadata,
        wanted: Wanted,
        *,
        track_changes: bool = False,
        clock: Callable[[], datetime] = utc_now,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._metadata = metadata
        self._wanted = wanted
        self._track_changes = track_changes
        self._clock = clock
        self._sleep = sleep
        self._rebuilt: set[tuple[str, str]] = set()
        self.environment = metadata.environment()

    def steps(self) -> list[Step]:
        """Return what is still to be done. Raises Refused, with all problems, when something is in the way."""
        problems: list[str] = []
        steps = [*self._ownership(problems)]
        for table in self._wanted.tables:
            steps += self._table_steps(table, self._metadata.table(table), problems)
        if problems:
            raise Refused(
                "\n".join(problems), next_step="correct this in Power Apps, then run again", remote="Dynamics 365"
            )
        return steps

    def run(self, say: Callable[[str], None]) -> None:
        """Do every step until nothing is left. Raises Refused, Forbidden, and Unavailable when it takes too long."""
        work = Work("Dynamics 365", say, clock=self._clock, sleep=self._sleep)
        if work.until_none_is_left(self.steps):
            names = ", ".join(self._wanted.tables)
            work.until_done(Step(f"publish {names}", partial(self._metadata.publish, self._wanted.tables)))

    def advice(self, field_map: FieldMap) -> list[str]:
        """Return what a person should know although it stops nothing here."""
        untracked = [table for table in self._wanted.tables if not self._metadata.table(table).tracked]
        lines = [
            f"change tracking is off for {table}: the app then asks for rows by their modification time, and "
            "does not see deletions. To switch it on, for good, run with --enable-change-tracking"
            for table in untracked
            if not self._track_changes
        ]
        for name, table_map in field_map.tables.items():
            there = {*self._metadata.table(name).columns, *(column.name for column in self._wanted.columns_of(name))}
            used = [*table_map.shape.columns, table_map.columns.referral_link]
            plain = dict.fromkeys(column for column in used if column and "." not in column)
            lines += [
                f"the field map names {name}.{column}, which does not exist: add it in Power Apps, or correct the map"
                for column in plain
                if column not in there
            ]
        return lines

    # ------------------------------------------------------------ what is missing

    def _ownership(self, problems: list[str]) -> Iterator[Step]:
        publisher, solution = self._wanted.publisher, self._wanted.solution
        prefixes = ("customizationprefix", "customizationoptionvalueprefix")
        found = self._metadata.row("publishers", publisher.uniquename, ("publisherid", *prefixes))
        if found is None:
            yield Step(
                f"add publisher {publisher.uniquename}, whose columns begin with {publisher.customizationprefix}_",
                partial(self._metadata.add_publisher, publisher),
            )
        else:
            problems += [
                f"publisher {publisher.uniquename} has {prefix} {found[prefix]}, needed is {getattr(publisher, prefix)}"
                for prefix in prefixes
                if found[prefix] != getattr(publisher, prefix)
            ]
        if self._metadata.row("solutions", solution.uniquename, ("solutionid",)) is None:
            yield Step(
                f"add solution {solution.uniquename}, which holds all that follows",
                partial(self._metadata.add_solution, solution, publisher.uniquename),
            )

    def _table_steps(self, table: str, found: FoundTable, problems: list[str]) -> Iterator[Step]:
        for column in self._wanted.columns_of(table):
            yield from self._column_steps(table, column, found.columns.get(column.name), problems)
        for key in self._wanted.keys_of(table):
            there = next((k for k in found.keys if k.columns == frozenset(key.columns)), None)
            yield from self._key_steps(table, key, there, problems)
        if self._track_changes and not found.tracked:
            if found.trackable:
                yield Step(
                    f"switch change tracking on for {table}, for good", partial(self._metadata.track_changes, table)
                )
            else:
                problems.append(f"change tracking cannot be switched on for {table}: the environment forbids it")

    def _column_steps(self, table: str, column: Column, found: Found | None, problems: list[str]) -> Iterator[Step]:
        metadata, language = self._metadata, self.environment.language
        if found is None:
            yield Step(f"add to {table}: {column.words}", partial(metadata.add_column, table, column, language))
            return
        if found.attribute_type != column.attribute_type:
            problems.append(
                f"{table}.{column.name} exists with type {found.attribute_type}, needed is {column.attribute_type}: "
                "delete that column if nobody uses it, or let the field map use another one"
            )
            return
        if found.max_length < column.max_length:
            yield Step(
                f"lengthen {table}.{column.name} from {found.max_length} to {column.max_length} characters",
                partial(metadata.widen, table, column),
            )
        for option in column.options if column.type == "choice" else ():
            if option.value not in found.options:
                yield Step(
                    f"add to {table}.{column.name} the option {option.value} {option.label}",
                    partial(metadata.add_option, table, column, option, language),
                )

    def _key_steps(self, table: str, key: AlternateKey, found: FoundKey | None, problems: list[str]) -> Iterator[Step]:
        columns = ", ".join(key.columns)
        if found is None:
            yield Step(
                f"add to {table}: key {key.schema_name.lower()} on {columns}",
                partial(self._metadata.add_key, table, key, self.environment.language),
            )
        elif found.status == "Failed" and (table, found.name) in self._rebuilt:
            problems.append(
                f"key {found.name} of {table} cannot be built: several rows share one value in {columns}. Find them "
                "in an Advanced Find sorted by that column and clear it in all but one"
            )
        elif found.status == "Failed":
            yield Step(f"build the index of key {found.name} of {table} again", partial(self._rebuild, table, found))
        elif found.status != "Active":
            yield Step(f"wait until the index of key {found.name} of {table} is built", _nothing)

    def _rebuild(self, table: str, key: FoundKey) -> None:
        self._rebuilt.add((table, key.name))
        self._metadata.rebuild_key(table, key)


def _nothing() -> None:
    """The servers are at work; the next pass looks again."""

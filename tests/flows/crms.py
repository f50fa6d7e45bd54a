"""Which CRMs the flows are played with, and which tests are about one of them only."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from local.desks import DESKS
from tests.flows.backstage import BACKSTAGES

CRMS = tuple(BACKSTAGES)
"""What the setting CRM takes; every flow is played with each of them."""


def shipped_map(crm: str) -> Path:
    return Path("mappings") / f"{crm}.toml"


def only(crm: str, *, why: str) -> pytest.MarkDecorator:
    """Mark a test, or one case of it, that says nothing about the other CRMs: with those it is not collected."""
    assert crm in DESKS, f"{crm} is no CRM; there are {', '.join(DESKS)}"
    assert why
    return pytest.mark.only(crm, why=why)


@cache
def shipped_rows(crm: str, table: str) -> Mapping[str, Mapping[str, Any]]:
    """The fields of a table in the shipped map, by name."""
    rows = tomllib.loads(shipped_map(crm).read_text(encoding="utf-8"))["tables"][table]["fields"]
    return {row["name"]: row for row in rows}

"""The functions of the real app, indexed once, and a world of its own for each test and CRM."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local.host.functions import Function
from shared import services as shared_services
from tests import app
from tests.flows.crms import CRMS, shipped_map
from tests.flows.world import World


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "only(crm, why): the test is about this CRM; with others it is not collected")
    config.addinivalue_line("markers", "real_storage: the test wants real Storage, not its twin in memory")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    elsewhere = {item for item in items if _is_about_another_crm(item)}
    if elsewhere:
        config.hook.pytest_deselected(items=list(elsewhere))
        items[:] = [item for item in items if item not in elsewhere]


def _is_about_another_crm(item: pytest.Item) -> bool:
    crm = item.callspec.params.get("crm") if hasattr(item, "callspec") else None
    return crm is not None and any(mark.args[0] != crm for mark in item.iter_markers("only"))


@pytest.fixture(scope="session")
def functions() -> list[Function]:
    return app.functions()


@pytest.fixture(params=CRMS)
def crm(request: pytest.FixtureRequest) -> str:
    """What the setting CRM says: the flows are the same for all."""
    return str(request.param)


@pytest.fixture
def make_world(
    request: pytest.FixtureRequest, crm: str, functions: list[Function], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., World]]:
    """With Storage in memory: it keeps the real one's contract (tests/contract/stores.py), has the same moments
    (test_crashes.py) and is five times as quick. A few flows of each kind are `real_storage`."""
    is_real = request.node.get_closest_marker("real_storage")
    yield from _makers(request.getfixturevalue("storage_connection") if is_real else None, crm, functions, monkeypatch)


@pytest.fixture
def make_memory_world(
    crm: str, functions: list[Function], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., World]]:
    """Like `make_world`, with Storage in memory whatever the mark: for tests that play many worlds or count in it."""
    yield from _makers(None, crm, functions, monkeypatch)


def _makers(
    storage_connection: str | None, crm: str, functions: list[Function], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., World]]:
    worlds: list[World] = []

    def make(**settings: str) -> World:
        world = World(storage_connection, functions, crm, **settings)
        worlds.append(world)
        monkeypatch.setattr(shared_services, "process_services", lambda: worlds[-1].services)
        return world

    yield make
    for world in worlds:
        world.simulators.directory.cleanup()


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()


@pytest.fixture
def edited_map(crm: str, tmp_path: Path) -> Callable[..., str]:
    """An admin copies the shipped field map and replaces what patterns match. Returns what MAPPING_FILE names."""

    def edit(*edits: tuple[str, str]) -> str:
        text = shipped_map(crm).read_text(encoding="utf-8")
        for old, new in edits:
            text, times = re.subn(old, new, text)
            assert times, f"the shipped map has no {old!r}"
        copy = tmp_path / "own-map.toml"
        copy.write_text(text, encoding="utf-8")
        return str(copy)

    return edit

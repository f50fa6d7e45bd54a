"""The functions of the real app, indexed once, and a world of its own for each test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from local.host.functions import Function, index
from shared import services as shared_services
from tests.flows.world import World


@pytest.fixture(scope="session")
def functions() -> list[Function]:
    from function_app import app

    def refuse(*_: object) -> None:
        raise AssertionError("this app has no output bindings")

    return index(app.get_functions(), os.environ, ".", refuse)


@pytest.fixture
def make_world(
    storage_connection: str, functions: list[Function], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., World]]:
    yield from _makers(storage_connection, functions, monkeypatch)


@pytest.fixture
def make_memory_world(functions: list[Function], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., World]]:
    """Like `make_world`, with Storage in memory: for tests that play many worlds."""
    yield from _makers(None, functions, monkeypatch)


def _makers(
    storage_connection: str | None, functions: list[Function], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., World]]:
    worlds: list[World] = []

    def make(**settings: str) -> World:
        world = World(storage_connection, functions, **settings)
        worlds.append(world)
        monkeypatch.setattr(shared_services, "process_services", lambda: worlds[-1].services)
        return world

    yield make
    for world in worlds:
        world.simulators.directory.cleanup()


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()

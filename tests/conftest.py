"""What every test may use: one Azurite for the whole session. Each test makes its own queue and table names."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import hypothesis
import pytest

from local.azurite import Azurite

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


# How long a test may take is nobody's promise: a busy machine is no failure.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")

LONGEST = ("tests/flows/test_demo.py", "tests/simulation/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, beside which the others find room; those that began last would stand alone in the end."""
    items.sort(key=lambda item: [not item.nodeid.startswith(place) for place in LONGEST])


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One more than there are cores: the demo's tests mostly wait for other processes."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    location: Path = tmp_path_factory.mktemp("azurite")
    with Azurite(location) as running:
        yield running


@pytest.fixture(scope="session")
def storage_connection(azurite: Azurite) -> str:
    return azurite.connection_string

"""What every test may use: one Azurite for the whole session. Each test makes its own queue and table names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from local.azurite import Azurite

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    location: Path = tmp_path_factory.mktemp("azurite")
    with Azurite(location) as running:
        yield running


@pytest.fixture(scope="session")
def storage_connection(azurite: Azurite) -> str:
    return azurite.connection_string

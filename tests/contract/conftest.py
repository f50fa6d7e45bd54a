"""The account and the clock that a store's contract is tried with: each test runs over every implementation."""

from __future__ import annotations

import pytest

from tests.contract.stores import IMPLEMENTATIONS, Store, VirtualClock


@pytest.fixture(params=IMPLEMENTATIONS)
def store(request: pytest.FixtureRequest, storage_connection: str) -> Store:
    return request.param(storage_connection)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()

"""What Cursors promises: a feed's position is never moved by two runs at once."""

from __future__ import annotations

import pytest

from shared.store.cursors import Cursor, Cursors
from shared.store.tables import Stale
from tests.contract.stores import Store


@pytest.fixture
def cursors(store: Store) -> Cursors:
    return Cursors(store.table("Cursors"))


def test_a_feed_that_was_never_read_has_no_position(cursors: Cursors) -> None:
    assert cursors.load("crm-opportunity") == Cursor(value=None, etag="")


def test_positions_are_kept_apart_by_name(cursors: Cursors) -> None:
    cursors.save("crm-opportunity", "10", "")
    cursors.save("sweep", "", "")

    assert cursors.load("crm-opportunity").value == "10"
    assert cursors.load("sweep").value == ""


def test_a_position_moves_on_and_each_save_is_one_request(store: Store, cursors: Cursors) -> None:
    first = cursors.save("sweep", "10", "")
    before = len(store.requests)

    second = cursors.save("sweep", "11", first.etag)

    assert len(store.requests) == before + 1
    assert cursors.load("sweep") == second == Cursor("11", second.etag)


def test_a_run_whose_position_another_moved_is_stale(cursors: Cursors) -> None:
    first = cursors.save("sweep", "10", "")
    cursors.save("sweep", "11", first.etag)

    with pytest.raises(Stale):
        cursors.save("sweep", "9", first.etag)
    with pytest.raises(Stale, match="cursor sweep"):
        cursors.save("sweep", "9", "")

    assert cursors.load("sweep").value == "11"


def test_a_delta_link_of_any_length_and_script_comes_back(cursors: Cursors) -> None:
    link = "https://org.crm.dynamics.com/api?$deltatoken=" + "919042%2108/22/2017€😀" * 5_000

    cursors.save("crm-opportunity", link, "")

    assert cursors.load("crm-opportunity").value == link

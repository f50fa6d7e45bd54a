"""Two releases side by side, as while one is deployed: the field map of one has a field that the other's has not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from admin.__main__ import main
from tests.flows.world import World


@pytest.fixture
def world(make_memory_world: Callable[..., World]) -> World:
    return make_memory_world()


def takes_over(world: World, *, without: str = "") -> None:
    """From now on a process works whose map has no field of this name."""
    world.services = world.new_services()
    field_map = world.services.field_map
    tables = {
        name: replace(
            table,
            fields=tuple(field for field in table.fields if field.name != without),
            fingerprint=f"{table.fingerprint} without {without}" if without else table.fingerprint,
        )
        for name, table in field_map.tables.items()
    }
    world.services.field_map = replace(field_map, tables=tables)  # type: ignore[misc]


@pytest.mark.parametrize("newer_begins", [True, False])
def test_what_either_of_two_releases_does_the_other_does_not_undo(world: World, *, newer_begins: bool) -> None:
    takes_over(world, without="" if newer_begins else "notes")
    record_id = world.opportunity(notes="As it began.")
    world.settle()
    own = world.referral_of(record_id)["id"]

    for turn, without in enumerate(["notes", "", "notes", "", "notes"]):
        world.advance(3_600)
        takes_over(world, without=without)
        world.desk.edit(record_id, notes=f"The seller's, {turn}.")
        world.people.partner_edits(own, {"/details/dealValue": 60_000 + turn})
        world.settle()
    world.advance(3_600)
    takes_over(world)
    world.fire("nightly_sweep")
    world.settle()

    details, record = world.referral_of(record_id)["details"], world.record(record_id)
    assert details["notes"] == record["notes"] == "The seller's, 4."
    assert details["dealValue"] == record["deal_value"] == 60_004
    world.forget_calls()
    for without in ("notes", "", "notes", ""):
        world.advance(3_600)
        takes_over(world, without=without)
        main(["sync", world.link_of(record_id).deal], world.services)
    assert world.writes() == []

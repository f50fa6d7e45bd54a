"""Two releases side by side, as while one is deployed: the field map of one has a field that the other's has not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from admin.__main__ import main
from shared.lenses import Text
from shared.mapping import Field
from shared.messages import LOOKS_PER_S
from tests.flows.world import World


@pytest.fixture
def world(make_memory_world: Callable[..., World]) -> World:
    return make_memory_world()


ANOTHER_COLUMN = {"dynamics365": "customerneed", "salesforce": "NextStep"}
"""A text column of an opportunity that the shipped map says nothing of."""


def takes_over(world: World, change: Callable[[Field], Field | None] = lambda field: field) -> None:
    """From now on a process works whose map has these fields of an opportunity."""
    world.services = world.new_services()
    field_map, name = world.services.field_map, world.desk.opportunity
    table = field_map.tables[name]
    changed = replace(table, fields=tuple(filter(None, map(change, table.fields))))
    world.services.field_map = replace(field_map, tables={**field_map.tables, name: changed})  # type: ignore[misc]


def without_notes(field: Field) -> Field | None:
    return None if field.name == "notes" else field


def with_notes_elsewhere(crm: str) -> Callable[[Field], Field | None]:
    def change(field: Field) -> Field | None:
        is_it = field.name == "notes" and isinstance(field.lens, Text)
        return replace(field, lens=replace(field.lens, column=ANOTHER_COLUMN[crm])) if is_it else field

    return change


@pytest.mark.parametrize("newer_begins", [True, False])
def test_what_either_of_two_releases_does_the_other_does_not_undo(world: World, *, newer_begins: bool) -> None:
    as_shipped = lambda field: field  # noqa: E731
    takes_over(world, as_shipped if newer_begins else without_notes)
    record_id = world.opportunity(notes="As it began.")
    world.settle()
    own = world.referral_of(record_id)["id"]

    for turn in range(5):
        world.advance(3_600)
        takes_over(world, as_shipped if turn % 2 else without_notes)
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
    for turn in range(4):
        world.advance(3_600)
        takes_over(world, as_shipped if turn % 2 else without_notes)
        main(["sync", world.link_of(record_id).deal], world.services)
    assert world.writes() == []


def test_a_field_that_the_map_moves_to_another_column_empties_nothing(world: World) -> None:
    record_id = world.opportunity(notes="What both hold.")
    world.settle()
    moved = with_notes_elsewhere(world.desk.crm)

    for turn in range(4):
        world.advance(3_600)
        takes_over(world, *([] if turn % 2 else [moved]))
        world.fire("nightly_sweep")
        world.desk.edit(record_id, deal_value=60_000 + turn)
        world.settle()
        details = world.referral_of(record_id)["details"]
        assert details["notes"] == world.record(record_id)["notes"] == "What both hold."
        assert details["dealValue"] == 60_000 + turn
    world.advance(3_600)
    takes_over(world, moved)
    world.fire("nightly_sweep")
    world.settle()

    assert world.referral_of(record_id)["details"]["notes"] == "What both hold."
    world.forget_calls()
    main(["sync", world.link_of(record_id).deal], world.services)
    assert world.writes() == []


def test_after_a_change_of_the_map_the_deals_are_looked_at_one_after_the_other(world: World) -> None:
    deals = [world.opportunity(name=f"Deal {number}") for number in range(2 * LOOKS_PER_S)]
    world.settle()
    world.advance(3_600)
    world.settle()
    takes_over(world, with_notes_elsewhere(world.desk.crm))

    world.fire("nightly_sweep")

    assert world.services.sweeps.latest()[0].differed == {"field map changed": len(deals)}
    assert len(world.queue.receive(60)) == LOOKS_PER_S

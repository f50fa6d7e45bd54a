"""Everything that can wait for a person: it happens, is listed under its reason, and doing the next step takes it off.

Each class is told in two parts: what goes wrong, and, after `yield`, how somebody does what the next step says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, get_args

import pytest

from admin.__main__ import main
from local.simulators.listener import KEY, PATH, Listener
from shared.messages import SyncRequest
from shared.problems import REASONS, Reason
from tests.flows.crms import only
from tests.flows.test_failures import INTENT, REFUSAL
from tests.flows.test_ping_pong import let_undo_each_other
from tests.flows.world import World

Story = Iterator[None]

LISTENER = f"https://tool.example{PATH}?code={KEY}"
FOREIGN = "https://other.example/hook"
FOR_EVER = 99_999
REPLAY = ("replay", "--reason", "{reason}")
DISMISS = ("dismiss", "{deal}")

no_crm = only("dynamics365", why="it is about no deal")


@dataclass(frozen=True)
class Class:
    """`next_step`: words of it; `then`: the command that follows it. `rules`: edits of the field map."""

    reason: Reason
    happens: Callable[[World], Story]
    next_step: str
    then: tuple[str, ...] = REPLAY
    rules: tuple[tuple[str, str], ...] = ()
    settings: dict[str, str] = field(default_factory=dict)


def linked(world: World, **values: Any) -> tuple[str, dict[str, Any]]:
    """An opportunity and its referral, in agreement for a while."""
    record_id = world.opportunity(**values)
    world.settle()
    world.advance(600)
    return record_id, world.referral_of(record_id)


# ---------------------------------------------------------------- what a seller mends


def a_mandatory_field_is_empty(world: World) -> Story:
    record_id = world.opportunity(solutions=None)
    yield
    world.desk.edit(record_id, solutions="SOL-1")


def a_mandatory_field_of_the_account_is_empty(world: World) -> Story:
    account = world.desk.create_account(city=None)
    world.opportunity(account=account)
    yield
    world.desk.edit_account(account, city="Redmond")


def the_contact_lacks_something_for_a_co_sell_deal(world: World) -> Story:
    contact = world.desk.create_contact(world.desk.create_account(), phone=None)
    world.opportunity(contact=contact, help="CustomerTechnicalArchitecture")
    yield
    world.desk.edit_contact(contact, phone="1234567890")


def a_country_is_no_code(world: World) -> Story:
    account = world.desk.create_account(country="Germany")
    world.opportunity(account=account)
    yield
    world.desk.edit_account(account, country="DE")


def both_sides_changed_and_neither_may_win(world: World) -> Story:
    record_id, own = linked(world)
    world.people.partner_edits(own["id"], {"/details/notes": "Theirs."})
    world.desk.edit(record_id, notes="Ours.")
    yield
    world.desk.edit(record_id, notes="Theirs.")


def both_sides_closed_it_differently(world: World) -> Story:
    record_id, own = linked(world)
    world.people.partner_closes(own["id"], "Lost")
    world.desk.win(record_id)
    yield
    world.desk.take_on(record_id)


def a_text_stands_where_the_referrals_id_belongs(world: World) -> Story:
    record_id = world.opportunity(referral_id="CRM-4711")
    yield
    world.desk.edit(record_id, referral_id=None)


def the_record_with_such_a_text_is_deleted(world: World) -> Story:
    record_id = world.opportunity(referral_id="CRM-4711")
    yield
    world.desk.delete(record_id)


def two_referrals_name_one_record(world: World) -> Story:
    _, own = linked(world)
    entered = ("name", "externalReferenceId", "customerProfile", "details", "team", "consent", "qualification")
    copied = {name: own[name] for name in entered}
    second = world.services.partner_center.create(
        {**copied, "type": "Independent", "status": "New", "substatus": "Pending", "target": []}
    )
    yield
    world.people.partner_closes(second.id, "Lost", "Entered twice")


# ---------------------------------------------------------------- what an administrator mends


def two_automations_undo_each_other(world: World) -> Story:
    record_id, _ = linked(world)
    let_undo_each_other(world, record_id)
    yield
    world.advance(900)  # the workflow is switched off


def partner_center_lists_nothing(world: World) -> Story:
    linked(world)
    world.pc.faults.add("status", method="GET", path="/referrals$", times=FOR_EVER, status=200, body={"value": []})
    world.fire("nightly_sweep")
    yield
    world.pc.faults.clear()


def partner_center_refuses_an_edit(world: World) -> Story:
    record_id, _ = linked(world)
    world.pc.faults.add("status", method="PATCH", times=FOR_EVER, status=400, body=REFUSAL)
    world.desk.edit(record_id, notes="Refused.")
    yield
    world.pc.faults.clear()


def a_rule_of_the_crm_refuses_to_close(world: World) -> Story:
    _, own = linked(world)
    world.backstage.forbid_closing("Fill in the win reason first.")
    world.people.partner_closes(own["id"], "Won")
    yield
    world.backstage.allow_closing()


def the_user_lost_the_role_in_partner_center(world: World) -> Story:
    account = world.pc.accounts.pop("sync@fabrikam.example")
    world.opportunity()
    yield
    world.pc.accounts["sync@fabrikam.example"] = account


def the_app_lost_its_rights_in_the_crm(world: World) -> Story:
    world.backstage.take_away_rights()
    world.people.microsoft_creates_deal(INTENT)
    yield
    world.backstage.give_back_rights()


def a_field_is_hidden_from_the_app(world: World) -> Story:
    record_id, _ = linked(world)
    world.crm.people.hide_field("Opportunity", "Description")
    world.desk.edit(record_id, notes="Unseen.")
    yield
    world.crm.people.show_field("Opportunity", "Description")
    world.advance(600)  # what may be seen is remembered for a while


def a_referral_is_not_to_be_seen(world: World) -> Story:
    not_found = {"error": {"code": "itemNotFound", "message": "No."}}
    world.pc.faults.add("status", method="GET", path="/referrals/", times=FOR_EVER, status=404, body=not_found)
    world.people.microsoft_creates_deal(INTENT)
    yield
    world.pc.faults.clear()


def an_event_names_a_referral_that_is_gone(world: World) -> Story:
    own = world.people.creates_lead()
    del world.pc.referrals[own["id"]]
    yield


# ---------------------------------------------------------------- what waits by itself, or is a defect


def partner_center_is_down_for_hours(world: World) -> Story:
    record_id, _ = linked(world)
    world.pc.faults.add("status", times=FOR_EVER, status=500)
    world.desk.edit(record_id, notes="Later.")
    for _ in range(8):
        world.settle()
        world.advance(3_700)
    yield
    world.pc.faults.clear()


def something_unexpected_happens_each_time(world: World) -> Story:
    record_id, _ = linked(world)
    with pytest.MonkeyPatch.context() as broken:
        broken.setattr("shared.sync.decide", lambda _: 1 / 0)
        world.desk.edit(record_id, notes="Ours.")
        world.settle()
    request = SyncRequest(cause="poll", record_table=world.desk.opportunity, record_id=record_id)
    world.poison(request.encode().encode())
    yield


# ---------------------------------------------------------------- what is no deal


def another_tool_took_the_registration(world: World) -> Story:
    world.simulators.webhooks.another_tool_registers(FOREIGN)
    world.fire("check_registration")
    yield


def a_listener_is_down(world: World) -> Story:
    listener = listens(world)
    listener.faults.add("status", times=FOR_EVER, status=500)
    world.people.microsoft_creates_deal(INTENT)
    for _ in range(5):
        world.settle()
        world.advance(60)
    yield
    listener.faults.clear()
    world.advance(3_600)
    world.settle()


def a_listener_refuses_an_event(world: World) -> Story:
    listens(world).faults.add("status", status=400)
    world.people.microsoft_creates_deal(INTENT)
    yield


def passing_on_fails_unexpectedly(world: World) -> Story:
    listens(world)
    body = {"body": "", "headers": {}, "received_utc": "2026-11-02T09:00:00Z", "correlation_id": "c"}
    world.poison(json.dumps(body).encode(), "relay_poisoned")
    yield


def listens(world: World) -> Listener:
    listener = Listener(world.simulators.pki.leaf.certificate, world.clock)
    world.neighbour(LISTENER.partition(PATH)[0], listener)
    return listener


def a_genuine_event_names_no_referral(world: World) -> Story:
    world.simulators.webhooks.forge("resource-uri-without-guid")
    yield


def something_else_writes_to_the_queue_of_deals(world: World) -> Story:
    world.poison(b"hello")
    yield


def something_else_writes_to_the_queue_of_calls(world: World) -> Story:
    world.poison(b"hello", "relay_poisoned")
    yield


HOLD = (('conflict = "latest"', 'conflict = "hold"'),)
RELAYING = {"WEBHOOK_RELAY_URLS": LISTENER}

CLASSES = [
    Class("missing", a_mandatory_field_is_empty, "Fill in {solutions} and save"),
    Class("missing", a_mandatory_field_of_the_account_is_empty, "Fill in {customer_city} and save"),
    Class("missing", the_contact_lacks_something_for_a_co_sell_deal, "choose somebody who has it"),
    Class("no-counterpart", a_country_is_no_code, "accepted: two-letter country codes"),
    Class("conflict", both_sides_changed_and_neither_may_win, "Set both sides to the same value", rules=HOLD),
    Class("conflict", both_sides_closed_it_differently, "reopen the record"),
    Class("refused", a_text_stands_where_the_referrals_id_belongs, "Clear the field"),
    Class("refused", the_record_with_such_a_text_is_deleted, "Clear the field"),
    Class("duplicate", two_referrals_name_one_record, "Close the one too many"),
    Class("put-back", two_automations_undo_each_other, "Find the workflow"),
    Class("brake", partner_center_lists_nothing, "the user's role in Partner Center", then=("sweep",)),
    Class("refused", partner_center_refuses_an_edit, "next: "),
    Class("refused", a_rule_of_the_crm_refuses_to_close, "do what "),
    Class("permission", the_user_lost_the_role_in_partner_center, "Referrals admin"),
    Class("permission", the_app_lost_its_rights_in_the_crm, "then replay"),
    pytest.param(
        Class("permission", a_field_is_hidden_from_the_app, "Cosell_Sync"),
        marks=only("salesforce", why="Dynamics 365 says of what is hidden that it is empty"),
    ),
    Class("not-found", a_referral_is_not_to_be_seen, "then replay"),
    Class("not-found", an_event_names_a_referral_that_is_gone, "python -m admin dismiss", then=DISMISS),
    Class("waiting", partner_center_is_down_for_hours, "at once with a replay"),
    Class("unexpected", something_unexpected_happens_each_time, "a replay, or any change, tries again"),
    *(
        pytest.param(each, marks=no_crm)
        for each in (
            Class(
                "registration",
                another_tool_took_the_registration,
                "register",
                then=("register", "--overwrite", "--no-test"),
            ),
            Class("relay", a_listener_is_down, "Mend the listener", then=(), settings=RELAYING),
            Class("relay", a_listener_refuses_an_event, "admin dismiss {deal}", then=DISMISS, settings=RELAYING),
            Class("relay", passing_on_fails_unexpectedly, "then dismiss it", then=DISMISS, settings=RELAYING),
            Class("event", a_genuine_event_names_no_referral, "then dismiss it", then=DISMISS),
            Class("queue", something_else_writes_to_the_queue_of_deals, "then dismiss it", then=DISMISS),
            Class("queue", something_else_writes_to_the_queue_of_calls, "then dismiss it", then=DISMISS),
        )
    ),
]


def class_of(each: Any) -> Class:
    return each if isinstance(each, Class) else each.values[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("each", CLASSES, ids=lambda each: each.happens.__name__)
def test_what_waits_for_a_person_is_listed_by_its_reason_and_over_once_the_next_step_is_done(
    make_memory_world: Callable[..., World],
    edited_map: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
    each: Class,
) -> None:
    world = make_memory_world(**each.settings, **({"MAPPING_FILE": edited_map(*each.rules)} if each.rules else {}))
    story = each.happens(world)
    next(story)
    world.settle()
    (failure,) = world.services.failures.list()
    names = {"deal": failure.deal, "reason": each.reason}
    labels = {name: world.label(name) for name in ("solutions", "customer_city")}
    assert main(["failures", "--reason", each.reason], world.services) == 0
    listed = capsys.readouterr().out
    assert f"[{each.reason}]: 1" in listed
    assert f"  {failure.deal}" in listed
    assert each.next_step.format(**names, **labels) in listed
    world.advance(60)

    assert next(story, "told") == "told"
    if each.then:
        assert main([part.format(**names) for part in each.then], world.services) == 0
    world.settle(poll=False)

    assert world.services.failures.list() == ()


def test_there_is_a_class_for_every_reason() -> None:
    assert {class_of(each).reason for each in CLASSES} | {"earlier"} == set(REASONS) == set(get_args(Reason))

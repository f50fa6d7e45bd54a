"""Partner Center's calls go on to the listeners that were there before us, through the real triggers; and nothing that
goes wrong with a listener is felt anywhere else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import requests

from admin.__main__ import main
from local.simulators.base import CertificateAuthority, serve
from local.simulators.listener import KEY, PATH, Listener
from shared import services as shared_services
from shared.addresses import masked
from shared.relay import MARK, RelayRequest, listener_id
from tests.flows.crms import only
from tests.flows.world import HOST, WEBHOOK_URL, FunctionAdapter, World
from tests.waiting import eventually
from webhook_relay import call
from webhook_relay.gate import CALLS_AT_ONCE

pytestmark = only("dynamics365", why="calls are passed on before anybody looks at a deal")

LIVING, DEAD = (f"https://{name}.example{PATH}?code={KEY}" for name in ("living", "dead"))
BOTH = f"{LIVING}, {DEAD}"
DEADS = f"relay_{listener_id(DEAD)}"
A_DAY_S = 24 * 3_600
FOR_EVER = 1_000_000
Make = Callable[..., World]


def listen(world: World, *urls: str) -> list[Listener]:
    """Put a listener at each address."""
    listeners = [Listener(world.simulators.pki.leaf.certificate, world.clock) for _ in urls]
    for url, listener in zip(urls, listeners, strict=True):
        world.neighbour(url.partition(PATH)[0], listener)
    return listeners


def publish(world: World, times: int = 1) -> None:
    for _ in range(times):
        world.simulators.webhooks.publish("referral-updated", str(uuid4()), "2026-11-02T08:59:59.1234567Z")


def deliver(world: World) -> list[bytes]:
    """Let Partner Center make its calls; returns their bodies."""
    attempts = world.simulators.webhooks.dispatcher.deliver_pending()
    assert {attempt.status for attempt in attempts} <= {200}
    return [attempt.body for attempt in attempts]


def pass_time(world: World, seconds: float, step_s: float = 300) -> None:
    """The host looks at the queue all the time."""
    for _ in range(int(seconds / step_s)):
        world.advance(step_s)
        world.relay()


def failure(world: World, key: str = DEADS) -> Any:
    return next((failure for failure in world.services.failures.list() if failure.deal == key), None)


# ---------------------------------------------------------------- what arrives


@pytest.mark.parametrize("in_ms_signature", [False, True])
def test_every_listener_gets_the_bytes_and_the_signature_that_partner_center_sent(
    make_memory_world: Make, in_ms_signature: bool
) -> None:
    world = make_memory_world(WEBHOOK_RELAY_URLS=BOTH)
    one, other = listen(world, LIVING, DEAD)
    world.simulators.webhooks.registration.in_ms_signature = in_ms_signature
    world.simulators.webhooks.dispatcher.queue(
        {
            "EventName": "referral-updated",
            "ResourceUri": f"https://api.partnercenter.microsoft.com/engagements/v1/referrals/{uuid4()}",
            "ResourceName": "Größe ✓ 数据",
        }
    )

    sent = deliver(world)
    world.relay()

    assert one.bodies == other.bodies == sent
    assert "Größe ✓ 数据".encode() in sent[0]
    headers = one.taken[0].headers
    assert headers["X-Cosell-Relayed"] == "1"
    assert ("Authorization" in headers) != in_ms_signature
    assert headers["Accept-Encoding"] == "identity"
    assert "code" not in str(headers)
    assert world.failed_invocations == 0


def test_every_event_is_passed_on_whether_it_means_something_to_us_or_not(make_memory_world: Make) -> None:
    world = make_memory_world(WEBHOOK_RELAY_URLS=LIVING)
    (listener,) = listen(world, LIVING)
    world.simulators.webhooks.dispatcher.queue({"EventName": "invoice-ready", "ResourceUri": "https://a.example/1"})
    world.simulators.webhooks.dispatcher.queue({"EventName": "test-created"})

    sent = deliver(world)
    world.settle()

    assert listener.bodies == sent
    assert world.queue.length() == 0


def test_one_listener_needs_no_message_in_between(make_memory_world: Make) -> None:
    world = make_memory_world(WEBHOOK_RELAY_URLS=LIVING)
    (listener,) = listen(world, LIVING)
    publish(world)
    deliver(world)
    world.fuse.set(0)

    assert world.relay() == 1

    assert len(listener.taken) == 1
    assert [moment for moment in world.fuse.moments if moment.startswith("relays")] == []


@pytest.mark.parametrize(
    "recipe", ["body-changed", "other-key", "certificate-unknown-root", "certificate-url-other-host"]
)
def test_a_forged_call_reaches_nobody(make_memory_world: Make, recipe: str) -> None:
    world = make_memory_world(WEBHOOK_RELAY_URLS=LIVING)
    (listener,) = listen(world, LIVING)

    assert world.simulators.webhooks.forge(recipe).status == 401

    assert world.relay() == 0
    assert listener.log.count() == 0


def test_a_gateways_token_is_not_passed_on(make_memory_world: Make) -> None:
    world = make_memory_world(WEBHOOK_RELAY_URLS=LIVING)
    (listener,) = listen(world, LIVING)
    world.simulators.webhooks.registration.in_ms_signature = True
    payload = {"EventName": "referral-updated", "ResourceUri": f"https://a.example/referrals/{uuid4()}"}
    body, headers = world.simulators.webhooks._compose(payload, None)
    gateway = {"Authorization": "Bearer canary", "Cookie": "canary", "X-Forwarded-For": "10.0.0.1"}

    answer = world.simulators.webhooks.dispatcher.session.post(WEBHOOK_URL, body, headers={**headers, **gateway})
    world.relay()

    assert answer.status_code == 200
    assert not {"Authorization", "Cookie", "X-Forwarded-For"} & set(listener.taken[0].headers.keys())


def test_a_process_that_dies_at_any_moment_keeps_no_event_from_a_listener(make_memory_world: Make) -> None:
    def play(blow_at: int) -> tuple[World, list[Listener]]:
        world = make_memory_world(WEBHOOK_RELAY_URLS=BOTH)
        listeners = listen(world, LIVING, DEAD)
        publish(world)
        world.fuse.set(blow_at)
        for _ in range(3):
            world.simulators.webhooks.dispatcher.deliver_pending()
            world.relay()
            world.advance(60)
        return world, listeners

    world, listeners = play(0)
    assert [len(listener.taken) for listener in listeners] == [1, 1]

    for moment in world.fuse.deaths():
        died, listeners = play(moment)
        assert [len(set(listener.bodies)) for listener in listeners] == [1, 1], world.fuse.moments[moment - 1]
        assert died.queue.length() >= 1
        assert died.relays.length() == 0


# ---------------------------------------------------------------- a listener that is not there


@pytest.mark.parametrize(
    ("fault", "options", "why"),
    [
        ("drop_before", {}, "it cannot be reached"),
        ("delay", {"seconds": 60}, "it did not answer within 8 s"),
        ("status", {"status": 500}, "it answered 500"),
        ("status", {"status": 401}, "it answered 401"),
        ("status", {"status": 302, "headers": {"Location": LIVING}}, "it redirects (302), which is not followed"),
        ("throttle", {}, "it answered 429"),
    ],
)
def test_a_dead_listener_is_reported_and_takes_nothing_from_the_other_nor_from_us(
    make_memory_world: Make, fault: str, options: dict[str, Any], why: str
) -> None:
    world = make_memory_world(WEBHOOK_RELAY_URLS=BOTH)
    living, dead = listen(world, LIVING, DEAD)
    dead.faults.add(fault, times=FOR_EVER, **options)
    referral = world.people.microsoft_creates_deal()

    world.settle()

    assert world.record_of(referral["id"])
    assert len(living.taken) >= 1
    assert dead.log.count() == 1
    pass_time(world, 300, step_s=10)
    reported = failure(world)
    assert reported.reason == f"{masked(DEAD)} takes no calls: {why}"
    assert "WEBHOOK_RELAY_URLS" in reported.next_step
    assert world.services.signs.of(DEADS).fails
    assert world.services.signs.of(DEADS).failed.says == f"{masked(DEAD)}: {why}"
    assert world.services.signs.of(f"relay_{listener_id(LIVING)}").well
    assert failure(world, f"relay_{listener_id(LIVING)}") is None
    assert world.failed_invocations == 0


@pytest.mark.real_storage
def test_on_real_storage_the_living_gets_all_and_the_dead_gets_all_once_it_lives(make_world: Make) -> None:
    world = make_world(WEBHOOK_RELAY_URLS=BOTH)
    living, dead = listen(world, LIVING, DEAD)
    dead.faults.add("drop_before", times=FOR_EVER)
    publish(world, 10)
    sent = deliver(world)

    world.relay()
    assert sorted(living.bodies) == sorted(sent)
    pass_time(world, 300, step_s=30)
    assert failure(world)
    dead.faults.clear()
    pass_time(world, 3_900)

    assert sorted(living.bodies) == sorted(dead.bodies) == sorted(sent)
    assert failure(world) is None
    assert not world.services.signs.of(DEADS).fails


def test_one_that_answers_500_and_recovers_gets_every_event_exactly_once(make_memory_world: Make) -> None:
    world = make_memory_world(WEBHOOK_RELAY_URLS=BOTH)
    living, dead = listen(world, LIVING, DEAD)
    dead.faults.add("status", status=500, times=FOR_EVER)
    sent = []
    for _ in range(12):
        publish(world, 5)
        sent += deliver(world)
        world.relay()
        pass_time(world, 600)
    assert dead.taken == []

    dead.faults.clear()
    pass_time(world, 3_900)

    assert sorted(dead.bodies) == sorted(living.bodies) == sorted(sent)
    assert world.relays.length() == 0
    assert failure(world) is None


def test_one_that_stumbles_once_is_not_reported_and_gets_the_event_half_a_minute_later(make_memory_world: Make) -> None:
    world = make_memory_world(WEBHOOK_RELAY_URLS=LIVING)
    (listener,) = listen(world, LIVING)
    listener.faults.add("status", status=503)
    publish(world)
    deliver(world)

    world.relay()
    assert listener.taken == []
    world.advance(30)
    world.relay()

    assert len(listener.taken) == 1
    assert world.services.failures.list() == ()


def test_one_that_fails_once_in_every_process_is_reported_all_the_same(make_memory_world: Make) -> None:
    world = make_memory_world(WEBHOOK_RELAY_URLS=DEAD)
    (dead,) = listen(world, DEAD)
    dead.faults.add("drop_before", times=FOR_EVER)
    publish(world)
    deliver(world)

    for _ in range(4):
        world.relay()
        world.restart()

    assert failure(world)


def test_the_delay_between_calls_grows_up_to_an_hour(make_memory_world: Make) -> None:
    world = make_memory_world(WEBHOOK_RELAY_URLS=DEAD)
    (dead,) = listen(world, DEAD)
    dead.faults.add("status", status=500, times=FOR_EVER)
    publish(world)
    deliver(world)

    world.relay()
    pass_time(world, 6 * 3_600, step_s=30)

    called = [entry.at for entry in dead.log.entries]
    waits = [(later - earlier).total_seconds() for earlier, later in pairwise(called)]
    assert waits == [30, 60, 120, 240, 480, 960, 1_920, 3_600, 3_600, 3_600, 3_600]


def test_after_a_day_an_event_is_given_up_and_an_operator_sees_it(
    make_memory_world: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    world = make_memory_world(WEBHOOK_RELAY_URLS=BOTH)
    living, dead = listen(world, LIVING, DEAD)
    dead.faults.add("delay", seconds=60, times=FOR_EVER)
    publish(world, 30)
    deliver(world)

    world.relay()
    pass_time(world, A_DAY_S - 600)
    assert world.relays.length() == 30
    pass_time(world, 900)

    assert world.relays.length() == 0
    assert len(living.taken) == 30
    assert main(["failures"], world.services) == 0
    listed = capsys.readouterr().out
    assert DEADS in listed
    assert f"{masked(DEAD)} did not take an event for 24 hours, so that it is lost to it: it did not answer" in listed
    assert "take its address out of WEBHOOK_RELAY_URLS" in listed
    assert KEY not in listed
    (entry,) = world.services.journal.latest()
    assert entry.event == "relay.given_up"
    assert masked(DEAD) in entry.says


def test_that_events_are_lost_is_still_said_while_newer_ones_wait(make_memory_world: Make) -> None:
    world = make_memory_world(WEBHOOK_RELAY_URLS=DEAD)
    (dead,) = listen(world, DEAD)
    dead.faults.add("drop_before", times=FOR_EVER)
    publish(world)
    deliver(world)
    world.relay()
    pass_time(world, A_DAY_S)
    publish(world, 5)
    deliver(world)

    for _ in range(55):
        pass_time(world, 60, step_s=60)
        assert "did not take an event for 24 hours" in failure(world).reason


def test_a_failure_is_cleared_by_the_first_call_that_is_taken(make_memory_world: Make) -> None:
    world = make_memory_world(WEBHOOK_RELAY_URLS=DEAD)
    (dead,) = listen(world, DEAD)
    publish(world)
    deliver(world)
    world.relay()
    dead.faults.add("drop_before", times=FOR_EVER)
    publish(world)
    deliver(world)
    world.relay()
    pass_time(world, 300, step_s=10)
    assert failure(world)
    dead.faults.clear()

    pass_time(world, 600, step_s=10)

    assert len(dead.taken) == 2
    assert failure(world) is None


def test_an_event_that_waited_a_day_for_us_is_still_passed_on(make_memory_world: Make) -> None:
    world = make_memory_world(WEBHOOK_RELAY_URLS=LIVING)
    (listener,) = listen(world, LIVING)
    publish(world)
    deliver(world)

    world.advance(2 * A_DAY_S)
    world.relay()

    assert len(listener.taken) == 1


def test_a_burst_costs_a_dead_listener_few_calls_and_the_living_one_and_us_no_time(make_memory_world: Make) -> None:
    world = make_memory_world(WEBHOOK_RELAY_URLS=BOTH)
    living, dead = listen(world, LIVING, DEAD)
    dead.faults.add("delay", seconds=60, times=FOR_EVER)
    referral = world.people.microsoft_creates_deal()
    world.settle()
    publish(world, 200)

    sent = deliver(world)
    world.relay()

    assert world.record_of(referral["id"])
    assert set(sent) <= set(living.bodies)
    assert dead.log.count() == 1
    pass_time(world, 60, step_s=1)
    assert dead.log.count() <= 4
    pass_time(world, 3_600)
    assert dead.log.count() <= 17


def test_a_hanging_listener_holds_few_threads_while_the_living_one_gets_all(
    make_memory_world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_memory_world(WEBHOOK_RELAY_URLS=BOTH)
    (living,) = listen(world, LIVING)
    hanging = Hanging(until=lambda: len(living.taken) == 200)
    monkeypatch.setattr("webhook_relay.pass_on.call", hanging.call)
    publish(world, 200)
    sent = deliver(world)

    with ThreadPoolExecutor(12) as pool:  # as many as host.json lets run at once
        for expected in (200, 400):
            messages = take_off(world)
            assert len(messages) == expected
            list(pool.map(world.run_relay, messages))

    assert sorted(living.bodies) == sorted(sent)
    assert hanging.calls == CALLS_AT_ONCE
    assert world.relays.length() == 200
    assert world.failed_invocations == 0


class Hanging:
    """In the place of the call: one to DEAD does not end before `until`, as a living listener could not wait for."""

    def __init__(self, until: Callable[[], bool]) -> None:
        self.calls = 0
        self._until = until
        self._real_call = call.call

    def call(self, session: requests.Session, url: str, request: RelayRequest) -> call.Trouble | None:
        if url != DEAD:
            return self._real_call(session, url, request)
        self.calls += 1
        eventually(self._until, "the living listener gets everything meanwhile")
        return call.Trouble("it did not answer")


def take_off(world: World) -> list[bytes]:
    """What lies in the queue, as hosts take it off that work on everything at once."""
    bodies = []
    while page := world.relays.receive(visibility_s=600):
        for message in page:
            bodies.append(message.body)
            world.relays.delete(message.receipt)
    return bodies


# ---------------------------------------------------------------- settings


def test_one_that_is_no_longer_configured_gets_nothing_and_is_forgotten(
    make_memory_world: Make, caplog: pytest.LogCaptureFixture
) -> None:
    world = make_memory_world(WEBHOOK_RELAY_URLS=BOTH)
    living, dead = listen(world, LIVING, DEAD)
    dead.faults.add("drop_before", times=FOR_EVER)
    publish(world)
    deliver(world)
    world.relay()
    pass_time(world, 300, step_s=10)
    assert failure(world)
    dead.faults.clear()

    world.settings["WEBHOOK_RELAY_URLS"] = LIVING
    world.restart()
    pass_time(world, 3_900)

    assert dead.taken == []
    assert len(living.taken) == 1
    assert world.relays.length() == 0
    assert failure(world) is None
    assert "relay.dropped" in [record.msg for record in caplog.records]


@pytest.mark.parametrize(
    ("urls", "problem"),
    [
        (WEBHOOK_URL, "it names WEBHOOK_URL"),
        (
            f"{LIVING},http://other.example/hook?code={KEY}",
            "http://other.example/hook?code=*** must begin with https://",
        ),
        ("nonsense", "is not a plain address"),
        (f"{LIVING},{LIVING}1", "twice"),
    ],
)
def test_a_mistake_in_naming_listeners_stops_nothing_else_and_loses_nothing(
    make_memory_world: Make, caplog: pytest.LogCaptureFixture, urls: str, problem: str
) -> None:
    world = make_memory_world(WEBHOOK_RELAY_URLS=urls)
    referral = world.people.microsoft_creates_deal()

    world.settle()

    assert world.record_of(referral["id"])
    assert world.relays.length() > 0, "what is to be passed on waits for the mistake to be mended"
    said = [record.problem for record in caplog.records if record.msg == "relay.misconfigured"]
    assert said
    assert problem in said[0]
    assert KEY not in said[0]


def test_what_came_during_the_mistake_is_passed_on_after_it(make_memory_world: Make) -> None:
    world = make_memory_world(WEBHOOK_RELAY_URLS="nonsense")
    publish(world)
    sent = deliver(world)
    world.relay()

    (listener,) = listen(world, LIVING)
    world.settings["WEBHOOK_RELAY_URLS"] = LIVING
    world.restart()
    pass_time(world, 600)

    assert listener.bodies == sent


def test_what_waits_for_a_listener_gets_there_with_its_new_key(make_memory_world: Make) -> None:
    world = make_memory_world(WEBHOOK_RELAY_URLS=LIVING.replace(KEY, "old"))
    (listener,) = listen(world, LIVING)
    publish(world, 3)
    sent = deliver(world)
    world.relay()
    assert listener.bodies == []

    world.settings["WEBHOOK_RELAY_URLS"] = LIVING
    world.restart()
    pass_time(world, 600)

    assert sorted(listener.bodies) == sorted(sent)


@pytest.mark.parametrize("status", [400, 413, 422, 431])
def test_a_call_that_a_listener_refuses_is_reported_and_holds_up_no_other(make_memory_world: Make, status: int) -> None:
    world = make_memory_world(WEBHOOK_RELAY_URLS=LIVING)
    (listener,) = listen(world, LIVING)
    listener.faults.add("status", status=status)
    publish(world, 3)
    deliver(world)

    world.relay()

    assert len(listener.bodies) == 2
    assert world.relays.length() == 0
    (reported,) = world.services.failures.list()
    assert f"refused an event, so that it is lost to it: it answered {status}" in reported.reason


def test_the_longer_a_listener_is_dead_the_less_often_its_calls_are_looked_at(make_memory_world: Make) -> None:
    world = make_memory_world(WEBHOOK_RELAY_URLS=DEAD)
    publish(world)
    deliver(world)
    world.relay()
    looked_at = 0

    for _ in range(24 * 60):
        world.advance(60)
        looked_at += world.relay()

    assert 24 <= looked_at < 60
    assert world.relays.length() == 0


def test_what_was_stored_before_the_mistake_is_passed_on_after_it(make_memory_world: Make) -> None:
    world = make_memory_world(WEBHOOK_RELAY_URLS=LIVING)
    (listener,) = listen(world, LIVING)
    publish(world)
    sent = deliver(world)
    world.settings["WEBHOOK_RELAY_URLS"] = "nonsense"
    world.restart()
    world.relay()
    assert world.relays.length() == 1

    world.settings["WEBHOOK_RELAY_URLS"] = LIVING
    world.restart()
    pass_time(world, 600)

    assert listener.bodies == sent


def test_two_installations_that_name_each_other_do_not_loop(
    make_memory_world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = make_memory_world(WEBHOOK_RELAY_URLS="https://theirs.example/api/webhook_receiver?code=key")
    theirs = make_memory_world(
        **ours.settings | {"WEBHOOK_RELAY_URLS": WEBHOOK_URL, "WEBHOOK_URL": "https://theirs.example/x"}
    )
    for world, other in ((ours, theirs), (theirs, ours)):
        ours.simulators.mount(world.services.session)
        host = "https://theirs.example" if other is theirs else HOST
        world.services.session.mount(host, Installation(other, monkeypatch))
    publish(ours)
    monkeypatch.setattr(shared_services, "process_services", lambda: ours.services)

    deliver(ours)
    assert ours.relay() == 1

    assert theirs.queue.length() == ours.queue.length() == 1
    assert theirs.relays.length() == ours.relays.length() == 0


class Installation(FunctionAdapter):
    """Another world's app: its functions find that world's services."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(world.site, world.fuse.another_run, world.restart)
        self.world = world
        self.monkeypatch = monkeypatch

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:  # type: ignore[override]
        with self.monkeypatch.context() as elsewhere:
            elsewhere.setattr(shared_services, "process_services", lambda: self.world.services)
            return super().send(request, **options)


def test_a_call_that_was_passed_on_to_us_is_worked_off_and_goes_no_further(make_memory_world: Make) -> None:
    world = make_memory_world(WEBHOOK_RELAY_URLS=LIVING)
    (listener,) = listen(world, LIVING)
    payload = {"EventName": "referral-updated", "ResourceUri": f"https://a.example/referrals/{uuid4()}"}
    body, headers = world.simulators.webhooks._compose(payload, None)

    world.simulators.webhooks.dispatcher.session.post(WEBHOOK_URL, body, headers={**headers, MARK.upper(): "1"})
    world.relay()

    assert world.queue.length() == 1
    assert listener.log.count() == 0


# ---------------------------------------------------------------- cost and secrets


@pytest.mark.parametrize(
    ("settings", "writes"), [({}, ["queue.send"]), ({"WEBHOOK_RELAY_URLS": BOTH}, ["relays.send", "queue.send"])]
)
def test_the_setting_costs_one_storage_write_per_call_and_nothing_when_unset(
    make_memory_world: Make, settings: dict[str, str], writes: list[str]
) -> None:
    world = make_memory_world(**settings)
    publish(world)
    deliver(world)  # the first call fetches the certificate
    asked = len(world.tables.requests)
    world.fuse.set(0)

    publish(world)
    deliver(world)

    assert sorted(world.fuse.moments) == sorted(writes)
    assert len(world.tables.requests) == asked


def test_deliveries_to_one_that_is_well_cost_no_storage_call_each(make_memory_world: Make) -> None:
    world = make_memory_world(WEBHOOK_RELAY_URLS=LIVING)
    (listener,) = listen(world, LIVING)
    publish(world, 50)
    deliver(world)
    asked = len(world.tables.requests)

    world.relay()

    assert len(listener.taken) == 50
    # one sign of life, and one look whether an earlier process has reported a failure
    assert [request.split()[0] for request in world.tables.requests[asked:]] == ["upsert", "delete"]


def test_neither_log_nor_storage_tells_a_key(make_memory_world: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    world = make_memory_world(WEBHOOK_RELAY_URLS=BOTH)
    _, dead = listen(world, LIVING, DEAD)
    for fault in ("drop_before", "delay", "status"):
        dead.faults.add(fault, times=10, **{"delay": {"seconds": 60}, "status": {"status": 500}}.get(fault, {}))
    dead.faults.add("drop_before", times=FOR_EVER)
    publish(world, 3)
    deliver(world)
    world.relay()

    pass_time(world, A_DAY_S + 900)

    assert failure(world)
    told = [world.services.failures.list(), world.services.journal.latest(), world.services.signs.all()]
    assert KEY not in str(told)
    assert KEY not in " ".join(str(vars(record)) for record in caplog.records)


# ---------------------------------------------------------------- messages nobody can pass on


@pytest.mark.parametrize(
    "text", ["no JSON", "{}", '{"body": "Zg", "headers": {}, "received_utc": "2026-11-02T09:00:00Z"}']
)
def test_a_message_that_is_none_is_recorded_and_not_tried_again(
    make_memory_world: Make, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    world = make_memory_world(WEBHOOK_RELAY_URLS=LIVING)

    world.run_relay(text.encode())

    assert world.failed_invocations == 0
    assert "is no call to pass on" in failure(world, "relay_unreadable").reason
    assert main(["replay", "--all"], world.services) == 0
    assert world.queue.length() == 0


def test_what_nobody_thought_of_is_recorded_when_the_host_gives_it_up(
    make_memory_world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_memory_world(WEBHOOK_RELAY_URLS=DEAD)
    publish(world)
    deliver(world)
    (message,) = take_off(world)

    def broken(*_: object) -> str:
        raise RuntimeError("nobody thought of it")

    monkeypatch.setattr("webhook_relay.pass_on.call", broken)
    world.run_relay(message)
    assert world.failed_invocations == 1

    world.poison(message, "relay_poisoned")
    world.poison(b"no JSON", "relay_poisoned")

    assert "something unexpected" in failure(world, "relay_all").reason
    assert failure(world, "relay_unreadable")


# ---------------------------------------------------------------- over real connections


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority(tmp_path)


@pytest.fixture
def connected(make_memory_world: Make, monkeypatch: pytest.MonkeyPatch, authority: CertificateAuthority) -> Make:
    """A world whose listeners are reached over the network of this machine, in an environment full of temptations."""

    def make(urls: str) -> World:
        netrc = authority.file.with_name("netrc")
        netrc.write_text("machine localhost login canary password canary\n")
        monkeypatch.setenv("NETRC", str(netrc))
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
        world = make_memory_world(WEBHOOK_RELAY_URLS=urls)
        publish(world)
        deliver(world)
        world.services.session = None
        return world

    return make


def test_the_ca_file_of_the_settings_is_trusted_and_the_headers_are_as_sent(
    connected: Make, authority: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.file))
    with serve(late := Later(), ca=authority) as server:
        world = connected(f"{server.url}{PATH}?code={KEY}")
        late.listener = Listener(world.simulators.pki.leaf.certificate)

        world.relay()

    (taken,) = late.listener.taken
    assert taken.headers["Authorization"].startswith("Signature ")
    assert taken.headers["Accept-Encoding"] == "identity"
    assert taken.headers["Content-Type"] == "application/json"


def test_a_certificate_that_is_not_trusted_is_no_listener(connected: Make, authority: CertificateAuthority) -> None:
    with serve(late := Later(), ca=authority) as server:
        world = connected(f"{server.url}{PATH}?code={KEY}")
        late.listener = Listener(world.simulators.pki.leaf.certificate)

        world.relay()

        assert late.listener.taken == []
        (sign,) = world.services.signs.all().values()
        assert "its certificate is not trusted" in sign.failed.says


def test_one_that_hangs_is_left_after_the_time_a_call_may_take(
    connected: Make, authority: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.file))
    monkeypatch.setattr(call, "READ_S", 0.2)
    with serve(late := Later(), ca=authority) as server:
        world = connected(f"{server.url}{PATH}?code={KEY}")
        late.listener = Listener(world.simulators.pki.leaf.certificate)
        late.listener.faults.add("delay", seconds=1.0)

        world.relay()

        (sign,) = world.services.signs.all().values()
        assert "did not answer" in sign.failed.says


def test_a_port_on_which_nobody_listens_is_said_to_be_one(connected: Make) -> None:
    world = connected(f"https://127.0.0.1:1{PATH}?code={KEY}")

    world.relay()

    (sign,) = world.services.signs.all().values()
    assert sign.failed.says.endswith("it cannot be reached (Connection refused)")
    assert KEY not in sign.failed.says


class Later:
    """A server's application that is known only after its address."""

    listener: Listener

    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        return self.listener(environ, start_response)

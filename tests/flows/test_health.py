"""What `GET /api/health` tells an operator, while the app works, fails, and recovers."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from health.overdue import is_overdue
from local.host.functions import InvocationFailed
from shared.errors import Unavailable
from tests.flows.crms import only
from tests.flows.world import EVENTS, HOST, WEBHOOK_URL, World

pytestmark = only("dynamics365", why="health reads what the triggers note, whichever the CRM is")


@pytest.fixture
def world(make_memory_world: Callable[..., World]) -> World:
    world = make_memory_world(AzureWebJobsStorage="UseDevelopmentStorage=true")  # complete, though nobody uses it
    world.simulators.webhooks.another_tool_registers(WEBHOOK_URL, ["test-created", *EVENTS])
    return world


def health(world: World) -> tuple[int, dict[str, Any]]:
    session = requests.Session()
    session.mount(HOST, world.simulators.webhooks.dispatcher.session.get_adapter(HOST))
    answer = session.get(f"{HOST}/api/health?code=key", timeout=5)
    return answer.status_code, json.loads(answer.content)


def verdicts(world: World) -> dict[str, str]:
    _, found = health(world)
    return {name: check["verdict"] for name, check in found.items() if name != "verdict" and check["verdict"] != "ok"}


def everything_ran(world: World) -> None:
    """A deal arrives by webhook; all timers have run."""
    world.people.microsoft_creates_deal()
    world.settle()
    world.fire("reconciler")
    world.fire("nightly_sweep")
    world.fire("check_registration")


def test_an_app_that_works_is_ok(world: World) -> None:
    everything_ran(world)

    status, found = health(world)

    assert (status, found["verdict"], verdicts(world)) == (200, "ok", {})
    now = f"{world.clock.now():%Y-%m-%dT%H:%M:%SZ}"
    assert {name for name, check in found.items() if name != "verdict" and check.get("last_utc") == now} == {
        "partner_center_sign_in",
        "refresh_token",
        "crm_sign_in",
        "webhook",
        "registration",
        "poll",
        "sweep",
        "full_sweep",
    }
    ends = world.clock.now() + timedelta(days=90)
    assert found["refresh_token"]["says"] == f"renewed with every sign-in; the stored one ends on {ends:%Y-%m-%d}"


def test_a_fresh_app_says_what_has_not_happened_yet(world: World) -> None:
    status, found = health(world)

    assert (status, found["verdict"]) == (200, "attention")
    assert set(verdicts(world)) == {
        "partner_center_sign_in",
        "refresh_token",
        "crm_sign_in",
        "webhook",
        "registration",
        "poll",
        "sweep",
        "full_sweep",
    }
    assert "register the webhook" in found["webhook"]["says"]


def test_a_sign_in_that_fails_is_down_until_it_works_again(world: World) -> None:
    everything_ran(world)
    world.entra.fail_next(700082, times=99)
    world.restart()
    with pytest.raises(InvocationFailed):
        world.fire("reconciler")

    status, found = health(world)

    assert status == 503
    assert found["partner_center_sign_in"]["verdict"] == "down"
    assert "consent again" in found["partner_center_sign_in"]["says"]
    assert found["sweep"]["verdict"] == "attention"

    world.entra.faults.clear()
    world.advance(301)
    world.fire("crm_poller")
    world.fire("reconciler")
    assert verdicts(world) == {}


def test_a_throttled_poll_is_seen(world: World) -> None:
    everything_ran(world)
    world.advance(61)
    world.crm.faults.add("throttle", times=9)
    world.fire("crm_poller")

    _, found = health(world)

    assert found["poll"]["verdict"] == "attention"


def test_timers_that_stopped_are_seen(world: World) -> None:
    everything_ran(world)
    world.advance(24 * 3600)

    assert verdicts(world) == {"poll": "attention", "sweep": "attention"}
    assert "has not run in time" in health(world)[1]["poll"]["says"]

    world.advance(2 * 24 * 3600)
    assert verdicts(world) == dict.fromkeys(("poll", "sweep", "full_sweep", "registration", "webhook"), "attention")


def test_a_refresh_token_that_was_not_renewed_for_long_is_seen(world: World) -> None:
    everything_ran(world)
    world.advance(61 * 24 * 3600)

    assert "was not renewed for long" in health(world)[1]["refresh_token"]["says"]


def test_a_refresh_token_that_cannot_be_stored_is_seen(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    everything_ran(world)
    world.restart()

    def full(_: str) -> None:
        raise Unavailable("the refresh token cannot be stored: the app's identity needs the role X")

    monkeypatch.setattr(world.services._refresh_tokens, "save", full)
    world.advance(1)
    world.fire("reconciler")

    _, found = health(world)
    assert found["refresh_token"]["verdict"] == "attention"
    assert "needs the role X" in found["refresh_token"]["says"]
    assert found["partner_center_sign_in"]["verdict"] == "ok"


def test_a_refused_call_is_seen_until_a_genuine_one_comes(world: World) -> None:
    everything_ran(world)
    world.advance(61)
    assert world.simulators.webhooks.forge("certificate-wrong-name").status == 401

    _, found = health(world)
    assert found["webhook"]["verdict"] == "attention"
    assert "WEBHOOK_CERTIFICATE_NAMES" in found["webhook"]["says"]

    world.advance(61)
    world.people.microsoft_creates_deal()
    world.settle()
    assert verdicts(world) == {}


def test_a_takeover_is_seen(world: World) -> None:
    everything_ran(world)
    world.simulators.webhooks.another_tool_registers("https://other.example/hook?sig=secret")
    world.advance(61)
    world.fire("check_registration")

    _, found = health(world)

    assert found["registration"]["verdict"] == "attention"
    assert "https://other.example/hook?sig=***" in found["registration"]["says"]
    assert "registration" in found["failures"]["says"]
    assert "secret" not in json.dumps(found)


def test_a_storage_that_does_not_answer_is_down(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> None:
        raise Unavailable("Table Storage gave no usable answer")

    monkeypatch.setattr(world.services.signs, "all", gone)

    status, found = health(world)

    assert (status, found["signs"]["verdict"]) == (503, "down")


MONDAY = datetime(2026, 11, 2, 9, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "after", "overdue"),
    [
        ("0 * * * * *", timedelta(minutes=6), False),
        ("0 * * * * *", timedelta(minutes=7), True),
        ("30 */5 * * * *", timedelta(minutes=14), False),
        ("30 */5 * * * *", timedelta(minutes=16), True),
        ("0 17 5 * * *", timedelta(days=1), False),
        ("0 17 5 * * *", timedelta(days=2), True),
        ("0 0 8 * * 1-5", timedelta(days=1, hours=20), False),
        ("01:00:00", timedelta(days=9), False),  # a form we cannot read is not judged
    ],
)
def test_a_timer_is_overdue_when_two_runs_are_missing(expression: str, after: timedelta, overdue: bool) -> None:
    assert is_overdue(expression, MONDAY, MONDAY + after) is overdue

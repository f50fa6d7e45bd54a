"""`python -m admin register` and `registration`: in this process, and by the deployed app."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import requests

from admin.__main__ import main
from tests.flows.crms import only
from tests.flows.world import HOST, WEBHOOK_URL, World

pytestmark = only("dynamics365", why="the CRM is not asked")
FOREIGN = "https://other.example/hook?sig=foreign-secret"
HERE: list[str] = []
THERE = ["--app", HOST, "--key", "key"]


@pytest.fixture
def world(make_memory_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> World:
    world = make_memory_world()
    world.simulators.webhooks.registration = None

    def sleep(seconds: float) -> None:
        world.clock.advance(seconds)
        world.simulators.webhooks.deliver_pending()

    monkeypatch.setattr(world.services, "sleep", sleep)
    session = requests.Session()
    session.mount(HOST, world.simulators.webhooks.dispatcher.session.get_adapter(HOST))
    monkeypatch.setattr("admin.registration.requests.request", session.request)
    return world


@pytest.mark.parametrize("where", [HERE, THERE], ids=["here", "by the app"])
def test_registering_for_the_first_time_and_again(
    world: World, capsys: pytest.CaptureFixture[str], where: list[str]
) -> None:
    assert main(["register", *where], world.services) == 0
    first = capsys.readouterr().out
    assert main(["register", *where], world.services) == 0
    again = capsys.readouterr().out

    assert first.startswith("created: Partner Center now sends test-created, referral-created")
    assert "test event: Partner Center called this app and was answered (after 1 attempt)." in first
    assert again.startswith("unchanged: ")
    assert "none was sent; --test has one sent" in again


@pytest.mark.parametrize("where", [HERE, THERE], ids=["here", "by the app"])
def test_another_receiver_is_shown_and_left_alone_unless_told_to(
    world: World, capsys: pytest.CaptureFixture[str], where: list[str]
) -> None:
    world.simulators.webhooks.another_tool_registers(FOREIGN)

    assert main(["register", *where], world.services) == 1
    refused = capsys.readouterr().out
    assert main(["register", "--overwrite", "--no-test", *where], world.services) == 0
    taken = capsys.readouterr().out

    assert "refused: Partner Center sends its events to https://other.example/hook?sig=***" in refused
    assert taken.startswith("updated: ")
    assert "foreign-secret" not in refused + taken
    assert world.simulators.webhooks.registration.url == WEBHOOK_URL  # type: ignore[union-attr]


@pytest.mark.parametrize("where", [HERE, THERE], ids=["here", "by the app"])
def test_what_is_registered_and_what_happened_to_it(
    world: World, capsys: pytest.CaptureFixture[str], where: list[str]
) -> None:
    main(["register", "--no-test"], world.services)
    world.simulators.webhooks.another_tool_registers(FOREIGN)
    world.advance(60)
    world.fire("check_registration")
    capsys.readouterr()

    assert main(["registration", *where], world.services) == 0

    said = capsys.readouterr().out
    assert "which is not this app" in said.splitlines()[0]
    assert "is:        https://other.example/hook?sig=*** (test-created)" in said
    assert said.index("registration.taken_over") < said.index("registration.created")


def test_the_whole_address_is_printed_when_asked_for(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["registration", "--keys"], world.services) == 0
    assert capsys.readouterr().out == "Nothing is registered.\n"
    world.simulators.webhooks.another_tool_registers(FOREIGN)

    assert main(["registration", "--keys"], world.services) == 0

    assert capsys.readouterr().out == f"{FOREIGN}\n"


def test_events_and_address_can_be_chosen(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"{HOST}/api/webhook_receiver?code=new"
    arguments = ["--webhook-url", url, "--events", "test-created,referral-updated", "--no-test"]

    assert main(["register", *arguments], world.services) == 0

    registration = world.simulators.webhooks.registration
    assert registration
    assert (registration.url, registration.events) == (url, ["test-created", "referral-updated"])
    assert "WEBHOOK_URL names another address or key" in capsys.readouterr().out


def test_a_test_event_that_fails_is_an_exit_code(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object, **__: object) -> requests.Response:
        raise requests.ConnectionError("no network in this test")

    monkeypatch.setattr("shared.registration.probe.requests.post", gone)
    world.simulators.webhooks.dispatcher.deviate("certificate-wrong-name", times=9)

    assert main(["register"], world.services) == 1

    said = capsys.readouterr().out
    assert "was answered Unauthorized (after 3 attempts). The call came through and this app refused it: " in said
    assert "WEBHOOK_CERTIFICATE_NAMES" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--events", "referral-craeted"], "did you mean referral-created?"),
        (["--webhook-url", "http://cosell.example/"], "must begin with https://"),
        (["--app", HOST, "--key", "wrong"], "answered 401: is --key a key of the app?"),
        (["--app", f"{HOST}/elsewhere", "--key", "key"], "answered 404: is --app the app's address?"),
        (
            ["--app", "https://no-such-host.invalid", "--key", "key"],
            "gave no answer (ConnectionError): is the address right",
        ),
        (["--app", "http://cosell.example", "--key", "key"], "--app must begin with https://, for example"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(
    world: World, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main(["register", *arguments], world.services) == 1

    assert words in capsys.readouterr().out


def test_partner_center_refusing_is_told_with_the_next_step(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.simulators.webhooks.partner_tenant_id = "another"

    assert main(["register"], world.services) == 1

    assert "next: give the consenting user the Referrals admin role" in capsys.readouterr().out

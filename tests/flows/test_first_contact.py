"""`python -m admin first-contact`: what the live service would show, told after playing it with the simulated one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import requests

from admin.__main__ import main
from tests.flows.crms import only
from tests.flows.world import EVENTS, WEBHOOK_URL, World

pytestmark = only("dynamics365", why="it is about Partner Center")


@pytest.fixture
def make(make_memory_world: Callable[..., World]) -> Callable[..., World]:
    def make(**settings: str) -> World:
        world = make_memory_world(**{"CAPTURE_EVENTS": "true", **settings})
        world.simulators.webhooks.another_tool_registers(WEBHOOK_URL, ["test-created", *EVENTS])
        return world

    return make


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Callable[[World], dict[str, str]]:
    """The report by the first words of each point."""

    def points(world: World) -> dict[str, str]:
        assert main(["first-contact"], world.services) == 0
        head, *found = capsys.readouterr().out.split("\n\n")
        return {"": head, **{point.split("\n")[0].split(". ", 1)[1]: point for point in found if point[0].isdigit()}}

    return points


def test_before_anything_came_it_says_how_to_go_on(
    make: Callable[..., World], report: Callable[[World], dict[str, str]]
) -> None:
    found = report(make())

    assert len(found) == 1 + 10
    assert "0 calls are kept" in found[""]
    assert "set CAPTURE_EVENTS=true and have a test event sent" in found["The signing certificate"]
    assert "edit a referral" in found["Where events say that the referral is"]


def test_every_point_is_told_once_it_was_seen(
    make: Callable[..., World], report: Callable[[World], dict[str, str]]
) -> None:
    world = make()
    world.simulators.webhooks.dispatcher.queue({"EventName": "test-created", "ResourceName": "test"})
    record_id = world.opportunity(help="CustomerTechnicalArchitecture")
    world.settle()
    world.people.microsoft_accepts(world.referral_of(record_id)["engagementId"])
    world.settle()
    world.desk.edit(record_id, notes="Written by us.")
    world.settle()
    world.fire("reconciler")

    found = report(world)

    certificate = found["The signing certificate"]
    assert "PEM, the certificate alone" in certificate
    assert "issuer CN=Sim TLS Issuing CA 01,O=Microsoft Corporation,C=US" in certificate
    assert "extended key usage serverAuth, clientAuth" in certificate
    assert "nothing to change" in certificate
    uris = found["Where events say that the referral is"]
    assert "referral-updated: https://api.partnercenter.microsoft.com/engagements/v1/referrals/<id>" in uris
    assert "Microsoft's copy" in found["Whose referral a related-... event names"]
    request = found["What a call looks like, and when it is repeated"]
    assert "x-ms-signature-algorithm: rsa-sha256" in request
    assert '"EventName":"' in request
    assert "yes: " in found["Whether our own write comes back as an event"]
    assert "webhookUrl, webhookEvents" in found["How the registration API answers"]
    assert "App+User" in found["Who may register"]
    assert "took our token" in found["Whether the token's scope is right for the Referrals API"]
    assert "only the events of this app" in found["Whether the one slot carries the events of other tools"]


def test_a_certificate_that_is_refused_names_the_setting(
    make: Callable[..., World], report: Callable[[World], dict[str, str]]
) -> None:
    world = make(WEBHOOK_CERTIFICATE_NAMES="other.microsoft.com")
    world.simulators.webhooks.dispatcher.queue({"EventName": "test-created", "ResourceName": "test"})
    world.simulators.webhooks.deliver_pending()

    found = report(world)

    assert "the last refusal: the certificate carries pcnotifications-dispatch" in found["The signing certificate"]
    assert "WEBHOOK_CERTIFICATE_NAMES: other.microsoft.com" in found["The signing certificate"]


def test_events_of_other_tools_are_named(make: Callable[..., World], report: Callable[[World], dict[str, str]]) -> None:
    world = make()
    world.simulators.webhooks.another_tool_registers(WEBHOOK_URL, ["test-created", "subscription-updated"])
    world.simulators.webhooks.publish(
        "subscription-updated", "c5fbb3b6-be74-4795-9fb5-4324c73fed37", "2026-11-02T09:00:00Z"
    )
    world.settle()

    shared = report(world)["Whether the one slot carries the events of other tools"]

    assert "subscription-updated" in shared
    assert "WEBHOOK_RELAY_URLS" in shared


def test_a_form_of_address_that_is_not_read_is_to_be_reported(
    make: Callable[..., World], report: Callable[[World], dict[str, str]]
) -> None:
    world = make()
    assert world.simulators.webhooks.forge("resource-uri-without-guid").status == 200

    world.simulators.webhooks.dispatcher.queue({"EventName": "test-created", "ResourceName": "test"})
    world.settle()

    found = report(world)

    assert "report these forms" in found["Where events say that the referral is"]
    assert "does not end in /referrals/<id>" in found["Genuine calls that nobody can read"]
    assert '"EventName":"referral-updated"' in found["Genuine calls that nobody can read"]
    (failure,) = world.services.failures.list()
    assert main(["dismiss", "pc_unknown"], world.services) == 1
    assert main(["dismiss", failure.deal], world.services) == 0
    assert world.services.failures.list() == ()


def test_how_none_is_said_is_told(make: Callable[..., World], report: Callable[[World], dict[str, str]]) -> None:
    world = make()
    world.simulators.webhooks.registration = None

    assert "said with 404" in report(world)["How the registration API answers"]


def test_who_may_not_register_is_told_with_the_step(
    make: Callable[..., World], report: Callable[[World], dict[str, str]]
) -> None:
    world = make()
    world.simulators.webhooks.partner_tenant_id = "another"

    assert "-> give the consenting user the Referrals admin role" in report(world)["Who may register"]


def test_several_attempts_show_the_back_off(
    make: Callable[..., World], report: Callable[[World], dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make()

    def sleep(seconds: float) -> None:
        world.clock.advance(seconds)
        world.simulators.webhooks.deliver_pending()

    monkeypatch.setattr(world.services, "sleep", sleep)
    monkeypatch.setattr("shared.registration.probe.requests.post", _nobody_there)
    world.simulators.webhooks.dispatcher.deviate("sha1", times=9)
    assert main(["register", "--test"], world.services) == 1

    repeated = report(world)["What a call looks like, and when it is repeated"]

    assert repeated.count("test event, attempt at 2026-11-02T09:00:") == 3
    assert "Unauthorized" in repeated
    assert "nothing to change" in repeated


def _nobody_there(*_: object, **__: object) -> requests.Response:
    raise requests.ConnectionError("no network in this test")


def test_calls_are_kept_only_while_the_setting_says_so(
    make: Callable[..., World], report: Callable[[World], dict[str, str]]
) -> None:
    world = make(CAPTURE_EVENTS="false")
    world.simulators.webhooks.dispatcher.queue({"EventName": "test-created", "ResourceName": "test"})
    world.settle()

    assert world.services.captures.list() == ()
    assert "Is CAPTURE_EVENTS=true set in the app?" in report(world)[""]

"""Keeping the one registration right: against the simulated registration API, through the real client."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import azure.functions as func
import pytest
import requests
from azure.functions.timer import TimerRequest

from local.simulators.base import Clock, InProcessAdapter, Request, Response, Simulator
from local.simulators.entra import PARTNER_CENTER_WEBHOOKS, EntraSimulator
from local.simulators.partner_center import WebhooksSimulator
from local.simulators.pki import SigningPki
from register_webhook import blueprint
from shared.addresses import masked
from shared.errors import Forbidden, Refused, SettingsError, SignInFailed, Unavailable
from shared.events import DEFAULT_EVENTS
from shared.registration.record import Record
from shared.registration.registrar import BadInput, Outcome, Registrar
from shared.registration.round_trip import RoundTrip, TestResult, _no_answer
from shared.remote.http import Remote
from shared.remote.partner_center_webhooks import WEBHOOKS_DIALECT, Attempt, PartnerCenterWebhooks, Registration
from shared.services import Services
from shared.settings import RegistrationSettings, load
from shared.store.captures import PARTITION as CAPTURED
from shared.store.captures import Captures
from shared.store.failures import Failures
from shared.store.journal import Journal
from shared.store.signs import Signs
from tests.memory_storage import MemoryTables

API = "https://api.partnercenter.microsoft.com/webhooks/v1"
OURS = "https://app.example.com/api/webhook_receiver?code=own-key"
FOREIGN = "https://other.example.com/hook/sig-tool?sig=foreign-secret&v=1"
SECRETS = ("own-key", "foreign-secret", "new-key")
Ask = Callable[..., tuple[int, dict[str, Any]]]


class Receiver(Simulator):
    """Stands where the app is called: answers each call with `status`, after doing what `before` says."""

    def __init__(self) -> None:
        super().__init__()
        self.status = 200
        self.before: Callable[[], None] = lambda: None

    def respond(self, request: Request, read_timeout_s: float | None = None) -> Response:
        self.before()
        return Response(self.status)


class Token:
    """Signs in as the app the simulator knows, for the given audience."""

    def __init__(self, entra: EntraSimulator, audience: str = PARTNER_CENTER_WEBHOOKS, *, mfa: bool = True) -> None:
        self.entra, self.audience, self.mfa = entra, audience, mfa

    def token(self, *, refused: str = "") -> str:
        return self.entra.access_token("partner_center", self.audience, mfa=self.mfa)


class World:
    """Partner Center's side, a receiver, and our client and registrar."""

    def __init__(self) -> None:
        self.clock = Clock(frozen_at=datetime(2026, 11, 20, 12, tzinfo=UTC))
        self.entra = EntraSimulator(clock=self.clock)
        self.sim = WebhooksSimulator(self.entra, SigningPki(), clock=self.clock)
        self.receiver = Receiver()
        self.sim.dispatcher.session.mount("https://app.example.com", InProcessAdapter(self.receiver))
        session = requests.Session()
        session.mount("https://", InProcessAdapter(self.sim))
        self.token = Token(self.entra)
        remote, test_sender = (
            Remote(
                "Partner Center webhooks",
                API,
                self.token,
                dialect=WEBHOOKS_DIALECT,
                session=session,
                clock=self.clock.now,
                sleep=self.clock.advance,
            )
            for _ in range(2)
        )
        self.client = PartnerCenterWebhooks(remote, test_sender)
        self.index = MemoryTables().table("Index")
        self.seen_from_here = ""  # what the probe finds wrong with our address
        self.restart()

    def restart(self) -> None:
        """A new process: what Storage does not hold is forgotten."""
        self.signs = Signs(self.index, self.clock.now)
        self.journal = Journal(self.index, self.clock.now)
        self.failures = Failures(self.index, self.clock.now)

    def registrar(self, *, relayed_to: Sequence[str] = (), **settings: str) -> Registrar:
        record = Record(self.signs, self.journal, self.failures)
        return Registrar(
            self.client,
            load(RegistrationSettings, {"WEBHOOK_URL": OURS, **settings}),
            record,
            RoundTrip(self.client, record, self.probe, clock=self.clock.now, sleep=self.sleep),
            self.probe,
            relayed_to=relayed_to,
            clock=self.clock.now,
        )

    def probe(self, _: str) -> str:
        return self.seen_from_here

    def sleep(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.sim.deliver_pending()

    def registered(self) -> tuple[str, tuple[str, ...]]:
        assert self.sim.registration is not None
        return self.sim.registration.url, tuple(self.sim.registration.events)

    def writes(self) -> int:
        return self.sim.log.count("POST", "registration$") + self.sim.log.count("PUT")


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(autouse=True)
def nothing_logged_is_secret(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)

    yield

    said = " ".join(str(vars(record)) for record in caplog.records)
    assert not [secret for secret in SECRETS if secret in said]


def test_the_first_registration_is_made_and_tested(world: World) -> None:
    outcome = world.registrar().register()

    assert outcome.result == "created"
    assert outcome.test == TestResult(True, "Partner Center called this app and was answered (after 1 attempt).")
    assert world.registered() == (OURS, DEFAULT_EVENTS)
    assert world.sim.registration is not None
    assert world.sim.registration.in_ms_signature


def test_the_second_one_changes_nothing_and_sends_no_test_event(world: World) -> None:
    world.registrar().register()
    mark = world.sim.log.mark()

    outcome = world.registrar().register()

    assert (outcome.result, outcome.test) == ("unchanged", None)
    assert [entry.method for entry in world.sim.log.since(mark).entries] == ["GET", "GET"]


def test_a_test_event_can_be_asked_for_without_a_change(world: World) -> None:
    world.registrar().register(test=False)

    outcome = world.registrar().register(test=True)

    assert outcome.result == "unchanged"
    assert outcome.test is not None
    assert outcome.test.passed


def test_a_foreign_registration_is_left_alone(world: World) -> None:
    world.sim.another_tool_registers(FOREIGN, ["subscription-updated"])

    outcome = world.registrar().register()

    assert outcome.result == "refused"
    assert "https://other.example.com/hook/sig-tool?sig=***&v=***" in outcome.explanation
    assert 'register with "overwrite"' in outcome.explanation
    assert "python -m admin registration --keys" in outcome.explanation
    assert world.registered() == (FOREIGN, ("subscription-updated",))
    assert world.writes() == 0


def test_a_foreign_registration_is_taken_over_when_told_to_and_what_is_lost_is_said(world: World) -> None:
    world.sim.another_tool_registers(FOREIGN, ["test-created", "subscription-updated"])

    outcome = world.registrar().register(overwrite=True)

    assert outcome.result == "updated"
    assert "Nobody receives subscription-updated any more." in outcome.explanation
    assert world.registered() == (OURS, DEFAULT_EVENTS)


def test_someone_who_registers_while_we_do_is_left_alone(world: World) -> None:
    first_look = world.client.registration
    looks = []

    def look() -> Registration | None:
        looks.append(first_look())
        if len(looks) == 1:
            world.sim.another_tool_registers(FOREIGN)
        return looks[-1]

    world.client.registration = look  # type: ignore[method-assign]

    outcome = world.registrar().register()

    assert outcome.result == "refused"
    assert world.registered()[0] == FOREIGN


def test_a_registration_that_is_there_but_cannot_be_read_is_replaced_when_told_to(world: World) -> None:
    world.sim.another_tool_registers(OURS)
    world.sim.faults.add("status", method="GET", path="registration$", times=2, status=404)

    outcome = world.registrar().register(overwrite=True)

    assert outcome.result == "updated"
    assert world.registered() == (OURS, DEFAULT_EVENTS)


def test_a_renewed_key_is_registered_without_overwrite(world: World) -> None:
    world.registrar().register()

    outcome = world.registrar(WEBHOOK_URL=OURS.replace("own-key", "new-key")).register()

    assert outcome.result == "updated"
    assert world.registered()[0].endswith("code=new-key")


def test_our_own_other_events_are_kept_unless_told_otherwise(world: World) -> None:
    world.sim.another_tool_registers(OURS, ["test-created", "subscription-updated"])

    assert world.registrar().register().result == "updated"
    assert world.registered() == (OURS, (*DEFAULT_EVENTS, "subscription-updated"))

    assert world.registrar().register(overwrite=True).result == "updated"
    assert world.registered() == (OURS, DEFAULT_EVENTS)


def test_a_registration_without_the_own_signature_header_gets_it(world: World) -> None:
    world.client.create(Registration(OURS, DEFAULT_EVENTS, signature_in_own_header=False))

    assert world.registrar().register().result == "updated"
    assert world.sim.registration is not None
    assert world.sim.registration.in_ms_signature


def test_events_can_be_chosen_in_any_case_and_once_each(world: World) -> None:
    wanted = ["Referral-Created", "usagerecords-thresholdexceeded", "referral-created"]

    world.registrar().register(events=wanted, test=False)

    assert world.registered()[1] == ("referral-created", "usagerecords-thresholdExceeded")


@pytest.mark.parametrize(
    ("events", "words"),
    [(["referral-craeted"], "did you mean referral-created"), (["zzz"], "it offers"), ([], "at least one")],
)
def test_an_unknown_event_is_refused_by_name(world: World, events: list[str], words: str) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        world.registrar().register(events=events)

    assert caught.value.field == "events"
    assert world.writes() == 0


def test_usual_events_that_an_account_lacks_are_left_out(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    offered = ("referral-created", "referral-updated", "test-created")
    monkeypatch.setattr(world.client, "offered_events", lambda: offered)

    assert world.registrar().register().desired.events == ("test-created", "referral-created", "referral-updated")
    assert world.registrar(WEBHOOK_TAKE_BACK="true").check() is None


@pytest.mark.parametrize(
    "url",
    [
        "http://app.example.com/api/webhook_receiver",
        "ftp://app.example.com/",
        "app.example.com/api",
        "https://",
        "https://[",
        "https://app.example.com:no/",
        "https://user:pass@app.example.com/",
        "https://app.example.com/api#part",
        "https://app.example.com/a b",
        "",
    ],
)
def test_a_bad_address_is_refused_before_any_call(world: World, url: str) -> None:
    with pytest.raises(BadInput, match="accepted: https://") as caught:
        world.registrar().register(url)

    assert caught.value.field == "webhook_url"
    assert world.sim.log.entries == []


def test_a_bad_setting_is_named(world: World) -> None:
    with pytest.raises(SettingsError, match="WEBHOOK_URL must begin with https://"):
        world.registrar(WEBHOOK_URL="http://app.example.com/").register()


def test_a_missing_setting_is_named(world: World) -> None:
    with pytest.raises(SettingsError, match="WEBHOOK_URL is missing"):
        world.registrar(WEBHOOK_URL="").show()


def test_this_machine_may_be_registered_without_https(world: World) -> None:
    assert world.registrar().register("http://localhost:7071/api/webhook_receiver", test=False).result == "created"


# The test event


@pytest.mark.parametrize(
    ("status", "numeric", "seen_from_here", "words"),
    [
        (401, False, "the key is wrong", "Unauthorized (after 3 attempts). Called from here: the key"),
        (401, True, "", "answered 401 (after 3 attempts). Address and key are right, and no refusal"),
        (404, False, "no function answers", "Called from here: no function answers."),
        (503, False, "", "webhook.not_stored"),
        (418, False, "", "look at the app's log"),
    ],
)
def test_a_refused_test_event_is_explained(
    world: World, status: int, numeric: bool, seen_from_here: str, words: str
) -> None:
    world.receiver.status = status
    world.sim.numeric_response_codes = numeric
    world.seen_from_here = seen_from_here

    outcome = world.registrar().register()

    assert outcome.result == "created"
    assert outcome.test is not None
    assert not outcome.test.passed
    assert words in outcome.test.explanation


def test_an_answer_by_number_counts_as_well(world: World) -> None:
    world.sim.numeric_response_codes = True

    outcome = world.registrar().register()

    assert outcome.test is not None
    assert outcome.test.passed


def test_an_unreachable_receiver_is_explained(world: World) -> None:
    outcome = world.registrar().register("http://localhost:1/api/webhook_receiver")

    assert outcome.test is not None
    assert not outcome.test.passed
    assert "Partner Center could not connect, it says: " in outcome.test.explanation


def test_a_test_event_that_never_leaves_is_followed_for_a_minute(world: World) -> None:
    world.sleep = world.clock.advance  # type: ignore[method-assign]  # nothing is delivered

    outcome = world.registrar().register()

    assert outcome.test == TestResult(None, "Partner Center has not called within 60 s. Try again later.")
    assert world.sim.log.count("GET", "validationEvents/") == 60


def test_a_third_test_event_within_a_minute_says_when_to_repeat(world: World) -> None:
    world.registrar().register()
    world.registrar().register(test=True)

    outcome = world.registrar().register(test=True)

    assert outcome.result == "unchanged"
    assert outcome.test is not None
    assert outcome.test.passed is None
    assert "at most two test events a minute" in outcome.test.explanation
    assert world.registrar().show()["actual"], "the registration can be seen meanwhile"
    assert world.sim.log.count("POST", "validationEvents") == 3


def test_a_test_event_that_is_not_yet_to_be_seen_is_waited_for(world: World) -> None:
    world.sim.faults.add("status", path="validationEvents/", times=3, status=404)

    outcome = world.registrar().register()

    assert outcome.test is not None
    assert outcome.test.passed


def test_a_registration_stands_although_its_test_event_fails(world: World) -> None:
    world.sim.faults.add("status", method="POST", path="validationEvents", status=500)

    outcome = world.registrar().register()

    assert outcome.result == "created"
    assert outcome.test is not None
    assert "could not be followed" in outcome.test.explanation


def test_without_the_test_event_none_is_sent(world: World) -> None:
    outcome = world.registrar().register(events=["referral-created"])

    assert outcome.test is not None
    assert "does not include test-created" in outcome.test.explanation
    assert world.sim.log.count("POST", "validationEvents") == 0


# The daily check


def events_logged(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(r.levelname, r.msg) for r in caplog.records if r.name == "shared.registration.registrar"]


def test_the_check_is_silent_when_all_is_well(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.registrar().register(test=False)

    assert world.registrar(WEBHOOK_TAKE_BACK="true").check() is None
    assert events_logged(caplog) == [("INFO", "registration.unchanged")]
    assert world.writes() == 1


@pytest.mark.parametrize(
    ("url", "events", "word"),
    [
        (None, [], "registration.missing"),
        (FOREIGN, ["test-created"], "registration.taken_over"),
        (OURS, ["test-created"], "registration.differs"),
        (OURS.replace("own-key", "new-key"), list(DEFAULT_EVENTS), "registration.differs"),
    ],
)
@pytest.mark.parametrize("take_back", ["false", "true"])
def test_the_check_reports_and_mends_only_if_allowed(
    world: World, caplog: pytest.LogCaptureFixture, url: str | None, events: list[str], word: str, take_back: str
) -> None:
    if url:
        world.sim.another_tool_registers(url, events)

    outcome = world.registrar(WEBHOOK_TAKE_BACK=take_back).check()

    assert ("ERROR", word) in events_logged(caplog)
    if take_back == "true" and not (url and "new-key" in url):  # which of our keys is right, a person knows
        assert outcome is not None
        assert world.registered() == (OURS, DEFAULT_EVENTS)
        assert ("WARNING", "registration.taken_back") in events_logged(caplog)
    else:
        assert outcome is None
        assert world.writes() == 0


def test_the_check_without_an_address_only_says_so(world: World, caplog: pytest.LogCaptureFixture) -> None:
    assert world.registrar(WEBHOOK_URL="").check() is None
    assert events_logged(caplog) == [("WARNING", "registration.not_configured")]
    assert world.sim.log.entries == []


# What people see


def test_show_tells_desired_and_actual(world: World) -> None:
    world.sim.another_tool_registers(FOREIGN)

    shown = world.registrar().show()

    assert shown["desired"] == {
        "webhook_url": "https://app.example.com/api/webhook_receiver?code=***",
        "events": list(DEFAULT_EVENTS),
    }
    assert shown["actual"]["webhook_url"] == "https://other.example.com/hook/sig-tool?sig=***&v=***"
    assert "not this app" in shown["explanation"]


def test_show_tells_that_nothing_is_registered(world: World) -> None:
    shown = world.registrar().show()

    assert shown["actual"] is None
    assert "Nothing is registered" in shown["explanation"]


def test_no_answer_holds_a_key(world: World) -> None:
    world.sim.another_tool_registers(FOREIGN)

    answers: list[Outcome] = [world.registrar().register(), world.registrar().register(overwrite=True)]

    said = str([outcome.as_json() for outcome in answers])
    assert not [secret for secret in SECRETS if secret in said]


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("https://h.example/p?code=k", "https://h.example/p?code=***"),
        ("https://h.example/p?a=1&b=2&a=3", "https://h.example/p?a=***&b=***&a=***"),
        ("https://h.example/p?justakey", "https://h.example/p?***"),
        ("https://h.example/p?code=k&justakey", "https://h.example/p?code=***&***"),
        ("https://h.example/p?c2VjcmV0a2V5==", "https://h.example/p?***"),
        ("https://h.example/p?0123456789abcdef=", "https://h.example/p?***"),
        ("https://u:p@h.example:8443/p#f", "https://h.example:8443/p"),
        ("https://h.example/p", "https://h.example/p"),
        ("https://[", "(not an address)"),
    ],
)
def test_an_address_is_shown_without_its_secrets(url: str, seen: str) -> None:
    assert masked(url) == seen


# The client


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 404},
        {"status": 200, "body": ""},
        {"status": 204},
        {"status": 200, "body": "null"},
        {"status": 200, "body": "{}"},
        {"status": 200, "body": '{"webhookUrl": null}'},
    ],
)
def test_every_way_to_say_none_is_understood(world: World, answer: dict[str, object]) -> None:
    world.sim.faults.add("status", **answer)  # type: ignore[arg-type]

    assert world.client.registration() is None


def test_a_refused_first_registration_is_an_error_and_not_tried_otherwise(world: World) -> None:
    world.sim.faults.add("status", method="POST", status=400, body='{"code": "2000", "description": "bad url"}')

    with pytest.raises(Refused, match="bad url"):
        world.registrar().register()

    assert world.sim.log.count("PUT") == 0


@pytest.mark.parametrize(
    "body",
    [
        '{"WebhookUrl": "https://a.example/", "WebhookEvents": ["test-created"]}',
        '{"webhookUrl": "https://a.example/", "webhookEvents": ["test-created"], "other": 1}',
        '{"WEBHOOKURL": "https://a.example/", "webhookevents": ["test-created"], "subscriberId": "x"}',
    ],
)
def test_a_registration_is_read_in_any_case(world: World, body: str) -> None:
    world.sim.faults.add("status", status=200, body=body)

    assert world.client.registration() == Registration("https://a.example/", ("test-created",), None)


@pytest.mark.parametrize("body", ['{"correlationId": "the-id"}', '{"CorrelationId": "the-id"}', '"the-id"'])
def test_the_id_of_a_test_event_is_read_in_either_form(world: World, body: str) -> None:
    world.sim.faults.add("status", status=200, body=body)

    assert world.client.send_test_event() == "the-id"


def test_a_test_event_without_status_is_no_answer(world: World) -> None:
    world.sim.faults.add("status", status=200, body='{"results": []}')

    with pytest.raises(Unavailable, match="no status"):
        world.client.test_event("x")


def test_a_token_for_another_api_is_explained(world: World) -> None:
    world.token.audience = "https://api.partner.microsoft.com"

    with pytest.raises(SignInFailed, match="PARTNER_CENTER_WEBHOOKS_SCOPE"):
        world.client.registration()


def test_a_sign_in_without_second_factor_is_explained(world: World) -> None:
    world.token.mfa = False

    with pytest.raises(SignInFailed, match="multi-factor"):
        world.client.registration()


def test_a_missing_role_is_explained(world: World) -> None:
    world.sim.partner_tenant_id = "another"

    with pytest.raises(Forbidden) as caught:
        world.client.registration()

    assert "Referrals admin" in caught.value.next_step


# The HTTP trigger


@pytest.fixture
def ask(world: World, monkeypatch: pytest.MonkeyPatch) -> Ask:
    monkeypatch.setattr(blueprint, "registrar", world.registrar)

    def call(method: str, body: str = "") -> tuple[int, dict[str, Any]]:
        request = func.HttpRequest(
            method=method, url="https://app.example.com/api/register_webhook", body=body.encode()
        )
        answer = blueprint.register_webhook(request)
        assert answer.mimetype == "application/json"
        assert answer.headers["x-cosell-correlation-id"]
        return answer.status_code, json.loads(answer.get_body())

    return call


def test_an_empty_post_registers(world: World, ask: Ask) -> None:
    status, answer = ask("POST")

    assert (status, answer["result"], answer["test"]["passed"]) == (200, "created", True)
    assert world.registered() == (OURS, DEFAULT_EVENTS)


def test_every_member_of_the_post_counts(world: World, ask: Ask) -> None:
    world.sim.another_tool_registers(FOREIGN)
    other = "https://app.example.com/api/webhook_receiver?code=new-key"
    wish = {"webhook_url": other, "events": ["referral-created"], "overwrite": True, "test": False}

    status, answer = ask("POST", json.dumps(wish))

    assert (status, answer["result"], answer["test"]) == (200, "updated", None)
    assert world.registered() == (other, ("referral-created",))


def test_a_foreign_registration_is_409(world: World, ask: Ask) -> None:
    world.sim.another_tool_registers(FOREIGN)

    status, answer = ask("POST", '{"overwrite": false}')

    assert (status, answer["result"]) == (409, "refused")
    assert not [secret for secret in SECRETS if secret in json.dumps(answer)]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ("not JSON", "body"),
        ("[]", "body"),
        ('{"overwrit": true}', "overwrit"),
        ('{"overwrite": "yes"}', "overwrite"),
        ('{"events": "referral-created"}', "events"),
        ('{"events": [7]}', "events.0"),
        ('{"events": ["referral-craeted"]}', "events"),
        ('{"webhook_url": "http://app.example.com/"}', "webhook_url"),
        ('{"webhook_url": 7}', "webhook_url"),
    ],
)
def test_bad_input_is_400_and_names_the_field(world: World, ask: Ask, body: str, field: str) -> None:
    status, answer = ask("POST", body)

    assert (status, answer["field"]) == (400, field)
    assert field in answer["error"]
    assert world.writes() == 0


def test_get_shows_and_changes_nothing(world: World, ask: Ask) -> None:
    status, answer = ask("GET")

    assert (status, answer["actual"], answer["desired"]["events"]) == (200, None, list(DEFAULT_EVENTS))
    assert world.writes() == 0


def test_a_failure_of_partner_center_is_502_in_words(world: World, ask: Ask) -> None:
    world.sim.partner_tenant_id = "another"

    status, answer = ask("POST")

    assert status == 502
    assert "Partner Center webhooks answered 403" in answer["error"]
    assert "Referrals admin" in answer["next_step"]
    assert answer["request_id"]


def test_wrong_settings_are_500_with_the_list(ask: Ask, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blueprint, "registrar", lambda: world.registrar(WEBHOOK_URL="ftp://x"))

    status, answer = ask("GET")

    assert status == 500
    assert len(answer["problems"]) == 1
    assert "WEBHOOK_URL" in answer["problems"][0]


def test_the_registrar_is_built_from_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    complete = {
        "AzureWebJobsStorage": "UseDevelopmentStorage=true",
        "WEBHOOK_URL": OURS,
        "PARTNER_CENTER_TENANT_ID": "t",
        "PARTNER_CENTER_CLIENT_ID": "c",
        "PARTNER_CENTER_CLIENT_SECRET": "s",
    }
    monkeypatch.setattr(blueprint.services, "process_services", lambda: Services(complete))
    assert isinstance(blueprint.registrar(), Registrar)

    incomplete = complete | {"PARTNER_CENTER_CLIENT_SECRET": ""}
    monkeypatch.setattr(blueprint.services, "process_services", lambda: Services(incomplete))
    with pytest.raises(SettingsError, match="PARTNER_CENTER_CLIENT_SECRET is missing"):
        blueprint.registrar()


def test_the_timer_checks(world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    parts = Services({})
    parts.captures = Captures(world.index, world.clock.now)  # type: ignore[misc]
    parts.captures.put("old", {}, b"{}", digest="d" * 64)
    world.clock.advance(25 * 3600)
    monkeypatch.setattr(blueprint.services, "process_services", lambda: parts)
    monkeypatch.setattr(blueprint, "registrar", world.registrar)
    world.sim.another_tool_registers(FOREIGN)

    blueprint.check_registration(TimerRequest())

    assert world.index.query(CAPTURED) == [], "what was kept for a day is deleted daily"

    assert ("ERROR", "registration.taken_over") in events_logged(caplog)


# What is remembered


MOVED = "https://new.example.com/api/webhook_receiver?code=own-key"


def failures_of(world: World) -> list[tuple[str, str]]:
    return [(failure.deal, failure.reason) for failure in world.failures.list()]


def journal_of(world: World) -> list[str]:
    return [entry.event for entry in reversed(world.journal.latest())]


def test_a_takeover_is_in_the_journal_once_and_waits_for_a_person_until_it_is_over(world: World) -> None:
    world.registrar().register(test=False)
    world.sim.another_tool_registers(FOREIGN)
    for _ in range(3):
        world.clock.advance(24 * 3600)
        world.registrar().check()

    assert journal_of(world) == ["registration.created", "registration.taken_over"]
    ((deal, reason),) = failures_of(world)
    assert deal == "registration"
    assert "https://other.example.com/hook/sig-tool?sig=***" in reason
    assert world.signs.of("registration").fails

    world.registrar().register(overwrite=True, test=False)

    assert journal_of(world)[-1] == "registration.updated"
    assert failures_of(world) == []
    assert not world.signs.of("registration").fails


def test_a_registration_taken_back_leaves_the_takeover_in_the_journal(world: World) -> None:
    world.registrar().register(test=False)
    world.sim.another_tool_registers(FOREIGN)

    world.registrar(WEBHOOK_TAKE_BACK="true").check()

    assert journal_of(world) == ["registration.created", "registration.taken_over", "registration.updated"]
    assert failures_of(world) == []
    history = world.registrar().show()["history"]
    assert [entry["event"] for entry in history] == list(reversed(journal_of(world)))
    assert "https://other.example.com/hook/sig-tool?sig=***&v=***" in history[0]["before"]


def test_the_slot_is_not_taken_back_for_an_address_that_does_not_answer(world: World) -> None:
    world.registrar().register(OURS.replace("own-key", "new-key"), test=False)
    world.sim.another_tool_registers(FOREIGN)
    world.seen_from_here = "the function key in the address is wrong"

    assert world.registrar(WEBHOOK_TAKE_BACK="true").check() is None

    assert world.registered()[0] == FOREIGN
    ((_, reason),) = failures_of(world)
    assert "It was not taken back, since the function key in the address is wrong" in reason


def test_what_is_taken_back_is_tested(world: World) -> None:
    world.registrar().register(test=False)
    world.sim.another_tool_registers(FOREIGN)
    world.receiver.status = 503

    outcome = world.registrar(WEBHOOK_TAKE_BACK="true").check()

    assert outcome is not None
    assert outcome.test is not None
    assert outcome.test.passed is False
    assert journal_of(world)[-1] == "registration.unreachable"
    assert failures_of(world)


def test_a_registration_made_right_elsewhere_ends_the_failure_at_the_next_check(world: World) -> None:
    world.sim.another_tool_registers(FOREIGN)
    world.registrar().check()
    world.sim.another_tool_registers(OURS, list(DEFAULT_EVENTS))
    world.sim.registration.in_ms_signature = True  # type: ignore[union-attr]
    world.restart()

    world.registrar().check()

    assert failures_of(world) == []


def test_a_new_key_or_address_takes_one_command(world: World) -> None:
    world.registrar().register(test=False)
    world.restart()

    renewed = world.registrar().register(OURS.replace("own-key", "new-key"), test=False)
    moved = world.registrar().register(MOVED, test=False)

    assert (renewed.result, moved.result) == ("updated", "updated")
    assert world.registered()[0] == MOVED
    assert "once this one works, set it to this one" in moved.explanation
    assert "Until now its events went to https://app.example.com/api/webhook_receiver?code=***" in moved.explanation


def test_what_was_registered_last_is_right_even_if_the_setting_is_older(world: World) -> None:
    world.registrar().register(MOVED, test=False)
    world.signs.well("webhook", at_utc=world.clock.now())

    assert world.registrar(WEBHOOK_TAKE_BACK="true").check() is None

    assert world.registered()[0] == MOVED
    assert "WEBHOOK_URL names another address" in world.registrar().show()["explanation"]


def test_a_former_address_of_ours_is_no_takeover(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.registrar().register(test=False)
    world.registrar().register(MOVED, test=False)
    world.sim.another_tool_registers(OURS, list(DEFAULT_EVENTS))  # an older deployment came to life

    world.registrar(WEBHOOK_URL=MOVED).check()

    assert ("ERROR", "registration.differs") in events_logged(caplog)
    assert world.registrar(WEBHOOK_URL=MOVED).register(test=False).result == "updated"


def test_events_that_were_chosen_are_what_should_be_registered_from_then_on(world: World) -> None:
    chosen = ["test-created", "referral-updated", "subscription-updated"]
    world.registrar().register(events=chosen, test=False)
    world.signs.well("webhook", at_utc=world.clock.now())

    assert world.registrar().check() is None
    assert failures_of(world) == []
    world.sim.registration.events.remove("subscription-updated")  # type: ignore[union-attr]
    world.registrar().check()

    assert "subscription-updated are not sent" in failures_of(world)[0][1]


def test_the_events_of_a_receiver_that_is_passed_on_to_are_kept(world: World) -> None:
    world.sim.another_tool_registers(FOREIGN, ["subscription-updated"])
    registrar = world.registrar(relayed_to=[FOREIGN])

    assert registrar.register().result == "refused"
    outcome = registrar.register(overwrite=True, test=False)

    assert set(world.registered()[1]) == {*DEFAULT_EVENTS, "subscription-updated"}
    assert "which goes on getting them" in outcome.explanation
    assert registrar.register(overwrite=True, test=False).result == "unchanged"
    assert registrar.register(events=["referral-updated"], overwrite=True, test=False).result == "updated"
    assert world.registered()[1] == ("referral-updated",)


# The daily test event


def test_when_nothing_has_come_for_a_day_a_test_event_proves_the_way_in(world: World) -> None:
    world.registrar().register(test=False)

    world.registrar().check()
    assert world.sim.log.count("POST", "validationEvents") == 1
    world.signs.well("webhook", "test-created")
    world.clock.advance(3600)
    world.registrar().check()

    assert world.sim.log.count("POST", "validationEvents") == 1
    assert failures_of(world) == []


def test_a_way_in_that_is_broken_is_found_by_the_daily_check(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.registrar().register(test=False)
    world.receiver.status = 401
    world.seen_from_here = "the function key in the address is wrong"

    world.registrar().check()

    assert ("ERROR", "registration.unreachable") in events_logged(caplog)
    ((deal, reason),) = failures_of(world)
    assert deal == "registration"
    assert "Called from here: the function key in the address is wrong" in reason

    world.receiver.status = 200
    world.clock.advance(24 * 3600)
    world.registrar().check()
    assert failures_of(world) == []


def test_a_test_event_that_may_not_be_sent_now_proves_nothing(world: World) -> None:
    world.registrar().register(test=False)
    world.sim.faults.add("status", method="POST", path="validationEvents", status=500)

    world.registrar().check()

    assert failures_of(world) == []


def test_a_check_that_cannot_ask_is_noted(world: World) -> None:
    world.token.mfa = False

    with pytest.raises(SignInFailed):
        world.registrar().check()

    sign = world.signs.of("registration")
    assert sign.fails
    assert "multi-factor" in sign.failed.says  # type: ignore[union-attr]


def test_a_refusal_that_the_receiver_noted_explains_the_test_event(world: World) -> None:
    world.receiver.status = 401
    world.signs.failed("webhook", "an old story")
    world.clock.advance(60)

    world.receiver.before = lambda: world.signs.failed(
        "webhook", "the certificate carries x; WEBHOOK_CERTIFICATE_NAMES: y"
    )

    outcome = world.registrar().register()

    assert outcome.test is not None
    assert "this app refused it: the certificate carries x; WEBHOOK_CERTIFICATE_NAMES: y." in outcome.test.explanation


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("No such host is known. (app.example.com:443)", "could not find the address (DNS)"),
        ("Name or service not known", "could not find the address (DNS)"),
        ("The SSL connection could not be established, see inner exception.", "certificate (TLS)"),
        ("The remote certificate is invalid according to the validation procedure", "certificate (TLS)"),
        ("The request was canceled due to the configured HttpClient.Timeout of 30 seconds elapsing", "(timeout)"),
        ("A task was canceled.", "(timeout)"),
        ("Connection refused", "could not connect"),
        ("something new", "could not reach the address, it says: something new"),
        ("", "could not reach the address, it says: no reason"),
        ("Connection refused: /api/webhook_receiver?code=own-key (x)", "refused: /api/webhook_receiver?*** (x)"),
    ],
)
def test_what_the_sender_says_without_an_answer_is_told_in_plain_words(said: str, words: str) -> None:
    assert words in _no_answer(Attempt("", said, system_error=True))


# What a review found


def test_asking_for_a_test_leaves_the_key_that_was_registered_last(world: World) -> None:
    world.registrar().register(OURS.replace("own-key", "new-key"), test=False)

    outcome = world.registrar().register(test=True)

    assert outcome.result == "unchanged"
    assert "new-key" in world.registered()[0]


def test_a_setting_that_changed_since_is_newer_than_what_was_registered_last(world: World) -> None:
    world.registrar().register(test=False)

    outcome = world.registrar(WEBHOOK_URL=OURS.replace("own-key", "new-key")).register(test=False)

    assert outcome.result == "updated"
    assert "new-key" in world.registered()[0]


def test_an_address_we_died_while_registering_is_ours(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.registrar().register(test=False)

    def died(*_: object, **__: object) -> None:
        raise Unavailable("Table Storage gave no usable answer")

    with monkeypatch.context() as patched:
        patched.setattr(Record, "registered", died)
        outcome = world.registrar().register(MOVED, test=False)
    world.restart()

    assert outcome.result == "updated"
    assert "could not be recorded" in outcome.explanation
    assert world.registered()[0] == MOVED
    world.signs.well("webhook")
    assert world.registrar(WEBHOOK_TAKE_BACK="true").check() is None
    assert world.registered()[0] == MOVED
    assert failures_of(world) == []


def test_a_registration_that_is_not_shown_is_not_replaced_unasked(world: World) -> None:
    world.sim.another_tool_registers(FOREIGN)
    world.sim.faults.add("status", method="GET", path="registration$", times=2, status=404)

    assert world.registrar().register().result == "refused"
    assert world.registered()[0] == FOREIGN


def test_a_broken_way_in_stays_broken_while_it_cannot_be_tested(world: World) -> None:
    world.registrar().register(test=False)
    world.receiver.status = 401
    world.registrar().check()
    world.clock.advance(24 * 3600)
    world.sim.faults.add("status", method="POST", path="validationEvents", status=500)

    world.registrar().check()

    assert world.signs.of("registration").fails
    assert failures_of(world)


def test_the_reason_of_a_second_test_within_the_minute_is_the_same(world: World) -> None:
    world.receiver.status = 401
    world.signs.failed("webhook", "the certificate carries x")
    world.clock.advance(20)

    outcome = world.registrar().register()

    assert outcome.test is not None
    assert "refused it: the certificate carries x" in outcome.test.explanation


def test_an_account_without_referral_events_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.client, "offered_events", lambda: ("test-created", "subscription-updated"))

    outcome = world.registrar().register()
    world.registrar().check()

    assert "enable referral webhooks" in outcome.explanation
    assert "none of referral-created" in failures_of(world)[0][1]


def test_without_a_list_of_events_what_was_registered_is_still_wanted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.registrar().register(test=False)
    world.signs.well("webhook")
    monkeypatch.setattr(world.client, "offered_events", lambda: ())

    assert world.registrar(WEBHOOK_TAKE_BACK="true").check() is None
    assert failures_of(world) == []


def test_registering_again_does_not_hide_that_nothing_gets_through(world: World) -> None:
    world.registrar().register(test=False)
    world.receiver.status = 401
    world.registrar().check()

    still = world.registrar().register()
    assert still.result == "unchanged"
    assert still.test is not None
    assert still.test.passed is False
    assert failures_of(world)

    world.receiver.status = 200
    world.clock.advance(60)
    assert world.registrar().register().test == TestResult(
        True, "Partner Center called this app and was answered (after 1 attempt)."
    )
    assert failures_of(world) == []


def test_a_first_registration_whose_test_fails_is_reported(world: World) -> None:
    world.receiver.status = 401

    world.registrar().register()

    assert world.signs.of("registration").fails
    assert failures_of(world)

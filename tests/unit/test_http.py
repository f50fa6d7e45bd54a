"""How a remote is called: retries, pauses, tokens, and what each answer or silence turns into."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from local.simulators.base import (
    Caller,
    Clock,
    HttpsServer,
    InProcessAdapter,
    Refused,
    Request,
    Response,
    Simulator,
    json_response,
)
from shared import errors
from shared.remote.dialect import Dialect, Meaning, any_error
from shared.remote.http import ATTEMPTS, Pause, Remote, json_text

START = datetime(2026, 5, 1, tzinfo=UTC)
BASE = "https://api.example/v1"


class Things(Simulator):
    """A minimal API that counts what it executed and refuses the tokens it is told to refuse."""

    name = "things"

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.executed = 0
        self.refused_tokens: set[str] = set()
        self.route("/v1/things", GET=self.answer, POST=self.answer, PATCH=self.answer)
        self.route("/v1/empty", GET=lambda _: Response(204), POST=lambda _: Response(201))

    def answer(self, request: Request) -> Response:
        self.executed += 1
        return json_response(200, {"executed": self.executed})

    def identify(self, request: Request) -> Caller | None:
        if request.headers.get("Authorization", "").removeprefix("Bearer ") in self.refused_tokens:
            raise Refused(json_response(401, {"error": {"code": "unauthenticated", "message": "expired"}}))
        return None


class Tokens:
    """Gives token-1; after one was refused the next number."""

    def __init__(self) -> None:
        self.given = 1

    def token(self, *, refused: str = "") -> str:
        self.given += bool(refused)
        return f"token-{self.given}"


class Bench:
    """A remote in front of the simulated API; sleeping moves the clock."""

    def __init__(self, dialect: Dialect | None = None, **options: Any) -> None:
        self.clock = Clock(frozen_at=START)
        self.api = Things(self.clock)
        self.tokens = Tokens()
        self.slept: list[float] = []
        session = requests.Session()
        session.mount("https://api.example", InProcessAdapter(self.api))
        self.remote = Remote(
            "Things",
            BASE,
            self.tokens,
            dialect=dialect,
            session=session,
            clock=self.clock.now,
            sleep=self.sleep,
            **options,
        )

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock.advance(seconds)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_an_answer_has_exact_numbers(bench: Bench) -> None:
    bench.api.faults.add("status", status=200, body='{"value": 0.1000000000000000055}')

    answer = bench.remote.json("GET", "things")

    assert answer == {"value": Decimal("0.1000000000000000055")}


def test_a_body_is_sent_with_exact_numbers(bench: Bench) -> None:
    bench.remote.request("POST", "things", json={"value": Decimal("12345678901234567890.10"), "name": "Größe ✓"})

    assert b'"value":12345678901234567890.10' in bench.api.log.entries[0].request_body
    assert json.loads(bench.api.log.entries[0].request_body)["name"] == "Größe ✓"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.decimals(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values)
def test_what_is_written_reads_back_the_same(value: Any) -> None:
    def numeric(item: Any) -> Any:
        return Decimal(item) if isinstance(item, int) and not isinstance(item, bool) else item

    read = json.loads(json_text(value), parse_float=Decimal)

    assert _mapped(read, numeric) == _mapped(value, numeric)


def _mapped(value: Any, change: Any) -> Any:
    if isinstance(value, dict):
        return {key: _mapped(item, change) for key, item in value.items()}
    return [_mapped(item, change) for item in value] if isinstance(value, list) else change(value)


@pytest.mark.parametrize("value", [Decimal("NaN"), Decimal("Infinity"), float("nan")])
def test_what_json_cannot_say_is_not_sent(value: Any) -> None:
    with pytest.raises(ValueError):
        json_text({"value": value})


@pytest.mark.parametrize("status", [408, 502, 503, 504])
@pytest.mark.parametrize("method", ["GET", "PATCH"])
def test_a_passing_failure_is_tried_again_within_the_call(bench: Bench, method: str, status: int) -> None:
    bench.api.faults.add("status", status=status, times=ATTEMPTS - 1)

    answer = bench.remote.json(method, "things")

    assert answer == {"executed": 1}
    assert len(bench.slept) == ATTEMPTS - 1
    assert sum(bench.slept) <= 10


@pytest.mark.parametrize(("method", "requests_sent"), [("GET", ATTEMPTS), ("PATCH", 1)])
def test_a_500_is_tried_again_only_for_reads(bench: Bench, method: str, requests_sent: int) -> None:
    bench.api.faults.add("status", status=500, times=9)

    with pytest.raises(errors.Unavailable) as raised:
        bench.remote.request(method, "things")

    assert raised.value.status == 500
    assert bench.api.log.count() == requests_sent


@pytest.mark.parametrize("kind", ["drop_before", "drop_after"])
def test_a_broken_connection_is_tried_again_and_then_unavailable(bench: Bench, kind: str) -> None:
    bench.api.faults.add(kind, times=9)

    with pytest.raises(errors.Unavailable, match="Things gave no answer to GET /v1/things") as raised:
        bench.remote.request("GET", "things")

    assert raised.value.status is None
    assert bench.api.log.count() == ATTEMPTS


def test_a_create_is_sent_once_and_its_silence_is_an_unknown_outcome(bench: Bench) -> None:
    bench.api.faults.add("drop_after")

    with pytest.raises(errors.OutcomeUnknown):
        bench.remote.request("POST", "things", json={}, create=True)

    assert bench.api.executed == 1
    assert bench.api.log.count() == 1


def test_a_create_that_is_answered_too_late_is_an_unknown_outcome(bench: Bench) -> None:
    bench.api.faults.add("delay", seconds=60)

    with pytest.raises(errors.OutcomeUnknown, match="ReadTimeout"):
        bench.remote.request("POST", "things", json={}, create=True)


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504])
def test_a_create_that_fails_at_the_server_is_an_unknown_outcome(bench: Bench, status: int) -> None:
    bench.api.faults.add("status", status=status, executed=True)

    with pytest.raises(errors.OutcomeUnknown) as raised:
        bench.remote.request("POST", "things", json={}, create=True)

    assert raised.value.status == status
    assert bench.api.log.count() == 1


@pytest.mark.parametrize("options", [{"body": "<html>"}, {"body": "{"}])
def test_a_create_answered_with_garbage_is_an_unknown_outcome(bench: Bench, options: dict[str, Any]) -> None:
    bench.api.faults.add("garbage", executed=True, **options)

    with pytest.raises(errors.OutcomeUnknown, match="not JSON"):
        bench.remote.request("POST", "things", json={}, create=True)


def test_a_create_answered_without_a_body_is_an_unknown_outcome(bench: Bench) -> None:
    with pytest.raises(errors.OutcomeUnknown, match="without a body"):
        bench.remote.json("POST", "empty", create=True)


@pytest.mark.parametrize("status", [429, 503])
def test_a_create_that_is_told_to_wait_was_not_executed(bench: Bench, status: int) -> None:
    bench.api.faults.add("status", status=status, headers={"Retry-After": "1"})

    with pytest.raises(errors.Throttled) as raised:
        bench.remote.request("POST", "things", json={}, create=True)

    assert raised.value.retry_after_s == 1
    assert bench.slept == []


def test_a_create_that_never_left_the_machine_is_just_unavailable() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    remote = Remote("Things", f"https://127.0.0.1:{port}", None)

    with pytest.raises(errors.Unavailable, match="refused"):
        remote.request("POST", "things", json={}, create=True)


def test_a_create_to_a_host_without_an_address_is_just_unavailable() -> None:
    remote = Remote("Things", "https://nowhere.invalid", None)

    with pytest.raises(errors.Unavailable):
        remote.request("POST", "things", json={}, create=True)


@pytest.fixture
def https_things() -> Iterator[HttpsServer]:
    with HttpsServer(Things(Clock(frozen_at=START))) as server:
        yield server


def test_a_create_to_a_host_we_do_not_trust_is_just_unavailable(https_things: HttpsServer) -> None:
    remote = Remote("Things", f"{https_things.url}/v1", None)

    with pytest.raises(errors.Unavailable, match=r"(?i)certificate verify failed"):
        remote.request("POST", "things", json={}, create=True)


def test_a_create_on_a_connection_that_breaks_is_an_unknown_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    things = Things(Clock(frozen_at=START))
    things.faults.add("drop_after")
    with HttpsServer(things) as server:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(server.ca_file))

        with pytest.raises(errors.OutcomeUnknown):
            Remote("Things", f"{server.url}/v1", None).request("POST", "things", json={}, create=True)

    assert things.executed == 1


def test_a_certificate_bundle_from_the_environment_is_trusted(
    https_things: HttpsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(https_things.ca_file))

    answer = Remote("Things", f"{https_things.url}/v1", None).json("GET", "things")

    assert answer == {"executed": 1}


@pytest.mark.parametrize(
    "body", [b"<html>", b'{"value": NaN}', b"[-Infinity]", '{"value": "Straße"}'.encode("latin-1")]
)
def test_garbage_instead_of_json_is_unavailable(bench: Bench, body: bytes) -> None:
    bench.api.faults.add("garbage", body=body)

    with pytest.raises(errors.Unavailable, match="GET /v1/things with something that is not JSON"):
        bench.remote.request("GET", "things")


def test_an_empty_answer_is_an_answer_but_not_json(bench: Bench) -> None:
    assert bench.remote.request("GET", "empty").status_code == 204

    with pytest.raises(errors.Unavailable, match="without a body"):
        bench.remote.json("GET", "empty")


def test_a_redirect_is_not_followed(bench: Bench) -> None:
    bench.api.faults.add("status", status=302, headers={"Location": "https://evil.example/"})

    with pytest.raises(errors.Unavailable, match="redirects: check the address in the settings"):
        bench.remote.request("GET", "things")

    assert bench.api.log.count() == 1


STATUSES = [
    (400, errors.Refused),
    (403, errors.Forbidden),
    (404, errors.NotFound),
    (405, errors.Refused),
    (409, errors.Refused),
    (410, errors.NotFound),
    (412, errors.VersionConflict),
    (413, errors.Refused),
    (422, errors.Refused),
    (423, errors.Unavailable),
    (501, errors.Unavailable),
    (509, errors.Unavailable),
]


@pytest.mark.parametrize(("status", "error"), STATUSES)
@pytest.mark.parametrize("body", ["", "<html>", "[]", '"x"', {"error": {"code": "c", "message": "words"}}])
def test_each_status_has_one_meaning_whatever_the_body(bench: Bench, status: int, error: type, body: Any) -> None:
    bench.api.faults.add("status", status=status, body=body)

    with pytest.raises(errors.RemoteError) as raised:
        bench.remote.request("PATCH", "things", json={})

    assert type(raised.value) is error
    assert (raised.value.remote, raised.value.status) == ("Things", status)
    assert str(raised.value).startswith(f"Things answered {status} to PATCH /v1/things")
    assert raised.value.request_id == bench.api.log.entries[-1].request_headers["x-ms-client-request-id"]


BODIES = [
    ({"error": {"code": "a", "message": "m", "target": "t"}}, ("a", "m", "t")),
    (
        {"error": {"code": "a", "message": "m", "innerError": {"code": "b", "innererror": {"message": "n"}}}},
        ("b", "n", ""),
    ),
    ({"code": "2032", "description": "Access denied", "data": []}, ("2032", "Access denied", "")),
    ({"statusCode": 429, "message": "Rate limit is exceeded."}, ("429", "Rate limit is exceeded.", "")),
    ({"Message": "m", "ExceptionMessage": "e", "ErrorCode": "0x1"}, ("0x1", "m", "")),
    ({"error": "invalid_grant", "error_description": "d"}, ("invalid_grant", "d", "")),
    ([{"message": "a list"}], ("", "", "")),
    (None, ("", "", "")),
]


@pytest.mark.parametrize(("body", "expected"), BODIES)
def test_the_usual_error_bodies_are_understood(body: Any, expected: tuple[str, str, str]) -> None:
    said = any_error(body)

    assert (said.code, said.message, said.field) == expected


def test_a_short_pause_is_waited_for_within_the_call(bench: Bench) -> None:
    bench.api.faults.add("throttle", retry_after_s=2)

    answer = bench.remote.json("PATCH", "things")

    assert answer == {"executed": 1}
    assert bench.slept == [2]


def test_an_answer_may_ask_for_a_pause_although_all_went_well() -> None:
    bench = Bench(pause_after=lambda _: Pause(60, "the rest is for others"))

    answer = bench.remote.json("GET", "things")
    with pytest.raises(errors.Throttled, match="not called for another 60 s: the rest is for others") as raised:
        bench.remote.json("GET", "things")

    assert answer == {"executed": 1}
    assert raised.value.retry_after_s == 60


def test_a_code_that_passes_is_tried_again_in_a_moment_whatever_its_status() -> None:
    bench = Bench(Dialect(codes={"locked": Meaning(errors.Unavailable)}, passing=frozenset({"locked"})))
    bench.api.faults.add("status", status=400, body={"error": {"code": "Locked"}}, times=2)

    assert bench.remote.json("PATCH", "things") == {"executed": 1}


def test_a_code_may_mean_another_thing_with_another_status() -> None:
    gone, bad = Meaning(errors.NotFound), Meaning(errors.Refused, "choose another one")
    bench = Bench(Dialect(codes={"unknown_id:404": gone, "unknown_id": bad}))
    for status in (404, 400):
        bench.api.faults.add("status", status=status, body={"error": {"code": "Unknown_Id"}})

    with pytest.raises(errors.NotFound):
        bench.remote.request("GET", "things")
    with pytest.raises(errors.Refused):
        bench.remote.request("GET", "things")


def test_a_meaning_may_say_how_long_to_wait_where_the_answer_does_not() -> None:
    bench = Bench(Dialect(codes={"full": Meaning(errors.Throttled, pause_s=900)}))
    bench.api.faults.add("status", status=403, body={"error": {"code": "full"}})

    with pytest.raises(errors.Throttled) as raised:
        bench.remote.request("GET", "things")

    assert raised.value.retry_after_s == 900


def test_a_failure_within_an_answer_is_a_failure() -> None:
    def failed_part(_: requests.Response) -> requests.Response:
        part = requests.Response()
        part.status_code, part._content = 412, b'{"error": {"code": "stale", "message": "it moved"}}'
        return part

    bench = Bench(Dialect(failure_within=failed_part))

    with pytest.raises(errors.VersionConflict, match="it moved"):
        bench.remote.request("PATCH", "things")


def test_a_long_pause_is_left_to_the_caller_and_kept_by_everyone_in_the_process(bench: Bench) -> None:
    bench.api.faults.add("throttle", retry_after_s=120)

    with pytest.raises(errors.Throttled) as first:
        bench.remote.request("GET", "things")
    bench.clock.advance(30)
    with pytest.raises(errors.Throttled, match="asked for a pause") as second:
        bench.remote.request("GET", "things")
    bench.clock.advance(90)
    answer = bench.remote.json("GET", "things")

    assert (first.value.retry_after_s, second.value.retry_after_s) == (120, 90)
    assert answer == {"executed": 1}
    assert bench.api.log.count() == 2


def test_a_pause_of_one_remote_does_not_stop_another(bench: Bench) -> None:
    other = Bench()
    bench.api.faults.add("throttle", retry_after_s=120)

    with pytest.raises(errors.Throttled):
        bench.remote.request("GET", "things")

    assert other.remote.json("GET", "things") == {"executed": 1}


def test_a_remote_that_names_no_pause_is_left_alone_for_a_moment(bench: Bench) -> None:
    bench.api.faults.add("throttle")

    with pytest.raises(errors.Throttled) as first:
        bench.remote.request("GET", "things")
    with pytest.raises(errors.Throttled):
        bench.remote.request("GET", "things")
    bench.clock.advance(10)

    assert first.value.retry_after_s is None
    assert bench.remote.json("GET", "things") == {"executed": 1}


PAUSES = [
    ("7", 7.0),
    ("999999", 3600.0),
    (format_datetime(START + timedelta(minutes=5), usegmt=True), 300.0),
    (format_datetime(START - timedelta(minutes=5), usegmt=True), 0.0),
    ("Mon, 01 Jan 2096 00:00:00 GMT", 3600.0),
    ("soon", None),
    ("-5", None),
    ("", None),
]


@pytest.mark.parametrize(("header", "seconds"), PAUSES)
def test_a_pause_may_be_seconds_or_a_date_and_is_at_most_an_hour(
    bench: Bench, header: str, seconds: float | None
) -> None:
    bench.api.faults.add("status", status=429, headers={"Retry-After": header})

    with pytest.raises(errors.Throttled) as raised:
        bench.remote.request("POST", "things", create=True)

    assert raised.value.retry_after_s == seconds


@pytest.mark.parametrize("create", [False, True])
def test_a_refused_token_is_replaced_once(bench: Bench, create: bool) -> None:
    bench.api.refused_tokens = {"token-1"}

    answer = bench.remote.json("POST", "things", json={}, create=create)

    assert answer == {"executed": 1}
    assert bench.tokens.given == 2


def test_a_second_refused_token_means_that_signing_in_failed(bench: Bench) -> None:
    bench.api.refused_tokens = {"token-1", "token-2"}

    with pytest.raises(errors.SignInFailed, match="expired") as raised:
        bench.remote.request("GET", "things")

    assert raised.value.retry_after_s == 300
    assert bench.api.log.count() == 2


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/v1/things",
        "http://api.example/v1/things",
        "https://api.example:8443/v1/things",
        "https://api.example@evil.example/v1/things",
    ],
)
def test_the_token_goes_to_no_other_address(bench: Bench, url: str) -> None:
    with pytest.raises(errors.Refused, match=r"the token is for api\.example only"):
        bench.remote.request("GET", url)

    assert bench.api.log.count() == 0


def test_an_absolute_address_on_the_same_host_is_called_as_it_is(bench: Bench) -> None:
    bench.remote.request("GET", f"{BASE}/things?$skiptoken=a%2Fb%3D")

    assert bench.api.log.entries[0].query == "$skiptoken=a%2Fb%3D"


def test_credentials_of_a_netrc_file_are_not_added(
    bench: Bench, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine api.example login someone password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))

    bench.remote.request("GET", "things")

    assert bench.api.log.entries[0].request_headers["Authorization"] == "Bearer token-1"


def test_the_request_id_is_new_for_each_call_and_the_same_for_its_retries() -> None:
    bench = Bench(Dialect(request_id_header="client-request-id", headers={"X-Fixed": "1"}))
    bench.api.faults.add("status", status=503)

    bench.remote.request("GET", "things")
    bench.remote.request("GET", "things")

    first, again, second = [entry.request_headers for entry in bench.api.log.entries]
    assert first["client-request-id"] == again["client-request-id"] != second["client-request-id"]
    assert first["X-Fixed"] == "1"


def test_neither_logs_nor_errors_hold_queries_bodies_or_tokens(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    bench.api.faults.add("drop_before", times=ATTEMPTS)

    with pytest.raises(errors.Unavailable) as raised:
        bench.remote.request("PATCH", "things", params={"$filter": "name eq 'Zebra'"}, json={"name": "Zebra"})

    logged = " ".join(str(record.__dict__) for record in caplog.records if record.name.startswith("shared"))
    assert "remote.called" in logged
    assert "/v1/things" in logged
    assert raised.value.__cause__ is None
    for text in (logged, str(raised.value)):
        assert "Zebra" not in text
        assert "token-1" not in text


def test_a_form_is_sent_as_a_form(bench: Bench) -> None:
    bench.remote.request("POST", "things", data={"a": "1 2", "b": "&"})

    sent = bench.api.log.entries[0]
    assert sent.request_body == b"a=1+2&b=%26"
    assert sent.request_headers["Content-Type"] == "application/x-www-form-urlencoded"

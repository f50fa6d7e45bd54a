"""What every simulator can do, shown on a tiny one: in process and over HTTPS alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
import requests

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
    text_response,
)


class Weather(Simulator):
    name = "weather"

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__(clock)
        self.visits = 0
        self.route("/v1/cities/<city>", GET=self.city, POST=self.city)
        self.route("/v1/tables(<path:key>)", GET=self.city_by_key)

    def identify(self, request: Request) -> Caller | None:
        user = request.headers.get("X-User")
        if user == "mallory":
            raise Refused(text_response(401, "not you"))
        return Caller("weather-app", user) if user else None

    def city(self, request: Request, city: str) -> Response:
        self.visits += 1
        return json_response(
            200,
            {
                "city": city,
                "query": request.query.to_dict(),
                "body": request.body.decode(),
                "base_url": request.base_url,
                "raw_path": request.raw_path,
            },
        )

    def city_by_key(self, request: Request, key: str) -> Response:
        return self.city(request, key)

    def throttled(self, request: Request) -> Response:
        return json_response(429, {"slow": "down"})


@pytest.fixture
def weather() -> Weather:
    return Weather(Clock(frozen_at=datetime(2026, 1, 2, tzinfo=UTC)))


@pytest.fixture(params=["in process", "https"])
def call(request: pytest.FixtureRequest, weather: Weather) -> Iterator[Callable[..., requests.Response]]:
    """Calls the simulator as a client would, by either road."""
    with requests.Session() as session:
        session.trust_env = False
        if request.param == "in process":
            session.mount("https://weather.example", InProcessAdapter(weather))
            yield lambda method, path, **options: session.request(method, f"https://weather.example{path}", **options)
        else:
            with HttpsServer(weather) as server:
                session.verify = str(server.ca_file)
                yield lambda method, path, **options: session.request(method, server.url + path, **options)


def test_a_request_arrives_with_path_query_and_body_decoded(call: Callable[..., requests.Response]) -> None:
    answer = call("POST", "/v1/cities/Köln", params={"$filter": "a eq 'x+y z'"}, data="Grüße".encode())

    assert answer.status_code == 200
    assert answer.json()["city"] == "Köln"
    assert answer.json()["query"] == {"$filter": "a eq 'x+y z'"}
    assert answer.json()["body"] == "Grüße"


def test_a_body_in_chunks_arrives_whole(call: Callable[..., requests.Response]) -> None:
    answer = call("POST", "/v1/cities/Bonn", data=iter([b"one,", b"two"]))

    assert answer.json()["body"] == "one,two"


def test_the_address_is_the_one_the_client_used(call: Callable[..., requests.Response]) -> None:
    answer = call("GET", "/v1/cities/Bonn")

    assert answer.url == answer.json()["base_url"] + "/v1/cities/Bonn"


def test_an_encoded_slash_stays_visible_in_the_raw_path(call: Callable[..., requests.Response]) -> None:
    answer = call("GET", "/v1/tables(name='a%2Fb')")

    assert "%2F" in answer.json()["raw_path"]


def test_unknown_paths_and_methods_are_refused(call: Callable[..., requests.Response]) -> None:
    assert call("GET", "/v1/nothing").status_code == 404
    assert call("DELETE", "/v1/cities/Bonn").status_code == 405


def test_each_api_call_is_logged_with_who_asked_and_what_was_answered(
    call: Callable[..., requests.Response], weather: Weather
) -> None:
    call("GET", "/v1/cities/Bonn?a=1", headers={"X-User": "ann"})
    call("POST", "/v1/cities/Bonn", data=b"hi")
    call("GET", "/v1/cities/Bonn", headers={"X-User": "mallory"})

    first, second, third = weather.log.entries
    assert (first.method, first.path, first.query) == ("GET", "/v1/cities/Bonn", "a=1")
    assert (first.status, first.caller, first.system) == (200, "weather-app", "weather")
    assert first.at == datetime(2026, 1, 2, tzinfo=UTC)
    assert second.request_body == b"hi"
    assert b"Bonn" in second.response_body
    assert (third.status, third.caller) == (401, None)


def test_the_log_counts_by_method_path_and_caller_from_a_mark_on(
    call: Callable[..., requests.Response], weather: Weather
) -> None:
    call("GET", "/v1/cities/Bonn", headers={"X-User": "ann"})
    mark = weather.log.mark()

    call("GET", "/v1/cities/Rome", headers={"X-User": "ann"})
    call("POST", "/v1/cities/Rome")

    assert weather.log.count() == 3
    assert weather.log.count("GET") == 2
    assert weather.log.count(path_regex="/Rome$", caller="weather-app") == 1
    assert weather.log.since(mark).count() == 2


def test_control_calls_are_neither_logged_nor_hit_by_faults(
    call: Callable[..., requests.Response], weather: Weather
) -> None:
    weather.faults.add("status", status=500)

    assert call("GET", "/_state").status_code == 200
    assert call("GET", "/_log").json() == []

    assert weather.log.count() == 0
    assert len(weather.faults.waiting) == 1


def test_a_status_fault_answers_instead_of_executing_once(
    call: Callable[..., requests.Response], weather: Weather
) -> None:
    weather.faults.add("status", status=503, body={"oh": "no"}, headers={"Retry-After": "9"})

    refused, served = call("GET", "/v1/cities/Bonn"), call("GET", "/v1/cities/Bonn")

    assert (refused.status_code, refused.json(), refused.headers["Retry-After"]) == (503, {"oh": "no"}, "9")
    assert (served.status_code, weather.visits) == (200, 1)


def test_a_status_fault_can_hide_that_the_work_was_done(
    call: Callable[..., requests.Response], weather: Weather
) -> None:
    weather.faults.add("status", status=504, executed=True)

    answer = call("POST", "/v1/cities/Bonn")

    assert (answer.status_code, weather.visits) == (504, 1)


@pytest.mark.parametrize(("options", "header"), [({"retry_after_s": 7}, "7"), ({}, None)])
def test_a_throttle_fault_speaks_in_the_systems_own_words(
    call: Callable[..., requests.Response], weather: Weather, options: dict[str, int], header: str | None
) -> None:
    weather.faults.add("throttle", **options)

    answer = call("GET", "/v1/cities/Bonn")

    assert (answer.status_code, answer.json()) == (429, {"slow": "down"})
    assert answer.headers.get("Retry-After") == header


def test_a_garbage_fault_answers_200_with_something_that_is_not_json(
    call: Callable[..., requests.Response], weather: Weather
) -> None:
    weather.faults.add("garbage")

    answer = call("GET", "/v1/cities/Bonn")

    assert answer.status_code == 200
    with pytest.raises(requests.JSONDecodeError):
        answer.json()


@pytest.mark.parametrize(("kind", "visits", "logged"), [("drop_before", 0, None), ("drop_after", 1, 200)])
def test_a_dropped_connection_is_an_error_whether_or_not_the_work_was_done(
    call: Callable[..., requests.Response], weather: Weather, kind: str, visits: int, logged: int | None
) -> None:
    weather.faults.add(kind, method="POST")

    with pytest.raises(requests.ConnectionError):
        call("POST", "/v1/cities/Bonn")

    assert weather.visits == visits
    assert (weather.log.entries[0].status, weather.log.entries[0].fault) == (logged, kind)
    assert call("GET", "/v1/cities/Bonn").status_code == 200


def test_an_answer_delayed_beyond_the_callers_patience_is_a_timeout_after_the_work_was_done(
    call: Callable[..., requests.Response], weather: Weather
) -> None:
    weather.faults.add("delay", seconds=0.3)

    with pytest.raises(requests.ReadTimeout):
        call("POST", "/v1/cities/Bonn", timeout=(5, 0.1))

    assert weather.visits == 1


def test_faults_are_used_up_in_order_by_the_requests_they_match(
    call: Callable[..., requests.Response], weather: Weather
) -> None:
    weather.faults.add("status", status=500, method="POST")
    weather.faults.add("status", status=501, path="Rome", times=2)
    weather.faults.add("status", status=502, caller="weather-app")

    statuses = [
        call("GET", "/v1/cities/Bonn").status_code,
        call("GET", "/v1/cities/Rome").status_code,
        call("POST", "/v1/cities/Rome").status_code,
        call("GET", "/v1/cities/Rome").status_code,
        call("GET", "/v1/cities/Bonn", headers={"X-User": "ann"}).status_code,
        call("GET", "/v1/cities/Rome").status_code,
    ]

    assert statuses == [200, 501, 500, 501, 502, 200]


def test_a_fault_that_does_not_exist_is_refused_with_what_is_accepted(weather: Weather) -> None:
    with pytest.raises(ValueError, match="accepted: status, garbage"):
        weather.faults.add("explode")
    with pytest.raises(ValueError, match="retry_after_s"):
        weather.faults.add("throttle", retry_after=5)


def test_another_process_controls_clock_faults_and_log_by_http(
    call: Callable[..., requests.Response], weather: Weather
) -> None:
    assert call("POST", "/_clock", json={"advance": 90}).json() == {"now": "2026-01-02T00:01:30+00:00"}
    assert call("POST", "/_clock", json={"set": "2026-03-01T00:00:00Z"}).json() == {"now": "2026-03-01T00:00:00+00:00"}
    assert call("POST", "/_faults", json={"kind": "status", "status": 418}).status_code == 200
    assert call("POST", "/_faults", json={"kind": "explode"}).status_code == 400
    assert call("GET", "/v1/cities/Bonn").status_code == 418
    assert [entry["status"] for entry in call("GET", "/_log").json()] == [418]

    call("DELETE", "/_log")

    assert weather.log.count() == 0


def test_a_running_clock_goes_on_from_where_it_is_put() -> None:
    clock = Clock()

    clock.advance(3600)
    assert timedelta(minutes=59) < clock.now() - datetime.now(UTC) < timedelta(minutes=61)

    clock.set(datetime(2030, 1, 1, tzinfo=UTC))
    assert datetime(2030, 1, 1, tzinfo=UTC) <= clock.now() < datetime(2030, 1, 1, 0, 1, tzinfo=UTC)


def test_a_mistake_in_a_simulator_is_not_mistaken_for_an_answer(weather: Weather) -> None:
    def broken(_: Request) -> Response:
        raise ZeroDivisionError

    weather.route("/v1/broken", GET=broken)
    session = requests.Session()
    session.mount("https://weather.example", InProcessAdapter(weather))

    with pytest.raises(ZeroDivisionError):
        session.get("https://weather.example/v1/broken")


def test_https_is_refused_without_the_throw_away_root(weather: Weather) -> None:
    with HttpsServer(weather) as server, requests.Session() as session:
        session.trust_env = False

        with pytest.raises(requests.exceptions.SSLError):
            session.get(f"{server.url}/v1/cities/Bonn")


def test_answers_over_one_https_connection_do_not_wait_for_each_other(weather: Weather) -> None:
    with HttpsServer(weather) as server, requests.Session() as session:
        session.trust_env, session.verify = False, str(server.ca_file)
        session.get(f"{server.url}/v1/cities/Bonn")

        times_s = [session.get(f"{server.url}/v1/cities/Bonn").elapsed.total_seconds() for _ in range(50)]

    assert sorted(times_s)[25] < 0.03  # 40 ms would be the delayed acknowledgement that TCP_NODELAY avoids

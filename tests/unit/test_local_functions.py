"""How the local host turns an app into functions, and what it refuses."""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING, Any

import azure.functions as func
import pytest
from azure.functions.meta import Datum

from local.host.configuration import ConfigurationError
from local.host.functions import Function, InvocationFailed, index
from local.host.web import Request, Route, Site

if TYPE_CHECKING:
    from collections.abc import Callable

BODY = Datum(b"body", "bytes")


class Written:
    """Records what is written to queues."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.error: Exception | None = None

    def __call__(self, binding: typing.Mapping[str, Any], messages: list[bytes]) -> None:
        if self.error:
            raise self.error
        self.messages += messages


def queue_function(value: Any, written: Written, fails: bool = False) -> Function:
    app = func.FunctionApp()

    @app.queue_trigger(arg_name="msg", queue_name="in", connection="S")
    @app.queue_output(arg_name="out", queue_name="out", connection="S")
    def work(msg: func.QueueMessage, out: func.Out[Any]) -> None:
        if value is not None:
            out.set(value)
        if fails:
            raise RuntimeError("after set")

    (function,) = index(app.get_functions(), {}, ".", written)
    return function


def http_function(route: str, methods: list[str] | None = None, name: str = "f") -> Function:
    app = func.FunctionApp()

    @app.function_name(name)
    @app.route(route=route, methods=methods, auth_level="anonymous")
    def answer(req: func.HttpRequest) -> str:
        return f"{name} {dict(req.route_params)}"

    (function,) = index(app.get_functions(), {}, ".", lambda *_: None)
    return function


def get(functions: list[Function], path: str) -> tuple[int, str]:
    site = Site(functions, route_prefix="api", function_key="k", run_now={})
    answer = site.answer(Request("GET", path, {}, {}, b"", f"http://localhost{path}"))
    return answer.status, answer.body.decode()


@pytest.mark.parametrize(
    ("value", "messages"),
    [
        (None, []),
        ("text", [b"text"]),
        (b"\x00\xff", [b"\x00\xff"]),
        (["one", "two"], [b"one", b"two"]),
        (func.QueueMessage(body="body"), [b"body"]),
        ([func.QueueMessage(body="body")], [b"body"]),
    ],
)
def test_each_kind_of_output_value_becomes_its_messages(value: Any, messages: list[bytes]) -> None:
    written = Written()

    queue_function(value, written).invoke(BODY, {})

    assert written.messages == messages


def test_a_failed_handler_writes_no_output() -> None:
    written = Written()

    with pytest.raises(InvocationFailed):
        queue_function("text", written, fails=True).invoke(BODY, {})

    assert written.messages == []


def test_an_output_that_cannot_be_written_fails_the_invocation() -> None:
    written = Written()
    written.error = OSError("storage is away")

    with pytest.raises(InvocationFailed):
        queue_function("text", written).invoke(BODY, {})


def test_a_return_value_without_an_output_binding_fails_the_invocation(caplog: pytest.LogCaptureFixture) -> None:
    app = func.FunctionApp()

    @app.timer_trigger(arg_name="timer", schedule="* * * * *")
    def ticks(timer: func.TimerRequest) -> str:
        return "nobody takes this"

    (function,) = index(app.get_functions(), {}, ".", lambda *_: None)

    with pytest.raises(InvocationFailed):
        function.invoke(Datum("{}", "json"))

    assert "has no output binding" in caplog.text


def unsupported_binding(app: func.FunctionApp) -> None:
    @app.blob_trigger(arg_name="blob", path="c/{name}", connection="S")
    def f(blob: func.InputStream) -> None: ...


def retry_policy(app: func.FunctionApp) -> None:
    @app.timer_trigger(arg_name="timer", schedule="* * * * *")
    @app.retry(strategy="fixed_delay", max_retry_count="3", delay_interval="00:00:01")
    def f(timer: func.TimerRequest) -> None: ...


def unbound_parameter(app: func.FunctionApp) -> None:
    @app.timer_trigger(arg_name="timer", schedule="* * * * *")
    def f(timer: func.TimerRequest, other: str) -> None: ...


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (unsupported_binding, "f: binding blob has type blobTrigger"),
        (retry_policy, "f: this host runs no retry policies"),
        (unbound_parameter, r"f: the handler takes \['other', 'timer'\], the decorators bind \['timer'\]"),
    ],
)
def test_what_this_host_cannot_run_is_refused(declare: Callable[[func.FunctionApp], None], message: str) -> None:
    app = func.FunctionApp()
    declare(app)

    with pytest.raises(ConfigurationError, match=message):
        index(app.get_functions(), {}, ".", lambda *_: None)


@pytest.mark.parametrize("setting", ["AzureWebJobs.f.Disabled", "AzureWebJobs_f_Disabled"])
def test_a_disabled_function_is_left_out(setting: str) -> None:
    app = func.FunctionApp()

    @app.timer_trigger(arg_name="timer", schedule="* * * * *")
    def f(timer: func.TimerRequest) -> None: ...

    assert index(app.get_functions(), {setting: "true"}, ".", lambda *_: None) == []


@pytest.mark.parametrize(
    ("template", "path", "expected"),
    [
        ("deals/{id}", "/api/deals/7", (200, "f {'id': '7'}")),
        ("deals/{id}", "/api/deals/7/", (200, "f {'id': '7'}")),
        ("deals/{id}", "/api/deals", (404, "")),
        ("deals/{id}", "/api/deals/7/8", (404, "")),
        ("deals/{id:int}", "/api/deals/seven", (404, "")),
        ("deals/{id?}", "/api/deals", (200, "f {}")),
        ("deals/{*rest}", "/api/deals/7/8", (200, "f {'rest': '7/8'}")),
        ("a.b", "/api/axb", (404, "")),
    ],
)
def test_a_route_template_matches_what_it_says(template: str, path: str, expected: tuple[int, str]) -> None:
    assert get([http_function(template)], path) == expected


def test_the_most_literal_route_wins_whatever_the_order() -> None:
    functions = [
        http_function("{*rest}", name="anything"),
        http_function("deals/{id}", name="one"),
        http_function("deals/open", name="open"),
    ]

    answers = [get(functions, path)[1].split()[0] for path in ("/api/deals/open", "/api/deals/7", "/api/x")]

    assert answers == ["open", "one", "anything"]


@pytest.mark.parametrize("template", ["admin", "admin/x", "Runtime/x", "administrate"])
def test_reserved_routes_are_refused(template: str) -> None:
    with pytest.raises(ConfigurationError, match="conflicts with one or more built in routes"):
        Route.of(http_function(template), "api")


@pytest.mark.parametrize("template", ["deals/{id:even}", "deals/x{id}"])
def test_route_templates_this_host_does_not_know_are_refused(template: str) -> None:
    with pytest.raises(ConfigurationError, match="accepted: "):
        Route.of(http_function(template), "api")

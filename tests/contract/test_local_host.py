"""The local host runs a small app in its own process, over real Queue Storage, as a caller and an operator see it."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from azure.core.exceptions import ResourceNotFoundError
from azure.storage.queue import QueueServiceClient

from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local.azurite import Azurite

REPOSITORY = Path(__file__).parents[2]
DEADLINE_S = 30
KEY = {"x-functions-key": "local"}

APP = """
import json, logging, os, pathlib, time, typing
import azure.functions as func

app = func.FunctionApp()
RECORD = pathlib.Path("record.jsonl")

def record(**fields):
    with RECORD.open("a") as lines:
        lines.write(json.dumps(fields) + "\\n")

def hold_while(name):
    while pathlib.Path(name).exists():
        time.sleep(0.02)

@app.route(route="open", auth_level="anonymous")
def open_to_all(req: func.HttpRequest) -> str:
    return "open"

@app.route(route="echo/{id}/{rest?}", methods=["POST"])
def echo(req: func.HttpRequest, context: func.Context) -> func.HttpResponse:
    seen = {
        "method": req.method, "url": req.url, "params": dict(req.params), "route": dict(req.route_params),
        "headers": dict(req.headers), "body": req.get_body().hex(), "function": context.function_name,
        "invocation": context.invocation_id, "trace_parent": context.trace_context.trace_parent,
    }
    return func.HttpResponse(json.dumps(seen), status_code=201, mimetype="application/json", headers={"X-Own": "1"})

@app.route(route="echo/exact", methods=["POST"])
def exact(req: func.HttpRequest) -> str:
    return "exact"

@app.route(route="fails")
def fails(req: func.HttpRequest) -> str:
    raise RuntimeError("the reason stays in the log")

@app.route(route="nothing")
def nothing(req: func.HttpRequest) -> func.HttpResponse:
    return None

@app.route(route="asynchronous")
async def asynchronous(req: func.HttpRequest) -> str:
    return "awaited"

@app.route(route="slow")
def slow(req: func.HttpRequest) -> str:
    record(slow="started")
    hold_while("hold-http")
    return "done"

@app.route(route="enqueue")
@app.queue_output(arg_name="out", queue_name="%QUEUE%-out", connection="AzureWebJobsStorage")
def enqueue(req: func.HttpRequest, out: func.Out[typing.List[str]]) -> str:
    out.set(["one", "two"])
    if req.params.get("fail"):
        raise RuntimeError("after set")
    return "sent"

@app.timer_trigger(arg_name="timer", schedule="%SCHEDULE%")
def ticks(timer: func.TimerRequest) -> None:
    record(timer="ticks", past_due=timer.past_due, status=timer.schedule_status)

@app.timer_trigger(arg_name="timer", schedule="0 0 0 1 1 *", run_on_startup=True)
def at_startup(timer: func.TimerRequest) -> None:
    record(timer="at_startup", past_due=timer.past_due)

@app.timer_trigger(arg_name="timer", schedule="0 0 0 1 1 *")
def overlapping(timer: func.TimerRequest) -> None:
    record(overlapping="begins")
    hold_while("hold-timer")
    record(overlapping="ends")

@app.queue_trigger(arg_name="msg", queue_name="%QUEUE%", connection="AzureWebJobsStorage")
def work(msg: func.QueueMessage) -> None:
    text = msg.get_body().decode()
    record(work=text, attempt=msg.dequeue_count, id=msg.id, pid=os.getpid(),
           inserted=msg.insertion_time and msg.insertion_time.isoformat(), receipt=msg.pop_receipt)
    if text == "bad":
        raise RuntimeError("cannot do this")
    if text == "held":
        hold_while("hold-queue")
        record(finished=text)

@app.queue_trigger(arg_name="msg", queue_name="%QUEUE%-poison", connection="AzureWebJobsStorage")
def poisoned(msg: func.QueueMessage) -> None:
    record(poisoned=msg.get_body().decode())
"""

HOST_JSON = {
    "version": "2.0",
    "extensions": {
        "queues": {
            "batchSize": 4,
            "maxDequeueCount": 3,
            "visibilityTimeout": "00:00:00",
            "maxPollingInterval": "00:00:00.1",
        }
    },
}


class App:
    """A folder with the app, and the hosts that were started on it."""

    def __init__(self, folder: Path, storage_connection: str) -> None:
        self.folder = folder
        self.queue = "q-" + uuid.uuid4().hex[:20]
        self.settings = {
            "AzureWebJobsStorage": storage_connection,
            "QUEUE": self.queue,
            "SCHEDULE": "0 0 0 1 1 *",
        }
        self.processes: list[subprocess.Popen[str]] = []
        self.output = ""
        self.url = ""
        self._queues = QueueServiceClient.from_connection_string(storage_connection)
        (folder / "function_app.py").write_text(APP)
        (folder / "host.json").write_text(json.dumps(HOST_JSON))

    def start(self, *options: str, **environment: str) -> subprocess.Popen[str]:
        process = self.launch(*options, **environment)
        assert process.stdout is not None
        self.output = ""
        while not self.output.endswith("ready\n"):
            line = process.stdout.readline()
            assert line, f"the host ended: {self.log()}"
            self.output += line
        self.url = self.output.partition("http://")[1] + self.output.partition("http://")[2].partition("/")[0]
        return process

    def launch(self, *options: str, **environment: str) -> subprocess.Popen[str]:
        (self.folder / "local.settings.json").write_text(json.dumps({"Values": self.settings}))
        with (self.folder / "log.txt").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "local.host", "--port", "0", "--root", str(self.folder), *options],
                cwd=REPOSITORY,
                env=os.environ | environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.processes.append(process)
        return process

    def log(self) -> str:
        return (self.folder / "log.txt").read_text()

    def records(self, **wanted: object) -> list[dict[str, Any]]:
        file = self.folder / "record.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return [row for row in rows if wanted.items() <= row.items()]

    def send(self, text: str) -> None:
        encoded = base64.b64encode(text.encode()).decode()
        queue = self._queues.get_queue_client(self.queue)
        eventually(lambda: self.depth() is not None, "the host creates the queue")
        queue.send_message(encoded, time_to_live=-1)

    def depth(self, suffix: str = "") -> int | None:
        """Messages in the queue, leased ones too; None while there is no queue."""
        try:
            queue = self._queues.get_queue_client(self.queue + suffix)
            return queue.get_queue_properties().approximate_message_count
        except ResourceNotFoundError:
            return None

    def texts(self, suffix: str) -> list[str]:
        queue = self._queues.get_queue_client(self.queue + suffix)
        return [base64.b64decode(message.content).decode() for message in queue.receive_messages()]

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()
        self._queues.close()


@pytest.fixture
def app(tmp_path: Path, storage_connection: str) -> Iterator[App]:
    prepared = App(tmp_path, storage_connection)
    yield prepared
    prepared.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, storage_connection: str) -> Iterator[App]:
    """One host for the tests that only call HTTP routes."""
    prepared = App(tmp_path_factory.mktemp("app"), storage_connection)
    prepared.start()
    yield prepared
    prepared.close()


def test_the_function_list_names_every_function_with_its_url_queue_or_schedule(running: App) -> None:
    words = [line.split() for line in running.output.splitlines()]

    assert ["open_to_all", "ANY", f"{running.url}/api/open"] in words
    assert ["work", "queue", running.queue] in words
    assert ["ticks", "timer", "0", "0", "0", "1", "1", "*"] in words
    assert words[-1] == ["ready"]


def test_an_anonymous_route_needs_no_key(running: App) -> None:
    answer = requests.get(f"{running.url}/api/open", timeout=10)

    assert (answer.status_code, answer.text) == (200, "open")


@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        ("", {}, 401),
        ("?code=wrong", {}, 401),
        ("", {"x-functions-key": "wrong"}, 401),
        ("?code=local", {}, 201),
        ("", KEY, 201),
    ],
)
def test_a_function_route_needs_the_key_in_the_query_or_the_header(
    running: App, query: str, headers: dict[str, str], status: int
) -> None:
    answer = requests.post(f"{running.url}/api/echo/1{query}", headers=headers, timeout=10)

    assert answer.status_code == status


def test_the_key_is_the_one_in_the_environment(app: App) -> None:
    app.start(LOCAL_FUNCTION_KEY="another")

    statuses = [
        requests.get(f"{app.url}/api/nothing", params={"code": key}, timeout=10).status_code
        for key in ("local", "another")
    ]

    assert statuses == [401, 204]


def test_a_handler_sees_the_request_as_it_was_sent(running: App) -> None:
    body = bytes(range(256))

    answer = requests.post(
        f"{running.url}/api/echo/a%20b/c?x=1&x=2&empty=&code=local",
        data=body,
        headers={"X-Mixed-Case": "Value", "traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01"},
        timeout=10,
    )

    seen = answer.json()
    assert bytes.fromhex(seen["body"]) == body
    assert seen["method"] == "POST"
    assert seen["url"] == f"{running.url}/api/echo/a%20b/c?x=1&x=2&empty=&code=local"
    assert seen["params"] == {"x": "1,2", "code": "local"}
    assert seen["route"] == {"id": "a b", "rest": "c"}
    assert seen["headers"]["x-mixed-case"] == "Value"
    assert seen["function"] == "echo"
    assert uuid.UUID(seen["invocation"])
    assert seen["trace_parent"].startswith("00-1111")


def test_repeated_headers_arrive_joined_by_a_comma(running: App) -> None:
    connection = http.client.HTTPConnection(running.url.removeprefix("http://"), timeout=10)
    connection.putrequest("POST", "/api/echo/1?code=local")
    for value in ("one", "two"):
        connection.putheader("X-Own-Header", value)
    connection.putheader("Content-Length", "0")
    connection.endheaders()

    seen = json.loads(connection.getresponse().read())
    connection.close()

    assert seen["headers"]["x-own-header"] == "one,two"


def test_a_chunked_body_arrives_whole(running: App) -> None:
    answer = requests.post(f"{running.url}/api/echo/1", data=iter([b"one", b"two"]), headers=KEY, timeout=10)

    assert bytes.fromhex(answer.json()["body"]) == b"onetwo"


def test_a_body_that_breaks_off_does_not_reach_the_handler(running: App) -> None:
    before = running.log().count("function=echo")
    connection = http.client.HTTPConnection(running.url.removeprefix("http://"), timeout=10)
    connection.putrequest("POST", "/api/echo/1?code=local")
    connection.putheader("Content-Length", "100")
    connection.endheaders(b"only this")
    assert connection.sock is not None
    connection.sock.shutdown(1)

    status = connection.getresponse().status
    connection.close()

    assert status == 400
    assert running.log().count("function=echo") == before


def test_the_response_carries_status_headers_and_type_of_the_handler(running: App) -> None:
    answer = requests.post(f"{running.url}/api/echo/1", headers=KEY, timeout=10)

    assert answer.status_code == 201
    assert answer.headers["X-Own"] == "1"
    assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/unknown", 404),
        ("GET", "/open", 404),
        ("GET", "/api/echo/1", 404),
        ("GET", "/API/Open", 200),
        ("HEAD", "/api/open", 200),
        ("GET", "/api/nothing", 204),
        ("GET", "/api/asynchronous", 200),
    ],
)
def test_routes_are_matched_by_path_and_method(running: App, method: str, path: str, status: int) -> None:
    answer = requests.request(method, running.url + path, headers=KEY, timeout=10)

    assert answer.status_code == status


def test_a_literal_route_wins_over_a_parameter(running: App) -> None:
    answer = requests.post(f"{running.url}/api/echo/exact", headers=KEY, timeout=10)

    assert answer.text == "exact"


def test_a_failing_handler_answers_500_with_the_invocation_id_and_nothing_of_the_reason(running: App) -> None:
    answer = requests.get(f"{running.url}/api/fails", headers=KEY, timeout=10)

    assert answer.status_code == 500
    assert "reason" not in answer.text
    assert "Traceback" not in answer.text
    invocation_id = answer.text.partition("invocation ")[2].split()[0]
    assert f"function=fails invocation={invocation_id} outcome=failed" in running.log()


def test_the_log_has_one_line_per_invocation_without_query_or_body(running: App) -> None:
    marker = uuid.uuid4().hex
    answer = requests.post(f"{running.url}/api/echo/1?secret={marker}", data=marker, headers=KEY, timeout=10)

    lines = [line for line in running.log().splitlines() if answer.json()["invocation"] in line]

    assert len(lines) == 1
    assert "INFO" in lines[0]
    assert "outcome=succeeded" in lines[0]
    assert marker not in running.log()


def test_output_messages_are_written_after_success_only(running: App) -> None:
    failed = requests.get(f"{running.url}/api/enqueue?fail=1", headers=KEY, timeout=10)
    depth_after_failure = running.depth("-out")

    succeeded = requests.get(f"{running.url}/api/enqueue", headers=KEY, timeout=10)

    assert (failed.status_code, depth_after_failure) == (500, None)
    assert succeeded.status_code == 200
    assert sorted(running.texts("-out")) == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "body", "headers", "status"),
    [
        ("overlapping", "{}", {}, 401),
        ("unknown", "{}", KEY, 404),
        ("overlapping", "", KEY, 400),
        ("echo", "{}", KEY, 400),
        ("overlapping", "{}", KEY, 202),
    ],
)
def test_the_admin_call_checks_key_name_and_body(
    running: App, name: str, body: str, headers: dict[str, str], status: int
) -> None:
    answer = requests.post(f"{running.url}/admin/functions/{name}", data=body, headers=headers, timeout=10)

    assert answer.status_code == status


def test_the_admin_call_runs_a_queue_function_with_the_given_input(running: App) -> None:
    text = uuid.uuid4().hex

    requests.post(f"{running.url}/admin/functions/work", json={"input": text}, headers=KEY, timeout=10)

    assert eventually(lambda: running.records(work=text), "the function ran")[0]["attempt"] == 1


def test_a_timer_fires_by_the_schedule_in_its_setting(app: App) -> None:
    app.settings["SCHEDULE"] = "* * * * * *"

    app.start()

    rows = eventually(lambda: len(rows := app.records(timer="ticks")) >= 2 and rows, "two ticks")
    assert not rows[0]["past_due"]


def test_a_timer_runs_on_startup_when_it_asks_for_it_and_others_do_not(app: App) -> None:
    app.start()

    eventually(lambda: app.records(timer="at_startup"), "the run on startup")
    assert app.records(timer="ticks") == []


def test_runs_of_one_timer_never_overlap(app: App) -> None:
    (app.folder / "hold-timer").touch()
    app.start()
    for _ in range(2):
        answer = requests.post(f"{app.url}/admin/functions/overlapping", json={}, headers=KEY, timeout=10)
        assert answer.status_code == 202
    eventually(lambda: app.records(overlapping="begins"), "the first run")

    (app.folder / "hold-timer").unlink()

    rows = eventually(lambda: len(rows := [r for r in app.records() if "overlapping" in r]) == 4 and rows, "two runs")
    assert [row["overlapping"] for row in rows] == ["begins", "ends", "begins", "ends"]


def test_an_occurrence_missed_while_no_host_ran_fires_once_as_past_due(app: App) -> None:
    state = app.folder / "timers.json"
    app.settings["SCHEDULE"] = "0 0 * * * *"
    missed = {"schedule": "0 0 * * * *", "last": None, "next": "2020-01-01T00:00:00+00:00"}
    state.write_text(json.dumps({"ticks": missed | {"last_updated": "2019-12-31T23:00:00+00:00"}}))

    first = app.start("--timer-state", str(state))
    eventually(lambda: app.records(timer="ticks"), "the missed run")
    eventually(lambda: json.loads(state.read_text())["ticks"]["last"], "its end is remembered")
    first.kill()
    first.wait()
    app.start("--timer-state", str(state))
    eventually(lambda: len(app.records(timer="at_startup")) == 2, "the second host started its timers")

    rows = app.records(timer="ticks")
    assert [row["past_due"] for row in rows] == [True]
    assert rows[0]["status"]["Next"] == "2020-01-01T00:00:00+00:00"


def test_a_handled_message_is_deleted_and_reached_the_handler_with_its_metadata(app: App) -> None:
    app.start()

    app.send("good")

    (row,) = eventually(lambda: app.records(work="good"), "the message is handled")
    assert row["attempt"] == 1
    assert uuid.UUID(row["id"])
    assert row["inserted"].startswith("20")
    assert row["receipt"]
    eventually(lambda: app.depth() == 0, "the message is deleted")


def test_a_failing_message_is_tried_up_to_the_limit_and_then_handled_as_poison(app: App) -> None:
    app.start()

    app.send("bad")

    eventually(lambda: app.records(poisoned="bad"), "the message is poison")
    assert [row["attempt"] for row in app.records(work="bad")] == [1, 2, 3]
    eventually(lambda: (app.depth(), app.depth("-poison")) == (0, 0), "both queues are empty")


def test_an_app_setting_overrides_host_json(app: App) -> None:
    app.start(AzureFunctionsJobHost__extensions__queues__maxDequeueCount="1")

    app.send("bad")

    eventually(lambda: app.records(poisoned="bad"), "the message is poison")
    assert [row["attempt"] for row in app.records(work="bad")] == [1]


def test_a_message_that_is_not_base64_becomes_poison_without_reaching_the_handler(app: App) -> None:
    app.settings["AzureWebJobs.poisoned.Disabled"] = "true"
    app.start()
    eventually(lambda: app.depth() is not None, "the host creates the queue")

    app._queues.get_queue_client(app.queue).send_message("not base64!")

    eventually(lambda: app.depth("-poison") == 1, "the message is poison")
    assert [row for row in app.records() if "work" in row] == []


def test_a_message_without_encoding_is_read_when_host_json_says_so(app: App) -> None:
    app.start(AzureFunctionsJobHost__extensions__queues__messageEncoding="none")
    eventually(lambda: app.depth() is not None, "the host creates the queue")

    app._queues.get_queue_client(app.queue).send_message("plain <text> & more")

    eventually(lambda: app.records(work="plain <text> & more"), "the message is handled")


def test_the_message_of_a_killed_host_is_delivered_again_when_its_lease_ends(app: App) -> None:
    (app.folder / "hold-queue").touch()
    first = app.start("--queue-lease", "2")
    app.send("held")
    eventually(lambda: app.records(work="held"), "the first delivery")

    first.kill()
    first.wait()
    (app.folder / "hold-queue").unlink()
    second = app.start("--queue-lease", "2")

    eventually(lambda: app.records(finished="held"), "the second delivery")
    assert [(row["attempt"], row["pid"]) for row in app.records(work="held")] == [(1, first.pid), (2, second.pid)]
    eventually(lambda: app.depth() == 0, "the message is deleted")


def test_a_lease_is_renewed_while_the_handler_runs(app: App, azurite: Azurite) -> None:
    def renewals() -> int:
        return (azurite.location / "queue.log").read_text().count(f"PUT /devstoreaccount1/{app.queue}/messages/")

    (app.folder / "hold-queue").touch()
    app.start("--queue-lease", "1")
    app.send("held")
    eventually(lambda: app.records(work="held"), "the first delivery")
    eventually(lambda: renewals() >= 5, "the lease, renewed at half its length, would have ended twice")

    (app.folder / "hold-queue").unlink()

    eventually(lambda: app.depth() == 0, "the message is deleted")
    assert len(app.records(work="held")) == 1


def test_a_message_that_killed_its_host_too_often_becomes_poison_without_another_run(app: App) -> None:
    app.settings["AzureFunctionsJobHost__extensions__queues__maxDequeueCount"] = "1"
    (app.folder / "hold-queue").touch()
    first = app.start("--queue-lease", "1")
    app.send("held")
    eventually(lambda: app.records(work="held"), "the first delivery")

    first.kill()
    first.wait()
    app.start("--queue-lease", "1")

    eventually(lambda: app.records(poisoned="held"), "the message is poison")
    assert len(app.records(work="held")) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopping_host_finishes_what_it_runs(app: App, number: signal.Signals) -> None:
    (app.folder / "hold-queue").touch()
    process = app.start()
    app.send("held")
    eventually(lambda: app.records(work="held"), "the delivery")

    process.send_signal(number)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    (app.folder / "hold-queue").unlink()

    assert process.wait(DEADLINE_S) == 0
    assert app.records(finished="held")
    assert app.depth() == 0


def test_a_host_that_cannot_finish_in_time_ends_all_the_same(app: App) -> None:
    (app.folder / "hold-http").touch()
    process = app.start("--stop-timeout", "1")
    with pytest.raises(requests.ReadTimeout):
        requests.get(f"{app.url}/api/slow", headers=KEY, timeout=0.5)

    process.terminate()

    assert process.wait(DEADLINE_S) == 1
    assert "stopped.while_functions_were_running" in app.log()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('route="open"', 'route="admin/open"', "open_to_all: the route 'admin/open' conflicts"),
        ('route="open"', 'route="RuntimeOpen"', "conflicts with one or more built in routes"),
        ('schedule="%SCHEDULE%"', 'schedule="%ABSENT%"', "ticks: schedule refers to the app setting ABSENT"),
        ('schedule="%SCHEDULE%"', 'schedule="61 * * * * *"', "ticks: schedule '61 * * * * *' is not accepted"),
        ("def work(msg:", "def work(message:", "work: the handler takes ['message']"),
        ("app = func", "another = func", "function_app has no `app`"),
    ],
)
def test_an_app_that_cannot_run_is_refused_at_start_with_the_reason(app: App, old: str, new: str, message: str) -> None:
    source = APP.replace(old, new)
    assert source != APP
    (app.folder / "function_app.py").write_text(source.replace("@app.", "@another.") if "another" in new else source)

    process = app.launch()

    assert process.wait(DEADLINE_S) == 2
    assert message in app.log()


def test_an_occupied_port_is_refused_at_start_with_the_next_step(running: App, app: App) -> None:
    port = running.url.rpartition(":")[2]

    process = app.launch("--port", port)

    assert process.wait(DEADLINE_S) == 2
    assert "Choose another --port" in app.log()

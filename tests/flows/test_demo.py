"""The demo plays to its end with everything as expected, notices what is not, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from local.demo.story import STORY
from local.demo.traffic import PURPOSE_IN
from local.desks import DESKS
from tests.waiting import eventually

REPOSITORY = Path(__file__).parents[2]
DEMO = [sys.executable, "-m", "local.demo", "--crm"]
WITH_DYNAMICS_365 = [*DEMO, "dynamics365"]
TIMEOUT_S = 240
# Everything else is being tested beside it. How soon a change is visible is judged by itself.
PATIENTLY = ["--deadline", "60"]
# The demo's own first steps, then one that expects of the product what it does not do.
WITH_A_WRONG_EXPECTATION = """
import sys
from dataclasses import replace

from local.demo.__main__ import main
from local.demo.story import STORY

def expect_another_value(step):
    def play(story):
        expected = step.play(story)
        return replace(expected, values={**expected.values, "value": 50001})
    return replace(step, play=play)

until_shared = [step for step in STORY if step.name.startswith("The admin")]
shared = next(step for step in STORY if step.change == "shared by a seller")
sys.exit(main(["--crm", "dynamics365", "--deadline", "3"], [*until_shared, expect_another_value(shared), STORY[-1]]))
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A place of its own for temporary files, so that what is left behind can be seen."""
    return {**os.environ, "TMPDIR": str(tmp_path)}


@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.parametrize("crm", DESKS)
def test_every_step_of_the_demo_is_as_expected(crm: str, environment: dict[str, str], tmp_path: Path) -> None:
    played = run([*DEMO, crm, *PATIENTLY], environment)

    assert played.returncode == 0, played.stdout
    assert steps_told(played.stdout) == [("✓", step.name) for step in STORY]
    assert "All as expected." in played.stdout
    assert left_behind(tmp_path) == []


@pytest.mark.timeout(TIMEOUT_S)
def test_a_step_that_is_not_as_expected_fails_the_demo_and_names_difference_and_logs(
    environment: dict[str, str], tmp_path: Path
) -> None:
    played = run([sys.executable, "-c", WITH_A_WRONG_EXPECTATION], environment)

    assert played.returncode == 1, played.stdout
    assert "value: expected 50001, seen 50000" in played.stdout
    assert [mark for mark, _ in steps_told(played.stdout)] == ["✓", "✗"]  # and the story ends there
    logs = [Path(line.strip()) for line in played.stdout.splitlines() if line.strip().endswith(".log")]
    assert {log.name for log in logs} == {"host.log", "simulators.log", "queue.log", "table.log"}
    assert all(log.stat().st_size for log in logs)
    assert processes_in(tmp_path) == []


@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_ends_at_once_and_leaves_nothing_behind(
    environment: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's background job ignores it, and so would the demo
    demo = subprocess.Popen(WITH_DYNAMICS_365, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True)
    wait_until_the_host_is_ready(tmp_path)

    demo.send_signal(number)
    said, _ = demo.communicate(timeout=60)

    assert demo.returncode == 130
    assert "Interrupted" in said
    assert left_behind(tmp_path) == []


def test_the_processes_of_a_killed_demo_end_by_themselves(environment: dict[str, str], tmp_path: Path) -> None:
    demo = subprocess.Popen(WITH_DYNAMICS_365, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL)
    wait_until_the_host_is_ready(tmp_path)
    assert processes_in(tmp_path)

    demo.kill()
    demo.wait()

    assert eventually(lambda: processes_in(tmp_path) == [], "no process is left")


ORG = "/services/data/v67.0"
UPDATED, QUERY = f"GET {ORG}/sobjects/Lead/updated/?start=a&end=b", f"GET {ORG}/query?q=SELECT"


@pytest.mark.parametrize(
    ("call", "parts", "purpose"),
    [
        ("POST /services/oauth2/token", [], "prepares"),
        ("GET /services/data", [], "prepares"),
        (f"POST {ORG}/composite", [UPDATED, QUERY], "looks around"),
        (f"GET {ORG}/query/01gRO-2000", [], "looks further"),
        (f"POST {ORG}/composite", [QUERY], "reads"),
        (f"GET {ORG}/query", [], "reads"),
        (f"POST {ORG}/composite", [f"PATCH {ORG}/sobjects/Lead/00Q", QUERY], "writes"),
        (f"POST {ORG}/composite", [UPDATED, f"DELETE {ORG}/sobjects/Lead/00Q"], "writes"),
        (f"POST {ORG}/sobjects/Lead", [], "writes"),
    ],
)
def test_a_request_to_salesforce_counts_once_by_what_it_is_for(call: str, parts: list[str], purpose: str) -> None:
    method, path = call.split(" ")
    subrequests = [dict(zip(("method", "url"), part.split(" "), strict=True)) for part in parts]

    entry = {"method": method, "path": path, "request_body": json.dumps({"compositeRequest": subrequests})}

    assert PURPOSE_IN["salesforce"](entry) == purpose


def run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
    )


def steps_told(text: str) -> list[tuple[str, str]]:
    """Mark and name of each step in the table, put together again where the table broke the name."""
    told: list[tuple[str, str]] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("│")]
        if len(cells) != len(["", "mark", "step", "expected", "seen", "after", ""]):
            continue
        if cells[1]:
            told.append((cells[1], cells[2]))
        else:
            mark, name = told[-1]
            told[-1] = mark, f"{name} {cells[2]}".strip()
    return told


def wait_until_the_host_is_ready(directory: Path) -> None:
    eventually(
        lambda: any("ready" in log.read_text().splitlines() for log in directory.glob("cosell-demo-*/*/host.log")),
        "the demo's host is ready",
        within_s=60,
    )


def left_behind(directory: Path) -> list[str]:
    return [str(path) for path in directory.iterdir()] + processes_in(directory)


def processes_in(directory: Path) -> list[str]:
    """The commands of running processes that were told to use this directory."""
    commands = subprocess.run(
        ["ps", "-ww", "-eo", "args"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.splitlines()
    return [command for command in commands if str(directory) in command]

"""Azurite as local/azurite.py starts it: the same public clients work against it as against Azure."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from azure.data.tables import TableServiceClient
from azure.storage.queue import QueueServiceClient

from local import azurite as azurite_module
from local.azurite import NODE_PROJECT, Azurite, AzuriteError, install, installed
from tests.waiting import eventually

REPOSITORY = Path(__file__).parents[2]
DEADLINE_S = 30


def unique_name() -> str:
    return "t" + uuid.uuid4().hex


def queue_port(connection_string: str) -> int:
    return int(connection_string.partition("QueueEndpoint=http://127.0.0.1:")[2].partition("/")[0])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until_closed(port: int) -> None:
    eventually(lambda: not listens(port), f"port {port} is closed")


def wait_for_line(file: Path, *parts: str) -> None:
    """Azurite writes the line after it has answered."""
    eventually(
        lambda: any(all(part in line for part in parts) for line in file.read_text().splitlines()),
        f"a line of {file.name} with {parts}",
    )


def start_command() -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "local.azurite"], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_tables_and_queues_answer(storage_connection: str) -> None:
    name = unique_name()
    entity = {"PartitionKey": "p", "RowKey": "r", "value": 1}

    with TableServiceClient.from_connection_string(storage_connection) as tables:
        tables.create_table(name).upsert_entity(entity)
        read = tables.get_table_client(name).get_entity("p", "r")
    with QueueServiceClient.from_connection_string(storage_connection) as queues:
        queue = queues.create_queue(name)
        queue.send_message("hello")
        received = queue.receive_message()

    assert read["value"] == 1
    assert received is not None
    assert received.content == "hello"


def test_each_answered_request_is_a_line_in_the_access_log(azurite: Azurite) -> None:
    name = unique_name()

    with QueueServiceClient.from_connection_string(azurite.connection_string) as queues:
        queues.create_queue(name)

    wait_for_line(azurite.location / "queue.log", f"PUT /devstoreaccount1/{name}", " 201 ")


def test_data_in_a_given_location_survives_a_restart(tmp_path: Path) -> None:
    with (
        Azurite(tmp_path) as azurite,
        TableServiceClient.from_connection_string(azurite.connection_string) as tables,
    ):
        tables.create_table("Kept").create_entity({"PartitionKey": "p", "RowKey": "r"})

    with (
        Azurite(tmp_path) as azurite,
        TableServiceClient.from_connection_string(azurite.connection_string) as tables,
    ):
        entity = tables.get_table_client("Kept").get_entity("p", "r")

    assert entity["RowKey"] == "r"


def test_an_occupied_port_is_an_error_that_shows_what_azurite_printed() -> None:
    with socket.socket() as occupied:
        occupied.bind(("127.0.0.1", 0))
        occupied.listen()

        with pytest.raises(AzuriteError, match=r"(?s)azurite-queue ended.*EADDRINUSE"):
            Azurite(queue_port=occupied.getsockname()[1]).__enter__()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_stops_its_services_when_it_is_asked_to_end(number: signal.Signals) -> None:
    process, connection_string = start_command()
    with process:
        assert listens(queue_port(connection_string))

        process.send_signal(number)

        assert process.wait(DEADLINE_S) == 0
    wait_until_closed(queue_port(connection_string))


def test_the_services_end_when_the_command_is_killed() -> None:
    process, connection_string = start_command()
    with process:
        assert listens(queue_port(connection_string))

        process.kill()

    wait_until_closed(queue_port(connection_string))


def test_this_checkout_is_installed_from_its_lock_file() -> None:
    assert installed()


def test_another_lock_file_than_the_installed_one_needs_an_installation(tmp_path: Path) -> None:
    (tmp_path / "node_modules").mkdir()
    shutil.copy(NODE_PROJECT / "node_modules" / ".package-lock.json", tmp_path / "node_modules")
    lock_file = (NODE_PROJECT / "package-lock.json").read_text()
    changed = lock_file.replace('"version": "3.36.0"', '"version": "3.37.0"')
    assert changed != lock_file

    (tmp_path / "package-lock.json").write_text(changed)

    assert not installed(tmp_path)


def test_an_installation_that_fails_says_what_npm_said_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"name": "broken", "dependencies": {"azurite": "3.36.0"}}')

    with pytest.raises(AzuriteError, match=r"(?s)local\.azurite --install.*package-lock"):
        install(tmp_path)


def test_starting_without_an_installation_names_the_command_that_installs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(azurite_module, "installed", lambda: False)

    with pytest.raises(AzuriteError, match=r"python -m local\.azurite --install"):
        Azurite(tmp_path).__enter__()

    assert list(tmp_path.iterdir()) == []

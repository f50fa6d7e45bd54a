"""What the local host reads: local.settings.json, host.json, app settings."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from local.host.configuration import (
    ConfigurationError,
    QueueOptions,
    load_local_settings,
    positive_number,
    read_host_options,
    resolve,
    storage_connection_string,
)

if TYPE_CHECKING:
    from pathlib import Path


def host_json(folder: Path, **queues: Any) -> Path:
    path = folder / "host.json"
    path.write_text(json.dumps({"version": "2.0", "extensions": {"queues": queues}}))
    return path


def test_local_settings_fill_in_what_the_environment_does_not_set(tmp_path: Path) -> None:
    path = tmp_path / "local.settings.json"
    path.write_text(json.dumps({"IsEncrypted": False, "Values": {"CRM": "salesforce", "NEW": "from the file"}}))
    environment = {"CRM": "dynamics365"}

    load_local_settings(path, environment)

    assert environment == {"CRM": "dynamics365", "NEW": "from the file"}


def test_no_local_settings_file_is_fine(tmp_path: Path) -> None:
    environment: dict[str, str] = {}

    load_local_settings(tmp_path / "local.settings.json", environment)

    assert environment == {}


def test_a_local_setting_that_is_no_string_is_named(tmp_path: Path) -> None:
    path = tmp_path / "local.settings.json"
    path.write_text('{"Values": {"COUNT": 5}}')

    with pytest.raises(ConfigurationError, match=r"Values\.COUNT is 5"):
        load_local_settings(path, {})


def test_without_settings_the_host_has_the_defaults_of_the_real_one(tmp_path: Path) -> None:
    options = read_host_options(host_json(tmp_path), {})

    assert options.route_prefix == "api"
    assert options.queues.batch_size == 16
    assert options.queues.max_dequeue_count == 5
    assert options.queues.visibility_timeout == timedelta(0)
    assert options.queues.max_polling_interval == timedelta(minutes=1)
    assert options.queues.message_encoding == "base64"


def test_the_batch_threshold_defaults_to_half_a_batch_per_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 3)

    assert QueueOptions(batchsize=10).new_batch_threshold == 15


def test_host_json_is_read_and_a_setting_wins_over_it(tmp_path: Path) -> None:
    path = host_json(tmp_path, batchSize=4, visibilityTimeout="00:00:30", newBatchThreshold=0)
    environment = {
        "AzureFunctionsJobHost__extensions__queues__BatchSize": "8",
        "AzureFunctionsJobHost__extensions__http__routePrefix": "/hooks/",
    }

    options = read_host_options(path, environment)

    assert options.queues.batch_size == 8
    assert options.queues.new_batch_threshold == 0
    assert options.queues.visibility_timeout == timedelta(seconds=30)
    assert options.route_prefix == "hooks"


@pytest.mark.parametrize(
    ("text", "seconds"), [("00:00:00.1", 0.1), ("00:01", 60), ("01:00:05", 3605), ("1.00:00:00", 86400)]
)
def test_time_spans_are_read_as_the_real_host_writes_them(text: str, seconds: float) -> None:
    assert QueueOptions(maxpollinginterval=text).max_polling_interval.total_seconds() == seconds


@pytest.mark.parametrize(
    ("queues", "named"),
    [
        ({"batchSize": 33}, "batchsize: .*32"),
        ({"batchSize": "many"}, "batchsize"),
        ({"maxPollingInterval": "2 s"}, "maxpollinginterval: .*hh:mm:ss"),
        ({"maxPollingInterval": "00:00:00.05"}, "maxpollinginterval"),
        ({"messageEncoding": "utf8"}, "messageencoding: .*base64"),
        ({"maxDequeue": 3}, "maxdequeue: "),
    ],
)
def test_a_bad_queue_option_is_named_with_what_is_accepted(tmp_path: Path, queues: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"host\.json.*extensions\.queues\.{named}"):
        read_host_options(host_json(tmp_path, **queues), {})


@pytest.mark.parametrize(("content", "message"), [(None, "does not exist"), ("{", "is not valid JSON")])
def test_an_unreadable_host_json_is_named(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "host.json"
    if content is not None:
        path.write_text(content)

    with pytest.raises(ConfigurationError, match=rf"host\.json {message}"):
        read_host_options(path, {})


def test_settings_between_percent_signs_are_resolved() -> None:
    assert resolve("%QUEUE%-poison", {"QUEUE": "sync"}, "f: queueName") == "sync-poison"


def test_an_absent_setting_is_named_with_the_place_that_needs_it() -> None:
    with pytest.raises(ConfigurationError, match="f: queueName refers to the app setting QUEUE, which is not set"):
        resolve("%QUEUE%", {}, "f: queueName")


def test_the_short_form_of_development_storage_becomes_a_connection_string() -> None:
    resolved = storage_connection_string("S", {"S": "UseDevelopmentStorage=true"}, "f")

    assert "QueueEndpoint=http://127.0.0.1:10001/devstoreaccount1;" in resolved


def test_an_absent_storage_connection_says_where_to_get_one() -> None:
    with pytest.raises(ConfigurationError, match=r"AzureWebJobsStorage, which is not set.*python -m local\.azurite"):
        storage_connection_string("AzureWebJobsStorage", {}, "f")


@pytest.mark.parametrize("value", ["0", "-1", "many", ""])
def test_a_number_setting_that_is_none_is_named(value: str) -> None:
    with pytest.raises(ConfigurationError, match=r"THREADS is '.*'; a whole number from 1 is accepted"):
        positive_number("THREADS", 5, {"THREADS": value})

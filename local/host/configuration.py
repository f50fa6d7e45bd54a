"""Reads what the host is told: local.settings.json, host.json and app settings. Starts nothing.

https://learn.microsoft.com/azure/azure-functions/functions-host-json
"""

from __future__ import annotations

import json
import os
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, MutableMapping
    from pathlib import Path

HOST_OVERRIDE_PREFIX = "AzureFunctionsJobHost__"
TIME_SPAN = re.compile(r"(?:(?P<days>\d+)\.)?(?P<hours>\d\d?):(?P<minutes>\d\d)(?::(?P<seconds>\d\d(?:\.\d{1,7})?))?")


class ConfigurationError(Exception):
    """A setting or file is missing or wrong; the message names it, says what is accepted and what to do."""


def load_local_settings(path: Path, environment: MutableMapping[str, str]) -> None:
    """Copy the Values of local.settings.json into the environment; what is set there already wins."""
    if not path.exists():
        return
    values = _read_json(path).get("Values", {})
    for name, value in values.items():
        if not isinstance(value, str):
            raise ConfigurationError(f'{path}: Values.{name} is {value!r}. Every value must be a string in "quotes".')
        environment.setdefault(name, value)


def resolve(text: str, environment: Mapping[str, str], where: str) -> str:
    """Replace each %NAME% by the app setting of that name."""

    def value_of(match: re.Match[str]) -> str:
        if (value := environment.get(match[1])) is None:
            raise ConfigurationError(
                f"{where} refers to the app setting {match[1]}, which is not set. "
                f"Set it in the environment or under Values in local.settings.json."
            )
        return value

    return re.sub(r"%([^%]+)%", value_of, text)


def positive_number(setting: str, default: int, environment: Mapping[str, str]) -> int:
    value = environment.get(setting, str(default))
    if not value.isdecimal() or int(value) < 1:
        raise ConfigurationError(f"The app setting {setting} is {value!r}; a whole number from 1 is accepted.")
    return int(value)


def storage_connection_string(setting: str, environment: Mapping[str, str], where: str) -> str:
    value = environment.get(setting)
    if not value:
        raise ConfigurationError(
            f"{where} connects by the app setting {setting}, which is not set. Accepted: a storage connection string "
            f"(`python -m local.azurite` prints one) or UseDevelopmentStorage=true."
        )
    if value.rstrip(";").lower() == "usedevelopmentstorage=true":
        return DEVELOPMENT_STORAGE
    return value


# What UseDevelopmentStorage=true stands for; the Python SDK does not know the short form.
# https://learn.microsoft.com/azure/storage/common/storage-connect-azurite
DEVELOPMENT_STORAGE = (
    "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;"
    "AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;"
    "QueueEndpoint=http://127.0.0.1:10001/devstoreaccount1;TableEndpoint=http://127.0.0.1:10002/devstoreaccount1;"
)


def _time_span(text: Any) -> Any:
    if isinstance(text, str):
        if not (match := TIME_SPAN.fullmatch(text)):
            raise ValueError("a time span hh:mm:ss is accepted, for example 00:00:30")
        return timedelta(**{unit: float(number) for unit, number in match.groupdict(default="0").items()})
    return text


TimeSpan = Annotated[timedelta, BeforeValidator(_time_span)]


class _Section(BaseModel):
    # Configuration keys are case-insensitive, so every key arrives in lower case.
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=lambda name: name.replace("_", ""))


class QueueOptions(_Section):
    """`extensions.queues`: https://learn.microsoft.com/azure/azure-functions/functions-bindings-storage-queue#hostjson-settings"""

    batch_size: int = Field(default=16, ge=1, le=32)
    new_batch_threshold: int = Field(
        default_factory=lambda options: options["batch_size"] // 2 * (os.cpu_count() or 1), ge=0
    )
    max_dequeue_count: int = Field(default=5, ge=1)
    visibility_timeout: TimeSpan = Field(default=timedelta(0), ge=timedelta(0), le=timedelta(days=7))
    max_polling_interval: TimeSpan = Field(default=timedelta(minutes=1), ge=timedelta(milliseconds=100))
    message_encoding: Literal["base64", "none"] = "base64"


class HostOptions(BaseModel):
    """What this host honours of host.json."""

    model_config = ConfigDict(frozen=True)

    route_prefix: str = "api"
    queues: QueueOptions = QueueOptions()


def read_host_options(path: Path, environment: Mapping[str, str]) -> HostOptions:
    """Read host.json; an app setting AzureFunctionsJobHost__a__b replaces the value at a.b."""
    values = dict(_flat(_read_json(path)))
    values |= {
        name.removeprefix(HOST_OVERRIDE_PREFIX).replace("__", ":").lower(): value
        for name, value in environment.items()
        if name.startswith(HOST_OVERRIDE_PREFIX)
    }
    section = "extensions:queues:"
    queues = {key.removeprefix(section): value for key, value in values.items() if key.startswith(section)}
    try:
        return HostOptions(
            route_prefix=str(values.get("extensions:http:routeprefix", "api")).strip("/"), queues=QueueOptions(**queues)
        )
    except ValidationError as exc:
        faults = "; ".join(f"extensions.queues.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors())
        raise ConfigurationError(f"{path} (or a setting {HOST_OVERRIDE_PREFIX}...): {faults}") from exc


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, child in value.items():
            yield from _flat(child, f"{path}:{key.lower()}" if path else key.lower())
    else:
        yield path, value


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as exc:
        raise ConfigurationError(
            f"{path} does not exist. Start the host in the folder of the app, or name it."
        ) from exc
    except ValueError as exc:
        raise ConfigurationError(f"{path} is not valid JSON: {exc}") from exc
    return content

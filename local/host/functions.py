"""Turns the functions of an app into something that can be invoked, and invokes them. Never waits for work itself.

Values cross the border through the converters of the azure-functions package, as in the real worker, so that handlers
meet the same types: https://learn.microsoft.com/azure/azure-functions/functions-reference-python
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import azure.functions as func
from azure.functions.meta import Datum

from local.host.configuration import ConfigurationError, resolve

log = logging.getLogger("local.host")

Binding = Mapping[str, Any]
WriteQueue = Callable[[Binding, list[bytes]], None]

RETURN = "$return"
TRIGGERS = ("httpTrigger", "timerTrigger", "queueTrigger")
OUTPUTS = ("http", "queue")


class InvocationFailed(Exception):
    """The handler, or a write of its output, raised; the log has told the story already."""

    def __init__(self, invocation_id: str) -> None:
        super().__init__(invocation_id)
        self.invocation_id = invocation_id


class Out(func.Out[Any]):
    """What a handler gets for an output binding; left unset, nothing is written."""

    value: Any = None

    def set(self, val: Any) -> None:
        self.value = val

    def get(self) -> Any:
        return self.value


@dataclass(frozen=True)
class TraceContext:
    trace_parent: str
    trace_state: str = ""
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RetryContext:
    """Functions with a retry policy are refused, so nothing is ever a retry."""

    retry_count: int = 0
    max_retry_count: int = 0
    exception: None = None


@func.Context.register
@dataclass(frozen=True)
class Context:
    invocation_id: str
    function_name: str
    function_directory: str
    trace_context: TraceContext
    retry_context: RetryContext = RetryContext()
    thread_local_storage: threading.local = field(default_factory=threading.local)


@dataclass(frozen=True)
class Function:
    """One function of the app with its bindings; `%SETTING%` in them is resolved."""

    name: str
    directory: str
    handler: Callable[..., Any]
    trigger: Binding
    outputs: Mapping[str, Binding]
    wants_context: bool
    write_queue: WriteQueue

    def invoke(
        self, value: Datum, metadata: Mapping[str, Datum] | None = None, trace_parent: str | None = None
    ) -> Datum | None:
        """Run the handler, then write its outputs; returns its encoded return value. Raises InvocationFailed."""
        invocation_id = str(uuid.uuid4())
        started = time.perf_counter()
        try:
            result = self._run(value, metadata, invocation_id, trace_parent)
        except Exception as exc:
            log.exception("invocation", extra=self._outcome(invocation_id, "failed", started))
            raise InvocationFailed(invocation_id) from exc
        log.info("invocation", extra=self._outcome(invocation_id, "succeeded", started))
        return result

    def _outcome(self, invocation_id: str, outcome: str, started: float) -> dict[str, Any]:
        elapsed_ms = round((time.perf_counter() - started) * 1000, 1)
        return {"function": self.name, "invocation": invocation_id, "outcome": outcome, "ms": elapsed_ms}

    def _run(
        self, value: Datum, metadata: Mapping[str, Datum] | None, invocation_id: str, trace_parent: str | None
    ) -> Datum | None:
        trigger_converter = _converter(self.trigger["type"])
        arguments = {self.trigger["name"]: trigger_converter.decode(value, trigger_metadata=metadata)}
        outs = {name: Out() for name in self.outputs if name != RETURN}
        arguments |= outs
        if self.wants_context:
            arguments["context"] = self._context(invocation_id, trace_parent)

        returned = self.handler(**arguments)
        if inspect.iscoroutine(returned):
            returned = asyncio.run(returned)
        if returned is not None and RETURN not in self.outputs:
            raise TypeError(f"{self.name} returned a value, but has no output binding for it ($return).")

        for name, out in outs.items():
            if out.value is not None:
                self._write(self.outputs[name], out.value)
        if returned is None:
            return None
        return self._write(self.outputs[RETURN], returned)

    def _write(self, binding: Binding, value: Any) -> Datum:
        datum: Datum = _converter(binding["type"]).encode(value, expected_type=None)
        if binding["type"] == "queue":
            self.write_queue(binding, _queue_messages(datum))
        return datum

    def _context(self, invocation_id: str, trace_parent: str | None) -> Context:
        # https://www.w3.org/TR/trace-context/#traceparent-header
        trace_parent = trace_parent or f"00-{uuid.uuid4().hex}-{uuid.uuid4().hex[:16]}-00"
        context = Context(invocation_id, self.name, self.directory, TraceContext(trace_parent))
        context.thread_local_storage.invocation_id = invocation_id
        return context


def _converter(binding_type: str) -> Any:
    return func.get_binding_registry().get(binding_type)  # type: ignore[no-untyped-call]


def _queue_messages(datum: Datum) -> list[bytes]:
    """A list becomes one message per element; a QueueMessage travels as an object that holds its body."""
    if datum.type == "bytes":
        return [datum.value]
    if datum.type == "string":
        return [datum.value.encode()]
    content = json.loads(datum.value)
    messages = content if isinstance(content, list) else [content]
    return [(message if isinstance(message, str) else message["body"]).encode() for message in messages]


def index(
    app_functions: Iterable[func.Function], environment: Mapping[str, str], directory: str, write_queue: WriteQueue
) -> list[Function]:
    """Check and prepare every function that is not disabled by a setting. Raises ConfigurationError."""
    return [
        _index_one(app_function, environment, directory, write_queue)
        for app_function in app_functions
        if not _disabled(str(app_function.get_function_name()), environment)
    ]


def _index_one(
    app_function: func.Function, environment: Mapping[str, str], directory: str, write_queue: WriteQueue
) -> Function:
    name = str(app_function.get_function_name())
    bindings = [
        {key: _resolved(value, environment, f"{name}: {key}") for key, value in json.loads(raw).items()}
        for raw in app_function.get_raw_bindings()
    ]
    for binding in bindings:
        if binding["type"] not in TRIGGERS + OUTPUTS:
            raise ConfigurationError(
                f"{name}: binding {binding['name']} has type {binding['type']}; "
                f"this host runs {', '.join(TRIGGERS + OUTPUTS)}. Use Azure Functions Core Tools for it."
            )
    if app_function.get_settings_dict("retry_policy"):
        raise ConfigurationError(f"{name}: this host runs no retry policies. Remove the policy, or use Core Tools.")

    trigger = next(binding for binding in bindings if binding["type"] in TRIGGERS)
    outputs = {binding["name"]: binding for binding in bindings if binding["type"] in OUTPUTS}
    handler = app_function.get_user_function()
    parameters = set(inspect.signature(handler).parameters)
    bound = {trigger["name"], *outputs} - {RETURN}
    wants_context = "context" in parameters - bound
    if parameters - ({"context"} if wants_context else set()) != bound:
        raise ConfigurationError(
            f"{name}: the handler takes {sorted(parameters)}, the decorators bind {sorted(bound)}. "
            f"Each bound name must be a parameter; only `context` may be added."
        )
    return Function(name, directory, handler, trigger, outputs, wants_context, write_queue)


def _resolved(value: Any, environment: Mapping[str, str], where: str) -> Any:
    return resolve(value, environment, where) if isinstance(value, str) else value


def _disabled(name: str, environment: Mapping[str, str]) -> bool:
    # https://learn.microsoft.com/azure/azure-functions/disable-function
    settings = (f"AzureWebJobs.{name}.Disabled", f"AzureWebJobs_{name}_Disabled")
    return any(environment.get(setting, "").lower() in ("true", "1") for setting in settings)

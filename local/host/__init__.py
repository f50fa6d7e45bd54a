"""Runs a Functions app on one machine without Core Tools: HTTP, timers and queues over real Storage.

This module owns how the parts start and stop together; what each does is in `web`, `timers`, `queues` and `functions`.
It is for development, demonstration and tests: one process, one function key, no scale-out, no Azure sign-in.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Self

from local.host.configuration import ConfigurationError, HostOptions, positive_number, read_host_options
from local.host.functions import Function, index
from local.host.queues import QueueListener, Queues
from local.host.timers import Timer, TimerState
from local.host.web import MAX_BODY_BYTES, HttpEndpoint, Site

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import TracebackType

    import azure.functions as func

__all__ = ["ConfigurationError", "Host", "HostOptions", "read_host_options"]

# The real host renews a lease of ten minutes, so the messages of a host that died come back after that time.
QUEUE_LEASE_S = 600
STOP_TIMEOUT_S = 10.0
HTTP_THREADS = 16
RUN_NOW_THREADS = 8


class Host:
    """A running app. `app.get_functions()` works once per app object, so an app object can be hosted once."""

    def __init__(
        self,
        app: func.FunctionApp,
        options: HostOptions,
        environment: Mapping[str, str],
        *,
        directory: str = ".",
        address: str = "127.0.0.1",
        port: int = 0,
        queue_lease_s: int = QUEUE_LEASE_S,
        timer_state: Path | None = None,
    ) -> None:
        """Port 0 takes any free port. Raises ConfigurationError for an app or setting that cannot run."""
        queues = Queues(environment, options.queues.message_encoding)
        self.functions = index(app.get_functions(), environment, directory, queues.write)
        state = TimerState(timer_state)
        self.timers = [Timer(function, state) for function in self._triggered_by("timerTrigger")]
        self.listeners = [
            QueueListener(function, queues, options.queues, queue_lease_s)
            for function in self._triggered_by("queueTrigger")
        ]
        self._background = ThreadPoolExecutor(RUN_NOW_THREADS, thread_name_prefix="run-now")
        run_now = {part.function.name: partial(self._in_background, part.run_now) for part in self._triggered_parts}
        self.site = Site(
            self.functions,
            route_prefix=options.route_prefix,
            function_key=environment.get("LOCAL_FUNCTION_KEY", "local"),
            run_now=run_now,
        )
        self._endpoint = HttpEndpoint(
            self.site,
            address,
            port,
            threads=positive_number("PYTHON_THREADPOOL_THREAD_COUNT", HTTP_THREADS, environment),
            max_body_bytes=positive_number("FUNCTIONS_REQUEST_BODY_SIZE_LIMIT", MAX_BODY_BYTES, environment),
        )
        self._address = address

    def _triggered_by(self, kind: str) -> list[Function]:
        return [function for function in self.functions if function.trigger["type"] == kind]

    @property
    def _triggered_parts(self) -> list[Timer | QueueListener]:
        return [*self.timers, *self.listeners]

    def _in_background(self, run_now: Callable[[bytes], None], run_input: bytes) -> None:
        self._background.submit(run_now, run_input)

    @property
    def url(self) -> str:
        return f"http://{self._address}:{self._endpoint.port}"

    def start(self) -> None:
        """Returns when HTTP requests are accepted."""
        self._endpoint.start()
        for part in self._triggered_parts:
            part.start()

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> bool:
        """Take no more work and let what runs finish. Returns False if something still ran when the time was over."""
        stops = [self._endpoint.stop, *(part.stop for part in self._triggered_parts), self._background.shutdown]
        stopping = [threading.Thread(target=stop, daemon=True) for stop in stops]
        for thread in stopping:
            thread.start()
        deadline = time.monotonic() + timeout_s
        for thread in stopping:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in stopping)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

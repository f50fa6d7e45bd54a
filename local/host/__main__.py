"""`python -m local.host`: reads the settings of this checkout, runs its app, prints `ready` when it answers."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from local.host import QUEUE_LEASE_S, STOP_TIMEOUT_S, ConfigurationError, Host, read_host_options
from local.host.configuration import load_local_settings

if TYPE_CHECKING:
    import azure.functions as func

ACCEPTED_LEASES_S = range(1, 7 * 24 * 3600 + 1)


class _FieldsFormatter(logging.Formatter):
    """Appends the fields of a record to its event name: `invocation function=health ms=0.3`."""

    STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is the library's
        fields = [f"{name}={value}" for name, value in vars(record).items() if name not in self.STANDARD]
        return " ".join([super().formatMessage(record), *fields])


def _log_to_stderr(level: str) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_FieldsFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
    # It logs the URL of each storage request.
    logging.getLogger("azure.core.pipeline.policies.http_logging_policy").setLevel(logging.WARNING)


def _app(module_name: str) -> func.FunctionApp:
    module = importlib.import_module(module_name)
    try:
        app: func.FunctionApp = module.app
    except AttributeError as exc:
        raise ConfigurationError(f"{module_name} has no `app`. Name the FunctionApp object `app`.") from exc
    return app


def _lease(text: str) -> int:
    if not text.isdecimal() or int(text) not in ACCEPTED_LEASES_S:
        raise argparse.ArgumentTypeError(f"{text!r}; accepted: whole seconds from 1 to 7 days")
    return int(text)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m local.host", description="Runs the app without Core Tools.")
    parser.add_argument("--port", type=int, default=7071, help="default 7071; 0 takes any free port")
    parser.add_argument("--address", default="127.0.0.1", help="default 127.0.0.1")
    parser.add_argument("--root", type=Path, default=Path(), help="folder of host.json and local.settings.json")
    parser.add_argument("--app", default="function_app", metavar="MODULE", help="module that holds `app`")
    parser.add_argument(
        "--queue-lease",
        type=_lease,
        default=QUEUE_LEASE_S,
        metavar="SECONDS",
        help=f"after this time the messages of a host that died come back; default {QUEUE_LEASE_S}, as in Azure",
    )
    parser.add_argument(
        "--timer-state", type=Path, metavar="FILE", help="remembers timers over restarts; without it none is past due"
    )
    parser.add_argument(
        "--stop-timeout",
        type=float,
        default=STOP_TIMEOUT_S,
        metavar="SECONDS",
        help=f"how long running functions may take to finish when the host stops; default {STOP_TIMEOUT_S:g}",
    )
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    arguments = parser.parse_args()

    _log_to_stderr(arguments.log_level)
    root = arguments.root.resolve()
    timer_state = arguments.timer_state and arguments.timer_state.resolve()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        os.chdir(root)
        sys.path.insert(0, str(root))
        load_local_settings(root / "local.settings.json", os.environ)
        host = Host(
            _app(arguments.app),
            read_host_options(root / "host.json", os.environ),
            os.environ,
            directory=str(root),
            address=arguments.address,
            port=arguments.port,
            queue_lease_s=arguments.queue_lease,
            timer_state=timer_state,
        )
        host.start()
    except ConfigurationError as exc:
        print(exc, file=sys.stderr)
        return 2

    print(_overview(host), "ready", sep="\n", flush=True)
    stop.wait()
    finished = host.stop(arguments.stop_timeout)
    if not finished:
        logging.getLogger("local.host").warning("stopped.while_functions_were_running")
        logging.shutdown()
        # The interpreter would wait for their threads; queue messages among them come back when their lease ends.
        os._exit(1)
    return 0


def _overview(host: Host) -> str:
    lines = [
        f"{route.function.name:24} {','.join(sorted(route.methods)) or 'ANY'} {host.url}{route.path}"
        for route in host.site.routes
    ]
    lines += [f"{timer.function.name:24} timer {timer.schedule.expression}" for timer in host.timers]
    lines += [f"{listener.function.name:24} queue {listener.queue_name}" for listener in host.listeners]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

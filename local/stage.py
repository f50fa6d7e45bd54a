"""Sets everything up on one machine: Azurite, the simulated systems, the host with its settings. Does nothing in it.

Simulators and host are processes of their own that end with this one, however it ends; what they print is in
`<name>.log` in the stage's directory.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from traceback import clear_frames
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from local.azurite import Azurite
from local.desks import DESKS

if TYPE_CHECKING:
    from types import FrameType, TracebackType

ROOT = Path(__file__).resolve().parent.parent
KEY = "local"
START_TIMEOUT_S = 60
# The host lets running functions finish for ten seconds.
STOP_TIMEOUT_S = 15
LOOK_EVERY_S = 0.05
LAST_LINES = 30

# What a person watching does not want to wait for. In Azure these are a minute, five minutes and two seconds.
PACE = {
    "CRM_POLL_SCHEDULE": "* * * * * *",
    "SWEEP_SCHEDULE": "*/5 * * * * *",
    "AzureFunctionsJobHost__extensions__queues__maxPollingInterval": "00:00:00.250",
}
ADDRESS_IN = {
    "partner_center": "PARTNER_CENTER_URL",
    "partner_center_webhooks": "PARTNER_CENTER_WEBHOOKS_URL",
    "entra": "ENTRA_AUTHORITY",
    "other_tool": "WEBHOOK_RELAY_URLS",
}

# A function that no HTTP request calls: name, kind of trigger, schedule or queue.
PLAIN_FUNCTION = re.compile(r"\w+ +(?:timer|queue) \S")


class StageError(Exception):
    """Something on the stage did not start, or ended by itself; the message names it and holds what it printed last."""


@dataclass
class Child:
    """One process of ours and the file it prints to."""

    name: str
    process: subprocess.Popen[bytes]
    log_file: Path
    began_at_byte: int

    @classmethod
    def start(cls, name: str, arguments: list[str], environment: dict[str, str], directory: Path) -> Self:
        log_file = directory / f"{name}.log"
        with log_file.open("ab") as output:
            began_at_byte = output.tell()
            process = subprocess.Popen(
                [sys.executable, "-m", "local.child", *arguments],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C in a terminal goes to the whole group; we end the children, one after the other.
                start_new_session=True,
            )
        return cls(name, process, log_file, began_at_byte)

    def wait_until_ready(self) -> None:
        """Each of our programs prints `ready`. Raises StageError."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while "ready" not in self.printed():
            self.check()
            if time.monotonic() > deadline:
                raise StageError(f"{self.name} is not ready after {START_TIMEOUT_S} s. {self._last_words()}")
            time.sleep(LOOK_EVERY_S)

    def check(self) -> None:
        """Raises StageError when the process has ended."""
        if (exit_code := self.process.poll()) is not None:
            raise StageError(f"{self.name} ended with exit code {exit_code}. {self._last_words()}")

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
        assert self.process.stdin is not None
        self.process.stdin.close()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def printed(self) -> list[str]:
        with self.log_file.open("rb") as log:
            log.seek(self.began_at_byte)
            return log.read().decode(errors="replace").splitlines()

    def _last_words(self) -> str:
        return "\n".join([f"The end of {self.log_file}:", *self.printed()[-LAST_LINES:]])


class Stage:
    """Everything running, while the `with` block runs.

    `urls` are the simulated systems by name, the CRM by the name `crm`, whichever it is; `host_url` is the app's,
    `ca_file` what a client must trust to reach them.
    """

    def __init__(self, directory: Path, *, crm: str = "dynamics365", port: int = 0, queue_lease_s: int = 600) -> None:
        """`crm` is what the setting CRM takes. Port 0 takes any free port. `queue_lease_s`: after this time the
        messages of a killed host come back."""
        self.directory = directory.resolve()
        self.crm = crm
        self._port = port
        self._queue_lease_s = queue_lease_s
        self._running = ExitStack()

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        with self._running:
            self.azurite = self._running.enter_context(Azurite(self.directory / "azurite"))
            self._simulators, simulator_settings = self._start_simulators()
            addresses = {**ADDRESS_IN, "crm": DESKS[self.crm].address_in}
            self.urls = {name: _origin(simulator_settings[setting]) for name, setting in addresses.items()}
            self.urls["certificates"] = f"https://{simulator_settings['WEBHOOK_CERTIFICATE_HOSTS']}"
            self.ca_file = simulator_settings["REQUESTS_CA_BUNDLE"]
            self._port = _free_port(self._port)
            self.host_url = f"http://127.0.0.1:{self._port}"
            self.webhook_url = f"{self.host_url}/api/webhook_receiver?code={KEY}"
            self.settings = {
                **simulator_settings,
                **PACE,
                "AzureWebJobsStorage": self.azurite.connection_string,
                "WEBHOOK_URL": self.webhook_url,
                "LOCAL_FUNCTION_KEY": KEY,
                "PARTNER_CENTER_TOKEN_FILE": str(self._fresh("partner-center-refresh-token")),
            }
            self.start_host()
            self._running.callback(lambda: self._host.stop())
            self._running = self._running.pop_all()  # all is up: from here on __exit__ ends it
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # An interrupted request would hold its connection, and the simulators wait for what began to connect.
        clear_frames(traceback)
        self._running.close()

    def start_host(self) -> None:
        """Start the host, at the same address each time. Returns when it listens. Raises StageError."""
        root = self.directory / "app"  # a root of its own: the settings are those above, not local.settings.json's
        root.mkdir(exist_ok=True)
        shutil.copy(ROOT / "host.json", root)
        arguments = ["local.host", "--root", str(root), "--port", str(self._port)]
        lease = ["--queue-lease", str(self._queue_lease_s)]
        self._host = Child.start("host", [*arguments, *lease], _environment(self.settings), self.directory)
        try:
            self._host.wait_until_ready()
        except BaseException:
            self._host.stop()
            raise

    def kill_host(self) -> None:
        """End the host as a power cut would."""
        self._host.kill()

    def check(self) -> None:
        """Raises StageError, or AzuriteError, when something that should run has ended."""
        self.azurite.check()
        self._simulators.check()
        self._host.check()

    @property
    def host_says(self) -> list[str]:
        """The functions of the host, one a line, as it printed them when it began."""
        return [line for line in self._host.printed() if self.host_url in line or PLAIN_FUNCTION.match(line)]

    @property
    def log_files(self) -> list[Path]:
        return [self._host.log_file, self._simulators.log_file, *map(self.azurite.log_file, ("queue", "table"))]

    def _start_simulators(self) -> tuple[Child, dict[str, str]]:
        file = self._fresh("simulators.env")
        arguments = ["local.simulators", "--crm", self.crm, "--settings-file", str(file)]
        child = Child.start("simulators", arguments, _environment({}), self.directory)
        self._running.callback(child.stop)
        child.wait_until_ready()
        return child, dict(line.split("=", 1) for line in file.read_text(encoding="utf-8").splitlines())

    def _fresh(self, name: str) -> Path:
        """A file that an earlier run with the same directory must not have left."""
        file = self.directory / name
        file.unlink(missing_ok=True)
        return file


def interrupt_on_sigterm() -> None:
    """Let SIGTERM end this program as Ctrl-C does: with everything cleaned up."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def _environment(settings: dict[str, str]) -> dict[str, str]:
    inherited = dict(os.environ)
    beside_proxies = [inherited.get("NO_PROXY") or inherited.get("no_proxy") or "", "localhost", "127.0.0.1"]
    no_proxy = ",".join(filter(None, beside_proxies))
    return inherited | {"NO_PROXY": no_proxy, "no_proxy": no_proxy, "PYTHONUNBUFFERED": "1"} | settings


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _free_port(wanted: int) -> int:
    """The wanted port, 0 for any, if nobody uses it. Raises StageError."""
    with socket.socket() as probe:
        try:
            # As servers do; without it a port counts as taken for a minute after its last connection.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", wanted))
        except OSError as exc:
            raise StageError(f"Port {wanted} cannot be used: {exc}. Choose another by --port; 0 takes any.") from exc
        return int(probe.getsockname()[1])

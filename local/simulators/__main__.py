"""`python -m local.simulators`: serves all simulated systems, prints the app settings that point at them, then `ready`.

Runs until it is interrupted or terminated. With a browser: <address>/_state shows what a system holds, /_log its calls.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from local.simulators.systems import CRMS, Simulators


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m local.simulators", description=__doc__)
    parser.add_argument("--port-base", type=int, default=0, help="first of the ports; default: any free ones")
    parser.add_argument("--settings-file", type=Path, help="also write the settings here, as NAME=VALUE lines")
    parser.add_argument("--crm", choices=CRMS, default=CRMS[0], help="the CRM setting")
    arguments = parser.parse_args()

    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with Simulators().serve(arguments.port_base) as simulators:
        settings = {**simulators.settings(arguments.crm), "WEBHOOK_RELAY_URLS": simulators.listener_url}
        lines = [f"{name}={value}" for name, value in settings.items()]
        if arguments.settings_file:
            arguments.settings_file.write_text("\n".join(lines) + "\n")
        for name, url in simulators.urls.items():
            print(f"# {name}: {url}/_state")
        print(*lines, "ready", sep="\n", flush=True)
        stopped.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())

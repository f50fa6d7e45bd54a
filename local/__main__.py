"""`python -m local`: Azurite, the simulated systems and the host, left running for a person to play with.

Registers the webhook and prints every address and commands to try. Ctrl-C ends it all.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
import tempfile
import time
from pathlib import Path
from shlex import quote
from typing import Any

import requests

from local.azurite import AzuriteError
from local.desks import DESKS
from local.stage import KEY, Stage, StageError, interrupt_on_sigterm

PORT = 7071
WATCH_EVERY_S = 0.5
TIMEOUT_S = 60

COMMANDS = """\
CA={ca}
# A seller shares an opportunity with Microsoft:
{share}

# Microsoft accepts the deal that was shared last:
ENGAGEMENT=$(curl -sS --cacert $CA {partner_center}/_state | {python} -c 'import json, sys
print([*json.load(sys.stdin)["engagements"]][-1])')
curl -sS --cacert $CA {partner_center}/_people/microsoft_accepts -d "{{\\"engagement_id\\": \\"$ENGAGEMENT\\"}}"

# Look at both sides:
curl -sS --cacert $CA {partner_center}/_state | {python} -c 'import json, sys
print(json.dumps(json.load(sys.stdin)["engagements"], indent=2))'
curl -sS --cacert $CA {crm}/_state | {python} -c 'import json, sys
print(json.dumps(json.load(sys.stdin)["{opportunities}"], indent=2))'

# Microsoft brings a deal; a customer asks for a partner:
curl -sS --cacert $CA -X POST {partner_center}/_people/microsoft_creates_deal
curl -sS --cacert $CA -X POST {partner_center}/_people/creates_lead

# What is registered, what it should be, and how the app is doing:
{python} -m admin registration --app {host} --key {key}
curl -sS '{host}/api/health?code={key}'

# Another tool takes the registration; the daily check notices; the admin takes it back:
curl -sS --cacert $CA {partner_center}/_people/another_tool_registers -d '{{"url": "https://other.example/hook"}}'
curl -sS -H 'content-type: application/json' -d '{{"input": ""}}' '{host}/admin/functions/check_registration?code={key}'
curl -sS '{host}/api/health?code={key}'
{python} -m admin register --overwrite --app {host} --key {key}

# What waits for a person, what happened to a deal, whether both sides agree (with the app's settings):
set -a; . {settings}; set +a
{python} -m admin failures
{python} -m admin explain <deal>
{python} -m admin sweep
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m local", description=__doc__)
    parser.add_argument("--crm", choices=DESKS, default="dynamics365", help="default dynamics365")
    parser.add_argument("--port", type=int, default=PORT, help=f"of the host; default {PORT}, 0 takes any free one")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="keep tables, queues and logs there; what the simulated systems hold is always forgotten",
    )
    options = parser.parse_args()
    interrupt_on_sigterm()
    directory = options.data or Path(tempfile.mkdtemp(prefix="cosell-local-"))
    try:
        print("Starting Azurite, the simulated systems and the host ...", flush=True)
        with Stage(directory, crm=options.crm, port=options.port) as stage:
            print(_register(stage), _overview(stage), sep="\n\n", flush=True)
            while True:
                stage.check()
                time.sleep(WATCH_EVERY_S)
    except KeyboardInterrupt:
        print("\nEverything was stopped.")
    except (StageError, AzuriteError, requests.RequestException) as exc:
        print(f"{exc}\nEverything else was stopped.", file=sys.stderr)
        return 1
    if options.data is None:
        shutil.rmtree(directory)
    return 0


def _register(stage: Stage) -> str:
    """Register the webhook; returns what the app says to it. Raises StageError when it could not."""
    session = requests.Session()
    session.trust_env = False
    url = f"{stage.host_url}/api/register_webhook"
    answer = session.post(url, json={"test": True}, headers={"x-functions-key": KEY}, timeout=TIMEOUT_S)
    if not answer.ok:
        raise StageError(f"The webhook could not be registered: {answer.status_code} {answer.text}")
    outcome = answer.json()
    return f"Webhook {outcome['actual']['webhook_url']}: {outcome['explanation']}\n{outcome['test']['explanation']}"


def _settings_file(stage: Stage) -> Path:
    """Write the app's settings to where a shell can read them; it goes with the stage."""
    file = stage.directory / "app.env"
    file.touch(mode=0o600)
    file.write_text("".join(f"{name}={shlex.quote(value)}\n" for name, value in stage.settings.items()))
    return file


def _overview(stage: Stage) -> str:
    pages = [f"  {name:24} {url}/_state   {url}/_log" for name, url in stage.urls.items()]
    functions = [f"  {line}" for line in stage.host_says]
    commands = COMMANDS.format(
        ca=stage.ca_file,
        host=stage.host_url,
        key=KEY,
        python=sys.executable,
        share=_command_to_share(stage),
        settings=_settings_file(stage),
        opportunities=DESKS[stage.crm].opportunities_in,
        **stage.urls,
    )
    return "\n".join(
        [
            "What the simulated systems hold, and who called them, for a browser (their certificates are throw-away):",
            *pages,
            "",
            f"The functions of the host (the key is ?code={KEY}):",
            *functions,
            "",
            "The logs:",
            *(f"  {file}" for file in stage.log_files),
            "",
            "Commands to try:",
            commands,
            "Ready. Ctrl-C ends everything.",
        ]
    )


def _command_to_share(stage: Stage) -> str:
    """A seller has a customer already, and leaves the rest to the person; returns the command that does it."""
    session = requests.Session()
    session.trust_env = False
    session.verify = stage.ca_file
    people, state = f"{stage.urls['crm']}/_people", f"{stage.urls['crm']}/_state"
    commands: list[str] = []

    def act(action: str, **arguments: Any) -> Any:
        answer = session.post(f"{people}/{action}", json=arguments, timeout=TIMEOUT_S)
        answer.raise_for_status()
        return answer.json()["result"]

    def note(action: str, **arguments: Any) -> None:
        commands.append(f"curl -sS --cacert $CA {people}/{action} -d {quote(json.dumps(arguments, indent=2))}")

    def show() -> Any:
        return session.get(state, timeout=TIMEOUT_S).json()

    seller = DESKS[stage.crm](act, show)
    account = seller.create_account(name="Contoso")
    contact = seller.create_contact(account)
    DESKS[stage.crm](note, show).create_opportunity(
        account=account, contact=contact, help="CustomerTechnicalArchitecture"
    )
    return "\n".join(commands)


if __name__ == "__main__":
    sys.exit(main())

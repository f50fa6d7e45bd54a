"""The webhook registration from the command line: in this process, or by the deployed app. Prints what it answers."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import Any

import requests

from shared.addresses import problem
from shared.registration import registrar_of
from shared.registration.answer import answer
from shared.services import Services

TIMEOUT_S = 180  # the app follows a test event for a minute


def register(given: Namespace, services: Services) -> int:
    """`python -m admin register`. Returns the exit code: 1 when it was refused, or the test event went wrong."""
    wish = {
        "webhook_url": given.webhook_url,
        "events": given.events.split(",") if given.events else None,
        "overwrite": given.overwrite,
        "test": given.test,
    }
    status, said = _ask("POST", wish, given, services)
    test = said.get("test")
    if "result" in said:
        print(f"{said['result']}: {said['explanation']}")
        print(f"  before: {_registration(said['before'])}")
        print(f"  now:    {_registration(said['actual'])}")
        if said["result"] != "refused":
            print(f"  test event: {test['explanation'] if test else 'none was sent; --test has one sent'}")
    else:
        _print_problem(said)
    return 0 if status == 200 and not (test and test["passed"] is False) else 1


def show(given: Namespace, services: Services) -> int:
    """`python -m admin registration`. Returns the exit code: 1 when it could not be looked at."""
    if given.keys:
        registration = services.webhooks.registration()
        print(registration.webhook_url if registration else "Nothing is registered.")
        return 0
    status, said = _ask("GET", None, given, services)
    if status != 200:
        _print_problem(said)
        return 1
    print(said["explanation"])
    print(f"  should be: {_registration(said['desired'])}")
    print(f"  is:        {_registration(said['actual'])}")
    for entry in said["history"]:
        print(f"  {entry['at']}  {entry['event']}: {entry['says']}")
    return 0


def _ask(method: str, wish: Any, given: Namespace, services: Services) -> tuple[int, dict[str, Any]]:
    if not given.app:
        body = json.dumps(wish).encode() if wish else b""
        return answer(method, body, lambda: registrar_of(services))
    url = f"{given.app.rstrip('/').removesuffix('/api')}/api/register_webhook"
    if wrong := problem(url):
        return 0, {"error": f"--app {wrong.partition(';')[0]}, for example https://<app>.azurewebsites.net"}
    try:
        said = requests.request(
            method,
            url,
            json=wish,
            headers={"x-functions-key": given.key or ""},
            timeout=TIMEOUT_S,
            allow_redirects=False,
        )
        return said.status_code, said.json()
    except requests.JSONDecodeError:
        hint = "is --key a key of the app?" if said.status_code == 401 else "is --app the app's address?"
        return said.status_code, {"error": f"{url} answered {said.status_code}: {hint}"}
    except requests.RequestException as failed:
        return 0, {"error": f"{url} gave no answer ({type(failed).__name__}): is the address right, does the app run?"}


def _registration(registration: dict[str, Any] | None) -> str:
    return f"{registration['webhook_url']} ({', '.join(registration['events'])})" if registration else "nothing"


def _print_problem(said: dict[str, Any]) -> None:
    print(
        said.get("error") or f"This was not understood: {json.dumps(said)[:500]}", *said.get("problems", ()), sep="\n  "
    )
    if said.get("next_step"):
        print(f"  next: {said['next_step']}")

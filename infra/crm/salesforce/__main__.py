"""Command line that provisions a Salesforce org: `python -m infra.crm.salesforce [--plan] [--assign <username>]`.

Reads SALESFORCE_URL, and the field map of MAPPING_FILE. Signs in with SALESFORCE_ACCESS_TOKEN, a System
Administrator's, where it is set, otherwise as the app.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from uuid import UUID

from infra.crm.salesforce.advice import Advice
from infra.crm.salesforce.fields import load_wanted
from infra.crm.salesforce.org import Org, User
from infra.crm.salesforce.provision import Provisioning
from infra.crm.salesforce.sign_in import App, SignIn
from infra.crm.steps import Work, exit_code, plan_in_words
from shared.errors import Refused, SettingsError
from shared.mapping import FieldMap
from shared.remote.http import Remote
from shared.remote.salesforce_rows import columns_of, select, where
from shared.services import Services
from shared.settings import CrmChoice

NO_SUCH_REFERRAL = str(UUID(int=0))


def main(
    arguments: Sequence[str] | None = None,
    services: Services | None = None,
    *,
    say: Callable[[str], None] = print,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Return 0 when all is there (or planned), 1 when something stands in the way; `say` gets each line."""
    options = _options(arguments)
    return exit_code(lambda: _provision(options, services or Services(), say, sleep), say)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m infra.crm.salesforce",
        description="Adds the fields that synchronized opportunities and leads need, and the permission sets that "
        "show them. Run it as often as you like: what is there stays as it is.",
    )
    parser.add_argument("--plan", action="store_true", help="only say what would be done")
    parser.add_argument(
        "--assign",
        metavar="USERNAME",
        help="who gets the permission set of the app; without it, the user that SALESFORCE_CLIENT_ID signs in as",
    )
    return parser.parse_args(arguments)


def _provision(
    options: argparse.Namespace, services: Services, say: Callable[[str], None], sleep: Callable[[float], None]
) -> None:
    choice = services.settings(CrmChoice)
    if choice.crm != "salesforce":
        raise SettingsError([f"CRM is {choice.crm}, but this sets up Salesforce: set CRM=salesforce"])
    field_map, wanted = services.field_map, load_wanted()
    sign_in = SignIn(services, sleep)
    org, app = Org(sign_in.installer()), sign_in.app()
    user = _user(org, options.assign, app)
    provisioning = Provisioning(org, wanted, field_map, user)
    steps = provisioning.steps()
    for line in plan_in_words(f"Org {org.name()}", steps):
        say(line)
    if steps and not options.plan:
        say("Doing it:")
        work = Work("Salesforce", lambda words: say(f"  - {words}"), clock=services.clock, sleep=sleep)
        work.until_none_is_left(provisioning.steps)
    for line in Advice(org, wanted, field_map, provisioning.found(), choice.only_currency).lines():
        say(f"Note: {line}")
    if not user:
        say(f"Note: {wanted.of_the_app.name} is assigned to nobody: add --assign <username>")
    if options.plan:
        return
    if app:
        _read_as_the_app_does(app.remote, field_map)
        say("Done: every field that the field map names can be read by the app.")
    else:
        say("Done. To have the app's own sign-in tried, set SALESFORCE_CLIENT_ID and _CLIENT_SECRET, and run again.")


def _user(org: Org, username: str | None, app: App | None) -> User | None:
    """Return who runs the app, None when nobody is named."""
    if username is None:
        return org.user(Id=app.user_id) if app and app.user_id else None
    user = org.user(Username=username)
    if user is None:
        raise Refused(
            f"this org has no active user {username}",
            next_step="--assign takes the Username of Setup, Users, which is not always the e-mail address",
            remote="Salesforce",
        )
    return user


def _read_as_the_app_does(app: Remote, field_map: FieldMap) -> None:
    """Look for a referral that no record carries: the answer is empty, or says which field cannot be read.

    The app itself leaves out what it cannot read; here that is what we want to know.
    """
    for table in field_map.tables.values():
        condition = where({table.columns.referral_id: NO_SUCH_REFERRAL})
        soql = f"{select(table.table, columns_of(table.shape))} WHERE {condition} LIMIT 1"
        app.json("GET", "query", params={"q": soql})


if __name__ == "__main__":
    sys.exit(main())

"""Command line that provisions a Dynamics 365 environment: `python -m infra.crm.dynamics365 [--plan]`.

Reads DYNAMICS365_URL, and the field map of MAPPING_FILE. Signs in with DYNAMICS365_CLIENT_SECRET where it is set,
otherwise as the person who ran `az login`; either must be a System Customizer of the environment.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from infra.crm.dynamics365.columns import load_wanted
from infra.crm.dynamics365.metadata import Metadata
from infra.crm.dynamics365.provision import Provisioning
from infra.crm.steps import exit_code, plan_in_words
from shared.errors import Refused, SignInFailed
from shared.mapping import FieldMap
from shared.remote.auth import ENTRA, CachedToken, ClientCredentials, EntraTokens, TokenSource
from shared.remote.dataverse import API_PATH, Dataverse
from shared.remote.dataverse_errors import DIALECT
from shared.remote.http import Remote
from shared.services import Services
from shared.settings import Dynamics365Settings

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

DEFINITIONS_TIMEOUT_S = (5.0, 180.0)
"""Adding a column takes the servers many seconds."""
NO_SUCH_REFERRAL = str(UUID(int=0))
SECONDS_BETWEEN_LOOKS = (3.0, 10.0, 20.0)
"""New columns take a moment to become readable."""


class SignedInPerson(CachedToken):
    """Signs in as whoever ran `az login` on this machine."""

    def __init__(self, scope: str, clock: Callable[[], datetime], credential: TokenCredential | None = None) -> None:
        super().__init__(clock)
        self._scope = scope
        self._credential = credential

    def _fetch(self) -> tuple[str, datetime]:
        from azure.core.exceptions import ClientAuthenticationError
        from azure.identity import AzureCliCredential

        try:
            given = (self._credential or AzureCliCredential()).get_token(self._scope)
        except ClientAuthenticationError as failed:
            raise SignInFailed(
                f"nobody is signed in for {self._scope}: run `az login`, or set DYNAMICS365_TENANT_ID, "
                f"DYNAMICS365_CLIENT_ID and DYNAMICS365_CLIENT_SECRET. Azure CLI said: {failed.message}"
            ) from failed
        return given.token, datetime.fromtimestamp(given.expires_on, UTC)


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
        prog="python -m infra.crm.dynamics365",
        description="Adds the columns and keys that synchronized opportunities and leads need. Run it as often as "
        "you like: what is there stays as it is.",
    )
    parser.add_argument("--plan", action="store_true", help="only say what would be done")
    parser.add_argument(
        "--enable-change-tracking",
        action="store_true",
        help="also switch change tracking on for opportunity and lead; it cannot be switched off again",
    )
    return parser.parse_args(arguments)


def _provision(
    options: argparse.Namespace, services: Services, say: Callable[[str], None], sleep: Callable[[float], None]
) -> None:
    remote = _dynamics365(services, sleep)
    field_map = services.field_map
    wanted = load_wanted()
    provisioning = Provisioning(
        Metadata(remote, wanted.solution.uniquename),
        wanted,
        track_changes=options.enable_change_tracking,
        clock=services.clock,
        sleep=sleep,
    )
    steps = provisioning.steps()
    environment = provisioning.environment
    where = f"Environment {environment.name}, signed in as user {environment.caller}"
    for line in plan_in_words(where, steps):
        say(line)
    if steps and not options.plan:
        say("Doing it:")
        provisioning.run(lambda words: say(f"  - {words}"))
    for line in provisioning.advice(field_map):
        say(f"Note: {line}")
    if not options.plan:
        _read_as_the_app_does(remote, field_map, sleep)
        say("Done: every column that the field map names can be read.")


def _dynamics365(services: Services, sleep: Callable[[float], None]) -> Remote:
    settings = services.settings(Dynamics365Settings)
    scope = f"{settings.url}/.default"
    person: TokenSource = SignedInPerson(scope, services.clock)
    if settings.client_secret:
        entra = Remote(
            "Entra ID",
            settings.authority,
            None,
            dialect=ENTRA,
            session=services.session,
            clock=services.clock,
            sleep=sleep,
        )
        secret = settings.client_secret.get_secret_value()
        tokens = EntraTokens(entra, settings.tenant_id or "", settings.client_id or "", secret, clock=services.clock)
        person = ClientCredentials(tokens, scope)
    return Remote(
        "Dynamics 365",
        f"{settings.url}/{API_PATH}",
        person,
        dialect=DIALECT,
        session=services.session,
        clock=services.clock,
        sleep=sleep,
        timeout_s=DEFINITIONS_TIMEOUT_S,
    )


def _read_as_the_app_does(remote: Remote, field_map: FieldMap, sleep: Callable[[float], None]) -> None:
    """Look for a referral that no record carries: the answer is empty, or says which column cannot be read."""
    crm = Dataverse(remote, {name: table.shape for name, table in field_map.tables.items()})
    for table in field_map.tables:
        for pause_s in SECONDS_BETWEEN_LOOKS:
            try:
                crm.find_by_referral(table, NO_SUCH_REFERRAL)
                break
            except Refused:
                sleep(pause_s)
        else:
            crm.find_by_referral(table, NO_SUCH_REFERRAL)


if __name__ == "__main__":
    sys.exit(main())

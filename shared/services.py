"""Builds everything from the settings: the only module that knows the concrete clients and stores.

Each part is built on first use and kept for the life of the process, so that the webhook never loads what only the
worker needs. Tests give a Services their own parts.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from shared.errors import SettingsError
from shared.settings import (
    CrmChoice,
    Dynamics365Settings,
    Group,
    PartnerCenterSettings,
    SalesforceSettings,
    StorageSettings,
    load,
)

if TYPE_CHECKING:
    import requests

    from shared.mapping import FieldMap
    from shared.model import Referral
    from shared.remote.auth import CachedToken, EntraTokens, Tell, TokenSource
    from shared.remote.crm import Crm, TableShape
    from shared.remote.dialect import Dialect
    from shared.remote.http import Remote
    from shared.remote.partner_center import PartnerCenter
    from shared.remote.partner_center_webhooks import PartnerCenterWebhooks
    from shared.remote.salesforce_sign_in import SalesforceSignIn
    from shared.remote.token_store import TokenStore
    from shared.store.audit import Audit
    from shared.store.captures import Captures
    from shared.store.cursors import Cursors
    from shared.store.deals import Deals
    from shared.store.failures import Failures
    from shared.store.journal import Journal
    from shared.store.pauses import Pauses
    from shared.store.queue import Queue
    from shared.store.signs import Signs
    from shared.store.sweeps import Sweeps
    from shared.store.tables import TableStorage

G = TypeVar("G", bound=Group)

READERS = 8
"""Keeps a full sweep of 20,000 pairs, two reads for each on each side, within minutes."""


def utc_now() -> datetime:
    return datetime.now(UTC)


class Services:
    """The parts of one process.

    `environ` None: the process's own environment; `session` None: each remote has its own; `sleep` waits the seconds
    between retries within one call; `random` gives numbers from 0 to 1; `readers`: threads that read Storage where
    there is much to read.
    """

    def __init__(
        self,
        environ: Mapping[str, str] | None = None,
        *,
        clock: Callable[[], datetime] = utc_now,
        sleep: Callable[[float], None] = time.sleep,
        session: requests.Session | None = None,
        random: Callable[[], float] = random.random,
        readers: int = 1,
    ) -> None:
        self.environ = environ
        self.session = session
        self.sleep = sleep
        self.random = random
        self.clock = clock
        self._unnoted = False
        self.readers = readers

    def settings(self, group: type[G]) -> G:
        """Return a group of settings. Raises SettingsError with all of the group's problems."""
        return load(group, self.environ)

    def is_set(self, name: str) -> bool:
        """Return whether a setting has any value, be it a wrong one."""
        return bool((os.environ if self.environ is None else self.environ).get(name, "").strip())

    # ------------------------------------------------------------ storage

    @cached_property
    def queue(self) -> Queue:
        from shared.store.queue import WorkQueue

        return WorkQueue(self.settings(StorageSettings))

    @cached_property
    def relays(self) -> Queue:
        """The calls to pass on to other listeners."""
        from shared.store.queue import RELAY_REQUESTS, WorkQueue

        return WorkQueue(self.settings(StorageSettings), name=RELAY_REQUESTS)

    @cached_property
    def _tables(self) -> TableStorage:
        from shared.store.tables import TableStorage

        return TableStorage(self.settings(StorageSettings))

    @cached_property
    def deals(self) -> Deals:
        from shared.store.deals import Deals
        from shared.store.tables import DEALS, INDEX

        return Deals(self._tables.table(DEALS), self._tables.table(INDEX), self.clock)

    @cached_property
    def audit(self) -> Audit:
        from shared.store.audit import Audit
        from shared.store.tables import DEALS, INDEX

        return Audit(self._tables.table(DEALS), self._tables.table(INDEX))

    @cached_property
    def failures(self) -> Failures:
        from shared.store.failures import Failures
        from shared.store.tables import INDEX

        return Failures(self._tables.table(INDEX), self.clock)

    @cached_property
    def cursors(self) -> Cursors:
        from shared.store.cursors import Cursors
        from shared.store.tables import CURSORS

        return Cursors(self._tables.table(CURSORS))

    @cached_property
    def signs(self) -> Signs:
        from shared.store.signs import Signs
        from shared.store.tables import INDEX

        return Signs(self._tables.table(INDEX), self.clock)

    def note(self, part: str, why: str = "") -> None:
        """Note that a part works or, if it does not, why. Without Storage there is nowhere to note it."""
        if self._unnoted:
            return
        try:
            signs = self.signs
        except SettingsError:
            return  # said at the start, in health, and by whatever cannot do without
        if why:
            signs.failed(part, why)
        else:
            signs.well(part)

    @contextmanager
    def unnoted(self) -> Iterator[None]:
        """Note nothing meanwhile: what only looks leaves no trace. A renewed refresh token is kept all the same."""
        self._unnoted = True
        try:
            yield
        finally:
            self._unnoted = False

    @cached_property
    def journal(self) -> Journal:
        from shared.store.journal import Journal
        from shared.store.tables import INDEX

        return Journal(self._tables.table(INDEX), self.clock)

    @cached_property
    def captures(self) -> Captures:
        from shared.store.captures import Captures
        from shared.store.tables import INDEX

        return Captures(self._tables.table(INDEX), self.clock)

    @cached_property
    def sweeps(self) -> Sweeps:
        from shared.store.sweeps import Sweeps
        from shared.store.tables import INDEX

        return Sweeps(self._tables.table(INDEX))

    @cached_property
    def pauses(self) -> Pauses:
        from shared.store.pauses import Pauses
        from shared.store.tables import INDEX

        return Pauses(self._tables.table(INDEX), self.clock)

    # ------------------------------------------------------------ the outside systems

    @cached_property
    def partner_center(self) -> PartnerCenter:
        from shared.remote.partner_center import DIALECT, PartnerCenter

        settings = self._partner_center
        user = self._partner_center_user(settings.scope)
        return PartnerCenter(self._shared("Partner Center", settings.url, user, DIALECT))

    @cached_property
    def webhooks(self) -> PartnerCenterWebhooks:
        from shared.remote.partner_center_webhooks import WEBHOOKS_DIALECT, PartnerCenterWebhooks

        settings = self._partner_center
        user = self._partner_center_user(settings.webhooks_scope)
        remote, test_sender = (
            self._remote("Partner Center webhooks", settings.webhooks_url, user, WEBHOOKS_DIALECT) for _ in range(2)
        )
        return PartnerCenterWebhooks(remote, test_sender)

    @cached_property
    def crm(self) -> Crm:
        connect = {"dynamics365": self._dynamics365, "salesforce": self._salesforce}
        return connect[self.settings(CrmChoice).crm]()

    @cached_property
    def field_map(self) -> FieldMap:
        from shared.mapping import load_field_map

        choice = self.settings(CrmChoice)
        return load_field_map(choice.field_map, choice.only_currency)

    def referral_link(self, referral: Referral) -> str:
        """Return the address at which a person finds the referral in Partner Center."""
        template = self._partner_center.referral_link
        return template.replace("{referral_id}", referral.id).replace("{engagement_id}", referral.engagement_id)

    @cached_property
    def _partner_center(self) -> PartnerCenterSettings:
        return self.settings(PartnerCenterSettings)

    @cached_property
    def _refresh_tokens(self) -> TokenStore:
        from shared.remote.token_store import FileTokenStore, KeyVaultTokenStore

        settings = self._partner_center
        if settings.token_vault_url:
            return KeyVaultTokenStore(settings.token_vault_url)
        return FileTokenStore(settings.token_file)

    def _partner_center_user(self, scope: str) -> TokenSource:
        from shared.remote.auth import RefreshToken

        settings = self._partner_center
        configured = settings.refresh_token.get_secret_value() if settings.refresh_token else None
        tokens = self._entra(
            settings.authority, settings.tenant_id, settings.client_id, settings.client_secret.get_secret_value()
        )
        stored = self._noted("refresh_token")
        user = RefreshToken(tokens, scope, self._refresh_tokens, configured, tell_stored=stored)
        user.tell = self._noted("partner_center_sign_in")
        return user

    def _dynamics365(self) -> Crm:
        from shared.remote.auth import ClientCredentials, ManagedIdentity
        from shared.remote.dataverse import API_PATH, Dataverse
        from shared.remote.dataverse_errors import DIALECT

        settings = self.settings(Dynamics365Settings)
        scope = f"{settings.url}/.default"
        user: CachedToken
        if settings.client_secret:
            secret = settings.client_secret.get_secret_value()
            user = ClientCredentials(
                self._entra(settings.authority, settings.tenant_id or "", settings.client_id or "", secret), scope
            )
        else:
            user = ManagedIdentity(scope, settings.client_id, clock=self.clock)
        user.tell = self._noted("crm_sign_in")
        return Dataverse(self._shared("Dynamics 365", f"{settings.url}/{API_PATH}", user, DIALECT), self._shapes)

    def _salesforce(self) -> Crm:
        from shared.remote.salesforce import API_PATH, TIMEOUT_S, Salesforce
        from shared.remote.salesforce_errors import DIALECT
        from shared.remote.salesforce_limits import DailyBudget

        settings, user = self.settings(SalesforceSettings), self.salesforce_sign_in()
        user.tell = self._noted("crm_sign_in")
        url = f"{settings.url}/{API_PATH}/{settings.api_version}"
        budget = DailyBudget(settings.api_reserve)
        remote = self._shared("Salesforce", url, user, DIALECT, pause_after=budget, timeout_s=TIMEOUT_S)
        return Salesforce(remote, self._shapes, user_id=lambda: user.user_id, clock=self.clock)

    def salesforce_sign_in(self) -> SalesforceSignIn:
        """Return a sign-in of its own to the Salesforce org, as the app. Raises SettingsError."""
        from shared.remote.salesforce_sign_in import OAUTH, SalesforceSignIn, client_credentials, jwt_bearer

        settings = self.settings(SalesforceSettings)
        if settings.client_secret:
            grant = client_credentials(settings.client_id, settings.client_secret.get_secret_value())
        else:
            key = settings.private_key.get_secret_value() if settings.private_key else ""
            grant = jwt_bearer(settings.client_id, settings.username or "", key, settings.login_host, self.clock)
        org = self._remote("Salesforce sign-in", settings.url, None, OAUTH)
        return SalesforceSignIn(org, grant, settings.api_version, clock=self.clock)

    def _noted(self, part: str) -> Tell:
        """Return what notes a sign of the part for each time it is told of."""
        return lambda why: self.note(part, why)

    @property
    def _shapes(self) -> Mapping[str, TableShape]:
        return {name: table.shape for name, table in self.field_map.tables.items()}

    def _entra(self, authority: str, tenant_id: str, client_id: str, client_secret: str) -> EntraTokens:
        from shared.remote.auth import ENTRA, EntraTokens

        entra = self._remote("Entra ID", authority, None, ENTRA)
        return EntraTokens(entra, tenant_id, client_id, client_secret, clock=self.clock)

    def _shared(self, name: str, url: str, user: TokenSource, dialect: Dialect, **options: Any) -> Remote:
        """Return a remote that all workers call, and so pause together."""
        try:
            pauses = self.pauses
        except SettingsError:  # no Storage: a command line that only looks
            pauses = None
        return self._remote(name, url, user, dialect, pauses=pauses, **options)

    def _remote(self, name: str, url: str, user: TokenSource | None, dialect: Dialect, **options: Any) -> Remote:
        from shared.remote.http import Remote

        return Remote(
            name, url, user, dialect=dialect, session=self.session, clock=self.clock, sleep=self.sleep, **options
        )


@lru_cache(maxsize=1)
def process_services() -> Services:
    """The one Services of this process, which the triggers share."""
    return Services(readers=READERS)

"""All simulated systems together: made with one clock, mounted in process for tests or served over HTTPS for people.

Knows which address stands for which system, and which app settings point the product there.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Self

from local.simulators.base import CertificateAuthority, Clock, HttpsServer, InProcessAdapter, Simulator
from local.simulators.entra import EntraSimulator
from local.simulators.listener import KEY as LISTENER_KEY
from local.simulators.listener import PATH as LISTENER_PATH
from local.simulators.listener import Listener
from local.simulators.partner_center import CertificateHost, People, ReferralsSimulator, WebhooksSimulator
from local.simulators.partner_center.referrals import BASE_PATH as REFERRALS_PATH
from local.simulators.partner_center.webhooks import BASE_PATH as WEBHOOKS_PATH
from local.simulators.pki import SigningPki

if TYPE_CHECKING:
    import requests

CRMS = ("dynamics365", "salesforce")
"""What the setting CRM may be."""
REAL_URLS = {
    "entra": "https://login.microsoftonline.com",
    "partner_center": "https://api.partner.microsoft.com",
    "partner_center_webhooks": "https://api.partnercenter.microsoft.com",
    "certificates": "https://3psostorageacct.blob.core.windows.net",
    "dataverse": "https://contoso.crm.dynamics.com",
    "salesforce": "https://contoso.my.salesforce.com",
    "other_tool": "https://other-tool.example",
}


class Simulators:
    """The systems by name in `systems`, and as attributes. Until `serve`, they answer at their real addresses.

    simulators = Simulators(Clock(frozen_at=...))
    simulators.mount(session)                    # this requests session reaches them, without sockets
    simulators.people.microsoft_creates_deal()   # people act ...
    simulators.webhooks.deliver_pending()        # ... and the events go out

    with Simulators().serve() as simulators:     # events go out by themselves
        print(simulators.settings())
    """

    def __init__(self, clock: Clock | None = None, clocks: Mapping[str, Clock] | None = None) -> None:
        """`clocks`: of systems, by name, whose clocks differ from `clock`."""
        # heavy, and not every system is always wanted
        from local.simulators.dataverse import DataverseSimulator
        from local.simulators.salesforce import SalesforceSimulator

        self.clock = clock or Clock()
        clocks = clocks or {}
        self.directory = tempfile.TemporaryDirectory(prefix="cosell-simulators-")
        self.pki = SigningPki(self.clock.now())
        self.trusted_roots_file = Path(self.directory.name) / "trusted-roots.pem"
        self.trusted_roots_file.write_bytes(self.pki.trusted_pem)
        self.ca: CertificateAuthority | None = None

        self.entra = EntraSimulator(clock=self.clock)
        self.certificates = CertificateHost(self.pki, clock=self.clock)
        self.webhooks = WebhooksSimulator(self.entra, self.pki, certificate_base_url=REAL_URLS["certificates"])
        self.partner_center = ReferralsSimulator(
            self.entra, publish=self.webhooks.publish, clock=clocks.get("partner_center")
        )
        self.people = People(self.partner_center, self.webhooks)
        self.dataverse = DataverseSimulator(
            self.entra, origin=REAL_URLS["dataverse"], clock=clocks.get("dataverse", self.clock)
        )
        self.salesforce = SalesforceSimulator(clocks.get("salesforce", self.clock), origin=REAL_URLS["salesforce"])
        self.listener = Listener(self.pki.leaf.certificate, self.clock)
        systems = (
            self.entra,
            self.partner_center,
            self.webhooks,
            self.certificates,
            self.dataverse,
            self.salesforce,
            self.listener,
        )
        self.systems: dict[str, Simulator] = {system.name: system for system in systems}
        self.urls = dict(REAL_URLS)
        self._servers: list[HttpsServer] = []

    def mount(self, session: requests.Session) -> None:
        for name, system in self.systems.items():
            session.mount(self.urls[name], InProcessAdapter(system))

    def serve(self, port_base: int = 0) -> Self:
        """Start all on HTTPS, on ports from `port_base` on (0: any free ones), and the sender of the webhooks."""
        self.ca = CertificateAuthority(Path(self.directory.name))
        for index, (name, system) in enumerate(self.systems.items()):
            server = HttpsServer(system, port_base + index if port_base else 0, self.ca)
            self._servers.append(server)
            self.urls[name] = server.url
        self.webhooks.certificate_base_url = self.urls["certificates"]
        self.dataverse.origin = self.urls["dataverse"]
        self.salesforce.origin = self.urls["salesforce"]
        self.webhooks.dispatcher.start()
        return self

    def stop(self) -> None:
        self.webhooks.dispatcher.stop()
        for server in self._servers:
            server.stop()
        self.directory.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def listener_url(self) -> str:
        """The address, key included, of a tool that Partner Center called before the product came."""
        return f"{self.urls['other_tool']}{LISTENER_PATH}?code={LISTENER_KEY}"

    def settings(self, crm: str = CRMS[0]) -> dict[str, str]:
        """The app settings that point the product at these systems; `crm` is the one it keeps in agreement."""
        partner_center, dynamics365 = self.entra.app("partner_center"), self.entra.app("dynamics365")
        settings = {
            "CRM": crm,
            "ENTRA_AUTHORITY": self.urls["entra"],
            "PARTNER_CENTER_URL": self.urls["partner_center"] + REFERRALS_PATH,
            "PARTNER_CENTER_WEBHOOKS_URL": self.urls["partner_center_webhooks"] + WEBHOOKS_PATH,
            "PARTNER_CENTER_TENANT_ID": partner_center.tenant_id,
            "PARTNER_CENTER_CLIENT_ID": partner_center.client_id,
            "PARTNER_CENTER_CLIENT_SECRET": partner_center.client_secret,
            "PARTNER_CENTER_REFRESH_TOKEN": self.entra.consent(partner_center.name),
            "WEBHOOK_CERTIFICATE_HOSTS": self.urls["certificates"].removeprefix("https://"),
            "WEBHOOK_TRUSTED_ROOTS_FILE": str(self.trusted_roots_file),
            "DYNAMICS365_URL": self.urls["dataverse"],
            "DYNAMICS365_TENANT_ID": dynamics365.tenant_id,
            "DYNAMICS365_CLIENT_ID": dynamics365.client_id,
            "DYNAMICS365_CLIENT_SECRET": dynamics365.client_secret,
            "SALESFORCE_URL": self.urls["salesforce"],
            "SALESFORCE_CLIENT_ID": self.salesforce.client_id,
            "SALESFORCE_CLIENT_SECRET": self.salesforce.client_secret,
        }
        if self.ca:
            settings["REQUESTS_CA_BUNDLE"] = str(self.ca.file)
        return settings

"""Keeps Partner Center's one webhook registration the way this app needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shared.registration.registrar import Registrar
    from shared.services import Services


def registrar_of(services: Services) -> Registrar:
    """Return the registrar of these services. Raises SettingsError."""
    from shared.registration.probe import probe
    from shared.registration.record import Record
    from shared.registration.registrar import Registrar
    from shared.registration.round_trip import RoundTrip
    from shared.settings import RegistrationSettings, RelaySettings

    record = Record(services.signs, services.journal, services.failures)
    round_trip = RoundTrip(services.webhooks, record, probe, clock=services.clock, sleep=services.sleep)
    return Registrar(
        services.webhooks,
        services.settings(RegistrationSettings),
        record,
        round_trip,
        relayed_to=services.settings(RelaySettings).urls,
        clock=services.clock,
    )

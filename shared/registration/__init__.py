"""Keeps Partner Center's one webhook registration the way this app needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shared.registration.registrar import Registrar
    from shared.services import Services


def registrar_of(services: Services) -> Registrar:
    """Return the registrar of these services. Raises SettingsError."""
    from shared.errors import SettingsError
    from shared.registration.probe import probe
    from shared.registration.record import Record
    from shared.registration.registrar import Registrar
    from shared.registration.round_trip import RoundTrip
    from shared.settings import RegistrationSettings, RelaySettings

    try:
        relayed_to: list[str] | None = services.settings(RelaySettings).urls
    except SettingsError:
        relayed_to = None  # said at the start and in health; the registration is looked after all the same
    record = Record(services.signs, services.journal, services.failures)
    round_trip = RoundTrip(services.webhooks, record, probe, clock=services.clock, sleep=services.sleep)
    return Registrar(
        services.webhooks,
        services.settings(RegistrationSettings),
        record,
        round_trip,
        probe,
        relayed_to=relayed_to,
        clock=services.clock,
    )

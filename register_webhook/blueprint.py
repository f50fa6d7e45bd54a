"""What an admin calls to register the webhook, and the timer that looks after it. Decides nothing itself."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING
from uuid import uuid4

import azure.functions as func

from shared import services
from shared.errors import SettingsError
from shared.events import CORRELATION_HEADER
from shared.settings import schedule

if TYPE_CHECKING:
    from shared.registration.registrar import Registrar

log = logging.getLogger(__name__)
bp = func.Blueprint()  # type: ignore[no-untyped-call]


@bp.route(route="register_webhook", methods=["GET", "POST"], auth_level=func.AuthLevel.FUNCTION)
def register_webhook(req: func.HttpRequest) -> func.HttpResponse:
    from shared.registration.answer import answer

    correlation_id = str(uuid4())
    status, words = answer(req.method, req.get_body(), registrar)
    log.info("registration.asked", extra={"method": req.method, "status": status, "correlation_id": correlation_id})
    return func.HttpResponse(
        json.dumps(words, indent=2, ensure_ascii=False),
        status_code=status,
        mimetype="application/json",
        headers={CORRELATION_HEADER: correlation_id},
    )


@bp.timer_trigger(arg_name="timer", schedule=schedule("REGISTRATION_CHECK_SCHEDULE"))
def check_registration(timer: func.TimerRequest) -> None:  # noqa: ARG001
    parts = services.process_services()
    try:
        registrar().check()
    except SettingsError as wrong:
        parts.note("registration", str(wrong))
        raise
    parts.captures.purge()


def registrar() -> Registrar:
    """Return the registrar of this process's settings. Raises SettingsError."""
    from shared.registration import registrar_of

    return registrar_of(services.process_services())

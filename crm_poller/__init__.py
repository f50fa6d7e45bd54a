"""Timer trigger: what changed in the CRM since the last run becomes messages."""

from __future__ import annotations

import azure.functions as func

from shared import services
from shared.settings import schedule

bp = func.Blueprint()  # type: ignore[no-untyped-call]


@bp.timer_trigger(arg_name="timer", schedule=schedule("CRM_POLL_SCHEDULE"))
def crm_poller(timer: func.TimerRequest) -> None:  # noqa: ARG001
    from crm_poller.poll import poll

    poll(services.process_services())

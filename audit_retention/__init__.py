"""Timer trigger: takes away audit entries that are older than they have to be kept."""

from __future__ import annotations

import azure.functions as func

from shared import services
from shared.settings import schedule

bp = func.Blueprint()  # type: ignore[no-untyped-call]


@bp.timer_trigger(arg_name="timer", schedule=schedule("AUDIT_RETENTION_SCHEDULE"))
def audit_retention(timer: func.TimerRequest) -> None:  # noqa: ARG001
    from audit_retention.prune import prune

    prune(services.process_services())

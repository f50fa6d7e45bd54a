"""Timer trigger: finds what events missed."""

from __future__ import annotations

import azure.functions as func

from shared import services
from shared.settings import schedule

bp = func.Blueprint()  # type: ignore[no-untyped-call]


@bp.timer_trigger(arg_name="timer", schedule=schedule("SWEEP_SCHEDULE"))
def reconciler(timer: func.TimerRequest) -> None:  # noqa: ARG001
    from reconciler.sweep import sweep

    sweep(services.process_services())

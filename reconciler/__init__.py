"""Timer triggers: find what events missed. Often what changed lately, nightly everything."""

from __future__ import annotations

import azure.functions as func

from shared import services
from shared.settings import schedule

bp = func.Blueprint()  # type: ignore[no-untyped-call]


@bp.timer_trigger(arg_name="timer", schedule=schedule("SWEEP_SCHEDULE"))
def reconciler(timer: func.TimerRequest) -> None:  # noqa: ARG001
    from reconciler.full_sweep import go_on
    from reconciler.sweep import sweep

    sweep(services.process_services())
    go_on(services.process_services())


@bp.timer_trigger(arg_name="timer", schedule=schedule("FULL_SWEEP_SCHEDULE"))
def nightly_sweep(timer: func.TimerRequest) -> None:  # noqa: ARG001
    from reconciler.full_sweep import begin

    begin(services.process_services())

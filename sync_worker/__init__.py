"""Queue triggers: the one writer to either side, and what happens to messages it had to give up."""

from __future__ import annotations

import azure.functions as func

from shared import services

bp = func.Blueprint()  # type: ignore[no-untyped-call]


@bp.queue_trigger(arg_name="msg", queue_name="sync-requests", connection="AzureWebJobsStorage")
def sync_worker(msg: func.QueueMessage) -> None:
    from sync_worker.work import work_off

    redelivered = (msg.dequeue_count or 1) > 1
    work_off(msg.get_body(), services.process_services(), redelivered=redelivered, sent_utc=msg.insertion_time)


@bp.queue_trigger(arg_name="msg", queue_name="sync-requests-poison", connection="AzureWebJobsStorage")
def poisoned(msg: func.QueueMessage) -> None:
    from sync_worker.work import give_up

    give_up(msg.get_body(), services.process_services())

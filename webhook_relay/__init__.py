"""Queue triggers: genuine webhook calls go on to the listeners that were there before us."""

from __future__ import annotations

import azure.functions as func

from shared import services

bp = func.Blueprint()  # type: ignore[no-untyped-call]


@bp.queue_trigger(arg_name="msg", queue_name="webhook-relays", connection="AzureWebJobsStorage")
def webhook_relay(msg: func.QueueMessage) -> None:
    from webhook_relay.pass_on import pass_on

    pass_on(msg.get_body(), services.process_services())


@bp.queue_trigger(arg_name="msg", queue_name="webhook-relays-poison", connection="AzureWebJobsStorage")
def relay_poisoned(msg: func.QueueMessage) -> None:
    from webhook_relay.pass_on import record_poison

    record_poison(msg.get_body(), services.process_services())

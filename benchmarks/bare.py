"""What the webhook is compared with: a function that only writes the same message to the queue, whoever calls."""

from __future__ import annotations

from uuid import uuid4

import azure.functions as func

from shared.messages import SyncRequest
from shared.services import process_services

app = func.FunctionApp()


@app.route(route="bare", methods=["POST"], auth_level=func.AuthLevel.FUNCTION)
def bare(req: func.HttpRequest) -> func.HttpResponse:  # noqa: ARG001 - the host hands it over all the same
    request = SyncRequest(
        cause="webhook",
        referral_id="00000000-0000-0000-0000-000000000000",
        version="2026-02-17T00:05:39.5485487+00:00",
        event="referral-updated",
        correlation_id=str(uuid4()),
    )
    process_services().queue.send(request)
    return func.HttpResponse(status_code=200)

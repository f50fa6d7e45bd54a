"""HTTP trigger: how the app is doing, for operators and monitors."""

from __future__ import annotations

import json

import azure.functions as func

from shared import services

bp = func.Blueprint()  # type: ignore[no-untyped-call]


@bp.route(route="health", methods=["GET"], auth_level=func.AuthLevel.FUNCTION)
def health(req: func.HttpRequest) -> func.HttpResponse:  # noqa: ARG001
    from health.report import report

    found = report(services.process_services())
    return func.HttpResponse(
        json.dumps(found, indent=2, ensure_ascii=False),
        status_code=200 if found["verdict"] != "down" else 503,
        mimetype="application/json",
    )

"""What an admin's request means, and what is answered: HTTP status and JSON, for the trigger and the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from shared.errors import RemoteError, SettingsError
from shared.registration.registrar import BadInput, Registrar


class Wish(BaseModel):
    """The body of the POST; everything may be left out."""

    model_config = ConfigDict(extra="forbid", strict=True)

    webhook_url: str | None = None
    events: list[str] | None = None
    overwrite: bool = False
    test: bool | None = None


def answer(method: str, body: bytes, registrar: Callable[[], Registrar]) -> tuple[int, dict[str, Any]]:
    """Return status and JSON. GET shows, POST registers. `registrar` may raise SettingsError."""
    try:
        if method == "GET":
            return 200, registrar().show()
        wish = _wish(body)
        outcome = registrar().register(wish.webhook_url, wish.events, overwrite=wish.overwrite, test=wish.test)
        return (409 if outcome.result == "refused" else 200), outcome.as_json()
    except BadInput as wrong:
        return 400, {"error": str(wrong), "field": wrong.field}
    except SettingsError as wrong:
        return 500, {"error": "Settings are missing or wrong.", "problems": list(wrong.problems)}
    except RemoteError as failure:
        return 502, {
            "error": str(failure),
            "next_step": getattr(failure, "next_step", ""),
            "code": failure.code,
            "request_id": failure.request_id,
        }


def _wish(body: bytes) -> Wish:
    try:
        return Wish.model_validate_json(body or b"{}")
    except ValidationError as refused:
        first = refused.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        accepted = f"accepted: {', '.join(Wish.model_fields)}" if first["type"] == "extra_forbidden" else first["msg"]
        raise BadInput(field or "body", accepted) from refused

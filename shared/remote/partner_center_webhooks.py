"""The webhook registration API of Partner Center: its six calls. Never decides what the registration should be.

One registration exists per partner account; it can be replaced but not deleted.
https://learn.microsoft.com/partner-center/developer/partner-center-webhooks
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from shared.errors import Forbidden, NotFound, Refused, SignInFailed, Unavailable
from shared.remote.dialect import Dialect, Meaning
from shared.remote.http import Remote, json_of

# https://learn.microsoft.com/partner-center/developer/error-codes
_ROLE = Meaning(Forbidden, "give the consenting user the Referrals admin role in Partner Center, then register again")
WEBHOOKS_DIALECT = Dialect(
    request_id_header="MS-RequestId",
    codes={
        "2032": _ROLE,
        "900150": _ROLE,
        "900308": _ROLE,
        "900420": Meaning(SignInFailed, "the token is for another API: check PARTNER_CENTER_WEBHOOKS_SCOPE"),
        "900421": Meaning(SignInFailed, "the consenting user must sign in with multi-factor authentication"),
    },
)


@dataclass(frozen=True)
class Registration:
    """Where events go and which. `signature_in_own_header`: in x-ms-signature, so that Authorization may be used by
    whatever stands in front of the receiver; None when Partner Center does not say."""

    webhook_url: str
    events: tuple[str, ...]
    signature_in_own_header: bool | None = True


@dataclass(frozen=True)
class Attempt:
    """One delivery of a test event. `response_code`: an HTTP status by name or number; `system_error`: no answer;
    `at`: when, as Partner Center writes it."""

    response_code: str
    message: str
    system_error: bool
    at: str = ""


@dataclass(frozen=True)
class ValidationEvent:
    """How far a test event has come. `status`: submitted, completed or failed."""

    status: str
    attempts: tuple[Attempt, ...]


class PartnerCenterWebhooks:
    """All methods raise the errors of shared.errors.

    `test_sender` asks for test events: a Remote of its own, since it pauses when more than two a minute are asked for,
    and the registration shall be seen meanwhile.
    """

    def __init__(self, remote: Remote, test_sender: Remote) -> None:
        self._remote = remote
        self._test_sender = test_sender

    def offered_events(self) -> tuple[str, ...]:
        """Return the event names that can be registered for."""
        return _texts(self._remote.json("GET", "registration/events"))

    def registration(self) -> Registration | None:
        """Return what is registered. "Nothing" is said with 404, with an empty answer and with null."""
        try:
            answer = self._remote.request("GET", "registration")
        except NotFound:
            return None
        found = _members(json_of(answer)) if answer.content else {}
        if not found.get("webhookurl"):
            return None
        own_header = found.get("signaturetokentomssignatureheader")
        return Registration(
            webhook_url=str(found["webhookurl"]),
            events=_texts(found.get("webhookevents")),
            signature_in_own_header=own_header if isinstance(own_header, bool) else None,
        )

    def registration_as_sent(self) -> Any:
        """Return the registration as Partner Center writes it, None when it answers with nothing at all.

        Raises NotFound when it says 404.
        """
        answer = self._remote.request("GET", "registration")
        return json_of(answer) if answer.content else None

    def create(self, registration: Registration) -> bool:
        """Register for the first time; False when there is a registration already (409)."""
        try:
            self._remote.request("POST", "registration", json=_body(registration))
        except Refused as refused:
            if refused.status != 409:
                raise
            return False
        return True

    def replace(self, registration: Registration) -> None:
        """Replace what is registered, whoever registered it."""
        self._remote.request("PUT", "registration", json=_body(registration))

    def send_test_event(self) -> str:
        """Have a test event sent, and return the id to follow it by. Throttled above two per minute."""
        # Sent once: a repetition would count against the limit.
        answer = self._test_sender.json("POST", "registration/validationEvents", create=True)
        # The reference types the answer as a string, the samples show an object.
        return str(_members(answer).get("correlationid", "")) if isinstance(answer, Mapping) else str(answer)

    def test_event(self, correlation_id: str) -> ValidationEvent:
        path = f"registration/validationEvents/{quote(correlation_id, safe='')}"
        found = _members(self._remote.json("GET", path))
        if "status" not in found:
            raise Unavailable(f"{self._remote.name} reports no status of test event {correlation_id}")
        results = found.get("results")
        return ValidationEvent(
            status=str(found["status"]).lower(),
            attempts=tuple(_attempt(_members(result)) for result in results) if isinstance(results, list) else (),
        )


def _body(registration: Registration) -> dict[str, Any]:
    return {
        "WebhookUrl": registration.webhook_url,
        "WebhookEvents": list(registration.events),
        "SignatureTokenToMsSignatureHeader": registration.signature_in_own_header is not False,
    }


def _attempt(result: Mapping[str, Any]) -> Attempt:
    return Attempt(
        response_code=str(result.get("responsecode") or ""),
        message=str(result.get("responsemessage") or ""),
        system_error=bool(result.get("systemerror")),
        at=str(result.get("datetimeutc") or ""),
    )


def _members(value: Any) -> dict[str, Any]:
    """By lower-case name: the documentation prints PascalCase, the live service answers in camelCase."""
    return {str(name).lower(): member for name, member in value.items()} if isinstance(value, Mapping) else {}


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(str(each) for each in value) if isinstance(value, list) else ()

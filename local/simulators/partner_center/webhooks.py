"""Simulated Partner Center webhook service: the registration API, test events, and what it publishes to whom.

One registration per partner; the last one wins. Queues events for the dispatcher; the calls themselves are made there.

https://learn.microsoft.com/partner-center/developer/partner-center-webhooks
https://learn.microsoft.com/partner-center/developer/partner-center-webhook-events
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any, NoReturn
from urllib.parse import urlsplit

from local.simulators.base import Caller, Clock, Refused, Request, Response, Simulator, json_response, text_response
from local.simulators.entra import PARTNER_CENTER_WEBHOOKS, PARTNER_TENANT_ID, BadToken, EntraSimulator
from local.simulators.partner_center.dispatcher import Attempt, Delivery, Dispatcher
from local.simulators.partner_center.signing import RECIPES, Payload, compose
from local.simulators.pki import SigningPki

BASE_PATH = "/webhooks/v1"
REAL_CERTIFICATE_BASE_URL = "https://3psostorageacct.blob.core.windows.net"
VALIDATIONS_PER_MINUTE = 2
VALIDATION_LIFETIME = timedelta(days=7)
RESOURCE_URIS = {
    "events": "https://api.partnercenter.microsoft.com/engagements/v1/referrals/{id}",  # as documented for events
    "api": "https://api.partner.microsoft.com/v1.0/engagements/referrals/{id}",  # where the resource really is
}
EVENT_NAMES = (
    "azure-fraud-event-detected",
    "dap-admin-relationship-approved",
    "dap-admin-relationship-terminated",
    "dap-admin-relationship-terminated-by-microsoft",
    "granular-admin-access-assignment-activated",
    "granular-admin-access-assignment-created",
    "granular-admin-access-assignment-deleted",
    "granular-admin-access-assignment-updated",
    "granular-admin-relationship-activated",
    "granular-admin-relationship-approved",
    "granular-admin-relationship-expired",
    "granular-admin-relationship-terminated",
    "invoice-ready",
    "new-commerce-migration-completed",
    "new-commerce-migration-created",
    "new-commerce-migration-failed",
    "new-commerce-migration-schedule-failed",
    "referral-created",
    "referral-updated",
    "related-referral-created",
    "related-referral-updated",
    "reseller-relationship-accepted-by-customer",
    "subscription-updated",
    "test-created",
    "usagerecords-thresholdExceeded",
)


@dataclass
class Registration:
    url: str
    events: list[str]
    in_ms_signature: bool
    properties: dict[str, str]
    modified_at: datetime


@dataclass
class Validation:
    """A test event. Its status follows from what became of the delivery."""

    id: str
    created_at: datetime
    delivery: Delivery
    url: str


class WebhooksSimulator(Simulator):
    name = "partner_center_webhooks"
    audience = PARTNER_CENTER_WEBHOOKS

    def __init__(
        self,
        entra: EntraSimulator,
        pki: SigningPki,
        *,
        partner_tenant_id: str = PARTNER_TENANT_ID,
        certificate_base_url: str = REAL_CERTIFICATE_BASE_URL,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(clock or entra.clock)
        self.entra, self.pki = entra, pki
        self.partner_tenant_id = partner_tenant_id
        self.certificate_base_url = certificate_base_url
        self.resource_uri_form = "events"  # or "api"
        self.bare_ms_signature = False  # x-ms-signature without its scheme; no capture of the header is published
        self.numeric_response_codes = False  # "200" instead of "OK" in the results of a test event
        self.app_only_allowed = True
        self.subscriber_id = str(uuid.uuid4())
        self.registration: Registration | None = None
        self.unheard: list[Payload] = []  # published while nobody was registered for it
        self._validations: dict[str, Validation] = {}
        self.dispatcher = Dispatcher(self.clock, self._current_url, self._compose)
        registration = f"{BASE_PATH}/registration"
        self.route(registration, GET=self._get, POST=self._post, PUT=self._put)
        self.route(f"{registration}/events", GET=lambda _: _answer(200, EVENT_NAMES))
        self.route("/_forge", POST=self._forge_by_request)
        self.route(f"{registration}/validationEvents", POST=self._validate)
        self.route(f"{registration}/validationEvents/<validation_id>", GET=self._validation)

    def state(self) -> Any:
        return {
            "registration": self.registration,
            "deliveries": self.dispatcher.state(),
            "unheard": self.unheard,
            "resource_uri_form": self.resource_uri_form,
        }

    # Events out.

    def publish(self, event_name: str, referral_id: str, changed_at: str) -> None:
        """Queue an event about a referral for whoever is registered; `changed_at` is its updatedDateTime."""
        payload = {
            "EventName": event_name,
            "ResourceUri": RESOURCE_URIS[self.resource_uri_form].format(id=referral_id),
            "ResourceName": "referral",
            "AuditUri": None,
            "ResourceChangeUtcDate": changed_at.removesuffix("Z") + "+00:00",
        }
        if self.registration and event_name in self.registration.events:
            self.dispatcher.queue(payload)
        else:
            self.unheard.append(payload)

    def deliver_pending(self) -> list[Attempt]:
        """Make one attempt for each event that is due now; for tests that mount the systems in process."""
        return self.dispatcher.deliver_pending()

    def forge(self, recipe: str, *, event_name: str = "referral-updated", referral_id: str | None = None) -> Attempt:
        """Call the registered URL now by one of signing.RECIPES, and say what it answered."""
        payload = {
            "EventName": event_name,
            "ResourceUri": RESOURCE_URIS[self.resource_uri_form].format(id=referral_id or uuid.uuid4()),
            "ResourceName": "referral",
            "AuditUri": None,
            "ResourceChangeUtcDate": _seven_digits(self.clock.now()) + "+00:00",
        }
        return self.dispatcher.send(payload, recipe)

    def _forge_by_request(self, request: Request) -> Response:
        """POST /_forge {"recipe": ..., "event_name"?, "referral_id"?}: call the registered URL in that way."""
        command = request.json()
        recipe = RECIPES.get(command.get("recipe"))
        if recipe is None:
            return text_response(400, f"recipe {command.get('recipe')!r} is unknown; accepted: {', '.join(RECIPES)}")
        attempt = self.forge(**command)
        answer = {"status": attempt.status, "error": attempt.error, "body": attempt.answer}
        return json_response(200, {**answer, "acceptable": recipe.acceptable})

    def another_tool_registers(self, url: str, events: list[str] | None = None) -> None:
        """Some other integration of the partner takes the only registration there is."""
        self.registration = Registration(url, events or ["test-created"], False, {}, self.clock.now())

    def _current_url(self) -> str | None:
        return self.registration.url if self.registration else None

    def _compose(self, payload: Payload, deviation: str | None) -> tuple[bytes, dict[str, str]]:
        return compose(
            payload,
            self.pki,
            self.certificate_base_url,
            recipe=RECIPES[deviation] if deviation else None,
            in_ms_signature=bool(self.registration and self.registration.in_ms_signature),
            bare_ms_signature=self.bare_ms_signature,
        )

    # Who may call.

    def identify(self, request: Request) -> Caller:
        try:
            caller = self.entra.verify(request, self.audience)
        except BadToken as exc:
            code = "900420" if exc.problem == "audience" else "800001"
            _refuse(401, code, f"Access denied: the partner token is not accepted ({exc.problem}).")
        if caller.user is None:
            if not self.app_only_allowed:
                _refuse(403, "900329", "The operation does not support app only access.")
        elif "mfa" not in caller.claims["amr"]:
            _refuse(401, "900421", "MFA required.", {"WWW-Authenticate": 'Bearer error="invalid_token"'})
        if caller.claims["tid"] != self.partner_tenant_id:
            _refuse(403, "900150", "The caller has no role in this partner account.")
        return caller

    # The registration API.

    def _get(self, _: Request) -> Response:
        if self.registration is None:
            _refuse(404, "2002", "The registration was not found.")
        return _answer(200, self._shown(self.registration))

    def _post(self, request: Request) -> Response:
        if self.registration is not None:
            _refuse(409, "2003", "A registration already exists; use PUT to change it.")
        return self._register(request)

    def _put(self, request: Request) -> Response:
        if self.registration is None:
            _refuse(404, "2002", "The registration was not found; use POST to create it.")
        return self._register(request)

    def _register(self, request: Request) -> Response:
        try:
            body = json.loads(request.body)
        except ValueError as exc:
            _refuse(400, "2000", f"The request body is not JSON: {exc}")
        given = {name.lower(): value for name, value in body.items()} if isinstance(body, dict) else {}
        url, events = given.get("webhookurl"), given.get("webhookevents")
        if not isinstance(url, str) or not is_deliverable(url):
            _refuse(400, "2000", "WebhookUrl must be an absolute https URL.")
        if not isinstance(events, list) or not events:
            _refuse(400, "2000", "WebhookEvents must be a list of event names.")
        if unknown := [event for event in events if event not in EVENT_NAMES]:
            _refuse(400, "2000", f"The event {unknown[0]} is unknown.")
        self.registration = Registration(
            url=url,
            events=list(events),
            # a JSON boolean in the documentation, a string in the connector
            in_ms_signature=str(given.get("signaturetokentomssignatureheader")).lower() == "true",
            properties=given.get("properties") or {},
            modified_at=self.clock.now(),
        )
        return _answer(200, self._shown(self.registration))

    def _shown(self, registration: Registration) -> dict[str, Any]:
        return {
            "subscriberId": self.subscriber_id,
            "webhookUrl": registration.url,
            "webhookEvents": registration.events,
            "signatureTokenToMsSignatureHeader": registration.in_ms_signature,
            "properties": registration.properties,
            "lastModifiedTimestamp": _seven_digits(registration.modified_at) + "Z",
        }

    def _validate(self, _: Request) -> Response:
        now = self.clock.now()
        if self.registration is None or "test-created" not in self.registration.events:
            _refuse(400, "2000", "Register for test-created first.")
        recent = [v for v in self._validations.values() if now - v.created_at < timedelta(minutes=1)]
        if len(recent) >= VALIDATIONS_PER_MINUTE:
            oldest = min(validation.created_at for validation in recent)
            raise Refused(_rate_limited(int(60 - (now - oldest).total_seconds()) + 1))
        validation_id = str(uuid.uuid4())
        payload = {
            "EventName": "test-created",
            # http: the documentation's own samples have it so
            "ResourceUri": f"http://api.partnercenter.microsoft.com{BASE_PATH}/registration/validationEvents/{validation_id}",
            "ResourceName": "test",
            "AuditUri": None,
            "ResourceChangeUtcDate": _seven_digits(now) + "+00:00",
        }
        delivery = self.dispatcher.queue(payload)
        self._validations[validation_id] = Validation(validation_id, now, delivery, self.registration.url)
        return _answer(200, {"correlationId": validation_id}, {"MS-CorrelationId": validation_id})

    def _validation(self, _: Request, validation_id: str) -> Response:
        validation = self._validations.get(validation_id.lower())
        if validation is None or self.clock.now() - validation.created_at >= VALIDATION_LIFETIME:
            _refuse(404, "2002", f"The validation event {validation_id} was not found.")
        status = {"delivered": "completed", "offline": "failed"}.get(validation.delivery.state, "Submitted")
        return _answer(
            200,
            {
                "correlationId": validation.id,
                "partnerId": self.partner_tenant_id,
                "status": status,
                "callbackUrl": validation.url,
                "results": [self._result(attempt) for attempt in validation.delivery.attempts],
            },
        )

    def _result(self, attempt: Attempt) -> dict[str, Any]:
        code = "" if attempt.status is None else HTTPStatus(attempt.status).phrase.replace(" ", "")
        return {
            "responseCode": str(attempt.status or "") if self.numeric_response_codes else code,
            "responseMessage": attempt.error or "",
            "systemError": attempt.status is None,
            "dateTimeUtc": _seven_digits(attempt.at),
        }

    # The service's own words.

    def not_found(self, request: Request) -> Response:
        return _error(404, "2002", f"There is nothing at {request.path}.")

    def method_not_allowed(self, request: Request) -> Response:
        return _error(405, "2001", f"The method {request.method} is not allowed.")

    def throttled(self, request: Request) -> Response:  # noqa: ARG002
        response = _rate_limited(57)
        del response.headers["Retry-After"]
        return response


def is_deliverable(url: str) -> bool:
    """https, or plain http to this machine: the real service takes https only, a host under test has no certificate."""
    parts = urlsplit(url)
    if parts.scheme == "https":
        return bool(parts.hostname)
    return parts.scheme == "http" and _is_loopback(parts.hostname or "")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _seven_digits(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%S.%f}0"


def _answer(status: int, body: Any, headers: dict[str, str] | None = None) -> Response:
    """The ids are made fresh for each answer, they do not repeat the caller's."""
    ids = {"MS-RequestId": str(uuid.uuid4()), "MS-CorrelationId": str(uuid.uuid4()), "X-Locale": "en-US"}
    return json_response(status, body, {**ids, **(headers or {})})


def _error(status: int, code: str, description: str, headers: dict[str, str] | None = None) -> Response:
    body = {"code": code, "description": description, "data": [], "source": "PartnerFD"}
    return _answer(status, body, headers)


def _refuse(status: int, code: str, description: str, headers: dict[str, str] | None = None) -> NoReturn:
    raise Refused(_error(status, code, description, headers))


def _rate_limited(retry_after_s: int) -> Response:
    """https://learn.microsoft.com/partner-center/developer/api-throttling-guidance"""
    message = f"Rate limit is exceeded. Try again in {retry_after_s} seconds."
    return json_response(429, {"statusCode": 429, "message": message}, {"Retry-After": str(retry_after_s)})

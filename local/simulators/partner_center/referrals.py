"""Simulated Partner Center Referrals API: lists, reads, creates, patches and replaces referrals, strictly.

Holds the partner's referrals and Microsoft's copies of them. Sends no event itself: it tells `publish` what changed.
What people do in the portal is in people.py.

https://learn.microsoft.com/partner-center/developer/referrals-api-introduction
https://learn.microsoft.com/partner-center/developer/create-a-referral
https://learn.microsoft.com/partner-center/developer/patch-a-referral
https://learn.microsoft.com/partner-center/developer/get-a-list-of-referrals
https://learn.microsoft.com/partner-center/developer/referrals-api-response-codes
"""

from __future__ import annotations

import base64
import copy
import dataclasses
import itertools
import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from werkzeug.datastructures import Headers

from local.simulators.base import Caller, Clock, Refused, Request, Response, Simulator, json_response, text_response
from local.simulators.entra import PARTNER_CENTER_REFERRALS, PARTNER_TENANT_ID, BadToken, EntraSimulator
from local.simulators.partner_center import query, schema

BASE_PATH = "/v1.0/engagements"
PAGE_SIZE = 100
TIME_TO_ANSWER = timedelta(days=14)
MICROSOFT = "msft"

Referral = dict[str, Any]


@dataclass(frozen=True)
class Account:
    """A person's place in Partner Center; a Referrals user sees only the deals whose team they are in."""

    organization_id: str
    role: str = "Referrals admin"


ACCOUNTS = {
    "sync@fabrikam.example": Account(PARTNER_TENANT_ID),
    "pat@fabrikam.example": Account(PARTNER_TENANT_ID),
    "msseller@microsoft.example": Account(MICROSOFT),
}


@dataclass
class Rules:
    """Where the documentation leaves a choice. Change them at any time, or by POST /_rules."""

    supports_ge: bool = True  # ge, gt, le, lt on times in $filter
    also_filterable: frozenset[str] = frozenset()  # beyond the documented properties, e.g. externalReferenceId
    strict_paths: bool = True  # PATCH takes only the documented paths
    strict_transitions: bool = True  # refuse status changes that no documented lifecycle contains
    form_rules: bool = False  # enforce through the API what the portal's form demands
    sloppy_next_links: bool = True  # http scheme and short path, as in the documentation's samples
    create_status: int = 200  # or 201
    closed_refusal: int = 400  # answer to a write to a closed referral; or 409
    own_direction: str = "Outgoing"  # of deals the partner created; stored documents have been seen with Incoming
    silent_apps: frozenset[str] = (
        frozenset()
    )  # apps whose own writes send no event; {"partner_center"} turns echoes off
    related_events_name: str = "related"  # whose id a related-referral-* event carries: "related" or "own"
    msx_id_on: frozenset[str] = frozenset({"microsoft"})  # which copies show Microsoft's CRM id: "microsoft", "own"


Publish = Callable[[str, str, str], None]
"""publish(event name, referral id, the referral's updatedDateTime)"""


class ReferralsSimulator(Simulator):
    name = "partner_center"
    audience = PARTNER_CENTER_REFERRALS

    def __init__(
        self,
        entra: EntraSimulator,
        *,
        publish: Publish = lambda *_: None,
        organization_id: str = PARTNER_TENANT_ID,
        organization_name: str = "Fabrikam",
        accounts: Mapping[str, Account] | None = None,
        rules: Rules | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(clock or entra.clock)
        self.entra = entra
        self.publish = publish
        self.organizations = {organization_id: organization_name, MICROSOFT: "Microsoft"}
        self.organization_id = organization_id
        self.mpn_id = "1234567"
        self.accounts = dict(ACCOUNTS if accounts is None else accounts)
        self.rules = rules or Rules()
        self.referrals: dict[str, Referral] = {}
        self._engagements: dict[str, list[Referral]] = {}
        self._last_tick = 0
        self._etags = itertools.count(0x2500EC5A)
        self.route(f"{BASE_PATH}/referrals", GET=self._list, POST=self._create)
        self.route(f"{BASE_PATH}/referrals/<referral_id>", GET=self._get, PATCH=self._patch, PUT=self._put)
        self.route("/_rules", GET=lambda _: json_response(200, self.rules), POST=self._set_rules)

    def state(self) -> Any:
        return {"rules": self.rules, "accounts": self.accounts, "engagements": self._engagements}

    def _set_rules(self, request: Request) -> Response:
        changes = request.json()
        known = {field.name: field for field in dataclasses.fields(Rules)}
        if unknown := changes.keys() - known.keys():
            return text_response(400, f"rule {sorted(unknown)} is unknown; accepted: {sorted(known)}")
        for name, value in changes.items():
            setattr(self.rules, name, frozenset(value) if isinstance(value, list) else value)
        return json_response(200, self.rules)

    # Who may do what.

    def identify(self, request: Request) -> Caller:
        try:
            caller = self.entra.verify(request, self.audience)
        except BadToken as exc:
            _refuse(401, "Caller is not authorized to access the resource.", inner=f"token{exc.problem.title()}")
        if caller.user is None:
            _refuse(403, "App only access is not supported; use App+User authentication.")
        if "mfa" not in caller.claims["amr"]:
            # https://learn.microsoft.com/partner-center/security/mandating-multifactor-authentication
            _refuse(401, "MFA required.", headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})
        if caller.user not in self.accounts:
            _refuse(403, "The user has no role that gives access to referrals.")
        return caller

    def visible_to(self, caller: Caller) -> list[Referral]:
        """Own rows, and the other organization's rows in the same engagements."""
        return [r for r in self.referrals.values() if self._sees(caller, r)]

    def _sees(self, caller: Caller, referral: Referral) -> bool:
        account = self._account(caller)
        own = [
            r for r in self.of_engagement(referral["engagementId"]) if r["organizationId"] == account.organization_id
        ]
        if account.role == "Referrals user":
            own = [r for r in own if caller.user in {member["email"] for member in r["team"]}]
        return bool(own)

    def _account(self, caller: Caller) -> Account:
        return self.accounts[str(caller.user)]

    def _find(self, request: Request, referral_id: str) -> Referral:
        referral = self.referrals.get(referral_id.lower())
        if referral is None or not self._sees(_caller(request), referral):
            _refuse(404, f"The referral {referral_id} was not found.", target="referral")
        return referral

    def _find_own(self, request: Request, referral_id: str) -> Referral:
        referral = self._find(request, referral_id)
        if referral["organizationId"] != self._account(_caller(request)).organization_id:
            _refuse(403, "Only the organization that owns a referral can change it.", target="referral")
        return referral

    # Reading.

    def _list(self, request: Request) -> Response:
        options = request.query
        if "$skiptoken" in options:
            wanted = _unpack(options["$skiptoken"])
        else:
            wanted = {name: options[name] for name in options if name.startswith("$")}
        try:
            matching = self._matching(_caller(request), wanted)
            rows, next_page = _page(matching, wanted)
            page = [self._shown(row, request.base_url) for row in rows]
            if "$select" in wanted:
                page = [query.select(wanted["$select"], row) for row in page]
        except query.BadQuery as exc:
            _refuse(400, str(exc), target="query")
        body: dict[str, Any] = {
            "@odata.context": "http://api.partner.microsoft.com/v1.0/$metadata#Referrals",
            "@odata.count": len(matching),
            "value": page,
        }
        if next_page:
            next_link = f"{request.base_url}{BASE_PATH}/referrals?$skiptoken={_pack(next_page)}"
            if self.rules.sloppy_next_links:
                next_link = next_link.replace("https:", "http:").replace(BASE_PATH, "/v1.0")
            body["@odata.nextLink"] = next_link
        return _ok(request, json_response(200, body))

    def _matching(self, caller: Caller, wanted: Mapping[str, str]) -> list[Referral]:
        known = {"$filter", "$orderby", "$top", "$skip", "$count", "$select", "$expand", "$after"}
        if unknown := wanted.keys() - known:
            raise query.BadQuery(f"The query option {sorted(unknown)[0]} is not supported.")
        rows = self.visible_to(caller)
        if "$filter" in wanted:
            matches = query.predicate(
                wanted["$filter"],
                also_filterable=self.rules.also_filterable,
                supports_ge=self.rules.supports_ge,
            )
            rows = [row for row in rows if matches(row)]
        return sorted(rows, key=_place(wanted))

    def _get(self, request: Request, referral_id: str) -> Response:
        referral = self._find(request, referral_id)
        context = {  # the spelling is the service's own
            "@odata.context": "https://api.partner.microsoft.com/v1.0/engagments/referrals/$metadata#Referrals/$entity"
        }
        return self._representation(request, referral, context)

    def _representation(
        self, request: Request, referral: Referral, extra: Mapping[str, Any] | None = None, status: int = 200
    ) -> Response:
        body = {**(extra or {}), **self._shown(referral, request.base_url)}
        return _ok(request, json_response(status, body, {"ETag": referral["eTag"]}))

    def _shown(self, referral: Referral, base_url: str) -> Referral:
        root = f"{base_url}{BASE_PATH}/referrals"
        # The GUID in the filter has no quotes, as in real documents.
        related = {"uri": f"{root}?$filter=engagementId eq {referral['engagementId']}", "method": "GET"}
        itself = {"uri": f"{root}/{referral['id']}", "method": "GET"}
        return {**referral, "links": {"relatedReferrals": related, "self": itself}}

    # Writing.

    def _create(self, request: Request) -> Response:
        caller = _caller(request)
        body = _json_body(request, dict)
        given = {name.lower() for name, value in body.items() if value is not None}
        for name in schema.REQUIRED_ON_CREATE:
            if name.lower() not in given:
                _refuse(400, f"The {name} field is required.", target=name)
        fields = self._bound(body)
        self._check_fields(fields)
        self._check_form(fields)
        organization_id = self._account(caller).organization_id
        if fields["engagementId"] and not any(
            r["engagementId"] == fields["engagementId"] for r in self.visible_to(caller)
        ):
            _refuse(400, f"The engagement {fields['engagementId']} was not found.", target="engagementId")
        invited = {"type": "BusinessProfileLocation", "id": MICROSOFT} in fields["target"]
        if invited:
            referral = self._invite_microsoft(fields, organization_id, caller)
        else:
            # A deal that a partner creates for itself is accepted at once, whatever status it was sent with.
            referral = self.insert(
                {**fields, "status": "Active", "substatus": "Accepted"},
                organization_id=organization_id,
                invited_by=organization_id,
                direction=self.rules.own_direction,
                actor=caller.app,
            )
        return self._representation(request, referral, status=self.rules.create_status)

    def _invite_microsoft(self, fields: Referral, organization_id: str, caller: Caller) -> Referral:
        """The second POST of a co-sell deal: Microsoft's copy, in the engagement of the partner's own row."""
        own = [r for r in self.of_engagement(fields["engagementId"]) if r["organizationId"] == organization_id]
        if not own:
            _refuse(400, "Microsoft can be invited only into an engagement of yours.", target="engagementId")
        if own[0]["status"] == "Closed":
            _refuse(self.rules.closed_refusal, "The referral of this engagement is closed.", target="engagementId")
        if not fields["consent"]["consentToShareReferralWithMicrosoftSellers"]:
            _refuse(400, "Consent to share the referral with Microsoft sellers is required.", target="consent")
        contacts = fields["customerProfile"]["team"]
        if not contacts or not all(_is_reachable(contact) for contact in contacts):
            _refuse(
                400,
                "A customer contact with first name, last name, phone and email is required to ask for help.",
                target="customerProfile",
            )
        # Microsoft's sellers show once they accept.
        return self.insert(
            {**fields, "status": "New", "substatus": "Pending", "team": []},
            organization_id=MICROSOFT,
            invited_by=organization_id,
            direction="Incoming",
            actor=caller.app,
        )

    def _patch(self, request: Request, referral_id: str) -> Response:
        referral = self._find_own(request, referral_id)
        operations = _json_body(request, list)
        self._check_if_match(request, referral)
        changed = copy.deepcopy(referral)
        paths = []
        for operation in operations:
            op, path = (operation.get("op"), operation.get("path")) if isinstance(operation, dict) else (None, None)
            if op not in ("add", "replace") or not isinstance(path, str) or "value" not in operation:
                _refuse(400, "Each operation needs op (add or replace), path and value.", target=str(path or op))
            loose = not self.rules.strict_paths and not path.startswith(schema.SETTLED_PATHS)
            if not (loose or schema.is_patch_path(path)):
                _refuse(400, f"The path {path} cannot be patched.", target=path)
            paths.append(path)
            try:
                schema.write_at(changed, op, path, operation["value"])
            except schema.BadValue as exc:
                _refuse(400, str(exc), target=exc.path)
        self._check_form(changed, referral)
        only_registration = bool(paths) and all(map(schema.is_registration_path, paths))
        self.update(referral, changed, actor=_caller(request).app, registering=only_registration)
        if "return=representation" in request.headers.get("Prefer", ""):
            response = self._representation(request, referral)
            response.headers["Preference-Applied"] = "return=representation"
            return response
        return _ok(request, Response(204, Headers({"Content-Length": "0"})))

    def _put(self, request: Request, referral_id: str) -> Response:
        referral = self._find_own(request, referral_id)
        body = _json_body(request, dict)
        if "If-Match" not in request.headers:
            _refuse(400, "The If-Match header is required.", target="If-Match")
        self._check_if_match(request, referral)
        if any(name.lower() == "links" for name in body):
            _refuse(400, "links must be removed before a referral is sent back.", target="links")
        fields = self._bound(body)
        self._check_form(fields)
        settled = {name: referral[name] for name in schema.SETTLED}
        self.update(referral, {**referral, **fields, **settled}, actor=_caller(request).app)
        return self._representation(request, referral)

    def _bound(self, body: Any) -> Referral:
        try:
            fields: Referral = schema.bind(schema.REFERRAL, body)
        except schema.BadValue as exc:
            _refuse(400, str(exc), target=exc.path)
        return fields

    def _check_if_match(self, request: Request, referral: Referral) -> None:
        if request.headers.get("If-Match", referral["eTag"]) not in (referral["eTag"], "*"):
            _refuse(412, "The referral was changed by someone else.", target="eTag", inner="resourceModified")

    def _check_fields(self, referral: Referral) -> None:
        for name, accepted in schema.ENUMS.items():
            if referral[name] is not None and referral[name] not in accepted:
                _refuse(400, f"{name} must be one of {sorted(accepted)}.", target=name)
        _check(referral, _ALWAYS_CHECKED)

    def _check_form(self, fields: Referral, before: Referral | None = None) -> None:
        """What the form demands; a change must only break nothing of it: a customer's inquiry never filled the form."""
        if self.rules.form_rules:
            _check(fields, [rule for rule in _FORM_RULES if before is None or rule[1](before)])

    def _check_change(self, before: Referral, after: Referral, *, registering: bool) -> None:
        if before["status"] == "Closed" and not (registering and before["substatus"] == "Won"):
            _refuse(self.rules.closed_refusal, "A closed referral cannot be changed.", target="status")
        pair = (after["status"], after["substatus"])
        if pair[1] not in schema.LEGAL_SUBSTATUS.get(pair[0], set()):
            _refuse(400, f"The substatus {pair[1]} does not go with the status {pair[0]}.", target="substatus")
        if self.rules.strict_transitions and before["status"] != "Closed":
            current = (before["status"], before["substatus"])
            if pair not in schema.LEGAL_CHANGES[current]:
                _refuse(400, f"A referral cannot go from {'/'.join(current)} to {'/'.join(pair)}.", target="status")
        consent = "consentToShareReferralWithMicrosoftSellers"
        if before["consent"][consent] and not after["consent"][consent]:
            _refuse(400, f"{consent} cannot be taken back.", target="consent")

    # What every write goes through, from the API and from people.

    def of_engagement(self, engagement_id: str | None) -> list[Referral]:
        return self._engagements.get(str(engagement_id), [])

    def insert(
        self, fields: Referral, *, organization_id: str, invited_by: str, direction: str, actor: str | None = None
    ) -> Referral:
        """Store a new referral of an organization; `fields` are bound to the schema and carry the status."""
        now = self._stamp()
        pending = fields["status"] == "New"
        answer_by = datetime.combine(self.clock.now().astimezone(UTC).date() + TIME_TO_ANSWER, datetime.min.time())
        referral: Referral = {
            "id": str(uuid.uuid4()),
            **fields,
            "engagementId": fields["engagementId"] or str(uuid.uuid4()),
            "organizationId": organization_id,
            "organizationName": self.organizations[organization_id],
            "createdDateTime": now,
            "acceptedDateTime": None if pending else now,
            "closedDateTime": None,
            "expirationDateTime": f"{answer_by:%Y-%m-%dT%H:%M:%SZ}" if pending else None,
            "direction": direction,
            "mpnId": fields["mpnId"] or self.mpn_id,
            "favorite": bool(fields["favorite"]),
            "quality": "Unknown",
            "isSpam": False,
            "tags": [],
            "dealSensitivity": "None",
            "createdVia": None,
            "registrations": [],
            "registrationStatus": "None",
            "trackingInfo": dict.fromkeys(
                (
                    "microsoftMsxId",
                    "microsoftUSFedOpportunityId",
                    "microsoftUSFedLeadId",
                    "migratedPSCDealId",
                    "migratedPSCPartnerDealId",
                )
            ),
        }
        referral["inviteContext"]["assistanceRequestCode"] = (
            fields["inviteContext"]["assistanceRequestCode"] or "Unknown"
        )
        referral["inviteContext"]["invitedBy"] = {
            "organizationId": invited_by,
            "organizationName": self.organizations[invited_by],
        }
        self.referrals[referral["id"]] = referral
        self._engagements.setdefault(referral["engagementId"], []).append(referral)
        self._stamp_write(referral, now)
        self._tell("created", referral, actor)
        return referral

    def take_away(self, referral: Referral) -> Referral:
        self._engagements[referral["engagementId"]].remove(referral)
        return self.referrals.pop(referral["id"])

    def bring_back(self, referral: Referral) -> None:
        self._engagements[referral["engagementId"]].append(referral)
        self.referrals[referral["id"]] = referral

    def update(
        self,
        referral: Referral,
        changed: Referral,
        *,
        actor: str | None = None,
        registering: bool = False,
        by_system: bool = False,
    ) -> None:
        """Replace a referral's content after checking it; even a write that changes nothing gives it a new version."""
        if not by_system:
            self._check_fields(changed)
            self._check_change(referral, changed, registering=registering)
        now = self._stamp()
        before = referral["status"]
        changed["inviteContext"]["invitedBy"] = referral["inviteContext"]["invitedBy"]
        referral.clear()
        referral.update(changed)
        if before == "New" and referral["status"] != "New":
            referral["expirationDateTime"] = None
        if before != "Active" and referral["status"] == "Active":
            referral["acceptedDateTime"] = now
        if before != "Closed" and referral["status"] == "Closed":
            referral["closedDateTime"] = now
        if registering:
            referral["registrationStatus"] = "ReviewPending"
        self._stamp_write(referral, now)
        self._tell("updated", referral, actor)

    def _stamp(self) -> str:
        """The time of a write. No two writes share one, however fast they follow each other."""
        now = query.ticks(self.clock.now().astimezone(UTC).isoformat())
        self._last_tick = max(now, self._last_tick + 1)
        return query.from_ticks(self._last_tick)

    def _stamp_write(self, referral: Referral, at: str) -> None:
        seconds = int(datetime.fromisoformat(at).timestamp())
        referral["updatedDateTime"] = at
        referral["customerProfile"]["isMatchingComplete"] = True
        # Real eTags end in the second of the write; the quotes are part of the value.
        referral["eTag"] = f'"{next(self._etags):08x}-0000-0800-0000-{seconds:08x}0000"'

    def _tell(self, action: str, referral: Referral, actor: str | None) -> None:
        if actor in self.rules.silent_apps:
            return
        if referral["organizationId"] == self.organization_id:
            self.publish(f"referral-{action}", referral["id"], referral["updatedDateTime"])
            return
        for own in self.of_engagement(referral["engagementId"]):
            if own["organizationId"] == self.organization_id:
                named = referral if self.rules.related_events_name == "related" else own
                self.publish(f"related-referral-{action}", named["id"], referral["updatedDateTime"])
                return

    # The service's own words.

    def not_found(self, request: Request) -> Response:
        return _error(404, f"There is nothing at {request.path}.")

    def method_not_allowed(self, request: Request) -> Response:
        return _error(405, f"The method {request.method} is not allowed.")

    def throttled(self, request: Request) -> Response:  # noqa: ARG002
        # https://learn.microsoft.com/partner-center/developer/api-throttling-guidance
        return json_response(429, {"statusCode": 429, "message": "Rate limit is exceeded. Try again later."})


_CODES = {
    400: "invalidRequest",
    401: "unAuthorized",
    403: "accessDenied",
    404: "itemNotFound",
    405: "invalidRequest",
    409: "invalidRequest",
    412: "preconditionFailed",
    415: "invalidRequest",
}


def _error(
    status: int,
    message: str,
    *,
    target: str | None = None,
    inner: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    error: dict[str, Any] = {"code": _CODES[status], "message": message}
    if target:
        error["target"] = target
    if inner:
        error["innerError"] = {"code": inner, "message": message}
    return json_response(status, {"error": error}, {"Request-ID": str(uuid.uuid4()), **(headers or {})})


def _refuse(status: int, message: str, **more: Any) -> NoReturn:
    raise Refused(_error(status, message, **more))


def _ok(request: Request, response: Response) -> Response:
    response.headers["Request-ID"] = str(uuid.uuid4())
    if "client-request-id" in request.headers:
        response.headers["client-request-id"] = request.headers["client-request-id"]
    return response


def _caller(request: Request) -> Caller:
    assert request.caller is not None  # identify refuses everybody else
    return request.caller


def _json_body(request: Request, kind: type) -> Any:
    media_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        _refuse(415, f"The media type {media_type or '(none)'} is not supported; use application/json.")
    try:
        body = json.loads(request.body)
    except ValueError as exc:
        _refuse(400, f"The request body is not JSON: {exc}")
    if not isinstance(body, kind):
        _refuse(400, f"The request body must be a JSON {'array' if kind is list else 'object'}.")
    return body


def _page(rows: list[Referral], wanted: Mapping[str, str]) -> tuple[list[Referral], dict[str, str] | None]:
    """One page of the rows and the options of the next. A page continues after the row where the last one ended."""
    numbers = {}
    for name in ("$top", "$skip"):
        text = wanted.get(name, "0")
        if not text.isdigit():
            raise query.BadQuery(f"{name} must be a whole number, not '{text}'.")
        numbers[name] = int(text)
    place = _place(wanted)
    after = json.loads(wanted["$after"]) if "$after" in wanted else None
    rows = [row for row in rows if place(row) > after] if after else rows[numbers["$skip"] :]
    limit = numbers["$top"] if "$top" in wanted else len(rows)
    page = rows[: min(PAGE_SIZE, limit)]
    if len(page) >= min(limit, len(rows)):
        return page, None
    following = {**wanted, "$after": json.dumps(place(page[-1]))}
    if "$top" in wanted:
        following["$top"] = str(limit - len(page))
    return page, following


def _place(wanted: Mapping[str, str]) -> Callable[[Referral], list[Any]]:
    """Where a row stands in the order asked for. Without $orderby any order would do; ours is stable."""
    keys = query.order(wanted["$orderby"]) if "$orderby" in wanted else [("createdDateTime", False)]

    def place(row: Referral) -> list[Any]:
        times = [query.ticks(row[name]) * (-1 if descending else 1) for name, descending in keys]
        return [*times, row["id"]]

    return place


def _pack(options: Mapping[str, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(options).encode()).decode().rstrip("=")


def _unpack(token: str) -> dict[str, str]:
    try:
        options: dict[str, str] = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except ValueError:
        _refuse(400, "The $skiptoken is not valid.", target="query")
    return options


def _check(referral: Referral, checks: Iterable[Check]) -> None:
    for path, is_right, message in checks:
        if not is_right(referral):
            _refuse(400, message, target=path)


def _is_reachable(member: Mapping[str, Any]) -> bool:
    return all(member[name] for name in ("firstName", "lastName", "phoneNumber", "email"))


def _is_country(text: str | None) -> bool:
    return bool(text) and len(str(text)) == 2 and str(text).isalpha() and str(text).isupper()


Check = tuple[str, Callable[[Referral], bool], str]
"""target of the error, what must hold, message"""

_ALWAYS_CHECKED: tuple[Check, ...] = (
    (
        "customerProfile/address/country",
        lambda r: _is_country(r["customerProfile"]["address"]["country"]),
        "The country must be a two letter ISO code.",
    ),
    (
        "details/currency",
        lambda r: r["details"]["currency"] is None or len(r["details"]["currency"]) == 3,
        "The currency must be an ISO 4217 code.",
    ),
    (
        "details/requirements/solutions",
        lambda r: all(solution["id"] for solution in r["details"]["requirements"]["solutions"]),
        "Each solution needs an id.",
    ),
    (
        "inviteContext/assistanceRequestCode",
        lambda r: r["inviteContext"]["assistanceRequestCode"] in {None, *schema.ASSISTANCE_CODES},
        "The assistanceRequestCode is unknown.",
    ),
)
# What the portal's form and its CSV upload demand: https://learn.microsoft.com/partner-center/bulk-operations
_FORM_RULES: tuple[Check, ...] = (
    (
        "statusReason",
        lambda r: r["substatus"] not in ("Lost", "Declined") or bool(r["statusReason"]),
        "A reason is required.",
    ),
    ("name", lambda r: bool(r["name"]), "The deal name is required."),
    (
        "customerProfile",
        lambda r: bool(
            r["customerProfile"]["name"]
            and r["customerProfile"]["address"]["addressLine1"]
            and r["customerProfile"]["address"]["city"]
        ),
        "Customer name, address line 1 and city are required.",
    ),
    (
        "details",
        lambda r: None not in (r["details"]["dealValue"], r["details"]["currency"], r["details"]["closingDateTime"]),
        "Deal value, currency and closing date are required.",
    ),
    (
        "details/requirements/solutions",
        lambda r: 1 <= len(r["details"]["requirements"]["solutions"]) <= 50,
        "A deal has 1 to 50 solutions.",
    ),
    (
        "team",
        lambda r: 1 <= len(r["team"]) <= 50 and all(map(_is_reachable, r["team"])),
        "A deal has 1 to 50 team members with first name, last name, phone and email.",
    ),
    (
        "consent",
        lambda r: bool(r["consent"]["consentToToShareInfoWithOthers"]),
        "Consent to share contacts is required.",
    ),
    (
        "details/requirements/additionalRequirements",
        lambda r: any(
            a["type"] == "CustomerMarketplaceIntent" and a["id"] in ("Yes", "No", "HaveNotDecided")
            for a in r["details"]["requirements"]["additionalRequirements"]["attributes"]
        ),
        "The customer's marketplace purchase intent is required.",
    ),
)

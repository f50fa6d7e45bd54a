"""What people do in Partner Center's portal: Microsoft's sellers, customers, the partner's own staff, other tools.

Python methods for tests; for other processes `POST /_people/<action>` on the referrals host with arguments in JSON.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from inspect import signature
from typing import Any

from local.simulators.base import Refused, Request, Response, json_response, text_response
from local.simulators.partner_center import query, schema
from local.simulators.partner_center.referrals import MICROSOFT, Referral, ReferralsSimulator
from local.simulators.partner_center.webhooks import WebhooksSimulator

MICROSOFT_SELLER = {
    "firstName": "Mia",
    "lastName": "Seller",
    "phoneNumber": "4255550100",
    "email": "msseller@microsoft.example",
}
PARTNER_SELLER = {
    "firstName": "Pat",
    "lastName": "Partner",
    "phoneNumber": "2065550100",
    "email": "pat@fabrikam.example",
}
CUSTOMER = {
    "name": "Contoso Customer Inc",
    "size": "251to1000employees",
    "address": {
        "addressLine1": "1 Example Way",
        "city": "Redmond",
        "state": "WA",
        "postalCode": "98052",
        "country": "US",
    },
    "team": [
        {
            "firstName": "Sue",
            "lastName": "Smith",
            "phoneNumber": "1234567890",
            "email": "sue.smith@contoso.example",
            "contactPreference": {"locale": "en-US", "disableNotifications": True},
        }
    ],
}
SOLUTION = {"type": "Name", "id": "SOL-15974-MQF", "name": "Fabrikam Data Hub", "publisherName": "Fabrikam"}


class People:
    ACTIONS = (
        "microsoft_accepts",
        "microsoft_declines",
        "microsoft_edits",
        "microsoft_creates_deal",
        "creates_lead",
        "partner_views",
        "partner_edits",
        "partner_accepts",
        "partner_declines",
        "partner_closes",
        "expire_pending",
        "referral_disappears",
        "referral_reappears",
        "another_tool_registers",
    )

    def __init__(self, referrals: ReferralsSimulator, webhooks: WebhooksSimulator) -> None:
        self._referrals, self._webhooks = referrals, webhooks
        referrals.route("/_people/<action>", POST=self._act)

    # Microsoft.

    def microsoft_accepts(
        self, engagement_id: str, sellers: list[dict[str, Any]] | None = None, msx_id: str = "7-1ABCDEFGH"
    ) -> Referral:
        """Microsoft takes the deal on: its sellers and its CRM id become visible."""
        theirs = self._microsofts(engagement_id)
        changed = _changed(theirs, {"/team": sellers or [MICROSOFT_SELLER]}, "Active", "Accepted")
        shown_on = self._referrals.rules.msx_id_on
        if "microsoft" in shown_on:
            changed["trackingInfo"]["microsoftMsxId"] = msx_id
        self._save(theirs, changed)
        for own in self._referrals.of_engagement(engagement_id):
            if own is not theirs and "own" in shown_on:
                self._save(own, {**own, "trackingInfo": {**own["trackingInfo"], "microsoftMsxId": msx_id}})
        return theirs

    def microsoft_declines(self, engagement_id: str, reason: str = "Not a customer") -> Referral:
        theirs = self._microsofts(engagement_id)
        self._save(theirs, _changed(theirs, {"/statusReason": reason}, "Closed", "Declined"))
        return theirs

    def microsoft_edits(self, engagement_id: str, changes: dict[str, Any]) -> Referral:
        """Microsoft changes its own copy; `changes` maps JSON pointers to values."""
        theirs = self._microsofts(engagement_id)
        self._save(theirs, _changed(theirs, changes))
        return theirs

    def microsoft_creates_deal(
        self,
        changes: dict[str, Any] | None = None,
        notes: str = "Can you help this customer?",
        msx_id: str = "7-1ABCDEFGH",
    ) -> Referral:
        """A Microsoft seller invites the partner to a co-sell deal: the partner's row, waiting for an answer."""
        fields = _deal("Shared", "SalesQualified", changes)
        fields["inviteContext"]["notes"] = notes
        with self._referrals.lock:
            own = self._insert(
                fields | {"target": [{"type": "SolutionProfile", "id": SOLUTION["id"]}]}, "New", "Pending"
            )
            theirs = copy.deepcopy(fields) | {"engagementId": own["engagementId"], "team": [MICROSOFT_SELLER]}
            copy_ = self._insert(schema.bind(schema.REFERRAL, theirs), "Active", "Accepted", MICROSOFT)
            copy_["trackingInfo"]["microsoftMsxId"] = msx_id
        return own

    def creates_lead(self, changes: dict[str, Any] | None = None) -> Referral:
        """A customer asks on Microsoft's site for a partner: a lead, waiting for an answer."""
        lead: dict[str, Any] = {
            "/name": None,
            "/details/customerRequestedContact": True,
            "/details/notes": "We look for help to deploy Microsoft 365 and to train staff.",
            "/details/dealValue": 10000,
            "/target": [{"type": "BusinessProfileLocation", "id": "01e2abcd-52b0-4af3-a3ae-1fd1530b3563"}],
        }
        fields = _deal("Independent", "MarketingQualified", lead | (changes or {}))
        with self._referrals.lock:
            return self._insert(fields, "New", "Pending")

    # The partner's staff.

    def partner_views(self, referral_id: str) -> Referral:
        """Somebody opens a new deal, which makes it Received."""
        referral = self._get(referral_id)
        self._save(referral, _changed(referral, {}, "New", "Received"))
        return referral

    def partner_edits(self, referral_id: str, changes: dict[str, Any]) -> Referral:
        """Edit in the portal, which lets more be changed than the API; `changes` maps JSON pointers to values."""
        referral = self._get(referral_id)
        self._save(referral, _changed(referral, changes))
        return referral

    def partner_accepts(self, referral_id: str, changes: dict[str, Any] | None = None) -> Referral:
        referral = self._get(referral_id)
        default = {} if referral["team"] else {"/team": [PARTNER_SELLER]}
        self._save(referral, _changed(referral, default | (changes or {}), "Active", "Accepted"))
        return referral

    def partner_declines(self, referral_id: str, reason: str = "Customer requirement not met") -> Referral:
        referral = self._get(referral_id)
        self._save(referral, _changed(referral, {"/statusReason": reason}, "Closed", "Declined"))
        return referral

    def partner_closes(self, referral_id: str, substatus: str = "Won", reason: str | None = None) -> Referral:
        """Close as Won or Lost."""
        referral = self._get(referral_id)
        self._save(referral, _changed(referral, {"/statusReason": reason}, "Closed", substatus))
        return referral

    # The system, and others.

    def expire_pending(self, *, at_once: bool = False) -> list[Referral]:
        """Close what nobody answered in time; `at_once` does not wait for the 14 days."""
        now = query.ticks(self._referrals.clock.now().isoformat())
        expired = [
            referral
            for referral in self._referrals.referrals.values()
            if referral["status"] == "New" and (at_once or query.ticks(referral["expirationDateTime"]) <= now)
        ]
        for referral in expired:
            self._save(referral, _changed(referral, {}, "Closed", "Expired"), by_system=True)
        return expired

    def referral_disappears(self, referral_id: str) -> Referral:
        """A referral is not there any more, for anybody, and no event tells of it. Returns it as it was."""
        with self._referrals.lock:
            return self._referrals.take_away(self._get(referral_id))

    def referral_reappears(self, referral: Referral) -> None:
        with self._referrals.lock:
            self._referrals.bring_back(referral)

    def another_tool_registers(self, url: str, events: list[str] | None = None) -> None:
        self._webhooks.another_tool_registers(url, events)

    # How.

    def _get(self, referral_id: str) -> Referral:
        if referral_id not in self._referrals.referrals:
            raise ValueError(f"there is no referral {referral_id}")
        return self._referrals.referrals[referral_id]

    def _microsofts(self, engagement_id: str) -> Referral:
        """Microsoft's copy in this engagement."""
        for referral in self._referrals.of_engagement(engagement_id):
            if referral["organizationId"] == MICROSOFT:
                return referral
        raise ValueError(f"Microsoft has no copy in engagement {engagement_id}; only a co-sell deal has one")

    def _save(self, referral: Referral, changed: Referral, *, by_system: bool = False) -> None:
        try:
            with self._referrals.lock:
                self._referrals.update(referral, changed, by_system=by_system)
        except Refused as refused:
            raise ValueError(f"Partner Center refuses: {refused.response.body.decode()}") from refused

    def _insert(self, fields: Referral, status: str, substatus: str, organization_id: str | None = None) -> Referral:
        return self._referrals.insert(
            copy.deepcopy(fields) | {"status": status, "substatus": substatus},
            organization_id=organization_id or self._referrals.organization_id,
            invited_by=MICROSOFT,
            direction="Outgoing" if organization_id == MICROSOFT else "Incoming",
        )

    def _act(self, request: Request, action: str) -> Response:
        if action not in self.ACTIONS:
            return text_response(404, f"action {action!r} is unknown; accepted: {', '.join(self.ACTIONS)}")
        method = getattr(self, action)
        try:
            arguments = signature(method).bind(**(request.json() if request.body else {}))
            return json_response(200, method(*arguments.args, **arguments.kwargs))
        except (TypeError, ValueError, schema.BadValue) as exc:
            return text_response(400, f"{action}: {exc}")


def _deal(kind: str, qualification: str, changes: Mapping[str, Any] | None) -> Referral:
    fields: Referral = schema.bind(
        schema.REFERRAL,
        {
            "name": "Contoso - data platform modernization",
            "type": kind,
            "qualification": qualification,
            "customerProfile": CUSTOMER,
            "consent": {
                "consentToToShareInfoWithOthers": True,
                "consentToContact": True,
                "consentToShareReferralWithMicrosoftSellers": kind == "Shared",
            },
            "details": {
                "notes": "Migration assessment done; needs architecture review.",
                "dealValue": 50000,
                "currency": "USD",
                "closingDateTime": "2027-06-30T00:00:00Z",
                "requirements": {"solutions": [SOLUTION]},
            },
        },
    )
    return _changed(fields, changes or {})


def _changed(
    referral: Referral, changes: Mapping[str, Any], status: str | None = None, substatus: str | None = None
) -> Referral:
    changed = copy.deepcopy(referral)
    for path, value in changes.items():
        schema.write_at(changed, "replace", path, value)
    if status:
        changed |= {"status": status, "substatus": substatus}
    return changed

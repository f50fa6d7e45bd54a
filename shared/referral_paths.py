"""The paths of a Partner Center referral that a field map may name, to catch slips of the pen. Performs no I/O.

https://learn.microsoft.com/partner-center/developer/referral-resources
"""

from __future__ import annotations

import re
from difflib import get_close_matches

_PERSON = "firstName lastName phoneNumber email title"

_BELOW = {
    "": "id engagementId name externalReferenceId organizationId organizationName mpnId createdDateTime "
    "updatedDateTime expirationDateTime acceptedDateTime closedDateTime status substatus statusReason type "
    "qualification direction referralSource callToAction referralProgram campaignId salesStage favorite "
    "quality isSpam registrationStatus team target trackingInfo",
    "/team/0": _PERSON,
    "/customerProfile": "name size ids team",
    "/customerProfile/team/0": _PERSON,
    "/customerProfile/address": "addressLine1 addressLine2 city state postalCode country region",
    # The doubled "To" is Partner Center's own.
    "/consent": "consentToToShareInfoWithOthers consentToContact consentToShareReferralWithMicrosoftSellers "
    "consentToMicrosoftToContactSpecificPartners",
    "/details": "notes dealValue currency closingDateTime customerRequestedContact customerAction incentiveLevel",
    "/details/requirements": "industries products services solutions offers salesPlays",
    "/inviteContext": "notes assistanceRequestCode",
    "/inviteContext/invitedBy": "organizationId organizationName",
    "/trackingInfo": "microsoftMsxId",
}
PATHS = frozenset(f"{parent}/{name}" for parent, names in _BELOW.items() for name in names.split()) | {"/"}


def closest_path(pointer: str) -> str:
    """Return "" for a known path (any list index will do), otherwise the known path most like it."""
    first = re.sub(r"/\d+(?=/|$)", "/0", pointer)
    if first in PATHS:
        return ""
    return next(iter(get_close_matches(first, sorted(PATHS), n=1, cutoff=0.0)))

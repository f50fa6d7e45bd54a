"""The referral resource as the simulated Partner Center knows it: shapes, enumerations, legal states, writable paths.

Tables, and the two functions that apply them to JSON: `bind` (a body) and `write_at` (one JSON Patch operation).
https://learn.microsoft.com/partner-center/developer/referral-resources
https://learn.microsoft.com/partner-center/developer/patch-a-referral
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

TEXT, FLAG, NUMBER, TIME, ANY = "text", "flag", "number", "time", "any"

Shape = Any
"""TEXT ... ANY, a dict of shapes (an object), or a list of one shape (an array)."""

MEMBER: Shape = {
    "firstName": TEXT,
    "lastName": TEXT,
    "phoneNumber": TEXT,
    "email": TEXT,
    "title": TEXT,
    "contactPreference": {"locale": TEXT, "disableNotifications": FLAG},
}
SOLUTION: Shape = {
    "id": TEXT,
    "name": TEXT,
    "type": TEXT,
    "price": NUMBER,
    "quantity": NUMBER,
    "currency": TEXT,
    "publisherName": TEXT,
    "solutionType": TEXT,
    "closingDateTime": TIME,
}
REGISTRATION: Shape = {
    "type": TEXT,
    "contract": {
        "value": NUMBER,
        "currency": TEXT,
        "term": TEXT,
        "startDateTime": TIME,
        "endDateTime": TIME,
        "signDateTime": TIME,
    },
    "solutionDetails": [
        {
            "id": TEXT,
            "name": TEXT,
            "currency": TEXT,
            "value": NUMBER,
            "isDeployedOnAzure": FLAG,
            "primaryDeploymentOn": TEXT,
            "pricingModel": TEXT,
            "marketplaceTransactionDetails": {"isMarketplaceTransacted": FLAG, "marketplaceTransactionDateTime": TIME},
        }
    ],
}
# What a caller may send. Everything else in a referral belongs to the server and is ignored when sent.
REFERRAL: Shape = {
    "name": TEXT,
    "externalReferenceId": TEXT,
    "engagementId": TEXT,
    "mpnId": TEXT,
    "status": TEXT,
    "substatus": TEXT,
    "statusReason": TEXT,
    "qualification": TEXT,
    "type": TEXT,
    "referralSource": TEXT,
    "callToAction": TEXT,
    "referralProgram": TEXT,
    "campaignId": TEXT,
    "salesStage": TEXT,
    "favorite": FLAG,
    "lastModifiedVia": TEXT,
    "lastRunId": ANY,
    "target": [{"type": TEXT, "id": TEXT}],
    "customerProfile": {
        "name": TEXT,
        "size": TEXT,
        "address": {
            "addressLine1": TEXT,
            "addressLine2": TEXT,
            "city": TEXT,
            "state": TEXT,
            "postalCode": TEXT,
            "country": TEXT,
            "region": TEXT,
        },
        "team": [MEMBER],
        "ids": [{"profileType": TEXT, "id": TEXT}],
    },
    "consent": {
        "consentToToShareInfoWithOthers": FLAG,  # the doubled To is the service's own
        "consentToContact": FLAG,
        "consentToShareReferralWithMicrosoftSellers": FLAG,
        "consentToMicrosoftToContactSpecificPartners": FLAG,
    },
    "details": {
        "notes": TEXT,
        "dealValue": NUMBER,
        "currency": TEXT,
        "closingDateTime": TIME,
        "customerRequestedContact": FLAG,
        "customerAction": TEXT,
        "incentiveLevel": TEXT,
        "requirements": {
            "industries": [{"id": TEXT}],
            "products": [{"id": TEXT}],
            "services": [{"id": TEXT}],
            "solutions": [SOLUTION],
            "offers": [ANY],
            "salesPlays": [ANY],
            "additionalRequirements": {
                "iot": {
                    "customerLicenseAgreementNumber": TEXT,
                    "deviceCategory": TEXT,
                    "siliconType": TEXT,
                    "azureCertifiedDevice": FLAG,
                    "attachServices": FLAG,
                },
                "attributes": [{"type": TEXT, "id": TEXT}],
            },
        },
    },
    "team": [MEMBER],
    "inviteContext": {"notes": TEXT, "assistanceRequestCode": TEXT, "invitedMpnId": TEXT},
    "registrations": [REGISTRATION],
}
# Settled when the referral is created: PUT leaves these as they are, PATCH refuses them.
SETTLED = ("engagementId", "mpnId", "registrations")
SETTLED_PATHS = tuple(f"/{name}" for name in SETTLED)
REQUIRED_ON_CREATE = ("type", "customerProfile", "consent", "details")

ENUMS = {
    "type": {"Independent", "Shared"},
    "qualification": {"None", "Direct", "MarketingQualified", "SalesQualified"},
    "status": {"None", "New", "Active", "Closed"},
    "substatus": {"None", "Pending", "Received", "Accepted", "Won", "Lost", "Declined", "Expired"},
}
ASSISTANCE_CODES = {
    "WorkloadSpecificValueProposition",
    "CustomerTechnicalArchitecture",
    "ProofOfConceptOrDemo",
    "QuotesOrLicensing",
    "PostSalesCustomerSuccess",
    "GeneralOrOther",
    "Unknown",
}
LEGAL_SUBSTATUS = {
    "None": {"None"},
    "New": {"Pending", "Received"},
    "Active": {"Accepted"},
    "Closed": {"Won", "Lost", "Declined", "Expired"},
}
# (status, substatus) -> what a partner may change it to. Expired is the system's own doing; Closed is the end.
LEGAL_CHANGES = {
    ("New", "Pending"): {("New", "Pending"), ("New", "Received"), ("Active", "Accepted"), ("Closed", "Declined")},
    ("New", "Received"): {("New", "Pending"), ("New", "Received"), ("Active", "Accepted"), ("Closed", "Declined")},
    ("Active", "Accepted"): {("Active", "Accepted"), ("Closed", "Won"), ("Closed", "Lost")},
}

# The paths that the Partner Center Referrals connector offers, all that is known to be accepted.
PATCH_PATHS = {
    "/campaignId",
    "/consent/consentToShareReferralWithMicrosoftSellers",
    "/customerProfile/team",
    "/customerProfile/team/-",
    "/details/closingDateTime",
    "/details/currency",
    "/details/dealValue",
    "/details/notes",
    "/details/requirements/solutions",
    "/details/requirements/solutions/-",
    "/externalReferenceId",
    "/referralProgram",
    "/salesStage",
    "/status",
    "/substatus",
    "/statusReason",
    "/team",
    "/team/-",
}
_PATCH_PATHS_FOLDED = {path.lower() for path in PATCH_PATHS}
_REGISTRATION_PATH = re.compile(
    r"/registrations/(-|0/contract/(startDateTime|endDateTime|signDateTime|term|value)"
    r"|0/solutionDetails/0/(value|currency|isDeployedOnAzure|primaryDeploymentOn|pricingModel"
    r"|marketplaceTransactionDetails/(isMarketplaceTransacted|marketplaceTransactionDateTime)))",
    re.IGNORECASE,
)


class BadValue(Exception):
    """A value does not fit: `path` says where, the message why."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path = path


def is_patch_path(path: str) -> bool:
    return path.lower() in _PATCH_PATHS_FOLDED or is_registration_path(path)


def is_registration_path(path: str) -> bool:
    return _REGISTRATION_PATH.fullmatch(path) is not None


def blank(shape: Shape) -> Any:
    """What the service returns for what nobody has set: null, an empty array, an object of such."""
    if isinstance(shape, dict):
        return {name: blank(part) for name, part in shape.items()}
    return [] if isinstance(shape, list) else None


def bind(shape: Shape, value: Any, path: str = "") -> Any:
    """`value` in this shape: names in any case, unknown ones ignored, numbers also from text. Raises BadValue."""
    if value is None:
        return blank(shape)
    if isinstance(shape, dict):
        if not isinstance(value, Mapping):
            raise BadValue(path, f"An object is expected at {path}.")
        given = {name.lower(): part for name, part in value.items()}
        return {name: bind(part, given.get(name.lower()), f"{path}/{name}") for name, part in shape.items()}
    if isinstance(shape, list):
        if not isinstance(value, list):
            raise BadValue(path, f"An array is expected at {path}.")
        return [bind(shape[0], item, f"{path}/{index}") for index, item in enumerate(value)]
    return _SCALARS[shape](value, path)


def write_at(document: dict[str, Any], op: str, path: str, value: Any) -> None:
    """Do one JSON Patch operation (add or replace) on a referral. Raises BadValue when it does not fit."""
    node, shape = document, REFERRAL
    *way, last = path.split("/")[1:] or [""]
    for part in way:
        node, shape = node[_step(node, shape, part, path)], shape[0 if isinstance(shape, list) else _name(shape, part)]
    if isinstance(node, list) and last == "-":
        if op != "add":
            raise BadValue(path, "Only add can append to an array.")
        node.append(bind(shape[0], value, path))
        return
    key = _step(node, shape, last, path)
    if isinstance(node, list) and op == "add":
        node.insert(key, bind(shape[0], value, path))
    else:
        node[key] = bind(shape[0] if isinstance(shape, list) else shape[key], value, path)


def _step(node: Any, shape: Shape, part: str, path: str) -> Any:
    if isinstance(shape, list):
        if not part.isdigit() or int(part) >= len(node):
            raise BadValue(path, f"There is no item {part} at {path}.")
        return int(part)
    if not isinstance(shape, dict) or _name(shape, part) is None:
        raise BadValue(path, f"The path {path} does not exist.")
    return _name(shape, part)


def _name(shape: Mapping[str, Shape], part: str) -> str | None:
    return next((name for name in shape if name.lower() == part.lower()), None)


def _text(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise BadValue(path, f"A string is expected at {path}.")
    return value


def _flag(value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        raise BadValue(path, f"A boolean is expected at {path}.")
    return value


def _number(value: Any, path: str) -> int | float:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise BadValue(path, f"A number is expected at {path}.") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadValue(path, f"A number is expected at {path}.")
    return int(value) if value == int(value) else value


def _time(value: Any, path: str) -> str:
    try:
        time = datetime.fromisoformat(_text(value, path))
    except ValueError:
        raise BadValue(path, f"A date and time like 2024-11-14T00:00:00Z is expected at {path}.") from None
    in_utc = time.astimezone(UTC) if time.tzinfo else time
    return f"{in_utc:%Y-%m-%dT%H:%M:%SZ}"


def _any(value: Any, path: str) -> Any:  # noqa: ARG001
    return value


_SCALARS: dict[str, Callable[[Any, str], Any]] = {
    TEXT: _text,
    FLAG: _flag,
    NUMBER: _number,
    TIME: _time,
    ANY: _any,
}

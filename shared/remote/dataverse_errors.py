"""Owns what Dataverse's error codes mean to us and what a person does about each, as a table. Calls nothing.

https://learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes
https://learn.microsoft.com/power-apps/developer/data-platform/webapi/compose-http-requests-handle-errors
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from shared.errors import Forbidden, NotFound, Refused, Throttled, Unavailable, VersionConflict
from shared.remote.dialect import Complaint, Dialect, Meaning, any_error

KEY_NOT_DEFINED = "0x80060890"
EXPIRED_VERSION_STAMP = "0x80044352"
OPPORTUNITY_ALREADY_CLOSED = "0x80040515"
STATE_IN_PLACE = frozenset({"0x8004051a", "0x80040518", "0x80040519"})
"""Opportunity already open, lead already open, lead already closed."""
DUPLICATES = frozenset({"0x80060892", "0x80040237"})
"""Alternate key, primary key or unique index already taken."""

_PROVISION = "provision the CRM columns and keys (docs/configuration.md), or correct the field map; then replay"
_ROLE = "give the application user's security role this privilege (Power Platform admin center), then replay"
_PLUGIN = "a plug-in or business rule of the CRM refused it: do what its message says, or ask who maintains it"
_CURRENCY = "make the record's currency agree with its amounts and price list, then replay"

CODES: Mapping[str, Meaning] = {
    # what is addressed
    "0x80040217": Meaning(NotFound),
    "0x80060891": Meaning(NotFound),
    "0x8006088a": Meaning(Refused, "the table does not exist in this environment: correct the field map, then replay"),
    "0x80060888": Meaning(Refused, _PROVISION),
    KEY_NOT_DEFINED: Meaning(
        Refused, "provision the alternate key on the referral id column and wait until its index is Active; then replay"
    ),
    # versions and keys
    "0x80060882": Meaning(VersionConflict),
    "0x8006088d": Meaning(Refused, "switch on optimistic concurrency for the table (its definition), then replay"),
    "0x80060892": Meaning(Refused, "another record already carries this value: clear it there or merge the two"),
    "0x80040237": Meaning(Refused, "another record already carries this value: clear it there or merge the two"),
    "0x80040333": Meaning(Refused, "a duplicate detection rule matched: merge the duplicates, then replay"),
    # values
    "0x80048d19": Meaning(Refused, "the field map's type or lookup name does not fit the column: correct it, replay"),
    "0x80044331": Meaning(Refused, "shorten the value or lengthen the column, then replay"),
    "0x80044330": Meaning(Refused, "bring the value into the column's range, then replay"),
    "0x8004431a": Meaning(Refused, "add the option to the column or correct `values` in the field map, then replay"),
    "0x80048408": Meaning(Refused, "the status reason does not belong to the state: correct the field map's lifecycle"),
    "0x80100005": Meaning(Refused, "the record cannot be closed this way: close it in the CRM"),
    OPPORTUNITY_ALREADY_CLOSED: Meaning(Refused, "the opportunity is closed in another way: reopen it, then replay"),
    "0x80040516": Meaning(Refused, "the opportunity cannot be closed yet: see its quotes and orders, then replay"),
    "0x80040517": Meaning(Refused, "activate the account or contact the record refers to, then replay"),
    "0x80048cfb": Meaning(Refused, _CURRENCY),
    "0x80048cea": Meaning(Refused, _CURRENCY),
    "0x80048cef": Meaning(Refused, _CURRENCY),
    "0x80048cf6": Meaning(Refused, _CURRENCY),
    "0x80100004": Meaning(Refused, _CURRENCY),
    "0x80100010": Meaning(Refused, "set a price list on the record, then replay"),
    # what a customer's plug-in said
    "0x80040265": Meaning(Refused, _PLUGIN),
    "0x80048d02": Meaning(Refused, _PLUGIN),
    "0x80048d05": Meaning(Forbidden, _PLUGIN),
    "0x80048d06": Meaning(Forbidden, _PLUGIN),
    "0x80048d03": Meaning(Unavailable),
    "0x80048d04": Meaning(Throttled),
    "0x80048d07": Meaning(Unavailable),
    # who calls
    "0x80040220": Meaning(Forbidden, _ROLE),
    "0x80048306": Meaning(Forbidden, _ROLE),
    "0x8004f507": Meaning(Forbidden, "let the application user update the secured column (column security profile)"),
    "0x80072560": Meaning(
        Forbidden,
        "create an application user for DYNAMICS365_CLIENT_ID (or the managed identity) in the Power Platform admin "
        "center and give it the security role, then replay",
    ),
    # what passes: https://learn.microsoft.com/power-apps/developer/data-platform/api-limits
    "0x80072321": Meaning(Throttled),
    "0x80072322": Meaning(Throttled),
    "0x80072326": Meaning(Throttled),
    "0x80072327": Meaning(Unavailable),
    "0x80044151": Meaning(Unavailable),
    "0x80044339": Meaning(Unavailable),
    "0x8004a001": Meaning(Unavailable),
    # another customization is being imported or published
    **{f"0x8004f06{digit}": Meaning(Unavailable) for digit in range(1, 8)},
    "0x80090412": Meaning(Unavailable),
}

_NAMED_COLUMN = re.compile(
    r"length of the '(\w+)' attribute|value of '(\w+)' on record|property named '(\w+)'|nvalid property '(\w+)'"
    r"|undeclared property '(\w+)'|same value for (\w+) already"
)
_MISSING_ROW = re.compile(r"(\w+) With Id = ")
_KEY_WORDS = "key in the request URI is not valid"


def _read_error(body: Any) -> Complaint:
    """Read the code, and out of the words the column, or for a missing row its table."""
    said = any_error(body)
    column = _NAMED_COLUMN.search(said.message) or _MISSING_ROW.match(said.message)
    named = next(filter(None, column.groups()), "") if column else ""
    # The words are documented for a key that is undefined or not yet active, the code is not.
    code = KEY_NOT_DEFINED if _KEY_WORDS in said.message else said.code.lower()
    return Complaint(code=code, message=said.message, field=named)


DIALECT = Dialect(
    read_error=_read_error,
    codes=CODES,
    # A 404 without one of the codes above comes from a gateway: no reason to think that a record was deleted.
    statuses={404: Meaning(Unavailable, "check DYNAMICS365_URL in the settings")},
    request_id_header="x-ms-client-request-id",
    answer_id_header="x-ms-service-request-id",
    headers={"OData-MaxVersion": "4.0", "OData-Version": "4.0"},
)

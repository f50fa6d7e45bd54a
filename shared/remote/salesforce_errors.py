"""Owns what Salesforce's error codes mean to us and what a person does about each, as a table. Calls nothing.

https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/errorcodes.htm
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import requests

from shared.errors import Converted, Forbidden, NotFound, NotVisible, Refused, SignInFailed, Throttled, Unavailable
from shared.remote.dialect import Complaint, Dialect, Meaning

INVALID_FIELD = "INVALID_FIELD"
DUPLICATES_DETECTED = "DUPLICATES_DETECTED"
HALTED = "PROCESSING_HALTED"
"""Of the calls that were undone because another one of the same request failed."""
NO_EXTERNAL_ID = "NO_EXTERNAL_ID"
NO_CURRENCY = "NO_CURRENCY"
DAILY_LIMIT = "DAILY_LIMIT"
"""Our own names for what Salesforce tells only in words."""

DAILY_LIMIT_PAUSE_S = 900.0
"""The limit is that of the last 24 hours, so that it frees itself little by little."""
CONCURRENT_LIMIT_PAUSE_S = 30.0

_FIELD = (
    "your Salesforce admin has to create the field, or let the integration user see and edit it (permission set "
    "Cosell_Sync), or correct the field map; then save, or replay, two minutes later"
)
_SHARING = "give the integration user View All on the object (permission set Cosell_Sync), then replay"
_RIGHTS = "give the integration user the right (permission set Cosell_Sync, and View All on the object), then replay"
_RULE = "do what the message says, or let the rule leave the integration user alone; then replay"
_TAKEN = "another record already carries this value: clear it there or merge the two, then replay"
_ADDRESS = (
    "check SALESFORCE_URL and SALESFORCE_API_VERSION in the settings, and that the integration user may see the object "
    "(permission set Cosell_Sync)"
)

CODES: Mapping[str, Meaning] = {
    # what is addressed: only a 404 with one of these codes says that a record is gone
    "invalid_cross_reference_key:404": Meaning(NotVisible, _SHARING),
    "entity_is_deleted:404": Meaning(NotFound),
    "invalid_cross_reference_key": Meaning(Refused, "a record it refers to does not exist: choose another one, replay"),
    "entity_is_deleted": Meaning(Refused, "a record it refers to was deleted: choose another one, then replay"),
    "malformed_id": Meaning(Refused, "the id does not belong to such a record: correct it, then replay"),
    "not_found": Meaning(Unavailable, _ADDRESS),
    "invalid_type": Meaning(Refused, f"the object does not exist, or {_RIGHTS}"),
    # fields
    "invalid_field": Meaning(Refused, _FIELD),
    NO_CURRENCY.lower(): Meaning(Refused, "an org with one currency keeps none: set CRM_CURRENCY in the app settings"),
    "invalid_field_for_insert_update": Meaning(Forbidden, "let the integration user edit the field (Cosell_Sync)"),
    NO_EXTERNAL_ID.lower(): Meaning(Refused, "make the field an External ID, visible to the integration user; replay"),
    "required_field_missing": Meaning(
        Refused, "fill it in, or give it a value under `new` in the field map; then replay"
    ),
    # values
    "string_too_long": Meaning(Refused, "lengthen the field, or set its max_length in the field map; then replay"),
    "invalid_or_null_for_restricted_picklist": Meaning(
        Refused,
        "add such a value to the picklist in Setup (a currency: Company Information, Currency Setup), or correct "
        "`values` in the field map; then replay",
    ),
    "invalid_email_address": Meaning(Refused, "correct the address in Partner Center, then replay"),
    "number_outside_valid_range": Meaning(Refused, "bring the number into the field's range, then replay"),
    "field_integrity_exception": Meaning(
        Refused, "correct the value; with State and Country picklists on, map the ...Code fields; then replay"
    ),
    "json_parser_error": Meaning(Refused, "the field map's type does not fit the field: correct it, then replay"),
    "duplicate_value": Meaning(Refused, _TAKEN),
    "duplicate_external_id": Meaning(Refused, _TAKEN),
    DUPLICATES_DETECTED.lower(): Meaning(Refused, "a duplicate rule blocks it: merge the two, or relax the rule"),
    "inactive_owner_or_user": Meaning(Refused, "give the record an active owner, then replay"),
    "cannot_update_converted_lead": Meaning(Converted, "the lead was converted: the deal goes on as its opportunity"),
    # what the org's own automation said
    "field_custom_validation_exception": Meaning(Refused, _RULE),
    "cannot_insert_update_activate_entity": Meaning(Refused, _RULE),
    "cannot_execute_flow_trigger": Meaning(Refused, _RULE),
    # who calls
    "insufficient_access_or_readonly": Meaning(Forbidden, _RIGHTS),
    "insufficient_access": Meaning(Forbidden, _RIGHTS),
    "insufficient_access_on_cross_reference_entity": Meaning(Forbidden, _RIGHTS),
    "invalid_session_id": Meaning(SignInFailed, "check the app's policies: API access, IP ranges, the Run As user"),
    "api_disabled_for_org": Meaning(Forbidden, "the org's edition has no API, or the user lacks API Enabled"),
    "api_currently_disabled": Meaning(Forbidden, "the org's edition has no API, or the user lacks API Enabled"),
    "storage_limit_exceeded": Meaning(Refused, "the org is full: free or buy data storage, then replay"),
    # what passes
    DAILY_LIMIT.lower(): Meaning(
        Throttled,
        "the org's API requests of the last 24 hours are used up: it goes on by itself; raise the org's limit, or let "
        "SALESFORCE_API_RESERVE keep some for people",
        DAILY_LIMIT_PAUSE_S,
    ),
    "request_limit_exceeded": Meaning(Throttled, pause_s=CONCURRENT_LIMIT_PAUSE_S),
    "unable_to_lock_row": Meaning(Unavailable),
    "query_timeout": Meaning(Unavailable),
    "server_unavailable": Meaning(Unavailable),
    "unknown_exception": Meaning(Unavailable),
    "invalid_query_locator": Meaning(Unavailable),
    HALTED.lower(): Meaning(Refused, "report it, with what the message says"),
}

_NAMED_FIELD = re.compile(
    r"No such column '(\w+)'|relationship '(\w+)' in |not accessible: (\w+)|create/update fields: (\w+)"
    r"|missing: \[(\w+)|restricted picklist field: (\w+__c)\b|found: (\w+) duplicates"
)
_QUOTED_QUERY = re.compile(r".*ERROR at Row:\d+:Column:\d+\s*", re.DOTALL)
_TAKEN_BY = re.compile(r"on record with id: (\w{15,18})")


def _read_error(body: Any) -> Complaint:
    """Read the array of errors; the first one counts that is not about a call undone for another's sake.

    `fields` is often empty where the message names the field.
    """
    errors = [error for error in body if isinstance(error, Mapping)] if isinstance(body, list) else []
    error = next((e for e in errors if _code(e) != HALTED), errors[0] if errors else None)
    if error is None:
        return Complaint()
    # Before the place of the error a query is quoted whole, with the names in it.
    code, message = _code(error), _QUOTED_QUERY.sub("", str(error.get("message") or ""))
    named = _NAMED_FIELD.search(message)
    fields = error.get("fields") or [next(filter(None, named.groups()), "") if named else ""]
    taken_by = _TAKEN_BY.search(message)
    return Complaint(
        code=_in_our_words(code, message),
        message=message,
        field=str(fields[0]),
        existing=_match(error) or (taken_by[1] if taken_by else ""),
        part=str(error.get(PART) or ""),
    )


def _code(error: Mapping[str, Any]) -> str:
    # Rows of a collection say statusCode.
    return str(error.get("errorCode") or error.get("statusCode") or "")


def _in_our_words(code: str, message: str) -> str:
    if code == "NOT_FOUND" and "external ID field" in message:
        return NO_EXTERNAL_ID
    if code == INVALID_FIELD and "'CurrencyIsoCode'" in message:
        return NO_CURRENCY
    if code == "REQUEST_LIMIT_EXCEEDED" and message.startswith("TotalRequests"):
        return DAILY_LIMIT
    return code


def _match(error: Mapping[str, Any]) -> str:
    """Return the id of the record that a duplicate rule found. The misspelled member is what real answers have."""
    found = error.get("duplicateResut") or error.get("duplicateResult") or {}
    kind = found.get("duplicateRuleEntityType")
    records = (match["record"] for result in found.get("matchResults", ()) for match in result.get("matchRecords", ()))
    return next((str(record["Id"]) for record in records if record["attributes"]["type"] == kind), "")


# ---------------------------------------------------------------- several calls in one

PART = "referenceId"


def _failure_within(response: requests.Response) -> requests.Response | None:
    """Return the answer to the call that made a composite request fail, as if it had been sent alone; None: all well.

    We send all-or-none: then the other calls answer 400 PROCESSING_HALTED and nothing was done.
    https://developer.salesforce.com/docs/platform/api-rest/guide/resources-composite-composite-post.html
    """
    if b'"compositeResponse"' not in response.content:
        return None
    failed = list(_failures(response.json()["compositeResponse"]))
    if not failed:
        return None
    part = next((answer for answer in failed if not _was_halted(answer)), failed[0])
    alone = requests.Response()
    alone.status_code, alone.request, alone.reason = part["httpStatusCode"], response.request, "failed"
    alone._content = json.dumps([_named(error, part[PART]) for error in part["body"] or [{}]]).encode()
    return alone


def _failures(answers: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    return (answer for answer in answers if not 200 <= answer["httpStatusCode"] < 300)


def _was_halted(answer: Mapping[str, Any]) -> bool:
    errors = answer["body"] if isinstance(answer["body"], list) else []
    return any(isinstance(error, Mapping) and _code(error) == HALTED for error in errors)


def _named(error: Any, part: str) -> dict[str, Any]:
    return {**error, PART: part} if isinstance(error, Mapping) else {"message": str(error), PART: part}


DIALECT = Dialect(
    read_error=_read_error,
    codes=CODES,
    statuses={
        300: Meaning(Refused, "several records carry this referral: keep one, and make the field Unique; then replay"),
        # Without one of the codes above they come from a gateway, or the version is not offered: no reason to think
        # that a record was deleted.
        404: Meaning(Unavailable, _ADDRESS),
        410: Meaning(Unavailable, _ADDRESS),
        409: Meaning(Unavailable),
        420: Meaning(Unavailable),
    },
    passing=frozenset({"unable_to_lock_row"}),
    failure_within=_failure_within,
    # Salesforce keeps none of ours; it goes out all the same, for whatever logs are on the way.
    request_id_header="X-Request-Id",
    headers={"Sforce-Call-Options": "client=cosell-sync"},
)

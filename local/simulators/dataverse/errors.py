"""The refusals of Dataverse: status, code and words of each, as a table. Decides nothing.

https://learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes
https://learn.microsoft.com/troubleshoot/power-platform/dataverse/dataverse-web-api-and-sdk/web-api-client-errors
"""

from __future__ import annotations

from typing import Any

from local.simulators.base import Refused, json_response

PAYLOAD = "Error identified in Payload provided by the user for Entity :'{set}' ----> InnerException : "

# name: (HTTP status, code, message)
ERRORS: dict[str, tuple[int, str, str]] = {
    # who calls
    "NotMember": (403, "0x80072560", "The user is not a member of the organization."),
    "PrivilegeDenied": (
        403,
        "0x80040220",
        "Principal user (Id={user}, type=8) is missing prv{action}{table} privilege "
        "(Id=00000000-0000-0000-0000-000000000000) on OTC=0 for entity '{table}'.",
    ),
    "AccessDenied": (
        403,
        "0x80048306",
        "Principal with ID {user} does not have {action}Access right(s) for record with ID {id} of entity {table}",
    ),
    "CannotActOnBehalfOf": (403, "0x80040220", "User {user} is missing prvActOnBehalfOfAnotherUser privilege."),
    # addresses
    "NoSuchSegment": (404, "0x8006088a", "Resource not found for the segment '{segment}'."),
    "NoSuchResource": (404, "", "No HTTP resource was found that matches the request URI '{uri}'."),
    "WrongMethod": (405, "0x8006088a", "The requested resource does not support http method '{method}'."),
    "MetadataPatch": (405, "0x80060888", "Operation not supported on {type}"),
    "ObjectDoesNotExist": (404, "0x80040217", "{table} With Id = {id} Does Not Exist"),
    "RecordNotFoundByEntityKey": (
        404,
        "0x80060891",
        "A record with the specified key values does not exist in {table} entity",
    ),
    "EntityKeyNotDefined": (
        400,
        "0x80060890",
        "The key in the request URI is not valid for resource 'Microsoft.Dynamics.CRM.{table}'. Ensure that the names "
        "and number of key properties match the declared or alternate key properties for the resource "
        "'Microsoft.Dynamics.CRM.{table}'.",
    ),
    "DangerousPath": (
        400,
        "0x80060888",
        "A potentially dangerous Request.Path value was detected from the client ({character}).",
    ),
    # queries
    "NoSuchProperty": (
        400,
        "0x80060888",
        "Could not find a property named '{name}' on type 'Microsoft.Dynamics.CRM.{table}'.",
    ),
    "BadQuery": (400, "0x80060888", "{message}"),
    "NotSimulated": (501, "0x80060888", "The Dataverse simulator does not know {what}. The real service may."),
    "NotWithChangeTracking": (
        400,
        "0x80060888",
        'The "${option}" query parameter isn\'t supported when Change Tracking is enabled.',
    ),
    "ChangeTrackingOff": (400, "0x80060888", "Change tracking isn't enabled for entity '{table}'."),
    "ExpiredVersionStamp": (
        400,
        "0x80044352",
        "Version stamp associated with the client has expired. Please perform a full sync.",
    ),
    # payloads
    "InvalidProperty": (
        400,
        "0x0",
        "An error occurred while validating input parameters: Microsoft.OData.ODataException: Invalid property "
        "'{name}' was found in entity 'Microsoft.Dynamics.CRM.{table}'.",
    ),
    "UndeclaredProperty": (
        400,
        "0x80048d19",
        PAYLOAD + "An undeclared property '{name}' which only has property annotations in the payload but no property "
        "value was found in the payload.",
    ),
    "BadPayload": (400, "0x80048d19", PAYLOAD + "{message}"),
    "UnreadableBatch": (400, "0x80048d19", "Stream was not readable."),
    "InvalidArgument": (400, "0x80040203", "{message}"),
    "StringTooLong": (
        400,
        "0x80044331",
        "A validation error occurred.  The length of the '{name}' attribute of the '{table}' entity exceeded the "
        "maximum allowed length of '{limit}'.",
    ),
    "ValueOutOfRange": (
        400,
        "0x80044330",
        "A validation error occurred.  The value of '{name}' on record of type '{table}' is outside the valid range.",
    ),
    "PicklistValueOutOfRange": (400, "0x8004431a", "The picklist value is out of the range."),
    "InvalidDateTime": (
        400,
        "0x80040239",
        "DateTime is less than minimum value supported by CrmDateTime. Minimum value supported: 01/01/1753 00:00:00",
    ),
    # rules of the tables
    "CurrencyNull": (
        400,
        "0x80048cfb",
        "The currency cannot be null because the record has money fields that are not null.",
    ),
    "CustomerIsInactive": (
        400,
        "0x80040517",
        "You can't create or update this record with an inactive {table} as its customer.",
    ),
    "InvalidStateCodeStatusCode": (
        400,
        "0x80048408",
        "{status} is not a valid status code for state code {state} on {table}.",
    ),
    "UseCloseMessage": (
        400,
        "0x80100005",
        "This message can not be used to set the state of opportunity to {state}. In order to set state of "
        "opportunity to {state}, use the {message} message instead.",
    ),
    "OpportunityAlreadyClosed": (400, "0x80040515", "The opportunity is already closed."),
    "LeadAlreadyClosed": (400, "0x80040519", "The lead is already closed."),
    "IsvAborted": (400, "0x80040265", "{message}"),
    # concurrency and keys
    "ConcurrencyVersionMismatch": (
        412,
        "0x80060882",
        "The version of the existing record doesn't match the RowVersion property provided.",
    ),
    "OptimisticConcurrencyNotEnabled": (
        400,
        "0x8006088d",
        "Optimistic concurrency isn't enabled for entity type {table}. The IfVersionMatches behavior can only be used "
        "with an entity type that has optimistic concurrency enabled.",
    ),
    "DuplicateRecord": (412, "0x80040237", "Cannot insert duplicate key."),
    "RecordExists": (412, "0x80040237", "A record with matching key values already exists."),
    "DuplicateRecordEntityKey": (
        412,
        "0x80060892",
        "Entity Key {key} violated. A record with the same value for {columns} already exists. A duplicate record "
        "cannot be created. Select one or more unique values and try again.",
    ),
    # definitions
    "DuplicateAttributeSchemaName": (
        400,
        "0x80047013",
        "Attribute with the schema name {name} already exists on entity {table}.",
    ),
    "DuplicateKeyName": (400, "0x80060893", "An entity key with the name {name} already exists on entity {table}."),
    "DuplicateKeyColumns": (
        400,
        "0x80060894",
        "An entity key with the selected attributes already exists on entity {table}.",
    ),
    "ReactivateOnlyFailed": (400, "0x80060897", "Reactivate entity key is only supported for failed job"),
    # service protection, https://learn.microsoft.com/power-apps/developer/data-platform/api-limits
    "RequestLimit": (
        429,
        "0x80072322",
        "Number of requests exceeded the limit of 6000 over time window of 300 seconds.",
    ),
    "ExecutionTimeLimit": (
        429,
        "0x80072321",
        "Combined execution time of incoming requests exceeded limit of 1,200,000 milliseconds over time window of "
        "300 seconds. Decrease number of concurrent requests or reduce the duration of requests and try again later.",
    ),
    "ConcurrencyLimit": (429, "0x80072326", "Number of concurrent requests exceeded the limit of 52."),
}


def refuse(name: str, /, **words: Any) -> Refused:
    """The refusal of that name, to be raised."""
    status, code, message = ERRORS[name]
    body = {"error": {"code": code, "message": message.format(**words)}}
    return Refused(json_response(status, body, {"OData-Version": "4.0"}))

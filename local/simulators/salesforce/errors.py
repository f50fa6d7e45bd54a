"""The refusals of Salesforce: status, code and words of each, as a table. Decides nothing.

https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/errorcodes.htm
The texts are those seen in recorded traffic and public clients; where none was seen, they are ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from local.simulators.base import Refused, json_response

JSON = {"Content-Type": "application/json;charset=UTF-8"}
SEE_WSDL = "Please reference your WSDL or the describe call for the appropriate names."
NOT_SUPPORTED = (
    "sObject type '{name}' is not supported. If you are attempting to use a custom object, be sure to append the "
    f"'__c' after the entity name. {SEE_WSDL}"
)
NO_COLUMN = (
    "No such column '{name}' on entity '{object}'. If you are attempting to use a custom field, be sure to append the "
    f"'__c' after the custom field name. {SEE_WSDL}"
)
NO_RELATIONSHIP = (
    "Didn't understand relationship '{name}' in {place}. If you are attempting to use a custom relationship, be sure "
    f"to append the '__r' after the custom relationship name. {SEE_WSDL}"
)
WRONG_LITERAL = "value of filter criterion for field '{name}' must be of type {type} and should {be} enclosed in quotes"

# name: (HTTP status, errorCode, message)
ERRORS: dict[str, tuple[int, str, str]] = {
    # who calls
    "InvalidSession": (401, "INVALID_SESSION_ID", "Session expired or invalid"),
    "InvalidAuthHeader": (401, "INVALID_AUTH_HEADER", "INVALID_HEADER_TYPE"),
    "DailyLimit": (403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded."),
    "ConcurrentLimit": (403, "REQUEST_LIMIT_EXCEEDED", "ConcurrentPerOrgLongTxn Limit exceeded."),
    "NoCustomizing": (
        403,
        "INSUFFICIENT_ACCESS",
        "You do not have the level of access necessary to perform the operation you requested.",
    ),
    # addresses and protocol
    "NotFound": (404, "NOT_FOUND", "The requested resource does not exist"),
    "NoExternalId": (404, "NOT_FOUND", "Provided external ID field does not exist or is not accessible: {name}"),
    "Retired": (410, "GONE", "API version {version} is retired; it is no longer available."),
    "WrongMethod": (405, "METHOD_NOT_ALLOWED", "HTTP Method '{method}' not allowed. Allowed are {allowed}"),
    "WrongMediaType": (415, "UNSUPPORTED_MEDIA_TYPE", "Content-Type not supported: {type}"),
    "UriTooLong": (414, "URI_TOO_LONG", "The URI is longer than 16,384 bytes."),
    "HeadersTooLong": (431, "REQUEST_HEADER_FIELDS_TOO_LARGE", "URI and headers are longer than 16,384 bytes."),
    "NotSimulated": (501, "NOT_SIMULATED", "The Salesforce simulator does not know {what}. The real service may."),
    "Precondition": (
        412,
        "PRECONDITION_FAILED",
        "The resource has been modified since the date or version of the request's condition.",
    ),
    "BadConditionHeader": (400, "INVALID_HTTP_HEADER", "{name}: {value} is not a valid value"),
    "BadHeader": (400, "INVALID_HTTP_HEADER", "{name}: {value} is not a valid value"),
    "BadBatchSize": (400, "INVALID_BATCH_SIZE", "batchSize must be between 200 and 2000, not {value}"),
    "MissingParameter": (400, "MISSING_ARGUMENT", "{name} not specified"),
    # bodies
    "Unreadable": (400, "JSON_PARSER_ERROR", "{message}"),
    "NoBody": (400, "JSON_PARSER_ERROR", "The HTTP entity body is required, but this request has no entity body."),
    "WrongType": (
        400,
        "JSON_PARSER_ERROR",
        "Cannot deserialize instance of {type} from {token} value {value} or request may be missing a required field "
        "at [line:1, column:{column}]",
    ),
    "InvalidInput": (400, "INVALID_INPUT", "{message}"),
    # queries
    "Malformed": (400, "MALFORMED_QUERY", "{message}"),
    "QueryField": (400, "INVALID_FIELD", "{message}"),
    "QueryFilter": (400, "INVALID_QUERY_FILTER_OPERATOR", "{message}"),
    "QueryType": (400, "INVALID_TYPE", "{message}"),
    "SemiJoinLeft": (
        400,
        "INVALID_FIELD",
        "The left operand field in the where expression for outer query should be an id field, cannot use: '{name}'",
    ),
    "SemiJoinField": (
        400,
        "INVALID_FIELD",
        "The selected field '{selected}' in the subquery and the left operand field in the where expression in the "
        "outer query '{name}' should point to the same object type",
    ),
    "MetadataOfMany": (
        400,
        "MALFORMED_QUERY",
        "When retrieving results with Metadata or FullName fields, the query qualifications must specify no more than "
        "one row for retrieval. Result size: {size}",
    ),
    "NumberRange": (400, "NUMBER_OUTSIDE_VALID_RANGE", "{message}"),
    "NoLocator": (400, "INVALID_QUERY_LOCATOR", "invalid query locator"),
    # replication
    "ReplicationDate": (400, "INVALID_REPLICATION_DATE", "{message}"),
    "BadDate": (400, "INVALID_DATE_FORMAT", "{name} is not a date and time in UTC: {value}"),
    "NotReplicated": (400, "INVALID_TYPE_FOR_OPERATION", "entity type {name} does not support replication"),
    # writes
    "NoSuchField": (400, "INVALID_FIELD", "No such column '{name}' on sobject of type {object}"),
    "FieldInBody": (400, "INVALID_FIELD", "The {name} field should not be specified in the sobject data."),
    "ForeignKey": (
        400,
        "INVALID_FIELD",
        "Foreign key external ID: {value} not found for field {name} in entity {object}",
    ),
    "ReadOnly": (
        400,
        "INVALID_FIELD_FOR_INSERT_UPDATE",
        "Unable to create/update fields: {names}. Please check the security settings of this field and verify that it "
        "is read/write for your profile or permission set.",
    ),
    "NotSupportedHere": (400, "INVALID_TYPE_FOR_OPERATION", "entity type {label} does not support {operation}"),
    "BadType": (400, "INVALID_TYPE_ON_FIELD_IN_RECORD", "{label}: value not of required type: {value}"),
    "BadEmail": (400, "INVALID_EMAIL_ADDRESS", "{label}: invalid email address: {value}"),
    "OutOfRange": (
        400,
        "NUMBER_OUTSIDE_VALID_RANGE",
        "{label}: value outside of valid range on numeric field: {value}",
    ),
    "TooLong": (400, "STRING_TOO_LONG", "{label}: data value too large: {value} (max length={length})"),
    "BadPicklist": (
        400,
        "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
        "{label}: bad value for restricted picklist field: {value}",
    ),
    "BadState": (
        400,
        "FIELD_INTEGRITY_EXCEPTION",
        "There's a problem with this {what}, even though it may appear correct. Please select a {what} from the list "
        "of valid {what}s.",
    ),
    "StateWithoutCountry": (
        400,
        "FIELD_INTEGRITY_EXCEPTION",
        "A country/territory must be specified before specifying a state value for field: {label}",
    ),
    "Missing": (400, "REQUIRED_FIELD_MISSING", "Required fields are missing: [{names}]"),
    "WrongId": (400, "MALFORMED_ID", "{label}: id value of incorrect type: {value}"),
    "BadReference": (400, "INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id"),
    "NoOwner": (400, "INVALID_CROSS_REFERENCE_KEY", "Owner ID: owner cannot be blank"),
    "InactiveOwner": (
        400,
        "INACTIVE_OWNER_OR_USER",
        "operation performed with inactive user [{user}] as owner of {object}",
    ),
    "UnknownRow": (404, "INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id"),
    "Deleted": (404, "ENTITY_IS_DELETED", "entity is deleted"),
    "DeletedReference": (400, "ENTITY_IS_DELETED", "entity is deleted"),
    "DuplicateValue": (
        400,
        "DUPLICATE_VALUE",
        "duplicate value found: {name} duplicates value on record with id: {id}",
    ),
    "DuplicateKey": (400, "DUPLICATE_EXTERNAL_ID", "Duplicate external id specified: {value}"),
    "AmbiguousKey": (
        400,
        "DUPLICATE_EXTERNAL_ID",
        "{name}: more than one record found for external id field: [{ids}]",
    ),
    "ValidationRule": (400, "FIELD_CUSTOM_VALIDATION_EXCEPTION", "{message}"),
    "LockedRow": (
        400,
        "UNABLE_TO_LOCK_ROW",
        "unable to obtain exclusive access to this record or 1 records: {id}",
    ),
    "ConvertedLead": (400, "CANNOT_UPDATE_CONVERTED_LEAD", "cannot reference converted lead"),
    "ConvertedStatus": (
        400,
        "INVALID_STATUS",
        "A lead gets the status {status} by being converted, not by an update",
    ),
    "DeleteFailed": (
        400,
        "DELETE_FAILED",
        "Your attempt to delete {name} could not be completed because some opportunities in this account were closed "
        "won.",
    ),
    # many at once
    "TooManyRecords": (
        400,
        "EXCEEDED_ID_LIMIT",
        "record limit reached. cannot submit more than {limit} records into this call",
    ),
    "TooManyChunks": (
        400,
        "LIMIT_EXCEEDED",
        "Cannot have more than 10 chunks in a single operation. Please rearrange the data to reduce chunking.",
    ),
    "LimitExceeded": (400, "LIMIT_EXCEEDED", "{message}"),
    "RolledBack": (
        400,
        "ALL_OR_NONE_OPERATION_ROLLED_BACK",
        "Record rolled back because not all records were valid and the request was using AllOrNone header",
    ),
    "Halted": (
        400,
        "PROCESSING_HALTED",
        "The transaction was rolled back since another operation in the same transaction failed.",
    ),
    "BadSubrequestReference": (
        400,
        "PROCESSING_HALTED",
        "Invalid reference specified. No value for {path} found in {ref}",
    ),
    "TooManyGraphFailures": (
        400,
        "PROCESSING_HALTED",
        "The graph was not processed because too many graphs of the request failed.",
    ),
    # definitions
    "DuplicateFieldName": (
        400,
        "DUPLICATE_DEVELOPER_NAME",
        "There is already a field named {name} on {object}.",
    ),
    "FieldIntegrity": (400, "FIELD_INTEGRITY_EXCEPTION", "{message}"),
    "RequiredFieldPermission": (
        400,
        "FIELD_INTEGRITY_EXCEPTION",
        "Field Name: bad value for restricted picklist field: {name}",
    ),
}


class Refusal(Refused):
    """A refusal as the array of errors it is sent as."""

    def __init__(self, status: int, errors: list[dict[str, Any]]) -> None:
        super().__init__(json_response(status, errors, JSON))
        self.status = status
        self.errors = errors

    @property
    def as_row_errors(self) -> list[dict[str, Any]]:
        """The errors as a row of a collection shows them."""
        return [
            {"statusCode": error["errorCode"], "message": error["message"], "fields": error.get("fields", [])}
            for error in self.errors
        ]


def refuse(name: str, /, fields: Iterable[str] | None = None, **words: Any) -> Refusal:
    """The refusal of that name, to be raised. `fields` None leaves that key out."""
    status, code, message = ERRORS[name]
    error: dict[str, Any] = {"message": message.format(**words), "errorCode": code}
    if fields is not None:
        error["fields"] = list(fields)
    return Refusal(status, [error])


def duplicates_detected(rule: str, object_name: str, allow_save: bool, urls: dict[str, str], key: str) -> Refusal:
    """The refusal of a duplicate rule; `urls` of the matches by id, `key` the spelling of the result's name."""
    message = "Use one of these records?"
    matches = [
        {
            "additionalInformation": [],
            "fieldDiffs": [],
            "matchConfidence": 100.0,
            "record": {"attributes": {"type": object_name, "url": url}, "Id": row_id},
        }
        for row_id, url in urls.items()
    ]
    result = {
        "allowSave": allow_save,
        "duplicateRule": rule,
        "duplicateRuleEntityType": object_name,
        "errorMessage": message,
        "matchResults": [
            {
                "entityType": object_name,
                "errors": [],
                "matchEngine": "FuzzyMatchEngine",
                "matchRecords": matches,
                "rule": f"Standard_{object_name}_Match_Rule_v1_1",
                "size": len(matches),
                "success": True,
            }
        ],
    }
    return Refusal(400, [{key: result, "errorCode": "DUPLICATES_DETECTED", "message": message}])

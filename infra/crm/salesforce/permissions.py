"""Owns which fields and objects a permission set has to open, by the field map. Calls nothing.

A field that was made through the API is hidden from everybody, administrators too, until a permission set or profile
shows it. https://developer.salesforce.com/docs/platform/object-reference/references/standard-objects/object-fieldpermissions.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from infra.crm.salesforce.fields import PermissionSet, Wanted
from shared.mapping import FieldMap

OBJECTS = ("Account", "Contact", "Opportunity", "Lead")
"""What the app reads, creates and edits. Accounts first: rights on what belongs to them depend on theirs.

https://wiki.sfxd.org/books/best-practices/page/important-notes
"""
OBJECT_PERMISSIONS = ("PermissionsRead", "PermissionsCreate", "PermissionsEdit", "PermissionsViewAllRecords")
"""Without the last, queries and /updated leave out what is not shared with the user. Deleting is never granted."""

RELATIONS: Mapping[str, str] = {"Account": "Account", "OpportunityContactRoles.Contact": "Contact"}
"""Where the columns of related rows are. Users, behind Owner, are readable without a permission of ours."""

ALWAYS_VISIBLE = frozenset({
    "CloseDate", "Company", "ContactId", "ConvertedAccountId", "ConvertedContactId", "ConvertedDate",
    "ConvertedOpportunityId", "CreatedById", "CreatedDate", "CurrencyIsoCode", "FirstName", "Fiscal", "FiscalQuarter",
    "FiscalYear", "ForecastCategory", "ForecastCategoryName", "HasOpenActivity", "HasOpportunityLineItem",
    "HasOverdueTask", "Id", "IndividualId", "IsClosed", "IsConverted", "IsDeleted", "IsUnreadByOwner", "IsWon",
    "LastActivityDate", "LastModifiedById", "LastModifiedDate", "LastName", "LastReferencedDate",
    "LastStageChangeDate", "LastViewedDate", "MasterRecordId", "Name", "OwnerId", "PhotoUrl", "Pricebook2Id",
    "RecordTypeId", "Salutation", "StageName", "Status", "SystemModstamp",
})  # fmt: skip
"""Standard fields that permissions do not know: they describe themselves as not permissionable.

https://github.com/SFDO-Tooling/CumulusCI/tree/main/cumulusci/tests/shared_cassettes
"""

_ALWAYS_VISIBLE = frozenset(name.lower() for name in ALWAYS_VISIBLE)
_ADDRESS_PART = re.compile(
    "(Billing|Shipping|Mailing|Other|)(Street|City|State|StateCode|PostalCode|Country|CountryCode)", re.IGNORECASE
)
_CUSTOM = re.compile(r"(?:(\w+?)__)?(\w+?)__c", re.IGNORECASE)


@dataclass(frozen=True)
class FieldGrant:
    """A field to be seen and, with `edit`, changed."""

    object: str
    field: str
    edit: bool = True

    @property
    def full_name(self) -> str:
        return f"{self.object}.{self.field}"


def used_fields(field_map: FieldMap) -> dict[str, list[str]]:
    """Return the fields that the map names, by the object they are of."""
    named = list(dict.fromkeys(_named(field_map)))
    return {name: [field for of, field in named if of == name and field] for name in OBJECTS}


def _named(field_map: FieldMap) -> Iterator[tuple[str, str]]:
    for table in field_map.tables.values():
        for column in (*table.shape.columns, table.columns.referral_link, table.origin):
            relation, _, field = column.rpartition(".")
            yield RELATIONS.get(relation, "") if relation else table.table, field
        for row in table.related:
            yield table.table, row.link
            yield from ((row.table, field) for field in (*row.match, *row.values, row.parent_link))


def custom_name(field: str) -> tuple[str, str] | None:
    """Return namespace ("" for none) and developer name of a custom field; None for a standard one."""
    found = _CUSTOM.fullmatch(field)
    return (found[1] or "", found[2]) if found else None


def field_grants(permission_set: PermissionSet, wanted: Wanted, field_map: FieldMap) -> list[FieldGrant]:
    """Return what the set has to open, by name, so that the fields which the map names can be used.

    Sellers get those of fields.json only: what they see else is their admin's business.
    """
    grants: dict[str, FieldGrant] = {}
    for object_name, fields in used_fields(field_map).items():
        ours = {field.name.lower(): field for field in wanted.fields_of(object_name)}
        for name in fields:
            if permission_set.for_the_app:
                grant = FieldGrant(object_name, opened_through(name))
            elif known := ours.get(name.lower()):
                grant = FieldGrant(object_name, known.name, known.for_sellers)
            else:
                continue
            if grant.field:
                grants.setdefault(grant.full_name.lower(), grant)
    return sorted(grants.values(), key=lambda grant: grant.full_name)


def opened_through(field: str) -> str:
    """Return the field that a permission for this one is given on, "" when none is needed.

    The parts of an address are opened through the address: https://salesforce.stackexchange.com/questions/97912
    """
    part = _ADDRESS_PART.fullmatch(field)
    return f"{part[1]}Address" if part else "" if field.lower() in _ALWAYS_VISIBLE else field

"""The objects behind the records, as tables: users, queues, stages, statuses, currencies, permission sets.

https://resources.docs.salesforce.com/258/latest/en-us/sfdc/pdf/object_reference.pdf
https://developer.salesforce.com/docs/atlas.en-us.262.0.object_reference.meta/object_reference/sforce_api_objects_leadstatus.htm
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from local.simulators.salesforce.fields import (
    CURRENCIES,
    FORECAST_CATEGORIES,
    account,
    audit,
    by_name,
    contact,
    contact_role,
    f,
    lead,
    number,
    opportunity,
    pick,
    ref,
    team_member,
)
from local.simulators.salesforce.schema import Field, Kind, SObject

# The fields of a user or queue that are reached through a polymorphic owner.
NAME_FIELDS = (
    "Id", "Name", "FirstName", "LastName", "Email", "Phone", "Username", "Title", "Alias", "IsActive", "Type",
)  # fmt: skip


def user() -> SObject:
    fields = [
        f("Id", Kind.ID, "-D", label="User ID"),
        f("Username", Kind.STRING, "RCU", 80),
        f("FirstName", Kind.STRING, "CU", 40),
        f("LastName", Kind.STRING, "RCU", 80),
        f("Name", Kind.STRING, "-", 121, label="Full Name"),
        f("Email", Kind.EMAIL, "RCU", 128),
        f("Phone", Kind.PHONE, "CU", 40),
        f("MobilePhone", Kind.PHONE, "CU", 40),
        f("Title", Kind.STRING, "CU", 80),
        f("Alias", Kind.STRING, "RCU", 8),
        f("IsActive", Kind.BOOLEAN, "CU", label="Active"),
        pick("UserType", ("Standard", "CsnOnly", "AutomatedProcess"), "-", 40, restricted=True),
        pick("DefaultCurrencyIsoCode", [c for c, *_ in CURRENCIES], "CUD", 3, needs="multi_currency"),
        f("TimeZoneSidKey", Kind.STRING, "CU", 40, label="Time Zone"),
        *audit(deletes=False),
    ]
    return SObject("User", "005", by_name(fields), create=False, update=False, delete=False, replicates=True)


def read_only(name: str, prefix: str, *fields: Field, label: str = "", needs: str | None = None) -> SObject:
    return SObject(
        name, prefix, by_name([f("Id", Kind.ID, "-D"), *fields]), label=label, create=False, update=False,
        delete=False, needs=needs,
    )  # fmt: skip


def setup_objects() -> list[SObject]:
    """The objects an administrator fills: stages, statuses, currencies, permission sets."""
    stage = read_only(
        "OpportunityStage", "01J",
        f("ApiName", Kind.STRING, "-", 255, label="API Name"),
        f("MasterLabel", Kind.STRING, "-", 255),
        f("IsActive", Kind.BOOLEAN, "-"),
        f("IsClosed", Kind.BOOLEAN, "-"),
        f("IsWon", Kind.BOOLEAN, "-"),
        number("DefaultProbability", Kind.PERCENT, 3, 0, "-"),
        pick("ForecastCategoryName", FORECAST_CATEGORIES, "-"),
        pick("ForecastCategory", FORECAST_CATEGORIES.values(), "-"),
        number("SortOrder", Kind.INT, 9, flags="-"),
        *audit(deletes=False),
        label="Opportunity Stage",
    )  # fmt: skip
    status = read_only(
        "LeadStatus", "01Q",
        f("ApiName", Kind.STRING, "-", 255, label="API Name"),
        f("MasterLabel", Kind.STRING, "-", 255),
        f("IsConverted", Kind.BOOLEAN, "-"),
        f("IsDefault", Kind.BOOLEAN, "-"),
        number("SortOrder", Kind.INT, 9, flags="-"),
        *audit(deletes=False),
        label="Lead Status Value",
    )  # fmt: skip
    organization = read_only(
        "Organization", "00D",
        f("Name", Kind.STRING, "-", 80),
        f("IsSandbox", Kind.BOOLEAN, "-"),
        f("InstanceName", Kind.STRING, "-", 5),
        f("OrganizationType", Kind.PICKLIST, "-", 40),
        f("DefaultLocaleSidKey", Kind.PICKLIST, "-", 40),
        f("LanguageLocaleKey", Kind.PICKLIST, "-", 40),
        f("TimeZoneSidKey", Kind.PICKLIST, "-", 40),
        *audit(deletes=False),
    )  # fmt: skip
    currency = read_only(
        "CurrencyType", "01L",
        pick("IsoCode", [c for c, *_ in CURRENCIES], "-", 3),
        number("ConversionRate", Kind.DOUBLE, 18, 6, "-"),
        number("DecimalPlaces", Kind.INT, 1, flags="-"),
        f("IsActive", Kind.BOOLEAN, "-"),
        f("IsCorporate", Kind.BOOLEAN, "-"),
        *audit(deletes=False),
        label="Currency Type", needs="multi_currency",
    )  # fmt: skip
    queue = read_only(
        "Group", "00G", f("Name", Kind.STRING, "-", 40), f("DeveloperName", Kind.STRING, "-", 80),
        pick("Type", ("Queue", "Regular"), "-", 40), *audit(deletes=False),
    )  # fmt: skip
    return [stage, status, organization, currency, queue, *permission_objects()]


def permission_objects() -> list[SObject]:
    permission_set = [
        f("Id", Kind.ID, "-D"),
        f("Name", Kind.STRING, "RCU", 80),
        f("Label", Kind.STRING, "RCU", 80),
        f("Description", Kind.STRING, "CU", 255),
        f("IsOwnedByProfile", Kind.BOOLEAN, "-"),
        *audit(deletes=False),
    ]
    parent = ref("ParentId", "PermissionSet", flags="RC")
    field_permissions = [
        f("Id", Kind.ID, "-D"),
        parent,
        f("SobjectType", Kind.STRING, "RC", 40),
        f("Field", Kind.STRING, "RC", 255),
        f("PermissionsRead", Kind.BOOLEAN, "CU"),
        f("PermissionsEdit", Kind.BOOLEAN, "CU"),
        f("SystemModstamp", Kind.DATETIME, "-D"),
    ]
    object_permissions = [
        f("Id", Kind.ID, "-D"),
        parent,
        f("SobjectType", Kind.STRING, "RC", 40),
        *[
            f(f"Permissions{what}", Kind.BOOLEAN, "CU")
            for what in ("Read", "Create", "Edit", "Delete", "ViewAllRecords", "ModifyAllRecords")
        ],
        *audit(deletes=False),
    ]
    assignment = [
        f("Id", Kind.ID, "-D"),
        ref("AssigneeId", "User", flags="RC"),
        ref("PermissionSetId", "PermissionSet", flags="RC"),
        f("IsActive", Kind.BOOLEAN, "-", default=True),
        f("SystemModstamp", Kind.DATETIME, "-D"),
    ]
    return [
        SObject("PermissionSet", "0PS", by_name(permission_set), recycled=False),
        SObject("FieldPermissions", "01k", by_name(field_permissions), label="Field Permissions", recycled=False),
        SObject("ObjectPermissions", "110", by_name(object_permissions), label="Object Permissions", recycled=False),
        SObject(
            "PermissionSetAssignment", "0Pa", by_name(assignment), label="Permission Set Assignment", recycled=False,
            update=False,
        ),
    ]  # fmt: skip


def tooling_objects() -> list[SObject]:
    fields = [
        f("Id", Kind.ID, "-D"),
        f("DeveloperName", Kind.STRING, "-", 80),
        f("TableEnumOrId", Kind.STRING, "-", 40),
        f("NamespacePrefix", Kind.STRING, "-", 15),
        f("ManageableState", Kind.STRING, "-", 40),
        f("FullName", Kind.STRING, "CU", 255),
        f("Metadata", Kind.COMPLEX, "CU"),
        *audit(deletes=False),
    ]
    return [SObject("CustomField", "00N", by_name(fields), label="Custom Field", tooling=True, recycled=False)]


def polymorphic_owner(users: SObject) -> SObject:
    """What SOQL sees through the owner of a lead, which is a user or a queue."""
    kinds = {"Type": f("Type", Kind.PICKLIST, "-", 40), **users.fields}
    return SObject("Name", "", {name: kinds[name] for name in NAME_FIELDS}, virtual=True)


def standard_objects() -> dict[str, SObject]:
    """Fresh objects of an org that nobody has customized, which may be customized alone."""
    return {name: replace(made, fields=dict(made.fields)) for name, made in _standard_objects().items()}


@cache
def _standard_objects() -> dict[str, SObject]:
    users = user()
    objects = [opportunity(), lead(), account(), contact(), contact_role(), team_member(), users]
    every = [*objects, *setup_objects(), *tooling_objects(), polymorphic_owner(users)]
    return {made.name: made for made in every}

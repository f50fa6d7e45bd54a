"""What an org holds before anybody uses it: stages, statuses, currencies, users, and the product's fields."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from local.simulators.salesforce.fields import CURRENCIES, FORECAST_CATEGORIES, LEAD_STATUSES, STAGES, cosell_fields

if TYPE_CHECKING:
    from local.simulators.salesforce.organization import Organization

PERMISSION_SET = "Cosell_Sync"


def fill(org: Organization) -> None:
    """The rows of a new org, and its users."""
    org.id = org.add("Organization", Name="Contoso", InstanceName="DN0", OrganizationType="Enterprise Edition",
                     DefaultLocaleSidKey="en_US", LanguageLocaleKey="en_US", TimeZoneSidKey="America/Los_Angeles",
                     ).id  # fmt: skip
    org.add_user("", "Automated Process", "autoproc@contoso.example", id=org.system_user, UserType="AutomatedProcess")
    for order, (name, probability, closed, won, forecast) in enumerate(STAGES, 1):
        org.add("OpportunityStage", ApiName=name, MasterLabel=name, IsActive=True, IsClosed=closed, IsWon=won,
                DefaultProbability=Decimal(probability), ForecastCategoryName=forecast,
                ForecastCategory=FORECAST_CATEGORIES[forecast], SortOrder=order)  # fmt: skip
    for order, (name, converted, default) in enumerate(LEAD_STATUSES, 1):
        org.add("LeadStatus", ApiName=name, MasterLabel=name, IsConverted=converted, IsDefault=default,
                SortOrder=order)  # fmt: skip
    for iso, places, rate in CURRENCIES:
        org.add("CurrencyType", IsoCode=iso, DecimalPlaces=places, ConversionRate=Decimal(rate), IsActive=True,
                IsCorporate=iso == "USD")  # fmt: skip
    org.integration_user = org.add_user("Co-sell", "Sync", "cosell.sync@fabrikam.example")
    org.add_user("Sally", "Seller", "sally.seller@fabrikam.example", Phone="2065550101")
    admin = org.add_user("Ada", "Admin", "ada.admin@fabrikam.example")
    # The product's user may customize as well, so that the same app can provision.
    org.access.may_customize = {org.integration_user, admin}


def provision(org: Organization) -> None:
    """The product's fields, and the permission set that shows them to the integration user."""
    permission_set = org.add("PermissionSet", Name=PERMISSION_SET, Label="Co-sell Sync").id
    for name, fields in cosell_fields().items():
        for new in fields:
            org.add_field(org.objects[name], new)
            org.add("FieldPermissions", ParentId=permission_set, SobjectType=name, Field=f"{name}.{new.name}",
                    PermissionsRead=True, PermissionsEdit=True)  # fmt: skip
    for user in (org.integration_user, org.user("Sally Seller").id, org.user("Ada Admin").id):
        org.add("PermissionSetAssignment", AssigneeId=user, PermissionSetId=permission_set)

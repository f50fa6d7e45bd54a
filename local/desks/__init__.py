"""What sellers do and see in each simulated CRM, in words that all of them share.

desk.py         what a seller can do anywhere       dynamics365.py  in Dynamics 365       salesforce.py  in Salesforce

Tests give a desk the simulator in their own process, the demo one behind HTTPS.
"""

from local.desks.desk import Desk
from local.desks.dynamics365 import Dynamics365Desk
from local.desks.salesforce import SalesforceDesk

DESKS: dict[str, type[Desk]] = {desk.crm: desk for desk in (Dynamics365Desk, SalesforceDesk)}

__all__ = ["DESKS", "Desk", "Dynamics365Desk", "SalesforceDesk"]

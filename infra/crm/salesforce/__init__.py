"""What must exist in a Salesforce org before deals can be synchronized: fields.json, and what creates it.

force-app/ is the same as source for `sf project deploy start`, written by `python -m infra.crm.salesforce.source`.
"""

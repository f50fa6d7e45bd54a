"""The one FunctionApp: registers the blueprints, nothing else."""

import azure.functions as func

from audit_retention import bp as audit_retention
from crm_poller import bp as crm_poller
from health import bp as health
from reconciler import bp as reconciler
from register_webhook import bp as register_webhook
from shared.logs import show_fields
from shared.start_up import report_problems
from sync_worker import bp as sync_worker
from webhook_receiver import bp as webhook_receiver
from webhook_relay import bp as webhook_relay

show_fields()
report_problems()

app = func.FunctionApp()

for blueprint in (
    webhook_receiver,
    webhook_relay,
    register_webhook,
    crm_poller,
    reconciler,
    sync_worker,
    audit_retention,
    health,
):
    app.register_functions(blueprint)

"""Takes away audit entries that are older than the setting AUDIT_RETENTION_DAYS. Nothing else deletes any."""

from __future__ import annotations

from datetime import timedelta

from shared.logs import log
from shared.services import Services
from shared.settings import AuditSettings

BUDGET = timedelta(minutes=4)
"""How long one run lasts. What it does not manage, the next one does: the shortest limit of a plan is five minutes.

https://learn.microsoft.com/azure/azure-functions/functions-scale#timeout
"""


def prune(services: Services) -> int:
    """Delete what is older than whole days, counted in UTC; return how many entries. With 0 days all are kept."""
    days = services.settings(AuditSettings).retention_days
    if not days:
        return 0
    now = services.clock()
    deleted, is_complete = services.audit.prune(
        (now - timedelta(days=days)).date(), go_on=lambda: services.clock() - now < BUDGET
    )
    if deleted or not is_complete:
        log.info("audit.pruned", extra={"entries": deleted, "complete": is_complete, "kept_days": days})
    return deleted

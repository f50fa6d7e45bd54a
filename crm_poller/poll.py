"""Turns what changed in the CRM since the cursor into messages. The cursor moves last: a crash repeats, never loses."""

from __future__ import annotations

from shared.errors import CosellError, Permanent, Throttled
from shared.logs import log
from shared.messages import SyncRequest
from shared.model import RecordChange
from shared.services import Services


def poll(services: Services) -> int:
    """Poll every watched table once; return how many messages were sent.

    A table that fails does not keep the others from being polled; its error is raised in the end.
    """
    sent, failed = 0, None
    for table in services.field_map.watched:
        try:
            sent += _poll_table(table.table, services)
        except Throttled as later:
            # Nothing to mend and nothing lost: the cursor stays where it is.
            log.warning("poll.waits", extra={"table": table.table, "why": str(later)})
        except CosellError as error:
            step = error.next_step if isinstance(error, Permanent) else ""
            log.error("poll.failed", extra={"table": table.table, "why": str(error), "next_step": step})
            failed = error
    if failed:
        raise failed
    return sent


def _poll_table(table: str, services: Services) -> int:
    name = f"crm-{table}"
    cursor = services.cursors.load(name)
    sent = 0
    for page in services.crm.changes(table, cursor.value):
        for change in page.changes:
            if change.shared or change.deleted:
                services.queue.send(_request(change))
                sent += 1
        if page.cursor is not None and page.cursor != cursor.value:
            services.cursors.save(name, page.cursor, cursor.etag)
    if sent:
        log.info("poll.changes", extra={"table": table, "messages": sent})
    return sent


def _request(change: RecordChange) -> SyncRequest:
    return SyncRequest(
        cause="poll",
        record_table=change.ref.table,
        record_id=change.ref.id,
        version=change.version,
        deleted=change.deleted,
    )

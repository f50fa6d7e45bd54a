"""Turns what changed in the CRM since the cursor into messages. The cursor moves last: a crash repeats, never loses."""

from __future__ import annotations

from shared.errors import CosellError, Permanent, Throttled
from shared.logs import log
from shared.messages import SyncRequest
from shared.model import RecordChange
from shared.services import Services

SIGN = "poll"


def poll(services: Services) -> int:
    """Poll every watched table once; return how many messages were sent.

    A table that fails does not keep the others from being polled; its error is raised in the end.
    """
    sent, troubles = 0, list[CosellError]()
    try:
        tables = services.field_map.watched
    except CosellError as error:
        services.signs.failed(SIGN, str(error))
        raise
    for table in tables:
        try:
            sent += _poll_table(table.table, services)
        except CosellError as error:
            troubles.append(error)
            _log_trouble(table.table, error)
    if not troubles:
        services.signs.well(SIGN)
        return sent
    services.signs.failed(SIGN, str(troubles[-1]))
    if failures := [error for error in troubles if not isinstance(error, Throttled)]:
        raise failures[-1]
    return sent


def _log_trouble(table: str, error: CosellError) -> None:
    if isinstance(error, Throttled):
        # Nothing to mend and nothing lost: the cursor stays where it is.
        log.warning("poll.waits", extra={"table": table, "why": str(error)})
    else:
        step = error.next_step if isinstance(error, Permanent) else ""
        log.error("poll.failed", extra={"table": table, "why": str(error), "next_step": step})


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

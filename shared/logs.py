"""Log lines: a constant event name plus fields. Never tokens, bodies, query strings or contact details."""

from __future__ import annotations

import json
import logging
from typing import Any

log = logging.getLogger("cosell")

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class EventRecord(logging.LogRecord):
    """A log record whose text shows its fields: `sync.deferred deal=pc_1 delay_s=30`.

    The Functions worker passes on a record's text and nothing else, so fields given as `extra` would be lost.
    """

    def getMessage(self) -> str:  # noqa: N802
        fields = {name: value for name, value in self.__dict__.items() if name not in _STANDARD}
        return " ".join([super().getMessage(), *(f"{name}={_shown(value)}" for name, value in fields.items())])


def _shown(value: Any) -> str:
    """A value that cannot break the line, or pass for another field, whatever a remote put into it."""
    text = str(value)
    return text if text.isprintable() and not set(text) & {" ", '"', "="} else json.dumps(text, ensure_ascii=False)


def show_fields() -> None:
    """Let every handler show the fields of our records, and stop libraries from logging headers, keys and tokens."""
    logging.setLogRecordFactory(EventRecord)
    for name in ("azure", "urllib3", "msal"):
        logging.getLogger(name).setLevel(logging.WARNING)

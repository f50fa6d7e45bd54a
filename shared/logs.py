"""Log lines: a constant event name plus fields. Never tokens, bodies, query strings or contact details."""

from __future__ import annotations

import logging

log = logging.getLogger("cosell")


def quiet_libraries() -> None:
    """Stop libraries from logging headers and addresses, which carry keys and tokens."""
    for name in ("azure", "urllib3", "msal"):
        logging.getLogger(name).setLevel(logging.WARNING)

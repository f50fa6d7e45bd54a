"""The events of Partner Center that this app knows, and the headers they come with.

https://learn.microsoft.com/partner-center/developer/partner-center-webhook-events
"""

from __future__ import annotations

TEST_EVENT = "test-created"
REFERRAL_EVENTS = ("referral-created", "referral-updated", "related-referral-created", "related-referral-updated")
DEFAULT_EVENTS = (TEST_EVENT, *REFERRAL_EVENTS)

CORRELATION_HEADER = "x-cosell-correlation-id"
"""On every answer of this app, and on none of what stands in front of it."""

_SENDERS = frozenset(
    (
        "content-type",
        "user-agent",
        "x-ms-signature",
        "x-ms-signature-algorithm",
        "x-ms-certificate-url",
        "ms-correlationid",
        "ms-requestid",
    )
)


def is_senders(name: str, value: str) -> bool:
    """Whether a header is Partner Center's own, and so no secret of ours.

    Anything else a front end added on the way, and it may hold a token or our function key, or a caller made it up. A
    gateway may put its own token into Authorization.
    https://learn.microsoft.com/azure/app-service/configure-authentication-oauth-tokens
    """
    lower = name.lower()
    return lower in _SENDERS or (lower == "authorization" and value.lower().startswith("signature "))

"""How the app reaches its storage account: sign-in, connections, retries, and what an error means. Stores nothing.

All retrying happens here; the Azure packages' own is off, since it neither bounds a Retry-After nor repeats an insert.
They load on first use: together they take most of a second, which a cold webhook cannot spare.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_random_exponential,
)

from shared.errors import CosellError, Forbidden, Refused, SignInFailed, Throttled, Unavailable
from shared.settings import StorageSettings

if TYPE_CHECKING:
    import requests
    from azure.core.credentials import TokenCredential
    from azure.core.exceptions import AzureError

CONNECTIONS = 64
"""Kept open per service: more than a worker has threads, because urllib3 drops and reopens what exceeds its pool."""

T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """How long one operation may take: no attempt begins after `attempts`, or after `total_s` from the first."""

    attempts: int
    total_s: float
    connect_timeout_s: float
    read_timeout_s: float
    sleep: Callable[[float], None] = time.sleep

    def repeat(self, operation: Callable[[bool], T]) -> T:
        """Call `operation` until it returns or raises something other than Unavailable or Throttled.

        It is told whether an earlier attempt went wrong: then what was asked may have happened already.
        """
        made = 0

        def attempt() -> T:
            nonlocal made
            made += 1
            return operation(made > 1)

        return Retrying(
            stop=stop_after_attempt(self.attempts) | stop_after_delay(self.total_s),
            # The first repetition comes at once: it is mostly an idle connection that the service had closed.
            wait=lambda state: 0 if state.attempt_number == 1 else _pause(state),
            retry=retry_if_exception_type((Unavailable, Throttled)),
            sleep=self.sleep,
            reraise=True,
        )(attempt)


_PASSING = {"TableNotFound", "TableBeingDeleted", "QueueBeingDeleted"}
"""Deleting takes the account a while, in which the name is neither there nor free; waiting helps.

https://learn.microsoft.com/rest/api/storageservices/delete-table
"""

_CODE = re.compile(r'(?:"code"\s*:\s*"|<Code>)(\w+)')

_pause: Callable[[RetryCallState], float] = wait_random_exponential(multiplier=0.25, max=2)


def client_options(session: requests.Session | None, patience: Patience) -> dict[str, Any]:
    """Return what every Azure client is built with: our connections and timeouts, none of its own retries."""
    import requests
    from azure.core.pipeline.transport import RequestsTransport
    from requests.adapters import HTTPAdapter

    if session is None:
        session = requests.Session()
        for scheme in ("https://", "http://"):
            session.mount(scheme, HTTPAdapter(pool_connections=4, pool_maxsize=CONNECTIONS))
    transport = RequestsTransport(
        session=session,
        session_owner=False,
        connection_timeout=patience.connect_timeout_s,
        read_timeout=patience.read_timeout_s,
    )
    return {"transport": transport, "retry_total": 0}


def credential(settings: StorageSettings) -> TokenCredential:
    """Return the managed identity in Azure; on a person's machine, whoever is signed in there (`az login`)."""
    from azure.identity import DefaultAzureCredential

    return DefaultAzureCredential(managed_identity_client_id=settings.client_id)


def error_code(error: AzureError) -> str:
    """Return the service's own error code, "" if it sent none.

    The packages fill `error_code` for some calls only, and not every answer repeats the body's code in a header.
    https://learn.microsoft.com/rest/api/storageservices/status-and-error-codes2
    """
    code = getattr(error, "error_code", None)
    response = getattr(error, "response", None)
    if code is None and response is not None:
        code = response.headers.get("x-ms-error-code")
        if code is None and (found := _CODE.search(response.text())):
            code = found[1]
    return str(getattr(code, "value", code) or "")


def meaning(error: AzureError, remote: str) -> CosellError:
    """Return our error for one of the Azure packages', for everything a caller does not treat itself.

    https://learn.microsoft.com/rest/api/storageservices/common-rest-api-error-codes
    """
    from azure.core.exceptions import ClientAuthenticationError, HttpResponseError

    response: Any = error.response if isinstance(error, HttpResponseError) else None
    status = response.status_code if response else None
    code = error_code(error)
    details: dict[str, Any] = {
        "remote": remote,
        "status": status,
        "code": code,
        "request_id": str(response.headers.get("x-ms-request-id", "")) if response else "",
    }
    reason = ", ".join(filter(None, [str(status or ""), code, error.message.partition("\n")[0]]))
    if status in (401, 403):
        return Forbidden(
            f"{remote} refused the app's identity ({reason})",
            next_step="Check AzureWebJobsStorage; a managed identity needs the roles Storage Table Data Contributor "
            "and Storage Queue Data Contributor on the storage account.",
            **details,
        )
    if isinstance(error, ClientAuthenticationError):
        return SignInFailed(f"no token for {remote}: {error.message}", retry_after_s=300, **details)
    if status == 429:
        return Throttled(f"{remote} asks for a pause ({reason})", **details)
    if status is None:
        hint = "If it stays so, check AzureWebJobsStorage and the network rules of the storage account"
        return Unavailable(f"{remote} gave no usable answer: {_cause(error)}. {hint}", **details)
    if status >= 500 or status == 408 or code in _PASSING:
        return Unavailable(f"{remote} gave no usable answer ({reason})", **details)
    return Refused(
        f"{remote} refused what was asked ({reason})",
        next_step="Look the code up among the storage error codes; replay the deal once the cause is mended.",
        **details,
    )


def _cause(error: AzureError) -> str:
    """Return the innermost reason why no answer came: the words around it quote the whole address that was asked."""
    inner: Any = getattr(error, "inner_exception", None)
    reason = inner
    while isinstance(inner, Exception):
        reason = inner
        inner = getattr(reason, "reason", None) or (reason.args or [None])[-1]
    return str(reason or error.message).partition("\n")[0]

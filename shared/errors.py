"""Every error this product raises, split by what the caller does next.

CosellError
|-- SettingsError       start-up: a setting or the field map is missing or wrong; an admin acts
|-- VersionConflict     the other side moved: read again and decide again
|-- Retryable           the same work may succeed later; nothing is lost by waiting `retry_after_s`
|   |-- Throttled           the remote asked for a pause
|   |-- Unavailable         5xx, a timeout or a broken connection; what was asked is safe to repeat
|   |-- OutcomeUnknown      a create was sent and no answer came: look before creating again
|   |-- SignInFailed        no token: an admin must mend the sign-in, the work waits
|   `-- ClaimLost           another worker took the deal over
`-- Permanent           repeating cannot help; a person acts, then replays
    |-- Refused             validation: the remote or our own rules name what is wrong
    |   |-- Duplicate           a record has a referral too many
    |   `-- Converted           the lead became an opportunity, and takes no write any more
    |-- Forbidden           the signed-in identity lacks a right
    |-- NotFound            the referral, record or row does not exist
    |   `-- NotVisible          ... or may not be seen: the remote does not tell which
    |-- Overdue             what may succeed later has not for so long that a person is told
    `-- GivenUp             something unexpected, each time it was tried
"""

from __future__ import annotations

from collections.abc import Sequence


class CosellError(Exception):
    """Base of all errors above."""


class SettingsError(CosellError):
    """One or more settings, or rows of the field map, are missing or wrong. `problems` has one line each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class RemoteError(CosellError):
    """What one answer (or silence) of an outside system meant.

    `remote` is its name in words; `status` the HTTP status, None when there was no answer; `code` the remote's own
    error code; `request_id` what its support asks for, as we named the call, and `remote_request_id` as the remote did;
    `field` the column or JSON path it complained about, if it said;
    `existing` the id of the row that stands in the way, if it said; `part` which of several calls sent in one failed.
    """

    def __init__(
        self,
        message: str,
        *,
        remote: str = "",
        status: int | None = None,
        code: str = "",
        request_id: str = "",
        remote_request_id: str = "",
        field: str = "",
        existing: str = "",
        part: str = "",
    ) -> None:
        super().__init__(message)
        self.remote = remote
        self.status = status
        self.code = code
        self.request_id = request_id
        self.remote_request_id = remote_request_id
        self.field = field
        self.existing = existing
        self.part = part


class VersionConflict(RemoteError):
    """A conditional write found a newer version (412). Nothing was written."""


class Retryable(RemoteError):
    """Later may work. `retry_after_s`: seconds to wait, None when the remote named none."""

    def __init__(self, message: str, *, retry_after_s: float | None = None, **details: object) -> None:
        super().__init__(message, **details)  # type: ignore[arg-type]
        self.retry_after_s = retry_after_s


class Throttled(Retryable):
    """429, or the remote's own word for it. Nothing was executed."""


class Unavailable(Retryable):
    """No usable answer to a call that is safe to repeat."""


class OutcomeUnknown(Retryable):
    """No usable answer to a create: it may have happened."""


class SignInFailed(Retryable):
    """The identity provider refused. Retrying is free and an admin must act, so the work is kept."""


class ClaimLost(Retryable):
    """Our claim on the deal expired and someone else took it; nothing more may be saved."""


class Permanent(RemoteError):
    """Repeating the call cannot help. `next_step` tells a person what to do."""

    def __init__(self, message: str, *, next_step: str = "", **details: object) -> None:
        super().__init__(message, **details)  # type: ignore[arg-type]
        self.next_step = next_step


class Refused(Permanent):
    """The content was refused."""


class Duplicate(Refused):
    """Two referrals name one record. Neither is touched: a person says which one stays."""


class Converted(Refused):
    """A seller made an opportunity of the lead, which stays as it is from then on."""


class Forbidden(Permanent):
    """The identity may not do this."""


class NotFound(Permanent):
    """What was addressed does not exist."""


class NotVisible(NotFound):
    """What was addressed does not exist, or may not be seen by us any more."""


class Overdue(Permanent):
    """What was put off again and again still waits. It goes on by itself; a person is told."""


class GivenUp(Permanent):
    """Something nobody thought of went wrong each time."""

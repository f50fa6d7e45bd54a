"""The one message on queue `sync-requests`: "look at this deal". Holds ids, never personal data."""

from __future__ import annotations

from typing import Literal
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from shared.model import GUID, RecordRef

Cause = Literal["webhook", "poll", "sweep", "operator"]


LOOKS_PER_S = 5
"""Of deals that nobody waits for: so that many do not use up in one go what the remotes allow."""


class SyncRequest(BaseModel):
    """Asks the worker to look at a deal, named by its referral or by its CRM record.

    `version` is what the cause reports: Partner Center's `updatedDateTime` for a referral, the CRM's version for a
    record; None means "look in any case". `deferrals` counts how often the message was put back with a delay.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: Literal[1] = 1
    cause: Cause
    referral_id: str | None = None
    record_table: str | None = None
    record_id: str | None = None
    version: str | None = None
    deleted: bool = False
    event: str | None = None
    correlation_id: str = Field(default_factory=lambda: str(uuid4()))
    deferrals: int = 0

    @field_validator("referral_id", "record_id")
    @classmethod
    def _one_spelling(cls, given: str | None) -> str | None:
        """GUIDs in lower case: systems and people differ. Salesforce ids, whose case counts, are no GUIDs."""
        return given.lower() if given and GUID.fullmatch(given) else given

    @model_validator(mode="after")
    def _names_a_deal(self) -> SyncRequest:
        if not self.referral_id and not (self.record_table and self.record_id):
            raise ValueError("a sync request names a referral_id, or a record_table and a record_id")
        return self

    @property
    def record(self) -> RecordRef | None:
        if self.record_table and self.record_id:
            return RecordRef(self.record_table, self.record_id)
        return None

    def deferred(self) -> SyncRequest:
        return self.model_copy(update={"deferrals": self.deferrals + 1})

    def encode(self) -> str:
        return self.model_dump_json(exclude_none=True)

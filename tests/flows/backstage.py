"""What goes on in a CRM away from its sellers' desks: its administrators, its automation, its mishaps, its log.

All that the flows must know of one CRM and that no seller sees is here; a test says only what happens.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from local.desks import Desk
from local.simulators.base import Fault, LogEntry, Request
from local.simulators.systems import Simulators

Purpose = Literal["read", "write"]
Mishap = Literal["drop_before", "drop_after"]


@dataclass(frozen=True)
class RecordWrite:
    """A write of an opportunity or lead: the values by a desk's names, `state` if it moves that, and how it ended."""

    values: Mapping[str, Any]
    status: int

    @property
    def overtaken(self) -> bool:
        """Whether it was refused because somebody else had been quicker."""
        return self.status == 412


@dataclass(frozen=True)
class Call:
    """One call, which may have come to Salesforce together with others in one request."""

    method: str
    url: str
    body: Mapping[str, Any]
    status: int | None = None


def _calls_in(entry: LogEntry) -> list[Call]:
    """The calls that a request carried to its system, and how they ended."""
    asked = _calls(entry.method, entry.path, entry.request_body)
    spoilt = entry.fault in ("status", "garbage")  # the answer is not the system's own
    if spoilt or not entry.path.endswith("/composite") or (entry.status or 400) >= 300:
        return [replace(call, status=entry.status) for call in asked]
    answers = json.loads(entry.response_body)["compositeResponse"]
    return [replace(call, status=each["httpStatusCode"]) for call, each in zip(asked, answers, strict=True)]


def _calls(method: str, path: str, body: bytes) -> list[Call]:
    document = json.loads(body) if body and method != "GET" else {}
    if path.endswith("/composite"):
        return [Call(part["method"], part["url"], part.get("body") or {}) for part in document["compositeRequest"]]
    return [Call(method, path, document)]


@dataclass
class FaultOfWrite(Fault):
    """Meets requests that write at this address, alone or among other calls; `holding` is in what they write."""

    url: str = ""
    holding: str = ""

    def matches(self, request: Request) -> bool:
        if request.caller is None or not super().matches(request):
            return False
        calls = _calls(request.method, request.path, request.body)
        writes = [call for call in calls if call.method != "GET" and self.url in call.url]
        return any(self.holding in json.dumps(write.body) for write in writes)


class Backstage(ABC):
    """`system` is the simulator's name among all; `rights` what an administrator grants the product its rights by;
    `names_origin`: an opportunity made for a lead that was accepted elsewhere names the lead; `state` are the columns
    that say how a record stands.
    """

    crm: ClassVar[str]
    system: ClassVar[str]
    rights: ClassVar[str]
    names_origin: ClassVar[bool]
    state: ClassVar[tuple[str, ...]]

    def __init__(self, simulators: Simulators, desk: Desk) -> None:
        self.address = simulators.urls[self.system]
        self.simulator: Any = simulators.systems[self.system]
        self.desk = desk

    # ------------------------------------------------------------ what the product asked

    def calls(self) -> list[str]:
        """Every request since the log was cleared: "crm read" or "crm write"."""
        purposes = map(self._purpose, self.simulator.log.entries)
        return [f"crm {purpose}" for purpose in purposes if purpose]

    def writes(self) -> list[str]:
        """Those of them that changed something."""
        return ["crm write" for entry in self.simulator.log.entries if self._wrote(entry)]

    @abstractmethod
    def record_writes(self) -> list[RecordWrite]:
        """Every attempt to write an opportunity or lead since the log was cleared, oldest first."""

    def _named(self, kind: str, columns: Mapping[str, Any]) -> dict[str, Any]:
        """What was written, by a desk's names where it has one."""
        names = {column: name for name, column in self.desk.fields[kind].items()} | dict.fromkeys(self.state, "state")
        return {names.get(column, column): value for column, value in columns.items()}

    @abstractmethod
    def _purpose(self, entry: LogEntry) -> Purpose | None:
        """None: no API call, or none that got past the door."""

    @abstractmethod
    def _wrote(self, entry: LogEntry) -> bool: ...

    # ------------------------------------------------------------ automation

    @abstractmethod
    def touch(self, record_id: str) -> None:
        """Automation touches an opportunity: its version moves, nothing that the field map names does."""

    @abstractmethod
    def touch_after_next_write(self) -> None:
        """Automation will touch the next opportunity that somebody writes through the API."""

    # ------------------------------------------------------------ administrators

    @abstractmethod
    def take_away_rights(self) -> None:
        """From now on the product may read everything and create no opportunity."""

    @abstractmethod
    def give_back_rights(self) -> None: ...

    @abstractmethod
    def forbid_closing(self, message: str) -> None:
        """An administrator's own rule refuses to close an opportunity, in these words."""

    @abstractmethod
    def allow_closing(self) -> None: ...

    @abstractmethod
    def refuse_notes(self, notes: str) -> str:
        """An opportunity's notes are refused the next time that somebody writes these. Returns words of the refusal."""

    @abstractmethod
    def restore(self, record_id: str) -> None:
        """An administrator brings a deleted opportunity back."""

    # ------------------------------------------------------------ mishaps

    @abstractmethod
    def throttle_writes(self, retry_after_s: int) -> None:
        """Until the faults are cleared."""

    @abstractmethod
    def interrupt_create(self, kind: str, mishap: Mishap) -> None:
        """Break the connection at the next create of an account, contact or opportunity."""


class Dynamics365Backstage(Backstage):
    crm, system = "dynamics365", "dataverse"
    rights, names_origin = "security role", True
    state = ("statecode", "statuscode")

    APPLICATION_USER = "# Co-sell Sync"
    SETS: ClassVar = {"account": "accounts", "contact": "contacts", "opportunity": "opportunities", "lead": "leads"}
    CLOSE = r"/(Win|Lose)Opportunity$"

    def record_writes(self) -> list[RecordWrite]:
        return [write for entry in self.simulator.log.entries for write in self._record_writes(entry)]

    def _record_writes(self, entry: LogEntry) -> list[RecordWrite]:
        status = entry.status or 0
        if entry.method == "POST" and entry.path.endswith(("WinOpportunity", "LoseOpportunity")):
            body = json.loads(entry.request_body)
            return [RecordWrite({"state": body["Status"]}, status)]
        if entry.method != "PATCH":
            return []
        kinds = [kind for kind in ("opportunity", "lead") if f"/{self.SETS[kind]}(" in entry.path]
        return [RecordWrite(self._named(kind, json.loads(entry.request_body)), status) for kind in kinds]

    def _purpose(self, entry: LogEntry) -> Purpose | None:
        if entry.caller != "dynamics365":
            return None
        return "read" if entry.method == "GET" else "write"

    def _wrote(self, entry: LogEntry) -> bool:
        return entry.method != "GET" and (entry.status or 400) < 300

    def touch(self, record_id: str) -> None:
        self.simulator.people.plugin_bumps("opportunity", record_id)

    def touch_after_next_write(self) -> None:
        self.simulator.people.plugin_bumps_next_write("opportunity")

    def take_away_rights(self) -> None:
        self.simulator.people.set_roles(self.APPLICATION_USER, ["System Customizer"])

    def give_back_rights(self) -> None:
        self.simulator.people.set_roles(self.APPLICATION_USER, ["Co-sell Sync"])

    def forbid_closing(self, message: str) -> None:
        refusal = {"error": {"code": "0x80040265", "message": message}}
        self.simulator.faults.add("status", method="POST", path=self.CLOSE, times=9999, status=400, body=refusal)

    def allow_closing(self) -> None:
        self.simulator.faults.clear()

    def refuse_notes(self, notes: str) -> str:
        words = "exceeded the maximum allowed length"
        message = f"The length of the 'description' attribute of the 'opportunity' entity {words} of '10'."
        refusal = {"error": {"code": "0x80044331", "message": f"A validation error occurred. {message}"}}
        fault = FaultOfWrite("status", options={"status": 400, "body": refusal}, url="/opportunities", holding=notes)
        self.simulator.faults.waiting.append(fault)
        return words

    def restore(self, record_id: str) -> None:
        self.simulator.people.restore(record_id)

    def throttle_writes(self, retry_after_s: int) -> None:
        self.simulator.faults.add("throttle", method="PATCH", times=99, retry_after_s=retry_after_s)

    def interrupt_create(self, kind: str, mishap: Mishap) -> None:
        self.simulator.faults.add(mishap, method="PATCH", path=f"/{self.SETS[kind]}")


class SalesforceBackstage(Backstage):
    crm, system = "salesforce", "salesforce"
    rights, names_origin = "Cosell_Sync", False
    state = ("StageName", "Status", "Referral_Accepted__c")

    OBJECTS: ClassVar = {"account": "Account", "contact": "Contact", "opportunity": "Opportunity", "lead": "Lead"}
    REFERRAL_ID = "Referral_Identifier__c"

    def record_writes(self) -> list[RecordWrite]:
        calls = [call for entry in self.simulator.log.entries if entry.caller for call in _calls_in(entry)]
        kinds = {f"/sobjects/{self.OBJECTS[kind]}/": kind for kind in ("opportunity", "lead")}
        return [
            RecordWrite(self._named(kind, call.body), call.status or 0)
            for call in calls
            for place, kind in kinds.items()
            if call.method == "PATCH" and place in call.url
        ]

    def _purpose(self, entry: LogEntry) -> Purpose | None:
        if entry.caller is None:  # signing in, and asking which versions there are
            return None
        return "write" if any(call.method != "GET" for call in _calls_in(entry)) else "read"

    def _wrote(self, entry: LogEntry) -> bool:
        return entry.caller is not None and any(
            call.method != "GET" and (call.status or 400) < 300 for call in _calls_in(entry)
        )

    def touch(self, record_id: str) -> None:
        """What automation does moves a time that nobody compares; only a save is seen."""
        self.desk.save_again(record_id)

    def touch_after_next_write(self) -> None:
        self.simulator.people.automation_touches_next_write("Opportunity")

    def take_away_rights(self) -> None:
        self.simulator.people.make_read_only("Opportunity", self.REFERRAL_ID)

    def give_back_rights(self) -> None:
        self.simulator.people.show_field("Opportunity", self.REFERRAL_ID)

    def forbid_closing(self, message: str) -> None:
        self.simulator.people.add_validation_rule("Opportunity", "No_closing", message, when={"IsClosed": True})

    def allow_closing(self) -> None:
        self.simulator.people.clear_validation_rules()

    def refuse_notes(self, notes: str) -> str:
        words = "These notes are not to be written."
        self.simulator.people.add_validation_rule(
            "Opportunity", "No_such_notes", words, "Description", {"Description": notes}
        )
        return words

    def restore(self, record_id: str) -> None:
        self.simulator.people.undelete("Opportunity", record_id)

    def throttle_writes(self, retry_after_s: int) -> None:
        options = {"retry_after_s": retry_after_s}
        self.simulator.faults.waiting.append(FaultOfWrite("throttle", times=99, options=options, url="/sobjects/"))

    def interrupt_create(self, kind: str, mishap: Mishap) -> None:
        self.simulator.faults.waiting.append(FaultOfWrite(mishap, url=f"/sobjects/{self.OBJECTS[kind]}"))


BACKSTAGES: Mapping[str, type[Backstage]] = {each.crm: each for each in (Dynamics365Backstage, SalesforceBackstage)}

"""Everything around the product in one process: simulators, Storage, and the real triggers run one at a time.

Virtual clock, no threads: a test says who does what, then lets the world settle and looks at both sides. Storage is
real, or the twin in memory that keeps the same contract where a test plays hundreds of worlds. What the queue shows
later, it shows when the virtual clock gets there.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from io import BytesIO
from typing import Any, cast
from urllib.parse import urlsplit
from uuid import uuid4

import requests
from azure.functions.meta import Datum
from azure.storage.queue import QueueClient, QueueMessage, TextBase64DecodePolicy

from local.desks import DESKS, Desk
from local.desks.desk import Row
from local.host.functions import Function, InvocationFailed
from local.host.web import Request, Site
from local.simulators.base import Clock, InProcessAdapter, Simulator
from local.simulators.systems import Simulators
from shared.messages import SyncRequest
from shared.model import Link, RecordRef
from shared.services import Services
from shared.settings import StorageSettings, load
from shared.store.audit import Audit, AuditEntry
from shared.store.captures import Captures
from shared.store.cursors import Cursors
from shared.store.deals import Deals, Story
from shared.store.failures import Failures
from shared.store.journal import Journal
from shared.store.pauses import Pauses
from shared.store.queue import Message, WorkQueue
from shared.store.signs import Signs
from shared.store.sweeps import Sweeps
from shared.store.tables import Table, TableStorage
from tests.flows.backstage import BACKSTAGES
from tests.flows.crms import shipped_rows
from tests.flows.fuse import Fuse, Fused, FusedSession, ProcessDied
from tests.memory_storage import MemoryQueue, MemoryTables, Received

HOST = "https://cosell.example"
WEBHOOK_URL = f"{HOST}/api/webhook_receiver?code=key"
EVENTS = ["referral-created", "referral-updated", "related-referral-created", "related-referral-updated"]
START = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)


class PatientQueue(WorkQueue):
    """The real queue as its users and the host see it, but what shall be seen later is kept here until it is time."""

    def __init__(self, connection: str, name: str, clock: Clock) -> None:
        super().__init__(load(StorageSettings, {"AzureWebJobsStorage": connection}), name=name)
        self.clock = clock
        self.later: list[tuple[datetime, Message]] = []
        self.received: dict[str, QueueMessage] = {}
        self.messages = QueueClient.from_connection_string(
            connection, name, message_decode_policy=TextBase64DecodePolicy()
        )
        self.messages.create_queue()  # as the host does when it starts

    def send(self, request: Message, delay_s: float = 0) -> None:
        if delay_s:
            self.later.append((self.clock.now() + timedelta(seconds=delay_s), request))
        else:
            super().send(request)

    def receive(self, visibility_s: int) -> list[Received]:
        self.release_due()
        page = list(self.messages.receive_messages(max_messages=32, visibility_timeout=visibility_s))
        self.received = {message.id: message for message in page}  # pop receipts of two messages may be the same
        return [Received(each.content.encode(), each.dequeue_count or 1, each.id) for each in page]

    def delete(self, receipt: str) -> None:
        self.messages.delete_message(self.received[receipt])

    def release_due(self) -> None:
        due = [request for at, request in self.later if at <= self.clock.now()]
        self.later = [(at, request) for at, request in self.later if at > self.clock.now()]
        for request in due:
            super().send(request)


class FunctionAdapter(requests.adapters.BaseAdapter):
    """Delivers HTTP to the app's functions without sockets."""

    def __init__(self, site: Site, begins: Callable[[], None], restart: Callable[[], None]) -> None:
        """`begins` is told of each call, `restart` of each that the process did not survive."""
        super().__init__()
        self.site = site
        self.begins = begins
        self.restart = restart

    def send(self, request: requests.PreparedRequest, **_: Any) -> requests.Response:  # type: ignore[override]
        url = urlsplit(str(request.url))
        query = dict(part.split("=", 1) for part in url.query.split("&") if part)
        body = request.body or b""
        call = Request(
            method=str(request.method),
            path=url.path,
            query=query,
            headers={name.lower(): _text(value) for name, value in request.headers.items()},
            body=body.encode() if isinstance(body, str) else bytes(body),
            url=str(request.url),
        )
        self.begins()
        try:
            answered = self.site.answer(call)
        except ProcessDied as died:
            self.restart()
            raise requests.ConnectionError("the receiver died") from died
        response = requests.Response()
        response.status_code, response._content, response.request = answered.status, answered.body, request
        response.headers.update(dict(answered.headers))
        response.url, response.raw = str(request.url), BytesIO()
        return response

    def close(self) -> None:
        """Nothing is open."""


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


class World:
    """`desk` is a seller's in the chosen CRM, `crm` the simulator behind it, `backstage` what no seller sees of it."""

    def __init__(
        self,
        storage_connection: str | None,
        functions: list[Function],
        crm: str = "dynamics365",
        simulators: Simulators | None = None,
        **settings: str,
    ) -> None:
        """`storage_connection` None: Storage in memory, whose tables and queues outlive a restart just the same."""
        self.simulators = simulators or Simulators(Clock(frozen_at=START))
        self.clock = self.simulators.clock
        self.name = f"flow{uuid4().hex[:20]}"
        self.tables: TableStorage | MemoryTables
        self.queue: PatientQueue | MemoryQueue
        self.relays: PatientQueue | MemoryQueue
        if storage_connection:
            self.tables = TableStorage(load(StorageSettings, {"AzureWebJobsStorage": storage_connection}))
            self.queue = PatientQueue(storage_connection, self.name, self.clock)
            self.relays = PatientQueue(storage_connection, f"{self.name}-relays", self.clock)
            self.messages = self.queue.messages
        else:
            self.tables, self.queue = MemoryTables(), MemoryQueue(self.clock.now)
            self.relays = MemoryQueue(self.clock.now)
        self.fuse = Fuse()
        self.looks = Fuse()
        """Counts what is asked and told of pauses."""
        self.luck = 0.0
        """What the product takes for a random number."""
        self.neighbours: dict[str, Simulator] = {}
        self.entra, self.pc, self.people = (
            self.simulators.entra,
            self.simulators.partner_center,
            self.simulators.people,
        )
        backstage = BACKSTAGES[crm]
        self.crm: Any = self.simulators.systems[backstage.system]
        self.desk: Desk = DESKS[crm](self.act_in_crm, self.crm.state)
        self.backstage = backstage(self.simulators, self.desk)
        self.pc.rules.form_rules = True  # what the portal's form asks for, so that the product sends complete deals
        self.functions = {function.name: function for function in functions}
        self.settings = {
            **self.simulators.settings(crm),
            **({"AzureWebJobsStorage": storage_connection} if storage_connection else {}),
            "PARTNER_CENTER_TOKEN_FILE": f"{self.simulators.directory.name}/refresh-token",
            "WEBHOOK_URL": WEBHOOK_URL,
            **settings,
        }
        self.services = self.new_services()
        self.site = Site(functions, route_prefix="api", function_key="key", run_now={})
        self.simulators.webhooks.dispatcher.session.mount(
            HOST, FunctionAdapter(self.site, self.fuse.another_run, self.restart)
        )
        self.simulators.webhooks.another_tool_registers(WEBHOOK_URL, EVENTS)
        self.failed_invocations = 0
        self.runs: list[str] = []

    def new_services(self) -> Services:
        """A process: caches empty, Storage and the outside systems as they were."""
        session = FusedSession(self.fuse)
        self.simulators.mount(session)
        for address, system in self.neighbours.items():
            session.mount(address, InProcessAdapter(system))
        services = Services(
            self.settings,
            clock=self.clock.now,
            sleep=self.clock.advance,
            session=session,
            random=lambda: self.luck,
        )
        self.connect(services, lambda target, name: Fused(target, name, self.fuse))
        return services

    def connect(self, services: Services, line: Callable[[Any, str], Any]) -> None:
        """Give a process its Storage; `line` wraps each table and queue, so that something can happen on the way."""
        deals: Table = line(self.tables.table(f"{self.name}Deals"), "deals")
        index: Table = line(self.tables.table(f"{self.name}Index"), "index")
        cursors: Table = line(self.tables.table(f"{self.name}Cursors"), "cursors")
        services.deals = Deals(deals, index, services.clock)  # type: ignore[misc]
        services.audit = Audit(deals, index)  # type: ignore[misc]
        services.failures = Failures(index, services.clock)  # type: ignore[misc]
        services.cursors = Cursors(cursors)  # type: ignore[misc]
        # Pauses are looked up just before a call, and dying there is dying before the call: no moments of their own.
        pauses = cast(Table, Fused(self.tables.table(f"{self.name}Index"), "pauses", self.looks))
        services.pauses = Pauses(pauses, services.clock)  # type: ignore[misc]
        services.queue = line(self.queue, "queue")  # type: ignore[misc]
        services.relays = line(self.relays, "relays")  # type: ignore[misc]
        # What is written for people only is no moment to die at: nothing the product does depends on it.
        for_people = cast(Table, self.tables.table(f"{self.name}Index"))
        services.signs = Signs(for_people, services.clock)  # type: ignore[misc]
        services.journal = Journal(for_people, services.clock)  # type: ignore[misc]
        services.captures = Captures(for_people, services.clock)  # type: ignore[misc]
        services.sweeps = Sweeps(for_people)  # type: ignore[misc]

    def neighbour(self, address: str, system: Simulator) -> None:
        """There is another system at `address`, which the product may call."""
        self.neighbours[address] = system
        self.services = self.new_services()

    def act_in_crm(self, action: str, **arguments: Any) -> Any:
        return getattr(self.crm.people, action)(**arguments)

    # ------------------------------------------------------------ letting things happen

    def settle(self, *, poll: bool = True) -> None:
        """Deliver events, poll and work the queues until nothing is left to do now."""
        for _ in range(50):
            delivered = self.simulators.webhooks.dispatcher.deliver_pending()
            if poll:
                self.survives(lambda: self.fire("crm_poller"))
            if not self.work() and not self.relay() and not delivered:
                return
        raise AssertionError("the world does not come to rest")

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def fire(self, timer: str) -> None:
        self.fuse.another_run()
        self.functions[timer].invoke(Datum('{"IsPastDue":false}', "json"))

    def work(self) -> int:
        """Let the worker take every message in the queue once; return how many there were."""
        return self.take_all(self.queue, self.run_worker)

    def relay(self) -> int:
        """Let every call that waits to be passed on be looked at once; return how many there were."""
        return self.take_all(self.relays, self.run_relay)

    def take_all(self, queue: PatientQueue | MemoryQueue, run: Callable[[bytes, int], None]) -> int:
        done = 0
        while page := queue.receive(visibility_s=60):
            for body, attempt, receipt in page:
                done += 1
                while not self.survives(partial(run, body, attempt)):
                    attempt += 1
                queue.delete(receipt)
        return done

    def survives(self, run: Callable[[], None]) -> bool:
        """Run something that may die; whoever sent it the work will send it again."""
        try:
            run()
        except ProcessDied:
            self.restart()
            return False
        return True

    def run_worker(self, body: bytes, dequeue_count: int = 1) -> None:
        self.run_queue_function("sync_worker", body, dequeue_count)

    def run_relay(self, body: bytes, dequeue_count: int = 1) -> None:
        self.run_queue_function("webhook_relay", body, dequeue_count)

    def run_queue_function(self, name: str, body: bytes, dequeue_count: int) -> None:
        self.fuse.another_run()
        try:
            self.functions[name].invoke(Datum(body, "bytes"), {"DequeueCount": Datum(str(dequeue_count), "json")})
        except InvocationFailed:
            self.failed_invocations += 1

    def poison(self, body: bytes, trigger: str = "poisoned") -> None:
        """The host gives a message up and hands it to the trigger of its poison queue."""
        self.functions[trigger].invoke(Datum(body, "bytes"), {"DequeueCount": Datum("1", "json")})

    def restart(self) -> None:
        """The process died and a new one starts, later than any claim of the dead one lasts."""
        self.services = self.new_services()
        self.advance(120)

    # ------------------------------------------------------------ what sellers do and see

    def opportunity(self, **values: Any) -> str:
        """A seller creates an opportunity that is complete enough to be shared; `values` change or clear fields."""
        return self.desk.create_opportunity(**values)

    def record(self, record_id: str) -> Row:
        """An opportunity by its id."""
        return next(row for row in self.desk.opportunities() if row["id"] == record_id)

    def record_of(self, referral_id: str) -> Row:
        return next(row for row in self.desk.opportunities() if row["referral_id"] == referral_id)

    def lead(self, lead_id: str) -> Row:
        return next(row for row in self.desk.leads() if row["id"] == lead_id)

    def lead_of(self, referral_id: str) -> Row:
        return next(row for row in self.desk.leads() if row["referral_id"] == referral_id)

    def row(self, name: str) -> Mapping[str, Any]:
        """The row of the shipped map for a field of an opportunity."""
        return shipped_rows(self.desk.crm, self.desk.opportunity)[name]

    def label(self, name: str) -> str:
        """What people call a field of an opportunity."""
        return str(self.row(name)["label"])

    # ------------------------------------------------------------ looking

    def referrals(self) -> list[dict[str, Any]]:
        """The partner's own referrals."""
        return [row for row in self.pc.referrals.values() if row["organizationId"] != "msft"]

    def referral_of(self, record_id: str) -> dict[str, Any]:
        return next(row for row in self.referrals() if row["externalReferenceId"] == record_id)

    def microsofts(self, engagement_id: str) -> dict[str, Any]:
        return next(row for row in self.pc.of_engagement(engagement_id) if row["organizationId"] == "msft")

    def link_of(self, record_id: str, table: str | None = None) -> Link:
        """`table` None: of an opportunity."""
        deal = self.services.deals.find(record=RecordRef(table or self.desk.opportunity, record_id))
        assert deal
        link = self.services.deals.load(deal)
        assert link
        return link

    def story_of(self, deal: str) -> Story:
        return self.services.deals.story(deal)

    def story(self, record_id: str, table: str | None = None) -> list[AuditEntry]:
        """What happened to the deal of a record, oldest first."""
        return list(reversed(self.story_of(self.link_of(record_id, table).deal).entries))

    def notes(self, record_id: str, table: str | None = None) -> str:
        """What the audit of the deal says in words, a line per note."""
        return "\n".join(note for entry in self.story(record_id, table) for note in entry.notes)

    def writes(self) -> list[str]:
        """What the product changed since the last `forget_calls`: "partner_center POST", "crm write" ..."""
        done = [entry for entry in self.pc.log.entries if (entry.status or 400) < 300 and entry.method != "GET"]
        return [*(f"partner_center {entry.method}" for entry in done), *self.backstage.writes()]

    def patches(self) -> list[dict[str, Any]]:
        """The patches of referrals sent since the last `forget_calls`, each as path and value."""
        bodies = [json.loads(entry.request_body) for entry in self.pc.log.matching("PATCH")]
        return [{operation["path"]: operation["value"] for operation in body} for body in bodies]

    def is_at_rest(self) -> bool:
        """Whether an operator who lets every deal be looked at anew causes no write."""
        self.settle()
        self.forget_calls()
        for referral_id in self.pc.referrals:
            self.services.queue.send(SyncRequest(cause="operator", referral_id=referral_id))
        for table, rows in (
            (self.desk.opportunity, self.desk.opportunities()),
            (self.desk.lead, self.desk.leads()),
        ):
            for row in rows:
                self.services.queue.send(SyncRequest(cause="operator", record_table=table, record_id=row["id"]))
        self.settle()
        return not self.writes()

    def calls(self) -> dict[str, int]:
        """What the product asked since the last `forget_calls`: "partner_center GET", "crm read", "crm write" ..."""
        asked = [entry for entry in self.pc.log.entries if entry.caller == "partner_center"]
        return dict(Counter([*(f"partner_center {entry.method}" for entry in asked), *self.backstage.calls()]))

    def forget_calls(self) -> None:
        for system in self.simulators.systems.values():
            system.log.clear()

"""The product in a simulated cloud: several processes, one thread, and whoever tells the story decides who goes on.

A run of a function is a greenlet that can stand still at any moment when it touches the outside, while others go on;
it can also die there, or meet a fault. Storage is in memory, the outside systems are the strict simulators, each with a
clock of its own. Nothing is real about time and nothing is left to chance.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache, lru_cache, partial
from io import BytesIO
from typing import Any, cast
from unittest.mock import patch
from urllib.parse import urlsplit

import requests
from azure.functions.meta import Datum
from greenlet import getcurrent, greenlet

from local.host.functions import Function, InvocationFailed
from local.host.web import Request
from local.simulators.base import Clock
from local.simulators.systems import Simulators
from shared import services as shared_services
from shared.mapping import FieldMap, load_field_map
from shared.services import Services
from tests.flows.crms import shipped_map
from tests.flows.fuse import ProcessDied
from tests.flows.in_process import InProcessSession
from tests.flows.world import HOST, START, World
from tests.memory_storage import MemoryQueue
from tests.simulation.broken import Broken
from tests.simulation.faults import KINDS, Fault, Moment, Target
from webhook_receiver import blueprint as receiver

VISIBILITY_S = 60
"""How long a message stays hidden when its run dies: https://learn.microsoft.com/azure/azure-functions/functions-bindings-storage-queue-trigger"""
ATTEMPTS = 6
"""maxDequeueCount in host.json."""
SYSTEMS = ("partner_center", "dataverse", "salesforce")
CREATE = "POST partner_center /v1.0/engagements/referrals"
LOOK = "GET partner_center /v1.0/engagements/referrals/"
LONGEST_PAUSE_S = 3_600
ONLY_LOOKED = ("sync.coalesced", "sync.ignored", "sync.busy", "sync.agreed")
SECRETS = ("Grüße", "long long", "1 Example Way", "@contoso.example", "@fabrikam.example", "Bearer ", "eyJ")
"""What people enter, whom they name, and what opens doors: in no line of the log."""


class Skewed(Clock):
    """The clock of one system, which is `skew_s` ahead of the true time."""

    def __init__(self, true: Clock, skew_s: float) -> None:
        super().__init__()
        self.true, self.skew = true, timedelta(seconds=skew_s)

    def now(self) -> datetime:
        return self.true.now() + self.skew

    def advance(self, seconds: float) -> None:
        self.true.advance(seconds)


class Instance:
    """One process of the app."""

    def __init__(self, name: str, skew_s: float) -> None:
        self.name = name
        self.skew = timedelta(seconds=skew_s)
        self.services: Services


class Task(greenlet):
    """One run of a function on an instance. `to_go`: moments until it stands still, None for never."""

    def __init__(self, instance: Instance, label: str, work: Callable[[], None]) -> None:
        super().__init__(self._work)
        self.instance, self.label = instance, label
        self.born = 0
        """The moment at which it began, and when."""
        self.began: datetime
        self.to_go: int | None = None
        self.stands_since: datetime | None = None
        self.killed = self.died = False
        self._do = work

    def _work(self) -> None:
        try:
            self._do()
        except ProcessDied:
            self.died = True


@cache
def _field_map(crm: str) -> FieldMap:
    """Reading it takes longer than a story has for all its processes."""
    return load_field_map(shipped_map(crm), "")


class Turns:
    """A lock for tasks: who finds it taken stands still until it is free, as a thread would."""

    def __init__(self) -> None:
        self._taken = False

    def __enter__(self) -> None:
        while self._taken:
            cloud_of(getcurrent()).stand_still()
        self._taken = True

    def __exit__(self, *_: object) -> None:
        self._taken = False


def cloud_of(task: greenlet) -> Cloud:
    return cast(Cloud, cast(Any, task).cloud)


class Port:
    """Passes method calls on to Storage through the cloud, where they may stand still or go wrong."""

    def __init__(self, cloud: Cloud, target: Any, name: str) -> None:
        self._cloud, self._target, self._name = cloud, target, name

    def __getattr__(self, attribute: str) -> Any:
        found = getattr(self._target, attribute)
        if not callable(found):
            return found
        name = f"{self._name}.{attribute}"
        targets: frozenset[Target] = frozenset({"queue" if attribute == "send" else "storage"})

        def call(*args: Any, **options: Any) -> Any:
            return self._cloud.meet(Moment(name, targets, partial(found, *args, **options)))

        return call


@dataclass(frozen=True)
class Pause:
    """Until when a system wants to be left alone, which run was told, and at which of the cloud's moments."""

    until: datetime
    asked: greenlet
    learned: int


class AsWritten(requests.PreparedRequest):
    """Takes an address as it is written. What requests finds by checking each of its characters, the flows see."""

    def prepare_url(self, url: Any, params: Any) -> None:
        assert not params
        self.url = url


class PortSession(InProcessSession):
    """The way to the outside systems, through the cloud."""

    prepared = AsWritten

    def __init__(self, cloud: Cloud) -> None:
        super().__init__()
        self._cloud = cloud
        self._pauses: dict[str, Pause] = {}

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        address = urlsplit(str(request.url))
        system = self._cloud.names[f"{address.scheme}://{address.netloc}"]
        name = f"{request.method} {system} {address.path}"
        targets: set[Target] = {"remote"}
        if request.method != "GET" and system in SYSTEMS:
            targets.add("create" if name == CREATE else "write")
        elif name.startswith(LOOK):
            targets.add("look")
        self._check_pause(system)
        answer: requests.Response = self._cloud.meet(
            Moment(name, frozenset(targets), partial(super().send, request, **options), system)
        )
        self._note_pause(system, answer)
        return answer

    def _check_pause(self, system: str) -> None:
        """A run that begins, or goes on, after its process was asked for a pause keeps it."""
        task, pause = getcurrent(), self._pauses.get(system)
        if not (isinstance(task, Task) and pause and self._cloud.clock.now() < pause.until):
            return
        if task is pause.asked or task.born > pause.learned:
            words = f"{system} is called by {task.label}, though it asked for a pause until {pause.until:%H:%M:%S}"
            self._cloud.broken.append(Broken("I10", words))

    def _note_pause(self, system: str, answer: requests.Response) -> None:
        """Of a date only a client with the right time knows how far it is; a month, nobody keeps."""
        named = answer.headers.get("Retry-After", "")
        if answer.status_code == 429 and named.isdecimal() and int(named) < LONGEST_PAUSE_S and system in SYSTEMS:
            until = self._cloud.clock.now() + timedelta(seconds=int(named))
            self._pauses[system] = Pause(until, getcurrent(), self._cloud.moments)


class Cloud(World):
    """`tell` is told, line by line, what happens; `injected` counts the faults that struck, by kind."""

    def __init__(
        self, functions: list[Function], crm: str, tell: Callable[[str], None], skews: dict[str, float] | None = None
    ) -> None:
        self.tell = tell
        self.injected: Counter[str] = Counter()
        self.faults: list[Fault] = []
        self.outage = False
        self.no_rights = ""
        """The system that grants the product no right at the moment."""
        self.touched: list[tuple[str, int]] = []
        """What the product has touched outside, each time with when the run began that did it."""
        self.acted = 0
        """How often a run did more than look."""
        self.broken: list[Broken] = []
        self.under_way: list[tuple[datetime, Callable[[], Any]]] = []
        """Requests that nobody waits for any more, and when they arrive."""
        self.certificates_in_doubt = False
        self.tasks: list[Task] = []
        self.instances = [Instance("A", 0), Instance("B", 2)]
        self.main = getcurrent()
        true = Clock(frozen_at=START)
        skews = skews or {}
        self.clocks = {name: Skewed(true, skews.get(name, 0)) for name in SYSTEMS}
        super().__init__(None, functions, crm, simulators=Simulators(true, self.clocks))
        self.services.field_map = _field_map(crm)  # type: ignore[misc]
        self.receiver = Receiver(self)
        self.simulators.webhooks.dispatcher.session = InProcessSession()
        self.simulators.webhooks.dispatcher.session.mount(HOST, self.receiver)
        self.simulators.webhooks.dispatcher.time_factor = 60  # ten attempts take the best part of a day
        self.names = {url: name for name, url in self.simulators.urls.items()}
        for instance in self.instances:
            self.start_process(instance)

    @property
    def storage(self) -> MemoryQueue:
        return cast(MemoryQueue, self.queue)

    @property
    def moments(self) -> int:
        """How often the product has touched the outside."""
        return len(self.touched)

    # ------------------------------------------------------------ processes

    def start_process(self, instance: Instance) -> None:
        """A new process: caches empty, Storage and the outside systems as they were."""
        clock = lambda: self.clock.now() + instance.skew  # noqa: E731
        services = Services(
            self.settings, clock=clock, sleep=self.clock.advance, session=PortSession(self), random=lambda: 0.5
        )
        services.field_map = _field_map(self.settings["CRM"])  # type: ignore[misc]
        self.simulators.mount(services.session)  # type: ignore[arg-type]
        self.connect(services, lambda target, name: Port(self, target, name))
        instance.services = services

    def crash(self, instance: Instance) -> None:
        """The process dies with all its runs, and a new one starts."""
        self.tell(f"process {instance.name} dies")
        for task in [task for task in self.tasks if task.instance is instance and task is not getcurrent()]:
            task.killed = True
            task.parent = getcurrent()
            task.throw(ProcessDied())
            self.tasks.remove(task)
        self.start_process(instance)

    # ------------------------------------------------------------ runs

    def start(self, instance: Instance, label: str, work: Callable[[], None], moments: int | None = None) -> Task:
        """Begin a run; it stands still after `moments`, or goes on to its end."""
        task = Task(instance, f"{label} on {instance.name}", work)
        task.cloud = self  # type: ignore[attr-defined]
        task.born, task.began = self.moments, self.clock.now()
        self.tasks.append(task)
        self.go_on(task, moments)
        return task

    def go_on(self, task: Task, moments: int | None = None) -> None:
        task.to_go = moments
        stood_s = (self.clock.now() - task.stands_since).total_seconds() if task.stands_since else 0
        if stood_s > VISIBILITY_S and task.label.startswith("sync_worker"):
            self.injected["a run wakes up after its message came back"] += 1
        task.parent = getcurrent()
        task.switch()
        if task.dead:
            self.tasks.remove(task)
            if task.died and not task.killed:
                self.crash(task.instance)
        else:
            task.stands_since = self.clock.now()
            self.tell(f"the {task.label} stands still")

    def finish_all(self) -> None:
        """Let every run go on to its end."""
        for _ in range(10):
            for task in list(self.tasks):
                if task in self.tasks:
                    self.go_on(task)
            if not self.tasks:
                return
        raise AssertionError(f"these wait for each other: {[task.label for task in self.tasks]}")

    def stand_still(self) -> None:
        cast(greenlet, getcurrent().parent).switch()
        if cast(Task, getcurrent()).killed:
            raise ProcessDied("killed while it stood still")

    def meet(self, moment: Moment) -> Any:
        """One touch of the outside by whoever runs now."""
        task = getcurrent()
        if not isinstance(task, Task):
            return moment.effect()
        if task.killed:
            raise ProcessDied(moment.name)
        self.touched.append((moment.name, task.born))
        self._let_arrive()
        # A certificate is fetched under a lock that threads would wait for.
        if task.to_go is not None and moment.system != "certificates":
            if task.to_go == 0:
                self.stand_still()
            else:
                task.to_go -= 1
        if self.outage and not moment.system:
            return KINDS["Storage does not answer"][1](self, moment)
        if moment.system and moment.system == self.no_rights:
            return KINDS["403"][1](self, moment)
        self._note_late_write(task, moment)
        fault = self._due(moment)
        if fault is None:
            if moment.system not in ("", "entra", "certificates"):
                self.tell(f"  {task.instance.name}: {moment.name}")
            return moment.effect()
        self.injected[fault.kind] += 1
        self.certificates_in_doubt |= moment.system == "certificates"
        self.tell(f"  {task.instance.name}: {moment.name}: {fault.kind}")
        return KINDS[fault.kind][1](self, moment)

    def _note_late_write(self, task: Task, moment: Moment) -> None:
        """Another run has its message by then, and takes the deal over: both may write the same."""
        lasts_s = (self.clock.now() - task.began).total_seconds()
        if moment.targets & {"create", "write"} and lasts_s > VISIBILITY_S:
            self.injected["a run writes after its message came back"] += 1

    def _let_arrive(self) -> None:
        """What was under way and is due is carried out."""
        now = self.clock.now()
        due = [effect for at, effect in self.under_way if at <= now]
        self.under_way = [(at, effect) for at, effect in self.under_way if at > now]
        for effect in due:
            effect()

    def _due(self, moment: Moment) -> Fault | None:
        """The first fault whose time has come."""
        for fault in self.faults:
            if moment.targets & KINDS[fault.kind][0]:
                if fault.after <= 0:
                    self.faults.remove(fault)
                    return fault
                fault.after -= 1
        return None

    # ------------------------------------------------------------ the host

    def invoke(self, name: str, value: Datum, metadata: dict[str, Datum] | None = None) -> bool:
        """Run a function; returns whether it came to a good end."""
        try:
            self.functions[name].invoke(value, metadata)
        except InvocationFailed:
            return False
        return True

    def run_timer(self, instance: Instance, name: str, moments: int | None = None) -> None:
        def work() -> None:
            self.invoke(name, Datum('{"IsPastDue":false}', "json"))

        self.start(instance, name, work, moments)

    def run_worker_on(self, instance: Instance, moments: int | None = None) -> bool:
        """Hand one message to the worker, as the host does; False when there is none to see."""
        page = self.storage.receive(VISIBILITY_S, at_most=1)
        for body, attempt, receipt in page:
            self.start(instance, "sync_worker", partial(self._work_off, body, attempt, receipt), moments)
        return bool(page)

    def _work_off(self, body: bytes, attempt: int, receipt: str) -> None:
        done = self.invoke("sync_worker", Datum(body, "bytes"), {"DequeueCount": Datum(str(attempt), "json")})
        if done:
            self._forget(receipt, self.storage.delete)
            return
        self.failed_invocations += 1
        if attempt >= ATTEMPTS and self._forget(receipt, self.storage.give_up):
            self.tell(f"given up after {attempt} attempts: {body.decode()}")
            self.invoke("poisoned", Datum(body, "bytes"), {"DequeueCount": Datum("1", "json")})

    @staticmethod
    def _forget(receipt: str, forget: Callable[[str], None]) -> bool:
        """A run that took too long finds that the message was handed out again."""
        try:
            forget(receipt)
        except LookupError:
            return False
        return True

    def deliver(self, instance: Instance, moments: int | None = None) -> None:
        """Partner Center makes its attempt for every event that is due."""
        if any(delivery.due_at <= self.clock.now() for delivery in self.simulators.webhooks.dispatcher.waiting):
            self.start(instance, "webhook_receiver", self._deliver_all, moments)

    def _deliver_all(self) -> None:
        self.simulators.webhooks.dispatcher.deliver_pending()


class Receiver(requests.adapters.BaseAdapter):
    """Carries Partner Center's calls to the receiver of one process, and checks what it answers."""

    def __init__(self, cloud: Cloud) -> None:
        super().__init__()
        self.cloud = cloud
        self.instance = cloud.instances[0]
        """Who answers calls outside a run."""
        self.taken: set[tuple[int, bytes]] = set()

    def send(self, request: requests.PreparedRequest, **_: Any) -> requests.Response:  # type: ignore[override]
        body = request.body if isinstance(request.body, bytes) else str(request.body or "").encode()
        headers = {
            name.lower(): value if isinstance(value, str) else value.decode() for name, value in request.headers.items()
        }
        call = Request("POST", urlsplit(str(request.url)).path, {"code": "key"}, headers, body, str(request.url))
        task = getcurrent()
        instance = task.instance if isinstance(task, Task) else self.instance
        sent, process = self.cloud.storage.sent, id(instance.services)
        try:
            answered = self.cloud.site.answer(call)
        except ProcessDied as died:
            if isinstance(task, Task) and not task.killed:
                self.cloud.crash(instance)
            raise requests.ConnectionError("the receiver died") from died
        if answered.status < 300 and b"referral-" in body:
            # 2xx only when the message is stored, now or by an earlier attempt at this process.
            if self.cloud.storage.sent == sent and (process, body) not in self.taken:
                words = f"{body!r} was answered with {answered.status} and nothing was stored"
                self.cloud.broken.append(Broken("I1", words))
            self.taken.add((process, body))
        elif answered.status < 500 and isinstance(task, Task) and not self.cloud.certificates_in_doubt:
            # Forged calls come from outside a run.
            self.cloud.broken.append(Broken("I2", f"the genuine call {body!r} was refused with {answered.status}"))
        response = requests.Response()
        response.status_code, response._content, response.request = answered.status, answered.body, request
        response.headers.update(dict(answered.headers))
        response.url, response.raw = str(request.url), BytesIO()
        return response

    def close(self) -> None:
        """Nothing is open."""


def _services_of_this_run(cloud: Cloud) -> Callable[[], Services]:
    def of_this_run() -> Services:
        task = getcurrent()
        return task.instance.services if isinstance(task, Task) else cloud.receiver.instance.services

    return of_this_run


class _Teller(logging.Handler):
    """What the product says of its work becomes part of the story."""

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(logging.INFO)
        self.cloud = cloud

    def emit(self, record: logging.LogRecord) -> None:
        said = " ".join(map(str, vars(record).values()))
        if told := [secret for secret in SECRETS if secret in said]:
            self.cloud.broken.append(Broken("I11", f"the log tells {told}: {record.msg}"))
        self.cloud.acted += record.msg.startswith("sync.") and record.msg not in ONLY_LOOKED
        if record.msg.startswith(("sync.", "poll.failed", "invocation")):
            if record.exc_info and record.exc_info[1]:
                self.cloud.tell(f"    {type(record.exc_info[1]).__name__}: {record.exc_info[1]}")
            fields = (getattr(record, name, "") for name in ("deal", "why", "delay_s"))
            if record.msg != "invocation":
                self.cloud.tell(f"    {record.msg} {' '.join(str(field) for field in fields if field)}")


@contextmanager
def _telling(cloud: Cloud) -> Iterator[None]:
    """The logs of the app and its host go into the story, and nowhere else: thousands of lines nobody would read."""
    teller = _Teller(cloud)
    loggers = [logging.getLogger(name) for name in ("cosell", "local.host")]
    before = [(logger.level, logger.propagate, logger.handlers) for logger in loggers]
    others = {"shared", "webhook_receiver"}
    levels = {name: logging.getLogger(name).level for name in others}
    try:
        for logger in loggers:
            logger.handlers, logger.propagate = [teller], False
            logger.setLevel(logging.INFO)
        for name in others:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        yield
    finally:
        for logger, (level, propagate, handlers) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def running(cloud: Cloud) -> Iterator[None]:
    """While this lasts, the app's functions run in this cloud."""
    one_per_process = lru_cache(maxsize=8)(receiver._built.__wrapped__)
    with ExitStack() as stack:
        stack.callback(cloud.simulators.directory.cleanup)
        stack.enter_context(patch.object(shared_services, "process_services", _services_of_this_run(cloud)))
        stack.enter_context(patch.object(receiver, "_built", one_per_process))
        stack.enter_context(patch("shared.remote.salesforce_related.Lock", Turns))
        stack.enter_context(patch("shared.remote.auth.Lock", Turns))
        stack.enter_context(_telling(cloud))
        yield
        cloud.tasks.clear()

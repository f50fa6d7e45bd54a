"""What can go wrong at a moment when the product touches the outside, and how it looks from inside.

A fault waits for its moment: the n-th one of its kind from now on. It strikes before the effect or after it, because
the two look the same to whoever waits for the answer.
https://github.com/Shopify/toxiproxy has the same idea for sockets; here no time passes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any, Literal

import requests

from local.simulators.base import Fault as AnswerFault
from shared.errors import Unavailable
from tests.flows.fuse import ProcessDied

if TYPE_CHECKING:
    from tests.simulation.cloud import Cloud

Target = Literal["remote", "look", "create", "write", "storage", "queue"]
"""A look is for one referral, a create that of a referral, a write any other; these are remote as well."""
RARE: frozenset[Target] = frozenset({"look", "create", "write", "queue"})
Effect = Callable[[], Any]


@dataclass
class Moment:
    """The product is about to do something outside: `name` says what, `system` which simulator is asked, if one is."""

    name: str
    targets: frozenset[Target]
    effect: Effect
    system: str = ""


@dataclass
class Fault:
    """`after`: how many moments at which it could strike pass first."""

    kind: str
    after: int


def crash_before(cloud: Cloud, moment: Moment) -> Any:
    raise ProcessDied(moment.name)


def crash_after(cloud: Cloud, moment: Moment) -> Any:
    moment.effect()
    raise ProcessDied(moment.name)


def storage_silent_before(cloud: Cloud, moment: Moment) -> Any:
    raise Unavailable(f"Storage gave no usable answer to {moment.name}")


def storage_silent_after(cloud: Cloud, moment: Moment) -> Any:
    moment.effect()
    raise Unavailable(f"Storage gave no usable answer to {moment.name}, though it did it")


def sent_twice(cloud: Cloud, moment: Moment) -> Any:
    moment.effect()
    return moment.effect()


def slow(seconds: float) -> Callable[[Cloud, Moment], Any]:
    def strike(cloud: Cloud, moment: Moment) -> Any:
        cloud.clock.advance(seconds)
        return moment.effect()

    return strike


def arrives_late(seconds: float) -> Callable[[Cloud, Moment], Any]:
    """The request is under way for longer than anybody waits for its answer."""

    def strike(cloud: Cloud, moment: Moment) -> Any:
        cloud.under_way.append((cloud.clock.now() + timedelta(seconds=seconds), moment.effect))
        raise requests.ReadTimeout(f"no answer to {moment.name}")

    return strike


def answered(kind: str, **options: Any) -> Callable[[Cloud, Moment], Any]:
    """The simulated system itself answers so: in its own words, and with its own idea of what was executed."""

    def strike(cloud: Cloud, moment: Moment) -> Any:
        given = {name: value(cloud) if callable(value) else value for name, value in options.items()}
        faults = cloud.simulators.systems[moment.system].faults
        faults.waiting.insert(0, AnswerFault(kind, options=given))
        return moment.effect()

    return strike


def _in_two_minutes(cloud: Cloud) -> str:
    return format_datetime(cloud.clock.now() + timedelta(minutes=2), usegmt=True)


NOT_JSON = b'{"value": [{"id": "cut off'
KINDS: Mapping[str, tuple[frozenset[Target], Callable[[Cloud, Moment], Any]]] = {
    "the process dies before": (frozenset({"remote", "storage", "queue"}), crash_before),
    "the process dies after": (frozenset({"remote", "storage", "queue"}), crash_after),
    "no connection": (frozenset({"remote"}), answered("drop_before")),
    "the answer is lost": (frozenset({"remote"}), answered("drop_after")),
    "the answer is too late": (frozenset({"remote"}), answered("delay", seconds=3_600)),
    "the process stands still for two minutes": (frozenset({"remote", "storage"}), slow(120)),
    "throttled for 2 s": (frozenset({"remote"}), answered("throttle", retry_after_s=2)),
    "throttled for 5 minutes": (frozenset({"remote"}), answered("throttle", retry_after_s=300)),
    "throttled for no time named": (frozenset({"remote"}), answered("throttle")),
    "throttled until a date": (frozenset({"remote"}), answered("throttle", retry_after_s=_in_two_minutes)),
    "throttled for a month": (frozenset({"remote"}), answered("throttle", retry_after_s=2_592_000)),
    "500": (frozenset({"remote"}), answered("status", status=500)),
    "500 though it was done": (frozenset({"remote"}), answered("status", status=500, executed=True)),
    "503": (frozenset({"remote"}), answered("status", status=503)),
    "504 though it was done": (frozenset({"remote"}), answered("status", status=504, executed=True)),
    "401": (frozenset({"remote"}), answered("status", status=401, body={"error": {"code": "unAuthorized"}})),
    "sent elsewhere": (
        frozenset({"remote"}),
        answered("status", status=302, headers={"Location": "https://x.example/"}),
    ),
    "a page instead of an answer": (frozenset({"remote"}), answered("status", status=200)),
    "an answer cut off": (frozenset({"remote"}), answered("garbage", body=NOT_JSON, executed=True)),
    "Storage does not answer": (frozenset({"storage", "queue"}), storage_silent_before),
    "Storage does it and does not answer": (frozenset({"storage", "queue"}), storage_silent_after),
    "404 for a moment": (frozenset({"look"}), answered("status", status=404)),
    "the answer to a create is lost": (frozenset({"create"}), answered("drop_after")),
    "the process dies after a create": (frozenset({"create"}), crash_after),
    "a create is under way for a minute": (frozenset({"create"}), arrives_late(60)),
    "the answer to a write is lost": (frozenset({"write"}), answered("drop_after")),
    "the process dies after a write": (frozenset({"write"}), crash_after),
    "a message is stored twice": (frozenset({"queue"}), sent_twice),
    "several are meant": (frozenset({"remote"}), answered("status", status=300, body=["/one", "/other"])),
    "403": (frozenset({"remote"}), answered("status", status=403)),
    "an answer with NaN": (frozenset({"remote"}), answered("garbage", body=b'{"value": NaN}', executed=True)),
    "an answer in another charset": (
        frozenset({"remote"}),
        answered("garbage", body='{"value": "Straße"}'.encode("latin-1"), executed=True),
    ),
    "an answer of 10 MB": (frozenset({"remote"}), answered("garbage", body=b"[" + b" " * 10_000_000, executed=True)),
}

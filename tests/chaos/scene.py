"""Lets the people of tests/simulation act in systems that are served over HTTPS: all that they ask of their world.

Also what tests/simulation/checks.py asks of it, so that the same oracle judges both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from inspect import signature
from types import SimpleNamespace
from typing import Any

import requests

from local.demo.world import Document, Sight, World
from local.desks import DESKS
from local.simulators.base import Clock
from local.simulators.partner_center import People as InProcess
from local.stage import Stage
from shared.services import READERS, Services


class Portal:
    """Partner Center's portal: `local/simulators/partner_center/people.py`, each method as a request."""

    def __init__(self, act: Callable[..., Any]) -> None:
        self._act = act

    def __getattr__(self, action: str) -> Callable[..., Any]:
        method = getattr(InProcess, action)
        return lambda *given, **named: self._act(action, **_by_name(method, given, named))


def _by_name(method: Callable[..., Any], given: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
    arguments = signature(method).bind(None, *given, **named).arguments
    return {name: value for name, value in arguments.items() if name != "self"}


class Scene:
    """Both sides as they were when somebody last looked, and the hands to change them. `services` are the operator's.

    An act shows both sides anew; what the product does meanwhile is only seen after `look_again`.
    """

    def __init__(self, stage: Stage) -> None:
        self.world = World(stage)
        self.clock = Clock()
        self.desk = DESKS[stage.crm](self._acts(self.world.seller.act), lambda: self._sight.crm.show())
        self.people = Portal(self._acts(self.world.partner_center))
        self.services = Services(stage.settings, session=self._session(stage), readers=READERS)
        self.injected = Counter[str]()
        """No fault but death: see tests/simulation/checks.py."""
        self._seen: Sight | None = None

    @property
    def pc(self) -> SimpleNamespace:
        return SimpleNamespace(referrals={referral["id"]: referral for referral in self._sight.referrals})

    def referrals(self) -> list[Document]:
        """The partner's own."""
        return self._sight.own_referrals()

    def look_again(self) -> None:
        self._seen = None

    @property
    def _sight(self) -> Sight:
        self._seen = self._seen or self.world.look()
        return self._seen

    def _acts(self, act: Callable[..., Any]) -> Callable[..., Any]:
        def acting(action: str, **arguments: Any) -> Any:
            try:
                return act(action, **arguments)
            finally:
                self.look_again()

        return acting

    @staticmethod
    def _session(stage: Stage) -> requests.Session:
        session = requests.Session()
        session.trust_env = False  # no proxy between programs on this machine
        session.verify = stage.ca_file
        return session

"""What people do in the outside systems and see there, over HTTPS, and what the systems logged. Never asks the product,
except as an admin who looks after the webhook."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal

import requests
from azure.data.tables import TableServiceClient
from azure.storage.queue import QueueServiceClient
from requests import Response

from local.demo.traffic import PURPOSE_IN, WATCHED_TABLES, Purpose
from local.desks import DESKS, Desk
from local.desks.desk import Show
from local.stage import KEY

if TYPE_CHECKING:
    from local.stage import Stage

MICROSOFT = "msft"
ANSWER_TIMEOUT_S = 60
LOOK_EVERY_S = 0.05
REST_WITHIN_S = 120
"""Longer than a deal stays claimed by a host that was killed (shared.store.deals.CLAIM_S)."""
# One line of Azurite's access log per message that was put on the queue.
MESSAGE_STORED = re.compile(rb'"POST /\w+/sync-requests/messages[? ][^"]*" 201')

System = Literal["partner_center", "partner_center_webhooks", "crm", "other_tool"]
Side = Literal["partner_center", "crm"]
SIDES: dict[Side, str] = {"partner_center": "Partner Center", "crm": "CRM"}
Document = dict[str, Any]


class DemoError(Exception):
    """The demo could not go on; the message says at what."""


class ActRefused(DemoError, ValueError):
    """A simulated system did not let somebody do what they tried: it has rules for people as well."""


class Sight:
    """Both sides at one moment, the CRM in the words of a desk. What is not there (yet) is an empty document."""

    def __init__(self, partner_center: Document, crm: Desk) -> None:
        self.referrals: list[Document] = [
            referral for engagement in partner_center["engagements"].values() for referral in engagement
        ]
        self.crm = crm

    def opportunity(self, **values: Any) -> Document:
        return _first(self.crm.opportunities(), values)

    def lead(self, **values: Any) -> Document:
        return _first(self.crm.leads(), values)

    def account(self, account_id: str | None) -> Document:
        return _first(self.crm.accounts(), {"id": account_id})

    def contact(self, contact_id: str | None) -> Document:
        return _first(self.crm.contacts(), {"id": contact_id})

    def own_referrals(self) -> list[Document]:
        return [referral for referral in self.referrals if referral["organizationId"] != MICROSOFT]

    def referral(self, referral_id: str) -> Document:
        return _first(self.referrals, {"id": referral_id})

    def referral_of(self, record_id: str) -> Document:
        return _first(self.own_referrals(), {"externalReferenceId": record_id})

    def microsofts_copy(self, own: Document) -> Document:
        return _first(self.referrals, {"engagementId": own.get("engagementId"), "organizationId": MICROSOFT})


class World:
    """`seller` is somebody at a desk in the CRM."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.seller = self._desk(self._crm_holds)
        self.acted_at = time.monotonic()
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy between programs on this machine
        self._session.verify = stage.ca_file
        storage = stage.settings["AzureWebJobsStorage"]
        self._queue = QueueServiceClient.from_connection_string(storage).get_queue_client("sync-requests")
        self._cursors = TableServiceClient.from_connection_string(storage).get_table_client("CosellCursors")

    # ------------------------------------------------------------ acting

    def partner_center(self, action: str, **arguments: Any) -> Any:
        """Somebody acts in Partner Center's portal; local/simulators/partner_center/people.py says how."""
        return self._act("partner_center", action, arguments)

    def registers(self, **wish: Any) -> Document:
        """The admin asks the app to register the webhook; the answer with its HTTP status added."""
        self.acted_at = time.monotonic()
        answer = self._ask_host("POST", "/api/register_webhook", wish)
        return {"status": answer.status_code, **_json(answer)}

    def registration(self) -> Document:
        """The admin asks what is registered, and what happened to it."""
        shown: Document = _json(self._ask_host("GET", "/api/register_webhook"))
        return shown

    def health(self) -> Document:
        """The operator asks how the app is doing."""
        told: Document = _json(self._ask_host("GET", "/api/health"))
        return told

    def runs(self, timer: str) -> None:
        """An admin has a timer's function run now."""
        answer = self._ask_host("POST", f"/admin/functions/{timer}", {"input": ""})
        if not answer.ok:
            raise DemoError(f"{timer} could not be run: {answer.status_code} {answer.text}")

    def calls_webhook(self, recipe: str, **event: str) -> Document:
        """Somebody calls the registered address; local/simulators/partner_center/signing.py has the recipes."""
        self.acted_at = time.monotonic()
        answer: Document = self._control("POST", "partner_center_webhooks", "/_forge", {"recipe": recipe, **event})
        return answer

    def slow_down(self, system: System, method: str | None, seconds: float, times: int = 1) -> None:
        """The next answers to such a request, None: to any, come late, though its work is done at once."""
        wish = {"kind": "delay", "method": method, "seconds": seconds, "times": times}
        self._control("POST", system, "/_faults", wish)

    def speed_up(self, system: System) -> None:
        """All answers come at once again."""
        self._control("DELETE", system, "/_faults")

    def forget_what_was_read(self) -> set[str]:
        """Delete the cursors, so that poll and sweep begin from the start. Returns their names."""
        names = self.cursors()
        for name in names:
            self._cursors.delete_entity("cursor", name)
        return names

    # ------------------------------------------------------------ looking

    def look(self) -> Sight:
        partner_center, crm = self._control("GET", "partner_center", "/_state"), self._crm_holds()
        return Sight(partner_center, self._desk(lambda: crm))

    def events(self) -> list[Document]:
        """The events that Partner Center has sent, or tries to, oldest first."""
        deliveries = self._control("GET", "partner_center_webhooks", "/_state")["deliveries"]
        return [*deliveries["finished"], *deliveries["waiting"]]

    def other_tool_took(self) -> list[Document]:
        """The events that the tool which was there before us found genuine."""
        taken: list[Document] = self._control("GET", "other_tool", "/_state")["taken"]
        return taken

    def messages(self) -> int:
        """How many messages were ever put on the queue."""
        return len(MESSAGE_STORED.findall(self.stage.azurite.log_file("queue").read_bytes()))

    def cursors(self) -> set[str]:
        return {entity["RowKey"] for entity in self._cursors.list_entities()}

    def log(self, system: System) -> list[Document]:
        entries: list[Document] = self._control("GET", system, "/_log")
        return entries

    def forget_requests(self) -> None:
        for system in SIDES:
            self._control("DELETE", system, "/_log")

    def requests(self) -> Counter[str]:
        """What the product asked since `forget_requests`: reads and writes by system, idle looking around left out."""
        return Counter(
            f"{name} {purpose}"
            for side, name in SIDES.items()
            for purpose in self._purposes(side)
            if purpose in ("reads", "writes")
        )

    # ------------------------------------------------------------ waiting

    def until(self, what: str, is_so: Callable[[], Any], within_s: float) -> None:
        """Look again and again. Raises DemoError after the deadline, StageError when a program has ended."""
        deadline = time.monotonic() + within_s
        while not is_so():
            self.stage.check()
            if time.monotonic() > deadline:
                raise DemoError(f"after {within_s:g} s it still was not so: {what}")
            time.sleep(LOOK_EVERY_S)

    def rest(self, within_s: float = REST_WITHIN_S) -> None:
        """Wait until the queue is empty, all events are delivered, and polls found nothing that led to a request."""
        deadline = time.monotonic() + within_s
        calm = False
        while not calm:
            self.until("the queue is empty and all events are delivered", self._nothing_waits, within_s)
            asked = self.requests()
            self._let_polls_look()
            calm = self._nothing_waits() and self.requests() == asked
            if time.monotonic() > deadline:
                raise DemoError(f"the product is still busy after {within_s:g} s")

    def rest_after_sweep(self, within_s: float = REST_WITHIN_S) -> None:
        """Wait until nothing is left to find: after this only a change or an event makes a message."""
        enough = self._looks("partner_center") + 2  # by the second look the first sweep has ended
        for _ in range(2):
            self.runs("reconciler")
        self.until("the sweep has looked", lambda: self._looks("partner_center") >= enough, REST_WITHIN_S)
        self.rest(within_s)

    def _nothing_waits(self) -> bool:
        state = self._control("GET", "partner_center_webhooks", "/_state")
        return not state["deliveries"]["waiting"] and not self._queue.get_queue_properties().approximate_message_count

    def _let_polls_look(self) -> None:
        """Wait until a poll that began after this has ended, without waiting for the next one to be due.

        Polls follow one another: one may be under way now, the second begins from here, and by the first look of the
        third the second has sent what it found.
        """
        enough = self._looks("crm") + 2 * WATCHED_TABLES + 1
        for _ in range(3):
            self.runs("crm_poller")
        self.until("the CRM is polled", lambda: self._looks("crm") >= enough, REST_WITHIN_S)

    def _looks(self, side: Side) -> int:
        return self._purposes(side).count("looks around")

    def _purposes(self, side: Side) -> list[Purpose]:
        purpose_of = PURPOSE_IN[self.stage.crm if side == "crm" else side]
        return [purpose_of(entry) for entry in self.log(side)]

    # ------------------------------------------------------------ how

    def _desk(self, show: Show) -> Desk:
        return DESKS[self.stage.crm](self._seller_acts, show)

    def _seller_acts(self, action: str, **arguments: Any) -> Any:
        """A seller acts in the CRM; people.py of its simulator says how."""
        answer = self._act("crm", action, arguments)
        return answer and answer["result"]

    def _crm_holds(self) -> Document:
        held: Document = self._control("GET", "crm", "/_state")
        return held

    def _act(self, system: System, action: str, arguments: Mapping[str, Any]) -> Any:
        self.acted_at = time.monotonic()
        return self._control("POST", system, f"/_people/{action}", arguments)

    def _ask_host(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Response:
        url = self.stage.host_url + path
        return self._session.request(method, url, json=body, headers={"x-functions-key": KEY}, timeout=ANSWER_TIMEOUT_S)

    def _control(self, method: str, system: System, path: str, body: Mapping[str, Any] | None = None) -> Any:
        url = self.stage.urls[system] + path
        answer = self._session.request(method, url, json=body, timeout=ANSWER_TIMEOUT_S)
        if not answer.ok:
            error = ActRefused if answer.status_code < HTTPStatus.INTERNAL_SERVER_ERROR else DemoError
            raise error(f"{method} {url} was answered {answer.status_code}: {answer.text}")
        return _json(answer) if answer.content else None


def _json(answer: requests.Response) -> Any:
    try:
        return answer.json()
    except ValueError as exc:
        raise DemoError(
            f"{answer.url} was answered {answer.status_code} {answer.text[:500]!r}, which is no JSON"
        ) from exc


def _first(documents: list[Document], values: Mapping[str, Any]) -> Document:
    return next((each for each in documents if all(each.get(name) == value for name, value in values.items())), {})

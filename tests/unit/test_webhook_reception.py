"""Whatever is sent to the webhook, the trigger answers as it should and never fails; Storage is in memory."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import azure.functions as func
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from local.host.functions import index
from local.host.web import Request, Response, Site
from shared.services import Services
from shared.store.captures import Captures
from shared.store.failures import Failures
from shared.store.signs import Signs
from tests.memory_storage import MemoryQueue, MemoryTables
from tests.signing import BODY, CERTIFICATE_URL, HOST, CertificateHost, TestClock, authority, genuine, headers, root
from webhook_receiver import blueprint, bp
from webhook_receiver.callback import BODY_LIMIT_BYTES
from webhook_receiver.reception import Recent

SIGNATURE = genuine().sign(BODY)
B64 = base64.b64encode(SIGNATURE).decode()
ANSWERS = {200, 400, 401, 413, 503}
MEANINGFUL = ("authorization", "x-ms-signature", "x-ms-certificate-url", "x-ms-signature-algorithm")

# Each example goes through the whole trigger; how long one takes is not what is tested.
through_the_trigger = settings(
    max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Receiver:
    """The trigger as the host runs it."""

    def __init__(self, trusted_roots_file: str, **environ: str) -> None:
        app = func.FunctionApp()
        app.register_functions(bp)
        functions = index(app.get_functions(), {}, ".", lambda *_: None)
        self.site = Site(functions, route_prefix="api", function_key="key", run_now={})
        self.clock = TestClock()
        self.certificates = CertificateHost()
        environ = {"WEBHOOK_TRUSTED_ROOTS_FILE": trusted_roots_file, **environ}
        self.services = Services(environ, clock=self.clock, session=self.certificates.session())
        self.queue = MemoryQueue(self.clock)
        self.tables = MemoryTables()

    def with_storage(self) -> Receiver:
        index_table: Any = self.tables.table("Index")
        self.services.queue = self.queue  # type: ignore[misc]
        self.services.captures = Captures(index_table, self.clock)  # type: ignore[misc]
        self.services.failures = Failures(index_table, self.clock)  # type: ignore[misc]
        self.services.signs = Signs(index_table, self.clock)  # type: ignore[misc]
        return self

    def post(self, sent: dict[str, str], body: bytes) -> Response:
        """As the host would hand it on: names in lower case, each once."""
        by_name = {name.lower(): value for name, value in sent.items()}
        path = "/api/webhook_receiver"
        return self.site.answer(Request("POST", path, {"code": "key"}, by_name, body, f"https://localhost{path}"))

    def stored(self) -> SimpleNamespace:
        return SimpleNamespace(queued=self.queue.length(), kept=len(self.tables.table("Index").query("captured")))


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    yield from running(Receiver(trusted_roots(tmp_path_factory)).with_storage())


@pytest.fixture
def without_storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    yield from running(Receiver(trusted_roots(tmp_path_factory)))


def running(receiver: Receiver) -> Iterator[Receiver]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blueprint.services, "process_services", lambda: receiver.services)
        yield receiver


def trusted_roots(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("roots") / "trusted.pem"
    file.write_bytes(root().pem + authority().pem)
    return str(file)


def assert_says_nothing(answer: Response) -> None:
    assert answer.status in ANSWERS
    assert answer.body == b""
    names = {name.lower() for name, _ in answer.headers}
    retry = {"retry-after"} if answer.status == 503 else set()
    assert names - {"content-type"} == {"x-cosell-correlation-id"} | retry


# The host hands on what HTTP allows in a header as latin-1, but the trigger need not count on that.
long_text = st.builds(lambda text, times: text * times, st.text(min_size=1, max_size=3), st.integers(1, 30_000))
any_text = st.text() | st.text(st.characters(min_codepoint=0, max_codepoint=31)) | long_text
header_values = any_text | st.sampled_from(
    [f"Signature {B64}", B64, "Bearer x", "rsa-sha256", "rsa-sha1", CERTIFICATE_URL, f"https://{HOST}/cert/x.cer", ","]
)
# The function key comes in the address; the header of that name would win over it.
other_names = st.text(max_size=50).filter(lambda name: name.lower() not in (*MEANINGFUL, "x-functions-key"))
header_names = st.sampled_from([*MEANINGFUL, *(name.title() for name in MEANINGFUL), "content-type"]) | other_names
urls = st.builds(
    lambda host, name: f"https://{host}/cert/{name}.cer", st.sampled_from([HOST, "evil.example"]), st.text()
)
sent_headers = st.dictionaries(header_names, header_values, max_size=8) | st.builds(
    lambda more, url: {**headers(SIGNATURE), "x-ms-certificate-url": url, **more},
    st.dictionaries(header_names, header_values, max_size=3),
    header_values | urls,
)
other_headers = st.dictionaries(
    other_names | st.sampled_from(["x-cosell-relayed", "content-type"]), any_text, max_size=5
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
events = st.fixed_dictionaries(
    {},
    optional={
        "EventName": st.sampled_from(["referral-created", "related-referral-updated", "test-created", ""])
        | st.text(st.characters(exclude_categories=()))  # halves of surrogate pairs among them
        | json_values,
        "ResourceUri": st.from_regex(r"https?://[\w.\[\]:@]*/referrals/[0-9a-fA-F-]{30,40}/?") | json_values,
        "ResourceChangeUtcDate": st.datetimes().map(str) | json_values,
    },
)
bodies = st.binary(max_size=2_000) | (events | json_values).map(lambda value: json.dumps(value).encode())


@through_the_trigger
@given(sent=sent_headers, body=bodies | st.just(BODY + b" ") | st.just(b" " * (BODY_LIMIT_BYTES + 1)))
def test_what_nobody_signed_is_never_taken(receiver: Receiver, sent: dict[str, str], body: bytes) -> None:
    before = receiver.stored()
    receiver.clock.advance(seconds=10)

    answer = receiver.post(sent, body)

    assert_says_nothing(answer)
    assert answer.status != 200
    assert receiver.stored() == before


def altered(body: bytes) -> st.SearchStrategy[bytes]:
    position = st.integers(0, len(body) - 1)
    flipped = st.builds(
        lambda at, bits: body[:at] + bytes([body[at] ^ bits]) + body[at + 1 :], position, st.integers(1, 255)
    )
    cut = position.map(lambda at: body[:at])
    longer = st.builds(lambda at, more: body[:at] + more + body[at:], position, st.binary(min_size=1, max_size=9))
    shorter = position.map(lambda at: body[:at] + body[at + 1 :])
    return flipped | cut | longer | shorter


@through_the_trigger
@given(changed=altered(BODY), more=other_headers)
def test_a_changed_body_is_never_taken(receiver: Receiver, changed: bytes, more: dict[str, str]) -> None:
    before = receiver.stored()

    answer = receiver.post({**more, **headers(SIGNATURE)}, changed)

    assert_says_nothing(answer)
    assert answer.status == (401 if changed else 400)
    assert receiver.stored() == before


@through_the_trigger
@given(changed=altered(SIGNATURE) | altered(B64.encode()).map(lambda text: text.decode("latin-1")), place=st.booleans())
@example(changed=B64[:-1] + "\n", place=False)
def test_a_changed_signature_is_never_taken(receiver: Receiver, changed: bytes | str, place: bool) -> None:
    before = receiver.stored()
    sent = headers(changed)
    if place:
        sent["x-ms-signature"] = sent.pop("authorization")

    answer = receiver.post(sent, BODY)

    assert_says_nothing(answer)
    assert answer.status == 401
    assert receiver.stored() == before


@through_the_trigger
@given(body=bodies.filter(bool), more=other_headers)
@example(body=b"\xff" * BODY_LIMIT_BYTES, more={})
@example(body=b"\x00" * BODY_LIMIT_BYTES, more={})
@example(body=b'{"EventName":"\\ud800"}', more={})
@example(body=json.dumps({"EventName": "x" * 60_000}).encode(), more={})
@example(body=b'{"EventName":"referral-updated"}', more={"x-long": "\u00e9" * 32_000, "x-\ud800": "\udfff"})
@example(body=BODY, more={"traceparent": "\x00", "host": "", "cookie": "a,b"})
def test_a_genuine_call_is_always_taken(receiver: Receiver, body: bytes, more: dict[str, str]) -> None:
    before = receiver.stored()

    answer = receiver.post({**more, **headers(genuine().sign(body))}, body)

    assert_says_nothing(answer)
    assert answer.status == 200
    after = receiver.stored()
    assert after.queued + after.kept <= before.queued + before.kept + 1


@pytest.mark.parametrize("sent", [headers(SIGNATURE, authorization=None), headers(bytes(256))])
def test_without_the_settings_of_storage_a_forged_call_is_refused_all_the_same(
    without_storage: Receiver, sent: dict[str, str]
) -> None:
    answer = without_storage.post(sent, BODY)

    assert_says_nothing(answer)
    assert answer.status == 401


def test_without_the_settings_of_storage_a_genuine_call_shall_come_again(without_storage: Receiver) -> None:
    answer = without_storage.post(headers(SIGNATURE), BODY)

    assert_says_nothing(answer)
    assert answer.status == 503


def test_of_the_headers_of_a_kept_call_none_opens_a_door_and_not_too_many_are_kept(receiver: Receiver) -> None:
    body = b"nobody can read this"
    more = {"X-Functions-Key": "key", "Cookie": "secret", "x-gateway": "Bearer secret", "x-long": "a" * 60_000}

    answer = receiver.post({**more, "user-agent": "Partner Center", **headers(genuine().sign(body))}, body)

    assert answer.status == 200
    (kept,) = [each for each in receiver.services.captures.list() if each.body == body.decode()]
    masked = dict.fromkeys(("x-functions-key", "cookie", "x-gateway", "x-long"), "***")
    assert kept.headers == {**masked, "user-agent": "Partner Center", **headers(genuine().sign(body))}


def test_only_so_many_calls_are_remembered() -> None:
    recent = Recent(2)

    for key in ("a", "b", "c"):
        recent.add(key)

    assert [key in recent for key in ("a", "b", "c")] == [False, True, True]

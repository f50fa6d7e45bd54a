"""What makes a call genuine, and what is read from it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from functools import cache

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.settings import WebhookSettings, load
from tests.signing import (
    BODY,
    CERTIFICATE_URL,
    HOST,
    CertificateHost,
    TestClock,
    authority,
    genuine,
    headers,
    leaf,
    root,
    rsa_key,
)
from webhook_receiver.callback import (
    BODY_LIMIT_BYTES,
    Notification,
    RejectedCallback,
    Verifier,
    certificate_url,
    verify,
)
from webhook_receiver.certificates import webhook_verifier

REFERRAL_ID = "c5fbb3b6-be74-4795-9fb5-4324c73fed37"
SIGNATURE = genuine().sign(BODY)
B64 = base64.b64encode(SIGNATURE).decode()


class Receiver:
    """The verifier as the app builds it, over a certificate host that counts."""

    def __init__(self, verifier: Verifier, host: CertificateHost) -> None:
        self.verify = verifier
        self.host = host

    def signed(self, body: bytes, **different: str | None) -> Notification:
        return self.verify(headers(genuine().sign(body), **different), body)

    def says(self, **fields: object) -> Notification:
        return self.signed(json.dumps(fields).encode())

    def refusal(self, sent: Mapping[str, str], body: bytes = BODY) -> RejectedCallback:
        with pytest.raises(RejectedCallback) as caught:
            self.verify(sent, body)
        return caught.value


@pytest.fixture(scope="module")
def one_receiver(tmp_path_factory: pytest.TempPathFactory) -> Receiver:
    return new_receiver(tmp_path_factory)


@pytest.fixture
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Receiver:
    return new_receiver(tmp_path_factory)


def new_receiver(tmp_path_factory: pytest.TempPathFactory) -> Receiver:
    file = tmp_path_factory.mktemp("roots") / "trusted.pem"
    file.write_bytes(root().pem + authority().pem)
    host = CertificateHost()
    given_settings = load(WebhookSettings, {"WEBHOOK_TRUSTED_ROOTS_FILE": str(file)})
    return Receiver(webhook_verifier(given_settings, session=host.session(), now=TestClock()), host)


# Genuine calls


def test_a_genuine_call_names_its_referral(receiver: Receiver) -> None:
    notification = receiver.verify(headers(SIGNATURE), BODY)

    assert notification == Notification("referral-updated", REFERRAL_ID, "2026-02-17T00:05:39.5485487+00:00")


@pytest.mark.parametrize(
    "sent",
    [
        {"authorization": f"Signature {B64}"},
        {"authorization": f"SIGNATURE {B64}"},
        {"authorization": f"signature {B64}"},
        {"authorization": B64},
        {"authorization": None, "x_ms_signature": f"Signature {B64}"},
        {"authorization": None, "x_ms_signature": B64},
        {"authorization": "Bearer x", "x_ms_signature": f"Signature {B64}"},
        {"authorization": f"Signature {base64.b64encode(bytes(256)).decode()}", "x_ms_signature": f"Signature {B64}"},
        {"authorization": f"Signature {B64}", "x_ms_signature": base64.b64encode(bytes(256)).decode()},
        {"x_ms_signature_algorithm": "RSA-SHA256"},
    ],
)
def test_the_signature_is_found_where_it_is(receiver: Receiver, sent: dict[str, str | None]) -> None:
    assert receiver.verify(headers(SIGNATURE, **sent), BODY).referral_id == REFERRAL_ID


def test_header_names_compare_without_case(receiver: Receiver) -> None:
    sent = {name.upper(): value for name, value in headers(SIGNATURE).items()}

    assert receiver.verify(sent, BODY).referral_id == REFERRAL_ID


# Forged ones: refused with 401, and before any download where the headers show it

# The last of these letters carries two bits only; the next one in the alphabet decodes to the same byte.
BITS_BEHIND_THE_END = {"A": "B", "Q": "R", "g": "h", "w": "x"}
BEFORE_ANY_DOWNLOAD = {
    "no signature at all": {"authorization": None},
    "another scheme": {"authorization": "Bearer x"},
    "scheme without signature": {"authorization": "Signature"},
    "two spaces": {"authorization": f"Signature  {B64}"},
    "line break in base64": {"authorization": f"Signature {B64[:76]}\n{B64[76:]}"},
    "base64 with a foreign character": {"authorization": f"Signature {B64[:-4]}*==="},
    "base64 of the wrong length": {"authorization": f"Signature {base64.b64encode(bytes(255)).decode()}"},
    "base64 for web addresses": {"authorization": "Signature " + "-_" * 171 + "=="},
    "base64 with bits behind its end": {"authorization": f"Signature {B64[:-3]}{BITS_BEHIND_THE_END[B64[-3]]}=="},
    "signature sent twice": {"authorization": f"Signature {B64},Signature {B64}"},
    "signature header sent twice": {"x_ms_signature": f"{B64},{B64}"},
    "no algorithm": {"x_ms_signature_algorithm": None},
    "empty algorithm": {"x_ms_signature_algorithm": ""},
    "algorithm sent twice": {"x_ms_signature_algorithm": "rsa-sha256,rsa-sha256"},
    "sha1": {"x_ms_signature_algorithm": "rsa-sha1"},
    "sha384": {"x_ms_signature_algorithm": "rsa-sha384"},
    "sha512": {"x_ms_signature_algorithm": "rsa-sha512"},
    "no algorithm by name": {"x_ms_signature_algorithm": "none"},
    "no certificate address": {"x_ms_certificate_url": None},
    "certificate address sent twice": {"x_ms_certificate_url": f"{CERTIFICATE_URL},{CERTIFICATE_URL}"},
}


@pytest.mark.parametrize("how", BEFORE_ANY_DOWNLOAD)
def test_a_call_is_refused_before_any_download(receiver: Receiver, how: str) -> None:
    refusal = receiver.refusal(headers(SIGNATURE, **BEFORE_ANY_DOWNLOAD[how]))

    assert refusal.status == 401
    assert receiver.host.asked == []


def test_a_header_sent_twice_in_different_case_is_refused(receiver: Receiver) -> None:
    sent = {**headers(SIGNATURE), "Authorization": f"Signature {B64}"}

    assert receiver.refusal(sent).status == 401


@pytest.mark.parametrize(
    "url",
    [
        f"http://{HOST}/cert/a.cer",
        "https://evil.test/cert/a.cer",
        f"https://{HOST}.evil.test/cert/a.cer",
        f"https://evil-{HOST}/cert/a.cer",
        f"https://evil.{HOST}/cert/a.cer",
        f"https://{HOST}@evil.test/cert/a.cer",
        f"https://user:pass@{HOST}/cert/a.cer",
        f"https://{HOST}:8443/cert/a.cer",
        f"https://{HOST}:0443/cert/a.cer",
        f"https://{HOST}/other/a.cer",
        f"https://{HOST}/cert/../other/a.cer",
        f"https://{HOST}/cert/%2e%2e/a.cer",
        f"https://{HOST}/cert/a/b.cer",
        f"https://{HOST}/cert/.cer/",
        f"https://{HOST}/cert/a.pem",
        f"https://{HOST}/cert/a.cer?x=1",
        f"https://{HOST}/cert/a.cer#x",
        f"https://{HOST}\\@evil.test/cert/a.cer",
        f"https://{HOST}/cert/a.cer\n",
        f" https://{HOST}/cert/a.cer",
        f"//{HOST}/cert/a.cer",
        "file:///cert/a.cer",
        "https://169.254.169.254/cert/a.cer",
        "https://[::1]/cert/a.cer",
        f"https://{HOST.replace('o', 'о')}/cert/a.cer",  # a Cyrillic letter
        f"https://{HOST}..",
        f"https://{HOST}/cert/{'a' * 60_000}.cer",
        f"https://{'a' * 60_000}/cert/a.cer",
        "https://",
    ],
)
def test_a_certificate_is_fetched_from_no_other_address(receiver: Receiver, url: str) -> None:
    refusal = receiver.refusal(headers(SIGNATURE, x_ms_certificate_url=url))

    assert refusal.status == 401
    assert len(refusal.reason) < 500  # it is logged and stored: the caller must not decide how much
    assert receiver.host.asked == []


@pytest.mark.parametrize(
    ("url", "allowed", "fetched"),
    [
        (f"https://{HOST.upper()}/cert/a.cer", HOST, f"https://{HOST}/cert/a.cer"),
        (f"https://{HOST}./cert/a.cer", HOST, f"https://{HOST}/cert/a.cer"),
        (f"https://{HOST}:443/cert/a.cer", HOST, f"https://{HOST}/cert/a.cer"),
        (f"https://{HOST}/cert/a.cer", f"{HOST}:443", f"https://{HOST}/cert/a.cer"),
        ("https://localhost:8443/cert/a.cer", "LOCALHOST:8443", "https://localhost:8443/cert/a.cer"),
    ],
)
def test_one_address_has_one_spelling(url: str, allowed: str, fetched: str) -> None:
    assert certificate_url(url, [allowed]) == fetched


def test_a_badly_written_allowed_host_allows_nothing() -> None:
    with pytest.raises(RejectedCallback):
        certificate_url("https://localhost:8443/cert/a.cer", ["localhost:https", "https://localhost:8443", ""])


FORGED = {
    "one byte of the body flipped": (SIGNATURE, BODY.replace(b"updated", b"updatec")),
    "body indented anew": (SIGNATURE, json.dumps(json.loads(BODY), indent=2).encode()),
    "a byte order mark put before": (SIGNATURE, b"\xef\xbb\xbf" + BODY),
    "one byte of the signature flipped": (bytes([SIGNATURE[0] ^ 1]) + SIGNATURE[1:], BODY),
    "signed by another key": (leaf(key=rsa_key("another")).sign(BODY), BODY),
    "signed over SHA-1": (genuine().sign(BODY, hashes.SHA1()), BODY),
    "signed over SHA-384": (genuine().sign(BODY, hashes.SHA384()), BODY),
    "signed over SHA-512": (genuine().sign(BODY, hashes.SHA512()), BODY),
    "signed with PSS": (genuine().sign(BODY, pad=padding.PSS(padding.MGF1(hashes.SHA256()), 32)), BODY),
    "all zero": (bytes(256), BODY),
    "of another length": (bytes(512), BODY),
}


@pytest.mark.parametrize("how", FORGED)
def test_a_forged_call_is_refused(receiver: Receiver, how: str) -> None:
    signature, body = FORGED[how]

    refusal = receiver.refusal(headers(signature), body)

    assert refusal.status == 401
    assert receiver.host.asked == [CERTIFICATE_URL]


def test_forged_calls_cost_one_download_together(receiver: Receiver) -> None:
    for number in range(100):
        assert receiver.refusal(headers(SIGNATURE), BODY + str(number).encode()).status == 401

    assert receiver.host.asked == [CERTIFICATE_URL]


# The body


def test_a_body_over_the_limit_is_refused_unread(receiver: Receiver) -> None:
    body = b" " * (BODY_LIMIT_BYTES + 1)

    refusal = receiver.refusal(headers(genuine().sign(body)), body)

    assert refusal.status == 413
    assert receiver.host.asked == []


def test_a_body_of_the_limit_is_read(receiver: Receiver) -> None:
    assert receiver.signed(BODY.ljust(BODY_LIMIT_BYTES)).referral_id == REFERRAL_ID


def test_an_empty_body_is_refused(receiver: Receiver) -> None:
    assert receiver.refusal(headers(genuine().sign(b"")), b"").status == 400


@pytest.mark.parametrize(
    "body",
    [
        b"not JSON",
        b"[]",
        b"null",
        b'"referral-updated"',
        b"{}",
        b'{"EventName":null}',
        b'{"EventName":""}',
        b'{"EventName":7}',
        b'{"EventName":["referral-updated"]}',
        b'{"EventName":"referral-updated","EventName":"test-created"}',
        b'{"EventName":"referral-updated","eventName":"referral-updated"}',
        b'{"EventName":"referral-updated","More":{"a":1,"A":2}}',
        b'{"EventName":"\xff"}',
        b"\xef\xbb\xbf" + BODY,
        BODY.decode().encode("utf-16"),
        b"[" * 60_000,
        b'{"EventName":' + b"9" * 60_000 + b"}",
    ],
    ids=lambda body: repr(body[:40]),
)
def test_a_genuine_call_that_cannot_be_read_is_a_problem_in_words_and_no_refusal(
    receiver: Receiver, body: bytes
) -> None:
    notification = receiver.signed(body)

    assert notification.problem
    assert notification.referral_id is None
    assert not notification.concerns_a_referral


@pytest.mark.parametrize(
    "uri",
    [
        f"https://api.partnercenter.microsoft.com/engagements/v1/referrals/{REFERRAL_ID}",
        f"https://api.partner.microsoft.com/v1.0/engagements/referrals/{REFERRAL_ID}",
        f"http://api.partner.microsoft.com/v1.0/engagements/referrals/{REFERRAL_ID}/",
        f"https://somewhere.else.example.com/Referrals/{REFERRAL_ID.upper()}",
        f"https://api.partner.microsoft.com/v1.0/engagements/referrals/{REFERRAL_ID}?next=/referrals/other#x",
    ],
)
def test_the_referral_id_is_the_end_of_the_path(receiver: Receiver, uri: str) -> None:
    assert receiver.says(EventName="referral-created", ResourceUri=uri).referral_id == REFERRAL_ID


@pytest.mark.parametrize(
    "uri",
    [
        None,
        7,
        "",
        "http://[",
        REFERRAL_ID,
        f"/referrals/{REFERRAL_ID}",
        f"ftp://api.partner.microsoft.com/referrals/{REFERRAL_ID}",
        f"https://api.partner.microsoft.com/customers/{REFERRAL_ID}",
        f"https://api.partner.microsoft.com/referrals/{REFERRAL_ID}/notes",
        f"https://api.partner.microsoft.com/?x=/referrals/{REFERRAL_ID}",
        f"https://api.partner.microsoft.com/referrals/{REFERRAL_ID[:-1]}",
        f"https://api.partner.microsoft.com/referrals/{REFERRAL_ID}0",
        f"https://api.partner.microsoft.com/referrals/{REFERRAL_ID}//",
    ],
)
def test_anything_else_names_no_referral(receiver: Receiver, uri: object) -> None:
    notification = receiver.says(EventName="referral-created", ResourceUri=uri)

    assert notification.concerns_a_referral
    assert notification.referral_id is None
    assert notification.problem == "its ResourceUri does not end in /referrals/<id>"


def test_keys_compare_without_case_and_unknown_ones_are_ignored(receiver: Receiver) -> None:
    uri = f"https://api.partner.microsoft.com/v1.0/engagements/referrals/{REFERRAL_ID}"

    notification = receiver.says(eventName="Referral-Created", resourceuri=uri, PARTNERID="p", More={"deep": [1]})

    assert notification == Notification("Referral-Created", REFERRAL_ID)
    assert notification.concerns_a_referral


@pytest.mark.parametrize("sent", [7, "", "yesterday", "2026-02-17", "9" * 5000, "2026-02-17T00:05:39" + "0" * 500])
def test_a_time_that_is_none_means_look_in_any_case(receiver: Receiver, sent: object) -> None:
    uri = f"https://api.partner.microsoft.com/v1.0/engagements/referrals/{REFERRAL_ID}"

    notification = receiver.says(EventName="referral-updated", ResourceUri=uri, ResourceChangeUtcDate=sent)

    assert notification == Notification("referral-updated", REFERRAL_ID)


@pytest.mark.parametrize(
    "event", ["referral-created", "referral-updated", "related-referral-created", "related-referral-updated"]
)
def test_a_referral_event_is_one_to_act_on(receiver: Receiver, event: str) -> None:
    notification = receiver.signed(BODY.replace(b"referral-updated", event.encode()))

    assert notification == Notification(event, REFERRAL_ID, "2026-02-17T00:05:39.5485487+00:00")
    assert notification.concerns_a_referral


@pytest.mark.parametrize("event", ["test-created", "subscription-updated", "something-new"])
def test_any_other_event_is_nobodys_problem(receiver: Receiver, event: str) -> None:
    notification = receiver.signed(BODY.replace(b"referral-updated", event.encode()))

    assert not notification.concerns_a_referral
    assert not notification.problem


# Whatever is sent, the answer is a refusal in our own words


class NoCertificates:
    """Nothing random gets as far as a certificate."""

    def signed(self, url: str, signatures: Sequence[bytes], body: bytes) -> bool:
        raise AssertionError(f"asked for {url}")


class AllSigned:
    def signed(self, url: str, signatures: Sequence[bytes], body: bytes) -> bool:
        return True


@cache
def default_settings() -> WebhookSettings:
    return load(WebhookSettings, {})


header_names = st.sampled_from(["authorization", "x-ms-signature", "x-ms-certificate-url", "x-ms-signature-algorithm"])
header_values = st.text() | st.sampled_from(
    [f"Signature {B64}", B64, "rsa-sha256", f"https://{HOST}/cert/", "https://[", "Signature", ","]
)


@given(sent=st.dictionaries(header_names | st.text(), header_values), body=st.binary())
def test_no_headers_lead_to_another_exception_than_a_refusal(sent: dict[str, str], body: bytes) -> None:
    with pytest.raises(RejectedCallback):
        verify(sent, body, NoCertificates(), default_settings())


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
event_like = st.fixed_dictionaries(
    {},
    optional={
        "EventName": st.sampled_from(["referral-created", "test-created", ""]) | anything,
        "ResourceUri": st.from_regex(r"https?://[\w.\[\]:@]*/referrals/[0-9a-fA-F-]{30,40}/?") | anything,
        "ResourceChangeUtcDate": st.datetimes().map(str) | anything,
    },
)


@settings(max_examples=300)
@given(body=st.binary(min_size=1) | (event_like | anything).map(lambda value: json.dumps(value).encode()))
def test_no_signed_body_leads_to_an_exception(body: bytes) -> None:
    notification = verify(headers(SIGNATURE), body, AllSigned(), default_settings())

    assert not (notification.problem and notification.referral_id)
    # What goes into the message; what Partner Center sends must not decide how much of the queue is used.
    assert len((notification.referral_id or "") + (notification.version or "")) < 100
    if notification.concerns_a_referral:
        assert notification.referral_id or notification.problem


@settings(max_examples=50, deadline=None)
@given(position=st.integers(min_value=0, max_value=len(BODY) - 1), flipped=st.integers(min_value=1, max_value=255))
def test_no_changed_byte_goes_unnoticed(one_receiver: Receiver, position: int, flipped: int) -> None:
    body = BODY[:position] + bytes([BODY[position] ^ flipped]) + BODY[position + 1 :]

    assert one_receiver.refusal(headers(SIGNATURE), body).status == 401

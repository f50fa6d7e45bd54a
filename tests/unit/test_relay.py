"""What is passed on of a genuine call: every byte of the body, and the headers that mean something to a listener."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.relay import MARK, RelayRequest, listener_id, passed_on

RECEIVED = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)
GENUINE = {
    "Content-Type": "application/json",
    "Authorization": "Signature c2lnbmF0dXJl",
    "X-MS-Certificate-Url": "https://3psostorageacct.blob.core.windows.net/cert/a.cer",
    "x-ms-signature-algorithm": "rsa-sha256",
    "MS-CorrelationId": "4711",
    "User-Agent": "Partner Center",
}


def test_the_senders_headers_are_passed_on_in_lower_case_and_marked() -> None:
    assert passed_on(GENUINE) == {
        "content-type": "application/json",
        "authorization": "Signature c2lnbmF0dXJl",
        "x-ms-certificate-url": "https://3psostorageacct.blob.core.windows.net/cert/a.cer",
        "x-ms-signature-algorithm": "rsa-sha256",
        "ms-correlationid": "4711",
        "user-agent": "Partner Center",
        MARK: "1",
    }


@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "Content-Length",
        "Transfer-Encoding",
        "Cookie",
        "X-Functions-Key",
        "X-Forwarded-For",
        "X-ARR-ClientCert",
        "X-MS-CLIENT-PRINCIPAL",
        "X-MS-CLIENT-PRINCIPAL-NAME",
        "X-MS-TOKEN-AAD-ACCESS-TOKEN",
        "X-MS-AUTH-TOKEN",
        "x-ms-original-url",
        "Ocp-Apim-Subscription-Key",
        "traceparent",
    ],
)
def test_what_a_front_end_added_or_was_meant_for_us_is_not_passed_on(name: str) -> None:
    assert passed_on({name: "canary"}) == {MARK: "1"}


@pytest.mark.parametrize("value", ["Bearer canary", "Basic Y2FuYXJ5", "SharedAccessSignature canary", ""])
def test_a_token_of_a_gateway_is_not_passed_on(value: str) -> None:
    assert passed_on({"authorization": value}) == {MARK: "1"}


@pytest.mark.parametrize("value", ["Signature abc", "signature abc", "SIGNATURE abc"])
def test_a_signature_is_passed_on_as_it_came(value: str) -> None:
    assert passed_on({"Authorization": value})["authorization"] == value


def test_the_mark_of_an_earlier_hop_is_there_once() -> None:
    assert passed_on({"X-Cosell-Relayed": "7"}) == {MARK: "1"}


@given(body=st.binary(max_size=2_000), value=st.text(st.characters(codec="utf-8"), max_size=50))
def test_a_message_brings_back_every_byte(body: bytes, value: str) -> None:
    request = RelayRequest.of(body, {"content-type": value}, RECEIVED, "c-1")

    read = RelayRequest.model_validate_json(request.encode())

    assert read == request
    assert read.raw_body == body
    assert read.headers["content-type"] == value


def test_bytes_that_are_no_text_come_back_as_they_were() -> None:
    body = b'{"ResourceName":"\xff\xfe\x00 caf\xe9","EventName":"' + "Größe ✓".encode() + b'"}\r\n'

    assert RelayRequest.model_validate_json(RelayRequest.of(body, GENUINE, RECEIVED, "c-1").encode()).raw_body == body


def test_a_message_for_all_names_no_listener_and_counts_no_attempt() -> None:
    message = json.loads(RelayRequest.of(b"{}", {}, RECEIVED, "c-1").encode())

    assert "listener" not in message
    assert (message["attempts"], message["received_utc"]) == (0, "2026-11-02T09:00:00Z")


def test_a_field_of_a_later_version_is_ignored() -> None:
    message = json.loads(RelayRequest.of(b"{}", {}, RECEIVED, "c-1").encode()) | {"priority": 1}

    assert RelayRequest.model_validate_json(json.dumps(message)).raw_body == b"{}"


def test_the_id_of_a_listener_tells_its_host_and_no_key() -> None:
    name = listener_id("https://connector.example:8443/hook?code=canary")

    assert name.startswith("connector.example-")
    assert "canary" not in name
    assert not set(name) & set("/\\#?")


def test_a_listener_is_the_same_with_another_key() -> None:
    assert listener_id("https://a.example/x?code=1") == listener_id("https://A.example/x/?code=2")


def test_two_listeners_on_one_host_have_ids_of_their_own() -> None:
    urls = ["https://a.example/x", "https://a.example/y", "https://a.example:8443/x"]

    assert len({listener_id(url) for url in urls}) == len(urls)

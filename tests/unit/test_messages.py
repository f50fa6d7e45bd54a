"""The message on the queue: it names a deal, survives the queue, and tolerates newer senders."""

from __future__ import annotations

import json
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.messages import Cause, SyncRequest
from shared.model import RecordRef

IDS = st.one_of(st.none(), st.uuids().map(str))
TEXTS = st.one_of(st.none(), st.text(max_size=30))


@given(
    cause=st.sampled_from(get_args(Cause)),
    referral_id=st.uuids().map(str),
    record_table=st.sampled_from([None, "opportunity", "lead"]),
    record_id=IDS,
    version=TEXTS,
    deleted=st.booleans(),
    event=TEXTS,
    deferrals=st.integers(0, 100),
)
def test_a_message_survives_the_queue(**parts: object) -> None:
    request = SyncRequest.model_validate(parts)

    assert SyncRequest.model_validate_json(request.encode().encode()) == request


def test_a_message_holds_nothing_it_does_not_need() -> None:
    request = SyncRequest(cause="webhook", referral_id="4111fffc", correlation_id="c-1")

    assert json.loads(request.encode()) == {
        "schema_version": 1,
        "cause": "webhook",
        "referral_id": "4111fffc",
        "deleted": False,
        "correlation_id": "c-1",
        "deferrals": 0,
    }


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"referral_id": ""},
        {"record_table": "opportunity"},
        {"record_id": "7c1d7d0e"},
        {"record_table": "", "record_id": "7c1d7d0e"},
    ],
)
def test_a_message_that_names_no_deal_is_refused(parts: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="names a referral_id, or a record_table and a record_id"):
        SyncRequest.model_validate({"cause": "operator", **parts})


@pytest.mark.parametrize("wrong", [{"cause": "telepathy"}, {"schema_version": 2}, {"deferrals": "many"}])
def test_a_message_that_cannot_be_understood_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SyncRequest.model_validate({"cause": "poll", "referral_id": "4111fffc", **wrong})


def test_what_a_newer_sender_adds_is_ignored() -> None:
    request = SyncRequest.model_validate_json('{"cause": "sweep", "referral_id": "4111fffc", "colour": "blue"}')

    assert request.referral_id == "4111fffc"


def test_the_record_is_named_when_both_parts_are_there() -> None:
    assert SyncRequest(cause="poll", record_table="lead", record_id="1").record == RecordRef("lead", "1")
    assert SyncRequest(cause="poll", referral_id="2", record_table="lead").record is None


def test_each_message_can_be_followed_by_an_id_of_its_own() -> None:
    one, other = (SyncRequest(cause="poll", referral_id="4111fffc") for _ in range(2))

    assert one.correlation_id != other.correlation_id


def test_putting_a_message_back_counts_and_changes_nothing_else() -> None:
    request = SyncRequest(cause="poll", referral_id="4111fffc", version="1")

    back = request.deferred().deferred()

    assert back.deferrals == 2
    assert back.model_copy(update={"deferrals": 0}) == request

"""Dead letters: an envelope that says why, and the same bytes back in the topic they came from."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtools.attributes import TOMBSTONE, Attributes
from qtools.errors import MessageRefused, NameInvalid, RouteFailed
from qtools.formats.envelope import decode_envelope
from qtools.message import Message
from qtools.routing.dead_letter import Redrive, dead_letter_topic, encode_dead_letter
from tests.routing.batches import batch


def letter(body: bytes, topic: str = "events") -> bytes:
    message = Message(1_700_000_000_000_000_000, 3, b"0123456789abcdef", body)
    return encode_dead_letter(message, topic, "archive", "10.0.0.1:4150", RouteFailed("it is not JSON", "all"))


def test_golden() -> None:
    assert letter(b"not json") == (
        b'{"topic":"events","channel":"archive","id":"0123456789abcdef","timestamp":1700000000000000000,"attempts":3,'
        b'"source":"10.0.0.1:4150","reason":"it is not JSON","route":"all","body":"not json"}'
    )
    told = json.loads(letter(b"\xff"))
    assert (told["body_base64"], "body" in told) == ("/w==", False)


def test_any_error_is_a_reason() -> None:
    message = Message(0, 1, b"", b"x")
    told = json.loads(encode_dead_letter(message, "t", "c", "", MessageRefused("it is too big")))
    assert (told["reason"], told["route"]) == ("it is too big", "")


@given(st.binary(min_size=1))
def test_every_body_comes_back(body: bytes) -> None:
    assert decode_envelope(letter(body)) == body
    plan = Redrive().plan(batch([letter(body)]))
    assert plan.groups == [("events", [body])]
    assert plan.failed == {}


Header = st.tuples(st.text(st.characters(codec="utf-8")), st.none() | st.binary())


@given(st.none() | st.binary(), st.lists(Header, unique_by=lambda header: header[0]), st.booleans())
def test_key_headers_and_a_tombstone_come_back(
    key: bytes | None, headers: list[tuple[str, bytes | None]], has_body: bool
) -> None:
    message = Message(0, 1, b"", b"x" if has_body else TOMBSTONE)
    text = encode_dead_letter(message, "events", "c", "", RouteFailed("why"), key=key, headers=headers)
    plan = Redrive().plan(batch([b"no letter", text]))
    assert plan.attributes == Attributes([None, key], [(), headers])
    ((_, (body,)),) = plan.groups
    assert (body is TOMBSTONE) is not has_body


def test_headers_of_one_name_keep_their_order() -> None:
    headers = [("a", b"1"), ("b", b"\xff"), ("a", None), ("a", b"1")]
    text = encode_dead_letter(Message(0, 1, b"", b"x"), "t", "c", "", RouteFailed("why"), headers=headers)
    attributes = Redrive().plan(batch([text])).attributes
    assert attributes is not None
    assert attributes.headers == [[("a", b"1"), ("a", None), ("a", b"1"), ("b", b"\xff")]]


def test_letters_go_back_each_to_its_own_topic_in_order() -> None:
    letters = [letter(b"%d" % nth, f"t{nth % 2}") for nth in range(5)]
    plan = Redrive().plan(batch([*letters, b"x", b"y"]), {6})
    assert plan.groups == [("t0", [b"0", b"2", b"4"]), ("t1", [b"1", b"3"])]
    assert plan.places == [[0, 2, 4], [1, 3]]
    assert list(plan.failed) == [5]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"x", "it is not a dead letter: it is not JSON"),
        (b"[]", "is not a JSON object"),
        (b'{"topic":"a"}', 'neither a "body" nor a "body_base64"'),
        (b'{"body":"a"}', 'has no "topic"'),
        (b'{"body":"a","topic":7}', 'has no "topic"'),
        (b'{"body":"a","topic":"a b"}', "topic name 'a b' has ' '"),
        (b'{"body":"a","topic":"t","key":7}', 'has a "key" that is not a string'),
        (b'{"body":"a","topic":"t","key_base64":7}', "has a key_base64 that is not a string"),
        (b'{"body":"a","topic":"t","key_base64":"?"}', "has a key_base64 that is not base64"),
        (b'{"body":"a","topic":"t","headers":[]}', 'has "headers" that are not an object'),
        (b'{"body":"a","topic":"t","headers":{"h":7}}', "has a header 'h' that is neither a string nor base64"),
        (b'{"body":"a","topic":"t","headers":{"h":[{"base64":"?"}]}}', "has a header 'h' that is not base64"),
        (letter(b"x", "events.dead"), "came from events.dead, which is read here"),
    ],
)
def test_what_is_no_letter_is_named(body: bytes, why: str) -> None:
    plan = Redrive({"events.dead"}).plan(batch([body]))
    assert why in str(plan.failed[0])
    assert plan.groups == []


def test_the_topic_of_dead_letters() -> None:
    assert dead_letter_topic("events") == "events.dead"
    assert dead_letter_topic("events#ephemeral") == "events.dead"
    assert len(dead_letter_topic("x" * 59)) == 64
    with pytest.raises(NameInvalid, match="has 65 characters"):
        dead_letter_topic("x" * 60)

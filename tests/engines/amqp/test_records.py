"""Messages of AMQP as this project's, and back: keys, headers, timestamps, tombstones, attempts, ids."""

from __future__ import annotations

import pytest

from qtools.attributes import TOMBSTONE, Attributes, Headers
from qtools.engines.amqp.protocol.deliveries import Envelope
from qtools.engines.amqp.protocol.properties import Properties, decode_properties
from qtools.engines.amqp.protocol.values import Timestamp
from qtools.engines.amqp.records import (
    attempts_of,
    attributes_of,
    copy_properties,
    messages_of,
    outgoing_properties,
    with_tombstones,
)  # fmt: skip
from qtools.errors import MessageRefused

FIRST = Envelope(b"events", b"", False)
AGAIN = Envelope(b"events", b"", True)


def sent_and_read(key: bytes | None, headers: Headers = (), timestamp: int = 0, body: bytes = b"x") -> Attributes:
    routing_key, properties = outgoing_properties(body, key, headers, timestamp, b"0" * 16)
    bodies = [b"" if body is TOMBSTONE else body]
    records = [(Envelope(b"events", routing_key, False), properties, 1)]
    with_tombstones(records, bodies)
    assert bodies[0] is body or body is not TOMBSTONE
    return attributes_of(records, Attributes._fields)


@pytest.mark.parametrize("key", [None, b"", b"k", b"\xff\0", b"x" * 255, b"x" * 256, b"x" * 5000])
def test_keys(key: bytes | None) -> None:
    assert sent_and_read(key).keys == [key]


def test_a_message_without_a_time() -> None:
    """As Kafka has it: -1 ms. AMQP's timestamps have no sign."""
    read = sent_and_read(b"k", timestamp=-1_000_000)
    assert read.keys == [b"k"]
    assert read.headers in (None, [()], [[]])


@pytest.mark.parametrize(
    "headers", [[], [("a", b"1"), ("b", None), ("a", b"\xfe")], [("ü", b"")], [("n" * 255, b"x" * 10_000)]]
)
def test_headers(headers: list[tuple[str, bytes | None]]) -> None:
    found = sent_and_read(b"", headers).headers
    assert found is not None
    assert list(found[0]) == headers


def test_a_header_with_a_long_name_is_refused() -> None:
    with pytest.raises(MessageRefused, match="has more than 255 bytes") as caught:
        sent_and_read(None, [("n" * 256, b"")])
    assert not caught.value.is_too_large


def test_headers_of_dead_letters_are_not_published() -> None:
    headers = [("x-death", b"[]"), ("x-first-death-queue", b"q"), ("x-last-death-reason", b"r"), ("mine", b"1")]
    found = sent_and_read(None, headers).headers
    assert found is not None
    assert list(found[0]) == [("mine", b"1")]


@pytest.mark.parametrize("timestamp", [0, 1_700_000_000_000_000_000, 1_700_000_000_123_000_000])
def test_timestamps(timestamp: int) -> None:
    assert sent_and_read(None, timestamp=timestamp).timestamps == [timestamp]


def test_a_tombstone() -> None:
    sent_and_read(b"k", body=TOMBSTONE)


def test_values_of_other_clients() -> None:
    table = [
        ("i", -5),
        ("f", 0.5),
        ("b", True),
        ("t", Timestamp(7)),
        ("l", [1, b"a", None]),
        ("n", [("x", [("y", b"z")])]),
    ]
    record = (FIRST, Properties(headers=table).encode(), 1)
    found = attributes_of([record], ("headers",)).headers
    assert found is not None
    assert list(found[0]) == [
        ("i", b"-5"), ("f", b"0.5"), ("b", b"true"), ("t", b"7"), ("l", b'[1, "a", null]'), ("n", b'{"x": {"y": "z"}}'),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("envelope", "headers", "attempts"),
    [
        (FIRST, [], 1),
        (AGAIN, [], 2),
        (AGAIN, [("x-delivery-count", 4)], 5),
        (FIRST, [("x-delivery-count", 0)], 1),
        (Envelope(b"", b"q", False), [("qtools-attempts", 3)], 4),
        (Envelope(b"", b"q", True), [("qtools-attempts", 3), ("x-delivery-count", 2)], 6),
        (AGAIN, [("x-delivery-count", 10**9)], 65_535),
        (AGAIN, [("x-delivery-count", b"no number")], 2),
    ],
)
def test_attempts(envelope: Envelope, headers: list[tuple[str, object]], attempts: int) -> None:
    assert attempts_of(envelope, Properties(headers=headers)) == attempts


def test_a_copy_that_waits_for_its_delay() -> None:
    """It keeps key, headers and attempts through its way back, and gathers no dead letter's history."""
    given = Properties(
        headers=[("mine", b"1"), ("x-delivery-count", 2), ("x-death", [])], message_id=b"m", expiration=b"5"
    )
    copy = copy_properties((Envelope(b"events", b"key", True), given.encode(), 1))
    assert copy.headers == [("mine", b"1"), ("qtools-attempts", 3), ("qtools-key", b"key")]
    assert (copy.message_id, copy.expiration, copy.delivery_mode) == (b"m", None, 2)
    returned = (Envelope(b"", b"events/own", False), copy.encode(), 9)
    (message,) = messages_of([returned], [b"x"], 1)
    assert message.attempts == 4
    found = attributes_of([returned], Attributes._fields)
    assert (found.keys, [list(each) for each in found.headers or ()]) == ([b"key"], [[("mine", b"1")]])
    again = copy_properties(returned)
    assert dict(again.headers or ())["qtools-attempts"] == 4
    assert dict(again.headers or ())["qtools-key"] == b"key"


def test_ids() -> None:
    records = [
        (FIRST, Properties(message_id=ident).encode(), 7)
        for ident in (b"0123456789abcdef", b"a longer one of others", None)
    ]
    ids = [message.id for message in messages_of(records, [b""] * 3, 3)]
    assert ids[0] == b"0123456789abcdef"
    assert {len(ident) for ident in ids} == {16}
    assert ids[2] == b"0003000000000007"


def test_broken_properties_stop_nothing() -> None:
    (message,) = messages_of([(FIRST, b"\xff", 1)], [b"body"], 1)
    assert (message.body, message.attempts, message.timestamp) == (b"body", 1, 0)
    assert decode_properties(Properties().encode()) == Properties()

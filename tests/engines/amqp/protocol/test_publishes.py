"""Batches of publishes: what a server reads of them."""

from __future__ import annotations

from typing import Any

import pytest

from qtools.engines.amqp.protocol.frames import AmqpFrameReader, Content
from qtools.engines.amqp.protocol.properties import Properties, decode_properties
from qtools.engines.amqp.protocol.publishes import BatchEncoder, Outgoing, encode_each

from .recordings import FULL, PLAIN

BODIES = [b"", b"a", b"bb", b"a", b"x" * 4087, b"x" * 4088, b"x" * 4089, b"y" * 10_000, bytes(range(256))]


def read(pieces: list[bytes]) -> list[Content]:
    reader = AmqpFrameReader()
    reader.frame_max = 4096
    found: list[Any] = reader.read(b"".join(pieces))
    assert len(reader) == 0
    return found


@pytest.mark.parametrize("given", [Properties(delivery_mode=2), FULL._replace(message_id=None)], ids=["plain", "full"])
def test_a_batch(given: Properties) -> None:
    encoder = BatchEncoder(3, "events", 4096, b"key", given)
    found = read(encoder.encode(2**64 - 9, BODIES))
    assert [each.body for each in found] == BODIES
    assert {(each.method.channel, each.method.name) for each in found} == {(3, "basic.publish")}
    for number, each in enumerate(found):
        arguments = each.method.arguments
        assert (arguments["exchange"], arguments["routing_key"]) == (b"events", b"key")
        assert (arguments["mandatory"], arguments["immediate"]) == (True, False)
        expected = given._replace(message_id=b"%016x" % (2**64 - 9 + number))
        assert decode_properties(each.properties) == expected


def test_a_mark_of_zeros_in_a_header_is_no_message_id() -> None:
    given = Properties(headers=[("h", b"\x10" + bytes(16))], delivery_mode=2, timestamp=0)
    (found,) = read(BatchEncoder(1, "e", 4096, b"", given).encode(5, [b"x"]))
    assert decode_properties(found.properties) == given._replace(message_id=b"%016x" % 5)


def test_messages_with_properties_of_their_own() -> None:
    outgoing = [
        Outgoing(b"k%d" % (number % 2), (FULL, PLAIN)[number % 2].encode(), body) for number, body in enumerate(BODIES)
    ]
    found = read(encode_each(9, "", 4096, outgoing))
    assert [each.body for each in found] == BODIES
    assert [each.method.arguments["routing_key"] for each in found] == [each.routing_key for each in outgoing]
    assert [decode_properties(each.properties) for each in found] == [(FULL, PLAIN)[n % 2] for n in range(len(BODIES))]


def test_prefixes_are_bounded() -> None:
    encoder = BatchEncoder(1, "e", 131_072)
    found = encoder.encode(0, [b"x" * size for size in range(5000)])
    assert len(found) > 5000
    assert len(encoder._prefixes) <= 4097

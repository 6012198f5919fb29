"""The reader of frames: whole, byte by byte, cut anywhere, and what it refuses."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest

from qtools.engines.amqp.protocol.deliveries import Confirms, Deliveries, Envelope
from qtools.engines.amqp.protocol.frames import MOST_BYTES, AmqpFrameReader, Content
from qtools.engines.amqp.protocol.methods import (
    BODY,
    HEADER,
    HEARTBEAT_FRAME,
    Method,
    encode_method,
    frame,
)  # fmt: skip
from qtools.engines.amqp.protocol.properties import decode_properties
from qtools.errors import ProtocolError

from .recordings import FULL, PLAIN, SERVER, delivery, flat

RUN = b"".join(delivery(tag, b"x" * (tag % 7)) for tag in range(1, 60))
KEYED = b"".join(delivery(tag, b"y%d" % tag, key=b"k" * (tag % 5), again=tag % 3 == 0) for tag in range(1, 60))
MIXED = b"".join(
    delivery(tag, b"z" * 30, channel=1 + tag % 2, consumer=b"c%d" % (tag % 2))
    + (HEARTBEAT_FRAME if tag % 4 == 0 else b"")
    + (encode_method(3, "basic.ack", delivery_tag=tag, multiple=tag % 3 == 0))
    for tag in range(1, 40)
)
SPLIT = delivery(1, bytes(range(256)) * 4, most=100) + delivery(2, b"", properties=FULL) + delivery(3, b"end")


def read(data: bytes, sizes: Any = None) -> list[Any]:
    """All that is in `data`, which comes in pieces of these sizes, by default in one."""
    reader, found, at = AmqpFrameReader(), [], 0
    for size in sizes or [len(data)]:
        found += reader.read(data[at : at + size])
        at += size
    assert at >= len(data)
    assert len(reader) == 0
    return list(flat(found))


@pytest.mark.parametrize("stream", [SERVER, RUN, KEYED, MIXED, SPLIT], ids=["server", "run", "keyed", "mixed", "split"])
def test_how_bytes_are_cut_makes_no_difference(stream: bytes) -> None:
    whole = read(stream)
    assert len(whole) > 2
    assert read(stream, [1] * len(stream)) == whole
    draw = random.Random(1)
    for most in (5, 40, 90, 300, 2000):
        sizes = [draw.randint(1, most) for _ in range(len(stream))]
        assert read(stream, sizes) == whole


def test_a_run_is_one_event() -> None:
    (found,) = AmqpFrameReader().read(RUN)
    assert isinstance(found, Deliveries)
    assert found.tags == range(1, 60)
    assert found.bodies == [b"x" * (tag % 7) for tag in range(1, 60)]
    assert {record[0] for record in found.records} == {Envelope(b"events", b"", False)}
    assert decode_properties(found.records[5][1]) == PLAIN
    assert not found.redelivered
    assert not found.has_dead_letters


def test_keys_and_redelivered_messages_in_a_run() -> None:
    (found,) = AmqpFrameReader().read(KEYED)
    assert isinstance(found, Deliveries)
    assert [record[0].routing_key for record in found.records] == [b"k" * (tag % 5) for tag in range(1, 60)]
    assert [record[0].redelivered for record in found.records] == [tag % 3 == 0 for tag in range(1, 60)]
    assert found.redelivered == 19


def test_dead_letters_are_seen() -> None:
    (found,) = AmqpFrameReader().read(delivery(1) + delivery(2) + delivery(3, exchange=b"", key=b"q") + delivery(4))
    assert isinstance(found, Deliveries)
    assert found.has_dead_letters
    assert len(found) == 4


def test_tags_that_do_not_follow_begin_another_run() -> None:
    found = AmqpFrameReader().read(delivery(1) + delivery(2) + delivery(5) + delivery(6) + delivery(6))
    assert [each.tags for each in found if isinstance(each, Deliveries)] == [range(1, 3), range(5, 7), range(6, 7)]


def test_confirms_are_joined() -> None:
    acks = [(1, False), (4, True), (5, False)]
    data = b"".join(encode_method(2, "basic.ack", delivery_tag=tag, multiple=many) for tag, many in acks)
    found = AmqpFrameReader().read(data)
    assert [tag for each in found if isinstance(each, Confirms) for tag in each.tags] == [1, -4, 5]


def test_contents_of_two_channels_may_interleave() -> None:
    one, two = delivery(1, b"a" * 10, most=5), delivery(1, b"b" * 10, channel=2, most=5)
    frames_of = [_frames(one), _frames(two)]
    data = b"".join(part for pair in zip(*frames_of, strict=True) for part in pair)
    found = list(flat(AmqpFrameReader().read(data)))
    assert [each[-1] for each in found] == [b"a" * 10, b"b" * 10]


def _frames(data: bytes) -> list[bytes]:
    found = []
    while data:
        stop = 8 + struct.unpack_from(">BHI", data)[2]
        found.append(data[:stop])
        data = data[stop:]
    return found


def test_a_returned_message() -> None:
    returned = [each for each in read(SERVER) if isinstance(each, Content)]
    assert [(each.method.name, each.method.arguments["code"], each.body) for each in returned] == [
        ("basic.return", 312, b"returned")
    ]


def test_no_more_is_kept_than_has_arrived() -> None:
    reader = AmqpFrameReader()
    start = delivery(1, b"x" * 1000)
    reader.read(start[: start.index(b"\xce\2") + 1])
    header = frame(HEADER, 1, b"\0\x3c\0\0" + (400 * 1024 * 1024).to_bytes(8, "big") + PLAIN.encode())
    assert reader.read(header + frame(BODY, 1, b"y" * 1000)) == []
    assert len(reader) == 1000


METHOD = encode_method(1, "basic.deliver", consumer_tag=b"c", delivery_tag=1, exchange=b"e", routing_key=b"k")


def header(size: int, number: int = 60, weight: int = 0) -> bytes:
    return frame(HEADER, 1, struct.pack(">HHQ", number, weight, size) + PLAIN.encode())


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "its first bytes are no frame of AMQP"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "its first bytes are no frame of AMQP"),
        (b"AMQP\0\1\0\0", "the broker speaks AMQP 1.0.0, and not 0-9-1"),
        (struct.pack(">BHIB", 1, 0, 2**31, 0), r"a frame of 2,147,483,656 bytes was announced; 262,144 are allowed"),
        (METHOD[:-1] + b"\0", "a frame does not end where its size says"),
        (frame(1, 1, b"\0\x3c\0\x63"), "the unknown method 99 of class 60 came"),
        (frame(1, 1, b"\0\x3c"), "a method ends before its last argument"),
        (frame(1, 1, b"\0\x3c\0\x50\0\0"), "a method ends before its last argument"),
        (frame(1, 1, METHOD[7:-1] + b"\0"), "basic.deliver goes on behind its last argument"),
        (METHOD + METHOD, "a method came on channel 1 before the end of a message"),
        (METHOD + frame(BODY, 1, b"x"), "a body came on channel 1 before its content header"),
        (METHOD + header(5) + header(5), "a message has two content headers"),
        (METHOD + header(5, number=50), "a content header is of class 50 with weight 0, and not of class 60"),
        (METHOD + header(5, weight=1), "a content header is of class 60 with weight 1, and not of class 60"),
        (METHOD + frame(HEADER, 1, b"\0\x3c"), "a content header ends before its properties"),
        (METHOD + header(MOST_BYTES + 1), "a message of 536,870,913 bytes was announced"),
        (METHOD + header(2) + frame(BODY, 1, b"xxx"), "a message has more than the 2 bytes that its header announced"),
        (encode_method(1, "channel.open-ok") + frame(BODY, 1, b"x"), "a body came on channel 1, where none was due"),
        (METHOD + frame(4, 1, b""), "a frame of the unknown type 4 came on channel 1"),
        (frame(8, 1, b""), "a heartbeat has a channel or a payload"),
    ],
)
def test_what_is_no_amqp_is_named(data: bytes, why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        AmqpFrameReader().read(data)
    reader = AmqpFrameReader()
    with pytest.raises(ProtocolError, match=why):
        [reader.read(data[place : place + 1]) for place in range(len(data))]


def test_a_frame_may_be_as_large_as_was_agreed() -> None:
    reader = AmqpFrameReader()
    reader.frame_max = 4096
    (found,) = flat(reader.read(delivery(1, b"x" * 4088)))
    assert len(found[-1]) == 4088
    with pytest.raises(ProtocolError, match="a frame of 4,097 bytes was announced; 4,096 are allowed"):
        reader.read(delivery(2, b"x" * 4089))


def test_a_run_keeps_to_the_agreed_size() -> None:
    reader = AmqpFrameReader()
    reader.frame_max = 4096
    with pytest.raises(ProtocolError, match="a frame of 4,097 bytes was announced"):
        reader.read(delivery(1) + delivery(2) + delivery(3, b"x" * 4089))


@pytest.mark.parametrize("place", range(len(delivery(3))))
def test_a_changed_byte_in_a_run_is_seen_as_in_a_single_delivery(place: int) -> None:
    """The loop over runs and the parser of single frames agree about every byte."""
    before, message = delivery(1) + delivery(2), bytearray(delivery(3))
    message[place] ^= 0x41
    data = before + bytes(message) + delivery(4)
    assert _outcome(data, [len(data)]) == _outcome(data, [1] * len(data))


def _outcome(data: bytes, sizes: list[int]) -> tuple[list[Any], str]:
    reader, found, at = AmqpFrameReader(), [], 0
    try:
        for size in sizes:
            found += list(flat(reader.read(data[at : at + size])))
            at += size
    except ProtocolError as error:
        return [], str(error)
    return found, ""


def test_a_channel_is_forgotten() -> None:
    reader = AmqpFrameReader()
    reader.read(delivery(1, b"x" * 1000)[:-500])
    reader.read(b"")
    reader = AmqpFrameReader()
    reader.read(METHOD + header(5))
    reader.forget(1)
    (found,) = reader.read(encode_method(1, "channel.open-ok"))
    assert isinstance(found, Method)

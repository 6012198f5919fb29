"""Server → client: each frame as literal bytes, written by hand from the protocol's description; then round trips."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtools.engines.nsq.protocol.frames import (
    ERROR,
    MAX_FRAME_SIZE,
    MESSAGE,
    RESPONSE,
    Frame,
    FrameReader,
    decode_frame,
    encode_frame,
    encode_message,
)
from qtools.errors import ProtocolError
from qtools.message import Message

from .streams import bytewise, cut, decode

GOLDEN: dict[str, tuple[bytes, Message | Frame]] = {
    "OK": (bytes.fromhex("00000006 00000000 4f4b"), Frame(RESPONSE, b"OK")),
    "heartbeat": (bytes.fromhex("0000000f 00000000 5f6865617274626561745f"), Frame(RESPONSE, b"_heartbeat_")),
    "CLOSE_WAIT": (bytes.fromhex("0000000e 00000000 434c4f53455f57414954"), Frame(RESPONSE, b"CLOSE_WAIT")),
    "an error": (b"\x00\x00\x00\x14\x00\x00\x00\x01E_INVALID reason", Frame(ERROR, b"E_INVALID reason")),
    "an error without a text": (b"\x00\x00\x00\x12\x00\x00\x00\x01E_BAD_PROTOCOL", Frame(ERROR, b"E_BAD_PROTOCOL")),
    "nothing": (b"\x00\x00\x00\x04\x00\x00\x00\x00", Frame(RESPONSE, b"")),
    "a message": (
        bytes.fromhex(
            "00000023 00000002"  # 30 + 5
            "0123456789abcdef"  # ns
            "0001"
            "30613162326333643465356630303030"
            "68656c6c6f"
        ),
        Message(81985529216486895, 1, b"0a1b2c3d4e5f0000", b"hello"),
    ),
    "a message with all bits set": (
        b"\x00\x00\x00\x1f\x00\x00\x00\x02" + b"\xff" * 8 + b"\xff\xff" + b"f" * 16 + b"\xff",
        Message(-1, 65535, b"ffffffffffffffff", b"\xff"),
    ),
    "a message without a body": (
        b"\x00\x00\x00\x1e\x00\x00\x00\x02" + b"\x00" * 7 + b"\x01\x01\x00" + b"0123456789abcdef",
        Message(1, 256, b"0123456789abcdef", b""),
    ),
    "a message that looks like frames": (
        b"\x00\x00\x00\x28\x00\x00\x00\x02"
        + b"\x00" * 8
        + b"\x00\x02"
        + b"a" * 16
        + b"\x00\x00\x00\x06\x00\x00\x00\x00OK",
        Message(0, 2, b"a" * 16, b"\x00\x00\x00\x06\x00\x00\x00\x00OK"),
    ),
}

every_frame = pytest.mark.parametrize("name", GOLDEN)


def read(golden: bytes) -> list[Message | Frame]:
    messages, frames, error = decode([golden])
    assert error is None
    return [*messages, *frames]


@every_frame
def test_a_frame_is_encoded_to_the_bytes_of_the_protocol(name: str) -> None:
    golden, meant = GOLDEN[name]
    if isinstance(meant, Message):
        assert encode_message(meant) == golden
        assert encode_frame(MESSAGE, golden[8:]) == golden
    else:
        assert encode_frame(meant.kind, meant.data) == golden


@every_frame
def test_the_bytes_of_the_protocol_are_decoded(name: str) -> None:
    golden, meant = GOLDEN[name]
    assert read(golden) == [meant]
    one = FrameReader().read_one(golden)
    assert one is not None
    assert decode_frame(one) == meant


@every_frame
def test_a_frame_comes_with_its_last_byte_and_not_before(name: str) -> None:
    golden, meant = GOLDEN[name]
    reader = FrameReader()
    for byte in bytewise(golden)[:-1]:
        assert reader.read(byte) == ([], [])
    messages, frames = reader.read(golden[-1:])
    assert [*messages, *frames] == [meant]


def test_messages_and_answers_in_one_chunk_each_keep_their_order() -> None:
    stream = b"".join(golden for golden, _ in GOLDEN.values()) * 3
    messages = [meant for _, meant in GOLDEN.values() if isinstance(meant, Message)] * 3
    frames = [meant for _, meant in GOLDEN.values() if isinstance(meant, Frame)] * 3
    assert decode([stream]) == (messages, frames, None)
    for size in range(1, 60):
        assert decode(cut(stream, range(0, len(stream), size))) == (messages, frames, None)


def test_the_two_ways_to_read_may_follow_each_other() -> None:
    stream = b"".join(golden for golden, _ in GOLDEN.values())
    reader = FrameReader()
    assert reader.read_one(stream) == GOLDEN["OK"][1]
    assert reader.read_one() == GOLDEN["heartbeat"][1]
    messages, frames = reader.read(b"")
    assert len(messages) == 4
    assert frames[0] == GOLDEN["CLOSE_WAIT"][1]


def test_what_follows_a_frame_can_be_taken_out_for_a_filter() -> None:
    for rest in (b"", b"x", b"\x00\x00\x01\x00\x00\x00\x00\x00begun", b"rest" * 100):
        reader = FrameReader()
        assert reader.read_one(GOLDEN["OK"][0] + rest) == GOLDEN["OK"][1]
        assert reader.take_rest() == rest
        assert reader.take_rest() == b""


def test_what_waits_for_more_can_be_taken_out_too() -> None:
    reader = FrameReader()
    begun = b"\x00\x00\x01\x00\x00\x00\x00\x00begun"
    assert [reader.read_one(byte) for byte in bytewise(begun)] == [None] * len(begun)
    assert reader.take_rest() == begun
    assert reader.read(GOLDEN["OK"][0]) == ([], [GOLDEN["OK"][1]])


# ── what is no frame ──


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (b"\x00\x00\x00\x03\x00\x00\x00\x00", "a frame of 3 bytes"),
        (b"\x00\x00\x00\x00\x00\x00\x00\x00", "a frame of 0 bytes"),
        (b"\xff\xff\xff\xff\x00\x00\x00\x00", "a frame of -1 bytes"),
        (b"\x80\x00\x00\x00\x00\x00\x00\x02", "a frame of -2147483648 bytes"),
        (b"\x7f\xff\xff\xff\x00\x00\x00\x02", "a frame of 2147483647 bytes"),
        (b"\x08\x00\x00\x01\x00\x00\x00\x02", "a frame of 134217729 bytes"),
        (b"\x00\x00\x00\x06\x00\x00\x00\x03OK", "a frame of type 3"),
        (b"\x00\x00\x00\x06\xff\xff\xff\xffOK", "a frame of type -1"),
        (b"\x00\x00\x00\x1d\x00\x00\x00\x02" + b"x" * 25, "a message frame of 29 bytes"),
        (b"\x15\x03\x01\x00\x02\x02\x46 and more", "a frame of 352518400 bytes"),
    ],
)
def test_what_is_no_frame_is_refused_alone_and_behind_others(bad: bytes, words: str) -> None:
    for before in (b"", GOLDEN["OK"][0], GOLDEN["a message"][0]):
        for behind in (b"", b"x" * 100, GOLDEN["a message"][0]):
            with pytest.raises(ProtocolError, match=words):
                FrameReader().read(before + bad + behind)
            *_, error = decode(bytewise(before + bad + behind))
            assert error is not None
            assert words in error


@pytest.mark.parametrize("size", [1, 3, 4, 100])
def test_an_http_server_is_recognised_from_its_first_bytes(size: int) -> None:
    reader = FrameReader()
    answer = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\r\n400 Bad Request"
    with pytest.raises(ProtocolError) as caught:
        list(map(reader.read, cut(answer, range(0, len(answer), size))))
    assert caught.value.looks_like == "HTTP"
    assert "HTTP" in str(caught.value)


def test_http_is_looked_for_at_the_beginning_only() -> None:
    message = encode_message(Message(1, 1, b"a" * 16, b"HTTP"))
    assert decode([message, b"".join(bytewise(message))])[2] is None
    with pytest.raises(ProtocolError) as caught:
        FrameReader().read(GOLDEN["OK"][0] + b"HTTP/1.1 400 Bad Request")
    assert caught.value.looks_like == ""


def test_a_limit_of_ones_own_is_kept() -> None:
    fits = encode_message(Message(1, 1, b"a" * 16, b"x" * 70))
    assert len(FrameReader(100).read(fits)[0]) == 1
    for chunks in ([encode_message(Message(1, 1, b"a" * 16, b"x" * 71))], [fits, fits[:3] + b"\x65" + fits[4:] + b"x"]):
        *_, error = decode(chunks, FrameReader(100))
        assert error == "a frame of 101 bytes was announced; NSQ's have 4 to 100"


@pytest.mark.parametrize("kind", [RESPONSE, ERROR, MESSAGE])
def test_an_announced_length_takes_no_memory(kind: int) -> None:
    announced = 100 * 1024 * 1024
    assert announced < MAX_FRAME_SIZE
    chunks = [announced.to_bytes(4, "big"), kind.to_bytes(4, "big"), b"x" * 100, b"y" * 100]
    tracemalloc.start()
    try:
        assert decode(chunks) == ([], [], None)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 1024


@given(
    st.lists(
        st.builds(Message, st.integers(-(2**63), 2**63 - 1), st.integers(0, 65535), st.just(b"0" * 16), st.binary())
    )
)
def test_what_is_encoded_is_decoded_as_it_was_meant(messages: list[Message]) -> None:
    assert decode([b"".join(map(encode_message, messages))]) == (messages, [], None)

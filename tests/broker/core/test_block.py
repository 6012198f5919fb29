"""Blocks and runs: the frames a message is sent as."""

from __future__ import annotations

import pytest

from qtools.broker.core.block import Block, message_fins, message_ids
from qtools.engines.nsq.protocol import commands
from qtools.engines.nsq.protocol.frames import FrameReader, encode_message
from qtools.message import Message

BODIES = [b"a", b"bb", b"", b"x" * 5000, b"\0\xff\n"]
FIRST = 0x18A0_0000_0000_00FE  # so that the ids carry over a byte


def read(frames: bytes) -> list[Message]:
    messages, others = FrameReader().read(frames)
    assert not others
    return messages


def test_frames_are_those_a_client_reads() -> None:
    block = Block(FIRST, BODIES, 1_700_000_000_123_456_789)
    wanted = [Message(1_700_000_000_123_456_789, 1, b"%016x" % (FIRST + i), body) for i, body in enumerate(BODIES)]
    assert block.frames == b"".join(map(encode_message, wanted))
    assert read(block.deliver(0, len(BODIES), 1)) == wanted


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (1, 4), (3, 5), (2, 2)])
def test_a_stretch_is_what_lies_between(start: int, stop: int) -> None:
    block = Block(FIRST, BODIES, 7)
    assert [message.body for message in read(block.deliver(start, stop, 1))] == BODIES[start:stop]
    assert block.size(start, stop) == len(block.deliver(start, stop, 1))
    assert block.body_size(start, stop) == sum(map(len, BODIES[start:stop]))
    assert block.ids(start, stop) == [message.id for message in read(block.deliver(start, stop, 1))]


def test_later_attempts_change_nothing_but_their_number() -> None:
    block = Block(FIRST, BODIES, 7)
    first, third = read(block.deliver(1, 4, 1)), read(block.deliver(1, 4, 3))
    assert [message.attempts for message in third] == [3, 3, 3]
    assert [(m.id, m.body, m.timestamp) for m in first] == [(m.id, m.body, m.timestamp) for m in third]
    assert [message.attempts for message in read(block.deliver(0, 5, 1))] == [1] * 5


def test_attempts_stay_within_their_two_bytes() -> None:
    assert read(Block(FIRST, [b"x"], 7).deliver(0, 1, 70_000))[0].attempts == 65535


def test_ids_are_sixteen_hex_digits_in_order() -> None:
    assert message_ids(0xFE, 0x101) == [b"00000000000000fe", b"00000000000000ff", b"0000000000000100"]
    assert message_ids(255, 256) == [b"00000000000000ff"]
    assert message_ids(5, 5) == []


@pytest.mark.parametrize("first", [0, 0xFFE, 0x18A0_0000_0000_0FFF, 2**64 - 5000])
@pytest.mark.parametrize("count", [1, 2, 3, 4096, 5000])
def test_ids_and_the_lines_that_finish_them_are_those_of_each_number(first: int, count: int) -> None:
    wanted = [b"%016x" % number for number in range(first, first + count)]
    assert message_ids(first, first + count) == wanted
    assert message_ids(first, first + count, b"> ") == [b"> " + ident for ident in wanted]
    assert message_fins(first, first + count) == commands.fin(wanted)


def test_the_place_of_an_id_is_found_again() -> None:
    block = Block(FIRST, BODIES, 7)
    assert [block.place(ident) for ident in block.ids(0, 5)] == [0, 1, 2, 3, 4]

"""A hundred thousand streams of bytes that were right, and were changed: each is parsed, or refused with one line."""

from __future__ import annotations

import random

import pytest

from qtools.engines.jetstream.protocol.ack_subject import parse_ack_subject, redelivered
from qtools.engines.jetstream.protocol.attributes import HeaderFields, with_tombstones
from qtools.engines.jetstream.protocol.headers import status_of
from qtools.engines.jetstream.protocol.pub_acks import read_pub_acks
from qtools.engines.jetstream.protocol.server_info import explain_error, parse_info
from qtools.engines.jetstream.protocol.server_reader import (
    ConfirmedPublishes,
    ControlLine,
    NatsEvent,
    NatsMessages,
    ServerReader,
)
from qtools.errors import ProtocolError
from tests.engines.jetstream.protocol.recordings import NEW, OLD
from tests.engines.nsq.protocol.garbage import check_fit_to_show

INPUTS = 100_000
STREAMS = [
    *NEW.values(),
    *OLD.values(),
    b"PING\r\nPONG\r\n+OK\r\n",
    NEW["next_1"] + NEW["pub_ack_1"] * 5 + NEW["next_4"],
]
PIECES = [
    b"\r\n",
    b" ",
    b"0",
    b"-1",
    b"99999999999",
    b"MSG ",
    b"HMSG ",
    b"INFO {",
    b"{",
    b'"',
    b"\xff",
    b"\0",
    b".",
    b"$JS.ACK.",
]


def changed(draw: random.Random) -> bytes:
    data = bytearray(draw.choice(STREAMS))
    for _ in range(draw.randrange(4)):
        place = draw.randrange(len(data) + 1)
        match draw.randrange(4):
            case 0:
                data[place : place + draw.randrange(8)] = b""
            case 1:
                data[place:place] = draw.choice(PIECES)
            case 2:
                data[place : place + 1] = bytes([draw.randrange(256)])
            case _:
                data += draw.choice(STREAMS)[place:]
    return bytes(data)


def understand(event: NatsEvent) -> None:
    """Everything that the engine makes of an event."""
    if isinstance(event, ConfirmedPublishes):
        assert all(number >= 0 for number in event.numbers)
    elif isinstance(event, ControlLine):
        if event.verb == b"INFO":
            parse_info(event.argument)
        elif event.verb == b"-ERR":
            check_fit_to_show(explain_error(event.argument).error)
    elif isinstance(event, NatsMessages):
        assert len(event.subjects) == len(event.replies) == len(event.bodies) == len(event)
        redelivered(event.replies)
        blocks = event.headers or [b""] * len(event)
        with_tombstones(event.bodies, blocks)
        for reply, block in zip(event.replies, blocks, strict=True):
            HeaderFields(block)
            for parse, data in ((status_of, block), (parse_ack_subject, reply)):
                try:
                    parse(data)
                except ProtocolError as error:
                    check_fit_to_show(error)
        read_pub_acks(event, b"_INBOX.q.")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_changed_streams() -> None:
    draw = random.Random(20261129)
    refused = 0
    for _ in range(INPUTS):
        data = changed(draw)
        reader = ServerReader()
        if draw.random() < 0.5:
            reader.expect_confirmations(b"_INBOX.q.", b"1")
        cut = draw.randrange(len(data) + 1)
        try:
            for chunk in (data[:cut], data[cut:]):
                for event in reader.receive(chunk):
                    understand(event)
        except ProtocolError as error:
            refused += 1
            check_fit_to_show(error)
    assert INPUTS // 10 < refused < INPUTS

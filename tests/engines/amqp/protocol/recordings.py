"""A conversation with RabbitMQ 3.10.8 as bytes, and frames for tests. In: recording.txt. Out: what each side sent.

The recording: a client logs in, declares an exchange and a quorum queue, publishes five messages with confirms and one
that no queue gets, reads the five, gives them back, reads them again, acknowledges them, deletes the queue that it
reads, asks for one that does not exist, and closes. Each line is one side's bytes, in hex, until the other one answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from qtools.engines.amqp.protocol.deliveries import Confirms, Deliveries
from qtools.engines.amqp.protocol.methods import BODY, HEADER, encode_method, frame
from qtools.engines.amqp.protocol.properties import Properties
from qtools.engines.amqp.protocol.values import Bytes, Timestamp

LINES = [line.split() for line in Path(__file__).with_name("recording.txt").read_text().splitlines()]
TALK = [(side, bytes.fromhex(text)) for side, text in LINES]
SERVER = b"".join(data for side, data in TALK if side == "S")
CLIENT = b"".join(data for side, data in TALK if side == "C")

PLAIN = Properties(delivery_mode=2, message_id=b"0" * 16, timestamp=1_700_000_000)
FULL = Properties(
    content_type=b"text/plain", content_encoding=b"gzip",
    headers=[
        ("text", b"a\xff"), ("none", None), ("text", b"twice"), ("yes", True), ("int", -5), ("long", 2**40),
        ("float", 0.5), ("time", Timestamp(1_700_000_000)), ("bytes", Bytes(b"\0\1")), ("decimal", Decimal("1.25")),
        ("table", [("n", [("m", b"x")])]), ("array", [1, b"two", None]),
    ],
    delivery_mode=2, priority=3, correlation_id=b"c", reply_to=b"r", expiration=b"3600000", message_id=b"m",
    timestamp=1, type=b"t", app_id=b"app",
)  # fmt: skip


def delivery(
    tag: int, body: bytes = b"body", *, key: bytes = b"", channel: int = 1, consumer: bytes = b"c", again: bool = False,
    properties: Properties = PLAIN, exchange: bytes = b"events", most: int = 131_064,
) -> bytes:  # fmt: skip
    """The frames of a delivery; the body in frames of at most `most` bytes."""
    start = encode_method(
        channel, "basic.deliver", consumer_tag=consumer, delivery_tag=tag, redelivered=again, exchange=exchange,
        routing_key=key,
    )  # fmt: skip
    header = frame(HEADER, channel, b"\0\x3c\0\0" + len(body).to_bytes(8, "big") + properties.encode())
    parts = [frame(BODY, channel, body[at : at + most]) for at in range(0, len(body), most)]
    return start + header + b"".join(parts)


def flat(frames: Iterable[Any]) -> Iterator[Any]:
    """What was read, message by message: how bytes were cut makes no difference to it."""
    for each in frames:
        if isinstance(each, Deliveries):
            for tag, body, (envelope, properties, own_tag) in zip(each.tags, each.bodies, each.records, strict=True):
                assert tag == own_tag
                yield "delivery", each.channel, each.consumer_tag, tag, envelope, properties, body
        elif isinstance(each, Confirms):
            yield from (("confirm", each.channel, tag) for tag in each.tags)
        else:
            yield each

"""Runs of deliveries, and of confirms: the loops that parse them. In: a buffer. Out: columns.

    method frame   ├ 1 ┼ channel 2 ┼ size 4 ┼ 60 60 ┼ consumer tag ┼ delivery tag 8 ┼ redelivered 1 ┼
                   ┼ exchange ┼ routing key ┼ 0xCE ┤
    header frame   ├ 2 ┼ channel 2 ┼ size 4 ┼ 60 ┼ weight 2 ┼ body size 8 ┼ properties … ┼ 0xCE ┤
    body frame     ├ 3 ┼ channel 2 ┼ size 4 ┼ body … ┼ 0xCE ┤

Consecutive deliveries of one consumer are the same but for the delivery tag, the properties and the body: all that is
equal to the delivery before is compared as bytes, and not parsed. The loops stop before anything else: a body in
several frames or without any, another consumer, a message that is not all there. frames.py parses that, frame by frame.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from qtools.engines.amqp.protocol.values import short

_TAG = struct.Struct(">Q")
_HEADER = struct.Struct(">IIQ")  # size, class and weight, body size
_SIZE = struct.Struct(">I")
_CONFIRM = struct.Struct(">QBB")  # delivery tag, multiple, frame end
_BASIC = 60 << 16
CONFIRM_BYTES = 21  # of a frame of basic.ack


class Envelope(NamedTuple):
    """What a delivery says of a message beside its properties. Messages that agree in it share one."""

    exchange: bytes
    routing_key: bytes
    redelivered: bool


Record = tuple[Envelope, bytes, int]  # of a message: and its properties, and its delivery tag


class Deliveries:
    """Messages that arrived one after the other for one consumer. Their delivery tags ascend from `first` by one.

    records: for each message its envelope, the bytes of its properties and its delivery tag. redelivered: how many had
    been delivered before, by the flag of the broker. has_dead_letters: whether one came from another queue, by the
    default exchange.
    """

    __slots__ = ("bodies", "channel", "consumer_tag", "first", "has_dead_letters", "records", "redelivered")

    def __init__(self, channel: int, consumer_tag: bytes, first: int) -> None:
        self.channel = channel
        self.consumer_tag = consumer_tag
        self.first = first
        self.bodies: list[bytes] = []
        self.records: list[Record] = []
        self.redelivered = 0
        self.has_dead_letters = False

    def add(self, envelope: Envelope, properties: bytes, body: bytes) -> None:
        self.records.append((envelope, properties, self.first + len(self.bodies)))
        self.bodies.append(body)
        self.has_dead_letters = self.has_dead_letters or not envelope.exchange
        self.redelivered += envelope.redelivered

    @property
    def tags(self) -> range:
        return range(self.first, self.first + len(self.bodies))

    def __len__(self) -> int:
        return len(self.bodies)

    def __repr__(self) -> str:
        return f"<Deliveries channel={self.channel} tags={self.tags}>"


class Confirms(NamedTuple):
    """Acks of the broker for published messages: delivery tags, in order; negative for all up to that tag."""

    channel: int
    tags: list[int]


class DeliveryShape:
    """The bytes that the deliveries of one consumer have in common, and the envelope of the last one."""

    __slots__ = ("before_body", "before_tag", "behind_size", "channel_bytes", "envelope", "envelope_bytes")

    def __init__(self, channel: int, consumer_tag: bytes, envelope: Envelope) -> None:
        self.channel_bytes = channel.to_bytes(2, "big")
        self.behind_size = b"\0\x3c\0\x3c" + short(consumer_tag)
        self.before_body = b"\xce\3" + self.channel_bytes
        self.envelope = envelope
        self.envelope_bytes = b"%c%b%b\xce\2%b" % (
            envelope.redelivered, short(envelope.exchange), short(envelope.routing_key), self.channel_bytes
        )  # fmt: skip
        self._set_size()

    def _set_size(self) -> None:
        size = len(self.behind_size) + 8 + len(self.envelope_bytes) - 4
        self.before_tag = b"\1" + self.channel_bytes + _SIZE.pack(size) + self.behind_size

    def take_other_envelope(self, data: bytes, at: int) -> bool:
        """Whether a delivery of the same consumer begins at `at`, and its method frame is all there: its envelope is
        the shape's then."""
        start = at + 7 + len(self.behind_size) + 8  # of the envelope
        if data[at : at + 1] != b"\1" or not data.startswith(self.channel_bytes, at + 1):
            return False
        if not data.startswith(self.behind_size, at + 7) or len(data) < start + 2:
            return False
        key = start + 2 + data[start + 1]
        if len(data) <= key:
            return False
        stop = key + 1 + data[key]
        if _SIZE.unpack_from(data, at + 3)[0] != stop - at - 7 or data[start] > 1:
            return False
        if not data.startswith(b"\xce\2" + self.channel_bytes, stop):
            return False
        self.envelope = Envelope(data[start + 2 : key], data[key + 1 : stop], data[start] == 1)
        self.envelope_bytes = data[start : stop + 4]
        self._set_size()
        return True


def read_deliveries(data: bytes, at: int, run: Deliveries, shape: DeliveryShape, most: int) -> int:
    """Add the deliveries at `at` to `run`, as far as they are whole and follow each other; return where they end.
    most: bytes of a frame's payload."""
    before_tag, envelope_bytes, before_body = shape.before_tag, shape.envelope_bytes, shape.before_body
    tag_at, header_at = len(before_tag), len(before_tag) + 8 + len(envelope_bytes)
    add_body, add_record, envelope = run.bodies.append, run.records.append, shape.envelope
    unpack_tag, unpack_header, unpack_size = _TAG.unpack_from, _HEADER.unpack_from, _SIZE.unpack_from
    starts = data.startswith
    end, tag, flagged = len(data), run.first + len(run.bodies), 0
    while True:
        if not starts(before_tag, at) or not starts(envelope_bytes, at + tag_at + 8):
            if not shape.take_other_envelope(data, at):
                break
            run.redelivered += flagged * envelope.redelivered
            before_tag, envelope_bytes, envelope, flagged = shape.before_tag, shape.envelope_bytes, shape.envelope, 0
            run.has_dead_letters = run.has_dead_letters or not envelope.exchange
            tag_at, header_at = len(before_tag), len(before_tag) + 8 + len(envelope_bytes)
        header = at + header_at
        if end - header < 28 or unpack_tag(data, at + tag_at)[0] != tag:
            break
        size, basic, length = unpack_header(data, header)
        body = header + size + 12  # behind the header frame's payload and end, and the body frame's own header
        stop = body + length + 1
        if stop > end or basic != 3932160 or not 14 <= size <= most or not 0 < length <= most:
            break
        if not starts(before_body, body - 8) or unpack_size(data, body - 4)[0] != length or data[stop - 1] != 206:
            break
        add_record((envelope, data[header + 16 : body - 8], tag))
        add_body(data[body : stop - 1])
        at = stop
        tag += 1
        flagged += 1
    run.redelivered += flagged * envelope.redelivered
    return at


def read_confirms(data: bytes, at: int, start: bytes, tags: list[int]) -> int:
    """Add the tags of the acks at `at` to `tags`, as far as they follow each other; return where they end.

    start: how a frame of basic.ack begins on the channel.
    """
    unpack, starts, last = _CONFIRM.unpack_from, data.startswith, len(data) - CONFIRM_BYTES
    while at <= last and starts(start, at):
        tag, multiple, end = unpack(data, at + 11)
        if end != 206 or multiple > 1:
            break
        tags.append(-tag if multiple else tag)
        at += CONFIRM_BYTES
    return at


assert _BASIC == 3932160  # in the loop above as a constant

"""The reader of frames. In: chunks of bytes. Out: what they hold, in order.

     0      1         3       7                      7 + size
     ├──────┼─────────┼───────┼──────────────────────┼──────┤
     │ type │ channel │ size  │ payload              │ 0xCE │   types: 1 method, 2 header, 3 body, 8 heartbeat
     └──────┴─────────┴───────┴──────────────────────┴──────┘

A frame has at most frame_max bytes. Of a message no more is kept than has arrived, whatever size its header announces;
a message of more than MOST_BYTES is a ProtocolError. After an error the reader cannot be used any more.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from qtools.engines.amqp.protocol.deliveries import (
    Confirms,
    Deliveries,
    DeliveryShape,
    Envelope,
    read_confirms,
    read_deliveries,
)  # fmt: skip
from qtools.engines.amqp.protocol.methods import (
    BODY,
    FRAME_END,
    HEADER,
    HEARTBEAT,
    METHOD,
    WITH_CONTENT,
    Method,
    decode_method,
)  # fmt: skip
from qtools.errors import ProtocolError

MOST_BYTES = 512 * 1024 * 1024  # of a message: the most that RabbitMQ can be set to accept
SMALLEST_FRAME_MAX = 4096  # of every peer, before connection.tune (4.2.3)

_FRAME = struct.Struct(">BHI")
_HEADER = struct.Struct(">HHQ")  # class, weight, body size


class Content(NamedTuple):
    """A message that is no delivery: method is basic.return or basic.get-ok (or basic.publish, for a server)."""

    method: Method
    properties: bytes
    body: bytes


Frame = Method | Content | Deliveries | Confirms


class _Partial:
    """A message of which something is still to come."""

    __slots__ = ("have", "method", "parts", "properties", "size")

    def __init__(self, method: Method) -> None:
        self.method = method
        self.properties = b""
        self.size = -1  # until the header has come
        self.have = 0
        self.parts: list[bytes] = []


class AmqpFrameReader:
    """Parses what a server sends. frame_max: bytes of a frame, set after connection.tune; 0 is not allowed.

    heartbeats: how many have come. Runs of deliveries and of acks have loops of their own, and keep their place among
    the other frames.
    """

    __slots__ = ("_acks", "_data", "_partial", "_shapes", "_started", "frame_max", "heartbeats")

    def __init__(self) -> None:
        self.frame_max = SMALLEST_FRAME_MAX * 64  # connection.start may be long, and comes before connection.tune
        self.heartbeats = 0
        self._data = b""
        self._partial: dict[int, _Partial] = {}  # by channel
        self._shapes: dict[int, DeliveryShape] = {}
        self._acks: dict[int, bytes] = {}  # how a basic.ack begins, on channels where one has come
        self._started = False

    def read(self, chunk: bytes) -> list[Frame]:
        """All that is complete with `chunk`. ProtocolError if it is not AMQP."""
        data = self._data + chunk if self._data else chunk
        found: list[Frame] = []
        at, end, most = 0, len(data), self.frame_max - 8
        if not self._started and end:
            self._check_start(data)
        while end - at >= 8:
            kind, channel, size = _FRAME.unpack_from(data, at)
            if kind == METHOD:
                if channel in self._acks:
                    tags: list[int] = []
                    stop = read_confirms(data, at, self._acks[channel], tags)
                    if tags:
                        found.append(Confirms(channel, tags))
                        at = stop
                        continue
                if channel in self._shapes and found and channel not in self._partial:
                    last = found[-1]
                    if last.__class__ is Deliveries and last.channel == channel:
                        stop = read_deliveries(data, at, last, self._shapes[channel], most)
                        if stop != at:
                            at = stop
                            continue
            if size > most:
                raise ProtocolError(f"a frame of {size + 8:,} bytes was announced; {self.frame_max:,} are allowed")
            stop = at + 8 + size
            if stop > end:
                break
            if data[stop - 1] != FRAME_END:
                raise ProtocolError("a frame does not end where its size says")
            self._take(kind, channel, data[at + 7 : stop - 1], found)
            at = stop
        self._data = data[at:]
        return found

    def _check_start(self, data: bytes) -> None:
        """ProtocolError if the first bytes show another protocol; AMQP's own protocol header means a wrong version."""
        if data.startswith(b"AMQP"[: len(data)]):
            if len(data) >= 8:
                version = ".".join(map(str, data[5:8]))
                raise ProtocolError(f"the broker speaks AMQP {version}, and not 0-9-1")
            return
        self._started = True
        if data[0] not in (METHOD, HEARTBEAT):
            raise ProtocolError("its first bytes are no frame of AMQP")

    def _take(self, kind: int, channel: int, payload: bytes, found: list[Frame]) -> None:
        if kind == HEARTBEAT:
            if channel or payload:
                raise ProtocolError("a heartbeat has a channel or a payload")
            self.heartbeats += 1
            return
        partial = self._partial.get(channel)
        if kind == METHOD:
            if partial is not None:
                raise ProtocolError(f"a method came on channel {channel} before the end of a message")
            method = decode_method(channel, payload)
            if method.name in WITH_CONTENT:
                self._partial[channel] = _Partial(method)
                return
            if method.name == "basic.ack":
                self._acks.setdefault(channel, b"\1%b\0\0\0\x0d\0\x3c\0\x50" % channel.to_bytes(2, "big"))
                tag = method.arguments["delivery_tag"]
                found.append(Confirms(channel, [-tag if method.arguments["multiple"] else tag]))
                return
            found.append(method)
        elif partial is None or kind not in (HEADER, BODY):
            what = {HEADER: "a content header", BODY: "a body"}.get(kind, f"a frame of the unknown type {kind}")
            raise ProtocolError(f"{what} came on channel {channel}, where none was due")
        elif kind == HEADER:
            self._take_header(partial, payload)
        elif partial.size < 0:
            raise ProtocolError(f"a body came on channel {channel} before its content header")
        else:
            partial.parts.append(payload)
            partial.have += len(payload)
            if partial.have > partial.size:
                raise ProtocolError(f"a message has more than the {partial.size:,} bytes that its header announced")
        if partial is not None and partial.have == partial.size:
            del self._partial[channel]
            self._complete(channel, partial, found)

    @staticmethod
    def _take_header(partial: _Partial, payload: bytes) -> None:
        if partial.size >= 0:
            raise ProtocolError("a message has two content headers")
        if len(payload) < 14:
            raise ProtocolError("a content header ends before its properties")
        number, weight, size = _HEADER.unpack_from(payload, 0)
        if number != 60 or weight:
            raise ProtocolError(f"a content header is of class {number} with weight {weight}, and not of class 60")
        if size > MOST_BYTES:
            raise ProtocolError(f"a message of {size:,} bytes was announced; RabbitMQ's have at most {MOST_BYTES:,}")
        partial.size, partial.properties = size, payload[12:]

    def _complete(self, channel: int, partial: _Partial, found: list[Frame]) -> None:
        body = partial.parts[0] if len(partial.parts) == 1 else b"".join(partial.parts)
        method = partial.method
        if method.name != "basic.deliver":
            found.append(Content(method, partial.properties, body))
            return
        given = method.arguments
        envelope = Envelope(given["exchange"], given["routing_key"], given["redelivered"])
        self._shapes[channel] = DeliveryShape(channel, given["consumer_tag"], envelope)
        last, tag = found[-1] if found else None, given["delivery_tag"]
        if not (
            isinstance(last, Deliveries)
            and (last.channel, last.consumer_tag) == (channel, given["consumer_tag"])
            and last.first + len(last) == tag
        ):
            last = Deliveries(channel, given["consumer_tag"], tag)
            found.append(last)
        last.add(envelope, partial.properties, body)

    def forget(self, channel: int) -> None:
        """The channel is closed: what has arrived of a message on it is dropped."""
        self._partial.pop(channel, None)
        self._shapes.pop(channel, None)
        self._acks.pop(channel, None)

    def __len__(self) -> int:
        """Bytes that are kept: of an incomplete frame, and of messages of which something is still to come."""
        return len(self._data) + sum(partial.have for partial in self._partial.values())

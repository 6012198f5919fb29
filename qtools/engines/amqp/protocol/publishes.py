"""Batches of messages as the frames that publish them. In: bodies, properties. Out: pieces of bytes for one write.

Most messages of a batch have the same exchange, routing key and properties but for the message id. What stands before
the id, and between it and the body, is made once for each body size, so that a message costs three pieces.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from qtools.engines.amqp.protocol.methods import END, encode_method
from qtools.engines.amqp.protocol.properties import PERSISTENT, Properties

_BODY = struct.Struct(">BHI")
_HEADER = struct.Struct(">BHIHHQ")  # the frame's type, channel and size, then class, weight and body size
ID_DIGITS = 16  # of a message id
_MARK = b"\0" * ID_DIGITS
PLAIN = Properties(delivery_mode=PERSISTENT)


class Outgoing(NamedTuple):
    """A message whose properties are its own. routing_key: at most 255 bytes."""

    routing_key: bytes
    properties: bytes  # encoded
    body: bytes


def publish_method(channel: int, exchange: str, routing_key: bytes) -> bytes:
    """The frame of basic.publish; mandatory: a message that no queue gets comes back as a basic.return."""
    return encode_method(channel, "basic.publish", exchange=exchange, routing_key=routing_key, mandatory=True)


class BatchEncoder:
    """Encodes messages for one exchange on one channel, all with the same routing key and properties.

    given: properties without message_id, which each message gets. frame_max: bytes of a frame.
    """

    __slots__ = ("_before_header", "_before_id", "_behind_id", "_channel", "_most", "_prefixes", "_size")

    def __init__(
        self, channel: int, exchange: str, frame_max: int, routing_key: bytes = b"", given: Properties = PLAIN
    ) -> None:
        encoded = given._replace(message_id=_MARK).encode()
        # The message id is short and behind the headers, in which a mark of zeros may stand too: the last one is it.
        place = encoded.rindex(b"%c%b" % (ID_DIGITS, _MARK)) + 1
        self._channel = channel
        self._most = frame_max - 8
        self._before_header = publish_method(channel, exchange, routing_key)
        self._size = 12 + len(encoded)
        self._before_id = encoded[:place]
        self._behind_id = encoded[place + ID_DIGITS :] + END
        self._prefixes: dict[int, tuple[bytes, bytes]] = {}  # by the size of a body

    def _prefix(self, size: int) -> tuple[bytes, bytes]:
        """What stands before the id of a message with a body of `size` bytes, and between the id and the body."""
        if len(self._prefixes) > 4096:
            self._prefixes.clear()
        header = _HEADER.pack(2, self._channel, self._size, 60, 0, size)
        body = _BODY.pack(3, self._channel, size) if 0 < size <= self._most else b""
        made = self._prefixes[size] = (self._before_header + header + self._before_id, self._behind_id + body)
        return made

    def encode(self, first_id: int, bodies: Iterable[bytes]) -> list[bytes]:
        """The pieces that publish `bodies`; message ids count up from `first_id`."""
        pieces: list[bytes] = []
        add, prefixes, most, number = pieces.append, self._prefixes, self._most, first_id
        for body in bodies:
            size = len(body)
            before, behind = prefixes.get(size) or self._prefix(size)
            add(before)
            add(b"%016x" % number)
            add(behind)
            number += 1
            if 0 < size <= most:
                add(body)
                add(END)
            elif size:
                pieces += body_frames(self._channel, body, most)
        return pieces


def encode_each(channel: int, exchange: str, frame_max: int, messages: Sequence[Outgoing]) -> list[bytes]:
    """The pieces that publish messages with properties of their own."""
    most = frame_max - 8
    methods: dict[bytes, bytes] = {}
    pieces: list[bytes] = []
    for routing_key, properties, body in messages:
        method = methods.get(routing_key)
        if method is None:
            method = methods[routing_key] = publish_method(channel, exchange, routing_key)
            if len(methods) > 4096:
                methods.clear()
        size = len(body)
        pieces += (method, _HEADER.pack(2, channel, 12 + len(properties), 60, 0, size), properties, END)
        if 0 < size <= most:
            pieces += (_BODY.pack(3, channel, size), body, END)
        elif size:
            pieces += body_frames(channel, body, most)
    return pieces


def body_frames(channel: int, body: bytes, most: int) -> list[bytes]:
    """A body in frames of at most `most` bytes each."""
    pieces: list[bytes] = []
    for start in range(0, len(body), most):
        part = body[start : start + most]
        pieces += (_BODY.pack(3, channel, len(part)), part, END)
    return pieces

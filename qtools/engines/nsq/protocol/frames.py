"""Server → client: frames. In: chunks of bytes. Out: all the messages and answers in them.

     0        4        8                                             4 + size
     ├────────┼────────┼───────────────────────────────────────────────┤
     │  size  │  type  │ data                                          │   big-endian int32s;
     └────────┴────────┴───────────────────────────────────────────────┘   size counts type and data
                       a message's data (type 2):
                       ├ timestamp 8 ┼ attempts 2 ┼ id 16 ┼ body … ┤

One tight loop parses the complete messages of a chunk; `_other` handles everything else: responses, errors, incomplete
frames. A size out of bounds or an unknown type raises ProtocolError, and no more than `max_frame_size` bytes of a frame
are kept.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from qtools.engines.nsq.protocol.stamped_messages import StampedMessages
from qtools.errors import ProtocolError
from qtools.message import Message, Messages
from qtools.receive_buffer import ReceiveBuffer

RESPONSE, ERROR, MESSAGE = 0, 1, 2

HEARTBEAT = b"_heartbeat_"
OK = b"OK"
CLOSE_WAIT = b"CLOSE_WAIT"

MESSAGE_OVERHEAD = 30  # what a frame's size counts beside the body: type 4, timestamp 8, attempts 2, id 16

# nsqd's --max-msg-size can be raised, but messages of 128 MiB do not occur in practice; this bounds the memory that a
# peer can make a client use.
MAX_FRAME_SIZE = 128 * 1024 * 1024

_SIZE_AND_TYPE = struct.Struct(">ii")
_MESSAGE = struct.Struct(">iiqH16s")
_MESSAGE_COLUMNS = struct.Struct(">ii10s16s")  # the stamp is not unpacked, as few readers need it


class Frame(NamedTuple):
    """A response or an error, or a message where single frames are read, as it arrived."""

    kind: int
    data: bytes


def encode_frame(kind: int, data: bytes) -> bytes:
    """A frame around `data`."""
    return _SIZE_AND_TYPE.pack(4 + len(data), kind) + data


def encode_message(message: Message) -> bytes:
    """A message as the frame that delivers it."""
    return (
        _MESSAGE.pack(MESSAGE_OVERHEAD + len(message.body), MESSAGE, message.timestamp, message.attempts, message.id)
        + message.body
    )


class FrameReader:
    """Parses chunks into frames. After a ProtocolError it cannot be used any more."""

    __slots__ = ("_buffer", "_max_frame_size", "_started")

    def __init__(self, max_frame_size: int = MAX_FRAME_SIZE) -> None:
        self._buffer = ReceiveBuffer()
        self._max_frame_size = max_frame_size
        self._started = False

    def read(self, chunk: bytes) -> tuple[Messages, list[Frame]]:
        """The frames that are complete with `chunk`: the messages, and separately the other frames.

        Each list has the order of arrival. A handshake, which needs one frame at a time, uses `read_one`.
        """
        messages = StampedMessages([], [], [])
        others: list[Frame] = []
        buffer = self._buffer
        if not buffer.add(chunk):
            return messages, others
        data, at, end = buffer.data, buffer.at, len(buffer.data)
        unpack, limit = _MESSAGE_COLUMNS.unpack_from, self._max_frame_size
        add_id, add_body, add_stamp = messages.ids.append, messages.bodies.append, messages.stamps.append
        while True:
            while end - at >= 34:
                size, kind, stamp, ident = unpack(data, at)
                stop = at + 4 + size
                if kind != 2 or stop > end or size < 30 or size > limit:
                    break
                add_id(ident)
                add_body(data[at + 34 : stop])
                add_stamp(stamp)
                at = stop
            buffer.at = at
            frame = self._other()
            if frame is None:
                return messages, others
            others.append(frame)  # not a message, as the loop above has parsed the complete ones
            data, at = buffer.data, buffer.at

    def read_one(self, chunk: bytes = b"") -> Frame | None:
        """The next frame of any kind, or None until more bytes come."""
        if not self._buffer.add(chunk):
            return None
        return self._other()

    def take_rest(self) -> bytes:
        """Return and forget the bytes after the last frame, for a transform that decodes them."""
        return self._buffer.take_rest()

    def _other(self) -> Frame | None:
        """The next frame in the buffer, or None if it is incomplete."""
        buffer = self._buffer
        have = len(buffer.data) - buffer.at
        if not self._started and have >= 4:
            self._started = True
            if buffer.data.startswith(b"HTTP"):
                raise ProtocolError("the peer answers HTTP, not NSQ's TCP protocol", looks_like="HTTP")
        if have < 8:
            return None
        size, kind = _SIZE_AND_TYPE.unpack_from(buffer.data, buffer.at)
        if not 4 <= size <= self._max_frame_size:
            raise ProtocolError(f"a frame of {size} bytes was announced; NSQ's have 4 to {self._max_frame_size}")
        if kind not in (RESPONSE, ERROR, MESSAGE):
            raise ProtocolError(f"a frame of type {kind} came; NSQ's types are 0, 1 and 2")
        if kind == MESSAGE and size < MESSAGE_OVERHEAD:
            raise ProtocolError(f"a message frame of {size} bytes came; its header alone has {MESSAGE_OVERHEAD}")
        if have < 4 + size:
            buffer.need(4 + size)
            return None
        start = buffer.at + 8
        buffer.at += 4 + size
        return Frame(kind, buffer.data[start : buffer.at])


def _decode_message(data: bytes) -> Message:
    timestamp, attempts, ident = struct.unpack_from(">qH16s", data)
    return Message(timestamp, attempts, ident, data[26:])


def decode_frame(frame: Frame) -> Message | Frame:
    """A frame of `read_one`; if it is a message, as a Message."""
    return _decode_message(frame.data) if frame.kind == MESSAGE else frame

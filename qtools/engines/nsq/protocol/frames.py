"""Server → client: frames. In: chunks of bytes. Out: all the messages and answers in them.

     0        4        8                                             4 + size
     ├────────┼────────┼───────────────────────────────────────────────┤
     │  size  │  type  │ data                                          │   big-endian int32s;
     └────────┴────────┴───────────────────────────────────────────────┘   size counts type and data
                       a message's data (type 2):
                       ├ timestamp 8 ┼ attempts 2 ┼ id 16 ┼ body … ┤

One tight loop takes every message that is whole out of a chunk; all else (answers, errors, a frame that
is still coming) leaves the loop for `_other`. A frame is never trusted: a size out of bounds or a type
that is none raises ProtocolError, and no byte is held beyond `max_frame_size`.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from qtools.engines.nsq.protocol.receive_buffer import ReceiveBuffer
from qtools.errors import ProtocolError
from qtools.message import Message, Messages

RESPONSE, ERROR, MESSAGE = 0, 1, 2

HEARTBEAT = b"_heartbeat_"
OK = b"OK"
CLOSE_WAIT = b"CLOSE_WAIT"

MESSAGE_OVERHEAD = 30  # what a frame's size counts beside the body: type 4, timestamp 8, attempts 2, id 16

# nsqd's --max-msg-size can be raised; nobody sends messages of 128 MiB through a queue, and something has to
# bound what a peer can make us hold.
MAX_FRAME_SIZE = 128 * 1024 * 1024

_SIZE_AND_TYPE = struct.Struct(">ii")
_MESSAGE = struct.Struct(">iiqH16s")
_MESSAGE_COLUMNS = struct.Struct(">ii10s16s")  # the stamp left as it is: few who read need it


class Frame(NamedTuple):
    """An answer (RESPONSE) or an error (ERROR), as it came."""

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
    """Takes chunks, gives frames. Raises ProtocolError, after which it is of no more use."""

    __slots__ = ("_buffer", "_max_frame_size", "_started")

    def __init__(self, max_frame_size: int = MAX_FRAME_SIZE) -> None:
        self._buffer = ReceiveBuffer()
        self._max_frame_size = max_frame_size
        self._started = False

    def read(self, chunk: bytes) -> tuple[Messages, list[Frame]]:
        """Everything that is whole with `chunk`: the messages, and apart from them the other frames.

        Within each the order is that of arrival. Whoever wants one frame at a time, as a handshake
        does, uses `read_one`.
        """
        messages = Messages([], [], [])
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
            others.append(frame)  # no message: one that is whole the loop above has taken
            data, at = buffer.data, buffer.at

    def read_one(self, chunk: bytes = b"") -> Frame | None:
        """The next frame of any kind, or None until more bytes come."""
        if not self._buffer.add(chunk):
            return None
        return self._other()

    def take_rest(self) -> bytes:
        """What follows the last frame read, for a filter that is put in between."""
        return self._buffer.take_rest()

    def _other(self) -> Frame | None:
        """One frame from where the inbox is, or None when it is not whole."""
        buffer = self._buffer
        have = len(buffer.data) - buffer.at
        if not self._started and have >= 4:
            self._started = True
            if buffer.data.startswith(b"HTTP"):
                raise ProtocolError("the peer answers HTTP, not NSQ's TCP protocol", spoke="HTTP")
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
    """What `read_one` gave, a message as a Message."""
    return _decode_message(frame.data) if frame.kind == MESSAGE else frame

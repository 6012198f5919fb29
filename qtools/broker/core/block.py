"""Messages published together, and ranges of them. In: bodies. Out: the frames that deliver them.

A batch becomes one Block. It is kept as the bytes in which it is sent, so that delivering many messages for the first
time is one slice:

    frames   ├ size 4 ┼ type 4 ┼ timestamp 8 ┼ attempts 2 ┼ id 16 ┼ body … ┤ × count,   attempts = 1

A MessageRange is a part of a block whose messages have the same state: waiting, in flight, deferred, requeued. A block
never changes; only messages that are delivered again are copied, to write their attempts. A block on disk may be
represented without its frames (`cold`) and read again when they are needed.

Ids are sequence numbers in hex, counted from the time in ns at which the topic was made. No topic takes a message each
nanosecond for years, so the numbers used before a restart are not used again.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from qtools.engines.nsq.protocol.frames import MESSAGE, MESSAGE_OVERHEAD

HEAD = 4 + MESSAGE_OVERHEAD  # bytes before a body
_ATTEMPTS_AT = 16
_ID_AT = 18

MAX_ATTEMPTS = 65535  # a uint16 on the wire; nsqd wraps round to 0, and a client takes that for a new message

_SIZE_AND_TYPE = struct.Struct(">ii")
_STAMP = struct.Struct(">qH")

# Most bodies are small, and looking up a tuple costs half as much as packing.
_SMALL = tuple(_SIZE_AND_TYPE.pack(MESSAGE_OVERHEAD + n, MESSAGE) for n in range(4096))

# Neighbours differ in their last digits, so those are kept as text: a third of the cost of formatting each number.
_LOW_BITS = 12
_LOWS = tuple(b"%03x" % low for low in range(1 << _LOW_BITS))
_LOW_LINES = b"".join(low + b"\n" for low in _LOWS)


def _stretches(first: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """Split the numbers `first` to `stop` by common high digits. Yields those, and the range of low digits in the
    tables."""
    while first < stop:
        high, low = first >> _LOW_BITS, first & ((1 << _LOW_BITS) - 1)
        until = min(low + stop - first, 1 << _LOW_BITS)
        yield b"%013x" % high, low, until
        first += until - low


def message_ids(first: int, stop: int, before: bytes = b"") -> list[bytes]:
    """The ids of the messages with the numbers `first` to `stop`, 16 hex digits each, with `before` in front of
    each."""
    ids: list[bytes] = []
    for high, low, until in _stretches(first, stop):
        ids += map((before + high).__add__, _LOWS[low:until])
    return ids


def message_fins(first: int, stop: int) -> bytes:
    """The lines by which a client finishes all of those messages in order: `FIN ID\\n` for each."""
    lines: list[bytes] = []
    for high, low, until in _stretches(first, stop):
        # One copy, and one replacement of each line end by itself and the beginning of the next line.
        lows = _LOW_LINES[low * 4 : until * 4 - 1]
        lines += b"FIN ", high, lows.replace(b"\n", b"\nFIN " + high), b"\n"
    return b"".join(lines)


class Block:
    """Messages published together. timestamp, due: ns since 1970; due is 0 unless they are deferred.

    seq: the number in a durable store, in the order of publishing over all topics; 0 without one. base: the number of
    the first message.
    """

    __slots__ = ("_offsets", "base", "count", "due", "frames", "seq", "timestamp")

    def __init__(self, base: int, bodies: Sequence[bytes], timestamp: int, due: int = 0) -> None:
        self.seq = 0
        self.base = base
        self.count = count = len(bodies)
        self.timestamp = timestamp
        self.due = due
        lengths = list(map(len, bodies))
        try:
            heads = list(map(_SMALL.__getitem__, lengths))
        except IndexError:
            heads = [_SIZE_AND_TYPE.pack(MESSAGE_OVERHEAD + n, MESSAGE) for n in lengths]
        # Whole columns are assigned at once: a loop over the messages costs three times as much.
        parts = [b""] * (3 * count)
        parts[0::3] = heads
        parts[1::3] = message_ids(base, base + count, _STAMP.pack(timestamp, 1))
        parts[2::3] = bodies
        self.frames = b"".join(parts)
        # Where each body would begin if there were only bodies: `offset` adds the heads.
        self._offsets = array("I" if len(self.frames) < 1 << 32 else "Q", accumulate(lengths, initial=0))

    @classmethod
    def stored(
        cls, seq: int, base: int, count: int, timestamp: int, due: int, offsets: bytes = b"", frames: bytes = b""
    ) -> Block:
        """A block read from a store; without `frames` a cold one."""
        block = cls.__new__(cls)
        block.seq, block.base, block.count, block.timestamp, block.due = seq, base, count, timestamp, due
        block.frames = frames
        block._offsets = array("I" if len(offsets) == 4 * (count + 1) else "Q")
        block._offsets.frombytes(offsets)
        return block

    @property
    def offsets(self) -> bytes:
        """The `offsets` for `stored`: `count` + 1 numbers of 4 or 8 bytes each, in the byte order of this machine."""
        return self._offsets.tobytes()

    @property
    def is_cold(self) -> bool:
        """Whether its frames have to be read before its messages can be delivered."""
        return not self.frames

    def cold(self) -> Block:
        """The same block without its frames."""
        return Block.stored(self.seq, self.base, self.count, self.timestamp, self.due)

    def offset(self, place: int) -> int:
        """Where the frame of the message at `place` begins."""
        return self._offsets[place] + HEAD * place

    def size(self, start: int, stop: int) -> int:
        """How many bytes the frames from `start` to `stop` have."""
        return self._offsets[stop] - self._offsets[start] + HEAD * (stop - start)

    def body_size(self, start: int, stop: int) -> int:
        """How many bytes the bodies from `start` to `stop` have."""
        return self._offsets[stop] - self._offsets[start]

    def ids(self, start: int, stop: int) -> list[bytes]:
        """The ids of the messages from `start` to `stop`."""
        return message_ids(self.base + start, self.base + stop)

    def fins(self, start: int, stop: int) -> bytes:
        """The lines that finish the messages from `start` to `stop` in order."""
        return message_fins(self.base + start, self.base + stop)

    def place(self, ident: bytes) -> int:
        """The place of the message `ident` in the block."""
        return int(ident, 16) - self.base

    def deliver(self, start: int, stop: int, attempts: int) -> bytes:
        """The frames that deliver the messages from `start` to `stop` for the `attempts`-th time."""
        first = self.offset(start)
        frames = self.frames[first : self.offset(stop)]
        if attempts == 1:
            return frames
        patched = bytearray(frames)
        count = min(attempts, MAX_ATTEMPTS).to_bytes(2, "big")
        for place in range(start, stop):
            at = self.offset(place) - first + _ATTEMPTS_AT
            patched[at : at + 2] = count
        return bytes(patched)

    def __repr__(self) -> str:
        return f"<Block {self.base:016x} {self.count} messages, {len(self.frames)} bytes>"


NOTHING = Block(0, [], 0)


class MessageRange:
    """The messages `start` to `stop` of a block, which were delivered `attempts` times so far.

    While they are in flight: left: how many are not finished, anywhere in the range; sent, deadline: when they were
    sent and when they time out, seconds on the caller's clock; fins: the lines that finish them in order, or b"".
    """

    __slots__ = ("attempts", "block", "deadline", "fins", "left", "sent", "start", "stop")

    def __init__(self, block: Block, start: int, stop: int, attempts: int = 0) -> None:
        self.block = block
        self.start = start
        self.stop = stop
        self.attempts = attempts
        self.left = 0
        self.fins = b""
        self.sent = 0.0
        self.deadline = 0.0

    def __len__(self) -> int:
        return self.stop - self.start

    def __repr__(self) -> str:
        return (
            f"<MessageRange {self.block.base:016x}[{self.start}:{self.stop}] attempts={self.attempts} left={self.left}>"
        )


def first_ranges(ranges: Iterable[MessageRange], count: int) -> list[MessageRange]:
    """Copies of the first ranges: at most `count` messages."""
    found: list[MessageRange] = []
    for run in ranges:
        if count <= 0:
            break
        size = min(count, run.stop - run.start)
        found.append(MessageRange(run.block, run.start, run.start + size, run.attempts))
        count -= size
    return found

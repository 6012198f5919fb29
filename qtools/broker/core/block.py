"""Messages published together, and runs of them. In: bodies. Out: the frames that deliver them.

A batch becomes one Block, kept as the bytes it will be sent as, so that delivering many messages for the
first time is one slice:

    frames   ├ size 4 ┼ type 4 ┼ timestamp 8 ┼ attempts 2 ┼ id 16 ┼ body … ┤ × count,   attempts = 1

A Run is a stretch of a block that goes one way together: waiting, in flight, deferred, given back. A
block never changes; only a message that is delivered again is copied, to write its attempts in. A block that is on
disk may stand for itself without its frames (`cold`), and be read again when it is wanted.

Ids are a sequence number in hex, counted up from the time in ns at which its topic was made: a topic
does not take in a message a nanosecond for years on end, so that numbers of before a restart never come again.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from qtools.engines.nsq.protocol.frames import MESSAGE, MESSAGE_OVERHEAD

HEAD = 4 + MESSAGE_OVERHEAD  # what stands before a body
_ATTEMPTS_AT = 16
_ID_AT = 18

MAX_ATTEMPTS = 65535  # a uint16 on the wire; nsqd wraps round to 0, which a client takes for a fresh message

_SIZE_AND_TYPE = struct.Struct(">ii")
_STAMP = struct.Struct(">qH")

# Most bodies are small, and a tuple look-up is half the price of packing.
_SMALL = tuple(_SIZE_AND_TYPE.pack(MESSAGE_OVERHEAD + n, MESSAGE) for n in range(4096))

# Neighbours differ in their last digits, whose text is kept: a third of the price of formatting each number.
_LOW_BITS = 12
_LOWS = tuple(b"%03x" % low for low in range(1 << _LOW_BITS))
_LOW_LINES = b"".join(low + b"\n" for low in _LOWS)


def _stretches(first: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """The numbers `first` to `stop`, as high digits in common and where their low digits stand in the tables."""
    while first < stop:
        high, low = first >> _LOW_BITS, first & ((1 << _LOW_BITS) - 1)
        until = min(low + stop - first, 1 << _LOW_BITS)
        yield b"%013x" % high, low, until
        first += until - low


def message_ids(first: int, stop: int, before: bytes = b"") -> list[bytes]:
    """The ids of the messages with the numbers `first` to `stop`, 16 hex digits each, and something `before` each."""
    ids: list[bytes] = []
    for high, low, until in _stretches(first, stop):
        ids += map((before + high).__add__, _LOWS[low:until])
    return ids


def message_fins(first: int, stop: int) -> bytes:
    """What a client says that is done with all of those messages in their order: `FIN ID\\n` for each."""
    lines: list[bytes] = []
    for high, low, until in _stretches(first, stop):
        # One copy and one replacement of what ends each line by that and the beginning of the next.
        lows = _LOW_LINES[low * 4 : until * 4 - 1]
        lines += b"FIN ", high, lows.replace(b"\n", b"\nFIN " + high), b"\n"
    return b"".join(lines)


class Block:
    """What was published together. `timestamp` and `due` are ns since 1970; `due` is 0 but for a deferred one.

    seq: its number in a durable store, in the order of publishing over all topics; 0 where there is none.
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
        # Whole columns at a time, as a loop over the rows costs three times as much.
        parts = [b""] * (3 * count)
        parts[0::3] = heads
        parts[1::3] = message_ids(base, base + count, _STAMP.pack(timestamp, 1))
        parts[2::3] = bodies
        self.frames = b"".join(parts)
        # Where each body would begin if there were nothing but bodies: `offset` adds the heads.
        self._offsets = array("I" if len(self.frames) < 1 << 32 else "Q", accumulate(lengths, initial=0))

    @classmethod
    def stored(
        cls, seq: int, base: int, count: int, timestamp: int, due: int, offsets: bytes = b"", frames: bytes = b""
    ) -> Block:
        """A block as a store gives it back; without `frames` a cold one."""
        block = cls.__new__(cls)
        block.seq, block.base, block.count, block.timestamp, block.due = seq, base, count, timestamp, due
        block.frames = frames
        block._offsets = array("I" if len(offsets) == 4 * (count + 1) else "Q")
        block._offsets.frombytes(offsets)
        return block

    @property
    def offsets(self) -> bytes:
        """What `stored` wants beside the frames: `count` + 1 numbers of 4 bytes, or 8, in this machine's order."""
        return self._offsets.tobytes()

    @property
    def is_cold(self) -> bool:
        """Whether its frames have to be read before anything of it can be delivered."""
        return not self.frames

    def cold(self) -> Block:
        """The same without its frames."""
        return Block.stored(self.seq, self.base, self.count, self.timestamp, self.due)

    def offset(self, place: int) -> int:
        """Where the frame of the message at `place` begins."""
        return self._offsets[place] + HEAD * place

    def size(self, start: int, stop: int) -> int:
        """How many bytes the frames of a stretch have."""
        return self._offsets[stop] - self._offsets[start] + HEAD * (stop - start)

    def body_size(self, start: int, stop: int) -> int:
        """How many bytes the bodies of a stretch have."""
        return self._offsets[stop] - self._offsets[start]

    def ids(self, start: int, stop: int) -> list[bytes]:
        """The ids of a stretch."""
        return message_ids(self.base + start, self.base + stop)

    def fins(self, start: int, stop: int) -> bytes:
        """The lines that finish a stretch in its order."""
        return message_fins(self.base + start, self.base + stop)

    def place(self, ident: bytes) -> int:
        """Where in the block the message called `ident` stands."""
        return int(ident, 16) - self.base

    def deliver(self, start: int, stop: int, attempts: int) -> bytes:
        """The frames that deliver a stretch for the `attempts`-th time."""
        first = self.offset(start)
        frames = self.frames[first : self.offset(stop)]
        if attempts == 1:
            return frames
        patched = bytearray(frames)
        told = min(attempts, MAX_ATTEMPTS).to_bytes(2, "big")
        for place in range(start, stop):
            at = self.offset(place) - first + _ATTEMPTS_AT
            patched[at : at + 2] = told
        return bytes(patched)

    def __repr__(self) -> str:
        return f"<Block {self.base:016x} {self.count} messages, {len(self.frames)} bytes>"


NOTHING = Block(0, [], 0)


class MessageRange:
    """Messages `start` to `stop` of a block, which were delivered `attempts` times so far.

    While in flight: `left` of them are still in the hands of the client, since `sent`, until `deadline`
    (seconds on the clock that the caller uses). Some in between may be gone already. `fins` are the lines that
    finish it in its order, where that is looked for.
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
        return f"<Run {self.block.base:016x}[{self.start}:{self.stop}] attempts={self.attempts} left={self.left}>"


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

"""The ids of a stream's entries. In: ids as Redis has them, b"1700000000123-0". Out: order, times, ids of messages.

1700000000123-0     ms since 1970, when the entry was added, or as its publisher gave it; a number within the ms
"""

from __future__ import annotations

from typing import NamedTuple

FIRST = b"0-0"  # before all entries
_LAST_NUMBER = (1 << 64) - 1
_LATEST = (1 << 63) - 1  # ns since 1970 that a message can hold
_NUMBER_BITS = 20  # of the 64 bits of a message's id; a server adds no million entries in a ms
_TIME_LIMIT = 1 << (64 - _NUMBER_BITS)  # ms, in the year 2527


class StreamId(NamedTuple):
    """An id; ids are ordered like the entries in the stream."""

    ms: int
    number: int

    @classmethod
    def of(cls, ident: bytes) -> StreamId:
        """ValueError if `ident` is no id."""
        ms, _, number = ident.partition(b"-")
        return cls(int(ms), int(number or b"0"))

    def __bytes__(self) -> bytes:
        return b"%d-%d" % self


def id_before(time: float) -> bytes:
    """The last id that an entry from before `time` (s since 1970) can have."""
    ms = max(0, round(time * 1000))
    return b"%d-%d" % (ms - 1, _LAST_NUMBER) if ms else FIRST


def time_of(ident: bytes) -> int:
    """The time in an id, ns since 1970."""
    return min(_LATEST, int(ident[: ident.index(b"-")]) * 1_000_000)


def message_id(ident: bytes) -> bytes:
    """The 16 hexadecimal digits of a message's id: 11 for the ms and 5 for the number. Ids with larger numbers, which
    only publishers make, are hashed."""
    ms, number = StreamId.of(ident)
    if ms < _TIME_LIMIT and number >> _NUMBER_BITS == 0:
        return b"%016x" % (ms << _NUMBER_BITS | number)
    from hashlib import blake2b

    return blake2b(ident, digest_size=8).hexdigest().encode()

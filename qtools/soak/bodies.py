"""The bodies of numbered messages. In: numbers, or bodies that were delivered. Out: bodies, or numbers.

    offset  bytes
    0       4      "QSK1"
    4       8      the run, at random: two runs may use one topic
    12      8      the number, big-endian; from PROBE on it is a probe
    20      8      when it was published: ns of the monotonic clock, which all processes of a machine share
    28      n      filler: bytes at random, the same in all messages of a run
    -4      4      CRC-32 of everything before, little-endian

The CRC-32 of data that ends with its own CRC-32 is the same number for all data. So a batch is checked without a copy
or a comparison for each body.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import repeat
from typing import NamedTuple
from zlib import crc32

MAGIC = b"QSK1"
RUN_BYTES = 8
PROBE = 1 << 63

_HEADER = struct.Struct(">12sQQ")
_CHECKSUM = struct.Struct("<I")
MIN_SIZE = _HEADER.size + _CHECKSUM.size
_VALID = 0x2144DF1C  # the CRC-32 of every body that ends with its CRC-32


class BodyMaker:
    """Makes the bodies of the run `run` (RUN_BYTES bytes). size: bytes of each, at least MIN_SIZE."""

    def __init__(self, run: bytes, size: int) -> None:
        import random  # takes longer to import than all the rest, and --help does not need it

        self._prefix = MAGIC + run
        self._filler = random.Random(run).randbytes(size - MIN_SIZE)

    def make(self, first: int, count: int, stamp: int) -> list[bytes]:
        """The bodies of the numbers from `first` on, published at `stamp`."""
        filler = self._filler
        heads = map(_HEADER.pack, repeat(self._prefix, count), range(first, first + count), repeat(stamp))
        unchecked = [head + filler for head in heads]
        checksums = map(_CHECKSUM.pack, map(crc32, unchecked))
        return [body + checksum for body, checksum in zip(unchecked, checksums, strict=True)]


class CheckedBodies(NamedTuple):
    """What a batch of bodies has. numbers, stamps: of the messages of this run, in the order of their arrival; probes:
    of its probes, numbered from 0. foreign: how many others there are. corrupted: how many messages of this run have a
    wrong checksum."""

    numbers: Sequence[int]
    stamps: Sequence[int]
    probes: Sequence[int] = ()
    foreign: int = 0
    corrupted: int = 0


class BodyChecker:
    """Checks bodies of the run `run`. is_own_topic: whether only this run publishes to the topic, so that what is no
    message of this run is one that was corrupted."""

    def __init__(self, run: bytes, *, is_own_topic: bool) -> None:
        self._prefix = MAGIC + run
        self._is_own_topic = is_own_topic

    def check(self, bodies: Sequence[bytes]) -> CheckedBodies:
        if not bodies:
            return CheckedBodies((), ())
        if set(map(crc32, bodies)) == {_VALID} and min(map(len, bodies)) >= MIN_SIZE:
            prefixes, numbers, stamps = zip(*map(_HEADER.unpack_from, bodies), strict=True)
            if set(prefixes) == {self._prefix} and max(numbers) < PROBE:
                return CheckedBodies(numbers, stamps)
        return self._check_each(bodies)

    def _check_each(self, bodies: Sequence[bytes]) -> CheckedBodies:
        numbers: list[int] = []
        stamps: list[int] = []
        probes: list[int] = []
        foreign = corrupted = 0
        for body in bodies:
            is_ours = body.startswith(self._prefix)
            if not is_ours or len(body) < MIN_SIZE or crc32(body) != _VALID:
                if is_ours or self._is_own_topic:
                    corrupted += 1
                else:
                    foreign += 1
                continue
            _, number, stamp = _HEADER.unpack_from(body)
            if number >= PROBE:
                probes.append(number - PROBE)
            else:
                numbers.append(number)
                stamps.append(stamp)
        return CheckedBodies(numbers, stamps, probes, foreign, corrupted)

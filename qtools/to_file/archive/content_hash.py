"""A hash over which messages are in a file. In: topic, nsqds, message ids. Out: hex, the same in any order.

Two files of the same messages get the same hash, in whatever order and batches these came, and nobody has to keep
or sort the ids of a file of any size. It is the set's polynomial, evaluated at a point that follows from where
the messages come from:

    ∏ (r - id)  modulo 2¹²⁷ - 1,    r = SHA-256(topic NUL nsqd)        over all messages of the file

Different sets agree with a probability of about their size in 2¹²⁷ (Schwartz, Zippel); ids are the broker's, nobody
chooses them. What is shown is SHA-256 over topic, count and that value, shortened to 128 bits.
"""

from __future__ import annotations

import hashlib
import sys
from array import array
from binascii import Error, unhexlify
from collections.abc import Iterable

_PRIME = (1 << 127) - 1
_FOREIGN = 1 << 64  # where ids begin that are not 16 hex digits


class ContentHash:
    """The hash of a growing set of one topic's messages. `value` and `count` are all of its state."""

    def __init__(self, topic: str, value: int = 1, count: int = 0) -> None:
        self.topic = topic
        self.value = value
        self.count = count
        self._points: dict[str, int] = {}

    def add(self, nsqd: str, ids: list[bytes]) -> None:
        """Take in `ids` of messages that came from `nsqd`."""
        point = self._points.get(nsqd)
        if point is None:
            seed = hashlib.sha256(f"{self.topic}\0{nsqd}".encode()).digest()
            point = self._points[nsqd] = int.from_bytes(seed, "big") % _PRIME
        value = self.value
        for number in _numbers(ids):
            value = value * (point - number) % _PRIME
        self.value = value
        self.count += len(ids)

    def hexdigest(self) -> str:
        """32 hex digits."""
        told = f"{self.topic}\0{self.count}\0{self.value:x}"
        return hashlib.sha256(told.encode()).hexdigest()[:32]


def _numbers(ids: list[bytes]) -> Iterable[int]:
    try:
        packed = unhexlify(b"".join(ids))
    except Error:
        packed = b""
    if not packed or set(map(len, ids)) != {16}:
        return map(_number, ids)
    numbers = array("Q", packed)
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers


def _number(ident: bytes) -> int:
    """An id as a number, the same whatever stands beside it."""
    if len(ident) == 16:
        try:
            return int.from_bytes(unhexlify(ident), "big")
        except Error:
            pass
    return _FOREIGN + int.from_bytes(b"\1" + ident, "big") % _PRIME

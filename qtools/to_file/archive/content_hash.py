"""A hash of the set of messages in a file. In: topic, nsqds, message ids. Out: hex, the same in any order.

Two files of the same messages get the same hash, in whatever order and batches the messages arrived, and no ids have to
be kept or sorted. The hash is the polynomial of the set, evaluated at a point that depends on where the messages come
from:

    ∏ (r - id)  modulo 2¹²⁷ - 1,    r = SHA-256(topic NUL nsqd)        over all messages of the file

Two different sets have the same value with a probability of about their size divided by 2¹²⁷ (Schwartz, Zippel); the
broker makes the ids, so no sender can choose them. The result is SHA-256 over topic, count and value, cut to 128 bits.
"""

from __future__ import annotations

import hashlib
import sys
from array import array
from binascii import Error, unhexlify
from collections.abc import Iterable

_PRIME = (1 << 127) - 1
_FOREIGN = 1 << 64  # the numbers of ids that are not 16 hex digits begin here


class ContentHash:
    """The hash of a growing set of messages of one topic. Its whole state is `value` and `count`."""

    def __init__(self, topic: str, value: int = 1, count: int = 0) -> None:
        self.topic = topic
        self.value = value
        self.count = count
        self._points: dict[str, int] = {}

    def add(self, nsqd: str, ids: list[bytes]) -> None:
        """Add the messages `ids`, which came from `nsqd`."""
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
        text = f"{self.topic}\0{self.count}\0{self.value:x}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]


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
    """An id as a number, which does not depend on the other ids."""
    if len(ident) == 16:
        try:
            return int.from_bytes(unhexlify(ident), "big")
        except Error:
            pass
    return _FOREIGN + int.from_bytes(b"\1" + ident, "big") % _PRIME

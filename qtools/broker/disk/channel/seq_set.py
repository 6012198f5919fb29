"""A set of block numbers that takes little memory. In: numbers. Out: whether one is in the set; the lowest ones.

The numbers of one store are close together. A bit for each, in integers of 1024 bits, takes an eighth of a byte for
each block of a long sequence; a Python set takes some 60 bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

_SHIFT = 10
_MASK = (1 << _SHIFT) - 1


class SeqSet:
    """Numbers of blocks, 0 or more each."""

    __slots__ = ("_chunks", "_lowest")

    def __init__(self) -> None:
        self._chunks: dict[int, int] = {}
        self._lowest: int | None = None  # the first chunk; None when it is not known

    def add(self, seq: int) -> None:
        chunk = seq >> _SHIFT
        self._chunks[chunk] = self._chunks.get(chunk, 0) | 1 << (seq & _MASK)
        if self._lowest is not None and chunk < self._lowest:
            self._lowest = chunk

    def add_bits(self, first: int, bits: int) -> None:
        """Add `first` + N for each bit N that is set in `bits`; all of them are in one chunk of 1024."""
        chunk = first >> _SHIFT
        self._chunks[chunk] = self._chunks.get(chunk, 0) | bits << (first & _MASK)
        if self._lowest is not None and chunk < self._lowest:
            self._lowest = chunk

    def discard(self, seq: int) -> None:
        chunk = seq >> _SHIFT
        bits = self._chunks.get(chunk)
        if bits is None:
            return
        bits &= ~(1 << (seq & _MASK))
        if bits:
            self._chunks[chunk] = bits
        else:
            del self._chunks[chunk]
            if chunk == self._lowest:
                self._lowest = None

    def update(self, other: SeqSet) -> None:
        """Add all numbers of `other`."""
        for chunk, bits in other._chunks.items():
            self._chunks[chunk] = self._chunks.get(chunk, 0) | bits
        self._lowest = None

    def clear(self) -> None:
        self._chunks.clear()
        self._lowest = None

    def lowest(self, default: int) -> int:
        """The lowest number, `default` when there is none."""
        if not self._chunks:
            return default
        if self._lowest is None:
            self._lowest = min(self._chunks)
        bits = self._chunks[self._lowest]
        return (self._lowest << _SHIFT) + (bits & -bits).bit_length() - 1

    def first(self, count: int) -> list[int]:
        """The lowest `count` numbers, in order."""
        found: list[int] = []
        for seq in self:
            if len(found) == count:
                break
            found.append(seq)
        return found

    def __iter__(self) -> Iterator[int]:
        for chunk in sorted(self._chunks):
            bits = self._chunks[chunk]
            while bits:
                low = bits & -bits
                yield (chunk << _SHIFT) + low.bit_length() - 1
                bits ^= low

    def __contains__(self, seq: int) -> bool:
        bits = self._chunks.get(seq >> _SHIFT)
        return bits is not None and bool(bits >> (seq & _MASK) & 1)

    def __bool__(self) -> bool:
        return bool(self._chunks)

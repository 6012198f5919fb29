"""Bytes that have arrived and are not parsed yet. The readers of the protocols use it.

In: chunks, as they are read from a socket. Out: `data` from `at` on. A reader calls `need` when it knows how many bytes
the next item has; until they are there, chunks are collected in a list and not copied. No memory is allocated for a
length that a peer has only announced.
"""

from __future__ import annotations


class ReceiveBuffer:
    """A reader parses `data[at:]` and advances `at` over what it has parsed."""

    __slots__ = ("_have", "_need", "_waiting", "at", "data")

    def __init__(self) -> None:
        self.data = b""
        self.at = 0
        self._waiting: list[bytes] = []
        self._have = 0
        self._need = 0

    def add(self, chunk: bytes) -> bool:
        """Add a chunk. False if the bytes that the reader needs are not all there: then it has nothing to parse."""
        if self._waiting:
            self._waiting.append(chunk)
            self._have += len(chunk)
            if self._have < self._need:
                return False
            self.data = b"".join(self._waiting)
            self._waiting.clear()
        elif not chunk:
            return True  # the reader parses the same bytes again: no copy is needed
        elif self.at == len(self.data):
            self.data = chunk
        else:
            self.data = self.data[self.at :] + chunk
        self.at = 0
        return True

    def need(self, count: int) -> None:
        """Declare that nothing can be parsed before `count` bytes from `at` on are there."""
        rest = self.data[self.at :]
        self._waiting.append(rest)
        self._have, self._need = len(rest), count
        self.data, self.at = b"", 0

    @property
    def is_waiting(self) -> bool:
        """Whether the bytes that `need` declared have not all arrived."""
        return bool(self._waiting)

    @property
    def missing(self) -> int:
        """How many of those bytes have not arrived."""
        return self._need - self._have if self._waiting else 0

    def take_rest(self) -> bytes:
        """Return and forget all bytes that are not parsed, for a transform that decodes them."""
        rest = b"".join(self._waiting) + self.data[self.at :]
        self._waiting.clear()
        self.data, self.at = b"", 0
        return rest

    def __len__(self) -> int:
        return len(self.data) - self.at + (self._have if self._waiting else 0)

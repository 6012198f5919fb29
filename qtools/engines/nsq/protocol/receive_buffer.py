"""Bytes that arrived and are not yet understood: both readers of the protocol stand on one.

In: chunks, as they come off the socket. Out: `data` from `at` on. A reader that knows how much it
needs says so, and small chunks of a large message then wait in a list instead of being copied together
again and again. Nothing is ever allocated by a length that a peer only announced.
"""

from __future__ import annotations


class ReceiveBuffer:
    """`data[at:]` is what a reader may look at; it moves `at` on over what it has understood."""

    __slots__ = ("_have", "_need", "_waiting", "at", "data")

    def __init__(self) -> None:
        self.data = b""
        self.at = 0
        self._waiting: list[bytes] = []
        self._have = 0
        self._need = 0

    def add(self, chunk: bytes) -> bool:
        """Take a chunk; False while what the reader needs has not arrived, so that it need not look."""
        if self._waiting:
            self._waiting.append(chunk)
            self._have += len(chunk)
            if self._have < self._need:
                return False
            self.data = b"".join(self._waiting)
            self._waiting.clear()
        elif not chunk:
            return True  # asked to look again at what is there: not a reason to copy it
        elif self.at == len(self.data):
            self.data = chunk
        else:
            self.data = self.data[self.at :] + chunk
        self.at = 0
        return True

    def need(self, count: int) -> None:
        """Say that nothing can be understood before `count` bytes from `at` on are there."""
        rest = self.data[self.at :]
        self._waiting.append(rest)
        self._have, self._need = len(rest), count
        self.data, self.at = b"", 0

    @property
    def is_waiting(self) -> bool:
        """Whether what `need` asked for has not arrived."""
        return bool(self._waiting)

    @property
    def missing(self) -> int:
        """Bytes that have to arrive until then."""
        return self._need - self._have if self._waiting else 0

    def take_rest(self) -> bytes:
        """Everything not yet understood, and forget it: for a filter that is put in between."""
        rest = b"".join(self._waiting) + self.data[self.at :]
        self._waiting.clear()
        self.data, self.at = b"", 0
        return rest

    def __len__(self) -> int:
        return len(self.data) - self.at + (self._have if self._waiting else 0)

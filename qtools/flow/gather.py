"""A source's batches collected by count, bytes, age. In: batches and the time. Out: one batch. No clock.

For a sink to which a batch costs much whatever its size. What is collected is handed on when the first
of three limits is reached; `due` is when the age will be.
"""

from __future__ import annotations

from qtools.message import Batch


class Gather:
    """At most `count` messages or `size` bytes (both as good as reached), none older than `age` seconds."""

    def __init__(self, count: int, size: int, age: float) -> None:
        self._count = count
        self._size = size
        self._age = age
        self._batches: list[Batch] = []
        self._have = 0
        self._bytes = 0
        self._since = 0.0

    def limit_age(self, age: float) -> None:
        """From now on, nothing is to be older than `age` seconds either."""
        self._age = min(self._age, age)

    def add(self, batch: Batch, now: float) -> bool:
        """Take a batch; whether it is time to hand on."""
        if not self._batches:
            self._since = now
        self._batches.append(batch)
        self._have += len(batch)
        self._bytes += sum(map(len, batch.bodies))
        return self._have >= self._count or self._bytes >= self._size or now >= self.due

    def __len__(self) -> int:
        return self._have

    @property
    def due(self) -> float:
        """When what is here becomes too old; only asked while something is."""
        return self._since + self._age

    def take(self) -> Batch | None:
        """All that was collected, or None."""
        if not self._batches:
            return None
        batch = Batch.joined(self._batches)
        self._batches, self._have, self._bytes = [], 0, 0
        return batch

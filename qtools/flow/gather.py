"""Joins the batches of a source up to a count, a size or an age. In: batches and the time. Out: one batch. No clock.
And where to cut a batch into requests.

Joining is used before a sink for which each write is expensive, whatever its size. The batches are handed on when the
first of three limits is reached. `due` is the time at which the age limit will be reached.
"""

from __future__ import annotations

from collections.abc import Sequence

from qtools.message import Batch


class Gather:
    """Collects until there are `count` messages or `size` bytes of bodies, or until the oldest batch is `age` s old."""

    def __init__(self, count: int, size: int, age: float) -> None:
        self._count = count
        self._size = size
        self._age = age
        self._batches: list[Batch] = []
        self._have = 0
        self._bytes = 0
        self._since = 0.0

    def limit_age(self, age: float) -> None:
        """Lower the age limit to `age` s, if it is higher."""
        self._age = min(self._age, age)

    def add(self, batch: Batch, now: float) -> bool:
        """Add a batch. Returns whether a limit is reached. now: s, by the clock of `due`."""
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
        """The time at which the oldest batch reaches the age limit. Meaningless while there is no batch."""
        return self._since + self._age

    def take(self) -> Batch | None:
        """All collected batches as one, or None if there are none."""
        if not self._batches:
            return None
        batch = Batch.joined(self._batches)
        self._batches, self._have, self._bytes = [], 0, 0
        return batch


def request_ends(bodies: Sequence[bytes], count: int, size: int) -> list[int]:
    """Where to cut `bodies` into requests: the end of each, so that it has at most `count` bodies and `size` bytes.

    A request takes 4 bytes, and 4 more for each of its bodies, as NSQ's MPUB does. A body that is too large is alone.
    """
    total = len(bodies)
    if total <= count and 4 + 4 * total + sum(map(len, bodies)) <= size:
        return [total]
    ends = []
    start, filled = 0, 4
    for end, body in enumerate(bodies):
        taken = 4 + len(body)
        if end - start == count or (filled + taken > size and end > start):
            ends.append(end)
            start, filled = end, 4
        filled += taken
    ends.append(total)
    return ends

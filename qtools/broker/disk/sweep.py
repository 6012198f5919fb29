"""Space given back. In: blocks that every channel is done with. Out: rows to delete, a few at a time.

Without retention a block goes with the next commit after its last message was finished. With it, finished
blocks stay for so long, or until a topic has so many bytes of them; then the oldest go.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass

CHUNK = 256  # blocks that one transaction removes, so that publishers do not wait for it
ALL = 1 << 62


@dataclass(frozen=True, slots=True)
class Retain:
    """How long finished messages are kept: `age` in seconds, `size` in bytes of each topic; 0 and 0 is not at all."""

    age: float = 0.0
    size: int = 0

    def __bool__(self) -> bool:
        return bool(self.age or self.size)


class Removal:
    """Blocks of a topic below `below`, and not newer than `until` (ns since 1970). `last`: then the topic itself.

    keep: blocks that are left where they are.
    """

    __slots__ = ("below", "keep", "last", "topic", "until")

    def __init__(self, topic: int, below: int, *, until: int = ALL, last: bool = False) -> None:
        self.topic, self.below, self.until, self.last = topic, below, until, last
        self.keep: Collection[int] = ()

    def run(self, connection: sqlite3.Connection) -> bool:
        """Remove some, inside a transaction; True when there may be more."""
        removed = connection.execute(
            "DELETE FROM block WHERE seq IN (SELECT seq FROM block INDEXED BY block_of_topic"
            " WHERE topic = ? AND seq < ? AND timestamp <= ? AND seq NOT IN (SELECT value FROM json_each(?))"
            " ORDER BY seq LIMIT ?)",
            (self.topic, self.below, self.until, json.dumps([*self.keep]), CHUNK),
        ).rowcount
        if removed == CHUNK:
            return True
        if self.last:
            connection.execute("DELETE FROM topic WHERE id = ? AND name IS NULL", (self.topic,))
        return False


class Sweeper:
    """What is to be removed."""

    def __init__(self, retain: Retain) -> None:
        self.retain = retain
        self._gone: set[int] = set()
        self._removals: deque[Removal] = deque()
        self._below: dict[int, int] = {}
        self.undeletable: set[int] = set()  # damaged blocks: a DELETE might fail, and they are kept for a look at them

    @property
    def is_idle(self) -> bool:
        return not self._gone and not self._removals

    def remove(self, seq: int) -> bool:
        """A block that all are done with; False when it is kept for a while."""
        if self.retain:
            return False
        if seq in self.undeletable:
            return True
        self._gone.add(seq)
        return True

    def is_removed(self, seq: int) -> bool:
        """Whether it goes with the next commit."""
        return seq in self._gone

    def remove_below(self, topic: int, below: int) -> None:
        """All are done with everything below `below`."""
        if not self.retain and below > self._below.get(topic, 0):
            self._below[topic] = below
            self._removals.append(Removal(topic, below))

    def remove_topic(self, topic: int) -> None:
        """It is deleted."""
        self._below.pop(topic, None)
        self._removals.append(Removal(topic, ALL, last=True))

    def remove_old(self, topics: Iterable[tuple[int, int]], connection: sqlite3.Connection) -> None:
        """With retention: what has been kept for long enough of each (topic, below what all are done)."""
        now = time.time_ns()
        for topic, below in topics:
            if self.retain.age:
                self._removals.append(Removal(topic, below, until=now - round(self.retain.age * 1e9)))
            if self.retain.size:
                (upto,) = connection.execute(
                    "SELECT max(seq) FROM (SELECT seq, sum(size) OVER (ORDER BY seq DESC) AS kept FROM block"
                    " WHERE topic = ? AND seq < ?) WHERE kept > ?",
                    (topic, below, self.retain.size),
                ).fetchone()
                if upto is not None:
                    self._removals.append(Removal(topic, upto + 1))

    def take(self) -> tuple[list[tuple[int]], Removal | None]:
        """What goes with this commit: single blocks, and some of a range."""
        gone, self._gone = [(seq,) for seq in sorted(self._gone)], set()
        if not self._removals:
            return gone, None
        removal = self._removals.popleft()
        removal.keep = tuple(self.undeletable)
        return gone, removal

    def give_back(self, removal: Removal) -> None:
        """There is more of it, or it did not work."""
        self._removals.appendleft(removal)

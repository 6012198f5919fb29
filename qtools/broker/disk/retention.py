"""Space given back. In: blocks that every channel is done with. Out: rows to delete, a few at a time.

Without retention a block goes with the next commit after its last message was finished. With it, finished
blocks stay for so long, or until a topic has so many bytes of them; then the oldest go.
"""

from __future__ import annotations

import json
import sqlite3
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

CHUNK = 256  # blocks that one transaction removes, so that publishers do not wait for it
ALL = 1 << 62
_MOST_COUNTS = 500  # moments of which the next block's number is kept: retention is that exact where dates are wrong

Key = tuple[int, str]  # a topic, and why
_KINDS = ("below", "age", "size", "last")


@dataclass(frozen=True, slots=True)
class Retain:
    """How long finished messages are kept: `age` in seconds, `size` in bytes of each topic; 0 and 0 is not at all."""

    age: float = 0.0
    size: int = 0

    def __bool__(self) -> bool:
        return bool(self.age or self.size)


class Age(NamedTuple):
    """What is old enough: blocks not newer than `until` (ns since 1970), and those whose number is below `old`."""

    until: int
    old: int


class Removal:
    """Blocks of a topic below `below` that are not newer than `until` (ns since 1970), or that are below `old`.

    last: then the topic itself. keep: blocks that are left where they are.
    """

    __slots__ = ("below", "keep", "last", "old", "topic", "until")

    def __init__(self, topic: int, below: int, *, until: int = ALL, old: int = 0, last: bool = False) -> None:
        self.topic, self.below, self.until, self.old, self.last = topic, below, until, old, last
        self.keep: Collection[int] = ()

    def run(self, connection: sqlite3.Connection, most: int) -> int:
        """Remove `most` blocks at most, inside a transaction; answers how many. With fewer than `most` it is done."""
        removed = connection.execute(
            "DELETE FROM block WHERE seq IN (SELECT seq FROM block INDEXED BY block_of_topic"
            " WHERE topic = ? AND seq < ? AND (timestamp <= ? OR seq < ?)"
            " AND seq NOT IN (SELECT value FROM json_each(?)) ORDER BY seq LIMIT ?)",
            (self.topic, self.below, self.until, self.old, json.dumps([*self.keep]), most),
        ).rowcount
        if removed < most and self.last:
            connection.execute("DELETE FROM topic WHERE id = ? AND name IS NULL", (self.topic,))
        return int(removed)


class Removals:
    """Removals of one transaction: one after another, until it has removed CHUNK blocks."""

    __slots__ = ("_done", "_removals")

    def __init__(self, removals: dict[Key, Removal]) -> None:
        self._removals = removals
        self._done: list[Key] = []

    def run(self, connection: sqlite3.Connection) -> bool:
        """Remove some, inside a transaction; True when there may be more."""
        self._done.clear()
        left = CHUNK
        for key, removal in self._removals.items():
            removed = removal.run(connection, left)
            left -= removed
            if left <= 0:
                return True
            self._done.append(key)
        return False

    def left(self, failed: bool) -> dict[Key, Removal]:
        """What is still to be done; everything where the transaction failed."""
        if failed:
            return self._removals
        done = set(self._done)
        return {key: removal for key, removal in self._removals.items() if key not in done}


class Sweeper:
    """What is to be removed: at most one removal of each kind for each topic, however often it is asked for."""

    def __init__(self, retain: Retain) -> None:
        self.retain = retain
        self._gone: set[int] = set()
        self._removals: dict[Key, Removal] = {}
        self._below: dict[int, int] = {}
        self._counts: deque[tuple[float, int]] = deque()  # when (monotonic, s) the next block had which number
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
            self._removals[topic, "below"] = Removal(topic, below)

    def remove_topic(self, topic: int) -> None:
        """It is deleted."""
        self._below.pop(topic, None)
        for kind in _KINDS:
            self._removals.pop((topic, kind), None)
        self._removals[topic, "last"] = Removal(topic, ALL, last=True)

    def find_age(self, wall: int, monotonic: float, next_seq: int) -> Age:
        """What is old enough at this moment. next_seq: the number of the next block.

        A block is dated by the system's clock, which may have been wrong then. One that lies in the future would be
        kept until then; what this run of the broker has had for the whole time is old enough whatever its date is.
        """
        age = self.retain.age
        counts = self._counts
        if not counts or monotonic - counts[-1][0] >= age / _MOST_COUNTS:
            counts.append((monotonic, next_seq))
        while len(counts) > 1 and counts[1][0] <= monotonic - age:
            counts.popleft()
        old = counts[0][1] if counts[0][0] <= monotonic - age else 0
        return Age(wall - round(age * 1e9), old)

    def look_for_old(
        self, topics: Iterable[tuple[int, int]], age: Age, connection: sqlite3.Connection
    ) -> dict[Key, Removal]:
        """With retention: what has been kept for long enough of each (topic, below what all are done).

        In the writer's thread; `remove_old` takes the answer.
        """
        found: dict[Key, Removal] = {}
        for topic, below in topics:
            if self.retain.age:
                (upto,) = connection.execute(
                    "SELECT max(seq) FROM block INDEXED BY block_of_topic"
                    " WHERE topic = ? AND seq < ? AND (timestamp <= ? OR seq < ?)",
                    (topic, below, age.until, age.old),
                ).fetchone()
                if upto is not None:
                    found[topic, "age"] = Removal(topic, upto + 1, until=age.until, old=age.old)
            if self.retain.size:
                (upto,) = connection.execute(
                    "SELECT max(seq) FROM (SELECT seq, sum(size) OVER (ORDER BY seq DESC) AS kept FROM block"
                    " WHERE topic = ? AND seq < ?) WHERE kept > ?",
                    (topic, below, self.retain.size),
                ).fetchone()
                if upto is not None:
                    found[topic, "size"] = Removal(topic, upto + 1)
        return found

    def remove_old(self, found: dict[Key, Removal]) -> None:
        """Remove what `look_for_old` found, in place of what it found before. What was deleted meanwhile goes whole."""
        self._removals.update(
            (key, removal) for key, removal in found.items() if (key[0], "last") not in self._removals
        )

    def take(self) -> tuple[list[tuple[int]], Removals | None]:
        """What goes with this commit: single blocks, and some of what is removed by topic."""
        gone, self._gone = [(seq,) for seq in sorted(self._gone)], set()
        removals = None
        if self._removals:
            first = dict(islice(self._removals.items(), CHUNK))
            keep = tuple(self.undeletable)
            for key, removal in first.items():
                removal.keep = keep
                del self._removals[key]
            removals = Removals(first)
        return gone, removals

    def give_back(self, removals: Removals, failed: bool) -> None:
        """There is more of it, or it did not work. What was asked for meanwhile counts."""
        self._removals = removals.left(failed) | self._removals

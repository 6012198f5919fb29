"""Deletes blocks that all channels have finished. In: numbers of blocks. Out: rows to delete, a few at a time.

Without retention a block is deleted with the next commit after its last message was finished. With retention, finished
blocks are kept for some time, or until a topic has more than some bytes of them; the oldest are then deleted.
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
# times at which the number of the next block is recorded: how exact retention is when dates are wrong
_MOST_COUNTS = 500

Key = tuple[int, str]  # a topic, and the kind of the removal
_KINDS = ("below", "age", "size", "last")


@dataclass(frozen=True, slots=True)
class Retain:
    """How long finished messages are kept. age: seconds; size: bytes of each topic; both 0: not at all."""

    age: float = 0.0
    size: int = 0

    def __bool__(self) -> bool:
        return bool(self.age or self.size)


class Age(NamedTuple):
    """Which blocks are old enough: those not newer than `until` (ns since 1970), and those with a number below
    `old`."""

    until: int
    old: int


class Removal:
    """A removal of blocks: those below `below` that are not newer than `until` (ns since 1970) or are below `old`.

    last: also remove the topic, after its last block. keep: blocks that are not removed.
    """

    __slots__ = ("below", "keep", "last", "old", "topic", "until")

    def __init__(self, topic: int, below: int, *, until: int = ALL, old: int = 0, last: bool = False) -> None:
        self.topic, self.below, self.until, self.old, self.last = topic, below, until, old, last
        self.keep: Collection[int] = ()

    def run(self, connection: sqlite3.Connection, most: int) -> int:
        """Remove at most `most` blocks, inside a transaction. Returns how many; with fewer than `most` the removal is
        complete."""
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
    """The removals of one transaction, one after another, until it has removed CHUNK blocks."""

    __slots__ = ("_done", "_removals")

    def __init__(self, removals: dict[Key, Removal]) -> None:
        self._removals = removals
        self._done: list[Key] = []

    def run(self, connection: sqlite3.Connection) -> bool:
        """Remove some blocks, inside a transaction. Returns True when there may be more."""
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
        """The removals that are not complete: all of them if the transaction failed."""
        if failed:
            return self._removals
        done = set(self._done)
        return {key: removal for key, removal in self._removals.items() if key not in done}


class Sweeper:
    """The blocks to remove, with at most one removal of each kind for each topic.

    undeletable: damaged blocks, which are kept for inspection, and of which a DELETE might fail. removals: those that
    the next commits make.
    """

    def __init__(self, retain: Retain) -> None:
        self.retain = retain
        self._gone: set[int] = set()
        self.removals: dict[Key, Removal] = {}
        self._below: dict[int, int] = {}
        self._counts: deque[tuple[float, int]] = deque()  # (monotonic time in s, number of the next block then)
        self.undeletable: set[int] = set()

    @property
    def is_idle(self) -> bool:
        return not self._gone and not self.removals

    def remove(self, seq: int) -> bool:
        """Remove a block that all channels have finished. Returns False when it is retained."""
        if self.retain:
            return False
        if seq in self.undeletable:
            return True
        self._gone.add(seq)
        return True

    def is_removed(self, seq: int) -> bool:
        """Whether the block is removed with the next commit."""
        return seq in self._gone

    def remove_below(self, topic: int, below: int) -> None:
        """Remove the blocks below `below`, which all channels have finished."""
        if not self.retain and below > self._below.get(topic, 0):
            self._below[topic] = below
            self.removals[topic, "below"] = Removal(topic, below)

    def remove_topic(self, topic: int) -> None:
        """Remove a deleted topic with all its blocks."""
        self._below.pop(topic, None)
        for kind in _KINDS:
            self.removals.pop((topic, kind), None)
        self.removals[topic, "last"] = Removal(topic, ALL, last=True)

    def find_age(self, wall: int, monotonic: float, next_seq: int) -> Age:
        """Which blocks are old enough now. next_seq: the number of the next block.

        Blocks are dated by the system's clock, which may have been wrong. A block dated in the future would be kept too
        long, so a block that this run of the broker has had for the whole time is old enough whatever its date is.
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
        """With retention: the blocks that have been kept for long enough. topics: each with the number below which all
        channels have finished all blocks.

        Runs in the writer's thread; `remove_old` takes the result.
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
        """Remove what `look_for_old` found, instead of what it found before. Topics deleted meanwhile are removed
        anyway."""
        self.removals.update((key, removal) for key, removal in found.items() if (key[0], "last") not in self.removals)

    def take(self) -> tuple[list[tuple[int]], Removals | None]:
        """What to remove with this commit: single blocks, and some of the removals by topic."""
        gone, self._gone = [(seq,) for seq in sorted(self._gone)], set()
        removals = None
        if self.removals:
            first = dict(islice(self.removals.items(), CHUNK))
            keep = tuple(self.undeletable)
            for key, removal in first.items():
                removal.keep = keep
                del self.removals[key]
            removals = Removals(first)
        return gone, removals

    def give_back(self, removals: Removals, failed: bool) -> None:
        """Take back removals that are not complete or failed. Newer ones of the same kind replace them."""
        self.removals = removals.left(failed) | self.removals

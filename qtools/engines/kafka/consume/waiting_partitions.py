"""Which partitions wait for a message that is not finished, or for a commit. In: partitions, the time. Out: those to
pause; whether to commit early.

The newest message read of a partition may be at most `max_distance` offsets from the lowest unfinished one, as the
commit waits for that. While a partition is that far, no reader may read; one whose lowest unfinished message stays the
same is paused, so that the other partitions are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

LEAST_COMMIT = 1000  # finished messages, for which a commit is sent before its time
WAITS_LONG = 1.0  # s after which a partition no longer holds up the others
Place = tuple[str, int]  # a topic and a partition's number


class ReadPartition(Protocol):
    """confirmed: the lowest unfinished offset. distance: from there to the newest message that was read. uncommitted:
    finished messages that the next commit covers."""

    @property
    def confirmed(self) -> int: ...
    @property
    def distance(self) -> int: ...
    @property
    def uncommitted(self) -> int: ...


class WaitingPartitions:
    """paused: the partitions that wait for long."""

    def __init__(self, max_distance: int) -> None:
        self.paused: frozenset[Place] = frozenset()
        self._max_distance = max_distance
        self._since: dict[Place, tuple[int, float]] = {}  # the lowest unfinished offset, and since when it is that one

    def room(self, partitions: Mapping[Place, ReadPartition], most: int) -> int:
        """How many messages, at most `most`, may be read so that no partition gets too far."""
        room = [self._max_distance - each.distance for place, each in partitions.items() if place not in self.paused]
        return max(0, min([most, *room]))

    def is_much_finished(self, partitions: Mapping[Place, ReadPartition]) -> bool:
        """Whether as many messages are finished and not committed as may be in flight; after a crash they all come
        again."""
        return sum(each.uncommitted for each in partitions.values()) >= max(LEAST_COMMIT, self._max_distance)

    def look(self, partitions: Mapping[Place, ReadPartition], now: float) -> tuple[set[Place], set[Place]]:
        """The partitions that have to be paused, and those that are resumed. now: s."""
        since: dict[Place, tuple[int, float]] = {}
        paused: set[Place] = set()
        for place, partition in partitions.items():
            if partition.distance < self._max_distance:
                continue
            lowest, begun = self._since.get(place, (-1, now))
            if lowest != partition.confirmed:
                lowest, begun = partition.confirmed, now
            since[place] = lowest, begun
            if place in self.paused or now - begun >= WAITS_LONG:
                paused.add(place)
        stopped, resumed = paused - self.paused, set(self.paused - paused) & partitions.keys()
        self._since, self.paused = since, frozenset(paused)
        return stopped, resumed

    def forget(self, places: set[Place]) -> None:
        """The partitions that were taken away."""
        self.paused -= places

"""A batch sorted by the file that each message belongs to. In: a batch. Out: a batch for each topic and partition.

A message belongs to the partition of its own time: what an expression finds in its body, else when the broker accepted
it. Nothing is ever left out for lack of a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtools.errors import EvaluationError
from qtools.flow.filter import parser_for
from qtools.message import Batch, timestamp_of
from qtools.times import event_time
from qtools.to_file.archive.layout import Layout

Group = tuple[str, str, Batch]  # topic, partition ("" where there are none), messages


class Partitioner:
    """Sorts by topic, and by partition where `partitioned`; `when` finds a message's own time in its JSON."""

    def __init__(self, layout: Layout, *, partitioned: bool = False, when: Callable[[Any], Any] | None = None) -> None:
        self.timeless = 0  # messages filed by the broker's time, as they had none of their own
        self._layout = layout
        self._partitioned = partitioned
        self._when = when

    def sort(self, batch: Batch) -> list[Group]:
        """Every message of `batch` once, in the order they came within each group."""
        topics = {origin.topic for origin, _, _ in batch.parts}
        if len(topics) == 1 and not self._partitioned:
            return [(topics.pop(), "", batch)]
        partitions = self._partitions(batch) if self._partitioned else [""] * len(batch)
        groups: dict[tuple[str, str], list[int]] = {}
        for origin, start, stop in batch.parts:
            topic = origin.topic
            for place in range(start, stop):
                groups.setdefault((topic, partitions[place]), []).append(place)
        if len(groups) == 1:
            return [(*next(iter(groups)), batch)]
        return [(topic, partition, batch.pick(chosen)) for (topic, partition), chosen in groups.items()]

    def _partitions(self, batch: Batch) -> list[str]:
        self._layout.forget_partitions()
        partition = self._layout.partition
        accepted = [timestamp_of(stamp) for stamp in batch.messages.stamps]
        if self._when is None:
            return [partition(when) for when in accepted]
        find, loads = self._when, parser_for(batch.bodies)
        found: list[str] = []
        for body, fallback in zip(batch.bodies, accepted, strict=True):
            try:
                when = event_time(find(loads(body)))
            except EvaluationError:  # it is not JSON, or has nothing there that could be a time
                when = None
            if when is None:
                self.timeless += 1
                when = fallback
            found.append(partition(when))
        return found

"""Splits a batch by the files that its messages belong to. In: a batch. Out: a batch for each topic and partition.

A message belongs to the partition of its own time: the time that an expression finds in its body, or else the time at
which the broker accepted it. No message is left out because it has no time.
"""

from __future__ import annotations

from qtools.errors import EvaluationError
from qtools.expressions.expression import Expression
from qtools.flow.json_values import parser_for
from qtools.flow.variables import rows_of
from qtools.message import Batch
from qtools.times import event_time
from qtools.to_file.archive.layout import Layout

Group = tuple[str, str, Batch]  # topic, partition ("" where there are none), messages


class Partitioner:
    """Splits by topic, and if `partitioned` by partition. when: finds the time of a message."""

    def __init__(self, layout: Layout, *, partitioned: bool = False, when: Expression | None = None) -> None:
        self.timeless = 0  # messages for which the broker's time was used, as they had no time of their own
        self._layout = layout
        self._partitioned = partitioned
        self._when = when

    def sort(self, batch: Batch) -> list[Group]:
        """All messages of `batch` in groups; within a group they keep their order."""
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
        accepted = batch.messages.timestamps()
        if self._when is None:
            return [partition(when) for when in accepted]
        find, rows = self._when.evaluate, rows_of(batch, self._when.variables)
        loads = parser_for(batch.bodies) if self._when.reads_body else None
        found: list[str] = []
        for body, row, fallback in zip(batch.bodies, rows, accepted, strict=True):
            try:
                when = event_time(find(None if loads is None else loads(body), row))
            except EvaluationError:  # the body is not JSON, or the expression fails
                when = None
            if when is None:
                self.timeless += 1
                when = fallback
            found.append(partition(when))
        return found

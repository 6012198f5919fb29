"""A batch sorted by the file that each message belongs to. In: a batch. Out: a batch for each topic and partition.

A message belongs to the partition of its own time: what an expression finds in its body, else when the broker accepted
it. Nothing is ever left out for lack of a time.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from qtools.message import Batch
from qtools.to_file.layout import Layout, event_time

_TIMESTAMP = struct.Struct(">q")

Group = tuple[str, str, Batch]  # topic, partition ("" where there are none), messages
Question = Callable[[Any], Any]  # of a body's JSON


class Sorter:
    """Sorts by topic, and by partition where `partitioned`.

    when: finds a message's own time in its body. where: a message whose answer is null or false is left out, and so is
    one that is not JSON.
    """

    def __init__(
        self, layout: Layout, *, partitioned: bool = False, when: Question | None = None, where: Question | None = None
    ) -> None:
        self.left_out = 0  # messages that `where` did not let pass
        self.timeless = 0  # messages filed by the broker's time, as they had none of their own
        self._layout = layout
        self._partitioned = partitioned
        self._when = when
        self._where = where

    def sort(self, batch: Batch) -> list[Group]:
        """What passes of `batch`, in the order it came within each group."""
        values: list[Any] | None = None
        if self._when is not None or self._where is not None:
            values = _parsed(batch.bodies)
        if self._where is not None and values is not None:
            where = self._where
            places = [place for place, value in enumerate(values) if value is not _NOT_JSON and _is_true(where(value))]
            if len(places) < len(batch):
                self.left_out += len(batch) - len(places)
                batch = batch.pick(places)
                values = [values[place] for place in places]
        topics = {origin.topic for origin, _, _ in batch.parts}
        if len(topics) == 1 and not self._partitioned:
            return [(topics.pop(), "", batch)]
        partitions = self._partitions(batch, values) if self._partitioned else [""] * len(batch)
        groups: dict[tuple[str, str], list[int]] = {}
        for origin, start, stop in batch.parts:
            topic = origin.topic
            for place in range(start, stop):
                groups.setdefault((topic, partitions[place]), []).append(place)
        if len(groups) == 1:
            return [(*next(iter(groups)), batch)]
        return [(topic, partition, batch.pick(chosen)) for (topic, partition), chosen in groups.items()]

    def _partitions(self, batch: Batch, values: list[Any] | None) -> list[str]:
        partition = self._layout.partition
        accepted = [_TIMESTAMP.unpack_from(stamp)[0] / 1e9 for stamp in batch.messages.stamps]
        if self._when is None or values is None:
            return [partition(when) for when in accepted]
        find = self._when
        found: list[str] = []
        for value, fallback in zip(values, accepted, strict=True):
            when = None if value is _NOT_JSON else event_time(find(value))
            if when is None:
                self.timeless += 1
                when = fallback
            found.append(partition(when))
        return found


_NOT_JSON = object()


def _parsed(bodies: list[bytes]) -> list[Any]:
    import orjson

    loads = orjson.loads
    values: list[Any] = []
    for body in bodies:
        try:
            values.append(loads(body))
        except ValueError:
            values.append(_NOT_JSON)
    return values


def _is_true(value: Any) -> bool:
    return value is not None and value is not False

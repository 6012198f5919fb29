"""Which partitions may be complete. In: the partitions that get files, and the time. Out: partitions whose time is
over.

A partition is complete when its time plus a lateness is over, and every source has passed that moment: the source has
delivered a message that was accepted later, or has no messages left. A message that arrives even later goes into a new
file of the partition. The partitions that are not complete yet are stored in the work directory, for the next run.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

from qtools.errors import StartError, UsageError
from qtools.to_file.archive.layout import Layout

_HOUR, _DAY, _CENTURY = 3600.0, 86400.0, 3.2e9


class Partitions:
    """The partitions that are not complete, stored at `path`. lateness in s. Times in s since 1970."""

    def __init__(self, layout: Layout, lateness: float, path: Path) -> None:
        self._layout = layout
        self._lateness = lateness
        self._path = path
        self._lock = threading.Lock()
        self._ends: dict[str, float] = {}
        self.passed: dict[tuple[str, str], float] = {}  # (topic, nsqd) → when its latest message was accepted

    def load(self) -> None:
        """Load what the last run stored; StartError if it is damaged."""
        if not self._path.exists():
            return
        try:
            loaded = json.loads(self._path.read_bytes())
            self._ends = {str(name): float(end) for name, end in loaded.items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise StartError(
                f"{self._path} is damaged, and listed the partitions that are not complete: move it away, and these"
                " are never marked"
            ) from error

    def begin(self, partition: str) -> None:
        """Note that a file is begun in `partition`. OSError if that cannot be stored."""
        with self._lock:
            if partition not in self._ends:
                self._save(self._ends | {partition: end_of(self._layout, partition)})

    def over(self, now: float) -> list[tuple[str, float]]:
        """The partitions whose time is over at `now`, each with the time that every source has to pass."""
        late = self._lateness
        ends = self._ends  # another thread replaces the whole dict, and never changes it
        return sorted((name, end + late) for name, end in ends.items() if now >= end + late)

    def mark(self, partition: str) -> None:
        """Forget `partition`, which is complete. After an OSError it will be marked as complete once more."""
        with self._lock:
            self._save({name: end for name, end in self._ends.items() if name != partition})

    def _save(self, ends: dict[str, float]) -> None:
        draft = self._path.with_name(self._path.name + ".new")
        with draft.open("w") as file:
            json.dump(ends, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, self._path)
        self._ends = ends


def end_of(layout: Layout, partition: str) -> float:
    """The end of `partition`: the first second that belongs to another partition."""
    inside = layout.time_in(partition)
    step = 1.0
    while layout.shown_partition(inside + step) == partition:
        inside, step = inside + step, step * 2
        if step > _CENTURY:
            raise UsageError(f"--complete-marker needs partitions that do not come again, as {partition!r} always does")
    outside = inside + step
    while outside - inside > 1:
        middle = float(int((inside + outside) / 2))
        if layout.shown_partition(middle) == partition:
            inside = middle
        else:
            outside = middle
    return float(int(outside))


def refuse_recurring(layout: Layout, now: float) -> None:
    """UsageError if the names of partitions recur, as those of hour=%H do each day: such a partition never ends."""
    partition = layout.partition(int(now * 1e9))
    end = end_of(layout, partition)
    later = [hours * _HOUR for hours in range(1, 25)] + [days * _DAY for days in (*range(1, 32), 364, 365, 366)]
    if any(layout.shown_partition(end + more) == partition for more in later):
        raise UsageError(f"--complete-marker needs partitions that do not come again, as {partition!r} does")

"""Which partitions may be complete. In: those that files are begun in, and the time. Out: those whose time is over.

A partition is complete when its time plus a lateness is over, and every source has got past that: it has delivered a
message that was accepted later, or has nothing left. What comes all the same goes into a file of its own there. The
partitions that are not complete yet are kept in the work directory, for the run after this one.
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
    """The partitions that are not complete, kept at `path`. Times in s since 1970."""

    def __init__(self, layout: Layout, lateness: float, path: Path) -> None:
        self._layout = layout
        self._lateness = lateness
        self._path = path
        self._lock = threading.Lock()
        self._ends: dict[str, float] = {}
        self.passed: dict[tuple[str, str], float] = {}  # (topic, nsqd) → when its latest message was accepted

    def load(self) -> None:
        """What the run before left; StartError where that is damaged."""
        if not self._path.exists():
            return
        try:
            told = json.loads(self._path.read_bytes())
            self._ends = {str(name): float(end) for name, end in told.items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise StartError(f"{self._path} is damaged, and says no more which partitions are not complete") from error

    def begin(self, partition: str) -> None:
        """A file is begun in `partition`. OSError where that cannot be kept."""
        with self._lock:
            if partition not in self._ends:
                self._save(self._ends | {partition: end_of(self._layout, partition)})

    def over(self, now: float) -> list[tuple[str, float]]:
        """Those whose time is over at `now`, with the time that every source has to have got past."""
        late = self._lateness
        ends = self._ends  # replaced as a whole, by another thread
        return sorted((name, end + late) for name, end in ends.items() if now >= end + late)

    def mark(self, partition: str) -> None:
        """`partition` is complete. OSError where that cannot be kept: then it will be complete once more."""
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
    """When the time of `partition` is over: the first second that belongs to another one."""
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
    """UsageError where partitions come again, as hour=%H does each day: then none is ever complete."""
    partition = layout.partition(int(now * 1e9))
    end = end_of(layout, partition)
    later = [hours * _HOUR for hours in range(1, 25)] + [days * _DAY for days in (*range(1, 32), 364, 365, 366)]
    if any(layout.shown_partition(end + more) == partition for more in later):
        raise UsageError(f"--complete-marker needs partitions that do not come again, as {partition!r} does")

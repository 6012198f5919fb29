"""A store that keeps messages in memory only: for --memory, for ephemeral topics and channels. Messages are lost when
the process ends.

In and out: as the interface in store.py says. Never here: a commit. Each message counts as safe at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from qtools.broker.core.block import Block, MessageRange, first_ranges
from qtools.broker.core.clock import Clock
from qtools.broker.core.deferral_queue import DeferralQueue
from qtools.broker.core.store import Backlog, CannotReplay, Commit, Lost, MessageLog


class MemoryBacklog:
    """A deque of runs, and a queue of those that are deferred."""

    __slots__ = ("_deferred", "_runs", "deferred", "depth")

    first = 0
    cold = 0

    def __init__(self) -> None:
        self._runs: deque[MessageRange] = deque()
        self._deferred = DeferralQueue(shares=False)
        self.depth = self.deferred = 0

    @property
    def ready(self) -> int:
        return self.depth

    def put(self, run: MessageRange) -> None:
        self.depth += run.stop - run.start
        if self._runs:
            last = self._runs[-1]
            # Neighbours that come back one by one, in order, become one run again.
            if last.block is run.block and last.stop == run.start and last.attempts == run.attempts:
                last.stop = run.stop
                return
        self._runs.append(run)

    def take(self, count: int, size: int) -> MessageRange:
        run = self._runs[0]
        count = min(count, run.stop - run.start)
        while count > 1 and run.block.size(run.start, run.start + count) > size:
            count >>= 1
        self.depth -= count
        if count == run.stop - run.start:
            return self._runs.popleft()
        first = MessageRange(run.block, run.start, run.start + count, run.attempts)
        run.start += count
        return first

    def fetch(self) -> None:
        pass

    def touched(self, run: MessageRange) -> None:
        pass

    def watch(self, on_ready: Callable[[], None]) -> None:
        pass

    def defer(self, run: MessageRange, due: int, wall: int) -> None:
        self.deferred += run.stop - run.start
        self._deferred.add(run, due)

    def next_due(self) -> int | None:
        return self._deferred.next()

    def take_due(self, wall: int) -> bool:
        came = False
        for run in self._deferred.take_due(wall):
            self.deferred -= run.stop - run.start
            self.put(run)
            came = True
        return came

    def finish(self, block: Block, which: range | Sequence[bytes]) -> None:
        pass

    def clear(self) -> None:
        self._runs.clear()
        self._deferred.clear()
        self.depth = self.deferred = 0

    def move_all(self, into: Sequence[Backlog], not_before: int) -> tuple[int, list[MessageRange]]:
        runs = list(self._runs)
        self.clear()
        return 0, runs

    def peek(self, count: int, answer: Callable[[list[MessageRange] | None], None]) -> None:
        answer(first_ranges(self._runs, count))


class MemoryLog:
    """A topic in memory: of an ephemeral one there is nothing else."""

    def __init__(self) -> None:
        self.backlog = MemoryBacklog()

    def channel(self, name: str, *, takes_held: bool = False, since: int | None = None) -> Backlog:
        if since is not None:
            raise CannotReplay
        return MemoryBacklog()

    def restored(self) -> list[str]:
        return []

    def is_paused(self, channel: str = "") -> bool:
        return False

    def pause(self, paused: bool, channel: str = "") -> None:
        pass

    def spread(self, block: Block) -> None:
        pass

    def hold(self) -> None:
        pass

    def drop_channel(self, name: str) -> None:
        pass

    def delete(self) -> None:
        pass


def _nothing(*_: object) -> None:
    pass


class MemoryStore:
    """Everything in memory, safe at once, gone with the process."""

    durable = False
    lost: Sequence[Lost] = ()
    damage = ""
    clock: Clock | None = None
    is_crowded = False
    last_id = 0
    pending: Commit | None = None

    def __init__(self) -> None:
        self.topics: list[str] = []
        self.on_failure: Callable[[str], None] = _nothing
        self.on_work: Callable[[], None] = _nothing

    def log(self, name: str) -> MessageLog:
        return MemoryLog()

    def publishing(self, size: int) -> Commit | None:
        return self.pending

    def append(self, topic: str, block: Block) -> None:
        pass  # the backlogs hold it

    def end_turn(self, seal: Callable[[], None]) -> None:
        seal()

    def close(self) -> None:
        pass

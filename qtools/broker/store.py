"""Where messages are kept until every channel is done with them: the interface, and a store in memory.

In: blocks of messages as they are published, runs of them as they are given back, ids as they are
finished. Out: runs to deliver. What a store never does: decide who gets what, or when.

A store may be slower than a turn of the loop. Everything appended in one turn then shares one Commit,
and no publisher hears OK, and no channel sees the messages, before that commit is done. A store that
is done at once has no commit at all, and costs nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from qtools.broker.block import Block, Run


class Commit:
    """What was appended in one turn, on its way to safety. `error` says why it did not get there."""

    __slots__ = ("done", "error", "waiters")

    def __init__(self) -> None:
        self.done = False
        self.error: Exception | None = None
        self.waiters: list[Callable[[], None]] = []

    def settle(self, error: Exception | None = None) -> None:
        """Say how it ended, and call everybody who waits, in the order they came."""
        self.done, self.error = True, error
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            waiter()


class Backlog(Protocol):
    """What waits for delivery in one channel, or in a topic that has no channel yet, first in first out."""

    @property
    def depth(self) -> int:
        """How many messages wait."""
        ...

    def put(self, run: Run) -> None:
        """Behind all others."""
        ...

    def take(self, count: int, size: int) -> Run:
        """The first messages, at most `count` and at most `size` bytes of frames, yet at least one message.

        Only with `depth` above 0. They are the caller's from here on.
        """
        ...

    def finish(self, block: Block, ids: Sequence[bytes]) -> None:
        """Messages of `block` that were taken are done with, for good."""
        ...

    def clear(self) -> None:
        """Forget everything: what waits, and what was taken and not finished."""
        ...


class Store(Protocol):
    """Keeps what is published. `durable` when nothing is lost as the process ends."""

    @property
    def durable(self) -> bool: ...
    @property
    def pending(self) -> Commit | None:
        """What everything appended in this turn waits for; None when there is nothing to wait for."""
        ...

    def append(self, topic: str, block: Block) -> None:
        """Keep `block`; it is safe when the commit that `pending` named is done."""
        ...

    def end_turn(self) -> None:
        """What was appended since the last call may be written together now."""
        ...

    def backlog(self, topic: str, channel: str) -> Backlog:
        """The backlog of a channel, or with no channel that of the topic itself."""
        ...

    def close(self) -> None:
        """Finish what is under way."""
        ...


class MemoryBacklog:
    """A deque of runs."""

    __slots__ = ("_runs", "depth")

    def __init__(self) -> None:
        self._runs: deque[Run] = deque()
        self.depth = 0

    def put(self, run: Run) -> None:
        self.depth += run.stop - run.start
        if self._runs:
            last = self._runs[-1]
            # Neighbours that come back one by one, in order, become one run again.
            if last.block is run.block and last.stop == run.start and last.attempts == run.attempts:
                last.stop = run.stop
                return
        self._runs.append(run)

    def take(self, count: int, size: int) -> Run:
        run = self._runs[0]
        count = min(count, run.stop - run.start)
        while count > 1 and run.block.size(run.start, run.start + count) > size:
            count >>= 1
        self.depth -= count
        if count == run.stop - run.start:
            return self._runs.popleft()
        first = Run(run.block, run.start, run.start + count, run.attempts)
        run.start += count
        return first

    def finish(self, block: Block, ids: Sequence[bytes]) -> None:
        pass

    def clear(self) -> None:
        self._runs.clear()
        self.depth = 0


class MemoryStore:
    """Everything in memory, safe at once, gone with the process."""

    durable = False
    pending: Commit | None = None

    def append(self, topic: str, block: Block) -> None:
        pass  # the backlogs hold it

    def end_turn(self) -> None:
        pass

    def backlog(self, topic: str, channel: str) -> Backlog:
        return MemoryBacklog()

    def close(self) -> None:
        pass

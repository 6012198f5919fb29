"""How long a commit waits for more publishers. In: publishers that arrive, commits that are done. Out: whether to write
now.

Publishers that waited for the last commit usually publish again at once, but not all at the same moment. If a commit
were begun for the first of them alone, the publishers would form two groups that take turns, and each commit, and each
exchange with the writer's thread, would serve half as many. So a commit waits until as many publishers have arrived as
there were when the last one was done: those that it answered, and those that had arrived meanwhile. If they do not
arrive within PATIENCE, no one is expected any more, so a lone publisher never waits. Large messages do not wait either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

PATIENCE = 0.001  # s that a commit waits for publishers
ENOUGH = 64 * 1024  # bytes for which a commit does not wait


class GroupCommit:
    """The publishers that wait for the next commit. bytes: what they publish. on_enough: called when `is_complete` may
    have become true."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_enough: Callable[[], None]) -> None:
        self.bytes = 0
        self._loop = loop
        self._on_enough = on_enough
        self._waiting = 0
        self._served = 0  # publishers that the commit under way answers
        self._expected = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, size: int) -> None:
        """Add a publisher with `size` bytes."""
        self._waiting += 1
        self.bytes += size
        if self._waiting == self._expected or self.bytes >= ENOUGH:
            self._on_enough()

    @property
    def is_complete(self) -> bool:
        """Whether the commit does not have to wait any longer."""
        return self._waiting >= self._expected or self.bytes >= ENOUGH

    def wait(self) -> None:
        """Wait for more publishers, at most PATIENCE seconds."""
        if self._timer is None:
            self._timer = self._loop.call_later(PATIENCE, self._give_up)

    def _give_up(self) -> None:
        self._timer = None
        self._expected = 0
        self._on_enough()

    def take(self) -> int:
        """Begin a commit for all publishers that wait. Returns how many bytes they publish."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._served, self._waiting = self._waiting, 0
        size, self.bytes = self.bytes, 0
        return size

    def answered(self) -> None:
        """Note that the commit is done, and its publishers are answered."""
        self._expected = self._served + self._waiting
        self._served = 0

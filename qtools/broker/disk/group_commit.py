"""For how many publishers a commit should wait. In: publishers that come, and are answered. Out: whether to write now.

Whoever waited for the last commit tends to be back at once with its next message, but not all in the same moment. If
the first that came were written for alone, the publishers would fall into two crowds that take turns, and each commit,
and each exchange with the writer's thread, would serve half as many. So one waits until as many ask as were there when
the last one was done: those who were answered by it, and those who had come meanwhile. If they do not come within
PATIENCE nobody is expected any more, and who goes on alone waits for nobody. What is large is worth a commit of its
own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

PATIENCE = 0.001  # s
ENOUGH = 64 * 1024  # bytes


class GroupCommit:
    """Publishers that wait for the next commit. on_enough is told when it should be looked at again."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_enough: Callable[[], None]) -> None:
        self.bytes = 0  # that they brought
        self._loop = loop
        self._on_enough = on_enough
        self._here = 0
        self._served = 0  # by the commit that is being written
        self._expected = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, size: int) -> None:
        """One more, with `size` bytes."""
        self._here += 1
        self.bytes += size
        if self._here == self._expected or self.bytes >= ENOUGH:
            self._on_enough()

    @property
    def is_complete(self) -> bool:
        """Whether there is nobody more to wait for."""
        return self._here >= self._expected or self.bytes >= ENOUGH

    def wait(self) -> None:
        """Wait for the others, but not for ever."""
        if self._timer is None:
            self._timer = self._loop.call_later(PATIENCE, self._give_up)

    def _give_up(self) -> None:
        self._timer = None
        self._expected = 0
        self._on_enough()

    def take(self) -> int:
        """A commit is made for all who are here; how many bytes they brought."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._served, self._here = self._here, 0
        size, self.bytes = self.bytes, 0
        return size

    def answered(self) -> None:
        """The commit is done, and they know it."""
        self._expected = self._served + self._here
        self._served = 0

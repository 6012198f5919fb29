"""Work in the writer's thread that is done now and then. In: an idle store, the clock. Out: free space given back to
the system; a reserve; blocks to remove because they have been retained for long enough.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from typing import Protocol

from qtools.broker.disk.database_thread import DatabaseThread
from qtools.broker.disk.retention import Age, Key, Removal, Sweeper

log = logging.getLogger("qtools.broker")

IDLE = 1.0  # s without anything to write, before space is given back to the system
PAUSE = 0.05  # s between two steps of that
SLACK = 64 * 1024 * 1024  # bytes of the file that may be unused before they are given back
VACUUM = 512  # pages given back in one step
ALLOCATE_EVERY = 60.0  # s between two tries to allocate the reserve, on a disk that had no room for it
SWEEP_AT_ONCE = 200  # topics in one query
SWEEP_EVERY = 30.0  # s between two searches for blocks that have been retained for long enough


class MaintainedStore(Protocol):
    """The store that is maintained. sweeper: gets the blocks that are old enough."""

    @property
    def sweeper(self) -> Sweeper: ...
    @property
    def is_closed(self) -> bool: ...
    @property
    def has_work(self) -> bool:
        """Whether the writer's thread has something else to do."""
        ...

    def finished_below(self) -> list[tuple[int, int]]:
        """For each topic: its number, and the number below which all channels have finished all blocks."""
        ...

    def find_age(self) -> Age:
        """Which blocks are old enough now."""
        ...

    def wake(self) -> None:
        """Note that there is something to write."""
        ...


class Maintenance:
    """The work for one store."""

    def __init__(self, store: MaintainedStore, writer: DatabaseThread, loop: asyncio.AbstractEventLoop) -> None:
        self._store = store
        self._writer = writer
        self._loop = loop
        self._gives_back = False

    # ── free space ──

    def give_back_space_soon(self) -> None:
        """Give unused pages back to the system, a few at a time, once the store has been idle for a while."""
        if not self._gives_back:
            self._gives_back = True
            self._loop.call_later(IDLE, self._give_back_space)

    def _give_back_space(self) -> None:
        if self._store.is_closed or self._store.has_work:
            self._gives_back = False  # the store asks again when it is idle
            return

        def work(connection: sqlite3.Connection) -> bool:
            (unused,) = connection.execute("PRAGMA freelist_count").fetchone()
            (size,) = connection.execute("PRAGMA page_size").fetchone()
            if unused * size <= SLACK:
                return False
            connection.executescript(f"PRAGMA incremental_vacuum({VACUUM})")  # `execute` takes one step of it
            return True

        def answer(more: bool | None, error: Exception | None) -> None:
            if more and error is None:
                self._loop.call_later(PAUSE, self._give_back_space)
            else:
                self._gives_back = False

        self._writer.do(work, answer)

    # ── the reserve ──

    def allocate_later(self, allocate: Callable[[], bool]) -> None:
        """Call `allocate` every ALLOCATE_EVERY seconds until it returns True."""

        def again() -> None:
            if not self._store.is_closed and not allocate():
                self.allocate_later(allocate)

        self._loop.call_later(ALLOCATE_EVERY, again)

    # ── retention ──

    def sweep(self) -> None:
        """Search for blocks that have been retained for long enough, now and every SWEEP_EVERY seconds."""
        if not self._store.is_closed:
            self._sweep_some(self._store.finished_below(), self._store.find_age())

    def _sweep_some(self, below: list[tuple[int, int]], age: Age) -> None:
        """Search some topics at a time, so that no publisher waits for long."""
        store = self._store
        some, rest = below[:SWEEP_AT_ONCE], below[SWEEP_AT_ONCE:]

        def found(removals: dict[Key, Removal] | None, error: Exception | None) -> None:
            if error is not None or removals is None:
                log.error("cannot search for messages that were retained for long enough: %s", error)
            else:
                store.sweeper.remove_old(removals)
            if store.is_closed:
                return
            if rest:
                self._sweep_some(rest, age)
            else:
                self._loop.call_later(SWEEP_EVERY, self.sweep)
            store.wake()

        self._writer.do(lambda connection: store.sweeper.look_for_old(some, age, connection), found)

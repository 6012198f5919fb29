"""A thread for calls that block: reading stdin, writing stdout, fsync. In: a function. Out: its result, as a future.

The event loop never waits for a pipe or a disk. The thread is a daemon: a read that never returns must not keep the
process from ending. A caller makes one call for a block of bytes, never one for a message.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Worker:
    """Runs calls one after the other in one thread, which the first call starts. name: the thread's."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[tuple[asyncio.Future[Any], Callable[..., Any], tuple[Any, ...]]] = (
            queue.SimpleQueue()
        )
        self._name = name
        self._thread: threading.Thread | None = None
        self._loop = asyncio.get_running_loop()

    def call(self, function: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Queue `function(*args)` for the thread. The future gets its result or its exception."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        done: asyncio.Future[T] = self._loop.create_future()
        self._calls.put((done, function, args))
        return done

    def _run(self) -> None:
        while True:
            done, function, args = self._calls.get()
            try:
                result = function(*args)
            except BaseException as error:
                self._complete(done, None, error)
            else:
                self._complete(done, result, None)
            # While the thread waits for its next call, it must not keep large objects alive.
            del done, function, args

    def _complete(self, done: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        def settle() -> None:
            if done.done():
                return
            if error is None:
                done.set_result(result)
            else:
                done.set_exception(error)

        with contextlib.suppress(RuntimeError):  # the loop is closed, and no code waits for the result
            self._loop.call_soon_threadsafe(settle)

"""A database connection in a thread of its own. In: functions of the connection. Out: calls in the event loop.

The functions run one after another. The result or the error of each is passed to a callback.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")
Work = Callable[[sqlite3.Connection], Result]
Answer = Callable[[Result | None, Exception | None], None]


class DatabaseThread:
    """Runs functions for which the event loop should not wait."""

    def __init__(self, name: str, connection: sqlite3.Connection, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._loop = loop
        self._todo: SimpleQueue[tuple[Work[Any], Answer[Any]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def do(self, work: Work[Result], answer: Answer[Result]) -> None:
        """Call `work(connection)` in the thread; then `answer(result, None)` or `answer(None, error)` in the event
        loop."""
        self._todo.put((work, answer))

    def close(self) -> None:
        """Run the remaining functions, wait for them, and end the thread. The event loop may not get their answers."""
        self._todo.put(None)
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        while (item := self._todo.get()) is not None:
            work, answer = item
            result, failure = None, None
            try:
                result = work(self._connection)
            except Exception as error:  # any error is passed to the caller, in the event loop
                failure = error
            with contextlib.suppress(RuntimeError):  # the event loop has ended, and what was begun is still finished
                self._loop.call_soon_threadsafe(answer, result, failure)
            del work, answer, result, failure, item

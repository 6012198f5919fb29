"""A database connection in a thread of its own. In: work, as functions of the connection. Out: calls in the loop.

One piece of work after another, each answered with its result or its error. Nothing here knows what it does.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")
Work = Callable[[sqlite3.Connection], Result]
Answer = Callable[[Result | None, Exception | None], None]


class DatabaseThread:
    """`do` what the loop should not wait for."""

    def __init__(self, name: str, connection: sqlite3.Connection, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._loop = loop
        self._todo: SimpleQueue[tuple[Work[Any], Answer[Any]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def do(self, work: Work[Result], answer: Answer[Result]) -> None:
        """`work(connection)` in the thread; then `answer(result, None)` or `answer(None, error)` in the loop."""
        self._todo.put((work, answer))

    def close(self) -> None:
        """Do what was asked, and end; waits for it. What is not answered by then is not answered any more."""
        self._todo.put(None)
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        while (asked := self._todo.get()) is not None:
            work, answer = asked
            result, failure = None, None
            try:
                result = work(self._connection)
            except Exception as error:  # whatever it is, who asked is told, in the loop
                failure = error
            try:
                self._loop.call_soon_threadsafe(answer, result, failure)
            except RuntimeError:  # the loop has ended, and nobody wants to know
                return
            del work, answer, result, failure, asked

"""Calls that one thread makes for others, as the client belongs to that thread. In: functions. Out: futures."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar("Result")


class ThreadCalls:
    """Functions of one argument, the client, which wait for their thread."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[Any], Any]]] = queue.SimpleQueue()

    def put(self, function: Callable[[Any], Result]) -> Future[Result]:
        """Add a call, in any thread. The future has its result or exception; ConnectionError if it was refused."""
        done: Future[Result] = Future()
        self._calls.put((done, function))
        return done

    def run(self, client: Any) -> None:
        """Make all calls, in the thread of `client`."""
        while not self._calls.empty():
            done, function = self._calls.get()
            if not done.set_running_or_notify_cancel():
                continue
            try:
                done.set_result(function(client))
            except Exception as error:
                done.set_exception(error)

    def refuse(self) -> None:
        """Let all calls fail: the thread has ended."""
        while not self._calls.empty():
            done, _ = self._calls.get()
            if done.set_running_or_notify_cancel():
                done.set_exception(ConnectionError("the reader has ended"))

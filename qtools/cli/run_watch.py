"""The tasks that run beside the loop of a consuming command: one waits for the end conditions, one logs warnings.

In: a source. Out: the errors of the tasks.

    __init__ ─▶ the loop runs ─▶ settle ─▶ stop ─▶ check
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

from qtools.engines.contract import Source
from qtools.names import Subscription

PATIENCE = 3.0  # s for which a run that has ended waits for the warnings


class RunWatch:
    """The tasks beside one run. named: the subscriptions that the user has named."""

    def __init__(self, source: Source, named: Sequence[Subscription]) -> None:
        self._source = source
        self._ending = asyncio.create_task(source.wait_for_end())
        self._warning = asyncio.create_task(source.warn_later(named))
        self._tasks: list[asyncio.Task[Any]] = [self._ending, self._warning]

    def add(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` as one more task; `check` raises its error."""
        self._tasks.append(asyncio.create_task(work))

    async def settle(self) -> None:
        """If the run ended by itself and received no message, wait up to PATIENCE for the warning that says why."""
        ending = self._ending
        ended = ending.done() and not ending.cancelled() and not ending.exception() and ending.result()
        if ended and not self._source.received and not self._warning.done():
            await asyncio.wait((self._warning,), timeout=PATIENCE)

    async def stop(self) -> None:
        """Cancel the tasks, and wait until they have ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    def check(self) -> None:
        """Raise the error of the first task that failed, if one did."""
        for task in self._tasks:
            if not task.cancelled():
                task.result()

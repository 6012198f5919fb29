"""The first messages of a run are tried before one is finished: an expression that fails on each of them is a mistake.

In: a source, and what tells which bodies an expression fails on. Out: the same batches.

    read ─▶ one has an answer? ─▶ yes: the trial is over, all is handed on
                               └▶ no: held ─▶ FIRST failed: QtoolsError, and what is held goes back to its queue
                                           └▶ nothing comes for PAUSE_SECONDS, or no more may be held: handed on

A mistyped path is null in jq, and no failure: that the filter matched nothing is for the summary to tell.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from qtools.errors import QtoolsError
from qtools.message import Batch

FIRST = 1000  # messages
PAUSE_SECONDS = 0.3  # a broker that has more delivers it within milliseconds
MOST_BYTES = 8 * 1024 * 1024  # of bodies that are held, as a consumer holds of what is unread


class Source(Protocol):
    async def read(self) -> Batch | None: ...

    async def close(self) -> None: ...


class Trial:
    """`source`, whose first messages are tried.

    failures: which of some bodies have no answer, by place, and why. most: how many messages may be held at once.
    """

    def __init__(
        self, source: Source, failures: Callable[[Sequence[bytes]], Mapping[int, QtoolsError]], *, most: int = FIRST
    ) -> None:
        self._source = source
        self._failures = failures
        self._most = most
        self._over = False
        self._failed = 0
        self._first = ""  # why the first message failed
        self._held: list[Batch] = []
        self._held_bytes = 0

    async def read(self) -> Batch | None:
        """The next batch. QtoolsError when the first messages have all failed; none of those held is finished."""
        while not self._over:
            batch = await self._next()
            if batch is None:
                return self._take()
            failed = self._failures(batch.bodies)
            self._held.append(batch)
            self._held_bytes += sum(map(len, batch.bodies))
            self._over = len(failed) < len(batch)
            if self._over:
                return self._take()
            self._failed += len(batch)
            self._first = self._first or str(next(iter(failed.values())))
            if self._failed >= FIRST:
                raise QtoolsError(
                    f"each of the first {self._failed:,} messages failed, the first one so: {self._first}; "
                    "this run ends and gives them back (an --on-error that is given goes on all the same)"
                )
            if sum(map(len, self._held)) >= self._most or self._held_bytes >= MOST_BYTES:
                return self._take()
        return await self._source.read()

    async def close(self) -> None:
        """Let go. What is held was not finished: its connection gives it back."""
        await self._source.close()

    async def _next(self) -> Batch | None:
        """The next batch; None at the end, or, where something is held, when nothing came for a while."""
        if not self._held:
            return await self._source.read()
        reading = asyncio.ensure_future(self._source.read())
        try:
            await asyncio.wait((reading,), timeout=PAUSE_SECONDS)
        finally:
            reading.cancel()
            await asyncio.wait((reading,))
        return None if reading.cancelled() else reading.result()

    def _take(self) -> Batch | None:
        """What is held, as one batch; None where nothing is."""
        held, self._held, self._held_bytes = self._held, [], 0
        return Batch.joined(held) if held else None

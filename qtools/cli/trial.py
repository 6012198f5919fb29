"""Stops a run whose expression fails on each of its first messages, as the expression is probably wrong.

In: a source, and a function that finds the messages on which an expression fails. Out: the same batches.

    read ─▶ did a message pass? ─▶ yes: the trial is over; return all buffered batches
                                └▶ no: buffer ─▶ FIRST messages failed: QtoolsError; the buffered ones are requeued
                                              └▶ nothing arrives for PAUSE_SECONDS, or the buffer is full: return them

A trial that is `strict` raises the error in the last case too: one message has to pass, however few there are.

A mistyped path evaluates to null in jq and is no failure; the summary of the run shows that nothing matched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import NoReturn, Protocol

from qtools.errors import QtoolsError
from qtools.message import Batch

FIRST = 1000  # messages that have to fail
PAUSE_SECONDS = 0.3  # a broker that has more messages delivers them within milliseconds
STRICT_PAUSE_SECONDS = 2.0  # the run ends then, so a slow broker is given more time
EXPRESSION, DECODING = "the expression", "--decode, or the expression,"  # what may have failed
NO_LETTERS = "these are no dead letters: --redrive"
MOST_BYTES = 8 * 1024 * 1024  # of bodies in the buffer: as much as a consumer buffers of unread messages


class TrialSource(Protocol):
    async def read(self) -> Batch | None: ...

    async def close(self) -> None: ...


class Trial:
    """A Source that reads from `source` and tests its first messages.

    failures: returns the error of each message of a batch on which the expression fails, by index.
    what: what may have failed, for the message. requeued: how many messages are requeued because they have all failed.
    strict: one of the messages has to pass, also if there are fewer than FIRST; there are no more when none arrives for
        STRICT_PAUSE_SECONDS.
    most: how many messages may be buffered. It is at most the number in flight, since a broker sends no more until some
        of them are finished.
    """

    def __init__(
        self,
        source: TrialSource,
        failures: Callable[[Batch], Awaitable[Mapping[int, QtoolsError]]],
        *,
        most: int = FIRST,
        what: str = EXPRESSION,
        strict: bool = False,
    ) -> None:
        self._source = source
        self._failures = failures
        self._most = most
        self._what = what
        self._strict = strict
        self.requeued = 0
        self._over = False
        self._failed = 0
        self._first = ""  # why the first message failed
        self._buffered: list[Batch] = []
        self._buffered_bytes = 0

    async def read(self) -> Batch | None:
        """The next batch; None at the end. QtoolsError if the first messages have all failed; the buffered messages are
        not finished then."""
        while not self._over:
            batch = await self._next()
            if batch is None:
                if self._strict and self._buffered:
                    self._fail()
                return self._take()
            failed = await self._failures(batch)
            self._buffered.append(batch)
            self._buffered_bytes += sum(map(len, batch.bodies))
            self._over = len(failed) < len(batch)
            if self._over:
                return self._take()
            self._failed += len(batch)
            self._first = self._first or str(next(iter(failed.values())))
            if self._failed >= FIRST:
                self._fail()
            if sum(map(len, self._buffered)) >= self._most or self._buffered_bytes >= MOST_BYTES:
                return self._take()
        return await self._source.read()

    async def close(self) -> None:
        """Close the source. Its connections requeue the buffered messages, which are not finished."""
        await self._source.close()

    async def _next(self) -> Batch | None:
        """The next batch; None at the end, or, if something is buffered, when nothing arrives for PAUSE_SECONDS."""
        if not self._buffered:
            return await self._source.read()
        reading = asyncio.ensure_future(self._source.read())
        try:
            await asyncio.wait((reading,), timeout=STRICT_PAUSE_SECONDS if self._strict else PAUSE_SECONDS)
        finally:
            reading.cancel()
            await asyncio.wait((reading,))
        return None if reading.cancelled() else reading.result()

    def _fail(self) -> NoReturn:
        self.requeued = sum(map(len, self._buffered))
        raise QtoolsError(
            f"{self._what} failed on each of the first {self._failed:,} messages; on the first one: "
            f"{self._first}. Stopping: they are requeued. Give --on-error to go on regardless"
        )

    def _take(self) -> Batch | None:
        """Empty the buffer: its messages as one batch, or None if there are none."""
        batches, self._buffered, self._buffered_bytes = self._buffered, [], 0
        return Batch.joined(batches) if batches else None

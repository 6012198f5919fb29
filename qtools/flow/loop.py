"""The loop of every command: read a batch, throttle, write it, and acknowledge it once it is safe. And the orderly
stop.

    source.read ─▶ gather ─▶ throttle ─▶ sink.write × window ─▶ batch.finish, in the order they were read

Up to `window` writes are in progress at once. Batches are acknowledged in the order in which they were read, so that
all messages before an acknowledged one are safe. After a stop, writes in progress may end and are acknowledged; the
messages of those that do not end within `drain_timeout` are requeued. In the end, read = finished + refused + requeued.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qtools.errors import PartialFailure, Postponed, QtoolsError, SinkClosed, SinkError
from qtools.flow.contract import FlowSource, Sink
from qtools.flow.gather import Gather
from qtools.flow.throttle import Throttle
from qtools.message import Batch

DRAIN_TIMEOUT = 10.0  # s
RELEASE_TIMEOUT = 1.0  # s that a write has to end after it was cancelled


@dataclass(slots=True)
class Totals:
    """What became of the messages that were read: numbers of messages, and bytes of bodies."""

    read: int = 0
    finished: int = 0
    finished_bytes: int = 0
    refused: int = 0
    requeued: int = 0
    closed: bool = False  # the reader of the sink's output has closed it


# Decides what becomes of messages that the sink refuses: True if they are settled (they are finished, and counted as
# refused), False to requeue them. It may raise an error, which ends the flow.
OnRefusal = Callable[[Batch, dict[int, QtoolsError]], bool]


class Flow:
    """One run of the loop from `source` to `sink`. `totals` may be read at any time. drain_timeout in s."""

    def __init__(
        self,
        source: FlowSource,
        sink: Sink,
        *,
        window: int = 1,
        gather: Gather | None = None,
        throttle: Throttle | None = None,
        on_refused: OnRefusal | None = None,
        drain_timeout: float = DRAIN_TIMEOUT,
    ) -> None:
        self.totals = Totals()
        self._source = source
        self._sink = sink
        self._window = window
        self._gather = gather
        self._throttle = throttle
        self._on_refused = on_refused
        self._drain_timeout = drain_timeout
        self._stopping = asyncio.Event()
        self._failed = asyncio.Event()
        self._failure: BaseException | None = None
        self._room = asyncio.Event()
        self._writing: deque[tuple[Batch, asyncio.Task[None]]] = deque()
        self._source_end: asyncio.Future[Batch | None] | None = None  # the last read, if there is a gather

    def stop(self) -> None:
        """Stop reading; writes in progress have `drain_timeout` to end."""
        self._stopping.set()

    async def run(self) -> Totals:
        """Run until the source ends, the sink is closed, `stop` is called, or an error occurs, which is raised."""
        reader = asyncio.create_task(self._read_and_write(), name="flow reader")
        draining = asyncio.create_task(self._drained(reader))
        ends = [asyncio.create_task(event.wait()) for event in (self._stopping, self._failed)]
        try:
            await asyncio.wait((reader, *ends), return_when=asyncio.FIRST_COMPLETED)
            await _ended(reader)
            await asyncio.wait((draining, ends[0]), return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait((draining,), timeout=self._drain_timeout)
        finally:
            try:
                await _ended(reader, draining, *ends)
            finally:
                await _let_go(self._give_back())
        read_error = None if reader.cancelled() else reader.exception()
        if isinstance(self._failure, SinkClosed):
            self.totals.closed = True
        elif self._failure is not None:
            raise self._failure
        if read_error is not None:  # raised last: the batches that were read before it have been written
            raise read_error
        return self.totals

    # ── reading ──

    async def _read_and_write(self) -> None:
        while (batch := await self._next()) is not None:
            self.totals.read += len(batch)
            if self._throttle is None:
                await self._start_write(batch)
            else:
                await self._let_pass(batch, self._throttle)

    async def _next(self) -> Batch | None:
        """The next batch, joined by the gather if there is one."""
        gather = self._gather
        if gather is None:
            return await self._source.read()
        clock = asyncio.get_running_loop().time
        while self._source_end is None:
            reading = asyncio.ensure_future(self._source.read())
            try:
                await asyncio.wait((reading,), timeout=max(0.0, gather.due - clock()) if len(gather) else None)
            finally:
                await _ended(reading)
                # Also if this task is being cancelled: a batch that the read returned must not be lost.
                if not reading.cancelled() and reading.exception() is None:
                    batch = reading.result()
                    full = batch is not None and gather.add(batch, clock())
            if reading.cancelled():
                return gather.take()
            if reading.exception() is not None or batch is None:
                self._source_end = reading
            elif full:
                return gather.take()
        return gather.take() or self._source_end.result()

    async def _let_pass(self, batch: Batch, throttle: Throttle) -> None:
        clock = asyncio.get_running_loop().time
        try:
            while len(batch):
                count = throttle.take(len(batch), clock())
                if count == len(batch):
                    passing, batch = batch, Batch.empty()
                    await self._start_write(passing)
                elif count:
                    passing, batch = batch.split(count)
                    await self._start_write(passing)
                else:
                    await asyncio.sleep(throttle.wait_for(len(batch)))
        except asyncio.CancelledError:
            self._requeue(batch)
            raise

    # ── writing ──

    async def _start_write(self, batch: Batch) -> None:
        """Start a write of `batch`; return when the window has room for another."""
        task = asyncio.create_task(self._sink.write(batch))
        self._writing.append((batch, task))
        task.add_done_callback(self._on_written)
        while len(self._writing) >= self._window:
            self._room.clear()
            await self._room.wait()

    def _on_written(self, _: asyncio.Task[None]) -> None:
        """Acknowledge the writes that have ended, the oldest first, up to the first that has not."""
        while self._writing and self._writing[0][1].done() and self._failure is None:
            batch, task = self._writing.popleft()
            try:
                self._settle(batch, task)
            except Exception as error:  # any error ends the flow; an error in a callback would only be logged
                self._failure = error
                self._failed.set()
        self._room.set()

    async def _drained(self, reader: asyncio.Task[None]) -> None:
        """Return when the source has ended, and all batches are written."""
        await asyncio.wait((reader,))
        while self._writing and self._failure is None:
            self._room.clear()
            await self._room.wait()

    def _settle(self, batch: Batch, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            self._requeue(batch)
            return
        error = task.exception()
        if error is None:
            self._finish(batch)
        elif isinstance(error, PartialFailure):
            self._finish(batch.without(list(error.failed)))
            refused = self._postpone(batch, error.failed)
            failed = batch.pick(sorted(refused))
            try:
                settled = bool(refused) and self._on_refused is not None and self._on_refused(failed, refused)
            except BaseException:
                self._requeue(failed)
                raise
            if settled:
                self.totals.refused += len(failed)
                failed.finish()
            else:
                self._requeue(failed)
        elif isinstance(error, SinkError):
            taken, rest = batch.split(error.taken)
            self._finish(taken)
            self._requeue(rest)
            raise error
        else:
            self._requeue(batch)
            raise error

    def _postpone(self, batch: Batch, failed: dict[int, QtoolsError]) -> dict[int, QtoolsError]:
        """Requeue the messages whose error is Postponed, with its delay; return the others of `failed`."""
        later: dict[int, list[int]] = {}
        for place, why in sorted(failed.items()):
            if isinstance(why, Postponed):
                later.setdefault(why.delay_ms, []).append(place)
        for delay_ms, places in later.items():
            self._requeue(batch.pick(places), delay_ms)
        return {place: why for place, why in failed.items() if not isinstance(why, Postponed)} if later else failed

    def _give_back(self) -> list[asyncio.Task[None]]:
        """At the end: acknowledge all batches that were written, also behind one that was not, and requeue the others.

        Writes that are still in progress are cancelled, and returned.
        """
        given_up: list[asyncio.Task[None]] = []
        while self._writing:
            batch, task = self._writing.popleft()
            task.remove_done_callback(self._on_written)
            if not task.done():
                task.cancel()
                given_up.append(task)
                self._requeue(batch)
                continue
            try:
                self._settle(batch, task)
            except Exception as error:
                self._failure = self._failure or error  # the first error is the one that is raised
        left = self._gather.take() if self._gather is not None else None
        if left is not None:
            self.totals.read += len(left)
            self._requeue(left)
        return given_up

    def _finish(self, batch: Batch) -> None:
        if len(batch):
            self.totals.finished += len(batch)
            self.totals.finished_bytes += sum(map(len, batch.bodies))
            batch.finish()

    def _requeue(self, batch: Batch, delay_ms: int = 0) -> None:
        if len(batch):
            self.totals.requeued += len(batch)
            batch.requeue(delay_ms)


async def _ended(*tasks: asyncio.Future[Any]) -> None:
    """Cancel the tasks that still run, and wait for their end. Their errors are not raised here."""
    running = [task for task in tasks if not task.done()]
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running)
    for task in tasks:
        if not task.cancelled():
            task.exception()


async def _let_go(writes: list[asyncio.Task[None]]) -> None:
    """Wait for cancelled writes to end: the sink is closed next, and must not be in use."""
    if writes:
        done, _ = await asyncio.wait(writes, timeout=RELEASE_TIMEOUT)
        for task in done:
            if not task.cancelled():
                task.exception()  # retrieved, so that asyncio does not log it: its batch was requeued already

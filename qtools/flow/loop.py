"""The loop of every command: read a batch, throttle, write it, and acknowledge it once it is safe. And the orderly
stop.

    source.read ─▶ gather ─▶ throttle ─▶ sink.write × window ─▶ batch.finish, in the order they were read

Up to `window` writes are in progress at once. Batches are acknowledged in the order in which they were read, so that
all messages before an acknowledged one are safe. After a stop, writes in progress may end and are acknowledged; the
messages of those that do not end within `drain_timeout` are requeued. In the end, read = finished + refused + requeued.

Everything runs in the task that calls `run`; only with a window of more than 1 has each write a task of its own. A stop
during a read, and the end of `drain_timeout`, cancel the run's own task, and `run` takes that cancellation back, as
asyncio.timeout does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
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

Write = Callable[[Batch], Awaitable[None]]


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
        self._task: asyncio.Task[Any] | None = None  # the one that is in `run`
        self._cancellations = 0  # how often that task had been cancelled before `run`
        self._interruptions = 0  # how often this flow has cancelled it
        self._is_stopping = False
        self._is_reading = False  # a stop, or a write that fails, cancels what `run` waits for now
        self._drain_end: asyncio.TimerHandle | None = None
        self._failure: Exception | None = None  # of a write
        self._read_error: Exception | None = None
        self._has_ended = False  # the source
        self._written: asyncio.Future[None] | None = None  # what `run` waits on until a write has ended
        self._writing: deque[tuple[Batch, asyncio.Task[None]]] = deque()  # only with a window of more than 1

    def stop(self) -> None:
        """Stop reading; writes in progress have `drain_timeout` to end."""
        if self._is_stopping:
            return
        self._is_stopping = True
        if self._task is not None:
            loop = asyncio.get_running_loop()
            self._drain_end = loop.call_later(self._drain_timeout, self._interrupt)
            if asyncio.current_task() is self._task:  # called by the source or the sink
                loop.call_soon(self._interrupt_reading)
            else:
                self._interrupt_reading()

    async def run(self) -> Totals:
        """Run until the source ends, the sink is closed, `stop` is called, or an error occurs, which is raised."""
        task = self._task = asyncio.current_task()
        assert task is not None
        self._cancellations = task.cancelling()
        try:
            await self._until_interrupted(self._read_and_write())
            await self._until_interrupted(self._drained())
        finally:
            self._task = None
            if self._drain_end is not None:
                self._drain_end.cancel()
            await _wait_for_cancelled(self._settle_remaining())
        if isinstance(self._failure, SinkClosed):
            self.totals.closed = True
        elif self._failure is not None:
            raise self._failure
        if self._read_error is not None:  # raised last: the batches that were read before it have been written
            raise self._read_error
        return self.totals

    # ── interruptions ──

    async def _until_interrupted(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` until it ends or this flow interrupts it. A cancellation by others is raised."""
        try:
            await work
        except asyncio.CancelledError:
            if not self._take_back():
                raise
        else:
            self._take_back()

    def _take_back(self) -> bool:
        """Take back the cancellations by this flow; return whether there were no others."""
        assert self._task is not None
        for _ in range(self._interruptions):
            self._task.uncancel()
        self._interruptions = 0
        return not self._is_cancelled

    @property
    def _is_cancelled(self) -> bool:
        """Whether the task was cancelled during the run, and has not taken it back."""
        return self._task is not None and self._task.cancelling() > self._cancellations

    def _interrupt(self) -> None:
        if self._task is not None:
            self._interruptions += 1
            self._task.cancel()

    def _interrupt_reading(self) -> None:
        if self._is_reading:
            self._is_reading = False
            self._interrupt()

    # ── reading ──

    async def _read_and_write(self) -> None:
        write = self._write if self._window == 1 else self._start_write
        while not self._is_stopping and self._failure is None:
            self._is_reading = True
            try:
                batch = await self._next()
            except Exception as error:
                self._read_error = error
                break
            if batch is None:
                break
            self.totals.read += len(batch)
            if self._throttle is None:
                await write(batch)
            else:
                await self._let_pass(batch, self._throttle, write)
        self._is_reading = False

    async def _next(self) -> Batch | None:
        """The next batch, joined by the gather if there is one."""
        gather = self._gather
        if gather is None:
            return await self._source.read()
        clock = asyncio.get_running_loop().time
        while not self._has_ended:
            try:
                async with asyncio.timeout_at(gather.due if len(gather) else None) as age:
                    batch = await self._source.read()
            except Exception as error:
                if isinstance(error, TimeoutError) and age.expired():
                    break
                self._has_ended, self._read_error = True, error
            else:
                self._has_ended = batch is None
                if batch is not None and gather.add(batch, clock()):
                    break
        gathered = gather.take()
        if gathered is None and self._read_error is not None:
            raise self._read_error
        return gathered

    async def _let_pass(self, batch: Batch, throttle: Throttle, write: Write) -> None:
        clock = asyncio.get_running_loop().time
        try:
            while len(batch) and not self._is_stopping and self._failure is None:
                self._is_reading = True
                count = throttle.take(len(batch), clock())
                if count == len(batch):
                    passing, batch = batch, Batch.empty()
                    await write(passing)
                elif count:
                    passing, batch = batch.split(count)
                    await write(passing)
                else:
                    await asyncio.sleep(throttle.wait_for(len(batch)))
        finally:
            self._requeue(batch)

    # ── writing ──

    async def _write(self, batch: Batch) -> None:
        """Write `batch`, and acknowledge it."""
        self._is_reading = False
        error: Exception | None = None
        try:
            await self._sink.write(batch)
        except Exception as raised:
            error = raised
        except BaseException:
            self._requeue(batch)
            if self._is_cancelled:
                raise
            return  # the write has cancelled itself
        try:
            self._settle(batch, error)
        except Exception as raised:
            self._failure = raised

    async def _start_write(self, batch: Batch) -> None:
        """Start a write of `batch`; return when the window has room for another."""
        writing = self._writing
        task = asyncio.create_task(self._sink.write(batch))
        writing.append((batch, task))
        task.add_done_callback(self._on_written)
        while len(writing) >= self._window:
            self._written = asyncio.get_running_loop().create_future()
            await self._written

    def _on_written(self, _: asyncio.Task[None]) -> None:
        """Acknowledge the writes that have ended, the oldest first, up to the first that has not."""
        writing = self._writing
        while writing and writing[0][1].done() and self._failure is None:
            batch, task = writing.popleft()
            try:
                self._settle_task(batch, task)
            except Exception as error:  # any error ends the flow; an error in a callback would only be logged
                self._failure = error
                self._interrupt_reading()
        if self._written is not None and not self._written.done():
            self._written.set_result(None)

    async def _drained(self) -> None:
        """Return when all batches are written, or a write has failed."""
        while self._writing and self._failure is None:
            self._written = asyncio.get_running_loop().create_future()
            await self._written

    def _settle_task(self, batch: Batch, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            self._requeue(batch)
        else:
            self._settle(batch, task.exception())

    def _settle(self, batch: Batch, error: BaseException | None) -> None:
        """Acknowledge a batch whose write has ended with `error`, or well; raise an error that ends the flow."""
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

    def _settle_remaining(self) -> list[asyncio.Task[None]]:
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
                self._settle_task(batch, task)
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


async def _wait_for_cancelled(writes: list[asyncio.Task[None]]) -> None:
    """Wait for cancelled writes to end: the sink is closed next, and must not be in use."""
    if writes:
        done, _ = await asyncio.wait(writes, timeout=RELEASE_TIMEOUT)
        for task in done:
            if not task.cancelled():
                task.exception()  # retrieved, so that asyncio does not log it: its batch was requeued already

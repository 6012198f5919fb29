"""The one loop: read a batch, let it pass, write it, and acknowledge it once it is safe. And the orderly stop.

    source.read ─▶ gather ─▶ throttle ─▶ sink.write × window ─▶ batch.finish, in the order they were read

Up to `window` writes are under way at once; acknowledgements keep the order of reading all the same, so that
"everything up to here is safe" can be said of a file. A stop lets the writes under way end and be
acknowledged; what they do not end within `drain_timeout` goes back. Counts always add up:
read = finished + refused + requeued.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qtools.errors import PartialFailure, Postponed, QtoolsError, SinkClosed, SinkError
from qtools.flow.contract import Sink, Source
from qtools.flow.gather import Gather
from qtools.flow.throttle import Throttle
from qtools.message import Batch

DRAIN_TIMEOUT = 10.0  # s
RELEASE_TIMEOUT = 1.0  # s that a write has to let go of the sink once it is given up


@dataclass(slots=True)
class Totals:
    """What became of everything that was read: messages, and bytes of bodies."""

    read: int = 0
    finished: int = 0
    finished_bytes: int = 0
    refused: int = 0
    requeued: int = 0
    closed: bool = False  # the sink was closed by who read from it


# Decides what becomes of messages that the sink refuses: True when that settles them (they are finished and
# counted as refused), False to give them back. It may raise to end the flow.
Refusal = Callable[[Batch, dict[int, QtoolsError]], bool]


class Flow:
    """One run of the loop. `totals` may be read at any time."""

    def __init__(
        self,
        source: Source,
        sink: Sink,
        *,
        window: int = 1,
        gather: Gather | None = None,
        throttle: Throttle | None = None,
        on_refused: Refusal | None = None,
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
        self._source_end: asyncio.Future[Batch | None] | None = None  # the last read of a source that is gathered

    def stop(self) -> None:
        """Read no more, end what is under way."""
        self._stopping.set()

    async def run(self) -> Totals:
        """Until the source ends, the sink is closed, `stop` is called, or an error that no retry mends."""
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
        if read_error is not None:  # only now: what was read before it is good, and has been written
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
        """The next batch, gathered if so asked."""
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
                # Even when we are being stopped: what a read has handed over may not be forgotten.
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
        """Begin to write `batch`; returns when the window has room for another."""
        task = asyncio.create_task(self._sink.write(batch))
        self._writing.append((batch, task))
        task.add_done_callback(self._on_written)
        while len(self._writing) >= self._window:
            self._room.clear()
            await self._room.wait()

    def _on_written(self, _: asyncio.Task[None]) -> None:
        """Acknowledge what is safe, oldest first, as soon as it is."""
        while self._writing and self._writing[0][1].done() and self._failure is None:
            batch, task = self._writing.popleft()
            try:
                self._settle(batch, task)
            except Exception as error:  # whatever it is, it ends the flow; nothing may vanish in a callback
                self._failure = error
                self._failed.set()
        self._room.set()

    async def _drained(self, reader: asyncio.Task[None]) -> None:
        """Return when there is no more to come, and all of it was written."""
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
        """Give back what is to come again later, each when it shall; the others of `failed` are returned."""
        later: dict[int, list[int]] = {}
        for place, why in sorted(failed.items()):
            if isinstance(why, Postponed):
                later.setdefault(why.delay_ms, []).append(place)
        for delay_ms, places in later.items():
            self._requeue(batch.pick(places), delay_ms)
        return {place: why for place, why in failed.items() if not isinstance(why, Postponed)} if later else failed

    def _give_back(self) -> list[asyncio.Task[None]]:
        """When all else is over: what was written is acknowledged, also behind a gap; the rest comes again.

        The writes that are given up are cancelled and returned.
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
                self._failure = self._failure or error  # the first one is told
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
    """Cancel those that still run, and wait for their end; who wants their errors asks for them."""
    running = [task for task in tasks if not task.done()]
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running)
    for task in tasks:
        if not task.cancelled():
            task.exception()


async def _let_go(writes: list[asyncio.Task[None]]) -> None:
    """Wait for writes that were given up: the sink is closed next, and may not be in use."""
    if writes:
        done, _ = await asyncio.wait(writes, timeout=RELEASE_TIMEOUT)
        for task in done:
            if not task.cancelled():
                task.exception()  # seen: what it wrote was given back already

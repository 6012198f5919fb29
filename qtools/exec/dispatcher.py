"""Reads messages, and starts a command for each, or for each --batch of them. In: a source. Out: calls of a runner.

    read ─▶ --where, --select ─▶ a batch of --batch ─▶ wait for room ─▶ start ─▶ … ─▶ settled (settling.py)

Messages are started in the order in which they came. While all commands are busy nothing is read, so no more than
max-in-flight messages wait here; the source touches those in flight before they time out.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from qtools.errors import MessageRefused, Postponed
from qtools.exec.outcomes import DEAD_LETTER, Outcome
from qtools.exec.settling import Settling
from qtools.flow.contract import FlowSource
from qtools.message import Batch

if TYPE_CHECKING:  # few runs have one, and its modules take time to import
    from qtools.exec.selection import Selection


class Runner(Protocol):
    """Works on batches: commands (jobs.py), or workers (kept_worker.py). started: processes so far."""

    started: int

    @property
    def running(self) -> int:
        """0 when it works on no message."""

    @property
    def has_room(self) -> bool: ...

    async def wait_for_change(self) -> None: ...

    def wake(self) -> None: ...

    async def send(self, batch: Batch) -> None:
        """Begin with `batch`. MessageRefused if that can never be done, Postponed if not now; another QtoolsError if no
        message can be worked on."""

    async def drain(self) -> None:
        """Return when all batches are worked on."""

    async def kill(self) -> list[Batch]:
        """End what runs; return the messages that were not worked on to their end."""

    async def close(self) -> None: ...


class Dispatcher:
    """One run.

    batch: messages for one command, 0 for as many as are read at once. batch_wait: s that the first may wait for
    others. drain_timeout: s that commands may go on after `stop`. selection: --where and --select, if one was given.
    """

    def __init__(
        self,
        source: FlowSource,
        runner: Runner,
        settling: Settling,
        *,
        batch: int,
        batch_wait: float,
        drain_timeout: float,
        selection: Selection | None = None,
    ) -> None:
        self._source = source
        self._selection = selection
        self._runner = runner
        self._settling = settling
        self._batch = batch
        self._batch_wait = batch_wait
        self._drain_timeout = drain_timeout
        self._waiting: list[Batch] = []  # messages that no command was started for yet, fewer than a batch
        self._waiting_since = 0.0
        self._reading: asyncio.Task[Batch | None] | None = None
        self._failure: Exception | None = None
        self._stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def is_stopping(self) -> bool:
        return self._stopped.done()

    def stop(self) -> None:
        """Start no more commands; those that run may end."""
        if not self.is_stopping:
            self._stopped.set_result(None)
        self._runner.wake()
        if self._reading is not None:
            self._reading.cancel()

    def fail(self, error: Exception) -> None:
        """Stop, and raise `error` at the end; the first one counts."""
        self._failure = self._failure or error
        self.stop()

    async def run(self) -> None:
        """Run until the source ends, `stop` or `fail`. Raises the error that ended it."""
        try:
            await self._dispatch()
            if not self.is_stopping:  # the source has ended
                await self._send_waiting()
        except Exception as error:
            self.fail(error)
        finally:
            for batch in self._waiting:
                self._settling.give_back(batch)
            await self._end()
        if self._failure is not None:
            raise self._failure

    async def _dispatch(self) -> None:
        while not self.is_stopping:
            batch = await self._read()
            if batch is None:
                if not self._waiting or self._reading_has_ended:
                    return
                await self._send_waiting()
                continue
            if self._selection is not None:
                batch = await self._selection.choose(batch)
            if not len(batch):
                pass
            elif not self._batch:
                await self._send_whole(batch)
            elif self._batch == 1:
                await self._send_each(batch)
            else:
                await self._send_batches(batch)
            if self._selection is not None and self._selection.is_over:
                return

    @property
    def _reading_has_ended(self) -> bool:
        """Whether the source has returned None, and not the time of --batch-wait."""
        return self._reading is None

    async def _read(self) -> Batch | None:
        """The next messages; None at the end of the source, after a stop, or when those that wait have waited long
        enough."""
        loop = asyncio.get_running_loop()
        if self._reading is None:
            self._reading = loop.create_task(self._source.read())
        limit = None if not self._waiting else max(0.0, self._waiting_since + self._batch_wait - loop.time())
        await asyncio.wait((self._reading,), timeout=limit)
        if not self._reading.done():
            return None
        reading, self._reading = self._reading, None
        return None if reading.cancelled() else reading.result()

    async def _send_whole(self, batch: Batch) -> None:
        if await self._has_room():
            await self._send(batch)
        else:
            self._settling.give_back(batch)

    async def _send_each(self, batch: Batch) -> None:
        for place in range(len(batch)):
            if not await self._has_room():
                self._settling.give_back(batch.pick(range(place, len(batch))))
                return
            await self._send(batch.pick(range(place, place + 1)))

    async def _send_batches(self, batch: Batch) -> None:
        if not self._waiting:
            self._waiting_since = asyncio.get_running_loop().time()
        self._waiting.append(batch)
        while sum(map(len, self._waiting)) >= self._batch:
            if not await self._has_room():
                return
            full, rest = Batch.joined(self._waiting).split(self._batch)
            self._waiting = [rest] if len(rest) else []
            self._waiting_since = asyncio.get_running_loop().time()
            await self._send(full)

    async def _send_waiting(self) -> None:
        """Start a command for the messages that wait, though they are fewer than a batch."""
        if self._waiting and await self._has_room():
            batch, self._waiting = Batch.joined(self._waiting), []
            await self._send(batch)

    async def _has_room(self) -> bool:
        """Wait until another command may be started; False after a stop."""
        while not self._runner.has_room and not self.is_stopping:
            await self._runner.wait_for_change()
        return not self.is_stopping

    async def _send(self, batch: Batch) -> None:
        try:
            await self._runner.send(batch)
        except MessageRefused as error:
            self._settling.settle(batch, Outcome(DEAD_LETTER, None, str(error)))
        except Postponed as error:
            self._settling.postpone(batch, error)
        except BaseException:
            self._settling.give_back(batch)
            raise

    async def _end(self) -> None:
        """Wait for the commands that run. After a stop, end those that take longer than drain_timeout."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait((self._reading,))
            has_read = not self._reading.cancelled() and self._reading.exception() is None
            if has_read and (batch := self._reading.result()) is not None:
                self._settling.give_back(batch)
        draining = asyncio.ensure_future(self._runner.drain())
        await asyncio.wait((draining, self._stopped), return_when=asyncio.FIRST_COMPLETED)
        if not draining.done():
            await asyncio.wait((draining,), timeout=self._drain_timeout)
        if not draining.done():
            draining.cancel()
            await asyncio.wait((draining,))
            for batch in await self._runner.kill():
                self._settling.give_back(batch)
        elif (error := draining.exception()) is not None and isinstance(error, Exception):
            self._failure = self._failure or error
        await self._settling.drain()

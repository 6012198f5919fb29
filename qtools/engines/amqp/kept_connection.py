"""The connection of a source or a publisher: the first attempt decides whether it starts, later ones go on for ever."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from qtools.engines.amqp.connection import AmqpConnection, connect
from qtools.engines.amqp.settings import AmqpSettings
from qtools.engines.connections.keep_connected import ConnectionKeeper
from qtools.errors import QtoolsError, StartError


class KeptConnection:
    """A connection to one of the nodes. on_up, on_down: as ConnectionKeeper has them. on_end: called with an error that
    ends the attempts after the start, and is the user's."""

    def __init__(
        self,
        settings: AmqpSettings,
        on_up: Callable[[AmqpConnection], Awaitable[None]],
        on_down: Callable[[AmqpConnection], None],
        on_end: Callable[[QtoolsError], None],
    ) -> None:
        self._settings = settings
        self._on_up = on_up
        self._on_end = on_end
        self._first: asyncio.Future[None] | None = None  # the result of the first attempt
        self._task: asyncio.Task[None] | None = None
        self._latest: AmqpConnection | None = None
        self._keeper: ConnectionKeeper[AmqpConnection] = ConnectionKeeper(
            str(settings), self._connect, self._up, on_down, self._failed
        )

    async def start(self) -> None:
        """Connect; what the first attempt raises: StartError, UsageError."""
        self._first = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._keeper.run())
        self._task.add_done_callback(self._ended)
        await self._first
        self._keeper.is_started = True

    @property
    def connection(self) -> AmqpConnection | None:
        return self._keeper.connection

    @property
    def reconnects(self) -> int:
        return self._keeper.reconnects

    @property
    def is_closing(self) -> bool:
        return self._keeper.is_closing

    def begin_close(self) -> None:
        """A connection that is lost from now on is not opened again."""
        self._keeper.is_closing = True

    async def close(self) -> None:
        self.begin_close()
        if self._keeper.connection is not None:
            await self._keeper.connection.close()
        elif self._task is not None:
            self._task.cancel()
        if self._task is not None:
            with contextlib.suppress(asyncio.CancelledError, QtoolsError):
                await self._task
        if self._latest is not None and not self._latest.lost.done():  # it was given up, and is being closed
            await asyncio.wait([self._latest.lost], timeout=1.0)

    async def _connect(self) -> AmqpConnection:
        self._latest = await connect(self._settings)
        return self._latest

    async def _up(self, connection: AmqpConnection) -> None:
        await self._on_up(connection)
        self._answer_start(None)

    def _failed(self, error: QtoolsError) -> None:
        self._answer_start(error if isinstance(error, StartError) else StartError(str(error)))

    def _answer_start(self, error: BaseException | None) -> bool:
        """Whether `start` waits; it gets the result of the first attempt."""
        first = self._first
        if first is None or first.done():
            return False
        if error is None:
            first.set_result(None)
        else:
            first.set_exception(error)
        return True

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Pass on an error that is a defect, or the user's."""
        error = None if task.cancelled() else task.exception()
        if error is None or self._answer_start(error):
            return
        if isinstance(error, QtoolsError):
            self._on_end(error)
            return
        context = {"message": "keeping a connection failed", "exception": error, "task": task}
        asyncio.get_running_loop().call_exception_handler(context)

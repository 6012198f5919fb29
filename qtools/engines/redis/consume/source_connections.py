"""The connections of a source, and the tasks that read through them. In: channels. Out: entries, for the source.

    one connection for XACK, XCLAIM and questions ─┐
    one for each subscription, which blocks ───────┴─▶ opened together, and lost together: an outage is one

When they are back, acknowledgements that were not answered are sent again, and what a lost reply had brought is read
again: a group remembers it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Any, Protocol

from qtools.engines.connections.keep_connected import ConnectionKeeper
from qtools.engines.redis.connect import connect
from qtools.engines.redis.connection import RedisConnection
from qtools.engines.redis.consume import reading
from qtools.engines.redis.consume.group_channel import GroupChannel
from qtools.engines.redis.consume.temporary_channel import TemporaryChannel
from qtools.engines.redis.protocol import commands
from qtools.engines.redis.protocol.stream_ids import FIRST, id_before
from qtools.engines.redis.settings import RedisSettings
from qtools.errors import ConnectionLost, NetworkError, PeerError, QtoolsError, StartError
from qtools.names import Subscription

log = logging.getLogger("qtools.redis")

CLOSE_TIMEOUT = 8.0  # s to give back what is unfinished

Channel = GroupChannel | TemporaryChannel


class ConnectionsOwner(reading.ReadingOwner, Protocol):
    """The source."""

    def failed(self, error: BaseException) -> None:
        """The source cannot go on."""


class SourceConnections:
    """channels: those that are read, which this object adds to. since: s since 1970 where new channels begin."""

    def __init__(self, settings: RedisSettings, owner: ConnectionsOwner, since: float | None) -> None:
        self.channels: dict[Subscription, Channel] = {}
        self._settings = settings
        self._owner = owner
        self._since = since
        self._readers: dict[Subscription, RedisConnection] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # those that read
        self._tending: set[asyncio.Task[None]] = set()
        self._error: BaseException | None = None
        self._started = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None
        self._keeper: ConnectionKeeper[RedisConnection] = ConnectionKeeper(
            str(settings), lambda: connect(settings), self._up, self._down, lambda _: self._started.set()
        )

    async def start(self) -> None:
        """Connect, and begin to read `channels`; StartError."""
        self._keeping = asyncio.ensure_future(self._keeper.run())
        self._keeping.add_done_callback(self._ended)
        await self._started.wait()
        if self._keeper.connection is None:
            error = self._error or self._keeper.first_error
            raise StartError(str(error)) from error
        self._keeper.is_started = True

    async def add(self, channel: Channel) -> None:
        """Read `channel` too; StartError."""
        connection = self._keeper.connection
        try:
            if connection is None:
                raise ConnectionLost(str(self._settings), "the connection is lost")
            await self._begin(channel, connection)
        except (NetworkError, PeerError) as error:
            raise StartError(str(error)) from error
        self.channels[channel.subscription] = channel
        self._run(channel)

    async def close(self) -> None:
        """Give back what is not finished, and close; other members, or the next run, take it at once."""
        self._keeper.is_closing = True
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._leave()
        except TimeoutError:
            log.warning(
                "%s: what is unfinished was not given back in time; others take it after %g s",
                self._settings, self._settings.msg_timeout / 1000,
            )  # fmt: skip
            for reader in [*self._readers.values(), *filter(None, [self._keeper.connection])]:
                await reader.drop()
        for task in self._tasks | self._tending:
            task.cancel()
        if self._keeping is not None:
            self._keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._keeping

    async def _leave(self) -> None:
        connection = self._keeper.connection
        self.unblock()
        for task in self._tending:
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks))
        for reader in list(self._readers.values()):
            await reader.drop()
        for channel in self.channels.values():
            if isinstance(channel, GroupChannel):
                await channel.leave()
        if connection is not None:
            await connection.close()

    def unblock(self) -> None:
        """Let the readers that wait in the server for messages return at once."""
        connection = self._keeper.connection
        if connection is not None and connection.is_open:
            for reader in self._readers.values():
                if reader.unanswered and reader.hello.client:
                    connection.send(commands.encode("CLIENT", "UNBLOCK", reader.hello.client))

    @property
    def connection(self) -> RedisConnection | None:
        """The one for questions, while it is up."""
        return self._keeper.connection

    @property
    def is_closing(self) -> bool:
        return self._keeper.is_closing

    @property
    def connected(self) -> int:
        """Subscriptions that are read."""
        return sum(channel.is_asking for channel in self.channels.values())

    @property
    def reconnects(self) -> int:
        return self._keeper.reconnects

    # ── up and down ──

    async def _up(self, connection: RedisConnection) -> None:
        """Open a connection for each subscription too, and begin to read."""
        try:
            for channel in self.channels.values():
                await self._begin(channel, connection)
        except BaseException:
            self._abort_readers()
            raise
        loop = asyncio.get_running_loop()
        for channel in self.channels.values():
            loop.call_soon(self._run, channel)  # once the keeper has the connection
        loop.call_soon(self._started.set)

    async def _begin(self, channel: Channel, connection: RedisConnection) -> None:
        """Make `channel` ready to be read. RedisRefused, NetworkError."""
        channel.commands = connection
        since = self._since
        if isinstance(channel, GroupChannel):
            channel.send_unsent()
            if not channel.is_created:
                await channel.create(connection, channel.position or (FIRST if since is None else id_before(since)))
            elif entries := await channel.claim_own():
                self._owner.arrived(channel, entries, again=True, counts=True)
        elif not channel.position:
            if since is None:
                await channel.begin_at_end(connection)
            else:
                channel.position = id_before(since)
        reader = await connect(self._settings)
        reader.lost.add_done_callback(lambda lost: _end_with(connection, lost.result()))
        channel.reader = self._readers[channel.subscription] = reader

    def _run(self, channel: Channel) -> None:
        if channel.reader is None:
            return  # lost again
        if isinstance(channel, GroupChannel):
            self._start_task(self._tasks, self._read_group(channel))
        else:
            self._start_task(self._tasks, reading.read_stream(channel, self._owner))
        self._start_task(self._tending, reading.tend(channel, self._owner))

    async def _read_group(self, channel: GroupChannel) -> None:
        with contextlib.suppress(NetworkError):  # `tend` tries again
            await reading.take_left(channel, self._owner)  # before what is new
        await reading.read_group(channel, self._owner)

    def _start_task(self, tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A task has ended: a lost connection is the keeper's to open again, every other error is the source's."""
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, NetworkError):
            self._error = error
            self._owner.failed(error)
        if task is self._keeping:
            self._started.set()

    def _down(self, connection: RedisConnection) -> None:
        self._abort_readers()
        for task in self._tasks | self._tending:
            task.cancel()
        for channel in self.channels.values():
            channel.down()

    def _abort_readers(self) -> None:
        for reader in self._readers.values():
            reader.abort()
        self._readers.clear()


def _end_with(connection: RedisConnection, error: QtoolsError | None) -> None:
    """A reader is lost: the other connections end too."""
    if error is not None:
        connection.abort(error)

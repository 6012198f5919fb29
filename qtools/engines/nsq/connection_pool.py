"""Many addresses, each kept connected. In: a Discovery. Out: calls when a connection is up, and when it is down.

When no attempt of the first round succeeds, `start` raises the reason. Later a lost connection is logged once and
opened again, for ever (engines/connections/keep_connected.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from qtools.engines.connections.keep_connected import ConnectionKeeper
from qtools.engines.nsq.address import Address
from qtools.engines.nsq.connect import connect, reason_of_no_start
from qtools.engines.nsq.connection import Connection
from qtools.engines.nsq.discovery import Discovery
from qtools.engines.nsq.settings import Settings
from qtools.errors import QtoolsError, StartError

logger = logging.getLogger("qtools.client")


class ConnectionPool:
    """Keeps one connection to each address that `discovery` finds.

    on_up: called with a connection that can be used; it may use it before it returns (to subscribe).
    on_down: called when a connection that was up is lost.
    on_forgotten: called with an address that is not tried again, as it is not connected and discovery finds it no more.
    waits: whether the run goes on while there is no address at all; it decides what the log line says.
    """

    def __init__(
        self,
        discovery: Discovery,
        settings: Settings,
        on_up: Callable[[Connection], Awaitable[None]],
        on_down: Callable[[Connection], None],
        on_forgotten: Callable[[Address], None] | None = None,
        *,
        waits: bool = True,
    ) -> None:
        self.up: dict[Address, Connection] = {}
        self.discovery = discovery
        self._settings = settings
        self._on_up = on_up
        self._on_down = on_down
        self._on_forgotten = on_forgotten
        self._waits = waits
        self._keepers: dict[Address, ConnectionKeeper[Connection]] = {}
        self._tasks: dict[Address, asyncio.Task[None]] = {}
        self._reconnects_of_forgotten = 0
        self._first_errors: dict[Address, QtoolsError] = {}
        self._changed = asyncio.Event()
        self._poller: asyncio.Task[None] | None = None
        self._closing = False
        self._started = False
        self._defect: BaseException | None = None

    async def start(self) -> None:
        """Connect; return when a first connection is up, or when no address is known yet.

        Raises StartError when every address failed once, and is closed then.
        """
        try:
            await self._start()
        except BaseException:
            await self.close()
            raise

    async def _start(self) -> None:
        for address in await self.discovery.look():
            self._add(address)
        if not self._keepers:
            topic = self.discovery.topic
            which = "no nsqd is known" if topic is None else f"no nsqd has the topic {topic}"
            logger.warning("%s yet; looking again every second" if self._waits else "%s: nothing to read", which)
        self._poller = asyncio.create_task(self._poll())
        self._poller.add_done_callback(self._task_ended)
        while self._keepers and not self.up and len(self._first_errors) < len(self._keepers):
            self._changed.clear()
            await self._changed.wait()
            if self._defect is not None:
                raise self._defect
        if self._keepers and not self.up:
            reasons = await asyncio.gather(*(reason_of_no_start(*each) for each in self._first_errors.items()))
            raise StartError("; ".join(reasons)) from next(iter(self._first_errors.values()))
        self._started = True
        for each in self._keepers.values():
            each.is_started = True
        for address, error in self._first_errors.items():
            if address not in self.up:
                logger.warning("%s; trying again", error)

    async def close(self) -> None:
        """Close every connection in order, all at once."""
        self._closing = True
        for each in self._keepers.values():
            each.is_closing = True
        tasks = [*self._tasks.values(), *([self._poller] if self._poller else [])]
        await asyncio.gather(*(connection.close() for connection in list(self.up.values())))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.discovery.close()

    @property
    def reconnects(self) -> int:
        """How often a lost connection was opened again."""
        return self._reconnects_of_forgotten + sum(each.reconnects for each in self._keepers.values())

    def _add(self, address: Address) -> None:
        if address in self._keepers:
            return
        keeper = ConnectionKeeper(
            str(address), partial(connect, address, self._settings), partial(self._is_up, address),
            partial(self._is_down, address), partial(self._has_failed, address), partial(self._is_known, address),
        )  # fmt: skip
        keeper.is_started = self._started
        self._keepers[address] = keeper
        task = self._tasks[address] = asyncio.create_task(self._keep(address, keeper))
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """Handle a task that raised, which is a defect: re-raise its error from `start`, or pass it to the event loop's
        exception handler."""
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        if self._started or self._closing:
            context = {"message": "keeping a connection failed", "exception": error, "task": task}
            asyncio.get_running_loop().call_exception_handler(context)
        self._defect = error
        self._changed.set()

    async def _poll(self) -> None:
        while True:
            await self.discovery.wait_next_poll()
            for address in await self.discovery.look_again():
                self._add(address)

    async def _keep(self, address: Address, keeper: ConnectionKeeper[Connection]) -> None:
        """Keep one address connected until `close`, or until discovery no longer finds it."""
        await keeper.run()
        if not self._closing:
            self._forget(address)

    async def _is_up(self, address: Address, connection: Connection) -> None:
        await self._on_up(connection)
        if not self._closing:
            self.up[address] = connection
            self._changed.set()

    def _is_down(self, address: Address, connection: Connection) -> None:
        self.up.pop(address, None)
        self._on_down(connection)

    def _has_failed(self, address: Address, error: QtoolsError) -> None:
        self._first_errors.setdefault(address, error)
        self._changed.set()

    def _is_known(self, address: Address) -> bool:
        return address in self.discovery.known

    def _forget(self, address: Address) -> None:
        self._reconnects_of_forgotten += self._keepers.pop(address).reconnects
        self._tasks.pop(address)
        self._first_errors.pop(address, None)
        if self._on_forgotten is not None:
            self._on_forgotten(address)

    def __repr__(self) -> str:
        return f"<ConnectionPool {len(self.up)} of {len(self._keepers)} up>"

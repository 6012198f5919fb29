"""Many addresses, each kept connected. In: a Discovery. Out: calls when a connection is up, and when it is down.

When no attempt of the first round succeeds, `start` raises the reason. Later a lost connection is logged once and
opened again, for ever; the first attempt follows within a quarter second.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from qtools.backoff import next_delay
from qtools.engines.nsq.address import Address
from qtools.engines.nsq.connect import connect
from qtools.engines.nsq.connection import Connection
from qtools.engines.nsq.discovery import Discovery
from qtools.engines.nsq.settings import Settings
from qtools.errors import ConnectFailed, ConnectionLost, NetworkError, PeerError, QtoolsError, StartError

logger = logging.getLogger("qtools.client")

AFTER_REFUSAL = 5.0  # s: the least pause after an attempt that was refused, and not only failed
REMIND_AFTER = 60.0  # s between two log lines about an address that still cannot be connected


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
        self.reconnects = 0
        self._settings = settings
        self._on_up = on_up
        self._on_down = on_down
        self._on_forgotten = on_forgotten
        self._waits = waits
        self._keepers: dict[Address, asyncio.Task[None]] = {}
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
            errors = list(self._first_errors.values())
            raise StartError(str(errors[0]) if len(errors) == 1 else "; ".join(map(str, errors))) from errors[0]
        self._started = True
        for address, error in self._first_errors.items():
            if address not in self.up:
                logger.warning("%s; trying again", error)

    async def close(self) -> None:
        """Close every connection in order, all at once."""
        self._closing = True
        tasks = [*self._keepers.values(), *([self._poller] if self._poller else [])]
        await asyncio.gather(*(connection.close() for connection in list(self.up.values())))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.discovery.close()

    def _add(self, address: Address) -> None:
        if address not in self._keepers:
            keeper = self._keepers[address] = asyncio.create_task(self._keep(address))
            keeper.add_done_callback(self._task_ended)

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

    async def _keep(self, address: Address) -> None:
        """Keep one address connected until `close`, or until discovery no longer finds it."""
        clock = asyncio.get_running_loop().time
        failures, said_at = 0, clock()
        was_up, level = False, logging.WARNING
        while not self._closing:
            connection: Connection | None = None
            try:
                connection = await connect(address, self._settings)
                await self._on_up(connection)
            except BaseException as error:
                if connection is not None:
                    connection.abort()
                if not isinstance(error, (NetworkError, PeerError, StartError)):
                    raise
                failures += 1
                first = address not in self._first_errors
                self._first_errors.setdefault(address, error)
                self._changed.set()
                news = (was_up and failures == 1) or (first and self._started)  # before that, `start` logs or raises it
                if news or clock() - said_at > REMIND_AFTER:
                    logger.warning("%s; trying again", error)
                    said_at = clock()
                await asyncio.sleep(max(next_delay(failures), AFTER_REFUSAL if _will_not_change(error) else 0.0))
                if address not in self.discovery.known:
                    self._forget(address)
                    return
                continue
            if self._closing:
                await connection.close()
                return
            if was_up:
                self.reconnects += 1
                logger.log(level, "%s is back", address)
            elif address in self._first_errors:
                logger.warning("%s answers now", address)
            was_up, failures, said_at = True, 0, clock()
            self.up[address] = connection
            self._changed.set()
            lost = await connection.lost
            self.up.pop(address, None)
            self._on_down(connection)
            if self._closing:
                return
            # The caller whose command was refused reports it; that the connection closes too is only logged as info.
            level = logging.INFO if isinstance(lost, ConnectionLost) and lost.refused else logging.WARNING
            logger.log(level, "lost %s; trying again", lost or address)
            if address not in self.discovery.known:
                self._forget(address)
                return
            failures = 1
            await asyncio.sleep(next_delay(failures))

    def _forget(self, address: Address) -> None:
        self._keepers.pop(address, None)
        self._first_errors.pop(address, None)
        if self._on_forgotten is not None:
            self._on_forgotten(address)

    def __repr__(self) -> str:
        return f"<ConnectionPool {len(self.up)} of {len(self._keepers)} up>"


def _will_not_change(error: QtoolsError) -> bool:
    return isinstance(error, PeerError) or (isinstance(error, ConnectFailed) and error.permanent)

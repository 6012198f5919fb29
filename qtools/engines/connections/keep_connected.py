"""Keeps a connection: opens it again when it is lost. In: a function that connects. Out: calls when it is up, and down.

The first attempt follows within a quarter second of the loss, the next after growing pauses (backoff.py), for ever.
An outage is logged once when it begins, again after each minute, and once when it is over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from qtools.backoff import next_delay
from qtools.engines.connections.stream_connection import StreamConnection
from qtools.errors import ConnectFailed, ConnectionLost, NetworkError, PeerError, QtoolsError, StartError

logger = logging.getLogger("qtools.client")

AFTER_REFUSAL = 5.0  # s: the least pause after an attempt that was refused, and not only failed
REMIND_AFTER = 60.0  # s between two log lines about an address that still cannot be connected

Kept = TypeVar("Kept", bound=StreamConnection[Any])


class ConnectionKeeper(Generic[Kept]):
    """Keeps one connection to the peer `name`.

    connect: opens a connection; it may try several addresses of one peer, one after the other.
    on_up: called with a connection that can be used; it may use it before it returns (to subscribe).
    on_down: called when a connection that was up is lost.
    on_failed: called after each attempt that failed.
    goes_on: asked before each attempt; when it returns False, `run` returns.

    connection: the one that is up, or None. reconnects: how often it was opened again. first_error: the error of the
    first attempt that failed. is_started: set by the owner, after its own start has logged or raised `first_error`;
    until then, failures are not logged here.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], Awaitable[Kept]],
        on_up: Callable[[Kept], Awaitable[None]],
        on_down: Callable[[Kept], None],
        on_failed: Callable[[QtoolsError], None],
        goes_on: Callable[[], bool] = lambda: True,
    ) -> None:
        self.name = name
        self.connection: Kept | None = None
        self.reconnects = 0
        self.first_error: QtoolsError | None = None
        self.is_started = False
        self.is_closing = False
        self._connect = connect
        self._on_up = on_up
        self._on_down = on_down
        self._on_failed = on_failed
        self._goes_on = goes_on

    async def run(self) -> None:
        """Keep the connection until it is cancelled, `is_closing` is set, or `goes_on` returns False.

        Errors other than NetworkError, PeerError and StartError are defects: they are raised.
        """
        clock = asyncio.get_running_loop().time
        failures, said_at = 0, clock()
        was_up, level = False, logging.WARNING
        while not self.is_closing:
            connection: Kept | None = None
            try:
                connection = await self._connect()
                await self._on_up(connection)
            except BaseException as error:
                if connection is not None:
                    connection.abort()
                if not isinstance(error, (NetworkError, PeerError, StartError)):
                    raise
                failures += 1
                is_first = self.first_error is None
                self.first_error = self.first_error or error
                news = (was_up and failures == 1) or (is_first and self.is_started)
                self._on_failed(error)
                if news or clock() - said_at > REMIND_AFTER:
                    logger.warning("%s; trying again", error)
                    said_at = clock()
                await asyncio.sleep(max(next_delay(failures), AFTER_REFUSAL if will_not_change(error) else 0.0))
                if not self._goes_on():
                    return
                continue
            if self.is_closing:
                await connection.close()
                return
            if was_up:
                self.reconnects += 1
                logger.log(level, "%s is back", self.name)
            elif self.first_error is not None:
                logger.warning("%s answers now", self.name)
            was_up, failures, said_at = True, 0, clock()
            self.connection = connection
            lost = await connection.lost
            self.connection = None
            self._on_down(connection)
            if self.is_closing:
                return
            # The caller whose command was refused reports it; that the connection closes too is only logged as info.
            level = logging.INFO if isinstance(lost, ConnectionLost) and lost.refused else logging.WARNING
            logger.log(level, "lost %s; trying again", lost or self.name)
            if not self._goes_on():
                return
            failures = 1
            await asyncio.sleep(next_delay(failures))


def will_not_change(error: QtoolsError) -> bool:
    """Whether another attempt fails in the same way, until a user or an operator changes something."""
    return isinstance(error, PeerError) or (isinstance(error, ConnectFailed) and error.permanent)

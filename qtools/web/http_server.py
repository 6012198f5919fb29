"""The door for HTTP: uvicorn's protocol classes on a socket of ours. In: a listening socket. Out: requests to an app.

uvicorn's server is left out on purpose: it wakes up ten times a second, and takes the signals for itself. What it has
no limit for is limited here: the size of a head, the time that a request may take to come, the number of clients.

An application finds its client's Wire as scope["wire"].
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from qtools.web.fast_path import Short
from qtools.web.http_connection import HttpConnection
from qtools.web.memory_budget import MemoryBudget
from qtools.web.tracked_transport import LINGER

if TYPE_CHECKING:
    from qtools.web.websocket import WebSocket

LOOKED_AT = 1000  # clients, at one look at their memory
WORTH_COUNTING = 4096  # bytes
SWEEP_SECONDS = 1.0  # how often deadlines are looked at: one timer for all clients, none for each

App = Callable[[Any, Any, Any], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What a client may ask of the door.

    head: bytes of a request's head; Go's limit is 1 MiB, and no client of these APIs needs a hundredth of it.
    request: s that a new client may stay silent, and that a head may take to come.
    idle: s between two requests, and s without a byte of a body whose length was not announced.
    connections: clients at once; None for any number.
    """

    head: int = 64 * 1024
    request: float = 60.0
    idle: float = 60.0
    connections: int | None = None


class HttpServer:
    """Lets HTTP clients in, and WebSocket clients where `websockets` says so.

    short: what may be answered without `app`. Where there are WebSockets other answers may be endless too.
    """

    def __init__(
        self,
        app: App,
        limits: HttpLimits | None = None,
        *,
        short: Short | None = None,
        websockets: bool = False,
        heartbeat: float = 30.0,
        budget: MemoryBudget | None = None,
    ) -> None:
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # what is worth saying, the app says
        self.limits = limits or HttpLimits()
        self.short = short
        self.streams = websockets
        self.config = Config(
            app,
            http="httptools",
            ws=_websocket_class() if websockets else "none",
            ws_max_size=self.limits.head,
            ws_ping_interval=heartbeat,
            ws_ping_timeout=None,  # websocket.py decides which client is dead
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            interface="asgi3",
        )
        self.config.load()
        self.state = ServerState()
        self.loop = asyncio.get_running_loop()
        self._servers: list[asyncio.Server] = []
        self._budget = budget
        self._memory = ClientMemory(self.state)
        self._sweeping: asyncio.TimerHandle | None = None

    async def open(self, listening: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Let clients in. With `tls` the loop has to be asyncio's own: others do not show what waits beneath it."""
        deadlines: dict[str, Any] = {}
        if tls is not None:
            deadlines = {"ssl_handshake_timeout": self.limits.request, "ssl_shutdown_timeout": LINGER}
        if listening.family == socket.AF_UNIX:
            server = await self.loop.create_unix_server(
                lambda: HttpConnection(self), sock=listening, ssl=tls, **deadlines
            )
        else:
            server = await self.loop.create_server(lambda: HttpConnection(self), sock=listening, ssl=tls, **deadlines)
        self._servers.append(server)

    def note(self, size: int) -> None:
        """`size` bytes came for bodies of requests that are not answered."""
        if self._budget is not None:
            self._budget.note(size)

    def watch(self) -> None:
        """Look at the deadlines, and at the memory of clients, from now on and as long as there are clients."""
        if self._sweeping is None:
            if self._budget is not None:
                self._budget.add(self._memory)
            self._sweeping = self.loop.call_later(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        now = self.loop.time()
        for connection in tuple(self.state.connections):
            client: HttpConnection | WebSocket = connection  # type: ignore[assignment]  # what this door makes
            if client.deadline < now or client.write_deadline < now:
                client.too_slow()
        self._sweeping = None
        if self.state.connections:
            self.watch()
        elif self._budget is not None:
            self._budget.remove(self._memory)

    def close(self) -> None:
        """Let nobody in any more."""
        for server in self._servers:
            server.close()

    async def see_out(self, patience: float = 2.0) -> None:
        """Let what is being answered be answered, and hang up. Where no request is endless, one whose body has not come
        whole is not waited for."""
        for connection in tuple(self.state.connections):
            if not self.streams and isinstance(connection, HttpConnection):
                connection.drop_incomplete()
            connection.shutdown()
        under_way: set[asyncio.Future[Any]] = set(self.state.tasks)
        for connection in self.state.connections:
            if isinstance(connection, HttpConnection) and connection.short is not None:
                connection.short.over = self.loop.create_future()
                under_way.add(connection.short.over)
        if under_way:
            await asyncio.wait(under_way, timeout=patience)
        for connection in tuple(self.state.connections):
            connection.transport.abort()
        if self._sweeping is not None:
            self._sweeping.cancel()


class ClientMemory:
    """What clients have not read of their answers, and what of their requests is not answered: a holder of memory.

    All clients are looked at while they are few, and a part of them at each look otherwise, so that many idle ones
    cost little.
    """

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._held: dict[Any, int] = {}  # what the last look found at each client that holds something worth counting
        self._waits = 0

    def memory(self) -> int:
        connections = self._state.connections
        self._waits -= 1
        if self._waits <= 0:
            self._waits = len(connections) // LOOKED_AT
            self._held = {each: size for each in connections if (size := _held_for(each)) >= WORTH_COUNTING}
        return sum(self._held.values())

    def shed(self) -> str | None:
        """End the client for which the most is held: with an answer where that is the body of a request."""
        while self._held:
            client = max(self._held, key=self._held.__getitem__)
            size = self._held.pop(client)
            transport = client.transport
            if transport.is_closing():
                continue
            if isinstance(client, HttpConnection) and client.unanswered_bytes > transport.unsent:
                client.refuse_for_memory()
                return f"refused the request of {transport.peer}, of which {size:,} bytes are held"
            transport.abort()
            return f"aborted the connection of {transport.peer}, for which {size:,} bytes are held"
        return None


def _held_for(client: Any) -> int:
    return 0 if client.transport.is_closing() else client.transport.unsent + client.unanswered_bytes


def _websocket_class() -> type[asyncio.Protocol]:
    """The class for WebSockets; imported only by a door that has them."""
    from qtools.web.websocket import WebSocket

    return WebSocket

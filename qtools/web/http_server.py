"""An HTTP server: uvicorn's protocol classes on our own sockets. In: listening sockets. Out: requests to an
application.

uvicorn's own server class is not used, because it wakes up ten times a second and takes over the signals. This one adds
limits that uvicorn does not have: the size of a head, the time that a request may take, the number of clients.

The application finds the TrackedTransport of its client as scope["tracked"].
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from qtools.web.fast_path import FindHandler
from qtools.web.http_connection import HttpConnection
from qtools.web.limits import HttpLimits
from qtools.web.memory_budget import MemoryBudget
from qtools.web.tracked_transport import LINGER

if TYPE_CHECKING:
    from qtools.web.websocket import WebSocket

LOOKED_AT = 1000  # clients whose memory is measured at once
WORTH_COUNTING = 4096  # bytes; clients that hold less are not counted
SWEEP_SECONDS = 1.0  # how often deadlines are checked, by one timer for all clients

AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]


class HttpServer:
    """Serves HTTP clients, and WebSocket clients if `websockets` is true.

    fast_path: finds the handlers of requests that are answered without `app` (fast_path.py). With `websockets`, the
    responses of `app` may also be endless streams.
    """

    def __init__(
        self,
        app: AsgiApp,
        limits: HttpLimits | None = None,
        *,
        fast_path: FindHandler | None = None,
        websockets: bool = False,
        heartbeat: float = 30.0,
        budget: MemoryBudget | None = None,
    ) -> None:
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # the application logs what matters
        self.limits = limits or HttpLimits()
        self.fast_path = fast_path
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
        """Accept clients. With `tls` the event loop has to be asyncio's own, as others do not show how many bytes wait
        below the encryption."""
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
        """Note that `size` bytes arrived for bodies of unanswered requests."""
        if self._budget is not None:
            self._budget.note(size)

    def watch(self) -> None:
        """Check the deadlines and the memory of clients, as long as there are clients."""
        if self._sweeping is None:
            if self._budget is not None:
                self._budget.add(self._memory)
            self._sweeping = self.loop.call_later(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        now = self.loop.time()
        for connection in tuple(self.state.connections):
            # only these classes are made here
            client: HttpConnection | WebSocket = connection  # type: ignore[assignment]
            if client.deadline < now or client.write_deadline < now:
                client.too_slow()
        self._sweeping = None
        if self.state.connections:
            self.watch()
        elif self._budget is not None:
            self._budget.remove(self._memory)

    def close(self) -> None:
        """Stop accepting clients."""
        for server in self._servers:
            server.close()

    async def drain(self, patience: float = 2.0) -> None:
        """Wait until the requests under way are answered, at most `patience` seconds, and end all connections. Without
        streams, a request whose body has not arrived whole is not waited for."""
        for connection in tuple(self.state.connections):
            if not self.streams and isinstance(connection, HttpConnection):
                connection.drop_incomplete()
            connection.shutdown()
        under_way: set[asyncio.Future[Any]] = set(self.state.tasks)
        for connection in self.state.connections:
            if isinstance(connection, HttpConnection) and connection.fast_path_request is not None:
                connection.fast_path_request.over = self.loop.create_future()
                under_way.add(connection.fast_path_request.over)
        if under_way:
            await asyncio.wait(under_way, timeout=patience)
        for connection in tuple(self.state.connections):
            connection.transport.abort()
        if self._sweeping is not None:
            self._sweeping.cancel()


class ClientMemory:
    """The memory held for clients: responses that they have not read, and requests that are not answered. A
    MemoryHolder.

    With up to LOOKED_AT clients all are measured each time. With more, all are measured every few times, so that many
    idle clients cost little.
    """

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._held: dict[Any, int] = {}  # bytes of each client that holds enough, when last measured
        self._skips = 0  # calls of `memory` until all clients are measured again

    def memory(self) -> int:
        connections = self._state.connections
        self._skips -= 1
        if self._skips <= 0:
            self._skips = len(connections) // LOOKED_AT
            self._held = {each: size for each in connections if (size := _held_for(each)) >= WORTH_COUNTING}
        return sum(self._held.values())

    def shed(self) -> str | None:
        """End the client that holds the most: with an error response if that is mostly the body of a request."""
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
    """The class for WebSockets, imported only where they are served."""
    from qtools.web.websocket import WebSocket

    return WebSocket

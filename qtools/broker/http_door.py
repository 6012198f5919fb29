"""The door for HTTP and HTTPS: uvicorn's protocol class on sockets of ours. In: listening sockets. Out: requests.

uvicorn's server is left out on purpose: it wakes up ten times a second, and takes the signals for itself.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

if TYPE_CHECKING:
    import ssl

    from qtools.broker.http import HttpApi

# Go's limit for a request's head is 1 MiB; no client of this API needs a hundredth of it.
MAX_HEAD = 64 * 1024
FIRST_REQUEST = 60.0  # seconds a new connection may stay silent, and a head may take to come

_TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class _OneWrite:
    """A transport that writes once what comes in pieces: uvicorn writes an answer's head and body apart, and a
    small answer costs little but its system calls."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._out: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        if self._out:
            data = b"".join(self._out)
            self._out.clear()
            if not self._transport.is_closing():
                self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Http(HttpToolsProtocol):
    """uvicorn's, which would let a head grow without end, and take for ever."""

    _unseen = 0  # bytes since something came out of the parser
    _in_head = False  # a request has begun, and its head is not whole
    _patience: asyncio.TimerHandle | None = None  # for the rest of it

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_OneWrite(transport, self.loop))  # type: ignore[arg-type]  # all but in name
        self.timeout_keep_alive_task = self.loop.call_later(FIRST_REQUEST, self.timeout_keep_alive_handler)

    def data_received(self, data: bytes) -> None:
        self._unseen += len(data)
        super().data_received(data)
        if self._unseen > MAX_HEAD and not self.transport.is_closing():
            self.transport.write(_TOO_LONG)
            self.transport.close()
        if self._in_head and self._patience is None:  # most heads come in one piece, and need no timer
            self._patience = self.loop.call_later(FIRST_REQUEST, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._whole_head()
        super().connection_lost(exc)

    def _whole_head(self) -> None:
        self._in_head = False
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def on_message_begin(self) -> None:
        self._unseen = 0
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._whole_head()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unseen = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unseen = 0
        super().on_message_complete()


class HttpDoor:
    """Lets HTTP clients in."""

    def __init__(self, api: HttpApi) -> None:
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # what is worth saying, the app says
        self._config = Config(
            api,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            interface="asgi3",
        )
        self._config.load()
        self._state = ServerState()
        self._servers: list[asyncio.Server] = []

    async def open(self, listening: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Let clients in, with `tls` those of HTTPS."""
        loop = asyncio.get_running_loop()

        def make() -> Any:
            return _Http(config=self._config, server_state=self._state, app_state={}, _loop=loop)

        if listening.family == socket.AF_UNIX:
            self._servers.append(await loop.create_unix_server(make, sock=listening, ssl=tls))
        else:
            self._servers.append(await loop.create_server(make, sock=listening, ssl=tls))

    def close(self) -> None:
        """Let nobody in any more."""
        for server in self._servers:
            server.close()

    async def see_out(self, patience: float = 2.0) -> None:
        """Let what is being answered be answered, and hang up."""
        for connection in tuple(self._state.connections):
            connection.shutdown()
        tasks = tuple(self._state.tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=patience)
        for connection in tuple(self._state.connections):
            connection.transport.abort()

"""Accepts NSQ clients. In: a listening socket. Out: connections; a callback when the last client has left.

The server closes in two steps: `close` stops accepting clients, and `drain` ends the connections.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import socket
from typing import TYPE_CHECKING

from qtools.broker.tcp.auth import Authority
from qtools.broker.tcp.client_connection import ClientConnection
from qtools.broker.tcp.client_transport import LINGER
from qtools.broker.tcp.unfinished_commands import UnfinishedCommands
from qtools.errors import StartError, UsageError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from qtools.broker.core.broker import Broker
    from qtools.broker.options import Options
    from qtools.web.memory_budget import MemoryBudget


PARTING = 0.1  # s that a client has to disconnect when the broker ends


class TcpServer:
    """The NSQ clients of one broker. on_empty: called when the last of them has left while the broker runs."""

    def __init__(self, broker: Broker, budget: MemoryBudget, on_empty: Callable[[], None] | None = None) -> None:
        options = broker.options
        self.unfinished = UnfinishedCommands(budget)
        self.broker = broker
        self.connections: set[ClientConnection] = set()
        self.limits = options.limits()
        self.tls = tls_context(options)
        self.tls_required = options.tls_required != "false"
        self.grants = options.grants(tls=self.tls is not None, snappy=importlib.util.find_spec("cramjam") is not None)
        self.authority = None
        if options.auth_http_addresses:
            connect, request = options.http_client_connect_timeout, options.http_client_request_timeout
            self.authority = Authority(options.auth_http_addresses, connect, request)
        self._on_empty = on_empty
        self._server: asyncio.Server | None = None
        self._empty = asyncio.Event()
        self._empty.set()

    async def open(self, listening: socket.socket) -> None:
        """Accept clients."""
        loop = asyncio.get_running_loop()
        if listening.family == socket.AF_UNIX:
            self._server = await loop.create_unix_server(lambda: ClientConnection(self).transport, sock=listening)
        else:
            self._server = await loop.create_server(lambda: ClientConnection(self).transport, sock=listening)

    def connected(self, connection: object) -> None:
        assert isinstance(connection, ClientConnection)
        self.connections.add(connection)
        self._empty.clear()

    def disconnected(self, connection: object) -> None:
        assert isinstance(connection, ClientConnection)
        self.connections.discard(connection)
        if not self.connections:
            self._empty.set()
            if self._on_empty is not None and not self.broker.stopping:
                self._on_empty()

    def close(self) -> None:
        """Stop accepting clients."""
        if self._server is not None:
            self._server.close()

    async def drain(self) -> None:
        """Write all pending output, end the connections, and wait until all clients have disconnected.

        A client that has received everything gets PARTING seconds to disconnect: closing a socket with unread bytes
        resets the connection, and the client may lose what it has not read yet. A client that does not read cannot
        delay the end. The server waits for a client as long as its buffer empties or its answer waits for a commit.
        """
        for connection in tuple(self.connections):
            connection.close_after_responses()
        unsent: dict[ClientConnection, int] = {}
        until = self.broker.now() + LINGER * 2
        while self.connections:
            try:
                async with asyncio.timeout(PARTING):
                    await self._empty.wait()
            except TimeoutError:
                is_late = self.broker.now() >= until
                for connection in tuple(self.connections):
                    size = connection.transport.socket.get_write_buffer_size()
                    is_idle = not connection.waits_for_commit and not 0 < size < unsent.get(connection, size + 1)
                    if is_late or is_idle:
                        connection.transport.socket.abort()
                    unsent[connection] = size
        if self.authority is not None:
            await self.authority.close()


def tls_context(options: Options) -> ssl.SSLContext | None:
    """The TLS context of the server; None without a certificate. Raises UsageError or StartError."""
    if not options.tls_cert and not options.tls_key:
        if options.tls_required != "false" or options.tls_client_auth_policy:
            raise UsageError("--tls-required needs a certificate: give --tls-cert and --tls-key")
        return None
    if not options.tls_cert or not options.tls_key:
        raise UsageError("TLS needs both --tls-cert and --tls-key")
    import ssl

    from qtools.sockets import load_certificate

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _set_minimum(context, options.tls_min_version)
    certificate, key = options.tls_cert, options.tls_key
    _load(lambda: load_certificate(context, certificate, key), certificate, "--tls-cert")
    if options.tls_root_ca_file:
        ca = options.tls_root_ca_file
        _load(lambda: context.load_verify_locations(ca), ca, "--tls-root-ca-file")
    if options.tls_client_auth_policy:
        context.verify_mode = ssl.CERT_REQUIRED
        if not options.tls_root_ca_file:
            context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
    return context


def _set_minimum(context: ssl.SSLContext, version: str) -> None:
    """Accept the TLS version `version` and newer ones."""
    import ssl
    import warnings

    versions = {"tls1.1": ssl.TLSVersion.TLSv1_1, "tls1.2": ssl.TLSVersion.TLSv1_2, "tls1.3": ssl.TLSVersion.TLSv1_3}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the user has asked for an old version
        context.minimum_version = versions.get(version, ssl.TLSVersion.TLSv1)
    if version not in ("tls1.2", "tls1.3"):
        context.set_ciphers("DEFAULT:@SECLEVEL=0")  # OpenSSL 3 offers the old versions in no other level


def _load(what: Callable[[], None], path: str, flag: str) -> None:
    import ssl

    try:
        what()
    except ssl.SSLError as error:
        raise StartError(f"{flag} {path} cannot be used: {error.reason or error}") from error
    except OSError as error:
        if not error.errno:
            raise StartError(f"{flag} {path} cannot be used: {error.strerror or error}") from error
        raise StartError(f"{flag} {path} cannot be read: {os.strerror(error.errno).lower()}") from error

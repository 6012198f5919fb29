"""Opens connections. In: settings. Out: a RedisConnection to a server that accepts writes, or the reason why not."""

from __future__ import annotations

import asyncio
import contextlib
from functools import cache
from typing import TYPE_CHECKING

from qtools.engines.connections.open_connection import PeerAddress, open_connection
from qtools.engines.connections.tls import TlsFiles, make_tls_context
from qtools.engines.redis.connection import RedisConnection
from qtools.engines.redis.settings import CONNECT_TIMEOUT, RedisSettings
from qtools.errors import ConnectFailed, ConnectionLost, NetworkError, PeerError, QtoolsError, StartError
from qtools.host_port import split_host_port

if TYPE_CHECKING:
    import ssl

PROBE_AFTER = 1.0  # s without a TLS handshake, after which it is asked whether the server speaks TLS at all
_OTHER_PORTS = {
    26379: "that is Sentinel's port, a server's is usually 6379",
    16379: "that is the port of a cluster's bus, a server's is usually 6379",
    4150: "that is nsqd's port: its URL begins with nsq://",
    9092: "that is Kafka's port: its URL begins with kafka://",
    4222: "that is NATS's port: its URL begins with nats://",
    5672: "that is RabbitMQ's port: its URL begins with amqp://",
}


async def connect(settings: RedisSettings) -> RedisConnection:
    """Connect to the first of the hosts that accepts writes.

    The error is that of the first host that answered, else of the first one: ConnectFailed, ConnectionLost, PeerError
    (ProtocolError, AuthError), StartError.
    """
    errors: list[QtoolsError] = []
    for host in settings.hosts:
        try:
            connection = await _connect(host, settings)
        except (NetworkError, PeerError) as error:
            errors.append(error)
            continue
        if connection.hello.role in ("master", ""):
            return connection
        await connection.drop()
        errors.insert(
            0,
            ConnectFailed(
                host, "it is a replica, which accepts no writes: give the address of the master", permanent=True
            ),
        )
    answered = [error for error in errors if isinstance(error, PeerError)]
    raise (answered or errors)[0]


async def _connect(host: str, settings: RedisSettings) -> RedisConnection:
    name, port = split_host_port(host)
    number = port or 6379
    tls = settings.tls_settings() if settings.tls else None
    context = _context(tls.files) if tls is not None else None
    peer = PeerAddress(host, "Redis", "redis-server", name, number, hint=_OTHER_PORTS.get(number, ""))
    opening = asyncio.ensure_future(
        open_connection(peer, lambda: RedisConnection(host, settings), CONNECT_TIMEOUT, context)
    )
    try:
        if context is not None:
            await asyncio.wait([opening], timeout=PROBE_AFTER)
            if not opening.done() and await _answers_without_tls(name, number):
                raise ConnectFailed(host, "it does not speak TLS: write redis:// instead of rediss://", permanent=True)
        return await opening
    except ConnectionLost as error:
        if settings.tls:
            raise
        hint = peer.hint or "it may want TLS (rediss://), or does not speak Redis's protocol"
        raise ConnectFailed(host, f"{error.reason}: {hint}") from error
    finally:
        if not opening.done():
            opening.cancel()
            await asyncio.wait([opening])


async def _answers_without_tls(name: str, port: int) -> bool:
    """Whether a server without TLS is there: it waits for the end of a line, and there is none in what TLS sends."""
    writer = None
    try:
        async with asyncio.timeout(PROBE_AFTER):
            reader, writer = await asyncio.open_connection(name, port)
            writer.write(b"PING\r\n")
            return (await reader.read(1)) in (b"+", b"-")
    except (OSError, TimeoutError, UnicodeError):
        return False
    finally:
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@cache
def _context(files: TlsFiles) -> ssl.SSLContext:
    """A context reads its files, so that it is made once for all connections."""
    return make_tls_context(files)


async def connect_at_start(settings: RedisSettings) -> RedisConnection:
    """As `connect`, for a command that cannot start without: StartError."""
    try:
        return await connect(settings)
    except (NetworkError, PeerError) as error:
        raise StartError(str(error)) from error

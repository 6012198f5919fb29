"""Opens a connection. In: where the peer listens. Out: a StreamConnection whose handshake is over, or ConnectFailed.

The network's exceptions are translated here.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from qtools.engines.connections.stream_connection import StreamConnection
from qtools.errors import ConnectFailed

if TYPE_CHECKING:
    import ssl

Connected = TypeVar("Connected", bound=StreamConnection[Any])


class PeerAddress(NamedTuple):
    """Where a broker listens, and what it is called in messages.

    host, port; or path: of a unix socket. name: its address as the user knows it. protocol: what it speaks ("NSQ").
    program: what usually listens there ("nsqd"). of_socket: the same for a unix socket. hint: what usually listens at
    this port, if that is another program; "" if it is not known.
    """

    name: str
    protocol: str
    program: str
    host: str = ""
    port: int = 0
    path: str = ""
    of_socket: str = ""
    hint: str = ""


async def open_connection(
    peer: PeerAddress,
    make: Callable[[], Connected],
    time_limit: float,
    tls: ssl.SSLContext | None = None,
) -> Connected:
    """Connect to `peer` and wait for the end of the handshake.

    time_limit: s for all of it. tls: encrypt from the first byte on. A connection that encrypts later, after a part of
    its handshake, does it in `wait_established`; ssl.SSLError from there is translated too.

    ConnectFailed when nothing answers there (`permanent` if another attempt would fail the same way); and what
    `wait_established` raises.
    """
    connection: Connected | None = None

    def made() -> Connected:
        # A factory, not an object, is what asyncio takes; it is called once, when the socket is connected.
        nonlocal connection
        connection = make()
        return connection

    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(time_limit):
            if peer.path:
                await loop.create_unix_connection(made, peer.path)
            else:
                server = peer.host if tls is not None else None
                await loop.create_connection(made, peer.host, peer.port, ssl=tls, server_hostname=server)
            assert connection is not None
            await connection.wait_established()
    except TimeoutError:
        _abort(connection)
        hint = f": {peer.hint}" if peer.hint else ""
        raise ConnectFailed(peer.name, f"no {peer.protocol} handshake within {time_limit:.4g} s{hint}") from None
    except (socket.gaierror, UnicodeError) as error:  # UnicodeError: DNS has no such names
        raise ConnectFailed(peer.name, f"the host name {peer.host!r} is not known", permanent=True) from error
    except OSError as error:
        _abort(connection)
        reason, is_permanent = _failed_reason(peer, error)
        raise ConnectFailed(peer.name, reason, permanent=is_permanent) from error
    except BaseException:
        _abort(connection)
        raise
    return connection


def _abort(connection: StreamConnection[Any] | None) -> None:
    if connection is not None:
        connection.abort()


def _failed_reason(peer: PeerAddress, error: OSError) -> tuple[str, bool]:
    """Why `peer` could not be connected, and whether another attempt would fail in the same way."""
    if hasattr(error, "library"):  # an ssl.SSLError, without importing ssl for a connection that is not encrypted
        from qtools.engines.connections.tls import tls_failure

        return tls_failure(error)
    if error.errno == errno.ECONNREFUSED:
        return "nothing listens there" + (f" ({peer.hint})" if peer.hint else f"; is {peer.program} running?"), False
    if error.errno == errno.ENOENT:
        return f"there is no such socket; is {peer.of_socket or peer.program} running?", False
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "too many open files: this process may have no more (ulimit -n shows how many, and sets it)", False
    if error.errno is None and "Multiple exceptions" in str(error):
        return f"nothing listens there; is {peer.program} running?", False
    return error.strerror or str(error), False

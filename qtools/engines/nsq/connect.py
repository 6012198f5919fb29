"""Opens connections. In: an address, settings. Out: a Connection whose handshake is over, or an error for the user.

The network's exceptions are translated here. If the private local broker does not run, it is started.
"""

from __future__ import annotations

import asyncio
import errno
import socket

from qtools.engines.nsq.address import Address
from qtools.engines.nsq.connection import Connection
from qtools.engines.nsq.protocol.session import ClientSession
from qtools.engines.nsq.settings import Settings
from qtools.errors import ConnectFailed


async def connect(address: Address, settings: Settings) -> Connection:
    """Connect to `address` and wait for the end of the handshake.

    ConnectFailed when nothing answers there (`permanent` if another attempt would fail the same way), ConnectionLost
    when the peer closes, PeerError when it refuses or does not speak NSQ, StartError when the local broker cannot
    start.
    """
    try:
        return await _connect(address, settings)
    except ConnectFailed:
        if not address.local:
            raise
    from qtools.engines.nsq.local_broker import start_local_broker

    await start_local_broker()
    return await _connect(address, settings)


async def _connect(address: Address, settings: Settings) -> Connection:
    loop = asyncio.get_running_loop()
    session = ClientSession(
        settings.identify_request(), tls=settings.tls_context(), server_hostname=address.host, secret=settings.secret
    )
    connection = Connection(address, session, settings.heartbeat_interval / 1000)
    try:
        async with asyncio.timeout(settings.connect_timeout):
            if address.local:
                await loop.create_unix_connection(lambda: connection, _local_socket())
            elif address.path:
                await loop.create_unix_connection(lambda: connection, address.path)
            else:
                await loop.create_connection(lambda: connection, address.host, address.port)
            await connection.wait_established()
    except TimeoutError:
        connection.abort()
        hint = address.other_port_hint
        raise ConnectFailed(
            str(address),
            f"no NSQ handshake within {settings.connect_timeout:.4g} s" + (f": {hint}" if hint else ""),
        ) from None
    except (socket.gaierror, UnicodeError) as error:  # UnicodeError: DNS has no such names
        raise ConnectFailed(str(address), f"the host name {address.host!r} is not known", permanent=True) from error
    except OSError as error:
        raise ConnectFailed(str(address), _refused_reason(address, error)) from error
    except BaseException:
        connection.abort()
        raise
    return connection


def _local_socket() -> str:
    """The TCP socket of the private local broker; ConnectFailed when another user could have put it there."""
    from qtools.paths import is_private_socket, local_broker_paths

    path = local_broker_paths().tcp_socket
    if not is_private_socket(path):
        raise ConnectFailed("the local broker", f"another user owns {path}, or may write to its directory")
    return str(path)


def _refused_reason(address: Address, error: OSError) -> str:
    if error.errno == errno.ECONNREFUSED:
        hint = address.other_port_hint
        return "nothing listens there" + (f" ({hint})" if hint else "; is nsqd running?")
    if error.errno == errno.ENOENT:
        return "there is no such socket; is q-broker running?"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "too many open files: this process may have no more (ulimit -n shows how many, and sets it)"
    if error.errno is None and "Multiple exceptions" in str(error):
        return "nothing listens there; is nsqd running?"
    return error.strerror or str(error)

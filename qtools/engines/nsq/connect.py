"""Opens connections. In: an address, settings. Out: a Connection whose handshake is over, or an error for the user.

If the private local broker does not run, it is started.
"""

from __future__ import annotations

from qtools.engines.connections.open_connection import PeerAddress, open_connection
from qtools.engines.nsq.address import Address
from qtools.engines.nsq.connection import Connection
from qtools.engines.nsq.protocol.session import ClientSession
from qtools.engines.nsq.settings import Settings
from qtools.errors import ConnectFailed, ConnectionLost, ProtocolError, QtoolsError


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
    peer = PeerAddress(
        str(address), "NSQ", "nsqd", address.host, address.port, _local_socket() if address.local else address.path,
        "q-broker", address.other_port_hint,
    )  # fmt: skip
    session = ClientSession(
        settings.identify_request(), tls=settings.tls_context(), server_hostname=address.host, secret=settings.secret
    )
    heartbeat = settings.heartbeat_interval / 1000
    return await open_connection(peer, lambda: Connection(address, session, heartbeat), settings.connect_timeout)


async def reason_of_no_start(address: Address, error: QtoolsError) -> str:
    """The sentence for a user about `error`, of the first attempt to connect to `address`: where the peer has closed or
    spoken something else, what it speaks. It is asked over a few more connections."""
    is_other = isinstance(error, ConnectionLost) or (isinstance(error, ProtocolError) and not error.looks_like)
    if not is_other or not address.port:
        return str(error)
    from qtools.engines.peer_protocol import protocol_at

    found = await protocol_at(str(address))
    advice = found.advice("NSQ", str(address), is_tls=False)
    return f"{address}: {advice}" if advice else str(error)


def _local_socket() -> str:
    """The TCP socket of the private local broker; ConnectFailed when another user could have put it there."""
    from qtools.paths import is_private_socket, local_broker_paths

    path = local_broker_paths().tcp_socket
    if not is_private_socket(path):
        raise ConnectFailed("the local broker", f"another user owns {path}, or may write to its directory")
    return str(path)

"""Opens connections. In: an address, settings. Out: a Connection whose handshake is over, or an error for the user.

If the private local broker does not run, it is started.
"""

from __future__ import annotations

from qtools.engines.connections.open_connection import PeerAddress, open_connection
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
    peer = PeerAddress(
        str(address), "NSQ", "nsqd", address.host, address.port, _local_socket() if address.local else address.path,
        "q-broker", address.other_port_hint,
    )  # fmt: skip
    session = ClientSession(
        settings.identify_request(), tls=settings.tls_context(), server_hostname=address.host, secret=settings.secret
    )
    heartbeat = settings.heartbeat_interval / 1000
    return await open_connection(peer, lambda: Connection(address, session, heartbeat), settings.connect_timeout)


def _local_socket() -> str:
    """The TCP socket of the private local broker; ConnectFailed when another user could have put it there."""
    from qtools.paths import is_private_socket, local_broker_paths

    path = local_broker_paths().tcp_socket
    if not is_private_socket(path):
        raise ConnectFailed("the local broker", f"another user owns {path}, or may write to its directory")
    return str(path)

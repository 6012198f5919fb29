"""What the parts of a client's connection need of each other, and of the server that accepted it.

In: nothing, as these are only interfaces. The server is tcp_server.py.

    TcpServer ◀─ClientServer─ ClientConnection ◀─TransportClient─ ClientTransport ◀─ the socket
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from qtools.broker.core.broker import Broker

if TYPE_CHECKING:
    import ssl

    from qtools.broker.tcp.auth import Authority
    from qtools.broker.tcp.unfinished_commands import UnfinishedCommands
    from qtools.engines.nsq.protocol.command_reader import CommandLimits
    from qtools.engines.nsq.protocol.negotiate import ServerLimits


class TransportClient(Protocol):
    """What ClientTransport needs: the one that knows what the client's bytes mean."""

    def connected(self) -> None:
        """Note that the client is connected."""
        ...

    def disconnected(self) -> None:
        """Note that the connection is lost. The transport calls nothing after it."""
        ...

    def take(self, data: bytes) -> None:
        """Process bytes from the client, decrypted and decompressed."""
        ...

    def secured(self) -> None:
        """Continue after the TLS handshake."""
        ...

    def make_room(self, room: int) -> None:
        """Note that the client can take `room` bytes of messages."""
        ...

    def unsubscribe(self) -> None:
        """Leave the channel, and stop all work for the client. May be called more than once."""
        ...

    def may_read(self) -> bool:
        """Whether the broker may read from the client."""
        ...


class ClientServer(Protocol):
    """What ClientConnection needs. tls: None without a certificate. authority: None without auth servers."""

    @property
    def broker(self) -> Broker: ...
    def connected(self, connection: object) -> None: ...
    def disconnected(self, connection: object) -> None: ...
    @property
    def limits(self) -> CommandLimits: ...
    @property
    def grants(self) -> ServerLimits: ...
    @property
    def tls(self) -> ssl.SSLContext | None: ...
    @property
    def tls_required(self) -> bool: ...
    @property
    def authority(self) -> Authority | None: ...
    @property
    def unfinished(self) -> UnfinishedCommands: ...

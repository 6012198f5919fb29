"""What a client's connection needs of the server that accepted it. The server is tcp_server.py."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from qtools.broker.core.broker import Broker

if TYPE_CHECKING:
    import ssl

    from qtools.broker.tcp.auth import Authority
    from qtools.broker.tcp.unfinished_commands import UnfinishedCommands
    from qtools.engines.nsq.protocol.command_reader import CommandLimits
    from qtools.engines.nsq.protocol.negotiate import ServerLimits


class TransportServer(Protocol):
    """What ClientTransport needs."""

    @property
    def broker(self) -> Broker: ...
    def connected(self, connection: asyncio.Protocol) -> None: ...
    def disconnected(self, connection: asyncio.Protocol) -> None: ...


class ConnectionServer(TransportServer, Protocol):
    """What ClientConnection needs. tls: None without a certificate. authority: None without auth servers."""

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

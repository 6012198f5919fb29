"""What one client asks for with IDENTIFY, and the transforms that it gets. In: the body of an IDENTIFY. Out: what both
sides agree on, or a refusal; transforms, added to the client's transport one after another.

    IDENTIFY ─▶ its response ─▶ TLS ─handshake─▶ OK ─▶ snappy or deflate ─▶ OK

Everything after a response passes through the transform that it announces, in both directions. A connection is upgraded
once.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from qtools.broker.tcp.client_transport import ClientTransport
from qtools.engines.nsq.protocol.negotiate import NegotiatedClient, NotGranted, negotiate
from qtools.engines.nsq.protocol.transforms import Deflate, Snappy, Tls

if TYPE_CHECKING:
    from qtools.broker.tcp.contract import ClientServer


class ClientUpgrades:
    """The transforms that one client has not got yet, in their order; true if there are some."""

    def __init__(self, transport: ClientTransport, server: ClientServer) -> None:
        self._transport = transport
        self._server = server
        self._pending: deque[Tls | Snappy | Deflate] = deque()

    def __bool__(self) -> bool:
        return bool(self._pending)

    def negotiate(self, body: bytes) -> NegotiatedClient:
        """What the client asks for, as far as the server grants it. Raises NotGranted."""
        client = negotiate(body, self._server.grants)
        agreed, transport = client.agreed, self._transport
        wanted: list[Tls | Snappy | Deflate] = []
        if agreed.tls_v1:
            assert self._server.tls is not None
            wanted.append(Tls(self._server.tls, server_side=True))
        if agreed.snappy:
            wanted.append(Snappy())
        if agreed.deflate:
            wanted.append(Deflate(agreed.deflate_level))
        if wanted and (transport.tls is not None or transport.compression is not None):
            raise NotGranted("E_IDENTIFY_FAILED", "IDENTIFY failed: the connection has been upgraded already")
        self._pending.extend(wanted)
        return client

    def add_next(self, rest: bytes) -> bool:
        """Add the next transform. `rest` was received already, and is decoded by it. Returns whether an OK follows now:
        after TLS it follows the handshake."""
        transform = self._pending.popleft()
        if isinstance(transform, Tls):
            self._transport.add_transform(tls=transform, rest=rest)
            return False
        self._transport.add_transform(compression=transform, rest=rest)
        return True

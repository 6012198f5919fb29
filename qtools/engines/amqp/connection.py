"""One connection to a node of RabbitMQ, and its channels. In: bytes from the broker. Out: calls of channels' owners.

    socket ─▶ data_received ─▶ AmqpSession.receive ─▶ events ─▶ AmqpChannel ─▶ its owner
    methods, frames of publishes and of acks ─▶ one write for each turn of the event loop ─▶ socket

A timer sends heartbeats, and closes the connection when the broker has been silent for too long. A channel on which
something was refused is closed by the broker; the connection goes on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from qtools.engines.amqp.protocol.deliveries import Confirms, Deliveries
from qtools.engines.amqp.protocol.frames import Content
from qtools.engines.amqp.protocol.methods import Method
from qtools.engines.amqp.protocol.session import (
    AmqpSession,
    Blocked,
    ChannelClosed,
    ConnectionClosed,
    Event,
    Login,
    Opened,
)  # fmt: skip
from qtools.engines.amqp.settings import AmqpSettings
from qtools.engines.connections.open_connection import PeerAddress, open_connection
from qtools.engines.connections.stream_connection import LINGER, StreamConnection
from qtools.errors import (
    BrokerError,
    ConnectFailed,
    ConnectionLost,
    NetworkError,
    PeerError,
    ProtocolError,
    QtoolsError,
    StartError,
)  # fmt: skip


class AmqpChannel:
    """One channel. The callbacks are set by its owner; none of them waits.

    on_deliveries, on_confirms, on_returned: what arrives. on_cancelled: the broker has cancelled a consumer, as its
    queue was deleted. on_closed: the broker has closed the channel, or the connection is lost; called once.
    """

    def __init__(self, connection: AmqpConnection, number: int) -> None:
        self.connection = connection
        self.number = number
        self.is_open = True
        self.on_deliveries: Callable[[Deliveries], None] | None = None
        self.on_confirms: Callable[[Confirms], None] | None = None
        self.on_nack: Callable[[int, bool], None] | None = None
        self.on_returned: Callable[[Content], None] | None = None
        self.on_cancelled: Callable[[str], None] | None = None
        self.on_closed: Callable[[QtoolsError], None] | None = None
        self._replies: deque[tuple[str, asyncio.Future[Method]]] = deque()  # the method that is sent, its reply

    def ask(self, name: str, **arguments: Any) -> asyncio.Future[Method]:
        """Send a method that the broker answers; the result is its reply. BrokerError when it is refused, which closes
        the channel; ConnectionLost."""
        made: asyncio.Future[Method] = asyncio.get_running_loop().create_future()
        if not self.is_open:
            made.set_exception(ConnectionLost(self.connection.address, "the channel is closed"))
            made.exception()
            return made
        self._replies.append((name, made))
        self.send(name, **arguments)
        return made

    def send(self, name: str, **arguments: Any) -> None:
        """Send a method that has no answer."""
        if self.is_open:
            self.connection.send(self.number, name, **arguments)

    def send_pieces(self, pieces: Iterable[bytes], size: int = 0) -> None:
        """Send frames that are encoded already. size: bytes that count for `is_writable`."""
        if self.is_open:
            self.connection.send_pieces(pieces, size)

    def close(self) -> None:
        """Close it; what is in flight on it goes back to its queue. `on_closed` is not called."""
        if self.is_open:
            self.is_open = False
            self.connection.close_channel(self.number)
            self._fail(ConnectionLost(self.connection.address, "the channel is closed"))

    # ── what the connection calls ──

    def handle(self, event: Event) -> None:
        if isinstance(event, Deliveries):
            if self.on_deliveries is not None:
                self.on_deliveries(event)
        elif isinstance(event, Confirms):
            if self.on_confirms is not None:
                self.on_confirms(event)
        elif isinstance(event, Content):
            if event.method.name == "basic.return" and self.on_returned is not None:
                self.on_returned(event)
        elif isinstance(event, Method):
            self._handle_method(event)

    def _handle_method(self, method: Method) -> None:
        if method.name == "basic.nack":
            if self.on_nack is not None:
                self.on_nack(method.arguments["delivery_tag"], method.arguments["multiple"])
        elif method.name == "basic.cancel":
            if self.on_cancelled is not None:
                self.on_cancelled(method.arguments["consumer_tag"].decode("utf-8", "replace"))
        else:
            # Replies to different methods do not keep their order: a quorum queue's basic.cancel-ok comes late.
            for place, (name, reply) in enumerate(self._replies):
                if f"{name}-ok" == method.name:
                    del self._replies[place]
                    if not reply.done():
                        reply.set_result(method)
                    return
            raise ProtocolError(f"{method.name} came, and nothing was waiting for it")

    def lose(self, error: QtoolsError) -> None:
        """The broker has closed the channel, or the connection is lost."""
        if not self.is_open:
            return
        self.is_open = False
        if isinstance(error, BrokerError) and not error.command and self._replies:
            error = type(error)(error.code, error.text, self._replies[0][0])
            error.address = self.connection.address
        self._fail(error)
        if self.on_closed is not None:
            self.on_closed(error)

    def _fail(self, error: QtoolsError) -> None:
        while self._replies:
            _, reply = self._replies.popleft()
            if not reply.done():
                reply.set_exception(error)
                reply.exception()  # mark it as retrieved: the caller may have been cancelled

    def __repr__(self) -> str:
        return f"<AmqpChannel {self.number} of {self.connection.address}{'' if self.is_open else ' closed'}>"


class AmqpConnection(StreamConnection[None]):
    """A connection to the node `peer`; `connect` opens it.

    on_blocked: called with the reason when the broker takes no more messages, and with "" when it does again.
    """

    def __init__(self, peer: PeerAddress, login: Login) -> None:
        super().__init__()
        self.session = AmqpSession(login)
        self.blocked = ""  # the reason for which the broker takes no messages
        self.on_blocked: Callable[[str], None] | None = None
        self._peer = peer
        self._channels: dict[int, AmqpChannel] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._closed: asyncio.Future[None] = self._loop.create_future()  # the broker has answered our close
        self._reading_is_paused = False
        self._first = b""  # how the broker's first bytes begin

    @property
    def address(self) -> str:
        return self._peer.name

    @property
    def cluster(self) -> str:
        """The name of the cluster, "" if the broker tells none."""
        return self._server_text("cluster_name")

    @property
    def version(self) -> tuple[int, ...]:
        """RabbitMQ's version; () for another broker."""
        if self._server_text("product") != "RabbitMQ":
            return ()
        parts = self._server_text("version").split(".")
        return tuple(int(part) for part in parts[:2] if part.isdecimal())

    def _server_text(self, name: str) -> str:
        value = dict(self.session.server_properties).get(name, b"")
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else ""

    # ── what owners call ──

    async def open_channel(self) -> AmqpChannel:
        """A new channel. ConnectionLost, BrokerError."""
        if self._is_shut:
            raise ConnectionLost(self.address, "the connection is closed")
        try:
            number = self.session.open_channel()
        except ValueError as error:
            raise StartError(f"{self.address}: {error}") from error
        made = self._channels[number] = AmqpChannel(self, number)
        reply: asyncio.Future[Method] = self._loop.create_future()
        made._replies.append(("channel.open", reply))
        self._flush_soon()
        await reply
        return made

    def send(self, channel: int, name: str, **arguments: Any) -> None:
        self.session.send(channel, name, **arguments)
        self._flush_soon()

    def send_pieces(self, pieces: Iterable[bytes], size: int) -> None:
        self.session.send_pieces(pieces)
        self._unflushed += size
        self._flush_soon()

    def close_channel(self, number: int) -> None:
        self._channels.pop(number, None)
        self.session.close_channel(number)
        self._flush_soon()

    def pause_reading(self) -> None:
        """Read nothing from the socket: the broker's sends wait. Heartbeats are sent in the meantime."""
        if not self._reading_is_paused and self._transport is not None and not self._transport.is_closing():
            self._reading_is_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._reading_is_paused and self._transport is not None:
            self._reading_is_paused = False
            self._last_received = self._loop.time()
            if not self._transport.is_closing():
                self._transport.resume_reading()

    async def close(self) -> None:
        """Close in order: the broker has handled all that was sent before it answers."""
        if self.lost.done() or self._transport is None:
            return
        self.resume_reading()
        self._closing = True
        self.session.close()
        self._flush()
        waits: list[asyncio.Future[Any]] = [self._closed, self.lost]
        await asyncio.wait(waits, timeout=LINGER, return_when=asyncio.FIRST_COMPLETED)
        self._transport.abort()
        await asyncio.wait([self.lost], timeout=LINGER)

    # ── StreamConnection ──

    def _on_connected(self) -> None:
        self.session.start()
        self._flush()

    def _take_output(self) -> bytes:
        return self.session.take_output()

    def data_received(self, data: bytes) -> None:
        self._last_received = self._loop.time()
        if len(self._first) < 16:
            self._first = (self._first + data)[:32]
        try:
            for event in self.session.receive(data):
                self._handle(event)
        except QtoolsError as error:
            self._fail(error)
            return
        if self.session.has_output:
            self._flush_soon()

    def _on_lost(self, error: QtoolsError | None, reason: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        channels, self._channels = list(self._channels.values()), {}
        # What ended the connection is no refusal of what a channel has asked for: that is asked for again.
        lost = error if isinstance(error, ConnectionLost) else ConnectionLost(self.address, str(error or reason))
        for channel in channels:
            channel.lose(lost)
        if not self._closed.done():
            self._closed.set_result(None)

    # ── inside ──

    def _handle(self, event: Event) -> None:
        if isinstance(event, Opened):
            if not self._established.done():
                self._established.set_result(None)
            self._tick()
        elif isinstance(event, Blocked):
            self.blocked = event.reason
            if self.on_blocked is not None:
                self.on_blocked(event.reason)
        elif isinstance(event, ConnectionClosed):
            self._on_closed(event.error)
        elif isinstance(event, ChannelClosed):
            event.error.address = self.address
            channel = self._channels.pop(event.channel, None)
            if channel is not None:
                channel.lose(event.error)
        else:
            number = event.method.channel if isinstance(event, Content) else event.channel
            channel = self._channels.get(number)
            if channel is not None:
                channel.handle(event)

    def _on_closed(self, error: BrokerError | None) -> None:
        if error is None:
            if not self._closed.done():
                self._closed.set_result(None)
            return
        error.address = self.address
        # CONNECTION_FORCED: an operator has closed it, or the node stops: it is connected again.
        forced = error.code in ("CONNECTION_FORCED", "320")
        self._flush()
        self.abort(ConnectionLost(self.address, f"the broker closed the connection: {error.text}") if forced else error)

    def _fail(self, error: QtoolsError) -> None:
        self._flush()  # the answer to the broker's connection.close
        if isinstance(error, ProtocolError):
            from qtools.engines.peer_protocol import advice_on_answer

            assert self._transport is not None
            is_tls = self._transport.get_extra_info("ssl_object") is not None
            hint = f" ({self._peer.hint})" if self._peer.hint else ""
            if advice := advice_on_answer(self._first, "AMQP", self.address, is_tls=is_tls):
                error = ProtocolError(f"{self.address}: {advice}")
            else:
                error = ProtocolError(f"{self.address} does not speak AMQP: {error}{hint}")
        elif isinstance(error, (NetworkError, PeerError)):
            error.address = self.address
        self.abort(error)

    def _tick(self) -> None:
        """Send a heartbeat, and close the connection if the broker is silent for two."""
        interval = self.session.heartbeat
        if not interval:
            return
        if self._silence > 2 * interval + 0.5 and not self._reading_is_paused and not self._closing:
            self.abort(ConnectionLost(self.address, f"silent for {self._silence:.0f} s"))
            return
        self.session.send_heartbeat()
        self._flush()
        self._timer = self._loop.call_later(interval / 2, self._tick)

    def __repr__(self) -> str:
        state = "" if self.is_open else " closed"
        return f"<AmqpConnection {self.address} channels={len(self._channels)}{state}>"


async def connect(settings: AmqpSettings) -> AmqpConnection:
    """Connect to the first node that answers. ConnectFailed, ConnectionLost, PeerError, of the first one that failed in
    a way that another attempt would not change, else of the last one."""
    context, login = settings.tls_context(), settings.login()
    failed: QtoolsError | None = None
    for peer in settings.peers():
        try:
            return await open_connection(peer, partial(AmqpConnection, peer, login), settings.connect_timeout, context)
        except (NetworkError, PeerError) as error:
            is_permanent = isinstance(error, PeerError) or (isinstance(error, ConnectFailed) and error.permanent)
            if failed is None or is_permanent:
                failed = error
            if isinstance(error, PeerError):
                break
    assert failed is not None
    raise failed

"""One socket that drives the protocol. In: bytes from a server. Out: messages to subscribers, answers to pings.

    socket ─▶ data_received ─▶ ServerReader ─▶ the callback of each subscription
    send, subscribe ─▶ one write for each turn of the event loop ─▶ socket

The server begins with INFO. Then the connection is encrypted, if that was asked for, and CONNECT and PING are sent: the
server answers PONG, or refuses the user. A timer sends PING while the server is silent, and closes the connection when
two are not answered.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from qtools import __version__
from qtools.engines.connections import stream_connection
from qtools.engines.connections.open_connection import PeerAddress, open_connection
from qtools.engines.connections.stream_connection import HIGH_WATER, StreamConnection
from qtools.engines.jetstream.credentials import connect_fields
from qtools.engines.jetstream.protocol import commands
from qtools.engines.jetstream.protocol.server_info import ServerInfo, ServerRefusal, explain_error, parse_info
from qtools.engines.jetstream.protocol.server_reader import ConfirmedPublishes, ControlLine, NatsMessages, ServerReader
from qtools.engines.jetstream.settings import JetStreamSettings
from qtools.errors import ConnectFailed, ConnectionLost, NetworkError, PeerError, ProtocolError, QtoolsError
from qtools.host_port import split_host_port

if TYPE_CHECKING:
    import ssl

log = logging.getLogger("qtools.nats")

# s without INFO, after which the server is asked something that a server of another kind answers too.
PROBE_AFTER = 1.0
UNANSWERED_PINGS = 2  # with so many, the connection counts as lost
_OTHER_PORTS = {
    6222: "that is NATS's port for routes, its port for clients is usually 4222",
    8222: "that is NATS's HTTP port, its port for clients is usually 4222",
    4150: "that is nsqd's port: its URL begins with nsq://",
    9092: "that is Kafka's port: its URL begins with kafka://",
    6379: "that is Redis's port: its URL begins with redis://",
    5672: "that is RabbitMQ's port: its URL begins with amqp://",
}

Subscriber = Callable[[NatsMessages], None]


class NatsConnection(StreamConnection[ServerInfo]):
    """A connection to the server at `host`; `connect` makes it and waits for the end of the handshake.

    info: what the server told last. on_refusal: called with what the server refused without closing the connection.
    """

    def __init__(self, host: str, settings: JetStreamSettings, tls: ssl.SSLContext | None) -> None:
        super().__init__()
        self.info = ServerInfo("", "", 1024 * 1024)
        self.on_refusal: Callable[[ServerRefusal], None] | None = None
        self.on_confirmed: Callable[[list[int]], None] = _ignore
        self._host = host
        self._settings = settings
        self._tls = tls
        self._reader = ServerReader()
        self._first = b""  # the first bytes of the server, until they are known to be INFO
        self._informed: asyncio.Future[None] = self._loop.create_future()
        self._output: list[bytes] = []
        self._subscribers: dict[bytes, Subscriber] = {}
        self._flushes: deque[asyncio.Future[None] | None] = deque()  # a PING that was sent; None for the timer's
        self._unanswered_pings = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def address(self) -> str:
        return self._host

    # ── what a client calls ──

    def send(self, data: bytes) -> None:
        """Send encoded commands at the end of this turn of the event loop."""
        self._output.append(data)
        self._unflushed += len(data)
        if not self._flush_due:
            self._flush_soon()

    def subscribe(self, subject: bytes, sid: bytes, subscriber: Subscriber) -> None:
        """Subscribe to `subject`; `subscriber` is called with the messages."""
        self._subscribers[sid] = subscriber
        self.send(commands.subscribe(subject, sid))

    def subscribe_to_answers(self, inbox: bytes, sid: bytes, subscriber: Subscriber) -> None:
        """Subscribe to the answers of streams to publishes (ServerReader.expect_confirmations); `subscriber` is called
        with those that say more than that a message is stored, `on_confirmed` with the numbers of the others."""
        self._reader.expect_confirmations(inbox, sid)
        self.subscribe(inbox + b"*", sid, subscriber)

    def unsubscribe(self, sid: bytes) -> None:
        """No more messages for `sid`; those that are on their way still reach the subscriber."""
        # The server answers PING after the last of them.
        ended: asyncio.Future[None] = self._loop.create_future()
        ended.add_done_callback(lambda _: self._subscribers.pop(sid, None))
        self._flushes.append(ended)
        self.send(commands.unsubscribe(sid) + commands.PING)

    async def flush(self) -> None:
        """Return when the server has processed all that was sent; ConnectionLost."""
        if self._is_shut:
            raise ConnectionLost(self.address, "the connection is closed")
        done: asyncio.Future[None] = self._loop.create_future()
        self._flushes.append(done)
        self.send(commands.PING)
        await done

    async def close(self) -> None:
        """Close after the server has processed all that was sent, or after a time."""
        try:
            async with asyncio.timeout(stream_connection.LINGER):
                await self.flush()
        except (TimeoutError, NetworkError) as error:
            log.info("%s: closed without an answer to the last commands: %s", self.address, error)
            self.abort()
            return
        self._closing = True
        assert self._transport is not None
        self._transport.close()
        await asyncio.wait([self.lost], timeout=stream_connection.LINGER)
        self._transport.abort()

    # ── the handshake ──

    async def wait_established(self) -> ServerInfo:
        """Take INFO, encrypt, send CONNECT, and wait for the answer. ConnectionLost, ConnectFailed, PeerError
        (ProtocolError, AuthError), ssl.SSLError."""
        await self._informed
        info, encrypts = self.info, self._tls is not None
        if encrypts and not self._settings.tls_first:
            if not info.tls_required and not info.tls_available:
                raise ConnectFailed(self.address, "it does not offer TLS: write nats:// for none", permanent=True)
            assert self._transport is not None
            host, _ = split_host_port(self._host)
            upgraded = await self._loop.start_tls(self._transport, self, self._tls, server_hostname=host)  # type: ignore[arg-type]
            self._transport = cast(asyncio.Transport, upgraded)
            self._transport.set_write_buffer_limits(high=HIGH_WATER)
        elif info.tls_required and not encrypts:
            raise ConnectFailed(self.address, "it requires TLS: write natss://", permanent=True)
        if info.version and not info.headers:
            raise ConnectFailed(
                self.address, f"NATS {info.version} is too old: 2.9 and later are supported", permanent=True
            )
        options: dict[str, Any] = {
            "verbose": False, "pedantic": False, "tls_required": encrypts, "name": self._settings.client_name,
            "lang": "python-qtools", "version": __version__, "protocol": 1, "echo": False, "headers": True,
            "no_responders": True,
        }  # fmt: skip
        self.send(commands.connect(options | connect_fields(self._settings, info.nonce)))
        await self.flush()
        self._established.set_result(self.info)
        self._schedule()
        return self.info

    def _on_connected(self) -> None:
        self._timer = self._loop.call_later(PROBE_AFTER, self._probe)

    def _probe(self) -> None:
        """The server sends no INFO, so it may be of another kind, which answers this."""
        if not self._informed.done():
            self._flushes.append(None)
            self.send(commands.PING)

    # ── asyncio.Protocol ──

    def data_received(self, data: bytes) -> None:
        self._unanswered_pings = 0
        if not self._informed.done():
            self._first = (self._first + data)[:64]
        try:
            for event in self._reader.receive(data):
                if isinstance(event, NatsMessages):
                    subscriber = self._subscribers.get(event.sid)
                    if subscriber is not None:
                        subscriber(event)
                elif isinstance(event, ConfirmedPublishes):
                    self.on_confirmed(event.numbers)
                else:
                    self._handle(event)
        except QtoolsError as error:
            self._fail(error)

    def _take_output(self) -> bytes:
        data = b"".join(self._output)
        self._output.clear()
        return data

    def _on_lost(self, error: QtoolsError | None, reason: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        lost = error or ConnectionLost(self.address, reason)
        for waiting in (self._informed, *self._flushes):
            if waiting is not None and not waiting.done():
                waiting.set_exception(lost)
                waiting.exception()  # mark it as retrieved: the caller may have been cancelled
        self._flushes.clear()
        self._subscribers.clear()

    # ── inside ──

    def _handle(self, line: ControlLine) -> None:
        match line.verb:
            case b"PING":
                self.send(commands.PONG)
            case b"PONG":
                if self._flushes and (done := self._flushes.popleft()) is not None and not done.done():
                    done.set_result(None)
            case b"INFO":
                self.info = parse_info(line.argument)
                if self.info.is_leaving:
                    log.warning("%s is being shut down (lame duck mode); another server takes over", self.address)
                if not self._informed.done():
                    self._informed.set_result(None)
            case b"-ERR":
                self._refused(explain_error(line.argument))

    def _refused(self, refusal: ServerRefusal) -> None:
        error = refusal.error
        error.address = self.address
        if refusal.ends_connection:
            self.abort(error if not self._established.done() else ConnectionLost(self.address, str(error)))
            if self._established.done():
                log.warning("%s", error)
        elif self.on_refusal is not None:
            self.on_refusal(refusal)
        else:
            log.warning("%s", error)

    def _fail(self, error: QtoolsError) -> None:
        if isinstance(error, ProtocolError) and not self._informed.done():
            from qtools.engines.peer_protocol import advice_on_answer

            is_tls = self._tls is not None
            in_tls = is_tls and self._settings.tls_first
            advice = advice_on_answer(self._first, "NATS", self.address, is_tls=is_tls, in_tls=in_tls)
            hint = _hint(self._host)
            error = ProtocolError(advice or str(error) + (f" ({hint})" if hint else ""))
        if isinstance(error, PeerError):
            error.address = self.address
        self.abort(error)

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(self._settings.ping_interval, self._tick)

    def _tick(self) -> None:
        """Send PING, and close the connection if the server has not answered the last ones."""
        if self._unanswered_pings >= UNANSWERED_PINGS:
            silent = UNANSWERED_PINGS * self._settings.ping_interval
            self.abort(ConnectionLost(self.address, f"silent for {silent:.4g} s"))
            return
        self._unanswered_pings += 1
        self._flushes.append(None)
        self.send(commands.PING)
        self._schedule()

    def __repr__(self) -> str:
        return f"<NatsConnection {self.address}{'' if self.is_open else ' closed'}>"


def _ignore(_numbers: list[int]) -> None:
    """What a connection without publishes does with answers."""


async def connect(host: str, settings: JetStreamSettings, tls: ssl.SSLContext | None) -> NatsConnection:
    """Connect to the server at `host` ("HOST:PORT"). ConnectFailed, ConnectionLost, PeerError."""
    name, port = split_host_port(host)
    peer = PeerAddress(host, "NATS", "nats-server", name, port or 4222, hint=_hint(host))
    return await open_connection(
        peer, lambda: NatsConnection(host, settings, tls), settings.connect_timeout, tls if settings.tls_first else None
    )


def _hint(host: str) -> str:
    return _OTHER_PORTS.get(split_host_port(host)[1] or 0, "")

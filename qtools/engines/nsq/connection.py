"""One socket driving one session. In: bytes of a broker. Out: batches to an owner, answers to who waits.

    socket ─▶ data_received ─▶ Session.receive ─▶ owner.on_messages
    finish, requeue, touch, ready, publish ─▶ Session ─▶ one write per turn of the event loop ─▶ socket

The network's exceptions are translated here and nowhere else. What leaves within one turn (the heartbeat's
answer, the ready count, acknowledgements) leaves in one write. A connection also keeps the time: it touches
what is held longer than half of msg_timeout, and ends itself when the broker has been silent too long.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from qtools.engines.nsq.address import Address
from qtools.engines.nsq.in_flight import Delivery, PendingReplies
from qtools.engines.nsq.protocol.identify import IdentifyResponse
from qtools.engines.nsq.protocol.session import Answered, ClientSession, Established, Event, RefusedRequest
from qtools.engines.nsq.settings import Settings
from qtools.errors import ConnectFailed, ConnectionLost, NetworkError, PeerError, ProtocolError, QtoolsError, SizeError
from qtools.message import Messages

logger = logging.getLogger("qtools.client")

# How long the broker may take to read what we said last and close, before we close without knowing.
LINGER = 3.0
# Bytes that wait to be written to a socket, beyond which it is not offered to the publisher.
HIGH_WATER = 1024 * 1024


class Owner(Protocol):
    """Who a connection hands its messages to. None of it waits."""

    def on_messages(self, delivery: Delivery, messages: Messages, size: int) -> None:
        """`messages` came, in a chunk of `size` bytes; `arrival` is their origin."""

    def on_finish(self, connection: Connection, count: int) -> None:
        """`count` messages are about to be finished on `connection`."""


class Connection(asyncio.Protocol):
    """An established connection, made by `connect`. One message's origin, as its Batch knows it."""

    def __init__(self, address: Address, session: ClientSession, heartbeat: float) -> None:
        self.address_ = address
        self.session = session
        self.owner: Owner | None = None
        self.on_writable: Callable[[], None] | None = None  # called when the socket takes bytes again
        self.topic = ""
        self.channel = ""
        self.ready_count = 0
        self.received = 0
        self.acknowledgements_failed = 0
        self.lost: asyncio.Future[QtoolsError | None] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._established: asyncio.Future[IdentifyResponse] = self._loop.create_future()
        self._flush_due = False
        self._is_writable = True
        self._unflushed = 0  # bytes of publishes that leave with the next write
        self._failure: QtoolsError | None = None
        self._closing = False
        self._said_all = False  # our sending side has ended
        self._deliveries: deque[Delivery] = deque()  # in the order of their `at`; those all finished go when they lead
        self._heartbeat = heartbeat
        self._heard = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None

    # ── what others see ──

    @property
    def address(self) -> str:
        return str(self.address_)

    @property
    def agreed(self) -> IdentifyResponse:
        return self.session.agreed

    @property
    def is_open(self) -> bool:
        return not self.lost.done() and not self._closing

    @property
    def _is_shut(self) -> bool:
        """Whether nothing that is said now will be heard."""
        return self.lost.done() or self._transport is None or self._transport.is_closing() or self._said_all

    async def wait_established(self) -> IdentifyResponse:
        """The handshake's end; raises what it failed with."""
        return await self._established

    async def subscribe(self, topic: str, channel: str) -> None:
        """Receive `channel` of `topic`; messages flow with the first `ready`."""
        self.topic, self.channel = topic, channel
        answers = PendingReplies(self._loop.create_future(), 1)
        if self._is_shut:
            answers.fail(ConnectionLost(self.address, "the connection is closed"))
        else:
            self.session.subscribe(topic, channel, answers)
            self._flush_soon()
        await answers.done

    def publish(self, encoded: bytes, count: int = 1) -> PendingReplies:
        """Send `count` encoded publishes; `done` of what is returned ends with the last OK, with the first
        refusal, or with ConnectionLost; `left` says how many were not answered OK."""
        answers = PendingReplies(self._loop.create_future(), count)
        if self._is_shut:
            answers.fail(ConnectionLost(self.address, "the connection is closed"))
        else:
            self.session.publish(encoded, count, answers)
            self._unflushed += len(encoded)
            self._flush_soon()
        return answers

    @property
    def is_writable(self) -> bool:
        """Whether the socket takes more: a stalled broker stops the publisher, it does not fill its memory."""
        return self._is_writable and self._unflushed < HIGH_WATER

    @property
    def unanswered(self) -> int:
        """Commands that wait for the broker's answer."""
        return self.session.unanswered_count

    def ready(self, count: int) -> None:
        """Let up to `count` messages be in flight here."""
        if count != self.ready_count and not self._closing:
            self.ready_count = count
            self.session.ready(count)
            self._flush_soon()

    @property
    def in_flight(self) -> int:
        """Messages that came and are neither finished nor given back."""
        return sum(delivery.left for delivery in self._deliveries)

    def finish(self, ids: Sequence[bytes], count: int) -> None:
        """FIN for `ids`; `count` of them were held when the finishing began, gone ones included."""
        if self.owner is not None:
            self.owner.on_finish(self, count)
        self.session.finish(ids)
        self._forget()
        self._flush_soon()

    def requeue(self, ids: Sequence[bytes], delay_ms: int) -> None:
        """REQ for `ids`."""
        self.session.requeue(ids, delay_ms)
        self._forget()
        self._flush_soon()

    def touch(self, ids: Sequence[bytes]) -> None:
        """TOUCH for `ids`."""
        self.session.touch(ids)
        self._flush_soon()

    async def close(self) -> None:
        """End in order: no more messages, give back what is held, and wait until the broker has read that.

        The end of our sending side, answered by the end of the broker's, is the only proof that the last FIN
        was read: a socket closed with unread bytes in it resets the connection and takes the FINs with it.
        """
        if self.lost.done() or self._transport is None:
            return
        if self.topic:
            self.ready_count = 0
            answers = PendingReplies(self._loop.create_future(), 1)
            self.session.stop_receiving(answers)
            self._flush_soon()
            either: list[asyncio.Future[Any]] = [answers.done, self.lost]
            await asyncio.wait(either, timeout=LINGER, return_when=asyncio.FIRST_COMPLETED)
        self._closing = True
        for delivery in self._deliveries:
            self.session.requeue(delivery.held, 0)
            delivery.drop()
        self._deliveries.clear()
        self._flush()
        if not self.lost.done() and not self._transport.is_closing():
            self._said_all = True
            if self._transport.can_write_eof():
                self._transport.write_eof()
            await asyncio.wait([self.lost], timeout=LINGER)
            self._transport.abort()  # who has not read it by now is not waited for

    def abort(self, error: QtoolsError | None = None) -> None:
        """End at once."""
        self._failure = self._failure or error
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    # ── asyncio.Protocol ──

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none, but do the same
        self._transport.set_write_buffer_limits(high=HIGH_WATER)
        self.session.start()
        self._flush()
        self._timer = self._loop.call_later(self._heartbeat / 2, self._tick)

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        try:
            messages, events = self.session.receive(data)
        except QtoolsError as error:
            self._fail(error)
            return
        if events:
            for event in events:
                self._happened(event)
        if messages:
            if self._closing:
                self.session.requeue(messages.ids, 0)
            else:
                self.received += len(messages)
                delivery = Delivery(self, messages.ids, self._heard)
                self._deliveries.append(delivery)
                if self.owner is not None:
                    self.owner.on_messages(delivery, messages, len(data))
        if self.session.has_output and not self._flush_due:
            self._flush_soon()

    def eof_received(self) -> None:
        return None  # close ours too

    def pause_writing(self) -> None:
        self._is_writable = False

    def resume_writing(self) -> None:
        self._is_writable = True
        if self.on_writable is not None:
            self.on_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_writable = True
        if self._timer is not None:
            self._timer.cancel()
        error = self._failure
        if error is None and not self._closing:
            error = ConnectionLost(self.address, _lost_reason(exc))
        for delivery in self._deliveries:
            delivery.drop()
        self._deliveries.clear()
        if not self._established.done():
            self._established.set_exception(error or ConnectionLost(self.address, "closed before the handshake ended"))
            self._established.exception()
        for tag in self.session.unanswered:
            tag.fail(ConnectionLost(self.address, _lost_reason(exc)))
        if not self.lost.done():
            self.lost.set_result(error)

    # ── inside ──

    def _happened(self, event: Event) -> None:
        if isinstance(event, Answered):
            event.tag.answered()
        elif isinstance(event, Established):
            if not self._established.done():
                self._established.set_result(event.agreed)
            self._tick()  # msg_timeout is known only now, and may be shorter than a heartbeat
        elif isinstance(event, RefusedRequest):
            if not event.fatal:
                # The message had timed out at the broker and comes again: counted, as it may be seen twice.
                self.acknowledgements_failed += event.error.code == "E_FIN_FAILED"
                logger.debug("%r: %s", self, event.error)
                return
            if not isinstance(event.error, SizeError):  # the publisher reports a SizeError with the message
                event.error.args = (f"{self.address}: {event.error}",)
            if event.tag is not None:
                event.tag.fail(event.error)
                self._failure = ConnectionLost(self.address, f"closed after {event.error.code}", refused=True)
            else:
                self._failure = event.error
            self.abort()

    def _fail(self, error: QtoolsError) -> None:
        if isinstance(error, ProtocolError):
            hint = self.address_.other_port_hint
            if error.spoke == "HTTP":
                hint = hint or "give nsqd's TCP port, usually 4150"
                error = ProtocolError(f"{self.address} answers HTTP: {hint}", spoke="HTTP")
            else:
                error = ProtocolError(f"{self.address} does not speak NSQ: {error}" + (f" ({hint})" if hint else ""))
        elif isinstance(error, NetworkError):
            error = type(error)(self.address, error.reason)
        elif isinstance(error, PeerError) and self.address not in str(error):
            error.args = (f"{self.address}: {error}",)
        if isinstance(error, ConnectFailed):
            error.hopeless = True
        self.abort(error)

    def _flush_soon(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        if self._is_shut or self._transport is None:
            return
        data = self.session.take_output()
        if data:
            self._transport.write(data)
            if self._unflushed >= HIGH_WATER and self._is_writable and self.on_writable is not None:
                self._loop.call_soon(self.on_writable)
            self._unflushed = 0

    def _forget(self) -> None:
        """Let go of arrivals of which nothing is held any more."""
        deliveries = self._deliveries
        while deliveries and not deliveries[0].left:
            deliveries.popleft()

    def _tick(self) -> None:
        """What is done now and then: notice a dead peer, touch what is held long."""
        if self._timer is not None:
            self._timer.cancel()
        now = self._loop.time()
        if now - self._heard > 2.5 * self._heartbeat and not self._closing:
            # nsqd sends a heartbeat every interval: two missed and the other side is gone without a word.
            self.abort(ConnectionLost(self.address, f"silent for {now - self._heard:.0f} s"))
            return
        hold = self.agreed.msg_timeout / 1000 / 2
        while self._deliveries and now - self._deliveries[0].at >= hold:
            delivery = self._deliveries.popleft()
            if delivery.left:
                self.session.touch(delivery.held)
                delivery.at = now
                self._deliveries.append(delivery)
        self._flush()
        self._timer = self._loop.call_later(max(0.05, min(self._heartbeat / 2, hold / 4)), self._tick)

    def __repr__(self) -> str:
        where = f" {self.topic}/{self.channel}" if self.topic else ""
        state = "" if self.is_open else " closed"
        return f"<Connection {self.address}{where} in_flight={self.in_flight}/{self.ready_count}{state}>"


def _lost_reason(exc: BaseException | None) -> str:
    if exc is None:
        return "the broker closed the connection"
    return exc.strerror or str(exc) if isinstance(exc, OSError) else str(exc)


async def connect(address: Address, settings: Settings) -> Connection:
    """A connection whose handshake is over.

    Raises ConnectFailed (`hopeless` where another try would end the same way), ConnectionLost, or a
    PeerError that says what the other side is or refused; StartError when the local broker cannot start.
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
        settings.wishes(), tls=settings.tls_context(), server_hostname=address.host, secret=settings.secret
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
    except (socket.gaierror, UnicodeError) as error:  # UnicodeError: no name that DNS could have
        raise ConnectFailed(str(address), f"the host name {address.host!r} is not known", hopeless=True) from error
    except OSError as error:
        raise ConnectFailed(str(address), _refused_reason(address, error)) from error
    except BaseException:
        connection.abort()
        raise
    return connection


def _local_socket() -> str:
    """The TCP socket of the private local broker; ConnectFailed when another user could have put it there."""
    from qtools.paths import is_private_socket, local_places

    path = local_places().tcp_socket
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

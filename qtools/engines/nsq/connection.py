"""One socket that drives one session. In: bytes from a broker. Out: messages to an owner, replies to publishes.

    socket ─▶ data_received ─▶ ClientSession.receive ─▶ owner.on_messages
    finish, requeue, touch, ready, publish ─▶ ClientSession ─▶ one write for each turn of the event loop ─▶ socket

All that is sent within one turn (the reply to a heartbeat, the ready count, acknowledgements) leaves in one write:
engines/connections/stream_connection.py does that. A connection has a timer: it sends TOUCH for messages that are in
flight for longer than half of msg_timeout, and it closes itself when the broker has been silent for too long.
connect.py opens a connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Protocol

from qtools.engines.connections import stream_connection
from qtools.engines.connections.in_flight import Delivery, InFlightLedger
from qtools.engines.connections.stream_connection import StreamConnection
from qtools.engines.nsq.address import Address
from qtools.engines.nsq.protocol.identify import IdentifyResponse
from qtools.engines.nsq.protocol.session import Answered, ClientSession, Established, Event, RefusedRequest
from qtools.errors import ConnectFailed, ConnectionLost, NetworkError, PeerError, ProtocolError, QtoolsError
from qtools.message import Messages

logger = logging.getLogger("qtools.client")


class Owner(Protocol):
    """Receives the messages of a connection. The call does not wait."""

    def on_messages(self, connection: Connection, delivery: Delivery, messages: Messages, size: int) -> None:
        """`messages` arrived on `connection`, in `size` bytes from the socket; `delivery` is their origin."""


class PendingReplies:
    """The replies to one write that the broker has not sent yet: `done` completes with the last of `left` OKs."""

    __slots__ = ("done", "left")

    def __init__(self, done: asyncio.Future[None], left: int) -> None:
        self.done = done
        self.left = left

    def answered(self) -> None:
        self.left -= 1
        if not self.left and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: QtoolsError) -> None:
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()  # mark it as retrieved: the caller may have been cancelled


class Connection(StreamConnection[IdentifyResponse]):
    """A connection to a broker; `connect` (connect.py) makes it and waits for the handshake."""

    def __init__(self, address: Address, session: ClientSession, heartbeat: float) -> None:
        super().__init__()
        self.address_ = address
        self.session = session
        self.owner: Owner | None = None
        self.topic = ""
        self.channel = ""
        self.ready_count = 0
        self.received = 0
        self.acknowledgements_failed = 0
        self.ledger = InFlightLedger(self)
        self._heartbeat = heartbeat  # s between two heartbeats of the broker
        self._timer: asyncio.TimerHandle | None = None

    # ── what a consumer or publisher calls ──

    @property
    def address(self) -> str:
        return str(self.address_)

    @property
    def agreed(self) -> IdentifyResponse:
        return self.session.agreed

    async def subscribe(self, topic: str, channel: str) -> None:
        """Subscribe to `channel` of `topic`; messages arrive after the first `ready`."""
        self.topic, self.channel = topic, channel
        replies = PendingReplies(self._loop.create_future(), 1)
        if self._is_shut:
            replies.fail(ConnectionLost(self.address, "the connection is closed"))
        else:
            self.session.subscribe(topic, channel, replies)
            self._flush_soon()
        await replies.done

    def publish(self, encoded: bytes, count: int = 1) -> PendingReplies:
        """Send `count` encoded publish commands. The result's `done` completes with the last OK, or raises the first
        refusal or ConnectionLost; its `left` is the number of commands that were not answered OK."""
        replies = PendingReplies(self._loop.create_future(), count)
        if self._is_shut:
            replies.fail(ConnectionLost(self.address, "the connection is closed"))
        else:
            self.session.publish(encoded, count, replies)
            self._unflushed += len(encoded)
            self._flush_soon()
        return replies

    @property
    def unanswered(self) -> int:
        """Commands that wait for the broker's reply."""
        return self.session.unanswered_count

    def ready(self, count: int) -> None:
        """Allow the broker up to `count` messages in flight on this connection."""
        if count != self.ready_count and not self._closing and self.session.allows("RDY"):
            self.ready_count = count
            self.session.ready(count)
            self._flush_soon()

    @property
    def in_flight(self) -> int:
        """Messages that arrived and are neither finished nor requeued."""
        return self.ledger.count

    def finish(self, ids: Sequence[bytes]) -> None:
        """Send FIN for `ids`. Only the ledger's deliveries call this, as they count what is in flight."""
        self.session.finish(ids)
        self._flush_soon()

    def requeue(self, ids: Sequence[bytes], delay_ms: int) -> None:
        """Send REQ for `ids`. Only the ledger's deliveries call this."""
        self.session.requeue(ids, delay_ms)
        self._flush_soon()

    def touch(self, ids: Sequence[bytes]) -> None:
        """Send TOUCH for `ids`."""
        self.session.touch(ids)
        self._flush_soon()

    async def close(self) -> None:
        """Close in order: stop the messages, requeue those in flight, and wait until the broker has read all that.

        The broker closes its side after it has read the end of ours. Nothing else proves that it has read the last FIN:
        if a socket is closed while it holds unread bytes, the system resets the connection, and the FINs are lost.
        """
        if self.lost.done() or self._transport is None:
            return
        if self.session.allows("CLS"):
            self.ready_count = 0
            replies = PendingReplies(self._loop.create_future(), 1)
            self.session.stop_receiving(replies)
            self._flush_soon()
            either: list[asyncio.Future[Any]] = [replies.done, self.lost]
            await asyncio.wait(either, timeout=stream_connection.LINGER, return_when=asyncio.FIRST_COMPLETED)
        self._closing = True
        for ids in self.ledger.take_all():
            self.session.requeue(ids, 0)
        await self._end_stream()

    # ── asyncio.Protocol ──

    def _on_connected(self) -> None:
        self.session.start()
        self._flush()
        self._timer = self._loop.call_later(self._heartbeat / 2, self._tick)

    def data_received(self, data: bytes) -> None:
        self._last_received = self._loop.time()
        try:
            messages, events = self.session.receive(data)
        except QtoolsError as error:
            self._fail(error)
            return
        if events:
            for event in events:
                self._handle(event)
        if messages:
            if self._closing:
                self.session.requeue(messages.ids, 0)
            else:
                self.received += len(messages)
                delivery = self.ledger.add(messages.ids, self._last_received)
                if self.owner is not None:
                    self.owner.on_messages(self, delivery, messages, len(data))
        if self.session.has_output and not self._flush_due:
            self._flush_soon()

    def _on_lost(self, error: QtoolsError | None, reason: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.ledger.drop()
        for tag in self.session.unanswered:
            tag.fail(ConnectionLost(self.address, reason))

    # ── inside ──

    def _handle(self, event: Event) -> None:
        if isinstance(event, Answered):
            event.tag.answered()
        elif isinstance(event, Established):
            if not self._established.done():
                self._established.set_result(event.agreed)
            self._tick()  # msg_timeout is known only now, and may be shorter than a heartbeat
        elif isinstance(event, RefusedRequest):
            if not event.fatal:
                # The message had timed out, and the broker delivers it again: a consumer may process it twice.
                self.acknowledgements_failed += event.error.code == "E_FIN_FAILED"
                logger.debug("%r: %s", self, event.error)
                return
            event.error.address = self.address
            if event.tag is not None:
                event.tag.fail(event.error)
                self._failure = ConnectionLost(self.address, f"closed after {event.error.code}", refused=True)
            else:
                self._failure = event.error
            self.abort()

    def _fail(self, error: QtoolsError) -> None:
        if isinstance(error, ProtocolError):
            hint = self.address_.other_port_hint
            if error.looks_like == "HTTP":
                hint = hint or "give nsqd's TCP port, usually 4150"
                error = ProtocolError(f"{self.address} answers HTTP: {hint}", looks_like="HTTP")
            else:
                error = ProtocolError(f"{self.address} does not speak NSQ: {error}" + (f" ({hint})" if hint else ""))
        elif isinstance(error, (NetworkError, PeerError)):
            error.address = self.address
        if isinstance(error, ConnectFailed):
            error.permanent = True
        self.abort(error)

    def _take_output(self) -> bytes:
        return self.session.take_output()

    def _tick(self) -> None:
        """Close the connection if the broker is silent, and send TOUCH for messages that are in flight for long."""
        if self._timer is not None:
            self._timer.cancel()
        now = self._loop.time()
        if self._silence > 2.5 * self._heartbeat and not self._closing:
            # nsqd sends a heartbeat in each interval. After two that are missing, it counts as gone.
            self.abort(ConnectionLost(self.address, f"silent for {self._silence:.0f} s"))
            return
        touch_after = self.agreed.msg_timeout / 1000 / 2
        for ids in self.ledger.take_due(now, touch_after):
            self.session.touch(ids)
        self._flush()
        self._timer = self._loop.call_later(max(0.05, min(self._heartbeat / 2, touch_after / 4)), self._tick)

    def __repr__(self) -> str:
        where = f" {self.topic}/{self.channel}" if self.topic else ""
        state = "" if self.is_open else " closed"
        return f"<Connection {self.address}{where} in_flight={self.in_flight}/{self.ready_count}{state}>"

"""The socket of one client. In: bytes from the socket. Out: one write in each turn of the event loop.

This file knows transforms (TLS, compression), heartbeats, pending output, and how a connection ends. The meaning of the
bytes is known to the TransportClient (contract.py), which is client_connection.py.

A client's cost is bounded. When its socket is full it gets no more messages. When it does not read its responses, the
broker stops reading from it. A client that has read nothing, or sent nothing, for too long is disconnected.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from qtools.broker.core.deadlines import Deadline
from qtools.engines.nsq.protocol.frames import HEARTBEAT, RESPONSE, encode_frame
from qtools.engines.nsq.protocol.transforms import Tls, Transform
from qtools.errors import QtoolsError

if TYPE_CHECKING:
    from qtools.broker.core.broker import Alarm, Broker
    from qtools.broker.tcp.contract import TransportClient

log = logging.getLogger("qtools.broker")

ROOM = 512 * 1024  # bytes of messages that a client gets in one turn of the event loop
HIGH_WATER = 256 * 1024  # bytes that may wait for the socket before the client gets no more messages
RESPONSE_HIGH_WATER = 256 * 1024  # bytes of responses that may wait on top, before the client is no longer read from
LINGER = 1.0  # s that a refused client has to read the reason

_HEARTBEAT = encode_frame(RESPONSE, HEARTBEAT)


class _Disconnected:
    """Takes the place of the client after the connection is lost: the two must not keep each other in memory, as the
    garbage collector does not examine objects that the broker has frozen."""

    def connected(self) -> None: ...
    def disconnected(self) -> None: ...
    def take(self, data: bytes) -> None: ...
    def secured(self) -> None: ...
    def make_room(self, room: int) -> None: ...
    def unsubscribe(self) -> None: ...
    def may_read(self) -> bool:
        return False


_DISCONNECTED = _Disconnected()


class ClientTransport(asyncio.Protocol):
    """The socket of one client. socket: asyncio's transport."""

    socket: asyncio.Transport

    def __init__(self, broker: Broker, client: TransportClient) -> None:
        self.broker = broker
        self.connected = time.time()
        self._client = client
        self.address = self.host = ""
        self.tls: Tls | None = None
        self.compression: Transform | None = None
        self.secure = False  # the TLS handshake is complete
        self.greeted = False  # the client has sent the protocol's magic bytes: heartbeats may be sent
        self.over = False  # the connection ends: input is ignored
        self.interval = self.broker.options.client_timeout / 2  # of heartbeats, seconds; 0: none
        self.out: list[bytes] = []
        self.out_size = 0  # bytes of messages in `out`
        self._flushing = False
        self.is_paused = False  # the broker does not read from the client
        self._full_at = -1  # bytes that waited when the socket became full; -1 while it is not
        self._full_since = 0.0
        self._last_received = self._next_heartbeat = 0.0
        self._alarm: Deadline[Alarm] | None = None

    # ── the socket ──────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.socket = transport  # type: ignore[assignment]  # uvloop's transports are of no class of asyncio's
        if self.broker.stopping:  # accepted while the server was being closed
            self.over = True
            self.socket.abort()
            return
        peer = transport.get_extra_info("peername")
        self.host, self.address = (peer[0], f"{peer[0]}:{peer[1]}") if isinstance(peer, tuple) else ("", "unix")
        self.socket.set_write_buffer_limits(HIGH_WATER)
        self._client.connected()
        self._last_received = self.broker.now()
        self.set_heartbeat(self.interval)
        log.debug("%s connected", self.address)

    def data_received(self, data: bytes) -> None:
        self._last_received = self.broker.now()
        if not self.over:
            self.attempt(self._decompress if self.tls is None else self._decrypt, data)

    def attempt(self, what: Callable[..., None], *arguments: bytes) -> None:
        """Call `what`. An error in the client's bytes ends this connection, and nothing else."""
        try:
            what(*arguments)
        except QtoolsError as error:
            log.info("%s: %s", self.address, error)
            self._write(b"")  # sends the TLS alert
            self.hang_up()
        except Exception as error:
            self.fault(error)

    def fault(self, error: BaseException) -> None:
        """End this connection, and nothing else, after an error in the broker itself."""
        log.error("%s: internal error, connection closed: %s: %s", self.address, type(error).__name__, error)
        log.debug("%s: internal error", self.address, exc_info=error)
        self.over = True
        self._client.unsubscribe()
        self.socket.abort()

    def eof_received(self) -> None:
        self.over = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.over = True
        client, self._client = self._client, _DISCONNECTED
        client.unsubscribe()
        client.disconnected()
        self._disarm()
        self.out.clear()
        log.debug("%s disconnected", self.address)

    @property
    def is_full(self) -> bool:
        """Whether so much waits for the socket that the client gets no more messages."""
        return self._full_at >= 0

    def pause_writing(self) -> None:
        self._full_at = self.socket.get_write_buffer_size()
        self._full_since = self.broker.now()
        self._client.make_room(0)
        self._arm(self._full_since)

    def resume_writing(self) -> None:
        self._full_at = -1
        self.resume_reading()
        self._client.make_room(ROOM - self.out_size)

    def pause_reading(self) -> None:
        """Stop reading from the client, until it has read its responses or may_read allows it."""
        if not self.is_paused:
            self.is_paused = True
            self.socket.pause_reading()

    def resume_reading(self) -> None:
        """Read from the client again, if that is possible now."""
        if self.is_paused and self._full_at < 0 and self._client.may_read() and not self.socket.is_closing():
            self.is_paused = False
            self._last_received = self.broker.now()
            self.socket.resume_reading()

    # ── bytes come ──────────────────────────────────────────────────────────────────────────────

    def _decrypt(self, data: bytes) -> None:
        assert self.tls is not None
        for piece in self.tls.decode(data):
            self._check_handshake()
            self._decompress(piece)
        self._check_handshake()
        if self.tls.has_output:
            self.socket.write(self.tls.take_output())
        if self.tls.finished and not self.over:
            self.hang_up()

    def _check_handshake(self) -> None:
        if self.tls is not None and self.tls.established and not self.secure:
            self.secure = True
            self._client.secured()

    def _decompress(self, data: bytes) -> None:
        if self.compression is None:
            self._client.take(data)
            return
        for piece in self.compression.decode(data):
            if self.over:
                return
            self._client.take(piece)

    def add_transform(self, *, tls: Tls | None = None, compression: Transform | None = None, rest: bytes = b"") -> None:
        """Add a transform. `rest` was received already, and is decoded by it."""
        self.write_out()  # earlier output does not pass through the new transform
        if tls is not None:
            self.tls = tls
            if rest:
                self._decrypt(rest)
        elif compression is not None:
            self.compression = compression
            if rest:
                self._decompress(rest)

    # ── bytes go ────────────────────────────────────────────────────────────────────────────────

    def deliver(self, frames: bytes) -> int:
        """Send messages. Returns how many more bytes the client can take in this turn."""
        self.out.append(frames)
        self.out_size += len(frames)
        self.flush_soon()
        return ROOM - self.out_size

    def flush_soon(self) -> None:
        """Write `out` at the end of this turn."""
        if not self._flushing:
            self._flushing = True
            self.broker.flush_soon(self)

    def flush(self) -> None:
        """Write what was collected in this turn."""
        self._flushing = False
        self.write_out()
        if self._full_at < 0:
            self._client.make_room(ROOM)
        elif self.socket.get_write_buffer_size() > self._full_at + RESPONSE_HIGH_WATER:
            self.pause_reading()

    def write_out(self) -> None:
        """Write `out` now."""
        out = self.out
        if out:
            data = out[0] if len(out) == 1 else b"".join(out)
            out.clear()
            self.out_size = 0
            self._write(data)

    def _write(self, data: bytes) -> None:
        if self.compression is not None:
            data = self.compression.encode(data)
        if self.tls is not None:
            data = self.tls.encode(data)
        if data and not self.socket.is_closing():
            self.socket.write(data)

    def hang_up(self) -> None:
        """Write all pending output, end our side of the connection, and ignore all further input.

        Closing the socket at once would discard what the client has not read yet, if it is still sending. So it gets
        LINGER seconds to read.
        """
        self.over = True
        self._client.unsubscribe()
        self.write_out()
        if self.socket.is_closing():
            return
        if self.tls is not None and (close_notify := self.tls.goodbye()):
            self.socket.write(close_notify)
        if self.is_paused:
            self.is_paused = False
            self.socket.resume_reading()
        try:
            self.socket.write_eof()
        except OSError:  # the client has disconnected, and the event loop has not noticed yet
            self.socket.abort()
            return
        self._disarm()
        self._alarm = self.broker.call_at(self.broker.now() + LINGER, lambda _now: self.socket.abort())

    # ── time passes ─────────────────────────────────────────────────────────────────────────────

    def set_heartbeat(self, interval: float) -> None:
        """Send a heartbeat every `interval` seconds from now on; none with 0."""
        self.interval = interval
        now = self.broker.now()
        self._next_heartbeat = now + interval
        self._arm(now)

    def _disarm(self) -> None:
        if self._alarm is not None:
            self.broker.cancel(self._alarm)
            self._alarm = None

    def _arm(self, now: float) -> None:
        if self.over:
            return
        self._disarm()
        if self.interval:
            limit = self._full_since + self.interval if self._full_at >= 0 else self._last_received + 2 * self.interval
            self._alarm = self.broker.call_at(max(now, min(self._next_heartbeat, limit)), self._tick)

    def _tick(self, now: float) -> None:
        interval = self.interval
        if self._full_at >= 0:
            waits = self.socket.get_write_buffer_size()
            if waits < self._full_at:  # the client reads, if slowly
                self._full_at, self._full_since = waits, now
            elif now - self._full_since >= interval:
                log.info("%s has read nothing for %g s: dropped", self.address, interval)
                self.over = True
                self.socket.abort()
                return
        elif self.is_paused:
            self._last_received = now  # the broker does not read from it
        elif now - self._last_received >= 2 * interval:
            log.info("%s was silent for two heartbeats: dropped", self.address)
            self.over = True
            self.socket.abort()
            return
        if now >= self._next_heartbeat:
            self._next_heartbeat = max(self._next_heartbeat + interval, now)
            if self.greeted and self._full_at < 0 and (self.tls is None or self.secure):
                self.out.append(_HEARTBEAT)
                self.flush_soon()
        self._arm(now)

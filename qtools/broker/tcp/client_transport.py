"""What lies between a client's socket and its commands. In: bytes off the socket. Out: one write a turn.

Filters (TLS, compression), heartbeats, what waits to be written, and how a connection ends. What the bytes
mean is the business of client_connection.py.

What a client may cost is bounded: messages stop when its socket is full, listening stops when it does not
read its answers, and one that has not read anything, or said anything, for too long is dropped.
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
    from qtools.broker.core.broker import Alarm
    from qtools.broker.tcp.tcp_server import TcpServer

log = logging.getLogger("qtools.broker")

ROOM = 512 * 1024  # bytes of messages a client gets in one turn
HIGH_WATER = 256 * 1024  # bytes that may wait for its socket before it gets no more
ANSWERS = 256 * 1024  # bytes of answers that may wait on top, before it is not listened to any more
LINGER = 1.0  # seconds for a refused client to read why

_HEARTBEAT = encode_frame(RESPONSE, HEARTBEAT)


class ClientTransport(asyncio.Protocol):
    """The socket's side of one client. What stands on it takes bytes, makes room for messages, and leaves."""

    transport: asyncio.Transport

    def __init__(self, server: TcpServer) -> None:
        self.server = server
        self.broker = server.broker
        self.connected = time.time()
        self.address = self.host = ""
        self.tls: Tls | None = None
        self.packing: Transform | None = None
        self.secure = False  # TLS is there, and its handshake is over
        self.greeted = False  # it has said which protocol it speaks: heartbeats may come
        self.over = False  # nothing it says counts any more
        self.interval = self.broker.options.client_timeout / 2  # of heartbeats, seconds; 0: none
        self.out: list[bytes] = []
        self.out_size = 0  # bytes of messages in it
        self._flushing = False
        self._deaf = False  # it is not listened to
        self._full_at = -1  # bytes that waited when its socket was full; -1 when it is not
        self._full_since = 0.0
        self._heard = self._beat = 0.0
        self._alarm: Deadline[Alarm] | None = None

    # ── what stands on it ───────────────────────────────────────────────────────────────────────

    def take(self, data: bytes) -> None:
        """Bytes from the client, decrypted and unpacked."""
        raise NotImplementedError

    def secured(self) -> None:
        """The TLS handshake is over."""
        raise NotImplementedError

    def make_room(self, room: int) -> None:
        """The client takes `room` bytes of messages."""
        raise NotImplementedError

    def leave(self) -> None:
        """Give up everything but the socket; may come more than once."""
        raise NotImplementedError

    def may_listen(self) -> bool:
        """Whether nothing above is in the way of listening to the client."""
        raise NotImplementedError

    # ── the socket ──────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's transports are of no class of asyncio's
        if self.broker.stopping:  # accepted in the moment in which the door closed
            self.over = True
            self.transport.abort()
            return
        peer = transport.get_extra_info("peername")
        self.host, self.address = (peer[0], f"{peer[0]}:{peer[1]}") if isinstance(peer, tuple) else ("", "unix")
        self.transport.set_write_buffer_limits(HIGH_WATER)
        self.server.came(self)
        self._heard = self.broker.now()
        self.beat_every(self.interval)
        log.debug("%s connected", self.address)

    def data_received(self, data: bytes) -> None:
        self._heard = self.broker.now()
        if not self.over:
            self.attempt(self._unpack if self.tls is None else self._decrypt, data)

    def attempt(self, what: Callable[..., None], *arguments: bytes) -> None:
        """Do what the client's bytes lead to: what is wrong with them ends this connection, and nothing else."""
        try:
            what(*arguments)
        except QtoolsError as error:
            log.info("%s: %s", self.address, error)
            self._write(b"")  # what TLS has to say about it
            self.hang_up()
        except Exception as error:
            self.fault(error)

    def fault(self, error: BaseException) -> None:
        """A mistake of ours ends this connection, and nothing else."""
        log.error("%s: internal error, connection closed: %s: %s", self.address, type(error).__name__, error)
        log.debug("%s: internal error", self.address, exc_info=error)
        self.over = True
        self.leave()
        self.transport.abort()

    def eof_received(self) -> None:
        self.over = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.over = True
        self.leave()
        self._disarm()
        self.out.clear()
        self.server.gone(self)
        log.debug("%s disconnected", self.address)

    def pause_writing(self) -> None:
        self._full_at = self.transport.get_write_buffer_size()
        self._full_since = self.broker.now()
        self.make_room(0)
        self._arm(self._full_since)

    def resume_writing(self) -> None:
        self._full_at = -1
        self.listen_again()
        self.make_room(ROOM - self.out_size)

    def stop_listening(self) -> None:
        """What the client says may wait until it has read, or until something above is through."""
        if not self._deaf:
            self._deaf = True
            self.transport.pause_reading()

    def listen_again(self) -> None:
        """If nothing is in the way any more."""
        if self._deaf and self._full_at < 0 and self.may_listen() and not self.transport.is_closing():
            self._deaf = False
            self._heard = self.broker.now()
            self.transport.resume_reading()

    # ── bytes come ──────────────────────────────────────────────────────────────────────────────

    def _decrypt(self, data: bytes) -> None:
        assert self.tls is not None
        for piece in self.tls.decode(data):
            self._see_to_tls()
            self._unpack(piece)
        self._see_to_tls()
        if self.tls.has_output:
            self.transport.write(self.tls.take_output())
        if self.tls.finished and not self.over:
            self.hang_up()

    def _see_to_tls(self) -> None:
        if self.tls is not None and self.tls.established and not self.secure:
            self.secure = True
            self.secured()

    def _unpack(self, data: bytes) -> None:
        if self.packing is None:
            self.take(data)
            return
        for piece in self.packing.decode(data):
            if self.over:
                return
            self.take(piece)

    def put_in(self, *, tls: Tls | None = None, packing: Transform | None = None, rest: bytes = b"") -> None:
        """Put the next filter in between; `rest` came already, and goes through it."""
        self.write_out()  # what was said so far goes the way that was agreed on so far
        if tls is not None:
            self.tls = tls
            if rest:
                self._decrypt(rest)
        elif packing is not None:
            self.packing = packing
            if rest:
                self._unpack(rest)

    # ── bytes go ────────────────────────────────────────────────────────────────────────────────

    def deliver(self, frames: bytes) -> int:
        """Messages for this client. Answers how many bytes more it takes in this turn."""
        self.out.append(frames)
        self.out_size += len(frames)
        self.flush_soon()
        return ROOM - self.out_size

    def flush_soon(self) -> None:
        """What is in `out` leaves at the end of this turn."""
        if not self._flushing:
            self._flushing = True
            self.broker.flush_soon(self)

    def flush(self) -> None:
        """Write what has collected in this turn."""
        self._flushing = False
        self.write_out()
        if self._full_at < 0:
            self.make_room(ROOM)
        elif self.transport.get_write_buffer_size() > self._full_at + ANSWERS:
            self.stop_listening()

    def write_out(self) -> None:
        """Write what is in `out` now."""
        out = self.out
        if out:
            data = out[0] if len(out) == 1 else b"".join(out)
            out.clear()
            self.out_size = 0
            self._write(data)

    def _write(self, data: bytes) -> None:
        if self.packing is not None:
            data = self.packing.encode(data)
        if self.tls is not None:
            data = self.tls.encode(data)
        if data and not self.transport.is_closing():
            self.transport.write(data)

    def shut(self) -> None:
        """The channel is gone, or the broker ends."""
        if not self.over:
            self.hang_up()

    def hang_up(self) -> None:
        """Write what there is, say that this is all, and listen to nothing.

        Closing at once would throw away what the client has not read yet, if it is still sending: so it gets
        a moment, in which what it sends is thrown away.
        """
        self.over = True
        self.leave()
        self.write_out()
        if self.transport.is_closing():
            return
        if self.tls is not None and (farewell := self.tls.goodbye()):
            self.transport.write(farewell)
        if self._deaf:
            self._deaf = False
            self.transport.resume_reading()
        try:
            self.transport.write_eof()
        except OSError:  # it has hung up on us, and the loop has not heard of it yet
            self.transport.abort()
            return
        self._disarm()
        self._alarm = self.broker.call_at(self.broker.now() + LINGER, lambda _now: self.transport.abort())

    # ── time passes ─────────────────────────────────────────────────────────────────────────────

    def beat_every(self, interval: float) -> None:
        """A heartbeat every `interval` seconds from now on; never with 0."""
        self.interval = interval
        now = self.broker.now()
        self._beat = now + interval
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
            limit = self._full_since + self.interval if self._full_at >= 0 else self._heard + 2 * self.interval
            self._alarm = self.broker.call_at(max(now, min(self._beat, limit)), self._tick)

    def _tick(self, now: float) -> None:
        interval = self.interval
        if self._full_at >= 0:
            waits = self.transport.get_write_buffer_size()
            if waits < self._full_at:  # it reads, if slowly
                self._full_at, self._full_since = waits, now
            elif now - self._full_since >= interval:
                log.info("%s has read nothing for %g s: dropped", self.address, interval)
                self.over = True
                self.transport.abort()
                return
        elif self._deaf:
            self._heard = now  # it is we who do not listen
        elif now - self._heard >= 2 * interval:
            log.info("%s was silent for two heartbeats: dropped", self.address)
            self.over = True
            self.transport.abort()
            return
        if now >= self._beat:
            self._beat = max(self._beat + interval, now)
            if self.greeted and self._full_at < 0 and (self.tls is None or self.secure):
                self.out.append(_HEARTBEAT)
                self.flush_soon()
        self._arm(now)

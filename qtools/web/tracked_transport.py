"""One client's transport. In: bytes to write. Out: one write a turn; what the client has taken; whether it is dead.

"Taken" is more than handed to the kernel here: the client's own kernel has acknowledged it. What was written to a
client that is gone, or stuck on its way there, is not taken and never will be.

    written = taken + sent and not acknowledged + in the transport's buffer + held here until the turn ends
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import sys
import termios
from typing import Any

# tcp(7), tcp_info: the fields up to tcpi_last_ack_recv (ms since the last acknowledgement came).
_TCP_INFO = struct.Struct("=8B13I")
_STATE, _RETRANSMITS, _PROBES, _LAST_ACK_RECV = 0, 2, 3, 20
# States (RFC 9293, 3.3.2) by Linux' numbers: the client has not ended its side; it has, in order.
_STANDING = frozenset({1, 4, 5})  # ESTABLISHED, FIN-WAIT-1, FIN-WAIT-2
_ENDED = _STANDING | {6, 8, 9, 11}  # TIME-WAIT, CLOSE-WAIT, LAST-ACK, CLOSING
LINGER = 2.0  # s
LINGER_BYTES = 4 * 1024 * 1024
FLUSH_BYTES = 64 * 1024
_SO_NWRITE = 0x1024  # macOS: bytes in the send buffer


class TrackedTransport:
    """A transport that writes once what comes in pieces: uvicorn writes an answer's head and body apart, and a
    small answer costs little but its system calls. All else is the transport's."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.written = 0  # bytes, of all that was handed in here
        self.is_stream = False  # set by an application whose answer has no end: its client may read slowly
        self.streams_body = False  # set by an application that takes a request's body as it comes
        self._transport = transport
        self._loop = loop
        self._out: list[bytes] = []
        self._held = 0  # bytes in `_out`
        self._closing = False
        self._taken = 0
        self._discarded = 0
        made = transport.get_extra_info("socket")
        self._descriptor: int = made.fileno() if made is not None else -1

    def write(self, data: bytes) -> None:
        if self._closing:
            return
        if not self._out:
            self._loop.call_soon(self.flush)
        self._out.append(data)
        self._held += len(data)
        self.written += len(data)
        if self._held >= FLUSH_BYTES:  # only what was handed over can stop a writer that is too fast
            self.flush()

    @property
    def peer(self) -> str:
        """The client's address, for the log."""
        name = self._transport.get_extra_info("peername")
        return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else "on the unix socket"

    @property
    def unsent(self) -> int:
        """Bytes that wait in this process: the client does not read them, or not yet."""
        return self._held + _buffered(self._transport)

    def write_whole(self, data: bytes) -> None:
        """An answer of which nothing more will come."""
        if not self.is_closing():
            self.flush()
            self.written += len(data)
            self._transport.write(data)

    def flush(self) -> None:
        """Hand over what is held, before the turn ends."""
        if self._out:
            data = b"".join(self._out)
            self._out.clear()
            self._held = 0
            if not self._transport.is_closing():
                self._transport.write(data)

    def close(self) -> None:
        """Hang up once all was written, and the client has hung up or LINGER has passed.

        A socket closed with unread bytes in it resets the connection, and takes with it the answer that says why.
        """
        if self._closing:
            return
        self.flush()
        self._closing = True
        if self._transport.is_closing():
            return
        if not self._transport.can_write_eof():  # TLS
            self._transport.close()
            return
        self._transport.resume_reading()
        try:
            self._transport.write_eof()
        except OSError:  # the client is gone, and the loop does not know yet
            self._transport.abort()
            return
        self._loop.call_later(LINGER, self._transport.abort)

    def discard(self, size: int) -> None:
        """`size` bytes more came of a client that was hung up on: there is an end to that too."""
        self._discarded += size
        if self._discarded > LINGER_BYTES:
            self._transport.abort()

    def abort(self) -> None:
        self._closing = True
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._closing or self._transport.is_closing()

    @property
    def is_closed(self) -> bool:
        """Whether `taken` stays what it is. One that lingers after `close` is closing, not yet closed."""
        return self._transport.is_closing()

    @property
    def taken(self) -> int:
        """How many of the `written` bytes the client's side has acknowledged, at least.

        With TLS there are more bytes on the wire than were written here, so this is then an underestimate. Once the
        connection is over it stays what it was, as far as that was seen while it stood.
        """
        self._look(_STANDING)
        return self._taken

    def note_end(self) -> None:
        """The client has ended its side, in order: who resets a connection, or leaves bytes unread, does not. So what
        it has acknowledged by now it has read."""
        self._look(_ENDED)

    def _look(self, states: frozenset[int]) -> None:
        if not self._transport.is_closing():
            acknowledged = self._acknowledged()
            told = _tcp_info(self._descriptor)  # afterwards: a reset between the two makes the first worthless
            if told is None or told[_STATE] in states:
                self._taken = acknowledged

    def _acknowledged(self) -> int:
        return max(0, self.written - self.unsent - _unacknowledged(self._descriptor))

    def is_dead(self, seconds: float) -> bool:
        """Whether the subscriber at the other end is gone: it has ended its side, or what was sent is not acknowledged
        although it was sent again, and nothing came back for so long.

        An end is usually noticed by reading; the transport does not read while further requests wait behind a stream.
        A client that merely reads slowly is alive: its side answers every probe. Where the system does not tell, False.
        """
        told = _tcp_info(self._descriptor)
        if told is None:
            return False
        if told[_STATE] not in _STANDING:
            return True
        return bool(told[_RETRANSMITS] or told[_PROBES]) and told[_LAST_ACK_RECV] > seconds * 1000

    def keep_alive(self, seconds: float) -> None:
        """Let the kernel ask an idle client every `seconds` whether it is there: a heartbeat that is in no data."""
        made = self._transport.get_extra_info("socket")
        with contextlib.suppress(OSError, AttributeError):  # a unix socket has none, and needs none
            made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, int(seconds)))
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, int(seconds / 3)))
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def _buffered(transport: asyncio.Transport) -> int:
    """Bytes that wait for the kernel; with TLS beneath the encryption too."""
    size = transport.get_write_buffer_size()
    below = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)  # asyncio's; see http_server.py
    return size + (below.get_write_buffer_size() if below is not None else 0)


def _unacknowledged(descriptor: int) -> int:
    """Bytes of a socket that the kernel has and the other side's has not acknowledged (SIOCOUTQ, tcp(7))."""
    try:
        if sys.platform == "darwin":
            made = socket.socket(fileno=descriptor)
            try:
                return made.getsockopt(socket.SOL_SOCKET, _SO_NWRITE)
            finally:
                made.detach()
        return int(struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, b"\0\0\0\0"))[0])
    except OSError:
        return sys.maxsize  # a socket that cannot tell is not one that a client takes from


def _tcp_info(descriptor: int) -> tuple[int, ...] | None:
    if not hasattr(socket, "TCP_INFO") or sys.platform != "linux":
        return None
    try:
        made = socket.socket(fileno=descriptor)
    except OSError:
        return None
    try:
        told: tuple[int, ...] = _TCP_INFO.unpack(made.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size))
        return told
    except (OSError, struct.error):
        return None
    finally:
        made.detach()

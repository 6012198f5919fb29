"""The transport of one client. In: bytes to write. Out: one write in each turn of the event loop; how many bytes the
client has taken; whether the client is dead.

"Taken" means that the client's own kernel has acknowledged the bytes. Bytes that were written to a client that is gone,
or that are stuck on the way, are not taken and never will be.

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
# States (RFC 9293, 3.3.2) by their numbers in Linux: the client has not ended its side; it has ended it in order.
_STANDING = frozenset({1, 4, 5})  # ESTABLISHED, FIN-WAIT-1, FIN-WAIT-2
_ENDED = _STANDING | {6, 8, 9, 11}  # TIME-WAIT, CLOSE-WAIT, LAST-ACK, CLOSING
LINGER = 2.0  # s
LINGER_BYTES = 4 * 1024 * 1024
FLUSH_BYTES = 64 * 1024
_SO_NWRITE = 0x1024  # macOS: bytes in the send buffer


class TrackedTransport:
    """A transport that joins small writes: uvicorn writes the head and the body of a response separately, and system
    calls are most of the cost of a small response. All other attributes are those of the transport."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.written = 0  # bytes that were ever passed to `write` and `write_whole`
        self.is_stream = False  # set by an application for an endless response: its client may read slowly
        self.streams_body = False  # set by an application that receives a body as it arrives
        self._transport = transport
        self._loop = loop
        self._out: list[bytes] = []
        self._held = 0  # bytes in `_out`
        self._closing = False
        self._taken = 0
        self._discarded = 0
        connection = transport.get_extra_info("socket")
        self._descriptor: int = connection.fileno() if connection is not None else -1

    def write(self, data: bytes) -> None:
        if self._closing:
            return
        if not self._out:
            self._loop.call_soon(self.flush)
        self._out.append(data)
        self._held += len(data)
        self.written += len(data)
        # the transport slows down a writer that is too fast, but only for bytes that it has
        if self._held >= FLUSH_BYTES:
            self.flush()

    @property
    def peer(self) -> str:
        """The client's address, for the log."""
        name = self._transport.get_extra_info("peername")
        return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else "on the unix socket"

    @property
    def unsent(self) -> int:
        """Bytes that wait in this process, because the client has not read them."""
        return self._held + _buffered(self._transport)

    def write_whole(self, data: bytes) -> None:
        """Write a complete response."""
        if not self.is_closing():
            self.flush()
            self.written += len(data)
            self._transport.write(data)

    def flush(self) -> None:
        """Pass what is held here to the transport now."""
        if self._out:
            data = b"".join(self._out)
            self._out.clear()
            self._held = 0
            if not self._transport.is_closing():
                self._transport.write(data)

    def close(self) -> None:
        """Close the connection once all bytes are written, and the client has closed it too or LINGER seconds have
        passed.

        Closing a socket with unread bytes resets the connection, and the client may lose the response that it has not
        read.
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
        except OSError:  # the client has disconnected, and the event loop has not noticed yet
            self._transport.abort()
            return
        self._loop.call_later(LINGER, self._transport.abort)

    def discard(self, size: int) -> None:
        """Count `size` more bytes from a client whose connection is being closed; abort it after LINGER_BYTES."""
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
        """Whether `taken` is final. After `close`, a transport is closing for up to LINGER seconds before it is
        closed."""
        return self._transport.is_closing()

    @property
    def taken(self) -> int:
        """How many of the `written` bytes the client's kernel has acknowledged, at least.

        With TLS there are more bytes on the wire than were written here, so this underestimates. After the end of the
        connection it keeps the last value that was seen.
        """
        self._look(_STANDING)
        return self._taken

    def note_end(self) -> None:
        """Note that the client has ended its side in order. A client that resets the connection or leaves bytes unread
        does not do that, so it has read all bytes that are acknowledged by now."""
        self._look(_ENDED)

    def _look(self, states: frozenset[int]) -> None:
        if not self._transport.is_closing():
            acknowledged = self._acknowledged()
            info = _tcp_info(self._descriptor)  # read second: after a reset between the two, the first is not valid
            if info is None or info[_STATE] in states:
                self._taken = acknowledged

    def _acknowledged(self) -> int:
        return max(0, self.written - self.unsent - _unacknowledged(self._descriptor))

    def is_dead(self, seconds: float) -> bool:
        """Whether the subscriber is gone: it has ended its side, or bytes that were sent again are still not
        acknowledged and nothing was received from it for `seconds`.

        The end of the client's side is usually noticed by reading, but the transport does not read while requests wait
        behind a stream. A client that reads slowly is alive: its kernel answers every probe. Returns False where the
        system does not provide the information.
        """
        info = _tcp_info(self._descriptor)
        if info is None:
            return False
        if info[_STATE] not in _STANDING:
            return True
        return bool(info[_RETRANSMITS] or info[_PROBES]) and info[_LAST_ACK_RECV] > seconds * 1000

    def keep_alive(self, seconds: float) -> None:
        """Let the kernel probe an idle client every `seconds`: a heartbeat that does not appear in the data."""
        connection = self._transport.get_extra_info("socket")
        with contextlib.suppress(OSError, AttributeError):  # a unix socket has none, and needs none
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, int(seconds)))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, int(seconds / 3)))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def _buffered(transport: asyncio.Transport) -> int:
    """Bytes that wait for the kernel; with TLS also the encrypted ones."""
    size = transport.get_write_buffer_size()
    below = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)  # asyncio's; see http_server.py
    return size + (below.get_write_buffer_size() if below is not None else 0)


def _unacknowledged(descriptor: int) -> int:
    """Bytes that the kernel has, and that the client's kernel has not acknowledged (SIOCOUTQ, tcp(7))."""
    try:
        if sys.platform == "darwin":
            connection = socket.socket(fileno=descriptor)
            try:
                return connection.getsockopt(socket.SOL_SOCKET, _SO_NWRITE)
            finally:
                connection.detach()
        return int(struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, b"\0\0\0\0"))[0])
    except OSError:
        return sys.maxsize  # the socket is closed: nothing more can be taken


def _tcp_info(descriptor: int) -> tuple[int, ...] | None:
    if not hasattr(socket, "TCP_INFO") or sys.platform != "linux":
        return None
    try:
        connection = socket.socket(fileno=descriptor)
    except OSError:
        return None
    try:
        info: tuple[int, ...] = _TCP_INFO.unpack(
            connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        )
        return info
    except (OSError, struct.error):
        return None
    finally:
        connection.detach()

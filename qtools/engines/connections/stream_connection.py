"""A connection over a stream socket. In: bytes from the peer, for the subclass. Out: what the subclass has to send.

    socket ─▶ data_received (the subclass) ─▶ a protocol core
    a protocol core ─▶ _take_output (the subclass) ─▶ one write for each turn of the event loop ─▶ socket

All that is sent within one turn leaves in one write. The subclass implements `data_received` itself, so that no call is
between the socket and its parser.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar, cast

from qtools.errors import ConnectionLost, QtoolsError

# s that the peer may take to read the last bytes and to close; after that the connection is aborted.
LINGER = 3.0
# Bytes that wait to be written to a socket; with more than that, a publisher does not use the connection.
HIGH_WATER = 1024 * 1024

Agreed = TypeVar("Agreed")


class StreamConnection(asyncio.Protocol, Generic[Agreed]):
    """A connection to a peer. Agreed: what `wait_established` returns, the result of the handshake.

    lost: completes when the socket is closed, with the error that ended it, or with None if this side closed it.
    on_writable: called when the socket accepts bytes again.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[QtoolsError | None] = self._loop.create_future()
        self.on_writable: Callable[[], None] | None = None
        self._established: asyncio.Future[Agreed] = self._loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._flush_due = False
        self._is_writable = True
        self._unflushed = 0  # bytes of publishes that leave with the next write
        self._failure: QtoolsError | None = None
        self._closing = False
        self._eof_written = False
        self._last_received = self._loop.time()

    # ── what a subclass implements ──

    @property
    def address(self) -> str:
        """The peer's address, with which errors begin."""
        raise NotImplementedError

    def _on_connected(self) -> None:
        """The socket is connected: begin the handshake."""

    def _on_lost(self, error: QtoolsError | None, reason: str) -> None:
        """The socket is closed. error: as `lost`. reason: why, in words, also when this side closed it."""

    def _take_output(self) -> bytes:
        """The bytes to be sent; they are taken once."""
        raise NotImplementedError

    # ── what others call ──

    async def wait_established(self) -> Agreed:
        """Wait for the end of the handshake. Raises what ended the connection before."""
        return await self._established

    @property
    def is_open(self) -> bool:
        return not self.lost.done() and not self._closing

    @property
    def is_writable(self) -> bool:
        """Whether the socket accepts more bytes; if not, the publisher waits, so that it does not fill its memory."""
        return self._is_writable and self._unflushed < HIGH_WATER

    async def close(self) -> None:
        """Close in order: what was sent reaches the peer."""
        await self._end_stream()

    def abort(self, error: QtoolsError | None = None) -> None:
        """Close at once; `lost` completes with `error`, or with the first error that was passed."""
        self._failure = self._failure or error
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    # ── asyncio.Protocol ──

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are of no such class, but do the same
        self._transport.set_write_buffer_limits(high=HIGH_WATER)
        self._on_connected()

    def eof_received(self) -> None:
        return None  # the transport closes our side too

    def pause_writing(self) -> None:
        self._is_writable = False

    def resume_writing(self) -> None:
        self._is_writable = True
        if self.on_writable is not None:
            self.on_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_writable = True
        error, reason = self._failure, _lost_reason(exc)
        if error is None and not self._closing:
            error = ConnectionLost(self.address, reason)
        if not self._established.done():
            self._established.set_exception(error or ConnectionLost(self.address, "closed before the handshake ended"))
            self._established.exception()
        self._on_lost(error, reason)
        if not self.lost.done():
            self.lost.set_result(error)

    # ── for subclasses ──

    @property
    def _is_shut(self) -> bool:
        """Whether bytes that are written now can no longer reach the peer."""
        return self.lost.done() or self._transport is None or self._transport.is_closing() or self._eof_written

    @property
    def _silence(self) -> float:
        """s since `_last_received`, which `data_received` sets."""
        return self._loop.time() - self._last_received

    def _flush_soon(self) -> None:
        """Send what there is at the end of this turn of the event loop."""
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        if self._is_shut or self._transport is None:
            return
        data = self._take_output()
        if data:
            self._transport.write(data)
            if self._unflushed >= HIGH_WATER and self._is_writable and self.on_writable is not None:
                self._loop.call_soon(self.on_writable)
            self._unflushed = 0

    async def _end_stream(self) -> None:
        """Send what there is, end our side, and wait until the peer has read all and closes its side.

        Nothing else proves that it has read the last bytes: if a socket is closed while it holds unread bytes, the
        system resets the connection, and what was on its way is lost.
        """
        self._closing = True
        self._flush()
        if self._transport is not None and not self.lost.done() and not self._transport.is_closing():
            self._eof_written = True
            if self._transport.can_write_eof():
                self._transport.write_eof()
            await asyncio.wait([self.lost], timeout=LINGER)
            self._transport.abort()


def _lost_reason(exc: BaseException | None) -> str:
    if exc is None:
        return "the broker closed the connection"
    return exc.strerror or str(exc) if isinstance(exc, OSError) else str(exc)

"""One WebSocket client: uvicorn's protocol class, with deadlines. In: a handshake, bytes. Out: frames.

    state                                   ends within                            by
    handshake not yet accepted or refused   HttpLimits.request                     `deadline`, checked by the server
    open, the client's kernel is silent     some three heartbeats                  send_keepalive_ping
    closing, the client does not answer     CLOSE_SECONDS, then the transport's LINGER  uvicorn's close timer

The websockets library gets only the headers that belong to a handshake. It has its own limits for the head of a request
(8 KiB a line, 128 headers). They must not apply to cookies and long queries, for which HttpLimits.head is the only
limit, as for any other request.

A slow client answers a ping only after it has read everything that was sent before it. So the client's kernel decides
whether it is alive, as for HTTP streams (TrackedTransport.is_dead). Pings keep proxies from closing idle connections.

The class overrides methods of uvicorn that are not public: http_connection.py says why, and what guards that.
"""

from __future__ import annotations

import logging
import urllib.parse
from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from qtools.web.fast_path import HEAD_TOO_BIG, INVALID_REQUEST, closing_answer
from qtools.web.request_body import Headers
from qtools.web.tracked_transport import TrackedTransport

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

log = logging.getLogger("qtools.web")

FOREVER = float("inf")
# Limits of the headers of a handshake, within the limits of the library, which sends no response beyond them.
MOST_LINES = 32
LONGEST_LINE = 4096  # bytes
SLICE = 4096  # bytes that are parsed at a time
MOST_CONTROL_FRAMES = 100  # pings and pongs in a second; ordinary clients send one in some seconds
MOST_FRAGMENTS = 1000  # of a message
CLOSE_SECONDS = 5.0  # for the client's answer to our Close frame (RFC 6455, 7.1.1)
_HANDSHAKE = frozenset({b"connection", b"upgrade"})
_TOO_SLOW = closing_answer(503, "HANDSHAKE_TIMEOUT", (b"retry-after", b"1"))


class WebSocket(WebSocketsSansIOProtocol):
    """`deadline` is the loop time by which the handshake has to be over."""

    deadline = FOREVER
    write_deadline = FOREVER  # a subscriber may read as slowly as it likes
    transport: TrackedTransport  # type: ignore[assignment]  # it has all methods of a transport

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any]) -> None:
        super().__init__(config, server_state, app_state)
        self.close_timeout = CLOSE_SECONDS
        self._headers: list[tuple[bytes, bytes]] = []
        self._target = b""
        self._unparsed = b""
        self._will_parse = False
        self._pong = b""  # to be sent when the client reads on
        self._control_frames = 0  # since `_control_frames_since`, a loop time
        self._control_frames_since = 0.0

    def begin(self, tracked: TrackedTransport, target: bytes, headers: Headers, seconds: float) -> None:
        """Take over `tracked` after a GET for `target` that asks for a WebSocket. The application has `seconds` to
        accept or refuse it. A request that is no valid handshake is refused here."""
        self._headers, self._target = list(headers), target
        self.deadline = self.loop.time() + seconds
        self.connection_made(tracked)  # type: ignore[arg-type]
        kept = [pair for pair in headers if pair[0] in _HANDSHAKE or pair[0].startswith(b"sec-websocket-")]
        if len(kept) > MOST_LINES or any(len(value) > LONGEST_LINE for _, value in kept):
            self._end(HEAD_TOO_BIG)
            return
        self.data_received(b"GET / HTTP/1.1\r\n%b\r\n" % b"".join(b"%b: %b\r\n" % pair for pair in kept))
        if not self.handshake_initiated:  # the library could not parse it, and sends no response
            self._end(INVALID_REQUEST)

    def _end(self, answer: bytes) -> None:
        self.deadline = FOREVER
        self.disconnected = True  # ignores what the application sends from now on
        self.transport.write(answer)
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            self.transport.discard(len(data))
            return
        self._unparsed += data
        self._parse()

    def _parse(self) -> None:
        """Parse at most SLICE bytes in a turn of the event loop, and nothing while a message waits for the application.

        The library makes an object of each frame in the bytes that it gets. For a megabyte of pings, that takes a
        hundred megabytes, and seconds in which no other client is served.
        """
        if self._unparsed and self.queue.empty() and not self.transport.is_closing():
            piece, self._unparsed = self._unparsed[:SLICE], self._unparsed[SLICE:]
            super().data_received(piece)
        if self.transport.is_closing():
            self._unparsed = b""
        elif self._unparsed:
            self.transport.pause_reading()
            if self.queue.empty():
                self._parse_soon()
        elif not self.read_paused:
            self.transport.resume_reading()

    def _parse_soon(self) -> None:
        if not self._will_parse:
            self._will_parse = True
            self.loop.call_soon(self._parse_next)

    def _parse_next(self) -> None:
        self._will_parse = False
        self._parse()

    async def receive(self) -> Any:
        event = await super().receive()
        if self._unparsed:
            self.transport.pause_reading()
            self._parse_soon()
        return event

    @property
    def unanswered_bytes(self) -> int:
        """Bytes that the client has sent and the application has not received."""
        return len(self._unparsed) + sum(map(len, self.frames))

    # ── floods ──

    def handle_ping(self) -> None:
        """Send a pong. While the client does not read, only the newest ping is answered (RFC 6455, 5.5.3)."""
        pong = b"".join(self.conn.data_to_send())
        if self._is_flood():
            return
        if self.writable.is_set():
            self.transport.write(pong)
        else:
            self._pong = pong

    def handle_pong(self, event: Any) -> None:
        if not self._is_flood():
            super().handle_pong(event)

    def handle_cont(self, event: Any) -> None:
        """Limit the fragments of a message too, as they may be empty: the library limits its bytes only."""
        if len(self.frames) >= MOST_FRAGMENTS:
            self._end_violation(1009)
        else:
            super().handle_cont(event)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._pong and not self.transport.is_closing():
            self.transport.write(self._pong)
        self._pong = b""

    def _is_flood(self) -> bool:
        """Count a control frame; end the connection of a client that sends too many of them."""
        now = self.loop.time()
        if now - self._control_frames_since >= 1.0:
            self._control_frames_since, self._control_frames = now, 0
        self._control_frames += 1
        if self._control_frames > MOST_CONTROL_FRAMES:
            self._end_violation(1008)
            return True
        return False

    def _end_violation(self, code: int) -> None:
        """Close with `code` (RFC 6455, 7.4.1), and ignore all further input."""
        self._unparsed = b""
        if self.transport.is_closing():
            return
        log.warning("closed the WebSocket of %s: it sent too many control frames or fragments", self.transport.peer)
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code})
        self.conn.send_close(code)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = self.disconnected = True
        self.transport.close()

    def eof_received(self) -> None:
        self.transport.note_end()

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if self.response.status_code != 101:
            return
        url = httptools.parse_url(self._target)
        path = url.path.decode("ascii")
        self.scope["headers"] = self._headers
        self.scope["raw_path"] = url.path
        self.scope["path"] = urllib.parse.unquote(path)
        self.scope["query_string"] = url.query or b""
        self.scope["tracked"] = self.transport  # type: ignore[typeddict-unknown-key]

    # ── heartbeats ──

    def start_keepalive(self) -> None:
        if self.ping_interval:
            self.transport.keep_alive(self.ping_interval)
        super().start_keepalive()

    def schedule_ping(self) -> None:
        """Schedule the next ping. uvicorn subtracts the last round trip, which is longer than the interval for a slow
        client."""
        assert self.ping_interval is not None
        self.ping_timer = self.loop.call_later(self.ping_interval, self.send_keepalive_ping)

    def send_keepalive_ping(self) -> None:
        """Ping the client, unless it has not answered the last ping yet. Abort the connection of a dead client."""
        self.ping_timer = None
        assert self.ping_interval is not None
        if self.transport.is_dead(2 * self.ping_interval):
            log.info("a WebSocket client does not acknowledge anything any more")
            self.transport.abort()
        elif self.pending_ping_payload is None:
            super().send_keepalive_ping()
        else:
            self.schedule_ping()

    async def send(self, message: Any) -> None:
        await super().send(message)
        if self.handshake_complete:
            self.deadline = FOREVER

    def too_slow(self) -> None:
        """Refuse the handshake, because the application has neither accepted nor refused it by the deadline."""
        self.deadline = FOREVER
        if not self.handshake_complete and not self.transport.is_closing():
            self.queue.put_nowait({"type": "websocket.disconnect", "code": 1006})
            self._end(_TOO_SLOW)

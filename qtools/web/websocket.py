"""One WebSocket client: uvicorn's protocol class on our Wire, with deadlines. In: a handshake, bytes. Out: frames.

    state                                   ends within                            by
    handshake not yet accepted or refused   Limits.request                         deadline, looked at by the door
    open, the client's kernel is silent     some three heartbeats                  send_keepalive_ping
    closing, the client does not answer     CLOSE_SECONDS, then the Wire's LINGER  uvicorn's close timer

The library parses only what makes up a handshake. The limits that it has for a request's head (8 KiB a line, 128
headers) are not ours: cookies and a long query are refused by Limits.head alone, as for any other request.

A slow client answers a ping only after it has read everything that was sent before. So whether a client lives is asked
of its kernel, as with HTTP streams (Wire.is_dead); a ping keeps proxies from closing an idle connection.
"""

from __future__ import annotations

import logging
import urllib.parse
from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from qtools.web.bodies import Headers
from qtools.web.short import HEAD_TOO_BIG, INVALID_REQUEST, closing_answer
from qtools.web.wire import Wire

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

log = logging.getLogger("qtools.web")

FOREVER = float("inf")
# Of what makes up a handshake: within the library's own limits, beyond which it would not answer.
MOST_LINES = 32
LONGEST_LINE = 4096  # bytes
CLOSE_SECONDS = 5.0  # for the client's answer to our Close frame (RFC 6455, 7.1.1)
_HANDSHAKE = frozenset({b"connection", b"upgrade"})
_TOO_SLOW = closing_answer(503, "HANDSHAKE_TIMEOUT", (b"retry-after", b"1"))


class WebSocket(WebSocketsSansIOProtocol):
    """`deadline` is the loop time by which the handshake has to be over."""

    deadline = FOREVER
    write_deadline = FOREVER  # a subscriber may read as slowly as it likes
    transport: Wire  # type: ignore[assignment]  # a transport in all but name

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any]) -> None:
        super().__init__(config, server_state, app_state)
        self.close_timeout = CLOSE_SECONDS
        self._headers: list[tuple[bytes, bytes]] = []
        self._target = b""

    def begin(self, wire: Wire, target: bytes, headers: Headers, seconds: float) -> None:
        """Take `wire` over after the head of a GET for `target` asked for a WebSocket. The application has `seconds`
        to accept or refuse it; what is no handshake is answered here."""
        self._headers, self._target = list(headers), target
        self.deadline = self.loop.time() + seconds
        self.connection_made(wire)  # type: ignore[arg-type]
        kept = [pair for pair in headers if pair[0] in _HANDSHAKE or pair[0].startswith(b"sec-websocket-")]
        if len(kept) > MOST_LINES or any(len(value) > LONGEST_LINE for _, value in kept):
            self._end(HEAD_TOO_BIG)
            return
        self.data_received(b"GET / HTTP/1.1\r\n%b\r\n" % b"".join(b"%b: %b\r\n" % pair for pair in kept))
        if not self.handshake_initiated:  # the library has not understood it, and says nothing
            self._end(INVALID_REQUEST)

    def _end(self, answer: bytes) -> None:
        self.deadline = FOREVER
        self.disconnected = True  # what the application sends from now on comes too late
        self.transport.write(answer)
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            self.transport.discard(len(data))
        else:
            super().data_received(data)

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
        self.scope["wire"] = self.transport  # type: ignore[typeddict-unknown-key]

    # ── whether the client is there ──

    def start_keepalive(self) -> None:
        if self.ping_interval:
            self.transport.keep_alive(self.ping_interval)
        super().start_keepalive()

    def schedule_ping(self) -> None:
        """uvicorn subtracts the last round trip, which with a slow client is longer than the interval."""
        assert self.ping_interval is not None
        self.ping_timer = self.loop.call_later(self.ping_interval, self.send_keepalive_ping)

    def send_keepalive_ping(self) -> None:
        """Ping the client, unless it has not come to the last ping yet; abort the connection of a dead one."""
        self.ping_timer = None
        assert self.ping_interval is not None
        if self.transport.is_dead(2 * self.ping_interval):
            log.info("a WebSocket client answers nothing any more")
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
        """The deadline has passed: the application has neither accepted nor refused the handshake."""
        self.deadline = FOREVER
        if not self.handshake_complete and not self.transport.is_closing():
            self.queue.put_nowait({"type": "websocket.disconnect", "code": 1006})
            self._end(_TOO_SLOW)

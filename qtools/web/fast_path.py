"""The fast path: a small POST request of announced length, answered by a plain function instead of an ASGI application.
In: heads and bodies from the parser. Out: one call of a handler for each request, and the bytes of its response.

An ASGI application costs a task, a dozen dicts and several turns of the event loop for each request. For a small
message that is far more than all other work. So the most frequent requests do without; all others go to the
application.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from http import HTTPStatus

from qtools.web.request_body import Headers
from qtools.web.tracked_transport import TrackedTransport

MOST = 64 * 1024  # bytes of a body, which is collected whole

Answer = Callable[[bytes], None]  # to be called once, now or later, with a response made by `whole`
Handler = Callable[[bytes, Answer], None]  # (body, answer); it raises nothing
# (path and query, headers, bytes of the body, whether it came over TLS) of a POST; None: the application answers it
FindHandler = Callable[[bytes, Headers, int, bool], Handler | None]

_PLAIN_PUB = re.compile(rb"/pub\?topic=([.a-zA-Z0-9_-]{1,64})")
_UNUSUAL = frozenset({b"content-encoding", b"expect", b"transfer-encoding", b"upgrade"})


def plain_pub(target: bytes) -> str | None:
    """The topic, if `target` is `/pub?topic=NAME` and nothing else; None otherwise."""
    found = _PLAIN_PUB.fullmatch(target)
    return None if found is None else found[1].decode()


def whole(status: int, headers: Headers, body: bytes) -> bytes:
    """A response: head and body."""
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    return b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (status, HTTPStatus(status).phrase.encode(), lines, body)


def closing_answer(status: int, word: str, *more: tuple[bytes, bytes]) -> bytes:
    """The last response of a connection. word: an error code, as nsqd has them."""
    body = f'{{"message":"{word}"}}'.encode()
    kind, length = (b"content-type", b"application/json; charset=utf-8"), (b"content-length", b"%d" % len(body))
    return whole(status, (kind, length, *more, (b"connection", b"close")), body)


HEAD_TOO_BIG = closing_answer(431, "HEAD_TOO_BIG")
INVALID_REQUEST = closing_answer(400, "INVALID_REQUEST")


def length_of(headers: Headers) -> int:
    """Bytes of the body that `headers` announce; 0 when the application has to answer the request."""
    length = 0
    for name, value in headers:
        if name == b"content-length":
            length = int(value) if value.isdigit() and len(value) < 8 else 0
        elif name in _UNUSUAL:
            return 0
    return length if length <= MOST else 0


class FastPathRequest:
    """One request and its response. For uvicorn it stands in for a RequestResponseCycle, and for its message_event."""

    __slots__ = (
        "_handler", "_on_response", "_tracked", "body", "disconnected", "keep_alive", "more_body", "over",
        "response_complete",
    )  # fmt: skip

    response_started = False  # head and body come in one piece

    def __init__(self, handler: Handler, tracked: TrackedTransport, on_response: Callable[[], None]) -> None:
        self._handler: Handler | None = handler
        self._tracked = tracked
        self._on_response = on_response
        self.body = b""
        self.more_body = True
        self.disconnected = False
        self.keep_alive = True
        self.response_complete = False
        self.over: asyncio.Future[None] | None = None  # set by a caller that waits for the end

    @property
    def message_event(self) -> FastPathRequest:
        return self

    def set(self) -> None:
        """Input has arrived, or the client has disconnected. uvicorn also calls this for a client that disconnects
        after the response."""
        if self.disconnected:
            self._end()
        elif not self.more_body and self._handler is not None:
            handler, self._handler = self._handler, None
            handler(self.body, self._answer)

    def _answer(self, answer: bytes) -> None:
        if self.disconnected:
            return
        self.response_complete = True
        if self.keep_alive:
            self._tracked.write_whole(answer)
        else:
            self._tracked.write_whole(answer.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1))
            self._tracked.close()
        self._end()
        self._on_response()

    def _end(self) -> None:
        if self.over is not None and not self.over.done():
            self.over.set_result(None)

"""One HTTP client: uvicorn's protocol class, with limits. In: bytes. Out: requests to an application, error responses.

Responses keep the order of the requests, whatever comes after them: garbage, an end, or too many requests.

HttpConnection overrides methods of uvicorn that are not public, and websocket.py does too. The alternative is a
protocol class of our own on httptools: some five hundred lines more, which would also have to follow each change of
HTTP and ASGI. For now it costs less to cap uvicorn's version in pyproject.toml and to test the seam:
tests/web/test_uvicorn_seam.py lists each name of uvicorn that this folder relies on, and says what has changed. Raise
the cap only after that test and all of tests/web, tests/broker and tests/pubsub_http have passed with the new version.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sized
from functools import partial
from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from qtools.web.fast_path import HEAD_TOO_BIG, INVALID_REQUEST, FastPathRequest, closing_answer, length_of
from qtools.web.framing import (
    UNSUPPORTED_CODING,
    answer_without_chunks,
    framing_refusal,
    has_other_coding,
    head_without_upgrade,
)
from qtools.web.host_header import is_good_host
from qtools.web.tracked_transport import TrackedTransport

if TYPE_CHECKING:
    from qtools.web.contract import HttpConnectionServer
    from qtools.web.websocket import WebSocket

FOREVER = float("inf")
QUEUED = 1000  # requests of one client that may wait for the responses to those before
STREAMED = 1024 * 1024  # bytes of an endless body that are in memory at once: httptools' buffer, messages, batches
SLOWEST = 10_000  # bytes/s: a body whose length was announced may not arrive slower


def _is_post(cycle: RequestResponseCycle | FastPathRequest) -> bool:
    return isinstance(cycle, FastPathRequest) or cycle.scope["method"] == "POST"


_TOO_SLOW = closing_answer(408, "REQUEST_TIMEOUT")
_OUT_OF_MEMORY = closing_answer(503, "OUT_OF_MEMORY", (b"retry-after", b"1"))
_TOO_MANY = closing_answer(503, "TOO_MANY_CONNECTIONS", (b"retry-after", b"1"))


class _Flow(FlowControl):
    """uvicorn's flow control, except that reading is not resumed while requests wait for those before them. Each
    response would otherwise let in as many requests as fit into one read."""

    def __init__(self, transport: asyncio.Transport, pipeline: Sized) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        if not self._pipeline:
            super().resume_reading()


class HttpConnection(HttpToolsProtocol):
    """uvicorn's protocol class, with limits. deadline: the loop time by which the expected input must have arrived;
    write_deadline: the loop time by which the client must have read on."""

    tracked: TrackedTransport
    deadline = FOREVER
    write_deadline = FOREVER
    # the request that is being answered; `cycle` is the newest
    _current: RequestResponseCycle | FastPathRequest | None = None
    _ignores_input = False  # after an error, all further input is ignored
    _unparsed = 0  # bytes since the parser last produced something
    _body = 0  # bytes of request bodies that the application has not received
    _fed = 0  # bytes of the chunk that is being parsed
    _trailers = 0  # bytes of the trailers of the request whose body is being received
    _in_head = False  # a request has begun, and its head is not complete
    _extends = False  # whether each piece of the body extends the deadline

    def __init__(self, server: HttpConnectionServer) -> None:
        super().__init__(server.config, server.state, {}, server.loop)
        self._server = server
        self._limits = server.limits

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.tracked = TrackedTransport(transport, self.loop)
        super().connection_made(self.tracked)  # type: ignore[arg-type]  # a transport in all but name
        self.flow = _Flow(self.tracked, self.pipeline)  # type: ignore[arg-type]
        self._wait(self._limits.request)
        self._server.watch()
        most = self._limits.connections
        if most is not None and len(self.connections) > most:
            self._refuse(_TOO_MANY)

    def data_received(self, data: bytes) -> None:
        if self._is_over:
            self.tracked.discard(len(data))
            return
        self._fed = len(data)
        self._unparsed += len(data)
        self._feed(data)
        if self._body and not self._is_over:  # a body is incomplete, or waits; never true between small requests
            self._server.note(len(data))
        if self._unparsed > self._limits.head:
            self._refuse(HEAD_TOO_BIG)

    def _feed(self, data: bytes) -> None:
        """As uvicorn's data_received, except that an upgrade to an unknown protocol is ignored (RFC 9110, 7.8).

        llhttp assumes that another protocol follows such a head. The body would be dropped or, if it comes later, be
        parsed as the next request. So the head is parsed again, without its request for an upgrade.
        """
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                if self._should_upgrade():
                    self._open_websocket(data[upgrade.args[0] :])
                elif self.parser.get_method() == b"CONNECT":
                    self._refuse(INVALID_REQUEST)
                elif not self._is_over:
                    method, version = self.parser.get_method(), self.parser.get_http_version()
                    again = head_without_upgrade(method, self.url, version, self.headers)
                    data = again + data[upgrade.args[0] :]
                    self.parser = httptools.HttpRequestParser(self)  # the old parser may consider the connection closed
                    continue
            except httptools.HttpParserError:
                self._refuse(UNSUPPORTED_CODING if has_other_coding(self.headers) else INVALID_REQUEST)
            return

    def _open_websocket(self, rest: bytes) -> None:
        """Hand the connection over to the WebSocket protocol, or refuse a request that is no handshake.

        A client sends nothing after a handshake before it is answered (RFC 6455, 4.1). A handshake is not accepted
        while other requests are being answered, as those responses would be sent between the frames.
        """
        if self._is_over:
            return
        try:
            is_good = bool(httptools.parse_url(self.url).path) and self.url.isascii()
        except httptools.HttpParserInvalidURLError:
            is_good = False
        if rest or not is_good or self._unanswered():
            self._refuse(INVALID_REQUEST)
            return
        self.connections.discard(self)
        websocket: WebSocket = self.ws_protocol_class(self.config, self.server_state, self.app_state)  # type: ignore
        websocket.begin(self.tracked, self.url, self.headers, self._limits.request)
        self.tracked.set_protocol(websocket)

    def _is_handshake(self) -> bool:
        return bool(self.parser.should_upgrade()) and self._should_upgrade()

    def _should_upgrade(self) -> bool:
        if self.parser.get_method() != b"GET" or self.parser.get_http_version() == "1.0":
            return False
        return super()._should_upgrade()

    @property
    def _is_read_again(self) -> bool:
        return self.parser.should_upgrade() and not self._should_upgrade()

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio asks for it
        """The client has ended its side of the connection. True keeps our side open for responses that it waits for.

        A client that reads a stream ends its side to end the stream, so nothing is kept open then.
        """
        self.tracked.note_end()
        self.tracked.flush()  # the response to the last request may not have been written yet
        if self._is_over or self.scheme == "https":  # TLS always ends both sides at once
            return False
        waiting = self._unanswered()
        if self._server.streams and not all(_is_post(cycle) for cycle in waiting):
            return False
        return self._answer_complete_requests()

    def connection_lost(self, exc: Exception | None) -> None:
        """Also notify the request that is being answered: uvicorn notifies the newest one only."""
        current = self._current
        if current is not None and not current.response_complete:
            current.disconnected = True
            current.message_event.set()
        super().connection_lost(exc)

    def _measure_bodies(self) -> None:
        self._body = sum(len(cycle.body) for cycle, _ in self.pipeline) if self.pipeline else 0

    @property
    def unanswered_bytes(self) -> int:
        """Bytes of an incomplete body, and of requests that wait for those before. Of a body that the application
        receives as it arrives, the bytes that may be in memory. The application counts whole bodies that it has
        received."""
        return min(self._body, STREAMED) if self.tracked.streams_body else self._body

    @property
    def _is_over(self) -> bool:
        return self._ignores_input or self.tracked.is_closing()

    def on_message_begin(self) -> None:
        self._unparsed = self._trailers = 0
        if not self._is_over:
            self._in_head = True
            self._wait(self._limits.request)
        super().on_message_begin()
        self.scope["tracked"] = self.tracked  # type: ignore[typeddict-unknown-key]

    def on_header(self, name: bytes, value: bytes) -> None:
        """A line of the head, or of the trailers after a chunked body. Trailers are counted, and not used."""
        if self._in_head:
            super().on_header(name, value)
        elif not self._is_over:
            self._trailers += len(name) + len(value)
            if self._trailers > self._limits.head:
                self._refuse(HEAD_TOO_BIG)

    def on_headers_complete(self) -> None:
        if self._is_over or self._is_read_again:
            return
        self._in_head = False
        if not is_good_host([value for name, value in self.headers if name == b"host"], self.parser.get_http_version()):
            self._refuse(INVALID_REQUEST)
            return
        if self._fed > self._limits.head:  # only then can a head that is too long have arrived in one piece
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > self._limits.head:
                self._refuse(HEAD_TOO_BIG)
                return
        if len(self.pipeline) >= QUEUED:
            self._refuse(_TOO_MANY)
            return
        if self._begin_fast_path():
            return
        version = self.parser.get_http_version()
        refusal = framing_refusal(self.headers, version, is_handshake=self._is_handshake())
        if refusal is not None:
            self._refuse(refusal)
            return
        super().on_headers_complete()
        self._unparsed = 0
        length = next((value for name, value in self.headers if name == b"content-length"), b"")
        self._extends = not length
        self._wait(self._limits.idle if self._extends else self._limits.request + int(length[:18] or 0) / SLOWEST)

    def _begin_fast_path(self) -> bool:
        """Answer the request on the fast path, if it may go there. Returns whether it does."""
        parser, before = self.parser, self.cycle
        if self._server.fast_path is None or parser.get_method() != b"POST":
            return False
        if self.flow.write_paused or (before is not None and not before.response_complete):
            return False  # uvicorn lets it wait until the client reads, and until its turn has come
        length = length_of(self.headers)
        if not length or not parser.should_keep_alive() or parser.get_http_version() != "1.1":
            return False
        handler = self._server.fast_path(self.url, self.headers, length, self.scheme == "https")
        if handler is None:
            return False
        self._current = request = FastPathRequest(handler, self.tracked, self.on_response_complete)
        self.cycle = request  # type: ignore[assignment]
        self._unparsed = 0
        self._extends = False
        self._wait(self._limits.request + length / SLOWEST)
        return True

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        if self._extends:
            self._wait(self._limits.idle)
        if not self._is_over:
            self._body += len(body)
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._unparsed = 0
        self.deadline = FOREVER
        if not self._is_over and not self._is_read_again:
            super().on_message_complete()
        self._measure_bodies()

    def on_response_complete(self) -> None:
        """As uvicorn's, without a timer for each request: the server checks the deadlines."""
        if self.transport.is_closing():
            return
        self._measure_bodies()
        self.tracked.streams_body = False
        self.flow.resume_reading()
        if self.tracked.is_stream:
            self.tracked.is_stream = False
            if self.flow.write_paused:
                self.write_deadline = self.loop.time() + self._limits.idle
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif not self.cycle.more_body:  # otherwise the rest of its body has its own deadline
            self._wait(self._limits.idle)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._current = cycle
        if cycle.scope["http_version"] == "1.0":
            cycle.waiting_for_100_continue = False  # HTTP/1.0 has no 1xx responses (RFC 9110, 15.2)
            app = partial(answer_without_chunks, cycle, app)
        super()._start_asgi_task(cycle, app)

    def pause_writing(self) -> None:
        """The client does not read. A response with an end gets a new deadline at each pause. A subscriber may read as
        slowly as it likes: heartbeats tell whether it is alive."""
        super().pause_writing()
        if not self.tracked.is_stream:
            self.write_deadline = self.loop.time() + self._limits.idle

    def resume_writing(self) -> None:
        super().resume_writing()
        self.write_deadline = FOREVER

    def _wait(self, seconds: float) -> None:
        self.deadline = self.loop.time() + seconds

    def too_slow(self) -> None:
        """End the connection, because a deadline has passed."""
        if self.flow.write_paused:
            self.tracked.abort()  # a client that does not read cannot get a response
        elif not self._in_head and (self.cycle is None or (self.cycle.response_complete and not self.cycle.more_body)):
            self.tracked.close()  # no request is under way
        else:
            self._refuse(_TOO_SLOW)

    def refuse_for_memory(self) -> None:
        """Answer 503 instead of reading on, and free the memory of the request at once: other clients may send as much
        within the same turn of the event loop, before the application notices."""
        incomplete = [cycle for cycle in self._unanswered() if cycle.more_body]
        self._refuse(_OUT_OF_MEMORY)
        for cycle in incomplete:
            cycle.body = b""
        self._body = 0

    def _refuse(self, answer: bytes) -> None:
        """Send an error response and end the connection. If complete requests are unanswered, they are answered, and
        the error is not sent: the client would take it for the response to one of them."""
        if self._is_over:
            return
        self.deadline = FOREVER
        if self._answer_complete_requests():
            return
        cycle = self._current
        answering = cycle is not None and not cycle.response_complete
        if cycle is not None and answering:
            cycle.disconnected = True
            cycle.message_event.set()
        if cycle is None or not answering or not cycle.response_started:
            self.tracked.write(answer)
        self.tracked.close()

    def drop_incomplete(self) -> None:
        """Give up the request whose body is incomplete, if there is one. The requests before it are answered."""
        for cycle in self._unanswered():
            if cycle.more_body:
                cycle.disconnected = True
                cycle.message_event.set()

    def _answer_complete_requests(self) -> bool:
        """Let complete requests be answered, ignore all other input, and end the connection then. Returns False when
        there are none."""
        complete = [cycle for cycle in self._unanswered() if not cycle.more_body]
        if not complete or complete[0].response_started:
            return False
        self._ignores_input = True
        self.deadline = FOREVER
        complete[-1].keep_alive = False
        while self.pipeline and self.pipeline[0][0].more_body:
            self.pipeline.popleft()  # the newest
        return True

    def _unanswered(self) -> list[RequestResponseCycle | FastPathRequest]:
        """Requests in the order in which they came."""
        current = self._current
        first = [] if current is None or current.response_complete else [current]
        return [*first, *(cycle for cycle, _ in reversed(self.pipeline))]

    @property
    def fast_path_request(self) -> FastPathRequest | None:
        """The request that is being answered on the fast path."""
        current = self._current
        if isinstance(current, FastPathRequest) and not current.response_complete and not current.disconnected:
            return current
        return None

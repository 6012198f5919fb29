"""One HTTP client: uvicorn's protocol class, with limits. In: bytes. Out: requests to an application, short answers.

Answers keep the order of what was asked, whatever follows: garbage, an end, or more than may wait.
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
from qtools.web.host_header import is_good_host
from qtools.web.tracked_transport import TrackedTransport

if TYPE_CHECKING:
    from qtools.web.http_server import HttpServer
    from qtools.web.websocket import WebSocket

FOREVER = float("inf")
QUEUED = 1000  # requests that one client may send before it has the answers to those before
STREAMED = 1024 * 1024  # bytes of an endless body that are here at once: httptools' buffer, messages, batches
SLOWEST = 10_000  # bytes/s: a body whose length was announced may not come slower


def _is_post(cycle: RequestResponseCycle | FastPathRequest) -> bool:
    return isinstance(cycle, FastPathRequest) or cycle.scope["method"] == "POST"


_NO_SUCH_CODING = closing_answer(501, "UNSUPPORTED_TRANSFER_ENCODING")
_TOO_SLOW = closing_answer(408, "REQUEST_TIMEOUT")
_OUT_OF_MEMORY = closing_answer(503, "OUT_OF_MEMORY", (b"retry-after", b"1"))
_TOO_MANY = closing_answer(503, "TOO_MANY_CONNECTIONS", (b"retry-after", b"1"))


async def _answer_without_chunks(cycle: RequestResponseCycle, app: Any, scope: Any, receive: Any, send: Any) -> None:
    """Run `app` for a client of HTTP/1.0, which knows no chunks (RFC 9112, 6.1): an answer whose length is not known
    ends where its connection does."""
    is_endless = False

    async def send_plain(message: Any) -> None:
        nonlocal is_endless
        if message["type"] == "http.response.start":
            is_endless = all(name.lower() != b"content-length" for name, _ in message["headers"])
            if is_endless:
                cycle.chunked_encoding = False
        elif is_endless:
            cycle.expected_content_length = len(message.get("body", b""))  # uvicorn checks what is written against it
        await send(message)

    await app(scope, receive, send_plain)


class _Flow(FlowControl):
    """uvicorn's, that lets nothing more in while requests wait for those before them: each answer would let in as many
    as fit into one read."""

    def __init__(self, transport: asyncio.Transport, pipeline: Sized) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        if not self._pipeline:
            super().resume_reading()


class HttpConnection(HttpToolsProtocol):
    """uvicorn's, with limits. Loop times: by `deadline` what is waited for has to have come, by `write_deadline` the
    client has to have read on."""

    tracked: TrackedTransport
    deadline = FOREVER
    write_deadline = FOREVER
    _current: RequestResponseCycle | FastPathRequest | None = None  # the one that is answered; `cycle` is the newest
    _deaf = False  # something was wrong: what comes is not looked at any more
    _unseen = 0  # bytes since something came out of the parser
    _body = 0  # bytes of the bodies of requests that the application has not taken
    _fed = 0  # bytes of the chunk that is being parsed
    _trailers = 0  # bytes of the trailers of the request whose body comes
    _in_head = False  # a request has begun, and its head is not whole
    _extends = False  # whether each piece of the body puts the deadline off

    def __init__(self, server: HttpServer) -> None:
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
        self._unseen += len(data)
        self._feed(data)
        if self._body and not self._is_over:  # a body that is not whole, or waits: not so between small requests
            self._server.note(len(data))
        if self._unseen > self._limits.head:
            self._refuse(HEAD_TOO_BIG)

    def _feed(self, data: bytes) -> None:
        """As uvicorn's data_received, but that an upgrade to what is not spoken here is ignored (RFC 9110, 7.8).

        llhttp takes what follows such a head for another protocol. The body would be thrown away, or, where it comes
        later, be taken for the next request. So the head is read once more, without the wish.
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
                    data = self._head_without_upgrade() + data[upgrade.args[0] :]
                    self.parser = httptools.HttpRequestParser(self)  # the other may take the connection for closed
                    continue
            except httptools.HttpParserError:
                self._refuse(_NO_SUCH_CODING if self._has_other_coding() else INVALID_REQUEST)
            return

    def _open_websocket(self, rest: bytes) -> None:
        """Hand the connection over to the WebSocket protocol, or refuse what is no handshake.

        Nothing follows a handshake before it is answered (RFC 6455, 4.1). It is not accepted behind requests whose
        answers are under way: those would end up between the frames.
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
        made: WebSocket = self.ws_protocol_class(self.config, self.server_state, self.app_state)  # type: ignore
        made.begin(self.tracked, self.url, self.headers, self._limits.request)
        self.tracked.set_protocol(made)

    def _framing_refusal(self) -> bytes | None:
        """The answer to a head whose body cannot be read, or may be read in two ways (RFC 9112, 6.1 and 6.3)."""
        names = [name for name, _ in self.headers]
        if b"transfer-encoding" in names:
            if self._has_other_coding():
                return _NO_SUCH_CODING
            if b"content-length" in names or self.parser.get_http_version() == "1.0":
                return INVALID_REQUEST
        elif b"content-length" not in names:
            return None
        if self.parser.should_upgrade() and self._should_upgrade():  # a handshake has no body
            lengths = [value for name, value in self.headers if name == b"content-length"]
            return None if lengths and set(lengths) == {b"0"} else INVALID_REQUEST
        return None

    def _has_other_coding(self) -> bool:
        """Whether the head names a transfer coding other than chunked, which is the only one here (RFC 9112, 6.1)."""
        codings = [value.strip().lower() for name, value in self.headers or () if name == b"transfer-encoding"]
        return codings not in ([], [b"chunked"])

    def _head_without_upgrade(self) -> bytes:
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        kept = [(name, value) for name, value in self.headers if name not in (b"upgrade", b"connection")]
        if any(name == b"connection" and b"close" in value.lower() for name, value in self.headers):
            kept.append((b"connection", b"close"))
        lines = b"".join(b"%b: %b\r\n" % header for header in kept)
        return b"%b %b HTTP/%b\r\n%b\r\n" % (method, self.url, version, lines)

    def _should_upgrade(self) -> bool:
        if self.parser.get_method() != b"GET" or self.parser.get_http_version() == "1.0":
            return False
        return super()._should_upgrade()

    @property
    def _is_read_again(self) -> bool:
        return self.parser.should_upgrade() and not self._should_upgrade()

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio asks for it
        """The client has ended its side; True keeps ours open for the answers that it waits for.

        Not so for what is streamed: there it is how a client says that it has gone.
        """
        self.tracked.note_end()
        self.tracked.flush()  # an answer may be held that was asked for in the same breath
        if self._is_over or self.scheme == "https":  # nor with TLS, which ends both sides at once
            return False
        waiting = self._unanswered()
        if self._server.streams and not all(_is_post(cycle) for cycle in waiting):
            return False
        return self._answer_what_is_whole()

    def connection_lost(self, exc: Exception | None) -> None:
        """uvicorn notifies the newest request only; the one that is being answered may be an older one."""
        current = self._current
        if current is not None and not current.response_complete:
            current.disconnected = True
            current.message_event.set()
        super().connection_lost(exc)

    def _forget_body(self) -> None:
        self._body = sum(len(cycle.body) for cycle, _ in self.pipeline) if self.pipeline else 0

    @property
    def unanswered_bytes(self) -> int:
        """Bytes of a body that is not whole and of requests that wait for the answers to those before; of a body that
        is taken as it comes, what may be here. The application counts what it has taken whole."""
        return min(self._body, STREAMED) if self.tracked.streams_body else self._body

    @property
    def _is_over(self) -> bool:
        return self._deaf or self.tracked.is_closing()

    def on_message_begin(self) -> None:
        self._unseen = self._trailers = 0
        if not self._is_over:
            self._in_head = True
            self._wait(self._limits.request)
        super().on_message_begin()
        self.scope["tracked"] = self.tracked  # type: ignore[typeddict-unknown-key]

    def on_header(self, name: bytes, value: bytes) -> None:
        """A line of the head, or of the trailers behind a chunked body: those are counted, and not used."""
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
        if self._fed > self._limits.head:  # only then may a head have come in one piece that is longer than that
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > self._limits.head:
                self._refuse(HEAD_TOO_BIG)
                return
        if len(self.pipeline) >= QUEUED:
            self._refuse(_TOO_MANY)
            return
        if self._begin_short():
            return
        refusal = self._framing_refusal()
        if refusal is not None:
            self._refuse(refusal)
            return
        super().on_headers_complete()
        self._unseen = 0
        length = next((value for name, value in self.headers if name == b"content-length"), b"")
        self._extends = not length
        self._wait(self._limits.idle if self._extends else self._limits.request + int(length[:18] or 0) / SLOWEST)

    def _begin_short(self) -> bool:
        """Whether the request goes the short way."""
        parser, before = self.parser, self.cycle
        if self._server.short is None or parser.get_method() != b"POST":
            return False
        if self.flow.write_paused or (before is not None and not before.response_complete):
            return False  # there it waits until the client reads its answers, and until its turn has come
        length = length_of(self.headers)
        if not length or not parser.should_keep_alive() or parser.get_http_version() != "1.1":
            return False
        handler = self._server.short(self.url, self.headers, length, self.scheme == "https")
        if handler is None:
            return False
        self._current = made = FastPathRequest(handler, self.tracked, self.on_response_complete)
        self.cycle = made  # type: ignore[assignment]
        self._unseen = 0
        self._extends = False
        self._wait(self._limits.request + length / SLOWEST)
        return True

    def on_body(self, body: bytes) -> None:
        self._unseen = 0
        if self._extends:
            self._wait(self._limits.idle)
        if not self._is_over:
            self._body += len(body)
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._unseen = 0
        self.deadline = FOREVER
        if not self._is_over and not self._is_read_again:
            super().on_message_complete()
        self._forget_body()

    def on_response_complete(self) -> None:
        """As uvicorn's, without a timer for each request: the door looks at the deadlines."""
        if self.transport.is_closing():
            return
        self._forget_body()
        self.tracked.streams_body = False
        self.flow.resume_reading()
        if self.tracked.is_stream:
            self.tracked.is_stream = False
            if self.flow.write_paused:
                self.write_deadline = self.loop.time() + self._limits.idle
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif not self.cycle.more_body:  # else what is left of its body has a deadline of its own
            self._wait(self._limits.idle)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._current = cycle
        if cycle.scope["http_version"] == "1.0":
            cycle.waiting_for_100_continue = False  # HTTP/1.0 knows no 1xx (RFC 9110, 15.2)
            app = partial(_answer_without_chunks, cycle, app)
        super()._start_asgi_task(cycle, app)

    def pause_writing(self) -> None:
        """The client does not take its answers. An answer that has an end has a deadline, anew at each pause; a
        subscriber may read as slowly as it likes, and is asked by its heartbeat whether it is there."""
        super().pause_writing()
        if not self.tracked.is_stream:
            self.write_deadline = self.loop.time() + self._limits.idle

    def resume_writing(self) -> None:
        super().resume_writing()
        self.write_deadline = FOREVER

    def _wait(self, seconds: float) -> None:
        self.deadline = self.loop.time() + seconds

    def too_slow(self) -> None:
        """A deadline has passed."""
        if self.flow.write_paused:
            self.tracked.abort()  # nothing more can be said to a client that does not read
        elif not self._in_head and (self.cycle is None or (self.cycle.response_complete and not self.cycle.more_body)):
            self.tracked.close()  # nothing was asked
        else:
            self._refuse(_TOO_SLOW)

    def refuse_for_memory(self) -> None:
        """Answer 503 instead of reading on, and forget what has come: at once, as in one turn of the loop as much may
        come from others before the application notices."""
        incomplete = [cycle for cycle in self._unanswered() if cycle.more_body]
        self._refuse(_OUT_OF_MEMORY)
        for cycle in incomplete:
            cycle.body = b""
        self._body = 0

    def _refuse(self, answer: bytes) -> None:
        """Answer in the application's stead, and hang up. What was asked before, and has come whole, is answered first,
        and then nothing else: who reads an answer takes it for that to what it asked first."""
        if self._is_over:
            return
        self.deadline = FOREVER
        if self._answer_what_is_whole():
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
        """Give up the request whose body has not come whole, if there is one; those before it are answered."""
        for cycle in self._unanswered():
            if cycle.more_body:
                cycle.disconnected = True
                cycle.message_event.set()

    def _answer_what_is_whole(self) -> bool:
        """Let what has come whole be answered, look at nothing else, and hang up. False when there is nothing."""
        whole = [cycle for cycle in self._unanswered() if not cycle.more_body]
        if not whole or whole[0].response_started:
            return False
        self._deaf = True
        self.deadline = FOREVER
        whole[-1].keep_alive = False
        while self.pipeline and self.pipeline[0][0].more_body:
            self.pipeline.popleft()  # the newest
        return True

    def _unanswered(self) -> list[RequestResponseCycle | FastPathRequest]:
        """Requests in the order in which they came."""
        current = self._current
        asked = [] if current is None or current.response_complete else [current]
        return [*asked, *(cycle for cycle, _ in reversed(self.pipeline))]

    @property
    def short(self) -> FastPathRequest | None:
        """The request that is being answered the short way."""
        current = self._current
        if isinstance(current, FastPathRequest) and not current.response_complete and not current.disconnected:
            return current
        return None

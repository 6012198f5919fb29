"""The page for Prometheus and the two for probes, over HTTP. In: a listening socket. Out: one answer a connection.

    GET /metrics   what is counted           200
    GET /healthz   the event loop runs       200 ok
    GET /readyz    the work is being done    200 ready, or 503 and the reason

Whoever reaches the address may ask; nothing here changes anything. A request is small and quick, or it is cut off: so
much of a head, so many seconds from the first byte to the last of the answer, so many connections at once.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import cast

import httptools

from qtools.cli.metrics.metrics_format import CONTENT_TYPE, Family, exposition, process_families

MAX_REQUEST = 8 * 1024  # bytes; Prometheus' own has 300
PATIENCE = 10.0  # s, Prometheus' default scrape_timeout
MAX_CONNECTIONS = 32
TEXT = "text/plain; charset=utf-8"

Answer = tuple[HTTPStatus, str, str]  # status, content type, body


class Scrape:
    """Answers for one command."""

    def __init__(self, command: str, collect: Callable[[], Iterable[Family]], ready: Callable[[], str]) -> None:
        self.connections: set[_Caller] = set()
        self._command = command
        self._collect = collect
        self._ready = ready
        self._server: asyncio.Server | None = None

    async def open(self, listening: socket.socket) -> None:
        """Let callers in."""
        loop = asyncio.get_running_loop()
        serve = loop.create_unix_server if listening.family == socket.AF_UNIX else loop.create_server
        self._server = await serve(lambda: _Caller(self), sock=listening)

    def close(self) -> None:
        """Hang up."""
        if self._server is not None:
            self._server.close()
        for caller in tuple(self.connections):
            caller.abort()

    def answer(self, method: str, path: str) -> Answer:
        """What is said to a request."""
        if path not in ("/metrics", "/healthz", "/readyz"):
            return HTTPStatus.NOT_FOUND, TEXT, "there are /metrics, /healthz and /readyz\n"
        if method not in ("GET", "HEAD"):
            return HTTPStatus.METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n"
        if path == "/healthz":
            return HTTPStatus.OK, TEXT, "ok\n"
        try:
            if path == "/readyz":
                reason = self._ready()
                return (HTTPStatus.SERVICE_UNAVAILABLE if reason else HTTPStatus.OK), TEXT, (reason or "ready") + "\n"
            return HTTPStatus.OK, CONTENT_TYPE, exposition([*self._collect(), *process_families(self._command)])
        except Exception as error:  # a defect of ours, which must not end the work that is looked at
            context = {"message": f"answering {path} failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)
            return HTTPStatus.INTERNAL_SERVER_ERROR, TEXT, "this program has a defect: see what it says on stderr\n"


class _Caller(asyncio.Protocol):
    """One connection: a request, an answer, the end."""

    def __init__(self, scrape: Scrape) -> None:
        self._scrape = scrape
        self._parser = httptools.HttpRequestParser(self)
        self._received = 0
        self._url = b""
        self._answered = False
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # ── asyncio.Protocol ──

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._timer = asyncio.get_running_loop().call_later(PATIENCE, self.abort)
        self._scrape.connections.add(self)
        if len(self._scrape.connections) > MAX_CONNECTIONS:
            self._say(HTTPStatus.SERVICE_UNAVAILABLE, TEXT, f"more than {MAX_CONNECTIONS} connections\n")

    def data_received(self, data: bytes) -> None:
        if self._answered:
            return
        self._received += len(data)
        try:
            if self._received > MAX_REQUEST:
                self._say(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, TEXT, f"more than {MAX_REQUEST} bytes\n")
            else:
                self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # it was answered as any other
        except httptools.HttpParserError:
            if not self._answered:
                self._say(HTTPStatus.BAD_REQUEST, TEXT, "this is no HTTP request\n")

    def connection_lost(self, exc: Exception | None) -> None:
        self._scrape.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()

    # ── httptools ──

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_headers_complete(self) -> None:
        """No body is waited for: nothing here takes one."""
        if self._answered:
            return  # a second request in the same write
        method = self._parser.get_method().decode("ascii")
        try:
            path = (httptools.parse_url(self._url).path or b"").decode("ascii", "replace")
        except httptools.HttpParserInvalidURLError:
            path = ""
        self._say(*self._scrape.answer(method, path), without_body=method == "HEAD")

    def _say(self, status: HTTPStatus, kind: str, body: str, *, without_body: bool = False) -> None:
        assert self._transport is not None
        self._answered = True
        encoded = body.encode()
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: {kind}\r\ncontent-length: {len(encoded)}\r\n"
            + ("allow: GET, HEAD\r\n" if status is HTTPStatus.METHOD_NOT_ALLOWED else "")
            + "connection: close\r\n\r\n"
        )
        self._transport.write(head.encode() + (b"" if without_body else encoded))
        self._transport.close()

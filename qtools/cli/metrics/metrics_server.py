"""The HTTP server of metrics and probes. In: a listening socket. Out: one response a connection.

    GET /metrics   the metrics                200
    GET /healthz   the event loop runs        200 ok
    GET /readyz    the command is ready       200 ready, or 503 and the reason

Requests need no authorization, and change nothing. The size of a request, the time from the opening of the connection
to the end of the response, and the number of connections are limited.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import cast

import httptools

from qtools.cli.metrics.metrics_format import CONTENT_TYPE, Family, exposition, process_families

MAX_REQUEST = 8 * 1024  # bytes; a request of Prometheus has 300
PATIENCE = 10.0  # s, Prometheus' default scrape_timeout
MAX_CONNECTIONS = 32
TEXT = "text/plain; charset=utf-8"

Response = tuple[HTTPStatus, str, str]  # status, content type, body


class MetricsServer:
    """Serves the metrics of one command. command: its name, such as "q-tail". collect, ready: as in Operations."""

    def __init__(self, command: str, collect: Callable[[], Iterable[Family]], ready: Callable[[], str]) -> None:
        self.connections: set[_Connection] = set()
        self._command = command
        self._collect = collect
        self._ready = ready
        self._server: asyncio.Server | None = None

    async def open(self, listening: socket.socket) -> None:
        """Accept connections on `listening`."""
        loop = asyncio.get_running_loop()
        serve = loop.create_unix_server if listening.family == socket.AF_UNIX else loop.create_server
        self._server = await serve(lambda: _Connection(self), sock=listening)

    def close(self) -> None:
        """Close the server and all connections."""
        if self._server is not None:
            self._server.close()
        for caller in tuple(self.connections):
            caller.abort()

    def respond_to(self, method: str, path: str) -> Response:
        """The response to a request."""
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
        except Exception as error:  # a defect of qtools, which must not end the command
            context = {"message": f"answering {path} failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)
            return HTTPStatus.INTERNAL_SERVER_ERROR, TEXT, "this program has a defect: see its log on stderr\n"


class _Connection(asyncio.Protocol):
    """One connection: it serves one request, and is closed."""

    def __init__(self, server: MetricsServer) -> None:
        self._metrics = server
        self._parser = httptools.HttpRequestParser(self)
        self._received = 0
        self._url = b""
        self._responded = False
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # ── asyncio.Protocol ──

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._timer = asyncio.get_running_loop().call_later(PATIENCE, self.abort)
        self._metrics.connections.add(self)
        if len(self._metrics.connections) > MAX_CONNECTIONS:
            self._respond(HTTPStatus.SERVICE_UNAVAILABLE, TEXT, f"more than {MAX_CONNECTIONS} connections\n")

    def data_received(self, data: bytes) -> None:
        if self._responded:
            return
        self._received += len(data)
        try:
            if self._received > MAX_REQUEST:
                self._respond(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, TEXT, f"more than {MAX_REQUEST} bytes\n")
            else:
                self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # on_headers_complete has responded to it as to any other request
        except httptools.HttpParserError:
            if not self._responded:
                self._respond(HTTPStatus.BAD_REQUEST, TEXT, "this is not an HTTP request\n")

    def connection_lost(self, exc: Exception | None) -> None:
        self._metrics.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()

    # ── httptools ──

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_headers_complete(self) -> None:
        """Respond without waiting for a body, as no request here needs one."""
        if self._responded:
            return  # this is a second request, in the same segment
        method = self._parser.get_method().decode("ascii")
        try:
            path = (httptools.parse_url(self._url).path or b"").decode("ascii", "replace")
        except httptools.HttpParserInvalidURLError:
            path = ""
        self._respond(*self._metrics.respond_to(method, path), without_body=method == "HEAD")

    def _respond(self, status: HTTPStatus, kind: str, body: str, *, without_body: bool = False) -> None:
        assert self._transport is not None
        self._responded = True
        encoded = body.encode()
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: {kind}\r\ncontent-length: {len(encoded)}\r\n"
            + ("allow: GET, HEAD\r\n" if status is HTTPStatus.METHOD_NOT_ALLOWED else "")
            + "connection: close\r\n\r\n"
        )
        self._transport.write(head.encode() + (b"" if without_body else encoded))
        self._transport.close()

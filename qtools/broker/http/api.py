"""nsqd's HTTP API, as a plain ASGI application. In: requests. Out: nsqd 1.3.0's answers and errors (nsqd/http.go).

    POST /pub /mpub   /topic/{create,delete,empty,pause,unpause}   /channel/{…the same…}
    GET  /stats /ping /info /metrics /config/OPTION                 PUT /config/OPTION
    OPTIONS of each of them: its methods

Endpoints that nsqd does not have (/metrics, /channel/peek, /channel/create …&from=TIME) are protected on a loopback
address: a request has to name this machine as its host, see web/host_header.py. nsqd's own endpoints are answered
whatever the Host header is, as nsqd does.
Never here: more of a body in memory than the limit allows, whatever length the client has announced.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from qtools.broker.core.broker import Broker
from qtools.broker.core.slices import in_slices
from qtools.broker.core.store import Commit
from qtools.broker.http.admin import Admin, QueryFields, topic_name
from qtools.broker.http.config import Config
from qtools.broker.observe.stats import as_json, collecting, writing_text
from qtools.broker.options import NSQD_VERSION
from qtools.sockets import port_of
from qtools.web.date_header import DateHeader
from qtools.web.fast_path import Answer, Handler, plain_pub, whole
from qtools.web.header_names import ALLOW, CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderName
from qtools.web.host_header import bare_host, is_loopback
from qtools.web.request_body import Headers, Receive, Refusal, Scope, announced, read_body, split_binary

if TYPE_CHECKING:
    from qtools.broker.tcp.tcp_server import TcpServer

log = logging.getLogger("qtools.broker")

Send = Callable[[dict[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_BROKEN_QUERY = re.compile(rb"%(?![0-9A-Fa-f]{2})|;")  # what Go's url.ParseQuery refuses
_NSQ = (HeaderName(b"X-Nsq-Content-Type"), b"nsq; version=1.0")
_JSON = (CONTENT_TYPE, b"application/json; charset=utf-8")
_METRICS = (CONTENT_TYPE, b"text/plain; version=0.0.4; charset=utf-8")
_TEXT = (CONTENT_TYPE, b"text/plain; charset=utf-8")
_OWN = frozenset({"/metrics", "/channel/peek"})  # endpoints that nsqd does not have


class _Json(bytes):
    """An answer that is already JSON."""


class HttpApi:
    """The application."""

    def __init__(
        self,
        broker: Broker,
        server: TcpServer,
        tcp: socket.socket | None,
        http: socket.socket | None,
        https: socket.socket | None,
        config: Config,
    ) -> None:
        self._broker = broker
        self._options = config
        self._server = server
        self._ports = (
            broker.options.broadcast_tcp_port or port_of(tcp),
            broker.options.broadcast_http_port or port_of(http),
        )
        self._https_port = max(port_of(https), 0)
        self._dated = DateHeader(DATE)
        self._names = {"", socket.gethostname().lower(), broker.options.broadcast_address.lower()}
        self._ok_date: Header | None = None
        self._ok = b""
        self._routes: dict[str, tuple[str, Callable[[QueryFields], bytes | Any]]] = {
            "/info": ("GET", self._info),
            "/stats": ("GET", self._stats),
            "/metrics": ("GET", self._metrics),
            **Admin(broker).routes,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        more: Headers = ()
        try:
            if self._only_tls and scope["scheme"] != "https":
                status, kind, body = 403, _JSON, b'{"message": "TLS_REQUIRED", "https_port": %d}' % self._https_port
            elif scope["method"] == "OPTIONS":
                status, kind, body = 200, _TEXT, b""
                more = [_allow(self._methods(scope["path"]))]
            else:
                answer = await self._answer(scope, receive)
                if isinstance(answer, _Json):
                    status, kind, body = 200, _JSON, answer
                elif isinstance(answer, bytes):
                    status, kind, body = 200, _METRICS if scope["path"] == "/metrics" else _TEXT, answer
                else:
                    status, kind, body = 200, _JSON, json.dumps(answer, separators=(",", ":")).encode()
        except Exception as error:
            status, kind, body, more = _refused(error, scope["path"])
        head = [*self._head(kind, body), *more]
        await send({"type": "http.response.start", "status": status, "headers": head})
        await send({"type": "http.response.body", "body": body})

    @property
    def _only_tls(self) -> bool:
        return self._broker.options.tls_required == "true"

    def _head(self, kind: Header, body: bytes) -> list[Header]:
        return [_NSQ, self._dated.header(), (CONTENT_LENGTH, b"%d" % len(body)), kind]

    def _whole_ok(self) -> bytes:
        """The response to a publish, rendered once a second."""
        date = self._dated.header()
        if date is not self._ok_date:
            self._ok_date = date
            self._ok = whole(200, self._head(_TEXT, b"OK"), b"OK")
        return self._ok

    def _methods(self, path: str) -> tuple[str, ...]:
        """The methods of a path. Raises Refusal when there is no such path."""
        if path in ("/pub", "/mpub"):
            return ("POST",)
        if path == "/ping":
            return ("GET",)
        if path.startswith("/config/") and path.count("/") == 2 and path != "/config/":
            return ("GET", "PUT")
        route = self._routes.get(path)
        if route is None:
            raise Refusal(404, "NOT_FOUND")
        return (route[0],)

    async def _answer(self, scope: Scope, receive: Receive) -> bytes | Any:
        path, method = scope["path"], scope["method"]
        methods = self._methods(path)
        if method not in methods:
            raise Refusal(405, "METHOD_NOT_ALLOWED", headers=[_allow(methods)])
        if path in ("/pub", "/mpub"):
            return await (self._pub if path == "/pub" else self._mpub)(scope, receive)
        if path == "/ping":
            health = self._broker.health
            if health != "OK":
                raise Refusal(500, health)
            return health.encode()
        if path.startswith("/config/"):
            return await self._config(path.removeprefix("/config/"), method, scope, receive)
        query = _query(scope)
        if path in _OWN or (path == "/channel/create" and "from" in query):
            self._check_host(scope)
        answer = self._routes[path][1](query)
        if asyncio.iscoroutine(answer):
            answer = await answer
        if method == "POST":
            await self._wait_safe()
        return answer

    def _check_host(self, scope: Scope) -> None:
        """Refuse a request to a loopback address whose Host header names another machine."""
        server = scope.get("server")
        if not server or server[1] is None or not is_loopback(server[0]):
            return
        host = next((value for name, value in scope["headers"] if name == b"host"), b"")
        bare = bare_host(host)
        if bare not in self._names and not is_loopback(bare):
            raise Refusal(403, "HOST_NOT_ALLOWED")

    # ── publishing ──────────────────────────────────────────────────────────────────────────────

    def fast_path(self, target: bytes, headers: Headers, length: int, secure: bool) -> Handler | None:
        """The handler of the most frequent request, `POST /pub?topic=NAME` and nothing else, for web/fast_path.py."""
        topic = plain_pub(target)
        if topic is None or length > self._broker.options.max_msg_size or (self._only_tls and not secure):
            return None
        return partial(self._pub_short, topic)

    def _pub_short(self, topic: str, body: bytes, answer: Answer) -> None:
        try:
            if self._broker.stopping:
                raise Refusal(503, "EXITING")
            commit = self._broker.publish(topic, (body,))
        except Exception as error:
            self._answer_short(answer, error)
            return
        if commit is None:
            self._answer_short(answer, None)
        else:
            commit.waiters.append(lambda: self._answer_short(answer, _failed(commit)))

    def _answer_short(self, answer: Answer, error: Exception | None) -> None:
        if error is None:
            answer(self._whole_ok())
        else:
            status, kind, body, more = _refused(error, "/pub")
            answer(whole(status, [*self._head(kind, body), *more], body))

    async def _pub(self, scope: Scope, receive: Receive) -> bytes:
        options = self._broker.options
        body = await read_body(scope, receive, options.max_msg_size, lambda: Refusal(413, "MSG_TOO_BIG"))
        if not body:
            raise Refusal(400, "MSG_EMPTY")
        query = _query(scope)
        topic = topic_name(query)
        delay_ms = 0
        if "defer" in query:
            defer = query["defer"][0]
            if not re.fullmatch(r"[+]?[0-9]{1,18}", defer) or int(defer) > options.max_req_timeout * 1000:
                raise Refusal(400, "INVALID_DEFER")
            delay_ms = int(defer)
        return await self._publish(topic, [body], delay_ms)

    async def _mpub(self, scope: Scope, receive: Receive) -> bytes:
        options = self._broker.options
        if (announced(scope) or 0) > options.max_body_size:
            raise Refusal(413, "BODY_TOO_BIG")
        query = _query(scope)
        topic = topic_name(query)
        body = await read_body(scope, receive, options.max_body_size, lambda: Refusal(413, "BODY_TOO_BIG"))
        if "binary" in query and _BOOLEANS.get(query["binary"][0], True):
            bodies = split_binary(body, options.max_msg_size, options.max_body_size)
        else:
            bodies = [line for line in body.split(b"\n") if line]
            if any(len(line) > options.max_msg_size for line in bodies):
                raise Refusal(413, "MSG_TOO_BIG")
        return await self._publish(topic, bodies)

    async def _publish(self, topic: str, bodies: list[bytes], delay_ms: int = 0) -> bytes:
        """Publish, and wait until the messages are safe. Raises Refusal."""
        if self._broker.stopping:
            raise Refusal(503, "EXITING")
        if not bodies:
            self._broker.topic(topic)
            return b"OK"
        commit = self._broker.publish(topic, bodies, delay_ms)
        if commit is not None:
            await _settled(commit)
            refusal = _failed(commit)
            if refusal is not None:
                raise refusal
        return b"OK"

    async def _wait_safe(self) -> None:
        """Wait until all changes are on disk. If the disk refuses now, the store tries again later."""
        commit = self._broker.store.pending
        if commit is not None:
            await _settled(commit)

    # ── information ─────────────────────────────────────────────────────────────────────────────────

    def _info(self, query: QueryFields) -> dict[str, Any]:
        options = self._broker.options
        return {
            "version": NSQD_VERSION,
            "broadcast_address": options.broadcast_address,
            "hostname": socket.gethostname(),
            "http_port": self._ports[1],
            "tcp_port": self._ports[0],
            "start_time": int(self._broker.started),
            "max_heartbeat_interval": round(options.max_heartbeat_interval * 1e9),
            "max_output_buffer_size": options.max_output_buffer_size,
            "max_output_buffer_timeout": round(options.max_output_buffer_timeout * 1e9),
            "max_deflate_level": options.max_deflate_level,
            "pid": os.getpid(),
            "durable": self._broker.store.durable,
        }

    async def _stats(self, query: QueryFields) -> bytes:
        def first(name: str) -> str:
            return query[name][0] if name in query else ""

        collected = await in_slices(
            collecting(
                self._broker,
                tuple(self._server.connections),
                topic=first("topic"),
                channel=first("channel"),
                include_clients=_BOOLEANS.get(first("include_clients"), True),
                include_mem=_BOOLEANS.get(first("include_mem"), True),
            )
        )
        if first("format") == "json":
            return _Json(await in_slices(as_json(collected)))
        return (await in_slices(writing_text(collected))).encode()

    async def _metrics(self, query: QueryFields) -> bytes:
        from qtools.broker.observe.metrics import as_prometheus

        return await in_slices(
            as_prometheus(self._broker, len(self._server.connections), self._server.unfinished.budget)
        )

    async def _config(self, name: str, method: str, scope: Scope, receive: Receive) -> bytes | Any:
        if method == "PUT":
            body = await read_body(
                scope, receive, self._broker.options.max_msg_size, lambda: Refusal(413, "INVALID_VALUE")
            )
            self._options.put(name, body)
        return self._options.get(name)


def _allow(methods: Sequence[str]) -> Header:
    return ALLOW, ", ".join(sorted([*methods, "OPTIONS"])).encode()


def _refused(error: Exception, path: str) -> tuple[int, Header, bytes, Headers]:
    """The response to a request that failed: status, type, body and further headers."""
    if not isinstance(error, Refusal):
        log.error("internal error in %s: %s: %s", path, type(error).__name__, error)
        log.debug("internal error", exc_info=error)
        error = Refusal(500, "INTERNAL_ERROR")
    if path == "/ping" and error.status == 500:  # the only error that nsqd answers as text
        return error.status, _TEXT, error.word.encode(), error.headers
    body = json.dumps({"message": error.word}, separators=(",", ":")).encode()
    return error.status, _JSON, body, error.headers


async def _settled(commit: Commit) -> None:
    """Wait until a commit is done."""
    done = asyncio.get_running_loop().create_future()
    commit.waiters.append(lambda: None if done.done() else done.set_result(None))  # the client may have disconnected
    await done


def _failed(commit: Commit) -> Refusal | None:
    """The refusal of a publish whose commit failed; None if it did not."""
    return None if commit.error is None else Refusal(503, f"PUB_FAILED {commit.error}")


def _query(scope: Scope) -> QueryFields:
    raw = scope["query_string"]
    if _BROKEN_QUERY.search(raw):
        raise Refusal(400, "INVALID_REQUEST")
    return parse_qs(raw.decode("latin-1"), keep_blank_values=True)

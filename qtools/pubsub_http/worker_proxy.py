"""Passes requests on that another worker has to answer. In: requests. Out: the answer of that worker, or the own one.

    client ─▶ WorkerProxy of the worker that accepted it ─▶ a unix socket ─▶ Inner of the owner ─▶ its App

The token is checked before a request is passed on, so that the body of an unknown caller is not read. The Unix sockets
are in a directory that only this user can enter, so Inner trusts what a worker sends about the client.
"""

from __future__ import annotations

import logging
import re
import zlib
from dataclasses import asdict
from typing import TYPE_CHECKING

import orjson

from qtools.imports import import_in_thread
from qtools.pubsub_http.api.asgi_app import App
from qtools.pubsub_http.subscribe.resume import Resume, Resumption
from qtools.web.request_body import Receive, Refusal, Scope, Send, read_body

if TYPE_CHECKING:
    import httpx

    from qtools.pubsub_http.worker_context import WorkerContext

log = logging.getLogger("qtools.pubsub")

_ABOUT_SESSIONS = frozenset({"/finish", "/requeue", "/touch"})
_PUBLISHING = frozenset({"/pub", "/mpub"})
_SESSION = re.compile(rb"(?:^|&)session=([0-9]+)-")
_STREAM = re.compile(r"([0-9]{1,3})-")
_RESUME_PATH = "/worker/resume"  # served to other workers only
_SCHEME = b"q-worker-scheme"  # how the client is connected: http or https
_RESUME_TIMEOUT = 5.0  # s
# Headers that belong to one connection and not to the request (RFC 9110, 7.6.1).
_OF_CONNECTION = frozenset(
    {b"connection", b"keep-alive", b"transfer-encoding", b"expect", b"upgrade", b"content-length", _SCHEME}
)


class Inner:
    """The application that a worker serves to the others: its own `app`, and its event streams."""

    def __init__(self, app: App, resumption: Resumption) -> None:
        self._app = app
        self._resumption = resumption

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == _RESUME_PATH:
            body = await read_body(scope, receive, 65536, lambda: Refusal(413, "BODY_TOO_BIG"))
            answer = orjson.dumps(await self._resumption.arrived_here(Resume(**orjson.loads(body))))
            headers = [(b"content-length", b"%d" % len(answer))]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": answer})
            return
        scheme = next((value.decode() for name, value in scope["headers"] if name == _SCHEME), "http")
        await self._app({**scope, "scheme": scheme}, receive, send)


class WorkerProxy:
    """The application of one worker among several; `app` is its own. timeout: s that another may take to answer."""

    def __init__(self, app: App, worker: WorkerContext, most: int, timeout: float) -> None:
        self._app = app
        self._worker = worker
        self._most = most
        self._timeout = timeout
        self._clients: dict[int, httpx.AsyncClient] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        owner = self._owner(scope) if scope["type"] == "http" else None
        if owner is None or owner == self._worker.number:
            await self._app(scope, receive, send)
            return
        try:
            self._app.check_caller(scope)
            body = await read_body(scope, receive, self._most, lambda: Refusal(413, "BODY_TOO_BIG"))
            status, headers, answer = await self._pass_on(owner, scope, body)
        except Refusal as refusal:
            await self._app.refuse(scope, send, refusal)
            return
        self._app.count(status)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    async def ask_owner(self, resume: Resume) -> list[str]:
        """Ask the worker that served `resume.stream` which messages have arrived: their ids, [] without answer."""
        found = _STREAM.match(resume.stream)
        if found is None or int(found[1]) >= self._worker.count:
            return []
        await import_in_thread("httpx")
        import httpx

        try:
            answer = await self._client(int(found[1])).post(
                f"http://worker{_RESUME_PATH}", content=orjson.dumps(asdict(resume)), timeout=_RESUME_TIMEOUT
            )
            ids: list[str] = orjson.loads(answer.content)
        except (httpx.HTTPError, orjson.JSONDecodeError) as error:
            log.info("worker %s does not answer which messages of an event stream have arrived: %s", found[1], error)
            return []
        return ids

    async def close(self) -> None:
        for client in self._clients.values():
            await client.aclose()

    def _owner(self, scope: Scope) -> int | None:
        path = scope["path"]
        if path in _PUBLISHING:
            for name, value in scope["headers"]:
                if name == b"idempotency-key":
                    return zlib.crc32(value) % self._worker.count
        elif path in _ABOUT_SESSIONS:
            found = _SESSION.search(scope["query_string"])
            if found is not None and len(found[1]) < 4 and int(found[1]) < self._worker.count:
                return int(found[1])
        return None

    async def _pass_on(self, owner: int, scope: Scope, body: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        await import_in_thread("httpx")
        import httpx

        target = httpx.URL(scheme="http", host="worker", raw_path=scope["raw_path"] + b"?" + scope["query_string"])
        headers = [(name, value) for name, value in scope["headers"] if name not in _OF_CONNECTION]
        headers.append((_SCHEME, scope["scheme"].encode()))
        try:
            answer = await self._client(owner).request(scope["method"], target, content=body, headers=headers)
        except httpx.HTTPError as error:
            detail = "the worker that this belongs to does not answer just now"
            raise Refusal(503, "WORKER_UNAVAILABLE", detail, [(b"retry-after", b"1")]) from error
        kept = [(name.lower(), value) for name, value in answer.headers.raw if name.lower() not in _OF_CONNECTION]
        return answer.status_code, [*kept, (b"content-length", b"%d" % len(answer.content))], answer.content

    def _client(self, owner: int) -> httpx.AsyncClient:
        import httpx

        client = self._clients.get(owner)
        if client is None:
            transport = httpx.AsyncHTTPTransport(uds=self._worker.socket_of(owner))
            client = self._clients[owner] = httpx.AsyncClient(transport=transport, timeout=self._timeout)
        return client

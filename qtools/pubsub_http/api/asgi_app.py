"""Requests in, answers out, as a plain ASGI application. Who may ask, what there is, how errors are told.

    Host, Origin ─▶ address, method ─▶ token, rate ─▶ rights ─▶ query ─▶ the room that knows

Errors are JSON in nsqd's words, {"message": "MSG_TOO_BIG"}, with a "detail" for people. Never here: a token, a session
or a query in a log.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import orjson
from uvicorn.protocols.utils import ClientDisconnected

from qtools.pubsub_http.api.access import SUBPROTOCOL, Access, refuse_unless
from qtools.pubsub_http.api.page import FILES
from qtools.pubsub_http.api.parameters import Values
from qtools.pubsub_http.api.routes import ROUTES, ApiRoute
from qtools.pubsub_http.api.tokens import Caller
from qtools.web.date_header import DateHeader
from qtools.web.request_body import Receive, Refusal, Scope, Send

log = logging.getLogger("qtools.pubsub")

SMALL = 64 * 1024  # bytes of a body that is rather read and forgotten than its connection closed

_NSQ = (b"x-nsq-content-type", b"nsq; version=1.0")
_JSON = (b"content-type", b"application/json; charset=utf-8")
_TEXT = (b"content-type", b"text/plain; charset=utf-8")
_NOSNIFF = (b"x-content-type-options", b"nosniff")


class Request:
    """One request on its way through the house."""

    __slots__ = ("caller", "ended", "head", "receive_raw", "replayed", "scope", "send", "values")

    def __init__(self, scope: Scope, receive: Receive, send: Send, head: dict[bytes, bytes], caller: Caller) -> None:
        self.scope = scope
        self.receive_raw = receive
        self.send = send
        self.head = head
        self.caller = caller
        self.values: Values = {}
        self.replayed = False  # the answer is that of an earlier request
        self.ended = False  # the whole body has come

    async def receive(self) -> dict[str, Any]:
        message = await self.receive_raw()
        self.ended = not message.get("more_body")
        return message


class Answer:
    """What is answered whole."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, body: bytes, headers: list[tuple[bytes, bytes]], status: int = 200) -> None:
        self.body = body
        self.headers = headers
        self.status = status


def json_answer(told: Any, status: int = 200) -> Answer:
    return Answer(orjson.dumps(told), [_JSON], status)


Handler = Callable[[Request], Awaitable[Answer | None]]  # None: it has answered by itself


class App:
    """`handlers` by operation, as routes.py names them; `websocket` serves /sub where that was asked for."""

    def __init__(self, access: Access, handlers: dict[str, Handler], websocket: Handler) -> None:
        self.requests: dict[int, int] = {}  # how many were answered with each status
        self._access = access
        self._websocket = websocket
        self._routes: dict[str, dict[str, tuple[ApiRoute, Handler]]] = {}
        for route in ROUTES:
            self._routes.setdefault(route.path, {})[route.method] = (route, handlers[route.operation])
        self._dated = DateHeader()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._upgrade(scope, receive, send)
            return
        head = dict(scope["headers"])
        request: Request | None = None
        try:
            self._access.admit(head, scope["scheme"] == "https", public=scope["path"] in FILES)
            route, handler = self._find(scope, head)
            caller = self._access.identify(head) if not route.is_open else _NOBODY
            request = Request(scope, receive, send, head, caller)
            request.values = route.query.read(scope["query_string"])
            if route.right:
                _check_right(route.right, caller, request.values)
            answer = await handler(request)
        except Refusal as refusal:
            answer = refused(refusal)
        except _Done as done:
            answer = done.answer
        except Exception as error:
            log.error("internal error in %s %s: %s: %s", scope["method"], scope["path"], type(error).__name__, error)
            log.debug("internal error", exc_info=True)
            answer = refused(Refusal(500, "INTERNAL_ERROR"))
        if answer is None:
            self.count(200)
            return
        await self._send(answer, scope, head, send, request is not None and request.ended)

    def vouch(self, scope: Scope) -> None:
        """Refuse what would be refused for its Host, its Origin or its token, before it is passed on."""
        head = dict(scope["headers"])
        self._access.admit(head, scope["scheme"] == "https")
        self._access.who(head)

    async def refuse(self, scope: Scope, send: Send, refusal: Refusal) -> None:
        await self._send(refused(refusal), scope, dict(scope["headers"]), send, False)

    def _find(self, scope: Scope, head: dict[bytes, bytes]) -> tuple[ApiRoute, Handler]:
        path, method = scope["path"], scope["method"]
        known = self._routes.get(path, {})
        if known:
            found = known.get(method)
            if found is None and method == "HEAD":  # as GET: the server leaves the body out
                found = known.get("GET")
                found = found if found is not None and found[0].is_safe else None
            if found is not None:
                return found
        elif path not in FILES and path != "*":
            raise Refusal(404, "NOT_FOUND", f"there is no {path[:80]!r} here; /openapi.json tells what there is")
        elif path in FILES and method in ("GET", "HEAD"):
            raise _Done(Answer(*FILES[path]))
        methods = ", ".join(_methods(known.values())).encode()
        if method == "OPTIONS":
            headers = [(b"allow", methods)]
            if b"access-control-request-method" in head:
                headers += self._access.preflight(head, methods)
            raise _Done(Answer(b"", headers, 204))
        allowed = methods.decode()
        raise Refusal(
            405, "METHOD_NOT_ALLOWED", f"{path} takes {allowed}, and not {method[:20]}", [(b"allow", methods)]
        )

    async def _send(self, answer: Answer, scope: Scope, head: dict[bytes, bytes], send: Send, ended: bool) -> None:
        self.count(answer.status)
        if log.isEnabledFor(logging.INFO):
            log.info("%s %s %d", scope["method"], scope["path"], answer.status)
        headers = self.headers(answer, head)
        if not ended and _has_much(head):
            headers.append((b"connection", b"close"))  # what is still to come is not worth reading
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    def headers(self, answer: Answer, head: Mapping[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        """All of an answer to a request that came with `head`."""
        headers = [*answer.headers, self._dated.header(), *self._access.cors(head)]
        if answer.status not in (204, 304):
            headers.append((b"content-length", b"%d" % len(answer.body)))
        return headers

    def stream_headers(self, request: Request, *more: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        """The head of an answer that a room sends by itself."""
        return [
            *more,
            (b"cache-control", b"no-store"),
            _NOSNIFF,
            self._dated.header(),
            *self._access.cors(request.head),
        ]

    def count(self, status: int) -> None:
        self.requests[status] = self.requests.get(status, 0) + 1

    # ── WebSockets ──

    async def _upgrade(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = dict(scope["headers"])
        await receive()  # websocket.connect
        try:
            self._access.admit(head, scope["scheme"] == "wss")
            if scope["path"] != "/sub":
                raise Refusal(404, "NOT_FOUND", "WebSockets are served at /sub")
            route = self._routes["/sub"]["GET"][0]
            caller = self._access.identify(head, scope["subprotocols"])
            request = Request(scope, receive, send, head, caller)
            request.values = route.query.read(scope["query_string"])
            _check_right(route.right, caller, request.values)
            answer = await self._websocket(request)
        except Refusal as refusal:
            answer = refused(refusal)
        except ClientDisconnected:
            return  # it hung up, or was too slow, before its handshake was answered
        except Exception as error:
            log.error("internal error in a WebSocket: %s: %s", type(error).__name__, error)
            log.debug("internal error", exc_info=True)
            answer = refused(Refusal(500, "INTERNAL_ERROR"))
        if answer is not None:
            self.count(answer.status)
            await send(
                {
                    "type": "websocket.http.response.start",
                    "status": answer.status,
                    "headers": [*answer.headers, _NOSNIFF],
                }
            )
            await send({"type": "websocket.http.response.body", "body": answer.body})


def _methods(served: Iterable[tuple[ApiRoute, Handler]]) -> list[str]:
    """What may be asked of an address that is served so; of a file, where there is no route."""
    methods = [route.method for route, _ in served] or ["GET"]
    if methods == ["GET"] and all(route.is_safe for route, _ in served):
        methods.append("HEAD")
    return [*methods, "OPTIONS"]


_NOBODY = Caller("nobody", publish=(), subscribe=())


class _Done(Exception):
    """The answer is there before any room was asked."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer


def refused(refusal: Refusal) -> Answer:
    """nsqd's word for it, and what people are told."""
    told = {"message": refusal.word}
    if refusal.detail:
        told["detail"] = refusal.detail
    return Answer(orjson.dumps(told | refusal.fields), [_NSQ, _JSON, _NOSNIFF, *refusal.headers], refusal.status)


def _check_right(right: str, caller: Caller, values: Values) -> None:
    topic = values.get("topic")
    if topic is None:
        return  # of a session, which belongs to the caller that opened it
    if right == "publish":
        refuse_unless(caller.may_publish(topic), f"publish to {topic}")
    else:
        channel = values.get("channel") or ""
        refuse_unless(caller.may_subscribe(topic, channel), f"read {topic}/{channel}" if channel else f"read {topic}")


def _has_much(head: dict[bytes, bytes]) -> bool:
    """Whether a request has a body of unknown or of considerable length."""
    length = head.get(b"content-length", b"0")
    return b"transfer-encoding" in head or not length.isdigit() or int(length[:18]) > SMALL


def published(count: int, replayed: bool = False) -> Answer:
    """nsqd's OK, and how many messages it is about."""
    headers = [_TEXT, (b"q-published", b"%d" % count)]
    if replayed:
        headers.append((b"idempotent-replayed", b"true"))
    return Answer(b"OK", headers)


def text_answer(body: bytes) -> Answer:
    return Answer(body, [_TEXT])


async def accept(request: Request, headers: list[tuple[bytes, bytes]]) -> None:
    """Open the WebSocket that was asked for."""
    chosen = SUBPROTOCOL if SUBPROTOCOL in request.scope["subprotocols"] else None
    await request.send({"type": "websocket.accept", "subprotocol": chosen, "headers": headers})

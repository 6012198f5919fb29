"""The ASGI application: a request in, an answer out. It decides whether a request is allowed and which handler serves
it, and turns errors into answers.

    Host, Origin ─▶ address, method ─▶ token, rate ─▶ query ─▶ rights ─▶ capabilities ─▶ the handler

`App.admit` is these steps. HTTP requests, WebSockets and the fast path (publish/fast_path.py) all call it, so that a
request is refused for the same reason whichever way it takes.

Errors are JSON with nsqd's codes, {"message": "MSG_TOO_BIG"}, and a "detail" for people. A token, a session or a query
is never logged.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple

import orjson
from uvicorn.protocols.utils import ClientDisconnected

from qtools.engines.capabilities import Capabilities
from qtools.pubsub_http.api.access import SUBPROTOCOL, Access, refuse_unless
from qtools.pubsub_http.api.capabilities import check_names, check_request, lacking_parameters
from qtools.pubsub_http.api.page import FILES
from qtools.pubsub_http.api.parameters import Parameter, Values
from qtools.pubsub_http.api.routes import ROUTES, ApiRoute
from qtools.pubsub_http.api.tokens import Caller
from qtools.web.date_header import DateHeader
from qtools.web.request_body import Receive, Refusal, Scope, Send

log = logging.getLogger("qtools.pubsub")

SMALL = 64 * 1024  # bytes: the rest of a body of at most this length is read and dropped; after a longer one the
# connection is closed

Head = Mapping[bytes, bytes]

_NSQ = (b"x-nsq-content-type", b"nsq; version=1.0")
_JSON = (b"content-type", b"application/json; charset=utf-8")
_TEXT = (b"content-type", b"text/plain; charset=utf-8")
_NOSNIFF = (b"x-content-type-options", b"nosniff")


class Request:
    """A request that was admitted, and how to receive its body and send its answer (ASGI)."""

    __slots__ = ("caller", "ended", "head", "receive_raw", "replayed", "scope", "send", "values", "warning")

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, head: dict[bytes, bytes], caller: Caller, values: Values
    ) -> None:
        self.scope = scope
        self.receive_raw = receive
        self.send = send
        self.head = head
        self.caller = caller
        self.values = values
        self.replayed = False  # the answer is that of an earlier request
        self.ended = False  # the whole body has been received
        self.warning = ""  # what the handler has left out

    async def receive(self) -> dict[str, Any]:
        message = await self.receive_raw()
        self.ended = not message.get("more_body")
        return message


class Answer:
    """An answer whose body is sent in one piece."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, body: bytes, headers: list[tuple[bytes, bytes]], status: int = 200) -> None:
        self.body = body
        self.headers = headers
        self.status = status


def json_answer(value: Any, status: int = 200) -> Answer:
    return Answer(orjson.dumps(value), [_JSON], status)


Handler = Callable[[Request], Awaitable[Answer | None]]  # returns None if it has sent its answer itself


class _Served(NamedTuple):
    """A route and what serves it. lacking: the parameters that need what the engine cannot do."""

    route: ApiRoute
    handler: Handler
    lacking: list[Parameter]


class App:
    """The application of one gateway process.

    handlers: by operation, as routes.py names them. websocket: serves WebSockets at /sub.
    """

    def __init__(
        self, access: Access, capabilities: Capabilities, handlers: dict[str, Handler], websocket: Handler
    ) -> None:
        self.requests: dict[int, int] = {}  # how many were answered with each status
        self._access = access
        self._capabilities = capabilities
        self._routes: dict[str, dict[str, _Served]] = {}
        for route in ROUTES:
            lacking = lacking_parameters(capabilities, route.query)
            self._routes.setdefault(route.path, {})[route.method] = _Served(route, handlers[route.operation], lacking)
        self._websockets = {"/sub": self._routes["/sub"]["GET"]._replace(handler=websocket)}
        self._date = DateHeader()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._upgrade(scope, receive, send)
            return
        head = dict(scope["headers"])
        request: Request | None = None
        answer: Answer | None
        try:
            handler, caller, values = self.admit(
                scope["method"], scope["path"], scope["query_string"], head, scope["scheme"] == "https"
            )
            request = Request(scope, receive, send, head, caller, values)
            answer = await handler(request)
        except _Answered as answered:
            answer = answered.answer
        except Exception as error:
            answer = answer_to(error, f"{scope['method']} {scope['path']}")
        if answer is None:
            self.count(200)
            return
        await self._send(answer, scope, head, send, request is not None and request.ended)

    # ── what is allowed ──

    def admit(
        self, method: str, path: str, query: bytes, head: Head, secure: bool, subprotocols: list[str] | None = None
    ) -> tuple[Handler, Caller, Values]:
        """For a request that is allowed: what serves it, its caller, the values of its query.

        Raises Refusal for a request that is not allowed, and _Answered for one that needs no handler.

        secure: it came over TLS. subprotocols: those that a WebSocket offers; None for any other request.
        """
        is_websocket = subprotocols is not None
        self._access.admit(head, secure, not is_websocket and path in FILES)
        route, handler, lacking = self._find_websocket(path) if is_websocket else self._find(method, path, head)
        caller = _ANONYMOUS if route.is_open else self._access.identify(head, subprotocols)
        values = route.query.read(query)
        if route.right:
            _check_right(route.right, caller, values)
        check_names(self._capabilities, values)
        if lacking or route.capability:
            check_request(self._capabilities, route, lacking, values)
        return handler, caller, values

    def check_caller(self, scope: Scope) -> None:
        """Refuse a request for its Host, its Origin or its token, before it is passed on to another worker, which
        checks all the rest."""
        head = dict(scope["headers"])
        self._access.admit(head, scope["scheme"] == "https")
        self._access.authenticate(head)

    def _find(self, method: str, path: str, head: Head) -> _Served:
        known = self._routes.get(path, {})
        if known:
            found = known.get(method)
            if found is None and method == "HEAD":  # as GET: the server leaves the body out
                found = known.get("GET")
                found = found if found is not None and found.route.is_safe else None
            if found is not None:
                return found
        elif path not in FILES and path != "*":
            raise Refusal(404, "NOT_FOUND", f"there is no {path[:80]!r} here; /openapi.json lists every address")
        elif path in FILES and method in ("GET", "HEAD"):
            raise _Answered(Answer(*FILES[path]))
        methods = ", ".join(_methods(known.values())).encode()
        if method == "OPTIONS":
            headers = [(b"allow", methods)]
            if b"access-control-request-method" in head:
                headers += self._access.preflight(head, methods)
            raise _Answered(Answer(b"", headers, 204))
        allowed = methods.decode()
        raise Refusal(
            405, "METHOD_NOT_ALLOWED", f"{path} takes {allowed}, and not {method[:20]}", [(b"allow", methods)]
        )

    def _find_websocket(self, path: str) -> _Served:
        found = self._websockets.get(path)
        if found is None:
            raise Refusal(404, "NOT_FOUND", "WebSockets are served at /sub")
        return found

    # ── answers ──

    async def refuse(self, scope: Scope, send: Send, refusal: Refusal) -> None:
        await self._send(refused(refusal), scope, dict(scope["headers"]), send, False)

    async def _send(self, answer: Answer, scope: Scope, head: Head, send: Send, ended: bool) -> None:
        self.count(answer.status)
        if log.isEnabledFor(logging.INFO):
            log.info("%s %s %d", scope["method"], scope["path"], answer.status)
        headers = self.headers(answer, head)
        if not ended and _has_much(head):
            headers.append((b"connection", b"close"))  # reading the rest of the body would cost more
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    def headers(self, answer: Answer, head: Head) -> list[tuple[bytes, bytes]]:
        """All headers of the answer to a request that came with `head`."""
        headers = [*answer.headers, self._date.header(), *self._access.cors(head)]
        if answer.status not in (204, 304):
            headers.append((b"content-length", b"%d" % len(answer.body)))
        return headers

    def stream_headers(self, request: Request, *more: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        """The headers of an answer that a handler sends itself."""
        return [
            *more,
            (b"cache-control", b"no-store"),
            _NOSNIFF,
            self._date.header(),
            *self._access.cors(request.head),
        ]

    def count(self, status: int) -> None:
        self.requests[status] = self.requests.get(status, 0) + 1

    # ── WebSockets ──

    async def _upgrade(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = dict(scope["headers"])
        await receive()  # websocket.connect
        try:
            handler, caller, values = self.admit(
                "GET", scope["path"], scope["query_string"], head, scope["scheme"] == "wss", scope["subprotocols"]
            )
            answer = await handler(Request(scope, receive, send, head, caller, values))
        except ClientDisconnected:
            return  # before its handshake was answered: it hung up, or was too slow
        except Exception as error:
            answer = answer_to(error, "a WebSocket")
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


def _methods(served: Iterable[_Served]) -> list[str]:
    """The methods of an address that is served so; of a file, for which there is no route."""
    methods = [each.route.method for each in served] or ["GET"]
    if methods == ["GET"] and all(each.route.is_safe for each in served):
        methods.append("HEAD")
    return [*methods, "OPTIONS"]


_ANONYMOUS = Caller("anonymous", publish=(), subscribe=())  # of addresses that are open to all


class _Answered(Exception):
    """The answer to a request that needs no handler."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer


def answer_to(error: BaseException, what: str) -> Answer:
    """The answer for an error. Anything but a Refusal is a defect, and is logged. what: the request, for the log."""
    if isinstance(error, Refusal):
        return refused(error)
    log.error("internal error in %s: %s: %s", what, type(error).__name__, error)
    log.debug("internal error", exc_info=error)
    return refused(Refusal(500, "INTERNAL_ERROR"))


def refused(refusal: Refusal) -> Answer:
    """The answer for a refusal: a code for programs, as nsqd has them, and a detail for people."""
    fields = {"message": refusal.word}
    if refusal.detail:
        fields["detail"] = refusal.detail
    return Answer(orjson.dumps(fields | refusal.fields), [_NSQ, _JSON, _NOSNIFF, *refusal.headers], refusal.status)


def _check_right(right: str, caller: Caller, values: Values) -> None:
    topic = values.get("topic")
    if topic is None:
        return  # it is about a session, which only the caller that opened it can find
    if right == "publish":
        refuse_unless(caller.may_publish(topic), f"publish to {topic}")
    else:
        channel = values.get("channel") or ""
        refuse_unless(caller.may_subscribe(topic, channel), f"read {topic}/{channel}" if channel else f"read {topic}")


def _has_much(head: Head) -> bool:
    """Whether a request has a body of unknown length, or of more than SMALL bytes."""
    length = head.get(b"content-length", b"0")
    return b"transfer-encoding" in head or not length.isdigit() or int(length[:18]) > SMALL


def published(count: int, replayed: bool = False, warning: str = "") -> Answer:
    """nsqd's OK, and how many messages were published. warning: what of them was left out."""
    headers = [_TEXT, (b"q-published", b"%d" % count)]
    if replayed:
        headers.append((b"idempotent-replayed", b"true"))
    if warning:
        headers.append((b"q-warning", warning.encode()))
    return Answer(b"OK", headers)


def text_answer(body: bytes) -> Answer:
    return Answer(body, [_TEXT])


async def accept(request: Request, headers: list[tuple[bytes, bytes]]) -> None:
    """Accept the WebSocket of `request`."""
    chosen = SUBPROTOCOL if SUBPROTOCOL in request.scope["subprotocols"] else None
    await request.send({"type": "websocket.accept", "subprotocol": chosen, "headers": headers})

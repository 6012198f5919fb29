"""/sub as a WebSocket. In: a request, the client's commands. Out: a frame for each message; results of commands.

    here → client    format envelope: text, a JSON object · raw, msgpack: binary, the body or a map
    client → here    {"finish": ["id", …]}   {"requeue": ["id", …], "delay": 500}   {"touch": ["id", …]}
    here → client    {"finish": 2, "unknown": []}   the result;   {"error": "…"} for a command that is not valid

With ack=client the acknowledgements come over the same WebSocket, so it needs no session's name. Pings, which
a browser answers, show whether the client is alive.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import orjson

from qtools.engines.capabilities import Capabilities
from qtools.message import Batch
from qtools.pubsub_http.api.asgi_app import accept
from qtools.pubsub_http.api.capabilities import advice
from qtools.pubsub_http.api.routes import MAX_DEFER
from qtools.pubsub_http.subscribe.delivery import DeliverySource, SourceFailed, StreamDelivery, TrackedStream
from qtools.pubsub_http.subscribe.rendered_batch import FORMATS
from qtools.pubsub_http.subscribe.sessions import AckSession
from qtools.pubsub_http.subscribe.stream_memory import counted_memory
from qtools.pubsub_http.subscribe.subscribe_params import read_subscribe_params
from qtools.web.sender import ClientGone

if TYPE_CHECKING:
    from qtools.pubsub_http.api.asgi_app import Request
    from qtools.pubsub_http.options import GatewayOptions
    from qtools.pubsub_http.subscribe.http_stream import Subscribing
    from qtools.pubsub_http.subscribe.sessions import AckSessions
    from qtools.pubsub_http.subscribe.subscribe_params import SubscribeParams

TOGETHER = 64  # messages that are encoded at once
NORMAL, GOING_AWAY, INTERNAL_ERROR = 1000, 1001, 1011  # RFC 6455, 7.4.1


class _Stream(TrackedStream):
    """A WebSocket as a delivery's stream."""

    def __init__(self, request: Request, params: SubscribeParams) -> None:
        super().__init__(request.send, request.scope.get("tracked"))
        self._pieces = FORMATS[params.rendering].pieces
        self._form = params.form

    async def send(self, data: bytes, batch: Batch) -> None:
        send = self._send
        if self._form == "raw":
            for body in batch.bodies:
                await send({"type": "websocket.send", "bytes": body})
        elif self._form == "envelope":  # a line each: `data` may be shared with other streams, and is not copied whole
            start = 0
            while start < len(data):
                end = data.index(b"\n", start)
                await send({"type": "websocket.send", "text": data[start:end].decode()})
                start = end + 1
        else:
            for start in range(0, len(batch), TOGETHER):
                for piece in self._pieces(batch.pick(range(start, min(start + TOGETHER, len(batch))))):
                    await send({"type": "websocket.send", "bytes": piece})
        self._bytes += len(data)

    async def answer(self, result: dict[str, Any]) -> None:
        """Send the result of a client's command; a client that has gone needs none."""
        with contextlib.suppress(ClientGone):
            await self._send({"type": "websocket.send", "text": orjson.dumps(result).decode()})

    async def close(self, code: int) -> None:
        """Send the close frame, unless the client has gone."""
        with contextlib.suppress(ClientGone):
            await self._send({"type": "websocket.close", "code": code})


class WebSockets:
    """Serves /sub to WebSocket clients."""

    def __init__(self, options: GatewayOptions, subscribing: Subscribing, sessions: AckSessions) -> None:
        self._capabilities = options.engine.capabilities
        self._max_in_flight = options.max_in_flight
        self._shows_json = options.decoder is not None
        self._subscribing = subscribing
        self._sessions = sessions

    async def serve(self, request: Request) -> None:
        params = read_subscribe_params(
            request.values, "", self._max_in_flight, websocket=True, shows_json=self._shows_json
        )
        async with self._subscribing.subscribed(request, params) as source:
            session = self._sessions.open(request.caller, params.msg_timeout) if params.acks else None
            stream = _Stream(request, params)
            delivery = StreamDelivery(
                source, stream, params.rendering, self._subscribing.counts,
                where=params.where, count=params.count, session=session,
            )  # fmt: skip
            is_final = session is None and bool(params.channel)
            await accept(request, self._subscribing.proxy_warning.headers(request.head, "/sub") if is_final else [])
            listening = asyncio.create_task(self._listen(request, stream, session, source))
            try:
                tracked = request.scope.get("tracked")
                with counted_memory(self._subscribing.budget, source, delivery, tracked, params.source):
                    await delivery.run()
                if session is not None:
                    await self._subscribing.wait_acknowledged(source, session, params, listening)
                if not stream.gone:
                    code = GOING_AWAY if self._subscribing.stopping else NORMAL
                    await stream.close(code)
            except SourceFailed:
                await stream.close(INTERNAL_ERROR)
            finally:
                listening.cancel()
                stream.gone = True
                if session is not None:
                    self._sessions.close(session)

    async def _listen(
        self, request: Request, stream: _Stream, session: AckSession | None, source: DeliverySource
    ) -> None:
        """Execute the commands of the client until it disconnects."""
        while True:
            message = await request.receive_raw()
            if message["type"] == "websocket.disconnect":
                stream.gone = True
                source.end()
                return
            text = message.get("text")
            if text is None:
                text = message.get("bytes") or b""
            await stream.answer(_run_command(text, session, self._capabilities, asyncio.get_running_loop().time()))


def _run_command(
    text: str | bytes, session: AckSession | None, capabilities: Capabilities, now: float
) -> dict[str, Any]:
    """Do what one command of the client asks for. Returns the result that is sent to it, or {"error": …}."""
    if session is None:
        return {"error": "the gateway finishes the messages of this stream: commands need ack=client"}
    try:
        command = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return {"error": f"the command is not JSON: {error}"}
    words = [word for word in ("finish", "requeue", "touch") if isinstance(command, dict) and word in command]
    if len(words) != 1:
        return {"error": 'a command is {"finish": [ids]}, {"requeue": [ids], "delay": ms} or {"touch": [ids]}'}
    word = words[0]
    ids, delay = command[word], command.get("delay", 0)
    if not isinstance(ids, list) or not all(isinstance(ident, str) for ident in ids):
        return {"error": f"{word} takes an array of message ids"}
    if type(delay) is not int or not 0 <= delay <= MAX_DEFER:
        return {"error": f"delay is in ms, 0 to {MAX_DEFER}"}
    unsupported = (delay and advice(capabilities, "requeue_delay", "delay")) or (
        word == "touch" and advice(capabilities, "touch", "touch")
    )
    if unsupported:
        return {"error": unsupported}
    if word == "finish":
        count, unknown = session.finish(ids)
    elif word == "requeue":
        count, unknown = session.requeue(ids, delay)
    else:
        count, unknown = session.touch(ids, now)
    return {word: count, "unknown": unknown}

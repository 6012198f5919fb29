"""/message: one message, for scripts. In: topic and channel. Out: its body, finished once the client has it; or 204."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from qtools.pubsub_http.app import Answer
from qtools.pubsub_http.consumers import ConsumerSource
from qtools.pubsub_http.delivery import LAST_LOOK, PATIENCE
from qtools.pubsub_http.subscribe import Subscribing
from qtools.pubsub_http.wants import Wants
from qtools.web.sender import ClientGone, Sender
from qtools.web.wire import Wire

if TYPE_CHECKING:
    from qtools.pubsub_http.app import App, Request

# A message that is there needs this long from nsqd, which may hold it back in its buffer.
LEAST_WAIT = 0.5


class Taking:
    """Serves it."""

    def __init__(self, subscribing: Subscribing) -> None:
        self._subscribing = subscribing

    async def message(self, app: App, request: Request) -> Answer | None:
        values = request.values
        wants = Wants(
            topic=values["topic"], channel=values["channel"], form="raw", acks=False, where=None, max_in_flight=1,
            count=1, timeout=max(LEAST_WAIT, values["wait"]), until_empty=False, msg_timeout=60.0,
        )  # fmt: skip
        wire: Wire | None = request.scope.get("wire")
        async with self._subscribing.subscribed(request, wants) as source:
            assert isinstance(source, ConsumerSource)
            gone = asyncio.create_task(_wait_gone(request, source))
            try:
                parcel = await source.read()
                if gone.done():
                    return None  # what was read goes back
            finally:
                gone.cancel()
            if parcel is None:
                return Answer(b"", [(b"cache-control", b"no-store")], 204)
            message = parcel.batch.messages[0]
            headers = app.stream_headers(
                request,
                (b"content-type", b"application/octet-stream"),
                (b"content-length", b"%d" % len(message.body)),
                (b"q-message-id", message.id),
                (b"q-attempts", b"%d" % message.attempts),
                (b"q-timestamp", b"%d" % message.timestamp),
                *self._subscribing.proxy_warning.headers(request.head, "/message"),
            )
            sender = Sender(request.send, wire)
            try:
                await sender.send({"type": "http.response.start", "status": 200, "headers": headers})
                await sender.send({"type": "http.response.body", "body": message.body, "more_body": True})
            except ClientGone:
                return None  # the message goes back
            end = 0 if wire is None else wire.written
            await request.send({"type": "http.response.body", "body": b""})
            self._subscribing.counts.sent += 1
            self._subscribing.counts.sent_bytes += len(message.body)
            if wire is None or await _is_taken(wire, end):
                parcel.batch.finish()
                self._subscribing.counts.finished += 1
        return None


async def _is_taken(wire: Wire, end: int) -> bool:
    """Whether the client's side has taken the first `end` bytes of the connection; waits for it at most PATIENCE."""
    pause, waited = 0.001, 0.0
    while wire.taken < end:
        if waited > PATIENCE or wire.is_closed:
            return False
        await asyncio.sleep(pause)
        waited += pause
        pause = min(LAST_LOOK, pause * 2)
    return True


async def _wait_gone(request: Request, source: ConsumerSource) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    source.end()

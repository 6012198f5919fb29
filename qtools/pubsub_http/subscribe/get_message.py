"""/message: one message, for scripts. In: topic and channel. Out: its body, finished once it is received; or 204.

What the message has besides a body is in headers of the response. A key of printable ASCII is there as it is, any other
in base64; the message's headers are JSON in ASCII, in the form that envelopes have.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from qtools.attributes import TOMBSTONE, headers_as_json
from qtools.message import Batch
from qtools.pubsub_http.api.asgi_app import Answer
from qtools.pubsub_http.subscribe.consumers import ConsumerSource
from qtools.pubsub_http.subscribe.delivery import LAST_LOOK, PATIENCE
from qtools.pubsub_http.subscribe.http_stream import Subscribing
from qtools.pubsub_http.subscribe.subscribe_params import SubscribeParams
from qtools.web.sender import ClientGone, Sender
from qtools.web.tracked_transport import TrackedTransport

if TYPE_CHECKING:
    from qtools.pubsub_http.api.asgi_app import App, Request

LEAST_WAIT = 0.5  # s: nsqd may keep a message in its output buffer for 250 ms
LONGEST = 8192  # bytes of one header of the response: proxies and clients refuse a head that is much larger
_PLAIN = re.compile(rb"(?:[!-~](?:[ -~]*[!-~])?)?")  # what the value of a header keeps as it is (RFC 9110, 5.5)


class GetMessage:
    """Serves /message."""

    def __init__(self, subscribing: Subscribing) -> None:
        self._subscribing = subscribing

    async def message(self, app: App, request: Request) -> Answer | None:
        values = request.values
        params = SubscribeParams(
            topic=values["topic"], channel=values["channel"], form="raw", acks=False, where=None, max_in_flight=1,
            count=1, timeout=max(LEAST_WAIT, values["wait"]), until_empty=False, msg_timeout=60.0,
        )  # fmt: skip
        tracked: TrackedTransport | None = request.scope.get("tracked")
        async with self._subscribing.subscribed(request, params) as source:
            assert isinstance(source, ConsumerSource)
            gone = asyncio.create_task(_wait_gone(request, source))
            try:
                rendered = await source.read()
                if gone.done():
                    return None  # the message is requeued
            finally:
                gone.cancel()
            if rendered is None:
                return Answer(b"", [(b"cache-control", b"no-store")], 204)
            message = rendered.batch.messages[0]
            headers = app.stream_headers(
                request,
                (b"content-type", b"application/octet-stream"),
                (b"content-length", b"%d" % len(message.body)),
                (b"q-message-id", message.id),
                (b"q-attempts", b"%d" % message.attempts),
                (b"q-timestamp", b"%d" % message.timestamp),
                *attribute_headers(rendered.batch),
                *self._subscribing.proxy_warning.headers(request.head, "/message"),
            )
            sender = Sender(request.send, tracked)
            try:
                await sender.send({"type": "http.response.start", "status": 200, "headers": headers})
                await sender.send({"type": "http.response.body", "body": message.body, "more_body": True})
            except ClientGone:
                return None  # the message is requeued
            end = 0 if tracked is None else tracked.written
            await request.send({"type": "http.response.body", "body": b""})
            self._subscribing.counts.sent += 1
            self._subscribing.counts.sent_bytes += len(message.body)
            if tracked is None or await _is_taken(tracked, end):
                rendered.batch.finish()
                self._subscribing.counts.finished += 1
        return None


def attribute_headers(batch: Batch) -> list[tuple[bytes, bytes]]:
    """What the first message of `batch` has besides a body, as headers of a response."""
    made: list[tuple[bytes, bytes]] = []
    if batch.bodies[0] is TOMBSTONE:
        made.append((b"q-tombstone", b"true"))
    attributes = batch.attributes()
    if attributes is None:
        return made
    keys, headers, _, partitions, offsets, *_ = attributes
    if partitions is not None and offsets is not None:
        made += [(b"q-partition", b"%d" % partitions[0]), (b"q-offset", b"%d" % offsets[0])]
    if keys is not None and (key := keys[0]) is not None:
        if _PLAIN.fullmatch(key):
            made.append((b"q-key", bytes(key)))
        else:
            import base64  # imported late, as most keys are text

            made.append((b"q-key-base64", base64.b64encode(key)))
    if headers is not None and headers[0]:
        import json  # orjson has no option to write ASCII only

        made.append((b"q-headers", json.dumps(headers_as_json(headers[0]), separators=(",", ":")).encode("ascii")))
    for header in [header for header in made if len(header[1]) > LONGEST]:
        made.remove(header)
        name = header[0].decode().title()
        made.append((b"q-warning", f"{name} would have {len(header[1])} bytes and is left out: use /sub".encode()))
    return made


async def _is_taken(tracked: TrackedTransport, end: int) -> bool:
    """Whether the client's kernel has acknowledged the first `end` bytes; waits for that at most PATIENCE s."""
    pause, waited = 0.001, 0.0
    while tracked.taken < end:
        if waited > PATIENCE or tracked.is_closed:
            return False
        await asyncio.sleep(pause)
        waited += pause
        pause = min(LAST_LOOK, pause * 2)
    return True


async def _wait_gone(request: Request, source: ConsumerSource) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    source.end()

"""/sub as a stream, and what HTTP streams and WebSockets share. In: a request. Out: messages, until the stream ends.

A subscriber with a channel has its own consumer: its ready count follows its own speed, and its unfinished messages are
requeued when it disconnects. Subscribers without a channel share a temporary one (fanout.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from qtools.engines.capabilities import what_is_missing
from qtools.errors import QtoolsError
from qtools.message import Batch
from qtools.pubsub_http.api.capabilities import NOT_SUPPORTED
from qtools.pubsub_http.api.proxies import ProxyWarning
from qtools.pubsub_http.options import GatewayOptions
from qtools.pubsub_http.publish.publish_batcher import refusal_of
from qtools.pubsub_http.subscribe.consumers import Consumers, ConsumerSource
from qtools.pubsub_http.subscribe.delivery import (
    DeliveryCounts,
    DeliverySource,
    SourceFailed,
    StreamDelivery,
    TrackedStream,
)
from qtools.pubsub_http.subscribe.fanout import Fanouts
from qtools.pubsub_http.subscribe.resume import EventStream, Resumption, parse_last_event_id
from qtools.pubsub_http.subscribe.sessions import AckSession, AckSessions
from qtools.pubsub_http.subscribe.stream_memory import counted_memory
from qtools.pubsub_http.subscribe.subscribe_params import MEDIA, SubscribeParams, read_subscribe_params
from qtools.web.memory_budget import MemoryBudget
from qtools.web.request_body import Refusal
from qtools.web.sender import ClientGone
from qtools.web.tracked_transport import TrackedTransport

if TYPE_CHECKING:
    from qtools.pubsub_http.api.access import Access
    from qtools.pubsub_http.api.asgi_app import App, Request
    from qtools.pubsub_http.api.tokens import Caller

log = logging.getLogger("qtools.pubsub")

PIECE = 64 * 1024  # bytes that are written at once: about two pieces wait for a client that does not read
RETRY_MS = 1000  # how long a browser waits before it reconnects


class HttpStream(TrackedStream):
    """The answer to GET /sub."""

    async def send(self, data: bytes, batch: Batch) -> None:
        if len(data) <= PIECE:
            await self.send_bytes(data)
            return
        whole = memoryview(data)  # may be shared with other streams: each copies one piece at a time
        for start in range(0, len(data), PIECE):
            await self.send_bytes(whole[start : start + PIECE])

    async def send_bytes(self, data: bytes | memoryview) -> None:
        """Write bytes that are not a message, or a piece of messages."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
        self._bytes += len(data)


class Subscribing:
    """All streams of a gateway."""

    def __init__(
        self,
        options: GatewayOptions,
        access: Access,
        sessions: AckSessions,
        fanouts: Fanouts,
        resumption: Resumption,
        budget: MemoryBudget,
    ) -> None:
        self.budget = budget
        self.counts = DeliveryCounts()
        self.open = 0
        self._options = options
        self._access = access
        self._sessions = sessions
        self._fanouts = fanouts
        self._consumers = Consumers(options, budget)
        self._sources: set[DeliverySource] = set()
        self._stopped = asyncio.Event()
        self._resumption = resumption
        self.proxy_warning = ProxyWarning(options.behind_proxy)
        self._loop = asyncio.get_running_loop()

    def stop(self) -> None:
        """End every stream."""
        self._stopped.set()
        for source in tuple(self._sources):
            source.end()

    @property
    def stopping(self) -> bool:
        return self._stopped.is_set()

    # ── for both kinds ──

    @asynccontextmanager
    async def subscribed(self, request: Request, params: SubscribeParams) -> AsyncIterator[DeliverySource]:
        """A source for `params`, within the limits of the caller; it is closed at the end of the context."""
        caller = request.caller
        most = self._access.most_subscriptions(caller)
        if self.stopping:
            raise Refusal(503, "EXITING", "the gateway is about to stop", [(b"retry-after", b"1")])
        if most is not None and caller.subscriptions >= most:
            raise Refusal(
                429, "TOO_MANY_SUBSCRIPTIONS", f"this token may have {most} streams at once", [(b"retry-after", b"5")]
            )
        caller.subscriptions += 1
        self.open += 1
        source: DeliverySource | None = None
        timers: list[asyncio.TimerHandle] = []
        watch: asyncio.Task[None] | None = None
        try:
            source = await self._source(caller, params)
            self._check_time(params, source)
            self._sources.add(source)
            if self.stopping:
                source.end()
            if params.timeout is not None:
                timers.append(self._loop.call_later(params.timeout, source.end))
            if params.until_empty and isinstance(source, ConsumerSource):
                watch = asyncio.create_task(self._end_when_empty(source))
            yield source
        finally:
            caller.subscriptions -= 1
            self.open -= 1
            for timer in timers:
                timer.cancel()
            if watch is not None:
                watch.cancel()
            if source is not None:
                self._sources.discard(source)
                await source.close()

    async def _source(self, caller: Caller, params: SubscribeParams) -> DeliverySource:
        try:
            if not params.channel and not params.acks:
                return await self._fanouts.join(params.topic)
            return await self._consumers.open(caller.name, params)
        except QtoolsError as error:
            raise refusal_of(error) from error

    def _check_time(self, params: SubscribeParams, source: DeliverySource) -> None:
        """Refuse a msg_timeout that is longer than the broker waits, if the engine cannot extend that."""
        missing = what_is_missing(self._options.engine.capabilities, "touch")
        if params.acks and missing and isinstance(source, ConsumerSource):
            most = source.consumer.acknowledgement_timeout
            if most is not None and params.msg_timeout > most:
                raise Refusal(
                    501, NOT_SUPPORTED, f"msg_timeout: {missing}, and the broker waits {most:g} s: give at most that"
                )

    async def _end_when_empty(self, source: ConsumerSource) -> None:
        try:
            await source.consumer.wait_until_empty()
        except QtoolsError as error:
            log.warning("a stream that was to end when its channel is empty ended now: %s", error)
        except Exception as error:
            log.error("internal error in until_empty, whose stream ended now: %s: %s", type(error).__name__, error)
            log.debug("internal error", exc_info=error)
        source.end()

    async def wait_acknowledged(
        self, source: DeliverySource, session: AckSession, params: SubscribeParams, gone: asyncio.Task[None] | None
    ) -> None:
        """After the last message: wait until the client has acknowledged all, its time is over, or it is `gone`."""
        if isinstance(source, ConsumerSource):
            source.rest()
        else:
            source.end()
        less = asyncio.Event()
        session.on_less = less.set
        until = self._loop.time() + params.msg_timeout
        while len(session) and not self.stopping and self._loop.time() < until and (gone is None or not gone.done()):
            less.clear()
            waits = [asyncio.create_task(less.wait()), asyncio.create_task(self._stopped.wait())]
            await asyncio.wait(
                waits if gone is None else [*waits, gone],
                timeout=until - self._loop.time(),
                return_when=asyncio.FIRST_COMPLETED,
            )
            for wait in waits:
                wait.cancel()

    # ── HTTP ──

    async def sub(self, app: App, request: Request) -> None:
        """GET /sub."""
        accept = request.head.get(b"accept", b"").decode("latin-1")
        params = read_subscribe_params(
            request.values, accept, self._options.max_in_flight, shows_json=self._options.decoder is not None
        )
        tracked: TrackedTransport | None = request.scope.get("tracked")
        stream = HttpStream(request.send, tracked)
        async with self.subscribed(request, params) as source:
            session = self._sessions.open(request.caller, params.msg_timeout) if params.acks else None
            events: EventStream | None = None
            arrived: set[bytes] | None = None
            if params.form == "sse" and session is None and params.channel:
                arrived = await self._arrived(params, request)
                events = self._resumption.open(
                    request.caller.name, params.topic, params.channel, partial(_cut, tracked, source)
                )
            delivery = StreamDelivery(
                source, stream, params.rendering, self.counts,
                where=params.where, count=params.count, session=session, arrived=arrived,
                suffix=b"" if events is None else events.suffix,
            )  # fmt: skip
            if tracked is not None:
                tracked.is_stream = True
                tracked.keep_alive(self._options.heartbeat)
            beat = self._loop.call_later(self._options.heartbeat, self._beat, stream, tracked, params.form, [])
            gone = asyncio.create_task(_wait_gone(request, stream, source))
            try:
                await self._begin(app, request, params, session, stream)
                with counted_memory(self.budget, source, delivery, tracked, params.source):
                    await delivery.run()
                if not stream.gone:
                    gone.cancel()
                    await request.send({"type": "http.response.body", "body": b""})
                    if session is not None:  # the stream has ended in order: the client has time to acknowledge
                        beat.cancel()
                        await self.wait_acknowledged(source, session, params, None)
            except ClientGone:
                pass  # before the stream had begun
            except SourceFailed:
                if not stream.gone and tracked is not None:
                    tracked.abort()  # without the end of a chunked body the client sees that something is missing
            finally:
                gone.cancel()
                stream.gone = True
                beat.cancel()
                if session is not None:
                    self._sessions.close(session)  # while the source still has its connections
                if events is not None:
                    self._resumption.close(events, delivery.unsettled(), delivery.expected())

    async def _begin(
        self, app: App, request: Request, params: SubscribeParams, session: AckSession | None, stream: HttpStream
    ) -> None:
        headers = app.stream_headers(request, (b"content-type", MEDIA[params.form].encode()))
        headers.append((b"x-accel-buffering", b"no"))  # otherwise nginx buffers small pieces
        if session is not None:
            headers.append((b"q-session", session.name.encode()))
        elif params.channel:
            headers += self.proxy_warning.headers(request.head, "/sub")
        await request.send({"type": "http.response.start", "status": 200, "headers": headers})
        if params.form == "sse":  # an EventSource fires no event before the first bytes have arrived
            hello = b"retry: %d\n\n" % RETRY_MS
            if session is not None:
                hello += b"event: session\ndata: " + session.name.encode() + b"\n\n"
            await stream.send_bytes(hello)

    def _beat(self, stream: HttpStream, tracked: TrackedTransport | None, form: str, last: list[int]) -> None:
        """Regularly: end the stream of a dead client, and send a comment on an idle event stream."""
        if stream.gone:
            return
        if tracked is not None and tracked.is_dead(2 * self._options.heartbeat):
            log.info("a subscriber does not acknowledge anything any more")
            tracked.abort()
            return
        if (
            form == "sse" and last == [stream.written] and stream.taken == stream.written
        ):  # else it is not idle but slow
            task = self._loop.create_task(stream.send_bytes(b":\n\n"))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._loop.call_later(self._options.heartbeat, self._beat, stream, tracked, form, [stream.written])

    # ── event streams that reconnect ──

    async def _arrived(self, params: SubscribeParams, request: Request) -> set[bytes] | None:
        """The messages that had arrived of the stream that broke, by its Last-Event-ID."""
        last = request.head.get(b"last-event-id", b"")
        resume = parse_last_event_id(last, request.caller.name, params.topic, params.channel)
        return None if resume is None else await self._resumption.arrived(resume)


def _cut(tracked: TrackedTransport | None, source: DeliverySource) -> None:
    """End a stream whose client has come back on another connection."""
    if tracked is not None:
        tracked.abort()
    source.end()


async def _wait_gone(request: Request, stream: HttpStream, source: DeliverySource) -> None:
    """Wait until the client disconnects; then end the source."""
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            stream.gone = True
            source.end()
            return

"""/sub as a stream, and what HTTP streams and WebSockets share. In: a request. Out: messages, until somebody ends it.

A channel that was named is read by a consumer of this client's own: its ready count is its own speed, and what it has
not finished goes back when it is gone. Who named none shares a hub.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from qtools.client.ends import wait_until_empty
from qtools.errors import QtoolsError
from qtools.message import Batch
from qtools.pubsub_http.consumers import Consumers, ConsumerSource
from qtools.pubsub_http.delivery import Counts, Delivery, Source, WireStream
from qtools.pubsub_http.hub import Hubs
from qtools.pubsub_http.options import GatewayOptions
from qtools.pubsub_http.outlet import refusal_of
from qtools.pubsub_http.proxies import ProxyWarning
from qtools.pubsub_http.resume import EventStream, Resumption, parse_last_event_id
from qtools.pubsub_http.sessions import Session, Sessions
from qtools.pubsub_http.stream_memory import counted_memory
from qtools.pubsub_http.wants import MEDIA, Wants, read_wants
from qtools.web.bodies import Refusal
from qtools.web.memory_budget import MemoryBudget
from qtools.web.sender import ClientGone
from qtools.web.wire import Wire

if TYPE_CHECKING:
    from qtools.pubsub_http.access import Access
    from qtools.pubsub_http.app import App, Request
    from qtools.pubsub_http.tokens import Caller

log = logging.getLogger("qtools.pubsub")

PIECE = 64 * 1024  # bytes that are handed to a transport at once; a client that does not read holds about two of them
RETRY_MS = 1000  # what a browser waits before it comes back


class HttpStream(WireStream):
    """The answer to GET /sub."""

    async def send(self, data: bytes, batch: Batch) -> None:
        if len(data) <= PIECE:
            await self.say(data)
            return
        whole = memoryview(data)  # may be shared with other streams: each copies one piece at a time
        for start in range(0, len(data), PIECE):
            await self.say(whole[start : start + PIECE])

    async def say(self, data: bytes | memoryview) -> None:
        """Write something that is no message, or a piece of what is."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
        self._bytes += len(data)


class Subscribing:
    """All streams of a gateway."""

    def __init__(
        self,
        options: GatewayOptions,
        access: Access,
        sessions: Sessions,
        hubs: Hubs,
        resumption: Resumption,
        budget: MemoryBudget,
    ) -> None:
        self.budget = budget
        self.counts = Counts()
        self.open = 0
        self._options = options
        self._access = access
        self._sessions = sessions
        self._hubs = hubs
        self._consumers = Consumers(options, budget)
        self._sources: set[Source] = set()
        self._stopped = asyncio.Event()
        self._resumption = resumption
        self.proxy_warning = ProxyWarning(options.behind_proxy)
        self._loop = asyncio.get_running_loop()

    def stop(self) -> None:
        """Let every stream come to its end."""
        self._stopped.set()
        for source in tuple(self._sources):
            source.end()

    @property
    def stopping(self) -> bool:
        return self._stopped.is_set()

    # ── for both kinds ──

    @asynccontextmanager
    async def subscribed(self, request: Request, wants: Wants) -> AsyncIterator[Source]:
        """A source of what is wanted, within the caller's limits; closed afterwards."""
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
        source: Source | None = None
        timers: list[asyncio.TimerHandle] = []
        watch: asyncio.Task[None] | None = None
        try:
            source = await self._source(caller, wants)
            self._sources.add(source)
            if self.stopping:
                source.end()
            if wants.timeout is not None:
                timers.append(self._loop.call_later(wants.timeout, source.end))
            if wants.until_empty and isinstance(source, ConsumerSource):
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

    async def _source(self, caller: Caller, wants: Wants) -> Source:
        try:
            if not wants.channel and not wants.acks:
                return await self._hubs.join(wants.topic)
            return await self._consumers.open(caller.name, wants)
        except QtoolsError as error:
            raise refusal_of(error) from error

    async def _end_when_empty(self, source: ConsumerSource) -> None:
        try:
            await wait_until_empty(source.consumer)
        except QtoolsError as error:
            log.warning("a stream that was to end when its channel is empty ended now: %s", error)
        source.end()

    async def wait_acknowledged(
        self, source: Source, session: Session, wants: Wants, gone: asyncio.Task[None] | None
    ) -> None:
        """After the last message the client still has to say what became of it: until it has, or has `gone`."""
        if isinstance(source, ConsumerSource):
            source.rest()
        else:
            source.end()
        less = asyncio.Event()
        session.on_less = less.set
        until = self._loop.time() + wants.msg_timeout
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
        wants = read_wants(request.values, accept, self._options.max_in_flight)
        wire: Wire | None = request.scope.get("wire")
        stream = HttpStream(request.send, wire)
        async with self.subscribed(request, wants) as source:
            session = self._sessions.open(request.caller, wants.msg_timeout) if wants.acks else None
            events: EventStream | None = None
            arrived: set[bytes] | None = None
            if wants.form == "sse" and session is None and wants.channel:
                arrived = await self._arrived(wants, request)
                events = self._resumption.open(
                    request.caller.name, wants.topic, wants.channel, partial(_cut, wire, source)
                )
            delivery = Delivery(
                source, stream, wants.form, self.counts,
                where=wants.where, count=wants.count, session=session, arrived=arrived,
                suffix=b"" if events is None else events.suffix,
            )  # fmt: skip
            if wire is not None:
                wire.is_stream = True
                wire.keep_alive(self._options.heartbeat)
            beat = self._loop.call_later(self._options.heartbeat, self._beat, stream, wire, wants.form, [])
            gone = asyncio.create_task(_wait_gone(request, stream, source))
            try:
                await self._begin(app, request, wants, session, stream)
                with counted_memory(self.budget, source, delivery, wire, wants.source):
                    await delivery.run()
                if not stream.gone:
                    gone.cancel()
                    await request.send({"type": "http.response.body", "body": b""})
                    if session is not None:  # its stream has ended in order, so it has time to say the rest
                        beat.cancel()
                        await self.wait_acknowledged(source, session, wants, None)
            except ClientGone:
                pass  # before the stream had begun
            finally:
                gone.cancel()
                stream.gone = True
                beat.cancel()
                if session is not None:
                    self._sessions.close(session)  # while the source still has its connections
                if events is not None:
                    self._resumption.close(events, delivery.unsettled(), delivery.expected())

    async def _begin(
        self, app: App, request: Request, wants: Wants, session: Session | None, stream: HttpStream
    ) -> None:
        headers = app.stream_headers(request, (b"content-type", MEDIA[wants.form].encode()))
        headers.append((b"x-accel-buffering", b"no"))  # nginx would hold small pieces back
        if session is not None:
            headers.append((b"q-session", session.name.encode()))
        elif wants.channel:
            headers += self.proxy_warning.headers(request.head, "/sub")
        await request.send({"type": "http.response.start", "status": 200, "headers": headers})
        if wants.form == "sse":  # an EventSource sees no headers, and calls nobody until something has come
            hello = b"retry: %d\n\n" % RETRY_MS
            if session is not None:
                hello += b"event: session\ndata: " + session.name.encode() + b"\n\n"
            await stream.say(hello)

    def _beat(self, stream: HttpStream, wire: Wire | None, form: str, last: list[int]) -> None:
        """Now and then: notice a dead client, and let an idle event stream see that we are there."""
        if stream.gone:
            return
        if wire is not None and wire.is_dead(2 * self._options.heartbeat):
            log.info("a subscriber answers nothing any more")
            wire.abort()
            return
        if (
            form == "sse" and last == [stream.written] and stream.taken == stream.written
        ):  # else it is not idle but slow
            task = self._loop.create_task(stream.say(b":\n\n"))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._loop.call_later(self._options.heartbeat, self._beat, stream, wire, form, [stream.written])

    # ── event streams that come back ──

    async def _arrived(self, wants: Wants, request: Request) -> set[bytes] | None:
        """The messages that had arrived of the stream that broke, by its Last-Event-ID."""
        last = request.head.get(b"last-event-id", b"")
        resume = parse_last_event_id(last, request.caller.name, wants.topic, wants.channel)
        return None if resume is None else await self._resumption.arrived(resume)


def _cut(wire: Wire | None, source: Source) -> None:
    """End a stream whose client has come back on another connection."""
    if wire is not None:
        wire.abort()
    source.end()


async def _wait_gone(request: Request, stream: HttpStream, source: Source) -> None:
    """Until the client hangs up; then the source ends, so that nobody waits for it."""
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            stream.gone = True
            source.end()
            return

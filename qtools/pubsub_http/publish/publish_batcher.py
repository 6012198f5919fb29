"""Publishes for all requests. In: topics and bodies. Out: the broker's answer to each request.

    requests of one turn of the event loop ─▶ one group for each topic ─▶ one publish ─▶ each request's answer

While WINDOW publishes are in progress, new requests wait and are published together: batches grow with the load.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from qtools.attributes import Attributes
from qtools.engines.contract import Engine, PublisherOptions
from qtools.errors import AuthError, BrokerError, MessageRefused, NetworkError, QtoolsError
from qtools.flow.keying import FixedAttributes
from qtools.web.memory_budget import OVERHEAD, MemoryBudget
from qtools.web.request_body import Refusal

log = logging.getLogger("qtools.pubsub")

WINDOW = 4
PUBLISHES = 0.5  # of the memory budget that may wait for brokers, so that a stalled broker ends no subscriber
GRACE = 0.5  # s longer than the publisher's own time limit, whose error says more than that time is up
RETRY_AFTER = [(b"retry-after", b"1")]


class _PublishRequest:
    """The messages of one request. done: ends with the broker's answer; its error is PublishRefused if the broker
    refused messages. attributes: keys and headers; None if the messages have none."""

    __slots__ = ("attributes", "bodies", "done", "memory", "topic")

    def __init__(
        self, topic: str, bodies: Sequence[bytes], done: asyncio.Future[None], attributes: Attributes | None
    ) -> None:
        self.topic = topic
        self.bodies = bodies
        self.done = done
        self.attributes = attributes
        self.memory = sum(map(len, bodies)) + OVERHEAD * len(bodies)  # bytes


class PublishRefused(Refusal):
    """`count` messages of a request were refused; the others were published."""

    def __init__(self, refusal: Refusal, count: int) -> None:
        super().__init__(refusal.status, refusal.word, refusal.detail, refusal.headers)
        self.count = count


class PublishBatcher:
    """Publishes to the brokers of `engine`. timeout: s that a request waits for the broker's answer."""

    def __init__(self, engine: Engine, timeout: float, budget: MemoryBudget) -> None:
        self.refused_for_memory = 0  # requests
        self.published = 0
        self.published_bytes = 0
        self._publisher = engine.publisher(PublisherOptions(retry_timeout=timeout))
        self._timeout = timeout
        self._budget = budget
        self._waiting_bytes = 0  # in memory until the broker answers
        self._waiting: list[_PublishRequest] = []
        self._writing: set[asyncio.Task[None]] = set()
        self._due = False
        self._has_attributes = False  # a request had a key or headers; until then, publishing does without any
        self._away = False  # no broker was reachable for `timeout`, nor has one connected since
        self._loop = asyncio.get_running_loop()

    async def start(self) -> None:
        """Connect; StartError when no broker could be reached."""
        await self._publisher.start()

    async def close(self) -> None:
        """Wait for the publishes in progress, and close the connections."""
        while self._waiting or self._writing:
            self._begin()
            await asyncio.wait(tuple(self._writing))
        await self._publisher.close()

    @property
    def connected(self) -> int:
        return self._publisher.connected

    @property
    def resent(self) -> int:
        return self._publisher.resent

    def submit(self, topic: str, bodies: Sequence[bytes], attributes: Attributes | None = None) -> asyncio.Future[None]:
        """Publish `bodies`; the future ends with the broker's OK, or a Refusal. attributes: their keys and headers."""
        done: asyncio.Future[None] = self._loop.create_future()
        if self._away:
            if not self._publisher.connected:
                done.set_exception(_away())
                return done
            self._away = False
        request = self._admit(topic, bodies, done, attributes)
        if request is None:
            done.set_exception(_no_memory())
            return done
        self._waiting.append(request)
        if not self._due and len(self._writing) < WINDOW:
            self._due = True
            self._loop.call_soon(self._begin)
        return done

    async def defer(self, topic: str, body: bytes, delay_ms: int, attributes: Attributes | None = None) -> None:
        """Publish one message that the broker holds back. There is no MPUB for that, so it goes alone."""
        request = self._admit(topic, [body], self._loop.create_future(), attributes)
        if request is None:
            raise _no_memory()
        await self._publish([request], delay_ms)
        await request.done

    def _admit(
        self, topic: str, bodies: Sequence[bytes], done: asyncio.Future[None], attributes: Attributes | None
    ) -> _PublishRequest | None:
        """A request whose memory is counted until it is answered; None where there is no room for it. An exception
        raised here would keep this frame, and so the bodies, for as long as the client's answer takes."""
        if self._waiting_bytes > self._budget.limit * PUBLISHES or self._budget.is_exhausted:
            self.refused_for_memory += 1
            return None
        request = _PublishRequest(topic, bodies, done, attributes)
        if attributes is not None:
            self._has_attributes = True
            request.memory += _size_of(attributes)
        self._waiting_bytes += request.memory
        return request

    def memory(self) -> int:
        """Bytes of what waits for the broker's answer."""
        return self._waiting_bytes

    def shed(self) -> str | None:
        """None: a publish in progress is not given up. New requests are refused while there is no memory."""
        return None

    def _begin(self) -> None:
        self._due = False
        if self._waiting and len(self._writing) < WINDOW:
            requests, self._waiting = self._waiting, []
            task = self._loop.create_task(self._publish(requests))
            self._writing.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._writing.discard(task)
        self._begin()

    async def _publish(self, requests: list[_PublishRequest], delay_ms: int = 0) -> None:
        try:
            await self._publish_all(requests, delay_ms)
        finally:
            self._waiting_bytes -= sum(request.memory for request in requests)

    async def _publish_all(self, requests: list[_PublishRequest], delay_ms: int) -> None:
        by_topic: dict[str, list[_PublishRequest]] = {}
        for request in requests:
            by_topic.setdefault(request.topic, []).append(request)
        groups = [(topic, _bodies(some)) for topic, some in by_topic.items()]
        more = {"attributes": FixedAttributes([*map(_attributes, by_topic.values())])} if self._has_attributes else {}
        try:
            async with asyncio.timeout(self._timeout + GRACE):
                refused = await self._publisher.publish(groups, delay_ms, **more)
        except TimeoutError:
            self._fail(requests, Refusal(504, "PUB_TIMEOUT", "the broker has not answered; it may have taken it"))
        except NetworkError as error:
            log.debug("cannot publish: %s", error)
            self._away = not self._publisher.connected
            self._fail(requests, _away())
        except QtoolsError as error:
            self._fail(requests, refusal_of(error))
        except BaseException as error:
            self._fail(requests, Refusal(500, "INTERNAL_ERROR"))
            if isinstance(error, asyncio.CancelledError):
                raise
            log.exception("internal error while publishing")
        else:
            for nth, some in enumerate(by_topic.values()):
                self._settle(some, {place: error for (group, place), error in refused.items() if group == nth})

    def _settle(self, requests: list[_PublishRequest], refused: dict[int, QtoolsError]) -> None:
        start = 0
        for request in requests:
            stop = start + len(request.bodies)
            ours = [error for place, error in refused.items() if start <= place < stop] if refused else None
            if not ours:
                self.published += len(request.bodies)
                self.published_bytes += sum(map(len, request.bodies))
                if not request.done.done():
                    request.done.set_result(None)
            else:
                self.published += len(request.bodies) - len(ours)
                _raise_in(request.done, PublishRefused(refusal_of(ours[0]), len(ours)))
            start = stop

    def _fail(self, requests: list[_PublishRequest], refusal: Refusal) -> None:
        for request in requests:
            _raise_in(request.done, refusal)


def _bodies(requests: list[_PublishRequest]) -> Sequence[bytes]:
    if len(requests) == 1:
        return requests[0].bodies
    return [body for request in requests for body in request.bodies]


def _attributes(requests: list[_PublishRequest]) -> Attributes:
    return Attributes.joined([(request.attributes or Attributes(), len(request.bodies)) for request in requests])


def _size_of(attributes: Attributes) -> int:
    """Bytes of all keys and headers."""
    keys = sum(len(key) for key in attributes.keys or () if key is not None)
    headers = sum(len(name) + len(value or b"") for some in attributes.headers or () for name, value in some)
    return keys + headers


def _raise_in(done: asyncio.Future[None], refusal: Refusal) -> None:
    if not done.done():
        done.set_exception(refusal)
        done.exception()  # the request that waited may have been cancelled


def _away() -> Refusal:
    return Refusal(503, "BROKER_UNAVAILABLE", "no broker can be reached just now", RETRY_AFTER)


def _no_memory() -> Refusal:
    return Refusal(
        503,
        "OUT_OF_MEMORY",
        "too much waits for the brokers or for slow clients (--max-memory); try again",
        RETRY_AFTER,
    )


def refusal_of(error: QtoolsError) -> Refusal:
    """The answer to a client for an error, with nsqd's error code where it has one."""
    if isinstance(error, MessageRefused):
        status, code = (413, "MSG_TOO_BIG") if error.is_too_large else (400, "BAD_MESSAGE")
        return Refusal(status, code, f"the message was not taken: {error}")
    if isinstance(error, AuthError):
        return Refusal(403, error.code.removeprefix("E_"), str(error))
    if isinstance(error, BrokerError) and error.code == "UNKNOWN_TOPIC":  # of an engine that creates none by itself
        return Refusal(404, "TOPIC_NOT_FOUND", str(error))
    if isinstance(error, BrokerError):
        return Refusal(502, error.code.removeprefix("E_"), str(error))
    return Refusal(503, "BROKER_UNAVAILABLE", str(error), RETRY_AFTER)

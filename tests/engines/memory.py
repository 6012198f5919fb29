"""An engine without a network, for tests of the contract: topics in this process. In: capabilities. Out: an Engine.

cumulative=False    each message is acknowledged by itself, by a handle that is no id (as JetStream's ack subjects)
cumulative=True     a channel is a position in the topic (as Kafka's offsets): finished in any order, committed up to
                    the lowest unfinished message; the handles of a batch are a range
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from typing import Any

from qtools.attributes import TOMBSTONE, Attributes, Headers
from qtools.engines.capabilities import Capabilities
from qtools.engines.contract import PublisherOptions, SourceOptions
from qtools.engines.requirements import channel_exists
from qtools.errors import MessageRefused, SourcePaused, StartError, UsageError
from qtools.flow.contract import GroupAttributes, Refused
from qtools.flow.ledger import Ledger
from qtools.message import Batch, Message, Messages
from qtools.names import EPHEMERAL, Subscription

EVERYTHING = Capabilities(
    engine="Memory", broker="memory", temporary_channels=True, deferred_publishing=True, requeue_delay=True, touch=True,
    peek=True, since=True, depths=True, pause=True, replication=True, keys_and_headers=True,
    empty_messages=True, tombstones=True, deletion=True, retention=True, partitions=True, replicas=True,
    exclusive_partitions=True, cumulative=True,
)  # fmt: skip


@dataclass
class Channel:
    """What one channel of a topic has: `waiting`, places in the topic, and `committed`, of a cumulative engine."""

    waiting: deque[int] = field(default_factory=deque)
    in_flight: int = 0
    deferred: int = 0  # that were requeued, and wait for their delay
    committed: int = 0
    paused: bool = False


@dataclass
class Topic:
    messages: list[Message] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    headers: list[Headers] = field(default_factory=list)
    attempts: dict[int, int] = field(default_factory=dict)
    channels: dict[str, Channel] = field(default_factory=dict)


class MemoryEngine:
    """One cluster. most: bytes of a body beyond which it is refused. is_down: nothing can be connected."""

    tls = None

    def __init__(self, capabilities: Capabilities = EVERYTHING, *, cumulative: bool = False, most: int = 1000) -> None:
        self.capabilities = capabilities
        self.cumulative = cumulative
        self.most = most
        self.is_down = False
        self.all: dict[str, Topic] = {}
        self.changed = asyncio.Event()
        self.touched = 0

    def source(self, subscriptions: Sequence[Subscription], options: SourceOptions | None = None) -> MemorySource:
        return MemorySource(self, subscriptions, options or SourceOptions())

    def publisher(self, options: PublisherOptions | None = None) -> MemoryPublisher:
        return MemoryPublisher(self, options or PublisherOptions())

    def topics(self) -> MemoryTopics:
        return MemoryTopics(self)

    def statistics(self) -> MemoryTopics:
        return MemoryTopics(self)

    async def peek(self, subscription: Subscription, count: int) -> list[Batch]:
        channel = self.topic(subscription.topic).channels.get(subscription.channel)
        if channel is None:
            raise UsageError(f"{subscription} does not exist")
        some = [self.topic(subscription.topic).messages[place] for place in list(channel.waiting)[:count]]
        return [Batch.of(PeekOrigin(subscription.topic), Messages.of(some))] if some else []

    async def delete(self, topic: str, channel: str = "") -> None:
        if not channel:
            self.all.pop(topic, None)
        elif topic in self.all:
            self.all[topic].channels.pop(channel, None)

    async def identity(self) -> frozenset[tuple[str, ...]]:
        return frozenset({("memory", str(id(self)))})

    def __str__(self) -> str:
        return "memory"

    # ── for tests ──

    def topic(self, name: str) -> Topic:
        return self.all.setdefault(name, Topic())

    def put(self, name: str, bodies: Sequence[bytes], attributes: Attributes | None = None) -> None:
        topic, count = self.topic(name), len(bodies)
        keys, headers, timestamps = (attributes or Attributes())[:3]
        topic.keys += keys or [None] * count
        topic.headers += headers or [()] * count
        for body, timestamp in zip(bodies, timestamps or [time.time_ns()] * count, strict=True):
            place = len(topic.messages)
            topic.messages.append(Message(timestamp, 1, b"%016x" % place, body if body is TOMBSTONE else bytes(body)))
            for channel in topic.channels.values():
                channel.waiting.append(place)
        self.changed.set()
        self.changed = asyncio.Event()

    def channel(self, subscription: Subscription) -> Channel:
        topic = self.topic(subscription.topic)
        channel = topic.channels.get(subscription.channel)
        if channel is None:
            channel = topic.channels[subscription.channel] = Channel()
            if len(topic.channels) == 1:  # the first channel of a topic gets what the topic has kept for it
                channel.waiting.extend(range(len(topic.messages)))
            else:
                channel.committed = len(topic.messages)
        return channel

    def bodies(self, name: str) -> list[bytes]:
        return [message.body for message in self.topic(name).messages]

    def left(self, subscription: Subscription) -> int:
        """Messages of a channel that are not finished."""
        channel = self.channel(subscription)
        if self.cumulative:
            return len(self.topic(subscription.topic).messages) - channel.committed
        return len(channel.waiting) + channel.in_flight + channel.deferred


class PeekOrigin:
    """The Origin of messages that were not taken: there is nothing to acknowledge."""

    address = "memory"
    is_lost = False

    def __init__(self, topic: str) -> None:
        self.topic = topic

    def finish(self, ids: Sequence[Any]) -> None: ...
    def requeue(self, ids: Sequence[Any], delay_ms: int) -> None: ...
    def touch(self, ids: Sequence[Any]) -> None: ...


class Delivery:
    """The Origin of what one read brought."""

    address = "memory"
    is_lost = False

    def __init__(self, engine: MemoryEngine, subscription: Subscription, ledger: Ledger | None = None) -> None:
        self.topic = subscription.topic
        self._engine = engine
        self._subscription = subscription
        self.ledger = ledger
        self.in_flight: set[int] = set()

    def begin(self, places: Sequence[int]) -> None:
        self.in_flight.update(places)
        self._engine.channel(self._subscription).in_flight += len(places)

    def finish(self, ids: Sequence[Any]) -> None:
        channel = self._forget(ids)
        if self.ledger is not None:
            self.ledger.finish([number for _, number in ids])
            channel.committed = self.ledger.confirmed

    def requeue(self, ids: Sequence[Any], delay_ms: int) -> None:
        channel = self._forget(ids)
        topic = self._engine.topic(self.topic)
        for _, place in ids:
            topic.attempts[place] = topic.attempts.get(place, 1) + 1
        channel.deferred += len(ids)

        def deliver() -> None:
            channel.deferred -= len(ids)
            channel.waiting.extendleft(place for _, place in reversed(ids))
            self._engine.changed.set()

        if delay_ms:
            asyncio.get_running_loop().call_later(delay_ms / 1000, deliver)
        else:
            deliver()

    def touch(self, ids: Sequence[Any]) -> None:
        self._engine.touched += len(ids)

    def messages_of(self, records: Sequence[Any], bodies: list[bytes]) -> Messages:
        topic = self._engine.topic(self.topic)
        made = [
            Message(topic.messages[place].timestamp, topic.attempts.get(place, 1), topic.messages[place].id, body)
            for place, body in zip(records, bodies, strict=True)
        ]
        return Messages.of(made)

    def delivered_more_than(self, times: int, records: Sequence[Any]) -> dict[int, int]:
        attempts = self._engine.topic(self.topic).attempts
        found = {place: attempts.get(record, 1) for place, record in enumerate(records)}
        return {place: deliveries for place, deliveries in found.items() if deliveries > times}

    def attributes_of(self, records: Sequence[Any], only: Container[str] = Attributes._fields) -> Attributes:
        topic = self._engine.topic(self.topic)
        made = Attributes(
            keys=[topic.keys[place] for place in records],
            headers=[topic.headers[place] for place in records],
            timestamps=[topic.messages[place].timestamp for place in records],
            partitions=[0] * len(records),
            offsets=records,
        )
        return Attributes(*(column if name in only else None for name, column in made._asdict().items()))

    def release(self) -> None:
        """Give back what is still in flight."""
        places = sorted(self.in_flight)
        if places:
            self.requeue([("handle", place) for place in places], 0)

    def _forget(self, ids: Sequence[Any]) -> Channel:
        assert all(kind == "handle" for kind, _ in ids)  # the handles that it gave out, and nothing else
        places = {place for _, place in ids}
        assert places <= self.in_flight
        self.in_flight -= places
        channel = self._engine.channel(self._subscription)
        channel.in_flight -= len(places)
        return channel


class MemorySource:
    def __init__(self, engine: MemoryEngine, subscriptions: Sequence[Subscription], options: SourceOptions) -> None:
        self.subscriptions = list(subscriptions)
        self.on_received: Callable[[int], None] | None = None
        self.received = self.redelivered = self.reconnects = self.acknowledgements_failed = self.unread_bytes = 0
        self.connected = 0
        self.lag = 0.0
        self.lag_messages: int | None = None
        self.acknowledgement_timeout: float | None = 60.0
        self.calls: list[str] = []
        self._engine = engine
        self._options = options
        self._left = options.limit
        self._is_ended = False
        self._something = asyncio.Event()
        self._deliveries: dict[Subscription, Delivery] = {}

    async def prepare(self) -> None:
        self.calls.append("prepare")
        if self._engine.is_down:
            raise StartError("memory: nothing listens there")
        for subscription in self._options.guarded:
            topic = self._engine.topic(subscription.topic)
            if topic.messages and not topic.channels:
                raise UsageError(f"{subscription.topic} has no channel yet and {len(topic.messages)} messages")
        if self._options.since is not None and not self._options.goes_on:
            for subscription in self.subscriptions:
                if subscription.channel in self._engine.topic(subscription.topic).channels:
                    raise channel_exists(subscription)

    async def start(self) -> None:
        self.calls.append("start")
        for subscription in self.subscriptions:
            await self.add(subscription, known=True)

    async def add(self, subscription: Subscription, known: bool = False) -> None:
        if not known:
            self.subscriptions.append(subscription)
        is_new = subscription.channel not in self._engine.topic(subscription.topic).channels
        channel = self._engine.channel(subscription)
        ledger = None
        if (since := self._options.since) is not None and is_new:
            stamps = [message.timestamp for message in self._engine.topic(subscription.topic).messages]
            channel.committed = sum(stamp < since * 1e9 for stamp in stamps)
            channel.waiting = deque(range(channel.committed, len(stamps)))
        if self._engine.cumulative:
            ledger = Ledger(channel.committed)
            channel.waiting = deque(range(channel.committed, len(self._engine.topic(subscription.topic).messages)))
        self._deliveries[subscription] = Delivery(self._engine, subscription, ledger)
        self.connected += 1

    @property
    def in_flight(self) -> int:
        return sum(len(delivery.in_flight) for delivery in self._deliveries.values())

    async def read(self) -> Batch | None:
        while not self._is_ended and self._left != 0:
            batches = [self._take(subscription) for subscription in self._deliveries]
            found = [batch for batch in batches if batch is not None]
            if found:
                return Batch.joined(found)
            changed = self._engine.changed
            waits = [asyncio.ensure_future(event.wait()) for event in (changed, self._something)]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED, timeout=0.05)
            for task in waits:
                task.cancel()
        return None

    def _take(self, subscription: Subscription) -> Batch | None:
        channel, delivery = self._engine.channel(subscription), self._deliveries[subscription]
        room = self._options.max_in_flight - self.in_flight
        if self._left is not None:
            room = min(room, self._left)
        if channel.paused or room <= 0 or not channel.waiting:
            return None
        places = [channel.waiting.popleft() for _ in range(min(room, len(channel.waiting)))]
        delivery.begin(places)
        if delivery.ledger is not None:
            new = [place for place in places if place >= delivery.ledger.end]
            if new:
                delivery.ledger.add(new[0], new[-1] + 1)
        topic = self._engine.topic(subscription.topic)
        self.received += len(places)
        self.redelivered += sum(place in topic.attempts for place in places)
        if self._left is not None:
            self._left -= len(places)
        bodies = [topic.messages[place].body for place in places]
        handles = [("handle", place) for place in places]
        has_records = self._engine.capabilities.keys_and_headers
        messages = None if has_records else delivery.messages_of(places, bodies)
        return Batch([(delivery, 0, len(places))], messages, bodies, handles, places if has_records else None)

    def end(self) -> None:
        self._is_ended = True
        self._something.set()

    discard = rest = end

    def resume(self, limit: int | None) -> None:
        self._is_ended, self._left = False, limit

    @property
    def may_resume(self) -> bool:
        return True

    async def wait_for_end(self) -> bool:
        ends = self._options.ends
        if not ends.flag and ends.idle_timeout is None:
            return False
        try:
            seen, since = self.received, time.monotonic()
            while True:
                await asyncio.sleep(0.01)
                if self.received != seen or self.in_flight:
                    seen, since = self.received, time.monotonic()
                paused = [each for each in self.subscriptions if self._engine.channel(each).paused]
                if paused and ends.fail_if_paused:
                    raise SourcePaused(str(paused[0]), "memory", self._engine.left(paused[0]))
                if ends.flag and not any(map(self._engine.left, self.subscriptions)):
                    return True
                if ends.idle_timeout is not None and time.monotonic() - since > ends.idle_timeout:
                    return True
        finally:
            self.end()

    async def wait_until_empty(self) -> None:
        while any(map(self._engine.left, self.subscriptions)):  # noqa: ASYNC110 - plain data, which has no event
            await asyncio.sleep(0.01)

    async def warn_later(self, named: Sequence[Subscription]) -> None:
        self.calls.append("warn_later")

    async def is_drained_on(self, before: Callable[[Subscription, str], bool], flag: str) -> bool:
        return not any(self._engine.left(each) for each in self.subscriptions if before(each, "memory"))

    def delivered_to_other_channels(self) -> dict[Subscription, int]:
        return {}

    async def close(self) -> None:
        self.end()
        for subscription, delivery in self._deliveries.items():
            delivery.release()
            if subscription.channel.endswith(EPHEMERAL):
                self._engine.topic(subscription.topic).channels.pop(subscription.channel, None)


class MemoryPublisher:
    def __init__(self, engine: MemoryEngine, options: PublisherOptions) -> None:
        self.options = options
        self.published = self.published_bytes = self.resent = self.unanswered = self.connected = self.reconnects = 0
        self._engine = engine

    async def start(self) -> None:
        if self._engine.is_down:
            raise StartError("memory: nothing listens there")
        self.connected = 1

    async def publish(
        self,
        groups: Sequence[tuple[str, Sequence[bytes]]],
        delay_ms: int | None = None,
        *,
        attributes: GroupAttributes | None = None,
    ) -> Refused:
        await asyncio.sleep(0)
        refused: Refused = {}
        known = attributes() if attributes and self._engine.capabilities.keys_and_headers else None
        for nth, (topic, bodies) in enumerate(groups):
            good = []
            for place, body in enumerate(bodies):
                if len(body) > self._engine.most:
                    refused[nth, place] = MessageRefused(f"{len(body)} bytes are more than {self._engine.most}")
                else:
                    good.append(place)
            some = known[nth].pick(good) if known else None
            taken, delay = [bodies[place] for place in good], self.options.delay_ms if delay_ms is None else delay_ms
            if delay and self._engine.capabilities.deferred_publishing:
                asyncio.get_running_loop().call_later(delay / 1000, self._engine.put, topic, taken, some)
            else:
                self._engine.put(topic, taken, some)
            self.published += len(good)
        return refused

    async def close(self) -> None:
        self.connected = 0


class MemoryTopics:
    """Topics and Statistics."""

    def __init__(self, engine: MemoryEngine) -> None:
        self._engine = engine

    async def look(self) -> set[str]:
        return set(self._engine.all)

    look_again = look

    async def topics(self) -> list[dict[str, Any]]:
        return [self._row(name, topic) for name, topic in sorted(self._engine.all.items())]

    def _row(self, name: str, topic: Topic) -> dict[str, Any]:
        return {
            "topic": name,
            "depth": len(topic.messages) if self._engine.capabilities.retention or not topic.channels else 0,
            "messages": len(topic.messages),
            "bytes": sum(len(message.body) for message in topic.messages),
            "paused": False,
            "channels": [
                {
                    "channel": label, "depth": len(channel.waiting), "in_flight": channel.in_flight,
                    "deferred": channel.deferred,
                    "messages": len(topic.messages), "requeued": 0, "timed_out": 0, "clients": 0,
                    "paused": channel.paused,
                }
                for label, channel in sorted(topic.channels.items())
            ],
        }  # fmt: skip

    async def close(self) -> None: ...

"""Publishes to Kafka: idempotent, confirmed by all replicas in sync. In: groups of bodies. Out: what was refused.

    publish ─▶ produce() a message ─▶ librdkafka's queue, bounded in bytes ─▶ batches ─▶ one delivery report a message

The reports are called back from poll(0), which a timer of the event loop calls while messages wait for theirs; so all
of this runs in one thread. Where no message was queued between two calls, none is coming before some are confirmed, and
a flush ends librdkafka's linger. Messages of one publish are queued in one piece, and publishes in the order of their
calls: the order within a partition is the order of the input.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

from qtools.attributes import TOMBSTONE, Attributes
from qtools.engines.contract import PublisherOptions
from qtools.engines.kafka.client_errors import (
    TOPIC_EXISTS,
    UNKNOWN_TOPIC_OR_PARTITION,
    error_of_code,
    error_of_topic,
)  # fmt: skip
from qtools.engines.kafka.clients import (
    CONNECT_TIMEOUT,
    ErrorLog,
    hasten_producer_id,
    largest_batch,
    library,
    look_at_cluster,
    make_admin,
    make_producer,
)  # fmt: skip
from qtools.engines.kafka.publish.refusals import (
    Groups,
    HeaderNames,
    Parts,
    PendingPublish,
    collect_refused,
    publish_in_parts,
)  # fmt: skip
from qtools.engines.kafka.settings import KafkaSettings
from qtools.errors import BrokerError, MessageRefused, NetworkError, QtoolsError, StartError, TopicMissing
from qtools.flow.contract import GroupAttributes, Refused

log = logging.getLogger("qtools.kafka")

POLL_INTERVAL = 0.001  # s between two looks at delivery reports
IDLE_POLL_INTERVAL = 0.5  # s, while no publish waits for one
FLUSH_TIMEOUT = 0.001  # s: librdkafka's threads notice a flush only while it runs, and the event loop stands so long
PROBE_INTERVAL = 2.0  # s between two questions to a cluster that was not there
LINGER_MS = 5  # that a batch waits for more messages, while more come; always for what a user has set
LINGER_NAMES = {"linger.ms", "queue.buffering.max.ms"}
QUEUED_KBYTES = 65_536  # of messages that wait in librdkafka; a publish waits beyond that
BATCH_BYTES = 1_000_000  # librdkafka's default of batch.size
MOST_BYTES = 1_000_000_000  # librdkafka's own limit of a message; the topic's is checked before
OVERHEAD = 100  # bytes of a batch around its only message: a header of 61, and lengths
LOOK_AGAIN = 1.0  # s between two looks for a topic that does not exist
ASK_AGAIN = 10.0  # s between two questions for the limit of a topic, while messages are larger
NOW = 0  # the timestamp of a message that has none: librdkafka uses the time of produce()


class _Target(NamedTuple):
    """Where messages of a topic are queued. largest: bytes that key and body of one message may have together; asked
    at the event loop's time `asked_at`."""

    producer: Any
    largest: int
    asked_at: float


class KafkaPublisher:
    """Publishes to one cluster; see engines/contract.py."""

    def __init__(self, settings: KafkaSettings, options: PublisherOptions) -> None:
        self.published = self.published_bytes = self.resent = 0
        self.reconnects: int | None = None  # librdkafka reconnects by itself
        self._settings, self._options = settings, options
        self._errors = ErrorLog(settings)
        self._producers: dict[int, Any] = {}  # by the bytes of their batches
        self._topics: set[str] = set()  # that exist
        self._targets: dict[str, _Target] = {}  # by topic
        self._header_names = HeaderNames()
        self._looked_at = float("-inf")
        self._requests = 0  # publishes that run
        self._ends_linger = not dict(settings.properties).keys() & LINGER_NAMES
        self._has_queued = False  # a publish, since the last poll
        self._is_lingering = False  # messages were queued since the last flush
        self._enqueue_lock = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._admin: Any = None
        self._is_closed = False
        self._probed_at = 0.0
        self._probe: asyncio.Task[None] | None = None

    # ── what the contract asks ──

    async def start(self) -> None:
        """Connect, and create the topics that messages will go to, if that was asked for; StartError when no broker
        could be reached or a topic cannot be created, TopicMissing."""
        self._producer(BATCH_BYTES)
        self._keep_polling()
        await self._look()
        for topic in self._options.topics:
            if topic in self._topics:
                continue
            if self._options.new_topics is None:
                raise TopicMissing(str(self._no_such_topic(topic)))
            if (failed := await self._create_if_new(topic)) is not None:
                raise StartError(f"{failed}")
        if self._options.new_topics is not None:
            return
        for topic in self._options.later_topics:
            if topic not in self._topics:
                log.warning(
                    "a message that cannot be delivered would go to the topic %s, which does not exist, so that the run"
                    " would end: %s", topic, self._how_to_create(),
                )  # fmt: skip

    def _how_to_create(self) -> str:
        flag = self._options.new_topics_flag
        return f"create it, or use {flag} default" if flag else "create it"

    def _no_such_topic(self, topic: str) -> QtoolsError:
        sentence = f"there is no such topic on the cluster: {self._how_to_create()}"
        return error_of_code(topic, UNKNOWN_TOPIC_OR_PARTITION, str(self._settings), sentence)

    async def publish(
        self,
        groups: Sequence[tuple[str, Sequence[bytes]]],
        delay_ms: int | None = None,
        *,
        attributes: GroupAttributes | None = None,
    ) -> Refused:
        """Publish all of `groups`; see the contract. Messages are refused with MessageRefused (too large, or not
        accepted by the topic) or BrokerError (the topic does not exist, or this user may not use it)."""
        refused: Refused = {}
        self._requests += 1
        begun = time.perf_counter()
        try:
            columns = attributes() if attributes is not None else [Attributes()] * len(groups)
            async with self._enqueue_lock:  # one publish after the other, in the order of their calls
                request = await self._enqueue_all(groups, columns, refused)
            await self._wait_for_reports(request)
            if suspects := self._collect_refused(request, groups, refused):
                async with self._enqueue_lock:  # no other message may come into their batches
                    for producer in list(self._producers.values()):
                        await self._wait_for_queue(producer, 0)
                    await publish_in_parts(groups, columns, suspects, refused, self._attempt)
        finally:
            self._requests -= 1
        count = sum(len(bodies) for _, bodies in groups) - len(refused)
        self.published += count
        self.published_bytes += sum(sum(map(len, bodies)) for _, bodies in groups)
        if self._options.on_published is not None and count:
            self._options.on_published(time.perf_counter() - begun, count)
        return refused

    async def close(self) -> None:
        """Drop what still waits, and end; publishes that still run are not completed."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._probe is not None:
            self._probe.cancel()
        for producer in self._producers.values():
            producer.purge()
            producer.poll(0)
        self._producers.clear()

    @property
    def unanswered(self) -> int:
        """Publishes that wait for a confirmation."""
        return self._requests

    @property
    def connected(self) -> int:
        """1 while a broker is connected."""
        return int(bool(self._producers) and not self._errors.is_down)

    # ── the queue of librdkafka ──

    def _producer(self, batch_bytes: int) -> Any:
        """The producer whose batches have at most `batch_bytes`: a broker refuses a larger one whole."""
        if batch_bytes not in self._producers:
            timeout = self._options.retry_timeout
            given = dict(self._settings.properties)
            defaults = {"linger.ms": LINGER_MS, "partitioner": "murmur2_random", "batch.size": batch_bytes}
            if given.keys() & LINGER_NAMES:
                del defaults["linger.ms"]
            properties = {key: value for key, value in defaults.items() if key not in given} | {
                "acks": "all",
                "enable.idempotence": True,
                "message.timeout.ms": 0 if timeout is None else max(2 * LINGER_MS, round(timeout * 1000)),
                "message.max.bytes": MOST_BYTES,
                "queue.buffering.max.kbytes": QUEUED_KBYTES,
                "queue.buffering.max.messages": 1_000_000,
            }
            self._producers[batch_bytes] = make_producer(self._settings, self._errors, properties)
        return self._producers[batch_bytes]

    async def _enqueue_all(self, groups: Groups, columns: Sequence[Attributes], refused: Refused) -> PendingPublish:
        """Put all messages of `groups` into the queue; those of a topic that cannot be used are added to `refused`."""
        request = PendingPublish()
        for number, (topic, bodies) in enumerate(groups):
            if topic not in self._targets and (error := await self._find(topic)) is not None:
                refused.update({(number, place): error for place in range(len(bodies))})
            else:
                await self._enqueue(request, number, topic, bodies, columns[number], refused)
        request.is_queued = self._has_queued = self._is_lingering = True
        return request

    async def _attempt(self, groups: Groups, columns: Sequence[Attributes], refused: Refused) -> Parts:
        """Publish all of `groups`. Adds to `refused`, and returns those that another message may have caused."""
        request = await self._enqueue_all(groups, columns, refused)
        await self._wait_for_reports(request)
        return self._collect_refused(request, groups, refused)

    async def _wait_for_reports(self, request: PendingPublish) -> None:
        if request.left:
            self._keep_polling()
            await request.done
            if not request.failed:
                self._errors.clear()

    async def _enqueue(
        self,
        request: PendingPublish,
        number: int,
        topic: str,
        bodies: Sequence[bytes],
        attributes: Attributes,
        refused: Refused,
    ) -> None:
        """Put the messages of one group into the queue; waits while it is full. BrokerError if the topic is refused."""
        producer, largest, asked_at = self._targets[topic]
        produce, report = producer.produce, request.reporter(number)
        keys, headers, timestamps = attributes[:3]
        partition = -1 if self._options.partition is None else self._options.partition
        is_plain = (
            keys is None
            and headers is None
            and timestamps is None
            and b"" not in bodies
            and max(map(len, bodies), default=0) <= largest
        )
        place, count = 0, len(bodies)
        while place < count:
            before = place
            try:
                if is_plain:
                    for body in islice(bodies, place, None):
                        produce(topic, body, None, partition, report)
                        place += 1
                else:
                    key = keys[place] if keys is not None else None
                    if (size := len(bodies[place]) + len(key or b"")) > largest:
                        refused[number, place] = MessageRefused(
                            f"it has {size:,} bytes, and {topic} accepts {largest:,} (max.message.bytes)"
                        )
                        if asyncio.get_running_loop().time() - asked_at > ASK_AGAIN:
                            self._targets.pop(topic, None)  # the next publish asks whether the limit was raised
                        place += 1
                        continue
                    if headers is not None and (fault := self._header_names.fault(headers[place])):
                        refused[number, place] = MessageRefused(fault, is_too_large=False)
                        place += 1
                        continue
                    produce(
                        topic,
                        None if bodies[place] is TOMBSTONE else bodies[place],
                        key,
                        partition,
                        request.reporter(number, place),
                        None,  # another name of the argument before
                        timestamps[place] // 1_000_000 if timestamps is not None else NOW,
                        list(headers[place]) if headers is not None else None,
                    )
                    place += 1
            except BufferError:
                request.left += place - before
                await self._wait_for_queue(producer, len(producer) - 1)
            except library().KafkaException as error:
                request.left += place - before
                raise error_of_topic(topic, error.args[0], str(self._settings)) from error
            else:
                request.left += place - before

    async def _wait_for_queue(self, producer: Any, most: int) -> None:
        """Return when at most `most` messages wait in librdkafka's queue or for their reports."""
        while len(producer) > most:
            producer.poll(0)
            self._raise_if_fatal()
            await asyncio.sleep(POLL_INTERVAL)

    def _keep_polling(self) -> None:
        """Let librdkafka call back its reports: often while publishes wait for them, and seldom while none does."""
        loop = asyncio.get_running_loop()
        due = loop.time() + (POLL_INTERVAL if self._requests else IDLE_POLL_INTERVAL)
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = loop.call_at(due, self._poll)

    def _poll(self) -> None:
        self._timer = None
        flushes = self._ends_linger and self._is_lingering and not self._has_queued
        for producer in self._producers.values():
            if flushes and len(producer):
                producer.flush(FLUSH_TIMEOUT)
            else:
                producer.poll(0)
        self._has_queued, self._is_lingering = False, self._is_lingering and not flushes
        if self._is_closed:
            return
        if self._errors.is_down and not self._requests and time.monotonic() - self._probed_at > PROBE_INTERVAL:
            self._probed_at = time.monotonic()
            self._probe = asyncio.create_task(self._ask_whether_it_is_back())
        self._keep_polling()

    async def _ask_whether_it_is_back(self) -> None:
        """While no broker is connected, and nothing is published that would show when one is."""
        with contextlib.suppress(StartError):
            await self._look()

    def _raise_if_fatal(self) -> None:
        if self._errors.fatal:
            raise BrokerError("FATAL", self._errors.fatal)

    def _collect_refused(self, request: PendingPublish, groups: Groups, refused: Refused) -> Parts:
        """As `collect_refused`, for the reports of `request`."""
        for number, *_ in request.failed:
            self._targets.pop(groups[number][0], None)  # it may have changed, or be gone
        return collect_refused(request.failed, groups, refused, str(self._settings), self._errors.last)

    # ── topics ──

    async def _look(self) -> None:
        """Learn which topics exist; StartError when no broker answers."""
        producer = next(iter(self._producers.values()))
        # The timer of this loop polls meanwhile: reports are called back in one thread only.
        view = await look_at_cluster(producer, self._errors, str(self._settings), lambda: None)
        self._looked_at = time.monotonic()
        self._topics.update(view.partitions)

    async def _find(self, topic: str) -> QtoolsError | None:
        """Learn all about a topic, or create it. Returns the error of its messages if there is no such topic."""
        if topic not in self._topics and time.monotonic() - self._looked_at > LOOK_AGAIN:
            try:
                await self._look()
            except StartError as error:
                raise NetworkError(str(self._settings), str(error)) from error
        if (failed := await self._create_if_new(topic)) is not None:
            return failed
        if topic in self._topics:
            largest = await largest_batch(self._administrator(), topic)
            most = min(largest - OVERHEAD, QUEUED_KBYTES * 1024 - OVERHEAD)
            now = asyncio.get_running_loop().time()
            producer = self._producer(min(BATCH_BYTES, largest))
            await hasten_producer_id(producer, topic)
            self._targets[topic] = _Target(producer, most, now)
            return None
        return self._no_such_topic(topic)

    async def _create_if_new(self, topic: str) -> QtoolsError | None:
        """Create a topic that does not exist, if that was asked for. Returns why it could not be created."""
        new = self._options.new_topics
        if topic in self._topics or new is None:
            return None
        # -1 stands for the cluster's own settings (KIP-464).
        if (failed := await self._create_topic(topic, new.partitions or -1, new.replicas or -1)) is None:
            self._topics.add(topic)
        return failed

    async def _create_topic(self, topic: str, partitions: int, replicas: int) -> QtoolsError | None:
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]

        made = NewTopic(topic, num_partitions=partitions, replication_factor=replicas)
        try:
            answers = self._administrator().create_topics([made], request_timeout=CONNECT_TIMEOUT)
            await asyncio.to_thread(answers[topic].result)
        except KafkaException as error:
            if error.args[0].code() != TOPIC_EXISTS:
                return error_of_topic(topic, error.args[0], str(self._settings))
        return None

    def _administrator(self) -> Any:
        if self._admin is None:
            self._admin = make_admin(self._settings)
        return self._admin

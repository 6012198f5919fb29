"""Reads channels of Kafka, which are consumer groups. In: subscriptions. Out: batches; see engines/contract.py.

    GroupReader's thread ─▶ pieces of partitions ─▶ read(): one batch ─▶ finish() ─▶ the partition's ledger ─▶ commit

One reader for each channel. A temporary channel reads without a group, from the ends of the partitions or from a time,
and commits nothing. A new group begins with the oldest message, so that none is missed.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from qtools.engines.contract import SourceOptions
from qtools.engines.kafka.client_errors import UNKNOWN_TOPIC_OR_PARTITION, TopicRefused, error_of_code
from qtools.engines.kafka.clients import ErrorLog, ask, library, look_at_cluster, make_consumer
from qtools.engines.kafka.group_reader import CALL_TIMEOUT, GroupReader
from qtools.engines.kafka.partition import KafkaPartition, Piece
from qtools.engines.kafka.settings import KafkaSettings
from qtools.errors import NetworkError, QtoolsError, StartError
from qtools.message import Batch
from qtools.names import Subscription, is_ephemeral

LOOK_INTERVAL = 0.2  # s between two looks whether anything is left
AWAY = 60.0  # s without an answer after which a run that ends when nothing is left gives up
log = logging.getLogger("qtools.kafka")


class KafkaSource:
    def __init__(self, subscriptions: Sequence[Subscription], settings: KafkaSettings, options: SourceOptions) -> None:
        self.subscriptions = list(subscriptions)
        self.on_received: Callable[[int], None] | None = None
        self.received = self.redelivered = self.reconnects = self.unread_bytes = 0
        self.acknowledgements_failed = 0  # for partitions that were taken away
        self.lag = 0.0
        self._settings = settings
        self._options = options
        self._limit = options.limit
        self._errors = ErrorLog()
        self._readers: dict[str, GroupReader] = {}  # by channel
        self._ready: deque[Batch] = deque()
        self._something = asyncio.Event()  # `read` has to look again
        self._error: QtoolsError | None = None
        self._is_ended = False
        self._taken = 0  # messages that were read from the cluster; counted by the readers' threads
        self._settled = 0  # of these: in flight no more
        self._ends: dict[KafkaPartition, int] = {}  # the offset of a partition's end, where it was reached
        self._lock = threading.Lock()
        self._away_since = 0.0
        self._timers: set[asyncio.TimerHandle] = set()
        self._snapshot: dict[tuple[str, str, int], int] = {}  # ends at the start, for --until-now

    # ── what the contract asks ──

    async def prepare(self) -> None:
        errors = self._errors
        client = make_consumer(self._settings, errors, {"group.id": "qtools-look"})
        try:
            view = await look_at_cluster(client, errors, str(self._settings), lambda: client.poll(0))
        finally:
            await asyncio.to_thread(client.close)
        for topic, _ in self.subscriptions:
            if topic not in view.partitions:
                raise StartError(str(error_of_code(topic, UNKNOWN_TOPIC_OR_PARTITION, str(self._settings))))

    async def start(self) -> None:
        for subscription in self.subscriptions:
            await self._subscribe(subscription)
        if self._options.ends.until_now:
            self._snapshot = await self._left(committed=False)

    async def add(self, subscription: Subscription) -> None:
        await self._subscribe(subscription)
        self.subscriptions.append(subscription)

    async def _subscribe(self, subscription: Subscription) -> None:
        topic, channel = subscription
        if (reader := self._readers.get(channel)) is not None:
            if topic not in reader.topics:
                await reader.subscribe(topic)
            return
        is_temporary = is_ephemeral(channel)
        given = dict(self._settings.properties)
        defaults = {
            "auto.offset.reset": "earliest",
            "fetch.queue.backoff.ms": 5,  # the default, 1000, stalls a fast reader
            "queued.max.messages.kbytes": 65536,
            "session.timeout.ms": 10_000,  # until the partitions of a member that was killed are read by another
            "max.poll.interval.ms": 300_000,
        }
        reader_holder: list[GroupReader] = []
        properties = {key: value for key, value in defaults.items() if key not in given} | {
            "group.id": f"qtools-{uuid.uuid4()}" if is_temporary else channel,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "partition.assignment.strategy": "cooperative-sticky",
            "on_commit": lambda error, offsets: reader_holder[0].committed(error, offsets),
        }
        since = self._options.since
        reader = GroupReader(
            make_consumer(self._settings, self._errors, properties), self, {topic},
            commits=not is_temporary, starts_ms=None if since is None else round(since * 1000),
            most=max(self._options.max_in_flight, 1),
        )  # fmt: skip
        reader_holder.append(reader)
        self._readers[channel] = reader
        reader.start()

    async def read(self) -> Batch | None:
        while True:
            if self._error is not None:
                raise self._error
            if self._ready:
                batches = list(self._ready)
                self._ready.clear()
                self.unread_bytes = 0
                return Batch.joined(batches)
            if self._is_ended or (self._limit is not None and self._taken >= self._limit and not self._timers):
                return None
            self._something.clear()
            await self._something.wait()

    def end(self) -> None:
        self._is_ended = True
        self.rest()
        self._something.set()

    def discard(self) -> None:
        self._drop_ready()
        self.end()

    def rest(self) -> None:
        for reader in self._readers.values():
            reader.is_resting = True

    def resume(self, limit: int | None) -> None:
        self._limit = None if limit is None else self._taken + limit
        self._is_ended = False
        for reader in self._readers.values():
            reader.is_resting = False
            reader.wake()

    @property
    def may_resume(self) -> bool:
        return bool(self._readers) and not self._is_ended

    async def close(self) -> None:
        """Commit what is finished, and leave the groups; what is not finished comes again."""
        self._is_ended = True
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        await asyncio.gather(*(reader.close() for reader in self._readers.values()))

    # ── when the run ends by itself ──

    async def wait_for_end(self) -> bool:
        ends = self._options.ends
        if not ends.flag and ends.idle_timeout is None:
            return False
        try:
            seen, quiet_since = -1, time.monotonic()
            while True:
                now = time.monotonic()
                if self.received != seen or self.in_flight:
                    seen, quiet_since = self.received, now
                if ends.idle_timeout is not None and now - quiet_since >= ends.idle_timeout:
                    return True
                if ends.until_now and await self._has_passed_snapshot():
                    return True
                if ends.until_empty and not self.in_flight and await self._is_drained():
                    return True
                await asyncio.sleep(LOOK_INTERVAL)
        finally:
            self.end()

    async def wait_until_empty(self) -> None:
        while self.in_flight or not await self._is_drained():  # noqa: ASYNC110 - the cluster sends no event
            await asyncio.sleep(LOOK_INTERVAL)

    async def warn_later(self, named: Sequence[Subscription]) -> None:
        """Nothing: a group gets every message, whatever other groups have read."""

    async def passed(self, before: Callable[[Subscription, str], bool], flag: str) -> bool:
        where = str(self._settings)
        if not any(before(each, where) for each in self.subscriptions):
            return True
        return not self.in_flight and await self._is_drained()

    def taken_elsewhere(self) -> dict[Subscription, int]:
        return {}

    async def _is_drained(self, ends: dict[tuple[str, str, int], int] | None = None) -> bool:
        """Whether no message is left in any subscription, here or with another member of the group. NetworkError when
        the cluster has not answered for AWAY seconds."""
        try:
            left = await self._left(ends=ends)
        except NetworkError as error:
            now = time.monotonic()
            self._away_since = self._away_since or now
            if now - self._away_since > AWAY:
                raise
            log.info("%s; asked again", error)
            return False
        self._away_since = 0.0
        return not any(left.values())

    async def _has_passed_snapshot(self) -> bool:
        """Whether all that there was at the start is finished."""
        for (channel, topic, number), end in self._snapshot.items():
            partition = self._readers[channel].partitions.get((topic, number))
            if partition is None or partition.confirmed < end:
                return await self._is_drained(self._snapshot)
        return True

    async def _left(
        self, committed: bool = True, ends: dict[tuple[str, str, int], int] | None = None
    ) -> dict[tuple[str, str, int], int]:
        """(channel, topic, partition) → messages that are not finished; with committed=False → the end's offset."""
        found: dict[tuple[str, str, int], int] = {}
        for channel, reader in self._readers.items():
            try:
                found |= await reader.call(partial(self._look, channel, reader, committed, ends))
            except library().KafkaException as error:
                raise NetworkError(str(self._settings), self._errors.last or str(error.args[0].str())) from error
        return found

    def _look(
        self,
        channel: str,
        reader: GroupReader,
        committed: bool,
        ends: dict[tuple[str, str, int], int] | None,
        consumer: Any,
    ) -> dict[tuple[str, str, int], int]:
        """`_left` of one reader, in its thread."""
        from confluent_kafka import TopicPartition

        topics = consumer.list_topics(timeout=CALL_TIMEOUT).topics
        places = [
            (topic, number)
            for topic in sorted(reader.topics)
            for number in (sorted(topics[topic].partitions) if topic in topics else ())
        ]
        found: dict[tuple[str, str, int], int] = {}
        others: list[tuple[str, int]] = []
        lows: dict[tuple[str, int], int] = {}
        highs: dict[tuple[str, int], int] = {}
        for place in places:
            low, high = ask(partial(consumer.get_watermark_offsets, TopicPartition(*place), timeout=CALL_TIMEOUT))
            lows[place], highs[place] = low, high if ends is None else ends.get((channel, *place), 0)
            partition = reader.partitions.get(place)
            if not committed:
                found[channel, *place] = highs[place]
            elif partition is not None and partition.confirmed >= 0:
                found[channel, *place] = max(0, highs[place] - max(partition.confirmed, self._ends.get(partition, 0)))
            elif partition is not None and partition in self._ends:
                found[channel, *place] = max(0, highs[place] - self._ends[partition])
            else:
                others.append(place)
        if others:
            asked = [TopicPartition(*place) for place in others]
            for each in ask(partial(consumer.committed, asked, timeout=CALL_TIMEOUT)):
                place = each.topic, each.partition
                start = each.offset if each.offset >= 0 else lows[place]
                found[channel, *place] = max(0, highs[place] - start)
        return found

    # ── what is counted ──

    @property
    def in_flight(self) -> int:
        return self._taken - self._settled

    @property
    def connected(self) -> int:
        return sum(bool(reader.partitions) for reader in self._readers.values())

    @property
    def acknowledgement_timeout(self) -> float | None:
        return None

    # ── the readers' owner (group_reader.ReaderOwner) ──

    def room(self) -> int:
        room = self._options.max_in_flight - (self._taken - self._settled)
        return room if self._limit is None else min(room, self._limit - self._taken)

    def take(self, messages: int) -> None:
        with self._lock:  # readers of several channels
            self._taken += messages

    def make_partition(self, topic: str, number: int) -> KafkaPartition:
        where = str(self._settings)
        return KafkaPartition(topic, number, where, self._settle, self._deliver_later, self._count_late)

    def arrived(self, pieces: list[tuple[KafkaPartition, Piece]]) -> None:
        for partition, piece in pieces:
            if partition.is_lost:
                self._settle(len(piece.bodies))
                continue
            self._ready.append(partition.add(piece))
            count, size = len(piece.bodies), sum(map(len, piece.bodies))
            self.received += count
            self.unread_bytes += size
            self.lag = max(0.0, time.time() - piece.records[-1].timestamp()[1] / 1000)
            if self.on_received is not None:
                self.on_received(size)
        self._something.set()

    def lost(self, partitions: list[KafkaPartition]) -> None:
        for partition in partitions:
            self._ends.pop(partition, None)
            partition.lose()
        gone = set(partitions)
        self._ready = deque(batch for batch in self._ready if batch.parts[0][0] not in gone)

    def reached(self, partition: KafkaPartition, offset: int) -> None:
        partition.reach(offset)
        self._ends[partition] = offset

    def failed(self, topic: str, code: int, reason: str) -> None:
        where = str(self._settings)
        self._error = TopicRefused(topic, code, reason, where) if topic else NetworkError(where, reason)
        self._something.set()

    # ── messages that are requeued ──

    def _settle(self, count: int) -> None:
        self._settled += count
        for reader in self._readers.values():
            reader.wake()

    def _count_late(self, count: int) -> None:
        self.acknowledgements_failed += count

    def _deliver_later(self, batch: Batch, delay_ms: int) -> None:
        timer: asyncio.TimerHandle

        def deliver() -> None:
            self._timers.discard(timer)
            if not batch.parts[0][0].is_lost:
                self.received += len(batch)
                self.redelivered += len(batch)
                self._ready.append(batch)
            self._something.set()

        timer = asyncio.get_running_loop().call_later(delay_ms / 1000, deliver)
        self._timers.add(timer)

    def _drop_ready(self) -> None:
        self._ready.clear()
        self.unread_bytes = 0

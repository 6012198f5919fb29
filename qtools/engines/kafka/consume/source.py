"""Reads channels of Kafka, which are consumer groups. In: subscriptions. Out: batches; see engines/contract.py.

    GroupReader's thread ─▶ records of partitions ─▶ read(): one batch ─▶ finish() ─▶ the partition's ledger ─▶ commit

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
from math import inf
from typing import Any

from qtools.engines.contract import SourceOptions
from qtools.engines.kafka.client_errors import UNKNOWN_TOPIC_OR_PARTITION, TopicRefused, error_of_code
from qtools.engines.kafka.clients import ErrorLog, TopicIds, look_at_cluster, make_consumer
from qtools.engines.kafka.consume.end_offsets import EndOffsets, OffsetClients
from qtools.engines.kafka.consume.group_reader import GroupReader
from qtools.engines.kafka.consume.partition import KafkaPartition, PartitionRecords
from qtools.engines.kafka.consume.start_offsets import ReadingStart
from qtools.engines.kafka.settings import KafkaSettings, reader_properties
from qtools.engines.redelivery import DelayedDeliveries
from qtools.engines.requirements import channel_exists, channel_goes_on
from qtools.engines.run_end import PolledRunEnd
from qtools.errors import NetworkError, QtoolsError, TopicMissing, UsageError
from qtools.message import Batch
from qtools.names import Subscription, is_ephemeral

log = logging.getLogger("qtools.kafka")

CLOSE_TIMEOUT = 8.0  # s to commit and to leave a group
FIRST_ANSWER = 10.0  # s that the first read of a partition may take, as of one without a leader
UNREAD_BYTES = 8 * 1024 * 1024  # of bodies that were not read; the readers wait beyond that


class KafkaSource(PolledRunEnd):
    """Reads `subscriptions`. Its methods are called in the event loop's thread, except `grant`, `take` and
    `make_partition`, which the readers' threads call."""

    def __init__(self, subscriptions: Sequence[Subscription], settings: KafkaSettings, options: SourceOptions) -> None:
        super().__init__(options.ends, str(settings))
        self.subscriptions = list(subscriptions)
        self.on_received: Callable[[int], None] | None = None
        self.received = self.redelivered = self.unread_bytes = 0
        self.reconnects: int | None = None  # librdkafka reconnects by itself
        self.acknowledgements_failed = 0  # for partitions that were taken away
        self.lag = 0.0
        self._settings = settings
        self._options = options
        self._limit = options.limit
        self._errors = ErrorLog(settings)
        self._readers: dict[str, GroupReader] = {}  # by channel
        self._offset_clients = OffsetClients(settings, self._errors)
        self._topic_ids = TopicIds(settings)
        self._unread: deque[Batch] = deque()
        self._changed = asyncio.Event()  # `read` has to look again
        self._error: QtoolsError | None = None
        self._is_ended = False
        self._is_discarded = False
        self._lock = threading.Lock()  # of what the readers' threads count
        self._granted = 0  # messages that readers may read now
        self._fetched = 0  # messages that were read from the cluster
        self._arrived = 0  # of these: passed to the event loop's thread
        self._settled = 0  # of these: finished, or taken away
        self._average = 1.0  # bytes of a message, of late
        self._delayed = DelayedDeliveries(self._deliver_again)
        self._latest_begin: float | None = None  # when the first read counts as answered at the latest
        self._at_start: EndOffsets | None = None  # for --until-now

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
                raise TopicMissing(str(error_of_code(topic, UNKNOWN_TOPIC_OR_PARTITION, str(self._settings))))
        number = self._options.partition
        for topic, _ in self.subscriptions:
            if number is not None and number not in (known := view.partitions[topic]):
                raise UsageError(f"topic {topic} has no partition {number}; it has those from 0 to {max(known)}")
        if self._options.since is not None:
            for subscription in self.subscriptions:
                partitions = view.partitions[subscription.topic]
                if not is_ephemeral(subscription.channel) and await self._offset_clients.has_committed(
                    subscription, partitions
                ):
                    if not self._options.goes_on:
                        raise channel_exists(subscription)
                    log.warning("%s", channel_goes_on(subscription))

    async def start(self) -> None:
        for subscription in self.subscriptions:
            await self._subscribe(subscription)
        if self._options.ends.until_now:
            self._at_start = await EndOffsets.of(self._readers, self._offset_clients)

    async def add(self, subscription: Subscription) -> None:
        await self._subscribe(subscription)
        self.subscriptions.append(subscription)

    async def _subscribe(self, subscription: Subscription) -> None:
        topic, channel = subscription
        reader = self._readers.get(channel)
        if reader is None:
            reader = self._readers[channel] = self._make_reader(topic, channel)
            reader.begin()
        elif topic not in reader.topics:
            await reader.add_topic(topic)
        if is_ephemeral(channel):
            await reader.call(_nothing)  # from now on it knows where it begins

    def _make_reader(self, topic: str, channel: str) -> GroupReader:
        is_temporary = is_ephemeral(channel)
        made: list[GroupReader] = []  # the consumer, and with it the function that it calls, exists before its reader
        group = f"qtools-{uuid.uuid4()}" if is_temporary else channel
        properties = reader_properties(self._settings, group) | {
            "on_commit": lambda error, offsets: made[0].committed(error, offsets)
        }
        options = self._options
        time_ms = None if options.since is None else round(options.since * 1000)
        made.append(
            GroupReader(
                make_consumer(self._settings, self._errors, properties), self, {topic},
                commits=not is_temporary, start=ReadingStart(time_ms, options.partition, options.offset),
                max_distance=self._options.max_in_flight,
            )
        )  # fmt: skip
        return made[0]

    async def read(self) -> Batch | None:
        while True:
            if self._error is not None:
                raise self._error
            if self._unread:
                batches = list(self._unread)
                self._unread.clear()
                self.unread_bytes = 0
                self._wake()
                return Batch.joined(batches)
            if self._is_ended:
                return None
            if self._limit is not None and self._arrived >= self._limit and not self._delayed:
                return None
            self._changed.clear()
            await self._changed.wait()

    def end(self) -> None:
        self._is_ended = True
        self.rest()
        self._changed.set()

    def discard(self) -> None:
        self._is_discarded = True
        self._unread.clear()
        self.unread_bytes = 0
        self.end()

    def rest(self) -> None:
        """As the contract says, but that what was not read stays here, and counts for the next limit: a group cannot
        give single messages back."""
        for reader in self._readers.values():
            reader.is_resting = True

    def resume(self, limit: int | None) -> None:
        unread = sum(map(len, self._unread))
        self._limit = None if limit is None else self._arrived - unread + limit
        self._is_ended = False
        for reader in self._readers.values():
            reader.is_resting = False
        self._wake()

    @property
    def may_resume(self) -> bool:
        return bool(self._readers) and not self._is_ended

    async def close(self) -> None:
        """Commit what is finished, and leave the groups; what is not finished comes again."""
        self._is_ended = True
        self._delayed.cancel()
        closing = [asyncio.ensure_future(reader.close()) for reader in self._readers.values()]
        closing.append(asyncio.ensure_future(self._offset_clients.close()))
        _, late = await asyncio.wait(closing, timeout=CLOSE_TIMEOUT)
        if late:
            log.warning("%s: the group was not left in time; its partitions are read by others later", self._settings)

    # ── when the run ends by itself (run_end.PolledRunEnd) ──

    def has_begun(self) -> bool:
        if self._latest_begin is None and self.connected == len(self._readers):  # joining a group takes seconds
            self._latest_begin = time.monotonic() + FIRST_ANSWER
        return self._latest_begin is not None and (time.monotonic() > self._latest_begin or self._has_answered())

    def _has_answered(self) -> bool:
        """Whether every partition that is read has brought a message, or its end."""
        partitions = [each for reader in self._readers.values() for each in list(reader.partitions.values())]
        return all(each.read_to >= 0 or each.read_to_end >= 0 for each in partitions)

    async def is_finished(self, *, at_start: bool) -> bool:
        now = await EndOffsets.of(self._readers, self._offset_clients)
        ends = self._at_start if at_start and self._at_start is not None else now
        return not await ends.unfinished(self._readers)

    # ── what is counted ──

    @property
    def in_flight(self) -> int:
        return self._fetched - self._settled

    @property
    def connected(self) -> int:
        """Readers that have joined their groups; a group with more members than partitions gives some of them none."""
        return sum(reader.has_joined for reader in self._readers.values())

    @property
    def lag_messages(self) -> int:
        """Messages that are not finished in the partitions that are read here, by the ends that came last."""
        return sum(reader.lag for reader in self._readers.values())

    @property
    def acknowledgement_timeout(self) -> float | None:
        return inf

    # ── the readers' owner (contract.py) ──

    def grant(self, most: int) -> int:
        with self._lock:
            room = min(most, self._options.max_in_flight - self.in_flight - self._granted)
            if self._limit is not None:
                room = min(room, self._limit - self._fetched - self._granted)
            if room > 1:  # a message larger than all room must pass too
                free = UNREAD_BYTES - self.unread_bytes
                room = min(room, max(1, int(free / self._average))) if free > 0 else 0
            elif self.unread_bytes >= UNREAD_BYTES:
                room = 0
            granted = max(0, room)
            self._granted += granted
            return granted

    def take(self, granted: int, read: int) -> None:
        with self._lock:
            self._granted -= granted
            self._fetched += read

    def make_partition(self, topic: str, number: int) -> KafkaPartition:
        where = str(self._settings)
        return KafkaPartition(
            topic, number, where, self._settle, self._delayed.add, self._count_late, self._read_again,
            self._topic_ids.of,
        )  # fmt: skip

    def arrived(self, reader: GroupReader, found: list[tuple[KafkaPartition, PartitionRecords]]) -> None:
        self._errors.clear()
        for partition, some in found:
            count, size = len(some.bodies), sum(map(len, some.bodies))
            self._arrived += count
            if partition.is_lost or self._is_discarded:
                self._settle(count)
                self._replace_in_limit(count)
                continue
            if some.offsets[0] < partition.end:
                partition = self._begin_again(reader, partition, some)
            self._unread.append(partition.add(some))
            self.received += count
            self.unread_bytes += size
            self._average = max(1.0, size / count)
            self.lag = max(0.0, time.time() - some.records[-1].timestamp()[1] / 1000)
            if self.on_received is not None:
                self.on_received(size)
        self._changed.set()

    def _begin_again(self, reader: GroupReader, old: KafkaPartition, some: PartitionRecords) -> KafkaPartition:
        """A partition whose offsets went back is another one: its topic was deleted and created again, or the log was
        cut after an unclean election. What is in flight of the old one cannot be acknowledged any more."""
        log.warning(
            "%s: the offsets of %s, partition %d, went back from %d to %d: the topic was created again, or the cluster"
            " has lost messages", self._settings, old.topic, old.number, old.end, some.offsets[0],
        )  # fmt: skip
        made = self.make_partition(old.topic, old.number)
        made.read_from, made.read_to = some.offsets[0], some.offsets[-1] + 1
        if reader.partitions.get((old.topic, old.number)) is old:
            reader.partitions[old.topic, old.number] = made
        self.taken_away([old])
        return made

    def taken_away(self, partitions: list[KafkaPartition]) -> None:
        for partition in partitions:
            partition.lose()
        gone = set(partitions)
        self._replace_in_limit(sum(len(batch) for batch in self._unread if batch.parts[0][0] in gone))
        self._unread = deque(batch for batch in self._unread if batch.parts[0][0] not in gone)
        self.unread_bytes = sum(sum(map(len, batch.bodies)) for batch in self._unread)
        self._changed.set()

    def reached(self, partition: KafkaPartition, offset: int) -> None:
        self._errors.clear()
        partition.reach(offset)

    def failed(self, topic: str, code: int, reason: str) -> None:
        where = str(self._settings)
        self._error = TopicRefused(topic, code, reason, where) if topic else NetworkError(where, reason)
        self._changed.set()

    def _replace_in_limit(self, count: int) -> None:
        """As many messages were taken away before they were read: others may be read in their place."""
        if self._limit is not None:
            self._limit += count
            self._wake()

    def _wake(self) -> None:
        for reader in self._readers.values():
            reader.wake()

    # ── what becomes of messages ──

    def _settle(self, count: int) -> None:
        self._settled += count
        self._wake()

    def _read_again(self, partition: KafkaPartition) -> None:
        """Called in any thread."""
        for reader in self._readers.values():
            reader.read_again(partition)

    def _count_late(self, count: int) -> None:
        self.acknowledgements_failed += count

    def _deliver_again(self, batch: Batch) -> None:
        if not batch.parts[0][0].is_lost and not self._is_discarded:
            self.received += len(batch)
            self.redelivered += len(batch)
            self._unread.append(batch)
        self._changed.set()


def _nothing(_consumer: Any) -> None:
    """What a reader does when it is only asked whether it has begun."""

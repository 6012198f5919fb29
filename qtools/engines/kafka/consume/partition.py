"""A partition while this process reads it: what is in flight, and how far it may be committed. No I/O.

Messages are finished in any order, and committed up to the lowest unfinished one (flow/ledger.py). A message that is
requeued stays in flight: this process delivers it again when its delay is over, and the commit waits for it. When the
partition is taken away, what is in flight is forgotten: its next owner reads it again. A reader that stores messages
only after they are finished sets `commit_limit` (message.PartitionOrigin).
"""

from __future__ import annotations

import logging
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, NamedTuple

from qtools.attributes import TOMBSTONE, Attributes
from qtools.engines.redelivery import AttemptCounts
from qtools.flow.ledger import Ledger, ranges_of
from qtools.message import Batch, Messages

log = logging.getLogger("qtools.kafka")

SLOW_OWNERSHIP_LOCK = 2.0  # s of waiting for `ownership_lock` until that is logged
LATEST = 2**63 - 1  # ns since 1970, in the year 2262: the latest timestamp that a Message can hold


class PartitionRecords(NamedTuple):
    """Messages of one partition that were read together. offsets: ascending; records: of confluent-kafka."""

    offsets: Sequence[int]
    bodies: list[bytes]
    records: list[Any]


class KafkaPartition:
    """The Origin of the messages of one partition. All methods are called by the event loop's thread.

    on_settled: called with how many messages are no longer in flight. on_requeued: called with a batch and the ms after
    which it is to be delivered again. on_late: called with how many messages were acknowledged after the partition was
    taken away. on_read_again: called with this partition when it is to be read again. id_of_topic: asks the cluster for
    the id of a topic.
    """

    def __init__(
        self,
        topic: str,
        number: int,
        address: str,
        on_settled: Callable[[int], None],
        on_requeued: Callable[[Batch, int], None],
        on_late: Callable[[int], None],
        on_read_again: Callable[[KafkaPartition], None] | None = None,
        id_of_topic: Callable[[str], str] = lambda _topic: "",
    ) -> None:
        self.topic = topic
        self.number = number
        self.address = address
        self.is_lost = False
        self.commit_limit: int | None = None
        self.ownership_lock = threading.Lock()
        self.note = ""  # it is committed with each offset, as its metadata
        self.in_flight = 0
        self.committed = -1  # what was committed last
        self.resumes_at = -1  # what the group had committed when the partition was assigned; negative for nothing
        self.begins_at = -1  # where reading begins, if this is to be committed too; set by the reader's thread
        self.read_to_end = -1  # the partition's end, where it was reached last
        self.read_from = self.read_to = -1  # of the first message read, and behind the last; set by the reader's thread
        self._ledger: Ledger | None = None
        self._unfinished: deque[PartitionRecords] = deque()
        self._deliveries = AttemptCounts()  # by offset
        self._on_settled = on_settled
        self._on_requeued = on_requeued
        self._on_late = on_late
        self._on_read_again = on_read_again
        self._id_of_topic = id_of_topic

    # ── what was read ──

    def add(self, some: PartitionRecords) -> Batch:
        """The messages of `some` as a batch; they are in flight from now on. Their offsets are not below `end`."""
        offsets = some.offsets
        if self._ledger is None:
            self._ledger = Ledger(offsets[0])
        for start, stop in ranges_of(offsets):
            self._ledger.add(start, stop)
        self._unfinished.append(some)
        self.in_flight += len(offsets)
        return Batch([(self, 0, len(offsets))], None, some.bodies, offsets, some.records)

    def reach(self, offset: int) -> None:
        """All messages below `offset` have been read. Offsets in between belong to markers of transactions."""
        self.read_to_end = offset
        if self._ledger is None:
            if 0 <= self.begins_at < offset:
                self.begins_at = offset
        elif offset > self._ledger.end:
            self._ledger.add(offset, offset)

    @property
    def end(self) -> int:
        """The offset behind the newest message that was added; -1 before the first one."""
        return -1 if self._ledger is None else self._ledger.end

    @property
    def confirmed(self) -> int:
        """All messages below this offset are finished; before the first message, the offset where reading begins, if
        that is to be committed too, else -1."""
        return self.begins_at if self._ledger is None else self._ledger.confirmed

    @property
    def to_commit(self) -> int:
        """The offset to commit: all messages below it are finished; at most `commit_limit`; -1 before any message."""
        confirmed, commit_limit = self.confirmed, self.commit_limit
        return confirmed if commit_limit is None else min(confirmed, commit_limit)

    @property
    def uncommitted(self) -> int:
        """Offsets that the next commit would add; called in the reader's thread."""
        return max(0, self.to_commit - max(self.committed, self.read_from))

    @property
    def distance(self) -> int:
        """Offsets from the lowest unfinished message to the newest one read; called in the reader's thread."""
        return self.read_to - max(self.read_from, self.confirmed)

    def lose(self) -> None:
        """The partition was taken away: another consumer of the group reads its unfinished messages again."""
        self.is_lost = True
        count, self.in_flight = self.in_flight, 0
        self._unfinished.clear()
        self._on_settled(count)

    def end_ownership(self, timeout: float) -> None:
        """From now on acknowledgements come too late. What has locked `ownership_lock` is waited for, at most `timeout`
        s; called in the reader's thread."""
        locked = self.ownership_lock.acquire(timeout=min(timeout, SLOW_OWNERSHIP_LOCK))
        if not locked and timeout > SLOW_OWNERSHIP_LOCK:
            log.warning(
                "%s, partition %d: waiting at most %.0f s more, until a file of it is in the archive, before another"
                " consumer reads it", self.topic, self.number, timeout - SLOW_OWNERSHIP_LOCK,
            )  # fmt: skip
            locked = self.ownership_lock.acquire(timeout=timeout - SLOW_OWNERSHIP_LOCK)
        self.is_lost = True
        if locked:
            self.ownership_lock.release()

    # ── what becomes of messages (message.Origin) ──

    def finish(self, ids: Sequence[int]) -> None:
        if self.is_lost or self._ledger is None:
            self._on_late(len(ids))
            return
        self._ledger.finish(ids)
        self.in_flight -= len(ids)
        self._deliveries.forget(ids)
        confirmed, unfinished = self._ledger.confirmed, self._unfinished
        while unfinished and unfinished[0].offsets[-1] < confirmed:
            unfinished.popleft()
        self._on_settled(len(ids))

    def requeue(self, ids: Sequence[int], delay_ms: int) -> None:
        if self.is_lost:
            return
        bodies: list[bytes] = []
        records: list[Any] = []
        starts = [some.offsets[0] for some in self._unfinished]
        for offset in ids:
            some = self._unfinished[bisect_right(starts, offset) - 1]
            place = offset - some.offsets[0] if isinstance(some.offsets, range) else some.offsets.index(offset)
            bodies.append(some.bodies[place])
            records.append(some.records[place])
            self._deliveries.add(offset)
        self._on_requeued(Batch([(self, 0, len(ids))], None, bodies, list(ids), records), delay_ms)

    def touch(self, ids: Sequence[int]) -> None:
        """Nothing to do: Kafka has no message timeout."""

    def topic_id(self) -> str:
        return self._id_of_topic(self.topic)

    def read_again(self) -> None:
        if self._on_read_again is not None:
            self._on_read_again(self)

    # ── what the records say (message.RecordOrigin) ──

    def messages_of(self, records: Sequence[Any], bodies: list[bytes]) -> Messages:
        offsets, deliveries, number = [record.offset() for record in records], self._deliveries, self.number
        return Messages(
            [b"%04x%012x" % (number, offset) for offset in offsets],
            bodies,
            [min(LATEST, record.timestamp()[1] * 1_000_000) for record in records],
            [deliveries.get(offset, 1) for offset in offsets] if deliveries else [1] * len(offsets),
        )

    def delivered_more_than(self, times: int, records: Sequence[Any]) -> dict[int, int]:
        if not self._deliveries:  # as nearly always
            return {}
        return self._deliveries.more_than(times, [record.offset() for record in records])

    def attributes_of(self, records: Sequence[Any], only: Container[str] = Attributes._fields) -> Attributes:
        return Attributes(
            keys=[record.key() for record in records] if "keys" in only else None,
            headers=[record.headers() or () for record in records] if "headers" in only else None,
            timestamps=[record.timestamp()[1] * 1_000_000 for record in records] if "timestamps" in only else None,
            partitions=[self.number] * len(records) if "partitions" in only else None,
            offsets=[record.offset() for record in records] if "offsets" in only else None,
        )

    def __repr__(self) -> str:
        return f"<KafkaPartition {self.topic} {self.number} in_flight={self.in_flight} confirmed={self.confirmed}>"


def divide_records(records: list[Any]) -> dict[tuple[str, int], PartitionRecords]:
    """Records as they were read → (topic, partition) → those of each, in order."""
    by_place: dict[tuple[str, int], list[Any]] = {}
    for record in records:
        place = record.topic(), record.partition()
        if (some := by_place.get(place)) is None:
            some = by_place[place] = []
        some.append(record)
    return {place: partition_records(some) for place, some in by_place.items()}


def partition_records(records: list[Any]) -> PartitionRecords:
    """Records of one partition together."""
    first, last = records[0].offset(), records[-1].offset()
    offsets: Sequence[int] = range(first, last + 1)
    if len(offsets) != len(records):  # offsets ascend, and may have gaps
        offsets = [record.offset() for record in records]
    bodies = [record.value() for record in records]
    if None in bodies:
        bodies = [TOMBSTONE if body is None else body for body in bodies]
    return PartitionRecords(offsets, bodies, records)


def lag_of(consumer: Any, partitions: Mapping[tuple[str, int], KafkaPartition]) -> int:
    """How many messages of `partitions` are not finished, by the ends that came with the last answers: the cluster is
    not asked. 0 when the consumer is closed."""
    from confluent_kafka import KafkaException, TopicPartition

    lag = 0
    for place, partition in list(partitions.items()):
        try:
            bounds = consumer.get_watermark_offsets(TopicPartition(*place), cached=True)
        except (KafkaException, RuntimeError):  # it is closed, or has no answer yet
            continue
        if bounds is not None:
            low, high = bounds
            start = partition.confirmed if partition.confirmed >= 0 else partition.read_to_end
            lag += max(0, high - max(low, 0, start))
    return lag

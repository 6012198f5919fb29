"""A partition while this process reads it: what is in flight, and how far it may be committed. No I/O.

Messages are finished in any order, and committed up to the lowest unfinished one (flow/ledger.py). A message that is
requeued stays in flight: this process delivers it again when its delay is over, and the commit waits for it. When the
partition is taken away, what is in flight is forgotten: its next owner reads it again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from qtools.attributes import TOMBSTONE, Attributes
from qtools.flow.ledger import Ledger, ranges_of
from qtools.message import Batch, Message, Messages

CREATE_TIME, LOG_APPEND_TIME = 1, 2  # rdkafka.h, rd_kafka_timestamp_type_t


class Piece(NamedTuple):
    """Messages of one partition that were read together. offsets: ascending; records: of confluent-kafka."""

    offsets: Sequence[int]
    bodies: list[bytes]
    records: list[Any]


class KafkaPartition:
    """The Origin of the messages of one partition. All methods are called by the event loop's thread.

    on_settled: called with how many messages are in flight no more. on_requeued: called with a batch and the ms after
    which it is to be delivered again. on_late: called with how many messages were acknowledged after the partition was
    taken away.
    """

    def __init__(
        self,
        topic: str,
        number: int,
        address: str,
        on_settled: Callable[[int], None],
        on_requeued: Callable[[Batch, int], None],
        on_late: Callable[[int], None],
    ) -> None:
        self.topic = topic
        self.number = number
        self.address = address
        self.is_lost = False
        self.in_flight = 0
        self.committed = -1  # what was committed last
        self.read_from = self.read_to = -1  # the offsets of the first message read, and behind the last; the reader's
        self._ledger: Ledger | None = None
        self._pieces: deque[Piece] = deque()
        self._attempts: dict[int, int] = {}  # of messages that were delivered more than once
        self._on_settled = on_settled
        self._on_requeued = on_requeued
        self._on_late = on_late

    # ── what was read ──

    def add(self, piece: Piece) -> Batch:
        """The messages of `piece` as a batch; they are in flight from now on."""
        offsets = piece.offsets
        if self._ledger is None:
            self._ledger = Ledger(offsets[0])
        for start, stop in ranges_of(offsets):
            self._ledger.add(start, stop)
        self._pieces.append(piece)
        self.in_flight += len(offsets)
        return Batch([(self, 0, len(offsets))], None, piece.bodies, offsets, piece.records)

    def reach(self, offset: int) -> None:
        """The end of the partition was read: there is no message below `offset` that was not (only markers)."""
        if self._ledger is not None and offset > self._ledger.end:
            self._ledger.add(offset, offset)

    @property
    def confirmed(self) -> int:
        """The offset to commit: all messages below it are finished; -1 before the first message."""
        return -1 if self._ledger is None else self._ledger.confirmed

    @property
    def distance(self) -> int:
        """Offsets from the lowest unfinished message to the newest one read; asked by the reader's thread."""
        return self.read_to - max(self.read_from, self.confirmed)

    def lose(self) -> None:
        """The partition was taken away: its messages are another reader's."""
        self.is_lost = True
        count, self.in_flight = self.in_flight, 0
        self._pieces.clear()
        self._on_settled(count)

    # ── what becomes of messages (message.Origin) ──

    def finish(self, ids: Sequence[int]) -> None:
        if self.is_lost or self._ledger is None:
            self._on_late(len(ids))
            return
        self._ledger.finish(ids)
        self.in_flight -= len(ids)
        if self._attempts:
            for offset in ids:
                self._attempts.pop(offset, None)
        confirmed, pieces = self._ledger.confirmed, self._pieces
        while pieces and pieces[0].offsets[-1] < confirmed:
            pieces.popleft()
        self._on_settled(len(ids))

    def requeue(self, ids: Sequence[int], delay_ms: int) -> None:
        if self.is_lost:
            return
        bodies: list[bytes] = []
        records: list[Any] = []
        starts = [piece.offsets[0] for piece in self._pieces]
        for offset in ids:
            piece = self._pieces[bisect_right(starts, offset) - 1]
            place = offset - piece.offsets[0] if isinstance(piece.offsets, range) else piece.offsets.index(offset)
            bodies.append(piece.bodies[place])
            records.append(piece.records[place])
            self._attempts[offset] = self._attempts.get(offset, 1) + 1
        self._on_requeued(Batch([(self, 0, len(ids))], None, bodies, list(ids), records), delay_ms)

    def touch(self, ids: Sequence[int]) -> None:
        """Nothing to do: a message that is in flight is this process's for as long as it lives."""

    # ── what the records say (message.RecordOrigin) ──

    def messages_of(self, records: Sequence[Any], bodies: list[bytes]) -> Messages:
        attempts, number = self._attempts, self.number
        made = Messages([], [], [])
        for record, body in zip(records, bodies, strict=True):
            offset = record.offset()
            made.append(
                Message(
                    record.timestamp()[1] * 1_000_000, attempts.get(offset, 1), b"%04x%012x" % (number, offset), body
                )
            )
        return made

    def attributes_of(self, records: Sequence[Any]) -> Attributes:
        return Attributes(
            keys=[record.key() for record in records],
            headers=[record.headers() or () for record in records],
            timestamps=[record.timestamp()[1] * 1_000_000 for record in records],
            partitions=[self.number] * len(records),
            offsets=[record.offset() for record in records],
        )

    def __repr__(self) -> str:
        return f"<KafkaPartition {self.topic} {self.number} in_flight={self.in_flight} confirmed={self.confirmed}>"


def pieces_of(records: list[Any]) -> dict[tuple[str, int], Piece]:
    """Records as they were read → (topic, partition) → their piece, in order."""
    by_place: dict[tuple[str, int], list[Any]] = {}
    for record in records:
        place = record.topic(), record.partition()
        if (some := by_place.get(place)) is None:
            some = by_place[place] = []
        some.append(record)
    return {place: piece_of(some) for place, some in by_place.items()}


def piece_of(records: list[Any]) -> Piece:
    """Records of one partition as a piece."""
    first, last = records[0].offset(), records[-1].offset()
    offsets: Sequence[int] = range(first, last + 1)
    if len(offsets) != len(records):  # offsets ascend, and may have gaps
        offsets = [record.offset() for record in records]
    bodies = [record.value() for record in records]
    if None in bodies:
        bodies = [TOMBSTONE if body is None else body for body in bodies]
    return Piece(offsets, bodies, records)

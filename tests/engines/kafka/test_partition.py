"""A partition that is read: its ledger, what is requeued, and what comes too late. Without a server."""

from __future__ import annotations

import threading
from typing import NamedTuple

import pytest
from harness.waiting import wait_until

from qtools.attributes import TOMBSTONE, Attributes
from qtools.engines.kafka.consume import partition
from qtools.engines.kafka.consume.partition import KafkaPartition, PartitionRecords, divide_records, partition_records
from qtools.message import Batch


class Record(NamedTuple):
    """As confluent-kafka's Message."""

    place: tuple[str, int]
    number: int
    body: bytes | None = b"x"

    def topic(self) -> str:
        return self.place[0]

    def partition(self) -> int:
        return self.place[1]

    def offset(self) -> int:
        return self.number

    def value(self) -> bytes | None:
        return self.body

    def key(self) -> bytes:
        return b"k%d" % self.number

    def headers(self) -> None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return 1, self.number * 1000


class World:
    def __init__(self) -> None:
        self.settled = self.late = 0
        self.again: list[tuple[Batch, int]] = []
        self.partition = KafkaPartition("t", 3, "k:9092", self._settle, self._requeue, self._late)

    def _settle(self, count: int) -> None:
        self.settled += count

    def _requeue(self, batch: Batch, delay_ms: int) -> None:
        self.again.append((batch, delay_ms))

    def _late(self, count: int) -> None:
        self.late += count

    def add(self, *offsets: int) -> Batch:
        return self.partition.add(partition_records([Record(("t", 3), offset, b"%d" % offset) for offset in offsets]))


def test_it_may_be_committed_up_to_the_lowest_unfinished_message() -> None:
    world = World()
    assert world.partition.confirmed == -1
    first, second = world.add(10, 11, 12), world.add(13, 14)
    second.finish()
    first.pick([1, 2]).finish()
    assert (world.partition.confirmed, world.partition.in_flight, world.settled) == (10, 1, 4)
    first.pick([0]).finish()
    assert (world.partition.confirmed, world.partition.in_flight) == (15, 0)


def test_offsets_may_have_gaps() -> None:
    world = World()
    batch = world.add(2, 5, 9)
    batch.pick([0, 1]).finish()
    assert world.partition.confirmed == 9  # no message has an offset in between
    batch.pick([2]).finish()
    world.partition.reach(12)  # markers of transactions stand at the end
    assert world.partition.confirmed == 12


def test_a_requeued_message_stays_in_flight_and_is_counted() -> None:
    world = World()
    batch = world.add(1, 2, 3)
    batch.pick([1]).requeue(700)
    ((again, delay),) = world.again
    assert (again.bodies, delay) == ([b"2"], 700)
    assert [message.attempts for message in again.messages] == [2]
    assert batch.delivered_more_than(1) == {1: 2}
    assert batch.delivered_more_than(2) == {}
    again.requeue(0)
    assert [message.attempts for message in world.again[1][0].messages] == [3]
    batch.without([1]).finish()
    assert (world.partition.confirmed, world.partition.in_flight) == (2, 1)
    world.again[1][0].finish()
    assert (world.partition.confirmed, world.partition.in_flight) == (4, 0)


def test_what_was_taken_away_is_settled_once_and_acknowledged_too_late() -> None:
    world = World()
    batch = world.add(1, 2, 3)
    batch.pick([0]).finish()
    world.partition.lose()
    assert world.settled == 3
    batch.without([0]).finish()
    batch.requeue(0)
    assert (world.settled, world.late, world.again) == (3, 2, [])
    assert world.partition.is_lost


def test_ids_keys_and_places_come_from_the_records() -> None:
    world = World()
    batch = world.add(7, 8)
    assert [message.id for message in batch.messages] == [b"0003000000000007", b"0003000000000008"]
    assert [message.timestamp for message in batch.messages] == [7_000_000_000, 8_000_000_000]
    assert batch.attributes() == Attributes(
        keys=[b"k7", b"k8"], headers=[(), ()], timestamps=[7_000_000_000, 8_000_000_000], partitions=[3, 3],
        offsets=[7, 8],
    )  # fmt: skip


def test_records_are_divided_by_partition_and_keep_their_order() -> None:
    one, other = ("t", 0), ("t", 1)
    records = [Record(one, 5), Record(other, 1), Record(one, 6), Record(other, 3), Record(one, 7, None)]
    pieces = divide_records(records)
    assert pieces[one] == PartitionRecords(range(5, 8), [b"x", b"x", b""], [records[0], records[2], records[4]])
    assert pieces[one].bodies[2] is TOMBSTONE
    assert pieces[other].offsets == [1, 3]


def test_the_distance_is_from_the_lowest_unfinished_to_the_newest() -> None:
    world = World()
    partition = world.partition
    partition.read_from, partition.read_to = 10, 14
    assert partition.distance == 4  # before the event loop has seen them
    batch = world.add(10, 11, 12, 13)
    batch.pick([0]).finish()
    assert partition.distance == 3


def test_where_it_begins_is_to_be_committed_if_that_is_known() -> None:
    world = World()
    world.partition.begins_at = 5
    assert world.partition.confirmed == 5
    world.partition.reach(7)  # markers of transactions
    assert world.partition.confirmed == 7
    world.add(9).finish()
    assert world.partition.confirmed == 10


def test_what_is_held_is_not_committed() -> None:
    world = World()
    partition = world.partition
    world.add(5, 6, 7).finish()
    assert partition.to_commit == partition.confirmed == 8
    partition.commit_limit = 6
    assert (partition.to_commit, partition.confirmed) == (6, 8)
    partition.commit_limit = 20
    assert partition.to_commit == 8


def test_it_is_lost_at_a_safe_point() -> None:
    partition = World().partition
    with partition.ownership_lock:
        thread = threading.Thread(target=partition.end_ownership, args=(20.0,))
        thread.start()
        thread.join(0.05)
        assert not partition.is_lost
    thread.join()
    assert partition.is_lost
    other = World().partition
    with other.ownership_lock:
        other.end_ownership(0.0)  # it does not wait for ever
    assert other.is_lost


def test_a_long_wait_for_the_safe_point_is_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition, "SLOW_OWNERSHIP_LOCK", 0.01)
    slow = World().partition
    slow.ownership_lock.acquire()
    thread = threading.Thread(target=slow.end_ownership, args=(60.0,))
    thread.start()
    wait_until(lambda: caplog.messages, 20)
    slow.ownership_lock.release()
    thread.join()
    waited = "t, partition 3: waiting at most 60 s more, until a file of it is in the archive, before another consumer"
    assert caplog.messages == [f"{waited} reads it"]
    assert slow.is_lost
    caplog.clear()
    World().partition.end_ownership(60.0)
    assert caplog.messages == []


def test_a_time_that_is_too_far_off_is_the_latest_that_there_is() -> None:
    """A producer that gives us for ms: Kafka takes it, if the topic is made to."""
    world = World()
    batch = world.add(1_795_962_161_000_000)
    assert batch.messages.timestamps() == [2**63 - 1]
    assert (attributes.timestamps if (attributes := batch.attributes()) else None) == [
        1_795_962_161_000_000_000 * 1_000_000
    ]

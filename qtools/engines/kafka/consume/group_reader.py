"""The thread that reads and commits one consumer group, or reads without a group. In: topics. Out: records, events.

librdkafka's consumer belongs to this thread alone: the thread reads and commits, and librdkafka calls it when
partitions are assigned and taken away. Each list of records is passed to the event loop by one call. A function that
needs the consumer is handed to the thread (`call`). The thread reads no more messages than its owner grants; what is
prefetched waits in librdkafka.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from qtools.engines.kafka import client_errors as codes
from qtools.engines.kafka.client_errors import NO_SUCH_TOPIC, OF_NETWORK, sentence_of
from qtools.engines.kafka.consume.contract import ReaderOwner
from qtools.engines.kafka.consume.partition import (
    KafkaPartition,
    PartitionRecords,
    divide_records,
    lag_of,
    partition_records,
)  # fmt: skip
from qtools.engines.kafka.consume.start_offsets import (
    DeletedTopics,
    ReadingStart,
    as_partitions,
    committed_or_at,
    places_without_group,
    warn_of_deleted,
)  # fmt: skip
from qtools.engines.kafka.consume.thread_calls import ThreadCalls
from qtools.engines.kafka.consume.waiting_partitions import Place, WaitingPartitions

log = logging.getLogger("qtools.kafka")

POLL = 0.1  # s that a read waits for a first message
MOST_AT_ONCE = 5000  # messages of one read
COMMIT_INTERVAL = 0.5  # s
LAST_COMMIT = 5.0  # s that the end waits for the last commit
PAUSE_AFTER = 1.0  # s without room; while it is paused, the reader can take part in rebalances
OWNERSHIP_LOCK_TIMEOUT = 60.0  # s that a rebalance waits for a file of an archive that is being given its name
LOOK_FOR_PARTITIONS = 30.0  # s between two looks for new partitions, without a group
Result = TypeVar("Result")


class GroupReader:
    """consumer: of confluent-kafka, not subscribed yet. commits: whether there is a group whose offsets are committed.

    start: where partitions begin that have no committed offset; without a time, auto.offset.reset decides in a group.
    max_distance: the most offsets between the lowest unfinished message of a partition and the newest. When as many
    messages are finished and not committed, a commit is sent at once: no more come again after a crash.
    """

    def __init__(
        self,
        consumer: Any,
        owner: ReaderOwner,
        topics: set[str],
        *,
        commits: bool,
        start: ReadingStart,
        max_distance: int,
    ) -> None:
        self.topics = topics
        self.partitions: dict[Place, KafkaPartition] = {}
        self.is_resting = False
        self.lag = 0  # messages that are not finished; only the thread may ask the consumer for the ends
        self.has_joined = False  # the group has given it partitions, or none as there are more members than partitions
        self.consumer = consumer
        self._owner = owner
        self._commits = commits
        self.start = start
        self._loop = asyncio.get_running_loop()
        self._calls = ThreadCalls()
        self._wake = threading.Event()
        self._is_closed = self._has_ended = self._is_paused = self._has_commit_failed = False
        self._waiting = WaitingPartitions(max_distance)
        self._rebalances = 0
        self._deleted_topics = DeletedTopics()
        self._unanswered_commits = 0
        self._committed_at = self._read_at = self._looked_at = time.monotonic()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="kafka-reader", daemon=True)

    # ── for the event loop ──

    def begin(self) -> None:
        """Subscribe, in the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Wake the thread, because there is room again."""
        self._wake.set()

    def call(self, function: Callable[[Any], Result]) -> asyncio.Future[Result]:
        """Run `function(consumer)` in the thread. The future has its result or exception; ConnectionError if the thread
        has ended."""
        done = self._calls.put(function)
        self._wake.set()
        if self._has_ended:
            self._calls.refuse()
        return asyncio.wrap_future(done)

    def add_topic(self, topic: str) -> asyncio.Future[None]:
        """Read one more topic."""

        def add(_consumer: Any) -> None:
            self.topics.add(topic)
            self._subscribe()

        return self.call(add)

    async def close(self) -> None:
        """Commit what is finished, and leave the group."""
        self._is_closed = True
        self._wake.set()
        if self._thread.ident is not None:
            await self._ended.wait()

    # ── the thread ──

    def _run(self) -> None:
        try:
            self._subscribe()
            while not self._is_closed:
                self._step()
        except Exception as error:
            log.debug("the reader ends", exc_info=True)
            self._pass_on(self._owner.failed, "", codes.FATAL, str(error))
        finally:
            try:
                self.lag = lag_of(self.consumer, self.partitions)
                self._commit_at_the_end()
            except Exception:
                log.debug("the last commit failed", exc_info=True)
            finally:
                self._has_ended = True
                self._calls.refuse()
                # Without it a member that leaves while it joins stays in the group until its session times out.
                self.consumer.unsubscribe()
                self.consumer.close()
                self._pass_on(self._ended.set)

    def _step(self) -> None:
        self._calls.run(self.consumer)
        now = time.monotonic()
        if now - self._committed_at >= COMMIT_INTERVAL:
            self._committed_at = now
            self._commit()
            self._pause_what_waits()
            self.lag = lag_of(self.consumer, self.partitions)
        elif not (self._unanswered_commits or self._has_commit_failed) and self._waiting.is_much_finished(
            self.partitions
        ):
            self._commit()
        if not self._commits and now - self._looked_at >= LOOK_FOR_PARTITIONS:
            self._assign_all()
        granted = 0 if self.is_resting else self._owner.grant(self._waiting.room(self.partitions, MOST_AT_ONCE))
        if granted <= 0:
            if self._is_paused or now - self._read_at > PAUSE_AFTER or self.is_resting:
                self._poll_without_reading()
            self._wake.wait(POLL)
            self._wake.clear()
            return
        self._resume()
        self._read_at = now
        self._read(granted)

    def _read(self, granted: int) -> None:
        """Read at most as many messages as were granted, and pass them on."""
        rebalances, found = self._rebalances, []
        first = self.consumer.poll(POLL)
        if first is not None:
            found.append(first)
            if granted > 1:
                found += self.consumer.consume(granted - 1, 0)
        is_one_partition = len(self.partitions) == 1 and rebalances == self._rebalances
        self._hand_over(found, granted, is_one_partition=is_one_partition)

    def _hand_over(self, found: list[Any], granted: int, *, is_one_partition: bool) -> None:
        """Pass on what was read. is_one_partition: all records are of the only partition that is assigned."""
        records = [record for record in found if record.error() is None]
        passed: list[tuple[KafkaPartition, PartitionRecords]] = []
        if records:
            if is_one_partition:
                by_place = {(records[0].topic(), records[0].partition()): partition_records(records)}
            else:
                by_place = divide_records(records)
            for place, some in by_place.items():
                if (partition := self.partitions.get(place)) is not None:  # else it was taken away meanwhile
                    if partition.read_from < 0:
                        partition.read_from = some.offsets[0]
                        warn_of_deleted(self.consumer, partition, some.offsets[0])
                    partition.read_to = some.offsets[-1] + 1
                    passed.append((partition, some))
        self._owner.take(granted, sum(len(some.bodies) for _, some in passed))  # before they can be finished
        if passed:
            self._pass_on(self._owner.arrived, self, passed)
        if len(records) != len(found):
            for record in (each for each in found if each.error() is not None):
                self._handle_event(record, record.error())

    def _handle_event(self, record: Any, error: Any) -> None:
        """Handle the end of a partition, or an error, among the records."""
        code = error.code()
        if code == codes.PARTITION_EOF:
            if (partition := self.partitions.get((record.topic(), record.partition()))) is not None:
                self._pass_on(self._owner.reached, partition, record.offset())
        elif code == codes.MAX_POLL_EXCEEDED or (code in OF_NETWORK and not error.fatal()):
            log.info("%s", sentence_of(error))  # librdkafka goes on by itself
        elif code in NO_SUCH_TOPIC and record.topic():
            self._deleted_topics.note_gone(record.topic())
        else:
            self._pass_on(self._owner.failed, record.topic() or "", code, sentence_of(error))

    def _poll_without_reading(self) -> None:
        """Take part in rebalances, and show the group that this member lives, while nothing may be read.

        A pause drops what was prefetched, so a reader that is only short of room for a moment does not pause.
        """
        if not self._is_paused:
            self.consumer.pause(self.consumer.assignment())
            self._is_paused = True
        if (found := self.consumer.poll(0)) is not None:
            self._hand_over([found], 0, is_one_partition=False)

    def _resume(self) -> None:
        if self._is_paused:
            self._is_paused = False
            places = [(each.topic, each.partition) for each in self.consumer.assignment()]
            self.consumer.resume(as_partitions(place for place in places if place not in self._waiting.paused))

    def _pause_what_waits(self) -> None:
        stopped, resumed = self._waiting.look(self.partitions, time.monotonic())
        for topic, number in sorted(stopped):
            offset = self.partitions[topic, number].confirmed
            log.warning("%s, partition %d waits for the message at offset %d to be finished", topic, number, offset)
        if self._is_paused:
            return  # all are; those that still wait stay paused when the others are resumed
        if stopped:
            self.consumer.pause(as_partitions(stopped))
        if resumed:
            self.consumer.resume(as_partitions(resumed))

    # ── commits ──

    def _commit_at_the_end(self) -> None:
        """Commit, and wait for the answer, but not for ever: a broker may be away."""
        self._commit()
        deadline = time.monotonic() + LAST_COMMIT
        while self._unanswered_commits and time.monotonic() < deadline:
            if not self._is_paused:
                self.consumer.pause(self.consumer.assignment())
                self._is_paused = True
            self.consumer.poll(POLL)
        if self._unanswered_commits:
            log.warning("the last commit was not answered; what was finished since the commit before may come again")

    def _commit(self, waits: bool = False, only: list[KafkaPartition] | None = None) -> None:
        """Commit what was finished since the last time. waits: return when the cluster has answered."""
        if not self._commits:
            return
        from confluent_kafka import KafkaException, TopicPartition

        moved = [
            (partition, confirmed)
            for partition in (only if only is not None else self.partitions.values())
            if (confirmed := partition.to_commit) > partition.committed
        ]
        if not moved:
            return
        offsets = [TopicPartition(each.topic, each.number, offset, each.note) for each, offset in moved]
        try:
            self.consumer.commit(offsets=offsets, asynchronous=not waits)
        except KafkaException as error:
            self._has_commit_failed = True
            if error.args[0].code() != codes.NO_OFFSET:
                reason = sentence_of(error.args[0])
                log.warning("cannot commit: %s; what was finished since the last commit comes again", reason)
            return
        self._unanswered_commits += not waits  # the answer of one that waits has come
        for partition, offset in moved:
            partition.committed = offset

    def committed(self, error: Any, offsets: list[Any]) -> None:
        """librdkafka calls this for each commit."""
        self._unanswered_commits = max(0, self._unanswered_commits - 1)
        self._has_commit_failed = error is not None
        if error is None or error.code() == codes.NO_OFFSET:
            return
        log.info("cannot commit: %s; it is tried again", sentence_of(error))
        for each in offsets:
            if (partition := self.partitions.get((each.topic, each.partition))) is not None:
                partition.committed = -1

    # ── which partitions are read ──

    def _subscribe(self) -> None:
        if not self._commits:
            self._assign_all()
            return
        self.consumer.subscribe(
            sorted(self.topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def _assign_all(self) -> None:
        """Without a group: read all partitions, from their ends or from a time on; those that were added to a topic
        later from their beginnings."""
        self._looked_at = time.monotonic()
        places = places_without_group(self.consumer, self.topics, self.partitions, self.start, self._deleted_topics)
        if gone := as_partitions(place for place in self.partitions if place[0] in self._deleted_topics):
            self._on_lost(self.consumer, gone)
        self._add(places)
        if places:
            self.consumer.incremental_assign(places)
        self.has_joined = True

    def _on_assign(self, consumer: Any, places: list[Any]) -> None:
        self._rebalances += 1
        places, fresh = committed_or_at(consumer, places, self.start.time_ms) if places else ([], [])
        self._add(places)
        self._deleted_topics.note_back({place.topic for place in places})
        for place in fresh:
            # It is committed, so that a run that receives nothing does not leave the start to the next one.
            self.partitions[place.topic, place.partition].begins_at = place.offset
        consumer.incremental_assign(places)
        if self._is_paused and places:
            consumer.pause(places)
        self.has_joined = True
        log.debug("assigned: %s", ", ".join(f"{place.topic} {place.partition}" for place in places))

    def _add(self, places: list[Any]) -> None:
        for place in places:
            made = self._owner.make_partition(place.topic, place.partition)
            made.note, made.resumes_at = place.metadata or "", place.offset
            self.partitions[place.topic, place.partition] = made

    def _on_revoke(self, consumer: Any, places: list[Any]) -> None:
        partitions = self._remove(places)
        if not self._is_closed:  # else the last commit was sent before
            self._commit(waits=True, only=partitions)
        consumer.incremental_unassign(places)

    def _on_lost(self, consumer: Any, places: list[Any]) -> None:
        self._remove(places)
        consumer.incremental_unassign(places)

    def _remove(self, places: list[Any]) -> list[KafkaPartition]:
        self._rebalances += 1
        found = [self.partitions.pop((place.topic, place.partition), None) for place in places]
        gone = [partition for partition in found if partition is not None]
        deadline = time.monotonic() + OWNERSHIP_LOCK_TIMEOUT
        for partition in gone:
            partition.end_ownership(max(0.0, deadline - time.monotonic()))
        self._waiting.forget({(partition.topic, partition.number) for partition in gone})
        if gone:
            self._pass_on(self._owner.taken_away, gone)
        return gone

    def read_again(self, partition: KafkaPartition) -> None:
        """Read `partition` again from the offset that is committed; called in any thread."""

        def assign_again(consumer: Any) -> None:
            places = as_partitions([(partition.topic, partition.number)])
            if self.partitions.get((partition.topic, partition.number)) is partition:  # else it was taken away
                self._on_lost(consumer, places)
                self._on_assign(consumer, places)

        self._calls.put(assign_again)
        self._wake.set()

    def _pass_on(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function in the event loop's thread."""
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop is closed: the program ends
            self._is_closed = True

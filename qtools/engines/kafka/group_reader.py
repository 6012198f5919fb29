"""The thread that reads and commits one consumer group, or reads without a group. In: topics. Out: pieces, events.

librdkafka's consumer belongs to this thread alone: the thread reads and commits, and librdkafka calls it when
partitions come and go. The event loop gets each list of messages by one call. A function that needs the consumer is
handed to the thread (`call`). The thread reads no more messages than the owner has room for; what is prefetched waits
in librdkafka.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, Protocol, TypeVar

from qtools.engines.kafka.client_errors import (
    FATAL,
    MAX_POLL_EXCEEDED,
    NO_OFFSET,
    OF_NETWORK,
    PARTITION_EOF,
    sentence_of,
)  # fmt: skip
from qtools.engines.kafka.clients import ask
from qtools.engines.kafka.partition import KafkaPartition, Piece, piece_of, pieces_of

log = logging.getLogger("qtools.kafka")

POLL = 0.1  # s that a read waits for a first message
MOST_AT_ONCE = 5000  # messages of one read
COMMIT_INTERVAL = 0.5  # s
LAST_COMMIT = 5.0  # s that the end waits for the last commit
CALL_TIMEOUT = 10.0  # s for a question to the cluster
STALLED = 1.0  # s without room after which reading is paused, so that the group can be served meanwhile
Result = TypeVar("Result")


class ReaderOwner(Protocol):
    """Who has a reader: the source. Its methods are called in the event loop's thread."""

    def room(self) -> int:
        """Messages that may be read now; called in the reader's thread."""

    def take(self, messages: int) -> None:
        """As many messages were read; called in the reader's thread."""

    def make_partition(self, topic: str, number: int) -> KafkaPartition: ...

    def arrived(self, pieces: list[tuple[KafkaPartition, Piece]]) -> None: ...

    def lost(self, partitions: list[KafkaPartition]) -> None: ...

    def reached(self, partition: KafkaPartition, offset: int) -> None: ...

    def failed(self, topic: str, code: int, reason: str) -> None: ...


class GroupReader:
    """consumer: of confluent-kafka, not subscribed yet. commits: whether there is a group whose offsets are committed.

    starts: where partitions begin that have no committed offset, in ms since 1970; None for the client's own way.
    most: offsets that may lie between the lowest unfinished message of a partition and the newest.
    """

    def __init__(
        self, consumer: Any, owner: ReaderOwner, topics: set[str], *, commits: bool, starts_ms: int | None, most: int
    ) -> None:
        self.topics = topics
        self.partitions: dict[tuple[str, int], KafkaPartition] = {}
        self.is_resting = False
        self._consumer = consumer
        self._owner = owner
        self._commits = commits
        self._starts_ms = starts_ms
        self._most = most
        self._loop = asyncio.get_running_loop()
        self._calls: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._wake = threading.Event()
        self._is_closed = False
        self._is_paused = False
        self._full: set[tuple[str, int]] = set()  # partitions that are paused: too far from the lowest unfinished
        self._uncommitted = 0  # commits that were not answered yet
        self._committed_at = self._read_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="kafka-reader", daemon=True)

    # ── for the event loop ──

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """There is room again."""
        self._wake.set()

    def call(self, function: Callable[[Any], Result]) -> asyncio.Future[Result]:
        """Run `function(consumer)` in the thread."""
        done: Future[Result] = Future()

        def run() -> None:
            try:
                done.set_result(function(self._consumer))
            except BaseException as error:
                done.set_exception(error)

        self._calls.put(run)
        self._wake.set()
        return asyncio.wrap_future(done)

    async def close(self) -> None:
        """Commit what is finished, and leave the group."""
        self._is_closed = True
        self._wake.set()
        if self._thread.ident is not None:
            await asyncio.to_thread(self._thread.join)

    # ── the thread ──

    def _run(self) -> None:
        try:
            if self._commits:
                self._subscribe()
            else:
                self._assign_all()
            while not self._is_closed:
                self._step()
        except Exception as error:
            log.debug("the reader ends", exc_info=True)
            self._tell(self._owner.failed, "", FATAL, str(error))
        finally:
            try:
                self._commit_at_the_end()
            finally:
                self._consumer.close()

    def _step(self) -> None:
        while not self._calls.empty():
            self._calls.get()()
        now = time.monotonic()
        if now - self._committed_at >= COMMIT_INTERVAL:
            self._committed_at = now
            self._commit()
            self._pause_full_partitions()
        room = 0 if self.is_resting else self._room()
        if room <= 0:
            if self._is_paused or now - self._read_at > STALLED or self.is_resting:
                self._poll_without_reading()
            self._wake.wait(POLL)
            self._wake.clear()
            return
        self._resume()
        self._read_at = now
        first = self._consumer.poll(POLL)
        if first is None:
            return
        found = [first]
        if room > 1:
            found += self._consumer.consume(min(room, MOST_AT_ONCE) - 1, 0)
        self._hand_over(found)

    def _room(self) -> int:
        """Messages that may be read now, so that no partition gets too far from its lowest unfinished message."""
        most = [self._most - p.distance for place, p in self.partitions.items() if place not in self._full]
        return min([self._owner.room(), *most])

    def _hand_over(self, found: list[Any]) -> None:
        records = [record for record in found if record.error() is None]
        pieces: list[tuple[KafkaPartition, Piece]] = []
        if records:
            if len(self.partitions) == 1:
                by_place = {next(iter(self.partitions)): piece_of(records)}
            else:
                by_place = pieces_of(records)
            for place, piece in by_place.items():
                if (partition := self.partitions.get(place)) is not None:
                    if partition.read_from < 0:
                        partition.read_from = piece.offsets[0]
                    partition.read_to = piece.offsets[-1] + 1
                    pieces.append((partition, piece))
            self._owner.take(sum(len(piece.bodies) for _, piece in pieces))
            self._tell(self._owner.arrived, pieces)
        if len(records) != len(found):
            for record in found:
                if (error := record.error()) is not None:
                    self._note(record, error)

    def _note(self, record: Any, error: Any) -> None:
        """An event among the messages."""
        code = error.code()
        if code == PARTITION_EOF:
            if (partition := self.partitions.get((record.topic(), record.partition()))) is not None:
                self._tell(self._owner.reached, partition, record.offset())
        elif code == MAX_POLL_EXCEEDED or (code in OF_NETWORK and not error.fatal()):
            log.info("%s", sentence_of(error))  # librdkafka goes on by itself
        else:
            self._tell(self._owner.failed, record.topic() or "", code, sentence_of(error))

    def _poll_without_reading(self) -> None:
        """Take part in rebalances, and show the group that this member lives, while nothing may be read.

        A pause drops what was prefetched, so a reader that is only short of room for a moment does not pause.
        """
        if not self._is_paused:
            self._consumer.pause(self._consumer.assignment())
            self._is_paused = True
        if (found := self._consumer.poll(0)) is not None:
            self._hand_over([found])

    def _resume(self) -> None:
        if self._is_paused:
            self._is_paused = False
            places = [(each.topic, each.partition) for each in self._consumer.assignment()]
            self._consumer.resume(self._places([place for place in places if place not in self._full]))

    def _pause_full_partitions(self) -> None:
        """A message that is not finished for long must not stop the other partitions, nor let its own run away."""
        full = {place for place, partition in self.partitions.items() if partition.distance >= self._most}
        if full == self._full or self._is_paused:
            return
        if stopped := full - self._full:
            self._consumer.pause(self._places(stopped))
        if going := (self._full - full) & self.partitions.keys():
            self._consumer.resume(self._places(going))
        self._full = full

    # ── commits ──

    def _commit_at_the_end(self) -> None:
        """Commit, and wait for the answer, but not for ever: a broker may be away."""
        self._commit()
        deadline = time.monotonic() + LAST_COMMIT
        while self._uncommitted > 0 and time.monotonic() < deadline:
            if not self._is_paused:
                self._consumer.pause(self._consumer.assignment())
                self._is_paused = True
            self._consumer.poll(POLL)
        if self._uncommitted > 0:
            log.warning("the last commit was not answered; what was finished since the commit before may come again")

    def _commit(self, waits: bool = False, only: list[KafkaPartition] | None = None) -> None:
        """Commit what was finished since the last time. waits: return when the cluster has answered."""
        if not self._commits:
            return
        from confluent_kafka import KafkaException, TopicPartition

        moved = [
            (partition, confirmed)
            for partition in (only if only is not None else self.partitions.values())
            if (confirmed := partition.confirmed) > partition.committed
        ]
        if not moved:
            return
        offsets = [TopicPartition(partition.topic, partition.number, offset) for partition, offset in moved]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=not waits)
        except KafkaException as error:
            if error.args[0].code() != NO_OFFSET:
                log.warning(
                    "cannot commit: %s; what was finished since the last commit comes again", sentence_of(error.args[0])
                )
            return
        self._uncommitted += not waits  # the answer of one that waits has come
        for partition, offset in moved:
            partition.committed = offset

    def committed(self, error: Any, offsets: list[Any]) -> None:
        """librdkafka calls this for each commit that did not wait."""
        self._uncommitted = max(0, self._uncommitted - 1)
        if error is None or error.code() == NO_OFFSET:
            return
        log.info("cannot commit: %s; it is tried again", sentence_of(error))
        for each in offsets:
            if (partition := self.partitions.get((each.topic, each.partition))) is not None:
                partition.committed = -1

    # ── partitions that come and go ──

    def _subscribe(self) -> None:
        self._consumer.subscribe(
            sorted(self.topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def subscribe(self, topic: str) -> asyncio.Future[None]:
        """Read one more topic."""

        def more(_consumer: Any) -> None:
            self.topics.add(topic)
            if self._commits:
                self._subscribe()
            else:
                self._assign_all()

        return self.call(more)

    def _assign_all(self) -> None:
        """Read all partitions from their ends, or from a time on, without a group."""
        from confluent_kafka import OFFSET_END, TopicPartition

        known = self._consumer.list_topics(timeout=CALL_TIMEOUT).topics
        places = [
            TopicPartition(topic, number, OFFSET_END)
            for topic in sorted(self.topics)
            for number in (known[topic].partitions if topic in known else ())
            if (topic, number) not in self.partitions
        ]
        if self._starts_ms is not None:
            places = self._offsets_at(places)
        self._add(places)
        self._consumer.incremental_assign(places)

    def _on_assign(self, consumer: Any, places: list[Any]) -> None:
        if self._starts_ms is not None:
            committed = ask(partial(consumer.committed, places, timeout=CALL_TIMEOUT))
            fresh = [place for place in committed if place.offset < 0]
            known = [place for place in committed if place.offset >= 0]
            places = known + self._offsets_at(fresh)
        self._add(places)
        consumer.incremental_assign(places)
        if self._is_paused:
            consumer.pause(places)
        log.debug("assigned: %s", ", ".join(f"{place.topic} {place.partition}" for place in places))

    def _offsets_at(self, places: list[Any]) -> list[Any]:
        """Where `places` begin by their time; their ends where nothing is as new."""
        from confluent_kafka import TopicPartition

        asked = [TopicPartition(place.topic, place.partition, self._starts_ms or 0) for place in places]
        return list(ask(partial(self._consumer.offsets_for_times, asked, timeout=CALL_TIMEOUT))) if asked else []

    def _add(self, places: list[Any]) -> None:
        for place in places:
            made = self._owner.make_partition(place.topic, place.partition)
            self.partitions[place.topic, place.partition] = made

    def _on_revoke(self, consumer: Any, places: list[Any]) -> None:
        partitions = self._remove(places)
        self._commit(waits=True, only=partitions)
        consumer.incremental_unassign(places)

    def _on_lost(self, consumer: Any, places: list[Any]) -> None:
        self._remove(places)
        consumer.incremental_unassign(places)

    def _remove(self, places: list[Any]) -> list[KafkaPartition]:
        found = [self.partitions.pop((place.topic, place.partition), None) for place in places]
        gone = [partition for partition in found if partition is not None]
        for partition in gone:
            partition.is_lost = True  # from now on acknowledgements come too late
        self._full -= {(partition.topic, partition.number) for partition in gone}
        if gone:
            self._tell(self._owner.lost, gone)
        return gone

    @staticmethod
    def _places(places: Any) -> list[Any]:
        from confluent_kafka import TopicPartition

        return [TopicPartition(topic, number) for topic, number in places]

    def _tell(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function of the event loop's thread."""
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop is closed: the program ends
            self._is_closed = True

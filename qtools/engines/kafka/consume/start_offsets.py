"""Where partitions begin, and which topics are gone. In: a consumer, partitions, a time. Out: partitions with offsets.
Waits for the cluster."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from functools import partial
from typing import Any, NamedTuple

from qtools.engines.kafka.clients import CALL_TIMEOUT, ask
from qtools.engines.kafka.consume.partition import KafkaPartition
from qtools.engines.kafka.consume.waiting_partitions import Place

log = logging.getLogger("qtools.kafka")


class DeletedTopics(set[str]):
    """The topics that were deleted while they are read. It is logged when one is gone, and when it is there again."""

    def note_gone(self, topic: str) -> None:
        if topic not in self:
            self.add(topic)
            log.warning("topic %s was deleted; it is read when it is there again", topic)

    def note_back(self, topics: Iterable[str]) -> None:
        for topic in self.intersection(topics):
            self.remove(topic)
            log.warning("topic %s is there again", topic)


class ReadingStart(NamedTuple):
    """Where reading begins that goes on from no commit. time_ms: with the first message from then on, ms since 1970.
    partition, offset: without a group, as SourceOptions has them."""

    time_ms: int | None = None
    partition: int | None = None
    offset: int | None = None

    def has(self, number: int) -> bool:
        """Whether the partition is read."""
        return self.partition is None or self.partition == number

    def offset_between(self, low: int, high: int) -> int:
        """The offset in a partition with these bounds, and within them."""
        if self.offset is None:
            return high
        return max(low, high + self.offset) if self.offset < 0 else min(max(low, self.offset), high)


def places_without_group(
    consumer: Any, topics: Collection[str], read: Collection[Place], start: ReadingStart, deleted: DeletedTopics
) -> list[Any]:
    """The partitions of `topics` that are not read yet. Those of a new topic begin where `start` says, or at their
    ends; those that were added to a topic that is read, or whose topic was deleted before, begin at their
    beginnings. Topics that are read and are gone are added to `deleted`, and others are taken out of it."""
    from confluent_kafka import OFFSET_BEGINNING, TopicPartition

    known = ask(partial(consumer.list_topics, timeout=CALL_TIMEOUT)).topics
    old_topics = {topic for topic, _ in read} | deleted
    fresh: list[Any] = []
    added: list[Any] = []
    for topic in sorted(topics):
        numbers = known[topic].partitions if topic in known and known[topic].error is None else ()
        if numbers:
            deleted.note_back((topic,))
        elif topic in old_topics:
            deleted.note_gone(topic)
        for number in filter(start.has, numbers):
            if (topic, number) in read:
                continue
            place = TopicPartition(topic, number, OFFSET_BEGINNING)
            if topic in old_topics:
                added.append(place)
                continue
            if start.time_ms is None:
                bounds = ask(partial(consumer.get_watermark_offsets, place, timeout=CALL_TIMEOUT))
                place.offset = start.offset_between(*bounds)
                if start.offset is not None and 0 <= start.offset != place.offset:
                    what = "%s, partition %d has offsets %d to %d: it is read from %d on"
                    log.warning(what, topic, number, bounds[0], bounds[1] - 1, place.offset)
            fresh.append(place)
    return added + (fresh if start.time_ms is None else offsets_at(consumer, fresh, start.time_ms))


def committed_or_at(consumer: Any, places: list[Any], starts_ms: int | None) -> tuple[list[Any], list[Any]]:
    """`places` with the offsets that their group has committed, with the metadata of that commit, else with those of
    their first messages from `starts_ms` on, or of their ends; and those of them of which nothing was committed.
    Without `starts_ms` auto.offset.reset chooses the offsets that are missing, and there is none of the latter."""
    from confluent_kafka import OFFSET_END, KafkaException

    try:
        committed = checked(ask(partial(consumer.committed, places, timeout=CALL_TIMEOUT)))
    except KafkaException as error:
        if starts_ms is not None:
            raise
        log.info("the committed offsets are not known yet: %s", error)  # librdkafka asks again, for as long as it takes
        return places, []
    if starts_ms is None:
        return committed, []
    fresh = offsets_at(consumer, [place for place in committed if place.offset < 0], starts_ms)
    for place in fresh:
        if place.offset == OFFSET_END:
            _, place.offset = ask(partial(consumer.get_watermark_offsets, place, timeout=CALL_TIMEOUT))
    return [place for place in committed if place.offset >= 0] + fresh, fresh


def warn_of_deleted(consumer: Any, partition: KafkaPartition, first: int) -> None:
    """Log which offsets the topic has deleted before the group has read them, if the first message is not where the
    group continues. Other gaps of offsets, of a compacted topic and of transactions, are no loss."""
    from confluent_kafka import KafkaException, TopicPartition

    start = partition.resumes_at
    if not 0 <= start < first:
        return
    try:
        low, _ = consumer.get_watermark_offsets(TopicPartition(partition.topic, partition.number), timeout=CALL_TIMEOUT)
    except KafkaException as error:
        log.info("it is not known whether offsets from %d on were deleted: %s", start, error)
        return
    if low > start:
        log.warning(
            "%s, partition %d: the topic has deleted offsets %d to %d (retention, or on request) before they were read",
            partition.topic, partition.number, start, low - 1,
        )  # fmt: skip


def offsets_at(consumer: Any, places: list[Any], starts_ms: int) -> list[Any]:
    """`places` with the offsets of their first messages from `starts_ms` on; OFFSET_END where there is none."""
    from confluent_kafka import TopicPartition

    asked = [TopicPartition(place.topic, place.partition, starts_ms) for place in places]
    return checked(ask(partial(consumer.offsets_for_times, asked, timeout=CALL_TIMEOUT))) if asked else []


def checked(places: list[Any]) -> list[Any]:
    """The answers about `places`; KafkaException for the first that is an error."""
    from confluent_kafka import KafkaException

    for place in places:
        if place.error is not None:
            raise KafkaException(place.error)
    return places


def as_partitions(places: Iterable[Place]) -> list[Any]:
    from confluent_kafka import TopicPartition

    return [TopicPartition(topic, number) for topic, number in places]

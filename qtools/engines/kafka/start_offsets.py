"""Where partitions begin. In: a consumer, partitions, a time. Out: partitions with offsets. Waits for the cluster."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

from qtools.engines.kafka.clients import CALL_TIMEOUT, ask

Place = tuple[str, int]  # a topic and a partition's number


def places_without_group(
    consumer: Any, topics: Collection[str], read: Collection[Place], starts_ms: int | None
) -> list[Any]:
    """The partitions of `topics` that are not read yet. Those of a new topic begin at `starts_ms` (ms since 1970), or
    at their ends; those that were added to a topic that is read begin at their beginnings."""
    from confluent_kafka import OFFSET_BEGINNING, TopicPartition

    known = ask(partial(consumer.list_topics, timeout=CALL_TIMEOUT)).topics
    old_topics = {topic for topic, _ in read}
    fresh: list[Any] = []
    added: list[Any] = []
    for topic in sorted(topics):
        for number in known[topic].partitions if topic in known else ():
            if (topic, number) in read:
                continue
            place = TopicPartition(topic, number, OFFSET_BEGINNING)
            if topic in old_topics:
                added.append(place)
                continue
            if starts_ms is None:
                _, place.offset = ask(partial(consumer.get_watermark_offsets, place, timeout=CALL_TIMEOUT))
            fresh.append(place)
    return added + (fresh if starts_ms is None else offsets_at(consumer, fresh, starts_ms))


def committed_or_at(consumer: Any, places: list[Any], starts_ms: int | None) -> tuple[list[Any], list[Any]]:
    """Those of `places` for which their group has committed an offset, with it; and the others, with the offsets of
    their first messages from `starts_ms` on, or of their ends. Without `starts_ms` all are among the first, and
    auto.offset.reset chooses the offsets that are missing."""
    from confluent_kafka import OFFSET_END

    committed = checked(ask(partial(consumer.committed, places, timeout=CALL_TIMEOUT)))
    if starts_ms is None:
        return committed, []
    fresh = offsets_at(consumer, [place for place in committed if place.offset < 0], starts_ms)
    for place in fresh:
        if place.offset == OFFSET_END:
            _, place.offset = ask(partial(consumer.get_watermark_offsets, place, timeout=CALL_TIMEOUT))
    return [place for place in committed if place.offset >= 0], fresh


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

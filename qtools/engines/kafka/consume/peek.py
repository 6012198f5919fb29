"""Shows the first messages that a channel has not finished, without taking them. In: a subscription. Out: batches."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

from qtools.engines.kafka.client_errors import (
    PARTITION_EOF,
    TIMED_OUT,
    UNKNOWN_TOPIC_OR_PARTITION,
    error_of_code,
    sentence_of,
)
from qtools.engines.kafka.clients import CALL_TIMEOUT, ErrorLog, ask, library, look_at_cluster, make_consumer
from qtools.engines.kafka.consume.partition import KafkaPartition, partition_records
from qtools.engines.kafka.settings import KafkaSettings
from qtools.errors import NetworkError, UsageError
from qtools.message import Batch
from qtools.names import Subscription, is_ephemeral

NO_GROUP = "qtools-peek"  # a name that the client needs; it joins no group


async def peek(subscription: Subscription, settings: KafkaSettings, count: int) -> list[Batch]:
    """The first `count` messages that the group has not committed, or of the topic where there is no group.

    UsageError when there is no such topic, StartError when no broker answers, NetworkError when one goes away."""
    errors = ErrorLog(settings)
    topic, channel = subscription
    group = NO_GROUP if is_ephemeral(channel) else channel
    properties = {"group.id": group, "enable.auto.commit": False, "enable.partition.eof": True,
                  "auto.offset.reset": "earliest"}  # fmt: skip
    consumer = make_consumer(settings, errors, properties)
    try:
        view = await look_at_cluster(consumer, errors, str(settings), lambda: consumer.poll(0))
        if topic not in view.partitions:
            raise UsageError(str(error_of_code(topic, UNKNOWN_TOPIC_OR_PARTITION, str(settings))))
        try:
            records = await asyncio.to_thread(_read, consumer, topic, view.partitions[topic], count, group != NO_GROUP)
        except library().KafkaException as error:
            raise NetworkError(str(settings), errors.last or sentence_of(error.args[0])) from error
    finally:
        await asyncio.to_thread(consumer.close)
    batches = []
    for number in view.partitions[topic]:
        some = [record for record in records if record.partition() == number]
        if some:
            origin = KafkaPartition(topic, number, str(settings), _ignore, _ignore, _ignore)
            batches.append(origin.add(partition_records(some)))
    return batches


def _ignore(*_: object) -> None:
    """A callback of an origin that acknowledges nothing."""


def _read(consumer: Any, topic: str, partitions: list[int], count: int, has_group: bool) -> list[Any]:
    """The first `count` records from the committed offsets on, or from the beginnings."""
    from confluent_kafka import OFFSET_BEGINNING, TopicPartition

    places = [TopicPartition(topic, number) for number in partitions]
    if has_group:
        places = ask(partial(consumer.committed, places, timeout=CALL_TIMEOUT))
    for place in places:
        if place.offset < 0:
            place.offset = OFFSET_BEGINNING
    consumer.assign(places)
    records: list[Any] = []
    open_partitions = set(partitions)
    deadline = time.monotonic() + CALL_TIMEOUT
    while open_partitions and len(records) < count:
        if time.monotonic() > deadline:
            raise library().KafkaException(library().KafkaError(TIMED_OUT))
        found = consumer.consume(min(count - len(records), 1000), 0.2)
        for record in found:
            deadline = time.monotonic() + CALL_TIMEOUT
            if record.error() is None:
                records.append(record)
            elif record.error().code() == PARTITION_EOF:
                open_partitions.discard(record.partition())
            else:
                raise library().KafkaException(record.error())
    return records[:count]

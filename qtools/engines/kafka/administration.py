"""Creates, empties and deletes topics and groups; to empty a group is a commit. In: names. Out: requests."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any

from qtools.engines.contract import NewTopics
from qtools.engines.kafka.client_errors import GROUP_ID_NOT_FOUND, NO_SUCH_TOPIC, TOPIC_EXISTS, sentence_of
from qtools.engines.kafka.clients import ErrorLog, ask, library, look_at_cluster, make_admin
from qtools.engines.kafka.settings import KafkaSettings
from qtools.errors import NetworkError, TopicMissing, UsageError

TIMEOUT = 10.0  # s
END = -1  # the offset of the end, for delete_records


async def create(topic: str, channel: str, new: NewTopics | None, settings: KafkaSettings) -> bool:
    """Create `topic`; return whether it is new. UsageError for a channel: a group is created by its first reader."""
    if channel:
        raise UsageError(f"{topic}/{channel}: in Kafka a channel is a consumer group, which its first reader creates")
    errors = ErrorLog(settings)
    admin = make_admin(settings, errors)
    return bool(await _asked(partial(_create, admin, topic, new or NewTopics()), errors, settings))


async def empty(topic: str, channel: str, settings: KafkaSettings) -> None:
    """Delete all records of `topic`, or commit the ends of its partitions for the group `channel`, which must have no
    member."""
    errors = ErrorLog(settings)
    admin = make_admin(settings, errors)
    view = await look_at_cluster(admin, errors, str(settings), lambda: admin.poll(0))
    if topic not in view.partitions:
        raise TopicMissing(f"{topic}: there is no such topic on {settings}")
    work = partial(_empty, admin, topic, channel, view.partitions[topic])
    await _asked(work, errors, settings)


async def delete(topic: str, channel: str, settings: KafkaSettings) -> None:
    """Delete `topic` and what its groups have committed, or only the group `channel`. What does not exist is deleted
    already. NetworkError when that is refused, or no broker answers."""
    errors = ErrorLog(settings)
    admin = make_admin(settings, errors)
    with suppress(TopicMissing):
        await _asked(partial(_delete, admin, topic, channel), errors, settings)


async def _asked(work: partial[Any], errors: ErrorLog, settings: KafkaSettings) -> Any:
    try:
        return await asyncio.to_thread(ask, work)
    except library().KafkaException as error:
        if error.args[0].code() in NO_SUCH_TOPIC:
            raise TopicMissing(f"{settings}: {sentence_of(error.args[0])}") from error
        raise NetworkError(str(settings), errors.last or sentence_of(error.args[0])) from error


def _create(admin: Any, topic: str, new: NewTopics) -> bool:
    from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]

    # -1 stands for the cluster's own settings (KIP-464).
    made = NewTopic(topic, num_partitions=new.partitions or -1, replication_factor=new.replicas or -1)
    try:
        admin.create_topics([made], request_timeout=TIMEOUT)[topic].result()
    except library().KafkaException as error:
        if error.args[0].code() == TOPIC_EXISTS:
            return False
        raise
    return True


def _delete(admin: Any, topic: str, channel: str) -> None:
    if not channel:
        admin.delete_topics([topic], request_timeout=TIMEOUT)[topic].result()
        return
    try:
        admin.delete_consumer_groups([channel], request_timeout=TIMEOUT)[channel].result()
    except library().KafkaException as error:
        if error.args[0].code() != GROUP_ID_NOT_FOUND:
            raise


def _empty(admin: Any, topic: str, channel: str, numbers: list[int]) -> None:
    from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
    from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

    places = [TopicPartition(topic, number) for number in numbers]
    if not channel:
        ends = [TopicPartition(topic, number, END) for number in numbers]
        for answer in admin.delete_records(ends, request_timeout=TIMEOUT).values():
            answer.result()
        return
    specs: Any = OffsetSpec
    asked = admin.list_offsets({place: specs.latest() for place in places}, request_timeout=TIMEOUT)
    ends = [TopicPartition(topic, place.partition, answer.result().offset) for place, answer in asked.items()]
    moved = ConsumerGroupTopicPartitions(channel, ends)
    for each in admin.alter_consumer_group_offsets([moved], request_timeout=TIMEOUT)[channel].result().topic_partitions:
        if each.error is not None:
            raise library().KafkaException(each.error)

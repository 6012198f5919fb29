"""What is in a Kafka cluster, seen by librdkafka's own clients. In: an address. Out: records, offsets, leaders.

All methods wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType  # type: ignore[attr-defined]

from harness.waiting import wait_until

TIMEOUT = 30.0  # s
# A leader or a coordinator is being chosen, or loads what it has to know.
NOT_YET = frozenset({5, 6, 14, 15, 16})
Result = TypeVar("Result")


def ask(question: Callable[[], Result]) -> Result:
    """The answer of the cluster; asked again while a leader or a coordinator is being chosen."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            return question()
        except KafkaException as error:
            if error.args[0].code() not in NOT_YET or time.monotonic() > deadline:
                raise
        time.sleep(0.05)


class KafkaClient:
    """addresses: "HOST:PORT,HOST:PORT"."""

    def __init__(self, addresses: str) -> None:
        self._settings: dict[str, Any] = {"bootstrap.servers": addresses, "log_level": 0}
        self._admin = AdminClient(self._settings)

    # ── topics ──

    def create(self, topic: str, partitions: int = 1, replicas: int = 1, **settings: str) -> None:
        """settings: of the topic, with '_' for '.'."""
        config = {key.replace("_", "."): value for key, value in settings.items()}
        new = NewTopic(topic, partitions, replicas, config=config)
        self._admin.create_topics([new])[topic].result(TIMEOUT)
        wait_until(lambda: all(leader >= 0 for leader in self.leaders(topic).values()), TIMEOUT, f"leaders of {topic}")

    def set_limit(self, topic: str, size: int) -> None:
        """Set the bytes that a message of the topic may have."""
        entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        self._admin.incremental_alter_configs([resource])[resource].result(TIMEOUT)

    def leaders(self, topic: str) -> dict[int, int]:
        """partition → the number of the node that leads it, -1 for none."""
        return {number: each.leader for number, each in self._partitions(topic).items()}

    def in_sync(self, topic: str) -> int:
        """The smallest number of replicas in sync of any partition."""
        return min((len(each.isrs) for each in self._partitions(topic).values()), default=0)

    def _partitions(self, topic: str) -> dict[int, Any]:
        try:
            found: dict[int, Any] = self._admin.list_topics(topic, timeout=TIMEOUT).topics[topic].partitions
        except KafkaException:
            return {}
        return found

    # ── messages ──

    def fill(self, topic: str, bodies: Sequence[bytes], keys: Sequence[bytes] | None = None) -> None:
        """Without keys the partitions get the messages by turns."""
        partitions = len(self._partitions(topic))
        producer = Producer(self._settings | {"partitioner": "murmur2_random", "enable.idempotence": True})
        errors: list[Any] = []

        def report(error: Any, _message: Message) -> None:
            if error is not None:
                errors.append(error)

        for place, body in enumerate(bodies):
            while True:
                try:
                    if keys is None:
                        producer.produce(topic, body, partition=place % partitions, on_delivery=report)
                    else:
                        producer.produce(topic, body, keys[place], on_delivery=report)
                    break
                except BufferError:
                    producer.poll(0.05)
        assert producer.flush(4 * TIMEOUT) == 0
        assert not errors

    def records(self, topic: str, channel: str = "") -> Iterator[list[Message]]:
        """All messages of a topic, or those that `channel` has not committed; it commits them afterwards."""
        with self._consumer(channel or "qtools-tests") as consumer:
            places = self._places(consumer, topic, is_committed=bool(channel))
            left = sum(_bounds(consumer, place)[1] - place.offset for place in places)
            if not left:
                return
            consumer.assign(places)
            while left:
                some = consumer.consume(min(left, 10_000), TIMEOUT)
                assert some, f"{left} more messages of {topic} did not come"
                assert not any(record.error() for record in some)
                left -= len(some)
                yield some
            if channel:
                ask(lambda: consumer.commit(offsets=consumer.position(places), asynchronous=False))

    def drain(self, topic: str, channel: str) -> list[bytes]:
        """The bodies of what `channel` has not committed, which it commits."""
        return [record.value() or b"" for some in self.records(topic, channel) for record in some]

    # ── offsets ──

    def end(self, topic: str) -> int:
        """The offsets behind the newest messages, added up over all partitions."""
        with self._consumer("qtools-tests") as consumer:
            places = self._places(consumer, topic)
            return sum(_bounds(consumer, place)[1] for place in places)

    def committed(self, topic: str, channel: str) -> int:
        """The committed offsets of `channel`, added up over all partitions."""
        with self._consumer(channel) as consumer:
            return sum(place.offset for place in self._places(consumer, topic, is_committed=True))

    def committed_in(self, topic: str, channel: str, partition: int) -> int:
        """The committed offset of `channel` in one partition."""
        with self._consumer(channel) as consumer:
            (found,) = [
                place for place in self._places(consumer, topic, is_committed=True) if place.partition == partition
            ]
            return found.offset

    def left(self, topic: str, channel: str) -> int:
        """Messages that `channel` has not committed."""
        return self.end(topic) - self.committed(topic, channel)

    def _places(self, consumer: Consumer, topic: str, *, is_committed: bool = False) -> list[TopicPartition]:
        """All partitions, from their oldest messages or from where the consumer's group stands."""
        places = [TopicPartition(topic, number) for number in self._partitions(topic)]
        if is_committed:
            places = ask(lambda: consumer.committed(places, timeout=TIMEOUT))
        for place in places:
            place.offset = max(_bounds(consumer, place)[0], place.offset)
        return places

    @contextmanager
    def _consumer(self, group: str) -> Iterator[Consumer]:
        consumer = Consumer(self._settings | {"group.id": group, "enable.auto.commit": False})
        try:
            yield consumer
        finally:
            consumer.close()


def _bounds(consumer: Consumer, place: TopicPartition) -> tuple[int, int]:
    """The offset of a partition's oldest message, and the one behind its newest."""
    return ask(lambda: consumer.get_watermark_offsets(place, timeout=TIMEOUT))

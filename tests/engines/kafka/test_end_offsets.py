"""The ends of partitions on a real Kafka: asked of all partitions at once, and without what is not committed."""

from __future__ import annotations

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]

from qtools.engines.kafka.clients import ErrorLog, make_admin
from qtools.engines.kafka.consume import end_offsets
from qtools.engines.kafka.consume.end_offsets import OffsetClients
from qtools.engines.kafka.engine import KafkaEngine
from qtools.engines.kafka.settings import KafkaSettings
from qtools.errors import SourceDeleted
from tests.engines.reading import BODIES, bodies_of, drain, publish

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]
PARTITIONS = 40


async def test_the_ends_of_all_partitions_take_two_requests(
    engine: KafkaEngine, kafka: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = KafkaSettings((kafka,))
    admin = make_admin(settings)
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result()
    await publish(engine, topic, BODIES)
    asked = []
    ask_all = end_offsets.list_offsets

    def count(admin, places, spec, **more):  # type: ignore[no-untyped-def]
        asked.append(len(places))
        return ask_all(admin, places, spec, **more)

    monkeypatch.setattr(end_offsets, "list_offsets", count)
    clients = OffsetClients(settings, ErrorLog(settings))
    bounds = await clients.bounds({topic})
    assert sorted(bounds) == [(topic, number) for number in range(PARTITIONS)]
    assert sum(high - low for low, high in bounds.values()) == len(BODIES)
    assert asked == [PARTITIONS, PARTITIONS]
    with pytest.raises(SourceDeleted, match="missing"):
        await clients.bounds({topic, "missing"})
    await clients.close()


async def test_until_empty_ends_before_an_open_transaction(engine: KafkaEngine, kafka: str, topic: str) -> None:
    await publish(engine, topic, [b"a", b"b"])
    producer = Producer({"bootstrap.servers": kafka, "transactional.id": topic})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic, b"open")
    producer.flush(30)
    assert bodies_of(await drain(engine, topic)) == [b"a", b"b"]
    producer.commit_transaction(30)
    assert bodies_of(await drain(engine, topic)) == [b"open"]

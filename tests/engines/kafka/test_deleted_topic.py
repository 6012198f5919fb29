"""A topic that is deleted while an endless run reads it: one warning, and the run goes on when it is there again."""

from __future__ import annotations

import asyncio
import logging

import pytest
from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]
from harness.waiting import wait_until

from qtools.engines.kafka.clients import make_admin
from qtools.engines.kafka.consume import group_reader
from qtools.engines.kafka.engine import KafkaEngine
from qtools.engines.kafka.settings import KafkaSettings
from tests.engines.reading import publish, read, reading

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]


@pytest.mark.parametrize("channel", ["own", "x#ephemeral"])
async def test_the_run_goes_on(
    kafka: str, topic: str, channel: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_reader, "LOOK_FOR_PARTITIONS", 0.5)
    engine = KafkaEngine(KafkaSettings((kafka,), properties=(("topic.metadata.refresh.interval.ms", "1000"),)))
    admin = make_admin(engine.settings)
    await asyncio.to_thread(admin.create_topics([NewTopic(topic, 2, 1)])[topic].result)

    def warned() -> list[str]:
        return [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]

    async with reading(engine, topic, channel) as source:
        await asyncio.to_thread(wait_until, lambda: source.connected, 60)
        await publish(engine, topic, [b"before"])
        for batch in await read(source, 1):
            batch.finish()
        going_on = asyncio.ensure_future(read(source, 1))
        await asyncio.to_thread(admin.delete_topics([topic])[topic].result)
        await asyncio.to_thread(wait_until, warned, 60)
        assert warned() == [f"topic {topic} was deleted; it is read when it is there again"]
        await asyncio.to_thread(admin.create_topics([NewTopic(topic, 2, 1)])[topic].result)
        await publish(engine, topic, [b"after"])
        assert [body for batch in await going_on for body in batch.bodies] == [b"after"]
    assert warned()[1:] == [f"topic {topic} is there again"]

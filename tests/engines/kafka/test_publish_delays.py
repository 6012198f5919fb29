"""How soon messages are confirmed: librdkafka waits neither for its id of a producer nor for messages that do not come.

Each duration is the shortest of some, as a busy machine takes longer for anything.
"""

from __future__ import annotations

import time

import pytest
from harness.kafka_client import KafkaClient

from qtools.engines.kafka.engine import KafkaEngine
from qtools.engines.kafka.publish import publisher as publishing_module
from qtools.engines.kafka.settings import KafkaSettings
from tests.engines.reading import publishing

pytestmark = pytest.mark.slow
TRIES = 6
LONG_LINGER_MS = 3000


async def seconds_of_publish(engine: KafkaEngine, topic: str) -> float:
    """How long the second publish of a publisher takes, which has an id and knows the topic; the shortest of some."""
    async with publishing(engine) as publisher:
        await publisher.publish([(topic, [b"before"])])
        took = []
        for _ in range(TRIES):
            begun = time.perf_counter()
            assert await publisher.publish([(topic, [b"%d" % number for number in range(500)])]) == {}
            took.append(time.perf_counter() - begun)
        return min(took)


async def test_the_first_message_does_not_wait_for_an_id(engine: KafkaEngine, kafka: str, topic: str) -> None:
    """librdkafka asks for it again after 500 ms if no broker was connected when it asked first."""
    KafkaClient(kafka).create(topic)
    took = []
    for _ in range(TRIES):
        begun = time.perf_counter()
        async with publishing(engine, new_topics=None) as publisher:
            assert await publisher.publish([(topic, [b"a"])]) == {}
        took.append(time.perf_counter() - begun)
    assert sorted(took)[TRIES // 2] < 0.45, took


async def test_a_publish_that_nothing_follows_does_not_linger(
    engine: KafkaEngine, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing_module, "LINGER_MS", LONG_LINGER_MS)
    assert await seconds_of_publish(engine, topic) < LONG_LINGER_MS / 2000


async def test_a_linger_that_the_user_has_set_is_kept(kafka: str, topic: str) -> None:
    engine = KafkaEngine(KafkaSettings((kafka,), properties=(("linger.ms", "200"),)))
    assert await seconds_of_publish(engine, topic) >= 0.19

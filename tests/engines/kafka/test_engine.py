"""What only Kafka's engine does, on a real Kafka; what all engines do is in the suite of the folder above."""

from __future__ import annotations

import asyncio
import time

import pytest
from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]
from harness.kafka_client import KafkaClient

from qtools.attributes import Attributes
from qtools.engines.contract import EndConditions
from qtools.engines.kafka.clients import make_admin
from qtools.engines.kafka.consume.group_reader import COMMIT_INTERVAL
from qtools.engines.kafka.consume.partition import KafkaPartition
from qtools.engines.kafka.engine import KafkaEngine
from qtools.engines.kafka.settings import KafkaSettings
from qtools.errors import BrokerError, SourceDeleted, StartError
from qtools.flow.keying import FixedAttributes
from tests.engines.reading import BODIES, EMPTY, bodies_of, drain, publish, publishing, read, read_all, reading

pytestmark = pytest.mark.slow  # a server of 300 MB, which takes ten seconds to start


async def test_a_new_group_begins_with_the_oldest_message(engine: KafkaEngine, topic: str) -> None:
    await publish(engine, topic, BODIES)
    assert len(await drain(engine, topic)) == 1000
    assert len(await drain(engine, topic, "another")) == 1000


async def test_an_unknown_topic_is_refused_and_all_else_is_safe(engine: KafkaEngine, topic: str) -> None:
    await publish(engine, topic, [b"a"])
    async with publishing(engine, new_topics=None) as publisher:
        refused = await publisher.publish([("missing", [b"b"]), (topic, [b"c"])])
        assert list(refused) == [(0, 0)]
        assert isinstance(refused[0, 0], BrokerError)
        assert "topic missing: there is no such topic" in str(refused[0, 0])
    assert bodies_of(await drain(engine, topic)) == [b"a", b"c"]


async def test_an_unknown_topic_is_said_before_anything_is_read(engine: KafkaEngine) -> None:
    with pytest.raises(StartError, match="topic missing: there is no such topic"):
        async with reading(engine, "missing"):
            pass


async def test_since(engine: KafkaEngine, topic: str) -> None:
    stamps = [1_700_000_000_000_000_000 + number * 1_000_000_000 for number in range(100)]
    await publish(engine, topic, BODIES[:100], Attributes(timestamps=stamps))
    found = await drain(engine, topic, since=1_700_000_060.0)
    assert sorted(int(message.body) for message in found) == list(range(60, 100))


async def read_until_idle(engine: KafkaEngine, topic: str) -> int:
    """How many messages come before 0.3 s without one end the run."""
    async with reading(engine, topic, ends=EndConditions(idle_timeout=0.3)) as source, asyncio.timeout(60):
        ending = asyncio.ensure_future(source.wait_for_end())
        count = 0
        while (batch := await source.read()) is not None:
            count += len(batch)
            batch.finish()
        assert await ending
    return count


async def test_an_idle_run_waits_for_its_group(engine: KafkaEngine, topic: str) -> None:
    """Joining a group may take longer than the time without messages after which the run is to end."""
    await publish(engine, topic, BODIES)
    assert await read_until_idle(engine, topic) == 1000


async def test_an_idle_run_waits_for_the_first_answer_of_a_partition(kafka: str, topic: str) -> None:
    """A broker may take longer for the first read than the time without messages after which the run is to end."""
    slow = (("fetch.min.bytes", "50000000"), ("fetch.wait.max.ms", "2000"))
    engine = KafkaEngine(KafkaSettings((kafka,), properties=slow))
    await publish(engine, topic, BODIES)
    assert await read_until_idle(engine, topic) == 1000


async def test_a_topic_that_is_deleted_ends_a_run_that_was_to_read_all_of_it(engine: KafkaEngine, topic: str) -> None:
    await publish(engine, topic, BODIES)
    admin = make_admin(engine.settings)
    async with reading(engine, topic, ends=EMPTY, max_in_flight=10) as source:
        batches = await read(source, 10)
        await asyncio.to_thread(admin.delete_topics([topic])[topic].result)
        for batch in batches:
            batch.finish()
        with pytest.raises(SourceDeleted, match=topic):
            async with asyncio.timeout(60):
                await source.wait_until_empty()


async def test_a_message_larger_than_the_queue_is_refused(engine: KafkaEngine, topic: str) -> None:
    admin = make_admin(engine.settings)
    new = NewTopic(topic, 1, 1, config={"max.message.bytes": "200000000"})
    await asyncio.to_thread(admin.create_topics([new])[topic].result)
    async with publishing(engine) as publisher:
        refused = await publisher.publish([(topic, [b"x" * 70_000_000, b"a"])])
        assert list(refused) == [(0, 0)]
        assert await publisher.publish([(topic, [b"b"])]) == {}


async def test_the_identity_is_the_clusters(engine: KafkaEngine) -> None:
    ((kind, name),) = await engine.identity()
    assert kind == "kafka"
    assert len(name) == 22


async def test_of_a_batch_with_an_invalid_message_only_that_one_is_refused(engine: KafkaEngine, topic: str) -> None:
    admin = make_admin(engine.settings)
    made = NewTopic(topic, 1, 1, config={"cleanup.policy": "compact"})
    await asyncio.to_thread(admin.create_topics([made])[topic].result)
    bodies = [b"%d" % number for number in range(2000)]
    keys = [None if number in (700, 701, 1999) else b"k%d" % number for number in range(2000)]
    async with publishing(engine, new_topics=None) as publisher:
        refused = await publisher.publish([(topic, bodies)], attributes=FixedAttributes([Attributes(keys=keys)]))
        assert sorted(refused) == [(0, 700), (0, 701), (0, 1999)]
        assert "a compacted topic needs a key" in str(refused[0, 700])
        # What is published next is taken as ever.
        assert await publisher.publish([(topic, [b"x"])], attributes=FixedAttributes([Attributes(keys=[b"k"])])) == {}
    found = bodies_of(await drain(engine, topic))
    assert found == [body for body, key in zip(bodies, keys, strict=True) if key is not None] + [b"x"]


async def test_an_invalid_message_does_not_refuse_those_of_other_publishes_in_its_batch(
    engine: KafkaEngine, topic: str
) -> None:
    admin = make_admin(engine.settings)
    made = NewTopic(topic, 1, 1, config={"cleanup.policy": "compact"})
    await asyncio.to_thread(admin.create_topics([made])[topic].result)
    keys = [None if number == 20 else b"%d" % number for number in range(40)]
    async with publishing(engine, new_topics=None) as publisher:
        answers = await asyncio.gather(
            *(
                publisher.publish([(topic, [b"%d" % n])], attributes=FixedAttributes([Attributes(keys=[key])]))
                for n, key in enumerate(keys)
            )
        )
    assert [number for number, refused in enumerate(answers) if refused] == [20]
    found = bodies_of(await drain(engine, topic))
    assert sorted(found) == sorted(b"%d" % number for number in range(40) if number != 20)


async def test_a_run_with_since_that_receives_nothing_leaves_its_start_to_the_next_run(
    engine: KafkaEngine, topic: str
) -> None:
    await publish(engine, topic, [b"before"])
    async with reading(engine, topic, since=time.time() + 60) as source:
        async with asyncio.timeout(60):
            while not source.connected:  # noqa: ASYNC110 - the group sends no event
                await asyncio.sleep(0.05)
    await publish(engine, topic, [b"after"])
    assert bodies_of(await drain(engine, topic)) == [b"after"]
    assert bodies_of(await drain(engine, topic, "another")) == [b"before", b"after"]


async def test_a_limit_that_was_raised_is_noticed(
    kafka: str, engine: KafkaEngine, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = KafkaClient(kafka)
    await asyncio.to_thread(client.create, topic, max_message_bytes="1000")
    async with publishing(engine) as publisher:
        for _ in range(2):
            assert list(await publisher.publish([(topic, [b"x" * 2000, b"a"])])) == [(0, 0)]
        await asyncio.to_thread(client.set_limit, topic, 10_000)
        assert list(await publisher.publish([(topic, [b"x" * 2000])])) == [(0, 0)]  # it is not asked for all the time
        monkeypatch.setattr("qtools.engines.kafka.publish.publisher.ASK_AGAIN", 0.0)
        assert list(await publisher.publish([(topic, [b"x" * 2000])])) == [(0, 0)]
        assert await publisher.publish([(topic, [b"x" * 2000])]) == {}


async def test_a_commit_is_sent_early_when_much_is_finished(
    kafka: str, engine: KafkaEngine, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that after a crash no more comes again than about twice what may be in flight."""
    monkeypatch.setattr("qtools.engines.kafka.consume.group_reader.COMMIT_INTERVAL", 1000.0)
    client = KafkaClient(kafka)
    await asyncio.to_thread(client.create, topic, 2)
    await asyncio.to_thread(client.fill, topic, [b"%d" % number for number in range(6000)])
    async with reading(engine, topic, max_in_flight=1000) as source:
        finished = 0
        while finished < 5500:
            batch = await source.read()
            assert batch is not None
            batch.finish()
            finished += len(batch)
        async with asyncio.timeout(30):
            while await asyncio.to_thread(client.committed, topic, "own") < finished - 1000:  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def test_a_partition_is_read_again_from_what_was_committed(engine: KafkaEngine, topic: str) -> None:
    """What is held back is not committed though it is finished. The old origin is lost; a new one delivers it again."""
    await publish(engine, topic, BODIES)
    async with reading(engine, topic, max_in_flight=2000) as source:
        first = await read_all(source, 1000)
        origin = first.parts[0][0]
        assert isinstance(origin, KafkaPartition)
        origin.commit_limit = 300
        first.finish()
        await asyncio.sleep(COMMIT_INTERVAL * 2)  # a commit that must not happen has no event
        origin.read_again()
        again = await read_all(source, 700)
        assert bodies_of(list(again.messages)) == BODIES[300:]
        assert origin.is_lost
        assert again.parts[0][0] is not origin
        origin.read_again()  # too late: nothing happens
        again.finish()
        assert source.in_flight == 0
    assert await drain(engine, topic) == []


async def test_the_longest_names(engine: KafkaEngine, topic: str) -> None:
    longest = (topic + "." * 249)[:249]
    await publish(engine, longest, [b"a"])
    assert bodies_of(await drain(engine, longest, "c" * 249)) == [b"a"]

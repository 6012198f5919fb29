"""Idempotency-Key: what was answered is not done again; what failed may be tried again."""

from __future__ import annotations

import asyncio

import pytest
from harness.brokers import Broker
from harness.gateway import Gateway

from qtools.pubsub_http.publish.idempotency import Idempotency
from qtools.web.request_body import Refusal


def test_a_repeated_key_is_answered_without_publishing_again(gateway: Gateway, broker: Broker, topic: str) -> None:
    headers = {"Idempotency-Key": "order-1"}
    answers = [gateway.post("/pub", b"order", headers, topic=topic) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert [answer.headers.get("idempotent-replayed") for answer in answers] == [None, "true", "true"]
    assert {answer.headers["q-published"] for answer in answers} == {"1"}
    assert gateway.post("/pub", b"order", {"Idempotency-Key": "order-2"}, topic=topic).status_code == 200
    assert broker.bodies(topic) == [b"order", b"order"]


def test_many_messages_under_one_key(gateway: Gateway, broker: Broker, topic: str) -> None:
    answers = [gateway.post("/mpub", b"a\nb\n", {"Idempotency-Key": "k"}, topic=topic) for _ in range(2)]
    assert [answer.headers["q-published"] for answer in answers] == ["2", "2"]
    assert broker.bodies(topic) == [b"a", b"b"]


def test_a_key_with_another_body_is_refused(gateway: Gateway, broker: Broker, topic: str) -> None:
    gateway.post("/pub", b"one", {"Idempotency-Key": "k"}, topic=topic)
    answer = gateway.post("/pub", b"two", {"Idempotency-Key": "k"}, topic=topic)
    assert (answer.status_code, answer.json()["message"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert broker.bodies(topic) == [b"one"]


def test_the_same_key_for_another_topic_is_another(gateway: Gateway, broker: Broker, topic: str) -> None:
    for name in (topic, topic + "x"):
        assert "idempotent-replayed" not in gateway.post("/pub", b"b", {"Idempotency-Key": "k"}, topic=name).headers
    assert broker.bodies(topic) == broker.bodies(topic + "x") == [b"b"]


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_a_key_has_a_length(gateway: Gateway, topic: str, key: str) -> None:
    answer = gateway.post("/pub", b"b", {"Idempotency-Key": key}, topic=topic)
    assert (answer.status_code, answer.json()["message"]) == (400, "INVALID_IDEMPOTENCY_KEY")


# ── the store itself ──


class Work:
    """What is to be done once."""

    def __init__(self) -> None:
        self.done = 0
        self.gate = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> int:
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.done += 1
        return self.done


async def test_who_comes_while_the_first_is_under_way_waits_for_it() -> None:
    keys, work = Idempotency(10.0), Work()
    both = [asyncio.create_task(keys.once(("k",), b"b", work)) for _ in range(5)]
    await asyncio.sleep(0)
    work.gate.set()
    assert await asyncio.gather(*both) == [(1, False), *[(1, True)] * 4]
    assert (work.done, keys.repeated) == (1, 4)


async def test_what_failed_is_done_by_the_next() -> None:
    keys, work = Idempotency(10.0), Work()
    work.error = Refusal(503, "BROKER_UNAVAILABLE")
    first = asyncio.create_task(keys.once(("k",), b"b", work))
    second = asyncio.create_task(keys.once(("k",), b"b", work))
    await asyncio.sleep(0)
    work.gate.set()
    with pytest.raises(Refusal):
        await first
    work.error = None
    assert await second == (1, False)
    assert await keys.once(("k",), b"b", work) == (1, True)


async def test_a_key_is_forgotten_after_the_window_and_when_there_are_too_many() -> None:
    work = Work()
    work.gate.set()
    keys = Idempotency(0.0)
    assert [await keys.once(("k",), b"b", work) for _ in range(2)] == [(1, False), (2, False)]
    keys = Idempotency(10.0, most=3)
    for number in range(10):
        await keys.once((str(number),), b"b", work)
    assert len(keys) == 3
    done = work.done
    assert await keys.once(("9",), b"b", work) == (done, True)
    assert (await keys.once(("0",), b"b", work))[1] is False


async def test_a_key_under_way_outlives_the_window() -> None:
    keys, work = Idempotency(0.01, most=2), Work()
    first = asyncio.create_task(keys.once(("k",), b"b", work))
    await asyncio.sleep(0.05)  # the window has passed, and the first is still under way
    second = asyncio.create_task(keys.once(("k",), b"b", work))
    await asyncio.sleep(0)
    work.gate.set()
    assert await asyncio.gather(first, second) == [(1, False), (1, True)]
    assert work.done == 1


async def test_a_key_under_way_is_not_forgotten_for_others() -> None:
    keys, slow, quick = Idempotency(10.0, most=2), Work(), Work()
    quick.gate.set()
    first = asyncio.create_task(keys.once(("k",), b"b", slow))
    await asyncio.sleep(0)
    for number in range(5):
        await keys.once((str(number),), b"b", quick)
    second = asyncio.create_task(keys.once(("k",), b"b", slow))
    await asyncio.sleep(0)
    slow.gate.set()
    assert await asyncio.gather(first, second) == [(1, False), (1, True)]


async def test_the_window_begins_with_the_answer() -> None:
    keys, work = Idempotency(0.2), Work()
    first = asyncio.create_task(keys.once(("k",), b"b", work))
    await asyncio.sleep(0.25)
    work.gate.set()
    assert await first == (1, False)
    assert await keys.once(("k",), b"b", work) == (1, True)

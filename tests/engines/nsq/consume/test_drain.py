"""When a run ends by itself: what is asked before it, what becomes of a slow answer, and where --until-now ends."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from qtools.engines.contract import EndConditions
from qtools.engines.nsq import http_client as http_module
from qtools.engines.nsq.address import Brokers
from qtools.engines.nsq.consume import drain as module
from qtools.engines.nsq.consume.consumer import Consumer
from qtools.engines.nsq.consume.drain import ask_first, end_consumer
from qtools.engines.nsq.protocol.client_commands import Sub
from qtools.errors import PeerError, SourcePaused, StartError
from qtools.names import Subscription
from tests.engines.nsq.scripted import Answer, Scripted, Web, settings, until, web

pytestmark = pytest.mark.usefixtures("tidy")

EVENTS = Subscription("events", "archive")
STATS = "/stats?format=json&topic=events&include_clients=false"
UNTIL_EMPTY = EndConditions(until_empty=True)
UNTIL_NOW = EndConditions(until_now=True)


def stats(depth: int, in_flight: int = 0, *, paused: bool = False) -> Answer:
    channel = {"channel_name": "archive", "depth": depth, "in_flight_count": in_flight, "deferred_count": 0}
    topic = {"topic_name": "events", "depth": 0, "channels": [{**channel, "paused": paused}]}
    return 200, json.dumps({"topics": [topic]}).encode()


@asynccontextmanager
async def nsqd(answer: Answer) -> AsyncIterator[tuple[Scripted, Web]]:
    """A broker of which /stats answers `answer`."""
    async with Scripted() as peer, web({STATS: answer}) as http:
        peer.http = http.base
        yield peer, http


@asynccontextmanager
async def reading(peer: Scripted, *, by_quota: bool = False, max_in_flight: int = 10) -> AsyncIterator[Consumer]:
    brokers = Brokers(nsqd=(peer.address,))
    consumer = Consumer([EVENTS], brokers, settings(), max_in_flight=max_in_flight, by_quota=by_quota)
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.close()


async def finish_all(consumer: Consumer) -> list[bytes]:
    """The bodies of all that comes, each finished, until the consumer ends."""
    bodies: list[bytes] = []
    while (batch := await consumer.read()) is not None:
        bodies += batch.bodies
        batch.finish()
    return bodies


# ── before the run ──


@pytest.mark.parametrize("ends", [UNTIL_EMPTY, UNTIL_NOW])
async def test_an_nsqd_that_does_not_tell_its_depths_is_not_subscribed_to(ends: EndConditions) -> None:
    async with Scripted() as peer:
        peer.http = "http://127.0.0.1:1"
        expected = rf"{ends.flag} needs the HTTP API of 127.0.0.1:{peer.port}: .*nothing listens there"
        with pytest.raises(StartError, match=expected):
            await ask_first([EVENTS], Brokers(nsqd=(peer.address,)), settings(), ends)
        peer.http = ""
        with pytest.raises(StartError, match="give --nsqd-http-address"):
            await ask_first([EVENTS], Brokers(nsqd=(peer.address,)), settings(), ends)
        assert not any(caller.all(Sub) for caller in peer.callers)


async def test_an_nsqd_that_is_away_altogether_is_for_the_consumer_to_tell() -> None:
    async with nsqd(stats(3)) as (peer, _):
        gone = Scripted()
        await gone.open()
        await gone.close()
        gone.http = "http://127.0.0.1:1"
        found = await ask_first([EVENTS], Brokers(nsqd=(peer.address, gone.address)), settings(), UNTIL_EMPTY)
        assert [(place, depth.left) for place, depth in found.items()] == [((EVENTS, str(peer.address)), 3)]


async def test_nothing_is_asked_where_there_is_no_need_to_know() -> None:
    async with nsqd(stats(3)) as (peer, http):
        assert (
            await ask_first([EVENTS], Brokers(nsqd=(peer.address,)), settings(), EndConditions(idle_timeout=1.0)) == {}
        )
        assert not http.asked
        assert not peer.callers


@pytest.mark.parametrize("ends", [UNTIL_EMPTY, UNTIL_NOW])
async def test_a_paused_channel_is_the_end_before_anything_is_taken_where_that_is_asked_for(
    ends: EndConditions,
) -> None:
    async with nsqd(stats(3, paused=True)) as (peer, _):
        brokers = Brokers(nsqd=(peer.address,))
        assert await ask_first([EVENTS], brokers, settings(), ends)
        failing = EndConditions(until_empty=ends.until_empty, until_now=ends.until_now, fail_if_paused=True)
        with pytest.raises(SourcePaused, match=r"events/archive is paused on 127.0.0.1:\d+, and keeps 3 messages back"):
            await ask_first([EVENTS], brokers, settings(), failing)
        assert not peer.callers


# ── during the run ──


async def test_one_answer_that_does_not_come_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    async with nsqd((503, b"{}")) as (peer, http), reading(peer) as consumer:
        ending = asyncio.create_task(end_consumer(consumer, UNTIL_EMPTY))
        await until(lambda: http.asked[STATS] > 3)
        http.pages[STATS] = stats(0)
        async with asyncio.timeout(5):
            await ending
        assert await consumer.read() is None
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(told) == 2
    assert "trying again" in told[0]
    assert "answers again" in told[1]


async def test_an_answer_that_is_slow_once_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_module, "TIMEOUT", 0.05)
    async with nsqd(stats(0)) as (peer, http), reading(peer) as consumer:
        slow = asyncio.Event()

        async def wait(path: str) -> None:
            if http.asked[path] == 1:
                await slow.wait()

        http.before = wait
        async with asyncio.timeout(5):
            await end_consumer(consumer, UNTIL_EMPTY)
        slow.set()


async def test_an_answer_that_never_comes_fails_in_the_end_and_not_as_a_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.2)
    async with nsqd((500, b"{}")) as (peer, _), reading(peer) as consumer:
        async with asyncio.timeout(5):
            with pytest.raises(PeerError) as raised:
                await end_consumer(consumer, UNTIL_EMPTY)
        assert raised.value.exit_status == 1
        assert await consumer.read() is None


@pytest.mark.parametrize("ends", [UNTIL_EMPTY, UNTIL_NOW])
async def test_a_pause_is_said_once_and_is_a_failure_when_the_time_is_over(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, ends: EndConditions
) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    idle = EndConditions(until_empty=ends.until_empty, until_now=ends.until_now, idle_timeout=0.4)
    async with nsqd(stats(5, paused=True)) as (peer, _), reading(peer, by_quota=ends.until_now) as consumer:
        async with asyncio.timeout(5):
            with pytest.raises(SourcePaused, match="keeps 5 messages back"):
                await end_consumer(consumer, idle)
            assert await consumer.read() is None
    told = [record.getMessage() for record in caplog.records if "paused" in record.getMessage()]
    assert len(told) == 1
    assert f"{ends.flag} waits until it is unpaused" in told[0]


async def test_an_idle_end_without_a_pause_is_none_to_complain_of() -> None:
    async with nsqd(stats(5)) as (peer, _), reading(peer) as consumer:  # somebody else holds them
        async with asyncio.timeout(5):
            await end_consumer(consumer, EndConditions(until_empty=True, idle_timeout=0.3))


# ── --until-now ──


async def test_until_now_ends_though_more_comes_and_takes_no_more_than_was_there() -> None:
    async with nsqd(stats(25)) as (peer, _):
        peer.queue.extend(b"%d" % nth for nth in range(1000))
        async with reading(peer, by_quota=True) as consumer:
            assert peer.delivered == 0  # before it is known how many there are, none is asked for
            ending = asyncio.create_task(end_consumer(consumer, UNTIL_NOW))
            async with asyncio.timeout(5):
                bodies = await finish_all(consumer)
                await ending
            assert bodies == [b"%d" % nth for nth in range(25)]
        assert (peer.finished, peer.delivered) == (25, 25)


async def test_until_now_counts_what_is_finished_and_not_what_comes() -> None:
    async with nsqd(stats(3)) as (peer, _):
        peer.queue.extend([b"a", b"b", b"c"])
        async with reading(peer, by_quota=True) as consumer, asyncio.timeout(5):
            ending = asyncio.create_task(end_consumer(consumer, UNTIL_NOW))
            first = await consumer.read()
            assert first is not None
            first.requeue()
            bodies = await finish_all(consumer)
            await ending
        assert sorted(bodies) == [b"a", b"b", b"c"]


async def test_until_now_ends_where_others_took_what_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    async with nsqd(stats(3, in_flight=2)) as (peer, http), reading(peer, by_quota=True) as consumer:
        async with asyncio.timeout(5):
            ending = asyncio.create_task(end_consumer(consumer, UNTIL_NOW))
            await until(lambda: consumer.quota_of(EVENTS, str(peer.address)) == 5)
            peer.queue.append(b"mine")
            peer.caller.pump()
            batch = await consumer.read()
            assert batch is not None
            batch.finish()
            assert not ending.done()
            http.pages[STATS] = stats(0)
            assert await consumer.read() is None
            await ending


async def test_until_now_each_nsqd_has_its_own_number() -> None:
    async with nsqd(stats(2)) as (one, _), nsqd(stats(7)) as (two, _):
        one.queue.extend([b"one"] * 100)
        two.queue.extend([b"two"] * 100)
        brokers = Brokers(nsqd=(one.address, two.address))
        consumer = Consumer([EVENTS], brokers, settings(), max_in_flight=4, by_quota=True)
        await consumer.start()
        try:
            ending = asyncio.create_task(end_consumer(consumer, UNTIL_NOW))
            async with asyncio.timeout(10):
                bodies = await finish_all(consumer)
                await ending
        finally:
            await consumer.close()
        assert sorted(bodies) == [b"one"] * 2 + [b"two"] * 7

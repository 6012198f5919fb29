"""Servers that restart, are killed or frozen, and clients that are killed: nothing that was confirmed is missing."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from harness.shell import Running, Shell

from qtools.errors import NetworkError, StartError
from tests.engines.client import BATCH
from tests.engines.clusters.cluster import Cluster
from tests.engines.reading import BODIES, DEADLINE, bodies_of, drain, publishing, read_all, reading, until


def start_client(shell: Shell, server: Cluster, what: str, **wish: Any) -> Running:
    wish |= {"url": server.url, "fields": dict(server.noticing.fields)}
    argv = [sys.executable, "-m", "tests.engines.client", what, json.dumps(wish)]
    return shell.start("python", argv=argv)


async def next_report(running: Running, count: int = 1) -> dict[str, Any]:
    """The last of the reports, once there are `count`."""
    await until(lambda: running.out.count(b"\n") >= count or not running.is_running)
    assert running.is_running, running.err
    report: dict[str, Any] = json.loads(running.out.splitlines()[-1] if count == 1 else running.out.split(b"\n")[-2])
    return report


async def test_what_a_killed_reader_had_not_finished_comes_again(server: Cluster, topic: str, shell: Shell) -> None:
    await server.make_topic(topic, "own")
    await server.fill(topic, BODIES)
    running = start_client(shell, server, "read", topic=topic, channel="own", count=500, finish=200)
    report = await next_report(running)
    await server.until_left(topic, "own", len(BODIES) - 200)
    running.signal(signal.SIGKILL)
    await asyncio.to_thread(running.wait)
    found = [body.decode() for body in bodies_of(await drain(server.engine(), topic))]
    assert len(report["unfinished"]) == 300
    assert set(report["unfinished"]) <= set(found)
    assert sorted(found + report["finished"]) == sorted(body.decode() for body in BODIES)


async def test_what_a_killed_publisher_had_confirmed_is_there(server: Cluster, topic: str, shell: Shell) -> None:
    await server.make_topic(topic, "own")
    running = start_client(shell, server, "publish", topic=topic, count=100_000)
    await next_report(running, 10)
    running.signal(signal.SIGKILL)
    await asyncio.to_thread(running.wait)
    confirmed = json.loads(running.out.splitlines()[-1])["confirmed"]
    numbers = sorted(int(body) for body in await server.drain(topic, "own"))
    assert numbers[:confirmed] == list(range(confirmed))
    assert len(set(numbers)) == len(numbers) <= confirmed + BATCH


async def restart(server: Cluster) -> None:
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)


async def kill(server: Cluster) -> None:
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)


async def freeze(server: Cluster) -> None:
    server.freeze()
    await asyncio.sleep(server.freeze_time)  # time itself is what this is about
    server.thaw()


FAULTS = [restart, kill, freeze]


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_server_that_goes_while_it_is_used(own_server: Cluster, topic: str, fault: Callable[..., Any]) -> None:
    """A publisher and a reader go on by themselves, and all that was confirmed arrives. Some of it may come twice, also
    later: what was sent again, as its confirmation was lost, and what was in flight."""
    await own_server.make_topic(topic, "own")
    engine = own_server.engine(own_server.noticing)
    confirmed: list[bytes] = []
    received: list[bytes] = []
    is_over = asyncio.Event()

    async with publishing(engine, retry_timeout=DEADLINE) as publisher, reading(engine, topic) as source:

        async def send() -> None:
            number = 0
            while not is_over.is_set():
                bodies = [b"%d" % each for each in range(number, number + 20)]
                assert await publisher.publish([(topic, bodies)]) == {}
                confirmed.extend(bodies)
                number += 20
                await asyncio.sleep(0.005)

        async def receive() -> None:
            while (batch := await source.read()) is not None:
                received.extend(batch.bodies)
                batch.finish()

        tasks = [asyncio.ensure_future(each) for each in (send(), receive())]
        await until(lambda: len(received) > 100)
        await fault(own_server)
        sent, seen = len(confirmed), len(received)
        await until(lambda: len(confirmed) > sent + 100 and len(received) > seen + 100)
        is_over.set()
        await tasks[0]
        missing = set(confirmed)
        if fault is kill and not own_server.keeps_after_kill:
            missing = set(confirmed[sent + 100 :])  # it promises to keep what it has queued while it lives
        await until(lambda: missing <= set(received))
        source.end()
        await tasks[1]
    received += bodies_of(await drain(engine, topic))
    assert set(received) <= set(confirmed)
    await own_server.until_left(topic, "own", 0)


async def test_a_server_that_stays_away(own_server: Cluster, topic: str) -> None:
    """A publish fails when its time is over, and not much later; a new reader and publisher cannot start."""
    await own_server.make_topic(topic, "own")
    engine = own_server.engine()
    async with publishing(engine, retry_timeout=1.0) as publisher:
        assert await publisher.publish([(topic, [b"a"])]) == {}
        await asyncio.to_thread(own_server.kill)
        begun = time.monotonic()
        with pytest.raises(NetworkError) as caught:
            await publisher.publish([(topic, [b"b"])])
        assert 0.9 <= time.monotonic() - begun < 15
        assert "\n" not in str(caught.value)
        assert publisher.published == 1
    with pytest.raises(StartError, match=r"127\.0\.0\.1"):
        async with reading(engine, topic):
            pass
    with pytest.raises(StartError, match=r"127\.0\.0\.1"):
        async with publishing(engine):
            pass


@pytest.mark.slow  # it takes the time that a source is given to close
async def test_a_source_is_closed_in_time_while_its_server_is_frozen(own_server: Cluster, topic: str) -> None:
    await own_server.make_topic(topic, "own")
    await own_server.fill(topic, BODIES[:10])
    async with reading(own_server.engine(), topic) as source:
        batch = await read_all(source, 10)
        own_server.freeze()
        batch.finish()
        begun = time.monotonic()
    try:
        assert time.monotonic() - begun < 15
    finally:
        own_server.thaw()
    found = bodies_of(await drain(own_server.engine(), topic))
    assert set(found) <= set(BODIES[:10])

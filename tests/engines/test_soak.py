"""qtools soak on every engine, while its server is killed or frozen, and while its own reader is killed, ten times
each: no confirmed message is missing, and none is corrupted."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import Awaitable, Callable

import pytest
from harness.shell import Running, Shell

from tests.engines.clusters.cluster import Cluster
from tests.engines.reading import until
from tests.engines.test_faults import freeze, kill
from tests.soak.runs import result_of, start_soak

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROUNDS = 10
MORE = 1000  # messages between two faults
DEADLINE = 60.0  # s
Fault = Callable[[Cluster], Awaitable[None]]
READER = re.compile(r"the reader is process (\d+)|it is process (\d+) now")


async def published(server: Cluster, topic: str) -> int:
    """How many messages `topic` was given; of an NSQ server: since it was started. 0 while it does not answer."""
    statistics = server.engine().statistics()
    try:
        return sum(int(row["messages"] or 0) for row in await statistics.topics() if row["topic"] == topic)
    except Exception:  # the server has just been started
        return 0
    finally:
        await statistics.close()


async def wait_more(server: Cluster, topic: str, soak: Running) -> None:
    end = time.monotonic() + DEADLINE
    enough = await published(server, topic) + MORE
    while await published(server, topic) < enough:
        assert soak.is_running, soak.err
        assert time.monotonic() < end, soak.err
        await asyncio.sleep(0.05)


def start(shell: Shell, server: Cluster, topic: str, *words: str) -> Running:
    options = [f"--engine-option={key}={value}" for key, value in server.noticing.options.items()]
    url = f"{server.url}/{topic}"
    return start_soak(shell, url, "--duration", "1h", "--rate", "2000", "--create-topics", "default", *options, *words)


async def end(soak: Running) -> dict[str, int]:
    soak.signal(signal.SIGTERM)
    return result_of(await asyncio.to_thread(soak.wait, 400))


@pytest.mark.parametrize("fault", [kill, freeze], ids=["kill", "freeze"])
async def test_a_server_that_fails(shell: Shell, own_server: Cluster, topic: str, fault: Fault) -> None:
    soak = start(shell, own_server, topic)
    for _ in range(ROUNDS):
        await wait_more(own_server, topic, soak)
        await fault(own_server)
    await wait_more(own_server, topic, soak)
    result = await end(soak)
    assert result["corrupted"] == result["never_sent"] == 0, soak.err
    if fault is freeze or own_server.keeps_after_kill:
        assert (result["lost"], result["unconfirmed"]) == (0, 0), result
    assert result["read"] > ROUNDS * MORE * (own_server.keeps_after_kill or fault is freeze)


async def test_a_reader_that_is_killed(shell: Shell, server: Cluster, topic: str) -> None:
    soak = start(shell, server, topic, "--separate-reader", "--max-in-flight", "500")
    for count in range(ROUNDS):
        await wait_more(server, topic, soak)
        await until(lambda count=count: len(READER.findall(soak.err)) > count)  # type: ignore[misc]
        os.kill(int("".join(READER.findall(soak.err)[-1])), signal.SIGKILL)
    result = await end(soak)
    assert (result["lost"], result["corrupted"], result["unconfirmed"]) == (0, 0, 0), result
    assert result["reader_restarts"] in (ROUNDS, ROUNDS - 1)  # the last one may be ended before it is started again
    assert result["read"] > ROUNDS * MORE

"""Three servers, and a stream with three replicas: each of them is killed in turn, while messages go through."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.nats import NEW, NatsServer, why_no_nats
from harness.ports import free_pair
from harness.waiting import wait_until

from qtools.engines.contract import NewTopics
from tests.engines.jetstream.using import engine
from tests.engines.reading import DEADLINE, bodies_of, drain, publishing, reading, until


@pytest.fixture
def cluster_of_three(tmp_path: Path, _nothing_is_left_behind: None) -> Iterator[list[NatsServer]]:
    if reason := why_no_nats(NEW):
        pytest.skip(reason)
    routes = [free_pair() for _ in range(3)]
    names = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)
    servers = [
        NatsServer(
            NEW,
            tmp_path / f"n{number}",
            [f"server_name: n{number}", f'cluster {{ name: C, listen: "127.0.0.1:{port}", routes: [{names}] }}'],
        )
        for number, port in enumerate(routes)
    ]
    try:
        for server in servers:
            server.start()
        wait_until(lambda: any("JetStream cluster new metadata leader" in server.log for server in servers), 60)
        yield servers
    finally:
        for server in servers:
            server.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_each_server_of_a_cluster_is_killed(cluster_of_three: list[NatsServer]) -> None:
    """Publisher and reader go on with another server and another leader; nothing that was confirmed is missing."""
    servers = cluster_of_three
    url = "nats://" + ",".join(server.address for server in servers)
    made = engine(url, ping_interval="1s", ack_wait="5s")
    confirmed: list[bytes] = []
    received: list[bytes] = []
    is_over = asyncio.Event()

    async with (
        publishing(made, retry_timeout=DEADLINE, new_topics=NewTopics(replicas=3), topics=("t",)) as publisher,
        reading(made, "t") as source,
    ):

        async def send() -> None:
            number = 0
            while not is_over.is_set():
                bodies = [b"%d" % each for each in range(number, number + 20)]
                assert await publisher.publish([("t", bodies)]) == {}
                confirmed.extend(bodies)
                number += 20
                await asyncio.sleep(0.005)

        async def receive() -> None:
            while (batch := await source.read()) is not None:
                received.extend(batch.bodies)
                batch.finish()

        tasks = [asyncio.ensure_future(each) for each in (send(), receive())]
        for server in servers:
            seen = len(received)
            await until(lambda seen=seen: len(received) > seen + 200)  # type: ignore[misc]
            await asyncio.to_thread(server.kill)
            sent, seen = len(confirmed), len(received)
            await until(lambda sent=sent, seen=seen: len(confirmed) > sent + 200 and len(received) > seen + 200)  # type: ignore[misc]
            await asyncio.to_thread(server.start)
        is_over.set()
        await tasks[0]
        await until(lambda: set(confirmed) <= set(received))
        source.end()
        await tasks[1]
        assert publisher.reconnects + source.reconnects >= 1
    assert set(bodies_of(await drain(made, "t"))) <= set(confirmed)

"""Many at once, and those who are slow, half gone, or never read: what they cost, and that they stop nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from qtools.broker.options import Options
from qtools.errors import ProtocolError
from qtools.message import Message
from qtools.web import http_server, tracked_transport

from .inside import Peer, come_true, identify, mpub, pub, serving, subscribed
from .running import Running, running

IN_PROC = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory in /proc")
MB = 1024 * 1024


def resident(broker: Running) -> int:
    return int(Path(f"/proc/{broker.process.pid}/statm").read_text().split()[1]) * 4096


async def connect(broker: Running, said: bytes = b"") -> Peer:
    peer = Peer(*await asyncio.open_connection(*broker.tcp))
    peer.say(b"  V2" + said)
    return peer


def client(broker: Running) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url="http://{}:{}".format(*broker.http), timeout=20)


async def let_go(peers: Iterable[Peer]) -> None:
    for peer in peers:
        peer.writer.transport.abort()
    for peer in peers:
        with contextlib.suppress(OSError):
            await peer.writer.wait_closed()


async def channels(asked: httpx.AsyncClient) -> dict[str, dict[str, Any]]:
    topics = (await asked.get("/stats?format=json&include_clients=false")).json()["topics"]
    return {f"{topic['topic_name']}/{one['channel_name']}": one for topic in topics for one in topic["channels"]}


@IN_PROC
def test_five_hundred_idle_and_a_hundred_busy_at_once() -> None:
    topics, each, size = 5, 20, 20  # 50 publishers, ten to a topic, say `each` MPUBs of `size` messages

    async def publish(broker: Running, number: int) -> None:
        peer = await connect(broker)
        for at in range(each):
            peer.say(mpub(f"t{number % topics}", *[b"%d %d %d" % (number, at, place) for place in range(size)]))
            assert await peer.answer() == b"OK"
        await peer.close()

    async def consume(broker: Running, number: int, seen: Counter[bytes], wanted: int) -> None:
        peer = await connect(broker, f"SUB t{number % topics} c\nRDY 200\n".encode())
        assert await peer.answer() == b"OK"
        while sum(seen.values()) < wanted:
            try:
                async with asyncio.timeout(0.2):
                    message = await peer.message()
            except TimeoutError:
                continue
            seen[message.body] += 1
            peer.say(b"FIN %b\n" % message.id)
        await peer.close()

    async def all_of_it(broker: Running) -> None:
        idle = [await connect(broker, b"SUB idle c%d\nRDY 1\n" % (number % 50)) for number in range(500)]
        for peer in idle:
            assert await peer.answer() == b"OK"
        before = resident(broker)
        seen: Counter[bytes] = Counter()
        wanted = 50 * each * size
        async with asyncio.timeout(60):
            await asyncio.gather(
                *(publish(broker, number) for number in range(50)),
                *(consume(broker, number, seen, wanted) for number in range(50)),
            )
        assert len(seen) == wanted
        assert set(seen.values()) == {1}
        async with client(broker) as asked:
            told = await channels(asked)
            assert sum(one["client_count"] for name, one in told.items() if name.startswith("idle/")) == 500
            assert (await asked.post("/pub?topic=idle", content=b"awake")).text == "OK"
        assert resident(broker) - before < 64 * MB
        waiting = {asyncio.ensure_future(peer.message()) for peer in idle}
        awake: set[asyncio.Future[Message]] = set()
        async with asyncio.timeout(10):
            while len(awake) < 50:  # one of each channel
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                awake |= done
        assert {task.result().body for task in awake} == {b"awake"}
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await let_go(idle)

    with running() as broker:
        asyncio.run(all_of_it(broker))
        assert not [line for line in broker.log if "internal error" in line or "Traceback" in line]


@IN_PROC
def test_twenty_that_never_read_cost_bounded_memory_are_dropped_and_lose_nothing() -> None:
    body, count = b"x" * 100_000, 400

    async def all_of_it(broker: Running) -> None:
        hoarders = []
        for number in range(20):
            link = socket.create_connection(broker.tcp)
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            # A busy machine has to publish within two heartbeats: else all are dropped before their sockets are full.
            said = identify(heartbeat_interval=3000, msg_timeout=2000)
            link.sendall(b"  V2" + said + b"SUB t c%d\nRDY 2500\n" % number)
            hoarders.append(link)
        async with client(broker) as asked:
            began = time.monotonic()
            while len(await channels(asked)) < 20:
                assert time.monotonic() - began < 20
            writer = await connect(broker)
            for _ in range(count // 40):
                writer.say(mpub("t", *[body] * 40))
                assert await writer.answer() == b"OK"
            kept = resident(broker)  # the messages themselves, once for all channels
            assert kept < len(body) * count + 150 * MB
            began = time.monotonic()
            while sum(one["client_count"] for one in (await channels(asked)).values()):
                assert time.monotonic() - began < 20
                assert (
                    resident(broker) - kept < 80 * MB
                )  # 20 sockets at 256 KiB and what is in a turn; not 20 times 40 MB
                await asyncio.sleep(0.05)
            told = await channels(asked)
            assert all(one["depth"] + one["in_flight_count"] == count for one in told.values())
            reader = await connect(broker, b"SUB t c7\nRDY 100\n")
            assert await reader.answer() == b"OK"
            ids = set()
            while len(ids) < count:
                message = await reader.message()
                ids.add(message.id)
                reader.say(b"FIN %b\n" % message.id)
            await reader.close()
            await writer.close()
        for link in hoarders:
            link.close()

    with running() as broker:
        asyncio.run(all_of_it(broker))
        # On a busy machine a client may be missed by its heartbeats before it is by its full socket.
        reasons = ("has read nothing for 3 s: dropped", "was silent for two heartbeats: dropped")
        assert sum(any(reason in line for reason in reasons) for line in broker.log) == 20
        assert any(reasons[0] in line for line in broker.log)


async def test_a_slow_reader_is_kept_and_gets_everything() -> None:
    count = 600
    async with serving() as daemon:
        host, _, port = daemon.tcp_address.rpartition(":")
        link = socket.socket()
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)  # so that it is the broker that has to wait
        link.connect((host, int(port)))
        peer = Peer(*await asyncio.open_connection(sock=link, limit=1024))
        peer.say(b"  V2" + identify(heartbeat_interval=1000, msg_timeout=60_000) + b"SUB t c\n")
        assert (await peer.answer()).startswith(b"{")
        assert await peer.answer() == b"OK"
        writer = await Peer.to(daemon)
        for _ in range(10):
            writer.say(mpub("t", *[b"x" * 50_000] * (count // 10)))
            assert await writer.answer() == b"OK"
        peer.say(b"RDY 2500\n")  # from now on it reads
        began = time.monotonic()
        got = set()
        while len(got) < count:
            message = await peer.message()
            got.add(message.id)
            peer.say(b"FIN %b\n" % message.id)
            await asyncio.sleep(0.004)  # a little longer than two heartbeats in all
        assert time.monotonic() - began > 2
        assert daemon.broker.topics["t"].channels["c"].timed_out == 0
        await peer.close()
        await writer.close()


async def test_half_open_connections_are_dropped_and_their_messages_come_again() -> None:
    """The other side is gone without a word: nothing is heard, though what is sent is taken."""
    async with serving() as daemon:
        silent = [await subscribed(daemon, heartbeat_interval=1000, msg_timeout=1000, ready=1) for _ in range(5)]
        writer = await Peer.to(daemon, mpub("t", *[b"x"] * 5))
        assert await writer.answer() == b"OK"
        channel = daemon.broker.topics["t"].channels["c"]
        await come_true(lambda: channel.in_flight == 5)
        await come_true(lambda: not channel.consumers)
        reader = await subscribed(daemon)
        assert {message.attempts for message in await reader.messages(5)} <= {2, 3}
        await let_go([*silent, writer, reader])


async def test_one_that_has_only_half_closed_is_let_go() -> None:
    async with serving() as daemon:
        peer = await subscribed(daemon)
        peer.writer.write_eof()
        assert await peer.hung_up()
        await come_true(lambda: not daemon.tcp_server.connections)  # type: ignore[union-attr]
        await peer.close()


async def test_those_who_never_say_what_they_want_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Options, "client_timeout", 0.3)
    monkeypatch.setattr(http_server, "HttpLimits", partial(http_server.HttpLimits, request=0.3))
    monkeypatch.setattr(http_server, "SWEEP_SECONDS", 0.1)
    monkeypatch.setattr(tracked_transport, "LINGER", 0.1)
    async with serving(http_address="127.0.0.1:0") as daemon:
        host, _, port = daemon.http_address.rpartition(":")
        mute = [await Peer.to(daemon) for _ in range(50)]  # they have said which protocol, and get heartbeats
        mute += [Peer(*await asyncio.open_connection(*daemon.tcp_address.split(":"))) for _ in range(50)]
        mute += [Peer(*await asyncio.open_connection(host, int(port))) for _ in range(50)]
        http = [Peer(*await asyncio.open_connection(host, int(port))) for _ in range(50)]
        for peer in http:
            peer.writer.write(b"GET /ping HTTP/1.1\r\nx: ")  # and nothing more
        async with httpx.AsyncClient(base_url=f"http://{daemon.http_address}") as asked:
            assert (await asked.get("/ping")).text == "OK"
        for peer in (*mute, *http):
            with pytest.raises((EOFError, ConnectionError, ProtocolError)):  # a begun request is answered 408
                await peer.message()
            await peer.close()


@IN_PROC
def test_bodies_that_never_come_cost_nothing() -> None:
    """Sizes that are announced are not made room for."""

    async def all_of_it(broker: Running) -> None:
        async with client(broker) as asked:
            assert (await asked.get("/ping")).text == "OK"
        before = resident(broker)
        peers = [
            await connect(broker, b"MPUB t\n\0\x4f\xff\xff\0\0\0\1\0\x0f\xff\xff" + b"x" * 100) for _ in range(100)
        ]
        head = b"POST /mpub?topic=t HTTP/1.1\r\nhost: x\r\ncontent-length: 5000000\r\n\r\nxyz"
        for _ in range(100):
            peers.append(Peer(*await asyncio.open_connection(*broker.http)))
            peers[-1].writer.write(head)
        async with client(broker) as asked:
            assert (await asked.get("/ping")).text == "OK"
            writer = await connect(broker, pub("t", b"x"))
            assert await writer.answer() == b"OK"
            await writer.close()
        assert resident(broker) - before < 24 * MB
        await let_go(peers)

    with running() as broker:
        asyncio.run(all_of_it(broker))
        assert broker.stop() == 0

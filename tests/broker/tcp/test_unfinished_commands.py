"""What clients have begun to send is bounded for all of them together, and some of it always becomes whole."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import httpx
import pytest

from qtools.broker.options import Options
from qtools.broker.tcp import unfinished_commands
from qtools.broker.tcp.client_connection import ClientConnection
from qtools.broker.tcp.unfinished_commands import memory_limit
from qtools.errors import UsageError

from ..inside import Peer, come_true, identify, mpub, pub, serving
from ..running import running

MB = 1024 * 1024
LIMIT = 24 * MB
SMALL = {"max_memory": LIMIT, "max_msg_size": MB, "max_body_size": MB}
OUT_OF_MEMORY = b"E_PUB_FAILED PUB failed: too slow for a broker that has no more memory for unfinished commands"


def deaf(connections: set[ClientConnection]) -> int:
    return sum(connection.waits_for_memory for connection in connections)


def held(connections: set[ClientConnection]) -> int:
    return sum(connection.unfinished_bytes for connection in connections)


@pytest.mark.parametrize("kind", ["PUB", "MPUB", "IDENTIFY"])
async def test_what_is_half_sent_is_bounded_and_becomes_whole_later(kind: str) -> None:
    """Forty clients stop one byte before the end of what would be 40 MB; each of them then sends its last byte."""
    body = b"x" * (MB - 100)
    if kind == "IDENTIFY":
        whole = b"IDENTIFY\n" + len(body).to_bytes(4, "big") + b"{}".ljust(len(body))
    else:
        whole = pub("t", body) if kind == "PUB" else mpub("t", body[: MB // 2], body[: MB // 2 - 100])
    async with serving(**SMALL) as daemon:
        assert daemon.tcp_server is not None
        connections = daemon.tcp_server.connections
        most = 0

        async def send(peer: Peer) -> bytes:
            nonlocal most
            peer.say(whole[:-1])
            await asyncio.sleep(0)
            peer.say(whole[-1:])
            answer = await peer.answer()
            most = max(most, held(connections))
            return answer

        stuck = [await Peer.to(daemon, whole[:-1]) for _ in range(40)]
        await come_true(lambda: deaf(connections) > 20)
        assert LIMIT / 4 < held(connections) <= LIMIT
        others = [await Peer.to(daemon) for _ in range(20)]
        sending = [asyncio.create_task(send(peer)) for peer in others]
        for peer in stuck:
            peer.say(whole[-1:])
        answers = [await peer.answer() for peer in stuck] + [await one for one in sending]
        assert len(set(answers)) == 1
        assert not answers[0].startswith(b"E_")
        assert most <= LIMIT
        await come_true(lambda: not deaf(connections))
        assert daemon.budget is not None
        assert daemon.budget.shed == 0
        for peer in (*stuck, *others):
            await peer.close()


async def test_those_who_send_nothing_more_are_ended_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """All of the memory is held by commands that never become whole, some of them a byte at a time."""
    monkeypatch.setattr(unfinished_commands, "PATIENCE_SECONDS", 0.3)
    caplog.set_level(logging.WARNING)
    body = b"x" * (MB - 100)
    async with serving(**SMALL) as daemon:
        assert daemon.tcp_server is not None
        assert daemon.budget is not None
        stuck = [await Peer.to(daemon, pub("t", body)[: -MB // 4]) for _ in range(40)]
        await come_true(lambda: deaf(daemon.tcp_server.connections))  # type: ignore[union-attr]

        dripping = [asyncio.create_task(drip(peer)) for peer in stuck[1:]]
        small, large = await Peer.to(daemon, pub("t", b"a")), await Peer.to(daemon, pub("t", body))
        async with asyncio.timeout(20):
            assert await small.answer() == b"OK"
            assert await large.answer() == b"OK"
            assert await stuck[0].answer() == OUT_OF_MEMORY
        assert 0 < daemon.budget.shed <= len(stuck)
        assert daemon.budget.shed == sum("ended the connection of 127.0.0.1:" in line for line in caplog.messages)
        assert f"--max-memory is {LIMIT:,}" in caplog.text
        for task in dripping:
            task.cancel()
        for peer in (*stuck, small, large):
            await peer.close()


async def test_within_the_budget_nothing_waits() -> None:
    async with serving(**SMALL) as daemon:
        assert daemon.tcp_server is not None
        peers = [await Peer.to(daemon, pub("t", b"x" * MB)[:-1]) for _ in range(3)]
        await come_true(lambda: held(daemon.tcp_server.connections) > 3 * MB)  # type: ignore[union-attr]
        await come_true(lambda: daemon.budget.used > 3 * MB)  # type: ignore[union-attr]  # the budget has been checked
        assert not deaf(daemon.tcp_server.connections)
        for peer in peers:
            peer.say(b"x")
            assert await peer.answer() == b"OK"
            await peer.close()


async def test_small_messages_of_an_mpub_count_with_what_their_objects_need() -> None:
    async with serving(**SMALL) as daemon:
        assert daemon.tcp_server is not None
        peer = await Peer.to(daemon, mpub("t", *[b"ab"] * 100_000)[:-1])
        await come_true(lambda: held(daemon.tcp_server.connections) > 5 * MB)  # type: ignore[union-attr]
        peer.say(b"b")
        assert await peer.answer() == b"OK"
        await peer.close()


async def drip(peer: Peer) -> None:
    """Send a byte now and then."""
    while not peer.writer.is_closing():
        peer.say(b"x")
        await asyncio.sleep(0.02)


async def test_a_client_thatwaits_for_memory_is_not_taken_for_silent() -> None:
    async with serving(**SMALL) as daemon:
        assert daemon.tcp_server is not None
        connections = daemon.tcp_server.connections
        stuck = [await Peer.to(daemon, pub("t", b"x" * MB)[:-5000]) for _ in range(40)]
        await come_true(lambda: deaf(connections) > 3)
        for connection in tuple(connections):
            connection.transport._last_received -= 1000
            connection.transport._tick(daemon.broker.now())
            assert connection.transport.over == (not connection.waits_for_memory)
        for peer in stuck:
            await peer.close()


async def test_over_http_the_largest_requests_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(**SMALL, http_address="127.0.0.1:0") as daemon:
        assert daemon.budget is not None
        host, _, port = daemon.http_address.rpartition(":")
        head = b"POST /pub?topic=t HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % MB
        stuck = [await asyncio.open_connection(host, int(port)) for _ in range(30)]
        for _, writer in stuck:
            writer.write(head + b"x" * (MB - 1))
        await come_true(lambda: daemon.budget.shed >= 6)  # type: ignore[union-attr]
        async with httpx.AsyncClient(base_url=f"http://{daemon.http_address}", timeout=20) as client:
            assert (await client.post("/pub?topic=t", content=b"a")).text == "OK"
            page = (await client.get("/metrics")).text
            assert f"q_broker_ended_for_memory_total {daemon.budget.shed}\n" in page
        statuses = []
        for reader, writer in stuck:
            writer.write(b"x")
            statuses.append((await reader.readline())[9:12])
            writer.close()
        assert set(statuses) == {b"200", b"503"}
        assert f"refused the request of {host}:" in caplog.text


async def test_with_no_client_nothing_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qtools.web.http_server.SWEEP_SECONDS", 0.05)
    async with serving(**SMALL, http_address="127.0.0.1:0") as daemon:
        assert daemon.budget is not None
        peer = await Peer.to(daemon, identify() + pub("t", b"x" * MB)[:-1])
        async with httpx.AsyncClient(base_url=f"http://{daemon.http_address}", timeout=20) as client:
            await client.get("/ping")
            await come_true(lambda: daemon.budget._timer is not None and len(daemon.budget._holders) == 2)  # type: ignore[union-attr]
        await peer.close()
        await come_true(lambda: daemon.budget._timer is None and daemon.budget.used == 0)  # type: ignore[union-attr]


def test_the_limit_has_to_hold_some_bodies() -> None:
    with pytest.raises(UsageError, match=r"--max-memory 8388608 is less than 4 bodies of 5242880 bytes: give 20971520"):
        memory_limit(Options(max_memory=8 * MB))
    assert memory_limit(Options(max_memory=20 * MB)) == 20 * MB
    assert memory_limit(Options(max_body_size=1 << 50)) == 1 << 52


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory in /proc")
@pytest.mark.parametrize("kind", ["TCP", "HTTP"])
async def test_memory_of_the_process_stays_below(tmp_path: Path, kind: str) -> None:
    """Two hundred clients send 1 MB each, and not the last byte: the process would grow by more than 200 MB."""
    head = b"POST /pub?topic=t HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % MB
    unfinished = b"  V2" + pub("t", b"x" * MB)[:-1] if kind == "TCP" else head + b"x" * (MB - 1)
    flags = ["--tcp-address", "127.0.0.1:0", "--http-address", "127.0.0.1:0", "--data-path", str(tmp_path)]
    with running(*flags, "--max-memory", "24MiB") as broker:
        peers = [Peer(*await asyncio.open_connection(*broker.address(kind))) for _ in range(200)]
        statm = Path(f"/proc/{broker.process.pid}/statm")

        def resident() -> int:
            return int(statm.read_text().split()[1]) * 4096

        before = most = resident()
        for peer in peers:
            peer.say(unfinished)
            await asyncio.sleep(0)
            most = max(most, resident())
        for _ in range(50):
            await asyncio.sleep(0.01)
            most = max(most, resident())
        assert most - before < 80 * MB
        for peer in peers:
            peer.writer.transport.abort()

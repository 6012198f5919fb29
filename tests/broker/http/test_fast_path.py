"""`POST /pub?topic=NAME` is answered without an application: whoever asks must not see which way it went."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from qtools.broker.daemon import Daemon
from qtools.web import fast_path
from qtools.web.http_connection import QUEUED

from ..inside import come_true, serving
from ..tcp.slow_store import SlowStore

SHORT, LONG = "/pub?topic=t", "/pub?topic=%74"
WAYS = pytest.mark.parametrize("target", [SHORT, LONG])


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    def ask(self, target: str = SHORT, body: bytes = b"x", more: str = "", version: str = "1.1") -> None:
        head = f"POST {target} HTTP/{version}\r\nhost: x\r\ncontent-length: {len(body)}\r\n{more}\r\n"
        self.writer.write(head.encode() + body)

    async def answer(self) -> tuple[str, bytes]:
        """Head, without its date, and body."""
        async with asyncio.timeout(10):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
            length = re.search(r"(?i)content-length: (\d+)", head)
            body = await self._reader.readexactly(int(length[1])) if length else b""
        return re.sub(r"Date: \w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT\r\n", "Date\r\n", head), body

    def ask_much(self, target: str, count: int, size: int) -> None:
        """`count` requests at once, without waiting for the socket to take them."""
        head = f"POST {target} HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n"
        self.writer.write((head.encode() + b"x" * size) * count)

    async def hung_up(self) -> bool:
        async with asyncio.timeout(10):
            return await self._reader.read() == b""


@asynccontextmanager
async def clients(
    count: int = 1, receive_buffer: int = 0, **options: Any
) -> AsyncIterator[tuple[Daemon, list[Client]]]:
    async with serving(http_address="127.0.0.1:0", **options) as daemon:
        host, _, port = daemon.http_address.rpartition(":")
        made = []
        for _ in range(count):
            own = socket.socket()
            if receive_buffer:  # before it connects, as the window is announced then
                own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            own.connect((host, int(port)))
            own.setblocking(False)
            made.append(Client(*await asyncio.open_connection(sock=own)))
        yield daemon, made
        for client in made:
            client.writer.close()
            with contextlib.suppress(ConnectionError):
                await client.writer.wait_closed()


def taken(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The bodies that go the short way from now on."""
    bodies = []
    real = fast_path.FastPathRequest.set

    def noted(cycle: fast_path.FastPathRequest) -> None:
        if not cycle.more_body and not cycle.disconnected and cycle._handler is not None:
            bodies.append(cycle.body)
        real(cycle)

    monkeypatch.setattr(fast_path.FastPathRequest, "set", noted)
    return bodies


async def test_both_ways_answer_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = taken(monkeypatch)
    async with clients() as (daemon, (client,)):
        answers = []
        for target in (SHORT, LONG, SHORT):
            client.ask(target)
            answers.append(await client.answer())
        assert answers[0] == answers[1] == answers[2]
        assert answers[0][1] == b"OK"
        assert "Date\r\n" in answers[0][0]
        daemon.broker.stopping = True
        refusals = []
        for target in (SHORT, LONG):
            client.ask(target)
            refusals.append(await client.answer())
        assert refusals[0] == refusals[1]
        assert refusals[0][1] == b'{"message":"EXITING"}'
        daemon.broker.stopping = False
    assert bodies == [b"x"] * 3


async def test_what_is_unusual_goes_the_long_way(monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = taken(monkeypatch)
    async with clients(3, max_msg_size=100_000) as (daemon, (client, old, last)):
        for target, body in (
            (LONG, b"x"),
            ("/pub?topic=t&defer=1", b"x"),
            ("/pub?topic=", b"x"),
            ("/pub?topic=a+b", b"x"),
            ("/pub?topic=t", b""),
            ("/pub?topic=t", b"x" * 70_000),
            ("/pub?topic=t", b"x" * 100_001),
            ("/mpub?topic=t", b"x"),
        ):
            client.ask(target, body)
            head, _ = await client.answer()
            assert head.startswith("HTTP/1.1 413" if len(body) > 100_000 else ("HTTP/1.1 200", "HTTP/1.1 400"))
        old.ask(version="1.0")
        assert (await old.answer())[1] == b"OK"
        assert await old.hung_up()
        last.ask(more="connection: close\r\n")
        assert (await last.answer())[1] == b"OK"
        assert await last.hung_up()
        assert bodies == []
        assert daemon.broker.topics["t"].messages == 6


async def test_who_asks_whether_to_go_on_is_told() -> None:
    async with clients() as (_, (client,)):
        client.writer.write(
            b"POST /pub?topic=t HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\nexpect: 100-continue\r\n\r\n"
        )
        head, _ = await client.answer()
        assert head.startswith("HTTP/1.1 100 ")
        client.writer.write(b"x")
        assert (await client.answer())[1] == b"OK"


@WAYS
async def test_one_request_is_one_message_however_it_comes(target: str) -> None:
    async with clients() as (daemon, (client,)):
        request = f"POST {target} HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello".encode()
        for at in range(len(request)):
            client.writer.write(request[at : at + 1])
            await asyncio.sleep(0)
        assert (await client.answer())[1] == b"OK"
        for _ in range(3):
            client.ask(target, b"hello")
            await client.answer()
        client.writer.close()
        server = daemon.http_server
        assert server is not None
        await come_true(lambda: not server.state.connections)
        assert daemon.broker.topics["t"].depth == 4


@WAYS
async def test_requests_in_one_piece_are_answered_in_order(target: str) -> None:
    store = SlowStore()
    async with clients(store=store) as (daemon, (client,)):
        client.ask(target, b"a")
        client.ask("/ping", b"")  # POST: not allowed
        client.ask(SHORT, b"b")
        (commit,) = await come_true(lambda: store.turns)
        commit.settle()
        assert (await client.answer())[1] == b"OK"
        assert (await client.answer())[1] == b'{"message":"METHOD_NOT_ALLOWED"}'
        (_, commit) = await come_true(lambda: len(store.turns) == 2 and store.turns)
        commit.settle(OSError("no space left on device"))
        head, body = await client.answer()
        assert head.startswith("HTTP/1.1 503 ")
        assert body == b'{"message":"PUB_FAILED no space left on device"}'
        client.ask(target, b"c")
        (*_, commit) = await come_true(lambda: len(store.turns) == 3 and store.turns)
        commit.settle()
        assert (await client.answer())[1] == b"OK"
        assert daemon.broker.topics["t"].messages == 2


@WAYS
async def test_who_hangs_up_before_the_commit_is_published_for_all_the_same(target: str) -> None:
    store = SlowStore()
    async with clients(store=store) as (daemon, (client,)):
        client.ask(target)
        (commit,) = await come_true(lambda: store.turns)
        sock = client.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not only an end
        client.writer.transport.abort()
        server = daemon.http_server
        assert server is not None
        await come_true(lambda: not server.state.connections)
        commit.settle()
        await come_true(lambda: daemon.broker.topics["t"].messages == 1)


@WAYS
async def test_who_waits_for_a_commit_when_the_broker_ends_gets_the_answer(target: str) -> None:
    store = SlowStore()
    async with clients(store=store) as (daemon, (client,)):
        client.ask(target)
        (commit,) = await come_true(lambda: store.turns)
        daemon.stop()
        asyncio.get_running_loop().call_later(0.1, commit.settle)
        head, body = await client.answer()
        assert body == b"OK"
        assert "connection: close\r\n" in head
        assert await client.hung_up()


@WAYS
async def test_a_head_that_is_too_long_is_refused(target: str) -> None:
    async with clients() as (daemon, (client,)):
        client.ask(target, more="".join(f"x-{number}: {'y' * 1000}\r\n" for number in range(70)))
        head, _ = await client.answer()
        assert head.startswith("HTTP/1.1 431 ")
        assert await client.hung_up()
        assert daemon.broker.topics == {}


@WAYS
@pytest.mark.parametrize("together", [True, False])
async def test_what_is_whole_is_answered_though_garbage_follows(target: str, together: bool) -> None:
    store = SlowStore()
    async with clients(store=store) as (daemon, (client,)):
        garbage = b"\0garbage\r\n\r\n"
        client.ask(target)
        if together:
            client.writer.write(garbage)
        (commit,) = await come_true(lambda: store.turns)
        if not together:
            client.writer.write(garbage)
            server = daemon.http_server
            assert server is not None
            (connection,) = server.state.connections
            await come_true(lambda: connection._ignores_input)  # type: ignore[union-attr]
        commit.settle()
        head, body = await client.answer()
        assert (head[:13], body) == ("HTTP/1.1 200 ", b"OK")
        assert "connection: close\r\n" in head
        assert await client.hung_up()
        assert daemon.broker.topics["t"].messages == 1


UPGRADE = "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"


@WAYS
@pytest.mark.parametrize("apart", [True, False])
async def test_an_upgrade_that_is_not_offered_is_ignored(target: str, apart: bool) -> None:
    async with clients() as (daemon, (client,)):
        inner = b"POST /pub?topic=smuggled HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nevil"
        for _ in range(2):
            client.writer.write(
                f"POST {target} HTTP/1.1\r\nhost: x\r\n{UPGRADE}content-length: {len(inner)}\r\n\r\n".encode()
            )
            if apart:
                await asyncio.sleep(0.05)
            client.writer.write(inner)
            assert (await client.answer())[1] == b"OK"
        client.ask(target, more=UPGRADE)
        client.ask(target, more=UPGRADE)
        client.writer.write(b"GET /ping HTTP/1.1\r\nhost: x\r\n" + UPGRADE.encode() + b"\r\n")
        assert [(await client.answer())[1] for _ in range(3)] == [b"OK"] * 3
        client.ask(target, more=UPGRADE.replace("Upgrade,", "Upgrade, close,"))
        assert (await client.answer())[1] == b"OK"
        assert await client.hung_up()
        assert list(daemon.broker.topics) == ["t"]
        assert daemon.broker.topics["t"].messages == 5


@WAYS
@pytest.mark.parametrize("count", [0, 1, 3, 20])
@pytest.mark.parametrize("durable", [True, False])
async def test_who_ends_its_side_is_answered(target: str, count: int, durable: bool, tmp_path: Path) -> None:
    kept = {"data_path": str(tmp_path), "sync": "off"} if durable else {}
    async with clients(**kept) as (daemon, (client,)):
        for _ in range(count):
            client.ask(target)
        if not count:
            client.writer.write(b"GET /ping HTTP/1.1\r\nhost: x\r\n\r\n")
        client.writer.write_eof()
        for _ in range(count or 1):
            assert (await client.answer())[1] == b"OK"
        assert await client.hung_up()
        if count:
            await come_true(lambda: daemon.broker.topics["t"].messages == count)


async def test_garbage_alone_is_told_so() -> None:
    async with clients(2) as (_, (client, other)):
        client.writer.write(b"\0garbage\r\n\r\n")
        assert (await client.answer())[0].startswith("HTTP/1.1 400 ")
        assert await client.hung_up()
        other.ask()
        assert (await other.answer())[1] == b"OK"
        other.writer.write(b"\0garbage\r\n\r\n")
        assert (await other.answer())[0].startswith("HTTP/1.1 400 ")
        assert await other.hung_up()


@WAYS
async def test_who_reads_no_answers_is_not_listened_to(target: str) -> None:
    # Without the small buffer the kernel takes the answers to some 80,000 requests before the broker notices.
    async with clients(receive_buffer=65536) as (daemon, (client,)):
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.ask_much(target, 100_000, 300)  # fewer than QUEUED in one read
        server = daemon.http_server
        assert server is not None
        (connection,) = await come_true(lambda: server.state.connections)
        await come_true(lambda: connection.flow is not None and connection.flow.write_paused)
        seen: list[int] = []

        def nothing_moves() -> bool:
            seen.append(daemon.broker.topics["t"].messages)
            return len(seen) > 60 and len(set(seen[-60:])) == 1

        await come_true(nothing_moves)
        assert connection.transport.get_write_buffer_size() < 1_000_000
        assert len(connection.pipeline) <= QUEUED
        assert seen[-1] < 90_000
        client.writer.transport.abort()
        await come_true(lambda: not server.state.connections)


@WAYS
async def test_no_more_requests_wait_than_one_read_brings(target: str) -> None:
    store = SlowStore()
    async with clients(store=store) as (daemon, (client,)):
        client.ask_much(target, 50_000, 1)
        (commit,) = await come_true(lambda: store.turns)
        server = daemon.http_server
        assert server is not None
        (connection,) = server.state.connections
        assert 100 < len(connection.pipeline) <= QUEUED
        commit.settle()
        for count in range(2, 6):
            assert (await client.answer())[1] == b"OK"
            (*_, commit) = await come_true(lambda count=count: len(store.turns) == count and store.turns)
            assert len(connection.pipeline) <= QUEUED
            commit.settle()


async def test_at_the_end_what_waits_for_a_commit_is_answered_though_more_was_asked() -> None:
    store = SlowStore()
    async with clients(store=store) as (daemon, (client,)):
        client.ask()
        client.ask()
        (commit,) = await come_true(lambda: store.turns)
        daemon.stop()
        asyncio.get_running_loop().call_later(0.1, commit.settle)
        assert (await client.answer())[1] == b"OK"


@WAYS
async def test_a_body_that_does_not_come_is_given_up(target: str) -> None:
    async with clients() as (daemon, (client,)):
        client.writer.write(f"POST {target} HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhal".encode())
        server = daemon.http_server
        assert server is not None
        (connection,) = await come_true(lambda: server.state.connections)
        await come_true(lambda: connection.cycle is not None)
        connection.deadline = 0.0  # type: ignore[union-attr]
        head, _ = await client.answer()
        assert head.startswith("HTTP/1.1 408 ")
        assert await client.hung_up()
        assert daemon.broker.topics == {}

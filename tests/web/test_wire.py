"""What a client has taken of what was written to it: on real sockets, with clients that read, stand still, and go."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from qtools.web.tracked_transport import TrackedTransport
from tests.engines.nsq.scripted import until


class Served(asyncio.Protocol):
    """The gateway's side of one connection."""

    tracked: TrackedTransport

    def __init__(self, made: asyncio.Future[Served]) -> None:
        self._made = made
        self.ended = self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.tracked = TrackedTransport(transport, asyncio.get_running_loop())
        self._made.set_result(self)

    def data_received(self, data: bytes) -> None:
        if self.tracked.is_closing():
            self.tracked.discard(len(data))

    def eof_received(self) -> None:
        self.tracked.note_end()
        self.ended = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Served, socket.socket]]:
    """The served side, and a client's socket that reads when the test says so."""
    loop = asyncio.get_running_loop()
    made: asyncio.Future[Served] = loop.create_future()
    server = await loop.create_server(lambda: Served(made), "127.0.0.1", 0)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    await loop.sock_connect(client, server.sockets[0].getsockname())
    served = await made
    try:
        yield served, client
    finally:
        client.close()
        served.tracked.abort()
        server.close()
        await until(lambda: served.lost)


async def read(client: socket.socket, count: int) -> None:
    loop = asyncio.get_running_loop()
    while count > 0:
        count -= len(await loop.sock_recv(client, count))


async def steady(served: Served) -> int:
    """What is taken once that changes no more."""
    before, same = -1, 0
    while same < 20:
        await asyncio.sleep(0.005)
        same = same + 1 if served.tracked.taken == before else 0
        before = served.tracked.taken
    return before


SIZE = 4_000_000


async def test_what_is_read_is_taken_and_no_more_than_the_clients_kernel_holds() -> None:
    async with connected() as (served, client):
        served.tracked.write(b"x" * SIZE)
        assert served.tracked.written == SIZE
        first = await steady(served)
        assert 0 < first < SIZE // 4
        await read(client, SIZE)
        await until(lambda: served.tracked.taken == SIZE)


async def test_a_reset_takes_nothing_more_with_it() -> None:
    async with connected() as (served, client):
        served.tracked.write(b"x" * SIZE)
        before = await steady(served)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        await until(lambda: served.lost)
        assert served.tracked.taken == before


async def test_who_ends_in_order_has_read_what_it_acknowledged() -> None:
    async with connected() as (served, client):
        served.tracked.write(b"hello")
        await read(client, 5)
        client.close()
        await until(lambda: served.ended)
        assert served.tracked.taken == 5


async def test_what_was_written_before_hanging_up_may_still_be_taken() -> None:
    async with connected() as (served, client):
        served.tracked.write(b"x" * SIZE)
        served.tracked.close()
        assert served.tracked.is_closing()
        await read(client, SIZE)
        await until(lambda: served.tracked.taken >= SIZE)


async def test_pieces_of_one_turn_leave_in_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected() as (served, client):
        writes: list[bytes] = []
        monkeypatch.setattr(type(served.tracked._transport), "write", lambda _, data: writes.append(data))
        for piece in (b"a", b"b", b"c"):
            served.tracked.write(piece)
        assert served.tracked.taken == 0
        await asyncio.sleep(0)
        assert writes == [b"abc"]
        assert client.fileno() >= 0


async def test_who_stands_still_is_not_dead() -> None:
    async with connected() as (served, _):
        served.tracked.write(b"x" * SIZE)
        await steady(served)
        assert not served.tracked.is_dead(0.0)

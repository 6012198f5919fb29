"""The end of a broker: prompt, whatever clients do, and nothing that they are owed is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from qtools.broker.daemon import Daemon
from qtools.broker.options import Options

from .inside import Peer, come_true, identify, mpub, pub, subscribed
from .tcp.slow_store import SlowStore

PROMPT = 0.3  # s


@asynccontextmanager
async def ending(store: SlowStore | None = None) -> AsyncIterator[tuple[Daemon, list[float]]]:
    """A broker that the test ends by itself; the list has how long its end took once the block is left."""
    daemon = Daemon(Options("127.0.0.1:0", "127.0.0.1:0"), store=store)
    await daemon.start()
    took: list[float] = []
    serving = asyncio.create_task(daemon.serve())
    try:
        yield daemon, took
    finally:
        begun = time.monotonic()
        daemon.stop()
        await serving
        took.append(time.monotonic() - begun)


async def test_silent_clients_do_not_hold_it_up() -> None:
    async with ending() as (daemon, took):
        silent = [await subscribed(daemon), await Peer.to(daemon), await Peer.to(daemon, identify())]
        silent.append(await Peer.to(daemon, b"PUB t\n\0\0\0\x09half"))
        host, _, port = daemon.http_address.rpartition(":")
        for said in (
            b"",
            b"POST /pub?topic=t HTTP/1.1\r\n",
            b"POST /pub?topic=t HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf",  # the short way
            b"POST /mpub?topic=t HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf",
            b"POST /pub?topic=t HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        ):
            silent.append(Peer(*await asyncio.open_connection(host, int(port))))
            silent[-1].say(said)
        server = daemon.http_server
        assert server is not None
        await come_true(lambda: len(server.state.connections) == 5 and len(server.state.tasks) == 2)
    assert took[0] < PROMPT
    assert daemon.broker.held() == 0
    for peer in silent:
        await peer.close()


async def test_a_client_that_does_not_read_does_not_hold_it_up() -> None:
    async with ending() as (daemon, took):
        stuck = await subscribed(daemon, ready=2500)
        stuck.writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer = await Peer.to(daemon)
        for _ in range(100):
            writer.say(mpub("t", *[b"x" * 50_000] * 10))
            assert await writer.answer() == b"OK"
        await come_true(
            lambda: any(one.transport.socket.get_write_buffer_size() for one in daemon.tcp_server.connections)
        )  # type: ignore[union-attr]
    assert took[0] < PROMPT
    await stuck.close()
    await writer.close()


async def test_a_client_that_reads_slowly_gets_what_was_written_for_it() -> None:
    async with ending() as (daemon, _):
        slow = await subscribed(daemon, ready=2500)
        slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer = await Peer.to(daemon)
        for _ in range(100):
            writer.say(mpub("t", *[b"x" * 50_000] * 10))
            assert await writer.answer() == b"OK"
        (connection,) = [one for one in daemon.tcp_server.connections if one.consumer is not None]  # type: ignore[union-attr]
        await come_true(connection.transport.socket.get_write_buffer_size)
        sent = connection.consumer.sent  # type: ignore[union-attr]
        slow.writer.transport.resume_reading()  # type: ignore[attr-defined]
        reading = asyncio.create_task(slow.messages(sent))
    assert len(await reading) == sent
    await slow.close()
    await writer.close()


@pytest.mark.parametrize("way", ["tcp", "http"])
async def test_an_answer_that_waits_for_the_disk_is_given(way: str) -> None:
    store = SlowStore()
    async with ending(store) as (daemon, _):
        host, _, port = (daemon.tcp_address if way == "tcp" else daemon.http_address).rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        request = b"POST /pub?topic=t HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nx"
        writer.write(b"  V2" + pub("t", b"x") if way == "tcp" else request)
        (commit,) = await come_true(lambda: store.turns)
        asyncio.get_running_loop().call_later(2 * PROMPT, commit.settle)  # long after the broker was told to end
    assert (await reader.read()).endswith(b"OK")
    writer.close()

"""Over a real socket: what is answered, and that who misbehaves gets nothing and costs nothing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from qtools.cli.metrics import metrics_server
from qtools.cli.metrics.metrics_format import Family, counter
from qtools.cli.metrics.metrics_server import MAX_CONNECTIONS, MAX_REQUEST, MetricsServer


class Work:
    """What is asked: counts things, and is ready or not."""

    def __init__(self) -> None:
        self.things = 0
        self.reason = ""
        self.broken = False

    def collect(self) -> Iterable[Family]:
        if self.broken:
            raise KeyError("a defect")
        return [counter("q_things_total", "Things.", self.things)]


@asynccontextmanager
async def serving(work: Work) -> AsyncIterator[tuple[MetricsServer, int]]:
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    scrape = MetricsServer("q-test", work.collect, lambda: work.reason)
    await scrape.open(listening)
    try:
        yield scrape, listening.getsockname()[1]
    finally:
        scrape.close()


async def ask(port: int, request: bytes) -> bytes:
    """All that is answered until the other side ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return answer


async def held(scrape: MetricsServer, count: int) -> None:
    """Until so many connections are open."""
    async with asyncio.timeout(5):
        while len(scrape.connections) != count:  # noqa: ASYNC110 - a connection ends in its own time
            await asyncio.sleep(0.001)


async def get(port: int, path: str, method: str = "GET") -> tuple[int, bytes]:
    answer = await ask(port, f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length"))
    assert length == len(body) or method == "HEAD"
    return int(head.split()[1]), body


async def test_each_scrape_tells_what_is_counted_then() -> None:
    work = Work()
    async with serving(work) as (_, port):
        for things in (1, 2):
            work.things = things
            status, body = await get(port, "/metrics")
            assert status == 200
            assert b"\nq_things_total %d\n" % things in body


async def test_probes() -> None:
    work = Work()
    async with serving(work) as (_, port):
        assert await get(port, "/healthz") == (200, b"ok\n")
        assert await get(port, "/readyz") == (200, b"ready\n")
        work.reason = "no nsqd is connected"
        assert await get(port, "/readyz") == (503, b"no nsqd is connected\n")
        assert await get(port, "/healthz") == (200, b"ok\n")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("HEAD", "/metrics", 200),
        ("HEAD", "/healthz", 200),
        ("GET", "/metrics?name[]=x", 200),
        ("GET", "http://somewhere/metrics", 200),
        ("POST", "/metrics", 405),
        ("DELETE", "/healthz", 405),
        ("OPTIONS", "/readyz", 405),
        ("GET", "/", 404),
        ("POST", "/other", 404),
        ("GET", "/metrics/", 404),
        ("GET", "/%6Detrics", 404),
    ],
)
async def test_statuses(method: str, path: str, status: int) -> None:
    async with serving(Work()) as (_, port):
        found, body = await get(port, path, method)
        assert found == status
        assert bool(body) == (method != "HEAD")


async def test_a_request_byte_by_byte() -> None:
    async with serving(Work()) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for byte in b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        assert (await reader.read()).endswith(b"\r\n\r\nok\n")
        writer.close()


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (b"\x16\x03\x01\x02\x00\x01", b"HTTP/1.1 400 "),  # TLS
        (b"  V2SUB a b\n", b"HTTP/1.1 400 "),
        (b"GET /metrics HTTP/1.1\r\nHost x\r\n\r\n", b"HTTP/1.1 400 "),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"a" * MAX_REQUEST, b"HTTP/1.1 431 "),
        (b"GET /" + b"a" * MAX_REQUEST, b"HTTP/1.1 431 "),
        (b"GET /healthz HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", b"HTTP/1.1 200 "),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", b"HTTP/1.1 405 "),
    ],
)
async def test_what_is_no_request_of_ours(request_: bytes, answer: bytes) -> None:
    async with serving(Work()) as (scrape, port):
        with contextlib.suppress(ConnectionResetError):  # it hung up before it had read everything
            assert (await ask(port, request_)).startswith(answer)
        await held(scrape, 0)


async def test_two_requests_in_one_write_have_one_answer() -> None:
    async with serving(Work()) as (_, port):
        answer = await ask(port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
        assert answer.count(b"HTTP/1.1 ") == 1


async def test_who_stays_silent_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "PATIENCE", 0.2)
    async with serving(Work()) as (_, port):
        for begun in (b"", b"GET /met"):
            with contextlib.suppress(ConnectionResetError):
                assert await ask(port, begun) == b""


async def test_no_more_than_so_many_at_once() -> None:
    async with serving(Work()) as (scrape, port):
        callers = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MAX_CONNECTIONS)]
        await held(scrape, MAX_CONNECTIONS)
        assert (await get(port, "/healthz"))[0] == 503
        for _, writer in callers:
            writer.close()
        await held(scrape, 0)
        assert (await get(port, "/healthz"))[0] == 200


async def test_a_defect_in_what_is_counted_is_told_and_ends_nothing() -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    work = Work()
    work.broken = True
    async with serving(work) as (_, port):
        assert (await get(port, "/metrics"))[0] == 500
        assert [type(context["exception"]) for context in told] == [KeyError]
        work.broken = False
        assert (await get(port, "/metrics"))[0] == 200

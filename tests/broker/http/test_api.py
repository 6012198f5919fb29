"""nsqd's HTTP API beyond what was recorded: limits, streams, odd requests, and the doors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from qtools.broker.daemon import Daemon

from ..inside import Peer, come_true, mpub, serving, subscribed
from ..tcp.slow_store import SlowStore


@asynccontextmanager
async def asked(**options: Any) -> AsyncIterator[tuple[Daemon, httpx.AsyncClient]]:
    async with (
        serving(http_address="127.0.0.1:0", **options) as daemon,
        httpx.AsyncClient(base_url=f"http://{daemon.http_address}") as client,
    ):
        yield daemon, client


async def test_answers_carry_nsqds_header_and_a_date() -> None:
    async with asked() as (_, client):
        for method, path in (("GET", "/info"), ("POST", "/pub"), ("GET", "/nothing")):
            headers = (await client.request(method, path)).headers
            assert headers["x-nsq-content-type"] == "nsq; version=1.0"
            assert headers["date"].endswith("GMT")


async def test_a_body_over_the_limit_is_refused_while_it_comes() -> None:
    async with asked(max_msg_size=1000, max_body_size=5000) as (daemon, client):
        sent = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal sent
            while sent < 100_000_000:
                sent += 10_000
                yield b"x" * 10_000

        for path, word in (("/pub", "MSG_TOO_BIG"), ("/mpub", "BODY_TOO_BIG")):
            sent = 99_000_000
            reply = await client.post(path, params={"topic": "t"}, content=endless())
            assert (reply.status_code, reply.json()) == (413, {"message": word})
        assert daemon.broker.held() == 0
        assert (await client.post("/pub", params={"topic": "t"}, content=b"x" * 1000)).text == "OK"
        reply = await client.post("/mpub", params={"topic": "t"}, content=b"x\n" + b"y" * 1001)
        assert reply.json() == {"message": "MSG_TOO_BIG"}


@pytest.mark.parametrize("target", ["/pub?topic=t", "/pub?topic=t&defer=1"])  # the short way, the long way
async def test_a_client_that_leaves_in_the_middle_of_its_body_leaves_nothing(target: str) -> None:
    async with asked() as (daemon, _):
        server = daemon.http_server
        assert server is not None
        host, _, port = daemon.http_address.rpartition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhalf" % target.encode())
        await writer.drain()
        (client,) = await come_true(lambda: server.state.connections)
        await come_true(lambda: client.cycle is not None)
        writer.close()
        await come_true(lambda: not server.state.connections and not server.state.tasks)
        assert daemon.broker.topics == {}


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /ping HTTP/1.1\r\n" + b"x: " + b"y" * 300_000,
        b"GET /ping HTTP/1.1\r\n" + b"x: y\r\n" * 60_000,
        b"GET /" + b"a" * 300_000,
        b"POST /pub?topic=t HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + b"x: " + b"y" * 300_000,
        b"\x16\x03\x01\x02\0",
        b"  V2SUB t c\n",
        b"GET /p\xffing HTTP/1.1\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\n\r\n",
    ],
)
async def test_a_broken_or_endless_head_is_refused(request_bytes: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    async with asked() as (daemon, client):
        host, _, port = daemon.http_address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request_bytes)
        try:
            async with asyncio.timeout(5):
                answer = await reader.read()
        except ConnectionError:
            answer = b"HTTP/1.1 4"
        assert answer.startswith(b"HTTP/1.1 4")
        writer.close()
        assert (await client.get("/ping")).text == "OK"
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("query", ["topic=t;x=1", "topic=%zz"])
async def test_a_query_that_go_does_not_read_is_refused(query: str) -> None:
    async with asked() as (_, client):
        reply = await client.post(f"/topic/create?{query}")
        assert (reply.status_code, reply.json()) == (400, {"message": "INVALID_REQUEST"})


async def test_options_can_be_asked_for_by_nsqds_names() -> None:
    async with asked(max_msg_size=4711) as (_, client):
        assert (await client.get("/config/max_msg_size")).text == "4711"
        assert (await client.get("/config/max_body_size")).text == "5242880"
        assert (await client.get("/config/msg_timeout")).text == "60000000000"
        assert (await client.get("/config/log_level")).text == "info"
        reply = await client.get("/config/nothing")
        assert (reply.status_code, reply.json()) == (400, {"message": "INVALID_OPTION"})
        assert (await client.put("/config/log_level", content=b"debug")).text == "debug"
        assert (await client.put("/config/log_level", content=b"loud")).status_code == 400
        assert (await client.put("/config/log_level")).json() == {"message": "INVALID_VALUE"}
        assert (await client.put("/config/max_msg_size", content=b"1")).json() == {"message": "INVALID_OPTION"}
        assert (await client.post("/config/log_level")).status_code == 405
        assert (await client.put("/config/log_level", content=b"info")).text == "info"


async def test_stats_as_text_tell_the_same_as_json() -> None:
    async with asked() as (daemon, client):
        consumer = await subscribed(daemon, "topic", "channel", user_agent="tester/1")
        producer = await Peer.to(daemon, mpub("topic", b"a", b"b"))
        await consumer.messages(2)
        await client.post("/channel/pause", params={"topic": "topic", "channel": "channel"})
        await client.post("/topic/pause", params={"topic": "topic"})
        text = (await client.get("/stats")).text
        assert "\nHealth: OK\n" in text
        assert "\n*P [topic          ] depth: 0     be-depth: 0     msgs: 2 " in text
        assert "\n   *P [channel                  ] depth: 0     be-depth: 0     inflt: 2    def: 0 " in text
        assert "state: 3 inflt: 2    rdy: 100  fin: 0 " in text
        assert "tester/1" in text
        assert "\nProducers:\n   [V2 127.0.0.1:" in text
        assert "topics: topic=2" in text
        told = (await client.get("/stats", params={"format": "json", "include_mem": "false"})).json()
        assert "memory" not in told
        assert told["producers"][0]["pub_counts"] == [{"topic": "topic", "count": 2}]
        other = (await client.get("/stats", params={"format": "json", "topic": "topic", "channel": "no"})).json()
        assert other["topics"] == []
        await consumer.close()
        await producer.close()


async def test_what_an_ephemeral_channel_dropped_is_told() -> None:
    async with asked(mem_queue_size=10) as (daemon, client):
        consumer = await subscribed(daemon, "t", "c#ephemeral", ready=0)
        for _ in range(3):
            await client.post("/mpub", params={"topic": "t"}, content=b"x\n" * 10)
        (topic,) = (await client.get("/stats", params={"format": "json"})).json()["topics"]
        assert (topic["dropped_count"], topic["channels"][0]["dropped_count"]) == (0, 20)
        await consumer.close()


async def test_many_at_once_are_all_kept() -> None:
    async with asked() as (daemon, client):
        replies = await asyncio.gather(
            *(client.post("/pub", params={"topic": "t"}, content=b"%d" % number) for number in range(60))
        )
        assert {reply.text for reply in replies} == {"OK"}
        assert daemon.broker.topics["t"].depth == 60


async def test_ok_waits_for_the_commit() -> None:
    store = SlowStore()
    async with asked(store=store) as (_, client):
        first = asyncio.create_task(client.post("/pub", params={"topic": "t"}, content=b"x"))
        (commit,) = await come_true(lambda: store.turns)
        assert not first.done()
        commit.settle()
        assert (await first).text == "OK"
        second = asyncio.create_task(client.post("/mpub", params={"topic": "t"}, content=b"x\ny"))
        (_, commit) = await come_true(lambda: len(store.turns) == 2 and store.turns)
        commit.settle(OSError("no space left on device"))
        reply = await second
        assert (reply.status_code, reply.json()) == (503, {"message": "PUB_FAILED no space left on device"})


async def test_a_broker_that_cannot_keep_anything_says_so() -> None:
    async with asked() as (daemon, client):
        daemon.broker.failure = "no space left on device"
        reply = await client.get("/ping")
        assert (reply.status_code, reply.text) == (500, "NOK - no space left on device")
        assert json.loads((await client.get("/stats?format=json")).text)["health"] == "NOK - no space left on device"


async def test_a_broker_that_ends_takes_nothing_more() -> None:
    async with asked() as (daemon, client):
        await client.get("/ping")  # a connection from before
        daemon.broker.stopping = True
        reply = await client.post("/pub", params={"topic": "t"}, content=b"x")
        assert (reply.status_code, reply.json()) == (503, {"message": "EXITING"})


async def test_both_doors_may_be_unix_sockets(tmp_path: Path) -> None:
    tcp, http = tmp_path / "tcp", tmp_path / "http"
    async with serving(tcp_address=f"unix:{tcp}", http_address=str(http)) as daemon:
        assert (tcp.stat().st_mode & 0o777, http.stat().st_mode & 0o777) == (0o600, 0o600)
        peer = await subscribed(daemon)
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(http))) as client:
            assert (await client.post("http://x/pub?topic=t", content=b"hello")).text == "OK"
            info = (await client.get("http://x/info")).json()
            assert (info["tcp_port"], info["http_port"], info["durable"]) == (-1, -1, False)
        assert (await peer.message()).body == b"hello"
        await peer.close()
    assert not tcp.exists()
    assert not http.exists()


async def test_plain_http_is_shut_where_tls_is_required() -> None:
    async with asked() as (daemon, client):
        daemon.options.tls_required = "true"
        reply = await client.get("/ping")
        assert (reply.status_code, reply.json()) == (403, {"message": "TLS_REQUIRED", "https_port": 0})


# ── nsqd's manners ──────────────────────────────────────────────────────────────────────────────────

METHODS = {
    "/pub": "OPTIONS, POST", "/mpub": "OPTIONS, POST", "/ping": "GET, OPTIONS", "/stats": "GET, OPTIONS",
    "/info": "GET, OPTIONS", "/config/log_level": "GET, OPTIONS, PUT", "/topic/create": "OPTIONS, POST",
    "/channel/delete": "OPTIONS, POST", "/metrics": "GET, OPTIONS",
}  # fmt: skip


async def raw(daemon: Daemon, request: str) -> bytes:
    """The bytes of an answer, as a client's script sees them."""
    host, _, port = daemon.http_address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"{request}\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return answer


async def test_options_names_the_methods_of_a_path_and_405_too() -> None:
    async with asked() as (_, client):
        for path, allowed in METHODS.items():
            reply = await client.options(path)
            assert (reply.status_code, reply.headers["allow"], reply.content) == (200, allowed, b"")
            for method in {"GET", "POST", "PUT", "DELETE", "HEAD"} - {*allowed.split(", ")}:
                reply = await client.request(method, path)
                assert (reply.status_code, reply.headers["allow"]) == (405, allowed)
                assert method == "HEAD" or reply.json() == {"message": "METHOD_NOT_ALLOWED"}
        for path in ("/nothing", "/config/", "/config/a/b", "/"):
            reply = await client.options(path)
            assert (reply.status_code, reply.json()) == (404, {"message": "NOT_FOUND"})


@pytest.mark.parametrize(
    "request_line",
    [
        "GET /info HTTP/1.1",
        "GET /nothing HTTP/1.1",
        "POST /ping HTTP/1.1",
        "OPTIONS /stats HTTP/1.1",
    ],
)
async def test_names_of_headers_are_written_as_nsqd_writes_them(request_line: str) -> None:
    async with asked() as (daemon, _):
        answer = await raw(daemon, f"{request_line}\r\nHost: localhost\r\nConnection: close")
        head, _, body = answer.partition(b"\r\n\r\n")
        names = [line.partition(b":")[0] for line in head.split(b"\r\n")[1:]]
        assert {b"X-Nsq-Content-Type", b"Date", b"Content-Length", b"Content-Type"} <= {*names}
        assert b"Content-Length: %d\r\n" % len(body) in head
        assert b"transfer-encoding" not in head.lower()


async def test_the_short_way_writes_them_so_too() -> None:
    async with asked() as (daemon, _):
        host, _, port = daemon.http_address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /pub?topic=t HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nx")
        head = await reader.readuntil(b"\r\n\r\n")
        assert {b"X-Nsq-Content-Type", b"Date", b"Content-Length", b"Content-Type"} <= {
            line.partition(b":")[0] for line in head.split(b"\r\n")[1:]
        }
        writer.close()


# ── names that a web page gives to this machine ─────────────────────────────────────────────────────

OWN = ["/channel/peek?topic=t&channel=c", "/metrics"]


@pytest.mark.parametrize("path", OWN)
@pytest.mark.parametrize("host", ["evil.example", "evil.example:4151", "127.evil.example", "[::2]:1", "0.0.0.0"])
async def test_what_nsqd_does_not_have_is_not_for_pages_of_other_sites(path: str, host: str) -> None:
    async with asked() as (daemon, client):
        daemon.broker.channel("t", "c")
        reply = await client.get(path, headers={"host": host})
        assert (reply.status_code, reply.json()) == (403, {"message": "HOST_NOT_ALLOWED"})
        assert (await client.get("/stats", headers={"host": host})).status_code == 200


async def test_a_channel_in_the_past_is_not_made_by_pages_of_other_sites(tmp_path: Path) -> None:
    async with asked(data_path=str(tmp_path)) as (daemon, client):
        daemon.broker.topic("t")
        made = "/channel/create?topic=t&channel=c"
        reply = await client.post(made + "&from=beginning", headers={"host": "evil.example"})
        assert (reply.status_code, reply.json()) == (403, {"message": "HOST_NOT_ALLOWED"})
        assert not daemon.broker.topics["t"].channels
        assert (await client.post(made, headers={"host": "evil.example"})).status_code == 200


@pytest.mark.parametrize("path", OWN)
@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:4151", "127.8.8.8", "[::1]:4151", "my.broker"])
async def test_this_machines_names_are_answered(path: str, host: str) -> None:
    async with asked(broadcast_address="my.broker") as (daemon, client):
        daemon.broker.channel("t", "c")
        assert (await client.get(path, headers={"host": host})).status_code == 200
        without = await raw(daemon, f"GET {path} HTTP/1.0")
        assert without.startswith(b"HTTP/1.1 200 ")


async def test_over_a_unix_socket_any_name_is_answered(tmp_path: Path) -> None:
    async with serving(http_address=f"unix:{tmp_path}/http") as daemon:
        daemon.broker.channel("t", "c")
        transport = httpx.AsyncHTTPTransport(uds=f"{tmp_path}/http")
        async with httpx.AsyncClient(transport=transport, base_url="http://anything") as client:
            for path in OWN:
                assert (await client.get(path)).status_code == 200

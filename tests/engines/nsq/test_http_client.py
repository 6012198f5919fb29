"""nsqd's HTTP API, asked over TCP and over a unix socket, and what is made of odd answers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from qtools.engines.nsq import http_client as module
from qtools.engines.nsq.address import Brokers
from qtools.engines.nsq.http_client import Depth, HttpClient, ask_depth, ask_depths, ask_limits
from qtools.errors import ConnectFailed, PeerError
from qtools.names import Subscription
from tests.engines.nsq.scripted import web

pytestmark = pytest.mark.usefixtures("tidy")

SOURCE = Subscription("events", "archive")
STATS = "/stats?format=json&topic=events&include_clients=false"


def stats(**topic: Any) -> bytes:
    return json.dumps({"version": "1.3.0", "topics": [{"topic_name": "events", **topic}]}).encode()


CHANNELS = [
    {"channel_name": "archive", "message_count": 900, "depth": 2, "in_flight_count": 3, "deferred_count": 4},
    {"channel_name": "other", "depth": 50, "in_flight_count": 60, "deferred_count": 70},
]


HELD = Depth(3, 3, 4, 2, exists=True, given=900, elsewhere={"other": 180})


@pytest.mark.parametrize(
    ("body", "depth"),
    [
        (stats(depth=1, channels=CHANNELS), HELD),
        (b'{"status_code":200,"status_txt":"OK","data":' + stats(depth=1, channels=CHANNELS) + b"}", HELD),
        (stats(depth=7, channels=[]), Depth(7, 0, 0, 0)),
        (stats(depth=7, channels=None), Depth(7, 0, 0, 0)),
        (b'{"topics":[]}', Depth(new_topic=True)),
        (b'{"topics":null}', Depth(new_topic=True)),
        (b'{"topics":[{"topic_name":"another","depth":9,"channels":[]}]}', Depth(new_topic=True)),
    ],
)
async def test_what_waits_for_a_channel_is_its_own_and_the_topic_s(body: bytes, depth: Depth) -> None:
    async with web({STATS: (200, body)}) as server:
        http = HttpClient(server.base)
        assert await ask_depth(http, SOURCE) == depth
        await http.close()


def test_drained_is_nothing_anywhere() -> None:
    assert Depth(channels=3).drained
    assert not any(each.drained for each in (Depth(depth=1), Depth(in_flight=1), Depth(deferred=1)))


@pytest.mark.parametrize(
    "body",
    [
        b"[]", b"7", b'"x"', b"null", b'{"topics":7}', b'{"topics":[7]}', b'{"topics":[{"topic_name":"events"}]}',
        b'{"topics":[{"topic_name":"events","depth":"many","channels":[]}]}',
        b'{"topics":[{"topic_name":"events","depth":1,"channels":[{}]}]}',
        b'{"topics":[{"topic_name":"events","depth":1,"channels":7}]}', b'{"data":7}',
        b'{"topics":[{"topic_name":"events","depth":Infinity,"channels":[]}]}',
        b"[" * 100_000, b"<html>", b"\xff\xfe", b"",
    ],
)  # fmt: skip
async def test_statistics_that_are_none_are_a_peer_s_error(body: bytes) -> None:
    async with web({STATS: (200, body)}) as server:
        http = HttpClient(server.base)
        with pytest.raises(PeerError, match=server.base):
            await ask_depth(http, SOURCE)
        await http.close()


async def test_another_status_is_told_with_its_message() -> None:
    async with web({"/x": (500, b'{"message":"NOK - disk"}'), "/y": (502, b"<html>")}) as server:
        http = HttpClient(server.base)
        with pytest.raises(PeerError, match=f"{server.base}/x answers 500 NOK - disk"):
            await http.get_json("/x")
        with pytest.raises(PeerError, match=r"/y answers 502 and no JSON: is it nsqd's HTTP port\?"):
            await http.get_json("/y")
        await http.close()


async def test_a_unix_socket_is_asked_like_any_other(tmp_path: Path) -> None:
    async with web({STATS: (200, b'{"topics":[]}')}, str(tmp_path / "http.sock")) as server:
        http = HttpClient(server.base)
        assert await ask_depth(http, SOURCE) == Depth(new_topic=True)
        await http.close()


async def test_where_nobody_answers_that_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for base in ("http://127.0.0.1:1", f"unix:{tmp_path}/none", "http://a..b:1"):
        http = HttpClient(base)
        with pytest.raises(ConnectFailed, match=base):
            await http.get("/x")
        await http.close()
    monkeypatch.setattr(module, "TIMEOUT", 0.1)
    async with web({"/x": (200, b"{}")}) as server:

        async def never(path: str) -> None:
            await asyncio.Event().wait()

        server.before = never
        http = HttpClient(server.base)
        with pytest.raises(ConnectFailed, match=r"no answer within 0\.1 s"):
            await http.get("/x")
        await http.close()


async def test_no_proxy_of_the_environment_is_between_us_and_the_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with web({"/x": (200, b"{}")}) as server:
        http = HttpClient(server.base)
        assert await http.get_json("/x") == {}
        await http.close()


@pytest.mark.parametrize(
    ("message", "body", "limits"),
    [
        ((200, b"1048576"), (200, b"5242880"), (1_048_576, 5_242_880)),
        ((200, b'"1048576"'), (200, b"5242880"), None),
        ((200, b"true"), (200, b"5242880"), None),
        ((200, b"0"), (200, b"5242880"), None),
        ((400, b'{"message":"INVALID_OPTION"}'), (200, b"5242880"), None),
        ((200, b"<html>"), (200, b"5242880"), None),
    ],
)
async def test_the_limits_are_two_numbers_or_unknown(
    message: tuple[int, bytes], body: tuple[int, bytes], limits: tuple[int, int] | None
) -> None:
    async with web({"/config/max_msg_size": message, "/config/max_body_size": body}) as server:
        assert await ask_limits(server.base) == limits
    assert await ask_limits("http://127.0.0.1:1") is None


@pytest.mark.parametrize(
    ("topic", "depth", "in_flight", "channel", "paused"),
    [
        (False, 0, 0, True, False),  # nothing waits: nothing is kept back
        (False, 2, 0, True, True),
        (False, 2, 0, False, False),
        (False, 0, 2, True, False),  # what others have in flight they can finish
        (True, 0, 0, False, False),
    ],
)
async def test_what_a_paused_channel_keeps_back(
    topic: bool, depth: int, in_flight: int, channel: bool, paused: bool
) -> None:
    told = {"channel_name": "archive", "depth": depth, "in_flight_count": in_flight, "deferred_count": 0}
    body = stats(depth=0, paused=topic, channels=[{**told, "paused": channel}])
    async with web({STATS: (200, body)}) as server:
        http = HttpClient(server.base)
        assert (await ask_depth(http, SOURCE)).paused is paused
        server.pages[STATS] = 200, stats(depth=1, paused=topic, channels=[{**told, "paused": channel}])
        assert (await ask_depth(http, SOURCE)).paused is (paused or topic)
        await http.close()


async def test_many_topics_are_asked_for_at_once() -> None:
    topics = [
        {"topic_name": f"t{nth}", "depth": nth, "channels": [{**CHANNELS[0], "channel_name": "c"}]} for nth in range(50)
    ]
    sources = [Subscription(f"t{nth}", "c") for nth in (49, *range(40), 60)]
    page = "/stats?format=json&include_mem=false&include_clients=false"
    async with web({page: (200, json.dumps({"topics": topics}).encode())}) as server:
        http = HttpClient(server.base)
        depths = await ask_depths(http, sources)
        assert [depth.depth for depth in depths] == [51, *(nth + 2 for nth in range(40)), 0]
        assert server.asked.total() == 1
        await http.close()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"\0\0\0\x12\0\0\0\x01E_BAD_PROTOCOL", "does not speak HTTP"),
        (b"", "the connection was closed without an HTTP answer"),
    ],
)
async def test_what_is_no_http_server_is_said_in_plain_words(answer: bytes, reason: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    http = HttpClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    with pytest.raises(ConnectFailed, match=reason):
        await http.get("/stats")
    await http.close()
    server.close()


@pytest.mark.parametrize(
    ("base", "reason"),
    [
        ("http://127.0.0.1:1", "nothing listens there"),
        ("unix:/tmp/no-such-socket", "there is no such socket"),
        ("http://no-such-host.invalid:4151", "the host name is not known"),
    ],
)
async def test_why_there_is_no_connection_is_said_in_plain_words(base: str, reason: str) -> None:
    http = HttpClient(base)
    with pytest.raises(ConnectFailed, match=reason):
        await http.get("/stats")
    await http.close()


def test_a_password_in_an_address_is_not_in_its_text() -> None:
    assert HttpClient("http://me:s3cret@h:4161").base == "http://h:4161"
    assert str(Brokers(lookupd=("http://me:s3cret@h:4161", "http://g"))) == "nsqlookupd at http://h:4161, http://g"

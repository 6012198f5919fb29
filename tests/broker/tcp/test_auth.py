"""AUTH, with an auth server that answers what the test says: what a client may do, and what it is told."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from qtools.broker.daemon import Daemon
from qtools.broker.observe import stats

from ..inside import Peer, come_true, identify, mpub, pub, serving


class AuthServer:
    """Answers what it is told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, list[str]]] = []
        self.status = 200
        self.answer: dict[str, Any] = {
            "ttl": 60,
            "identity": "someone",
            "identity_url": "http://someone",
            "authorizations": [
                {"topic": "^open", "channels": [".*"], "permissions": ["subscribe", "publish"]},
                {"topic": "^read$", "channels": ["^mine$"], "permissions": ["subscribe"]},
            ],
        }
        self.address = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(parse_qs(urlsplit(head.split(b" ")[1].decode()).query, keep_blank_values=True))
        body = json.dumps(self.answer).encode()
        writer.write(
            b"HTTP/1.1 %d X\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (self.status, len(body), body)
        )
        await writer.drain()
        writer.close()


@asynccontextmanager
async def guarded() -> AsyncIterator[tuple[Daemon, AuthServer]]:
    auth = AuthServer()
    server = await asyncio.start_server(auth.serve, "127.0.0.1", 0)
    auth.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, serving(auth_http_addresses=(auth.address,)) as daemon:
        yield daemon, auth


def secret(text: bytes = b"sesame") -> bytes:
    return b"AUTH\n" + len(text).to_bytes(4, "big") + text


async def test_a_secret_opens_what_the_auth_server_says() -> None:
    async with guarded() as (daemon, auth):
        peer = await Peer.to(daemon, identify() + secret() + pub("open.a", b"behind") + b"SUB read mine\n")
        assert json.loads(await peer.answer())["auth_required"] is True
        assert json.loads(await peer.answer()) == {
            "identity": "someone",
            "identity_url": "http://someone",
            "permission_count": 2,
        }
        assert await peer.answer() == b"OK"
        assert await peer.answer() == b"OK"
        assert auth.asked == [{"remote_ip": ["127.0.0.1"], "tls": ["false"], "secret": ["sesame"], "common_name": [""]}]
        await peer.close()


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (pub("read", b"x"), b'E_UNAUTHORIZED AUTH failed for PUB on "read" ""'),
        (b"SUB read other\n", b'E_UNAUTHORIZED AUTH failed for SUB on "read" "other"'),
        (mpub("closed", b"x"), b'E_UNAUTHORIZED AUTH failed for MPUB on "closed" ""'),
        (secret(), b"E_INVALID AUTH already set"),
    ],
)
async def test_the_rest_stays_closed(command: bytes, told: bytes) -> None:
    async with guarded() as (daemon, _):
        peer = await Peer.to(daemon, secret() + command)
        await peer.answer()
        assert await peer.answer() == told
        assert await peer.hung_up()
        assert "closed" not in daemon.broker.topics
        await peer.close()


async def test_without_a_secret_nothing_is_open() -> None:
    async with guarded() as (daemon, auth):
        peer = await Peer.to(daemon, pub("open", b"x"))
        assert await peer.answer() == b"E_AUTH_FIRST AUTH required before PUB"
        await peer.close()
        assert auth.asked == []


async def test_without_a_secret_no_channel_is_made() -> None:
    async with guarded() as (daemon, _):
        peer = await Peer.to(daemon, b"SUB open mine\n")
        assert await peer.answer() == b"E_AUTH_FIRST AUTH required before SUB"
        assert await peer.hung_up()
        assert not daemon.broker.topics
        await peer.close()


async def test_the_statistics_say_what_the_auth_server_said() -> None:
    async with guarded() as (daemon, _):
        peer = await Peer.to(daemon, secret() + b"SUB open mine\n")
        await peer.answer()
        assert await peer.answer() == b"OK"
        assert daemon.tcp_server is not None
        told = stats.collect(daemon.broker, daemon.tcp_server.connections)
        ((channel,),) = [topic["channels"] for topic in told["topics"]]
        (client,) = channel["clients"]
        said = (client["authed"], client["auth_identity"], client["auth_identity_url"])
        assert said == (True, "someone", "http://someone")
        await peer.close()


async def test_a_client_that_leaves_while_the_auth_server_is_asked(caplog: pytest.LogCaptureFixture) -> None:
    asked = asyncio.Event()
    left = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await reader.read()
        left.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, serving(auth_http_addresses=(address,)) as daemon:
        peer = await Peer.to(daemon, secret() + pub("open.a", b"behind"))
        await asked.wait()
        peer.writer.transport.abort()
        async with asyncio.timeout(10):
            await left.wait()  # the question is given up with the client
        await come_true(lambda: not daemon.tcp_server.connections)  # type: ignore[union-attr]
        assert not daemon.broker.topics
    assert "internal error" not in caplog.text


SIZE = struct.pack(">i", 1000)


@pytest.mark.parametrize(
    ("begun", "name"),
    [(b"PUB t\n" + SIZE, "PUB"), (b"DPUB t 5\n" + SIZE, "DPUB"), (b"MPUB t\n", "MPUB"), (b"MPUB t\n" + SIZE, "MPUB")],
)
async def test_no_body_is_read_of_a_client_without_rights(begun: bytes, name: str) -> None:
    async with guarded() as (daemon, _):
        peer = await Peer.to(daemon, begun)
        assert await peer.answer() == f"E_AUTH_FIRST AUTH required before {name}".encode()
        assert await peer.hung_up()
        await peer.close()
        peer = await Peer.to(daemon, secret() + begun.replace(b" t", b" closed"))
        await peer.answer()
        assert await peer.answer() == f'E_UNAUTHORIZED AUTH failed for {name} on "closed" ""'.encode()
        await peer.close()


async def test_what_is_wrong_with_a_size_or_a_name_is_said_first_as_nsqd_does() -> None:
    async with guarded() as (daemon, _):
        for said, told in (
            (b"PUB t\n" + struct.pack(">i", 1 << 24), b"E_BAD_MESSAGE PUB message too big 16777216 > 1048576"),
            (b"DPUB t 5\n" + struct.pack(">i", 0), b"E_BAD_MESSAGE DPUB invalid message body size 0"),
            (b"PUB $\n", b'E_BAD_TOPIC PUB topic name "$" is not valid'),
            (b"MPUB t\n" + struct.pack(">i", 1 << 30), b"E_AUTH_FIRST AUTH required before MPUB"),
        ):
            peer = await Peer.to(daemon, said)
            assert await peer.answer() == told
            await peer.close()


@pytest.mark.parametrize(
    ("answer", "status", "told"),
    [
        ({"ttl": 60, "authorizations": []}, 200, b"E_UNAUTHORIZED AUTH no authorizations found"),
        ({"ttl": 0, "authorizations": []}, 200, b"E_AUTH_FAILED AUTH failed"),
        ({"ttl": 60, "authorizations": [{"topic": "("}]}, 200, b"E_AUTH_FAILED AUTH failed"),
        ({"ttl": 60, "authorizations": [{"permissions": ["fly"]}]}, 200, b"E_AUTH_FAILED AUTH failed"),
        ({}, 403, b"E_AUTH_FAILED AUTH failed"),
    ],
)
async def test_what_an_auth_server_may_say(answer: dict[str, Any], status: int, told: bytes) -> None:
    async with guarded() as (daemon, auth):
        auth.answer, auth.status = answer, status
        peer = await Peer.to(daemon, secret())
        assert await peer.answer() == told
        assert await peer.hung_up()
        await peer.close()


async def test_an_authorization_is_asked_for_again_when_its_time_is_over() -> None:
    async with guarded() as (daemon, auth):
        peer = await Peer.to(daemon, secret())
        await peer.answer()
        (connection,) = daemon.tcp_server.connections  # type: ignore[union-attr]
        assert connection.authorization is not None
        connection.authorization.expires = 0.0
        auth.answer["authorizations"] = [{"topic": "^new$", "channels": [".*"], "permissions": ["publish"]}]
        peer.say(pub("new", b"x") + pub("open", b"y"))
        assert await peer.answer() == b"OK"
        assert await peer.answer() == b'E_UNAUTHORIZED AUTH failed for PUB on "open" ""'
        assert len(auth.asked) == 2
        await peer.close()


async def test_no_auth_server_answers(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(auth_http_addresses=("127.0.0.1:1", "http://127.0.0.1:2/auth")) as daemon:
        peer = await Peer.to(daemon, secret())
        assert await peer.answer() == b"E_AUTH_FAILED AUTH failed"
        assert any("127.0.0.1:1: " in line and "127.0.0.1:2/auth: " in line for line in caplog.messages)
        await peer.close()

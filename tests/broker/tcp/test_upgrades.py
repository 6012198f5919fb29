"""TLS, snappy, deflate and AUTH, seen from clients that are built from other parts than the broker."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import struct
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import cramjam
import pytest
import trustme

from qtools.broker.daemon import Daemon
from qtools.broker.observe import stats
from qtools.errors import StartError, UsageError

from ..inside import Peer, come_true, identify, mpub, pub, serving
from .test_clients import SlowStore


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def files(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("tls")
    server, client = authority.issue_cert("localhost"), authority.issue_cert("someone", common_name="a client")
    server.cert_chain_pems[0].write_to_path(place / "cert")
    server.private_key_pem.write_to_path(place / "key")
    client.private_key_and_cert_chain_pem.write_to_path(place / "client")
    authority.cert_pem.write_to_path(place / "ca")
    return {name: place / name for name in ("cert", "key", "client", "ca")}


def tls(files: dict[str, Path], **more: Any) -> dict[str, Any]:
    return {"tls_cert": str(files["cert"]), "tls_key": str(files["key"])} | more


def trusting(files: dict[str, Path], certificate: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(files["ca"]))
    if certificate:
        context.load_cert_chain(files["client"])
    return context


def use_deflate(peer: Peer) -> None:
    pack, unpack = zlib.compressobj(6, zlib.DEFLATED, -15), zlib.decompressobj(-15)
    peer.pack = lambda data: pack.compress(data) + pack.flush(zlib.Z_SYNC_FLUSH)
    peer.unpack = unpack.decompress


def use_snappy(peer: Peer) -> None:
    """Whole chunks only: enough for what the tests read."""
    pack = cramjam.snappy.Compressor()
    rest = b""

    def packed(data: bytes) -> bytes:
        pack.compress(data)
        return bytes(pack.flush())

    def unpacked(data: bytes) -> bytes:
        nonlocal rest
        data, at = rest + data, 0
        while len(data) - at >= 4 and len(data) - at >= 4 + int.from_bytes(data[at + 1 : at + 4], "little"):
            at += 4 + int.from_bytes(data[at + 1 : at + 4], "little")
        rest = data[at:]
        return bytes(cramjam.snappy.decompress(b"\xff\x06\0\0sNaPpY" + data[:at])) if at else b""

    peer.pack, peer.unpack = packed, unpacked


async def works(peer: Peer) -> None:
    """Publish and receive over the connection."""
    bodies = [b"%d" % number * 50 for number in range(500)]
    peer.say(mpub("t", *bodies))
    assert await peer.answer() == b"OK"
    peer.say(b"SUB t c\n")
    assert await peer.answer() == b"OK"
    peer.say(b"RDY 2500\n")
    assert [message.body for message in await peer.messages(500)] == bodies


@pytest.mark.parametrize("packing", ["", "snappy", "deflate"])
@pytest.mark.parametrize("secure", [False, True])
async def test_every_upgrade_and_both_together(files: dict[str, Path], packing: str, secure: bool) -> None:
    async with serving(**tls(files)) as daemon:
        peer = await Peer.to(daemon, identify(tls_v1=secure, snappy=packing == "snappy", deflate=packing == "deflate"))
        agreed = json.loads(await peer.alone())
        assert (agreed["tls_v1"], agreed["snappy"], agreed["deflate"]) == (
            secure,
            packing == "snappy",
            packing == "deflate",
        )
        if secure:
            await peer.start_tls(trusting(files))
            assert await peer.alone() == b"OK"
        if packing:
            (use_snappy if packing == "snappy" else use_deflate)(peer)
            assert await peer.answer() == b"OK"
        await works(peer)
        await peer.close()


async def test_what_is_not_offered_is_not_granted() -> None:
    async with serving(snappy=False, deflate=False) as daemon:
        for wish in ("tls_v1", "snappy", "deflate"):
            peer = await Peer.to(daemon, identify(**{wish: True}))
            assert json.loads(await peer.answer())[wish] is False
            await works(peer)
            await peer.close()
            daemon.broker.delete_topic("t")


async def test_a_deflated_bomb_is_refused_before_it_is_in_memory() -> None:
    async with serving(max_msg_size=1 << 30, max_body_size=1 << 20) as daemon:
        peer = await Peer.to(daemon, identify(deflate=True))
        await peer.alone()
        use_deflate(peer)
        assert await peer.answer() == b"OK"
        peer.say(b"MPUB t\n\x7f\xff\xff\xff" + b"\0" * 50_000_000)
        assert (await peer.answer()).startswith(b"E_BAD_BODY MPUB body too big")
        await peer.close()


async def test_tls_may_be_required(files: dict[str, Path]) -> None:
    async with serving(**tls(files, tls_required="tcp-https")) as daemon:
        peer = await Peer.to(daemon, pub("t", b"x"))
        assert await peer.answer() == b"E_INVALID cannot PUB in current state (TLS required)"
        assert await peer.hung_up()
        await peer.close()
        peer = await Peer.to(daemon, identify(tls_v1=True))
        await peer.answer()
        await peer.start_tls(trusting(files))
        assert await peer.answer() == b"OK"
        await works(peer)
        await peer.close()


@pytest.mark.parametrize("certificate", [True, False])
async def test_clients_may_need_a_certificate(
    files: dict[str, Path], certificate: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "qtools.broker")
    options = tls(
        files, tls_required="true", tls_client_auth_policy="require-verify", tls_root_ca_file=str(files["ca"])
    )
    async with serving(**options) as daemon:
        peer = await Peer.to(daemon, identify(tls_v1=True))
        await peer.answer()
        if certificate:
            await peer.start_tls(trusting(files, certificate=True))
            assert await peer.answer() == b"OK"
            (connection,) = daemon._tcp_server.connections  # type: ignore[union-attr]
            secured = connection.transport.tls
            assert secured is not None
            assert secured.common_name == "a client"
            assert secured.terms[0].startswith("TLSv1")
            await works(peer)
        else:
            with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):  # noqa: PT012 - either may find it out
                await peer.start_tls(trusting(files))
                await peer.answer()
            await come_true(lambda: not daemon._tcp_server.connections)  # type: ignore[union-attr]
            assert not [line for line in caplog.messages if "internal error" in line]
            assert len([line for line in caplog.messages if "TLS" in line]) == 1
        await peer.close()


async def test_a_client_that_speaks_no_tls_where_it_asked_for_it_is_sent_away(
    files: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "qtools.broker")
    async with serving(**tls(files)) as daemon:
        peer = await Peer.to(daemon, identify(tls_v1=True))
        await peer.answer()
        peer.say(b"GET / HTTP/1.1\r\n\r\n" * 10)
        await come_true(lambda: not daemon._tcp_server.connections)  # type: ignore[union-attr]
        assert not [line for line in caplog.messages if "internal error" in line]
        await peer.close()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"tls_cert": "cert"}, "TLS needs both --tls-cert and --tls-key"),
        ({"tls_required": "true"}, "--tls-required needs a certificate"),
        ({"tls_cert": "missing", "tls_key": "key"}, "--tls-cert .*missing cannot be read: no such file"),
        ({"tls_cert": "ca", "tls_key": "key"}, "--tls-cert .*ca cannot be used"),
        ({"tls_cert": "cert", "tls_key": "key", "tls_root_ca_file": "key"}, "--tls-root-ca-file .*key cannot be used"),
    ],
)
async def test_bad_tls_files_are_told_in_one_line(files: dict[str, Path], options: dict[str, str], told: str) -> None:
    place = files["ca"].parent
    given = {name: value if name == "tls_required" else str(place / value) for name, value in options.items()}
    with pytest.raises((UsageError, StartError), match=told) as caught:
        async with serving(**given):
            pass
    assert "\n" not in str(caught.value)


# ── AUTH ────────────────────────────────────────────────────────────────────────────────────────────


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
        assert daemon._tcp_server is not None
        told = stats.collect(daemon.broker, daemon._tcp_server.connections)
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
        await come_true(lambda: not daemon._tcp_server.connections)  # type: ignore[union-attr]
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
        (connection,) = daemon._tcp_server.connections  # type: ignore[union-attr]
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


@pytest.mark.parametrize("packing", ["snappy", "deflate", "tls_v1"])
async def test_answers_that_are_owed_go_before_an_upgrade(files: dict[str, Path], packing: str) -> None:
    store = SlowStore()
    async with serving(store, **tls(files)) as daemon:
        peer = await Peer.to(daemon, pub("t", b"a") + identify(**{packing: True}))
        (commit,) = await come_true(lambda: store.turns)
        assert await peer.silent()
        commit.settle()
        assert await peer.alone() == b"OK"
        assert json.loads(await peer.alone())[packing] is True
        if packing == "snappy":
            use_snappy(peer)
        elif packing == "deflate":
            use_deflate(peer)
        else:
            await peer.start_tls(trusting(files))
        assert await peer.answer() == b"OK"
        peer.say(pub("t", b"b"))
        (_, commit) = await come_true(lambda: len(store.turns) == 2 and store.turns)
        commit.settle()
        assert await peer.answer() == b"OK"
        await peer.close()


async def test_what_is_no_handshake_behind_an_answer_that_was_owed_ends_one_connection(files: dict[str, Path]) -> None:
    store = SlowStore()
    async with serving(store, **tls(files)) as daemon:
        bad = await Peer.to(daemon, pub("t", b"a") + identify(tls_v1=True) + b"no handshake")
        (commit,) = await come_true(lambda: store.turns)
        good = await Peer.to(daemon, pub("t", b"b"))
        (_, later) = await come_true(lambda: len(store.turns) == 2 and store.turns)
        commit.settle()
        later.settle()
        assert await good.answer() == b"OK"
        assert await bad.alone() == b"OK"
        await come_true(lambda: len(daemon._tcp_server.connections) == 1)  # type: ignore[union-attr]
        await bad.close()
        await good.close()

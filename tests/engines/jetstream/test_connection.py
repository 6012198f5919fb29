"""Who the user is, TLS, several servers, and servers of another kind."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from harness.certificates import Certificates
from harness.nats import NatsServer
from harness.ports import free_pair

from qtools.engines.jetstream import connection as module
from qtools.engines.jetstream.credentials import NEEDS_LIBRARY, check_seed, parse_credentials, sign
from qtools.errors import AuthError, QtoolsError, StartError, UsageError
from tests.engines.jetstream.conftest import MakeNats
from tests.engines.jetstream.using import engine
from tests.engines.reading import bodies_of, drain, publish, publishing

# The example of NATS's documentation of nkeys.
SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
PUBLIC = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"
TOKEN = "the-token-of-the-tests"


async def fails(url: str, **options: str) -> QtoolsError:
    with pytest.raises(StartError) as caught:
        async with publishing(engine(url, **options)):
            pass
    assert "\n" not in str(caught.value)
    return caught.value


# ── users ──


async def test_a_token(make_nats: MakeNats, tmp_path: Path) -> None:
    server = make_nats([f"authorization {{ token: {TOKEN} }}"])
    await publish(engine(server.address, {"QTOOLS_NATS_PASSWORD": TOKEN}), "a", [b"1"])
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    assert bodies_of(await drain(engine(server.address, password_file=str(file)), "a")) == [b"1"]
    error = await fails(server.address)
    assert isinstance(error.__cause__, AuthError)
    assert str(error).startswith(f"{server.address}: ")


async def test_an_nkey(make_nats: MakeNats, tmp_path: Path) -> None:
    server = make_nats([f"authorization {{ users = [ {{ nkey: {PUBLIC} }} ] }}"])
    file = tmp_path / "user.nk"
    file.write_text(SEED)
    await publish(engine(server.address, nkey_file=str(file)), "a", [b"1"])
    assert "Authorization" in str(await fails(server.address))


def test_a_signature_is_of_the_public_key() -> None:
    public, signature = sign(SEED, "nonce")
    assert public == PUBLIC
    assert len(signature) == 86
    assert signature != sign(SEED, "another")[1]


@pytest.mark.parametrize("seed", ["", "SU", PUBLIC, SEED[:-1], SEED.lower(), SEED.replace("SU", "SA"), "ä" * 58])
def test_what_is_no_seed_of_a_user(seed: str) -> None:
    with pytest.raises(UsageError, match=r"^user\.nk holds ") as caught:
        check_seed(seed, "user.nk")
    assert len(seed) < 10 or seed not in str(caught.value)


def test_a_file_of_credentials() -> None:
    jwt = "eyJ0eXAiOiJKV1QifQ.eyJuYW1lIjoiYSJ9.c2ln"
    text = (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n********* IMPORTANT *********\n"
        f"-----BEGIN USER NKEY SEED-----\n{SEED}\n------END USER NKEY SEED------\n"
    )
    assert parse_credentials(text, "user.creds") == (jwt, SEED)
    for wrong in ("", text[:60], text.replace("USER NKEY SEED", "OTHER")):
        with pytest.raises(UsageError, match=r"user\.creds is no file of credentials") as caught:
            parse_credentials(wrong, "user.creds")
        assert SEED not in str(caught.value)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
    with pytest.raises(UsageError) as caught:
        sign(SEED, "nonce")
    assert str(caught.value) == NEEDS_LIBRARY


# ── TLS ──


@pytest.mark.parametrize("first", [False, True])
async def test_tls_before_and_after_info(make_nats: MakeNats, certificates: Certificates, first: bool) -> None:
    files = f'cert_file: "{certificates.server_cert}", key_file: "{certificates.server_key}"'
    server = make_nats([f"tls {{ {files}, handshake_first: {str(first).lower()} }}"])
    url = f"natss://{server.address}"
    made = engine(url, fields={"tls_ca": str(certificates.ca)}, tls_first=str(first).lower())
    await publish(made, "a", [b"x" * 500_000] * 3)
    assert len(await drain(made, "a")) == 3


async def test_a_client_certificate(make_nats: MakeNats, certificates: Certificates) -> None:
    files = f'cert_file: "{certificates.server_cert}", key_file: "{certificates.server_key}"'
    server = make_nats([f'tls {{ {files}, ca_file: "{certificates.ca}", verify: true }}'])
    url = f"natss://{server.address}"
    own = {"tls_cert": str(certificates.client_cert), "tls_key": str(certificates.client_key)}
    await publish(engine(url, fields={"tls_ca": str(certificates.ca), **own}), "a", [b"1"])
    with pytest.raises(StartError, match="certificate"):
        async with publishing(engine(url, fields={"tls_ca": str(certificates.ca)})):
            pass


# ── servers ──


async def test_the_first_server_that_answers_is_used(nats_server: NatsServer, topic: str) -> None:
    nothing = f"127.0.0.1:{free_pair()}"
    await publish(engine(f"nats://{nothing},{nats_server.address}"), topic, [b"1"])
    assert len(await drain(engine(f"nats://{nats_server.address},{nothing}"), topic)) == 1
    error = await fails(f"nats://{nothing},127.0.0.1:{free_pair()}")
    assert str(error).count("nothing listens there") == 2


async def test_jetstream_that_is_off(make_nats: MakeNats) -> None:
    server = make_nats()
    server.stop()
    server.command = lambda: [*NatsServer.command(server)[:1], "-a", "127.0.0.1", "-p", str(server.port)]  # type: ignore[method-assign]
    server.start()
    with pytest.raises(StartError, match="JetStream is not enabled on the server"):
        async with publishing(engine(server.address), topics=("a",)):
            pass


@asynccontextmanager
async def answering(first: bytes, greeting: bytes = b"") -> AsyncIterator[str]:
    """A server of another kind: it sends `greeting` at once, and `first` when it was sent something."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        if await reader.read(100):
            writer.write(first)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}"
    finally:
        server.close()


@pytest.mark.parametrize(
    ("first", "greeting", "text"),
    [
        (b"-NOAUTH Authentication required.\r\n", b"", "it speaks Redis's protocol, and not NATS's: use redis://"),
        (b"+PONG\r\n", b"", "it speaks Redis's protocol, and not NATS's: use redis://"),
        (b"AMQP\x00\x00\x09\x01", b"", "amqp://"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", "HTTP"),
        (b"\x00\x00\x00\x16\x00\x00\x00\x01E_BAD_PROTOCOL", b"", "nsq://"),
        (b"", b"220 mail.example ESMTP\r\n", "its bytes are not NATS's protocol"),
        (b"", b"", "closed before the handshake ended|the broker closed the connection"),
    ],
)  # fmt: skip
async def test_a_server_of_another_kind_is_named(
    monkeypatch: pytest.MonkeyPatch, first: bytes, greeting: bytes, text: str
) -> None:
    monkeypatch.setattr(module, "PROBE_AFTER", 0.05)
    async with answering(first, greeting) as address:
        with pytest.raises(StartError, match=text) as caught:
            async with publishing(engine(address)):
                pass
        assert str(caught.value).startswith(address)


async def test_a_server_that_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        error = await fails(f"127.0.0.1:{port}", connect_timeout="300ms")
        assert str(error) == f"127.0.0.1:{port}: no NATS handshake within 0.3 s"

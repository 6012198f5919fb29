"""A connection is opened within a time, or the reason is one line that names the place."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest
from harness.certificates import Certificates
from harness.ports import free_pair

from qtools.engines.connections.open_connection import PeerAddress, open_connection
from qtools.engines.connections.stream_connection import StreamConnection
from qtools.engines.connections.tls import TlsFiles, make_tls_context
from qtools.errors import ConnectFailed, StartError


class Greeted(StreamConnection[bytes]):
    """A connection whose handshake is over with the first bytes of the peer."""

    @property
    def address(self) -> str:
        return "the peer"

    def data_received(self, data: bytes) -> None:
        if not self._established.done():
            self._established.set_result(data)

    def _take_output(self) -> bytes:
        return b""


def peer(port: int, host: str = "127.0.0.1", path: str = "", hint: str = "") -> PeerAddress:
    return PeerAddress(f"{host}:{port}", "X", "xd", host, port, path, hint=hint)


async def opened(address: PeerAddress, tls: ssl.SSLContext | None = None) -> bytes:
    connection = await open_connection(address, Greeted, 0.5, tls)
    try:
        return await connection.wait_established()
    finally:
        connection.abort()


async def failure(address: PeerAddress, tls: ssl.SSLContext | None = None) -> ConnectFailed:
    with pytest.raises(ConnectFailed) as caught:
        await opened(address, tls)
    return caught.value


async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello")
    writer.close()


async def test_a_peer_that_greets(certificates: Certificates) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server_cert, certificates.server_key)
    own = make_tls_context(TlsFiles(ca=str(certificates.ca)))
    async with (
        await asyncio.start_server(greet, "127.0.0.1", 0) as plain,
        await asyncio.start_server(greet, "127.0.0.1", 0, ssl=context) as encrypted,
    ):
        plain_port, port = plain.sockets[0].getsockname()[1], encrypted.sockets[0].getsockname()[1]
        assert await opened(peer(plain_port)) == b"hello"
        assert await opened(peer(port), own) == b"hello"
        error = await failure(peer(plain_port), own)
        assert (error.reason, error.permanent) == (
            "it does not answer with TLS: its URL may need the scheme without TLS", True,
        )  # fmt: skip
        stranger = make_tls_context(TlsFiles(ca=str(certificates.stranger_ca)))
        error = await failure(peer(port), stranger)
        assert error.reason.startswith("its TLS certificate was not accepted: ")
        assert error.permanent
        assert await opened(peer(port), make_tls_context(TlsFiles(insecure=True))) == b"hello"


async def test_nothing_that_listens() -> None:
    port = free_pair()
    assert str(await failure(peer(port))) == f"127.0.0.1:{port}: nothing listens there; is xd running?"
    assert str(await failure(peer(port, hint="that is Y"))) == f"127.0.0.1:{port}: nothing listens there (that is Y)"


async def test_a_name_that_is_not_known() -> None:
    error = await failure(peer(1, "no.such.host.invalid"))
    assert "the host name 'no.such.host.invalid' is not known" in str(error)
    assert error.permanent


async def test_no_socket(tmp_path: Path) -> None:
    assert "there is no such socket; is xd running?" in str(await failure(peer(0, path=str(tmp_path / "none"))))


async def test_a_peer_that_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert str(await failure(peer(port))) == f"127.0.0.1:{port}: no X handshake within 0.5 s"


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.pem")
    with pytest.raises(StartError, match=f"cannot use the CA file {missing}: "):
        make_tls_context(TlsFiles(ca=missing))
    with pytest.raises(StartError, match=f"cannot use the client certificate {missing}: "):
        make_tls_context(TlsFiles(cert=missing))

"""TLS, snappy and deflate, seen from clients that are built from other parts than the broker."""

from __future__ import annotations

import json
import logging
import ssl
import zlib
from pathlib import Path
from typing import Any

import cramjam
import pytest
import trustme

from qtools.errors import StartError, UsageError

from ..inside import Peer, come_true, identify, mpub, pub, serving
from .slow_store import SlowStore


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
            (connection,) = daemon.tcp_server.connections  # type: ignore[union-attr]
            secured = connection.transport.tls
            assert secured is not None
            assert secured.common_name == "a client"
            assert secured.terms[0].startswith("TLSv1")
            await works(peer)
        else:
            with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):  # noqa: PT012 - either may find it out
                await peer.start_tls(trusting(files))
                await peer.answer()
            await come_true(lambda: not daemon.tcp_server.connections)  # type: ignore[union-attr]
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
        await come_true(lambda: not daemon.tcp_server.connections)  # type: ignore[union-attr]
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


# ── AUTH ──────────────────────────────────────────────────────────────────────────────────────────


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
        await come_true(lambda: len(daemon.tcp_server.connections) == 1)  # type: ignore[union-attr]
        await bad.close()
        await good.close()

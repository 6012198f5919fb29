"""HTTPS: nsqd's HTTP API with TLS, and what becomes of plain HTTP where TLS is required."""

from __future__ import annotations

import asyncio
import ssl
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from harness.brokers import Broker
from harness.certificates import Certificates

from qtools.broker.daemon import Daemon

from ..inside import come_true, serving
from ..running import running

BOTH = {"http_address": "127.0.0.1:0", "https_address": "127.0.0.1:0"}


def trusting(certificates: Certificates, *, identified: bool = False) -> ssl.SSLContext:
    """A client's side."""
    context = ssl.create_default_context(cafile=str(certificates.ca))
    if identified:
        context.load_cert_chain(certificates.client_cert, certificates.client_key)
    return context


@asynccontextmanager
async def secured(certificates: Certificates, **options: Any) -> AsyncIterator[tuple[Daemon, httpx.AsyncClient]]:
    files = {"tls_cert": str(certificates.server_cert), "tls_key": str(certificates.server_key)}
    async with (
        serving(**(BOTH | files | options)) as daemon,
        httpx.AsyncClient(base_url=f"https://{daemon.https_address}", verify=trusting(certificates)) as client,
    ):
        yield daemon, client


async def test_the_api_is_served_with_tls(certificates: Certificates) -> None:
    async with secured(certificates) as (daemon, client):
        assert (await client.get("/ping")).text == "OK"
        assert (await client.post("/pub", params={"topic": "t"}, content=b"x" * 300_000)).text == "OK"
        assert daemon.broker.topics["t"].bytes == 300_000
        assert (await client.get("/stats", params={"format": "json"})).json()["topics"][0]["depth"] == 1
        async with httpx.AsyncClient(base_url=f"http://{daemon.http_address}") as plain:
            assert (await plain.get("/ping")).text == "OK"


async def test_plain_http_is_refused_where_tls_is_required(certificates: Certificates) -> None:
    async with secured(certificates, tls_required="true") as (daemon, client):
        async with httpx.AsyncClient(base_url=f"http://{daemon.http_address}") as plain:
            for path in ("/ping", "/stats", "/pub?topic=t", "/nothing"):
                reply = await plain.post(path, content=b"x") if "pub" in path else await plain.get(path)
                port = int(daemon.https_address.rpartition(":")[2])
                assert (reply.status_code, reply.text) == (403, f'{{"message": "TLS_REQUIRED", "https_port": {port}}}')
                assert reply.headers["content-type"] == "application/json; charset=utf-8"
        assert daemon.broker.topics == {}
        assert (await client.get("/ping")).text == "OK"


async def test_tcp_https_leaves_plain_http_open(certificates: Certificates) -> None:
    async with secured(certificates, tls_required="tcp-https") as (daemon, client):
        assert (await client.get("/ping")).text == "OK"
        async with httpx.AsyncClient(base_url=f"http://{daemon.http_address}") as plain:
            assert (await plain.get("/ping")).text == "OK"


async def test_clients_need_a_certificate_where_the_policy_says_so(certificates: Certificates) -> None:
    policy = {"tls_client_auth_policy": "require-verify", "tls_root_ca_file": str(certificates.ca)}
    async with secured(certificates, **policy) as (daemon, client):
        with pytest.raises(httpx.TransportError):
            await client.get("/ping")
        url = f"https://{daemon.https_address}"
        async with httpx.AsyncClient(base_url=url, verify=trusting(certificates, identified=True)) as known:
            assert (await known.get("/ping")).text == "OK"


async def test_without_a_certificate_there_is_no_https() -> None:
    async with serving(**BOTH) as daemon:
        assert daemon.http_address
        assert daemon.https_address == ""


async def test_https_alone(certificates: Certificates) -> None:
    async with secured(certificates, http_address=None) as (daemon, client):
        assert (await client.get("/ping")).text == "OK"
        assert (await client.get("/info")).json()["http_port"] == -1
        assert daemon.http_address == ""


@pytest.mark.parametrize(
    ("least", "most", "works"),
    [
        ("tls1.3", ssl.TLSVersion.TLSv1_2, False),
        ("tls1.3", ssl.TLSVersion.TLSv1_3, True),
        ("tls1.2", ssl.TLSVersion.TLSv1_2, True),
        ("tls1.2", ssl.TLSVersion.TLSv1_1, False),
        ("tls1.1", ssl.TLSVersion.TLSv1_1, True),
        ("tls1.0", ssl.TLSVersion.TLSv1, True),
        ("ssl3.0", ssl.TLSVersion.TLSv1, True),
    ],
)
async def test_the_oldest_version_is_chosen(
    certificates: Certificates, least: str, most: ssl.TLSVersion, works: bool
) -> None:
    context = trusting(certificates)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version, context.maximum_version = min(most, ssl.TLSVersion.TLSv1_2), most
    if most < ssl.TLSVersion.TLSv1_2:
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
    async with secured(certificates, tls_min_version=least) as (daemon, _):
        host, _, port = daemon.https_address.rpartition(":")
        try:
            _, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname="localhost")
        except (ssl.SSLError, ConnectionError):
            assert not works
            return
        assert works
        writer.close()
        await writer.wait_closed()


def test_what_is_no_handshake_ends_one_connection_without_a_word(certificates: Certificates) -> None:
    with running(*certificates.server_flags) as broker:
        host, port = broker.address("HTTPS")

        async def abuse() -> None:
            for said in (b"GET /ping HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00" + b"\xff" * 512, b"", b"\x00" * 70_000):
                _, writer = await asyncio.open_connection(host, port)
                writer.write(said)
                writer.close()
                await come_true(lambda writer=writer: writer.is_closing())
            async with httpx.AsyncClient(verify=trusting(certificates)) as client:
                assert (await client.get(f"https://{host}:{port}/ping")).text == "OK"

        asyncio.run(abuse())
        assert broker.stop() == 0
        assert not [line for line in broker.log if "error" in line.lower() or "Traceback" in line], broker.log


def test_plain_http_is_refused_as_by_nsqd(make_broker: Callable[..., Broker], certificates: Certificates) -> None:
    broker = make_broker(*certificates.server_flags, "--tls-required=true")
    answer = b'{"message": "TLS_REQUIRED", "https_port": %d}' % broker.https_port
    assert broker.ask("GET", "/stats") == (403, answer)
    assert broker.ask("POST", "/pub?topic=t", b"x") == (403, answer)

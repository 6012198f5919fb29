"""TLS and passwords: what is right works, what is wrong is one line that names the place and never the secret."""

from __future__ import annotations

from typing import Any

import pytest
from harness.certificates import Certificates

from qtools.engines.connection_options import ConnectionFlags
from qtools.engines.contract import Engine
from qtools.errors import QtoolsError, StartError
from tests.engines.clusters.cluster import Cluster
from tests.engines.reading import bodies_of, drain, publish, publishing, reading


async def start_fails(engine: Engine, topic: str, what: str) -> None:
    """Neither a publisher nor a source starts, each with one line that has `what`."""
    with pytest.raises(QtoolsError, match=what) as caught:
        async with publishing(engine):
            pass
    check(caught.value)
    with pytest.raises(QtoolsError, match=what) as caught:
        async with reading(engine, topic):
            pass
    check(caught.value)


def check(error: QtoolsError) -> None:
    assert isinstance(error, StartError)
    assert "\n" not in str(error)
    assert "127.0.0.1" in str(error)


async def test_the_right_ca_and_the_right_password(secured: Cluster, topic: str) -> None:
    await secured.make_topic(topic, "own")
    await publish(secured.engine(), topic, [b"a", b"b"])
    assert sorted(bodies_of(await drain(secured.engine(), topic))) == [b"a", b"b"]


async def test_a_ca_that_did_not_sign(secured: Cluster, topic: str, certificates: Certificates) -> None:
    await start_fails(secured.engine(settings(tls_ca=str(certificates.stranger_ca))), topic, "certificate")


async def test_a_certificate_that_is_not_checked(secured: Cluster, topic: str, certificates: Certificates) -> None:
    engine = secured.engine(settings(tls_ca=str(certificates.stranger_ca), tls_insecure=True))
    await secured.make_topic(topic, "own")
    await publish(engine, topic, [b"a"])


async def test_a_wrong_password(secured: Cluster, topic: str) -> None:
    with pytest.raises(QtoolsError) as caught:
        await publish(secured.engine(environ=secured.wrong_environ), topic, [b"a"])
    check(caught.value)
    for secret in (*secured.wrong_environ.values(), *secured.environ.values()):
        assert secret not in str(caught.value).replace("archivist", "")
    await start_fails(secured.engine(environ=secured.wrong_environ), topic, "(?i)auth")


async def test_no_password(secured: Cluster, topic: str) -> None:
    await start_fails(secured.engine(environ={}), topic, "(?i)auth|password")


async def test_no_tls_where_the_server_wants_it(secured: Cluster, topic: str) -> None:
    await start_fails(secured.engine(settings(tls=None, tls_ca=None), url=secured.plain_url), topic, "TLS")


async def test_tls_on_a_plain_port(server: Cluster, topic: str) -> None:
    await start_fails(server.engine(url=server.tls_url), topic, "TLS")


def settings(**fields: Any) -> ConnectionFlags:
    return ConnectionFlags(fields, {})

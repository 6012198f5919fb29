"""How a connection begins: the handshake with a peer on a real socket, and every way in which it fails."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qtools.engines.nsq.address import Address
from qtools.engines.nsq.connect import connect
from qtools.engines.nsq.protocol.client_commands import (
    Auth,
    Command,
    Identify,
)
from qtools.errors import (
    AuthError,
    BrokerError,
    ConnectFailed,
    ConnectionLost,
    ProtocolError,
    QtoolsError,
    SizeError,
    UpgradeRefused,
)
from tests.engines.nsq.connecting import refusing
from tests.engines.nsq.scripted import Caller, Scripted, settings, until

pytestmark = pytest.mark.usefixtures("tidy")


async def test_it_says_who_it_is_and_goes_by_the_answer() -> None:
    async with Scripted() as peer:
        peer.agreed.max_rdy_count = 77
        connection = await connect(peer.address, settings(client_id="me", msg_timeout=5000))
        assert connection.is_open
        assert (connection.agreed.max_rdy_count, connection.agreed.msg_timeout) == (77, 5000)
        told = peer.caller.identified
        assert (told["client_id"], told["heartbeat_interval"], told["feature_negotiation"]) == ("me", 15_000, True)
        assert told["user_agent"].startswith("q-test/")
        await connection.close()


async def test_a_secret_is_sent_where_one_is_asked_for() -> None:
    async with Scripted() as peer:
        peer.agreed.auth_required = True
        connection = await connect(peer.address, settings(secret=b"s3cret"))
        assert peer.caller.all(Auth) == [Auth(b"s3cret")]
        await connection.close()


async def test_it_speaks_through_a_unix_socket(tmp_path: Path) -> None:
    peer = Scripted()
    path = str(tmp_path / "broker.sock")
    server = await asyncio.get_running_loop().create_unix_server(lambda: Caller(peer), path)
    connection = await connect(Address(path=path), settings())
    assert connection.address == f"unix:{path}"
    await connection.close()
    server.close()


def raw(data: bytes, *, close: bool = True) -> Callable[[Caller], None]:
    def greet(caller: Caller) -> None:
        caller.transport.write(data)
        if close:
            caller.transport.close()

    return greet


@pytest.mark.parametrize(
    ("peer", "some", "kind", "told"),
    [
        (Scripted(greet=lambda caller: caller.transport.close()), {}, ConnectionLost,
         "{}: "),
        (Scripted(greet=raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")), {}, ProtocolError,
         "{} answers HTTP: give nsqd's TCP port, usually 4150"),
        (Scripted(greet=raw(b"SSH-2.0-OpenSSH_9.6\r\n")), {}, ProtocolError, "{} does not speak NSQ: "),
        (Scripted(refusing("E_BAD_BODY")), {}, SizeError,
         "{}: the broker refused IDENTIFY: E_BAD_BODY in the broker's words"),
        (Scripted(refusing("E_IDENTIFY_FAILED")), {}, BrokerError, "{}: the broker refused IDENTIFY: "),
        (Scripted(), {"snappy": True}, UpgradeRefused, "{}: the broker does not offer snappy, which was asked for: "),
        (Scripted(), {"tls": True}, UpgradeRefused, "{}: the broker does not offer TLS, which was asked for: "),
    ],
)  # fmt: skip
async def test_a_handshake_that_fails_says_who_answered_what(
    peer: Scripted, some: dict[str, Any], kind: type[QtoolsError], told: str
) -> None:
    async with peer:
        with pytest.raises(kind) as caught:
            await connect(peer.address, settings(**some))
        assert str(caught.value).startswith(told.format(peer.address))
        assert "\n" not in str(caught.value)


async def test_a_broker_too_old_to_negotiate_is_taken_with_nsqd_s_defaults() -> None:
    def script(caller: Caller, command: Command) -> bool:
        caller.say(b"OK")
        return True

    async with Scripted(script) as peer:
        connection = await connect(peer.address, settings())
        assert (connection.agreed.max_rdy_count, connection.agreed.msg_timeout) == (2500, 60_000)
        connection.abort()
        await connection.lost


async def test_a_secret_that_is_missing_or_refused_is_told() -> None:
    async with Scripted() as peer:
        peer.agreed.auth_required = True
        with pytest.raises(AuthError, match="it requires a secret: give --auth-secret-file"):
            await connect(peer.address, settings())
        peer.script = refusing("E_AUTH_FAILED", Auth)
        with pytest.raises(AuthError, match=f"{peer.address}: the broker refused AUTH: E_AUTH_FAILED"):
            await connect(peer.address, settings(secret=b"wrong"))


async def test_a_peer_that_says_nothing_is_given_up() -> None:
    async with Scripted(lambda caller, command: True) as peer:
        with pytest.raises(ConnectFailed, match=f"{peer.address}: no NSQ handshake within 0.1 s"):
            await connect(peer.address, settings(connect_timeout=0.1))
        await until(lambda: peer.caller.lost.done())


async def test_tls_that_fails_is_hopeless(tmp_path: Path) -> None:
    def script(caller: Caller, command: Command) -> bool:
        if isinstance(command, Identify):
            caller.peer.agreed.tls_v1 = True
            caller.answer(command)
            caller.transport.write(b"this is no TLS record")
            return True
        return False

    async with Scripted(script) as peer:
        with pytest.raises(ConnectFailed, match=str(peer.address)) as caught:
            await connect(peer.address, settings(tls=True))
        assert caught.value.permanent
        assert isinstance(settings(tls=True).tls_context(), ssl.SSLContext)


@pytest.mark.parametrize(
    ("address", "told", "permanent"),
    [
        (Address("127.0.0.1", 1), "127.0.0.1:1: nothing listens there; is nsqd running?", False),
        (Address("localhost", 1), "localhost:1: nothing listens there; is nsqd running?", False),
        (Address(path="/nonexistent/x"), "unix:/nonexistent/x: there is no such socket; is q-broker running?", False),
        (Address("a..b", 1), "a..b:1: the host name 'a..b' is not known", True),
        (Address("x" * 70, 1), "the host name '" + "x" * 70 + "' is not known", True),
    ],
)
async def test_where_nobody_is_that_is_told(address: Address, told: str, permanent: bool) -> None:
    with pytest.raises(ConnectFailed) as caught:
        await connect(address, settings())
    assert told in str(caught.value)
    assert caught.value.permanent == permanent


async def test_giving_up_a_connection_in_the_making_leaves_nothing_behind() -> None:
    async with Scripted(lambda caller, command: True) as peer:
        connecting = asyncio.create_task(connect(peer.address, settings()))
        await until(lambda: peer.callers and peer.caller.heard)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        await until(lambda: peer.caller.lost.done())

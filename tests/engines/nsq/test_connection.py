"""One socket driving one session, against a peer on a real socket."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from qtools.engines.nsq import connection as module
from qtools.engines.nsq.address import Address
from qtools.engines.nsq.connect import connect
from qtools.engines.nsq.connection import Connection
from qtools.engines.nsq.in_flight import Delivery
from qtools.engines.nsq.protocol import commands
from qtools.engines.nsq.protocol.client_commands import (
    Auth,
    Close,
    Command,
    Finish,
    Identify,
    Nop,
    Publish,
    Ready,
    Requeue,
    Sub,
    Touch,
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
from qtools.message import Batch, Messages
from tests.engines.nsq.scripted import Caller, Scripted, settings, until

pytestmark = pytest.mark.usefixtures("tidy")


class Owner:
    """Keeps what it is handed."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.sizes: list[int] = []
        self.finished: list[int] = []

    def on_messages(self, connection: Connection, delivery: Delivery, messages: Messages, size: int) -> None:
        self.batches.append(Batch.of(delivery, messages))
        self.sizes.append(size)

    def on_finish(self, count: int) -> None:
        self.finished.append(count)


@asynccontextmanager
async def subscribed(
    peer: Scripted, *, ready: int = 100, **some: Any
) -> AsyncIterator[tuple[Connection, Owner, Caller]]:
    """A connection that reads, its owner, and the peer's end of it."""
    connection = await connect(peer.address, settings(**some))
    owner = connection.owner = Owner()
    connection.ledger.on_finish = owner.on_finish
    try:
        await connection.subscribe("events", "archive")
        if ready:
            connection.ready(ready)
            await until(lambda: peer.caller.ready == ready)
        yield connection, owner, peer.caller
    finally:
        connection.abort()
        await connection.lost


class Spy:
    """A transport that counts what is written to it."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def spy_on(connection: Connection) -> Spy:
    assert connection._transport is not None
    spy = Spy(connection._transport)
    connection._transport = spy  # type: ignore[assignment]
    return spy


# ── the handshake ───────────────────────────────────────────────────────────────────────────────


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


def refusing(code: str, to: type[Any] = Identify) -> Callable[[Caller, Command], bool]:
    def script(caller: Caller, command: Command) -> bool:
        if isinstance(command, to):
            caller.refuse(code, "in the broker's words")
            return True
        return False

    return script


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


# ── messages ────────────────────────────────────────────────────────────────────────────────────


async def test_what_comes_in_one_read_is_one_batch_and_its_acknowledgement_one_write() -> None:
    async with Scripted() as peer, subscribed(peer) as (connection, owner, caller):
        ids = caller.deliver(*(b"body %d" % n for n in range(50)))
        await until(lambda: owner.batches)
        (batch,) = owner.batches
        assert batch.bodies == [b"body %d" % n for n in range(50)]
        (origin, _, _) = batch.parts[0]
        assert (origin.topic, origin.address) == ("events", str(peer.address))
        assert connection.in_flight == 50
        spy = spy_on(connection)
        batch.finish()
        assert connection.in_flight == 0
        await until(lambda: caller.finished == ids)
        assert spy.writes == [commands.fin(ids)]
        assert owner.finished == [50]


async def test_what_leaves_in_one_turn_leaves_in_one_write() -> None:
    async with Scripted() as peer, subscribed(peer) as (connection, owner, caller):
        caller.deliver(b"a", b"b", b"c")
        await until(lambda: owner.batches)
        spy = spy_on(connection)
        first, rest = owner.batches[0].split(1)
        first.finish()
        rest.requeue(1500)
        connection.ready(7)
        done = connection.publish(commands.pub("other", b"x")).done
        await done
        assert len(spy.writes) == 1
        assert [type(command) for command in caller.heard[-5:]] == [Finish, Requeue, Requeue, Ready, Publish]
        assert {command.delay_ms for command in caller.all(Requeue)} == {1500}


async def test_a_heartbeat_is_answered_with_what_leaves_anyway() -> None:
    async with Scripted() as peer, subscribed(peer) as (connection, owner, caller):
        owner_finishes = owner.on_messages

        def finish_at_once(connection: Connection, delivery: Delivery, messages: Messages, size: int) -> None:
            owner_finishes(connection, delivery, messages, size)
            owner.batches[-1].finish()

        owner.on_messages = finish_at_once  # type: ignore[method-assign]
        spy = spy_on(connection)
        caller.beat()
        ids = caller.deliver(b"a")
        await until(lambda: caller.finished == ids and caller.all(Nop))
        assert len(spy.writes) <= 2  # two only if the socket was read between the two


async def test_a_heartbeat_is_answered_while_nobody_reads() -> None:
    async with Scripted() as peer, subscribed(peer) as (_, _, caller):
        caller.deliver(b"held")
        for nth in range(1, 4):
            caller.beat()
            await until(lambda: len(caller.all(Nop)) == nth)  # noqa: B023


async def test_a_ready_count_is_sent_only_when_it_changes() -> None:
    async with Scripted() as peer, subscribed(peer, ready=5) as (connection, _, caller):
        for count in (5, 5, 6, 6, 5):
            connection.ready(count)
        await connection.publish(commands.pub("other", b"x")).done
        assert caller.ready_counts == [5, 6, 5]


async def test_what_is_finished_twice_or_given_back_after_is_told_once() -> None:
    async with Scripted() as peer, subscribed(peer) as (connection, owner, caller):
        a, b, c = caller.deliver(b"a", b"b", b"c")
        await until(lambda: owner.batches)
        whole = owner.batches[0]
        whole.pick([1]).finish()
        whole.pick([1]).requeue()
        whole.finish()
        whole.touch()
        whole.requeue()
        whole.finish()
        await connection.publish(commands.pub("other", b"x")).done
        assert caller.finished[:1] == [b]
        assert sorted(caller.finished[1:]) == [a, c]
        assert not caller.all(Requeue)
        assert not caller.all(Touch)


async def test_a_batch_of_a_lost_connection_can_be_finished_and_nothing_happens() -> None:
    async with Scripted() as peer, subscribed(peer) as (connection, owner, caller):
        caller.deliver(b"a", b"b")
        await until(lambda: owner.batches)
        caller.cut()
        error = await connection.lost
        assert isinstance(error, ConnectionLost)
        assert (connection.is_open, connection.in_flight) == (False, 0)
        owner.batches[0].finish()
        owner.batches[0].requeue()
        owner.batches[0].touch()


async def test_it_is_one_line_that_says_what_it_does() -> None:
    async with Scripted() as peer, subscribed(peer, ready=9) as (connection, owner, caller):
        caller.deliver(b"a")
        await until(lambda: owner.batches)
        assert repr(connection) == f"<Connection {peer.address} events/archive in_flight=1/9>"
        assert repr(owner.batches[0]) == f"<Batch 1 messages: 1 from {connection!r}>"


async def test_an_acknowledgement_that_came_too_late_is_counted_and_no_end() -> None:
    async with Scripted() as peer, subscribed(peer) as (connection, _, caller):
        caller.refuse("E_FIN_FAILED", "FIN 0123456789abcdef failed ID not in flight")
        caller.refuse("E_TOUCH_FAILED", "TOUCH 0123456789abcdef failed ID not in flight")
        caller.refuse("E_REQ_FAILED", "REQ 0123456789abcdef failed ID not in flight")
        caller.refuse("E_FIN_FAILED", "FIN 0123456789abcdef failed ID not in flight")
        await connection.publish(commands.pub("other", b"x")).done
        assert connection.acknowledgements_failed == 2
        assert connection.is_open


# ── time ────────────────────────────────────────────────────────────────────────────────────────


async def test_what_is_held_longer_than_half_of_msg_timeout_is_touched_and_what_is_finished_is_not() -> None:
    async with Scripted() as peer, subscribed(peer, msg_timeout=1000) as (connection, owner, caller):
        clock = asyncio.get_running_loop().time
        begun = clock()
        kept, gone = caller.deliver(b"kept", b"gone")
        await until(lambda: owner.batches)
        owner.batches[0].pick([1]).finish()
        await until(lambda: caller.all(Touch))
        assert 0.45 < clock() - begun < 0.8
        await until(lambda: len(caller.all(Touch)) == 2)
        assert 0.95 < clock() - begun < 1.5
        assert {command.ident for command in caller.all(Touch)} == {kept}
        assert caller.finished == [gone]
        assert connection.is_open


async def test_each_read_is_touched_in_its_own_time() -> None:
    async with Scripted() as peer, subscribed(peer, msg_timeout=1000) as (_, owner, caller):
        (first,) = caller.deliver(b"a")
        await until(lambda: caller.all(Touch))
        (second,) = caller.deliver(b"b")
        await until(lambda: len(owner.batches) == 2)
        owner.batches[0].finish()
        await until(lambda: len(caller.all(Touch)) == 2)
        assert [command.ident for command in caller.all(Touch)] == [first, second]


async def test_a_peer_that_is_silent_for_long_is_given_up() -> None:
    async with Scripted() as peer:
        connection = await connect(peer.address, settings(heartbeat_interval=100))
        begun = asyncio.get_running_loop().time()
        async with asyncio.timeout(5):
            error = await connection.lost
        assert 0.2 < asyncio.get_running_loop().time() - begun < 1.0
        assert isinstance(error, ConnectionLost)
        assert str(error).startswith(f"{peer.address}: silent for ")


async def test_a_peer_that_beats_is_not_given_up() -> None:
    async with Scripted() as peer, subscribed(peer, heartbeat_interval=100) as (connection, _, caller):
        for _ in range(12):
            caller.beat()
            await asyncio.sleep(0.05)  # in all more than twice as long as a silent one is given
        assert connection.is_open
        assert len(caller.all(Nop)) == 12


# ── publishing ──────────────────────────────────────────────────────────────────────────────────


async def test_answers_belong_to_their_publishes_in_order() -> None:
    async with Scripted(lambda caller, command: isinstance(command, Publish)) as peer:
        connection = await connect(peer.address, settings())
        first = connection.publish(commands.pub("events", b"a"))
        second = connection.publish(commands.dpub("events", b"b", 5) + commands.dpub("events", b"c", 5), 2)
        await until(lambda: len(peer.caller.all(Publish)) == 3)
        assert connection.unanswered == 3
        peer.caller.say(b"OK")
        await first.done
        assert (second.left, second.done.done()) == (2, False)
        peer.caller.say(b"OK")
        await until(lambda: second.left == 1)
        peer.caller.say(b"OK")
        await second.done
        assert connection.unanswered == 0
        await connection.close()


async def test_what_is_not_answered_when_the_connection_is_lost_fails() -> None:
    async with Scripted(lambda caller, command: isinstance(command, Publish)) as peer:
        connection = await connect(peer.address, settings())
        all_answers = [connection.publish(commands.dpub("events", b"x", 1) * 2, 2) for _ in range(2)]
        await until(lambda: len(peer.caller.all(Publish)) == 4)
        peer.caller.say(b"OK")
        peer.caller.transport.close()
        for answers, left in zip(all_answers, (1, 2), strict=True):
            with pytest.raises(ConnectionLost, match=f"{peer.address}: the broker closed the connection"):
                await answers.done
            assert answers.left == left
        with pytest.raises(ConnectionLost, match="the connection is closed"):
            await connection.publish(commands.pub("events", b"y")).done
        with pytest.raises(ConnectionLost, match="the connection is closed"):
            async with asyncio.timeout(5):
                await connection.subscribe("events", "archive")


async def test_a_refused_publish_has_the_broker_s_reason_and_those_behind_it_are_lost() -> None:
    async with Scripted(lambda caller, command: isinstance(command, Publish)) as peer:
        connection = await connect(peer.address, settings())
        ok, bad, behind = (connection.publish(commands.pub("events", body)) for body in (b"a", b"b", b"c"))
        await until(lambda: sum(p.answers for p in peer.caller.all(Publish)) == 3)
        peer.caller.say(b"OK")
        peer.caller.refuse("E_BAD_MESSAGE", "PUB message too big 7 > 5")
        await ok.done
        with pytest.raises(SizeError, match="E_BAD_MESSAGE PUB message too big 7 > 5"):
            await bad.done
        with pytest.raises(ConnectionLost):
            await behind.done
        assert str(await connection.lost) == f"{peer.address}: closed after E_BAD_MESSAGE"


async def test_an_error_that_answers_nothing_ends_the_connection_with_it() -> None:
    async with Scripted() as peer, subscribed(peer) as (connection, _, caller):
        caller.refuse("E_INVALID", "RDY count 9999 out of range")
        error = await connection.lost
        assert isinstance(error, BrokerError)
        assert "E_INVALID RDY count 9999 out of range" in str(error)


async def test_garbage_in_the_middle_ends_the_connection_with_a_sentence() -> None:
    async with Scripted() as peer, subscribed(peer) as (connection, _, caller):
        caller.transport.write(b"\xff" * 40)
        error = await connection.lost
        assert isinstance(error, ProtocolError)
        assert str(error).startswith(f"{peer.address} does not speak NSQ: ")


async def test_a_subscription_that_is_refused_says_why() -> None:
    async with Scripted(refusing("E_UNAUTHORIZED", Sub)) as peer:
        connection = await connect(peer.address, settings())
        with pytest.raises(AuthError, match="E_UNAUTHORIZED"):
            await connection.subscribe("events", "archive")
        await connection.lost


async def test_a_stalled_broker_stops_the_publisher() -> None:
    async with Scripted(lambda caller, command: isinstance(command, Publish)) as peer:
        connection = await connect(peer.address, settings())
        peer.caller.transport.pause_reading()
        body = b"x" * 1_000_000
        for _ in range(100):
            connection.publish(commands.pub("events", body))
            await asyncio.sleep(0)
            if not connection.is_writable:
                break
        assert not connection.is_writable
        writable = asyncio.Event()
        connection.on_writable = writable.set
        peer.caller.transport.resume_reading()
        async with asyncio.timeout(5):
            await writable.wait()
        assert connection.is_writable
        connection.abort()
        await connection.lost


# ── the end ─────────────────────────────────────────────────────────────────────────────────────


async def test_a_close_gives_back_what_is_held_and_waits_until_the_broker_has_read_it() -> None:
    async with Scripted() as peer, subscribed(peer) as (connection, owner, caller):
        a, b, c = caller.deliver(b"a", b"b", b"c")
        await until(lambda: owner.batches)
        owner.batches[0].pick([1]).finish()
        await connection.close()
        assert [type(command) for command in caller.heard[-4:]] == [Finish, Close, Requeue, Requeue]
        assert {command.ident for command in caller.all(Requeue)} == {a, c}
        assert caller.finished == [b]
        assert caller.ended
        assert connection.lost.result() is None
        await connection.close()  # again: nothing happens


async def test_messages_that_come_after_the_goodbye_are_given_back() -> None:
    def script(caller: Caller, command: Command) -> bool:
        if isinstance(command, Close):
            caller.deliver(b"late")
        return False

    async with Scripted(script) as peer, subscribed(peer) as (connection, _, caller):
        await connection.close()
        assert len(caller.all(Requeue)) == 1
        assert list(peer.queue) == [b"late"]


async def test_a_close_answers_heartbeats_until_the_broker_is_done() -> None:
    async with Scripted(lambda caller, command: isinstance(command, Close)) as peer, subscribed(peer) as held:
        connection, _, caller = held
        closing = asyncio.create_task(connection.close())
        await until(lambda: caller.all(Close))
        caller.beat()
        await until(lambda: caller.all(Nop))
        caller.say(b"CLOSE_WAIT")
        await closing
        assert caller.ended


async def test_a_heartbeat_after_the_last_word_is_not_answered() -> None:
    async with Scripted() as peer, subscribed(peer) as (connection, _, caller):
        stays = asyncio.Event()
        caller.eof_received = lambda: stays.set() or True  # type: ignore[method-assign, func-returns-value]
        closing = asyncio.create_task(connection.close())
        await stays.wait()
        caller.beat()
        caller.deliver(b"late")
        caller.transport.close()
        await closing
        assert not caller.all(Nop)


async def test_a_close_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINGER", 0.05)
    async with Scripted(lambda caller, command: isinstance(command, Close)) as peer, subscribed(peer) as held:
        connection, _, caller = held
        caller.eof_received = lambda: True  # type: ignore[method-assign]
        async with asyncio.timeout(2):
            await connection.close()
            await connection.lost


async def test_a_close_to_a_broker_that_reads_no_more_leaves_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINGER", 0.05)
    async with Scripted(lambda caller, command: isinstance(command, Publish)) as peer:
        connection = await connect(peer.address, settings())
        peer.caller.transport.pause_reading()
        answers = connection.publish(commands.pub("events", b"x" * 50_000_000))
        await connection.close()
        async with asyncio.timeout(2):
            await connection.lost
        with pytest.raises(ConnectionLost):
            await answers.done


async def test_publishes_under_way_are_answered_before_a_close_is_over() -> None:
    async with Scripted() as peer:
        connection = await connect(peer.address, settings())
        answers = [connection.publish(commands.pub("events", b"%d" % n)) for n in range(100)]
        await connection.close()
        assert all(each.done.done() and each.done.exception() is None for each in answers)
        assert len(peer.published) == 100


async def test_a_broker_that_answers_and_closes_at_once_is_lost_and_not_waited_for() -> None:
    def script(caller: Caller, command: Command) -> bool:
        if isinstance(command, Sub):
            caller.transport.close()
            return True
        return False

    async with Scripted(script) as peer:
        connection = await connect(peer.address, settings())
        with pytest.raises(ConnectionLost):
            async with asyncio.timeout(5):
                await connection.subscribe("events", "archive")
        assert isinstance(await connection.lost, ConnectionLost)

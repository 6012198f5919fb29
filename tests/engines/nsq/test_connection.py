"""One socket driving one session, against a peer on a real socket: messages, heartbeats, publishes."""

from __future__ import annotations

import asyncio

import pytest

from qtools.engines.connections.in_flight import Delivery
from qtools.engines.nsq.connect import connect
from qtools.engines.nsq.connection import Connection
from qtools.engines.nsq.protocol import commands
from qtools.engines.nsq.protocol.client_commands import (
    Finish,
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
    ConnectionLost,
    ProtocolError,
    SizeError,
)
from qtools.message import Messages
from tests.engines.nsq.connecting import refusing, spy_on, subscribed
from tests.engines.nsq.scripted import Scripted, settings, until

pytestmark = pytest.mark.usefixtures("tidy")


# ── messages ──────────────────────────────────────────────────────────────────────────────────────


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


# ── time ──────────────────────────────────────────────────────────────────────────────────────────


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


# ── publishing ────────────────────────────────────────────────────────────────────────────────────


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

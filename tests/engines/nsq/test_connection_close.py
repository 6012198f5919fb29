"""How a connection ends: what is given back, what is still answered, and how long it waits."""

from __future__ import annotations

import asyncio

import pytest

from qtools.engines.connections import stream_connection as module
from qtools.engines.nsq.connect import connect
from qtools.engines.nsq.protocol import commands
from qtools.engines.nsq.protocol.client_commands import (
    Close,
    Command,
    Finish,
    Nop,
    Publish,
    Requeue,
    Sub,
)
from qtools.errors import (
    ConnectionLost,
)
from tests.engines.nsq.connecting import subscribed
from tests.engines.nsq.scripted import Caller, Scripted, settings, until

pytestmark = pytest.mark.usefixtures("tidy")


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

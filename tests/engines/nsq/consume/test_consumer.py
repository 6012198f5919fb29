"""Many connections as one Source: unread bytes bounded, losses, everything given back at the end."""

from __future__ import annotations

import asyncio
import time

import pytest

from qtools.engines.nsq.address import Brokers
from qtools.engines.nsq.consume import consumer as module
from qtools.engines.nsq.consume.consumer import Consumer
from qtools.engines.nsq.protocol.client_commands import Close, Sub
from qtools.errors import StartError
from qtools.message import Batch
from qtools.names import Subscription
from tests.engines.nsq.consume.reading import EVENTS, bodies, read, read_all, reading
from tests.engines.nsq.scripted import Caller, Scripted, settings, until

pytestmark = pytest.mark.usefixtures("tidy")


async def test_what_has_come_is_counted_and_how_old_it_was() -> None:
    async with Scripted() as peer, reading(peer) as consumer:
        assert (consumer.lag, consumer.received, consumer.redelivered, consumer.connected) == (0.0, 0, 0, 1)
        peer.caller.deliver(*bodies(3))  # stamped at the beginning of time, on their first delivery
        await read_all(consumer, 3)
        assert (consumer.received, consumer.redelivered) == (3, 0)
        assert consumer.lag == pytest.approx(time.time(), abs=10)


# ── reading ───────────────────────────────────────────────────────────────────────────────────────


async def test_all_that_came_since_the_last_read_is_one_batch_that_knows_its_origins() -> None:
    async with Scripted() as one, Scripted() as two, reading(one, two) as consumer:
        one.caller.deliver(b"a", b"b")
        two.caller.deliver(b"c")
        await until(lambda: consumer.received == 3)
        batch = await read(consumer)
        assert batch is not None
        assert sorted(batch.bodies) == [b"a", b"b", b"c"]
        assert {origin.address for origin, _, _ in batch.parts} == {str(one.address), str(two.address)}
        assert consumer.in_flight == 3
        batch.finish()
        await until(lambda: (one.finished, two.finished) == (2, 1))
        assert consumer.in_flight == 0


async def test_what_one_connection_delivered_in_several_pieces_is_finished_by_one_call() -> None:
    async with Scripted() as peer, reading(peer) as consumer:
        ids = []
        for nth in range(4):
            ids += peer.caller.deliver(*bodies(2))
            await until(lambda: consumer.received == 2 * nth + 2)  # noqa: B023
        batch = await read(consumer)
        assert batch is not None
        assert [(start, stop) for _, start, stop in batch.parts] == [(0, 8)]
        batch.finish()
        await until(lambda: peer.caller.finished == ids)
        assert consumer.in_flight == 0


async def test_ready_counts_do_not_change_with_each_finish_while_a_limit_is_far_away() -> None:
    async with Scripted() as peer, reading(peer, max_in_flight=10, limit=30) as consumer:
        for nth in range(2):
            peer.caller.deliver(*bodies(10))
            for batch in await read_all(consumer, 10):
                batch.finish()
            await until(lambda: len(peer.caller.finished) == 10 * nth + 10)  # noqa: B023
        assert peer.caller.ready_counts == [10]
        peer.caller.deliver(*bodies(1))
        (last,) = await read_all(consumer, 1)
        last.finish()
        await until(lambda: peer.caller.finished[20:] and peer.caller.ready_counts[1:] == [9])


async def test_several_sources_are_read_each_on_a_connection_of_its_own() -> None:
    other = Subscription("other", "mine#ephemeral")
    async with Scripted() as peer, reading(peer, sources=[EVENTS, other]) as consumer:
        subs = sorted((sub.topic, sub.channel) for caller in peer.callers for sub in caller.all(Sub))
        assert subs == [("events", "archive"), ("other", "mine#ephemeral")]
        for caller in peer.callers:
            caller.deliver(b"x")
        batches = await read_all(consumer, 2)
        topics = {origin.topic for batch in batches for origin, _, _ in batch.parts}
        assert topics == {"events", "other"}


async def test_an_end_lets_what_has_come_be_read() -> None:
    async with Scripted() as peer, reading(peer) as consumer:
        peer.caller.deliver(b"a")
        await until(lambda: consumer.received == 1)
        consumer.end()
        assert await read(consumer) is not None
        assert await read(consumer) is None
        assert await read(consumer) is None


async def test_an_end_wakes_who_reads() -> None:
    async with Scripted() as peer, reading(peer) as consumer:
        waiting = asyncio.create_task(read(consumer))
        await asyncio.sleep(0)
        consumer.end()
        assert await waiting is None


async def test_a_read_that_is_cancelled_takes_nothing_with_it() -> None:
    async with Scripted() as peer, reading(peer) as consumer:
        for steps in range(6):
            waiting = asyncio.create_task(consumer.read())
            await asyncio.sleep(0)
            before = consumer.received
            peer.caller.deliver(b"x")
            await until(lambda: consumer.received > before)  # noqa: B023
            for _ in range(steps):
                await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait((waiting,))
            batch = await read(consumer) if waiting.cancelled() else waiting.result()
            assert batch is not None
            assert len(batch) == 1


# ── how much ──────────────────────────────────────────────────────────────────────────────────────


async def test_unread_bytes_are_bounded_and_the_flow_goes_on_when_they_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_UNREAD", 10_000)
    async with Scripted() as peer, reading(peer, max_in_flight=100) as consumer:
        await until(lambda: peer.caller.ready == 100)
        peer.caller.deliver(b"x" * 6000)
        peer.caller.deliver(b"x" * 6000)
        await until(lambda: peer.caller.ready == 0)
        batches = await read_all(consumer, 2)
        await until(lambda: peer.caller.ready == 100)
        assert peer.caller.ready_counts == [100, 0, 100]
        for batch in batches:
            batch.finish()


async def test_a_lost_connection_s_unread_messages_are_dropped() -> None:
    async with Scripted() as one, Scripted() as two, reading(one, two) as consumer:
        one.caller.deliver(b"lost")
        two.caller.deliver(b"kept")
        await until(lambda: consumer.received == 2)
        one.caller.cut()
        await until(lambda: len(consumer.askable()) == 1)
        batch = await read(consumer)
        assert batch is not None
        assert batch.bodies == [b"kept"]


async def test_a_loss_of_all_that_was_unread_lets_the_flow_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNREAD", 10_000)
    async with Scripted() as peer, reading(peer, max_in_flight=100) as consumer:
        peer.caller.deliver(b"x" * 20_000)
        await until(lambda: peer.caller.ready == 0 and consumer.received == 1)
        peer.caller.cut()
        await until(lambda: len(peer.callers) == 2 and peer.caller.ready == 100)
        assert "unread=0 B" in repr(consumer)
        peer.caller.deliver(b"again")
        batch = await read(consumer)
        assert batch is not None
        assert batch.bodies == [b"again"]


# ── losses, late acknowledgements ─────────────────────────────────────────────────────────────────


async def test_after_a_loss_it_reads_on_from_the_new_connection() -> None:
    async with Scripted() as peer, reading(peer, max_in_flight=5) as consumer:
        peer.queue.extend(bodies(3))
        peer.caller.pump()
        for batch in await read_all(consumer, 3):
            batch.finish()
        await until(lambda: peer.finished == 3)
        peer.queue.extend(bodies(2))
        peer.caller.cut()
        batches = await read_all(consumer, 2)
        assert sorted(body for batch in batches for body in batch.bodies) == bodies(2)
        assert consumer.reconnects == 1
        assert len(peer.callers) == 2


async def test_late_acknowledgements_are_counted_also_of_connections_that_are_gone() -> None:
    async with Scripted() as peer:
        async with reading(peer) as consumer:
            peer.caller.refuse("E_FIN_FAILED", "FIN 0 failed")
            await until(lambda: consumer.acknowledgements_failed == 1)
            peer.caller.cut()
            await until(lambda: len(peer.callers) == 2 and consumer.askable())
            assert consumer.acknowledgements_failed == 1
            peer.caller.refuse("E_FIN_FAILED", "FIN 0 failed")
            await until(lambda: consumer.acknowledgements_failed == 2)
        assert consumer.acknowledgements_failed == 2


async def test_what_is_asked_of_it_is_answered() -> None:
    async with Scripted() as one, Scripted() as two:
        one.http = "http://a:1"
        async with reading(one, two) as consumer:
            assert sorted(consumer.askable(), key=lambda each: each[2]) == [
                (EVENTS, str(two.address), ""),
                (EVENTS, str(one.address), "http://a:1"),
            ]
            assert consumer.is_complete
            await two.close()
            await until(lambda: not consumer.is_complete)
            assert repr(consumer) == "<Consumer events/archive connections=1 unread=0 B>"


# ── the beginning and the end ─────────────────────────────────────────────────────────────────────


async def test_one_source_that_cannot_be_reached_ends_it_and_leaves_nothing() -> None:
    def script(caller: Caller, command: object) -> bool:
        if isinstance(command, Sub) and command.topic == "secret":
            caller.refuse("E_UNAUTHORIZED", "no")
            return True
        return False

    async with Scripted(script) as peer:
        sources = [EVENTS, Subscription("secret", "x")]
        consumer = Consumer(sources, Brokers(nsqd=(peer.address,)), settings())
        with pytest.raises(StartError, match="E_UNAUTHORIZED"):
            async with asyncio.timeout(5):
                await consumer.start()
        for caller in peer.callers:
            await until(lambda: caller.lost.done())  # noqa: B023


async def test_a_start_that_is_cancelled_leaves_nothing() -> None:
    async with Scripted(lambda caller, command: True) as peer:
        consumer = Consumer([EVENTS], Brokers(nsqd=(peer.address,)), settings())
        starting = asyncio.create_task(consumer.start())
        await until(lambda: peer.callers and peer.caller.heard)
        starting.cancel()
        await asyncio.wait((starting,))
        await until(lambda: peer.caller.lost.done())


async def test_a_close_gives_back_what_was_read_and_what_was_not() -> None:
    async with Scripted() as peer:
        async with reading(peer, max_in_flight=10) as consumer:
            peer.queue.extend(bodies(6))
            peer.caller.pump()
            batches = await read_all(consumer, 6)
            first, _ = Batch.joined(batches).split(2)
            first.finish()
            peer.caller.deliver(b"unread")
            await until(lambda: consumer.received == 7)
        assert peer.finished == 2
        assert sorted(peer.queue) == sorted([*bodies(6)[2:], b"unread"])
        assert peer.caller.all(Close)
        assert peer.caller.ended


async def test_a_close_lets_in_no_more() -> None:
    def script(caller: Caller, command: object) -> bool:
        if isinstance(command, Close):
            caller.deliver(b"late")
        return False

    async with Scripted(script) as peer:
        async with reading(peer) as consumer:
            pass
        assert consumer.received == 0
        assert list(peer.queue) == [b"late"]

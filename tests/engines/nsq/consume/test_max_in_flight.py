"""How many messages are in flight: never more than the limit, and shared among the connections."""

from __future__ import annotations

import asyncio

import pytest

from qtools.engines.nsq.consume import consumer as module
from qtools.engines.nsq.protocol.client_commands import Requeue
from tests.engines.nsq.consume.reading import bodies, read, read_all, reading
from tests.engines.nsq.scripted import Scripted, family, until

pytestmark = pytest.mark.usefixtures("tidy")


async def test_max_in_flight_is_shared_and_the_active_have_the_room() -> None:
    async with Scripted() as one, Scripted() as two, reading(one, two, max_in_flight=10) as consumer:
        await until(lambda: one.caller.ready + two.caller.ready == 10)
        assert {one.caller.ready, two.caller.ready} == {5}
        one.caller.deliver(b"a")
        await until(lambda: (one.caller.ready, two.caller.ready) == (9, 1))
        two.caller.deliver(b"b")
        await until(lambda: (one.caller.ready, two.caller.ready) == (5, 5))
        await read_all(consumer, 2)


async def test_no_connection_is_asked_for_more_than_it_may_give() -> None:
    async with Scripted() as one:
        one.agreed.max_rdy_count = 7
        async with reading(one, max_in_flight=100):
            await until(lambda: one.caller.ready)
            assert one.caller.ready_counts == [7]


async def test_an_idle_connection_s_room_goes_to_others_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REBALANCE_SECONDS", 0.05)
    async with Scripted() as one, Scripted() as two, reading(one, two, max_in_flight=10) as consumer:
        one.caller.deliver(b"a")
        two.caller.deliver(b"b")
        first = await read_all(consumer, 2)
        for batch in first:
            batch.finish()
        two.caller.deliver(b"kept")
        await until(lambda: (one.caller.ready, two.caller.ready) == (1, 9))
        assert consumer.in_flight == 1


async def test_with_fewer_places_than_brokers_each_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TURN_SECONDS", 0.04)
    monkeypatch.setattr(module, "SETTLE_SECONDS", 0.02)
    async with Scripted() as one, Scripted() as two, Scripted() as three:
        family(one, two, three)
        for peer in (one, two, three):
            peer.queue.extend(bodies(3))
        async with reading(one, two, three, max_in_flight=1) as consumer:
            for _ in range(9):
                batch = await read(consumer)
                assert batch is not None
                batch.finish()
            await until(lambda: (one.finished, two.finished, three.finished) == (3, 3, 3))


async def test_one_message_is_found_whichever_broker_has_it() -> None:
    async with Scripted() as one, Scripted() as two, Scripted() as three, Scripted() as four:
        three.queue.append(b"here")
        async with reading(one, two, three, four, limit=1) as consumer:
            batch = await read(consumer)
            assert batch is not None
            batch.finish()
            assert await read(consumer) is None


async def test_max_in_flight_is_kept_while_room_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REBALANCE_SECONDS", 0.05)
    monkeypatch.setattr(module, "SETTLE_SECONDS", 0.03)
    async with Scripted() as one, Scripted() as two, Scripted() as three:
        family(one, two, three)
        peers = [one, two, three]
        async with reading(*peers, max_in_flight=20) as consumer:
            put = got = 0
            for turn in range(30):  # bursts here and there
                peer = peers[turn * 7 % 3]
                peer.queue.extend(bodies(turn))
                put += turn
                peer.caller.pump()
                while got < put:
                    batch = await read(consumer)
                    assert batch is not None
                    got += len(batch)
                    batch.finish()
                    await asyncio.sleep(0.001)
        assert sum(each.finished for each in peers) == got == put
        assert one.most_in_flight <= 20


@pytest.mark.parametrize("limit", [1, 2, 5, 60, 100])
async def test_a_limit_is_kept_to_the_message_with_two_brokers(limit: int) -> None:
    async with Scripted() as one, Scripted() as two:
        family(one, two)
        one.queue.extend(bodies(60))
        two.queue.extend(bodies(60))
        async with reading(one, two, limit=limit, max_in_flight=40) as consumer:
            got = 0
            while (batch := await read(consumer)) is not None:
                got += len(batch)
                await asyncio.sleep(0)
                batch.finish()
            assert got == limit
        assert one.finished + two.finished == limit
        assert len(one.queue) + len(two.queue) == 120 - limit
        assert one.most_in_flight <= min(limit, 40)


async def test_more_than_the_limit_is_given_back_at_once() -> None:
    async with Scripted() as peer, reading(peer, limit=2) as consumer:
        peer.caller.deliver(b"a", b"b", b"c")
        batch = await read(consumer)
        assert batch is not None
        assert batch.bodies == [b"a", b"b"]
        await until(lambda: peer.caller.all(Requeue))
        assert consumer.in_flight == 2
        assert await read(consumer) is None

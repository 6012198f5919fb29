"""Which of several brokers a publish goes to."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from qtools.engines.nsq.protocol.client_commands import Command, Publish
from qtools.engines.nsq.publish import load_balancing as balance_module
from qtools.engines.nsq.publish.load_balancing import Fastest, LeastBusy, RoundRobin
from tests.engines.nsq.publish.publishing import numbered, publishing, silent, write
from tests.engines.nsq.scripted import Caller, Scripted, until

pytestmark = pytest.mark.usefixtures("tidy")


# ── what is sent ──────────────────────────────────────────────────────────────────────────────────


async def test_the_least_busy_of_several_brokers_is_taken() -> None:
    async with Scripted(silent) as one, Scripted(silent) as two, publishing(one, two) as publisher:
        writes = [asyncio.create_task(write(publisher, b"%d" % nth)) for nth in range(6)]
        await until(lambda: publisher.connected == 2 and publisher.unanswered == 6)
        await until(lambda: sum(each.answers for peer in (one, two) for each in peer.caller.all(Publish)) == 6)
        assert [sum(each.answers for each in peer.caller.all(Publish)) for peer in (one, two)] == [3, 3]
        for peer in (one, two):
            for _ in range(3):
                peer.caller.say(b"OK")
        await asyncio.gather(*writes)


# ── sizes ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("balance", [LeastBusy, RoundRobin, Fastest])
async def test_a_stalled_broker_holds_up_nothing_while_another_takes_bytes(balance: type[Any]) -> None:
    body = b"x" * 1_000_000
    async with (
        Scripted(silent) as stalled,
        Scripted() as free,
        publishing(stalled, free, balance=balance(), retry_timeout=0.5) as publisher,
    ):
        stalled.caller.transport.pause_reading()
        writes = [asyncio.create_task(write(publisher, body)) for _ in range(40)]
        # What the stalled one was sent before its socket was full waits; everything else has gone to the other one.
        await until(lambda: sum(writing.done() for writing in writes) + publisher.unanswered == len(writes))
        assert publisher.unanswered < 20
        await write(publisher, *numbered(3))
        await stalled.close()
        await asyncio.gather(*writes)
        assert free.published.count(body) == len(writes)


async def test_a_broker_that_stalls_is_not_taken_for_one_that_cannot_be_reached() -> None:
    async with Scripted(silent) as peer, publishing(peer, retry_timeout=0.2) as publisher:
        peer.caller.transport.pause_reading()
        writes = [asyncio.create_task(write(publisher, b"x" * 1_000_000)) for _ in range(20)]
        await asyncio.wait(writes, timeout=0.6)  # three times as long as it may be unreachable
        assert not any(writing.done() for writing in writes)
        peer.script = None
        peer.caller.transport.resume_reading()
        while publisher.unanswered:
            peer.caller.say(b"OK")
            await asyncio.sleep(0)
        await asyncio.gather(*writes)


# ── which broker ──────────────────────────────────────────────────────────────────────────────────


async def test_round_robin_takes_each_in_turn() -> None:
    async with Scripted() as one, Scripted() as two, publishing(one, two, balance=RoundRobin()) as publisher:
        for nth in range(10):
            await write(publisher, b"%d" % nth)
        assert [len(peer.published) for peer in (one, two)] == [5, 5]


async def test_the_fastest_is_preferred_and_the_slow_one_tried_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balance_module, "FORGET", 0.05)

    def slowly(caller: Caller, command: Command) -> bool:
        if isinstance(command, Publish) and not caller.peer.quick:  # type: ignore[attr-defined]
            asyncio.get_running_loop().call_later(0.05, caller.say, b"OK")
            return True
        return False

    async with Scripted(slowly) as slow, Scripted() as fast:
        slow.quick = False  # type: ignore[attr-defined]
        async with publishing(slow, fast, balance=Fastest()) as publisher:
            for _ in range(20):
                await write(publisher, b"x")
            assert len(slow.callers[0].all(Publish)) <= 5
            before = len(slow.callers[0].all(Publish))
            slow.quick = True  # type: ignore[attr-defined]
            async with asyncio.timeout(5):
                while len(slow.callers[0].all(Publish)) == before:
                    await write(publisher, b"x")
                    await asyncio.sleep(0.005)


@pytest.mark.parametrize("balance", [RoundRobin, Fastest])
async def test_a_dead_one_is_left_out_and_has_its_share_when_it_is_back(balance: type[Any]) -> None:
    async with Scripted() as one, Scripted() as two, publishing(one, two, balance=balance()) as publisher:
        await one.close()
        await until(lambda: publisher.connected == 1)
        for nth in range(10):
            await write(publisher, b"%d" % nth)
        assert len(two.published) == 10
        await one.open()
        await until(lambda: publisher.connected == 2)
        await asyncio.gather(*(write(publisher, b"%d" % nth) for nth in range(40)))
        assert one.published

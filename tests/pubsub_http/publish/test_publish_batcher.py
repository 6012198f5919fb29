"""What requests hand in together leaves together; each is told what became of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from qtools.engines.nsq.address import Brokers
from qtools.engines.nsq.engine import NsqEngine
from qtools.engines.nsq.protocol.client_commands import Command, Publish
from qtools.pubsub_http.publish.publish_batcher import PublishBatcher, PublishRefused
from qtools.web.memory_budget import MemoryBudget
from qtools.web.request_body import Refusal
from tests.engines.nsq.scripted import Caller, Scripted, settings, until

pytestmark = pytest.mark.usefixtures("tidy")


@asynccontextmanager
async def outlet_to(peer: Scripted, patience: float = 5.0) -> AsyncIterator[PublishBatcher]:
    batcher = PublishBatcher(NsqEngine(Brokers(nsqd=(peer.address,)), settings()), patience, MemoryBudget(1 << 30))
    await batcher.start()
    try:
        yield batcher
    finally:
        await batcher.close()


def publishes(peer: Scripted) -> list[Publish]:
    return [command for caller in peer.callers for command in caller.heard if isinstance(command, Publish)]


async def test_what_comes_within_a_turn_leaves_as_one_command_for_each_topic() -> None:
    async with Scripted() as peer, outlet_to(peer) as batcher:
        done = [batcher.submit(f"topic{nth % 2}", [b"%d" % nth]) for nth in range(50)]
        await asyncio.gather(*done)
        commands = publishes(peer)
        assert [(command.topic, len(command.bodies)) for command in commands] == [("topic0", 25), ("topic1", 25)]
        assert commands[0].bodies == [b"%d" % nth for nth in range(0, 50, 2)]
        assert batcher.published == 50


async def test_while_publishes_are_under_way_what_comes_gathers() -> None:
    held: list[Caller] = []

    def hold(caller: Caller, command: Command) -> bool:
        if isinstance(command, Publish):
            held.append(caller)
            return True
        return False

    async with Scripted(hold) as peer, outlet_to(peer) as batcher:
        first = []
        for nth in range(4):  # as many as may be unanswered
            first.append(batcher.submit("t", [b"first %d" % nth]))
            await until(lambda nth=nth: len(held) == nth + 1)
        rest = [batcher.submit("t", [b"rest"]) for _ in range(30)]
        await asyncio.sleep(0.01)
        assert len(held) == 4
        held[0].say(b"OK")
        await first[0]
        await until(lambda: len(held) == 5)
        assert publishes(peer)[-1].bodies == [b"rest"] * 30
        peer.script = None
        for _ in range(4):
            held[0].say(b"OK")
        await asyncio.gather(*first, *rest)


async def test_each_is_told_of_its_own_message_only() -> None:
    async with Scripted() as peer, outlet_to(peer) as batcher:
        good = batcher.submit("t", [b"good"])
        mixed = batcher.submit("t", [b"a", b"x" * (1024 * 1024 + 1), b"b"])
        other = batcher.submit("t", [b"other"])
        await asyncio.gather(good, other)
        with pytest.raises(PublishRefused) as told:
            await mixed
        assert (told.value.status, told.value.word, told.value.count) == (413, "MSG_TOO_BIG", 1)
        assert sorted(peer.published) == [b"a", b"b", b"good", b"other"]
        assert batcher.published == 4


async def test_a_topic_that_is_refused_spoils_no_other() -> None:
    def refuse(caller: Caller, command: Command) -> bool:
        if isinstance(command, Publish) and command.topic == "bad":
            caller.refuse("E_BAD_TOPIC", "no")
            return True
        return False

    async with Scripted(refuse) as peer, outlet_to(peer) as batcher:
        good, bad = batcher.submit("good", [b"a"]), batcher.submit("bad", [b"b"])
        await good
        with pytest.raises(Refusal) as told:
            await bad
        assert (told.value.status, told.value.word) == (502, "BAD_TOPIC")


async def test_a_broker_that_is_away_is_503_and_at_once_the_next_time() -> None:
    async with Scripted() as peer, outlet_to(peer, patience=0.3) as batcher:
        await peer.close()
        with pytest.raises(Refusal) as told:
            await batcher.submit("t", [b"a"])
        assert (told.value.status, dict(told.value.headers)) == (503, {b"retry-after": b"1"})
        again = batcher.submit("t", [b"a"])
        assert again.done()
        assert isinstance(again.exception(), Refusal)
        await peer.open()
        await until(lambda: batcher.connected)
        await batcher.submit("t", [b"b"])
        assert peer.published == [b"b"]


async def test_a_broker_that_does_not_answer_is_504() -> None:
    async with (
        Scripted(lambda _, command: isinstance(command, Publish)) as peer,
        outlet_to(peer, patience=0.1) as batcher,
    ):
        with pytest.raises(Refusal) as told:
            await batcher.submit("t", [b"a"])
        assert (told.value.status, told.value.word) == (504, "PUB_TIMEOUT")


async def test_deferred_ones_go_alone() -> None:
    async with Scripted() as peer, outlet_to(peer) as batcher:
        await asyncio.gather(batcher.defer("t", b"later", 500), batcher.submit("t", [b"now"]))
        assert sorted((command.delay_ms, command.bodies[0]) for command in publishes(peer)) == [
            (0, b"now"),
            (500, b"later"),
        ]


@pytest.mark.parametrize("delay_ms", [0, 5])
async def test_what_there_is_no_memory_for_is_refused_deferred_or_not(delay_ms: int) -> None:
    async with Scripted(lambda caller, command: isinstance(command, Publish)) as peer:  # it answers nothing
        batcher = PublishBatcher(NsqEngine(Brokers(nsqd=(peer.address,)), settings()), 0.5, MemoryBudget(1000))
        await batcher.start()
        first = batcher.submit("t", [b"x" * 600])
        await until(lambda: publishes(peer))
        with pytest.raises(Refusal) as caught:
            await (batcher.defer("t", b"y", delay_ms) if delay_ms else batcher.submit("t", [b"y"]))
        assert (caught.value.status, caught.value.word, batcher.refused_for_memory) == (503, "OUT_OF_MEMORY", 1)
        with pytest.raises(Refusal, match="PUB_TIMEOUT"):
            await first
        assert batcher.memory() == 0
        await batcher.close()

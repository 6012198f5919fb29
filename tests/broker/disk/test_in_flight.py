"""Messages in flight: the frames of most leave the memory, and are read again when they have to be sent again."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from broker.inside import come_true
from qtools.broker.core.block import Block, MessageRange
from qtools.broker.disk.channel import in_flight
from qtools.broker.disk.channel.in_flight import InFlight

from .world import Client, World

SIZE = 10_000  # bytes of a message


@pytest.fixture(autouse=True)
def _little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_flight, "TOTAL", 10 * SIZE)


async def holding(room: Path, count: int, msg_timeout: float = 60.0) -> tuple[World, Client]:
    """A client that has `count` messages in flight, each in a block of its own."""
    world = World(room)
    await world.channel("t", "c")
    for _ in range(count):
        world.publish("t", 1, SIZE)
        await world.quiet()
    client = world.subscribe("t", "c", count, msg_timeout)
    await come_true(lambda: len(client.holds) == count)
    return world, client


def frames_in_memory(client: Client) -> int:
    """Bytes."""
    runs = [*client.consumer._runs, *client.consumer._by_id.values()]
    return sum(len(frames) for frames in {id(run.block.frames): run.block.frames for run in runs}.values())


async def test_what_a_client_holds_does_not_keep_its_frames(tmp_path: Path) -> None:
    world, client = await holding(tmp_path, 40)
    assert frames_in_memory(client) <= in_flight.TOTAL
    for ident in list(client.holds):
        assert client.channel.touch(client.consumer, ident, world.broker.now()) == ""
    assert frames_in_memory(client) <= in_flight.TOTAL
    client.finish(list(client.holds))
    await world.drain()
    world.close()


async def test_one_message_of_each_block_does_not_keep_the_others(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.channel("t", "c")
    for _ in range(30):
        world.publish("t", 5, SIZE // 5)
        await world.quiet()
    client = world.subscribe("t", "c", 150)
    await come_true(lambda: len(client.holds) == 150)
    client.finish([ident for nth, ident in enumerate(client.holds) if nth % 5])
    assert client.consumer.in_flight == 30
    assert frames_in_memory(client) <= in_flight.TOTAL
    await world.drain()
    world.close()


@pytest.mark.parametrize("how", ["requeue", "requeue later", "time out", "leave", "touch and time out"])
async def test_it_comes_again_whole_and_once(tmp_path: Path, how: str) -> None:
    world, client = await holding(tmp_path, 40, 0.5 if "time out" in how else 60.0)
    held = list(client.holds.items())
    if "requeue" in how:
        for ident, _ in held:
            client.requeue(ident, 0.2 if how == "requeue later" else 0.0)
    elif how == "touch and time out":
        for ident, _ in held:
            assert client.channel.touch(client.consumer, ident, world.broker.now()) == ""
    client.holds.clear()
    if how == "leave":
        client.leave()
        client.channel.close()  # as if its time were up
        client = world.subscribe("t", "c", 40)
    begun = time.monotonic()
    await come_true(lambda: sorted(client.holds.items()) == sorted(held))
    assert how != "requeue later" or time.monotonic() - begun > 0.15
    assert client.channel.deferred == client.channel.depth == 0
    client.finish(list(client.holds))
    await world.drain()
    world.close()


def test_a_block_is_counted_once_for_the_runs_of_it() -> None:
    flight = InFlight()
    block = Block(1, [b"x" * 1000] * 50, 0)
    block.seq = 7
    runs = [MessageRange(block, place, place + 1) for place in range(50)]
    for run in runs:
        flight.add(run)
        run.left = 1
    assert not any(run.block.is_cold for run in runs)
    other = Block(100, [b"x" * 1000] * 80, 0)
    other.seq = 8
    flight.add(MessageRange(other, 0, 80))
    assert all(run.block.is_cold for run in runs[:1])
    assert sum(run.left for run in runs) == 50


def test_a_run_that_is_alone_keeps_its_frames() -> None:
    flight = InFlight()
    block = Block(1, [b"x" * 20 * SIZE], 0)
    block.seq = 1
    run = MessageRange(block, 0, 1)
    flight.add(run)
    run.left = 1
    assert not run.block.is_cold
    after = Block(2, [b"x"], 0)
    after.seq = 2
    flight.add(MessageRange(after, 0, 1))
    assert run.block.is_cold

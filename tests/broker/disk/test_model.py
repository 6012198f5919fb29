"""The durable store against an account of what it owes, over restarts and crashes at any moment."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from pathlib import Path

import pytest

from qtools.broker.disk.database import FILE
from tests.broker.disk.world import World, wander


async def live(seed: int, room: Path, steps: int) -> None:
    chance = random.Random(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qtools.broker.disk.channel.in_flight.TOTAL", chance.choice([0, 20_000, 1_000_000]))
        world = World(room, memory_messages=chance.choice([1, 10, 50, 10_000]))
        try:
            await wander(world, chance, steps)
        finally:
            world.close()


@pytest.mark.parametrize("seed", range(12))
async def test_nothing_is_lost_and_nothing_stays(seed: int, tmp_path: Path) -> None:
    await live(seed, tmp_path, 120)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1300))
async def test_nothing_is_lost_and_nothing_stays_in_many_lives(seed: int, tmp_path: Path) -> None:
    await live(seed, tmp_path, 200)


async def publish_without_an_answer(world: World) -> None:
    """The broker ends while its last transaction is with the writer: it is written, and was never confirmed."""
    world.publish("t", 3)
    while world.store._writing is None:  # noqa: ASYNC110 - a longer wait would let its answer come
        await asyncio.sleep(0)
    world.restart()
    account = world.held["t"]
    assert (len(account.owed), len(account.perhaps)) == (0, 3)
    assert world.broker.topics["t"].depth == 3


async def test_a_topic_may_hold_what_was_written_and_never_confirmed(tmp_path: Path) -> None:
    world = World(tmp_path)
    await publish_without_an_answer(world)
    await world.drain()
    world.close()


async def test_the_account_misses_a_message_of_a_topic_without_channels(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.publish("t", 3)
    await world.quiet()
    connection = sqlite3.connect(world.directory / FILE)
    connection.execute("DELETE FROM block")
    connection.commit()
    connection.close()
    with pytest.raises(AssertionError, match="confirmed, and not on disk"):
        await world.drain()
    world.close()


async def test_the_account_finds_a_message_that_no_channel_needs(tmp_path: Path) -> None:
    world = World(tmp_path)
    await publish_without_an_answer(world)
    world.held["t"].perhaps.pop()
    with pytest.raises(AssertionError, match="on disk, and no channel needs it"):
        await world.drain()
    world.close()

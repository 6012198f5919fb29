"""The durable store against an account of what it owes, over restarts and crashes at any moment."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.broker.disk.world import World, wander


async def live(seed: int, room: Path, steps: int) -> None:
    chance = random.Random(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qtools.broker.disk.in_flight.TOTAL", chance.choice([0, 20_000, 1_000_000]))
        world = World(room, hot_messages=chance.choice([1, 10, 50, 10_000]))
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

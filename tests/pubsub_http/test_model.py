"""The gateway against an account of what it owes, with clients of each kind, over restarts of it and of the broker."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from harness.brokers import Q_BROKER, Broker
from harness.shell import Shell

from tests.pubsub_http.world import World, wander


def live(seed: int, shell: Shell, room: Path, lives: int, steps: int) -> None:
    """A seed gives the same clients, in the same order; when the programs answer is their own."""
    chance = random.Random(seed)
    broker = Broker(Q_BROKER, room, ["--msg-timeout=5s"])
    broker.start()
    flags = chance.choice([(), ("--workers", "2")])
    world = World(shell, broker, chance, *flags)
    try:
        for _ in range(lives):
            wander(world, steps)
            chance.choice([world.restart_gateway, world.restart_broker])()
            wander(world, steps // 4)
            world.check()
        world.drain()
        print(f"seed {seed}: {world.delivered} delivered, {world.finished} finished by clients, {world.checks} checks")
        assert world.delivered
    finally:
        world.close()
        broker.close()


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_lost_and_nothing_comes_again(seed: int, shell: Shell, tmp_path: Path) -> None:
    live(seed, shell, tmp_path, 2, 60)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1200))
def test_nothing_is_lost_and_nothing_comes_again_in_many_lives(seed: int, shell: Shell, tmp_path: Path) -> None:
    live(seed, shell, tmp_path, 4, 100)

"""A disk that fails now and then, anywhere in a transaction: what was confirmed is kept, what was not is refused."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import pytest

from qtools.broker.disk import store as store_module
from qtools.broker.disk.transaction import Transaction
from tests.broker.disk.world import World, wander

POISON: tuple[str, list[tuple[object, ...]]] = ("INSERT INTO nowhere VALUES (?)", [(1,)])


@pytest.mark.parametrize("seed", range(6))
async def test_nothing_is_lost_on_a_disk_that_fails(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    faults = 0
    run = Transaction.run

    def failing(job: Transaction, connection: sqlite3.Connection) -> bool:
        nonlocal faults
        if chance.random() > 0.15 or world.store._closed:  # what is not written at the end comes again: no news
            return run(job, connection)
        faults += 1
        poisoned = chance.choice([job.before, job.after])
        place = chance.randrange(len(poisoned) + 1)
        poisoned.insert(place, POISON)  # all that stands before it is done, and has to be undone
        try:
            return run(job, connection)
        finally:
            del poisoned[place]

    monkeypatch.setattr(Transaction, "run", failing)
    monkeypatch.setattr(store_module, "AGAIN", 0.01)
    world = World(tmp_path, hot_messages=chance.choice([1, 50, 10_000]))
    try:
        await wander(world, chance, 120)
    finally:
        monkeypatch.setattr(Transaction, "run", run)  # it ends in peace
        world.close()
    assert faults > 0

"""A disk that fails now and then, anywhere in a transaction: what was confirmed is kept, what was not is refused."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from broker.inside import come_true
from qtools.broker.disk import store as store_module
from qtools.broker.disk.database import VERSION
from qtools.broker.disk.database_thread import DatabaseThread
from qtools.broker.disk.transaction import Transaction
from tests.broker.disk.test_read_patience import sqlite_error
from tests.broker.disk.test_reserve import refused
from tests.broker.disk.world import World, wander

POISON: tuple[str, list[tuple[object, ...]]] = ("INSERT INTO nowhere VALUES (?)", [(1,)])


@pytest.mark.parametrize("seed", range(6))
async def test_nothing_is_lost_on_a_disk_that_fails(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    faults = 0
    run = Transaction.run

    def failing(job: Transaction, connection: sqlite3.Connection, *, must_write: bool = False) -> bool:
        nonlocal faults
        if chance.random() > 0.15 or world.store._closed:  # what is not written at the end comes again: no news
            return run(job, connection, must_write=must_write)
        faults += 1
        poisoned = chance.choice([job.before, job.after])
        place = chance.randrange(len(poisoned) + 1)
        poisoned.insert(place, POISON)  # all that stands before it is done, and has to be undone
        try:
            return run(job, connection, must_write=must_write)
        finally:
            del poisoned[place]

    monkeypatch.setattr(Transaction, "run", failing)
    monkeypatch.setattr(store_module, "AGAIN", 0.01)
    world = World(tmp_path, memory_messages=chance.choice([1, 50, 10_000]))
    try:
        await wander(world, chance, 120)
    finally:
        monkeypatch.setattr(Transaction, "run", run)  # it ends in peace
        world.close()
    assert faults > 0


async def test_no_message_is_confirmed_when_the_last_write_fails_for_any_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The broker ends while a transaction is under way, so the last messages are in one that is run at the end."""
    world = World(tmp_path)
    await world.channel("t", "c")
    await world.quiet()
    may_go_on = threading.Event()
    world.store.writer.do(lambda _: may_go_on.wait(20), lambda *_: None)
    first = world.broker.publish("t", [b"first"])
    assert first is not None
    await come_true(lambda: world.store.pending is not first)
    last = world.broker.publish("t", [b"last"])
    assert last is not None

    def fail(*_: object, **__: object) -> bool:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(Transaction, "run", fail)
        may_go_on.set()
        world.close()
    assert last.done
    assert str(last.error) == "Input/output error"
    assert f"cannot write to {world.directory}: Input/output error" in caplog.text
    await come_true(lambda: first.done)
    assert first.error is not None


@pytest.mark.parametrize("is_away", [True, False])
async def test_a_disk_that_is_away_is_not_taken_for_a_damaged_database(
    is_away: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite reports a page that cannot be read as damage, also when it reads it in order to write."""
    monkeypatch.setattr(store_module, "AGAIN", 0.02)
    world = World(tmp_path)
    await world.channel("t", "c")
    await world.quiet()

    def fail(*_: object, **__: object) -> Any:
        raise sqlite_error("SQLITE_CORRUPT")

    def no_answer(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(Transaction, "run", fail)
        if is_away:
            patch.setattr(os, "fsync", no_answer)
        why = "the disk reports errors" if is_away else "it is damaged: a restart of q-broker copies what can be read"
        assert await refused(world) == why
        assert world.broker.health == f"NOK - {why}"
    await come_true(lambda: not world.broker.failure)
    assert await refused(world) == ""
    assert (world.broker.health == "OK") == is_away
    world.close()


def test_what_was_handed_to_the_thread_is_done_after_the_end_of_the_event_loop() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    thread = DatabaseThread("test", connection, loop)
    done: list[int] = []
    for number in range(3):
        thread.do(lambda _, number=number: done.append(number), lambda *_: None)
    thread.close()
    assert done == [0, 1, 2]


def test_a_probe_of_the_disk_is_part_of_the_transaction(tmp_path: Path) -> None:
    """A job of which one part stays and the other fails is tried again whole, and its keys are there already."""
    connection = sqlite3.connect(tmp_path / "database", isolation_level=None)
    connection.execute("CREATE TABLE done (id INTEGER PRIMARY KEY)")
    connection.execute("CREATE TABLE block (seq, topic, base, count, timestamp, due, size, checksum, offsets, frames)")
    job = Transaction([("INSERT INTO done VALUES (?)", [(1,)])], [], [], None)

    def refuse_pragmas(action: int, *_: object) -> int:
        return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_PRAGMA else sqlite3.SQLITE_OK

    connection.set_authorizer(refuse_pragmas)
    with pytest.raises(sqlite3.DatabaseError):
        job.run(connection, must_write=True)
    connection.set_authorizer(None)
    assert connection.execute("SELECT * FROM done").fetchall() == []
    job.run(connection, must_write=True)
    assert connection.execute("SELECT * FROM done").fetchall() == [(1,)]
    assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
    connection.close()

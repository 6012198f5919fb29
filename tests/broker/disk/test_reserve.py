"""The journal of what was finished on a full disk, and what is said when a disk refuses."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from broker.inside import come_true
from qtools.broker.disk import maintenance
from qtools.broker.disk import store as store_module
from qtools.broker.disk.database import FILE, make_database
from qtools.broker.disk.reserve import Journal
from qtools.broker.disk.transaction import Transaction
from tests.broker.crash.test_small_disks import take_all
from tests.broker.disk.test_start_fails import disk
from tests.broker.disk.world import World

__all__ = ["disk"]  # a fixture


def insert(number: int) -> list[Any]:
    return [("INSERT INTO noted VALUES (?, ?)", [(number, b"\x00\xff"), (number, None)])]


@pytest.fixture
def connection(tmp_path: Path) -> Any:
    make_database(tmp_path / FILE)
    made = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    made.execute("CREATE TABLE noted (number INTEGER, bytes BLOB)")
    yield made
    made.close()


def made_journal(directory: Path, slot: int) -> Journal:
    journal = Journal(directory, slot)
    journal.allocate()
    return journal


@pytest.mark.parametrize("writes", [1, 2, 3])
@pytest.mark.parametrize("slot", [4000, 8000, 16_000])  # of the volume at the next start: smaller, the same, larger
def test_the_newest_record_is_replayed_once(
    writes: int, slot: int, tmp_path: Path, connection: sqlite3.Connection
) -> None:
    journal = made_journal(tmp_path, 8000)
    for number in range(1, writes + 1):
        assert journal.write(insert(number))
    after = Journal(tmp_path, slot)
    after.replay(connection)
    after.allocate()
    assert connection.execute("SELECT * FROM noted").fetchall() == [(writes, b"\x00\xff"), (writes, None)]
    again = Journal(tmp_path, slot)
    again.replay(connection)
    assert connection.execute("SELECT count(*) FROM noted").fetchone() == (2,)
    assert (tmp_path / "acknowledgements").stat().st_size == 2 * max(slot, 8000)
    again.allocate()
    assert again.write(insert(9))
    Journal(tmp_path, slot).replay(connection)
    assert connection.execute("SELECT max(number) FROM noted").fetchone() == (9,)


def test_what_does_not_fit_or_cannot_be_written_is_not_noted(tmp_path: Path) -> None:
    journal = made_journal(tmp_path, 4000)
    assert not journal.write([("INSERT INTO noted VALUES (?, ?)", [(1, os.urandom(10_000))])])
    path = tmp_path / "acknowledgements"
    path.unlink()
    assert not journal.write(insert(1))
    path.mkdir()
    assert not journal.write(insert(1))


def test_a_record_of_another_version_is_reported_and_passed_over(
    tmp_path: Path, connection: sqlite3.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    journal = made_journal(tmp_path, 4000)
    assert journal.write([*insert(1), ("UPDATE nothing_like_it SET place = ?", [(1,)])])
    Journal(tmp_path, 4000).replay(connection)
    assert "messages finished while the disk was full are delivered again: no such table" in caplog.text
    assert connection.execute("SELECT count(*) FROM noted").fetchone() == (0,)
    caplog.clear()
    Journal(tmp_path, 4000).replay(connection)
    assert caplog.text == ""


@pytest.mark.parametrize("cut", [0, 10, 3000, 4010])
def test_a_journal_that_was_cut_is_none(cut: int, tmp_path: Path, connection: sqlite3.Connection) -> None:
    journal = made_journal(tmp_path, 4000)
    assert journal.write(insert(1))
    os.truncate(tmp_path / "acknowledgements", cut)
    after = Journal(tmp_path, 4000)
    after.replay(connection)
    after.allocate()
    assert connection.execute("SELECT count(*) FROM noted").fetchone() == (0,)
    assert after.write(insert(2))
    Journal(tmp_path, 4000).replay(connection)
    assert connection.execute("SELECT max(number) FROM noted").fetchone() == (2,)


def test_a_journal_that_cannot_be_read_is_reported_and_not_taken_for_a_newer_one(
    tmp_path: Path, connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    journal = made_journal(tmp_path, 4000)
    for number in range(1, 5):
        assert journal.write(insert(number))

    def fail(_: Path) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    after = Journal(tmp_path, 4000)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail)
        after.replay(connection)
    (line,) = caplog.messages
    assert line == (
        f"cannot read {tmp_path / 'acknowledgements'}: input/output error; if the disk was full when q-broker ended,"
        " messages that were finished since then are delivered again"
    )
    after.allocate()
    assert after.write(insert(9))
    Journal(tmp_path, 4000).replay(connection)
    assert connection.execute("SELECT DISTINCT number FROM noted").fetchall() == [(9,)]


async def refused(world: World) -> str:
    """Why a publish is refused."""
    commit = world.broker.publish("t", [b"x"], 0)
    assert commit is not None
    await come_true(lambda: commit.done)
    return str(commit.error or "")


async def test_another_program_that_has_the_database_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(store_module, "AGAIN", 0.02)
    world = World(tmp_path)
    await world.channel("t", "c")
    world.publish("t", 1)
    await world.quiet()
    ready = asyncio.Event()
    world.store.writer.do(lambda db: db.execute("PRAGMA busy_timeout = 10"), lambda *_: ready.set())
    await ready.wait()
    other = sqlite3.connect(world.directory / FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert await refused(world) == "another program has it locked"
    assert await refused(world) == "another program has it locked"
    assert world.broker.health == "NOK - another program has it locked"
    (line,) = [line for line in caplog.messages if "cannot write" in line]
    assert line.endswith(
        ": another program has it locked; publishing is refused until the directory can be written to, consumers are"
        " still served"
    )
    client = world.subscribe("t", "c", 1)
    await come_true(lambda: client.holds)
    client.finish(list(client.holds))
    other.execute("ROLLBACK")
    other.close()
    await come_true(lambda: world.broker.health == "OK")
    assert await refused(world) == ""
    world.close()


async def test_a_disk_that_does_not_even_say_how_full_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Publishers have their answer all the same."""
    monkeypatch.setattr(store_module, "AGAIN", 0.02)
    world = World(tmp_path)
    await world.channel("t", "c")
    await world.quiet()

    def fail(*_: object, **__: object) -> Any:
        raise sqlite3.OperationalError("disk I/O error")

    def no_answer(_: object) -> Any:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Transaction, "run", fail)
        patch.setattr(os, "statvfs", no_answer)
        assert await refused(world) == "disk I/O error"
        assert await refused(world) == "disk I/O error"
        assert world.broker.health.startswith("NOK - disk I/O error")
    await come_true(lambda: world.broker.health == "OK")
    assert await refused(world) == ""
    assert "Traceback" not in caplog.text
    world.close()


async def test_a_broker_that_starts_on_a_full_disk_serves_consumers_by_its_reserve(
    disk: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """SQLite needs some space even to read. Messages are refused, as on a disk that has become full."""
    monkeypatch.setattr(store_module, "AGAIN", 0.02)
    world = World(disk)
    await world.channel("t", "c")
    world.publish("t", 20)
    await world.quiet()

    def fill(_: Path) -> None:
        with (disk / "other").open("wb") as file:
            take_all(file.fileno())

    world.restart_with(fill)
    assert not (world.directory / "reserve").exists()
    assert world.broker.health == f"NOK - the disk is full: 9.8 MB have to be free in {world.directory}"
    assert "publishing is refused until the directory can be written to, consumers are still served" in caplog.text
    assert (await refused(world)).startswith("the disk is full: ")
    client = world.subscribe("t", "c", 100)
    await come_true(lambda: len(client.holds) == 20)
    client.finish(list(client.holds))
    await world.quiet()
    (disk / "other").unlink()
    await come_true(lambda: world.broker.health == "OK")
    assert (world.directory / "reserve").exists()
    assert await refused(world) == ""
    world.restart()
    assert world.broker.topics["t"].channels["c"].depth == 1
    world.close()


async def test_a_reserve_is_taken_as_soon_as_there_is_room_for_it(
    disk: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(maintenance, "ALLOCATE_EVERY", 0.02)
    world = World(disk)
    await world.channel("t", "c")
    await world.quiet()
    sizes = world.store._write_failures.sizes

    def leave_no_room(directory: Path) -> None:
        (directory / "reserve").unlink()
        (disk / "room").write_bytes(bytes(2_000_000))
        with (disk / "other").open("wb") as file:
            take_all(file.fileno())
        (disk / "room").unlink()

    world.restart_with(leave_no_room)
    reserve = world.directory / "reserve"
    assert caplog.messages == [
        f"{world.directory}: there is no room for a reserve of 4.2 MB: if the disk becomes full, messages that"
        " consumers finish then may be delivered again after a restart"
    ]
    world.publish("t", 3)
    await world.quiet()
    await asyncio.sleep(0.1)  # time for some tries
    assert not reserve.exists()
    (disk / "other").unlink()
    await come_true(reserve.exists)
    assert reserve.stat().st_blocks * 512 == sizes.reserve
    await world.drain()
    world.close()
    assert len(caplog.messages) == 1


async def test_what_lies_idle_in_the_file_goes_back_to_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "SLACK", 200_000)
    monkeypatch.setattr(maintenance, "VACUUM", 16)
    monkeypatch.setattr(maintenance, "IDLE", 0.05)
    world = World(tmp_path)
    await world.channel("t", "c")
    for _ in range(20):
        world.publish("t", 50, 5000)
        await world.quiet()
    client = world.subscribe("t", "c", 1000)
    await come_true(lambda: len(client.holds) == 1000)
    client.finish(list(client.holds))
    client.leave()
    world.clients.clear()
    await world.quiet()

    def pages() -> int:
        connection = sqlite3.connect(world.directory / FILE)
        (count,) = connection.execute("PRAGMA page_count").fetchone()
        connection.close()
        return int(count)

    await come_true(lambda: pages() * 16384 < 600_000)
    world.publish("t", 10)
    await world.drain()
    world.close()

"""A disk that reads nothing for some time costs no message; a sector that can never be read stops no channel."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from broker.inside import come_true
from qtools.broker.disk import read_patience, reader
from qtools.broker.disk import store as store_module
from qtools.broker.disk.database import FILE
from qtools.broker.disk.read_patience import takes_writes
from tests.broker.crash.test_small_disks import take_all
from tests.broker.disk.test_start_fails import disk, mount
from tests.broker.disk.world import World

__all__ = ["disk"]  # a fixture

CHANNELS = 5
BLOCKS = 12


def sqlite_error(name: str) -> sqlite3.Error:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorname = name
    return error


class Disk:
    """What the reader's connections meet. fail: called with each statement and its parameters; it raises an error for
    those that fail. tries: statements since that was changed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tries = 0
        self.fail: Callable[[str, Any], None] = lambda statement, values: None
        self.takes_writes = True
        connect, fsync = reader.connect, os.fsync

        def sync(descriptor: int) -> None:
            if not self.takes_writes:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            fsync(descriptor)

        monkeypatch.setattr(reader, "connect", lambda *args, **how: Connection(connect(*args, **how), self))
        monkeypatch.setattr(os, "fsync", sync)
        monkeypatch.setattr(store_module, "AGAIN", 0.01)
        monkeypatch.setattr(read_patience, "PATIENCE", 0.2)


class Connection:
    """An SQLite connection to that disk."""

    def __init__(self, real: sqlite3.Connection, disk: Disk) -> None:
        self.real, self.disk = real, disk

    def execute(self, statement: str, values: Any = ()) -> sqlite3.Cursor:
        self.disk.tries += 1
        self.disk.fail(statement, values)
        return self.real.execute(statement, values)

    def close(self) -> None:
        self.real.close()


async def make_world(room: Path) -> World:
    """Channels of which nearly everything waits on disk."""
    world = World(room, memory_messages=2)
    for number in range(CHANNELS):
        await world.channel("t", f"c{number}")
    for _ in range(BLOCKS):
        world.publish("t", 3)
        await world.quiet()
    return world


@pytest.mark.parametrize(
    ("what", "error", "takes_writes"),
    [
        ("the disk is away", "SQLITE_CORRUPT", False),  # what SQLite makes of EIO
        ("the disk is away", "SQLITE_IOERR_READ", False),
        ("memory is short", "", True),
        ("another program has it locked", "SQLITE_BUSY", True),
    ],
)
async def test_no_message_is_left_out_however_long_it_takes(
    what: str,
    error: str,
    takes_writes: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    disk = Disk(monkeypatch)
    world = await make_world(tmp_path)

    def fail(_: str, __: Any) -> None:
        raise sqlite_error(error) if error else MemoryError

    disk.takes_writes, disk.fail, disk.tries = takes_writes, fail, 0
    clients = [world.subscribe("t", f"c{number}", 1000) for number in range(CHANNELS)]
    begun = time.monotonic()
    await come_true(lambda: disk.tries > 20 * CHANNELS and time.monotonic() - begun > 3 * read_patience.PATIENCE)
    assert caplog.text.count("cannot read messages: ") == 1
    assert world.broker.health == "OK"
    disk.takes_writes, disk.fail = True, lambda statement, values: None
    await come_true(lambda: all(len(client.holds) == 3 * BLOCKS for client in clients))
    assert world.broker.health == "OK"
    assert caplog.text.count("messages can be read again") == 1
    await world.drain()
    world.close()
    assert {each.name for each in world.directory.iterdir()} == {FILE, "acknowledgements", "reserve"}


@pytest.mark.parametrize("error", ["SQLITE_CORRUPT", "SQLITE_IOERR_READ"])
async def test_a_block_that_can_never_be_read_is_left_out_while_others_are_read(
    error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk(monkeypatch)
    world = await make_world(tmp_path)
    (first,) = world.store.reader._quick.execute("SELECT min(seq) FROM block").fetchone()
    bad = first + BLOCKS - 2

    def fail(statement: str, values: Any) -> None:
        """The row of one block. Its entry in the index is on another page."""
        is_row = "FROM block WHERE" in statement and (tuple(values) == (bad,) or values[1:2] == (bad,))
        if is_row:
            raise sqlite_error(error)

    disk.fail = fail
    clients = [world.subscribe("t", f"c{number}", 1000) for number in range(CHANNELS)]
    await come_true(lambda: all(len(client.holds) == 3 * BLOCKS - 3 for client in clients))
    assert world.broker.health.startswith("NOK - 3 messages of t cannot be read")
    assert caplog.text.count("cannot read messages: ") <= CHANNELS  # for each channel that comes to the block
    world.close()


@pytest.mark.parametrize("failures", [1, 2, 3, 5])  # after the third the due times count as damaged
async def test_an_order_by_due_time_that_cannot_be_read(
    failures: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The messages come, each when it is due; without their order the blocks are read one by one."""
    disk = Disk(monkeypatch)
    world = await make_world(tmp_path)
    clients = [world.subscribe("t", f"c{number}", 1000) for number in range(CHANNELS)]
    await come_true(lambda: all(len(client.holds) == 3 * BLOCKS for client in clients))
    failed = 0

    def fail(statement: str, _: Any) -> None:
        nonlocal failed
        if "block_by_due" in statement and failed < failures:
            failed += 1
            raise sqlite_error("SQLITE_BUSY")

    client = clients[0]
    for number, ident in enumerate(sorted(client.holds)):
        client.requeue(ident, 0.3 + number / 100)
    disk.fail = fail
    await come_true(lambda: len(client.holds) == 3 * BLOCKS)
    assert failed == failures
    assert world.broker.health == "OK"
    await world.drain()  # it would say what came too early
    world.close()


def test_a_disk_that_is_full_or_away(tmp_path: Path, disk: Path) -> None:
    assert takes_writes(tmp_path)
    with (disk / "other").open("wb") as file:
        take_all(file.fileno())
    assert takes_writes(disk)  # it answers
    assert not takes_writes(tmp_path / "gone")
    mount(disk, "remount,ro")
    assert not takes_writes(disk)  # as the system makes it after an error
    assert [each.name for each in (*tmp_path.iterdir(), *disk.iterdir())] == ["disk", "other"]

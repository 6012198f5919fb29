"""Files that the store leaves alone, and the format of the release before."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.inside import come_true
from qtools.broker.disk.database import FILE, VERSION
from qtools.broker.disk.integrity.checksum import UNCHECKED, block_checksum, row_checksum
from qtools.broker.disk.store import DurableStore
from qtools.errors import StartError
from tests.broker.crash.test_small_disks import take_all
from tests.broker.disk.test_start_fails import disk
from tests.broker.disk.world import World

__all__ = ["disk"]  # a fixture


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


# ── files that should not be touched ──────────────────────────────────────────────────────────────


def written(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


async def refused(directory: Path) -> str:
    before = written(directory)
    with pytest.raises(StartError) as caught:
        DurableStore(directory)
    after = {name: text for name, text in written(directory).items() if name in before}
    assert after == before
    return str(caught.value)


async def test_a_foreign_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("my dear diary")
    assert "is no database of q-broker" in await refused(tmp_path)


async def test_a_foreign_database_is_left_alone(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / FILE)
    connection.execute("PRAGMA application_id = 1234")
    connection.execute("CREATE TABLE mine (x)")
    connection.commit()
    connection.close()
    assert "belongs to another program" in await refused(tmp_path)


async def test_a_log_without_its_database_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / f"{FILE}-wal").write_bytes(b"x" * 100)
    assert "is there without messages.db" in await refused(tmp_path)


async def test_a_newer_format_is_left_alone(world: World) -> None:
    world.close()
    connection = sqlite3.connect(world.directory / FILE)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert f"was made by a newer q-broker (format 99, this one knows {VERSION})" in await refused(world.directory)


@pytest.mark.parametrize("place", [0, 50])
async def test_a_database_with_a_damaged_head_is_left_alone(place: int, world: World) -> None:
    world.publish("t", 500, 200)
    await world.channel("t", "c")
    world.close()
    path = world.directory / FILE
    data = bytearray(path.read_bytes())
    assert len(data) > place + 64
    data[place : place + 64] = b"\xa5" * 64
    path.write_bytes(data)
    text = await refused(world.directory)
    assert str(path) in text
    assert "damaged" in text


async def test_what_it_writes_is_private(world: World) -> None:
    world.publish("t", 1)
    await world.quiet()
    assert {path.stat().st_mode & 0o777 for path in world.directory.iterdir()} == {0o600}


# ── the format of the release before ──────────────────────────────────────────────────────────────


async def test_a_database_of_the_format_before_is_upgraded_with_everything_in_it(world: World) -> None:
    await world.channel("t", "c")
    world.publish("t", 20)
    await world.quiet()
    client = world.subscribe("t", "c", 15)
    await come_true(lambda: len(client.holds) == 15)
    client.finish(sorted(client.holds)[3:9])
    await world.quiet()
    world.restart_with(make_format_1)
    version, checksums = rows(world, "PRAGMA user_version"), rows(world, "SELECT checksum FROM block")
    assert version == [(2,)]
    assert checksums == [(UNCHECKED,)]
    world.publish("t", 20)
    await world.drain()


async def test_an_upgrade_without_room_for_it_leaves_the_format_before(disk: Path) -> None:
    world = World(disk)
    await world.channel("t", "c")
    world.publish("t", 20)
    await world.quiet()
    world.close()
    make_format_1(world.directory)
    (world.directory / "reserve").unlink()
    (disk / "room").write_bytes(bytes(100_000))
    with (disk / "other").open("wb") as file:
        take_all(file.fileno())
    (disk / "room").unlink()
    assert (await refused(world.directory)).endswith(f"{FILE}: the disk is full; it was left as it is")
    assert rows(world, "PRAGMA user_version") == [(1,)]
    (disk / "other").unlink()
    world.settle()
    world.open_()
    await world.drain()
    world.close()


def make_format_1(directory: Path) -> None:
    """Take out of a database what format 2 has more."""
    connection = sqlite3.connect(directory / FILE)
    connection.execute("DROP INDEX block_by_due")
    connection.execute("DROP INDEX progress_by_due")
    connection.execute("ALTER TABLE progress DROP COLUMN next_due")
    connection.execute("ALTER TABLE progress DROP COLUMN unfinished")
    for table in ("topic", "channel", "block", "progress"):
        connection.execute(f"ALTER TABLE {table} DROP COLUMN checksum")
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    connection.close()


def rows(world: World, query: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(world.directory / FILE)
    found = connection.execute(query).fetchall()
    connection.close()
    return found


async def test_every_row_has_its_checksum(world: World) -> None:
    await world.channel("t", "c")
    await world.channel("t", "d")
    world.publish("t", 20)
    world.publish("t", 3, delay=30)
    await world.pause("t")
    world.broker.topics["t"].pause_channel("c", True)
    world.broker.topics["t"].pause_channel("c", False)
    await world.unpause("t")
    client = world.subscribe("t", "d", 15)
    await come_true(lambda: len(client.holds) == 15)
    client.finish(sorted(client.holds)[3:9])
    world.broker.topic("u")
    await world.quiet()
    for table, columns in (
        ("topic", "id, name, paused, held_from"),
        ("channel", "id, topic, name, paused, low, sent"),
        ("progress", "channel, seq, done, attempts, due, next_due, unfinished"),
    ):
        found = rows(world, f"SELECT {columns}, checksum FROM {table}")
        assert found
        for *values, checksum in found:
            assert row_checksum(*values) == checksum, (table, values)  # type: ignore[arg-type]
    for *values, checksum in rows(
        world, "SELECT seq, topic, base, count, timestamp, due, offsets, frames, checksum FROM block"
    ):
        assert block_checksum(*values) == checksum  # type: ignore[arg-type]


async def test_an_empty_database_is_not_taken_for_a_new_one(world: World) -> None:
    world.publish("t", 1)
    world.close()
    (world.directory / FILE).write_bytes(b"")
    text = await refused(world.directory)
    assert f"{world.directory / FILE} is empty" in text
    assert "put a copy of it back, or remove it" in text

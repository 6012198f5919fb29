"""What the durable store keeps over a restart and over kill -9, and what it makes of files it should not touch."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.inside import come_true
from qtools.broker.disk.database import FILE, VERSION, connect
from qtools.broker.disk.integrity.checksum import UNCHECKED, block_checksum, row_checksum
from qtools.broker.disk.retention import Retain
from qtools.broker.disk.store import DurableStore
from qtools.errors import StartError
from tests.broker.disk.world import World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


async def blocks(world: World) -> int:
    """How many blocks are on disk."""
    await world.quiet()
    connection = sqlite3.connect(world.directory / FILE)
    (count,) = connection.execute("SELECT count(*) FROM block").fetchone()
    connection.close()
    return int(count)


# ── what is kept ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", ["restart", "crash"])
async def test_attempts_timestamps_and_ids_survive(how: str, tmp_path: Path) -> None:
    world = World(tmp_path)
    world.publish("t", 30)
    await world.channel("t", "c")
    client = world.subscribe("t", "c", 20)
    await come_true(lambda: len(client.holds) == 20)
    for ident in sorted(client.holds)[:10]:
        client.requeue(ident, 0.0)  # comes again at once, to the same client
    await come_true(lambda: len(client.holds) == 20)
    channel = client.channel
    delivered = {body: owed.deliveries for body, owed in world.accounts["t", "c"].owed.items()}
    before = {run.block.base: run.block.timestamp for run in client.consumer._runs if run.left}
    known = {ident for run in client.consumer._runs if run.left for ident in run.block.ids(0, run.block.count)}
    await world.quiet()
    if how == "restart":
        world.restart()
    else:
        await world.crash()
    world.exact = True  # everything had been noted
    client = world.subscribe("t", "c", 100)
    await come_true(lambda: len(client.holds) == 30)
    assert client.channel is not channel
    assert not world.wrong
    assert {run.block.base: run.block.timestamp for run in client.consumer._runs if run.left} == before
    assert set(client.holds) == known
    assert all(world.accounts["t", "c"].owed[body].deliveries == count + 1 for body, count in delivered.items())
    world.close()


@pytest.mark.parametrize("how", ["restart", "crash"])
async def test_what_was_put_off_keeps_its_time(how: str, tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.channel("t", "c")
    world.publish("t", 3, 20, 0.6)
    world.publish("t", 1)
    client = world.subscribe("t", "c", 10)
    await come_true(lambda: len(client.holds) == 1)
    client.requeue(next(iter(client.holds)), 0.6)
    await world.quiet()
    due = time.time() + 0.6
    if how == "restart":
        world.restart()
    else:
        await world.crash()
    channel = world.broker.topics["t"].channels["c"]
    assert (channel.depth, channel.deferred) == (0, 4)
    client = world.subscribe("t", "c", 10)
    await come_true(lambda: len(client.holds) == 4)
    assert due - 0.1 < time.time() < due + 2.0
    assert not world.wrong  # it would say what came too early
    world.close()


async def test_paused_stays_paused(world: World) -> None:
    await world.channel("t", "c")
    await world.pause("t")
    world.broker.topics["t"].pause_channel("c", True)
    world.publish("t", 5)
    await world.quiet()
    world.restart()
    topic = world.broker.topics["t"]
    assert topic.paused
    assert topic.channels["c"].paused
    assert (topic.depth, topic.channels["c"].depth) == (5, 0)
    world.paused.discard("t")
    topic.unpause(world.broker.now(), time.time_ns())
    assert (topic.depth, topic.channels["c"].depth) == (0, 5)


async def test_numbers_of_messages_do_not_come_again_when_the_clock_is_put_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.publish("t", 1)
    await world.channel("t", "c")
    client = world.subscribe("t", "c", 10)
    await come_true(lambda: client.holds)
    (first,) = client.holds
    await world.quiet()
    world.restart()
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now - 3600 * 10**9)
    world.restart()
    world.publish("t", 1)
    client = world.subscribe("t", "c", 10)
    await come_true(lambda: len(client.holds) == 2)
    assert max(client.holds) > first


# ── space ───────────────────────────────────────────────────────────────────────────────────────


async def test_a_block_goes_when_the_last_channel_is_done_with_it(world: World) -> None:
    await world.channel("t", "a")
    await world.channel("t", "b")
    for _ in range(3):
        world.publish("t", 10)
        await world.quiet()
    assert await blocks(world) == 3
    one, other = (world.subscribe("t", name, 100) for name in "ab")
    await come_true(lambda: len(one.holds) == len(other.holds) == 30)
    one.finish(sorted(one.holds))
    assert await blocks(world) == 3
    idents = sorted(other.holds)
    other.finish(idents[10:20])  # not in their order
    assert await blocks(world) == 2
    other.finish(idents[:10] + idents[20:])
    assert await blocks(world) == 0


async def test_a_deleted_topic_and_a_deleted_channel_leave_nothing(world: World) -> None:
    for name in ("a", "b"):
        await world.channel("t", name)
    for _ in range(600):  # more than one transaction removes
        world.publish("t", 1)
        await world.quiet()
    world.broker.delete_channel(world.broker.topics["t"], "a")
    assert await blocks(world) == 600
    world.broker.delete_channel(world.broker.topics["t"], "b")
    assert await blocks(world) == 0
    world.publish("t", 1)
    assert await blocks(world) == 1
    world.accounts.clear()
    world.broker.delete_topic("t")
    assert await blocks(world) == 0
    world.restart()
    assert not world.broker.topics


async def test_what_others_had_finished_when_a_channel_was_deleted_goes_in_its_time(world: World) -> None:
    await world.channel("t", "a")
    await world.channel("t", "b")
    for _ in range(5):
        world.publish("t", 10)
        await world.quiet()
    one = world.subscribe("t", "a", 100)
    await come_true(lambda: len(one.holds) == 50)
    idents = sorted(one.holds)
    one.finish(idents[10:])  # not the first ones, so that it stands still there
    assert await blocks(world) == 5
    await world.delete_channel("t", "b")
    one.finish(idents[:10])
    assert await blocks(world) == 0


async def test_finished_messages_are_retained_for_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qtools.broker.disk.maintenance.SWEEP_EVERY", 0.05)
    world = World(tmp_path, retain=Retain(age=1.0))
    await world.channel("t", "c")
    world.publish("t", 10)
    client = world.subscribe("t", "c", 100)
    await come_true(lambda: len(client.holds) == 10)
    client.finish(sorted(client.holds))
    begun = time.monotonic()
    assert await blocks(world) == 1

    def gone() -> bool:
        connection = sqlite3.connect(world.directory / FILE)
        (count,) = connection.execute("SELECT count(*) FROM block").fetchone()
        connection.close()
        return count == 0

    await come_true(gone)
    assert time.monotonic() - begun > 0.7
    world.close()


async def test_finished_messages_are_retained_up_to_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qtools.broker.disk.maintenance.SWEEP_EVERY", 0.02)
    world = World(tmp_path, retain=Retain(size=50_000))
    await world.channel("t", "c")
    for _ in range(10):
        world.publish("t", 10, 1000)  # ten KB and a little more
        await world.quiet()
    client = world.subscribe("t", "c", 100)
    await come_true(lambda: len(client.holds) == 100)
    client.finish(sorted(client.holds))

    async def left() -> int:
        return await blocks(world)

    await world.quiet()
    for _ in range(200):
        if await left() == 4:
            break
        await world.quiet()
    assert await left() == 4
    world.close()


# ── files that should not be touched ────────────────────────────────────────────────────────────


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


# ── the format of the release before ────────────────────────────────────────────────────────────


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


async def test_a_channel_does_not_get_what_was_published_before_it_and_is_not_safe_yet(world: World) -> None:
    """Neither when it is safe, nor after a restart."""
    await world.channel("t", "c")
    is_free = threading.Event()
    world.store._writer.do(lambda _: is_free.wait(20), lambda *_: None)
    world.publish("t", 3)
    await come_true(lambda: world.store._writing)  # its block has its number
    world.broker.channel("t", "d")
    is_free.set()
    await world.quiet()
    for _ in range(2):
        channels = world.broker.topics["t"].channels
        assert (channels["c"].depth, channels["d"].depth) == (3, 0)
        world.restart()
    await world.drain()


async def test_a_topic_that_was_killed_while_it_waited_gives_everything_to_its_channels(world: World) -> None:
    """As where its channels were still being asked for at nsqlookupd."""
    world.publish("t", 5)
    world.publish("t", 2, delay=0.3)
    await world.quiet()
    world.restart_with(
        lambda directory: change(
            directory,
            "INSERT INTO channel (id, topic, name, paused, low, sent, checksum)"
            " SELECT 77, id, 'c', 0, held_from, 0, row_checksum(77, id, 'c', 0, held_from, 0) FROM topic",
        )
    )
    channel = world.broker.topics["t"].channels["c"]
    assert (channel.depth + channel.deferred, world.broker.topics["t"].depth) == (7, 0)
    world.accounts["t", "c"] = world.held.pop("t")
    await world.drain()


def change(directory: Path, statement: str) -> None:
    """A change of the database between two runs of the broker."""
    connection = connect(directory / FILE)
    connection.execute(statement)
    connection.close()

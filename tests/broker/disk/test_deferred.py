"""Deferred messages that are not in memory: their times, their number, and what a clock that was wrong does to them."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import time
import tracemalloc
from pathlib import Path

import pytest

from broker.inside import come_true
from qtools.broker.core.block import Block, MessageRange
from qtools.broker.core.channel import Channel
from qtools.broker.disk.channel.backlog import ChannelBacklog
from qtools.broker.disk.channel.progress import NEVER, Progress, due_runs, split_by_due
from qtools.broker.disk.database import FILE
from qtools.broker.disk.integrity.checksum import row_checksum
from qtools.broker.disk.store import DurableStore
from tests.broker.disk.world import World

HOUR = 3600 * 10**9


def backlog(channel: Channel) -> ChannelBacklog:
    assert isinstance(channel.backlog, ChannelBacklog)
    return channel.backlog


def in_memory(channel: Channel) -> int:
    """How many blocks the channel knows one by one."""
    own = backlog(channel)
    blocks = own._unfinished
    return sum(map(len, (blocks.in_order, blocks.out_of_order, blocks.rows, own._disk.skip, own._deferred._window)))


async def peeked(channel: Channel, count: int) -> int:
    """How many messages a look at the first `count` sees."""
    found: asyncio.Future[list[MessageRange] | None] = asyncio.get_running_loop().create_future()
    channel.backlog.peek(count, found.set_result)
    runs = await found
    assert runs is not None
    return sum(map(len, runs))


async def requeue_all(world: World, count: int, delay: float) -> Channel:
    """Messages in blocks of one and of many, delivered once, and requeued."""
    await world.channel("t", "c")
    for _ in range(count // 100):
        world.publish("t", 99)
        await world.quiet()
        world.publish("t", 1)
        await world.quiet()
    client = world.subscribe("t", "c", count)
    await come_true(lambda: len(client.holds) == count)
    for ident in list(client.holds):
        client.requeue(ident, delay)
    client.leave()
    world.clients.clear()
    await world.quiet()
    return world.broker.topics["t"].channels["c"]


@pytest.mark.parametrize("how", ["restart", "crash"])
async def test_requeued_messages_leave_the_memory_and_come_at_their_time(how: str, tmp_path: Path) -> None:
    world = World(tmp_path, memory_messages=10)
    channel = await requeue_all(world, 600, 2.0)
    assert (channel.depth, channel.deferred) == (0, 600)
    await come_true(lambda: in_memory(channel) < 40)
    due = max(owed.not_before for owed in world.accounts["t", "c"].owed.values())
    if how == "restart":
        world.restart()
    else:
        await world.crash()
    channel = world.broker.topics["t"].channels["c"]
    assert (channel.depth, channel.deferred) == (0, 600)
    assert in_memory(channel) < 40
    client = world.subscribe("t", "c", 1000)
    await come_true(lambda: len(client.holds) == 600)
    assert due - 0.1 < time.time() < due + 2.0
    assert not world.wrong  # it would say what came too early, or with other attempts
    await world.drain()
    world.close()


async def test_what_is_due_and_waits_is_counted_as_depth_and_not_read(tmp_path: Path) -> None:
    world = World(tmp_path, memory_messages=10)
    await world.channel("t", "c")
    for _ in range(300):
        world.publish("t", 1, 20, 0.5)
        await world.quiet()
    channel = world.broker.topics["t"].channels["c"]
    assert channel.depth + channel.deferred == 300
    await come_true(lambda: (channel.depth, channel.deferred) == (300, 0))
    assert in_memory(channel) < 60
    world.restart()
    channel = world.broker.topics["t"].channels["c"]
    assert (channel.depth, channel.deferred) == (300, 0)
    assert in_memory(channel) < 60
    assert await peeked(channel, 1000) == 300  # a look sees what is not read yet
    assert await peeked(channel, 150) == 150
    await world.drain()
    world.close()


async def test_what_was_published_deferred_before_there_was_a_channel_is_not_in_memory(tmp_path: Path) -> None:
    world = World(tmp_path, memory_messages=10)
    for _ in range(200):
        world.publish("t", 1, 20, 0.1)
        await world.quiet()
    world.restart()
    assert world.broker.topics["t"].depth == 200
    await world.channel("t", "c")
    channel = world.broker.topics["t"].channels["c"]
    assert in_memory(channel) < 60
    await world.drain()
    world.close()


async def test_memory_does_not_grow_with_their_number(tmp_path: Path) -> None:
    world = World(tmp_path, memory_messages=100)
    await world.channel("t", "c")

    async def grow(count: int) -> int:
        for _ in range(count // 100):
            for _ in range(100):
                commit = world.broker.publish("t", [b"x" * 100], 3_000_000)
            await come_true(lambda: commit is None or commit.done)  # noqa: B023
        await world.quiet()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        few = await grow(2000)
        many = await grow(8000)
    finally:
        tracemalloc.stop()
    assert many - few < 8000 * 20
    assert world.broker.topics["t"].channels["c"].deferred == 10_000
    world.close()


async def test_emptying_forgets_what_is_on_disk_only(tmp_path: Path) -> None:
    world = World(tmp_path, memory_messages=10)
    channel = await requeue_all(world, 300, 60.0)
    await come_true(lambda: in_memory(channel) < 40)
    channel.empty()
    assert (channel.depth, channel.deferred) == (0, 0)
    world.accounts["t", "c"].owed.clear()
    await world.drain()  # nothing may be left in the database
    world.restart()
    channel = world.broker.topics["t"].channels["c"]
    assert (channel.depth, channel.deferred) == (0, 0)
    world.close()


@pytest.mark.parametrize("spilled", [False, True])
async def test_a_due_time_beyond_the_longest_deferral_is_not_believed(spilled: bool, tmp_path: Path) -> None:
    """The clock was an hour ahead when they were stored, and was put right while the broker was down."""
    world = World(tmp_path, memory_messages=10 if spilled else 10_000, longest_deferral=1.0)
    channel = await requeue_all(world, 300, 0.7)
    for _ in range(50):
        world.publish("t", 1, 20, 0.7)
        await world.quiet()
    deferred = channel.deferred
    world.broker.close()
    world._bury()
    world.settle()
    with sqlite3.connect(world.directory / FILE) as connection:
        connection.execute(f"UPDATE block SET due = due + {HOUR}, checksum = -1 WHERE due > 0")
        for channel_id, seq, done, attempts, due in connection.execute(
            "SELECT channel, seq, done, attempts, due FROM progress WHERE next_due > 0"
        ).fetchall():
            progress = Progress.load(done, attempts, due)
            assert progress._due is not None
            for place, one in enumerate(progress._due):
                progress._due[place] = one + HOUR if one < NEVER else one
            row = (channel_id, seq, *progress.row(), progress.next_due, progress.left)
            connection.execute(
                "INSERT OR REPLACE INTO progress (channel, seq, done, attempts, due, next_due, unfinished, checksum)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*row, row_checksum(*row)),
            )
    connection.close()
    world._forget()
    for owed in world.accounts["t", "c"].owed.values():
        owed.not_before = 0.0
    world.open_()
    channel = world.broker.topics["t"].channels["c"]
    assert deferred <= 350
    assert channel.deferred + channel.depth == 350
    client = world.subscribe("t", "c", 1000)
    begun = time.monotonic()
    await come_true(lambda: len(client.holds) == 350)
    assert time.monotonic() - begun < 5.0
    assert not world.wrong
    world.close()


async def test_a_clock_that_is_set_while_the_broker_runs_moves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, memory_messages=10)
    await world.channel("t", "c")
    real = time.time_ns
    for shift in (-HOUR, HOUR):
        monkeypatch.setattr(time, "time_ns", lambda shift=shift: real() + shift)
        for _ in range(30):
            world.publish("t", 1, 20, 0.4)
            await world.quiet()
        channel = world.broker.topics["t"].channels["c"]
        client = world.subscribe("t", "c", 1000)
        await come_true(lambda: channel.deferred == 0 and len(client.holds) == 30)  # noqa: B023
        client.finish(sorted(client.holds))
        client.leave()
        world.clients.clear()
    assert not world.wrong  # the account goes by `time.time`, which was not touched
    world.close()


def test_one_rule_says_what_of_a_block_is_due() -> None:
    """What a look tells of a block that waits on disk is what a read of it makes ready."""
    block = Block.stored(7, 1, 6, 1000, 90)
    assert split_by_due(block, None, 100, 200) == ([(0, 6, 0, 90)], [])
    assert split_by_due(block, None, 80, 200) == ([], [(0, 6, 0, 90)])
    assert split_by_due(block, None, 80, 80) == ([(0, 6, 0, 80)], [])  # stored while the clock was ahead
    progress = Progress(6)
    progress.count(6)
    progress.came_back(1, 3, 2, 150)
    progress.came_back(3, 4, 2, 900)
    ready, later = split_by_due(block, progress, 100, 200)
    assert (ready, later) == ([(0, 1, 1, 0), (4, 6, 1, 0)], [(1, 3, 2, 150), (3, 4, 2, 200)])
    for wall, latest in ((100, 200), (150, 200), (100, 100), (950, 2000)):
        runs = due_runs(block, progress.row(), wall, latest)
        ready, _ = split_by_due(block, progress, wall, latest)
        assert [(run.start, run.stop, run.attempts) for run in runs] == [stretch[:3] for stretch in ready]
    assert due_runs(block, None, 80, 200) == []


async def test_what_was_published_deferred_is_read_round_damage_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the way through the table is damaged the index leads to the blocks, deferred ones like the others."""
    world = World(tmp_path, memory_messages=10)
    for number in range(20):
        world.publish("t", 1, 20, 60.0 if number % 2 else 0.0)
        await world.quiet()
    store = world.broker.store
    assert isinstance(store, DurableStore)
    topic = store.log("t").ident  # type: ignore[attr-defined]
    counts = {deferred: len(store.reader.now(topic, 0, 1000, 1000, deferred=deferred)) for deferred in (False, True)}
    assert sum(counts.values()) == 20
    for name in ("_RANGE", "_DEFERRED"):
        monkeypatch.setattr(f"qtools.broker.disk.reader.{name}", "SELECT 1 FROM nowhere WHERE ? AND ? AND ?")
    for deferred, count in counts.items():
        blocks = store.reader.now(topic, 0, 1000, 1000, deferred=deferred)
        assert [bool(block.due) for block in blocks] == [deferred] * count
    monkeypatch.setattr("qtools.broker.disk.reader._INDEX", "SELECT 1, 1, 1, 1 FROM nowhere WHERE ? AND ? AND ?")
    for deferred, count in counts.items():
        blocks = store.reader.now(topic, 0, 1000, 1000, deferred=deferred)
        assert [bool(block.due) for block in blocks] == [deferred] * count
    monkeypatch.undo()
    world.close()

"""What a channel reads again is damaged, missing, or cannot be read just now: the rest is delivered and counted."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from broker.inside import come_true
from qtools.broker.core.block import MessageRange
from qtools.broker.core.clock import Clock
from qtools.broker.disk import reader
from qtools.broker.disk import store as store_module
from qtools.broker.disk.channel.backlog import ChannelBacklog
from qtools.broker.disk.database import FILE
from tests.broker.disk.world import World


def change_rows(statement: str) -> Callable[[Path], None]:
    """A change of the database between two runs of the broker."""

    def change(directory: Path) -> None:
        connection = sqlite3.connect(directory / FILE)
        connection.execute(statement)
        connection.commit()
        connection.close()

    return change


DAMAGE = "UPDATE block SET frames = zeroblob(length(frames))"


async def publish_blocks(world: World, count: int, size: int = 3) -> None:
    """Blocks of `size` messages each."""
    for _ in range(count):
        world.publish("t", size)
        await world.quiet()


async def take_all(world: World, count: int) -> None:
    """`count` messages are delivered and finished, and then nothing waits any more."""
    client = world.subscribe("t", "c", 1000)
    await come_true(lambda: len(client.holds) == count)
    client.finish(list(client.holds))
    channel = world.broker.topics["t"].channels["c"]
    await come_true(lambda: channel.depth == 0)
    assert (channel.deferred, channel.held) == (0, 0)
    assert not world.wrong


def restart_when_all_is_due(world: World, change: Callable[[Path], None] = lambda directory: None) -> None:
    """Restart a broker, after `change` of its files, with a clock that is 1001 s ahead."""
    for owed in world.accounts["t", "c"].owed.values():
        owed.not_before = 0.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_module, "Clock", lambda monotonic: Clock(monotonic, time.time_ns() + round(1001e9)))
        world.restart_with(change)


@pytest.mark.parametrize("blocks", [12, 13, 14])  # the last read of what waits ends within them, or behind them
@pytest.mark.parametrize("how", ["damaged", "deleted"])
async def test_a_requeued_block_that_is_due_and_lost(how: str, blocks: int, tmp_path: Path) -> None:
    """What waits on disk besides it is counted without it, and delivered to the last message."""
    world = World(tmp_path, memory_messages=10)
    await world.channel("t", "c")
    await publish_blocks(world, blocks)
    client = world.subscribe("t", "c", 6)
    await come_true(lambda: len(client.holds) == 6)
    client.consumer.ready = 0
    for ident in list(client.holds):
        client.requeue(ident, 1000.0)
    await world.quiet()
    statement = DAMAGE if how == "damaged" else "DELETE FROM block"
    restart_when_all_is_due(world, change_rows(statement + " WHERE seq = (SELECT min(seq) FROM block)"))
    channel = world.broker.topics["t"].channels["c"]
    assert (channel.depth, channel.deferred) == (3 * blocks, 0)
    await take_all(world, 3 * blocks - 3)
    assert world.broker.health.startswith("NOK - 3 messages of t cannot be read")
    world.restart()
    assert world.broker.topics["t"].channels["c"].depth == 0
    world.close()


@pytest.mark.parametrize("how", ["damaged", "deleted"])
async def test_a_deferred_block_that_is_lost_before_it_is_due(how: str, tmp_path: Path) -> None:
    world = World(tmp_path, memory_messages=10)
    await world.channel("t", "c")
    await publish_blocks(world, 30)
    client = world.subscribe("t", "c", 90)
    await come_true(lambda: len(client.holds) == 90)
    client.consumer.ready = 0
    for ident in list(client.holds):
        client.requeue(ident, 1.0)
    await world.quiet()
    statement = DAMAGE if how == "damaged" else "DELETE FROM block"
    world.restart_with(change_rows(statement + " WHERE seq = (SELECT min(seq) + 7 FROM block)"))
    channel = world.broker.topics["t"].channels["c"]
    assert channel.depth + channel.deferred == 90
    await take_all(world, 87)
    await world.quiet()
    assert world.broker.health.startswith("NOK - 3 messages of t cannot be read")
    world.restart()
    channel = world.broker.topics["t"].channels["c"]
    assert (channel.depth, channel.deferred) == (0, 0)
    world.close()


@pytest.mark.parametrize("how", ["damaged", "deleted"])
async def test_a_message_that_came_back_and_is_lost_when_it_is_read_again(how: str, tmp_path: Path) -> None:
    """A block of which one message is finished: its others come again after a restart."""
    world = World(tmp_path, memory_messages=10)
    await world.channel("t", "c")
    await publish_blocks(world, 20)
    client = world.subscribe("t", "c", 12)
    await come_true(lambda: len(client.holds) == 12)
    client.consumer.ready = 0
    client.finish(sorted(client.holds)[::3])
    await world.quiet()
    statement = DAMAGE if how == "damaged" else "DELETE FROM block"
    channel = world.broker.topics["t"].channels["c"]
    for ident in sorted(client.holds):
        client.requeue(ident, 0.0)
    await world.quiet()
    world.restart()
    change_rows(statement + " WHERE seq = (SELECT min(seq) + 1 FROM block)")(world.directory)
    channel = world.broker.topics["t"].channels["c"]
    assert channel.depth == 56
    await take_all(world, 54)
    await world.quiet()
    assert world.broker.health.startswith("NOK - ")
    world.restart()
    assert world.broker.topics["t"].channels["c"].depth == 0
    world.close()


@pytest.mark.parametrize(("first", "count"), [(0, 1), (15, 3), (28, 2)])
async def test_what_was_never_read_and_is_no_longer_there(first: int, count: int, tmp_path: Path) -> None:
    world = World(tmp_path, memory_messages=10)
    await world.channel("t", "c")
    await publish_blocks(world, 30)
    (lowest,) = world.store.reader._quick.execute("SELECT min(seq) FROM block").fetchone()
    lost = range(lowest + first, lowest + first + count)
    world.restart()
    change_rows(f"DELETE FROM block WHERE seq BETWEEN {lost[0]} AND {lost[-1]}")(world.directory)
    world.publish("t", 3)
    await world.quiet()
    await take_all(world, 3 * (31 - count))
    (found,) = world.store.lost
    assert found.messages == 3 * count
    assert found.first_block <= lost[0]
    assert lost[-1] <= found.last_block
    assert world.broker.health.startswith(f"NOK - {3 * count} messages of t cannot be read")
    world.restart()
    assert world.broker.topics["t"].channels["c"].depth == 0
    world.close()


async def make_all_kinds(world: World) -> int:
    """Messages that wait on disk in each way: never read, come back, due and not read; how many."""
    await world.channel("t", "c")
    await publish_blocks(world, 20)
    client = world.subscribe("t", "c", 30)
    await come_true(lambda: len(client.holds) == 30)
    client.consumer.ready = 0
    idents = sorted(client.holds)
    client.finish(idents[:12:3])
    for ident in idents[15:]:
        client.requeue(ident, 1000.0)  # they are due after the restart, at which the clock is set forward
    await world.quiet()
    restart_when_all_is_due(world)
    assert world.broker.topics["t"].channels["c"].depth == 56
    return 56


@pytest.mark.parametrize("failures", [1, 2, 5])
async def test_reads_that_fail_are_tried_again(
    failures: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(store_module, "AGAIN", 0.01)
    world = World(tmp_path, memory_messages=10)
    count = await make_all_kinds(world)
    failed: dict[str, int] = {}

    def fails_at_first(name: str) -> None:
        real = getattr(reader, name)

        def read(*args: Any, **settings: Any) -> Any:
            if failed.setdefault(name, 0) < failures:
                failed[name] += 1
                raise OSError("the disk is away")
            return real(*args, **settings)

        monkeypatch.setattr(reader, name, read)

    for name in ("read_range", "read_these", "_read_progress"):
        fails_at_first(name)
    await take_all(world, count)
    assert failed == dict.fromkeys(failed, failures)
    assert set(failed) == {"read_range", "read_these", "_read_progress"}
    assert "the disk is away; trying again" in caplog.text
    assert world.broker.health == "OK"
    await world.drain()
    world.close()


@pytest.mark.parametrize("kind", range(3))
async def test_a_channel_that_is_emptied_while_it_is_read(kind: int, tmp_path: Path) -> None:
    """The read ends after that: nothing of it is delivered, and what comes next is."""
    world = World(tmp_path, memory_messages=10)
    await make_all_kinds(world)
    channel = world.broker.topics["t"].channels["c"]
    backlog = channel.backlog
    assert isinstance(backlog, ChannelBacklog)
    for _ in range(kind):  # what comes back, what is due, what was never read: in this order
        backlog.fetch()
        await come_true(lambda: backlog.ready > 0)
        while backlog.ready:
            run = backlog.take(100, 1 << 20)
            backlog.finish(run.block, range(run.start, run.stop))
    backlog.fetch()
    assert not backlog.ready  # the answer comes in a later turn
    assert backlog.cold
    channel.empty()
    world.accounts["t", "c"].owed.clear()
    world.publish("t", 5)
    await world.quiet()
    assert channel.depth == 5
    await take_all(world, 5)
    await world.drain()
    world.close()


async def test_a_look_that_cannot_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, memory_messages=10)
    await make_all_kinds(world)
    backlog = world.broker.topics["t"].channels["c"].backlog

    async def peek() -> list[MessageRange] | None:
        found: asyncio.Future[list[MessageRange] | None] = asyncio.get_running_loop().create_future()
        backlog.peek(1000, found.set_result)
        return await found

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError("the disk is away")

    for name in ("read_these", "_read_progress", "read_range"):
        with monkeypatch.context() as patch:
            patch.setattr(reader, name, fail)
            assert await peek() is None
    runs = await peek()
    assert runs is not None
    assert sum(map(len, runs)) == 56
    await world.drain()
    world.close()

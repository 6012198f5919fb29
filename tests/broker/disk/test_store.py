"""What the durable store keeps, and when it lets go of it."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.inside import come_true
from qtools.broker.disk.database import FILE
from qtools.broker.disk.retention import Retain
from tests.broker.disk.damaged import change
from tests.broker.disk.world import SLOPPY, World


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


# ── what is kept ──────────────────────────────────────────────────────────────────────────────────


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
    due = time.time() + 0.6
    client.requeue(next(iter(client.holds)), 0.6)
    await world.quiet()
    if how == "restart":
        world.restart()
    else:
        await world.crash()
    channel = world.broker.topics["t"].channels["c"]
    assert (channel.depth, channel.deferred) == (0, 4)
    begun = time.time()
    client = world.subscribe("t", "c", 10)
    await come_true(lambda: len(client.holds) == 4)
    assert due - SLOPPY < time.time() < max(due, begun) + 2.0
    assert not world.wrong  # it would say what came too early
    world.close()


@pytest.mark.parametrize("delay", [0, 100])
@pytest.mark.parametrize("count", [1, 30])  # blocks; the channel has room for 50 messages
async def test_what_an_ephemeral_channel_got_from_a_paused_topic_leaves_the_disk(
    count: int, delay: int, world: World
) -> None:
    broker = world.broker
    topic = broker.topic("t")
    channel = broker.channel("t", "c#ephemeral")
    topic.pause(broker.now(), time.time_ns())
    for _ in range(count):
        commit = broker.publish("t", [b"x"] * 10, delay)
        assert commit is not None
        await come_true(lambda commit=commit: commit.done)
    assert await blocks(world) == count
    topic.unpause(broker.now(), time.time_ns())
    held = 10 if count == 1 else 50
    assert channel.depth + channel.deferred == held
    assert (channel.messages, channel.dropped) == (held, 10 * count - held)
    await come_true(lambda: world.store.is_idle)
    assert await blocks(world) == 0


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


# ── space ─────────────────────────────────────────────────────────────────────────────────────────


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


# ── the format of the release before ──────────────────────────────────────────────────────────────


async def test_a_channel_does_not_get_what_was_published_before_it_and_is_not_safe_yet(world: World) -> None:
    """Neither when it is safe, nor after a restart."""
    await world.channel("t", "c")
    is_free = threading.Event()
    world.store.writer.do(lambda _: is_free.wait(20), lambda *_: None)
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

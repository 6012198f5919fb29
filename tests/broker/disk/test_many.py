"""Many topics and many channels: what is done for each of them is not done for all of them each time.

Calls are counted, not seconds: the machine may be slow, and the square of a number is not.
"""

from __future__ import annotations

import gc
import json
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from broker.inside import come_true
from qtools.broker.core.broker import COLLECT_AT
from qtools.broker.core.slices import in_one
from qtools.broker.disk.channel.backlog import ChannelBacklog
from qtools.broker.disk.database import FILE
from qtools.broker.disk.retention import ALL, Age, Removal, Retain, Sweeper
from qtools.broker.observe.stats import as_json, collect

from .world import World

MANY = 300


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often channels are asked."""
    counted: Counter[str] = Counter()

    def counting(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            counted[name] += 1
            return real(*arguments)

        return call

    monkeypatch.setattr(ChannelBacklog, "is_done", counting("is_done", ChannelBacklog.is_done))
    low = ChannelBacklog.low.fget
    assert low is not None
    monkeypatch.setattr(ChannelBacklog, "low", property(counting("low", low)))
    return counted


def rows(world: World, table: str) -> int:
    connection = sqlite3.connect(world.directory / FILE)
    (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    connection.close()
    return int(count)


def blocks_at(timestamps: dict[int, list[int]]) -> sqlite3.Connection:
    """A database in memory with blocks of topics, dated so (ns since 1970)."""
    database = sqlite3.connect(":memory:")
    database.execute(
        "CREATE TABLE block (seq INTEGER PRIMARY KEY, topic INTEGER, count INTEGER, due INTEGER, timestamp INTEGER,"
        " size INTEGER)"
    )
    database.execute("CREATE INDEX block_of_topic ON block (topic, seq, count, due, timestamp, size)")
    dated = [(topic, timestamp) for topic, some in timestamps.items() for timestamp in some]
    database.executemany("INSERT INTO block (topic, count, due, timestamp, size) VALUES (?, 1, 0, ?, 1)", dated)
    return database


async def world_with(room: Path, topics: int, channels: int, **settings: Any) -> World:
    world = World(room, **settings)
    for topic in range(topics):
        for channel in range(channels):
            world.broker.channel(f"t{topic}", f"c{channel}")
    await world.quiet()
    return world


async def publish(world: World, *topics: str) -> None:
    """A message to each of `topics`, safe when this returns."""
    commits = [world.broker.publish(topic, [b"x"]) for topic in topics]
    await come_true(lambda: all(commit is not None and commit.done for commit in commits))


@pytest.mark.parametrize("order", ["first to last", "last to first", "any"])
async def test_finishing_asks_each_channel_a_few_times_at_most(tmp_path: Path, calls: Counter[str], order: str) -> None:
    world = await world_with(tmp_path, 1, MANY)
    for _ in range(5):
        await publish(world, "t0")
    channels = list(world.broker.topics["t0"].channels.values())
    if order == "last to first":
        channels.reverse()
    elif order == "any":
        random.Random(7).shuffle(channels)
    assert all(channel.depth == 5 for channel in channels)
    calls.clear()
    for channel in channels:
        while channel.backlog.ready:
            run = channel.backlog.take(1, 1 << 20)
            channel.backlog.finish(run.block, range(run.start, run.stop))
    await world.quiet()
    assert calls["is_done"] < 5 * 4 * MANY
    assert calls["low"] < 20 * MANY
    await come_true(lambda: rows(world, "block") == 0)
    world.close()


async def test_a_slow_channel_among_many_keeps_its_messages_and_no_more(tmp_path: Path) -> None:
    world = await world_with(tmp_path, 1, 20)
    for _ in range(50):
        await publish(world, "t0")
    slow, *others = world.broker.topics["t0"].channels.values()
    for channel in others:
        while channel.backlog.ready:
            run = channel.backlog.take(1, 1 << 20)
            channel.backlog.finish(run.block, range(run.start, run.stop))
    await world.quiet()
    assert rows(world, "block") == slow.depth == 50
    world.broker.delete_channel(world.broker.topics["t0"], slow.name)
    await come_true(lambda: rows(world, "block") == 0)
    world.close()


@pytest.mark.parametrize("what", ["delete the topic", "delete each channel", "empty each channel"])
async def test_what_ends_many_channels_asks_each_a_few_times_at_most(
    tmp_path: Path, calls: Counter[str], what: str
) -> None:
    world = await world_with(tmp_path, 1, MANY)
    await publish(world, "t0")
    topic = world.broker.topics["t0"]
    calls.clear()
    if what == "delete the topic":
        world.broker.delete_topic("t0")
    for name in list(topic.channels):
        if what == "delete each channel":
            world.broker.delete_channel(topic, name)
        else:
            topic.channels[name].empty()
    await world.quiet()
    assert calls["is_done"] < 4 * MANY
    assert calls["low"] < 20 * MANY
    if what != "delete each channel":
        await come_true(lambda: rows(world, "block") == 0)
    assert rows(world, "channel") == (MANY if what == "empty each channel" else 0)
    world.close()


async def test_what_many_channels_finished_is_written_over_several_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qtools.broker.disk.pending_writes.MOST_CHANNELS", 7)
    world = await world_with(tmp_path, 1, 100)
    await publish(world, "t0")
    for channel in world.broker.topics["t0"].channels.values():
        run = channel.backlog.take(1, 1 << 20)
        channel.backlog.finish(run.block, range(run.start, run.stop))
    await come_true(lambda: rows(world, "block") == 0)
    await world.quiet()
    connection = sqlite3.connect(world.directory / FILE)
    assert connection.execute("SELECT count(DISTINCT low), min(low) FROM channel").fetchone() == (1, 2)
    connection.close()
    world.close()


async def test_what_many_channels_finished_is_written_when_the_broker_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qtools.broker.disk.pending_writes.MOST_CHANNELS", 7)
    world = await world_with(tmp_path, 1, 100)
    await publish(world, "t0")
    await world.quiet()
    for channel in world.broker.topics["t0"].channels.values():
        run = channel.backlog.take(1, 1 << 20)
        channel.backlog.finish(run.block, range(run.start, run.stop))
    world.close()
    with closing(sqlite3.connect(world.directory / FILE)) as connection:
        assert connection.execute("SELECT count(DISTINCT low), min(low) FROM channel").fetchone() == (1, 2)


# ── retention ───────────────────────────────────────────────────────────────────────────────────────


def test_what_is_to_be_removed_does_not_pile_up() -> None:
    sweeper = Sweeper(Retain(age=1.0))
    age = Age(until=50, old=0)
    with closing(blocks_at({topic: [40, 60] for topic in range(2000)})) as database:
        for _ in range(10):
            sweeper.remove_old(sweeper.look_for_old([(topic, ALL) for topic in range(2000)], age, database))
        assert len(sweeper.removals) == 2000
        sweeper.remove_topic(7)
        sweeper.remove_old(sweeper.look_for_old([(7, ALL)], age, database))
    assert [key for key in sweeper.removals if key[0] == 7] == [(7, "last")]


def test_where_nothing_is_old_enough_there_is_nothing_to_remove() -> None:
    sweeper = Sweeper(Retain(age=1.0))
    with closing(blocks_at({1: [60, 70], 2: [40, 60]})) as database:
        sweeper.remove_old(sweeper.look_for_old([(1, ALL), (2, ALL), (3, ALL)], Age(50, 0), database))
    assert list(sweeper.removals) == [(2, "age")]


# A block is dated by the system's clock, which may be wrong.


def test_what_is_dated_in_the_future_goes_when_the_broker_has_had_it_for_the_time() -> None:
    sweeper = Sweeper(Retain(age=100.0))
    with closing(blocks_at({1: [10**18, 10**18, 10**18]})) as database:
        left = []
        for monotonic, next_seq in ((0.0, 3), (50.0, 4), (99.0, 4), (100.0, 4), (149.0, 4), (150.0, 4)):
            age = sweeper.find_age(round(monotonic * 1e9), monotonic, next_seq)
            for removal in sweeper.look_for_old([(1, ALL)], age, database).values():
                removal.run(database, 100)
            left.append([seq for (seq,) in database.execute("SELECT seq FROM block ORDER BY seq")])
    assert left == [[1, 2, 3]] * 3 + [[3], [3], []]


def test_only_so_many_moments_are_remembered() -> None:
    sweeper = Sweeper(Retain(age=86400.0))
    for minute in range(3 * 1440):
        age = sweeper.find_age(0, minute * 60.0, minute)
        assert age.old == 0 if minute < 1440 else minute - 1440 - 5 < age.old <= minute - 1440
    assert len(sweeper._counts) < 510


HOUR = 3600 * 10**9  # ns


@pytest.mark.parametrize(("ahead_when_published", "ahead_then"), [(HOUR, 0), (0, HOUR), (HOUR, HOUR)])
async def test_retention_takes_its_time_whatever_becomes_of_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead_when_published: int, ahead_then: int
) -> None:
    monkeypatch.setattr("qtools.broker.disk.maintenance.SWEEP_EVERY", 0.1)
    world = await world_with(tmp_path, 1, 1, retain=Retain(age=1.0))
    real = time.time_ns
    ahead = ahead_when_published
    monkeypatch.setattr("qtools.broker.core.broker.time.time_ns", lambda: real() + ahead)
    begun = time.monotonic()
    await publish(world, "t0")
    ahead = ahead_then
    (channel,) = world.broker.topics["t0"].channels.values()
    run = channel.backlog.take(1, 1 << 20)
    channel.backlog.finish(run.block, range(run.start, run.stop))
    await come_true(lambda: rows(world, "block") == 0)
    assert time.monotonic() - begun > 0.9
    world.close()


def test_what_failed_is_tried_again_and_what_came_meanwhile_counts() -> None:
    sweeper = Sweeper(Retain())
    sweeper.remove_below(1, 10)
    sweeper.remove_below(2, 10)
    _, removals = sweeper.take()
    assert removals is not None
    assert sweeper.is_idle
    sweeper.remove_below(1, 20)
    sweeper.give_back(removals, failed=True)
    assert {key: removal.below for key, removal in sweeper.removals.items()} == {(1, "below"): 20, (2, "below"): 10}


async def test_retention_is_honoured_for_2000_topics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qtools.broker.disk.maintenance.SWEEP_EVERY", 1.0)
    world = await world_with(tmp_path, 2000, 1, retain=Retain(age=0.2))
    await publish(world, *world.broker.topics)
    for topic in world.broker.topics.values():
        (channel,) = topic.channels.values()
        run = channel.backlog.take(1, 1 << 20)
        channel.backlog.finish(run.block, range(run.start, run.stop))
    await come_true(lambda: rows(world, "block") == 0, 30.0)
    await world.quiet()  # and looks that find nothing leave nothing to do
    world.close()


def test_a_removal_of_many_blocks_goes_on_where_it_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qtools.broker.disk.retention.CHUNK", 10)
    taken: list[tuple[int, int]] = []

    def run(removal: Removal, connection: object, most: int) -> int:
        taken.append((removal.topic, most))
        return min(most, 4)

    monkeypatch.setattr(Removal, "run", run)
    sweeper = Sweeper(Retain())
    for topic in range(5):
        sweeper.remove_below(topic, 10)
    _, removals = sweeper.take()
    assert removals is not None
    assert removals.run(None)  # type: ignore[arg-type]
    assert taken == [(0, 10), (1, 6), (2, 2)]
    sweeper.give_back(removals, failed=False)
    assert [key[0] for key in sweeper.removals] == [2, 3, 4]


# ── what is told of many ────────────────────────────────────────────────────────────────────────────


async def test_json_in_pieces_is_the_same_as_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qtools.broker.observe.stats._AT_ONCE", 3)
    world = await world_with(tmp_path, 4, 7)
    world.broker.topic("without")
    for chosen in ({}, {"topic": "t1"}, {"topic": "t1", "channel": "c2"}, {"topic": "none"}):
        told = collect(world.broker, (), **chosen)  # type: ignore[arg-type]
        assert json.loads(in_one(as_json(told))) == told
    world.close()


# ── the garbage collector ───────────────────────────────────────────────────────────────────────────


async def test_with_many_channels_the_collector_stops_the_loop_for_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qtools.broker.core.broker.SET_ASIDE", 10)
    before = gc.get_threshold()
    try:
        gc.set_threshold(50_000, 20, 100)  # as the programs of qtools
        world = await world_with(tmp_path, 1, 8)
        assert gc.get_threshold() == (50_000, 20, 100)
        world.broker.channel("t0", "one")
        assert gc.get_threshold() == COLLECT_AT
        assert gc.get_freeze_count()
        world.close()
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()

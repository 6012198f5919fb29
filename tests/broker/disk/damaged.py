"""Databases for the tests: damaged or changed ones, and the account that must balance."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from broker.inside import come_true
from qtools.broker.core.block import HEAD
from qtools.broker.core.broker import Broker
from qtools.broker.core.channel import Channel
from qtools.broker.disk.database import FILE, connect
from qtools.broker.disk.integrity.damage import DIRECTORY, REPORT
from qtools.broker.disk.store import DurableStore
from qtools.broker.options import Options
from qtools.errors import StartError
from tests.broker.disk.world import World

PAGE = 16384


async def make_database(room: Path) -> tuple[Path, set[bytes], set[bytes]]:
    """A directory with a real database; which bodies topic `t` still has for channel `c`, and which it had finished."""
    world = World(room)
    await world.channel("t", "c")
    await world.channel("u", "c")
    for nth in range(40):
        world.publish("t", 20, 20 if nth % 2 else 1500)
        world.publish("u", 1)
        await world.quiet()
    client = world.subscribe("t", "c", 330)
    await come_true(lambda: len(client.holds) == 330)
    idents = sorted(client.holds)
    client.finish(idents[:205] + idents[210:213])
    for ident in idents[300:303]:
        client.requeue(ident, 0.0)
    await world.quiet()
    account = world.accounts["t", "c"].owed
    left = {body for body, owed in account.items() if not owed.finished}
    world.close()
    return world.directory, left, set(account) - left


async def drain(channel: Channel) -> set[bytes]:
    """What the channel delivers until nothing waits any more."""
    found: set[bytes] = set()

    def drained() -> bool:
        while channel.backlog.ready:
            run = channel.backlog.take(100, 1 << 20)
            block = run.block
            found.update(block.frames[block.offset(n) + HEAD : block.offset(n + 1)] for n in range(run.start, run.stop))
            channel.backlog.finish(block, range(run.start, run.stop))
        channel.backlog.fetch()
        return not channel.backlog.depth

    await come_true(drained)
    return found


async def read_all(directory: Path) -> tuple[set[bytes], set[bytes]]:
    """What topic `t` delivers to channel `c` until nothing waits any more, and the topics that have something lost."""
    store = DurableStore(directory, sync="off", memory_messages=50)
    broker = Broker(Options(), store)
    found: set[bytes] = set()
    topic = broker.topics.get("t")
    try:
        if topic is not None and "c" in topic.channels:
            found = await drain(topic.channels["c"])
            await come_true(lambda: store._checker is None or store._checker.is_done)
            assert broker.health == "OK" if not store.lost else broker.health.startswith("NOK")
        return found, {one.topic for one in store.lost}
    finally:
        broker.close()


async def judge(directory: Path, left: set[bytes], finished: set[bytes]) -> str:
    """Read a damaged database, and answer what became of it: refused, reported, whole."""
    try:
        found, lost = await read_all(directory)
    except StartError:
        return "refused"
    assert not found - left - finished, "altered"
    if left - found:
        assert lost - {"u"}, f"{len(left - found)} messages are missing, and nothing is reported"
        assert (directory / DIRECTORY / REPORT).exists()
        return "reported"
    return "whole"


def as_page(path: Path, table: str) -> int:
    """Where the first page of a table or index begins."""
    connection = sqlite3.connect(path)
    (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
    connection.close()
    return (int(page) - 1) * PAGE


def overwrite(path: Path, place: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(data)


def change(directory: Path, statement: str) -> None:
    """A change of the database between two runs of the broker."""
    connection = connect(directory / FILE)
    connection.execute(statement)
    connection.close()

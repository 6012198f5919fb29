"""A database with damage anywhere: what was stored is delivered unaltered, or it is reported as missing."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from broker.inside import come_true
from qtools.broker.block import HEAD
from qtools.broker.broker import Broker
from qtools.broker.disk import database
from qtools.broker.disk.damage import DIRECTORY, REPORT
from qtools.broker.disk.database import FILE
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


async def read_all(directory: Path) -> tuple[set[bytes], set[bytes]]:
    """What topic `t` delivers to channel `c` until nothing waits any more, and the topics that have something lost."""
    store = DurableStore(directory, sync="off", hot_messages=50)
    broker = Broker(Options(), store)
    found: set[bytes] = set()
    topic = broker.topics.get("t")
    try:
        if topic is not None and "c" in topic.channels:
            channel = topic.channels["c"]

            def drained() -> bool:
                while channel.backlog.ready:
                    run = channel.backlog.take(100, 1 << 20)
                    block = run.block
                    found.update(
                        block.frames[block.offset(n) + HEAD : block.offset(n + 1)] for n in range(run.start, run.stop)
                    )
                    channel.backlog.finish(block, range(run.start, run.stop))
                channel.backlog.fetch()
                return not channel.backlog.depth

            await come_true(drained)
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
        assert "t" in lost, f"{len(left - found)} messages are missing, and nothing is reported"
        assert (directory / DIRECTORY / REPORT).exists()
        return "reported"
    return "whole"


def flip(path: Path, chance: random.Random) -> None:
    """Damage at one place: a bit, a byte, some bytes, a sector or a page."""
    data = bytearray(path.read_bytes())
    place = chance.randrange(100, len(data))
    kind = chance.random()
    if kind < 0.3:
        data[place] ^= 1 << chance.randrange(8)
    elif kind < 0.6:
        place = place // PAGE * PAGE + chance.randrange(64)  # where pages have their structure
        data[place] ^= chance.randrange(1, 256)
    elif kind < 0.8:
        data[place : place + 16] = chance.randbytes(len(data[place : place + 16]))
    elif kind < 0.9:
        place = place // 512 * 512
        data[place : place + 512] = bytes(512)
    else:
        place = place // PAGE * PAGE
        data[place : place + PAGE] = bytes(len(data[place : place + PAGE]))
    path.write_bytes(data)


async def try_seeds(seeds: range, room: Path) -> dict[str, int]:
    directory, left, finished = await make_database(room)
    outcomes: dict[str, int] = {}
    for seed in seeds:
        copy = room / f"copy-{seed}"
        shutil.copytree(directory, copy)
        flip(copy / FILE, random.Random(seed))
        try:
            outcome = await judge(copy, left, finished)
        except BaseException as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        shutil.rmtree(copy)
    return outcomes


@pytest.mark.parametrize("looks_through", [True, False], ids=["small", "large"])
async def test_damage_is_reported_and_the_rest_delivered(
    looks_through: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not looks_through:  # as with a database that is too large to be looked through at each start
        monkeypatch.setattr(database, "_CHECK_WHOLE", 0)
    outcomes = await try_seeds(range(25), tmp_path)
    assert outcomes["reported"] > 0

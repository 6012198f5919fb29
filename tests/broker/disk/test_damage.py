"""A database with damage anywhere: what was stored is delivered unaltered, or it is reported as missing."""

from __future__ import annotations

import random
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from broker.inside import come_true
from qtools.broker.core.block import HEAD, Block
from qtools.broker.core.broker import Broker
from qtools.broker.core.channel import Channel
from qtools.broker.disk import reader
from qtools.broker.disk.database import FILE
from qtools.broker.disk.integrity import opening
from qtools.broker.disk.integrity.damage import DIRECTORY, REPORT
from qtools.broker.disk.integrity.wal import damage_of_log
from qtools.broker.disk.store import DurableStore
from qtools.broker.observe import stats
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
    store = DurableStore(directory, sync="off", hot_messages=50)
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


@pytest.mark.parametrize("table", ["topic", "channel", "progress", "block", "block_of_topic"])
@pytest.mark.parametrize("length", [64, PAGE])
async def test_a_page_of_every_table_and_of_an_index(table: str, length: int, tmp_path: Path) -> None:
    """All of them are read again, as their content stands elsewhere as well, but for a part of the blocks."""
    directory, left, finished = await make_database(tmp_path)
    overwrite(directory / FILE, as_page(directory / FILE, table), b"\xa5" * length)
    outcome = await judge(directory, left, finished)
    assert outcome == "whole" if table != "block" else outcome in ("whole", "reported")
    assert list((directory / DIRECTORY).glob(f"{FILE}-*"))


async def test_a_topic_whose_name_cannot_be_read_anywhere_keeps_its_messages_and_channels(tmp_path: Path) -> None:
    """It gets another name; a message that it had finished may come again, and none is missing."""
    directory, left, finished = await make_database(tmp_path)
    connection = sqlite3.connect(directory / FILE)
    connection.execute("DELETE FROM topic WHERE name = 't'")
    connection.execute("UPDATE topic SET paused = 1")  # its checksum is wrong then, so that a repair is begun
    connection.commit()
    connection.close()
    store = DurableStore(directory, sync="off", hot_messages=50)
    broker = Broker(Options(), store)
    try:
        name = "damaged-topic-1"
        assert sorted(broker.topics) == sorted([name, "u"])
        assert any(
            one.topic == name and "the name of topic number 1 cannot be read" in one.reason for one in store.lost
        )
        channel = broker.topics[name].channels["c"]
        found = await drain(channel)
        assert left <= found <= left | finished
        assert channel.depth == 0
        assert not [one for one in store.lost if one.messages]
    finally:
        broker.close()


@pytest.mark.parametrize("change", ["UPDATE topic SET paused = 1", "DELETE FROM topic"])
async def test_what_waits_in_a_topic_without_a_channel_is_there_when_its_row_is_not(
    change: str, tmp_path: Path
) -> None:
    world = World(tmp_path)
    await world.channel("u", "c")
    for delay in (0.0, 0.1, 0.0):
        world.publish("t", 10, delay=delay)
    await world.quiet()

    def damage(directory: Path) -> None:
        connection = sqlite3.connect(directory / FILE)
        connection.execute(f"{change} WHERE name = 't'")
        connection.execute("UPDATE topic SET paused = 1 WHERE name = 'u'")  # so that a repair is begun
        connection.commit()
        connection.close()

    world.restart_with(damage)
    name = "t" if "UPDATE" in change else "damaged-topic-3"
    assert world.broker.topics[name].depth == 30
    world.held[name] = world.held.pop("t")
    await world.channel(name, "c")
    await world.drain()
    world.close()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE channel SET low = low + 10",
        "UPDATE progress SET done = zeroblob(0)",
        "UPDATE progress SET done = replace(CAST(done AS TEXT), x'00', x'01')",
        "UPDATE topic SET held_from = 7",
        "UPDATE topic SET name = 'T' WHERE name = 't'",
        "UPDATE block SET count = count + 1 WHERE seq = (SELECT max(seq) - 1 FROM block)",
        "UPDATE block SET timestamp = timestamp + 1 WHERE seq = (SELECT max(seq) - 1 FROM block)",
        "UPDATE block SET frames = replace(frames, x'78787878', x'78787979')",
        "DELETE FROM progress",
    ],
)
async def test_a_row_that_is_not_what_was_written(change: str, tmp_path: Path) -> None:
    directory, left, finished = await make_database(tmp_path)
    connection = sqlite3.connect(directory / FILE)
    connection.execute(change)
    connection.commit()
    connection.close()
    assert await judge(directory, left, finished) != "refused"


async def test_a_database_that_was_cut(tmp_path: Path) -> None:
    directory, left, finished = await make_database(tmp_path)
    path = directory / FILE
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 // PAGE * PAGE])
    assert await judge(directory, left, finished) == "reported"


async def test_what_was_reported_is_told_until_its_report_is_moved_away(tmp_path: Path) -> None:
    directory, left, finished = await make_database(tmp_path)
    connection = sqlite3.connect(directory / FILE)
    (seq, count), *_ = connection.execute(
        "SELECT seq, count FROM block WHERE topic = 1 ORDER BY seq DESC LIMIT 1"
    ).fetchall()
    connection.execute("UPDATE block SET frames = zeroblob(length(frames)) WHERE seq = ?", (seq,))
    connection.commit()
    connection.close()
    assert await judge(directory, left, finished) == "reported"
    assert (directory / DIRECTORY / f"block-{seq}").stat().st_size > 0
    for is_there in (True, False):
        store = DurableStore(directory, sync="off")
        broker = Broker(Options(), store)
        if not is_there:
            (directory / DIRECTORY).rename(directory / "seen")
        told = stats.collect(broker, ())
        if is_there:
            assert broker.health.startswith(f"NOK - {count} messages of t cannot be read: see {directory / DIRECTORY}")
        else:
            assert broker.health == "OK"
        (lost,) = told["damaged"]
        assert (lost["topic"], lost["first_block"], lost["messages"]) == ("t", seq, count)
        assert "Damaged:\n   [t" in stats.as_text(told)
        broker.close()


async def test_a_read_that_fails_for_another_reason_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    directory, left, finished = await make_database(tmp_path)
    monkeypatch.setattr("qtools.broker.disk.store.AGAIN", 0.01)
    errors: list[Exception] = [MemoryError(), OSError("the disk is away")]
    real = reader.checked

    def failing(row: tuple[Any, ...], topic: int, seq: int) -> Block:
        if errors:
            raise errors.pop()
        return real(row, topic, seq)

    monkeypatch.setattr(reader, "checked", failing)
    assert await judge(directory, left, finished) == "whole"
    assert not errors
    assert "cannot read messages: OSError: the disk is away; trying again" in caplog.text
    assert caplog.text.count("messages can be read again") == 1


# ── the write-ahead log ─────────────────────────────────────────────────────────────────────────


async def make_crashed(room: Path) -> tuple[Path, set[bytes]]:
    """A directory as kill -9 leaves it, with a log; and the bodies."""
    world = World(room)
    await world.channel("t", "c")
    for _ in range(20):
        world.publish("t", 5, 300)
        await world.quiet()
    copy = room / "crashed"
    shutil.copytree(world.directory, copy)
    bodies = set(world.accounts["t", "c"].owed)
    world.close()
    return copy, bodies


@pytest.mark.parametrize("place", [5, 20, 32 + 3, 32 + 12, 32 + 18, 500, 0.3, 0.6, 0.9])
async def test_damage_in_the_log(place: float, tmp_path: Path) -> None:
    directory, bodies = await make_crashed(tmp_path)
    log = directory / f"{FILE}-wal"
    size = log.stat().st_size
    at = int(place if place > 1 else size * place)
    overwrite(log, at, bytes([log.read_bytes()[at] ^ 0x10]))
    before = log.read_bytes()
    assert damage_of_log(log) != ""
    assert await judge(directory, bodies, set()) == "reported"
    (kept,) = (directory / DIRECTORY).glob(f"{FILE}-wal-*")
    assert kept.read_bytes() == before


async def test_a_log_that_ends_within_a_transaction_is_no_damage(tmp_path: Path) -> None:
    directory, bodies = await make_crashed(tmp_path)
    log = directory / f"{FILE}-wal"
    assert damage_of_log(log) == ""
    data = log.read_bytes()
    log.write_bytes(data + bytes(3 * (PAGE + 24)))  # allocated, and not written before the power was gone
    assert damage_of_log(log) == ""
    assert await judge(directory, bodies, set()) == "whole"
    assert not (directory / DIRECTORY).exists()


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
        monkeypatch.setattr(opening, "CHECK_WHOLE", 0)
        monkeypatch.setattr(opening, "MOST_ROWS", 0)
    outcomes = await try_seeds(range(15), tmp_path)
    assert outcomes["reported"] > 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("looks_through", [True, False], ids=["small", "large"])
async def test_damage_at_hundreds_of_places(
    looks_through: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not looks_through:
        monkeypatch.setattr(opening, "CHECK_WHOLE", 0)
    outcomes = await try_seeds(range(1000, 1400), tmp_path)
    assert outcomes["reported"] > 50
    assert outcomes.get("refused", 0) < 40  # the file's head, and the schema


async def test_an_order_by_due_time_that_is_damaged_makes_the_health_nok(tmp_path: Path) -> None:
    directory, _, _ = await make_database(tmp_path)
    store = DurableStore(directory, sync="off")
    broker = Broker(Options(), store)
    try:
        answers: list[object] = []

        def fail(*_: object) -> None:
            raise sqlite3.DatabaseError("database disk image is malformed")

        store.reader._worker.do(fail, lambda rows, error: store.reader._answer(answers.append, 1, rows, (), error))
        await come_true(lambda: answers)
        assert answers == [None]
        assert broker.health.startswith("NOK - the database was damaged: see ")
        assert (directory / DIRECTORY / REPORT).exists()
    finally:
        broker.close()


@pytest.mark.parametrize(
    "change",
    [
        "attempts = x'01'",
        "attempts = x'0100'",
        "due = x'01'",
        "done = 'text'",
        "done = 7",
        "done = zeroblob(3)",
        "done = zeroblob(3000)",
        "due = 1.5",
        "unfinished = 'many'",
    ],
)
@pytest.mark.parametrize("delay", [0.0, 0.3, pytest.param(60.0, marks=pytest.mark.slow)])
async def test_a_progress_row_that_is_damaged_in_a_large_database(
    change: str, delay: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows are not compared with their checksums at the start: the messages come again, all of them."""
    monkeypatch.setattr(opening, "CHECK_WHOLE", 0)
    monkeypatch.setattr(opening, "MOST_ROWS", 0)
    world = World(tmp_path)
    await world.channel("t", "c")
    for _ in range(3):
        world.publish("t", 20)
        await world.quiet()
    client = world.subscribe("t", "c", 60)
    await come_true(lambda: len(client.holds) == 60)
    client.consumer.ready = 0
    idents = sorted(client.holds)
    client.finish(idents[::2])
    for ident in idents[1::2]:
        client.requeue(ident, delay)
    await world.quiet()
    left = {body for body, owed in world.accounts["t", "c"].owed.items() if not owed.finished}

    def damage(directory: Path) -> None:
        connection = sqlite3.connect(directory / FILE)
        connection.execute(f"UPDATE progress SET {change} WHERE seq = 2")
        assert connection.total_changes == 1
        connection.commit()
        connection.close()

    world.restart_with(damage)
    channel = world.broker.topics["t"].channels["c"]
    if delay > 1:
        assert channel.depth + channel.deferred >= 30
    else:
        await come_true(lambda: not channel.deferred)
        assert await drain(channel) >= left
    world.close()

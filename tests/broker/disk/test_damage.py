"""Damage to a database: everything that can be read is delivered, and the rest is reported."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from broker.inside import come_true
from qtools.broker.core.block import Block
from qtools.broker.core.broker import Broker
from qtools.broker.disk import reader
from qtools.broker.disk.database import FILE
from qtools.broker.disk.database_thread import DatabaseThread
from qtools.broker.disk.integrity import opening
from qtools.broker.disk.integrity.damage import DIRECTORY, REPORT
from qtools.broker.disk.store import DurableStore
from qtools.broker.observe import stats
from qtools.broker.options import Options
from tests.broker.disk.damaged import PAGE, as_page, drain, judge, make_database, overwrite
from tests.broker.disk.world import World


@pytest.mark.parametrize("table", ["topic", "channel", "progress", "block", "block_of_topic"])
@pytest.mark.parametrize("length", [64, PAGE])
async def test_a_page_of_every_table_and_of_an_index(table: str, length: int, tmp_path: Path) -> None:
    """All of them are read again, as their content stands elsewhere as well, but for a part of the blocks."""
    directory, left, finished = await make_database(tmp_path)
    overwrite(directory / FILE, as_page(directory / FILE, table), b"\xa5" * length)
    outcome = await judge(directory, left, finished)
    assert outcome == "whole" if table != "block" else outcome in ("whole", "reported")
    assert list((directory / DIRECTORY).glob(f"{FILE}-*"))


async def test_a_repair_on_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory, left, finished = await make_database(tmp_path)
    overwrite(directory / FILE, as_page(directory / FILE, "topic"), b"\xa5" * PAGE)
    before = (directory / FILE).read_bytes()

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    assert await judge(directory, left, finished) == "whole"
    (kept,) = [each for each in (directory / DIRECTORY).glob(f"{FILE}-*") if not each.name.endswith(("-wal", "-shm"))]
    assert len(kept.read_bytes()) == len(before)


async def test_a_topic_whose_name_cannot_be_read_anywhere_keeps_its_messages_and_channels(tmp_path: Path) -> None:
    """It gets another name; a message that it had finished may come again, and none is missing."""
    directory, left, finished = await make_database(tmp_path)
    connection = sqlite3.connect(directory / FILE)
    connection.execute("DELETE FROM topic WHERE name = 't'")
    connection.execute("UPDATE topic SET paused = 1")  # its checksum is wrong then, so that a repair is begun
    connection.commit()
    connection.close()
    store = DurableStore(directory, sync="off", memory_messages=50)
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


# ── the write-ahead log ───────────────────────────────────────────────────────────────────────────


async def test_an_order_by_due_time_that_is_damaged_makes_the_health_nok(tmp_path: Path) -> None:
    directory, _, _ = await make_database(tmp_path)
    store = DurableStore(directory, sync="off")
    broker = Broker(Options(), store)
    try:
        overwrite(directory / FILE, as_page(directory / FILE, "block_by_due"), b"\xa5" * PAGE)
        answers: list[object] = []
        store.reader.next_due(1, 1, (0, 0), 1 << 62, 10, answers.append)
        await come_true(lambda: answers)
        assert answers == [None]
        assert broker.health.startswith("NOK - the database was damaged: see ")
        assert (directory / DIRECTORY / REPORT).exists()
    finally:
        broker.close()


async def test_a_check_that_ends_with_the_broker_reports_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    directory, _, _ = await make_database(tmp_path)
    monkeypatch.setattr(opening, "CHECK_WHOLE", 0)
    monkeypatch.setattr(opening, "MOST_ROWS", 0)
    at_the_start = opening.find_damage
    has_begun = threading.Event()

    def check_for_ever(connection: sqlite3.Connection, *, whole: bool, most_rows: int | None = None) -> str:
        if most_rows is not None:
            return at_the_start(connection, whole=whole, most_rows=most_rows)
        has_begun.set()
        connection.execute(
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"
        ).fetchall()
        raise AssertionError("it has no end")

    monkeypatch.setattr(opening, "find_damage", check_for_ever)
    store = DurableStore(directory, sync="off")
    await come_true(has_begun.is_set)
    checker = store._checker
    assert checker is not None
    store.close()
    await come_true(lambda: checker.is_done)
    assert caplog.messages == []


async def test_a_check_that_has_not_begun_when_the_broker_ends_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes minutes in a large database, and an interruption before it begins has no effect."""
    directory, _, _ = await make_database(tmp_path)
    monkeypatch.setattr(opening, "CHECK_WHOLE", 0)
    monkeypatch.setattr(opening, "MOST_ROWS", 0)
    may_go_on, checks = threading.Event(), []
    begin, at_the_start = DatabaseThread._run, opening.find_damage

    def begin_late(thread: DatabaseThread) -> None:
        if threading.current_thread().name == "q-broker checker":
            assert may_go_on.wait(20)
        begin(thread)

    def note(connection: sqlite3.Connection, **which: Any) -> str:
        checks.append(which)
        return at_the_start(connection, **which)

    monkeypatch.setattr(DatabaseThread, "_run", begin_late)
    monkeypatch.setattr(opening, "find_damage", note)
    store = DurableStore(directory, sync="off")
    threading.Timer(0.1, may_go_on.set).start()  # while `close` waits for the thread
    store.close()
    assert [which for which in checks if "most_rows" not in which] == []


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

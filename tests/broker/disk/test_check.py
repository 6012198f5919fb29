"""`q-broker check DIR` as a program: what it prints, and its exit status."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest
from harness.brokers import Q_BROKER, Broker
from harness.shell import Shell

from qtools.broker.disk.database import FILE


@pytest.fixture
def broker(tmp_path: Path) -> Broker:
    """A broker that has stopped, with 5,000 messages."""
    made = Broker(Q_BROKER, tmp_path / "broker")
    made.start()
    made.create("t", "c")
    made.fill("t", [b"%d" % n * 100 for n in range(5000)])
    made.stop()
    return made


def test_a_whole_database(broker: Broker, shell: Shell) -> None:
    files = {path: path.read_bytes() for path in broker.room.iterdir() if path.is_file()}
    done = shell.run("q-broker", "check", broker.room)
    assert (done.status, done.err) == (0, "")
    assert done.out.decode().startswith(f"all good: {broker.room / FILE}: 1 topic, ")
    assert done.out.decode().endswith(" 1 topic, 5,000 messages read\n")
    assert all(path.read_bytes() == data for path, data in files.items() if path.name != "lock")


def test_while_a_broker_runs(broker: Broker, shell: Shell) -> None:
    broker.start()
    try:
        broker.fill("t", [b"one more"])
        done = shell.run("q-broker", "check", broker.room)
        assert done.status == 0, done.err
        assert "5,001 messages read" in done.out.decode()
        assert broker.ask("GET", "/ping") == (200, b"OK")
    finally:
        broker.close()


def test_a_damaged_block_is_named_and_the_status_is_1(broker: Broker, shell: Shell) -> None:
    connection = sqlite3.connect(broker.room / FILE)
    connection.execute("UPDATE block SET frames = zeroblob(length(frames)) WHERE seq = (SELECT min(seq) FROM block)")
    connection.commit()
    connection.close()
    done = shell.run("q-broker", "check", broker.room)
    assert done.status == 1
    first, last = done.out.decode().splitlines()
    assert first.startswith("topic t: ")
    assert first.endswith(" messages cannot be read (block 1): its checksum is wrong")
    counts = re.fullmatch(r".*: 1 topic, ([0-9,]+) messages read, ([0-9,]+) damaged", last)
    assert counts is not None, last
    read, damaged = (int(count.replace(",", "")) for count in counts.groups())
    assert f"{damaged:,} messages cannot be read" in first
    assert (damaged > 0, read + damaged) == (True, 5000)


def test_a_directory_without_a_database(tmp_path: Path, shell: Shell) -> None:
    done = shell.run("q-broker", "check", tmp_path)
    assert done.status == 1
    assert "messages.db is not there" in done.err
    assert done.err.count("\n") == 1


def test_an_empty_database(broker: Broker, shell: Shell) -> None:
    (broker.room / FILE).write_bytes(b"")
    done = shell.run("q-broker", "check", broker.room)
    assert done.status == 1
    assert done.out.decode() == f"{broker.room / FILE} is empty\n"


def change(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def test_a_row_with_a_wrong_checksum(broker: Broker, shell: Shell) -> None:
    change(broker.room / FILE, "UPDATE channel SET low = low + 1")
    done = shell.run("q-broker", "check", broker.room)
    assert (done.status, done.err) == (1, "")
    first, _ = done.out.decode().splitlines()
    assert first == f"{broker.room / FILE}: the checksum of 1 rows of table channel is wrong"


@pytest.mark.parametrize("table", ["topic", "channel", "progress", "block", "block_of_topic", "sqlite_schema"])
@pytest.mark.parametrize("length", [40, 16384])
def test_a_page_that_was_overwritten(table: str, length: int, broker: Broker, shell: Shell) -> None:
    path = broker.room / FILE
    connection = sqlite3.connect(path)
    row = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
    connection.close()
    place = (row[0] - 1) * 16384 if row else 100  # the first page has the file's head before the schema
    with path.open("r+b") as file:
        file.seek(place)
        file.write(b"\xa5" * (length - (0 if row else 100)) if length > 100 else b"\xa5" * length)
    done = shell.run("q-broker", "check", broker.room)
    assert (done.status, done.err) == (1, "")
    assert done.out.decode().startswith((f"{path}: ", "topic t: "))
    assert "all good" not in done.out.decode()


def test_a_name_that_is_no_text(broker: Broker, shell: Shell) -> None:
    change(broker.room / FILE, "UPDATE topic SET name = CAST(x'ff74' AS TEXT)")
    done = shell.run("q-broker", "check", broker.room)
    assert (done.status, done.err) == (1, "")
    assert done.out.decode().startswith(f"{broker.room / FILE}: ")


def test_damage_in_the_write_ahead_log(broker: Broker, shell: Shell) -> None:
    broker.start()
    broker.fill("t", [b"%d" % n * 100 for n in range(5000)])
    broker.kill()
    path = broker.room / f"{FILE}-wal"
    before = path.read_bytes()
    data = bytearray(before)
    data[32 + 24 + 500] ^= 1
    path.write_bytes(data)
    done = shell.run("q-broker", "check", broker.room)
    assert (done.status, done.err) == (1, "")
    assert done.out.decode().startswith(f"{path}: its frame 1 of ")
    assert path.read_bytes() == data  # it is still there for a repair


def test_what_was_set_aside_before_is_a_problem(broker: Broker, shell: Shell) -> None:
    change(broker.room / FILE, "UPDATE channel SET low = low + 1")
    broker.start()
    broker.stop()
    report = broker.room / "damaged" / "report.jsonl"
    done = shell.run("q-broker", "check", broker.room)
    assert (done.status, done.err) == (1, "")
    assert done.out.decode().splitlines()[0] == f"messages were set aside before: see {report}"
    (broker.room / "damaged").rename(broker.room / "seen")
    assert shell.run("q-broker", "check", broker.room).status == 0


@pytest.mark.parametrize("kind", ["directory", "text", "database", "format"])
def test_what_is_no_database_of_this_version(kind: str, tmp_path: Path, shell: Shell, broker: Broker) -> None:
    path = broker.room / FILE
    if kind == "format":
        change(path, "PRAGMA user_version = 1")
    else:
        path.unlink()
        if kind == "directory":
            path.mkdir()
        elif kind == "text":
            path.write_text("something else\n" * 100)
        else:
            change(path, "CREATE TABLE own (a)")
    done = shell.run("q-broker", "check", broker.room)
    assert done.status == 1
    said = done.out.decode() + done.err
    assert said.count("\n") == 1, said
    assert str(path) in said
    assert "Traceback" not in said

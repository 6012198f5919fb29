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

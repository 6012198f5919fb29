"""A data directory that cannot be used: the broker says why in one line, ends with status 3, and leaves it as it is."""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.brokers import Q_BROKER, Broker
from harness.shell import Shell

from qtools.broker.disk.database import FILE
from tests.broker.crash.test_small_disks import take_all

PAGE = 16384


def mount(place: Path, *options: str) -> None:
    """A file system of its own, or other options for it."""
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mount(place, "size=32m")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=False)


@pytest.fixture
def cannot_start(shell: Shell) -> Callable[[Path], str]:
    """The one line that q-broker ends with, status 3."""

    def start(directory: Path) -> str:
        done = shell.run(
            "q-broker", "--data-path", directory, "--tcp-address", "127.0.0.1:0", "--http-address", "127.0.0.1:0"
        )
        lines = done.err.splitlines()
        assert done.status == 3, done.err
        assert "Traceback" not in done.err
        assert done.out == b""
        return lines[-1]

    return start


def test_a_directory_on_a_read_only_disk(disk: Path, cannot_start: Callable[[Path], str]) -> None:
    (disk / "here").mkdir()
    mount(disk, "remount,ro")
    assert cannot_start(disk / "here").endswith(f"cannot open {disk / 'here' / 'lock'}: read-only file system")
    assert "read-only file system" in cannot_start(disk / "new")


def test_a_directory_on_a_full_disk(disk: Path, cannot_start: Callable[[Path], str]) -> None:
    (disk / "here").mkdir()
    with (disk / "other").open("wb") as file:
        take_all(file.fileno())
    line = cannot_start(disk / "here")
    assert f"cannot make {disk / 'here' / FILE}: " in line
    assert "the disk is full" in line or "no space left on device" in line
    assert not (disk / "here" / FILE).exists()


def test_a_directory_where_the_database_should_be(tmp_path: Path, cannot_start: Callable[[Path], str]) -> None:
    (tmp_path / FILE).mkdir()
    assert cannot_start(tmp_path).endswith(f"cannot read {tmp_path / FILE}: is a directory")


def test_a_file_where_the_directory_should_be(tmp_path: Path, cannot_start: Callable[[Path], str]) -> None:
    (tmp_path / "data").write_text("")
    assert f"cannot use --data-path {tmp_path / 'data'}: " in cannot_start(tmp_path / "data")


def test_a_directory_that_another_broker_uses(tmp_path: Path, cannot_start: Callable[[Path], str]) -> None:
    broker = Broker(Q_BROKER, tmp_path / "broker")
    broker.start()
    try:
        assert broker.process is not None
        used = f"{broker.room} is used by another broker (pid {broker.process.pid}): choose another --data-path"
        assert cannot_start(broker.room).endswith(used)
    finally:
        broker.close()


def test_a_damaged_database_without_room_for_a_copy(disk: Path, cannot_start: Callable[[Path], str]) -> None:
    """It is as before, with no half copy beside it; with room the start copies what can be read."""
    broker = Broker(Q_BROKER, disk / "broker")
    broker.start()
    try:
        broker.create("t", "c")
        for _ in range(8):
            broker.fill("t", [bytes([n]) * 1000 for n in range(256)] * 4)
        broker.stop()
        path = broker.room / FILE
        with sqlite3.connect(path) as connection:
            (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'block_of_topic'").fetchone()
        connection.close()
        with path.open("r+b") as file:
            file.seek((page - 1) * PAGE)
            file.write(b"\xa5" * PAGE)
        (broker.room / "reserve").unlink()
        with (disk / "other").open("wb") as file:
            file.truncate(0)
            file.write(bytes(17_000_000))
        before = path.read_bytes()
        files = {one.name for one in broker.room.iterdir()} | {"damaged", "reserve"}
        line = cannot_start(broker.room)
        assert "and what can be read of it cannot be copied: " in line
        assert "it was left as it is: make room for a copy (" in line
        assert path.read_bytes() == before
        assert {one.name for one in broker.room.iterdir()} <= files
        (disk / "other").unlink()
        broker.start()
        assert len(broker.bodies("t", "c")) == 8 * 1024
    finally:
        broker.close()

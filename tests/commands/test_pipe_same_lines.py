"""q-pipe on rotated logs in which every line is the same: contents do not tell one file from the next, and no line is
left out."""

from __future__ import annotations

import gzip
import os
import shutil
import signal
from pathlib import Path

import pytest
from harness.brokers import Broker
from harness.shell import Shell
from harness.waiting import wait_until

pytestmark = pytest.mark.forks

LINES = b"same\n" * 100


def append(path: Path, text: bytes) -> None:
    with path.open("ab") as file:
        file.write(text)


def rotate(log: Path, way: str, packed: bool) -> None:
    """As logrotate does: older files are shifted, `create` or `copytruncate`, then the newest is compressed."""
    for number in (3, 2, 1):
        for end in ("", ".gz"):
            if (old := Path(f"{log}.{number}{end}")).exists():
                old.rename(f"{log}.{number + 1}{end}")
    newest = Path(f"{log}.1")
    if way == "create":
        log.rename(newest)
        log.touch()
    else:
        shutil.copyfile(log, newest)
        os.truncate(log, 0)
    if packed:
        Path(f"{newest}.gz").write_bytes(gzip.compress(newest.read_bytes()))
        shutil.copystat(newest, f"{newest}.gz")
        newest.unlink()


both = pytest.mark.parametrize(("way", "packed"), [(a, b) for a in ("create", "copytruncate") for b in (False, True)])


@both
def test_a_run_after_each_rotation(shell: Shell, broker: Broker, topic: str, way: str, packed: bool) -> None:
    log = shell.home / "app.log"
    log.write_bytes(LINES)
    words = [topic, "app.log", "--checkpoint", "position", *broker.flags]
    for count in range(1, 5):
        done = shell.run("q-pipe", *words)
        assert done.status == 0, done.err
        assert broker.published(topic) == 100 * count, done.err
        rotate(log, way, packed)
        append(log, LINES)


@both
def test_two_rotations_between_two_runs(shell: Shell, broker: Broker, topic: str, way: str, packed: bool) -> None:
    log = shell.home / "app.log"
    log.write_bytes(LINES)
    words = [topic, "app.log", "--checkpoint", "position", *broker.flags]
    assert shell.run("q-pipe", *words).status == 0
    for _ in range(2):
        rotate(log, way, packed)
        append(log, LINES)
    assert shell.run("q-pipe", *words).status == 0
    assert broker.published(topic) == 300


@both
def test_a_run_that_follows(shell: Shell, broker: Broker, topic: str, way: str, packed: bool) -> None:
    log = shell.home / "app.log"
    log.write_bytes(LINES)
    pipe = shell.start("q-pipe", topic, "-F", "app.log", "--checkpoint", "position", *broker.flags)
    for count in range(1, 5):
        wait_until(lambda count=count: broker.published(topic) == 100 * count, what=lambda: pipe.err)
        rotate(log, way, packed)
        append(log, LINES)
    wait_until(lambda: broker.published(topic) == 500, what=lambda: pipe.err)
    pipe.signal(signal.SIGTERM)
    assert pipe.wait().status == 0


def test_another_file_that_differs_in_the_middle(shell: Shell, broker: Broker, topic: str) -> None:
    """Its size, its first and its last bytes are those of the file that was read."""
    log = shell.home / "app.log"
    log.write_bytes(LINES * 50 + b"old \n" * 1000 + LINES * 50)
    words = [topic, "app.log", "--checkpoint", "position", *broker.flags]
    assert shell.run("q-pipe", *words).status == 0
    log.rename(f"{log}.1")
    log.write_bytes(LINES * 50 + b"new \n" * 1000 + LINES * 50)
    Path(f"{log}.1").unlink()
    done = shell.run("q-pipe", *words, "--on-missing", "skip")
    assert done.status == 1
    assert broker.published(topic) == 22_000


def test_another_file_with_the_same_contents_is_sent_and_a_warning_says_so(
    shell: Shell, broker: Broker, topic: str
) -> None:
    log = shell.home / "app.log"
    log.write_bytes(LINES)
    words = [topic, "app.log", "--checkpoint", "position", *broker.flags]
    assert shell.run("q-pipe", *words).status == 0
    fresh = shell.home / "fresh"
    fresh.write_bytes(LINES)
    fresh.rename(log)
    done = shell.run("q-pipe", *words)
    assert done.status == 0
    assert "app.log is another file than the one read last time, with the same contents: it is read from" in done.err
    assert broker.published(topic) == 200

"""q-pipe --checkpoint on logs that are rotated between two runs: every line once, in order, whole."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from harness.brokers import Broker
from harness.shell import Shell
from harness.waiting import wait_until

pytestmark = pytest.mark.forks

zstd = import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
COMPRESSED = {".gz": gzip.compress, ".zst": zstd.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


@pytest.fixture
def log(shell: Shell) -> Path:
    path = shell.home / "app.log"
    path.write_bytes(b"1\n2\n")
    return path


def rotate(log: Path, *, new: bytes = b"") -> None:
    """As logrotate does with `create`."""
    for number in (3, 2, 1):
        for end in ("", *COMPRESSED):
            if (old := Path(f"{log}.{number}{end}")).exists():
                old.rename(f"{log}.{number + 1}{end}")
    log.rename(f"{log}.1")
    log.write_bytes(new)


def append(path: Path, text: bytes) -> None:
    with path.open("ab") as file:
        file.write(text)


def run(shell: Shell, broker: Broker, topic: str, *words: str, status: int = 0) -> str:
    """One run over app.log; what it says."""
    names = [word for word in words if not word.startswith("-")] or ["app.log"]
    flags = [word for word in words if word.startswith("-")]
    done = shell.run("q-pipe", topic, *names, "--checkpoint", "position", *flags, *broker.flags)
    assert done.status == status, done.err
    return done.err


def test_a_renamed_file_is_finished_first(shell: Shell, broker: Broker, topic: str, log: Path) -> None:
    run(shell, broker, topic)
    append(log, b"3\n")
    rotate(log, new=b"4\n5\n")
    run(shell, broker, topic)
    run(shell, broker, topic)
    assert broker.bodies(topic) == [b"1", b"2", b"3", b"4", b"5"]


def test_a_log_that_was_empty_and_whose_times_are_older(shell: Shell, broker: Broker, topic: str, log: Path) -> None:
    """The clock was set back between two runs."""
    log.write_bytes(b"")
    run(shell, broker, topic)
    append(log, b"1\n2\n")
    os.utime(log, (1_000_000_000, 1_000_000_000))
    rotate(log, new=b"3\n")
    os.utime(log, (1_000_000_100, 1_000_000_100))
    run(shell, broker, topic)
    run(shell, broker, topic)
    assert broker.bodies(topic) == [b"1", b"2", b"3"]


@pytest.mark.parametrize("packed", ["", *COMPRESSED])
def test_several_rotations_between_two_runs(shell: Shell, broker: Broker, topic: str, log: Path, packed: str) -> None:
    run(shell, broker, topic)
    append(log, b"3\n")
    rotate(log, new=b"4\n")
    rotate(log, new=b"5\n")
    rotate(log, new=b"6\n")
    if packed:
        for number in (2, 3):
            old = Path(f"{log}.{number}")
            Path(f"{old}{packed}").write_bytes(COMPRESSED[packed](old.read_bytes()))
            old.unlink()
    run(shell, broker, topic)
    append(log, b"7\n")
    run(shell, broker, topic)
    assert broker.bodies(topic) == [b"1", b"2", b"3", b"4", b"5", b"6", b"7"]


def test_a_copied_and_cut_file(shell: Shell, broker: Broker, topic: str, log: Path) -> None:
    """copytruncate: the inode stays; the new contents may be longer than the old."""
    run(shell, broker, topic)
    append(log, b"3\n")
    Path(f"{log}.1").write_bytes(log.read_bytes())
    os.truncate(log, 0)
    append(log, b"4\n5\n6\n7\n8\n")
    run(shell, broker, topic)
    assert broker.bodies(topic) == [b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"8"]


def test_half_a_line_is_left_until_it_is_whole(shell: Shell, broker: Broker, topic: str, log: Path) -> None:
    append(log, b"half a")
    assert "6 bytes of a last message without its end left for later" in run(shell, broker, topic)
    append(log, b" line\n")
    run(shell, broker, topic)
    assert broker.bodies(topic) == [b"1", b"2", b"half a line"]


@pytest.mark.parametrize(
    ("form", "text", "rest"),
    [
        ("envelope", b'{"body":"a"}\n{"bo', b'dy":"b"}\n'),
        ("length32", b"\0\0\0\1a\0\0\0", b"\1b"),
        ("msgpack", b"\x81\xa4body\xc4\1a\x81\xa4bo", b"dy\xc4\1b"),
    ],
)
def test_half_a_message_of_any_format(
    shell: Shell, broker: Broker, topic: str, log: Path, form: str, text: bytes, rest: bytes
) -> None:
    log.write_bytes(text)
    run(shell, broker, topic, f"--format={form}")
    append(log, rest)
    run(shell, broker, topic, f"--format={form}")
    assert broker.bodies(topic) == [b"a", b"b"]


def test_half_a_line_at_the_end_of_a_rotated_file_is_its_last(
    shell: Shell, broker: Broker, topic: str, log: Path
) -> None:
    append(log, b"no end")
    run(shell, broker, topic)
    rotate(log, new=b"3\n")
    run(shell, broker, topic)
    assert broker.bodies(topic) == [b"1", b"2", b"no end", b"3"]


def test_lines_that_come_late_to_a_rotated_file(shell: Shell, broker: Broker, topic: str, log: Path) -> None:
    run(shell, broker, topic)
    rotate(log, new=b"4\n")
    run(shell, broker, topic)
    append(Path(f"{log}.1"), b"late\n")
    append(log, b"5\n")
    run(shell, broker, topic)
    assert broker.bodies(topic) == [b"1", b"2", b"4", b"late", b"5"]


def test_a_run_between_the_rename_and_the_new_file(shell: Shell, broker: Broker, topic: str, log: Path) -> None:
    run(shell, broker, topic)
    append(log, b"3\n")
    log.rename(f"{log}.1")
    run(shell, broker, topic)
    log.write_bytes(b"4\n")
    run(shell, broker, topic)
    assert broker.bodies(topic) == [b"1", b"2", b"3", b"4"]


def test_what_is_found_nowhere_is_said_and_with_rotated_it_is_found(
    shell: Shell, broker: Broker, topic: str, log: Path
) -> None:
    run(shell, broker, topic)
    append(log, b"3\n")
    (shell.home / "old").mkdir()
    log.rename(shell.home / "old" / "app-monday")
    log.write_bytes(b"4\n")
    told = run(shell, broker, topic, status=1)
    assert (
        "q-pipe: app.log: the file read last time (up to byte 4) is gone: it is neither app.log nor any app.log.*;"
        in (told)
    )
    assert "confirmed:" not in told
    run(shell, broker, topic, f"--rotated={shell.home}/old/app-*")
    assert broker.bodies(topic) == [b"1", b"2", b"3", b"4"]


def test_a_damaged_compressed_file_is_no_silent_loss(shell: Shell, broker: Broker, topic: str, log: Path) -> None:
    run(shell, broker, topic)
    append(log, os.urandom(5000).hex().encode() + b"\n")
    rotate(log, new=b"4\n")
    packed = gzip.compress(Path(f"{log}.1").read_bytes())
    Path(f"{log}.1").unlink()
    Path(f"{log}.1.gz").write_bytes(packed[:-2000])
    told = run(shell, broker, topic, status=1)
    assert "q-pipe: app.log.1.gz is damaged, or cut off" in told


def test_files_are_named_as_they_were_typed(shell: Shell, broker: Broker, topic: str, log: Path) -> None:
    (shell.home / "logs").mkdir()
    log.rename(shell.home / "logs" / "app.log")
    words = ["--checkpoint", "position", "--format", "envelope", *broker.flags]
    for typed, name in (
        ("logs/app.log", "logs/app.log"),
        ("./logs/*.log", "./logs/app.log"),
        (f"{log.parent}/logs/app.log",) * 2,
    ):
        done = shell.run("q-pipe", topic, typed, *words)
        assert done.status == 1
        assert f"q-pipe: {name}: " in done.err
    for typed, told in (
        ("no/such.log", "cannot read no/such.log"),
        ("no/*.log", "no/*.log leads to no file"),
        ("logs", "logs is a directory"),
    ):
        done = shell.run(
            "q-pipe", topic, typed, "--follow" if typed == "logs" else "-v", *broker.flags, "--checkpoint", "other"
        )
        assert done.status == 2
        assert f"q-pipe: {told}" in done.err


def test_rotated_files_that_are_named_are_read_before_their_log(
    shell: Shell, broker: Broker, topic: str, log: Path
) -> None:
    """A shell makes app.log app.log.1 app.log.2 of app.log*."""
    rotate(log, new=b"3\n")
    rotate(log, new=b"4\n")
    run(shell, broker, topic, "app.log", "app.log.1", "app.log.2")
    append(log, b"5\n")
    rotate(log, new=b"6\n")
    run(shell, broker, topic, "app.log", "app.log.1", "app.log.2", "app.log.3")
    assert broker.bodies(topic) == [b"1", b"2", b"3", b"4", b"5", b"6"]


def test_a_checkpoint_of_an_earlier_version_is_read(shell: Shell, broker: Broker, topic: str, log: Path) -> None:
    (shell.home / "other").write_bytes(b"a\nb\n")
    told = {"topic": topic, "inputs": [str(log), f"{shell.home}/other"]}
    told |= {"file": 1, "offset": 2, "total": 6, "messages": 3}
    (shell.home / "position").write_text(json.dumps(told) + "\n")
    append(log, b"3\n")
    assert "going on after the 3 messages sent before" in run(shell, broker, topic, "app.log", "other")
    assert broker.bodies(topic) == [b"3", b"b"]
    assert "logs" in json.loads((shell.home / "position").read_text())


def test_a_second_run_says_that_there_is_a_first(shell: Shell, broker: Broker, topic: str, log: Path) -> None:
    log.write_bytes(b"".join(b"%d\n" % number for number in range(400)))
    words = [topic, "app.log", "--checkpoint", "position", *broker.flags]
    first = shell.start("q-pipe", *words, "--follow")  # goes on until it is stopped
    wait_until(lambda: broker.published(topic) == 400)
    second = shell.run("q-pipe", *words)
    assert second.status == 3
    assert f"the checkpoint position is in use by process {first.pid}: two runs" in second.err
    skipped = shell.run("q-pipe", *words, "--skip-if-running")
    assert (skipped.status, skipped.err) == (0, "")
    first.signal(signal.SIGTERM)
    assert first.wait().status == 0
    assert broker.bodies(topic) == [b"%d" % number for number in range(400)]
    assert sorted(path.name for path in shell.home.iterdir()) == ["app.log", "position", "run"]


def test_runs_that_overlap_send_each_line_once(shell: Shell, broker: Broker, topic: str, log: Path) -> None:
    """As cron starts them, whether or not the run before has ended, while the log is rotated."""
    log.write_bytes(b"")
    words = [topic, "app.log", "--checkpoint", "position", "--skip-if-running", "--batch-count", "50", *broker.flags]
    assert shell.run("q-pipe", *words).status == 0
    count = 0
    for nth in range(4):
        runs = [shell.start("q-pipe", *words, "--rate", "2000") for _ in range(3)]
        for _ in range(5):
            append(log, b"".join(b"%04d\n" % number for number in range(count, count + 40)))
            count += 40
        rotate(log, new=b"%04d\n" % count) if nth % 2 else append(log, b"%04d\n" % count)
        count += 1
        assert [each.wait().status for each in runs] == [0, 0, 0]
    assert shell.run("q-pipe", *words).status == 0
    assert broker.bodies(topic) == [b"%04d" % number for number in range(count)]


def test_a_second_run_with_stdin(shell: Shell, broker: Broker, topic: str) -> None:
    words = [topic, "--checkpoint", "position", *broker.flags]
    first = shell.start("q-pipe", *words, stdin=subprocess.PIPE)
    first.feed(b"1\n")
    wait_until(lambda: broker.published(topic) == 1)
    assert shell.run("q-pipe", *words, input=b"1\n").status == 3
    first.end_input()
    assert first.wait().status == 0
    assert broker.bodies(topic) == [b"1"]


def test_a_disk_that_is_full_for_the_checkpoint(shell: Shell, broker: Broker, topic: str, log: Path) -> None:
    run(shell, broker, topic)
    append(log, b"3\n")
    words = f"{topic} app.log --checkpoint position {' '.join(broker.flags)}"
    done = shell.script(f"ulimit -f 0; q-pipe {words}").wait()
    assert done.status == 3
    assert "cannot write the checkpoint position: File too large" in done.err
    run(shell, broker, topic)
    assert broker.bodies(topic) == [b"1", b"2", b"3"]


def test_a_directory_of_checkpoints(shell: Shell, broker: Broker, topic: str, log: Path) -> None:
    (shell.home / "state").mkdir()
    for _ in range(2):
        done = shell.run("q-pipe", topic, "app.log", "--checkpoint", "state", *broker.flags)
        assert done.status == 0, done.err
    assert broker.bodies(topic) == [b"1", b"2"]
    assert len(list((shell.home / "state").iterdir())) == 1

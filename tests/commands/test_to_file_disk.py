"""A disk that is full or forbids: q-to-file pauses, says so once, keeps its messages alive, goes on by itself."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.archives import finished, lines
from harness.brokers import Broker
from harness.shell import Running, Shell
from harness.waiting import pass_time, wait_until

BODY = b"x" * 1000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB, where the test may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=2m", "qtools-test", str(place)]
    try:
        mounted = subprocess.run(words, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount")
    if mounted.returncode:
        pytest.skip(f"may not mount a file system: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def numbered(count: int, first: int = 0) -> list[bytes]:
    return [b"%06d " % number + BODY for number in range(first, first + count)]


def archive(shell: Shell, broker: Broker, topic: str, output: Path, *words: str | Path) -> Running:
    return shell.start(
        "q-to-file", f"{topic}/me", "-o", output, "--msg-timeout", "1s", "--sync-interval", "20ms",
        "--sync-count", "100", *words, *broker.flags,
    )  # fmt: skip


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_full_disk_pauses_and_room_resumes(
    shell: Shell, broker: Broker, topic: str, tmp_path: Path, small_disk: Path, compression: str
) -> None:
    broker.create(topic, "me")
    ballast = small_disk / "ballast"
    ballast.write_bytes(os.urandom(1_900_000))
    bodies = [b"%06d " % number + os.urandom(500).hex().encode() for number in range(1000)]
    broker.fill(topic, bodies)
    running = archive(shell, broker, topic, small_disk / "a", "--compression", compression)
    running.wait_err("No space left on device")
    pass_time(2.5)  # two and a half msg_timeouts: what is held is touched, and not delivered again
    paused = broker.depth(topic, "me")
    assert paused.held > 0
    assert paused.clients == 1
    assert paused.timed_out == 0
    assert running.err.count("No space left on device") == 1
    assert "nothing is acknowledged until that is over" in running.err
    ballast.unlink()
    running.wait_err("writing again, after ")
    wait_until(lambda: broker.depth(topic, "me").held == 0)
    running.signal(signal.SIGTERM)
    done = running.wait(10)
    assert done.status == 0
    assert sorted(lines(small_disk / "a")) == bodies


def test_stopped_on_a_full_disk_the_rest_goes_back_and_the_next_run_ends_the_file(
    shell: Shell, broker: Broker, topic: str, small_disk: Path
) -> None:
    broker.create(topic, "me")
    bodies = [b"%06d " % number + os.urandom(500).hex().encode() for number in range(6000)]
    broker.fill(topic, bodies)
    running = archive(shell, broker, topic, small_disk / "a", "--gzip")
    running.wait_err("No space left on device")
    held = broker.depth(topic, "me").held
    running.signal(signal.SIGTERM)
    running.wait(10)  # whether there is room for what ends the file depends on the file system
    assert broker.wait_held(topic, "me", held, 5).timed_out == 0
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    words = ["-o", small_disk / "a", "--gzip", "--until-empty", "-q", *broker.flags]
    assert shell.run("q-to-file", f"{topic}/me", *words).status == 0
    # What was never synced was never finished in the queue either.
    assert sorted(lines(small_disk / "a")) == bodies


def test_files_that_may_not_grow_further(shell: Shell, broker: Broker, topic: str, tmp_path: Path) -> None:
    """The same without a file system of its own: a limit on how large a file may be."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))

    broker.create(topic, "me")
    broker.fill(topic, numbered(1000))
    running = shell.start(
        "q-to-file", f"{topic}/me", "-o", tmp_path / "a", "--sync-count", "100", *broker.flags, preexec_fn=limit
    )
    running.wait_err("File too large")
    before = broker.depth(topic, "me").held
    assert before >= 700
    resource.prlimit(running.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    running.wait_err("writing again, after ")
    wait_until(lambda: broker.depth(topic, "me").held == 0)
    running.signal(signal.SIGTERM)
    assert running.wait(10).status == 0
    assert sorted(lines(tmp_path / "a")) == numbered(1000)


def test_an_output_that_forbids_pauses_too(
    shell: Shell, broker: Broker, topic: str, tmp_path: Path, small_disk: Path
) -> None:
    broker.create(topic, "me")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    running = archive(shell, broker, topic, small_disk, "--work-dir", tmp_path / "w", "--rotate-count", "10")
    broker.wait_clients(topic, "me")
    broker.fill(topic, numbered(20))
    running.wait_err("Read-only file system")
    broker.fill(topic, numbered(20, 20))
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    running.wait_err("writing again, after ")
    wait_until(lambda: broker.depth(topic, "me").held == 0)
    running.signal(signal.SIGTERM)
    assert running.wait(10).status == 0
    assert sorted(lines(small_disk)) == numbered(40)
    assert len(finished(small_disk)) >= 2


def test_stopped_while_the_output_forbids_the_next_run_gives_the_file_its_name(
    shell: Shell, broker: Broker, topic: str, tmp_path: Path, small_disk: Path
) -> None:
    broker.create(topic, "me")
    broker.fill(topic, numbered(20))
    words = ["-o", small_disk, "--work-dir", tmp_path / "w", *broker.flags]
    running = shell.start("q-to-file", f"{topic}/me", *words)
    wait_until(lambda: broker.depth(topic, "me").held == 0)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    running.signal(signal.SIGTERM)
    done = running.wait(10)
    assert done.status == 1
    assert "Read-only file system; 1 file left in the work directory, which the next run finishes" in done.err
    assert finished(small_disk) == []
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    done = shell.run("q-to-file", f"{topic}/me", *words, "--until-empty")
    assert done.status == 0
    assert "found 1 file that the last run left in the work directory" in done.err
    assert sorted(lines(small_disk)) == numbered(20)


def test_a_directory_that_cannot_be_used_is_said_at_the_start(
    shell: Shell, broker: Broker, topic: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    done = shell.run("q-to-file", f"{topic}/me", "-o", tmp_path / "file" / "a", *broker.flags)
    assert done.status == 3
    assert done.err == f"q-to-file: cannot use the work directory {tmp_path}/file/a/.work: Not a directory\n"


@pytest.mark.parametrize("what", ["files", "directory", "all"])
def test_a_cleaner_that_removes_the_growing_files_loses_nothing(
    shell: Shell, broker: Broker, topic: str, tmp_path: Path, what: str
) -> None:
    output = tmp_path / "out"
    broker.create(topic, "me")
    broker.fill(topic, numbered(100))
    running = archive(shell, broker, topic, output)
    wait_until(lambda: broker.depth(topic, "me").held == 0 and list((output / ".work").glob("*.part")), 20)
    if what == "files":
        for path in (output / ".work").iterdir():
            path.unlink()
    else:
        shutil.rmtree(output / ".work" if what == "directory" else output)
    broker.fill(topic, numbered(100, 100))
    wait_until(lambda: broker.depth(topic, "me").held == 0, 20)
    running.signal(signal.SIGTERM)
    done = running.wait(10)
    assert done.status == 0
    assert sorted(lines(output)) == numbered(200)
    assert done.err.count("written again to") == 1

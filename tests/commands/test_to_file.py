"""q-to-file drains a channel into files: every message once, finished in the queue, byte for byte."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from harness.archives import finished, in_work, lines, unpacked
from harness.brokers import Broker
from harness.shell import Shell
from harness.waiting import wait_until

pytestmark = pytest.mark.forks

LINES = [b"%05d" % number for number in range(6000)]


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_until_empty_all_of_it_is_in_one_file(
    shell: Shell, broker: Broker, topic: str, tmp_path: Path, compression: str
) -> None:
    broker.fill(topic, LINES)
    words = [
        "--until-empty",
        "--sync-interval",
        "100ms",
        "--compression",
        compression,
        "--host-identifier",
        "web",
        "--output-dir",
        tmp_path / "a",
    ]
    done = shell.run("q-to-file", f"{topic}/me", *words, *broker.flags)
    assert done.status == 0
    assert done.err.startswith("q-to-file: archived 6,000 messages (30.0 kB) in ")
    assert re.search(r"; 1 file in [0-9]+ syncs?\n$", done.err)
    assert sorted(lines(tmp_path / "a")) == LINES
    (path,) = finished(tmp_path / "a")
    assert path.name.startswith(f"{topic}.web.2")
    assert path.name.endswith({"none": ".log", "gzip": ".log.gz", "zstd": ".log.zst"}[compression])
    assert in_work(tmp_path / "a") == []
    assert broker.depth(topic, "me").held == 0


def test_nothing_there_makes_nothing(shell: Shell, broker: Broker, topic: str, tmp_path: Path) -> None:
    done = shell.run(
        "q-to-file",
        f"{topic}/me",
        "-o",
        tmp_path / "a",
        "--until-empty",
        "--sync-interval",
        "100ms",
        "-q",
        *broker.flags,
    )
    assert (done.status, done.err) == (0, "")
    assert finished(tmp_path / "a") == []


@pytest.mark.parametrize("format", ["envelope", "msgpack", "length32"])
def test_any_body_comes_back(shell: Shell, broker: Broker, topic: str, tmp_path: Path, format: str) -> None:
    bodies = [b"a\nb\n", b"\xff\x00", b"\n", "schön".encode(), b"x" * 100_000]
    broker.fill(topic, bodies)
    words = ["-o", tmp_path / "a", "--until-empty", "--sync-interval", "100ms", "--format", format]
    assert shell.run("q-to-file", f"{topic}/me", *words, *broker.flags).status == 0
    (path,) = finished(tmp_path / "a")
    assert shell.run("q-pipe", "--format", format, f"{topic}.back", path, *broker.flags).status == 0
    assert sorted(broker.bodies(f"{topic}.back")) == sorted(bodies)


def test_raw_bodies_with_newlines_are_lines_and_a_delimiter_helps(
    shell: Shell, broker: Broker, topic: str, tmp_path: Path
) -> None:
    broker.fill(topic, [b"a\nb", b"c"])
    words = ["-o", tmp_path / "a", "--until-empty", "--sync-interval", "100ms", "-0"]
    assert shell.run("q-to-file", f"{topic}/me", *words, *broker.flags).status == 0
    (path,) = finished(tmp_path / "a")
    assert sorted(path.read_bytes().split(b"\0")) == [b"", b"a\nb", b"c"]


def test_topics_have_files_of_their_own(shell: Shell, broker: Broker, topic: str, tmp_path: Path) -> None:
    broker.fill(topic, [b"one"] * 10)
    broker.fill(f"{topic}.b", [b"two"] * 10)
    words = ["-o", tmp_path, "--filename-format", "<TOPIC>/%Y<REV>.log", "--until-empty", "--sync-interval", "100ms"]
    done = shell.run("q-to-file", topic, f"{topic}.b/other", *words, *broker.flags)
    assert done.status == 0
    assert {path.parent.name: path.read_bytes() for path in finished(tmp_path)} == {
        topic: b"one\n" * 10,
        f"{topic}.b": b"two\n" * 10,
    }
    assert broker.depth(topic, "q-to-file").held == 0
    assert broker.depth(f"{topic}.b", "other").held == 0


def test_a_second_run_goes_on_beside_the_first(shell: Shell, broker: Broker, topic: str, tmp_path: Path) -> None:
    for first in (0, 3000):
        broker.fill(topic, LINES[first : first + 3000])
        words = ["-o", tmp_path, "--until-empty", "--sync-interval", "100ms", "--datetime-format", "day"]
        assert shell.run("q-to-file", f"{topic}/me", *words, *broker.flags).status == 0
    assert len(finished(tmp_path)) == 2
    assert sorted(lines(tmp_path)) == LINES


def test_rotation_by_size_and_count(shell: Shell, broker: Broker, topic: str, tmp_path: Path) -> None:
    broker.fill(topic, LINES)
    words = [
        "-o",
        tmp_path,
        "--until-empty",
        "--sync-interval",
        "100ms",
        "--rotate-count",
        "1000",
        "--sync-count",
        "500",
    ]
    assert shell.run("q-to-file", f"{topic}/me", *words, *broker.flags).status == 0
    # A sync takes what came together, so a file may have one sync more than was asked for.
    counts = [path.read_bytes().count(b"\n") for path in finished(tmp_path)]
    assert all(1000 <= count < 3500 for count in sorted(counts)[1:])
    assert sorted(lines(tmp_path)) == LINES


def test_a_few_messages_are_safe_within_the_interval_and_can_be_read(
    shell: Shell, broker: Broker, topic: str, tmp_path: Path
) -> None:
    if shutil.which("zcat") is None:
        pytest.skip("there is no zcat")
    running = shell.start(
        "q-to-file", f"{topic}/me", "-o", tmp_path, "--gzip", "--sync-interval", "50ms", *broker.flags
    )
    broker.wait_clients(topic, "me")
    for nth in range(1, 4):
        broker.fill(topic, [b"message"])
        wait_until(lambda: broker.depth(topic, "me").held == 0)
        (part,) = (tmp_path / ".work").glob("*.part")
        assert subprocess.run(["zcat", part], capture_output=True, check=False).stdout == b"message\n" * nth
    assert finished(tmp_path) == []
    assert running.is_running


def test_max_runtime_ends_in_order(shell: Shell, broker: Broker, topic: str, tmp_path: Path) -> None:
    broker.fill(topic, [b"a", b"b"])
    done = shell.run("q-to-file", f"{topic}/me", "-o", tmp_path, "--max-runtime", "1s", *broker.flags)
    assert done.status == 0
    assert sorted(lines(tmp_path)) == [b"a", b"b"]
    assert broker.depth(topic, "me").held == 0


def test_idle_timeout(shell: Shell, broker: Broker, topic: str, tmp_path: Path) -> None:
    broker.fill(topic, [b"a", b"b"])
    words = ["-o", tmp_path, "--idle-timeout", "300ms", "--sync-interval", "100ms"]
    assert shell.run("q-to-file", f"{topic}/me", *words, *broker.flags).status == 0
    assert sorted(lines(tmp_path)) == [b"a", b"b"]


def test_partitions_by_time_of_the_broker(shell: Shell, broker: Broker, topic: str, tmp_path: Path) -> None:
    broker.fill(topic, [b"a"])
    words = ["-o", tmp_path, "--until-empty", "--sync-interval", "100ms", "--partition-format", "year=%Y/%m-%d"]
    assert shell.run("q-to-file", f"{topic}/me", *words, *broker.flags).status == 0
    (path,) = finished(tmp_path)
    assert path.relative_to(tmp_path).parts[0].startswith("year=2")
    assert unpacked(path) == b"a\n"

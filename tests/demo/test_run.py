"""demo/run.sh: passes, fails when a byte differs, and leaves nothing behind however it ends."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.kafka import why_not
from harness.shell import NOT_MEASURED

RUN = Path(__file__).parents[2] / "demo" / "run.sh"
PROGRAMS = Path(sys.executable).parent
STARTED = re.compile(r"started the local broker \(pid (\d+)")


@pytest.fixture
def room() -> Iterator[Path]:
    """A temporary directory with a short path, which the demo must leave empty."""
    room = Path("/tmp") / f"qtest-{os.getpid()}-{time.monotonic_ns()}"
    room.mkdir()
    yield room
    left = [str(path) for path in room.rglob("*")]
    for path in reversed(left):
        Path(path).rmdir() if Path(path).is_dir() else Path(path).unlink()
    room.rmdir()
    assert left == []


def environment(room: Path, *first: Path) -> dict[str, str]:
    path = os.pathsep.join([*map(str, first), str(PROGRAMS), os.environ["PATH"]])
    return os.environ | {"PATH": path, "TMPDIR": str(room), "QTOOLS_NSQD": "127.0.0.1:1", "DEMO_KAFKA": "no"}


def start(env: dict[str, str]) -> subprocess.Popen[bytes]:
    """The demo in a process group of its own, as a shell starts it, its talk on the same pipe as its output."""
    return subprocess.Popen([RUN], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)


def is_gone(pid: int) -> bool:
    """Whether the process has ended; it is not our child, so there is nothing to wait on but its number."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


def test_the_same_bytes_come_out_and_nothing_is_left(room: Path) -> None:
    demo = start(environment(room))
    told = demo.communicate(timeout=100)[0].decode()
    assert demo.returncode == 0, told
    over_http = shutil.which("curl") is not None
    assert re.findall(r"^the same$", told, re.MULTILINE) == ["the same"] * (6 + over_http)
    assert ("skipped: there is no curl" in told) != over_http
    assert '\nskipped: DEMO_KAFKA is "no"\n' in told
    assert ("\none more\n" in told) == over_http
    assert re.search(r"^q-bridge: 12,000 messages .* read: 12,000 routed$", told, re.MULTILINE)
    assert re.search(r"^all good: 6 files, 12,000 messages, ", told, re.MULTILINE)
    rows = re.findall(r"^(analytics events|Python's own source) +([\d,]+) ", told, re.MULTILINE)
    counts = {name: int(count.replace(",", "")) for name, count in rows}
    assert counts["analytics events"] == 12_000
    assert counts["Python's own source"] > 100_000
    started = STARTED.findall(told)
    assert len(started) == 1, told
    assert is_gone(int(started[0]))


@pytest.mark.slow
def test_the_records_go_to_kafka_and_come_back(room: Path) -> None:
    if reason := why_not():
        pytest.skip(reason)
    demo = start(environment(room) | {"DEMO_KAFKA": ""})
    told = demo.communicate(timeout=150)[0].decode()
    assert demo.returncode == 0, told
    part = told.partition("7. To Kafka")[2]
    assert re.findall(r"^the same$", part, re.MULTILINE) == ["the same"] * 2
    assert len(re.findall(r"^q-bridge: 12,000 messages .* 12,000 routed$", part, re.MULTILINE)) == 2


def test_a_lost_message_ends_it_with_one_clear_line(room: Path, tmp_path: Path) -> None:
    liar = tmp_path / "q-tail"
    liar.write_text(f'#!/bin/sh\n"{PROGRAMS}/q-tail" "$@" | sed \'$d\'\n')
    liar.chmod(0o755)
    demo = start(environment(room, tmp_path))
    told = demo.communicate(timeout=100)[0].decode()
    assert demo.returncode == 1
    assert told.splitlines()[-1] == "demo: two letters went in, something else came out"
    assert is_gone(int(STARTED.findall(told)[0]))


@NOT_MEASURED
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing(room: Path, number: signal.Signals) -> None:
    demo = start(environment(room))
    assert demo.stdout is not None
    told = b""
    while b"2. Twelve thousand" not in told:
        assert select.select([demo.stdout], [], [], 60)[0], told
        told += os.read(demo.stdout.fileno(), 65536)
    os.killpg(demo.pid, number)
    told += demo.communicate(timeout=60)[0]
    assert demo.returncode != 0, told
    assert is_gone(int(STARTED.findall(told.decode())[0]))


def test_without_the_programs_it_says_what_to_do(room: Path) -> None:
    demo = subprocess.run(
        [RUN], env=environment(room) | {"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=30
    )
    assert demo.returncode == 1
    assert demo.stderr == "demo: q-pipe is not on PATH: run make demo\n"

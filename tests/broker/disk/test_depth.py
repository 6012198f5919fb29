"""A deep backlog is on disk, and costs no memory."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from harness.brokers import Q_BROKER, Broker
from harness.shell import Shell

BODY = b"%010d " + b"x" * 178 + b"\n"


def deep(shell: Shell, room: Path, count: int) -> tuple[int, int]:
    """Publish and consume `count` messages of 190 bytes; the broker's largest memory after each, bytes."""
    broker = Broker(Q_BROKER, room)
    broker.start()
    try:
        assert broker.process is not None
        status = Path(f"/proc/{broker.process.pid}/status")
        if not status.exists():
            pytest.skip("there is no /proc here, which tells how much memory a process has")

        def peak() -> int:
            found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
            assert found
            return int(found[1]) * 1024

        source = shell.home / "in"
        with source.open("wb") as file:
            for start in range(0, count, 10_000):
                file.write(b"".join(BODY % n for n in range(start, min(start + 10_000, count))))
        broker.create("t", "c")
        done = shell.run("q-pipe", "t", source, *broker.flags, timeout=300)
        assert done.status == 0, done.err
        came = peak()
        assert broker.depth("t", "c").depth == count
        with (shell.home / "out").open("wb") as out:
            done = shell.run("q-tail", "t/c", "-n", str(count), *broker.flags, stdout=out, timeout=300)
        assert done.status == 0, done.err
        assert (shell.home / "out").read_bytes() == source.read_bytes()
        return came, peak()
    finally:
        broker.close()


def test_three_hundred_thousand_messages(shell: Shell, tmp_path: Path) -> None:
    assert max(deep(shell, tmp_path / "broker", 300_000)) < 100_000_000


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_five_million_messages(shell: Shell, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    came, went = deep(shell, tmp_path / "broker", 5_000_000)
    with capsys.disabled():
        print(
            f"\n  5 million messages: {came / 1e6:.0f} MB when all waited, {went / 1e6:.0f} MB when all had gone",
            end="",
        )
    assert max(came, went) < 150_000_000

"""kill -9 at any moment: whatever q-to-file finished in the queue is in the archive, whole, after the next run."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from harness.archives import in_work, lines
from harness.brokers import Broker
from harness.producer import produce
from harness.shell import Shell
from harness.waiting import wait_until

COMPRESSIONS = ["none", "gzip", "zstd"]


def kill_and_count(
    shell: Shell, broker: Broker, topic: str, output: Path, compression: str, count: int, kills: int, seed: int
) -> Counter[bytes]:
    """How often each message is in the archive, after `kills` runs were killed while `count` messages flowed."""
    draw = random.Random(seed)
    broker.create(topic, "me")
    producer = produce(broker, topic, count, kills * 0.5, output.parent / "producer")
    words = [
        f"{topic}/me", "-o", output, "--compression", compression, "--msg-timeout", "1s", "--rotate-size", "200kB",
        "--sync-interval", "50ms", "--sync-count", "500", *broker.flags,
    ]  # fmt: skip
    try:
        for _ in range(kills):
            running = shell.start("q-to-file", *words, "-q")
            wait_until(lambda: in_work(output))  # it has begun to write
            time.sleep(draw.uniform(0.0, 0.3))  # the moment is what the test is about
            running.signal(signal.SIGKILL)
            done = running.wait()
            assert (done.status, done.err) == (-signal.SIGKILL, "")
        assert producer.wait(120) == 0
    finally:
        producer.kill()
        producer.wait()
    done = shell.run("q-to-file", *words, "--until-empty", "-q", timeout=120)
    assert (done.status, done.err) == (0, "")
    assert in_work(output) == []
    assert broker.depth(topic, "me").held == 0
    return Counter(lines(output))


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_nothing_is_lost(shell: Shell, broker: Broker, topic: str, tmp_path: Path, compression: str) -> None:
    found = kill_and_count(shell, broker, topic, tmp_path / "a", compression, 40_000, 3, seed=len(compression))
    assert len(found) == 40_000
    # What was synced and not yet finished in the queue comes again: one sync for each kill, at most two on the way.
    assert found.total() - 40_000 <= 3 * 2500


@pytest.mark.slow
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_nothing_is_lost_however_often(
    shell: Shell, broker: Broker, topic: str, tmp_path: Path, compression: str
) -> None:
    kills = 50
    found = kill_and_count(shell, broker, topic, tmp_path / "a", compression, 500_000, kills, seed=len(compression))
    print(f"{compression}: {kills} kills, {len(found):,} messages, {found.total() - len(found):,} of them twice")
    assert len(found) == 500_000
    assert found.total() - 500_000 <= kills * 2500

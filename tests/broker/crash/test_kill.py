"""kill -9 at random moments, while publishers and consumers run: everything that was confirmed arrives."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.brokers import Q_BROKER, Broker
from harness.metrics import WITH_METRICS, scrape, where
from harness.shell import Shell
from harness.waiting import wait_until


def numbered(start: int, stop: int) -> bytes:
    return b"".join(b"%07d %s\n" % (n, b"x" * 100) for n in range(start, stop))


def live(
    shell: Shell, room: Path, sync: str, kills: int, count: int, report: Callable[[str], None], chance: random.Random
) -> None:
    """Two publishers, two channels: each channel gets all `count` messages, in spite of `kills`."""
    broker = Broker(Q_BROKER, room, [f"--sync={sync}"])
    broker.start()
    broker.create("t", "one", "two")
    share = count // 2
    pipes, tails = [], []
    for nth in range(2):
        input_ = shell.home / f"{nth}.in"
        input_.write_bytes(numbered(nth * share, (nth + 1) * share))
        pace = str(share * 2 // kills)  # so that there is something to be confirmed at each kill
        words = ["t", input_, *broker.flags, "--batch-count", "300", "--rate", pace, *WITH_METRICS]
        pipes.append(shell.start("q-pipe", *words))
    outputs = {name: shell.home / f"{name}.out" for name in ("one", "two")}
    for name, path in outputs.items():
        with path.open("wb") as out:
            tails.append(shell.start("q-tail", f"t/{name}", *broker.flags, "--max-in-flight", "700", stdout=out))
    try:
        for base in map(where, pipes):  # one that has never been connected ends at the first kill
            wait_until(lambda base=base: scrape(base)["qtools_pipe_published_total"] > 0)  # type: ignore[misc]
        for name in outputs:
            broker.wait_clients("t", name)
        for _ in range(kills):
            time.sleep(chance.uniform(0.05, 0.6))  # a moment is the point here, and no condition
            broker.kill()
            broker.start()
        for pipe in pipes:
            done = pipe.wait(180.0)
            assert done.status == 0, done.err
        for name in outputs:
            broker.wait_held("t", name, 0, 120.0)
    finally:
        broker.close()
    expected = set(numbered(0, share * 2).splitlines())
    for name, path in outputs.items():
        found = Counter(path.read_bytes().splitlines())
        assert not expected - set(found), f"{len(expected - set(found))} never came to {name}"
        assert not set(found) - expected
        again = sum(found.values()) - len(found)
        report(f"--sync {sync}, channel {name}: {kills} kills, {len(expected)} messages, none lost, {again} came again")
    assert "internal error" not in broker.log
    assert "Traceback" not in broker.log


@pytest.mark.parametrize("sync", ["full", "normal"])
def test_everything_confirmed_arrives(shell: Shell, tmp_path: Path, sync: str) -> None:
    live(shell, tmp_path / "broker", sync, 4, 20_000, print, random.Random(sync))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("sync", ["full", "normal"])
def test_everything_confirmed_arrives_after_many_kills(
    shell: Shell, tmp_path: Path, sync: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def report(line: str) -> None:
        with capsys.disabled():
            print(f"\n  {line}", end="")

    live(shell, tmp_path / "broker", sync, 40, 200_000, report, random.Random())


def test_a_channel_that_was_confirmed_is_there_after_a_kill(tmp_path: Path) -> None:
    broker = Broker(Q_BROKER, tmp_path / "broker")
    broker.start()
    try:
        for nth in range(10):
            broker.create("t", f"c{nth}")
            broker.kill()
            broker.start()
            assert broker.channels("t") == [f"c{n}" for n in range(nth + 1)]
        broker.fill("t", [b"for all of them"])
        broker.kill()
        broker.start()
        wait_until(lambda: [broker.depth("t", f"c{nth}").depth for nth in range(10)] == [1] * 10)
    finally:
        broker.close()

"""q-pipe on many logs with one checkpoint: what it costs, how many files are open, and what a kill leaves."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path

import pytest
from harness.brokers import Broker
from harness.shell import Shell, words_for
from harness.waiting import wait_until

pytestmark = pytest.mark.forks

BATCH, WINDOW = 1, 8


def make_logs(shell: Shell, count: int) -> list[bytes]:
    """Logs of one line each; the lines."""
    lines = [b"line %04d" % number for number in range(count)]
    (shell.home / "logs").mkdir()
    for number, line in enumerate(lines):
        (shell.home / "logs" / f"{number:04d}.log").write_bytes(line + b"\n")
    return lines


def test_more_logs_than_open_files(shell: Shell, broker: Broker, topic: str) -> None:
    lines = make_logs(shell, 300)
    words = f"{topic} 'logs/*.log' --checkpoint position {' '.join(broker.flags)}"
    for _ in range(2):
        done = shell.script(f"ulimit -n 100; q-pipe {words}").wait()
        assert done.status == 0, done.err
    assert sorted(broker.bodies(topic)) == lines


def test_following_raises_the_limit_of_open_files_and_names_it(shell: Shell, broker: Broker, topic: str) -> None:
    make_logs(shell, 300)
    words = [topic, "-F", "logs/*.log", *broker.flags]
    pipe = shell.start("q-pipe", *words, argv=["prlimit", "--nofile=100:4096", *words_for("q-pipe")])
    wait_until(lambda: broker.published(topic) == 300, what=lambda: pipe.err)
    pipe.signal(signal.SIGTERM)
    assert pipe.wait().status == 0
    done = shell.run("q-pipe", *words, argv=["prlimit", "--nofile=100", *words_for("q-pipe")])
    assert done.status == 3
    assert done.err == (
        "q-pipe: 300 logs cannot be followed: each takes an open file, and this process may have 100 of them: raise the"
        " limit (ulimit -n, LimitNOFILE=), or follow fewer logs with each process\n"
    )


def test_a_kill_among_many_logs(shell: Shell, broker: Broker, topic: str) -> None:
    """The state of all logs is too large to be saved each time: what changes is appended to it."""
    lines = make_logs(shell, 500)
    words = [
        topic, "logs/*.log", "--checkpoint", "position", "--batch-count", str(BATCH), "--window", str(WINDOW),
        *broker.flags,
    ]  # fmt: skip
    pipe = shell.start("q-pipe", *words, "--rate", "300")
    wait_until(lambda: broker.published(topic) > 200, what=lambda: pipe.err)
    pipe.signal(signal.SIGKILL)
    pipe.wait()
    state = (shell.home / "position").read_bytes()
    assert len(state.splitlines()) > 100
    (shell.home / "position").write_bytes(state + b'{"messages": 1')  # as a power failure may leave it
    done = shell.run("q-pipe", *words)
    assert done.status == 0, done.err
    count = Counter(broker.bodies(topic))
    assert sorted(count) == lines
    assert sum(count.values()) - 500 <= BATCH * WINDOW
    told = json.loads((shell.home / "position").read_text())  # one line again
    assert (told["messages"], len(told["logs"])) == (500, 500)


@pytest.mark.parametrize("text", [b"{}", b"1", b"not json", b'{"messages": 1, "total": 1, "logs": 1}'])
def test_a_record_that_is_none_is_refused(shell: Shell, broker: Broker, topic: str, text: bytes) -> None:
    (shell.home / "log").write_bytes(b"1\n")
    words = [topic, "log", "--checkpoint", "position", *broker.flags]
    assert shell.run("q-pipe", *words).status == 0
    path = Path(shell.home / "position")
    path.write_bytes(path.read_bytes() + text + b"\n")
    done = shell.run("q-pipe", *words)
    assert done.status == 2
    assert "position is not a checkpoint of q-pipe: remove it to begin anew" in done.err

"""kill -9 of q-exec: each job that is noted as ended was ended at least once, and few more than once."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from conftest import MakeBroker
from harness.shell import Shell
from harness.waiting import wait_until

JOBS = 4


@pytest.mark.parametrize(
    ("count", "kills"),
    [(400, 3), pytest.param(10_000, 50, marks=[pytest.mark.slow, pytest.mark.timeout(900)])],
)
def test_each_job_ends_at_least_once(shell: Shell, make_broker: MakeBroker, topic: str, count: int, kills: int) -> None:
    broker = make_broker("--msg-timeout=5s")
    broker.create(topic, "me")
    broker.fill(topic, [b"%05d" % number for number in range(count)])
    journal = shell.home / "journal"
    journal.touch()
    draw = random.Random(count)
    words = [f"{topic}/me", "-j", str(JOBS), "-q", *broker.flags, "--", "sh", "-c", "echo $0 >> journal", "{}"]
    for _ in range(kills):
        running = shell.start("q-exec", *words)
        goal = journal.stat().st_size + 6 * draw.randrange(1, count // (2 * kills))
        wait_until(lambda goal=goal: journal.stat().st_size >= goal, 60, "the journal to grow")
        running.process.kill()
        running.process.wait()
    done = shell.run("q-exec", *words[:-5], "--until-empty", *words[-5:], timeout=300)
    assert done.status == 0, done.err
    ended = Counter(journal.read_text().split())
    assert len(ended) == count
    # A killed q-exec leaves those that run, whose messages come again, and as many that it had not acknowledged.
    assert ended.total() - count <= kills * 3 * JOBS

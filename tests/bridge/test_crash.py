"""Nothing is lost when the bridge, its source or its destination is killed with SIGKILL in the middle of the work.

A real nsqd keeps what is in flight in memory only, so it cannot be the source that is killed; as a destination it
has no room in memory here, so that all it answered OK to is in its files, and syncs often: one that is killed before
it first noted how far a file goes (2500 messages or 2 s) writes over it when it is back.
"""

from __future__ import annotations

from collections import Counter

import pytest
from conftest import MakeBroker
from harness.brokers import NSQD
from harness.shell import Shell
from harness.waiting import wait_until

from tests.bridge.crash import OUT, Crash

DISK_ONLY = ["--mem-queue-size=0", "--sync-timeout=20ms"]


def crash(shell: Shell, make_broker: MakeBroker, kind: str, topic: str, seed: int, rate: int = 4000) -> Crash:
    source = make_broker("--msg-timeout=2s", *(["--mem-queue-size=1000000"] if kind == NSQD else []))
    destination = make_broker("--msg-timeout=2s", *(DISK_ONLY if kind == NSQD else []))
    source.create(topic, "q-bridge")
    return Crash(shell, source, destination, topic, seed=seed, rate=rate)


def victims(kind: str) -> list[str]:
    return ["bridge", "destination"] if kind == NSQD else ["bridge", "source", "destination"]


def test_each_of_them_killed_once(shell: Shell, make_broker: MakeBroker, broker_kind: str, topic: str) -> None:
    outcome = crash(shell, make_broker, broker_kind, topic, 1).run(9_000, victims(broker_kind), 3)
    assert outcome.lost == 0, outcome
    assert outcome.killed.total() == 3
    assert outcome.in_the_middle >= 2, outcome
    assert outcome.duplicates <= 3 * 4000, outcome  # no more than was under way


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_in_turn_twenty_times(shell: Shell, make_broker: MakeBroker, broker_kind: str, topic: str) -> None:
    outcome = crash(shell, make_broker, broker_kind, topic, 2, 20_000).run(200_000, victims(broker_kind), 20)
    print(f"{broker_kind}: {outcome}")
    assert outcome.lost == 0, outcome
    assert outcome.killed.total() == 20
    assert outcome.in_the_middle >= 15, outcome


def test_what_arrived_twice_is_kept_out_at_the_far_end(
    shell: Shell, make_broker: MakeBroker, broker_kind: str, topic: str
) -> None:
    """All victims killed on the way, and a second bridge behind them killed too."""
    proof = crash(shell, make_broker, broker_kind, topic, 3)
    outcome = proof.run(9_000, victims(broker_kind), 3)
    assert outcome.lost == 0, outcome
    again = [*outcome.arrived.elements(), *list(outcome.arrived)[::3]]  # with duplicates for sure
    proof.destination.create(OUT, "q-bridge")
    proof.destination.fill(OUT, again)
    words = ["--to", "clean", "--dedupe", ".", *proof.destination.flags]
    first = shell.start("q-bridge", OUT, *words, "--rate", "5000")
    wait_until(lambda: proof.destination.published("clean") > 1000)
    first.process.kill()
    first.process.wait()
    sent = proof.destination.published("clean")
    done = shell.run("q-bridge", OUT, *words, "--until-empty")
    assert done.status == 0, done.err
    arrived = Counter(proof.destination.bodies("clean"))
    assert len(arrived) == 9_000
    # Only what was sent and not yet written down when it was killed: a batch.
    assert arrived.total() - 9_000 <= 2500, f"{arrived.total()} arrived, {sent} before the kill"

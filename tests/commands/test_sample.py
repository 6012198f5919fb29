"""q-tail --sample prints a share; what is left out is done with all the same."""

from __future__ import annotations

import pytest
from harness.brokers import Broker
from harness.shell import Shell

pytestmark = pytest.mark.forks


def test_a_share_is_printed_and_all_are_finished(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(topic, [b"%d" % number for number in range(4000)])
    done = shell.run("q-tail", f"{topic}/me", "--sample", "0.25", "--until-empty", *broker.flags)
    assert done.status == 0
    assert done.err.endswith(
        f"; 4,000 messages taken from the queue; {4000 - len(done.lines):,} left out by --sample\n"
    )
    assert 800 < len(done.lines) < 1200  # seven standard deviations
    assert len(set(done.lines)) == len(done.lines)
    assert broker.depth(topic, "me").held == 0


def test_a_count_counts_what_is_printed(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.fill(topic, [b"%d" % number for number in range(4000)])
    done = shell.run("q-tail", f"{topic}/me", "--sample", "0.1", "-n", "50", *broker.flags)
    assert done.status == 0
    assert len(done.lines) == 50
    last = max(map(int, done.lines))
    rest = broker.bodies(topic, "me")
    # Those up to the last one printed are done with, the others are still there.
    if broker.kind == "q-broker":
        assert sorted(map(int, rest)) == list(range(last + 1, 4000))
    else:
        assert 2500 < len(rest) < 3900


@pytest.mark.parametrize("share", ["0", "1.1", "-1", "nan", "half"])
def test_a_share_that_cannot_be(shell: Shell, share: str) -> None:
    done = shell.run("q-tail", "topic/me", f"--sample={share}")
    assert done.status == 2
    assert "--sample" in done.err

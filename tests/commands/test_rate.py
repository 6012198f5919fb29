"""--rate keeps to so many messages a second."""

from __future__ import annotations

import pytest
from harness.brokers import Broker
from harness.shell import Shell


@pytest.mark.parametrize(("rate", "count", "least"), [("100", 80, 0.65), ("5", 5, 0.75), ("20000", 20_000, 0.85)])
def test_no_faster_and_hardly_slower(
    shell: Shell, broker: Broker, topic: str, rate: str, count: int, least: float
) -> None:
    done = shell.run("q-pipe", topic, "--rate", rate, *broker.flags, input=b"x\n" * count)
    assert done.status == 0
    times = sorted(message.timestamp for message in broker.drain(topic))
    assert len(times) == count
    seconds = (times[-1] - times[0]) / 1e9
    assert least < seconds < least + 2  # a tenth of a second's worth may pass at once; a busy machine is slower


@pytest.mark.parametrize("rate", ["0", "-1", "many", "nan"])
def test_a_rate_that_cannot_be(shell: Shell, rate: str) -> None:
    done = shell.run("q-pipe", "topic", f"--rate={rate}", input=b"")
    assert done.status == 2
    assert "--rate" in done.err

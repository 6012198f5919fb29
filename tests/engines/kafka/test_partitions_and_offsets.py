"""--partition of q-pipe and q-tail, and --offset of q-tail: what kcat's -p and -o do."""

from __future__ import annotations

import pytest
from harness.brokers import Broker
from harness.shell import Shell


@pytest.fixture
def url(shell: Shell, kafka: str, topic: str) -> str:
    """The address of a topic with ten messages in each of three partitions."""
    for number in range(3):
        lines = b"".join(b"%d\n" % (100 * number + nth) for nth in range(10))
        words = ["q-pipe", topic, "-b", f"kafka://{kafka}", "--partition", str(number), "-q"]
        done = shell.run(*words, "--create-topics", "partitions=3", input=lines, timeout=60)
        assert done.status == 0, done.err
    return f"kafka://{kafka}/{topic}"


def places(shell: Shell, url: str, *flags: str) -> list[tuple[int, int, int]]:
    """Partition, offset and body of each message that is printed."""
    words = ["q-tail", url, *flags, "--until-empty", "-q", "-o", r"%p %o %s\n"]
    done = shell.run(*words, timeout=60)
    assert done.status == 0, done.err
    return sorted((int(p), int(o), int(body)) for p, o, body in (line.split() for line in done.lines if line))


@pytest.mark.slow
def test_partitions_and_offsets(shell: Shell, url: str) -> None:
    whole = [(p, o, 100 * p + o) for p in range(3) for o in range(10)]
    assert places(shell, url, "--offset", "0") == whole
    assert places(shell, url, "--since", "all", "--partition", "1") == [each for each in whole if each[0] == 1]
    assert places(shell, url, "--partition", "2", "--offset", "7") == whole[-3:]
    assert places(shell, url, "--offset", "-2") == [each for each in whole if each[1] >= 8]
    assert places(shell, url, "--offset", "-99") == whole
    done = shell.run("q-tail", url, "--partition", "0", "--offset", "99", "--until-empty", timeout=60)
    assert (done.status, done.lines) == (0, [])
    assert "partition 0 has offsets 0 to 9: it is read from 10 on" in done.err


@pytest.mark.slow
def test_a_partition_that_does_not_exist(shell: Shell, url: str, kafka: str, topic: str) -> None:
    done = shell.run("q-tail", url, "--partition", "3", "--offset", "0", timeout=60)
    assert done.status == 2
    assert f"topic {topic} has no partition 3; it has those from 0 to 2" in done.err
    done = shell.run("q-pipe", topic, "-b", f"kafka://{kafka}", "--partition", "3", input=b"x\n", timeout=60)
    assert done.status == 1
    assert f"topic {topic}: there is no such partition" in done.err


def test_usage(shell: Shell, broker: Broker) -> None:
    nsq, lacks = f"nsq://{broker.address}", "NSQ has no partitions"
    for words, text in (
        (["q-tail", f"{nsq}/events", "--offset", "-3"], f"--offset: {lacks}"),
        (["q-tail", f"{nsq}/events", "--partition", "0"], f"--partition: {lacks}"),
        (["q-pipe", "events", "-b", nsq, "--partition", "0"], f"--partition: {lacks}"),
        (["q-tail", "kafka://127.0.0.1:1/events/own", "--partition", "0"], "leave out /CHANNEL"),
        (["q-tail", "kafka://127.0.0.1:1/events/own", "--offset", "0"], "leave out /CHANNEL"),
        (["q-tail", "kafka://127.0.0.1:1/events", "--offset", "0", "--since", "all"], "leave one out"),
        (["q-tail", "kafka://127.0.0.1:1/events", "--offset", "end"], "is not a whole number"),
    ):
        done = shell.run(*words, input=b"x\n")
        assert done.status == 2
        assert text in done.err

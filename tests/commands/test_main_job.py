"""Lines go in, the same lines come out."""

from __future__ import annotations

import re

from harness.brokers import Broker
from harness.shell import Shell


def test_two_letters_go_in_and_come_out(shell: Shell, broker: Broker, topic: str) -> None:
    sent = shell.run("q-pipe", topic, *broker.flags, input=b"a\nb\n")
    assert (sent.status, sent.out) == (0, b"")
    assert re.fullmatch(rf"q-pipe: 2 messages \(2 B\) in \d+\.\d s(, [\d,]+/s)? to {topic}\n", sent.err)
    read = shell.run("q-tail", f"{topic}/me", "-n", "2", *broker.flags)
    assert (read.status, read.out, read.err) == (0, b"a\nb\n", "")
    assert broker.depth(topic, "me").held == 0


def test_a_shell_pipe_from_one_topic_into_another(shell: Shell, broker: Broker, topic: str) -> None:
    lines = [b"line %d" % number for number in range(1000)]
    broker.fill(topic, lines)
    flags = " ".join(broker.flags)
    moved = shell.script(f"q-tail {topic}/move -n 1000 {flags} | q-pipe {topic}.copy {flags}").wait()
    assert moved.status == 0, moved.err
    assert broker.bodies(f"{topic}.copy") == lines
    assert broker.depth(topic, "move").held == 0


def test_fifty_megabytes_arrive_in_order(shell: Shell, broker: Broker, topic: str) -> None:
    lines = [b"%08d " % number + b"x" * 491 for number in range(100_000)]
    text = b"\n".join(lines) + b"\n"
    path = shell.home / "big"
    path.write_bytes(text)
    sent = shell.run("q-pipe", topic, path, *broker.flags)
    assert sent.status == 0, sent.err
    assert sent.err.startswith("q-pipe: 100,000 messages (50.0 MB) in ")
    read = shell.run("q-tail", f"{topic}/me", "-n", "100000", *broker.flags)
    assert read.status == 0, read.err
    assert len(read.out) == len(text)
    # nsqd keeps what does not fit into its memory on disk, and hands out from both as it likes.
    if broker.kind == "q-broker":
        assert read.out == text
    else:
        assert sorted(read.lines) == lines


def test_a_slow_producer_s_lines_are_sent_at_once(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    pipe = shell.start("q-pipe", topic, *broker.flags, stdin=-1)
    reader = broker.reader(topic, "me")
    for number in range(3):
        pipe.feed(b"line %d\n" % number)
        assert [message.body for message in reader.take(1)] == [b"line %d" % number]
    reader.close()
    pipe.end_input()
    assert pipe.wait().status == 0

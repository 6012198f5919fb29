"""--batch-count, --batch-bytes, --linger, --window: what travels together, and how much is unanswered at once."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable

import pytest
from harness.brokers import Broker
from harness.proxy import Proxy
from harness.shell import Shell
from harness.waiting import pass_time, wait_until

MakeProxy = Callable[[Broker], Proxy]


def batches(said: bytearray, topic: str) -> list[int]:
    """How many messages each publish had, as it went over the wire."""
    found = re.findall(rb"(M?PUB) " + topic.encode() + rb"\n....(....)", bytes(said), re.DOTALL)
    return [int.from_bytes(first, "big") if command == b"MPUB" else 1 for command, first in found]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], [1000]),
        (["--batch-count", "1"], [1] * 1000),
        (["--batch-count", "300"], [300, 300, 300, 100]),
        # 4 bytes of count, and for each message 4 of length and 10 of body.
        (["--batch-bytes", "5604"], [400, 400, 200]),
        (["--batch-bytes", "1"], [1] * 1000),
    ],
)
def test_batches_are_as_large_as_was_said(
    shell: Shell, broker: Broker, topic: str, make_proxy: MakeProxy, words: list[str], expected: list[int]
) -> None:
    proxy = make_proxy(broker)
    (shell.home / "input").write_bytes(b"".join([b"%010d\n" % number for number in range(1000)]))
    done = shell.run("q-pipe", topic, "input", *words, *proxy.flags)
    assert done.status == 0, done.err
    assert batches(proxy.said, topic) == expected
    assert broker.bodies(topic) == [b"%010d" % number for number in range(1000)]


def test_lines_linger_for_company(shell: Shell, broker: Broker, topic: str, make_proxy: MakeProxy) -> None:
    proxy = make_proxy(broker)
    pipe = shell.start("q-pipe", topic, "--linger", "1s", *proxy.flags, stdin=subprocess.PIPE)
    proxy.wait_connections(1)
    begun = time.monotonic()
    for number in range(3):
        pipe.feed(b"%d\n" % number)
        pass_time(0.05)
    wait_until(lambda: broker.published(topic) == 3)
    assert time.monotonic() - begun > 0.9
    pipe.feed(b"last\n")
    pipe.end_input()
    assert pipe.wait().status == 0
    assert batches(proxy.said, topic) == [3, 1]
    assert broker.bodies(topic) == [b"0", b"1", b"2", b"last"]


@pytest.mark.parametrize("words", [["--batch-count", "3"], ["--batch-bytes", "300"]])
def test_a_full_batch_lingers_no_more(shell: Shell, broker: Broker, topic: str, words: list[str]) -> None:
    pipe = shell.start("q-pipe", topic, "--linger", "1h", *words, *broker.flags, stdin=subprocess.PIPE)
    pipe.feed((b"x" * 100 + b"\n") * 3)
    wait_until(lambda: broker.published(topic) == 3)
    pipe.feed(b"last\n")
    pipe.end_input()
    assert pipe.wait().status == 0
    assert broker.published(topic) == 4


def test_no_more_batches_than_the_window_are_unanswered(
    shell: Shell, broker: Broker, topic: str, make_proxy: MakeProxy
) -> None:
    proxy = make_proxy(broker)
    pipe = shell.start(
        "q-pipe", topic, "--batch-count", "10", "--window", "4", *proxy.flags, stdin=subprocess.PIPE
    )  # fmt: skip
    pipe.feed(b"%010d\n" % 0)
    wait_until(lambda: broker.published(topic) == 1)
    proxy.stall(answers_only=True)
    pipe.feed(b"".join([b"%010d\n" % number for number in range(1, 1000)]))
    pipe.end_input()
    wait_until(lambda: broker.published(topic) == 41)
    with pytest.raises(subprocess.TimeoutExpired):
        pipe.process.wait(0.3)
    assert broker.published(topic) == 41
    proxy.resume()
    assert pipe.wait().status == 0
    assert broker.bodies(topic) == [b"%010d" % number for number in range(1000)]

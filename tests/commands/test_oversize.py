"""A message over the broker's limit: named by file and line, and the end or left out, as --on-oversize says."""

from __future__ import annotations

import pytest
from conftest import MakeBroker
from harness.brokers import Broker
from harness.shell import Shell

pytestmark = pytest.mark.forks

LIMIT = 1024 * 1024
LARGE = b"x" * (LIMIT + 1)


def test_the_first_that_is_too_big_is_the_end(shell: Shell, broker: Broker, topic: str) -> None:
    (shell.home / "input").write_bytes(b"a\n\nb\n" + LARGE + b"\nc\n")
    done = shell.run("q-pipe", topic, "input", *broker.flags)
    assert done.status == 1
    assert done.err_lines[0] == (
        f"q-pipe: input: message 4 was not sent: it has {LIMIT + 1} bytes, the broker takes at most {LIMIT}"
        " (its --max-msg-size) (--on-oversize skip leaves such messages out)"
    )
    assert done.err_lines[1].startswith("q-pipe: confirmed: 2 messages, 5 bytes of input;")
    assert sorted(broker.bodies(topic)) in ([b"a", b"b"], [b"a", b"b", b"c"])


def test_those_too_big_are_left_out_and_named_if_so_asked(shell: Shell, broker: Broker, topic: str) -> None:
    (shell.home / "input").write_bytes(b"a\n" + LARGE + b"\n\nb\n" + LARGE + b"\nc\n")
    done = shell.run("q-pipe", topic, "--on-oversize", "skip", "input", *broker.flags)
    assert done.status == 0
    assert [line.partition(" was not sent")[0] for line in done.err_lines[:2]] == [
        "q-pipe: input: message 2",
        "q-pipe: input: message 5",
    ]
    assert done.err_lines[2].startswith("q-pipe: 3 messages (3 B) in ")
    assert done.err_lines[2].endswith(f" to {topic}; 1 empty message skipped; 2 messages too big and left out")
    assert broker.bodies(topic) == [b"a", b"b", b"c"]


def test_the_limit_itself_is_taken(shell: Shell, broker: Broker, topic: str) -> None:
    done = shell.run("q-pipe", topic, *broker.flags, input=b"x" * LIMIT + b"\n")
    assert done.status == 0, done.err
    assert [len(body) for body in broker.bodies(topic)] == [LIMIT]


def test_the_line_counts_in_its_own_file(shell: Shell, broker: Broker, topic: str) -> None:
    (shell.home / "first").write_bytes(b"a\nb\n")
    (shell.home / "second").write_bytes(b"c\n" + LARGE)
    done = shell.run("q-pipe", topic, "first", "second", "--on-oversize", "skip", *broker.flags)
    assert done.status == 0
    assert done.err_lines[0].startswith("q-pipe: second: message 2 was not sent: ")


# ── brokers with other limits ──


@pytest.mark.parametrize("asked", [True, False], ids=["asked over HTTP", "found by halving"])
def test_a_smaller_limit_is_kept_to(shell: Shell, make_broker: MakeBroker, topic: str, asked: bool) -> None:
    broker = make_broker("--max-msg-size=1000")
    nowhere = [] if asked else ["--nsqd-http-address", "127.0.0.1:1"]
    bodies = [b"%04d" % number + b"." * (number % 900) for number in range(3000)]
    bodies[1234] = b"!" * 1001
    bodies[2345] = b"!" * 5000
    done = shell.run(
        "q-pipe", topic, "--on-oversize", "skip", *broker.flags, *nowhere, input=b"\n".join(bodies) + b"\n", timeout=60
    )
    assert done.status == 0, done.err
    named = [line for line in done.err_lines if "was not sent" in line]
    assert [line.split(" was")[0] for line in named] == ["q-pipe: stdin: message 1235", "q-pipe: stdin: message 2346"]
    assert "it has 1001 bytes" in named[0]
    assert sorted(broker.bodies(topic)) == sorted(body for body in bodies if len(body) <= 1000)


@pytest.mark.parametrize("asked", [True, False], ids=["asked over HTTP", "found by halving"])
def test_a_smaller_body_limit_is_kept_to(shell: Shell, make_broker: MakeBroker, topic: str, asked: bool) -> None:
    broker = make_broker("--max-body-size=10000", "--max-msg-size=5000")
    nowhere = [] if asked else ["--nsqd-http-address", "127.0.0.1:1"]
    bodies = [b"%04d" % number + b"." * 900 for number in range(500)]
    done = shell.run("q-pipe", topic, *broker.flags, *nowhere, input=b"\n".join(bodies) + b"\n")
    assert done.status == 0, done.err
    assert sorted(broker.bodies(topic)) == bodies


def test_a_larger_limit_is_made_use_of(shell: Shell, make_broker: MakeBroker, topic: str) -> None:
    broker = make_broker("--max-msg-size=3000000", "--max-body-size=8000000")
    done = shell.run("q-pipe", topic, *broker.flags, input=b"a\n" + b"x" * 2_500_000 + b"\nb\n")
    assert done.status == 0, done.err
    assert [len(body) for body in broker.bodies(topic)] == [1, 2_500_000, 1]


def test_a_smaller_limit_ends_it_at_the_right_line(shell: Shell, make_broker: MakeBroker, topic: str) -> None:
    broker = make_broker("--max-msg-size=1000")
    text = b"short\n" * 10 + b"!" * 1001 + b"\n" + b"short\n" * 10
    done = shell.run("q-pipe", topic, *broker.flags, input=text)
    assert done.status == 1
    assert done.err_lines[-2].startswith("q-pipe: stdin: message 11 was not sent: it has 1001 bytes")
    assert "confirmed: 10 messages, 60 bytes of input" in done.err_lines[-1]

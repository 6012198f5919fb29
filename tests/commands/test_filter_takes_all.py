"""A filter that takes all: what was finished unprinted is said, and an expression that always fails ends the run."""

from __future__ import annotations

import pytest
from harness.brokers import Broker
from harness.shell import Shell
from harness.terminal import Terminal

pytestmark = pytest.mark.forks

AMOUNTS = [b'{"amount":%d}' % number for number in range(1500)]
FAILS = '.amount | test("x")'  # a number has no text to look at


def words(program: str, topic: str) -> list[str]:
    return {
        "q-tail": [f"{topic}/me"],
        "q-to-file": [f"{topic}/me", "--output", "out"],
        "q-bridge": [f"{topic}/me", "--to", f"{topic}.copy"],
    }[program]


def test_a_mistyped_path_is_counted_into_a_pipe_too(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(topic, AMOUNTS)
    done = shell.run("q-tail", f"{topic}/me", "--where", ".amout > 990", "--until-empty", *broker.flags)
    assert (done.status, done.out) == (0, b"")
    (line,) = done.err_lines
    assert line.startswith("q-tail: 0 messages (0 B) in ")
    assert line.endswith(" printed; 1,500 messages taken from the queue; 1,500 did not match")


def test_on_a_terminal_too(shell: Shell, broker: Broker, topic: str, terminal: Terminal) -> None:
    broker.fill(topic, AMOUNTS[:20])
    where = [f"{topic}/me", "--where", ".amount > 17", "--until-empty", *broker.flags]
    assert shell.run("q-tail", *where, stdout=terminal.fd, stderr=terminal.fd).status == 0
    assert b" printed; 20 messages taken from the queue; 18 did not match" in terminal.all()


def test_quiet_is_quiet_and_all_that_matches_is_no_news(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(topic, AMOUNTS[:20])
    for flags in (["--where", ".amount > 17", "-q"], ["--where", ".amount >= 0"]):
        broker.create(topic, f"c{len(flags)}")
        done = shell.run("q-tail", f"{topic}/c{len(flags)}", *flags, "--until-empty", *broker.flags)
        assert (done.status, done.err) == (0, "")


def test_what_sample_leaves_out_is_said(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(topic, AMOUNTS)
    done = shell.run("q-tail", f"{topic}/me", "--sample", "0.5", "--until-empty", *broker.flags)
    left_out = 1500 - len(done.lines)
    assert done.err.rstrip().endswith(f"1,500 messages taken from the queue; {left_out:,} left out by --sample")


@pytest.mark.parametrize("program", ["q-tail", "q-to-file", "q-bridge"])
def test_an_expression_that_always_fails_ends_the_run_and_takes_nothing(
    shell: Shell, broker: Broker, topic: str, program: str
) -> None:
    broker.create(topic, "me")
    broker.fill(topic, AMOUNTS)
    done = shell.run(program, *words(program, topic), "--where", FAILS, "--until-empty", "-q", *broker.flags)
    assert (done.status, done.out) == (1, b"")
    (line,) = done.err_lines
    assert "messages; on the first one:" in line
    found = broker.wait_held(topic, "me", 1500)
    assert found.timed_out == 0
    assert not broker.topic(f"{topic}.dead")
    assert not list(shell.home.glob("out/*.log"))


@pytest.mark.parametrize(("program", "on_error"), [("q-tail", "skip"), ("q-to-file", "skip"), ("q-bridge", "drop")])
def test_unless_it_is_asked_for(shell: Shell, broker: Broker, topic: str, program: str, on_error: str) -> None:
    broker.create(topic, "me")
    broker.fill(topic, AMOUNTS)
    chosen = ["--where", FAILS, "--on-error", on_error, "--until-empty"]
    done = shell.run(program, *words(program, topic), *chosen, *broker.flags)
    assert (done.status, done.out) == (0, b"")
    assert "1,500" in done.err_lines[-1]
    assert broker.wait_held(topic, "me", 0).held == 0


def test_one_that_has_an_answer_among_the_first_is_enough(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(topic, [*AMOUNTS[:600], b'{"amount":"x"}', *AMOUNTS[:600]])
    done = shell.run("q-tail", f"{topic}/me", "--where", FAILS, "--until-empty", *broker.flags)
    assert (done.status, done.lines) == (0, [b'{"amount":"x"}'])
    assert done.err_lines[-1].endswith(
        "1,201 messages taken from the queue; 1,200 failed and were left out (-v names each)"
    )


def test_few_that_fail_are_finished_as_before(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(topic, AMOUNTS[:5])
    done = shell.run("q-tail", f"{topic}/me", "--where", FAILS, "--until-empty", *broker.flags)
    assert (done.status, done.out) == (0, b"")
    assert "5 failed and were left out" in done.err_lines[-1]
    assert broker.wait_held(topic, "me", 0).held == 0

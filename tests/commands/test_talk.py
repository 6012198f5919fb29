"""What q-pipe says on stderr: a summary, a progress line for a person, nothing with --quiet."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
from harness.brokers import Broker
from harness.shell import Shell
from harness.terminal import Terminal


def test_a_progress_line_on_a_terminal(shell: Shell, broker: Broker, topic: str, terminal: Terminal) -> None:
    (shell.home / "input").write_bytes(b"x\n" * 100)
    pipe = shell.start("q-pipe", topic, "input", "--rate", "100", *broker.flags, stderr=terminal.fd)
    assert pipe.wait().status == 0
    shown = terminal.all()
    drawn = re.findall(rb"\r\x1b\[K(\d+) messages? sent  \d+ B  \d+/s", shown)
    assert len(drawn) > 1
    assert sorted(drawn, key=int) == drawn
    # The line is taken away before the summary is said.
    assert re.search(
        rb"\r\x1b\[Kq-pipe: 100 messages \(100 B\) in \d\.\d s, \d+/s to " + topic.encode() + rb"\n$", shown
    )


@pytest.mark.parametrize("words", [[], ["--quiet"]])
def test_no_progress_line_anywhere_else(
    shell: Shell, broker: Broker, topic: str, terminal: Terminal, words: list[str]
) -> None:
    (shell.home / "input").write_bytes(b"x\n" * 60)
    into = terminal.fd if words else subprocess.PIPE
    done = shell.start("q-pipe", topic, "input", "--rate", "100", *words, *broker.flags, stderr=into).wait()
    assert done.status == 0
    assert b"\r" not in terminal.all() + done.err.encode()


def test_quiet_says_nothing_but_errors(shell: Shell, broker: Broker, topic: str) -> None:
    done = shell.run("q-pipe", topic, "-q", *broker.flags, input=b"a\n\nb\n")
    assert (done.status, done.err) == (0, "")
    done = shell.run("q-pipe", topic, "-q", "--empty", "fail", *broker.flags, input=b"a\n\nb\n")
    assert done.status == 1
    assert len(done.err_lines) == 2


def test_json_lines_for_machines(shell: Shell, broker: Broker, topic: str) -> None:
    done = shell.run("q-pipe", topic, "--log-format", "json", *broker.flags, input=b"a\n")
    told = [json.loads(line) for line in done.err_lines]
    assert [(each["level"], each["program"]) for each in told] == [("info", "q-pipe")]
    assert told[0]["message"].startswith("1 message (1 B) in ")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", told[0]["time"])


def test_json_for_failures_too(shell: Shell, broker: Broker, topic: str) -> None:
    done = shell.run("q-pipe", topic, "--log-format", "json", "--empty", "fail", *broker.flags, input=b"a\n\n")
    told = [json.loads(line) for line in done.err_lines]
    assert [each["level"] for each in told] == ["error", "error"]
    nobody = shell.run("q-pipe", topic, "--log-format", "json", "--nsqd", "127.0.0.1:1", input=b"a\n")
    assert nobody.status == 3
    assert [json.loads(line)["level"] for line in nobody.err_lines] == ["error"]


def test_a_person_who_types_is_told_so(shell: Shell, broker: Broker, topic: str, terminal: Terminal) -> None:
    pipe = shell.start("q-pipe", topic, *broker.flags, stdin=terminal.fd)
    pipe.wait_err("q-pipe: reading from the terminal; Ctrl-D ends it\n")
    terminal.type(b"typed\n\x04")
    assert pipe.wait().status == 0
    assert broker.bodies(topic) == [b"typed"]


def test_a_stderr_that_nobody_reads_changes_nothing(shell: Shell, broker: Broker, topic: str) -> None:
    done = shell.script(f"printf 'a\\n\\nb\\n' | q-pipe {topic} {' '.join(broker.flags)} 2>&-").wait()
    assert (done.status, done.out) == (0, b"")
    full = shell.script(f"printf 'a\\n\\nb\\n' | q-pipe {topic} {' '.join(broker.flags)} 2>/dev/full").wait()
    assert (full.status, full.out) == (0, b"")
    assert broker.bodies(topic) == [b"a", b"b"] * 2


def test_a_stdout_that_is_closed_changes_nothing(shell: Shell, broker: Broker, topic: str) -> None:
    done = shell.script(f"printf 'a\\n' | q-pipe {topic} {' '.join(broker.flags)} >&-").wait()
    assert done.status == 0, done.err
    assert broker.bodies(topic) == [b"a"]

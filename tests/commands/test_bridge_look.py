"""q-bridge --dry-run and --explain: where messages would go and why; nothing is sent, nothing is taken from others."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import pytest
from harness.brokers import Broker
from harness.shell import Shell
from harness.waiting import wait_until

pytestmark = pytest.mark.forks

ROUTES = r"""
[[route]]
name = "big"
when = '.type == "purchase" and .amount > 100'
to = "T.big"
last = true

[[route]]
to = 'T.\(.type)'
"""


@pytest.fixture
def routes(tmp_path: Path, topic: str) -> Path:
    path = tmp_path / "routes.toml"
    path.write_text(ROUTES.replace("T.", f"{topic}."))
    return path


def test_a_dry_run_tells_and_sends_nothing(shell: Shell, broker: Broker, topic: str, routes: Path) -> None:
    broker.create(topic, "worker")
    look = shell.start("q-bridge", topic, "--routes", routes, "--dry-run", *broker.flags)
    wait_until(lambda: len(broker.channels(topic)) == 2)
    some = [b'{"type":"purchase","amount":150}', b'{"type":"look"}', b"not \x1bjson", b'{"type":"a b"}']
    broker.fill(topic, some)
    wait_until(lambda: look.out.count(b"\n") == 4)
    look.signal(15)
    done = look.wait()
    assert (done.status, done.err) == (0, "")
    lines = done.out.decode().splitlines()
    assert lines[0] == f'goes to {topic}.big\t{{"type":"purchase","amount":150}}'
    assert lines[1] == f'goes to {topic}.look\t{{"type":"look"}}'
    assert lines[2].startswith("cannot be routed: it is not JSON (")
    assert lines[2].endswith("\tnot \\x1bjson")
    assert "cannot be routed: route 'route 2': topic name " in lines[3]
    assert {each["topic_name"] for each in broker.stats() if each["topic_name"].startswith(topic)} == {topic}
    assert broker.bodies(topic, "worker") == some
    wait_until(lambda: broker.channels(topic) == ["worker"])


def test_a_dry_run_does_not_take_what_nobody_else_has(shell: Shell, broker: Broker, topic: str, routes: Path) -> None:
    broker.fill(topic, [b"precious"])
    done = shell.run("q-bridge", f"{topic}/n", "--routes", routes, "--dry-run", *broker.flags)
    assert done.status == 2
    assert done.err == (
        f"q-bridge: {topic} has no channel yet and 1 message: --dry-run reads through a temporary channel, which would"
        f" take it; start the bridge once, so that {topic}/n exists; then q-tail {topic}/n --peek |"
        " q-bridge --explain … shows what waits (see q-bridge --help)\n"
    )
    assert broker.channels(topic) == []


def test_explain_a_line_of_stdin(shell: Shell, routes: Path, topic: str) -> None:
    lines = b'{"type":"purchase","amount":7}\n{"type":"purchase","amount":101}\nx\n7\n'
    done = shell.run("q-bridge", "--explain", "--routes", routes, input=lines)
    assert (done.status, done.err) == (0, "")
    assert done.out.decode().replace(f"{topic}.", "T.").splitlines() == [
        '{"type":"purchase","amount":7}',
        "  route 'big': does not match",
        '    .type == "purchase"                       true',
        "    .amount > 100                             false",
        "  route 'route 2': matches → T.\\(.type)",
        "  goes to T.purchase",
        '{"type":"purchase","amount":101}',
        "  route 'big': matches → T.big",
        '    .type == "purchase"                       true',
        "    .amount > 100                             true",
        "  route 'route 2': not tried, as one before it is the last",
        "  goes to T.big",
        "x",
        "  cannot be routed: it is not JSON (unexpected character, expected a JSON value: line 1 column 1 (char 0))",
        "7",
        "  route 'big': does not match",
        '    .type == "purchase"                       fails: Cannot index number with string ("type")',
        '    .amount > 100                             fails: Cannot index number with string ("amount")',
        "  route 'route 2': matches → T.\\(.type)",
        "  cannot be routed: route 'big': Cannot index number with string (\"type\")",
    ]


def test_explain_a_live_message(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "worker")
    words = ["--to", f"{topic}.out", "--where", ".n > 1", "--explain"]
    look = shell.start("q-bridge", topic, *words, *broker.flags)
    wait_until(lambda: len(broker.channels(topic)) == 2)
    broker.fill(topic, [b'{"n":2}', b'{"n":0}'])
    done = look.wait()
    assert done.status == 0
    assert done.out.decode().splitlines() == [
        '{"n":2}',
        f"  --where: matches → {topic}.out",
        "    .n > 1                                    true",
        f"  goes to {topic}.out",
    ]
    assert broker.topic(f"{topic}.out") is None


def test_a_reader_that_goes_away_ends_it_quietly(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "worker")
    words = f"q-bridge {topic} --to {topic}.out --dry-run {' '.join(broker.flags)} | head -1"
    look = shell.script(words)
    wait_until(lambda: len(broker.channels(topic)) == 2)
    for nth in range(3):
        broker.fill(topic, [b"%d" % nth])
        wait_until(lambda: not look.is_running or len(look.out))
    done = look.wait()
    assert (done.out, done.err) == (f"goes to {topic}.out\t0\n".encode(), "")


@pytest.mark.parametrize("flag", ["--dry-run", "--explain"])
def test_a_look_is_never_empty(shell: Shell, flag: str) -> None:
    done = shell.run("q-bridge", "events", "--to", "x", flag, "--until-empty")
    assert (done.status, done.err) == (
        2,
        f"q-bridge: {flag} and --until-empty do not go together: {flag} sees only what is published after it starts"
        " (see q-bridge --help)\n",
    )


def test_closed_streams(shell: Shell) -> None:
    done = shell.script("q-bridge --explain --to x <&-").wait()
    assert (done.status, done.err) == (
        2,
        "q-bridge: stdin is closed: pipe messages in, or name a topic (see q-bridge --help)\n",
    )
    done = shell.script("q-bridge --explain --to x >&-").wait()
    assert (done.status, "stdout is closed" in done.err) == (2, True)


@pytest.mark.parametrize("how", ["--explain", "--dry-run"])
def test_a_non_blocking_stdout_gets_all_of_it(shell: Shell, broker: Broker, routes: Path, topic: str, how: str) -> None:
    """Another process on the same terminal can make it so; a pipe holds 64 KB, and then a write would block."""
    lines = [b'{"type":"purchase","amount":%d,"pad":"%s"}' % (nth, b"x" * 1000) for nth in range(500)]
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with open(reading, "rb") as reader:
        if how == "--explain":
            look = shell.start(
                "q-bridge", how, "--routes", routes, stdin=subprocess.PIPE, stdout=writing, stderr=subprocess.PIPE
            )
            os.close(writing)
            feeding = threading.Thread(target=lambda: (look.feed(b"\n".join(lines)), look.end_input()))
            feeding.start()
        else:
            broker.create(topic, "other")
            words = [topic, how, "--routes", routes, "-n", "500", *broker.flags]
            look = shell.start("q-bridge", *words, stdout=writing, stderr=subprocess.PIPE)
            os.close(writing)
            wait_until(lambda: len(broker.channels(topic)) == 2)
            broker.fill(topic, lines)
        told = reader.read()
    assert look.wait().status == 0
    assert look.err == ""
    assert all(line in told for line in lines)


def test_a_dry_run_warns_where_its_channel_is_the_only_one(shell: Shell, broker: Broker, topic: str) -> None:
    done = shell.run(
        "q-bridge", topic, "--to", f"{topic}.out", "--dry-run", "--idle-timeout", "0.5", *broker.flags, timeout=60
    )
    assert done.status == 0
    assert done.err_lines == [
        f"q-bridge: {topic} has no channel: what is published while --dry-run reads is printed, and no channel gets it"
        " later"
    ]


def test_envelopes_are_explained_with_their_variables(shell: Shell, tmp_path: Path) -> None:
    words = ["q-bridge", "--explain", "--to", "a.\\($headers.type)", "--where", '$key == "k" and $offset > 1']
    lines = [
        b'{"topic":"events","key":"k","headers":{"type":"x"},"offset":2,"body_base64":"/w=="}',
        b'{"topic":"events","key_base64":"/w==","body":null}',
    ]
    done = shell.run(*words, "--format", "envelope", input=b"\n".join(lines))
    assert done.status == 0, done.err
    assert b"  goes to a.x\n" in done.out
    assert b"  goes nowhere\n" in done.out
    broken = shell.run(*words, "-f", "envelope", input=lines[0] + b"\n{}\n")
    assert broken.status == 1
    assert broken.err_lines[-1].startswith('q-bridge: stdin: line 2 has neither a "body"')
    refused = shell.run(*words[:1], "events", "--to", "a", "--format", "envelope")
    assert (refused.status, "--format says what --explain reads from stdin" in refused.err) == (2, True)

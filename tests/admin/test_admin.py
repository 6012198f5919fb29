"""q-admin's subcommands with a real broker."""

from __future__ import annotations

import json
import signal

import pytest
from conftest import MakeBroker
from harness.brokers import Broker
from harness.shell import Shell
from harness.terminal import Terminal


def test_topics(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "mail")
    broker.create(topic, "bill")
    broker.fill(topic, [b"x"] * 1200)
    broker.drain(topic, "bill")
    broker.fill(f"{topic}.alone", [b"x"] * 3)
    done = shell.run("q-admin", "topics", f"{topic}*", "-c", *broker.flags)
    assert (done.status, done.err) == (0, "")
    head, *lines = [line.split() for line in done.out.decode().splitlines()]
    assert head == ["TOPIC", "CHANNELS", "LEFT", "IN", "FLIGHT", "DEFERRED", "CLIENTS", "MESSAGES"]
    assert [line[:3] for line in lines] == [
        [topic, "2", "1,200"], ["/bill", "-", "0"], ["/mail", "-", "1,200"], [f"{topic}.alone", "0", "3"],
    ]  # fmt: skip
    rows = shell.run("q-admin", "topics", f"{topic}*", "--sort", "depth", "--json", *broker.flags).lines
    first, second = map(json.loads, rows)
    assert (first["topic"], first["waiting"], first["channels"][0]["channel"]) == (topic, 1200, "bill")
    assert (second["topic"], second["waiting"], second["channels"]) == (f"{topic}.alone", 3, [])
    assert shell.run("q-admin", "topics", "no-such-*", *broker.flags).out == b""


def test_show(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "mail")
    broker.fill(topic, [b"x"] * 5)
    shown = shell.run("q-admin", "show", topic, *broker.flags).out.decode()
    assert f"topic:       {topic}\n" in shown
    assert "\n/mail        5 " in shown
    one = json.loads(shell.run("q-admin", "show", f"{topic}/mail", "--json", *broker.flags).out)
    assert (one["channel"], one["depth"], one["paused"]) == ("mail", 5, False)
    done = shell.run("q-admin", "show", f"{topic}/post", *broker.flags)
    assert (done.status, done.err) == (3, f"q-admin: {topic} has no channel post; it has mail\n")
    assert "there is no topic nosuch" in shell.run("q-admin", "show", "nosuch", *broker.flags).err


def test_create(shell: Shell, broker: Broker, topic: str) -> None:
    done = shell.run("q-admin", "create", f"{topic}/mail", f"{topic}.b", *broker.flags)
    assert (done.status, done.err) == (0, f"q-admin: created: {topic}/mail\nq-admin: created: {topic}.b\n")
    broker.fill(topic, [b"first"])
    assert broker.depth(topic, "mail").held == 1
    done = shell.run("q-admin", "create", f"{topic}/mail", *broker.flags)
    assert (done.status, done.err) == (0, f"q-admin: exists already: {topic}/mail\n")


def test_what_destroys_is_confirmed(shell: Shell, broker: Broker, topic: str, terminal: Terminal) -> None:
    broker.create(topic, "mail")
    broker.fill(topic, [b"x"] * 7)
    for action in ("empty", "delete"):
        done = shell.run("q-admin", action, f"{topic}/mail", *broker.flags)
        assert done.status == 2
        assert f"q-admin: {action} drops messages, and there is no terminal to ask on: give --yes" in done.err
        done = shell.run("q-admin", action, f"{topic}/mail", "--dry-run", *broker.flags)
        assert (done.status, broker.depth(topic, "mail").held) == (0, 7)
        assert f"{topic}/mail (7 messages unfinished)" in done.err
    running = shell.start("q-admin", "empty", f"{topic}/mail", *broker.flags, stdin=terminal.fd, stderr=terminal.fd)
    terminal.wait_shown(b"? [y/N] ")
    terminal.type(b"n\n")
    assert running.wait().status == 1
    assert broker.depth(topic, "mail").held == 7
    terminal.wait_shown(b"nothing was changed")
    running = shell.start("q-admin", "delete", f"{topic}/mail", *broker.flags, stdin=terminal.fd, stderr=terminal.fd)
    terminal.wait_shown(f"delete {topic}/mail (7 messages unfinished)".encode())
    running.signal(signal.SIGINT)  # as Ctrl-C
    assert running.wait().status == -signal.SIGINT
    assert broker.depth(topic, "mail").held == 7
    running = shell.start("q-admin", "empty", f"{topic}/mail", *broker.flags, stdin=terminal.fd, stderr=terminal.fd)
    terminal.type(b"y\n")
    assert running.wait().status == 0
    assert broker.depth(topic, "mail").held == 0


def test_delete(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "mail")
    broker.create(topic, "bill")
    broker.fill(topic, [b"x"])
    assert shell.run("q-admin", "delete", f"{topic}/mail", "-y", *broker.flags).status == 0
    one = json.loads(shell.run("q-admin", "show", topic, "--json", *broker.flags).out)
    assert [each["channel"] for each in one["channels"]] == ["bill"]
    assert shell.run("q-admin", "delete", topic, "-y", "-q", *broker.flags).err == ""
    assert shell.run("q-admin", "show", topic, *broker.flags).status == 3
    done = shell.run("q-admin", "delete", topic, "-y", *broker.flags)
    assert (done.status, len(done.err_lines)) == (3, 1)


def test_pause(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "mail")
    broker.fill(topic, [b"x"])
    assert shell.run("q-admin", "pause", f"{topic}/mail", *broker.flags).err == f"q-admin: paused: {topic}/mail\n"
    assert shell.run("q-tail", f"{topic}/mail", "--idle-timeout", "300ms", *broker.flags).out == b""
    assert b"paused" in shell.run("q-admin", "topics", topic, "-c", *broker.flags).out
    assert shell.run("q-admin", "unpause", f"{topic}/mail", *broker.flags).status == 0
    assert shell.run("q-tail", f"{topic}/mail", "-n1", *broker.flags).out == b"x\n"
    done = shell.run("q-admin", "pause", f"{topic}/post", f"{topic}/mail", *broker.flags)
    assert done.status == 1
    assert f"{topic}/post: there is no such channel" in done.err
    assert f"paused: {topic}/mail" in done.err


def test_over_several_brokers(shell: Shell, make_broker: MakeBroker, topic: str) -> None:
    one, two = make_broker(), make_broker()
    for broker, count in ((one, 3), (two, 4)):
        broker.create(topic, "mail")
        broker.fill(topic, [b"x"] * count)
    flags = [*one.flags, *two.flags]
    row = json.loads(shell.run("q-admin", "topics", topic, "--json", *flags).out)
    assert row["waiting"] == 7
    shell.run("q-admin", "empty", f"{topic}/mail", "-y", *flags)
    assert (one.depth(topic, "mail").held, two.depth(topic, "mail").held) == (0, 0)


def test_a_broker_that_does_not_answer(shell: Shell, make_broker: MakeBroker, topic: str) -> None:
    """The counts of the others are printed, with a warning and status 1."""
    one, two = make_broker(), make_broker()
    one.create(topic, "mail")
    one.fill(topic, [b"x"] * 3)
    two.kill()
    for words in (
        ["topics", topic, "--json"],
        ["show", topic, "--json"],
        ["top", topic, "--once", "--json", "-i", "100ms"],
    ):
        done = shell.run("q-admin", *words, *one.flags, *two.flags)
        assert json.loads(done.out)["depth"] in (0, 3)
        assert done.status == 1
        assert "what it has is not counted" in done.err
    done = shell.run("q-admin", "topics", *two.flags)
    assert (done.status, done.out) == (3, b"")


def test_top_once(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "mail")
    broker.fill(topic, [b"x"] * 3)
    done = shell.run("q-admin", "top", topic, "--once", "-i", "200ms", *broker.flags)
    assert done.out.decode().splitlines()[1].split() == [topic, "3", "0", "0", "0/s"]
    row = json.loads(shell.run("q-admin", "top", topic, "--once", "--json", "-i", "200ms", *broker.flags).out)
    assert (row["waiting"], row["rate"], row["channels"][0]["history"]) == (3, 0.0, [3, 3])


@pytest.mark.parametrize("end", ["q", "signal"])
def test_top(shell: Shell, broker: Broker, topic: str, terminal: Terminal, end: str) -> None:
    broker.create(topic, "mail")
    broker.fill(topic, [b"first message", b"second"])
    running = shell.start(
        "q-admin", "top", topic, "-i", "200ms", *broker.flags,
        stdin=terminal.fd, stdout=terminal.fd, environ={"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    terminal.wait_shown(topic.encode())
    terminal.type(b"\r")
    terminal.wait_shown(b"channels by name")
    terminal.wait_shown(b"\x1b[7mmail")
    broker.fill(topic, [b"x"] * 1000)
    terminal.wait_shown(b"1,002")
    terminal.type(b"py")
    terminal.wait_shown(b"paused ")
    done = shell.run("q-admin", "show", f"{topic}/mail", "--json", *broker.flags)
    assert json.loads(done.out)["paused"] is True
    if end == "q":
        terminal.type(b"q")
    else:
        running.signal(signal.SIGTERM)
    assert running.wait().status == 0
    assert terminal.all().endswith(b"\x1b[?25h\x1b[?1049l")


def test_usage_errors(shell: Shell, broker: Broker) -> None:
    for words, part in (
        (["tops"], "there is no subcommand 'tops': did you mean top?"),
        (["top"], "needs a terminal: --once prints a table once"),
        (["top", "--json"], "--json goes with --once"),
        (["top", "--once", "--sort", "messages"], "'messages' is not one of 'name', 'depth', 'in-flight', 'rate'"),
        (["topics", "--sort", "rate"], "'rate' is not one of"),
        (["create", "a/b", "--create-topics", "partitions=3"], "NSQ has no partitions"),
        (["delete", "bad name", "-y"], "topic name 'bad name' has ' '"),
        (["pause"], "missing argument"),
    ):
        done = shell.run("q-admin", *words, *(broker.flags if len(words) > 1 or words[0] == "top" else ()))
        assert done.status == 2, words
        assert part in done.err
        assert len(done.err_lines) == 1
    done = shell.run("q-admin", "topics", "--nsqd", "127.0.0.1:1")
    assert (done.status, len(done.err_lines)) in ((3, 1), (1, 1))
    done = shell.run("q-admin", "create", "amqp://127.0.0.1:1/orders")
    hint = "use `: | q-pipe --create-topics default TOPIC`, and read a channel once"
    assert done.err == f"q-admin: create: RabbitMQ creates no topics: {hint} (see q-admin create --help)\n"
    assert done.status == 2

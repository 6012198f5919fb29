"""A channel that a command makes has only what comes from now on: it says so where other channels have a backlog."""

from __future__ import annotations

import re
import signal

import pytest
from harness.brokers import Broker
from harness.shell import Shell
from harness.terminal import Terminal

pytestmark = pytest.mark.forks


def missed(topic: str, channel: str) -> str:
    return (
        f"{topic}/{channel} is a new channel and gets only what is published from now on; "
        f"messages wait in other channels ({topic}/old: 7)"
    )


@pytest.fixture
def backlog(broker: Broker, topic: str) -> str:
    """A topic of which another channel has seven messages."""
    broker.create(topic, "old")
    broker.fill(topic, [b"%d" % number for number in range(7)])
    return topic


@pytest.mark.parametrize("program", ["q-tail", "q-bridge", "q-to-file"])
@pytest.mark.parametrize("ends", [["--until-empty"], ["--until-now"], ["--idle-timeout", "1s"]])
def test_each_command_says_so_once_and_not_again(
    shell: Shell, broker: Broker, backlog: str, program: str, ends: list[str]
) -> None:
    where = {"q-tail": [], "q-bridge": ["--to", f"{backlog}.copy"], "q-to-file": ["--output", "out"]}[program]
    done = shell.run(program, f"{backlog}/new", *where, *ends, *broker.flags)
    assert done.status == 0
    assert [line for line in done.err_lines if "new channel" in line] == [f"{program}: {missed(backlog, 'new')}"]
    if ends[0] != "--idle-timeout":  # the channel is there now, though nothing was ever in it
        again = shell.run(program, f"{backlog}/new", *where, *ends, *broker.flags)
        assert (again.status, "new channel" in again.err) == (0, False)
    assert broker.depth(backlog, "old").held == 7


def test_though_messages_come_at_once(shell: Shell, broker: Broker, backlog: str) -> None:
    tail = shell.start("q-tail", f"{backlog}/new", *broker.flags)
    broker.wait_clients(backlog, "new")
    broker.fill(backlog, [b"x"])
    tail.wait_err(f"q-tail: {backlog}/new is a new channel and gets only what is published from now on")
    assert tail.out == b"x\n"


def test_not_of_a_channel_that_has_had_its_messages(shell: Shell, broker: Broker, backlog: str) -> None:
    broker.create(backlog, "me")
    broker.fill(backlog, [b"x"])
    assert shell.run("q-tail", f"{backlog}/me", "-n", "1", *broker.flags).out == b"x\n"
    done = shell.run("q-tail", f"{backlog}/me", "--idle-timeout", "1s", *broker.flags)
    assert (done.status, done.err) == (0, "")


def test_nor_of_the_first_channel_nor_with_quiet(shell: Shell, broker: Broker, topic: str, backlog: str) -> None:
    broker.create(f"{topic}.none", "another")
    done = shell.run("q-tail", f"{topic}.none/me", "--idle-timeout", "500ms", *broker.flags)
    assert (done.status, done.err) == (0, "")
    done = shell.run("q-tail", f"{backlog}/new", "--idle-timeout", "500ms", "-q", *broker.flags)
    assert (done.status, done.err) == (0, "")


@pytest.mark.parametrize("program", ["q-tail", "q-bridge", "q-to-file"])
def test_a_topic_that_is_new_is_named(shell: Shell, broker: Broker, topic: str, program: str) -> None:
    where = {"q-tail": [], "q-bridge": ["--to", f"{topic}.copy"], "q-to-file": ["--output", "out"]}[program]
    done = shell.run(program, f"{topic}/me", *where, "--until-empty", *broker.flags)
    told = f"{program}: {topic} is a new topic: nothing was ever published to it"
    assert (done.status, done.err_lines[0]) == (0, told)
    done = shell.run(program, f"{topic}.quiet/me", *where, "--until-empty", "-q", *broker.flags)
    assert (done.status, done.err) == (0, "")
    waiting = shell.start(program, f"{topic}.late/me", *where, *broker.flags)
    waiting.wait_err(f"{program}: nothing was published to the topic {topic}.late since the broker was started\n")


def test_also_for_a_temporary_channel(shell: Shell, broker: Broker, topic: str) -> None:
    tail = shell.start("q-tail", topic, *broker.flags)
    tail.wait_err(f"q-tail: {topic} is a new topic: nothing was ever published to it\n")


def test_of_a_temporary_channel_a_person_is_told(
    shell: Shell, broker: Broker, backlog: str, terminal: Terminal
) -> None:
    words = [backlog, "--idle-timeout", "300ms", *broker.flags]
    done = shell.run("q-tail", *words)
    assert (done.status, done.err) == (0, "")
    assert shell.run("q-tail", *words, stderr=terminal.fd).status == 0
    told = terminal.all().decode()
    assert re.search(rf"q-tail: {backlog}/q-tail-\S+#ephemeral is a new channel and gets only what is published", told)


def test_a_pause_is_said_while_nothing_comes(shell: Shell, broker: Broker, backlog: str) -> None:
    broker.tell(f"/channel/pause?topic={backlog}&channel=old")
    tail = shell.start("q-tail", f"{backlog}/old", *broker.flags)
    tail.wait_err(
        f"q-tail: {backlog}/old is paused on {broker.address}, and keeps 7 messages back until it is unpaused\n"
    )
    broker.tell(f"/channel/unpause?topic={backlog}&channel=old")
    assert len(tail.wait_out(14).split()) == 7


@pytest.mark.parametrize("program", ["q-tail", "q-bridge", "q-to-file"])
def test_a_run_that_had_nothing_is_a_failure_where_that_is_asked_for(
    shell: Shell, broker: Broker, backlog: str, program: str
) -> None:
    where = {"q-tail": [], "q-bridge": ["--to", f"{backlog}.copy"], "q-to-file": ["--output", "out"]}[program]
    words = [*where, "--idle-timeout", "300ms", "--fail-if-none", "-q", *broker.flags]
    none = shell.run(program, f"{backlog}/new", *words)
    verb = {"q-tail": "printed", "q-bridge": "routed", "q-to-file": "archived"}[program]
    assert (none.status, none.out, none.err) == (1, b"", f"{program}: no message was {verb}\n")
    some = shell.run(program, f"{backlog}/old", *words)
    assert (some.status, some.err) == (0, "")


@pytest.mark.parametrize("program", ["q-tail", "q-bridge", "q-to-file"])
def test_a_stop_does_not_wait_for_it(shell: Shell, broker: Broker, backlog: str, program: str) -> None:
    where = {"q-tail": [], "q-bridge": ["--to", f"{backlog}.copy"], "q-to-file": ["--output", "out"]}[program]
    broker.create(backlog, "new")
    running = shell.start(program, f"{backlog}/new", *where, "--idle-timeout", "1h", *broker.flags)
    broker.wait_clients(backlog, "new")
    running.signal(signal.SIGTERM)
    done = running.wait(10)
    assert (done.status, "new channel" in done.err) == (0, False)  # which it would say after a second

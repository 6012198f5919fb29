"""q-tail --until-empty ends when nothing is left: neither waiting, nor in flight anywhere, nor deferred."""

from __future__ import annotations

import subprocess

import pytest
from conftest import MakeBroker
from harness.brokers import Broker
from harness.reader import Reader
from harness.shell import Shell
from harness.waiting import wait_until

pytestmark = pytest.mark.forks


def test_it_prints_all_there_is_and_ends(shell: Shell, broker: Broker, topic: str) -> None:
    lines = [b"%05d" % number for number in range(6000)]
    broker.fill(topic, lines)
    done = shell.run("q-tail", f"{topic}/me", "--until-empty", *broker.flags)
    assert (done.status, done.err) == (0, "")
    assert sorted(done.lines) == lines
    assert broker.depth(topic, "me").held == 0


def test_nothing_there_is_empty(shell: Shell, broker: Broker, topic: str) -> None:
    done = shell.run("q-tail", f"{topic}/me", f"{topic}.other/me", "--until-empty", *broker.flags)
    assert (done.status, done.out) == (0, b"")
    assert done.err_lines == [
        f"q-tail: {name} is a new topic: nothing was ever published to it" for name in (topic, f"{topic}.other")
    ]


def test_what_others_hold_in_flight_is_waited_for(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.fill(topic, [b"held"])
    reader = broker.reader(topic, "me", ready=1)
    held = reader.take(1)
    reader.ready(0)
    broker.fill(topic, [b"a", b"b"])
    tail = shell.start("q-tail", f"{topic}/me", "--until-empty", *broker.flags)
    assert sorted(tail.wait_out(4).split()) == [b"a", b"b"]
    with pytest.raises(subprocess.TimeoutExpired):
        tail.process.wait(1.2)  # it looks twice a second
    reader.requeue(held)
    done = tail.wait(10)
    assert done.lines[2:] == [b"held"]
    reader.close()


def test_what_others_finish_is_not_waited_for(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.fill(topic, [b"held"])
    reader = broker.reader(topic, "me", ready=1)
    held = reader.take(1)
    tail = shell.start("q-tail", f"{topic}/me", "--until-empty", *broker.flags)
    broker.wait_clients(topic, "me", 2)
    reader.finish(held)
    done = tail.wait(10)
    assert (done.status, done.out) == (0, b"")
    reader.close()


def test_deferred_messages_are_waited_for(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.tell(f"/pub?topic={topic}&defer=1500", b"late")
    wait_until(lambda: broker.depth(topic, "me").deferred == 1)
    broker.fill(topic, [b"now"])
    done = shell.run("q-tail", f"{topic}/me", "--until-empty", *broker.flags)
    assert (done.status, done.out) == (0, b"now\nlate\n")


def test_every_broker_counts(shell: Shell, make_broker: MakeBroker, topic: str) -> None:
    brokers = [make_broker(), make_broker()]
    brokers[1].fill(topic, [b"second"] * 10)
    brokers[0].fill(topic, [b"first"] * 10)
    done = shell.run("q-tail", f"{topic}/me", "--until-empty", *brokers[0].flags, *brokers[1].flags)
    assert sorted(done.lines) == [b"first"] * 10 + [b"second"] * 10


def test_with_a_count_whichever_comes_first(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(topic, [b"x"] * 10)
    assert len(shell.run("q-tail", f"{topic}/me", "--until-empty", "-n", "4", *broker.flags).lines) == 4
    assert len(shell.run("q-tail", f"{topic}/me", "--until-empty", "-n", "400", *broker.flags).lines) == 6


def test_where_http_cannot_be_asked_it_says_so_and_keeps_nothing(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.fill(topic, [b"a", b"b"])
    words = ["--until-empty", "--nsqd", broker.address, "--nsqd-http-address", "127.0.0.1:1"]
    done = shell.run("q-tail", f"{topic}/me", *words)
    assert (done.status, done.out) == (3, b"")  # what a run needs is asked before a message is taken
    assert len(done.err_lines) == 1
    assert f"--until-empty needs the HTTP API of {broker.address}" in done.err
    assert "--nsqd-http-address says where it is" in done.err
    assert broker.wait_held(topic, "me", 2)


@pytest.mark.parametrize("program", ["q-bridge", "q-to-file"])
@pytest.mark.parametrize("flag", ["--until-empty", "--until-now"])
def test_every_command_asks_before_it_takes(shell: Shell, broker: Broker, topic: str, program: str, flag: str) -> None:
    broker.fill(topic, [b"a", b"b"])
    where = ["--to", f"{topic}.copy"] if program == "q-bridge" else ["--output", "out"]
    done = shell.run(
        program, f"{topic}/me", *where, flag, "--nsqd", broker.address, "--nsqd-http-address", "127.0.0.1:1"
    )
    assert done.status == 3
    assert f"{flag} needs the HTTP API of {broker.address}" in done.err
    found = broker.topic(topic)
    assert found is not None
    assert (found["depth"], found["channels"]) == (2, [])  # not even subscribed
    assert not list(shell.home.glob("out/*.log"))


def test_something_else_at_the_http_port(shell: Shell, broker: Broker, topic: str) -> None:
    words = ["--until-empty", "--nsqd", broker.address, "--nsqd-http-address", broker.address]
    done = shell.run("q-tail", f"{topic}/me", *words)
    assert done.status == 3
    assert len(done.err_lines) == 1


@pytest.mark.parametrize("seconds", ["300ms", "1"])
def test_idle_timeout_ends_it_when_nothing_comes(shell: Shell, broker: Broker, topic: str, seconds: str) -> None:
    broker.fill(topic, [b"a", b"b"])
    done = shell.run("q-tail", f"{topic}/me", "--idle-timeout", seconds, *broker.flags)
    assert (done.status, done.err) == (0, "")
    assert sorted(done.lines) == [b"a", b"b"]
    assert broker.depth(topic, "me").held == 0


def test_idle_timeout_counts_from_the_last_message(shell: Shell, broker: Broker, topic: str) -> None:
    tail = shell.start("q-tail", f"{topic}/me", "--idle-timeout", "1s", *broker.flags)
    broker.wait_clients(topic, "me")
    for number in range(4):
        with pytest.raises(subprocess.TimeoutExpired):
            tail.process.wait(0.4)
        broker.fill(topic, [b"%d" % number])
    assert tail.wait(10).out == b"0\n1\n2\n3\n"


@pytest.mark.parametrize("what", ["channel", "topic"])
def test_a_paused_source_is_said_and_waited_for(shell: Shell, broker: Broker, topic: str, what: str) -> None:
    broker.create(topic, "me")
    broker.tell(f"/{what}/pause?topic={topic}" + (f"&channel={'me'}" if what == "channel" else ""))
    broker.fill(topic, [b"a", b"b"])
    tail = shell.start("q-tail", f"{topic}/me", "--until-empty", *broker.flags)
    tail.wait_err(f"{topic}/me is paused on {broker.address}, and keeps 2 messages back")
    broker.tell(f"/{what}/unpause?topic={topic}" + (f"&channel={'me'}" if what == "channel" else ""))
    done = tail.wait(10)
    assert (done.status, sorted(done.lines)) == (0, [b"a", b"b"])
    assert len(done.err_lines) == 1


@pytest.mark.parametrize("flag", ["--until-empty", "--until-now"])
@pytest.mark.parametrize("program", ["q-tail", "q-bridge", "q-to-file"])
def test_a_paused_source_is_a_failure_in_the_end(
    shell: Shell, broker: Broker, topic: str, program: str, flag: str
) -> None:
    broker.create(topic, "me")
    broker.fill(topic, [b"a"])
    broker.tell(f"/channel/pause?topic={topic}&channel=me")
    where = {"q-tail": [], "q-bridge": ["--to", f"{topic}.copy"], "q-to-file": ["--output", "out"]}[program]
    words = [f"{topic}/me", *where, flag, "-q", *broker.flags]
    for ends in (["--idle-timeout", "500ms"], ["--fail-if-paused"]):
        done = shell.run(program, *words, *ends)
        assert done.status == 1
        assert done.err_lines == [f"{program}: {topic}/me is paused on {broker.address}, and keeps 1 message back"]
    assert broker.wait_held(topic, "me", 1)


def held_by_another(broker: Broker, topic: str) -> Reader:
    """One of three messages is in flight at another reader."""
    broker.create(topic, "me")
    broker.fill(topic, [b"a", b"b", b"c"])
    reader = broker.reader(topic, "me", ready=1)
    reader.take(1)
    reader.ready(0)
    return reader


def wait_only_held(broker: Broker, topic: str) -> None:
    """Wait until the run has finished all but the message that is in flight elsewhere."""
    wait_until(lambda: (broker.depth(topic, "me").depth, broker.depth(topic, "me").in_flight) == (0, 1))


@pytest.mark.parametrize("flag", ["--until-empty", "--until-now"])
@pytest.mark.parametrize("program", ["q-tail", "q-bridge", "q-to-file"])
def test_a_topic_that_is_deleted_meanwhile_is_a_failure(
    shell: Shell, broker: Broker, topic: str, program: str, flag: str
) -> None:
    """The run was to read all of it, and cannot any more."""
    reader = held_by_another(broker, topic)
    where = {"q-tail": [], "q-bridge": ["--to", f"{topic}.copy"], "q-to-file": ["--output", "out"]}[program]
    run = shell.start(program, f"{topic}/me", *where, flag, *broker.flags)
    wait_only_held(broker, topic)
    broker.tell(f"/topic/delete?topic={topic}")
    done = run.wait(20)
    assert done.status == 1
    said = f"the topic {topic} was deleted on {broker.address} during the run; what it still held was not read"
    assert sum(said in line for line in done.err_lines) == 1
    reader.close()


def test_a_channel_that_is_deleted_meanwhile_is_a_failure(shell: Shell, broker: Broker, topic: str) -> None:
    reader = held_by_another(broker, topic)
    tail = shell.start("q-tail", f"{topic}/me", "--until-empty", *broker.flags)
    wait_only_held(broker, topic)
    broker.tell(f"/channel/delete?topic={topic}&channel=me")
    done = tail.wait(20)
    assert (done.status, sorted(done.lines)) == (1, [b"b", b"c"])
    assert f"the channel {topic}/me was deleted on {broker.address} during the run" in done.err
    reader.close()


def test_a_topic_that_is_emptied_meanwhile_is_empty(shell: Shell, broker: Broker, topic: str) -> None:
    reader = held_by_another(broker, topic)
    tail = shell.start("q-tail", f"{topic}/me", "--until-empty", *broker.flags)
    wait_only_held(broker, topic)
    broker.tell(f"/channel/empty?topic={topic}&channel=me")
    assert tail.wait(20).status == 0
    reader.close()


@pytest.mark.parametrize("flag", ["--until-empty", "--until-now"])
def test_what_is_waited_for_is_said_once(shell: Shell, broker: Broker, topic: str, flag: str) -> None:
    reader = held_by_another(broker, topic)
    tail = shell.start("q-tail", f"{topic}/me", flag, *broker.flags)
    line = f"waiting for 1 message in flight at other readers of {topic}/me"
    tail.wait_err(line)
    with pytest.raises(subprocess.TimeoutExpired):
        tail.process.wait(1.2)  # it looks twice a second
    reader.close()
    broker.tell(f"/channel/empty?topic={topic}&channel=me")
    done = tail.wait(20)
    assert done.status == 0
    assert sum(line in each for each in done.err_lines) == 1


def test_deferred_messages_that_are_waited_for_are_said(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.tell(f"/pub?topic={topic}&defer=600000", b"late")
    wait_until(lambda: broker.depth(topic, "me").deferred == 1)
    tail = shell.start("q-tail", f"{topic}/me", "--until-empty", *broker.flags)
    tail.wait_err("waiting for 1 message")
    broker.tell(f"/channel/empty?topic={topic}&channel=me")
    done = tail.wait(20)
    assert (done.status, done.out) == (0, b"")
    assert done.err_lines == [f"q-tail: waiting for 1 message of {topic}/me deferred until later"]

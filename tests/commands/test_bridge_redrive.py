"""q-bridge --redrive: dead letters go back where they came from, byte for byte, and what is none is kept aside."""

from __future__ import annotations

import json

import pytest
from harness.brokers import Broker
from harness.shell import Shell

pytestmark = pytest.mark.forks

BAD = [b"not json", b"\xff\x00\xfe", b'{"n": 1', b"line\nline"]


def test_there_and_back(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "q-bridge", "watch")
    broker.fill(topic, BAD)
    shell.run("q-bridge", topic, "--to", f"{topic}.out", "--where", ".n", "--until-empty", *broker.flags)
    assert broker.published(f"{topic}.dead") == len(BAD)
    assert broker.bodies(topic, "watch") == BAD
    done = shell.run("q-bridge", "--redrive", f"{topic}.dead", *broker.flags)
    assert done.status == 0, done.err
    assert f"{len(BAD)} routed" in done.err
    assert broker.bodies(topic, "watch") == BAD
    assert broker.bodies(topic, "q-bridge") == BAD
    assert broker.depth(f"{topic}.dead", "q-bridge").held == 0


def test_letters_that_another_channel_got_are_named(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(f"{topic}.dead", "look")
    broker.fill(f"{topic}.dead", BAD)
    assert len(broker.bodies(f"{topic}.dead", "look")) == len(BAD)
    done = shell.run("q-bridge", "--redrive", f"{topic}.dead", *broker.flags)
    told = (
        f"q-bridge: {topic}.dead/q-bridge is a new channel: other channels got the 4 messages published before;"
        f" --redrive {topic}.dead/CHANNEL puts back what waits in one of them"
    )
    assert (done.status, told in done.err_lines) == (0, True)
    again = shell.run("q-bridge", "--redrive", f"{topic}.dead", *broker.flags)
    assert (again.status, "is a new channel" in again.err) == (0, False)


def test_letters_of_several_topics_in_one(shell: Shell, broker: Broker, topic: str) -> None:
    for name in "ab":
        broker.fill(f"{topic}.{name}", [name.encode()])
    words = ["--to", f"{topic}.out", "--where", ".n", "--dead-letter-topic", f"{topic}.lost", "--until-empty"]
    shell.run("q-bridge", f"{topic}.a", f"{topic}.b", *words, *broker.flags)
    shell.run("q-bridge", "--redrive", f"{topic}.lost", *broker.flags)
    for name in "ab":
        assert broker.bodies(f"{topic}.{name}", "q-bridge") == [name.encode()]


def test_q_pipe_reads_the_letters_too(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(topic, BAD)
    shell.run("q-bridge", topic, "--to", f"{topic}.out", "--where", ".n", "--until-empty", *broker.flags)
    letters = b"".join(body + b"\n" for body in broker.bodies(f"{topic}.dead"))
    done = shell.run("q-pipe", f"{topic}.again", "--format", "envelope", *broker.flags, input=letters)
    assert done.status == 0, done.err
    assert broker.bodies(f"{topic}.again") == BAD


def test_what_is_no_letter_is_kept_aside(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(f"{topic}.dead", [b"no letter", json.dumps({"topic": f"{topic}.dead", "body": "x"}).encode()])
    done = shell.run("q-bridge", "--redrive", f"{topic}.dead", *broker.flags)
    assert done.status == 0, done.err
    assert "2 dead-lettered" in done.err
    reasons = [json.loads(letter)["reason"] for letter in broker.bodies(f"{topic}.dead.dead")]
    assert "it is not a dead letter: it is not JSON" in reasons[0]
    assert f"came from {topic}.dead, which is read here" in reasons[1]


@pytest.mark.parametrize("flag", ["--to", "--routes", "--where", "--select", "--dry-run", "--explain"])
def test_as_they_were_means_as_they_were(shell: Shell, flag: str) -> None:
    value = [] if flag in ("--dry-run", "--explain") else ["x"]
    done = shell.run("q-bridge", "--redrive", "events.dead", flag, *value)
    assert done.status == 2
    assert f"{flag} does not go with it" in done.err


def test_what_is_no_letter_cannot_be_passed_on(shell: Shell) -> None:
    done = shell.run("q-bridge", "--redrive", "events.dead", "--on-error", "pass")
    assert (done.status, "has no destination for a message that is not a dead letter" in done.err) == (2, True)

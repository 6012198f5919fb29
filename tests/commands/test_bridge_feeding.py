"""A bridge that would feed itself is refused at the start; where only a message decides, the message is."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from conftest import MakeBroker
from harness.brokers import Broker, Lookupd
from harness.shell import Shell
from harness.waiting import wait_until

TOLD = "is read and written to on the same brokers: every message would come round again for ever"


@pytest.mark.parametrize(
    "words",
    [["T", "--to", "T"], ["T", "--to", "x", "--to", "T"], ["T", "O", "--to", "O"], ["T/a", "--to", "T"]],
)
def test_a_topic_that_is_read_and_written(shell: Shell, broker: Broker, topic: str, words: list[str]) -> None:
    words = [word.replace("T", topic).replace("O", f"{topic}.other") for word in words]
    done = shell.run("q-bridge", *words, *broker.flags)
    assert done.status == 2
    assert TOLD in done.err
    assert broker.channels(topic) == []


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"])
def test_the_same_broker_by_another_name(shell: Shell, broker: Broker, topic: str, name: str) -> None:
    there = f"{name}:{broker.port}"
    done = shell.run("q-bridge", topic, "--to", topic, "--to-nsqd", there, *broker.flags)
    assert done.status == 2
    assert TOLD in done.err


def test_the_same_nsqd_by_way_of_nsqlookupd(
    shell: Shell, make_broker: MakeBroker, make_lookupd: Callable[[], Lookupd], topic: str
) -> None:
    lookupd = make_lookupd()
    here, there = make_broker(f"--lookupd-tcp-address={lookupd.address}"), make_broker()
    here.create(topic, "q-bridge")
    wait_until(lambda: lookupd.producers(topic) == 1)
    for words in (
        [*here.flags, "--to-lookupd", lookupd.http],
        [*lookupd.flags, "--to-nsqd", here.address],
        [*lookupd.flags, "--to-lookupd", lookupd.http],
    ):
        done = shell.run("q-bridge", topic, "--to", topic, *words)
        assert done.status == 2
        assert TOLD in done.err
    here.fill(topic, [b"a"])
    done = shell.run("q-bridge", topic, "--to", topic, "--to-nsqd", there.address, "--until-empty", *lookupd.flags)
    assert done.status == 0, done.err
    assert there.bodies(topic) == [b"a"]


def test_a_message_that_names_what_is_read(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(topic, [json.dumps({"to": to}).encode() for to in (f"{topic}.x", topic, f"{topic}.y")])
    done = shell.run("q-bridge", topic, "--to", "\\(.to)", "--until-empty", *broker.flags)
    assert done.status == 0, done.err
    assert "2 routed, 1 dead-lettered" in done.err
    (letter,) = broker.bodies(f"{topic}.dead")
    assert "is read by this run: the message would be routed in an endless loop" in json.loads(letter)["reason"]


def test_dead_letters_that_would_be_read_again(shell: Shell, broker: Broker, topic: str) -> None:
    words = [topic, f"{topic}.dead", "--to", f"{topic}.out", *broker.flags]
    done = shell.run("q-bridge", *words)
    assert done.status == 2
    assert f"{topic}.dead is read, and takes the dead letters of {topic}" in done.err
    broker.fill(f"{topic}.dead", [b"a"])
    done = shell.run("q-bridge", *words, "--on-error", "drop", "--until-empty")
    assert done.status == 0, done.err

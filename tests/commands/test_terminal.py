"""On a terminal what could do harm is made visible; into a pipe bytes go untouched."""

from __future__ import annotations

import json

from harness.brokers import Broker
from harness.shell import Shell
from harness.terminal import Terminal

HARMFUL = b"\x1b[31mred\x1b[0m \x07 \r \x7f \xc2\x9b \xff " + "\u202etxt\u202c tab\there two\nlines ü".encode()
SHOWN = "^[[31mred^[[0m ^G ^M ^? <U+009B> \\xff <U+202E>txt<U+202C> tab\there two\nlines ü\n".encode()


def test_control_characters_are_made_visible(shell: Shell, broker: Broker, topic: str, terminal: Terminal) -> None:
    broker.fill(topic, [HARMFUL])
    done = shell.run("q-tail", f"{topic}/me", "-n", "1", *broker.flags, stdout=terminal.fd)
    assert (done.status, done.err) == (0, "")
    assert terminal.all() == SHOWN


def test_with_the_topic_before_it_too(shell: Shell, broker: Broker, topic: str, terminal: Terminal) -> None:
    broker.fill(topic, [HARMFUL])
    shell.run("q-tail", f"{topic}/me", "-n", "1", "--print-topic", *broker.flags, stdout=terminal.fd)
    assert terminal.all() == f"{topic} | ".encode() + SHOWN


def test_an_envelope_is_still_json(shell: Shell, broker: Broker, topic: str, terminal: Terminal) -> None:
    broker.fill(topic, ["\x1b[31m \u202e".encode()])
    shell.run("q-tail", f"{topic}/me", "-n", "1", "-f", "envelope", *broker.flags, stdout=terminal.fd)
    shown = terminal.all()
    assert b"\x1b" not in shown
    assert "\u202e".encode() not in shown
    assert json.loads(shown)["body"].startswith("\x1b[31m ")


def test_into_a_pipe_bytes_go_untouched(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(topic, [HARMFUL])
    done = shell.run("q-tail", f"{topic}/me", "-n", "1", *broker.flags)
    assert done.out == HARMFUL + b"\n"


def test_a_summary_for_a_person_who_does_not_see_the_messages(
    shell: Shell, broker: Broker, topic: str, terminal: Terminal
) -> None:
    broker.fill(topic, [b"a", b"b"])
    done = shell.run("q-tail", f"{topic}/me", "--until-empty", *broker.flags, stderr=terminal.fd)
    assert sorted(done.lines) == [b"a", b"b"]
    assert terminal.all().split(b"\r\x1b[K")[-1].startswith(b"q-tail: 2 messages (4 B) in ")


def test_none_for_one_who_does(shell: Shell, broker: Broker, topic: str, terminal: Terminal) -> None:
    broker.fill(topic, [b"a", b"b"])
    words = [f"{topic}/me", "-n", "2", *broker.flags]
    assert shell.run("q-tail", *words, stdout=terminal.fd, stderr=terminal.fd).status == 0
    assert sorted(terminal.all().split()) == [b"a", b"b"]

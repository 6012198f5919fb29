"""On a terminal what could do harm is made visible; into a pipe bytes go untouched."""

from __future__ import annotations

import json
import re
import signal

import pytest
from harness.brokers import Broker
from harness.shell import Shell
from harness.terminal import Terminal

TIME = rb"\d\d:\d\d:\d\d "

HARMFUL = b"\x1b[31mred\x1b[0m \x07 \r \x7f \xc2\x9b \xff " + "\u202etxt\u202c tab\there two\nlines ü".encode()
SHOWN = "^[[31mred^[[0m ^G ^M ^? <U+009B> \\xff <U+202E>txt<U+202C> tab\there two\nlines ü\n".encode()


def test_control_characters_are_made_visible(shell: Shell, broker: Broker, topic: str, terminal: Terminal) -> None:
    broker.fill(topic, [HARMFUL])
    done = shell.run("q-tail", f"{topic}/me", "-n", "1", *broker.flags, stdout=terminal.fd)
    assert (done.status, done.err) == (0, "")
    shown = terminal.all()
    assert re.match(TIME, shown)
    assert re.sub(TIME, b"", shown) == SHOWN


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
    assert sorted(re.sub(TIME, b"", terminal.all()).split()) == [b"a", b"b"]


def test_json_for_a_person(shell: Shell, broker: Broker, topic: str, terminal: Terminal) -> None:
    """Highlighted, on one line if it fits into 80 columns, else indented; topics where there are several."""
    broker.fill(topic, [b'{"id":1,"name":"ann"}', b'{"text":"' + b"x" * 80 + b'"}'])
    done = shell.run("q-tail", f"{topic}/me", "-n2", *broker.flags, stdout=terminal.fd, environ={"TERM": "xterm"})
    assert (done.status, done.err) == (0, "")
    first, second, *rest = terminal.all().split(b"\n")
    assert re.fullmatch(
        rb'\x1b\[2m\d\d:\d\d:\d\d\x1b\[0m {\x1b\[34;1m"id"\x1b\[0m: 1, '
        rb'\x1b\[34;1m"name"\x1b\[0m: \x1b\[32m"ann"\x1b\[0m}',
        first,
    )
    assert re.fullmatch(rb"\x1b\[2m\d\d:\d\d:\d\d\x1b\[0m", second)
    assert rest == [b"{", b'  \x1b[34;1m"text"\x1b[0m: \x1b[32m"' + b"x" * 80 + b'"\x1b[0m', b"}", b""]


@pytest.mark.parametrize("environ", [{"TERM": "xterm", "NO_COLOR": "1"}, {"TERM": "dumb"}, {}], ids=str)
def test_without_colours(shell: Shell, broker: Broker, topic: str, terminal: Terminal, environ: dict[str, str]) -> None:
    broker.fill(topic, [b'{"id":1,"name":null}'])
    broker.fill(f"{topic}.b", [b"plain"])
    words = [f"{topic}/me", f"{topic}.b/me", "-n2", *broker.flags]
    shell.run("q-tail", *words, stdout=terminal.fd, environ=environ)
    shown = sorted(re.sub(TIME, b"", terminal.all()).splitlines())
    assert shown == sorted([f'{topic} {{"id": 1, "name": null}}'.encode(), f"{topic}.b plain".encode()])


def test_no_pretty_on_a_terminal_and_pretty_in_a_pipe(
    shell: Shell, broker: Broker, topic: str, terminal: Terminal
) -> None:
    broker.fill(topic, [b'{"id":1}'])
    shell.run("q-tail", f"{topic}/me", "-n1", "--no-pretty", *broker.flags, stdout=terminal.fd)
    assert terminal.all() == b'{"id":1}\n'
    broker.fill(topic, [b'{"id":1}'])
    done = shell.run("q-tail", f"{topic}/me", "-n1", "--pretty", *broker.flags, environ={"TERM": "xterm"})
    assert re.fullmatch(TIME + rb'{"id": 1}\n', done.out)


def test_attempts(shell: Shell, broker: Broker, topic: str, terminal: Terminal) -> None:
    broker.create(topic, "me")
    broker.fill(topic, [b"x"])
    shell.run("q-exec", f"{topic}/me", "-n1", "--backoff", "0s", *broker.flags, "--", "false")
    shell.run("q-tail", f"{topic}/me", "-n1", *broker.flags, stdout=terminal.fd)
    assert re.fullmatch(rb"\d\d:\d\d:\d\d attempt [23] x\n", terminal.all())


def test_what_is_waited_for(shell: Shell, broker: Broker, topic: str, terminal: Terminal) -> None:
    """A line that is gone before a message is printed."""
    broker.create(topic, "me")
    running = shell.start("q-tail", f"{topic}/me", *broker.flags, stdout=terminal.fd, stderr=terminal.fd)
    terminal.wait_shown(f"\r\x1b[Kwaiting for {topic}/me at {broker.address}"[:70].encode())
    broker.fill(topic, [b"first"])
    shown = terminal.wait_shown(b"first\n")
    assert re.search(rb"waiting for [^\n]*\r\x1b\[K\d\d:\d\d:\d\d first\n", shown)
    terminal.wait_shown(b"; 1 message, the last one ")
    running.signal(signal.SIGTERM)
    assert running.wait().status == 0
    assert terminal.all().endswith(b"\r\x1b[K")


def test_no_such_line_with_quiet(shell: Shell, broker: Broker, topic: str, terminal: Terminal) -> None:
    broker.create(topic, "me")
    words = [f"{topic}/me", "-q", "--idle-timeout", "2500ms", *broker.flags]
    assert shell.run("q-tail", *words, stdout=terminal.fd, stderr=terminal.fd).status == 0
    assert terminal.all() == b""

"""What q-pipe makes of its words and of unusual input: mistaken arguments, no delimiter at all, a byte order mark."""

from __future__ import annotations

import pytest
from harness.brokers import Broker
from harness.shell import Shell

MARK = b"\xef\xbb\xbf"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["app.log", "logs"], "app.log is a file: the topic comes first: q-pipe logs app.log"),
        (["./app.log", "logs"], "it is a file, and the topic comes before it"),
        (["logs", "hello there"], "to send the text itself: echo 'hello there' | q-pipe logs"),
        (["app.log", "logs", "--checkpoint", "position"], "the topic comes first: q-pipe logs app.log"),
    ],
)  # fmt: skip
def test_mistaken_words_get_a_hint(shell: Shell, words: list[str], told: str) -> None:
    (shell.home / "app.log").write_bytes(b"1\n")
    done = shell.run("q-pipe", *words)
    assert done.status == 2
    assert told in done.err
    assert len(done.err_lines) == 1


def test_no_delimiter_at_all(shell: Shell, broker: Broker, topic: str) -> None:
    (shell.home / "one").write_bytes(b"a\nb\n")
    done = shell.run("q-pipe", topic, "-d", "", "one", "-", *broker.flags, input=b"c\0d")
    assert done.status == 0, done.err
    printed = shell.run("q-tail", f"{topic}/c", "-d", "", "-n", "2", *broker.flags)
    assert printed.out == b"a\nb\nc\0d"


def test_no_delimiter_goes_with_no_place_to_go_on_at(shell: Shell) -> None:
    for flag in (["--checkpoint", "position"], ["-F"]):
        done = shell.run("q-pipe", "topic", "input", "-d", "", *flag)
        assert done.status == 2
        assert "leave out --checkpoint, --follow" in done.err


def test_a_byte_order_mark_is_kept_in_bytes_and_ignored_in_json(shell: Shell, broker: Broker, topic: str) -> None:
    (shell.home / "input").write_bytes(MARK + b'{"a":1}\n{"a":2}\n' + MARK + b'{"a":12345678901234567890123}\n')
    (shell.home / "envelopes").write_bytes(MARK + b'{"body":"x"}\n')
    (shell.home / "routes.toml").write_bytes(MARK + f'[[route]]\nwhen = ".a"\nto = "{topic}"\n'.encode())
    flags = broker.flags
    assert shell.run("q-pipe", topic, "input", *flags).status == 0
    assert shell.run("q-pipe", topic, "input", "--where", ".a > 1", "--select", ".a", *flags).status == 0
    assert shell.run("q-pipe", topic, "envelopes", "--format", "envelope", *flags).status == 0
    routed = shell.run("q-pipe", "--routes", "routes.toml", "input", *flags)
    assert routed.status == 0, routed.err
    lines = (shell.home / "input").read_bytes().splitlines()
    assert broker.bodies(topic) == [*lines, b"2", b"12345678901234567890123", b"x", *lines]

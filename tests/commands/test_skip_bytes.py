"""--skip-bytes goes on exactly where a failed run says it can."""

from __future__ import annotations

import re

import pytest
from harness.brokers import Broker
from harness.shell import Done, Shell

pytestmark = pytest.mark.forks

LARGE = b"x" * (1024 * 1024 + 1)


def told(done: Done) -> int:
    """The number that the last line says to go on with."""
    found = re.search(r"--skip-bytes (\d+) goes on there$", done.err_lines[-1])
    assert found, done.err
    return int(found[1])


@pytest.mark.parametrize(
    ("delimiter", "start"),
    [(b"\n", b""), (b"\n", b"\n\n"), (b"<-->", b"first<-->")],
    ids=["lines", "empty lines first", "a long delimiter"],
)
def test_a_run_goes_on_behind_what_was_confirmed(
    shell: Shell, broker: Broker, topic: str, delimiter: bytes, start: bytes
) -> None:
    lines = [b"%d" % number for number in range(1000)]
    good = start + delimiter.join(lines[:700]) + delimiter
    text = good + LARGE + delimiter + delimiter.join(lines[700:])
    (shell.home / "input").write_bytes(text)
    words = [topic, "input", "-d", delimiter.decode(), *broker.flags]
    failed = shell.run("q-pipe", *words)
    assert failed.status == 1
    assert told(failed) == len(good)
    went_on = shell.run("q-pipe", "--skip-bytes", str(told(failed)), "--on-oversize", "skip", *words)
    assert went_on.status == 0, went_on.err
    assert went_on.err_lines[0].startswith(f"q-pipe: input from byte {len(good)} on: message 1 was not sent: ")
    bodies = broker.bodies(topic)
    expected = [b"first", *lines] if start.startswith(b"first") else lines
    # What stood behind the bad one in the same batch was sent the first time already, and nothing else twice.
    assert bodies[: len(expected) - 300] == expected[:-300]
    assert sorted(bodies[len(expected) - 300 :]) == sorted(lines[700:] * 2)


def test_the_same_from_stdin_and_over_files(shell: Shell, broker: Broker, topic: str) -> None:
    (shell.home / "one").write_bytes(b"1\n2\n")
    (shell.home / "two").write_bytes(b"3\n4\n")
    text = b"in\nput\n"
    for skip, expected in [
        (0, [b"1", b"2", b"in", b"put", b"3", b"4"]),
        (2, [b"2", b"in", b"put", b"3", b"4"]),
        (4, [b"in", b"put", b"3", b"4"]),
        (7, [b"put", b"3", b"4"]),
    ]:
        done = shell.run("q-pipe", topic, "one", "-", "two", "--skip-bytes", str(skip), *broker.flags, input=text)
        assert done.status == 0, done.err
        assert broker.bodies(topic) == expected
    for skip, rest in [(4, [b"3", b"4"]), (6, [b"4"]), (8, [])]:
        done = shell.run("q-pipe", topic, "one", "two", "--skip-bytes", str(skip), *broker.flags)
        assert done.status == 0, done.err
        assert broker.bodies(topic) == rest


@pytest.mark.parametrize("words", [["input"], ["-"], ["input", "input"]])
def test_more_than_there_is(shell: Shell, broker: Broker, topic: str, words: list[str]) -> None:
    (shell.home / "input").write_bytes(b"1\n")
    done = shell.run("q-pipe", topic, *words, "--skip-bytes", "5", *broker.flags, input=b"1\n")
    assert done.status == 1
    assert "5" in done.err_lines[0] or "3" in done.err_lines[0]
    assert "were to be skipped" in done.err_lines[0]
    assert broker.published(topic) == 0


def test_not_with_a_checkpoint(shell: Shell) -> None:
    done = shell.run("q-pipe", "topic", "--skip-bytes", "5", "--checkpoint", "file", input=b"")
    assert done.status == 2
    assert "give --checkpoint or --skip-bytes, not both" in done.err

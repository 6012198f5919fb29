"""`qtools` lists the commands and runs them: `qtools tail …` is `q-tail …`."""

from __future__ import annotations

import sys

import pytest
from harness.brokers import Broker
from harness.shell import ROOT, Shell

from qtools.__main__ import COMMANDS


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_it_lists_every_command_with_a_line(shell: Shell, words: list[str]) -> None:
    done = shell.run("qtools", *words)
    assert (done.status, done.err) == (0, "")
    listed = done.out.decode().partition("Commands:\n")[2].splitlines()
    there = sorted(path.parent.name for path in (ROOT / "qtools").glob("*/command.py"))
    assert [line.split()[0].replace("-", "_") for line in listed[: len(there)]] == there
    assert all(len(line.split()) > 3 for line in listed[: len(there)])


def test_it_runs_them(shell: Shell, broker: Broker, topic: str) -> None:
    sent = shell.run("qtools", "pipe", topic, *broker.flags, input=b"a\nb\n")
    assert sent.status == 0
    assert sent.err.startswith("q-pipe: 2 messages (2 B) in ")
    read = shell.run("qtools", "tail", f"{topic}/me", "-n", "2", *broker.flags)
    assert (read.status, read.out, read.err) == (0, b"a\nb\n", "")


@pytest.mark.parametrize(
    "words", [["pipe", "--help"], ["tail", "bad topic"], ["pipe"], ["tail", "--nope"], ["broker", "status"]]
)
def test_to_the_byte_as_if_called_by_name(shell: Shell, words: list[str]) -> None:
    through = shell.run("qtools", *words)
    directly = shell.run(f"q-{words[0]}", *words[1:])
    assert through == directly


def test_an_unknown_command_is_usage_and_guessed(shell: Shell) -> None:
    done = shell.run("qtools", "tial", "--until-empty")
    assert (done.status, done.out) == (2, b"")
    assert done.err == "qtools: there is no command 'tial': did you mean tail? (see qtools --help)\n"
    done = shell.run("qtools", "frobnicate")
    assert done.status == 2
    assert f"there is no command 'frobnicate': there are {', '.join(COMMANDS)}" in done.err


def test_a_command_is_not_imported_unless_it_is_run(shell: Shell) -> None:
    program = (
        "import sys, qtools.__main__ as m\n"
        "sys.argv = ['qtools']\n"
        "try: m.main()\n"
        "finally: print([n for n in sys.modules if n.endswith('.command') or n == 'asyncio'], file=sys.stderr)\n"
    )
    done = shell.run("qtools", argv=[sys.executable, "-c", program])
    assert (done.status, done.err) == (0, "[]\n")

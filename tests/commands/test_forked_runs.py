"""A run that is forked from the fork server of the tests shows what an executed one shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness.fork_server import ForkServer
from harness.shell import Shell


@pytest.mark.parametrize(
    ("program", "words", "given"),
    [
        ("q-pipe", ["--help"], None),
        ("q-pipe", ["a topic"], b"x\n"),
        ("q-pipe", ["t", "--broker", "no://where"], b"x\n"),
        ("q-tail", ["--no-such-flag"], None),
        ("q-bridge", ["t"], None),
        ("q-to-file", ["verify", "."], None),
        ("qtools", ["--version"], None),
    ],
)
def test_it_is_the_same(
    program: str, words: list[str], given: bytes | None, tmp_path: Path, shell: Shell, fork_server: ForkServer
) -> None:
    forking = Shell(fork_server)
    try:
        forked, executed = (one.run(program, *words, input=given, cwd=tmp_path) for one in (forking, shell))
        assert (forked.status, forked.out, forked.err) == (executed.status, executed.out, executed.err)
    finally:
        forking.close()


def test_each_has_an_environment_of_its_own(fork_server: ForkServer) -> None:
    forking = Shell(fork_server)
    try:
        named = forking.run("q-pipe", "t", environ={"QTOOLS_BROKER": "no://where"})
        assert named.status == 2
        assert "no://where" in named.err
        assert "no://where" not in forking.run("q-pipe", "t u").err
    finally:
        forking.close()

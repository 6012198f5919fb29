"""AUTH: the secret comes from a file or the environment, and is seen nowhere."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MakeBroker
from harness.authority import EVERYTHING, Authority
from harness.brokers import Broker
from harness.shell import Done, Shell

SECRET = "s3cret-of-the-test"
READER = "may-only-subscribe"


@pytest.fixture
def authority() -> Iterator[Authority]:
    only_subscribe = [{"topic": ".*", "channels": [".*"], "permissions": ["subscribe"]}]
    made = Authority({SECRET: EVERYTHING, READER: only_subscribe})
    yield made
    made.close()


@pytest.fixture
def guarded(make_broker: MakeBroker, authority: Authority) -> Broker:
    return make_broker(f"--auth-http-address={authority.address}")


@pytest.fixture
def secret_file(shell: Shell) -> Path:
    path = shell.home / "secret"
    path.write_text(SECRET + "\n")
    return path


def refused(done: Done) -> str:
    assert done.status in (1, 3), done.err
    assert SECRET not in done.err
    return done.err


def test_a_secret_from_a_file(
    shell: Shell, guarded: Broker, authority: Authority, topic: str, secret_file: Path
) -> None:
    words = ["--auth-secret-file", str(secret_file), *guarded.flags]
    sent = shell.run("q-pipe", topic, *words, input=b"a\n")
    assert sent.status == 0, sent.err
    read = shell.run("q-tail", f"{topic}/me", "-n", "1", *words)
    assert (read.status, read.out, read.err) == (0, b"a\n", "")
    assert set(authority.asked) == {SECRET}  # the newline is not part of it


def test_a_secret_from_the_environment(shell: Shell, guarded: Broker, topic: str) -> None:
    environ = {"QTOOLS_AUTH_SECRET": SECRET}
    assert shell.run("q-pipe", topic, *guarded.flags, input=b"a\n", environ=environ).status == 0
    read = shell.run("q-tail", f"{topic}/me", "-n", "1", *guarded.flags, environ=environ)
    assert (read.status, read.out) == (0, b"a\n")


def test_the_file_comes_before_the_environment(shell: Shell, guarded: Broker, topic: str, secret_file: Path) -> None:
    words = ["--auth-secret-file", str(secret_file), *guarded.flags]
    done = shell.run("q-pipe", topic, *words, input=b"a\n", environ={"QTOOLS_AUTH_SECRET": "wrong"})
    assert done.status == 0, done.err


def test_a_wrong_secret(shell: Shell, guarded: Broker, topic: str) -> None:
    for command in (["q-pipe", topic], ["q-tail", f"{topic}/me"]):
        done = shell.run(*command, *guarded.flags, input=b"a\n", environ={"QTOOLS_AUTH_SECRET": "wrong-one"})
        assert done.status == 3
        assert len(done.err_lines) == 1
        assert guarded.address in done.err
        assert "AUTH" in done.err
        assert "wrong-one" not in done.err


def test_no_secret_where_one_is_needed(shell: Shell, guarded: Broker, topic: str) -> None:
    for command in (["q-pipe", topic], ["q-tail", f"{topic}/me"]):
        done = shell.run(*command, *guarded.flags, input=b"a\n")
        assert done.status == 3
        assert len(done.err_lines) == 1
        assert "--auth-secret-file" in done.err
        assert "QTOOLS_AUTH_SECRET" in done.err


def test_a_secret_that_may_not_publish(shell: Shell, guarded: Broker, topic: str) -> None:
    guarded.create(topic, "me")
    done = shell.run("q-pipe", topic, *guarded.flags, input=b"a\n", environ={"QTOOLS_AUTH_SECRET": READER})
    assert done.status == 1
    assert "E_UNAUTHORIZED" in done.err
    assert "confirmed: 0 messages" in done.err_lines[-1]
    assert guarded.published(topic) == 0
    guarded.fill(topic, [b"a"])
    read = shell.run("q-tail", f"{topic}/me", "-n", "1", *guarded.flags, environ={"QTOOLS_AUTH_SECRET": READER})
    assert read.out == b"a\n"


def test_a_secret_where_none_is_asked_for_is_not_told(shell: Shell, broker: Broker, topic: str) -> None:
    done = shell.run("q-pipe", topic, *broker.flags, input=b"a\n", environ={"QTOOLS_AUTH_SECRET": SECRET})
    assert done.status == 0, done.err
    assert broker.bodies(topic) == [b"a"]


def test_the_secret_is_seen_nowhere(shell: Shell, guarded: Broker, topic: str, secret_file: Path) -> None:
    words = ["-vv", "--auth-secret-file", str(secret_file), *guarded.flags]
    pipe = shell.start("q-pipe", topic, *words, stdin=subprocess.PIPE)
    tail = shell.start("q-tail", f"{topic}/me", "-n", "1", *words)
    pipe.feed(b"a\n")
    tail.wait_out(2)
    for program in (pipe, tail):
        if program.is_running:
            assert SECRET.encode() not in Path(f"/proc/{program.pid}/cmdline").read_bytes()
    pipe.end_input()
    for done in (pipe.wait(), tail.wait()):
        assert done.status == 0, done.err
        assert SECRET not in done.err


def test_there_is_no_flag_that_takes_it(shell: Shell) -> None:
    for program in ("q-pipe", "q-tail"):
        done = shell.run(program, "topic", "--auth-secret", SECRET, input=b"")
        assert done.status == 2


@pytest.mark.parametrize(
    ("text", "status", "told"),
    [(None, 3, "cannot read the secret file secret: No such file"), ("", 2, "is empty"), ("\n", 2, "is empty")],
)
@pytest.mark.parametrize("program", ["q-pipe", "q-tail"])
def test_a_file_without_a_secret(shell: Shell, program: str, text: str | None, status: int, told: str) -> None:
    if text is not None:
        (shell.home / "secret").write_text(text)
    done = shell.run(program, "topic", "--auth-secret-file", "secret", "--nsqd", "127.0.0.1:1", input=b"")
    assert done.status == status
    assert told in done.err

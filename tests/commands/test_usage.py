"""--help, --version and what is no usage; quickly."""

from __future__ import annotations

import re
import sys

import pytest
from harness.shell import MODULES, NOT_MEASURED, Shell
from harness.waiting import children_cpu

from qtools import __version__

PROGRAMS = sorted(MODULES)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help(shell: Shell, program: str, word: str) -> None:
    done = shell.run(program, word)
    assert (done.status, done.err) == (0, "")
    text = done.out.decode()
    assert text.startswith(f"Usage: {program} [OPTIONS]")
    assert max(map(len, text.splitlines())) <= 100
    assert "--version" in text


@pytest.mark.parametrize("program", PROGRAMS)
def test_version(shell: Shell, program: str) -> None:
    done = shell.run(program, "--version")
    assert (done.status, done.out.decode(), done.err) == (0, f"{program} {__version__}\n", "")


@NOT_MEASURED
@pytest.mark.parametrize("program", PROGRAMS)
def test_help_is_there_at_once(shell: Shell, program: str) -> None:
    """In 60 ms of CPU. The time that passes depends on what else the machine does."""
    shell.run(program, "--help")  # compiles what is not compiled yet

    def seconds() -> float:
        begun = children_cpu()
        shell.run(program, "--help")
        return children_cpu() - begun

    assert any(seconds() < 0.2 for _ in range(5))


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_into_a_pipe_that_closes(shell: Shell, program: str) -> None:
    done = shell.script(f"{{ {program} --help; echo $? >&2; }} | head -1").wait()
    assert done.err == "0\n"
    assert done.out.startswith(b"Usage: ")
    done = shell.script(f"{{ {program} --help; echo $? >&2; }} | true").wait()
    assert done.err == "0\n"


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_unknown_option(shell: Shell, program: str) -> None:
    done = shell.run(program, "--no-such-option")
    assert (done.status, done.out) == (2, b"")
    assert re.fullmatch(rf"{program}: no such option '--no-such-option'.* \(see {program} --help\)\n", done.err), (
        done.err
    )


def test_a_misspelt_option_is_guessed(shell: Shell) -> None:
    done = shell.run("q-tail", "topic", "--until-emty")
    assert done.status == 2
    assert "--until-empty" in done.err


@pytest.mark.parametrize(("program", "told"), [("q-pipe", "TOPIC"), ("q-tail", "TOPIC[/CHANNEL]")])
def test_nothing_given(shell: Shell, program: str, told: str) -> None:
    done = shell.run(program)
    assert done.status == 2
    assert told in done.err
    assert len(done.err_lines) == 1


@pytest.mark.forks
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["q-pipe", "t", "--batch-count", "0"], "--batch-count"),
        (["q-pipe", "t", "--batch-bytes", "lots"], "is not a size such as 65536, 64KiB or 1MB"),
        (["q-pipe", "t", "--linger", "later"], "is not a duration such as 250ms"),
        (["q-pipe", "t", "--format", "xml"], "'xml' is not one of 'raw', 'envelope', 'msgpack', 'length32'"),
        (["q-pipe", "t", "--on-oversize", "cut"], "--on-oversize"),
        (["q-pipe", "t", "--skip-bytes", "-1"], "--skip-bytes"),
        (["q-pipe", "t", "--retry-timeout", "-1s"], "--retry-timeout"),
        (["q-pipe", "t", "--window", "0"], "--window"),
        (["q-tail", "t", "--max-in-flight", "0"], "--max-in-flight"),
        (["q-tail", "t", "--msg-timeout", "10ms"], "--msg-timeout"),
        (["q-tail", "t", "--msg-timeout", "1h"], "--msg-timeout"),
        (["q-tail", "t", "--idle-timeout", "soon"], "--idle-timeout"),
        (["q-tail", "t", "--deflate-level", "10"], "--deflate-level"),
        (["q-broker", "--tcp-address", "nowhere"], "--tcp-address takes HOST:PORT or unix:/path"),
        (["q-broker", "extra"], "extra"),
    ],
)
def test_values_that_cannot_be(shell: Shell, words: list[str], told: str) -> None:
    done = shell.run(*words, input=b"")
    assert (done.status, done.out) == (2, b"")
    assert told in done.err
    assert len(done.err_lines) == 1, done.err


@pytest.mark.parametrize("program", PROGRAMS)
def test_as_a_module(shell: Shell, program: str) -> None:
    done = shell.run(program, "--version", argv=[sys.executable, "-m", MODULES[program]])
    assert done.out.decode() == f"{program} {__version__}\n"


@pytest.mark.forks
@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (["q-pipe", "t", "--checkpoint", ""], "--checkpoint"),
        (["q-pubsub-http", "--token-file", ""], "--token-file"),
        (["q-tail", "t/c", "--auth-secret-file="], "--auth-secret-file"),
        (["q-bridge", "a/b", "--to", "c", "--routes", ""], "--routes"),
        (["q-to-file", "t/c", "-o", ""], "--output"),
        (["q-to-file", "replay", "x", "t", "--checkpoint", ""], "--checkpoint"),
    ],
)
def test_an_empty_name_of_a_file_is_a_variable_that_is_not_set(shell: Shell, words: list[str], flag: str) -> None:
    done = shell.run(words[0], *words[1:])
    assert done.status == 2
    assert f"{flag} is empty: name a " in done.err
    assert "or leave the flag out" in done.err


def test_q_broker_takes_empty_flags_as_nsqd_does(shell: Shell) -> None:
    broker = shell.start(
        "q-broker", "--tls-cert=", "--statsd-address", "", "--tcp-address=127.0.0.1:0", "--data-path=."
    )
    broker.wait_err("TCP: listening on")


@pytest.mark.forks
@pytest.mark.parametrize(
    ("program", "words", "told"),
    [
        ("q-tail", ["--topic=x"], "no such option '--topic': the topic is an argument: q-tail TOPIC[/CHANNEL]"),
        ("q-tail", ["-topic", "x"], "the topic is an argument: q-tail TOPIC[/CHANNEL]"),
        ("q-pipe", ["--topic", "x"], "no such option '--topic': the topic is an argument: q-pipe TOPIC"),
        (
            "q-to-file",
            ["--topic", "x"],
            "no such option '--topic': the topic is an argument: q-to-file TOPIC[/CHANNEL]",
        ),
        ("q-pubsub-http", ["--port", "1"], "no such option '--port': the address is --http-address HOST:PORT"),
        ("q-pubsub-http", ["127.0.0.1:1"], "(127.0.0.1:1): the address is --http-address HOST:PORT"),
    ],
)
def test_habits_from_similar_programs(shell: Shell, program: str, words: list[str], told: str) -> None:
    done = shell.run(program, *words)
    assert (done.status, done.err.endswith(f"{told} (see {program} --help)\n")) == (2, True), done.err

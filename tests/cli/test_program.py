"""A command as a program: exit status, and one line on stderr for every error."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from qtools import __version__

PROLOGUE = """
import click
from qtools import errors
from qtools.cli.program import program
"""


def run(code: str, *arguments: str, **settings: object) -> subprocess.CompletedProcess[bytes]:
    """A program that is `code`, as a process of its own."""
    whole = PROLOGUE + textwrap.dedent(code)
    return subprocess.run(
        [sys.executable, "-c", whole, *arguments],
        **{"capture_output": True, "timeout": 20, "stdin": subprocess.DEVNULL, **settings},  # type: ignore[call-overload]
    )


RAISES = """
@program("q-test")
@click.argument("what")
def main(what):
    '''A test.'''
    raise eval(what)
main()
"""


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        ("errors.UsageError('give one')", 2, "q-test: give one (see q-test --help)\n"),
        ("errors.NameInvalid('topic', 'a b', 'has a blank')", 2,
         "q-test: topic name 'a b' has a blank (see q-test --help)\n"),
        ("errors.StartError('nobody is there')", 3, "q-test: nobody is there\n"),
        ("errors.InputError('broken at byte 7')", 1, "q-test: broken at byte 7\n"),
        ("errors.ConnectionLost('a:1', 'gone')", 1, "q-test: a:1: gone\n"),
        ("errors.SinkError('the disk is full')", 1, "q-test: the disk is full\n"),
        ("click.UsageError('Missing\\n  what.')", 2, "q-test: missing what (see q-test --help)\n"),
        ("click.ClickException('No.')", 2, "q-test: no\n"),
        ("click.Abort()", -signal.SIGINT, ""),
        ("KeyboardInterrupt()", -signal.SIGINT, "\n"),  # behind the ^C that the terminal shows
        ("click.exceptions.Exit(7)", 7, ""),
    ],
)  # fmt: skip
def test_an_error_is_one_line_and_its_status(error: str, status: int, told: str) -> None:
    done = run(RAISES, error)
    assert (done.returncode, done.stderr.decode(), done.stdout) == (status, told, b"")


def test_an_interrupt_is_no_line_where_lines_are_json() -> None:
    done = run(JSON, "--log-format", "json", "raise KeyboardInterrupt")
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")


def test_a_defect_shows_where_it_is() -> None:
    done = run(RAISES, "ZeroDivisionError('ours')")
    assert done.returncode == 1
    assert b"Traceback" in done.stderr


RETURNS = """
@program("q-test", epilog="The end.")
@click.option("--status", type=int)
def main(status):
    '''A test.'''
    print("out")
    return status
main()
"""


@pytest.mark.parametrize("status", [0, 1, 3])
def test_what_the_function_returns_is_the_status(status: int) -> None:
    done = run(RETURNS, "--status", str(status))
    assert (done.returncode, done.stdout, done.stderr) == (status, b"out\n", b"")
    assert run(RETURNS).returncode == 0


def test_an_unknown_flag_is_named() -> None:
    done = run(RETURNS, "--colour")
    assert (done.returncode, done.stderr) == (2, b"q-test: no such option '--colour' (see q-test --help)\n")
    done = run(RETURNS, "--status", "x")
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1


def test_help_and_version_are_on_stdout() -> None:
    for flag in ("-h", "--help"):
        done = run(RETURNS, flag)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.startswith(b"Usage: q-test [OPTIONS]\n")
        assert b"The end." in done.stdout
    assert run(RETURNS, "--version").stdout.decode() == f"q-test {__version__}\n"


def closed_pipe() -> int:
    """The writing end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], []])
def test_a_reader_that_went_away_is_no_failure(arguments: list[str]) -> None:
    writing = closed_pipe()
    try:
        done = run(RETURNS, *arguments, capture_output=False, stdout=writing, stderr=subprocess.PIPE)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["-V"], []])
def test_a_full_disk_is_one_line_and_a_failure(arguments: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = run(RETURNS, *arguments, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr.decode()) == (
        1, "q-test: cannot write to stdout: No space left on device\n"
    )  # fmt: skip


def test_an_error_that_nobody_reads_keeps_its_status() -> None:
    writing = closed_pipe()
    try:
        done = run(RAISES, "errors.StartError('no')", capture_output=False, stdout=subprocess.PIPE, stderr=writing)
    finally:
        os.close(writing)
    assert (done.returncode, done.stdout) == (3, b"")


@pytest.mark.parametrize(("redirection", "status"), [(">&-", 0), ("2>&-", 0), ("<&-", 0), (">&- 2>&- <&-", 0)])
def test_closed_streams_are_no_reason_to_fail(redirection: str, status: int) -> None:
    script = f'exec "$0" -c "$1" --help {redirection}'
    done = subprocess.run(
        ["/bin/sh", "-c", script, sys.executable, PROLOGUE + textwrap.dedent(RETURNS)], capture_output=True, timeout=20
    )
    assert (done.returncode, done.stderr) == (status, b"")


def test_talk_does_not_go_to_stdout_when_stderr_is_closed() -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" -c "$1" --colour 2>&-', sys.executable, PROLOGUE + textwrap.dedent(RETURNS)],
        stdout=subprocess.PIPE,
        timeout=20,
    )
    assert (done.returncode, done.stdout) == (2, b"")


JSON = """
import logging
@program("q-test")
@click.option("--log-format", default="text")
@click.argument("what")
def main(log_format, what):
    from qtools.cli import logs
    logs.set_up("q-test", as_json=log_format == "json")
    exec(what)
main()
"""


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise errors.StartError('nobody is there')", "nobody is there"),
        ("raise errors.UsageError('give one')", "give one (see q-test --help)"),
        ("1 / 0", "internal error: not expected: ZeroDivisionError('division by zero')"),
        ("logging.getLogger('asyncio').warning('%s is slow', 'it')", "it is slow"),
    ],
)
def test_every_line_is_json_where_that_is_asked_for(code: str, message: str) -> None:
    done = run(JSON, "--log-format", "json", code)
    (line,) = done.stderr.decode().splitlines()
    told = json.loads(line)
    assert told["message"] == message
    assert ("Traceback" in told.get("traceback", "")) == ("ZeroDivisionError" in message)
    assert done.returncode == {"n": 3, "g": 2, "i": 1}.get(message[0] if "slow" not in message else "", 0)


def test_a_defect_shows_where_it_is_as_pythons_traceback_otherwise() -> None:
    done = run(JSON, "1 / 0")
    assert done.returncode == 1
    assert done.stderr.startswith(b"Traceback (most recent call last):")


def test_the_last_log_format_counts() -> None:
    words = ["--log-format", "json", "--log-format=text", "--nope", "x"]
    assert run(JSON, *words).stderr.startswith(b"q-test: no such option")
    words = ["--log-format=text", "--log-format", "json", "--nope", "x"]
    assert json.loads(run(JSON, *words).stderr)["message"].startswith("no such option")


RUNS = """
import sys
@program("q-test")
@click.option("--status", type=int)
@click.option("--log-format", default="text")
def main(status, log_format):
    import asyncio
    from qtools.cli.run import run_program
    async def work(signals):
        stopped = asyncio.Event()
        signals.on_stop(stopped.set)
        print("ready", flush=True)
        await stopped.wait()
        print("in order")
        if status < 0:
            raise errors.SinkError("it failed")
        return status
    return run_program(work)
main()
"""


@pytest.mark.parametrize("status", ["0", "1", "-1"])
def test_after_ctrl_c_it_ends_by_that_signal_when_all_is_done(status: str) -> None:
    """Whatever the exit status would be: a shell's loop around it ends as well."""
    told = {"-1": b"q-test: it failed\n"}.get(status, b"")
    for number, expected in ((signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, abs(int(status)))):
        process = subprocess.Popen(
            [sys.executable, "-c", PROLOGUE + RUNS, "--status", status], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.communicate(timeout=20) == (b"in order\n", told)
        assert process.returncode == expected


def test_a_shell_ends_its_loop_with_it() -> None:
    """bash waits for the command, and goes on unless the signal killed it."""
    loop = 'for round in 1 2 3; do "$0" -c "$1" --status 0; done; echo the loop went on'
    shell = subprocess.Popen(
        ["bash", "-c", loop, sys.executable, PROLOGUE + RUNS], stdout=subprocess.PIPE, start_new_session=True
    )
    assert shell.stdout is not None
    assert shell.stdout.readline() == b"ready\n"
    os.killpg(shell.pid, signal.SIGINT)  # what a terminal does at Ctrl-C
    assert shell.communicate(timeout=20)[0] == b"in order\n"
    assert shell.returncode == -signal.SIGINT


@pytest.mark.parametrize("files", [5, 6, 10])
def test_too_few_files_to_work_with_is_one_line(files: int) -> None:
    script = f'ulimit -n {files}; exec "$0" -c "$1" --status 0'
    done = subprocess.run(
        ["bash", "-c", script, sys.executable, PROLOGUE + RUNS], capture_output=True, timeout=20, close_fds=True
    )
    told = f"q-test: this process may open only {files} files, and needs at least 16: see ulimit -n\n"
    assert (done.returncode, done.stderr.decode(), done.stdout) == (3, told, b"")
